// The functions that make one node each. What differs from "op, inputs, inferred attributes" is
// spelled out; the rest goes through the helpers.
#include "runtime/graph/ops.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace ferry::ops {
namespace {

NodeBuilder Make(const Scope& s, const char* op, std::initializer_list<Output> inputs) {
  NodeBuilder b(s, op);
  for (const Output& in : inputs) b.Input(in);
  return b;
}

Output Simple(const Scope& s, const char* op, std::initializer_list<Output> inputs) {
  return Make(s, op, inputs).BuildOutput();
}

// The first two outputs of a node; empty ones after an error.
std::pair<Output, Output> Two(Node* n) {
  if (n == nullptr) return {};
  return {Output(n, 0), Output(n, 1)};
}

Output Reduction(const Scope& s, const char* op, Output x, Output axes, bool keep_dims) {
  return Make(s, op, {x, axes}).Attr("keep_dims", keep_dims).BuildOutput();
}

Output Random(const Scope& s, const char* op, Output shape, DType dtype, int64_t seed,
              int64_t seed2) {
  return Make(s, op, {shape})
      .Attr("dtype", dtype)
      .Attr("seed", seed)
      .Attr("seed2", seed2)
      .BuildOutput();
}

Output Convolution(const Scope& s, const char* op, std::initializer_list<Output> inputs,
                   const std::vector<int64_t>& strides, const std::string& padding,
                   const Conv2DAttrs& attrs) {
  return Make(s, op, inputs)
      .Attr("strides", strides)
      .Attr("padding", padding)
      .Attr("explicit_paddings", attrs.explicit_paddings)
      .Attr("data_format", attrs.data_format)
      .Attr("dilations", attrs.dilations)
      .BuildOutput();
}

NodeBuilder Pooling(const Scope& s, const char* op, std::initializer_list<Output> inputs,
                    const std::vector<int64_t>& ksize, const std::vector<int64_t>& strides,
                    const std::string& padding, const std::string& data_format) {
  NodeBuilder b = Make(s, op, inputs);
  b.Attr("ksize", ksize)
      .Attr("strides", strides)
      .Attr("padding", padding)
      .Attr("data_format", data_format);
  return b;
}

// All axes of x: a constant when the rank is known.
Output AllAxes(const Scope& scope, Output x) {
  const Scope s = scope.WithOpName("");
  if (x.node != nullptr && x.shape().known_rank()) {
    std::vector<int32_t> axes(static_cast<size_t>(x.shape().rank()));
    std::iota(axes.begin(), axes.end(), 0);
    return ConstVector(s, axes);
  }
  Output rank = Rank(s, x);
  const Scope range = s.NewSubScope("range");
  Output start = Const<int32_t>(range.WithOpName("start"), 0);
  Output delta = Const<int32_t>(range.WithOpName("delta"), 1);
  return Range(range.WithOpName(range.prefix() + "/"), start, rank, delta);
}

}  // namespace

Output Const(const Scope& s, const Tensor& value) {
  return Make(s, "Const", {}).Attr("dtype", value.dtype()).Attr("value", value).BuildOutput();
}
Output Placeholder(const Scope& s, DType dtype, const PartialShape& shape) {
  return Make(s, "Placeholder", {}).Attr("dtype", dtype).Attr("shape", shape).BuildOutput();
}
Output PlaceholderWithDefault(const Scope& s, Output input, const PartialShape& shape) {
  return Make(s, "PlaceholderWithDefault", {input}).Attr("shape", shape).BuildOutput();
}
Output Identity(const Scope& s, Output x) { return Simple(s, "Identity", {x}); }
Output StopGradient(const Scope& s, Output x) { return Simple(s, "StopGradient", {x}); }
Node* NoOp(const Scope& s) { return NodeBuilder(s, "NoOp").Build(); }
Node* Group(const Scope& scope, const std::vector<Node*>& nodes) {
  if (!scope.ok()) return nullptr;
  std::map<std::string, std::vector<Node*>> by_device;
  for (Node* n : nodes) {
    if (n != nullptr) by_device[n->device()].push_back(n);
  }
  const std::string name = scope.DefaultOpName("group_deps").UniqueOpName("NoOp");
  const Scope s = scope.WithOpName(name + "/");
  auto on = [](const Scope& where, const std::string& device, const std::vector<Node*>& deps) {
    return NoOp((device.empty() ? where : where.WithDevice(device)).WithControlDependencies(deps));
  };
  if (by_device.empty()) return NoOp(s);
  if (by_device.size() == 1) return on(s, by_device.begin()->first, by_device.begin()->second);
  std::vector<Node*> groups;
  for (const auto& [device, members] : by_device) {
    groups.push_back(on(scope.WithPrefix(name), device, members));
  }
  return NoOp(s.WithControlDependencies(groups));
}

