// Session: plans, order, memory, feeds and fetches, conditionals, errors, threads.
#include "runtime/session/session.h"

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"

namespace {

std::atomic<int64_t> allocations{0};

}  // namespace

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Counts what the program allocates, so that a Run's steady state can be seen to allocate nothing.
__attribute__((noinline)) void* operator new(size_t n) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif

namespace ferry {
namespace {

using ::testing::HasSubstr;

#define ASSERT_OK(expr)                     \
  do {                                      \
    const absl::Status s_ = (expr);         \
    ASSERT_TRUE(s_.ok()) << s_;             \
  } while (false)
#define EXPECT_ERROR(expr, code_, words)                            \
  do {                                                              \
    const absl::Status s_ = (expr);                                 \
    EXPECT_EQ(s_.code(), absl::StatusCode::code_) << s_;            \
    EXPECT_THAT(std::string(s_.message()), HasSubstr(words));       \
  } while (false)

std::vector<float> Floats(const Tensor& t) {
  return {t.data<float>(), t.data<float>() + t.num_elements()};
}

class SessionTest : public ::testing::Test {
 protected:
  // A float variable named `name` with an initializer node "<name>/Assign".
  Output MakeVariable(const std::string& name, const std::vector<float>& init) {
    const Scope s = root.WithPrefix(name + "/");
    const TensorShape shape({static_cast<int64_t>(init.size())});
    Output v = ops::VariableV2(root.WithOpName(name), shape, DType::kFloat);
    ops::Assign(s.WithOpName("Assign"), v, ops::Const(s, Tensor::Of<float>(init)));
    return v;
  }
  Graph graph;
  Scope root{&graph};
};

TEST_F(SessionTest, FeedsAndFetches) {
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1, 2});
  Output y = ops::AddV2(root.WithOpName("y"), x, ops::Const<float>(root, 10));
  Output z = ops::MatMul(root.WithOpName("z"), y, y, false, true);
  ASSERT_OK(root.status());
  Session session(&graph);
  std::vector<Tensor> out;
  for (int rows : {1, 3, 2, 300}) {
    Tensor feed = *Tensor::Allocate(DType::kFloat, {rows, 2});
    for (int i = 0; i < rows * 2; ++i) feed.data<float>()[i] = static_cast<float>(i);
    ASSERT_OK(session.Run({{"x:0", feed}}, {"y:0", "z", "x"}, {}, &out));
    ASSERT_EQ(out.size(), 3u);
    EXPECT_EQ(out[0].shape(), TensorShape({rows, 2}));
    EXPECT_EQ(out[0].data<float>()[1], 11);
    EXPECT_EQ(out[1].shape(), TensorShape({rows, rows}));
    EXPECT_EQ(out[1].data<float>()[0], 10 * 10 + 11 * 11);
    EXPECT_EQ(Floats(out[2]), Floats(feed));
  }
  // Any tensor can be fed, and what only it needed doesn't run.
  ASSERT_OK(session.Run({{y, Tensor::Of<float>({1, 2}, {1, 2})}}, {z}, {}, &out));
  EXPECT_EQ(out[0].scalar<float>(), 5);
}

TEST_F(SessionTest, FetchedTensorsAreTheCallersToKeep) {
  Output v = MakeVariable("v", {1, 2});
  Output read = ops::Identity(root.WithOpName("read"), v);
  ops::Const(root.WithOpName("c"), Tensor::Of<float>({7}));
  ops::AddV2(root.WithOpName("sum"), read, read);
  ops::AssignAdd(root.WithOpName("inc"), v, ops::Const(root, Tensor::Of<float>({1, 1})));
  ASSERT_OK(root.status());
  Session session(&graph);
  ASSERT_OK(session.Run({}, {}, {"v/Assign"}, nullptr));
  std::vector<Tensor> a, b;
  ASSERT_OK(session.Run({}, {"v:0", "read:0", "c:0", "sum:0"}, {}, &a));
  for (Tensor& t : a) t.data<float>()[0] = -1;  // Changes nothing but the caller's copy.
  ASSERT_OK(session.Run({}, {}, {"inc"}, nullptr));
  ASSERT_OK(session.Run({}, {"v:0", "read:0", "c:0", "sum:0"}, {}, &b));
  EXPECT_EQ(Floats(b[0]), (std::vector<float>{2, 3}));
  EXPECT_EQ(Floats(b[1]), (std::vector<float>{2, 3}));
  EXPECT_EQ(Floats(b[2]), (std::vector<float>{7}));
  EXPECT_EQ(Floats(b[3]), (std::vector<float>{4, 6}));
  EXPECT_EQ(Floats(a[0]), (std::vector<float>{-1, 2}));
  EXPECT_EQ(Floats(a[3]), (std::vector<float>{-1, 4}));
}

