// Graphs and feeds that make no sense. Whatever single ops are given, they answer with a value or a
// Status; what goes wrong otherwise is a crash, or is seen by the sanitizers. Graphs that are very
// wide, or values that hold values very deep, take time and memory in proportion.
#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "runtime/graph/graph.h"
#include "runtime/op/attr.h"
#include "runtime/session/session.h"
#include "runtime/tensor/buffer.h"
#include "tests/op_cases.h"

namespace ferry {
namespace {

constexpr DType kTypes[] = {DType::kFloat,  DType::kDouble, DType::kInt32,  DType::kUint8,
                            DType::kInt16,  DType::kInt8,   DType::kString, DType::kInt64,
                            DType::kBool,   DType::kHalf,   DType::kUint16, DType::kBfloat16,
                            DType::kUint32, DType::kUint64};

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  // [0, n)
  size_t Below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }
  bool OneIn(size_t n) { return Below(n) == 0; }

  int64_t Number() {
    switch (Below(8)) {
      case 0:
        return std::numeric_limits<int64_t>::max() - static_cast<int64_t>(Below(3));
      case 1:
        return std::numeric_limits<int64_t>::min() + static_cast<int64_t>(Below(3));
      case 2:
        return (int64_t{1} << (20 + Below(43))) - static_cast<int64_t>(Below(3));
      default:
        return static_cast<int64_t>(Below(9)) - 3;
    }
  }

  // No subnormals: a Run takes them as 0, shape inference doesn't.
  double Real() {
    if (OneIn(16)) return std::numeric_limits<double>::infinity();
    if (OneIn(16)) return std::numeric_limits<double>::quiet_NaN();
    return static_cast<double>(Number()) / static_cast<double>(1 + Below(4));
  }

  // Of `like`'s dtype or another, a small shape, and numbers of all kinds.
  Tensor Value(const Tensor& like) {
    const DType dtype = OneIn(10) ? kTypes[Below(std::size(kTypes))] : like.dtype();
    std::vector<int64_t> dims(like.shape().dims().begin(), like.shape().dims().end());
    if (OneIn(2)) {
      if (OneIn(2)) dims.resize(Below(6), 1);
      for (int64_t& d : dims) {
        if (OneIn(2)) d = static_cast<int64_t>(Below(5));
      }
    }
    Tensor t = *Tensor::Allocate(dtype, *TensorShape::Make(dims));
    if (dtype == DType::kString) {
      for (std::string& s : t.span<std::string>()) s = std::string(Below(40), 'x');
      return t;
    }
    const bool same = dtype == like.dtype() && like.num_elements() > 0 && OneIn(2);
    const size_t width = ElementSize(dtype);
    for (int64_t i = 0; i < t.num_elements(); ++i) {
      char* to = static_cast<char*>(t.raw()) + static_cast<size_t>(i) * width;
      if (same && !OneIn(4)) {
        const size_t from = Below(static_cast<size_t>(like.num_elements()));
        std::copy_n(static_cast<const char*>(like.raw()) + from * width, width, to);
        continue;
      }
      if (dtype == DType::kBool) {
        *to = static_cast<char>(Below(2));
      } else if (dtype == DType::kFloat) {
        const float f = static_cast<float>(Real());
        std::copy_n(reinterpret_cast<const char*>(&f), width, to);
      } else if (dtype == DType::kDouble) {
        const double d = Real();
        std::copy_n(reinterpret_cast<const char*>(&d), width, to);
      } else {
        const int64_t n = Number();
        std::copy_n(reinterpret_cast<const char*>(&n), width, to);
      }
    }
    return t;
  }

  void Change(proto::AttrValue* attr) {
    switch (attr->value_case()) {
      case proto::AttrValue::kType:
        attr->set_type(OneIn(4) ? static_cast<proto::DataType>(Below(130))
                                : static_cast<proto::DataType>(kTypes[Below(std::size(kTypes))]));
        return;
      case proto::AttrValue::kI:
        attr->set_i(Number());
        return;
      case proto::AttrValue::kF:
        attr->set_f(static_cast<float>(Number()));
        return;
      case proto::AttrValue::kB:
        attr->set_b(!attr->b());
        return;
      case proto::AttrValue::kS:
        attr->set_s(OneIn(2) ? "" : "x");
        return;
      case proto::AttrValue::kShape:
        Change(attr->mutable_shape());
        return;
      case proto::AttrValue::kTensor: {
        proto::TensorProto* t = attr->mutable_tensor();
        if (OneIn(3)) {
          t->set_dtype(static_cast<proto::DataType>(Below(130)));
        } else if (OneIn(2)) {
          Change(t->mutable_tensor_shape());
        } else {
          t->mutable_tensor_content()->resize(Below(t->tensor_content().size() + 9));
        }
        return;
      }
      case proto::AttrValue::kList: {
        proto::AttrValue::ListValue* list = attr->mutable_list();
        if (OneIn(2)) {
          for (int i = 0; i < list->i_size(); ++i) list->set_i(i, Number());
          for (int i = 0; i < list->type_size(); ++i) {
            list->set_type(i, static_cast<proto::DataType>(Below(130)));
          }
        } else {
          list->add_i(Number());
          if (list->type_size() > 0) list->mutable_type()->RemoveLast();
        }
        return;
      }
      default:
        attr->set_i(Number());
    }
  }

