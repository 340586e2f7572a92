// Buffer: a reference-counted block of memory, and the Allocators that make them.
//
//   Allocator (host | pinned | device)  ──Allocate──▶  Buffer ◀── BufferRef ── Tensor, Tensor …
//
// A tensor's memory is freed when the last BufferRef to it goes. Host memory is 64-byte aligned,
// so that vector kernels give the same bits wherever a tensor lies.
#ifndef FERRY_RUNTIME_TENSOR_BUFFER_H_
#define FERRY_RUNTIME_TENSOR_BUFFER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace ferry {

class GpuDevice;  // runtime/device/gpu_device.h

inline constexpr size_t kHostAlignment = 64;

// A block of memory and its count of owners. Made by an Allocator only.
class Buffer {
 public:
  void* data() const { return data_; }
  size_t capacity() const { return capacity_; }  // In bytes.

  // How many BufferRefs there are. A holder that sees 1 is the only one, and sees all that former
  // holders wrote.
  int64_t refs() const { return refs_.load(std::memory_order_acquire); }

  // The GPU in whose memory data() lies; null: the host's, where code may touch it.
  GpuDevice* gpu() const { return gpu_; }
  void* owner() const { return owner_; }

 private:
  friend class BufferRef;
  friend class GpuDevice;
  friend class HostAllocator;
  friend class StringBufferMaker;
  Buffer(void* data, size_t capacity, void (*release)(Buffer*), void* owner,
         GpuDevice* gpu = nullptr)
      : data_(data), capacity_(capacity), release_(release), owner_(owner), gpu_(gpu) {}
  ~Buffer() = default;

  std::atomic<int64_t> refs_{0};
  void* const data_;
  const size_t capacity_;
  void (*const release_)(Buffer*);
  void* const owner_;  // What `release_` needs: the allocator, say.
  GpuDevice* const gpu_;
};

// A counted pointer to a Buffer. Distinct BufferRefs may be used from different threads.
class BufferRef {
 public:
  BufferRef() = default;
  explicit BufferRef(Buffer* b) : b_(b) { Ref(); }
  BufferRef(const BufferRef& o) : b_(o.b_) { Ref(); }
  BufferRef(BufferRef&& o) noexcept : b_(std::exchange(o.b_, nullptr)) {}
  BufferRef& operator=(const BufferRef& o) {
    if (b_ != o.b_) BufferRef(o).swap(*this);
    return *this;
  }
  BufferRef& operator=(BufferRef&& o) noexcept {
    BufferRef(std::move(o)).swap(*this);
    return *this;
  }
  ~BufferRef() { Unref(); }

  void swap(BufferRef& o) noexcept { std::swap(b_, o.b_); }
  void reset() { BufferRef().swap(*this); }
  Buffer* get() const { return b_; }
  Buffer* operator->() const { return b_; }
  explicit operator bool() const { return b_ != nullptr; }

 private:
  void Ref() {
    if (b_) b_->refs_.fetch_add(1, std::memory_order_relaxed);
  }
  void Unref() {
    if (b_ && b_->refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) b_->release_(b_);
  }
  Buffer* b_ = nullptr;
};

// Thread-safe.
class Allocator {
 public:
  virtual ~Allocator() = default;
  // "host", "pinned", "device": for messages.
  virtual const char* name() const = 0;
  // At least `bytes` bytes of uninitialised memory, aligned for any kernel. ResourceExhausted when
  // they aren't to be had, naming the size and the limit.
  virtual absl::StatusOr<BufferRef> Allocate(size_t bytes) = 0;
  // Bytes that are handed out now.
  virtual int64_t bytes_in_use() const = 0;
};

// The host's memory. The limit (set_limit; by default nine tenths of the machine's memory) is on
// what is in use at once: a graph that asks for more gets ResourceExhausted rather than the
// kernel's out-of-memory killer.
class HostAllocator : public Allocator {
 public:
  static HostAllocator* Get();  // One for the process.
  const char* name() const override { return "host"; }
  absl::StatusOr<BufferRef> Allocate(size_t bytes) override;
  int64_t bytes_in_use() const override { return in_use_.load(std::memory_order_relaxed); }
  // ResourceExhausted if `bytes` more would be beyond the limit now; takes nothing.
  absl::Status CheckFits(size_t bytes) const;
  void set_limit(int64_t bytes) { limit_.store(bytes, std::memory_order_relaxed); }

  int64_t limit() const { return limit_.load(std::memory_order_relaxed); }

 private:
  friend class StringBufferMaker;
  HostAllocator();
  static void Release(Buffer* b);
  // Counts `bytes` as in use, if they fit the limit, and no longer.
  absl::Status Reserve(size_t bytes);
  void Unreserve(size_t bytes) {
    in_use_.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  }
  std::atomic<int64_t> in_use_{0};
  std::atomic<int64_t> limit_;
};

// `count` empty std::strings, destroyed with the buffer. The string objects count against the host
// allocator's limit, what they point to doesn't.
absl::StatusOr<BufferRef> AllocateStrings(int64_t count);

}  // namespace ferry

#endif  // FERRY_RUNTIME_TENSOR_BUFFER_H_
