// Random numbers: RandomUniform, RandomUniformInt, RandomStandardNormal, TruncatedNormal and
// RandomShuffle. For the same seeds they give the same numbers as TensorFlow on the CPU, run by
// run.
//
// The generator is Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as
// 1, 2, 3; SC11): a block of four 32-bit words is a function of a 64-bit key, the first seed, and a
// 128-bit counter, whose upper half begins as the second seed.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// ---- The generator ----

class Philox {
 public:
  using Block = std::array<uint32_t, 4>;

  Philox(uint64_t seed, uint64_t seed2) : key_(seed), low_(0), high_(seed2) {}

  // Passes over `blocks` blocks.
  void Skip(uint64_t blocks) {
    low_ += blocks;
    if (low_ < blocks) ++high_;
  }

  // The next block.
  Block Next() {
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
    return {c[0], c[1], c[2], c[3]};
  }

 private:
  static uint32_t Low(uint64_t x) { return static_cast<uint32_t>(x); }
  static uint32_t High(uint64_t x) { return static_cast<uint32_t>(x >> 32); }
  uint64_t key_, low_, high_;
};

// Hands out a generator's words one at a time.
class Words {
 public:
  explicit Words(Philox generator) : generator_(generator) {}
  uint32_t Next() {
    if (used_ == 4) {
      block_ = generator_.Next();
      used_ = 0;
    }
    return block_[used_++];
  }

 private:
  Philox generator_;
  Philox::Block block_;
  size_t used_ = 4;
};

