// What a shape function sees: the partial shapes of a node's inputs, the values of those inputs
// that are known while the graph is built, and the attributes. It sets the output shapes, or
// returns InvalidArgument when the inputs can never fit.
#ifndef FERRY_RUNTIME_OP_SHAPE_INFERENCE_H_
#define FERRY_RUNTIME_OP_SHAPE_INFERENCE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/op/attr.h"
#include "runtime/op/partial_shape.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

class InferenceContext {
 public:
  // `values[i]` is the value of input i, or uninitialised where it isn't known. `partial_values[i]`
  // is what is known of a 1-D integer input that serves as a shape. All three have one entry an
  // input. Pointers are borrowed.
  InferenceContext(const AttrMap* attrs, std::vector<PartialShape> inputs,
                   std::vector<Tensor> values, std::vector<PartialShape> partial_values,
                   int num_outputs);

  int num_inputs() const { return static_cast<int>(inputs_.size()); }
  int num_outputs() const { return static_cast<int>(outputs_.size()); }
  const PartialShape& input(int i) const { return inputs_[i]; }
  // Null when the value isn't known.
  const Tensor* value(int i) const { return values_[i].initialized() ? &values_[i] : nullptr; }
  // The i-th input, an int32 or int64 vector, taken as a shape: as much of it as is known.
  // Elements of -1 are unknown sizes. InvalidArgument for other negative elements.
  absl::StatusOr<PartialShape> ValueAsShape(int i) const;
  // The i-th input, an integer scalar; kUnknown (PartialShape's) if not known... use value() where
  // -1 is a valid value.
  int64_t ValueAsInt(int i) const;

  template <typename T>
  absl::StatusOr<T> Attr(const std::string& name) const {
    return GetAttr<T>(*attrs_, name);
  }
  const AttrMap& attrs() const { return *attrs_; }

  void set_output(int i, PartialShape shape) { outputs_[i] = std::move(shape); }
  const PartialShape& output(int i) const { return outputs_[i]; }
  // For outputs whose value is known although it isn't computed yet (Shape of a known shape):
  // makes it available to later ValueAsShape. A scalar's is a shape of one dimension, available to
  // ValueAsInt.
  void set_output_value_as_shape(int i, PartialShape value) {
    output_values_[i] = std::move(value);
  }
  const PartialShape& output_value_as_shape(int i) const { return output_values_[i]; }

  // The shape of the variable that input i is a handle of; unknown if it isn't known.
  const PartialShape& input_handle_shape(int i) const { return input_handles_[i]; }
  void set_input_handle_shape(int i, PartialShape s) { input_handles_[i] = std::move(s); }
  // For an output that is a handle.
  void set_output_handle_shape(PartialShape shape) { output_handle_ = std::move(shape); }
  const PartialShape& output_handle_shape() const { return output_handle_; }

  // `shape` with rank exactly / at least / at most `rank`; InvalidArgument "Shape must be rank R
  // but is rank S".
  absl::StatusOr<PartialShape> WithRank(const PartialShape& shape, int rank) const;
  absl::StatusOr<PartialShape> WithRankAtLeast(const PartialShape& shape, int rank) const;
  absl::StatusOr<PartialShape> WithRankAtMost(const PartialShape& shape, int rank) const;

 private:
  const AttrMap* attrs_;
  std::vector<PartialShape> inputs_, outputs_, output_values_, input_handles_;
  PartialShape output_handle_;
  std::vector<Tensor> values_;
  std::vector<PartialShape> partial_values_;
};

// Broadcasting by NumPy's rules; InvalidArgument "Incompatible shapes: [2,3] vs. [4]".
absl::StatusOr<PartialShape> BroadcastShapes(const PartialShape& a, const PartialShape& b);
absl::StatusOr<TensorShape> BroadcastShapes(const TensorShape& a, const TensorShape& b);

// Shape functions that many ops share.
absl::Status UnchangedShape(InferenceContext* c);     // Output 0 as input 0.
absl::Status ScalarShape(InferenceContext* c);        // All outputs scalar.
absl::Status BroadcastShape(InferenceContext* c);     // Output 0 as inputs 0 and 1 broadcast.
absl::Status MergedShape(InferenceContext* c);        // All inputs alike; output 0 too.
absl::Status UnknownShape(InferenceContext* c);       // All outputs unknown.
absl::Status ExplicitShape(InferenceContext* c);      // Output 0 as the attribute "shape".
absl::Status NoOutputs(InferenceContext* c);

}  // namespace ferry

#endif  // FERRY_RUNTIME_OP_SHAPE_INFERENCE_H_
