#include "runtime/session/plan.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "runtime/base/flush_denormals.h"
#include "runtime/base/status.h"

namespace ferry {

// The state of one Run: made for a plan, used by one Run at a time, kept for the next.
class Frame {
 public:
  explicit Frame(const Plan& plan) : plan_(plan) {
    slots_.resize(static_cast<size_t>(plan.num_slots_));
    registers_.resize(static_cast<size_t>(plan.num_registers_));
    size_t inputs = 0, outputs = 0;
    for (const Plan::Step& s : plan.steps_) {
      inputs += s.inputs.size();
      outputs += s.registers.size();
    }
    input_slots_.reserve(inputs);
    output_registers_.reserve(outputs);
    contexts_ = std::vector<KernelContext>(plan.steps_.size());
    for (size_t i = 0; i < plan.steps_.size(); ++i) {
      const Plan::Step& s = plan.steps_[i];
      KernelContext& c = contexts_[i];
      c.num_inputs_ = static_cast<int>(s.inputs.size());
      c.num_outputs_ = static_cast<int>(s.registers.size());
      c.inputs_ = input_slots_.data() + input_slots_.size();
      for (int slot : s.inputs) input_slots_.push_back(&slots_[static_cast<size_t>(slot)]);
      c.outputs_ = slots_.data() + s.outputs;
      c.registers_ = output_registers_.data() + output_registers_.size();
      for (int r : s.registers) {
        output_registers_.push_back(r < 0 ? nullptr : &registers_[static_cast<size_t>(r)]);
      }
      c.output_types_ = s.node->output_types().data();
      for (int k : s.in_place) c.inplace_[c.inplace_count_++] = k;
      c.run_ = &run_;
    }
    dead_steps_.resize(plan.steps_.size());
  }

  // Lets go of memory that isn't the frame's own, so that feeds and large results don't live on.
  void DropBorrowed() {
    for (int slot : plan_.feed_slots_) slots_[static_cast<size_t>(slot)].tensor = Tensor();
    if (!run_.borrowed) return;
    run_.borrowed = false;
    for (const Plan::Step& s : plan_.steps_) {
      if (s.once) continue;
      for (size_t o = 0; o < s.registers.size(); ++o) {
        Slot& slot = slots_[static_cast<size_t>(s.outputs) + o];
        if (!slot.reg && slot.tensor.initialized()) slot.tensor = Tensor();
      }
    }
  }

  const Plan& plan_;
  std::vector<Slot> slots_;
  std::vector<Register> registers_;
  std::vector<Slot*> input_slots_;
  std::vector<Register*> output_registers_;
  std::vector<KernelContext> contexts_;
  std::vector<char> dead_steps_;
  std::vector<KernelContext*> restored_;  // Assigns that wait for the next commit.
  RunContext run_;
};

namespace {

std::string Describe(const Node* n) {
  return absl::StrCat("node '", n->name(), "' (", n->op(), ")");
}

}  // namespace

Plan::~Plan() = default;

absl::StatusOr<Frame*> Plan::AcquireFrame(const RunContext& context) const {
  Frame* frame = idle_.exchange(nullptr, std::memory_order_acquire);
  if (!frame) {
    MutexLock lock(&mu_);
    if (!free_.empty()) {
      frame = free_.back();
      free_.pop_back();
    }
  }
  if (frame) {
    frame->run_ = context;
    return frame;
  }
  auto fresh = std::make_unique<Frame>(*this);
  frame = fresh.get();
  frame->run_ = context;
  for (size_t t = 0; t < steps_.size(); ++t) {
    if (!steps_[t].once) continue;
    absl::Status status = steps_[t].kernel->Compute(&frame->contexts_[t]);
    if (!status.ok()) return Annotate(status, Describe(steps_[t].node));
  }
  MutexLock lock(&mu_);
  frames_.push_back(std::move(fresh));
  return frame;
}

void Plan::ReleaseFrame(Frame* frame) const {
  frame->DropBorrowed();
  frame = idle_.exchange(frame, std::memory_order_acq_rel);
  if (!frame) return;
  MutexLock lock(&mu_);
  free_.push_back(frame);
}

absl::Status Plan::RunSteps(Frame* frame, const RunContext& context) const {
  const bool timed = context.deadline != absl::InfiniteFuture();
  frame->restored_.clear();  // Of a Run that failed.
  for (size_t t = 0; t < steps_.size(); ++t) {
    const Step& step = steps_[t];
    if (step.once) continue;
    if (step.commit) Commit(frame);
    KernelContext& c = frame->contexts_[t];
    if (step.is_switch) {
      c.SetOutputAlive(0);
      c.SetOutputAlive(1);
    }
    if (step.may_be_dead) {
      bool dead = false;
      if (step.is_merge) {
        dead = true;
        for (int in : step.inputs) dead = dead && frame->slots_[static_cast<size_t>(in)].dead;
      } else {
        for (int in : step.inputs) dead = dead || frame->slots_[static_cast<size_t>(in)].dead;
        for (int p : step.control) dead = dead || frame->dead_steps_[static_cast<size_t>(p)];
      }
      frame->dead_steps_[t] = dead;
      for (int o = 0; o < c.num_outputs(); ++o) {
        dead ? c.SetOutputDead(o) : c.SetOutputAlive(o);
      }
      if (dead) continue;
    }
    for (int i : step.must_be_initialized) {
      // Through a Merge of references a slot may hold none.
      const Variable* v = c.variable(i);
      if (v && !v->initialized()) {
        return FailedPrecondition("Attempting to use uninitialized value ", v->name(), " (",
                                  Describe(step.node), " reads it)");
      }
    }
    if (timed && absl::Now() > context.deadline) {
      return DeadlineExceeded("the run's deadline passed before ", Describe(step.node));
    }
    absl::Status status;
    if (step.restores) {
      if (step.validate_shape) status = c.variable(0)->CheckAssign(c.input(1).shape());
      c.SetOutputVariable(0, c.variable(0));
      frame->restored_.push_back(&c);
    } else {
      status = step.kernel->Compute(&c);
    }
    if (!status.ok()) return Annotate(status, Describe(step.node));
  }
  if (timed && absl::Now() > context.deadline) {
    return DeadlineExceeded("the run's deadline passed in its last step, ",
                            Describe(steps_.back().node));
  }
  Commit(frame);
  return absl::OkStatus();
}

// Gives the variables of the restoring Assigns since the last commit their values. Other Runs'
// steps, and saves in graphs, come before or after all of it.
void Plan::Commit(Frame* frame) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (frame->restored_.empty()) return;
  std::vector<Variable*> variables;
  for (const KernelContext* c : frame->restored_) variables.push_back(c->variable(0));
  const VariableLocks locks(absl::MakeSpan(variables));
  for (KernelContext* c : frame->restored_) {
    Variable* v = c->variable(0);
    const Tensor& value = c->input(1);
    if (v->initialized() && v->tensor().shape() == value.shape()) {
      c->Copy(value, v->MutableTensor());  // The address stays.
    } else {
      v->Adopt(value);
    }
  }
  frame->restored_.clear();
}

