// SavedModels: a directory with graphs, their signatures, one set of variables and the files that
// the graphs need, as tf.compat.v1.saved_model writes and loads them.
//
//   DIR/saved_model.pb (or .pbtxt)     a SavedModel message: the graphs, told apart by their tags
//   DIR/variables/variables.index, …   a checkpoint
//   DIR/assets/NAME                    files whose paths the graph's init op is fed
//
//   FERRY_ASSIGN_OR_RETURN(auto builder, SavedModelBuilder::Create(fs, "export/1"));
//   SavedModelGraph g;
//   g.tags = {kServe};
//   g.signatures[kDefaultServingSignature] = PredictSignature({{"x", x}}, {{"y", y}});
//   FERRY_RETURN_IF_ERROR(builder->AddMetaGraphAndVariables(&session, g));
//   FERRY_RETURN_IF_ERROR(builder->Save().status());
//
//   FERRY_ASSIGN_OR_RETURN(SavedModelBundle model, LoadSavedModel({}, "export/1", {kServe}));
//   const auto& signature = model.meta_graph.signature_def().at(kDefaultServingSignature);
//   model.session->Run({{signature.inputs().at("x").name(), batch}}, …);
#ifndef FERRY_SAVER_SAVED_MODEL_H_
#define FERRY_SAVER_SAVED_MODEL_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/meta_graph.pb.h"
#include "proto/saved_model.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/graph/graph.h"
#include "runtime/session/session.h"
#include "saver/saver.h"

namespace ferry {

// TensorFlow's tags, keys and method names.
inline constexpr char kServe[] = "serve";
inline constexpr char kTrain[] = "train";
inline constexpr char kDefaultServingSignature[] = "serving_default";
inline constexpr char kPredictMethod[] = "tensorflow/serving/predict";
inline constexpr char kClassifyMethod[] = "tensorflow/serving/classify";
inline constexpr char kRegressMethod[] = "tensorflow/serving/regress";

// ---- Signatures ----

// Name, dtype and, as far as it is known, shape.
proto::TensorInfo BuildTensorInfo(const Output& tensor);
proto::SignatureDef BuildSignature(const std::map<std::string, Output>& inputs,
                                   const std::map<std::string, Output>& outputs,
                                   const std::string& method_name);
proto::SignatureDef PredictSignature(const std::map<std::string, Output>& inputs,
                                     const std::map<std::string, Output>& outputs);
// "inputs" -> "classes", "scores", of which one may be empty. InvalidArgument unless examples and
// classes are strings and scores float.
absl::StatusOr<proto::SignatureDef> ClassificationSignature(const Output& examples,
                                                            const Output& classes,
                                                            const Output& scores);
// "inputs" -> "outputs". InvalidArgument unless examples are strings and predictions float.
absl::StatusOr<proto::SignatureDef> RegressionSignature(const Output& examples,
                                                        const Output& predictions);

// ---- Writing ----

// What is told of one graph.
struct SavedModelGraph {
  std::vector<std::string> tags;
  std::map<std::string, proto::SignatureDef> signatures;
  // Scalar string Consts that hold paths of files. The files are copied to assets/; who loads the
  // model feeds their new paths to the main op.
  std::vector<Output> assets;
  // Run when the model is loaded, after the variables were restored: a lookup table's initializer,
  // say. (What TensorFlow calls legacy_init_op is the same.)
  Node* main_op = nullptr;
  bool clear_devices = false;
  bool strip_default_attrs = false;
  // For variables in other ways than all of them under their names. Null: a sharded Saver of all.
  Saver* saver = nullptr;
};

// Not thread-safe.
class SavedModelBuilder {
 public:
  // Makes the directory. FailedPrecondition "Export directory DIR already exists, and isn't empty".
  static absl::StatusOr<std::unique_ptr<SavedModelBuilder>> Create(FileSystem* fs,
                                                                   const std::string& export_dir);

  // The first graph, with the variables' values of this session. Its graph gets a Saver's nodes.
  // Everything but the SavedModel file is written, durably. InvalidArgument: a signature without
  // name or dtype for a tensor, or under a reserved key; an asset that is no constant path.
  // FailedPrecondition: called before, or the graph has a main op already. NotFound: an asset's
  // file.
  absl::Status AddMetaGraphAndVariables(Session* session, const SavedModelGraph& options);
  // Another graph over the same variables. FailedPrecondition when there is no first one.
  absl::Status AddMetaGraph(Graph* graph, const SavedModelGraph& options);

  // Writes saved_model.pb, or .pbtxt: from then on, also after a power loss, the directory is a
  // SavedModel, before it is none. Returns the file's path. InvalidArgument from 2 GiB on.
  absl::StatusOr<std::string> Save(bool as_text = false);

 private:
  SavedModelBuilder(FileSystem* fs, std::string dir) : fs_(fs), dir_(std::move(dir)) {}
  absl::Status Add(Graph* graph, Saver* saver, const SavedModelGraph& options);
  absl::Status AddAssets(const SavedModelGraph& options, proto::MetaGraphDef* meta);

  FileSystem* const fs_;
  const std::string dir_;
  proto::SavedModel model_;
  bool has_variables_ = false;
  std::map<std::string, std::string> assets_;  // Name in assets/ -> where the file came from.
};

// One graph for serving with one predict signature, "serving_default": tf.saved_model.simple_save.
absl::Status SimpleSave(Session* session, const std::string& export_dir,
                        const std::map<std::string, Output>& inputs,
                        const std::map<std::string, Output>& outputs, Node* main_op = nullptr);

// ---- Loading ----

// Whether there is a saved_model.pb or .pbtxt.
bool MaybeSavedModelDirectory(FileSystem* fs, const std::string& dir);
// NotFound "SavedModel file does not exist at: …"; DataLoss, naming the file, for one that can't be
// parsed, or, written here, doesn't have the crc that it was written with.
absl::StatusOr<proto::SavedModel> ReadSavedModel(FileSystem* fs, const std::string& dir);
// The graph with exactly these tags, in any order. NotFound lists the tags that there are.
absl::StatusOr<const proto::MetaGraphDef*> FindMetaGraph(const proto::SavedModel& model,
                                                         const std::vector<std::string>& tags);
// Where a SavedModel's checkpoint is: "DIR/variables/variables".
std::string SavedModelVariables(const std::string& dir);

struct SavedModelBundle {
  std::unique_ptr<Graph> graph;
  std::unique_ptr<Session> session;  // Destroyed before its graph.
  proto::MetaGraphDef meta_graph;    // As it stands in the file: signatures, collections.
};

struct LoadOptions {
  std::string import_scope;  // Before every name in the graph, though not in meta_graph.
  bool clear_devices = false;
};

// Imports the graph, restores the variables and runs the init op, assets fed.
absl::StatusOr<SavedModelBundle> LoadSavedModel(const SessionOptions& session_options,
                                                const std::string& dir,
                                                const std::vector<std::string>& tags,
                                                const LoadOptions& options = {});
// The same into the graph of a session.
absl::StatusOr<proto::MetaGraphDef> LoadSavedModelInto(Session* session, const std::string& dir,
                                                       const std::vector<std::string>& tags,
                                                       const LoadOptions& options = {});

}  // namespace ferry

#endif  // FERRY_SAVER_SAVED_MODEL_H_