 private:
  void Change(proto::TensorShapeProto* shape) {
    if (OneIn(4)) shape->set_unknown_rank(!shape->unknown_rank());
    if (shape->dim_size() == 0 || OneIn(3)) shape->add_dim();
    shape->mutable_dim(static_cast<int>(Below(static_cast<size_t>(shape->dim_size()))))
        ->set_size(Number());
  }

  std::mt19937 random_;
};

// Runs a case of the op tests, changed by `seed`.
void RunChanged(const OpCase& c, uint32_t seed) {
  SCOPED_TRACE(absl::StrCat(c.name, " seed ", seed));
  Mutator m(seed);
  proto::GraphDef def;
  std::vector<std::pair<std::string, Tensor>> feeds;
  for (const auto& [part, like] : c.values) {
    const std::string name = absl::StrCat(c.name, "/", part);
    const Tensor value = m.OneIn(2) ? m.Value(like) : like;
    const bool fed = part[0] == 'i' && m.OneIn(2);
    proto::NodeDef* n = def.add_node();
    n->set_name(name);
    n->set_op(fed ? "Placeholder" : "Const");
    (*n->mutable_attr())["dtype"] = MakeAttr(value.dtype());
    if (fed) {
      feeds.emplace_back(name, value);
    } else {
      (*n->mutable_attr())["value"] = MakeAttr(value);
      if (m.OneIn(10)) m.Change(&(*n->mutable_attr())["value"]);
    }
  }
  for (const proto::NodeDef& node : c.nodes) {
    proto::NodeDef* n = def.add_node();
    *n = node;
    if (n->attr_size() > 0 && m.OneIn(2)) {
      // The map's order is not fixed; the names' is.
      std::vector<std::string> names;
      for (const auto& [name, attr] : n->attr()) names.push_back(name);
      std::sort(names.begin(), names.end());
      const std::string& name = names[m.Below(names.size())];
      if (m.OneIn(8)) {
        n->mutable_attr()->erase(name);
      } else {
        m.Change(&(*n->mutable_attr())[name]);
      }
    }
    if (n->input_size() > 0 && m.OneIn(8)) {
      const int i = static_cast<int>(m.Below(static_cast<size_t>(n->input_size())));
      switch (m.Below(3)) {
        case 0:
          n->mutable_input()->SwapElements(0, i);
          break;
        case 1:
          n->mutable_input()->RemoveLast();
          break;
        default:
          n->add_input(n->input(i));
      }
    }
  }
  Graph graph;
  if (!ImportGraphDef({}, def, &graph).ok()) return;
  Session session(&graph, {.threads = 2});
  for (const proto::NodeDef& n : c.nodes) {
    const Node* node = graph.FindNode(n.name());
    ASSERT_NE(node, nullptr);
    std::vector<std::string> fetches;
    for (int i = 0; i < node->num_outputs(); ++i) fetches.push_back(absl::StrCat(n.name(), ":", i));
    std::vector<Tensor> out;
    const absl::Status status = session.Run(feeds, fetches, {n.name()}, &out);
    if (!status.ok()) {
      EXPECT_FALSE(status.message().empty());
      EXPECT_NE(status.code(), absl::StatusCode::kInternal) << status;
      continue;
    }
    for (int i = 0; i < node->num_outputs(); ++i) {
      EXPECT_TRUE(node->output_shape(i).CompatibleWith(out[static_cast<size_t>(i)].shape()))
          << n.name() << ":" << i << " (" << n.op() << ") is inferred as "
          << node->output_shape(i).DebugString() << ", found "
          << out[static_cast<size_t>(i)].shape().DebugString();
    }
  }
}

