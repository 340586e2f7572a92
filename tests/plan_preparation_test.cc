// What plans make of graphs before they run them: what is left out, computed once, computed
// together; and that results and orders are those of the graph, and errors those of what runs.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "runtime/op/op_def.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kUnknown = PartialShape::kUnknown;

SessionOptions OnCpu(int threads = 1) {
  SessionOptions options;
  options.device = "cpu";
  options.threads = threads;
  return options;
}

Output One(const Scope& s, const std::string& op, const std::vector<Output>& in) {
  NodeBuilder b(s, op);
  for (const Output& o : in) b.Input(o);
  return b.BuildOutput();
}

// A session and its graph, with a placeholder "x" of two dimensions.
struct World {
  Graph graph;
  Scope root{&graph};
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {kUnknown, 4});

  int Steps(const std::vector<Output>& fetches, const std::vector<Node*>& targets = {}) {
    EXPECT_TRUE(root.ok()) << root.status();
    CallableOptions signature;
    signature.feeds = {"x"};
    for (const Output& o : fetches) signature.fetches.push_back(o.name());
    for (Node* n : targets) signature.targets.push_back(n->name());
    Session session(&graph, OnCpu());
    const absl::StatusOr<Session::Callable> callable = session.MakeCallable(signature);
    EXPECT_TRUE(callable.ok()) << callable.status();
    return callable.ok() ? callable->num_steps() : -1;
  }

  // Fetches them with x = 1, 2, 3 …, of `rows` rows.
  std::vector<Tensor> Run(const std::vector<Output>& fetches, int64_t rows = 2) {
    EXPECT_TRUE(root.ok()) << root.status();
    Tensor value = *Tensor::Allocate(DType::kFloat, {rows, 4});
    for (int64_t i = 0; i < value.num_elements(); ++i) {
      value.data<float>()[i] = static_cast<float>(i + 1);
    }
    Session session(&graph, OnCpu());
    const std::pair<Output, Tensor> feed = {x, value};
    std::vector<Tensor> out;
    const absl::Status status =
        session.Run(absl::MakeConstSpan(&feed, 1), fetches, absl::Span<Node* const>(), &out);
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }
};

TEST(PlanPreparationTest, LeavesOutWhatChangesNothing) {
  World w;
  const Output one = ops::Const<float>(w.root, 1), zero = ops::Const<float>(w.root, 0);
  Output y = ops::MatMul(w.root, w.x, w.x, false, true);
  const int before = w.Steps({y});
  Output z = ops::StopGradient(w.root, ops::Identity(w.root, y));
  z = ops::Cast(w.root, z, DType::kFloat);
  z = ops::Mul(w.root, one, ops::Mul(w.root, z, one));
  z = ops::RealDiv(w.root, ops::Sub(w.root, z, zero), one);
  EXPECT_EQ(w.Steps({z}), before);
  const std::vector<Tensor> out = w.Run({y, z, w.x, ops::Identity(w.root, w.x)});
  ASSERT_EQ(out.size(), 4u);
  EXPECT_EQ(out[0].data<float>()[3], 174);
  EXPECT_EQ(std::memcmp(out[0].raw(), out[1].raw(), out[0].bytes()), 0);
  EXPECT_EQ(out[3].data<float>()[7], 8);
  // A vector of ones broadcasts; 1 / x, 0 - x and casts do something.
  const Output ones = ops::Const(w.root, Tensor::Of<float>(std::vector<float>{1, 1}, {2}));
  EXPECT_GT(w.Steps({ops::Mul(w.root, y, ones)}), before);
  EXPECT_GT(w.Steps({ops::RealDiv(w.root, one, y)}), before);
  EXPECT_GT(w.Steps({ops::Sub(w.root, zero, y)}), before);
  EXPECT_GT(w.Steps({ops::Cast(w.root, y, DType::kDouble)}), before);
}

