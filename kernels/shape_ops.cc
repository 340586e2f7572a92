// Ops about shapes: asking for them (Shape, Size, Rank), seeing a tensor under another (Reshape,
// ExpandDims, Squeeze, EnsureShape), and making tensors from shapes and ranges (Fill, Range,
// LinSpace, InvertPermutation).
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/array.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

absl::Status WriteInt(int64_t value, Tensor* to, int64_t at) {
  if (to->dtype() == DType::kInt64) {
    to->data<int64_t>()[at] = value;
    return absl::OkStatus();
  }
  if (value > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument(value, " doesn't fit the 32-bit output type; ask for int64");
  }
  to->data<int32_t>()[at] = static_cast<int32_t>(value);
  return absl::OkStatus();
}

// ---- Shape, ShapeN, Size, Rank ----

class ShapeKernel : public Kernel {  // ShapeN too.
  absl::Status Compute(KernelContext* c) const override {
    for (int i = 0; i < c->num_inputs(); ++i) {
      const TensorShape& shape = c->input(i).shape();
      FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(i, {shape.rank()}));
      for (int d = 0; d < shape.rank(); ++d) FERRY_RETURN_IF_ERROR(WriteInt(shape.dim(d), out, d));
    }
    return absl::OkStatus();
  }
};

class SizeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape()));
    return WriteInt(c->input(0).num_elements(), out, 0);
  }
};

class RankKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape()));
    return WriteInt(c->input(0).rank(), out, 0);
  }
};

absl::Status ShapeShape(InferenceContext* c) {
  for (int i = 0; i < c->num_outputs(); ++i) {
    c->set_output(i, {c->input(i).rank()});
    if (c->input(i).known_rank()) c->set_output_value_as_shape(i, c->input(i));
  }
  return absl::OkStatus();
}

FERRY_OP("Shape")
    .Input("input: T")
    .Output("output: out_type")
    .Attr("T: type")
    .Attr("out_type: {int32, int64} = DT_INT32")
    .Shape(ShapeShape)
    .NotDifferentiable();
FERRY_OP("ShapeN")
    .Input("input: N * T")
    .Output("output: N * out_type")
    .Attr("N: int >= 1")
    .Attr("T: type")
    .Attr("out_type: {int32, int64} = DT_INT32")
    .Shape(ShapeShape)
    .NotDifferentiable();
FERRY_OP("Size")
    .Input("input: T")
    .Output("output: out_type")
    .Attr("T: type")
    .Attr("out_type: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(0, PartialShape::Scalar());
      c->set_output_value_as_shape(0, {c->input(0).num_elements()});
      return absl::OkStatus();
    })
    .NotDifferentiable();
FERRY_OP("Rank")
    .Input("input: T")
    .Output("output: int32")
    .Attr("T: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(0, PartialShape::Scalar());
      c->set_output_value_as_shape(0, {c->input(0).rank()});
      return absl::OkStatus();
    })
    .NotDifferentiable();
// They don't look at the elements, so the input may lie anywhere.
template <typename K>
bool RegisterShapeKernel(const char* op) {
  for (const DeviceType device : {DeviceType::kCpu, DeviceType::kGpu}) {
    KernelBuilder b(op);
    b.Device(device).AnyMemory("input").HostMemory("output").template Make<K>();
    if (device == DeviceType::kGpu) b.Type("T", kGpuTypes);
    const KernelBuilder::Registrar registrar(b);
  }
  return true;
}
[[maybe_unused]] const bool shapes =
    RegisterShapeKernel<ShapeKernel>("Shape") && RegisterShapeKernel<ShapeKernel>("ShapeN") &&
    RegisterShapeKernel<SizeKernel>("Size") && RegisterShapeKernel<RankKernel>("Rank");

// ---- Reshape and its kin ----

absl::Status ReshapeGradient(GradientContext* c) {
  c->set_input_grad(0, ops::Reshape(c->scope(), c->grad(0), ops::Shape(c->scope(), c->input(0))));
  return c->scope().status();
}

