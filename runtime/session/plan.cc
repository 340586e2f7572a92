// How a plan runs: see plan.h.
#include "runtime/session/plan.h"

#include <cstring>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/base/optimization.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/base/flush_denormals.h"
#include "runtime/base/status.h"
#include "runtime/graph/frames.h"
#include "runtime/op/ending_input.h"

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
      c.output_types_ =
          s.kind == Plan::Kind::kKernel ? s.node->output_types().data() : &s.copied;
      if (s.kind != Plan::Kind::kToHost) c.gpu_ = s.gpu;
      for (int k : s.in_place) c.inplace_[c.inplace_count_++] = k;
      c.run_ = &run_;
    }
    for (size_t r = 0; r < registers_.size(); ++r) {
      registers_[r].allocator = plan.register_allocators_[r];
    }
    inner_.resize(static_cast<size_t>(plan.num_inner_));
    for (const Plan::Step& s : plan.steps_) {
      if (!s.loop) continue;
      inner_[static_cast<size_t>(s.inner)] = std::make_unique<Frame>(*s.loop->plan);
      inner_[static_cast<size_t>(s.inner)]->next_.resize(s.loop->variables.size());
    }
    dead_steps_.resize(plan.steps_.size());
    events_.resize(static_cast<size_t>(plan.num_events_));
    staging_.resize(static_cast<size_t>(plan.num_events_));
  }

  // Lets go of memory that isn't the frame's own, so that feeds and large results don't live on.
  void DropBorrowed() {
    for (int s : plan_.feed_slots_) {
      Slot& slot = slots_[static_cast<size_t>(s)];
      if (!slot.reg) slot.tensor = Tensor();
      slot.variable = nullptr;
    }
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

  // Makes `slot`, of this frame, the value of `from`, which belongs to another one.
  void Share(const Slot& from, Slot* slot) {
    KernelContext::Unbind(slot);
    slot->variable = from.variable;
    slot->tensor = from.variable ? Tensor() : from.tensor;
    slot->dead = from.dead;
    run_.borrowed = true;
  }

  // Step t is a loop, whose state `inner` is: gives it its values, and takes the results. What the
  // last pass left goes first, so that its memory can be used again.
  void EnterLoop(size_t t, const Plan::Loop& loop, Frame* inner) {
    const KernelContext& c = contexts_[t];
    for (size_t o = 0; o < loop.exits.size(); ++o) c.outputs_[o].tensor = Tensor();
    for (size_t i = 0; i < loop.enters.size(); ++i) {
      inner->Share(*c.inputs_[i], &inner->slots_[static_cast<size_t>(loop.enters[i])]);
    }
  }
  void LeaveLoop(size_t t, const Plan::Loop& loop, const Frame& inner) {
    const KernelContext& c = contexts_[t];
    for (size_t o = 0; o < loop.exits.size(); ++o) {
      Share(inner.slots_[static_cast<size_t>(loop.exits[o])], &c.outputs_[o]);
    }
  }

  // Gives the loop's variables the values of the next iteration. A value that lies in the memory of
  // its step exchanges that with the variable's; one that was made in place is there already; any
  // other is shared, and what would write to it next sees that from the buffer's count.
  void Advance(const Plan::Loop& loop) {
    for (size_t k = 0; k < next_.size(); ++k) {
      next_[k] = slots_[static_cast<size_t>(loop.variables[k].next)];
    }
    for (const Plan::Loop::Variable& v : loop.variables) {
      for (int s : v.bound) {
        Slot& slot = slots_[static_cast<size_t>(s)];
        KernelContext::Unbind(&slot);
        slot.tensor = Tensor();
      }
    }
    for (size_t k = 0; k < next_.size(); ++k) {
      const Plan::Loop::Variable& v = loop.variables[k];
      Slot& next = next_[k];
      if (v.next != v.slot) {
        Slot& slot = slots_[static_cast<size_t>(v.slot)];
        Register* const own = &registers_[static_cast<size_t>(v.reg)];
        if (next.variable || !next.reg || next.reg->buffer.get() != next.tensor.buffer().get() ||
            (next.reg != own && IsVariableRegister(loop, next.reg))) {
          Share(next, &slot);
        } else if (next.reg == own) {
          slot.variable = nullptr;
          slot.tensor = std::move(next.tensor);
        } else {
          KernelContext::Unbind(&slot);
          std::swap(own->buffer, next.reg->buffer);
          next.reg->bound = 0;
          slot.variable = nullptr;
          slot.tensor = std::move(next.tensor);
          slot.reg = own;
          own->bound = 1;
        }
      }
      next = Slot();
    }
  }

  // Whether the register is a loop variable's: those come last.
  bool IsVariableRegister(const Plan::Loop& loop, const Register* r) const {
    return r >= &registers_[static_cast<size_t>(loop.variables.front().reg)];
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
  std::vector<std::unique_ptr<Frame>> inner_;  // The states of its loops.
  std::vector<Slot> next_;  // Of a loop's frame: what its variables become.

  // Of copies: their events, and pinned memory on the way to the device.
  std::vector<GpuEvent> events_;
  std::vector<BufferRef> staging_;
  // Of replaying: what the last Run's boundary was like (see Plan::Boundary), for how many Runs so,
  // and what was captured then.
  std::vector<uint64_t> boundary_, now_;
  int alike_ = 0;
  bool unreplayable_ = false;  // Capturing failed.
  std::vector<Variable*> updated_;
  std::unique_ptr<GpuGraph> graph_;
};

absl::Status Plan::WrongType(const Node* n, DType expected, DType found,
                             const std::string& name) {
  return InvalidArgument("Trying to ", n->op() == "ReadVariableOp" ? "read" : "use",
                         " variable with wrong dtype. Expected ", DTypeWord(expected), " got ",
                         DTypeWord(found), " (variable '", name, "')");
}

Plan::Plan() = default;
Plan::~Plan() = default;

int Plan::num_steps() const {
  return static_cast<int>(absl::c_count_if(steps_, [](const Step& s) { return !s.once; }));
}

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
  FERRY_RETURN_IF_ERROR(RunOnce(frame, context));
  MutexLock lock(&mu_);
  frames_.push_back(std::move(fresh));
  return frame;
}

