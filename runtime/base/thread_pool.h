// A fixed set of worker threads and the one way kernels use them: ParallelFor.
//
// The split of a range depends on its length and `grain` alone, never on timing, so a kernel
// whose blocks are independent gives the same bits each time, whatever the number of threads.
// Workers compute without subnormal numbers (flush_denormals.h), as the threads of a Run do.
#ifndef FERRY_RUNTIME_BASE_THREAD_POOL_H_
#define FERRY_RUNTIME_BASE_THREAD_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/functional/function_ref.h"

namespace ferry {

// Thread-safe.
class ThreadPool {
 public:
  // `threads` counts the calling thread: 1 starts no worker. 0 means the machine's cores. When the
  // system refuses some of them, the others do all the work.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();  // Waits for scheduled work.
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls fn(begin, end) over [0, total) in blocks of `grain` items (the last may be shorter);
  // returns when all are done. Work of one block runs inline, without a hand-off. Blocks may run
  // concurrently; the caller takes part. `grain` >= 1.
  void ParallelFor(int64_t total, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end)> fn);

  // Runs `fn` on a worker (inline when there is none).
  void Schedule(std::function<void()> fn);

 private:
  struct Rep;
  const int threads_;
  std::unique_ptr<Rep> rep_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_BASE_THREAD_POOL_H_
