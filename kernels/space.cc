// Moving blocks of places into another dimension and back: SpaceToBatchND, BatchToSpaceND and their
// forms for images; SpaceToDepth, DepthToSpace; and ReverseSequence.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/array.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

using Dims = absl::InlinedVector<CopyDim, 8>;

// ---- SpaceToBatchND, BatchToSpaceND, SpaceToBatch, BatchToSpace ----

// The sizes of a block and the paddings (or crops) before and after each of its dimensions.
struct Blocks {
  Ints sizes, before, after;
  int rank() const { return static_cast<int>(sizes.size()); }
};

absl::Status AddPaddings(const Tensor& pads, const char* name, Blocks* b) {
  const int m = b->rank();
  if (pads.rank() != 2 || pads.dim(0) != m || pads.dim(1) != 2) {
    return InvalidArgument(name, " should have shape [", m, ", 2] instead of ",
                           pads.shape().DebugString());
  }
  for (int i = 0; i < m; ++i) {
    b->before.push_back(IntAt(pads, 2 * i));
    b->after.push_back(IntAt(pads, 2 * i + 1));
    if (b->before.back() < 0 || b->after.back() < 0) {
      return InvalidArgument(name, " must be non-negative, found ", b->before.back(), " and ",
                             b->after.back());
    }
  }
  return absl::OkStatus();
}

// [batch, places…, rest] <-> [batch * blocks, places / sizes…, rest].
class SpaceBatchKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    to_batch_ = absl::StartsWith(c.op(), "SpaceToBatch");
    if (c.input_types().size() == 2) {
      FERRY_ASSIGN_OR_RETURN(block_, c.Attr<int64_t>("block_size"));
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(const Blocks blocks, BlocksOf(c));
    const int m = blocks.rank();
    if (in.rank() < 1 + m) {
      return InvalidArgument("input rank should be >= ", 1 + m, " instead of ", in.rank());
    }
    int64_t count = 1;
    for (int64_t size : blocks.sizes) {
      if (size < 1) return InvalidArgument("block sizes must be positive, found ", size);
      if (__builtin_mul_overflow(count, size, &count)) {
        return InvalidArgument("the product of the block sizes overflows");
      }
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, OutputShape(in.shape(), blocks, count));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    const bool padded = std::any_of(blocks.before.begin(), blocks.before.end(), NotZero) ||
                        std::any_of(blocks.after.begin(), blocks.after.end(), NotZero);
    if (to_batch_ && padded) FERRY_RETURN_IF_ERROR(FillZero(c, out));
    if (in.num_elements() == 0 || out->num_elements() == 0) return absl::OkStatus();
    // `wide` is the tensor with all places side by side, `narrow` the other.
    const Tensor& from = in;
    const TensorShape& wide = to_batch_ ? in.shape() : shape;
    const TensorShape& narrow = to_batch_ ? shape : in.shape();
    const Ints ws = Strides(wide.dims()), ns = Strides(narrow.dims());
    const int64_t batch = wide.dim(0);
    const int64_t inner = Product(wide.dims().subspan(static_cast<size_t>(m) + 1));
    for (int64_t block = 0; block < count; ++block) {
      Dims dims;
      dims.push_back(Dim(batch, ws[0], ns[0]));
      int64_t wide_at = 0, narrow_at = block * batch * ns[0], rest = block;
      bool any = true;
      Dims places(static_cast<size_t>(m));
      for (int i = m; i-- > 0;) {
        const auto k = static_cast<size_t>(i);
        const int64_t size = blocks.sizes[k], offset = rest % size - blocks.before[k];
        rest /= size;
        // Place p of `narrow` is place p * size + offset of `wide`.
        const int64_t first = offset >= 0 ? 0 : (-offset + size - 1) / size;
        const int64_t last = wide.dim(i + 1) - offset;  // p * size < last
        const int64_t end = last <= 0 ? 0 : std::min((last + size - 1) / size, narrow.dim(i + 1));
        any = any && end > first;
        places[k] = Dim(end - first, ws[k + 1] * size, ns[k + 1]);
        wide_at += (first * size + offset) * ws[k + 1];
        narrow_at += first * ns[k + 1];
      }
      if (!any) continue;
      dims.insert(dims.end(), places.begin(), places.end());
      dims.push_back(Dim(inner, 1, 1));
      FERRY_RETURN_IF_ERROR(StridedCopy(c, from, to_batch_ ? wide_at : narrow_at, out,
                                        to_batch_ ? narrow_at : wide_at, dims));
    }
    return absl::OkStatus();
  }

  static bool NotZero(int64_t x) { return x != 0; }
  CopyDim Dim(int64_t size, int64_t wide, int64_t narrow) const {
    return to_batch_ ? CopyDim{size, wide, narrow} : CopyDim{size, narrow, wide};
  }
  const char* PadsName() const { return to_batch_ ? "paddings" : "crops"; }

  absl::StatusOr<Blocks> BlocksOf(KernelContext* c) const {
    Blocks blocks;
    if (block_ > 0) {
      if (c->input(0).rank() != 4) {
        return InvalidArgument("Input rank should be 4 instead of ", c->input(0).rank());
      }
      blocks.sizes = {block_, block_};
    } else {
      const Tensor& sizes = c->input(1);
      if (sizes.rank() != 1) {
        return InvalidArgument("block_shape rank should be 1 instead of ", sizes.rank());
      }
      for (int64_t i = 0; i < sizes.num_elements(); ++i) blocks.sizes.push_back(IntAt(sizes, i));
    }
    FERRY_RETURN_IF_ERROR(AddPaddings(c->input(block_ > 0 ? 1 : 2), PadsName(), &blocks));
    return blocks;
  }

  absl::StatusOr<TensorShape> OutputShape(const TensorShape& in, const Blocks& blocks,
                                          int64_t count) const {
    Ints dims(in.dims().begin(), in.dims().end());
    if (to_batch_) {
      if (__builtin_mul_overflow(dims[0], count, &dims[0])) {
        return InvalidArgument("batch ", in.dim(0), " times ", count, " overflows");
      }
    } else {
      if (dims[0] % count != 0) {
        return InvalidArgument("Input batch dimension (", dims[0],
                               ") is not divisible by product of block sizes (", count, ")");
      }
      dims[0] /= count;
    }
    for (size_t i = 0; i < blocks.sizes.size(); ++i) {
      int64_t& dim = dims[i + 1];
      const int64_t size = blocks.sizes[i], before = blocks.before[i], after = blocks.after[i];
      int64_t around;
      if (__builtin_add_overflow(before, after, &around) ||
          (to_batch_ ? __builtin_add_overflow(dim, around, &dim)
                     : __builtin_mul_overflow(dim, size, &dim))) {
        return InvalidArgument("dimension ", i + 1, " overflows");
      }
      if (to_batch_) {
        if (dim % size != 0) {
          return InvalidArgument("padded_shape[", i, "]=", dim, " is not divisible by block_shape[",
                                 i, "]=", size);
        }
        dim /= size;
      } else {
        if (dim < around) {
          return InvalidArgument("cropped_shape[", i, "]=", dim - around, " must be non-negative");
        }
        dim -= around;
      }
    }
    return TensorShape::Make(dims);
  }

  bool to_batch_ = true;
  int64_t block_ = 0;  // Of the forms for images; 0 for the others.
};

