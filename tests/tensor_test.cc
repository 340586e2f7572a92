// Shapes, element types, 16-bit floats, tensors, the buffers below them and their messages.

#include "runtime/tensor/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "google/protobuf/text_format.h"
#include "runtime/op/attr.h"

namespace ferry {
namespace {

using ::google::protobuf::TextFormat;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

// Puts the allocator's limit back.
class LimitTo {
 public:
  explicit LimitTo(int64_t limit) : old_(HostAllocator::Get()->limit()) {
    HostAllocator::Get()->set_limit(limit);
  }
  ~LimitTo() { HostAllocator::Get()->set_limit(old_); }

 private:
  const int64_t old_;
};

// ---------------------------------------------------------------------------------------------

TEST(TensorShapeTest, MakeChecks) {
  ASSERT_TRUE(TensorShape::Make({}).ok());
  EXPECT_EQ(TensorShape::Make({})->num_elements(), 1);
  EXPECT_EQ(TensorShape::Make({2, 3, 4})->num_elements(), 24);
  EXPECT_EQ(TensorShape::Make({kMax})->num_elements(), kMax);
  EXPECT_EQ(TensorShape::Make({kMax, 0, 1})->num_elements(), 0);
  EXPECT_TRUE(TensorShape::Make(std::vector<int64_t>(kMaxRank, 1)).ok());

  const std::vector<std::vector<int64_t>> bad = {{-1},
                                                 {2, std::numeric_limits<int64_t>::min()},
                                                 {int64_t{1} << 32, int64_t{1} << 31},
                                                 {kMax, 2},
                                                 {0, kMax, 2},
                                                 {kMax, 2, 0},
                                                 std::vector<int64_t>(kMaxRank + 1, 1)};
  for (const auto& dims : bad) {
    absl::StatusOr<TensorShape> s = TensorShape::Make(dims);
    EXPECT_TRUE(absl::IsInvalidArgument(s.status())) << dims.size();
  }
  EXPECT_THAT(std::string(TensorShape::Make({2, -7}).status().message()), HasSubstr("-7"));
}

TEST(TensorShapeTest, ChangesAndPrints) {
  TensorShape s({2, 3});
  EXPECT_EQ(s.DebugString(), "[2,3]");
  s.AddDim(5);
  EXPECT_EQ(s.num_elements(), 30);
  s.set_dim(0, 0);
  EXPECT_EQ(s.num_elements(), 0);
  s.set_dim(0, 4);
  EXPECT_EQ(s, TensorShape({4, 3, 5}));
  EXPECT_NE(TensorShape({2, 3}), TensorShape({3, 2}));
  EXPECT_NE(TensorShape(), TensorShape({1}));
  EXPECT_EQ(TensorShape().DebugString(), "[]");
}

TEST(DTypeTest, NamesComeBack) {
  for (int number = 1; number <= 32; ++number) {
    const DType t = static_cast<DType>(number);
    ASSERT_TRUE(IsKnown(t)) << number;
    ASSERT_TRUE(IsKnown(RefType(t)));
    for (DType u : {t, RefType(t)}) {
      EXPECT_EQ(DTypeFromName(DTypeName(u)), u);
      EXPECT_EQ(DTypeFromName(DTypeWord(u)), u);
      EXPECT_EQ(DTypeFromName(DTypeEnumName(u)), u);
      EXPECT_EQ(BaseType(u), t);
    }
    EXPECT_EQ(DTypeEnumName(t), proto::DataType_Name(static_cast<proto::DataType>(number)));
  }
  for (int number : {0, 33, 99, 100, 133, 201, 230, -1}) {
    EXPECT_FALSE(IsKnown(static_cast<DType>(number))) << number;
    EXPECT_EQ(ElementSize(static_cast<DType>(number)), 0u);
  }
  EXPECT_EQ(DTypeFromName("floaty"), DType::kInvalid);
  EXPECT_EQ(DTypeFromName(""), DType::kInvalid);
}

// ---------------------------------------------------------------------------------------------

// The value of a half's bits by the format's definition.
double HalfValue(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

TEST(Float16Test, EveryHalfConvertsBothWays) {
  for (uint32_t b = 0; b < 0x10000; ++b) {
    const Half h{static_cast<uint16_t>(b)};
    const float f = HalfToFloat(h);
    if ((b & 0x7c00) != 0x7c00) {
      ASSERT_EQ(static_cast<double>(f), HalfValue(h.bits)) << b;
      ASSERT_EQ(std::signbit(f), (b & 0x8000) != 0) << b;
      ASSERT_EQ(FloatToHalf(f).bits, b);
    } else if ((b & 0x3ff) == 0) {
      ASSERT_TRUE(std::isinf(f));
      ASSERT_EQ(FloatToHalf(f).bits, b);
    } else {
      ASSERT_TRUE(std::isnan(f));
      ASSERT_TRUE(std::isnan(HalfToFloat(FloatToHalf(f))));
    }
  }
}

TEST(Float16Test, HalvesRoundToNearestEven) {
  // Between each two neighbours: just below the middle, the middle, just above it.
  for (uint32_t b = 0; b < 0x7bff; ++b) {
    const double low = HalfValue(static_cast<uint16_t>(b));
    const double high = HalfValue(static_cast<uint16_t>(b + 1));
    const float middle = static_cast<float>((low + high) / 2);  // Exact.
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)).bits, b) << b;
    ASSERT_EQ(FloatToHalf(middle).bits, b % 2 == 0 ? b : b + 1) << b;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 1e9f)).bits, b + 1) << b;
    ASSERT_EQ(FloatToHalf(-middle).bits, (b % 2 == 0 ? b : b + 1) | 0x8000) << b;
  }
  EXPECT_EQ(FloatToHalf(std::nextafter(65520.0f, 0.0f)).bits, 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f).bits, 0x7c00);
  EXPECT_EQ(FloatToHalf(-1e30f).bits, 0xfc00);
  EXPECT_EQ(FloatToHalf(1.0f / 3).bits, 0x3555);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::denorm_min()).bits, 0);
}

