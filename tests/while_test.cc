// While loops: values that go round, memory that is used again, variables, deadlines, and graphs
// that look like loops and are none.
#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "runtime/op/attr.h"
#include "runtime/session/session.h"
#include "runtime/tensor/buffer.h"

namespace ferry {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Values = std::vector<Output>;
using Step = std::function<Values(const Values&)>;
using Condition = std::function<Output(const Values&)>;

Output Enter(const Scope& s, Output value, const std::string& frame, bool constant) {
  return NodeBuilder(s, "Enter")
      .Input(value)
      .Attr("frame_name", frame)
      .Attr("is_constant", constant)
      .BuildOutput();
}
Output One(const Scope& s, const std::string& op, Output in) {
  return NodeBuilder(s, op).Input(in).BuildOutput();
}

// while (condition(values)) values = step(values), of a frame of that name.
Values While(const Scope& s, const std::string& frame, const Values& in, const Condition& condition,
             const Step& step) {
  Values merges, body, exits;
  for (Output o : in) {
    const Output entered = Enter(s, o, frame, false);
    merges.push_back(NodeBuilder(s, "Merge").Input(Values{entered, entered}).BuildOutput());
  }
  const Output go_on = One(s, "LoopCond", condition(merges));
  for (Output m : merges) {
    const auto sides = ops::Switch(s, m, go_on);
    exits.push_back(One(s, "Exit", sides.output_false));
    body.push_back(sides.output_true);
  }
  const Values next = step(body);
  for (size_t i = 0; i < in.size() && s.ok(); ++i) {
    s.UpdateStatus(s.graph()->UpdateInput(merges[i].node, 1, One(s, "NextIteration", next[i])));
  }
  return exits;
}

class WhileTest : public ::testing::Test {
 protected:
  Output Int(const std::string& frame, int32_t v) {
    return Enter(root, ops::Const<int32_t>(root, v), frame, true);
  }
  // Runs `step` as often as `times` says; values[0] counts.
  Values Repeat(const std::string& frame, Output times, Values in, const Step& step) {
    in.insert(in.begin(), ops::Const<int32_t>(root, 0));
    const Output limit = Enter(root, times, frame, true);
    const Output one = Int(frame, 1);
    return While(
        root, frame, in,
        [&](const Values& v) { return ops::Less(root, v[0], limit); },
        [&](const Values& v) {
          Values next = step(v);
          next.insert(next.begin(), ops::AddV2(root, v[0], one));
          return next;
        });
  }
  absl::Status Run(const std::vector<std::pair<Output, Tensor>>& feeds, const Values& fetches,
                   std::vector<Tensor>* out, const RunOptions& options = {}) {
    if (!root.ok()) return root.status();
    if (!session) session = std::make_unique<Session>(&graph);
    return session->Run(feeds, fetches, {}, out, options);
  }
  Graph graph;
  Scope root{&graph};
  std::unique_ptr<Session> session;
};

TEST_F(WhileTest, RepeatsWhatIsFed) {
  const Output n = ops::Placeholder(root, DType::kInt32, PartialShape::Scalar());
  const Output x = ops::Placeholder(root, DType::kFloat, PartialShape({2}));
  const Values out =
      Repeat("f", n, {x}, [&](const Values& v) { return Values{ops::AddV2(root, v[1], v[1])}; });
  for (const int32_t times : {3, 0, 1, 10}) {
    std::vector<Tensor> got;
    ASSERT_TRUE(
        Run({{n, Tensor::Scalar<int32_t>(times)}, {x, Tensor::Of<float>({1, 3})}}, out, &got).ok());
    EXPECT_EQ(got[0].scalar<int32_t>(), times);
    EXPECT_EQ(got[1].data<float>()[1], static_cast<float>(3 * (1 << times)));
  }
}

// What a Run allocates doesn't grow with the iterations.
TEST_F(WhileTest, IterationsAllocateNothing) {
  const Output n = ops::Placeholder(root, DType::kInt32, PartialShape::Scalar());
  const Output x = ops::Const(root, Tensor::Of<float>(std::vector<float>(1000, 1.5f)));
  const Values out = Repeat("f", n, {x, x}, [&](const Values& v) {
    const Output sum = ops::AddV2(root, v[1], v[2]);
    return Values{ops::Neg(root, ops::Relu(root, sum)), ops::AddV2(root, v[2], v[1])};
  });
  std::vector<Tensor> got;
  ASSERT_TRUE(Run({{n, Tensor::Scalar<int32_t>(5)}}, {out[2]}, &got).ok());
  got.clear();
  const int64_t after_few = HostAllocator::Get()->bytes_in_use();
  ASSERT_TRUE(Run({{n, Tensor::Scalar<int32_t>(500)}}, {out[2]}, &got).ok());
  got.clear();
  EXPECT_LE(HostAllocator::Get()->bytes_in_use(), after_few + 100);
}

TEST_F(WhileTest, UpdatesVariables) {
  const Output v = ops::VariableV2(root.WithOpName("v"), PartialShape::Scalar(), DType::kFloat);
  const Output init = ops::Assign(root, v, ops::Const<float>(root, 10));
  const Output n = ops::Placeholder(root, DType::kInt32, PartialShape::Scalar());
  const Output ref = NodeBuilder(root, "RefEnter")
                         .Input(v)
                         .Attr("frame_name", "f")
                         .Attr("is_constant", true)
                         .BuildOutput();
  const Values out = Repeat("f", n, {ops::Const<float>(root, 0)}, [&](const Values& values) {
    const Output updated = NodeBuilder(root, "AssignAdd")
                               .Input(ref)
                               .Input(ops::Cast(root, values[0], DType::kFloat))
                               .BuildOutput();
    return Values{ops::AddV2(root, values[1], updated)};
  });
  std::vector<Tensor> got;
  ASSERT_TRUE(Run({}, {init}, &got).ok());
  for (int run = 1; run <= 2; ++run) {
    ASSERT_TRUE(Run({{n, Tensor::Scalar<int32_t>(4)}}, {out[1], out[0]}, &got).ok());
    // 10, 11, 13, 16; then 16, 17, 19, 22.
    EXPECT_EQ(got[0].scalar<float>(), run == 1 ? 50 : 74);
  }
  ASSERT_TRUE(Run({}, {v}, &got).ok());
  EXPECT_EQ(got[0].scalar<float>(), 22);
}

// What lies between a Switch and an Exit runs once, in the last iteration, and what follows the
// Switch itself runs in all.
TEST_F(WhileTest, StepsAtTheEnd) {
  const Output n = ops::Placeholder(root, DType::kInt32, PartialShape::Scalar());
  const Output x = ops::Placeholder(root, DType::kFloat, PartialShape({2}));
  const Output v = ops::VariableV2(root.WithOpName("v"), PartialShape::Scalar(), DType::kFloat);
  const Output init = ops::Assign(root, v, ops::Const<float>(root, 0));
  Output last, negated;
  const Values out = Repeat("f", n, {x}, [&](const Values& values) {
    Node* const sides = values[1].node;
    const Output ref = NodeBuilder(root, "RefEnter")
                           .Input(v)
                           .Attr("frame_name", "f")
                           .Attr("is_constant", true)
                           .BuildOutput();
    const Output one = Enter(root, ops::Const<float>(root, 1), "f", true);
    Node* const count = NodeBuilder(root.WithControlDependencies({sides}), "AssignAdd")
                            .Input(ref)
                            .Input(one)
                            .Build();
    const Output end =
        ops::Identity(root.WithControlDependencies({count}), Output(sides, 0));
    last = One(root, "Exit", end);
    negated = One(root, "Exit", ops::Neg(root, ops::Neg(root, ops::Neg(root, end))));
    const Output go = ops::Identity(root.WithControlDependencies({count}), values[1]);
    return Values{ops::AddV2(root, go, values[1])};
  });
  std::vector<Tensor> got;
  ASSERT_TRUE(Run({}, {init}, &got).ok());
  float passed = 0;
  for (const int32_t times : {3, 0, 1, 10}) {
    const absl::Status status =
        Run({{n, Tensor::Scalar<int32_t>(times)}, {x, Tensor::Of<float>({1, 3})}},
            {out[1], last, negated}, &got);
    ASSERT_TRUE(status.ok()) << status;
    const float expected = static_cast<float>(3 * (1 << times));
    EXPECT_EQ(got[0].data<float>()[1], expected);
    EXPECT_EQ(got[1].data<float>()[1], expected);
    EXPECT_EQ(got[2].data<float>()[1], -expected);
    passed += static_cast<float>(times) + 1;
    ASSERT_TRUE(Run({}, {v}, &got).ok());
    EXPECT_EQ(got[0].scalar<float>(), passed);
  }
}

TEST_F(WhileTest, UninitializedVariable) {
  const Output v = ops::VariableV2(root.WithOpName("v"), PartialShape::Scalar(), DType::kFloat);
  const Values out = Repeat("f", ops::Const<int32_t>(root, 2), {v}, [&](const Values& values) {
    return Values{ops::Neg(root, values[1])};
  });
  std::vector<Tensor> got;
  EXPECT_THAT(std::string(Run({}, {out[1]}, &got).message()),
              HasSubstr("Attempting to use uninitialized value v"));
}

// A value that is read in one iteration stays what it was when the next one writes.
TEST_F(WhileTest, ReadsAreValues) {
  const Output handle = NodeBuilder(root.WithOpName("r"), "VarHandleOp")
                            .Attr("dtype", DType::kFloat)
                            .Attr("shape", PartialShape::Scalar())
                            .BuildOutput();
  const auto assign = [&](Output h, Output value, Node* after) {
    return NodeBuilder(after ? root.WithControlDependencies({after}) : root, "AssignVariableOp")
        .Input(h)
        .Input(value)
        .Build();
  };
  Node* const init = assign(handle, ops::Const<float>(root, 1), nullptr);
  const Output entered = Enter(root, handle, "f", true);
  const Values out = Repeat(
      "f", ops::Const<int32_t>(root, 4), {ops::Const<float>(root, 0)}, [&](const Values& values) {
        const Output read = NodeBuilder(root.WithControlDependencies({values[0].node}),
                                        "ReadVariableOp")
                                .Input(entered)
                                .Attr("dtype", DType::kFloat)
                                .BuildOutput();
        // The old value of the variable goes on, which is 3 times as large in the end.
        Node* const write = assign(
            entered, ops::Mul(root, read, Enter(root, ops::Const<float>(root, 3), "f", true)),
            nullptr);
        return Values{ops::Identity(root.WithControlDependencies({write}), read)};
      });
  ASSERT_TRUE(root.ok()) << root.status();
  Session s(&graph);
  std::vector<Tensor> got;
  ASSERT_TRUE(s.Run(absl::Span<const std::pair<Output, Tensor>>(), {}, {init}, nullptr).ok());
  ASSERT_TRUE(s.Run(absl::Span<const std::pair<Output, Tensor>>(), {out[1]}, {}, &got).ok());
  EXPECT_EQ(got[0].scalar<float>(), 27);
}

// Values that grow, and values that shrink to nothing.
TEST_F(WhileTest, ShapesThatChange) {
  const Output n = ops::Placeholder(root, DType::kInt32, PartialShape::Scalar());
  const Output x = ops::Placeholder(root, DType::kFloat, PartialShape::UnknownOfRank(1));
  const Output axis = Int("f", 0);
  const Output start = Enter(root, ops::ConstVector<int32_t>(root, {1}), "f", true);
  const Output size = Enter(root, ops::ConstVector<int32_t>(root, {-1}), "f", true);
  const Values out = Repeat("f", n, {x, x}, [&](const Values& v) {
    return Values{ops::ConcatV2(root, {v[1], v[1]}, axis), ops::Slice(root, v[2], start, size)};
  });
  std::vector<Tensor> got;
  for (const int32_t times : {4, 0, 2}) {
    const absl::Status status =
        Run({{n, Tensor::Scalar<int32_t>(times)}, {x, Tensor::Of<float>({1, 2, 3, 4})}},
            {out[1], out[2]}, &got);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(got[0].num_elements(), int64_t{4} << times);
    EXPECT_EQ(got[0].data<float>()[got[0].num_elements() - 1], 4);
    EXPECT_EQ(got[1].num_elements(), 4 - times);
  }
  // One more than there are elements.
  EXPECT_FALSE(
      Run({{n, Tensor::Scalar<int32_t>(5)}, {x, Tensor::Of<float>({1, 2, 3, 4})}}, out, &got).ok());
}

// The time for a plan grows with its nodes only.
TEST_F(WhileTest, ManyLoops) {
  Output x = ops::Const<float>(root, 1);
  for (int i = 0; i < 2000; ++i) {
    x = Repeat(absl::StrCat("f", i), ops::Const<int32_t>(root, 1), {x}, [&](const Values& v) {
      return Values{ops::Neg(root, v[1])};
    })[1];
  }
  std::vector<Tensor> got;
  const absl::Time start = absl::Now();
  const absl::Status status = Run({}, {x}, &got);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(got[0].scalar<float>(), 1);
  EXPECT_LT(absl::Now() - start, absl::Seconds(60));
}

TEST_F(WhileTest, EndlessLoopEndsAtTheDeadline) {
  const Values out = While(
      root, "f", {ops::Const<bool>(root, true)}, [](const Values& v) { return v[0]; },
      [](const Values& v) { return v; });
  std::vector<Tensor> got;
  RunOptions options;
  options.timeout = absl::Milliseconds(50);
  const absl::Time start = absl::Now();
  EXPECT_EQ(Run({}, {out[0]}, &got, options).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));
}

