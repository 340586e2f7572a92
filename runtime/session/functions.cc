// Puts the nodes of functions in place of their calls: see functions.h.
#include "runtime/session/functions.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"
#include "runtime/graph/frames.h"
#include "runtime/tensor/buffer.h"

namespace ferry {
namespace {

constexpr int64_t kMaxNodes = int64_t{1} << 18;
constexpr int64_t kMaxBytes = int64_t{1} << 31;  // As many as a GraphDef can have.
constexpr size_t kMaxDepth = 100;  // Of functions that call functions.

enum class CallKind { kNone, kCall, kIf, kCase, kWhile };

CallKind KindOf(const std::string& op) {
  if (op == "PartitionedCall" || op == "StatefulPartitionedCall") return CallKind::kCall;
  if (op == "If" || op == "StatelessIf") return CallKind::kIf;
  if (op == "Case" || op == "StatelessCase") return CallKind::kCase;
  if (op == "While" || op == "StatelessWhile") return CallKind::kWhile;
  return CallKind::kNone;
}

std::string Control(absl::string_view name) { return absl::StrCat("^", name); }

// The node that a tensor's name, or a control input, names.
std::string NodeOf(absl::string_view input) {
  absl::ConsumePrefix(&input, "^");
  return std::string(input.substr(0, input.find(':')));
}

bool IsControl(const std::string& input) { return absl::StartsWith(input, "^"); }

}  // namespace

bool MayCallFunctions(const Node* n) {
  return KindOf(n->op()) != CallKind::kNone ||
         (!n->info() && n->graph()->mutable_library()->function_size() > 0);
}

// One call of LoweredGraph::Add: works on GraphDefs, which are imported in the end. Names of
// tensors are those of the graph that is made ("node:1").
class FunctionLowering {
 public:
  FunctionLowering(Graph* from, Graph* to, LoweredGraph::Size* made)
      : from_(from), to_(to), made_(made) {
    for (const proto::FunctionDef& f : from->mutable_library()->function()) {
      functions_.try_emplace(f.signature().name(), &f);
    }
    *def_.mutable_versions() = to->versions();
  }

  proto::GraphDef* def() { return &def_; }
  bool Calls(const proto::NodeDef& n) const {
    return KindOf(n.op()) != CallKind::kNone || functions_.contains(n.op());
  }

  // A name that neither graph has.
  std::string Unique(const std::string& name) {
    std::string unique = name;
    while (!names_.insert(unique).second || to_->FindNode(unique) || from_->FindNode(unique)) {
      unique = absl::StrCat(name, "_", ++suffixes_[name]);
    }
    return unique;
  }
  // The name itself, for a node of the first graph, if the other doesn't have it.
  std::string Keep(const std::string& name) {
    return !to_->FindNode(name) && names_.insert(name).second ? name : Unique(name);
  }

  // Adds what `call` (its inputs are named as in the graph that is made) does, and a node of its
  // name that comes after all of it. *outputs: the tensors that its outputs become. `gate`: a
  // control input for nodes without inputs, which makes them part of the branch or loop that the
  // call is in, and for those with effects; "" for none. (The inputs of the others see to that.)
  absl::Status Lower(const proto::NodeDef& call, const std::string& gate,
                     std::vector<std::string>* outputs) {
    switch (KindOf(call.op())) {
      case CallKind::kIf:
        return LowerIf(call, outputs);
      case CallKind::kCase:
        return LowerCase(call, outputs);
      case CallKind::kWhile:
        return LowerWhile(call, outputs);
      case CallKind::kCall:
      case CallKind::kNone:
        return LowerCall(call, gate, outputs);
    }
    return absl::OkStatus();
  }

 private:
  using Attrs = google::protobuf::Map<std::string, proto::AttrValue>;

  absl::StatusOr<proto::NodeDef*> AddNode(const std::string& name, const std::string& op) {
    if (++made_->nodes > kMaxNodes) {
      return ResourceExhausted("node '", name,
                               "': the functions that are called come to more than ", kMaxNodes,
                               " nodes");
    }
    FERRY_RETURN_IF_ERROR(Grow(name, static_cast<int64_t>(name.size())));
    proto::NodeDef* n = def_.add_node();
    n->set_name(name);
    n->set_op(op);
    return n;
  }

  // Counts memory that the node takes.
  absl::Status Grow(const std::string& name, int64_t bytes) {
    made_->bytes += bytes;
    absl::Status fits = HostAllocator::Get()->CheckFits(static_cast<size_t>(made_->bytes));
    if (made_->bytes > kMaxBytes) {
      fits = ResourceExhausted("the limit is ", kMaxBytes);
    }
    if (fits.ok()) return fits;
    return Annotate(fits, absl::StrCat("node '", name, "': the functions that are called come to ",
                                       made_->bytes, " bytes"));
  }

  // A node with the type attribute T.
  absl::StatusOr<std::string> AddPassing(const std::string& name, const std::string& op,
                                         const proto::AttrValue& type,
                                         const std::vector<std::string>& inputs) {
    FERRY_ASSIGN_OR_RETURN(proto::NodeDef * n, AddNode(Unique(name), op));
    if (op != "NoOp" && op != "LoopCond") (*n->mutable_attr())["T"] = type;
    if (op == "Merge") {
      const auto data = absl::c_count_if(inputs, [](const auto& in) { return !IsControl(in); });
      (*n->mutable_attr())["N"] = MakeAttr(static_cast<int64_t>(data));
    }
    FERRY_RETURN_IF_ERROR(AddInputs(inputs, n));
    return n->name();
  }

  absl::Status AddInputs(const std::vector<std::string>& inputs, proto::NodeDef* n) {
    int64_t bytes = 0;
    for (const std::string& in : inputs) bytes += static_cast<int64_t>(sizeof(in) + in.size());
    FERRY_RETURN_IF_ERROR(Grow(n->name(), bytes));
    for (const std::string& in : inputs) n->add_input(in);
    return absl::OkStatus();
  }

