// Reverse-mode differentiation over the graph: nodes between the xs and the ys are visited when all
// that they feed (of those nodes) was; what came for one output is added up. A loop counts as one
// node; its body is gone through by a Differentiator of its own.
#include "runtime/graph/gradients.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status.h"
#include "runtime/graph/cond.h"
#include "runtime/graph/frames.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/sparse_gradient.h"

namespace ferry {
namespace {

// Variables' handles are, as what is read from them.
bool IsTrainable(DType t) {
  t = BaseType(t);
  if (t == DType::kResource) return true;
  return IsFloating(t) || t == DType::kComplex64 || t == DType::kComplex128;
}

// Ops whose gradient is that of their output, rows or not: what variables are read through.
bool PassesGradientOn(const Node* node) {
  return node->op() == "Identity" || node->op() == "ReadVariableOp";
}

// An Identity of each gradient that waits for all of them.
void GateGradients(const Scope& scope, std::vector<Gradient>* grads) {
  std::vector<Node*> producers;
  for (const Gradient& g : *grads) {
    if (!g.empty()) producers.push_back(g.values.node);
  }
  if (producers.size() < 2) return;
  const Scope tuple = scope.NewSubScope("tuple");
  Node* gate = ops::Group(tuple.WithOpName("group_deps"), producers);
  for (Gradient& g : *grads) {
    if (g.empty()) continue;
    const Scope near = tuple.ColocateWith(g.values.node).WithControlDependencies({gate});
    g.values = ops::Identity(near.WithOpName("control_dependency"), g.values);
    if (g.is_sparse()) g.indices = ops::Identity(near.WithOpName("indices"), g.indices);
  }
}

// The sum of several: rows one behind the other while all are sparse, a tensor otherwise.
Gradient AddUp(const Scope& s, const std::vector<Gradient>& grads) {
  const auto sparse = [](const Gradient& g) { return g.is_sparse(); };
  if (!std::all_of(grads.begin(), grads.end(), sparse)) {
    const Scope sub = s.NewSubScope("AddN");
    std::vector<Output> all;
    for (size_t i = 0; i < grads.size(); ++i) {
      all.push_back(ToDense(sub, grads[i], absl::StrCat("inputs_", i)));
    }
    return ops::AddN(s.WithOpName(sub.prefix() + "/"), all);
  }
  const bool wide = std::any_of(grads.begin(), grads.end(), [](const Gradient& g) {
    return g.indices.dtype() == DType::kInt64;
  });
  std::vector<Output> values, indices;
  for (const Gradient& g : grads) {
    values.push_back(g.values);
    const bool fits = !wide || g.indices.dtype() == DType::kInt64;
    indices.push_back(fits ? g.indices : ops::Cast(s, g.indices, DType::kInt64));
  }
  auto concat = [&s](const std::vector<Output>& parts) {
    const Scope sub = s.NewSubScope("concat");
    Output axis = ops::Const<int32_t>(sub.WithOpName("axis"), 0);
    return ops::ConcatV2(s.WithOpName(sub.prefix() + "/"), parts, axis);
  };
  Output rows = concat(values);
  return {rows, concat(indices), grads[0].dense_shape};
}

// ---- Loops ----
//
// Gradients of while loops, as TensorFlow 1 takes them: beside the loop comes a counter, and a
// backward loop with as many iterations, in which gradients go through the body. What that needs of
// the iterations is pushed on stacks by the loop and popped, last first, by the backward loop;
// gradients of what is the same in all iterations add up.
//
//   loop:           n = 0;  while (condition) { n += 1; push(x); x = f(x, w); }
//   backward loop:  while (n >= 1) { n -= 1; x = pop(); dw += f_w(x, w) dx; dx = f_x(x, w) dx; }
//
// A push within a branch of a conditional happens when the branch is taken, and its pop then too:
// the predicate is pushed as well.

// The loops through which one call of AddSymbolicGradients goes back. Thread-compatible.
class LoopGradients {
 public:
  // Adds gradients of `ys`, given theirs, with regard to `xs`, which all lie in the frame; nodes
  // are made in the scope.
  using Backpropagate = absl::FunctionRef<absl::Status(
      const Scope& s, int frame, const std::vector<Output>& ys, const std::vector<Gradient>& grads,
      const std::vector<Output>& xs, std::vector<Gradient>* out)>;

  // Of what `ys` need; null when there is no loop. InvalidArgument as Frames::Find; Unimplemented
  // where a y lies in a loop, or needs what a gradient through a loop took from a stack.
  static absl::StatusOr<std::unique_ptr<LoopGradients>> Find(const Scope& s,
                                                             const std::vector<Output>& ys);

  const Frames& frames() const { return frames_; }
  // Whether a y needs the node. Of other nodes it isn't known where they lie.
  bool Needs(Node* n) const { return needed_.contains(n); }

  // The frame in which the node's outputs lie; that of a node which isn't known here is 0.
  int Lies(const Node* n) const;

  // Adds the backward loop of frame `f`, in the scope of the gradients around it. `through`: by
  // Enter, whether a gradient is wanted of what it takes. `exit_grads`: by Exit. *enter_grads: by
  // Enter, those of what they take. Unimplemented names the node that stands against it.
  absl::Status Differentiate(const Scope& s, int f, const std::vector<bool>& through,
                             const std::vector<Gradient>& exit_grads, Backpropagate backpropagate,
                             std::vector<Gradient>* enter_grads);

 private:
  friend class BackwardLoop;

  // What is added to a loop.
  struct Forward {
    Node* index = nullptr;  // Counts the iterations; pushes come after it,
    Node* sync = nullptr;   // and before this.
    Output count;           // How many there were, right outside.
  };
  // A value that there is only where `pred` came out so.
  struct Guard {
    Output pred;
    int side;
    bool operator==(const Guard& o) const { return pred == o.pred && side == o.side; }
  };
  using Guards = std::vector<Guard>;
  struct Variable {
    Node* merge = nullptr;
    Node* next = nullptr;   // Its NextIteration.
    Node* sides = nullptr;  // Its Switch.
    size_t enter = 0;       // Which of the loop's.
    Output grad;            // Of its value after the loop.
    Output backward_merge, backward_switch;
  };

  LoopGradients(const Scope& s, Frames frames, absl::flat_hash_set<Node*> needed)
      : scope_(s), frames_(std::move(frames)), needed_(std::move(needed)) {}

  bool IsWithin(const Node* n, int f) const;
  bool IsConstantEnter(const Node* n, int f) const;
  // A node that was added to a loop: its outputs lie in frame `f`. Null stays null.
  Output Made(Output o, int f);
  Output EnterForward(const Scope& s, Output value, int f);
  absl::Status AddCounter(const Scope& s, int f);
  void Push(const Scope& s, Output stack, Output value, int f);
  Guards GuardsOf(Output value, int f);
  Guards InputGuards(const Node* n, int f) const;
  void AddSide(Output value, int f, Guards* guards) const;

