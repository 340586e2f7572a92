// Queues: see queue.h.
#include "tests/softgpu/queue.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>

namespace softgpu {
namespace {

constexpr unsigned kDefaultFloatControl = 0x1f80;

// How long a host function may wait for someone to wait for it, before its own thread runs it.
std::chrono::milliseconds HostFunctionDelay(Order order) {
  return std::chrono::milliseconds(order == Order::kEager ? 0 : 5);
}

void Join(const Clock& from, Clock* to) {
  if (to->size() < from.size()) to->resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) (*to)[i] = std::max((*to)[i], from[i]);
}

}  // namespace

Queues::Queues(const Settings* settings, Memory* memory, Timeline* timeline, std::mutex* mu,
               Hooks hooks)
    : settings_(settings),
      memory_(memory),
      timeline_(timeline),
      mu_(mu),
      hooks_(std::move(hooks)),
      random_(settings->seed),
      host_(std::make_unique<Actor>(0, "the host")),
      host_clock_(std::make_shared<Clock>(host_->clock())) {}

Queue* Queues::Create(int device, std::string name) {
  queues_.push_back(std::make_unique<Queue>());
  Queue* queue = queues_.back().get();
  queue->number = created_++;
  queue->device = device;
  queue->name = std::move(name);
  return queue;
}

void Queues::Destroy(Queue* queue) {
  for (Queue* branch : std::vector<Queue*>(queue->branches)) Destroy(branch);
  queue->gone = true;
  if (queue->waiting.empty()) Retire(queue);
}

void Queues::Retire(Queue* queue) {
  if (queue->actor != nullptr) {
    Join(queue->actor->clock(), &retired_);
    if (memory_->races()) {
      memory_->SetActor(queue->actor->id(), nullptr);
      free_actors_.emplace_back(queue->actor->id(), queue->actor->clock());
    }
  }
  queues_.erase(std::find_if(queues_.begin(), queues_.end(),
                             [queue](const auto& q) { return q.get() == queue; }));
}

Actor* Queues::ActorOf(Queue* queue) {
  if (queue->actor != nullptr) return queue->actor.get();
  if (actors_ + 1 < Actor::kMaxActors) {
    queue->actor = std::make_unique<Actor>(++actors_, queue->name);
  } else if (!memory_->races()) {
    queue->actor = std::make_unique<Actor>(actors_, queue->name);
  } else if (!free_actors_.empty()) {
    auto [id, clock] = std::move(free_actors_.back());
    free_actors_.pop_back();
    queue->actor = std::make_unique<Actor>(id, queue->name, std::move(clock));
  } else {
    std::fprintf(stderr, "software GPU: more than %d streams at once can't be checked for races\n",
                 Actor::kMaxActors - 1);
    std::abort();
  }
  if (memory_->races()) memory_->SetActor(queue->actor->id(), queue->actor.get());
  return queue->actor.get();
}

OperationPtr Queues::Add(Queue* queue, std::shared_ptr<const Work> work,
                         std::vector<OperationPtr> after, double now, int lose_device) {
  auto operation = std::make_shared<Operation>();
  operation->device = work != nullptr ? work->device : queue->device;
  operation->work = std::move(work);
  operation->queue = queue;
  operation->after = std::move(after);
  operation->queued = now;
  operation->lose_device = lose_device;
  operation->host_clock = host_clock_;
  queue->waiting.push_back(operation);
  queue->last = operation;
  ++pending_;
  if (operation->work != nullptr && operation->work->host != nullptr) {
    host_functions_.push_back(operation);
    if (!has_thread_) {
      has_thread_ = true;
      std::thread([this] { HostFunctionThread(); }).detach();
    }
    host_function_queued_.notify_one();
  }
  return operation;
}

