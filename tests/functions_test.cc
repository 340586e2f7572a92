// Graphs that call functions: what op_cases_test doesn't look at. Errors of libraries that aren't
// well-formed, variables, targets, feeds, and names that are taken.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "runtime/graph/graph.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

constexpr char kFloats[] = R"(key: "T" value { type: DT_FLOAT })";

// A function with one argument x and one result y, both floats.
std::string Function(const std::string& name, const std::string& nodes, const std::string& result) {
  return absl::StrCat("function { signature { name: '", name,
                      "' input_arg { name: 'x' type: DT_FLOAT }",
                      " output_arg { name: 'y' type: DT_FLOAT } } ", nodes,
                      " ret { key: 'y' value: '", result, "' } } ");
}
std::string Body(const std::string& name, const std::string& op,
                 const std::vector<std::string>& inputs, const std::string& attrs) {
  std::string out = absl::StrCat("node_def { name: '", name, "' op: '", op, "' ");
  for (const std::string& in : inputs) absl::StrAppend(&out, "input: '", in, "' ");
  return absl::StrCat(out, attrs, " } ");
}
std::string Neg(const std::string& name, const std::string& in) {
  return Body(name, "Neg", {in}, absl::StrCat("attr { ", kFloats, " }"));
}
std::string CallAttrs(const std::string& function) {
  return absl::StrCat("attr { key: 'Tin' value { list { type: DT_FLOAT } } } ",
                      "attr { key: 'Tout' value { list { type: DT_FLOAT } } } ",
                      "attr { key: 'f' value { func { name: '", function, "' } } }");
}
std::string Call(const std::string& name, const std::string& in, const std::string& function) {
  return absl::StrCat("node { name: '", name, "' op: 'PartitionedCall' input: '", in, "' ",
                      CallAttrs(function), " } ");
}
const std::string kInput =  // NOLINT
    "node { name: 'in' op: 'Placeholder' attr { key: 'dtype' value { type: DT_FLOAT } } } ";

class FunctionsTest : public ::testing::Test {
 protected:
  absl::Status Load(const std::string& nodes, const std::string& functions) {
    const std::string text = absl::StrCat(nodes, "library { ", functions, "}");
    proto::GraphDef def;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &def)) << text;
    absl::Status s = ImportGraphDef({}, def, &graph);
    session = std::make_unique<Session>(&graph);
    return s;
  }
  absl::StatusOr<float> Run(const std::string& fetch, float x = 2) {
    std::vector<Tensor> out;
    absl::Status s = session->Run({{"in", Tensor::Scalar<float>(x)}}, {fetch}, {}, &out);
    if (!s.ok()) return s;
    return out[0].scalar<float>();
  }
  void ExpectError(const std::string& nodes, const std::string& functions, absl::StatusCode code,
                   const std::string& words) {
    ASSERT_TRUE(Load(nodes, functions).ok());
    const absl::Status s = Run("c").status();
    EXPECT_EQ(s.code(), code) << s;
    EXPECT_THAT(std::string(s.message()), HasSubstr(words));
  }
  Graph graph;
  std::unique_ptr<Session> session;
};

TEST_F(FunctionsTest, CallsOneAnother) {
  ASSERT_TRUE(Load(absl::StrCat(kInput, Call("c", "in", "outer"), Call("c2", "c", "inner")),
                   absl::StrCat(
                       Function("inner", Neg("n", "x"), "n:y:0"),
                       Function("outer",
                                absl::StrCat(Body("call", "PartitionedCall", {"x"},
                                                  CallAttrs("inner")),
                                             Body("twice", "AddV2",
                                                  {"call:output:0", "call:output:0"},
                                                  absl::StrCat("attr { ", kFloats, " }"))),
                                "twice:z:0")))
                  .ok());
  EXPECT_EQ(Run("c").value_or(0), -4);
  EXPECT_EQ(Run("c2:0").value_or(0), 4);
  // What a call gives can be fed, and a call can be a target.
  std::vector<Tensor> out;
  ASSERT_TRUE(session->Run({{"c", Tensor::Scalar<float>(7)}}, {"c2"}, {}, &out).ok());
  EXPECT_EQ(out[0].scalar<float>(), -7);
  EXPECT_TRUE(session->Run({{"in", Tensor::Scalar<float>(7)}}, {}, {"c2"}, &out).ok());
}

TEST_F(FunctionsTest, CallByTheFunctionsName) {
  ASSERT_TRUE(Load(absl::StrCat(kInput, "node { name: 'c' op: 'f' input: 'in' } ",
                                "node { name: 'd' op: 'Neg' input: 'c' attr { ", kFloats, " } } "),
                   Function("f", Neg("n", "x"), "n:y:0"))
                  .ok());
  EXPECT_EQ(Run("d").value_or(0), 2);
  EXPECT_EQ(Run("c").value_or(0), -2);
  std::vector<Tensor> out;
  ASSERT_TRUE(session->Run({{"c", Tensor::Scalar<float>(7)}}, {"d"}, {}, &out).ok());
  EXPECT_EQ(out[0].scalar<float>(), -7);
}