TEST(HostileGraphsTest, SingleOps) {
  // More, or one again: HOSTILE_ROUNDS=100, HOSTILE_SEED=3.
  const char* rounds = std::getenv("HOSTILE_ROUNDS");
  const char* first = std::getenv("HOSTILE_SEED");
  const uint32_t from = first ? static_cast<uint32_t>(std::atoi(first)) : 0;
  const uint32_t to = from + (rounds ? static_cast<uint32_t>(std::atoi(rounds)) : 5);
  HostAllocator::Get()->set_limit(int64_t{64} << 20);  // Sizes that make sense are small.
  int ran = 0;
  for (const auto& file : std::filesystem::directory_iterator("tests/testdata/op_cases")) {
    if (file.path().extension() != ".pb") continue;
    const auto cases = LoadOpCases(absl::StrCat("op_cases/", file.path().filename().string()));
    ASSERT_TRUE(cases.ok()) << cases.status();
    for (const OpCase& c : *cases) {
      for (uint32_t seed = from; seed < to; ++seed, ++ran) {
        RunChanged(c, seed * 100003 + static_cast<uint32_t>(std::hash<std::string>()(c.name)));
      }
    }
  }
  EXPECT_GT(ran, 5000);
}

// ---- Graphs with many nodes, or edges ----

class GraphMaker {
 public:
  // Attributes are text: "dtype: type: DT_FLOAT".
  void Add(const std::string& name, const std::string& op, const std::vector<std::string>& inputs,
           const std::vector<std::string>& attrs = {}) {
    proto::NodeDef* const n = def_.add_node();
    n->set_name(name);
    n->set_op(op);
    for (const std::string& in : inputs) n->add_input(in);
    for (const std::string& attr : attrs) {
      const size_t colon = attr.find(':');
      ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
          attr.substr(colon + 1), &(*n->mutable_attr())[attr.substr(0, colon)]))
          << attr;
    }
  }
  void Const(const std::string& name, const Tensor& value) {
    Add(name, "Const", {});
    (*def_.mutable_node(def_.node_size() - 1)->mutable_attr())["dtype"] = MakeAttr(value.dtype());
    (*def_.mutable_node(def_.node_size() - 1)->mutable_attr())["value"] = MakeAttr(value);
  }
  // The resource variable 'v', and 'assigned', which makes it 1.
  void Variable() {
    Const("one", Tensor::Scalar<float>(1));
    Add("v", "VarHandleOp", {}, {"dtype: type: DT_FLOAT", "shape: shape {}"});
    Add("assigned", "AssignVariableOp", {"v", "one"}, {"dtype: type: DT_FLOAT"});
  }
  // A loop that goes round `n` times. `values`: nodes whose values enter it, and their types; the
  // body makes 'next_NAME' of 'switch_NAME:1', and 'exit_NAME' is what comes out.
  void Loop(int n, const std::vector<std::pair<std::string, std::string>>& values) {
    Const("zero", Tensor::Scalar<int32_t>(0));
    Const("unit", Tensor::Scalar<int32_t>(1));
    Const("limit", Tensor::Scalar<int32_t>(n));
    for (const std::string constant : {"unit", "limit"}) {
      Add("enter_" + constant, "Enter", {constant},
          {"T: type: DT_INT32", "frame_name: s: 'loop'", "is_constant: b: true"});
    }
    Value("i", "zero", "DT_INT32");
    Add("less", "Less", {"merge_i", "enter_limit"}, {"T: type: DT_INT32"});
    Add("cond", "LoopCond", {"less"});
    Add("next_i", "AddV2", {"switch_i:1", "enter_unit"}, {"T: type: DT_INT32"});
    for (const auto& [name, type] : values) Value(name, name, type);
  }
  const proto::GraphDef& def() const { return def_; }
  // A function whose arguments x0, x1 … are floats. Its nodes are those that `body` adds; result i
  // is the tensor results[i], of type `result`.
  void Function(const std::string& name, int arguments, const std::vector<std::string>& results,
                const std::function<void(GraphMaker*)>& body,
                proto::DataType result = proto::DT_FLOAT) {
    GraphMaker nodes;
    body(&nodes);
    proto::FunctionDef* const f = def_.mutable_library()->add_function();
    f->mutable_signature()->set_name(name);
    for (int i = 0; i < arguments; ++i) {
      proto::OpDef::ArgDef* const arg = f->mutable_signature()->add_input_arg();
      arg->set_name(absl::StrCat("x", i));
      arg->set_type(proto::DT_FLOAT);
    }
    for (size_t i = 0; i < results.size(); ++i) {
      proto::OpDef::ArgDef* const arg = f->mutable_signature()->add_output_arg();
      arg->set_name(absl::StrCat("y", i));
      arg->set_type(result);
      (*f->mutable_ret())[arg->name()] = results[i];
    }
    *f->mutable_node_def() = nodes.def_.node();
  }

 private:
  void Value(const std::string& name, const std::string& from, const std::string& type) {
    const std::string t = "T: type: " + type;
    Add("enter_" + name, "Enter", {from}, {t, "frame_name: s: 'loop'"});
    Add("merge_" + name, "Merge", {"enter_" + name, "again_" + name}, {t, "N: i: 2"});
    Add("switch_" + name, "Switch", {"merge_" + name, "cond"}, {t});
    Add("again_" + name, "NextIteration", {"next_" + name}, {t});
    Add("exit_" + name, "Exit", {"switch_" + name}, {t});
  }
  proto::GraphDef def_;
};

