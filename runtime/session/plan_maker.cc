// Makes plans: see plan.h. A loop (frames.h) is a unit of the plan around it, which its first Enter
// stands for; its own plan is made by a PlanMaker of its own, in which Merges, Enters, Switches by
// the loop's condition and NextIterations are units without a step: names for slots.
//
// What is planned is the graph as the Rewiring says; then constants' results are computed once, and
// trees of element-wise nodes become units of their own, which their last node stands for
// (fusion.h).
#include <algorithm>
#include <limits>
#include <queue>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "runtime/base/status.h"
#include "runtime/graph/frames.h"
#include "runtime/session/fusion.h"
#include "runtime/session/plan.h"
#include "runtime/session/rewiring.h"

namespace ferry {
namespace {

// Whether the node changes a variable: it takes a reference or a handle, and isn't one of those
// that only look at it or pass it on.
bool WritesVariable(const Node* n) {
  const std::string& op = n->op();
  if (absl::StartsWith(op, "Ref") || op == "IsVariableInitialized") return false;
  for (DType t : n->input_types()) {
    if (IsRef(t)) return true;
    if (t == DType::kResource) {
      return absl::StartsWith(op, "Assign") || op == "DestroyResourceOp" ||
             (absl::StartsWith(op, "Resource") && !absl::StartsWith(op, "ResourceGather"));
    }
  }
  return false;
}

bool IsVariable(const Node* n) {
  return n->op() == "VariableV2" || n->op() == "Variable" || n->op() == "VarHandleOp";
}

// How many nodes that pass a value on are followed to where it comes from: beyond, it is not known.
constexpr int kMostFollowed = 100;

// The node that made `o`, a handle or a reference, as far as it can be told.
const Node* MakerOfHandle(Output o) {
  for (int i = 0; i < kMostFollowed && !IsVariable(o.node) && o.node->num_inputs() > 0 &&
                  HoldsVariable(o.node->input_type(0)) && !IsMerge(o.node);
       ++i) {
    o = o.node->input(0);
  }
  return o.node;
}

// The name of the variable that `o`, a handle or a reference, stands for; "" if it can't be told.
std::string NameOfVariable(Output o) {
  const Node* maker = MakerOfHandle(o);
  return IsVariable(maker) ? StoredName(maker->attrs(), maker->name()).value_or("") : "";
}

// Whether output values of `n` may lie in the memory of its input i.
bool PassesOn(const Node* n, int i) {
  return (IsSwitch(n) && i == 0) || IsMerge(n) || (n->info() && n->info()->aliases_input == i);
}

// Whether the node only passes a handle on, as the Switch of a conditional does, or takes handles
// of other things than variables: stacks and TensorArrays.
bool PassesHandle(const Node* n) {
  return (n->num_outputs() > 0 && n->output_type(0) == DType::kResource) ||
         absl::StartsWith(n->op(), "Stack") || absl::StartsWith(n->op(), "TensorArray");
}

// Whether the output may be a value that was put away earlier, a constant even.
bool GivesHeldValue(const Node* n, size_t output) {
  const std::string& op = n->op();
  return op == "TensorArrayReadV3" || op == "StackPopV2" || op == "TensorListGetItem" ||
         op == "OptionalGetValue" || (op == "TensorListPopBack" && output == 1);
}

// Gives values that were known when the plan was made.
class KnownValues : public Kernel {
 public:
  explicit KnownValues(std::vector<Tensor> values) : values_(std::move(values)) {}
  absl::Status Compute(KernelContext* c) const override {
    for (size_t i = 0; i < values_.size(); ++i) c->SetOutput(static_cast<int>(i), values_[i]);
    return absl::OkStatus();
  }

 private:
  const std::vector<Tensor> values_;
};

constexpr int kForever = std::numeric_limits<int>::max();

// Of the free registers, when one is chosen: a bound on the time that a plan of many takes.
constexpr size_t kRegistersLookedAt = 1024;

}  // namespace

class PlanMaker {
 public:
  PlanMaker(const Graph& graph, Plan::Signature signature, const Plan::KernelLookup& lookup,
            bool replay)
      : graph_(graph), lookup_(lookup), replay_(replay), plan_(new Plan) {
    plan_->signature_ = std::move(signature);
  }

  absl::StatusOr<std::unique_ptr<Plan>> Make() {
    FERRY_RETURN_IF_ERROR(Prune());
    Rewire();
    FERRY_RETURN_IF_ERROR(FindFrames());
    FindRestores();
    return MakeUnits();
  }

 private:
  // Of the loop `frame` of `outer`'s. `entered_from`: the slots there of what its Enters take.
  PlanMaker(const PlanMaker& outer, int frame, std::vector<int> entered_from)
      : graph_(outer.graph_),
        lookup_(outer.lookup_),
        replay_(false),
        plan_(new Plan),
        rewiring_(outer.rewiring_),
        frames_(outer.frames_),
        frame_(frame),
        outer_(&outer),
        entered_from_(std::move(entered_from)) {
    const Frames::Loop& loop = frames_->loop(frame);
    loop_ = std::make_unique<Plan::Loop>();
    loop_->condition = loop.condition;
    needed_.insert(loop.nodes.begin(), loop.nodes.end());
    for (Node* n : loop.nodes) {
      if (Frames::ClosesLoop(n)) edges_[n];
    }
    for (Node* n : loop.enters) {
      edges_[n];
      needed_.insert(n);
    }
    AddLoopUnits();
  }

  absl::StatusOr<std::unique_ptr<Plan>> MakeUnits() {
    FindFusions();
    FERRY_RETURN_IF_ERROR(Order());
    FindReads();
    FERRY_RETURN_IF_ERROR(MakeSteps());
    MarkDeadness();
    if (!plan_->gpus_.empty()) FindParts();
    AssignMemory();
    return std::move(plan_);
  }

  // ---- Loops ----

  absl::Status FindFrames() {
    const auto of_loop = [](const Node* n) {
      return IsEnter(n) || IsExit(n) || IsNextIteration(n);
    };
    if (std::none_of(needed_.begin(), needed_.end(), of_loop)) return absl::OkStatus();
    const auto inputs = [this](const Node* n) -> const std::vector<Output>& {
      return rewiring_->inputs(n);
    };
    FERRY_ASSIGN_OR_RETURN(Frames frames, Frames::Find(needed_, fed_, inputs));
    frames_ = std::make_shared<const Frames>(std::move(frames));
    // `made_by`: the node that is run for `n`.
    const auto outside = [&](absl::string_view role, const Node* n,
                             const Node* made_by) -> absl::Status {
      const int f = frames_->Of(made_by);
      if (f == 0 || IsExit(made_by)) return absl::OkStatus();
      return InvalidArgument(role, " '", n->name(), "' (", n->op(), ") lies within the loop '",
                             frames_->loop(f).name, "': it has a value in each iteration; ",
                             role, " an Exit of the loop");
    };
    for (const Output& o : plan_->signature_.fetches) {
      if (fed_.contains(o)) continue;
      FERRY_RETURN_IF_ERROR(outside("fetch", o.node, rewiring_->of(o).node));
    }
    for (const Node* n : plan_->signature_.targets) FERRY_RETURN_IF_ERROR(outside("target", n, n));
    needed_.clear();
    const Frames::Loop& outermost = frames_->loop(0);
    needed_.insert(outermost.nodes.begin(), outermost.nodes.end());
    AddLoopUnits();
    return absl::OkStatus();
  }

  // The loops right within this plan's frame, as units.
  void AddLoopUnits() {
    for (const int f : frames_->loop(frame_).inner) {
      const Frames::Loop& loop = frames_->loop(f);
      Edges& edges = edges_[loop.enters.front()];
      for (Node* enter : loop.enters) {
        edges.inputs.push_back(rewiring_->inputs(enter)[0]);
        for (Node* c : enter->control_inputs()) edges.control.push_back(c);
      }
      needed_.insert(loop.enters.front());
    }
  }

  // What a unit needs, and the unit that makes what node `p` gives.
  const std::vector<Output>& InputsOf(const Node* n) const {
    auto it = edges_.find(n);
    return it == edges_.end() ? rewiring_->inputs(n) : it->second.inputs;
  }
  const std::vector<Node*>& ControlsOf(const Node* n) const {
    auto it = edges_.find(n);
    return it == edges_.end() ? n->control_inputs() : it->second.control;
  }
  Node* UnitOf(Node* p) const {
    if (!frames_ || frames_->Of(p) == frame_) return p;
    return frames_->loop(frames_->Of(p)).enters.front();
  }
  // Whether the unit is a loop.
  bool IsLoop(const Node* unit) const { return frames_ && frames_->Of(unit) != frame_; }
  // Calls fn with each node of the unit: all of a loop, and of the loops in it.
  template <typename Fn>
  void ForEachNode(Node* unit, const Fn& fn) const {
    if (!IsLoop(unit)) return fn(unit);
    std::vector<int> frames = {frames_->Of(unit)};
    while (!frames.empty()) {
      const Frames::Loop& loop = frames_->loop(frames.back());
      frames.pop_back();
      for (Node* n : loop.nodes) fn(n);
      frames.insert(frames.end(), loop.inner.begin(), loop.inner.end());
    }
  }
  bool UnitWrites(Node* unit) const {
    if (!IsLoop(unit)) return WritesVariable(unit);
    bool any = false;
    ForEachNode(unit, [&](const Node* n) { any = any || WritesVariable(n); });
    return any;
  }

