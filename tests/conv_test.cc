// Convolutions of many shapes against plain loops, on several numbers of threads; wrong attributes;
// what shapes are known beforehand.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/conv_tiles.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

struct Shape {
  int64_t n, h, w, c, kh, kw, k, groups, sh, sw, dh, dw, top, bottom, left, right;
  bool channels_first;
  int64_t oh() const { return (h + top + bottom - (kh - 1) * dh - 1) / sh + 1; }
  int64_t ow() const { return (w + left + right - (kw - 1) * dw - 1) / sw + 1; }
  std::string DebugString() const {
    return absl::StrCat("[", n, ",", h, ",", w, ",", c, "] * [", kh, ",", kw, ",", c / groups, ",",
                        k, "] strides ", sh, ",", sw, " dilations ", dh, ",", dw, " padding ", top,
                        ",", bottom, ",", left, ",", right, channels_first ? " NCHW" : "");
  }
};

std::vector<double> Values(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<double> v;
  // Sixteenths, whose products and sums of a few are exact in float.
  for (int64_t i = 0; i < n; ++i) v.push_back((static_cast<int>(random() % 65) - 32) / 16.0);
  return v;
}

// Where an image's element lies.
int64_t At(const Shape& s, int64_t h, int64_t w, int64_t c, int64_t n, int64_t y, int64_t x,
           int64_t k) {
  return s.channels_first ? ((n * c + k) * h + y) * w + x : ((n * h + y) * w + x) * c + k;
}

// Calls fn(x's, filter's, y's index) for each product.
template <typename Fn>
void ForProducts(const Shape& s, const Fn& fn) {
  const int64_t depth = s.c / s.groups, out = s.k / s.groups;
  for (int64_t n = 0; n < s.n; ++n) {
    for (int64_t oy = 0; oy < s.oh(); ++oy) {
      for (int64_t ox = 0; ox < s.ow(); ++ox) {
        for (int64_t ky = 0; ky < s.kh; ++ky) {
          const int64_t y = oy * s.sh + ky * s.dh - s.top;
          if (y < 0 || y >= s.h) continue;
          for (int64_t kx = 0; kx < s.kw; ++kx) {
            const int64_t x = ox * s.sw + kx * s.dw - s.left;
            if (x < 0 || x >= s.w) continue;
            for (int64_t k = 0; k < s.k; ++k) {
              for (int64_t c = 0; c < depth; ++c) {
                fn(At(s, s.h, s.w, s.c, n, y, x, k / out * depth + c),
                   ((ky * s.kw + kx) * depth + c) * s.k + k,
                   At(s, s.oh(), s.ow(), s.k, n, oy, ox, k));
              }
            }
          }
        }
      }
    }
  }
}

template <typename T>
Tensor ToTensor(const std::vector<double>& v, const std::vector<int64_t>& shape) {
  return Tensor::Of<T>(std::vector<T>(v.begin(), v.end()), TensorShape(shape));
}
std::vector<int64_t> Image(const Shape& s, int64_t h, int64_t w, int64_t c) {
  return s.channels_first ? std::vector<int64_t>{s.n, c, h, w} : std::vector<int64_t>{s.n, h, w, c};
}

template <typename T>
void ExpectNear(const Tensor& found, const std::vector<double>& expected, double tolerance,
                const std::string& what) {
  ASSERT_EQ(found.num_elements(), static_cast<int64_t>(expected.size())) << what;
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(found.data<T>()[i]), expected[i], tolerance)
        << what << " " << i;
  }
}

