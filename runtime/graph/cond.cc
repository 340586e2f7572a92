// tf.cond's and tf.while_loop's graphs.
#include "runtime/graph/cond.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/control_flow.pb.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"

namespace ferry {
namespace {

// What conditionals and loops have in common while their ops are made: each is a context that knows
// the tensors inside it, and lets others in through a node of its kind.
class NestedContext : public ControlFlowContext {
 public:
  NestedContext(std::string name, std::shared_ptr<ControlFlowContext> outer)
      : name_(std::move(name)), outer_(std::move(outer)) {}

  Output AddValue(const Scope& s, Output value) override;
  void AddOp(Node* node) override;
  bool Contains(const Node* node) const override { return ops_.contains(node); }

  // Tells the context around this one, or the graph's collection `collection`, which
  // FailedPrecondition names when it is no list of bytes.
  absl::Status Close(Graph* graph, const char* collection);

 protected:
  // Makes what stands in here for a tensor from right outside. `s` has no control inputs.
  virtual Output LetIn(const Scope& s, Output from) = 0;
  virtual void ToProto(proto::ControlFlowContextDef* def) = 0;

  // The tensor was seen in here, and so in the contexts around this one.
  void Saw(Output o);
  void FillValues(proto::ValuesDef* def) const;
  void TakeNested(google::protobuf::RepeatedPtrField<proto::ControlFlowContextDef>* to);
  const std::string& name() const { return name_; }
  ControlFlowContext* outer() const { return outer_.get(); }

  std::set<std::string> values_;            // Tensors that were seen in here, by name.
  std::map<std::string, Output> external_;  // One from outside -> what stands for it.
  absl::flat_hash_set<const Node*> ops_;

 private:
  const std::string name_;
  const std::shared_ptr<ControlFlowContext> outer_;
  std::vector<proto::ControlFlowContextDef> nested_;
};

Output NestedContext::AddValue(const Scope& s, Output value) {
  if (!s.ok() || value.node == nullptr) return Output();
  if (!values_.insert(value.name()).second) {
    auto it = external_.find(value.name());
    return it == external_.end() ? value : it->second;
  }
  Output from = value;
  if (outer_ != nullptr) {
    from = outer_->AddValue(s, value);
    if (!s.ok()) return Output();
  }
  const Output result = LetIn(s.WithNoControlDependencies(), from);
  if (!s.ok()) return Output();
  return external_[value.name()] = result;
}

void NestedContext::AddOp(Node* node) {
  ops_.insert(node);
  for (int i = 0; i < node->num_outputs(); ++i) values_.insert(Output(node, i).name());
  if (outer_ != nullptr) outer_->AddOp(node);
}

void NestedContext::Saw(Output o) {
  for (auto* c = this; c != nullptr; c = dynamic_cast<NestedContext*>(c->outer_.get())) {
    c->values_.insert(o.name());
  }
}

void NestedContext::FillValues(proto::ValuesDef* def) const {
  for (const std::string& v : values_) def->add_values(v);
  for (const auto& [name, inside] : external_) {
    (*def->mutable_external_values())[name] = inside.name();
  }
}

void NestedContext::TakeNested(
    google::protobuf::RepeatedPtrField<proto::ControlFlowContextDef>* to) {
  for (proto::ControlFlowContextDef& nested : nested_) *to->Add() = std::move(nested);
  nested_.clear();
}

absl::Status NestedContext::Close(Graph* graph, const char* collection) {
  proto::ControlFlowContextDef def;
  ToProto(&def);
  if (auto* around = dynamic_cast<NestedContext*>(outer_.get())) {
    around->nested_.push_back(std::move(def));
    return absl::OkStatus();
  }
  proto::CollectionDef& c = (*graph->mutable_collections())[collection];
  if (c.kind_case() != proto::CollectionDef::kBytesList &&
      c.kind_case() != proto::CollectionDef::KIND_NOT_SET) {
    return FailedPrecondition("collection '", collection, "' is not a list of bytes");
  }
  c.mutable_bytes_list()->add_value(def.has_cond_ctxt() ? def.cond_ctxt().SerializeAsString()
                                                        : def.while_ctxt().SerializeAsString());
  return absl::OkStatus();
}

class CondContext : public NestedContext {
 public:
  CondContext(std::string name, Output pred, Output pivot, int branch,
              std::shared_ptr<ControlFlowContext> outer)
      : NestedContext(std::move(name), std::move(outer)),
        pred_(pred),
        pivot_(pivot),
        branch_(branch) {
    values_ = {pred.name(), pivot.name()};
    external_[pred.name()] = pred;
    ops_.insert(pivot.node);
  }