TEST_F(SessionTest, UnorderedReadsPrecedeWrites) {
  Output v = MakeVariable("v", {1});
  Output read = ops::Identity(root, v);
  Output twice = ops::AddV2(root.WithOpName("twice"), read, read);
  Output inc = ops::AssignAdd(root.WithOpName("inc"), v, ops::Const(root, Tensor::Of<float>({1})));
  // Ordered after the write, and so sees it.
  Output after = ops::Identity(root.WithOpName("after").WithControlDependencies({inc.node}), v);
  ASSERT_OK(root.status());
  Session session(&graph);
  ASSERT_OK(session.Run({}, {}, {"v/Assign"}, nullptr));
  std::vector<Tensor> out;
  for (int i = 1; i < 5; ++i) {
    ASSERT_OK(session.Run({}, {inc, twice, after}, {}, &out));
    EXPECT_EQ(out[1].data<float>()[0], 2.0f * static_cast<float>(i));
    EXPECT_EQ(out[2].data<float>()[0], static_cast<float>(i + 1));
  }
}

TEST_F(SessionTest, MemoryIsReusedWithoutMixingValues) {
  // Many values alive at once in a random-looking graph, against a plain computation.
  std::vector<Output> nodes;
  std::vector<std::vector<float>> want;
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {3});
  nodes.push_back(x);
  want.push_back({1, 2, 3});
  uint32_t seed = 12345;
  auto next = [&](size_t n) {
    seed = seed * 1664525u + 1013904223u;
    return static_cast<size_t>(seed >> 8) % n;
  };
  for (int i = 0; i < 400; ++i) {
    const size_t window = std::min<size_t>(nodes.size(), 20);
    const size_t a = nodes.size() - 1 - next(window), b = nodes.size() - 1 - next(window);
    std::vector<float> w(3);
    switch (next(4)) {
      case 0:
        nodes.push_back(ops::Sub(root, nodes[a], nodes[b]));
        for (size_t k = 0; k < 3; ++k) w[k] = want[a][k] - want[b][k];
        break;
      case 1:
        nodes.push_back(ops::Maximum(root, nodes[a], nodes[b]));
        for (size_t k = 0; k < 3; ++k) w[k] = std::max(want[a][k], want[b][k]);
        break;
      case 2:
        nodes.push_back(ops::Identity(root, nodes[a]));
        w = want[a];
        break;
      default:
        nodes.push_back(ops::Neg(root, nodes[a]));
        for (size_t k = 0; k < 3; ++k) w[k] = -want[a][k];
    }
    want.push_back(w);
  }
  ASSERT_OK(root.status());
  Session session(&graph);
  const std::vector<size_t> pick = {400, 399, 380, 200, 100, 37, 5};
  std::vector<Output> fetches;
  for (size_t p : pick) fetches.push_back(nodes[p]);
  std::vector<Tensor> out;
  for (int run = 0; run < 3; ++run) {
    ASSERT_OK(session.Run({{x, Tensor::Of<float>({1, 2, 3})}}, fetches, {}, &out));
    for (size_t i = 0; i < pick.size(); ++i) EXPECT_EQ(Floats(out[i]), want[pick[i]]) << pick[i];
  }
}

TEST_F(SessionTest, SteadyStateAllocatesNothing) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  const bool counted = false;
#else
  const bool counted = true;
