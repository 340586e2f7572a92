// The random generator and the distributions drawn from it, for every device: from the same seeds
// all compute the same numbers, but for rounding in the normal distributions, where sin, cos and
// log are each device's own.
//
// The generator is Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as
// 1, 2, 3; SC11): a block of four 32-bit words is a function of a 64-bit key, the first seed, and a
// 128-bit counter, whose upper half begins as the second seed.
#ifndef FERRY_KERNELS_PHILOX_H_
#define FERRY_KERNELS_PHILOX_H_

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/host_device.h"

namespace ferry {
namespace philox {

// ---- The generator ----

class Philox {
 public:
  struct Block {
    uint32_t words[4];
  };

  FERRY_HOST_DEVICE Philox(uint64_t seed, uint64_t seed2) : key_(seed), low_(0), high_(seed2) {}

  // Passes over `blocks` blocks.
  FERRY_HOST_DEVICE void Skip(uint64_t blocks) {
    low_ += blocks;
    if (low_ < blocks) ++high_;
  }

  // The next block.
  FERRY_HOST_DEVICE Block Next() {
    uint32_t c[4] = {Low(low_), High(low_), Low(high_), High(high_)};
    uint32_t key0 = Low(key_), key1 = High(key_);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
      const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
      c[0] = High(p1) ^ c[1] ^ key0;
      c[1] = Low(p1);
      c[2] = High(p0) ^ c[3] ^ key1;
      c[3] = Low(p0);
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    Skip(1);
    return {{c[0], c[1], c[2], c[3]}};
  }

 private:
  FERRY_HOST_DEVICE static uint32_t Low(uint64_t x) { return static_cast<uint32_t>(x); }
  FERRY_HOST_DEVICE static uint32_t High(uint64_t x) { return static_cast<uint32_t>(x >> 32); }
  uint64_t key_, low_, high_;
};

// Hands out a generator's words one at a time.
class Words {
 public:
  FERRY_HOST_DEVICE explicit Words(Philox generator) : generator_(generator) {}
  FERRY_HOST_DEVICE uint32_t Next() {
    if (used_ == 4) {
      block_ = generator_.Next();
      used_ = 0;
    }
    return block_.words[used_++];
  }

 private:
  Philox generator_;
  Philox::Block block_;
  int used_ = 4;
};

// The seeds of one node, and how far its generator got. Thread-safe.
class Source {
 public:
  // As an op's attributes give them; both 0: seeds that nobody can foresee. Once, before Reserve.
  void Seed(int64_t seed, int64_t seed2);

  // A generator that stands at the beginning.
  Philox Start() const { return Philox(seed_, seed2_); }

  // A generator that stands where the last call's reservation ended, and `blocks` of its blocks for
  // the caller alone.
  Philox Reserve(uint64_t blocks) const {
    Philox generator(seed_, seed2_);
    generator.Skip(position_.fetch_add(blocks, std::memory_order_relaxed));
    return generator;
  }

