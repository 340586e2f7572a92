// Tests that a save is all or nothing: against every state that a power loss may leave at any
// moment of it, and against the failure of every single call.
#include <gtest/gtest.h>

#include <functional>

#include "absl/strings/match.h"
#include "runtime/base/status.h"
#include "saver/bundle_reader.h"
#include "saver/bundle_writer.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

// A checkpoint of two tensors that say which save they are of; several blocks long.
std::vector<std::pair<std::string, Tensor>> Contents(int version) {
  std::vector<int32_t> big(50000);
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<int32_t>(i) * (version + 1);
  return {{"big", Tensor::Of<int32_t>(big)}, {"version", Tensor::Scalar<int32_t>(version)}};
}

BundleWriterOptions SmallSlots() {
  BundleWriterOptions options;
  options.slots = 2;
  options.slot_bytes = size_t{64} << 10;
  return options;
}

absl::Status Save(FileSystem* fs, const std::string& prefix, int version) {
  FERRY_ASSIGN_OR_RETURN(auto writer, BundleWriter::Open(fs, prefix, SmallSlots()));
  for (const auto& [name, tensor] : Contents(version)) {
    FERRY_RETURN_IF_ERROR(writer->Add(name, tensor));
  }
  return writer->Commit();
}

// Two parts in a directory of their own, then one checkpoint of them.
absl::Status SaveSharded(FileSystem* fs, const std::string& prefix, int version) {
  std::vector<std::string> parts;
  for (const auto& [name, tensor] : Contents(version)) {
    parts.push_back(prefix + "_temp/part-" + name);
    FERRY_ASSIGN_OR_RETURN(auto writer, BundleWriter::Open(fs, parts.back(), SmallSlots()));
    FERRY_RETURN_IF_ERROR(writer->Add(name, tensor));
    FERRY_RETURN_IF_ERROR(writer->Commit());
  }
  return MergeBundles(fs, parts, prefix, true);
}

// The version that the checkpoint holds, whole and true in every byte; -1 if there is none;
// -2 for a damaged one.
int VersionOf(FileSystem* fs, const std::string& prefix) {
  const auto reader = BundleReader::Open(fs, prefix);
  if (!reader.ok()) return absl::IsInvalidArgument(reader.status()) ? -1 : -2;
  const auto version = (*reader)->Read("version");
  const auto big = (*reader)->Read("big");
  if (!version.ok() || !big.ok() || !(*reader)->Verify(nullptr).empty()) return -2;
  const int v = version->scalar<int32_t>();
  return big->span<int32_t>() == Contents(v)[0].second.span<int32_t>() ? v : -2;
}

struct Scenario {
  const char* name;
  std::function<absl::Status(FileSystem*)> before;
  std::function<absl::Status(FileSystem*)> save;
  std::string prefix;                               // What `save` writes version 9 to.
  int old;                                          // What was there before.
  std::vector<std::pair<std::string, int>> others;  // Checkpoints that must stay as they are.
};

void PrintTo(const Scenario& s, std::ostream* out) { *out << s.name; }

std::vector<Scenario> Scenarios() {
  const auto nothing = [](FileSystem*) { return absl::OkStatus(); };
  const auto directory = [](FileSystem* fs) {
    FERRY_RETURN_IF_ERROR(fs->CreateDir("/m"));
    return fs->SyncDir("/");
  };
  const auto once = [](FileSystem* fs) { return Save(fs, "/m/a-1", 1); };
  const auto twice = [](FileSystem* fs) {
    FERRY_RETURN_IF_ERROR(Save(fs, "/m/a-1", 1));
    return Save(fs, "/m/a-1", 2);
  };
  const auto sharded = [directory](FileSystem* fs) {
    FERRY_RETURN_IF_ERROR(directory(fs));
    return SaveSharded(fs, "/m/a-1", 3);
  };
  const auto save = [](const std::string& prefix) {
    return [prefix](FileSystem* fs) { return Save(fs, prefix, 9); };
  };
  const auto save_sharded = [](FileSystem* fs) { return SaveSharded(fs, "/m/a-1", 9); };
  return {
      {"First", nothing, save("/m/a-1"), "/m/a-1", -1, {}},
      {"NextStep", once, save("/m/a-2"), "/m/a-2", -1, {{"/m/a-1", 1}}},
      {"SamePrefix", once, save("/m/a-1"), "/m/a-1", 1, {}},
      {"SamePrefixAThirdTime", twice, save("/m/a-1"), "/m/a-1", 2, {}},
      {"OverASharded", sharded, save("/m/a-1"), "/m/a-1", 3, {}},
      {"FirstSharded", directory, save_sharded, "/m/a-1", -1, {}},
      {"ShardedOverASharded", sharded, save_sharded, "/m/a-1", 3, {}},
      {"ShardedOverAPlain", once, save_sharded, "/m/a-1", 1, {}},
  };
}

// How often chance decides what a power loss leaves of one moment. The thread sanitizer is an order
// of magnitude slower.
#ifdef FERRY_TSAN
constexpr uint32_t kSeeds = 5;
#else
constexpr uint32_t kSeeds = 20;
#endif

class Commit : public ::testing::TestWithParam<Scenario> {};
INSTANTIATE_TEST_SUITE_P(, Commit, ::testing::ValuesIn(Scenarios()),
                         [](const auto& info) { return info.param.name; });