  // The control inputs of what comes after all of `control`: one, so that values that do don't take
  // as many each.
  absl::StatusOr<std::vector<std::string>> Gather(const std::string& name,
                                                  const std::vector<std::string>& control) {
    if (control.size() < 2) return control;
    FERRY_ASSIGN_OR_RETURN(const std::string all, AddPassing(name, "NoOp", {}, control));
    return std::vector<std::string>{Control(all)};
  }

  static std::vector<std::string> DataOf(const proto::NodeDef& n) {
    std::vector<std::string> data;
    for (const std::string& in : n.input()) {
      if (!IsControl(in)) data.push_back(in);
    }
    return data;
  }
  static std::vector<std::string> ControlOf(const proto::NodeDef& n) {
    std::vector<std::string> control;
    for (const std::string& in : n.input()) {
      if (IsControl(in)) control.push_back(in);
    }
    return control;
  }

  static absl::StatusOr<proto::NameAttrList> FunctionAttr(const proto::NodeDef& call,
                                                          const std::string& name) {
    auto at = call.attr().find(name);
    if (at == call.attr().end() || at->second.value_case() != proto::AttrValue::kFunc) {
      return InvalidArgument("attribute '", name, "' must be a function");
    }
    return at->second.func();
  }

  static absl::StatusOr<std::vector<proto::AttrValue>> TypesAttr(const proto::NodeDef& call,
                                                                 const std::string& name) {
    FERRY_ASSIGN_OR_RETURN(const std::vector<DType> types,
                           GetAttr<std::vector<DType>>(call.attr(), name));
    std::vector<proto::AttrValue> out;
    for (DType t : types) out.push_back(MakeAttr(t));
    return out;
  }

  absl::Status CheckCount(absl::string_view what, size_t found, size_t wanted) const {
    if (found == wanted) return absl::OkStatus();
    return InvalidArgument(found, " ", what, ", ", wanted, " were expected");
  }

  // ---- A function's body ----

  struct Body {
    std::vector<std::string> results;  // Tensors.
    std::vector<std::string> control;  // Control inputs of what comes after its side effects.
  };

  // How many tensors an argument of a signature stands for.
  static absl::StatusOr<int64_t> Count(const proto::OpDef::ArgDef& arg, const Attrs& attrs) {
    if (!arg.number_attr().empty()) return GetAttr<int64_t>(attrs, arg.number_attr());
    if (arg.type_list_attr().empty()) return 1;
    FERRY_ASSIGN_OR_RETURN(const std::vector<DType> types,
                           GetAttr<std::vector<DType>>(attrs, arg.type_list_attr()));
    return static_cast<int64_t>(types.size());
  }

  // What there is to know of a function whatever it is called with.
  struct Function {
    const proto::FunctionDef* def = nullptr;
    absl::flat_hash_map<std::string, const proto::NodeDef*> by_name;
    std::set<std::string> effects;             // See Effects.
    // Those that results and effects need, sources first.
    std::vector<const proto::NodeDef*> order;
  };

  absl::StatusOr<const Function*> Examine(const proto::FunctionDef& f) {
    auto [known, fresh] = examined_.try_emplace(&f);
    if (fresh) {
      known->second.first = std::make_unique<Function>();
      known->second.second = Examine(f, known->second.first.get());
    }
    if (!known->second.second.ok()) return known->second.second;
    return known->second.first.get();
  }
  absl::Status Examine(const proto::FunctionDef& f, Function* function) const {
    function->def = &f;
    absl::flat_hash_set<std::string> arguments;
    for (const proto::OpDef::ArgDef& arg : f.signature().input_arg()) arguments.insert(arg.name());
    for (const proto::NodeDef& n : f.node_def()) {
      if (!function->by_name.try_emplace(n.name(), &n).second || arguments.contains(n.name())) {
        return InvalidArgument("the name '", n.name(), "' is there twice");
      }
    }
    function->effects = Effects(f);
    return OrderBody(arguments, function);
  }

  // Adds the function's nodes under `prefix`.
  absl::StatusOr<Body> Instantiate(const proto::NameAttrList& function, const std::string& prefix,
                                   const std::vector<std::string>& args, const std::string& gate) {
    const auto found = functions_.find(function.name());
    if (found == functions_.end()) {
      return InvalidArgument("function '", function.name(), "' is not in the graph's library");
    }
    if (absl::c_linear_search(active_, function.name())) {
      return InvalidArgument("function '", function.name(), "' calls itself: ",
                             absl::StrJoin(active_, " -> "), " -> ", function.name(),
                             ". Recursion is not supported");
    }
    if (active_.size() >= kMaxDepth) {
      return InvalidArgument("function '", function.name(), "': calls are nested deeper than ",
                             kMaxDepth);
    }
    active_.push_back(function.name());
    const absl::StatusOr<const Function*> examined = Examine(*found->second);
    absl::StatusOr<Body> body =
        examined.ok() ? InstantiateFound(**examined, function.attr(), prefix, args, gate)
                      : examined.status();
    active_.pop_back();
    if (!body.ok()) {
      return Annotate(body.status(), absl::StrCat("function '", function.name(), "'"));
    }
    return body;
  }

  // A node of the body: its new name, and where its outputs are.
  struct Part {
    const proto::NodeDef* node = nullptr;
    std::string name;
    std::vector<std::string> outputs;  // Of a call; of other nodes they are "name:i".
    std::map<std::string, std::pair<int, int>> ranges;  // By the output's name: start, count.
  };

  // Whether it matters when the node runs: it may read or write a variable, or print.
  static bool HasEffects(const proto::NodeDef& n) {
    const OpInfo* const info = FindOp(n.op());
    return info == nullptr || info->def.is_stateful() || KindOf(n.op()) != CallKind::kNone;
  }

