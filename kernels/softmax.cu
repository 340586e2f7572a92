// Softmax, LogSoftmax and the cross entropies of softmax with labels, on a GPU; softmax.cc has the
// formulas. A group of threads has a row, and goes over it three times: for the greatest logit, for
// the sum, and to write. half and bfloat16 are computed as float.
//
// A label out of range can't be told of from the device: it makes its row's loss and gradient NaN,
// as TensorFlow's GPU kernel does.
#include "kernels/gpu_checks.h"
#include "kernels/gpu_group.cuh"

namespace ferry {
namespace gpu {
namespace {

template <typename C>
__device__ C NegativeInfinity() {
  if constexpr (std::is_same_v<C, float>) {
    return __int_as_float(0xff800000);
  } else {
    return __longlong_as_double(0xfff0000000000000);
  }
}
template <typename C>
__device__ C NotANumber() {
  if constexpr (std::is_same_v<C, float>) {
    return __int_as_float(0x7fc00000);
  } else {
    return __longlong_as_double(0x7ff8000000000000);
  }
}

struct MaxF {
  template <typename C>
  __device__ C operator()(C x, C y) const {
    return x > y ? x : y;
  }
};
struct SumF {
  template <typename C>
  __device__ C operator()(C x, C y) const {
    return x + y;
  }
};

// Calls f(j, x[j]) for the lane's share of a row, in whole vectors if `vectors`: then rows begin at
// 16-byte addresses and consist of vectors.
template <typename T, typename F>
__device__ void ForRow(const T* x, int64_t columns, const Group& g, bool vectors, const F& f) {
  constexpr int kN = kVector<T>;
  if (vectors) {
    for (int64_t i = g.lane; i < columns / kN; i += g.lanes) {
      const Vector<T> v = reinterpret_cast<const Vector<T>*>(x)[i];
#pragma unroll
      for (int k = 0; k < kN; ++k) f(Widen(v.v[k]));
    }
  } else {
    for (int64_t j = g.lane; j < columns; j += g.lanes) f(Widen(x[j]));
  }
}
// y[j] = f(x[j]). y may be x.
template <typename T, typename F>
__device__ void MapRow(const T* x, T* y, int64_t columns, const Group& g, bool vectors,
                       const F& f) {
  constexpr int kN = kVector<T>;
  if (vectors) {
    for (int64_t i = g.lane; i < columns / kN; i += g.lanes) {
      Vector<T> v = reinterpret_cast<const Vector<T>*>(x)[i];
#pragma unroll
      for (int k = 0; k < kN; ++k) v.v[k] = Narrow<T>(f(Widen(v.v[k])));
      reinterpret_cast<Vector<T>*>(y)[i] = v;
    }
  } else {
    for (int64_t j = g.lane; j < columns; j += g.lanes) y[j] = Narrow<T>(f(Widen(x[j])));
  }
}

template <typename C>
struct RowSums {
  C most;  // The row's greatest logit.
  C sum;   // Of exp(logit - most).
};
// `rows`: whether the group has a row, `x`. Every thread of the block calls this.
template <typename T>
__device__ RowSums<Wide<T>> SumRow(const T* x, bool row, int64_t columns, const Group& g,
                                   bool vectors, Shared<Wide<T>>* shared) {
  using C = Wide<T>;
  C most = NegativeInfinity<C>();
  if (row) {
    ForRow(x, columns, g, vectors, [&](C v) { most = v > most ? v : most; });
  }
  most = g.Combine(most, MaxF(), shared);
  C sum = C(0);
  if (row) {
    ForRow(x, columns, g, vectors, [&](C v) { sum += exp(v - most); });
  }
  return {most, g.Combine(sum, SumF(), shared)};
}

// Whether rows may be read as vectors at these addresses.
template <typename T>
bool RowsAligned(int64_t columns, const void* x, const void* y) {
  return columns % kVector<T> == 0 && Aligned(x, y);
}

template <typename T>
int SoftmaxLanes(int64_t columns, bool vectors) {
  return GroupLanes(vectors ? columns / kVector<T> * 2 : columns);
}

// ---- Softmax, LogSoftmax ----

template <typename T, bool kLog>
__global__ void __launch_bounds__(kThreads)
    SoftmaxKernel(const T* x, T* y, int64_t rows, int64_t columns, int lanes, bool vectors) {
  using C = Wide<T>;
  __shared__ Shared<C> shared;
  const Group g(lanes);
  for (int64_t r = g.FirstRow(); r < g.Rows(rows); r += g.RowStep()) {
    const T* const from = x + r * columns;
    const RowSums<C> s = SumRow(from, r < rows, columns, g, vectors, &shared);
    if (r >= rows) continue;
    if (kLog) {
      const C log_sum = log(s.sum);
      MapRow(from, y + r * columns, columns, g, vectors, [&](C v) { return v - s.most - log_sum; });
    } else {
      const C inverse = C(1) / s.sum;
      MapRow(from, y + r * columns, columns, g, vectors,
             [&](C v) { return exp(v - s.most) * inverse; });
    }
  }
}

template <typename T, bool kLog>
class SoftmaxOf : public Kernel {
  bool Run(Call* c) const override {
    if (!CheckSoftmax(c)) return false;
    const Input x = c->input(0);
    T* const y = static_cast<T*>(c->OutputLike(0, 0));
    if (!y) return false;
    if (x.elements == 0) return true;
    const int64_t columns = x.dims[x.rank - 1], rows = x.elements / columns;
    const bool vectors = RowsAligned<T>(columns, x.data, y);
    const int lanes = SoftmaxLanes<T>(columns, vectors);
    SoftmaxKernel<T, kLog><<<GroupBlocks(c, rows, lanes), kThreads, 0, Stream(c)>>>(
        x.as<T>(), y, rows, columns, lanes, vectors);
    return c->Launched("SoftmaxKernel");
  }
};

template <typename T>
using Softmax = SoftmaxOf<T, false>;
template <typename T>
using LogSoftmax = SoftmaxOf<T, true>;

// ---- Cross entropy with a distribution for each row ----

// How far apart the rows and columns of a matrix lie that is broadcast: 0 where it is.
struct Strides {
  int64_t row = 0, column = 0;
  explicit Strides(const Input& in) {
    const int64_t columns = in.rank >= 1 ? in.dims[in.rank - 1] : 1;
    if (columns > 1) column = 1;
    if (in.rank == 2 && in.dims[0] > 1) row = columns;
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(const T* x, const Strides at_x, const T* p, const Strides at_p, T* loss,
                       T* backprop, int64_t rows, int64_t columns, int lanes) {
  using C = Wide<T>;
  __shared__ Shared<C> shared;
  const Group g(lanes);
  for (int64_t r = g.FirstRow(); r < g.Rows(rows); r += g.RowStep()) {
    const T* const logits = x + r * at_x.row;
    const T* const labels = p + r * at_p.row;
    C most = NegativeInfinity<C>(), sum = C(0), total = C(0);
    if (r < rows) {
      for (int64_t j = g.lane; j < columns; j += g.lanes) {
        most = MaxF()(most, Widen(logits[j * at_x.column]));
      }
    }
    most = g.Combine(most, MaxF(), &shared);
    if (r < rows) {
      for (int64_t j = g.lane; j < columns; j += g.lanes) {
        sum += exp(Widen(logits[j * at_x.column]) - most);
      }
    }
    sum = g.Combine(sum, SumF(), &shared);
    if (r < rows) {
      const C log_sum = log(sum), inverse = C(1) / sum;
      for (int64_t j = g.lane; j < columns; j += g.lanes) {
        const C shifted = Widen(logits[j * at_x.column]) - most;
        const C label = Widen(labels[j * at_p.column]);
        total += label * (log_sum - shifted);
        backprop[r * columns + j] = Narrow<T>(exp(shifted) * inverse - label);
      }
    }
    total = g.Combine(total, SumF(), &shared);
    if (r < rows && g.lane == 0) loss[r] = Narrow<T>(total);
  }
}

template <typename T>
class CrossEntropy : public Kernel {
  bool Run(Call* c) const override {
    int64_t rows = 0, columns = 0;
    if (!CheckCrossEntropy(c, &rows, &columns)) return false;
    T* const loss = static_cast<T*>(c->Output(0, {rows}));
    T* const backprop = static_cast<T*>(c->Output(1, {rows, columns}));
    if (!loss || !backprop) return false;
    if (rows == 0) return true;
    if (columns == 0) return c->Fill(loss, 0, rows * static_cast<int64_t>(sizeof(T)));
    const Input x = c->input(0), p = c->input(1);
    const int lanes = GroupLanes(columns);
    CrossEntropyKernel<T><<<GroupBlocks(c, rows, lanes), kThreads, 0, Stream(c)>>>(
        x.as<T>(), Strides(x), p.as<T>(), Strides(p), loss, backprop, rows, columns, lanes);
    return c->Launched("CrossEntropyKernel");
  }
};

// ---- Cross entropy with one class for each row ----

template <typename T, typename Label>
__global__ void __launch_bounds__(kThreads)
    SparseCrossEntropyKernel(const T* x, const Label* labels, T* loss, T* backprop, int64_t rows,
                             int64_t columns, int lanes, bool vectors) {
  using C = Wide<T>;
  __shared__ Shared<C> shared;
  const Group g(lanes);
  for (int64_t r = g.FirstRow(); r < g.Rows(rows); r += g.RowStep()) {
    const T* const logits = x + r * columns;
    const RowSums<C> s = SumRow(logits, r < rows, columns, g, vectors, &shared);
    if (r >= rows) continue;
    const int64_t label = labels[r];
    const bool valid = label >= 0 && label < columns;
    const C inverse = valid ? C(1) / s.sum : NotANumber<C>();
    T* const to = backprop + r * columns;
    for (int64_t j = g.lane; j < columns; j += g.lanes) {
      const C softmax = exp(Widen(logits[j]) - s.most) * inverse;
      to[j] = Narrow<T>(j == label ? softmax - C(1) : softmax);
    }
    if (g.lane == 0) {
      loss[r] = Narrow<T>(valid ? log(s.sum) - (Widen(logits[label]) - s.most) : NotANumber<C>());
    }
  }
}

template <typename T>
class SparseCrossEntropy : public Kernel {
  bool Run(Call* c) const override {
    if (!CheckSparseCrossEntropy(c)) return false;
    const Input x = c->input(0), labels = c->input(1);
    T* const loss = static_cast<T*>(c->OutputLike(0, 1));
    T* const backprop = static_cast<T*>(c->OutputLike(1, 0));
    if (!loss || !backprop) return false;
    const int64_t rows = x.dims[0], columns = x.dims[1];
    if (rows == 0) return true;
    const bool vectors = RowsAligned<T>(columns, x.data, nullptr);
    const int lanes = SoftmaxLanes<T>(columns, vectors);
    const unsigned blocks = GroupBlocks(c, rows, lanes);
    if (labels.dtype == DType::kInt32) {
      SparseCrossEntropyKernel<T, int32_t><<<blocks, kThreads, 0, Stream(c)>>>(
          x.as<T>(), labels.as<int32_t>(), loss, backprop, rows, columns, lanes, vectors);
    } else {
      SparseCrossEntropyKernel<T, int64_t><<<blocks, kThreads, 0, Stream(c)>>>(
          x.as<T>(), labels.as<int64_t>(), loss, backprop, rows, columns, lanes, vectors);
    }
    return c->Launched("SparseCrossEntropyKernel");
  }
};

const Options kInPlace = {{0}, {}};
[[maybe_unused]] const bool registered =
    Register<Softmax, FERRY_GPU_FLOATS>("Softmax", "T", kInPlace) &&
    Register<LogSoftmax, FERRY_GPU_FLOATS>("LogSoftmax", "T", kInPlace) &&
    Register<CrossEntropy, FERRY_GPU_FLOATS>("SoftmaxCrossEntropyWithLogits", "T") &&
    Register<SparseCrossEntropy, FERRY_GPU_FLOATS>("SparseSoftmaxCrossEntropyWithLogits", "T");

}  // namespace
}  // namespace gpu
}  // namespace ferry
