// MaxPool, AvgPool and their gradients on a GPU: a thread an element of the output. Gradients are
// gathered, window by window in order, so no two threads add to the same element.
#include <string>
#include <vector>

#include "kernels/gpu.cuh"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_window.cuh"

namespace ferry {
namespace gpu {
namespace {

// An element's place: channel, column, row, image.
struct Place {
  int64_t n, y, x, k;
  __device__ Place(int64_t i, int64_t rows, int64_t columns, int64_t depth) {
    const int64_t pixel = Divide(i, depth), line = Divide(pixel, columns);
    k = i - pixel * depth;
    x = pixel - line * columns;
    n = Divide(line, rows);
    y = line - n * rows;
  }
};

// The cells of window i that lie in the image.
struct Cells {
  int64_t begin, end;
  __device__ Cells(const WindowAxis& a, int64_t i) : begin(i * a.stride - a.before) {
    end = begin + a.window;
    if (begin < 0) begin = 0;
    if (end > a.in) end = a.in;
  }
};

// The windows that position i lies in.
struct Covering {
  int64_t begin, end;
  __device__ Covering(const WindowAxis& a, int64_t i) {
    const int64_t at = i + a.before;
    begin = at < a.window ? 0 : Divide(at - a.window, a.stride) + 1;
    end = Divide(at, a.stride) + 1;
    if (end > a.out) end = a.out;
  }
};

// Where the greatest element of a window lies: the first of equal ones.
template <typename T>
__device__ int64_t Greatest(const PoolSizes& s, const T* x, int64_t n, int64_t oy, int64_t ox,
                            int64_t k) {
  const Cells rows(s.y, oy), columns(s.x, ox);
  int64_t best_at = 0;
  Wide<T> best = 0;
  bool first = true;
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      const int64_t at = ((n * s.y.in + y) * s.x.in + c) * s.depth + k;
      const Wide<T> v = Widen(x[at]);
      if (first || v > best) {
        best = v;
        best_at = at;
      }
      first = false;
    }
  }
  return best_at;
}

// What no finite element is below.
template <typename T>
__device__ Wide<T> Lowest() {
  if constexpr (std::is_same_v<T, half>) {
    return -65504.0f;
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    return -3.38953138925153547590e38f;
  } else if constexpr (std::is_same_v<T, float>) {
    return -3.402823466385288598e38f;
  } else {
    return -1.7976931348623157e308;
  }
}

// The greatest element itself. NaN never is, and the lowest number is what's left of infinite ones.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    TakeMaximum(const T* x, T* out, PoolSizes s, int64_t elements) {
  for (int64_t i = First(); i < elements; i += Step()) {
    const Place p(i, s.y.out, s.x.out, s.depth);
    const Cells rows(s.y, p.y), columns(s.x, p.x);
    Wide<T> best = Lowest<T>();
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      for (int64_t c = columns.begin; c < columns.end; ++c) {
        const Wide<T> v = Widen(x[((p.n * s.y.in + y) * s.x.in + c) * s.depth + p.k]);
        if (v > best) best = v;
      }
    }
    out[i] = Narrow<T>(best);
  }
}

