// Saver: options, names, retention, background saves, restores that are whole or nothing.
#include "saver/saver.h"

#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "saver/bundle_reader.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "tests/fault_fs.h"
#include "tests/no_threads.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

#define ASSERT_OK(expr)             \
  do {                              \
    const absl::Status s_ = (expr); \
    ASSERT_TRUE(s_.ok()) << s_;     \
  } while (false)

class SaverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/saver-XXXXXX";
    dir = mkdtemp(pattern.data());
  }
  // Variables a [3] float, b int64 scalar and s string [2] in a graph of its own.
  struct Model {
    explicit Model(int64_t a_size = 3) {
      Scope root(&graph);
      a = MakeVariable(root, "a", *Numbers(a_size));
      b = MakeVariable(root, "b", Tensor::Scalar<int64_t>(7));
      s = MakeVariable(root, "s", Tensor::Of<std::string>({"x", std::string(70000, 'y')}));
      ops::AssignAdd(root.WithOpName("inc_a"), a.ref, ops::OnesLike(root, a.initial_value));
      ops::AssignAdd(root.WithOpName("inc_b"), b.ref, ops::Const<int64_t>(root, 1));
      GlobalVariablesInitializer(root);
      EXPECT_TRUE(root.ok()) << root.status();
      session = std::make_unique<Session>(&graph);
    }
    static absl::StatusOr<Tensor> Numbers(int64_t n) {
      FERRY_ASSIGN_OR_RETURN(Tensor t, Tensor::Allocate(DType::kFloat, {n}));
      for (int64_t i = 0; i < n; ++i) t.data<float>()[i] = static_cast<float>(i);
      return t;
    }
    absl::Status Run(const std::string& target) { return session->Run({}, {}, {target}, nullptr); }
    Tensor Get(const std::string& name) {
      std::vector<Tensor> out;
      const absl::Status status = session->Run({}, {name}, {}, &out);
      EXPECT_TRUE(status.ok()) << status;
      return status.ok() ? out[0] : Tensor();
    }
    Graph graph;
    VariableHandle a, b, s;
    std::unique_ptr<Session> session;
  };
  std::string Path(const std::string& name) const { return dir + "/" + name; }
  bool Exists(const std::string& name) const { return fs->Exists(Path(name)); }
  std::vector<std::string> Files() const { return *fs->List(dir); }

  FileSystem* const fs = FileSystem::Posix();
  std::string dir;
};

TEST_F(SaverTest, SavesAndRestores) {
  Model m;
  ASSERT_OK(m.Run("init"));
  ASSERT_OK(m.Run("inc_a"));
  auto saver = Saver::Create(&m.graph);
  ASSERT_OK(saver.status());
  SaveOptions at;
  at.global_step = 42;
  auto path = (*saver)->Save(m.session.get(), Path("model.ckpt"), at);
  ASSERT_OK(path.status());
  EXPECT_EQ(*path, Path("model.ckpt-42"));
  EXPECT_THAT(Files(), ElementsAre("checkpoint", "model.ckpt-42.data-00000-of-00001",
                                   "model.ckpt-42.index", "model.ckpt-42.meta"));
  EXPECT_EQ(*LatestCheckpoint(fs, dir), *path);
  EXPECT_GT((*saver)->last_stats().bytes, 0);

  Model other;
  auto restorer = Saver::Create(&other.graph);
  ASSERT_OK((*restorer)->Restore(other.session.get(), *path));
  EXPECT_EQ(other.Get("a").DebugString(), "float32 [3] 1 2 3");
  EXPECT_EQ(other.Get("b").scalar<int64_t>(), 7);
  EXPECT_EQ(other.Get("s").data<std::string>()[1].size(), 70000u);
  // Into variables that have values already.
  ASSERT_OK(other.Run("inc_a"));
  ASSERT_OK((*restorer)->Restore(other.session.get(), *path));
  EXPECT_EQ(other.Get("a").DebugString(), "float32 [3] 1 2 3");
}

TEST_F(SaverTest, RestoresThroughItsMetaGraphAndItsNodes) {
  Model m;
  ASSERT_OK(m.Run("init"));
  auto saver = Saver::Create(&m.graph);
  auto path = (*saver)->Save(m.session.get(), Path("m"));
  ASSERT_OK(path.status());

  auto meta = ReadMetaGraph(fs, *path + ".meta");
  ASSERT_OK(meta.status());
  EXPECT_EQ(meta->saver_def().max_to_keep(), 5);
  Graph graph;
  auto imported = ImportMetaGraph(*meta, {}, &graph);
  ASSERT_OK(imported.status());
  auto again = Saver::FromProto(&graph, imported->saver_def);
  ASSERT_OK(again.status());
  Session session(&graph);
  ASSERT_OK((*again)->Restore(&session, *path));
  std::vector<Tensor> out;
  ASSERT_OK(session.Run({}, {"a/read", "b"}, {}, &out));
  EXPECT_EQ(out[0].DebugString(), "float32 [3] 0 1 2");
  // The graph's own nodes do the same, as TensorFlow runs them.
  ASSERT_OK(session.Run({}, {}, {"inc_a"}, nullptr));
  ASSERT_OK(session.Run(
      {{imported->saver_def.filename_tensor_name(), Tensor::Scalar<std::string>(*path)}}, {},
      {imported->saver_def.restore_op_name()}, nullptr));
  ASSERT_OK(session.Run({}, {"a"}, {}, &out));
  EXPECT_EQ(out[0].DebugString(), "float32 [3] 0 1 2");
  ASSERT_OK(session.Run(
      {{imported->saver_def.filename_tensor_name(), Tensor::Scalar<std::string>(Path("by-node"))}},
      {imported->saver_def.save_tensor_name()}, {}, &out));
  EXPECT_EQ(out[0].scalar<std::string>(), Path("by-node"));
  EXPECT_TRUE(Exists("by-node.index"));
}

