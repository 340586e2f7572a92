// Drawings of graphs: see graph_drawing.h.
//
// A graph becomes units, which are single nodes or what was folded into one; units become a tree by
// the scopes in their names; of the tree, as much is opened as the budget allows.
#include "tools/graph_drawing.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/base/status.h"
#include "tools/graph_summary.h"
#include "tools/xml.h"

namespace ferry {
namespace {

// A series of ops with numbered names is one node from this length on.
constexpr size_t kSeriesLength = 8;
constexpr size_t kMaxLabel = 40;
// Scopes within scopes that are told apart: what is deeper is part of a node's name. Each is an own
// tree of strings and calls.
constexpr int kMaxDepth = 100;

enum class Kind {
  kOp,
  kPlaceholder,
  kVariable,
  kConst,
  kSeries,
  kScope,
  // Those below are never opened.
  kGradients,
  kOptimizer,
  kAuxiliary,  // Saving and initializing: stands aside, without edges.
};

bool IsTraining(Kind kind) { return kind == Kind::kGradients || kind == Kind::kOptimizer; }

struct Unit {
  std::string path;  // Where it stands among the scopes.
  Kind kind = Kind::kOp;
  std::string op;
  std::string shape;  // "[?,64]", "scalar", or "" if unknown.
  int num_nodes = 0;
  int num_updated = 0;  // Of an optimizer: the variables that it writes.
  bool merged = false;  // Into another one.
};

// By the units that they go from and to: how many tensors; 0 for an order alone.
using Edges = std::map<std::pair<int, int>, int>;

absl::string_view ParentScope(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == absl::string_view::npos ? "" : path.substr(0, slash);
}

absl::string_view LastPart(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == absl::string_view::npos ? path : path.substr(slash + 1);
}

// The path with no more than kMaxDepth scopes.
std::string Shallow(const std::string& path) {
  size_t end = 0;
  for (int depth = 0; depth <= kMaxDepth; ++depth) {
    end = path.find('/', end);
    if (end == std::string::npos) return path;
    ++end;
  }
  std::string shallow = path;
  std::replace(shallow.begin() + static_cast<std::ptrdiff_t>(end) - 1, shallow.end(), '/', '.');
  return shallow;
}

// The name without "_12".
absl::string_view WithoutNumber(absl::string_view name) {
  const size_t end = name.find_last_not_of("0123456789");
  if (end == absl::string_view::npos || end + 1 == name.size() || name[end] != '_') return name;
  return name.substr(0, end);
}

bool IsVariableOp(absl::string_view op) {
  return op == "VariableV2" || op == "Variable" || op == "VarHandleOp";
}

bool IsSaverOp(absl::string_view op) {
  return op == "SaveV2" || op == "RestoreV2" || op == "SaveSlices" || op == "RestoreSlice" ||
         op == "MergeV2Checkpoints" || op == "ShardedFilename";
}

Kind KindOf(absl::string_view op) {
  if (IsVariableOp(op)) return Kind::kVariable;
  if (op == "Const") return Kind::kConst;
  if (op == "Placeholder" || op == "PlaceholderV2" || op == "PlaceholderWithDefault") {
    return Kind::kPlaceholder;
  }
  return Kind::kOp;
}

std::string ShapeText(const PartialShape& shape) {
  if (!shape.known_rank()) return "";
  return shape.rank() == 0 ? "scalar" : shape.DebugString();
}

// The units of a graph and the edges among them.
class Units {
 public:
  Units(const proto::GraphDef& graph, bool simplify) : graph_(graph) {
    for (int i = 0; i < graph.node_size(); ++i) index_.emplace(graph.node(i).name(), i);
    if (simplify) FindScopes();
    shapes_ = InferShapes(graph);
    // These say their shapes even in a graph that isn't sound.
    for (const GraphInput& v : ListVariables(graph)) shapes_[v.name] = {v.shape};
    for (const GraphInput& p : ListPlaceholders(graph)) shapes_[p.name] = {p.shape};
    unit_of_.resize(static_cast<size_t>(graph.node_size()));
    for (int i = 0; i < graph.node_size(); ++i) unit_of_[i] = MakeUnit(i, simplify);
    if (simplify) {
      MarkInitializers();
      MergeDetails();
      MergeOptimizersVariables();
    }
  }

