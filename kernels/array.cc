#include "kernels/array.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/gpu_array.h"
#include "kernels/gpu_host.h"

namespace ferry {
namespace {

constexpr int64_t kTaskBytes = 64 << 10;
// Edge of the squares in which 2-D transposition works.
template <typename T>
constexpr int64_t kTile = 16;
template <>
constexpr int64_t kTile<Bytes<4>> = 8;

template <typename T>
void CopyRun(const T* from, T* to, int64_t n) {
  if constexpr (std::is_same_v<T, std::string>) {
    std::copy_n(from, n, to);
  } else {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
  }
}

// Calls fn(from, to) for each index in [begin, end) of the outer dimensions taken as one.
template <typename T, typename Fn>
void ForOuter(absl::Span<const CopyDim> outer, int64_t begin, int64_t end, const T* from, T* to,
              Fn fn) {
  Ints index(outer.size());
  int64_t rest = begin;
  for (size_t d = outer.size(); d-- > 0;) {
    index[d] = rest % outer[d].size;
    rest /= outer[d].size;
    from += index[d] * outer[d].from;
    to += index[d] * outer[d].to;
  }
  for (int64_t i = begin; i < end; ++i) {
    fn(from, to);
    for (size_t d = outer.size(); d-- > 0;) {
      from += outer[d].from;
      to += outer[d].to;
      if (++index[d] < outer[d].size) break;
      index[d] = 0;
      from -= outer[d].size * outer[d].from;
      to -= outer[d].size * outer[d].to;
    }
  }
}

template <typename T>
void CopyInner(const CopyDim& d, const T* from, T* to) {
  if (d.to == 1 && d.from == 1) {
    CopyRun(from, to, d.size);
  } else if (d.to == 1 && d.from == 0) {
    std::fill_n(to, d.size, *from);
  } else {
    for (int64_t i = 0; i < d.size; ++i) to[i * d.to] = from[i * d.from];
  }
}

// to[r * to_step + k] = from[r + k * from_step] for a whole tile.
template <typename T>
void TransposeTile(const T* from, int64_t from_step, T* to, int64_t to_step) {
  for (int64_t r = 0; r < kTile<T>; ++r) {
    for (int64_t k = 0; k < kTile<T>; ++k) to[r * to_step + k] = from[r + k * from_step];
  }
}

// In registers: three rounds that interleave the lines of the upper half with those of the lower.
template <>
void TransposeTile(const Bytes<4>* from, int64_t from_step, Bytes<4>* to, int64_t to_step) {
  typedef uint32_t Line __attribute__((vector_size(32)));
  const Line low = {0, 8, 1, 9, 2, 10, 3, 11}, high = {4, 12, 5, 13, 6, 14, 7, 15};
  Line a[8], b[8];
  for (int64_t k = 0; k < 8; ++k) std::memcpy(&a[k], from + k * from_step, sizeof(Line));
  auto interleave = [&](const Line* x, Line* y) {
    for (int i = 0; i < 4; ++i) {
      y[2 * i] = __builtin_shuffle(x[i], x[i + 4], low);
      y[2 * i + 1] = __builtin_shuffle(x[i], x[i + 4], high);
    }
  };
  interleave(a, b);
  interleave(b, a);
  interleave(a, b);
  for (int64_t r = 0; r < 8; ++r) std::memcpy(to + r * to_step, &b[r], sizeof(Line));
}

// Rows [row, row_end), at most a tile's edge, of a transposition: along `rows` the source is dense,
// along `cols` the result.
template <typename T>
void TransposeRows(const CopyDim& rows, const CopyDim& cols, int64_t row, int64_t row_end,
                   const T* from, T* to) {
  const int64_t nr = row_end - row;
  for (int64_t c0 = 0; c0 < cols.size; c0 += kTile<T>) {
    const int64_t nc = std::min(kTile<T>, cols.size - c0);
    const T* f = from + row + c0 * cols.from;
    T* t = to + row * rows.to + c0;
    if (nr == kTile<T> && nc == kTile<T>) {
      TransposeTile(f, cols.from, t, rows.to);
      continue;
    }
    for (int64_t r = 0; r < nr; ++r) {
      for (int64_t k = 0; k < nc; ++k) t[r * rows.to + k] = f[r + k * cols.from];
    }
  }
}

// `dims` is normalised: no dimension of size 0 or 1, neighbours that make one are merged.
template <typename T>
void CopyNormalised(KernelContext* c, const T* from, T* to, absl::Span<CopyDim> dims) {
  if (dims.empty()) {
    *to = *from;
    return;
  }
  const CopyDim inner = dims.back();
  if (dims.size() == 1) {
    c->ParallelFor(inner.size, kTaskBytes / static_cast<int64_t>(sizeof(T)),
                   [&](int64_t begin, int64_t end) {
                     CopyInner<T>({end - begin, inner.from, inner.to}, from + begin * inner.from,
                                  to + begin * inner.to);
                   });
    return;
  }
  absl::Span<CopyDim> outer = dims.subspan(0, dims.size() - 1);
  if (inner.to == 1 && inner.from != 1 && inner.from != 0) {
    auto dense =
        std::find_if(outer.begin(), outer.end(), [](const CopyDim& d) { return d.from == 1; });
    if (dense != outer.end()) {
      const CopyDim rows = *dense;
      std::rotate(dense, dense + 1, outer.end());
      outer.remove_suffix(1);
      const int64_t strips = (rows.size + kTile<T> - 1) / kTile<T>;
      int64_t total = strips;
      for (const CopyDim& d : outer) total *= d.size;
      const int64_t strip_bytes = kTile<T> * inner.size * static_cast<int64_t>(sizeof(T));
      c->ParallelFor(total, std::max<int64_t>(1, kTaskBytes / strip_bytes),
                     [&](int64_t begin, int64_t end) {
                       int64_t strip = begin % strips;
                       ForOuter<T>(outer, begin / strips, (end + strips - 1) / strips, from, to,
                                   [&](const T* f, T* t) {
                                     for (; strip < strips && begin < end; ++strip, ++begin) {
                                       const int64_t row = strip * kTile<T>;
                                       TransposeRows<T>(rows, inner, row,
                                                        std::min(row + kTile<T>, rows.size), f, t);
                                     }
                                     strip = 0;
                                   });
                     });
      return;
    }
  }
  int64_t total = 1;
  for (const CopyDim& d : outer) total *= d.size;
  const int64_t row_bytes = inner.size * static_cast<int64_t>(sizeof(T));
  c->ParallelFor(total, std::max<int64_t>(1, kTaskBytes / row_bytes),
                 [&](int64_t begin, int64_t end) {
                   ForOuter<T>(outer, begin, end, from, to,
                               [&](const T* f, T* t) { CopyInner<T>(inner, f, t); });
                 });
}

}  // namespace

namespace {

int Width(const Tensor& t) { return static_cast<int>(ElementSize(t.dtype())); }

// `data`, a tensor's, behind its first `i` elements.
template <typename Void>
Void* Behind(Void* data, const Tensor& t, int64_t i) {
  using Char = std::conditional_t<std::is_const_v<Void>, const char, char>;
  return static_cast<Char*>(data) + i * static_cast<int64_t>(ElementSize(t.dtype()));
}

}  // namespace

absl::Status StridedCopy(KernelContext* c, const Tensor& from, int64_t from_offset, Tensor* to,
                         int64_t to_offset, absl::Span<const CopyDim> dims) {
  absl::InlinedVector<CopyDim, 8> kept;
  for (const CopyDim& d : dims) {
    if (d.size == 0) return absl::OkStatus();
    if (d.size == 1) continue;
    if (!kept.empty() && kept.back().from == d.from * d.size && kept.back().to == d.to * d.size) {
      kept.back() = {kept.back().size * d.size, d.from, d.to};
    } else {
      kept.push_back(d);
    }
  }
  if (c->gpu()) {
    absl::InlinedVector<gpu::StridedDim, 8> gpu_dims;
    for (const CopyDim& d : kept) gpu_dims.push_back({d.size, d.from, d.to});
    return gpu::LaunchOnGpu(c, [&](gpu::Call* call) {
      return gpu::Array().copy(call, Width(*to), Behind(from.raw(), from, from_offset),
                               Behind(to->raw(), *to, to_offset), gpu_dims.data(),
                               static_cast<int>(gpu_dims.size()));
    });
  }
  return ForWidth(to->dtype(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    CopyNormalised<T>(c, static_cast<const T*>(from.raw()) + from_offset,
                      static_cast<T*>(to->raw()) + to_offset, absl::MakeSpan(kept));
  });
}

absl::Status CopyParts(KernelContext* c, int64_t rows, absl::Span<const CopyPart> parts) {
  if (!c->gpu()) {
    for (const CopyPart& p : parts) {
      FERRY_RETURN_IF_ERROR(StridedCopy(c, *p.from, p.from_offset, p.to, p.to_offset,
                                        {{rows, p.from_pitch, p.to_pitch}, {p.run, 1, 1}}));
    }
    return absl::OkStatus();
  }
  if (parts.empty()) return absl::OkStatus();
  std::vector<gpu::RunPiece> pieces;
  for (const CopyPart& p : parts) {
    pieces.push_back({Behind(p.from->raw(), *p.from, p.from_offset),
                      Behind(p.to->raw(), *p.to, p.to_offset), p.run, p.from_pitch, p.to_pitch});
  }
  return gpu::LaunchOnGpu(c, [&](gpu::Call* call) {
    return gpu::Array().copy_runs(call, Width(*parts[0].to), rows, pieces.data(),
                                  static_cast<int>(pieces.size()));
  });
}

absl::Status FillWith(KernelContext* c, const Tensor& value, Tensor* to) {
  return StridedCopy(c, value, 0, to, 0, {{to->num_elements(), 0, 1}});
}

absl::Status FillZero(KernelContext* c, Tensor* to) {
  if (c->gpu()) return c->gpu()->Fill(c->gpu_stream(), to->raw(), 0, to->bytes());
  if (to->dtype() == DType::kString) {
    std::fill_n(to->data<std::string>(), to->num_elements(), std::string());
    return absl::OkStatus();
  }
  c->ParallelFor(
      static_cast<int64_t>(to->bytes()), int64_t{1} << 20, [to](int64_t begin, int64_t end) {
        std::memset(static_cast<char*>(to->raw()) + begin, 0, static_cast<size_t>(end - begin));
      });
  return absl::OkStatus();
}

Ints Strides(absl::Span<const int64_t> dims) {
  Ints strides(dims.size());
  // Without elements no stride is ever used, and a product that leaves out the zero might not fit.
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) return strides;
  int64_t stride = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= dims[i];
  }
  return strides;
}

