// Variable and VariableStore: see variable.h.
#include "runtime/op/variable.h"

#include <algorithm>

#include "runtime/base/status.h"

namespace ferry {

absl::StatusOr<std::string> StoredName(const AttrMap& attrs, const std::string& node_name) {
  FERRY_ASSIGN_OR_RETURN(std::string container, GetAttr<std::string>(attrs, "container"));
  FERRY_ASSIGN_OR_RETURN(std::string name, GetAttr<std::string>(attrs, "shared_name"));
  if (name.empty()) name = node_name;
  return container.empty() ? name : absl::StrCat(container, ":", name);
}

absl::StatusOr<Tensor*> Variable::TensorForOverwrite(const TensorShape& shape) {
  Tensor* now = current_.load(std::memory_order_relaxed);
  if (now->initialized() && now->shape() == shape) {
    pending_.reset();  // Left by a kernel that failed before it published.
    if (UpdateHook* h = hook_.load(std::memory_order_acquire)) h->BeforeUpdate(this);
    return now;
  }
  const std::string tag = absl::StrCat("variable '", name_, "'");
  const MemoryTag named(&tag);
  absl::StatusOr<Tensor> fresh = Tensor::Allocate(
      dtype_, shape, gpu_ ? gpu_->allocator() : static_cast<Allocator*>(HostAllocator::Get()));
  if (!fresh.ok()) return Annotate(fresh.status(), tag);
  pending_ = std::make_unique<Tensor>(*std::move(fresh));
  return pending_.get();
}

void Variable::Publish() {
  if (!pending_) return;
  if (UpdateHook* h = hook_.load(std::memory_order_acquire)) h->BeforeUpdate(this);
  owned_.push_back(std::move(pending_));
  current_.store(owned_.back().get(), std::memory_order_release);
}

void Variable::Adopt(Tensor contents) {
  pending_ = std::make_unique<Tensor>(std::move(contents));
  Publish();
}

namespace {

absl::Status CheckHeld(const PartialShape& held, const TensorShape& shape,
                       const std::string& variable) {
  if (held.CompatibleWith(shape)) return absl::OkStatus();
  return InvalidArgument("Assign requires shapes of both tensors to match. lhs shape= ",
                         held.DebugString(), " rhs shape= ", shape.DebugString(), " (variable '",
                         variable, "')");
}

}  // namespace

absl::Status Variable::CheckAssign(const TensorShape& shape) const {
  return CheckHeld(initialized() ? PartialShape(tensor().shape()) : shape_, shape, name_);
}

absl::Status Variable::CheckDeclared(const TensorShape& shape) const {
  return CheckHeld(shape_, shape, name_);
}

absl::Status Variable::SwapContents(Tensor* contents) {
  MutexLock lock(&mu_);
  if (UpdateHook* h = hook_.load(std::memory_order_acquire)) h->BeforeUpdate(this);
  Tensor* const held = current_.load(std::memory_order_relaxed);
  if (gpu_ && held->initialized() && contents->initialized() &&
      held->shape() == contents->shape()) {
    return gpu_->CopyOnDevice(GpuStream::kCompute, held->raw(), contents->raw(), held->bytes());
  }
  std::swap(*held, *contents);
  // No Run holds a reference now: tensors of former shapes can go.
  Tensor* now = current_.load(std::memory_order_relaxed);
  owned_.erase(std::remove_if(owned_.begin(), owned_.end(),
                              [now](const std::unique_ptr<Tensor>& t) { return t.get() != now; }),
               owned_.end());
  return absl::OkStatus();
}

absl::StatusOr<Variable*> VariableStore::LookupOrCreate(const std::string& name, DType dtype,
                                                        const PartialShape& shape,
                                                        GpuDevice* gpu) {
  MutexLock lock(&mu_);
  std::unique_ptr<Variable>& v = variables_[name];
  if (!v) {
    v = std::make_unique<Variable>(name, dtype, shape, gpu);
  } else if (v->gpu() != gpu) {
    const auto place = [](GpuDevice* d) { return d ? d->name() : DeviceName(DeviceType::kCpu, 0); };
    return InvalidArgument("variable '", name, "' lies on ", place(v->gpu()),
                           "; a node asks for it on ", place(gpu));
  } else if (v->dtype() != dtype || !v->declared_shape().CompatibleWith(shape)) {
    return InvalidArgument("variable '", name, "' exists as ", DTypeName(v->dtype()), " ",
                           v->declared_shape().DebugString(), "; a node asks for it as ",
                           DTypeName(dtype), " ", shape.DebugString());
  }
  return v.get();
}

Variable* VariableStore::Find(const std::string& name) const {
  MutexLock lock(&mu_);
  auto it = variables_.find(name);
  return it == variables_.end() ? nullptr : it->second.get();
}

std::vector<Variable*> VariableStore::All() const {
  std::vector<Variable*> all;
  {
    MutexLock lock(&mu_);
    for (const auto& [name, v] : variables_) all.push_back(v.get());
  }
  std::sort(all.begin(), all.end(),
            [](const Variable* a, const Variable* b) { return a->name() < b->name(); });
  return all;
}

}  // namespace ferry