  absl::StatusOr<std::vector<Variable>> FindVariables(int f) const;
  absl::Status Select(int f, const std::vector<bool>& through,
                      const std::vector<Gradient>& exit_grads, std::vector<Variable>* variables,
                      std::vector<size_t>* constants) const;

  const Scope scope_;  // Where the gradients are asked for: of the stacks.
  const Frames frames_;
  const absl::flat_hash_set<Node*> needed_;
  absl::flat_hash_map<const Node*, int> made_;
  absl::flat_hash_map<int, Forward> forward_;
  absl::flat_hash_map<const Node*, Guards> guards_;
};

Output One(const Scope& s, const char* op, Output in) {
  return NodeBuilder(s, op).Input(in).BuildOutput();
}

Output Enter(const Scope& s, Output value, const std::string& frame, bool constant,
             int64_t parallel) {
  return NodeBuilder(s, "Enter")
      .Input(value)
      .Attr("frame_name", frame)
      .Attr("is_constant", constant)
      .Attr("parallel_iterations", parallel)
      .BuildOutput();
}

int64_t ParallelIterations(const Frames::Loop& loop) {
  return loop.enters.front()->Attr<int64_t>("parallel_iterations").value_or(10);
}

// Whether it passes on a value as it is.
bool IsIdentity(const Node* n) { return n->op() == "Identity" && !IsRef(n->input(0).dtype()); }

// The context in which a backward loop's ops are made.
class BackwardLoop : public ControlFlowContext {
 public:
  BackwardLoop(LoopGradients* loops, int forward, std::string name,
               std::shared_ptr<ControlFlowContext> outer)
      : loops_(loops),
        forward_(forward),
        name_(std::move(name)),
        parallel_(ParallelIterations(loops->frames_.loop(forward))),
        outer_(std::move(outer)) {}

  Output AddValue(const Scope& scope, Output value) override {
    if (!scope.ok() || value.node == nullptr) return Output();
    if (inside_.contains(value.node)) return value;
    if (auto it = known_.find(value); it != known_.end()) return it->second;
    const Scope s = scope.WithNoControlDependencies().ClearColocation();
    Output result;
    const Output origin = Origin(value);
    if (loops_->Lies(value.node) != forward_) {
      result = LetIn(s, value);
    } else if (loops_->IsConstantEnter(origin.node, forward_)) {
      result = AddValue(scope, origin.node->input(0));
    } else if (origin.node->op() == "Const") {
      result = Own(NodeBuilder(s.WithControlDependencies({pivot_}), "Const")
                       .AttrValue("value", origin.node->attrs().at("value"))
                       .Attr("dtype", origin.dtype())
                       .BuildOutput());
    } else {
      result = Pop(s, value);
    }
    if (!s.ok()) return Output();
    return known_[value] = result;
  }

  void AddOp(Node* node) override {
    inside_.insert(node);
    if (node->num_inputs() > 0 && pivot_ != nullptr &&
        std::all_of(node->inputs().begin(), node->inputs().end(),
                    [this](const Output& in) { return constants_.contains(in.node); })) {
      // It belongs to an iteration.
      node->graph()->AddControlEdge(pivot_, node).IgnoreError();  // Both are nodes of the graph.
    }
  }
  bool Contains(const Node* node) const override { return inside_.contains(node); }
  Node* pivot() const override { return pivot_; }

  // The loop's own nodes, which it makes without context.
  Output Own(Output o) {
    if (o.node != nullptr) inside_.insert(o.node);
    return o;
  }
  // A value from right outside that goes round.
  Output EnterVariable(const Scope& around, Output value) {
    return Own(Enter(around, value, name_, false, parallel_));
  }
  void set_pivot(Node* n) { pivot_ = n; }
  void set_sync(Node* n) { sync_ = n; }
  Node* sync() const { return sync_; }

  Output ShapeOf(const Scope& scope, Output x) {
    if (loops_->Lies(x.node) != forward_ || inside_.contains(x.node) ||
        loops_->IsConstantEnter(Origin(x).node, forward_)) {
      return Output();
    }
    auto [it, fresh] = shapes_.try_emplace(x);
    if (fresh) {
      it->second = loops_->Made(ops::Shape(scope.WithNoControlDependencies().ClearColocation(), x),
                                forward_);
    }
    return it->second.node == nullptr ? Output() : AddValue(scope, it->second);
  }

 private:
  // Where the loop's value comes from within an iteration, as it is.
  Output Origin(Output value) const {
    while (IsIdentity(value.node) && loops_->Lies(value.node->input(0).node) == forward_ &&
           loops_->Lies(value.node) == forward_) {
      value = value.node->input(0);
    }
    return value;
  }

  Output LetIn(const Scope& s, Output value) {
    const Output from = outer_ != nullptr ? outer_->AddValue(s, value) : value;
    const Output entered = Own(Enter(s.WithOpName("Enter"), from, name_, true, parallel_));
    constants_.insert(entered.node);
    return entered;
  }

  Output Pop(const Scope& s, Output value) {
    const DType type = BaseType(value.dtype());
    // One stack for all iterations, of the loops around this one too: they are undone in reverse.
    const Scope& outermost = loops_->scope_.WithPrefix(s.prefix());
    const Output stack = NodeBuilder(outermost.WithOpName("f_acc"), "StackV2")
                             .Input(ops::Const<int32_t>(outermost, -1))
                             .Attr("elem_type", type)
                             .BuildOutput();
    if (!s.ok()) return Output();
    loops_->Push(s, stack, value, forward_);
    Output handle = AddValue(s, stack);
    for (const LoopGradients::Guard& guard : loops_->GuardsOf(value, forward_)) {
      const Output pred = AddValue(s, guard.pred);
      const auto sides = ops::Switch(s, handle, pred);
      handle = Own(guard.side == 1 ? sides.output_true : sides.output_false);
    }
    const Output popped = Own(NodeBuilder(s.WithControlDependencies({pivot_}), "StackPopV2")
                                  .Input(handle)
                                  .Attr("elem_type", type)
                                  .BuildOutput());
    if (s.ok()) s.UpdateStatus(s.graph()->AddControlEdge(popped.node, sync_));
    return popped;
  }

