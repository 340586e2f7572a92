// What the tests beside TensorFlow let this project's Savers do. Variables, where the program makes
// them, are w float [5,3] (i / 2), b int64 [] (7) and scope/s string [2] ("x", "yy").
//
//   saver_program build KIND PREFIX [SUFFIX]   make the variables, save them, with the meta graph
//   saver_program restore KIND PREFIX          make them, restore, print a line each
//   saver_program start KIND PREFIX            the same with InitFromCheckpoint
//   saver_program resave META PREFIX OUT       import, restore through its SaverDef, save
//   saver_program resave_nodes META PREFIX OUT the same by the nodes of the graph
//   saver_program export_scope META SCOPE OUT  import a meta graph, export a scope of it as text
//   saver_program latest DIR                   print what LatestCheckpoint finds
//   saver_program options DIR                  save with options that are not usual
//   saver_program collections PREFIX           save variables of all kinds of collections
//   saver_program listed META NAME             print the variables of a collection
//   saver_program reexport META SCOPE OUT      import into a scope, export all
//   saver_program train DIR                    five saves with metrics, into a directory as given
//
// KIND: letters for what is not usual: s sharded saver with variables on two devices; 2, 3, … w in
// as many parts along axis 0; c along axis 1, in 3; r resource variables; m saved under "other/w".
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/partitioned_variable.h"
#include "runtime/session/session.h"
#include "saver/checkpoint_state.h"
#include "saver/init_from_checkpoint.h"
#include "saver/saver.h"

namespace ferry {
namespace {

struct Model {
  explicit Model(const std::string& kind) : root(&graph), kind(kind) {
    const bool sharded = absl::StrContains(kind, "s");
    VariableOptions options;
    options.use_resource = absl::StrContains(kind, "r");
    const Scope here = sharded ? root.WithDevice("/cpu:0") : root;
    const Scope there = sharded ? root.WithDevice("/cpu:1") : root;
    std::vector<float> values;
    for (int i = 0; i < 15; ++i) values.push_back(static_cast<float>(i) / 2);
    options.initializer = [values](const Scope& s, const TensorShape& shape, DType) {
      return ops::Const(s, Tensor::Of<float>(values, shape));
    };
    int parts = absl::StrContains(kind, "c") ? 3 : 1;
    for (const char c : kind) parts = c >= '2' && c <= '9' ? c - '0' : parts;
    if (parts == 1) {
      w = {GetVariable(here, "w", {5, 3}, DType::kFloat, options)};
      value = w[0].read;
    } else {
      // Filled by way of a checkpoint of the whole.
      options.initializer = ZerosInitializer();
      const PartitionedVariable v = GetPartitionedVariable(
          here, "w", {5, 3}, DType::kFloat,
          FixedSizePartitions({5, 3}, parts, absl::StrContains(kind, "c") ? 1 : 0), options);
      w = v.parts;
      value = v.AsTensor(root);
    }
    options.initializer = [](const Scope& s, const TensorShape&, DType) {
      return ops::Const<int64_t>(s, 7);
    };
    b = GetVariable(there, "b", {}, DType::kInt64, options);
    options.initializer = [](const Scope& s, const TensorShape&, DType) {
      return ops::Const(s, Tensor::Of<std::string>({"x", "yy"}));
    };
    options.trainable = false;
    s = GetVariable(there.WithPrefix("scope"), "s", {2}, DType::kString, options);
    init = GlobalVariablesInitializer(root);
  }
  absl::StatusOr<std::unique_ptr<Saver>> MakeSaver() {
    FERRY_RETURN_IF_ERROR(root.status());
    SaverOptions options;
    options.sharded = absl::StrContains(kind, "s");
    if (absl::StrContains(kind, "m")) {
      for (const VariableHandle& part : w) options.var_map.push_back({"other/w", part});
      options.var_map.push_back({"b", b});
    }
    return Saver::Create(&graph, options);
  }
  absl::Status Print(Session* session) {
    std::vector<Tensor> out;
    FERRY_RETURN_IF_ERROR(session->Run({}, {value.name(), b.read.name(), s.read.name()}, {}, &out));
    std::cout << "w " << out[0].DebugString(100) << "\nb " << out[1].DebugString() << "\ns "
              << out[2].DebugString() << "\n";
    return absl::OkStatus();
  }

