// Classes drawn at random to be compared with the true ones: UniformCandidateSampler,
// LogUniformCandidateSampler, FixedUnigramCandidateSampler, AllCandidateSampler; and
// ComputeAccidentalHits, which of them were true ones. From the same seeds TensorFlow draws the
// same.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "kernels/array.h"
#include "kernels/philox.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// ---- Distributions over [0, range) ----

// A number in [0, n), all equally likely: words beyond the last whole multiple of n are passed
// over.
uint32_t Below(uint32_t n, philox::Words* words) {
  if ((n & (n - 1)) == 0) return words->Next() & (n - 1);
  const uint32_t all = ~uint32_t{0}, rest = all % n + 1;
  for (;;) {
    const uint32_t word = words->Next();
    if (word <= all - rest) return word % n;
  }
}
uint64_t Below64(uint64_t n, philox::Words* words) {
  const auto next = [words] {
    const uint64_t low = words->Next();
    return low | uint64_t{words->Next()} << 32;
  };
  if ((n & (n - 1)) == 0) return next() & (n - 1);
  const uint64_t all = ~uint64_t{0}, rest = all % n + 1;
  for (;;) {
    const uint64_t word = next();
    if (word <= all - rest) return word % n;
  }
}

struct Uniform {
  absl::Status Init(const KernelConstruction& c, int64_t range) {
    (void)c;
    range_ = range;
    share_ = static_cast<float>(1.0 / static_cast<double>(range));
    return absl::OkStatus();
  }
  int64_t Draw(philox::Words* words) const {
    return static_cast<int64_t>(Below64(static_cast<uint64_t>(range_), words));
  }
  float Probability(int64_t) const { return share_; }

  int64_t range_ = 1;
  float share_ = 1;
};

// P(k) = log((k + 2) / (k + 1)) / log(range + 1): Zipf's law, for words in the order of their
// frequency.
struct LogUniform {
  absl::Status Init(const KernelConstruction& c, int64_t range) {
    (void)c;
    range_ = range;
    log_ = std::log(static_cast<double>(range) + 1.0);
    return absl::OkStatus();
  }
  int64_t Draw(philox::Words* words) const {
    const uint32_t high = words->Next();
    const double unit = philox::UnitDouble(high, words->Next());
    // The rounding may have gone beyond the last.
    return (static_cast<int64_t>(std::exp(unit * log_)) - 1) % range_;
  }
  float Probability(int64_t k) const {
    const double d = static_cast<double>(k);
    return static_cast<float>(std::log((d + 2.0) / (d + 1.0)) / log_);
  }

  int64_t range_ = 1;
  double log_ = 1;
};

// As often as the attribute `unigrams` says, to the power of `distortion`. By the alias method
// (A. J. Walker, 1977): each class has a column of height 1, filled up with one other class.
struct Unigrams {
  absl::Status Init(const KernelConstruction& c, int64_t range) {
    FERRY_ASSIGN_OR_RETURN(const std::vector<float> counts, c.Attr<std::vector<float>>("unigrams"));
    FERRY_ASSIGN_OR_RETURN(const std::string file, c.Attr<std::string>("vocab_file"));
    FERRY_ASSIGN_OR_RETURN(const float power, c.Attr<float>("distortion"));
    FERRY_ASSIGN_OR_RETURN(const int64_t reserved, c.Attr<int64_t>("num_reserved_ids"));
    FERRY_ASSIGN_OR_RETURN(const int64_t shards, c.Attr<int64_t>("num_shards"));
    FERRY_ASSIGN_OR_RETURN(const int64_t shard, c.Attr<int64_t>("shard"));
    if (!file.empty()) {
      return Unimplemented("the vocabulary is in a file, '", file,
                           "'; only the attribute unigrams is supported");
    }
    if (counts.empty()) return InvalidArgument("Must provide either vocab_file or unigrams.");
    if (reserved < 0 || reserved > range || shards < 1 || shard < 0 || shard >= shards) {
      return InvalidArgument("found num_reserved_ids ", reserved, ", num_shards ", shards,
                             " and shard ", shard);
    }
    weights_.assign(static_cast<size_t>(reserved), 0);
    for (size_t i = 0; i < counts.size(); ++i) {
      const int64_t id = reserved + static_cast<int64_t>(i);
      if (id % shards != shard) continue;
      weights_.push_back(std::pow(counts[i], power));
      total_ += weights_.back();
    }
    if (static_cast<int64_t>(weights_.size()) != range) {
      return InvalidArgument("range_max is ", range, ", but there are ", weights_.size(),
                             " classes");
    }
    FillColumns();
    return absl::OkStatus();
  }
  int64_t Draw(philox::Words* words) const {
    const float unit = philox::UnitFloat(words->Next());
    const uint32_t at = Below(static_cast<uint32_t>(columns_.size()), words);
    const Column& column = columns_[at];
    return unit < column.height ? static_cast<int64_t>(at) : column.other;
  }
  float Probability(int64_t k) const { return weights_[static_cast<size_t>(k)] / total_; }

