// ImportGraphDef. Nodes are made in the order of the GraphDef where that order lets them be, so a
// graph that goes out and comes in again keeps its order.
#include <algorithm>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/protobuf/util/message_differencer.h"
#include "runtime/base/status.h"
#include "runtime/graph/graph.h"

namespace ferry {
namespace {

// So that a few attributes like num_split, or a name like "x:2e9" of an op that isn't registered,
// can't fill the memory, all nodes together have at most this many outputs, or a few for each
// input.
constexpr int64_t kMaxOutputs = 1 << 22;

// What one input string of a node of the GraphDef stands for.
struct InputRef {
  int def = -1;            // Position of the source in the GraphDef; -1 when it is mapped.
  int index = 0;           // Of its output; -1 for a control input.
  Output mapped;           // From the input_map.
  bool back_edge = false;  // Closes a loop: filled in when all nodes are there.
};

bool IsMerge(const std::string& op) { return op == "Merge" || op == "RefMerge"; }
bool IsNextIteration(const std::string& op) {
  return op == "NextIteration" || op == "RefNextIteration";
}

// What an op that isn't registered gives, where its attributes say so as those of iterators, queues
// and Python's functions do; empty where they don't.
std::vector<DType> ListedTypes(const AttrMap& attrs) {
  for (const char* const name : {"output_types", "component_types", "Tout"}) {
    auto types = GetAttr<std::vector<DType>>(attrs, name);
    if (types.ok()) return *std::move(types);
  }
  return {};
}

}  // namespace

// State of one import; a class so that its steps share it.
class GraphImporter {
 public:
  GraphImporter(const ImportOptions& options, const proto::GraphDef& def, Graph* graph)
      : options_(options), def_(def), graph_(graph) {}

  // In this order.
  absl::Status CheckVersions() const;
  absl::Status ReadInputs();
  absl::Status ChooseNames();
  absl::Status MakeNodes();
  absl::Status MergeVersionsAndLibrary();
  absl::Status Return(ImportResults* results) const;

 private:
  static size_t Index(int i) { return static_cast<size_t>(i); }
  Node* made(int i) const { return made_[Index(i)]; }
  absl::StatusOr<InputRef> ReadInput(const proto::NodeDef& node, const std::string& input);
  absl::Status FillAttrs(int i, AttrMap* attrs) const;
  absl::StatusOr<Node*> MakeNode(int i);
  // Counts outputs of node i.
  absl::Status TakeOutputs(int i, int64_t n);
  // Of the library that comes with the nodes, or the graph's; null if there is none of that name.
  const proto::FunctionDef* FindFunction(const std::string& name);
  absl::Status DescribeCycle(const std::vector<int>& pending) const;

