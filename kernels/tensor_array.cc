// TensorArrays: arrays of tensors that a loop reads or fills, one element an iteration. An array
// lives in one Run; the float that flows from op to op orders what is done to it.
//
// The array of a gradient belongs to the array of the values: writing an element twice adds up, and
// an element that nobody wrote is zeros of the value's shape.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "kernels/held_values.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "runtime/op/shape_inference.h"

namespace ferry {
namespace {

// Used by one thread at a time: the steps of one Run.
struct TensorArray : Object {
  struct Element {
    HeldValue value;
    PartialShape shape;  // Of an array of gradients: the value's.
    bool written = false;
    bool cleared = false;
    bool read = false;
  };
  TensorArray() = default;
  TensorArray(const TensorArray&) = default;
  ~TensorArray() override {
    std::vector<HeldValue> values;
    for (Element& e : elements) values.push_back(std::move(e.value));
    std::vector<ObjectRef> objects;
    for (auto& [source, gradient] : gradients) objects.push_back(std::move(gradient));
    Release(std::move(values), std::move(objects));
  }

  std::string name;
  DType dtype = DType::kInvalid;
  PartialShape element_shape;
  bool dynamic_size = false;
  bool clear_after_read = true;
  bool identical_element_shapes = false;
  bool of_gradients = false;  // Writes to one element add up.
  bool added_up = false;      // That was done: it has no gradient of its own.
  bool closed = false;
  std::vector<Element> elements;
  std::map<std::string, std::shared_ptr<TensorArray>> gradients;  // By their source.

  int64_t size() const { return static_cast<int64_t>(elements.size()); }

