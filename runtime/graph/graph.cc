// Graph and Node: checking, shape inference, unique names, GraphDef.
#include "runtime/graph/graph.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

// What TensorFlow 2.21 writes.
constexpr int kGraphDefVersion = 2474;

// Constants up to this many elements are shown to shape functions. What serves there (shapes,
// axes, paddings) is small; larger ones are data.
constexpr int64_t kMaxInferenceElements = 1024;

// How many Identity nodes the search for a constant goes back through; a bound, so that a long
// chain of them isn't walked anew for each of its nodes.
constexpr int kMaxIdentityHops = 16;

const PartialShape& UnknownShapeRef() {
  static const PartialShape* unknown = new PartialShape();
  return *unknown;
}

// The value of a small constant; uninitialised for anything else.
Tensor ConstantValue(Output o) {
  for (int hop = 0; o.node != nullptr && hop < kMaxIdentityHops; ++hop) {
    if (o.node->op() == "Const") {
      auto it = o.node->attrs().find("value");
      if (it == o.node->attrs().end() || !it->second.has_tensor()) return Tensor();
      const proto::TensorProto& t = it->second.tensor();
      if (!o.node->output_shape(0).fully_defined() ||
          o.node->output_shape(0).num_elements() > kMaxInferenceElements) {
        return Tensor();
      }
      absl::StatusOr<Tensor> value = FromProto(t);
      // In a hostile graph it may be of another type than the node says.
      const bool fits = value.ok() && value->dtype() == o.node->output_type(0);
      return fits ? *std::move(value) : Tensor();
    }
    if (o.node->op() != "Identity" || o.node->num_inputs() != 1) break;
    o = o.node->input(0);
  }
  return Tensor();
}

void InsertConsumer(std::vector<Node*>* consumers, Node* node) {
  auto later = [](const Node* a, const Node* b) { return a->id() < b->id(); };
  consumers->insert(std::upper_bound(consumers->begin(), consumers->end(), node, later), node);
}

}  // namespace

std::string Output::name() const {
  if (node == nullptr) return "<none>";
  if (index < 0) return absl::StrCat("^", node->name());
  return absl::StrCat(node->name(), ":", index);
}

DType Output::dtype() const {
  if (node == nullptr || index < 0 || index >= node->num_outputs()) return DType::kInvalid;
  return node->output_type(index);
}

const PartialShape& Output::shape() const {
  if (node == nullptr || index < 0 || index >= node->num_outputs()) return UnknownShapeRef();
  return node->output_shape(index);
}

bool operator<(const Output& a, const Output& b) {
  auto key = [](const Output& o) {
    return std::make_tuple(o.node == nullptr ? -1 : o.node->id(), o.node, o.index);
  };
  return key(a) < key(b);
}

bool IsValidNodeName(absl::string_view name) {
  if (name.empty() || !(absl::ascii_isalnum(name[0]) || name[0] == '.')) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || absl::string_view("_.\\-/>").find(c) != std::string::npos;
  });
}

absl::StatusOr<std::pair<std::string, int>> ParseTensorName(absl::string_view name) {
  const absl::string_view whole = name;
  int index = 0;
  if (absl::ConsumePrefix(&name, "^")) {
    index = -1;
  } else if (size_t colon = name.rfind(':'); colon != absl::string_view::npos) {
    const absl::string_view digits = name.substr(colon + 1);
    if (digits.empty() || !std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit) ||
        !absl::SimpleAtoi(digits, &index)) {
      return InvalidArgument("'", whole, "' is not a tensor's name: expected \"name:index\"");
    }
    name = name.substr(0, colon);
  }
  if (name.empty() || name.find_first_of(":^") != absl::string_view::npos) {
    return InvalidArgument("'", whole, "' is not a tensor's name: expected \"name:index\"");
  }
  return std::make_pair(std::string(name), index);
}

void Node::ToNodeDef(proto::NodeDef* def) const {
  def->Clear();
  def->set_name(name_);
  def->set_op(op_);
  for (const Output& in : inputs_) {
    def->add_input(in.node == nullptr ? "" : in.index == 0 ? in.node->name() : in.name());
  }
  std::vector<std::string> control;
  control.reserve(control_inputs_.size());
  for (const Node* c : control_inputs_) control.push_back(absl::StrCat("^", c->name()));
  std::sort(control.begin(), control.end());  // As TensorFlow writes them.
  for (std::string& c : control) def->add_input(std::move(c));
  def->set_device(device_);
  *def->mutable_attr() = attrs_;
  if (debug_info_.original_node_names_size() > 0 || debug_info_.original_func_names_size() > 0) {
    *def->mutable_experimental_debug_info() = debug_info_;
  }
}

Graph::Graph() { versions_.set_producer(kGraphDefVersion); }
Graph::~Graph() = default;

