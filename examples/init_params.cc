// Some parameters from a checkpoint, the rest new: a collection of the user's names those that a
// Saver restores; the others are initialised and trained.
#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/variables.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

// The same graph in both programs: "trunk" is in the collection init_params, "head" isn't.
struct Model {
  Graph graph;
  Scope root{&graph};
  Output loss;
  Node* train = nullptr;
  Node* init = nullptr;
};

absl::Status Build(float trunk, float head, Model* m) {
  VariableOptions given;
  given.trainable = false;
  given.collections = {kGlobalVariables, "init_params"};
  const VariableHandle t = MakeVariable(m->root, "trunk", Tensor::Of<float>({trunk, trunk}), given);
  const VariableHandle h = MakeVariable(m->root, "head", Tensor::Of<float>({head, head}));
  m->loss = ops::ReduceSum(m->root, ops::Square(m->root, ops::Sub(m->root, h.read, t.read)));
  GradientDescentOptimizer optimizer(0.25);
  m->train = optimizer.Minimize(m->root, m->loss);
  m->init = GlobalVariablesInitializer(m->root);
  return m->root.status();
}

absl::Status InitParams() {
  Model first;
  FERRY_RETURN_IF_ERROR(Build(3, 1, &first));
  {
    Session session(&first.graph);
    FERRY_RETURN_IF_ERROR(session.Run({}, {}, {first.init->name()}, nullptr));
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&first.graph));
    FERRY_RETURN_IF_ERROR(saver->Save(&session, "init_params/model").status());
  }

  Model second;
  FERRY_RETURN_IF_ERROR(Build(0, 2, &second));
  Session session(&second.graph);
  SaverOptions options;
  FERRY_ASSIGN_OR_RETURN(options.var_list, VariablesOf(second.graph, "init_params"));
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver,
                         Saver::Create(&second.graph, options));
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {second.init->name()}, nullptr));
  FERRY_RETURN_IF_ERROR(saver->Restore(&session, "init_params/model"));
  FERRY_RETURN_IF_ERROR(Show(&session, "trunk, restored", "trunk"));
  FERRY_RETURN_IF_ERROR(Show(&session, "head, new", "head"));
  for (int i = 0; i < 3; ++i) {
    FERRY_RETURN_IF_ERROR(session.Run({}, {}, {second.train->name()}, nullptr));
  }
  FERRY_RETURN_IF_ERROR(Show(&session, "trunk, untouched", "trunk"));
  return Show(&session, "head, trained", "head");
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::InitParams); }