#endif
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1, 4});
  Output w = MakeVariable("w", {1, 2, 3, 4});
  Output h = ops::Relu(root, ops::Mul(root, x, ops::Identity(root, w)));
  ops::ReduceSum(root.WithOpName("y"), h);
  ops::AssignAdd(root.WithOpName("inc"), w, ops::Const(root, Tensor::Of<float>({1, 1, 1, 1})));
  ASSERT_OK(root.status());
  Session session(&graph);
  ASSERT_OK(session.Run({}, {}, {"w/Assign"}, nullptr));
  absl::StatusOr<Session::Callable> call = session.MakeCallable({{"x"}, {"y"}, {"inc"}});
  ASSERT_OK(call.status());
  const Tensor feed = Tensor::Of<float>({1, 1, 1, 1, 2, 2, 2, 2}, {2, 4});
  std::vector<Tensor> out;
  for (int i = 0; i < 3; ++i) ASSERT_OK(call->Run({feed}, &out));
  const int64_t before = allocations, bytes = HostAllocator::Get()->bytes_in_use();
  for (int i = 0; i < 100; ++i) {
    const absl::Status s = call->Run({feed}, &out);
    if (!s.ok()) FAIL() << s;
  }
  if (counted) {
    EXPECT_EQ(allocations - before, 0);
  }
  EXPECT_EQ(HostAllocator::Get()->bytes_in_use(), bytes);
  EXPECT_EQ(out[0].scalar<float>(), 3 * (10 + 4 * 102));
}

TEST_F(SessionTest, Errors) {
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1, 2});
  Output y = ops::Neg(root.WithOpName("y"), x);
  Output v = MakeVariable("v", {1});
  ops::Identity(root.WithOpName("read"), v);
  ops::AssignAdd(root.WithOpName("inc"), v, ops::Const(root, Tensor::Of<float>({1})));
  ops::MatMul(root.WithOpName("mm"), y, ops::Placeholder(root.WithOpName("w"), DType::kFloat));
  ASSERT_OK(root.status());
  Session session(&graph);
  std::vector<Tensor> out;
  const Tensor good = Tensor::Of<float>({1, 2}, {1, 2});
  EXPECT_ERROR(session.Run({}, {"y"}, {}, &out), kInvalidArgument,
               "You must feed a value for placeholder tensor 'x' with dtype float and shape [?,2]");
  EXPECT_ERROR(session.Run({{"x", Tensor::Of<int32_t>({1, 2}, {1, 2})}}, {"y"}, {}, &out),
               kInvalidArgument, "feed x:0: float32 was expected, found int32");
  EXPECT_ERROR(session.Run({{"x", Tensor::Of<float>({1, 2, 3}, {1, 3})}}, {"y"}, {}, &out),
               kInvalidArgument, "Cannot feed value of shape [1,3] for tensor 'x:0'");
  EXPECT_ERROR(session.Run({{"x", good}, {"x:0", good}}, {"y"}, {}, &out), kInvalidArgument,
               "fed twice");
  EXPECT_ERROR(session.Run({{"nix", good}}, {"y"}, {}, &out), kNotFound, "nix");
  EXPECT_ERROR(session.Run({{"x", good}}, {"nope:0"}, {}, &out), kNotFound, "nope");
  EXPECT_ERROR(session.Run({{"x", good}}, {"y:7"}, {}, &out), kInvalidArgument, "y:7");
  EXPECT_ERROR(session.Run({}, {}, {"nowhere"}, &out), kNotFound, "nowhere");
  EXPECT_ERROR(session.Run({}, {"read"}, {}, &out), kFailedPrecondition,
               "Attempting to use uninitialized value v");
  EXPECT_ERROR(session.Run({}, {"v:0"}, {}, &out), kFailedPrecondition,
               "Attempting to use uninitialized value v");
  EXPECT_ERROR(session.Run({}, {}, {"inc"}, &out), kFailedPrecondition,
               "Attempting to use uninitialized value v");
  EXPECT_ERROR(session.Run({{"x", good}, {"w", Tensor::Of<float>({1, 2, 3}, {3, 1})}}, {"mm"}, {},
                           &out),
               kInvalidArgument, "node 'mm' (MatMul)");
  ASSERT_OK(session.Run({{"x", good}}, {"y"}, {}, &out));
}

