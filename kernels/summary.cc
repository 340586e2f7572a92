// Ops whose results are Summary messages for TensorBoard: ScalarSummary, HistogramSummary,
// ImageSummary, MergeSummary.
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/types.h"
#include "proto/summary.pb.h"
#include "runtime/base/status.h"
#include "runtime/op/histogram.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// The first `count` elements.
std::vector<double> AsDoubles(const Tensor& t, int64_t count) {
  const size_t n = static_cast<size_t>(count);
  std::vector<double> out(n);
  switch (t.dtype()) {
    case DType::kHalf:
      for (size_t i = 0; i < n; ++i) out[i] = HalfToFloat(static_cast<const Half*>(t.raw())[i]);
      break;
    case DType::kBfloat16:
      for (size_t i = 0; i < n; ++i) {
        out[i] = Bfloat16ToFloat(static_cast<const Bfloat16*>(t.raw())[i]);
      }
      break;
#define FERRY_CASE(E, T)                                                         \
  case DType::E:                                                                 \
    for (size_t i = 0; i < n; ++i) out[i] = static_cast<double>(t.data<T>()[i]); \
    break
      FERRY_CASE(kFloat, float);
      FERRY_CASE(kDouble, double);
      FERRY_CASE(kInt8, int8_t);
      FERRY_CASE(kInt16, int16_t);
      FERRY_CASE(kInt32, int32_t);
      FERRY_CASE(kInt64, int64_t);
      FERRY_CASE(kUint8, uint8_t);
      FERRY_CASE(kUint16, uint16_t);
      FERRY_CASE(kUint32, uint32_t);
      FERRY_CASE(kUint64, uint64_t);
#undef FERRY_CASE
    default:
      break;
  }
  return out;
}

absl::Status SetSummary(KernelContext* c, const proto::Summary& summary) {
  FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape()));
  if (!summary.SerializeToString(&out->data<std::string>()[0])) {
    return InvalidArgument("a summary of ", summary.ByteSizeLong(), " bytes can't be serialized");
  }
  return absl::OkStatus();
}

class ScalarSummaryKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &tags = c->input(0), &values = c->input(1);
    // A single tag goes with a vector of one value, and the other way round.
    if (tags.shape() != values.shape() &&
        !(tags.num_elements() == 1 && values.num_elements() == 1)) {
      return InvalidArgument("tags and values are not the same shape: ", tags.shape().DebugString(),
                             " != ", values.shape().DebugString(),
                             tags.num_elements() == 1
                                 ? absl::StrCat(" (tag '", tags.data<std::string>()[0], "')")
                                 : std::string());
    }
    const std::vector<double> numbers = AsDoubles(values, values.num_elements());
    proto::Summary summary;
    for (size_t i = 0; i < numbers.size(); ++i) {
      proto::Summary::Value* v = summary.add_value();
      v->set_tag(tags.data<std::string>()[i]);
      v->set_simple_value(static_cast<float>(numbers[i]));
    }
    return SetSummary(c, summary);
  }
};

class HistogramSummaryKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    name_ = c.node_name();
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& tag = c->input(0);
    if (tag.num_elements() != 1) return InvalidArgument("tags must be scalar");
    const std::vector<double> numbers = AsDoubles(c->input(1), c->input(1).num_elements());
    for (const double x : numbers) {
      if (std::isnan(x)) return InvalidArgument("Nan in summary histogram for: ", name_);
      if (std::isinf(x)) return InvalidArgument("Infinity in Histogram for: ", name_);
    }
    proto::Summary summary;
    proto::Summary::Value* v = summary.add_value();
    v->set_tag(tag.data<std::string>()[0]);
    *v->mutable_histo() = MakeHistogram(numbers);
    return SetSummary(c, summary);
  }
  std::string name_;
};

// ---- Images ----

void AppendBigEndian(uint32_t x, std::string* out) {
  for (int shift = 24; shift >= 0; shift -= 8) out->push_back(static_cast<char>(x >> shift));
}

// A chunk of a PNG file: its length, name and contents, and a checksum of the latter two.
void AppendChunk(const char* name, const std::string& contents, std::string* out) {
  AppendBigEndian(static_cast<uint32_t>(contents.size()), out);
  const size_t begin = out->size();
  out->append(name).append(contents);
  AppendBigEndian(crc32_gzip_refl(0, reinterpret_cast<const uint8_t*>(out->data()) + begin,
                                  out->size() - begin),
                  out);
}

