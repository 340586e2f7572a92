// Graphs: names, checks on nodes, scopes, GraphDef in and out, imports with every option, and what
// hostile GraphDefs give.
#include "runtime/graph/graph.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/scope.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

proto::GraphDef Parse(const std::string& text) {
  proto::GraphDef def;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &def)) << text;
  return def;
}

proto::NodeDef* AddDef(proto::GraphDef* def, const std::string& name, const std::string& op,
                       const std::vector<std::string>& inputs = {}) {
  proto::NodeDef* n = def->add_node();
  n->set_name(name);
  n->set_op(op);
  for (const std::string& in : inputs) n->add_input(in);
  return n;
}

proto::NodeDef* AddFloat(proto::GraphDef* def, const std::string& name) {
  proto::NodeDef* n = AddDef(def, name, "Const");
  (*n->mutable_attr())["dtype"] = MakeAttr(DType::kFloat);
  (*n->mutable_attr())["value"] = MakeAttr(Tensor::Scalar<float>(1));
  return n;
}

proto::NodeDef* AddIdentity(proto::GraphDef* def, const std::string& name,
                            const std::vector<std::string>& inputs) {
  proto::NodeDef* n = AddDef(def, name, "Identity", inputs);
  (*n->mutable_attr())["T"] = MakeAttr(DType::kFloat);
  return n;
}

std::vector<std::string> Names(const Graph& g) {
  std::vector<std::string> names;
  for (const auto& n : g.nodes()) names.push_back(n->name());
  return names;
}

std::string ImportError(const proto::GraphDef& def, const ImportOptions& options = {}) {
  Graph g;
  absl::Status s = ImportGraphDef(options, def, &g);
  EXPECT_TRUE(absl::IsInvalidArgument(s) || absl::IsUnimplemented(s)) << s;
  return std::string(s.message());
}

// The results are TensorFlow's for the same sequence of Graph.unique_name calls.
TEST(UniqueName, AsTensorFlow) {
  Graph g;
  const std::pair<const char*, const char*> calls[] = {
      {"a", "a"},         {"a", "a_1"},   {"A", "A_2"},     {"a_1", "a_1_1"},
      {"b/c", "b/c"},     {"b", "b"},     {"b/c", "b/c_1"}, {"B/d", "B/d"},
      {"x/y/z", "x/y/z"}, {"x/y", "x/y"}, {"X", "X"}};
  for (const auto& [name, unique] : calls) EXPECT_EQ(g.UniqueName(name), unique);
  EXPECT_EQ(g.UniqueName("a", false), "a_3");
  EXPECT_EQ(g.UniqueName("a", false), "a_3");
  EXPECT_EQ(g.UniqueName("new", false), "new");
  EXPECT_EQ(g.UniqueName("new"), "new");
}

TEST(UniqueName, NodesTakeTheirNames) {
  Graph g;
  Scope s(&g);
  ops::NoOp(s.WithOpName("n"));
  EXPECT_EQ(g.UniqueName("N"), "N_1");
}

TEST(ParseTensorName, Forms) {
  EXPECT_EQ(*ParseTensorName("a"), std::make_pair(std::string("a"), 0));
  EXPECT_EQ(*ParseTensorName("a/b:12"), std::make_pair(std::string("a/b"), 12));
  EXPECT_EQ(*ParseTensorName("^a"), std::make_pair(std::string("a"), -1));
  for (const char* bad : {"", ":0", "a:", "a:x", "a:-1", "a:b:0", "^", "^a:0", "a:99999999999"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseTensorName(bad).status())) << bad;
  }
}

TEST(IsValidNodeName, Forms) {
  for (const char* good : {"a", "A.b-c/d_e", "0", ".x", "a>b"}) EXPECT_TRUE(IsValidNodeName(good));
  for (const char* bad : {"", "_a", "/a", "a b", "a:0", "^a", "ä"}) {
    EXPECT_FALSE(IsValidNodeName(bad)) << bad;
  }
}

