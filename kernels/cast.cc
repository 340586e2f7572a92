// Cast, between all numbers and bool.
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

FERRY_OP("Cast")
    .Input("x: SrcT")
    .Output("y: DstT")
    .Attr("SrcT: type")
    .Attr("DstT: type")
    .Attr("Truncate: bool = false")
    .Shape(UnchangedShape)
    // y = x in another type:  dx = dy in x's type, between floating types
    .Gradient([](GradientContext* c) -> absl::Status {
      const DType from = BaseType(c->input(0).dtype());
      if (IsFloating(from) && IsFloating(BaseType(c->output(0).dtype()))) {
        c->set_input_grad(0, ops::Cast(c->scope(), c->grad(0), from));
      }
      return c->scope().status();
    });

using CastLoop = void (*)(const void* x, void* y, int64_t n);

template <typename To>
struct CastF {
  template <typename From>
  static To Apply(From x) {
    if constexpr (std::is_same_v<To, bool>) {
      return x != From(0);
    } else {
      return static_cast<To>(x);
    }
  }
};

template <typename From, typename... Tos>
CastLoop LoopFrom(Types<Tos...>, DType to) {
  CastLoop loop = nullptr;
  ((DTypeOf<Tos>::value == to ? void(loop = &UnaryLoop<CastF<Tos>, From, Tos>) : void()), ...);
  return loop;
}

using WideTypes = Join<Types<float, double, bool>, IntTypes>;
template <typename... Froms>
CastLoop FindLoop(Types<Froms...>, DType from, DType to) {
  CastLoop loop = nullptr;
  ((DTypeOf<Froms>::value == from ? void(loop = LoopFrom<Froms>(WideTypes(), to)) : void()), ...);
  return loop;
}

// Bits of the fraction that are stored; 0 for other types.
int FractionBits(DType t) {
  switch (t) {
    case DType::kHalf:
      return 10;
    case DType::kBfloat16:
      return 7;
    case DType::kFloat:
      return 23;
    case DType::kDouble:
      return 52;
    default:
      return 0;
  }
}

// 16-bit floats go through float, as in TensorFlow: from -> [float] -> [float] -> to.
class CastKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(from_, c.Attr<DType>("SrcT"));
    FERRY_ASSIGN_OR_RETURN(to_, c.Attr<DType>("DstT"));
    FERRY_ASSIGN_OR_RETURN(bool truncate, c.Attr<bool>("Truncate"));
    const DType wide_from = IsNarrow(from_) ? DType::kFloat : from_;
    const DType wide_to = IsNarrow(to_) ? DType::kFloat : to_;
    loop_ = FindLoop(WideTypes(), wide_from, wide_to);
    // To bfloat16 TensorFlow truncates from float only, and rounds from the others.
    const bool rounds = to_ == DType::kBfloat16 && from_ != DType::kFloat;
    if (truncate && !rounds && FractionBits(to_) > 0 && FractionBits(from_) > FractionBits(to_)) {
      cleared_bits_ = FractionBits(wide_from) - FractionBits(to_);
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, x.shape()));
    const char* in = static_cast<const char*>(x.raw());
    char* out = static_cast<char*>(y->raw());
    const auto in_size = static_cast<int64_t>(ElementSize(from_));
    const auto out_size = static_cast<int64_t>(ElementSize(to_));
    c->ParallelFor(x.num_elements(), kCheapGrain, [&](int64_t begin, int64_t end) {
      if (from_ == to_) {
        if (in != out) {
          std::memcpy(out + begin * out_size, in + begin * in_size,
                      static_cast<size_t>((end - begin) * in_size));
        }
      } else if (!IsNarrow(from_) && !IsNarrow(to_) && cleared_bits_ == 0) {
        loop_(in + begin * in_size, out + begin * out_size, end - begin);
      } else {
        for (int64_t i = begin; i < end; i += kBlock) {
          Block(in + i * in_size, out + i * out_size, std::min(kBlock, end - i));
        }
      }
    });
    return absl::OkStatus();
  }

 private:
  static constexpr int64_t kBlock = 512;

  void Block(const char* in, char* out, int64_t n) const {
    alignas(64) double storage[kBlock];  // Of float or double.
    alignas(64) float wide_out[kBlock];
    const void* from = in;
    if (IsNarrow(from_)) {
      Widen(from_, in, reinterpret_cast<float*>(storage), n);
      from = storage;
    }
    if (cleared_bits_ > 0) {
      if (from_ == DType::kDouble) {
        ClearLowBits<uint64_t>(from, storage, n);
      } else {
        ClearLowBits<uint32_t>(from, storage, n);
      }
      from = storage;
    }
    if (IsNarrow(to_)) {
      loop_(from, wide_out, n);
      Narrow(to_, wide_out, out, n);
    } else {
      loop_(from, out, n);
    }
  }

  // Makes what follows round towards zero.
  template <typename Bits>
  void ClearLowBits(const void* from, void* to, int64_t n) const {
    const char* in = static_cast<const char*>(from);
    char* out = static_cast<char*>(to);
    for (int64_t i = 0; i < n; ++i) {
      Bits b;
      std::memcpy(&b, in + i * static_cast<int64_t>(sizeof(b)), sizeof(b));
      b = b >> cleared_bits_ << cleared_bits_;
      std::memcpy(out + i * static_cast<int64_t>(sizeof(b)), &b, sizeof(b));
    }
  }

  DType from_ = DType::kInvalid, to_ = DType::kInvalid;
  CastLoop loop_ = nullptr;
  int cleared_bits_ = 0;
};