TEST(Float16Test, Bfloat16IsTheUpperHalfRoundedToNearestEven) {
  for (uint32_t b = 0; b < 0x10000; ++b) {
    const Bfloat16 x{static_cast<uint16_t>(b)};
    const float f = Bfloat16ToFloat(x);
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    if (std::isnan(f)) {
      ASSERT_TRUE(std::isnan(Bfloat16ToFloat(FloatToBfloat16(f))));
      continue;
    }
    ASSERT_EQ(bits, b << 16);
    ASSERT_EQ(FloatToBfloat16(f).bits, b);
    if ((b & 0x7fff) >= 0x7f80) continue;  // Nothing beyond infinity.
    for (uint32_t low : {0x7fffu, 0x8000u, 0x8001u}) {
      const uint32_t between = (b << 16) | low;
      float g;
      std::memcpy(&g, &between, 4);
      const bool up = low > 0x8000 || (low == 0x8000 && b % 2 == 1);
      ASSERT_EQ(FloatToBfloat16(g).bits, b + (up ? 1 : 0)) << b << " " << low;
    }
  }
  // A NaN whose payload lies in the lower bits only must not become infinity.
  const uint32_t nan_bits = 0x7f800001;
  float nan;
  std::memcpy(&nan, &nan_bits, 4);
  EXPECT_TRUE(std::isnan(Bfloat16ToFloat(FloatToBfloat16(nan))));
}

// ---------------------------------------------------------------------------------------------

TEST(BufferTest, CountsItsHoldersAndFreesWithTheLast) {
  HostAllocator* a = HostAllocator::Get();
  const int64_t before = a->bytes_in_use();
  {
    BufferRef b = *a->Allocate(1000);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b->data()) % kHostAlignment, 0u);
    EXPECT_EQ(b->capacity(), 1000u);
    EXPECT_EQ(a->bytes_in_use(), before + 1000);
    EXPECT_EQ(b->refs(), 1);
    BufferRef c = b;
    EXPECT_EQ(b->refs(), 2);
    BufferRef d = std::move(c);
    EXPECT_EQ(b->refs(), 2);
    BufferRef& alias = b;
    b = alias;
    EXPECT_EQ(b->refs(), 2);
    d.reset();
    EXPECT_EQ(b->refs(), 1);
    b = BufferRef();
    EXPECT_EQ(a->bytes_in_use(), before);
  }
  EXPECT_EQ(a->bytes_in_use(), before);
}

TEST(BufferTest, HoldersInManyThreads) {
  const int64_t before = HostAllocator::Get()->bytes_in_use();
  {
    Tensor t = Tensor::Of<int32_t>({1, 2, 3});
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([copy = t] {
        for (int k = 0; k < 1000; ++k) {
          Tensor mine = copy;
          EXPECT_EQ(mine.data<int32_t>()[2], 3);
        }
      });
    }
    for (std::thread& th : threads) th.join();
    threads.clear();
    EXPECT_EQ(t.buffer()->refs(), 1);
  }
  EXPECT_EQ(HostAllocator::Get()->bytes_in_use(), before);
}