TEST_F(WhileTest, FetchedValuesAreTheCallers) {
  const Output n = ops::Placeholder(root, DType::kInt32, PartialShape::Scalar());
  const Output x = ops::Const(root, Tensor::Of<float>({1, 2}));
  const Values out =
      Repeat("f", n, {x}, [&](const Values& v) { return Values{ops::AddV2(root, v[1], v[1])}; });
  std::vector<Tensor> first, second;
  for (const int32_t times : {0, 2}) {
    ASSERT_TRUE(Run({{n, Tensor::Scalar<int32_t>(times)}}, {out[1]}, &first).ok());
    first[0].data<float>()[0] = 77;
    ASSERT_TRUE(Run({{n, Tensor::Scalar<int32_t>(times)}}, {out[1]}, &second).ok());
    EXPECT_EQ(second[0].data<float>()[0], static_cast<float>(1 << times));
    EXPECT_EQ(first[0].data<float>()[0], 77);
  }
}

// Bodies of all kinds give what they give when they are computed step by step.
TEST_F(WhileTest, RandomBodies) {
  std::mt19937 random(7);
  const auto below = [&](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(random);
  };
  for (int round = 0; round < 60; ++round) {
    Graph g;
    Scope s(&g);
    const size_t variables = 1 + below(4), ops_in_body = below(8);
    const std::string frame = "frame";
    const Output n = ops::Placeholder(s, DType::kInt32, PartialShape::Scalar());
    const Output fed = ops::Placeholder(s, DType::kFloat, PartialShape({3}));
    const Tensor constant = Tensor::Of<float>({1, -2, 3});
    Values in;
    std::vector<size_t> starts;
    for (size_t i = 0; i < variables; ++i) {
      starts.push_back(below(3));
      in.push_back(starts[i] == 0   ? fed
                   : starts[i] == 1 ? ops::Const(s, constant)
                                    : ops::Neg(s, fed));
    }
    struct Op {
      size_t kind, a, b;
    };
    std::vector<Op> body;
    std::vector<size_t> next;
    // Values: variables, a fed invariant, a constant, then what the body makes.
    for (size_t i = 0; i < ops_in_body; ++i) {
      const size_t have = variables + 2 + i;
      body.push_back({below(4), below(have), below(have)});
    }
    for (size_t i = 0; i < variables; ++i) next.push_back(below(variables + 2 + ops_in_body));
    in.insert(in.begin(), ops::Const<int32_t>(s, 0));
    const Output limit = Enter(s, n, frame, true);
    const Output one = Enter(s, ops::Const<int32_t>(s, 1), frame, true);
    const Output invariant = Enter(s, fed, frame, true);
    const Output const_in = Enter(s, ops::Const(s, constant), frame, true);
    const Values out = While(
        s, frame, in, [&](const Values& v) { return ops::Less(s, v[0], limit); },
        [&](const Values& v) {
          Values values(v.begin() + 1, v.end());
          values.push_back(invariant);
          values.push_back(const_in);
          for (const Op& op : body) {
            const Output a = values[op.a], b = values[op.b];
            values.push_back(op.kind == 0   ? ops::Neg(s, a)
                             : op.kind == 1 ? ops::AddV2(s, a, b)
                             : op.kind == 2 ? ops::Identity(s, a)
                                            : ops::Maximum(s, a, b));
          }
          Values result = {ops::AddV2(s, v[0], one)};
          for (size_t i : next) result.push_back(values[i]);
          return result;
        });
    ASSERT_TRUE(s.ok()) << s.status();
    Session session(&g);
    std::vector<Tensor> got, kept;
    for (int run = 0; run < 6; ++run) {
      const int32_t times = static_cast<int32_t>(below(6));
      const Tensor feed = Tensor::Of<float>({static_cast<float>(run), 5, -7});
      using Row = std::vector<float>;
      const auto map = [](const Row& a, const Row& b, auto f) {
        Row r;
        for (size_t i = 0; i < a.size(); ++i) r.push_back(f(a[i], b[i]));
        return r;
      };
      const Row f(feed.span<float>().begin(), feed.span<float>().end()), c = {1, -2, 3};
      const auto negated = [&](const Row& a) {
        return map(a, a, [](float x, float) { return -x; });
      };
      std::vector<Row> state;
      for (size_t i = 0; i < variables; ++i) {
        state.push_back(starts[i] == 0 ? f : starts[i] == 1 ? c : negated(f));
      }
      for (int32_t k = 0; k < times; ++k) {
        std::vector<Row> values = state;
        values.push_back(f);
        values.push_back(c);
        for (const Op& op : body) {
          const Row a = values[op.a], b = values[op.b];
          values.push_back(op.kind == 0   ? negated(a)
                           : op.kind == 1 ? map(a, b, [](float x, float y) { return x + y; })
                           : op.kind == 2
                               ? a
                               : map(a, b, [](float x, float y) { return std::max(x, y); }));
        }
        for (size_t i = 0; i < variables; ++i) state[i] = values[next[i]];
      }
      const std::vector<std::pair<Output, Tensor>> feeds = {{n, Tensor::Scalar<int32_t>(times)},
                                                            {fed, feed}};
      absl::Status status = session.Run(feeds, out, {}, &got);
      ASSERT_TRUE(status.ok()) << status;
      for (size_t i = 0; i < variables; ++i) {
        const auto span = got[i + 1].span<float>();
        EXPECT_EQ(Row(span.begin(), span.end()), state[i])
            << "round " << round << " run " << run << " variable " << i << " times " << times;
      }
      if (below(2) == 0) kept.insert(kept.end(), got.begin(), got.end());
      if (below(2) == 0) got.clear();
    }
  }
}