absl::StatusOr<Tensor> RunGraph(const proto::GraphDef& def, const std::string& fetch) {
  Graph graph;
  const absl::Status imported = ImportGraphDef({}, def, &graph);
  if (!imported.ok()) return imported;
  Session session(&graph, {.threads = 1, .device = "cpu"});
  std::vector<Tensor> out;
  const absl::Status status = session.Run({}, {fetch}, {}, &out);
  if (!status.ok()) return status;
  return out[0];
}

// Runs the graph of a size, which must give a float that `expected` tells, and again with four
// times that size, in time that grows with it.
void ExpectLinear(int size, const std::function<void(int, GraphMaker*)>& make,
                  const std::function<float(int)>& expected) {
  double seconds[2] = {0, 0};
  for (const int k : {0, 1}) {
    const int n = k == 0 ? size : 4 * size;
    GraphMaker maker;
    make(n, &maker);
    const std::clock_t start = std::clock();
    const absl::StatusOr<Tensor> out = RunGraph(maker.def(), "out");
    seconds[k] = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    ASSERT_TRUE(out.ok()) << out.status();
    EXPECT_EQ(out->scalar<float>(), expected(n));
  }
  EXPECT_LT(seconds[1], 9 * seconds[0] + 0.5);
}

std::vector<std::string> Names(const std::string& prefix, int n) {
  std::vector<std::string> names;
  for (int i = 0; i < n; ++i) names.push_back(absl::StrCat(prefix, i));
  return names;
}

constexpr char kFloatT[] = "T: type: DT_FLOAT";

TEST(HostileGraphsTest, OneReadTakenManyTimes) {
  ExpectLinear(
      30000,
      [](int n, GraphMaker* g) {
        g->Variable();
        g->Add("read", "ReadVariableOp", {"v", "^assigned"}, {"dtype: type: DT_FLOAT"});
        g->Add("out", "AddN", std::vector<std::string>(static_cast<size_t>(n), "read"),
               {kFloatT, absl::StrCat("N: i: ", n)});
      },
      [](int n) { return n; });
}

TEST(HostileGraphsTest, ManyInputsAndOutputs) {
  ExpectLinear(
      30000,
      [](int n, GraphMaker* g) {
        g->Const("one", Tensor::Scalar<float>(1));
        std::string types = "T: list {";
        for (int i = 0; i < n; ++i) types += " type: DT_FLOAT";
        g->Add("all", "IdentityN", std::vector<std::string>(static_cast<size_t>(n), "one"),
               {types + " }"});
        g->Add("out", "AddN", Names("all:", n), {kFloatT, absl::StrCat("N: i: ", n)});
      },
      [](int n) { return n; });
}

TEST(HostileGraphsTest, ManyReadsAndWrites) {
  ExpectLinear(
      10000,
      [](int n, GraphMaker* g) {
        g->Variable();
        for (int i = 0; i < n; ++i) {
          g->Add(absl::StrCat("read", i), "ReadVariableOp", {"v", "^assigned"},
                 {"dtype: type: DT_FLOAT"});
          g->Add(absl::StrCat("write", i), "AssignAddVariableOp", {"v", "one", "^sum"},
                 {"dtype: type: DT_FLOAT"});
        }
        g->Add("sum", "AddN", Names("read", n), {kFloatT, absl::StrCat("N: i: ", n)});
        std::vector<std::string> last = Names("^write", n);
        last.insert(last.begin(), "sum");
        g->Add("out", "Identity", last, {kFloatT});
      },
      [](int n) { return n; });
}

TEST(HostileGraphsTest, ReadsThatFlowThroughMerges) {
  ExpectLinear(
      10000,
      [](int n, GraphMaker* g) {
        g->Variable();
        g->Const("yes", Tensor::Scalar<bool>(true));
        g->Add("never", "Switch", {"one", "yes"}, {kFloatT});
        std::string at = "never";
        for (int i = 0; i < n; ++i) {
          const std::string read = absl::StrCat("read", i), merge = absl::StrCat("merge", i);
          g->Add(read, "ReadVariableOp", {"v", "^assigned"}, {"dtype: type: DT_FLOAT"});
          g->Add(merge, "Merge", {at, read}, {kFloatT, "N: i: 2"});
          at = merge;
        }
        g->Add("out", "Identity", {at}, {kFloatT});
      },
      [](int) { return 1; });
}

