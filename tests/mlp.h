// The digits network of testdata/make_mlp.py, made by this project's own functions, and the batches
// that it is trained on there.
#ifndef FERRY_TESTS_MLP_H_
#define FERRY_TESTS_MLP_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/graph/graph.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/scope.h"
#include "runtime/tensor/tensor.h"
#include "tools/dataset.h"

namespace ferry::testing {

// By the name of its folder in testdata/mlp: "adam", "momentum" or "sgd".
std::unique_ptr<Optimizer> MakeMlpOptimizer(const std::string& name);

// Its nodes have the names that TensorFlow gives them.
struct Mlp {
  explicit Mlp(Optimizer* optimizer, bool use_resource = false);

  Graph graph;
  Scope s{&graph};  // Holds the first error.
  Output x, y, logits, loss, accuracy;
  Node* train_op = nullptr;
  Node* init = nullptr;
};

using MlpFeeds = std::vector<std::pair<std::string, Tensor>>;

// Feeds for "x" and "y": `count` rows from row `first` on, starting over after the last one.
MlpFeeds MlpRows(const Examples& examples, int64_t first, int64_t count);
// The 32 training rows of a step.
inline MlpFeeds MlpBatch(const Examples& train, int64_t step) {
  return MlpRows(train, step * 32, 32);
}

}  // namespace ferry::testing

#endif  // FERRY_TESTS_MLP_H_