  // ---- Which nodes run ----
  absl::Status Prune() {
    const Plan::Signature& sig = plan_->signature_;
    for (size_t i = 0; i < sig.feeds.size(); ++i) {
      if (!fed_.emplace(sig.feeds[i], static_cast<int>(i)).second) {
        return InvalidArgument("tensor ", sig.feeds[i].name(), " is fed twice");
      }
    }
    std::vector<Node*> stack;
    auto need = [&](Node* n) {
      if (needed_.insert(n).second) stack.push_back(n);
    };
    for (const Output& o : sig.fetches) {
      if (!fed_.contains(o)) need(o.node);
      if (o.dtype() == DType::kResource) {
        return InvalidArgument(
            "fetch ", o.name(), " is the handle of a resource (", o.node->op(),
            "), which has no value",
            o.node->op() == "VarHandleOp" ? "; fetch a ReadVariableOp of it" : "");
      }
    }
    for (Node* n : sig.targets) need(n);
    while (!stack.empty()) {
      Node* n = stack.back();
      stack.pop_back();
      for (const Output& in : n->inputs()) {
        if (!fed_.contains(in)) need(in.node);
      }
      for (Node* c : n->control_inputs()) {
        // A placeholder that is fed doesn't run, and so orders nothing.
        if (!IsFedPlaceholder(c)) need(c);
      }
    }
    std::vector<std::string> unfed;
    for (Node* n : needed_) {
      if (n->op() != "Placeholder" && n->op() != "PlaceholderV2") continue;
      if (IsFedPlaceholder(n)) {
        return InvalidArgument(Describe(n), " is fed and can't be a target too");
      }
      unfed.push_back(absl::StrCat("'", n->name(), "' with dtype ", DTypeWord(n->output_type(0)),
                                   " and shape ", n->output_shape(0).DebugString()));
    }
    if (!unfed.empty()) {
      std::sort(unfed.begin(), unfed.end());
      return InvalidArgument("You must feed a value for placeholder tensor ",
                             absl::StrJoin(unfed, ", "));
    }
    return absl::OkStatus();
  }

  // The graph with what needn't be computed left out, and the nodes that are still needed then.
  void Rewire() {
    const Plan::Signature& sig = plan_->signature_;
    rewiring_ = std::make_shared<const Rewiring>(sig.fetches, sig.targets, fed_, needed_);
    for (const Output& o : sig.fetches) fetches_.push_back(rewiring_->of(o));
    // Whether the node is asked for; another is only waited for. What a group is there for is asked
    // for with it.
    absl::flat_hash_map<Node*, bool> needed;
    std::vector<Node*> stack;
    const auto need = [&](Node* n, bool asked) {
      if (!needed_.contains(n)) return;
      const auto [it, fresh] = needed.emplace(n, asked);
      if (!fresh && (it->second || !asked)) return;
      it->second = asked;
      stack.push_back(n);
    };
    for (const Output& o : fetches_) {
      if (!fed_.contains(o)) need(o.node, true);
    }
    for (Node* n : sig.targets) need(n, true);
    while (!stack.empty()) {
      const Node* n = stack.back();
      stack.pop_back();
      const bool asked = needed.at(n);
      for (const Output& in : rewiring_->inputs(n)) {
        if (!fed_.contains(in)) need(in.node, asked || !rewiring_->expendable(n));
      }
      for (Node* c : n->control_inputs()) need(c, asked && n->op() == "NoOp");
    }
    needed_.clear();
    for (const auto& [n, asked] : needed) {
      needed_.insert(n);
      if (asked || !rewiring_->expendable(n)) continue;
      only_waited_for_.insert(n);
      Edges& edges = edges_[n];
      for (const Output& in : rewiring_->inputs(n)) {
        if (!fed_.contains(in)) edges.control.push_back(in.node);
      }
      edges.control.insert(edges.control.end(), n->control_inputs().begin(),
                           n->control_inputs().end());
    }
  }

  // ---- Fusion ----

  // Finds trees of element-wise nodes of one type and shape, and makes each a unit. What a node's
  // value goes into only one such node computes with that. A node that may read a variable's memory
  // stays where it is when something writes variables, since it would come later.
  void FindFusions() {
    absl::flat_hash_map<Output, int> uses;
    absl::flat_hash_set<const Node*> fixed;
    bool writes = false;
    for (Node* n : needed_) {
      for (const Output& in : InputsOf(n)) ++uses[in];
      for (const Node* c : ControlsOf(n)) fixed.insert(c);
      writes = writes || UnitWrites(n);
    }
    for (const Output& o : fetches_) ++uses[o];
    if (loop_) {
      for (const Node* exit : frames_->loop(frame_).exits) ++uses[rewiring_->inputs(exit)[0]];
    }
    fixed.insert(plan_->signature_.targets.begin(), plan_->signature_.targets.end());
    absl::flat_hash_map<const Node*, ElementLoop> loops;
    for (Node* n : needed_) {
      if (IsLoop(n) || n->num_outputs() != 1 || rewiring_->steady(n) ||
          fed_.contains(Output(n, 0)) || !ControlsOf(n).empty() ||
          !n->output_shape(0).known_rank() || n->output_shape(0).rank() == 0 ||
          InputsOf(n).empty() || InputsOf(n).size() > 2) {
        continue;
      }
      const absl::StatusOr<const Plan::NodeKernel*> kernel = lookup_(n);
      if (!kernel.ok() || (*kernel)->gpu) continue;
      const ElementLoop loop = (*kernel)->kernel->element_loop();
      if (loop.inputs != static_cast<int>(InputsOf(n).size())) continue;
      if (absl::c_all_of(InputsOf(n), [&](const Output& in) {
            return !HoldsVariable(in.dtype()) &&
                   FusedKernel::Fits(in.shape(), n->output_shape(0));
          })) {
        loops.emplace(n, loop);
      }
    }
    // Whether the node is computed with the one that uses it.
    const auto joins = [&](const Output& o, const Node* user) {
      const auto it = loops.find(o.node);
      return it != loops.end() && !fed_.contains(o) && uses[o] == 1 && !fixed.contains(o.node) &&
             o.shape() == user->output_shape(0) && it->second.type == loops.at(user).type &&
             !(writes && absl::c_any_of(InputsOf(o.node), [&](const Output& in) {
                 return Rewiring::MayLieInVariable(in);
               }));
    };
    absl::flat_hash_set<const Node*> joined;
    for (const auto& [n, loop] : loops) {
      for (const Output& in : InputsOf(n)) {
        if (joins(in, n)) joined.insert(in.node);
      }
    }
    std::vector<Node*> roots;
    for (Node* n : needed_) {
      if (loops.contains(n) && !joined.contains(n)) roots.push_back(n);
    }
    // A tree that is too large is cut; what is left of it below is another one.
    while (!roots.empty()) {
      Node* const root = roots.back();
      roots.pop_back();
      // From the root down, breadth first; the ops are in the opposite order.
      std::vector<Node*> members = {root};
      absl::flat_hash_map<const Node*, size_t> place = {{root, 0}};
      for (size_t i = 0; i < members.size(); ++i) {
        for (const Output& in : InputsOf(members[i])) {
          if (!joined.contains(in.node) || !joins(in, members[i])) continue;
          if (members.size() < FusedKernel::kMaxOps) {
            place[in.node] = members.size();
            members.push_back(in.node);
          } else {
            roots.push_back(in.node);
          }
        }
      }
      if (members.size() == 1) continue;
      Edges edges;
      std::vector<FusedOp> ops;
      const auto operand = [&](const Output& o) -> FusedOperand {
        const auto it = place.find(o.node);
        if (it != place.end()) return {false, static_cast<int>(members.size() - 1 - it->second)};
        const auto at = absl::c_find(edges.inputs, o);
        const int index = static_cast<int>(at - edges.inputs.begin());
        if (at == edges.inputs.end()) edges.inputs.push_back(o);
        return {true, index};
      };
      for (size_t i = members.size(); i-- > 0;) {
        const std::vector<Output>& in = InputsOf(members[i]);
        FusedOp op{loops.at(members[i]), operand(in[0]), {}};
        if (in.size() == 2) op.y = operand(in[1]);
        ops.push_back(std::move(op));
      }
      for (Node* n : members) {
        if (n != root) needed_.erase(n);
      }
      plan_->kernels_.push_back(std::make_unique<FusedKernel>(std::move(ops)));
      fused_[root] = plan_->kernels_.back().get();
      edges_[root] = std::move(edges);
    }
  }

