// The loops of reductions. Any set of dimensions comes down to stages that each reduce the middle
// one of three dimensions: before x reduced x after.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "absl/container/inlined_vector.h"
#include "kernels/reduce.h"
#include "kernels/types.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

// How two values become one, and the value that changes nothing.
struct SumOf {
  template <typename A>
  static constexpr A Identity() {
    return A(0);
  }
  template <typename A>
  static A Combine(A x, A y) {
    return x + y;
  }
};
struct ProductOf {
  template <typename A>
  static constexpr A Identity() {
    return A(1);
  }
  template <typename A>
  static A Combine(A x, A y) {
    return x * y;
  }
};
struct MaxOf {
  template <typename A>
  static constexpr A Identity() {
    return std::numeric_limits<A>::has_infinity ? -std::numeric_limits<A>::infinity()
                                                : std::numeric_limits<A>::lowest();
  }
  template <typename A>
  static A Combine(A x, A y) {
    const A most = x > y ? x : y;  // y if either is NaN.
    return x != x ? x : most;
  }
};
struct MinOf {
  template <typename A>
  static constexpr A Identity() {
    return std::numeric_limits<A>::has_infinity ? std::numeric_limits<A>::infinity()
                                                : std::numeric_limits<A>::max();
  }
  template <typename A>
  static A Combine(A x, A y) {
    const A least = x < y ? x : y;
    return x != x ? x : least;
  }
};
struct AllOf {
  template <typename A>
  static constexpr A Identity() {
    return A(1);
  }
  template <typename A>
  static A Combine(A x, A y) {
    return static_cast<A>(x & y);
  }
};
struct AnyOf {
  template <typename A>
  static constexpr A Identity() {
    return A(0);
  }
  template <typename A>
  static A Combine(A x, A y) {
    return static_cast<A>(x | y);
  }
};

// The type in which values are combined.
template <typename Op, typename T>
struct AccOf {
  static constexpr bool kExact = std::is_same_v<Op, MaxOf> || std::is_same_v<Op, MinOf>;
  using type = std::conditional_t<
      sizeof(T) == 2 && !std::is_integral_v<T>, float,
      std::conditional_t<std::is_same_v<T, bool>, uint8_t,
                         std::conditional_t<!std::is_integral_v<T>, T,
                                            std::conditional_t<kExact && std::is_signed_v<T>,
                                                               int64_t, uint64_t>>>>;
};

// Values next to each other, at least kLanes of them. So many sums are under way at once: one
// addition needn't wait for another, and rounding errors are smaller. Their number is fixed, so
// that the result is the same on every machine.
template <int kLanes, typename Op, typename Acc, typename In>
Acc InLanes(const In* in, int64_t n) {
  Acc lane[kLanes];
  for (int j = 0; j < kLanes; ++j) lane[j] = static_cast<Acc>(in[j]);
  int64_t i = kLanes;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lane[j] = Op::Combine(lane[j], static_cast<Acc>(in[i + j]));
  }
  for (int j = 0; i + j < n; ++j) lane[j] = Op::Combine(lane[j], static_cast<Acc>(in[i + j]));
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) lane[j] = Op::Combine(lane[j], lane[j + half]);
  }
  return lane[0];
}

template <typename Op, typename Acc, typename In>
Acc Contiguous(const In* in, int64_t n) {
  if (n >= 64) return InLanes<32, Op, Acc>(in, n);
  if constexpr (!std::is_integral_v<Acc>) {
    if (n >= 8) return InLanes<8, Op, Acc>(in, n);
  }
  Acc acc = Op::template Identity<Acc>();
  for (int64_t i = 0; i < n; ++i) acc = Op::Combine(acc, static_cast<Acc>(in[i]));
  return acc;
}

// Rows of `width` values `stride` apart are combined into acc[width], four rows at a time.
template <typename Op, typename Acc, typename In>
void Rows(const In* in, int64_t rows, int64_t stride, int64_t width, Acc* acc) {
  for (int64_t j = 0; j < width; ++j) acc[j] = Op::template Identity<Acc>();
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const In* const p = in + r * stride;
    for (int64_t j = 0; j < width; ++j) {
      const Acc a = Op::Combine(static_cast<Acc>(p[j]), static_cast<Acc>(p[j + stride]));
      const Acc b =
          Op::Combine(static_cast<Acc>(p[j + 2 * stride]), static_cast<Acc>(p[j + 3 * stride]));
      acc[j] = Op::Combine(acc[j], Op::Combine(a, b));
    }
  }
  for (; r < rows; ++r) {
    const In* const p = in + r * stride;
    for (int64_t j = 0; j < width; ++j) acc[j] = Op::Combine(acc[j], static_cast<Acc>(p[j]));
  }
}

