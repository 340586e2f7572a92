// Snapshot: the contents of variables at one moment, while training goes on.
//
//   FERRY_ASSIGN_OR_RETURN(auto snapshot, Snapshot::Take(store, variables, &pool));
//   for each variable i, for each chunk:  crc = snapshot->Read(i, offset, n, slot, crc);
//
// The cut takes the store's gate exclusively, only to mark each variable. From then on:
//
//              Read (saver's thread)                  first update (a Run's thread)
//   marked ──▶ copies a piece of the live bytes       copies the rest, that wasn't read yet,
//              to the slot, under the entry's mutex   to the shadow pool; then changes the live
//                                                     bytes; later Reads come from the shadow
//
// So an update waits for a copy of its variable's bytes at most; when the pool is used up, it waits
// until that variable was read to its end. Addresses stay, nothing is torn. While updates copy,
// Read leaves the memory's bandwidth to them: for as long as all their copies may take.
//
// On a GPU the same happens in the order of its streams: reads are copies on the to-host stream,
// the shadow lies in the GPU's memory and is filled on the compute stream, and where one has to
// come before the other an event says so. The updating thread waits only when the pool is used up.
#ifndef FERRY_SAVER_SNAPSHOT_H_
#define FERRY_SAVER_SNAPSHOT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/base/mutex.h"
#include "runtime/op/variable.h"
#include "saver/bundle_writer.h"

namespace ferry {

// Memory for the old bytes of variables that are updated while a snapshot is saved: the host's, and
// that of each GPU with variables. Kept from save to save, and the host's made real between them:
// writing to fresh pages costs several times as much as the copy. Thread-safe; serves one snapshot
// at a time.
class ShadowPool {
 public:
  // `limit`: bytes of host memory at most, and of each GPU's at most `gpu_limit` (negative: a
  // quarter of what it has). 0: no pool, updates wait.
  explicit ShadowPool(size_t limit, int64_t gpu_limit = -1)
      : limit_(limit), gpu_limit_(gpu_limit) {}
  ~ShadowPool();
  ShadowPool(const ShadowPool&) = delete;
  ShadowPool& operator=(const ShadowPool&) = delete;

  // Makes `bytes` (at most the limit) of a GPU's memory, or the host's, ready. Without the memory
  // it stays smaller. The host's takes no time: its pages are real from their first use on, or
  // WarmSome. Whether all are. REQUIRES: nothing allocated.
  bool Reserve(size_t bytes, GpuDevice* gpu = nullptr);
  // Makes some MiB of what Reserve got on the host real; false when there is nothing more to do.
  // For a thread that has the time.
  bool WarmSome();
  // Memory aligned to kAlignment, or null when the pool is used up.
  char* Allocate(size_t bytes, GpuDevice* gpu = nullptr);
  void FreeAll();
  size_t limit() const { return limit_; }
  size_t reserved(GpuDevice* gpu = nullptr) const;
  static constexpr size_t kAlignment = 256;

