// Op definitions, attributes, partial shapes and what shape functions share.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "runtime/base/status.h"
#include "runtime/op/op_def.h"
#include "runtime/op/shape_inference.h"

namespace ferry {
namespace {

using ::google::protobuf::TextFormat;
using ::google::protobuf::util::MessageDifferencer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

FERRY_OP("TestMatMul")
    .Input("a: T")
    .Input("b: T")
    .Output("product: T")
    .Attr("transpose_a: bool = false")
    .Attr("transpose_b: bool=true")
    .Attr("T: {float, double}")
    .Commutative();

FERRY_OP("TestAll")
    .Input("r: Ref(T)")
    .Input("many: N * T")
    .Input("list: TList")
    .Input("refs:Ref(N*float)")
    .Input("dtypes: M * dtype")
    .Output("o: TList")
    .Output("fixed: string")
    .Output("oref: Ref(dtype)")
    .Attr("T: numbertype")
    .Attr("dtype: type")
    .Attr("N: int")
    .Attr("M: int >= 0")
    .Attr("TList: list(type) >= 0")
    .Stateful()
    .Aggregate()
    .AllowsUninitializedInput()
    .NotDifferentiable()
    .AliasesInput(1)
    .Shape(ScalarShape);

FERRY_OP("TestDefaults")
    .Attr("s: string = 'a\\'b\\n'")
    .Attr("s2: string = \"x, {y}\"")
    .Attr("i: int >= -5 = -3")
    .Attr("f: float = 1.5e-3")
    .Attr("inf: float = -inf")
    .Attr("b: bool = true")
    .Attr("t: type = DT_HALF")
    .Attr("t2: {int32, int64} = int64")
    .Attr("sh: shape = { unknown_rank: true }")
    .Attr("scalar: shape = {}")
    .Attr("ten: tensor = { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 7 }")
    .Attr("fn: func = { name: 'g' }")
    .Attr("li: list(int) = [1, -2,3]")
    .Attr("le: list(int) = []")
    .Attr("ls: list({'p', 'q'}) = ['q', 'p']")
    .Attr("lt: list({float, int32}) >= 1 = [DT_FLOAT, int32]")
    .Attr("lb: list(bool) = [true, false]")
    .Attr("lsh: list(shape) = [{ dim { size: 4 } }, {unknown_rank:true}]")
    .Attr("padding: {'SAME', \"VALID\"} = 'SAME'");

TEST(OpDefTest, ParsesArguments) {
  const OpInfo* info = FindOp("TestAll");
  ASSERT_NE(info, nullptr);
  proto::OpDef expected;
  ASSERT_TRUE(TextFormat::ParseFromString(
      R"pb(
        name: "TestAll"
        input_arg { name: "r" type_attr: "T" is_ref: true }
        input_arg { name: "many" number_attr: "N" type_attr: "T" }
        input_arg { name: "list" type_list_attr: "TList" }
        input_arg { name: "refs" number_attr: "N" type: DT_FLOAT is_ref: true }
        input_arg { name: "dtypes" number_attr: "M" type_attr: "dtype" }
        output_arg { name: "o" type_list_attr: "TList" }
        output_arg { name: "fixed" type: DT_STRING }
        output_arg { name: "oref" type_attr: "dtype" is_ref: true }
        attr {
          name: "T"
          type: "type"
          allowed_values {
            list {
              type: [
                DT_FLOAT,
                DT_DOUBLE,
                DT_INT32,
                DT_UINT8,
                DT_INT16,
                DT_INT8,
                DT_COMPLEX64,
                DT_INT64,
                DT_QINT8,
                DT_QUINT8,
                DT_QINT32,
                DT_BFLOAT16,
                DT_QINT16,
                DT_QUINT16,
                DT_UINT16,
                DT_COMPLEX128,
                DT_HALF,
                DT_UINT32,
                DT_UINT64
              ]
            }
          }
        }
        attr { name: "dtype" type: "type" }
        attr { name: "N" type: "int" has_minimum: true minimum: 1 }
        attr { name: "M" type: "int" has_minimum: true minimum: 0 }
        attr { name: "TList" type: "list(type)" has_minimum: true minimum: 0 }
        is_aggregate: true
        is_stateful: true
        allows_uninitialized_input: true
      )pb",
      &expected));
  EXPECT_TRUE(MessageDifferencer::Equals(info->def, expected)) << info->def.DebugString();
  EXPECT_TRUE(info->not_differentiable);
  EXPECT_EQ(info->aliases_input, 1);
  EXPECT_EQ(FindOp("TestAl"), nullptr);
  EXPECT_EQ(FindOp(""), nullptr);
}

TEST(OpDefTest, AllOpsAreSorted) {
  std::vector<std::string> names;
  for (const OpInfo* info : AllOps()) {
    names.push_back(info->def.name());
    EXPECT_NE(info->shape, nullptr) << info->def.name();
  }
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_THAT(names, testing::IsSupersetOf({"TestAll", "TestDefaults", "TestMatMul"}));
}

TEST(OpDefTest, DefaultsOfEveryKind) {
  AttrMap attrs;
  ASSERT_TRUE(CompleteAttrs(FindOp("TestDefaults")->def, &attrs).ok());
  EXPECT_EQ(*GetAttr<std::string>(attrs, "s"), "a'b\n");
  EXPECT_EQ(*GetAttr<std::string>(attrs, "s2"), "x, {y}");
  EXPECT_EQ(*GetAttr<int64_t>(attrs, "i"), -3);
  EXPECT_EQ(*GetAttr<int32_t>(attrs, "i"), -3);
  EXPECT_EQ(*GetAttr<float>(attrs, "f"), 1.5e-3f);
  EXPECT_EQ(*GetAttr<float>(attrs, "inf"), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(*GetAttr<bool>(attrs, "b"));
  EXPECT_EQ(*GetAttr<DType>(attrs, "t"), DType::kHalf);
  EXPECT_EQ(*GetAttr<DType>(attrs, "t2"), DType::kInt64);
  EXPECT_EQ(*GetAttr<PartialShape>(attrs, "sh"), PartialShape());
  EXPECT_EQ(*GetAttr<TensorShape>(attrs, "scalar"), TensorShape());
  EXPECT_THAT(GetAttr<Tensor>(attrs, "ten")->span<float>(), ElementsAre(7, 7));
  EXPECT_EQ(attrs.at("fn").func().name(), "g");
  EXPECT_THAT(*GetAttr<std::vector<int64_t>>(attrs, "li"), ElementsAre(1, -2, 3));
  EXPECT_THAT(*GetAttr<std::vector<int64_t>>(attrs, "le"), IsEmpty());
  EXPECT_THAT(*GetAttr<std::vector<std::string>>(attrs, "ls"), ElementsAre("q", "p"));
  EXPECT_THAT(*GetAttr<std::vector<DType>>(attrs, "lt"), ElementsAre(DType::kFloat, DType::kInt32));
  EXPECT_THAT(*GetAttr<std::vector<bool>>(attrs, "lb"), ElementsAre(true, false));
  EXPECT_THAT(*GetAttr<std::vector<PartialShape>>(attrs, "lsh"),
              ElementsAre(PartialShape({4}), PartialShape()));
  EXPECT_EQ(*GetAttr<std::string>(attrs, "padding"), "SAME");
}

TEST(OpDefDeathTest, MistakesEndTheProgramWithAMessage) {
  const auto attr = [](const char* spec) {
    OpBuilder::Registrar r(OpBuilder("Broken").Attr(spec));
  };
  const auto input = [](const char* spec) {
    OpBuilder::Registrar r(OpBuilder("Broken").Input(spec).Attr("n: float"));
  };
  EXPECT_DEATH(attr("T"), "op Broken: \"T\": name: expected");
  EXPECT_DEATH(attr("T: flot"), "kind");
  EXPECT_DEATH(attr("T: {float, 'x'}"), "types or strings");
  EXPECT_DEATH(attr("T: {float"), "'}'");
  EXPECT_DEATH(attr("i: int = x"), "integer");
  EXPECT_DEATH(attr("i: int = 99999999999999999999"), "integer");
  EXPECT_DEATH(attr("s: string >= 2"), "minimum");
  EXPECT_DEATH(attr("s: string = 'x"), "closing quote");
  EXPECT_DEATH(attr("l: list(int) = [1, 2"), "','");
  EXPECT_DEATH(attr("s: shape = { nonsense: 1 }"), "message");
  EXPECT_DEATH(attr("i: int = 3 4"), "nothing more");
  EXPECT_DEATH(input("x: N * float"), "no int attribute 'N'");
  EXPECT_DEATH(input("x: n"), "is no type");
  EXPECT_DEATH(input("x: T"), "neither a type nor an attribute");
  EXPECT_DEATH(input("x: Ref(float"), "'\\)'");
  EXPECT_DEATH({ OpBuilder::Registrar r(OpBuilder("TestAll")); }, "op TestAll: registered twice");
}

TEST(CompleteAttrsTest, ChecksAgainstTheDefinition) {
  const proto::OpDef& matmul = FindOp("TestMatMul")->def;
  const proto::OpDef& all = FindOp("TestAll")->def;
  const proto::OpDef& defaults = FindOp("TestDefaults")->def;
  const auto error = [](const proto::OpDef& def, AttrMap attrs) {
    absl::Status status = CompleteAttrs(def, &attrs);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  const auto with = [](const char* name, proto::AttrValue v) {
    AttrMap attrs;
    attrs[name] = std::move(v);
    return attrs;
  };
  EXPECT_EQ(error(matmul, {}), "NodeDef missing attr 'T' from Op<name=TestMatMul>");
  EXPECT_EQ(error(matmul, with("T", MakeAttr(DType::kString))),
            "Value for attr 'T' of string is not in the list of allowed values: float, double; "
            "Op<name=TestMatMul>");
  EXPECT_EQ(error(defaults, with("padding", MakeAttr("FULL"))),
            "Value for attr 'padding' of \"FULL\" is not in the list of allowed values: "
            "\"SAME\", \"VALID\"; Op<name=TestDefaults>");
  EXPECT_THAT(error(defaults, with("ls", MakeAttr(std::vector<std::string>{"p", "z"}))),
              HasSubstr("'ls' of \"z\""));
  EXPECT_THAT(error(defaults, with("lt", MakeAttr(std::vector<DType>{DType::kBool}))),
              HasSubstr("'lt' of bool is not in the list of allowed values: float, int32"));
  EXPECT_THAT(error(defaults, with("lt", MakeAttr(std::vector<DType>{}))),
              HasSubstr("Length for attr 'lt' of 0 must be at least minimum 1"));
  EXPECT_THAT(error(defaults, with("i", MakeAttr(-6))),
              HasSubstr("Value for attr 'i' of -6 must be at least minimum -5"));
  EXPECT_THAT(error(defaults, with("i", MakeAttr("x"))),
              HasSubstr("AttrValue had value with type 'string' when 'int' expected for attr 'i'"));
  EXPECT_THAT(error(defaults, with("i", proto::AttrValue())), HasSubstr("'nothing'"));
  EXPECT_THAT(error(defaults, with("li", MakeAttr(std::vector<float>{1}))),
              HasSubstr("'list(float)' when 'list(int)'"));
  EXPECT_THAT(error(matmul, with("T", MakeAttr(RefType(DType::kFloat)))),
              HasSubstr("must not have reference type value of float_ref for attr 'T'"));
  EXPECT_THAT(error(all, with("T", MakeAttr(static_cast<DType>(1234)))),
              HasSubstr("invalid DataType enum: 1234"));
  EXPECT_THAT(error(all, with("T", MakeAttr(DType::kInvalid))), HasSubstr("enum: 0"));

  // A list of two kinds at once is of neither.
  proto::AttrValue mixed = MakeAttr(std::vector<int64_t>{1});
  mixed.mutable_list()->add_f(1);
  EXPECT_THAT(error(defaults, with("li", mixed)), HasSubstr("'list(int, float)'"));

  // What the definition lacks passes as it is.
  AttrMap attrs = with("T", MakeAttr(DType::kDouble));
  attrs["_class"] = MakeAttr(std::vector<std::string>{"loc:@v"});
  attrs["grad_a"] = MakeAttr(false);
  attrs["transpose_a"] = MakeAttr(true);
  ASSERT_TRUE(CompleteAttrs(matmul, &attrs).ok());
  EXPECT_EQ(attrs.size(), 5u);
  EXPECT_TRUE(*GetAttr<bool>(attrs, "transpose_a"));
  EXPECT_TRUE(*GetAttr<bool>(attrs, "transpose_b"));
  EXPECT_TRUE(attrs.contains("grad_a"));
}

TEST(InOutTypesTest, ExpandsArguments) {
  const proto::OpDef& def = FindOp("TestAll")->def;
  AttrMap attrs;
  attrs["T"] = MakeAttr(DType::kInt32);
  attrs["dtype"] = MakeAttr(DType::kBool);
  attrs["N"] = MakeAttr(2);
  attrs["M"] = MakeAttr(0);
  attrs["TList"] = MakeAttr(std::vector<DType>{DType::kHalf, DType::kString, DType::kFloat});
  ASSERT_TRUE(CompleteAttrs(def, &attrs).ok());
  std::vector<DType> in, out;
  ASSERT_TRUE(InOutTypes(def, attrs, &in, &out).ok());
  EXPECT_THAT(in, ElementsAre(RefType(DType::kInt32), DType::kInt32, DType::kInt32, DType::kHalf,
                              DType::kString, DType::kFloat, RefType(DType::kFloat),
                              RefType(DType::kFloat)));
  EXPECT_THAT(out, ElementsAre(DType::kHalf, DType::kString, DType::kFloat, DType::kString,
                               RefType(DType::kBool)));
  EXPECT_THAT(*ArgRanges(def.input_arg(), attrs),
              ElementsAre(Pair(0, 1), Pair(1, 2), Pair(3, 3), Pair(6, 2), Pair(8, 0)));
  EXPECT_THAT(*ArgRanges(def.output_arg(), attrs), ElementsAre(Pair(0, 3), Pair(3, 1), Pair(4, 1)));

  for (int64_t n : {int64_t{-1}, int64_t{1} << 40, std::numeric_limits<int64_t>::max()}) {
    attrs["N"] = MakeAttr(n);
    EXPECT_TRUE(absl::IsInvalidArgument(InOutTypes(def, attrs, &in, &out)));
    EXPECT_TRUE(absl::IsInvalidArgument(ArgRanges(def.input_arg(), attrs).status()));
  }
}

TEST(AttrTest, WrongKindsAndMissingOnes) {
  AttrMap attrs;
  attrs["i"] = MakeAttr(int64_t{1} << 40);
  attrs["l"] = MakeAttr(std::vector<std::string>{"x"});
  attrs["t"] = MakeAttr(static_cast<DType>(999));
  attrs["sh"] = MakeAttr(PartialShape({2, -1}));
  attrs["shapes"] = MakeAttr(std::vector<PartialShape>{{1}, PartialShape()});
  EXPECT_EQ(GetAttr<bool>(attrs, "none").status(),
            absl::NotFoundError("there is no attribute 'none'"));
  EXPECT_EQ(
      GetAttr<float>(attrs, "i").status(),
      absl::InvalidArgumentError("attribute 'i': a value of kind float was expected, found int"));
  EXPECT_TRUE(absl::IsInvalidArgument(GetAttr<int32_t>(attrs, "i").status()));
  EXPECT_EQ(*GetAttr<int64_t>(attrs, "i"), int64_t{1} << 40);
  EXPECT_TRUE(absl::IsInvalidArgument(GetAttr<std::string>(attrs, "l").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(GetAttr<std::vector<bool>>(attrs, "l").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(GetAttr<DType>(attrs, "t").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(GetAttr<TensorShape>(attrs, "sh").status()));
  EXPECT_EQ(*GetAttr<PartialShape>(attrs, "sh"), PartialShape({2, -1}));
  EXPECT_THAT(*GetAttr<std::vector<PartialShape>>(attrs, "shapes"),
              ElementsAre(PartialShape({1}), PartialShape()));
  EXPECT_TRUE(absl::IsInvalidArgument(GetAttr<Tensor>(attrs, "sh").status()));
}

// ---------------------------------------------------------------------------------------------

TEST(PartialShapeTest, KnowsWhatIsKnown) {
  const PartialShape unknown, scalar = PartialShape::Scalar(), some({2, -7, 4}), all({2, 3});
  EXPECT_EQ(unknown.DebugString(), "<unknown>");
  EXPECT_EQ(scalar.DebugString(), "[]");
  EXPECT_EQ(some.DebugString(), "[2,?,4]");
  EXPECT_EQ(unknown.rank(), -1);
  EXPECT_EQ(unknown.dim(0), PartialShape::kUnknown);
  EXPECT_EQ(some.dim(-1), 4);
  EXPECT_EQ(some.dim(3), PartialShape::kUnknown);
  EXPECT_EQ(some.dim(-4), PartialShape::kUnknown);
  EXPECT_EQ(unknown.num_elements(), PartialShape::kUnknown);
  EXPECT_EQ(some.num_elements(), PartialShape::kUnknown);
  EXPECT_EQ(scalar.num_elements(), 1);
  EXPECT_EQ(all.num_elements(), 6);
  EXPECT_EQ(PartialShape({int64_t{1} << 40, int64_t{1} << 40}).num_elements(),
            PartialShape::kUnknown);
  EXPECT_NE(unknown, scalar);
  EXPECT_EQ(*all.ToTensorShape(), TensorShape({2, 3}));
  EXPECT_TRUE(absl::IsInvalidArgument(some.ToTensorShape().status()));
  EXPECT_EQ(PartialShape(TensorShape({2, 3})), all);
}

TEST(PartialShapeTest, Merges) {
  const PartialShape unknown, a({2, -1}), b({-1, 3}), c({4, 3}), d({2});
  EXPECT_EQ(*PartialShape::Merge(a, b), PartialShape({2, 3}));
  EXPECT_EQ(*PartialShape::Merge(unknown, a), a);
  EXPECT_EQ(*PartialShape::Merge(a, unknown), a);
  EXPECT_TRUE(a.CompatibleWith(b));
  EXPECT_TRUE(unknown.CompatibleWith(d));
  EXPECT_FALSE(a.CompatibleWith(c));
  EXPECT_FALSE(a.CompatibleWith(d));
  EXPECT_EQ(PartialShape::Merge(a, c).status(),
            absl::InvalidArgumentError("Dimension 0 in both shapes must be equal, but are 2 and 4. "
                                       "Shapes are [2,?] and [4,3]."));
  EXPECT_THAT(std::string(PartialShape::Merge(a, d).status().message()),
              HasSubstr("Shapes must be equal rank, but are 2 and 1"));
}

TEST(BroadcastTest, PartialShapes) {
  const PartialShape unknown;
  const auto b = [](const PartialShape& x, const PartialShape& y) {
    absl::StatusOr<PartialShape> xy = BroadcastShapes(x, y), yx = BroadcastShapes(y, x);
    EXPECT_EQ(xy.ok(), yx.ok());
    if (xy.ok()) {
      EXPECT_EQ(*xy, *yx);
    }
    return xy;
  };
  EXPECT_EQ(*b({2, 3}, {3}), PartialShape({2, 3}));
  EXPECT_EQ(*b({2, 1}, {1, 3}), PartialShape({2, 3}));
  EXPECT_EQ(*b({2, 3}, PartialShape::Scalar()), PartialShape({2, 3}));
  EXPECT_EQ(*b({-1, 3}, {2, 1}), PartialShape({2, 3}));
  EXPECT_EQ(*b({-1}, {1}), PartialShape({-1}));
  EXPECT_EQ(*b({-1}, {-1}), PartialShape({-1}));
  EXPECT_EQ(*b({0}, {1}), PartialShape({0}));
  EXPECT_EQ(*b({-1}, {0}), PartialShape({0}));
  EXPECT_EQ(*b(unknown, {2}), unknown);
  EXPECT_EQ(BroadcastShapes(PartialShape({2, 3}), PartialShape({4})).status(),
            absl::InvalidArgumentError("Incompatible shapes: [2,3] vs. [4]"));
  EXPECT_FALSE(b({0}, {2}).ok());
}

TEST(BroadcastTest, TensorShapes) {
  EXPECT_EQ(*BroadcastShapes(TensorShape({2, 1, 5}), TensorShape({3, 1})), TensorShape({2, 3, 5}));
  EXPECT_EQ(*BroadcastShapes(TensorShape(), TensorShape({0})), TensorShape({0}));
  EXPECT_EQ(*BroadcastShapes(TensorShape({1}), TensorShape({0})), TensorShape({0}));
  EXPECT_EQ(BroadcastShapes(TensorShape({2, 3}), TensorShape({4})).status(),
            absl::InvalidArgumentError("Incompatible shapes: [2,3] vs. [4]"));
  const int64_t big = int64_t{1} << 40;
  EXPECT_TRUE(absl::IsInvalidArgument(
      BroadcastShapes(TensorShape({big, 1}), TensorShape({1, big})).status()));
}

TEST(InferenceTest, RanksAndSharedFunctions) {
  AttrMap attrs;
  attrs["shape"] = MakeAttr(PartialShape({5, -1}));
  InferenceContext c(&attrs, {PartialShape({2, -1}), PartialShape({-1, 3})}, {}, {}, 2);
  EXPECT_EQ(*c.WithRank(c.input(0), 2), PartialShape({2, -1}));
  EXPECT_EQ(*c.WithRank(PartialShape(), 2), PartialShape({-1, -1}));
  EXPECT_EQ(c.WithRank(PartialShape({1}), 2).status(),
            absl::InvalidArgumentError("Shape must be rank 2 but is rank 1"));
  EXPECT_EQ(c.WithRankAtLeast(PartialShape({1}), 2).status(),
            absl::InvalidArgumentError("Shape must be at least rank 2 but is rank 1"));
  EXPECT_EQ(c.WithRankAtMost(PartialShape({1}), 0).status(),
            absl::InvalidArgumentError("Shape must be at most rank 0 but is rank 1"));
  EXPECT_TRUE(c.WithRankAtLeast(PartialShape(), 2).ok());

  ASSERT_TRUE(UnchangedShape(&c).ok());
  EXPECT_EQ(c.output(0), c.input(0));
  ASSERT_TRUE(MergedShape(&c).ok());
  EXPECT_EQ(c.output(0), PartialShape({2, 3}));
  ASSERT_TRUE(ScalarShape(&c).ok());
  EXPECT_EQ(c.output(1), PartialShape::Scalar());
  ASSERT_TRUE(UnknownShape(&c).ok());
  EXPECT_EQ(c.output(1), PartialShape());
  ASSERT_TRUE(ExplicitShape(&c).ok());
  EXPECT_EQ(c.output(0), PartialShape({5, -1}));
  ASSERT_TRUE(BroadcastShape(&c).ok());
  EXPECT_EQ(c.output(0), PartialShape({2, 3}));

  InferenceContext bad(&attrs, {PartialShape({2}), PartialShape({3})}, {}, {}, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(MergedShape(&bad)));
  EXPECT_TRUE(absl::IsInvalidArgument(BroadcastShape(&bad)));
}

TEST(InferenceTest, ValuesAsShapes) {
  const AttrMap attrs;
  const auto value = [&](Tensor t) {
    InferenceContext c(&attrs, {PartialShape(t.shape())}, {t}, {}, 1);
    return c.ValueAsShape(0);
  };
  EXPECT_EQ(*value(Tensor::Of<int32_t>({2, -1})), PartialShape({2, -1}));
  EXPECT_EQ(*value(Tensor::Of<int64_t>({})), PartialShape::Scalar());
  for (const Tensor& t :
       {Tensor::Of<int32_t>({2, -2}), Tensor::Scalar<int32_t>(3), Tensor::Of<float>({1}),
        Tensor::Of<int64_t>({int64_t{1} << 40, int64_t{1} << 40}),
        Tensor::Of<int32_t>(std::vector<int32_t>(kMaxRank + 1, 1))}) {
    EXPECT_TRUE(absl::IsInvalidArgument(value(t).status())) << t.DebugString();
  }
  InferenceContext c(&attrs,
                     {PartialShape({2}), PartialShape({3}), PartialShape(), PartialShape({-1}),
                      PartialShape({1 << 20}), PartialShape::Scalar()},
                     {}, {PartialShape({7, -1})}, 1);
  EXPECT_EQ(*c.ValueAsShape(0), PartialShape({7, -1}));
  EXPECT_EQ(*c.ValueAsShape(1), PartialShape({-1, -1, -1}));
  EXPECT_EQ(*c.ValueAsShape(2), PartialShape());
  EXPECT_EQ(*c.ValueAsShape(3), PartialShape());
  EXPECT_TRUE(absl::IsInvalidArgument(c.ValueAsShape(4).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(c.ValueAsShape(5).status()));
  EXPECT_EQ(c.value(0), nullptr);
  EXPECT_EQ(c.ValueAsInt(5), PartialShape::kUnknown);

  InferenceContext d(&attrs, {PartialShape(), PartialShape()},
                     {Tensor::Scalar<int64_t>(-9), Tensor::Of<int32_t>({1, 2})}, {}, 1);
  EXPECT_EQ(d.ValueAsInt(0), -9);
  EXPECT_EQ(d.ValueAsInt(1), PartialShape::kUnknown);
}

}  // namespace
}  // namespace ferry