TEST_F(FunctionsTest, CallByTheNameOfAFunctionWithUnknownOps) {
  ASSERT_TRUE(Load(absl::StrCat(kInput, "node { name: 'c' op: 'f' input: 'in' } "),
                   Function("f", Body("n", "Zork", {"x"}, ""), "n:y:0"))
                  .ok());
  const absl::Status s = Run("c").status();
  EXPECT_EQ(s.code(), absl::StatusCode::kUnimplemented) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("Zork"));
}

TEST_F(FunctionsTest, NodesThatComeLater) {
  ASSERT_TRUE(
      Load(absl::StrCat(kInput, Call("c", "in", "f")), Function("f", Neg("n", "x"), "n:y:0")).ok());
  EXPECT_EQ(Run("c").value_or(0), -2);
  // Even one of a name that a function's node has taken.
  AttrMap attrs;
  attrs["T"] = MakeAttr(DType::kFloat);
  const absl::StatusOr<Node*> later =
      graph.AddNode("c/n", "Abs", attrs, {Output(graph.FindNode("c"), 0)});
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_EQ(Run("c/n").value_or(0), 2);
}

TEST_F(FunctionsTest, Recursion) {
  ExpectError(absl::StrCat(kInput, Call("c", "in", "f")),
              absl::StrCat(Function("f", Body("g", "PartitionedCall", {"x"}, CallAttrs("g")),
                                    "g:output:0"),
                           Function("g", Body("f", "PartitionedCall", {"x"}, CallAttrs("f")),
                                    "f:output:0")),
              absl::StatusCode::kInvalidArgument, "calls itself: f -> g -> f");
}

TEST_F(FunctionsTest, Explosion) {
  std::string text;
  for (int i = 0; i < 60; ++i) {
    const std::string next = absl::StrCat("f", i + 1);
    absl::StrAppend(
        &text, Function(absl::StrCat("f", i),
                        absl::StrCat(Body("a", "PartitionedCall", {"x"}, CallAttrs(next)),
                                     Body("b", "PartitionedCall", {"a:output:0"}, CallAttrs(next))),
                        "b:output:0"));
  }
  absl::StrAppend(&text, Function("f60", Neg("n", "x"), "n:y:0"));
  const absl::Time start = absl::Now();
  ExpectError(absl::StrCat(kInput, Call("c", "in", "f0")), text,
              absl::StatusCode::kResourceExhausted, "come to more than");
  EXPECT_LT(absl::Now() - start, absl::Seconds(120));
}

TEST_F(FunctionsTest, NestedTooDeep) {
  std::string text;
  for (int i = 0; i < 300; ++i) {
    absl::StrAppend(&text, Function(absl::StrCat("f", i),
                                    Body("a", "PartitionedCall", {"x"},
                                         CallAttrs(absl::StrCat("f", i + 1))),
                                    "a:output:0"));
  }
  absl::StrAppend(&text, Function("f300", Neg("n", "x"), "n:y:0"));
  ExpectError(absl::StrCat(kInput, Call("c", "in", "f0")), text, absl::StatusCode::kInvalidArgument,
              "nested deeper than");
}

TEST_F(FunctionsTest, NotInTheLibrary) {
  ExpectError(absl::StrCat(kInput, Call("c", "in", "f")), "", absl::StatusCode::kInvalidArgument,
              "function 'f' is not in the graph's library");
}

TEST_F(FunctionsTest, BadBodies) {
  const std::string head = absl::StrCat(kInput, Call("c", "in", "f"));
  const auto invalid = [&](const std::string& nodes, const std::string& result,
                           const std::string& words) {
    Graph fresh;
    proto::GraphDef def;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
        absl::StrCat(head, "library { ", Function("f", nodes, result), "}"), &def));
    ASSERT_TRUE(ImportGraphDef({}, def, &fresh).ok());
    Session s(&fresh);
    std::vector<Tensor> out;
    const absl::Status status = s.Run({{"in", Tensor::Scalar<float>(1)}}, {"c"}, {}, &out);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  invalid(Neg("n", "x"), "m:y:0", "there is no 'm:y:0' in it");
  invalid(Neg("n", "z"), "n:y:0", "there is no 'z' in it");
  invalid(Neg("n", "x"), "n:y:1", "is no output");
  invalid(Neg("n", "x"), "n:y:-1", "is no output");
  invalid(Neg("n", "x"), "n:nothing:0", "is no output");
  invalid(Neg("n", "x"), "n:y:0:0", "is no output");
  invalid(Neg("n", "x"), "n:5000000000", "is no output");
  invalid(Neg("n", "x"), "n:17", "does not exist");
  invalid(Neg("n", "n:y:0"), "n:y:0", "cycle");
  invalid(Neg("n", "x") + Neg("n", "x"), "n:y:0", "twice");
  invalid(Neg("x", "x"), "x", "twice");
  invalid(Neg("n", "x:3"), "n:y:0", "is no argument");
  invalid(Body("n", "Neg", {"x"}, "attr { key: 'T' value { placeholder: 'T' } }"), "n:y:0",
          "isn't given");
  invalid(Body("n", "Neg", {"x"}, "attr { key: 'T' value { type: DT_INT32 } }"), "n:y:0",
          "incompatible");
  invalid(Body("n", "PartitionedCall", {"x"}, "attr { key: 'Tout' value { i: 3 } }"), "n:output:0",
          "");
}