TEST(Graph, AddNodeErrors) {
  Graph g, other;
  Scope s(&g);
  Output f = ops::Const(s.WithOpName("f"), 1.0f);
  Output i = ops::Const(s.WithOpName("i"), 1);
  Output foreign = ops::Const(Scope(&other), 1.0f);
  ASSERT_TRUE(s.ok());
  AttrMap t;
  t["T"] = MakeAttr(DType::kFloat);
  auto error = [&](const std::string& name, const std::string& op, const AttrMap& attrs,
                   const std::vector<Output>& in, const std::vector<Node*>& control = {}) {
    absl::StatusOr<Node*> n = g.AddNode(name, op, attrs, in, control);
    EXPECT_FALSE(n.ok());
    return std::string(n.status().message());
  };
  EXPECT_THAT(error("f", "Identity", t, {f}), HasSubstr("'f' already exists"));
  EXPECT_THAT(error("_x", "Identity", t, {f}), HasSubstr("'_x' is not a valid node name"));
  EXPECT_THAT(error("x", "Nowhere", t, {f}), HasSubstr("op type not registered 'Nowhere'"));
  EXPECT_THAT(error("x", "Identity", t, {}), HasSubstr("node 'x' (Identity): expected 1 inputs"));
  EXPECT_THAT(error("x", "Identity", t, {f, f}), HasSubstr("expected 1 inputs, got 2"));
  EXPECT_THAT(error("x", "Identity", t, {i}),
              HasSubstr("input 0 was passed int32 from 'i:0' incompatible with expected float"));
  EXPECT_THAT(error("x", "Identity", t, {Output(f.node, 1)}), HasSubstr("invalid output 1"));
  EXPECT_THAT(error("x", "Identity", t, {Output()}), HasSubstr("input 0 is empty"));
  EXPECT_THAT(error("x", "Identity", t, {foreign}), HasSubstr("belongs to another graph"));
  EXPECT_THAT(error("x", "Identity", {}, {f}), HasSubstr("T"));
  EXPECT_THAT(error("x", "Identity", t, {f}, {foreign.node}), HasSubstr("another graph"));
  EXPECT_EQ(g.num_nodes(), 2);
  EXPECT_TRUE(g.AddNode("x", "Identity", t, {f}).ok());
}

TEST(Graph, ReferencesFeedValuesButNotTheOtherWay) {
  Graph g;
  Scope s(&g);
  Output v = ops::VariableV2(s.WithOpName("v"), {2}, DType::kFloat);
  Output read = ops::Identity(s.WithOpName("read"), v);
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(v.dtype(), RefType(DType::kFloat));
  EXPECT_EQ(read.dtype(), DType::kFloat);
  EXPECT_EQ(read.shape(), PartialShape({2}));
  ops::Assign(s.WithOpName("set"), read, read);
  EXPECT_THAT(std::string(s.status().message()),
              HasSubstr("node 'set' (Assign): input 0 was passed float from 'read:0' incompatible "
                        "with expected float_ref"));
}