  std::vector<Unit>& units() { return units_; }

  // Without those of auxiliary units.
  Edges MakeEdges() const {
    Edges edges;
    for (int i = 0; i < graph_.node_size(); ++i) {
      const proto::NodeDef& node = graph_.node(i);
      const int to = Find(unit_of_[i]);
      if (units_[to].kind == Kind::kAuxiliary) continue;
      for (const std::string& input : node.input()) {
        const int producer = Producer(input);
        if (producer < 0) continue;
        const int from = Find(unit_of_[producer]);
        if (from == to || units_[from].kind == Kind::kAuxiliary) continue;
        edges[{from, to}] += absl::StartsWith(input, "^") ? 0 : 1;
      }
    }
    return edges;
  }

 private:
  // Of "name:0", "name" or "^name"; -1 if there is none.
  int Producer(absl::string_view input) const {
    if (absl::StartsWith(input, "^")) input.remove_prefix(1);
    const auto it = index_.find(input.substr(0, input.rfind(':')));
    return it == index_.end() ? -1 : it->second;
  }

  // Scopes that are drawn as one node, whatever is in them.
  void FindScopes() {
    for (const proto::NodeDef& node : graph_.node()) {
      const std::string& name = node.name();
      if (IsVariableOp(node.op())) variables_.insert(name);
      if (IsSaverOp(node.op())) {
        const absl::string_view scope = ParentScope(name);
        scopes_.emplace(scope.empty() ? name : std::string(scope), Kind::kAuxiliary);
      }
      const size_t update = name.find("/update_");
      if (update != std::string::npos && absl::StrContains(node.op(), "Apply")) {
        scopes_.emplace(name.substr(0, update), Kind::kOptimizer);
      }
      for (size_t begin = 0; begin < name.size();) {
        const size_t end = std::min(name.find('/', begin), name.size());
        const std::string part = name.substr(begin, end - begin);
        if (end < name.size() && WithoutNumber(part) == "gradients") {
          scopes_.emplace(name.substr(0, end), Kind::kGradients);
          break;  // What is within isn't looked at.
        }
        begin = end + 1;
      }
    }
  }

  // The unit that node `i` belongs to by its name.
  int MakeUnit(int i, bool simplify) {
    const proto::NodeDef& node = graph_.node(i);
    const std::string& name = node.name();
    std::string path;  // Of what it is folded into.
    Kind kind = KindOf(node.op());
    if (simplify) {
      size_t end = name.find('/');
      for (int depth = 0; depth <= kMaxDepth; ++depth, end = name.find('/', end + 1)) {
        const std::string prefix = name.substr(0, end);
        const auto scope = scopes_.find(prefix);
        if (scope != scopes_.end()) {
          path = prefix;
          kind = scope->second;
          break;
        }
        if (end == std::string::npos) break;
        if (variables_.count(prefix) && BelongsToVariable(name, end)) {
          path = prefix;
          kind = Kind::kVariable;
          break;
        }
      }
    }
    const bool itself = path.empty() || path == name;
    if (path.empty()) path = Shallow(name);
    int unit = static_cast<int>(units_.size());
    // Names in a file may repeat: such a node stands for itself.
    const bool repeated = itself && index_.at(name) != i;
    if (!repeated) unit = by_path_.emplace(path, unit).first->second;
    if (unit == static_cast<int>(units_.size())) {
      units_.emplace_back();
      units_.back().path = path;
      units_.back().kind = kind;
      parent_.push_back(unit);
    }
    ++units_[unit].num_nodes;
    if (itself) {
      units_[unit].op = node.op();
      const auto shape = shapes_.find(name);
      if (shape != shapes_.end() && !shape->second.empty()) {
        units_[unit].shape = ShapeText(shape->second[0]);
      }
    }
    return unit;
  }

