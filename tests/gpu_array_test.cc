// Ops that move data give on a GPU what they give on the CPU, bit by bit: widths of elements,
// alignments, sizes around vectors, tiles, chunks and blocks, and values that change under a
// captured graph.
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/types.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using Sizes = std::vector<int64_t>;

#define ASSERT_OK(expr)             \
  do {                              \
    const absl::Status s_ = (expr); \
    ASSERT_TRUE(s_.ok()) << s_;     \
  } while (false)

Tensor Ints(const Sizes& values, const Sizes& shape, DType dtype = DType::kInt64) {
  Tensor t = *Tensor::Allocate(dtype, *TensorShape::Make(shape));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kInt64) {
      t.data<int64_t>()[i] = values[i];
    } else {
      t.data<int32_t>()[i] = static_cast<int32_t>(values[i]);
    }
  }
  return t;
}
Tensor Ints(const Sizes& values) { return Ints(values, {static_cast<int64_t>(values.size())}); }
Tensor Int(int64_t value) { return Ints({value}, {}); }
Tensor Int32(int64_t value) { return Ints({value}, {}, DType::kInt32); }

// Small whole numbers, whose sums are exact in every dtype.
Tensor Numbers(DType dtype, const Sizes& shape, unsigned seed) {
  Tensor t = *Tensor::Allocate(dtype, *TensorShape::Make(shape));
  std::minstd_rand random(seed);
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    const int v = static_cast<int>(random() % 3);
    switch (dtype) {
      case DType::kBool:
        t.data<bool>()[i] = v != 0;
        break;
      case DType::kUint8:
        t.data<uint8_t>()[i] = static_cast<uint8_t>(random());
        break;
      case DType::kInt16:
        t.data<int16_t>()[i] = static_cast<int16_t>(random());
        break;
      case DType::kHalf:
        t.data<half>()[i] = static_cast<half>(static_cast<float>(v));
        break;
      case DType::kBfloat16:
        t.data<bfloat16>()[i] = static_cast<bfloat16>(static_cast<float>(v % 2));
        break;
      case DType::kFloat:
        t.data<float>()[i] = static_cast<float>(random() % 1000);
        break;
      case DType::kDouble:
        t.data<double>()[i] = static_cast<double>(random() % 1000);
        break;
      case DType::kInt32:
        t.data<int32_t>()[i] = static_cast<int32_t>(random() * 3);
        break;
      default:
        t.data<int64_t>()[i] = static_cast<int64_t>(random() * uint64_t{12345678901});
    }
  }
  return t;
}

struct Case {
  std::string op;
  DType dtype;
  std::vector<Sizes> numbers;  // Shapes of inputs of that dtype, of new numbers in each Run.
  std::vector<Tensor> others;  // Inputs that stay.
  // The op's inputs in their order: "x" the next of the numbers, "o" of the others, "*" a list of
  // all numbers, "#" of all others. By default the numbers come first.
  std::string order;
  std::function<void(NodeBuilder*)> attrs;
};

// The op's outputs, several Runs of them one after another.
absl::Status RunOn(const std::string& device, const Case& c, int runs, std::vector<Tensor>* out) {
  Graph graph;
  const Scope root(&graph);
  CallableOptions options;
  std::vector<Output> numbers, others;
  for (size_t i = 0; i < c.numbers.size(); ++i) {
    options.feeds.push_back(absl::StrCat("x", i));
    numbers.push_back(
        ops::Placeholder(root.WithOpName(options.feeds.back()), c.dtype, PartialShape()));
  }
  for (size_t i = 0; i < c.others.size(); ++i) {
    options.feeds.push_back(absl::StrCat("other", i));
    others.push_back(ops::Placeholder(root.WithOpName(options.feeds.back()), c.others[i].dtype(),
                                      PartialShape()));
  }
  NodeBuilder b(root.WithOpName("op").WithDevice(device), c.op);
  std::string order = c.order;
  if (order.empty()) order = std::string(numbers.size(), 'x') + std::string(others.size(), 'o');
  size_t number = 0, other = 0;
  for (const char kind : order) {
    if (kind == '*' || kind == '#') {
      b.Input(kind == '*' ? numbers : others);
    } else {
      b.Input(kind == 'x' ? numbers[number++] : others[other++]);
    }
  }
  if (c.attrs) c.attrs(&b);
  Node* node = b.Build();
  FERRY_RETURN_IF_ERROR(root.status());
  for (int i = 0; i < node->num_outputs(); ++i) {
    options.fetches.push_back(absl::StrCat("op:", i));
  }
  SessionOptions session_options;
  session_options.device = "gpu";
  session_options.allow_soft_placement = false;
  session_options.threads = 1;
  Session session(&graph, session_options);
  FERRY_ASSIGN_OR_RETURN(Session::Callable call, session.MakeCallable(options));
  for (int run = 0; run < runs; ++run) {
    std::vector<Tensor> feeds, found;
    for (size_t i = 0; i < c.numbers.size(); ++i) {
      feeds.push_back(Numbers(c.dtype, c.numbers[i],
                              static_cast<unsigned>(100 * run + 10 + static_cast<int>(i))));
    }
    feeds.insert(feeds.end(), c.others.begin(), c.others.end());
    FERRY_RETURN_IF_ERROR(call.Run(feeds, &found));
    out->insert(out->end(), found.begin(), found.end());
  }
  return absl::OkStatus();
}