TEST(PlanPreparationTest, ComputesTheSameOnce) {
  World w;
  const auto product = [&] {
    return ops::MatMul(
        w.root, w.x, ops::Const(w.root, Tensor::Of<float>(std::vector<float>{1, 2, 3, 4}, {4, 1})));
  };
  const Output a = product(), b = product();
  EXPECT_EQ(w.Steps({a}), 1);
  EXPECT_EQ(w.Steps({a, b}), 1);
  EXPECT_EQ(w.Steps({a, ops::Neg(w.root, a), ops::Neg(w.root, b)}), 2);
  const std::vector<Tensor> out = w.Run({a, b, ops::AddV2(w.root, a, b)});
  EXPECT_EQ(out[0].data<float>()[1], 70);
  EXPECT_EQ(out[1].data<float>()[1], 70);
  EXPECT_EQ(out[2].data<float>()[1], 140);
  // Other attributes, other order, other constants; random numbers and what is ordered.
  EXPECT_EQ(w.Steps({ops::Sub(w.root, a, w.x), ops::Sub(w.root, w.x, a)}), 3);
  EXPECT_EQ(w.Steps({ops::MatMul(w.root, w.x, w.x, false, true),
                     ops::MatMul(w.root, w.x, w.x, true, false)}),
            2);
  const Output shape = ops::ConstVector<int32_t>(w.root, {2});
  EXPECT_EQ(w.Steps({ops::RandomUniform(w.root, shape, DType::kFloat),
                     ops::RandomUniform(w.root, shape, DType::kFloat)}),
            2);
  Node* const first = ops::NoOp(w.root);
  const Output later = ops::Neg(w.root.WithControlDependencies({first}), w.x);
  EXPECT_EQ(w.Steps({ops::Neg(w.root, w.x), later}), 3);
}

TEST(PlanPreparationTest, ComputesConstantsResultsBeforehand) {
  World w;
  const Output c = ops::Const(w.root, Tensor::Of<float>(std::vector<float>{1, 2, 3, 4}, {4}));
  const Output folded = ops::Exp(w.root, ops::AddV2(w.root, c, ops::Square(w.root, c)));
  EXPECT_EQ(w.Steps({folded}), 0);
  EXPECT_EQ(w.Steps({ops::Mul(w.root, w.x, folded)}), 1);
  EXPECT_FLOAT_EQ(w.Run({folded})[0].data<float>()[1], std::exp(6.0f));
  // What is fetched is the caller's: the next Run's isn't changed by it.
  Session session(&w.graph, OnCpu());
  std::vector<Tensor> out;
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(session.Run({}, {folded.name()}, {}, &out).ok());
    EXPECT_FLOAT_EQ(out[0].data<float>()[1], std::exp(6.0f));
    out[0].data<float>()[1] = 0;
  }
  // Large results aren't kept.
  const Output large =
      ops::Fill(w.root, ops::ConstVector<int32_t>(w.root, {1 << 20}), ops::Const<float>(w.root, 1));
  EXPECT_EQ(w.Steps({large}), 1);
  // One that fails does so in each Run, and names its node.
  const Output bad = One(w.root.WithOpName("bad"), "Reshape",
                         {ops::Const(w.root, Tensor::Of<float>(std::vector<float>{1, 2, 3}, {3})),
                          ops::Identity(w.root, ops::ConstVector<int32_t>(w.root, {-1, 1}))});
  ASSERT_TRUE(w.root.ok()) << w.root.status();
  const Output worse = One(w.root.WithOpName("worse"), "Mod",
                           {ops::Const<int32_t>(w.root, 3), ops::Const<int32_t>(w.root, 0)});
  ASSERT_TRUE(w.root.ok()) << w.root.status();
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(session.Run({}, {bad.name()}, {}, &out).ok());
    const absl::Status status = session.Run({}, {worse.name()}, {}, &out);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("'worse'"));
  }
}

TEST(PlanPreparationTest, KnowsShapes) {
  World w;
  const Output fixed = ops::MatMul(w.root, w.x, w.x, true, false);  // 4 x 4.
  EXPECT_EQ(w.Steps({ops::Shape(w.root, fixed)}), 0);
  EXPECT_EQ(w.Steps({ops::Size(w.root, fixed, DType::kInt64)}), 0);
  EXPECT_EQ(w.Steps({One(w.root, "Rank", {w.x})}), 0);
  EXPECT_EQ(w.Steps({ops::Shape(w.root, w.x)}), 1);
  const std::vector<Tensor> out =
      w.Run({ops::Shape(w.root, fixed), ops::Size(w.root, fixed, DType::kInt64),
             One(w.root, "Rank", {w.x}), ops::Shape(w.root, w.x)});
  EXPECT_EQ(out[0].data<int32_t>()[1], 4);
  EXPECT_EQ(out[1].scalar<int64_t>(), 16);
  EXPECT_EQ(out[2].scalar<int32_t>(), 2);
  EXPECT_EQ(out[3].data<int32_t>()[0], 2);
  // On a branch that isn't taken there is no value, whatever its shape is.
  const auto sides = ops::Switch(w.root, fixed, ops::Const<bool>(w.root, true));
  Session session(&w.graph, OnCpu());
  std::vector<Tensor> none;
  const absl::Status status =
      session.Run({{"x", *Tensor::Allocate(DType::kFloat, {2, 4})}},
                  {ops::Shape(w.root, sides.output_false).name()}, {}, &none);
  EXPECT_THAT(std::string(status.message()), HasSubstr("does not have value"));
}