  LoopGradients* const loops_;
  const int forward_;  // The frame that it undoes.
  const std::string name_;
  const int64_t parallel_;
  const std::shared_ptr<ControlFlowContext> outer_;
  Node* pivot_ = nullptr;
  Node* sync_ = nullptr;
  absl::flat_hash_set<const Node*> inside_, constants_;
  absl::flat_hash_map<Output, Output> known_, shapes_;
};

// The shape of a value of a loop, taken where the value is, when `s` is that of the backward loop;
// empty otherwise: only the shape is pushed then.
Output ShapeInLoop(const Scope& s, Output x) {
  auto* loop = dynamic_cast<BackwardLoop*>(s.context().get());
  return loop == nullptr || x.node == nullptr ? Output() : loop->ShapeOf(s, x);
}

absl::StatusOr<std::unique_ptr<LoopGradients>> LoopGradients::Find(const Scope& s,
                                                                   const std::vector<Output>& ys) {
  absl::flat_hash_set<Node*> needed;
  std::vector<Node*> stack;
  bool loops = false;
  const Node* pop = nullptr;
  const auto need = [&](Node* n) {
    if (needed.insert(n).second) stack.push_back(n);
  };
  for (const Output& y : ys) need(y.node);
  while (!stack.empty()) {
    const Node* n = stack.back();
    stack.pop_back();
    loops = loops || IsExit(n);
    if (n->op() == "StackPopV2" && IsTrainable(n->output_type(0))) pop = n;
    for (const Output& in : n->inputs()) need(in.node);
    for (Node* c : n->control_inputs()) need(c);
  }
  if (pop != nullptr) {
    return Unimplemented("no gradients of gradients through loops: a y needs ", Describe(pop),
                         ", which takes what a loop left for its gradient");
  }
  if (!loops) return nullptr;
  absl::StatusOr<Frames> frames = Frames::Find(
      needed, {}, [](const Node* n) -> const std::vector<Output>& { return n->inputs(); });
  if (!frames.ok()) return Annotate(frames.status(), "gradients");
  auto found = absl::WrapUnique(new LoopGradients(s, *std::move(frames), std::move(needed)));
  for (const Output& y : ys) {
    if (found->Lies(y.node) == 0) continue;
    return Unimplemented("no gradients through the loops in a loop's body alone: '", y.name(),
                         "' lies within the loop '",
                         found->frames_.loop(found->Lies(y.node)).name, "'");
  }
  return found;
}

int LoopGradients::Lies(const Node* n) const {
  if (auto it = made_.find(n); it != made_.end()) return it->second;
  const int f = frames_.Of(n);
  return f > 0 && IsExit(n) ? frames_.loop(f).parent : f;
}

bool LoopGradients::IsWithin(const Node* n, int f) const {
  int g = frames_.Of(n);
  while (g > 0 && g != f) g = frames_.loop(g).parent;
  return g == f;
}

bool LoopGradients::IsConstantEnter(const Node* n, int f) const {
  return IsEnter(n) && Lies(n) == f && n->Attr<bool>("is_constant").value_or(false);
}

Output LoopGradients::Made(Output o, int f) {
  if (o.node != nullptr) made_[o.node] = f;
  return o;
}

Output LoopGradients::EnterForward(const Scope& s, Output value, int f) {
  if (f == 0) return value;
  const Frames::Loop& loop = frames_.loop(f);
  return Made(Enter(s.WithOpName("Enter"), EnterForward(s, value, loop.parent), loop.name, true,
                    ParallelIterations(loop)),
              f);
}

// The counter: a variable more. What is pushed lies between `index` and `sync`, and so within its
// iteration.
absl::Status LoopGradients::AddCounter(const Scope& s, int f) {
  const Frames::Loop& loop = frames_.loop(f);
  const Scope plain = s.WithNoControlDependencies().ClearColocation();
  Output zero;
  if (loop.parent == 0) {
    zero = ops::Const<int32_t>(s.WithOpName("f_count"), 0);
  } else {
    // In the iteration of the loop around it, and after its pushes of the iteration before.
    const Scope around = plain.WithControlDependencies({forward_.at(loop.parent).index});
    zero = Made(ops::Const<int32_t>(around.WithOpName("f_count"), 0), loop.parent);
  }
  const Output entered =
      Made(Enter(plain.WithOpName("f_count"), zero, loop.name, false, ParallelIterations(loop)), f);
  const Output merge = Made(ops::Merge(plain, {entered, entered}).output, f);
  const auto sides = ops::Switch(plain, merge, Output(loop.condition, 0));
  Made(sides.output_true, f);
  const Output pivot = Made(ops::Identity(plain, sides.output_true), f);
  if (!s.ok()) return s.status();
  const Output one =
      Made(ops::Const<int32_t>(plain.WithControlDependencies({pivot.node}), 1), f);
  const Output index = Made(ops::AddV2(plain, pivot, one), f);
  const Output next = Made(One(plain, "NextIteration", index), f);
  const Output count = Made(One(plain.WithOpName("f_count"), "Exit", sides.output_false),
                            loop.parent);
  if (!s.ok()) return s.status();
  Node* const sync =
      NodeBuilder(plain.WithControlDependencies({index.node}).WithOpName("f_sync"),
                  "ControlTrigger")
          .Build();
  if (!s.ok()) return s.status();
  made_[sync] = f;
  FERRY_RETURN_IF_ERROR(s.graph()->UpdateInput(merge.node, 1, next));
  FERRY_RETURN_IF_ERROR(s.graph()->AddControlEdge(sync, next.node));
  forward_[f] = {index.node, sync, count};
  return absl::OkStatus();
}

void LoopGradients::Push(const Scope& s, Output stack, Output value, int f) {
  const Forward& forward = forward_.at(f);
  const Output push = Made(NodeBuilder(s.WithControlDependencies({forward.index}), "StackPushV2")
                               .Input(EnterForward(s, stack, f))
                               .Input(value)
                               .BuildOutput(),
                           f);
  if (s.ok()) s.UpdateStatus(s.graph()->AddControlEdge(push.node, forward.sync));
}

// The guard that a side of a conditional's Switch brings.
void LoopGradients::AddSide(Output value, int f, Guards* guards) const {
  if (!IsSwitch(value.node) || frames_.IsLoopSwitch(value.node)) return;
  Output pred = value.node->input(1);
  while (IsIdentity(pred.node) && Lies(pred.node) == f) pred = pred.node->input(0);
  const Guard guard{pred, value.index};
  if (std::find(guards->begin(), guards->end(), guard) == guards->end()) guards->push_back(guard);
}

// What the node itself depends on, from the guards of its inputs.
LoopGradients::Guards LoopGradients::InputGuards(const Node* n, int f) const {
  Guards all;
  bool first = true;
  const auto take = [&](const Output& in) {
    Guards guards;
    if (auto it = guards_.find(in.node); it != guards_.end()) guards = it->second;
    if (in.index >= 0 && Lies(in.node) == f) AddSide(in, f, &guards);
    if (first || !IsMerge(n)) {
      for (const Guard& g : guards) {
        if (std::find(all.begin(), all.end(), g) == all.end()) all.push_back(g);
      }
    } else {  // Either input does.
      all.erase(std::remove_if(all.begin(), all.end(),
                               [&](const Guard& g) {
                                 return std::find(guards.begin(), guards.end(), g) == guards.end();
                               }),
                all.end());
    }
    first = false;
  };
  for (const Output& in : n->inputs()) take(in);
  if (!IsMerge(n)) {
    for (Node* c : n->control_inputs()) take(Output(c, -1));
  }
  return all;
}

LoopGradients::Guards LoopGradients::GuardsOf(Output value, int f) {
  // What a node's guards follow from: within the iteration only.
  const auto sources = [&](const Node* n) {
    std::vector<Node*> from;
    if (IsExit(n)) {
      for (Node* enter : frames_.loop(Lies(n->input(0).node)).enters) {
        from.push_back(enter->input(0).node);
      }
    } else if (!IsEnter(n) && !Frames::ClosesLoop(n) && !frames_.IsLoopSwitch(n)) {
      for (const Output& in : n->inputs()) from.push_back(in.node);
      for (Node* c : n->control_inputs()) from.push_back(c);
    }
    from.erase(std::remove_if(from.begin(), from.end(), [&](Node* p) { return Lies(p) != f; }),
               from.end());
    return from;
  };
  std::vector<std::pair<Node*, bool>> stack = {{value.node, false}};
  while (!stack.empty()) {
    auto [n, ready] = stack.back();
    if (guards_.contains(n)) {
      stack.pop_back();
      continue;
    }
    const std::vector<Node*> from = sources(n);
    if (!ready) {
      stack.back().second = true;
      for (Node* p : from) {
        if (!guards_.contains(p)) stack.emplace_back(p, false);
      }
      continue;
    }
    stack.pop_back();
    Guards guards;
    if (IsExit(n)) {
      for (const Node* enter : frames_.loop(Lies(n->input(0).node)).enters) {
        for (const Guard& g : InputGuards(enter, f)) {
          if (std::find(guards.begin(), guards.end(), g) == guards.end()) guards.push_back(g);
        }
      }
    } else if (!from.empty()) {
      guards = InputGuards(n, f);
    }
    guards_[n] = std::move(guards);
  }
  Guards guards = guards_.at(value.node);
  AddSide(value, f, &guards);
  return guards;
}

absl::StatusOr<std::vector<LoopGradients::Variable>> LoopGradients::FindVariables(int f) const {
  const Frames::Loop& loop = frames_.loop(f);
  std::vector<Variable> variables;
  for (Node* n : loop.nodes) {
    if (!Frames::ClosesLoop(n)) continue;
    Variable v;
    v.merge = n;
    const bool from_first = IsEnter(n->input(0).node);
    v.next = n->input(from_first ? 1 : 0).node;
    const Node* const enter = n->input(from_first ? 0 : 1).node;
    v.enter = static_cast<size_t>(std::find(loop.enters.begin(), loop.enters.end(), enter) -
                                  loop.enters.begin());
    for (Node* c : n->consumers()) {
      if (c == v.sides || !frames_.IsLoopSwitch(c) || c->input(0) != Output(n, 0)) continue;
      if (v.sides != nullptr) {
        return Unimplemented("no gradients through ", Describe(n),
                             ": two Switches by its loop's condition take its value, ",
                             Describe(v.sides), " and ", Describe(c));
      }
      v.sides = c;
    }
    variables.push_back(v);
  }
  return variables;
}

// Those variables, and constant Enters, through which gradients flow.
absl::Status LoopGradients::Select(int f, const std::vector<bool>& through,
                                   const std::vector<Gradient>& exit_grads,
                                   std::vector<Variable>* variables,
                                   std::vector<size_t>* constants) const {
  const Frames::Loop& loop = frames_.loop(f);
  const auto takes = [](const Node* c, const Node* n) {
    return std::any_of(c->inputs().begin(), c->inputs().end(),
                       [n](const Output& in) { return in.node == n && IsTrainable(in.dtype()); });
  };
  // Forward from the Enters, around the loop.
  const auto spread = [&](std::vector<Node*> stack, const auto& enters) {
    absl::flat_hash_set<const Node*> reached;
    while (!stack.empty()) {
      Node* n = stack.back();
      stack.pop_back();
      if (!reached.insert(n).second) continue;
      for (Node* c : n->consumers()) {
        if (Needs(c) && IsWithin(c, f) && !(IsExit(c) && frames_.Of(c) == f) && takes(c, n) &&
            enters(c)) {
          stack.push_back(c);
        }
      }
    }
    return reached;
  };
  std::vector<Node*> start;
  for (size_t k = 0; k < loop.enters.size(); ++k) {
    if (through[k]) start.push_back(loop.enters[k]);
  }
  const auto reached = spread(start, [](const Node*) { return true; });
  // Backward from the Exits.
  absl::flat_hash_set<const Node*> leads;
  std::vector<const Node*> stack;
  for (size_t k = 0; k < loop.exits.size(); ++k) {
    if (exit_grads[k].empty()) continue;
    const Output& in = loop.exits[k]->input(0);
    if (!frames_.IsLoopSwitch(in.node) || frames_.Of(in.node) != f) {
      return Unimplemented("no gradients through ", Describe(loop.exits[k]), ": it takes ",
                           in.name(), ", which is made when the loop has ended");
    }
    stack.push_back(in.node);
  }
  while (!stack.empty()) {
    const Node* n = stack.back();
    stack.pop_back();
    if (!leads.insert(n).second || (IsEnter(n) && frames_.Of(n) == f)) continue;
    for (const Output& in : n->inputs()) {
      if (IsTrainable(in.dtype())) stack.push_back(in.node);
    }
  }
  std::vector<Variable> chosen;
  for (Variable& v : *variables) {
    if (!IsTrainable(v.merge->output_type(0)) || v.merge->output_type(0) == DType::kResource ||
        !reached.contains(v.merge) || !leads.contains(v.merge)) {
      continue;
    }
    if (v.sides == nullptr) {
      return Unimplemented("no gradients through ", Describe(v.merge),
                           ": no Switch by its loop's condition takes its value");
    }
    // A body that takes the Merge's value, and not the Switch's, would lose it on the way back.
    const auto past = spread({v.merge}, [&](const Node* c) { return !frames_.IsLoopSwitch(c); });
    for (const Variable& u : *variables) {
      if (past.contains(u.next) && leads.contains(u.next)) {
        return Unimplemented("no gradients through ", Describe(v.merge), ": ", Describe(u.next),
                             " takes its value past the Switch by its loop's condition");
      }
    }
    chosen.push_back(v);
  }
  *variables = std::move(chosen);
  for (size_t k = 0; k < loop.enters.size(); ++k) {
    if (through[k] && leads.contains(loop.enters[k]) && IsConstantEnter(loop.enters[k], f)) {
      constants->push_back(k);
    }
  }
  return absl::OkStatus();
}

absl::Status LoopGradients::Differentiate(const Scope& s, int f, const std::vector<bool>& through,
                                          const std::vector<Gradient>& exit_grads,
                                          Backpropagate backpropagate,
                                          std::vector<Gradient>* enter_grads) {
  const Frames::Loop& loop = frames_.loop(f);
  enter_grads->assign(loop.enters.size(), Gradient());
  if (loop.condition == nullptr) {
    return Unimplemented("no gradients through the frame '", loop.name, "' of ",
                         Describe(loop.enters.front()), ", which is no loop: it has no LoopCond");
  }
  FERRY_ASSIGN_OR_RETURN(std::vector<Variable> variables, FindVariables(f));
  std::vector<size_t> constants;
  FERRY_RETURN_IF_ERROR(Select(f, through, exit_grads, &variables, &constants));
  if (variables.empty() && constants.empty()) return absl::OkStatus();
  FERRY_RETURN_IF_ERROR(AddCounter(s, f));

  // The gradients with which it begins.
  const Scope plain = s.WithNoControlDependencies().ClearColocation();
  for (Variable& v : variables) {
    std::vector<Output> grads;
    Node* exit = nullptr;
    for (size_t k = 0; k < loop.exits.size(); ++k) {
      if (loop.exits[k]->input(0) != Output(v.sides, 0)) continue;
      exit = loop.exits[k];
      if (!exit_grads[k].empty()) grads.push_back(ToDense(s, exit_grads[k]));
    }
    if (grads.empty()) {
      if (exit == nullptr) exit = Made(One(plain, "Exit", Output(v.sides, 0)), loop.parent).node;
      if (!s.ok()) return s.status();
      v.grad = ops::ZerosLike(s, Output(exit, 0));
    } else {
      v.grad = grads.size() == 1 ? grads[0] : ops::AddN(s, grads);
    }
  }
  if (!s.ok()) return s.status();

  // The loop, with its counter.
  auto context = std::make_shared<BackwardLoop>(
      this, f, absl::StrCat(scope_.prefix(), "/", loop.name), s.context());
  const Scope inside = plain.InContext(context);
  const auto own = [&](Output o) { return context->Own(o); };
  const auto leave = [&](Output o) {  // A node that gives its value to what is around.
    if (o.node != nullptr && s.context() != nullptr) s.context()->AddOp(o.node);
    return o;
  };
  const Output one = ops::Const<int32_t>(s.WithOpName("b_count"), 1);
  const Output entered = context->EnterVariable(s.WithOpName("b_count"), forward_.at(f).count);
  const Output merge = own(ops::Merge(plain, {entered, entered}).output);
  if (!s.ok()) return s.status();
  context->set_pivot(merge.node);
  const Output more = ops::GreaterEqual(inside, merge, one);
  const Output go_on = One(inside.WithOpName("b_count"), "LoopCond", more);
  const auto count = ops::Switch(plain, merge, go_on);
  own(count.output_true);
  const Output index = ops::Sub(inside, count.output_true, one);
  if (!s.ok()) return s.status();
  context->set_pivot(index.node);
  Node* const sync =
      NodeBuilder(plain.WithControlDependencies({index.node}).WithOpName("b_sync"),
                  "ControlTrigger")
          .Build();
  const Output next = own(One(plain, "NextIteration", index));
  const Output last = leave(One(plain.WithOpName("b_count"), "Exit", count.output_false));
  if (!s.ok()) return s.status();
  context->set_sync(sync);
  FERRY_RETURN_IF_ERROR(s.graph()->UpdateInput(merge.node, 1, next));
  FERRY_RETURN_IF_ERROR(s.graph()->AddControlEdge(sync, next.node));
  if (auto* around = dynamic_cast<BackwardLoop*>(s.context().get())) {
    // All pops of this time come before those of the next.
    FERRY_RETURN_IF_ERROR(s.graph()->AddControlEdge(last.node, around->sync()));
  }

  // Its body: back from what a variable becomes to what it was.
  std::vector<Output> ys, xs;
  std::vector<Gradient> grads, found;
  for (Variable& v : variables) {
    const Output in = context->EnterVariable(s.WithOpName("b_exit"), v.grad);
    v.backward_merge = own(ops::Merge(plain.WithOpName("b_switch"), {in, in}).output);
    const auto sides = ops::Switch(plain, v.backward_merge, go_on);
    v.backward_switch = own(sides.output_true);
    if (!s.ok()) return s.status();
    ys.push_back(v.next->input(0));
    grads.push_back(v.backward_switch);
    xs.push_back(Output(v.sides, 1));
  }
  for (const size_t k : constants) xs.push_back(Output(loop.enters[k], 0));
  FERRY_RETURN_IF_ERROR(backpropagate(inside, f, ys, grads, xs, &found));
  for (size_t i = 0; i < variables.size(); ++i) {
    const Variable& v = variables[i];
    const Output grad = found[i].empty() ? ops::ZerosLike(inside, Output(v.sides, 1))
                                         : ToDense(inside, found[i]);
    const Output back = One(inside, "NextIteration", grad);
    const Output out = leave(One(plain, "Exit", Output(v.backward_switch.node, 0)));
    if (!s.ok()) return s.status();
    FERRY_RETURN_IF_ERROR(s.graph()->UpdateInput(v.backward_merge.node, 1, back));
    (*enter_grads)[v.enter] = out;
  }
  // What is the same in all iterations: the sum of its gradients.
  for (size_t i = 0; i < constants.size(); ++i) {
    const Gradient& gradient = found[variables.size() + i];
    if (gradient.empty()) continue;
    const Output value = loop.enters[constants[i]]->input(0);
    const Output grad = ToDense(inside, gradient);
    if (!s.ok()) return s.status();
    Output shape;
    if (value.dtype() != DType::kResource) {
      shape = ShapeOf(s, value);
    } else if (const PartialShape& known = value.node->handle_shape(); known.fully_defined()) {
      shape = ops::ConstVector(s, std::vector<int64_t>(known.dims().begin(), known.dims().end()));
    } else {
      shape = NodeBuilder(s, "VariableShape").Input(value).BuildOutput();
    }
    const Output zeros = ops::Fill(s, shape, ops::Cast(s, ops::Const<float>(s, 0), grad.dtype()));
    const Output in = context->EnterVariable(s.WithOpName("b_acc"), zeros);
    const Output sum = own(ops::Merge(plain.WithOpName("b_acc"), {in, in}).output);
    const auto sides = ops::Switch(plain, sum, go_on);
    own(sides.output_true);
    const Output back =
        One(inside, "NextIteration", ops::AddV2(inside, sides.output_true, grad));
    const Output out = leave(One(plain.WithOpName("b_acc"), "Exit", sides.output_false));
    if (!s.ok()) return s.status();
    FERRY_RETURN_IF_ERROR(s.graph()->UpdateInput(sum.node, 1, back));
    (*enter_grads)[constants[i]] = out;
  }
  return s.status();
}

// ---- The graph ----

// One call of AddSymbolicGradients, or the body of a loop in it: the nodes of one frame.
class Differentiator {
 public:
  // `loops` is null when there is none.
  Differentiator(const Scope& scope, LoopGradients* loops, int frame, const std::vector<Output>& xs,
                 const std::vector<Output>& stop_gradients, bool gate)
      : scope_(scope), gate_(gate), loops_(loops), frame_(frame), stop_gradients_(stop_gradients) {
    for (const Output& x : xs) from_.push_back(UnitOf(x.node));
  }

