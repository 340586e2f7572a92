// Loops that WhileLoop builds, and gradients through them, against central differences.
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/control_flow.pb.h"
#include "runtime/graph/cond.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "tests/gradient_check.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MaxGradientError;
using testing::TestValues;
using Values = std::vector<Output>;

Output Sin(const Scope& s, Output x) { return NodeBuilder(s, "Sin").Input(x).BuildOutput(); }
Output Cos(const Scope& s, Output x) { return NodeBuilder(s, "Cos").Input(x).BuildOutput(); }

class WhileGradientsTest : public ::testing::Test {
 protected:
  Output Int(const Scope& s, int32_t v) { return ops::Const<int32_t>(s, v); }
  Output Double(const Scope& s, double v) { return ops::Const<double>(s, v); }
  Output Input(const PartialShape& shape) {
    return ops::Placeholder(root, DType::kDouble, shape);
  }
  // The variables after `times` of `body`, which is also given the number of the iteration.
  Values Repeat(const Scope& s, Output times, Values in,
                const std::function<Values(const Scope& s, Output i, const Values& v)>& body) {
    in.insert(in.begin(), Int(s, 0));
    Values out = WhileLoop(
        s, in, [&](const Scope& inner, const Values& v) { return ops::Less(inner, v[0], times); },
        [&](const Scope& inner, const Values& v) {
          Values next = body(inner, v[0], Values(v.begin() + 1, v.end()));
          next.insert(next.begin(), ops::AddV2(inner, v[0], Int(inner, 1)));
          return next;
        });
    if (!out.empty()) out.erase(out.begin());
    return out;
  }
  void ExpectGradients(Output y, const Values& xs, const std::vector<Tensor>& values) {
    ASSERT_TRUE(root.ok()) << root.status();
    const absl::StatusOr<double> error = MaxGradientError(root, y, xs, values);
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LT(*error, 1e-6);
  }
  absl::StatusOr<std::vector<Tensor>> Fetch(
      const Values& fetches, const std::vector<std::pair<Output, Tensor>>& feeds = {}) {
    if (!root.ok()) return root.status();
    Session session(&graph);
    std::vector<Tensor> out;
    absl::Status status = session.Run(feeds, fetches, {}, &out);
    if (!status.ok()) return status;
    return out;
  }
  Graph graph;
  Scope root{&graph};
};

TEST_F(WhileGradientsTest, ALoopIsBuiltAsTensorFlowDoes) {
  const Output n = ops::Placeholder(root.WithOpName("n"), DType::kInt32, PartialShape::Scalar());
  const Values out = WhileLoop(
      root, {Int(root, 0), ops::Const<float>(root, 0)},
      [&](const Scope& s, const Values& v) { return ops::Less(s, v[0], n); },
      [&](const Scope& s, const Values& v) {
        return Values{ops::AddV2(s, v[0], Int(s, 1)),
                      ops::AddV2(s, v[1], ops::Square(s, ops::Cast(s, v[0], DType::kFloat)))};
      });
  for (const int32_t times : {0, 1, 5}) {
    const auto got = Fetch(out, {{n, Tensor::Scalar<int32_t>(times)}});
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ((*got)[0].scalar<int32_t>(), times);
    EXPECT_EQ((*got)[1].scalar<float>(), times == 5 ? 30 : 0);
  }
  ASSERT_EQ(graph.collections().count(kWhileContext), 1u);
  proto::WhileContextDef def;
  ASSERT_TRUE(def.ParseFromString(graph.collections().at(kWhileContext).bytes_list().value(0)));
  EXPECT_EQ(def.context_name(), "while/while_context");
  EXPECT_EQ(def.pivot_name(), "while/LoopCond:0");
  EXPECT_EQ(def.pivot_for_pred_name(), "while/Merge:0");
  EXPECT_EQ(def.pivot_for_body_name(), "while/Identity:0");
  EXPECT_THAT(def.loop_enter_names(), ElementsAre("while/Enter:0", "while/Enter_1:0"));
  EXPECT_THAT(def.loop_exit_names(), ElementsAre("while/Exit:0", "while/Exit_1:0"));
  EXPECT_EQ(def.values_def().external_values().at("n:0"), "while/Less/Enter:0");
}

