// Placer: see placer.h.
#include "runtime/session/placer.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"

namespace ferry {

int Placer::Find(int g) {
  while (groups_[static_cast<size_t>(g)].parent >= 0) g = groups_[static_cast<size_t>(g)].parent;
  return g;
}

void Placer::Union(int a, int b) {
  a = Find(a), b = Find(b);
  if (a == b) return;
  Group* to = &groups_[static_cast<size_t>(a)];
  Group* from = &groups_[static_cast<size_t>(b)];
  // The one that is decided, or else the larger one, takes the other up.
  if ((from->decided && !to->decided) ||
      (from->decided == to->decided && from->nodes.size() > to->nodes.size())) {
    std::swap(a, b);
    std::swap(to, from);
  }
  if (to->decided && from->decided && to->status.ok() && to->gpu != from->gpu) {
    to->status = InvalidArgument("node '", from->nodes.front()->name(), "' and node '",
                                 to->nodes.front()->name(),
                                 "' have to be on one device, but were placed on two already");
  }
  from->parent = a;
  to->nodes.insert(to->nodes.end(), from->nodes.begin(), from->nodes.end());
  from->nodes.clear();
}

absl::StatusOr<GpuDevice*> Placer::Place(const Node* node) {
  if (static_cast<int>(groups_.size()) < graph_->num_nodes()) PlaceNew();
  const Group& group = groups_[static_cast<size_t>(Find(node->id()))];
  if (!group.status.ok()) {
    return Annotate(group.status,
                    absl::StrCat("Cannot assign a device for operation ", node->name()));
  }
  return group.gpu;
}

void Placer::PlaceNew() {
  const int first = static_cast<int>(groups_.size());
  const int end = graph_->num_nodes();
  groups_.resize(static_cast<size_t>(end));
  for (int i = first; i < end; ++i) {
    groups_[static_cast<size_t>(i)].nodes.push_back(graph_->nodes()[static_cast<size_t>(i)].get());
  }
  for (int i = first; i < end; ++i) {
    const Node* n = graph_->nodes()[static_cast<size_t>(i)].get();
    for (int k = 0; k < n->num_inputs(); ++k) {
      if (HoldsVariable(n->input_type(k)) && n->input(k).node) Union(i, n->input(k).node->id());
    }
    absl::StatusOr<std::vector<std::string>> classes = n->Attr<std::vector<std::string>>("_class");
    if (!classes.ok()) continue;
    for (const std::string& c : *classes) {
      absl::string_view name = c;
      const Node* other =
          absl::ConsumePrefix(&name, "loc:@") ? graph_->FindNode(name) : nullptr;
      if (other && other->id() < end) Union(i, other->id());
    }
  }
  for (int i = first; i < end; ++i) {
    Group* group = &groups_[static_cast<size_t>(Find(i))];
    if (!group->decided) {
      Decide(group);
    } else if (group->gpu && group->status.ok()) {
      absl::Status why;
      if (!HasGpuKernels(*group, &why)) {
        group->status =
            Annotate(why, absl::StrCat("it has to be on ", group->gpu->name(),
                                       ", where others that it belongs to were placed already"));
      }
    }
    if (options_.log) {
      const Node* n = graph_->nodes()[static_cast<size_t>(i)].get();
      std::fprintf(stderr, "%s: (%s)%s\n", n->name().c_str(), n->op().c_str(),
                   group->gpu ? group->gpu->name().c_str()
                              : DeviceName(DeviceType::kCpu, 0).c_str());
    }
  }
}

bool Placer::HasGpuKernels(const Group& group, absl::Status* why) const {
  for (const Node* n : group.nodes) {
    absl::StatusOr<const KernelDef*> def = FindKernel(n->op(), DeviceType::kGpu, n->attrs());
    if (def.ok()) continue;
    *why = Annotate(def.status(), absl::StrCat("node '", n->name(), "'"));
    return false;
  }
  return true;
}

bool Placer::StaysOnHost(const Group& group) const {
  if (group.nodes.size() != 1) return false;
  const Node* n = group.nodes.front();
  for (DType t : n->input_types()) {
    if (BaseType(t) != DType::kInt32) return false;
  }
  for (DType t : n->output_types()) {
    if (t != DType::kInt32 && t != DType::kBool) return false;
  }
  return true;
}

void Placer::Decide(Group* group) {
  group->decided = true;
  DeviceSpec asked;
  const Node* asker = nullptr;
  for (const Node* n : group->nodes) {
    absl::StatusOr<DeviceSpec> spec = ParseDevice(n->device());
    if (!spec.ok()) {
      group->status = spec.status();
      return;
    }
    if (!spec->has_type) continue;
    if (!asker) {
      asker = n;
      asked = *spec;
    } else if (spec->type != asked.type || (spec->index >= 0 && asked.index >= 0 &&
                                            spec->index != asked.index)) {
      // With soft placement the first wish counts, as in TensorFlow.
      if (options_.allow_soft_placement) continue;
      group->status =
          InvalidArgument("node '", asker->name(), "' asks for ", asker->device(), " and node '",
                          n->name(), "', which has to be beside it, for ", n->device());
      return;
    }
  }
  if (asker && asked.type == DeviceType::kCpu) return;
  const size_t index = asked.index < 0 ? 0 : static_cast<size_t>(asked.index);
  absl::Status why;
  if (!asker) {
    if (options_.gpus.empty() || StaysOnHost(*group) || !HasGpuKernels(*group, &why)) return;
    group->gpu = options_.gpus.front();
    return;
  }
  if (index >= options_.gpus.size()) {
    why = InvalidArgument("Could not satisfy explicit device specification '", asker->device(),
                          "': this session has ", options_.gpus.size(), " GPUs");
  } else if (HasGpuKernels(*group, &why)) {
    group->gpu = options_.gpus[index];
    return;
  } else {
    why = InvalidArgument("Could not satisfy explicit device specification '", asker->device(),
                          "' because no supported kernel for GPU devices is available: ",
                          why.message());
  }
  if (!options_.allow_soft_placement) group->status = why;
}

}  // namespace ferry
