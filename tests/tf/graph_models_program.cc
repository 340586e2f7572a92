// Trains an imported graph as its JSON file says, for graph_models_test.py:
//
//   graph_models_program FILE
//
//   meta, checkpoint   the graph, and where its variables are restored from
//   feeds              objects: name; inference, a .npy file; training, one with a row for each
//   step outputs            objects: name; file, to which a .npy is written before the training
//   train, loss        the op of a step; what is fetched after each, with the inference's feeds
//   steps, save        how many; the prefix to save under at the end
//
// Prints the losses, one a line.
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status.h"
#include "runtime/session/session.h"
#include "saver/meta_graph.h"
#include "saver/saver.h"
#include "tools/npy.h"

namespace ferry {
namespace {

using Json = nlohmann::json;

std::string Text(const Json& object, const char* key) { return object[key].get<std::string>(); }

// The rows along the first axis.
absl::StatusOr<std::vector<Tensor>> Rows(const Tensor& all) {
  std::vector<int64_t> dims;
  for (int i = 1; i < all.rank(); ++i) dims.push_back(all.dim(i));
  FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(dims));
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < all.dim(0); ++i) {
    FERRY_ASSIGN_OR_RETURN(Tensor row, Tensor::Allocate(all.dtype(), shape));
    memcpy(row.raw(), static_cast<const char*>(all.raw()) + static_cast<size_t>(i) * row.bytes(),
           row.bytes());
    rows.push_back(std::move(row));
  }
  return rows;
}

absl::Status Train(FileSystem* fs, const Json& task) {
  Graph graph;
  ImportedMetaGraph imported;
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver,
                         ImportMetaGraphFile(fs, Text(task, "meta"), {}, &graph, &imported));
  if (saver == nullptr) return NotFound("there are no variables in ", Text(task, "meta"));
  SessionOptions options;
  options.device = "cpu";
  Session session(&graph, options);
  FERRY_RETURN_IF_ERROR(saver->Restore(&session, Text(task, "checkpoint")));

  CallableOptions training, inference, loss;
  std::vector<std::vector<Tensor>> batches(task["steps"].get<size_t>());
  std::vector<Tensor> batch;
  for (const Json& feed : task["feeds"]) {
    for (CallableOptions* call : {&training, &inference, &loss}) {
      call->feeds.push_back(Text(feed, "name"));
    }
    FERRY_ASSIGN_OR_RETURN(Tensor fed, ReadNpy(fs, Text(feed, "inference")));
    batch.push_back(std::move(fed));
    FERRY_ASSIGN_OR_RETURN(const Tensor all, ReadNpy(fs, Text(feed, "training")));
    FERRY_ASSIGN_OR_RETURN(std::vector<Tensor> rows, Rows(all));
    if (rows.size() < batches.size()) return InvalidArgument("there are ", rows.size(), " batches");
    for (size_t i = 0; i < batches.size(); ++i) batches[i].push_back(std::move(rows[i]));
  }
  for (const Json& output : task["outputs"]) inference.fetches.push_back(Text(output, "name"));
  training.targets = {Text(task, "train")};
  loss.fetches = {Text(task, "loss")};
  // The training's first, which needs the most ops.
  FERRY_ASSIGN_OR_RETURN(const Session::Callable train, session.MakeCallable(training));
  FERRY_ASSIGN_OR_RETURN(const Session::Callable infer, session.MakeCallable(inference));
  FERRY_ASSIGN_OR_RETURN(const Session::Callable lose, session.MakeCallable(loss));

  std::vector<Tensor> fetched;
  FERRY_RETURN_IF_ERROR(infer.Run(batch, &fetched));
  for (size_t i = 0; i < fetched.size(); ++i) {
    FERRY_RETURN_IF_ERROR(WriteNpy(fs, Text(task["outputs"][i], "file"), fetched[i]));
  }
  fetched.clear();
  for (const std::vector<Tensor>& fed : batches) {
    FERRY_RETURN_IF_ERROR(train.Run(fed, nullptr));
    FERRY_RETURN_IF_ERROR(lose.Run(batch, &fetched));
    const Tensor& value = fetched[0];
    if (value.num_elements() != 1) return InvalidArgument("the loss is no single number");
    printf("%.17g\n", value.dtype() == DType::kDouble ? value.scalar<double>()
                                                      : double{value.scalar<float>()});
  }
  return saver->Save(&session, Text(task, "save")).status();
}

absl::Status Run(const std::string& path) {
  FileSystem* const fs = FileSystem::Posix();
  FERRY_ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, path));
  const Json task = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!task.is_object()) return InvalidArgument("'", path, "' is no JSON object");
  return Train(fs, task);
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s FILE\n", argv[0]);
    return 2;
  }
  const absl::Status status = ferry::Run(argv[1]);
  if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