TEST(BufferTest, LimitIsOnWhatIsInUseAtOnce) {
  HostAllocator* a = HostAllocator::Get();
  LimitTo limit(a->bytes_in_use() + 1000);
  absl::StatusOr<BufferRef> b = a->Allocate(600);
  ASSERT_TRUE(b.ok());
  absl::StatusOr<BufferRef> c = a->Allocate(401);
  ASSERT_TRUE(absl::IsResourceExhausted(c.status()));
  EXPECT_THAT(std::string(c.status().message()), HasSubstr("401 bytes"));
  EXPECT_TRUE(a->Allocate(400).ok());
  EXPECT_TRUE(a->CheckFits(400).ok());
  EXPECT_FALSE(a->CheckFits(401).ok());
  b->reset();
  EXPECT_TRUE(a->Allocate(1000).ok());
  for (size_t huge : {~size_t{0}, size_t{1} << 63, (size_t{1} << 63) - 1}) {
    EXPECT_TRUE(absl::IsResourceExhausted(a->Allocate(huge).status()));
  }
  EXPECT_EQ(a->bytes_in_use() + 1000, a->limit());
}

TEST(BufferTest, AFailingThreadDoesNotTakeFromOthers) {
  HostAllocator* a = HostAllocator::Get();
  LimitTo limit(a->bytes_in_use() + (1 << 20));
  std::atomic<bool> stop{false};
  std::thread greedy([&] {
    while (!stop) EXPECT_FALSE(a->Allocate((1 << 20) + 1).ok());
  });
  for (int i = 0; i < 2000; ++i) EXPECT_TRUE(a->Allocate(1 << 20).ok());
  stop = true;
  greedy.join();
}

TEST(BufferTest, StringsCountAndCannotOverflow) {
  HostAllocator* a = HostAllocator::Get();
  const int64_t before = a->bytes_in_use();
  {
    BufferRef b = *AllocateStrings(3);
    EXPECT_EQ(static_cast<std::string*>(b->data())[2], "");
    EXPECT_GT(a->bytes_in_use(), before);
    static_cast<std::string*>(b->data())[1] = std::string(100, 'x');
  }
  EXPECT_EQ(a->bytes_in_use(), before);
  for (int64_t n : {kMax, int64_t{1} << 59, int64_t{1} << 58, int64_t{1} << 45}) {
    EXPECT_TRUE(absl::IsResourceExhausted(AllocateStrings(n).status())) << n;
  }
  EXPECT_EQ(a->bytes_in_use(), before);
}

TEST(TensorTest, AllocateChecks) {
  EXPECT_TRUE(Tensor::Allocate(DType::kFloat, {0, 3})->initialized());
  for (DType t : {DType::kInvalid, DType::kResource, DType::kVariant, RefType(DType::kFloat),
                  static_cast<DType>(77)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Tensor::Allocate(t, {2}).status()));
  }
  for (DType t : {DType::kComplex128, DType::kFloat, DType::kUint8, DType::kString}) {
    EXPECT_TRUE(absl::IsResourceExhausted(Tensor::Allocate(t, {kMax}).status()));
  }
}

TEST(TensorTest, SharesAndCopies) {
  Tensor t = Tensor::Of<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  EXPECT_EQ(t.bytes(), 24u);
  Tensor view = t.WithShape({6});
  EXPECT_TRUE(view.SharesBufferWith(t));
  EXPECT_EQ(t.buffer()->refs(), 2);
  Tensor copy = *t.DeepCopy();
  EXPECT_FALSE(copy.SharesBufferWith(t));
  view.data<float>()[0] = 9;
  EXPECT_EQ(t.data<float>()[0], 9);
  EXPECT_EQ(copy.data<float>()[0], 1);
  EXPECT_EQ(t.DebugString(2), "float32 [2,3] 9 2 ...");
  EXPECT_EQ(t.WithDType(DType::kInt32).data<int32_t>()[0], 0x41100000);

  Tensor strings = Tensor::Of<std::string>({"a", std::string("b\0c", 3)});
  Tensor other = *strings.DeepCopy();
  strings.data<std::string>()[0] = "z";
  EXPECT_THAT(other.span<std::string>(), ElementsAre("a", std::string("b\0c", 3)));

  Tensor none;
  EXPECT_FALSE(none.initialized());
  EXPECT_FALSE(none.SharesBufferWith(none));
  EXPECT_FALSE(none.WithShape({1}).initialized());
  EXPECT_FALSE(none.DeepCopy()->initialized());
}