  struct Column {
    float height = 1;
    int64_t other = 0;
  };

  void FillColumns() {
    const size_t n = weights_.size();
    double sum = 0;
    for (const float w : weights_) sum += static_cast<double>(w);
    columns_.resize(n);
    std::vector<double> heights(n);
    std::vector<size_t> low, high;
    for (size_t i = 0; i < n; ++i) {
      heights[i] = static_cast<double>(weights_[i] * static_cast<float>(n)) / sum;
      (heights[i] < 1 ? low : high).push_back(i);
    }
    while (!low.empty() && !high.empty()) {
      const size_t l = low.back(), h = high.back();
      low.pop_back();
      high.pop_back();
      columns_[l].other = static_cast<int64_t>(h);
      heights[h] -= 1 - heights[l];
      (heights[h] < 1 ? low : high).push_back(h);
    }
    for (size_t i = 0; i < n; ++i) columns_[i].height = static_cast<float>(heights[i]);
    for (const auto* const rest : {&low, &high}) {  // All but 1, for rounding.
      for (const size_t i : *rest) columns_[i] = {1, static_cast<int64_t>(i)};
    }
  }

  std::vector<float> weights_;
  float total_ = 0;
  std::vector<Column> columns_;
};

// ---- Samplers ----

// How often a class of that probability is expected among `count` draws; or, where draws of what
// had been drawn were passed over, whether after that many `tries`.
float Expected(float probability, int64_t count, int64_t tries) {
  if (tries == count) return probability * static_cast<float>(count);
  return static_cast<float>(
      -std::expm1(static_cast<double>(tries) * std::log1p(-static_cast<double>(probability))));
}

absl::Status CheckTrue(const Tensor& classes, int64_t num_true) {
  if (classes.rank() != 2) return InvalidArgument("true_classes must be a matrix");
  if (classes.dim(1) != num_true) {
    return InvalidArgument("true_classes must have num_true columns, expected: ", classes.dim(1),
                           " was: ", num_true);
  }
  return absl::OkStatus();
}

absl::Status AllocateCounts(KernelContext* c, int64_t sampled, int64_t** classes,
                            float** true_counts, float** counts) {
  FERRY_ASSIGN_OR_RETURN(Tensor * first, c->AllocateOutput(0, TensorShape{sampled}));
  FERRY_ASSIGN_OR_RETURN(Tensor * second, c->AllocateOutput(1, c->input(0).shape()));
  FERRY_ASSIGN_OR_RETURN(Tensor * third, c->AllocateOutput(2, TensorShape{sampled}));
  *classes = first->data<int64_t>();
  *true_counts = second->data<float>();
  *counts = third->data<float>();
  return absl::OkStatus();
}

