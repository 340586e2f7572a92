// Embedding lookups; see the header.
#include "runtime/graph/embedding.h"

#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/sparse_gradient.h"

namespace ferry {
namespace {

Scope AsScope(const Scope& s) { return s.WithOpName(s.prefix() + "/"); }

using Binary = Output (*)(const Scope&, Output, Output);

// An op with a whole number as its second operand, named under it: "mod" with "mod/y".
Output ByInt(const Scope& s, Binary op, const char* name, Output x, int64_t y) {
  const Scope sub = s.NewSubScope(name);
  Output c = ScalarConst(sub.WithOpName("y"), BaseType(x.dtype()), static_cast<double>(y));
  return op(AsScope(sub), x, c);
}

// The rows of one table or part, in `s` with its op name.
Output Gather(const Scope& s, const std::string& name, const VariableHandle& table, Output ids) {
  const Scope near = s.ColocateWith(table.ref.node);
  if (table.is_resource()) {
    return NodeBuilder(near.WithOpName(name), "ResourceGather")
        .Input(table.ref)
        .Input(ids)
        .Attr("dtype", table.dtype())
        .BuildOutput();
  }
  const Scope sub = near.WithPrefix(name.substr(0, name.size() - 1));
  Output axis = ops::Const<int32_t>(sub.WithOpName("axis"), 0);
  return ops::GatherV2(near.WithOpName(name), table.read, ids, axis);
}

std::vector<Output> Partition(const Scope& s, Output data, Output parts, int n) {
  Node* node =
      NodeBuilder(s, "DynamicPartition").Input(data).Input(parts).Attr("num_partitions", n).Build();
  std::vector<Output> out;
  for (int i = 0; node != nullptr && i < n; ++i) out.emplace_back(node, i);
  return out;
}

}  // namespace

Output EmbeddingLookup(const Scope& scope, const VariableHandle& table, Output ids) {
  return EmbeddingLookup(scope, std::vector<VariableHandle>{table}, ids);
}

Output EmbeddingLookup(const Scope& scope, const std::vector<VariableHandle>& parts, Output ids,
                       PartitionStrategy strategy) {
  if (!scope.ok()) return Output();
  if (parts.empty()) {
    scope.UpdateStatus(InvalidArgument("Need at least one param"));
    return Output();
  }
  for (const VariableHandle& part : parts) {
    if (!part.shape().known_rank() || part.shape().rank() < 1) {
      scope.UpdateStatus(InvalidArgument("the table '", part.name(),
                                         "' needs a known rank of at least 1, found shape ",
                                         part.shape().DebugString()));
      return Output();
    }
    if (parts.size() > 1 && !part.shape().fully_defined()) {
      scope.UpdateStatus(InvalidArgument("the shape of the part '", part.name(),
                                         "' is not fully known: ", part.shape().DebugString()));
      return Output();
    }
  }
  const std::string full = scope.UniqueOpName("embedding_lookup");
  const Scope s = scope.WithPrefix(full);
  if (parts.size() == 1) {
    return ops::Identity(s, Gather(s, full + "/", parts[0], ids));
  }
  const int n = static_cast<int>(parts.size());
  const auto minus = [&](Output x, Output y) { return ops::Sub(s.WithOpName("sub"), x, y); };
  const auto div = [&](Output x, Output y) {
    return ops::FloorDiv(s.WithOpName("floordiv"), x, y);
  };
  const auto mod = [&](Output x, Output y) { return ops::FloorMod(s.WithOpName("mod"), x, y); };
  const Scope reshape = s.NewSubScope("Reshape");
  Output flat = ops::Reshape(AsScope(reshape), ids,
                             ops::ConstVector<int32_t>(reshape.WithOpName("shape"), {-1}));
  Output count = flat.node != nullptr && flat.shape().fully_defined()
                     ? ops::Const(s.WithOpName("Size"), static_cast<int32_t>(flat.shape().dim(0)))
                     : ops::Size(s, flat);
  const Scope range = s.NewSubScope("range");
  Output first = ops::Const<int32_t>(range.WithOpName("start"), 0);
  Output positions =
      ops::Range(AsScope(range), first, count, ops::Const<int32_t>(range.WithOpName("delta"), 1));
  if (!s.ok()) return Output();
  Output part, row;
  if (strategy == PartitionStrategy::kMod) {
    part = ByInt(s, ops::FloorMod, "mod", flat, n);
    row = ByInt(s, ops::FloorDiv, "floordiv", flat, n);
  } else {
    // The first `extras` parts have a row more than the others' `each`.
    int64_t rows = 0;
    for (const VariableHandle& v : parts) rows += v.shape().dim(0);
    Output all = ScalarConst(s, BaseType(flat.dtype()), static_cast<double>(rows));
    Output each = ByInt(s, ops::FloorDiv, "floordiv", all, n);
    Output extras = ByInt(s, ops::FloorMod, "mod", all, n);
    Output in_long = div(flat, ByInt(s, ops::AddV2, "add", each, 1));
    part = ops::Maximum(s, in_long, div(minus(flat, extras), each));
    Output is_long = ops::Less(s, part, extras);
    Output row_of_long = mod(flat, ByInt(s, ops::AddV2, "add", each, 1));
    row = ops::Select(s, is_long, row_of_long, mod(minus(flat, extras), each));
  }
  if (!s.ok()) return Output();
  if (BaseType(part.dtype()) != DType::kInt32) part = ops::Cast(s, part, DType::kInt32);
  const std::vector<Output> rows = Partition(s, row, part, n);
  const std::vector<Output> places = Partition(s, positions, part, n);
  if (!s.ok()) return Output();
  std::vector<Output> found;
  for (int i = 0; i < n; ++i) {
    const auto k = static_cast<size_t>(i);
    const char* op = parts[k].is_resource() ? "ResourceGather" : "GatherV2";
    found.push_back(Gather(s, s.NewSubScope(op).prefix() + "/", parts[k], rows[k]));
  }
  Output stitched =
      NodeBuilder(AsScope(s), "ParallelDynamicStitch").Input(places).Input(found).BuildOutput();
  std::vector<int32_t> row_shape;
  for (int i = 1; i < parts[0].shape().rank(); ++i) {
    row_shape.push_back(static_cast<int32_t>(parts[0].shape().dim(i)));
  }
  Output ids_shape = ShapeOf(s, ids);
  const Scope concat = s.NewSubScope("concat");
  Output tail = ops::ConstVector(concat.WithOpName("values_1"), row_shape);
  Output shape = ops::ConcatV2(AsScope(concat), {ids_shape, tail},
                               ops::Const<int32_t>(concat.WithOpName("axis"), 0));
  return ops::Reshape(s, stitched, shape);
}

}  // namespace ferry