TEST_F(FunctionsTest, UnknownOpsMatterOnlyWhereTheyAreNeeded) {
  const std::string nodes = absl::StrCat(kInput, Call("c", "in", "f"), Call("d", "in", "g"));
  const std::string functions =
      absl::StrCat(Function("f", Body("n", "NoSuchOp", {"x"}, ""), "n:y:0"),
                   Function("g", absl::StrCat(Neg("n", "x"), Body("m", "NoSuchOp", {"x"}, "")),
                            "n:y:0"));
  ExpectError(nodes, functions, absl::StatusCode::kUnimplemented, "NoSuchOp");
  EXPECT_EQ(Run("d").value_or(0), -2);
}

// What is in a call begins when all that goes into it is there, control inputs too: a read of a
// variable within it sees what was written before.
TEST_F(FunctionsTest, CallsWaitAsAWhole) {
  const std::string type = "attr { key: 'dtype' value { type: DT_FLOAT } } ";
  const std::string read = absl::StrCat(
      "function { signature { name: 'read' input_arg { name: 'h' type: DT_RESOURCE } ",
      "input_arg { name: 'x' type: DT_FLOAT } ", "output_arg { name: 'y' type: DT_FLOAT } } ",
      Body("r", "ReadVariableOp", {"h"}, type),
      Body("m", "Mul", {"r:value:0", "x"}, absl::StrCat("attr { ", kFloats, " }")),
      " ret { key: 'y' value: 'm:z:0' } } ");
  const std::string types =
      "attr { key: 'Tin' value { list { type: DT_RESOURCE type: DT_FLOAT } } } "
      "attr { key: 'Tout' value { list { type: DT_FLOAT } } } ";
  const auto function = [](const std::string& key) {
    return absl::StrCat("attr { key: '", key, "' value { func { name: 'read' } } } ");
  };
  const auto call = [&](const std::string& name, const std::string& x, const std::string& after) {
    return absl::StrCat("node { name: '", name, "' op: 'StatefulPartitionedCall' input: 'v' ",
                        "input: '", x, "' ", after, types, function("f"), " } ");
  };
  ASSERT_TRUE(
      Load(
          absl::StrCat(
              kInput, "node { name: 'v' op: 'VarHandleOp' ", type,
              "attr { key: 'shape' value { shape {} } } ",
              "attr { key: 'shared_name' value { s: 'v' } } } ",
              "node { name: 'init' op: 'AssignVariableOp' input: 'v' input: 'in' ", type, "} ",
              "node { name: 'add' op: 'AssignAddVariableOp' input: 'v' input: 'in' ", type, "} ",
              call("controlled", "in", "input: '^add' "),
              // Not of its values, but of one of its inputs.
              "node { name: 'later' op: 'Identity' input: 'in' input: '^add' attr { ", kFloats,
              " } } ", call("fed", "later", ""),
              "node { name: 'p' op: 'Const' attr { key: 'dtype' value { type: DT_BOOL } } ",
              "attr { key: 'value' value { tensor { dtype: DT_BOOL tensor_shape {} bool_val: true ",
              "} } } } node { name: 'if' op: 'If' input: 'p' input: 'v' input: 'in' input: '^add' ",
              types, "attr { key: 'Tcond' value { type: DT_BOOL } } ", function("then_branch"),
              function("else_branch"), "} ",
              "node { name: 'if_fed' op: 'If' input: 'p' input: 'v' input: 'later' ", types,
              "attr { key: 'Tcond' value { type: DT_BOOL } } ", function("then_branch"),
              function("else_branch"), "} "),
          read)
          .ok());
  for (const std::string fetch : {"controlled", "fed", "if", "if_fed"}) {
    ASSERT_TRUE(session->Run({{"in", Tensor::Scalar<float>(2)}}, {}, {"init"}, nullptr).ok());
    const absl::StatusOr<float> y = Run(fetch);
    ASSERT_TRUE(y.ok()) << fetch << ": " << y.status();
    EXPECT_EQ(*y, (2 + 2) * 2) << fetch;
  }
}

TEST_F(FunctionsTest, WrongNumbersOfArguments) {
  ExpectError(
      absl::StrCat(kInput,
                   "node { name: 'c' op: 'PartitionedCall' attr { key: 'Tin' value { list {} } }",
                   " attr { key: 'Tout' value { list { type: DT_FLOAT } } }",
                   " attr { key: 'f' value { func { name: 'f' } } } } "),
      Function("f", Neg("n", "x"), "n:y:0"), absl::StatusCode::kInvalidArgument, "arguments");
}

}  // namespace
}  // namespace ferry