template <typename Distribution>
class SamplerKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(num_true_, c.Attr<int64_t>("num_true"));
    FERRY_ASSIGN_OR_RETURN(sampled_, c.Attr<int64_t>("num_sampled"));
    FERRY_ASSIGN_OR_RETURN(unique_, c.Attr<bool>("unique"));
    FERRY_ASSIGN_OR_RETURN(range_, c.Attr<int64_t>("range_max"));
    FERRY_ASSIGN_OR_RETURN(const int64_t seed, c.Attr<int64_t>("seed"));
    FERRY_ASSIGN_OR_RETURN(const int64_t seed2, c.Attr<int64_t>("seed2"));
    if (range_ < 1 || sampled_ < 1 || range_ > std::numeric_limits<int32_t>::max() ||
        sampled_ > std::numeric_limits<int32_t>::max()) {
      return InvalidArgument("range_max and num_sampled must be in [1, 2^31), found ", range_,
                             " and ", sampled_);
    }
    if (unique_ && sampled_ > range_) {
      return InvalidArgument("Sampler's range is too small: ", sampled_, " different classes of ",
                             range_, " are wanted");
    }
    source_.Seed(seed, seed2);
    return distribution_.Init(c, range_);
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& truth = c->input(0);
    FERRY_RETURN_IF_ERROR(CheckTrue(truth, num_true_));
    for (int64_t i = 0; i < truth.num_elements(); ++i) {
      const int64_t k = truth.data<int64_t>()[i];
      if (k < 0 || k >= range_) {
        return InvalidArgument("`true_candidate` out of range [0, ", range_, "), received ", k);
      }
    }
    int64_t* classes;
    float *true_counts, *counts;
    FERRY_RETURN_IF_ERROR(AllocateCounts(c, sampled_, &classes, &true_counts, &counts));
    // As many words a draw, should most of them be passed over.
    constexpr uint64_t kBlocksPerDraw = 512;
    philox::Words words(source_.Reserve(kBlocksPerDraw * static_cast<uint64_t>(sampled_)));
    absl::flat_hash_set<int64_t> drawn;
    int64_t tries = 0;
    for (int64_t i = 0; i < sampled_; ++tries) {
      if (tries == std::numeric_limits<int32_t>::max()) {
        return InvalidArgument("no ", sampled_, " different classes came up in 2^31 draws");
      }
      const int64_t k = distribution_.Draw(&words);
      if (unique_ && !drawn.insert(k).second) continue;
      classes[i++] = k;
    }
    for (int64_t i = 0; i < sampled_; ++i) {
      counts[i] = Expected(distribution_.Probability(classes[i]), sampled_, tries);
    }
    for (int64_t i = 0; i < truth.num_elements(); ++i) {
      true_counts[i] =
          Expected(distribution_.Probability(truth.data<int64_t>()[i]), sampled_, tries);
    }
    return absl::OkStatus();
  }

  int64_t num_true_ = 1, sampled_ = 1, range_ = 1;
  bool unique_ = false;
  philox::Source source_;
  Distribution distribution_;
};

// Every class, once.
class AllCandidatesKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(num_true_, c.Attr<int64_t>("num_true"));
    FERRY_ASSIGN_OR_RETURN(sampled_, c.Attr<int64_t>("num_sampled"));
    if (sampled_ < 1) return InvalidArgument("num_sampled must be positive, found ", sampled_);
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    FERRY_RETURN_IF_ERROR(CheckTrue(c->input(0), num_true_));
    int64_t* classes;
    float *true_counts, *counts;
    FERRY_RETURN_IF_ERROR(AllocateCounts(c, sampled_, &classes, &true_counts, &counts));
    for (int64_t i = 0; i < sampled_; ++i) {
      classes[i] = i;
      counts[i] = 1;
    }
    std::fill_n(true_counts, c->input(0).num_elements(), 1.0f);
    return absl::OkStatus();
  }

  int64_t num_true_ = 1, sampled_ = 1;
};

absl::Status SamplerShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const int64_t sampled, c->Attr<int64_t>("num_sampled"));
  FERRY_ASSIGN_OR_RETURN(const int64_t num_true, c->Attr<int64_t>("num_true"));
  FERRY_ASSIGN_OR_RETURN(const PartialShape truth, c->WithRank(c->input(0), 2));
  c->set_output(0, {sampled});
  c->set_output(1, {truth.known_rank() ? truth.dim(0) : PartialShape::kUnknown, num_true});
  c->set_output(2, {sampled});
  return absl::OkStatus();
}

OpBuilder SamplerOp(const char* name) {
  OpBuilder b(name);
  b.Input("true_classes: int64")
      .Output("sampled_candidates: int64")
      .Output("true_expected_count: float")
      .Output("sampled_expected_count: float")
      .Attr("num_true: int >= 1")
      .Attr("num_sampled: int >= 1")
      .Attr("unique: bool");
  return b;
}
OpBuilder Seeded(OpBuilder b) {
  b.Attr("seed: int = 0").Attr("seed2: int = 0").Stateful().Shape(SamplerShape).NotDifferentiable();
  return b;
}