// The steps whose outputs never change, of this plan and of its loops'.
absl::Status Plan::RunOnce(Frame* frame, const RunContext& context) const {
  for (size_t t = 0; t < steps_.size(); ++t) {
    const Step& step = steps_[t];
    absl::Status status;
    if (step.loop) {
      Frame* const inner = frame->inner_[static_cast<size_t>(step.inner)].get();
      inner->run_ = context;
      FERRY_RETURN_IF_ERROR(step.loop->plan->RunOnce(inner, context));
    } else if (step.once) {
      status = step.kind == Kind::kKernel ? step.kernel->Compute(&frame->contexts_[t])
                                          : RunCopy(frame, t);
    }
    if (!status.ok()) return Annotate(status, Describe(step.node));
  }
  return absl::OkStatus();
}

void Plan::ReleaseFrame(Frame* frame) const {
  frame->DropBorrowed();
  frame = idle_.exchange(frame, std::memory_order_acq_rel);
  if (!frame) return;
  MutexLock lock(&mu_);
  free_.push_back(frame);
}

// One step of a Run.
template <bool kGpu>
inline absl::Status Plan::RunStep(Frame* frame, size_t t, const RunContext& context) const {
  const Step& step = steps_[t];
  if (step.once) return absl::OkStatus();
  if (step.commit) FERRY_RETURN_IF_ERROR(Commit(frame));
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
    if (dead) return absl::OkStatus();
  }
  for (int i : step.must_be_initialized) {
    // Through a Merge of references a slot may hold none.
    const Variable* v = c.variable(i);
    if (v && !v->initialized()) {
      return FailedPrecondition("Attempting to use uninitialized value ", v->name(), " (",
                                Describe(step.node), " reads it)");
    }
  }
  for (int i : step.needs_variable) {
    const Variable* const v = c.variable(i);
    if (!v) {
      return InvalidArgument(Describe(step.node), ": input ", i, " (", step.node->input(i).name(),
                             ") is no variable");
    }
    if (step.held != DType::kInvalid && step.node->input_type(i) == DType::kResource &&
        v->dtype() != step.held) {
      return Annotate(WrongType(step.node, step.held, v->dtype(), v->name()), Describe(step.node));
    }
  }
  if (context.deadline != absl::InfiniteFuture() && absl::Now() > context.deadline) {
    return DeadlineExceeded("the run's deadline passed before ", Describe(step.node));
  }
  absl::Status status;
  if (kGpu) {
    for (int e : step.waits) {
      GpuEvent& event = frame->events_[static_cast<size_t>(e)];
      if (event) status = gpus_.front()->Synchronize(event);
      if (!status.ok()) return Annotate(status, Describe(step.node));
    }
    if (step.kind != Kind::kKernel && !step.loop) {
      return Annotate(RunCopy(frame, t), absl::StrCat("copying ", Describe(step.node)));
    }
    if (step.gpu) MemoryTag::set(&step.node->name());
  }
  if (ABSL_PREDICT_TRUE(step.plain)) {
    status = step.kernel->Compute(&c);
  } else if (step.loop) {
    return RunLoop(frame, t, context);  // Its errors name its own nodes.
  } else if (step.restores) {
    const TensorShape& shape = c.input(1).shape();
    if (step.fits == Step::Fits::kContents) status = c.variable(0)->CheckAssign(shape);
    if (step.fits == Step::Fits::kDeclared) status = c.variable(0)->CheckDeclared(shape);
    c.SetOutputVariable(0, c.variable(0));
    frame->restored_.push_back(&c);
  } else if (step.reads_in_place) {
    c.SetOutputVariable(0, c.variable(0));
  } else {
    const EndingInput ends(step.input_ends);
    status = step.kernel->Compute(&c);
  }
  if (!status.ok()) return Annotate(status, Describe(step.node));
  return status;
}

