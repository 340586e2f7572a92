// Transfer learning: a saved network is imported, cut off at fc7 with StopGradient, and given a new
// output layer, which alone is trained. Also writes the graph for TensorBoard.
#include <algorithm>

#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/variables.h"
#include "saver/event_writer.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

constexpr int64_t kInputs = 12, kWidth = 16, kOldClasses = 5, kNewClasses = 2, kRows = 8;

Output Dense(const Scope& s, const std::string& name, Output x, int64_t in, int64_t out,
             bool relu) {
  const Scope layer = s.NewSubScope(name);
  VariableOptions weights, biases;
  weights.initializer = TruncatedNormalInitializer(0, 0.5);
  biases.initializer = ZerosInitializer();
  const Output w = GetVariable(layer, "weights", {in, out}, DType::kFloat, weights).read;
  const Output b = GetVariable(layer, "biases", {out}, DType::kFloat, biases).read;
  const Output z = ops::BiasAdd(layer, ops::MatMul(layer, x, w), b);
  return relu ? ops::Relu(layer.WithOpName(name), z) : z;
}

// What somebody else trained: images -> fc6 -> fc7 -> fc8, five classes.
absl::Status SaveTrunk() {
  Graph graph;
  graph.set_seed(7);
  const Scope root(&graph);
  const Output images = ops::Placeholder(root.WithOpName("images"), DType::kFloat, {-1, kInputs});
  const Output fc6 = Dense(root, "fc6", images, kInputs, kWidth, true);
  const Output fc7 = Dense(root, "fc7", fc6, kWidth, kWidth, true);
  Dense(root, "fc8", fc7, kWidth, kOldClasses, false);
  Node* const init = GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
  return saver->Save(&session, "transfer/vgg").status();
}

absl::Status Transfer() {
  FileSystem* const fs = FileSystem::Posix();
  FERRY_RETURN_IF_ERROR(SaveTrunk());

  Graph graph;
  graph.set_seed(8);
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> trunk,
                         ImportMetaGraphFile(fs, "transfer/vgg.meta", {}, &graph));
  FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> old, GlobalVariables(graph));
  const Scope root(&graph);
  FERRY_ASSIGN_OR_RETURN(const Output fc7, graph.FindOutput("fc7/fc7:0"));
  const Output frozen = ops::StopGradient(root, fc7);
  VariableOptions weights, biases;
  weights.initializer = TruncatedNormalInitializer(0, 0.05);
  biases.initializer = ZerosInitializer();
  const VariableHandle w =
      GetVariable(root, "new_weights", {kWidth, kNewClasses}, DType::kFloat, weights);
  const VariableHandle b = GetVariable(root, "new_biases", {kNewClasses}, DType::kFloat, biases);
  const Output logits = ops::BiasAdd(root, ops::MatMul(root, frozen, w.read), b.read);
  const Output probabilities = ops::Softmax(root.WithOpName("probabilities"), logits);
  const Output labels = ops::Placeholder(root.WithOpName("labels"), DType::kInt64, {-1});
  const Output loss =
      ops::ReduceMean(root.WithOpName("new_loss"),
                      ops::SparseSoftmaxCrossEntropyWithLogits(root, logits, labels).loss);
  AdamOptimizer optimizer(0.05);
  MinimizeOptions minimize;
  minimize.var_list = {w, b};
  Node* const train = optimizer.Minimize(root, loss, minimize);
  FERRY_RETURN_IF_ERROR(root.status());

  // The new variables, the optimizer's among them, are initialised; the old ones restored.
  std::vector<VariableHandle> fresh;
  FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> all, GlobalVariables(graph));
  fresh.assign(all.begin() + static_cast<std::ptrdiff_t>(old.size()), all.end());
  Node* const init = VariablesInitializer(root.WithOpName("init_new"), fresh);
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_RETURN_IF_ERROR(trunk->Restore(&session, "transfer/vgg"));

  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<FileWriter> writer,
                         FileWriter::Open(fs, "transfer/graph"));
  proto::GraphDef drawn;
  graph.ToGraphDef(&drawn);
  FERRY_RETURN_IF_ERROR(writer->AddGraph(drawn));
  FERRY_RETURN_IF_ERROR(writer->Close());

  std::vector<float> pixels;
  std::vector<int64_t> classes;
  for (int64_t i = 0; i < kRows; ++i) {
    classes.push_back(i % kNewClasses);
    for (int64_t j = 0; j < kInputs; ++j) pixels.push_back((i + j) % kNewClasses == 0 ? 1.f : -1.f);
  }
  const std::vector<std::pair<std::string, Tensor>> batch = {
      {"images", Tensor::Of<float>(pixels, {kRows, kInputs})},
      {"labels", Tensor::Of<int64_t>(classes)}};
  FERRY_ASSIGN_OR_RETURN(const Tensor trunk_before, Fetch(&session, "fc6/weights"));
  FERRY_ASSIGN_OR_RETURN(const Tensor loss_before, Fetch(&session, loss.name(), batch));
  for (int i = 0; i < 50; ++i) {
    FERRY_RETURN_IF_ERROR(session.Run(batch, {}, {train->name()}, nullptr));
  }
  FERRY_ASSIGN_OR_RETURN(const Tensor trunk_after, Fetch(&session, "fc6/weights"));
  FERRY_ASSIGN_OR_RETURN(const Tensor loss_after, Fetch(&session, loss.name(), batch));
  const bool same = std::equal(trunk_before.span<float>().begin(), trunk_before.span<float>().end(),
                               trunk_after.span<float>().begin());
  absl::PrintF("trunk %s\n", same ? "unchanged" : "changed");
  absl::PrintF("loss %s\n", loss_after.scalar<float>() < 0.1f * loss_before.scalar<float>()
                                ? "fell to less than a tenth"
                                : "did not fall");
  FERRY_ASSIGN_OR_RETURN(const Tensor p, Fetch(&session, probabilities.name(), batch));
  absl::PrintF("probabilities of %s\n", p.shape().DebugString());

  // The layer takes what a convolution gives, too: matmul of a tensor of four dimensions.
  const Output image =
      ops::Reshape(root, frozen, ops::ConstVector<int32_t>(root, {-1, 1, 1, kWidth}));
  const Output by_pixel = NodeBuilder(root.WithOpName("by_pixel"), "BatchMatMulV2")
                              .Input(image)
                              .Input(w.read)
                              .BuildOutput();
  FERRY_RETURN_IF_ERROR(root.status());
  FERRY_ASSIGN_OR_RETURN(const Tensor pixels_of, Fetch(&session, by_pixel.name(), batch));
  absl::PrintF("matmul of 4-D: %s\n", pixels_of.shape().DebugString());
  FERRY_ASSIGN_OR_RETURN(const std::vector<std::string> events,
                         ListEventFiles(fs, "transfer/graph"));
  absl::PrintF("graph for TensorBoard: %d file\n", events.size());
  return absl::OkStatus();
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::Transfer); }
