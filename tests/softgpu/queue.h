// Queues: what streams, events and captured graphs do, and when queued work runs.
//
// A stream is a queue of operations; an operation waits for those before it in its queue and for
// some of other queues. Nothing runs by itself: a call that queues or waits makes operations run,
// as the order says:
//
//   lazy     what someone waits for, and what that depends on; a wait for everything begins with
//            the youngest queue. Work that forgot to wait for other work runs before it.
//   eager    at once, as if each call waited.
//   shuffle  some, now and then, at random among what may run.
//
// Host functions run on the thread that waits for them or else on a thread of their own, since the
// host may wait for what they do without any call.
#ifndef FERRY_TESTS_SOFTGPU_QUEUE_H_
#define FERRY_TESTS_SOFTGPU_QUEUE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "tests/softgpu/memory.h"
#include "tests/softgpu/settings.h"
#include "tests/softgpu/timeline.h"

namespace softgpu {

// What an operation does; a graph's are shared by its replays.
struct Work {
  const char* kind;  // "kernel", "copy", … for the timeline.
  std::string name;  // For reports too.
  int device = 0;
  Engine engine = Engine::kCompute;
  uint64_t bytes = 0;
  // Does it, under the lock; `microseconds` gets the modelled duration. Null for host functions.
  std::function<Report(const Actor& actor, double* microseconds)> run;
  // A host function: called without the lock.
  std::function<void()> host;
  // Whether it is work that a real GPU has too: for faults and the timeline.
  bool counts = true;
  // The pinned memory that it reads or writes, if any.
  uint64_t pinned_address = 0;
};

struct Queue;

struct Operation {
  std::shared_ptr<const Work> work;  // Null: it only marks a place, as events do.
  Queue* queue;
  int device;
  std::vector<std::shared_ptr<Operation>> after;  // Those of other queues.
  enum { kWaiting, kRunning, kDone } state = kWaiting;
  bool in_graph = false;
  int lose_device = 0;                      // A cudaError_t: instead of running.
  double queued = 0;                        // By the queueing thread's clock.
  double end = 0;                           // Simulated; when done.
  std::shared_ptr<const Clock> host_clock;  // What the host knew when it queued it.
  Clock clock;                              // When done: what one knows after it. For race checks.
};
using OperationPtr = std::shared_ptr<Operation>;

// One queue of operations: a stream, or a further branch of the graphs that a stream runs.
struct Queue {
  int number;
  int device;
  std::string name;
  std::unique_ptr<Actor> actor;
  std::deque<OperationPtr> waiting;
  OperationPtr last;  // Null: nothing was queued yet.
  double end = 0;     // Of what ran.
  bool gone = false;  // Its stream was destroyed; it goes when it has run.
  std::vector<Queue*> branches;
};

struct Graph {
  struct Node {
    std::shared_ptr<const Work> work;
    std::vector<int> after;  // Earlier nodes.
  };
  std::vector<Node> nodes;
};

// All calls with the runtime's lock held, which is given up while waiting for host functions and
// while running them.
class Queues {
 public:
  // What became of the devices' errors is the owner's: `lost` tells a device's (a cudaError_t; 0:
  // none), `lose` sets it for a report or, where that is ok(), to `error`.
  struct Hooks {
    std::function<int(int device)> lost;
    std::function<void(int device, const Report& report, int error)> lose;
  };
  Queues(const Settings* settings, Memory* memory, Timeline* timeline, std::mutex* mu, Hooks hooks);

  Queue* Create(int device, std::string name);
  void Destroy(Queue* queue);

  // Queues work behind all else in the queue and after `after`; null work marks a place. `now` is
  // the caller's clock.
  OperationPtr Add(Queue* queue, std::shared_ptr<const Work> work, std::vector<OperationPtr> after,
                   double now, int lose_device = 0);
  // Queues a graph's nodes, side by side where they don't depend on each other; returns what marks
  // the end of them all.
  OperationPtr AddGraph(Queue* queue, const Graph& graph, std::vector<OperationPtr> after,
                        double now, const std::function<int(const Work&)>& fault);
  // To be called after Add and AddGraph, when no other call depends on the order: runs what eager
  // and shuffled orders run by themselves.
  void Advance();

  // Runs what it takes until `operation` is done. The host then knows what it knew.
  void Wait(std::unique_lock<std::mutex>* lock, const OperationPtr& operation);
  // The same for all operations of a device, or of all devices (-1).
  void WaitAll(std::unique_lock<std::mutex>* lock, int device);
  // The latest end of what ran in a device's queues.
  double End(int device) const;

  // Forgets what waits in a device's queues.
  void Drop(int device);
  // Whether waiting operations use pinned memory of [address, address + bytes).
  bool UsesPinned(uint64_t address, uint64_t bytes) const;
  // The operations that wait or run.
  size_t pending() const { return pending_; }

  // Begins the random order anew.
  void Seed(uint64_t seed) { random_.seed(seed); }

 private:
  bool MayRun(const Operation& operation) const;
  void Run(std::unique_lock<std::mutex>* lock, Queue* queue);
  void Finish(const OperationPtr& operation, double duration);
  Queue* PickRunnable(bool host_functions);
  Actor* ActorOf(Queue* queue);
  void TellHost(const Operation& operation);
  void HostFunctionThread();
  void Retire(Queue* queue);

  const Settings* settings_;
  Memory* memory_;
  Timeline* timeline_;
  std::mutex* mu_;
  Hooks hooks_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Queue>> queues_;  // By age.
  int created_ = 0;
  size_t pending_ = 0;
  std::condition_variable host_function_done_;

  std::unique_ptr<Actor> host_;
  std::shared_ptr<const Clock> host_clock_;
  std::vector<std::pair<int, Clock>> free_actors_;
  int actors_ = 0;
  Clock retired_;  // What those that are gone knew.

  // Host functions that wait, oldest first, for their thread.
  std::deque<OperationPtr> host_functions_;
  std::condition_variable host_function_queued_;
  bool has_thread_ = false;
};

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_QUEUE_H_