// The file of an image with 1 (grey), 3 (RGB) or 4 (RGBA) channels of 8 bits; the PNG
// specification, ISO/IEC 15948.
absl::StatusOr<std::string> EncodePng(int64_t height, int64_t width, int64_t channels,
                                      const std::vector<uint8_t>& pixels) {
  std::string header;
  AppendBigEndian(static_cast<uint32_t>(width), &header);
  AppendBigEndian(static_cast<uint32_t>(height), &header);
  const char color = channels == 1 ? 0 : channels == 3 ? 2 : 6;
  header.append({8, color, 0, 0, 0});
  // Each row begins with the number of its filter: none.
  const size_t row = static_cast<size_t>(width * channels);
  std::string rows;
  rows.reserve((row + 1) * static_cast<size_t>(height));
  for (size_t y = 0; y < static_cast<size_t>(height); ++y) {
    rows.push_back(0);
    rows.append(reinterpret_cast<const char*>(pixels.data()) + y * row, row);
  }
  // What doesn't get smaller is stored in blocks with a few bytes of their own.
  std::string packed(rows.size() + rows.size() / 8 + 1024, '\0');
  std::vector<uint8_t> memory(ISAL_DEF_LVL1_DEFAULT);
  isal_zstream stream;
  isal_deflate_stateless_init(&stream);
  stream.level = 1;
  stream.level_buf = memory.data();
  stream.level_buf_size = static_cast<uint32_t>(memory.size());
  stream.gzip_flag = IGZIP_ZLIB;
  stream.end_of_stream = 1;
  stream.next_in = reinterpret_cast<uint8_t*>(rows.data());
  stream.avail_in = static_cast<uint32_t>(rows.size());
  stream.next_out = reinterpret_cast<uint8_t*>(packed.data());
  stream.avail_out = static_cast<uint32_t>(packed.size());
  const int error = isal_deflate_stateless(&stream);
  if (error != COMP_OK) {
    return Internal("compressing an image failed with ISA-L's error ", error);
  }
  packed.resize(stream.total_out);
  std::string png = "\x89PNG\r\n\x1a\n";
  AppendChunk("IHDR", header, &png);
  AppendChunk("IDAT", packed, &png);
  AppendChunk("IEND", "", &png);
  return png;
}

// The first images of a batch. Those of floats are scaled: to 255 for the greatest; or, where some
// are negative, zero to 128 and the greatest magnitude to 127 from there. Pixels that aren't finite
// get the bad color.
class ImageSummaryKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(most_, c.Attr<int64_t>("max_images"));
    FERRY_ASSIGN_OR_RETURN(bad_color_, c.Attr<Tensor>("bad_color"));
    if (bad_color_.dtype() != DType::kUint8) {
      return InvalidArgument("bad_color must be uint8, got ", DTypeName(bad_color_.dtype()));
    }
    if (bad_color_.rank() != 1) {
      return InvalidArgument("bad_color must be a vector, got shape ",
                             bad_color_.shape().DebugString());
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor &tag = c->input(0), &images = c->input(1);
    if (tag.rank() != 0) return InvalidArgument("Tags must be a scalar");
    if (images.rank() != 4 || (images.dim(3) != 1 && images.dim(3) != 3 && images.dim(3) != 4)) {
      return InvalidArgument("Tensor must be 4-D with last dim 1, 3, or 4, not ",
                             images.shape().DebugString());
    }
    const int64_t height = images.dim(1), width = images.dim(2), channels = images.dim(3);
    const int64_t size = images.num_elements() / std::max<int64_t>(1, images.dim(0));
    if (size == 0 || height >= (1 << 30) || width >= (1 << 30) || size >= (1 << 30)) {
      return InvalidArgument(
          "Tensor must have at least one pixel an image, and fewer than 2^30, "
          "found shape ",
          images.shape().DebugString());
    }
    if (bad_color_.dim(0) < channels) {
      return InvalidArgument("expected depth <= bad_color.size, got depth = ", channels,
                             ", bad_color.size = ", bad_color_.dim(0));
    }
    const int64_t count = std::min(most_, images.dim(0));
    const std::vector<double> values = AsDoubles(images, count * size);
    proto::Summary summary;
    for (int64_t i = 0; i < count; ++i) {
      const double* const from = values.data() + i * size;
      std::vector<uint8_t> pixels(static_cast<size_t>(size));
      if (images.dtype() == DType::kUint8) {
        for (int64_t k = 0; k < size; ++k) {
          pixels[static_cast<size_t>(k)] = static_cast<uint8_t>(from[k]);
        }
      } else {
        Scale(from, channels, &pixels);
      }
      proto::Summary::Value* const v = summary.add_value();
      const std::string& name = tag.scalar<std::string>();
      v->set_tag(most_ > 1 ? absl::StrCat(name, "/image/", i) : absl::StrCat(name, "/image"));
      proto::Summary::Image* const image = v->mutable_image();
      image->set_height(static_cast<int32_t>(height));
      image->set_width(static_cast<int32_t>(width));
      image->set_colorspace(static_cast<int32_t>(channels));
      FERRY_ASSIGN_OR_RETURN(*image->mutable_encoded_image_string(),
                             EncodePng(height, width, channels, pixels));
    }
    return SetSummary(c, summary);
  }

  void Scale(const double* from, int64_t channels, std::vector<uint8_t>* to) const {
    const int64_t size = static_cast<int64_t>(to->size());
    const auto finite = [&](int64_t pixel) {
      return std::all_of(from + pixel, from + pixel + channels,
                         [](double x) { return std::isfinite(x); });
    };
    float least = std::numeric_limits<float>::infinity(), greatest = -least;
    for (int64_t pixel = 0; pixel < size; pixel += channels) {
      if (!finite(pixel)) continue;
      for (int64_t k = pixel; k < pixel + channels; ++k) {
        least = std::min(least, static_cast<float>(from[k]));
        greatest = std::max(greatest, static_cast<float>(from[k]));
      }
    }
    constexpr float kNothing = 1e-6f;  // Of which no picture is made.
    const bool negative = least < 0;
    const float reach = negative ? std::max(std::abs(least), std::abs(greatest)) : greatest;
    const float scale = reach < kNothing ? 0.0f : (negative ? 127.0f : 255.0f) / reach;
    const float offset = negative ? 128.0f : 0.0f;
    for (int64_t pixel = 0; pixel < size; pixel += channels) {
      const bool good = finite(pixel);
      for (int64_t k = 0; k < channels; ++k) {
        (*to)[static_cast<size_t>(pixel + k)] =
            good ? static_cast<uint8_t>(static_cast<float>(from[pixel + k]) * scale + offset)
                 : bad_color_.data<uint8_t>()[k];
      }
    }
  }

  int64_t most_ = 3;
  Tensor bad_color_;
};

class MergeSummaryKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    proto::Summary all;
    std::set<std::string> tags;
    for (int i = 0; i < c->num_inputs(); ++i) {
      const Tensor& in = c->input(i);
      for (int64_t k = 0; k < in.num_elements(); ++k) {
        proto::Summary one;
        if (!one.ParseFromString(in.data<std::string>()[k])) {
          return InvalidArgument("Could not parse one of the summary inputs");
        }
        for (const proto::Summary::Value& v : one.value()) {
          if (!tags.insert(v.tag()).second) {
            return InvalidArgument("Duplicate tag ", v.tag(), " found in summary inputs");
          }
          *all.add_value() = v;
        }
      }
    }
    return SetSummary(c, all);
  }
};

absl::Status ScalarResult(InferenceContext* c) {
  c->set_output(0, PartialShape::Scalar());
  return absl::OkStatus();
}

constexpr char kRealNumbers[] =
    "{float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, uint32, uint64}";

FERRY_OP("ScalarSummary")
    .Input("tags: string")
    .Input("values: T")
    .Output("summary: string")
    .Attr(absl::StrCat("T: ", kRealNumbers))
    .Shape(ScalarResult)
    .NotDifferentiable();
FERRY_OP("HistogramSummary")
    .Input("tag: string")
    .Input("values: T")
    .Output("summary: string")
    .Attr(absl::StrCat("T: ", kRealNumbers, " = DT_FLOAT"))
    .Shape(ScalarResult)
    .NotDifferentiable();
FERRY_OP("ImageSummary")
    .Input("tag: string")
    .Input("tensor: T")
    .Output("summary: string")
    .Attr("max_images: int >= 1 = 3")
    .Attr("T: {uint8, float, half, double} = DT_FLOAT")
    .Attr(
        "bad_color: tensor = { dtype: DT_UINT8 tensor_shape { dim { size: 4 } } "
        "int_val: [255, 0, 0, 255] }")
    .Shape(ScalarResult)
    .NotDifferentiable();
FERRY_OP("MergeSummary")
    .Input("inputs: N * string")
    .Output("summary: string")
    .Attr("N: int >= 1")
    .Shape(ScalarResult)
    .NotDifferentiable();
FERRY_KERNEL("ScalarSummary").Device(DeviceType::kCpu).Make<ScalarSummaryKernel>();
FERRY_KERNEL("HistogramSummary").Device(DeviceType::kCpu).Make<HistogramSummaryKernel>();
FERRY_KERNEL("ImageSummary").Device(DeviceType::kCpu).Make<ImageSummaryKernel>();
FERRY_KERNEL("MergeSummary").Device(DeviceType::kCpu).Make<MergeSummaryKernel>();

}  // namespace
}  // namespace ferry
