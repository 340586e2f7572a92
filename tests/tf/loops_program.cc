// Builds loops with their gradients for the test beside TensorFlow, which imports the graph.
//
//   loops_program META
//
// writes the meta graph and prints the values of y, grad_x and grad_w, a line each, for x and w of
// which element i is sin(i + 1) and cos(i + 1) / 2.
#include <cmath>
#include <iostream>

#include "absl/strings/str_join.h"
#include "runtime/base/file_system.h"
#include "runtime/base/status.h"
#include "runtime/graph/cond.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"
#include "saver/meta_graph.h"

namespace ferry {
namespace {

using Values = std::vector<Output>;

// A loop with a loop and a conditional in it.
Output Model(const Scope& root, Output x, Output w) {
  const auto below = [](int32_t limit) {
    return [limit](const Scope& s, const Values& v) {
      return ops::Less(s, v[0], ops::Const<int32_t>(s, limit));
    };
  };
  const auto next = [](const Scope& s, Output i) {
    return ops::AddV2(s, i, ops::Const<int32_t>(s, 1));
  };
  const Values out = WhileLoop(
      root, {ops::Const<int32_t>(root, 0), x}, below(4), [&](const Scope& s, const Values& v) {
        const Values inner = WhileLoop(
            s, {ops::Const<int32_t>(s, 0), v[1]},
            [&](const Scope& t, const Values& u) { return ops::Less(t, u[0], v[0]); },
            [&](const Scope& t, const Values& u) {
              return Values{next(t, u[0]), ops::Tanh(t, ops::AddV2(t, ops::MatMul(t, u[1], w), x))};
            });
        const Output even = ops::Equal(
            s, ops::FloorMod(s, v[0], ops::Const<int32_t>(s, 2)), ops::Const<int32_t>(s, 0));
        const Output chosen = Cond(
            s, even, [&](const Scope& t) { return ops::Square(t, inner[1]); },
            [&](const Scope& t) { return ops::Mul(t, ops::Sigmoid(t, inner[1]), v[1]); });
        return Values{next(s, v[0]), ops::AddV2(s, chosen, v[1])};
      });
  return ops::Identity(root.WithOpName("y"), ops::ReduceSum(root, ops::Square(root, out[1])));
}

absl::Status Run(const std::string& path) {
  Graph graph;
  const Scope root(&graph);
  const Output x =
      ops::Placeholder(root.WithOpName("x"), DType::kFloat, {PartialShape::kUnknown, 3});
  const Output w = ops::Placeholder(root.WithOpName("w"), DType::kFloat, {3, 3});
  const Output y = Model(root, x, w);
  Values grads;
  FERRY_RETURN_IF_ERROR(root.status());
  FERRY_RETURN_IF_ERROR(AddSymbolicGradients(root, {y}, {x, w}, &grads));
  const Values fetches = {y, ops::Identity(root.WithOpName("grad_x"), grads[0]),
                          ops::Identity(root.WithOpName("grad_w"), grads[1])};
  FERRY_RETURN_IF_ERROR(root.status());
  FERRY_ASSIGN_OR_RETURN(const proto::MetaGraphDef meta, ExportMetaGraph(graph, {}));
  FERRY_RETURN_IF_ERROR(WriteMetaGraph(FileSystem::Posix(), path, meta));
  std::vector<float> xs, ws;
  for (int i = 0; i < 6; ++i) xs.push_back(std::sin(static_cast<float>(i + 1)));
  for (int i = 0; i < 9; ++i) ws.push_back(std::cos(static_cast<float>(i + 1)) / 2);
  Session session(&graph);
  std::vector<Tensor> got;
  FERRY_RETURN_IF_ERROR(session.Run(
      {{x, Tensor::Of<float>(xs, {2, 3})}, {w, Tensor::Of<float>(ws, {3, 3})}}, fetches, {}, &got));
  for (const Tensor& t : got) std::cout << absl::StrJoin(t.span<float>(), " ") << "\n";
  return absl::OkStatus();
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const absl::Status status = ferry::Run(argv[1]);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
