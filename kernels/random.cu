// The random ops on a GPU: the numbers of the CPU kernels, in their order. Uniform ones are equal
// bit for bit; normal ones as far as the devices' sin, cos and log agree.
#include <type_traits>

#include "kernels/gpu.cuh"
#include "kernels/gpu_checks.h"
#include "kernels/philox.h"

namespace ferry {
namespace philox {

template <>
constexpr int kFractionBits<gpu::half> = 10;
template <>
constexpr int kFractionBits<gpu::bfloat16> = 7;

}  // namespace philox

namespace gpu {
namespace {

// One thread. Where a generator stands is kept on the device, so that a captured graph draws new
// numbers each time it is replayed.
__global__ void ReserveKernel(uint64_t* position, uint64_t blocks, uint64_t* start) {
  *start = *position;
  *position += blocks;
}

// A thread draws whole groups, from block `*skip` on.
template <typename T, typename Distribution>
__global__ void __launch_bounds__(kThreads)
    RandomKernel(philox::Philox start, const uint64_t* skip, Distribution distribution, T* out,
                 int64_t n) {
  constexpr int kN = philox::kGroup<T>;
  using Group = Elements<T, kN>;
  start.Skip(*skip);
  for (int64_t g = First(); g * kN < n; g += Step()) {
    philox::Philox generator = start;
    generator.Skip(static_cast<uint64_t>(g) * Distribution::kBlocks);
    Group group;
    distribution(generator, group.v);
    if (n - g * kN >= kN) {
      reinterpret_cast<Group*>(out)[g] = group;
    } else {
#pragma unroll
      for (int k = 0; k < kN; ++k) {
        if (g * kN + k < n) out[g * kN + k] = group.v[k];
      }
    }
  }
}

bool Seed(Setup* setup, philox::Source* source) {
  int64_t seed = 0, seed2 = 0;
  if (!setup->Attr("seed", &seed) || !setup->Attr("seed2", &seed2)) {
    return setup->Fail(Error::kInvalidArgument, "the seeds are missing");
  }
  source->Seed(seed, seed2);
  return true;
}

struct Generator {
  philox::Source source;
  KeptMemory position;  // A uint64_t: blocks that were drawn.
};

template <typename T, typename Distribution>
bool Fill(Call* c, const Generator& generator, const Distribution& distribution, void* out,
          int64_t n) {
  if (n == 0) return true;
  auto* const position = static_cast<uint64_t*>(generator.position.Get(c, sizeof(uint64_t)));
  auto* const skip = static_cast<uint64_t*>(c->Scratch(sizeof(uint64_t)));
  if (!position || !skip) return false;
  ReserveKernel<<<1, 1, 0, Stream(c)>>>(
      position, static_cast<uint64_t>(n) * philox::kBlocksPerOutput, skip);
  if (!c->Launched("ReserveKernel")) return false;
  constexpr int kN = philox::kGroup<T>;
  RandomKernel<T, Distribution><<<Blocks(c, (n + kN - 1) / kN), kThreads, 0, Stream(c)>>>(
      generator.source.Start(), skip, distribution, static_cast<T*>(out), n);
  return c->Launched("RandomKernel");
}

template <typename T, template <typename> class Distribution>
class Random : public Kernel {
  bool Init(Setup* setup) override { return Seed(setup, &generator_.source); }
  bool Run(Call* c) const override {
    int64_t n = 0;
    void* const out = RandomOutput(c, &n);
    return out != nullptr && Fill<T>(c, generator_, Distribution<T>(), out, n);
  }
  Generator generator_;
};

template <typename T>
using RandomUniform = Random<T, philox::Uniform>;
template <typename T>
using RandomNormal = Random<T, philox::Normal>;
template <typename T>
using TruncatedNormal = Random<T, philox::Truncated>;

template <typename T>
class RandomUniformInt : public Kernel {
  bool Init(Setup* setup) override { return Seed(setup, &generator_.source); }
  bool Run(Call* c) const override {
    int64_t n = 0;
    if (!CheckRandomBounds(c)) return false;
    void* const out = RandomOutput(c, &n);
    if (!out) return false;
    if (n == 0) return true;
    const T low = *c->input(1).as<T>(), high = *c->input(2).as<T>();
    return CheckRandomRange(c, low, high) &&
           Fill<T>(c, generator_, philox::UniformInt<T>{low, high}, out, n);
  }
  Generator generator_;
};

const Options kShape = {{}, {"shape"}};
const Options kShapeAndBounds = {{}, {"shape", "minval", "maxval"}};

[[maybe_unused]] const bool registered =
    Register<RandomUniform, FERRY_GPU_FLOATS>("RandomUniform", "dtype", kShape) &&
    Register<RandomNormal, FERRY_GPU_FLOATS>("RandomStandardNormal", "dtype", kShape) &&
    Register<TruncatedNormal, FERRY_GPU_FLOATS>("TruncatedNormal", "dtype", kShape) &&
    Register<RandomUniformInt, int32_t, int64_t>("RandomUniformInt", "Tout", kShapeAndBounds);

}  // namespace
}  // namespace gpu
}  // namespace ferry