  // A branch's result: one from outside goes through a Switch, too.
  Output AddResult(const Scope& s, Output value) {
    if (!s.ok() || value.node == nullptr) return value;
    if (!values_.insert(value.name()).second) {
      auto it = external_.find(value.name());
      return it == external_.end() ? value : it->second;
    }
    Output from = value;
    if (outer() != nullptr) {
      from = outer()->AddValue(s, value);
      if (!s.ok()) return Output();
      Know(from);
    }
    return external_[value.name()] = SwitchOf(s, from);
  }

  Node* pivot() const override { return pivot_.node; }

 private:
  Output LetIn(const Scope& s, Output from) override {
    if (outer() != nullptr) Know(from);
    const Output result = SwitchOf(s, from);
    if (!s.ok()) return Output();
    ops_.insert(result.node);
    Saw(result);
    return result;
  }

  void ToProto(proto::ControlFlowContextDef* context) override {
    proto::CondContextDef& def = *context->mutable_cond_ctxt();
    def.set_context_name(name());
    def.set_pred_name(pred_.name());
    def.set_pivot_name(pivot_.name());
    def.set_branch(branch_);
    FillValues(def.mutable_values_def());
    TakeNested(def.mutable_nested_contexts());
  }

  // A tensor right outside that a Switch takes stands for itself.
  void Know(Output from) {
    values_.insert(from.name());
    external_[from.name()] = from;
  }

  // The side of a Switch of `data` that is alive in this branch. It goes where the data is.
  Output SwitchOf(const Scope& scope, Output data) {
    const Scope s = scope.ClearColocation().ColocateWith(data.node).WithOpName("Switch");
    const auto both =
        IsRef(data.dtype()) ? ops::RefSwitch(s, data, pred_) : ops::Switch(s, data, pred_);
    return branch_ == 1 ? both.output_true : both.output_false;
  }

  const Output pred_, pivot_;
  const int branch_;
};

class WhileContext : public NestedContext {
 public:
  WhileContext(std::string name, const WhileOptions& options,
               std::shared_ptr<ControlFlowContext> outer)
      : NestedContext(std::move(name), std::move(outer)), options_(options) {}

  Output Enter(const Scope& s, Output from, bool constant) const {
    return NodeBuilder(s, constant && IsRef(from.dtype()) ? "RefEnter" : "Enter")
        .Input(from)
        .Attr("frame_name", name())
        .Attr("is_constant", constant)
        .Attr("parallel_iterations", options_.parallel_iterations)
        .BuildOutput();
  }

  // A variable's way in. It belongs to what is around the loop; its output is inside.
  Output AddEnter(const Scope& around, Output from) {
    const Output entered = Enter(around, from, false);
    if (entered.node == nullptr) return entered;
    const Node* data = entered.node->input(0).node;
    const bool only_constant = data->op() == "Enter" || data->op() == "RefEnter";
    if (outer() != nullptr && only_constant) {
      // Not in an iteration of the loop around this one that doesn't take place.
      around.UpdateStatus(around.graph()->AddControlEdge(outer()->pivot(), entered.node));
    }
    values_.insert(entered.name());
    enters_.push_back(entered);
    return entered;
  }

  void AddOp(Node* node) override {
    NestedContext::AddOp(node);
    // What takes nothing but constants belongs to an iteration too.
    if (node->num_inputs() > 0 && body_pivot_.node != nullptr &&
        std::all_of(node->inputs().begin(), node->inputs().end(),
                    [this](const Output& in) { return constants_.contains(in.node); })) {
      node->graph()->AddControlEdge(pivot(), node).IgnoreError();  // Both are nodes of the graph.
    }
  }