absl::Status SpaceBatchShape(InferenceContext* c, bool to_batch) {
  const PartialShape& in = c->input(0);
  if (!in.known_rank()) return absl::OkStatus();
  PartialShape out = PartialShape::UnknownOfRank(in.rank());
  const bool images = c->num_inputs() == 2;
  std::optional<Ints> sizes;
  if (images) {
    FERRY_ASSIGN_OR_RETURN(const int64_t block, c->Attr<int64_t>("block_size"));
    sizes = Ints{block, block};
  } else {
    sizes = KnownInts(c, 1);
  }
  const Tensor* pads = c->value(images ? 1 : 2);
  if (!sizes || in.rank() < 1 + static_cast<int>(sizes->size())) {
    c->set_output(0, std::move(out));
    return absl::OkStatus();
  }
  std::vector<int64_t> dims(in.dims().begin(), in.dims().end());
  int64_t count = 1;
  for (size_t i = 0; i < sizes->size(); ++i) {
    const int64_t size = (*sizes)[i];
    if (size < 1) return InvalidArgument("block sizes must be positive, found ", size);
    if (__builtin_mul_overflow(count, size, &count)) {
      return InvalidArgument("the product of the block sizes overflows");
    }
    int64_t& dim = dims[i + 1];
    if (pads == nullptr || pads->num_elements() != 2 * int64_t(sizes->size()) ||
        dim == PartialShape::kUnknown) {
      dim = PartialShape::kUnknown;
      continue;
    }
    const int64_t before = IntAt(*pads, static_cast<int64_t>(2 * i)),
                  after = IntAt(*pads, static_cast<int64_t>(2 * i + 1));
    if (before < 0 || after < 0) {
      return InvalidArgument(to_batch ? "paddings" : "crops", " must be non-negative, found ",
                             before, " and ", after);
    }
    int64_t around;
    bool overflows = __builtin_add_overflow(before, after, &around);
    if (to_batch) {
      overflows |= __builtin_add_overflow(dim, around, &dim);
      if (!overflows && dim % size != 0) {
        return InvalidArgument("padded_shape[", i, "]=", dim, " is not divisible by block_shape[",
                               i, "]=", size);
      }
      dim /= size;
    } else {
      overflows |= __builtin_mul_overflow(dim, size, &dim);
      dim -= around;
      if (!overflows && dim < 0) {
        return InvalidArgument("cropped_shape[", i, "]=", dim, " must be non-negative");
      }
    }
    if (overflows) return InvalidArgument("dimension ", i + 1, " overflows");
  }
  if (dims[0] != PartialShape::kUnknown) {
    if (!to_batch && dims[0] % count != 0) {
      return InvalidArgument("Input batch dimension (", dims[0],
                             ") is not divisible by product of block sizes (", count, ")");
    }
    if (!to_batch) {
      dims[0] /= count;
    } else if (__builtin_mul_overflow(dims[0], count, &dims[0])) {
      return InvalidArgument("batch ", in.dim(0), " times ", count, " overflows");
    }
  }
  c->set_output(0, PartialShape(dims));
  return absl::OkStatus();
}

