// A small network of convolutions, built here and trained beside TensorFlow: the loss before each
// step is the one that testdata/convnet has. Built once for the CPU and once for a GPU.
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "tests/mlp.h"

#ifndef FERRY_TEST_DEVICE
#define FERRY_TEST_DEVICE "cpu"
#endif

namespace ferry {
namespace {

// The network that testdata/make_convnet.py describes.
class Net {
 public:
  Net() {
    x_ = ops::Placeholder(s_.WithOpName("x"), DType::kFloat, {-1, 8, 8, 1});
    y_ = ops::Placeholder(s_.WithOpName("y"), DType::kInt64, {-1});
    Output h = x_;
    int64_t in = 1;
    for (int64_t channels : {8, 16}) {
      h = ops::Conv2D(s_, h, Weights({3, 3, in, channels}), {1, 1, 1, 1}, "SAME");
      h = ops::Relu(s_, Biased(h, channels));
      h = ops::MaxPool(s_, h, {1, 2, 2, 1}, {1, 2, 2, 1}, "SAME");
      in = channels;
    }
    h = ops::Reshape(s_, h, ops::ConstVector<int32_t>(s_, {-1, 64}));
    h = ops::Relu(s_, Biased(ops::MatMul(s_, h, Weights({64, 32})), 32));
    const Output logits = Biased(ops::MatMul(s_, h, Weights({32, 10})), 10);
    loss_ = ops::ReduceMean(s_.WithOpName("loss"),
                            ops::SparseSoftmaxCrossEntropyWithLogits(s_, logits, y_).loss);
    MomentumOptimizer optimizer(0.05, 0.9);
    train_ = optimizer.Minimize(s_, loss_);
    init_ = GlobalVariablesInitializer(s_);
  }

  Graph graph_;
  Scope s_{&graph_};
  Output x_, y_, loss_;
  Node *train_ = nullptr, *init_ = nullptr;

 private:
  Output Weights(const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    const double scale = 1.5 / std::sqrt(static_cast<double>(n / shape.back()));
    std::vector<float> values;
    for (int64_t i = 0; i < n; ++i) {
      values.push_back(static_cast<float>(std::sin(static_cast<double>(i + 1 + made_)) * scale));
    }
    ++made_;
    return MakeVariable(s_, "weights", Tensor::Of<float>(values, TensorShape(shape))).read;
  }
  Output Biased(Output z, int64_t channels) {
    const std::vector<float> zeros(static_cast<size_t>(channels));
    return ops::BiasAdd(s_, z, MakeVariable(s_, "biases", Tensor::Of<float>(zeros)).read);
  }
  int64_t made_ = 0;
};

TEST(ConvNetTest, TrainsAsTensorFlow) {
  absl::StatusOr<Dataset> data = BuiltInDigits();
  ASSERT_TRUE(data.ok()) << data.status();
  std::ifstream in("tests/testdata/convnet/losses.txt");
  std::vector<double> expected;
  for (double v; in >> v;) expected.push_back(v);
  ASSERT_EQ(expected.size(), 20u);

  Net net;
  ASSERT_TRUE(net.s_.status().ok()) << net.s_.status();
  SessionOptions options;
  options.threads = 2;
  options.device = FERRY_TEST_DEVICE;
  Session session(&net.graph_, options);
  std::vector<Tensor> out;
  absl::Status status = session.Run({}, {}, {net.init_->name()}, &out);
  ASSERT_TRUE(status.ok()) << status;
  for (size_t step = 0; step < expected.size(); ++step) {
    testing::MlpFeeds feeds = testing::MlpRows(data->train, static_cast<int64_t>(step) * 16, 16);
    const Tensor& rows = feeds[0].second;
    feeds[0].second = Tensor::Of<float>(
        std::vector<float>(rows.data<float>(), rows.data<float>() + rows.num_elements()),
        {16, 8, 8, 1});
    status = session.Run(feeds, {"loss:0"}, {net.train_->name()}, &out);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_NEAR(out[0].scalar<float>(), expected[step], 1e-3 * expected[step]) << step;
  }
}

}  // namespace
}  // namespace ferry
