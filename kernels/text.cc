// Ops on strings, element by element: AsString, StringToNumber, StringLength, Substr, StringStrip,
// StringLower, StringUpper; and ReduceJoin.
#include <algorithm>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/charconv.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "kernels/array.h"
#include "kernels/broadcast.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// ---- AsString ----

// Numbers as printf shows them: by width, fill and, for floats, precision and notation.
class AsStringKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(const int64_t precision, c.Attr<int64_t>("precision"));
    FERRY_ASSIGN_OR_RETURN(const bool scientific, c.Attr<bool>("scientific"));
    FERRY_ASSIGN_OR_RETURN(const bool shortest, c.Attr<bool>("shortest"));
    FERRY_ASSIGN_OR_RETURN(const int64_t width, c.Attr<int64_t>("width"));
    FERRY_ASSIGN_OR_RETURN(const std::string fill, c.Attr<std::string>("fill"));
    const DType type = c.input_types()[0];
    if (!IsFloating(type)) {
      if (scientific || shortest) {
        return InvalidArgument("scientific and shortest format not supported for datatype ",
                               DTypeName(type));
      }
      if (precision >= 0) {
        return InvalidArgument("precision not supported for datatype ", DTypeName(type));
      }
    }
    if (fill.size() > 1) {
      return InvalidArgument("Fill string must be one or fewer characters");
    }
    if (scientific && shortest) {
      return InvalidArgument("Cannot select both scientific and shortest notation");
    }
    if (!fill.empty() && std::string(" +-0#").find(fill) == std::string::npos) {
      return InvalidArgument("Fill argument not supported: \"", fill, "\"");
    }
    constexpr int64_t kMost = 4096;  // What a number is printed with isn't longer in earnest.
    if (width > kMost || precision > kMost) {
      return InvalidArgument("a width of ", width, " with a precision of ", precision,
                             " is too much: at most ", kMost);
    }
    // Only numbers that may be negative show their sign.
    const bool natural = type == DType::kUint8 || type == DType::kUint16 ||
                         type == DType::kUint32 || type == DType::kUint64;
    format_ = natural && fill == "+" ? "%" : "%" + fill;
    if (width >= 0) absl::StrAppend(&format_, width);
    if (precision >= 0) absl::StrAppend(&format_, ".", precision);
    if (IsFloating(type)) {
      format_ += scientific ? "e" : shortest ? "g" : "f";
    } else if (type == DType::kString) {
      format_ += "s";
    } else {
      format_ += "d";
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    for (int64_t i = 0; i < in.num_elements(); ++i) {
      std::string& to = out->data<std::string>()[i];
      to.clear();
      FERRY_RETURN_IF_ERROR(Print(in, i, &to));
    }
    return absl::OkStatus();
  }

 private:
  template <typename T>
  void Append(const T& value, std::string* to) const {
    const absl::UntypedFormatSpec format(format_);
    absl::FormatUntyped(to, format, {absl::FormatArg(value)});
  }
  absl::Status Print(const Tensor& in, int64_t i, std::string* to) const {
    switch (in.dtype()) {
      case DType::kHalf:
        Append(static_cast<float>(in.data<half>()[i]), to);
        break;
      case DType::kBfloat16:
        Append(static_cast<float>(in.data<bfloat16>()[i]), to);
        break;
      case DType::kFloat:
        Append(in.data<float>()[i], to);
        break;
      case DType::kDouble:
        Append(in.data<double>()[i], to);
        break;
      case DType::kInt8:
        Append(int{in.data<int8_t>()[i]}, to);
        break;
      case DType::kInt16:
        Append(int{in.data<int16_t>()[i]}, to);
        break;
      case DType::kInt32:
        Append(in.data<int32_t>()[i], to);
        break;
      case DType::kInt64:
        Append(in.data<int64_t>()[i], to);
        break;
      case DType::kUint8:
        Append(unsigned{in.data<uint8_t>()[i]}, to);
        break;
      case DType::kUint16:
        Append(unsigned{in.data<uint16_t>()[i]}, to);
        break;
      case DType::kUint32:
        Append(in.data<uint32_t>()[i], to);
        break;
      case DType::kUint64:
        Append(in.data<uint64_t>()[i], to);
        break;
      case DType::kBool:
        *to = in.data<bool>()[i] ? "true" : "false";
        break;
      case DType::kString:
        Append(in.data<std::string>()[i], to);
        break;
      default:
        return Unimplemented("AsString of ", DTypeName(in.dtype()));
    }
    return absl::OkStatus();
  }
  std::string format_;
};

