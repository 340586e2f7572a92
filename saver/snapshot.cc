#include "saver/snapshot.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <set>
#include <utility>

#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Told when a snapshot ends.
struct EndingsType {
  Mutex mu;
  CondVar one;
};
EndingsType& Endings() {
  static EndingsType* const endings = new EndingsType;
  return *endings;
}

}  // namespace

ShadowPool::~ShadowPool() {
  MutexLock lock(&mu_);
  for (auto& [gpu, area] : areas_) {
    if (!gpu && area.base) munmap(area.base, area.size);
  }
}

void ShadowPool::Reserve(size_t bytes, GpuDevice* gpu) {
  MutexLock lock(&mu_);
  Area& area = areas_[gpu];
  if (gpu) {
    const int64_t limit = gpu_limit_ < 0 ? gpu->total_memory() / 4 : gpu_limit_;
    bytes = std::min(bytes, static_cast<size_t>(limit));
    if (bytes <= area.size) return;
    area = Area();
    const std::string tag = "the shadow pool of saves";
    const MemoryTag named(&tag);
    absl::StatusOr<BufferRef> buffer = gpu->allocator()->Allocate(bytes);
    if (!buffer.ok()) return;
    area.buffer = *std::move(buffer);
    area.base = static_cast<char*>(area.buffer->data());
    area.size = bytes;
    return;
  }
  bytes = std::min(bytes, limit_);
  if (bytes <= area.size) return;
  if (area.base) munmap(area.base, area.size);
  area = Area();
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t size = bytes >= kHuge ? (bytes + kHuge - 1) / kHuge * kHuge : bytes;
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return;
  madvise(p, size, MADV_HUGEPAGE);
  // One write a page makes it real, whether or not huge pages were given.
  for (size_t i = 0; i < size; i += 4096) static_cast<volatile char*>(p)[i] = 0;
  area.base = static_cast<char*>(p);
  area.size = size;
}

char* ShadowPool::Allocate(size_t bytes, GpuDevice* gpu) {
  const size_t n = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  MutexLock lock(&mu_);
  Area& area = areas_[gpu];
  if (n > area.size - area.used) return nullptr;
  char* p = area.base + area.used;
  area.used += n;
  return p;
}

void ShadowPool::FreeAll() {
  MutexLock lock(&mu_);
  for (auto& [gpu, area] : areas_) area.used = 0;
}

size_t ShadowPool::reserved(GpuDevice* gpu) const {
  MutexLock lock(&mu_);
  auto it = areas_.find(gpu);
  return it == areas_.end() ? 0 : it->second.size;
}

// One variable in the snapshot.
class Snapshot::Entry : public UpdateHook {
 public:
  Entry(Variable* variable, ShadowPool* pool)
      : variable_(variable),
        gpu_(variable->gpu()),
        pool_(pool),
        live_(variable->tensor()),
        bytes_(live_.bytes()) {}

  // Called by an update, which holds the variable's mutex, before it changes the live bytes.
  void BeforeUpdate(Variable* variable) override {
    MutexLock lock(&mu_);
    if (read_ < bytes_ && !shadow_ && !abandoned_) {
      const int64_t start = NowNs();
      const size_t rest = bytes_ - read_;
      char* p = pool_ ? pool_->Allocate(rest, gpu_) : nullptr;
      if (p) {
        const char* from = static_cast<const char*>(live_.raw()) + read_;
        if (gpu_) {
          KeepFirst(&status_, gpu_->CopyOnDevice(GpuStream::kCompute, p, from, rest));
          KeepFirst(&status_, gpu_->Record(GpuStream::kCompute, &shadowed_));
        } else {
          std::memcpy(p, from, rest);
        }
        shadow_ = p;
        shadow_begin_ = read_;
        stats_.shadowed_bytes += static_cast<int64_t>(rest);
        stats_.shadow_ns += NowNs() - start;
      } else {
        ++stats_.waits;
        while (read_ < bytes_ && !abandoned_) progress_.Wait(&mu_);
        stats_.wait_ns += NowNs() - start;
      }
    }
    // The update comes after the copies of the live bytes that are under way.
    if (gpu_ && read_ > 0) {
      KeepFirst(&status_, gpu_->Order(GpuStream::kToHost, GpuStream::kCompute));
    }
    variable->set_update_hook(nullptr);
  }

