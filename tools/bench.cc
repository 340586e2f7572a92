// `ferry bench`: see bench.h.
#include "tools/bench.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <thread>
#include <vector>

#include "fmt/format.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/file_system.h"
#include "runtime/base/status.h"
#include "runtime/base/thread_pool.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "runtime/tensor/buffer.h"
#include "saver/bundle_writer.h"
#include "saver/saver.h"
#include "saver/snapshot.h"
#include "saver/staging.h"
#include "tools/hand_written_mlp.h"
#include "tools/train.h"

namespace ferry {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v.size() % 2 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
}

double Round(double v, int digits = 3) {
  const double scale = std::pow(10.0, digits);
  return std::round(v * scale) / scale;
}

// Of this process, in MiB: "VmHWM", the most ever; "VmRSS", now.
double MemoryMib(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field, 0) == 0) {
      return static_cast<double>(std::strtoll(line.c_str() + std::strlen(field) + 1, nullptr, 10)) /
             1024;
    }
  }
  return 0;
}

// Sets VmHWM back to what is resident now (Linux: writing 5 to clear_refs).
void ResetPeak() {
  std::ofstream clear("/proc/self/clear_refs");
  clear << 5;
}

absl::Status CheckOptions(const BenchOptions& options) {
  if (options.mib < 1 || options.tensors < 1 || options.rounds < 1) {
    return InvalidArgument("--mib, --tensors and --rounds must be at least 1");
  }
  // More take hours, of no use.
  if (options.tensors > 100000) return InvalidArgument("--tensors is beyond 100000");
  if (options.rounds > 10000) return InvalidArgument("--rounds is beyond 10000");
  // The variables, and their values on their way into them.
  const int64_t limit = HostAllocator::Get()->limit() / 2 >> 20;
  if (options.mib > limit) {
    return ResourceExhausted("--mib ", options.mib, ": at most ", limit,
                             " fit into this machine's memory");
  }
  return absl::OkStatus();
}

// Round -1 is there to warm up.
void Tell(const BenchOptions& options, int round) {
  if (!options.progress) return;
  options.progress(static_cast<uint64_t>(round + 1), static_cast<uint64_t>(options.rounds) + 1);
}

// A graph of float variables, filled with random bits, in a session.
struct Model {
  Graph graph;
  std::unique_ptr<Session> session;
  std::unique_ptr<Saver> saver;
  int64_t bytes = 0;
  Session::Callable step;  // Changes every variable.

  absl::Status Make(const BenchOptions& options) {
    const int64_t elements = std::max<int64_t>(1, (options.mib << 20) / options.tensors / 4);
    const Scope root(&graph);
    std::vector<Node*> updates;
    for (int64_t i = 0; i < options.tensors; ++i) {
      VariableOptions v;
      v.initializer = RandomUniformInitializer(-1, 1, i + 1);
      const VariableHandle handle =
          GetVariable(root, fmt::format("v{:05}", i), {elements}, DType::kFloat, v);
      updates.push_back(ops::AssignSub(root, handle.ref,
                                       ops::Fill(root, ops::ConstVector<int64_t>(root, {elements}),
                                                 ops::Const<float>(root, 0.001f)))
                            .node);
      bytes += elements * 4;
    }
    ops::Group(root.WithOpName("step"), updates);
    GlobalVariablesInitializer(root);
    FERRY_RETURN_IF_ERROR(root.status());
    SessionOptions session_options;
    session_options.threads = options.threads;
    session_options.device = options.device;
    session = std::make_unique<Session>(&graph, session_options);
    FERRY_RETURN_IF_ERROR(session->status());
    SaverOptions saver_options;
    saver_options.max_to_keep = 0;  // The bench removes files itself, outside of what it times.
    FERRY_ASSIGN_OR_RETURN(saver, Saver::Create(&graph, saver_options));
    FERRY_RETURN_IF_ERROR(session->Run({}, {}, {"init"}, nullptr));
    FERRY_ASSIGN_OR_RETURN(step, session->MakeCallable({{}, {}, {"step"}}));
    return absl::OkStatus();
  }
};

