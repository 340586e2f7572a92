// Convolutions as sums over images that stay where they are.
//
// y and dx are both a "gather": each output position is the sum, over the taps of the filter that
// reach it, of an input position times a matrix of input by output channels. For dx the roles are
// exchanged, and with strides the output positions fall into phases, each with taps of its own.
// Taps that lie side by side in memory make one run. The third product, the filter's gradient,
// goes over the same positions with the sums the other way round.
//
// The unit of work is a band of output rows of one image. The input rows that it reads are first
// copied to a stage, which has zeros for the padding, channels last, and the type to compute in;
// where they have all that already, they are read in place.
#include "kernels/conv_loops.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <map>
#include <type_traits>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "kernels/conv_tiles.h"
#include "kernels/types.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

// What T is computed in: integers wrap around.
template <typename T>
using Compute = std::conditional_t<std::is_integral_v<T>, uint32_t, Wide<T>>;

constexpr int64_t kStageBytes = 384 << 10;   // About what a band's stage may take.
constexpr int64_t kFewPixels = 64;           // A band that isn't worth splitting.
constexpr int64_t kSpreadPixels = 112;       // A band's, for the filter's gradient: near the core.
constexpr int64_t kPartialBytes = 64 << 20;  // Of all partial gradients of a filter.
constexpr double kFlopsWorthSplitting = 2e6;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Rounded up so that what follows is aligned to a cache line.
template <typename C>
int64_t Aligned(int64_t elements) {
  return DivideUp(elements, kPanel<C>) * kPanel<C>;
}

// ---- Positions ----

// Reads position j * mul + offset.
struct Tap {
  int64_t number, offset;
};
// Output positions first, first + step, … (`count` of them).
struct Phase {
  int64_t first = 0, count = 0;
  absl::InlinedVector<Tap, 8> taps;
};
struct Axis {
  int64_t in = 0, out = 0, step = 1, mul = 1;
  int64_t lowest = 0, highest = -1;  // Input positions that are read; none if highest < lowest.
  bool gaps = false;                 // Whether there are output positions in no phase.
  absl::InlinedVector<Phase, 2> phases;
};

void Measure(Axis* axis) {
  bool any = false;
  for (const Phase& p : axis->phases) {
    for (const Tap& t : p.taps) {
      const int64_t last = (p.count - 1) * axis->mul + t.offset;
      axis->lowest = any ? std::min(axis->lowest, t.offset) : t.offset;
      axis->highest = any ? std::max(axis->highest, last) : last;
      any = true;
    }
  }
}

Axis ForwardAxis(const WindowAxis& a) {
  Axis axis;
  axis.in = a.in;
  axis.out = a.out;
  axis.mul = a.stride;
  Phase phase;
  phase.count = a.out;
  for (int64_t k = 0; k < a.window; ++k) phase.taps.push_back({k, k * a.dilation - a.before});
  axis.phases.push_back(std::move(phase));
  Measure(&axis);
  return axis;
}

// x position p met y position i at tap k if i * stride + k * dilation - before = p. There are
// phases for positions that taps reach: no more than taps, however long the strides are.
Axis BackwardAxis(const WindowAxis& a) {
  Axis axis;
  axis.in = a.out;
  axis.out = a.in;
  axis.step = a.stride;
  std::map<int64_t, Phase> phases;
  for (int64_t k = a.window; k-- > 0;) {  // By increasing offset.
    const int64_t at = k * a.dilation - a.before;
    const int64_t first = (at % a.stride + a.stride) % a.stride;
    if (first < a.in) phases[first].taps.push_back({k, (first - at) / a.stride});
  }
  for (auto& [first, phase] : phases) {
    phase.first = first;
    phase.count = DivideUp(a.in - first, a.stride);
    axis.phases.push_back(std::move(phase));
  }
  axis.gaps = static_cast<int64_t>(axis.phases.size()) < std::min(a.stride, a.in);
  Measure(&axis);
  return axis;
}

// The j's of output positions [begin, end) in a phase.
std::pair<int64_t, int64_t> InPhase(const Axis& a, const Phase& p, int64_t begin, int64_t end) {
  auto from = [&](int64_t o) {
    return std::min(p.count, std::max<int64_t>(0, DivideUp(o - p.first, a.step)));
  };
  return {begin <= p.first ? 0 : from(begin), end <= p.first ? 0 : from(end)};
}

