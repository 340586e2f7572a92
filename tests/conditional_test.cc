// Conditionals: Switch and Merge on values and on references, branches that aren't taken, and
// gradients through them.
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;
using Branch = std::function<Output(const std::vector<Output>&)>;

class ConditionalTest : public ::testing::Test {
 protected:
  ConditionalTest() {
    pred = ops::Placeholder(root.WithOpName("pred"), DType::kBool, PartialShape::Scalar());
    x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {2});
    w = ops::Placeholder(root.WithOpName("w"), DType::kFloat, {2});
  }
  // Which branch runs is p's value; each sees the inputs through Switches of its own.
  Output Cond(Output p, const std::vector<Output>& in, const Branch& if_true,
              const Branch& if_false) {
    std::vector<Output> t, f;
    for (Output o : in) {
      t.push_back(ops::Switch(root, o, p).output_true);
      f.push_back(ops::Switch(root, o, p).output_false);
    }
    return ops::Merge(root, {if_false(f), if_true(t)}).output;
  }
  // The fetched values with x = {1, 2}, w = {10, 20}.
  std::vector<std::vector<float>> Fetch(bool p, const std::vector<Output>& what) {
    if (!root.ok()) {
      ADD_FAILURE() << root.status();
      return {};
    }
    if (!session) session = std::make_unique<Session>(&graph);
    std::vector<Tensor> out;
    absl::Status s = session->Run({{pred, Tensor::Scalar<bool>(p)},
                                   {x, Tensor::Of<float>({1, 2})},
                                   {w, Tensor::Of<float>({10, 20})}},
                                  what, {}, &out);
    EXPECT_TRUE(s.ok()) << s;
    std::vector<std::vector<float>> values;
    for (const Tensor& t : out) values.emplace_back(t.span<float>().begin(), t.span<float>().end());
    return values;
  }
  using V = std::vector<std::vector<float>>;
  Graph graph;
  Scope root{&graph};
  std::unique_ptr<Session> session;
  Output pred, x, w;
};

TEST_F(ConditionalTest, TakesOneBranch) {
  Output y = Cond(
      pred, {x}, [&](auto& in) { return ops::Square(root, in[0]); },
      [&](auto& in) { return ops::Neg(root, in[0]); });
  EXPECT_EQ(y.shape(), PartialShape({2}));
  Output after = ops::AddV2(root, y, x);
  EXPECT_EQ(Fetch(true, {y, after}), (V{{1, 4}, {2, 6}}));
  EXPECT_EQ(Fetch(false, {y, after}), (V{{-1, -2}, {0, 0}}));
}

TEST_F(ConditionalTest, MergeSaysWhichInputItTook) {
  auto sw = ops::Switch(root, x, pred);
  auto merge = ops::Merge(root, {sw.output_false, sw.output_true});
  ASSERT_TRUE(root.ok()) << root.status();
  Session s(&graph);
  for (bool p : {false, true}) {
    std::vector<Tensor> out;
    ASSERT_TRUE(s.Run({{pred, Tensor::Scalar<bool>(p)}, {x, Tensor::Of<float>({1, 2})}},
                      {merge.value_index}, {}, &out)
                    .ok());
    EXPECT_EQ(out[0].scalar<int32_t>(), p ? 1 : 0);
  }
}

TEST_F(ConditionalTest, TheOtherBranchHasNoEffectAndNoValue) {
  Output v = ops::VariableV2(root.WithOpName("v"), {2}, DType::kFloat);
  Output init = ops::Assign(root, v, ops::Const(root, Tensor::Of<float>({0, 0})));
  auto sw = ops::Switch(root, x, pred);
  Output add = ops::AssignAdd(root, v, sw.output_true);
  // Without data from the branch: held by a control edge.
  Output held = ops::AssignSub(
      root.WithControlDependencies({ops::Identity(root, sw.output_false).node}), v, w);
  Output done =
      ops::Merge(root, {ops::Identity(root, sw.output_false), ops::Identity(root, add)}).output;
  Node* all = ops::Group(root, {done.node});
  ASSERT_TRUE(root.ok()) << root.status();
  Session s(&graph);
  std::vector<Tensor> out;
  ASSERT_TRUE(s.Run({}, {init}, {}, &out).ok());
  auto run = [&](bool p, const std::vector<Node*>& targets, const std::vector<Output>& fetches) {
    return s.Run({{pred, Tensor::Scalar<bool>(p)},
                  {x, Tensor::Of<float>({1, 2})},
                  {w, Tensor::Of<float>({10, 20})}},
                 fetches, targets, &out);
  };
  auto value = [&] {
    EXPECT_TRUE(s.Run({}, {v}, {}, &out).ok());
    return std::vector<float>(out[0].span<float>().begin(), out[0].span<float>().end());
  };
  ASSERT_TRUE(run(false, {all, add.node}, {}).ok());
  EXPECT_EQ(value(), (std::vector<float>{0, 0}));
  ASSERT_TRUE(run(true, {all, held.node}, {}).ok());
  EXPECT_EQ(value(), (std::vector<float>{1, 2}));
  ASSERT_TRUE(run(false, {held.node}, {}).ok());
  EXPECT_EQ(value(), (std::vector<float>{-9, -18}));
  absl::Status dead = run(false, {}, {sw.output_true});
  EXPECT_EQ(dead.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(dead.message()), HasSubstr("does not have value"));
}

