// The random ops beside TensorFlow's, run by run, and what they promise of their own.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/scope.h"
#include "runtime/session/session.h"
#include "tests/op_cases.h"

namespace ferry {
namespace {

// Elements first, first + step … of `t`, `count` of them at most.
Tensor Pick(const Tensor& t, int64_t first, int64_t step, int64_t count) {
  const int64_t n = std::min(count, (t.num_elements() - first + step - 1) / step);
  Tensor out = *Tensor::Allocate(t.dtype(), TensorShape({n}));
  const size_t size = ElementSize(t.dtype());
  for (int64_t i = 0; i < n; ++i) {
    std::memcpy(static_cast<char*>(out.raw()) + static_cast<size_t>(i) * size,
                static_cast<const char*>(t.raw()) + static_cast<size_t>(first + i * step) * size,
                size);
  }
  return out;
}

absl::Status CheckRun(const OpCase& c, int run, const Tensor& found, double tol) {
  auto expected = [&](const char* what) -> const Tensor* {
    auto it = c.values.find(absl::StrCat(what, run));
    return it == c.values.end() ? nullptr : &it->second;
  };
  if (const Tensor* all = expected("expect")) return CompareTensors(*all, found, tol);
  FERRY_RETURN_IF_ERROR(
      Annotate(CompareTensors(*expected("head"), Pick(found, 0, 1, 32), tol), "head"));
  FERRY_RETURN_IF_ERROR(Annotate(
      CompareTensors(*expected("tail"), Pick(found, found.num_elements() - 32, 1, 32), tol),
      "tail"));
  FERRY_RETURN_IF_ERROR(
      Annotate(CompareTensors(*expected("sample"), Pick(found, 0, 997, found.num_elements()), tol),
               "sample"));
  if (tol == 0 &&
      ExtendCrc32c(0, found.raw(), found.bytes()) != expected("crc")->scalar<uint32_t>()) {
    return Internal("the crc32c of all elements differs");
  }
  return absl::OkStatus();
}

absl::Status CheckRandomCase(const OpCase& c, int threads) {
  Graph graph;
  Scope root(&graph);
  std::vector<Output> inputs;
  for (int i = 0; c.values.count(absl::StrCat("in", i)) > 0; ++i) {
    inputs.push_back(ops::Const(root, c.values.at(absl::StrCat("in", i))));
  }
  FERRY_RETURN_IF_ERROR(root.status());
  const proto::NodeDef& def = c.nodes.at(0);
  SessionOptions options;
  options.threads = threads;
  absl::Status status = graph.AddNode("op", def.op(), def.attr(), inputs).status();
  Session session(&graph, options);
  if (c.values.count("error") > 0) {
    std::vector<Tensor> out;
    if (status.ok()) status = session.Run({}, {"op"}, {}, &out);
    const std::string& code = c.values.at("error").data<std::string>()[0];
    return absl::StatusCodeToString(status.code()) == code
               ? absl::OkStatus()
               : Internal("expected ", code, ", found ", status.ToString());
  }
  FERRY_RETURN_IF_ERROR(status);
  const double tol = c.values.count("tol") > 0 ? c.values.at("tol").scalar<float>() : 0;
  int run = 0;
  for (;; ++run) {
    if (c.values.count(absl::StrCat("expect", run)) + c.values.count(absl::StrCat("head", run)) ==
        0) {
      break;
    }
    std::vector<Tensor> out;
    FERRY_RETURN_IF_ERROR(session.Run({}, {"op"}, {}, &out));
    FERRY_RETURN_IF_ERROR(Annotate(CheckRun(c, run, out[0], tol), absl::StrCat("run ", run)));
  }
  return run > 0 ? absl::OkStatus() : Internal("no results to compare with");
}

class PhiloxTest : public ::testing::TestWithParam<const char*> {};

TEST_P(PhiloxTest, EqualsTensorFlow) {
  absl::StatusOr<std::vector<OpCase>> cases =
      LoadOpCases(absl::StrCat("philox/", GetParam(), ".pb"));
  ASSERT_TRUE(cases.ok()) << cases.status();
  ASSERT_FALSE(cases->empty());
  for (const OpCase& c : *cases) {
    for (int threads : {1, 3}) {
      const absl::Status s = CheckRandomCase(c, threads);
      EXPECT_TRUE(s.ok()) << c.name << ", " << threads << " threads: " << s;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, PhiloxTest, ::testing::Values("uniform", "normal"),
                         [](const auto& info) { return info.param; });

TEST(RandomTest, WithoutSeedsNodesDiffer) {
  Graph graph;
  Scope root(&graph);
  const Output shape = ops::ConstVector<int32_t>(root, {4});
  const Output a = ops::RandomUniform(root, shape, DType::kFloat);
  const Output b = ops::RandomUniform(root, shape, DType::kFloat);
  Session session(&graph);
  std::vector<Tensor> out;
  ASSERT_TRUE(session.Run(std::vector<std::pair<Output, Tensor>>(), {a, b}, {}, &out).ok());
  EXPECT_FALSE(CompareTensors(out[0], out[1]).ok());
}

std::vector<int32_t> Shuffle(Session* session) {
  std::vector<Tensor> out;
  EXPECT_TRUE(session->Run({}, {"op"}, {}, &out).ok());
  const auto span = out[0].span<int32_t>();
  return {span.begin(), span.end()};
}

// The expected orders are TensorFlow's.
TEST(RandomTest, ShuffleEqualsTensorFlow) {
  {
    Graph graph;
    Scope root(&graph);
    std::vector<int32_t> values(10);
    std::iota(values.begin(), values.end(), 0);
    NodeBuilder(root.WithOpName("op"), "RandomShuffle")
        .Input(ops::ConstVector<int32_t>(root, values))
        .Attr("seed", 3)
        .Attr("seed2", 9)
        .Build();
    Session session(&graph);
    EXPECT_EQ(Shuffle(&session), (std::vector<int32_t>{2, 0, 7, 4, 1, 9, 6, 5, 3, 8}));
    EXPECT_EQ(Shuffle(&session), (std::vector<int32_t>{9, 3, 2, 0, 6, 8, 4, 5, 7, 1}));
  }
  Graph graph;
  Scope root(&graph);
  std::vector<int32_t> values(14);
  std::iota(values.begin(), values.end(), 0);
  NodeBuilder(root.WithOpName("op"), "RandomShuffle")
      .Input(ops::Const(root, Tensor::Of<int32_t>(values, {7, 2})))
      .Attr("seed", 5)
      .Attr("seed2", 1)
      .Build();
  Session session(&graph);
  EXPECT_EQ(Shuffle(&session),
            (std::vector<int32_t>{8, 9, 4, 5, 10, 11, 0, 1, 2, 3, 12, 13, 6, 7}));
}

TEST(RandomTest, BadArgumentsAreErrors) {
  auto run = [](const Tensor& shape, int32_t low, int32_t high) {
    Graph graph;
    Scope root(&graph);
    const Output s = ops::Placeholder(root.WithOpName("shape"), DType::kInt32);
    NodeBuilder(root.WithOpName("op"), "RandomUniformInt")
        .Input(s)
        .Input(ops::Const<int32_t>(root, low))
        .Input(ops::Const<int32_t>(root, high))
        .Build();
    Session session(&graph);
    std::vector<Tensor> out;
    return session.Run({{"shape", shape}}, {"op"}, {}, &out);
  };
  EXPECT_TRUE(run(Tensor::Of<int32_t>({2}), 0, 1).ok());
  EXPECT_TRUE(run(Tensor::Of<int32_t>({0}), 3, 3).ok());
  EXPECT_EQ(run(Tensor::Of<int32_t>({2}), 3, 3).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(run(Tensor::Of<int32_t>({-2}), 0, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(run(Tensor::Scalar<int32_t>(2), 0, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(run(Tensor::Of<int32_t>({1 << 30, 1 << 30, 1 << 30}), 0, 1).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ferry