  absl::StatusOr<Body> InstantiateFound(const Function& function, const Attrs& attrs,
                                        const std::string& prefix,
                                        const std::vector<std::string>& args,
                                        const std::string& gate) {
    const proto::FunctionDef& f = *function.def;
    // What its arguments' names mean.
    std::map<std::string, std::vector<std::string>> arguments;
    size_t at = 0;
    for (const proto::OpDef::ArgDef& arg : f.signature().input_arg()) {
      FERRY_ASSIGN_OR_RETURN(const int64_t count, Count(arg, attrs));
      if (count < 0 || static_cast<size_t>(count) > args.size() - at) {
        return InvalidArgument("it is called with ", args.size(), " arguments, more were expected");
      }
      arguments[arg.name()].assign(args.begin() + static_cast<std::ptrdiff_t>(at),
                                   args.begin() + static_cast<std::ptrdiff_t>(at) +
                                       static_cast<std::ptrdiff_t>(count));
      at += static_cast<size_t>(count);
    }
    FERRY_RETURN_IF_ERROR(CheckCount("arguments", args.size(), at));

    absl::flat_hash_map<std::string, Part> parts;
    const auto resolve = [&](const std::string& input) -> absl::StatusOr<std::vector<std::string>> {
      const std::vector<std::string> words = absl::StrSplit(input, ':');
      if (auto arg = arguments.find(words[0]); arg != arguments.end()) {
        if (words.size() == 1) return arg->second;
        size_t index;
        if (words.size() == 2 && absl::SimpleAtoi(words[1], &index) && index < arg->second.size()) {
          return std::vector<std::string>{arg->second[index]};
        }
        return InvalidArgument("'", input, "' is no argument");
      }
      auto it = parts.find(words[0]);
      if (it == parts.end()) return InvalidArgument("'", input, "' is no tensor in it");
      const Part& part = it->second;
      // "node", "node:index", "node:output" (all of a list), "node:output:index".
      int start = 0, count = 1, index = -1;
      const auto range = words.size() > 1 ? part.ranges.find(words[1]) : part.ranges.end();
      const bool named = range != part.ranges.end();
      if (named) std::tie(start, count) = range->second;
      const size_t names = named ? 2 : 1;
      if (words.size() > names && (!absl::SimpleAtoi(words[names], &index) || index < 0)) {
        index = -2;
      }
      if (words.size() > names + 1 || index < -1 || (named && index >= count)) {
        return InvalidArgument("'", input, "' is no output of its node '", words[0], "'");
      }
      if (index >= 0) start += index, count = 1;
      std::vector<std::string> out;
      for (int i = start; i < start + count; ++i) {
        if (!Calls(*part.node)) {
          out.push_back(absl::StrCat(part.name, ":", i));
        } else if (static_cast<size_t>(i) < part.outputs.size()) {
          out.push_back(part.outputs[static_cast<size_t>(i)]);
        } else {
          return InvalidArgument("'", input, "' is no output of its node '", words[0], "'");
        }
      }
      return out;
    };

    for (const proto::NodeDef* n : function.order) {
      Part part;
      part.node = n;
      part.name = Unique(absl::StrCat(prefix, "/", n->name()));
      FERRY_RETURN_IF_ERROR(Grow(part.name, static_cast<int64_t>(n->ByteSizeLong())));
      proto::NodeDef node = *n;
      node.set_name(part.name);
      for (auto& [name, value] : *node.mutable_attr()) {
        if (value.value_case() != proto::AttrValue::kPlaceholder) continue;
        auto given = attrs.find(value.placeholder());
        if (given == attrs.end()) {
          return InvalidArgument("node '", n->name(), "': the attribute '", value.placeholder(),
                                 "' of the function isn't given");
        }
        FERRY_RETURN_IF_ERROR(
            Grow(part.name, static_cast<int64_t>(given->second.ByteSizeLong())));
        const proto::AttrValue copy = given->second;
        value = copy;
      }
      node.mutable_attr()->erase("_class");  // Names nodes of the body.
      node.clear_input();
      std::vector<std::string> control;
      for (const std::string& in : n->input()) {
        if (IsControl(in)) {
          // An argument is there before the body begins.
          if (auto part = parts.find(NodeOf(in)); part != parts.end()) {
            control.push_back(Control(part->second.name));
          }
          continue;
        }
        absl::StatusOr<std::vector<std::string>> tensors = resolve(in);
        if (!tensors.ok()) {
          return Annotate(tensors.status(), absl::StrCat("node '", n->name(), "'"));
        }
        FERRY_RETURN_IF_ERROR(AddInputs(*tensors, &node));
      }
      FERRY_RETURN_IF_ERROR(AddInputs(control, &node));
      if (!gate.empty() && (node.input_size() == 0 || HasEffects(*n))) node.add_input(gate);
      FERRY_RETURN_IF_ERROR(FindRanges(node, &part));
      if (Calls(node)) {
        absl::Status status = Lower(node, gate, &part.outputs);
        if (!status.ok()) return Annotate(status, absl::StrCat("node '", n->name(), "'"));
      } else {
        FERRY_ASSIGN_OR_RETURN(proto::NodeDef * added, AddNode(part.name, node.op()));
        *added = std::move(node);
      }
      parts.emplace(n->name(), std::move(part));
    }

    Body body;
    for (const proto::OpDef::ArgDef& arg : f.signature().output_arg()) {
      auto ret = f.ret().find(arg.name());
      if (ret == f.ret().end()) return InvalidArgument("it gives no result '", arg.name(), "'");
      FERRY_ASSIGN_OR_RETURN(std::vector<std::string> tensors, resolve(ret->second));
      for (std::string& t : tensors) body.results.push_back(std::move(t));
    }
    for (const std::string& node : function.effects) {
      auto part = parts.find(node);
      if (part != parts.end()) body.control.push_back(Control(part->second.name));
    }
    FERRY_ASSIGN_OR_RETURN(body.control, Gather(prefix + "/effects", body.control));
    return body;
  }