std::string Describe(const Case& c) {
  std::string s = absl::StrCat(c.op, " ", DTypeName(c.dtype));
  for (const Sizes& n : c.numbers) absl::StrAppend(&s, " ", TensorShape::Make(n)->DebugString());
  for (const Tensor& t : c.others) {
    absl::StrAppend(&s, " ", t.shape().DebugString());
    for (int64_t i = 0; i < std::min<int64_t>(t.num_elements(), 8); ++i) {
      absl::StrAppend(&s, i ? "," : "{", t.dtype() == DType::kInt64 ? t.data<int64_t>()[i]
                                         : t.dtype() == DType::kInt32
                                             ? int64_t{t.data<int32_t>()[i]}
                                             : 0);
    }
    absl::StrAppend(&s, "}");
  }
  return s;
}

// `runs`: more than two, and the GPU's graph is captured.
void ExpectSame(const Case& c, int runs = 1) {
  SCOPED_TRACE(Describe(c));
  std::vector<Tensor> expected, found;
  ASSERT_OK(RunOn("/cpu:0", c, runs, &expected));
  ASSERT_OK(RunOn("/gpu:0", c, runs, &found));
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(expected[i].dtype(), found[i].dtype());
    ASSERT_EQ(expected[i].shape(), found[i].shape());
    EXPECT_EQ(std::memcmp(expected[i].raw(), found[i].raw(), found[i].bytes()), 0)
        << "output " << i;
  }
}

constexpr DType kWidths[] = {DType::kBool, DType::kHalf, DType::kFloat, DType::kDouble};

std::function<void(NodeBuilder*)> With(const char* attr, int value) {
  return [=](NodeBuilder* b) { b->Attr(attr, value); };
}