// The input positions that output positions [begin, end) read.
std::pair<int64_t, int64_t> Reads(const Axis& a, int64_t begin, int64_t end) {
  int64_t lowest = std::numeric_limits<int64_t>::max(), highest = -1;
  bool any = false;
  for (const Phase& p : a.phases) {
    const auto [j0, j1] = InPhase(a, p, begin, end);
    if (j0 >= j1) continue;
    for (const Tap& t : p.taps) {
      const int64_t low = j0 * a.mul + t.offset, high = (j1 - 1) * a.mul + t.offset;
      lowest = any ? std::min(lowest, low) : low;
      highest = any ? std::max(highest, high) : high;
      any = true;
    }
  }
  return any ? std::make_pair(lowest, highest + 1) : std::make_pair<int64_t, int64_t>(0, 0);
}

// ---- Stages ----

// An image tensor.
template <typename T>
struct Images {
  const T* data;
  int64_t rows, columns, depth;
  bool channels_first;
  const T* image(int64_t n) const { return data + n * rows * columns * depth; }
};

// Copies `count` pixels from (row, column) on, channels last, as C.
template <typename T, typename C>
void CopyPixels(const Images<T>& in, const T* image, int64_t row, int64_t column, int64_t count,
                C* to) {
  if (!in.channels_first) {
    const T* const from = image + (row * in.columns + column) * in.depth;
    const int64_t n = count * in.depth;
    if constexpr (std::is_same_v<T, C> || std::is_integral_v<T>) {
      std::copy_n(from, n, to);
    } else {
      MutableArray<C>(to, n) = ConstArray<T>(from, n).template cast<C>();
    }
    return;
  }
  const T* from = image + row * in.columns + column;
  for (int64_t k = 0; k < in.depth; ++k, from += in.rows * in.columns) {
    for (int64_t x = 0; x < count; ++x) to[x * in.depth + k] = static_cast<C>(from[x]);
  }
}

// Where a band's input can be read: pixel (row, column) at data + ((row - row0) * width +
// (column - column0)) * depth.
template <typename C>
struct Stage {
  const C* data = nullptr;
  int64_t row0 = 0, column0 = 0, width = 0;
};

// How bands of an input are staged.
template <typename T, typename C>
class Stager {
 public:
  Stager(const Images<T>& in, const Axis& y, const Axis& x) : in_(in), y_(y), x_(x) {
    direct_ = sizeof(T) == sizeof(C) && !in.channels_first && y.lowest >= 0 && x.lowest >= 0 &&
              y.highest < y.in && x.highest < x.in;
    column0_ = direct_ ? 0 : x.lowest;
    width_ = direct_ ? in.columns : std::max<int64_t>(0, x.highest - x.lowest + 1);
  }
  bool direct() const { return direct_; }
  int64_t width() const { return width_; }
  // Elements of a stage for `band` output rows at most, wherever they are.
  double Elements(int64_t band) const {
    if (direct_) return 0;
    int64_t lowest = 0, highest = 0;
    bool any = false;
    for (const Phase& p : y_.phases) {
      for (const Tap& t : p.taps) {
        lowest = any ? std::min(lowest, t.offset) : t.offset;
        highest = any ? std::max(highest, t.offset) : t.offset;
        any = true;
      }
    }
    // Bands begin at a multiple of the step, so at the same j in each phase.
    const double rows = static_cast<double>(DivideUp(band, y_.step) * y_.mul) +
                        static_cast<double>(highest - lowest) + 1;
    return rows * static_cast<double>(width_) * static_cast<double>(in_.depth);
  }
  Stage<C> Make(int64_t n, int64_t begin, int64_t end, C* space) const {
    Stage<C> stage;
    stage.width = width_;
    stage.column0 = column0_;
    const T* const image = in_.image(n);
    if (direct_) {
      if constexpr (sizeof(T) == sizeof(C)) stage.data = reinterpret_cast<const C*>(image);
      return stage;
    }
    const auto [row0, row1] = Reads(y_, begin, end);
    stage.row0 = row0;
    stage.data = space;
    const int64_t first = std::clamp<int64_t>(column0_, 0, in_.columns);
    const int64_t last = std::clamp<int64_t>(column0_ + width_, first, in_.columns);
    const int64_t before = std::min(width_, first - column0_);
    const int64_t count = std::min(last - first, width_ - before);
    for (int64_t r = row0; r < row1; ++r) {
      C* const to = space + (r - row0) * width_ * in_.depth;
      if (r < 0 || r >= in_.rows || count <= 0) {
        std::fill_n(to, width_ * in_.depth, C(0));
        continue;
      }
      std::fill_n(to, before * in_.depth, C(0));
      CopyPixels(in_, image, r, first, count, to + before * in_.depth);
      std::fill(to + (before + count) * in_.depth, to + width_ * in_.depth, C(0));
    }
    return stage;
  }

