// Saving, and going on from what was saved: in the same session, in a new one over the same graph,
// and in a program that has nothing but the files.
#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

absl::Status Basics() {
  Graph graph;
  const Scope root(&graph);
  const VariableHandle w = MakeVariable(root, "w", Tensor::Of<float>({1, 2}));
  Node* const change =
      ops::AssignAdd(root, w.ref, ops::Const(root, Tensor::Of<float>({1, 1}))).node;
  Node* const init = GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());

  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_ASSIGN_OR_RETURN(const std::string path, saver->Save(&session, "./model"));
  FERRY_ASSIGN_OR_RETURN(std::vector<std::string> files, FileSystem::Posix()->List("."));
  std::sort(files.begin(), files.end());
  for (const std::string& file : files) {
    if (file[0] != '.' && file != "printed.txt") std::puts(file.c_str());
  }

  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {change->name()}, nullptr));
  FERRY_RETURN_IF_ERROR(Show(&session, "changed", "w"));
  FERRY_RETURN_IF_ERROR(saver->Restore(&session, path));
  FERRY_RETURN_IF_ERROR(Show(&session, "restored", "w"));

  Session second(&graph);
  FERRY_RETURN_IF_ERROR(saver->Restore(&second, path));
  FERRY_RETURN_IF_ERROR(Show(&second, "in a new session", "w"));

  Graph imported;
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> its_saver,
                         ImportMetaGraphFile(FileSystem::Posix(), path + ".meta", {}, &imported));
  Session third(&imported);
  FERRY_RETURN_IF_ERROR(its_saver->Restore(&third, path));
  return Show(&third, "from the files alone", "w");
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::Basics); }
