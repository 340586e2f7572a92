// Estimator.
#include "saver/estimator.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/summary.h"
#include "saver/checkpoint_state.h"
#include "saver/saved_model.h"

namespace ferry {
namespace {

constexpr char kLabels[] = "labels";

Output PlaceholderFor(const Scope& root, const std::string& name, const Tensor& example) {
  PartialShape shape(example.shape());
  if (shape.rank() > 0) shape.set_dim(0, PartialShape::kUnknown);
  return ops::Placeholder(root.WithOpName(name), example.dtype(), shape);
}

absl::StatusOr<double> AsNumber(const std::string& name, const Tensor& t) {
  if (t.num_elements() == 1) {
    if (t.dtype() == DType::kFloat) return t.data<float>()[0];
    if (t.dtype() == DType::kDouble) return t.data<double>()[0];
    if (t.dtype() == DType::kInt64) return static_cast<double>(t.data<int64_t>()[0]);
    if (t.dtype() == DType::kInt32) return t.data<int32_t>()[0];
  }
  return InvalidArgument("metric '", name, "' is ", DTypeName(t.dtype()), t.shape().DebugString(),
                         "; expected a number");
}

}  // namespace

InputFn RepeatBatch(Batch batch, int64_t times) {
  return [batch, times]() -> absl::StatusOr<BatchSource> {
    return BatchSource([batch, left = times](Batch* out) mutable -> absl::StatusOr<bool> {
      if (left == 0) return false;
      if (left > 0) --left;
      *out = batch;
      return true;
    });
  };
}

// A graph with the model in it, and the data that it was built for.
struct Estimator::Model {
  Graph graph;
  Scope root{&graph};
  std::map<std::string, Output> features;
  EstimatorSpec spec;
  MonitoredSessionOptions options;
  BatchSource next;
  Batch batch;  // The one to run next.
  bool more = false;
  std::vector<std::pair<std::string, Tensor>> Feeds() const {
    std::vector<std::pair<std::string, Tensor>> feeds(batch.features.begin(), batch.features.end());
    if (has_labels) feeds.emplace_back(kLabels, batch.labels);
    return feeds;
  }
  absl::Status Advance() {
    Batch fresh;
    FERRY_ASSIGN_OR_RETURN(more, next(&fresh));
    if (more) batch = std::move(fresh);
    return absl::OkStatus();
  }
  bool has_labels = false;
};

FileSystem* Estimator::file_system() const {
  return config_.session.file_system ? config_.session.file_system : FileSystem::Posix();
}

absl::Status Estimator::Build(const InputFn& input, ModeKeys mode, Model* m) const {
  if (config_.model_dir.empty()) return InvalidArgument("an Estimator without a model_dir");
  FERRY_ASSIGN_OR_RETURN(m->next, input());
  FERRY_RETURN_IF_ERROR(m->Advance());
  if (!m->more) return InvalidArgument("the input of the Estimator has no data");
  if (config_.random_seed) m->graph.set_seed(*config_.random_seed);
  GetOrCreateGlobalStep(m->root);
  for (const auto& [name, example] : m->batch.features) {
    if (name == kLabels) return InvalidArgument("a feature must not be called '", kLabels, "'");
    m->features[name] = PlaceholderFor(m->root, name, example);
  }
  Output labels;
  m->has_labels = mode != ModeKeys::kPredict && m->batch.labels.initialized();
  if (m->has_labels) labels = PlaceholderFor(m->root, kLabels, m->batch.labels);
  FERRY_RETURN_IF_ERROR(m->root.status());
  FERRY_ASSIGN_OR_RETURN(m->spec, model_fn_(m->root, m->features, labels, mode));
  FERRY_RETURN_IF_ERROR(m->root.status());
  m->options.session = config_.session;
  m->options.log = config_.log;
  m->options.scaffold = m->spec.scaffold;
  if (m->options.scaffold.saver == nullptr) {
    SaverOptions saver;
    saver.max_to_keep = config_.keep_checkpoint_max;
    FERRY_ASSIGN_OR_RETURN(m->options.scaffold.saver, Saver::Create(&m->graph, saver));
  }
  return absl::OkStatus();
}

absl::Status Estimator::RestoreInto(const std::string& checkpoint_path, Model* m) const {
  std::string path = checkpoint_path;
  if (path.empty()) {
    FERRY_ASSIGN_OR_RETURN(path, LatestCheckpoint());
    if (path.empty()) {
      return NotFound("Could not find trained model in model_dir: ", config_.model_dir);
    }
  }
  const auto user_fn = m->options.scaffold.init_fn;
  m->options.scaffold.init_fn = [m, path, user_fn](Session* session) -> absl::Status {
    FERRY_RETURN_IF_ERROR(m->options.scaffold.saver->Restore(session, path));
    return user_fn ? user_fn(session) : absl::OkStatus();
  };
  return absl::OkStatus();
}

absl::StatusOr<std::string> Estimator::LatestCheckpoint() const {
  return FindLatestGoodCheckpoint(file_system(), config_.model_dir);
}

absl::Status Estimator::Train(const InputFn& input, const TrainSpec& spec) {
  if (spec.steps < 0 || spec.max_steps < 0 || (spec.steps > 0 && spec.max_steps > 0)) {
    return InvalidArgument("Can not provide both steps and max_steps: there are ", spec.steps,
                           " and ", spec.max_steps);
  }
  Model m;
  FERRY_RETURN_IF_ERROR(Build(input, ModeKeys::kTrain, &m));
  if (m.spec.loss.node == nullptr || m.spec.train_op == nullptr) {
    return InvalidArgument("the model_fn gave no ", m.spec.loss.node ? "train_op" : "loss",
                           " to train with");
  }
  // Unless the model records its loss itself.
  if (m.graph.FindNode("loss") == nullptr) summary::Scalar(m.root, "loss", m.spec.loss);
  FERRY_RETURN_IF_ERROR(m.root.status());
  m.options.checkpoint_dir = config_.model_dir;
  m.options.stop = spec.stop;
  auto& hooks = m.options.hooks;
  hooks = {std::make_shared<NanTensorHook>(m.spec.loss.name())};
  if (config_.log_step_count_steps > 0) {
    hooks.push_back(std::make_shared<LoggingTensorHook>(
        std::vector<std::pair<std::string, std::string>>{{"loss", m.spec.loss.name()},
                                                         {"step", "global_step"}},
        Every{config_.log_step_count_steps, 0}));
  }
  if (spec.steps > 0) {
    hooks.push_back(std::make_shared<StopAtStepHook>(StopAtStepHook::NumSteps(spec.steps)));
  } else if (spec.max_steps > 0) {
    hooks.push_back(std::make_shared<StopAtStepHook>(StopAtStepHook::LastStep(spec.max_steps)));
  }
  hooks.insert(hooks.end(), m.spec.training_hooks.begin(), m.spec.training_hooks.end());
  hooks.insert(hooks.end(), spec.hooks.begin(), spec.hooks.end());
  TrainingDefaults defaults;
  defaults.save_checkpoint = config_.save_checkpoints;
  defaults.save_summaries.steps = config_.save_summary_steps > 0 ? config_.save_summary_steps : -1;
  defaults.log_step_count_steps = config_.log_step_count_steps;
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<MonitoredSession> training,
                         MonitoredTrainingSession(&m.graph, m.options, defaults));
  while (m.more && !training->should_stop()) {
    FERRY_RETURN_IF_ERROR(training->Run(m.Feeds(), {}, {m.spec.train_op->name()}));
    FERRY_RETURN_IF_ERROR(m.Advance());
  }
  return training->Close();
}

