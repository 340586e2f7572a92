// SavedModels: see saved_model.h.
#include "saver/saved_model.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/text_format.h"
#include "runtime/base/status.h"
#include "runtime/graph/collections.h"
#include "saver/atomic_file.h"
#include "saver/bundle_writer.h"
#include "saver/checkpoint_state.h"
#include "saver/log.h"
#include "saver/message_crc.h"
#include "saver/meta_graph.h"
#include "saver/text_crc.h"

namespace ferry {
namespace {

constexpr char kPbName[] = "saved_model.pb";
constexpr char kPbtxtName[] = "saved_model.pbtxt";
constexpr char kAssetsDir[] = "assets";
constexpr char kAssetsCollection[] = "saved_model_assets";
constexpr char kMainOpCollection[] = "saved_model_main_op";
constexpr char kLegacyInitOpCollection[] = "legacy_init_op";
constexpr char kInitOpSignature[] = "__saved_model_init_op";
constexpr char kTrainOpSignature[] = "__saved_model_train_op";
constexpr char kAssetType[] = "type.googleapis.com/tensorflow.AssetFileDef";
constexpr size_t kPiece = size_t{1} << 20;

absl::Status CheckTensorInfo(const std::string& signature, const std::string& name,
                             const proto::TensorInfo& info) {
  if (info.encoding_case() == proto::TensorInfo::ENCODING_NOT_SET ||
      (info.has_name() && info.name().empty())) {
    return InvalidArgument("signature '", signature, "': tensor '", name,
                           "': all TensorInfo protos used in the SignatureDefs must have the name "
                           "and dtype fields set; it has no name");
  }
  if (info.encoding_case() == proto::TensorInfo::kCompositeTensor) {
    for (const proto::TensorInfo& part : info.composite_tensor().components()) {
      FERRY_RETURN_IF_ERROR(CheckTensorInfo(signature, name, part));
    }
  } else if (info.dtype() == proto::DT_INVALID) {
    return InvalidArgument("signature '", signature, "': tensor '", name,
                           "': all TensorInfo protos used in the SignatureDefs must have the name "
                           "and dtype fields set; it has no dtype");
  }
  return absl::OkStatus();
}

// The path that a constant holds.
absl::StatusOr<std::string> AssetPath(const Output& asset) {
  if (asset.node == nullptr) return InvalidArgument("an asset's tensor is empty");
  if (asset.node->op() != "Const" || asset.dtype() != DType::kString) {
    return InvalidArgument("asset path tensor '", asset.name(),
                           "' must be a string Const; it is a ", asset.node->op(), " of ",
                           DTypeName(asset.dtype()));
  }
  FERRY_ASSIGN_OR_RETURN(const Tensor value, asset.node->Attr<Tensor>("value"));
  if (value.num_elements() != 1 || value.data<std::string>()[0].empty()) {
    return InvalidArgument("asset path tensor '", asset.name(), "' must hold one path");
  }
  return value.data<std::string>()[0];
}

// What can be wrong is found before anything is written.
absl::Status Check(FileSystem* fs, const SavedModelGraph& options) {
  for (const Output& asset : options.assets) {
    FERRY_ASSIGN_OR_RETURN(const std::string path, AssetPath(asset));
    FERRY_RETURN_IF_ERROR(
        Annotate(fs->Stat(path).status(), absl::StrCat("asset '", asset.name(), "'")));
  }
  for (const auto& [key, signature] : options.signatures) {
    if (key == kInitOpSignature || key == kTrainOpSignature) {
      return InvalidArgument("SignatureDef map key \"", key,
                             "\" is reserved. Please use a different key.");
    }
    for (const auto& [name, info] : signature.inputs()) {
      FERRY_RETURN_IF_ERROR(CheckTensorInfo(key, name, info));
    }
    for (const auto& [name, info] : signature.outputs()) {
      FERRY_RETURN_IF_ERROR(CheckTensorInfo(key, name, info));
    }
  }
  return absl::OkStatus();
}

// Calls fn(piece) with the file's bytes.
template <typename Fn>
absl::Status ForEachPiece(FileSystem* fs, const std::string& path, Fn fn) {
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file, fs->OpenForRead(path));
  std::string piece;
  for (uint64_t at = 0; at < file->size(); at += piece.size()) {
    piece.resize(static_cast<size_t>(std::min<uint64_t>(kPiece, file->size() - at)));
    FERRY_RETURN_IF_ERROR(file->Read(at, piece.size(), &piece[0]));
    FERRY_RETURN_IF_ERROR(fn(piece));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> SameContents(FileSystem* fs, const std::string& a, const std::string& b) {
  if (a == b) return true;
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> other, fs->OpenForRead(b));
  uint64_t at = 0;
  bool same = true;
  FERRY_RETURN_IF_ERROR(ForEachPiece(fs, a, [&](const std::string& piece) -> absl::Status {
    same = same && piece.size() <= other->size() - at;
    if (same) {
      std::string theirs(piece.size(), '\0');
      FERRY_RETURN_IF_ERROR(other->Read(at, theirs.size(), &theirs[0]));
      same = theirs == piece;
      at += piece.size();
    }
    return absl::OkStatus();
  }));
  return same && at == other->size();
}

absl::Status CopyFile(FileSystem* fs, const std::string& from, const std::string& to) {
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> file, AtomicFile::Open(fs, to));
  FERRY_RETURN_IF_ERROR(
      ForEachPiece(fs, from, [&](const std::string& piece) { return file->Append(piece); }));
  return file->Commit();
}

// The node that initializes the model, "" if there is none.
absl::StatusOr<std::string> FindInitOp(const proto::MetaGraphDef& meta) {
  const auto signature = meta.signature_def().find(kInitOpSignature);
  if (signature != meta.signature_def().end()) {
    const auto op = signature->second.outputs().find(kInitOpSignature);
    if (op != signature->second.outputs().end()) return op->second.name();
  }
  for (const char* const key : {kMainOpCollection, kLegacyInitOpCollection}) {
    const auto it = meta.collection_def().find(key);
    if (it == meta.collection_def().end()) continue;
    const auto& names = it->second.node_list().value();
    if (names.size() != 1) {
      return FailedPrecondition("Expected exactly one SavedModel init op. Found ", names.size(),
                                ": [", absl::StrJoin(names, ", "), "]");
    }
    return names.Get(0);
  }
  return std::string();
}

// The tensors to feed with assets' paths, and the files' names.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> FindAssets(
    const proto::MetaGraphDef& meta) {
  std::vector<std::pair<std::string, std::string>> assets;
  for (const proto::AssetFileDef& asset : meta.asset_file_def()) {
    assets.emplace_back(asset.tensor_info().name(), asset.filename());
  }
  const auto it = meta.collection_def().find(kAssetsCollection);
  if (!assets.empty() || it == meta.collection_def().end()) return assets;
  for (const google::protobuf::Any& any : it->second.any_list().value()) {
    proto::AssetFileDef asset;
    if (any.type_url() != kAssetType || !asset.ParseFromString(any.value())) {
      return DataLoss("collection '", kAssetsCollection,
                      "' holds an entry that is no AssetFileDef (", any.type_url(), ")");
    }
    assets.emplace_back(asset.tensor_info().name(), asset.filename());
  }
  return assets;
}

