// Summary ops: their graph, bytes and errors, which are TensorFlow's.
#include "runtime/graph/summary.h"

#include <cfloat>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/summary.pb.h"
#include "runtime/graph/collections.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SummaryTest : public ::testing::Test {
 protected:
  SummaryTest() {
    x = ops::Placeholder(root.WithOpName("x"), DType::kFloat);
    loss = summary::Scalar(root, "loss", ops::Const<float>(root, 2));
    histogram = summary::Histogram(root.NewSubScope("layer"), "w dist", x);
  }
  absl::StatusOr<proto::Summary> Run(Output o, const std::vector<float>& values) {
    if (!root.ok()) return root.status();
    Session session(&graph);
    std::vector<Tensor> out;
    const std::vector<std::pair<Output, Tensor>> feeds = {{x, Tensor::Of<float>(values)}};
    const absl::Status s = session.Run(feeds, {o}, {}, &out);
    if (!s.ok()) return s;
    proto::Summary summary;
    EXPECT_TRUE(summary.ParseFromString(out[0].data<std::string>()[0]));
    return summary;
  }
  Graph graph;
  Scope root{&graph};
  Output x, loss, histogram;
};

TEST_F(SummaryTest, NamesAreTensorFlows) {
  Output all = summary::MergeAll(root);
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_EQ(loss.name(), "loss:0");
  EXPECT_EQ(loss.node->input(0).name(), "loss/tags:0");
  EXPECT_EQ(histogram.name(), "layer/w_dist:0");
  EXPECT_EQ(histogram.node->input(0).name(), "layer/w_dist/tag:0");
  EXPECT_EQ(all.name(), "Merge/MergeSummary:0");
  EXPECT_THAT(*GetNodeCollection(graph, "summaries"), ElementsAre("loss:0", "layer/w_dist:0"));
  Graph empty;
  EXPECT_EQ(summary::MergeAll(Scope(&empty)).node, nullptr);
}

TEST_F(SummaryTest, MergesScalarsAndHistograms) {
  auto s = Run(summary::MergeAll(root), {1, 1.05f, -3, 0});
  ASSERT_TRUE(s.ok()) << s.status();
  ASSERT_EQ(s->value_size(), 2);
  EXPECT_EQ(s->value(0).tag(), "loss");
  EXPECT_EQ(s->value(0).simple_value(), 2);
  EXPECT_EQ(s->value(1).tag(), "layer/w_dist");
  // As TensorFlow's op gave it.
  const proto::HistogramProto& h = s->value(1).histo();
  EXPECT_EQ(h.num(), 4);
  EXPECT_DOUBLE_EQ(h.sum(), -0.95000004768371582);
  EXPECT_DOUBLE_EQ(h.sum_squares(), 11.102499899864199);
  EXPECT_THAT(h.bucket(), ElementsAre(0, 1, 0, 1, 0, 1, 1, 0));
  EXPECT_THAT(h.bucket_limit(),
              ElementsAre(-3.1665833053880363, -2.8787120958073054, 0, 1e-12, 0.917246389039776,
                          1.0089710279437536, 1.1098681307381291, DBL_MAX));
}

TEST_F(SummaryTest, ErrorsAreTensorFlows) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  auto message = [&](Output o, const std::vector<float>& values) {
    return Run(o, values).status().ToString();
  };
  EXPECT_THAT(message(histogram, {1, nan}),
              HasSubstr("Nan in summary histogram for: layer/w_dist"));
  EXPECT_THAT(message(histogram, {inf}), HasSubstr("Infinity in Histogram for: layer/w_dist"));
  Output two = NodeBuilder(root, "ScalarSummary")
                   .Input(ops::ConstVector<std::string>(root, {"a", "b"}))
                   .Input(x)
                   .BuildOutput();
  EXPECT_THAT(message(two, {1, 2, 3}),
              HasSubstr("tags and values are not the same shape: [2] != [3]"));
  auto both = Run(two, {1, nan});
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(both->value(1).tag(), "b");
  EXPECT_NE(both->value(1).simple_value(), both->value(1).simple_value());
  EXPECT_THAT(message(summary::Merge(root, {loss, loss}), {}),
              HasSubstr("Duplicate tag loss found in summary inputs"));
}

TEST_F(SummaryTest, TakesEveryNumberType) {
  Output n = NodeBuilder(root, "HistogramSummary")
                 .Input(ops::Const(root, "n"))
                 .Input(ops::ConstVector<int64_t>(root, {3, 3, 5}))
                 .BuildOutput();
  auto s = Run(n, {});
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->value(0).histo().sum(), 11);
  Output h = summary::Scalar(root, "half", ops::Cast(root, loss.node->input(1), DType::kHalf));
  EXPECT_EQ(Run(h, {})->value(0).simple_value(), 2);
}

}  // namespace
}  // namespace ferry
