// Lists of tensors, as the functional loops of newer programs carry them: a variant tensor holds
// one. A list is a value: an op that changes it gives a new one, which shares the elements, and
// takes over the old list where nobody else looks at that.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "kernels/held_values.h"
#include "runtime/op/ending_input.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "runtime/op/shape_inference.h"

namespace ferry {
namespace {

struct TensorList : Object {
  TensorList() = default;
  TensorList(const TensorList&) = default;
  ~TensorList() override { Release(std::move(elements)); }

  DType dtype = DType::kInvalid;
  PartialShape element_shape;
  int64_t max_size = -1;  // Negative: none.
  std::vector<HeldValue> elements;  // An uninitialised tensor: not set yet, zeros to readers.

  int64_t size() const { return static_cast<int64_t>(elements.size()); }
};
using ListRef = std::shared_ptr<TensorList>;

bool IsSet(const HeldValue& v) { return v.variable || v.tensor.initialized(); }

absl::StatusOr<ListRef> ListInput(KernelContext* c, int i = 0) {
  return ObjectInput<TensorList>(c, i, "list of tensors");
}

// The list of input 0 to be changed: itself, if this step is the last to see it, or a copy.
absl::StatusOr<ListRef> TakeList(KernelContext* c) {
  FERRY_ASSIGN_OR_RETURN(ListRef list, ListInput(c));
  // One reference is the input's, one is `list`.
  if (EndingInput::Now() && c->input(0).buffer()->refs() == 1 && list.use_count() == 2) {
    ObjectsOf(const_cast<Tensor*>(&c->input(0)))->reset();  // Nobody looks at that any more.
    return list;
  }
  return std::make_shared<TensorList>(*list);
}

absl::Status SetList(KernelContext* c, int output, ListRef list) {
  FERRY_ASSIGN_OR_RETURN(Tensor t, MakeObjectTensor(DType::kVariant, std::move(list)));
  c->SetOutput(output, t);
  return absl::OkStatus();
}

absl::Status CheckType(const TensorList& list, DType t) {
  if (list.dtype == t) return absl::OkStatus();
  return InvalidArgument("Invalid data types; op elements ", DTypeWord(t), " but list elements ",
                         DTypeWord(list.dtype));
}

// Input i as an element's shape: a vector, -1 for what isn't known, or the scalar -1.
absl::StatusOr<PartialShape> ShapeInput(KernelContext* c, int i) {
  FERRY_ASSIGN_OR_RETURN(const auto dims, c->InputAsInts(i));
  if (c->input(i).rank() == 0) {
    if (dims[0] == -1) return PartialShape();
    return InvalidArgument("The only valid scalar shape tensor is the fully unknown shape "
                           "specified as -1.");
  }
  for (int64_t d : dims) {
    if (d < -1) return InvalidArgument("Dimension ", d, " must be >= -1");
  }
  return PartialShape(absl::MakeConstSpan(dims.data(), dims.size()));
}

absl::StatusOr<PartialShape> MergedElementShape(const TensorList& list, PartialShape shape) {
  absl::StatusOr<PartialShape> merged = PartialShape::Merge(shape, list.element_shape);
  if (merged.ok()) return merged;
  return InvalidArgument("Incompatible shapes during merge: ", shape.DebugString(), " vs. ",
                         list.element_shape.DebugString());
}

// `shape`, and where it doesn't say, what an element of the list does.
absl::StatusOr<PartialShape> KnownShape(const TensorList& list, PartialShape shape) {
  for (size_t k = 0; k < list.elements.size() && !shape.fully_defined(); ++k) {
    if (!list.elements[k].tensor.initialized()) continue;
    FERRY_ASSIGN_OR_RETURN(shape, PartialShape::Merge(shape, list.elements[k].tensor.shape()));
  }
  return shape;
}

// An element as its readers see it; of one that isn't set `shape` is as KnownShape says.
absl::StatusOr<HeldValue> ValueOf(const TensorList& list, const HeldValue& element,
                                  const PartialShape& shape) {
  if (IsSet(element)) return element;
  if (!shape.fully_defined() || list.dtype == DType::kResource || list.dtype == DType::kVariant) {
    return InvalidArgument("Trying to read an uninitialized tensor but element_shape is not fully "
                           "defined: ",
                           shape.DebugString());
  }
  FERRY_ASSIGN_OR_RETURN(const TensorShape full, shape.ToTensorShape());
  HeldValue zeros;
  FERRY_ASSIGN_OR_RETURN(zeros.tensor, ZeroTensor(list.dtype, full));
  return zeros;
}

absl::Status CheckElement(const TensorList& list, const Tensor& value, const char* what) {
  if (list.element_shape.CompatibleWith(value.shape())) return absl::OkStatus();
  return InvalidArgument(what, value.shape().DebugString(),
                         " list shape: ", list.element_shape.DebugString());
}

// The rows of a tensor, as elements of their own.
absl::Status AppendRow(const Tensor& rows, int64_t at, const TensorShape& shape,
                       std::vector<HeldValue>* out) {
  HeldValue row;
  FERRY_ASSIGN_OR_RETURN(row.tensor, Tensor::Allocate(rows.dtype(), shape));
  CopyRange(rows, at, row.tensor.num_elements(), &row.tensor, 0);
  out->push_back(std::move(row));
  return absl::OkStatus();
}

// Elements of one shape, one behind the other as rows of output 0.
absl::Status StackRows(KernelContext* c, const std::vector<HeldValue>& values,
                       const PartialShape& element_shape) {
  TensorShape each;
  if (values.empty()) {
    FERRY_ASSIGN_OR_RETURN(each, element_shape.ToTensorShape());
  } else {
    each = values[0].tensor.shape();
  }
  FERRY_ASSIGN_OR_RETURN(const TensorShape shape,
                         WithRows(static_cast<int64_t>(values.size()), each));
  for (size_t k = 0; k < values.size(); ++k) {
    if (values[k].tensor.shape() == each) continue;
    return InvalidArgument("Tried to stack list with elements of different shapes: ",
                           each.DebugString(), " and, at index ", k, ", ",
                           values[k].tensor.shape().DebugString());
  }
  FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
  for (size_t k = 0; k < values.size(); ++k) {
    CopyRange(values[k].tensor, 0, each.num_elements(), out,
              static_cast<int64_t>(k) * each.num_elements());
  }
  return absl::OkStatus();
}

class ListKernel : public Kernel {
 protected:
  absl::Status Init(const KernelConstruction& c) override {
    absl::StatusOr<DType> t = c.Attr<DType>("element_dtype");
    if (t.ok()) dtype_ = *t;
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
};

class EmptyListKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    auto list = std::make_shared<TensorList>();
    list->dtype = dtype_;
    FERRY_ASSIGN_OR_RETURN(list->element_shape, ShapeInput(c, 0));
    if (c->input(1).rank() != 0) {
      return InvalidArgument("max_num_elements expected to be a scalar but got shape: ",
                             c->input(1).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(list->max_size, c->InputAsInt(1));
    return SetList(c, 0, std::move(list));
  }
};

class ReserveKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    auto list = std::make_shared<TensorList>();
    list->dtype = dtype_;
    FERRY_ASSIGN_OR_RETURN(list->element_shape, ShapeInput(c, 0));
    FERRY_ASSIGN_OR_RETURN(const int64_t n, c->InputAsInt(1));
    if (n < 0) {
      return InvalidArgument("The num_elements to reserve must be a non negative number, but got ",
                             n);
    }
    if (n > kMaxHeldValues) {
      return ResourceExhausted("a list of ", n, " tensors is beyond the limit, ", kMaxHeldValues);
    }
    list->elements.resize(static_cast<size_t>(n));
    return SetList(c, 0, std::move(list));
  }
};

class SetItemKernel : public ListKernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(resize_, c.Attr<bool>("resize_if_index_out_of_bounds"));
    return ListKernel::Init(c);
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const int64_t index, c->InputAsInt(1));
    FERRY_ASSIGN_OR_RETURN(HeldValue value, HoldInput(c, 2, dtype_));
    {
      FERRY_ASSIGN_OR_RETURN(const ListRef list, ListInput(c));
      FERRY_RETURN_IF_ERROR(CheckType(*list, dtype_));
      if (index < 0 || (index >= list->size() && !resize_)) {
        return InvalidArgument("Trying to modify element ", index, " in a list with ", list->size(),
                               " elements.");
      }
      if (index >= kMaxHeldValues) {
        return ResourceExhausted("a list of ", index, " tensors is beyond the limit, ",
                                 kMaxHeldValues);
      }
      FERRY_RETURN_IF_ERROR(CheckElement(
          *list, value.tensor,
          "Tried to set a tensor with incompatible shape at a list index. Item element shape: "));
    }
    FERRY_ASSIGN_OR_RETURN(ListRef list, TakeList(c));
    if (index >= list->size()) list->elements.resize(static_cast<size_t>(index) + 1);
    list->elements[static_cast<size_t>(index)] = std::move(value);
    return SetList(c, 0, std::move(list));
  }
  bool resize_ = false;
};

class GetItemKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ListRef list, ListInput(c));
    FERRY_RETURN_IF_ERROR(CheckType(*list, dtype_));
    FERRY_ASSIGN_OR_RETURN(const int64_t index, c->InputAsInt(1));
    if (index < 0 || index >= list->size()) {
      return InvalidArgument("Trying to access element ", index, " in a list with ", list->size(),
                             " elements.");
    }
    FERRY_ASSIGN_OR_RETURN(PartialShape shape, ShapeInput(c, 2));
    FERRY_ASSIGN_OR_RETURN(shape, MergedElementShape(*list, std::move(shape)));
    const HeldValue& element = list->elements[static_cast<size_t>(index)];
    if (!IsSet(element)) {
      FERRY_ASSIGN_OR_RETURN(shape, KnownShape(*list, std::move(shape)));
    }
    FERRY_ASSIGN_OR_RETURN(const HeldValue value, ValueOf(*list, element, shape));
    GiveOutput(c, 0, value);
    return absl::OkStatus();
  }
};

class ListStackKernel : public ListKernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(num_elements_, c.Attr<int64_t>("num_elements"));
    return ListKernel::Init(c);
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ListRef list, ListInput(c));
    FERRY_RETURN_IF_ERROR(CheckType(*list, dtype_));
    if (num_elements_ != -1 && list->size() != num_elements_) {
      return InvalidArgument("Operation expected a list with ", num_elements_,
                             " elements but got a list with ", list->size(), " elements.");
    }
    FERRY_ASSIGN_OR_RETURN(PartialShape shape, ShapeInput(c, 1));
    FERRY_ASSIGN_OR_RETURN(shape, MergedElementShape(*list, std::move(shape)));
    if (list->elements.empty() && !shape.fully_defined()) {
      return InvalidArgument("Tried to stack elements of an empty list with non-fully-defined "
                             "element_shape: ",
                             shape.DebugString());
    }
    if (!absl::c_all_of(list->elements, IsSet)) {
      FERRY_ASSIGN_OR_RETURN(shape, KnownShape(*list, std::move(shape)));
    }
    std::vector<HeldValue> values;
    for (const HeldValue& e : list->elements) {
      FERRY_ASSIGN_OR_RETURN(HeldValue value, ValueOf(*list, e, shape));
      values.push_back(std::move(value));
    }
    return StackRows(c, values, shape);
  }
  int64_t num_elements_ = -1;
};

class ListGatherKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ListRef list, ListInput(c));
    FERRY_RETURN_IF_ERROR(CheckType(*list, dtype_));
    FERRY_ASSIGN_OR_RETURN(const auto indices, c->InputAsInts(1));
    FERRY_ASSIGN_OR_RETURN(PartialShape shape, ShapeInput(c, 2));
    FERRY_ASSIGN_OR_RETURN(shape, MergedElementShape(*list, std::move(shape)));
    if (indices.empty() && !shape.fully_defined()) {
      return InvalidArgument(
          "Tried to gather 0-elements from a list with non-fully-defined shape: ",
          shape.DebugString());
    }
    std::vector<HeldValue> values;
    for (const int64_t i : indices) {
      if (i < 0 || i >= list->size()) {
        return InvalidArgument("Trying to gather element ", i, " in a list with ", list->size(),
                               " elements.");
      }
      const HeldValue& element = list->elements[static_cast<size_t>(i)];
      if (!IsSet(element) && !shape.fully_defined()) {
        FERRY_ASSIGN_OR_RETURN(shape, KnownShape(*list, std::move(shape)));
      }
      FERRY_ASSIGN_OR_RETURN(HeldValue value, ValueOf(*list, element, shape));
      values.push_back(std::move(value));
    }
    return StackRows(c, values, shape);
  }
};

class FromTensorKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& rows = c->input(0);
    if (rows.rank() == 0) {
      return InvalidArgument("Tensor must be at least a vector, but saw shape: []");
    }
    auto list = std::make_shared<TensorList>();
    list->dtype = dtype_;
    FERRY_ASSIGN_OR_RETURN(list->element_shape, ShapeInput(c, 1));
    const TensorShape shape = WithoutRows(rows.shape());
    if (!list->element_shape.CompatibleWith(shape)) {
      return InvalidArgument("Specified a list with shape ", list->element_shape.DebugString(),
                             " from a tensor with shape ", shape.DebugString());
    }
    for (int64_t i = 0; i < rows.dim(0); ++i) {
      FERRY_RETURN_IF_ERROR(AppendRow(rows, i * shape.num_elements(), shape, &list->elements));
    }
    return SetList(c, 0, std::move(list));
  }
};

// TensorListScatter and ScatterV2: row k becomes element indices[k].
class ListScatterKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& rows = c->input(0);
    FERRY_ASSIGN_OR_RETURN(const auto indices, c->InputAsInts(1));
    if (rows.rank() == 0 || rows.dim(0) < static_cast<int64_t>(indices.size())) {
      return InvalidArgument("Specified a list with ", indices.size(),
                             " indices from a tensor of shape ", rows.shape().DebugString());
    }
    auto list = std::make_shared<TensorList>();
    list->dtype = dtype_;
    FERRY_ASSIGN_OR_RETURN(list->element_shape, ShapeInput(c, 2));
    const TensorShape shape = WithoutRows(rows.shape());
    if (!list->element_shape.CompatibleWith(shape)) {
      return InvalidArgument("Specified a list with shape ", list->element_shape.DebugString(),
                             " from a tensor with shape ", shape.DebugString());
    }
    int64_t n = -1;
    if (c->num_inputs() > 3) {
      FERRY_ASSIGN_OR_RETURN(n, c->InputAsInt(3));
    }
    if (n < -1) {
      return InvalidArgument("TensorListScatter expects num_elements >= -1, found: ", n);
    }
    int64_t most = -1;
    for (int64_t i : indices) {
      most = std::max(most, i);
      if (i < 0 || (n >= 0 && i >= n)) {
        return InvalidArgument("TensorListScatter: Trying to scatter at index ", i,
                               " in list with size ", n);
      }
    }
    if (std::max(n, most + 1) > kMaxHeldValues) {
      return ResourceExhausted("a list of ", std::max(n, most + 1),
                               " tensors is beyond the limit, ", kMaxHeldValues);
    }
    list->elements.resize(static_cast<size_t>(std::max(n, most + 1)));
    for (size_t k = 0; k < indices.size(); ++k) {
      std::vector<HeldValue> row;
      FERRY_RETURN_IF_ERROR(
          AppendRow(rows, static_cast<int64_t>(k) * shape.num_elements(), shape, &row));
      list->elements[static_cast<size_t>(indices[k])] = std::move(row[0]);
    }
    return SetList(c, 0, std::move(list));
  }
};

class PushBackKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(HeldValue value, HoldInput(c, 1, dtype_));
    {
      FERRY_ASSIGN_OR_RETURN(const ListRef list, ListInput(c));
      FERRY_RETURN_IF_ERROR(CheckType(*list, dtype_));
      FERRY_RETURN_IF_ERROR(CheckElement(
          *list, value.tensor,
          "Tried to append a tensor with incompatible shape to a list. Op element shape: "));
      if (list->max_size >= 0 && list->size() >= list->max_size) {
        return InvalidArgument("Tried to push item into a full list. list size: ", list->size(),
                               " max_num_elements: ", list->max_size);
      }
    }
    FERRY_ASSIGN_OR_RETURN(ListRef list, TakeList(c));
    list->elements.push_back(std::move(value));
    return SetList(c, 0, std::move(list));
  }
};

class PopBackKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    HeldValue last;
    {
      FERRY_ASSIGN_OR_RETURN(const ListRef list, ListInput(c));
      FERRY_RETURN_IF_ERROR(CheckType(*list, dtype_));
      if (list->elements.empty()) return InvalidArgument("Trying to pop from an empty list.");
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, ShapeInput(c, 1));
      FERRY_ASSIGN_OR_RETURN(shape, MergedElementShape(*list, std::move(shape)));
      if (!IsSet(list->elements.back())) {
        FERRY_ASSIGN_OR_RETURN(shape, KnownShape(*list, std::move(shape)));
      }
      FERRY_ASSIGN_OR_RETURN(last, ValueOf(*list, list->elements.back(), shape));
    }
    FERRY_ASSIGN_OR_RETURN(ListRef list, TakeList(c));
    list->elements.pop_back();
    GiveOutput(c, 1, last);
    return SetList(c, 0, std::move(list));
  }
};

class ListLengthKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ListRef list, ListInput(c));
    FERRY_ASSIGN_OR_RETURN(Tensor * length, c->AllocateOutput(0, TensorShape()));
    length->data<int32_t>()[0] = static_cast<int32_t>(list->size());
    return absl::OkStatus();
  }
};

class ElementShapeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ListRef list, ListInput(c));
    const PartialShape& shape = list->element_shape;
    const std::vector<int64_t> unknown = {-1};
    const absl::Span<const int64_t> dims =
        shape.known_rank() ? shape.dims() : absl::MakeConstSpan(unknown);
    FERRY_ASSIGN_OR_RETURN(
        Tensor * out,
        c->AllocateOutput(0, shape.known_rank() ? TensorShape({shape.rank()}) : TensorShape()));
    for (size_t i = 0; i < dims.size(); ++i) {
      if (out->dtype() == DType::kInt64) {
        out->data<int64_t>()[i] = dims[i];
      } else {
        out->data<int32_t>()[i] = static_cast<int32_t>(dims[i]);
      }
    }
    return absl::OkStatus();
  }
};

class ResizeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const int64_t n, c->InputAsInt(1));
    if (n < 0) {
      return InvalidArgument("TensorListSlice expects size to be non-negative. Got: ", n);
    }
    if (n > kMaxHeldValues) {
      return ResourceExhausted("a list of ", n, " tensors is beyond the limit, ", kMaxHeldValues);
    }
    FERRY_ASSIGN_OR_RETURN(ListRef list, TakeList(c));
    list->elements.resize(static_cast<size_t>(n));
    return SetList(c, 0, std::move(list));
  }
};