TEST_F(SaverTest, SavingDoesNotGrowTheGraph) {
  Model m;
  ASSERT_OK(m.Run("init"));
  const int before = m.graph.num_nodes();
  std::string in_a_copy;
  for (int i = 0; i < 20; ++i) {
    auto saver = Saver::Create(&m.graph);
    ASSERT_OK((*saver)->Save(m.session.get(), Path("m")).status());
    in_a_copy = *ReadFile(fs, Path("m.meta"));
  }
  EXPECT_EQ(m.graph.num_nodes(), before);
  auto saver = Saver::Create(&m.graph);
  ASSERT_OK((*saver)->as_saver_def().status());
  const int with = m.graph.num_nodes();
  EXPECT_GT(with, before);
  for (int i = 0; i < 3; ++i) ASSERT_OK((*saver)->Save(m.session.get(), Path("m")).status());
  EXPECT_EQ(m.graph.num_nodes(), with);
  EXPECT_TRUE(*ReadFile(fs, Path("m.meta")) == in_a_copy) << "the same, wherever the nodes are";
}

// Other threads run the graph, by names, from before the first save on; restores come in between.
TEST_F(SaverTest, RunsSavesAndRestoresOfManyThreadsAtOnce) {
  Model m(5000);
  ASSERT_OK(m.Run("init"));
  auto saver = Saver::Create(&m.graph);
  auto other = Saver::Create(&m.graph, [&] {
    SaverOptions two;
    two.var_list = {m.a, m.b};
    two.shadow_pool_bytes = 0;
    return two;
  }());
  ASSERT_OK(other.status());
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (const char* target : {"inc_a", "inc_b"}) {
    threads.emplace_back([&m, &stop, target] {
      while (!stop) ASSERT_OK(m.Run(target));
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; i < 15; ++i) {
      const auto path = (*other)->Save(m.session.get(), Path("other/m"));
      ASSERT_OK(path.status());
      const absl::Status restored = (*other)->Restore(m.session.get(), *path);
      ASSERT_OK(restored);
    }
  });
  for (int i = 0; i < 15; ++i) {
    SaveOptions at;
    at.global_step = i;
    const auto started = (*saver)->SaveAsync(m.session.get(), Path("m"), at);
    ASSERT_OK(started.status());
    ASSERT_OK((*saver)->WaitForPending());
    auto reader = CheckpointReader::Open(fs, Path("m-" + std::to_string(i)));
    ASSERT_OK(reader.status());
    const Tensor a = *(*reader)->GetTensor("a");
    for (int64_t k = 1; k < a.num_elements(); ++k) {
      ASSERT_EQ(a.data<float>()[k] - a.data<float>()[0], static_cast<float>(k)) << "torn";
    }
  }
  threads.back().join();
  stop = true;
  threads[0].join();
  threads[1].join();
  const auto last = LatestCheckpoint(fs, dir);
  ASSERT_OK(last.status());
  EXPECT_TRUE((*CheckpointReader::Open(fs, *last))->bundle().Verify(nullptr).empty());
}

TEST_F(SaverTest, ListsAndMaps) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions list;
  list.var_list = {m.b};
  auto saver = Saver::Create(&m.graph, list);
  ASSERT_OK((*saver)->Save(m.session.get(), Path("list")).status());
  EXPECT_EQ((*CheckpointReader::Open(fs, Path("list")))->DebugString(), "b (DT_INT64) []\n");
  SaverOptions map;
  map.var_map = {{"z/renamed", m.a}, {"b2", m.b}};
  auto renamed = Saver::Create(&m.graph, map);
  ASSERT_OK((*renamed)->Save(m.session.get(), Path("map")).status());
  EXPECT_EQ((*CheckpointReader::Open(fs, Path("map")))->DebugString(),
            "b2 (DT_INT64) []\nz/renamed (DT_FLOAT) [3]\n");
  // Restoring a subset leaves the rest as it was: uninitialised here.
  Model other;
  SaverOptions back;
  back.var_map = {{"z/renamed", other.a}};
  auto restorer = Saver::Create(&other.graph, back);
  ASSERT_OK((*restorer)->Restore(other.session.get(), Path("map")));
  EXPECT_EQ(other.Get("a").DebugString(), "float32 [3] 0 1 2");
  std::vector<Tensor> out;
  EXPECT_EQ(other.session->Run({}, {"b"}, {}, &out).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SaverTest, RetentionKeepsTheNewest) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.max_to_keep = 2;
  auto saver = Saver::Create(&m.graph, options);
  auto save = [&](int64_t step) {
    SaveOptions at;
    at.global_step = step;
    return (*saver)->Save(m.session.get(), Path("m"), at).status();
  };
  for (int64_t step : {1, 2, 3}) ASSERT_OK(save(step));
  EXPECT_FALSE(Exists("m-1.index"));
  EXPECT_FALSE(Exists("m-1.meta"));
  EXPECT_FALSE(Exists("m-1.data-00000-of-00001"));
  EXPECT_THAT((*saver)->last_checkpoints(), ElementsAre(Path("m-2"), Path("m-3")));
  // Saved again, it is the newest.
  ASSERT_OK(save(2));
  EXPECT_THAT((*saver)->last_checkpoints(), ElementsAre(Path("m-3"), Path("m-2")));
  EXPECT_EQ(*LatestCheckpoint(fs, dir), Path("m-2"));
  ASSERT_OK(save(4));
  EXPECT_FALSE(Exists("m-3.index"));
  EXPECT_TRUE(Exists("m-2.index"));
  // A saver that is told of old ones evicts all that are due.
  SaverOptions one;
  one.max_to_keep = 1;
  auto next = Saver::Create(&m.graph, one);
  ASSERT_OK((*next)->RecoverFromState(fs, dir));
  EXPECT_THAT((*next)->last_checkpoints(), ElementsAre(Path("m-2"), Path("m-4")));
  SaveOptions at;
  at.global_step = 5;
  ASSERT_OK((*next)->Save(m.session.get(), Path("m"), at).status());
  EXPECT_THAT(Files(),
              ElementsAre("checkpoint", "m-5.data-00000-of-00001", "m-5.index", "m-5.meta"));
}