int64_t Product(absl::Span<const int64_t> dims) {
  int64_t product = 1;
  for (int64_t d : dims) product *= d;
  return product;
}

std::optional<Ints> KnownInts(const InferenceContext* c, int i) {
  const Tensor* v = c->value(i);
  if (!v || v->rank() > 1) return std::nullopt;
  Ints out(static_cast<size_t>(v->num_elements()));
  switch (v->dtype()) {
    case DType::kInt64:
      std::copy_n(v->data<int64_t>(), out.size(), out.begin());
      return out;
    case DType::kInt32:
      std::copy_n(v->data<int32_t>(), out.size(), out.begin());
      return out;
    case DType::kInt16:
      std::copy_n(v->data<int16_t>(), out.size(), out.begin());
      return out;
    case DType::kInt8:
      std::copy_n(v->data<int8_t>(), out.size(), out.begin());
      return out;
    default:
      return std::nullopt;
  }
}

std::optional<int64_t> KnownInt(const InferenceContext* c, int i) {
  std::optional<Ints> v = KnownInts(c, i);
  if (!v || v->size() != 1) return std::nullopt;
  return (*v)[0];
}

std::string ElementName(absl::string_view tensor, const TensorShape& shape, int64_t flat) {
  if (shape.rank() == 0) return std::string(tensor);
  Ints index(static_cast<size_t>(shape.rank()));
  for (size_t d = index.size(); d-- > 0;) {
    index[d] = flat % shape.dim(static_cast<int>(d));
    flat /= shape.dim(static_cast<int>(d));
  }
  std::string name = absl::StrCat(tensor, "[");
  for (size_t d = 0; d < index.size(); ++d) absl::StrAppend(&name, d ? "," : "", index[d]);
  return name + "]";
}

absl::Status CheckIndices(const Tensor& indices, int64_t limit) {
  for (int64_t i = 0; i < indices.num_elements(); ++i) {
    const int64_t at = IntAt(indices, i);
    if (at < 0 || at >= limit) {
      return InvalidArgument(ElementName("indices", indices.shape(), i), " = ", at,
                             " is not in [0, ", limit, ")");
    }
  }
  return absl::OkStatus();
}

}  // namespace ferry
