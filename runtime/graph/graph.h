// Graph: nodes, the tensors and control edges between them, devices, collections. It converts to
// and from GraphDef. Programs build graphs through Scope and the functions of ops.h.
//
//   Graph graph;
//   FERRY_ASSIGN_OR_RETURN(Node* n, graph.AddNode(node_def));   // rarely called directly
//   graph.ToGraphDef(&def);
//   FERRY_RETURN_IF_ERROR(ImportGraphDef({}, def, &graph));
#ifndef FERRY_RUNTIME_GRAPH_GRAPH_H_
#define FERRY_RUNTIME_GRAPH_GRAPH_H_

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/graph.pb.h"
#include "proto/meta_graph.pb.h"
#include "runtime/op/attr.h"
#include "runtime/op/op_def.h"
#include "runtime/op/partial_shape.h"

namespace ferry {

class Graph;
class Node;

// One output of one node: what TensorFlow writes as "name:index".
struct Output {
  Node* node = nullptr;
  int index = 0;
  Output() = default;
  Output(Node* node, int index) : node(node), index(index) {}  // NOLINT
  std::string name() const;  // "name:0".
  DType dtype() const;       // As declared: may be a reference.
  const PartialShape& shape() const;
  friend bool operator==(const Output& a, const Output& b) {
    return a.node == b.node && a.index == b.index;
  }
  friend bool operator!=(const Output& a, const Output& b) { return !(a == b); }
  friend bool operator<(const Output& a, const Output& b);
  template <typename H>
  friend H AbslHashValue(H h, const Output& o) {
    return H::combine(std::move(h), o.node, o.index);
  }
};

// Owned by its graph; immutable for others but for the setters.
class Node {
 public:
  int id() const { return id_; }  // Position in the order of making.
  const std::string& name() const { return name_; }
  const std::string& op() const { return op_; }
  // Null for an op that isn't registered (see ImportOptions::allow_unknown_ops).
  const OpInfo* info() const { return info_; }
  const AttrMap& attrs() const { return attrs_; }
  template <typename T>
  absl::StatusOr<T> Attr(const std::string& name) const {
    return GetAttr<T>(attrs_, name);
  }
  const std::string& device() const { return device_; }  // As asked for, "" if it wasn't.

  int num_inputs() const { return static_cast<int>(inputs_.size()); }
  const std::vector<Output>& inputs() const { return inputs_; }
  const Output& input(int i) const { return inputs_[i]; }
  DType input_type(int i) const { return input_types_[i]; }  // As the op declares it.
  const std::vector<DType>& input_types() const { return input_types_; }
  const std::vector<Node*>& control_inputs() const { return control_inputs_; }
  int num_outputs() const { return static_cast<int>(output_types_.size()); }
  DType output_type(int i) const { return output_types_[i]; }
  const std::vector<DType>& output_types() const { return output_types_; }
  const PartialShape& output_shape(int i) const { return shapes_[i]; }
  // Of a node whose outputs are handles of a variable: the variable's shape, as far as it is known.
  const PartialShape& handle_shape() const { return handle_shape_; }
  Output output(int i) { return Output(this, i); }
  // Nodes that take an output of this one, or depend on it; in the order of making, each as often
  // as it has edges from here.
  const std::vector<Node*>& consumers() const { return consumers_; }
  Graph* graph() const { return graph_; }

  void set_device(std::string device) { device_ = std::move(device); }
  void SetAttr(const std::string& name, proto::AttrValue value) {
    attrs_[name] = std::move(value);
  }
  void ToNodeDef(proto::NodeDef* def) const;

 private:
  friend class Graph;
  friend class GraphImporter;
  int id_ = 0;
  std::string name_, op_, device_;
  const OpInfo* info_ = nullptr;
  AttrMap attrs_;
  std::vector<Output> inputs_;
  std::vector<DType> input_types_, output_types_;
  std::vector<Node*> control_inputs_, consumers_;
  std::vector<PartialShape> shapes_;
  // For output i, as much of its value as is known, where it may serve as a shape.
  std::vector<PartialShape> shape_values_;
  // Where the outputs are handles of a variable: its shape.
  PartialShape handle_shape_;
  Graph* graph_ = nullptr;
  proto::NodeDef::ExperimentalDebugInfo debug_info_;
};

// Thread-compatible: one thread builds, or many read. Sessions may run while nodes are added, as
// long as the adding and the making of new plans don't overlap (Session's own lock covers Extend).
class Graph {
 public:
  Graph();
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Adds a node, completing its attributes and inferring its output shapes. `inputs` and
  // `control_inputs` belong to this graph. InvalidArgument names the node and what is wrong: the
  // name exists or isn't well-formed, the number or types of inputs don't fit, an attribute is
  // missing or out of its set, the shapes can't fit. Unimplemented for an op that isn't
  // registered.
  absl::StatusOr<Node*> AddNode(const std::string& name, const std::string& op, AttrMap attrs,
                                const std::vector<Output>& inputs,
                                const std::vector<Node*>& control_inputs = {},
                                const std::string& device = "");