TEST(Graph, FindOutput) {
  Graph g;
  Scope s(&g);
  Output f = ops::Const(s.WithOpName("f"), 1.0f);
  EXPECT_EQ(*g.FindOutput("f"), f);
  EXPECT_EQ(*g.FindOutput("f:0"), f);
  EXPECT_EQ(*g.FindOutput("^f"), Output(f.node, -1));
  EXPECT_TRUE(absl::IsNotFound(g.FindOutput("g:0").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(g.FindOutput("f:1").status()));
}

TEST(Graph, UpdateInputKeepsConsumersInOrder) {
  Graph g;
  Scope s(&g);
  Output a = ops::Const(s.WithOpName("a"), 1.0f), b = ops::Const(s.WithOpName("b"), 1.0f);
  Output x = ops::Identity(s, a), y = ops::Identity(s, b), z = ops::Identity(s, a);
  ASSERT_TRUE(g.UpdateInput(x.node, 0, b).ok());
  EXPECT_THAT(a.node->consumers(), ElementsAre(z.node));
  EXPECT_THAT(b.node->consumers(), ElementsAre(x.node, y.node));
  ASSERT_TRUE(g.AddControlEdge(a.node, y.node).ok());
  ASSERT_TRUE(g.AddControlEdge(a.node, y.node).ok());
  EXPECT_THAT(a.node->consumers(), ElementsAre(y.node, z.node));
  EXPECT_TRUE(absl::IsInvalidArgument(g.UpdateInput(x.node, 1, b)));
  EXPECT_TRUE(absl::IsInvalidArgument(g.UpdateInput(x.node, 0, Output(b.node, 3))));
}

TEST(Scope, NamesDevicesControlColocation) {
  Graph g;
  Scope root(&g);
  Scope h = root.NewSubScope("h"), h1 = root.NewSubScope("h");
  Output a = ops::Const(h.WithOpName("a"), 1.0f);
  Output b = ops::Const(h1.WithOpName("a"), 1.0f);
  Output c = ops::Identity(h.NewSubScope("in").WithDevice("/cpu:0").ColocateWith(b.node), a);
  Output d = ops::Identity(root.WithPrefix("h/in"), c);
  Output e = ops::Identity(root.WithOpName("exact/"), c);
  Node* n = ops::NoOp(root.WithControlDependencies({a.node, b.node, a.node}));
  // A data edge makes a control edge needless.
  Output f = ops::Identity(root.WithControlDependencies({a.node, b.node}).ColocateWith(c.node), a);
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_THAT(Names(g), ElementsAre("h/a", "h_1/a", "h/in/Identity", "h/in/Identity_1", "exact",
                                    "NoOp", "Identity"));
  EXPECT_EQ(c.node->device(), "/cpu:0");
  EXPECT_THAT(*c.node->Attr<std::vector<std::string>>("_class"), ElementsAre("loc:@h_1/a"));
  EXPECT_THAT(*f.node->Attr<std::vector<std::string>>("_class"), ElementsAre("loc:@h_1/a"));
  EXPECT_EQ(f.node->device(), "/cpu:0");
  EXPECT_THAT(n->control_inputs(), ElementsAre(a.node, b.node));
  EXPECT_THAT(f.node->control_inputs(), ElementsAre(b.node));
  EXPECT_EQ(d.node->num_inputs(), 1);
  EXPECT_EQ(e.name(), "exact:0");
}

TEST(Scope, FirstErrorStaysAndLaterOpsDoNothing) {
  Graph g;
  Scope root(&g);
  Output a = ops::Const(root, 1.0f);
  Output bad = NodeBuilder(root.NewSubScope("sub"), "NoSuchOp").BuildOutput();
  EXPECT_EQ(bad.node, nullptr);
  EXPECT_TRUE(absl::IsUnimplemented(root.status()));
  EXPECT_EQ(ops::Identity(root, bad).node, nullptr);
  EXPECT_EQ(ops::Identity(root, a).node, nullptr);
  EXPECT_THAT(std::string(root.status().message()), HasSubstr("NoSuchOp"));
  EXPECT_EQ(g.num_nodes(), 1);

  Scope again(&g);
  again.NewSubScope("no good");
  EXPECT_THAT(std::string(again.status().message()), HasSubstr("'no good' is not a valid scope"));
}

constexpr char kGolden[] = R"pb(
  node {
    name: "c"
    op: "Const"
    device: "/device:CPU:0"
    attr {
      key: "dtype"
      value { type: DT_FLOAT }
    }
    attr {
      key: "value"
      value {
        tensor {
          dtype: DT_FLOAT
          tensor_shape {}
          float_val: 1.5
        }
      }
    }
  }
  node {
    name: "s/v"
    op: "VariableV2"
    attr {
      key: "_class"
      value { list { s: "loc:@c" } }
    }
    attr {
      key: "container"
      value { s: "" }
    }
    attr {
      key: "dtype"
      value { type: DT_FLOAT }
    }
    attr {
      key: "shape"
      value { shape {} }
    }
    attr {
      key: "shared_name"
      value { s: "" }
    }
  }
  node {
    name: "s/Switch"
    op: "Switch"
    input: "c"
    input: "p"
    attr {
      key: "T"
      value { type: DT_FLOAT }
    }
  }
  node {
    name: "p"
    op: "Placeholder"
    attr {
      key: "dtype"
      value { type: DT_BOOL }
    }
    attr {
      key: "shape"
      value { shape { unknown_rank: true } }
    }
  }
  node {
    name: "s/id"
    op: "Identity"
    input: "s/Switch:1"
    input: "^c"
    input: "^s/v"
    attr {
      key: "T"
      value { type: DT_FLOAT }
    }
  }
  node {
    name: "f"
    op: "MyFunction"
    input: "s/id"
    attr {
      key: "anything"
      value { i: 3 }
    }
  }
  node { name: "g" op: "MyFunction" input: "f:2" input: "f" input: "^f" }
  library { function { signature { name: "MyFunction" } } }
  versions { producer: 1882 min_consumer: 12 }
)pb";

