// Tests SaveV2, RestoreV2, MergeV2Checkpoints and ShardedFilename as graphs use them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/scope.h"
#include "runtime/session/session.h"
#include "saver/bundle_reader.h"
#include "saver/bundle_writer.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SaverOps : public ::testing::Test {
 protected:
  SaverOps()
      : root_(&graph_),
        prefix_(
            ops::Placeholder(root_.WithOpName("prefix"), DType::kString, PartialShape::Scalar())) {}

  Output Strings(const std::vector<std::string>& values) {
    return ops::ConstVector<std::string>(root_, values);
  }
  Node* Save(const std::vector<std::string>& names, const std::vector<std::string>& slices,
             const std::vector<Output>& tensors) {
    return NodeBuilder(root_, "SaveV2")
        .Input(prefix_)
        .Input(Strings(names))
        .Input(Strings(slices))
        .Input(tensors)
        .Build();
  }
  Node* Restore(const std::vector<std::string>& names, const std::vector<std::string>& slices,
                const std::vector<DType>& dtypes) {
    return NodeBuilder(root_, "RestoreV2")
        .Input(prefix_)
        .Input(Strings(names))
        .Input(Strings(slices))
        .Attr("dtypes", dtypes)
        .Build();
  }
  Output Variable(const std::string& name, const Tensor& value) {
    const Output ref = ops::VariableV2(root_.WithOpName(name), value.shape(), value.dtype());
    init_.push_back(ops::Assign(root_, ref, ops::Const(root_, value)).node);
    return ref;
  }
  Session* session() {
    EXPECT_TRUE(root_.status().ok()) << root_.status();
    if (!session_) {
      SessionOptions options;
      options.file_system = &fs_;
      options.threads = 2;
      session_ = std::make_unique<Session>(&graph_, options);
      if (!init_.empty()) {
        const absl::Status status =
            session_->Run(std::vector<std::pair<Output, Tensor>>{}, {}, init_, nullptr);
        EXPECT_TRUE(status.ok()) << status;
      }
    }
    return session_.get();
  }
  absl::Status Run(const std::string& prefix, const std::vector<Output>& fetches,
                   const std::vector<Node*>& targets, std::vector<Tensor>* out = nullptr) {
    return session()->Run(
        std::vector<std::pair<Output, Tensor>>{{prefix_, Tensor::Scalar<std::string>(prefix)}},
        fetches, targets, out);
  }

  FaultFileSystem fs_;
  Graph graph_;
  Scope root_;
  Output prefix_;
  std::vector<Node*> init_;
  std::unique_ptr<Session> session_;
};