TEST(PlanPreparationTest, KeepsOrders) {
  // An Identity that is there for its place in the order stays, as do targets.
  Graph graph;
  Scope root(&graph);
  const Output v = ops::VariableV2(root.WithOpName("v"), {4}, DType::kFloat);
  Node* const init =
      ops::Assign(root, v, ops::Const(root, Tensor::Of<float>(std::vector<float>(4, 1), {4}))).node;
  const Output twos = ops::Const(root, Tensor::Of<float>(std::vector<float>(4, 2), {4}));
  // Reads that no edge orders come before writes, also those that are computed with what follows.
  const Output read = ops::Identity(root, v);
  const Output written = ops::AssignAdd(root, v, twos);
  const Output mixed = ops::AddV2(root, ops::Mul(root, read, twos), ops::Identity(root, written));
  const Output after =
      ops::Identity(root.WithControlDependencies({written.node}), ops::Identity(root, v));
  const Output before = ops::Identity(root, ops::Neg(root, twos));
  Session session(&graph, OnCpu());
  std::vector<Tensor> out;
  const std::vector<std::string> fetches = {mixed.name(), after.name(), before.name()};
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(session.Run({}, {}, {init->name()}, nullptr).ok());
    ASSERT_TRUE(session.Run({}, fetches, {before.node->name()}, &out).ok());
    EXPECT_EQ(out[0].data<float>()[0], 1 * 2 + 3);
    EXPECT_EQ(out[1].data<float>()[0], 3);
    EXPECT_EQ(out[2].data<float>()[0], -2);
  }
}

// Constants that are there for an order, on a branch, or fed in this Run.
TEST(PlanPreparationTest, KeepsConstantsThatDoMore) {
  Graph graph;
  Scope root(&graph);
  const Output x = ops::Placeholder(root, DType::kFloat, {2});
  const Output p = ops::Placeholder(root, DType::kBool, PartialShape::Scalar());
  const Output v = ops::VariableV2(root.WithOpName("v"), {}, DType::kFloat);
  Node* const init = ops::Assign(root, v, ops::Const<float>(root, 1)).node;
  const Scope later =
      root.WithControlDependencies({ops::AssignAdd(root, v, ops::Const<float>(root, 10)).node});
  const Output ordered[] = {
      ops::Mul(root, x, ops::Const<float>(later, 1)),
      ops::Sub(root, x, ops::Const<float>(later, 0)),
      ops::Reshape(root, x, ops::ConstVector<int32_t>(later, {2})),
      ops::Shape(root, ops::Identity(later, x)),
      ops::Shape(root, ops::Identity(root.WithControlDependencies({ops::NoOp(later)}), x)),
      ops::Shape(root, ops::AssignAdd(root, v, ops::Const<float>(root, 10)))};
  const auto sides = ops::Switch(root, p, p);
  const Output on = ops::Identity(root, sides.output_true);
  const Output off = ops::Identity(root, sides.output_false);
  const Output merged =
      ops::Merge(root,
                 {ops::Mul(root, x, ops::Const<float>(root.WithControlDependencies({off.node}), 1)),
                  ops::Mul(root, x, ops::Const<float>(root.WithControlDependencies({on.node}), 2))})
          .output;
  const Output one = ops::Const<float>(root, 1);
  const Output times_one = ops::Mul(root, x, one);
  const Output dims = ops::ConstVector<int32_t>(root, {2, 3});
  const Output filled = ops::Fill(root, dims, one);
  const Output shape = ops::Shape(root, filled);
  ASSERT_TRUE(root.ok()) << root.status();
  Session session(&graph, OnCpu());
  const Tensor fed = Tensor::Of<float>({3, 4});
  std::vector<Tensor> out;
  for (const Output& o : ordered) {
    ASSERT_TRUE(session.Run({}, {}, {init->name()}, nullptr).ok());
    ASSERT_TRUE(session.Run({{x.name(), fed}}, {o.name()}, {}, &out).ok());
    ASSERT_TRUE(session.Run({}, {"v"}, {}, &out).ok());
    EXPECT_EQ(out[0].scalar<float>(), 11) << o.name();
  }
  for (const bool taken : {false, true}) {
    ASSERT_TRUE(session
                    .Run({{x.name(), fed}, {p.name(), Tensor::Scalar<bool>(taken)}},
                         {merged.name()}, {}, &out)
                    .ok());
    EXPECT_EQ(out[0].data<float>()[1], taken ? 8 : 4);
  }
  ASSERT_TRUE(session
                  .Run({{x.name(), fed}, {one.name(), Tensor::Scalar<float>(5)}},
                       {times_one.name()}, {}, &out)
                  .ok());
  EXPECT_EQ(out[0].data<float>()[1], 20);
  ASSERT_TRUE(
      session.Run({{dims.name(), Tensor::Of<int32_t>({4, 5})}}, {shape.name()}, {}, &out).ok());
  EXPECT_EQ(out[0].data<int32_t>()[0], 4);
}

