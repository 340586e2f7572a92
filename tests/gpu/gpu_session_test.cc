// Session with GPUs: where nodes go, copies between memories, feeds and fetches, captured graphs,
// training beside the CPU's.
#include <cmath>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"
#include "tests/mlp.h"
#include "tools/dataset.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

#define ASSERT_OK(expr)             \
  do {                              \
    const absl::Status s_ = (expr); \
    ASSERT_TRUE(s_.ok()) << s_;     \
  } while (false)

std::vector<float> Floats(const Tensor& t) {
  return {t.data<float>(), t.data<float>() + t.num_elements()};
}

Tensor Vector(int64_t n, float first = 0) {
  Tensor t = *Tensor::Allocate(DType::kFloat, {n});
  for (int64_t i = 0; i < n; ++i) t.data<float>()[i] = first + static_cast<float>(i);
  return t;
}

SessionOptions OnGpu() {
  SessionOptions options;
  options.device = "gpu";
  return options;
}

TEST(GpuSession, FeedsAndFetchesGoThroughTheDevice) {
  Graph graph;
  const Scope root(&graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1});
  ops::Mul(root.WithOpName("z"), ops::AddV2(root.WithOpName("y"), x, x),
           ops::Const<float>(root, 3));
  ASSERT_OK(root.status());
  Session session(&graph, OnGpu());
  ASSERT_OK(session.status());
  ASSERT_NE(session.gpu(), nullptr);
  absl::StatusOr<Session::Callable> call = session.MakeCallable({{"x"}, {"z", "y"}, {}});
  ASSERT_OK(call.status());
  std::vector<Tensor> out, kept;
  // Sizes around the one from which copies take streams of their own, and back.
  for (const int64_t n : {1, 5, 16383, 16384, 16385, 100000, 5, 100000}) {
    ASSERT_OK(call->Run({Vector(n)}, &out));
    ASSERT_EQ(out[0].num_elements(), n);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(out[0].data<float>()[i], static_cast<float>(6 * i));
      ASSERT_EQ(out[1].data<float>()[i], static_cast<float>(2 * i));
    }
    if (n == 5 && kept.empty()) kept = out;
  }
  // A fetched tensor is the caller's to keep.
  EXPECT_EQ(Floats(kept[0]), (std::vector<float>{0, 6, 12, 18, 24}));
  // What was fed may be changed once Run has returned.
  Tensor fed = Vector(100000);
  ASSERT_OK(call->Run({fed}, &out));
  std::fill_n(fed.data<float>(), 100000, -1.f);
  EXPECT_EQ(out[0].data<float>()[99999], 6 * 99999.f);
}

TEST(GpuSession, PlacementFollowsDeviceStrings) {
  Graph graph;
  const Scope root(&graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1});
  const Output a = ops::AddV2(root.WithDevice("/cpu:0"), x, x);
  const Output b = ops::Mul(root.WithDevice("/device:GPU:0"), a, a);
  const Output c = ops::Sub(root.WithDevice("/job:localhost/replica:0/task:0/cpu:0"), b, a);
  ops::AddV2(root.WithOpName("z").WithDevice("/gpu:0"), c, b);
  ops::AddV2(root.WithOpName("nowhere").WithDevice("/gpu:7"), x, x);
  ops::AddV2(root.WithOpName("malformed").WithDevice("gpu0"), x, x);
  ASSERT_OK(root.status());
  SessionOptions options = OnGpu();
  options.log_device_placement = true;
  Session session(&graph, options);
  std::vector<Tensor> out;
  ::testing::internal::CaptureStderr();
  ASSERT_OK(session.Run({{"x", Vector(3, 1)}}, {"z"}, {}, &out));
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("z: (AddV2)/job:localhost/replica:0/task:0/device:GPU:0"));
  EXPECT_THAT(log, HasSubstr("Sub: (Sub)/job:localhost/replica:0/task:0/device:CPU:0"));
  EXPECT_EQ(Floats(out[0]), (std::vector<float>{2 * 4 - 2, 2 * 16 - 4, 2 * 36 - 6}));
  // Soft placement puts what can't be had on the CPU.
  ASSERT_OK(session.Run({{"x", Vector(1, 1)}}, {"nowhere"}, {}, &out));
  EXPECT_THAT(std::string(session.Run({{"x", Vector(1)}}, {"malformed"}, {}, &out).message()),
              HasSubstr("Malformed device specification 'gpu0'"));
  options.allow_soft_placement = false;
  options.log_device_placement = false;
  Session strict(&graph, options);
  ASSERT_OK(strict.Run({{"x", Vector(3, 1)}}, {"z"}, {}, &out));
  const absl::Status status = strict.Run({{"x", Vector(1)}}, {"nowhere"}, {}, &out);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("Cannot assign a device for operation nowhere: Could not satisfy explicit "
                        "device specification '/gpu:7'"));
}

