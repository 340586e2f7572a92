// The optimizers' ops and what updates rows beside TensorFlow's, and what they promise of their
// own: errors, locks, and results that don't depend on threads. Built once for the CPU and once for
// a GPU.
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/scope.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "runtime/session/session.h"
#include "tests/op_cases.h"

#ifndef FERRY_TEST_DEVICE
#define FERRY_TEST_DEVICE "cpu"
#endif

namespace ferry {
namespace {

const std::string kDevice = FERRY_TEST_DEVICE;

// Whether what is wrong is an index's or a scalar's value, which a GPU can't tell of: it leaves out
// the row, or takes the scalar as it is.
bool IsAboutElements(const OpCase& c) {
  return absl::EndsWith(c.name, "_range") || absl::EndsWith(c.name, "_negative") ||
         absl::StrContains(c.name, "_bad_");
}

// The case's op, or its form for handles if `resource`, on variables that hold init0, init1 …; OK,
// or what differs from TensorFlow.
// `on_gpu` counts those whose op has a kernel for the GPU, if that is the device.
absl::Status CheckApplyCase(const OpCase& c, const proto::NodeDef& def, bool resource,
                            int* on_gpu) {
  std::string op = def.op();
  AttrMap attrs = def.attr();
  if (resource && !absl::StartsWith(op, "Resource")) {
    op = "Resource" + op;
    for (const proto::OpDef::AttrDef& attr : FindOp(op)->def.attr()) {
      if (attr.name() == "dtype") attrs["dtype"] = def.attr().at("T");
    }
  }
  const bool gpu = kDevice == "gpu" && FindKernel(op, DeviceType::kGpu, attrs).ok();
  *on_gpu += gpu;
  Graph graph;
  const Scope root = Scope(&graph).WithDevice(gpu ? "/gpu:0" : "/cpu:0");
  std::vector<Output> inputs;
  std::vector<Node*> initializers;
  std::vector<std::string> variables;  // What reads them.
  for (int i = 0; c.values.count(absl::StrCat("init", i)) > 0; ++i) {
    const Tensor& value = c.values.at(absl::StrCat("init", i));
    const Scope named = root.WithOpName(absl::StrCat("v", i));
    if (resource) {
      inputs.push_back(ops::VarHandleOp(named, PartialShape(), value.dtype()));
      initializers.push_back(ops::AssignVariableOp(root, inputs.back(), ops::Const(root, value)));
      variables.push_back(absl::StrCat("read", i));
      ops::ReadVariableOp(root.WithOpName(variables.back()), inputs.back(), value.dtype());
    } else {
      inputs.push_back(ops::VariableV2(named, PartialShape(), value.dtype()));
      initializers.push_back(ops::Assign(root, inputs.back(), ops::Const(root, value)).node);
      variables.push_back(absl::StrCat("v", i));
    }
  }
  std::vector<std::pair<std::string, Tensor>> feeds;
  for (int i = 0; c.values.count(absl::StrCat("in", i)) > 0; ++i) {
    const Tensor& value = c.values.at(absl::StrCat("in", i));
    inputs.push_back(ops::Placeholder(root.WithOpName(absl::StrCat("in", i)), value.dtype()));
    feeds.emplace_back(absl::StrCat("in", i), value);
  }
  ops::Group(root.WithOpName("init"), initializers);
  FERRY_RETURN_IF_ERROR(root.status());
  FERRY_RETURN_IF_ERROR(
      graph.AddNode("op", op, attrs, inputs, {}, gpu ? "/gpu:0" : "/cpu:0").status());
  SessionOptions options;
  options.device = kDevice;
  options.allow_soft_placement = !gpu;
  Session session(&graph, options);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {"init"}, nullptr));
  std::vector<Tensor> out;
  absl::Status run;
  if (resource) {
    run = session.Run(feeds, {}, {"op"}, nullptr);
  } else {
    run = session.Run(feeds, {"op"}, {}, &out);
  }
  if (c.values.count("error") > 0) {
    if (gpu && IsAboutElements(c)) return run;
    const auto words = c.values.at("error").span<std::string>();
    if (absl::StatusCodeToString(run.code()) != words[0]) {
      return Internal("expected ", words[0], ", found ", run.ToString());
    }
    for (size_t i = 1; i < words.size(); ++i) {
      if (!absl::StrContains(run.message(), words[i])) {
        return Internal("expected '", words[i], "', found ", run.ToString());
      }
    }
    return absl::OkStatus();
  }
  FERRY_RETURN_IF_ERROR(run);
  const double tol = c.values.count("tol") > 0 ? c.values.at("tol").scalar<float>() : 0;
  if (!resource) FERRY_RETURN_IF_ERROR(CompareTensors(c.values.at("expect0"), out[0], tol));
  FERRY_RETURN_IF_ERROR(session.Run({}, variables, {}, &out));
  for (size_t i = 0; i < variables.size(); ++i) {
    FERRY_RETURN_IF_ERROR(Annotate(
        CompareTensors(c.values.at(absl::StrCat("expect", i)), out[i], tol), variables[i]));
  }
  return absl::OkStatus();
}

