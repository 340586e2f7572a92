// v1 + v2 frozen into one file, and imported from it.
#include "saver/freeze.h"

#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

absl::Status SaveIt() {
  Graph graph;
  const Scope root(&graph);
  const VariableHandle v1 = MakeVariable(root, "v1", Tensor::Of<float>({1}));
  const VariableHandle v2 = MakeVariable(root, "v2", Tensor::Of<float>({2}));
  ops::AddV2(root.WithOpName("add"), v1.read, v2.read);
  Node* const init = GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
  return saver->Save(&session, "freeze/model.ckpt").status();
}

absl::Status Freeze() {
  FERRY_RETURN_IF_ERROR(SaveIt());
  FileSystem* const fs = FileSystem::Posix();
  {
    // Says on standard error: Froze 2 variables. Converted 2 variables to const ops.
    Graph graph;
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver,
                           ImportMetaGraphFile(fs, "freeze/model.ckpt.meta", {}, &graph));
    Session session(&graph);
    FERRY_RETURN_IF_ERROR(saver->Restore(&session, "freeze/model.ckpt"));
    FERRY_ASSIGN_OR_RETURN(const proto::GraphDef frozen,
                           ConvertVariablesToConstants(&session, {"add"}));
    FERRY_RETURN_IF_ERROR(WriteGraphDef(fs, "freeze/combined_model.pb", frozen));
  }
  proto::GraphDef frozen;
  FERRY_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(fs, "freeze/combined_model.pb"));
  if (!frozen.ParseFromString(bytes)) return DataLoss("combined_model.pb can't be parsed");
  Graph graph;
  ImportOptions options;
  options.prefix = "import";
  options.return_elements = {"add:0"};
  ImportResults imported;
  FERRY_RETURN_IF_ERROR(ImportGraphDef(options, frozen, &graph, &imported));
  Session session(&graph);
  const std::string name = imported.return_outputs[0].name();
  return Show(&session, name, name);
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::Freeze); }