  // The Assigns of values that come from a RestoreV2, straight or through Identity and Reshape, and
  // that nothing else uses.
  void FindRestores() {
    const auto is_restore = [](const Node* n) { return n->op() == "RestoreV2"; };
    if (std::none_of(needed_.begin(), needed_.end(), is_restore)) return;
    absl::flat_hash_map<Output, int> uses;
    for (const Output& o : fetches_) ++uses[o];
    for (const Node* n : needed_) {
      for (const Output& in : InputsOf(n)) ++uses[in];
    }
    for (const Node* n : needed_) {
      if (n->op() != "Assign" && n->op() != "AssignVariableOp") continue;
      std::vector<const Node*> way;
      const Node* at = n;
      Output value = InputsOf(n)[1];
      while (!fed_.contains(value) && uses[value] == 1) {
        way.push_back(at);
        at = value.node;
        if (is_restore(at)) {
          restores_.insert(n);
          on_the_way_.insert(way.begin(), way.end());
          on_the_way_.insert(at);
          break;
        }
        if (at->op() != "Identity" && at->op() != "Reshape") break;
        value = InputsOf(at)[0];
      }
    }
  }

  bool IsFedPlaceholder(const Node* n) const {
    return absl::StartsWith(n->op(), "Placeholder") &&
           fed_.contains(Output(const_cast<Node*>(n), 0));
  }

  // ---- In which order ----
  absl::Status Order() {
    // Depth-first post-order from what was asked for, in the order it was asked for: the rank by
    // which steps that are ready are chosen. An explicit stack, since chains may be long.
    absl::flat_hash_map<const Node*, int> rank;
    struct Visit {
      Node* node;
      size_t next;
    };
    std::vector<Visit> stack;
    absl::flat_hash_set<const Node*> seen;
    auto walk = [&](Node* root) {
      if (!needed_.contains(root) || !seen.insert(root).second) return;
      stack.push_back({root, 0});
      while (!stack.empty()) {
        Visit& v = stack.back();
        const std::vector<Output>& inputs = InputsOf(v.node);
        const std::vector<Node*>& control = ControlsOf(v.node);
        if (v.next < inputs.size() + control.size()) {
          Node* p = UnitOf(v.next < inputs.size() ? inputs[v.next].node
                                                  : control[v.next - inputs.size()]);
          ++v.next;
          if (needed_.contains(p) && seen.insert(p).second) stack.push_back({p, 0});
        } else {
          const int r = static_cast<int>(rank.size());
          rank[v.node] = r;
          stack.pop_back();
        }
      }
    };
    for (const Output& o : fetches_) walk(UnitOf(o.node));
    for (Node* n : plan_->signature_.targets) walk(UnitOf(n));
    if (loop_) {
      if (loop_->condition) walk(frames_->loop(frame_).condition);
      for (Node* n : frames_->loop(frame_).nodes) walk(n);
    }

    absl::flat_hash_map<const Node*, int> waiting;
    absl::flat_hash_map<const Node*, std::vector<Node*>> followers;
    for (Node* n : needed_) {
      int count = 0;
      auto follow = [&](Node* p) {
        followers[p].push_back(n);
        ++count;
      };
      for (const Output& in : InputsOf(n)) {
        if (!fed_.contains(in)) follow(UnitOf(in.node));
      }
      for (Node* c : ControlsOf(n)) {
        if (needed_.contains(UnitOf(c))) follow(UnitOf(c));
      }
      waiting[n] = count;
    }
    if (loop_ && loop_->condition) FERRY_RETURN_IF_ERROR(FindTurns(followers));
    using Key = std::pair<std::pair<int, int>, Node*>;
    std::priority_queue<Key, std::vector<Key>, std::greater<Key>> ready;
    // What follows a restoring Assign is held until there is nothing else to do, and the commit
    // with it: all restores that can be done before are. Other restores needn't wait, since they
    // look at no variable.
    absl::flat_hash_set<const Node*> after;
    std::vector<Node*> held;
    auto push = [&](Node* n) {
      if (after.contains(n) && n->op() != "Const" && !on_the_way_.contains(n)) {
        held.push_back(n);
      } else {
        ready.push({{UnitWrites(n) + 2 * static_cast<int>(TurnOf(n)), rank[n]}, n});
      }
    };
    for (const auto& [n, count] : waiting) {
      if (count == 0) push(const_cast<Node*>(n));
    }
    while (!ready.empty() || !held.empty()) {
      if (ready.empty()) {
        commits_.push_back(order_.size());
        after.clear();
        for (Node* n : std::exchange(held, {})) push(n);
      }
      Node* n = ready.top().second;
      ready.pop();
      order_.push_back(n);
      const bool uncommitted = restores_.contains(n) || after.contains(n);
      for (Node* f : followers[n]) {
        if (uncommitted) after.insert(f);
        if (--waiting[f] == 0) push(f);
      }
    }
    if (order_.size() < needed_.size()) return CycleError(waiting);
    if (loop_ && loop_->condition) return CheckLoop();
    return absl::OkStatus();
  }

  // Which units of a loop run when: those that don't need the condition, and those that do: in each
  // iteration, in those that another one follows, or in the last. A Switch by the condition has a
  // value on one side only, so what needs a side has its turn with that.
  enum class Turn { kFirst, kAlways, kBody, kEnd };
  Turn TurnOf(const Node* unit) const {
    auto it = turns_.find(unit);
    return it == turns_.end() ? Turn::kFirst : it->second;
  }

  absl::Status FindTurns(
      const absl::flat_hash_map<const Node*, std::vector<Node*>>& followers) {
    std::vector<const Node*> reached = {loop_->condition};
    turns_[loop_->condition] = Turn::kAlways;
    const auto spread = [&](Turn turn) -> absl::Status {
      while (!reached.empty()) {
        const Node* n = reached.back();
        reached.pop_back();
        auto it = followers.find(n);
        if (it == followers.end()) continue;
        for (const Node* f : it->second) FERRY_RETURN_IF_ERROR(Take(f, turn, &reached));
      }
      return absl::OkStatus();
    };
    FERRY_RETURN_IF_ERROR(spread(Turn::kAlways));
    for (const auto& [side, turn] : {std::make_pair(1, Turn::kBody), {0, Turn::kEnd}}) {
      for (const Node* n : needed_) {
        for (const Output& in : InputsOf(n)) {
          if (in.index == side && !IsLoop(in.node) && frames_->IsLoopSwitch(in.node)) {
            FERRY_RETURN_IF_ERROR(Take(n, turn, &reached));
          }
        }
      }
      FERRY_RETURN_IF_ERROR(spread(turn));
    }
    return absl::OkStatus();
  }

  // Gives the unit that turn, unless it has it.
  absl::Status Take(const Node* unit, Turn turn, std::vector<const Node*>* fresh) {
    Turn& has = turns_[unit];
    if (has == turn) return absl::OkStatus();
    if (has == Turn::kBody && turn == Turn::kEnd) {
      return InvalidArgument(Describe(unit), " needs both sides of Switches by the condition ",
                             Describe(loop_->condition), " of its loop, of which one never has a "
                             "value");
    }
    has = turn;
    fresh->push_back(unit);
    return absl::OkStatus();
  }

  absl::Status CheckLoop() const {
    bool any = false;
    for (const Node* n : order_) {
      any = any || Frames::ClosesLoop(n);
      if (frames_->IsLoopSwitch(n) && TurnOf(UnitOf(InputsOf(n)[0].node)) != Turn::kFirst) {
        return InvalidArgument(Describe(n), " is a Switch by the loop's condition ",
                               Describe(loop_->condition), ", but its input ", n->input(0).name(),
                               " depends on that");
      }
      if (IsNextIteration(n) && TurnOf(n) == Turn::kEnd) {
        return InvalidArgument(Describe(n), " takes ", n->input(0).name(),
                               ", which has a value only when the loop has ended; an Exit can");
      }
    }
    if (!any) {
      return InvalidArgument("the loop '", frames_->loop(frame_).name, "' of ",
                             Describe(loop_->condition),
                             " has no NextIteration that goes to a Merge");
    }
    for (const Node* exit : frames_->loop(frame_).exits) {
      const Output& in = rewiring_->inputs(exit)[0];
      const bool at_end = frames_->IsLoopSwitch(in.node) && frames_->Of(in.node) == frame_
                              ? in.index == 0
                              : TurnOf(UnitOf(in.node)) == Turn::kEnd;
      if (!at_end) {
        return InvalidArgument(Describe(exit), " must take the first output of a Switch by ",
                               Describe(loop_->condition), ", or what follows from one, found ",
                               in.name());
      }
    }
    return absl::OkStatus();
  }

  // How long a value is looked at: until which place in order_, and whether beyond this iteration
  // of the loop that is planned.
  struct Use {
    int last = -1;
    bool leaves = false;

    void Add(const Use& other) {
      last = std::max(last, other.last);
      leaves = leaves || other.leaves;
    }
  };

  // Of the values that steps take, by themselves or through others that share their memory.
  absl::flat_hash_map<Output, Use> FindUses() const {
    absl::flat_hash_map<Output, Use> uses;
    for (const Output& o : fetches_) uses[o].last = kForever;
    if (loop_) {
      for (const Node* exit : frames_->loop(frame_).exits) {
        uses[rewiring_->inputs(exit)[0]].leaves = true;
      }
    }
    for (size_t t = order_.size(); t-- > 0;) {
      Node* const n = order_[t];
      // Of what lies in the memory of its inputs.
      Use passed;
      const auto add = [&](const Output& o) {
        if (auto it = uses.find(o); it != uses.end()) passed.Add(it->second);
      };
      const bool loop = IsLoop(n);
      if (loop) {
        for (Node* exit : frames_->loop(frames_->Of(n)).exits) add(Output(exit, 0));
      } else {
        for (int o = 0; o < n->num_outputs(); ++o) add(Output(n, o));
      }
      const Use used{static_cast<int>(t), loop_ && IsNextIteration(n)};
      const std::vector<Output>& inputs = InputsOf(n);
      for (size_t i = 0; i < inputs.size(); ++i) {
        Use& use = uses[inputs[i]];
        use.Add(used);
        if (loop || PassesOn(n, static_cast<int>(i))) use.Add(passed);
      }
    }
    return uses;
  }