// ---- What is no loop ----

class BadLoopTest : public WhileTest {
 protected:
  absl::Status Fetch(Output o) {
    std::vector<Tensor> got;
    return Run({}, {o}, &got);
  }
  void ExpectError(const absl::Status& s, const std::string& words) {
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
    EXPECT_THAT(std::string(s.message()), HasSubstr(words));
  }
};

TEST_F(BadLoopTest, ExitWithoutEnter) {
  ExpectError(Fetch(One(root, "Exit", ops::Const<float>(root, 1))), "is in no frame");
}

TEST_F(BadLoopTest, TwoFrames) {
  const Output a = Enter(root, ops::Const<float>(root, 1), "a", true);
  const Output b = Enter(root, ops::Const<float>(root, 1), "b", true);
  ExpectError(Fetch(One(root, "Exit", ops::AddV2(root, a, b))), "has inputs from different frames");
  ExpectError(Fetch(One(root, "Exit", ops::AddV2(root, a, ops::Const<float>(root, 1)))),
              "has inputs from different frames");
}

TEST_F(BadLoopTest, FetchAndFeedWithin) {
  Output within;
  const Values out = Repeat("f", ops::Const<int32_t>(root, 2), {ops::Const<float>(root, 0)},
                            [&](const Values& v) {
                              within = ops::Neg(root, v[1]);
                              return Values{within};
                            });
  ExpectError(Fetch(within), "lies within the loop 'f'");
  std::vector<Tensor> got;
  ExpectError(Run({{within, Tensor::Scalar<float>(1)}}, {out[1]}, &got),
              "is in no frame");
}