TEST(ApplyTest, EqualsTensorFlow) {
  absl::StatusOr<std::vector<OpCase>> cases = LoadOpCases("op_cases/apply.pb");
  ASSERT_TRUE(cases.ok()) << cases.status();
  int ran = 0, on_gpu = 0;
  for (const OpCase& c : *cases) {
    proto::NodeDef def;
    ASSERT_TRUE(def.ParseFromString(c.values.at("apply").scalar<std::string>())) << c.name;
    const bool handles_only = absl::StartsWith(def.op(), "Resource");
    for (const bool resource : {false, true}) {
      if (resource ? def.op() == "Assign" || def.op() == "AssignAdd" || def.op() == "AssignSub"
                   : handles_only) {
        continue;
      }
      ++ran;
      const absl::Status s = CheckApplyCase(c, def, resource, &on_gpu);
      EXPECT_TRUE(s.ok()) << c.name << (resource ? " on handles: " : ": ") << s;
    }
  }
  EXPECT_GT(ran, 1000);
  if (kDevice == "gpu") {
    EXPECT_GT(on_gpu, 1000) << "of " << ran;
  }
}

// A graph with variables "var", "m" and "v" of n elements and an ApplyAdam "train" on them.
class Adam {
 public:
  explicit Adam(int64_t n, bool same_slots = false, int threads = 1)
      : root_(Scope(&graph_).WithDevice("/" + kDevice + ":0")) {
    const PartialShape shape({n});
    auto variable = [&](const char* name, float first) {
      const Output ref = ops::VariableV2(root_.WithOpName(name), shape, DType::kFloat);
      std::vector<float> values(static_cast<size_t>(n));
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = first + static_cast<float>(i % 97) / 97;
      }
      init_.push_back(ops::Assign(root_, ref, ops::Const(root_, Tensor::Of<float>(values))).node);
      return ref;
    };
    const Output var = variable("var", 0.5f), m = variable("m", 0.1f);
    const Output v = same_slots ? m : variable("v", 0.2f);
    ops::Group(root_.WithOpName("init"), init_);
    ops::Placeholder(root_.WithOpName("grad"), DType::kFloat);
    auto number = [&](float x) { return ops::Const<float>(root_, x); };
    NodeBuilder(root_.WithOpName("train"), "ApplyAdam")
        .Input(var)
        .Input(m)
        .Input(v)
        .Input(number(0.9f))
        .Input(number(0.999f))
        .Input(number(0.001f))
        .Input(number(0.9f))
        .Input(number(0.999f))
        .Input(number(1e-8f))
        .Input(*graph_.FindOutput("grad"))
        .Build();
    SessionOptions options;
    options.threads = threads;
    options.device = kDevice;
    session_ = std::make_unique<Session>(&graph_, options);
  }
  absl::Status Init() {
    FERRY_RETURN_IF_ERROR(root_.status());
    return session_->Run({}, {}, {"init"}, nullptr);
  }
  absl::Status Train(const Tensor& grad) {
    return session_->Run({{"grad", grad}}, {}, {"train"}, nullptr);
  }
  absl::StatusOr<std::vector<Tensor>> Values() {
    std::vector<Tensor> out;
    FERRY_RETURN_IF_ERROR(session_->Run({}, std::vector<std::string>{"var", "m"}, {}, &out));
    return out;
  }

 private:
  Graph graph_;
  Scope root_;
  std::vector<Node*> init_;
  std::unique_ptr<Session> session_;
};

Tensor Gradient(int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 89) / 89 - 0.4f;
  return Tensor::Of<float>(values);
}

TEST(ApplyTest, UninitialisedVariableIsNamed) {
  Adam adam(3);
  const absl::Status s = adam.Train(Gradient(3));
  EXPECT_EQ(s.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(s.message(), "ttempting to use uninitialized")) << s;
  EXPECT_TRUE(absl::StrContains(s.message(), "var")) << s;
}

TEST(ApplyTest, ShapesThatDifferAreNamed) {
  Adam adam(3);
  ASSERT_TRUE(adam.Init().ok());
  const absl::Status s = adam.Train(Gradient(2));
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(s.message(), "var and grad do not have the same shape[3] [2]"))
      << s;
}