  Graph graph;
  Scope root;
  const std::string kind;
  std::vector<VariableHandle> w;
  VariableHandle b, s;
  Output value;
  Node* init = nullptr;
};

absl::Status Build(const std::string& kind, const std::string& prefix, const std::string& suffix) {
  Model model(kind);
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> saver, model.MakeSaver());
  Session session(&model.graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {model.init->name()}, nullptr));
  if (model.w.size() > 1) {
    Model whole("");
    FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> first, whole.MakeSaver());
    Session before(&whole.graph);
    FERRY_RETURN_IF_ERROR(before.Run({}, {}, {whole.init->name()}, nullptr));
    FERRY_ASSIGN_OR_RETURN(const std::string path, first->Save(&before, prefix + "_whole"));
    SaverOptions parts;
    parts.var_list = model.w;
    FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> filler, Saver::Create(&model.graph, parts));
    FERRY_RETURN_IF_ERROR(filler->Restore(&session, path));
  }
  SaveOptions options;
  if (!suffix.empty()) options.meta_graph_suffix = suffix;
  return saver->Save(&session, prefix, options).status();
}

absl::Status Restore(const std::string& kind, const std::string& prefix) {
  Model model(kind);
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> saver, model.MakeSaver());
  Session session(&model.graph);
  if (absl::StrContains(kind, "m")) {
    FERRY_RETURN_IF_ERROR(session.Run({}, {}, {model.init->name()}, nullptr));
  }
  FERRY_RETURN_IF_ERROR(saver->Restore(&session, prefix));
  return model.Print(&session);
}

absl::Status Start(const std::string& kind, const std::string& prefix) {
  Model model(kind);
  FERRY_RETURN_IF_ERROR(
      InitFromCheckpoint(FileSystem::Posix(), prefix, {{"/", "/"}}, &model.graph));
  Session session(&model.graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {model.init->name()}, nullptr));
  return model.Print(&session);
}

absl::Status Resave(bool by_nodes, const std::string& meta, const std::string& prefix,
                    const std::string& out) {
  Graph graph;
  ImportedMetaGraph imported;
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> saver,
                         ImportMetaGraphFile(FileSystem::Posix(), meta, {}, &graph, &imported));
  Session session(&graph);
  if (!by_nodes) {
    FERRY_RETURN_IF_ERROR(saver->Restore(&session, prefix));
    return saver->Save(&session, out).status();
  }
  const std::string name = imported.saver_def.filename_tensor_name();
  FERRY_RETURN_IF_ERROR(session.Run({{name, Tensor::Scalar(prefix)}}, {},
                                    {imported.saver_def.restore_op_name()}, nullptr));
  std::vector<Tensor> written;
  return session.Run({{name, Tensor::Scalar(out)}}, {imported.saver_def.save_tensor_name()}, {},
                     &written);
}

absl::Status ExportScope(const std::string& from, const std::string& scope,
                         const std::string& out) {
  Graph graph;
  FileSystem* fs = FileSystem::Posix();
  FERRY_RETURN_IF_ERROR(ImportMetaGraphFile(fs, from, {}, &graph).status());
  ExportOptions options;
  options.export_scope = scope;
  FERRY_ASSIGN_OR_RETURN(const proto::MetaGraphDef meta, ExportMetaGraph(graph, options));
  return WriteMetaGraph(fs, out, meta, /*as_text=*/true);
}

absl::Status Options(const std::string& dir) {
  Model model("");
  Session session(&model.graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {model.init->name()}, nullptr));
  SaverOptions relative;
  relative.pad_step_number = relative.save_relative_paths = true;
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> saver, Saver::Create(&model.graph, relative));
  SaveOptions at;
  at.global_step = 12;
  at.latest_filename = "best";
  at.meta_graph_suffix = "graph";
  at.strip_default_attrs = true;
  FERRY_RETURN_IF_ERROR(saver->Save(&session, dir + "/m", at).status());
  SaverOptions reshaping;
  reshaping.reshape = reshaping.restore_sequentially = true;
  reshaping.name = "keeper";
  reshaping.filename = "elsewhere";
  reshaping.max_to_keep = 7;
  reshaping.keep_checkpoint_every_n_hours = 2;
  FERRY_ASSIGN_OR_RETURN(saver, Saver::Create(&model.graph, reshaping));
  SaveOptions quiet;
  quiet.write_state = false;
  return saver->Save(&session, dir + "/reshaped", quiet).status();
}