TEST(ImportGraphDef, RoundTrip) {
  const proto::GraphDef def = Parse(kGolden);
  Graph g;
  ImportResults results;
  ImportOptions options;
  options.return_elements = {"s/Switch:1", "f", "f:3"};
  ASSERT_TRUE(ImportGraphDef(options, def, &g, &results).ok());
  EXPECT_EQ(results.return_outputs[0], *g.FindOutput("s/Switch:1"));
  EXPECT_EQ(results.return_outputs[1], Output(g.FindNode("f"), -1));
  EXPECT_EQ(results.nodes.size(), 7u);
  EXPECT_EQ(g.FindNode("f")->info(), nullptr);
  EXPECT_EQ(g.FindNode("f")->num_outputs(), 4);
  EXPECT_EQ(g.FindOutput("f:2")->dtype(), DType::kInvalid);

  proto::GraphDef out;
  g.ToGraphDef(&out);
  // "p" is needed by "s/Switch", so it moves before it.
  proto::GraphDef expected = def;
  expected.mutable_node()->SwapElements(2, 3);
  google::protobuf::util::MessageDifferencer differ;
  std::string difference;
  differ.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differ.Compare(expected, out)) << difference;

  // Once more, from what was written.
  Graph h;
  proto::GraphDef again;
  ASSERT_TRUE(ImportGraphDef({}, out, &h).ok());
  h.ToGraphDef(&again);
  EXPECT_EQ(again.SerializeAsString().size(), out.SerializeAsString().size());
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(out, again));
}

TEST(ImportGraphDef, OutputShapesJoinInferenceAndAreNotKept) {
  proto::GraphDef def;
  AddDef(&def, "p", "Placeholder");
  (*def.mutable_node(0)->mutable_attr())["dtype"] = MakeAttr(DType::kFloat);
  (*def.mutable_node(0)->mutable_attr())["_output_shapes"] =
      MakeAttr(std::vector<PartialShape>{PartialShape({-1, 3})});
  AddIdentity(&def, "i", {"p"});
  Graph g;
  ASSERT_TRUE(ImportGraphDef({}, def, &g).ok());
  EXPECT_EQ(g.FindOutput("i")->shape(), PartialShape({-1, 3}));
  EXPECT_FALSE(g.FindNode("p")->attrs().contains("_output_shapes"));

  (*def.mutable_node(1)->mutable_attr())["_output_shapes"] =
      MakeAttr(std::vector<PartialShape>{PartialShape({7, 4})});
  EXPECT_THAT(ImportError(def), HasSubstr("node 'i' (Identity): _output_shapes says [7,4]"));
}

TEST(ImportGraphDef, PrefixTwice) {
  proto::GraphDef def;
  AddFloat(&def, "a")->set_device("/gpu:0");
  proto::NodeDef* b = AddIdentity(&def, "b", {"a", "^a"});
  (*b->mutable_attr())["_class"] = MakeAttr(std::vector<std::string>{"loc:@a", "other"});
  Graph g;
  ImportOptions options;
  options.prefix = "import";
  options.clear_devices = true;
  ImportResults results;
  ASSERT_TRUE(ImportGraphDef(options, def, &g).ok());
  ASSERT_TRUE(ImportGraphDef(options, def, &g, &results).ok());
  EXPECT_THAT(Names(g), ElementsAre("import/a", "import/b", "import_1/a", "import_1/b"));
  EXPECT_EQ(g.UniqueName("import"), "import_2");
  Node* n = g.FindNode("import_1/b");
  EXPECT_EQ(results.nodes["b"], n);
  EXPECT_EQ(n->input(0).node, g.FindNode("import_1/a"));
  EXPECT_THAT(n->control_inputs(), ElementsAre(g.FindNode("import_1/a")));
  EXPECT_THAT(*n->Attr<std::vector<std::string>>("_class"),
              ElementsAre("loc:@import_1/a", "other"));
  EXPECT_EQ(g.FindNode("import/a")->device(), "");

  options.prefix = "import/";
  EXPECT_THAT(std::string(ImportGraphDef(options, def, &g).message()),
              HasSubstr("'import/a' already exists"));
  options.prefix = "no good";
  EXPECT_THAT(ImportError(def, options), HasSubstr("'no good' is not a valid prefix"));
}

TEST(ImportGraphDef, UniquifiesNamesAsTensorFlow) {
  proto::GraphDef def;
  AddFloat(&def, "z");
  AddIdentity(&def, "a", {"z"});
  AddIdentity(&def, "s", {"z"});
  AddIdentity(&def, "z_1", {"z"});
  Graph g;
  ops::Const(Scope(&g).WithOpName("z"), 1.0f);
  ops::Const(Scope(&g).WithPrefix("s").WithOpName("inner"), 1.0f);
  EXPECT_THAT(std::string(ImportGraphDef({}, def, &g).message()), HasSubstr("'z' already exists"));
  ImportOptions options;
  options.uniquify_names = true;
  ASSERT_TRUE(ImportGraphDef(options, def, &g).ok());
  EXPECT_THAT(Names(g), ElementsAre("z", "s/inner", "z_2", "a", "s_1", "z_1"));
  EXPECT_EQ(g.FindNode("a")->input(0).node, g.FindNode("z_2"));
}