TEST_F(BadLoopTest, WithoutCondition) {
  const Output entered = Enter(root, ops::Const<float>(root, 1), "f", false);
  const Output merge = NodeBuilder(root, "Merge").Input(Values{entered, entered}).BuildOutput();
  ASSERT_TRUE(graph.UpdateInput(merge.node, 1, One(root, "NextIteration", merge)).ok());
  ExpectError(Fetch(One(root, "Exit", merge)), "has no LoopCond");
}

TEST_F(BadLoopTest, MergeOfOtherInputs) {
  const Output entered = Enter(root, ops::Const<float>(root, 1), "f", false);
  const Output merge =
      NodeBuilder(root, "Merge").Input(Values{entered, entered, entered}).BuildOutput();
  ASSERT_TRUE(graph.UpdateInput(merge.node, 1, One(root, "NextIteration", merge)).ok());
  ExpectError(Fetch(One(root, "Exit", merge)),
              "its inputs must be one Enter and one NextIteration");
}

TEST_F(BadLoopTest, ExitOfTheBody) {
  Values body;
  const Values out = Repeat("f", ops::Const<int32_t>(root, 2), {ops::Const<float>(root, 0)},
                            [&](const Values& v) {
                              body = v;
                              return Values{ops::Neg(root, v[1])};
                            });
  ExpectError(Fetch(One(root, "Exit", body[1])), "must take the first output of a Switch");
  ExpectError(Fetch(One(root, "Exit", ops::Neg(root, body[1]))),
              "must take the first output of a Switch");
}