// Of which no two compute the same.
TEST(HostileGraphsTest, NodesThatDifferInAnAttribute) {
  ExpectLinear(
      10000,
      [](int n, GraphMaker* g) {
        g->Const("x", Tensor::Scalar<float>(-1));
        const std::vector<std::string> names = Names("check", n);
        for (int i = 0; i < n; ++i) {
          g->Add(names[static_cast<size_t>(i)], "LeakyRelu", {"x"},
                 {kFloatT, absl::StrCat("alpha: f: ", i)});
        }
        g->Add("sum", "AddN", names, {kFloatT, absl::StrCat("N: i: ", n)});
        g->Add("out", "Sign", {"sum"}, {kFloatT});
      },
      [](int) { return -1; });
}

TEST(HostileGraphsTest, HandlesThatArePassedOnAndOn) {
  ExpectLinear(
      5000,
      [](int n, GraphMaker* g) {
        g->Variable();
        std::string handle = "v";
        std::vector<std::string> writes;
        for (const std::string& name : Names("handle", n)) {
          g->Add(name, "Identity", {handle}, {"T: type: DT_RESOURCE"});
          handle = name;
        }
        for (const std::string& name : Names("write", n)) {
          g->Add(name, "AssignAddVariableOp", {handle, "one", "^assigned"},
                 {"dtype: type: DT_FLOAT"});
          writes.push_back("^" + name);
        }
        writes.insert(writes.begin(), handle);
        g->Add("out", "ReadVariableOp", writes, {"dtype: type: DT_FLOAT"});
      },
      [](int n) { return static_cast<float>(n + 1); });
}

// More values are alive at once, and then more memory is free, than is searched one by one.
TEST(HostileGraphsTest, ManyValuesAtOnce) {
  ExpectLinear(
      15000,
      [](int n, GraphMaker* g) {
        g->Const("one", Tensor::Scalar<float>(1));
        std::string in = "one";
        for (const std::string name : {"a", "b", "out"}) {
          for (int i = 0; i < n; ++i) {
            g->Add(absl::StrCat(name, "_", i), "Neg", {in}, {kFloatT});
          }
          g->Add(name + "_sum", "AddN", Names(name + "_", n),
                 {kFloatT, absl::StrCat("N: i: ", n)});
          g->Add(name, "Sign", {name + "_sum"}, {kFloatT});
          in = name;
        }
      },
      [](int) { return -1; });
}

TEST(HostileGraphsTest, ManyLoopVariables) {
  ExpectLinear(
      5000,
      [](int n, GraphMaker* g) {
        std::vector<std::pair<std::string, std::string>> values;
        for (const std::string& name : Names("x", n)) {
          g->Const(name, Tensor::Scalar<float>(1));
          values.emplace_back(name, "DT_FLOAT");
          g->Add("next_" + name, "AddV2",
                 {absl::StrCat("switch_", name, ":1"), absl::StrCat("switch_", name, ":1")},
                 {kFloatT});
        }
        g->Loop(3, values);
        g->Add("out", "AddN", Names("exit_x", n), {kFloatT, absl::StrCat("N: i: ", n)});
      },
      [](int n) { return static_cast<float>(8 * n); });
}

TEST(HostileGraphsTest, FunctionsOfManyNodesThatAreNotNeeded) {
  ExpectLinear(
      5000,
      [](int n, GraphMaker* g) {
        g->Function("f", 1, {"neg:y:0"}, [n](GraphMaker* body) {
          for (const std::string& name : Names("unused", n)) body->Add(name, "NoOp", {});
          body->Add("neg", "Neg", {"x0"}, {kFloatT});
        });
        g->Const("one", Tensor::Scalar<float>(1));
        std::string at = "one";
        for (const std::string& name : Names("call", n)) {
          g->Add(name, "f", {at});
          at = name;
        }
        g->Add("out", "Identity", {at}, {kFloatT});
      },
      [](int) { return 1; });
}

TEST(HostileGraphsTest, FunctionalLoopsWithManyValuesAndSideEffects) {
  ExpectLinear(
      1000,
      [](int n, GraphMaker* g) {
        g->Function(
            "less", n, {"less:z:0"},
            [](GraphMaker* body) {
              body->Const("limit", Tensor::Scalar<float>(4));
              body->Add("less", "Less", {"x0", "limit:output:0"}, {kFloatT});
            },
            proto::DT_BOOL);
        std::vector<std::string> twice;
        for (const std::string& name : Names("twice", n)) twice.push_back(name + ":z:0");
        g->Function("body", n, twice, [n](GraphMaker* body) {
          body->Const("yes", Tensor::Scalar<bool>(true));
          for (int i = 0; i < n; ++i) {
            const std::string x = absl::StrCat("x", i);
            body->Add(absl::StrCat("assert", i), "Assert", {"yes:output:0", x},
                      {"T: list { type: DT_FLOAT }"});
            body->Add(absl::StrCat("twice", i), "AddV2", {x, x}, {kFloatT});
          }
        });
        g->Const("one", Tensor::Scalar<float>(1));
        std::string types = "T: list {";
        for (int i = 0; i < n; ++i) types += " type: DT_FLOAT";
        g->Add("loop", "While", std::vector<std::string>(static_cast<size_t>(n), "one"),
               {types + " }", "cond: func { name: 'less' }", "body: func { name: 'body' }"});
        g->Add("out", "AddN", Names("loop:", n), {kFloatT, absl::StrCat("N: i: ", n)});
      },
      [](int n) { return static_cast<float>(4 * n); });
}