TEST_F(WhileGradientsTest, WhatIsNoLoop) {
  const auto build = [&](const Values& in, const WhileCondition& condition, const WhileBody& body) {
    Graph g;
    const Scope s(&g);
    Values own;
    for (size_t i = 0; i < in.size(); ++i) own.push_back(Double(s, 1));
    EXPECT_TRUE(WhileLoop(s, own, condition, body).empty());
    return std::string(s.status().message());
  };
  const auto forever = [](const Scope& s, const Values&) { return ops::Const<bool>(s, true); };
  const auto same = [](const Scope&, const Values& v) { return v; };
  EXPECT_THAT(build({}, forever, same), HasSubstr("there is no variable"));
  EXPECT_THAT(build({Output()}, forever, nullptr), HasSubstr("must be callable"));
  EXPECT_THAT(build({Output()}, [](const Scope&, const Values& v) { return v[0]; }, same),
              HasSubstr("the condition must be a bool scalar, found float64"));
  EXPECT_THAT(build({Output()}, forever, [](const Scope&, const Values&) { return Values(); }),
              HasSubstr("the body gives 0 values for 1 variables"));
  EXPECT_THAT(build({Output()}, forever,
                    [](const Scope& s, const Values&) {
                      return Values{ops::Const<float>(s, 1)};
                    }),
              HasSubstr("variable 0 is float64, the body gives float32"));
}

TEST_F(WhileGradientsTest, VariablesAndWhatIsTheSameInEachIteration) {
  const Output x = Input({2, 3}), w = Input({3, 3}), b = Input({3});
  for (const int32_t times : {0, 1, 4}) {
    const Values out =
        Repeat(root, Int(root, times), {x}, [&](const Scope& s, Output, const Values& v) {
          return Values{ops::Tanh(s, ops::AddV2(s, ops::MatMul(s, v[0], w), b))};
        });
    ExpectGradients(out[0], {x, w, b},
                    {TestValues({2, 3}), TestValues({3, 3}, -1, 1, 2), TestValues({3}, -1, 1, 3)});
  }
}

// Variables that exchange their values, one that nothing comes back to, one that is only passed on.
TEST_F(WhileGradientsTest, SeveralVariables) {
  const Output x = Input({2}), y = Input({2}), z = Input({2});
  const Values out = Repeat(root, Int(root, 5), {x, y, z, x},
                            [&](const Scope& s, Output i, const Values& v) {
                              const Output t = ops::Cast(s, i, DType::kDouble);
                              return Values{v[1], ops::Mul(s, v[0], Sin(s, v[1])), v[2],
                                            ops::AddV2(s, v[3], t)};
                            });
  const std::vector<Tensor> at = {TestValues({2}), TestValues({2}, -2, 2, 2),
                                  TestValues({2}, -2, 2, 3)};
  ExpectGradients(out[0], {x, y, z}, at);
  ExpectGradients(ops::AddN(root, out), {x, y, z}, at);
}

// How often it goes round is for the values to tell.
TEST_F(WhileGradientsTest, UntilTheValuesSaySo) {
  const Output x = Input(PartialShape::Scalar()), w = Input(PartialShape::Scalar());
  const Values out = WhileLoop(
      root, {x},
      [&](const Scope& s, const Values& v) { return ops::Less(s, v[0], Double(s, 100)); },
      [&](const Scope& s, const Values& v) {
        return Values{ops::AddV2(s, ops::Mul(s, v[0], v[0]), w)};
      });
  ExpectGradients(ops::Log(root, out[0]), {x, w},
                  {Tensor::Scalar<double>(1.5), Tensor::Scalar<double>(0.3)});
}

TEST_F(WhileGradientsTest, LoopsWithinLoops) {
  const Output x = Input({2}), w = Input({2}), b = Input(PartialShape::Scalar());
  const Values out =
      Repeat(root, Int(root, 3), {x}, [&](const Scope& s, Output i, const Values& v) {
        const Output scaled = ops::Mul(s, v[0], w);
        // As often as the outer loop has gone round, and once more.
        const Values inner = Repeat(s, ops::AddV2(s, i, Int(s, 1)), {scaled, v[0]},
                                    [&](const Scope& t, Output, const Values& u) {
                                      return Values{ops::Mul(t, u[0], Sin(t, u[1])),
                                                    ops::AddV2(t, u[1], ops::Mul(t, b, scaled))};
                                    });
        return Values{ops::AddV2(s, inner[0], inner[1])};
      });
  ExpectGradients(out[0], {x, w, b},
                  {TestValues({2}), TestValues({2}, -2, 2, 2), Tensor::Scalar<double>(0.7)});
}