// A Switch by the loop's condition has a value on one side only.
TEST_F(BadLoopTest, BothSides) {
  Output both;
  Values out = Repeat("f", ops::Const<int32_t>(root, 2), {ops::Const<float>(root, 0)},
                      [&](const Values& v) {
                        both = ops::AddV2(root, v[1], Output(v[1].node, 0));
                        return Values{ops::Neg(root, v[1])};
                      });
  ExpectError(Fetch(One(root, "Exit", both)), "needs both sides");
  out = Repeat("g", ops::Const<int32_t>(root, 2), {ops::Const<float>(root, 0)},
               [&](const Values& v) { return Values{ops::Neg(root, Output(v[1].node, 0))}; });
  ExpectError(Fetch(out[1]), "which has a value only when the loop has ended; an Exit can");
}

TEST_F(BadLoopTest, CycleWithoutNextIteration) {
  const Values out = Repeat("f", ops::Const<int32_t>(root, 2), {ops::Const<float>(root, 0)},
                            [&](const Values& v) {
                              const Output a = ops::AddV2(root, v[1], v[1]);
                              const Output b = ops::Neg(root, a);
                              EXPECT_TRUE(graph.UpdateInput(a.node, 1, b).ok());
                              return Values{b};
                            });
  ExpectError(Fetch(out[1]), "cycle");
}

