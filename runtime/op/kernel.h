// Kernels: how an op computes on one device. A kernel object belongs to one node of one session,
// shared by all plans and concurrent Runs, so Compute is const; what changes (a random generator's
// position) is atomic inside.
//
//   class ReluKernel : public Kernel {
//     absl::Status Compute(KernelContext* c) const override {
//       FERRY_ASSIGN_OR_RETURN(Tensor* y, c->AllocateOutput(0, c->input(0).shape()));
//       …
//     }
//   };
//   FERRY_KERNEL("Relu").Device(DeviceType::kCpu).Type("T", {DType::kFloat}).InPlace(0)
//       .Make<ReluKernel>();
#ifndef FERRY_RUNTIME_OP_KERNEL_H_
#define FERRY_RUNTIME_OP_KERNEL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/base/thread_pool.h"
#include "runtime/device/gpu_device.h"
#include "runtime/op/attr.h"
#include "runtime/op/variable.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

class FileSystem;

// What a kernel is told when it is made.
class KernelConstruction {
 public:
  KernelConstruction(std::string node_name, std::string op, const AttrMap* attrs,
                     std::vector<DType> input_types, std::vector<DType> output_types)
      : node_name_(std::move(node_name)),
        op_(std::move(op)),
        attrs_(attrs),
        input_types_(std::move(input_types)),
        output_types_(std::move(output_types)) {}
  const std::string& node_name() const { return node_name_; }
  const std::string& op() const { return op_; }
  template <typename T>
  absl::StatusOr<T> Attr(const std::string& name) const {
    return GetAttr<T>(*attrs_, name);
  }
  const AttrMap& attrs() const { return *attrs_; }
  const std::vector<DType>& input_types() const { return input_types_; }
  const std::vector<DType>& output_types() const { return output_types_; }

 private:
  std::string node_name_, op_;
  const AttrMap* attrs_;
  std::vector<DType> input_types_, output_types_;
};

class KernelContext;

// The loop of an element-wise kernel of one or two inputs of type `type` and an output of the same
// type: what a plan needs to compute several such nodes block by block.
// z[i] = f(x[i * x_step], y[i * y_step]); each step is 0 or 1; z may be x or y where the step is 1.
struct ElementLoop {
  DType type = DType::kInvalid;
  int inputs = 0;
  void (*unary)(const void* x, void* z, int64_t n) = nullptr;
  bool (*binary)(const void* x, int x_step, const void* y, int y_step, void* z,
                 int64_t n) = nullptr;  // Always true: every element has a result.
  bool same_shape = false;  // Two inputs must be of one shape; else they broadcast as NumPy's do.
  int64_t grain = 0;        // Elements that make a block of work for a thread.
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  // Reads attributes; called once, before Compute.
  virtual absl::Status Init(const KernelConstruction& c) {
    (void)c;
    return absl::OkStatus();
  }
  // Thread-safe. Errors needn't name the node: the executor puts its name and op in front.
  virtual absl::Status Compute(KernelContext* c) const = 0;
  // Of kernels that do nothing but this; valid as long as the kernel. `inputs` is 0 for others.
  virtual ElementLoop element_loop() const { return {}; }
};

// ---------------------------------------------------------------------------------------------
// A run's state, laid out by the session's plan. Kernels use KernelContext only.

// Memory that the outputs of several steps take in turn; the plan sees to it that their lives
// don't overlap. It grows to the largest use and stays for the next Run.
struct Register {
  BufferRef buffer;
  Allocator* allocator = nullptr;  // Of the memory that its values lie in.
  int64_t bound = 0;  // Slots that refer to `buffer`.
  // Whether nobody outside the run (who fetched a tensor, say) holds the buffer too.
  bool Private() const { return buffer->refs() == bound + 1; }
};

// The value on one output of one step.
struct Slot {
  Tensor tensor;
  Variable* variable = nullptr;  // Whose contents it is; then `tensor` is unused.
  Register* reg = nullptr;       // The register whose buffer `tensor` lies in, if any.
  bool dead = false;             // On a branch that wasn't taken (Switch).
};