// Each call has the function's constants anew.
TEST(HostileGraphsTest, FunctionsThatComeToMoreThanThereIsMemory) {
  GraphMaker g;
  g.Function("f", 1, {"sum:z:0"}, [](GraphMaker* body) {
    Tensor large = *Tensor::Allocate(DType::kFloat, {1 << 18});
    std::fill_n(large.data<float>(), 1 << 18, 1.0f);
    body->Const("large", large);
    body->Add("sum", "AddV2", {"x0", "large:output:0"}, {kFloatT});
  });
  g.Const("one", Tensor::Scalar<float>(1));
  std::vector<std::string> calls = Names("call", 100);
  for (const std::string& name : calls) g.Add(name, "f", {"one"});
  g.Add("out", "AddN", calls, {kFloatT, "N: i: 100"});
  HostAllocator* const host = HostAllocator::Get();
  const int64_t limit = host->limit();
  host->set_limit(int64_t{64} << 20);
  const absl::Status s = RunGraph(g.def(), "out").status();
  host->set_limit(limit);
  EXPECT_EQ(s.code(), absl::StatusCode::kResourceExhausted) << s;
  EXPECT_THAT(std::string(s.message()),
              testing::AllOf(testing::HasSubstr("node 'call"),
                             testing::HasSubstr("the functions that are called come to")));
}

// ---- Values that hold values ----

// Each iteration of a loop puts the last value into a new one.
TEST(HostileGraphsTest, ListsWithinLists) {
  GraphMaker g;
  g.Const("none", Tensor::Scalar<int32_t>(-1));
  g.Add("list", "EmptyTensorList", {"none", "none"},
        {"element_dtype: type: DT_VARIANT", "shape_type: type: DT_INT32"});
  g.Loop(200000, {{"list", "DT_VARIANT"}});
  g.Add("enter_none", "Enter", {"none"},
        {"T: type: DT_INT32", "frame_name: s: 'loop'", "is_constant: b: true"});
  g.Add("fresh", "EmptyTensorList", {"enter_none", "enter_none"},
        {"element_dtype: type: DT_VARIANT", "shape_type: type: DT_INT32"});
  g.Add("next_list", "TensorListPushBack", {"fresh", "switch_list:1"},
        {"element_dtype: type: DT_VARIANT"});
  g.Add("out", "TensorListLength", {"exit_list"});
  const absl::StatusOr<Tensor> out = RunGraph(g.def(), "out");
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->scalar<int32_t>(), 1);
}

TEST(HostileGraphsTest, OptionalsWithinOptionals) {
  GraphMaker g;
  g.Add("value", "OptionalNone", {});
  g.Loop(200000, {{"value", "DT_VARIANT"}});
  g.Add("next_value", "OptionalFromValue", {"switch_value:1"},
        {"Toutput_types: list { type: DT_VARIANT }"});
  g.Add("out", "OptionalHasValue", {"exit_value"});
  const absl::StatusOr<Tensor> out = RunGraph(g.def(), "out");
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_TRUE(out->scalar<bool>());
}

// The array of a gradient has such an array itself, and so on.
TEST(HostileGraphsTest, GradientsOfGradientsOfArrays) {
  GraphMaker g;
  g.Const("size", Tensor::Scalar<int32_t>(1));
  g.Add("array", "TensorArrayV3", {"size"}, {"dtype: type: DT_FLOAT"});
  g.Add("flow", "Identity", {"array:1"}, {kFloatT});
  g.Loop(100000, {{"array", "DT_RESOURCE"}});
  g.Add("enter_flow", "Enter", {"flow"},
        {kFloatT, "frame_name: s: 'loop'", "is_constant: b: true"});
  g.Add("next_array", "TensorArrayGradV3", {"switch_array:1", "enter_flow"}, {"source: s: 'g'"});
  g.Add("out", "TensorArraySizeV3", {"exit_array", "flow"});
  const absl::StatusOr<Tensor> out = RunGraph(g.def(), "out");
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->scalar<int32_t>(), 1);
}