TEST(ImportGraphDef, InputMap) {
  proto::GraphDef def;
  AddFloat(&def, "a");
  AddFloat(&def, "b");
  AddIdentity(&def, "x", {"a:0", "^b"});
  AddIdentity(&def, "y", {"gone:2"});
  Graph g;
  Scope s(&g);
  Output m = ops::Const(s.WithOpName("m"), 1.0f), k = ops::Const(s.WithOpName("k"), 2.0f);
  ImportOptions options;
  options.prefix = "p";
  options.input_map = {{"a", m}, {"^b", k}, {"gone:2", m}};
  options.return_elements = {"a", "a:0", "x:0", "y"};
  ImportResults r;
  ASSERT_TRUE(ImportGraphDef(options, def, &g, &r).ok());
  Node* x = g.FindNode("p/x");
  EXPECT_EQ(x->input(0), m);
  EXPECT_THAT(x->control_inputs(), ElementsAre(k.node));
  EXPECT_EQ(g.FindNode("p/y")->input(0), m);
  EXPECT_THAT(r.return_outputs, ElementsAre(Output(m.node, -1), Output(g.FindNode("p/a"), 0),
                                            Output(x, 0), Output(g.FindNode("p/y"), -1)));

  options.input_map["nowhere:0"] = m;
  EXPECT_THAT(std::string(ImportGraphDef(options, def, &g).message()),
              HasSubstr("not found in graph_def: 'nowhere:0'"));
  options.input_map = {{"a", Output()}, {"gone:2", m}};
  EXPECT_THAT(std::string(ImportGraphDef(options, def, &g).message()),
              HasSubstr("maps 'a' to nothing"));
  options.input_map = {{"gone:2", m}};
  options.return_elements = {"x:1"};
  EXPECT_THAT(std::string(ImportGraphDef(options, def, &g, &r).message()),
              HasSubstr("requested return element 'x:1'"));
}

TEST(ImportGraphDef, LoopsOnlyThroughNextIteration) {
  proto::GraphDef def;
  AddFloat(&def, "start");
  proto::NodeDef* merge = AddDef(&def, "merge", "Merge", {"start", "next"});
  (*merge->mutable_attr())["T"] = MakeAttr(DType::kFloat);
  (*merge->mutable_attr())["N"] = MakeAttr(2);
  AddIdentity(&def, "body", {"merge"});
  proto::NodeDef* next = AddDef(&def, "next", "NextIteration", {"body"});
  (*next->mutable_attr())["T"] = MakeAttr(DType::kFloat);
  Graph g;
  absl::Status s = ImportGraphDef({}, def, &g);
  ASSERT_TRUE(s.ok()) << s;
  EXPECT_EQ(g.FindNode("merge")->input(1), Output(g.FindNode("next"), 0));
  EXPECT_THAT(g.FindNode("next")->consumers(), ElementsAre(g.FindNode("merge")));
  proto::GraphDef out;
  g.ToGraphDef(&out);
  EXPECT_EQ(out.node(1).input(1), "next");

  def.mutable_node(3)->set_op("Identity");
  EXPECT_THAT(ImportError(def), HasSubstr("cycle that no NextIteration closes: 'merge' <- 'next' "
                                          "<- 'body' <- 'merge'"));
}

