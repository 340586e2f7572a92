// Session: names to plans, plans to Runs: see session.h.
#include "runtime/session/session.h"

#include <atomic>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "runtime/base/file_system.h"
#include "runtime/base/status.h"
#include "runtime/base/thread_pool.h"
#include "runtime/graph/frames.h"
#include "runtime/session/functions.h"
#include "runtime/session/placer.h"
#include "runtime/session/plan.h"

namespace ferry {

struct Session::Rep {
  Rep(Graph* graph, const SessionOptions& options)
      : graph(graph),
        options(options),
        pool(options.threads),
        fs(options.file_system ? options.file_system : FileSystem::Posix()) {
    if (options.device != "auto" && options.device != "cpu" && options.device != "gpu") {
      status = InvalidArgument("SessionOptions.device is '", options.device,
                               "'; auto, cpu or gpu was expected");
    } else if (options.device != "cpu") {
      absl::StatusOr<std::vector<GpuDevice*>> found = GpuDevices();
      if (found.ok()) {
        gpus = *found;
      } else if (options.device == "gpu") {
        status = found.status();
      }
    }
    for (GpuDevice* gpu : gpus) {
      if (options.gpu_memory_limit > 0) gpu->set_memory_limit(options.gpu_memory_limit);
    }
    placer = NewPlacer(graph);
  }

  std::unique_ptr<Placer> NewPlacer(const Graph* g) const {
    return std::make_unique<Placer>(
        g, Placer::Options{gpus, options.allow_soft_placement, options.log_device_placement});
  }

  Graph* const graph;
  const SessionOptions options;
  absl::Status status;
  std::vector<GpuDevice*> gpus;
  ThreadPool pool;
  FileSystem* const fs;
  VariableStore variables;
  std::atomic<int64_t> next_step_id{1};
  std::atomic<int64_t> replays{0};

  Mutex mu;
  std::unique_ptr<Placer> placer ABSL_GUARDED_BY(mu);  // Of the graph that plans are made of.
  // That graph, if it isn't `graph` itself: from when a node calls functions.
  std::unique_ptr<LoweredGraph> lowered ABSL_GUARDED_BY(mu);
  int looked_at ABSL_GUARDED_BY(mu) = 0;  // Nodes of `graph` that were looked at for that.
  // Kernels before plans: plans point to them.
  absl::flat_hash_map<const Node*, std::unique_ptr<Plan::NodeKernel>> kernels ABSL_GUARDED_BY(mu);
  // The variables that nodes stand for; both live as long as the session.
  absl::flat_hash_map<const Node*, Variable*> variable_of ABSL_GUARDED_BY(mu);
  absl::flat_hash_map<std::string, std::shared_ptr<Plan>> plans ABSL_GUARDED_BY(mu);

  absl::StatusOr<const Plan::NodeKernel*> KernelOf(Node* n) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    std::unique_ptr<Plan::NodeKernel>& nk = kernels[n];
    if (nk) return nk.get();
    auto annotate = [&](const absl::Status& s) { return Annotate(s, Describe(n)); };
    if (lowered) FERRY_RETURN_IF_ERROR(lowered->WhyNot(n));
    if (!n->info()) return annotate(Unimplemented("op ", n->op(), " is not registered"));
    FERRY_ASSIGN_OR_RETURN(GpuDevice* const gpu, placer->Place(n));
    absl::StatusOr<const KernelDef*> def =
        FindKernel(n->op(), gpu ? DeviceType::kGpu : DeviceType::kCpu, n->attrs());
    if (!def.ok()) return annotate(def.status());
    auto fresh = std::make_unique<Plan::NodeKernel>();
    fresh->gpu = gpu;
    fresh->def = *def;
    fresh->kernel = (*def)->make();
    absl::Status status = fresh->kernel->Init(KernelConstruction(
        n->name(), n->op(), &n->attrs(), n->input_types(), n->output_types()));
    if (!status.ok()) return annotate(status);
    nk = std::move(fresh);
    return nk.get();
  }