template <typename... Ts>
std::vector<DType> List(Types<Ts...>) {
  return {DTypeOf<Ts>::value...};
}
const std::vector<DType> kTypes = List(Join<NumberTypes, Types<bool>>());

// ---- Bitcast ----

// The same bytes as elements of another dtype. The last dimension makes up for other sizes:
// elements of 4 bytes become 4 of one byte along a new one, and that many become one element again.
absl::StatusOr<TensorShape> BitcastSizes(const TensorShape& in, DType from, DType to) {
  const auto from_size = static_cast<int64_t>(ElementSize(from));
  const auto to_size = static_cast<int64_t>(ElementSize(to));
  absl::InlinedVector<int64_t, 8> dims(in.dims().begin(), in.dims().end());
  if (from_size > to_size) {
    dims.push_back(from_size / to_size);
  } else if (from_size < to_size) {
    if (dims.empty() || dims.back() != to_size / from_size) {
      return InvalidArgument("Cannot bitcast from ", DTypeName(from), " to ", DTypeName(to),
                             ": shape ", in.DebugString(), ", whose last dimension should be ",
                             to_size / from_size);
    }
    dims.pop_back();
  }
  return TensorShape::Make(dims);
}

class BitcastKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape,
                           BitcastSizes(x.shape(), x.dtype(), c->output_type(0)));
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, shape));
    if (x.bytes() > 0) std::memcpy(y->raw(), x.raw(), x.bytes());
    return absl::OkStatus();
  }
};

#define FERRY_BITS                                                                             \
  "{bfloat16, half, float, double, int64, int32, uint8, uint16, uint32, uint64, int8, int16, " \
  "complex64, complex128, qint8, quint8, qint16, quint16, qint32}"
FERRY_OP("Bitcast")
    .Input("input: T")
    .Output("output: type")
    .Attr("T: " FERRY_BITS)
    .Attr("type: " FERRY_BITS)
    .Shape([](InferenceContext* c) -> absl::Status {
      if (!c->input(0).fully_defined()) return absl::OkStatus();
      FERRY_ASSIGN_OR_RETURN(const DType from, c->Attr<DType>("T"));
      FERRY_ASSIGN_OR_RETURN(const DType to, c->Attr<DType>("type"));
      FERRY_ASSIGN_OR_RETURN(const TensorShape in, c->input(0).ToTensorShape());
      FERRY_ASSIGN_OR_RETURN(const TensorShape out, BitcastSizes(in, from, to));
      c->set_output(0, out);
      return absl::OkStatus();
    });
FERRY_KERNEL("Bitcast").Make<BitcastKernel>();

FERRY_KERNEL("Cast")
    .Device(DeviceType::kCpu)
    .Type("SrcT", kTypes)
    .Type("DstT", kTypes)
    .InPlace(0)
    .Make<CastKernel>();

}  // namespace
}  // namespace ferry