TEST_F(WhileGradientsTest, ConditionalsWithinLoops) {
  const Output x = Input({2}), w = Input({2});
  const Output half = Double(root, 0.5);
  const Values out =
      Repeat(root, Int(root, 5), {x}, [&](const Scope& s, Output i, const Values& v) {
        const Output even =
            ops::Equal(s, ops::FloorMod(s, i, Int(s, 2)), Int(s, 0));
        const Output third = ops::Equal(s, i, Int(s, 3));
        return Values{Cond(
            s, even, [&](const Scope& t) { return ops::Mul(t, Sin(t, v[0]), w); },
            [&](const Scope& t) {
              const Output squared = ops::Square(t, v[0]);
              return Cond(
                  t, third, [&](const Scope& u) { return ops::Mul(u, squared, half); },
                  [&](const Scope& u) { return ops::Mul(u, Cos(u, squared), w); });
            })};
      });
  ExpectGradients(out[0], {x, w}, {TestValues({2}), TestValues({2}, -2, 2, 2)});
}

TEST_F(WhileGradientsTest, LoopsWithinConditionals) {
  const Output x = Input({2}), w = Input({2});
  const auto loop = [&](const Scope& s, int32_t times) {
    return Repeat(s, Int(s, times), {x}, [&](const Scope& t, Output, const Values& v) {
      return Values{ops::Mul(t, v[0], Sin(t, w))};
    })[0];
  };
  for (const bool value : {true, false}) {
    const Output y = Cond(
        root, ops::Const<bool>(root, value), [&](const Scope& s) { return loop(s, 3); },
        [&](const Scope& s) { return ops::Mul(s, loop(s, 2), w); });
    ExpectGradients(y, {x, w}, {TestValues({2}), TestValues({2}, -2, 2, 2)});
  }
  // And in a loop: the inner one runs in every second iteration.
  const Values out =
      Repeat(root, Int(root, 4), {x}, [&](const Scope& s, Output i, const Values& v) {
        const Output odd = ops::Equal(s, ops::FloorMod(s, i, Int(s, 2)), Int(s, 1));
        return Values{Cond(
            s, odd,
            [&](const Scope& t) {
              return Repeat(t, i, {v[0]}, [&](const Scope& u, Output, const Values& in) {
                return Values{ops::AddV2(u, ops::Mul(u, in[0], w), v[0])};
              })[0];
            },
            [&](const Scope& t) { return Sin(t, v[0]); })};
      });
  ExpectGradients(out[0], {x, w}, {TestValues({2}), TestValues({2}, -2, 2, 2)});
}

// Rows of a table in each iteration; the table's gradient is a tensor then.
TEST_F(WhileGradientsTest, RowsOfATable) {
  const Output x = Input({2}), table = Input({4, 2});
  const Values out =
      Repeat(root, Int(root, 4), {x}, [&](const Scope& s, Output i, const Values& v) {
        const Output row = ops::GatherV2(s, table, i, Int(s, 0));
        return Values{ops::Mul(s, v[0], row)};
      });
  ExpectGradients(out[0], {x, table}, {TestValues({2}), TestValues({4, 2}, -2, 2, 2)});
}

TEST_F(WhileGradientsTest, TensorArrays) {
  const Output x = Input({4, 2}), w = Input({2, 2}), h = Input({1, 2});
  const auto array = [&] {
    return NodeBuilder(root, "TensorArrayV3")
        .Input(Int(root, 4))
        .Attr("dtype", DType::kDouble)
        .Build();
  };
  Node* const read = array();
  Node* const written = array();
  const Output all = ops::Range(root, Int(root, 0), Int(root, 4), Int(root, 1));
  const Output filled = NodeBuilder(root, "TensorArrayScatterV3")
                            .Input(Output(read, 0))
                            .Input(all)
                            .Input(x)
                            .Input(Output(read, 1))
                            .BuildOutput();
  const Values out = Repeat(
      root, Int(root, 4), {h, Output(written, 1)},
      [&](const Scope& s, Output i, const Values& v) {
        const Output row = NodeBuilder(s, "TensorArrayReadV3")
                               .Input(Output(read, 0))
                               .Input(i)
                               .Input(filled)
                               .Attr("dtype", DType::kDouble)
                               .BuildOutput();
        const Output in = ops::ExpandDims(s, row, Int(s, 0));
        const Output state = ops::Tanh(s, ops::AddV2(s, ops::MatMul(s, v[0], w), in));
        const Output flow = NodeBuilder(s, "TensorArrayWriteV3")
                                .Input(Output(written, 0))
                                .Input(i)
                                .Input(state)
                                .Input(v[1])
                                .BuildOutput();
        return Values{state, flow};
      });
  ASSERT_TRUE(root.ok()) << root.status();
  const Output states = NodeBuilder(root, "TensorArrayGatherV3")
                            .Input(Output(written, 0))
                            .Input(all)
                            .Input(out[1])
                            .Attr("dtype", DType::kDouble)
                            .Attr("element_shape", PartialShape({1, 2}))
                            .BuildOutput();
  ExpectGradients(states, {x, w, h},
                  {TestValues({4, 2}), TestValues({2, 2}, -1, 1, 2), TestValues({1, 2}, -1, 1, 3)});
}