// What every step of a Run shares.
struct RunContext {
  ThreadPool* pool = nullptr;
  Allocator* allocator = nullptr;
  VariableStore* variables = nullptr;
  FileSystem* fs = nullptr;
  absl::Time deadline = absl::InfiniteFuture();
  int64_t step_id = 0;
  // Some output holds memory that isn't a register's; it is let go when the Run ends.
  bool borrowed = false;
  // While the run's GPU steps are captured: the stream that takes them instead of the device's.
  void* capture_stream = nullptr;
  std::atomic<int64_t>* replays = nullptr;  // Counts Runs that replayed a captured graph.
};

// ---------------------------------------------------------------------------------------------

// One step of a Run, as its kernel sees it. Made once with the run's state and used again in each
// Run; not thread-safe.
class KernelContext {
 public:
  int num_inputs() const { return num_inputs_; }
  int num_outputs() const { return num_outputs_; }

  // The value; through a reference, the variable's contents (initialised unless the op allows
  // otherwise). Valid during Compute.
  const Tensor& input(int i) const {
    const Slot* s = inputs_[i];
    return s->variable ? s->variable->tensor() : s->tensor;
  }
  // For Merge: whether the input carries no value in this Run.
  bool input_dead(int i) const { return inputs_[i]->dead; }
  // Of a reference, or of a variable's handle; never null for those.
  Variable* variable(int i) const { return inputs_[i]->variable; }
  // The number of elements of a scalar-or-one-element integer input (int32 or int64) as int64.
  absl::StatusOr<int64_t> InputAsInt(int i) const;
  // A 1-D int32 or int64 input's elements (a scalar counts as one element).
  absl::StatusOr<absl::InlinedVector<int64_t, 8>> InputAsInts(int i) const;
  // The same, as a shape. InvalidArgument for negative sizes or too many elements.
  absl::StatusOr<TensorShape> InputAsShape(int i) const;

  DType output_type(int i) const { return output_types_[i]; }

  // Memory for output i, uninitialised (strings: empty). It may be that of an input which the
  // kernel was registered to work InPlace on and which has the same shape and element size.
  absl::StatusOr<Tensor*> AllocateOutput(int i, const TensorShape& shape) {
    Slot* s = &outputs_[i];
    Register* r = registers_[i];
    // The steady state: the same memory, the same shape as in the last Run.
    if (s->reg == r && r && s->tensor.shape() == shape && inplace_count_ == 0 &&
        s->tensor.buffer().get() == r->buffer.get() && r->Private()) {
      return &s->tensor;
    }
    return AllocateOutputSlow(i, shape);
  }
  // Output i is (shares the memory of) input `in`, seen with `shape`. REQUIRES: the op was
  // registered with AliasesInput, or is Switch or Merge.
  void ForwardInput(int in, int out, const TensorShape& shape);
  void ForwardInput(int in, int out) { ForwardInput(in, out, input(in).shape()); }
  // Output i is `t`, which the kernel or another owner keeps and nobody will change during this
  // Run (Const, a fresh tensor).
  void SetOutput(int i, const Tensor& t);
  // Output i stands for the variable; nothing when there is none (ops on resources).
  void SetOutputVariable(int i, Variable* v) {
    if (i < num_outputs_) outputs_[i].variable = v;
  }
  // Output i carries no value in this Run.
  void SetOutputDead(int i) { outputs_[i].dead = true; }
  void SetOutputAlive(int i) { outputs_[i].dead = false; }

  // `bytes` of 64-byte aligned memory for use during Compute, on a GPU until the work that Compute
  // enqueued is done; kept for the next Run.
  absl::StatusOr<void*> Scratch(size_t bytes);

  // The device, for kernels that were registered for GPUs; null otherwise. Such kernels enqueue on
  // gpu_stream() (a cudaStream_t) and wait for nothing. Their inputs and outputs, but for those
  // that are named HostMemory, lie in the device's memory.
  GpuDevice* gpu() const { return gpu_; }
  void* gpu_stream() const {
    return run_->capture_stream ? run_->capture_stream : gpu_->native_stream(GpuStream::kCompute);
  }

  // How many threads ParallelFor has, the calling one among them.
  int threads() const { return run_->pool->threads(); }