// A folder of the bench's own below options.dir, removed with all files in it.
class WorkDir {
 public:
  absl::Status Make(const std::string& parent) {
    path_ = JoinPath(parent, fmt::format("ferry-bench-{}", getpid()));
    return FileSystem::Posix()->CreateDir(path_);
  }
  ~WorkDir() {
    if (path_.empty()) return;
    RemoveFiles();
    FileSystem::Posix()->RemoveDir(path_).IgnoreError();
  }
  std::string File(const std::string& name) const { return JoinPath(path_, name); }
  void RemoveFiles() const {
    FileSystem* fs = FileSystem::Posix();
    if (absl::StatusOr<std::vector<std::string>> files = fs->List(path_); files.ok()) {
      for (const std::string& f : *files) fs->Unlink(JoinPath(path_, f)).IgnoreError();
    }
  }

 private:
  std::string path_;
};

// The same bytes by the best raw means: O_DIRECT through io_uring from one buffer, and a sync. With
// `index_bytes`, as a checkpoint has to be committed: beside them goes a file of so many bytes,
// which gets its name when all is synced.
absl::StatusOr<double> RawDirectWrite(const std::string& path, int64_t bytes, const char* from,
                                      size_t block, size_t index_bytes = 0) {
  FileSystem* fs = FileSystem::Posix();
  const double start = Now();
  BlockWriterOptions options;
  options.depth = StagingRing::kUsualSlots;
  options.expected_bytes = static_cast<uint64_t>(bytes);
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<BlockWriter> file, fs->NewBlockWriter(path, options));
  uint64_t waited = 0, issued = 0;
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(block)) {
    if (issued - waited == static_cast<uint64_t>(options.depth)) {
      FERRY_RETURN_IF_ERROR(file->Wait(waited++));
    }
    FERRY_ASSIGN_OR_RETURN(uint64_t ticket, file->Write(from, block, static_cast<uint64_t>(at)));
    issued = ticket + 1;
  }
  std::unique_ptr<WritableFile> index;
  if (index_bytes > 0) {
    FERRY_ASSIGN_OR_RETURN(index, fs->NewWritableFile(path + ".new"));
    FERRY_RETURN_IF_ERROR(index->Append(std::string(index_bytes, 'i')));
  }
  while (waited < issued) FERRY_RETURN_IF_ERROR(file->Wait(waited++));
  FERRY_RETURN_IF_ERROR(file->SetLength(static_cast<uint64_t>(bytes)));
  if (index) index->StartSync();
  FERRY_RETURN_IF_ERROR(file->Finish());
  if (index) FERRY_RETURN_IF_ERROR(index->Sync());
  FERRY_RETURN_IF_ERROR(fs->SyncDir(DirName(path)));
  if (index) {
    FERRY_RETURN_IF_ERROR(fs->Rename(path + ".new", path + ".index"));
    FERRY_RETURN_IF_ERROR(fs->SyncDir(DirName(path)));
  }
  return Now() - start;
}

// The same bytes by write() and fsync().
absl::StatusOr<double> RawWrite(const std::string& path, int64_t bytes, const char* from,
                                size_t block) {
  FileSystem* fs = FileSystem::Posix();
  const double start = Now();
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs->NewWritableFile(path));
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(block)) {
    FERRY_RETURN_IF_ERROR(file->Append(
        absl::string_view(from, static_cast<size_t>(std::min<int64_t>(block, bytes - at)))));
  }
  FERRY_RETURN_IF_ERROR(file->Sync());
  FERRY_RETURN_IF_ERROR(file->Close());
  return Now() - start;
}

struct AlignedMemory {
  explicit AlignedMemory(size_t n) : data(static_cast<char*>(std::aligned_alloc(1 << 16, n))) {
    std::memset(data, 1, n);
  }
  ~AlignedMemory() { std::free(data); }
  char* data;
};

// How long `n` calls of fn take, per call, in nanoseconds.
template <typename F>
absl::StatusOr<double> PerCallNs(int64_t n, F&& fn) {
  const double start = Now();
  for (int64_t i = 0; i < n; ++i) FERRY_RETURN_IF_ERROR(fn());
  return (Now() - start) / static_cast<double>(n) * 1e9;
}

// ---- GPUs ----