  // Where the outputs of each name are among the node's.
  absl::Status FindRanges(const proto::NodeDef& node, Part* part) const {
    proto::OpDef signature;
    AttrMap attrs = node.attr();
    if (auto f = functions_.find(node.op()); f != functions_.end()) {
      signature = f->second->signature();
    } else if (const OpInfo* info = FindOp(node.op())) {
      signature = info->def;
      absl::Status complete = CompleteAttrs(info->def, &attrs);
      if (!complete.ok()) return Annotate(complete, absl::StrCat("node '", node.name(), "'"));
    } else {
      return Unimplemented("node '", node.name(), "': op type not registered '", node.op(), "'");
    }
    FERRY_ASSIGN_OR_RETURN(const auto ranges, ArgRanges(signature.output_arg(), attrs));
    for (int i = 0; i < signature.output_arg_size(); ++i) {
      part->ranges[signature.output_arg(i).name()] = ranges[static_cast<size_t>(i)];
    }
    return absl::OkStatus();
  }

  // The nodes that run whatever the results need, by name: those that the function names, and those
  // with a state.
  std::set<std::string> Effects(const proto::FunctionDef& f) const {
    std::set<std::string> nodes;
    for (const auto& [name, node] : f.control_ret()) nodes.insert(node);
    for (const proto::NodeDef& n : f.node_def()) {
      const OpInfo* info = FindOp(n.op());
      auto function = functions_.find(n.op());
      if (info ? info->def.is_stateful()
               : function != functions_.end() && function->second->signature().is_stateful()) {
        nodes.insert(n.name());
      }
    }
    return nodes;
  }

  absl::Status OrderBody(const absl::flat_hash_set<std::string>& arguments,
                         Function* function) const {
    enum class State { kOpen, kDone };
    absl::flat_hash_map<const proto::NodeDef*, State> states;
    std::vector<std::pair<const proto::NodeDef*, int>> stack;
    std::set<std::string> missing;
    const auto visit = [&](const std::string& input) -> absl::Status {
      const std::string name = NodeOf(input);
      if (arguments.contains(name)) return absl::OkStatus();
      auto it = function->by_name.find(name);
      if (it == function->by_name.end()) {
        return InvalidArgument("there is no '", input, "' in it");
      }
      auto [state, fresh] = states.try_emplace(it->second, State::kOpen);
      if (fresh) {
        stack.emplace_back(it->second, 0);
        if (!Calls(*it->second) && !FindOp(it->second->op())) missing.insert(it->second->op());
      } else if (state->second == State::kOpen) {
        return InvalidArgument("it has a cycle through its node '", name, "'");
      }
      return absl::OkStatus();
    };
    const auto drain = [&]() -> absl::Status {
      while (!stack.empty()) {
        auto& [n, next] = stack.back();
        if (next < n->input_size()) {
          const std::string& input = n->input(next++);
          FERRY_RETURN_IF_ERROR(visit(input));
        } else {
          states[n] = State::kDone;
          function->order.push_back(n);
          stack.pop_back();
        }
      }
      return absl::OkStatus();
    };
    std::vector<std::string> roots;
    for (const auto& [name, tensor] : function->def->ret()) roots.push_back(tensor);
    roots.insert(roots.end(), function->effects.begin(), function->effects.end());
    std::sort(roots.begin(), roots.end());
    for (const std::string& root : roots) {
      FERRY_RETURN_IF_ERROR(visit(root));
      FERRY_RETURN_IF_ERROR(drain());
    }
    if (missing.empty()) return absl::OkStatus();
    return Unimplemented("op type", missing.size() > 1 ? "s" : "", " not registered '",
                         absl::StrJoin(missing, "', '"), "'");
  }

  // ---- Calls ----

  absl::Status LowerCall(const proto::NodeDef& call, std::string gate,
                         std::vector<std::string>* outputs) {
    proto::NameAttrList function;
    if (KindOf(call.op()) == CallKind::kCall) {
      FERRY_ASSIGN_OR_RETURN(function, FunctionAttr(call, "f"));
    } else {
      function.set_name(call.op());
      *function.mutable_attr() = call.attr();
    }
    const std::vector<std::string> args = DataOf(call);
    std::vector<std::string> before = Before(call);
    if (!before.empty()) {
      if (!gate.empty() && !absl::c_linear_search(before, gate)) before.push_back(gate);
      FERRY_ASSIGN_OR_RETURN(const std::string begin,
                             AddPassing(absl::StrCat(call.name(), "/begin"), "NoOp", {}, before));
      gate = Control(begin);
    }
    FERRY_ASSIGN_OR_RETURN(const Body body, Instantiate(function, call.name(), args, gate));
    std::vector<proto::AttrValue> types;
    if (KindOf(call.op()) == CallKind::kCall) {
      FERRY_ASSIGN_OR_RETURN(types, TypesAttr(call, "Tout"));
      FERRY_RETURN_IF_ERROR(CheckCount("results", body.results.size(), types.size()));
    }
    std::vector<std::string> after = body.control;
    if (!gate.empty()) after.push_back(gate);
    for (size_t i = 0; i < body.results.size(); ++i) {
      std::string result = body.results[i];
      // A result is there when the side effects are.
      if (!body.control.empty() && !types.empty()) {
        std::vector<std::string> inputs = {result};
        inputs.insert(inputs.end(), body.control.begin(), body.control.end());
        FERRY_ASSIGN_OR_RETURN(
            result, AddPassing(absl::StrCat(call.name(), "/result"), "Identity", types[i], inputs));
        result += ":0";
      }
      after.push_back(Control(NodeOf(result)));
      outputs->push_back(std::move(result));
    }
    return Finish(call, after);
  }

