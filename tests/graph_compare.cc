// Graphs beside TensorFlow's; see the header.
#include "tests/graph_compare.h"

#include <map>
#include <string>

#include "absl/strings/match.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace ferry::testing {
namespace {

// What two graphs are compared by. The gradient of a loss may be computed by other nodes;
// TensorFlow marks products that are gradients (grad_a, grad_b), and what Python's
// control_dependencies() and its own type inference touched.
void Normalize(proto::NodeDef* n) {
  for (std::string& in : *n->mutable_input()) {
    if (absl::StartsWith(in, "gradients/loss_grad/")) in = "gradients/loss_grad";
  }
  for (const char* attr : {"grad_a", "grad_b", "_has_manual_control_dependencies"}) {
    n->mutable_attr()->erase(attr);
  }
  n->clear_experimental_type();
}

}  // namespace

int ExpectSameGraph(const proto::GraphDef& theirs, const Graph& graph) {
  proto::GraphDef ours;
  graph.ToGraphDef(&ours);
  std::map<std::string, const proto::NodeDef*> by_name;
  for (proto::NodeDef& n : *ours.mutable_node()) {
    Normalize(&n);
    by_name[n.name()] = &n;
  }
  EXPECT_EQ(by_name.size(), static_cast<size_t>(ours.node_size()));
  int compared = 0;
  for (proto::NodeDef n : theirs.node()) {
    if (absl::StartsWith(n.name(), "save/") || absl::StartsWith(n.name(), "gradients/loss_grad/") ||
        n.name() == "gradients/zeros_like") {
      continue;
    }
    Normalize(&n);
    auto it = by_name.find(n.name());
    if (it == by_name.end()) {
      ADD_FAILURE() << "missing: " << n.name() << " (" << n.op() << ")";
      continue;
    }
    ++compared;
    google::protobuf::util::MessageDifferencer differ;
    std::string difference;
    differ.ReportDifferencesToString(&difference);
    EXPECT_TRUE(differ.Compare(n, *it->second)) << n.name() << ": " << difference;
    by_name.erase(it);
  }
  for (const auto& [name, node] : by_name) {
    if (!absl::StartsWith(name, "gradients/loss_grad/")) ADD_FAILURE() << "ours alone: " << name;
  }
  return compared;
}

}  // namespace ferry::testing
