// Estimator: a model that is trained, evaluated and asked in a directory; metrics over batches.
#include "saver/estimator.h"

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "saver/checkpoint_state.h"
#include "saver/event_writer.h"
#include "saver/saved_model.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

// y = w * x + b, with the sign of y as the class that is predicted.
absl::StatusOr<EstimatorSpec> Line(const Scope& root, const std::map<std::string, Output>& features,
                                   Output labels, ModeKeys mode) {
  VariableOptions zeros;
  zeros.initializer = ZerosInitializer();
  const VariableHandle w = GetVariable(root, "w", {1}, DType::kFloat, zeros);
  const VariableHandle b = GetVariable(root, "b", {1}, DType::kFloat, zeros);
  Output y = ops::AddV2(root, ops::Mul(root, features.at("x"), w.read), b.read);
  EstimatorSpec spec;
  spec.predictions["y"] = y;
  if (mode == ModeKeys::kPredict) return spec;
  spec.loss = ops::ReduceMean(root, ops::SquaredDifference(root, y, labels));
  spec.eval_metric_ops["accuracy"] =
      metrics::Accuracy(root, ops::Sign(root, labels), ops::Sign(root, y));
  if (mode == ModeKeys::kTrain) {
    MinimizeOptions minimize;
    FERRY_ASSIGN_OR_RETURN(minimize.global_step, GetGlobalStep(*root.graph()));
    spec.train_op = GradientDescentOptimizer(0.1).Minimize(root, spec.loss, minimize);
  }
  return spec;
}

class EstimatorTest : public ::testing::Test {
 protected:
  EstimatorTest() {
    config.model_dir = "/model";
    config.session.file_system = &fs;
    config.session.device = "cpu";
    config.session.threads = 1;
    config.log = [this](const std::string& line) { log.push_back(line); };
    // y = 2x + 1.
    batch.features["x"] = Tensor::Of<float>({-2, -1, 1, 2});
    batch.labels = Tensor::Of<float>({-3, -1, 3, 5});
  }
  FaultFileSystem fs;
  RunConfig config;
  Batch batch;
  std::vector<std::string> log;
};

TEST_F(EstimatorTest, TrainsEvaluatesAndPredicts) {
  Estimator estimator(Line, config);
  TrainSpec train;
  train.max_steps = 150;
  ASSERT_EQ(estimator.Train(RepeatBatch(batch), train), absl::OkStatus());
  EXPECT_EQ(*estimator.LatestCheckpoint(), "/model/model.ckpt-150");
  EXPECT_THAT(log, ::testing::Contains(HasSubstr("loss = ")));

  Batch wrong = batch;
  wrong.labels = Tensor::Of<float>({3, -1, 3, 5});  // One of four has the other sign.
  auto both = [&]() -> absl::StatusOr<BatchSource> {
    return BatchSource([&, n = 0](Batch* out) mutable -> absl::StatusOr<bool> {
      if (n == 2) return false;
      *out = n++ == 0 ? batch : wrong;
      return true;
    });
  };
  auto results = estimator.Evaluate(both);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ(results->at("global_step"), 150);
  EXPECT_NEAR(results->at("accuracy"), 7 / 8.0, 1e-6);
  EXPECT_NEAR(results->at("loss"), (0 + 36 / 4.0) / 2, 1e-2);
  auto files = ListEventFiles(&fs, "/model/eval");
  ASSERT_TRUE(files.ok()) << files.status();
  auto events = ReadEvents(&fs, files->at(0));
  ASSERT_TRUE(events.ok()) << events.status();
  EXPECT_EQ(events->events.back().step(), 150);
  EXPECT_EQ(events->events.back().summary().value(0).tag(), "accuracy");

  EvalSpec one;
  one.steps = 1;
  one.name = "first";
  one.checkpoint_path = "/model/model.ckpt-0";
  results = estimator.Evaluate(both, one);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ(results->at("global_step"), 0);
  EXPECT_TRUE(fs.Exists("/model/eval_first"));

  Batch ask;
  ask.features["x"] = Tensor::Of<float>({10, 20});
  std::vector<float> y;
  ASSERT_EQ(estimator.Predict(RepeatBatch(ask, 2),
                              [&](const std::map<std::string, Tensor>& p) {
                                for (float v : p.at("y").span<float>()) y.push_back(v);
                                return absl::OkStatus();
                              }),
            absl::OkStatus());
  ASSERT_EQ(y.size(), 4u);
  EXPECT_NEAR(y[0], 21, 0.1);
  EXPECT_NEAR(y[3], 41, 0.1);
}