// Three savers in one directory: one that saves all along, one that was told of its checkpoints,
// one that knows nothing of them.
TEST_F(SaverTest, SaversOfOneDirectoryEvictWhatTheyKnow) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.max_to_keep = 2;
  auto first = Saver::Create(&m.graph, options), second = Saver::Create(&m.graph, options),
       third = Saver::Create(&m.graph, options);
  const auto save = [&](const std::unique_ptr<Saver>& saver, const char* name) {
    ASSERT_OK(saver->Save(m.session.get(), Path(name)).status());
  };
  const auto listed = [&] {
    const proto::CheckpointState state = *GetCheckpointState(fs, dir);
    EXPECT_EQ(state.model_checkpoint_path(), *state.all_model_checkpoint_paths().rbegin());
    return std::vector<std::string>(state.all_model_checkpoint_paths().begin(),
                                    state.all_model_checkpoint_paths().end());
  };
  for (const char* name : {"s1", "s2", "s3"}) save(*first, name);
  EXPECT_FALSE(Exists("s1.index"));
  EXPECT_FALSE(Exists("s1.meta"));
  (*second)->set_last_checkpoints((*first)->last_checkpoints());
  save(*first, "s2");
  EXPECT_THAT(listed(), ElementsAre(Path("s3"), Path("s2")));
  save(*first, "s1");
  EXPECT_FALSE(Exists("s3.index"));
  EXPECT_THAT(listed(), ElementsAre(Path("s2"), Path("s1")));
  // What comes without a time isn't deleted, but leaves the list.
  save(*second, "s2");
  EXPECT_THAT(listed(), ElementsAre(Path("s3"), Path("s2")));
  EXPECT_TRUE(Exists("s1.index"));
  save(*second, "s1");
  EXPECT_THAT(listed(), ElementsAre(Path("s2"), Path("s1")));
  save(*third, "s2");
  EXPECT_THAT(listed(), ElementsAre(Path("s2")));
  EXPECT_TRUE(Exists("s1.index"));
  save(*third, "s1");
  EXPECT_THAT(listed(), ElementsAre(Path("s2"), Path("s1")));
  EXPECT_TRUE(Exists("s2.index"));
}

TEST_F(SaverTest, RecoversWhatIsThere) {
  Model m;
  ASSERT_OK(m.Run("init"));
  auto saver = Saver::Create(&m.graph);
  for (const int64_t step : {1, 2, 3}) {
    SaveOptions at;
    at.global_step = step;
    ASSERT_OK((*saver)->Save(m.session.get(), Path("m"), at).status());
  }
  ASSERT_OK(fs->Unlink(Path("m-2.index")));
  std::ofstream(Path("v1")) << "a file of the V1 format";
  SaverOptions one;
  one.max_to_keep = 1;
  auto next = Saver::Create(&m.graph, one);
  ASSERT_OK((*next)->recover_last_checkpoints(
      fs, {Path("m-1"), Path("m-2"), Path("m-3"), Path("v1"), Path("never")}));
  EXPECT_THAT((*next)->last_checkpoints(), ElementsAre(Path("m-1"), Path("m-3"), Path("v1")));
  SaveOptions at;
  at.global_step = 4;
  ASSERT_OK((*next)->Save(m.session.get(), Path("m"), at).status());
  EXPECT_THAT(Files(),
              ElementsAre("checkpoint", "m-4.data-00000-of-00001", "m-4.index", "m-4.meta"));
  // Without a state file there is nothing to recover from, and that is fine.
  ASSERT_OK((*next)->RecoverFromState(fs, Path("nowhere")));
}

TEST_F(SaverTest, RetentionKeepsOneEveryNHours) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.max_to_keep = 1;
  options.keep_checkpoint_every_n_hours = 1;
  auto saver = Saver::Create(&m.graph, options);
  SaveOptions at;
  for (int64_t step : {1, 2, 3}) {
    at.global_step = step;
    ASSERT_OK((*saver)->Save(m.session.get(), Path("m"), at).status());
  }
  EXPECT_FALSE(Exists("m-2.index"));
  // Two hours later.
  const double later = absl::ToUnixSeconds(absl::Now()) + 7200.0;
  (*saver)->set_last_checkpoints_with_time({{Path("m-3"), later}});
  at.global_step = 4;
  ASSERT_OK((*saver)->Save(m.session.get(), Path("m"), at).status());
  EXPECT_TRUE(Exists("m-3.index"));
  EXPECT_THAT((*saver)->last_checkpoints(), ElementsAre(Path("m-4")));
  EXPECT_EQ(GetCheckpointState(fs, dir)->last_preserved_timestamp(), later);
}

// What the state file says of times goes on in the next run.
TEST_F(SaverTest, KeepingOneEveryNHoursGoesOnInTheNextRun) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.max_to_keep = 1;
  options.keep_checkpoint_every_n_hours = 1;
  SaveOptions at;
  auto first = Saver::Create(&m.graph, options);
  at.global_step = 1;
  ASSERT_OK((*first)->Save(m.session.get(), Path("m"), at).status());
  const double now = absl::ToUnixSeconds(absl::Now());
  const auto state = [&](double saved, double preserved) {
    return UpdateCheckpointState(fs, dir, Path("m-1"), {Path("m-1")}, {saved}, preserved);
  };
  // Kept two hours ago, saved half an hour ago: due, though the files say otherwise.
  ASSERT_OK(state(now - 1800, now - 7200));
  auto second = Saver::Create(&m.graph, options);
  ASSERT_OK((*second)->RecoverFromState(fs, dir));
  at.global_step = 2;
  ASSERT_OK((*second)->Save(m.session.get(), Path("m"), at).status());
  EXPECT_TRUE(Exists("m-1.index"));
  EXPECT_NEAR(GetCheckpointState(fs, dir)->last_preserved_timestamp(), now - 1800, 1e-3);
  // Kept just now: not due.
  ASSERT_OK(state(now - 1800, now - 2000));
  auto third = Saver::Create(&m.graph, options);
  ASSERT_OK((*third)->RecoverFromState(fs, dir));
  at.global_step = 3;
  ASSERT_OK((*third)->Save(m.session.get(), Path("m"), at).status());
  EXPECT_FALSE(Exists("m-1.index"));
  // A clock that went back: nothing is deleted.
  ASSERT_OK(UpdateCheckpointState(fs, dir, Path("m-3"), {Path("m-3")}, {now}, now + 86400));
  auto fourth = Saver::Create(&m.graph, options);
  ASSERT_OK((*fourth)->RecoverFromState(fs, dir));
  at.global_step = 4;
  ASSERT_OK((*fourth)->Save(m.session.get(), Path("m"), at).status());
  EXPECT_TRUE(Exists("m-3.index"));
  EXPECT_THAT((*fourth)->last_checkpoints(), ElementsAre(Path("m-4")));
}

