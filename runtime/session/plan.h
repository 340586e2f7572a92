// Plan: what one Run signature (feeds, fetches, targets) does, decided once: which nodes run, in
// which order, with which kernels, and where their values lie. Internal to the session.
//
//   Graph ── prune ── rewire, fuse ── order ── slots ── liveness ── registers ──▶ Plan (immutable)
//                                                                  │ NewFrame
//                                                                  ▼
//                        Frame: slots, registers and kernel contexts of one Run at a time
//
// Order: topological; among steps that are ready, those that don't write variables come first, so
// that reads which no edge orders precede writes; then a depth-first order, so that values are
// used soon after they are made.
//
// Restores: an Assign whose value comes from a RestoreV2, straight or through Identity and Reshape,
// only checks the value when its step comes; all such Assigns take effect together when the last of
// them is done, so that one that fails leaves every variable as it was. Steps that follow one of
// them come after that.
//
// Loops: what TensorFlow calls a frame (Enter … Exit, see runtime/graph/frames.h) is one step,
// which owns the plan of one iteration: first the steps that come before the loop's condition is
// known, then those of the body or, in the last iteration, those that take the values with which
// the loop ends. The Merges' outputs are slots of that plan, and at the end of an iteration they
// take over the memory of what goes to the next one. Frames within frames are steps of such plans.
//
// Memory: every output has a Slot. Values that share memory by their op's nature (Identity,
// Reshape, Switch, Merge) form one class, alive until the last use of any of them. A class gets a
// Register from the pool of those whose classes are dead; registers keep their memory from Run to
// Run, so the steady state allocates nothing, whatever the shapes are. A register's memory is the
// host's or one GPU's; where a value is wanted in another memory, a copy is a step of its own.
#ifndef FERRY_RUNTIME_SESSION_PLAN_H_
#define FERRY_RUNTIME_SESSION_PLAN_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/base/mutex.h"
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
    GpuDevice* gpu = nullptr;  // Where it runs; null: the CPU.
  };
  using KernelLookup = std::function<absl::StatusOr<const NodeKernel*>(Node*)>;

  // `lookup`'s results must outlive the plan. With `replay`, plans whose
  // steps are all on one GPU are captured after their first Runs and replayed.
  static absl::StatusOr<std::unique_ptr<Plan>> Make(const Graph& graph, Signature signature,
                                                    const KernelLookup& lookup, bool replay);
  ~Plan();

  const Signature& signature() const { return signature_; }
  // Runs it: `feeds` and `fetches` in the signature's order.
  absl::Status Run(absl::Span<const Tensor> feeds, std::vector<Tensor>* fetches,
                   const RunContext& context) const;

  int num_steps() const;  // Of those that each Run has.
  int num_registers() const { return num_registers_; }

 private:
  friend class Frame;
  friend class PlanMaker;
  Plan();

  // A copy between memories is a step of its own, with one input and one output. Copies to the
  // device and to the host pass through pinned memory, on the streams for them.
  enum class Kind { kKernel, kToDevice, kToHost, kPeer, kLoop };

  // A loop: its plan, and where its values are among that plan's slots. Without a condition it is
  // passed through once.
  struct Loop {
    // A loop variable: the output of a Merge to which a NextIteration comes back.
    struct Variable {
      int slot = 0;
      int next = 0;     // What it becomes.
      int reg = 0;      // Its memory, unless it shares another's.
      int index = -1;   // The slot of the Merge's second output; -1: nobody looks at it.
      std::vector<int> bound;  // Other slots that may share the memory of `slot` or `next`.
    };
    std::unique_ptr<Plan> plan;
    std::vector<int> enters;  // By input of the loop's step: where it goes.
    std::vector<int> exits;   // By output: where it comes from.
    std::vector<Variable> variables;
    // The first steps of those that need the condition to be known, of the body, and of what comes
    // when there is no other iteration.
    size_t always = 0, body = 0, end = 0;
    const Node* condition = nullptr;
    int condition_slot = -1;
    std::vector<int> condition_waits;  // Events that the host waits for before it looks at it,
    std::vector<int> waits;            // and at the end of each iteration.
  };

  // What a step is when the plan is replayed as a captured graph.
  enum class Part {
    kSkipped,  // Its outputs are the same whenever the shapes are: shapes, constants.
    kBefore,   // On the host, and needs nothing of the GPU's: copies of feeds to the device.
    kCaptured,
    kAfter,    // Needs the GPU's results: copies of fetches to the host.
  };

  struct Step {
    Node* node = nullptr;  // Of a copy: whose output is copied.
    const Kernel* kernel = nullptr;
    Kind kind = Kind::kKernel;
    Part part = Part::kCaptured;
    GpuDevice* gpu = nullptr;   // Runs it (the device's end of a copy); null: the CPU.
    GpuDevice* peer = nullptr;  // Of kPeer: where the input lies.
    DType copied = DType::kInvalid;
    bool alone = false;         // Its output's memory is not to be used again by the plan.
    int event = -1;             // Of a copy: the frame's event that tells when it is done.
    std::vector<int> waits;     // Such events, which the host waits for before this step.
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
    // What its value must fit: nothing, the declared shape, or the contents too.
    enum class Fits { kAnything, kDeclared, kContents } fits = Fits::kAnything;
    bool reads_in_place = false;     // A ReadVariableOp whose value may be the variable's memory.
    bool plain = true;               // All there is to do is the kernel's Compute.
    bool input_ends = false;         // The kernel is told that the value of its first input does.
    std::vector<int> needs_variable;  // Inputs of which only running tells whether they hold one,
    DType held = DType::kInvalid;     // which is to be of this dtype, if it is a handle.
    std::unique_ptr<Loop> loop;      // Of kLoop.
    int inner = -1;                  // Of kLoop: the frame's place for the loop's own state.
    bool commit = false;             // A commit comes before it.
    std::vector<int> control;        // Steps it depends on that may be dead.
  };

  // What is wrong if a node takes the handle of a variable `name` of `found` for one of `expected`.
  static absl::Status WrongType(const Node* n, DType expected, DType found,
                                const std::string& name);
  absl::Status RunSteps(Frame* frame, const RunContext& context) const;
  absl::Status RunOnce(Frame* frame, const RunContext& context) const;
  absl::Status RunLoop(Frame* frame, size_t t, const RunContext& context) const;
  absl::Status Iterate(Frame* frame, const Loop& loop, const RunContext& context) const;
  absl::Status Wait(Frame* frame, const std::vector<int>& events) const;
  absl::Status Commit(Frame* frame) const;
  template <bool kGpu>
  absl::Status RunStep(Frame* frame, size_t t, const RunContext& context) const;
  absl::Status RunGpuSteps(Frame* frame, const RunContext& context) const;
  absl::Status RunPart(Frame* frame, const RunContext& context,
                       const std::vector<size_t>& steps) const;
  absl::Status RunCopy(Frame* frame, size_t t) const;
  bool Boundary(const Frame& frame, std::vector<uint64_t>* out) const;
  absl::Status Launch(Frame* frame) const;
  absl::Status Capture(Frame* frame, const RunContext& context) const;
  absl::Status Fetch(Frame* frame, std::vector<Tensor>* fetches) const;
  absl::StatusOr<Frame*> AcquireFrame(const RunContext& context) const;
  void ReleaseFrame(Frame* frame) const;

  Signature signature_;
  std::vector<std::unique_ptr<Kernel>> kernels_;  // Of steps that compute no single node.
  std::vector<Step> steps_;
  int num_slots_ = 0;
  int num_registers_ = 0;
  int num_inner_ = 0;  // Loops among its steps.
  std::vector<int> feed_slots_;
  std::vector<int> fetch_slots_;
  std::vector<bool> fetch_shares_;  // Whether a fetch may hand out the slot's own buffer.
  bool touches_variables_ = false;
  std::vector<Allocator*> register_allocators_;
  std::vector<GpuDevice*> gpus_;  // That steps run on, or copy to or from.
  int num_events_ = 0;
  std::vector<int> fetch_waits_;  // Events that the host waits for before it fetches.
  std::vector<int> boundary_;        // Slots on which a captured graph depends,
  std::vector<int> shape_boundary_;  // and those on whose shapes alone it does.
  // Of a plan that can be replayed: its steps before the graph, within it or skipped, and after it,
  // and the references through which the graph writes, as (step, input).
  std::vector<size_t> before_, middle_, after_;
  std::vector<std::pair<size_t, int>> written_;
  bool replayable_ = false;

  // Frames that no Run uses now. The common case, one thread, is an exchange of `idle_`.
  mutable std::atomic<Frame*> idle_{nullptr};
  mutable Mutex mu_;
  mutable std::vector<std::unique_ptr<Frame>> frames_ ABSL_GUARDED_BY(mu_);
  mutable std::vector<Frame*> free_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_SESSION_PLAN_H_