  // What a call waits for as a whole: all that goes into it. What has an effect in it waits for
  // that even where it takes none of it, and so does what takes nothing.
  static std::vector<std::string> Before(const proto::NodeDef& call) {
    std::vector<std::string> before = ControlOf(call);
    std::set<std::string> seen(before.begin(), before.end());
    for (const std::string& in : DataOf(call)) {
      std::string control = Control(NodeOf(in));
      if (seen.insert(control).second) before.push_back(std::move(control));
    }
    return before;
  }

  // The node of the call's own name.
  absl::Status Finish(const proto::NodeDef& call, std::vector<std::string> after) {
    std::sort(after.begin(), after.end());
    after.erase(std::unique(after.begin(), after.end()), after.end());
    FERRY_ASSIGN_OR_RETURN(proto::NodeDef * n, AddNode(call.name(), "NoOp"));
    return AddInputs(after, n);
  }

  // The condition as a bool.
  absl::StatusOr<std::string> AsBool(const std::string& name, const std::string& tensor,
                                     DType type) {
    if (type == DType::kBool) return tensor;
    FERRY_ASSIGN_OR_RETURN(const std::string node,
                           AddPassing(name, "ToBool", MakeAttr(type), {tensor}));
    return node + ":0";
  }

  // One of the functions that an If or a Case chooses among: what its arguments are when it is
  // taken, and the tensor that is alive then.
  struct Branch {
    proto::NameAttrList function;
    std::string name;
    std::vector<std::string> args;
    std::string alive;
  };

  // The branch for which the outputs `side` of the Switches are alive.
  absl::StatusOr<Branch> MakeBranch(const proto::NodeDef& call, const proto::NameAttrList& function,
                                    const std::string& name,
                                    const std::vector<std::string>& switches,
                                    const std::string& decided, int side) {
    Branch b;
    b.function = function;
    b.name = absl::StrCat(call.name(), "/", name);
    for (const std::string& s : switches) b.args.push_back(absl::StrCat(s, ":", side));
    FERRY_ASSIGN_OR_RETURN(b.alive, AddPassing(b.name, "Identity", MakeAttr(DType::kBool),
                                               {absl::StrCat(decided, ":", side)}));
    return b;
  }

  // Switches of all arguments, and of the condition itself, by `pred`.
  absl::Status MakeSwitches(const proto::NodeDef& call, const std::string& pred,
                            const std::vector<std::string>& args,
                            const std::vector<proto::AttrValue>& types,
                            std::vector<std::string>* switches, std::string* decided) {
    std::vector<std::string> decision = {pred, pred};
    for (std::string& c : Before(call)) decision.push_back(std::move(c));
    FERRY_ASSIGN_OR_RETURN(*decided, AddPassing(call.name() + "/decision", "Switch",
                                                MakeAttr(DType::kBool), decision));
    for (size_t i = 0; i < args.size(); ++i) {
      FERRY_ASSIGN_OR_RETURN(
          std::string s, AddPassing(call.name() + "/Switch", "Switch", types[i], {args[i], pred}));
      switches->push_back(std::move(s));
    }
    return absl::OkStatus();
  }

  absl::Status LowerIf(const proto::NodeDef& call, std::vector<std::string>* outputs) {
    FERRY_ASSIGN_OR_RETURN(const DType cond_type, GetAttr<DType>(call.attr(), "Tcond"));
    FERRY_ASSIGN_OR_RETURN(const auto types, TypesAttr(call, "Tin"));
    std::vector<std::string> args = DataOf(call);
    FERRY_RETURN_IF_ERROR(CheckCount("inputs", args.size(), types.size() + 1));
    FERRY_ASSIGN_OR_RETURN(const std::string pred,
                           AsBool(call.name() + "/condition", args[0], cond_type));
    args.erase(args.begin());
    std::vector<std::string> switches;
    std::string decided;
    FERRY_RETURN_IF_ERROR(MakeSwitches(call, pred, args, types, &switches, &decided));
    std::vector<Branch> branches;
    for (const int side : {0, 1}) {
      const std::string name = side == 1 ? "then" : "else";
      FERRY_ASSIGN_OR_RETURN(const proto::NameAttrList function,
                             FunctionAttr(call, name + "_branch"));
      FERRY_ASSIGN_OR_RETURN(Branch branch,
                             MakeBranch(call, function, name, switches, decided, side));
      branches.push_back(std::move(branch));
    }
    return LowerBranches(call, branches, outputs);
  }