// ---------------------------------------------------------------------------------------------

absl::StatusOr<Tensor> Read(const std::string& text) {
  proto::TensorProto p;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &p)) << text;
  return FromProto(p);
}

// The message of `t` as one line of text.
std::string Written(const Tensor& t) {
  proto::TensorProto p;
  ToProto(t, &p);
  TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  EXPECT_TRUE(printer.PrintToString(p, &text));
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

TEST(TensorProtoTest, EveryTypeComesBackInEveryShape) {
  for (int number = 1; number <= 32; ++number) {
    const DType dtype = static_cast<DType>(number);
    if (dtype == DType::kResource || dtype == DType::kVariant) continue;
    for (const TensorShape& shape : {TensorShape(), TensorShape({1}), TensorShape({0, 4}),
                                     TensorShape({2, 3}), TensorShape({5})}) {
      Tensor t = *Tensor::Allocate(dtype, shape);
      if (dtype == DType::kString) {
        for (int64_t i = 0; i < t.num_elements(); ++i) {
          t.data<std::string>()[i] = i % 2 ? std::string("\0\xff", 2) : std::string(i, 'y');
        }
      } else {
        auto* bytes = static_cast<uint8_t*>(t.raw());
        for (size_t i = 0; i < t.bytes(); ++i) {
          bytes[i] = static_cast<uint8_t>(i * 37 + 0xc5);
          if (dtype == DType::kBool) bytes[i] = i % 3 == 0;
          if (dtype == DType::kUint4) bytes[i] &= 15;
          if (dtype == DType::kUint2) bytes[i] &= 3;
          if (dtype == DType::kInt2) bytes[i] = static_cast<uint8_t>(i % 2 ? -2 : 1);
          if (dtype == DType::kInt4) bytes[i] = static_cast<uint8_t>(i % 2 ? -3 : 7);
        }
      }
      proto::TensorProto p;
      ToProto(t, &p);
      absl::StatusOr<Tensor> back = FromProto(p);
      ASSERT_TRUE(back.ok()) << back.status();
      ASSERT_EQ(back->dtype(), dtype);
      ASSERT_EQ(back->shape(), shape);
      if (dtype == DType::kString) {
        ASSERT_EQ(back->span<std::string>(), t.span<std::string>());
      } else {
        ASSERT_EQ(std::memcmp(back->raw(), t.raw(), t.bytes()), 0) << t.DebugString();
      }
    }
  }
}

// What TensorFlow 2.21's make_tensor_proto writes.
TEST(TensorProtoTest, WritesTensorFlowsForms) {
  EXPECT_EQ(Written(Tensor::Scalar<float>(2)), "dtype: DT_FLOAT tensor_shape { } float_val: 2");
  EXPECT_EQ(Written(Tensor::Of<int8_t>({1, 1, -1})),
            "dtype: DT_INT8 tensor_shape { dim { size: 3 } } tensor_content: \"\\001\\001\\377\"");
  EXPECT_EQ(Written(Tensor::Of<Half>({{0x3e00}}, {1, 1})),
            "dtype: DT_HALF tensor_shape { dim { size: 1 } dim { size: 1 } } half_val: 15872");
  EXPECT_EQ(Written(Tensor::Of<Bfloat16>({{0x3f80}, {0x3f80}})),
            "dtype: DT_BFLOAT16 tensor_shape { dim { size: 2 } } tensor_content: "
            "\"\\200?\\200?\"");
  EXPECT_EQ(Written(Tensor::Of<bool>({true, false})),
            "dtype: DT_BOOL tensor_shape { dim { size: 2 } } bool_val: true bool_val: false");
  EXPECT_EQ(Written(Tensor::Of<std::string>({"a", "b"})),
            "dtype: DT_STRING tensor_shape { dim { size: 2 } } string_val: \"a\" "
            "string_val: \"b\"");
  EXPECT_EQ(Written(Tensor::Of<float>({}, {0, 2})),
            "dtype: DT_FLOAT tensor_shape { dim { } dim { size: 2 } }");
  Tensor complex = *Tensor::Allocate(DType::kComplex64, {2});
  const float parts[] = {1, 0, 1, -2};
  std::memcpy(complex.raw(), parts, sizeof parts);
  EXPECT_EQ(Written(complex),
            "dtype: DT_COMPLEX64 tensor_shape { dim { size: 2 } } scomplex_val: 1 "
            "scomplex_val: 0 scomplex_val: 1 scomplex_val: -2");
  EXPECT_EQ(Written(Tensor::Of<int8_t>({-1, -8, 7}).WithDType(DType::kInt4)),
            "dtype: DT_INT4 tensor_shape { dim { size: 3 } } int_val: -1 int_val: -8 int_val: 7");
  EXPECT_EQ(Written(Tensor::Of<uint8_t>({'B'}, {}).WithDType(DType::kFloat8E5m2)),
            "dtype: DT_FLOAT8_E5M2 tensor_shape { } float8_val: \"B\"");
}

TEST(TensorProtoTest, ShortFieldsRepeatTheLastValue) {
  const std::string shape4 = "tensor_shape { dim { size: 4 } } ";
  EXPECT_THAT(Read("dtype: DT_FLOAT " + shape4 + "float_val: 1 float_val: 2")->span<float>(),
              ElementsAre(1, 2, 2, 2));
  EXPECT_THAT(Read("dtype: DT_INT64 " + shape4)->span<int64_t>(), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(Read("dtype: DT_BOOL " + shape4 + "bool_val: true")->span<bool>(),
              ElementsAre(true, true, true, true));
  EXPECT_THAT(
      Read("dtype: DT_STRING " + shape4 + "string_val: 'a' string_val: 'bc'")->span<std::string>(),
      ElementsAre("a", "bc", "bc", "bc"));
  EXPECT_THAT(Read("dtype: DT_STRING " + shape4)->span<std::string>(), ElementsAre("", "", "", ""));
  EXPECT_THAT(Read("dtype: DT_INT8 " + shape4 + "int_val: -1 int_val: 127")->span<int8_t>(),
              ElementsAre(-1, 127, 127, 127));
  EXPECT_THAT(Read("dtype: DT_UINT16 " + shape4 + "int_val: 65535")->span<uint16_t>(),
              ElementsAre(65535, 65535, 65535, 65535));
  absl::StatusOr<Tensor> half = Read("dtype: DT_HALF " + shape4 + "half_val: 15360 half_val: 0");
  EXPECT_EQ(HalfToFloat(half->data<Half>()[0]), 1.0f);
  EXPECT_EQ(half->data<Half>()[3].bits, 0);
  absl::StatusOr<Tensor> c = Read(
      "dtype: DT_COMPLEX128 tensor_shape { dim { size: 3 } } "
      "dcomplex_val: [1, 2, 3, 4]");
  const auto* parts = static_cast<const double*>(c->raw());
  EXPECT_THAT(std::vector<double>(parts, parts + 6), ElementsAre(1, 2, 3, 4, 3, 4));
  absl::StatusOr<Tensor> f8 = Read("dtype: DT_FLOAT8_E4M3FN " + shape4 + "float8_val: 'AB'");
  EXPECT_EQ(std::memcmp(f8->raw(), "ABBB", 4), 0);
  absl::StatusOr<Tensor> i4 = Read("dtype: DT_INT4 " + shape4 + "int_val: -1 int_val: 3");
  EXPECT_EQ(std::memcmp(i4->raw(), "\xff\x03\x03\x03", 4), 0);
}

TEST(TensorProtoTest, ContentOfStringsAndBools) {
  EXPECT_THAT(Read("dtype: DT_STRING tensor_shape { dim { size: 3 } } "
                   "tensor_content: '\\002\\000\\003abxyz'")
                  ->span<std::string>(),
              ElementsAre("ab", "", "xyz"));
  const std::string head = "dtype: DT_STRING tensor_shape { dim { size: 2 } } tensor_content: ";
  for (const char* bad : {"'\\001'", "'\\001\\002ab'", "'\\001\\001abc'", "'\\200\\200'",
                          "'\\377\\377\\377\\377\\377\\377\\001a'"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Read(head + bad).status())) << bad;
  }
  // A byte that is no bool must not become one as it is.
  absl::StatusOr<Tensor> b =
      Read("dtype: DT_BOOL tensor_shape { dim { size: 3 } } tensor_content: '\\000\\001\\200'");
  EXPECT_EQ(std::memcmp(b->raw(), "\0\1\1", 3), 0);
}

TEST(TensorProtoTest, HostileMessagesGetErrors) {
  const std::string float2 = "dtype: DT_FLOAT tensor_shape { dim { size: 2 } } ";
  for (const std::string& bad : {
           float2 + "float_val: [1, 2, 3]",
           float2 + "tensor_content: 'abcdefg'",
           float2 + "tensor_content: 'abcdefghi'",
           std::string("dtype: DT_FLOAT tensor_shape { dim { size: 0 } } float_val: 1"),
           std::string("dtype: DT_STRING tensor_shape { } string_val: ['a', 'b']"),
           std::string("dtype: DT_COMPLEX64 tensor_shape { dim { size: 2 } } scomplex_val: 1"),
           std::string("dtype: DT_COMPLEX64 tensor_shape { } scomplex_val: [1, 2, 3]"),
           std::string("dtype: DT_FLOAT8_E5M2 tensor_shape { } float8_val: 'ab'"),
           std::string("dtype: DT_FLOAT tensor_shape { unknown_rank: true }"),
           std::string("dtype: DT_FLOAT tensor_shape { dim { size: -1 } }"),
           std::string("dtype: DT_FLOAT tensor_shape { dim { size: -5 } }"),
           std::string("dtype: DT_FLOAT tensor_shape { dim { size: 0 } "
                       "dim { size: 4294967296 } dim { size: 4294967296 } }"),
           std::string("dtype: DT_FLOAT tensor_shape { dim { size: 4294967296 } "
                       "dim { size: 4294967296 } }"),
           std::string("dtype: DT_FLOAT tensor_shape { dim { size: 4611686018427387904 } } "
                       "tensor_content: 'abcd'"),
           std::string("dtype: DT_INVALID tensor_shape { }"),
           std::string("dtype: DT_RESOURCE tensor_shape { }"),
           std::string("dtype: DT_VARIANT tensor_shape { }"),
           std::string("dtype: DT_FLOAT_REF tensor_shape { } float_val: 1"),
           std::string("dtype: DT_FLOAT4_E2M1FN tensor_shape { } int_val: 1"),
       }) {
    EXPECT_TRUE(absl::IsInvalidArgument(Read(bad).status())) << bad;
  }
  proto::TensorProto odd;
  odd.set_dtype(static_cast<proto::DataType>(-2000000000));
  EXPECT_TRUE(absl::IsInvalidArgument(FromProto(odd).status()));
  proto::TensorProto deep;
  deep.set_dtype(proto::DT_FLOAT);
  for (int i = 0; i <= kMaxRank; ++i) deep.mutable_tensor_shape()->add_dim()->set_size(1);
  EXPECT_TRUE(absl::IsInvalidArgument(FromProto(deep).status()));

  EXPECT_THAT(std::string(Read(float2 + "float_val: [1, 2, 3]").status().message()),
              HasSubstr("has 2 elements, but the message holds 3 values"));
}

TEST(TensorProtoTest, CompactConstantsBeyondTheLimitAreRefused) {
  for (const char* dtype : {"DT_FLOAT", "DT_STRING", "DT_COMPLEX128", "DT_INT4"}) {
    for (const char* size : {"9223372036854775807", "1152921504606846976", "1125899906842624"}) {
      absl::StatusOr<Tensor> t =
          Read(std::string("dtype: ") + dtype + " tensor_shape { dim { size: " + size + " } }");
      EXPECT_TRUE(absl::IsResourceExhausted(t.status())) << t.status();
    }
  }
  // The string objects fit; a thousand times the last value doesn't.
  const std::string one(10000, 'x');
  LimitTo limit(HostAllocator::Get()->bytes_in_use() + 1000000);
  const std::string text = "dtype: DT_STRING string_val: '" + one + "' tensor_shape { dim { size: ";
  EXPECT_TRUE(absl::IsResourceExhausted(Read(text + "1000 } }").status()));
  EXPECT_TRUE(Read(text + "10 } }").ok());
}

TEST(ShapeProtoTest, BothWays) {
  for (const PartialShape& s :
       {PartialShape(), PartialShape::Scalar(), PartialShape({2, -1, 0}), PartialShape({7})}) {
    proto::TensorShapeProto p;
    p.add_dim()->set_size(99);  // ToProto starts afresh.
    ToProto(s, &p);
    EXPECT_EQ(*FromProto(p), s);
  }
  proto::TensorShapeProto both;
  both.set_unknown_rank(true);
  both.add_dim()->set_size(1);
  EXPECT_TRUE(absl::IsInvalidArgument(FromProto(both).status()));
}

}  // namespace
}  // namespace ferry