std::string Scoped(const std::string& scope, const std::string& name) {
  return scope.empty() ? name : absl::StrCat(scope, "/", name);
}

}  // namespace

proto::TensorInfo BuildTensorInfo(const Output& tensor) {
  proto::TensorInfo info;
  if (tensor.node == nullptr) return info;
  info.set_name(tensor.name());
  info.set_dtype(static_cast<proto::DataType>(BaseType(tensor.dtype())));
  ToProto(tensor.shape(), info.mutable_tensor_shape());
  return info;
}

proto::SignatureDef BuildSignature(const std::map<std::string, Output>& inputs,
                                   const std::map<std::string, Output>& outputs,
                                   const std::string& method_name) {
  proto::SignatureDef signature;
  for (const auto& [name, x] : inputs) (*signature.mutable_inputs())[name] = BuildTensorInfo(x);
  for (const auto& [name, x] : outputs) (*signature.mutable_outputs())[name] = BuildTensorInfo(x);
  signature.set_method_name(method_name);
  return signature;
}

proto::SignatureDef PredictSignature(const std::map<std::string, Output>& inputs,
                                     const std::map<std::string, Output>& outputs) {
  return BuildSignature(inputs, outputs, kPredictMethod);
}

namespace {

absl::Status Expect(const char* what, const Output& tensor, DType dtype) {
  if (tensor.node == nullptr) return InvalidArgument(what, " cannot be empty");
  if (BaseType(tensor.dtype()) == dtype) return absl::OkStatus();
  return InvalidArgument(what, " must be of type ", DTypeName(dtype), "; '", tensor.name(),
                         "' is of ", DTypeName(tensor.dtype()));
}

}  // namespace