  // Whether the node `name`, whose first `end` characters are a variable's name, is one of its
  // parts: made with the variable, or one of its slots.
  bool BelongsToVariable(const std::string& name, size_t end) const {
    static const auto* const parts = new std::set<std::string>{
        "Assign", "Initializer", "IsInitialized", "Read", "cond", "initial_value", "read"};
    const size_t next = name.find('/', end + 1);
    return parts->count(name.substr(end + 1, next - end - 1)) > 0 ||
           variables_.count(name.substr(0, next)) > 0;
  }

  // A NoOp that waits for nothing but variables' parts (their Assign) is what initializes them.
  void MarkInitializers() {
    // By unit: the NoOps that wait for it; by node: for how many others they do.
    std::vector<std::vector<int>> waiting(units_.size());
    std::vector<int> others(static_cast<size_t>(graph_.node_size()));
    std::vector<int> ready;
    for (int i = 0; i < graph_.node_size(); ++i) {
      const proto::NodeDef& node = graph_.node(i);
      const Unit& unit = units_[unit_of_[i]];
      if (node.op() != "NoOp" || unit.op != "NoOp" || unit.kind != Kind::kOp) continue;
      for (const std::string& input : node.input()) {
        const int producer = Producer(input);
        const int from = producer < 0 ? -1 : unit_of_[producer];
        const Kind kind = from < 0 ? Kind::kOp : units_[from].kind;
        if (kind == Kind::kVariable || kind == Kind::kAuxiliary) continue;
        ++others[i];
        if (from >= 0) waiting[from].push_back(i);
      }
      if (others[i] == 0) ready.push_back(i);
    }
    while (!ready.empty()) {
      const int unit = unit_of_[ready.back()];
      ready.pop_back();
      units_[unit].kind = Kind::kAuxiliary;
      for (const int i : std::exchange(waiting[unit], {})) {
        if (--others[i] == 0) ready.push_back(i);
      }
    }
  }

  // A constant belongs to the one that takes it (what its gradient takes too doesn't count), a
  // shape that nothing takes to the one whose shape it is.
  void MergeDetails() {
    std::vector<std::set<int>> consumers(units_.size()), producers(units_.size());
    for (const auto& edge : MakeEdges()) {
      const auto [from, to] = edge.first;
      if (units_[to].kind != Kind::kGradients) consumers[from].insert(to);
      producers[to].insert(from);
    }
    for (size_t i = 0; i < units_.size(); ++i) {
      const int unit = static_cast<int>(i);
      if (units_[i].kind == Kind::kConst && consumers[i].size() == 1) {
        Merge(unit, *consumers[i].begin());
      } else if (units_[i].op == "Shape" && consumers[i].empty() && producers[i].size() == 1) {
        Merge(unit, *producers[i].begin());
      }
    }
  }

  // What only the optimizer knows (Adam's powers) belongs to it; it updates the others.
  void MergeOptimizersVariables() {
    std::vector<std::set<int>> neighbours(units_.size());
    for (const auto& edge : MakeEdges()) {
      neighbours[edge.first.first].insert(edge.first.second);
      neighbours[edge.first.second].insert(edge.first.first);
    }
    for (size_t i = 0; i < units_.size(); ++i) {
      if (units_[i].kind != Kind::kVariable) continue;
      for (const int neighbour : neighbours[i]) {
        if (units_[neighbour].kind != Kind::kOptimizer) continue;
        if (neighbours[i].size() > 1) {
          ++units_[neighbour].num_updated;
        } else {
          Merge(static_cast<int>(i), neighbour);
        }
      }
    }
  }

  void Merge(int unit, int into) {
    into = Find(into);
    if (unit == into) return;
    units_[into].num_nodes += units_[unit].num_nodes;
    units_[unit].merged = true;
    parent_[unit] = into;
  }

  int Find(int unit) const {
    for (; parent_[unit] != unit; unit = parent_[unit]) parent_[unit] = parent_[parent_[unit]];
    return unit;
  }

