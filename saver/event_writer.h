// Event files: what a training run records for TensorBoard, as tf.compat.v1.summary.FileWriter
// writes them, and their reader.
//
//   FERRY_ASSIGN_OR_RETURN(std::unique_ptr<FileWriter> writer, FileWriter::Open(fs, "/tmp/model"));
//   FERRY_RETURN_IF_ERROR(writer->AddScalar("loss", loss, step));
//   FERRY_RETURN_IF_ERROR(writer->Close());
//
// An event file is a sequence of records (TensorFlow's TFRecord, integers little-endian):
//   uint64 length | uint32 masked crc32c of those 8 bytes | data | uint32 masked crc32c of data
// where data is a serialized Event.
#ifndef FERRY_SAVER_EVENT_WRITER_H_
#define FERRY_SAVER_EVENT_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "proto/event.pb.h"
#include "proto/graph.pb.h"
#include "proto/meta_graph.pb.h"
#include "proto/summary.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/mutex.h"
#include "runtime/graph/graph.h"
#include "runtime/op/histogram.h"

namespace ferry {

struct FileWriterOptions {
  std::string filename_suffix;
  // Events reach the file at most this long after they were added.
  absl::Duration flush_interval = absl::Seconds(120);
  // … or earlier, when this many bytes wait.
  size_t buffer_bytes = 256 << 10;
};

// Writes one new event file. Thread-safe. Adding copies the event to memory; a thread of the
// writer's own does the I/O, so whoever adds waits for a file only when the buffer overflows
// (sixteen times buffer_bytes). After an error of the file the writer is of no more use: that
// error is what every later call returns.
class FileWriter {
 public:
  // Makes `logdir` (and the directories above it) if needed, and in it a new file
  // events.out.tfevents.<seconds since 1970>.<host>.<process id>.<n><suffix>. `fs` must outlive
  // the writer.
  static absl::StatusOr<std::unique_ptr<FileWriter>> Open(FileSystem* fs, const std::string& logdir,
                                                          const FileWriterOptions& options = {});
  ~FileWriter();  // Closes; errors are lost then, so call Close.

  absl::Status AddScalar(absl::string_view tag, float value, int64_t step);
  // The distribution of `values`, in any order. InvalidArgument, naming the tag, for a NaN or an
  // infinity.
  absl::Status AddHistogram(absl::string_view tag, absl::Span<const float> values, int64_t step);
  absl::Status AddHistogram(absl::string_view tag, absl::Span<const double> values, int64_t step);
  absl::Status AddSummary(const proto::Summary& summary, int64_t step);
  // What a summary op gave. InvalidArgument for bytes that are no Summary.
  absl::Status AddSummary(absl::string_view serialized, int64_t step);
  absl::Status AddGraph(const proto::GraphDef& graph);
  // The same with the shapes of all outputs, which TensorBoard writes at the edges.
  absl::Status AddGraph(const Graph& graph);
  absl::Status AddMetaGraph(const proto::MetaGraphDef& meta_graph);
  // A log with status START tells TensorBoard to forget events of this step and later ones that
  // earlier files hold: what a resumed run writes first. Bytes of its texts (a path's) that aren't
  // UTF-8 become question marks.
  absl::Status AddSessionLog(const proto::SessionLog& log, int64_t step);
  // The wall time is set to now if it is 0.
  absl::Status AddEvent(proto::Event event);

  // Everything added before is in the file, for others to read.
  absl::Status Flush();
  // Flushes, syncs and closes. Adding to a closed writer is FailedPrecondition; closing it again
  // does nothing.
  absl::Status Close();

  const std::string& path() const { return path_; }

 private:
  FileWriter(std::string path, std::unique_ptr<WritableFile> file,
             const FileWriterOptions& options);
  void Work();

  const std::string path_;
  const FileWriterOptions options_;
  const std::unique_ptr<WritableFile> file_;  // The thread's, once it runs.

  Mutex mu_;
  CondVar changed_;                            // Any of what follows.
  std::string pending_ ABSL_GUARDED_BY(mu_);   // Records that wait for the thread.
  uint64_t added_ ABSL_GUARDED_BY(mu_) = 0;    // Bytes ever added …
  uint64_t written_ ABSL_GUARDED_BY(mu_) = 0;  // … and those that are in the file.
  uint64_t wanted_ ABSL_GUARDED_BY(mu_) = 0;   // Up to here somebody waits.
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  bool closing_ ABSL_GUARDED_BY(mu_) = false;  // The thread is to end …
  bool closed_ ABSL_GUARDED_BY(mu_) = false;   // … and the file is closed.
  std::thread thread_;
};

// Appends one record to `out`.
void AppendRecord(absl::string_view data, std::string* out);

struct EventFileContents {
  std::vector<proto::Event> events;
  // Bytes behind the last whole record: what a writer that was killed, or that is still at work,
  // leaves. 0 for a file that was closed.
  uint64_t truncated_bytes = 0;
};

// Reads all events. A record that the file's end cuts off ends the reading without an error;
// DataLoss, naming the file and the offset, when a crc doesn't match or a record isn't an Event.
absl::StatusOr<EventFileContents> ReadEvents(FileSystem* fs, const std::string& path);

// The paths of a directory's event files in the order of their names, which begin with the time.
absl::StatusOr<std::vector<std::string>> ListEventFiles(FileSystem* fs, const std::string& logdir);

}  // namespace ferry

#endif  // FERRY_SAVER_EVENT_WRITER_H_