const OpBuilder::Registrar uniform(
    Seeded(SamplerOp("UniformCandidateSampler").Attr("range_max: int >= 1")));
const OpBuilder::Registrar log_uniform(
    Seeded(SamplerOp("LogUniformCandidateSampler").Attr("range_max: int >= 1")));
const OpBuilder::Registrar unigrams(Seeded(SamplerOp("FixedUnigramCandidateSampler")
                                               .Attr("range_max: int >= 1")
                                               .Attr("vocab_file: string = ''")
                                               .Attr("distortion: float = 1.0")
                                               .Attr("num_reserved_ids: int = 0")
                                               .Attr("num_shards: int >= 1 = 1")
                                               .Attr("shard: int >= 0 = 0")
                                               .Attr("unigrams: list(float) = []")));
const OpBuilder::Registrar all(Seeded(SamplerOp("AllCandidateSampler")));

// ---- ComputeAccidentalHits ----

class AccidentalHitsKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(num_true_, c.Attr<int64_t>("num_true"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor &truth = c->input(0), &sampled = c->input(1);
    if (truth.rank() != 2 || truth.dim(1) != num_true_) {
      return InvalidArgument("true_candidates must be a batch_size * num_true matrix, found shape ",
                             truth.shape().DebugString(), " with num_true ", num_true_);
    }
    if (sampled.rank() != 1) {
      return InvalidArgument(
          "sampled_candidates must be a vector, which is typically an output from CandidateSampler,"
          " found shape ",
          sampled.shape().DebugString());
    }
    absl::flat_hash_map<int64_t, int64_t> places;  // The last one of each.
    for (int64_t i = 0; i < sampled.num_elements(); ++i) {
      places[sampled.data<int64_t>()[i]] = i;
    }
    std::vector<std::pair<int32_t, int64_t>> hits;
    for (int64_t i = 0; i < truth.num_elements(); ++i) {
      const auto hit = places.find(truth.data<int64_t>()[i]);
      if (hit != places.end()) hits.emplace_back(static_cast<int32_t>(i / num_true_), hit->second);
    }
    const TensorShape shape{static_cast<int64_t>(hits.size())};
    FERRY_ASSIGN_OR_RETURN(Tensor * rows, c->AllocateOutput(0, shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * ids, c->AllocateOutput(1, shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * weights, c->AllocateOutput(2, shape));
    for (size_t i = 0; i < hits.size(); ++i) {
      rows->data<int32_t>()[i] = hits[i].first;
      ids->data<int64_t>()[i] = hits[i].second;
      weights->data<float>()[i] = std::numeric_limits<float>::lowest();
    }
    return absl::OkStatus();
  }

  int64_t num_true_ = 1;
};

FERRY_OP("ComputeAccidentalHits")
    .Input("true_classes: int64")
    .Input("sampled_candidates: int64")
    .Output("indices: int32")
    .Output("ids: int64")
    .Output("weights: float")
    .Attr("num_true: int")
    .Attr("seed: int = 0")
    .Attr("seed2: int = 0")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(0), 2).status());
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
      for (int i = 0; i < 3; ++i) c->set_output(i, {PartialShape::kUnknown});
      return absl::OkStatus();
    })
    .NotDifferentiable();

FERRY_KERNEL("UniformCandidateSampler").Device(DeviceType::kCpu).Make<SamplerKernel<Uniform>>();
FERRY_KERNEL("LogUniformCandidateSampler")
    .Device(DeviceType::kCpu)
    .Make<SamplerKernel<LogUniform>>();
FERRY_KERNEL("FixedUnigramCandidateSampler")
    .Device(DeviceType::kCpu)
    .Make<SamplerKernel<Unigrams>>();
FERRY_KERNEL("AllCandidateSampler").Device(DeviceType::kCpu).Make<AllCandidatesKernel>();
FERRY_KERNEL("ComputeAccidentalHits").Device(DeviceType::kCpu).Make<AccidentalHitsKernel>();

}  // namespace
}  // namespace ferry