  // Replaces input `i` of `node` (to close a loop, or to redirect an import). Shapes stay as they
  // were inferred.
  absl::Status UpdateInput(Node* node, int i, Output new_input);
  absl::Status AddControlEdge(Node* from, Node* to);

  Node* FindNode(absl::string_view name) const;  // Null if there is none.
  // From "name", "name:0" or "^name"; NotFound / InvalidArgument name what is missing.
  absl::StatusOr<Output> FindOutput(absl::string_view name) const;
  const std::deque<std::unique_ptr<Node>>& nodes() const { return nodes_; }
  int num_nodes() const { return static_cast<int>(nodes_.size()); }

  // The name itself, or with _1, _2 … behind it, as TensorFlow makes names unique (case doesn't
  // count). With mark_as_used the result isn't given out again.
  std::string UniqueName(const std::string& name, bool mark_as_used = true);

  void ToGraphDef(proto::GraphDef* def) const;
  // Written by ToGraphDef; by default TensorFlow's of the time.
  proto::VersionDef* mutable_versions() { return &versions_; }
  const proto::VersionDef& versions() const { return versions_; }
  // Kept as they came.
  proto::FunctionDefLibrary* mutable_library() { return &library_; }

  // Collections as they stand in a MetaGraphDef. See collections.h for the typed views.
  std::map<std::string, proto::CollectionDef>* mutable_collections() { return &collections_; }
  const std::map<std::string, proto::CollectionDef>& collections() const { return collections_; }

  // The graph-level seed: TF1's set_random_seed.
  void set_seed(int64_t seed) { seed_ = seed; }
  std::optional<int64_t> seed() const { return seed_; }
  // The attributes seed and seed2 of a random op, from the graph-level seed and the op's own: the
  // numbers that TensorFlow's get_seed gives. With a graph-level seed alone, the second counts the
  // calls; with neither both are 0, which asks for a seed of the machine's.
  std::pair<int64_t, int64_t> OpSeeds(std::optional<int64_t> op_seed = std::nullopt);

 private:
  friend class GraphImporter;  // import.cc
  // Checks and completes `node` (its name, op, attributes, inputs, control inputs and device are
  // set; for an op that isn't registered also its outputs), then takes it. With `open_inputs`,
  // empty inputs are left for UpdateInput to fill in.
  absl::StatusOr<Node*> Insert(std::unique_ptr<Node> node, bool open_inputs);
  absl::Status CheckInput(const Node& node, int i, const Output& input) const;
  absl::Status InferShapes(Node* node);

  std::deque<std::unique_ptr<Node>> nodes_;
  absl::flat_hash_map<std::string, Node*> by_name_;
  absl::flat_hash_map<std::string, int> names_in_use_;  // Lower case -> next suffix.
  proto::VersionDef versions_;
  proto::FunctionDefLibrary library_;
  std::map<std::string, proto::CollectionDef> collections_;
  std::optional<int64_t> seed_;
  int64_t derived_seeds_ = 0;
};

struct ImportOptions {
  // Put before each name ("scope" gives "scope/name"); made unique unless it ends with "/".
  std::string prefix;
  // Imported name ("a:0", "^a") -> the output (or, for control, the node) to use in its place.
  std::map<std::string, Output> input_map;
  std::vector<std::string> return_elements;  // "name" or "name:0".
  bool clear_devices = false;
  // Nodes whose names exist already get new ones (name_1), as TensorFlow's import does with an
  // empty prefix; otherwise InvalidArgument.
  bool uniquify_names = false;
  // Keep nodes of ops that aren't registered: an error only when a Run needs one.
  bool allow_unknown_ops = true;
};

struct ImportResults {
  std::vector<Output> return_outputs;  // One for each of return_elements; index -1 for a node.
  // Name in the GraphDef -> node here.
  absl::flat_hash_map<std::string, Node*> nodes;
};

// Adds the nodes of `def`. Nodes may come in any order; cycles are allowed only through
// NextIteration. On an error, the graph may hold some of the nodes.
absl::Status ImportGraphDef(const ImportOptions& options, const proto::GraphDef& def, Graph* graph,
                            ImportResults* results = nullptr);

// Whether TensorFlow takes it for a node's name: a letter, digit or dot, then those and _ - / > \.
bool IsValidNodeName(absl::string_view name);

// "name:0" -> ("name", 0); "name" -> ("name", 0); "^name" -> ("name", -1).
absl::StatusOr<std::pair<std::string, int>> ParseTensorName(absl::string_view name);

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_GRAPH_H_