// The old checkpoint or the new one is whole, and so are all others.
void ExpectOldOrNew(const Scenario& s, FileSystem* fs, const std::string& when, int* found) {
  *found = VersionOf(fs, s.prefix);
  EXPECT_TRUE(*found == s.old || *found == 9) << "version " << *found << " " << when;
  for (const auto& [prefix, version] : s.others) {
    EXPECT_EQ(VersionOf(fs, prefix), version) << prefix << " " << when;
  }
}

TEST_P(Commit, SurvivesPowerLossAtEveryMoment) {
  const Scenario& s = GetParam();
  FaultFileSystem fs;
  ASSERT_TRUE(s.before(&fs).ok());
  const size_t begin = fs.num_ops();
  ASSERT_TRUE(s.save(&fs).ok());
  const size_t end = fs.num_ops();
  ASSERT_GT(end, begin + 5);
  bool seen_old = false, seen_new = false;
  for (size_t n = begin; n <= end; ++n) {
    std::vector<std::pair<Surviving, uint32_t>> ways = {{Surviving::kSynced, 0},
                                                        {Surviving::kNames, 0},
                                                        {Surviving::kBytes, 0},
                                                        {Surviving::kAll, 0}};
    for (uint32_t seed = 0; seed < kSeeds; ++seed) ways.emplace_back(Surviving::kAnyPart, seed);
    for (const auto& [way, seed] : ways) {
      const auto after = fs.AfterCrash(n, way, seed);
      const std::string when =
          absl::StrCat("after ", n - begin, " of ", end - begin,
                       " operations (the last: ", n > 0 ? fs.OpName(n - 1) : "none", "), way ",
                       static_cast<int>(way), ", seed ", seed);
      int found = 0;
      ExpectOldOrNew(s, after.get(), when, &found);
      seen_old |= found == s.old;
      seen_new |= found == 9;
      if (n == end) {
        EXPECT_EQ(found, 9) << "a save that returned OK was lost " << when;
      }
      // What is left doesn't stand in the way of the next save.
      if (seed == 0) {
        const absl::Status again = s.save(after.get());
        EXPECT_TRUE(again.ok()) << again << " " << when;
        EXPECT_EQ(VersionOf(after.get(), s.prefix), 9) << when;
      }
      if (HasFailure()) return;  // One report is enough.
    }
  }
  EXPECT_TRUE(seen_old);
  EXPECT_TRUE(seen_new);
}

TEST_P(Commit, SurvivesTheFailureOfEveryCall) {
  const Scenario& s = GetParam();
  for (const bool all_later : {false, true}) {
    int64_t failed = 0;
    for (int64_t n = 0;; ++n) {
      FaultFileSystem fs;
      ASSERT_TRUE(s.before(&fs).ok());
      const int64_t calls = fs.calls();
      fs.FailCall(n, absl::ResourceExhaustedError("no space left on device"), all_later);
      const absl::Status status = s.save(&fs);
      const bool reached = fs.calls() > calls + n;
      fs.StopFailing();
      const std::string when =
          absl::StrCat("with call ", n, " failing (", fs.LastFailure(), "): ", status.ToString());
      int found = 0;
      ExpectOldOrNew(s, &fs, when, &found);
      if (status.ok()) {
        EXPECT_EQ(found, 9) << when;  // The failure was of no weight.
      } else {
        ++failed;
        EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << when;
      }
      // Nothing temporary stays unless the file system refused to remove it; the next save that
      // goes well leaves nothing but its checkpoint.
      const auto files = fs.List("/m");
      if (!all_later && files.ok()) {
        for (const std::string& file : *files) {
          EXPECT_FALSE(absl::EndsWith(file, kTemporarySuffix)) << file << " " << when;
        }
      }
      // And what is in place now is as good after a power loss that loses nothing.
      const auto after = fs.AfterCrash(fs.num_ops(), Surviving::kAll);
      EXPECT_EQ(VersionOf(after.get(), s.prefix), found) << when;
      ASSERT_TRUE(s.save(&fs).ok()) << when;
      EXPECT_EQ(VersionOf(&fs, s.prefix), 9) << when;
      if (!reached) break;
      if (HasFailure()) return;
    }
    EXPECT_GT(failed, 8);
  }
}

TEST(AbandonedSave, LeavesNothing) {
  FaultFileSystem fs;
  ASSERT_TRUE(Save(&fs, "/m/a-1", 1).ok());
  const std::vector<std::string> files = *fs.List("/m");
  for (int steps = 0; steps < 3; ++steps) {
    for (const std::string prefix : {"/m/a-1", "/m/a-2"}) {
      auto writer = BundleWriter::Open(&fs, prefix, SmallSlots());
      ASSERT_TRUE(writer.ok());
      if (steps > 0) {
        ASSERT_TRUE((*writer)->Add("big", Contents(2)[0].second).ok());
      }
      if (steps > 1) {
        ASSERT_TRUE((*writer)->FinishData().ok());
      }
      writer->reset();
      EXPECT_EQ(*fs.List("/m"), files);
      EXPECT_EQ(VersionOf(&fs, "/m/a-1"), 1);
    }
  }
}

}  // namespace
}  // namespace ferry