Output VariableV2(const Scope& s, const PartialShape& shape, DType dtype,
                  const std::string& shared_name, const std::string& container) {
  return Make(s, "VariableV2", {})
      .Attr("shape", shape)
      .Attr("dtype", dtype)
      .Attr("shared_name", shared_name)
      .Attr("container", container)
      .BuildOutput();
}
Output Assign(const Scope& s, Output ref, Output value, bool validate_shape, bool use_locking) {
  return Make(s, "Assign", {ref, value})
      .Attr("validate_shape", validate_shape)
      .Attr("use_locking", use_locking)
      .BuildOutput();
}
Output AssignAdd(const Scope& s, Output ref, Output value, bool use_locking) {
  return Make(s, "AssignAdd", {ref, value}).Attr("use_locking", use_locking).BuildOutput();
}
Output AssignSub(const Scope& s, Output ref, Output value, bool use_locking) {
  return Make(s, "AssignSub", {ref, value}).Attr("use_locking", use_locking).BuildOutput();
}
Output IsVariableInitialized(const Scope& s, Output ref) {
  return Simple(s, "IsVariableInitialized", {ref});
}

Output VarHandleOp(const Scope& s, const PartialShape& shape, DType dtype,
                   const std::string& shared_name, const std::string& container) {
  return Make(s, "VarHandleOp", {})
      .Attr("shape", shape)
      .Attr("dtype", dtype)
      .Attr("shared_name", shared_name)
      .Attr("container", container)
      .BuildOutput();
}
Output ReadVariableOp(const Scope& s, Output handle, DType dtype) {
  return Make(s, "ReadVariableOp", {handle}).Attr("dtype", dtype).BuildOutput();
}
Node* AssignVariableOp(const Scope& s, Output handle, Output value, bool validate_shape) {
  return Make(s, "AssignVariableOp", {handle, value})
      .Attr("validate_shape", validate_shape)
      .Build();
}
Node* AssignAddVariableOp(const Scope& s, Output handle, Output value) {
  return Make(s, "AssignAddVariableOp", {handle, value}).Build();
}
Node* AssignSubVariableOp(const Scope& s, Output handle, Output value) {
  return Make(s, "AssignSubVariableOp", {handle, value}).Build();
}
Output VarIsInitializedOp(const Scope& s, Output handle) {
  return Simple(s, "VarIsInitializedOp", {handle});
}

SwitchOutputs Switch(const Scope& s, Output data, Output pred) {
  auto [f, t] = Two(Make(s, "Switch", {data, pred}).Build());
  return {f, t};
}
SwitchOutputs RefSwitch(const Scope& s, Output ref, Output pred) {
  auto [f, t] = Two(Make(s, "RefSwitch", {ref, pred}).Build());
  return {f, t};
}
MergeOutputs Merge(const Scope& s, const std::vector<Output>& inputs) {
  auto [output, index] = Two(NodeBuilder(s, "Merge").Input(inputs).Build());
  return {output, index};
}

