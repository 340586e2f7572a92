// Plan: what one Run signature (feeds, fetches, targets) does, decided once: which nodes run, in
// which order, with which kernels, and where their values lie. Internal to the session.
//
//   Graph ── prune ── order ── slots ── liveness ── registers ──▶ Plan (immutable, shared)
//                                                                  │ NewFrame
//                                                                  ▼
//                        Frame: slots, registers and kernel contexts of one Run at a time
//
// Order: topological; among steps that are ready, those that don't write variables come first, so
// that reads which no edge orders precede writes; then a depth-first order, so that values are
// used soon after they are made.
//
// Restores: an Assign whose value comes straight from a RestoreV2 only checks the value when its
// step comes; all such Assigns take effect together when the last of them is done, so that one
// that fails leaves every variable as it was. Steps that follow one of them come after that.
//
// Memory: every output has a Slot. Values that share memory by their op's nature (Identity,
// Reshape, Switch, Merge) form one class, alive until the last use of any of them. A class gets a
// Register from the pool of those whose classes are dead; registers keep their memory from Run to
// Run, so the steady state allocates nothing, whatever the shapes are.
#ifndef FERRY_RUNTIME_SESSION_PLAN_H_
#define FERRY_RUNTIME_SESSION_PLAN_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "runtime/base/mutex.h"
#include "absl/types/span.h"
#include "runtime/graph/graph.h"
#include "runtime/op/kernel.h"

namespace ferry {

class Frame;

class Plan {
 public:
  struct Signature {
    std::vector<Output> feeds, fetches;
    std::vector<Node*> targets;
  };
  // The kernel of a node, made at its first use and kept by the session.
  struct NodeKernel {
    std::unique_ptr<Kernel> kernel;
    const KernelDef* def = nullptr;
  };
  using KernelLookup = std::function<absl::StatusOr<const NodeKernel*>(Node*)>;

  // `lookup`'s results must outlive the plan.
  static absl::StatusOr<std::unique_ptr<Plan>> Make(const Graph& graph, Signature signature,
                                                    const KernelLookup& lookup);
  ~Plan();

  const Signature& signature() const { return signature_; }
  // Runs it: `feeds` and `fetches` in the signature's order.
  absl::Status Run(absl::Span<const Tensor> feeds, std::vector<Tensor>* fetches,
                   const RunContext& context) const;

  int num_steps() const { return static_cast<int>(steps_.size()); }
  int num_registers() const { return num_registers_; }

 private:
  friend class Frame;
  friend class PlanMaker;
  Plan() = default;

  struct Step {
    Node* node = nullptr;
    const Kernel* kernel = nullptr;
    std::vector<int> inputs;         // Slots.
    int outputs = 0;                 // The first of its slots.
    std::vector<int> registers;      // One an output; -1: none.
    std::vector<int> in_place;       // Inputs whose memory output 0 may take.
    std::vector<int> must_be_initialized;  // Inputs that are references.
    bool once = false;               // Its outputs never change: run when the frame is made.
    bool may_be_dead = false;        // Some input or predecessor may be.
    bool is_switch = false;
    bool is_merge = false;
    bool restores = false;           // An Assign that takes effect at the next commit.
    bool validate_shape = false;     // Its attribute.
    bool commit = false;             // A commit comes before it.
    std::vector<int> control;        // Steps it depends on that may be dead.
  };

  absl::Status RunSteps(Frame* frame, const RunContext& context) const;
  void Commit(Frame* frame) const;
  absl::Status Fetch(Frame* frame, std::vector<Tensor>* fetches) const;
  absl::StatusOr<Frame*> AcquireFrame(const RunContext& context) const;
  void ReleaseFrame(Frame* frame) const;

  Signature signature_;
  std::vector<Step> steps_;
  int num_slots_ = 0;
  int num_registers_ = 0;
  std::vector<int> feed_slots_;
  std::vector<int> fetch_slots_;
  std::vector<bool> fetch_shares_;  // Whether a fetch may hand out the slot's own buffer.
  bool touches_variables_ = false;

  // Frames that no Run uses now. The common case, one thread, is an exchange of `idle_`.
  mutable std::atomic<Frame*> idle_{nullptr};
  mutable Mutex mu_;
  mutable std::vector<std::unique_ptr<Frame>> frames_ ABSL_GUARDED_BY(mu_);
  mutable std::vector<Frame*> free_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_SESSION_PLAN_H_
