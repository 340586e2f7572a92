// Tests of event files: what is written is read back, at any cut and with any damage.
#include "saver/event_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/fault_fs.h"
#include "tests/no_threads.h"

namespace ferry {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::unique_ptr<FileWriter> OpenWriter(FileSystem* fs, const FileWriterOptions& options = {}) {
  absl::StatusOr<std::unique_ptr<FileWriter>> writer = FileWriter::Open(fs, "/a/logs", options);
  EXPECT_TRUE(writer.ok()) << writer.status();
  return *std::move(writer);
}

EventFileContents MustRead(FileSystem* fs, const std::string& path) {
  absl::StatusOr<EventFileContents> contents = ReadEvents(fs, path);
  EXPECT_TRUE(contents.ok()) << contents.status();
  return contents.ok() ? *std::move(contents) : EventFileContents();
}

TEST(EventWriterTest, WritesWhatIsReadBack) {
  FaultFileSystem fs;
  FileWriterOptions options;
  options.filename_suffix = ".v2";
  const std::unique_ptr<FileWriter> writer = OpenWriter(&fs, options);
  EXPECT_THAT(writer->path(),
              AllOf(StartsWith("/a/logs/events.out.tfevents."), ::testing::EndsWith(".v2")));
  ASSERT_TRUE(writer->AddScalar("loss", 2.5f, 7).ok());
  proto::GraphDef graph;
  graph.add_node()->set_name("n");
  ASSERT_TRUE(writer->AddGraph(graph).ok());
  proto::MetaGraphDef meta_graph;
  *meta_graph.mutable_graph_def() = graph;
  ASSERT_TRUE(writer->AddMetaGraph(meta_graph).ok());
  proto::SessionLog log;
  log.set_status(proto::SessionLog::START);
  ASSERT_TRUE(writer->AddSessionLog(log, 8).ok());
  ASSERT_TRUE(writer->Close().ok());
  EXPECT_TRUE(writer->Close().ok());
  EXPECT_EQ(writer->AddScalar("loss", 1, 9).code(), absl::StatusCode::kFailedPrecondition);

  const EventFileContents contents = MustRead(&fs, writer->path());
  EXPECT_EQ(contents.truncated_bytes, 0);
  ASSERT_EQ(contents.events.size(), 5);
  EXPECT_EQ(contents.events[0].file_version(), "brain.Event:2");
  EXPECT_GT(contents.events[0].wall_time(), 1.7e9);
  EXPECT_EQ(contents.events[1].step(), 7);
  EXPECT_EQ(contents.events[1].summary().value(0).tag(), "loss");
  EXPECT_EQ(contents.events[1].summary().value(0).simple_value(), 2.5f);
  EXPECT_EQ(contents.events[2].graph_def(), graph.SerializeAsString());
  EXPECT_EQ(contents.events[3].meta_graph_def(), meta_graph.SerializeAsString());
  EXPECT_EQ(contents.events[4].session_log().status(), proto::SessionLog::START);
  EXPECT_EQ(contents.events[4].step(), 8);

  absl::StatusOr<std::vector<std::string>> files = ListEventFiles(&fs, "/a/logs");
  ASSERT_TRUE(files.ok());
  EXPECT_THAT(*files, ElementsAre(writer->path()));
}

TEST(EventWriterTest, WithoutAThreadThereIsNoFile) {
  FaultFileSystem fs;
  {
    const NoThreads none;
    const absl::Status status = FileWriter::Open(&fs, "/logs").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("/logs/events.out.tfevents."));
  }
  EXPECT_TRUE(fs.List("/logs")->empty());
  EXPECT_TRUE(FileWriter::Open(&fs, "/logs").ok());
}