// out = the element of `from` where x has its greatest.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    TakeGreatest(const T* x, const T* from, T* out, PoolSizes s, int64_t elements) {
  for (int64_t i = First(); i < elements; i += Step()) {
    const Place p(i, s.y.out, s.x.out, s.depth);
    out[i] = from[Greatest(s, x, p.n, p.y, p.x, p.k)];
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    GiveGreatest(const T* x, const T* dy, T* dx, PoolSizes s, int64_t elements) {
  for (int64_t i = First(); i < elements; i += Step()) {
    const Place p(i, s.y.in, s.x.in, s.depth);
    const Covering rows(s.y, p.y), columns(s.x, p.x);
    Wide<T> sum = 0;
    for (int64_t oy = rows.begin; oy < rows.end; ++oy) {
      for (int64_t ox = columns.begin; ox < columns.end; ++ox) {
        if (Greatest(s, x, p.n, oy, ox, p.k) != i) continue;
        sum += Widen(dy[((p.n * s.y.out + oy) * s.x.out + ox) * s.depth + p.k]);
      }
    }
    dx[i] = Narrow<T>(sum);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    TakeMean(const T* x, T* out, PoolSizes s, int64_t elements) {
  for (int64_t i = First(); i < elements; i += Step()) {
    const Place p(i, s.y.out, s.x.out, s.depth);
    const Cells rows(s.y, p.y), columns(s.x, p.x);
    Wide<T> sum = 0;
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      for (int64_t c = columns.begin; c < columns.end; ++c) {
        sum += Widen(x[((p.n * s.y.in + y) * s.x.in + c) * s.depth + p.k]);
      }
    }
    const int64_t count = (rows.end - rows.begin) * (columns.end - columns.begin);
    out[i] = Narrow<T>(sum / static_cast<Wide<T>>(count));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    GiveMean(const T* dy, T* dx, PoolSizes s, int64_t elements) {
  for (int64_t i = First(); i < elements; i += Step()) {
    const Place p(i, s.y.in, s.x.in, s.depth);
    const Covering rows(s.y, p.y), columns(s.x, p.x);
    Wide<T> sum = 0;
    for (int64_t oy = rows.begin; oy < rows.end; ++oy) {
      const Cells y(s.y, oy);
      for (int64_t ox = columns.begin; ox < columns.end; ++ox) {
        const Cells c(s.x, ox);
        const int64_t count = (y.end - y.begin) * (c.end - c.begin);
        sum += Widen(dy[((p.n * s.y.out + oy) * s.x.out + ox) * s.depth + p.k]) /
               static_cast<Wide<T>>(count);
      }
    }
    dx[i] = Narrow<T>(sum);
  }
}

template <typename T, PoolOp kOp, bool kV2 = false>
class Pool : public Kernel {
  bool Init(Setup* setup) override {
    if (!ReadWindowAttrs(setup, &attrs_)) {
      return setup->Fail(Error::kInvalidArgument, "the attributes of a pooling are missing");
    }
    return kV2 || CheckPoolAttrs(setup, kOp, attrs_);
  }

  bool Run(Call* c) const override {
    PoolSizes s;
    std::vector<int64_t> shape;
    if (!CheckPool(c, kOp, kV2, attrs_, &s, &shape)) return false;
    T* const out = static_cast<T*>(c->Output(0, shape));
    if (!out) return false;
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    if (n == 0) return true;
    const T* const a = c->input(kOp == PoolOp::kAvgGrad ? 1 : 0).template as<T>();
    const unsigned blocks = Blocks(c, n);
    if constexpr (kOp == PoolOp::kMax) {
      TakeMaximum<T><<<blocks, kThreads, 0, Stream(c)>>>(a, out, s, n);
    } else if constexpr (kOp == PoolOp::kMaxGradGrad) {
      TakeGreatest<T><<<blocks, kThreads, 0, Stream(c)>>>(a, c->input(2).as<T>(), out, s, n);
    } else if constexpr (kOp == PoolOp::kMaxGrad) {
      GiveGreatest<T><<<blocks, kThreads, 0, Stream(c)>>>(a, c->input(2).as<T>(), out, s, n);
    } else if constexpr (kOp == PoolOp::kAvg) {
      TakeMean<T><<<blocks, kThreads, 0, Stream(c)>>>(a, out, s, n);
    } else {
      GiveMean<T><<<blocks, kThreads, 0, Stream(c)>>>(a, out, s, n);
    }
    return c->Launched("pooling");
  }

  WindowAttrs attrs_;
};
template <typename T>
using PoolMax = Pool<T, PoolOp::kMax>;
template <typename T>
using PoolMaxGrad = Pool<T, PoolOp::kMaxGrad>;
template <typename T>
using PoolMaxGradGrad = Pool<T, PoolOp::kMaxGradGrad>;
template <typename T>
using PoolMaxV2 = Pool<T, PoolOp::kMax, true>;
template <typename T>
using PoolMaxGradV2 = Pool<T, PoolOp::kMaxGrad, true>;
template <typename T>
using PoolAvg = Pool<T, PoolOp::kAvg>;
template <typename T>
using PoolAvgGrad = Pool<T, PoolOp::kAvgGrad>;

[[maybe_unused]] const bool registered =
    Register<PoolMax, FERRY_GPU_FLOATS>("MaxPool", "T") &&
    Register<PoolMaxGrad, FERRY_GPU_FLOATS>("MaxPoolGrad", "T") &&
    Register<PoolMaxGradGrad, FERRY_GPU_FLOATS>("MaxPoolGradGrad", "T") &&
    Register<PoolMaxV2, FERRY_GPU_FLOATS>("MaxPoolV2", "T", {{}, {"ksize", "strides"}}) &&
    Register<PoolMaxGradV2, FERRY_GPU_FLOATS>("MaxPoolGradV2", "T", {{}, {"ksize", "strides"}}) &&
    Register<PoolAvg, FERRY_GPU_FLOATS>("AvgPool", "T") &&
    Register<PoolAvgGrad, FERRY_GPU_FLOATS>("AvgPoolGrad", "T", {{}, {"orig_input_shape"}});

}  // namespace
}  // namespace gpu
}  // namespace ferry