 private:
  const Images<T> in_;
  const Axis &y_, &x_;
  bool direct_ = false;
  int64_t column0_ = 0, width_ = 0;
};

// Copies fewer elements than a tile is wide, without calling a function.
template <typename C>
void CopyFew(const C* from, int64_t count, C* to) {
  static_assert(kMostTilePanels * kPanel<C> <= 32);
  const auto copy = [&](auto size) {
    if ((count & size) == 0) return;
    std::memcpy(to, from, size * sizeof(C));
    from += size;
    to += size;
  };
  copy(std::integral_constant<int64_t, 16>());
  copy(std::integral_constant<int64_t, 8>());
  copy(std::integral_constant<int64_t, 4>());
  copy(std::integral_constant<int64_t, 2>());
  copy(std::integral_constant<int64_t, 1>());
}

// ---- Work ----

// Whether so many elements of a stage are within reason: beyond, places in it may not be numbers.
absl::Status CheckStage(double elements) {
  if (elements < 1e14) return absl::OkStatus();
  return ResourceExhausted("a band of the padded image needs ", elements, " elements");
}

// Scratch memory for a number of elements of C, which may be beyond reason.
template <typename C>
absl::StatusOr<C*> ScratchOf(KernelContext* c, double elements) {
  FERRY_RETURN_IF_ERROR(CheckStage(elements));
  FERRY_ASSIGN_OR_RETURN(void* space, c->Scratch(static_cast<size_t>(elements) * sizeof(C)));
  return static_cast<C*>(space);
}

double Flops(const ConvSizes& s) {
  return 2.0 * static_cast<double>(s.batch) * static_cast<double>(s.y.out * s.x.out) *
         static_cast<double>(s.y.window * s.x.window) *
         static_cast<double>(s.filter_depth * s.out_depth);
}

int64_t Workers(KernelContext* c, const ConvSizes& s, int64_t tasks) {
  if (Flops(s) < kFlopsWorthSplitting) return 1;
  return std::min<int64_t>(tasks, c->run()->pool->threads());
}

// Calls fn(task, worker) for each task; at most one call a worker at a time.
template <typename Fn>
void ForTasks(KernelContext* c, int64_t tasks, int64_t workers, const Fn& fn) {
  std::atomic<int64_t> next{0};
  c->ParallelFor(workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w) {
      for (int64_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) fn(t, w);
    }
  });
}

// Rows of a band: all those whose stage is small enough, and fewer where all threads would have
// too little to do.
template <typename S>
int64_t BandRows(KernelContext* c, const S& stager, const Axis& y, int64_t batch, int64_t columns,
                 int64_t bytes) {
  int64_t rows = y.out;
  if (!stager.direct()) {
    const double limit = static_cast<double>(kStageBytes) / static_cast<double>(bytes);
    while (rows > y.step && stager.Elements(rows) > limit) rows = DivideUp(rows, 2);
  }
  const int64_t wanted = 4 * static_cast<int64_t>(c->run()->pool->threads());
  if (batch * DivideUp(y.out, rows) < wanted) {
    const int64_t least = DivideUp(kFewPixels, columns);
    rows = std::min(rows, std::max(least, DivideUp(y.out, DivideUp(wanted, batch))));
  }
  return std::min(y.out, DivideUp(rows, y.step) * y.step);
}

// Writes channels-last rows [begin, end) of an image of `out`, which needn't be channels-last.
template <typename T, typename C>
void StoreRows(const C* from, int64_t begin, int64_t end, int64_t rows, int64_t columns,
               int64_t depth, bool channels_first, T* image) {
  const int64_t pixels = (end - begin) * columns;
  if (!channels_first) {
    T* const to = image + begin * columns * depth;
    if constexpr (std::is_same_v<T, C> || std::is_integral_v<T>) {
      std::copy_n(from, pixels * depth, to);
    } else {
      MutableArray<T>(to, pixels * depth) = ConstArray<C>(from, pixels * depth).template cast<T>();
    }
    return;
  }
  for (int64_t k = 0; k < depth; ++k) {
    T* const to = image + (k * rows + begin) * columns;
    for (int64_t i = 0; i < pixels; ++i) to[i] = static_cast<T>(from[i * depth + k]);
  }
}

