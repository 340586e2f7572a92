// The registry of ops: for each its definition (inputs, outputs, attributes), its shape function
// and its gradient. Kernels are registered apart (kernel.h). An op family registers itself in its
// file below kernels/:
//
//   FERRY_OP("MatMul")
//       .Input("a: T").Input("b: T").Output("product: T")
//       .Attr("transpose_a: bool = false").Attr("transpose_b: bool = false")
//       .Attr("T: {bfloat16, half, float, double, int32, int64}")
//       .Shape([](InferenceContext* c) -> absl::Status { … })
//       .Gradient([](GradientContext* c) -> absl::Status { … });
//
// Specifications are TensorFlow's: "name: type", "name: T", "name: Ref(T)", "name: N * T" (N an
// int attribute), "name: TList" (a list(type) attribute); attributes
// "name: kind[ >= n][ = default]" with the kinds string, int, float, bool, type, shape, tensor,
// func, list(kind), and the sets {a, b} of types or 'strings'; "numbertype" and "realnumbertype"
// stand for TensorFlow's sets of those names. Defaults are numbers, true, 'strings', types,
// [lists], and for shapes, tensors and functions a message in text form: "shape: shape = {
// unknown_rank: true }".
#ifndef FERRY_RUNTIME_OP_OP_DEF_H_
#define FERRY_RUNTIME_OP_OP_DEF_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/op_def.pb.h"
#include "runtime/op/attr.h"
#include "runtime/op/shape_inference.h"

namespace ferry {

class GradientContext;  // runtime/graph/gradients.h

using ShapeFn = std::function<absl::Status(InferenceContext*)>;
using GradientFn = std::function<absl::Status(GradientContext*)>;

// One registered op. Immutable once the program runs.
struct OpInfo {
  proto::OpDef def;
  ShapeFn shape;        // Never null: without one, every output is unknown.
  GradientFn gradient;  // Null: none registered.
  // Gradients stop here without an error (StopGradient, Shape, ArgMax …).
  bool not_differentiable = false;
  // Output 0 is input `aliases_input` under another name or shape (Identity, Reshape …): the plan
  // keeps both alive as one. -1: none.
  int aliases_input = -1;
};

class OpBuilder {
 public:
  explicit OpBuilder(std::string name);
  OpBuilder& Input(absl::string_view spec);
  OpBuilder& Output(absl::string_view spec);
  OpBuilder& Attr(absl::string_view spec);
  OpBuilder& Stateful();
  OpBuilder& Commutative();
  OpBuilder& Aggregate();
  OpBuilder& AllowsUninitializedInput();
  OpBuilder& Shape(ShapeFn fn);
  OpBuilder& Gradient(GradientFn fn);
  OpBuilder& NotDifferentiable();
  OpBuilder& AliasesInput(int input);

  // Registers what was built; called by FERRY_OP. A specification that can't be parsed, or a
  // second op of one name, ends the program at start-up with a message: they are mistakes in the
  // program, not in its input.
  struct Registrar {
    Registrar(const OpBuilder& b);  // NOLINT: implicit by design of the macro.
  };

 private:
  OpInfo info_;
  std::vector<std::string> inputs_, outputs_, attrs_;
};

#define FERRY_OP(name) \
  static const ::ferry::OpBuilder::Registrar FERRY_CONCAT_(ferry_op_, __COUNTER__) = \
      ::ferry::OpBuilder(name)

// Null if there is none of that name.
const OpInfo* FindOp(absl::string_view name);
std::vector<const OpInfo*> AllOps();  // By name.

// Adds the defaults of attributes that `attrs` lacks, and checks all against the definition:
// kinds, allowed sets, minimums. InvalidArgument names the op and the attribute. Attributes that
// the definition doesn't have pass unchecked: those whose names begin with '_', and those that a
// newer TensorFlow gave the op.
absl::Status CompleteAttrs(const proto::OpDef& def, AttrMap* attrs);

// The dtypes of a node's inputs and outputs (references as such) under complete attributes.
absl::Status InOutTypes(const proto::OpDef& def, const AttrMap& attrs, std::vector<DType>* inputs,
                        std::vector<DType>* outputs);

// Where the i-th argument of the definition begins among the flat inputs (or outputs), and how
// many it has: (start, count) pairs.
absl::StatusOr<std::vector<std::pair<int, int>>> ArgRanges(
    const google::protobuf::RepeatedPtrField<proto::OpDef::ArgDef>& args, const AttrMap& attrs);

}  // namespace ferry

#endif  // FERRY_RUNTIME_OP_OP_DEF_H_