  void AddGrad(const Output& o, const Gradient& grad) { grads_[o].push_back(grad); }
  absl::Status Backpropagate(const std::vector<Output>& ys);
  Gradient Grad(const Output& o) { return Sum(o); }

 private:
  void MarkBetween(const std::vector<Output>& ys);
  // The loops right within the frame, each by its first Enter; other nodes stand for themselves.
  bool IsLoop(const Node* n) const {
    return loops_ && loops_->frames().Of(n) != 0 && LoopOf(n).parent == frame_;
  }
  const Frames::Loop& LoopOf(const Node* n) const {
    return loops_->frames().loop(loops_->frames().Of(n));
  }
  Node* UnitOf(Node* n) const { return IsLoop(n) ? LoopOf(n).enters.front() : n; }
  template <typename Fn>
  void ForEachInput(Node* unit, const Fn& fn) const {
    if (!IsLoop(unit)) {
      for (const Output& in : unit->inputs()) fn(in);
      return;
    }
    for (const Node* enter : LoopOf(unit).enters) fn(enter->input(0));
  }
  // The units that take outputs of `n` through which gradients flow.
  void Followers(const Node* n, std::vector<Node*>* out) const;
  absl::Status Visit(Node* node);
  absl::Status VisitLoop(Node* unit);
  Gradient Sum(const Output& o);