// ---- y and dx ----

// The taps of one pair of phases: how their inputs lie, and where their packed filter does.
struct Part {
  const Phase *y, *x;
  absl::InlinedVector<Run, 16> runs;
  int64_t taps = 0;
  int64_t packed = 0;  // Elements before it.
};

// How the filter's elements lie as the gather sees them: element i, o of a tap and a group.
struct FilterLayout {
  int64_t tap, group, in, out;
};

template <typename T>
absl::Status Gather(KernelContext* c, const ConvSizes& s, const Axis& y, const Axis& x,
                    const Images<T>& in, const T* filter, const FilterLayout& layout,
                    int64_t out_depth, T* out) {
  using C = Compute<T>;
  const ConvTiles<C>& tiles = BestConvTiles<C>();
  const int64_t in_group = in.depth / s.groups, out_group = out_depth / s.groups;
  const int64_t panels = DivideUp(out_group, kPanel<C>);
  const Stager<T, C> stager(in, y, x);
  FERRY_RETURN_IF_ERROR(CheckStage(stager.Elements(1)));

  absl::InlinedVector<Part, 4> parts;
  int64_t packed_size = 0;
  for (const Phase& py : y.phases) {
    for (const Phase& px : x.phases) {
      Part part;
      part.y = &py;
      part.x = &px;
      part.packed = packed_size;
      for (const Tap& ty : py.taps) {
        for (const Tap& tx : px.taps) {
          const int64_t offset = (ty.offset * stager.width() + tx.offset) * in.depth;
          Run* const last = part.runs.empty() ? nullptr : &part.runs.back();
          if (last && s.groups == 1 && last->offset + last->length == offset) {
            last->length += in_group;
          } else {
            part.runs.push_back({offset, in_group});
          }
          ++part.taps;
        }
      }
      packed_size += part.taps * in_group * s.groups * panels * kPanel<C>;
      parts.push_back(std::move(part));
    }
  }

  const bool store = sizeof(T) != sizeof(C) || in.channels_first;
  const int64_t band = BandRows(c, stager, y, s.batch, x.out, static_cast<int64_t>(sizeof(C)));
  const int64_t bands = DivideUp(y.out, band), tasks = s.batch * bands;
  const int64_t workers = Workers(c, s, tasks);
  const int64_t stored = store ? Aligned<C>(band * x.out * out_depth) : 0;
  const double staged = stager.Elements(band) + kPanel<C>;
  FERRY_ASSIGN_OR_RETURN(
      C * space, ScratchOf<C>(c, static_cast<double>(packed_size) +
                                     static_cast<double>(workers) *
                                         (static_cast<double>(stored) + staged + kPanel<C>)));
  C* const packed = space;
  const int64_t slot = stored + Aligned<C>(static_cast<int64_t>(staged));

  // The filter in panels: [part][group][panel][tap, i][kPanel].
  for (const Part& part : parts) {
    const int64_t depth = part.taps * in_group;
    c->ParallelFor(
        s.groups * panels, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, depth * kPanel<C>)),
        [&](int64_t begin, int64_t end) {
          for (int64_t u = begin; u < end; ++u) {
            const int64_t g = u / panels, first = u % panels * kPanel<C>;
            const int64_t count = std::min(kPanel<C>, out_group - first);
            C* to = packed + part.packed + u * depth * kPanel<C>;
            for (const Tap& ty : part.y->taps) {
              for (const Tap& tx : part.x->taps) {
                const T* const tap = filter + (ty.number * s.x.window + tx.number) * layout.tap +
                                     g * layout.group + first * layout.out;
                for (int64_t i = 0; i < in_group; ++i, to += kPanel<C>) {
                  const T* const from = tap + i * layout.in;
                  for (int64_t o = 0; o < count; ++o) {
                    to[o] = static_cast<C>(from[o * layout.out]);
                  }
                  std::fill(to + count, to + kPanel<C>, C(0));
                }
              }
            }
          }
        });
  }

  ForTasks(c, tasks, workers, [&](int64_t task, int64_t worker) {
    const int64_t n = task / bands, begin = task % bands * band;
    const int64_t end = std::min(y.out, begin + band);
    C* const mine = space + packed_size + worker * slot;
    const Stage<C> stage = stager.Make(n, begin, end, mine + stored);
    T* const image = out + n * y.out * x.out * out_depth;
    C* const rows = store ? mine : reinterpret_cast<C*>(image + begin * x.out * out_depth);
    if (y.gaps || x.gaps) std::fill_n(rows, (end - begin) * x.out * out_depth, C(0));
    for (const Part& part : parts) {
      const auto [j0, j1] = InPhase(y, *part.y, begin, end);
      // Positions of neighbouring j's, in the stage and in the output.
      const int64_t a_step = x.mul * in.depth, a_row = y.mul * stage.width * in.depth;
      const int64_t to_step = x.step * out_depth, to_row = y.step * x.out * out_depth;
      int64_t width = part.x->count, height = j1 - j0;
      if (a_row == width * a_step && to_row == width * to_step) {
        width *= height;
        height = std::min<int64_t>(height, 1);
      }
      if (width <= 0 || height <= 0) continue;
      const int64_t in_tile = DivideUp(width, DivideUp(width, tiles.rows));
      const int64_t depth = part.taps * in_group;
      const C* const a =
          stage.data + ((j0 * y.mul - stage.row0) * stage.width - stage.column0) * in.depth;
      C* const to =
          rows + ((part.y->first + j0 * y.step - begin) * x.out + part.x->first) * out_depth;
      for (int64_t g = 0; g < s.groups; ++g) {
        for (int64_t p = 0; p < panels; p += tiles.panels) {
          const int64_t across = std::min<int64_t>(tiles.panels, panels - p);
          const C* const b = packed + part.packed + (g * panels + p) * depth * kPanel<C>;
          const int64_t first = p * kPanel<C>;
          const int64_t columns = std::min(across * kPanel<C>, out_group - first);
          for (int64_t j = 0; j < height; ++j) {
            for (int64_t i = 0; i < width; i += in_tile) {
              const int64_t count = std::min(in_tile, width - i);
              C* const at = to + j * to_row + i * to_step + g * out_group + first;
              const bool whole = columns == across * kPanel<C>;
              C tile[kMostTileRows * kMostTilePanels * kPanel<C>];
              tiles.gather[across - 1][count - 1](
                  a + j * a_row + i * a_step + g * in_group, a_step, part.runs.data(),
                  static_cast<int64_t>(part.runs.size()), b, depth * kPanel<C>, whole ? at : tile,
                  whole ? to_step : across * kPanel<C>);
              for (int64_t r = 0; !whole && r < count; ++r) {
                CopyFew(tile + r * across * kPanel<C>, columns, at + r * to_step);
              }
            }
          }
        }
      }
    }
    if (store) {
      StoreRows(rows, begin, end, y.out, x.out, out_depth, in.channels_first, image);
    }
  });
  return absl::OkStatus();
}

}  // namespace