  // Finds the ReadVariableOps that may give out the variable's own memory: those after which
  // nothing writes the variable while their value may still be looked at.
  void FindReads() {
    const auto reads = [](const Node* n) { return n->op() == "ReadVariableOp"; };
    if (absl::c_none_of(order_, reads)) return;
    // By variable ("": not known which), and of all: places in order_ where it is written.
    absl::flat_hash_map<std::string, std::vector<int>> writes;
    std::vector<int> all;
    for (size_t t = 0; t < order_.size(); ++t) {
      ForEachNode(order_[t], [&](const Node* w) {
        if (!WritesVariable(w)) return;
        for (int i = 0; i < w->num_inputs(); ++i) {
          if (!HoldsVariable(w->input_type(i))) continue;
          writes[NameOfVariable(w->input(i))].push_back(static_cast<int>(t));
          all.push_back(static_cast<int>(t));
        }
      });
    }
    const absl::flat_hash_map<Output, Use> uses = FindUses();
    for (size_t t = 0; t < order_.size(); ++t) {
      Node* const n = order_[t];
      if (!reads(n)) continue;
      const auto use = uses.find(Output(n, 0));
      if (use != uses.end() && use->second.leaves) continue;
      const int last = use == uses.end() ? -1 : use->second.last;
      const auto written = [&](const std::vector<int>& places) {
        const auto next = std::upper_bound(places.begin(), places.end(), static_cast<int>(t));
        return next != places.end() && *next <= last;
      };
      const std::string name = NameOfVariable(n->input(0));
      if (name.empty() ? written(all) : written(writes[name]) || written(writes[""])) continue;
      read_in_place_.insert(n);
    }
  }

  // The dtype of the variables whose handles `n` takes; kInvalid: any will do, or the kernel looks.
  static DType HeldType(const Node* n) {
    if (PassesHandle(n) || n->op() == "AssignVariableOp") return DType::kInvalid;
    for (const char* const attr : {"dtype", "T"}) {
      const absl::StatusOr<DType> type = n->Attr<DType>(attr);
      if (type.ok()) return *type == DType::kResource ? DType::kInvalid : *type;
    }
    return DType::kInvalid;
  }

  // That the variable is of that dtype, where it can be told from its handle's node.
  static absl::Status CheckHeld(const Node* n, const Node* handle, DType type) {
    const absl::StatusOr<DType> held = handle->Attr<DType>("dtype");
    if (type == DType::kInvalid || !IsVariable(handle) || !held.ok() || *held == type) {
      return absl::OkStatus();
    }
    return Annotate(Plan::WrongType(n, type, *held, handle->name()), Describe(n));
  }

  absl::Status CycleError(const absl::flat_hash_map<const Node*, int>& waiting) const {
    // From any node that still waits, going back through such nodes must come round.
    const Node* n = nullptr;
    for (const auto& [node, count] : waiting) {
      if (count > 0 && (!n || node->id() < n->id())) n = node;
    }
    std::vector<const Node*> path;
    absl::flat_hash_map<const Node*, size_t> at;
    while (!at.contains(n)) {
      at[n] = path.size();
      path.push_back(n);
      const Node* back = nullptr;
      auto consider = [&](const Node* p) {
        auto it = waiting.find(p);
        if (!back && it != waiting.end() && it->second > 0) back = p;
      };
      for (const Output& in : InputsOf(n)) {
        if (!fed_.contains(in)) consider(UnitOf(in.node));
      }
      for (Node* c : ControlsOf(n)) consider(UnitOf(c));
      n = back;
    }
    std::vector<std::string> names;
    for (size_t i = path.size(); i-- > at[n];) names.push_back(path[i]->name());
    names.push_back(names.front());
    return InvalidArgument("the graph has a cycle: ", absl::StrJoin(names, " -> "));
  }

  // ---- Steps and slots ----
  absl::Status MakeSteps() {
    const Plan::Signature& sig = plan_->signature_;
    for (const Output& feed : sig.feeds) {
      plan_->feed_slots_.push_back(NewSlot(BaseType(feed.dtype()), nullptr, -1));
    }
    std::vector<std::string> missing;
    std::vector<size_t> first_step;  // Of each place in order_: its copies come before it.
    if (loop_) EnterSlots();
    for (Node* n : order_) {
      if (loop_) Begin(TurnOf(n));
      first_step.push_back(plan_->steps_.size());
      if (only_waited_for_.contains(n)) {
        if (!rewiring_->alive(n)) AddEmptyStep(n);
        continue;
      }
      if (frames_) {
        FERRY_ASSIGN_OR_RETURN(const bool done, MadeWithoutKernel(n, &missing));
        if (done) continue;
      }
      const std::vector<Tensor>* const values = rewiring_->known(n);
      const auto fused = fused_.find(n);
      // Nothing is planned behind what is missing.
      if (!missing.empty() && (values || fused != fused_.end())) continue;
      if (values) {
        plan_->kernels_.push_back(std::make_unique<KnownValues>(*values));
        AddHostStep(n, plan_->kernels_.back().get()).once = true;
        continue;
      }
      if (fused != fused_.end()) {
        AddFused(n, fused->second);
        continue;
      }
      absl::StatusOr<const Plan::NodeKernel*> kernel = lookup_(n);
      if (!kernel.ok()) {
        // All that is missing is told at once; other errors at once.
        if (!absl::IsUnimplemented(kernel.status())) return kernel.status();
        missing.push_back(std::string(kernel.status().message()));
        continue;
      }
      if (!missing.empty()) continue;
      Plan::Step step;
      step.node = n;
      step.kernel = (*kernel)->kernel.get();
      step.is_switch = IsSwitch(n);
      step.is_merge = IsMerge(n);
      step.restores = restores_.contains(n);
      step.reads_in_place = read_in_place_.contains(n);
      if (step.restores && n->op() == "Assign") {
        FERRY_ASSIGN_OR_RETURN(const bool validate, GetAttr<bool>(n->attrs(), "validate_shape"));
        if (validate) step.fits = Plan::Step::Fits::kContents;
      } else if (step.restores) {
        step.fits = Plan::Step::Fits::kDeclared;
      }
      FERRY_ASSIGN_OR_RETURN(const Placement placed, PlacementOf(*n, **kernel));
      // A kernel that has nothing in its device's memory runs as one of the CPU's.
      step.gpu = placed.on_device ? (*kernel)->gpu : nullptr;
      if (step.gpu) UsesGpu(step.gpu);
      for (int i = 0; i < n->num_inputs(); ++i) {
        const Output& in = InputsOf(n)[static_cast<size_t>(i)];
        int slot = SlotOf(in);
        if (fed_.contains(in) && HoldsVariable(n->input_type(i))) {
          return InvalidArgument(Describe(n), " needs the variable '", in.node->name(),
                                 "' itself, but tensor ", in.name(), " is fed a value");
        }
        const bool reference = HoldsVariable(in.dtype()) && !fed_.contains(in);
        if (reference) plan_->touches_variables_ = true;
        GpuDevice* const home = homes_[static_cast<size_t>(slot)];
        if (placed.inputs[static_cast<size_t>(i)] != Where::kAny &&
            home != (placed.inputs[static_cast<size_t>(i)] == Where::kHost ? nullptr : step.gpu)) {
          if (HoldsVariable(n->input_type(i))) {
            return InvalidArgument(Describe(n), " is placed on another device than the variable '",
                                   in.node->name(), "' that it takes");
          }
          const bool to_host = placed.inputs[static_cast<size_t>(i)] == Where::kHost;
          slot = Bring(slot, to_host ? nullptr : step.gpu, in.node, step.restores);
        } else if (reference && !n->info()->def.allows_uninitialized_input() &&
                   !PassesHandle(n)) {
          step.must_be_initialized.push_back(i);
        }
        const Node* const maker = MakerOfHandle(in);
        if (HoldsVariable(n->input_type(i)) && !PassesHandle(n) &&
            !absl::StartsWith(n->op(), "Ref") && !IsVariable(maker)) {
          step.needs_variable.push_back(i);
        }
        if (n->input_type(i) == DType::kResource) {
          step.held = HeldType(n);
          FERRY_RETURN_IF_ERROR(CheckHeld(n, maker, step.held));
        }
        const int event = arrives_[static_cast<size_t>(slot)];
        if (event >= 0) step.waits.push_back(event);
        step.inputs.push_back(slot);
      }
      step.outputs = plan_->num_slots_;
      first_slot_[n] = step.outputs;
      const int index = static_cast<int>(plan_->steps_.size());
      bool in_variable = step.reads_in_place;
      for (size_t i = 0; i < step.inputs.size() && !in_variable; ++i) {
        in_variable = PassesOn(n, static_cast<int>(i)) &&
                      in_variable_[static_cast<size_t>(step.inputs[i])];
      }
      for (int o = 0; o < n->num_outputs(); ++o) {
        NewSlot(n->output_type(o),
                placed.outputs[static_cast<size_t>(o)] == Where::kDevice ? step.gpu : nullptr,
                index);
        in_variable_.back() = in_variable || HoldsVariable(n->output_type(o));
      }
      step.registers.assign(static_cast<size_t>(n->num_outputs()), -1);
      step.once = n->op() == "Const" || IsVariable(n) || IsOnce(n, step);
      step.plain = !step.restores && !step.reads_in_place;
      if (IsVariable(n)) plan_->touches_variables_ = true;
      step_of_[n] = static_cast<int>(plan_->steps_.size());
      in_place_.push_back((*kernel)->def->in_place);
      replayable_.push_back((*kernel)->def->replayable);
      plan_->steps_.push_back(std::move(step));
    }
    if (!missing.empty()) return Unimplemented(absl::StrJoin(missing, "; "));
    for (const size_t t : commits_) plan_->steps_[first_step[t]].commit = true;
    if (loop_) {
      Begin(Turn::kEnd);
      return LeaveSlots();
    }
    for (const Output& o : fetches_) {
      int slot = SlotOf(o);
      if (homes_[static_cast<size_t>(slot)]) slot = Bring(slot, nullptr, o.node, false);
      plan_->fetch_slots_.push_back(slot);
      const int event = arrives_[static_cast<size_t>(slot)];
      if (event >= 0) plan_->fetch_waits_.push_back(event);
    }
    return absl::OkStatus();
  }