template <typename T>
void CheckShape(const Shape& s, int threads) {
  SCOPED_TRACE(absl::StrCat(s.DebugString(), ", ", threads, " threads"));
  const std::vector<int64_t> x_shape = Image(s, s.h, s.w, s.c);
  const std::vector<int64_t> y_shape = Image(s, s.oh(), s.ow(), s.k);
  const std::vector<int64_t> w_shape = {s.kh, s.kw, s.c / s.groups, s.k};
  const std::vector<double> x = Values(s.n * s.h * s.w * s.c, 1);
  const std::vector<double> w = Values(s.kh * s.kw * s.c / s.groups * s.k, 2);
  const std::vector<double> dy = Values(s.n * s.oh() * s.ow() * s.k, 3);
  std::vector<double> y(dy.size()), dx(x.size()), dw(w.size());
  ForProducts(s, [&](int64_t i, int64_t f, int64_t o) {
    const auto a = static_cast<size_t>(i), b = static_cast<size_t>(f), c = static_cast<size_t>(o);
    y[c] += x[a] * w[b];
    dx[a] += dy[c] * w[b];
    dw[b] += dy[c] * x[a];
  });

  Graph graph;
  const Scope scope(&graph);
  ops::Conv2DAttrs attrs;
  std::vector<int64_t> strides = {1, s.sh, s.sw, 1};
  attrs.dilations = {1, s.dh, s.dw, 1};
  attrs.explicit_paddings = {0, 0, s.top, s.bottom, s.left, s.right, 0, 0};
  if (s.channels_first) {
    attrs.data_format = "NCHW";
    strides = {1, 1, s.sh, s.sw};
    attrs.dilations = {1, 1, s.dh, s.dw};
    attrs.explicit_paddings = {0, 0, 0, 0, s.top, s.bottom, s.left, s.right};
  }
  auto sizes = [&](const std::vector<int64_t>& shape) {
    return ops::ConstVector<int32_t>(scope, std::vector<int32_t>(shape.begin(), shape.end()));
  };
  const Output xs = ops::Const(scope, ToTensor<T>(x, x_shape));
  const Output ws = ops::Const(scope, ToTensor<T>(w, w_shape));
  const Output dys = ops::Const(scope, ToTensor<T>(dy, y_shape));
  const Output outputs[] = {
      ops::Conv2D(scope, xs, ws, strides, "EXPLICIT", attrs),
      ops::Conv2DBackpropInput(scope, sizes(x_shape), ws, dys, strides, "EXPLICIT", attrs),
      ops::Conv2DBackpropFilter(scope, xs, sizes(w_shape), dys, strides, "EXPLICIT", attrs)};
  ASSERT_TRUE(scope.status().ok()) << scope.status();
  SessionOptions options;
  options.threads = threads;
  options.device = "cpu";
  Session session(&graph, options);
  std::vector<std::string> names;
  for (const Output& o : outputs) names.push_back(o.name());
  std::vector<Tensor> found, again;
  for (std::vector<Tensor>* to : {&found, &again}) {
    const absl::Status status = session.Run({}, names, {}, to);
    ASSERT_TRUE(status.ok()) << status;
  }
  const double tolerance = sizeof(T) == 4 ? 2e-3 : 1e-9;
  ExpectNear<T>(found[0], y, tolerance, "y");
  ExpectNear<T>(found[1], dx, tolerance, "dx");
  ExpectNear<T>(found[2], dw, tolerance, "dw");
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(std::memcmp(found[i].raw(), again[i].raw(), found[i].bytes()), 0) << i;
  }
}

TEST(ConvTest, EqualsPlainLoops) {
  std::mt19937 random(7);
  auto draw = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint32_t>(high - low + 1));
  };
  for (int i = 0; i < 150; ++i) {
    Shape s;
    s.n = draw(1, 3);
    s.h = draw(1, 12);
    s.w = draw(1, 16);
    s.groups = draw(0, 3) == 0 ? draw(2, 4) : 1;
    s.c = s.groups * draw(1, 6);
    s.k = s.groups * (draw(0, 2) == 0 ? draw(15, 40) : draw(1, 9));
    s.kh = draw(1, 4);
    s.kw = draw(1, 5);
    s.sh = draw(1, 3);
    s.sw = draw(1, 3);
    s.dh = draw(0, 2) == 0 ? draw(2, 3) : 1;
    s.dw = draw(0, 2) == 0 ? draw(2, 3) : 1;
    s.top = draw(0, 3);
    s.bottom = draw(0, 3);
    s.left = draw(0, 3);
    s.right = draw(0, 3);
    s.channels_first = draw(0, 3) == 0;
    s.top += std::max<int64_t>(0, (s.kh - 1) * s.dh + 1 - s.h - s.top - s.bottom);
    s.left += std::max<int64_t>(0, (s.kw - 1) * s.dw + 1 - s.w - s.left - s.right);
    if (i % 4 == 0) {
      CheckShape<double>(s, 1);
    } else {
      CheckShape<float>(s, static_cast<int>(draw(1, 3)));
    }
    if (HasFatalFailure()) return;
  }
}