// ---- Loops ----

absl::Status Plan::Wait(Frame* frame, const std::vector<int>& events) const {
  for (int e : events) {
    GpuEvent& event = frame->events_[static_cast<size_t>(e)];
    if (event) FERRY_RETURN_IF_ERROR(gpus_.front()->Synchronize(event));
  }
  return absl::OkStatus();
}

// This plan, a loop's, over and over. `frame` is its own.
absl::Status Plan::Iterate(Frame* frame, const Loop& loop, const RunContext& context) const {
  const bool gpu = !gpus_.empty();
  const auto run = [&](size_t begin, size_t end) -> absl::Status {
    for (size_t t = begin; t < end; ++t) {
      absl::Status status =
          gpu ? RunStep<true>(frame, t, context) : RunStep<false>(frame, t, context);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  };
  for (int32_t round = 0;; round = 1) {
    for (const Loop::Variable& v : loop.variables) {
      if (v.index < 0) continue;
      Slot& index = frame->slots_[static_cast<size_t>(v.index)];
      index.tensor = Tensor::Scalar<int32_t>(round);  // Enter or NextIteration.
    }
    FERRY_RETURN_IF_ERROR(run(0, loop.condition ? loop.always : steps_.size()));
    if (!loop.condition) return absl::OkStatus();
    FERRY_RETURN_IF_ERROR(Wait(frame, loop.condition_waits));
    const Slot& slot = frame->slots_[static_cast<size_t>(loop.condition_slot)];
    if (slot.variable && !slot.variable->initialized()) {
      return FailedPrecondition("Attempting to use uninitialized value ", slot.variable->name(),
                                " (", Describe(loop.condition), " reads it)");
    }
    const Tensor& condition = slot.variable ? slot.variable->tensor() : slot.tensor;
    if (slot.dead || condition.num_elements() != 1) {
      return InvalidArgument(Describe(loop.condition), ": The loop condition must be a scalar, ",
                             slot.dead ? std::string("it has no value: it lies on the branch of a "
                                                     "conditional that was not taken")
                                       : absl::StrCat("found shape ",
                                                      condition.shape().DebugString()));
    }
    const bool go_on = condition.scalar<bool>();
    FERRY_RETURN_IF_ERROR(run(loop.always, loop.body));
    if (!go_on) {
      FERRY_RETURN_IF_ERROR(run(loop.end, steps_.size()));
      return Wait(frame, loop.waits);
    }
    FERRY_RETURN_IF_ERROR(run(loop.body, loop.end));
    FERRY_RETURN_IF_ERROR(Wait(frame, loop.waits));
    if (context.deadline != absl::InfiniteFuture() && absl::Now() > context.deadline) {
      return DeadlineExceeded("the run's deadline passed in a loop, at ",
                              Describe(loop.condition));
    }
    for (const Loop::Variable& v : loop.variables) {
      if (frame->slots_[static_cast<size_t>(v.next)].dead) {
        return InvalidArgument("a value for the next iteration of the loop of ",
                               Describe(loop.condition),
                               " lies on the branch of a conditional that was not taken");
      }
    }
    frame->Advance(loop);
  }
}

absl::Status Plan::RunLoop(Frame* frame, size_t t, const RunContext& context) const {
  const Step& step = steps_[t];
  const Loop& loop = *step.loop;
  Frame* const inner = frame->inner_[static_cast<size_t>(step.inner)].get();
  inner->run_ = context;
  inner->run_.borrowed = true;
  frame->EnterLoop(t, loop, inner);
  const absl::Status status = loop.plan->Iterate(inner, loop, context);
  if (status.ok()) frame->LeaveLoop(t, loop, *inner);
  inner->DropBorrowed();
  return status;
}

absl::Status Plan::RunSteps(Frame* frame, const RunContext& context) const {
  frame->restored_.clear();  // Of a Run that failed.
  if (!gpus_.empty()) {
    const MemoryTag tag(nullptr);  // Each step sets its own.
    FERRY_RETURN_IF_ERROR(RunGpuSteps(frame, context));
  } else {
    for (size_t t = 0; t < steps_.size(); ++t) {
      absl::Status status = RunStep<false>(frame, t, context);
      if (!status.ok()) return status;
    }
  }
  if (context.deadline != absl::InfiniteFuture() && absl::Now() > context.deadline) {
    return DeadlineExceeded("the run's deadline passed in its last step",
                            steps_.empty() ? "" : ", " + Describe(steps_.back().node));
  }
  return Commit(frame);
}

// ---- GPUs ----

namespace {

// Copies so small go on the compute stream itself: fewer calls, and nothing to overlap.
constexpr size_t kSmallCopy = size_t{64} << 10;

}  // namespace

// A copy step's work. Memory on the device is the compute stream's, so a copy on another stream
// begins after what that stream has been given, and what uses the copy waits for its event.
absl::Status Plan::RunCopy(Frame* frame, size_t t) const {
  const Step& step = steps_[t];
  KernelContext& c = frame->contexts_[t];
  const Tensor& from = c.input(0);
  GpuDevice* const gpu = step.gpu;
  const size_t n = from.bytes();
  const bool small = n <= kSmallCopy;
  GpuEvent* const event = &frame->events_[static_cast<size_t>(step.event)];
  const MemoryTag tag(&step.node->name());
  FERRY_ASSIGN_OR_RETURN(Tensor * to, c.AllocateOutput(0, from.shape()));
  switch (step.kind) {
    case Kind::kKernel:
    case Kind::kLoop:
      break;
    case Kind::kPeer:
      return gpu->CopyFromPeer(to->raw(), step.peer, from.raw(), n);
    case Kind::kToDevice: {
      if (n == 0) return absl::OkStatus();
      // Once, so it may wait; pinned memory would stay for nothing.
      if (step.once) return gpu->CopyToDevice(GpuStream::kCompute, to->raw(), from.raw(), n);
      // The last Run's copy has read the staging memory long ago, as a rule.
      FERRY_RETURN_IF_ERROR(gpu->Synchronize(*event));
      BufferRef& staging = frame->staging_[static_cast<size_t>(step.event)];
      if (!staging || staging->capacity() < n) {
        staging.reset();
        FERRY_ASSIGN_OR_RETURN(staging, PinnedAllocator()->Allocate(n));
      }
      std::memcpy(staging->data(), from.raw(), n);
      const GpuStream stream = small ? GpuStream::kCompute : GpuStream::kToDevice;
      if (!small) FERRY_RETURN_IF_ERROR(gpu->Order(GpuStream::kCompute, stream));
      FERRY_RETURN_IF_ERROR(gpu->CopyToDevice(stream, to->raw(), staging->data(), n));
      FERRY_RETURN_IF_ERROR(gpu->Record(stream, event));
      return small ? absl::OkStatus() : gpu->Wait(GpuStream::kCompute, *event);
    }
    case Kind::kToHost: {
      const GpuStream stream = small ? GpuStream::kCompute : GpuStream::kToHost;
      if (!small) FERRY_RETURN_IF_ERROR(gpu->Order(GpuStream::kCompute, stream));
      FERRY_RETURN_IF_ERROR(gpu->CopyToHost(stream, to->raw(), from.raw(), n));
      FERRY_RETURN_IF_ERROR(gpu->Record(stream, event));
      // Another Run may be about to change a variable.
      if (!small && c.variable(0)) return gpu->Wait(GpuStream::kCompute, *event);
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

// What a captured graph depends on beyond the frame's own memory: where variables and the copies of
// feeds lie, their shapes, and the values that kernels read on the host. False if it can't be told.
bool Plan::Boundary(const Frame& frame, std::vector<uint64_t>* out) const {
  out->clear();
  const auto add_shape = [out](const TensorShape& shape) {
    out->push_back(static_cast<uint64_t>(shape.rank()));
    for (int64_t d : shape.dims()) out->push_back(static_cast<uint64_t>(d));
  };
  for (int i : shape_boundary_) add_shape(frame.slots_[static_cast<size_t>(i)].tensor.shape());
  for (int i : boundary_) {
    const Slot& slot = frame.slots_[static_cast<size_t>(i)];
    if (slot.variable && !slot.variable->initialized()) return false;
    const Tensor& t = slot.variable ? slot.variable->tensor() : slot.tensor;
    add_shape(t.shape());
    if (t.buffer()->gpu()) {
      out->push_back(reinterpret_cast<uint64_t>(t.raw()));
      continue;
    }
    if (t.bytes() > 1024 || t.dtype() == DType::kString) return false;
    const size_t at = out->size();
    out->resize(at + (t.bytes() + 7) / 8);
    std::memcpy(out->data() + at, t.raw(), t.bytes());
  }
  return true;
}

absl::Status Plan::RunPart(Frame* frame, const RunContext& context,
                           const std::vector<size_t>& steps) const {
  for (const size_t t : steps) FERRY_RETURN_IF_ERROR(RunStep<true>(frame, t, context));
  return absl::OkStatus();
}

// Launches the captured graph, with the variables that it writes locked as its kernels would lock
// them, so that no snapshot comes between what it is told and the update.
absl::Status Plan::Launch(Frame* frame) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  std::vector<Variable*>& updated = frame->updated_;
  updated.clear();
  for (const auto& [t, i] : written_) updated.push_back(frame->contexts_[t].variable(i));
  const VariableLocks locks(absl::MakeSpan(updated));
  for (Variable* v : updated) v->MutableTensor();
  return gpus_.front()->Launch(frame->graph_.get());
}

absl::Status Plan::Capture(Frame* frame, const RunContext& context) const {
  GpuDevice* const gpu = gpus_.front();
  FERRY_RETURN_IF_ERROR(gpu->BeginCapture(&frame->run_.capture_stream));
  absl::Status status;
  for (const size_t t : middle_) {
    // Of the others the last Run's results stand.
    if (status.ok() && steps_[t].part == Part::kCaptured) {
      status = RunStep<true>(frame, t, context);
    }
  }
  frame->run_.capture_stream = nullptr;
  if (!status.ok()) {
    gpu->AbandonCapture();
    return status;
  }
  FERRY_ASSIGN_OR_RETURN(frame->graph_, gpu->EndCapture());
  return absl::OkStatus();
}

absl::Status Plan::RunGpuSteps(Frame* frame, const RunContext& context) const {
  // Runs that are alike before one is captured: the first ones allocate.
  constexpr int kWarmUp = 2;
  if (!replayable_ || frame->unreplayable_) {
    for (size_t t = 0; t < steps_.size(); ++t) {
      FERRY_RETURN_IF_ERROR(RunStep<true>(frame, t, context));
    }
  } else {
    FERRY_RETURN_IF_ERROR(RunPart(frame, context, before_));
    const bool known = Boundary(*frame, &frame->now_);
    if (!known || frame->now_ != frame->boundary_) {
      frame->graph_.reset();
      frame->alike_ = 0;
      std::swap(frame->boundary_, frame->now_);
      if (!known) frame->boundary_.clear();
    } else {
      ++frame->alike_;
    }
    if (!frame->graph_ && frame->alike_ >= kWarmUp) {
      // Where capturing fails, the steps are run one by one, which tells what there is to tell.
      absl::Status status = Capture(frame, context);
      if (!status.ok() && !absl::IsFailedPrecondition(status)) frame->unreplayable_ = true;
    }
    if (frame->graph_) {
      FERRY_RETURN_IF_ERROR(Launch(frame));
      if (context.replays) context.replays->fetch_add(1, std::memory_order_relaxed);
    } else {
      absl::Status status = RunPart(frame, context, middle_);
      if (!status.ok()) {
        frame->alike_ = 0;  // A capture needs the results of a Run like this.
        return status;
      }
    }
    FERRY_RETURN_IF_ERROR(RunPart(frame, context, after_));
  }
  for (int e : fetch_waits_) {
    GpuEvent& event = frame->events_[static_cast<size_t>(e)];
    if (event) FERRY_RETURN_IF_ERROR(gpus_.front()->Synchronize(event));
  }
  // A fetch from one device may rest on what another one has failed to do.
  if (gpus_.size() > 1 && !fetch_waits_.empty()) {
    for (GpuDevice* gpu : gpus_) FERRY_RETURN_IF_ERROR(gpu->Poll());
  }
  return absl::OkStatus();
}

// Gives the variables of the restoring Assigns since the last commit their values. Other Runs'
// steps, and saves in graphs, come before or after all of it.
absl::Status Plan::Commit(Frame* frame) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (frame->restored_.empty()) return absl::OkStatus();
  absl::Status status;
  std::vector<Variable*> variables;
  for (const KernelContext* c : frame->restored_) variables.push_back(c->variable(0));
  const VariableLocks locks(absl::MakeSpan(variables));
  for (KernelContext* c : frame->restored_) {
    Variable* v = c->variable(0);
    const Tensor& value = c->input(1);
    if (v->initialized() && v->tensor().shape() == value.shape()) {
      KeepFirst(&status, c->Copy(value, v->MutableTensor()));  // The address stays.
    } else {
      v->Adopt(value);
    }
  }
  frame->restored_.clear();
  return status;
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
      return InvalidArgument(
          "fetch ", what.name(),
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