FERRY_OP("AsString")
    .Input("input: T")
    .Output("output: string")
    .Attr(
        "T: {float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, uint32, "
        "uint64, complex64, complex128, bool, variant, string}")
    .Attr("precision: int = -1")
    .Attr("scientific: bool = false")
    .Attr("shortest: bool = false")
    .Attr("width: int = -1")
    .Attr("fill: string = ''")
    .Shape(UnchangedShape)
    .NotDifferentiable();
FERRY_KERNEL("AsString")
    .Type("T", {DType::kHalf, DType::kBfloat16, DType::kFloat, DType::kDouble, DType::kInt8,
                DType::kInt16, DType::kInt32, DType::kInt64, DType::kUint8, DType::kUint16,
                DType::kUint32, DType::kUint64, DType::kBool, DType::kString})
    .Make<AsStringKernel>();

// ---- StringToNumber ----

// With blanks around; floats may be hexadecimal, infinite or NaN.
template <typename T>
bool Parse(absl::string_view text, T* value) {
  text = absl::StripAsciiWhitespace(text);
  if constexpr (std::is_integral_v<T>) {
    return absl::SimpleAtoi(text, value);
  } else {
    absl::string_view digits = text;
    const bool negative = absl::ConsumePrefix(&digits, "-");
    if (!negative) absl::ConsumePrefix(&digits, "+");
    if (absl::StartsWithIgnoreCase(digits, "0x")) {
      digits.remove_prefix(2);
      const auto r = absl::from_chars(digits.data(), digits.data() + digits.size(), *value,
                                      absl::chars_format::hex);
      if (negative) *value = -*value;
      return r.ec == std::errc() && r.ptr == digits.data() + digits.size();
    }
    if constexpr (std::is_same_v<T, float>) {
      return absl::SimpleAtof(text, value);
    } else {
      return absl::SimpleAtod(text, value);
    }
  }
}

template <typename T>
class StringToNumberKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    for (int64_t i = 0; i < in.num_elements(); ++i) {
      const std::string& text = in.data<std::string>()[i];
      if (!Parse(text, out->data<T>() + i)) {
        return InvalidArgument("StringToNumberOp could not correctly convert string: ", text);
      }
    }
    return absl::OkStatus();
  }
};

FERRY_OP("StringToNumber")
    .Input("string_tensor: string")
    .Output("output: out_type")
    .Attr("out_type: {float, double, int32, int64, uint32, uint64} = DT_FLOAT")
    .Shape(UnchangedShape)
    .NotDifferentiable();
const bool to_number = RegisterCpu<StringToNumberKernel>(
    Types<float, double, int32_t, int64_t, uint32_t, uint64_t>(), "StringToNumber", "out_type");

// ---- StringLength, Substr ----

// Whether positions and lengths count the characters of UTF-8, not bytes.
absl::StatusOr<bool> CountsCharacters(const KernelConstruction& c) {
  FERRY_ASSIGN_OR_RETURN(const std::string unit, c.Attr<std::string>("unit"));
  return unit == "UTF8_CHAR";
}

// Every byte but those that go on with a character.
bool BeginsCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

int64_t LengthOf(absl::string_view text, bool characters) {
  return characters ? std::count_if(text.begin(), text.end(), BeginsCharacter)
                    : static_cast<int64_t>(text.size());
}

class StringLengthKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(characters_, CountsCharacters(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    for (int64_t i = 0; i < in.num_elements(); ++i) {
      const int64_t n = LengthOf(in.data<std::string>()[i], characters_);
      out->data<int32_t>()[i] = static_cast<int32_t>(n);
    }
    return absl::OkStatus();
  }
  bool characters_ = false;
};

FERRY_OP("StringLength")
    .Input("input: string")
    .Output("output: int32")
    .Attr("unit: {'BYTE', 'UTF8_CHAR'} = 'BYTE'")
    .Shape(UnchangedShape)
    .NotDifferentiable();
