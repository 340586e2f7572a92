// The plans' memory: random graphs in which outputs work in place, alias their inputs, lie on
// branches, are fetched and kept, give in Run after Run what the same graph gives when it is
// computed node by node without any sharing.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

// A value of the reference: numbers that are exact in double.
struct Value {
  std::vector<int64_t> shape;
  std::vector<double> data;
  bool dead = false;
};

enum class Kind {
  kFeed,      // Of `multiple` * n elements.
  kConst,     // A scalar.
  kVariable,  // A scalar, read through Identity.
  kAdd,
  kSub,
  kMaximum,
  kAddN,
  kNeg,
  kAbs,
  kRelu,
  kIdentity,
  kFlatten,  // Reshape to [-1].
  kRow,      // Reshape to [1, -1].
  kTwice,    // ConcatV2 of a vector with itself.
  kSwitch,   // `multiple` says which output.
  kMerge,
};

struct Step {
  Kind kind;
  std::vector<size_t> inputs;
  double number = 0;
  int multiple = 1;
  Output output;
};

std::vector<int64_t> BroadcastDims(const Value& a, const Value& b) {
  const std::vector<int64_t>& longer = a.shape.size() >= b.shape.size() ? a.shape : b.shape;
  std::vector<int64_t> dims = longer;
  if (!dims.empty()) dims.back() = static_cast<int64_t>(std::max(a.data.size(), b.data.size()));
  return dims;
}

template <typename F>
Value Binary(const Value& a, const Value& b, F f) {
  Value out{BroadcastDims(a, b), {}, false};
  const size_t n = std::max(a.data.size(), b.data.size());
  for (size_t i = 0; i < n; ++i) {
    out.data.push_back(f(a.data[a.data.size() == 1 ? 0 : i], b.data[b.data.size() == 1 ? 0 : i]));
  }
  return out;
}

template <typename F>
Value Unary(Value v, F f) {
  for (double& x : v.data) x = f(x);
  return v;
}

Value Evaluate(const Step& s, const std::vector<Value>& values, int64_t n, bool pred) {
  if (s.kind == Kind::kFeed) {
    Value v{{s.multiple * n}, {}, false};
    for (int64_t i = 0; i < s.multiple * n; ++i) {
      v.data.push_back(s.number + static_cast<double>(i % 7) - static_cast<double>(n % 5));
    }
    return v;
  }
  if (s.inputs.empty()) return Value{{}, {s.number}, false};
  const Value& a = values[s.inputs[0]];
  const Value& b = values[s.inputs.back()];
  if (s.kind == Kind::kMerge) return a.dead ? b : a;
  for (size_t i : s.inputs) {
    if (values[i].dead) return Value{{}, {}, true};
  }
  switch (s.kind) {
    case Kind::kAdd:
      return Binary(a, b, [](double x, double y) { return x + y; });
    case Kind::kSub:
      return Binary(a, b, [](double x, double y) { return x - y; });
    case Kind::kMaximum:
      return Binary(a, b, [](double x, double y) { return std::max(x, y); });
    case Kind::kAddN: {
      Value sum = a;
      for (size_t k = 1; k < s.inputs.size(); ++k) {
        sum = Binary(sum, values[s.inputs[k]], [](double x, double y) { return x + y; });
      }
      return sum;
    }
    case Kind::kNeg:
      return Unary(a, [](double x) { return -x; });
    case Kind::kAbs:
      return Unary(a, [](double x) { return std::abs(x); });
    case Kind::kRelu:
      return Unary(a, [](double x) { return std::max(x, 0.0); });
    case Kind::kFlatten:
      return Value{{static_cast<int64_t>(a.data.size())}, a.data, false};
    case Kind::kRow:
      return Value{{1, static_cast<int64_t>(a.data.size())}, a.data, false};
    case Kind::kTwice: {
      Value twice = a;
      twice.data.insert(twice.data.end(), a.data.begin(), a.data.end());
      twice.shape[0] *= 2;
      return twice;
    }
    case Kind::kSwitch: {
      Value v = a;
      v.dead = pred != (s.multiple == 1);
      return v;
    }
    default:
      return a;
  }
}