// Each is the other's gradient.
bool DefineSpaceBatch(bool to_batch, bool images) {
  const std::string from = to_batch ? "SpaceToBatch" : "BatchToSpace";
  const std::string back = to_batch ? "BatchToSpace" : "SpaceToBatch";
  const std::string pads = to_batch ? "paddings" : "crops";
  OpBuilder b(images ? from : from + "ND");
  b.Input("input: T");
  if (images) {
    // BatchToSpace calls the attribute otherwise.
    const std::string type = to_batch ? "Tpaddings" : "Tidx";
    b.Input(absl::StrCat(pads, ": ", type)).Output("output: T").Attr("T: type");
    b.Attr(absl::StrCat(type, ": {int32, int64} = DT_INT32")).Attr("block_size: int >= 2");
  } else {
    const std::string type = to_batch ? "Tpaddings" : "Tcrops";
    b.Input("block_shape: Tblock_shape").Input(absl::StrCat(pads, ": ", type)).Output("output: T");
    b.Attr("T: type").Attr("Tblock_shape: {int32, int64} = DT_INT32");
    b.Attr(absl::StrCat(type, ": {int32, int64} = DT_INT32"));
  }
  b.Shape([to_batch](InferenceContext* c) { return SpaceBatchShape(c, to_batch); });
  b.Gradient([back, images](GradientContext* c) -> absl::Status {
    NodeBuilder grad(c->scope(), images ? back : back + "ND");
    grad.Input(c->grad(0)).Input(c->input(1));
    if (images) {
      FERRY_ASSIGN_OR_RETURN(const int64_t block, c->Attr<int64_t>("block_size"));
      grad.Attr("block_size", block);
    } else {
      grad.Input(c->input(2));
    }
    c->set_input_grad(0, grad.BuildOutput());
    return c->scope().status();
  });
  const OpBuilder::Registrar registrar(b);
  return true;
}

[[maybe_unused]] const bool space_batch =
    DefineSpaceBatch(true, false) && DefineSpaceBatch(false, false) &&
    DefineSpaceBatch(true, true) && DefineSpaceBatch(false, true) &&
    RegisterArrayKernel<SpaceBatchKernel>("SpaceToBatchND", {"block_shape", "paddings"}) &&
    RegisterArrayKernel<SpaceBatchKernel>("BatchToSpaceND", {"block_shape", "crops"}) &&
    RegisterArrayKernel<SpaceBatchKernel>("SpaceToBatch", {"paddings"}) &&
    RegisterArrayKernel<SpaceBatchKernel>("BatchToSpace", {"crops"});

// ---- SpaceToDepth, DepthToSpace ----

struct DepthAttrs {
  int64_t block = 2;
  bool channels_first = false;
};
template <typename C>
absl::StatusOr<DepthAttrs> DepthAttrsOf(const C& c) {
  FERRY_ASSIGN_OR_RETURN(const int64_t block, c.template Attr<int64_t>("block_size"));
  FERRY_ASSIGN_OR_RETURN(const std::string format, c.template Attr<std::string>("data_format"));
  if (format == "NCHW_VECT_C") return Unimplemented("data_format NCHW_VECT_C");
  return DepthAttrs{block, format == "NCHW"};
}