absl::StatusOr<Node*> Graph::AddNode(const std::string& name, const std::string& op, AttrMap attrs,
                                     const std::vector<Output>& inputs,
                                     const std::vector<Node*>& control_inputs,
                                     const std::string& device) {
  auto node = std::make_unique<Node>();
  node->name_ = name;
  node->op_ = op;
  node->attrs_ = std::move(attrs);
  node->inputs_ = inputs;
  node->control_inputs_ = control_inputs;
  node->device_ = device;
  node->info_ = FindOp(op);
  if (node->info_ == nullptr) {
    return Unimplemented("node '", name, "': op type not registered '", op, "'");
  }
  return Insert(std::move(node), /*open_inputs=*/false);
}

absl::Status Graph::CheckInput(const Node& node, int i, const Output& input) const {
  if (input.node == nullptr || input.node->graph_ != this) {
    return InvalidArgument("node '", node.name_, "' (", node.op_, "): input ", i,
                           input.node == nullptr ? " is empty" : " belongs to another graph");
  }
  if (input.index < 0 || input.index >= input.node->num_outputs()) {
    return InvalidArgument("node '", node.name_, "' (", node.op_, "): input ", i,
                           " connects to invalid output ", input.index, " of source node '",
                           input.node->name_, "', which has ", input.node->num_outputs(),
                           " outputs");
  }
  if (node.info_ == nullptr) return absl::OkStatus();
  const DType want = node.input_types_[static_cast<size_t>(i)];
  const DType got = input.dtype();
  if (got == DType::kInvalid || got == want || BaseType(got) == want) return absl::OkStatus();
  // Of an op that isn't registered nobody says which outputs are references.
  if (input.node->info_ == nullptr && got == BaseType(want)) return absl::OkStatus();
  return InvalidArgument("node '", node.name_, "' (", node.op_, "): input ", i, " was passed ",
                         DTypeWord(got), " from '", input.name(), "' incompatible with expected ",
                         DTypeWord(want));
}

absl::StatusOr<Node*> Graph::Insert(std::unique_ptr<Node> node, bool open_inputs) {
  if (!IsValidNodeName(node->name_)) {
    return InvalidArgument("'", node->name_, "' is not a valid node name");
  }
  if (by_name_.contains(node->name_)) {
    return InvalidArgument("node name '", node->name_, "' already exists in the graph");
  }
  const std::string what = absl::StrCat("node '", node->name_, "' (", node->op_, ")");
  node->graph_ = this;
  node->id_ = num_nodes();
  if (node->info_ != nullptr) {
    absl::Status s = CompleteAttrs(node->info_->def, &node->attrs_);
    if (s.ok()) {
      s = InOutTypes(node->info_->def, node->attrs_, &node->input_types_, &node->output_types_);
    }
    if (!s.ok()) return Annotate(s, what);
    if (node->inputs_.size() != node->input_types_.size()) {
      return InvalidArgument(what, ": expected ", node->input_types_.size(), " inputs, got ",
                             node->inputs_.size());
    }
  } else {
    node->input_types_.clear();
    for (const Output& in : node->inputs_) node->input_types_.push_back(BaseType(in.dtype()));
  }
  for (int i = 0; i < node->num_inputs(); ++i) {
    if (open_inputs && node->input(i).node == nullptr) continue;
    FERRY_RETURN_IF_ERROR(CheckInput(*node, i, node->input(i)));
  }
  std::vector<Node*> control;
  absl::flat_hash_set<Node*> seen;
  for (Node* c : node->control_inputs_) {
    if (c == nullptr || c->graph_ != this) {
      return InvalidArgument(what, ": a control input is empty or of another graph");
    }
    if (seen.insert(c).second) control.push_back(c);
  }
  node->control_inputs_ = std::move(control);
  node->shapes_.resize(node->output_types_.size());
  if (node->info_ != nullptr) FERRY_RETURN_IF_ERROR(Annotate(InferShapes(node.get()), what));

  Node* n = node.get();
  by_name_[n->name_] = n;
  names_in_use_.try_emplace(absl::AsciiStrToLower(n->name_), 1);
  for (int i = 0; i < n->num_inputs(); ++i) {
    const Output& in = n->inputs_[static_cast<size_t>(i)];
    if (in.node == nullptr) continue;
    in.node->consumers_.push_back(n);
    // What an op that isn't registered gives is what the first that takes it expects: so it can be
    // fed.
    DType& type = in.node->output_types_[static_cast<size_t>(in.index)];
    if (type == DType::kInvalid && n->info_ != nullptr) type = BaseType(n->input_type(i));
  }
  for (Node* c : n->control_inputs_) c->consumers_.push_back(n);
  nodes_.push_back(std::move(node));
  return n;
}