absl::StatusOr<proto::SignatureDef> ClassificationSignature(const Output& examples,
                                                            const Output& classes,
                                                            const Output& scores) {
  FERRY_RETURN_IF_ERROR(Expect("Classification examples", examples, DType::kString));
  if (classes.node == nullptr && scores.node == nullptr) {
    return InvalidArgument("Classification classes and scores cannot both be empty");
  }
  std::map<std::string, Output> outputs;
  if (classes.node != nullptr) {
    FERRY_RETURN_IF_ERROR(Expect("Classification classes", classes, DType::kString));
    outputs["classes"] = classes;
  }
  if (scores.node != nullptr) {
    FERRY_RETURN_IF_ERROR(Expect("Classification scores", scores, DType::kFloat));
    outputs["scores"] = scores;
  }
  return BuildSignature({{"inputs", examples}}, outputs, kClassifyMethod);
}

absl::StatusOr<proto::SignatureDef> RegressionSignature(const Output& examples,
                                                        const Output& predictions) {
  FERRY_RETURN_IF_ERROR(Expect("Regression examples", examples, DType::kString));
  FERRY_RETURN_IF_ERROR(Expect("Regression predictions", predictions, DType::kFloat));
  return BuildSignature({{"inputs", examples}}, {{"outputs", predictions}}, kRegressMethod);
}

absl::StatusOr<std::unique_ptr<SavedModelBuilder>> SavedModelBuilder::Create(
    FileSystem* fs, const std::string& export_dir) {
  if (fs->Exists(export_dir)) {
    FERRY_ASSIGN_OR_RETURN(const std::vector<std::string> files, fs->List(export_dir));
    if (!files.empty()) {
      return FailedPrecondition(
          "Export directory ", export_dir,
          " already exists, and isn't empty. Please choose a "
          "different export directory, or delete all the contents of the specified directory.");
    }
  }
  FERRY_RETURN_IF_ERROR(CreateDirs(fs, export_dir));
  std::unique_ptr<SavedModelBuilder> builder(new SavedModelBuilder(fs, export_dir));
  builder->model_.set_saved_model_schema_version(1);
  return builder;
}

absl::Status SavedModelBuilder::AddMetaGraphAndVariables(Session* session,
                                                         const SavedModelGraph& options) {
  if (has_variables_) {
    return FailedPrecondition(
        "Graph state including variables and assets has already been saved. "
        "Please invoke AddMetaGraph() instead.");
  }
  FERRY_RETURN_IF_ERROR(Check(fs_, options));
  std::unique_ptr<Saver> own;
  Saver* saver = options.saver;
  if (saver == nullptr) {
    SaverOptions all;
    all.sharded = true;
    all.allow_empty = true;
    FERRY_ASSIGN_OR_RETURN(own, Saver::Create(session->graph(), all));
    saver = own.get();
  }
  const std::string prefix = SavedModelVariables(dir_);
  FERRY_RETURN_IF_ERROR(CreateDirs(fs_, DirName(prefix)));
  SaveOptions only_variables;
  only_variables.write_meta_graph = false;
  only_variables.write_state = false;
  FERRY_RETURN_IF_ERROR(saver->Save(session, prefix, only_variables).status());
  FERRY_RETURN_IF_ERROR(Add(session->graph(), saver, options));
  has_variables_ = true;
  return absl::OkStatus();
}

