// Combining, reducing and placing rows by index, on a GPU (gpu_array.h).
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/gpu_rows.cuh"
#include "kernels/gpu_storage.cuh"

namespace ferry {
namespace gpu {
namespace {

// ---- Arithmetic ----

// The greatest finite number.
template <typename T>
constexpr Wide<T> kGreatest = std::numeric_limits<T>::max();
template <>
constexpr float kGreatest<half> = 65504.0f;
template <>
constexpr float kGreatest<bfloat16> = 3.38953138925153547590e38f;
template <typename T>
constexpr Wide<T> kLowest = std::is_integral_v<T> ? std::numeric_limits<Wide<T>>::min()
                                                  : -kGreatest<T>;

// As accumulate.h has it on the CPU: a NaN that comes second changes no minimum and no maximum.
template <typename T>
__device__ Wide<T> Combined(RowOp op, Wide<T> a, Wide<T> b) {
  if (op == RowOp::kMin) return b < a ? b : a;
  if (op == RowOp::kMax) return a < b ? b : a;
  if constexpr (std::is_integral_v<T>) {
    using U = Sum<Unsigned<T>>;
    if (op == RowOp::kAdd) return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    if (op == RowOp::kSub) return static_cast<T>(static_cast<U>(a) - static_cast<U>(b));
    return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
  } else {
    if (op == RowOp::kAdd) return a + b;
    if (op == RowOp::kSub) return a - b;
    return op == RowOp::kDiv ? a / b : a * b;
  }
}

// ---- Updates, one after the other ----

// A thread has one column of one row that is updated, and all its updates.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    CombineKernel(RowOp op, T* to, const T* updates, bool scalar, const Rows r) {
  for (int64_t i = First(); i < r.n * r.size; i += Step()) {
    int64_t p = i / r.size;
    const int64_t column = i - p * r.size;
    if (!r.Starts(p)) continue;
    const uint32_t row = r.keys[p];
    T now = to[row * r.size + column];
    do {
      const T by = updates[scalar ? 0 : r.From(p) * r.size + column];
      now = Narrow<T>(Combined<T>(op, Widen(now), Widen(by)));
      ++p;
    } while (p < r.n && r.keys[p] == row);
    to[row * r.size + column] = now;
  }
}

// The last of a row's updates is the one that stays.
template <typename Unit>
__global__ void __launch_bounds__(kThreads)
    ReplaceKernel(Unit* to, const Unit* updates, bool scalar, const Rows r) {
  for (int64_t i = First(); i < r.n * r.size; i += Step()) {
    const int64_t p = i / r.size;
    const int64_t column = i - p * r.size;
    if (!r.Ends(p)) continue;
    to[r.keys[p] * r.size + column] = updates[scalar ? 0 : r.From(p) * r.size + column];
  }
}

// Calls fn(T*) (a null pointer, for its type) with the type of numbers; false after an error.
template <typename Fn>
bool WithNumber(Call* c, DType dtype, Fn fn) {
  switch (dtype) {
    case DType::kHalf:
      return fn(static_cast<half*>(nullptr));
    case DType::kBfloat16:
      return fn(static_cast<bfloat16*>(nullptr));
    case DType::kFloat:
      return fn(static_cast<float*>(nullptr));
    case DType::kDouble:
      return fn(static_cast<double*>(nullptr));
    case DType::kInt8:
      return fn(static_cast<int8_t*>(nullptr));
    case DType::kInt16:
      return fn(static_cast<int16_t*>(nullptr));
    case DType::kInt32:
      return fn(static_cast<int32_t*>(nullptr));
    case DType::kInt64:
      return fn(static_cast<int64_t*>(nullptr));
    case DType::kUint8:
      return fn(static_cast<uint8_t*>(nullptr));
    case DType::kUint16:
      return fn(static_cast<uint16_t*>(nullptr));
    case DType::kUint32:
      return fn(static_cast<uint32_t*>(nullptr));
    case DType::kUint64:
      return fn(static_cast<uint64_t*>(nullptr));
    default:
      return c->Fail(Error::kUnimplemented, "arithmetic on rows of this type, on a GPU");
  }
}

// The widest elements, of 16 bytes at most, that rows of `inner` elements can be moved in.
int WidthOfRows(int width, int64_t inner, const void* a, const void* b) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) |
                        static_cast<uint64_t>(inner * width);
  return static_cast<int>(std::min<uint64_t>(16, bits & (~bits + 1)));
}