TEST_F(ConditionalTest, ReferencesPassThroughSwitchAndMerge) {
  Output v = ops::VariableV2(root.WithOpName("v"), {2}, DType::kFloat);
  Output init = ops::Assign(root, v, x);
  auto sw = ops::RefSwitch(root, v, pred);
  Output add = ops::AssignAdd(root, sw.output_true, w);
  Output sub = ops::AssignSub(root, sw.output_false, w);
  Output merged = NodeBuilder(root, "RefMerge").Input(std::vector<Output>{sub, add}).BuildOutput();
  Output last = ops::AssignAdd(root, merged, x);
  EXPECT_EQ(Fetch(true, {init}), (V{{1, 2}}));
  EXPECT_EQ(Fetch(true, {last}), (V{{12, 24}}));
  EXPECT_EQ(Fetch(false, {last}), (V{{3, 6}}));
  EXPECT_EQ(Fetch(true, {v}), (V{{3, 6}}));
}

TEST_F(ConditionalTest, GradientsFlowThroughTheBranchThatWasTaken) {
  // x^2 * w, or x * 3 (which has nothing of w).
  Output y = Cond(
      pred, {x, w}, [&](auto& in) { return ops::Mul(root, ops::Square(root, in[0]), in[1]); },
      [&](auto& in) { return ops::Mul(root, in[0], ops::Const<float>(root, 3)); });
  std::vector<Output> grads;
  ASSERT_EQ(AddSymbolicGradients(root, {ops::Mul(root, y, y)}, {x, w}, &grads), absl::OkStatus());
  ASSERT_NE(grads[0].node, nullptr);
  ASSERT_NE(grads[1].node, nullptr);
  // d(y^2)/dx = 2y * 2xw, d(y^2)/dw = 2y * x^2 with y = {10, 80}.
  EXPECT_EQ(Fetch(true, grads), (V{{400, 12800}, {20, 640}}));
  // y = 3x: 2y * 3, and zeros for w.
  EXPECT_EQ(Fetch(false, grads), (V{{18, 36}, {0, 0}}));
}

TEST_F(ConditionalTest, GradientsFlowThroughOneSwitchWithTwoBranches) {
  auto sw = ops::Switch(root, x, pred);
  Output y =
      ops::Merge(root, {ops::Neg(root, sw.output_false), ops::Square(root, sw.output_true)}).output;
  std::vector<Output> grads;
  ASSERT_EQ(AddSymbolicGradients(root, {y}, {x}, &grads), absl::OkStatus());
  EXPECT_EQ(Fetch(true, grads), (V{{2, 4}}));
  EXPECT_EQ(Fetch(false, grads), (V{{-1, -1}}));
}

TEST_F(ConditionalTest, GradientsFlowThroughNestedConditionals) {
  // If pred: if sum(x) < 100 then x^2 else x; otherwise -x.
  Output y = Cond(
      pred, {x},
      [&](auto& in) {
        Output inner = ops::Less(root, ops::ReduceSum(root, in[0]), ops::Const<float>(root, 100));
        return Cond(
            inner, {in[0]}, [&](auto& deep) { return ops::Square(root, deep[0]); },
            [&](auto& deep) { return ops::Identity(root, deep[0]); });
      },
      [&](auto& in) { return ops::Neg(root, in[0]); });
  std::vector<Output> grads;
  ASSERT_EQ(AddSymbolicGradients(root, {y}, {x}, &grads), absl::OkStatus());
  EXPECT_EQ(Fetch(true, {y, grads[0]}), (V{{1, 4}, {2, 4}}));
  EXPECT_EQ(Fetch(false, {y, grads[0]}), (V{{-1, -2}, {-1, -1}}));
}

TEST_F(ConditionalTest, ThreeWayMergePassesTheGradientOn) {
  auto outer = ops::Switch(root, x, pred);
  auto inner = ops::Switch(root, outer.output_true, ops::LogicalNot(root, pred));
  Output y =
      ops::Merge(root, {ops::Neg(root, outer.output_false), ops::Square(root, inner.output_false),
                        ops::Identity(root, inner.output_true)})
          .output;
  std::vector<Output> grads;
  ASSERT_EQ(AddSymbolicGradients(root, {y}, {x}, &grads), absl::OkStatus());
  EXPECT_EQ(Fetch(true, {y, grads[0]}), (V{{1, 4}, {2, 4}}));
  EXPECT_EQ(Fetch(false, {y, grads[0]}), (V{{-1, -2}, {-1, -1}}));
}

TEST_F(ConditionalTest, AssertNamesItsData) {
  Output ok = ops::Placeholder(root, DType::kBool);
  Node* check =
      NodeBuilder(root, "Assert")
          .Input(ok)
          .Input(std::vector<Output>{ops::Const(root, "x was"), x,
                                     ops::Const(root, Tensor::Of<int32_t>({1, 2, 3, 4}, {2, 2}))})
          .Build();
  ASSERT_TRUE(root.ok()) << root.status();
  Session s(&graph);
  std::vector<Tensor> out;
  auto run = [&](bool v) {
    return s.Run({{ok, Tensor::Scalar<bool>(v)}, {x, Tensor::Of<float>({1.5, 2})}}, {}, {check},
                 &out);
  };
  EXPECT_TRUE(run(true).ok());
  absl::Status failed = run(false);
  EXPECT_EQ(failed.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(failed.message()),
              HasSubstr("assertion failed: [x was] [1.5 2] [[1 2][3...]...]"));
}

TEST_F(ConditionalTest, PreventGradientSaysWhy) {
  Output y =
      NodeBuilder(root, "PreventGradient").Input(x).Attr("message", "not here").BuildOutput();
  std::vector<Output> grads;
  absl::Status s = AddSymbolicGradients(root, {y}, {x}, &grads);
  EXPECT_THAT(std::string(s.message()),
              HasSubstr("Gradient explicitly disabled. Reason: not here"));
}

}  // namespace
}  // namespace ferry
