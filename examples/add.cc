// v1 + v2: saved, restored by code and by import, restored into variables of other names, and
// looked at without a graph.
#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "saver/checkpoint_reader.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

struct Sum {
  VariableHandle v1, v2;
  Output add;
};

absl::StatusOr<Sum> Build(Graph* graph, const std::string& prefix, float a, float b) {
  const Scope root(graph);
  Sum s;
  s.v1 = MakeVariable(root, prefix + "v1", Tensor::Of<float>({a}));
  s.v2 = MakeVariable(root, prefix + "v2", Tensor::Of<float>({b}));
  s.add = ops::AddV2(root.WithOpName("add"), s.v1.read, s.v2.read);
  FERRY_RETURN_IF_ERROR(root.status());
  return s;
}

absl::Status Add() {
  FileSystem* const fs = FileSystem::Posix();
  {
    Graph graph;
    FERRY_RETURN_IF_ERROR(Build(&graph, "", 1, 2).status());
    Node* const init = GlobalVariablesInitializer(Scope(&graph));
    Session session(&graph);
    FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
    FERRY_RETURN_IF_ERROR(saver->Save(&session, "add/model.ckpt").status());
  }
  {
    Graph graph;
    FERRY_RETURN_IF_ERROR(Build(&graph, "", 0, 0).status());
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
    Session session(&graph);
    FERRY_RETURN_IF_ERROR(saver->Restore(&session, "add/model.ckpt"));
    FERRY_RETURN_IF_ERROR(Show(&session, "by code", "add:0"));
  }
  {
    Graph graph;
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver,
                           ImportMetaGraphFile(fs, "add/model.ckpt.meta", {}, &graph));
    Session session(&graph);
    FERRY_RETURN_IF_ERROR(saver->Restore(&session, "add/model.ckpt"));
    FERRY_RETURN_IF_ERROR(Show(&session, "by import", "add:0"));
  }
  {
    Graph graph;
    FERRY_ASSIGN_OR_RETURN(const Sum other, Build(&graph, "other-", 0, 0));
    Session session(&graph);
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> plain, Saver::Create(&graph));
    const absl::Status missing = plain->Restore(&session, "add/model.ckpt");
    absl::PrintF("a plain Saver: %s\n", missing.message());
    SaverOptions renamed;
    renamed.var_map = {{"v1", other.v1}, {"v2", other.v2}};
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph, renamed));
    FERRY_RETURN_IF_ERROR(saver->Restore(&session, "add/model.ckpt"));
    FERRY_RETURN_IF_ERROR(Show(&session, "other-v1", "other-v1"));
    FERRY_RETURN_IF_ERROR(Show(&session, "other-v2", "other-v2"));
  }
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointReader> reader,
                         CheckpointReader::Open(fs, "add/model.ckpt"));
  for (const auto& [name, shape] : reader->GetVariableToShapeMap()) {
    absl::PrintF("%s %s\n", name, shape.DebugString());
  }
  FERRY_ASSIGN_OR_RETURN(const Tensor v1, reader->GetTensor("v1"));
  absl::PrintF("value for variable v1 is  %s\n", Text(v1));
  return absl::OkStatus();
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::Add); }