  const proto::GraphDef& graph_;
  absl::flat_hash_map<std::string, int> index_;  // A node's name -> its number.
  std::set<std::string> variables_;
  std::map<std::string, Kind> scopes_;
  std::map<std::string, std::vector<PartialShape>> shapes_;
  std::vector<Unit> units_;
  absl::flat_hash_map<std::string, int> by_path_;
  // Of a merged unit: the other one, or one that that was merged into. Else itself.
  mutable std::vector<int> parent_;
  std::vector<int> unit_of_;  // By a node's number.
};

// A scope, with the scopes and units directly in it.
struct Scope {
  std::string path;
  Scope* parent = nullptr;
  int depth = 0;
  std::map<std::string, std::unique_ptr<Scope>> scopes;
  std::vector<int> units;
  int num_units = 0, num_nodes = 0;  // In it and all scopes in it.
  bool open = false;
  int id = -1;  // Of what is drawn for it: a node if closed, a frame if open.
};

class Drawing {
 public:
  Drawing(const proto::GraphDef& graph, const DrawingOptions& options) {
    const bool simplify = graph.node_size() > options.whole_limit;
    Units maker(graph, simplify);
    edges_ = maker.MakeEdges();
    units_ = std::move(maker.units());
    const int count = static_cast<int>(
        std::count_if(units_.begin(), units_.end(), [](const Unit& u) { return !u.merged; }));
    if (simplify && count > options.budget) MergeSeries();
    BuildTree();
    OpenScopes(simplify ? options.budget : count);
  }

  std::string ToDot() {
    out_ =
        "digraph graph_drawing {\n"
        "graph [compound=true, rankdir=TB, nodesep=0.3, ranksep=0.4, bgcolor=\"white\", pad=0.3,\n"
        "  fontname=\"Helvetica,Arial,sans-serif\", fontsize=12, fontcolor=\"#57606a\"];\n"
        "node [shape=box, style=\"rounded,filled\", fillcolor=\"white\", color=\"#8c959f\",\n"
        "  fontname=\"Helvetica,Arial,sans-serif\", fontsize=11, fontcolor=\"#1f2328\",\n"
        "  height=0.3, margin=\"0.12,0.06\"];\n"
        "edge [color=\"#6e7781\", arrowsize=0.6, fontname=\"Helvetica,Arial,sans-serif\",\n"
        "  fontsize=9, fontcolor=\"#57606a\"];\n";
    drawn_.assign(units_.size(), -1);
    frames_.assign(units_.size(), nullptr);
    Emit(root_.get());
    EmitAuxiliary();
    EmitEdges();
    out_ += "}\n";
    return std::move(out_);
  }

 private:
  void MergeSeries() {
    std::map<std::pair<std::string, std::string>, std::vector<int>> series;  // By name and op.
    for (size_t i = 0; i < units_.size(); ++i) {
      const Unit& unit = units_[i];
      if (unit.merged || unit.kind != Kind::kOp) continue;
      series[{std::string(WithoutNumber(unit.path)), unit.op}].push_back(static_cast<int>(i));
    }
    std::vector<int> into(units_.size());
    for (size_t i = 0; i < units_.size(); ++i) into[i] = static_cast<int>(i);
    for (const auto& [name, members] : series) {
      if (members.size() < kSeriesLength) continue;
      Unit& first = units_[members[0]];
      first.kind = Kind::kSeries;
      first.path = name.first;
      for (size_t i = 1; i < members.size(); ++i) {
        into[members[i]] = members[0];
        units_[members[i]].merged = true;
        first.num_nodes += units_[members[i]].num_nodes;
        if (units_[members[i]].shape != first.shape) first.shape.clear();
      }
    }
    Edges merged;
    for (const auto& [ends, count] : edges_) {
      const std::pair<int, int> now(into[ends.first], into[ends.second]);
      if (now.first != now.second) merged[now] += count;
    }
    edges_ = std::move(merged);
  }

  Scope* FindScope(absl::string_view path) {
    Scope* scope = root_.get();
    while (!path.empty()) {
      const size_t slash = std::min(path.find('/'), path.size());
      std::unique_ptr<Scope>& child = scope->scopes[std::string(path.substr(0, slash))];
      if (child == nullptr) {
        child = std::make_unique<Scope>();
        child->path = scope == root_.get() ? std::string(path.substr(0, slash))
                                           : absl::StrCat(scope->path, "/", path.substr(0, slash));
        child->parent = scope;
        child->depth = scope->depth + 1;
      }
      scope = child.get();
      path.remove_prefix(std::min(slash + 1, path.size()));
    }
    return scope;
  }