// Files whose data goes nowhere: what is left of a save is the staging.
class Nowhere : public ForwardingFileSystem {
 public:
  class Writer : public BlockWriter {
   public:
    size_t alignment() const override { return 4096; }
    absl::StatusOr<uint64_t> Write(const void*, size_t, uint64_t) override { return tickets_++; }
    absl::Status Wait(uint64_t) override { return absl::OkStatus(); }
    absl::Status SetLength(uint64_t) override { return absl::OkStatus(); }
    absl::Status Finish() override { return absl::OkStatus(); }
    const char* method() const override { return "nowhere"; }

   private:
    uint64_t tickets_ = 0;
  };
  absl::StatusOr<std::unique_ptr<BlockWriter>> NewBlockWriter(const std::string&,
                                                              const BlockWriterOptions&) override {
    return std::unique_ptr<BlockWriter>(new Writer);
  }
};

// Seconds in which all variables pass through the ring, with their crcs, and no file is written.
absl::StatusOr<double> StageOnly(const Model& model, const std::string& prefix, StagingRing* ring) {
  std::vector<Variable*> variables = model.session->variables()->All();
  Nowhere fs;
  const double start = Now();
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Snapshot> snapshot,
                         Snapshot::Take(model.session->variables(), variables, nullptr));
  BundleWriterOptions options;
  options.ring = ring;
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<BundleWriter> writer,
                         BundleWriter::Open(&fs, prefix, options));
  std::deque<SnapshotSource> sources;
  for (int i = 0; i < snapshot->size(); ++i) {
    const Variable& v = snapshot->variable(i);
    FERRY_RETURN_IF_ERROR(writer->Add(v.name(), v.dtype(), snapshot->shape(i),
                                      &sources.emplace_back(snapshot.get(), i)));
  }
  FERRY_RETURN_IF_ERROR(writer->FinishData());
  return Now() - start;
}

// Seconds in which `bytes` pass between a GPU and host memory by the plainest means: copies of a
// slot's size, one after the other, of pinned or of ordinary memory.
absl::StatusOr<double> RawCopy(GpuDevice* gpu, int64_t bytes, bool to_host, bool pinned) {
  constexpr size_t kBlock = StagingRing::kUsualSlotBytes;
  FERRY_ASSIGN_OR_RETURN(const BufferRef device, gpu->allocator()->Allocate(kBlock));
  Allocator* const allocator = pinned ? PinnedAllocator() : HostAllocator::Get();
  FERRY_ASSIGN_OR_RETURN(const BufferRef host, allocator->Allocate(kBlock));
  std::memset(host->data(), 1, kBlock);
  FERRY_RETURN_IF_ERROR(
      gpu->CopyToDevice(GpuStream::kCompute, device->data(), host->data(), kBlock));
  FERRY_RETURN_IF_ERROR(gpu->SynchronizeAll());
  const GpuStream stream = to_host ? GpuStream::kToHost : GpuStream::kToDevice;
  const double start = Now();
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(kBlock)) {
    const size_t n = std::min<size_t>(kBlock, static_cast<size_t>(bytes - at));
    FERRY_RETURN_IF_ERROR(to_host ? gpu->CopyToHost(stream, host->data(), device->data(), n)
                                  : gpu->CopyToDevice(stream, device->data(), host->data(), n));
  }
  FERRY_RETURN_IF_ERROR(gpu->SynchronizeAll());
  return Now() - start;
}

}  // namespace