absl::Status Collections(const std::string& prefix) {
  Graph graph;
  Scope root(&graph);
  const auto make = [&](const char* name, const std::vector<std::string>& collections,
                        bool trainable) {
    VariableOptions options;
    options.collections = collections;
    options.trainable = trainable;
    return MakeVariable(root, name, Tensor::Of<float>({1, 2}), options);
  };
  make("w", {kGlobalVariables, "mine"}, true);
  make("local", {kLocalVariables}, false);
  make("model", {kGlobalVariables, kModelVariables}, true);
  make("averaged", {kGlobalVariables, kMovingAverageVariables}, true);
  GetOrCreateGlobalStep(root);
  Node* init = GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> saver, Saver::Create(&graph));
  return saver->Save(&session, prefix).status();
}

absl::Status Listed(const std::string& from, const std::string& collection) {
  Graph graph;
  FERRY_RETURN_IF_ERROR(ImportMetaGraphFile(FileSystem::Posix(), from, {}, &graph).status());
  FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> all, VariablesOf(graph, collection));
  for (const VariableHandle& v : all) std::cout << v.name() << "\n";
  return absl::OkStatus();
}

absl::Status Reexport(const std::string& from, const std::string& scope, const std::string& out) {
  Graph graph;
  ImportMetaOptions options;
  options.import_scope = scope;
  FileSystem* fs = FileSystem::Posix();
  FERRY_RETURN_IF_ERROR(ImportMetaGraphFile(fs, from, options, &graph).status());
  FERRY_ASSIGN_OR_RETURN(const proto::MetaGraphDef meta, ExportMetaGraph(graph, {}));
  return WriteMetaGraph(fs, out, meta);
}

absl::Status Train(const std::string& dir) {
  Model model("");
  SaverOptions options;
  options.max_to_keep = 2;
  options.keep_best = 1;
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> saver, Saver::Create(&model.graph, options));
  Session session(&model.graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {model.init->name()}, nullptr));
  FERRY_RETURN_IF_ERROR(saver->RecoverFromState(FileSystem::Posix(), dir));
  for (int step = 1; step <= 5; ++step) {
    SaveOptions at;
    at.global_step = step;
    at.metric = step == 2 ? 0.9 : 0.1 * step;
    FERRY_RETURN_IF_ERROR(saver->Save(&session, absl::StrCat(dir, "/m"), at).status());
  }
  return absl::OkStatus();
}

absl::Status Main(const std::vector<std::string>& a) {
  const std::string what = a.empty() ? "" : a[0];
  if (what == "build" && a.size() >= 3) return Build(a[1], a[2], a.size() > 3 ? a[3] : "");
  if (what == "restore" && a.size() == 3) return Restore(a[1], a[2]);
  if (what == "start" && a.size() == 3) return Start(a[1], a[2]);
  if (what == "resave" && a.size() == 4) return Resave(false, a[1], a[2], a[3]);
  if (what == "resave_nodes" && a.size() == 4) return Resave(true, a[1], a[2], a[3]);
  if (what == "export_scope" && a.size() == 4) return ExportScope(a[1], a[2], a[3]);
  if (what == "options" && a.size() == 2) return Options(a[1]);
  if (what == "collections" && a.size() == 2) return Collections(a[1]);
  if (what == "listed" && a.size() == 3) return Listed(a[1], a[2]);
  if (what == "reexport" && a.size() == 4) return Reexport(a[1], a[2], a[3]);
  if (what == "train" && a.size() == 2) return Train(a[1]);
  if (what == "latest" && a.size() == 2) {
    FERRY_ASSIGN_OR_RETURN(const std::string latest, LatestCheckpoint(FileSystem::Posix(), a[1]));
    std::cout << latest << "\n";
    return absl::OkStatus();
  }
  return InvalidArgument("unknown arguments: ", what);
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  const absl::Status status = ferry::Main(std::vector<std::string>(argv + 1, argv + argc));
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}