TEST(ApplyTest, IndicesOutOfRangeNameTheVariable) {
  for (const char* op : {"SparseApplyProximalGradientDescent", "ScatterAdd", "ScatterNdAdd"}) {
    Graph graph;
    Scope root(&graph);
    const Output ref =
        ops::VariableV2(root.WithOpName("embedding"), PartialShape({3, 1}), DType::kFloat);
    const Output zeros = ops::Const(root, Tensor::Of<float>({0, 0, 0}));
    const Output column = ops::ConstVector<int32_t>(root, {3, 1});
    ops::Assign(root.WithOpName("init"), ref, ops::Reshape(root, zeros, column));
    const Output one = ops::Const<float>(root, 1);
    const Output rows = ops::Fill(root, ops::ConstVector<int32_t>(root, {1, 1}), one);
    const Output at = ops::ConstVector<int32_t>(root, {7});
    NodeBuilder b(root.WithOpName("update"), op);
    b.Input(ref);
    if (op[1] == 'p') {
      b.Input(one).Input(one).Input(one).Input(rows).Input(at);
    } else if (op[7] == 'N') {
      b.Input(ops::ExpandDims(root, at, ops::Const<int32_t>(root, 1))).Input(rows);
    } else {
      b.Input(at).Input(rows);
    }
    b.Build();
    ASSERT_TRUE(root.ok()) << root.status();
    SessionOptions options;
    options.device = "cpu";  // Only there they are errors.
    Session session(&graph, options);
    ASSERT_TRUE(session.Run({}, {}, {"init"}, nullptr).ok());
    const absl::Status s = session.Run({}, {}, {"update"}, nullptr);
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << op;
    EXPECT_TRUE(absl::StrContains(s.message(), "variable 'embedding'")) << s;
    EXPECT_TRUE(absl::StrContains(s.message(), "7")) << s;
  }
}

TEST(ApplyTest, OneVariableForTwoSlotsDoesNotDeadlock) {
  Adam adam(5, /*same_slots=*/true);
  ASSERT_TRUE(adam.Init().ok());
  EXPECT_TRUE(adam.Train(Gradient(5)).ok());
}

// Blocks of the parallel split cover every element once, and each element's result is its own.
TEST(ApplyTest, ResultsDependOnNeitherThreadsNorBlocks) {
  constexpr int64_t kLarge = 100003;
  std::vector<std::vector<Tensor>> results;
  for (int threads : {1, 2, 4}) {
    Adam adam(kLarge, false, threads);
    ASSERT_TRUE(adam.Init().ok());
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(adam.Train(Gradient(kLarge)).ok());
    absl::StatusOr<std::vector<Tensor>> values = adam.Values();
    ASSERT_TRUE(values.ok()) << values.status();
    results.push_back(*std::move(values));
  }
  for (size_t r = 1; r < results.size(); ++r) {
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_TRUE(CompareTensors(results[0][i], results[r][i]).ok());
    }
  }
}

// Two optimizers that hold the same variables in different orders, at once.
TEST(ApplyTest, ConcurrentStepsThatShareVariablesEnd) {
  Graph graph;
  Scope root(&graph);
  auto variable = [&](const char* name) {
    return ops::VariableV2(root.WithOpName(name), PartialShape({64}), DType::kFloat);
  };
  const Output a = variable("a"), b = variable("b");
  const Output ones = ops::Const(root, Tensor::Of<float>(std::vector<float>(64, 1)));
  const Output one = ops::Const<float>(root, 1);
  ops::Group(root.WithOpName("init"),
             {ops::Assign(root, a, ones).node, ops::Assign(root, b, ones).node});
  for (const auto& [name, first, second] :
       {std::make_tuple("ab", a, b), std::make_tuple("ba", b, a)}) {
    NodeBuilder(root.WithOpName(name), "ApplyMomentum")
        .Input(first)
        .Input(second)
        .Input(one)
        .Input(ones)
        .Input(one)
        .Build();
  }
  ASSERT_TRUE(root.ok()) << root.status();
  SessionOptions options;
  options.device = kDevice;
  Session session(&graph, options);
  ASSERT_TRUE(session.Run({}, {}, {"init"}, nullptr).ok());
  std::vector<std::thread> threads;
  std::vector<absl::Status> statuses(2);
  for (size_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < (kDevice == "gpu" ? 100 : 2000) && statuses[t].ok(); ++i) {
        statuses[t] = session.Run({}, {}, {t == 0 ? "ab" : "ba"}, nullptr);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_TRUE(statuses[0].ok()) << statuses[0];
  EXPECT_TRUE(statuses[1].ok()) << statuses[1];
}

}  // namespace
}  // namespace ferry