  // Sees to it that `lowered` is there if some node calls functions.
  void FindCalls() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    for (; !lowered && looked_at < graph->num_nodes(); ++looked_at) {
      if (!MayCallFunctions(graph->nodes()[static_cast<size_t>(looked_at)].get())) continue;
      lowered = std::make_unique<LoweredGraph>(graph);
      placer = NewPlacer(lowered->graph());
    }
  }

  absl::Status Lower(Plan::Signature* signature) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    for (std::vector<Output>* outputs : {&signature->feeds, &signature->fetches}) {
      for (Output& o : *outputs) {
        FERRY_ASSIGN_OR_RETURN(o, lowered->Find(o));
      }
    }
    for (Node*& n : signature->targets) {
      FERRY_ASSIGN_OR_RETURN(n, lowered->Find(n));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::shared_ptr<Plan>> PlanFor(Plan::Signature signature) {
    std::string key;
    for (const Output& o : signature.feeds) absl::StrAppend(&key, o.node->id(), ":", o.index, ",");
    key += '|';
    for (const Output& o : signature.fetches) {
      absl::StrAppend(&key, o.node->id(), ":", o.index, ",");
    }
    key += '|';
    for (const Node* n : signature.targets) absl::StrAppend(&key, n->id(), ",");
    FERRY_RETURN_IF_ERROR(status);
    MutexLock lock(&mu);
    auto it = plans.find(key);
    if (it != plans.end()) return it->second;
    FindCalls();
    if (lowered) FERRY_RETURN_IF_ERROR(Lower(&signature));
    FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Plan> plan,
                           Plan::Make(
                               lowered ? *lowered->graph() : *graph, std::move(signature),
                               [this](Node* n) {
                                 mu.AssertHeld();
                                 return KernelOf(n);
                               },
                               options.cuda_graphs));
    return plans[key] = std::move(plan);
  }

  absl::Status CheckOutput(absl::string_view role, const Output& o) const {
    if (!o.node || o.node->graph() != graph) {
      return InvalidArgument(role, ": the tensor is not of this session's graph");
    }
    if (o.index < 0) {
      return InvalidArgument(role, " ", o.name(), ": a tensor is expected, ", Describe(o.node),
                             " isn't one; ", o.node->name(), ":0 is its first");
    }
    if (o.index >= o.node->num_outputs()) {
      return InvalidArgument(role, " ", o.name(), ": node '", o.node->name(), "' (", o.node->op(),
                             ") has ", o.node->num_outputs(), " outputs");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Output> Find(absl::string_view role, const std::string& name) const {
    absl::StatusOr<Output> o = graph->FindOutput(name);
    if (!o.ok()) return Annotate(o.status(), absl::StrCat(role, " '", name, "'"));
    FERRY_RETURN_IF_ERROR(CheckOutput(role, *o));
    return o;
  }

  absl::StatusOr<Node*> FindTarget(const std::string& name) const {
    // "train_op:0" is taken as "train_op", as TensorFlow's users write both.
    FERRY_ASSIGN_OR_RETURN(auto parsed, ParseTensorName(name));
    Node* n = graph->FindNode(parsed.first);
    if (!n) return NotFound("target '", name, "': there is no such node in the graph");
    return n;
  }

  RunContext Context(const RunOptions& options) {
    RunContext c;
    c.pool = &pool;
    c.allocator = HostAllocator::Get();
    c.variables = &variables;
    c.fs = fs;
    if (options.timeout != absl::InfiniteDuration()) c.deadline = absl::Now() + options.timeout;
    c.replays = &replays;
    c.step_id = next_step_id.fetch_add(1, std::memory_order_relaxed);
    return c;
  }
};

Session::Session(Graph* graph, const SessionOptions& options)
    : rep_(std::make_unique<Rep>(graph, options)) {}
Session::~Session() = default;

absl::Status Session::Callable::Run(absl::Span<const Tensor> feeds, std::vector<Tensor>* fetches,
                                    const RunOptions& options) const {
  if (!plan_) return FailedPrecondition("an empty callable: make it with Session::MakeCallable");
  return plan_->Run(feeds, fetches, session_->rep_->Context(options));
}

int Session::Callable::num_steps() const { return plan_ ? plan_->num_steps() : 0; }

absl::StatusOr<Session::Callable> Session::MakeCallable(const CallableOptions& options) {
  Plan::Signature signature;
  for (const std::string& name : options.feeds) {
    FERRY_ASSIGN_OR_RETURN(Output o, rep_->Find("feed", name));
    signature.feeds.push_back(o);
  }
  absl::Status unknown;
  for (const std::string& name : options.fetches) {
    const absl::StatusOr<Output> o = rep_->Find("fetch", name);
    if (o.ok()) {
      signature.fetches.push_back(*o);
      continue;
    }
    // How many outputs an op has that isn't registered nobody knows. The plan says what is missing.
    const auto parsed = ParseTensorName(name);
    Node* const node = parsed.ok() ? rep_->graph->FindNode(parsed->first) : nullptr;
    if (node == nullptr || node->info() != nullptr) return o.status();
    unknown.Update(o.status());
    signature.targets.push_back(node);
  }
  for (const std::string& name : options.targets) {
    FERRY_ASSIGN_OR_RETURN(Node * n, rep_->FindTarget(name));
    signature.targets.push_back(n);
  }
  Callable callable;
  callable.session_ = this;
  FERRY_ASSIGN_OR_RETURN(callable.plan_, rep_->PlanFor(std::move(signature)));
  FERRY_RETURN_IF_ERROR(unknown);  // A function's call, which there is.
  return callable;
}

absl::Status Session::Run(const std::vector<std::pair<std::string, Tensor>>& feeds,
                          const std::vector<std::string>& fetches,
                          const std::vector<std::string>& targets, std::vector<Tensor>* outputs,
                          const RunOptions& options) {
  CallableOptions signature;
  std::vector<Tensor> values;
  for (const auto& [name, value] : feeds) {
    signature.feeds.push_back(name);
    values.push_back(value);
  }
  signature.fetches = fetches;
  signature.targets = targets;
  FERRY_ASSIGN_OR_RETURN(Callable callable, MakeCallable(signature));
  return callable.Run(values, outputs, options);
}

absl::Status Session::Run(absl::Span<const std::pair<Output, Tensor>> feeds,
                          absl::Span<const Output> fetches, absl::Span<Node* const> targets,
                          std::vector<Tensor>* outputs, const RunOptions& options) {
  Plan::Signature signature;
  std::vector<Tensor> values;
  for (const auto& [output, value] : feeds) {
    FERRY_RETURN_IF_ERROR(rep_->CheckOutput("feed", output));
    signature.feeds.push_back(output);
    values.push_back(value);
  }
  for (const Output& o : fetches) FERRY_RETURN_IF_ERROR(rep_->CheckOutput("fetch", o));
  for (Node* n : targets) {
    if (!n || n->graph() != rep_->graph) {
      return InvalidArgument("target: the node is not of this session's graph");
    }
  }
  signature.fetches.assign(fetches.begin(), fetches.end());
  signature.targets.assign(targets.begin(), targets.end());
  FERRY_ASSIGN_OR_RETURN(std::shared_ptr<Plan> plan, rep_->PlanFor(std::move(signature)));
  return plan->Run(values, outputs, rep_->Context(options));
}

absl::StatusOr<Variable*> Session::VariableOf(const Node* node) {
  FERRY_RETURN_IF_ERROR(rep_->status);
  MutexLock lock(&rep_->mu);
  const auto known = rep_->variable_of.find(node);
  if (known != rep_->variable_of.end()) return known->second;
  FERRY_ASSIGN_OR_RETURN(const std::string name, StoredName(node->attrs(), node->name()));
  rep_->FindCalls();
  const Node* placed = node;
  if (rep_->lowered) {
    FERRY_ASSIGN_OR_RETURN(placed, rep_->lowered->Find(const_cast<Node*>(node)));
  }
  FERRY_ASSIGN_OR_RETURN(GpuDevice* const gpu, rep_->placer->Place(placed));
  DType dtype = BaseType(node->output_type(0));
  PartialShape shape = node->output_shape(0);
  if (dtype == DType::kResource) {
    FERRY_ASSIGN_OR_RETURN(dtype, node->Attr<DType>("dtype"));
    shape = node->handle_shape();
  }
  FERRY_ASSIGN_OR_RETURN(Variable* const variable,
                         rep_->variables.LookupOrCreate(name, dtype, shape, gpu));
  rep_->variable_of.emplace(node, variable);
  return variable;
}

GpuDevice* Session::gpu() const { return rep_->gpus.empty() ? nullptr : rep_->gpus.front(); }
int64_t Session::graph_replays() const {
  return rep_->replays.load(std::memory_order_relaxed);
}
absl::Status Session::status() const { return rep_->status; }
Graph* Session::graph() const { return rep_->graph; }
VariableStore* Session::variables() const { return &rep_->variables; }
FileSystem* Session::file_system() const { return rep_->fs; }
ThreadPool* Session::pool() const { return &rep_->pool; }

}  // namespace ferry
