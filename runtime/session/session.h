// Session: runs a graph.
//
//   Session session(&graph);
//   std::vector<Tensor> out;
//   FERRY_RETURN_IF_ERROR(session.Run({{"x", batch}}, {"loss:0"}, {"train_op"}, &out));
//
// A Run's signature (the names fed, fetched and run) selects a cached plan: the nodes needed, in a
// fixed order, with memory assigned. MakeCallable looks the plan up once.
#ifndef FERRY_RUNTIME_SESSION_SESSION_H_
#define FERRY_RUNTIME_SESSION_SESSION_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/graph/graph.h"
#include "runtime/op/variable.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

class FileSystem;
class GpuDevice;
class Plan;
class ThreadPool;

struct SessionOptions {
  int threads = 0;  // Of the pool, the calling thread included; 0: the machine's cores.
  FileSystem* file_system = nullptr;  // Null: FileSystem::Posix(). Must outlive the session.
  // Where nodes go that don't ask for a device: "auto" (the first GPU if there is one that can be
  // used, else the CPU), "gpu" (without one every Run is an error that says what is missing) or
  // "cpu" (GPUs aren't touched).
  std::string device = "auto";
  // Nodes that ask for a device that they can't have go to the CPU; otherwise that is an error.
  bool allow_soft_placement = true;
  bool log_device_placement = false;  // To standard error.
  // Whether plans whose steps are all on one GPU are captured and replayed as CUDA graphs.
  bool cuda_graphs = true;
  // Bytes at most of each GPU's memory; 0: what there is. Counts for the whole process.
  int64_t gpu_memory_limit = 0;
};

struct RunOptions {
  // DeadlineExceeded when the run takes longer. Looked at before each step and after the last: a
  // step that has begun is done, and what it wrote into variables stays.
  absl::Duration timeout = absl::InfiniteDuration();
};

struct CallableOptions {
  std::vector<std::string> feeds;    // "name:0" or "name".
  std::vector<std::string> fetches;  // Likewise.
  std::vector<std::string> targets;  // Node names.
};

// Thread-safe, except that nodes may not be added to the graph while a Run makes a new plan.
class Session {
 public:
  // `graph` must outlive the session.
  explicit Session(Graph* graph, const SessionOptions& options = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // A prepared Run. Thread-safe; several threads may Run it at once. Must not outlive the session.
  class Callable {
   public:
    // `feeds` in the order of CallableOptions. Fetched tensors are the caller's to keep; passing
    // the vector of the last call again saves allocations: a tensor of the right dtype and shape
    // that nobody else shares is written over.
    absl::Status Run(absl::Span<const Tensor> feeds, std::vector<Tensor>* fetches,
                     const RunOptions& options = {}) const;
    // How many steps a Run has: nodes that are computed on their own or together, loops, and copies
    // between devices. Not those whose results are the same in every Run.
    int num_steps() const;

   private:
    friend class Session;
    std::shared_ptr<Plan> plan_;
    Session* session_ = nullptr;
  };

  // Errors name the node: NotFound for a name that isn't in the graph; InvalidArgument for a
  // placeholder without a feed, a fed value of the wrong dtype or shape, a cycle, a fetch of
  // a target-only name; FailedPrecondition "Attempting to use uninitialized value v";
  // Unimplemented for nodes without a kernel; what kernels return, with "node 'n' (Op)" in front.
  absl::Status Run(const std::vector<std::pair<std::string, Tensor>>& feeds,
                   const std::vector<std::string>& fetches,
                   const std::vector<std::string>& targets, std::vector<Tensor>* outputs,
                   const RunOptions& options = {});
  // The same by graph elements. (Spans, since a vector of pointers could be made of two names.)
  absl::Status Run(absl::Span<const std::pair<Output, Tensor>> feeds,
                   absl::Span<const Output> fetches, absl::Span<Node* const> targets,
                   std::vector<Tensor>* outputs, const RunOptions& options = {});

  absl::StatusOr<Callable> MakeCallable(const CallableOptions& options);

  // The variable of a VariableV2 or VarHandleOp node, made where the node is placed if no Run has
  // made it yet.
  absl::StatusOr<Variable*> VariableOf(const Node* node);
  // The first GPU that this session uses; null if none.
  GpuDevice* gpu() const;
  // How many Runs replayed a captured CUDA graph.
  int64_t graph_replays() const;
  // OK, or why the session can't run (options that ask for what isn't there).
  absl::Status status() const;
  Graph* graph() const;
  VariableStore* variables() const;
  FileSystem* file_system() const;
  ThreadPool* pool() const;

 private:
  friend class Callable;
  struct Rep;
  std::unique_ptr<Rep> rep_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_SESSION_SESSION_H_