// A random graph with its reference.
class RandomGraph {
 public:
  RandomGraph(unsigned seed, Graph* graph) : gen_(seed), root_(graph) {
    pred = ops::Placeholder(root_.WithOpName("pred"), DType::kBool, TensorShape());
    for (int i = 0; i < 3; ++i) {
      Step s{Kind::kFeed, {}, Pick(9) - 4.0, i == 2 ? 2 : 1, {}};
      // With a known rank element-wise nodes may be computed together.
      const PartialShape shape =
          seed % 2 ? PartialShape({PartialShape::kUnknown}) : PartialShape();
      s.output = ops::Placeholder(root_.WithOpName(absl::StrCat("feed", i)), DType::kDouble, shape);
      Add(s, 1, s.multiple);
    }
    Step c{Kind::kConst, {}, 3, 1, {}};
    c.output = ops::Const<double>(root_, 3);
    Add(c, 0, 0);
    Step v{Kind::kVariable, {}, -2, 1, {}};
    Output ref = ops::VariableV2(root_.WithOpName("v"), TensorShape(), DType::kDouble);
    init = ops::Assign(root_, ref, ops::Const<double>(root_, -2)).node;
    v.output = ops::Identity(root_, ref);
    Add(v, 0, 0);
    const int count = 5 + static_cast<int>(Pick(35));
    for (int i = 0; i < count; ++i) {
      if (Pick(6) == 0) {
        Conditional();
      } else {
        Plain(PickAny());
      }
    }
  }

  absl::Status status() const { return root_.status(); }
  unsigned Pick(size_t n) { return static_cast<unsigned>(gen_() % n); }
  // Steps that have a value in each Run.
  size_t PickAny() { return alive_[Pick(alive_.size())]; }

  std::vector<Value> Evaluate(int64_t n, bool p) const {
    std::vector<Value> values;
    for (const Step& s : steps) values.push_back(::ferry::Evaluate(s, values, n, p));
    return values;
  }

  std::vector<Step> steps;
  Output pred;
  Node* init = nullptr;

 private:
  size_t Add(Step s, int rank, int multiple, bool alive = true) {
    steps.push_back(std::move(s));
    rank_.push_back(rank);
    multiple_.push_back(multiple);
    if (alive) alive_.push_back(steps.size() - 1);
    return steps.size() - 1;
  }

  // A step that is always alive and whose value has as many elements as that of `x`.
  size_t PickLike(size_t x, bool same_rank) {
    for (int tries = 0; tries < 20; ++tries) {
      const size_t y = PickAny();
      if (multiple_[y] == multiple_[x] && (!same_rank || rank_[y] == rank_[x])) return y;
    }
    return x;
  }

