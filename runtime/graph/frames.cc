// Finds loops: see frames.h.
#include "runtime/graph/frames.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

// Each frame is a plan within a plan.
constexpr int kMaxDepth = 100;

bool IsOneOf(const Node* n, absl::string_view op) {
  absl::string_view own = n->op();
  if (own.size() == op.size() + 3 && own.substr(0, 3) == "Ref") own.remove_prefix(3);
  return own == op;
}

}  // namespace

std::string Describe(const Node* node) {
  return absl::StrCat("node '", node->name(), "' (", node->op(), ")");
}

bool IsEnter(const Node* n) { return IsOneOf(n, "Enter"); }
bool IsExit(const Node* n) { return IsOneOf(n, "Exit"); }
bool IsNextIteration(const Node* n) { return IsOneOf(n, "NextIteration"); }
bool IsMerge(const Node* n) { return IsOneOf(n, "Merge"); }
bool IsSwitch(const Node* n) { return IsOneOf(n, "Switch"); }

bool Frames::ClosesLoop(const Node* n) {
  return IsMerge(n) && std::any_of(n->inputs().begin(), n->inputs().end(),
                                   [](const Output& in) { return IsNextIteration(in.node); });
}

bool Frames::IsLoopSwitch(const Node* n) const {
  const int f = Of(n);
  return f > 0 && IsSwitch(n) && loop(f).condition && n->input(1).node == loop(f).condition;
}