TEST_F(BadLoopTest, BackIntoItself) {
  // What leaves the loop enters it again.
  const Values out = Repeat("f", ops::Const<int32_t>(root, 2), {ops::Const<float>(root, 0)},
                            [&](const Values& v) { return Values{ops::Neg(root, v[1])}; });
  const Output again = Enter(root, ops::Neg(root, out[1]), "f", true);
  Node* const body = out[0].node->input(0).node;  // A Switch of the loop.
  ASSERT_TRUE(graph.AddControlEdge(again.node, body).ok());
  ExpectError(Fetch(out[1]), "cycle");
}

// Frames of one name, side by side, are one.
TEST_F(BadLoopTest, TwoLoopsOfOneName) {
  const auto loop = [&] {
    return Repeat("f", ops::Const<int32_t>(root, 2), {ops::Const<float>(root, 1)},
                  [&](const Values& v) { return Values{ops::Neg(root, v[1])}; })[1];
  };
  const Output first = loop(), second = loop();
  ExpectError(Fetch(ops::AddV2(root, first, second)), "has two conditions");
}

// The Exit of one loop takes a value of another.
TEST_F(BadLoopTest, ExitOfAnotherLoop) {
  const Output inner = Enter(root, Enter(root, ops::Const<float>(root, 1), "a", true), "b", true);
  const Output outer = Enter(root, ops::Const<float>(root, 1), "a", true);
  ExpectError(Fetch(One(root, "Exit", ops::AddV2(root, One(root, "Exit", inner),
                                                 One(root, "Exit", outer)))),
              "has inputs from different frames");
}

