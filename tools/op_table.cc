// The table of ops: see op_table.h.
#include "tools/op_table.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// Sets of dtypes that have a name, the larger ones first.
const std::vector<std::pair<const char*, std::set<DType>>>& Words() {
  static const auto* words = new std::vector<std::pair<const char*, std::set<DType>>>{
      {"ints",
       {DType::kInt8, DType::kInt16, DType::kInt32, DType::kInt64, DType::kUint8, DType::kUint16,
        DType::kUint32, DType::kUint64}},
      {"floats", {DType::kHalf, DType::kBfloat16, DType::kFloat, DType::kDouble}},
      {"complexes", {DType::kComplex64, DType::kComplex128}},
  };
  return *words;
}

std::string DTypesInWords(std::set<DType> types) {
  std::vector<std::string> parts;
  for (const auto& [word, set] : Words()) {
    if (!std::includes(types.begin(), types.end(), set.begin(), set.end())) continue;
    parts.push_back(word);
    for (DType t : set) types.erase(t);
  }
  for (DType t : types) parts.push_back(DTypeName(t));
  return absl::StrJoin(parts, " ");
}

// Of all the op's kernels on the device: by attribute, in the definition's order.
std::string KernelDTypes(const OpInfo& op, DeviceType device) {
  const std::vector<const KernelDef*> kernels = KernelsOf(op.def.name(), device);
  if (kernels.empty()) {
    const auto& attrs = op.def.attr();
    const bool calls = std::any_of(attrs.begin(), attrs.end(), [](const auto& attr) {
      return attr.type() == "func" || attr.type() == "list(func)";
    });
    return calls ? "its functions' ops" : "";
  }
  std::vector<std::string> parts;
  for (const proto::OpDef::AttrDef& attr : op.def.attr()) {
    if (attr.type() != "type" && attr.type() != "list(type)") continue;
    std::set<DType> types;
    bool any = false;
    for (const KernelDef* kernel : kernels) {
      const auto named = std::find_if(kernel->types.begin(), kernel->types.end(),
                                      [&](const auto& t) { return t.first == attr.name(); });
      if (named == kernel->types.end()) {
        any = true;
      } else {
        types.insert(named->second.begin(), named->second.end());
      }
    }
    // A kernel that doesn't ask serves what the definition allows.
    if (any) {
      for (int t : attr.allowed_values().list().type()) types.insert(static_cast<DType>(t));
    }
    parts.push_back(absl::StrCat(
        attr.name(), ": ", any && types.empty() ? std::string("any") : DTypesInWords(types)));
  }
  return parts.empty() ? "yes" : absl::StrJoin(parts, "; ");
}

}  // namespace

std::vector<OpTableRow> OpTable() {
  std::vector<OpTableRow> rows;
  for (const OpInfo* op : AllOps()) {
    OpTableRow row;
    row.op = op->def.name();
    row.cpu = KernelDTypes(*op, DeviceType::kCpu);
    row.gpu = KernelDTypes(*op, DeviceType::kGpu);
    row.gradient = op->gradient ? "yes" : op->not_differentiable ? "none" : "";
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string OpTableMarkdown(const std::vector<OpTableRow>& rows) {
  std::string out = absl::StrCat(
      "# Ops\n\n"
      "What `ferry ops --markdown` prints. Dtypes stand behind the attribute that they are of; an\n"
      "empty cell is a kernel or a gradient that isn't there, and `none` a gradient that is zero "
      "by\n"
      "nature. Where an op has no kernel for the GPU it runs on the CPU, with copies (soft "
      "placement).\n"
      "What calls functions becomes their ops before it runs.\n\n");
  for (const auto& [word, types] : Words()) {
    absl::StrAppend(&out, "- ", word, ": ",
                    absl::StrJoin(types, ", ",
                                  [](std::string* s, DType t) { s->append(DTypeName(t)); }),
                    "\n");
  }
  absl::StrAppend(&out, "\n| op | CPU | GPU | gradient |\n| --- | --- | --- | --- |\n");
  for (const OpTableRow& r : rows) {
    absl::StrAppend(&out, "| ", r.op, " | ", r.cpu, " | ", r.gpu, " | ", r.gradient, " |\n");
  }
  return out;
}

}  // namespace ferry