absl::StatusOr<Frames> Frames::Find(const absl::flat_hash_set<Node*>& needed,
                                    const absl::flat_hash_map<Output, int>& fed,
                                    InputsOfNode inputs) {
  Frames frames;
  frames.loops_.emplace_back();
  std::vector<Node*> nodes(needed.begin(), needed.end());
  std::sort(nodes.begin(), nodes.end(),
            [](const Node* a, const Node* b) { return a->id() < b->id(); });

  // In topological order, the edges that close loops left out.
  absl::flat_hash_map<const Node*, int> waiting;
  absl::flat_hash_map<const Node*, std::vector<Node*>> followers;
  const auto for_each_edge = [&](Node* n, const auto& edge) -> absl::Status {
    const bool merge = IsMerge(n);
    for (const Output& in : inputs(n)) {
      if (fed.contains(in)) continue;
      if (IsNextIteration(in.node)) {
        if (merge) continue;
        return InvalidArgument(Describe(n), " takes the value of ", Describe(in.node),
                               ", which only a Merge can");
      }
      edge(in.node);
    }
    for (Node* c : n->control_inputs()) {
      if (!needed.contains(c)) continue;  // A placeholder that is fed.
      if (IsNextIteration(c)) {
        return InvalidArgument(Describe(n), " follows ", Describe(c),
                               ", which leads to the next iteration");
      }
      edge(c);
    }
    return absl::OkStatus();
  };
  std::deque<Node*> ready;
  for (Node* n : nodes) {
    int count = 0;
    FERRY_RETURN_IF_ERROR(for_each_edge(n, [&](Node* p) {
      followers[p].push_back(n);
      ++count;
    }));
    waiting[n] = count;
    if (count == 0) ready.push_back(n);
  }

  absl::flat_hash_map<std::pair<int, std::string>, int> by_name;
  // Where the node's outputs lie.
  const auto gives_to = [&](const Node* p) {
    const int f = frames.Of(p);
    return IsExit(p) ? frames.loop(f).parent : f;
  };
  const auto called = [&](int f) {
    return f == 0 ? std::string("in none") : absl::StrCat("in '", frames.loop(f).name, "'");
  };
  size_t done = 0;
  while (!ready.empty()) {
    Node* n = ready.front();
    ready.pop_front();
    ++done;
    // All inputs come from one frame.
    int f = -1;
    const Node* witness = nullptr;
    absl::Status status;
    const auto from = [&](const Node* p, int lies) {
      if (f >= 0 && f != lies && status.ok()) {
        status = InvalidArgument(
            "The ", Describe(n), " has inputs from different frames. The input '", p->name(),
            "' is ", called(lies), ", the input '", witness->name(), "' is ", called(f));
      }
      f = lies;
      witness = p;
    };
    for (const Output& in : inputs(n)) {
      if (fed.contains(in)) from(in.node, 0);
    }
    FERRY_RETURN_IF_ERROR(for_each_edge(n, [&](Node* p) { from(p, gives_to(p)); }));
    FERRY_RETURN_IF_ERROR(status);
    f = std::max(f, 0);
    if (IsEnter(n)) {
      FERRY_ASSIGN_OR_RETURN(std::string name, n->Attr<std::string>("frame_name"));
      auto [it, fresh] = by_name.try_emplace({f, name}, frames.size());
      if (fresh) {
        Loop loop;
        loop.name = std::move(name);
        loop.parent = f;
        loop.depth = frames.loop(f).depth + 1;
        if (loop.depth > kMaxDepth) {
          return InvalidArgument(Describe(n), ": frames are nested deeper than ", kMaxDepth);
        }
        frames.loops_[static_cast<size_t>(f)].inner.push_back(frames.size());
        frames.loops_.push_back(std::move(loop));
      }
      f = it->second;
    } else if (f == 0 && (IsExit(n) || IsNextIteration(n))) {
      return InvalidArgument(Describe(n), " is in no frame: no Enter leads to it");
    }
    if (f > 0) {
      frames.frame_[n] = f;
      Loop& loop = frames.loops_[static_cast<size_t>(f)];
      if (n->op() == "LoopCond") {
        if (loop.condition) {
          return InvalidArgument("the loop '", loop.name, "' has two conditions, ",
                                 Describe(loop.condition), " and ", Describe(n));
        }
        loop.condition = n;
      }
    }
    for (Node* follower : followers[n]) {
      if (--waiting[follower] == 0) ready.push_back(follower);
    }
  }
  if (done < nodes.size()) {
    // From any node that still waits, going back through such nodes must come round.
    const Node* n =
        *std::find_if(nodes.begin(), nodes.end(), [&](Node* m) { return waiting[m] > 0; });
    absl::flat_hash_set<const Node*> seen;
    while (seen.insert(n).second) {
      const Node* back = nullptr;
      for (const Output& in : inputs(n)) {
        if (!back && !fed.contains(in) && !(IsMerge(n) && IsNextIteration(in.node)) &&
            waiting[in.node] > 0) {
          back = in.node;
        }
      }
      for (const Node* c : n->control_inputs()) {
        if (!back && needed.contains(const_cast<Node*>(c)) && waiting[c] > 0) back = c;
      }
      n = back;
    }
    return InvalidArgument("the graph has a cycle that no NextIteration closes, through ",
                           Describe(n));
  }

  for (Node* n : nodes) {
    Loop& loop = frames.loops_[static_cast<size_t>(frames.Of(n))];
    (IsEnter(n) ? loop.enters : IsExit(n) ? loop.exits : loop.nodes).push_back(n);
  }
  for (Node* n : nodes) {
    const int f = frames.Of(n);
    const Loop& loop = frames.loop(f);
    if (ClosesLoop(n)) {
      const Node* enter = nullptr;
      const Node* next = nullptr;
      for (const Output& in : inputs(n)) {
        if (IsEnter(in.node)) enter = in.node;
        if (IsNextIteration(in.node)) next = in.node;
      }
      if (n->num_inputs() != 2 || !enter || fed.contains(n->input(0)) ||
          fed.contains(n->input(1))) {
        return InvalidArgument(
            Describe(n), " closes a loop; its inputs must be one Enter and one NextIteration");
      }
      if (frames.Of(next) != f) {
        return InvalidArgument(Describe(n), " is ", called(f), ", ", Describe(next),
                               ", which leads to it, ", called(frames.Of(next)));
      }
      if (!loop.condition) {
        return InvalidArgument("the loop '", loop.name, "' has no LoopCond: ", Describe(n),
                               " would go round forever");
      }
      continue;
    }
    if (!loop.condition) continue;
    if (IsExit(n)) continue;
    for (const Output& in : inputs(n)) {
      if (IsEnter(in.node) && frames.Of(in.node) == f &&
          !in.node->Attr<bool>("is_constant").value_or(false)) {
        return InvalidArgument(Describe(n), " takes the value of ", Describe(in.node),
                               ", which isn't constant, without a Merge that closes the loop");
      }
    }
  }
  return frames;
}

}  // namespace ferry