// Several bands an image, several workers, several panels.
TEST(ConvTest, LargeOnes) {
  CheckShape<float>({2, 60, 50, 24, 3, 3, 40, 1, 1, 1, 1, 1, 1, 1, 1, 1, false}, 2);
  CheckShape<float>({1, 61, 53, 24, 3, 5, 20, 1, 2, 2, 1, 1, 1, 1, 2, 2, false}, 3);
  CheckShape<float>({1, 40, 300, 16, 3, 3, 17, 1, 1, 1, 2, 1, 2, 2, 1, 1, true}, 2);
  CheckShape<float>({4, 30, 30, 64, 1, 1, 33, 1, 1, 1, 1, 1, 0, 0, 0, 0, false}, 2);
  CheckShape<float>({2, 30, 20, 8, 3, 3, 16, 1, 1, 1, 1, 1, 1, 1, 1, 1, false}, 2);
}

// The same bits on any number of threads.
TEST(ConvTest, DoesNotDependOnThreads) {
  std::vector<Tensor> first;
  for (int threads : {1, 2, 3}) {
    Graph graph;
    const Scope s(&graph);
    const Output x = ops::Const(s, ToTensor<float>(Values(2 * 40 * 40 * 16, 1), {2, 40, 40, 16}));
    const Output w = ops::Const(s, ToTensor<float>(Values(9 * 16 * 24, 2), {3, 3, 16, 24}));
    const Output y = ops::Conv2D(s, ops::Exp(s, x), ops::Exp(s, w), {1, 1, 1, 1}, "SAME");
    const Output dx = ops::Conv2DBackpropInput(s, ops::Shape(s, x), w, y, {1, 1, 1, 1}, "SAME");
    SessionOptions options;
    options.threads = threads;
    options.device = "cpu";
    Session session(&graph, options);
    std::vector<Tensor> out;
    const absl::Status status = session.Run({}, {y.name(), dx.name()}, {}, &out);
    ASSERT_TRUE(status.ok()) << status;
    if (first.empty()) first = out;
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(std::memcmp(out[i].raw(), first[i].raw(), out[i].bytes()), 0) << threads;
    }
  }
}

// The message of a graph that can't be built.
std::string Message(const std::vector<int64_t>& strides, const std::string& padding,
                    const ops::Conv2DAttrs& attrs) {
  Graph graph;
  const Scope s(&graph);
  ops::Conv2D(s, ops::Placeholder(s, DType::kFloat), ops::Placeholder(s, DType::kFloat), strides,
              padding, attrs);
  EXPECT_FALSE(s.status().ok());
  return std::string(s.status().message());
}

TEST(ConvTest, Attributes) {
  const std::vector<int64_t> ones = {1, 1, 1, 1};
  ops::Conv2DAttrs attrs;
  EXPECT_THAT(Message({1, 1, 1}, "SAME", {}), HasSubstr("to contain 4 values, but got: 3"));
  EXPECT_THAT(Message({1, 0, 1, 1}, "SAME", {}), HasSubstr("Stride must be > 0, but got 0"));
  EXPECT_THAT(Message({2, 1, 1, 1}, "SAME", {}),
              HasSubstr("does not yet support strides in the batch and depth dimensions"));
  attrs.dilations = {1, 0, 1, 1};
  EXPECT_THAT(Message(ones, "SAME", attrs), HasSubstr("Dilation rate must be >= 1, but got 0"));
  attrs.dilations = {1, 1, 1, 2};
  EXPECT_THAT(Message(ones, "SAME", attrs),
              HasSubstr("does not yet support dilations in the batch and depth dimensions"));
  attrs.dilations = {1, 1};
  EXPECT_THAT(Message(ones, "SAME", attrs), HasSubstr("to contain 4 values, but got: 2"));
  attrs.dilations = ones;
  EXPECT_THAT(Message(ones, "EXPLICIT", attrs),
              HasSubstr("explicit_paddings attribute must contain 8 values, but got: 0"));
  attrs.explicit_paddings = {0, 0, 1, -1, 0, 0, 0, 0};
  EXPECT_THAT(Message(ones, "EXPLICIT", attrs), HasSubstr("must be nonnegative"));
  attrs.explicit_paddings = {1, 0, 1, 1, 0, 0, 0, 0};
  EXPECT_THAT(Message(ones, "EXPLICIT", attrs),
              HasSubstr("Nonzero explicit padding in the batch or depth dimensions"));
}