OperationPtr Queues::AddGraph(Queue* queue, const Graph& graph, std::vector<OperationPtr> after,
                              double now, const std::function<int(const Work&)>& fault) {
  const OperationPtr begin = Add(queue, nullptr, std::move(after), now);
  // Each node goes behind one it depends on, if that is its branch's last; else it opens a branch.
  std::vector<OperationPtr> operations;
  std::vector<size_t> branch_of;
  std::vector<OperationPtr> branch_last = {begin};
  for (const Graph::Node& node : graph.nodes) {
    size_t branch = branch_last.size();
    for (int i : node.after) {
      if (branch_last[branch_of[i]] == operations[i]) branch = std::min(branch, branch_of[i]);
    }
    if (node.after.empty() && branch_last[0] == begin) branch = 0;
    if (branch == branch_last.size()) branch_last.emplace_back();
    while (queue->branches.size() < branch) {
      queue->branches.push_back(Create(
          queue->device, queue->name + " branch " + std::to_string(queue->branches.size() + 1)));
    }
    std::vector<OperationPtr> waits;
    if (node.after.empty() && branch != 0) waits.push_back(begin);
    for (int i : node.after) {
      if (branch_of[i] != branch) waits.push_back(operations[i]);
    }
    const OperationPtr operation = Add(branch == 0 ? queue : queue->branches[branch - 1], node.work,
                                       std::move(waits), now, fault(*node.work));
    operation->in_graph = true;
    operations.push_back(operation);
    branch_of.push_back(branch);
    branch_last[branch] = operation;
  }
  return Add(queue, nullptr, std::vector<OperationPtr>(branch_last.begin() + 1, branch_last.end()),
             now);
}

bool Queues::MayRun(const Operation& operation) const {
  return operation.state == Operation::kWaiting &&
         std::all_of(operation.after.begin(), operation.after.end(),
                     [](const OperationPtr& o) { return o->state == Operation::kDone; });
}

Queue* Queues::PickRunnable(bool host_functions) {
  std::vector<Queue*> runnable;
  for (const auto& queue : queues_) {
    if (queue->waiting.empty()) continue;
    const Operation& head = *queue->waiting.front();
    if (!MayRun(head)) continue;
    if (!host_functions && head.work != nullptr && head.work->host != nullptr) continue;
    if (settings_->order != Order::kShuffle) return queue.get();
    runnable.push_back(queue.get());
  }
  return runnable.empty() ? nullptr : runnable[random_() % runnable.size()];
}

void Queues::Advance() {
  if (settings_->order == Order::kLazy || pending_ == 0) return;
  uint64_t most = ~uint64_t{0};
  if (settings_->order == Order::kShuffle) most = random_() % 4 == 0 ? random_() % 4 : 0;
  for (uint64_t i = 0; i < most; ++i) {
    Queue* queue = PickRunnable(/*host_functions=*/false);
    if (queue == nullptr) return;
    Run(nullptr, queue);
  }
}

void Queues::Run(std::unique_lock<std::mutex>* lock, Queue* queue) {
  const OperationPtr operation = queue->waiting.front();
  operation->state = Operation::kRunning;
  const Work* work = operation->work.get();
  Actor* actor = ActorOf(queue);
  if (memory_->races()) {
    actor->Acquire(*operation->host_clock);
    for (const OperationPtr& other : operation->after) actor->Acquire(other->clock);
  }
  double duration = 0;
  // What goes wrong is its stream's device's; a copy from or to a lost device goes wrong too.
  const int device = queue->device;
  int lost = 0;
  if (work != nullptr) {
    lost = hooks_.lost(device) != 0 ? hooks_.lost(device) : hooks_.lost(operation->device);
  }
  if (lost != 0) {
    hooks_.lose(device, Report(), lost);
  } else if (work != nullptr) {
    if (operation->lose_device != 0) {
      hooks_.lose(device, Report(), operation->lose_device);
    } else if (work->host != nullptr) {
      lock->unlock();
      work->host();
      lock->lock();
    } else {
      actor->Begin(work->name);
      // Whatever the calling thread does with subnormal numbers, kernels have them.
      const unsigned control = _mm_getcsr();
      _mm_setcsr(kDefaultFloatControl);
      const Report report = work->run(*actor, &duration);
      _mm_setcsr(control);
      if (!report.ok()) hooks_.lose(device, report, 0);
    }
  }
  // Drop may have ended it while the lock was free.
  if (operation->state != Operation::kDone) Finish(operation, duration);
}