absl::StatusOr<std::map<std::string, double>> Estimator::Evaluate(const InputFn& input,
                                                                  const EvalSpec& spec) {
  Model m;
  FERRY_RETURN_IF_ERROR(Build(input, ModeKeys::kEval, &m));
  std::map<std::string, Metric> all = m.spec.eval_metric_ops;
  if (m.spec.loss.node != nullptr && all.count("loss") == 0) {
    all["loss"] = metrics::Mean(m.root, m.spec.loss, "mean_loss");
  }
  FERRY_RETURN_IF_ERROR(m.root.status());
  FERRY_RETURN_IF_ERROR(RestoreInto(spec.checkpoint_path, &m));
  m.options.hooks = m.spec.evaluation_hooks;
  m.options.hooks.insert(m.options.hooks.end(), spec.hooks.begin(), spec.hooks.end());
  std::vector<std::string> updates, values;
  for (const auto& [name, metric] : all) {
    updates.push_back(metric.update_op.node->name());
    values.push_back(metric.value.name());
  }
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<MonitoredSession> session,
                         MonitoredSession::Create(&m.graph, m.options));
  for (int64_t batch = 0;
       m.more && (spec.steps == 0 || batch < spec.steps) && !session->should_stop(); ++batch) {
    FERRY_RETURN_IF_ERROR(session->Run(m.Feeds(), {}, updates));
    FERRY_RETURN_IF_ERROR(m.Advance());
  }
  std::vector<Tensor> out;
  FERRY_RETURN_IF_ERROR(session->session()->Run({}, values, {}, &out));
  FERRY_ASSIGN_OR_RETURN(const int64_t step, session->GlobalStep());
  std::map<std::string, double> results;
  size_t i = 0;
  proto::Summary summary;
  for (const auto& [name, metric] : all) {
    FERRY_ASSIGN_OR_RETURN(results[name], AsNumber(name, out[i++]));
    proto::Summary::Value* v = summary.add_value();
    v->set_tag(name);
    v->set_simple_value(static_cast<float>(results[name]));
  }
  results["global_step"] = static_cast<double>(step);
  session->Log(absl::StrCat("Saving dict for global step ", step, ": ",
                            absl::StrJoin(results, ", ", absl::PairFormatter(" = "))));
  FERRY_ASSIGN_OR_RETURN(
      FileWriter * events,
      session->Writer(JoinPath(config_.model_dir,
                               spec.name.empty() ? "eval" : absl::StrCat("eval_", spec.name))));
  FERRY_RETURN_IF_ERROR(events->AddSummary(summary, step));
  FERRY_RETURN_IF_ERROR(session->Close());
  return results;
}