FERRY_KERNEL("StringLength").Make<StringLengthKernel>();

// Part of each string, from a position (from the end where negative) on; all of the rest where the
// length is more, or negative.
class SubstrKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(characters_, CountsCharacters(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &in = c->input(0), &positions = c->input(1), &lengths = c->input(2);
    if (positions.shape() != lengths.shape()) {
      return InvalidArgument(
          "pos and len should have the same shape, got: ", positions.shape().DebugString(), " vs. ",
          lengths.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, BroadcastShapes(in.shape(), positions.shape()));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    const TensorShape* const operands[] = {&in.shape(), &positions.shape()};
    const Broadcast broadcast(shape, operands);
    absl::Status status;
    broadcast.ForEachRun(0, out->num_elements(), [&](int64_t at, const int64_t* from, int64_t n) {
      for (int64_t i = 0; i < n && status.ok(); ++i) {
        const int64_t p = from[1] + i * broadcast.step(1);
        status = Cut(in.data<std::string>()[from[0] + i * broadcast.step(0)], IntAt(positions, p),
                     IntAt(lengths, p), at + i, out->data<std::string>() + at + i);
      }
    });
    return status;
  }

 private:
  absl::Status Cut(const std::string& text, int64_t position, int64_t length, int64_t index,
                   std::string* to) const {
    const int64_t size = LengthOf(text, characters_);
    if (position > size || position < -size) {
      return InvalidArgument("pos ", position, " out of range for string b'", text, "' at index ",
                             index);
    }
    if (position < 0) position += size;
    if (length < 0 || length > size - position) length = size - position;
    *to = text.substr(ByteOf(text, position),
                      ByteOf(text, position + length) - ByteOf(text, position));
    return absl::OkStatus();
  }
  // Where the n-th byte or character begins.
  size_t ByteOf(const std::string& text, int64_t n) const {
    if (!characters_) return static_cast<size_t>(n);
    size_t i = 0;
    for (; i < text.size(); ++i) {
      if (BeginsCharacter(text[i]) && n-- == 0) break;
    }
    return i;
  }
  bool characters_ = false;
};

FERRY_OP("Substr")
    .Input("input: string")
    .Input("pos: T")
    .Input("len: T")
    .Output("output: string")
    .Attr("T: {int32, int64}")
    .Attr("unit: {'BYTE', 'UTF8_CHAR'} = 'BYTE'")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const PartialShape at, PartialShape::Merge(c->input(1), c->input(2)));
      FERRY_ASSIGN_OR_RETURN(PartialShape out, BroadcastShapes(c->input(0), at));
      c->set_output(0, std::move(out));
      return absl::OkStatus();
    })
    .NotDifferentiable();
FERRY_KERNEL("Substr").Make<SubstrKernel>();

// ---- StringStrip, StringLower, StringUpper ----

class ChangeCaseKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    upper_ = c.op() == "StringUpper";
    FERRY_ASSIGN_OR_RETURN(encoding_, c.Attr<std::string>("encoding"));
    if (!encoding_.empty() && encoding_ != "utf-8") {
      return InvalidArgument("only utf-8 or '' (no encoding) is supported, received ", encoding_);
    }
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    for (int64_t i = 0; i < in.num_elements(); ++i) {
      const std::string& text = in.data<std::string>()[i];
      if (!encoding_.empty() && !std::all_of(text.begin(), text.end(), absl::ascii_isascii)) {
        return Unimplemented("the case of letters beyond ASCII isn't changed: '", text, "'");
      }
      out->data<std::string>()[i] =
          upper_ ? absl::AsciiStrToUpper(text) : absl::AsciiStrToLower(text);
    }
    return absl::OkStatus();
  }
  bool upper_ = false;
  std::string encoding_;
};

class StringStripKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    for (int64_t i = 0; i < in.num_elements(); ++i) {
      out->data<std::string>()[i] =
          std::string(absl::StripAsciiWhitespace(in.data<std::string>()[i]));
    }
    return absl::OkStatus();
  }
};

FERRY_OP("StringStrip")
    .Input("input: string")
    .Output("output: string")
    .Shape(UnchangedShape)
    .NotDifferentiable();
FERRY_OP("StringLower")
    .Input("input: string")
    .Output("output: string")
    .Attr("encoding: string = ''")
    .Shape(UnchangedShape)
    .NotDifferentiable();
