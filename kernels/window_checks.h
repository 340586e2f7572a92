// Checks of sliding windows' attributes and the sizes that follow from them, for graphs and
// kernels.
#ifndef FERRY_KERNELS_WINDOW_CHECKS_H_
#define FERRY_KERNELS_WINDOW_CHECKS_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/window.h"
#include "runtime/base/status.h"
#include "runtime/op/partial_shape.h"
#include "runtime/tensor/shape.h"

namespace ferry {

// For ReadWindowAttrs.
template <typename Context>
struct WindowAttrReader {
  const Context& c;
  template <typename T>
  bool Attr(const char* name, T* out) {
    absl::StatusOr<T> value = c.template Attr<T>(name);
    if (value.ok()) *out = *std::move(value);
    return value.ok();
  }
};

// From a KernelConstruction, an InferenceContext or a GradientContext.
template <typename Context>
absl::StatusOr<WindowAttrs> WindowAttrsOf(const Context& c) {
  WindowAttrReader<Context> reader{c};
  WindowAttrs attrs;
  if (!ReadWindowAttrs(&reader, &attrs)) {
    return InvalidArgument("the attributes data_format and padding are missing");
  }
  return attrs;
}

// Where batch, channels, rows and columns lie in an image tensor.
struct ImageDims {
  int n, c, y, x;
};
ImageDims DimsOf(const WindowAttrs& attrs);

// An image tensor's shape.
TensorShape ImageShape(bool channels_first, int64_t n, int64_t y, int64_t x, int64_t c);

// The attributes of op `name`, apart from ksize. Errors in TensorFlow's words.
absl::Status CheckConvAttrs(const std::string& name, const WindowAttrs& attrs);

// The same for poolings, with ksize. Pooling over channels needs `over_channels`.
absl::Status CheckPoolAttrs(const WindowAttrs& attrs, bool over_channels);
// The shape of a pooling's output, as far as it is known.
absl::StatusOr<PartialShape> PooledShape(const WindowAttrs& attrs, const PartialShape& input);
// The sizes of a pooling of `input`, which is 4-dimensional, and its output's shape.
absl::Status PoolSizesOf(const WindowAttrs& attrs, const TensorShape& input, PoolSizes* sizes,
                         TensorShape* output);

// Fills in a.out and a.before from the other fields; `dim` is the direction's dimension. All sizes
// are known. The stride of a single window, which says nothing, becomes no more than a.in.
// InvalidArgument where the window has no place by more than its stride, or sizes are beyond what
// fits.
absl::Status PlaceWindows(const WindowAttrs& attrs, int dim, WindowAxis* a);
// How many windows; unknown (-1) where a size is.
absl::StatusOr<int64_t> CountWindows(const WindowAttrs& attrs, int dim, int64_t in, int64_t window,
                                     int64_t stride, int64_t dilation);

}  // namespace ferry

#endif  // FERRY_KERNELS_WINDOW_CHECKS_H_