// What others only wait for isn't run, as the gradient for the input of a model.
TEST(PlanPreparationTest, LeavesOutWhatIsOnlyWaitedFor) {
  World w;
  const Output dx = ops::Exp(w.root, ops::MatMul(w.root, w.x, w.x, true, false));
  const Output dw = ops::MatMul(w.root, w.x, w.x, false, true);
  const auto wait_for = [&](const Output& o) {
    return ops::Neg(w.root.WithControlDependencies({o.node}), dw);
  };
  const int alone = w.Steps({ops::Neg(w.root, dw)});
  const Output y = wait_for(dx);
  EXPECT_EQ(w.Steps({y}), alone);
  EXPECT_EQ(w.Run({y})[0].data<float>()[3], -174);
  // As a fetch, a target, a member of a group that is a target, or an input it runs.
  EXPECT_EQ(w.Steps({y, dx}), alone + 2);
  EXPECT_EQ(w.Steps({y}, {dx.node}), alone + 2);
  Node* const inner = ops::NoOp(w.root.WithControlDependencies({dx.node}));
  Node* const group = ops::NoOp(w.root.WithControlDependencies({inner, y.node}));
  EXPECT_EQ(w.Steps({}, {group}), alone + 4);
  EXPECT_EQ(w.Steps({ops::Neg(w.root.WithControlDependencies({group}), dw)}), alone + 2);
  EXPECT_EQ(w.Steps({y, ops::MatMul(w.root, dx, dx)}), alone + 3);
  EXPECT_FLOAT_EQ(w.Run({y, dx}, 1)[1].data<float>()[5], std::exp(4.0f));
  // Checks are there to be run.
  const Output bad = ops::Log(w.root, ops::Neg(w.root, w.x));
  const Output checked = NodeBuilder(w.root, "CheckNumerics")
                             .Input(bad)
                             .Attr("message", std::string("bad"))
                             .BuildOutput();
  Tensor ones = *Tensor::Allocate(DType::kFloat, {1, 4});
  std::fill_n(ones.data<float>(), 4, 1.0f);
  Session session(&w.graph, OnCpu());
  std::vector<Tensor> out;
  EXPECT_TRUE(session.Run({{"x", ones}}, {wait_for(bad).name()}, {}, &out).ok());
  EXPECT_THAT(
      std::string(session.Run({{"x", ones}}, {wait_for(checked).name()}, {}, &out).message()),
      HasSubstr("Tensor had NaN"));
}

// On a branch, a node that isn't run tells whether what waits for it is.
TEST(PlanPreparationTest, WhatIsNotRunMayBeDead) {
  Graph graph;
  Scope root(&graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {kUnknown, 4});
  const Output p = ops::Placeholder(root.WithOpName("p"), DType::kBool, PartialShape::Scalar());
  const auto sides = ops::Switch(root, x, p);
  const auto joined =
      ops::Merge(root, {ops::Neg(root, sides.output_false), ops::Square(root, sides.output_true)});
  // Each of these products fails if it is run.
  const auto fail = [&](const Output& o) { return ops::Reshape(root, o, ops::Shape(root, p)); };
  const auto wait_for = [&](const Output& o) {
    return ops::Exp(root.WithControlDependencies({o.node}), x);
  };
  const Output first = ops::Exp(root, sides.output_true);
  const Output on_branch = wait_for(fail(fail(first)));
  const Output behind = wait_for(fail(joined.output));
  const Output ordered =
      wait_for(ops::Reshape(root.WithControlDependencies({first.node}), x, ops::Shape(root, p)));
  const Output at_once = wait_for(ops::Identity(root, sides.output_true));
  ASSERT_TRUE(root.ok()) << root.status();
  Session session(&graph, OnCpu());
  const Tensor fed = *Tensor::Allocate(DType::kFloat, {1, 4});
  std::fill_n(const_cast<float*>(fed.data<float>()), 4, 1.0f);
  std::vector<Tensor> out;
  for (const bool taken : {true, false}) {
    const auto run = [&](const Output& o) {
      return session.Run({{"x", fed}, {"p", Tensor::Scalar<bool>(taken)}}, {o.name()}, {}, &out);
    };
    for (const Output& o : {on_branch, ordered, at_once}) {
      const absl::Status status = run(o);
      EXPECT_EQ(status.ok(), taken) << status;
      if (!taken) {
        EXPECT_THAT(std::string(status.message()), HasSubstr("does not have value"));
      }
    }
    EXPECT_TRUE(run(behind).ok());
    EXPECT_FALSE(run(fail(joined.output)).ok());
  }
}