  // Adds a step on the CPU with that kernel, which takes all that the unit does. The reference is
  // good until the next step is added.
  Plan::Step& AddHostStep(Node* n, const Kernel* kernel) {
    Plan::Step step;
    step.node = n;
    step.kernel = kernel;
    for (const Output& in : InputsOf(n)) {
      int slot = SlotOf(in);
      if (homes_[static_cast<size_t>(slot)]) slot = Bring(slot, nullptr, in.node, false);
      if (const int event = arrives_[static_cast<size_t>(slot)]; event >= 0) {
        step.waits.push_back(event);
      }
      step.inputs.push_back(slot);
    }
    const int index = static_cast<int>(plan_->steps_.size());
    step.outputs = first_slot_[n] = plan_->num_slots_;
    for (int o = 0; o < n->num_outputs(); ++o) NewSlot(n->output_type(o), nullptr, index);
    step.registers.assign(static_cast<size_t>(n->num_outputs()), -1);
    step_of_[n] = index;
    in_place_.emplace_back();
    replayable_.push_back(false);
    plan_->steps_.push_back(std::move(step));
    return plan_->steps_.back();
  }

  // Adds a step that tells what waits for it whether the node is dead, and does nothing else.
  void AddEmptyStep(Node* n) {
    plan_->kernels_.push_back(std::make_unique<KnownValues>(std::vector<Tensor>()));
    Plan::Step step;
    step.node = n;
    step.kernel = plan_->kernels_.back().get();
    step.outputs = plan_->num_slots_;
    step_of_[n] = static_cast<int>(plan_->steps_.size());
    in_place_.emplace_back();
    replayable_.push_back(false);
    plan_->steps_.push_back(std::move(step));
  }

  void AddFused(Node* n, const Kernel* kernel) {
    const Plan::Step& step = AddHostStep(n, kernel);
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      if (InputsOf(n)[i].shape() == n->output_shape(0)) {
        in_place_.back().push_back(static_cast<int>(i));
      }
    }
  }

  // Whether the step's results are the same in every Run and can be computed before.
  bool IsOnce(const Node* n, const Plan::Step& step) const {
    return rewiring_->steady(n) && !step.gpu && absl::c_all_of(step.inputs, [&](int in) {
             const int maker = makers_[static_cast<size_t>(in)];
             return maker >= 0 && plan_->steps_[static_cast<size_t>(maker)].once;
           });
  }

  int SlotOf(const Output& o) const {
    auto fed = fed_.find(o);
    if (fed != fed_.end()) return plan_->feed_slots_[static_cast<size_t>(fed->second)];
    if (frames_) {
      auto named = named_.find(o);
      if (named != named_.end()) return named->second;
    }
    return first_slot_.at(o.node) + o.index;
  }

  // The slots of what enters the loop that is planned.
  void EnterSlots() {
    const Frames::Loop& loop = frames_->loop(frame_);
    for (size_t k = 0; k < loop.enters.size(); ++k) {
      const size_t from = static_cast<size_t>(entered_from_[k]);
      const int slot = NewSlot(outer_->types_[from], outer_->homes_[from], -1);
      in_variable_.back() = outer_->in_variable_[from];
      named_[Output(loop.enters[k], 0)] = slot;
      enter_at_[loop.enters[k]] = k;
      loop_->enters.push_back(slot);
      plan_->feed_slots_.push_back(slot);
      invariants_.push_back(slot);
    }
  }

  // Makes what `n` stands for, if that is no step with a kernel.
  absl::StatusOr<bool> MadeWithoutKernel(Node* n, std::vector<std::string>* missing) {
    if (IsLoop(n)) {
      absl::Status status;
      const auto tell = [&](const absl::Status& s) {
        if (absl::IsUnimplemented(s)) {
          missing->push_back(std::string(s.message()));
        } else {
          KeepFirst(&status, s);
        }
      };
      if (missing->empty()) {
        tell(AddLoop(n));
      } else {  // Only to find what else is.
        ForEachNode(n, [&](Node* within) { tell(lookup_(within).status()); });
      }
      FERRY_RETURN_IF_ERROR(status);
      return true;
    }
    if (!loop_ || !missing->empty()) return false;
    if (IsEnter(n)) return true;
    if (Frames::ClosesLoop(n)) {
      FERRY_ASSIGN_OR_RETURN(const Plan::NodeKernel* kernel, lookup_(n));
      FERRY_ASSIGN_OR_RETURN(const Placement placed, PlacementOf(*n, *kernel));
      const std::vector<Output>& in = rewiring_->inputs(n);
      const bool from_first = IsEnter(in[0].node);
      const Output enter = in[from_first ? 0 : 1];
      Plan::Loop::Variable v;
      v.slot = NewSlot(BaseType(n->output_type(0)),
                       placed.outputs[0] == Where::kDevice ? kernel->gpu : nullptr, -1);
      in_variable_.back() = true;
      named_[Output(n, 0)] = v.slot;
      plan_->feed_slots_.push_back(v.slot);
      int& to = loop_->enters[enter_at_.at(enter.node)];
      if (variable_of_.contains(to)) {
        return InvalidArgument(Describe(enter.node), " leads to two Merges that close loops");
      }
      to = v.slot;
      variable_of_.insert(v.slot);
      const auto looks_at_index = [n](const Node* user) {
        return absl::c_linear_search(user->inputs(), Output(n, 1));
      };
      // A node may take it many times.
      const absl::flat_hash_set<const Node*> users(n->consumers().begin(), n->consumers().end());
      if (absl::c_any_of(users, looks_at_index)) {
        v.index = NewSlot(DType::kInt32, nullptr, -1);
        named_[Output(n, 1)] = v.index;
        plan_->feed_slots_.push_back(v.index);
        invariants_.push_back(v.index);
      }
      loop_->variables.push_back(v);
      next_of_.push_back(in[from_first ? 1 : 0]);
      return true;
    }
    if (IsNextIteration(n)) {
      named_[Output(n, 0)] = SlotOf(InputsOf(n)[0]);
      return true;
    }
    if (n == loop_->condition) {
      const Output& in = InputsOf(n)[0];
      int slot = SlotOf(in);
      if (homes_[static_cast<size_t>(slot)]) slot = Bring(slot, nullptr, in.node, false);
      if (const int event = arrives_[static_cast<size_t>(slot)]; event >= 0) {
        loop_->condition_waits.push_back(event);
      }
      named_[Output(n, 0)] = loop_->condition_slot = slot;
      loop_->always = plan_->steps_.size();
      return true;
    }
    if (frames_->IsLoopSwitch(n)) {
      named_[Output(n, 0)] = named_[Output(n, 1)] = SlotOf(InputsOf(n)[0]);
      return true;
    }
    return false;
  }

  // The next step is the first of a unit with this turn, which may be that of the steps before it.
  void Begin(Turn turn) {
    if (turn >= Turn::kBody && turn_ < Turn::kBody) loop_->body = plan_->steps_.size();
    if (turn == Turn::kEnd && turn_ < Turn::kEnd) {
      // What the body leaves for the next iteration comes at its end.
      for (size_t k = 0; k < loop_->variables.size(); ++k) {
        Plan::Loop::Variable& v = loop_->variables[k];
        const Output& next = next_of_[k];
        v.next = SlotOf(next);
        GpuDevice* const home = homes_[static_cast<size_t>(v.slot)];
        if (homes_[static_cast<size_t>(v.next)] != home) {
          v.next = Bring(v.next, home, next.node, false);
        }
      }
      loop_->end = plan_->steps_.size();
      // Copies that the body made aren't there in the last iteration.
      const int body = static_cast<int>(loop_->body);
      absl::erase_if(copies_, [&](const auto& copy) {
        return makers_[static_cast<size_t>(copy.second)] >= body;
      });
    }
    turn_ = turn;
  }