  absl::StatusOr<const void*> Hold(size_t offset) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu_.Lock();
    if (status_.ok() && shadow_) status_ = gpu_->Wait(GpuStream::kToHost, shadowed_);
    if (!status_.ok()) {
      absl::Status status = status_;
      mu_.Unlock();
      return status;
    }
    return static_cast<const void*>(shadow_ ? shadow_ + (offset - shadow_begin_)
                                            : static_cast<const char*>(live_.raw()) + offset);
  }
  void Release(size_t end) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    read_ = std::max(read_, end);
    if (read_ == bytes_) progress_.SignalAll();
    mu_.Unlock();
  }

  uint32_t Read(size_t offset, size_t n, void* dst, uint32_t crc) {
    // The mutex is let go now and then, so that an update that comes waits only for a short piece.
    constexpr size_t kPiece = size_t{512} << 10;
    char* d = static_cast<char*>(dst);
    while (n > 0) {
      const size_t take = std::min(n, kPiece);
      MutexLock lock(&mu_);
      const char* from = shadow_ ? shadow_ + (offset - shadow_begin_)
                                 : static_cast<const char*>(live_.raw()) + offset;
      crc = CopyAndExtendCrc32c(crc, d, from, take);
      offset += take;
      d += take;
      n -= take;
      read_ = std::max(read_, offset);
      if (read_ == bytes_) progress_.SignalAll();
    }
    return crc;
  }

  // Updates that wait go on.
  void Abandon() {
    MutexLock lock(&mu_);
    abandoned_ = true;
    progress_.SignalAll();
  }
  void Unmark() {
    // An update calls the hook with the variable's mutex held: once it was free, none is inside.
    MutexLock lock(&variable_->mu());
    if (variable_->update_hook() == this) variable_->set_update_hook(nullptr);
  }

  Variable* const variable_;
  GpuDevice* const gpu_;
  ShadowPool* const pool_;
  Tensor live_;  // The variable's memory; for strings a copy.
  const size_t bytes_;
  mutable Mutex mu_;
  CondVar progress_;
  size_t read_ ABSL_GUARDED_BY(mu_) = 0;
  char* shadow_ ABSL_GUARDED_BY(mu_) = nullptr;  // Holds bytes [shadow_begin_, bytes_).
  size_t shadow_begin_ ABSL_GUARDED_BY(mu_) = 0;
  GpuEvent shadowed_ ABSL_GUARDED_BY(mu_);        // The shadow is filled.
  bool abandoned_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);  // Of the GPU's work.
  SnapshotStats stats_ ABSL_GUARDED_BY(mu_);
};

absl::StatusOr<std::unique_ptr<Snapshot>> Snapshot::Take(VariableStore* store,
                                                         absl::Span<Variable* const> variables,
                                                         ShadowPool* pool) {
  if (pool) {
    std::map<GpuDevice*, size_t> bytes;
    store->gate().ReaderLock();  // A restore swaps contents.
    for (Variable* v : variables) {
      if (v->initialized() && v->dtype() != DType::kString) {
        constexpr size_t kAlignment = ShadowPool::kAlignment;
        bytes[v->gpu()] += (v->tensor().bytes() + kAlignment - 1) / kAlignment * kAlignment;
      }
    }
    store->gate().ReaderUnlock();
    for (const auto& [gpu, n] : bytes) pool->Reserve(n, gpu);
  }
  std::unique_ptr<Snapshot> s(new Snapshot);
  s->pool_ = pool;
  s->entries_.reserve(variables.size());
  const auto busy = [&] {
    return std::any_of(variables.begin(), variables.end(),
                       [](const Variable* v) { return v->update_hook() != nullptr; });
  };
  for (;;) {
    {
      WriterLock gate(&store->gate());
      const int64_t start = NowNs();
      if (!busy()) {
        FERRY_RETURN_IF_ERROR(s->Mark(variables));
        FERRY_RETURN_IF_ERROR(s->OrderGpus());
        s->cut_ns_ = NowNs() - start;
        return s;
      }
    }
    // Another snapshot has one of them: for that it is waited, and not with the gate held.
    MutexLock lock(&Endings().mu);
    Endings().one.WaitFor(&Endings().mu, 0.01);
  }
}

