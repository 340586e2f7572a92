// Ops that move data, beyond what the cases from TensorFlow cover: tensors large enough to be split
// over threads, against an element-by-element definition; sizes that ask for too much; and shapes
// that are known while the graph is built.
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;
using Index = std::vector<int64_t>;

class ArrayOpsTest : public ::testing::Test {
 protected:
  absl::StatusOr<Tensor> Run(Output o, const std::vector<std::pair<Output, Tensor>>& feeds = {}) {
    if (!root.ok()) return root.status();
    SessionOptions options;
    options.threads = 3;
    Session session(&graph, options);
    std::vector<Tensor> out;
    absl::Status s = session.Run(feeds, {o}, {}, &out);
    if (!s.ok()) return s;
    return out[0];
  }
  Output Ints(const std::vector<int64_t>& v) { return ops::ConstVector<int64_t>(root, v); }
  Graph graph;
  Scope root{&graph};
};

// Calls fn for each index within the shape, in row-major order.
void ForEach(const TensorShape& shape, const std::function<void(const Index&)>& fn) {
  Index i(static_cast<size_t>(shape.rank()), 0);
  for (int64_t n = 0; n < shape.num_elements(); ++n) {
    fn(i);
    for (int d = shape.rank(); d-- > 0;) {
      if (++i[static_cast<size_t>(d)] < shape.dim(d)) break;
      i[static_cast<size_t>(d)] = 0;
    }
  }
}

int64_t Flat(const TensorShape& shape, const Index& i) {
  int64_t at = 0;
  for (int d = 0; d < shape.rank(); ++d) at = at * shape.dim(d) + i[static_cast<size_t>(d)];
  return at;
}

template <typename T>
T Element(int64_t i) {
  if constexpr (std::is_same_v<T, std::string>) {
    return absl::StrCat("element number ", i);
  } else {
    return static_cast<T>(i * 7 + 3);
  }
}

// That element `i` of `found` is the element of a ramp of shape `from` that `where(i)` says.
template <typename T>
void ExpectMoved(const absl::StatusOr<Tensor>& found, const TensorShape& shape,
                 const TensorShape& from, const std::function<Index(const Index&)>& where) {
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->shape(), shape);
  int64_t n = 0, wrong = 0;
  ForEach(shape, [&](const Index& i) {
    if (found->data<T>()[n++] != Element<T>(Flat(from, where(i)))) ++wrong;
  });
  EXPECT_EQ(wrong, 0);
}

template <typename T>
Tensor Ramp(const TensorShape& shape) {
  Tensor t = *Tensor::Allocate(DTypeOf<T>::value, shape);
  for (int64_t i = 0; i < shape.num_elements(); ++i) t.data<T>()[i] = Element<T>(i);
  return t;
}

template <typename T>
class WidthTest : public ArrayOpsTest {};
using Widths = ::testing::Types<uint8_t, int16_t, float, int64_t, std::string>;
TYPED_TEST_SUITE(WidthTest, Widths);

TYPED_TEST(WidthTest, TransposesLargeTensors) {
  using T = TypeParam;
  struct Case {
    TensorShape shape;
    std::vector<int32_t> perm;
  };
  const std::vector<Case> cases = {{{257, 131}, {1, 0}},           {{3, 129, 70}, {0, 2, 1}},
                                   {{3, 129, 70}, {2, 0, 1}},      {{40, 3, 50, 5}, {2, 1, 0, 3}},
                                   {{40, 3, 50, 5}, {3, 2, 1, 0}}, {{40, 3, 50, 5}, {0, 2, 1, 3}},
                                   {{30000, 2}, {1, 0}},           {{2, 30000}, {1, 0}},
                                   {{17, 1, 2003}, {2, 1, 0}}};
  for (const Case& k : cases) {
    Output x = ops::Const(this->root, Ramp<T>(k.shape));
    Index sizes, inverse(k.perm.size());
    for (size_t i = 0; i < k.perm.size(); ++i) {
      sizes.push_back(k.shape.dim(k.perm[i]));
      inverse[static_cast<size_t>(k.perm[i])] = static_cast<int64_t>(i);
    }
    SCOPED_TRACE(k.shape.DebugString());
    ExpectMoved<T>(this->Run(ops::Transpose(this->root, x, ops::ConstVector(this->root, k.perm))),
                   TensorShape(absl::MakeConstSpan(sizes)), k.shape, [&](const Index& i) {
                     Index from;
                     for (int64_t d : inverse) from.push_back(i[static_cast<size_t>(d)]);
                     return from;
                   });
  }
}

