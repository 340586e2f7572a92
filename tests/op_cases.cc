// Reading, running and comparing op cases; see the header.
#include "tests/op_cases.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/attr.h"
#include "runtime/op/kernel.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

template <typename T>
std::string Show(const T& v) {
  if constexpr (std::is_same_v<T, std::string>) {
    return absl::StrCat("'", v, "'");
  } else if constexpr (std::is_integral_v<T>) {
    return absl::StrCat(v);
  } else {
    return absl::StrCat(static_cast<double>(v));
  }
}

template <typename T>
bool Close(const T& a, const T& b, double slack, double rtol) {
  if constexpr (std::is_integral_v<T> || std::is_same_v<T, std::string>) {
    return a == b;
  } else {
    const auto x = static_cast<double>(a), y = static_cast<double>(b);
    if (std::isnan(x) || std::isnan(y)) return std::isnan(x) && std::isnan(y);
    if (std::isinf(x) || std::isinf(y)) return x == y;
    return std::fabs(x - y) <= std::max(slack, rtol * std::fabs(x));
  }
}

template <typename T>
absl::Status CompareElements(const Tensor& expected, const Tensor& found, double tol, double rtol) {
  const T* a = expected.data<T>();
  const T* b = found.data<T>();
  double largest = 0;
  if constexpr (!std::is_same_v<T, std::string>) {
    for (int64_t i = 0; i < expected.num_elements(); ++i) {
      const double v = std::fabs(static_cast<double>(a[i]));
      if (std::isfinite(v)) largest = std::max(largest, v);
    }
  }
  for (int64_t i = 0; i < expected.num_elements(); ++i) {
    if (!Close(a[i], b[i], tol * largest, rtol)) {
      return Internal("element ", i, ": expected ", Show(a[i]), ", found ", Show(b[i]));
    }
  }
  return absl::OkStatus();
}

template <typename... Ts>
absl::Status CompareByType(Types<Ts...>, const Tensor& expected, const Tensor& found, double tol,
                           double rtol) {
  absl::Status s = Unimplemented("comparing ", DTypeName(expected.dtype()));
  ((DTypeOf<Ts>::value == expected.dtype()
        ? void(s = CompareElements<Ts>(expected, found, tol, rtol))
        : void()),
   ...);
  return s;
}

double FloatOr0(const OpCase& c, const std::string& name) {
  auto it = c.values.find(name);
  return it == c.values.end() ? 0 : it->second.scalar<float>();
}

void AddConst(proto::GraphDef* graph, const std::string& name, const Tensor& value) {
  proto::NodeDef* n = graph->add_node();
  n->set_name(name);
  n->set_op("Const");
  (*n->mutable_attr())["dtype"] = MakeAttr(value.dtype());
  (*n->mutable_attr())["value"] = MakeAttr(value);
}

// The inputs' names and values, in0 first.
std::vector<std::pair<std::string, Tensor>> InputsOf(const OpCase& c) {
  std::vector<std::pair<std::string, Tensor>> in;
  for (int i = 0;; ++i) {
    auto it = c.values.find(absl::StrCat("in", i));
    if (it == c.values.end()) return in;
    in.emplace_back(absl::StrCat(c.name, "/in", i), it->second);
  }
}

proto::GraphDef GraphOf(const OpCase& c, Inputs how, const std::string& device) {
  proto::GraphDef graph;
  graph.mutable_versions()->set_producer(1882);
  if (c.library) *graph.mutable_library() = *c.library;
  if (how == Inputs::kOwned) {  // What a plan can't compute beforehand.
    AddConst(&graph, c.name + "/true_value", Tensor::Scalar<bool>(true));
    proto::NodeDef* n = graph.add_node();
    n->set_name(c.name + "/true");
    n->set_op("PlaceholderWithDefault");
    n->add_input(c.name + "/true_value");
    (*n->mutable_attr())["dtype"] = MakeAttr(DType::kBool);
    (*n->mutable_attr())["shape"] = MakeAttr(PartialShape::Scalar());
  }
  for (const auto& [name, value] : InputsOf(c)) {
    if (how == Inputs::kConst) {
      AddConst(&graph, name, value);
    } else if (how == Inputs::kFed) {
      proto::NodeDef* n = graph.add_node();
      n->set_name(name);
      n->set_op("Placeholder");
      (*n->mutable_attr())["dtype"] = MakeAttr(value.dtype());
    } else {
      AddConst(&graph, name + "_source", value);
      proto::NodeDef* n = graph.add_node();
      n->set_name(name);
      n->set_op("SelectV2");
      n->add_input(c.name + "/true");
      n->add_input(name + "_source");
      n->add_input(name + "_source");
      (*n->mutable_attr())["T"] = MakeAttr(value.dtype());
    }
  }
  for (const proto::NodeDef& n : c.nodes) {
    proto::NodeDef* node = graph.add_node();
    *node = n;
    // Without a wish, arithmetic on int32 stays on the CPU.
    if (device == "gpu") node->set_device("/gpu:0");
  }
  return graph;
}