TEST_F(BadLoopTest, TooDeep) {
  Output v = ops::Const<float>(root, 1);
  for (int i = 0; i < 200; ++i) v = Enter(root, v, absl::StrCat("f", i), true);
  for (int i = 0; i < 200; ++i) v = One(root, "Exit", v);
  ExpectError(Fetch(v), "nested deeper than 100");
}

TEST_F(BadLoopTest, NextIterationElsewhere) {
  const Output entered = Enter(root, ops::Const<float>(root, 1), "f", true);
  const Output next = One(root, "NextIteration", entered);
  ExpectError(Fetch(One(root, "Exit", ops::Neg(root, next))), "which only a Merge can");
  Node* const after = ops::Neg(root.WithControlDependencies({next.node}), entered).node;
  ExpectError(Fetch(One(root, "Exit", Output(after, 0))), "leads to the next iteration");
}

TEST_F(BadLoopTest, DeadNextValue) {
  const Values out =
      Repeat("f", ops::Const<int32_t>(root, 2), {ops::Const<float>(root, 0)}, [&](const Values& v) {
        const Output no = Enter(root, ops::Const<bool>(root, false), "f", true);
        return Values{ops::Switch(root, v[1], no).output_true};
      });
  ExpectError(Fetch(out[1]), "not taken");
}

TEST_F(BadLoopTest, HandlesOfOtherThings) {
  const Output stack = NodeBuilder(root, "StackV2")
                           .Input(ops::Const<int32_t>(root, 2))
                           .Attr("elem_type", DType::kFloat)
                           .BuildOutput();
  ExpectError(Fetch(NodeBuilder(root, "ReadVariableOp")
                        .Input(stack)
                        .Attr("dtype", DType::kFloat)
                        .BuildOutput()),
              "is no variable");
  const Output variable = NodeBuilder(root, "VarHandleOp")
                              .Attr("dtype", DType::kFloat)
                              .Attr("shape", PartialShape::Scalar())
                              .BuildOutput();
  ExpectError(Fetch(NodeBuilder(root, "StackPopV2")
                        .Input(variable)
                        .Attr("elem_type", DType::kFloat)
                        .BuildOutput()),
              "is no stack");
}

TEST_F(BadLoopTest, NamesAllMissingOps) {
  proto::GraphDef def;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(R"(
    node { name: "c" op: "Const" attr { key: "dtype" value { type: DT_FLOAT } }
           attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape {} float_val: 1 } } } }
    node { name: "e" op: "Enter" input: "c" attr { key: "T" value { type: DT_FLOAT } }
           attr { key: "frame_name" value { s: "f" } }
           attr { key: "is_constant" value { b: true } } }
    node { name: "m" op: "NoSuchOp" input: "e" }
    node { name: "x" op: "Exit" input: "m" attr { key: "T" value { type: DT_FLOAT } } }
    node { name: "y" op: "NorThisOne" input: "x" }
    node { name: "z" op: "Identity" input: "y" attr { key: "T" value { type: DT_FLOAT } } })",
                                                            &def));
  ASSERT_TRUE(ImportGraphDef({}, def, &graph).ok());
  const absl::Status s = Fetch(Output(graph.FindNode("z"), 0));
  EXPECT_EQ(s.code(), absl::StatusCode::kUnimplemented) << s;
  EXPECT_THAT(std::string(s.message()), AllOf(HasSubstr("NoSuchOp"), HasSubstr("NorThisOne")));
}

TEST_F(BadLoopTest, ManyFrames) {
  Values all;
  for (int i = 0; i < 5000; ++i) {
    all.push_back(One(root, "Exit",
                      Enter(root, ops::Const<float>(root, 1), absl::StrCat("f", i), true)));
  }
  std::vector<Tensor> got;
  const absl::Time start = absl::Now();
  ASSERT_TRUE(Run({}, {ops::AddN(root, all)}, &got).ok());
  EXPECT_EQ(got[0].scalar<float>(), 5000);
  EXPECT_LT(absl::Now() - start, absl::Seconds(60));
}

}  // namespace
}  // namespace ferry