TEST_F(SaverOps, SavesAndRestoresInTheGivenOrder) {
  const Output w = Variable("w", Tensor::Of<float>({1, 2, 3, 4, 5, 6}, {2, 3}));
  const Output s = Variable("s", Tensor::Of<std::string>({"a", std::string(1000, 'b')}));
  const Output c = ops::Const(root_, Tensor::Scalar<int64_t>(42));
  Node* save = Save({"z/w", "s", "c"}, {"", "", ""}, {w, s, c});
  Node* restore =
      Restore({"c", "s", "z/w"}, {"", "", ""}, {DType::kInt64, DType::kString, DType::kFloat});
  absl::Status status = Run("/m/ckpt", {}, {save});
  ASSERT_TRUE(status.ok()) << status;
  std::vector<Tensor> out;
  status = Run("/m/ckpt", {restore->output(0), restore->output(1), restore->output(2)}, {}, &out);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(out[0].scalar<int64_t>(), 42);
  EXPECT_THAT(out[1].span<std::string>(), ElementsAre("a", std::string(1000, 'b')));
  EXPECT_THAT(out[2].span<float>(), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(out[2].shape(), (TensorShape{2, 3}));
  const auto reader = BundleReader::Open(&fs_, "/m/ckpt");
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ((*reader)->Find("z/w")->offset, 0u) << "as TensorFlow: in the order given";
}

TEST_F(SaverOps, RestoresThroughAssign) {
  const Output w = Variable("w", Tensor::Of<float>({1, 2}));
  Node* save = Save({"w"}, {""}, {w});
  Node* change = ops::AssignAdd(root_, w, ops::Const(root_, Tensor::Of<float>({10, 10}))).node;
  Node* restore = ops::Assign(root_, w, Restore({"w"}, {""}, {DType::kFloat})->output(0)).node;
  std::vector<Tensor> out;
  ASSERT_TRUE(Run("/ckpt", {}, {save}).ok());
  ASSERT_TRUE(Run("/ckpt", {}, {change}).ok());
  ASSERT_TRUE(Run("/ckpt", {w}, {}, &out).ok());
  EXPECT_THAT(out[0].span<float>(), ElementsAre(11, 12));
  ASSERT_TRUE(Run("/ckpt", {}, {restore}).ok());
  ASSERT_TRUE(Run("/ckpt", {w}, {}, &out).ok());
  EXPECT_THAT(out[0].span<float>(), ElementsAre(1, 2));
}

TEST_F(SaverOps, RestoringAssignsTakeEffectTogetherOrNotAtAll) {
  const Output a = Variable("a", Tensor::Of<float>({1, 2}));
  const Output b = Variable("b", Tensor::Of<float>({3, 4, 5}));
  const Output s = Variable("s", Tensor::Of<std::string>({"old"}));
  const Output never = ops::VariableV2(root_.WithOpName("never"), {2}, DType::kFloat);
  Node* save_good = Save({"a", "b", "s", "never"}, {"", "", "", ""},
                         {ops::Const(root_, Tensor::Of<float>({10, 20})),
                          ops::Const(root_, Tensor::Of<float>({30, 40, 50})),
                          ops::Const(root_, Tensor::Of<std::string>({"new"})),
                          ops::Const(root_, Tensor::Of<float>({70, 80}))});
  Node* save_bad = Save({"a", "b", "s", "never"}, {"", "", "", ""},
                        {ops::Const(root_, Tensor::Of<float>({10, 20})),
                         ops::Const(root_, Tensor::Of<float>({30, 40})),  // b has 3.
                         ops::Const(root_, Tensor::Of<std::string>({"new"})),
                         ops::Const(root_, Tensor::Of<float>({70, 80}))});
  // One node for all, and one for each after the last's Assign, as restore_sequentially has it.
  Node* all = Restore({"a", "s", "never", "b"}, {"", "", "", ""},
                      {DType::kFloat, DType::kString, DType::kFloat, DType::kFloat});
  std::vector<Node*> together, sequential;
  const std::vector<Output> refs = {a, s, never, b};
  for (int i = 0; i < 4; ++i) {
    together.push_back(ops::Assign(root_, refs[static_cast<size_t>(i)], all->output(i)).node);
  }
  for (const Output& ref : refs) {
    const Scope after =
        sequential.empty() ? root_ : root_.WithControlDependencies({sequential.back()});
    Node* one = NodeBuilder(after, "RestoreV2")
                    .Input(prefix_)
                    .Input(ops::ConstVector<std::string>(after, {ref.node->name()}))
                    .Input(ops::ConstVector<std::string>(after, {""}))
                    .Attr("dtypes", std::vector<DType>{BaseType(ref.dtype())})
                    .Build();
    sequential.push_back(ops::Assign(root_, ref, ops::Identity(root_, one->output(0))).node);
  }
  ASSERT_TRUE(Run("/good", {}, {save_good}).ok());
  ASSERT_TRUE(Run("/bad", {}, {save_bad}).ok());
  for (const std::vector<Node*>& assigns : {together, sequential}) {
    Node* restore = ops::NoOp(root_.WithControlDependencies(assigns));
    const absl::Status failed = Run("/bad", {}, {restore});
    EXPECT_TRUE(absl::IsInvalidArgument(failed)) << failed;
    EXPECT_THAT(std::string(failed.message()),
                HasSubstr("Assign requires shapes of both tensors to match. lhs shape= [3] rhs "
                          "shape= [2] (variable 'b')"));
    EXPECT_THAT(std::string(failed.message()), HasSubstr(assigns[3]->name()));
    std::vector<Tensor> out;
    ASSERT_TRUE(Run("", {a, b, s}, {}, &out).ok());
    EXPECT_THAT(out[0].span<float>(), ElementsAre(1, 2));
    EXPECT_THAT(out[1].span<float>(), ElementsAre(3, 4, 5));
    EXPECT_THAT(out[2].span<std::string>(), ElementsAre("old"));
    EXPECT_FALSE(session()->variables()->Find("never")->initialized());

    ASSERT_TRUE(Run("/good", {}, {restore}).ok());
    ASSERT_TRUE(Run("", {a, b, s, never}, {}, &out).ok());
    EXPECT_THAT(out[0].span<float>(), ElementsAre(10, 20));
    EXPECT_THAT(out[1].span<float>(), ElementsAre(30, 40, 50));
    EXPECT_THAT(out[2].span<std::string>(), ElementsAre("new"));
    EXPECT_THAT(out[3].span<float>(), ElementsAre(70, 80));
    session_.reset();  // All as at first.
  }
}

TEST_F(SaverOps, WhatFollowsARestoringAssignComesAfterIt) {
  const Output a = Variable("a", Tensor::Of<float>({1, 2}));
  const Output b = Variable("b", Tensor::Of<float>({3, 4}));
  const Output next = Variable("next", Tensor::Of<std::string>({"?"}));
  Node* save = Save({"a", "b", "next"}, {"", "", ""}, {a, b, next});
  Node* change = ops::Group(
      root_.WithOpName("change"),
      {ops::Assign(root_, a, ops::Const(root_, Tensor::Of<float>({10, 20}))).node,
       ops::Assign(root_, b, ops::Const(root_, Tensor::Of<float>({30, 40}))).node,
       ops::Assign(root_, next, ops::Const(root_, Tensor::Of<std::string>({"/two"}))).node});
  Node* restore = Restore({"a", "next"}, {"", ""}, {DType::kFloat, DType::kString});
  Node* assign_a = ops::Assign(root_, a, restore->output(0)).node;
  Node* assign_next = ops::Assign(root_, next, restore->output(1)).node;
  const Scope after = root_.WithControlDependencies({assign_a, assign_next});
  // It aliases the variable, as in TensorFlow, and so sees what is assigned.
  const Output sum = ops::AddV2(after, ops::Identity(root_, a), ops::Const(root_, 1.0f));
  // A second checkpoint, which the first one names.
  Node* second = NodeBuilder(root_, "RestoreV2")
                     .Input(ops::Reshape(root_, ops::Identity(after, next),
                                         ops::ConstVector<int32_t>(root_, {})))
                     .Input(Strings({"b"}))
                     .Input(Strings({""}))
                     .Attr("dtypes", std::vector<DType>{DType::kFloat})
                     .Build();
  const Output assign_b = ops::Assign(root_, b, second->output(0));
  // A use beside the Assign: an ordinary tensor.
  Node* shared = Restore({"a"}, {""}, {DType::kFloat});
  Node* assign_shared = ops::Assign(root_, a, shared->output(0)).node;

  ASSERT_TRUE(Run("/two", {}, {save}).ok());
  ASSERT_TRUE(Run("", {}, {change}).ok());
  ASSERT_TRUE(Run("/one", {}, {save}).ok());
  ASSERT_TRUE(Run("", {}, init_).ok());
  std::vector<Tensor> out;
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = Run("/one", {sum, assign_b, a}, {}, &out);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_THAT(out[0].span<float>(), ElementsAre(11, 21));
    EXPECT_THAT(out[1].span<float>(), ElementsAre(3, 4)) << "of the second checkpoint";
    EXPECT_THAT(out[2].span<float>(), ElementsAre(10, 20));
    ASSERT_TRUE(Run("", {}, {change}).ok());
  }
  ASSERT_TRUE(Run("/two", {shared->output(0)}, {assign_shared}, &out).ok());
  EXPECT_THAT(out[0].span<float>(), ElementsAre(1, 2));
  ASSERT_TRUE(Run("", {a}, {}, &out).ok());
  EXPECT_THAT(out[0].span<float>(), ElementsAre(1, 2));
}

