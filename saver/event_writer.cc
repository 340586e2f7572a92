// Event files: see event_writer.h.
#include "saver/event_writer.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

constexpr char kFilePrefix[] = "events.out.tfevents.";
constexpr char kFileVersion[] = "brain.Event:2";
constexpr size_t kHeaderSize = 12;  // Length and its crc.
constexpr size_t kFooterSize = 4;   // The data's crc.
// Protobuf's own limit on a message.
constexpr uint64_t kMaxRecord = (uint64_t{1} << 31) - 1;

// The format's numbers are little-endian, as the machines are that this project builds for.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a little-endian machine is needed");

// How many bytes the first character of `text` takes, 0 if it isn't UTF-8 (RFC 3629).
size_t Utf8Length(absl::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const size_t length = at(0) < 0x80   ? 1
                        : at(0) < 0xc2 ? 0
                        : at(0) < 0xe0 ? 2
                        : at(0) < 0xf0 ? 3
                        : at(0) < 0xf5 ? 4
                                       : 0;
  if (length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  // Longer than needed, half of a surrogate pair, beyond the last character.
  const bool bad =
      length > 2 && ((at(0) == 0xe0 && at(1) < 0xa0) || (at(0) == 0xed && at(1) > 0x9f) ||
                     (at(0) == 0xf0 && at(1) < 0x90) || (at(0) == 0xf4 && at(1) > 0x8f));
  return bad ? 0 : length;
}

// A name of a file may hold any bytes; with others than UTF-8 in a field of text no reader takes
// the event.
std::string AsText(absl::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const size_t length = Utf8Length(bytes);
    absl::StrAppend(&text, length == 0 ? "?" : bytes.substr(0, length));
    bytes.remove_prefix(std::max<size_t>(length, 1));
  }
  return text;
}

template <typename T>
T Load(const char* from) {
  T value;
  memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T>
void Store(T value, char* to) {
  memcpy(to, &value, sizeof(value));
}

double Now() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }

std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0') return "localhost";
  // It is to be a part of a file's name.
  std::replace(name, name + strlen(name), '/', '_');
  return name;
}

}  // namespace

void AppendRecord(absl::string_view data, std::string* out) {
  char header[kHeaderSize];
  Store<uint64_t>(data.size(), header);
  Store<uint32_t>(MaskCrc32c(Crc32c({header, 8})), header + 8);
  char footer[kFooterSize];
  Store<uint32_t>(MaskCrc32c(Crc32c(data)), footer);
  out->append(header, kHeaderSize);
  out->append(data.data(), data.size());
  out->append(footer, kFooterSize);
}

absl::StatusOr<std::unique_ptr<FileWriter>> FileWriter::Open(FileSystem* fs,
                                                             const std::string& logdir,
                                                             const FileWriterOptions& options) {
  if (absl::StrContains(options.filename_suffix, '/')) {
    return InvalidArgument("an event file's suffix '", options.filename_suffix,
                           "' must not contain path components");
  }
  FERRY_RETURN_IF_ERROR(CreateDirs(fs, logdir));
  // Two writers that start in one second must not get one name: the file would be emptied.
  static std::atomic<int> counter{0};
  const double now = Now();
  std::string path;
  do {
    path = JoinPath(logdir,
                    absl::StrFormat("%s%010d.%s.%d.%d%s", kFilePrefix, static_cast<int64_t>(now),
                                    HostName(), getpid(), counter++, options.filename_suffix));
  } while (fs->Exists(path));
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs->NewWritableFile(path));
  FERRY_RETURN_IF_ERROR(fs->SyncDir(logdir));
  std::unique_ptr<FileWriter> writer;
  try {
    writer.reset(new FileWriter(path, std::move(file), options));
  } catch (const std::system_error& e) {
    fs->Unlink(path).IgnoreError();  // Empty.
    return ResourceExhausted("'", path, "': no thread to write it: ", e.what());
  }
  proto::Event event;
  event.set_wall_time(now);
  event.set_file_version(kFileVersion);
  event.mutable_source_metadata()->set_writer("ferry.saver.event_writer");
  FERRY_RETURN_IF_ERROR(writer->AddEvent(std::move(event)));
  // An error of the file shows here, and a TensorBoard that looks on sees the run begin.
  FERRY_RETURN_IF_ERROR(writer->Flush());
  return writer;
}