template <typename T>
absl::Status Convolve(KernelContext* c, const ConvSizes& s, const T* x, const T* filter, T* y) {
  const int64_t tap = s.filter_depth * s.out_depth;
  return Gather<T>(c, s, ForwardAxis(s.y), ForwardAxis(s.x),
                   {x, s.y.in, s.x.in, s.in_depth, s.channels_first}, filter,
                   {tap, s.out_depth / s.groups, s.out_depth, 1}, s.out_depth, y);
}

template <typename T>
absl::Status ConvolveBack(KernelContext* c, const ConvSizes& s, const T* filter, const T* dy,
                          T* dx) {
  const int64_t tap = s.filter_depth * s.out_depth;
  return Gather<T>(c, s, BackwardAxis(s.y), BackwardAxis(s.x),
                   {dy, s.y.out, s.x.out, s.out_depth, s.channels_first}, filter,
                   {tap, s.out_depth / s.groups, 1, s.out_depth}, s.in_depth, dx);
}

// ---- The filter's gradient ----
//
// Each worker sums over bands of its own, always the same ones, into a filter of its own, laid out
// as [group][panel][tap, i][kPanel]; at the end these are added in order. Where filters are so
// large that not every worker can have one, several share the panels of one.
template <typename T>
absl::Status ConvolveFilter(KernelContext* c, const ConvSizes& s, const T* x, const T* dy,
                            T* dfilter) {
  using C = Compute<T>;
  const ConvTiles<C>& tiles = BestConvTiles<C>();
  const Axis y_axis = ForwardAxis(s.y), x_axis = ForwardAxis(s.x);
  const Images<T> in{x, s.y.in, s.x.in, s.in_depth, s.channels_first};
  const Images<T> grads{dy, s.y.out, s.x.out, s.out_depth, s.channels_first};
  const Stager<T, C> stager(in, y_axis, x_axis);
  FERRY_RETURN_IF_ERROR(CheckStage(stager.Elements(1)));
  const int64_t out_group = s.out_depth / s.groups;
  const int64_t panels = DivideUp(out_group, kPanel<C>);
  // Groups of neighbouring panels that a tile covers: the unit in which workers share a filter.
  const int64_t columns = s.groups * DivideUp(panels, tiles.panels);
  const int64_t depth = s.y.window * s.x.window * s.filter_depth;
  const int64_t filter_size = s.groups * panels * depth * kPanel<C>;

  int64_t band = std::clamp<int64_t>(kSpreadPixels / s.x.out, 1, s.y.out);
  while (band > 1 && stager.Elements(band) * sizeof(C) > kStageBytes) band = DivideUp(band, 2);
  const int64_t bands = DivideUp(s.y.out, band), units = s.batch * bands;
  const int64_t threads = Workers(c, s, units * columns);
  const int64_t filters = std::min(
      units, std::clamp<int64_t>(kPartialBytes / (filter_size * static_cast<int64_t>(sizeof(C))), 1,
                                 threads));
  const int64_t shares = std::min(columns, threads / filters);
  const int64_t workers = filters * shares;

  const int64_t pixels = band * s.x.out;
  const bool one_panel =
      std::is_same_v<T, C> && !s.channels_first && s.groups == 1 && s.out_depth == kPanel<C>;
  const int64_t packed = s.groups * panels * pixels * kPanel<C>;
  // Pixels of dy, channels last, on their way into panels.
  const int64_t row = Aligned<C>(s.x.out * s.out_depth);
  const double staged = stager.Elements(band) + 2 * kPanel<C>;
  FERRY_ASSIGN_OR_RETURN(
      C * space,
      ScratchOf<C>(c, static_cast<double>(filters) * static_cast<double>(filter_size) +
                          static_cast<double>(workers) *
                              (static_cast<double>(packed) + static_cast<double>(row) + staged)));
  const int64_t slot = packed + row + Aligned<C>(static_cast<int64_t>(staged) - kPanel<C>);

  // Taps that lie side by side make one run.
  absl::InlinedVector<Run, 16> runs;
  for (const Tap& ty : y_axis.phases[0].taps) {
    for (const Tap& tx : x_axis.phases[0].taps) {
      const int64_t offset = (ty.offset * stager.width() + tx.offset) * s.in_depth;
      if (!runs.empty() && s.groups == 1 && runs.back().offset + runs.back().length == offset) {
        runs.back().length += s.filter_depth;
      } else {
        runs.push_back({offset, s.filter_depth});
      }
    }
  }

  c->ParallelFor(workers, 1, [&](int64_t first_worker, int64_t last_worker) {
    for (int64_t w = first_worker; w < last_worker; ++w) {
      const int64_t f = w / shares, share = w % shares;
      const int64_t first_column = columns * share / shares;
      const int64_t last_column = columns * (share + 1) / shares;
      const int64_t across_groups = DivideUp(panels, tiles.panels);
      C* const filter = space + f * filter_size;
      C* const dy_panels = space + filters * filter_size + w * slot;
      C* const dy_row = dy_panels + packed;
      for (int64_t col = first_column; col < last_column; ++col) {
        const int64_t p = col % across_groups * tiles.panels;
        const int64_t at = col / across_groups * panels + p;
        std::fill_n(filter + at * depth * kPanel<C>,
                    std::min<int64_t>(tiles.panels, panels - p) * depth * kPanel<C>, C(0));
      }
      for (int64_t u = units * f / filters; u < units * (f + 1) / filters; ++u) {
        const int64_t n = u / bands, begin = u % bands * band;
        const int64_t end = std::min(s.y.out, begin + band);
        const Stage<C> stage = stager.Make(n, begin, end, dy_row + row);
        // dy in panels: [group][panel][pixel][kPanel]. One that is just a panel wide lies so.
        const C* dy_band = dy_panels;
        if constexpr (std::is_same_v<T, C>) {
          if (one_panel) dy_band = grads.image(n) + begin * s.x.out * kPanel<C>;
        }
        for (int64_t r = one_panel ? end : begin; r < end; ++r) {
          const C* from = dy_row;
          if constexpr (std::is_same_v<T, C>) {
            if (!s.channels_first) from = grads.image(n) + r * s.x.out * s.out_depth;
          }
          if (from == dy_row) CopyPixels(grads, grads.image(n), r, 0, s.x.out, dy_row);
          for (int64_t col = first_column; col < last_column; ++col) {
            const int64_t g = col / across_groups;
            const int64_t p0 = col % across_groups * tiles.panels;
            for (int64_t p = p0; p < std::min<int64_t>(panels, p0 + tiles.panels); ++p) {
              const int64_t count = std::min(kPanel<C>, out_group - p * kPanel<C>);
              C* to = dy_panels + ((g * panels + p) * pixels + (r - begin) * s.x.out) * kPanel<C>;
              const C* v = from + g * out_group + p * kPanel<C>;
              for (int64_t i = 0; i < s.x.out; ++i, to += kPanel<C>, v += s.out_depth) {
                if (count == kPanel<C>) {
                  std::copy_n(v, kPanel<C>, to);
                } else {
                  for (int64_t o = 0; o < kPanel<C>; ++o) to[o] = C(0);
                  CopyFew(v, count, to);
                }
              }
            }
          }
        }
        const int64_t a_row = s.y.stride * stage.width * s.in_depth;
        const int64_t a_step = s.x.stride * s.in_depth;
        const C* const a =
            stage.data +
            ((begin * s.y.stride - stage.row0) * stage.width - stage.column0) * s.in_depth;
        for (int64_t col = first_column; col < last_column; ++col) {
          const int64_t g = col / across_groups, p = col % across_groups * tiles.panels;
          const int64_t across = std::min<int64_t>(tiles.panels, panels - p);
          const C* const b = dy_band + (g * panels + p) * pixels * kPanel<C>;
          C* to = filter + (g * panels + p) * depth * kPanel<C>;
          for (const Run& run : runs) {
            const int64_t in_tile = DivideUp(run.length, DivideUp(run.length, tiles.rows));
            for (int64_t k = 0; k < run.length; k += in_tile) {
              const int64_t count = std::min(in_tile, run.length - k);
              tiles.spread[across - 1][count - 1](a + run.offset + k + g * s.filter_depth, a_row,
                                                  a_step, end - begin, s.x.out, b,
                                                  pixels * kPanel<C>, to, depth * kPanel<C>);
              to += count * kPanel<C>;
            }
          }
        }
      }
    }
  });

  // The workers' filters, added in order.
  c->ParallelFor(depth, std::max<int64_t>(1, 16384 / s.out_depth),
                 [&](int64_t first, int64_t last) {
                   for (int64_t k = first; k < last; ++k) {
                     for (int64_t g = 0; g < s.groups; ++g) {
                       for (int64_t p = 0; p < panels; ++p) {
                         const C* from = space + ((g * panels + p) * depth + k) * kPanel<C>;
                         C sums[kPanel<C>];
                         std::copy_n(from, kPanel<C>, sums);
                         for (int64_t f = 1; f < filters; ++f) {
                           from += filter_size;
                           for (int64_t o = 0; o < kPanel<C>; ++o) sums[o] += from[o];
                         }
                         const int64_t o0 = p * kPanel<C>;
                         T* const to = dfilter + k * s.out_depth + g * out_group + o0;
                         const int64_t count = std::min(kPanel<C>, out_group - o0);
                         for (int64_t o = 0; o < count; ++o) to[o] = static_cast<T>(sums[o]);
                       }
                     }
                   }
                 });
  return absl::OkStatus();
}

#define FERRY_CONVOLVE(T)                                                                       \
  template absl::Status Convolve(KernelContext*, const ConvSizes&, const T*, const T*, T*);     \
  template absl::Status ConvolveBack(KernelContext*, const ConvSizes&, const T*, const T*, T*); \
  template absl::Status ConvolveFilter(KernelContext*, const ConvSizes&, const T*, const T*, T*);
FERRY_CONVOLVE(half)
FERRY_CONVOLVE(bfloat16)
FERRY_CONVOLVE(float)
FERRY_CONVOLVE(double)
FERRY_CONVOLVE(int32_t)
#undef FERRY_CONVOLVE

}  // namespace ferry