  absl::Status CheckOpen() const {
    return closed ? InvalidArgument("TensorArray ", name, " has already been closed.")
                  : absl::OkStatus();
  }
  absl::Status CheckType(DType t, const char* what) const {
    if (t == dtype) return absl::OkStatus();
    return InvalidArgument("TensorArray dtype is ", DTypeWord(dtype), " but Op is trying to ", what,
                           " dtype ", DTypeWord(t), ".");
  }
  absl::Status Write(int64_t index, HeldValue value);
  absl::StatusOr<HeldValue> Read(int64_t index);
  // What must hold of all elements' shapes.
  absl::Status MergeElementShape(const PartialShape& shape) {
    absl::StatusOr<PartialShape> merged = PartialShape::Merge(element_shape, shape);
    if (!merged.ok()) return merged.status();
    element_shape = *std::move(merged);
    return absl::OkStatus();
  }
};

absl::Status TensorArray::Write(int64_t index, HeldValue value) {
  FERRY_RETURN_IF_ERROR(CheckOpen());
  if (index < 0 || (!dynamic_size && index >= size())) {
    return InvalidArgument("TensorArray ", name, ": Tried to write to index ", index,
                           dynamic_size ? " but the index must not be negative"
                                        : absl::StrCat(" but array is not resizeable and size is: ",
                                                       size()));
  }
  if (index >= kMaxHeldValues) {
    return ResourceExhausted("TensorArray ", name, ": no array is as large as index ", index);
  }
  if (index >= size()) elements.resize(static_cast<size_t>(index) + 1);
  Element& e = elements[static_cast<size_t>(index)];
  const TensorShape& shape = value.tensor.shape();
  if (!element_shape.CompatibleWith(shape)) {
    return InvalidArgument("TensorArray ", name, ": Could not write to TensorArray index ", index,
                           " because the value shape is ", shape.DebugString(),
                           " which is incompatible with the TensorArray's inferred element shape: ",
                           element_shape.DebugString(), " (consider setting infer_shape=False).");
  }
  if (e.read) {
    return InvalidArgument("TensorArray ", name, ": Could not write to TensorArray index ", index,
                           " because it has already been read.");
  }
  if (e.written && !of_gradients) {
    return InvalidArgument("TensorArray ", name, ": Could not write to TensorArray index ", index,
                           " because it has already been written to.");
  }
  if (identical_element_shapes && !element_shape.fully_defined()) element_shape = shape;
  if (!e.written) {
    e.shape = shape;
    e.value = std::move(value);
    e.written = true;
    return absl::OkStatus();
  }
  if (e.value.tensor.shape() != shape) {
    return InvalidArgument("TensorArray ", name, ": Could not aggregate to TensorArray index ",
                           index, " because the existing shape is ",
                           e.value.tensor.shape().DebugString(), " but the new input shape is ",
                           shape.DebugString(), ".");
  }
  added_up = true;
  FERRY_ASSIGN_OR_RETURN(e.value.tensor, AddTensors(e.value.tensor, value.tensor));
  return absl::OkStatus();
}

absl::StatusOr<HeldValue> TensorArray::Read(int64_t index) {
  FERRY_RETURN_IF_ERROR(CheckOpen());
  if (index < 0 || index >= size()) {
    return InvalidArgument("TensorArray ", name, ": Tried to read from index ", index,
                           " but array size is: ", size());
  }
  Element& e = elements[static_cast<size_t>(index)];
  if (e.cleared) {
    return InvalidArgument("TensorArray ", name, ": Could not read index ", index,
                           " twice because it was cleared after a previous read (perhaps try "
                           "setting clear_after_read = false?).");
  }
  if (!e.written) {
    const PartialShape& shape = e.shape.fully_defined() ? e.shape : element_shape;
    if (!shape.fully_defined() || dtype == DType::kResource || dtype == DType::kVariant) {
      return InvalidArgument(
          "TensorArray ", name, ": Could not read from TensorArray index ", index,
          ".  Furthermore, the element shape is not fully defined: ", element_shape.DebugString(),
          ".  It is possible you are working with a resizeable TensorArray and stop_gradients is "
          "not allowing the gradients to be written.  If you set the full element_shape property "
          "on the forward TensorArray, the proper all-zeros tensor will be returned instead of "
          "incurring this error.");
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape known, shape.ToTensorShape());
    FERRY_ASSIGN_OR_RETURN(e.value.tensor, ZeroTensor(dtype, known));
    e.written = true;
  }
  e.read = true;
  if (!clear_after_read) return e.value;
  e.cleared = true;
  return std::exchange(e.value, HeldValue());
}

absl::StatusOr<std::shared_ptr<TensorArray>> ArrayInput(KernelContext* c) {
  return ObjectInput<TensorArray>(c, 0, "TensorArray");
}

absl::StatusOr<int64_t> ScalarInput(KernelContext* c, int i, const char* what) {
  if (c->input(i).rank() != 0) {
    return InvalidArgument(what, " must be a scalar, but had shape: ",
                           c->input(i).shape().DebugString());
  }
  return c->InputAsInt(i);
}

absl::StatusOr<absl::InlinedVector<int64_t, 8>> VectorInput(KernelContext* c, int i,
                                                            const char* what) {
  if (c->input(i).rank() != 1) {
    return InvalidArgument("Expected ", what, " to be a vector, but received shape: ",
                           c->input(i).shape().DebugString());
  }
  return c->InputAsInts(i);
}

absl::Status SetHandleAndFlow(KernelContext* c, ObjectRef array) {
  FERRY_ASSIGN_OR_RETURN(Tensor handle, MakeHandle(std::move(array)));
  c->SetOutput(0, handle);
  FERRY_ASSIGN_OR_RETURN(Tensor * flow, c->AllocateOutput(1, TensorShape()));
  flow->data<float>()[0] = 0;
  return absl::OkStatus();
}

class TensorArrayKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(array_.dtype, c.Attr<DType>("dtype"));
    FERRY_ASSIGN_OR_RETURN(array_.element_shape, c.Attr<PartialShape>("element_shape"));
    FERRY_ASSIGN_OR_RETURN(array_.dynamic_size, c.Attr<bool>("dynamic_size"));
    FERRY_ASSIGN_OR_RETURN(array_.clear_after_read, c.Attr<bool>("clear_after_read"));
    FERRY_ASSIGN_OR_RETURN(array_.identical_element_shapes,
                           c.Attr<bool>("identical_element_shapes"));
    FERRY_ASSIGN_OR_RETURN(array_.name, c.Attr<std::string>("tensor_array_name"));
    if (array_.name.empty()) array_.name = c.node_name();
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    if (c->input(0).rank() != 0) {
      return InvalidArgument("TensorArray size must be scalar, but had shape: ",
                             c->input(0).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const int64_t size, c->InputAsInt(0));
    if (size < 0) return InvalidArgument("Size should be >= 0.");
    if (size > kMaxHeldValues) {
      return ResourceExhausted("a TensorArray of ", size, " elements is beyond the limit, ",
                               kMaxHeldValues);
    }
    auto array = std::make_shared<TensorArray>(array_);
    array->elements.resize(static_cast<size_t>(size));
    return SetHandleAndFlow(c, std::move(array));
  }
  TensorArray array_;  // What a new one is like.
};

// TensorArrayGradV3, and TensorArrayGradWithShape, whose elements have more dimensions in front.
class TensorArrayGradKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(source_, c.Attr<std::string>("source"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto values, ArrayInput(c));
    FERRY_RETURN_IF_ERROR(values->CheckOpen());
    TensorShape more;
    if (c->num_inputs() > 2) {
      FERRY_ASSIGN_OR_RETURN(more, c->InputAsShape(2));
    }
    std::shared_ptr<TensorArray>& gradient = values->gradients[source_];
    if (!gradient) {
      if (values->added_up) {
        return InvalidArgument(
            "Unable to create a gradients TensorArray for ", values->name,
            ".  Perhaps you used the multiple_writes_aggregate flag on a previous write?  Gradient "
            "calculation is impossible when multiple writes are performed to the same index.");
      }
      const auto prepended = [&more](const PartialShape& s) {
        if (!s.known_rank()) return s;
        PartialShape out(more);
        for (int64_t d : s.dims()) out.AddDim(d);
        return out;
      };
      values->dynamic_size = false;
      auto fresh = std::make_shared<TensorArray>();
      // Gradients of gradients, and so on, don't get longer names without end.
      constexpr size_t kLongName = 1000;
      fresh->name = values->name.size() > kLongName ? values->name
                                                    : absl::StrCat(values->name, "@", source_);
      fresh->dtype = values->dtype;
      fresh->element_shape = prepended(values->element_shape);
      fresh->identical_element_shapes = values->identical_element_shapes;
      fresh->of_gradients = true;
      fresh->elements.resize(values->elements.size());
      for (size_t i = 0; i < fresh->elements.size(); ++i) {
        fresh->elements[i].shape = prepended(values->elements[i].shape);
      }
      gradient = std::move(fresh);
    }
    return SetHandleAndFlow(c, gradient);
  }
  std::string source_;
};

class TensorArrayWriteKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    dtype_ = c.input_types()[2];
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto array, ArrayInput(c));
    FERRY_ASSIGN_OR_RETURN(const int64_t index, ScalarInput(c, 1, "TensorArray index"));
    FERRY_RETURN_IF_ERROR(array->CheckType(dtype_, "write"));
    FERRY_ASSIGN_OR_RETURN(HeldValue value, HoldInput(c, 2, dtype_));
    FERRY_RETURN_IF_ERROR(array->Write(index, std::move(value)));
    c->ForwardInput(3, 0);
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
};

class TensorArrayReadKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    dtype_ = c.output_types()[0];
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto array, ArrayInput(c));
    FERRY_ASSIGN_OR_RETURN(const int64_t index, ScalarInput(c, 1, "TensorArray index"));
    FERRY_RETURN_IF_ERROR(array->CheckType(dtype_, "read"));
    FERRY_ASSIGN_OR_RETURN(const HeldValue value, array->Read(index));
    GiveOutput(c, 0, value);
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
};

// The elements of `indices`, one behind the other in a tensor with a first dimension more.
class TensorArrayGatherKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    dtype_ = c.output_types()[0];
    FERRY_ASSIGN_OR_RETURN(element_shape_, c.Attr<PartialShape>("element_shape"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto array, ArrayInput(c));
    FERRY_RETURN_IF_ERROR(array->CheckOpen());
    FERRY_RETURN_IF_ERROR(array->CheckType(dtype_, "read"));
    FERRY_RETURN_IF_ERROR(array->MergeElementShape(element_shape_));
    FERRY_ASSIGN_OR_RETURN(const auto indices, VectorInput(c, 1, "indices"));
    if (indices.empty()) {
      if (!array->element_shape.fully_defined()) {
        return Unimplemented("TensorArray ", array->name,
                             " has size zero, but element shape ",
                             array->element_shape.DebugString(),
                             " is not fully defined. Currently only static shapes are supported "
                             "when packing zero-size TensorArrays.");
      }
      FERRY_ASSIGN_OR_RETURN(const TensorShape shape, array->element_shape.ToTensorShape());
      FERRY_ASSIGN_OR_RETURN(const TensorShape none, WithRows(0, shape));
      return c->AllocateOutput(0, none).status();
    }
    std::vector<Tensor> values;
    for (const int64_t i : indices) {
      FERRY_ASSIGN_OR_RETURN(HeldValue value, array->Read(i));
      values.push_back(std::move(value.tensor));
      if (values.back().shape() != values.front().shape()) {
        return InvalidArgument("TensorArray has inconsistent shapes.  Index 0 has shape: ",
                               values.front().shape().DebugString(), " but index ",
                               values.size() - 1, " has shape: ",
                               values.back().shape().DebugString());
      }
    }
    const int64_t each = values.front().num_elements();
    FERRY_ASSIGN_OR_RETURN(
        const TensorShape shape,
        WithRows(static_cast<int64_t>(values.size()), values.front().shape()));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    for (size_t k = 0; k < values.size(); ++k) {
      CopyRange(values[k], 0, each, out, static_cast<int64_t>(k) * each);
    }
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
  PartialShape element_shape_;
};

class TensorArrayScatterKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    dtype_ = c.input_types()[2];
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto array, ArrayInput(c));
    FERRY_RETURN_IF_ERROR(array->CheckOpen());
    FERRY_RETURN_IF_ERROR(array->CheckType(dtype_, "write"));
    FERRY_ASSIGN_OR_RETURN(const auto indices, VectorInput(c, 1, "indices"));
    const Tensor& rows = c->input(2);
    if (rows.rank() == 0 || rows.dim(0) != static_cast<int64_t>(indices.size())) {
      return InvalidArgument("Expected len(indices) == values.shape[0], but saw: ", indices.size(),
                             " vs. ", rows.rank() == 0 ? 0 : rows.dim(0));
    }
    const int64_t most = indices.empty() ? -1 : *std::max_element(indices.begin(), indices.end());
    if (!array->dynamic_size && most >= array->size()) {
      return InvalidArgument("Max scatter index must be < array size (", most, " vs. ",
                             array->size(), ")");
    }
    const TensorShape shape = WithoutRows(rows.shape());
    for (size_t k = 0; k < indices.size(); ++k) {
      FERRY_ASSIGN_OR_RETURN(Tensor row, Tensor::Allocate(dtype_, shape));
      CopyRange(rows, static_cast<int64_t>(k) * row.num_elements(), row.num_elements(), &row, 0);
      FERRY_RETURN_IF_ERROR(array->Write(indices[k], HeldValue{std::move(row)}));
    }
    c->ForwardInput(3, 0);
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
};

class TensorArraySizeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto array, ArrayInput(c));
    FERRY_RETURN_IF_ERROR(array->CheckOpen());
    FERRY_ASSIGN_OR_RETURN(Tensor * size, c->AllocateOutput(0, TensorShape()));
    size->data<int32_t>()[0] = static_cast<int32_t>(array->size());
    return absl::OkStatus();
  }
};