// Whether `status` is the error that the case expects.
absl::Status CheckError(const OpCase& c, const absl::Status& status, bool words_too) {
  const auto words = c.values.at("error").span<std::string>();
  if (status.ok()) return Internal("an error ", words[0], " was expected, found none");
  if (absl::StatusCodeToString(status.code()) != words[0]) {
    return Internal("an error ", words[0], " was expected, found ", status.ToString());
  }
  for (size_t i = 1; words_too && i < words.size(); ++i) {
    if (!absl::StrContains(absl::AsciiStrToLower(status.message()),
                           absl::AsciiStrToLower(words[i]))) {
      return Internal("an error with '", words[i], "' was expected, found ", status.ToString());
    }
  }
  return absl::OkStatus();
}

// Whether the error is about elements that lie in a GPU's memory when the op runs there. The host
// can't look at those; the kernel leaves out what is wrong.
bool IsAboutElements(const OpCase& c) {
  for (const std::string& words : c.values.at("error").span<std::string>()) {
    if (absl::StrContains(words, "is not in [0, ") ||
        absl::StrContains(words, "is out of range [0, ") ||
        absl::StrContains(words, "does not index into shape")) {
      return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<std::vector<OpCase>> LoadOpCases(const std::string& file) {
  const std::string path = absl::StartsWith(file, "/") ? file : "tests/testdata/" + file;
  std::ifstream in(path, std::ios::binary);
  proto::GraphDef graph;
  if (!in || !graph.ParseFromIstream(&in)) return NotFound("can't read ", path);
  std::vector<OpCase> cases;
  std::shared_ptr<const proto::FunctionDefLibrary> library;
  if (graph.library().function_size() > 0) {
    library = std::make_shared<const proto::FunctionDefLibrary>(graph.library());
  }
  for (const proto::NodeDef& n : graph.node()) {
    const size_t slash = n.name().find('/');
    const std::string name = n.name().substr(0, slash), part = n.name().substr(slash + 1);
    if (cases.empty() || cases.back().name != name) cases.push_back({name, {}, {}, library});
    OpCase& c = cases.back();
    bool value = false;  // "in0", "tol" …
    for (absl::string_view kind : {"in", "expect", "grad", "dy", "tol", "rtol", "error", "init",
                                   "apply", "head", "tail", "sample", "crc"}) {
      absl::string_view number = part;
      value |= n.op() == "Const" && absl::ConsumePrefix(&number, kind) &&
               std::all_of(number.begin(), number.end(), absl::ascii_isdigit);
    }
    if (!value) {
      c.nodes.push_back(n);
      continue;
    }
    absl::StatusOr<Tensor> t = FromProto(n.attr().at("value").tensor());
    if (!t.ok()) return Annotate(t.status(), n.name());
    c.values[part] = *std::move(t);
  }
  return cases;
}

bool HasGpuKernel(const OpCase& c) {
  Graph graph;
  if (!ImportGraphDef({}, GraphOf(c, Inputs::kFed, "cpu"), &graph).ok()) return false;
  const Node* op = graph.FindNode(c.name + "/op");
  return op && FindKernel(op->op(), DeviceType::kGpu, op->attrs()).ok();
}

// What a GPU's sum of floats may differ by, beside the case's own tolerance: it adds in another
// order, so where terms cancel out it is their size that counts. By the largest expected magnitude.
double OrderTolerance(const OpCase& c, const Tensor& expected) {
  const std::string& op = c.nodes[0].op();
  if ((op != "Sum" && op != "Mean") || expected.dtype() != DType::kFloat) return 0;
  auto largest = [](const Tensor& t) {
    float most = 0;
    for (float x : t.span<float>()) most = std::isfinite(x) ? std::max(most, std::fabs(x)) : most;
    return static_cast<double>(most);
  };
  const Tensor& x = c.values.at("in0");
  const double terms =
      op == "Mean" || expected.num_elements() == 0
          ? 1
          : static_cast<double>(x.num_elements()) / static_cast<double>(expected.num_elements());
  const double size = largest(expected);
  return size > 0 ? 6e-8 * terms * largest(x) / size : 0;
}

absl::Status CheckOpCase(const OpCase& c, Inputs how, const std::string& device) {
  const bool fails = c.values.count("error") != 0;
  Graph graph;
  ImportOptions import;
  import.allow_unknown_ops = false;
  const absl::Status imported = ImportGraphDef(import, GraphOf(c, how, device), &graph);
  if (!imported.ok()) {
    if (fails && how != Inputs::kFed) return CheckError(c, imported, /*words_too=*/false);
    return Annotate(imported, "while the graph was built");
  }
  Node* op = graph.FindNode(c.name + "/op");
  if (op == nullptr) return Internal("there is no node ", c.name, "/op");
  std::vector<std::string> fetches;
  std::vector<Tensor> found;
  for (int i = 0; fails ? i < op->num_outputs() : c.values.count(absl::StrCat("expect", i)) != 0;
       ++i) {
    fetches.push_back(absl::StrCat(c.name, "/op:", i));
  }
  std::vector<std::pair<std::string, Tensor>> feeds;
  if (how == Inputs::kFed) feeds = InputsOf(c);
  SessionOptions options;
  options.threads = 1;
  options.device = device;
  Session session(&graph, options);
  const absl::Status run = session.Run(feeds, fetches, {}, &found);
  if (fails && run.ok() && device == "gpu" && IsAboutElements(c) && HasGpuKernel(c)) {
    return absl::OkStatus();
  }
  if (fails) return CheckError(c, run, how == Inputs::kFed);
  FERRY_RETURN_IF_ERROR(run);
  for (size_t i = 0; i < found.size(); ++i) {
    const PartialShape& inferred = op->output_shape(static_cast<int>(i));
    if (!inferred.CompatibleWith(found[i].shape())) {
      return Internal("output ", i, " has shape ", found[i].shape().DebugString(),
                      ", inferred was ", inferred.DebugString());
    }
    const Tensor& expected = c.values.at(absl::StrCat("expect", i));
    const double tol = FloatOr0(c, "tol") + (device == "gpu" ? OrderTolerance(c, expected) : 0);
    FERRY_RETURN_IF_ERROR(Annotate(CompareTensors(expected, found[i], tol, FloatOr0(c, "rtol")),
                                   absl::StrCat("output ", i)));
  }
  return absl::OkStatus();
}

absl::Status CheckGradientCase(const OpCase& c, const std::string& device) {
  Graph graph;
  FERRY_RETURN_IF_ERROR(ImportGraphDef({}, GraphOf(c, Inputs::kConst, device), &graph));
  const Scope root(&graph);
  Node* op = graph.FindNode(c.name + "/op");
  std::vector<Output> ys, dys, xs, grads;
  for (int i = 0; i < op->num_outputs(); ++i) {
    auto dy = c.values.find(absl::StrCat("dy", i));
    if (dy == c.values.end()) continue;
    ys.push_back(op->output(i));
    dys.push_back(ops::Const(root, dy->second));
  }
  for (const auto& [name, value] : InputsOf(c)) xs.push_back(graph.FindNode(name)->output(0));
  FERRY_RETURN_IF_ERROR(AddSymbolicGradients(root, ys, xs, &grads, dys));
  std::vector<Output> fetches;
  std::vector<size_t> of;
  for (size_t i = 0; i < xs.size(); ++i) {
    const bool expected = c.values.count(absl::StrCat("grad", i)) != 0;
    if ((grads[i].node != nullptr) != expected) {
      return Internal(expected ? "a" : "no", " gradient was expected for input ", i);
    }
    if (!expected) continue;
    fetches.push_back(grads[i]);
    of.push_back(i);
  }
  SessionOptions options;
  options.threads = 1;
  options.device = device;
  Session session(&graph, options);
  std::vector<Tensor> found;
  FERRY_RETURN_IF_ERROR(session.Run({}, fetches, {}, &found));
  for (size_t k = 0; k < found.size(); ++k) {
    if (!fetches[k].shape().CompatibleWith(found[k].shape())) {
      return Internal("the gradient of input ", of[k], " has shape ",
                      found[k].shape().DebugString(), ", inferred was ",
                      fetches[k].shape().DebugString());
    }
    FERRY_RETURN_IF_ERROR(
        Annotate(CompareTensors(c.values.at(absl::StrCat("grad", of[k])), found[k],
                                FloatOr0(c, "tol"), FloatOr0(c, "rtol")),
                 absl::StrCat("gradient of input ", of[k])));
  }
  return absl::OkStatus();
}

absl::Status CompareTensors(const Tensor& expected, const Tensor& found, double tol, double rtol) {
  if (expected.dtype() != found.dtype() || expected.shape() != found.shape()) {
    return Internal("expected ", DTypeName(expected.dtype()), " ", expected.shape().DebugString(),
                    ", found ", DTypeName(found.dtype()), " ", found.shape().DebugString());
  }
  return CompareByType(Join<NumberTypes, Types<bool, std::string>>(), expected, found, tol, rtol);
}

}  // namespace ferry
