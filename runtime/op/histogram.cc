// Histograms: see histogram.h.
#include "runtime/op/histogram.h"

#include <algorithm>
#include <cfloat>
#include <vector>

namespace ferry {
namespace {

const std::vector<double>& BucketLimits() {
  static const auto* const limits = [] {
    std::vector<double> positive;
    for (double v = 1e-12; v < 1e20; v *= 1.1) positive.push_back(v);
    positive.push_back(DBL_MAX);
    auto* all = new std::vector<double>();
    for (auto it = positive.rbegin(); it != positive.rend(); ++it) all->push_back(-*it);
    all->push_back(0.0);
    all->insert(all->end(), positive.begin(), positive.end());
    return all;
  }();
  return *limits;
}

}  // namespace

proto::HistogramProto MakeHistogram(absl::Span<const double> values) {
  const std::vector<double>& limits = BucketLimits();
  std::vector<double> counts(limits.size());
  proto::HistogramProto histogram;
  double min = DBL_MAX, max = -DBL_MAX, sum = 0, sum_squares = 0;
  for (const double value : values) {
    const size_t bucket = std::upper_bound(limits.begin(), limits.end(), value) - limits.begin();
    ++counts[std::min(bucket, limits.size() - 1)];  // DBL_MAX lies in the last one.
    min = std::min(min, value);
    max = std::max(max, value);
    sum += value;
    sum_squares += value * value;
  }
  histogram.set_min(min);
  histogram.set_max(max);
  histogram.set_num(static_cast<double>(values.size()));
  histogram.set_sum(sum);
  histogram.set_sum_squares(sum_squares);
  for (size_t i = 0; i < limits.size(); ++i) {
    if (counts[i] == 0) {
      while (i + 1 < limits.size() && counts[i + 1] == 0) ++i;
    }
    histogram.add_bucket_limit(limits[i]);
    histogram.add_bucket(counts[i]);
  }
  return histogram;
}

}  // namespace ferry