  // Some step on `x`; what comes of it is alive if `x` is.
  size_t Plain(size_t x, bool alive = true) {
    const Output& in = steps[x].output;
    int rank = rank_[x], multiple = multiple_[x];
    Step s{Kind::kNeg, {x}, 0, 1, {}};
    switch (Pick(11)) {
      case 0:
        s.kind = Kind::kNeg;
        break;
      case 1:
        s.kind = Kind::kAbs;
        break;
      case 2:
        s.kind = Kind::kRelu;
        break;
      case 3:
        s.kind = Kind::kIdentity;
        break;
      case 4:
        s.kind = Kind::kFlatten;
        break;
      case 5:
        s.kind = Kind::kRow;
        break;
      case 6:
        s.kind = rank == 1 && multiple < 8 ? Kind::kTwice : Kind::kNeg;
        break;
      case 7:
        s.kind = Kind::kAddN;
        break;
      case 8:
        s.kind = Kind::kAdd;
        break;
      case 9:
        s.kind = Kind::kSub;
        break;
      default:
        s.kind = Kind::kMaximum;
        break;
    }
    if (multiple == 0 && (s.kind == Kind::kFlatten || s.kind == Kind::kRow)) s.kind = Kind::kAbs;
    switch (s.kind) {
      case Kind::kNeg:
        s.output = ops::Neg(root_, in);
        break;
      case Kind::kAbs:
        s.output = ops::Abs(root_, in);
        break;
      case Kind::kRelu:
        s.output = ops::Relu(root_, in);
        break;
      case Kind::kIdentity:
        s.output = ops::Identity(root_, in);
        break;
      case Kind::kFlatten:
        s.output = ops::Reshape(root_, in, ops::ConstVector<int32_t>(root_, {-1}));
        rank = 1;
        break;
      case Kind::kRow:
        s.output = ops::Reshape(root_, in, ops::ConstVector<int32_t>(root_, {1, -1}));
        rank = 2;
        break;
      case Kind::kTwice:
        s.output = ops::ConcatV2(root_, {in, in}, ops::Const<int32_t>(root_, 0));
        multiple *= 2;
        break;
      case Kind::kAddN: {
        for (unsigned more = Pick(4); more > 0; --more) {
          s.inputs.push_back(Pick(3) == 0 ? x : PickLike(x, true));
        }
        std::vector<Output> ins;
        for (size_t i : s.inputs) ins.push_back(steps[i].output);
        s.output = ops::AddN(root_, ins);
        break;
      }
      default: {
        // Broadcasting a scalar, or element by element; the operands in either order.
        const size_t y = Pick(4) == 0 ? 3 + Pick(2) : PickLike(x, false);
        s.inputs = Pick(2) ? std::vector<size_t>{x, y} : std::vector<size_t>{y, x};
        const Output &a = steps[s.inputs[0]].output, &b = steps[s.inputs[1]].output;
        s.output = s.kind == Kind::kAdd   ? ops::AddV2(root_, a, b)
                   : s.kind == Kind::kSub ? ops::Sub(root_, a, b)
                                          : ops::Maximum(root_, a, b);
        rank = std::max(rank_[x], rank_[y]);
        multiple = std::max(multiple_[x], multiple_[y]);
      }
    }
    return Add(std::move(s), rank, multiple, alive);
  }

  void Conditional() {
    const size_t x = PickAny();
    const ops::SwitchOutputs sw = ops::Switch(root_, steps[x].output, pred);
    size_t ends[2];
    for (int side = 0; side < 2; ++side) {
      Step s{Kind::kSwitch, {x}, 0, side, side ? sw.output_true : sw.output_false};
      ends[side] = Add(s, rank_[x], multiple_[x], false);
      for (unsigned k = Pick(4); k > 0; --k) ends[side] = Plain(ends[side], false);
    }
    Step m{Kind::kMerge, {ends[0], ends[1]}, 0, 1, {}};
    m.output = ops::Merge(root_, {steps[ends[0]].output, steps[ends[1]].output}).output;
    // The branches may differ in shape; what follows must know one.
    if (rank_[ends[0]] == rank_[ends[1]] && multiple_[ends[0]] == multiple_[ends[1]]) {
      Add(m, rank_[ends[0]], multiple_[ends[0]]);
    } else {
      fetch_only.push_back(Add(m, 0, 0, false));
    }
  }

  std::mt19937 gen_;
  Scope root_;
  std::vector<int> rank_, multiple_;
  std::vector<size_t> alive_;

 public:
  std::vector<size_t> fetch_only;  // Merges whose shape depends on the branch.
};

void ExpectEqual(const Tensor& t, const Value& v, const std::string& what) {
  ASSERT_EQ(t.dtype(), DType::kDouble) << what;
  ASSERT_EQ(t.shape(), TensorShape(v.shape)) << what;
  for (size_t i = 0; i < v.data.size(); ++i) ASSERT_EQ(t.data<double>()[i], v.data[i]) << what;
}

Tensor ToTensor(const Value& v) { return Tensor::Of<double>(v.data, TensorShape(v.shape)); }