// The shape that `sizes`, with at most one -1 among them, asks for.
absl::StatusOr<TensorShape> ResolveReshape(const TensorShape& in, absl::Span<const int64_t> sizes) {
  int unknown = -1;
  bool zero_size = false;
  int64_t product = 1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == -1) {
      if (unknown >= 0) {
        return InvalidArgument("Only one input size may be -1, not both ", unknown, " and ", i);
      }
      unknown = static_cast<int>(i);
    } else if (sizes[i] < 0) {
      return InvalidArgument("Size ", i, " must be non-negative, not ", sizes[i]);
    } else if (sizes[i] == 0) {
      zero_size = true;
    } else if (__builtin_mul_overflow(product, sizes[i], &product)) {
      return InvalidArgument("the requested shape has more elements than fit 63 bits");
    }
  }
  Ints dims(sizes.begin(), sizes.end());
  if (unknown >= 0) {
    // A size of 0 that was asked for stands for one of the input's: both are left out, so that the
    // unknown size is that of the rest.
    int64_t elements = 1;
    bool zero_input = false;
    for (int64_t d : in.dims()) {
      if (d == 0 && zero_size) {
        zero_input = true;
      } else {
        elements *= d;
      }
    }
    const int64_t missing = elements / product;
    if (!zero_input && missing * product != elements) {
      return InvalidArgument("Input to reshape is a tensor with ", in.num_elements(),
                             " values, but the requested shape requires a multiple of ", product);
    }
    dims[static_cast<size_t>(unknown)] = missing;
  }
  FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
  if (shape.num_elements() != in.num_elements()) {
    return InvalidArgument("Input to reshape is a tensor with ", in.num_elements(),
                           " values, but the requested shape has ", shape.num_elements());
  }
  return shape;
}

class ReshapeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& sizes = c->input(1);
    if (sizes.rank() != 1) {
      return InvalidArgument("sizes input must be 1-D, not ", sizes.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Ints values, c->InputAsInts(1));
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, ResolveReshape(c->input(0).shape(), values));
    c->ForwardInput(0, 0, shape);
    return absl::OkStatus();
  }
};

absl::Status ReshapeShape(InferenceContext* c) {
  const PartialShape& in = c->input(0);
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
  const std::optional<Ints> sizes = KnownInts(c, 1);
  if (sizes && in.fully_defined()) {
    FERRY_ASSIGN_OR_RETURN(TensorShape from, in.ToTensorShape());
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, ResolveReshape(from, *sizes));
    c->set_output(0, shape);
    return absl::OkStatus();
  }
  FERRY_ASSIGN_OR_RETURN(PartialShape out, c->ValueAsShape(1));
  // The one size that isn't known follows from the number of elements.
  if (out.known_rank() && in.fully_defined() && in.num_elements() > 0) {
    int unknown = -1, unknowns = 0;
    int64_t product = 1;
    for (int i = 0; i < out.rank(); ++i) {
      if (out.dim(i) == PartialShape::kUnknown) {
        unknown = i;
        ++unknowns;
      } else if (__builtin_mul_overflow(product, out.dim(i), &product)) {
        return InvalidArgument("the requested shape has more elements than fit 63 bits");
      }
    }
    if (unknowns == 1 && product > 0 && in.num_elements() % product == 0) {
      out.set_dim(unknown, in.num_elements() / product);
    }
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

FERRY_OP("Reshape")
    .Input("tensor: T")
    .Input("shape: Tshape")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tshape: {int32, int64} = DT_INT32")
    .Shape(ReshapeShape)
    .Gradient(ReshapeGradient)
    .AliasesInput(0);
[[maybe_unused]] const bool reshape = RegisterArrayKernel<ReshapeKernel>("Reshape", {"shape"});

class ExpandDimsKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const TensorShape& in = c->input(0).shape();
    if (c->input(1).num_elements() != 1) {
      return InvalidArgument("'dim' must be a tensor with a single value, found shape ",
                             c->input(1).shape().DebugString());
    }
    int64_t dim = IntAt(c->input(1), 0);
    const int64_t asked = dim;
    if (!NormalizeAxis(in.rank() + 1, &dim)) {
      return InvalidArgument("Tried to expand dim index ", asked, " for tensor with ", in.rank(),
                             " dimensions.");
    }
    Ints dims(in.dims().begin(), in.dims().end());
    dims.insert(dims.begin() + dim, 1);
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    c->ForwardInput(0, 0, shape);
    return absl::OkStatus();
  }
};

FERRY_OP("ExpandDims")
    .Input("input: T")
    .Input("dim: Tdim")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tdim: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& in = c->input(0);
      std::optional<int64_t> dim = KnownInt(c, 1);
      if (!in.known_rank()) return absl::OkStatus();
      if (!dim) {
        c->set_output(0, PartialShape::UnknownOfRank(in.rank() + 1));
        return absl::OkStatus();
      }
      const int64_t asked = *dim;
      if (!NormalizeAxis(in.rank() + 1, &*dim)) {
        return InvalidArgument("Tried to expand dim index ", asked, " for tensor with ", in.rank(),
                               " dimensions.");
      }
      Ints dims(in.dims().begin(), in.dims().end());
      dims.insert(dims.begin() + *dim, 1);
      c->set_output(0, PartialShape(dims));
      return absl::OkStatus();
    })
    .Gradient(ReshapeGradient)
    .AliasesInput(0);
