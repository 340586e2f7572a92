// tf.cond's graph.
#include "runtime/graph/cond.h"

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

class CondContext : public ControlFlowContext {
 public:
  CondContext(std::string name, Output pred, Output pivot, int branch,
              std::shared_ptr<CondContext> outer)
      : name_(std::move(name)),
        pred_(pred),
        pivot_(pivot),
        branch_(branch),
        outer_(std::move(outer)) {
    values_ = {pred.name(), pivot.name()};
    external_[pred.name()] = pred;
    ops_.insert(pivot.node);
  }

  Output AddValue(const Scope& s, Output value) override {
    if (!s.ok()) return Output();
    if (values_.count(value.name()) > 0) {
      auto it = external_.find(value.name());
      return it == external_.end() ? value : it->second;
    }
    values_.insert(value.name());
    Output from = value;
    if (outer_ != nullptr) {
      from = outer_->AddValue(s, value);
      if (!s.ok()) return Output();
      values_.insert(from.name());
      external_[from.name()] = from;
    }
    const Output result = SwitchOf(s.WithNoControlDependencies(), from);
    if (!s.ok()) return Output();
    ops_.insert(result.node);
    for (CondContext* c = this; c != nullptr; c = c->outer_.get()) c->values_.insert(result.name());
    return external_[value.name()] = result;
  }

  // A branch's result: one from outside goes through a Switch, too.
  Output AddResult(const Scope& s, Output value) {
    if (!s.ok() || value.node == nullptr) return value;
    if (values_.count(value.name()) > 0) {
      auto it = external_.find(value.name());
      return it == external_.end() ? value : it->second;
    }
    values_.insert(value.name());
    Output from = value;
    if (outer_ != nullptr) {
      from = outer_->AddValue(s, value);
      if (!s.ok()) return Output();
      values_.insert(from.name());
      external_[from.name()] = from;
    }
    const Output result = SwitchOf(s, from);
    return external_[value.name()] = result;
  }

  void AddOp(Node* node) override {
    ops_.insert(node);
    for (CondContext* c = this; c != nullptr; c = c->outer_.get()) {
      for (int i = 0; i < node->num_outputs(); ++i) c->values_.insert(Output(node, i).name());
      if (c != this) c->ops_.insert(node);
    }
  }
  bool Contains(const Node* node) const override { return ops_.contains(node); }
  Node* pivot() const override { return pivot_.node; }

  // Tells the context around this one, or the graph's collection.
  absl::Status Close(Graph* graph) {
    proto::CondContextDef def;
    def.set_context_name(name_);
    def.set_pred_name(pred_.name());
    def.set_pivot_name(pivot_.name());
    def.set_branch(branch_);
    for (const std::string& v : values_) def.mutable_values_def()->add_values(v);
    for (const auto& [name, inside] : external_) {
      (*def.mutable_values_def()->mutable_external_values())[name] = inside.name();
    }
    for (proto::CondContextDef& nested : nested_) {
      *def.add_nested_contexts()->mutable_cond_ctxt() = std::move(nested);
    }
    if (outer_ != nullptr) {
      outer_->nested_.push_back(std::move(def));
      return absl::OkStatus();
    }
    proto::CollectionDef& c = (*graph->mutable_collections())[kCondContext];
    if (c.kind_case() != proto::CollectionDef::kBytesList &&
        c.kind_case() != proto::CollectionDef::KIND_NOT_SET) {
      return FailedPrecondition("collection '", kCondContext, "' is not a list of bytes");
    }
    c.mutable_bytes_list()->add_value(def.SerializeAsString());
    return absl::OkStatus();
  }

 private:
  // The side of a Switch of `data` that is alive in this branch. It goes where the data is.
  Output SwitchOf(const Scope& scope, Output data) {
    const Scope s = scope.ClearColocation().ColocateWith(data.node).WithOpName("Switch");
    const auto both =
        IsRef(data.dtype()) ? ops::RefSwitch(s, data, pred_) : ops::Switch(s, data, pred_);
    return branch_ == 1 ? both.output_true : both.output_false;
  }

  const std::string name_;
  const Output pred_, pivot_;
  const int branch_;
  const std::shared_ptr<CondContext> outer_;
  std::set<std::string> values_;            // Tensors that were seen in here, by name.
  std::map<std::string, Output> external_;  // One from outside -> what stands for it.
  absl::flat_hash_set<const Node*> ops_;
  std::vector<proto::CondContextDef> nested_;
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
  // All contexts that there are come from here.
  const auto around = std::static_pointer_cast<CondContext>(outer.context());
  for (const int branch : {1, 0}) {
    if (!s.ok()) return {};
    auto context =
        std::make_shared<CondContext>(s.graph()->UniqueName(absl::StrCat(s.prefix(), "/cond_text")),
                                      id, pivots[branch], branch, around);
    const Scope inside = s.InContext(context);
    for (Output o : (branch == 1 ? true_fn : false_fn)(inside)) {
      results[branch].push_back(context->AddResult(inside, o));
    }
    s.UpdateStatus(context->Close(s.graph()));
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

}  // namespace ferry