 private:
  struct Area {
    char* base = nullptr;
    size_t size = 0, used = 0;
    BufferRef buffer;  // Of a GPU's.
  };
  const size_t limit_;
  const int64_t gpu_limit_;
  // Held while the host's area moves, or is made real; taken before mu_.
  Mutex warming_mu_;
  mutable Mutex mu_;
  size_t warm_ ABSL_GUARDED_BY(mu_) = 0;  // Bytes from its beginning that were made real.
  std::map<GpuDevice*, Area> areas_ ABSL_GUARDED_BY(mu_);
};

struct SnapshotStats {
  int64_t cut_ns = 0;          // How long the gate was held exclusively.
  int64_t shadowed_bytes = 0;  // Copied by updates.
  int64_t shadow_ns = 0;       // Time that updates spent in those copies, of large variables.
  int64_t waits = 0;           // Updates that waited because the pool was used up.
  int64_t wait_ns = 0;
};

// Take and destroy from one thread; Read from one thread at a time a variable.
class Snapshot {
 public:
  // FailedPrecondition "Attempting to use uninitialized value v"; InvalidArgument for a variable
  // that is listed twice. The variables outlive the snapshot; a variable is in one snapshot at a
  // time, so this waits until others have let go of them. `pool` may be null: none. Reserves the
  // pool before the cut. `at_cut`, if any, is called while the gate is held: for other things that
  // are to be of the same moment. Its error is returned.
  static absl::StatusOr<std::unique_ptr<Snapshot>> Take(
      VariableStore* store, absl::Span<Variable* const> variables, ShadowPool* pool,
      const std::function<absl::Status()>& at_cut = nullptr);
  // For a kernel, whose Run holds the gate shared: marks all of them between two updates, so that
  // no step of another Run is torn, while other Runs may be between two of their steps. Without a
  // pool; a variable that is in a snapshot already is copied. Errors as Take.
  static absl::StatusOr<std::unique_ptr<Snapshot>> TakeWithinRun(
      absl::Span<Variable* const> variables);
  // Updates that wait go on; what wasn't read is gone.
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  int size() const { return static_cast<int>(entries_.size()); }
  const Variable& variable(int i) const;
  // Of the contents at the cut.
  const TensorShape& shape(int i) const;
  size_t bytes(int i) const;
  // A string variable's contents at the cut (copied then).
  const Tensor& strings(int i) const;

  // Copies bytes [offset, offset + n) of variable i to `dst` and extends the crc by them. Offsets
  // ascend from 0 without gaps. REQUIRES: not a string variable.
  uint32_t Read(int i, size_t offset, size_t n, void* dst, uint32_t crc);
  // For a variable on a GPU in Read's place: see ByteSource. One thread for all of them.
  absl::StatusOr<const void*> Hold(int i, size_t offset, size_t n);
  void Release(int i, size_t offset, size_t n);

  // After the last Read, or during (then of what happened so far).
  SnapshotStats stats() const;

 private:
  class Entry;
  Snapshot() = default;
  // REQUIRES: the gate is held exclusively, and no variable is marked.
  absl::Status Mark(absl::Span<Variable* const> variables);
  // Lets the to-host streams read what the compute streams have been given at the cut.
  absl::Status OrderGpus();
  std::vector<std::unique_ptr<Entry>> entries_;
  ShadowPool* pool_ = nullptr;
  int64_t cut_ns_ = 0;
  // Updates' copies in the host's memory: how many are under way, when the last one ended, and how
  // long Reads may still wait for them.
  struct Copies {
    std::atomic<int> now{0};
    std::atomic<int64_t> last_end_ns{0};
    std::atomic<int64_t> patience_ns{0};
  } copies_;
};

// One variable of a snapshot, as BundleWriter takes it. Both are borrowed.
class SnapshotSource : public ByteSource {
 public:
  // Without `allow_nan` a NaN in the variable is FailedPrecondition, naming it and the element.
  SnapshotSource(Snapshot* snapshot, int i, bool allow_nan = true)
      : snapshot_(snapshot), i_(i), allow_nan_(allow_nan) {}
  absl::Status Copy(uint64_t offset, size_t n, char* dst, uint32_t* crc) override {
    *crc = snapshot_->Read(i_, offset, n, dst, *crc);
    return absl::OkStatus();
  }
  absl::Status Arrived(uint64_t offset, const char* bytes, size_t n) override;
  GpuDevice* gpu() const override { return snapshot_->variable(i_).gpu(); }
  absl::StatusOr<const void*> Hold(uint64_t offset, size_t n) override {
    return snapshot_->Hold(i_, offset, n);
  }
  void Release(uint64_t offset, size_t n) override { snapshot_->Release(i_, offset, n); }

 private:
  Snapshot* const snapshot_;
  const int i_;
  const bool allow_nan_;
  std::string part_;  // The beginning of an element that two pieces share.
};

}  // namespace ferry

#endif  // FERRY_SAVER_SNAPSHOT_H_