[[maybe_unused]] const bool expand_dims =
    RegisterArrayKernel<ExpandDimsKernel>("ExpandDims", {"dim"});

// `dims` without those of size 1 (all of them when `squeeze` is empty). In a partial shape an
// unknown size that is named counts as 1; nullopt when an unknown one isn't named but might be.
absl::StatusOr<std::optional<Ints>> ResolveSqueeze(absl::Span<const int64_t> dims,
                                                   absl::Span<const int64_t> squeeze) {
  const int64_t rank = static_cast<int64_t>(dims.size());
  std::vector<bool> drop(dims.size(), false);
  for (int64_t d : squeeze) {
    const int64_t asked = d;
    if (!NormalizeAxis(rank, &d)) {
      return InvalidArgument("Tried to squeeze dim index ", asked, " for tensor with ", rank,
                             " dimensions.");
    }
    drop[static_cast<size_t>(d)] = true;
  }
  Ints kept;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (squeeze.empty()) {
      if (dims[i] == PartialShape::kUnknown) return std::optional<Ints>();
      if (dims[i] != 1) kept.push_back(dims[i]);
    } else if (!drop[i]) {
      kept.push_back(dims[i]);
    } else if (dims[i] != 1 && dims[i] != PartialShape::kUnknown) {
      return InvalidArgument("Can not squeeze dim[", i, "], expected a dimension of 1, got ",
                             dims[i]);
    }
  }
  return std::optional<Ints>(std::move(kept));
}

class SqueezeKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(squeeze_, c.Attr<std::vector<int64_t>>("squeeze_dims"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(std::optional<Ints> dims,
                           ResolveSqueeze(c->input(0).shape().dims(), squeeze_));
    c->ForwardInput(0, 0, TensorShape(absl::MakeConstSpan(*dims)));
    return absl::OkStatus();
  }
  std::vector<int64_t> squeeze_;
};

FERRY_OP("Squeeze")
    .Input("input: T")
    .Output("output: T")
    .Attr("T: type")
    .Attr("squeeze_dims: list(int) >= 0 = []")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(std::vector<int64_t> squeeze,
                             c->Attr<std::vector<int64_t>>("squeeze_dims"));
      if (!c->input(0).known_rank()) return absl::OkStatus();
      FERRY_ASSIGN_OR_RETURN(std::optional<Ints> dims, ResolveSqueeze(c->input(0).dims(), squeeze));
      if (dims) c->set_output(0, PartialShape(*dims));
      return absl::OkStatus();
    })
    .Gradient(ReshapeGradient)
    .AliasesInput(0);
[[maybe_unused]] const bool squeeze = RegisterArrayKernel<SqueezeKernel>("Squeeze");

class EnsureShapeKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(shape_, c.Attr<PartialShape>("shape"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    if (!shape_.CompatibleWith(c->input(0).shape())) {
      return InvalidArgument("Shape of tensor ", c->input(0).shape().DebugString(),
                             " is not compatible with expected shape ", shape_.DebugString(), ".");
    }
    c->ForwardInput(0, 0);
    return absl::OkStatus();
  }
  PartialShape shape_;
};

FERRY_OP("EnsureShape")
    .Input("input: T")
    .Output("output: T")
    .Attr("shape: shape")
    .Attr("T: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->Attr<PartialShape>("shape"));
      FERRY_ASSIGN_OR_RETURN(PartialShape both, PartialShape::Merge(c->input(0), shape));
      c->set_output(0, std::move(both));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(0, c->grad(0));
      return absl::OkStatus();
    })
    .AliasesInput(0);
[[maybe_unused]] const bool ensure_shape = RegisterArrayKernel<EnsureShapeKernel>("EnsureShape");

// ---- Fill ----

class FillKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& dims = c->input(0);
    const Tensor& value = c->input(1);
    if (dims.rank() > 1) {
      return InvalidArgument("dims must be a vector, got shape ", dims.shape().DebugString());
    }
    if (value.rank() > 1 || value.num_elements() != 1) {
      return InvalidArgument("value must be a scalar, got shape ", value.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, c->InputAsShape(0));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    return FillWith(c, value, out);
  }
};