// Iterators, queues and Python's functions, which programs had in front of their models.
TEST_F(SessionTest, OutputsOfMissingOpsCanBeFed) {
  proto::GraphDef def;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(R"(
    node { name: "next" op: "NextBatch" attr { key: "output_types" value {
             list { type: DT_FLOAT type: DT_INT64 } } } }
    node { name: "parsed" op: "Parsed" input: "next" }
    node { name: "sum" op: "AddV2" input: "next" input: "parsed:1"
           attr { key: "T" value { type: DT_FLOAT } } }
    node { name: "last" op: "Unheard" input: "sum" })",
                                                            &def));
  ASSERT_OK(ImportGraphDef({}, def, &graph));
  EXPECT_EQ(graph.FindNode("next")->output_types(),
            (std::vector<DType>{DType::kFloat, DType::kInt64}));
  // As its user says.
  EXPECT_EQ(Output(graph.FindNode("parsed"), 1).dtype(), DType::kFloat);
  Session session(&graph);
  std::vector<Tensor> out;
  const Tensor one = Tensor::Scalar<float>(1), two = Tensor::Scalar<float>(2);
  ASSERT_OK(session.Run({{"next:0", one}, {"parsed:1", two}}, {"sum:0"}, {}, &out));
  EXPECT_EQ(Floats(out[0]), (std::vector<float>{3}));
  const Tensor whole = Tensor::Scalar<int64_t>(1);
  EXPECT_ERROR(session.Run({{"next:0", whole}, {"parsed:1", two}}, {"sum:0"}, {}, &out),
               kInvalidArgument, "next:0");
  EXPECT_ERROR(session.Run({{"next:0", one}}, {"sum:0"}, {}, &out), kUnimplemented, "Parsed");
  // A fetch of such an op names it with the others.
  for (const char* const words : {"NextBatch", "Parsed", "Unheard"}) {
    EXPECT_ERROR(session.Run({}, {"last:0"}, {}, &out), kUnimplemented, words);
  }
  EXPECT_ERROR(session.Run({{"sum:0", one}}, {"last:0"}, {}, &out), kUnimplemented, "Unheard");
}

TEST_F(SessionTest, ACycleIsNamed) {
  Output a = ops::Placeholder(root.WithOpName("a"), DType::kFloat, {});
  Output b = ops::Neg(root.WithOpName("b"), a);
  Output c = ops::Neg(root.WithOpName("c"), b);
  ASSERT_OK(root.status());
  ASSERT_OK(graph.UpdateInput(b.node, 0, c));
  Session session(&graph);
  std::vector<Tensor> out;
  EXPECT_ERROR(session.Run({}, {"c"}, {}, &out), kInvalidArgument, "cycle: ");
  // Fed inside, the cycle is cut.
  ASSERT_OK(session.Run({{"b", Tensor::Scalar<float>(2)}}, {"c"}, {}, &out));
  EXPECT_EQ(out[0].scalar<float>(), -2);
}

TEST_F(SessionTest, ALongChainRuns) {
  Output x = ops::Const<float>(root, 0);
  Output one = ops::Const<float>(root, 1);
  for (int i = 0; i < 100000; ++i) x = ops::AddV2(root, x, one);
  ASSERT_OK(root.status());
  Session session(&graph);
  std::vector<Tensor> out;
  ASSERT_OK(session.Run({}, {x}, {}, &out));
  EXPECT_EQ(out[0].scalar<float>(), 100000);
}

TEST_F(SessionTest, ADeadlineEndsARun) {
  Output x = ops::Const(root, *Tensor::Allocate(DType::kFloat, {1}));
  for (int i = 0; i < 1000; ++i) x = ops::Neg(root, x);
  ASSERT_OK(root.status());
  Session session(&graph);
  std::vector<Tensor> out;
  RunOptions options;
  options.timeout = absl::Nanoseconds(1);
  EXPECT_ERROR(session.Run(std::vector<std::pair<Output, Tensor>>{}, {x}, {}, &out, options),
               kDeadlineExceeded, "deadline");
  ASSERT_OK(session.Run(std::vector<std::pair<Output, Tensor>>{}, {x}, {}, &out));
}

TEST_F(SessionTest, ADeadlineThatPassesInTheLastStepIsTold) {
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {1500, 1500});
  ops::MatMul(root.WithOpName("product"), x, x);
  ASSERT_OK(root.status());
  Session session(&graph);
  const Tensor ones = Tensor::Of<float>(std::vector<float>(1500 * 1500, 1), {1500, 1500});
  RunOptions options;
  options.timeout = absl::Milliseconds(1);
  std::vector<Tensor> out;
  EXPECT_ERROR(session.Run({{"x", ones}}, {"product"}, {}, &out, options), kDeadlineExceeded,
               "node 'product' (MatMul)");
}