#define FERRY_UNARY(Op) \
  Output Op(const Scope& s, Output x) { return Simple(s, #Op, {x}); }
#define FERRY_BINARY(Op) \
  Output Op(const Scope& s, Output x, Output y) { return Simple(s, #Op, {x, y}); }
FERRY_UNARY(Neg)
FERRY_UNARY(Square)
FERRY_UNARY(Sqrt)
FERRY_UNARY(Rsqrt)
FERRY_UNARY(Exp)
FERRY_UNARY(Log)
FERRY_UNARY(Abs)
FERRY_UNARY(Sign)
FERRY_UNARY(Reciprocal)
FERRY_UNARY(Floor)
FERRY_UNARY(Relu)
FERRY_UNARY(Relu6)
FERRY_UNARY(Sigmoid)
FERRY_UNARY(Tanh)
FERRY_UNARY(Elu)
FERRY_UNARY(Softplus)
FERRY_UNARY(Selu)
FERRY_UNARY(Softsign)
FERRY_UNARY(LogicalNot)
FERRY_UNARY(ZerosLike)
FERRY_UNARY(OnesLike)
FERRY_UNARY(L2Loss)
FERRY_UNARY(Softmax)
FERRY_UNARY(LogSoftmax)
FERRY_UNARY(IsFinite)
FERRY_BINARY(Add)
FERRY_BINARY(AddV2)
FERRY_BINARY(Sub)
FERRY_BINARY(Mul)
FERRY_BINARY(RealDiv)
FERRY_BINARY(Div)
FERRY_BINARY(FloorDiv)
FERRY_BINARY(FloorMod)
FERRY_BINARY(Pow)
FERRY_BINARY(Maximum)
FERRY_BINARY(Minimum)
FERRY_BINARY(SquaredDifference)
FERRY_BINARY(DivNoNan)
FERRY_BINARY(Equal)
FERRY_BINARY(NotEqual)
FERRY_BINARY(Less)
FERRY_BINARY(LessEqual)
FERRY_BINARY(Greater)
FERRY_BINARY(GreaterEqual)
FERRY_BINARY(LogicalAnd)
FERRY_BINARY(LogicalOr)
FERRY_BINARY(BiasAdd)
#undef FERRY_UNARY
#undef FERRY_BINARY

Output AddN(const Scope& s, const std::vector<Output>& inputs) {
  return NodeBuilder(s, "AddN").Input(inputs).BuildOutput();
}
Output LeakyRelu(const Scope& s, Output x, float alpha) {
  return Make(s, "LeakyRelu", {x}).Attr("alpha", alpha).BuildOutput();
}
Output Select(const Scope& s, Output condition, Output t, Output e) {
  return Simple(s, "Select", {condition, t, e});
}
Output SelectV2(const Scope& s, Output condition, Output t, Output e) {
  return Simple(s, "SelectV2", {condition, t, e});
}
Output Cast(const Scope& s, Output x, DType to, bool truncate) {
  return Make(s, "Cast", {x}).Attr("DstT", to).Attr("Truncate", truncate).BuildOutput();
}

Output Reshape(const Scope& s, Output x, Output shape) { return Simple(s, "Reshape", {x, shape}); }
Output Shape(const Scope& s, Output x, DType out_type) {
  return Make(s, "Shape", {x}).Attr("out_type", out_type).BuildOutput();
}
Output Size(const Scope& s, Output x, DType out_type) {
  return Make(s, "Size", {x}).Attr("out_type", out_type).BuildOutput();
}
Output Rank(const Scope& s, Output x) { return Simple(s, "Rank", {x}); }
Output Fill(const Scope& s, Output dims, Output value) { return Simple(s, "Fill", {dims, value}); }
Output Pack(const Scope& s, const std::vector<Output>& values, int axis) {
  return NodeBuilder(s, "Pack").Input(values).Attr("axis", axis).BuildOutput();
}
std::vector<Output> Unpack(const Scope& s, Output value, int num, int axis) {
  Node* n = Make(s, "Unpack", {value}).Attr("num", num).Attr("axis", axis).Build();
  std::vector<Output> outputs(static_cast<size_t>(std::max(num, 0)));
  for (int i = 0; n != nullptr && i < num; ++i) outputs[static_cast<size_t>(i)] = Output(n, i);
  return outputs;
}
Output ConcatV2(const Scope& s, const std::vector<Output>& values, Output axis) {
  return NodeBuilder(s, "ConcatV2").Input(values).Input(axis).BuildOutput();
}
Output Slice(const Scope& s, Output x, Output begin, Output size) {
  return Simple(s, "Slice", {x, begin, size});
}
Output StridedSlice(const Scope& s, Output x, Output begin, Output end, Output strides,
                    const StridedSliceMasks& masks) {
  return Make(s, "StridedSlice", {x, begin, end, strides})
      .Attr("begin_mask", masks.begin)
      .Attr("end_mask", masks.end)
      .Attr("ellipsis_mask", masks.ellipsis)
      .Attr("new_axis_mask", masks.new_axis)
      .Attr("shrink_axis_mask", masks.shrink_axis)
      .BuildOutput();
}
Output Transpose(const Scope& s, Output x, Output perm) {
  return Simple(s, "Transpose", {x, perm});
}
Output ExpandDims(const Scope& s, Output x, Output axis) {
  return Simple(s, "ExpandDims", {x, axis});
}
Output Squeeze(const Scope& s, Output x, const std::vector<int64_t>& dims) {
  return Make(s, "Squeeze", {x}).Attr("squeeze_dims", dims).BuildOutput();
}
Output Tile(const Scope& s, Output x, Output multiples) {
  return Simple(s, "Tile", {x, multiples});
}
Output BroadcastTo(const Scope& s, Output x, Output shape) {
  return Simple(s, "BroadcastTo", {x, shape});
}
Output GatherV2(const Scope& s, Output params, Output indices, Output axis, int64_t batch_dims) {
  return Make(s, "GatherV2", {params, indices, axis}).Attr("batch_dims", batch_dims).BuildOutput();
}
Output Range(const Scope& s, Output start, Output limit, Output delta) {
  return Simple(s, "Range", {start, limit, delta});
}
Output OneHot(const Scope& s, Output indices, Output depth, Output on, Output off, int64_t axis) {
  return Make(s, "OneHot", {indices, depth, on, off}).Attr("axis", axis).BuildOutput();
}

Output Sum(const Scope& s, Output x, Output axes, bool keep_dims) {
  return Reduction(s, "Sum", x, axes, keep_dims);
}
Output Mean(const Scope& s, Output x, Output axes, bool keep_dims) {
  return Reduction(s, "Mean", x, axes, keep_dims);
}
Output Max(const Scope& s, Output x, Output axes, bool keep_dims) {
  return Reduction(s, "Max", x, axes, keep_dims);
}
Output Min(const Scope& s, Output x, Output axes, bool keep_dims) {
  return Reduction(s, "Min", x, axes, keep_dims);
}
Output Prod(const Scope& s, Output x, Output axes, bool keep_dims) {
  return Reduction(s, "Prod", x, axes, keep_dims);
}
Output ReduceSum(const Scope& s, Output x) { return Sum(s, x, AllAxes(s, x)); }
Output ReduceMean(const Scope& s, Output x) { return Mean(s, x, AllAxes(s, x)); }
Output ArgMax(const Scope& s, Output x, Output dimension, DType output_type) {
  return Make(s, "ArgMax", {x, dimension}).Attr("output_type", output_type).BuildOutput();
}

Output MatMul(const Scope& s, Output a, Output b, bool transpose_a, bool transpose_b) {
  return Make(s, "MatMul", {a, b})
      .Attr("transpose_a", transpose_a)
      .Attr("transpose_b", transpose_b)
      .BuildOutput();
}
CrossEntropyOutputs SoftmaxCrossEntropyWithLogits(const Scope& s, Output logits, Output labels) {
  auto [loss, backprop] = Two(Make(s, "SoftmaxCrossEntropyWithLogits", {logits, labels}).Build());
  return {loss, backprop};
}
CrossEntropyOutputs SparseSoftmaxCrossEntropyWithLogits(const Scope& s, Output logits,
                                                        Output labels) {
  auto [loss, backprop] =
      Two(Make(s, "SparseSoftmaxCrossEntropyWithLogits", {logits, labels}).Build());
  return {loss, backprop};
}

Output Conv2D(const Scope& s, Output input, Output filter, const std::vector<int64_t>& strides,
              const std::string& padding, const Conv2DAttrs& attrs) {
  return Convolution(s, "Conv2D", {input, filter}, strides, padding, attrs);
}
Output Conv2DBackpropInput(const Scope& s, Output input_sizes, Output filter, Output out_backprop,
                           const std::vector<int64_t>& strides, const std::string& padding,
                           const Conv2DAttrs& attrs) {
  return Convolution(s, "Conv2DBackpropInput", {input_sizes, filter, out_backprop}, strides,
                     padding, attrs);
}
Output Conv2DBackpropFilter(const Scope& s, Output input, Output filter_sizes,
                            Output out_backprop, const std::vector<int64_t>& strides,
                            const std::string& padding, const Conv2DAttrs& attrs) {
  return Convolution(s, "Conv2DBackpropFilter", {input, filter_sizes, out_backprop}, strides,
                     padding, attrs);
}
Output MaxPool(const Scope& s, Output input, const std::vector<int64_t>& ksize,
               const std::vector<int64_t>& strides, const std::string& padding,
               const std::string& data_format, const std::vector<int64_t>& explicit_paddings) {
  return Pooling(s, "MaxPool", {input}, ksize, strides, padding, data_format)
      .Attr("explicit_paddings", explicit_paddings)
      .BuildOutput();
}
Output MaxPoolGrad(const Scope& s, Output orig_input, Output orig_output, Output grad,
                   const std::vector<int64_t>& ksize, const std::vector<int64_t>& strides,
                   const std::string& padding, const std::string& data_format,
                   const std::vector<int64_t>& explicit_paddings) {
  return Pooling(s, "MaxPoolGrad", {orig_input, orig_output, grad}, ksize, strides, padding,
                 data_format)
      .Attr("explicit_paddings", explicit_paddings)
      .BuildOutput();
}
Output AvgPool(const Scope& s, Output value, const std::vector<int64_t>& ksize,
               const std::vector<int64_t>& strides, const std::string& padding,
               const std::string& data_format) {
  return Pooling(s, "AvgPool", {value}, ksize, strides, padding, data_format).BuildOutput();
}
Output AvgPoolGrad(const Scope& s, Output orig_input_shape, Output grad,
                   const std::vector<int64_t>& ksize, const std::vector<int64_t>& strides,
                   const std::string& padding, const std::string& data_format) {
  return Pooling(s, "AvgPoolGrad", {orig_input_shape, grad}, ksize, strides, padding, data_format)
      .BuildOutput();
}
FusedBatchNormOutputs FusedBatchNormV3(const Scope& s, Output x, Output scale, Output offset,
                                       Output mean, Output variance, bool is_training,
                                       float epsilon, float exponential_avg_factor,
                                       const std::string& data_format) {
  Node* const n = Make(s, "FusedBatchNormV3", {x, scale, offset, mean, variance})
                      .Attr("epsilon", epsilon)
                      .Attr("exponential_avg_factor", exponential_avg_factor)
                      .Attr("data_format", data_format)
                      .Attr("is_training", is_training)
                      .Build();
  if (n == nullptr) return {};
  return {Output(n, 0), Output(n, 1), Output(n, 2)};
}
Output LRN(const Scope& s, Output x, int64_t depth_radius, float bias, float alpha, float beta) {
  return Make(s, "LRN", {x})
      .Attr("depth_radius", depth_radius)
      .Attr("bias", bias)
      .Attr("alpha", alpha)
      .Attr("beta", beta)
      .BuildOutput();
}

Output RandomUniform(const Scope& s, Output shape, DType dtype, int64_t seed, int64_t seed2) {
  return Random(s, "RandomUniform", shape, dtype, seed, seed2);
}
Output RandomStandardNormal(const Scope& s, Output shape, DType dtype, int64_t seed,
                            int64_t seed2) {
  return Random(s, "RandomStandardNormal", shape, dtype, seed, seed2);
}
Output TruncatedNormal(const Scope& s, Output shape, DType dtype, int64_t seed, int64_t seed2) {
  return Random(s, "TruncatedNormal", shape, dtype, seed, seed2);
}

}  // namespace ferry::ops