void Queues::Finish(const OperationPtr& operation, double duration) {
  Queue* queue = operation->queue;
  const Work* work = operation->work.get();
  double ready = std::max(operation->queued, queue->end);
  for (const OperationPtr& other : operation->after) ready = std::max(ready, other->end);
  operation->end = ready;
  if (work != nullptr) {
    const double start = timeline_->Place(operation->device, work->engine, ready, duration);
    operation->end = start + duration;
    if (work->counts) {
      timeline_->Log({start, operation->end, operation->device, queue->number, work->engine,
                      work->kind, work->bytes, work->name});
    }
  }
  queue->end = operation->end;
  if (memory_->races()) operation->clock = queue->actor->clock();
  operation->after.clear();
  operation->host_clock.reset();
  operation->state = Operation::kDone;
  --pending_;
  queue->waiting.pop_front();
  if (work != nullptr && work->host != nullptr) {
    // Whatever the function tells the host happens after it.
    TellHost(*operation);
    host_function_done_.notify_all();
  }
  if (queue->gone && queue->waiting.empty()) Retire(queue);
}

void Queues::TellHost(const Operation& operation) {
  if (!memory_->races()) return;
  host_->Acquire(operation.clock);
  host_clock_ = std::make_shared<Clock>(host_->clock());
}

void Queues::Wait(std::unique_lock<std::mutex>* lock, const OperationPtr& operation) {
  if (settings_->order == Order::kShuffle) {
    while (operation->state != Operation::kDone) {
      if (Queue* queue = PickRunnable(/*host_functions=*/true)) {
        Run(lock, queue);
      } else {
        host_function_done_.wait(*lock);
      }
    }
  }
  // Those that must be done first, the next one last.
  std::vector<OperationPtr> needed = {operation};
  while (!needed.empty()) {
    const OperationPtr next = needed.back();
    if (next->state == Operation::kDone) {
      needed.pop_back();
      continue;
    }
    const OperationPtr head = next->queue->waiting.front();
    const auto missing =
        std::find_if(head->after.begin(), head->after.end(),
                     [](const OperationPtr& o) { return o->state != Operation::kDone; });
    if (head->state == Operation::kRunning) {
      host_function_done_.wait(*lock);
    } else if (missing != head->after.end()) {
      needed.push_back(*missing);
    } else {
      Run(lock, next->queue);
    }
  }
  TellHost(*operation);
}

void Queues::WaitAll(std::unique_lock<std::mutex>* lock, int device) {
  std::vector<OperationPtr> lasts;
  for (const auto& queue : queues_) {
    if (queue->last != nullptr && (device < 0 || queue->device == device)) {
      lasts.push_back(queue->last);
    }
  }
  for (auto it = lasts.rbegin(); it != lasts.rend(); ++it) Wait(lock, *it);
  if (memory_->races()) {
    host_->Acquire(retired_);
    host_clock_ = std::make_shared<Clock>(host_->clock());
  }
}

double Queues::End(int device) const {
  double end = 0;
  for (const auto& queue : queues_) {
    if (device < 0 || queue->device == device) end = std::max(end, queue->end);
  }
  return end;
}

void Queues::Drop(int device) {
  std::vector<Queue*> retired;
  for (const auto& queue : queues_) {
    if (queue->device != device) continue;
    for (const OperationPtr& operation : queue->waiting) {
      operation->state = Operation::kDone;
      operation->after.clear();
      --pending_;
    }
    queue->waiting.clear();
    if (queue->gone) retired.push_back(queue.get());
  }
  for (Queue* queue : retired) Retire(queue);
  host_function_done_.notify_all();
}

bool Queues::UsesPinned(uint64_t address, uint64_t bytes) const {
  for (const auto& queue : queues_) {
    for (const OperationPtr& operation : queue->waiting) {
      const Work* work = operation->work.get();
      if (work != nullptr && work->pinned_address != 0 && work->pinned_address < address + bytes &&
          address < work->pinned_address + work->bytes) {
        return true;
      }
    }
  }
  return false;
}

void Queues::HostFunctionThread() {
  std::unique_lock<std::mutex> lock(*mu_);
  while (true) {
    if (host_functions_.empty()) {
      host_function_queued_.wait(lock);
      continue;
    }
    const OperationPtr operation = host_functions_.front();
    host_functions_.pop_front();
    if (operation->state != Operation::kDone) {
      const std::chrono::milliseconds delay = HostFunctionDelay(settings_->order);
      lock.unlock();
      std::this_thread::sleep_for(delay);
      lock.lock();
      Wait(&lock, operation);
      Advance();
    }
  }
}

}  // namespace softgpu