TEST(PlanPreparationTest, RunsInLoopsWhatIsWaitedFor) {
  // A loop whose body writes a variable after a node that nobody else looks at.
  Graph graph;
  Scope root(&graph);
  const auto enter = [&](const Output& o, bool constant) {
    return NodeBuilder(root, "Enter")
        .Input(o)
        .Attr("frame_name", std::string("f"))
        .Attr("is_constant", constant)
        .BuildOutput();
  };
  const Output start = enter(ops::Const<float>(root, 1), false);
  const Output merge =
      NodeBuilder(root, "Merge").Input(std::vector<Output>{start, start}).BuildOutput();
  const Output limit = enter(ops::Const<float>(root, 100), true);
  const Output go_on = One(root, "LoopCond", {ops::Less(root, merge, limit)});
  const auto sides = ops::Switch(root, merge, go_on);
  const Output inside = ops::Identity(root, sides.output_true);
  const Output looked_at_by_none = ops::Exp(root, ops::Neg(root, inside));
  const Output doubled =
      ops::AddV2(root.WithControlDependencies({looked_at_by_none.node}), inside, inside);
  const Output next = One(root, "NextIteration", {doubled});
  ASSERT_TRUE(root.graph()->UpdateInput(merge.node, 1, next).ok());
  const Output exit = One(root, "Exit", {sides.output_false});
  // What a loop gives may be looked at by none as well.
  const Output after =
      ops::Neg(root.WithControlDependencies({ops::Exp(root, ops::Neg(root, exit)).node}),
               limit.node->input(0));
  ASSERT_TRUE(root.ok()) << root.status();
  Session session(&graph, OnCpu());
  std::vector<Tensor> out;
  const absl::Status run = session.Run({}, {exit.name(), after.name()}, {}, &out);
  ASSERT_TRUE(run.ok()) << run;
  EXPECT_EQ(out[0].scalar<float>(), 128);
  EXPECT_EQ(out[1].scalar<float>(), -100);
}

// What a node that isn't run would have waited for is waited for all the same.
TEST(PlanPreparationTest, WaitsThroughWhatIsNotRun) {
  for (const bool resource : {false, true}) {
    Graph graph;
    Scope root(&graph);
    const Output x = ops::Placeholder(root, DType::kFloat, {});
    const Output one = ops::Const<float>(root, 1), ten = ops::Const<float>(root, 10);
    const auto named = [](const Node* n) { return n->name(); };
    std::string init;
    Output read, after;
    if (resource) {
      const Output v = NodeBuilder(root, "VarHandleOp")
                           .Attr("dtype", DType::kFloat)
                           .Attr("shape", PartialShape::Scalar())
                           .Attr("shared_name", std::string("v"))
                           .BuildOutput();
      const auto of_v = [&](const Scope& s, const char* op, std::vector<Output> value) {
        NodeBuilder b(s, op);
        b.Input(v);
        for (const Output& o : value) b.Input(o);
        return b.Attr("dtype", DType::kFloat).Build();
      };
      init = named(of_v(root, "AssignVariableOp", {one}));
      Node* const write = of_v(root, "AssignAddVariableOp", {ten});
      const Output second(of_v(root.WithControlDependencies({write}), "ReadVariableOp", {}), 0);
      after = ops::Exp(root, ops::Neg(root, second));
      read = Output(of_v(root.WithControlDependencies({after.node}), "ReadVariableOp", {}), 0);
    } else {
      const Output v = ops::VariableV2(root.WithOpName("v"), {}, DType::kFloat);
      init = named(ops::Assign(root, v, one).node);
      const Output written = ops::AssignAdd(root, v, ten);
      after = ops::Exp(root, ops::Neg(root, ops::Identity(root, written)));
      read = ops::Identity(root.WithControlDependencies({after.node}), v);
    }
    // Nodes that are ordered themselves, and one that isn't run after another.
    Node* const noop = ops::NoOp(root.WithControlDependencies(
        {ops::Mul(root.WithControlDependencies({read.node}), x, x).node}));
    const Output last = ops::Add(root.WithControlDependencies({noop}), x, read);
    ASSERT_TRUE(root.ok()) << root.status();
    Session session(&graph, OnCpu());
    std::vector<Tensor> out;
    ASSERT_TRUE(session.Run({}, {}, {init}, nullptr).ok());
    for (int i = 1; i < 4; ++i) {
      const absl::Status run =
          session.Run({{x.name(), Tensor::Scalar<float>(0.5f)}}, {last.name()}, {}, &out);
      ASSERT_TRUE(run.ok()) << run;
      EXPECT_EQ(out[0].scalar<float>(), 1.5f + 10 * static_cast<float>(i));
    }
  }
}

