// Tests the `checkpoint` state file, the search for the latest checkpoint, CheckpointReader and
// VerifyCheckpoint.
#include "saver/checkpoint_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/base/status.h"
#include "saver/bundle_writer.h"
#include "saver/checkpoint_reader.h"
#include "saver/meta_graph.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kMlp[] = "tests/testdata/mlp/adam";

void WriteOne(FileSystem* fs, const std::string& prefix, float value) {
  auto writer = BundleWriter::Open(fs, prefix);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Add("v0", Tensor::Of<float>({value, 2, 3, 4, 5, 6}, {2, 3})).ok());
  ASSERT_TRUE((*writer)->Add("v1", Tensor::Scalar<int64_t>(7)).ok());
  ASSERT_TRUE((*writer)->Commit().ok());
}

std::string Text(const FaultFileSystem& fs, const std::string& path) {
  const std::string text = *fs.Contents(path);
  return text.substr(text.find('\n') + 1);  // Without the line of the crc.
}

TEST(CheckpointState, ReadsTensorFlows) {
  FileSystem* fs = FileSystem::Posix();
  const auto state = GetCheckpointState(fs, kMlp);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->model_checkpoint_path(), std::string(kMlp) + "/model.ckpt-100");
  EXPECT_THAT(state->all_model_checkpoint_paths(),
              ElementsAre(std::string(kMlp) + "/model.ckpt-100"));
  EXPECT_EQ(*LatestCheckpoint(fs, kMlp), std::string(kMlp) + "/model.ckpt-100");
  EXPECT_TRUE(VerifyCheckpoint(fs, kMlp).damage.empty());
}

TEST(CheckpointState, WritesAsTensorFlowDoes) {
  FaultFileSystem fs;
  ASSERT_TRUE(fs.CreateDir("/m").ok());
  // Absolute: as they are.
  ASSERT_TRUE(UpdateCheckpointState(&fs, "/m", "/m/a-2", {"/m/a-1", "/m/a-2"}).ok());
  EXPECT_EQ(Text(fs, "/m/checkpoint"),
            "model_checkpoint_path: \"/m/a-2\"\n"
            "all_model_checkpoint_paths: \"/m/a-1\"\n"
            "all_model_checkpoint_paths: \"/m/a-2\"\n");
  auto state = GetCheckpointState(&fs, "/m");
  ASSERT_TRUE(state.ok());
  EXPECT_THAT(state->all_model_checkpoint_paths(), ElementsAre("/m/a-1", "/m/a-2"));
  // Relative on demand, in a file of another name, with times; the latest is added to the list.
  ASSERT_TRUE(UpdateCheckpointState(&fs, "/m", "/m/sub/a-2", {"/m/a-1"}, {1.5, 1700000000.25}, 0.5,
                                    "best", true)
                  .ok());
  EXPECT_EQ(Text(fs, "/m/best"),
            "model_checkpoint_path: \"sub/a-2\"\n"
            "all_model_checkpoint_paths: \"a-1\"\n"
            "all_model_checkpoint_paths: \"sub/a-2\"\n"
            "all_model_checkpoint_timestamps: 1.5\n"
            "all_model_checkpoint_timestamps: 1700000000.25\n"
            "last_preserved_timestamp: 0.5\n");
  state = GetCheckpointState(&fs, "/m", "best");
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(state->model_checkpoint_path(), "/m/sub/a-2");
  // A relative directory: relative to it.
  ASSERT_TRUE(UpdateCheckpointState(&fs, "m", "m/a-3", {"m/a-1", "/else/a-2", "m/a-3"}).ok());
  EXPECT_EQ(Text(fs, "/m/checkpoint"),
            "model_checkpoint_path: \"a-3\"\n"
            "all_model_checkpoint_paths: \"a-1\"\n"
            "all_model_checkpoint_paths: \"/else/a-2\"\n"
            "all_model_checkpoint_paths: \"a-3\"\n");
  EXPECT_EQ(GetCheckpointState(&fs, "m")->model_checkpoint_path(), "m/a-3");
}

TEST(CheckpointState, RefusesNamesThatClash) {
  FaultFileSystem fs;
  const auto update = [&](const std::string& model, const std::string& latest,
                          const std::vector<double>& times = {}) {
    return UpdateCheckpointState(&fs, "/", model, {}, times, 0, latest);
  };
  EXPECT_THAT(std::string(update("/a", "x/y").message()),
              HasSubstr("must not contain path components"));
  EXPECT_EQ(update("/a", "").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(update("/state", "state").message()),
              HasSubstr("conflicts with path used for checkpoint state"));
  EXPECT_EQ(update("/a", "state", {1, 2}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(fs.num_ops(), 0u);
}

TEST(CheckpointState, EveryByteIsGuarded) {
  FaultFileSystem fs;
  WriteOne(&fs, "/a-1", 1);
  ASSERT_TRUE(UpdateCheckpointState(&fs, "/", "/a-1", {"/a-0", "/a-1"}).ok());
  const std::string good = *fs.Contents("/checkpoint");
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {1, 2, 0x20, 0x80, 0xff}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      fs.SetContents("/checkpoint", bad);
      const absl::Status status = GetCheckpointState(&fs, "/").status();
      EXPECT_TRUE(absl::IsDataLoss(status)) << i << " ^ " << flip << ": " << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("/checkpoint"));
    }
    fs.SetContents("/checkpoint", good.substr(0, i));
    EXPECT_TRUE(absl::IsDataLoss(GetCheckpointState(&fs, "/").status())) << i;
  }
  EXPECT_EQ(*LatestCheckpoint(&fs, "/"), "") << "damaged counts as none";
  fs.SetContents("/checkpoint", good + "\n");
  EXPECT_TRUE(absl::IsDataLoss(GetCheckpointState(&fs, "/").status()));
  fs.SetContents("/checkpoint", good);
  EXPECT_EQ(*LatestCheckpoint(&fs, "/"), "/a-1");
}