FERRY_OP("Fill")
    .Input("dims: index_type")
    .Input("value: T")
    .Output("output: T")
    .Attr("T: type")
    .Attr("index_type: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      if (c->input(0).rank() == 0) {  // Counts as a vector of one element.
        c->set_output(0, {c->ValueAsInt(0)});
        return absl::OkStatus();
      }
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->ValueAsShape(0));
      c->set_output(0, std::move(shape));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(1, ops::ReduceSum(c->scope(), c->grad(0)));
      return c->scope().status();
    });
[[maybe_unused]] const bool fill = RegisterArrayKernel<FillKernel>("Fill", {"dims"});

// ---- Range, LinSpace ----

// How many of start, start + delta, … come before limit.
template <typename T>
absl::StatusOr<int64_t> RangeSize(T start, T limit, T delta) {
  if (delta == T(0)) return InvalidArgument("Requires delta != 0");
  if (delta > T(0) && start > limit) {
    return InvalidArgument("Requires start <= limit when delta > 0: ", start, "/", limit);
  }
  if (delta < T(0) && start < limit) {
    return InvalidArgument("Requires start >= limit when delta < 0: ", start, "/", limit);
  }
  if constexpr (std::is_integral_v<T>) {
    // Unsigned, since the distance may not fit the signed type.
    const uint64_t from = static_cast<uint64_t>(start), to = static_cast<uint64_t>(limit);
    const uint64_t distance = delta > 0 ? to - from : from - to;
    const uint64_t step =
        delta > 0 ? static_cast<uint64_t>(delta) : uint64_t{0} - static_cast<uint64_t>(delta);
    const uint64_t size = distance / step + (distance % step != 0);
    if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return InvalidArgument("Requires ((limit - start) / delta) < 2^63");
    }
    return static_cast<int64_t>(size);
  } else {
    const double size = std::ceil(std::abs(
        (static_cast<double>(limit) - static_cast<double>(start)) / static_cast<double>(delta)));
    if (!(size < 9.2e18)) return InvalidArgument("Requires ((limit - start) / delta) < 2^63");
    return static_cast<int64_t>(size);
  }
}

template <typename T>
struct PrintAs {
  using type = T;
};
template <>
struct PrintAs<half> {
  using type = float;
};
template <>
struct PrintAs<bfloat16> {
  using type = float;
};

template <typename T>
class RangeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    static const char* const kNames[] = {"start", "limit", "delta"};
    for (int i = 0; i < 3; ++i) {
      if (c->input(i).rank() > 1 || c->input(i).num_elements() != 1) {
        return InvalidArgument(kNames[i], " must be a scalar, not shape ",
                               c->input(i).shape().DebugString());
      }
    }
    using P = typename PrintAs<T>::type;
    T value = c->input(0).scalar<T>();
    const T limit = c->input(1).scalar<T>(), delta = c->input(2).scalar<T>();
    FERRY_ASSIGN_OR_RETURN(
        const int64_t size,
        RangeSize<P>(static_cast<P>(value), static_cast<P>(limit), static_cast<P>(delta)));
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make({size}));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    T* to = out->data<T>();
    // Adds up, rounding at each step, as TensorFlow does.
    for (int64_t i = 0; i < size; ++i) {
      to[i] = value;
      if (i + 1 < size) value = static_cast<T>(value + delta);
    }
    return absl::OkStatus();
  }
};

// A number of any type as double and, if it is an integer, as int64.
bool ReadNumber(const Tensor& t, double* real, int64_t* integer) {
  if (t.num_elements() != 1) return false;
  switch (t.dtype()) {
    case DType::kFloat:
      *real = t.scalar<float>();
      return true;
    case DType::kDouble:
      *real = t.scalar<double>();
      return true;
    case DType::kInt32:
      *integer = t.scalar<int32_t>();
      return true;
    case DType::kInt64:
      *integer = t.scalar<int64_t>();
      return true;
    default:
      return false;
  }
}

FERRY_OP("Range")
    .Input("start: Tidx")
    .Input("limit: Tidx")
    .Input("delta: Tidx")
    .Output("output: Tidx")
    .Attr(
        "Tidx: {bfloat16, half, float, double, int8, int16, int32, int64, uint16, uint32, "
        "uint64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(0, {PartialShape::kUnknown});
      double real[3];
      int64_t integer[3];
      for (int i = 0; i < 3; ++i) {
        if (!c->value(i) || !ReadNumber(*c->value(i), &real[i], &integer[i])) {
          return absl::OkStatus();
        }
      }
      absl::StatusOr<int64_t> size = IsInteger(c->value(0)->dtype())
                                         ? RangeSize<int64_t>(integer[0], integer[1], integer[2])
                                         : RangeSize<double>(real[0], real[1], real[2]);
      if (!size.ok()) return size.status();
      c->set_output(0, {*size});
      return absl::OkStatus();
    })
    .NotDifferentiable();