TEST(PlanPreparationTest, LeavesVariablesToTheirOwn) {
  Graph graph;
  Scope root(&graph);
  const Output v = ops::VariableV2(root.WithOpName("v"), {2}, DType::kFloat);
  const Output ones = ops::Const(root, Tensor::Of<float>({1, 1}));
  Node* const init = ops::Assign(root, v, ones).node;
  // A product with 1 is a copy, even of what is written later.
  const Output copy = ops::Mul(root, ops::Identity(root, v), ops::Const<float>(root, 1));
  const Output updated = ops::AssignAdd(root, v, copy);
  const Output raw = One(root, "Mul", {One(root, "AddV2", {v, ones}), v});
  ASSERT_TRUE(root.ok()) << root.status();
  Session session(&graph, OnCpu());
  std::vector<Tensor> out;
  const absl::Status status = session.Run({}, {raw.name()}, {}, &out);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  ASSERT_TRUE(session.Run({}, {}, {init->name()}, nullptr).ok());
  ASSERT_TRUE(session.Run({}, {copy.name(), updated.name()}, {}, &out).ok());
  EXPECT_EQ(out[0].data<float>()[0], 1);
  EXPECT_EQ(out[1].data<float>()[0], 2);
  ASSERT_TRUE(session.Run({}, {raw.name()}, {}, &out).ok());
  EXPECT_EQ(out[0].data<float>()[1], 6);
}

TEST(PlanPreparationTest, LoopsMayHaveIdentitiesAnywhere) {
  Graph graph;
  Scope root(&graph);
  const auto enter = NodeBuilder(root, "Enter")
                         .Input(ops::Const<float>(root, 1))
                         .Attr("frame_name", std::string("f"))
                         .BuildOutput();
  const Output before = ops::Identity(root, enter);
  const Output merge =
      NodeBuilder(root, "Merge").Input(std::vector<Output>{before, before}).BuildOutput();
  const Output limit = NodeBuilder(root, "Enter")
                           .Input(ops::Const<float>(root, 100))
                           .Attr("frame_name", std::string("f"))
                           .Attr("is_constant", true)
                           .BuildOutput();
  const Output go_on = One(root, "LoopCond", {ops::Less(root, merge, limit)});
  const auto sides = ops::Switch(root, merge, go_on);
  const Output inside = ops::Identity(root.WithOpName("inside"), sides.output_true);
  const Output next = One(root, "NextIteration", {ops::AddV2(root, inside, inside)});
  ASSERT_TRUE(root.graph()->UpdateInput(merge.node, 1, next).ok());
  const Output exit = One(root, "Exit", {sides.output_false});
  ASSERT_TRUE(root.ok()) << root.status();
  Session session(&graph, OnCpu());
  std::vector<Tensor> out;
  const absl::Status run = session.Run({}, {exit.name()}, {}, &out);
  ASSERT_TRUE(run.ok()) << run;
  EXPECT_EQ(out[0].scalar<float>(), 128);
  const absl::Status status = session.Run({}, {exit.name(), inside.name()}, {}, &out);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'inside'"));
}

