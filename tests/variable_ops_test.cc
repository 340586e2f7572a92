// Reference variables: assignment in its forms, sharing, updates of rows, errors, concurrent runs.
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/types.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

class VariableOpsTest : public ::testing::Test {
 protected:
  absl::Status RunOp(Node* n, std::vector<Tensor>* out = nullptr) {
    if (!root.ok()) return root.status();
    std::vector<Tensor> ignored;
    if (out) return session.Run({}, {Output(n, 0)}, {}, out);
    return session.Run(std::vector<std::pair<Output, Tensor>>(), {}, {n}, &ignored);
  }
  absl::StatusOr<Tensor> Fetch(Output o) {
    if (!root.ok()) return root.status();
    std::vector<Tensor> out;
    absl::Status s = session.Run({}, {o}, {}, &out);
    if (!s.ok()) return s;
    return out[0];
  }
  Node* Scatter(const char* op, Output ref, const Tensor& indices, const Tensor& updates) {
    return NodeBuilder(root, op)
        .Input(ref)
        .Input(ops::Const(root, indices))
        .Input(ops::Const(root, updates))
        .Build();
  }
  Graph graph;
  Scope root{&graph};
  Session session{&graph};
};

template <typename T>
std::vector<T> Values(const Tensor& t) {
  return {t.span<T>().begin(), t.span<T>().end()};
}

TEST_F(VariableOpsTest, AssignsAndUpdates) {
  Output v = ops::VariableV2(root, {3}, DType::kFloat);
  Output init = ops::Assign(root, v, ops::Const(root, Tensor::Of<float>({1, 2, 3})));
  Output add = ops::AssignAdd(root, v, ops::Const(root, Tensor::Of<float>({10, 20, 30})));
  Output sub = ops::AssignSub(root, v, ops::Const(root, Tensor::Of<float>({1, 1, 1})));
  Output is_set = ops::IsVariableInitialized(root, v);
  Output read = ops::Identity(root, v);

  absl::StatusOr<Tensor> t = Fetch(is_set);
  ASSERT_TRUE(t.ok()) << t.status();
  EXPECT_FALSE(t->scalar<bool>());
  EXPECT_EQ(Fetch(read).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(RunOp(add.node).code(), absl::StatusCode::kFailedPrecondition);

  // What an update returns is the variable after it.
  EXPECT_EQ(Values<float>(Fetch(init).value()), (std::vector<float>{1, 2, 3}));
  EXPECT_TRUE(Fetch(is_set)->scalar<bool>());
  EXPECT_EQ(Values<float>(Fetch(add).value()), (std::vector<float>{11, 22, 33}));
  EXPECT_EQ(Values<float>(Fetch(sub).value()), (std::vector<float>{10, 21, 32}));
  EXPECT_EQ(Values<float>(Fetch(read).value()), (std::vector<float>{10, 21, 32}));
  // A new assignment keeps the memory.
  const void* before = session.variables()->All()[0]->tensor().raw();
  ASSERT_TRUE(RunOp(init.node).ok());
  EXPECT_EQ(session.variables()->All()[0]->tensor().raw(), before);
  EXPECT_EQ(Values<float>(Fetch(read).value()), (std::vector<float>{1, 2, 3}));
}

TEST_F(VariableOpsTest, AssigningToItselfKeepsTheContents) {
  Output v = ops::VariableV2(root, {2}, DType::kString);
  ASSERT_TRUE(
      RunOp(ops::Assign(root, v, ops::Const(root, Tensor::Of<std::string>({"a", "b"}))).node).ok());
  Output same = ops::Assign(root, v, ops::Identity(root, v));
  EXPECT_EQ(Values<std::string>(Fetch(same).value()), (std::vector<std::string>{"a", "b"}));
}

TEST_F(VariableOpsTest, ShapesMustMatch) {
  Output two = ops::Const(root, Tensor::Of<float>({1, 2}));
  Output three = ops::Const(root, Tensor::Of<float>({1, 2, 3}));
  Output fed = ops::Placeholder(root, DType::kFloat);
  Output v = ops::VariableV2(root, {3}, DType::kFloat);
  Output assign = ops::Assign(root, v, fed);
  ASSERT_TRUE(root.ok()) << root.status();
  std::vector<Tensor> out;
  // Before and after it has contents.
  for (int i = 0; i < 2; ++i) {
    absl::Status s = session.Run({{fed, Tensor::Of<float>({1, 2})}}, {assign}, {}, &out);
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(s.message()), HasSubstr("Assign requires shapes of both tensors to "
                                                    "match. lhs shape= [3] rhs shape= [2]"));
    EXPECT_EQ(session.variables()->All()[0]->initialized(), i == 1);
    ASSERT_TRUE(session.Run({{fed, Tensor::Of<float>({1, 2, 3})}}, {assign}, {}, &out).ok());
  }
  Output add = ops::AssignAdd(root, v, fed);
  absl::Status s = session.Run({{fed, Tensor::Of<float>({1, 2})}}, {add}, {}, &out);
  EXPECT_THAT(std::string(s.message()), HasSubstr("must be the same size"));

  // Statically known shapes are checked while the graph is built.
  Scope apart(&graph);
  ops::Assign(apart, v, two);
  EXPECT_EQ(apart.status().code(), absl::StatusCode::kInvalidArgument);

  // Without validate_shape anything goes, and the shape changes.
  Output w = ops::VariableV2(root, PartialShape(), DType::kFloat);
  ASSERT_TRUE(RunOp(ops::Assign(root, w, two, /*validate_shape=*/false).node).ok());
  ASSERT_TRUE(RunOp(ops::Assign(root, w, three, /*validate_shape=*/false).node).ok());
  EXPECT_EQ(Values<float>(Fetch(ops::Identity(root, w)).value()), (std::vector<float>{1, 2, 3}));
}