TEST_F(SaverTest, ZeroKeepsAndListsAll) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.max_to_keep = 0;
  auto saver = Saver::Create(&m.graph, options);
  SaveOptions at;
  for (int64_t step = 0; step < 8; ++step) {
    at.global_step = step;
    ASSERT_OK((*saver)->Save(m.session.get(), Path("m"), at).status());
  }
  EXPECT_EQ(GetCheckpointState(fs, dir)->all_model_checkpoint_paths_size(), 8);
  EXPECT_TRUE(Exists("m-0.index"));
}

TEST_F(SaverTest, SavingOverAPrefixAgainAndAgain) {
  Model m;
  auto saver = Saver::Create(&m.graph);
  ASSERT_OK(m.Run("init"));
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK(m.Run("inc_a"));
    ASSERT_OK((*saver)->Save(m.session.get(), Path("m")).status());
    ASSERT_TRUE((*BundleReader::Open(fs, Path("m")))->Verify(nullptr).empty());
    ASSERT_OK((*saver)->Restore(m.session.get(), Path("m")));
    EXPECT_EQ(m.Get("a").data<float>()[0], static_cast<float>(i + 1));
  }
}

TEST_F(SaverTest, LeftoversOfKilledSavesAreClearedAndNothingElse) {
  Model m;
  ASSERT_OK(m.Run("init"));
  for (const char* name :
       {"m-7.data-00000-of-00001", "m-7.meta", "m-9.index.ferry-tmp", "checkpoint.ferry-tmp",
        "m-8.data-00000-of-00002.ferry-tmp",
        // Not ours to remove:
        "other-7.data-00000-of-00001", "m-7-notes.txt", "exported.meta", "m-x.meta", "notes"}) {
    std::ofstream(Path(name)) << "left";
  }
  auto saver = Saver::Create(&m.graph);
  SaveOptions at;
  at.global_step = 10;
  ASSERT_OK((*saver)->Save(m.session.get(), Path("m"), at).status());
  EXPECT_THAT(Files(), ::testing::UnorderedElementsAre(
                           "checkpoint", "m-10.data-00000-of-00001", "m-10.index", "m-10.meta",
                           "other-7.data-00000-of-00001", "m-7-notes.txt", "exported.meta",
                           "m-x.meta", "notes"));
}

TEST_F(SaverTest, Errors) {
  Model m;
  auto saver = Saver::Create(&m.graph);
  auto status = [&](const std::string& prefix, const SaveOptions& options = {}) {
    return (*saver)->Save(m.session.get(), prefix, options).status();
  };
  EXPECT_THAT(std::string(status(Path("m")).message()),
              HasSubstr("Attempting to use uninitialized value a"));
  EXPECT_TRUE(Files().empty());
  ASSERT_OK(m.Run("init"));
  EXPECT_THAT(
      std::string(status(Path("no/such/m")).message()),
      HasSubstr("Parent directory of " + Path("no/such/m") + " doesn't exist, can't save."));
  SaveOptions named;
  named.latest_filename = "m";
  EXPECT_THAT(std::string(status(Path("m"), named).message()),
              HasSubstr("'latest_filename' collides with 'save_path'"));
  named.latest_filename = "a/b";
  EXPECT_THAT(std::string(status(Path("m"), named).message()),
              HasSubstr("must not contain path components"));
  ASSERT_OK(status(Path("m")));

  auto restore = [&](Model* into, const SaverOptions& options, const std::string& prefix) {
    auto s = Saver::Create(&into->graph, options);
    EXPECT_TRUE(s.ok()) << s.status();
    return std::string((*s)->Restore(into->session.get(), prefix).message());
  };
  EXPECT_THAT(restore(&m, {}, Path("nothing")),
              HasSubstr("The passed save_path is not a valid checkpoint: " + Path("nothing")));
  Model wide(4);
  ASSERT_OK(wide.Run("init"));
  EXPECT_THAT(restore(&wide, {}, Path("m")),
              HasSubstr("Assign requires shapes of both tensors to match. lhs shape= [4] rhs "
                        "shape= [3]"));
  EXPECT_EQ(wide.Get("a").num_elements(), 4);
  SaverOptions wrong;
  wrong.var_map = {{"b", m.a}};
  EXPECT_THAT(restore(&m, wrong, Path("m")),
              HasSubstr("tensor_name = b; expected dtype float does not equal original dtype "
                        "int64"));
  wrong.var_map = {{"bb", m.b}};
  EXPECT_THAT(restore(&m, wrong, Path("m")), HasSubstr("Key bb not found in checkpoint"));
  SaverOptions twice;
  twice.var_map = {{"a", m.a}, {"a", m.b}};
  EXPECT_EQ(Saver::Create(&m.graph, twice).status().message(),
            "At least two variables have the same name: a");
  twice.var_map = {{"x", m.a}, {"y", m.a}};
  EXPECT_THAT(std::string(Saver::Create(&m.graph, twice).status().message()),
              HasSubstr("The same saveable will be restored with two names: y"));
  SaveOptions suffix;
  suffix.meta_graph_suffix = "index";
  EXPECT_EQ(status(Path("m"), suffix).code(), absl::StatusCode::kInvalidArgument);
  Graph empty;
  EXPECT_EQ(Saver::Create(&empty).status().message(), "No variables to save");
  SaverOptions allowed;
  allowed.allow_empty = true;
  ASSERT_OK(Saver::Create(&empty, allowed).status());
}

TEST_F(SaverTest, ARestoreThatFailsChangesNothing) {
  Model m(100000);
  ASSERT_OK(m.Run("init"));
  auto saver = Saver::Create(&m.graph);
  ASSERT_OK((*saver)->Save(m.session.get(), Path("m")).status());
  ASSERT_OK(m.Run("inc_a"));
  ASSERT_OK(m.Run("inc_b"));
  // The last byte of the data belongs to the last variable.
  const std::string data = Path("m.data-00000-of-00001");
  std::string bytes = *ReadFile(fs, data);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  std::ofstream(data, std::ios::binary) << bytes;
  const absl::Status status = (*saver)->Restore(m.session.get(), Path("m"));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_EQ(m.Get("a").data<float>()[1], 2);
  EXPECT_EQ(m.Get("b").scalar<int64_t>(), 8);
}