absl::Status SavedModelBuilder::AddMetaGraph(Graph* graph, const SavedModelGraph& options) {
  if (!has_variables_) {
    return FailedPrecondition(
        "Graph state including variables and assets has not been saved yet. "
        "Please invoke AddMetaGraphAndVariables() first.");
  }
  FERRY_RETURN_IF_ERROR(Check(fs_, options));
  std::unique_ptr<Saver> own;
  if (options.saver == nullptr) {
    SaverOptions all;
    all.sharded = true;
    all.allow_empty = true;
    FERRY_ASSIGN_OR_RETURN(own, Saver::Create(graph, all));
  }
  return Add(graph, options.saver ? options.saver : own.get(), options);
}

absl::Status SavedModelBuilder::Add(Graph* graph, Saver* saver, const SavedModelGraph& options) {
  if (options.main_op != nullptr) {
    if (options.main_op->graph() != graph) {
      return InvalidArgument("main op '", options.main_op->name(), "' is of another graph");
    }
    for (const char* const key : {kMainOpCollection, kLegacyInitOpCollection}) {
      if (graph->collections().count(key) != 0) {
        return FailedPrecondition(
            "Graph already contains one or more main ops under the "
            "collection ",
            key, ".");
      }
    }
  }
  ExportOptions exporting;
  exporting.tags = options.tags;
  exporting.strip_default_attrs = options.strip_default_attrs;
  exporting.clear_devices = options.clear_devices;
  proto::MetaGraphDef meta;
  if (saver->items().empty()) {
    FERRY_ASSIGN_OR_RETURN(meta, ExportMetaGraph(*graph, exporting));
  } else {
    FERRY_ASSIGN_OR_RETURN(meta, saver->export_meta_graph(exporting));
  }
  for (const auto& [key, signature] : options.signatures) {
    (*meta.mutable_signature_def())[key] = signature;
  }
  if (options.main_op != nullptr) {
    (*meta.mutable_collection_def())[kMainOpCollection].mutable_node_list()->add_value(
        options.main_op->name());
  }
  FERRY_RETURN_IF_ERROR(AddAssets(options, &meta));
  *model_.add_meta_graphs() = std::move(meta);
  return absl::OkStatus();
}

