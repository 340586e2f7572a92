// Scope and NodeBuilder.
#include "runtime/graph/scope.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

std::string Join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : absl::StrCat(prefix, "/", name);
}

}  // namespace

Scope::Scope(Graph* graph) : graph_(graph), shared_(std::make_shared<Shared>()) {}

void Scope::UpdateStatus(const absl::Status& status) const { KeepFirst(&shared_->status, status); }

Scope Scope::NewSubScope(const std::string& name) const {
  Scope child = *this;
  child.op_name_.clear();
  const std::string full = Join(prefix_, name);
  if (name.empty() || !IsValidNodeName(full)) {
    UpdateStatus(InvalidArgument("'", full, "' is not a valid scope name"));
    return child;
  }
  child.prefix_ = graph_->UniqueName(full);
  return child;
}

Scope Scope::WithPrefix(const std::string& full_prefix) const {
  Scope child = *this;
  child.op_name_.clear();
  child.prefix_ = std::string(absl::StripSuffix(full_prefix, "/"));
  return child;
}

Scope Scope::WithOpName(const std::string& name) const {
  Scope child = *this;
  child.op_name_ = name;
  return child;
}

Scope Scope::WithControlDependencies(const std::vector<Node*>& nodes) const {
  Scope child = *this;
  for (Node* n : nodes) {
    // A null node comes from a failed op, whose error the status holds.
    if (n != nullptr &&
        std::find(child.control_.begin(), child.control_.end(), n) == child.control_.end()) {
      child.control_.push_back(n);
    }
  }
  return child;
}

Scope Scope::WithNoControlDependencies() const {
  Scope child = *this;
  child.control_.clear();
  child.context_ = nullptr;
  return child;
}

Scope Scope::InContext(std::shared_ptr<ControlFlowContext> context) const {
  Scope child = *this;
  child.context_ = std::move(context);
  return child;
}

Scope Scope::WithDevice(const std::string& device) const {
  Scope child = *this;
  child.device_ = device;
  return child;
}

Scope Scope::ColocateWith(Node* node) const {
  Scope child = *this;
  if (node == nullptr) return child;
  // A node that is colocated itself stands for the group it belongs to.
  std::vector<std::string> groups;
  if (auto list = node->Attr<std::vector<std::string>>("_class"); list.ok()) {
    for (const std::string& g : *list) {
      if (absl::StartsWith(g, "loc:@")) groups.push_back(g);
    }
  }
  if (groups.empty()) groups.push_back(absl::StrCat("loc:@", node->name()));
  std::vector<std::string>& all = child.colocation_;
  all.insert(all.end(), groups.begin(), groups.end());
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  if (!node->device().empty()) child.device_ = node->device();
  return child;
}

Scope Scope::ClearColocation() const { return WithColocation({}); }

Scope Scope::WithColocation(std::vector<std::string> groups) const {
  Scope child = *this;
  child.colocation_ = std::move(groups);
  return child;
}

std::string Scope::UniqueOpName(const std::string& default_name) const {
  if (absl::EndsWith(op_name_, "/")) return op_name_.substr(0, op_name_.size() - 1);
  return graph_->UniqueName(Join(prefix_, op_name_.empty() ? default_name : op_name_));
}

Node* NodeBuilder::Build() {
  if (!scope_.ok()) return nullptr;
  auto fail = [&](const absl::Status& s) -> Node* {
    scope_.UpdateStatus(s);
    return nullptr;
  };
  const OpInfo* info = FindOp(op_);
  if (info == nullptr) return fail(Unimplemented("op type not registered '", op_, "'"));
  const proto::OpDef& def = info->def;
  if (static_cast<int>(args_.size()) != def.input_arg_size()) {
    return fail(InvalidArgument("op '", op_, "' takes ", def.input_arg_size(), " arguments, got ",
                                args_.size()));
  }
  std::vector<Output> flat;
  for (int a = 0; a < def.input_arg_size(); ++a) {
    const proto::OpDef::ArgDef& arg = def.input_arg(a);
    const std::vector<Output>& given = args_[static_cast<size_t>(a)];
    std::vector<DType> types;
    for (const Output& o : given) {
      if (o.node == nullptr) {
        return fail(InvalidArgument("op '", op_, "': argument '", arg.name(), "' is empty"));
      }
      types.push_back(BaseType(o.dtype()));
      flat.push_back(o);
    }
    const bool list = !arg.number_attr().empty() || !arg.type_list_attr().empty();
    if (!list && given.size() != 1) {
      return fail(InvalidArgument("op '", op_, "': argument '", arg.name(), "' is no list, got ",
                                  given.size(), " tensors"));
    }
    // Attributes that were given stand; inputs that don't fit them are AddNode's to refuse.
    auto infer = [&](const std::string& name, auto value) {
      if (!attrs_.contains(name)) attrs_[name] = MakeAttr(value);
    };
    if (!arg.type_list_attr().empty()) {
      infer(arg.type_list_attr(), types);
    } else if (!arg.type_attr().empty() && !types.empty()) {
      infer(arg.type_attr(), types[0]);
    }
    if (!arg.number_attr().empty()) {
      infer(arg.number_attr(), static_cast<int64_t>(given.size()));
    }
  }
  std::vector<Node*> control;
  for (Node* c : scope_.control_dependencies()) {
    // A data edge orders already.
    if (std::none_of(flat.begin(), flat.end(), [c](const Output& o) { return o.node == c; })) {
      control.push_back(c);
    }
  }
  if (!scope_.colocation().empty() && !attrs_.contains("_class")) {
    attrs_["_class"] = MakeAttr(scope_.colocation());
  }
  const std::string name = scope_.UniqueOpName(op_);
  ControlFlowContext* const context = scope_.context().get();
  if (context != nullptr) {
    const bool ordered =
        !flat.empty() || std::any_of(control.begin(), control.end(),
                                     [&](const Node* c) { return context->Contains(c); });
    if (!ordered) control.push_back(context->pivot());
    for (Output& o : flat) o = context->AddValue(scope_.WithPrefix(name), o);
    if (!scope_.ok()) return nullptr;
  }
  absl::StatusOr<Node*> node = scope_.graph()->AddNode(name, op_, std::move(attrs_), flat, control,
                                                       scope_.device());
  if (!node.ok()) return fail(node.status());
  if (context != nullptr) context->AddOp(*node);
  return *node;
}

}  // namespace ferry