TYPED_TEST(WidthTest, SlicesJoinsAndRepeatsLargeTensors) {
  using T = TypeParam;
  const TensorShape shape({60, 41, 33});
  const Scope& s = this->root;
  Output x = ops::Const(s, Ramp<T>(shape));
  ExpectMoved<T>(this->Run(ops::Slice(s, x, this->Ints({5, 1, 2}), this->Ints({50, -1, 30}))),
                 {50, 40, 30}, shape, [](const Index& i) {
                   return Index{i[0] + 5, i[1] + 1, i[2] + 2};
                 });
  ExpectMoved<T>(this->Run(ops::StridedSlice(s, x, this->Ints({58, 0, 30}), this->Ints({1, 41, 3}),
                                             this->Ints({-3, 2, -1}))),
                 {19, 21, 27}, shape, [](const Index& i) {
                   return Index{58 - 3 * i[0], 2 * i[1], 30 - i[2]};
                 });
  ExpectMoved<T>(
      this->Run(NodeBuilder(s, "ReverseV2").Input(x).Input(this->Ints({0, 2})).BuildOutput()),
      shape, shape, [](const Index& i) {
        return Index{59 - i[0], i[1], 32 - i[2]};
      });
  ExpectMoved<T>(this->Run(ops::Tile(s, x, this->Ints({2, 1, 3}))), {120, 41, 99}, shape,
                 [](const Index& i) {
                   return Index{i[0] % 60, i[1], i[2] % 33};
                 });
  for (int axis = 0; axis < 3; ++axis) {
    const auto a = static_cast<size_t>(axis);
    SCOPED_TRACE(axis);
    TensorShape joined = shape;
    joined.set_dim(axis, 2 * shape.dim(axis));
    ExpectMoved<T>(this->Run(ops::ConcatV2(s, {x, x}, ops::Const<int32_t>(s, axis))), joined, shape,
                   [&](const Index& i) {
                     Index from = i;
                     from[a] %= shape.dim(axis);
                     return from;
                   });
    Index sizes(shape.dims().begin(), shape.dims().end());
    sizes.insert(sizes.begin() + axis, 3);
    Output packed = ops::Pack(s, {x, x, x}, axis);
    ExpectMoved<T>(this->Run(packed), TensorShape(absl::MakeConstSpan(sizes)), shape,
                   [&](const Index& i) {
                     Index from = i;
                     from.erase(from.begin() + axis);
                     return from;
                   });
    ExpectMoved<T>(this->Run(ops::Unpack(s, packed, 3, axis)[2]), shape, shape,
                   [](const Index& i) { return i; });
    Output rows = ops::ConstVector<int32_t>(s, {7, 0, 7, 32});
    TensorShape picked = shape;
    picked.set_dim(axis, 4);
    ExpectMoved<T>(this->Run(ops::GatherV2(s, x, rows, ops::Const<int32_t>(s, axis))), picked,
                   shape, [&](const Index& i) {
                     Index from = i;
                     from[a] = std::vector<int64_t>{7, 0, 7, 32}[static_cast<size_t>(i[a])];
                     return from;
                   });
  }
}