// The seeds of one node, and how far its generator got. Thread-safe.
class Source {
 public:
  absl::Status Init(const KernelConstruction& c) {
    FERRY_ASSIGN_OR_RETURN(int64_t seed, c.Attr<int64_t>("seed"));
    FERRY_ASSIGN_OR_RETURN(int64_t seed2, c.Attr<int64_t>("seed2"));
    if (seed == 0 && seed2 == 0) {
      std::random_device device;
      for (int64_t* s : {&seed, &seed2}) {
        *s = static_cast<int64_t>((uint64_t{device()} << 32) | device());
      }
    }
    seed_ = static_cast<uint64_t>(seed);
    seed2_ = static_cast<uint64_t>(seed2);
    return absl::OkStatus();
  }

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
To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

float UnitFloat(uint32_t x) {
  return BitCast<float>((x & 0x7fffffu) | (uint32_t{127} << 23)) - 1.0f;
}
double UnitDouble(uint32_t high, uint32_t low) {
  const uint64_t fraction = (uint64_t{high & 0xfffffu} << 32) | low;
  return BitCast<double>(fraction | (uint64_t{1023} << 52)) - 1.0;
}
half UnitHalf(uint32_t x) {
  const uint16_t bits = static_cast<uint16_t>((x & 0x3ffu) | (15u << 10));
  return static_cast<half>(static_cast<float>(Eigen::numext::bit_cast<half>(bits)) - 1.0f);
}
bfloat16 UnitBfloat16(uint32_t x) {
  const uint16_t bits = static_cast<uint16_t>((x & 0x7fu) | (127u << 7));
  return static_cast<bfloat16>(static_cast<float>(Eigen::numext::bit_cast<bfloat16>(bits)) - 1.0f);
}

// Two numbers of the standard normal distribution from uniform ones (Box and Muller).
void Normals(const uint32_t* x, float* out) {
  const float u = std::max(UnitFloat(x[0]), 1.0e-7f);
  const float angle = static_cast<float>(2 * M_PI * UnitFloat(x[1]));
  const float radius = std::sqrt(-2.0f * std::log(u));
  out[0] = std::sin(angle) * radius;
  out[1] = std::cos(angle) * radius;
}
void Normals(const uint32_t* x, double* out) {
  const double u = std::max(UnitDouble(x[0], x[1]), 1.0e-7);
  const double angle = 2 * M_PI * UnitDouble(x[2], x[3]);
  const double radius = std::sqrt(-2.0 * std::log(u));
  out[0] = std::sin(angle) * radius;
  out[1] = std::cos(angle) * radius;
}

// ---- Distributions: a group of numbers from one block ----

// How many numbers a group has, and in which type normal ones are computed.
template <typename T>
constexpr int kGroup = sizeof(T) == 8 ? 2 : 4;
template <typename T>
using NormalType = std::conditional_t<sizeof(T) == 8, double, float>;
// 32-bit words that go into two normal numbers.
template <typename T>
constexpr int kWords = sizeof(T) == 8 ? 4 : 2;

template <typename T>
struct Uniform {
  void operator()(const Philox& generator, T* out) const {
    Philox g = generator;
    const Philox::Block x = g.Next();
    for (size_t i = 0; i < kGroup<T>; ++i) {
      if constexpr (std::is_same_v<T, double>) {
        out[i] = UnitDouble(x[2 * i], x[2 * i + 1]);
      } else if constexpr (std::is_same_v<T, float>) {
        out[i] = UnitFloat(x[i]);
      } else if constexpr (std::is_same_v<T, half>) {
        out[i] = UnitHalf(x[i]);
      } else {
        out[i] = UnitBfloat16(x[i]);
      }
    }
  }
  static constexpr uint64_t kBlocks = 1;  // From one group to the next.
};

// Integers in [low, high).
template <typename T>
struct UniformInt {
  using U = std::make_unsigned_t<T>;
  T low, high;
  void operator()(const Philox& generator, T* out) const {
    Philox g = generator;
    const Philox::Block x = g.Next();
    const U range = static_cast<U>(high) - static_cast<U>(low);
    for (size_t i = 0; i < kGroup<T>; ++i) {
      U bits;
      if constexpr (sizeof(T) == 8) {
        bits = x[2 * i] | (uint64_t{x[2 * i + 1]} << 32);
      } else {
        bits = x[i];
      }
      out[i] = static_cast<T>(static_cast<U>(low) + bits % range);
    }
  }
  static constexpr uint64_t kBlocks = 1;
};

template <typename T>
struct Normal {
  void operator()(const Philox& generator, T* out) const {
    Philox g = generator;
    const Philox::Block x = g.Next();
    for (int i = 0; i < kGroup<T>; i += 2) {
      NormalType<T> two[2];
      Normals(x.data() + i / 2 * kWords<T>, two);
      out[i] = static_cast<T>(two[0]);
      out[i + 1] = static_cast<T>(two[1]);
    }
  }
  static constexpr uint64_t kBlocks = 1;
};

// Normal numbers, those beyond two standard deviations left out. Each group has a stretch of the
// generator to itself, long enough for any number of attempts.
template <typename T>
struct Truncated {
  void operator()(const Philox& generator, T* out) const {
    Words words(generator);
    for (int found = 0; found < kGroup<T>;) {
      uint32_t x[kWords<T>];
      for (uint32_t& word : x) word = words.Next();
      NormalType<T> two[2];
      Normals(x, two);
      for (const NormalType<T> value : two) {
        if (std::abs(value) < NormalType<T>(2) && found < kGroup<T>) {
          out[found++] = static_cast<T>(value);
        }
      }
    }
  }
  static constexpr uint64_t kBlocks = kGroup<T> * kBlocksPerOutput / 4;
};

template <typename T, typename Distribution>
void Fill(KernelContext* c, const Source& source, const Distribution& distribution, T* out,
          int64_t size) {
  const Philox start = source.Reserve(static_cast<uint64_t>(size) * kBlocksPerOutput);
  const int64_t groups = (size + kGroup<T> - 1) / kGroup<T>;
  c->ParallelFor(groups, 1 << 12, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      Philox generator = start;
      generator.Skip(static_cast<uint64_t>(g) * Distribution::kBlocks);
      T* const to = out + g * kGroup<T>;
      if (size - g * kGroup<T> >= kGroup<T>) {
        distribution(generator, to);
      } else {
        T last[kGroup<T>];
        distribution(generator, last);
        std::copy_n(last, size - g * kGroup<T>, to);
      }
    }
  });
}

// ---- Kernels ----

absl::Status RandomShape(InferenceContext* c) {
  if (c->input(0).known_rank() && c->input(0).rank() != 1) {
    return InvalidArgument("shape must be a vector of {int32,int64}, got shape ",
                           c->input(0).DebugString());
  }
  FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->ValueAsShape(0));
  c->set_output(0, std::move(shape));
  return absl::OkStatus();
}

absl::StatusOr<Tensor*> AllocateRandom(KernelContext* c) {
  if (c->input(0).rank() != 1) {
    return InvalidArgument("shape must be a vector of {int32,int64}, got shape ",
                           c->input(0).shape().DebugString());
  }
  FERRY_ASSIGN_OR_RETURN(const TensorShape shape, c->InputAsShape(0));
  return c->AllocateOutput(0, shape);
}

template <typename T, template <typename> class Distribution>
class RandomKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override { return source_.Init(c); }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(Tensor * out, AllocateRandom(c));
    Fill(c, source_, Distribution<T>(), out->data<T>(), out->num_elements());
    return absl::OkStatus();
  }

 private:
  Source source_;
};

