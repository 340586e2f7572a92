// One function an op: each makes a node and returns its output(s). Names and arguments follow
// TensorFlow's C++ API; optional attributes come last. An op without a function here is made with
// NodeBuilder.
#ifndef FERRY_RUNTIME_GRAPH_OPS_H_
#define FERRY_RUNTIME_GRAPH_OPS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/graph/scope.h"
#include "runtime/tensor/tensor.h"

namespace ferry::ops {

// ---- Constants, placeholders, control ----
Output Const(const Scope& s, const Tensor& value);
template <typename T>
Output Const(const Scope& s, T value) {
  return Const(s, Tensor::Scalar<T>(value));
}
inline Output Const(const Scope& s, const char* value) {
  return Const(s, Tensor::Scalar<std::string>(value));
}
template <typename T>
Output ConstVector(const Scope& s, const std::vector<T>& values) {
  return Const(s, Tensor::Of<T>(values));
}
Output Placeholder(const Scope& s, DType dtype, const PartialShape& shape = PartialShape());
Output PlaceholderWithDefault(const Scope& s, Output input, const PartialShape& shape);
Output Identity(const Scope& s, Output x);
Output StopGradient(const Scope& s, Output x);
Node* NoOp(const Scope& s);
// A NoOp that depends on all of them, with one in between for each device where there are several:
// tf.group. Named "group_deps" unless the scope names it.
Node* Group(const Scope& s, const std::vector<Node*>& nodes);

// ---- Reference variables (see variables.h for get_variable) ----
Output VariableV2(const Scope& s, const PartialShape& shape, DType dtype,
                  const std::string& shared_name = "", const std::string& container = "");
Output Assign(const Scope& s, Output ref, Output value, bool validate_shape = true,
              bool use_locking = true);
Output AssignAdd(const Scope& s, Output ref, Output value, bool use_locking = false);
Output AssignSub(const Scope& s, Output ref, Output value, bool use_locking = false);
Output IsVariableInitialized(const Scope& s, Output ref);

// ---- Resource variables (see variables.h for what works on both kinds) ----
Output VarHandleOp(const Scope& s, const PartialShape& shape, DType dtype,
                   const std::string& shared_name = "", const std::string& container = "");
Output ReadVariableOp(const Scope& s, Output handle, DType dtype);
Node* AssignVariableOp(const Scope& s, Output handle, Output value, bool validate_shape = false);
Node* AssignAddVariableOp(const Scope& s, Output handle, Output value);
Node* AssignSubVariableOp(const Scope& s, Output handle, Output value);
Output VarIsInitializedOp(const Scope& s, Output handle);

// ---- Conditionals ----
struct SwitchOutputs {
  Output output_false, output_true;
};
SwitchOutputs Switch(const Scope& s, Output data, Output pred);
SwitchOutputs RefSwitch(const Scope& s, Output ref, Output pred);
struct MergeOutputs {
  Output output, value_index;
};
MergeOutputs Merge(const Scope& s, const std::vector<Output>& inputs);

// ---- Element-wise, with broadcasting where there are two inputs ----
#define FERRY_UNARY(Op) Output Op(const Scope& s, Output x);
#define FERRY_BINARY(Op) Output Op(const Scope& s, Output x, Output y);
FERRY_UNARY(Neg) FERRY_UNARY(Square) FERRY_UNARY(Sqrt) FERRY_UNARY(Rsqrt) FERRY_UNARY(Exp)
FERRY_UNARY(Log) FERRY_UNARY(Abs) FERRY_UNARY(Sign) FERRY_UNARY(Reciprocal) FERRY_UNARY(Floor)
FERRY_UNARY(Relu) FERRY_UNARY(Relu6) FERRY_UNARY(Sigmoid) FERRY_UNARY(Tanh) FERRY_UNARY(Elu)
FERRY_UNARY(Softplus) FERRY_UNARY(Selu) FERRY_UNARY(Softsign) FERRY_UNARY(LogicalNot)
FERRY_UNARY(ZerosLike) FERRY_UNARY(OnesLike) FERRY_UNARY(L2Loss) FERRY_UNARY(Softmax)
FERRY_UNARY(LogSoftmax) FERRY_UNARY(IsFinite)
FERRY_BINARY(Add) FERRY_BINARY(AddV2) FERRY_BINARY(Sub) FERRY_BINARY(Mul) FERRY_BINARY(RealDiv)
FERRY_BINARY(Div) FERRY_BINARY(FloorDiv) FERRY_BINARY(FloorMod) FERRY_BINARY(Pow)
FERRY_BINARY(Maximum) FERRY_BINARY(Minimum) FERRY_BINARY(SquaredDifference)
FERRY_BINARY(DivNoNan)
FERRY_BINARY(Equal) FERRY_BINARY(NotEqual) FERRY_BINARY(Less) FERRY_BINARY(LessEqual)
FERRY_BINARY(Greater) FERRY_BINARY(GreaterEqual) FERRY_BINARY(LogicalAnd) FERRY_BINARY(LogicalOr)
FERRY_BINARY(BiasAdd)
#undef FERRY_UNARY
#undef FERRY_BINARY
Output LeakyRelu(const Scope& s, Output x, float alpha = 0.2f);
Output AddN(const Scope& s, const std::vector<Output>& inputs);
Output Select(const Scope& s, Output condition, Output t, Output e);
Output SelectV2(const Scope& s, Output condition, Output t, Output e);
Output Cast(const Scope& s, Output x, DType to, bool truncate = false);

// ---- Shapes ----
Output Reshape(const Scope& s, Output x, Output shape);
Output Shape(const Scope& s, Output x, DType out_type = DType::kInt32);
Output Size(const Scope& s, Output x, DType out_type = DType::kInt32);
Output Rank(const Scope& s, Output x);
Output Fill(const Scope& s, Output dims, Output value);
Output Pack(const Scope& s, const std::vector<Output>& values, int axis = 0);
std::vector<Output> Unpack(const Scope& s, Output value, int num, int axis = 0);
Output ConcatV2(const Scope& s, const std::vector<Output>& values, Output axis);
Output Slice(const Scope& s, Output x, Output begin, Output size);
struct StridedSliceMasks {
  int64_t begin = 0, end = 0, ellipsis = 0, new_axis = 0, shrink_axis = 0;
};
Output StridedSlice(const Scope& s, Output x, Output begin, Output end, Output strides,
                    const StridedSliceMasks& masks = {});
Output Transpose(const Scope& s, Output x, Output perm);
Output ExpandDims(const Scope& s, Output x, Output axis);
Output Squeeze(const Scope& s, Output x, const std::vector<int64_t>& dims = {});
Output Tile(const Scope& s, Output x, Output multiples);
Output BroadcastTo(const Scope& s, Output x, Output shape);
Output GatherV2(const Scope& s, Output params, Output indices, Output axis,
                int64_t batch_dims = 0);
Output Range(const Scope& s, Output start, Output limit, Output delta);
Output OneHot(const Scope& s, Output indices, Output depth, Output on, Output off,
              int64_t axis = -1);

// ---- Reductions: `axes` is an int32 or int64 scalar or vector ----
Output Sum(const Scope& s, Output x, Output axes, bool keep_dims = false);
Output Mean(const Scope& s, Output x, Output axes, bool keep_dims = false);
Output Max(const Scope& s, Output x, Output axes, bool keep_dims = false);
Output Min(const Scope& s, Output x, Output axes, bool keep_dims = false);
Output Prod(const Scope& s, Output x, Output axes, bool keep_dims = false);
// Over all axes. When the rank is known the axes are a constant "Const", as TensorFlow's.
Output ReduceSum(const Scope& s, Output x);
Output ReduceMean(const Scope& s, Output x);
Output ArgMax(const Scope& s, Output x, Output dimension, DType output_type = DType::kInt64);

// ---- Matrices, losses ----
Output MatMul(const Scope& s, Output a, Output b, bool transpose_a = false,
              bool transpose_b = false);
struct CrossEntropyOutputs {
  Output loss, backprop;
};
CrossEntropyOutputs SoftmaxCrossEntropyWithLogits(const Scope& s, Output logits, Output labels);
CrossEntropyOutputs SparseSoftmaxCrossEntropyWithLogits(const Scope& s, Output logits,
                                                        Output labels);

// ---- Images: NHWC, or NCHW where data_format says so. `strides`, `ksize` and `dilations` have an
// entry a dimension of the image tensor; padding is SAME, VALID or EXPLICIT (Conv2D, MaxPool) ----
struct Conv2DAttrs {
  std::string data_format = "NHWC";
  std::vector<int64_t> dilations = {1, 1, 1, 1};
  std::vector<int64_t> explicit_paddings;  // Before and after each dimension.
};
// The filter is [rows, columns, input channels, output channels]. An input with a multiple of its
// channels is convolved in groups.
Output Conv2D(const Scope& s, Output input, Output filter, const std::vector<int64_t>& strides,
              const std::string& padding, const Conv2DAttrs& attrs = {});
Output Conv2DBackpropInput(const Scope& s, Output input_sizes, Output filter, Output out_backprop,
                           const std::vector<int64_t>& strides, const std::string& padding,
                           const Conv2DAttrs& attrs = {});
Output Conv2DBackpropFilter(const Scope& s, Output input, Output filter_sizes,
                            Output out_backprop, const std::vector<int64_t>& strides,
                            const std::string& padding, const Conv2DAttrs& attrs = {});
Output MaxPool(const Scope& s, Output input, const std::vector<int64_t>& ksize,
               const std::vector<int64_t>& strides, const std::string& padding,
               const std::string& data_format = "NHWC",
               const std::vector<int64_t>& explicit_paddings = {});
Output MaxPoolGrad(const Scope& s, Output orig_input, Output orig_output, Output grad,
                   const std::vector<int64_t>& ksize, const std::vector<int64_t>& strides,
                   const std::string& padding, const std::string& data_format = "NHWC",
                   const std::vector<int64_t>& explicit_paddings = {});
Output AvgPool(const Scope& s, Output value, const std::vector<int64_t>& ksize,
               const std::vector<int64_t>& strides, const std::string& padding,
               const std::string& data_format = "NHWC");
Output AvgPoolGrad(const Scope& s, Output orig_input_shape, Output grad,
                   const std::vector<int64_t>& ksize, const std::vector<int64_t>& strides,
                   const std::string& padding, const std::string& data_format = "NHWC");
// Training: y is x made mean 0 and variance 1 a channel, times scale, plus offset; `mean` and
// `variance` (empty, or running averages if exponential_avg_factor isn't 1) give batch_mean and
// batch_variance. Inference: with the mean and variance that are given.
struct FusedBatchNormOutputs {
  Output y, batch_mean, batch_variance;
};
FusedBatchNormOutputs FusedBatchNormV3(const Scope& s, Output x, Output scale, Output offset,
                                       Output mean, Output variance, bool is_training = true,
                                       float epsilon = 0.0001f, float exponential_avg_factor = 1,
                                       const std::string& data_format = "NHWC");
// y = x / (bias + alpha * the sum of squares of 2 * depth_radius + 1 channels) ^ beta
Output LRN(const Scope& s, Output x, int64_t depth_radius = 5, float bias = 1, float alpha = 1,
           float beta = 0.5f);

// ---- Random: seeds 0, 0 mean a seed of the machine's ----
Output RandomUniform(const Scope& s, Output shape, DType dtype, int64_t seed = 0,
                     int64_t seed2 = 0);
Output RandomStandardNormal(const Scope& s, Output shape, DType dtype, int64_t seed = 0,
                            int64_t seed2 = 0);
Output TruncatedNormal(const Scope& s, Output shape, DType dtype, int64_t seed = 0,
                       int64_t seed2 = 0);

}  // namespace ferry::ops

#endif  // FERRY_RUNTIME_GRAPH_OPS_H_