  Node* pivot() const override {
    return body_pivot_.node != nullptr ? body_pivot_.node : condition_pivot_.node;
  }
  void set_condition_pivot(Output o) { condition_pivot_ = o; }
  void set_body_pivot(Output o) { body_pivot_ = o; }
  void set_condition(Output o) { condition_ = o; }
  void set_exits(const std::vector<Output>& exits) { exits_ = exits; }

 private:
  Output LetIn(const Scope& s, Output from) override {
    const Output entered = Enter(s.ClearColocation().WithOpName("Enter"), from, true);
    if (!s.ok()) return Output();
    if (outer() != nullptr) outer()->AddOp(entered.node);
    Saw(entered);
    constants_.insert(entered.node);
    return entered;
  }

  void ToProto(proto::ControlFlowContextDef* context) override {
    proto::WhileContextDef& def = *context->mutable_while_ctxt();
    def.set_context_name(name());
    def.set_parallel_iterations(static_cast<int32_t>(options_.parallel_iterations));
    def.set_back_prop(true);
    def.set_swap_memory(options_.swap_memory);
    def.set_pivot_name(condition_.name());
    def.set_pivot_for_pred_name(condition_pivot_.name());
    def.set_pivot_for_body_name(body_pivot_.name());
    for (const Output& o : exits_) def.add_loop_exit_names(o.name());
    for (const Output& o : enters_) def.add_loop_enter_names(o.name());
    FillValues(def.mutable_values_def());
    TakeNested(def.mutable_nested_contexts());
  }