// All elements one behind the other along their first dimension, and how long each is.
class ListConcatKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ListRef list, ListInput(c));
    FERRY_RETURN_IF_ERROR(CheckType(*list, dtype_));
    FERRY_ASSIGN_OR_RETURN(PartialShape shape, ShapeInput(c, 1));
    FERRY_ASSIGN_OR_RETURN(shape, MergedElementShape(*list, std::move(shape)));
    FERRY_ASSIGN_OR_RETURN(const auto leading, c->InputAsInts(2));
    if (list->elements.empty()) {
      PartialShape rest = shape;
      if (rest.known_rank() && rest.rank() > 0) rest.set_dim(0, 0);
      if (!rest.fully_defined() || rest.rank() == 0) {
        return InvalidArgument(
            "All except the first dimension must be fully defined when concating an empty tensor "
            "list. element_shape: ",
            shape.DebugString());
      }
      FERRY_RETURN_IF_ERROR(c->AllocateOutput(1, {0}).status());
      FERRY_ASSIGN_OR_RETURN(const TensorShape none, rest.ToTensorShape());
      return c->AllocateOutput(0, none).status();
    }
    std::vector<Tensor> values;
    int64_t rows = 0;
    for (size_t k = 0; k < list->elements.size(); ++k) {
      if (!IsSet(list->elements[k]) && !shape.fully_defined()) {
        FERRY_ASSIGN_OR_RETURN(shape, KnownShape(*list, std::move(shape)));
      }
      PartialShape own = shape;
      if (k < leading.size() && own.known_rank() && own.rank() > 0) own.set_dim(0, leading[k]);
      FERRY_ASSIGN_OR_RETURN(const HeldValue value, ValueOf(*list, list->elements[k], own));
      if (value.tensor.rank() == 0) {
        return InvalidArgument("Concat requires elements to be at least vectors, found scalars "
                               "instead.");
      }
      values.push_back(value.tensor);
      rows += value.tensor.dim(0);
      if (WithoutRows(values.back().shape()) != WithoutRows(values.front().shape())) {
        return InvalidArgument("Concat saw elements whose shapes differ beyond the first "
                               "dimension: ",
                               values.front().shape().DebugString(), " and ",
                               values.back().shape().DebugString());
      }
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape full,
                           WithRows(rows, WithoutRows(values.front().shape())));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, full));
    FERRY_ASSIGN_OR_RETURN(Tensor * lengths,
                           c->AllocateOutput(1, {static_cast<int64_t>(values.size())}));
    int64_t at = 0;
    for (size_t k = 0; k < values.size(); ++k) {
      lengths->data<int64_t>()[k] = values[k].dim(0);
      CopyRange(values[k], 0, values[k].num_elements(), out, at);
      at += values[k].num_elements();
    }
    return absl::OkStatus();
  }
};

class ListSplitKernel : public ListKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& rows = c->input(0);
    auto list = std::make_shared<TensorList>();
    list->dtype = dtype_;
    FERRY_ASSIGN_OR_RETURN(list->element_shape, ShapeInput(c, 1));
    FERRY_ASSIGN_OR_RETURN(const auto lengths, c->InputAsInts(2));
    if (rows.rank() == 0) {
      return InvalidArgument("Tensor must be at least a vector, but saw shape: []");
    }
    const TensorShape rest = WithoutRows(rows.shape());
    int64_t at = 0;
    for (const int64_t length : lengths) {
      if (length < 0) return InvalidArgument("Invalid value in lengths: ", length);
      if (length > rows.dim(0) - at) {
        return InvalidArgument("Attempting to slice [", at, ", ", at + length,
                               "] from tensor with length ", rows.dim(0));
      }
      FERRY_ASSIGN_OR_RETURN(const TensorShape shape, WithRows(length, rest));
      if (!list->element_shape.CompatibleWith(shape)) {
        return InvalidArgument("tensor shape ", shape.DebugString(),
                               " is not compatible with element_shape ",
                               list->element_shape.DebugString());
      }
      FERRY_RETURN_IF_ERROR(AppendRow(rows, at * rest.num_elements(), shape, &list->elements));
      at += length;
    }
    if (at != rows.dim(0)) {
      return InvalidArgument("Unused values in tensor. Length of tensor: ", rows.dim(0),
                             " Values used: ", at);
    }
    return SetList(c, 0, std::move(list));
  }
};

// AddN of lists: element by element; one that isn't set counts as zeros.
class AddListsKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ListRef first, ListInput(c));
    auto sum = std::make_shared<TensorList>(*first);
    for (int i = 1; i < c->num_inputs(); ++i) {
      FERRY_ASSIGN_OR_RETURN(const ListRef other, ListInput(c, i));
      FERRY_RETURN_IF_ERROR(CheckType(*sum, other->dtype));
      if (other->size() != sum->size()) {
        return InvalidArgument("Trying to add two lists of tensors with different lengths. "
                               "One is ",
                               sum->size(), " and other is ", other->size());
      }
      FERRY_ASSIGN_OR_RETURN(sum->element_shape,
                             PartialShape::Merge(sum->element_shape, other->element_shape));
      for (size_t k = 0; k < sum->elements.size(); ++k) {
        HeldValue& to = sum->elements[k];
        const HeldValue& more = other->elements[k];
        if (!IsSet(more)) continue;
        if (!IsSet(to)) {
          to = more;
          continue;
        }
        if (to.tensor.shape() != more.tensor.shape()) {
          return InvalidArgument("Trying to add two tensors of different shapes, ",
                                 to.tensor.shape().DebugString(), " and ",
                                 more.tensor.shape().DebugString());
        }
        FERRY_ASSIGN_OR_RETURN(to.tensor, AddTensors(to.tensor, more.tensor));
      }
    }
    return SetList(c, 0, std::move(sum));
  }
};

class ZeroListKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ListRef like, ListInput(c));
    auto zeros = std::make_shared<TensorList>(*like);
    for (HeldValue& e : zeros->elements) {
      if (!e.tensor.initialized()) continue;
      FERRY_ASSIGN_OR_RETURN(e.tensor, ZeroTensor(zeros->dtype, e.tensor.shape()));
    }
    return SetList(c, 0, std::move(zeros));
  }
};

// ---- Definitions ----

absl::Status ListShape(InferenceContext* c) {
  c->set_output(0, PartialShape::Scalar());
  return absl::OkStatus();
}

// Output `out` as input i says, where that is known.
absl::Status ElementShapeOf(InferenceContext* c, int i, int out) {
  if (c->input(i).rank() != 1) return absl::OkStatus();
  FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->ValueAsShape(i));
  c->set_output(out, std::move(shape));
  return absl::OkStatus();
}

absl::Status RowsShapeOf(InferenceContext* c, int i, int64_t n) {
  if (c->input(i).rank() != 1) return absl::OkStatus();
  FERRY_ASSIGN_OR_RETURN(const PartialShape shape, c->ValueAsShape(i));
  if (!shape.known_rank()) return absl::OkStatus();
  PartialShape out({n});
  for (int64_t d : shape.dims()) out.AddDim(d);
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

FERRY_OP("EmptyTensorList")
    .Input("element_shape: shape_type")
    .Input("max_num_elements: int32")
    .Output("handle: variant")
    .Attr("element_dtype: type")
    .Attr("shape_type: {int32, int64}")
    .Shape(ListShape)
    .NotDifferentiable();
FERRY_OP("TensorListReserve")
    .Input("element_shape: shape_type")
    .Input("num_elements: int32")
    .Output("handle: variant")
    .Attr("element_dtype: type")
    .Attr("shape_type: {int32, int64}")
    .Shape(ListShape)
    .NotDifferentiable();
FERRY_OP("TensorListSetItem")
    .Input("input_handle: variant")
    .Input("index: int32")
    .Input("item: element_dtype")
    .Output("output_handle: variant")
    .Attr("element_dtype: type")
    .Attr("resize_if_index_out_of_bounds: bool = false")
    .Shape(ListShape);
FERRY_OP("TensorListGetItem")
    .Input("input_handle: variant")
    .Input("index: int32")
    .Input("element_shape: Tshape")
    .Output("item: element_dtype")
    .Attr("element_dtype: type")
    .Attr("Tshape: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) { return ElementShapeOf(c, 2, 0); });
FERRY_OP("TensorListStack")
    .Input("input_handle: variant")
    .Input("element_shape: int32")
    .Output("tensor: element_dtype")
    .Attr("element_dtype: type")
    .Attr("num_elements: int = -1")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const int64_t n, c->Attr<int64_t>("num_elements"));
      return RowsShapeOf(c, 1, n);
    });
FERRY_OP("TensorListFromTensor")
    .Input("tensor: element_dtype")
    .Input("element_shape: shape_type")
    .Output("output_handle: variant")
    .Attr("element_dtype: type")
    .Attr("shape_type: {int32, int64}")
    .Shape(ListShape);
FERRY_OP("TensorListPushBack")
    .Input("input_handle: variant")
    .Input("tensor: element_dtype")
    .Output("output_handle: variant")
    .Attr("element_dtype: type")
    .Shape(ListShape);
FERRY_OP("TensorListPopBack")
    .Input("input_handle: variant")
    .Input("element_shape: int32")
    .Output("output_handle: variant")
    .Output("tensor: element_dtype")
    .Attr("element_dtype: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(0, PartialShape::Scalar());
      return ElementShapeOf(c, 1, 1);
    });
