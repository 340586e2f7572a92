// Which checkpoints are kept: the newest five of ten, and lists that are set by hand.
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/variables.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

void List(const char* when, const Saver& saver) {
  absl::PrintF("%s: %s\n", when, absl::StrJoin(saver.last_checkpoints(), " "));
}

absl::Status History() {
  Graph graph;
  const Scope root(&graph);
  MakeVariable(root, "v", Tensor::Scalar<float>(1));
  Node* const init = GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));

  SaverOptions keep_five;  // The default.
  keep_five.max_to_keep = 5;
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph, keep_five));
  for (int64_t step = 0; step < 1000; step += 100) {
    SaveOptions options;
    options.global_step = step;
    FERRY_RETURN_IF_ERROR(saver->Save(&session, "history/my-model", options).status());
  }
  List("after ten saves", *saver);
  for (int step = 0; step < 1000; step += 100) {
    const std::string prefix = absl::StrFormat("history/my-model-%d", step);
    absl::PrintF("%s %s\n", prefix,
                 FileSystem::Posix()->Exists(prefix + ".index") ? "is there" : "was removed");
  }

  // What a Saver knows of can be set. Those without a time are never removed.
  saver->set_last_checkpoints({"history/my-model-500", "history/my-model-600"});
  List("set", *saver);
  saver->set_last_checkpoints_with_time(
      {{"history/my-model-700", 1.0}, {"history/my-model-800", 2.0}});
  List("set with times", *saver);
  return absl::OkStatus();
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::History); }