  void BuildTree() {
    std::set<std::string> scopes;  // Paths that hold something.
    for (const Unit& unit : units_) {
      if (unit.merged || unit.kind == Kind::kAuxiliary) continue;
      for (absl::string_view path = ParentScope(unit.path); !path.empty();
           path = ParentScope(path)) {
        if (!scopes.insert(std::string(path)).second) break;
      }
    }
    for (size_t i = 0; i < units_.size(); ++i) {
      const Unit& unit = units_[i];
      if (unit.merged || unit.kind == Kind::kAuxiliary) continue;
      // A node with a scope's name stands in that scope.
      Scope* scope = FindScope(scopes.count(unit.path) ? unit.path : ParentScope(unit.path));
      scope->units.push_back(static_cast<int>(i));
      for (; scope != nullptr; scope = scope->parent) {
        ++scope->num_units;
        scope->num_nodes += unit.num_nodes;
      }
    }
  }

  // Opens scopes, the outer ones first and of these the small ones first.
  void OpenScopes(int budget) {
    const auto later = [](const Scope* a, const Scope* b) {
      return std::make_tuple(a->depth, a->num_units, a->path) <
             std::make_tuple(b->depth, b->num_units, b->path);
    };
    std::set<Scope*, decltype(later)> closed(later);
    int shown = 1;
    closed.insert(root_.get());
    while (!closed.empty()) {
      Scope* const scope = *closed.begin();
      closed.erase(closed.begin());
      const int more = static_cast<int>(scope->units.size() + scope->scopes.size()) - 1;
      if (scope != root_.get() && more > 0 && shown + more > budget) continue;
      scope->open = true;
      shown += more;
      for (const auto& [name, child] : scope->scopes) closed.insert(child.get());
    }
  }

  static std::string Shorten(absl::string_view name) {
    if (name.size() <= kMaxLabel) return std::string(name);
    size_t end = kMaxLabel - 1;
    while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xc0) == 0x80) --end;  // UTF-8.
    return absl::StrCat(name.substr(0, end), "…");
  }

  void EmitNode(int id, absl::string_view name, const std::string& detail, const char* attributes) {
    absl::StrAppend(&out_, "n", id, " [", attributes, "label=<<B>",
                    name.empty() ? "(unnamed)" : EscapeXml(Shorten(name)), "</B>");
    if (!detail.empty()) {
      absl::StrAppend(&out_, "<BR/><FONT POINT-SIZE=\"9\" COLOR=\"#57606a\">",
                      EscapeXml(Shorten(detail)), "</FONT>");
    }
    out_ += ">];\n";
  }

  static std::string NumNodes(int count) {
    return absl::StrCat(count, count == 1 ? " op" : " ops");
  }

  void EmitUnit(const Unit& unit, int id) {
    const absl::string_view name = LastPart(unit.path);
    switch (unit.kind) {
      case Kind::kGradients:
        EmitNode(id, name, NumNodes(unit.num_nodes),
                 "fillcolor=\"#f3e8fd\", color=\"#8250df\", peripheries=2, ");
        return;
      case Kind::kOptimizer:
        EmitNode(id, name,
                 absl::StrCat(NumNodes(unit.num_nodes), ", updates ", unit.num_updated,
                              unit.num_updated == 1 ? " variable" : " variables"),
                 "fillcolor=\"#ffe9e6\", color=\"#cf222e\", peripheries=2, ");
        return;
      case Kind::kAuxiliary:
        EmitNode(id, name, unit.num_nodes > 1 ? NumNodes(unit.num_nodes) : "",
                 "fillcolor=\"#f6f8fa\", color=\"#afb8c1\", ");
        return;
      case Kind::kSeries:
        EmitNode(
            id, absl::StrCat(name, " …"),
            absl::StrCat(unit.num_nodes, " × ", unit.op, unit.shape.empty() ? "" : " ", unit.shape),
            "peripheries=2, ");
        return;
      default:
        break;
    }
    std::string detail = unit.op == WithoutNumber(name) ? "" : unit.op;
    // Colour tells that it is a variable or a placeholder.
    if (unit.kind == Kind::kVariable || unit.kind == Kind::kPlaceholder) detail.clear();
    if (!unit.shape.empty()) absl::StrAppend(&detail, detail.empty() ? "" : " ", unit.shape);
    const char* const attributes =
        unit.kind == Kind::kVariable      ? "fillcolor=\"#ddf4ff\", color=\"#0969da\", "
        : unit.kind == Kind::kPlaceholder ? "fillcolor=\"#fff8c5\", color=\"#bf8700\", "
        : unit.kind == Kind::kConst       ? "fillcolor=\"#f6f8fa\", color=\"#d0d7de\", "
                                          : "";
    EmitNode(id, name, detail, attributes);
  }

