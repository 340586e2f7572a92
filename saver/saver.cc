// Saver: see saver.h.
#include "saver/saver.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <set>
#include <system_error>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "saver/bundle_reader.h"
#include "saver/bundle_writer.h"
#include "saver/checkpoint_state.h"
#include "saver/log.h"

namespace ferry {
namespace {

double WallSeconds() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }
double Monotonic() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// All that a save needs once the snapshot is taken.
struct Job {
  FileSystem* fs = nullptr;
  std::string prefix;  // With the step.
  std::string base;    // Without.
  SaveOptions options;
  // The .meta file's bytes, unless options.write_meta_graph is off.
  std::shared_ptr<const std::string> meta;
  std::unique_ptr<Snapshot> snapshot;
  double start = 0;
};

std::string StateFileName(const SaveOptions& options) {
  return options.latest_filename.empty() ? kStateFileName : options.latest_filename;
}

// Whether `file` is one that a save under `base` may have left behind: BASE or BASE-<digits>, with
// what a checkpoint's files end in. Fills in the prefix's last component.
bool IsLeftover(const std::string& file, const std::string& base, const std::string& meta_suffix,
                std::string* prefix) {
  int shard, count;
  if (!ParseDataFileName(file, prefix, &shard, &count)) {
    if (meta_suffix.empty() || !absl::EndsWith(file, "." + meta_suffix)) return false;
    *prefix = file.substr(0, file.size() - meta_suffix.size() - 1);
  }
  absl::string_view rest = *prefix;
  if (!absl::ConsumePrefix(&rest, base + "-") || rest.empty()) return false;
  return std::all_of(rest.begin(), rest.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Removes what saves under `base` that were killed have left: this project's temporary files, and
// data or .meta files of steps without an index. The caller holds the directory's lock, and has
// committed its own index. What can't be removed is left.
void CleanUp(FileSystem* fs, const std::string& prefix_base, const std::string& meta_suffix) {
  const std::string dir = DirName(prefix_base), base = BaseName(prefix_base);
  const absl::StatusOr<std::vector<std::string>> files = fs->List(dir);
  if (!files.ok()) return;
  const std::set<std::string> names(files->begin(), files->end());
  for (const std::string& file : *files) {
    std::string prefix;
    if (absl::EndsWith(file, kTemporarySuffix)) {
      if (absl::StartsWith(file, base)) fs->Unlink(JoinPath(dir, file)).IgnoreError();
    } else if (IsLeftover(file, base, meta_suffix, &prefix) &&
               names.count(IndexFileName(prefix)) == 0 &&
               names.count(prefix) == 0) {  // Which would be a checkpoint of the V1 format.
      fs->Unlink(JoinPath(dir, file)).IgnoreError();
    }
  }
}

// The index first: without it there is no checkpoint, whatever else is still there. False when the
// index can't be removed; then nothing is.
bool RemoveCheckpoint(FileSystem* fs, const std::string& prefix, const std::string& meta_suffix) {
  const absl::Status removed = fs->Unlink(IndexFileName(prefix));
  if (absl::IsNotFound(removed)) {
    fs->Unlink(prefix).IgnoreError();  // The V1 format's only file.
  } else if (!removed.ok()) {
    return false;
  }
  const std::string dir = DirName(prefix), base = BaseName(prefix);
  const absl::StatusOr<std::vector<std::string>> files = fs->List(dir);
  if (!files.ok()) return true;
  for (const std::string& file : *files) {
    std::string of;
    int shard, count;
    if (ParseDataFileName(file, &of, &shard, &count) && of == base) {
      fs->Unlink(JoinPath(dir, file)).IgnoreError();
    }
  }
  fs->Unlink(absl::StrCat(prefix, ".", meta_suffix)).IgnoreError();
  return true;
}

// The value of an integer scalar variable, while nothing changes it.
absl::StatusOr<int64_t> IntegerOf(const Variable& v) {
  if (!v.initialized()) {
    return FailedPrecondition("Attempting to use uninitialized value ", v.name());
  }
  const Tensor& t = v.tensor();
  const bool wide = t.dtype() == DType::kInt64;
  if ((!wide && t.dtype() != DType::kInt32) || t.num_elements() != 1) {
    return InvalidArgument("the global step '", v.name(), "' is no integer scalar, but ",
                           DTypeName(t.dtype()), " ", t.shape().DebugString());
  }
  int64_t value = 0;
  if (GpuDevice* gpu = v.gpu()) {
    FERRY_RETURN_IF_ERROR(gpu->CopyToHost(GpuStream::kCompute, &value, t.raw(), t.bytes()));
    GpuEvent done;
    FERRY_RETURN_IF_ERROR(gpu->Record(GpuStream::kCompute, &done));
    FERRY_RETURN_IF_ERROR(gpu->Synchronize(done));
  } else {
    std::memcpy(&value, t.raw(), t.bytes());
  }
  return wide ? value : static_cast<int64_t>(static_cast<int32_t>(value));
}

}  // namespace

struct Saver::Rep {
  Rep(Graph* graph, SaverOptions options, std::vector<SaveItem> items)
      : graph(graph), options(std::move(options)), items(std::move(items)) {
    next_kept_time = WallSeconds() + this->options.keep_checkpoint_every_n_hours * 3600;
  }

  Graph* const graph;
  const SaverOptions options;
  bool built = true;            // False from defer_build on until Build.
  std::vector<SaveItem> items;  // By key.

  Mutex graph_mu;  // For the two below.
  std::optional<proto::SaverDef> def ABSL_GUARDED_BY(graph_mu);
  struct {
    int nodes = -1;
    size_t collections = 0;
    bool strip = false;
    std::shared_ptr<const std::string> bytes;
  } meta ABSL_GUARDED_BY(graph_mu);  // The last .meta, used again while the graph is the same.

  Mutex mu;
  CondVar changed;
  bool saving ABSL_GUARDED_BY(mu) = false;  // The memory below is the saving thread's then.
  std::unique_ptr<Job> queued ABSL_GUARDED_BY(mu);
  bool stop ABSL_GUARDED_BY(mu) = false;
  absl::Status background ABSL_GUARDED_BY(mu);  // Of a background save, until somebody asks.
  SaveStats stats ABSL_GUARDED_BY(mu);
  std::vector<std::pair<std::string, double>> last ABSL_GUARDED_BY(mu);
  std::vector<std::string> to_remove ABSL_GUARDED_BY(mu);  // Evicted, but it didn't work yet.
  double next_kept_time ABSL_GUARDED_BY(mu) = 0;
  double last_preserved_time ABSL_GUARDED_BY(mu) = 0;
  CheckpointNotes notes ABSL_GUARDED_BY(mu);
  std::thread worker ABSL_GUARDED_BY(mu);

  std::deque<StagingRing> rings;     // One a shard.
  std::unique_ptr<ShadowPool> pool;  // Made with the worker.

  absl::Status CheckBuilt() const {
    if (built) return absl::OkStatus();
    return FailedPrecondition(
        "`build()` should be called before save if defer_build==True: call "
        "Build() before the saver is used");
  }

  // ---- The graph ----
  SaveNodesOptions NodesOptions() const {
    SaveNodesOptions nodes;
    if (!options.name.empty()) nodes.name = options.name;
    nodes.filename = options.filename;
    nodes.reshape = options.reshape;
    nodes.sharded = options.sharded;
    return nodes;
  }
  // The def of save nodes in `to`, which get there now unless they are there. REQUIRES: items.
  absl::StatusOr<proto::SaverDef> AddNodes(Graph* to, const std::vector<SaveItem>& of) const {
    SaveNodesOptions nodes = NodesOptions();
    proto::SaverDef made;
    if (std::optional<proto::SaverDef> there = FindSaveNodes(*to, of, nodes)) {
      made = *std::move(there);
    } else {
      // A copy doesn't know the names that the graph has given out.
      if (to != graph) nodes.name = graph->UniqueName(nodes.name, /*mark_as_used=*/false);
      FERRY_ASSIGN_OR_RETURN(made, AddSaveNodes(to, of, nodes));
    }
    made.set_max_to_keep(options.max_to_keep);
    made.set_keep_checkpoint_every_n_hours(
        static_cast<float>(options.keep_checkpoint_every_n_hours));
    return made;
  }

  absl::StatusOr<proto::SaverDef> Def() ABSL_EXCLUSIVE_LOCKS_REQUIRED(graph_mu) {
    FERRY_RETURN_IF_ERROR(CheckBuilt());
    if (!def) {
      FERRY_ASSIGN_OR_RETURN(def, AddNodes(graph, items));
    }
    return *def;
  }

  absl::StatusOr<proto::MetaGraphDef> Export(bool strip) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(graph_mu) {
    ExportOptions exporting;
    exporting.strip_default_attrs = strip;
    if (items.empty()) return ExportMetaGraph(*graph, exporting);
    if (def) {
      exporting.saver_def = &*def;
      return ExportMetaGraph(*graph, exporting);
    }
    // The save nodes go into a copy: other threads may be running the graph.
    Graph copy;
    proto::GraphDef nodes;
    graph->ToGraphDef(&nodes);
    FERRY_RETURN_IF_ERROR(ImportGraphDef({}, nodes, &copy));
    *copy.mutable_versions() = graph->versions();
    *copy.mutable_collections() = graph->collections();
    std::vector<SaveItem> copied = items;
    for (SaveItem& item : copied) item.variable.node = copy.FindNode(item.variable.node->name());
    FERRY_ASSIGN_OR_RETURN(const proto::SaverDef saver_def, AddNodes(&copy, copied));
    exporting.saver_def = &saver_def;
    return ExportMetaGraph(copy, exporting);
  }

  absl::StatusOr<std::shared_ptr<const std::string>> MetaBytes(bool strip) {
    MutexLock lock(&graph_mu);
    size_t collections = 0;
    for (const auto& [name, c] : graph->collections()) {
      collections += name.size() + c.ByteSizeLong() + 1;
    }
    if (meta.nodes != graph->num_nodes() || meta.collections != collections ||
        meta.strip != strip) {
      FERRY_ASSIGN_OR_RETURN(const proto::MetaGraphDef exported, Export(strip));
      FERRY_ASSIGN_OR_RETURN(std::string bytes, SerializeMetaGraph(exported));
      meta.bytes = std::make_shared<const std::string>(std::move(bytes));
      meta.nodes = graph->num_nodes();
      meta.collections = collections;
      meta.strip = strip;
    }
    return meta.bytes;
  }

  absl::StatusOr<Variable*> Find(Session* session, const SaveItem& item) const {
    return session->VariableOf(item.variable.node);
  }

  // What a saver without variables saves, as TensorFlow's does.
  absl::Status WriteMetaAlone(FileSystem* fs, const std::string& prefix, const SaveOptions& save) {
    if (!save.write_meta_graph) return absl::OkStatus();
    std::string path = prefix;
    if (save.global_step) absl::StrAppend(&path, "-", *save.global_step);
    FERRY_ASSIGN_OR_RETURN(const auto bytes, MetaBytes(save.strip_default_attrs));
    return WriteFileAtomically(fs, absl::StrCat(path, ".", save.meta_graph_suffix), *bytes);
  }

  // ---- Saving ----
  absl::StatusOr<std::unique_ptr<Job>> Prepare(Session* session, const std::string& prefix,
                                               const SaveOptions& save, ShadowPool* shadow) {
    auto job = std::make_unique<Job>();
    job->start = Monotonic();
    job->fs = session->file_system();
    job->options = save;
    job->base = job->prefix = prefix;
    const std::string state = StateFileName(save);
    if (state.find('/') != std::string::npos) {
      return InvalidArgument("'latest_filename' must not contain path components: '", state, "'");
    }
    if (save.global_step && save.global_step_variable) {
      return InvalidArgument("global_step is given both as a number and as a variable");
    }
    if (!save.global_step && !save.global_step_variable && BaseName(prefix) == state) {
      return InvalidArgument("'latest_filename' collides with 'save_path': '", state, "' and '",
                             prefix, "'");
    }
    const std::string& suffix = save.meta_graph_suffix;
    if (suffix.empty() || suffix == "index" || suffix.find('/') != std::string::npos) {
      return InvalidArgument("meta_graph_suffix '", suffix,
                             "' doesn't give a file of its own beside the checkpoint's");
    }
    if (save.write_meta_graph) {
      FERRY_ASSIGN_OR_RETURN(job->meta, MetaBytes(save.strip_default_attrs));
    }
    std::vector<Variable*> variables;
    for (const SaveItem& item : items) {
      FERRY_ASSIGN_OR_RETURN(Variable * v, Find(session, item));
      variables.push_back(v);
    }
    std::optional<int64_t> step = save.global_step;
    std::function<absl::Status()> read_step;
    if (save.global_step_variable) {
      FERRY_ASSIGN_OR_RETURN(const Variable* v,
                             session->VariableOf(save.global_step_variable.ref.node));
      read_step = [v, &step]() -> absl::Status {
        FERRY_ASSIGN_OR_RETURN(step, IntegerOf(*v));
        return absl::OkStatus();
      };
    }
    FERRY_ASSIGN_OR_RETURN(job->snapshot,
                           Snapshot::Take(session->variables(), variables, shadow, read_step));
    if (step) {
      if (*step < 0) {
        return InvalidArgument("global_step is ", *step, "; it must not be negative");
      }
      job->prefix = options.pad_step_number ? absl::StrFormat("%s-%08d", prefix, *step)
                                            : absl::StrFormat("%s-%d", prefix, *step);
    }
    return job;
  }

  // Adds variable i of the snapshot.
  static absl::Status Add(BundleWriter* writer, const SaveItem& item, Snapshot* snapshot,
                          SnapshotSource* source, int i) {
    const Variable& v = snapshot->variable(i);
    const TensorShape& shape = snapshot->shape(i);
    const bool strings = v.dtype() == DType::kString;
    if (item.slice.empty()) {
      return strings ? writer->Add(item.key, snapshot->strings(i))
                     : writer->Add(item.key, v.dtype(), shape, source);
    }
    FERRY_ASSIGN_OR_RETURN(const ShapeAndSlice part, ParseShapeAndSlice(item.slice));
    if (part.shape != shape) {
      return InvalidArgument("variable '", v.name(), "' has the shape ", shape.DebugString(),
                             "; its slice '", item.slice, "' of '", item.key, "' has ",
                             part.shape.DebugString());
    }
    return strings ? writer->AddSlice(item.key, part.full_shape, part.slice, snapshot->strings(i))
                   : writer->AddSlice(item.key, v.dtype(), part.full_shape, part.slice, source);
  }

  // Writes the checkpoint, then the state file; evicts. Runs on one thread at a time.
  absl::Status Write(Job* job, SaveStats* done) {
    // What goes into which data file.
    std::vector<std::vector<size_t>> shards(1);
    if (options.sharded) {
      shards.clear();
      for (auto& [device, members] : ItemsByDevice(items)) shards.push_back(std::move(members));
    } else {
      for (size_t i = 0; i < items.size(); ++i) shards[0].push_back(i);
    }
    // The rings of all shards together take about as much memory as one does alone.
    const size_t slot_bytes = std::max<size_t>(1, StagingRing::kUsualSlotBytes /
                                                      StagingRing::kAlignment / shards.size()) *
                              StagingRing::kAlignment;
    if (rings.size() < shards.size()) rings.resize(shards.size());
    BundleWriterOptions writing;
    for (size_t k = 0; k < shards.size(); ++k) {
      uint64_t bytes = 0;
      bool any_gpu = false;
      for (const size_t i : shards[k]) {
        bytes += job->snapshot->bytes(static_cast<int>(i));
        any_gpu = any_gpu || job->snapshot->variable(static_cast<int>(i)).gpu();
      }
      done->bytes += static_cast<int64_t>(bytes);
      FERRY_RETURN_IF_ERROR(rings[k].Init(StagingRing::kUsualSlots, slot_bytes, any_gpu));
      if (k == 0) {
        writing.ring = &rings[k];
        writing.block.expected_bytes = bytes;
      } else {
        writing.more_shards.push_back({&rings[k], bytes});
      }
    }
    std::deque<SnapshotSource> sources;  // Until FinishData.
    for (int i = 0; i < job->snapshot->size(); ++i) {
      sources.emplace_back(job->snapshot.get(), i, job->options.allow_nan);
    }
    // Holds the directory's lock until the end of this function.
    FERRY_ASSIGN_OR_RETURN(std::unique_ptr<BundleWriter> writer,
                           BundleWriter::Open(job->fs, job->prefix, writing));
    if (job->options.write_meta_graph) {
      FERRY_RETURN_IF_ERROR(
          writer->AddFile(absl::StrCat(job->prefix, ".", job->options.meta_graph_suffix),
                          *job->meta, BundleWriter::Named::kBeforeCommit));
    }
    std::vector<absl::Status> written(shards.size());
    const auto write_shard = [&](size_t k) {
      for (const size_t i : shards[k]) {
        written[k] =
            Add(writer->shard(k), items[i], job->snapshot.get(), &sources[i], static_cast<int>(i));
        if (!written[k].ok()) return;
      }
      written[k] = writer->shard(k)->FinishData();
    };
    std::vector<std::thread> threads;
    for (size_t k = 1; k < shards.size(); ++k) {
      try {
        threads.emplace_back(write_shard, k);
      } catch (const std::system_error&) {  // The system has no more threads.
        write_shard(k);
      }
    }
    write_shard(0);
    for (std::thread& t : threads) t.join();
    for (const absl::Status& status : written) FERRY_RETURN_IF_ERROR(status);
    done->snapshot = job->snapshot->stats();
    job->snapshot.reset();  // Training needs no more copies.
    Retention retention;
    if (job->options.write_state) {
      FERRY_ASSIGN_OR_RETURN(retention, PlanRetention(*job));
      FERRY_RETURN_IF_ERROR(
          writer->AddFile(JoinPath(DirName(job->prefix), StateFileName(job->options)),
                          retention.state, BundleWriter::Named::kAfterCommit));
    }
    const absl::Status committed = writer->Commit();
    if (job->options.write_state && writer->in_place()) {
      MutexLock lock(&mu);
      to_remove.erase(std::remove(to_remove.begin(), to_remove.end(), job->prefix),
                      to_remove.end());
      if (committed.ok()) {
        last = retention.kept;
        next_kept_time = retention.next_kept_time;
        last_preserved_time = retention.last_preserved_time;
        notes.metrics = retention.metrics;
        retention.evicted.insert(retention.evicted.begin(), to_remove.begin(), to_remove.end());
        to_remove.clear();
      } else {
        last = retention.all;  // What stands all the same is some later save's to evict.
      }
    }
    FERRY_RETURN_IF_ERROR(committed);
    done->write_method = writer->write_method();
    for (const std::string& p : retention.evicted) {
      if (RemoveCheckpoint(job->fs, p, job->options.meta_graph_suffix)) continue;
      MutexLock lock(&mu);
      to_remove.push_back(p);
    }
    CleanUp(job->fs, job->base, job->options.meta_graph_suffix);
    done->seconds = Monotonic() - job->start;
    return absl::OkStatus();
  }

  // What a save that goes well makes of the last checkpoints, and the state file that says so.
  struct Retention {
    decltype(last) all;   // With the new one as the newest.
    decltype(last) kept;  // Of these.
    std::vector<std::string> evicted;
    std::map<std::string, double> metrics;  // Of `kept`.
    double next_kept_time = 0, last_preserved_time = 0;
    std::string state;
  };

  absl::StatusOr<Retention> PlanRetention(const Job& job) {
    Retention r;
    CheckpointNotes kept_notes;
    {
      MutexLock lock(&mu);
      kept_notes = notes;
      r.metrics = notes.metrics;
      r.all = last;
      r.next_kept_time = next_kept_time;
      r.last_preserved_time = last_preserved_time;
    }
    r.all.erase(std::remove_if(r.all.begin(), r.all.end(),
                               [&](const auto& p) { return p.first == job.prefix; }),
                r.all.end());
    r.all.emplace_back(job.prefix, WallSeconds());
    r.metrics.erase(job.prefix);
    if (job.options.metric && !std::isnan(*job.options.metric)) {
      r.metrics[job.prefix] = *job.options.metric;
    }
    std::set<std::string> stay = kept_notes.protected_paths;
    const std::vector<std::pair<std::string, double>> best = BestOf(r.all, r.metrics);
    for (size_t i = 0; i < best.size() && i < static_cast<size_t>(options.keep_best); ++i) {
      stay.insert(best[i].first);
    }
    // All that are due go, not only one a save: a lowered max_to_keep takes effect at once.
    for (auto p = r.all.begin(); p != r.all.end(); ++p) {
      const auto& [path, time] = *p;
      if (options.max_to_keep == 0 || r.all.end() - p <= options.max_to_keep ||
          stay.count(path) > 0) {
        r.kept.push_back(*p);
        continue;
      }
      r.metrics.erase(path);
      if (std::isinf(time)) continue;  // See set_last_checkpoints.
      if (time > r.next_kept_time) {
        r.next_kept_time += options.keep_checkpoint_every_n_hours * 3600;
        r.last_preserved_time = time;
      } else {
        r.evicted.push_back(path);
      }
    }
    kept_notes.metrics = r.metrics;
    std::vector<std::string> paths;
    std::vector<double> times;
    for (const auto& [path, time] : r.kept) {
      paths.push_back(path);
      times.push_back(time);
    }
    // Times stand for all paths or for none.
    if (std::any_of(times.begin(), times.end(), [](double t) { return std::isinf(t); })) {
      times.clear();
    }
    FERRY_ASSIGN_OR_RETURN(
        r.state, GenerateCheckpointState(DirName(job.prefix), job.prefix, paths, times,
                                         r.last_preserved_time, StateFileName(job.options),
                                         options.save_relative_paths, kept_notes));
    return r;
  }

  // Those of `paths` that have a metric, the best first; of equal ones, the newest.
  std::vector<std::pair<std::string, double>> BestOf(
      const std::vector<std::pair<std::string, double>>& paths,
      const std::map<std::string, double>& metrics) const {
    std::vector<std::pair<std::string, double>> best;
    for (auto p = paths.rbegin(); p != paths.rend(); ++p) {
      const auto it = metrics.find(p->first);
      if (it != metrics.end()) best.push_back(*it);
    }
    std::stable_sort(best.begin(), best.end(), [this](const auto& a, const auto& b) {
      return options.lower_is_better ? a.second < b.second : a.second > b.second;
    });
    return best;
  }

  // ---- The background thread ----
  void Work() {
    for (;;) {
      std::unique_ptr<Job> job;
      {
        MutexLock lock(&mu);
        while (!queued && !stop) {
          // The first save finds the pool's memory fresh; the next ones shall not.
          mu.Unlock();
          const bool warming = pool->WarmSome();
          mu.Lock();
          if (!warming && !queued && !stop) changed.Wait(&mu);
        }
        if (!queued) return;
        job = std::move(queued);
      }
      SaveStats done;
      absl::Status status = Write(job.get(), &done);
      job.reset();  // Unmarks the variables when the save failed.
      MutexLock lock(&mu);
      if (status.ok()) {
        stats = done;
      } else {
        KeepFirst(&background, std::move(status));
      }
      saving = false;
      changed.SignalAll();
    }
  }

  // Waits until no save is under way, and takes the right to save.
  void BeginSaving() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    while (saving) changed.Wait(&mu);
    saving = true;
  }
  void EndSaving() {
    MutexLock lock(&mu);
    saving = false;
    changed.SignalAll();
  }
};

Saver::Saver(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}

Saver::~Saver() {
  std::thread worker;
  {
    MutexLock lock(&rep_->mu);
    while (rep_->saving) rep_->changed.Wait(&rep_->mu);
    rep_->stop = true;
    rep_->changed.SignalAll();
    worker = std::move(rep_->worker);
  }
  if (worker.joinable()) worker.join();
  MutexLock lock(&rep_->mu);
  if (!rep_->background.ok()) {
    LogWarning("a background save failed: ", rep_->background.ToString());
  }
}

namespace {

// The variable under its own name; a part of a variable as a slice of that.
SaveItem ItemOf(const VariableHandle& v) {
  SaveItem item{v.name(), v.ref, ""};
  if (v.slice) {
    item.key = v.slice->full_name();
    item.slice = SliceSpec(*v.slice);
  }
  return item;
}

// The saveable variables of a graph, with slices as their VariableDefs tell.
absl::StatusOr<std::vector<SaveItem>> AllSaveable(const Graph& graph) {
  std::vector<SaveItem> items;
  std::set<const Node*> seen;
  for (const char* const collection : {kGlobalVariables, "saveable_objects"}) {
    FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> all, VariablesOf(graph, collection));
    for (const VariableHandle& v : all) {
      // One that the first collection has twice was imported twice, which CheckItems tells.
      if (!seen.insert(v.ref.node).second && collection != kGlobalVariables) continue;
      items.push_back(ItemOf(v));
    }
  }
  return items;
}

absl::Status CheckItems(const std::vector<SaveItem>& items, bool allow_empty) {
  if (items.empty() && !allow_empty) return InvalidArgument("No variables to save");
  std::set<std::pair<std::string, std::string>> slices;
  for (size_t i = 0; i < items.size(); ++i) {
    const bool again = i > 0 && items[i].key == items[i - 1].key &&
                       (items[i].slice.empty() || items[i - 1].slice.empty());
    if (again || !slices.emplace(items[i].key, items[i].slice).second) {
      return InvalidArgument("At least two variables have the same name: ", items[i].key);
    }
  }
  std::set<const Node*> seen;
  for (const SaveItem& item : items) {
    if (!seen.insert(item.variable.node).second) {
      return InvalidArgument("The same saveable will be restored with two names: ", item.key,
                             " is variable '", item.variable.node->name(), "' once more");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Saver>> Saver::Create(Graph* graph, const SaverOptions& options) {
  if (options.max_to_keep < 0 || options.keep_best < 0) {
    return InvalidArgument("max_to_keep is ", options.max_to_keep, " and keep_best ",
                           options.keep_best, "; 0 keeps all checkpoints, and no best ones");
  }
  if (options.write_version != proto::SaverDef::V2) {
    return Unimplemented("write_version is ",
                         proto::SaverDef::CheckpointFormatVersion_Name(options.write_version),
                         "; checkpoints are written in the V2 format only, which TensorFlow reads "
                         "since 0.12; V1 is read");
  }
  if (!options.var_map.empty() && !options.var_list.empty()) {
    return InvalidArgument("a Saver takes a list of variables or a map, not both");
  }
  std::unique_ptr<Saver> saver(
      new Saver(std::make_unique<Rep>(graph, options, std::vector<SaveItem>())));
  saver->rep_->built = false;
  if (options.defer_build) {
    if (!options.var_list.empty() || !options.var_map.empty()) {
      return InvalidArgument("If `var_list` is provided then build cannot be deferred");
    }
    return saver;
  }
  FERRY_RETURN_IF_ERROR(saver->Build());
  return saver;
}

absl::Status Saver::Build() {
  if (rep_->built) return absl::OkStatus();
  const SaverOptions& options = rep_->options;
  std::vector<SaveItem> items;
  for (const auto& [key, v] : options.var_map) {
    if (!v) return InvalidArgument("the variable for '", key, "' in the Saver's map is empty");
    items.push_back(ItemOf(v));
    items.back().key = key;
  }
  for (const VariableHandle& v : options.var_list) {
    if (!v) return InvalidArgument("a variable in the Saver's list is empty");
    items.push_back(ItemOf(v));
  }
  if (items.empty()) {
    FERRY_ASSIGN_OR_RETURN(items, AllSaveable(*rep_->graph));
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const SaveItem& a, const SaveItem& b) { return a.key < b.key; });
  FERRY_RETURN_IF_ERROR(CheckItems(items, options.allow_empty));
  rep_->items = std::move(items);
  rep_->built = true;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Saver>> Saver::FromProto(Graph* graph, const proto::SaverDef& def,
                                                        const std::string& import_scope) {
  proto::SaverDef scoped = def;
  PrefixSaverDef(import_scope, &scoped);
  FERRY_ASSIGN_OR_RETURN(std::vector<SaveItem> items, FindSaveItems(*graph, scoped));
  std::stable_sort(items.begin(), items.end(),
                   [](const SaveItem& a, const SaveItem& b) { return a.key < b.key; });
  FERRY_RETURN_IF_ERROR(CheckItems(items, false));
  SaverOptions options;
  options.max_to_keep = std::max(0, def.max_to_keep());
  options.sharded = def.sharded();
  if (def.keep_checkpoint_every_n_hours() > 0) {
    options.keep_checkpoint_every_n_hours = def.keep_checkpoint_every_n_hours();
  }
  std::unique_ptr<Saver> saver(new Saver(std::make_unique<Rep>(graph, options, std::move(items))));
  MutexLock lock(&saver->rep_->graph_mu);
  saver->rep_->def = scoped;
  return saver;
}

absl::StatusOr<std::unique_ptr<Saver>> ImportMetaGraphFile(FileSystem* fs, const std::string& path,
                                                           const ImportMetaOptions& options,
                                                           Graph* graph,
                                                           ImportedMetaGraph* imported) {
  FERRY_ASSIGN_OR_RETURN(const proto::MetaGraphDef meta, ReadMetaGraph(fs, path));
  ImportedMetaGraph own;
  ImportedMetaGraph* const into = imported ? imported : &own;
  absl::StatusOr<ImportedMetaGraph> done = ImportMetaGraph(meta, options, graph);
  if (!done.ok()) return Annotate(done.status(), path);
  *into = *std::move(done);
  if (into->has_saver_def) return Saver::FromProto(graph, into->saver_def);  // Scoped already.
  SaverOptions all;
  all.allow_empty = true;
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> saver, Saver::Create(graph, all));
  // Variables elsewhere are none of what was imported.
  const std::string scope(absl::StripSuffix(options.import_scope, "/"));
  const bool any =
      std::any_of(saver->items().begin(), saver->items().end(), [&](const SaveItem& item) {
        return scope.empty() || absl::StartsWith(item.variable.node->name(), scope + "/");
      });
  if (!any) saver.reset();
  return saver;
}

absl::StatusOr<std::string> Saver::Save(Session* session, const std::string& prefix,
                                        const SaveOptions& options) {
  FERRY_RETURN_IF_ERROR(rep_->CheckBuilt());
  if (rep_->items.empty()) {
    FERRY_RETURN_IF_ERROR(rep_->WriteMetaAlone(session->file_system(), prefix, options));
    return std::string();
  }
  {
    MutexLock lock(&rep_->mu);
    rep_->BeginSaving();
  }
  // Without a pool: a caller who waits for the save updates nothing meanwhile; other threads'
  // updates wait for their variable to be staged.
  absl::StatusOr<std::unique_ptr<Job>> job = rep_->Prepare(session, prefix, options, nullptr);
  SaveStats done;
  absl::Status status = job.ok() ? rep_->Write(job->get(), &done) : job.status();
  std::string written;
  if (job.ok()) {
    written = (*job)->prefix;
    job->reset();
  }
  if (status.ok()) {
    MutexLock lock(&rep_->mu);
    rep_->stats = done;
  }
  rep_->EndSaving();
  if (!status.ok()) return status;
  return written;
}

absl::StatusOr<bool> Saver::SaveAsync(Session* session, const std::string& prefix,
                                      const SaveOptions& options, const AsyncSaveOptions& async) {
  FERRY_RETURN_IF_ERROR(rep_->CheckBuilt());
  if (rep_->items.empty()) {
    FERRY_RETURN_IF_ERROR(rep_->WriteMetaAlone(session->file_system(), prefix, options));
    return true;
  }
  {
    MutexLock lock(&rep_->mu);
    if (rep_->saving && async.when_busy == WhenBusy::kSkip) return false;
    while (rep_->saving) rep_->changed.Wait(&rep_->mu);
    if (!rep_->background.ok()) {
      absl::Status status = rep_->background;
      rep_->background = absl::OkStatus();
      return status;
    }
    rep_->saving = true;
    if (!rep_->worker.joinable()) {
      int64_t limit = rep_->options.shadow_pool_bytes;
      if (limit < 0) {
        struct sysinfo info;
        limit = sysinfo(&info) == 0
                    ? static_cast<int64_t>(info.totalram) * static_cast<int64_t>(info.mem_unit) / 4
                    : int64_t{1} << 30;
      }
      rep_->pool =
          std::make_unique<ShadowPool>(static_cast<size_t>(limit), rep_->options.shadow_pool_bytes);
      try {
        rep_->worker = std::thread([this] { rep_->Work(); });
      } catch (const std::system_error& e) {
        rep_->saving = false;
        rep_->changed.SignalAll();
        return ResourceExhausted("saving ", prefix, " in the background: no thread: ", e.what());
      }
    }
  }
  absl::StatusOr<std::unique_ptr<Job>> job =
      rep_->Prepare(session, prefix, options, rep_->pool.get());
  if (!job.ok()) {
    rep_->EndSaving();
    return job.status();
  }
  MutexLock lock(&rep_->mu);
  rep_->queued = *std::move(job);
  rep_->changed.SignalAll();
  return true;
}

absl::Status Saver::WaitForPending() {
  MutexLock lock(&rep_->mu);
  while (rep_->saving) rep_->changed.Wait(&rep_->mu);
  absl::Status status = rep_->background;
  rep_->background = absl::OkStatus();
  return status;
}

bool Saver::busy() const {
  MutexLock lock(&rep_->mu);
  return rep_->saving;
}

SaveStats Saver::last_stats() const {
  MutexLock lock(&rep_->mu);
  return rep_->stats;
}

namespace {

// Waits for the copy.
absl::StatusOr<Tensor> CopyToGpu(const Tensor& from, GpuDevice* gpu) {
  FERRY_ASSIGN_OR_RETURN(Tensor to, Tensor::Allocate(from.dtype(), from.shape(), gpu->allocator()));
  FERRY_RETURN_IF_ERROR(gpu->CopyToDevice(GpuStream::kCompute, to.raw(), from.raw(), from.bytes()));
  GpuEvent done;
  FERRY_RETURN_IF_ERROR(gpu->Record(GpuStream::kCompute, &done));
  FERRY_RETURN_IF_ERROR(gpu->Synchronize(done));
  return to;
}

}  // namespace

absl::Status Saver::Restore(Session* session, const std::string& prefix) {
  FERRY_RETURN_IF_ERROR(rep_->CheckBuilt());
  if (rep_->items.empty()) return absl::OkStatus();
  // A save under way reads the variables that are about to change.
  {
    MutexLock lock(&rep_->mu);
    rep_->BeginSaving();
  }
  struct Done {
    Rep* rep;
    ~Done() { rep->EndSaving(); }
  } done{rep_.get()};

  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<BundleReader> reader,
                         BundleReader::Open(session->file_system(), prefix));
  LogInfo("Restoring parameters from ", prefix);
  // Everything that can be known without reading the data is checked first.
  struct Target {
    Variable* variable;
    const BundleReader::Entry* entry;
    std::optional<ShapeAndSlice> part;  // A slice of the entry, not the whole.
    TensorShape shape;                  // The variable's.
    Tensor fresh;
  };
  std::vector<Target> targets;
  for (const SaveItem& item : rep_->items) {
    Target t{};
    FERRY_ASSIGN_OR_RETURN(t.variable, rep_->Find(session, item));
    FERRY_ASSIGN_OR_RETURN(t.entry, reader->Lookup(item.key));
    if (t.entry->dtype != t.variable->dtype()) {
      return InvalidArgument("tensor_name = ", item.key, "; expected dtype ",
                             DTypeWord(t.variable->dtype()), " does not equal original dtype ",
                             DTypeWord(t.entry->dtype), " (checkpoint ", prefix, ")");
    }
    t.shape = t.entry->shape;
    if (!item.slice.empty()) {
      FERRY_ASSIGN_OR_RETURN(t.part, ParseShapeAndSlice(item.slice));
      if (t.part->full_shape != t.entry->shape) {
        return InvalidArgument(
            "tensor_name = ", item.key, "; shape in shape_and_slice spec ",
            t.part->full_shape.DebugString(),
            " does not match the shape stored in checkpoint: ", t.entry->shape.DebugString());
      }
      t.shape = t.part->shape;
    }
    const PartialShape& declared = t.variable->declared_shape();
    if (rep_->options.reshape && declared.fully_defined() &&
        declared.num_elements() == t.shape.num_elements()) {
      FERRY_ASSIGN_OR_RETURN(t.shape, declared.ToTensorShape());
    }
    if (!declared.CompatibleWith(PartialShape(t.shape))) {
      return InvalidArgument(
          "Assign requires shapes of both tensors to match. lhs shape= ", declared.DebugString(),
          " rhs shape= ", t.shape.DebugString(), " (variable '", t.variable->name(), "', '",
          item.key, "' in checkpoint ", prefix, ")");
    }
    FERRY_RETURN_IF_ERROR(reader->Check(*t.entry));
    targets.push_back(std::move(t));
  }

  // Into fresh memory, so that an error leaves every variable as it was.
  const bool fresh = [&] {
    for (Target& t : targets) {
      if (t.part || !BundleReader::CanReadInto(*t.entry)) continue;
      GpuDevice* const gpu = t.variable->gpu();
      const std::string tag = absl::StrCat("restoring variable '", t.variable->name(), "'");
      const MemoryTag named(&tag);
      absl::StatusOr<Tensor> memory =
          Tensor::Allocate(t.variable->dtype(), t.shape,
                           gpu ? gpu->allocator() : static_cast<Allocator*>(HostAllocator::Get()));
      if (!memory.ok()) return false;
      t.fresh = *std::move(memory);
    }
    return true;
  }();
  std::vector<BundleReader::Request> requests;
  for (Target& t : targets) {
    if (!fresh) t.fresh = Tensor();
    if (t.part || !BundleReader::CanReadInto(*t.entry)) {
      absl::StatusOr<Tensor> read =
          t.part ? reader->ReadSlice(t.entry->name, t.part->slice, session->pool())
                 : reader->Read(t.entry->name, session->pool());
      if (!read.ok()) return read.status();
      t.fresh = read->WithShape(t.shape);
      if (t.variable->gpu()) {
        FERRY_ASSIGN_OR_RETURN(t.fresh, CopyToGpu(t.fresh, t.variable->gpu()));
      }
    } else {
      requests.push_back(
          {t.entry, fresh ? t.fresh.raw() : nullptr, absl::OkStatus(), t.variable->gpu()});
    }
  }
  const auto read_all = [&]() -> absl::Status {
    const absl::Span<BundleReader::Request> all = absl::MakeSpan(requests);
    if (!rep_->options.restore_sequentially) return reader->ReadInto(all, session->pool());
    for (size_t i = 0; i < all.size(); ++i) {
      FERRY_RETURN_IF_ERROR(reader->ReadInto(all.subspan(i, 1), nullptr));
    }
    return absl::OkStatus();
  };
  FERRY_RETURN_IF_ERROR(read_all());
  if (fresh) {
    WriterLock gate(&session->variables()->gate());
    absl::Status status;
    for (Target& t : targets) KeepFirst(&status, t.variable->SwapContents(&t.fresh));
    return status;
  }

  // No memory for a second copy: every byte was checked just now; read again, in place.
  WriterLock gate(&session->variables()->gate());
  std::vector<Target*> in_place;
  requests.clear();
  absl::Status status;
  for (Target& t : targets) {
    if (t.fresh.initialized()) continue;
    MutexLock lock(&t.variable->mu());
    absl::StatusOr<Tensor*> memory = t.variable->TensorForOverwrite(t.shape);
    if (!memory.ok()) {
      status = memory.status();
      break;
    }
    t.variable->Publish();
    requests.push_back({t.entry, (*memory)->raw(), absl::OkStatus(), t.variable->gpu()});
    in_place.push_back(&t);
  }
  if (status.ok()) status = read_all();
  if (status.ok()) {
    for (Target& t : targets) {
      if (t.fresh.initialized()) KeepFirst(&status, t.variable->SwapContents(&t.fresh));
    }
    return status;
  }
  std::string lost;
  for (Target* t : in_place) {
    Tensor none;
    t->variable->SwapContents(&none).IgnoreError();
    absl::StrAppend(&lost, lost.empty() ? "" : ", ", t->variable->name());
  }
  return Annotate(status, absl::StrCat("restoring in place, for want of memory, failed and left "
                                       "these variables uninitialised: ",
                                       lost));
}

std::vector<std::string> Saver::last_checkpoints() const {
  MutexLock lock(&rep_->mu);
  std::vector<std::string> paths;
  for (const auto& [path, time] : rep_->last) paths.push_back(path);
  return paths;
}

void Saver::set_last_checkpoints(const std::vector<std::string>& paths) {
  std::vector<std::pair<std::string, double>> timed;
  for (const std::string& p : paths) {
    timed.emplace_back(p, std::numeric_limits<double>::infinity());
  }
  set_last_checkpoints_with_time(timed);
}

void Saver::set_last_checkpoints_with_time(
    const std::vector<std::pair<std::string, double>>& paths) {
  MutexLock lock(&rep_->mu);
  rep_->last = paths;
}

namespace {

// When the checkpoint was made, in seconds since 1970, as its files' times tell.
absl::StatusOr<double> TimeOf(FileSystem* fs, const std::string& prefix) {
  absl::StatusOr<FileInfo> info = fs->Stat(IndexFileName(prefix));
  if (absl::IsNotFound(info.status()) && CheckpointExists(fs, prefix))
    info = fs->Stat(prefix);  // V1.
  if (!info.ok()) return info.status();
  return static_cast<double>(info->mtime_ns) * 1e-9;
}

}  // namespace

absl::Status Saver::recover_last_checkpoints(FileSystem* fs,
                                             const std::vector<std::string>& paths) {
  std::vector<std::pair<std::string, double>> found;
  for (const std::string& p : paths) {
    const absl::StatusOr<double> time = TimeOf(fs, p);
    if (absl::IsNotFound(time.status())) continue;
    if (!time.ok()) return time.status();
    found.emplace_back(p, *time);
  }
  set_last_checkpoints_with_time(found);
  return absl::OkStatus();
}

absl::Status Saver::RecoverFromState(FileSystem* fs, const std::string& dir,
                                     const std::string& latest_filename) {
  CheckpointNotes notes;
  const absl::StatusOr<proto::CheckpointState> state = GetCheckpointState(
      fs, dir, latest_filename.empty() ? kStateFileName : latest_filename, &notes);
  if (absl::IsNotFound(state.status())) return absl::OkStatus();
  if (!state.ok()) return state.status();
  const bool timed =
      state->all_model_checkpoint_timestamps_size() == state->all_model_checkpoint_paths_size();
  // With a clock that went back nobody can tell which ones were to be kept: none is deleted then.
  const bool clock_reset = WallSeconds() < state->last_preserved_timestamp();
  std::vector<std::pair<std::string, double>> recovered;
  CheckpointNotes found;
  for (int i = 0; i < state->all_model_checkpoint_paths_size(); ++i) {
    const std::string& listed = state->all_model_checkpoint_paths(i);
    const std::string path = FindCheckpoint(fs, dir, listed);
    if (path.empty()) continue;
    double time = std::numeric_limits<double>::infinity();
    if (!clock_reset && timed) {
      time = state->all_model_checkpoint_timestamps(i);
    } else if (!clock_reset) {
      FERRY_ASSIGN_OR_RETURN(time, TimeOf(fs, path));
    }
    recovered.emplace_back(path, time);
    const auto metric = notes.metrics.find(listed);
    if (metric != notes.metrics.end()) found.metrics[path] = metric->second;
    if (notes.protected_paths.count(listed) > 0) found.protected_paths.insert(path);
  }
  MutexLock lock(&rep_->mu);
  rep_->last = std::move(recovered);
  rep_->notes = std::move(found);
  if (state->last_preserved_timestamp() > 0 && !clock_reset) {
    rep_->last_preserved_time = state->last_preserved_timestamp();
    rep_->next_kept_time =
        state->last_preserved_timestamp() + rep_->options.keep_checkpoint_every_n_hours * 3600;
  }
  return absl::OkStatus();
}

void Saver::Protect(const std::string& prefix) {
  MutexLock lock(&rep_->mu);
  rep_->notes.protected_paths.insert(prefix);
}

void Saver::Unprotect(const std::string& prefix) {
  MutexLock lock(&rep_->mu);
  rep_->notes.protected_paths.erase(prefix);
}

std::vector<std::pair<std::string, double>> Saver::best_checkpoints() const {
  MutexLock lock(&rep_->mu);
  return rep_->BestOf(rep_->last, rep_->notes.metrics);
}

absl::StatusOr<proto::SaverDef> Saver::as_saver_def() {
  MutexLock lock(&rep_->graph_mu);
  return rep_->Def();
}

absl::StatusOr<proto::MetaGraphDef> Saver::export_meta_graph(const ExportOptions& options) {
  MutexLock lock(&rep_->graph_mu);
  FERRY_RETURN_IF_ERROR(rep_->CheckBuilt());
  if (rep_->items.empty()) return ExportMetaGraph(*rep_->graph, options);
  FERRY_ASSIGN_OR_RETURN(const proto::SaverDef def, rep_->Def());
  ExportOptions with = options;
  with.saver_def = &def;
  return ExportMetaGraph(*rep_->graph, with);
}

const std::vector<SaveItem>& Saver::items() const { return rep_->items; }

}  // namespace ferry