// Random slices, against the rules for one dimension applied to each element.
TEST_F(ArrayOpsTest, StridedSlicesByPythonsRules) {
  std::mt19937 random(1);
  const TensorShape shape({4, 5, 3});
  Output x = ops::Const(root, Ramp<float>(shape));
  auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int round = 0; round < 60; ++round) {
    Index begin, end, strides, sizes;
    std::vector<std::vector<int64_t>> taken;
    for (int d = 0; d < 3; ++d) {
      const int64_t n = shape.dim(d);
      int64_t stride = pick(-3, 3);
      if (stride == 0) stride = 1;
      begin.push_back(pick(-7, 7));
      end.push_back(pick(-7, 7));
      strides.push_back(stride);
      // Positions from `begin` on, before `end`, as far as they lie within the dimension.
      auto place = [&](int64_t v) {
        if (v < 0) v += n;
        return stride > 0 ? std::min(std::max<int64_t>(v, 0), n)
                          : std::min(std::max<int64_t>(v, -1), n - 1);
      };
      std::vector<int64_t> at;
      for (int64_t i = place(begin.back()), e = place(end.back()); stride > 0 ? i < e : i > e;
           i += stride) {
        at.push_back(i);
      }
      sizes.push_back(static_cast<int64_t>(at.size()));
      taken.push_back(std::move(at));
    }
    ExpectMoved<float>(Run(ops::StridedSlice(root, x, Ints(begin), Ints(end), Ints(strides))),
                       TensorShape(absl::MakeConstSpan(sizes)), shape, [&](const Index& i) {
                         Index from;
                         for (size_t d = 0; d < 3; ++d) {
                           from.push_back(taken[d][static_cast<size_t>(i[d])]);
                         }
                         return from;
                       });
  }
}