TEST_F(SessionTest, AnEmptyCallableIsAnError) {
  EXPECT_ERROR(Session::Callable().Run({}, nullptr), kFailedPrecondition, "MakeCallable");
}

TEST_F(SessionTest, AFedVariableCanBeReadButNotWritten) {
  const Output v = MakeVariable("v", {1, 2});
  ops::Identity(root.WithOpName("read"), v);
  ops::AssignAdd(root.WithOpName("add"), v, ops::Const(root, Tensor::Of<float>({1, 1})));
  ASSERT_OK(root.status());
  Session session(&graph);
  const Tensor fed = Tensor::Of<float>({5, 6});
  std::vector<Tensor> out;
  ASSERT_OK(session.Run({{"v", fed}}, {"read"}, {}, &out));
  EXPECT_EQ(Floats(out[0]), (std::vector<float>{5, 6}));
  for (const char* target : {"add", "v/Assign"}) {
    EXPECT_ERROR(session.Run({{"v", fed}}, {}, {target}, nullptr), kInvalidArgument,
                 "needs the variable 'v' itself, but tensor v:0 is fed a value");
  }
}

TEST_F(SessionTest, ConditionalsTakeOneBranch) {
  Output p = ops::Placeholder(root.WithOpName("p"), DType::kBool, PartialShape::Scalar());
  Output x = ops::Const<float>(root, 5);
  ops::SwitchOutputs sw = ops::Switch(root, x, p);
  Output t = ops::Square(root, sw.output_true);
  Output f = ops::Neg(root, sw.output_false);
  // A constant inside a branch hangs on it by a control edge.
  Output pivot = ops::Identity(root, sw.output_false);
  Output k = ops::Const<float>(root.WithControlDependencies({pivot.node}), 100);
  Output f2 = ops::AddV2(root, f, k);
  ops::MergeOutputs m = ops::Merge(root, {f2, t});
  ASSERT_OK(root.status());
  Session session(&graph);
  std::vector<Tensor> out;
  for (bool pred : {true, false, false, true, true}) {
    ASSERT_OK(session.Run({{p, Tensor::Scalar<bool>(pred)}}, {m.output, m.value_index}, {}, &out));
    EXPECT_EQ(out[0].scalar<float>(), pred ? 25 : 95);
    EXPECT_EQ(out[1].scalar<int32_t>(), pred ? 1 : 0);
  }
  EXPECT_ERROR(session.Run({{p, Tensor::Scalar<bool>(false)}}, {t}, {}, &out), kInvalidArgument,
               "not taken");
}

TEST_F(SessionTest, ManyThreadsRunAtOnce) {
  Output v = MakeVariable("v", {0, 0, 0});
  ops::AssignAdd(root.WithOpName("inc"), v, ops::Const(root, Tensor::Of<float>({1, 2, 3})));
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {});
  ops::Mul(root.WithOpName("y"), ops::AddV2(root, x, x), x);
  ASSERT_OK(root.status());
  Session session(&graph);
  ASSERT_OK(session.Run({}, {}, {"v/Assign"}, nullptr));
  std::atomic<int> bad{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::vector<Tensor> out;
      for (int i = 0; i < 500; ++i) {
        const float f = static_cast<float>(t * 1000 + i);
        if (!session.Run({{"x", Tensor::Scalar<float>(f)}}, {"y"}, {}, &out).ok() ||
            out[0].scalar<float>() != 2 * f * f || !session.Run({}, {}, {"inc"}, nullptr).ok() ||
            !session.Run({}, {"v"}, {}, &out).ok() ||
            out[0].data<float>()[1] != 2 * out[0].data<float>()[0]) {
          ++bad;
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(bad, 0);
  std::vector<Tensor> out;
  ASSERT_OK(session.Run({}, {"v"}, {}, &out));
  EXPECT_EQ(Floats(out[0]), (std::vector<float>{2000, 4000, 6000}));
}

}  // namespace
}  // namespace ferry