absl::Status Graph::InferShapes(Node* node) {
  std::vector<PartialShape> shapes, partial_values;
  std::vector<Tensor> values;
  for (const Output& in : node->inputs_) {
    shapes.push_back(in.shape());
    values.push_back(ConstantValue(in));
    const bool has_value =
        in.node != nullptr && static_cast<size_t>(in.index) < in.node->shape_values_.size();
    partial_values.push_back(has_value ? in.node->shape_values_[static_cast<size_t>(in.index)]
                                       : PartialShape());
  }
  PartialShape first_value = partial_values.empty() ? PartialShape() : partial_values[0];
  InferenceContext c(&node->attrs_, std::move(shapes), std::move(values), std::move(partial_values),
                     node->num_outputs());
  for (int i = 0; i < node->num_inputs(); ++i) {
    const Output& in = node->input(i);
    if (in.node != nullptr && BaseType(in.dtype()) == DType::kResource) {
      c.set_input_handle_shape(i, in.node->handle_shape_);
      // Identity, Switch and the like pass a handle on.
      if (i == 0) c.set_output_handle_shape(in.node->handle_shape_);
    }
  }
  absl::Status s = node->info_->shape(&c);
  if (!s.ok()) {
    std::string in = absl::StrJoin(node->inputs_, ", ", [](std::string* out, const Output& o) {
      absl::StrAppend(out, o.shape().DebugString());
    });
    return absl::Status(s.code(), absl::StrCat(s.message(), "; input shapes: ", in));
  }
  node->handle_shape_ = c.output_handle_shape();
  bool any_value = false;
  for (int i = 0; i < node->num_outputs(); ++i) {
    node->shapes_[static_cast<size_t>(i)] = c.output(i);
    any_value |= c.output_value_as_shape(i).known_rank();
  }
  if (any_value) {
    for (int i = 0; i < node->num_outputs(); ++i) {
      node->shape_values_.push_back(c.output_value_as_shape(i));
    }
  } else if (node->op_ == "Identity" && first_value.known_rank()) {
    node->shape_values_ = {std::move(first_value)};
  }
  return absl::OkStatus();
}

absl::Status Graph::UpdateInput(Node* node, int i, Output new_input) {
  if (node == nullptr || node->graph_ != this || i < 0 || i >= node->num_inputs()) {
    return InvalidArgument("UpdateInput: the node is of another graph, or has no input ", i);
  }
  FERRY_RETURN_IF_ERROR(CheckInput(*node, i, new_input));
  Output& slot = node->inputs_[static_cast<size_t>(i)];
  if (slot.node != nullptr) {
    std::vector<Node*>& old = slot.node->consumers_;
    old.erase(std::find(old.begin(), old.end(), node));
  }
  slot = new_input;
  InsertConsumer(&new_input.node->consumers_, node);
  return absl::OkStatus();
}

absl::Status Graph::AddControlEdge(Node* from, Node* to) {
  if (from == nullptr || to == nullptr || from->graph_ != this || to->graph_ != this) {
    return InvalidArgument("AddControlEdge: a node is empty or of another graph");
  }
  std::vector<Node*>& control = to->control_inputs_;
  if (std::find(control.begin(), control.end(), from) != control.end()) return absl::OkStatus();
  control.push_back(from);
  InsertConsumer(&from->consumers_, to);
  return absl::OkStatus();
}

Node* Graph::FindNode(absl::string_view name) const {
  auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

absl::StatusOr<Output> Graph::FindOutput(absl::string_view name) const {
  FERRY_ASSIGN_OR_RETURN(auto parsed, ParseTensorName(name));
  Node* node = FindNode(parsed.first);
  if (node == nullptr) {
    return NotFound("the name '", name, "' refers to node '", parsed.first,
                    "', which is not in the graph");
  }
  if (parsed.second >= node->num_outputs()) {
    return InvalidArgument("the name '", name, "' refers to a tensor that does not exist: node '",
                           parsed.first, "' has ", node->num_outputs(), " outputs");
  }
  return Output(node, parsed.second);
}

std::string Graph::UniqueName(const std::string& name, bool mark_as_used) {
  const std::string base = absl::AsciiStrToLower(name);
  auto it = names_in_use_.find(base);
  int i = it == names_in_use_.end() ? 0 : it->second;
  if (mark_as_used) names_in_use_[base] = i + 1;
  if (i == 0) return name;
  std::string key = base;
  while (names_in_use_.contains(key)) key = absl::StrCat(base, "_", i++);
  if (mark_as_used) names_in_use_[key] = 1;
  return absl::StrCat(name, "_", i - 1);
}

std::pair<int64_t, int64_t> Graph::OpSeeds(std::optional<int64_t> op_seed) {
  constexpr int64_t kMax = (int64_t{1} << 31) - 1;
  constexpr int64_t kDefaultGraphSeed = 87654321;  // For ops with a seed in graphs without one.
  auto reduce = [](int64_t seed) { return ((seed % kMax) + kMax) % kMax; };
  if (!seed_.has_value() && !op_seed.has_value()) return {0, 0};
  const int64_t first = seed_.value_or(kDefaultGraphSeed);
  const int64_t second = op_seed.has_value() ? *op_seed : derived_seeds_++;
  // (0, 0) would mean no seed.
  if (reduce(first) == 0 && reduce(second) == 0) return {0, kMax};
  return {reduce(first), reduce(second)};
}

void Graph::ToGraphDef(proto::GraphDef* def) const {
  def->Clear();
  def->mutable_node()->Reserve(num_nodes());
  for (const auto& n : nodes_) n->ToNodeDef(def->add_node());
  *def->mutable_versions() = versions_;
  if (library_.function_size() > 0 || library_.gradient_size() > 0) {
    *def->mutable_library() = library_;
  }
}

}  // namespace ferry