 private:
  uint64_t seed_ = 0, seed2_ = 0;
  mutable std::atomic<uint64_t> position_{0};
};

// Blocks that each output number is given, whatever it takes: enough for the truncated normal
// distribution, which takes as many as it needs.
constexpr uint64_t kBlocksPerOutput = 256;

// ---- Numbers in [0, 1): random bits as the fraction of a number in [1, 2), less 1 ----

template <typename To, typename From>
FERRY_HOST_DEVICE To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

FERRY_HOST_DEVICE inline float UnitFloat(uint32_t x) {
  return BitCast<float>((x & 0x7fffffu) | (uint32_t{127} << 23)) - 1.0f;
}
FERRY_HOST_DEVICE inline double UnitDouble(uint32_t high, uint32_t low) {
  const uint64_t fraction = (uint64_t{high & 0xfffffu} << 32) | low;
  return BitCast<double>(fraction | (uint64_t{1023} << 52)) - 1.0;
}
// For a 16-bit float with that many bits of fraction, which holds the number exactly.
template <int kBits>
FERRY_HOST_DEVICE float UnitShort(uint32_t x) {
  constexpr uint32_t kSize = uint32_t{1} << kBits;
  return static_cast<float>(x & (kSize - 1)) * (1.0f / static_cast<float>(kSize));
}

constexpr double kTwoPi = 6.283185307179586476925;

// Two numbers of the standard normal distribution from uniform ones (Box and Muller).
FERRY_HOST_DEVICE inline void Normals(const uint32_t* x, float* out) {
  float u = UnitFloat(x[0]);
  if (u < 1.0e-7f) u = 1.0e-7f;
  const float angle = static_cast<float>(kTwoPi * static_cast<double>(UnitFloat(x[1])));
  const float radius = std::sqrt(-2.0f * std::log(u));
  out[0] = std::sin(angle) * radius;
  out[1] = std::cos(angle) * radius;
}
FERRY_HOST_DEVICE inline void Normals(const uint32_t* x, double* out) {
  double u = UnitDouble(x[0], x[1]);
  if (u < 1.0e-7) u = 1.0e-7;
  const double angle = kTwoPi * UnitDouble(x[2], x[3]);
  const double radius = std::sqrt(-2.0 * std::log(u));
  out[0] = std::sin(angle) * radius;
  out[1] = std::cos(angle) * radius;
}

// ---- Distributions: a group of numbers from one stretch of blocks ----

// How many numbers a group has, and in which type normal ones are computed.
template <typename T>
constexpr int kGroup = sizeof(T) == 8 ? 2 : 4;
template <typename T>
using NormalType = std::conditional_t<sizeof(T) == 8, double, float>;
// 32-bit words that go into two normal numbers.
template <typename T>
constexpr int kWords = sizeof(T) == 8 ? 4 : 2;
// Bits of fraction of each device's 16-bit floats; to be specialised for them.
template <typename T>
constexpr int kFractionBits = 0;

// A distribution fills out[kGroup<T>] from where `generator` stands; groups are kBlocks apart.

template <typename T>
struct Uniform {
  static constexpr uint64_t kBlocks = 1;
  FERRY_HOST_DEVICE void operator()(Philox generator, T* out) const {
    const Philox::Block x = generator.Next();
    for (int i = 0; i < kGroup<T>; ++i) {
      if constexpr (std::is_same_v<T, double>) {
        out[i] = UnitDouble(x.words[2 * i], x.words[2 * i + 1]);
      } else if constexpr (std::is_same_v<T, float>) {
        out[i] = UnitFloat(x.words[i]);
      } else {
        out[i] = static_cast<T>(UnitShort<kFractionBits<T>>(x.words[i]));
      }
    }
  }
};

// Integers in [low, high).
template <typename T>
struct UniformInt {
  using U = std::make_unsigned_t<T>;
  static constexpr uint64_t kBlocks = 1;
  T low, high;
  FERRY_HOST_DEVICE void operator()(Philox generator, T* out) const {
    const Philox::Block x = generator.Next();
    const U range = static_cast<U>(high) - static_cast<U>(low);
    for (int i = 0; i < kGroup<T>; ++i) {
      U bits;
      if constexpr (sizeof(T) == 8) {
        bits = x.words[2 * i] | (uint64_t{x.words[2 * i + 1]} << 32);
      } else {
        bits = x.words[i];
      }
      out[i] = static_cast<T>(static_cast<U>(low) + bits % range);
    }
  }
};

template <typename T>
struct Normal {
  static constexpr uint64_t kBlocks = 1;
  FERRY_HOST_DEVICE void operator()(Philox generator, T* out) const {
    const Philox::Block x = generator.Next();
    for (int i = 0; i < kGroup<T>; i += 2) {
      NormalType<T> two[2];
      Normals(x.words + i / 2 * kWords<T>, two);
      out[i] = static_cast<T>(two[0]);
      out[i + 1] = static_cast<T>(two[1]);
    }
  }
};

// Normal numbers, those beyond two standard deviations left out. Each group has a stretch of the
// generator to itself, long enough for any number of attempts.
template <typename T>
struct Truncated {
  static constexpr uint64_t kBlocks = kGroup<T> * kBlocksPerOutput / 4;
  FERRY_HOST_DEVICE void operator()(const Philox& generator, T* out) const {
    Words words(generator);
    for (int found = 0; found < kGroup<T>;) {
      uint32_t x[kWords<T>];
      for (int i = 0; i < kWords<T>; ++i) x[i] = words.Next();
      NormalType<T> two[2];
      Normals(x, two);
      for (int i = 0; i < 2; ++i) {
        const NormalType<T> value = two[i];
        if (value > NormalType<T>(-2) && value < NormalType<T>(2) && found < kGroup<T>) {
          out[found++] = static_cast<T>(value);
        }
      }
    }
  }
};

}  // namespace philox
}  // namespace ferry

#endif  // FERRY_KERNELS_PHILOX_H_
