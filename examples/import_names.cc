// Names after an import: what a graph restored from files answers to, what happens when it is
// imported into a graph that has the names already, and the scope that avoids it.
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

absl::Status Build(Graph* graph) {
  const Scope root(graph);
  for (int i = 1; i <= 6; ++i) {
    MakeVariable(root, absl::StrFormat("w%d", i), Tensor::Of<float>({static_cast<float>(i), 0.5f}));
  }
  return root.status();
}

absl::Status Names() {
  FileSystem* const fs = FileSystem::Posix();
  Graph graph;
  FERRY_RETURN_IF_ERROR(Build(&graph));
  Node* const init = GlobalVariablesInitializer(Scope(&graph));
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
  FERRY_RETURN_IF_ERROR(saver->Save(&session, "names/model").status());
  FERRY_RETURN_IF_ERROR(Show(&session, "saved", "w1:0"));

  // From the files: the names are as they were.
  Graph imported;
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> its_saver,
                         ImportMetaGraphFile(fs, "names/model.meta", {}, &imported));
  Session second(&imported);
  FERRY_RETURN_IF_ERROR(its_saver->Restore(&second, "names/model"));
  FERRY_RETURN_IF_ERROR(Show(&second, "restored", "w1:0"));

  // A second time into the same graph: the nodes get new names, but the collections and the saver's
  // names go on meaning the first ones.
  FERRY_ASSIGN_OR_RETURN(const proto::MetaGraphDef meta, ReadMetaGraph(fs, "names/model.meta"));
  FERRY_ASSIGN_OR_RETURN(const ImportedMetaGraph again, ImportMetaGraph(meta, {}, &imported));
  absl::PrintF("imported again, w1 is %s\n", again.nodes.nodes.at("w1")->name());
  FERRY_ASSIGN_OR_RETURN(const auto variables, GlobalVariables(imported));
  absl::PrintF("variables: %s\n",
               absl::StrJoin(variables, " ", [](std::string* out, const VariableHandle& v) {
                 absl::StrAppend(out, v.name());
               }));
  absl::PrintF("a new Saver: %s\n", Saver::Create(&imported).status().message());

  // A scope of its own is the way.
  Graph both;
  FERRY_RETURN_IF_ERROR(Build(&both));
  ImportMetaOptions options;
  options.import_scope = "old";
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> old_saver,
                         ImportMetaGraphFile(fs, "names/model.meta", options, &both));
  Session third(&both);
  FERRY_RETURN_IF_ERROR(old_saver->Restore(&third, "names/model"));
  return Show(&third, "in a scope", "old/w1:0");
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::Names); }