FileWriter::FileWriter(std::string path, std::unique_ptr<WritableFile> file,
                       const FileWriterOptions& options)
    : path_(std::move(path)),
      options_(options),
      file_(std::move(file)),
      thread_([this] { Work(); }) {}

FileWriter::~FileWriter() { Close().IgnoreError(); }

void FileWriter::Work() {
  // A wait can't last for ever in the clock's own unit.
  const double interval = std::min(absl::ToDoubleSeconds(options_.flush_interval), 1e6);
  MutexLock lock(&mu_);
  while (true) {
    const absl::Time deadline = absl::Now() + absl::Seconds(interval);
    while (!closing_ && wanted_ <= written_ && pending_.size() < options_.buffer_bytes) {
      const double left = absl::ToDoubleSeconds(deadline - absl::Now());
      if (left <= 0) break;
      changed_.WaitFor(&mu_, left);
    }
    if (!pending_.empty() && status_.ok()) {
      std::string records;
      records.swap(pending_);
      mu_.Unlock();
      const absl::Status status = file_->Append(records);
      mu_.Lock();
      KeepFirst(&status_, status);
    }
    // After an error nothing more can be written; those who wait see the status.
    if (!status_.ok()) pending_.clear();
    written_ = added_ - pending_.size();
    changed_.SignalAll();
    if (closing_ && pending_.empty()) return;
  }
}

absl::Status FileWriter::AddEvent(proto::Event event) {
  if (event.wall_time() == 0) event.set_wall_time(Now());
  std::string data;
  if (event.ByteSizeLong() > kMaxRecord || !event.SerializeToString(&data)) {
    return InvalidArgument("an event of ", event.ByteSizeLong(), " bytes for '", path_,
                           "' exceeds the limit of ", kMaxRecord);
  }
  MutexLock lock(&mu_);
  while (!closing_ && status_.ok() && pending_.size() >= 16 * options_.buffer_bytes) {
    changed_.Wait(&mu_);
  }
  if (closing_) return FailedPrecondition("the event file '", path_, "' is closed");
  FERRY_RETURN_IF_ERROR(status_);
  const size_t before = pending_.size();
  AppendRecord(data, &pending_);
  added_ += pending_.size() - before;
  if (pending_.size() >= options_.buffer_bytes) changed_.SignalAll();
  return absl::OkStatus();
}

absl::Status FileWriter::AddSummary(const proto::Summary& summary, int64_t step) {
  proto::Event event;
  event.set_step(step);
  *event.mutable_summary() = summary;
  return AddEvent(std::move(event));
}

absl::Status FileWriter::AddSummary(absl::string_view serialized, int64_t step) {
  proto::Summary summary;
  if (!summary.ParseFromArray(serialized.data(), static_cast<int>(serialized.size()))) {
    return InvalidArgument(serialized.size(), " bytes for '", path_, "' are no serialized Summary");
  }
  return AddSummary(summary, step);
}

absl::Status FileWriter::AddScalar(absl::string_view tag, float value, int64_t step) {
  proto::Summary summary;
  proto::Summary::Value* const entry = summary.add_value();
  entry->set_tag(std::string(tag));
  entry->set_simple_value(value);
  return AddSummary(summary, step);
}

absl::Status FileWriter::AddHistogram(absl::string_view tag, absl::Span<const double> values,
                                      int64_t step) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return InvalidArgument("the histogram '", tag, "' has the value ", values[i], " at index ", i,
                             "; its values must be finite");
    }
  }
  proto::Summary summary;
  proto::Summary::Value* const entry = summary.add_value();
  entry->set_tag(std::string(tag));
  *entry->mutable_histo() = MakeHistogram(values);
  return AddSummary(summary, step);
}

absl::Status FileWriter::AddHistogram(absl::string_view tag, absl::Span<const float> values,
                                      int64_t step) {
  return AddHistogram(tag, std::vector<double>(values.begin(), values.end()), step);
}

absl::Status FileWriter::AddGraph(const proto::GraphDef& graph) {
  proto::Event event;
  if (!graph.SerializeToString(event.mutable_graph_def())) {
    return InvalidArgument("a graph for '", path_, "' can't be serialized");
  }
  return AddEvent(std::move(event));
}