// A folder's name may hold any bytes; no reader takes an event whose texts aren't UTF-8.
TEST(EventWriterTest, TextsAreUtf8) {
  FaultFileSystem fs;
  const std::unique_ptr<FileWriter> writer = OpenWriter(&fs, {});
  const std::pair<const char*, const char*> cases[] = {
      {"d\xc3\xbc/\xe2\x82\xac/\xf0\x9f\x9a\xa2", "d\xc3\xbc/\xe2\x82\xac/\xf0\x9f\x9a\xa2"},
      {"d\xff\xfe/m", "d?\?/m"},
      {"\xc0\x80 \xed\xa0\x80 \xf4\x90\x80\x80 \xe0\x80\x80", "?? ??? ???? ???"},
      {"\x80\xc3", "??"},
      {"\xe2\x82", "??"}};
  for (const auto& [path, unused] : cases) {
    proto::SessionLog log;
    log.set_checkpoint_path(path);
    ASSERT_TRUE(writer->AddSessionLog(log, 1).ok());
  }
  ASSERT_TRUE(writer->Close().ok());
  const EventFileContents contents = MustRead(&fs, writer->path());
  ASSERT_EQ(contents.events.size(), std::size(cases) + 1);
  for (size_t i = 0; i < std::size(cases); ++i) {
    EXPECT_EQ(contents.events[i + 1].session_log().checkpoint_path(), cases[i].second) << i;
  }
}

TEST(EventWriterTest, WritersOfOneSecondHaveTheirOwnFiles) {
  FaultFileSystem fs;
  const std::unique_ptr<FileWriter> a = OpenWriter(&fs), b = OpenWriter(&fs);
  EXPECT_NE(a->path(), b->path());
}

TEST(EventWriterTest, FlushShowsEventsAndTheIntervalDoesToo) {
  FaultFileSystem fs;
  const std::unique_ptr<FileWriter> writer = OpenWriter(&fs);
  ASSERT_TRUE(writer->AddScalar("a", 1, 1).ok());
  EXPECT_EQ(MustRead(&fs, writer->path()).events.size(), 1);  // The version alone.
  ASSERT_TRUE(writer->Flush().ok());
  EXPECT_EQ(MustRead(&fs, writer->path()).events.size(), 2);

  FileWriterOptions options;
  options.flush_interval = absl::Milliseconds(1);
  const std::unique_ptr<FileWriter> quick = OpenWriter(&fs, options);
  ASSERT_TRUE(quick->AddScalar("a", 1, 1).ok());
  while (MustRead(&fs, quick->path()).events.size() < 2) absl::SleepFor(absl::Milliseconds(1));
}

TEST(EventWriterTest, ClosedFileSurvivesPowerLoss) {
  FaultFileSystem fs;
  const std::unique_ptr<FileWriter> writer = OpenWriter(&fs);
  ASSERT_TRUE(writer->AddScalar("a", 1, 1).ok());
  ASSERT_TRUE(writer->Close().ok());
  const auto after = fs.AfterCrash(fs.num_ops(), Surviving::kSynced);
  EXPECT_EQ(MustRead(after.get(), writer->path()).events.size(), 2);
}