// A window with gaps so wide that its padding can't be held is an error, not the end.
TEST(ConvTest, AbsurdDilation) {
  for (const int64_t wide : {int64_t{1} << 30, int64_t{1} << 32, int64_t{1} << 50}) {
    Graph graph;
    const Scope s(&graph);
    ops::Conv2DAttrs attrs;
    attrs.dilations = {1, wide, wide, 1};
    const Output x = ops::Const(s, ToTensor<float>({1}, {1, 1, 1, 1}));
    const Output filter = ops::Const(s, ToTensor<float>(Values(4, 1), {2, 2, 1, 1}));
    const std::vector<int64_t> strides = {1, wide, wide, 1};
    const Output y = ops::Conv2D(s, x, filter, strides, "SAME", attrs);
    const Output grad = NodeBuilder(s, "Conv2DBackpropFilter")
                            .Input(x)
                            .Input(ops::ConstVector<int32_t>(s, {2, 2, 1, 1}))
                            .Input(x)
                            .Attr("strides", strides)
                            .Attr("padding", std::string("SAME"))
                            .Attr("dilations", attrs.dilations)
                            .BuildOutput();
    ASSERT_TRUE(s.status().ok()) << s.status();
    SessionOptions options;
    options.device = "cpu";
    Session session(&graph, options);
    std::vector<Tensor> out;
    for (const Output& o : {y, grad}) {
      const absl::Status status = session.Run({}, {o.name()}, {}, &out);
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    }
  }
}

// Strides beyond the image: one window, whose size alone says what the work is.
TEST(ConvTest, AbsurdStride) {
  constexpr int64_t kSide = 1500, kDepth = 2;
  for (const int64_t stride : {kSide - 1, kSide, int64_t{1} << 40, int64_t{1} << 50}) {
    Graph graph;
    const Scope s(&graph);
    const int64_t out = stride < kSide ? 2 : 1;
    const Output filter = ops::Const(s, ToTensor<float>(Values(4 * kDepth, 1), {2, 2, kDepth, 1}));
    const Output dy = ops::Const(s, ToTensor<float>(Values(out * out, 2), {1, out, out, 1}));
    const auto node = [&](const char* op, const Output& a, const Output& b, const Output& c) {
      NodeBuilder builder(s, op);
      builder.Input(a).Input(b);
      if (c.node) builder.Input(c);
      return builder.Attr("strides", std::vector<int64_t>{1, stride, stride, 1})
          .Attr("padding", std::string("SAME"))
          .BuildOutput();
    };
    const Output dx = node("Conv2DBackpropInput",
                           ops::ConstVector<int32_t>(s, {1, kSide, kSide, kDepth}), filter, dy);
    // <dx, x> = <dy, y> for any x, since both are what the filter makes of x and dy.
    const Output x = ops::Const(
        s, ToTensor<float>(Values(kSide * kSide * kDepth, 3), {1, kSide, kSide, kDepth}));
    const Output y = node("Conv2D", x, filter, {});
    const Output dw =
        node("Conv2DBackpropFilter", x, ops::ConstVector<int32_t>(s, {2, 2, kDepth, 1}), dy);
    const Output products[] = {ops::ReduceSum(s, ops::Mul(s, dx, x)),
                               ops::ReduceSum(s, ops::Mul(s, dy, y)),
                               ops::ReduceSum(s, ops::Mul(s, dw, filter))};
    ASSERT_TRUE(s.status().ok()) << s.status();
    SessionOptions options;
    options.device = "cpu";
    Session session(&graph, options);
    std::vector<Tensor> sums;
    const absl::Status status =
        session.Run({}, {products[0].name(), products[1].name(), products[2].name()}, {}, &sums);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_NE(sums[1].scalar<float>(), 0);
    EXPECT_EQ(sums[0].scalar<float>(), sums[1].scalar<float>()) << stride;
    EXPECT_EQ(sums[2].scalar<float>(), sums[1].scalar<float>()) << stride;
  }
}