TEST_F(EstimatorTest, ExportsForServing) {
  Estimator estimator(Line, config);
  TrainSpec train;
  train.max_steps = 150;
  ASSERT_EQ(estimator.Train(RepeatBatch(batch), train), absl::OkStatus());
  auto first = estimator.ExportSavedModel("/export", batch);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = estimator.ExportSavedModel("/export", batch);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE(*first, *second);
  auto model = LoadSavedModel(config.session, *second, {kServe});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto& signature = model->meta_graph.signature_def().at(kDefaultServingSignature);
  EXPECT_EQ(signature.inputs_size(), 1);  // No labels.
  std::vector<Tensor> out;
  ASSERT_EQ(model->session->Run({{signature.inputs().at("x").name(), Tensor::Of<float>({10})}},
                                {signature.outputs().at("y").name()}, {}, &out),
            absl::OkStatus());
  EXPECT_NEAR(out[0].data<float>()[0], 21, 0.1);
}

TEST_F(EstimatorTest, GoesOnWhereItStopped) {
  TrainSpec some;
  some.steps = 3;
  Estimator estimator(Line, config);
  ASSERT_EQ(estimator.Train(RepeatBatch(batch), some), absl::OkStatus());
  ASSERT_EQ(Estimator(Line, config).Train(RepeatBatch(batch), some), absl::OkStatus());
  EXPECT_EQ(*estimator.LatestCheckpoint(), "/model/model.ckpt-6");
  TrainSpec up_to;
  up_to.max_steps = 6;
  ASSERT_EQ(estimator.Train(RepeatBatch(batch), up_to), absl::OkStatus());
  EXPECT_EQ(*estimator.LatestCheckpoint(), "/model/model.ckpt-6");
  // Until the data ends.
  ASSERT_EQ(estimator.Train(RepeatBatch(batch, 4)), absl::OkStatus());
  EXPECT_EQ(*estimator.LatestCheckpoint(), "/model/model.ckpt-10");
}

TEST_F(EstimatorTest, Errors) {
  Estimator estimator(Line, config);
  EXPECT_THAT(estimator.Evaluate(RepeatBatch(batch)).status().ToString(),
              HasSubstr("Could not find trained model in model_dir: /model"));
  TrainSpec both;
  both.steps = both.max_steps = 3;
  EXPECT_THAT(estimator.Train(RepeatBatch(batch), both).ToString(),
              HasSubstr("Can not provide both steps and max_steps"));
  EXPECT_THAT(estimator.Train(RepeatBatch(batch, 0)).ToString(), HasSubstr("has no data"));
  Batch nan = batch;
  nan.labels = Tensor::Of<float>({1, 2, 3, std::nanf("")});
  EXPECT_THAT(estimator.Train(RepeatBatch(nan)).ToString(), HasSubstr("NaN loss during training."));
  const ModelFn nothing = [](const Scope& root, const std::map<std::string, Output>&, Output,
                             ModeKeys) -> absl::StatusOr<EstimatorSpec> {
    GetVariable(root, "v", {1}, DType::kFloat);
    return EstimatorSpec();
  };
  EXPECT_THAT(Estimator(nothing, config).Train(RepeatBatch(batch)).ToString(),
              HasSubstr("the model_fn gave no loss"));
}

TEST_F(EstimatorTest, MetricsAddUpOverBatches) {
  Graph graph;
  Scope root(&graph);
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kInt64, {-1});
  Metric mean = metrics::Mean(root, x);
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_EQ(mean.value.name(), "mean/value:0");
  auto locals = VariablesOf(graph, kLocalVariables);
  ASSERT_TRUE(locals.ok());
  ASSERT_EQ(locals->size(), 2u);
  EXPECT_EQ((*locals)[0].name(), "mean/total");
  EXPECT_EQ(VariablesOf(graph, kGlobalVariables)->size(), 0u);
  Session session(&graph);
  std::vector<Tensor> out;
  ASSERT_EQ(session.Run({}, {}, {"mean/total/Assign", "mean/count/Assign"}, &out),
            absl::OkStatus());
  auto value = [&] {
    EXPECT_EQ(session.Run({}, {"mean/value"}, {}, &out), absl::OkStatus());
    return out[0].scalar<float>();
  };
  EXPECT_EQ(value(), 0);
  for (const auto& [batch, expected] :
       std::vector<std::pair<std::vector<int64_t>, float>>{{{1, 2, 3}, 2}, {{}, 2}, {{6}, 3}}) {
    ASSERT_EQ(session.Run({{"x", Tensor::Of<int64_t>(batch)}}, {"mean/update_op"}, {}, &out),
              absl::OkStatus());
    EXPECT_EQ(out[0].scalar<float>(), expected);
    EXPECT_EQ(value(), expected);
  }
}

}  // namespace
}  // namespace ferry
