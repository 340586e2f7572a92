// Meta graphs: a Saver's nodes as TensorFlow adds them, files with and without a crc, imports.
#include "saver/meta_graph.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "proto/control_flow.pb.h"
#include "runtime/graph/collections.h"
#include "runtime/graph/cond.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

using google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

proto::MetaGraphDef Golden(const std::string& name) {
  auto meta = ReadMetaGraph(FileSystem::Posix(), "tests/testdata/savers/" + name);
  EXPECT_TRUE(meta.ok()) << meta.status();
  return meta.ok() ? *meta : proto::MetaGraphDef();
}

// The nodes of a GraphDef by name, without what depends on TensorFlow's own shape functions.
std::map<std::string, proto::NodeDef> ByName(const proto::GraphDef& def) {
  std::map<std::string, proto::NodeDef> nodes;
  for (proto::NodeDef n : def.node()) {
    n.mutable_attr()->erase("_output_shapes");
    nodes[n.name()] = n;
  }
  return nodes;
}

bool IsSaverNode(const std::string& name) {
  return name.rfind("save/", 0) == 0 || name.rfind("save_1/", 0) == 0 ||
         name.rfind("keeper/", 0) == 0;
}

// Imports a meta graph of TensorFlow's without its saver's nodes, adds ours, and compares.
class SaveNodesTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SaveNodesTest, AreThoseOfTensorFlow) {
  const std::string name = GetParam();
  proto::MetaGraphDef golden = Golden(name + ".meta");
  proto::MetaGraphDef bare = golden;
  auto* nodes = bare.mutable_graph_def()->mutable_node();
  for (int i = nodes->size(); i-- > 0;) {
    if (IsSaverNode((*nodes)[i].name())) nodes->DeleteSubrange(i, 1);
  }
  Graph graph;
  auto imported = ImportMetaGraph(bare, {}, &graph);
  ASSERT_TRUE(imported.ok()) << imported.status();
  const Output a(graph.FindNode("a"), 0), b(graph.FindNode("b"), 0),
      c(graph.FindNode("scope/c"), 0);
  std::vector<SaveItem> items = {{"a", a, ""}, {"b", b, ""}, {"scope/c", c, ""}};
  SaveNodesOptions options;
  if (name == "map") items = {{"b", b, ""}, {"other/name", a, ""}};
  if (name == "partitioned") {
    items[0] = {"a", Output(graph.FindNode("a/part_0"), 0), "2 3 0,2:0,2"};
    items.insert(items.begin() + 1, {"a", Output(graph.FindNode("a/part_1"), 0), "2 3 0,2:2,1"});
  }
  if (name == "options") options.name = "keeper";
  options.reshape = name == "reshape";
  options.sharded = name == "sharded" || name == "one_device";
  auto def = AddSaveNodes(&graph, items, options);
  ASSERT_TRUE(def.ok()) << def.status();
  EXPECT_EQ(def->filename_tensor_name(), golden.saver_def().filename_tensor_name());
  EXPECT_EQ(def->save_tensor_name(), golden.saver_def().save_tensor_name());
  EXPECT_EQ(def->restore_op_name(), golden.saver_def().restore_op_name());
  EXPECT_EQ(def->sharded(), golden.saver_def().sharded());
  ExportOptions exporting;
  exporting.saver_def = &*def;
  auto meta = ExportMetaGraph(graph, exporting);
  ASSERT_TRUE(meta.ok()) << meta.status();
  const auto want = ByName(golden.graph_def()), have = ByName(meta->graph_def());
  int compared = 0;
  for (const auto& [node_name, node] : want) {
    if (!IsSaverNode(node_name)) continue;
    auto it = have.find(node_name);
    ASSERT_NE(it, have.end()) << node_name;
    std::string difference;
    MessageDifferencer differ;
    differ.ReportDifferencesToString(&difference);
    EXPECT_TRUE(differ.Compare(node, it->second)) << node_name << ": " << difference;
    ++compared;
  }
  EXPECT_GE(compared, 10);
  for (const auto& [node_name, node] : have) EXPECT_TRUE(want.count(node_name)) << node_name;
  // And back.
  auto found = FindSaveItems(graph, *def);
  ASSERT_TRUE(found.ok()) << found.status();
  std::sort(found->begin(), found->end(),
            [](auto& x, auto& y) { return std::tie(x.key, x.slice) < std::tie(y.key, y.slice); });
  ASSERT_EQ(found->size(), items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ((*found)[i].key, items[i].key);
    EXPECT_EQ((*found)[i].variable, items[i].variable);
  }
  // A second Saver of the same kind finds these nodes; others don't.
  const auto again = FindSaveNodes(graph, items, options);
  ASSERT_TRUE(again.has_value());
  EXPECT_TRUE(MessageDifferencer::Equals(*again, *def));
  for (int difference = 0; difference < 5; ++difference) {
    SaveNodesOptions other = options;
    std::vector<SaveItem> others = items;
    if (difference == 0) other.sharded = !other.sharded;
    if (difference == 1) other.reshape = !other.reshape;
    if (difference == 2) other.filename = "another";
    if (difference == 3) others.pop_back();
    if (difference == 4) others[0].key = "another";
    EXPECT_FALSE(FindSaveNodes(graph, others, other).has_value()) << difference;
  }
}