  void MarkDrawn(const Scope& scope, int id, const Scope* frame) {
    for (const int unit : scope.units) {
      drawn_[unit] = id;
      frames_[unit] = frame;
    }
    for (const auto& [name, child] : scope.scopes) MarkDrawn(*child, id, frame);
  }

  void Emit(Scope* scope) {
    scope->id = next_id_++;
    // A frame around one thing says nothing.
    const bool framed = scope != root_.get() && scope->units.size() + scope->scopes.size() > 1;
    if (framed) {
      absl::StrAppend(&out_, "subgraph cluster_", scope->id, " {\nlabel=<",
                      EscapeXml(Shorten(LastPart(scope->path))),
                      "/>; labeljust=l; style=\"rounded,filled\"; fillcolor=\"",
                      scope->depth % 2 == 1 ? "#f6f8fa" : "#eaeef2", "\"; color=\"#d0d7de\";\n");
      scope_frames_.insert(scope);
    }
    const Scope* frame = scope;
    while (frame != nullptr && !scope_frames_.count(frame)) frame = frame->parent;
    for (const int unit : scope->units) {
      drawn_[unit] = next_id_++;
      frames_[unit] = frame;
      EmitUnit(units_[unit], drawn_[unit]);
    }
    for (const auto& [name, child] : scope->scopes) {
      if (child->open) {
        Emit(child.get());
        continue;
      }
      child->id = next_id_++;
      EmitNode(child->id, name, NumNodes(child->num_nodes),
               "fillcolor=\"#eaeef2\", color=\"#57606a\", peripheries=2, ");
      MarkDrawn(*child, child->id, frame);
    }
    if (framed) out_ += "}\n";
  }

  // What saves and initializes stands in a frame of its own.
  void EmitAuxiliary() {
    bool any = false;
    for (const Unit& unit : units_) {
      if (unit.merged || unit.kind != Kind::kAuxiliary) continue;
      if (!any) {
        absl::StrAppend(&out_, "subgraph cluster_", next_id_++,
                        " {\nlabel=\"beside the graph\"; labeljust=l; style=\"rounded,dashed\"; "
                        "color=\"#d0d7de\"; fontsize=10;\n");
        any = true;
      }
      EmitUnit(unit, next_id_++);
    }
    if (any) out_ += "}\n";
  }

  // The outermost frame around the first unit that isn't around the second.
  const Scope* FrameApart(int unit, int other) const {
    std::set<const Scope*> around_other;
    for (const Scope* s = frames_[other]; s != nullptr; s = s->parent) around_other.insert(s);
    const Scope* apart = nullptr;
    for (const Scope* s = frames_[unit]; s != nullptr && !around_other.count(s); s = s->parent) {
      if (scope_frames_.count(s)) apart = s;
    }
    return apart;
  }