bool Combine(Call* c, const CombineRows& u) {
  if (u.indices.n == 0 || u.inner == 0 || u.rows == 0) return true;
  Rows rows;
  if (!SortRows(c, u.indices, u.rows, u.inner, &rows)) return false;
  if (u.op == RowOp::kReplace) {
    const int width = u.width;
    const int wide = u.scalar ? width : WidthOfRows(width, u.inner, u.to, u.updates);
    rows.size /= wide / width;
    WithElement(wide, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      ReplaceKernel<T><<<Blocks(c, rows.n * rows.size), kThreads, 0, Stream(c)>>>(
          static_cast<T*>(u.to), static_cast<const T*>(u.updates), u.scalar, rows);
    });
    return c->Launched("ReplaceKernel");
  }
  return WithNumber(c, u.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    CombineKernel<T><<<Blocks(c, rows.n * rows.size), kThreads, 0, Stream(c)>>>(
        u.op, static_cast<T*>(u.to), static_cast<const T*>(u.updates), u.scalar, rows);
    return c->Launched("CombineKernel");
  });
}

// ---- Reductions ----
//
// kChunk neighbours at a time, of the rows in the order of where they go, are reduced by one thread
// a column. What reaches over several chunks is put together at the end.

constexpr int kChunk = 64;

template <typename T>
struct RowReducer {
  RowOp op;
  bool from_limits;
  ReduceRows::Scale scale;
  const T* data;
  T* out;
  const uint32_t* counts;