TEST(PlanPreparationTest, ComputesElementWiseNodesTogether) {
  World w;
  const Output row = ops::Const(w.root, Tensor::Of<float>(std::vector<float>{1, 2, 3, 4}, {4}));
  Output y = ops::Mul(w.root, ops::Exp(w.root, ops::Neg(w.root, w.x)), row);
  y = ops::AddV2(w.root, y, ops::Const<float>(w.root, 3));
  EXPECT_EQ(w.Steps({y}), 1);
  // What is looked at elsewhere is computed on its own, once.
  const Output middle = y;
  y = ops::Sigmoid(w.root, ops::Mul(w.root, middle, ops::Tanh(w.root, middle)));
  EXPECT_EQ(w.Steps({y}), 2);
  EXPECT_EQ(w.Steps({y, middle}), 2);
  EXPECT_EQ(w.Steps({y}, {y.node->input(0).node}), 3);
  // Fed in the middle.
  Session session(&w.graph, OnCpu());
  std::vector<Tensor> out;
  Tensor fed = *Tensor::Allocate(DType::kFloat, {1, 4});
  for (int i = 0; i < 4; ++i) fed.data<float>()[i] = 0;
  ASSERT_TRUE(session.Run({{middle.name(), fed}}, {y.name()}, {}, &out).ok());
  EXPECT_EQ(out[0].data<float>()[2], 0.5f);
  // Rows of two lengths.
  {
    Graph graph;
    Scope root(&graph);
    const Output a = ops::Placeholder(root, DType::kFloat, {kUnknown, 2, 3});
    const Output b = ops::Const(root, Tensor::Of<float>({0, 1, 2, 3, 4, 5}, {2, 3}));
    const Output c = ops::Const(root, Tensor::Of<float>({1, 1, 1}, {3}));
    const Output d = ops::Mul(root, ops::AddV2(root, a, b), c);
    Session rows(&graph, OnCpu());
    for (const int64_t n : {1, 2}) {
      Tensor zeros = *Tensor::Allocate(DType::kFloat, {n, 2, 3});
      std::fill_n(zeros.data<float>(), zeros.num_elements(), 0.0f);
      std::vector<Tensor> sums;
      ASSERT_TRUE(rows.Run({{a.name(), zeros}}, {d.name()}, {}, &sums).ok());
      for (int64_t i = 0; i < 6 * n; ++i) {
        EXPECT_EQ(sums[0].data<float>()[i], static_cast<float>(i % 6));
      }
    }
  }
  // An error in a tree names its last node.
  const Output other = ops::Placeholder(w.root.WithOpName("other"), DType::kFloat, {kUnknown, 4});
  const Output sum = ops::Neg(w.root.WithOpName("tip"), ops::AddV2(w.root, w.x, other));
  const absl::Status status = session.Run({{"x", *Tensor::Allocate(DType::kFloat, {2, 4})},
                                           {"other", *Tensor::Allocate(DType::kFloat, {3, 4})}},
                                          {sum.name()}, {}, &out);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'tip'"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("[2,4] vs. [3,4]"));
}

// Random trees give the same bits whether they are computed together (only the root is fetched) or
// node by node (each is), with shapes that are as promised and with such that broadcast.
TEST(PlanPreparationTest, NamesWhatIsMissingBeforeNodesComputedTogether) {
  proto::GraphDef def;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(R"(
    node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
    node { name: "m" op: "NoSuchOp" input: "x" }
    node { name: "a" op: "Add" input: "m" input: "m" attr { key: "T" value { type: DT_FLOAT } } }
    node { name: "b" op: "Mul" input: "a" input: "m" attr { key: "T" value { type: DT_FLOAT } } }
    node { name: "z" op: "NorThisOne" input: "b" }
    node { name: "r" op: "Neg" input: "z" attr { key: "T" value { type: DT_FLOAT } } })",
                                                            &def));
  Graph graph;
  ASSERT_TRUE(ImportGraphDef({}, def, &graph).ok());
  CallableOptions signature;
  signature.feeds = {"x:0"};
  signature.fetches = {"r:0"};
  const absl::Status s = Session(&graph, OnCpu()).MakeCallable(signature).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kUnimplemented) << s;
  EXPECT_THAT(std::string(s.message()), AllOf(HasSubstr("NoSuchOp"), HasSubstr("NorThisOne")));
}