TEST_F(SaverTest, WithoutMemoryForACopyItRestoresInPlace) {
  Model m(1 << 20);
  ASSERT_OK(m.Run("init"));
  auto saver = Saver::Create(&m.graph);
  ASSERT_OK((*saver)->Save(m.session.get(), Path("m")).status());
  ASSERT_OK(m.Run("inc_a"));
  const float* address = m.session->variables()->Find("a")->tensor().data<float>();
  HostAllocator* host = HostAllocator::Get();
  host->set_limit(host->bytes_in_use() + (1 << 20));
  const absl::Status status = (*saver)->Restore(m.session.get(), Path("m"));
  host->set_limit(int64_t{1} << 40);
  ASSERT_OK(status);
  EXPECT_EQ(m.Get("a").data<float>()[1], 1);
  EXPECT_EQ(m.session->variables()->Find("a")->tensor().data<float>(), address);
}

// Each variable then is as it was, or is uninitialised and named; whatever call fails.
TEST_F(SaverTest, ARestoreInPlaceThatFailsNamesWhatIsLost) {
  FaultFileSystem faults;
  Model m(1 << 20);
  SessionOptions options;
  options.file_system = &faults;
  m.session = std::make_unique<Session>(&m.graph, options);
  ASSERT_OK(m.Run("init"));
  auto saver = Saver::Create(&m.graph);
  ASSERT_OK((*saver)->Save(m.session.get(), "/m").status());
  const Tensor other = Tensor::Of<std::string>({"later", "values"});
  ops::Assign(Scope(&m.graph).WithOpName("set_s"), m.s.ref, ops::Const(Scope(&m.graph), other));
  HostAllocator* host = HostAllocator::Get();
  const int64_t limit = host->limit();
  int in_place = 0;
  for (int64_t n = 0;; ++n) {
    ASSERT_LT(n, 1000);
    ASSERT_OK(m.Run("init"));
    ASSERT_OK(m.Run("inc_a"));
    ASSERT_OK(m.Run("set_s"));
    host->set_limit(host->bytes_in_use() + (1 << 20));
    faults.FailCall(n, absl::UnavailableError("no such luck"));
    const absl::Status status = (*saver)->Restore(m.session.get(), "/m");
    faults.StopFailing();
    host->set_limit(limit);
    if (status.ok()) break;
    EXPECT_THAT(std::string(status.message()), HasSubstr("no such luck"));
    EXPECT_EQ(m.Get("s").DebugString(), other.DebugString());
    if (m.session->variables()->Find("a")->initialized()) {
      EXPECT_EQ(m.Get("a").data<float>()[1], 2);
    } else {
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("left these variables uninitialised: a"));
      ++in_place;
    }
  }
  EXPECT_GT(in_place, 0);
  EXPECT_EQ(m.Get("a").data<float>()[1], 1);
  EXPECT_EQ(m.Get("s").data<std::string>()[0], "x");
}

TEST_F(SaverTest, ReshapeRestoresIntoAnotherShape) {
  Model m(6);
  ASSERT_OK(m.Run("init"));
  ASSERT_OK((*Saver::Create(&m.graph))->Save(m.session.get(), Path("m")).status());
  Graph graph;
  Scope root(&graph);
  MakeVariable(root, "a", Tensor::Of<float>(std::vector<float>(6), {2, 3}));
  Session session(&graph);
  SaverOptions options;
  options.reshape = true;
  auto saver = Saver::Create(&graph, options);
  ASSERT_OK((*saver)->Restore(&session, Path("m")));
  std::vector<Tensor> out;
  ASSERT_OK(session.Run({}, {"a"}, {}, &out));
  EXPECT_EQ(out[0].DebugString(), "float32 [2,3] 0 1 2 3 4 5");
}

// Training goes on while saves run; every checkpoint is one moment: all elements of `a` moved on by
// the same number of steps as `b`.
TEST_F(SaverTest, BackgroundSavesAreOneMoment) {
  Model m(50000);
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.max_to_keep = 3;
  auto saver = Saver::Create(&m.graph, options);
  auto step = m.session->MakeCallable({{}, {}, {"inc_a", "inc_b"}});
  ASSERT_OK(step.status());
  int64_t started = 0, skipped = 0;
  for (int64_t i = 0; i < 400; ++i) {
    ASSERT_OK(step->Run({}, nullptr));
    if (i % 20 == 0) {
      SaveOptions at;
      at.global_step = i;
      AsyncSaveOptions async;
      async.when_busy = i % 40 == 0 ? WhenBusy::kWait : WhenBusy::kSkip;
      auto began = (*saver)->SaveAsync(m.session.get(), Path("m"), at, async);
      ASSERT_OK(began.status());
      ++(*began ? started : skipped);
    }
  }
  ASSERT_OK((*saver)->WaitForPending());
  EXPECT_GE(started, 10);
  EXPECT_EQ(started + skipped, 20);
  const std::vector<std::string> paths = (*saver)->last_checkpoints();
  ASSERT_EQ(paths.size(), 3u);
  for (const std::string& path : paths) {
    auto reader = BundleReader::Open(fs, path);
    ASSERT_OK(reader.status());
    const Tensor a = *(*reader)->Read("a"), b = *(*reader)->Read("b");
    const float moved = static_cast<float>(b.scalar<int64_t>() - 7);
    for (int64_t i = 0; i < a.num_elements(); ++i) {
      ASSERT_EQ(a.data<float>()[i], static_cast<float>(i) + moved) << path;
    }
  }
}

TEST_F(SaverTest, ABackgroundSavesErrorIsToldOnce) {
  Model m;
  ASSERT_OK(m.Run("init"));
  auto saver = Saver::Create(&m.graph);
  auto began = (*saver)->SaveAsync(m.session.get(), Path("no/such/dir/m"));
  ASSERT_OK(began.status());
  EXPECT_THAT(std::string((*saver)->WaitForPending().message()), HasSubstr("Parent directory"));
  ASSERT_OK((*saver)->WaitForPending());
  ASSERT_OK((*saver)->SaveAsync(m.session.get(), Path("m")).status());
  ASSERT_OK((*saver)->WaitForPending());
  EXPECT_TRUE(Exists("m.index"));
}