FERRY_OP("TensorListLength")
    .Input("input_handle: variant")
    .Output("length: int32")
    .Shape(ScalarShape)
    .NotDifferentiable();
FERRY_OP("TensorListElementShape")
    .Input("input_handle: variant")
    .Output("element_shape: shape_type")
    .Attr("shape_type: {int32, int64}")
    .Shape(UnknownShape)
    .NotDifferentiable();
FERRY_OP("TensorListGather")
    .Input("input_handle: variant")
    .Input("indices: int32")
    .Input("element_shape: int32")
    .Output("values: element_dtype")
    .Attr("element_dtype: type")
    .Shape([](InferenceContext* c) {
      return RowsShapeOf(c, 2, c->input(1).rank() == 1 ? c->input(1).dim(0) : -1);
    });
FERRY_OP("TensorListScatter")
    .Input("tensor: element_dtype")
    .Input("indices: int32")
    .Input("element_shape: shape_type")
    .Output("output_handle: variant")
    .Attr("element_dtype: type")
    .Attr("shape_type: {int32, int64}")
    .Shape(ListShape);
FERRY_OP("TensorListScatterV2")
    .Input("tensor: element_dtype")
    .Input("indices: int32")
    .Input("element_shape: shape_type")
    .Input("num_elements: int32")
    .Output("output_handle: variant")
    .Attr("element_dtype: type")
    .Attr("shape_type: {int32, int64}")
    .Shape(ListShape);
FERRY_OP("TensorListConcatV2")
    .Input("input_handle: variant")
    .Input("element_shape: shape_type")
    .Input("leading_dims: int64")
    .Output("tensor: element_dtype")
    .Output("lengths: int64")
    .Attr("element_dtype: type")
    .Attr("shape_type: {int32, int64}")
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(1, PartialShape::UnknownOfRank(1));
      return absl::OkStatus();
    });
FERRY_OP("TensorListSplit")
    .Input("tensor: element_dtype")
    .Input("element_shape: shape_type")
    .Input("lengths: int64")
    .Output("output_handle: variant")
    .Attr("element_dtype: type")
    .Attr("shape_type: {int32, int64}")
    .Shape(ListShape);
FERRY_OP("TensorListResize")
    .Input("input_handle: variant")
    .Input("size: int32")
    .Output("output_handle: variant")
    .Shape(ListShape);

template <typename K>
bool Register(const char* op, bool changes_list = false) {
  KernelBuilder b(op);
  b.Device(DeviceType::kCpu);
  if (changes_list) b.InPlace(0);
  b.template Make<K>();
  const KernelBuilder::Registrar registrar(b);
  return true;
}
[[maybe_unused]] const bool registered =
    Register<EmptyListKernel>("EmptyTensorList") && Register<ReserveKernel>("TensorListReserve") &&
    Register<SetItemKernel>("TensorListSetItem", true) &&
    Register<GetItemKernel>("TensorListGetItem") && Register<ListStackKernel>("TensorListStack") &&
    Register<ListGatherKernel>("TensorListGather") &&
    Register<FromTensorKernel>("TensorListFromTensor") &&
    Register<ListScatterKernel>("TensorListScatter") &&
    Register<ListScatterKernel>("TensorListScatterV2") &&
    Register<PushBackKernel>("TensorListPushBack", true) &&
    Register<PopBackKernel>("TensorListPopBack", true) &&
    Register<ListLengthKernel>("TensorListLength") &&
    Register<ElementShapeKernel>("TensorListElementShape") &&
    Register<ResizeKernel>("TensorListResize", true) &&
    Register<ListConcatKernel>("TensorListConcatV2") &&
    Register<ListSplitKernel>("TensorListSplit");
FERRY_KERNEL("AddN").Device(DeviceType::kCpu).Type("T", {DType::kVariant}).Make<AddListsKernel>();
FERRY_KERNEL("ZerosLike")
    .Device(DeviceType::kCpu)
    .Type("T", {DType::kVariant})
    .Make<ZeroListKernel>();

}  // namespace
}  // namespace ferry