absl::Status Estimator::Predict(
    const InputFn& input,
    const std::function<absl::Status(const std::map<std::string, Tensor>&)>& consume,
    const std::string& checkpoint_path) {
  Model m;
  FERRY_RETURN_IF_ERROR(Build(input, ModeKeys::kPredict, &m));
  if (m.spec.predictions.empty()) return InvalidArgument("the model_fn gave no predictions");
  FERRY_RETURN_IF_ERROR(RestoreInto(checkpoint_path, &m));
  std::vector<std::string> fetches;
  for (const auto& [name, o] : m.spec.predictions) fetches.push_back(o.name());
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<MonitoredSession> session,
                         MonitoredSession::Create(&m.graph, m.options));
  while (m.more) {
    std::vector<Tensor> out;
    FERRY_RETURN_IF_ERROR(session->Run(m.Feeds(), fetches, {}, &out));
    std::map<std::string, Tensor> predictions;
    size_t i = 0;
    for (const auto& [name, o] : m.spec.predictions) predictions[name] = out[i++];
    FERRY_RETURN_IF_ERROR(consume(predictions));
    FERRY_RETURN_IF_ERROR(m.Advance());
  }
  return session->Close();
}

absl::StatusOr<std::string> Estimator::ExportSavedModel(const std::string& export_dir_base,
                                                        const Batch& example,
                                                        const std::string& checkpoint_path) {
  Model m;
  FERRY_RETURN_IF_ERROR(Build(RepeatBatch(example, 1), ModeKeys::kPredict, &m));
  if (m.spec.predictions.empty()) return InvalidArgument("the model_fn gave no predictions");
  FERRY_RETURN_IF_ERROR(RestoreInto(checkpoint_path, &m));
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<MonitoredSession> session,
                         MonitoredSession::Create(&m.graph, m.options));
  FERRY_RETURN_IF_ERROR(CreateDirs(file_system(), export_dir_base));
  // The next second when there is one of this second already, as loaders take the greatest number.
  int64_t time = absl::ToUnixSeconds(absl::Now());
  std::string dir;
  do {
    dir = JoinPath(export_dir_base, absl::StrCat(time++));
  } while (file_system()->Exists(dir));
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<SavedModelBuilder> builder,
                         SavedModelBuilder::Create(file_system(), dir));
  SavedModelGraph graph;
  graph.tags = {kServe};
  graph.signatures[kDefaultServingSignature] = PredictSignature(m.features, m.spec.predictions);
  FERRY_RETURN_IF_ERROR(builder->AddMetaGraphAndVariables(session->session(), graph));
  FERRY_RETURN_IF_ERROR(builder->Save().status());
  FERRY_RETURN_IF_ERROR(session->Close());
  return dir;
}

}  // namespace ferry