TEST_F(SaverTest, WithoutAThreadThereIsNoBackgroundSave) {
  Model m;
  ASSERT_OK(m.Run("init"));
  auto saver = Saver::Create(&m.graph);
  {
    const NoThreads none;
    const absl::Status status = (*saver)->SaveAsync(m.session.get(), Path("m")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(Path("m")));
    ASSERT_OK((*saver)->Save(m.session.get(), Path("m")).status());
  }
  ASSERT_OK((*saver)->SaveAsync(m.session.get(), Path("m")).status());
  ASSERT_OK((*saver)->WaitForPending());
}

// Variables on two devices, by which a sharded saver splits them, and one on none.
struct Spread {
  Spread() {
    Scope root(&graph);
    const auto on = [&](const char* device) { return root.WithDevice(device); };
    a = MakeVariable(on("/cpu:0"), "a", Tensor::Of<float>({1, 2, 3}));
    b = MakeVariable(on("/cpu:1"), "b", Tensor::Scalar<int64_t>(7));
    c = MakeVariable(on("/device:CPU:0"), "c", Tensor::Of<std::string>({"x", "yy"}));
    d = MakeVariable(root, "d", Tensor::Of<double>({0.5}));
    ops::AssignAdd(root.WithOpName("inc"), b.ref, ops::Const<int64_t>(root, 1));
    GlobalVariablesInitializer(root);
    EXPECT_TRUE(root.ok()) << root.status();
    session = std::make_unique<Session>(&graph);
    EXPECT_TRUE(session->Run({}, {}, {"init"}, nullptr).ok());
  }
  Graph graph;
  VariableHandle a, b, c, d;
  std::unique_ptr<Session> session;
};

TEST_F(SaverTest, ShardedSavesHaveADataFileForEachDevice) {
  Spread m;
  SaverOptions options;
  options.sharded = true;
  auto saver = Saver::Create(&m.graph, options);
  ASSERT_OK(saver.status());
  ASSERT_OK((*saver)->Save(m.session.get(), Path("m")).status());
  EXPECT_THAT(Files(), ElementsAre("checkpoint", "m.data-00000-of-00003", "m.data-00001-of-00003",
                                   "m.data-00002-of-00003", "m.index", "m.meta"));
  auto reader = BundleReader::Open(fs, Path("m"));
  ASSERT_OK(reader.status());
  EXPECT_TRUE((*reader)->Verify(nullptr).empty());
  EXPECT_EQ((*reader)->Find("d")->shard, 0);  // "" comes before "/device:CPU:0".
  EXPECT_EQ((*reader)->Find("a")->shard, 1);
  EXPECT_EQ((*reader)->Find("c")->shard, 1);
  EXPECT_EQ((*reader)->Find("b")->shard, 2);

  // Over the same prefix, and in the background; another number of shards each time.
  for (int i = 1; i <= 3; ++i) {
    ASSERT_OK(m.session->Run({}, {}, {"inc"}, nullptr));
    ASSERT_OK((*saver)->SaveAsync(m.session.get(), Path("m")).status());
    ASSERT_OK((*saver)->WaitForPending());
    EXPECT_EQ(Files().size(), i % 2 == 1 ? 7u : 6u);
    EXPECT_TRUE((*BundleReader::Open(fs, Path("m")))->Verify(nullptr).empty());
    EXPECT_EQ((*BundleReader::Open(fs, Path("m")))->Read("b")->scalar<int64_t>(), 7 + i);
  }

  // The nodes of the .meta do the same.
  Graph graph;
  ImportedMetaGraph imported;
  auto again = ImportMetaGraphFile(fs, Path("m.meta"), {}, &graph, &imported);
  ASSERT_OK(again.status());
  EXPECT_TRUE(imported.saver_def.sharded());
  Session session(&graph);
  const std::string filename = imported.saver_def.filename_tensor_name();
  ASSERT_OK(session.Run({{filename, Tensor::Scalar(Path("m"))}}, {},
                        {imported.saver_def.restore_op_name()}, nullptr));
  std::vector<Tensor> out;
  ASSERT_OK(session.Run({{filename, Tensor::Scalar(Path("nodes"))}},
                        {imported.saver_def.save_tensor_name()}, {}, &out));
  EXPECT_EQ(out[0].scalar<std::string>(), Path("nodes"));
  EXPECT_FALSE(Exists("nodes_temp"));
  EXPECT_EQ(*ReadFile(fs, Path("nodes.data-00001-of-00003")),
            *ReadFile(fs, Path("m.data-00001-of-00004")));
  // As does the saver that the .meta describes, and it retains as a sharded one.
  ASSERT_OK((*again)->Restore(&session, Path("nodes")));
  ASSERT_OK((*again)->Save(&session, Path("third")).status());
  for (const char* file : {".index", ".data-00000-of-00003", ".data-00002-of-00003"}) {
    EXPECT_TRUE(*ReadFile(fs, Path(std::string("nodes") + file)) ==
                *ReadFile(fs, Path(std::string("third") + file)))
        << file;
  }
}

TEST_F(SaverTest, ShardedRetentionDeletesEveryShard) {
  Spread m;
  SaverOptions options;
  options.sharded = true;
  options.max_to_keep = 1;
  auto saver = Saver::Create(&m.graph, options);
  SaveOptions at;
  for (const int64_t step : {1, 2}) {
    at.global_step = step;
    ASSERT_OK((*saver)->Save(m.session.get(), Path("m"), at).status());
  }
  EXPECT_THAT(Files(),
              ElementsAre("checkpoint", "m-2.data-00000-of-00003", "m-2.data-00001-of-00003",
                          "m-2.data-00002-of-00003", "m-2.index", "m-2.meta"));
}