TEST(GpuArray, Transpose) {
  for (const DType t : kWidths) {
    for (const auto& [shape, perm] : std::vector<std::pair<Sizes, Sizes>>{
             {{}, {}},
             {{0, 3}, {1, 0}},
             {{7, 5}, {1, 0}},
             {{8, 8}, {1, 0}},
             {{31, 33}, {1, 0}},
             {{65, 32}, {1, 0}},
             {{3, 20, 35}, {0, 2, 1}},
             {{3, 20, 35}, {2, 1, 0}},
             {{3, 20, 35}, {1, 2, 0}},
             {{3, 20, 35}, {1, 0, 2}},
             {{9, 10, 16}, {1, 0, 2}},
             {{2, 3, 12, 2, 11}, {0, 4, 1, 3, 2}},
             {{2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, {9, 8, 7, 6, 5, 4, 3, 2, 1, 0}}}) {
      ExpectSame({"Transpose", t, {shape}, {Ints(perm)}, "", nullptr});
    }
  }
  ExpectSame({"Transpose", DType::kFloat, {{40, 50}}, {Ints({1, 0})}, "", nullptr}, 5);
}

TEST(GpuArray, Slices) {
  for (const DType t : kWidths) {
    for (const int64_t n : {0, 1, 3, 4, 15, 16, 17, 64}) {
      for (const int64_t from : {0, 1, 4, 16}) {
        ExpectSame({"Slice", t, {{100}}, {Ints({from}), Ints({n})}, "", nullptr});
        ExpectSame({"Slice", t, {{5, 80}}, {Ints({1, from}), Ints({3, n})}, "", nullptr});
      }
    }
    ExpectSame({"ReverseV2", t, {{5, 33, 4}}, {Ints({1})}, "", nullptr});
    ExpectSame({"ReverseV2", t, {{5, 33, 4}}, {Ints({0, 2})}, "", nullptr});
    const std::vector<Tensor> back = {Ints({35, 0}), Ints({2, 9}), Ints({-3, 2})};
    ExpectSame({"StridedSlice", t, {{40, 9}}, back, "", nullptr});
    const std::vector<Tensor> rows = {Ints({3, 0}), Ints({30, 8}), Ints({1, 1})};
    ExpectSame({"StridedSlice", t, {{40, 8}}, rows, "", nullptr}, 4);
    ExpectSame({"StridedSliceGrad",
                t,
                {{11, 5}},
                {Ints({40, 9}), back[0], back[1], back[2]},
                "oooox",
                nullptr},
               4);
  }
}

TEST(GpuArray, TileAndPad) {
  for (const DType t : kWidths) {
    for (const int64_t n : {1, 3, 4, 16, 33}) {
      ExpectSame({"Tile", t, {{n}}, {Ints({3})}, "", nullptr});
      ExpectSame({"Tile", t, {{3, n}}, {Ints({2, 1})}, "", nullptr});
      ExpectSame({"Tile", t, {{3, n}}, {Ints({1, 4})}, "", nullptr});
      ExpectSame({"Tile", t, {{3, n}}, {Ints({0, 4})}, "", nullptr});
      ExpectSame({"Pad", t, {{3, n}}, {Ints({1, 0, 4, 2}, {2, 2})}, "", nullptr});
      ExpectSame({"PadV2", t, {{3, n}, {}}, {Ints({0, 0, 0, 0}, {2, 2})}, "xox", nullptr});
      ExpectSame({"PadV2", t, {{3, n}, {}}, {Ints({1, 0, 3, 1}, {2, 2})}, "xox", nullptr});
    }
  }
  ExpectSame({"Pad", DType::kFloat, {{20, 20}}, {Ints({1, 1, 2, 2}, {2, 2})}, "", nullptr}, 4);
}

TEST(GpuArray, Fill) {
  for (const DType t : kWidths) {
    for (const int64_t n : {0, 1, 7, 8, 15, 16, 17, 1000}) {
      ExpectSame({"Fill", t, {{}}, {Ints({n})}, "ox", nullptr});
    }
  }
}

TEST(GpuArray, JoiningAndTakingApart) {
  for (const DType t : kWidths) {
    for (const int64_t n : {1, 3, 4, 16, 17}) {
      for (const int axis : {0, 1, 2}) {
        std::vector<Sizes> shapes(3, Sizes{2, 3, n});
        shapes[1][static_cast<size_t>(axis)] += 4;
        shapes[2][static_cast<size_t>(axis)] = 0;
        ExpectSame({"ConcatV2", t, shapes, {Int32(axis)}, "*o", nullptr});
        ExpectSame({"Pack", t, {{2, n}, {2, n}, {2, n}}, {}, "*", With("axis", axis)});
        Sizes shape = {2, 3, n};
        shape[static_cast<size_t>(axis)] = 6;
        ExpectSame({"Unpack", t, {shape}, {}, "",
                    [=](NodeBuilder* b) { b->Attr("axis", axis).Attr("num", 6); }});
        ExpectSame({"Split", t, {shape}, {Int32(axis)}, "ox", With("num_split", 3)});
        ExpectSame({"SplitV", t, {shape}, {Ints({1, 0, -1, 2}), Int32(axis)}, "",
                    With("num_split", 4)});
      }
    }
    // More parts than one launch takes.
    ExpectSame({"ConcatV2", t, std::vector<Sizes>(150, Sizes{3, 2}), {Int32(1)}, "*o", nullptr}, 4);
    ExpectSame({"Pack", t, std::vector<Sizes>(65), {}, "*", nullptr});
  }
}

TEST(GpuArray, Gather) {
  std::minstd_rand random(7);
  for (const DType t : kWidths) {
    for (const int64_t inner : {1, 3, 4, 16, 17}) {
      Sizes at;
      for (int i = 0; i < 20; ++i) at.push_back(static_cast<int64_t>(random() % 5));
      const Tensor at32 = Ints(at, {20}, DType::kInt32);
      ExpectSame({"GatherV2", t, {{5, inner}}, {Ints(at, {4, 5}), Int32(0)}, "", nullptr});
      ExpectSame({"GatherV2", t, {{3, 5, inner}}, {at32, Int32(1)}, "", nullptr}, 4);
      ExpectSame({"GatherV2", t, {{4, 2, 5, inner}}, {Ints(at, {4, 5}), Int32(2)}, "",
                  With("batch_dims", 1)});
      ExpectSame({"Gather", t, {{5, inner}}, {Ints(at)}, "", nullptr});
      ExpectSame({"GatherNd", t, {{5, 5, inner}}, {Ints(at, {10, 2})}, "", nullptr});
      ExpectSame({"GatherNd", t, {{5, 5, inner}}, {Ints(at, {20, 1})}, "", nullptr});
      ExpectSame({"GatherNd", t, {{5, inner}}, {Ints({}, {3, 0})}, "", nullptr});
    }
    const Tensor marks = Ints({0, 3, -1, 7, 2, 2}, {2, 3});
    for (const int axis : {0, 1, -1}) {
      ExpectSame({"OneHot", t, {{}, {}}, {marks, Int32(4)}, "ooxx", With("axis", axis)});
    }
  }
}

TEST(GpuArray, AnIndexOutsidePicksZerosAndAddsToNothing) {
  const Tensor at = Ints({-1, 1, 3, 1000000});
  std::vector<Tensor> found;
  ASSERT_OK(RunOn("/gpu:0", {"GatherV2", DType::kFloat, {{3, 5}}, {at, Int32(0)}, "", nullptr}, 1,
                  &found));
  ASSERT_OK(RunOn("/gpu:0",
                  {"UnsortedSegmentSum", DType::kFloat, {{4, 5}}, {at, Int(3)}, "", nullptr}, 1,
                  &found));
  const Tensor x = Numbers(DType::kFloat, {3, 5}, 10), y = Numbers(DType::kFloat, {4, 5}, 10);
  for (int64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(found[0].data<float>()[i], i / 5 == 1 ? x.data<float>()[i % 5 + 5] : 0) << i;
  }
  for (int64_t i = 0; i < 15; ++i) {
    EXPECT_EQ(found[1].data<float>()[i], i / 5 == 1 ? y.data<float>()[i % 5 + 5] : 0) << i;
  }
}

// Of more rows than a chunk, a sorted tile and many of them; of few sums and of many.
TEST(GpuArray, SumsOfRows) {
  std::minstd_rand random(3);
  for (const int64_t n : {1, 2, 63, 64, 65, 130, 1024, 1025, 2500}) {
    for (const int64_t segments : {1, 3, 40, 300, 70000}) {
      Sizes ids;
      for (int64_t i = 0; i < n; ++i) {
        ids.push_back(random() % 10 == 0 ? -1 : static_cast<int64_t>(random()) % segments);
      }
      ExpectSame({"UnsortedSegmentSum",
                  DType::kFloat,
                  {{n, 3}},
                  {Ints(ids), Int(segments)},
                  "",
                  nullptr});
    }
  }
  Sizes ids, pairs;
  for (int64_t i = 0; i < 300; ++i) {
    ids.push_back(i * i % 7);
    pairs.push_back(i % 5);
    pairs.push_back(i * 3 % 4);
  }
  for (const DType t : {DType::kHalf, DType::kBfloat16, DType::kDouble, DType::kUint8,
                        DType::kInt16, DType::kInt32, DType::kInt64}) {
    ExpectSame({"UnsortedSegmentSum", t, {{300, 2, 2}}, {Ints(ids), Int(7)}, "", nullptr}, 4);
    ExpectSame({"ScatterNd",
                t,
                {{300, 3}},
                {Ints(pairs, {300, 2}), Ints({5, 4, 3})},
                "oxo",
                nullptr});
  }
}

// Segments within a chunk of rows and over several of them, some of them empty. Products of floats
// are of few rows, so that they are exact.
TEST(GpuArray, ReductionsOfRows) {
  for (const int64_t n : {1, 5, 66, 300, 1500}) {
    for (const int64_t segments : {1, 7, 40}) {
      Sizes sorted, mixed;
      for (int64_t i = 0; i < n; ++i) {
        sorted.push_back(i * segments / n * 2);
        mixed.push_back(i * 11 % (segments + 2) - 1);
      }
      for (const char* how : {"Sum", "Prod", "Max", "Min"}) {
        for (const DType t : {DType::kFloat, DType::kHalf, DType::kUint8, DType::kInt16,
                              DType::kInt32, DType::kInt64}) {
          const bool exact = t != DType::kFloat && t != DType::kHalf;
          if (how[0] == 'P' && !exact && n > 5 * segments) continue;
          if (how[0] == 'S' && t == DType::kHalf && n > 5 * segments) continue;
          ExpectSame({absl::StrCat("UnsortedSegment", how),
                      t,
                      {{n, 3}},
                      {Ints(mixed), Int(segments + 1)},
                      "",
                      nullptr});
          ExpectSame({absl::StrCat("Segment", how), t, {{n, 3}}, {Ints(sorted)}, "", nullptr});
        }
      }
      ExpectSame({"SegmentMean", DType::kFloat, {{n, 2}}, {Ints(sorted)}, "", nullptr}, 4);
      Sizes picked;
      for (int64_t i = 0; i < n; ++i) picked.push_back(i * 5 % 9);
      for (const char* how : {"Sum", "Mean", "SqrtN"}) {
        ExpectSame({absl::StrCat("SparseSegment", how),
                    DType::kFloat,
                    {{9, 3}},
                    {Ints(picked), Ints(sorted)},
                    "",
                    nullptr},
                   4);
        ExpectSame({absl::StrCat("SparseSegment", how, "WithNumSegments"),
                    DType::kDouble,
                    {{9, 1}},
                    {Ints(picked), Ints(sorted), Int(2 * segments + 3)},
                    "",
                    nullptr});
        // Quotients aren't whole: their sums are equal where no row's terms reach over chunks.
        if (how != std::string("Sum") && n > 5) continue;
        ExpectSame({absl::StrCat("SparseSegment", how, "Grad"),
                    DType::kFloat,
                    {{2 * segments + 1, 3}},
                    {Ints(picked), Ints(sorted), Int32(10)},
                    "",
                    nullptr});
      }
    }
  }
  for (const char* op : {"SegmentSum", "UnsortedSegmentMax"}) {
    std::vector<Tensor> ids = {Ints({}, {0})};
    if (op[0] == 'U') ids.push_back(Int(3));
    ExpectSame({op, DType::kFloat, {{0, 3}}, ids, "", nullptr});
  }
}

// What the host checks of ids is an error there too.
TEST(GpuArray, IdsOnTheHostAreChecked) {
  std::vector<Tensor> found;
  for (const Case& c : std::vector<Case>{
           {"SegmentSum", DType::kFloat, {{3, 2}}, {Ints({1, 0, 2})}, "", nullptr},
           {"SparseSegmentSum", DType::kFloat, {{3, 2}}, {Ints({3}), Ints({0})}, "", nullptr},
           {"DynamicPartition",
            DType::kFloat,
            {{2, 2}},
            {Ints({0, 2}, {2}, DType::kInt32)},
            "",
            With("num_partitions", 2)}}) {
    const absl::Status s = RunOn("/gpu:0", c, 1, &found);
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << c.op << ": " << s;
    EXPECT_EQ(s, RunOn("/cpu:0", c, 1, &found)) << c.op;
  }
}

TEST(GpuArray, SlicesOfATensorAreUpdated) {
  Sizes pairs;
  for (int64_t i = 0; i < 100; ++i) {
    pairs.push_back(i % 5);
    pairs.push_back(i * 3 % 4);
  }
  for (const char* how : {"Update", "Add", "Sub", "Min", "Max"}) {
    for (const DType t : {DType::kFloat, DType::kHalf, DType::kUint8, DType::kInt64}) {
      const std::string op = absl::StrCat("TensorScatter", how);
      ExpectSame({op, t, {{5, 4, 3}, {100, 3}}, {Ints(pairs, {100, 2})}, "xox", nullptr}, 4);
      ExpectSame({op, t, {{5, 4}, {0, 4}}, {Ints({}, {0, 1})}, "xox", nullptr});
    }
  }
}

// More indices than one launch of a kernel takes along, and rows that nothing goes to.
TEST(GpuArray, StitchAndPartition) {
  for (const DType t : kWidths) {
    for (const int64_t n : {1, 7, 1000}) {
      for (const int64_t inner : {1, 3, 16}) {
        Sizes a, b, parts;
        for (int64_t i = 0; i < n; ++i) {
          a.push_back(i * 3 % (n + 2));
          b.push_back(i * i % n + 1);
          parts.push_back(i * 5 % 3);
        }
        const Tensor at_a = Ints(a, {n}, DType::kInt32), at_b = Ints(b, {n}, DType::kInt32);
        for (const char* op : {"DynamicStitch", "ParallelDynamicStitch"}) {
          ExpectSame({op, t, {{n, inner}, {n, inner}}, {at_a, at_b}, "#*", nullptr});
        }
        ExpectSame({"DynamicPartition",
                    t,
                    {{n, inner}},
                    {Ints(parts, {n}, DType::kInt32)},
                    "",
                    With("num_partitions", 4)},
                   4);
      }
    }
  }
  ExpectSame({"DynamicStitch",
              DType::kFloat,
              {{3}, {2, 2, 3}},
              {Ints({4}, {}, DType::kInt32), Ints({0, 2, 2, 1}, {2, 2}, DType::kInt32)},
              "#*",
              nullptr},
             4);
}

TEST(GpuArray, RunningSums) {
  for (const bool exclusive : {false, true}) {
    for (const bool reverse : {false, true}) {
      const auto attrs = [=](NodeBuilder* b) {
        b->Attr("exclusive", exclusive).Attr("reverse", reverse);
      };
      for (const DType t : {DType::kFloat, DType::kHalf, DType::kDouble, DType::kUint8,
                            DType::kInt16, DType::kInt32, DType::kInt64}) {
        for (const Sizes& shape :
             std::vector<Sizes>{{1}, {64}, {65}, {256}, {257}, {900}, {3, 64}, {0, 3}, {3, 0}}) {
          ExpectSame({"Cumsum", t, {shape}, {Int32(-1)}, "", attrs});
        }
        ExpectSame({"Cumsum", t, {{3, 70, 5}}, {Int(1)}, "", attrs});
      }
      ExpectSame({"Cumsum", DType::kFloat, {{2, 66, 4096}}, {Int32(1)}, "", attrs});
      ExpectSame({"Cumsum", DType::kBfloat16, {{40}}, {Int32(0)}, "", attrs});
    }
  }
  ExpectSame({"Cumsum", DType::kFloat, {{3, 4}}, {Int32(0)}, "", nullptr}, 4);
}

// What an optimizer makes of indices is colocated with the variable, which may stay on the GPU.
TEST(GpuArray, UniqueStandsBesideAVariable) {
  Graph graph;
  const Scope root(&graph);
  const Output v = ops::VariableV2(root.WithOpName("v").WithDevice("/gpu:0"), PartialShape({3}),
                                   DType::kFloat);
  ops::Assign(root.WithOpName("init"), v, ops::Const(root, Tensor::Of<float>({1, 2, 3})));
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kInt64);
  Node* const unique = NodeBuilder(root.WithOpName("unique"), "Unique")
                           .Input(x)
                           .Attr("_class", std::vector<std::string>{"loc:@v"})
                           .Build();
  ASSERT_OK(root.status());
  NodeBuilder(root.WithOpName("add"), "ScatterAdd")
      .Input(v)
      .Input(Output(unique, 0))
      .Input(ops::Const<float>(root, 10))
      .Build();
  ASSERT_OK(root.status());
  SessionOptions options;
  options.device = "gpu";
  options.allow_soft_placement = false;
  Session session(&graph, options);
  ASSERT_OK(session.Run({}, {}, {"init"}, nullptr));
  std::vector<Tensor> out;
  ASSERT_OK(session.Run({{"x", Ints({2, 0, 2})}}, std::vector<std::string>{"unique:1"}, {"add"},
                        &out));
  EXPECT_THAT(out[0].span<int32_t>(), ::testing::ElementsAre(0, 1, 0));
  ASSERT_OK(session.Run({}, std::vector<std::string>{"v"}, {}, &out));
  EXPECT_THAT(out[0].span<float>(), ::testing::ElementsAre(11, 2, 13));
}

}  // namespace
}  // namespace ferry