// All elements one behind the other along their first dimension, and how long each is.
class TensorArrayConcatKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    dtype_ = c.output_types()[0];
    FERRY_ASSIGN_OR_RETURN(except_first_, c.Attr<PartialShape>("element_shape_except0"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto array, ArrayInput(c));
    FERRY_RETURN_IF_ERROR(array->CheckOpen());
    FERRY_RETURN_IF_ERROR(array->CheckType(dtype_, "read"));
    const int64_t n = array->size();
    FERRY_ASSIGN_OR_RETURN(Tensor * lengths, c->AllocateOutput(1, {n}));
    if (n == 0) {
      if (!except_first_.fully_defined()) {
        return Unimplemented("TensorArray ", array->name,
                             " has size zero, but element_shape_except0 ",
                             except_first_.DebugString(),
                             " is not fully defined. Currently only static shapes are supported "
                             "when concatenating zero-size TensorArrays.");
      }
      FERRY_ASSIGN_OR_RETURN(const TensorShape rest, except_first_.ToTensorShape());
      FERRY_ASSIGN_OR_RETURN(const TensorShape none, WithRows(0, rest));
      return c->AllocateOutput(0, none).status();
    }
    std::vector<Tensor> values;
    TensorShape rest;
    int64_t rows = 0;
    for (int64_t i = 0; i < n; ++i) {
      FERRY_ASSIGN_OR_RETURN(HeldValue value, array->Read(i));
      const TensorShape& shape = value.tensor.shape();
      if (shape.rank() == 0) {
        return InvalidArgument("Concat saw a scalar shape at index ", i,
                               " but requires at least vectors.  Did you mean to call pack?");
      }
      const TensorShape own = WithoutRows(shape);
      if (i == 0) rest = own;
      if (own != rest || !except_first_.CompatibleWith(own)) {
        return InvalidArgument(
            "TensorArray has inconsistent shapes.  Index 0 has (excepting dimension 0) shape: ",
            rest.DebugString(), " but index ", i, " has (excepting dimension 0) shape: ",
            own.DebugString());
      }
      lengths->data<int64_t>()[i] = shape.dim(0);
      rows += shape.dim(0);
      values.push_back(std::move(value.tensor));
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, WithRows(rows, rest));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    int64_t at = 0;
    for (const Tensor& value : values) {
      CopyRange(value, 0, value.num_elements(), out, at);
      at += value.num_elements();
    }
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
  PartialShape except_first_;
};

// The reverse: element i is the next lengths[i] rows.
class TensorArraySplitKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    dtype_ = c.input_types()[1];
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto array, ArrayInput(c));
    FERRY_RETURN_IF_ERROR(array->CheckOpen());
    FERRY_RETURN_IF_ERROR(array->CheckType(dtype_, "write"));
    const Tensor& rows = c->input(1);
    FERRY_ASSIGN_OR_RETURN(const auto lengths, VectorInput(c, 2, "lengths"));
    if (rows.rank() == 0) {
      return InvalidArgument("Expected value to be at least a vector, but received shape: []");
    }
    const int64_t n = static_cast<int64_t>(lengths.size());
    int64_t total = 0;
    for (const int64_t length : lengths) {
      if (length < 0 || __builtin_add_overflow(total, length, &total)) {
        return InvalidArgument("Expected lengths that are not negative, found ", length);
      }
    }
    if (total != rows.dim(0)) {
      return InvalidArgument(
          "Expected sum of lengths to be equal to values.shape[0], but sum of lengths is ", total,
          " and value's shape is: ", rows.shape().DebugString(), " ");
    }
    if (array->dynamic_size ? array->size() > n : array->size() != n) {
      return InvalidArgument(
          "TensorArray's size is not equal to the size of lengths (", array->size(), " vs. ", n,
          "), and the TensorArray is ",
          array->dynamic_size ? "larger" : "not marked as dynamically resizeable");
    }
    const TensorShape rest = WithoutRows(rows.shape());
    int64_t at = 0;
    for (int64_t i = 0; i < n; ++i) {
      FERRY_ASSIGN_OR_RETURN(const TensorShape shape,
                             WithRows(lengths[static_cast<size_t>(i)], rest));
      FERRY_ASSIGN_OR_RETURN(Tensor part, Tensor::Allocate(dtype_, shape));
      CopyRange(rows, at, part.num_elements(), &part, 0);
      at += part.num_elements();
      FERRY_RETURN_IF_ERROR(array->Write(i, HeldValue{std::move(part)}));
    }
    c->ForwardInput(3, 0);
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
};

class TensorArrayCloseKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto array, ArrayInput(c));
    array->closed = true;
    array->elements.clear();
    return absl::OkStatus();
  }
};

absl::Status ArrayShape(InferenceContext* c) {
  c->set_output(0, PartialShape({2}));
  c->set_output(1, PartialShape::Scalar());
  return absl::OkStatus();
}