absl::Status SavedModelBuilder::AddAssets(const SavedModelGraph& options,
                                          proto::MetaGraphDef* meta) {
  if (options.assets.empty()) return absl::OkStatus();
  const std::string folder = JoinPath(dir_, kAssetsDir);
  FERRY_RETURN_IF_ERROR(CreateDirs(fs_, folder));
  // What a graph that was loaded from a SavedModel lists are another model's.
  auto* const list = (*meta->mutable_collection_def())[kAssetsCollection].mutable_any_list();
  list->clear_value();
  for (const Output& asset : options.assets) {
    FERRY_ASSIGN_OR_RETURN(const std::string path, AssetPath(asset));
    // One file of each content under a name.
    const std::string base = BaseName(path);
    std::string name = base;
    for (int i = 1; assets_.count(name) != 0; ++i) {
      FERRY_ASSIGN_OR_RETURN(const bool same, SameContents(fs_, path, assets_[name]));
      if (same) break;
      name = absl::StrCat(base, "_", i);
    }
    if (assets_.count(name) == 0) {
      FERRY_RETURN_IF_ERROR(Annotate(CopyFile(fs_, path, JoinPath(folder, name)),
                                     absl::StrCat("asset '", asset.name(), "'")));
      assets_[name] = path;
    }
    proto::AssetFileDef def;
    def.set_filename(name);
    def.mutable_tensor_info()->set_name(asset.name());
    // As TensorFlow names the type.
    google::protobuf::Any* const any = list->add_value();
    any->set_type_url(kAssetType);
    any->set_value(def.SerializeAsString());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> SavedModelBuilder::Save(bool as_text) {
  const std::string path = JoinPath(dir_, as_text ? kPbtxtName : kPbName);
  const size_t size = model_.ByteSizeLong();
  if (size + kMessageCrcBytes > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return InvalidArgument("'", path, "': the graphs take ", size,
                           " bytes; protocol buffers end at "
                           "2 GiB. Keep large constants in variables, whose values go into the "
                           "model's checkpoint");
  }
  std::string bytes;
  if (as_text) {
    if (!google::protobuf::TextFormat::PrintToString(model_, &bytes)) {
      return Internal("'", path, "': the model can't be written as text");
    }
    bytes = TextCrcLine(bytes) + bytes;
  } else {
    FERRY_ASSIGN_OR_RETURN(bytes, SerializeWithCrc(model_));
  }
  FERRY_RETURN_IF_ERROR(WriteFileAtomically(fs_, path, bytes));
  LogInfo("SavedModel written to: ", path);
  return path;
}

absl::Status SimpleSave(Session* session, const std::string& export_dir,
                        const std::map<std::string, Output>& inputs,
                        const std::map<std::string, Output>& outputs, Node* main_op) {
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<SavedModelBuilder> builder,
                         SavedModelBuilder::Create(session->file_system(), export_dir));
  SavedModelGraph graph;
  graph.tags = {kServe};
  graph.signatures[kDefaultServingSignature] = PredictSignature(inputs, outputs);
  graph.main_op = main_op;
  graph.clear_devices = true;
  FERRY_RETURN_IF_ERROR(builder->AddMetaGraphAndVariables(session, graph));
  return builder->Save().status();
}

bool MaybeSavedModelDirectory(FileSystem* fs, const std::string& dir) {
  return fs->Exists(JoinPath(dir, kPbName)) || fs->Exists(JoinPath(dir, kPbtxtName));
}

absl::StatusOr<proto::SavedModel> ReadSavedModel(FileSystem* fs, const std::string& dir) {
  proto::SavedModel model;
  const std::string binary = JoinPath(dir, kPbName), text = JoinPath(dir, kPbtxtName);
  if (fs->Exists(binary)) {
    FERRY_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(fs, binary));
    FERRY_RETURN_IF_ERROR(CheckMessageCrc(bytes, binary));
    if (bytes.empty() || !model.ParseFromString(bytes)) {
      return DataLoss("Cannot parse file ", binary, ": it is no SavedModel, or damaged");
    }
  } else if (fs->Exists(text)) {
    FERRY_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(fs, text));
    if (!TextCrcMatches(bytes)) {
      return DataLoss(text, ": damaged: its contents don't match the crc in its first line");
    }
    google::protobuf::TextFormat::Parser parser;
    constexpr int kDepth = 200;  // Deeper ones come from no graph, and would exhaust the stack.
    parser.SetRecursionLimit(kDepth);
    if (bytes.empty() || !parser.ParseFromString(bytes, &model)) {
      return DataLoss("Cannot parse file ", text, ": it is no SavedModel in text form, or damaged");
    }
  } else {
    return NotFound("SavedModel file does not exist at: ", dir, "/{", kPbtxtName, "|", kPbName,
                    "}");
  }
  if (model.meta_graphs().empty()) {
    return DataLoss("the SavedModel in '", dir, "' holds no graph: it is empty, or cut off");
  }
  return model;
}

absl::StatusOr<const proto::MetaGraphDef*> FindMetaGraph(const proto::SavedModel& model,
                                                         const std::vector<std::string>& tags) {
  const std::set<std::string> wanted(tags.begin(), tags.end());
  const auto quoted = [](const std::set<std::string>& names) {
    return names.empty() ? std::string() : absl::StrCat("'", absl::StrJoin(names, "', '"), "'");
  };
  std::vector<std::string> available;
  for (const proto::MetaGraphDef& meta : model.meta_graphs()) {
    const auto& list = meta.meta_info_def().tags();
    const std::set<std::string> found(list.begin(), list.end());
    if (found == wanted) return &meta;
    available.push_back(absl::StrCat("{", quoted(found), "}"));
  }
  return NotFound("MetaGraphDef associated with tags ", quoted(wanted),
                  " could not be found in SavedModel, with available tags '[",
                  absl::StrJoin(available, ", "), "]'");
}