TEST(HostileGraphsTest, ArraysAndListsOfTooManyElements) {
  GraphMaker g;
  g.Const("many", Tensor::Scalar<int32_t>(1 << 27));
  g.Const("none", Tensor::Scalar<int32_t>(-1));
  g.Add("array", "TensorArrayV3", {"many"}, {"dtype: type: DT_FLOAT"});
  g.Add("list", "TensorListReserve", {"none", "many"},
        {"element_dtype: type: DT_FLOAT", "shape_type: type: DT_INT32"});
  g.Add("from_array", "TensorArraySizeV3", {"array", "array:1"});
  g.Add("from_list", "TensorListLength", {"list"});
  for (const std::string from : {"array", "list"}) {
    const absl::Status s = RunGraph(g.def(), "from_" + from).status();
    EXPECT_EQ(s.code(), absl::StatusCode::kResourceExhausted) << s;
    EXPECT_THAT(std::string(s.message()), testing::HasSubstr("node '" + from + "'"));
  }
}

// Elements that aren't set have the shape of those that are, of which there may be but one.
TEST(HostileGraphsTest, ListsOfUnsetElements) {
  GraphMaker g;
  constexpr int32_t kElements = 100000;
  g.Const("many", Tensor::Scalar<int32_t>(kElements));
  g.Const("last", Tensor::Scalar<int32_t>(kElements - 1));
  g.Const("none", Tensor::Scalar<int32_t>(-1));
  g.Const("value", Tensor::Scalar<float>(5));
  const std::string type = "element_dtype: type: DT_FLOAT";
  g.Add("reserved", "TensorListReserve", {"none", "many"}, {type, "shape_type: type: DT_INT32"});
  g.Add("list", "TensorListSetItem", {"reserved", "last", "value"}, {type});
  g.Add("out", "TensorListStack", {"list", "none"}, {type});
  const absl::StatusOr<Tensor> out = RunGraph(g.def(), "out");
  ASSERT_TRUE(out.ok()) << out.status();
  ASSERT_EQ(out->num_elements(), kElements);
  EXPECT_EQ(out->data<float>()[0], 0);
  EXPECT_EQ(out->data<float>()[kElements - 1], 5);
}

// ---- Others ----

// A few bytes of a file ask for a million outputs.
TEST(HostileGraphsTest, NodesOfManyOutputs) {
  GraphMaker g;
  g.Add("x", "Placeholder", {}, {"dtype: type: DT_FLOAT"});
  g.Const("axis", Tensor::Scalar<int32_t>(0));
  for (const std::string& name : Names("split", 50)) {
    g.Add(name, "Split", {"axis", "x"}, {kFloatT, "num_split: i: 1048576"});
  }
  Graph graph;
  const absl::Status s = ImportGraphDef({}, g.def(), &graph);
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
  EXPECT_THAT(std::string(s.message()),
              testing::HasSubstr("node 'split4' (Split) has 1048576 outputs"));
}

// The product of the sizes is 2^64.
TEST(HostileGraphsTest, BlocksWhoseSizesOverflow) {
  for (const std::string op : {"BatchToSpaceND", "SpaceToBatchND"}) {
    GraphMaker g;
    Tensor blocks = *Tensor::Allocate(DType::kInt64, TensorShape({2}));
    std::fill_n(blocks.data<int64_t>(), 2, int64_t{1} << 32);
    Tensor pads = *Tensor::Allocate(DType::kInt32, TensorShape({2, 2}));
    std::fill_n(pads.data<int32_t>(), 4, 0);
    g.Const("x", *Tensor::Scalar<float>(1).WithShape(TensorShape({1, 1, 1})).DeepCopy());
    g.Const("blocks", blocks);
    g.Const("pads", pads);
    const std::string name = op[0] == 'B' ? "Tcrops" : "Tpaddings";
    g.Add("out", op, {"x", "blocks", "pads"},
          {kFloatT, "Tblock_shape: type: DT_INT64", name + ": type: DT_INT32"});
    const absl::Status s = RunGraph(g.def(), "out").status();
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
    EXPECT_THAT(std::string(s.message()), testing::HasSubstr("'out'"));
  }
}

TEST(HostileGraphsTest, AConditionThatIsAnUninitializedVariable) {
  GraphMaker g;
  g.Const("x", Tensor::Scalar<float>(1));
  g.Add("flag", "VariableV2", {}, {"dtype: type: DT_BOOL", "shape: shape {}"});
  g.Add("enter_flag", "RefEnter", {"flag"},
        {"T: type: DT_BOOL", "frame_name: s: 'loop'", "is_constant: b: true"});
  g.Add("enter", "Enter", {"x"}, {kFloatT, "frame_name: s: 'loop'"});
  g.Add("merge", "Merge", {"enter", "again"}, {kFloatT, "N: i: 2"});
  g.Add("cond", "LoopCond", {"enter_flag"});
  g.Add("switch", "Switch", {"merge", "cond"}, {kFloatT});
  g.Add("again", "NextIteration", {"switch:1"}, {kFloatT});
  g.Add("out", "Exit", {"switch"}, {kFloatT});
  const absl::Status s = RunGraph(g.def(), "out").status();
  EXPECT_EQ(s.code(), absl::StatusCode::kFailedPrecondition) << s;
  EXPECT_THAT(std::string(s.message()),
              testing::HasSubstr("Attempting to use uninitialized value flag (node 'cond'"));
}