namespace {

// Gives *out the value: over its present memory where it fits and is the caller's alone, else as a
// copy, or (where allowed) by sharing.
absl::Status GiveOut(const Tensor& value, bool share, Tensor* out) {
  if (out->initialized() && out->dtype() == value.dtype() && out->shape() == value.shape() &&
      out->buffer()->refs() == 1 && !out->SharesBufferWith(value)) {
    CopyElements(value, out);
    return absl::OkStatus();
  }
  if (share) {
    *out = value;
    return absl::OkStatus();
  }
  *out = Tensor();
  FERRY_ASSIGN_OR_RETURN(*out, value.DeepCopy());
  return absl::OkStatus();
}

}  // namespace

absl::Status Plan::Fetch(Frame* frame, std::vector<Tensor>* fetches) const {
  fetches->resize(fetch_slots_.size());
  for (size_t i = 0; i < fetch_slots_.size(); ++i) {
    const Slot& slot = frame->slots_[static_cast<size_t>(fetch_slots_[i])];
    const Output& what = signature_.fetches[i];
    if (slot.dead) {
      return InvalidArgument("fetch ", what.name(),
                             " does not have value: it lies on the branch of a conditional that was "
                             "not taken");
    }
    Tensor* out = &(*fetches)[i];
    absl::Status status;
    if (slot.variable) {
      if (!slot.variable->initialized()) {
        return FailedPrecondition("Attempting to use uninitialized value ",
                                  slot.variable->name(), " (fetch ", what.name(), ")");
      }
      // Never the variable's own memory: the next Run would change what was fetched.
      MutexLock lock(&slot.variable->mu());
      status = GiveOut(slot.variable->tensor(), false, out);
    } else {
      status = GiveOut(slot.tensor, fetch_shares_[i], out);
    }
    if (!status.ok()) return Annotate(status, absl::StrCat("fetch ", what.name()));
  }
  return absl::OkStatus();
}

absl::Status Plan::Run(absl::Span<const Tensor> feeds, std::vector<Tensor>* fetches,
                       const RunContext& context) const {
  if (feeds.size() != feed_slots_.size()) {
    return InvalidArgument(feeds.size(), " values fed to a run with ", feed_slots_.size(),
                           " feeds");
  }
  for (size_t i = 0; i < feeds.size(); ++i) {
    const Output& what = signature_.feeds[i];
    const Tensor& value = feeds[i];
    if (!value.initialized() || value.dtype() != BaseType(what.dtype())) {
      return InvalidArgument("feed ", what.name(), ": ", DTypeName(BaseType(what.dtype())),
                             " was expected, found ",
                             value.initialized() ? DTypeName(value.dtype()) : "an empty Tensor");
    }
    const PartialShape& shape = what.shape();
    bool fits = !shape.known_rank() || shape.rank() == value.rank();
    for (int d = 0; fits && d < shape.rank(); ++d) {
      fits = shape.dim(d) < 0 || shape.dim(d) == value.dim(d);
    }
    if (!fits) {
      return InvalidArgument("Cannot feed value of shape ", value.shape().DebugString(),
                             " for tensor '", what.name(), "', which has shape ",
                             shape.DebugString());
    }
  }
  const FlushDenormals flush;
  if (touches_variables_) context.variables->gate().ReaderLock();
  absl::Status status;
  absl::StatusOr<Frame*> acquired = AcquireFrame(context);
  if (acquired.ok()) {
    Frame* frame = *acquired;
    for (size_t i = 0; i < feeds.size(); ++i) {
      frame->slots_[static_cast<size_t>(feed_slots_[i])].tensor = feeds[i];
    }
    status = RunSteps(frame, context);
    if (status.ok() && fetches) status = Fetch(frame, fetches);
    ReleaseFrame(frame);
  } else {
    status = acquired.status();
  }
  if (touches_variables_) context.variables->gate().ReaderUnlock();
  return status;
}

}  // namespace ferry
