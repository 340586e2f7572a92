// ResizeBilinear, ResizeNearestNeighbor and their gradients' ops, on NHWC images.
#include <algorithm>
#include <cmath>
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

// How places along one side of the large image and the small one correspond.
struct Side {
  int64_t in = 0, out = 0;
  bool align_corners = false, half_pixel_centers = false;

  // Pixels of the input a pixel of the output.
  float Scale() const {
    return align_corners && out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1)
                                    : static_cast<float>(in) / static_cast<float>(out);
  }
  // Where pixel i of the output lies in the input.
  float Place(int64_t i) const {
    const auto x = static_cast<float>(i);
    return half_pixel_centers ? (x + 0.5f) * Scale() - 0.5f : x * Scale();
  }
  // The input's pixel that is nearest to pixel i of the output.
  int64_t Nearest(int64_t i) const {
    const float x = static_cast<float>(i) + (half_pixel_centers ? 0.5f : 0.0f);
    const float place = x * Scale();
    const auto at = static_cast<int64_t>(align_corners ? std::round(place) : std::floor(place));
    return std::max<int64_t>(0, std::min(at, in - 1));
  }
};

// Between which two of the input's pixels a pixel of the output lies, and how near to the second.
struct Between {
  int64_t low, high;
  float weight;
};
std::vector<Between> Interpolation(const Side& side) {
  std::vector<Between> all;
  for (int64_t i = 0; i < side.out; ++i) {
    const float at = side.Place(i), floor = std::floor(at);
    all.push_back({std::max<int64_t>(0, static_cast<int64_t>(floor)),
                   std::min(side.in - 1, static_cast<int64_t>(std::ceil(at))), at - floor});
  }
  return all;
}

class ResizeKernel : public Kernel {
 protected:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(rule_.align_corners, c.Attr<bool>("align_corners"));
    FERRY_ASSIGN_OR_RETURN(rule_.half_pixel_centers, c.Attr<bool>("half_pixel_centers"));
    if (rule_.align_corners && rule_.half_pixel_centers) {
      return InvalidArgument("If half_pixel_centers is True, align_corners must be False.");
    }
    return absl::OkStatus();
  }
  static absl::Status CheckImages(const char* name, const Tensor& images) {
    if (images.rank() != 4) {
      return InvalidArgument(name, " must be 4-dimensional, found ", images.shape().DebugString());
    }
    return absl::OkStatus();
  }
  // Height and width that input 1 gives.
  static absl::StatusOr<Ints> SizesOf(KernelContext* c) {
    const Tensor& size = c->input(1);
    if (size.rank() != 1 || size.dim(0) != 2) {
      return InvalidArgument("shape_t must be 1-dimensional with two elements, found ",
                             size.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Ints sizes, c->InputAsInts(1));
    if (sizes[0] <= 0 || sizes[1] <= 0) {
      return InvalidArgument("output dimensions must be positive, found ", sizes[0], " and ",
                             sizes[1]);
    }
    return sizes;
  }
  static absl::Status CheckSize(const Tensor& images) {
    if (images.dim(1) <= 0 || images.dim(2) <= 0) {
      return InvalidArgument("input image must be of non-zero size, found ",
                             images.shape().DebugString());
    }
    return absl::OkStatus();
  }
  Side SideOf(int64_t in, int64_t out) const {
    Side side = rule_;
    side.in = in;
    side.out = out;
    return side;
  }

 private:
  Side rule_;
};

// ---- Bilinear ----

template <typename T>
class ResizeBilinearKernel : public ResizeKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_RETURN_IF_ERROR(CheckImages("input", in));
    FERRY_ASSIGN_OR_RETURN(const Ints sizes, SizesOf(c));
    FERRY_RETURN_IF_ERROR(CheckSize(in));
    if (in.dim(3) <= 0) return InvalidArgument("image must have at least one channel");
    const int64_t height = in.dim(1), width = in.dim(2), depth = in.dim(3);
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape,
                           TensorShape::Make({in.dim(0), sizes[0], sizes[1], depth}));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    const std::vector<Between> ys = Interpolation(SideOf(height, sizes[0]));
    const std::vector<Between> xs = Interpolation(SideOf(width, sizes[1]));
    const T* const images = in.data<T>();
    float* const resized = out->data<float>();
    const int64_t line = sizes[1] * depth;
    c->ParallelFor(
        in.dim(0) * sizes[0], std::max<int64_t>(1, 8192 / line), [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) {
            const T* const image = images + row / sizes[0] * height * width * depth;
            const Between& y = ys[static_cast<size_t>(row % sizes[0])];
            const T* const low = image + y.low * width * depth;
            const T* const high = image + y.high * width * depth;
            float* to = resized + row * line;
            for (const Between& x : xs) {
              for (int64_t k = 0; k < depth; ++k, ++to) {
                const auto at = [&](const T* from, int64_t column) {
                  return static_cast<float>(from[column * depth + k]);
                };
                const float top = at(low, x.low) + (at(low, x.high) - at(low, x.low)) * x.weight;
                const float bottom =
                    at(high, x.low) + (at(high, x.high) - at(high, x.low)) * x.weight;
                *to = top + (bottom - top) * y.weight;
              }
            }
          }
        });
    return absl::OkStatus();
  }
};

