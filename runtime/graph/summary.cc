// Summary ops.
#include "runtime/graph/summary.h"

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"
#include "runtime/graph/collections.h"
#include "runtime/graph/ops.h"

namespace ferry::summary {
namespace {

std::string CleanTag(const std::string& name) {
  std::string tag = name;
  for (char& c : tag) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '/' && c != '_' &&
        c != '.') {
      c = '_';
    }
  }
  while (absl::StartsWith(tag, "/")) tag.erase(0, 1);
  return tag;
}

Output Make(const Scope& outer, const char* op, const char* tag_name, const std::string& name,
            Output value, const std::vector<std::string>& collections) {
  if (!outer.ok()) return Output();
  const Scope s = outer.NewSubScope(CleanTag(name));
  Output tag = ops::Const(s.WithOpName(tag_name), s.prefix().c_str());
  Output made =
      NodeBuilder(s.WithOpName(s.prefix() + "/"), op).Input(tag).Input(value).BuildOutput();
  if (!s.ok()) return Output();
  for (const std::string& c : collections) {
    s.UpdateStatus(AddNodeToCollection(s.graph(), c, made.name()));
  }
  return made;
}

}  // namespace

Output Scalar(const Scope& s, const std::string& name, Output value,
              const std::vector<std::string>& collections) {
  return Make(s, "ScalarSummary", "tags", name, value, collections);
}

Output Histogram(const Scope& s, const std::string& name, Output values,
                 const std::vector<std::string>& collections) {
  return Make(s, "HistogramSummary", "tag", name, values, collections);
}

Output Merge(const Scope& s, const std::vector<Output>& summaries) {
  return NodeBuilder(s.NewSubScope("Merge"), "MergeSummary").Input(summaries).BuildOutput();
}

Output MergeAll(const Scope& s, const std::string& collection) {
  absl::StatusOr<std::vector<std::string>> names = GetNodeCollection(*s.graph(), collection);
  s.UpdateStatus(names.status());
  std::vector<Output> all;
  for (size_t i = 0; s.ok() && i < names->size(); ++i) {
    absl::StatusOr<Output> o = s.graph()->FindOutput((*names)[i]);
    s.UpdateStatus(o.status());
    if (o.ok()) all.push_back(*o);
  }
  return !s.ok() || all.empty() ? Output() : Merge(s, all);
}

}  // namespace ferry::summary
