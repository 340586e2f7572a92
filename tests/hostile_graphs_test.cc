// Graphs and feeds that make no sense: whatever single ops are given, they answer with a value or a
// Status. What goes wrong otherwise is a crash, or is seen by the sanitizers.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
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

}  // namespace
}  // namespace ferry
