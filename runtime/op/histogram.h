// Histograms as TensorFlow's summaries hold them.
#ifndef FERRY_RUNTIME_OP_HISTOGRAM_H_
#define FERRY_RUNTIME_OP_HISTOGRAM_H_

#include "absl/types/span.h"
#include "proto/summary.pb.h"

namespace ferry {

// The histogram of `values` in TensorFlow's buckets: limits grow by a tenth from ±1e-12 to ±1e20,
// then ±DBL_MAX; a run of empty buckets is one. Values are finite.
proto::HistogramProto MakeHistogram(absl::Span<const double> values);

}  // namespace ferry

#endif  // FERRY_RUNTIME_OP_HISTOGRAM_H_