  // An index beyond the branches chooses the last.
  absl::Status LowerCase(const proto::NodeDef& call, std::vector<std::string>* outputs) {
    FERRY_ASSIGN_OR_RETURN(const auto types, TypesAttr(call, "Tin"));
    auto functions = call.attr().find("branches");
    if (functions == call.attr().end() || functions->second.list().func_size() == 0) {
      return InvalidArgument("attribute 'branches' must be a list of functions");
    }
    std::vector<std::string> args = DataOf(call);
    FERRY_RETURN_IF_ERROR(CheckCount("inputs", args.size(), types.size() + 1));
    const std::string index = args[0];
    args.erase(args.begin());
    const std::string& name = call.name();
    const proto::AttrValue int32 = MakeAttr(DType::kInt32);
    const int n = functions->second.list().func_size();
    std::string any;  // Whether one of those so far is taken.
    std::vector<Branch> branches;
    for (int k = 0; k < n; ++k) {
      std::string taken;
      if (k + 1 < n || n == 1) {
        FERRY_ASSIGN_OR_RETURN(proto::NodeDef * number, AddNode(Unique(name + "/number"), "Const"));
        (*number->mutable_attr())["dtype"] = int32;
        (*number->mutable_attr())["value"] = MakeAttr(Tensor::Scalar<int32_t>(k));
        number->add_input(Control(NodeOf(index)));
        const std::string with = n == 1 ? index : number->name() + ":0";
        FERRY_ASSIGN_OR_RETURN(taken, AddPassing(name + "/taken", "Equal", int32, {index, with}));
        taken += ":0";
        if (any.empty()) {
          any = taken;
        } else {
          FERRY_ASSIGN_OR_RETURN(any, AddLogical(name + "/any", "LogicalOr", {any, taken}));
        }
      } else {
        FERRY_ASSIGN_OR_RETURN(taken, AddLogical(name + "/taken", "LogicalNot", {any}));
      }
      std::vector<std::string> switches;
      std::string decided;
      FERRY_RETURN_IF_ERROR(MakeSwitches(call, taken, args, types, &switches, &decided));
      FERRY_ASSIGN_OR_RETURN(Branch branch,
                             MakeBranch(call, functions->second.list().func(k),
                                        absl::StrCat("branch", k), switches, decided, 1));
      branches.push_back(std::move(branch));
    }
    return LowerBranches(call, branches, outputs);
  }

  absl::StatusOr<std::string> AddLogical(const std::string& name, const std::string& op,
                                         const std::vector<std::string>& inputs) {
    FERRY_ASSIGN_OR_RETURN(proto::NodeDef * n, AddNode(Unique(name), op));
    FERRY_RETURN_IF_ERROR(AddInputs(inputs, n));
    return n->name() + ":0";
  }

  absl::Status LowerBranches(const proto::NodeDef& call, const std::vector<Branch>& branches,
                             std::vector<std::string>* outputs) {
    FERRY_ASSIGN_OR_RETURN(const auto types, TypesAttr(call, "Tout"));
    const std::string& name = call.name();
    const proto::AttrValue boolean = MakeAttr(DType::kBool);
    std::vector<std::string> ends;
    std::vector<std::vector<std::string>> results(types.size());
    bool effects = false;
    for (const Branch& b : branches) {
      FERRY_ASSIGN_OR_RETURN(const Body body,
                             Instantiate(b.function, b.name, b.args, Control(b.alive)));
      FERRY_RETURN_IF_ERROR(CheckCount(absl::StrCat("results of '", b.function.name(), "'"),
                                       body.results.size(), types.size()));
      for (size_t i = 0; i < types.size(); ++i) results[i].push_back(body.results[i]);
      effects = effects || !body.control.empty();
      std::vector<std::string> end = {b.alive + ":0"};
      end.insert(end.end(), body.control.begin(), body.control.end());
      FERRY_ASSIGN_OR_RETURN(std::string ended,
                             AddPassing(b.name + "_end", "Identity", boolean, end));
      ends.push_back(ended + ":0");
    }
    FERRY_ASSIGN_OR_RETURN(const std::string end,
                           AddPassing(name + "/end", "Merge", boolean, ends));
    std::vector<std::string> after = {Control(end)};
    for (size_t i = 0; i < types.size(); ++i) {
      FERRY_ASSIGN_OR_RETURN(std::string merged,
                             AddPassing(name + "/Merge", "Merge", types[i], results[i]));
      if (effects) {
        FERRY_ASSIGN_OR_RETURN(merged, AddPassing(name + "/result", "Identity", types[i],
                                                  {merged + ":0", Control(end)}));
      }
      outputs->push_back(merged + ":0");
      after.push_back(Control(merged));
    }
    return Finish(call, after);
  }

