// Ops that record values for TensorBoard while a graph runs: tf.compat.v1.summary, with its names.
//
//   summary::Scalar(root, "loss", loss);
//   summary::Histogram(root, "weights", w.read);
//   Output all = summary::MergeAll(root);   // Fetched, its bytes are a Summary for FileWriter.
#ifndef FERRY_RUNTIME_GRAPH_SUMMARY_H_
#define FERRY_RUNTIME_GRAPH_SUMMARY_H_

#include <string>
#include <vector>

#include "runtime/graph/scope.h"

namespace ferry::summary {

// The collection in which summaries are.
inline constexpr char kSummaries[] = "summaries";

// A string scalar: a serialized Summary. The op is named, and the value tagged, by `name` in the
// scope; characters that a name can't have become "_". A scalar may be NaN; a histogram of a NaN or
// an infinity is InvalidArgument when it runs.
Output Scalar(const Scope& s, const std::string& name, Output value,
              const std::vector<std::string>& collections = {kSummaries});
Output Histogram(const Scope& s, const std::string& name, Output values,
                 const std::vector<std::string>& collections = {kSummaries});
// One with the values of all. The same tag twice is InvalidArgument when it runs.
Output Merge(const Scope& s, const std::vector<Output>& summaries);
// Of all in the collection; empty, without an error, when there are none.
Output MergeAll(const Scope& s, const std::string& collection = kSummaries);

}  // namespace ferry::summary

#endif  // FERRY_RUNTIME_GRAPH_SUMMARY_H_