  Scope scope_;
  const bool gate_;
  LoopGradients* const loops_;
  const int frame_;
  const std::vector<Output>& stop_gradients_;
  std::vector<Node*> from_;
  absl::flat_hash_set<Node*> reached_;  // What depends on the xs.
  // The units between, with how many of their edges to others of them are still to be visited.
  absl::flat_hash_map<Node*, int> pending_;
  absl::flat_hash_set<Node*> stop_;
  absl::flat_hash_map<Output, std::vector<Gradient>> grads_;
};

void Differentiator::Followers(const Node* n, std::vector<Node*>* out) const {
  if (loops_ && IsNextIteration(n)) return;
  for (Node* c : n->consumers()) {
    if (loops_ && (!loops_->Needs(c) || (IsExit(c) && loops_->frames().Of(c) == frame_))) continue;
    const auto& in = c->inputs();
    if (std::any_of(in.begin(), in.end(),
                    [n](const Output& o) { return o.node == n && IsTrainable(o.dtype()); })) {
      out->push_back(UnitOf(c));
    }
  }
}

void Differentiator::MarkBetween(const std::vector<Output>& ys) {
  std::vector<Node*> stack(from_.begin(), from_.end());
  while (!stack.empty()) {
    Node* n = stack.back();
    stack.pop_back();
    if (!reached_.insert(n).second) continue;
    if (IsLoop(n)) {
      for (const Node* exit : LoopOf(n).exits) Followers(exit, &stack);
    } else {
      Followers(n, &stack);
    }
  }
  for (const Output& y : ys) stack.push_back(UnitOf(y.node));
  std::vector<Node*> between;
  while (!stack.empty()) {
    Node* n = stack.back();
    stack.pop_back();
    if (!reached_.contains(n) || !pending_.try_emplace(n, 0).second) continue;
    between.push_back(n);
    ForEachInput(n, [&](const Output& in) { stack.push_back(UnitOf(in.node)); });
  }
  for (Node* n : between) {
    ForEachInput(n, [&](const Output& in) {
      if (auto it = pending_.find(UnitOf(in.node)); it != pending_.end()) ++it->second;
    });
  }
  // An x that depends on no other x needs no going back further.
  for (Node* n : from_) {
    bool depends = false;
    ForEachInput(n, [&](const Output& in) {
      auto it = pending_.find(UnitOf(in.node));
      depends = depends || (it != pending_.end() && it->second > 0);
    });
    if (!depends) stop_.insert(n);
  }
  for (const Output& o : stop_gradients_) stop_.insert(UnitOf(o.node));
}

Gradient Differentiator::Sum(const Output& o) {
  auto it = grads_.find(o);
  if (it == grads_.end()) return {};
  if (it->second.size() > 1) it->second = {AddUp(scope_, it->second)};
  return it->second[0];
}

// Goes back through a whole loop.
absl::Status Differentiator::VisitLoop(Node* unit) {
  const int f = loops_->frames().Of(unit);
  const Frames::Loop& loop = LoopOf(unit);
  std::vector<Gradient> exit_grads, enter_grads;
  bool any = false;
  for (Node* exit : loop.exits) {
    exit_grads.push_back(Sum(Output(exit, 0)));
    any |= !exit_grads.back().empty();
  }
  FERRY_RETURN_IF_ERROR(scope_.status());
  if (!any || stop_.contains(unit)) return absl::OkStatus();
  std::vector<bool> through;
  for (const Node* enter : loop.enters) {
    const Output& in = enter->input(0);
    through.push_back(IsTrainable(in.dtype()) && reached_.contains(UnitOf(in.node)));
  }
  const auto body = [this](const Scope& s, int frame, const std::vector<Output>& ys,
                           const std::vector<Gradient>& grads, const std::vector<Output>& xs,
                           std::vector<Gradient>* out) -> absl::Status {
    Differentiator d(s, loops_, frame, xs, stop_gradients_, gate_);
    for (size_t i = 0; i < ys.size(); ++i) d.AddGrad(ys[i], grads[i]);
    FERRY_RETURN_IF_ERROR(d.Backpropagate(ys));
    for (const Output& x : xs) out->push_back(d.Grad(x));
    return s.status();
  };
  const Scope scope = scope_.NewSubScope(absl::StrCat(unit->name(), "_grad"));
  FERRY_RETURN_IF_ERROR(
      loops_->Differentiate(scope, f, through, exit_grads, body, &enter_grads));
  for (size_t k = 0; k < loop.enters.size(); ++k) {
    if (!enter_grads[k].empty()) AddGrad(loop.enters[k]->input(0), enter_grads[k]);
  }
  return scope_.status();
}

absl::Status Differentiator::Visit(Node* node) {
  if (IsLoop(node)) return VisitLoop(node);
  std::vector<Gradient> out_grads;
  bool any = false;
  for (int i = 0; i < node->num_outputs(); ++i) {
    out_grads.push_back(Sum(Output(node, i)));
    any |= !out_grads.back().empty();
  }
  FERRY_RETURN_IF_ERROR(scope_.status());
  if (!any || stop_.contains(node)) return absl::OkStatus();
  const OpInfo* info = node->info();
  if (info != nullptr && info->not_differentiable) return absl::OkStatus();
  if (info == nullptr || !info->gradient) {
    return NotFound("No gradient defined for operation '", node->name(), "' (op type: ", node->op(),
                    ")");
  }
  const std::string what = absl::StrCat("gradient of ", Describe(node));
  const Scope scope = scope_.NewSubScope(absl::StrCat(node->name(), "_grad"));
  std::vector<Gradient> in_grads;
  if (PassesGradientOn(node)) {
    in_grads = std::move(out_grads);
  } else {
    std::vector<Output> tensors;
    for (const Gradient& g : out_grads) tensors.push_back(ToDense(scope, g));
    SparseGradientContext context(scope, node, std::move(tensors));
    FERRY_RETURN_IF_ERROR(Annotate(info->gradient(&context), what));
    FERRY_RETURN_IF_ERROR(Annotate(scope.status(), what));
    in_grads = context.TakeInputGradients();
  }
  if (gate_) GateGradients(scope, &in_grads);
  FERRY_RETURN_IF_ERROR(scope.status());
  for (int i = 0; i < node->num_inputs(); ++i) {
    const Gradient& gradient = in_grads[static_cast<size_t>(i)];
    if (gradient.empty()) continue;
    const Output& g = gradient.values;
    const Output& x = node->input(i);
    const bool handle = x.dtype() == DType::kResource;
    const PartialShape& shape = handle ? x.node->handle_shape() : x.shape();
    if ((!handle && BaseType(g.dtype()) != BaseType(x.dtype())) ||
        (!gradient.is_sparse() && !g.shape().CompatibleWith(shape))) {
      return Internal(what, ": for input ", i, ", ", DTypeName(x.dtype()), " of shape ",
                      shape.DebugString(), ", it made ", DTypeName(g.dtype()), " of shape ",
                      g.shape().DebugString());
    }
    AddGrad(x, gradient);
  }
  return absl::OkStatus();
}

absl::Status Differentiator::Backpropagate(const std::vector<Output>& ys) {
  MarkBetween(ys);
  std::deque<Node*> queue;
  absl::flat_hash_set<Node*> queued;
  for (const Output& y : ys) {
    Node* const unit = UnitOf(y.node);
    auto it = pending_.find(unit);
    if (it != pending_.end() && it->second == 0 && queued.insert(unit).second) {
      queue.push_back(unit);
    }
  }
  size_t visited = 0;
  while (!queue.empty()) {
    Node* node = queue.front();
    queue.pop_front();
    ++visited;
    FERRY_RETURN_IF_ERROR(Visit(node));
    ForEachInput(node, [&](const Output& in) {
      auto it = pending_.find(UnitOf(in.node));
      if (it != pending_.end() && --it->second == 0) queue.push_back(it->first);
    });
  }
  if (visited == pending_.size()) return absl::OkStatus();
  // Only a loop that a y or an x lies in leaves nodes that wait for each other.
  Node* first = nullptr;
  for (const auto& [node, count] : pending_) {
    if (count > 0 && (first == nullptr || node->id() < first->id())) first = node;
  }
  return Unimplemented("no gradients of what lies within a loop: node '", first->name(), "' (",
                       first->op(), ") is part of one, or feeds one");
}

// The axes along which x (with `rank` dimensions after broadcasting) was stretched, and those of y.
// False when only running can tell.
bool KnownReductionAxes(const PartialShape& x, const PartialShape& y, std::vector<int32_t>* x_axes,
                        std::vector<int32_t>* y_axes) {
  if (!x.known_rank() || !y.known_rank()) return false;
  const int rank = std::max(x.rank(), y.rank());
  for (int axis = 0; axis < rank; ++axis) {
    const int x_at = axis - (rank - x.rank()), y_at = axis - (rank - y.rank());
    const int64_t dx = x_at < 0 ? 1 : x.dim(x_at), dy = y_at < 0 ? 1 : y.dim(y_at);
    if (dx == 1 && dy != 1) {
      x_axes->push_back(axis);
    } else if (dy == 1 && dx != 1) {
      y_axes->push_back(axis);
    } else if (dx == PartialShape::kUnknown || dy == PartialShape::kUnknown) {
      return false;
    }
  }
  return true;
}

Output SumTo(const Scope& s, Output grad, Output axes, Output shape) {
  return ops::Reshape(s, ops::Sum(s, grad, axes, /*keep_dims=*/true), shape);
}

Output SumTo(const Scope& s, Output grad, const std::vector<int32_t>& axes, Output shape) {
  const Scope sum = s.NewSubScope("Sum");
  Output indices = ops::ConstVector(sum.WithOpName("reduction_indices"), axes);
  grad = ops::Sum(s.WithOpName(sum.prefix() + "/"), grad, indices, /*keep_dims=*/true);
  return ops::Reshape(s, grad, shape);
}

}  // namespace

Output ShapeOf(const Scope& s, Output x) {
  if (x.node == nullptr || !x.shape().fully_defined()) {
    const Output in_loop = ShapeInLoop(s, x);
    return in_loop.node != nullptr ? in_loop : ops::Shape(s, x);
  }
  std::vector<int32_t> dims;
  for (int64_t d : x.shape().dims()) {
    if (d > std::numeric_limits<int32_t>::max()) return ops::Shape(s, x);
    dims.push_back(static_cast<int32_t>(d));
  }
  return ops::ConstVector(s.WithOpName("Shape"), dims);
}

namespace {
Output SliceVector(const Scope& s, Output x, int32_t begin, int32_t end,
                   const ops::StridedSliceMasks& masks) {
  const Scope sub = s.NewSubScope("strided_slice");
  const auto one = [&](int32_t value) {
    return ops::ConstVector<int32_t>(sub.WithOpName("stack"), {value});
  };
  Output from = one(begin), to = one(end), step = one(1);
  return ops::StridedSlice(s.WithOpName(sub.prefix() + "/"), x, from, to, step, masks);
}
}  // namespace

Output FirstElement(const Scope& s, Output x) {
  ops::StridedSliceMasks masks;
  masks.shrink_axis = 1;
  return SliceVector(s, x, 0, 1, masks);
}

Output AllButFirst(const Scope& s, Output x) {
  ops::StridedSliceMasks masks;
  masks.end = 1;
  return SliceVector(s, x, 1, 0, masks);
}

Output ToDense(const Scope& s, const Gradient& g, const std::string& name) {
  if (!g.is_sparse()) return g.values;
  const Scope sub = s.NewSubScope(name);
  return NodeBuilder(s.WithOpName(sub.prefix() + "/"), "UnsortedSegmentSum")
      .Input(g.values)
      .Input(g.indices)
      .Input(FirstElement(sub, g.dense_shape))
      .BuildOutput();
}

Output ScalarConst(const Scope& s, DType dtype, double value) {
  switch (dtype) {
    case DType::kHalf:
      return ops::Const(s, FloatToHalf(static_cast<float>(value)));
    case DType::kBfloat16:
      return ops::Const(s, FloatToBfloat16(static_cast<float>(value)));
    case DType::kFloat:
      return ops::Const(s, static_cast<float>(value));
    case DType::kDouble:
      return ops::Const(s, value);
    case DType::kInt32:
      return ops::Const(s, static_cast<int32_t>(value));
    case DType::kInt64:
      return ops::Const(s, static_cast<int64_t>(value));
    default:
      s.UpdateStatus(InvalidArgument("no scalar constant of type ", DTypeName(dtype)));
      return Output();
  }
}

std::pair<Output, Output> UnbroadcastGradients(const Scope& s, Output x, Output y, Output grad_x,
                                               Output grad_y) {
  const bool equal = x.shape().fully_defined() && x.shape() == y.shape();
  if (equal || (grad_x.node == nullptr && grad_y.node == nullptr)) return {grad_x, grad_y};
  Output x_shape = ShapeOf(s, x), y_shape = ShapeOf(s, y);
  std::vector<int32_t> x_axes, y_axes;
  if (KnownReductionAxes(x.shape(), y.shape(), &x_axes, &y_axes)) {
    const int rank = std::max(x.shape().rank(), y.shape().rank());
    const auto reduce = [&](Output grad, Output to, const std::vector<int32_t>& axes,
                            Output shape) {
      if (grad.node == nullptr) return grad;
      if (!axes.empty()) return SumTo(s, grad, axes, shape);
      // Only dimensions of 1 came in front.
      return to.shape().rank() < rank ? ops::Reshape(s, grad, shape) : grad;
    };
    grad_x = reduce(grad_x, x, x_axes, x_shape);
    return {grad_x, reduce(grad_y, y, y_axes, y_shape)};
  }
  Node* axes = NodeBuilder(s, "BroadcastGradientArgs").Input(x_shape).Input(y_shape).Build();
  if (axes == nullptr) return {};
  if (grad_x.node != nullptr) grad_x = SumTo(s, grad_x, Output(axes, 0), x_shape);
  if (grad_y.node != nullptr) grad_y = SumTo(s, grad_y, Output(axes, 1), y_shape);
  return {grad_x, grad_y};
}

absl::Status AddSymbolicGradients(const Scope& scope, const std::vector<Output>& ys,
                                  const std::vector<Output>& xs, std::vector<Gradient>* grads,
                                  const std::vector<Output>& grad_ys,
                                  const std::vector<Output>& stop_gradients, bool gate_gradients) {
  grads->clear();
  FERRY_RETURN_IF_ERROR(scope.status());
  if (grad_ys.size() > ys.size()) {
    return InvalidArgument("there are ", grad_ys.size(), " grad_ys for ", ys.size(), " ys");
  }
  for (const auto* list : {&ys, &xs, &stop_gradients}) {
    for (const Output& o : *list) {
      if (o.node == nullptr || o.node->graph() != scope.graph() || o.index < 0 ||
          o.index >= o.node->num_outputs()) {
        return InvalidArgument("'", o.name(), "' is not an output of a node of this graph");
      }
    }
  }
  const Scope sub = scope.NewSubScope("gradients");
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<LoopGradients> loops, LoopGradients::Find(sub, ys));
  for (const Output& x : xs) {
    if (loops && loops->Lies(x.node) > 0) {
      return Unimplemented("no gradients of what lies within a loop: '", x.name(),
                           "' has a value in each iteration of '",
                           loops->frames().loop(loops->Lies(x.node)).name, "'");
    }
  }
  Differentiator d(sub, loops.get(), 0, xs, stop_gradients, gate_gradients);
  for (size_t i = 0; i < ys.size(); ++i) {
    Output grad = i < grad_ys.size() ? grad_ys[i] : Output();
    if (grad.node != nullptr) {
      if (BaseType(grad.dtype()) != BaseType(ys[i].dtype())) {
        return InvalidArgument("grad_ys[", i, "] '", grad.name(), "' is ", DTypeName(grad.dtype()),
                               ", but '", ys[i].name(), "' is ", DTypeName(ys[i].dtype()));
      }
    } else if (!IsFloating(BaseType(ys[i].dtype()))) {
      return InvalidArgument("'", ys[i].name(), "' of type ", DTypeName(ys[i].dtype()),
                             " needs a value in grad_ys to be differentiated");
    } else {
      Output shape = ShapeOf(sub, ys[i]);
      const Scope ones = sub.NewSubScope(absl::StrCat("grad_ys_", i));
      Output one = ScalarConst(ones, BaseType(ys[i].dtype()), 1);
      grad = ops::Fill(ones.WithOpName(ones.prefix() + "/"), shape, one);
    }
    d.AddGrad(ys[i], grad);
  }
  FERRY_RETURN_IF_ERROR(sub.status());
  FERRY_RETURN_IF_ERROR(d.Backpropagate(ys));
  for (const Output& x : xs) grads->push_back(d.Grad(x));
  return sub.status();
}

absl::Status AddSymbolicGradients(const Scope& scope, const std::vector<Output>& ys,
                                  const std::vector<Output>& xs, std::vector<Output>* grads,
                                  const std::vector<Output>& grad_ys,
                                  const std::vector<Output>& stop_gradients, bool gate_gradients) {
  grads->clear();
  std::vector<Gradient> all;
  FERRY_RETURN_IF_ERROR(
      AddSymbolicGradients(scope, ys, xs, &all, grad_ys, stop_gradients, gate_gradients));
  for (const Gradient& g : all) grads->push_back(ToDense(scope, g));
  return scope.status();
}

}  // namespace ferry
