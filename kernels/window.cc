// Attributes and sizes of sliding windows; see window_checks.h.
#include <algorithm>
#include <limits>

#include "absl/strings/str_join.h"
#include "kernels/window_checks.h"

namespace ferry {
namespace {

// Sizes beyond this can't be those of tensors, and sums of a few of them still fit.
constexpr int64_t kMostPositions = std::numeric_limits<int64_t>::max() / 16;

}  // namespace

ImageDims DimsOf(const WindowAttrs& attrs) {
  return attrs.channels_first() ? ImageDims{0, 1, 2, 3} : ImageDims{0, 3, 1, 2};
}

TensorShape ImageShape(bool channels_first, int64_t n, int64_t y, int64_t x, int64_t c) {
  return channels_first ? TensorShape({n, c, y, x}) : TensorShape({n, y, x, c});
}

absl::Status CheckConvAttrs(const std::string& name, const WindowAttrs& attrs) {
  if (attrs.strides.size() != 4) {
    return InvalidArgument(
        name, " on data format ", attrs.data_format,
        " requires the stride attribute to contain 4 values, but got: ", attrs.strides.size());
  }
  if (attrs.dilations.size() != 4) {
    return InvalidArgument(name, " requires the dilation attribute to contain 4 values, but got: ",
                           attrs.dilations.size());
  }
  const ImageDims d = DimsOf(attrs);
  auto at = [](const std::vector<int64_t>& v, int i) { return v[static_cast<size_t>(i)]; };
  for (int i : {d.y, d.x}) {
    if (at(attrs.strides, i) < 1) {
      return InvalidArgument("Stride must be > 0, but got ", at(attrs.strides, i));
    }
    if (at(attrs.dilations, i) < 1) {
      return InvalidArgument("Dilation rate must be >= 1, but got ", at(attrs.dilations, i));
    }
  }
  if (at(attrs.strides, d.n) != 1 || at(attrs.strides, d.c) != 1) {
    return Unimplemented(
        "Current implementation does not yet support strides in the batch and depth dimensions.");
  }
  if (at(attrs.dilations, d.n) != 1 || at(attrs.dilations, d.c) != 1) {
    return Unimplemented(
        "Current implementation does not yet support dilations in the batch and depth "
        "dimensions.");
  }
  return absl::OkStatus();
}

absl::Status CheckPoolAttrs(const WindowAttrs& attrs, bool over_channels) {
  if (attrs.data_format != "NHWC" && attrs.data_format != "NCHW") {
    return Unimplemented("pooling has data formats NHWC and NCHW, got ", attrs.data_format);
  }
  if (attrs.ksize.size() != 4) {
    return InvalidArgument("Sliding window ksize field must specify 4 dimensions");
  }
  if (attrs.strides.size() != 4) {
    return InvalidArgument("Sliding window strides field must specify 4 dimensions");
  }
  for (size_t i = 0; i < 4; ++i) {
    if (attrs.ksize[i] < 1) {
      return InvalidArgument(
          "Sliding window ksize must be positive. The specified or inferred ksize is: ",
          absl::StrJoin(attrs.ksize, ","));
    }
    if (attrs.strides[i] < 1) {
      return InvalidArgument("Stride must be > 0, but got ", attrs.strides[i]);
    }
  }
  const ImageDims d = DimsOf(attrs);
  auto trivial = [&](int i) {
    return attrs.ksize[static_cast<size_t>(i)] == 1 && attrs.strides[static_cast<size_t>(i)] == 1;
  };
  if (!trivial(d.n)) return Unimplemented("Pooling is not yet supported on the batch dimension.");
  if (trivial(d.c)) return absl::OkStatus();
  if (!over_channels) {
    return Unimplemented("Non-spatial pooling is not yet supported: a window of ",
                         attrs.ksize[static_cast<size_t>(d.c)], " channels");
  }
  if (!trivial(d.y) || !trivial(d.x)) {
    return Unimplemented(
        "MaxPooling supports exactly one of pooling across depth or pooling across width/height.");
  }
  if (attrs.ksize[static_cast<size_t>(d.c)] != attrs.strides[static_cast<size_t>(d.c)]) {
    return Unimplemented(
        "Depthwise max pooling requires the depth window to equal the depth stride.");
  }
  return absl::OkStatus();
}

absl::StatusOr<PartialShape> PooledShape(const WindowAttrs& attrs, const PartialShape& input) {
  PartialShape out = PartialShape::UnknownOfRank(4);
  if (!input.known_rank()) return out;
  const ImageDims d = DimsOf(attrs);
  auto at = [](const std::vector<int64_t>& v, int i) { return v[static_cast<size_t>(i)]; };
  out.set_dim(d.n, input.dim(d.n));
  if (input.dim(d.c) >= 0) out.set_dim(d.c, input.dim(d.c) / at(attrs.ksize, d.c));
  for (int i : {d.y, d.x}) {
    FERRY_ASSIGN_OR_RETURN(int64_t size, CountWindows(attrs, i, input.dim(i), at(attrs.ksize, i),
                                                      at(attrs.strides, i), 1));
    out.set_dim(i, size);
  }
  return out;
}

absl::Status PoolSizesOf(const WindowAttrs& attrs, const TensorShape& input, PoolSizes* sizes,
                         TensorShape* output) {
  const ImageDims d = DimsOf(attrs);
  auto at = [](const std::vector<int64_t>& v, int i) { return v[static_cast<size_t>(i)]; };
  PoolSizes& s = *sizes;
  s.batch = input.dim(d.n);
  s.depth = input.dim(d.c);
  for (int i : {d.y, d.x}) {
    WindowAxis* const a = i == d.y ? &s.y : &s.x;
    a->in = input.dim(i);
    a->window = at(attrs.ksize, i);
    a->stride = at(attrs.strides, i);
    FERRY_RETURN_IF_ERROR(PlaceWindows(attrs, i, a));
    // A window that lies in the padding alone has no greatest element.
    const int64_t after = (a->out - 1) * a->stride + a->window - a->before - a->in;
    if (attrs.padding == "EXPLICIT" && (a->before >= a->window || after >= a->window)) {
      const char* const before_name = i == d.y ? "Top" : "Left";
      const char* const after_name = i == d.y ? "Bottom" : "Right";
      return InvalidArgument(a->before >= a->window ? before_name : after_name, " padding ",
                             a->before >= a->window ? a->before : after,
                             " needs to be smaller than the window size ", a->window);
    }
  }
  const int64_t window = at(attrs.ksize, d.c);
  if (s.depth % window != 0) {
    return Unimplemented(
        "Depthwise max pooling requires the depth window to evenly divide the input depth: ",
        s.depth, " channels, windows of ", window);
  }
  int64_t dims[4];
  dims[d.n] = s.batch;
  dims[d.c] = s.depth / window;
  dims[d.y] = s.y.out;
  dims[d.x] = s.x.out;
  FERRY_ASSIGN_OR_RETURN(*output, TensorShape::Make(dims));
  if (window > 1) {
    const int64_t pixels = s.y.in * s.x.in;
    const WindowAxis channels = {s.depth, window, window, 1, 0, s.depth / window},
                     one = {1, 1, 1, 1, 0, 1};
    if (attrs.channels_first()) {
      s = {s.batch, pixels, channels, one};
    } else {
      s = {s.batch * pixels, 1, one, channels};
    }
  } else if (attrs.channels_first()) {
    s.batch *= s.depth;
    s.depth = 1;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CountWindows(const WindowAttrs& attrs, int dim, int64_t in, int64_t window,
                                     int64_t stride, int64_t dilation) {
  WindowAxis a;
  a.in = in;
  a.window = window;
  a.stride = stride;
  a.dilation = dilation;
  // Checks paddings even where sizes are unknown.
  if (in < 0 || window < 0) {
    a.in = a.window = 1;
    if (attrs.padding == "EXPLICIT") FERRY_RETURN_IF_ERROR(PlaceWindows(attrs, dim, &a));
    return PartialShape::kUnknown;
  }
  FERRY_RETURN_IF_ERROR(PlaceWindows(attrs, dim, &a));
  return a.out;
}

absl::Status PlaceWindows(const WindowAttrs& attrs, int dim, WindowAxis* a) {
  int64_t before = 0, after = 0;
  const bool is_explicit = attrs.padding == "EXPLICIT";
  if (is_explicit) {
    const std::vector<int64_t>& p = attrs.explicit_paddings;
    if (p.size() != 8) {
      return InvalidArgument("explicit_paddings attribute must contain 8 values, but got: ",
                             p.size());
    }
    const ImageDims d = DimsOf(attrs);
    for (size_t i = 0; i < 8; ++i) {
      if (p[i] < 0 || p[i] > kMostPositions) {
        return InvalidArgument("All elements of explicit_paddings must be nonnegative");
      }
    }
    for (int i : {d.n, d.c}) {
      const auto k = static_cast<size_t>(2 * i);
      if (p[k] != 0 || p[k + 1] != 0) {
        return Unimplemented(
            "Nonzero explicit padding in the batch or depth dimensions is not supported");
      }
    }
    before = p[static_cast<size_t>(2 * dim)];
    after = p[static_cast<size_t>(2 * dim + 1)];
  } else if (!attrs.explicit_paddings.empty()) {
    return InvalidArgument(
        "explicit_paddings attribute must be empty if the padding attribute is not EXPLICIT");
  }
  if (a->window < 1) {
    return InvalidArgument("a window must be positive, got a size of ", a->window);
  }
  if (a->in > kMostPositions || a->stride > kMostPositions ||
      a->window > kMostPositions / a->dilation) {
    return InvalidArgument("windows of ", a->window, " elements, ", a->dilation, " apart, every ",
                           a->stride, " elements over ", a->in, " are too large");
  }
  const int64_t reach = (a->window - 1) * a->dilation + 1;
  if (attrs.padding == "SAME") {
    a->out = (a->in + a->stride - 1) / a->stride;
    before = std::max<int64_t>(0, (a->out - 1) * a->stride + reach - a->in) / 2;
  } else {
    const int64_t last = a->in + before + after - reach + a->stride;
    if (last / a->stride < 0) {
      return InvalidArgument("Computed output size would be negative: ", last / a->stride,
                             " [input_size: ", a->in, ", effective_filter_size: ", reach,
                             ", stride: ", a->stride, "]");
    }
    a->out = last / a->stride;
  }
  a->before = before;
  if (a->out <= 1) a->stride = std::min(a->stride, std::max<int64_t>(1, a->in));
  return absl::OkStatus();
}

}  // namespace ferry
