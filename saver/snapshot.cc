#include "saver/snapshot.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
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
  if (base_) munmap(base_, size_);
}

void ShadowPool::Reserve(size_t bytes) {
  bytes = std::min(bytes, limit_);
  if (bytes <= size_) return;
  if (base_) munmap(base_, size_);
  base_ = nullptr;
  size_ = 0;
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t size = bytes >= kHuge ? (bytes + kHuge - 1) / kHuge * kHuge : bytes;
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return;
  madvise(p, size, MADV_HUGEPAGE);
  // One write a page makes it real, whether or not huge pages were given.
  for (size_t i = 0; i < size; i += 4096) static_cast<volatile char*>(p)[i] = 0;
  base_ = static_cast<char*>(p);
  size_ = size;
}

char* ShadowPool::Allocate(size_t bytes) {
  const size_t n = (bytes + 63) / 64 * 64;
  MutexLock lock(&mu_);
  if (n > size_ - used_) return nullptr;
  char* p = base_ + used_;
  used_ += n;
  return p;
}

void ShadowPool::FreeAll() {
  MutexLock lock(&mu_);
  used_ = 0;
}

// One variable in the snapshot.
class Snapshot::Entry : public UpdateHook {
 public:
  Entry(Variable* variable, ShadowPool* pool)
      : variable_(variable), pool_(pool), live_(variable->tensor()), bytes_(live_.bytes()) {}

  // Called by an update, which holds the variable's mutex, before it changes the live bytes.
  void BeforeUpdate(Variable* variable) override {
    MutexLock lock(&mu_);
    if (read_ < bytes_ && !shadow_ && !abandoned_) {
      const int64_t start = NowNs();
      const size_t rest = bytes_ - read_;
      char* p = pool_ ? pool_->Allocate(rest) : nullptr;
      if (p) {
        std::memcpy(p, static_cast<const char*>(live_.raw()) + read_, rest);
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
    variable->set_update_hook(nullptr);
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
  ShadowPool* const pool_;
  Tensor live_;  // The variable's memory; for strings a copy.
  const size_t bytes_;
  mutable Mutex mu_;
  CondVar progress_;
  size_t read_ ABSL_GUARDED_BY(mu_) = 0;
  char* shadow_ ABSL_GUARDED_BY(mu_) = nullptr;  // Holds bytes [shadow_begin_, bytes_).
  size_t shadow_begin_ ABSL_GUARDED_BY(mu_) = 0;
  bool abandoned_ ABSL_GUARDED_BY(mu_) = false;
  SnapshotStats stats_ ABSL_GUARDED_BY(mu_);
};

absl::StatusOr<std::unique_ptr<Snapshot>> Snapshot::Take(VariableStore* store,
                                                         absl::Span<Variable* const> variables,
                                                         ShadowPool* pool) {
  if (pool) {
    size_t bytes = 0;
    store->gate().ReaderLock();  // A restore swaps contents.
    for (Variable* v : variables) {
      if (v->initialized() && v->dtype() != DType::kString) {
        bytes += (v->tensor().bytes() + 63) / 64 * 64;
      }
    }
    store->gate().ReaderUnlock();
    pool->Reserve(bytes);
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
        s->cut_ns_ = NowNs() - start;
        return s;
      }
    }
    // Another snapshot has one of them: for that it is waited, and not with the gate held.
    MutexLock lock(&Endings().mu);
    Endings().one.WaitFor(&Endings().mu, 0.01);
  }
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
    if (v->dtype() == DType::kString || v->update_hook()) {
      FERRY_ASSIGN_OR_RETURN(entry->live_, v->tensor().DeepCopy());
    } else {
      v->set_update_hook(entry.get());
    }
    s->entries_.push_back(std::move(entry));
  }
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