absl::StatusOr<Json> BenchSave(const BenchOptions& options) {
  FERRY_RETURN_IF_ERROR(CheckOptions(options));
  Model model;
  FERRY_RETURN_IF_ERROR(model.Make(options));
  WorkDir dir;
  FERRY_RETURN_IF_ERROR(dir.Make(options.dir));
  constexpr size_t kBlock = StagingRing::kUsualSlotBytes;
  AlignedMemory block(kBlock);
  const double mb = static_cast<double>(model.bytes) / 1e6;
  const std::string raw = dir.File("raw");
  // Data and index; the same with the graph's .meta and the state file.
  std::vector<double> save, whole, direct, commit, buffered, copy, ratio, commit_ratio;
  std::vector<double> staging, pinned, pageable;  // On a GPU.
  GpuDevice* const gpu = model.session->gpu();
  StagingRing ring;
  if (gpu) {
    FERRY_RETURN_IF_ERROR(ring.Init(StagingRing::kUsualSlots, StagingRing::kUsualSlotBytes, true));
  }
  double growth = 0;
  size_t index_bytes = 1;
  // A first round, not counted, makes the files and the memory.
  for (int round = -1; round < options.rounds; ++round) {
    Tell(options, round);
    FERRY_ASSIGN_OR_RETURN(const double d, RawDirectWrite(raw, model.bytes, block.data, kBlock));
    dir.RemoveFiles();
    FERRY_ASSIGN_OR_RETURN(const double c,
                           RawDirectWrite(raw, model.bytes, block.data, kBlock, index_bytes));
    dir.RemoveFiles();
    const double before = MemoryMib("VmRSS");
    ResetPeak();
    SaveOptions save_options;
    save_options.global_step = round + 1;
    save_options.write_meta_graph = save_options.write_state = false;
    double start = Now();
    FERRY_ASSIGN_OR_RETURN(
        const std::string prefix,
        model.saver->Save(model.session.get(), dir.File("model.ckpt"), save_options));
    const double s = Now() - start;
    growth = std::max(growth, MemoryMib("VmHWM") - before);
    FERRY_ASSIGN_OR_RETURN(const FileInfo index, FileSystem::Posix()->Stat(prefix + ".index"));
    index_bytes = static_cast<size_t>(index.size);
    dir.RemoveFiles();
    save_options.write_meta_graph = save_options.write_state = true;
    start = Now();
    FERRY_RETURN_IF_ERROR(
        model.saver->Save(model.session.get(), dir.File("model.ckpt"), save_options).status());
    const double w = Now() - start;
    dir.RemoveFiles();
    FERRY_ASSIGN_OR_RETURN(const double b, RawWrite(raw, model.bytes, block.data, kBlock));
    FERRY_RETURN_IF_ERROR(FileSystem::Posix()->Unlink(raw));
    double staged = 0, fast = 0, slow = 0;
    if (gpu) {
      FERRY_ASSIGN_OR_RETURN(staged, StageOnly(model, dir.File("staged"), &ring));
      FERRY_ASSIGN_OR_RETURN(fast, RawCopy(gpu, model.bytes, true, true));
      FERRY_ASSIGN_OR_RETURN(slow, RawCopy(gpu, model.bytes, true, false));
    }
    if (round < 0) continue;
    if (gpu) {
      staging.push_back(staged);
      pinned.push_back(fast);
      pageable.push_back(slow);
    }
    save.push_back(s);
    whole.push_back(w);
    commit.push_back(c);
    commit_ratio.push_back(c / s);
    direct.push_back(d);
    buffered.push_back(b);
    ratio.push_back(std::min(d, b) / s);
  }

  // Training while a save goes on: how long it stands still, against one copy of the bytes.
  std::vector<double> stall, usual, during;
  for (int round = 0; round < std::min(options.rounds, 5); ++round) {
    std::vector<double> steps, meanwhile;
    auto step = [&]() -> absl::StatusOr<double> {
      const double start = Now();
      FERRY_RETURN_IF_ERROR(model.step.Run({}, nullptr));
      if (gpu) {
        // Until the step is done, which the save's copies needn't be.
        GpuEvent done;
        FERRY_RETURN_IF_ERROR(gpu->Record(GpuStream::kCompute, &done));
        FERRY_RETURN_IF_ERROR(gpu->Synchronize(done));
      }
      return Now() - start;
    };
    for (int i = 0; i < 5; ++i) {
      FERRY_ASSIGN_OR_RETURN(const double t, step());
      steps.push_back(t);
    }
    SaveOptions save_options;
    save_options.global_step = 1000 + round;
    const double start = Now();
    FERRY_RETURN_IF_ERROR(
        model.saver->SaveAsync(model.session.get(), dir.File("model.ckpt"), save_options).status());
    FERRY_RETURN_IF_ERROR(step().status());
    const double first = Now() - start;
    while (model.saver->busy()) {
      FERRY_ASSIGN_OR_RETURN(const double t, step());
      meanwhile.push_back(t);
    }
    FERRY_RETURN_IF_ERROR(model.saver->WaitForPending());
    dir.RemoveFiles();
    if (round == 0) continue;  // The first one makes the shadow pool.
    usual.push_back(Median(steps));
    stall.push_back(first - Median(steps));
    if (!meanwhile.empty()) during.push_back(Median(meanwhile) / Median(steps));
  }
  {
    FERRY_ASSIGN_OR_RETURN(Tensor a, Tensor::Allocate(DType::kUint8, {model.bytes}));
    FERRY_ASSIGN_OR_RETURN(Tensor b, Tensor::Allocate(DType::kUint8, {model.bytes}));
    std::memset(a.raw(), 1, a.bytes());
    std::memset(b.raw(), 2, b.bytes());
    for (int i = 0; i < 5; ++i) {
      const double start = Now();
      std::memcpy(a.raw(), b.raw(), a.bytes());
      copy.push_back(Now() - start);
    }
  }
  Json json{{"mib", options.mib},
            {"tensors", options.tensors},
            {"rounds", options.rounds},
            {"save_mb_per_s", Round(mb / Median(save), 1)},
            {"save_ms", Round(Median(save) * 1e3)},
            {"save_with_meta_and_state_ms", Round(Median(whole) * 1e3)},
            {"raw_commit_ms", Round(Median(commit) * 1e3)},
            {"ratio_to_raw_commit", Round(Median(commit_ratio))},
            {"raw_direct_fsync_mb_per_s", Round(mb / Median(direct), 1)},
            {"raw_write_fsync_mb_per_s", Round(mb / Median(buffered), 1)},
            {"ratio_to_raw", Round(Median(ratio))},
            {"write_method", model.saver->last_stats().write_method},
            {"stall_ms", Round(Median(stall) * 1e3)},
            {"copy_ms", Round(Median(copy) * 1e3)},
            {"stall_to_copy", Round(Median(stall) / Median(copy))},
            {"step_during_save_to_usual", Round(Median(during))},
            {"rss_growth_mib", Round(growth, 1)}};
  if (gpu) {
    const double copy_s = Median(pinned), write_s = Median(direct), save_s = Median(save);
    json["device"] = gpu->name();
    json["pinned_copy_mb_per_s"] = Round(mb / copy_s, 1);
    json["pageable_copy_mb_per_s"] = Round(mb / Median(pageable), 1);
    json["staging_mb_per_s"] = Round(mb / Median(staging), 1);
    json["staging_to_pinned"] = Round(copy_s / Median(staging));
    // 1: the shorter of copying and writing is hidden behind the longer; 0: one after the other.
    json["overlap"] =
        Round(std::clamp((copy_s + write_s - save_s) / std::min(copy_s, write_s), 0.0, 1.0));
  }
  return json;
}