// The sizes of the other side.
template <typename Dims4>
absl::Status DepthSizes(const DepthAttrs& a, bool to_depth, Dims4* dims) {
  const size_t rows = a.channels_first ? 2 : 1, columns = rows + 1,
               depth = a.channels_first ? 1 : 3;
  int64_t &h = (*dims)[rows], &w = (*dims)[columns], &d = (*dims)[depth];
  const int64_t b = a.block;
  if (b > (int64_t{1} << 30)) return InvalidArgument("block_size ", b, " is too large");
  if (to_depth) {
    if ((h >= 0 && h % b != 0) || (w >= 0 && w % b != 0)) {
      return InvalidArgument("Image width ", w, " and height ", h,
                             " should be divisible by block_size: ", b);
    }
    if (h >= 0) h /= b;
    if (w >= 0) w /= b;
    if (d >= 0 && __builtin_mul_overflow(d, b * b, &d)) {
      return InvalidArgument("the depth overflows");
    }
    return absl::OkStatus();
  }
  if (d >= 0 && d % (b * b) != 0) {
    return InvalidArgument("Input depth dimension ", d, " should be divisible by: ", b * b);
  }
  if (d >= 0) d /= b * b;
  if ((h >= 0 && __builtin_mul_overflow(h, b, &h)) ||
      (w >= 0 && __builtin_mul_overflow(w, b, &w))) {
    return InvalidArgument("the image's size overflows");
  }
  return absl::OkStatus();
}

class SpaceDepthKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    to_depth_ = c.op() == "SpaceToDepth";
    FERRY_ASSIGN_OR_RETURN(attrs_, DepthAttrsOf(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    if (in.rank() != 4) return InvalidArgument("Input rank should be 4 instead of ", in.rank());
    Ints sizes(in.shape().dims().begin(), in.shape().dims().end());
    FERRY_RETURN_IF_ERROR(DepthSizes(attrs_, to_depth_, &sizes));
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(sizes));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    // `space`: with the blocks side by side.
    const TensorShape &space = to_depth_ ? in.shape() : shape,
                      &depth = to_depth_ ? shape : in.shape();
    const Ints ss = Strides(space.dims()), ds = Strides(depth.dims());
    const size_t h = attrs_.channels_first ? 2 : 1, w = h + 1, k = attrs_.channels_first ? 1 : 3;
    const int64_t b = attrs_.block, channels = space.dim(static_cast<int>(k));
    Dims dims = {{space.dim(0), ss[0], ds[0]},
                 {depth.dim(static_cast<int>(h)), ss[h] * b, ds[h]},
                 {depth.dim(static_cast<int>(w)), ss[w] * b, ds[w]},
                 {b, ss[h], ds[k] * channels * b},
                 {b, ss[w], ds[k] * channels},
                 {channels, ss[k], ds[k]}};
    if (!to_depth_) {
      for (CopyDim& d : dims) std::swap(d.from, d.to);
    }
    return StridedCopy(c, in, 0, out, 0, dims);
  }
  bool to_depth_ = true;
  DepthAttrs attrs_;
};

bool DefineSpaceDepth(const char* op, const char* back, bool to_depth) {
  const OpBuilder::Registrar registrar(
      OpBuilder(op)
          .Input("input: T")
          .Output("output: T")
          .Attr("T: type")
          .Attr("block_size: int >= 2")
          .Attr("data_format: {'NHWC', 'NCHW', 'NCHW_VECT_C'} = 'NHWC'")
          .Shape([to_depth](InferenceContext* c) -> absl::Status {
            FERRY_ASSIGN_OR_RETURN(const DepthAttrs attrs, DepthAttrsOf(*c));
            FERRY_ASSIGN_OR_RETURN(const PartialShape in, c->WithRank(c->input(0), 4));
            if (!in.known_rank()) {
              c->set_output(0, PartialShape::UnknownOfRank(4));
              return absl::OkStatus();
            }
            std::vector<int64_t> dims(in.dims().begin(), in.dims().end());
            FERRY_RETURN_IF_ERROR(DepthSizes(attrs, to_depth, &dims));
            c->set_output(0, PartialShape(dims));
            return absl::OkStatus();
          })
          .Gradient([back](GradientContext* c) -> absl::Status {
            FERRY_ASSIGN_OR_RETURN(const int64_t block, c->Attr<int64_t>("block_size"));
            FERRY_ASSIGN_OR_RETURN(const std::string format, c->Attr<std::string>("data_format"));
            c->set_input_grad(0, NodeBuilder(c->scope(), back)
                                     .Input(c->grad(0))
                                     .Attr("block_size", block)
                                     .Attr("data_format", format)
                                     .BuildOutput());
            return c->scope().status();
          }));
  return true;
}
[[maybe_unused]] const bool space_depth = DefineSpaceDepth("SpaceToDepth", "DepthToSpace", true) &&
                                          DefineSpaceDepth("DepthToSpace", "SpaceToDepth", false) &&
                                          RegisterArrayKernel<SpaceDepthKernel>("SpaceToDepth") &&
                                          RegisterArrayKernel<SpaceDepthKernel>("DepthToSpace");

