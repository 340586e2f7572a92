// Every line of C++ that docs/from-tensorflow.md shows, so that it compiles; tests/cli/docs_test.py
// looks for each of them here. Nothing of it is run.
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/graph/clipping.h"
#include "runtime/graph/cond.h"
#include "runtime/graph/embedding.h"
#include "runtime/graph/learning_rate.h"
#include "runtime/graph/metrics.h"
#include "runtime/graph/moving_averages.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/partitioned_variable.h"
#include "runtime/graph/sparse_gradient.h"
#include "runtime/graph/summary.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "saver/estimator.h"
#include "saver/event_writer.h"
#include "saver/freeze.h"
#include "saver/hooks.h"
#include "saver/init_from_checkpoint.h"
#include "saver/saved_model.h"
#include "saver/saver.h"

namespace ferry {
namespace {

FileSystem* const fs = FileSystem::Posix();

// What the snippets take for granted.
struct Given {
  Graph graph;
  Scope root{&graph};
  Scope s{&graph};
  Session session{&graph};
  VariableHandle w, v1, bias, step;
  Output x, y, two, shape, scale, offset, mean, variance, none, loss;
  Node *train = nullptr, *all = nullptr;
  std::vector<int64_t> strides;
};

void Ignore(const absl::Status& status) { status.IgnoreError(); }
template <typename T>
void Ignore(const T&) {}

void Savers(Given& g) {
  Graph& graph = g.graph;
  Session& session = g.session;
  const VariableHandle w = g.w, b = g.bias, v1 = g.v1, step = g.step;
  auto saver = *Saver::Create(&graph);
  {
    SaverOptions o;
    o.var_list = {w, b};
    o.max_to_keep = 2;
    Ignore(Saver::Create(&graph, o));
    o.var_map = {{"v1", v1}};
    o.sharded = true;
    o.defer_build = true;
    Ignore(saver->Build());
  }
  std::string path;
  SaveOptions at;
  at.global_step = 5;
  path = *saver->Save(&session, "dir/m", at);
  at.global_step_variable = step;
  Ignore(saver->SaveAsync(&session, "dir/m", at));
  Ignore(saver->Restore(&session, path));
  Ignore(LatestCheckpoint(fs, "dir"));
  Ignore(GetCheckpointState(fs, "dir"));
  Ignore(saver->RecoverFromState(fs, "dir"));
  const proto::SaverDef def = *saver->as_saver_def();
  Ignore(Saver::FromProto(&graph, def));
}

void Retention(Given& g, double validation_loss) {
  Graph& graph = g.graph;
  Session& session = g.session;
  const int64_t step = 800;
  SaverOptions o;
  o.max_to_keep = 3;
  o.keep_best = 2;  // Besides the newest 3, the 2 with the best metric.
  o.lower_is_better = true;
  auto saver = *Saver::Create(&graph, o);
  Ignore(saver->RecoverFromState(fs, "dir"));  // Metrics and protection come back, too.
  SaveOptions at;
  at.global_step = step;
  at.metric = validation_loss;
  Ignore(saver->Save(&session, "dir/m", at));
  saver->best_checkpoints();    // {{"dir/m-800", 0.12}, …}
  saver->Protect("dir/m-100");  // Never evicted, until Unprotect.
}

void MetaGraphs(Given& g) {
  Graph& graph = g.graph;
  const Output y = g.y;
  auto saver = *ImportMetaGraphFile(fs, "m.meta", {}, &graph);
  {
    ImportMetaOptions o;
    o.clear_devices = true;
    o.import_scope = "a";
    o.input_map["x:0"] = y;
    o.return_elements = {"out:0"};
    ImportedMetaGraph imported;
    Ignore(imported.nodes.return_outputs);
  }
  Ignore(*graph.FindOutput("w:0"));
  Ignore(WriteMetaGraph(fs, "m.meta", *saver->export_meta_graph(), /*as_text=*/true));
  ExportOptions o;
  o.export_scope = "a";
  o.clear_extraneous_savers = true;
}

void FineTuning(Given& g) {
  Graph& graph = g.graph;
  Session& session = g.session;
  const VariableHandle b = g.bias;
  const Output loss = g.loss;
  auto trunk = *ImportMetaGraphFile(fs, "vgg.meta", {}, &graph);
  Scope root(&graph);
  Output fc7 = ops::StopGradient(root, *graph.FindOutput("fc7/Relu:0"));
  VariableHandle w =
      GetVariable(root, "new/w", {4096, 2}, DType::kFloat, {TruncatedNormalInitializer(0, 0.05)});
  Ignore(fc7);
  MinimizeOptions only;
  only.var_list = {w, b};
  Node* train = AdamOptimizer().Minimize(root, loss, only);
  Node* init = VariablesInitializer(root, only.var_list);
  Ignore(train);
  Ignore(init);
  Ignore(trunk->Restore(&session, "vgg"));
}

void Variables(Given& g) {
  Graph& graph = g.graph;
  const Scope& s = g.s;
  const VariableHandle bias = g.bias, a = g.v1, b = g.bias;
  const Output x = g.x;
  {
    const PartitionedVariable w =
        GetPartitionedVariable(s, "w", {5, 3}, DType::kFloat, FixedSizePartitions({5, 3}, 2));
    Ignore(w.AsTensor(s));
    Ignore(w.parts);
  }
  {
    VariableOptions o;
    o.collections = {kLocalVariables};
    o.trainable = false;
  }
  Ignore(GlobalVariables(graph));
  Ignore(VariablesOf(graph, "mine"));
  {
    const VariableHandle& w = g.w;
    Ignore(AddVariableToCollection(&graph, "mine", ToProto(w)));
  }
  Ignore(VariablesInitializer(s, {a, b}));
  Ignore(LocalVariablesInitializer(s));
  Ignore(ReportUninitializedVariables(s));
  Ignore(InitFromCheckpoint(fs, "dir", {{"old/", "new/"}, {"b", bias}}, &graph));
  auto reader = *CheckpointReader::Open(fs, "dir");
  Ignore(reader->GetVariableToShapeMap());
  Ignore(reader->GetTensor("w"));
  Ignore(reader->HasTensor("w"));
  VariableOptions o;
  o.use_resource = true;
  const VariableHandle w = GetVariable(s, "w", {2}, DType::kFloat, o);
  Ignore(ReadValue(s, w));
  Ignore(AssignTo(s, w, x));
  Ignore(AssignAddTo(s, w, x));
  Ignore(AssignSubTo(s, w, x));
  Ignore(IsInitialized(s, w));
}

absl::Status Freezing(Given& g, const proto::MetaGraphDef& meta, const std::string& prefix) {
  Graph& graph = g.graph;
  Session& session = g.session;
  const Output y = g.y;
  std::vector<Tensor> out;
  proto::GraphDef frozen = *ConvertVariablesToConstants(&session, {"add"});
  Ignore(FreezeOptions());
  Ignore(FreezeCheckpoint(fs, meta, prefix, {"add"}));
  Ignore(WriteGraphDef(fs, "combined_model.pb", frozen));
  Ignore(ExtractSubGraph(frozen, {"add"}));
  Ignore(RemoveTrainingNodes(frozen));
  const proto::GraphDef& graph_def = frozen;
  Ignore(WriteGraph(fs, graph_def, "dir", "graph.pbtxt"));
  ImportOptions o;
  o.prefix = "import";            // Python's default; here it is none.
  o.return_elements = {"add:0"};  // "add" gives the node: index -1.
  o.input_map["x:0"] = y;
  ImportResults r;
  FERRY_RETURN_IF_ERROR(ImportGraphDef(o, graph_def, &graph, &r));
  return session.Run({}, {r.return_outputs[0].name()}, {}, &out);  // import/add:0
}

void SavedModels(Given& given, const std::string& path, const std::string& dir) {
  Graph& graph = given.graph;
  Session& session = given.session;
  const Output x = given.x, y = given.y;
  Ignore(SimpleSave(&session, "export/1", {{"x", x}}, {{"y", y}}));
  auto builder = *SavedModelBuilder::Create(fs, "export/1");
  SavedModelGraph g;
  g.tags = {kServe};
  g.signatures[kDefaultServingSignature] = PredictSignature({}, {});
  const Output asset = x;
  g.assets = {asset};
  g.main_op = given.train;
  Ignore(path);
  Ignore(builder->AddMetaGraphAndVariables(&session, g));
  Ignore(builder->AddMetaGraph(&graph, g));
  Ignore(builder->Save(/*as_text=*/true));
  Ignore(PredictSignature({{"x", x}}, {{"y", y}}));
  Ignore(ClassificationSignature(x, y, y));
  Ignore(RegressionSignature(x, y));
  Ignore(BuildTensorInfo(x));
  SavedModelBundle m = *LoadSavedModel({}, "export/1", {kServe});
  Ignore(LoadSavedModelInto(&session, "export/1", {kServe}));
  Ignore(m.meta_graph.signature_def().at(kDefaultServingSignature).inputs().at("x").name());
  Ignore(MaybeSavedModelDirectory(fs, dir));
}

void Images(Given& g) {
  const Scope& s = g.s;
  const Output x = g.x, y = g.y, b = g.offset, shape = g.shape, scale = g.scale, offset = g.offset,
               mean = g.mean, variance = g.variance, none = g.none;
  const Output w = g.w.read;
  const std::vector<int64_t>& strides = g.strides;
  Ignore(ops::Conv2D(s, x, w, {1, 2, 2, 1}, "SAME"));
  ops::Conv2DAttrs a;
  a.dilations = {1, 1, 2, 2};
  a.data_format = "NCHW";
  Ignore(ops::Conv2D(s, x, w, strides, "SAME", a));
  a.explicit_paddings = {0, 0, 1, 0, 2, 1, 0, 0};
  Ignore(ops::Conv2D(s, x, w, strides, "EXPLICIT", a));
  Ignore(ops::Conv2DBackpropInput(s, shape, w, y, strides, "SAME"));
  Ignore(ops::MaxPool(s, x, {1, 2, 2, 1}, {1, 2, 2, 1}, "VALID"));
  Ignore(ops::AvgPool(s, x, {1, 2, 2, 1}, {1, 2, 2, 1}, "VALID"));
  Ignore(ops::FusedBatchNormV3(s, x, scale, offset, none, none));
  Ignore(ops::FusedBatchNormV3(s, x, scale, offset, mean, variance, false));
  Ignore(ops::LRN(s, x));
  Ignore(ops::LeakyRelu(s, x));
  Ignore(ops::Selu(s, x));
  Ignore(ops::Softsign(s, x));
  Output h = ops::Relu(s, ops::BiasAdd(s, ops::Conv2D(s, x, w, {1, 1, 1, 1}, "SAME"), b));
  h = ops::MaxPool(s, h, {1, 2, 2, 1}, {1, 2, 2, 1}, "SAME");
}

void Averages(Given& g) {
  Graph& graph = g.graph;
  const Scope& root = g.root;
  const VariableHandle w = g.w, step = g.step;
  const Output x = g.x, two = g.two;
  Node* train = g.train;
  SaverOptions o;
  ExponentialMovingAverage ema(0.99, step.read);
  {
    const VariableHandle b = g.bias;
    Node* maintain = ema.Apply(root, {w, b});
    Ignore(maintain);
  }
  Ignore(ema.Apply(root.WithControlDependencies({train})));
  Ignore(ema.average(w));
  Ignore(ema.average_name(w));
  o.var_map = *ema.variables_to_restore(graph);
  const Output a = g.x, b = g.y;
  Ignore(Cond(
      root, ops::Less(root, a, b), [&](const Scope& s) { return ops::Mul(s, x, x); },
      [&](const Scope& s) { return ops::Neg(s, x); }));
  Ignore(WhileLoop(
      root, {x},
      [&](const Scope& s, const std::vector<Output>& v) {
        return ops::Less(s, v[0], ops::Const<float>(s, 100));
      },
      [&](const Scope& s, const std::vector<Output>& v) {
        return std::vector<Output>{ops::Mul(s, v[0], v[0])};
      }));
  Ignore(InitializedValue(root, w));
  Ignore(MakeVariable(root, "u", ops::Mul(root, InitializedValue(root, w), two)));
}

class MyHook : public SessionRunHook {
  absl::Status AfterRun(MonitoredSession*, absl::Span<const Tensor>) override;
};
absl::Status MyHook::AfterRun(MonitoredSession*, absl::Span<const Tensor>) {
  return absl::OkStatus();
}

void Sessions(Given& g, const std::string& d,
              const std::vector<std::shared_ptr<SessionRunHook>>& h) {
  Graph& graph = g.graph;
  MonitoredSessionOptions options;
  const std::function<absl::Status(Session*)> f;
  const std::shared_ptr<Saver> s;
  const std::vector<std::shared_ptr<CheckpointSaverListener>> l;
  options.checkpoint_dir = d;
  options.hooks = h;
  auto t = *MonitoredTrainingSession(&graph, options);
  while (!t->should_stop()) Ignore(t->Run({}, {}, {"train_op"}));
  Ignore(t->Close());
  options.scaffold.init_fn = f;
  options.scaffold.saver = s;
  Ignore(StopAtStepHook::LastStep(1000));
  Ignore(StopAtStepHook::NumSteps(10));
  Ignore(NanTensorHook("loss", /*fail=*/false));
  CheckpointSaverOptions o;
  o.dir = d;
  o.every.steps = 100;
  o.listeners = l;
  Ignore(std::make_shared<MyHook>());
}

absl::Status Training(Given& g, const Tensor& batch) {
  Graph& graph = g.graph;
  MonitoredSessionOptions options;
  options.checkpoint_dir = "/tmp/model";
  const StopSignals signals;  // SIGTERM and SIGINT: save and end. A second one: at once.
  options.stop = signals.flag();
  options.hooks = {std::make_shared<NanTensorHook>("loss"),
                   std::make_shared<StopAtStepHook>(StopAtStepHook::LastStep(1000))};
  auto t = *MonitoredTrainingSession(&graph, options);
  while (!t->should_stop()) FERRY_RETURN_IF_ERROR(t->Run({{"x", batch}}, {}, {"train_op"}));
  FERRY_RETURN_IF_ERROR(t->Close());
  return absl::OkStatus();
}

absl::Status ExportedGraphs(const std::vector<std::pair<Tensor, Tensor>>& batches) {
  Graph graph;
  auto saver = *ImportMetaGraphFile(fs, "dir/m-100.meta", {}, &graph);
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(saver->Restore(&session, "dir/m-100"));
  auto step =
      *session.MakeCallable({.feeds = {"x", "y"}, .fetches = {"loss"}, .targets = {"train"}});
  std::vector<Tensor> loss;
  for (const auto& [x, y] : batches) FERRY_RETURN_IF_ERROR(step.Run({x, y}, &loss));
  SaveOptions at;
  at.global_step = 200;
  FERRY_RETURN_IF_ERROR(saver->Save(&session, "dir/m", at).status());
  return absl::OkStatus();
}

void Embeddings(Given& g, Output words, Output ids) {
  const Scope& s = g.s;
  const Output loss = g.loss;
  const VariableHandle step = g.step;
  VariableHandle table = GetVariable(s, "table", {10000, 32}, DType::kFloat);
  Output rows = EmbeddingLookup(s, table, words);
  Ignore(rows);
  AdagradOptimizer optimizer(PolynomialDecay(s, 0.1, step.read, 1000));
  std::vector<GradAndVar> grads = optimizer.ComputeGradients(s, loss);
  for (GradAndVar& g : grads) g.grad = ClipByNorm(s, g.grad, 5);
  Node* train_op = optimizer.ApplyGradients(s, grads, step);
  Ignore(train_op);
  Ignore(EmbeddingLookup(s, table, ids));
  const std::vector<VariableHandle> parts = {table};
  Ignore(EmbeddingLookup(s, parts, ids, PartitionStrategy::kDiv));
}

void Optimizers(Given& given) {
  const Scope& s = given.s;
  const Output loss = given.loss, x = given.x;
  const VariableHandle w = given.w, b = given.bias, step = given.step;
  std::vector<Gradient> grads;
  Ignore(AddSymbolicGradients(s, {loss}, {w.ref, b.ref}, &grads));
  std::vector<Output> tensors;
  Ignore(AddSymbolicGradients(s, {loss}, {w.ref, b.ref}, &tensors));
  const Gradient& g = grads[0];
  if (g.is_sparse()) Ignore(ToDense(s, g));
  Ignore(AdagradOptimizer(0.1).name());
  Ignore(AdadeltaOptimizer(0.1).name());
  Ignore(RMSPropOptimizer(0.1, 0.9, 0.9, 1e-10, /*centered=*/true).name());
  Ignore(FtrlOptimizer(0.1).name());
  Ignore(ClipByGlobalNorm(s, grads, 1).grads);
  Ignore(ClipByAverageNorm(s, g, 1));
  Ignore(ClipByValue(s, g, -1, 1));
  Ignore(ExponentialDecay(s, 0.1, step.read, 1000, 0.9));
  Ignore(NaturalExpDecay(s, 0.1, step.read, 1000, 0.9));
  Ignore(InverseTimeDecay(s, 0.1, step.read, 1000, 0.9));
  Ignore(CosineDecay(s, 0.1, step.read, 1000));
  Ignore(PiecewiseConstant(s, x, {100}, {0.1, 0.01}));
  VariableOptions options;
  options.regularizer = L2Regularizer(1e-4);
  Ignore(RegularizationLoss(s));
}

void Loops(Given& g, const std::string& dir) {
  Session& session = g.session;
  const std::vector<std::pair<std::string, Tensor>> feeds;
  std::vector<Tensor> out;
  Ignore(session.Run(feeds, {"loss"}, {}, &out));
  Ignore(LoadSavedModel({}, dir, {kServe}));
  RunOptions o;
  o.timeout = absl::Milliseconds(100);
  Ignore(o);
}

absl::Status Estimators(const ModelFn& model_fn, const InputFn& train_input,
                        const InputFn& test_input, const Batch& example) {
  RunConfig config;
  config.model_dir = "/tmp/model";
  Estimator estimator(model_fn, config);
  TrainSpec train;
  train.max_steps = 1000;
  FERRY_RETURN_IF_ERROR(estimator.Train(train_input, train));
  FERRY_ASSIGN_OR_RETURN(auto metrics, estimator.Evaluate(test_input));  // metrics["accuracy"]
  Ignore(metrics["accuracy"]);
  Ignore(estimator.ExportSavedModel("/tmp/export", example));
  return absl::OkStatus();
}

void TensorBoard(Given& g, const std::string& d, const std::string& serialized) {
  const Scope& root = g.root;
  const Output loss = g.loss;
  const VariableHandle w = g.w;
  const proto::GraphDef def;
  const int64_t step = 1;
  const std::vector<float> values;
  Ignore(summary::Scalar(root, "loss", loss));
  Ignore(summary::Histogram(root, "w", w.read));
  Output merged = summary::MergeAll(root);
  Ignore(merged);
  auto writer = *FileWriter::Open(fs, d);
  Ignore(writer->AddGraph(def));
  Ignore(writer->AddSummary(serialized, step));
  Ignore(writer->AddScalar("loss", 0.5, step));
  Ignore(writer->AddHistogram("w", values, step));
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  // Whatever this is called with, it does nothing; the compiler can't know.
  if (argc != 77) return argv == nullptr;
  using namespace ferry;
  Given g;
  Savers(g);
  Retention(g, 0);
  MetaGraphs(g);
  FineTuning(g);
  Variables(g);
  Ignore(Freezing(g, {}, ""));
  SavedModels(g, "", "");
  Images(g);
  Averages(g);
  Sessions(g, "", {});
  Ignore(Training(g, Tensor()));
  Ignore(Estimators(nullptr, nullptr, nullptr, {}));
  TensorBoard(g, "", "");
  Ignore(ExportedGraphs({}));
  Embeddings(g, {}, {});
  Optimizers(g);
  Loops(g, "");
}
