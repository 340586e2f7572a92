// Snapshot and ShadowPool: see snapshot.h.
#include "saver/snapshot.h"

#include <sys/mman.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>
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

constexpr size_t kHugePage = size_t{2} << 20;

// memcpy past the caches: the copy isn't read soon, and the variable that is about to be updated
// stays in them. `to` is aligned as the pool's memory.
void CopyToShadow(char* to, const char* from, size_t n) {
#ifdef __SSE2__
  for (; n >= 64; n -= 64, to += 64, from += 64) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16));
    const __m128i c = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 32));
    const __m128i d = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 48));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to), a);
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + 16), b);
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + 32), c);
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + 48), d);
  }
  _mm_sfence();
#endif
  std::memcpy(to, from, n);
}

}  // namespace

ShadowPool::~ShadowPool() {
  MutexLock lock(&mu_);
  for (auto& [gpu, area] : areas_) {
    if (!gpu && area.base) munmap(area.base, area.size);
  }
}

bool ShadowPool::Reserve(size_t bytes, GpuDevice* gpu) {
  if (gpu) {
    MutexLock lock(&mu_);
    Area& area = areas_[gpu];
    const int64_t limit = gpu_limit_ < 0 ? gpu->total_memory() / 4 : gpu_limit_;
    bytes = std::min(bytes, static_cast<size_t>(limit));
    if (bytes <= area.size) return true;
    area = Area();
    const std::string tag = "the shadow pool of saves";
    const MemoryTag named(&tag);
    absl::StatusOr<BufferRef> buffer = gpu->allocator()->Allocate(bytes);
    if (!buffer.ok()) return false;
    area.buffer = *std::move(buffer);
    area.base = static_cast<char*>(area.buffer->data());
    area.size = bytes;
    return true;
  }
  bytes = std::min(bytes, limit_);
  {
    MutexLock lock(&mu_);
    if (bytes <= areas_[nullptr].size) return warm_ >= bytes;
  }
  MutexLock warming(&warming_mu_);
  MutexLock lock(&mu_);
  Area& area = areas_[nullptr];
  if (area.base) munmap(area.base, area.size);
  area = Area();
  warm_ = 0;
  const size_t size = bytes >= kHugePage ? (bytes + kHugePage - 1) / kHugePage * kHugePage : bytes;
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return false;
  madvise(p, size, MADV_HUGEPAGE);
  area.base = static_cast<char*>(p);
  area.size = size;
  return false;
}