absl::Status FileWriter::AddGraph(const Graph& graph) {
  proto::GraphDef def;
  graph.ToGraphDef(&def);
  for (proto::NodeDef& node : *def.mutable_node()) {
    const Node* of = graph.FindNode(node.name());
    if (of->num_outputs() == 0) continue;
    auto* shapes = (*node.mutable_attr())["_output_shapes"].mutable_list();
    for (int i = 0; i < of->num_outputs(); ++i) ToProto(of->output_shape(i), shapes->add_shape());
  }
  return AddGraph(def);
}

absl::Status FileWriter::AddMetaGraph(const proto::MetaGraphDef& meta_graph) {
  proto::Event event;
  if (!meta_graph.SerializeToString(event.mutable_meta_graph_def())) {
    return InvalidArgument("a meta graph for '", path_, "' can't be serialized");
  }
  return AddEvent(std::move(event));
}

absl::Status FileWriter::AddSessionLog(const proto::SessionLog& log, int64_t step) {
  proto::Event event;
  event.set_step(step);
  *event.mutable_session_log() = log;
  event.mutable_session_log()->set_checkpoint_path(AsText(log.checkpoint_path()));
  event.mutable_session_log()->set_msg(AsText(log.msg()));
  return AddEvent(std::move(event));
}

absl::Status FileWriter::Flush() {
  MutexLock lock(&mu_);
  const uint64_t end = added_;
  wanted_ = std::max(wanted_, end);
  changed_.SignalAll();
  while (written_ < end) changed_.Wait(&mu_);
  return status_;
}

absl::Status FileWriter::Close() {
  {
    MutexLock lock(&mu_);
    if (closing_) {
      while (!closed_) changed_.Wait(&mu_);
      return status_;
    }
    closing_ = true;
    changed_.SignalAll();
  }
  thread_.join();  // From here on the file is this thread's.
  MutexLock lock(&mu_);
  if (status_.ok()) status_ = file_->Sync();
  KeepFirst(&status_, file_->Close());
  closed_ = true;
  changed_.SignalAll();
  return status_;
}

absl::StatusOr<EventFileContents> ReadEvents(FileSystem* fs, const std::string& path) {
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, fs->OpenForRead(path));
  EventFileContents contents;
  std::string data;
  uint64_t offset = 0;
  const auto damaged = [&](absl::string_view what) {
    return DataLoss("event file '", path, "': ", what, " of the record at byte ", offset,
                    " is damaged");
  };
  while (offset < file->size()) {
    uint64_t left = file->size() - offset;
    contents.truncated_bytes = left;
    if (left < kHeaderSize) return contents;
    char header[kHeaderSize];
    FERRY_RETURN_IF_ERROR(file->Read(offset, kHeaderSize, header));
    if (Load<uint32_t>(header + 8) != MaskCrc32c(Crc32c({header, 8}))) {
      return damaged("the length");
    }
    left -= kHeaderSize;
    const uint64_t length = Load<uint64_t>(header);
    if (length > kMaxRecord) return damaged("the length");
    if (left < length + kFooterSize) return contents;
    data.resize(length + kFooterSize);
    FERRY_RETURN_IF_ERROR(file->Read(offset + kHeaderSize, data.size(), &data[0]));
    const uint32_t crc = Load<uint32_t>(data.data() + length);
    data.resize(length);
    if (crc != MaskCrc32c(Crc32c(data))) return damaged("the data");
    if (!contents.events.emplace_back().ParseFromString(data)) {
      return DataLoss("event file '", path, "': the record at byte ", offset,
                      " is whole, but isn't an Event");
    }
    offset += kHeaderSize + length + kFooterSize;
  }
  contents.truncated_bytes = 0;
  return contents;
}

absl::StatusOr<std::vector<std::string>> ListEventFiles(FileSystem* fs, const std::string& logdir) {
  FERRY_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs->List(logdir));
  std::vector<std::string> paths;
  for (const std::string& name : names) {
    if (absl::StartsWith(name, kFilePrefix)) paths.push_back(JoinPath(logdir, name));
  }
  return paths;
}

}  // namespace ferry