TEST(LatestCheckpoint, FindsMovedDirectoriesAndSaysNoneWhereFilesAreGone) {
  FaultFileSystem fs;
  ASSERT_TRUE(fs.CreateDir("/moved").ok());
  EXPECT_EQ(*LatestCheckpoint(&fs, "/moved"), "");
  EXPECT_EQ(*LatestCheckpoint(&fs, "/nowhere"), "");
  ASSERT_TRUE(UpdateCheckpointState(&fs, "/moved", "/old/place/a-1", {}).ok());
  EXPECT_EQ(*LatestCheckpoint(&fs, "/moved"), "");
  WriteOne(&fs, "/moved/a-1", 1);
  EXPECT_EQ(*LatestCheckpoint(&fs, "/moved"), "/moved/a-1");
  fs.FailCall(0, absl::UnavailableError("the disk is on fire"), true);
  EXPECT_TRUE(absl::IsUnavailable(LatestCheckpoint(&fs, "/moved").status()));
}

TEST(CheckpointReader, LooksIntoACheckpoint) {
  FaultFileSystem fs;
  WriteOne(&fs, "/m/a-1", 1);
  EXPECT_TRUE(absl::IsNotFound(CheckpointReader::Open(&fs, "/m").status()));
  ASSERT_TRUE(UpdateCheckpointState(&fs, "/m", "/m/a-1", {}).ok());
  for (const char* path : {"/m", "/m/a-1"}) {
    const auto opened = CheckpointReader::Open(&fs, path);
    ASSERT_TRUE(opened.ok()) << opened.status();
    const CheckpointReader& reader = **opened;
    EXPECT_EQ(reader.prefix(), "/m/a-1");
    EXPECT_EQ(reader.num_shards(), 1);
    EXPECT_EQ(reader.DebugString(), "v0 (DT_FLOAT) [2,3]\nv1 (DT_INT64) []\n");
    EXPECT_TRUE(reader.HasTensor("v0"));
    EXPECT_FALSE(reader.HasTensor("v"));
    EXPECT_EQ(reader.GetVariableToShapeMap().at("v0"), (TensorShape{2, 3}));
    EXPECT_EQ(reader.GetVariableToDTypeMap().at("v1"), DType::kInt64);
    EXPECT_EQ(reader.GetTensor("v1")->scalar<int64_t>(), 7);
    EXPECT_TRUE(absl::IsNotFound(reader.GetTensor("v2").status()));
    ASSERT_EQ(reader.Tensors().size(), 2u);
    EXPECT_NE(reader.Tensors()[0].crc32c, 0u);
    EXPECT_FALSE(reader.Changed());
  }
  const auto before = CheckpointReader::Open(&fs, "/m");
  WriteOne(&fs, "/m/a-1", 2);
  EXPECT_TRUE((*before)->Changed());
}

TEST(VerifyCheckpoint, NamesWhatIsDamaged) {
  FaultFileSystem fs;
  WriteOne(&fs, "/m/a-1", 1);
  ASSERT_TRUE(UpdateCheckpointState(&fs, "/m", "/m/a-1", {}).ok());
  ASSERT_TRUE(WriteMetaGraph(&fs, "/m/a-1.meta", proto::MetaGraphDef()).ok());
  VerifyReport report = VerifyCheckpoint(&fs, "/m");
  EXPECT_TRUE(report.damage.empty());
  EXPECT_EQ(report.prefix, "/m/a-1");
  EXPECT_EQ(report.tensors, 2);
  EXPECT_EQ(report.data_bytes, 32u);
  for (const std::string file : {"/m/a-1.index", "/m/a-1.data-00000-of-00001", "/m/a-1.meta"}) {
    const std::string good = *fs.Contents(file);
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] ^= 1;
      fs.SetContents(file, bad);
      report = VerifyCheckpoint(&fs, "/m");
      ASSERT_FALSE(report.damage.empty()) << file << " byte " << i;
      EXPECT_THAT(std::string(report.damage[0].message()), HasSubstr("/m/a-1"));
    }
    fs.SetContents(file, good);
  }
  ASSERT_TRUE(fs.Unlink("/m/a-1.index").ok());
  EXPECT_EQ(VerifyCheckpoint(&fs, "/m").damage.size(), 1u);
}

}  // namespace
}  // namespace ferry