absl::StatusOr<Json> BenchRestore(const BenchOptions& options) {
  FERRY_RETURN_IF_ERROR(CheckOptions(options));
  Model model;
  FERRY_RETURN_IF_ERROR(model.Make(options));
  WorkDir dir;
  FERRY_RETURN_IF_ERROR(dir.Make(options.dir));
  FERRY_ASSIGN_OR_RETURN(const std::string prefix,
                         model.saver->Save(model.session.get(), dir.File("model.ckpt")));
  const std::string data = prefix + ".data-00000-of-00001";
  const double mb = static_cast<double>(model.bytes) / 1e6;
  FERRY_ASSIGN_OR_RETURN(Tensor memory, Tensor::Allocate(DType::kUint8, {model.bytes}));
  std::memset(memory.raw(), 1, memory.bytes());
  const int threads = model.session->pool()->threads();
  std::vector<double> restore, raw, ratio, pinned, pageable;
  GpuDevice* const gpu = model.session->gpu();
  double growth = 0;
  for (int round = -1; round < options.rounds; ++round) {
    Tell(options, round);
    // read() into memory that is there already, with as many threads.
    double start = Now();
    {
      FERRY_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file,
                             FileSystem::Posix()->OpenForRead(data));
      std::atomic<bool> failed{false};
      model.session->pool()->ParallelFor(
          model.bytes, std::max<int64_t>(1 << 20, (model.bytes + threads - 1) / threads),
          [&](int64_t begin, int64_t end) {
            if (!file->Read(static_cast<uint64_t>(begin), static_cast<size_t>(end - begin),
                            static_cast<char*>(memory.raw()) + begin)
                     .ok()) {
              failed = true;
            }
          });
      if (failed) return DataLoss(data, ": can't be read");
    }
    const double r = Now() - start;
    const double before = MemoryMib("VmRSS");
    ResetPeak();
    start = Now();
    FERRY_RETURN_IF_ERROR(model.saver->Restore(model.session.get(), prefix));
    const double t = Now() - start;
    growth = std::max(growth, MemoryMib("VmHWM") - before);
    double fast = 0, slow = 0;
    if (gpu) {
      FERRY_ASSIGN_OR_RETURN(fast, RawCopy(gpu, model.bytes, false, true));
      FERRY_ASSIGN_OR_RETURN(slow, RawCopy(gpu, model.bytes, false, false));
    }
    if (round < 0) continue;
    if (gpu) {
      pinned.push_back(fast);
      pageable.push_back(slow);
    }
    restore.push_back(t);
    raw.push_back(r);
    ratio.push_back(r / t);
  }
  Json json{{"mib", options.mib},
            {"tensors", options.tensors},
            {"rounds", options.rounds},
            {"threads", threads},
            {"restore_mb_per_s", Round(mb / Median(restore), 1)},
            {"raw_read_mb_per_s", Round(mb / Median(raw), 1)},
            {"ratio_to_raw", Round(Median(ratio))},
            {"rss_growth_mib", Round(growth, 1)}};
  if (gpu) {
    json["device"] = gpu->name();
    json["pinned_copy_mb_per_s"] = Round(mb / Median(pinned), 1);
    json["pageable_copy_mb_per_s"] = Round(mb / Median(pageable), 1);
    json["ratio_to_pinned"] = Round(Median(pinned) / Median(restore));
  }
  return json;
}