template <typename T>
class LinSpaceKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    for (int i = 0; i < 3; ++i) {
      if (c->input(i).rank() > 1 || c->input(i).num_elements() != 1) {
        return InvalidArgument("start, stop and num must be scalars, input ", i, " has shape ",
                               c->input(i).shape().DebugString());
      }
    }
    const T start = c->input(0).scalar<T>(), stop = c->input(1).scalar<T>();
    FERRY_ASSIGN_OR_RETURN(const int64_t num, c->InputAsInt(2));
    if (num <= 0) return InvalidArgument("Requires num > 0: ", num);
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make({num}));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    T* to = out->data<T>();
    to[0] = start;
    if (num == 1) return absl::OkStatus();
    const T step = static_cast<T>((stop - start) / static_cast<T>(num - 1));
    for (int64_t i = 1; i < num - 1; ++i) to[i] = static_cast<T>(start + step * static_cast<T>(i));
    to[num - 1] = stop;  // Exactly.
    return absl::OkStatus();
  }
};

FERRY_OP("LinSpace")
    .Input("start: T")
    .Input("stop: T")
    .Input("num: Tidx")
    .Output("output: T")
    .Attr("T: {bfloat16, half, float, double}")
    .Attr("Tidx: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      std::optional<int64_t> num = KnownInt(c, 2);
      if (num && *num <= 0) return InvalidArgument("Requires num > 0: ", *num);
      c->set_output(0, {num ? *num : PartialShape::kUnknown});
      return absl::OkStatus();
    })
    .NotDifferentiable();

// They run on the host on behalf of every device.
template <template <typename> class K, typename... Ts>
bool RegisterOnHost(Types<Ts...>, const char* op, const char* attr,
                    std::initializer_list<const char*> host_memory) {
  (
      [&] {
        for (const DeviceType device : {DeviceType::kCpu, DeviceType::kGpu}) {
          KernelBuilder b(op);
          b.Device(device).template Type<Ts>(attr).template Make<K<Ts>>();
          for (const char* arg : host_memory) b.HostMemory(arg);
          const KernelBuilder::Registrar registrar(b);
        }
      }(),
      ...);
  return true;
}
[[maybe_unused]] const bool registered =
    RegisterOnHost<RangeKernel>(Types<half, bfloat16, float, double, int32_t, int64_t>(), "Range",
                                "Tidx", {"start", "limit", "delta", "output"}) &&
    RegisterOnHost<LinSpaceKernel>(Types<float, double>(), "LinSpace", "T",
                                   {"start", "stop", "num", "output"});

// ---- InvertPermutation ----

class InvertPermutationKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    if (x.rank() != 1) {
      return InvalidArgument("invert_permutation expects a 1D vector, found shape ",
                             x.shape().DebugString());
    }
    const int64_t n = x.num_elements();
    if (x.dtype() == DType::kInt32 && n > std::numeric_limits<int32_t>::max()) {
      return InvalidArgument("permutation of nonnegative int32s must have <= int32 max elements");
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, x.shape()));
    const bool wide = x.dtype() == DType::kInt64;
    std::vector<bool> seen(static_cast<size_t>(n), false);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = IntAt(x, i);
      if (at < 0 || at >= n) return InvalidArgument(at, " is not between 0 and ", n);
      if (seen[static_cast<size_t>(at)]) {
        return InvalidArgument(at, " is duplicated in the input.");
      }
      seen[static_cast<size_t>(at)] = true;
      if (wide) {
        y->data<int64_t>()[at] = i;
      } else {
        y->data<int32_t>()[at] = static_cast<int32_t>(i);
      }
    }
    return absl::OkStatus();
  }
};

FERRY_OP("InvertPermutation")
    .Input("x: T")
    .Output("y: T")
    .Attr("T: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape x, c->WithRank(c->input(0), 1));
      c->set_output(0, std::move(x));
      return absl::OkStatus();
    })
    .NotDifferentiable();
[[maybe_unused]] const bool invert_permutation =
    RegisterArrayKernel<InvertPermutationKernel>("InvertPermutation", {"x", "y"});

}  // namespace
}  // namespace ferry