TEST_F(ArrayOpsTest, HostileSizesAreErrors) {
  const int64_t huge = int64_t{1} << 62;
  Output one = ops::Const<float>(root, 1);
  Output vector = ops::ConstVector<float>(root, {1, 2, 3});
  // Fed, so that kernels see them rather than shape functions.
  Output sizes = ops::Placeholder(root, DType::kInt64);
  Output zeros = ops::ConstVector<int64_t>(root, {0, 0});
  Output matrix = ops::Const(root, Tensor::Of<float>({1, 2, 3, 4}, {2, 2}));
  const std::vector<Output> bad = {
      ops::Fill(root, sizes, one),
      ops::Reshape(root, vector, sizes),
      ops::Tile(root, matrix, sizes),
      NodeBuilder(root, "Pad")
          .Input(matrix)
          .Input(ops::Pack(root, {sizes, sizes}, 1))
          .BuildOutput(),
      ops::Slice(root, matrix, zeros, sizes),
      ops::Slice(root, matrix, sizes, zeros),
      NodeBuilder(root, "StridedSliceGrad")
          .Input(sizes)
          .Input(zeros)
          .Input(zeros)
          .Input(ops::ConstVector<int64_t>(root, {1, 1}))
          .Input(matrix)
          .BuildOutput(),
      ops::Transpose(root, matrix, sizes),
      ops::GatherV2(root, vector, sizes, ops::Const<int32_t>(root, 0)),
      NodeBuilder(root, "ScatterNd").Input(zeros).Input(one).Input(sizes).BuildOutput(),
      NodeBuilder(root, "ReverseV2").Input(matrix).Input(sizes).BuildOutput(),
      NodeBuilder(root, "SplitV")
          .Input(vector)
          .Input(sizes)
          .Input(ops::Const<int32_t>(root, 0))
          .Attr("num_split", 2)
          .BuildOutput(),
  };
  ASSERT_TRUE(root.ok()) << root.status();
  const std::vector<Tensor> values = {
      Tensor::Of<int64_t>({huge, huge}), Tensor::Of<int64_t>({huge, 1}),
      Tensor::Of<int64_t>({-5, huge}), Tensor::Of<int64_t>({INT64_MIN, INT64_MIN}),
      Tensor::Of<int64_t>({INT64_MAX, INT64_MAX})};
  for (const Output& o : bad) {
    for (const Tensor& v : values) {
      const absl::Status s = Run(o, {{sizes, v}}).status();
      EXPECT_TRUE(s.code() == absl::StatusCode::kInvalidArgument ||
                  s.code() == absl::StatusCode::kResourceExhausted)
          << o.node->op() << " " << v.DebugString() << ": " << s;
      EXPECT_THAT(std::string(s.message()), HasSubstr(o.node->name()));
    }
  }
  // A StridedSlice clamps any begin, end and stride, as Python does.
  for (const Tensor& v : values) {
    EXPECT_TRUE(Run(ops::StridedSlice(root, matrix, sizes, sizes, sizes), {{sizes, v}}).ok());
    EXPECT_TRUE(Run(ops::StridedSlice(root, matrix, zeros, sizes, sizes), {{sizes, v}}).ok());
  }
  // So does a range whose distance doesn't fit.
  Output n = ops::Placeholder(root, DType::kInt64), m = ops::Placeholder(root, DType::kInt64);
  Output range = ops::Range(root, n, m, ops::Const<int64_t>(root, 1));
  EXPECT_EQ(
      Run(range, {{n, Tensor::Scalar<int64_t>(INT64_MIN)}, {m, Tensor::Scalar<int64_t>(INT64_MAX)}})
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Run(range, {{n, Tensor::Scalar<int64_t>(0)}, {m, Tensor::Scalar<int64_t>(INT64_MAX)}})
                .status()
                .code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(ArrayOpsTest, ShapesFlowThroughShapeArithmetic) {
  Output x = ops::Placeholder(root, DType::kFloat, {-1, 8, 4});
  Output shape = ops::Shape(root, x);
  auto at = [&](int32_t i) {
    return ops::StridedSlice(root, shape, ops::ConstVector<int32_t>(root, {i}),
                             ops::ConstVector<int32_t>(root, {i + 1}),
                             ops::ConstVector<int32_t>(root, {1}), {0, 0, 0, 0, 1});
  };
  // [batch, 4, 8]: sizes taken out of the shape and packed again.
  Output packed = ops::Pack(root, {at(0), at(2), at(1)});
  EXPECT_EQ(ops::Reshape(root, x, packed).shape(), PartialShape({-1, 4, 8}));
  EXPECT_EQ(ops::Fill(root, ops::Identity(root, packed), ops::Const<float>(root, 0)).shape(),
            PartialShape({-1, 4, 8}));
  // All but the first dimension, with others in front.
  Output tail = ops::Slice(root, shape, ops::ConstVector<int32_t>(root, {1}),
                           ops::ConstVector<int32_t>(root, {-1}));
  Output joined = ops::ConcatV2(root, {ops::ConstVector<int32_t>(root, {-1, 2}), tail},
                                ops::Const<int32_t>(root, 0));
  EXPECT_EQ(ops::Reshape(root, x, joined).shape(), PartialShape({-1, 2, 8, 4}));
  Output picked =
      ops::GatherV2(root, shape, ops::Const<int32_t>(root, 1), ops::Const<int32_t>(root, 0));
  EXPECT_EQ(ops::OneHot(root, ops::ConstVector<int32_t>(root, {0}), picked,
                        ops::Const<float>(root, 1), ops::Const<float>(root, 0))
                .shape(),
            PartialShape({1, 8}));
  EXPECT_EQ(ops::Reshape(root, x, ops::ConstVector<int32_t>(root, {-1, 32})).shape(),
            PartialShape({-1, 32}));
  EXPECT_EQ(ops::StridedSlice(root, x, Ints({0, 0}), Ints({2, 0}), Ints({1, -1}),
                              {/*begin=*/2, /*end=*/3, 0, 0, 0})
                .shape(),
            PartialShape({-1, 8, 4}));
  EXPECT_EQ(root.status(), absl::OkStatus());
}

TEST_F(ArrayOpsTest, GatherGradientAlongAnyAxis) {
  // dy of ones: each element of the gradient counts how often it was picked.
  const TensorShape shape({2, 3, 4});
  for (int axis = 0; axis < 3; ++axis) {
    for (int batch = 0; batch <= std::min(axis, 1); ++batch) {
      SCOPED_TRACE(absl::StrCat(axis, " ", batch));
      Graph g;
      Scope s(&g);
      Output x = ops::Placeholder(s, DType::kFloat, shape);
      const Tensor rows = Tensor::Of<int32_t>({0, 0, 1, 1, 1, 0}, {2, 3});
      Output y = ops::GatherV2(s, x, ops::Const(s, rows), ops::Const<int32_t>(s, axis), batch);
      std::vector<Output> grads;
      ASSERT_EQ(AddSymbolicGradients(s, {y}, {x}, &grads), absl::OkStatus());
      Session session(&g);
      std::vector<Tensor> out;
      ASSERT_EQ(session.Run({{x, Ramp<float>(shape)}}, {grads[0]}, {}, &out), absl::OkStatus());
      ASSERT_EQ(out[0].shape(), shape);
      int64_t n = 0;
      ForEach(shape, [&](const Index& i) {
        const int64_t at = i[static_cast<size_t>(axis)];
        float count = 0;
        for (int64_t k = 0; k < 6; ++k) {
          if (batch == 1 && k / 3 != i[0]) continue;
          if (rows.data<int32_t>()[k] == at) ++count;
        }
        EXPECT_EQ(out[0].data<float>()[n++], count) << n;
      });
    }
  }
}

// Each NaN is a value of its own, as TensorFlow has it.
TEST_F(ArrayOpsTest, UniqueOfNaN) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Node* const unique = NodeBuilder(root, "Unique")
                           .Input(ops::ConstVector<float>(root, {nan, 1, nan, 1, 0}))
                           .Build();
  ASSERT_TRUE(root.ok()) << root.status();
  const auto y = Run(unique->output(0));
  ASSERT_TRUE(y.ok()) << y.status();
  const auto values = y->span<float>();
  ASSERT_EQ(values.size(), 4u);
  EXPECT_TRUE(std::isnan(values[0]) && std::isnan(values[2]));
  EXPECT_EQ(values[1], 1);
  EXPECT_EQ(values[3], 0);
  const auto idx = Run(unique->output(1));
  ASSERT_TRUE(idx.ok()) << idx.status();
  EXPECT_THAT(idx->span<int32_t>(), ::testing::ElementsAre(0, 1, 2, 1, 3));
}

TEST_F(ArrayOpsTest, EinsumsShapes) {
  constexpr int64_t kUnknown = PartialShape::kUnknown;
  const auto einsum = [this](const std::string& equation, const std::vector<PartialShape>& shapes) {
    std::vector<Output> in;
    for (const PartialShape& shape : shapes) {
      in.push_back(ops::Placeholder(root, DType::kFloat, shape));
    }
    return NodeBuilder(root, "Einsum").Input(in).Attr("equation", equation).BuildOutput();
  };
  EXPECT_EQ(einsum("ij,jk->ki", {{2, kUnknown}, {3, 4}}).shape(), (PartialShape{4, 2}));
  EXPECT_EQ(einsum("ij,jk->jk", {{2, kUnknown}, {3, 4}}).shape(), (PartialShape{3, 4}));
  // A size of 1 is broadcast to whatever there will be.
  EXPECT_EQ(einsum("...i,...i->...", {{1, 3}, {kUnknown, 3}}).shape(), (PartialShape{kUnknown}));
  EXPECT_EQ(einsum("...i,...i->...", {{kUnknown, 3}, {1, 3}}).shape(), (PartialShape{kUnknown}));
  EXPECT_EQ(einsum("...i,...i->...", {{kUnknown, 3}, {5, 3}}).shape(), (PartialShape{5}));
  EXPECT_EQ(einsum("...i,i->...", {{1, 5, 3}, {3}}).shape(), (PartialShape{1, 5}));
  EXPECT_EQ(einsum("ij->ji", {PartialShape()}).shape(), PartialShape::UnknownOfRank(2));
  ASSERT_TRUE(root.ok()) << root.status();
  einsum(std::string(100000, 'a') + "->" + std::string(100000, 'b'), {{2}});
  EXPECT_THAT(std::string(root.status().message()), HasSubstr("100000 labels"));
}

}  // namespace
}  // namespace ferry
