// Windows that slide over images, as convolutions and poolings have them: attributes, paddings and
// sizes. Plain types, so that nvcc compiles this too; what needs the rest of the runtime is in
// window_checks.h.
#ifndef FERRY_KERNELS_WINDOW_H_
#define FERRY_KERNELS_WINDOW_H_

#include <cstdint>
#include <string>
#include <vector>

namespace ferry {

// The attributes of one node as the graph has them. Lists have an entry a dimension of the image
// tensor, in the order of data_format; an op without one of them leaves it empty.
struct WindowAttrs {
  std::string data_format;  // NHWC or NCHW.
  std::string padding;      // SAME, VALID or EXPLICIT.
  std::vector<int64_t> strides, dilations, ksize;
  std::vector<int64_t> explicit_paddings;  // Before and after each dimension.

  bool channels_first() const { return data_format == "NCHW"; }
};

// Reads the attributes through anything that has `bool Attr(const char*, T*)`.
template <typename Reader>
bool ReadWindowAttrs(Reader* r, WindowAttrs* out) {
  r->Attr("explicit_paddings", &out->explicit_paddings);
  r->Attr("dilations", &out->dilations);
  r->Attr("ksize", &out->ksize);
  r->Attr("strides", &out->strides);
  return r->Attr("data_format", &out->data_format) && r->Attr("padding", &out->padding);
}

// One direction, down or across. Window number i of `out` ones has its element k at input position
// i * stride + k * dilation - before, which may lie outside [0, in): padding.
struct WindowAxis {
  int64_t in = 0, window = 1, stride = 1, dilation = 1, before = 0, out = 0;
};

// The sizes of a convolution. The filter is [y.window, x.window, filter_depth, out_depth]; with
// in_depth = groups * filter_depth, the channels of both sides fall into that many groups.
struct ConvSizes {
  int64_t batch = 0, in_depth = 0, filter_depth = 0, out_depth = 0, groups = 1;
  WindowAxis y, x;
  bool channels_first = false;
};

// A pooling as one over `batch` images with `depth` channels, which are the innermost dimension and
// each pooled for itself. Channels that lie outside become images of one channel, and pooling over
// channels one over rows or columns.
struct PoolSizes {
  int64_t batch = 0, depth = 0;
  WindowAxis y, x;
};

}  // namespace ferry

#endif  // FERRY_KERNELS_WINDOW_H_
