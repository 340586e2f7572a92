// Writes SavedModels into the directory given, for models_test.py to load.
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "saver/saved_model.h"

namespace ferry {
namespace {

// y = x * w + b; with the asset's path in a variable once its main op has run.
absl::Status Write(FileSystem* fs, const std::string& dir, bool resource, bool as_text) {
  Graph graph;
  const Scope s(&graph);
  VariableOptions options;
  options.use_resource = resource;
  const Output x = ops::Placeholder(s.WithOpName("x"), DType::kFloat, PartialShape({-1, 2}));
  const VariableHandle w = MakeVariable(s, "w", Tensor::Of<float>({2, 3}), options);
  const VariableHandle b = MakeVariable(s, "b", Tensor::Of<float>({0.5, 0.25}), options);
  const Output y = ops::Add(s.WithOpName("y"), ops::Mul(s, x, w.read), b.read);
  const VariableHandle path = MakeVariable(s, "path", Tensor::Scalar<std::string>("none"));
  const Output asset = ops::Const(s.WithOpName("asset"), JoinPath(dir, "words.txt").c_str());
  const Output assigned = ops::Assign(s, path.ref, asset);
  SavedModelGraph g;
  g.tags = {kServe};
  g.signatures[kDefaultServingSignature] = PredictSignature({{"input", x}}, {{"output", y}});
  g.assets = {asset};
  g.main_op = ops::NoOp(s.WithOpName("main").WithControlDependencies({assigned.node}));
  Node* const init = GlobalVariablesInitializer(s);
  FERRY_RETURN_IF_ERROR(s.status());
  FERRY_RETURN_IF_ERROR(CreateDirs(fs, dir));
  FERRY_RETURN_IF_ERROR(WriteFileAtomically(fs, JoinPath(dir, "words.txt"), "two words"));
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_ASSIGN_OR_RETURN(const auto builder, SavedModelBuilder::Create(fs, JoinPath(dir, "model")));
  FERRY_RETURN_IF_ERROR(builder->AddMetaGraphAndVariables(&session, g));

  Graph training;
  const Scope t(&training);
  MakeVariable(t, "w", Tensor::Of<float>({0, 0}), options);
  MakeVariable(t, "b", Tensor::Of<float>({0, 0}), options);
  FERRY_RETURN_IF_ERROR(t.status());
  SavedModelGraph more;
  more.tags = {kTrain, "gpu"};
  more.strip_default_attrs = true;
  FERRY_RETURN_IF_ERROR(builder->AddMetaGraph(&training, more));
  return builder->Save(as_text).status();
}

absl::Status WriteAll(const std::string& dir) {
  FileSystem* const fs = FileSystem::Posix();
  FERRY_RETURN_IF_ERROR(Write(fs, JoinPath(dir, "ref"), false, false));
  return Write(fs, JoinPath(dir, "resource"), true, true);
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s DIR\n", argv[0]);
    return 2;
  }
  const absl::Status status = ferry::WriteAll(argv[1]);
  if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