// The same for a width known when compiling: the sums stay in registers.
template <int kWidth, typename Op, typename Acc, typename In>
void NarrowRows(const In* in, int64_t rows, int64_t stride, Acc* out) {
  Acc acc[kWidth];
  Rows<Op, Acc>(in, rows, stride, kWidth, acc);
  std::copy_n(acc, kWidth, out);
}

template <typename Op, typename Acc, typename In>
void Columns(const In* in, int64_t rows, int64_t stride, int64_t width, Acc* out) {
  if constexpr (std::is_integral_v<Acc>) {  // Not worth the code.
    Rows<Op, Acc>(in, rows, stride, width, out);
  } else {
    if (width > 64) return Rows<Op, Acc>(in, rows, stride, width, out);
    int64_t j = 0;
    for (; j + 32 <= width; j += 32) NarrowRows<32, Op>(in + j, rows, stride, out + j);
    for (; j + 8 <= width; j += 8) NarrowRows<8, Op>(in + j, rows, stride, out + j);
    for (; j < width; ++j) NarrowRows<1, Op>(in + j, rows, stride, out + j);
  }
}

// What a unit of parallel work reads, about; and how many columns it spans.
constexpr int64_t kUnit = 1 << 15;
constexpr int64_t kMostColumns = 1024;
// Sums longer than this are made of partial sums, for accuracy.
constexpr int64_t kMostRows = 1 << 15;

struct Stage {
  int64_t before, reduced, after;
  // How the reduced dimension is cut into chunks, each with a result of its own.
  int64_t chunk, chunks;

  Stage(int64_t before, int64_t reduced, int64_t after)
      : before(before), reduced(reduced), after(after) {
    const int64_t width = std::min(after, kMostColumns);
    chunk = std::max<int64_t>(1, kUnit / std::max<int64_t>(1, width));
    // With units enough in the other dimensions, the chunks needn't make more.
    if (before * ((after + kMostColumns - 1) / kMostColumns) >= 64) chunk = kMostRows;
    chunks = std::max<int64_t>(1, (reduced + chunk - 1) / chunk);
    if (chunks == 1) chunk = reduced;
  }
  int64_t outputs() const { return before * after; }
  // Of the accumulator's type.
  int64_t space() const { return chunks > 1 ? before * chunks * after : 0; }
};

template <typename Op, typename Acc, typename In>
void RunStage(KernelContext* c, const Stage& s, const In* in, Acc* out, Acc* space) {
  const int64_t blocks = (s.after + kMostColumns - 1) / kMostColumns;
  const int64_t work = std::max<int64_t>(1, s.chunk * std::min(s.after, kMostColumns));
  Acc* const to = s.chunks > 1 ? space : out;
  c->ParallelFor(s.before * s.chunks * blocks, std::max<int64_t>(1, kUnit / work),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t unit = begin; unit < end; ++unit) {
                     const int64_t row = unit / blocks;  // Of s.before * s.chunks.
                     const int64_t first = row % s.chunks * s.chunk;
                     const int64_t count = std::min(s.chunk, s.reduced - first);
                     const In* const from = in + (row / s.chunks * s.reduced + first) * s.after;
                     if (s.after == 1) {
                       to[row] = Contiguous<Op, Acc>(from, count);
                     } else {
                       const int64_t column = unit % blocks * kMostColumns;
                       Columns<Op, Acc>(from + column, count, s.after,
                                        std::min(kMostColumns, s.after - column),
                                        to + row * s.after + column);
                     }
                   }
                 });
  if (s.chunks == 1) return;
  for (int64_t i = 0; i < s.before; ++i) {
    const Acc* const from = space + i * s.chunks * s.after;
    if (s.after == 1) {
      out[i] = Contiguous<Op, Acc>(from, s.chunks);
    } else {
      Columns<Op, Acc>(from, s.chunks, s.after, s.after, out + i * s.after);
    }
  }
}

