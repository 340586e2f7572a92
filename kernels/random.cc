// Random numbers: RandomUniform, RandomUniformInt, RandomStandardNormal, TruncatedNormal,
// RandomShuffle and Multinomial. For the same seeds they give the same numbers as TensorFlow on the
// CPU, run by run. philox.h has the generator and the distributions.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/philox.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace philox {

template <>
constexpr int kFractionBits<half> = 10;
template <>
constexpr int kFractionBits<bfloat16> = 7;

void Source::Seed(int64_t seed, int64_t seed2) {
  if (seed == 0 && seed2 == 0) {
    std::random_device device;
    for (int64_t* s : {&seed, &seed2}) {
      *s = static_cast<int64_t>((uint64_t{device()} << 32) | device());
    }
  }
  seed_ = static_cast<uint64_t>(seed);
  seed2_ = static_cast<uint64_t>(seed2);
}

}  // namespace philox

namespace {

using philox::kGroup;
using philox::Philox;
using philox::Source;

absl::Status SeedFromAttrs(const KernelConstruction& c, Source* source) {
  FERRY_ASSIGN_OR_RETURN(const int64_t seed, c.Attr<int64_t>("seed"));
  FERRY_ASSIGN_OR_RETURN(const int64_t seed2, c.Attr<int64_t>("seed2"));
  source->Seed(seed, seed2);
  return absl::OkStatus();
}

template <typename T, typename Distribution>
void Fill(KernelContext* c, const Source& source, const Distribution& distribution, T* out,
          int64_t size) {
  const Philox start = source.Reserve(static_cast<uint64_t>(size) * philox::kBlocksPerOutput);
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
  absl::Status Init(const KernelConstruction& c) override { return SeedFromAttrs(c, &source_); }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(Tensor * out, AllocateRandom(c));
    Fill(c, source_, Distribution<T>(), out->data<T>(), out->num_elements());
    return absl::OkStatus();
  }

 private:
  Source source_;
};

template <typename T>
using RandomUniformKernel = RandomKernel<T, philox::Uniform>;
template <typename T>
using RandomNormalKernel = RandomKernel<T, philox::Normal>;
template <typename T>
using TruncatedNormalKernel = RandomKernel<T, philox::Truncated>;

absl::Status CheckBounds(const KernelContext& c) {
  for (int i = 1; i <= 2; ++i) {
    if (c.input(i).rank() != 0) {
      return InvalidArgument(i == 1 ? "minval" : "maxval", " must be 0-D, got shape ",
                             c.input(i).shape().DebugString());
    }
  }
  return absl::OkStatus();
}
absl::Status NothingBetween(int64_t low, int64_t high) {
  return InvalidArgument("Need minval < maxval, got ", low, " >= ", high);
}

template <typename T>
class RandomUniformIntKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override { return SeedFromAttrs(c, &source_); }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_RETURN_IF_ERROR(CheckBounds(*c));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, AllocateRandom(c));
    if (out->num_elements() == 0) return absl::OkStatus();
    const T low = c->input(1).scalar<T>(), high = c->input(2).scalar<T>();
    if (low >= high) return NothingBetween(low, high);
    Fill(c, source_, philox::UniformInt<T>{low, high}, out->data<T>(), out->num_elements());
    return absl::OkStatus();
  }

 private:
  Source source_;
};

// Draws classes by the logarithms of their probabilities, a row of them at a time: each sample is
// the first class whose cumulated probability exceeds a random number. Classes whose logits aren't
// finite are never drawn.
template <typename T>
class MultinomialKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override { return SeedFromAttrs(c, &source_); }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& logits = c->input(0);
    if (logits.rank() != 2) {
      return InvalidArgument("logits should be a matrix, got shape ", logits.shape().DebugString());
    }
    if (c->input(1).rank() != 0) {
      return InvalidArgument("num_samples should be a scalar, got shape ",
                             c->input(1).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const int64_t samples, c->InputAsInt(1));
    if (samples < 0) {
      return InvalidArgument("num_samples should be non-negative, got ", samples);
    }
    const int64_t rows = logits.dim(0), classes = logits.dim(1);
    if (classes <= 0) return InvalidArgument("num_classes should be positive, got ", classes);
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make({rows, samples}));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    // Two numbers a sample are reserved, in whole groups of four samples.
    const auto reserved = static_cast<uint64_t>(rows * ((samples + 3) / 4 * 4) * 2);
    philox::Words words(source_.Reserve(reserved * philox::kBlocksPerOutput));
    std::vector<double> sums(static_cast<size_t>(classes));
    for (int64_t r = 0; r < rows; ++r) {
      const double total = CumulatedProbabilities(logits.data<T>() + r * classes, &sums);
      for (int64_t i = 0; i < samples; ++i) {
        const uint32_t high = words.Next(), low = words.Next();
        const double at = philox::UnitDouble(high, low) * total;
        const int64_t found = std::upper_bound(sums.begin(), sums.end(), at) - sums.begin();
        if (out->dtype() == DType::kInt32) {
          out->data<int32_t>()[r * samples + i] = static_cast<int32_t>(found);
        } else {
          out->data<int64_t>()[r * samples + i] = found;
        }
      }
    }
    return absl::OkStatus();
  }

 private:
  // Times a factor, which keeps them in range; returns the last.
  static double CumulatedProbabilities(const T* logits, std::vector<double>* sums) {
    double most = std::numeric_limits<double>::lowest(), total = 0;
    for (size_t k = 0; k < sums->size(); ++k) {
      const auto x = static_cast<double>(logits[k]);
      if (std::isfinite(x)) most = std::max(most, x);
    }
    for (size_t k = 0; k < sums->size(); ++k) {
      const auto x = static_cast<double>(logits[k]);
      if (std::isfinite(x)) total += std::exp(x - most);
      (*sums)[k] = total;
    }
    return total;
  }
  Source source_;
};