  void EmitEdges() {
    std::map<std::pair<int, int>, int> plain;
    // Gradients touch nearly everything: one line to a frame is enough.
    std::map<std::pair<int, int>, std::string> wide;
    for (const auto& [ends, count] : edges_) {
      const auto [from, to] = ends;
      const int a = drawn_[from], b = drawn_[to];
      if (a == b) continue;
      // An optimizer says how many variables it updates; lines to all of them would hide the rest.
      if (units_[from].kind == Kind::kVariable && units_[to].kind == Kind::kOptimizer) continue;
      const bool from_training = IsTraining(units_[from].kind);
      const bool to_training = IsTraining(units_[to].kind);
      if (from_training == to_training) {
        plain[{a, b}] += count;
        continue;
      }
      const int training = from_training ? from : to;
      const int other = from_training ? to : from;
      const Scope* const frame = FrameApart(other, training);
      const int other_id = frame == nullptr ? drawn_[other] : frame->id;
      std::string& line = wide[{other_id, drawn_[training]}];
      if (!line.empty()) continue;
      line = absl::StrCat("n", a, " -> n", b, " [color=\"#c297f2\", penwidth=0.8");
      if (frame != nullptr) {
        absl::StrAppend(&line, to_training ? ", ltail=cluster_" : ", lhead=cluster_", frame->id);
      }
      line += "];\n";
    }
    for (const auto& [ends, count] : plain) {
      absl::StrAppend(&out_, "n", ends.first, " -> n", ends.second);
      if (count == 0) out_ += " [style=dashed, color=\"#afb8c1\"]";
      if (count > 1) absl::StrAppend(&out_, " [label=\" ×", count, "\"]");
      out_ += ";\n";
    }
    for (const auto& [key, line] : wide) out_ += line;
  }

  std::vector<Unit> units_;
  Edges edges_;
  const std::unique_ptr<Scope> root_ = std::make_unique<Scope>();
  std::set<const Scope*> scope_frames_;
  std::vector<int> drawn_;            // By unit: the node that shows it.
  std::vector<const Scope*> frames_;  // By unit: the innermost frame around it.
  int next_id_ = 0;
  std::string out_;
};

// A file in memory, closed at the end.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("dot", MFD_CLOEXEC)) {}
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }
  bool Write(absl::string_view data) {
    for (size_t at = 0; at < data.size();) {
      const ssize_t n = pwrite(fd_, data.data() + at, data.size() - at, static_cast<off_t>(at));
      if (n <= 0) return false;
      at += static_cast<size_t>(n);
    }
    return true;
  }
  std::string Read() const {
    std::string data;
    char block[64 << 10];
    ssize_t n;
    while ((n = pread(fd_, block, sizeof(block), static_cast<off_t>(data.size()))) > 0) {
      data.append(block, static_cast<size_t>(n));
    }
    return data;
  }

 private:
  const int fd_;
};

}  // namespace

std::string GraphToDot(const proto::GraphDef& graph, const DrawingOptions& options) {
  return Drawing(graph, options).ToDot();
}

absl::StatusOr<std::string> DotToSvg(absl::string_view dot, absl::Duration timeout) {
  MemoryFile in, out, err;
  if (in.fd() < 0 || out.fd() < 0 || err.fd() < 0 || !in.Write(dot)) {
    return ResourceExhausted("no memory to hand a graph of ", dot.size(), " bytes to dot");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.fd(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out.fd(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.fd(), STDERR_FILENO);
  char program[] = "dot", format[] = "-Tsvg";
  char* const arguments[] = {program, format, nullptr};
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, program, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) {
    return NotFound(
        "the program 'dot' of Graphviz is not installed (on Debian: apt-get install "
        "graphviz); without it a graph can be written as dot's text only");
  }
  if (error != 0) return Internal("can't start the program 'dot': ", strerror(error));
  const absl::Time deadline = absl::Now() + timeout;
  int status = 0;
  while (true) {
    const pid_t done = waitpid(pid, &status, WNOHANG);
    if (done == pid) break;
    if (done < 0 && errno != EINTR) return Internal("can't wait for dot: ", strerror(errno));
    if (absl::Now() > deadline) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return DeadlineExceeded("dot did not draw the graph within ", absl::FormatDuration(timeout));
    }
    absl::SleepFor(absl::Milliseconds(2));
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return Internal("dot failed with ", WIFEXITED(status) ? "status " : "signal ",
                    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), ": ", err.Read());
  }
  return out.Read();
}

}  // namespace ferry