absl::StatusOr<Json> BenchRun(const BenchOptions& options) {
  FERRY_RETURN_IF_ERROR(CheckOptions(options));
  Graph graph;
  const Scope root(&graph);
  const VariableHandle v = MakeVariable(root, "v", Tensor::Scalar<float>(0));
  ops::AssignAdd(root.WithOpName("inc"), v.ref, ops::Const<float>(root, 1));
  constexpr int kChain = 1000;
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, PartialShape::Scalar());
  const Output one = ops::Const<float>(root, 1);
  for (int i = 0; i < kChain; ++i) x = ops::AddV2(root, x, one);
  ops::Identity(root.WithOpName("y"), x);
  GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());
  SessionOptions session_options;
  session_options.threads = options.threads;
  session_options.device = options.device;
  Session session(&graph, session_options);
  FERRY_RETURN_IF_ERROR(session.status());
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {"init"}, nullptr));
  FERRY_ASSIGN_OR_RETURN(Session::Callable inc, session.MakeCallable({{}, {}, {"inc"}}));
  FERRY_ASSIGN_OR_RETURN(Session::Callable chain, session.MakeCallable({{"x"}, {"y"}, {}}));
  const Tensor zero = Tensor::Scalar<float>(0);
  std::vector<Tensor> out;

  // The limit: as many virtual calls that each add two floats.
  struct Adder {
    virtual ~Adder() = default;
    virtual float Add(float a) const { return a + 1; }
  };
  struct OtherAdder : Adder {
    float Add(float a) const override { return a + 2; }
  };
  std::vector<std::unique_ptr<Adder>> adders;
  for (int i = 0; i < kChain; ++i) {
    if (i % 2) {
      adders.push_back(std::make_unique<Adder>());
    } else {
      adders.push_back(std::make_unique<OtherAdder>());
    }
  }
  volatile float sink = 0;
  std::vector<double> inc_ns, chain_ns, call_ns;
  int64_t allocations = 0;
  auto count = [&] { return options.allocations ? options.allocations() : 0; };
  for (int round = -1; round < options.rounds; ++round) {
    Tell(options, round);
    FERRY_ASSIGN_OR_RETURN(const double i, PerCallNs(100000, [&] { return inc.Run({}, nullptr); }));
    FERRY_ASSIGN_OR_RETURN(const double c, PerCallNs(500, [&] { return chain.Run({zero}, &out); }));
    FERRY_ASSIGN_OR_RETURN(const double l, PerCallNs(2000, [&] {
                             float f = sink;
                             for (const auto& a : adders) f = a->Add(f);
                             sink = f;
                             return absl::OkStatus();
                           }));
    if (round < 0) continue;
    inc_ns.push_back(i);
    chain_ns.push_back(c / kChain);
    call_ns.push_back(l / kChain);
    const int64_t before = count();
    FERRY_RETURN_IF_ERROR(chain.Run({zero}, &out));
    FERRY_RETURN_IF_ERROR(inc.Run({}, nullptr));
    allocations = std::max(allocations, count() - before);
  }
  if (out[0].scalar<float>() != kChain) return Internal("the chain's result is wrong");
  return Json{{"rounds", options.rounds},
              {"assign_add_ns", Round(Median(inc_ns), 1)},
              {"chain_ns_per_op", Round(Median(chain_ns), 2)},
              {"virtual_call_ns", Round(Median(call_ns), 2)},
              {"allocations_per_run", allocations}};
}