bool ShadowPool::WarmSome() {
  MutexLock warming(&warming_mu_);
  char* from;
  size_t piece;
  {
    MutexLock lock(&mu_);
    const Area& area = areas_[nullptr];
    if (warm_ >= area.size) return false;
    from = area.base + warm_;
    piece = std::min(area.size - warm_, kHugePage);
  }
  // Pages become real with the contents that they have, so updates may copy to them meanwhile.
  // Where the system can't do that, copies pay for it themselves.
#ifdef MADV_POPULATE_WRITE
  const bool done = madvise(from, piece, MADV_POPULATE_WRITE) == 0;
#else
  const bool done = false;
#endif
  MutexLock lock(&mu_);
  warm_ = done ? warm_ + piece : areas_[nullptr].size;
  return done;
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
  Entry(Variable* variable, ShadowPool* pool, Copies* copies)
      : variable_(variable),
        gpu_(variable->gpu()),
        pool_(pool),
        copies_(copies),
        live_(variable->tensor()),
        bytes_(live_.bytes()) {}

  // Called by an update, which holds the variable's mutex, before it changes the live bytes.
  void BeforeUpdate(Variable* variable) override {
    // Of small variables there may be thousands, each copied in less time than a clock takes.
    const bool large = bytes_ >= kPiece;
    if (large) copies_->now.fetch_add(1, std::memory_order_relaxed);
    MutexLock lock(&mu_);
    if (read_ < bytes_ && !shadow_ && !abandoned_) {
      const int64_t start = large ? NowNs() : 0;
      const size_t rest = bytes_ - read_;
      char* p = pool_ ? pool_->Allocate(rest, gpu_) : nullptr;
      if (p) {
        const char* from = static_cast<const char*>(live_.raw()) + read_;
        if (gpu_) {
          KeepFirst(&status_, gpu_->CopyOnDevice(GpuStream::kCompute, p, from, rest));
          KeepFirst(&status_, gpu_->Record(GpuStream::kCompute, &shadowed_));
        } else {
          CopyToShadow(p, from, rest);
        }
        shadow_ = p;
        shadow_begin_ = read_;
        stats_.shadowed_bytes += static_cast<int64_t>(rest);
        if (large) stats_.shadow_ns += NowNs() - start;
      } else {
        ++stats_.waits;
        copies_->patience_ns = 0;  // It is for Read to go on now.
        const int64_t start = NowNs();
        while (read_ < bytes_ && !abandoned_) progress_.Wait(&mu_);
        stats_.wait_ns += NowNs() - start;
      }
    }
    // The update comes after the copies of the live bytes that are under way.
    if (gpu_ && read_ > 0) {
      KeepFirst(&status_, gpu_->Order(GpuStream::kToHost, GpuStream::kCompute));
    }
    variable->set_update_hook(nullptr);
    if (large) {
      copies_->last_end_ns.store(NowNs(), std::memory_order_relaxed);
      copies_->now.fetch_sub(1, std::memory_order_relaxed);
    }
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
    char* d = static_cast<char*>(dst);
    while (n > 0) {
      const size_t take = std::min(n, kPiece);
      LeaveMemoryToUpdates();
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

  static constexpr size_t kPiece = size_t{512} << 10;

  void LeaveMemoryToUpdates() {
    // Between two copies of one step: the updates themselves.
    constexpr int64_t kPauseNs = 10000000;
    const auto busy = [this](int64_t now) {
      return copies_->now.load(std::memory_order_relaxed) > 0 ||
             now - copies_->last_end_ns.load(std::memory_order_relaxed) < kPauseNs;
    };
    if (copies_->patience_ns <= 0) return;
    for (int64_t start = NowNs(); copies_->patience_ns > 0 && busy(start);) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      const int64_t now = NowNs();
      copies_->patience_ns -= now - start;
      start = now;
    }
  }

  Variable* const variable_;
  GpuDevice* const gpu_;
  ShadowPool* const pool_;
  Copies* const copies_;
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

absl::StatusOr<std::unique_ptr<Snapshot>> Snapshot::Take(
    VariableStore* store, absl::Span<Variable* const> variables, ShadowPool* pool,
    const std::function<absl::Status()>& at_cut) {
  int64_t patience_ns = 0;
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
    for (const auto& [gpu, n] : bytes) {
      // A copy and an update at 4 GB/s together. In fresh memory copies are so slow that it is
      // better to be read before them.
      if (pool->Reserve(n, gpu) && !gpu) patience_ns = static_cast<int64_t>(n / 4);
    }
  }
  std::unique_ptr<Snapshot> s(new Snapshot);
  s->copies_.patience_ns = patience_ns;
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
        if (at_cut) FERRY_RETURN_IF_ERROR(at_cut());
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
    auto entry = std::make_unique<Entry>(v, pool_, &copies_);
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
    auto entry = std::make_unique<Entry>(v, nullptr, &s->copies_);
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

namespace {

// The first NaN of `n` numbers: those whose bits without the sign are beyond infinity's. -1: none.
template <typename Bits>
int64_t FirstNan(const char* bytes, size_t n, Bits infinity) {
  constexpr Bits kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  auto is_nan = [&](size_t i) {
    Bits b;
    memcpy(&b, bytes + i * sizeof(Bits), sizeof(Bits));
    return static_cast<Bits>(b & static_cast<Bits>(~kSign)) > infinity;
  };
  bool any = false;  // Without a branch in the loop, which is then as fast as the memory.
  for (size_t i = 0; i < n; ++i) any |= is_nan(i);
  if (!any) return -1;
  size_t i = 0;
  while (!is_nan(i)) ++i;
  return static_cast<int64_t>(i);
}

int64_t FirstNan(DType dtype, const char* bytes, size_t n) {
  switch (dtype) {
    case DType::kFloat:
      return FirstNan<uint32_t>(bytes, n, 0x7f800000u);
    case DType::kDouble:
      return FirstNan<uint64_t>(bytes, n, 0x7ff0000000000000u);
    case DType::kHalf:
      return FirstNan<uint16_t>(bytes, n, 0x7c00);
    case DType::kBfloat16:
      return FirstNan<uint16_t>(bytes, n, 0x7f80);
    default:
      return -1;
  }
}

}  // namespace

absl::Status SnapshotSource::Arrived(uint64_t offset, const char* bytes, size_t n) {
  const Variable& v = snapshot_->variable(i_);
  if (allow_nan_ || !IsFloating(v.dtype())) return absl::OkStatus();
  const size_t size = ElementSize(v.dtype());
  auto check = [&](uint64_t at, const char* from, size_t count) -> absl::Status {
    const int64_t found = FirstNan(v.dtype(), from, count);
    if (found < 0) return absl::OkStatus();
    return FailedPrecondition("variable '", v.name(), "' has a NaN, at element ",
                              at / size + static_cast<uint64_t>(found),
                              ": it is not saved, and the checkpoint before stays as it is "
                              "(allow_nan would save it)");
  };
  if (!part_.empty()) {
    const size_t more = std::min(size - part_.size(), n);
    part_.append(bytes, more);
    offset += more;
    bytes += more;
    n -= more;
    if (part_.size() < size) return absl::OkStatus();
    FERRY_RETURN_IF_ERROR(check(offset - size, part_.data(), 1));
  }
  part_.assign(bytes + n / size * size, n % size);
  return check(offset, bytes, n / size);
}

}  // namespace ferry