int64_t ResidentKib() {
  std::ifstream status("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  status >> pages >> resident;
  return resident * 4;
}

// Savers that are made again and again share their nodes, in the graph and in what they write.
TEST_F(SaverTest, ManySaversGrowNeitherTheGraphNorMemory) {
  Model m;
  ASSERT_OK(m.Run("init"));
  const char* const wanted = getenv("FERRY_LONG_TESTS");
  const int times = wanted && *wanted ? 10000 : 300;
  // In memory where there is such a file system: ten thousand durable saves are minutes on a disk.
  std::string folder = "/dev/shm/saver-XXXXXX";
  const bool in_memory = mkdtemp(folder.data()) != nullptr;
  if (!in_memory) folder = dir;
  int nodes = 0;
  int64_t resident = 0;
  std::vector<double> seconds;
  for (int i = 0; i < times; ++i) {
    auto saver = Saver::Create(&m.graph);
    ASSERT_OK(saver.status());
    ASSERT_OK((*saver)->as_saver_def().status());
    ASSERT_OK((*saver)->export_meta_graph().status());
    const absl::Time start = absl::Now();
    ASSERT_OK((*saver)->Save(m.session.get(), folder + "/m").status());
    seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
    ASSERT_OK((*saver)->Restore(m.session.get(), folder + "/m"));
    if (i == times / 2) {
      nodes = m.graph.num_nodes();
      resident = ResidentKib();
    }
  }
  if (in_memory) std::filesystem::remove_all(folder);
  EXPECT_EQ(m.graph.num_nodes(), nodes);
  EXPECT_EQ(m.graph.FindNode("save_1/restore_all"), nullptr);
#if !defined(__SANITIZE_ADDRESS__) && !defined(FERRY_TSAN)  // They keep what was freed.
  // Any leak of a graph's copy, a few kB a time, would be far above.
  EXPECT_LT(ResidentKib() - resident, 1024 + times / 2);
#else
  (void)resident;
#endif
  const auto median = [&](size_t from) {
    std::vector<double> part(seconds.begin() + static_cast<int64_t>(from),
                             seconds.begin() + static_cast<int64_t>(from + seconds.size() / 4));
    std::nth_element(part.begin(), part.begin() + static_cast<int64_t>(part.size() / 2),
                     part.end());
    return part[part.size() / 2];
  };
  // What grew with the number of Savers would grow a hundredfold; the machine may be busy.
  EXPECT_LT(median(seconds.size() - seconds.size() / 4), 10 * median(0) + 1e-2);
}

TEST_F(SaverTest, TheStepMayBeAVariable) {
  Model m(20000);
  ASSERT_OK(m.Run("init"));
  auto saver = Saver::Create(&m.graph);
  SaveOptions at;
  at.global_step_variable = m.b;
  EXPECT_EQ(*(*saver)->Save(m.session.get(), Path("m"), at), Path("m-7"));
  // In the background, while training goes on: the name tells the step that was saved.
  std::atomic<bool> stop{false};
  std::thread training([&] {
    while (!stop) ASSERT_OK(m.Run("inc_b"));
  });
  for (int i = 0; i < 10; ++i) {
    ASSERT_OK((*saver)->SaveAsync(m.session.get(), Path("m"), at).status());
    ASSERT_OK((*saver)->WaitForPending());
    const std::string path = (*saver)->last_checkpoints().back();
    EXPECT_EQ(
        path,
        Path("m-" + std::to_string(
                        (*CheckpointReader::Open(fs, path))->GetTensor("b")->scalar<int64_t>())));
  }
  stop = true;
  training.join();
  at.global_step_variable = m.a;
  EXPECT_EQ((*saver)->Save(m.session.get(), Path("m"), at).status().code(),
            absl::StatusCode::kInvalidArgument);
  at.global_step_variable = m.b;
  at.global_step = 3;
  EXPECT_EQ((*saver)->Save(m.session.get(), Path("m"), at).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(SaverTest, BuildingMayBeDeferred) {
  Graph graph;
  SaverOptions options;
  options.defer_build = true;
  auto saver = Saver::Create(&graph, options);
  ASSERT_OK(saver.status());
  Scope root(&graph);
  MakeVariable(root, "late", Tensor::Scalar<float>(1));
  GlobalVariablesInitializer(root);
  Session session(&graph);
  ASSERT_OK(session.Run({}, {}, {"init"}, nullptr));
  for (const absl::Status& status :
       {(*saver)->Save(&session, Path("m")).status(), (*saver)->Restore(&session, Path("m")),
        (*saver)->SaveAsync(&session, Path("m")).status(), (*saver)->as_saver_def().status(),
        (*saver)->export_meta_graph().status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("`build()` should be called before save"));
  }
  ASSERT_OK((*saver)->Build());
  ASSERT_OK((*saver)->Build());
  ASSERT_OK((*saver)->Save(&session, Path("m")).status());
  EXPECT_EQ((*CheckpointReader::Open(fs, Path("m")))->DebugString(), "late (DT_FLOAT) []\n");
  options.var_list = *GlobalVariables(graph);
  EXPECT_THAT(std::string(Saver::Create(&graph, options).status().message()),
              HasSubstr("If `var_list` is provided then build cannot be deferred"));
  options = {};
  options.write_version = proto::SaverDef::V1;
  const absl::Status old = Saver::Create(&graph, options).status();
  EXPECT_EQ(old.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(old.message()), HasSubstr("in the V2 format only"));
}

TEST_F(SaverTest, WithoutVariablesTheMetaGraphIsSaved) {
  Graph graph;
  ops::Const<float>(Scope(&graph).WithOpName("c"), 1);
  Session session(&graph);
  SaverOptions options;
  options.allow_empty = true;
  auto saver = Saver::Create(&graph, options);
  ASSERT_OK(saver.status());
  EXPECT_EQ(*(*saver)->Save(&session, Path("m")), "");
  EXPECT_THAT(Files(), ElementsAre("m.meta"));
  ASSERT_OK((*saver)->Restore(&session, Path("anything")));
  Graph again;
  auto none = ImportMetaGraphFile(fs, Path("m.meta"), {}, &again);
  ASSERT_OK(none.status());
  EXPECT_EQ(*none, nullptr);
  EXPECT_NE(again.FindNode("c"), nullptr);
}

TEST_F(SaverTest, TheFilenameIsTheDefaultOfTheNodes) {
  Model m;
  SaverOptions options;
  options.filename = "here";
  options.restore_sequentially = true;
  auto saver = Saver::Create(&m.graph, options);
  ASSERT_OK((*saver)->as_saver_def().status());
  std::vector<Tensor> out;
  ASSERT_OK(m.session->Run({}, {"save/Const:0"}, {}, &out));
  EXPECT_EQ(out[0].scalar<std::string>(), "here");
  ASSERT_OK(m.Run("init"));
  ASSERT_OK((*saver)->Save(m.session.get(), Path("m")).status());
  ASSERT_OK(m.Run("inc_a"));
  ASSERT_OK((*saver)->Restore(m.session.get(), Path("m")));
  EXPECT_EQ(m.Get("a").DebugString(), "float32 [3] 0 1 2");
}

TEST_F(SaverTest, KeepsTheBestBesideTheNewest) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.max_to_keep = 2;
  options.keep_best = 2;
  auto saver = Saver::Create(&m.graph, options);
  const auto save = [&](Saver* with, int64_t step, std::optional<double> metric) {
    SaveOptions at;
    at.global_step = step;
    at.metric = metric;
    ASSERT_OK(with->Save(m.session.get(), Path("m"), at).status());
  };
  save(saver->get(), 1, 0.5);
  save(saver->get(), 2, 0.9);
  save(saver->get(), 3, std::nan(""));
  save(saver->get(), 4, 0.7);
  save(saver->get(), 5, 0.1);
  save(saver->get(), 6, std::nullopt);
  EXPECT_THAT((*saver)->last_checkpoints(),
              ElementsAre(Path("m-2"), Path("m-4"), Path("m-5"), Path("m-6")));
  EXPECT_THAT((*saver)->best_checkpoints(),
              ElementsAre(std::make_pair(Path("m-2"), 0.9), std::make_pair(Path("m-4"), 0.7),
                          std::make_pair(Path("m-5"), 0.1)));
  EXPECT_FALSE(Exists("m-1.index"));
  EXPECT_FALSE(Exists("m-3.index"));
  EXPECT_EQ(GetCheckpointState(fs, dir)->all_model_checkpoint_paths_size(), 4);

  // A run that goes on knows the metrics; what stops being one of the best goes.
  auto next = Saver::Create(&m.graph, options);
  ASSERT_OK((*next)->RecoverFromState(fs, dir));
  EXPECT_EQ((*next)->best_checkpoints(), (*saver)->best_checkpoints());
  save(next->get(), 7, 0.8);
  EXPECT_FALSE(Exists("m-4.index"));
  EXPECT_THAT((*next)->last_checkpoints(), ElementsAre(Path("m-2"), Path("m-6"), Path("m-7")));

  // The other way round, of a loss; saved again, a checkpoint has its new metric.
  options.lower_is_better = true;
  options.keep_best = 1;
  options.max_to_keep = 1;
  auto lower = Saver::Create(&m.graph, options);
  ASSERT_OK((*lower)->RecoverFromState(fs, dir));
  save(lower->get(), 2, 0.2);
  save(lower->get(), 8, 3.0);
  EXPECT_THAT((*lower)->last_checkpoints(), ElementsAre(Path("m-2"), Path("m-8")));
}

TEST_F(SaverTest, ProtectedCheckpointsStay) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.max_to_keep = 1;
  options.save_relative_paths = true;
  auto saver = Saver::Create(&m.graph, options);
  const auto save = [&](Saver* with, int64_t step) {
    SaveOptions at;
    at.global_step = step;
    ASSERT_OK(with->Save(m.session.get(), Path("m"), at).status());
  };
  save(saver->get(), 1);
  (*saver)->Protect(Path("m-1"));
  save(saver->get(), 2);
  save(saver->get(), 3);
  EXPECT_THAT((*saver)->last_checkpoints(), ElementsAre(Path("m-1"), Path("m-3")));
  EXPECT_FALSE(Exists("m-2.index"));
  auto next = Saver::Create(&m.graph, options);
  ASSERT_OK((*next)->RecoverFromState(fs, dir));
  save(next->get(), 4);
  EXPECT_TRUE(Exists("m-1.index"));
  (*next)->Unprotect(Path("m-1"));
  save(next->get(), 5);
  EXPECT_THAT((*next)->last_checkpoints(), ElementsAre(Path("m-5")));
  EXPECT_FALSE(Exists("m-1.index"));
}

// The state file's absolute paths are those of the old place.
TEST_F(SaverTest, ADirectoryMayBeMoved) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.max_to_keep = 2;
  options.keep_best = 1;
  auto saver = Saver::Create(&m.graph, options);
  for (const int64_t step : {1, 2, 3}) {
    SaveOptions at;
    at.global_step = step;
    at.metric = 1.0 / static_cast<double>(step);
    ASSERT_OK((*saver)->Save(m.session.get(), Path("old/m"), at).status());
  }
  ASSERT_EQ(rename(Path("old").c_str(), Path("new").c_str()), 0);
  EXPECT_EQ(*LatestCheckpoint(fs, Path("new")), Path("new/m-3"));
  auto next = Saver::Create(&m.graph, options);
  ASSERT_OK((*next)->Restore(m.session.get(), *LatestCheckpoint(fs, Path("new"))));
  ASSERT_OK((*next)->RecoverFromState(fs, Path("new")));
  EXPECT_THAT((*next)->last_checkpoints(),
              ElementsAre(Path("new/m-1"), Path("new/m-2"), Path("new/m-3")));
  EXPECT_EQ((*next)->best_checkpoints()[0].first, Path("new/m-1"));
  SaveOptions at;
  at.global_step = 4;
  ASSERT_OK((*next)->Save(m.session.get(), Path("new/m"), at).status());
  EXPECT_FALSE(Exists("new/m-2.index"));
}

TEST_F(SaverTest, StepNumbersCanBePaddedAndPathsRelative) {
  Model m;
  ASSERT_OK(m.Run("init"));
  SaverOptions options;
  options.pad_step_number = true;
  options.save_relative_paths = true;
  auto saver = Saver::Create(&m.graph, options);
  SaveOptions at;
  at.global_step = 12;
  auto path = (*saver)->Save(m.session.get(), Path("m"), at);
  ASSERT_OK(path.status());
  EXPECT_EQ(*path, Path("m-00000012"));
  EXPECT_THAT(*ReadFile(fs, Path("checkpoint")),
              HasSubstr("model_checkpoint_path: \"m-00000012\""));
  EXPECT_EQ(*LatestCheckpoint(fs, dir), *path);
}

}  // namespace
}  // namespace ferry