// Each pixel's gradient goes to the four that it was made of, by their weights.
template <typename T>
class ResizeBilinearGradKernel : public ResizeKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &dy = c->input(0), &original = c->input(1);
    FERRY_RETURN_IF_ERROR(CheckImages("input_grad", dy));
    FERRY_RETURN_IF_ERROR(CheckImages("original_image", original));
    FERRY_RETURN_IF_ERROR(CheckSize(original));
    if (dy.dim(0) != original.dim(0) || dy.dim(3) != original.dim(3)) {
      return InvalidArgument("the gradient ", dy.shape().DebugString(), " is not that of an image ",
                             original.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, original.shape()));
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    if (dy.num_elements() == 0) return absl::OkStatus();
    const int64_t height = original.dim(1), width = original.dim(2), depth = original.dim(3);
    const std::vector<Between> ys = Interpolation(SideOf(height, dy.dim(1)));
    const std::vector<Between> xs = Interpolation(SideOf(width, dy.dim(2)));
    const int64_t image = height * width * depth;
    c->ParallelFor(original.dim(0), 1, [&](int64_t begin, int64_t end) {
      const float* from = dy.data<float>() + begin * dy.dim(1) * dy.dim(2) * depth;
      for (int64_t n = begin; n < end; ++n) {
        T* const to = out->data<T>() + n * image;
        for (const Between& y : ys) {
          for (const Between& x : xs) {
            for (int64_t k = 0; k < depth; ++k, ++from) {
              const auto add = [&](int64_t row, int64_t column, float y_share, float x_share) {
                T& sum = to[(row * width + column) * depth + k];
                sum = static_cast<T>(sum + static_cast<T>(*from * y_share * x_share));
              };
              add(y.low, x.low, 1 - y.weight, 1 - x.weight);
              add(y.low, x.high, 1 - y.weight, x.weight);
              add(y.high, x.low, y.weight, 1 - x.weight);
              add(y.high, x.high, y.weight, x.weight);
            }
          }
        }
      }
    });
    return absl::OkStatus();
  }
};

// ---- Nearest neighbour ----

template <typename T>
class ResizeNearestKernel : public ResizeKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_RETURN_IF_ERROR(CheckImages("input", in));
    FERRY_ASSIGN_OR_RETURN(const Ints sizes, SizesOf(c));
    FERRY_RETURN_IF_ERROR(CheckSize(in));
    if (in.dim(3) <= 0) return InvalidArgument("image must have at least one channel");
    const int64_t height = in.dim(1), width = in.dim(2), depth = in.dim(3);
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape,
                           TensorShape::Make({in.dim(0), sizes[0], sizes[1], depth}));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    const Side y = SideOf(height, sizes[0]), x = SideOf(width, sizes[1]);
    T* to = out->data<T>();
    for (int64_t n = 0; n < in.dim(0); ++n) {
      const T* const image = in.data<T>() + n * height * width * depth;
      for (int64_t i = 0; i < sizes[0]; ++i) {
        const T* const row = image + y.Nearest(i) * width * depth;
        for (int64_t k = 0; k < sizes[1]; ++k) {
          to = std::copy_n(row + x.Nearest(k) * depth, depth, to);
        }
      }
    }
    return absl::OkStatus();
  }
};

// Each pixel's gradient goes to the one that it was copied from.
template <typename T>
class ResizeNearestGradKernel : public ResizeKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& dy = c->input(0);
    FERRY_RETURN_IF_ERROR(CheckImages("input", dy));
    FERRY_ASSIGN_OR_RETURN(const Ints sizes, SizesOf(c));
    FERRY_RETURN_IF_ERROR(CheckSize(dy));
    const int64_t depth = dy.dim(3);
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape,
                           TensorShape::Make({dy.dim(0), sizes[0], sizes[1], depth}));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    const Side y = SideOf(sizes[0], dy.dim(1)), x = SideOf(sizes[1], dy.dim(2));
    const T* from = dy.data<T>();
    for (int64_t n = 0; n < dy.dim(0); ++n) {
      T* const image = out->data<T>() + n * sizes[0] * sizes[1] * depth;
      for (int64_t i = 0; i < dy.dim(1); ++i) {
        T* const row = image + y.Nearest(i) * sizes[1] * depth;
        for (int64_t k = 0; k < dy.dim(2); ++k) {
          T* const to = row + x.Nearest(k) * depth;
          for (int64_t d = 0; d < depth; ++d, ++from) to[d] = static_cast<T>(to[d] + *from);
        }
      }
    }
    return absl::OkStatus();
  }
};