  const ImportOptions& options_;
  const proto::GraphDef& def_;
  Graph* const graph_;
  absl::flat_hash_map<absl::string_view, int> by_name_;
  std::vector<std::vector<InputRef>> inputs_;
  std::vector<int> max_index_;  // Highest output index referred to.
  int64_t outputs_left_ = 0;    // That nodes may still have.
  absl::flat_hash_map<absl::string_view, const proto::FunctionDef*> functions_;
  std::vector<std::string> names_;
  std::vector<Node*> made_;
  std::vector<std::pair<int, int>> open_;  // (Node of the GraphDef, input) that close loops.
  absl::flat_hash_set<std::string> used_map_keys_;
};

absl::Status GraphImporter::CheckVersions() const {
  const int ours = Graph().versions().producer();
  const proto::VersionDef& v = def_.versions();
  if (v.min_consumer() > ours) {
    return InvalidArgument("GraphDef min consumer version ", v.min_consumer(),
                           " is above this program's GraphDef version ", ours);
  }
  for (int bad : v.bad_consumers()) {
    if (bad == ours) {
      return InvalidArgument("GraphDef disallows consumers of version ", bad, ", as this one is");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<InputRef> GraphImporter::ReadInput(const proto::NodeDef& node,
                                                  const std::string& input) {
  absl::StatusOr<std::pair<std::string, int>> parsed = ParseTensorName(input);
  if (!parsed.ok()) {
    return InvalidArgument("node '", node.name(), "': input '", input, "' is not a valid name");
  }
  InputRef ref;
  ref.index = parsed->second;
  const std::string key = ref.index < 0 ? absl::StrCat("^", parsed->first)
                                        : absl::StrCat(parsed->first, ":", ref.index);
  auto mapped = options_.input_map.find(key);
  if (mapped == options_.input_map.end() && ref.index == 0) {
    mapped = options_.input_map.find(parsed->first);
  }
  if (mapped != options_.input_map.end()) {
    ref.mapped = mapped->second;
    used_map_keys_.insert(mapped->first);
    if (ref.mapped.node == nullptr || ref.mapped.node->graph() != graph_) {
      return InvalidArgument("input_map maps '", mapped->first,
                             "' to nothing, or to a node of another graph");
    }
    return ref;
  }
  auto it = by_name_.find(parsed->first);
  if (it == by_name_.end()) {
    return InvalidArgument("node '", node.name(), "': unknown input node '", input, "'");
  }
  ref.def = it->second;
  ref.back_edge = ref.index >= 0 && IsMerge(node.op()) && IsNextIteration(def_.node(ref.def).op());
  return ref;
}

absl::Status GraphImporter::ReadInputs() {
  const size_t n = Index(def_.node_size());
  inputs_.resize(n);
  max_index_.assign(n, -1);
  made_.assign(n, nullptr);
  by_name_.reserve(n);
  for (int i = 0; i < def_.node_size(); ++i) {
    const std::string& name = def_.node(i).name();
    if (!IsValidNodeName(name)) {
      return InvalidArgument("node ", i, " of the GraphDef: '", name, "' is not a valid node name");
    }
    if (!by_name_.try_emplace(name, i).second) {
      return InvalidArgument("node '", name, "' is not unique: the GraphDef has it twice");
    }
  }
  int64_t num_inputs = 0;
  for (int i = 0; i < def_.node_size(); ++i) {
    const proto::NodeDef& node = def_.node(i);
    bool control_seen = false;
    for (const std::string& input : node.input()) {
      FERRY_ASSIGN_OR_RETURN(InputRef ref, ReadInput(node, input));
      if (ref.index >= 0 && control_seen) {
        return InvalidArgument("node '", node.name(), "': input '", input,
                               "' follows a control input; those must come last");
      }
      control_seen |= ref.index < 0;
      if (ref.def >= 0) {
        max_index_[Index(ref.def)] = std::max(max_index_[Index(ref.def)], ref.index);
      }
      inputs_[Index(i)].push_back(ref);
      ++num_inputs;
    }
  }
  for (const std::string& element : options_.return_elements) {
    FERRY_ASSIGN_OR_RETURN(auto parsed, ParseTensorName(element));
    auto it = by_name_.find(parsed.first);
    if (it != by_name_.end() && absl::StrContains(element, ':')) {
      max_index_[Index(it->second)] = std::max(max_index_[Index(it->second)], parsed.second);
    }
  }
  outputs_left_ = kMaxOutputs + 4 * num_inputs;
  for (const auto& [key, unused] : options_.input_map) {
    if (used_map_keys_.contains(key)) continue;
    FERRY_ASSIGN_OR_RETURN(auto parsed, ParseTensorName(key));
    if (!by_name_.contains(parsed.first)) {
      return InvalidArgument("attempted to map inputs that were not found in graph_def: '", key,
                             "'");
    }
  }
  return absl::OkStatus();
}

absl::Status GraphImporter::ChooseNames() {
  std::string prefix;
  if (absl::EndsWith(options_.prefix, "/")) {
    prefix = options_.prefix;
  } else if (!options_.prefix.empty()) {
    prefix = absl::StrCat(graph_->UniqueName(options_.prefix), "/");
  }
  if (!prefix.empty() && !IsValidNodeName(prefix)) {
    return InvalidArgument("'", options_.prefix, "' is not a valid prefix");
  }
  // A name also collides with the scopes that exist: "a" with a node "a/b".
  absl::flat_hash_set<std::string> scopes;
  if (options_.uniquify_names) {
    for (const auto& node : graph_->nodes()) {
      const std::string& name = node->name();
      for (size_t at = name.find('/'); at != std::string::npos; at = name.find('/', at + 1)) {
        scopes.insert(name.substr(0, at));
      }
    }
  }
  auto taken = [&](const std::string& name) {
    return graph_->FindNode(name) != nullptr || scopes.contains(name);
  };
  absl::flat_hash_set<std::string> given;
  for (int i = 0; i < def_.node_size(); ++i) {
    const std::string name = absl::StrCat(prefix, def_.node(i).name());
    std::string unique = name;
    if (options_.uniquify_names && taken(name)) {
      int count = 0;
      do {
        unique = absl::StrCat(name, "_", ++count);
      } while (taken(unique) || given.contains(unique) ||
               by_name_.contains(absl::StripPrefix(unique, prefix)));
      given.insert(unique);
    } else if (graph_->FindNode(name) != nullptr) {
      return InvalidArgument("node name '", name, "' already exists in the graph");
    }
    names_.push_back(std::move(unique));
  }
  return absl::OkStatus();
}

absl::Status GraphImporter::FillAttrs(int i, AttrMap* attrs) const {
  const proto::NodeDef& node = def_.node(i);
  *attrs = node.attr();
  attrs->erase("_output_shapes");
  auto it = attrs->find("_class");
  if (it == attrs->end()) return absl::OkStatus();
  for (std::string& entry : *it->second.mutable_list()->mutable_s()) {
    absl::string_view other = entry;
    if (!absl::StartsWith(other, "loc:@")) continue;
    other.remove_prefix(5);
    auto found = by_name_.find(other);
    if (found != by_name_.end()) {
      entry = absl::StrCat("loc:@", names_[Index(found->second)]);
      continue;
    }
    auto mapped = options_.input_map.find(absl::StrCat(other, ":0"));
    if (mapped == options_.input_map.end()) mapped = options_.input_map.find(std::string(other));
    if (mapped == options_.input_map.end()) {
      return InvalidArgument("node '", node.name(), "' expects to be colocated with unknown node '",
                             other, "'");
    }
    entry = absl::StrCat("loc:@", mapped->second.node->name());
  }
  return absl::OkStatus();
}

absl::Status GraphImporter::TakeOutputs(int i, int64_t n) {
  outputs_left_ -= n;
  if (outputs_left_ >= 0) return absl::OkStatus();
  return InvalidArgument("node '", def_.node(i).name(), "' (", def_.node(i).op(), ") has ", n,
                         " outputs, which with those of the nodes before it are more than a graph ",
                         "of this size can have");
}

const proto::FunctionDef* GraphImporter::FindFunction(const std::string& name) {
  if (functions_.empty()) {
    for (const auto* library : {&def_.library(), &std::as_const(graph_->library_)}) {
      for (const proto::FunctionDef& f : library->function()) {
        functions_.try_emplace(f.signature().name(), &f);
      }
    }
  }
  const auto it = functions_.find(name);
  return it == functions_.end() ? nullptr : it->second;
}

absl::StatusOr<Node*> GraphImporter::MakeNode(int i) {
  const proto::NodeDef& node_def = def_.node(i);
  auto node = std::make_unique<Node>();
  node->name_ = names_[Index(i)];
  node->op_ = node_def.op();
  node->info_ = FindOp(node->op_);
  if (!options_.clear_devices) node->device_ = node_def.device();
  node->debug_info_ = node_def.experimental_debug_info();
  FERRY_RETURN_IF_ERROR(FillAttrs(i, &node->attrs_));
  for (const InputRef& in : inputs_[Index(i)]) {
    if (in.index < 0) {
      node->control_inputs_.push_back(in.def < 0 ? in.mapped.node : made(in.def));
    } else if (in.back_edge) {
      open_.emplace_back(i, node->num_inputs());
      node->inputs_.emplace_back();
    } else {
      node->inputs_.push_back(in.def < 0 ? in.mapped : Output(made(in.def), in.index));
    }
  }
  if (node->info_ == nullptr) {
    if (!options_.allow_unknown_ops) {
      return Unimplemented("node '", node_def.name(), "': op type not registered '", node->op_,
                           "'");
    }
    const int64_t referred = static_cast<int64_t>(max_index_[Index(i)]) + 1;
    if (referred > outputs_left_) {
      return InvalidArgument("node '", node_def.name(), "' (", node->op_, "): output ",
                             referred - 1, " of an op that isn't registered is referred to");
    }
    FERRY_RETURN_IF_ERROR(TakeOutputs(i, referred));
    // A function of the library says itself what it gives.
    std::vector<DType> in, out;
    const proto::FunctionDef* const function = FindFunction(node->op_);
    if (function && InOutTypes(function->signature(), node->attrs_, &in, &out).ok() &&
        static_cast<int64_t>(out.size()) >= referred) {
      FERRY_RETURN_IF_ERROR(TakeOutputs(i, static_cast<int64_t>(out.size()) - referred));
      node->output_types_ = std::move(out);
    } else {
      node->output_types_ = ListedTypes(node->attrs_);
      if (static_cast<int64_t>(node->output_types_.size()) < referred) {
        node->output_types_.assign(static_cast<size_t>(referred), DType::kInvalid);
      }
      FERRY_RETURN_IF_ERROR(
          TakeOutputs(i, static_cast<int64_t>(node->output_types_.size()) - referred));
    }
  }
  FERRY_ASSIGN_OR_RETURN(Node * made, graph_->Insert(std::move(node), /*open_inputs=*/true));
  if (made->info_ != nullptr) FERRY_RETURN_IF_ERROR(TakeOutputs(i, made->num_outputs()));
  // Shapes that the writer knew, perhaps more than inference finds.
  auto shapes = GetAttr<std::vector<PartialShape>>(node_def.attr(), "_output_shapes");
  if (!shapes.ok() || made->info_ == nullptr || shapes->size() != made->shapes_.size()) return made;
  for (size_t o = 0; o < shapes->size(); ++o) {
    auto merged = PartialShape::Merge(made->shapes_[o], (*shapes)[o]);
    if (!merged.ok()) {
      return InvalidArgument("node '", node_def.name(), "' (", node_def.op(),
                             "): _output_shapes says ", (*shapes)[o].DebugString(), " for output ",
                             o, ", but it is ", made->shapes_[o].DebugString());
    }
    made->shapes_[o] = *std::move(merged);
  }
  return made;
}

absl::Status GraphImporter::MakeNodes() {
  std::vector<int> pending(inputs_.size(), 0);
  std::vector<std::vector<int>> consumers(inputs_.size());
  std::priority_queue<int, std::vector<int>, std::greater<int>> ready;
  for (int i = 0; i < def_.node_size(); ++i) {
    for (const InputRef& in : inputs_[Index(i)]) {
      if (in.def < 0 || in.back_edge) continue;
      ++pending[Index(i)];
      consumers[Index(in.def)].push_back(i);
    }
    if (pending[Index(i)] == 0) ready.push(i);
  }
  int count = 0;
  while (!ready.empty()) {
    const int i = ready.top();
    ready.pop();
    FERRY_ASSIGN_OR_RETURN(made_[Index(i)], MakeNode(i));
    ++count;
    for (int c : consumers[Index(i)]) {
      if (--pending[Index(c)] == 0) ready.push(c);
    }
  }
  if (count < def_.node_size()) return DescribeCycle(pending);
  for (const auto& [i, input] : open_) {
    const InputRef& in = inputs_[Index(i)][Index(input)];
    FERRY_RETURN_IF_ERROR(graph_->UpdateInput(made(i), input, Output(made(in.def), in.index)));
  }
  return absl::OkStatus();
}

absl::Status GraphImporter::DescribeCycle(const std::vector<int>& pending) const {
  // From a node that waits, going to a source that waits ends up in a cycle.
  int at = static_cast<int>(
      std::find_if(pending.begin(), pending.end(), [](int p) { return p > 0; }) - pending.begin());
  std::vector<int> order(pending.size(), -1);
  std::vector<int> path;
  while (order[Index(at)] < 0) {
    order[Index(at)] = static_cast<int>(path.size());
    path.push_back(at);
    for (const InputRef& in : inputs_[Index(at)]) {
      if (in.def >= 0 && !in.back_edge && pending[Index(in.def)] > 0) {
        at = in.def;
        break;
      }
    }
  }
  std::string text = absl::StrCat("'", def_.node(at).name(), "'");
  constexpr size_t kShown = 8;
  for (size_t i = Index(order[Index(at)]) + 1, shown = 0; i < path.size(); ++i) {
    if (++shown > kShown) {
      text += " <- …";
      break;
    }
    absl::StrAppend(&text, " <- '", def_.node(path[i]).name(), "'");
  }
  return InvalidArgument("the GraphDef has a cycle that no NextIteration closes: ", text, " <- '",
                         def_.node(at).name(), "'");
}

absl::Status GraphImporter::MergeVersionsAndLibrary() {
  // The versions of a graph are those that all its parts agree with.
  proto::VersionDef* versions = graph_->mutable_versions();
  versions->set_producer(std::min(versions->producer(), def_.versions().producer()));
  versions->set_min_consumer(std::max(versions->min_consumer(), def_.versions().min_consumer()));
  for (int bad : def_.versions().bad_consumers()) {
    const auto& have = versions->bad_consumers();
    if (std::find(have.begin(), have.end(), bad) == have.end()) versions->add_bad_consumers(bad);
  }
  absl::flat_hash_map<std::string, const proto::FunctionDef*> functions;
  for (const auto& f : graph_->library_.function()) functions[f.signature().name()] = &f;
  std::vector<const proto::FunctionDef*> fresh;
  for (const auto& f : def_.library().function()) {
    const auto [known, is_new] = functions.try_emplace(f.signature().name(), &f);
    if (is_new) {
      fresh.push_back(&f);
    } else if (!google::protobuf::util::MessageDifferencer::Equals(*known->second, f)) {
      return InvalidArgument("Cannot add function '", f.signature().name(),
                             "' because a different function with the same name already exists.");
    }
  }
  for (const proto::FunctionDef* f : fresh) *graph_->library_.add_function() = *f;
  for (const auto& g : def_.library().gradient()) *graph_->library_.add_gradient() = g;
  return absl::OkStatus();
}

absl::Status GraphImporter::Return(ImportResults* results) const {
  if (results == nullptr) return absl::OkStatus();
  results->nodes.clear();
  results->return_outputs.clear();
  for (int i = 0; i < def_.node_size(); ++i) results->nodes[def_.node(i).name()] = made(i);
  for (const std::string& element : options_.return_elements) {
    FERRY_ASSIGN_OR_RETURN(auto parsed, ParseTensorName(element));
    const bool whole_node = !absl::StrContains(element, ':');
    if (auto m = options_.input_map.find(element); m != options_.input_map.end()) {
      results->return_outputs.push_back(whole_node ? Output(m->second.node, -1) : m->second);
      continue;
    }
    auto it = by_name_.find(parsed.first);
    if (it == by_name_.end() || (!whole_node && parsed.second >= made(it->second)->num_outputs())) {
      return InvalidArgument("requested return element '", element,
                             "' was not found in the GraphDef");
    }
    results->return_outputs.emplace_back(made(it->second), whole_node ? -1 : parsed.second);
  }
  return absl::OkStatus();
}

absl::Status ImportGraphDef(const ImportOptions& options, const proto::GraphDef& def, Graph* graph,
                            ImportResults* results) {
  GraphImporter importer(options, def, graph);
  FERRY_RETURN_IF_ERROR(importer.CheckVersions());
  FERRY_RETURN_IF_ERROR(importer.ReadInputs());
  FERRY_RETURN_IF_ERROR(importer.ChooseNames());

  FERRY_RETURN_IF_ERROR(importer.MakeNodes());
  FERRY_RETURN_IF_ERROR(importer.MergeVersionsAndLibrary());
  return importer.Return(results);
}

}  // namespace ferry