TEST(GpuSession, ValuesPassBetweenTwoGpus) {
  if (GpuDevices().value().size() < 2) GTEST_SKIP() << "this machine has one GPU";
  Graph graph;
  const Scope root(&graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1});
  const Output a = ops::AddV2(root.WithDevice("/gpu:0"), x, x);
  const Output b = ops::Mul(root.WithDevice("/gpu:1"), a, a);
  const Output c = ops::Sub(root.WithDevice("/gpu:0"), b, a);
  ops::AddV2(root.WithOpName("z").WithDevice("/gpu:1"), c, b);
  Session session(&graph, OnGpu());
  std::vector<Tensor> out;
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK(session.Run({{"x", Vector(50000, 1)}}, {"z"}, {}, &out));
    ASSERT_EQ(Floats(out[0])[2], 2 * 36 - 6);
  }
}

TEST(GpuSession, VariablesLieWhereTheyArePlaced) {
  Graph graph;
  const Scope root(&graph);
  const Output v = ops::VariableV2(root.WithOpName("v"), {3}, DType::kFloat);
  ops::Assign(root.WithOpName("init"), v, ops::Const(root, Vector(3)));
  ops::Assign(root.WithOpName("inc"), v,
              ops::AddV2(root, v, ops::Const<float>(root, 1)));
  Session session(&graph, OnGpu());
  std::vector<Tensor> out;
  const absl::Status early = session.Run({}, {"v"}, {}, &out);
  EXPECT_THAT(std::string(early.message()), HasSubstr("Attempting to use uninitialized value v"));
  ASSERT_OK(session.Run({}, {}, {"init"}, nullptr));
  EXPECT_EQ(session.variables()->Find("v")->gpu(), session.gpu());
  const void* const at = session.variables()->Find("v")->tensor().raw();
  for (int i = 1; i <= 4; ++i) {
    ASSERT_OK(session.Run({}, {}, {"inc"}, nullptr));
    ASSERT_OK(session.Run({}, {"v"}, {}, &out));
    const float f = static_cast<float>(i);
    ASSERT_EQ(Floats(out[0]), (std::vector<float>{f, f + 1, f + 2}));
  }
  EXPECT_EQ(session.variables()->Find("v")->tensor().raw(), at);
}

TEST(GpuSession, CapturedGraphsGiveTheSame) {
  Graph graph;
  const Scope root(&graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1});
  Output y = x;
  for (int i = 0; i < 20; ++i) y = ops::AddV2(root, y, ops::Const<float>(root, 1));
  ops::Mul(root.WithOpName("z"), y, x);
  Session session(&graph, OnGpu());
  absl::StatusOr<Session::Callable> call = session.MakeCallable({{"x"}, {"z"}, {}});
  ASSERT_OK(call.status());
  std::vector<Tensor> out;
  for (int i = 0; i < 10; ++i) {
    // Another shape in between, and back.
    const int64_t n = i == 6 ? 50 : 33;
    const float first = static_cast<float>(i);
    ASSERT_OK(call->Run({Vector(n, first)}, &out));
    for (int64_t k = 0; k < n; ++k) {
      const float f = first + static_cast<float>(k);
      ASSERT_EQ(out[0].data<float>()[k], (f + 20) * f);
    }
  }
  EXPECT_GT(session.graph_replays(), 3);
  SessionOptions off = OnGpu();
  off.cuda_graphs = false;
  Session plain(&graph, off);
  for (int i = 0; i < 5; ++i) ASSERT_OK(plain.Run({{"x", Vector(5)}}, {"z"}, {}, &out));
  EXPECT_EQ(plain.graph_replays(), 0);
}

// A replayed graph draws new numbers each time: those that the CPU draws.
TEST(GpuSession, RandomNumbersAreReplayed) {
  Graph graph;
  const Scope root(&graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {37});
  const Output noise =
      ops::RandomUniform(root, ops::ConstVector<int32_t>(root, {37}), DType::kFloat, 3, 5);
  const Output keep = ops::GreaterEqual(root, noise, ops::Const<float>(root, 0.5f));
  ops::Mul(root.WithOpName("dropped"), x, ops::Cast(root, keep, DType::kFloat));
  ops::Identity(root.WithOpName("noise"), noise);
  ASSERT_OK(root.status());
  SessionOptions on_cpu;
  on_cpu.device = "cpu";
  Session cpu(&graph, on_cpu), gpu(&graph, OnGpu());
  for (int i = 0; i < 10; ++i) {
    std::vector<Tensor> a, b;
    const std::vector<std::pair<std::string, Tensor>> feeds = {{"x", Vector(37, 1)}};
    ASSERT_OK(cpu.Run(feeds, {"dropped", "noise"}, {}, &a));
    ASSERT_OK(gpu.Run(feeds, {"dropped", "noise"}, {}, &b));
    EXPECT_EQ(Floats(a[0]), Floats(b[0])) << i;
    EXPECT_EQ(Floats(a[1]), Floats(b[1])) << i;
  }
  EXPECT_GT(gpu.graph_replays(), 5);
}