TEST(EventWriterTest, ManyThreadsAddThroughASmallBuffer) {
  FaultFileSystem fs;
  FileWriterOptions options;
  options.buffer_bytes = 64;
  const std::unique_ptr<FileWriter> writer = OpenWriter(&fs, options);
  constexpr int kThreads = 4, kEach = 200;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&writer, t] {
      for (int i = 0; i < kEach; ++i) {
        EXPECT_TRUE(writer->AddScalar(absl::StrCat("thread", t), static_cast<float>(i), i).ok());
        if (i % 50 == 0) {
          EXPECT_TRUE(writer->Flush().ok());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(writer->Close().ok());
  const EventFileContents contents = MustRead(&fs, writer->path());
  ASSERT_EQ(contents.events.size(), 1 + kThreads * kEach);
  std::vector<int> next(kThreads);
  for (size_t i = 1; i < contents.events.size(); ++i) {
    const proto::Summary::Value& value = contents.events[i].summary().value(0);
    const int t = value.tag().back() - '0';
    EXPECT_EQ(contents.events[i].step(), next[t]++);  // Each thread's own stay in order.
  }
}

TEST(EventWriterTest, FileErrorsAreReportedFromThenOn) {
  FaultFileSystem fs;
  const std::unique_ptr<FileWriter> writer = OpenWriter(&fs);
  fs.FailCall(0, absl::ResourceExhaustedError("no space"), /*all_later=*/true);
  ASSERT_TRUE(writer->AddScalar("a", 1, 1).ok());
  EXPECT_EQ(writer->Flush().code(), absl::StatusCode::kResourceExhausted);
  fs.StopFailing();
  // Half a record is in the file; more behind it could not be read.
  EXPECT_EQ(writer->AddScalar("a", 1, 2).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(writer->Close().code(), absl::StatusCode::kResourceExhausted);
  const EventFileContents contents = MustRead(&fs, writer->path());
  EXPECT_EQ(contents.events.size(), 1);
  EXPECT_GT(contents.truncated_bytes, 0);

  fs.FailCall(0, absl::PermissionDeniedError("read-only"), /*all_later=*/true);
  EXPECT_EQ(FileWriter::Open(&fs, "/other").status().code(), absl::StatusCode::kPermissionDenied);
}

// Three records, and where each ends.
std::string ThreeRecords(std::vector<size_t>* ends) {
  std::string bytes;
  for (int i = 0; i < 3; ++i) {
    proto::Event event;
    event.set_step(i + 1);
    event.set_file_version(std::string(i * 10, 'x'));
    AppendRecord(event.SerializeAsString(), &bytes);
    ends->push_back(bytes.size());
  }
  return bytes;
}

TEST(EventReaderTest, StopsAtEveryCut) {
  std::vector<size_t> ends;
  const std::string bytes = ThreeRecords(&ends);
  FaultFileSystem fs;
  for (size_t size = 0; size <= bytes.size(); ++size) {
    fs.SetContents("/f", bytes.substr(0, size));
    const size_t whole = std::upper_bound(ends.begin(), ends.end(), size) - ends.begin();
    const EventFileContents contents = MustRead(&fs, "/f");
    EXPECT_EQ(contents.events.size(), whole) << size;
    EXPECT_EQ(contents.truncated_bytes, size - (whole == 0 ? 0 : ends[whole - 1])) << size;
  }
}

TEST(EventReaderTest, NoticesEveryChangedByte) {
  std::vector<size_t> ends;
  const std::string bytes = ThreeRecords(&ends);
  FaultFileSystem fs;
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string changed = bytes;
    changed[i] ^= 1 << (i % 8);
    fs.SetContents("/f", changed);
    const absl::Status status = ReadEvents(&fs, "/f").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << i;
    EXPECT_THAT(std::string(status.message()), HasSubstr("'/f'"));
  }
}

TEST(EventReaderTest, RefusesWhatIsNoEventAndLengthsBeyondReason) {
  FaultFileSystem fs;
  std::string bytes;
  AppendRecord("\xff\xff\xff", &bytes);
  fs.SetContents("/f", bytes);
  EXPECT_EQ(ReadEvents(&fs, "/f").status().code(), absl::StatusCode::kDataLoss);
  // A length of 2^63 under a crc that fits: nothing is allocated for it.
  fs.SetContents("/f", std::string("\0\0\0\0\0\0\0\x80\x95\x08\x67\xb6", 12));
  EXPECT_EQ(ReadEvents(&fs, "/f").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReadEvents(&fs, "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST(HistogramTest, CountsInBucketsAndMergesEmptyOnes) {
  const proto::HistogramProto empty = MakeHistogram({});
  EXPECT_THAT(empty.bucket(), ElementsAre(0));
  EXPECT_THAT(empty.bucket_limit(), ElementsAre(DBL_MAX));

  const proto::HistogramProto histogram = MakeHistogram({-DBL_MAX, 0, 0, 1e-13, DBL_MAX});
  EXPECT_THAT(histogram.bucket(), ElementsAre(0, 1, 0, 3, 0, 1));
  EXPECT_EQ(histogram.bucket_limit(3), 1e-12);  // Holds [0, 1e-12).
  EXPECT_EQ(histogram.min(), -DBL_MAX);
  EXPECT_EQ(histogram.max(), DBL_MAX);
  EXPECT_EQ(histogram.num(), 5);

  const proto::HistogramProto two = MakeHistogram({3, 5});
  EXPECT_EQ(two.sum(), 8);
  EXPECT_EQ(two.sum_squares(), 34);
}

TEST(HistogramTest, RefusesNumbersThatAreNotFinite) {
  FaultFileSystem fs;
  const std::unique_ptr<FileWriter> writer = OpenWriter(&fs);
  const absl::Status status = writer->AddHistogram(
      "weights", std::vector<float>{1, std::numeric_limits<float>::quiet_NaN()}, 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("weights"), HasSubstr("index 1")));
  EXPECT_TRUE(writer->AddHistogram("weights", std::vector<double>{1, 2}, 1).ok());
}

}  // namespace
}  // namespace ferry