// Variables of both kinds, in a loop as in the same steps one by one.
TEST_F(WhileGradientsTest, OfVariables) {
  for (const bool resource : {false, true}) {
    VariableOptions options;
    options.use_resource = resource;
    options.initializer = [](const Scope& s, const TensorShape&, DType) {
      return ops::Const(s, Tensor::Of<float>({0.5f, -0.25f, 0.75f, 1}, {2, 2}));
    };
    const VariableHandle v =
        GetVariable(root, resource ? "r" : "v", {2, 2}, DType::kFloat, options);
    const Output x = ops::Const(root, Tensor::Of<float>({1, 2}, {1, 2}));
    Output unrolled = x;
    for (int i = 0; i < 3; ++i) unrolled = ops::Tanh(root, ops::MatMul(root, unrolled, v.read));
    const Values looped =
        Repeat(root, Int(root, 3), {x}, [&](const Scope& s, Output, const Values& in) {
          return Values{ops::Tanh(s, ops::MatMul(s, in[0], v.read))};
        });
    Values fetches;
    for (const Output y : {unrolled, looped[0]}) {
      for (const bool gate : {false, true}) {
        Values grads;
        const absl::Status status = AddSymbolicGradients(root, {y}, {v.ref}, &grads, {}, {}, gate);
        ASSERT_TRUE(status.ok()) << status;
        fetches.push_back(grads[0]);
      }
    }
    Session session(&graph);
    ASSERT_TRUE(session.Run({}, std::vector<Output>(), {v.initializer}, nullptr).ok());
    std::vector<Tensor> got;
    const absl::Status status = session.Run({}, fetches, {}, &got);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t k = 1; k < got.size(); ++k) {
      for (int i = 0; i < 4; ++i) {
        EXPECT_NEAR(got[k].data<float>()[i], got[0].data<float>()[i], 1e-6) << k;
      }
    }
  }
}

// ---- What has no gradient ----

TEST_F(WhileGradientsTest, WhatIsRefused) {
  const Output x = Input({2});
  Output within;
  const Values out = Repeat(root, Int(root, 3), {x}, [&](const Scope& s, Output, const Values& v) {
    within = ops::Square(s, v[0]);
    return Values{Sin(s, within)};
  });
  ASSERT_TRUE(root.ok()) << root.status();
  Values grads;
  absl::Status status = AddSymbolicGradients(root, {out[0]}, {within}, &grads);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("lies within a loop: 'while/Square:0'"));
  ASSERT_TRUE(AddSymbolicGradients(root, {out[0]}, {x}, &grads).ok());
  // The backward loop's stacks have none.
  const Output first = grads[0];
  status = AddSymbolicGradients(root, {first}, {x}, &grads);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no gradients of gradients through loops"));
}

TEST_F(WhileGradientsTest, AnOpWithoutGradientInTheBody) {
  const Output x = Input({2});
  const Values out = Repeat(root, Int(root, 3), {x}, [&](const Scope& s, Output, const Values& v) {
    return Values{NodeBuilder(s, "SoftsignGrad").Input(v[0]).Input(v[0]).BuildOutput()};
  });
  Values grads;
  const absl::Status status = AddSymbolicGradients(root, {out[0]}, {x}, &grads);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("while/SoftsignGrad"));
}

}  // namespace
}  // namespace ferry