INSTANTIATE_TEST_SUITE_P(All, SaveNodesTest,
                         ::testing::Values("unsharded", "options", "reshape", "map", "sequential",
                                           "sharded", "one_device", "partitioned"));

TEST(MetaGraphTest, ReadsTextAsBinary) {
  for (const char* name : {"unsharded", "sharded", "collections"}) {
    EXPECT_TRUE(MessageDifferencer::Equals(Golden(std::string(name) + ".meta"),
                                           Golden(std::string(name) + ".pbtxt")))
        << name;
  }
}

TEST(MetaGraphTest, ShardedSaversAreUnderstood) {
  Graph graph;
  auto imported = ImportMetaGraph(Golden("sharded.meta"), {}, &graph);
  ASSERT_TRUE(imported.ok()) << imported.status();
  auto items = FindSaveItems(graph, imported->saver_def);
  ASSERT_TRUE(items.ok()) << items.status();
  std::vector<std::string> keys;
  for (const SaveItem& i : *items) keys.push_back(i.key);
  EXPECT_THAT(keys, ::testing::UnorderedElementsAre("a", "b", "scope/c"));
}

TEST(MetaGraphTest, ImportScopeGoesBeforeEveryName) {
  Graph graph;
  ImportMetaOptions options;
  options.import_scope = "imported";
  options.clear_devices = true;
  auto imported = ImportMetaGraph(Golden("unsharded.meta"), options, &graph);
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_NE(graph.FindNode("imported/scope/c/read"), nullptr);
  EXPECT_EQ(imported->saver_def.restore_op_name(), "imported/save/restore_all");
  EXPECT_THAT(graph.collections().at("variables").bytes_list().value(0),
              HasSubstr("imported/a/read:0"));
  ASSERT_TRUE(FindSaveItems(graph, imported->saver_def).ok());
}

TEST(MetaGraphTest, ExportKeepsWhatWasImported) {
  const proto::MetaGraphDef golden = Golden("collections.meta");
  Graph graph;
  auto imported = ImportMetaGraph(golden, {}, &graph);
  ASSERT_TRUE(imported.ok()) << imported.status();
  ExportOptions exporting;
  exporting.saver_def = &imported->saver_def;
  exporting.tags = {"serve"};
  exporting.strip_default_attrs = true;
  auto meta = ExportMetaGraph(graph, exporting);
  ASSERT_TRUE(meta.ok()) << meta.status();
  EXPECT_EQ(meta->collection_def_size(), golden.collection_def_size());
  for (const auto& [name, collection] : golden.collection_def()) {
    EXPECT_TRUE(MessageDifferencer::Equals(collection, meta->collection_def().at(name))) << name;
  }
  EXPECT_TRUE(MessageDifferencer::Equals(golden.saver_def(), meta->saver_def()));
  const auto want = ByName(golden.graph_def()), have = ByName(meta->graph_def());
  ASSERT_EQ(want.size(), have.size());
  for (const auto& [op_index, op] : [&] {
         std::map<std::string, proto::OpDef> ops;
         for (const auto& o : golden.meta_info_def().stripped_op_list().op()) ops[o.name()] = o;
         return ops;
       }()) {
    const OpInfo* ours = FindOp(op_index);
    ASSERT_NE(ours, nullptr) << op_index;
  }
}

