// Partitioned variables.
#include "runtime/graph/partitioned_variable.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"

namespace ferry {
namespace {

// The axis along which there is more than one part; 0 if there is none.
absl::StatusOr<int> SplitAxis(const std::string& name, const TensorShape& shape,
                              const std::vector<int>& partitions) {
  if (static_cast<int>(partitions.size()) != shape.rank()) {
    return InvalidArgument("variable '", name, "': ", partitions.size(),
                           " numbers of partitions for the shape ", shape.DebugString());
  }
  int axis = 0, split = 0;
  for (int d = 0; d < shape.rank(); ++d) {
    const int n = partitions[static_cast<size_t>(d)];
    if (n < 1 || n > std::max<int64_t>(1, shape.dim(d))) {
      return InvalidArgument("variable '", name, "': ", n, " partitions along axis ", d,
                             " of the shape ", shape.DebugString());
    }
    if (n == 1) continue;
    axis = d;
    ++split;
  }
  if (split > 1) {
    return InvalidArgument("Can only slice a variable along one dimension: variable '", name,
                           "', shape: ", shape.DebugString(), ", partitioning: [",
                           absl::StrJoin(partitions, ","), "]");
  }
  return axis;
}

}  // namespace

std::vector<int> FixedSizePartitions(const TensorShape& shape, int parts, int axis) {
  std::vector<int> partitions(static_cast<size_t>(shape.rank()), 1);
  if (axis >= 0 && axis < shape.rank()) {
    const int64_t rows = std::max<int64_t>(1, shape.dim(axis));
    partitions[static_cast<size_t>(axis)] = static_cast<int>(std::min<int64_t>(parts, rows));
  }
  return partitions;
}

PartitionedVariable GetPartitionedVariable(const Scope& s, const std::string& name,
                                           const TensorShape& shape, DType dtype,
                                           const std::vector<int>& partitions,
                                           const VariableOptions& options) {
  PartitionedVariable v;
  if (!s.ok()) return v;
  v.name = s.prefix().empty() ? name : absl::StrCat(s.prefix(), "/", name);
  v.shape = shape;
  const absl::StatusOr<int> axis = SplitAxis(v.name, shape, partitions);
  if (!axis.ok()) {
    s.UpdateStatus(axis.status());
    return v;
  }
  v.axis = *axis;
  if (s.graph()->FindNode(v.name) && options.reuse == Reuse::kNo) {
    s.UpdateStatus(InvalidArgument(
        "A partitioner was provided, but an unpartitioned version of the variable was found: ",
        v.name));
    return v;
  }
  VariableOptions part = options;
  if (!part.initializer && IsFloating(dtype)) {
    // The limits of the whole's Glorot initializer, for each of its parts.
    part.initializer = [&shape](const Scope& at, const TensorShape& own, DType type) {
      return RandomUniformInitializer(-GlorotUniformLimit(shape), GlorotUniformLimit(shape))(
          at, own, type);
    };
  }
  const int count = shape.rank() == 0 ? 1 : partitions[static_cast<size_t>(v.axis)];
  int64_t offset = 0;
  for (int i = 0; i < count; ++i) {
    TensorShape own = shape;
    if (shape.rank() > 0) {
      const int64_t rows = shape.dim(v.axis);
      own.set_dim(v.axis, rows / count + (i < rows % count ? 1 : 0));
    }
    auto slice = std::make_shared<proto::SaveSliceInfoDef>();
    slice->set_full_name(v.name);
    for (int d = 0; d < shape.rank(); ++d) {
      slice->add_full_shape(shape.dim(d));
      slice->add_var_offset(d == v.axis ? offset : 0);
      slice->add_var_shape(own.dim(d));
    }
    if (shape.rank() > 0) offset += own.dim(v.axis);
    part.slice = slice;
    VariableHandle h = GetVariable(s, absl::StrCat(name, "/part_", i), own, dtype, part);
    if (!h) {
      v.parts.clear();
      return v;
    }
    h.slice = std::move(slice);  // One that is used again was found without.
    v.parts.push_back(std::move(h));
  }
  return v;
}

Output PartitionedVariable::AsTensor(const Scope& s) const {
  if (parts.empty()) return Output();
  const Scope plain = s.ClearColocation().WithNoControlDependencies();
  Output whole = parts[0].read;
  if (parts.size() > 1) {
    std::vector<Output> reads;
    for (const VariableHandle& p : parts) reads.push_back(p.read);
    const Scope at =
        plain.WithPrefix(s.graph()->UniqueName(absl::StrCat(name, "/ConcatPartitions")));
    const Output on =
        ops::Const<int32_t>(at.WithPrefix(at.prefix() + "/concat").WithOpName("axis"), axis);
    whole = ops::ConcatV2(at.WithOpName("concat"), reads, on);
  }
  return ops::Identity(plain.WithPrefix("").WithOpName(name), whole);
}

}  // namespace ferry
