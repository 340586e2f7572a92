// Placer: decides on which device each node of a session's graph runs.
//
// Nodes that must lie together are one group: those that a reference connects (a variable, its
// initial Assign, its updates) and those that "_class" colocates. A group goes where one of its
// nodes asks to be; without a wish to the first GPU, if the session uses one and has kernels there
// for the whole group, else to the CPU. Arithmetic on int32 without a wish stays on the CPU, since
// its results are shapes and indices that kernels want in host memory (as in TensorFlow).
#ifndef FERRY_RUNTIME_SESSION_PLACER_H_
#define FERRY_RUNTIME_SESSION_PLACER_H_

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "runtime/device/gpu_device.h"
#include "runtime/graph/graph.h"

namespace ferry {

// Not thread-safe.
class Placer {
 public:
  struct Options {
    std::vector<GpuDevice*> gpus;  // Empty: everything on the CPU.
    // Whether a node that asks for a device that isn't there, or that has no kernel for it, goes to
    // the CPU instead; otherwise that is an error of the plans that need the node.
    bool allow_soft_placement = true;
    bool log = false;  // "name: (Op)/job:…" for each node to standard error, as TensorFlow writes.
  };
  Placer(const Graph* graph, Options options) : graph_(graph), options_(std::move(options)) {}

  // The GPU of the node, null for the CPU; places all nodes that the graph has by now.
  // InvalidArgument "Cannot assign a device for operation n: …" names what was asked for and why it
  // can't be. What is decided stays.
  absl::StatusOr<GpuDevice*> Place(const Node* node);

 private:
  struct Group {
    int parent = -1;  // Another group that this one is part of.
    std::vector<const Node*> nodes;
    bool decided = false;
    GpuDevice* gpu = nullptr;
    absl::Status status;
  };
  int Find(int group);
  void Union(int a, int b);
  void PlaceNew();
  void Decide(Group* group);
  bool HasGpuKernels(const Group& group, absl::Status* why) const;
  bool StaysOnHost(const Group& group) const;

  const Graph* const graph_;
  const Options options_;
  std::vector<Group> groups_;  // One a node, by its id, until they are joined.
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_SESSION_PLACER_H_