// n elements of the attribute's shape, where that is known.
absl::Status GatheredShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const PartialShape indices, c->WithRank(c->input(1), 1));
  FERRY_ASSIGN_OR_RETURN(const PartialShape element, c->Attr<PartialShape>("element_shape"));
  if (!element.known_rank()) return absl::OkStatus();
  PartialShape out({indices.dim(0)});
  for (int64_t d : element.dims()) out.AddDim(d);
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

absl::Status ConcatenatedShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const PartialShape rest, c->Attr<PartialShape>("element_shape_except0"));
  c->set_output(1, PartialShape::UnknownOfRank(1));
  if (!rest.known_rank()) return absl::OkStatus();
  PartialShape out = PartialShape::UnknownOfRank(1);
  for (int64_t d : rest.dims()) out.AddDim(d);
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// ---- Gradients: another array, of which there is one for each call of AddSymbolicGradients ----

// The array of the gradients, found by the innermost scope "gradients…" that the nodes lie in, and
// the flow by which what is done to it comes after `flow`.
struct GradientArray {
  Output handle, flow;
};
GradientArray GradientsOf(GradientContext* c, Output flow) {
  const Scope& s = c->scope();
  size_t end = 0;
  const std::vector<std::string> names = absl::StrSplit(s.prefix(), '/');
  for (size_t i = 0; i < names.size(); ++i) {
    if (absl::StartsWith(names[i], "gradients")) end = i + 1;
  }
  const std::string source =
      absl::StrJoin(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(end), "/");
  const Scope sub = s.NewSubScope("TensorArrayGrad");
  Node* const array = NodeBuilder(sub, "TensorArrayGradV3")
                          .Input(c->input(0))
                          .Input(flow)
                          .Attr("source", source)
                          .Build();
  if (array == nullptr) return {};
  const Scope after = sub.WithControlDependencies({array});
  return {Output(array, 0), ops::Identity(after.WithOpName("gradient_flow"), flow)};
}

// What is read had its gradient added to that of the element or elements `input(1)`, by the op
// `add`.
absl::Status ReadGradient(GradientContext* c, const char* add) {
  const GradientArray gradients = GradientsOf(c, c->input(2));
  c->set_input_grad(2, NodeBuilder(c->scope(), add)
                           .Input(gradients.handle)
                           .Input(c->input(1))
                           .Input(c->grad(0))
                           .Input(gradients.flow)
                           .BuildOutput());
  return c->scope().status();
}

// What was written gets the gradient of its element or elements, by `read`, once all that comes
// after the write has added to that.
absl::Status WriteGradient(GradientContext* c, NodeBuilder read) {
  const Output flow = c->grad(0);
  const GradientArray gradients = GradientsOf(c, flow);
  c->set_input_grad(2, read.Input(gradients.handle)
                           .Input(c->input(1))
                           .Input(gradients.flow)
                           .Attr("dtype", BaseType(c->input(2).dtype()))
                           .BuildOutput());
  c->set_input_grad(3, flow);
  return c->scope().status();
}

FERRY_OP("TensorArrayV3")
    .Input("size: int32")
    .Output("handle: resource")
    .Output("flow: float")
    .Attr("dtype: type")
    .Attr("element_shape: shape = { unknown_rank: true }")
    .Attr("dynamic_size: bool = false")
    .Attr("clear_after_read: bool = true")
    .Attr("identical_element_shapes: bool = false")
    .Attr("tensor_array_name: string = ''")
    .Stateful()
    .Shape(ArrayShape)
    .NotDifferentiable();
FERRY_OP("TensorArrayGradV3")
    .Input("handle: resource")
    .Input("flow_in: float")
    .Output("grad_handle: resource")
    .Output("flow_out: float")
    .Attr("source: string")
    .Stateful()
    .Shape(ArrayShape)
    .NotDifferentiable();
FERRY_OP("TensorArrayGradWithShape")
    .Input("handle: resource")
    .Input("flow_in: float")
    .Input("shape_to_prepend: int32")
    .Output("grad_handle: resource")
    .Output("flow_out: float")
    .Attr("source: string")
    .Stateful()
    .Shape(ArrayShape)
    .NotDifferentiable();