// Layers in two scopes, the second fed by the first; variables in both.
struct Layers {
  Layers() {
    Scope root(&graph);
    Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {2, 3});
    for (const char* name : {"first", "second"}) {
      const Scope s = root.NewSubScope(name);
      VariableHandle w = GetVariable(s, "w", {3, 3}, DType::kFloat);
      x = ops::MatMul(s.WithOpName("out"), x, w.read);
      EXPECT_TRUE(AddNodeToCollection(&graph, "outputs", x.name()).ok());
    }
    EXPECT_TRUE(root.ok()) << root.status();
  }
  Graph graph;
};

TEST(MetaGraphTest, ExportsAScope) {
  Layers layers;
  ExportOptions options;
  options.export_scope = "second";
  auto meta = ExportMetaGraph(layers.graph, options);
  ASSERT_TRUE(meta.ok()) << meta.status();
  const auto nodes = ByName(meta->graph_def());
  ASSERT_EQ(nodes.count("w/read"), 1u);
  EXPECT_EQ(nodes.count("x"), 0u);
  EXPECT_EQ(nodes.at("out").input(0), "$unbound_inputs_first/out");
  EXPECT_EQ(nodes.at("w/Assign").attr().at("_class").list().s(0), "loc:@w");
  EXPECT_EQ(meta->collection_def().at("outputs").node_list().value_size(), 1);
  EXPECT_EQ(meta->collection_def().at("outputs").node_list().value(0), "out:0");
  EXPECT_EQ(meta->collection_def().at("variables").bytes_list().value_size(), 1);
  EXPECT_EQ(meta->collection_def().at("unbound_inputs").bytes_list().value(0),
            "$unbound_inputs_first/out");

  // In another graph, the user says what the input is.
  Graph other;
  const Output y = ops::Placeholder(Scope(&other).WithOpName("y"), DType::kFloat, {2, 3});
  ImportMetaOptions import;
  import.import_scope = "copy";
  import.input_map["$unbound_inputs_first/out"] = y;
  import.return_elements = {"out:0", "w"};
  auto imported = ImportMetaGraph(*meta, import, &other);
  ASSERT_TRUE(imported.ok()) << imported.status();
  ASSERT_EQ(imported->nodes.return_outputs.size(), 2u);
  EXPECT_EQ(imported->nodes.return_outputs[0].name(), "copy/out:0");
  EXPECT_EQ(imported->nodes.return_outputs[0].node->input(0), y);
  EXPECT_EQ(imported->nodes.return_outputs[1].node->name(), "copy/w");
  auto variables = GlobalVariables(other);
  ASSERT_TRUE(variables.ok()) << variables.status();
  EXPECT_EQ((*variables)[0].name(), "copy/w");
  // Without it, the message tells the name.
  Graph third;
  EXPECT_THAT(std::string(ImportMetaGraph(*meta, {}, &third).status().message()),
              HasSubstr("$unbound_inputs_first/out"));
  options.export_scope = "third";
  EXPECT_EQ(ExportMetaGraph(layers.graph, options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(MetaGraphTest, ExportsSomeCollectionsAndOneSaver) {
  Layers layers;
  Graph& graph = layers.graph;
  auto variables = GlobalVariables(graph);
  ASSERT_TRUE(variables.ok());
  std::vector<SaveItem> items = {{"first/w", (*variables)[0].ref, ""},
                                 {"second/w", (*variables)[1].ref, ""}};
  auto first = AddSaveNodes(&graph, items, {}), second = AddSaveNodes(&graph, items, {});
  ASSERT_TRUE(first.ok() && second.ok());
  auto* savers = (*graph.mutable_collections())["savers"].mutable_bytes_list();
  savers->add_value(first->SerializeAsString());
  savers->add_value(second->SerializeAsString());
  ExportOptions options;
  options.saver_def = &*second;
  options.clear_extraneous_savers = true;
  options.collection_list = std::vector<std::string>{"savers", "variables"};
  auto meta = ExportMetaGraph(graph, options);
  ASSERT_TRUE(meta.ok()) << meta.status();
  for (const auto& [name, node] : ByName(meta->graph_def())) {
    EXPECT_NE(name.substr(0, 5), "save/") << name;
  }
  EXPECT_EQ(ByName(meta->graph_def()).count("save_1/restore_all"), 1u);
  EXPECT_EQ(meta->collection_def_size(), 2);
  EXPECT_EQ(meta->collection_def().at("savers").bytes_list().value_size(), 1);
  // What other nodes need stays.
  Scope root(&graph);
  ops::NoOp(root.WithOpName("boot").WithControlDependencies({graph.FindNode("save/restore_all")}));
  meta = ExportMetaGraph(graph, options);
  ASSERT_TRUE(meta.ok()) << meta.status();
  const auto nodes = ByName(meta->graph_def());
  EXPECT_EQ(nodes.count("save/restore_all"), 1u);
  EXPECT_EQ(nodes.count("save/SaveV2"), 0u);
  Graph again;
  EXPECT_TRUE(ImportMetaGraph(*meta, {}, &again).ok());
}

TEST(MetaGraphTest, TextFilesCarryACrc) {
  const proto::MetaGraphDef golden = Golden("unsharded.meta");
  const std::string path = ::testing::TempDir() + "/text.meta";
  ASSERT_TRUE(WriteMetaGraph(FileSystem::Posix(), path, golden, /*as_text=*/true).ok());
  auto read = ReadMetaGraph(FileSystem::Posix(), path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(MessageDifferencer::Equals(golden, *read));
  const std::string bytes = *ReadFile(FileSystem::Posix(), path);
  for (size_t i = 0; i < bytes.size(); i += 11) {
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    EXPECT_FALSE(ParseMetaGraph(flipped, "m").ok()) << "byte " << i;
  }
}

TEST(MetaGraphTest, TheListOfOpsAndDefaultAttributes) {
  Layers layers;
  const auto variables = GlobalVariables(layers.graph);
  ASSERT_TRUE(variables.ok());
  const auto def = AddSaveNodes(&layers.graph, {{"w", (*variables)[0].ref, ""}}, {});
  ASSERT_TRUE(def.ok()) << def.status();
  for (const bool strip : {false, true}) {
    ExportOptions options;
    options.saver_def = &*def;
    options.strip_default_attrs = strip;
    auto meta = ExportMetaGraph(layers.graph, options);
    ASSERT_TRUE(meta.ok()) << meta.status();
    std::vector<std::string> ops;
    for (const auto& op : meta->meta_info_def().stripped_op_list().op()) {
      ops.push_back(op.name());
      EXPECT_EQ(op.summary(), "");
      EXPECT_EQ(op.description(), "");
    }
    EXPECT_THAT(
        ops, ::testing::ElementsAre("AddV2", "Assign", "Const", "Identity", "MatMul", "Mul", "NoOp",
                                    "Placeholder", "PlaceholderWithDefault", "RandomUniform",
                                    "RestoreV2", "SaveV2", "Sub", "VariableV2"));
    EXPECT_EQ(meta->meta_info_def().stripped_default_attrs(), strip);
    const auto nodes = ByName(meta->graph_def());
    EXPECT_EQ(nodes.at("first/out").attr().count("transpose_a"), strip ? 0u : 1u);
    EXPECT_EQ(nodes.at("first/out").attr().count("T"), 1u) << "which has no default";
    Graph again;
    EXPECT_TRUE(ImportMetaGraph(*meta, {}, &again).ok());
  }
}

TEST(MetaGraphTest, DevicesAreClearedOnTheWay) {
  const proto::MetaGraphDef golden = Golden("sharded.meta");
  const auto on_devices = [](const Graph& graph) {
    int count = 0;
    for (const auto& node : graph.nodes()) count += node->device().empty() ? 0 : 1;
    return count;
  };
  Graph kept, cleared, again;
  ASSERT_TRUE(ImportMetaGraph(golden, {}, &kept).ok());
  EXPECT_GT(on_devices(kept), 10);
  ImportMetaOptions options;
  options.clear_devices = true;
  ASSERT_TRUE(ImportMetaGraph(golden, options, &cleared).ok());
  EXPECT_EQ(on_devices(cleared), 0);
  ExportOptions exporting;
  exporting.clear_devices = true;
  auto meta = ExportMetaGraph(kept, exporting);
  ASSERT_TRUE(meta.ok()) << meta.status();
  ASSERT_TRUE(ImportMetaGraph(*meta, {}, &again).ok());
  EXPECT_EQ(on_devices(again), 0);
}

TEST(MetaGraphTest, FunctionsAreKept) {
  proto::MetaGraphDef meta = Golden("unsharded.meta");
  proto::FunctionDef* f = meta.mutable_graph_def()->mutable_library()->add_function();
  f->mutable_signature()->set_name("minus_one");
  proto::NodeDef* node = f->add_node_def();
  node->set_name("square");
  node->set_op("Square");
  // Called by another one that calls itself; a third one isn't called.
  proto::FunctionDef* caller = meta.mutable_graph_def()->mutable_library()->add_function();
  caller->mutable_signature()->set_name("caller");
  caller->add_node_def()->set_op("minus_one");
  caller->add_node_def()->set_op("caller");
  proto::FunctionDef* unused = meta.mutable_graph_def()->mutable_library()->add_function();
  unused->mutable_signature()->set_name("unused");
  unused->add_node_def()->set_op("Sqrt");
  proto::NodeDef* call = meta.mutable_graph_def()->add_node();
  call->set_name("call");
  call->set_op("caller");
  Graph graph;
  ASSERT_TRUE(ImportMetaGraph(meta, {}, &graph).ok());
  auto exported = ExportMetaGraph(graph, {});
  ASSERT_TRUE(exported.ok()) << exported.status();
  ASSERT_EQ(exported->graph_def().library().function_size(), 3);
  EXPECT_TRUE(MessageDifferencer::Equals(exported->graph_def().library().function(0),
                                         meta.graph_def().library().function(0)));
  std::vector<std::string> listed;
  for (const auto& op : exported->meta_info_def().stripped_op_list().op()) {
    listed.push_back(op.name());
  }
  EXPECT_THAT(listed, ::testing::Contains("Square")) << "the ops of functions count too";
  EXPECT_THAT(listed, ::testing::Not(::testing::Contains("Sqrt"))) << "but not of unused ones";
  EXPECT_THAT(listed, ::testing::Not(::testing::Contains("caller")));
}

// What conditionals and loops tell of themselves moves with them.
TEST(MetaGraphTest, ContextsMoveWithTheirScopes) {
  proto::MetaGraphDef meta;
  {
    Graph graph;
    Scope root(&graph);
    const Output p = ops::Placeholder(root.WithOpName("p"), DType::kBool, PartialShape::Scalar());
    const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, PartialShape::Scalar());
    Cond(
        root, p, [&](const Scope& s) { return ops::Neg(s, x); },
        [&](const Scope& s) {
          return Cond(
              s, p, [&](const Scope& i) { return ops::Square(i, x); },
              [&](const Scope& i) { return ops::Exp(i, x); });
        });
    ASSERT_TRUE(root.ok()) << root.status();
    meta = *ExportMetaGraph(graph, {});
  }
  proto::WhileContextDef loop;
  loop.set_context_name("while/while_context");
  loop.add_loop_exit_names("while/Exit:0");
  loop.set_pivot_name("while/LoopCond:0");
  (*meta.mutable_collection_def())["while_context"].mutable_bytes_list()->add_value(
      loop.SerializeAsString());
  Graph graph;
  ImportMetaOptions options;
  options.import_scope = "in";
  ASSERT_TRUE(ImportMetaGraph(meta, options, &graph).ok());
  const auto contexts = [](const proto::CollectionDef& c) {
    std::vector<proto::CondContextDef> all;
    for (const std::string& v : c.bytes_list().value()) {
      EXPECT_TRUE(all.emplace_back().ParseFromString(v));
    }
    return all;
  };
  const auto before = contexts(meta.collection_def().at("cond_context"));
  const auto inside = contexts(graph.collections().at("cond_context"));
  ASSERT_EQ(inside.size(), 2u);
  EXPECT_EQ(inside[0].context_name(), "in/" + before[0].context_name());
  EXPECT_EQ(inside[0].pivot_name(), "in/" + before[0].pivot_name());
  EXPECT_EQ(inside[0].values_def().external_values().at("in/x:0"),
            "in/" + before[0].values_def().external_values().at("x:0"));
  ASSERT_EQ(inside[1].nested_contexts_size(), 2);
  EXPECT_EQ(inside[1].nested_contexts(0).cond_ctxt().pred_name(),
            "in/" + before[1].nested_contexts(0).cond_ctxt().pred_name());
  ASSERT_TRUE(loop.ParseFromString(graph.collections().at("while_context").bytes_list().value(0)));
  EXPECT_EQ(loop.loop_exit_names(0), "in/while/Exit:0");
  EXPECT_EQ(loop.pivot_name(), "in/while/LoopCond:0");
  // Out of it again they are as they were; outside of another scope they are none of its.
  ExportOptions exporting;
  exporting.export_scope = "in";
  auto out = ExportMetaGraph(graph, exporting);
  ASSERT_TRUE(out.ok()) << out.status();
  for (const char* name : {"cond_context", "while_context"}) {
    EXPECT_EQ(out->collection_def().at(name).bytes_list().value_size(),
              meta.collection_def().at(name).bytes_list().value_size());
  }
  const auto again = contexts(out->collection_def().at("cond_context"));
  for (size_t i = 0; i < again.size(); ++i) {
    EXPECT_TRUE(MessageDifferencer::Equals(again[i], before[i]));
  }
  ops::Const(Scope(&graph).WithOpName("other/c"), 1.0f);
  exporting.export_scope = "other";
  out = ExportMetaGraph(graph, exporting);
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->collection_def().at("cond_context").bytes_list().value_size(), 0);
}

TEST(MetaGraphTest, ImportScopesAreMadeUnique) {
  Graph graph;
  ImportMetaOptions options;
  options.import_scope = "twice";
  for (const char* scope : {"twice", "twice_1"}) {
    auto imported = ImportMetaGraph(Golden("unsharded.meta"), options, &graph);
    ASSERT_TRUE(imported.ok()) << imported.status();
    EXPECT_EQ(imported->scope, scope);
    auto items = FindSaveItems(graph, imported->saver_def);
    ASSERT_TRUE(items.ok()) << items.status();
    EXPECT_EQ((*items)[0].variable.name(), std::string(scope) + "/a:0");
  }
  EXPECT_EQ(GlobalVariables(graph)->size(), 6u);
}

TEST(MetaGraphTest, DamageIsFound) {
  const proto::MetaGraphDef golden = Golden("unsharded.meta");
  auto bytes = SerializeMetaGraph(golden);
  ASSERT_TRUE(bytes.ok());
  auto parsed = ParseMetaGraph(*bytes, "m");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(MessageDifferencer::Equals(golden.graph_def(), parsed->graph_def()));
  for (size_t i = 0; i < bytes->size(); ++i) {
    std::string flipped = *bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ (1 << (i % 8)));
    EXPECT_FALSE(ParseMetaGraph(flipped, "m").ok()) << "byte " << i;
  }
  for (size_t n = 0; n < bytes->size(); n += 7) {
    auto cut = ParseMetaGraph(bytes->substr(0, n), "dir/m.meta");
    EXPECT_EQ(cut.status().code(), absl::StatusCode::kDataLoss) << n;
    EXPECT_THAT(std::string(cut.status().message()), HasSubstr("dir/m.meta"));
  }
}

TEST(MetaGraphTest, Errors) {
  Graph graph;
  const Scope root(&graph);
  const Output v = ops::VariableV2(root.WithOpName("v"), {2}, DType::kFloat);
  const Output c = ops::Const<float>(root, 1);
  EXPECT_EQ(AddSaveNodes(&graph, {}, {}).status().message(), "No variables to save");
  EXPECT_EQ(AddSaveNodes(&graph, {{"a", v, ""}, {"a", v, ""}}, {}).status().message(),
            "At least two variables have the same name: a");
  EXPECT_EQ(AddSaveNodes(&graph, {{"c", c, ""}}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  proto::SaverDef def;
  def.set_save_tensor_name("v:0");
  EXPECT_FALSE(FindSaveItems(graph, def).ok());
}

}  // namespace
}  // namespace ferry