TEST(ImportGraphDef, Errors) {
  proto::GraphDef def;
  AddFloat(&def, "a");
  auto with = [&](const std::vector<std::string>& inputs) {
    proto::GraphDef d = def;
    AddIdentity(&d, "x", inputs);
    return d;
  };
  EXPECT_THAT(ImportError(with({"b"})), HasSubstr("node 'x': unknown input node 'b'"));
  EXPECT_THAT(ImportError(with({"^b"})), HasSubstr("node 'x': unknown input node '^b'"));
  EXPECT_THAT(ImportError(with({"a:1"})), HasSubstr("invalid output 1 of source node 'a'"));
  EXPECT_THAT(ImportError(with({"a:out:0"})), HasSubstr("node 'x': input 'a:out:0'"));
  EXPECT_THAT(ImportError(with({""})), HasSubstr("node 'x': input ''"));
  EXPECT_THAT(ImportError(with({"^a", "a"})), HasSubstr("input 'a' follows a control input"));
  EXPECT_THAT(ImportError(with({"x"})), HasSubstr("'x' <- 'x'"));
  EXPECT_THAT(ImportError(with({"a", "^x"})), HasSubstr("'x' <- 'x'"));
  proto::GraphDef twice = def;
  AddFloat(&twice, "a");
  EXPECT_THAT(ImportError(twice), HasSubstr("node 'a' is not unique"));
  proto::GraphDef unnamed = def;
  AddFloat(&unnamed, "");
  EXPECT_THAT(ImportError(unnamed), HasSubstr("node 1 of the GraphDef: ''"));
  proto::GraphDef lost = def;
  (*lost.mutable_node(0)->mutable_attr())["_class"] =
      MakeAttr(std::vector<std::string>{"loc:@nobody"});
  EXPECT_THAT(ImportError(lost), HasSubstr("colocated with unknown node 'nobody'"));
  proto::GraphDef future = def;
  future.mutable_versions()->set_min_consumer(1 << 30);
  EXPECT_THAT(ImportError(future), HasSubstr("min consumer version 1073741824"));
  proto::GraphDef unknown = def;
  AddDef(&unknown, "u", "Unknown");
  ImportOptions strict;
  strict.allow_unknown_ops = false;
  EXPECT_THAT(ImportError(unknown, strict), HasSubstr("op type not registered 'Unknown'"));
  AddIdentity(&unknown, "many", {"u:2147483647"});
  EXPECT_THAT(ImportError(unknown), HasSubstr("output 2147483647 of an op that isn't registered"));
}

TEST(ImportGraphDef, LongChainInReverseOrder) {
  constexpr int kNodes = 200000;  // Recursion this deep would overflow the stack.
  proto::GraphDef def;
  for (int i = kNodes; i > 0; --i) {
    AddIdentity(&def, absl::StrCat("n", i), {absl::StrCat("n", i - 1)});
  }
  AddFloat(&def, "n0");
  Graph g;
  absl::Status s = ImportGraphDef({}, def, &g);
  ASSERT_TRUE(s.ok()) << s;
  EXPECT_EQ(g.nodes().front()->name(), "n0");
  EXPECT_EQ(g.num_nodes(), kNodes + 1);
  EXPECT_EQ(g.FindOutput(absl::StrCat("n", kNodes))->shape(), PartialShape::Scalar());
}

// The bits of the value aren't taken for an axis.
TEST(ImportGraphDef, ConstantOfAnotherTypeThanItSays) {
  proto::GraphDef def = Parse(R"pb(
    node {
      name: "x"
      op: "Placeholder"
      attr { key: "dtype" value { type: DT_FLOAT } }
      attr { key: "shape" value { shape { dim { size: 2 } dim { size: 3 } } } }
    }
    node {
      name: "axis"
      op: "Const"
      attr { key: "dtype" value { type: DT_INT32 } }
      attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape {} float_val: 0 } } }
    }
    node {
      name: "sum"
      op: "Sum"
      input: "x"
      input: "axis"
      attr { key: "T" value { type: DT_FLOAT } }
    }
  )pb");
  Graph g;
  ASSERT_TRUE(ImportGraphDef({}, def, &g).ok());
  EXPECT_FALSE(g.FindOutput("sum")->shape().known_rank());
}

// Every truncation and many changed bytes of a valid GraphDef: whatever still parses either imports
// or gives an error.
TEST(ImportGraphDef, HostileBytes) {
  const std::string good = Parse(kGolden).SerializeAsString();
  int parsed = 0;
  uint32_t state = 1;
  for (size_t i = 0; i < good.size() * 8; ++i) {
    std::string bad = good;
    if (i < good.size()) {
      bad.resize(i);
    } else {
      for (int k = 0; k < 3; ++k) {
        state = state * 1664525u + 1013904223u;
        bad[(state >> 8) % bad.size()] = static_cast<char>(state >> 24);
      }
    }
    proto::GraphDef def;
    if (!def.ParseFromString(bad)) continue;
    ++parsed;
    Graph g;
    ImportGraphDef({}, def, &g).IgnoreError();
    proto::GraphDef out;
    g.ToGraphDef(&out);
  }
  EXPECT_GT(parsed, 100);
}

}  // namespace
}  // namespace ferry