TEST(PlanPreparationTest, TreesGiveTheBitsOfTheirNodes) {
  const std::vector<std::string> unary = {"Neg",  "Exp",      "Tanh", "Sigmoid", "Square",
                                          "Relu", "Softplus", "Abs",  "Elu"};
  const std::vector<std::string> binary = {"AddV2",   "Sub",      "Mul",         "Maximum",
                                           "Minimum", "TanhGrad", "SigmoidGrad", "ReluGrad"};
  int together = 0, failed = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 gen(seed);
    const auto pick = [&](size_t n) { return static_cast<size_t>(gen() % n); };
    const DType type = pick(3) ? DType::kFloat : DType::kDouble;
    Graph graph;
    Scope root(&graph);
    // Leaves: of the full shape, of rows, of single elements.
    const std::vector<PartialShape> shapes = {
        {kUnknown, 7}, {kUnknown, 7}, {7}, PartialShape::Scalar(), {1, 1}};
    std::vector<Output> leaves, all, nodes;
    for (const PartialShape& s : shapes) leaves.push_back(ops::Placeholder(root, type, s));
    all = {leaves[0]};
    const size_t count = 1 + pick(40);
    for (size_t i = 0; i < count; ++i) {
      const Output x = all[all.size() - 1 - pick(std::min<size_t>(all.size(), 2))];
      if (pick(2)) {
        all.push_back(One(root, unary[pick(unary.size())], {x}));
      } else {
        const Output y = pick(2) ? leaves[pick(leaves.size())] : all[pick(all.size())];
        // Gradients of activations want one shape.
        const std::string& op = binary[pick(y.shape() == x.shape() ? binary.size() : 5)];
        all.push_back(
            One(root, op, pick(2) ? std::vector<Output>{x, y} : std::vector<Output>{y, x}));
      }
      nodes.push_back(all.back());
    }
    ASSERT_TRUE(root.ok()) << root.status();
    Session session(&graph, OnCpu(1 + static_cast<int>(seed % 2)));
    CallableOptions last, each;
    for (const Output& o : leaves) last.feeds.push_back(o.name());
    each.feeds = last.feeds;
    last.fetches = {nodes.back().name()};
    std::vector<Node*> above = {nodes.back().node};
    for (size_t i = 0; i < above.size(); ++i) {
      if (above[i]->num_inputs() == 0) continue;
      each.fetches.insert(each.fetches.begin(), Output(above[i], 0).name());
      for (const Output& in : above[i]->inputs()) {
        if (std::find(above.begin(), above.end(), in.node) == above.end()) {
          above.push_back(in.node);
        }
      }
    }
    const auto a = session.MakeCallable(last), b = session.MakeCallable(each);
    ASSERT_TRUE(a.ok() && b.ok());
    together += a->num_steps() < b->num_steps();
    for (const int64_t n : {3, 1, 0, 1200, 3}) {
      std::vector<Tensor> feeds;
      for (size_t i = 0; i < shapes.size(); ++i) {
        TensorShape shape;
        if (i < 2) shape = {i == 1 && pick(4) == 0 ? 1 : n, 7};
        if (i == 2) shape = {7};
        if (i == 4) shape = {1, 1};
        Tensor t = *Tensor::Allocate(type, shape);
        for (int64_t k = 0; k < t.num_elements(); ++k) {
          const double value = static_cast<double>(gen() % 2001) / 500 - 2;
          type == DType::kFloat ? void(t.data<float>()[k] = static_cast<float>(value))
                                : void(t.data<double>()[k] = value);
        }
        feeds.push_back(std::move(t));
      }
      std::vector<Tensor> one, many;
      const absl::Status sa = a->Run(feeds, &one), sb = b->Run(feeds, &many);
      // Gradients of activations refuse what broadcasts, in either way.
      ASSERT_EQ(sa.code(), sb.code()) << sa << "\n" << sb;
      if (!sa.ok()) {
        ++failed;
        continue;
      }
      ASSERT_EQ(one[0].shape(), many.back().shape()) << "seed " << seed << ", " << n << " rows";
      ASSERT_EQ(std::memcmp(one[0].raw(), many.back().raw(), one[0].bytes()), 0)
          << "seed " << seed << ", " << n << " rows";
    }
  }
  EXPECT_GT(together, 100);
  EXPECT_GT(failed, 0);
}

// What gives other values each time mustn't be taken for the same.
TEST(PlanPreparationTest, OpsWithSeedsAreStateful) {
  for (const OpInfo* info : AllOps()) {
    // Has seeds for its samplers' sake, and draws nothing.
    if (info->def.name() == "ComputeAccidentalHits") continue;
    for (const auto& attr : info->def.attr()) {
      if (attr.name() == "seed" || attr.name() == "seed2") {
        EXPECT_TRUE(info->def.is_stateful()) << info->def.name();
      }
    }
  }
}

}  // namespace
}  // namespace ferry