// ---- ReverseSequence ----

class ReverseSequenceKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(seq_, c.Attr<int64_t>("seq_dim"));
    FERRY_ASSIGN_OR_RETURN(batch_, c.Attr<int64_t>("batch_dim"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    const Tensor& lengths = c->input(1);
    int64_t seq = seq_, batch = batch_;
    if (batch == seq) {
      return InvalidArgument("batch_dim == seq_dim == ", seq);
    }
    if (!NormalizeAxis(in.rank(), &seq)) {
      return InvalidArgument("seq_dim must be < input rank ( ", seq_, " vs. ", in.rank(), ")");
    }
    if (!NormalizeAxis(in.rank(), &batch)) {
      return InvalidArgument("batch_dim must be < input rank ( ", batch_, " vs. ", in.rank(), ")");
    }
    const int64_t rows = in.dim(static_cast<int>(batch)), size = in.dim(static_cast<int>(seq));
    if (lengths.rank() != 1) {
      return InvalidArgument("seq_lens input must be 1-dim, not ", lengths.rank());
    }
    if (lengths.dim(0) != rows) {
      return InvalidArgument("Length of seq_lengths != input.dims(", batch, "), (", lengths.dim(0),
                             " vs. ", rows, ")");
    }
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t n = IntAt(lengths, i);
      if (n < 0) return InvalidArgument("seq_lens(", i, ") < 0");
      if (n > size) return InvalidArgument("seq_lens(", i, ") > input.dims(", seq, ")");
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    if (in.num_elements() == 0) return absl::OkStatus();
    const Ints strides = Strides(in.shape().dims());
    Dims dims;
    size_t at = 0;  // Of the sequence in `dims`.
    for (int d = 0; d < in.rank(); ++d) {
      if (d == batch) continue;
      if (d == seq) at = dims.size();
      const int64_t stride = strides[static_cast<size_t>(d)];
      dims.push_back({in.dim(d), stride, stride});
    }
    const int64_t stride = strides[static_cast<size_t>(seq)];
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t n = IntAt(lengths, i), row = i * strides[static_cast<size_t>(batch)];
      if (n > 0) {
        dims[at] = {n, -stride, stride};
        FERRY_RETURN_IF_ERROR(StridedCopy(c, in, row + (n - 1) * stride, out, row, dims));
      }
      if (n < size) {
        dims[at] = {size - n, stride, stride};
        FERRY_RETURN_IF_ERROR(StridedCopy(c, in, row + n * stride, out, row + n * stride, dims));
      }
    }
    return absl::OkStatus();
  }
  int64_t seq_ = 0, batch_ = 0;
};

FERRY_OP("ReverseSequence")
    .Input("input: T")
    .Input("seq_lengths: Tlen")
    .Output("output: T")
    .Attr("seq_dim: int")
    .Attr("batch_dim: int = 0")
    .Attr("T: type")
    .Attr("Tlen: {int32, int64} = DT_INT64")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
      c->set_output(0, c->input(0));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const int64_t seq, c->Attr<int64_t>("seq_dim"));
      FERRY_ASSIGN_OR_RETURN(const int64_t batch, c->Attr<int64_t>("batch_dim"));
      c->set_input_grad(0, NodeBuilder(c->scope(), "ReverseSequence")
                               .Input(c->grad(0))
                               .Input(c->input(1))
                               .Attr("seq_dim", seq)
                               .Attr("batch_dim", batch)
                               .BuildOutput());
      return c->scope().status();
    });
[[maybe_unused]] const bool sequences =
    RegisterArrayKernel<ReverseSequenceKernel>("ReverseSequence", {"seq_lengths"});

}  // namespace
}  // namespace ferry