std::string SavedModelVariables(const std::string& dir) {
  return JoinPath(dir, "variables/variables");
}

absl::StatusOr<proto::MetaGraphDef> LoadSavedModelInto(Session* session, const std::string& dir,
                                                       const std::vector<std::string>& tags,
                                                       const LoadOptions& options) {
  FileSystem* const fs = session->file_system();
  FERRY_ASSIGN_OR_RETURN(const proto::SavedModel model, ReadSavedModel(fs, dir));
  const absl::StatusOr<const proto::MetaGraphDef*> found = FindMetaGraph(model, tags);
  if (!found.ok()) return Annotate(found.status(), absl::StrCat("'", dir, "'"));
  const proto::MetaGraphDef& meta = **found;

  Graph* const graph = session->graph();
  ImportMetaOptions import;
  import.clear_devices = options.clear_devices;
  import.import_scope = options.import_scope;
  const absl::StatusOr<ImportedMetaGraph> imported = ImportMetaGraph(meta, import, graph);
  if (!imported.ok()) return Annotate(imported.status(), absl::StrCat("'", dir, "'"));

  const std::string prefix = SavedModelVariables(dir);
  if (imported->has_saver_def && !imported->saver_def.restore_op_name().empty()) {
    if (CheckpointExists(fs, prefix)) {
      LogInfo("Restoring parameters from ", prefix);
      const absl::Status restored = session->Run(
          {{imported->saver_def.filename_tensor_name(), Tensor::Scalar<std::string>(prefix)}}, {},
          {imported->saver_def.restore_op_name()}, nullptr);
      if (!restored.ok()) {
        return Annotate(restored, absl::StrCat("restoring the variables of '", dir, "'"));
      }
    } else {
      FERRY_ASSIGN_OR_RETURN(const auto variables, GlobalVariables(*graph));
      if (!variables.empty()) {
        return NotFound("The passed save_path is not a valid checkpoint: ", prefix,
                        " (the variables of the SavedModel '", dir, "')");
      }
    }
  } else if (CheckpointExists(fs, prefix)) {
    // No saver was exported: the variables under their own names.
    SaverOptions all;
    all.allow_empty = true;
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(graph, all));
    if (!saver->items().empty()) FERRY_RETURN_IF_ERROR(saver->Restore(session, prefix));
  } else {
    LogInfo("The specified SavedModel has no variables; no checkpoints were restored.");
  }

  FERRY_ASSIGN_OR_RETURN(std::string init, FindInitOp(meta));
  if (!init.empty()) {
    init = Scoped(imported->scope, init.substr(0, init.find(':')));
    FERRY_ASSIGN_OR_RETURN(const auto assets, FindAssets(meta));
    std::vector<std::pair<std::string, Tensor>> feeds;
    for (const auto& [tensor, file] : assets) {
      // A name alone: it must not lead out of the folder.
      if (file.empty() || file == "." || file == ".." || absl::StrContains(file, '/')) {
        return DataLoss("'", dir, "': an asset has the file name '", file, "'");
      }
      feeds.emplace_back(Scoped(imported->scope, tensor),
                         Tensor::Scalar<std::string>(JoinPath(JoinPath(dir, kAssetsDir), file)));
    }
    const absl::Status ran = session->Run(feeds, {}, {init}, nullptr);
    if (!ran.ok()) return Annotate(ran, absl::StrCat("the init op of the SavedModel '", dir, "'"));
  }
  return meta;
}

absl::StatusOr<SavedModelBundle> LoadSavedModel(const SessionOptions& session_options,
                                                const std::string& dir,
                                                const std::vector<std::string>& tags,
                                                const LoadOptions& options) {
  SavedModelBundle bundle;
  bundle.graph = std::make_unique<Graph>();
  bundle.session = std::make_unique<Session>(bundle.graph.get(), session_options);
  FERRY_ASSIGN_OR_RETURN(bundle.meta_graph,
                         LoadSavedModelInto(bundle.session.get(), dir, tags, options));
  return bundle;
}

}  // namespace ferry
