// ThreadPool: see thread_pool.h.
#include "runtime/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "runtime/base/flush_denormals.h"
#include "runtime/base/mutex.h"

namespace ferry {

namespace {

// How often a thread that waits for another looks before it sleeps: some 100 us, about what waking
// it up again takes. The parallel parts of a training step follow each other more quickly.
constexpr int kSpins = 2000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

struct ThreadPool::Rep {
  Mutex mu;
  CondVar changed;
  std::deque<std::function<void()>> queue ABSL_GUARDED_BY(mu);
  std::atomic<size_t> queued{0};  // The queue's size, for those that look without the lock.
  int asleep ABSL_GUARDED_BY(mu) = 0;
  bool stop ABSL_GUARDED_BY(mu) = false;
  int spins = 0;  // 0 where there are more threads than cores.
  std::vector<std::thread> workers;

  void Loop() {
    const FlushDenormals flush;
    for (bool worked = false;; worked = true) {
      for (int i = worked ? spins : 0; i > 0 && queued.load(std::memory_order_relaxed) == 0; --i) {
        Pause();
      }
      std::function<void()> fn;
      {
        MutexLock lock(&mu);
        while (!stop && queue.empty()) {
          ++asleep;
          changed.Wait(&mu);
          --asleep;
        }
        if (queue.empty()) return;
        fn = std::move(queue.front());
        queue.pop_front();
        queued.store(queue.size(), std::memory_order_relaxed);
      }
      fn();
    }
  }
};

ThreadPool::ThreadPool(int threads)
    : threads_(threads > 0 ? threads
                           : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))),
      rep_(std::make_unique<Rep>()) {
  if (threads_ <= static_cast<int>(std::thread::hardware_concurrency())) rep_->spins = kSpins;
  try {
    for (int i = 1; i < threads_; ++i) rep_->workers.emplace_back([this] { rep_->Loop(); });
  } catch (const std::system_error&) {
    // The system has no more threads: those that there are do the work, in the same blocks.
  }
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(&rep_->mu);
    rep_->stop = true;
  }
  rep_->changed.SignalAll();
  for (std::thread& t : rep_->workers) t.join();
}

void ThreadPool::Schedule(std::function<void()> fn) {
  if (rep_->workers.empty()) return fn();
  bool wake;
  {
    MutexLock lock(&rep_->mu);
    rep_->queue.push_back(std::move(fn));
    rep_->queued.store(rep_->queue.size(), std::memory_order_relaxed);
    wake = rep_->asleep > 0;  // Those awake look at the queue before they sleep.
  }
  if (wake) rep_->changed.Signal();
}

namespace {

// One ParallelFor under way. Shared with the workers by reference count, because a worker may
// look for a block after the last one was taken and the caller has returned.
struct Loop {
  Loop(int64_t total, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> fn)
      : total(total), grain(grain), fn(fn), left((total + grain - 1) / grain) {}

  // Takes blocks until none is left.
  void Work() {
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= total) return;
      fn(begin, std::min(total, begin + grain));
      if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        MutexLock lock(&mu);
        done = true;
        finished.Signal();
      }
    }
  }

  const int64_t total, grain;
  const absl::FunctionRef<void(int64_t, int64_t)> fn;
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> left;
  Mutex mu;
  CondVar finished;
  bool done ABSL_GUARDED_BY(mu) = false;
};

}  // namespace

void ThreadPool::ParallelFor(int64_t total, int64_t grain,
                             absl::FunctionRef<void(int64_t, int64_t)> fn) {
  if (total <= 0) return;
  if (total <= grain) return fn(0, total);
  if (rep_->workers.empty()) {
    for (int64_t begin = 0; begin < total; begin += grain) {
      fn(begin, std::min(total, begin + grain));
    }
    return;
  }
  auto loop = std::make_shared<Loop>(total, grain, fn);
  const int64_t blocks = (total + grain - 1) / grain;
  const int64_t helpers = std::min<int64_t>(threads_ - 1, blocks - 1);
  for (int64_t i = 0; i < helpers; ++i) Schedule([loop] { loop->Work(); });
  loop->Work();
  // The last block may still be with a worker for a moment: spinning that long is cheaper than a
  // sleep and a wake-up.
  for (int spin = 0; spin < kSpins; ++spin) {
    if (loop->left.load(std::memory_order_acquire) == 0) return;
    Pause();
  }
  MutexLock lock(&loop->mu);
  while (!loop->done) loop->finished.Wait(&loop->mu);
}

}  // namespace ferry