// Puts the rows in random order (Fisher and Yates).
class RandomShuffleKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override { return SeedFromAttrs(c, &source_); }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, x.shape()));
    if (x.num_elements() == 0) return absl::OkStatus();
    const int64_t rows = x.rank() == 0 ? 1 : x.dim(0);
    std::vector<int64_t> order(static_cast<size_t>(rows));
    std::iota(order.begin(), order.end(), 0);
    philox::Words words(source_.Reserve(static_cast<uint64_t>(rows - 1 + 3) / 4));
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

FERRY_OP("Multinomial")
    .Input("logits: T")
    .Input("num_samples: int32")
    .Output("output: output_dtype")
    .Attr("seed: int = 0")
    .Attr("seed2: int = 0")
    .Attr("T: realnumbertype")
    .Attr("output_dtype: {int32, int64} = DT_INT64")
    .Stateful()
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const PartialShape logits, c->WithRank(c->input(0), 2));
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 0).status());
      c->set_output(0, {logits.dim(0), c->ValueAsInt(1)});
      return absl::OkStatus();
    })
    .NotDifferentiable();

const bool kRegistered =
    RegisterCpu<MultinomialKernel>(FloatTypes(), "Multinomial") &&
    RegisterCpu<RandomUniformKernel>(FloatTypes(), "RandomUniform", "dtype", {}, {"shape"}) &&
    RegisterCpu<RandomNormalKernel>(FloatTypes(), "RandomStandardNormal", "dtype", {}, {"shape"}) &&
    RegisterCpu<TruncatedNormalKernel>(FloatTypes(), "TruncatedNormal", "dtype", {}, {"shape"}) &&
    RegisterCpu<RandomUniformIntKernel>(Types<int32_t, int64_t>(), "RandomUniformInt", "Tout", {},
                                        {"shape", "minval", "maxval"});

FERRY_KERNEL("RandomShuffle").Make<RandomShuffleKernel>();

}  // namespace

// ---- For random.cu ----

namespace gpu {

void* KeptMemory::Get(Call* c, int64_t bytes) const {
  const std::lock_guard<std::mutex> lock(mu_);
  if (data_) return data_;
  const KernelContext* const context = HostSide::Context(c);
  if (context->run()->capture_stream) {
    // It would be zeroed at each replay.
    HostSide::Note(c, FailedPrecondition("a kernel's own memory is made outside of captures"));
    return nullptr;
  }
  absl::StatusOr<BufferRef> made =
      context->gpu()->allocator()->Allocate(static_cast<size_t>(bytes));
  if (!made.ok()) {
    HostSide::Note(c, made.status());
    return nullptr;
  }
  void* const data = (*made)->data();
  if (!c->Fill(data, 0, bytes)) return nullptr;
  owner_ = std::make_shared<BufferRef>(*std::move(made));
  return data_ = data;
}

void* RandomOutput(Call* c, int64_t* elements) {
  absl::StatusOr<Tensor*> out = AllocateRandom(HostSide::Context(c));
  if (!out.ok()) {
    HostSide::Note(c, out.status());
    return nullptr;
  }
  *elements = (*out)->num_elements();
  return (*out)->raw();
}

bool CheckRandomBounds(Call* c) { return HostSide::Note(c, CheckBounds(*HostSide::Context(c))); }

bool CheckRandomRange(Call* c, int64_t low, int64_t high) {
  return low < high || HostSide::Note(c, NothingBetween(low, high));
}

}  // namespace gpu
}  // namespace ferry