  __device__ static Wide<T> Divided(Wide<T> x, ReduceRows::Scale scale, int64_t count) {
    if constexpr (std::is_floating_point_v<Wide<T>>) {
      if (scale == ReduceRows::kMean) return x / static_cast<Wide<T>>(count);
      if (scale == ReduceRows::kSqrtN) {
        return x / static_cast<Wide<T>>(sqrt(static_cast<double>(count)));
      }
    }
    return x;
  }
  __device__ Wide<T> Term(const Rows& r, int64_t p, int64_t column) const {
    const Wide<T> x = Widen(data[r.From(p) * r.size + column]);
    return counts ? Divided(x, scale, counts[p]) : x;
  }
  // What a part of a row's terms starts with; `begins`: it is the first.
  __device__ Wide<T> Start(Wide<T> x, bool begins) const {
    if (op != RowOp::kMin && op != RowOp::kMax) return x;
    if (begins && !from_limits) return x;
    Wide<T> limit = op == RowOp::kMin ? kGreatest<T> : kLowest<T>;
    if constexpr (std::is_floating_point_v<Wide<T>>) {
      // What changes nothing.
      if (!begins) limit = static_cast<Wide<T>>(op == RowOp::kMin ? INFINITY : -INFINITY);
    }
    return Combined<T>(op, limit, x);
  }
  __device__ void Store(const Rows& r, uint32_t key, int64_t column, Wide<T> x) const {
    if (scale != ReduceRows::kNone && !counts) {
      x = Divided(x, scale, Below(r, key + 1) - Below(r, key));
    }
    out[key * r.size + column] = Narrow<T>(x);
  }
  // How many rows go to rows before `key`.
  __device__ static int64_t Below(const Rows& r, uint32_t key) {
    int64_t low = 0, high = r.n;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (r.keys[middle] < key) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ReduceChunksKernel(const RowReducer<T> f, const Rows r, Wide<T>* lead, Wide<T>* tail) {
  const int64_t chunks = (r.n + kChunk - 1) / kChunk;
  for (int64_t e = First(); e < chunks * r.size; e += Step()) {
    const int64_t chunk = e / r.size, column = e - chunk * r.size;
    const int64_t end = (chunk + 1) * kChunk < r.n ? (chunk + 1) * kChunk : r.n;
    int64_t p = chunk * kChunk;
    while (p < end && r.keys[p] < r.rows) {
      const uint32_t key = r.keys[p];
      const bool begins = r.Starts(p);
      Wide<T> x = f.Start(f.Term(r, p, column), begins);
      for (++p; p < end && r.keys[p] == key; ++p) x = Combined<T>(f.op, x, f.Term(r, p, column));
      if (!begins) {
        lead[e] = x;  // Of what began in a chunk before.
      } else if (!r.Ends(p - 1)) {
        tail[e] = x;  // Of what goes on in the next.
      } else {
        f.Store(r, key, column, x);
      }
    }
  }
}

// Of what begins in one chunk and ends in another.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    JoinChunksKernel(const RowReducer<T> f, const Rows r, const Wide<T>* lead,
                     const Wide<T>* tail) {
  const int64_t chunks = (r.n + kChunk - 1) / kChunk;
  for (int64_t e = First(); e < (chunks - 1) * r.size; e += Step()) {
    const int64_t chunk = e / r.size, column = e - chunk * r.size;
    const int64_t begin = chunk * kChunk, end = begin + kChunk;
    const uint32_t key = r.keys[end - 1];
    if (r.Ends(end - 1) || key >= r.rows) continue;
    if (begin > 0 && r.keys[begin - 1] == key) continue;  // It began before.
    Wide<T> x = tail[e];
    for (int64_t k = chunk + 1; k < chunks && r.keys[k * kChunk] == key; ++k) {
      x = Combined<T>(f.op, x, lead[k * r.size + column]);
    }
    f.Store(r, key, column, x);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) FillKernel(T* to, int64_t n, T value) {
  for (int64_t i = First(); i < n; i += Step()) to[i] = value;
}

// What each chunk leaves for the others, in device memory.
int64_t PartialBytes(int64_t n, int64_t inner) {
  return 2 * ((n + kChunk - 1) / kChunk) * inner * int64_t{sizeof(double)};
}

// `rows` null: there are none.
bool ReduceSorted(Call* c, const ReduceRows& a, const Rows* rows, const uint32_t* counts,
                  void* partial) {
  return WithNumber(c, a.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    T* const out = static_cast<T*>(a.out);
    Wide<T> none = a.op == RowOp::kMul ? 1 : 0;
    if (a.from_limits && a.op == RowOp::kMin) none = kGreatest<T>;
    if (a.from_limits && a.op == RowOp::kMax) none = kLowest<T>;
    FillKernel<T><<<Blocks(c, a.rows * a.inner), kThreads, 0, Stream(c)>>>(out, a.rows * a.inner,
                                                                           Narrow<T>(none));
    if (!c->Launched("FillKernel")) return false;
    if (!rows) return true;
    const int64_t chunks = (rows->n + kChunk - 1) / kChunk;
    const RowReducer<T> f = {a.op, a.from_limits, a.scale, static_cast<const T*>(a.data),
                             out,  counts};
    Wide<T>* const lead = static_cast<Wide<T>*>(partial);
    Wide<T>* const tail = lead + chunks * a.inner;
    const unsigned blocks = Blocks(c, chunks * a.inner);
    ReduceChunksKernel<T><<<blocks, kThreads, 0, Stream(c)>>>(f, *rows, lead, tail);
    if (!c->Launched("ReduceChunksKernel")) return false;
    if (chunks == 1) return true;
    JoinChunksKernel<T><<<blocks, kThreads, 0, Stream(c)>>>(f, *rows, lead, tail);
    return c->Launched("JoinChunksKernel");
  });
}

bool Reduce(Call* c, const ReduceRows& a, const NdIndices& indices) {
  if (a.rows == 0 || a.inner == 0) return true;
  if (indices.n == 0) return ReduceSorted(c, a, nullptr, nullptr, nullptr);
  Rows rows;
  void* partial = nullptr;
  return SortRows(c, indices, a.rows, a.inner, &rows, PartialBytes(indices.n, a.inner), &partial) &&
         ReduceSorted(c, a, &rows, nullptr, partial);
}

// ---- Numbers from the host ----

constexpr int kMostSent = 960;
struct Sent {
  uint32_t v[kMostSent];
};
__global__ void __launch_bounds__(kThreads) SendKernel(const Sent from, int n, uint32_t* to) {
  const int64_t i = First();
  if (i < n) to[i] = from.v[i];
}

bool Send(Call* c, const uint32_t* from, int64_t n, uint32_t* to) {
  for (int64_t done = 0; done < n; done += kMostSent) {
    const int now = static_cast<int>(std::min<int64_t>(kMostSent, n - done));
    Sent some = {};
    std::copy_n(from + done, now, some.v);
    SendKernel<<<Blocks(c, now), kThreads, 0, Stream(c)>>>(some, now, to + done);
    if (!c->Launched("SendKernel")) return false;
  }
  return true;
}

bool ReduceHostRows(Call* c, const ReduceRows& a, const HostRows& host) {
  if (a.rows == 0 || a.inner == 0) return true;
  if (host.n == 0) return ReduceSorted(c, a, nullptr, nullptr, nullptr);
  if (!CheckCounts(c, host.n, a.rows)) return false;
  const int64_t partial_bytes = PartialBytes(host.n, a.inner);
  char* const space =
      static_cast<char*>(c->Scratch(partial_bytes + 3 * host.n * int64_t{sizeof(uint32_t)}));
  if (!space) return false;
  uint32_t* const keys = reinterpret_cast<uint32_t*>(space + partial_bytes);
  uint32_t *const from = keys + host.n, *const counts = from + host.n;
  if (!Send(c, host.to, host.n, keys) || (host.from && !Send(c, host.from, host.n, from)) ||
      (host.counts && !Send(c, host.counts, host.n, counts))) {
    return false;
  }
  const Rows rows = {keys, host.from ? from : nullptr, host.n, a.rows, a.inner};
  return ReduceSorted(c, a, &rows, host.counts ? counts : nullptr, space);
}

// ---- Places ----

template <typename Unit>
__global__ void __launch_bounds__(kThreads)
    PlaceKernel(const uint32_t* rows, int64_t n, int64_t inner, const Unit* from, Unit* to) {
  for (int64_t i = First(); i < n * inner; i += Step()) {
    const int64_t row = i / inner, column = i - row * inner;
    if (rows[row] != 0xffffffffu) to[rows[row] * inner + column] = from[i];
  }
}

bool Place(Call* c, int width, const uint32_t* rows, int64_t n, int64_t inner, const void* from,
           void* to) {
  if (n == 0 || inner == 0) return true;
  const int wide = WidthOfRows(width, inner, from, to);
  inner /= wide / width;
  WithElement(wide, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    PlaceKernel<T><<<Blocks(c, n * inner), kThreads, 0, Stream(c)>>>(
        rows, n, inner, static_cast<const T*>(from), static_cast<T*>(to));
  });
  return c->Launched("PlaceKernel");
}

[[maybe_unused]] const bool registered = [] {
  Array().combine_rows = &Combine;
  Array().reduce_rows = &Reduce;
  Array().reduce_host_rows = &ReduceHostRows;
  Array().place_rows = &Place;
  Array().send = &Send;
  return true;
}();

}  // namespace
}  // namespace gpu
}  // namespace ferry