TEST_F(VariableOpsTest, NamesAndSharing) {
  Output a = ops::VariableV2(root.WithOpName("a"), {1}, DType::kInt32, "shared");
  Output b = ops::VariableV2(root.WithOpName("b"), {1}, DType::kInt32, "shared");
  Output other = ops::VariableV2(root.WithOpName("shared"), {1}, DType::kInt32, "", "container");
  ASSERT_TRUE(RunOp(ops::Assign(root, a, ops::ConstVector<int32_t>(root, {4})).node).ok());
  EXPECT_EQ(Fetch(ops::Identity(root, b))->scalar<int32_t>(), 4);
  EXPECT_FALSE(Fetch(ops::IsVariableInitialized(root, other))->scalar<bool>());
  // The same name with another dtype or shape.
  Output c = ops::VariableV2(root, {1}, DType::kInt64, "shared");
  EXPECT_EQ(Fetch(ops::IsVariableInitialized(root, c)).status().code(),
            absl::StatusCode::kInvalidArgument);
  Output d = ops::VariableV2(root, {2}, DType::kInt32, "shared");
  EXPECT_EQ(Fetch(ops::IsVariableInitialized(root, d)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(VariableOpsTest, TheOlderVariableOpTakesAScalarShapeForUnknown) {
  Output v = NodeBuilder(root, "Variable")
                 .Attr("shape", PartialShape::Scalar())
                 .Attr("dtype", DType::kFloat)
                 .BuildOutput();
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_FALSE(v.shape().known_rank());
  ASSERT_TRUE(RunOp(ops::Assign(root, v, ops::Const(root, Tensor::Of<float>({1, 2}))).node).ok());
}

template <typename T>
class TypedVariableTest : public VariableOpsTest {};
using AllNumbers = ::testing::Types<half, bfloat16, float, double, int8_t, int16_t, int32_t,
                                    int64_t, uint8_t, uint16_t, uint32_t, uint64_t>;
TYPED_TEST_SUITE(TypedVariableTest, AllNumbers);

TYPED_TEST(TypedVariableTest, AddsAndSubtractsWrappingAround) {
  using T = TypeParam;
  const T most = std::numeric_limits<T>::max(), least = std::numeric_limits<T>::lowest();
  Output v = ops::VariableV2(this->root, {3}, DTypeOf<T>::value);
  const Tensor start = Tensor::Of<T>({T(1), most, least});
  ASSERT_TRUE(this->RunOp(ops::Assign(this->root, v, ops::Const(this->root, start)).node).ok());
  Output by = ops::Const(this->root, Tensor::Of<T>({T(2), T(1), T(0)}));
  absl::StatusOr<Tensor> sum = this->Fetch(ops::AssignAdd(this->root, v, by));
  ASSERT_TRUE(sum.ok()) << sum.status();
  EXPECT_EQ(sum->data<T>()[0], T(3));
  EXPECT_EQ(sum->data<T>()[2], least);
  if (std::numeric_limits<T>::is_integer) {
    EXPECT_EQ(sum->data<T>()[1], least);
  }
  absl::StatusOr<Tensor> back = this->Fetch(ops::AssignSub(this->root, v, by));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(Values<T>(*back), Values<T>(start));
  Node* scatter =
      this->Scatter("ScatterAdd", v, Tensor::Of<int64_t>({0, 0}), Tensor::Of<T>({T(2), T(3)}));
  ASSERT_TRUE(this->RunOp(scatter).ok());
  EXPECT_EQ(this->Fetch(v)->template data<T>()[0], T(6));
  scatter = this->Scatter("ScatterSub", v, Tensor::Of<int32_t>({0}), Tensor::Scalar<T>(T(4)));
  ASSERT_TRUE(this->RunOp(scatter).ok());
  EXPECT_EQ(this->Fetch(v)->template data<T>()[0], T(2));
}

TEST_F(VariableOpsTest, ScatterUpdatesRows) {
  Output v = ops::VariableV2(root, {3, 2}, DType::kFloat);
  ASSERT_TRUE(
      RunOp(ops::Assign(root, v, ops::Const(root, Tensor::Of<float>({1, 2, 3, 4, 5, 6}, {3, 2})))
                .node)
          .ok());
  Node* n = Scatter("ScatterUpdate", v, Tensor::Of<int32_t>({2, 0}),
                    Tensor::Of<float>({9, 8, 7, 6}, {2, 2}));
  ASSERT_TRUE(RunOp(n).ok());
  EXPECT_EQ(Values<float>(Fetch(v).value()), (std::vector<float>{7, 6, 3, 4, 9, 8}));
  ASSERT_TRUE(
      RunOp(Scatter("ScatterUpdate", v, Tensor::Of<int64_t>({1}), Tensor::Scalar<float>(0))).ok());
  EXPECT_EQ(Values<float>(Fetch(v).value()), (std::vector<float>{7, 6, 0, 0, 9, 8}));

  absl::Status s = RunOp(Scatter("ScatterUpdate", v, Tensor::Of<int32_t>({0, 7}),
                                 Tensor::Of<float>({1, 1, 1, 1}, {2, 2})));
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(s.message()), HasSubstr("indices[1] = 7 is not in [0, 3)"));
  s = RunOp(Scatter("ScatterAdd", v, Tensor::Of<int32_t>({0}), Tensor::Of<float>({1, 1, 1})));
  EXPECT_THAT(std::string(s.message()), HasSubstr("Must have updates.shape = indices.shape"));
  // Nothing was written.
  EXPECT_EQ(Values<float>(Fetch(v).value()), (std::vector<float>{7, 6, 0, 0, 9, 8}));

  Output names = ops::VariableV2(root, {2}, DType::kString);
  ASSERT_TRUE(
      RunOp(ops::Assign(root, names, ops::Const(root, Tensor::Of<std::string>({"a", "b"}))).node)
          .ok());
  ASSERT_TRUE(RunOp(Scatter("ScatterUpdate", names, Tensor::Of<int32_t>({1}),
                            Tensor::Of<std::string>({"c"})))
                  .ok());
  EXPECT_EQ(Values<std::string>(Fetch(names).value()), (std::vector<std::string>{"a", "c"}));
}

TEST_F(VariableOpsTest, AssignsToSlices) {
  Output v = ops::VariableV2(root, {2, 3}, DType::kFloat);
  Output start = ops::Const(root, Tensor::Of<float>({1, 2, 3, 4, 5, 6}, {2, 3}));
  ASSERT_TRUE(RunOp(ops::Assign(root, v, start).node).ok());
  auto assign = [&](std::vector<int32_t> begin, std::vector<int32_t> end,
                    std::vector<int32_t> strides, int shrink, int new_axis, Output value) {
    return NodeBuilder(root, "StridedSliceAssign")
        .Input(v)
        .Input(ops::ConstVector(root, begin))
        .Input(ops::ConstVector(root, end))
        .Input(ops::ConstVector(root, strides))
        .Input(value)
        .Attr("shrink_axis_mask", shrink)
        .Attr("new_axis_mask", new_axis)
        .Build();
  };
  auto run = [&](Node* n) {
    std::vector<Tensor> out;
    absl::Status s = RunOp(n, &out);
    EXPECT_TRUE(s.ok()) << s;
    return s.ok() ? Values<float>(out[0]) : std::vector<float>();
  };
  using F = std::vector<float>;
  auto row = [&](F values) { return ops::Const(root, Tensor::Of<float>(values)); };
  // A row, backwards; a column from a scalar; a column, broadcast along a new axis.
  EXPECT_EQ(run(assign({1, 2}, {2, -4}, {1, -1}, 1, 0, row({7, 8, 9}))), (F{1, 2, 3, 9, 8, 7}));
  EXPECT_EQ(run(assign({0, 1}, {2, 2}, {1, 1}, 2, 0, ops::Const<float>(root, 0))),
            (F{1, 0, 3, 9, 0, 7}));
  EXPECT_EQ(run(assign({0, 0, 0}, {2, 0, 1}, {1, 1, 1}, 0, 2,
                       ops::Const(root, Tensor::Of<float>({5, 6}, {2, 1, 1})))),
            (F{5, 0, 3, 6, 0, 7}));
  // From the variable itself.
  EXPECT_EQ(run(assign({0, 2}, {2, -4}, {1, -1}, 0, 0, ops::Identity(root, v))),
            (F{3, 0, 5, 7, 0, 6}));
  absl::Status s = RunOp(assign({0, 0}, {1, 3}, {1, 1}, 0, 0, row({1, 2})));
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(s.message()), HasSubstr("shape [2] can't be assigned to a slice"));
}

TEST_F(VariableOpsTest, ConcurrentUpdatesAreNotLost) {
  Output v = ops::VariableV2(root, {1000}, DType::kInt64);
  Output one =
      ops::Fill(root, ops::ConstVector<int32_t>(root, {1000}), ops::Const<int64_t>(root, 1));
  Output add = ops::AssignAdd(root, v, one);
  ASSERT_TRUE(RunOp(ops::Assign(root, v, ops::ZerosLike(root, one)).node).ok());
  absl::StatusOr<Session::Callable> step = session.MakeCallable({{}, {}, {add.node->name()}});
  ASSERT_TRUE(step.ok()) << step.status();
  auto work = [&] {
    std::vector<Tensor> none;
    for (int i = 0; i < 500; ++i) EXPECT_TRUE(step->Run({}, &none).ok());
  };
  std::thread other(work);
  work();
  other.join();
  EXPECT_EQ(Values<int64_t>(Fetch(v).value()), std::vector<int64_t>(1000, 1000));
}

}  // namespace
}  // namespace ferry