// ---- Definitions ----

absl::Status ResizeShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const PartialShape in, c->WithRank(c->input(0), 4));
  FERRY_ASSIGN_OR_RETURN(const PartialShape size, c->WithRank(c->input(1), 1));
  if (size.dim(0) != PartialShape::kUnknown && size.dim(0) != 2) {
    return InvalidArgument("shape_t must have two elements, found ", size.DebugString());
  }
  PartialShape out = PartialShape::UnknownOfRank(4);
  if (in.known_rank()) {
    out.set_dim(0, in.dim(0));
    out.set_dim(3, in.dim(3));
  }
  if (const std::optional<Ints> sizes = KnownInts(c, 1)) {
    out.set_dim(1, (*sizes)[0]);
    out.set_dim(2, (*sizes)[1]);
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// A node of the gradient's op, with the same attributes.
absl::Status ResizeGradient(GradientContext* c, const char* op, Output second) {
  FERRY_ASSIGN_OR_RETURN(const bool align_corners, c->Attr<bool>("align_corners"));
  FERRY_ASSIGN_OR_RETURN(const bool half_pixel_centers, c->Attr<bool>("half_pixel_centers"));
  c->set_input_grad(0, NodeBuilder(c->scope(), op)
                           .Input(c->grad(0))
                           .Input(second)
                           .Attr("align_corners", align_corners)
                           .Attr("half_pixel_centers", half_pixel_centers)
                           .BuildOutput());
  return c->scope().status();
}

FERRY_OP("ResizeBilinear")
    .Input("images: T")
    .Input("size: int32")
    .Output("resized_images: float")
    .Attr("T: {int8, uint8, int16, uint16, int32, int64, bfloat16, half, float, double, bfloat16}")
    .Attr("align_corners: bool = false")
    .Attr("half_pixel_centers: bool = false")
    .Shape(ResizeShape)
    .Gradient([](GradientContext* c) {
      return ResizeGradient(c, "ResizeBilinearGrad", c->input(0));
    });

FERRY_OP("ResizeBilinearGrad")
    .Input("grads: float")
    .Input("original_image: T")
    .Output("output: T")
    .Attr("T: {float, bfloat16, half, double}")
    .Attr("align_corners: bool = false")
    .Attr("half_pixel_centers: bool = false")
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(0, c->input(1));
      return absl::OkStatus();
    })
    .NotDifferentiable();

FERRY_OP("ResizeNearestNeighbor")
    .Input("images: T")
    .Input("size: int32")
    .Output("resized_images: T")
    .Attr("T: {int8, uint8, int16, uint16, int32, int64, half, float, double, bfloat16}")
    .Attr("align_corners: bool = false")
    .Attr("half_pixel_centers: bool = false")
    .Shape(ResizeShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output sides =
          ops::StridedSlice(s, ops::Shape(s, c->input(0)), ops::ConstVector<int32_t>(s, {1}),
                            ops::ConstVector<int32_t>(s, {3}), ops::ConstVector<int32_t>(s, {1}));
      return ResizeGradient(c, "ResizeNearestNeighborGrad", sides);
    });

FERRY_OP("ResizeNearestNeighborGrad")
    .Input("grads: T")
    .Input("size: int32")
    .Output("output: T")
    .Attr("T: {uint8, int8, int32, half, float, double, bfloat16}")
    .Attr("align_corners: bool = false")
    .Attr("half_pixel_centers: bool = false")
    .Shape(ResizeShape);

using Pixels = Join<FloatTypes, Types<int8_t, uint8_t, int16_t, uint16_t, int32_t, int64_t>>;
const bool registered =
    RegisterCpu<ResizeBilinearKernel>(Pixels(), "ResizeBilinear") &&
    RegisterCpu<ResizeBilinearGradKernel>(FloatTypes(), "ResizeBilinearGrad") &&
    RegisterCpu<ResizeNearestKernel>(Pixels(), "ResizeNearestNeighbor") &&
    RegisterCpu<ResizeNearestGradKernel>(Join<FloatTypes, Types<int8_t, uint8_t, int32_t>>(),
                                         "ResizeNearestNeighborGrad");

}  // namespace
}  // namespace ferry