TEST_F(SaverOps, Slices) {
  const Output top = ops::Const(root_, Tensor::Of<int32_t>({0, 1, 2, 3}, {2, 2}));
  const Output bottom = ops::Const(root_, Tensor::Of<int32_t>({4, 5}, {1, 2}));
  Node* save = Save({"t", "t", "u"}, {"3 2 0,2:-", "3 2 2,1:-", ""}, {top, bottom, bottom});
  Node* restore = Restore({"t", "t", "u"}, {"", "3 2 1,2:1,1", "1 2 -:0,1"},
                          {DType::kInt32, DType::kInt32, DType::kInt32});
  ASSERT_TRUE(root_.status().ok()) << root_.status();
  EXPECT_EQ(restore->output_shape(1), (PartialShape{2, 1}));
  EXPECT_EQ(restore->output_shape(2), (PartialShape{1, 1}));
  EXPECT_FALSE(restore->output_shape(0).known_rank());
  ASSERT_TRUE(Run("/ckpt", {}, {save}).ok());
  std::vector<Tensor> out;
  const absl::Status status =
      Run("/ckpt", {restore->output(0), restore->output(1), restore->output(2)}, {}, &out);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(out[0].span<int32_t>(), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(out[1].span<int32_t>(), ElementsAre(3, 5));
  EXPECT_THAT(out[2].span<int32_t>(), ElementsAre(4));
}

TEST_F(SaverOps, ShardedSaveAsTensorFlowsGraphsDoIt) {
  const Output a = Variable("a", Tensor::Of<float>({1, 2}));
  const Output b = Variable("b", Tensor::Of<float>({3}));
  const Output temporary = NodeBuilder(root_, "StringJoin")
                               .Input({prefix_, ops::Const(root_, "_temp/part")})
                               .BuildOutput();
  std::vector<Node*> saves;
  std::vector<Output> names;
  int shard = 0;
  for (const Output& v : {a, b}) {
    const Output name = NodeBuilder(root_, "ShardedFilename")
                            .Input(temporary)
                            .Input(ops::Const(root_, int32_t{shard}))
                            .Input(ops::Const(root_, int32_t{2}))
                            .BuildOutput();
    saves.push_back(NodeBuilder(root_, "SaveV2")
                        .Input(name)
                        .Input(Strings({v.node->name()}))
                        .Input(Strings({""}))
                        .Input(std::vector<Output>{v})
                        .Build());
    names.push_back(name);
    ++shard;
  }
  Node* merge = NodeBuilder(root_.WithControlDependencies(saves), "MergeV2Checkpoints")
                    .Input(ops::Pack(root_, names))
                    .Input(prefix_)
                    .Build();
  std::vector<Tensor> out;
  absl::Status status = Run("/m", {names[1]}, {}, &out);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(out[0].scalar<std::string>(), "/m_temp/part-00001-of-00002");
  status = Run("/m", {}, {merge});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(*fs_.List("/"),
              ElementsAre("m.data-00000-of-00002", "m.data-00001-of-00002", "m.index"));
  const auto reader = BundleReader::Open(&fs_, "/m");
  EXPECT_TRUE((*reader)->Verify(nullptr).empty());
  EXPECT_THAT((*reader)->Read("b")->span<float>(), ElementsAre(3));
}

TEST_F(SaverOps, ErrorsAreWordedAsTensorFlowWordsThem) {
  const Output w = Variable("v", Tensor::Of<float>({1, 2}));
  const Output never = ops::VariableV2(root_.WithOpName("never"), {2}, DType::kFloat);
  Node* save = Save({"v"}, {""}, {w});
  Node* save_never = Save({"v", "never"}, {"", ""}, {w, never});
  Node* bad_slice = Save({"v"}, {"5 0,3"}, {w});
  Node* missing = Restore({"w"}, {""}, {DType::kFloat});
  Node* other_type = Restore({"v"}, {""}, {DType::kInt32});
  Node* other_shape = Restore({"v"}, {"3 0,1"}, {DType::kFloat});
  const auto words = [&](const absl::Status& status, absl::StatusCode code) {
    EXPECT_EQ(status.code(), code) << status;
    return std::string(status.message());
  };
  ASSERT_TRUE(Run("/ckpt", {}, {save}).ok());
  EXPECT_THAT(words(Run("/ckpt", {}, {save_never}), absl::StatusCode::kFailedPrecondition),
              HasSubstr("Attempting to use uninitialized value never"));
  EXPECT_THAT(words(Run("/ckpt", {}, {bad_slice}), absl::StatusCode::kInvalidArgument),
              HasSubstr("does not match the shape of the tensor to save"));
  EXPECT_THAT(words(Run("/ckpt", {}, {missing}), absl::StatusCode::kNotFound),
              HasSubstr("Key w not found in checkpoint"));
  EXPECT_THAT(words(Run("/ckpt", {}, {other_type}), absl::StatusCode::kInvalidArgument),
              HasSubstr("tensor_name = v; expected dtype int32 does not equal original dtype "
                        "float"));
  EXPECT_THAT(words(Run("/ckpt", {}, {other_shape}), absl::StatusCode::kInvalidArgument),
              HasSubstr("does not match the shape stored in checkpoint: [2]"));
  EXPECT_THAT(words(Run("/none", {}, {missing}), absl::StatusCode::kInvalidArgument),
              HasSubstr("The passed save_path is not a valid checkpoint: /none"));
  EXPECT_THAT(words(Run("/no/such/ckpt", {}, {save}), absl::StatusCode::kNotFound),
              HasSubstr("Parent directory of /no/such/ckpt doesn't exist, can't save."));
  // What was there still is.
  EXPECT_TRUE((*BundleReader::Open(&fs_, "/ckpt"))->Verify(nullptr).empty());

  // Numbers of names that don't fit are seen while the graph is built.
  EXPECT_EQ(Save({"a", "b"}, {""}, {w}), nullptr);
  EXPECT_TRUE(absl::IsInvalidArgument(root_.status())) << root_.status();
}

// Each saved variable is whole though another thread's Runs change it meanwhile.
TEST_F(SaverOps, SavedVariablesAreNotTorn) {
  constexpr int64_t kSize = 1 << 16;
  const Tensor zeros = Tensor::Of<float>(std::vector<float>(kSize, 0));
  const Output w = Variable("w", zeros);
  Node* save = Save({"w"}, {""}, {w});
  Node* step =
      ops::AssignAdd(root_, w, ops::Const(root_, Tensor::Of<float>(std::vector<float>(kSize, 1))))
          .node;
  session();
  std::atomic<bool> stop{false};
  std::thread trainer([&] {
    while (!stop) {
      EXPECT_TRUE(
          session()->Run(std::vector<std::pair<Output, Tensor>>{}, {}, {step}, nullptr).ok());
    }
  });
  for (int i = 0; i < 10; ++i) {
    const absl::Status status = Run("/ckpt", {}, {save});
    EXPECT_TRUE(status.ok()) << status;
    const auto reader = BundleReader::Open(&fs_, "/ckpt");
    const auto t = (*reader)->Read("w");
    ASSERT_TRUE(t.ok()) << t.status();
    for (const float x : t->span<float>()) ASSERT_EQ(x, t->span<float>()[0]);
  }
  stop = true;
  trainer.join();
}

// A sharded Saver asks so whether its files lie in a store without directories.
TEST_F(SaverOps, RegexFullMatch) {
  const Output in = Strings({"s3://bucket/m", "/tmp/s3://", "", "s3://\xff"});
  const Output fixed = NodeBuilder(root_, "StaticRegexFullMatch")
                           .Input(in)
                           .Attr("pattern", std::string("^s3://[a-z/]*"))
                           .BuildOutput();
  const Output pattern = ops::Placeholder(root_, DType::kString, PartialShape::Scalar());
  const Output given = NodeBuilder(root_, "RegexFullMatch").Input(in).Input(pattern).BuildOutput();
  std::vector<Tensor> out;
  const auto run = [&](const std::string& text) {
    return session()->Run(
        std::vector<std::pair<Output, Tensor>>{{pattern, Tensor::Scalar<std::string>(text)}},
        {fixed, given}, std::vector<Node*>{}, &out);
  };
  ASSERT_TRUE(run(".*s3.*").ok());
  EXPECT_THAT(out[0].span<bool>(), ElementsAre(true, false, false, false));
  EXPECT_THAT(out[1].span<bool>(), ElementsAre(true, true, false, false));
  EXPECT_THAT(std::string(run("(").message()), HasSubstr("Invalid pattern: ("));
}

}  // namespace
}  // namespace ferry