FERRY_OP("StringUpper")
    .Input("input: string")
    .Output("output: string")
    .Attr("encoding: string = ''")
    .Shape(UnchangedShape)
    .NotDifferentiable();
FERRY_KERNEL("StringStrip").Make<StringStripKernel>();
FERRY_KERNEL("StringLower").Make<ChangeCaseKernel>();
FERRY_KERNEL("StringUpper").Make<ChangeCaseKernel>();

// ---- ReduceJoin ----

// Joins along the axes, the first that is named varying fastest.
absl::StatusOr<Ints> JoinAxes(int64_t rank, absl::Span<const int64_t> given) {
  Ints axes;
  for (const int64_t asked : given) {
    int64_t axis = asked;
    if (!NormalizeAxis(rank, &axis)) {
      return OutOfRange("Invalid reduction dimension ", asked, " for input with ", rank,
                        " dimension(s)");
    }
    if (std::find(axes.begin(), axes.end(), axis) != axes.end()) {
      return InvalidArgument("Duplicate reduction dimension ", asked);
    }
    axes.push_back(axis);
  }
  return axes;
}

class ReduceJoinKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(keep_dims_, c.Attr<bool>("keep_dims"));
    FERRY_ASSIGN_OR_RETURN(separator_, c.Attr<std::string>("separator"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(const Ints given, c->InputAsInts(1));
    FERRY_ASSIGN_OR_RETURN(const Ints axes, JoinAxes(in.rank(), given));
    const Ints strides = Strides(in.shape().dims());
    std::vector<std::pair<int64_t, int64_t>> kept, joined;  // Sizes and strides.
    Ints sizes;
    for (int d = 0; d < in.rank(); ++d) {
      const bool join = std::find(axes.begin(), axes.end(), d) != axes.end();
      if (!join) kept.emplace_back(in.dim(d), strides[static_cast<size_t>(d)]);
      if (!join || keep_dims_) sizes.push_back(join ? 1 : in.dim(d));
    }
    int64_t parts = 1;
    for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {
      joined.emplace_back(in.dim(static_cast<int>(*axis)), strides[static_cast<size_t>(*axis)]);
      parts *= joined.back().first;
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape(sizes)));
    for (int64_t i = 0; i < out->num_elements(); ++i) {
      std::string& to = out->data<std::string>()[i];
      to.clear();
      const int64_t first = Offset(i, kept);
      for (int64_t k = 0; k < parts; ++k) {
        if (k > 0) to += separator_;
        to += in.data<std::string>()[first + Offset(k, joined)];
      }
    }
    return absl::OkStatus();
  }

 private:
  // Of the i-th index within these dimensions.
  static int64_t Offset(int64_t i, const std::vector<std::pair<int64_t, int64_t>>& dims) {
    int64_t offset = 0;
    for (size_t d = dims.size(); d-- > 0; i /= dims[d].first) {
      offset += i % dims[d].first * dims[d].second;
    }
    return offset;
  }
  bool keep_dims_ = false;
  std::string separator_;
};

FERRY_OP("ReduceJoin")
    .Input("inputs: string")
    .Input("reduction_indices: int32")
    .Output("output: string")
    .Attr("keep_dims: bool = false")
    .Attr("separator: string = ''")
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& in = c->input(0);
      const std::optional<Ints> given = KnownInts(c, 1);
      if (!in.known_rank() || !given) return absl::OkStatus();
      FERRY_ASSIGN_OR_RETURN(const Ints axes, JoinAxes(in.rank(), *given));
      FERRY_ASSIGN_OR_RETURN(const bool keep_dims, c->Attr<bool>("keep_dims"));
      PartialShape out = PartialShape::Scalar();
      for (int d = 0; d < in.rank(); ++d) {
        const bool join = std::find(axes.begin(), axes.end(), d) != axes.end();
        if (!join || keep_dims) out.AddDim(join ? 1 : in.dim(d));
      }
      c->set_output(0, std::move(out));
      return absl::OkStatus();
    })
    .NotDifferentiable();
FERRY_KERNEL("ReduceJoin").Make<ReduceJoinKernel>();

}  // namespace
}  // namespace ferry