  const WhileOptions options_;
  Output condition_pivot_, body_pivot_, condition_;
  std::vector<Output> enters_, exits_;
  absl::flat_hash_set<const Node*> constants_;
};

}  // namespace

std::vector<Output> Cond(const Scope& outer, Output pred, const CondBranches& true_fn,
                         const CondBranches& false_fn, const std::string& name) {
  if (!true_fn || !false_fn) {
    outer.UpdateStatus(InvalidArgument("true_fn and false_fn must be callable: conditional '", name,
                                       "' lacks one"));
    return {};
  }
  const Scope s = outer.NewSubScope(name);
  const auto decision = ops::Switch(s, pred, pred);
  const Output pivots[2] = {ops::Identity(s.WithOpName("switch_f"), decision.output_false),
                            ops::Identity(s.WithOpName("switch_t"), decision.output_true)};
  const Output id = ops::Identity(s.WithOpName("pred_id"), pred);
  std::vector<Output> results[2];
  for (const int branch : {1, 0}) {
    if (!s.ok()) return {};
    auto context =
        std::make_shared<CondContext>(s.graph()->UniqueName(absl::StrCat(s.prefix(), "/cond_text")),
                                      id, pivots[branch], branch, outer.context());
    const Scope inside = s.InContext(context);
    for (Output o : (branch == 1 ? true_fn : false_fn)(inside)) {
      results[branch].push_back(context->AddResult(inside, o));
    }
    s.UpdateStatus(context->Close(s.graph(), kCondContext));
  }
  if (!s.ok()) return {};
  if (results[0].size() != results[1].size()) {
    s.UpdateStatus(InvalidArgument("conditional '", s.prefix(), "': true_fn has ",
                                   results[1].size(), " results, false_fn ", results[0].size()));
    return {};
  }
  std::vector<Output> merged;
  for (size_t i = 0; i < results[0].size(); ++i) {
    const Output f = results[0][i], t = results[1][i];
    if (f.node == nullptr || t.node == nullptr || BaseType(f.dtype()) != BaseType(t.dtype())) {
      s.UpdateStatus(InvalidArgument(
          "conditional '", s.prefix(), "': Outputs of true_fn and false_fn must have the same type",
          f.node == nullptr || t.node == nullptr
              ? std::string(": one is empty")
              : absl::StrCat(": ", DTypeName(t.dtype()), ", ", DTypeName(f.dtype()))));
      return {};
    }
    const bool refs = IsRef(f.dtype()) && IsRef(t.dtype());
    merged.push_back(NodeBuilder(s.WithOpName("Merge"), refs ? "RefMerge" : "Merge")
                         .Input(std::vector<Output>{f, t})
                         .BuildOutput());
  }
  return s.ok() ? merged : std::vector<Output>();
}

Output Cond(const Scope& s, Output pred, const CondBranch& true_fn, const CondBranch& false_fn,
            const std::string& name) {
  auto one = [](const CondBranch& fn) -> CondBranches {
    if (!fn) return nullptr;
    return [&fn](const Scope& inside) { return std::vector<Output>{fn(inside)}; };
  };
  const std::vector<Output> result = Cond(s, pred, one(true_fn), one(false_fn), name);
  return result.empty() ? Output() : result[0];
}

std::vector<Output> WhileLoop(const Scope& outer, const std::vector<Output>& variables,
                              const WhileCondition& condition, const WhileBody& body,
                              const std::string& name, const WhileOptions& options) {
  if (!outer.ok()) return {};
  const auto fail = [&](const absl::Status& status) {
    outer.UpdateStatus(Annotate(status, absl::StrCat("loop '", name, "'")));
    return std::vector<Output>();
  };
  if (!condition || !body) return fail(InvalidArgument("condition and body must be callable"));
  if (variables.empty()) return fail(InvalidArgument("there is no variable"));
  const Scope s = outer.NewSubScope(name);
  const Scope around = s.WithNoControlDependencies().InContext(outer.context());
  auto context = std::make_shared<WhileContext>(
      s.graph()->UniqueName(absl::StrCat(s.prefix(), "/while_context")), options, outer.context());
  const Scope inside = s.WithNoControlDependencies().InContext(context);

  std::vector<Output> enters, merges, exits, in_body;
  for (const Output& v : variables) enters.push_back(context->AddEnter(around, v));
  for (const Output& enter : enters) {
    if (!s.ok()) return {};
    merges.push_back(ops::Merge(inside, {enter, enter}).output);
    if (merges.size() == 1) context->set_condition_pivot(merges[0]);
  }
  if (!s.ok()) return {};
  const Output go_on = condition(inside, merges);
  if (!s.ok()) return {};
  if (go_on.node == nullptr || BaseType(go_on.dtype()) != DType::kBool) {
    return fail(InvalidArgument("the condition must be a bool scalar, found ",
                                go_on.node == nullptr ? "nothing" : DTypeName(go_on.dtype())));
  }
  const Output loop_cond = NodeBuilder(inside, "LoopCond").Input(go_on).BuildOutput();
  context->set_condition(loop_cond);
  for (const Output& merge : merges) {
    const auto sides = ops::Switch(inside.ColocateWith(merge.node), merge, loop_cond);
    exits.push_back(sides.output_false);
    in_body.push_back(ops::Identity(inside, sides.output_true));
    if (!s.ok()) return {};
    if (in_body.size() == 1) context->set_body_pivot(in_body[0]);
  }
  const std::vector<Output> next = body(inside, in_body);
  if (!s.ok()) return {};
  if (next.size() != variables.size()) {
    return fail(InvalidArgument("the body gives ", next.size(), " values for ", variables.size(),
                                " variables"));
  }
  for (size_t i = 0; i < next.size(); ++i) {
    const bool there = next[i].node != nullptr;
    if (!there || BaseType(next[i].dtype()) != merges[i].dtype()) {
      return fail(InvalidArgument("variable ", i, " is ", DTypeName(merges[i].dtype()),
                                  ", the body gives ",
                                  there ? DTypeName(next[i].dtype()) : "nothing"));
    }
    const Output back = NodeBuilder(inside, "NextIteration").Input(next[i]).BuildOutput();
    if (!s.ok()) return {};
    s.UpdateStatus(s.graph()->UpdateInput(merges[i].node, 1, back));
  }
  for (Output& o : exits) o = NodeBuilder(inside, "Exit").Input(o).BuildOutput();
  if (!s.ok()) return {};
  context->set_exits(exits);
  s.UpdateStatus(context->Close(s.graph(), kWhileContext));
  return s.ok() ? exits : std::vector<Output>();
}

}  // namespace ferry
