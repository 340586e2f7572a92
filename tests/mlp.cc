// The digits network: see mlp.h.
#include "tests/mlp.h"

#include <algorithm>
#include <cmath>

#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"

namespace ferry::testing {
namespace {

Output Layer(const Scope& s, Output in, int64_t inputs, int64_t units, const std::string& name,
             bool relu, bool use_resource) {
  const Scope sub = s.NewSubScope(name);
  VariableOptions weights, biases;
  weights.use_resource = biases.use_resource = use_resource;
  weights.initializer = TruncatedNormalInitializer(0, 1 / std::sqrt(static_cast<double>(inputs)));
  biases.initializer = ZerosInitializer();
  const VariableHandle w = GetVariable(sub, "weights", {inputs, units}, DType::kFloat, weights);
  const VariableHandle b = GetVariable(sub, "biases", {units}, DType::kFloat, biases);
  const Output z = ops::BiasAdd(sub, ops::MatMul(sub, in, w.read), b.read);
  return relu ? ops::Relu(sub, z) : z;
}

}  // namespace

std::unique_ptr<Optimizer> MakeMlpOptimizer(const std::string& name) {
  if (name == "adam") return std::make_unique<AdamOptimizer>(1e-3);
  if (name == "momentum") return std::make_unique<MomentumOptimizer>(0.05, 0.9, true);
  return std::make_unique<GradientDescentOptimizer>(0.1);
}

Mlp::Mlp(Optimizer* optimizer, bool use_resource) {
  graph.set_seed(42);
  x = ops::Placeholder(s.WithOpName("x"), DType::kFloat, {-1, 64});
  y = ops::Placeholder(s.WithOpName("y"), DType::kInt64, {-1});
  Output h = Layer(s, x, 64, 128, "hidden1", true, use_resource);
  h = Layer(s, h, 128, 64, "hidden2", true, use_resource);
  logits = Layer(s, h, 64, 10, "logits", false, use_resource);
  const Scope xent = s.NewSubScope("SparseSoftmaxCrossEntropyWithLogits");
  ops::Shape(xent, y);
  loss = ops::ReduceMean(s.WithOpName("loss"),
                         ops::SparseSoftmaxCrossEntropyWithLogits(xent, logits, y).loss);
  const Scope argmax = s.NewSubScope("ArgMax");
  const Output guess = ops::ArgMax(s.WithOpName("ArgMax/"), logits,
                                   ops::Const<int32_t>(argmax.WithOpName("dimension"), 1));
  accuracy = ops::ReduceMean(s.WithOpName("accuracy"),
                             ops::Cast(s, ops::Equal(s, guess, y), DType::kFloat));
  MinimizeOptions options;
  options.global_step = GetOrCreateGlobalStep(s);
  train_op = optimizer->Minimize(s, loss, options);
  init = GlobalVariablesInitializer(s);
}

MlpFeeds MlpRows(const Examples& examples, int64_t first, int64_t count) {
  const int64_t width = static_cast<int64_t>(examples.features.size()) / examples.size();
  std::vector<float> x;
  std::vector<int64_t> y;
  for (int64_t i = 0; i < count; ++i) {
    const size_t row = static_cast<size_t>((first + i) % examples.size());
    const auto begin = examples.features.begin() + static_cast<int64_t>(row) * width;
    x.insert(x.end(), begin, begin + width);
    y.push_back(examples.labels[row]);
  }
  return {{"x", Tensor::Of<float>(x, {count, width})}, {"y", Tensor::Of<int64_t>(y)}};
}

}  // namespace ferry::testing