  absl::Status LowerWhile(const proto::NodeDef& call, std::vector<std::string>* outputs) {
    FERRY_ASSIGN_OR_RETURN(auto types, TypesAttr(call, "T"));
    std::vector<std::string> args = DataOf(call);
    FERRY_RETURN_IF_ERROR(CheckCount("inputs", args.size(), types.size()));
    FERRY_ASSIGN_OR_RETURN(const proto::NameAttrList cond, FunctionAttr(call, "cond"));
    FERRY_ASSIGN_OR_RETURN(const proto::NameAttrList body, FunctionAttr(call, "body"));
    const std::string& name = call.name();
    const std::vector<std::string> before = ControlOf(call);
    if (args.empty()) return Unimplemented("a loop without values is not supported");
    // What the body passes on unchanged needs no loop variable; one there has to be.
    const std::vector<bool> invariant = Invariants(body, args.size());
    const auto enter = [&](size_t i, bool constant) -> absl::StatusOr<std::string> {
      std::vector<std::string> inputs = {args[i]};
      inputs.insert(inputs.end(), before.begin(), before.end());
      FERRY_ASSIGN_OR_RETURN(std::string n,
                             AddPassing(name + "/Enter", "Enter", types[i], inputs));
      Attrs& attrs = *def_.mutable_node(def_.node_size() - 1)->mutable_attr();
      attrs["frame_name"] = MakeAttr(name);
      attrs["is_constant"] = MakeAttr(constant);
      return n;
    };
    // The Merges' second inputs are put in when they are there.
    std::vector<std::string> in_cond(args.size()), in_body(args.size());
    std::vector<std::pair<size_t, int>> merges;  // Argument, position in def_.
    std::string first;
    for (size_t i = 0; i < args.size(); ++i) {
      FERRY_ASSIGN_OR_RETURN(const std::string entered, enter(i, invariant[i]));
      if (invariant[i]) {
        in_cond[i] = in_body[i] = entered + ":0";
        continue;
      }
      FERRY_ASSIGN_OR_RETURN(const std::string merge,
                             AddPassing(name + "/Merge", "Merge", types[i],
                                        {entered + ":0", entered + ":0"}));
      merges.emplace_back(i, def_.node_size() - 1);
      in_cond[i] = merge + ":0";
      if (first.empty()) first = merge;
    }
    FERRY_ASSIGN_OR_RETURN(const Body condition,
                           Instantiate(cond, name + "/cond", in_cond, Control(first)));
    FERRY_RETURN_IF_ERROR(
        CheckCount(absl::StrCat("results of '", cond.name(), "'"), condition.results.size(), 1));
    FERRY_ASSIGN_OR_RETURN(const DType cond_type, ResultType(cond));
    FERRY_ASSIGN_OR_RETURN(
        const std::string decided,
        AsBool(name + "/condition", condition.results[0], cond_type));
    std::vector<std::string> loop_cond = {decided};
    loop_cond.insert(loop_cond.end(), condition.control.begin(), condition.control.end());
    FERRY_ASSIGN_OR_RETURN(const std::string pred,
                           AddPassing(name + "/LoopCond", "LoopCond", {}, loop_cond));
    std::vector<std::string> switches(args.size());
    for (const auto& [i, at] : merges) {
      FERRY_ASSIGN_OR_RETURN(switches[i], AddPassing(name + "/Switch", "Switch", types[i],
                                                     {in_cond[i], pred + ":0"}));
      in_body[i] = switches[i] + ":1";
    }
    FERRY_ASSIGN_OR_RETURN(const std::string pivot,
                           AddPassing(name + "/pivot", "Identity", types[merges[0].first],
                                      {in_body[merges[0].first]}));
    FERRY_ASSIGN_OR_RETURN(const Body repeated,
                           Instantiate(body, name + "/body", in_body, Control(pivot)));
    FERRY_RETURN_IF_ERROR(CheckCount(absl::StrCat("results of '", body.name(), "'"),
                                     repeated.results.size(), types.size()));
    std::vector<std::string> after;
    for (const auto& [i, at] : merges) {
      std::vector<std::string> next = {repeated.results[i]};
      next.insert(next.end(), repeated.control.begin(), repeated.control.end());
      FERRY_ASSIGN_OR_RETURN(const std::string n,
                             AddPassing(name + "/NextIteration", "NextIteration", types[i], next));
      def_.mutable_node(at)->set_input(1, n + ":0");
    }
    for (size_t i = 0; i < args.size(); ++i) {
      // What doesn't change comes after the loop all the same, which may have side effects.
      std::vector<std::string> inputs = {invariant[i] ? args[i] : switches[i] + ":0"};
      if (invariant[i]) inputs.push_back(after.empty() ? Control(name) : after[0]);
      FERRY_ASSIGN_OR_RETURN(
          const std::string result,
          AddPassing(name + (invariant[i] ? "/result" : "/Exit"),
                     invariant[i] ? "Identity" : "Exit", types[i], inputs));
      if (!invariant[i]) after.push_back(Control(result));
      outputs->push_back(result + ":0");
    }
    return Finish(call, after);
  }

  // By argument of a loop's body: whether the body gives it back as it is. The first that is asked
  // for stays a variable if all are.
  std::vector<bool> Invariants(const proto::NameAttrList& body, size_t n) {
    std::vector<bool> same(n, false);
    auto found = functions_.find(body.name());
    if (found == functions_.end()) return same;
    const proto::FunctionDef& f = *found->second;
    const auto& in = f.signature().input_arg();
    const auto& out = f.signature().output_arg();
    if (static_cast<size_t>(in.size()) != n || static_cast<size_t>(out.size()) != n) return same;
    const absl::StatusOr<const Function*> examined = Examine(f);
    if (!examined.ok()) return same;  // As Instantiate will say.
    const auto& by_name = (*examined)->by_name;
    for (int i = 0; i < in.size(); ++i) {
      auto ret = f.ret().find(out[i].name());
      if (ret == f.ret().end()) continue;
      std::string at = ret->second;
      // Through a few Identities.
      for (int hop = 0; hop < 16 && NodeOf(at) != in[i].name(); ++hop) {
        auto node = by_name.find(NodeOf(at));
        if (node == by_name.end() || node->second->op() != "Identity" ||
            node->second->input_size() != 1) {
          break;
        }
        at = node->second->input(0);
      }
      same[static_cast<size_t>(i)] = NodeOf(at) == in[i].name();
    }
    if (absl::c_all_of(same, [](bool s) { return s; }) && n > 0) same[0] = false;
    return same;
  }

  absl::StatusOr<DType> ResultType(const proto::NameAttrList& function) const {
    const proto::OpDef& s = functions_.at(function.name())->signature();
    const proto::OpDef::ArgDef& out = s.output_arg(0);
    if (!out.type_attr().empty()) return GetAttr<DType>(function.attr(), out.type_attr());
    return static_cast<DType>(out.type());
  }