  // What the loop that is planned passes on to the plan around it.
  absl::Status LeaveSlots() {
    for (const Node* exit : frames_->loop(frame_).exits) {
      loop_->exits.push_back(SlotOf(rewiring_->inputs(exit)[0]));
    }
    // What is copied to the host has to be there before its memory is written again.
    for (const Plan::Step& s : plan_->steps_) {
      if (s.kind == Plan::Kind::kToHost && !s.once) loop_->waits.push_back(s.event);
    }
    return absl::OkStatus();
  }

  // Adds the loop as a step.
  absl::Status AddLoop(Node* unit) {
    const int frame = frames_->Of(unit);
    const Frames::Loop& loop = frames_->loop(frame);
    std::vector<int> from;
    for (const Node* enter : loop.enters) from.push_back(SlotOf(rewiring_->inputs(enter)[0]));
    PlanMaker maker(*this, frame, from);
    FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Plan> plan, maker.MakeUnits());
    Plan::Step step;
    step.node = unit;
    step.kind = Plan::Kind::kLoop;
    step.plain = false;
    step.loop = std::move(maker.loop_);
    step.inner = plan_->num_inner_++;
    for (size_t k = 0; k < loop.enters.size(); ++k) {
      const Output& in = rewiring_->inputs(loop.enters[k])[0];
      int slot = from[k];
      GpuDevice* const home = maker.homes_[static_cast<size_t>(step.loop->enters[k])];
      if (homes_[static_cast<size_t>(slot)] != home) {
        slot = Bring(slot, home, in.node, false);
      } else if (IsRef(types_[static_cast<size_t>(slot)]) && loop.enters[k]->op() == "Enter") {
        step.must_be_initialized.push_back(static_cast<int>(k));
      }
      if (HoldsVariable(types_[static_cast<size_t>(slot)])) plan_->touches_variables_ = true;
      if (const int event = arrives_[static_cast<size_t>(slot)]; event >= 0) {
        step.waits.push_back(event);
      }
      step.inputs.push_back(slot);
    }
    plan_->touches_variables_ |= plan->touches_variables_;
    for (GpuDevice* gpu : plan->gpus_) UsesGpu(gpu);
    step.outputs = plan_->num_slots_;
    const int index = static_cast<int>(plan_->steps_.size());
    for (size_t o = 0; o < loop.exits.size(); ++o) {
      const size_t at = static_cast<size_t>(step.loop->exits[o]);
      named_[Output(loop.exits[o], 0)] =
          NewSlot(loop.exits[o]->output_type(0), maker.homes_[at], index);
      in_variable_.back() = true;
    }
    step.registers.assign(loop.exits.size(), -1);
    step.loop->plan = std::move(plan);
    step_of_[unit] = index;
    in_place_.emplace_back();
    replayable_.push_back(false);
    plan_->steps_.push_back(std::move(step));
    return absl::OkStatus();
  }

  static bool IsCopy(const Plan::Step& s) {
    return s.kind != Plan::Kind::kKernel && s.kind != Plan::Kind::kLoop;
  }

  int NewSlot(DType type, GpuDevice* home, int maker) {
    types_.push_back(type);
    homes_.push_back(home);
    makers_.push_back(maker);
    arrives_.push_back(-1);
    in_variable_.push_back(false);
    return plan_->num_slots_++;
  }

  void UsesGpu(GpuDevice* gpu) {
    std::vector<GpuDevice*>& gpus = plan_->gpus_;
    if (std::find(gpus.begin(), gpus.end(), gpu) == gpus.end()) gpus.push_back(gpu);
  }

  // Where a kernel wants its inputs and puts its outputs.
  enum class Where { kHost, kDevice, kAny };
  struct Placement {
    std::vector<Where> inputs, outputs;
    bool on_device = false;  // Whether any of them is kDevice.
  };
  static absl::StatusOr<Placement> PlacementOf(const Node& n, const Plan::NodeKernel& kernel) {
    const Where usual = kernel.gpu ? Where::kDevice : Where::kHost;
    Placement p;
    p.inputs.assign(static_cast<size_t>(n.num_inputs()), usual);
    p.outputs.assign(static_cast<size_t>(n.num_outputs()), usual);
    const auto set = [&n](const auto& args, const std::vector<std::string>& names, Where where,
                          std::vector<Where>* out) -> absl::Status {
      if (names.empty()) return absl::OkStatus();
      FERRY_ASSIGN_OR_RETURN(const auto ranges, ArgRanges(args, n.attrs()));
      for (int a = 0; a < args.size(); ++a) {
        if (std::find(names.begin(), names.end(), args[a].name()) == names.end()) continue;
        const auto [start, count] = ranges[static_cast<size_t>(a)];
        std::fill_n(out->begin() + start, count, where);
      }
      return absl::OkStatus();
    };
    const proto::OpDef& def = n.info()->def;
    if (kernel.gpu) {
      FERRY_RETURN_IF_ERROR(
          set(def.input_arg(), kernel.def->host_memory, Where::kHost, &p.inputs));
      FERRY_RETURN_IF_ERROR(
          set(def.output_arg(), kernel.def->host_memory, Where::kHost, &p.outputs));
    }
    FERRY_RETURN_IF_ERROR(set(def.input_arg(), kernel.def->any_memory, Where::kAny, &p.inputs));
    for (const std::vector<Where>& all : {p.inputs, p.outputs}) {
      p.on_device |= std::find(all.begin(), all.end(), Where::kDevice) != all.end();
    }
    return p;
  }

  // The slot of `slot`'s value in the memory of `to` (null: the host's): of a copy that is there
  // already, or of a step that is added. A variable is copied anew each time, since it may have
  // changed. `alone`: the copy's memory is to become a variable's.
  int Bring(int slot, GpuDevice* to, Node* of, bool alone) {
    const size_t from = static_cast<size_t>(slot);
    const bool is_variable = IsRef(types_[from]);
    const auto key = std::make_pair(slot, to);
    auto known = copies_.find(key);
    if (known != copies_.end() && !alone) return known->second;
    Plan::Step step;
    step.node = of;
    step.kind = !homes_[from] ? Plan::Kind::kToDevice
                : !to         ? Plan::Kind::kToHost
                              : Plan::Kind::kPeer;
    step.gpu = to ? to : homes_[from];
    if (step.kind == Plan::Kind::kPeer) step.peer = homes_[from];
    UsesGpu(step.gpu);
    step.copied = BaseType(types_[from]);
    step.alone = alone;
    step.event = plan_->num_events_++;
    step.inputs.push_back(slot);
    step.registers.push_back(-1);
    if (is_variable) step.must_be_initialized.push_back(0);
    if (arrives_[from] >= 0) step.waits.push_back(arrives_[from]);
    step.once = makers_[from] >= 0 && plan_->steps_[static_cast<size_t>(makers_[from])].once &&
                !is_variable && !alone;
    const int event = step.kind == Plan::Kind::kToHost ? step.event : -1;
    step.outputs = NewSlot(step.copied, to, static_cast<int>(plan_->steps_.size()));
    const int copy = step.outputs;
    arrives_[static_cast<size_t>(copy)] = event;
    if (!is_variable && !alone) copies_[key] = copy;
    in_place_.emplace_back();
    replayable_.push_back(true);
    plan_->steps_.push_back(std::move(step));
    return copy;
  }

  void MarkDeadness() {
    for (Plan::Step& s : plan_->steps_) {
      // One that gathers control edges runs whatever became of them.
      if (s.kind == Plan::Kind::kKernel && s.node->op() == "ControlTrigger") continue;
      const auto may_be_dead = [&](const Plan::Step& from) {
        return from.may_be_dead || from.is_switch;
      };
      for (int in : s.inputs) {
        const int maker = makers_[static_cast<size_t>(in)];
        if (maker >= 0 && may_be_dead(plan_->steps_[static_cast<size_t>(maker)])) {
          s.may_be_dead = true;
        }
      }
      if (!IsCopy(s)) {
        for (Node* c : ControlsOf(s.node)) {
          auto it = step_of_.find(UnitOf(c));
          if (it == step_of_.end()) continue;
          const Plan::Step& from = plan_->steps_[static_cast<size_t>(it->second)];
          if (may_be_dead(from)) s.may_be_dead = true;
          if (from.may_be_dead) s.control.push_back(it->second);
        }
      }
      if (s.may_be_dead) s.once = false;
    }
  }

  // ---- Replaying ----

  static bool TellsShape(const Node* n) {
    return n->op() == "Shape" || n->op() == "ShapeN" || n->op() == "Size" || n->op() == "Rank";
  }

  // Decides whether the plan can be replayed, and sorts its steps into parts.
  void FindParts() {
    using Part = Plan::Part;
    if (!replay_ || plan_->gpus_.size() != 1) return;
    std::vector<Plan::Step>& steps = plan_->steps_;
    const auto part_of = [&](int slot) {
      const int maker = makers_[static_cast<size_t>(slot)];
      return maker < 0 ? Part::kBefore : steps[static_cast<size_t>(maker)].part;
    };
    bool any_captured = false;
    absl::flat_hash_set<int> boundary, shapes;
    // Of skipped steps: whether it comes after captured ones, the shape of whose outputs it tells.
    std::vector<bool> late(steps.size(), false);
    const auto is_late = [&](int slot) {
      const int maker = makers_[static_cast<size_t>(slot)];
      return maker >= 0 && (steps[static_cast<size_t>(maker)].part == Part::kCaptured ||
                            late[static_cast<size_t>(maker)]);
    };
    for (size_t t = 0; t < steps.size(); ++t) {
      Plan::Step& s = steps[t];
      if (s.may_be_dead || s.restores || s.commit || s.loop) return;
      bool all_skipped = true, needs_gpu = false, needs_after = false, needs_late = false;
      for (int in : s.inputs) {
        const Part p = part_of(in);
        all_skipped = all_skipped && p == Part::kSkipped;
        needs_gpu = needs_gpu || p == Part::kCaptured || p == Part::kAfter;
        needs_after = needs_after || p == Part::kAfter;
        needs_late = needs_late || is_late(in);
      }
      if (s.once) {
        s.part = Part::kSkipped;
        if (HoldsVariable(types_[static_cast<size_t>(s.outputs)])) boundary.insert(s.outputs);
        continue;
      }
      switch (s.kind) {
        case Plan::Kind::kPeer:
          return;
        case Plan::Kind::kToDevice:
          if (needs_gpu) return;
          s.part = all_skipped ? Part::kSkipped : Part::kBefore;
          if (s.part == Part::kBefore) boundary.insert(s.outputs);
          late[t] = all_skipped;  // Once is enough, and nothing before needs it.
          continue;
        case Plan::Kind::kToHost:
          // A variable is to be copied as it is then; at the end, for a fetch, that is always so.
          if (in_variable_[static_cast<size_t>(s.inputs[0])] && !IsFetch(s.outputs)) return;
          s.part = Part::kAfter;
          continue;
        case Plan::Kind::kLoop:
        case Plan::Kind::kKernel:
          break;
      }
      const Node* n = s.node;
      // The shapes of what lies on the GPU follow from what the graph is captured for, which may be
      // shapes of the host's values too.
      if (TellsShape(n) && !needs_after) {
        s.part = Part::kSkipped;
        late[t] = needs_late;
        for (int in : s.inputs) {
          if (!homes_[static_cast<size_t>(in)] && part_of(in) == Part::kBefore) shapes.insert(in);
        }
        continue;
      }
      if (s.gpu) {
        if (needs_after || !replayable_[t]) return;
        s.part = Part::kCaptured;
        any_captured = true;
        for (int in : s.inputs) {
          // A value that the kernel reads on the host and that may differ from Run to Run.
          if (!homes_[static_cast<size_t>(in)] && part_of(in) == Part::kBefore) {
            boundary.insert(in);
          }
        }
        continue;
      }
      if (n->info()->def.is_stateful()) return;
      for (int in : s.inputs) {
        if (HoldsVariable(types_[static_cast<size_t>(in)])) return;
      }
      s.part = all_skipped               ? Part::kSkipped
               : needs_gpu || needs_late ? Part::kAfter
                                         : Part::kBefore;
      late[t] = all_skipped && needs_late;
    }
    plan_->replayable_ = any_captured;
    for (size_t t = 0; t < steps.size(); ++t) {
      const Plan::Step& s = steps[t];
      const bool early = s.part == Part::kBefore || (s.part == Part::kSkipped && !late[t]);
      (early                    ? plan_->before_
       : s.part == Part::kAfter ? plan_->after_
                                : plan_->middle_)
          .push_back(t);
      if (s.part != Part::kCaptured || !WritesVariable(s.node)) continue;
      for (int i = 0; i < s.node->num_inputs(); ++i) {
        if (HoldsVariable(s.node->input_type(i))) plan_->written_.emplace_back(t, i);
      }
    }
    plan_->boundary_.assign(boundary.begin(), boundary.end());
    std::sort(plan_->boundary_.begin(), plan_->boundary_.end());
    plan_->shape_boundary_.assign(shapes.begin(), shapes.end());
  }

  bool IsFetch(int slot) const {
    const std::vector<int>& f = plan_->fetch_slots_;
    return std::find(f.begin(), f.end(), slot) != f.end();
  }

  // ---- Memory ----
  DType OutputType(const Plan::Step& s, size_t o) const {
    return types_[static_cast<size_t>(s.outputs) + o];
  }

  int Find(int slot) {
    while (parent_[static_cast<size_t>(slot)] != slot) {
      int& p = parent_[static_cast<size_t>(slot)];
      p = parent_[static_cast<size_t>(p)];
      slot = p;
    }
    return slot;
  }
  void Union(int a, int b) {
    a = Find(a), b = Find(b);
    if (a == b) return;
    parent_[static_cast<size_t>(b)] = a;
    last_use_[static_cast<size_t>(a)] =
        std::max(last_use_[static_cast<size_t>(a)], last_use_[static_cast<size_t>(b)]);
    foreign_[static_cast<size_t>(a)] =
        foreign_[static_cast<size_t>(a)] || foreign_[static_cast<size_t>(b)];
    kept_[static_cast<size_t>(a)] =
        kept_[static_cast<size_t>(a)] || kept_[static_cast<size_t>(b)];
  }

  // An estimate for matching values to registers; unknown sizes count as 32.
  static int64_t EstimateBytes(const Node* n, int output) {
    const PartialShape& shape = n->output_shape(output);
    int64_t bytes = std::max<int64_t>(1, static_cast<int64_t>(ElementSize(n->output_type(output))));
    if (!shape.known_rank()) return bytes * 1024;
    for (int i = 0; i < shape.rank(); ++i) {
      const int64_t d = shape.dim(i) < 0 ? 32 : shape.dim(i);
      if (d > 0 && bytes > (int64_t{1} << 50) / d) return int64_t{1} << 50;
      bytes *= d;
    }
    return bytes;
  }

  // Whether what the step writes to the host's memory shares it with nothing else. When a plan is
  // replayed, its steps don't run in their order, and some don't run at all: what one part's steps
  // write must be there when another part's read it. Only the last part may use memory again.
  bool HasOwnMemory(const Plan::Step& s, size_t slot) const {
    return plan_->replayable_ && !homes_[slot] && s.part != Plan::Part::kAfter;
  }

  void AssignMemory() {
    const size_t slots = static_cast<size_t>(plan_->num_slots_);
    parent_.resize(slots);
    last_use_.assign(slots, -1);
    foreign_.assign(slots, false);
    kept_.assign(slots, false);
    for (size_t i = 0; i < slots; ++i) parent_[i] = static_cast<int>(i);
    for (int s : plan_->feed_slots_) foreign_[static_cast<size_t>(s)] = true;
    const std::vector<Plan::Step>& steps = plan_->steps_;
    for (size_t t = 0; t < steps.size(); ++t) {
      const Plan::Step& s = steps[t];
      for (int in : s.inputs) {
        last_use_[static_cast<size_t>(in)] =
            std::max(last_use_[static_cast<size_t>(in)], static_cast<int>(t));
      }
      for (size_t o = 0; o < s.registers.size(); ++o) {
        const size_t slot = static_cast<size_t>(s.outputs) + o;
        last_use_[slot] = std::max(last_use_[slot], static_cast<int>(t));
        if (s.once || s.reads_in_place || s.loop || HoldsVariable(OutputType(s, o)) ||
            (s.kind == Plan::Kind::kKernel && GivesHeldValue(s.node, o))) {
          foreign_[slot] = true;
          kept_[slot] = true;
        }
        if (HasOwnMemory(s, slot)) last_use_[slot] = kForever;
      }
      if (IsCopy(s)) {
        // A copy's memory is its own: the next Run's copy needs only wait for this Run. What it
        // reads stays until somebody has waited for it.
        last_use_[static_cast<size_t>(s.outputs)] = kForever;
        last_use_[static_cast<size_t>(s.inputs[0])] = kForever;
      }
    }
    for (int s : plan_->fetch_slots_) last_use_[static_cast<size_t>(s)] = kForever;
    if (loop_) KeepForLoop();
    for (const Plan::Step& s : steps) {
      if (s.is_merge) {
        for (int in : s.inputs) Union(in, s.outputs);
      } else if (s.kind == Plan::Kind::kKernel && IsSwitch(s.node)) {
        Union(s.inputs[0], s.outputs);
        Union(s.inputs[0], s.outputs + 1);
      } else if (s.kind == Plan::Kind::kKernel && !s.registers.empty() &&
                 s.node->info()->aliases_input >= 0) {
        Union(s.inputs[static_cast<size_t>(s.node->info()->aliases_input)], s.outputs);
      }
    }
    // Updating in place: an input whose class ends with this step.
    for (size_t t = 0; t < steps.size(); ++t) {
      Plan::Step& s = plan_->steps_[t];
      for (int k : in_place_[t]) {
        if (k >= static_cast<int>(s.inputs.size()) || s.in_place.size() == 2) continue;
        const size_t c = static_cast<size_t>(Find(s.inputs[static_cast<size_t>(k)]));
        if (foreign_[c] || last_use_[c] != static_cast<int>(t)) continue;
        // Of one that is an input twice, only element-wise kernels read each element before they
        // write it.
        const auto shares = [&](int in) { return Find(in) == static_cast<int>(c); };
        if (absl::c_count_if(s.inputs, shares) > 1 && s.kernel->element_loop().inputs == 0) {
          continue;
        }
        s.in_place.push_back(k);
        if (k == 0 && OutputType(s, 0) == DType::kVariant) {
          s.input_ends = true;
          s.plain = false;
        }
      }
      for (int k : s.in_place) Union(s.outputs, s.inputs[static_cast<size_t>(k)]);
    }
    // Registers, by a linear scan. A step's outputs are placed before its inputs are released.
    struct Free {
      int64_t bytes;
      int reg;
    };
    std::vector<Free> free;
    std::vector<int64_t> reg_bytes;
    std::vector<std::vector<int>> ending(steps.size() + 1);
    absl::flat_hash_set<int> carried;  // The roots of what goes to a loop's next iteration.
    if (loop_) {
      for (const Plan::Loop::Variable& v : loop_->variables) carried.insert(Find(v.next));
    }
    for (size_t t = 0; t < steps.size(); ++t) {
      Plan::Step& s = plan_->steps_[t];
      for (size_t o = 0; o < s.registers.size(); ++o) {
        const DType type = OutputType(s, o);
        const bool copy = IsCopy(s);
        // A restored value goes to its variable, and isn't kept from Run to Run.
        if (s.once || s.alone || s.reads_in_place || s.loop || HoldsVariable(type) ||
            ElementSize(type) == 0 ||
            (!copy && (IsSwitch(s.node) || s.node->op() == "RestoreV2" ||
                       (o == 0 && (s.is_merge || s.node->info()->aliases_input >= 0))))) {
          continue;
        }
        GpuDevice* const home = homes_[static_cast<size_t>(s.outputs) + o];
        Allocator* const allocator = home   ? home->allocator()
                                     : copy ? PinnedAllocator()
                                            : HostAllocator::Get();
        const int64_t bytes = copy ? 0 : EstimateBytes(s.node, static_cast<int>(o));
        // The free register nearest in size, of those that became free last.
        size_t best = free.size();
        auto distance = [&](int64_t have) {
          return have > bytes ? have / std::max<int64_t>(bytes, 1)
                              : bytes / std::max<int64_t>(have, 1);
        };
        const bool own = copy || HasOwnMemory(s, static_cast<size_t>(s.outputs) + o) ||
                         carried.contains(Find(s.outputs + static_cast<int>(o)));
        const size_t first = free.size() - std::min(free.size(), kRegistersLookedAt);
        for (size_t f = free.size(); f-- > first && !own;) {
          if (plan_->register_allocators_[static_cast<size_t>(free[f].reg)] != allocator) continue;
          if (best == free.size() || distance(free[f].bytes) < distance(free[best].bytes)) best = f;
        }
        int reg;
        if (best < free.size() && distance(free[best].bytes) < 16) {
          reg = free[best].reg;
          free.erase(free.begin() + static_cast<std::ptrdiff_t>(best));
        } else {
          reg = plan_->num_registers_++;
          plan_->register_allocators_.push_back(allocator);
          reg_bytes.push_back(0);
        }
        reg_bytes[static_cast<size_t>(reg)] = std::max(reg_bytes[static_cast<size_t>(reg)], bytes);
        s.registers[o] = reg;
        const int end = last_use_[static_cast<size_t>(Find(s.outputs + static_cast<int>(o)))];
        if (end != kForever) ending[static_cast<size_t>(end)].push_back(reg);
      }
      for (int reg : ending[t]) free.push_back({reg_bytes[static_cast<size_t>(reg)], reg});
    }
    if (loop_) AssignVariables();
    for (int s : plan_->fetch_slots_) {
      // Pinned memory is not for the caller to keep.
      const int maker = makers_[static_cast<size_t>(s)];
      const bool copied =
          maker >= 0 && plan_->steps_[static_cast<size_t>(maker)].kind != Plan::Kind::kKernel;
      plan_->fetch_shares_.push_back(!copied && !kept_[static_cast<size_t>(Find(s))]);
    }
  }

  // The lives of a loop's values: those of what goes to the next iteration, or may leave the loop,
  // don't end within it.
  void KeepForLoop() {
    for (int s : invariants_) foreign_[static_cast<size_t>(s)] = true;
    const auto until = [&](int slot, int end) {
      int& last = last_use_[static_cast<size_t>(slot)];
      last = std::max(last, end);
    };
    for (const Plan::Loop::Variable& v : loop_->variables) until(v.next, kForever);
    const bool in_body = loop_->condition && loop_->end == plan_->steps_.size();
    for (int s : loop_->exits) until(s, in_body ? static_cast<int>(loop_->body) : kForever);
    if (loop_->condition) until(loop_->condition_slot, static_cast<int>(loop_->always));
  }

  // Memory for the loop's variables, and which slots may share it.
  void AssignVariables() {
    absl::flat_hash_map<int, std::vector<int>> members;  // By root: slots that steps fill.
    for (const Plan::Step& s : plan_->steps_) {
      if (s.once) continue;
      for (size_t o = 0; o < s.registers.size(); ++o) {
        const int slot = s.outputs + static_cast<int>(o);
        members[Find(slot)].push_back(slot);
      }
    }
    absl::flat_hash_set<int> done;
    for (Plan::Loop::Variable& v : loop_->variables) {
      v.reg = plan_->num_registers_++;
      GpuDevice* const home = homes_[static_cast<size_t>(v.slot)];
      plan_->register_allocators_.push_back(home ? home->allocator() : HostAllocator::Get());
      for (const int root : {Find(v.slot), Find(v.next)}) {
        if (done.insert(root).second) {
          const std::vector<int>& slots = members[root];
          v.bound.insert(v.bound.end(), slots.begin(), slots.end());
        }
      }
    }
  }

  const Graph& graph_;
  const Plan::KernelLookup& lookup_;
  const bool replay_;
  std::unique_ptr<Plan> plan_;
  std::vector<Output> fetches_;  // What stands for those of the signature.
  std::shared_ptr<const Rewiring> rewiring_;
  // The loops; null: there are none. Which of them is planned here, 0: what lies in none.
  std::shared_ptr<const Frames> frames_;
  const int frame_ = 0;
  struct Edges {
    std::vector<Output> inputs;
    std::vector<Node*> control;
  };
  absl::flat_hash_map<const Node*, Edges> edges_;  // Of units that don't take what their node does.
  absl::flat_hash_map<const Node*, const Kernel*> fused_;
  // Of a loop: the plan around it, in which these slots go to its Enters; what is known of it so
  // far, and where an Enter is in its `enters`; its slots that don't change within an iteration; by
  // variable, what it becomes.
  const PlanMaker* const outer_ = nullptr;
  const std::vector<int> entered_from_;
  std::unique_ptr<Plan::Loop> loop_;
  absl::flat_hash_map<const Node*, size_t> enter_at_;
  std::vector<int> invariants_;
  absl::flat_hash_set<int> variable_of_;
  std::vector<Output> next_of_;
  absl::flat_hash_map<const Node*, Turn> turns_;  // By unit; of the others it is kFirst.
  Turn turn_ = Turn::kFirst;                      // Of the step that is being made.
  absl::flat_hash_map<const Node*, int> first_slot_;  // Of what its step makes.
  absl::flat_hash_map<Output, int> named_;            // Others.
  absl::flat_hash_map<Output, int> fed_;
  absl::flat_hash_set<Node*> needed_;
  absl::flat_hash_set<const Node*> only_waited_for_;  // These do nothing.
  absl::flat_hash_set<const Node*> restores_;    // Assigns that commit together.
  absl::flat_hash_set<const Node*> on_the_way_;  // These, and where their values come from.
  absl::flat_hash_set<const Node*> read_in_place_;  // ReadVariableOps.
  std::vector<Node*> order_;
  std::vector<size_t> commits_;  // Places in order_ before which there is a commit.
  absl::flat_hash_map<const Node*, int> step_of_;
  std::vector<std::vector<int>> in_place_;  // As the kernels allow, by step.
  std::vector<bool> replayable_;            // By step.
  // By slot: its type; the GPU in whose memory it lies; the step that makes it, -1 for feeds; the
  // event that tells when a copy to the host is done, -1 for others.
  std::vector<DType> types_;
  std::vector<GpuDevice*> homes_;
  std::vector<int> makers_, arrives_;
  std::vector<bool> in_variable_;  // Whether it may lie in a variable's memory.
  absl::flat_hash_map<std::pair<int, GpuDevice*>, int> copies_;
  // By slot (of a class: at its root).
  std::vector<int> parent_, last_use_;
  std::vector<bool> foreign_;  // Memory that the run doesn't own: feeds, constants, variables.
  std::vector<bool> kept_;     // May lie in a constant's or a variable's memory.
};

absl::StatusOr<std::unique_ptr<Plan>> Plan::Make(const Graph& graph, Signature signature,
                                                 const KernelLookup& lookup, bool replay) {
  return PlanMaker(graph, std::move(signature), lookup, replay).Make();
}

}  // namespace ferry