FERRY_OP("TensorArrayWriteV3")
    .Input("handle: resource")
    .Input("index: int32")
    .Input("value: T")
    .Input("flow_in: float")
    .Output("flow_out: float")
    .Attr("T: type")
    .Stateful()
    .Shape(ScalarShape)
    .AliasesInput(3)
    .Gradient([](GradientContext* c) {
      return WriteGradient(c, NodeBuilder(c->scope(), "TensorArrayReadV3"));
    });
FERRY_OP("TensorArrayReadV3")
    .Input("handle: resource")
    .Input("index: int32")
    .Input("flow_in: float")
    .Output("value: dtype")
    .Attr("dtype: type")
    .Stateful()
    .Shape(UnknownShape)
    .Gradient([](GradientContext* c) { return ReadGradient(c, "TensorArrayWriteV3"); });
FERRY_OP("TensorArrayGatherV3")
    .Input("handle: resource")
    .Input("indices: int32")
    .Input("flow_in: float")
    .Output("value: dtype")
    .Attr("dtype: type")
    .Attr("element_shape: shape = { unknown_rank: true }")
    .Stateful()
    .Shape(GatheredShape)
    .Gradient([](GradientContext* c) { return ReadGradient(c, "TensorArrayScatterV3"); });
FERRY_OP("TensorArrayScatterV3")
    .Input("handle: resource")
    .Input("indices: int32")
    .Input("value: T")
    .Input("flow_in: float")
    .Output("flow_out: float")
    .Attr("T: type")
    .Stateful()
    .Shape(ScalarShape)
    .AliasesInput(3)
    .Gradient([](GradientContext* c) {
      return WriteGradient(c, NodeBuilder(c->scope(), "TensorArrayGatherV3"));
    });
FERRY_OP("TensorArraySizeV3")
    .Input("handle: resource")
    .Input("flow_in: float")
    .Output("size: int32")
    .Stateful()
    .Shape(ScalarShape)
    .NotDifferentiable();
FERRY_OP("TensorArrayConcatV3")
    .Input("handle: resource")
    .Input("flow_in: float")
    .Output("value: dtype")
    .Output("lengths: int64")
    .Attr("dtype: type")
    .Attr("element_shape_except0: shape = { unknown_rank: true }")
    .Stateful()
    .Shape(ConcatenatedShape);
FERRY_OP("TensorArraySplitV3")
    .Input("handle: resource")
    .Input("value: T")
    .Input("lengths: int64")
    .Input("flow_in: float")
    .Output("flow_out: float")
    .Attr("T: type")
    .Stateful()
    .Shape(ScalarShape)
    .AliasesInput(3);
FERRY_OP("TensorArrayCloseV3").Input("handle: resource").Stateful().Shape(NoOutputs);

FERRY_KERNEL("TensorArrayV3").Device(DeviceType::kCpu).Make<TensorArrayKernel>();
FERRY_KERNEL("TensorArrayGradV3").Device(DeviceType::kCpu).Make<TensorArrayGradKernel>();
FERRY_KERNEL("TensorArrayGradWithShape").Device(DeviceType::kCpu).Make<TensorArrayGradKernel>();
FERRY_KERNEL("TensorArrayWriteV3").Device(DeviceType::kCpu).Make<TensorArrayWriteKernel>();
FERRY_KERNEL("TensorArrayReadV3").Device(DeviceType::kCpu).Make<TensorArrayReadKernel>();
FERRY_KERNEL("TensorArrayGatherV3").Device(DeviceType::kCpu).Make<TensorArrayGatherKernel>();
FERRY_KERNEL("TensorArrayScatterV3").Device(DeviceType::kCpu).Make<TensorArrayScatterKernel>();
FERRY_KERNEL("TensorArraySizeV3").Device(DeviceType::kCpu).Make<TensorArraySizeKernel>();
FERRY_KERNEL("TensorArrayConcatV3").Device(DeviceType::kCpu).Make<TensorArrayConcatKernel>();
FERRY_KERNEL("TensorArraySplitV3").Device(DeviceType::kCpu).Make<TensorArraySplitKernel>();
FERRY_KERNEL("TensorArrayCloseV3").Device(DeviceType::kCpu).Make<TensorArrayCloseKernel>();

}  // namespace
}  // namespace ferry