// The tiles for any processor, which the others' users never run, and those for this one.
template <typename T>
void CheckTiles(const ConvTiles<T>& tiles) {
  constexpr int64_t kStep = 5, kTaps = 7, kWidth = 3;
  const std::vector<Run> runs = {{0, 3}, {11, 4}};
  const auto values = [](int64_t n, uint32_t seed) {
    std::vector<T> v;
    for (const double d : Values(n, seed)) v.push_back(static_cast<T>(static_cast<int>(d * 16)));
    return v;
  };
  const std::vector<T> a = values(200, 1), b = values(kTaps * kPanel<T> * 2, 2);
  for (int p = 1; p <= tiles.panels; ++p) {
    const int64_t columns = p * kPanel<T>;
    const auto panel = [&](int64_t k, int64_t c) {
      return b[static_cast<size_t>((c / kPanel<T> * kTaps + k) * kPanel<T> + c % kPanel<T>)];
    };
    for (int r = 1; r <= tiles.rows; ++r) {
      std::vector<T> out(static_cast<size_t>(r * (columns + 1)), T(9)), wanted = out;
      tiles.gather[p - 1][r - 1](a.data(), kStep, runs.data(), 2, b.data(), kTaps * kPanel<T>,
                                 out.data(), columns + 1);
      for (int64_t i = 0; i < r; ++i) {
        for (int64_t c = 0; c < columns; ++c) {
          T sum = 0;
          int64_t k = 0;
          for (const Run& run : runs) {
            for (int64_t j = 0; j < run.length; ++j, ++k) {
              sum += a[static_cast<size_t>(i * kStep + run.offset + j)] * panel(k, c);
            }
          }
          wanted[static_cast<size_t>(i * (columns + 1) + c)] = sum;
        }
      }
      EXPECT_EQ(out, wanted) << r << " rows, " << p << " panels";
      // Over 2 x 3 positions, added to what is there.
      std::vector<T> sums(static_cast<size_t>(p * (r + 1) * kPanel<T>), T(9)), expected = sums;
      tiles.spread[p - 1][r - 1](a.data(), 40, kStep, 2, kWidth, b.data(), kTaps * kPanel<T>,
                                 sums.data(), (r + 1) * kPanel<T>);
      for (int64_t c = 0; c < columns; ++c) {
        for (int64_t i = 0; i < r; ++i) {
          T& sum = expected[static_cast<size_t>((c / kPanel<T> * (r + 1) + i) * kPanel<T> +
                                                c % kPanel<T>)];
          for (int64_t k = 0; k < 2 * kWidth; ++k) {
            sum += a[static_cast<size_t>(k / kWidth * 40 + k % kWidth * kStep + i)] * panel(k, c);
          }
        }
      }
      EXPECT_EQ(sums, expected) << r << " rows, " << p << " panels";
    }
  }
}

TEST(ConvTest, TilesOfEverySize) {
  CheckTiles(PlainConvTiles<float>());
  CheckTiles(PlainConvTiles<double>());
  CheckTiles(PlainConvTiles<uint32_t>());
  CheckTiles(BestConvTiles<float>());
  CheckTiles(BestConvTiles<double>());
  CheckTiles(BestConvTiles<uint32_t>());
}

}  // namespace
}  // namespace ferry