// An op of double that takes the handle of a variable of float would read and write beyond it.
TEST(HostileGraphsTest, HandlesOfVariablesOfAnotherType) {
  const std::vector<std::string> t = {"T: type: DT_DOUBLE"}, dtype = {"dtype: type: DT_DOUBLE"},
                                 both = {t[0], "Tindices: type: DT_INT32"},
                                 rows = {dtype[0], "Tindices: type: DT_INT32"};
  const std::vector<std::tuple<std::string, std::vector<std::string>, std::vector<std::string>>>
      ops = {{"ReadVariableOp", {}, dtype},
             {"AssignVariableOp", {"values"}, dtype},
             {"AssignAddVariableOp", {"values"}, dtype},
             {"ResourceApplyGradientDescent", {"rate", "values"}, t},
             {"ResourceApplyMomentum", {"HANDLE", "rate", "values", "rate"}, t},
             {"ResourceSparseApplyAdagradV2", {"HANDLE", "rate", "rate", "values", "rows"}, both},
             {"ResourceGather", {"rows"}, rows},
             {"ResourceGatherNd", {"places"}, rows},
             {"ResourceScatterUpdate", {"rows", "values"}, rows},
             {"ResourceScatterAdd", {"rows", "values"}, rows},
             {"ResourceScatterNdUpdate", {"places", "values"}, both}};
  for (const bool told : {true, false}) {  // Whether the graph tells which variable it is.
    for (const auto& [op, others, attrs] : ops) {
      GraphMaker g;
      constexpr int kSize = 1000;
      const TensorShape shape({kSize});
      Tensor zeros = *Tensor::Allocate(DType::kFloat, shape);
      Tensor values = *Tensor::Allocate(DType::kDouble, shape);
      Tensor at = *Tensor::Allocate(DType::kInt32, shape);
      std::fill_n(zeros.data<float>(), kSize, 0.0f);
      std::fill_n(values.data<double>(), kSize, 1.0);
      for (int i = 0; i < kSize; ++i) at.data<int32_t>()[i] = i;
      g.Const("zeros", zeros);
      g.Const("values", values);
      g.Const("rate", Tensor::Scalar<double>(1));
      g.Const("rows", at);
      g.Const("places", at.WithShape(TensorShape({kSize, 1})));
      g.Const("yes", Tensor::Scalar<bool>(true));
      g.Add("v", "VarHandleOp", {},
            {"dtype: type: DT_FLOAT", "shape: shape { dim { size: 1000 } }"});
      g.Add("assigned", "AssignVariableOp", {"v", "zeros"}, {"dtype: type: DT_FLOAT"});
      g.Add("sides", "Switch", {"v", "yes"}, {"T: type: DT_RESOURCE"});
      g.Add("either", "Merge", {"sides:0", "sides:1"}, {"T: type: DT_RESOURCE", "N: i: 2"});
      const std::string handle = told ? "v" : "either";
      std::vector<std::string> inputs = {handle};
      for (const std::string& in : others) inputs.push_back(in == "HANDLE" ? handle : in);
      inputs.push_back("^assigned");
      g.Add("op", op, inputs, attrs);
      g.Add("out", "Identity", {"yes", "^op"}, {"T: type: DT_BOOL"});
      const absl::Status s = RunGraph(g.def(), "out").status();
      EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << op << ": " << s;
      EXPECT_THAT(std::string(s.message()),
                  testing::AllOf(testing::HasSubstr(absl::StrCat("node 'op' (", op, ")")),
                                 testing::HasSubstr("variable with wrong dtype. Expected "),
                                 testing::HasSubstr("(variable 'v')")));
    }
  }
}

TEST(HostileGraphsTest, ADeadlineWithoutSteps) {
  GraphMaker g;
  g.Add("x", "Placeholder", {}, {"dtype: type: DT_FLOAT"});
  Graph graph;
  ASSERT_TRUE(ImportGraphDef({}, g.def(), &graph).ok());
  Session session(&graph, {.threads = 1, .device = "cpu"});
  std::vector<Tensor> out;
  RunOptions late;
  late.timeout = absl::Seconds(-1);
  const absl::Status s = session.Run({{"x", Tensor::Scalar<float>(1)}}, {"x"}, {}, &out, late);
  EXPECT_EQ(s.code(), absl::StatusCode::kDeadlineExceeded) << s;
}

}  // namespace
}  // namespace ferry