namespace {

struct TrainCase {
  const char* key;
  std::vector<int64_t> sizes;
  int64_t batch;
  int steps;  // A round.
};

absl::Status BenchTrainCase(const TrainCase& c, const BenchOptions& options, Json* json) {
  TrainOptions train;
  train.hidden.assign(c.sizes.begin() + 1, c.sizes.end() - 1);
  Graph graph;
  FERRY_RETURN_IF_ERROR(BuildClassifier(train, c.sizes.front(), c.sizes.back(), &graph));
  SessionOptions session_options;
  session_options.threads = options.threads;
  session_options.device = options.device;
  Session session(&graph, session_options);
  FERRY_RETURN_IF_ERROR(session.status());
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {"init"}, nullptr));
  FERRY_ASSIGN_OR_RETURN(Session::Callable step,
                         session.MakeCallable({{"x", "y"}, {"loss"}, {"train_op"}}));
  HandWrittenMlp hand(c.sizes, c.batch);
  Tensor x = *Tensor::Allocate(DType::kFloat, {c.batch, c.sizes.front()});
  Tensor y = *Tensor::Allocate(DType::kInt64, {c.batch});
  for (int64_t i = 0; i < x.num_elements(); ++i) {
    x.data<float>()[i] = static_cast<float>((i * 7919) % 17) / 16;
  }
  for (int64_t i = 0; i < c.batch; ++i) y.data<int64_t>()[i] = i % c.sizes.back();
  std::vector<Tensor> out;
  std::vector<double> ours, theirs, ratio;
  for (int round = -1; round < options.rounds; ++round) {
    Tell(options, round);
    FERRY_ASSIGN_OR_RETURN(const double a, PerCallNs(c.steps, [&] {
                             return step.Run({x, y}, &out);
                           }));
    FERRY_ASSIGN_OR_RETURN(const double b, PerCallNs(c.steps, [&] {
                             hand.Step(x.data<float>(), y.data<int64_t>());
                             return absl::OkStatus();
                           }));
    if (round < 0) continue;
    ours.push_back(1e9 / a);
    theirs.push_back(1e9 / b);
    ratio.push_back(b / a);
  }
  (*json)[fmt::format("{}_steps_per_s", c.key)] = Round(Median(ours), 1);
  (*json)[fmt::format("{}_hand_written_eigen_steps_per_s", c.key)] = Round(Median(theirs), 1);
  (*json)[fmt::format("{}_ratio_to_hand_written", c.key)] = Round(Median(ratio));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> BenchTrain(const BenchOptions& options) {
  FERRY_RETURN_IF_ERROR(CheckOptions(options));
  Json json{{"rounds", options.rounds}};
  FERRY_RETURN_IF_ERROR(BenchTrainCase({"digits", {64, 128, 64, 10}, 32, 2000}, options, &json));
  FERRY_RETURN_IF_ERROR(BenchTrainCase({"mnist", {784, 1024, 1024, 10}, 256, 5}, options, &json));
  return json;
}

}  // namespace ferry