template <typename T>
using RandomUniformKernel = RandomKernel<T, Uniform>;
template <typename T>
using RandomNormalKernel = RandomKernel<T, Normal>;
template <typename T>
using TruncatedNormalKernel = RandomKernel<T, Truncated>;

template <typename T>
class RandomUniformIntKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override { return source_.Init(c); }
  absl::Status Compute(KernelContext* c) const override {
    for (int i = 1; i <= 2; ++i) {
      if (c->input(i).rank() != 0) {
        return InvalidArgument(i == 1 ? "minval" : "maxval", " must be 0-D, got shape ",
                               c->input(i).shape().DebugString());
      }
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, AllocateRandom(c));
    if (out->num_elements() == 0) return absl::OkStatus();
    const T low = c->input(1).scalar<T>(), high = c->input(2).scalar<T>();
    if (low >= high) {
      return InvalidArgument("Need minval < maxval, got ", low, " >= ", high);
    }
    Fill(c, source_, UniformInt<T>{low, high}, out->data<T>(), out->num_elements());
    return absl::OkStatus();
  }

 private:
  Source source_;
};

// Puts the rows in random order (Fisher and Yates).
class RandomShuffleKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override { return source_.Init(c); }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, x.shape()));
    if (x.num_elements() == 0) return absl::OkStatus();
    const int64_t rows = x.rank() == 0 ? 1 : x.dim(0);
    std::vector<int64_t> order(static_cast<size_t>(rows));
    std::iota(order.begin(), order.end(), 0);
    Words words(source_.Reserve(static_cast<uint64_t>(rows - 1 + 3) / 4));
    for (int64_t i = 0; i + 1 < rows; ++i) {
      const int64_t j = i + words.Next() % static_cast<uint32_t>(rows - i);
      std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(j)]);
    }
    if (x.dtype() == DType::kString) {
      const int64_t width = x.num_elements() / rows;
      for (int64_t i = 0; i < rows; ++i) {
        std::copy_n(x.data<std::string>() + order[static_cast<size_t>(i)] * width, width,
                    out->data<std::string>() + i * width);
      }
    } else {
      const size_t bytes = x.bytes() / static_cast<size_t>(rows);
      for (size_t i = 0; i < static_cast<size_t>(rows); ++i) {
        std::memcpy(static_cast<char*>(out->raw()) + i * bytes,
                    static_cast<const char*>(x.raw()) + static_cast<size_t>(order[i]) * bytes,
                    bytes);
      }
    }
    return absl::OkStatus();
  }

 private:
  Source source_;
};

// ---- Registration ----

OpBuilder RandomOp(const char* name) {
  OpBuilder b(name);
  b.Input("shape: T")
      .Output("output: dtype")
      .Attr("seed: int = 0")
      .Attr("seed2: int = 0")
      .Attr("dtype: {half, bfloat16, float, double}")
      .Attr("T: {int32, int64}")
      .Stateful()
      .Shape(RandomShape)
      .NotDifferentiable();
  return b;
}

const OpBuilder::Registrar kUniformOp(RandomOp("RandomUniform"));
const OpBuilder::Registrar kNormalOp(RandomOp("RandomStandardNormal"));
const OpBuilder::Registrar kTruncatedOp(RandomOp("TruncatedNormal"));

FERRY_OP("RandomUniformInt")
    .Input("shape: T")
    .Input("minval: Tout")
    .Input("maxval: Tout")
    .Output("output: Tout")
    .Attr("seed: int = 0")
    .Attr("seed2: int = 0")
    .Attr("Tout: {int32, int64}")
    .Attr("T: {int32, int64}")
    .Stateful()
    .Shape(RandomShape)
    .NotDifferentiable();

FERRY_OP("RandomShuffle")
    .Input("value: T")
    .Output("output: T")
    .Attr("seed: int = 0")
    .Attr("seed2: int = 0")
    .Attr("T: type")
    .Stateful()
    .Shape(UnchangedShape)
    .NotDifferentiable();

const bool kRegistered =
    RegisterCpu<RandomUniformKernel>(FloatTypes(), "RandomUniform", "dtype", {}, {"shape"}) &&
    RegisterCpu<RandomNormalKernel>(FloatTypes(), "RandomStandardNormal", "dtype", {}, {"shape"}) &&
    RegisterCpu<TruncatedNormalKernel>(FloatTypes(), "TruncatedNormal", "dtype", {}, {"shape"}) &&
    RegisterCpu<RandomUniformIntKernel>(Types<int32_t, int64_t>(), "RandomUniformInt", "Tout", {},
                                        {"shape", "minval", "maxval"});

FERRY_KERNEL("RandomShuffle").Make<RandomShuffleKernel>();

}  // namespace
}  // namespace ferry
