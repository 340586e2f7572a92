// LRN and LRNGrad on a GPU: a thread an element; lrn.cc has the formulas.
#include <cmath>
#include <limits>
#include <string>

#include "kernels/gpu.cuh"
#include "kernels/gpu_checks.h"

namespace ferry {
namespace gpu {
namespace {

struct LrnParameters {
  int64_t depth, radius;
  float bias, alpha, beta;
};

// The neighbours of element i: elements of its row.
struct Neighbours {
  int64_t begin, end;
  __device__ Neighbours(const LrnParameters& p, int64_t i) {
    const int64_t k = i % p.depth, row = i - k;
    begin = row + (k > p.radius ? k - p.radius : 0);
    end = row + (p.depth - k > p.radius ? k + p.radius + 1 : p.depth);
  }
};

template <typename T>
__device__ float Norm(const T* x, const LrnParameters& p, int64_t i) {
  const Neighbours around(p, i);
  float sum = 0;
  for (int64_t j = around.begin; j < around.end; ++j) sum += Widen(x[j]) * Widen(x[j]);
  return p.bias + p.alpha * sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) Respond(const T* x, T* y, LrnParameters p, int64_t n) {
  for (int64_t i = First(); i < n; i += Step()) {
    y[i] = Narrow<T>(Widen(x[i]) * powf(Norm(x, p, i), -p.beta));
  }
}

// norms = norm; terms = dy * y / norm.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RespondTerms(const T* dy, const T* x, const T* y, float* norms, float* terms, LrnParameters p,
                 int64_t n) {
  for (int64_t i = First(); i < n; i += Step()) {
    const float norm = Norm(x, p, i);
    norms[i] = norm;
    terms[i] = Widen(dy[i]) * Widen(y[i]) / norm;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    RespondBack(const T* dy, const T* x, const float* norms, const float* terms, T* dx,
                LrnParameters p, int64_t n) {
  for (int64_t i = First(); i < n; i += Step()) {
    const Neighbours around(p, i);
    float sum = 0;
    for (int64_t j = around.begin; j < around.end; ++j) sum += terms[j];
    dx[i] = Narrow<T>(Widen(dy[i]) * powf(norms[i], -p.beta) -
                      2 * p.alpha * p.beta * Widen(x[i]) * sum);
  }
}

template <typename T, bool kGrad>
class LrnOf : public Kernel {
  bool Init(Setup* setup) override {
    if (!setup->Attr("depth_radius", &p_.radius) || !setup->Attr("bias", &p_.bias) ||
        !setup->Attr("alpha", &p_.alpha) || !setup->Attr("beta", &p_.beta)) {
      return setup->Fail(Error::kInvalidArgument, "attributes of LRN are missing");
    }
    if (p_.radius < 0 || p_.radius > std::numeric_limits<int>::max()) {
      return setup->Fail(Error::kInvalidArgument,
                         "depth_radius = " + std::to_string(p_.radius) + " larger than int max");
    }
    return true;
  }

  bool Run(Call* c) const override {
    if (!CheckLrn(c, kGrad)) return false;
    const Input in = c->input(0);
    T* const out = static_cast<T*>(c->OutputLike(0, 0));
    if (!out) return false;
    const int64_t n = in.elements;
    if (n == 0) return true;
    LrnParameters p = p_;
    p.depth = in.dims[3];
    const unsigned blocks = Blocks(c, n);
    if constexpr (!kGrad) {
      Respond<T><<<blocks, kThreads, 0, Stream(c)>>>(in.as<T>(), out, p, n);
      return c->Launched("Respond");
    } else {
      const T* const x = c->input(1).as<T>();
      float* const norms =
          static_cast<float*>(c->Scratch(2 * n * static_cast<int64_t>(sizeof(float))));
      if (!norms) return false;
      RespondTerms<T><<<blocks, kThreads, 0, Stream(c)>>>(in.as<T>(), x, c->input(2).as<T>(), norms,
                                                          norms + n, p, n);
      if (!c->Launched("RespondTerms")) return false;
      RespondBack<T>
          <<<blocks, kThreads, 0, Stream(c)>>>(in.as<T>(), x, norms, norms + n, out, p, n);
      return c->Launched("RespondBack");
    }
  }

  LrnParameters p_ = {};
};
template <typename T>
using Lrn = LrnOf<T, false>;
template <typename T>
using LrnGrad = LrnOf<T, true>;

[[maybe_unused]] const bool registered = Register<Lrn, half, bfloat16, float>("LRN", "T") &&
                                         Register<LrnGrad, half, bfloat16, float>("LRNGrad", "T");

}  // namespace
}  // namespace gpu
}  // namespace ferry