TEST(GpuSession, SeveralThreadsRunAtOnce) {
  Graph graph;
  const Scope root(&graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1});
  ops::Mul(root.WithOpName("y"), ops::AddV2(root, x, x), x);
  Session session(&graph, OnGpu());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&session, t] {
      std::vector<Tensor> out;
      for (int i = 0; i < 12; ++i) {
        const float first = static_cast<float>(t * 100 + i);
        const absl::Status status = session.Run({{"x", Vector(20000, first)}}, {"y"}, {}, &out);
        ASSERT_TRUE(status.ok()) << status;
        ASSERT_EQ(out[0].data<float>()[0], 2 * first * first);
        ASSERT_EQ(out[0].data<float>()[19999], 2 * (first + 19999) * (first + 19999));
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

TEST(GpuSession, OutOfMemoryNamesTheNode) {
  Graph graph;
  const Scope root(&graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1});
  ops::AddV2(root.WithOpName("sum"), x, x);
  SessionOptions options = OnGpu();
  Session session(&graph, options);
  ASSERT_OK(session.gpu()->FreeCache());
  session.gpu()->set_memory_limit(session.gpu()->memory_stats().in_use + (6 << 20));
  std::vector<Tensor> out;
  const absl::Status status = session.Run({{"x", Vector(1 << 20)}}, {"sum"}, {}, &out);
  session.gpu()->set_memory_limit(0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("node 'sum' (AddV2)"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("4194304 bytes"));
  // The session goes on.
  ASSERT_OK(session.Run({{"x", Vector(1 << 20)}}, {"sum"}, {}, &out));
}

TEST(GpuSession, TrainingAgreesWithTheCpu) {
  absl::StatusOr<Dataset> data = BuiltInDigits();
  ASSERT_OK(data.status());
  const std::pair<const char*, bool> kinds[] = {
      {"adam", false}, {"momentum", false}, {"sgd", false}, {"adam", true}};
  for (const auto& [optimizer, use_resource] : kinds) {
    const std::unique_ptr<Optimizer> o = testing::MakeMlpOptimizer(optimizer);
    testing::Mlp mlp(o.get(), use_resource);
    ASSERT_OK(mlp.s.status());
    SessionOptions on_cpu;
    on_cpu.device = "cpu";
    Session cpu(&mlp.graph, on_cpu), gpu(&mlp.graph, OnGpu());
    ASSERT_OK(cpu.Run({}, {}, {mlp.init->name()}, nullptr));
    ASSERT_OK(gpu.Run({}, {}, {mlp.init->name()}, nullptr));
    std::vector<Tensor> out;
    float loss_cpu = 0, loss_gpu = 0;
    for (int step = 0; step < 100; ++step) {
      const testing::MlpFeeds feeds = testing::MlpBatch(data->train, step);
      ASSERT_OK(cpu.Run(feeds, {"loss"}, {mlp.train_op->name()}, &out));
      loss_cpu = out[0].scalar<float>();
      ASSERT_OK(gpu.Run(feeds, {"loss"}, {mlp.train_op->name()}, &out));
      loss_gpu = out[0].scalar<float>();
    }
    EXPECT_NEAR(loss_cpu, loss_gpu, 1e-3 * std::abs(loss_cpu) + 1e-4) << optimizer;
    EXPECT_GT(gpu.graph_replays(), 80) << optimizer;
    for (Variable* v : cpu.variables()->All()) {
      if (v->dtype() != DType::kFloat) continue;
      const std::string read = v->name() + (use_resource ? "/Read/ReadVariableOp" : "");
      std::vector<Tensor> a, b;
      ASSERT_OK(cpu.Run({}, {read}, {}, &a));
      ASSERT_OK(gpu.Run({}, {read}, {}, &b));
      // After 100 steps, from float sums taken in another order.
      double most = 0, apart = 0;
      for (int64_t i = 0; i < a[0].num_elements(); ++i) {
        most = std::max<double>(most, std::abs(a[0].data<float>()[i]));
        apart = std::max<double>(apart,
                                 std::abs(a[0].data<float>()[i] - b[0].data<float>()[i]));
      }
      EXPECT_LE(apart, 2e-3 * most + 1e-6) << optimizer << " " << v->name();
    }
  }
}

}  // namespace
}  // namespace ferry