template <typename Op, typename T>
absl::Status ReduceWith(KernelContext* c, bool mean, absl::Span<const int64_t> sizes,
                        absl::Span<const bool> reduced, const T* in, T* out) {
  using Acc = typename AccOf<Op, T>::type;
  // Products of sizes are within int64_t only when none of the sizes is 0.
  bool none_reduced = false;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 && !reduced[i]) return absl::OkStatus();
    if (sizes[i] == 0) none_reduced = true;
  }
  // Neighbours that are both kept or both reduced are one dimension.
  struct Group {
    int64_t size;
    bool reduced;
  };
  absl::InlinedVector<Group, 8> groups;
  int64_t count = none_reduced ? 0 : 1, outputs = 1;  // Elements in an output, and outputs.
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 1 || (none_reduced && reduced[i])) continue;
    (reduced[i] ? count : outputs) *= sizes[i];
    if (!groups.empty() && groups.back().reduced == reduced[i]) {
      groups.back().size *= sizes[i];
    } else {
      groups.push_back({sizes[i], reduced[i]});
    }
  }

  // The stages, from the last reduced dimension to the first; each but the last leaves its results
  // in scratch memory, in turns in one place and another.
  absl::InlinedVector<Stage, 4> stages;
  for (;;) {
    int last = static_cast<int>(groups.size()) - 1;
    while (last >= 0 && !groups[static_cast<size_t>(last)].reduced) --last;
    if (last < 0) break;
    int64_t before = 1, after = 1;
    for (int i = 0; i < last; ++i) before *= groups[static_cast<size_t>(i)].size;
    for (size_t i = static_cast<size_t>(last) + 1; i < groups.size(); ++i) after *= groups[i].size;
    stages.emplace_back(before, groups[static_cast<size_t>(last)].size, after);
    groups.erase(groups.begin() + last);
  }
  if (stages.empty()) stages.emplace_back(1, none_reduced ? 0 : 1, outputs);
  constexpr bool kSame = std::is_same_v<Acc, T>;
  int64_t partial = 0;
  for (const Stage& s : stages) partial = std::max(partial, s.space());
  const int64_t first = stages.size() > 1 ? stages[0].outputs() : 0;
  const int64_t second = stages.size() > 2 ? stages[1].outputs() : 0;
  const int64_t total = partial + first + second + (kSame ? 0 : outputs);
  Acc* space = nullptr;
  if (total > 0) {
    FERRY_ASSIGN_OR_RETURN(void* memory, c->Scratch(static_cast<size_t>(total) * sizeof(Acc)));
    space = static_cast<Acc*>(memory);
  }
  Acc* const turns[2] = {space + partial, space + partial + first};
  Acc* result;
  if constexpr (kSame) {
    result = out;
  } else {
    result = space + partial + first + second;
  }
  for (size_t i = 0; i < stages.size(); ++i) {
    Acc* const to = i + 1 == stages.size() ? result : turns[i % 2];
    if (i == 0) {
      RunStage<Op, Acc>(c, stages[i], in, to, space);
    } else {
      RunStage<Op, Acc>(c, stages[i], const_cast<const Acc*>(turns[(i - 1) % 2]), to, space);
    }
  }

  if (std::is_same_v<Op, SumOf> && mean) {
    if constexpr (std::is_integral_v<T>) {
      using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
      for (int64_t i = 0; i < outputs; ++i) {
        out[i] = count == 0
                     ? T(0)
                     : static_cast<T>(static_cast<Wide>(result[i]) / static_cast<Wide>(count));
      }
    } else {
      for (int64_t i = 0; i < outputs; ++i) {
        out[i] = static_cast<T>(result[i] / static_cast<Acc>(count));
      }
    }
  } else if constexpr (!kSame) {
    for (int64_t i = 0; i < outputs; ++i) out[i] = static_cast<T>(result[i]);
    // Of nothing: the least and greatest values of Acc aren't those of T.
    if constexpr (std::is_integral_v<T>) {
      if (count == 0) std::fill_n(out, outputs, Op::template Identity<T>());
    }
  }
  return absl::OkStatus();
}

}  // namespace

template <typename T>
absl::Status Reduce(KernelContext* c, Reduction kind, absl::Span<const int64_t> sizes,
                    absl::Span<const bool> reduced, const T* in, T* out) {
  if constexpr (std::is_same_v<T, bool>) {
    return kind == Reduction::kAll ? ReduceWith<AllOf>(c, false, sizes, reduced, in, out)
                                   : ReduceWith<AnyOf>(c, false, sizes, reduced, in, out);
  } else {
    switch (kind) {
      case Reduction::kProd:
        return ReduceWith<ProductOf>(c, false, sizes, reduced, in, out);
      case Reduction::kMax:
        return ReduceWith<MaxOf>(c, false, sizes, reduced, in, out);
      case Reduction::kMin:
        return ReduceWith<MinOf>(c, false, sizes, reduced, in, out);
      default:
        return ReduceWith<SumOf>(c, kind == Reduction::kMean, sizes, reduced, in, out);
    }
  }
}

#define FERRY_REDUCE(T)                                                                 \
  template absl::Status Reduce<T>(KernelContext*, Reduction, absl::Span<const int64_t>, \
                                  absl::Span<const bool>, const T*, T*);
FERRY_REDUCE(bool)
FERRY_REDUCE(half)
FERRY_REDUCE(bfloat16)
FERRY_REDUCE(float)
FERRY_REDUCE(double)
FERRY_REDUCE(int8_t)
FERRY_REDUCE(int16_t)
FERRY_REDUCE(int32_t)
FERRY_REDUCE(int64_t)
FERRY_REDUCE(uint8_t)
FERRY_REDUCE(uint16_t)
FERRY_REDUCE(uint32_t)
FERRY_REDUCE(uint64_t)
#undef FERRY_REDUCE

}  // namespace ferry