TEST(MemoryPlanTest, RandomGraphsGiveWhatTheyGiveWithoutSharing) {
  for (unsigned seed = 1; seed <= 150; ++seed) {
    Graph graph;
    RandomGraph random(seed, &graph);
    ASSERT_TRUE(random.status().ok()) << random.status();
    SessionOptions options;
    options.threads = 1 + seed % 2;
    Session session(&graph, options);
    ASSERT_TRUE(session.Run({}, std::vector<std::string>{}, {random.init->name()}, nullptr).ok());
    for (int plan = 0; plan < 4; ++plan) {
      CallableOptions signature;
      signature.feeds = {"pred", "feed0", "feed1", "feed2"};
      std::vector<size_t> fetched;
      for (unsigned k = 1 + random.Pick(6); k > 0; --k) fetched.push_back(random.PickAny());
      for (size_t f : random.fetch_only) {
        if (random.Pick(2)) fetched.push_back(f);
      }
      for (size_t f : fetched) signature.fetches.push_back(random.steps[f].output.name());
      absl::StatusOr<Session::Callable> callable = session.MakeCallable(signature);
      ASSERT_TRUE(callable.ok()) << callable.status();
      // What was fetched and kept, with what it must stay like.
      std::vector<std::pair<Tensor, Value>> kept;
      std::vector<Tensor> out;
      for (int run = 0; run < 8; ++run) {
        // Mostly the same shape, as in training; sometimes another.
        const int64_t n = run % 3 == 2 ? 1 + random.Pick(40) : 16;
        const bool pred = random.Pick(2) == 1;
        const std::vector<Value> values = random.Evaluate(n, pred);
        const std::vector<Tensor> feeds = {Tensor::Scalar<bool>(pred), ToTensor(values[0]),
                                           ToTensor(values[1]), ToTensor(values[2])};
        if (random.Pick(2)) out.clear();
        const absl::Status status = callable->Run(feeds, &out);
        ASSERT_TRUE(status.ok()) << status;
        for (size_t k = 0; k < fetched.size(); ++k) {
          const std::string what = absl::StrCat("seed ", seed, ", plan ", plan, ", run ", run,
                                                ", fetch ", signature.fetches[k]);
          ASSERT_NO_FATAL_FAILURE(ExpectEqual(out[k], values[fetched[k]], what));
          if (random.Pick(3) == 0) kept.emplace_back(out[k], values[fetched[k]]);
        }
        for (size_t k = 0; k < 3; ++k) {  // What was fed is the caller's.
          ASSERT_NO_FATAL_FAILURE(ExpectEqual(feeds[k + 1], values[k], "a feed"));
        }
        for (const auto& [tensor, value] : kept) {
          ASSERT_NO_FATAL_FAILURE(ExpectEqual(tensor, value, absl::StrCat("kept, seed ", seed)));
        }
        if (kept.size() > 6) kept.erase(kept.begin(), kept.begin() + 3);
      }
    }
  }
}

// A kernel that writes where it will read again mustn't take the memory of one of two inputs that
// are the same.
TEST(MemoryPlanTest, WhatIsAnInputTwiceIsNotWrittenInPlace) {
  Graph graph;
  Scope root(&graph);
  const Output x = ops::Placeholder(root, DType::kFloat, {2});
  const Output own = ops::Neg(root, x);
  const Output indices = ops::Const(root, Tensor::Of<int32_t>({1, 0}, {2, 1}));
  const Output swapped = NodeBuilder(root, "TensorScatterUpdate")
                             .Input(own)
                             .Input(indices)
                             .Input(ops::Identity(root, own))
                             .BuildOutput();
  ASSERT_TRUE(root.status().ok()) << root.status();
  Session session(&graph);
  std::vector<Tensor> out;
  const absl::Status status =
      session.Run({{x.name(), Tensor::Of<float>({3, 5})}}, {swapped.name()}, {}, &out);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(out[0].data<float>()[0], -5);
  EXPECT_EQ(out[0].data<float>()[1], -3);
}

}  // namespace
}  // namespace ferry