  // As ThreadPool::ParallelFor. Choose `grain` from shapes alone, about 16 KiB of work or more.
  void ParallelFor(int64_t total, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end)> fn) {
    if (total <= grain) {
      if (total > 0) fn(0, total);
    } else {
      run_->pool->ParallelFor(total, grain, fn);
    }
  }
  // As CopyElements, split over the pool; on a GPU enqueued.
  absl::Status Copy(const Tensor& from, Tensor* to);
  RunContext* run() const { return run_; }

 private:
  friend class Frame;  // The executor's; it fills in the fields below.
  absl::StatusOr<Tensor*> AllocateOutputSlow(int i, const TensorShape& shape);
  static void Unbind(Slot* s);

  Slot** inputs_ = nullptr;
  Slot* outputs_ = nullptr;         // Of this step, side by side.
  Register** registers_ = nullptr;  // One an output; null where the output never allocates.
  const DType* output_types_ = nullptr;
  int num_inputs_ = 0;
  int num_outputs_ = 0;
  // Inputs whose values end here and whose memory output 0 may take.
  int inplace_count_ = 0;
  int inplace_[2] = {-1, -1};
  RunContext* run_ = nullptr;
  GpuDevice* gpu_ = nullptr;
  BufferRef scratch_;
};

// How kernels are registered and found.
struct KernelDef {
  std::string op;
  DeviceType device = DeviceType::kCpu;
  // Attribute name -> dtypes it serves. An attribute that isn't named may have any.
  std::vector<std::pair<std::string, std::vector<DType>>> types;
  std::vector<std::string> host_memory;  // Arguments that live on the host whatever the device.
  std::vector<std::string> any_memory;   // Inputs that are taken wherever they are.
  std::vector<int> in_place;             // Inputs whose memory output 0 may take; at most two.
  bool replayable = true;                // See KernelBuilder::NotReplayable.
  std::function<std::unique_ptr<Kernel>()> make;
};

class KernelBuilder {
 public:
  explicit KernelBuilder(std::string op) { def_.op = std::move(op); }
  KernelBuilder& Device(DeviceType d) {
    def_.device = d;
    return *this;
  }
  KernelBuilder& Type(std::string attr, std::vector<DType> types) {
    def_.types.emplace_back(std::move(attr), std::move(types));
    return *this;
  }
  template <typename T>
  KernelBuilder& Type(std::string attr) {
    return Type(std::move(attr), {DTypeOf<T>::value});
  }
  KernelBuilder& HostMemory(std::string arg) {
    def_.host_memory.push_back(std::move(arg));
    return *this;
  }
  // Inputs of this argument come wherever they lie (Tensor::buffer()->gpu() tells): SaveV2.
  KernelBuilder& AnyMemory(std::string arg) {
    def_.any_memory.push_back(std::move(arg));
    return *this;
  }
  KernelBuilder& InPlace(int input) {
    def_.in_place.push_back(input);
    return *this;
  }
  // For a GPU kernel which does something on the host at each call that enqueueing the same work
  // again would miss: advancing a random generator, setting a variable's shape.
  KernelBuilder& NotReplayable() {
    def_.replayable = false;
    return *this;
  }
  template <typename K>
  KernelBuilder& Make() {
    def_.make = [] { return std::make_unique<K>(); };
    return *this;
  }
  KernelBuilder& Make(std::function<std::unique_ptr<Kernel>()> make) {
    def_.make = std::move(make);
    return *this;
  }
  struct Registrar {
    Registrar(const KernelBuilder& b);  // NOLINT: implicit by design of the macro.
  };

 private:
  KernelDef def_;
};

#define FERRY_KERNEL(op) \
  static const ::ferry::KernelBuilder::Registrar FERRY_CONCAT_(ferry_kernel_, __COUNTER__) = \
      ::ferry::KernelBuilder(op)

// The kernel registered for the op on that device under these attributes. Unimplemented names the
// op, its dtypes and the device, and says for which there is one.
absl::StatusOr<const KernelDef*> FindKernel(const std::string& op, DeviceType device,
                                            const AttrMap& attrs);

// All kernels of the op on that device.
std::vector<const KernelDef*> KernelsOf(const std::string& op, DeviceType device);

}  // namespace ferry

#endif  // FERRY_RUNTIME_OP_KERNEL_H_
