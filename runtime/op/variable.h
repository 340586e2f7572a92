// Variable: state that outlives a Run, and VariableStore: the variables of a session with the
// gate that orders runs and snapshots.
//
//   Run: gate shared ── ReadLock ── steps … Variable::Update(…) … ── released
//   Snapshot, restore: gate exclusive, for no longer than marking the variables (or swapping
//   their contents)
#ifndef FERRY_RUNTIME_OP_VARIABLE_H_
#define FERRY_RUNTIME_OP_VARIABLE_H_

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/base/mutex.h"
#include "runtime/device/gpu_device.h"
#include "runtime/op/attr.h"
#include "runtime/op/partial_shape.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

class Variable;

// Whether a value of this type stands for a variable: a reference (VariableV2), or a resource
// handle (VarHandleOp). Both are the same to kernels: KernelContext::variable(i).
inline bool HoldsVariable(DType t) { return IsRef(t) || t == DType::kResource; }

// The name under which a VariableStore holds the variable of a VariableV2 node: its shared_name, or
// else the node's own name, after the container's if it has one.
absl::StatusOr<std::string> StoredName(const AttrMap& attrs, const std::string& node_name);

// Told before a marked variable's bytes change. Called with the variable's mutex held, from the
// updating thread; when it returns, the old bytes are no longer needed. Unmarks by itself
// (Variable::set_update_hook(nullptr)) when it needs no more calls. On a GPU the update is work
// that the caller enqueues on the compute stream after the call; the hook enqueues what must come
// first.
class UpdateHook {
 public:
  virtual ~UpdateHook() = default;
  virtual void BeforeUpdate(Variable* variable) = 0;
};

// Thread-safe. Readers don't lock: as in TensorFlow, a read that no edge orders against a write of
// another concurrent Run may see old or new elements.
class Variable {
 public:
  // `gpu`: where its contents lie; null: host memory.
  Variable(std::string name, DType dtype, PartialShape shape, GpuDevice* gpu = nullptr)
      : name_(std::move(name)), dtype_(dtype), shape_(std::move(shape)), gpu_(gpu) {}
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

  const std::string& name() const { return name_; }
  DType dtype() const { return dtype_; }
  const PartialShape& declared_shape() const { return shape_; }
  GpuDevice* gpu() const { return gpu_; }

  bool initialized() const { return current_.load(std::memory_order_acquire)->initialized(); }
  // The contents. The reference stays valid while the caller holds the gate (a Run does). The
  // address of the data changes only when the shape does, and, in host memory, when a restore
  // exchanges the contents, which it does with the gate held exclusively.
  const Tensor& tensor() const { return *current_.load(std::memory_order_acquire); }

  // Whether an Assign that validates shapes may assign a value of `shape`: InvalidArgument, in
  // TensorFlow's words, for another shape than the contents have, or else the declared one.
  absl::Status CheckAssign(const TensorShape& shape) const;
  // The same against the declared shape alone, which is all that resource variables go by.
  absl::Status CheckDeclared(const TensorShape& shape) const;

  // What kernels that write hold meanwhile. Of several variables: see VariableLocks.
  Mutex& mu() ABSL_LOCK_RETURNED(mu_) { return mu_; }

  // The contents for changing in place: tells the hook first. REQUIRES: initialized().
  Tensor* MutableTensor() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (UpdateHook* h = hook_.load(std::memory_order_acquire)) h->BeforeUpdate(this);
    return current_.load(std::memory_order_relaxed);
  }
  // Memory for contents of `shape`, all of which the caller overwrites: the present one when the
  // shape is the same, fresh memory otherwise. An uninitialised variable stays so until
  // Publish().
  absl::StatusOr<Tensor*> TensorForOverwrite(const TensorShape& shape)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Makes what TensorForOverwrite gave the contents.
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Makes `contents`, whose memory nobody else will change, the contents without a copy.
  void Adopt(Tensor contents) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Exchanges the contents with `*contents`, memory of the same device (an uninitialised tensor
  // makes the variable uninitialised). On a GPU contents of the same shape are copied instead, so
  // that the address stays; the error is the device's. REQUIRES: the store's gate is held
  // exclusively; tells the hook first.
  absl::Status SwapContents(Tensor* contents) ABSL_LOCKS_EXCLUDED(mu_);

  void set_update_hook(UpdateHook* hook) { hook_.store(hook, std::memory_order_release); }
  UpdateHook* update_hook() const { return hook_.load(std::memory_order_acquire); }

 private:
  friend class VariableStore;

  const std::string name_;
  const DType dtype_;
  const PartialShape shape_;
  GpuDevice* const gpu_;
  Mutex mu_;
  // Points into owned_; a shape change appends there, since another Run may still read the old
  // one. The store drops old ones when it holds the gate exclusively.
  std::atomic<Tensor*> current_{&first_};
  Tensor first_;
  std::vector<std::unique_ptr<Tensor>> owned_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Tensor> pending_ ABSL_GUARDED_BY(mu_);
  std::atomic<UpdateHook*> hook_{nullptr};
};

// Holds the mutexes of some variables, each once, taken in the order of their addresses, so that
// two that share variables can't wait for each other in a circle.
class ABSL_SCOPED_LOCKABLE VariableLocks {
 public:
  // Reorders `variables`, which must outlive the locks.
  explicit VariableLocks(absl::Span<Variable*> variables) ABSL_NO_THREAD_SAFETY_ANALYSIS
      : held_(variables) {
    std::sort(held_.begin(), held_.end(), std::less<Variable*>());
    held_ = held_.first(
        static_cast<size_t>(std::unique(held_.begin(), held_.end()) - held_.begin()));
    for (Variable* v : held_) v->mu().Lock();
  }
  ~VariableLocks() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Variable* v : held_) v->mu().Unlock();
  }
  VariableLocks(const VariableLocks&) = delete;
  VariableLocks& operator=(const VariableLocks&) = delete;

 private:
  absl::Span<Variable*> held_;
};

// The variables of a session, by name. Variables live as long as the store. Thread-safe.
class VariableStore {
 public:
  // The variable of that name, made if there is none. InvalidArgument when one exists with another
  // dtype, on another device, or with a shape that can't be the same.
  absl::StatusOr<Variable*> LookupOrCreate(const std::string& name, DType dtype,
                                           const PartialShape& shape, GpuDevice* gpu = nullptr);
  Variable* Find(const std::string& name) const;  // Null if there is none.
  std::vector<Variable*> All() const;             // By name.

  // Shared: a Run that touches variables. Exclusive: a snapshot's cut, a restore's swap.
  SharedMutex& gate() ABSL_LOCK_RETURNED(gate_) { return gate_; }

 private:
  mutable Mutex mu_;
  absl::flat_hash_map<std::string, std::unique_ptr<Variable>> variables_ ABSL_GUARDED_BY(mu_);
  SharedMutex gate_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_OP_VARIABLE_H_
