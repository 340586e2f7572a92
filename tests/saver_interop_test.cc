// Restores what TensorFlow's Saver saved with its various options through the meta graphs that it
// wrote, and saves it again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/base/file_system.h"
#include "runtime/session/session.h"
#include "saver/checkpoint_reader.h"
#include "saver/meta_graph.h"
#include "saver/saver.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;

class SaverInterop : public ::testing::TestWithParam<std::string> {
 protected:
  FileSystem* const fs_ = FileSystem::Posix();
  const std::string checkpoint_ = absl::StrCat("tests/testdata/savers/", GetParam());
};

// make_savers.py says what these are.
INSTANTIATE_TEST_SUITE_P(All, SaverInterop,
                         ::testing::Values("unsharded", "options", "sharded", "one_device",
                                           "reshape", "map", "sequential", "second", "partitioned",
                                           "v1", "collections", "cond", "resource"),
                         [](const auto& info) { return info.param; });

TEST_P(SaverInterop, RestoresAndSavesAgain) {
  Graph graph;
  const auto meta = ReadMetaGraph(fs_, checkpoint_ + ".meta");
  ASSERT_TRUE(meta.ok()) << meta.status();
  const auto imported = ImportMetaGraph(*meta, {}, &graph);
  ASSERT_TRUE(imported.ok()) << imported.status();
  ASSERT_TRUE(imported->has_saver_def);
  const auto saver = Saver::FromProto(&graph, imported->saver_def);
  ASSERT_TRUE(saver.ok()) << saver.status();
  Session session(&graph);
  const absl::Status status = (*saver)->Restore(&session, checkpoint_);
  ASSERT_TRUE(status.ok()) << status;

  const auto fetch = [&session](const std::string& name) {
    std::vector<Tensor> out;
    const absl::Status run = session.Run({}, {name}, {}, &out);
    EXPECT_TRUE(run.ok()) << run;
    return run.ok() ? out[0] : Tensor();
  };
  const std::string read = GetParam() == "resource" ? "/Read/ReadVariableOp:0" : "/read:0";
  if (GetParam() == "partitioned") {
    EXPECT_THAT(fetch("a/part_0/read:0").span<float>(), ElementsAre(0, 1, 3, 4));
    EXPECT_THAT(fetch("a/part_1/read:0").span<float>(), ElementsAre(2, 5));
  } else if (GetParam() != "second") {  // Which leaves a out.
    EXPECT_THAT(fetch("a" + read).span<float>(), ElementsAre(0, 1, 2, 3, 4, 5));
  }
  EXPECT_EQ(fetch("b" + read).scalar<int64_t>(), 7);
  if (GetParam() != "map") {  // Which leaves scope/c out.
    EXPECT_THAT(fetch("scope/c" + read).span<double>(), ElementsAre(0, 0.25, 0.5, 0.75));
  }

  // The same through the nodes that TensorFlow made for it.
  {
    Session other(&graph);
    const std::pair<std::string, Tensor> from = {imported->saver_def.filename_tensor_name(),
                                                 Tensor::Scalar<std::string>(checkpoint_)};
    const absl::Status run =
        other.Run({from}, {}, {imported->saver_def.restore_op_name()}, nullptr);
    ASSERT_TRUE(run.ok()) << run;
    for (const SaveItem& item : (*saver)->items()) {
      const std::string& name = item.variable.node->name();
      const Tensor& x = session.variables()->Find(name)->tensor();
      const Tensor& y = other.variables()->Find(name)->tensor();
      ASSERT_EQ(x.shape(), y.shape());
      EXPECT_EQ(std::memcmp(x.raw(), y.raw(), x.bytes()), 0) << name;
    }
  }

  std::string dir = ::testing::TempDir() + "saver_interop.XXXXXX";
  ASSERT_NE(mkdtemp(&dir[0]), nullptr);
  const auto saved = (*saver)->Save(&session, dir + "/again");
  ASSERT_TRUE(saved.ok()) << saved.status();
  const auto ours = CheckpointReader::Open(fs_, *saved);
  const auto theirs = CheckpointReader::Open(fs_, checkpoint_);
  ASSERT_TRUE(ours.ok()) << ours.status();
  ASSERT_TRUE(theirs.ok()) << theirs.status();
  EXPECT_EQ((*ours)->DebugString(), (*theirs)->DebugString());
  for (const CheckpointReader::TensorInfo& info : (*theirs)->Tensors()) {
    const auto x = (*ours)->GetTensor(info.name), y = (*theirs)->GetTensor(info.name);
    ASSERT_TRUE(x.ok()) << x.status();
    ASSERT_TRUE(y.ok()) << y.status();
    ASSERT_EQ(x->bytes(), y->bytes());
    EXPECT_EQ(std::memcmp(x->raw(), y->raw(), x->bytes()), 0) << info.name;
  }
  // The files are the same, byte for byte.
  if (GetParam() != "v1") {
    std::vector<std::string> files = {".index", ".data-00000-of-00001"};
    if (GetParam() == "sharded") {
      files = {".index", ".data-00000-of-00002", ".data-00001-of-00002"};
    }
    for (const std::string& file : files) {
      const auto a = ReadFile(fs_, *saved + file), b = ReadFile(fs_, checkpoint_ + file);
      ASSERT_TRUE(a.ok()) << a.status();
      ASSERT_TRUE(b.ok()) << b.status();
      EXPECT_TRUE(*a == *b) << file;
    }
  }
}

}  // namespace
}  // namespace ferry