absl::Status Snapshot::OrderGpus() {
  std::set<GpuDevice*> gpus;
  for (const auto& e : entries_) {
    if (e->gpu_ && gpus.insert(e->gpu_).second) {
      FERRY_RETURN_IF_ERROR(e->gpu_->Order(GpuStream::kCompute, GpuStream::kToHost));
    }
  }
  return absl::OkStatus();
}

absl::Status Snapshot::Mark(absl::Span<Variable* const> variables) {
  for (Variable* v : variables) {
    if (!v->initialized()) {
      return FailedPrecondition("Attempting to use uninitialized value ", v->name());
    }
    if (v->update_hook()) return InvalidArgument("variable '", v->name(), "' is listed twice");
    auto entry = std::make_unique<Entry>(v, pool_);
    if (v->dtype() == DType::kString) {
      FERRY_ASSIGN_OR_RETURN(entry->live_, v->tensor().DeepCopy());
    } else {
      v->set_update_hook(entry.get());
    }
    entries_.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Snapshot>> Snapshot::TakeWithinRun(
    absl::Span<Variable* const> variables) {
  std::unique_ptr<Snapshot> s(new Snapshot);
  s->entries_.reserve(variables.size());
  std::vector<Variable*> locked(variables.begin(), variables.end());
  const VariableLocks locks(absl::MakeSpan(locked));
  for (Variable* v : variables) {
    if (!v->initialized()) {
      return FailedPrecondition("Attempting to use uninitialized value ", v->name());
    }
    auto entry = std::make_unique<Entry>(v, nullptr);
    if (v->gpu() && v->update_hook()) {
      FERRY_ASSIGN_OR_RETURN(entry->live_, Tensor::Allocate(v->dtype(), v->tensor().shape(),
                                                            v->gpu()->allocator()));
      FERRY_RETURN_IF_ERROR(v->gpu()->CopyOnDevice(GpuStream::kCompute, entry->live_.raw(),
                                                   v->tensor().raw(), v->tensor().bytes()));
    } else if (v->dtype() == DType::kString || v->update_hook()) {
      FERRY_ASSIGN_OR_RETURN(entry->live_, v->tensor().DeepCopy());
    } else {
      v->set_update_hook(entry.get());
    }
    s->entries_.push_back(std::move(entry));
  }
  FERRY_RETURN_IF_ERROR(s->OrderGpus());
  return s;
}

Snapshot::~Snapshot() {
  // All of them first: an update that waits for one may hold the mutexes of others.
  for (auto& e : entries_) e->Abandon();
  for (auto& e : entries_) e->Unmark();
  if (pool_) pool_->FreeAll();
  Endings().one.SignalAll();
}

const Variable& Snapshot::variable(int i) const {
  return *entries_[static_cast<size_t>(i)]->variable_;
}
const TensorShape& Snapshot::shape(int i) const {
  return entries_[static_cast<size_t>(i)]->live_.shape();
}
size_t Snapshot::bytes(int i) const { return entries_[static_cast<size_t>(i)]->bytes_; }
const Tensor& Snapshot::strings(int i) const { return entries_[static_cast<size_t>(i)]->live_; }

uint32_t Snapshot::Read(int i, size_t offset, size_t n, void* dst, uint32_t crc) {
  return entries_[static_cast<size_t>(i)]->Read(offset, n, dst, crc);
}

absl::StatusOr<const void*> Snapshot::Hold(int i, size_t offset, size_t n) {
  (void)n;
  return entries_[static_cast<size_t>(i)]->Hold(offset);
}

void Snapshot::Release(int i, size_t offset, size_t n) {
  entries_[static_cast<size_t>(i)]->Release(offset + n);
}

SnapshotStats Snapshot::stats() const {
  SnapshotStats total;
  total.cut_ns = cut_ns_;
  for (const auto& e : entries_) {
    MutexLock lock(&e->mu_);
    total.shadowed_bytes += e->stats_.shadowed_bytes;
    total.shadow_ns += e->stats_.shadow_ns;
    total.waits += e->stats_.waits;
    total.wait_ns += e->stats_.wait_ns;
  }
  return total;
}

}  // namespace ferry