  const Graph* const from_;
  const Graph* const to_;
  LoweredGraph::Size* const made_;
  absl::flat_hash_map<std::string, const proto::FunctionDef*> functions_;
  absl::flat_hash_map<const proto::FunctionDef*,
                      std::pair<std::unique_ptr<Function>, absl::Status>> examined_;
  absl::flat_hash_set<std::string> names_;
  absl::flat_hash_map<std::string, int> suffixes_;
  std::vector<std::string> active_;  // Functions whose bodies are being added.
  proto::GraphDef def_;
};

// Adds what `root` needs and isn't there yet.
absl::Status LoweredGraph::Add(const Node* root) {
  std::vector<const Node*> fresh;
  std::vector<const Node*> stack;
  absl::flat_hash_set<const Node*> seen;
  const auto need = [&](const Node* n) {
    if (!nodes_.contains(n) && seen.insert(n).second) stack.push_back(n);
  };
  need(root);
  while (!stack.empty()) {
    const Node* n = stack.back();
    stack.pop_back();
    fresh.push_back(n);
    for (const Output& in : n->inputs()) need(in.node);
    for (const Node* c : n->control_inputs()) need(c);
  }
  if (fresh.empty()) return absl::OkStatus();
  std::sort(fresh.begin(), fresh.end(), [](auto* a, auto* b) { return a->id() < b->id(); });

  FunctionLowering lowering(from_, &graph_, &made_);
  absl::flat_hash_map<const Node*, std::string> names;
  for (const Node* n : fresh) {
    names[n] = lowering.Keep(n->name());
  }
  // What stands for an output: in this addition by name, otherwise in the graph.
  absl::flat_hash_map<const Node*, std::vector<std::string>> outputs;
  absl::flat_hash_set<const Node*> pending(fresh.begin(), fresh.end());
  const auto name_of = [&](const Output& o) -> std::string {
    if (pending.contains(o.node)) {
      auto call = outputs.find(o.node);
      if (call == outputs.end()) return absl::StrCat(names.at(o.node), ":", o.index);
      return static_cast<size_t>(o.index) < call->second.size()
                 ? call->second[static_cast<size_t>(o.index)]
                 : absl::StrCat(names.at(o.node), ":", o.index);
    }
    auto call = outputs_.find(o.node);
    const Output there = call != outputs_.end() &&
                                 static_cast<size_t>(o.index) < call->second.size()
                             ? call->second[static_cast<size_t>(o.index)]
                             : Output(nodes_.at(o.node), o.index);
    return there.name();
  };
  // A NextIteration comes after the Merge that takes it; calls never do.
  for (const Node* n : fresh) {
    proto::NodeDef def;
    n->ToNodeDef(&def);
    def.set_name(names.at(n));
    def.clear_input();
    for (const Output& in : n->inputs()) def.add_input(name_of(in));
    for (const Node* c : n->control_inputs()) {
      def.add_input(Control(pending.contains(c) ? names.at(c) : nodes_.at(c)->name()));
    }
    // Colocation with a node that isn't copied now is left out.
    auto colocated = def.mutable_attr()->find("_class");
    if (colocated != def.mutable_attr()->end()) {
      proto::AttrValue kept;
      for (const std::string& entry : colocated->second.list().s()) {
        absl::string_view other = entry;
        const Node* with = absl::ConsumePrefix(&other, "loc:@") ? from_->FindNode(other) : nullptr;
        if (with && pending.contains(with)) {
          kept.mutable_list()->add_s(absl::StrCat("loc:@", names.at(with)));
        }
      }
      if (kept.list().s_size() > 0) {
        colocated->second = std::move(kept);
      } else {
        def.mutable_attr()->erase("_class");
      }
    }
    if (!lowering.Calls(def)) {
      *lowering.def()->add_node() = std::move(def);
      continue;
    }
    const int before = lowering.def()->node_size();
    std::vector<std::string> made;
    const absl::Status status = lowering.Lower(def, "", &made);
    if (status.ok()) {
      outputs[n] = std::move(made);
      continue;
    }
    const absl::Status described = Annotate(status, Describe(n));
    if (!absl::IsUnimplemented(status)) return described;
    // It stays a call, which is an error only in plans that need it.
    lowering.def()->mutable_node()->DeleteSubrange(before,
                                                   lowering.def()->node_size() - before);
    why_not_[n] = described;
    *lowering.def()->add_node() = std::move(def);
  }
  // What is there already comes in by its name.
  ImportOptions options;
  absl::flat_hash_set<std::string> own;
  for (const proto::NodeDef& n : lowering.def()->node()) own.insert(n.name());
  for (const proto::NodeDef& n : lowering.def()->node()) {
    for (const std::string& in : n.input()) {
      FERRY_ASSIGN_OR_RETURN(const auto parsed, ParseTensorName(in));
      if (own.contains(parsed.first)) continue;
      if (Node* there = graph_.FindNode(parsed.first)) {
        const std::string key = parsed.second < 0
                                    ? Control(parsed.first)
                                    : absl::StrCat(parsed.first, ":", parsed.second);
        options.input_map[key] = Output(there, std::max(parsed.second, 0));
      }
    }
  }
  ImportResults results;
  FERRY_RETURN_IF_ERROR(ImportGraphDef(options, *lowering.def(), &graph_, &results));
  for (const Node* n : fresh) {
    Node* const made = results.nodes.at(names.at(n));
    nodes_[n] = made;
    if (const absl::Status why = WhyNot(n); !why.ok()) why_not_[made] = why;
    auto call = outputs.find(n);
    if (call == outputs.end()) continue;
    std::vector<Output>& there = outputs_[n];
    for (const std::string& tensor : call->second) {
      FERRY_ASSIGN_OR_RETURN(const Output o, graph_.FindOutput(tensor));
      there.push_back(o);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Output> LoweredGraph::Find(const Output& o) {
  FERRY_RETURN_IF_ERROR(Add(o.node));
  auto call = outputs_.find(o.node);
  if (call != outputs_.end()) {
    if (static_cast<size_t>(o.index) < call->second.size()) {
      return call->second[static_cast<size_t>(o.index)];
    }
    return InvalidArgument("'", o.name(), "' is no output of the call");
  }
  Node* const made = nodes_.at(o.node);
  if (o.index < made->num_outputs()) return Output(made, o.index);
  // A call that stayed one: of its outputs those are known here that nodes take.
  FERRY_RETURN_IF_ERROR(WhyNot(o.node));
  return InvalidArgument("'", o.name(), "' is no output of node '", made->name(), "'");
}

absl::StatusOr<Node*> LoweredGraph::Find(Node* n) {
  FERRY_RETURN_IF_ERROR(Add(n));
  return nodes_.at(n);
}

absl::Status LoweredGraph::WhyNot(const Node* n) const {
  auto it = why_not_.find(n);
  return it == why_not_.end() ? absl::OkStatus() : it->second;
}

}  // namespace ferry
