// Scope: where new nodes go (a graph) and how they are named, placed and ordered. Copies are
// cheap; With… calls return a child and leave the original as it was. All children of one root
// share a status: the first error stays, later ops are no-ops, and one check at the end suffices.
//
//   Graph graph;
//   Scope root(&graph);
//   Scope hidden = root.NewSubScope("hidden1");
//   Output y = ops::Relu(hidden, ops::BiasAdd(hidden, ops::MatMul(hidden, x, w), b));
//   FERRY_RETURN_IF_ERROR(root.status());
#ifndef FERRY_RUNTIME_GRAPH_SCOPE_H_
#define FERRY_RUNTIME_GRAPH_SCOPE_H_

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "runtime/graph/graph.h"

namespace ferry {

class Scope;

// A branch of a conditional, or a loop, while its ops are made: what they take from outside goes
// through a Switch, or an Enter. See cond.h.
class ControlFlowContext {
 public:
  virtual ~ControlFlowContext() = default;
  // What an op in here takes in place of `value`. Nodes that it takes are made in `s`.
  virtual Output AddValue(const Scope& s, Output value) = 0;
  // Called for each op that was made in here.
  virtual void AddOp(Node* node) = 0;
  virtual bool Contains(const Node* node) const = 0;
  // A node in here that runs whenever the others may: an op without inputs depends on it.
  virtual Node* pivot() const = 0;
};

class Scope {
 public:
  explicit Scope(Graph* graph);  // The root: no prefix.

  Graph* graph() const { return graph_; }
  absl::Status status() const { return shared_->status; }
  bool ok() const { return shared_->status.ok(); }
  // Keeps the first error. `status` may be OK.
  void UpdateStatus(const absl::Status& status) const;

  // A child whose nodes are named "<prefix>/<name>/…"; the name is made unique
  // (hidden, hidden_1, …), as tf.name_scope does.
  Scope NewSubScope(const std::string& name) const;
  // Goes back into a scope by its full name, not made unique ("" is the root): tf.name_scope("x/").
  Scope WithPrefix(const std::string& full_prefix) const;
  // Ops made directly with the child are called that (made unique), not after their op. A name
  // that ends with "/" is a full name, taken as it is: WithOpName(s.prefix() + "/") names an op as
  // the scope itself.
  Scope WithOpName(const std::string& name) const;
  // The same where the scope has no op name yet: for functions with a default of their own.
  Scope DefaultOpName(const std::string& name) const {
    return op_name_.empty() ? WithOpName(name) : *this;
  }
  Scope WithControlDependencies(const std::vector<Node*>& nodes) const;  // Besides those it has.
  // Nor within a branch or a loop: as tf.control_dependencies(None).
  Scope WithNoControlDependencies() const;
  // Ops belong to this branch or loop.
  Scope InContext(std::shared_ptr<ControlFlowContext> context) const;
  Scope WithDevice(const std::string& device) const;
  Scope ColocateWith(Node* node) const;  // Attribute _class = ["loc:@name"].
  Scope ClearColocation() const;
  // With these groups ("loc:@name") in place of those it has.
  Scope WithColocation(std::vector<std::string> groups) const;

  const std::string& prefix() const { return prefix_; }
  // The unique full name for an op: `default_name` unless WithOpName was given.
  std::string UniqueOpName(const std::string& default_name) const;

  const std::vector<Node*>& control_dependencies() const { return control_; }
  const std::string& device() const { return device_; }
  const std::vector<std::string>& colocation() const { return colocation_; }
  // Null outside of conditionals and loops.
  const std::shared_ptr<ControlFlowContext>& context() const { return context_; }

 private:
  struct Shared {
    absl::Status status;
  };
  Graph* graph_;
  std::shared_ptr<Shared> shared_;
  std::string prefix_, op_name_, device_;
  std::vector<Node*> control_;
  std::vector<std::string> colocation_;
  std::shared_ptr<ControlFlowContext> context_;
};

// Makes one node. Type attributes and list lengths are inferred from the inputs.
//
//   Node* n = NodeBuilder(scope, "MatMul").Input(a).Input(b).Attr("transpose_a", true).Build();
class NodeBuilder {
 public:
  NodeBuilder(const Scope& scope, std::string op) : scope_(scope), op_(std::move(op)) {}
  NodeBuilder& Input(const Output& input) {
    args_.push_back({input});
    return *this;
  }
  NodeBuilder& Input(const std::vector<Output>& list) {  // For "N * T" and list(type) arguments.
    args_.push_back(list);
    return *this;
  }
  template <typename T>
  NodeBuilder& Attr(const std::string& name, const T& value) {
    attrs_[name] = MakeAttr(value);
    return *this;
  }
  NodeBuilder& AttrValue(const std::string& name, proto::AttrValue value) {
    attrs_[name] = std::move(value);
    return *this;
  }
  // Null after an error, which the scope's status holds. An input that comes from a failed op (a
  // null node) makes it fail quietly.
  Node* Build();
  // Output 0 of Build(), or an empty Output after an error.
  Output BuildOutput() {
    Node* n = Build();
    return n ? Output(n, 0) : Output();
  }

 private:
  Scope scope_;
  std::string op_;
  std::vector<std::vector<Output>> args_;
  AttrMap attrs_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_SCOPE_H_
