// Single ops give what TensorFlow's CPU kernels give: values, dtypes, shapes, errors, gradients;
// and there is a kernel for each dtype that TensorFlow has one for. Built once for the CPU and once
// for a GPU.
#include "tests/op_cases.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/types.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

#ifdef FERRY_TEST_DEVICE
#define FERRY_ON_GPU
#else
#define FERRY_TEST_DEVICE "cpu"
#endif

namespace ferry {
namespace {

const std::string kDevice = FERRY_TEST_DEVICE;

std::vector<std::string> Families() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("tests/testdata/op_cases")) {
    const std::filesystem::path& p = entry.path();
    // Those two have forms of their own.
    if (p.stem() == "gradients" || p.stem() == "apply") continue;
    // Its errors don't say whether they are about elements, which a GPU can't tell of.
    if (kDevice == "gpu" && p.stem() == "random") continue;
    if (p.extension() == ".pb") {
      names.insert(p.stem().string());
    }
  }
  return {names.begin(), names.end()};
}

// The data goes further than the ops that there are. OpsTest sees to it that none is missing which
// should be there.
bool Registered(const OpCase& c) {
  for (const proto::NodeDef& n : c.nodes) {
    if (FindOp(n.op()) == nullptr) return false;
  }
  return true;
}

TEST(OpsTest, AreRegistered) {
  const std::string names =
      "Abs Add AddN AddV2 ApplyAdam ApplyGradientDescent ApplyMomentum ArgMax Assign AssignAdd "
      "AssignSub AvgPool AvgPoolGrad BiasAdd BiasAddGrad BroadcastGradientArgs BroadcastTo Cast "
      "Ceil ClipByValue ConcatV2 Const Conv2D Conv2DBackpropFilter Conv2DBackpropInput Cos Div "
      "DivNoNan Elu EluGrad Equal Erf Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod "
      "FusedBatchNorm FusedBatchNormGrad FusedBatchNormGradV2 FusedBatchNormGradV3 "
      "FusedBatchNormV2 FusedBatchNormV3 GatherV2 Greater GreaterEqual Identity InvGrad "
      "IsFinite IsInf IsNan IsVariableInitialized L2Loss LRN LRNGrad LeakyRelu LeakyReluGrad "
      "Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool "
      "MaxPoolGrad MaxPoolGradGrad MaxPoolGradV2 MaxPoolV2 Maximum Mean Merge "
      "MergeV2Checkpoints Min Minimum Mul Neg NoOp NotEqual OneHot OnesLike Pack Placeholder "
      "PlaceholderWithDefault Pow Prod RandomStandardNormal RandomUniform Range RealDiv "
      "Reciprocal ReciprocalGrad RefSwitch Relu Relu6 Relu6Grad ReluGrad Reshape RestoreV2 Rint "
      "Round Rsqrt RsqrtGrad SaveV2 Select SelectV2 Selu SeluGrad Shape ShardedFilename Sigmoid "
      "SigmoidGrad Sign Sin Slice Softmax SoftmaxCrossEntropyWithLogits Softplus SoftplusGrad "
      "Softsign SoftsignGrad SparseSoftmaxCrossEntropyWithLogits Sqrt SqrtGrad Square "
      "SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Switch Tanh TanhGrad Tile "
      "Transpose TruncateDiv TruncatedNormal VariableV2 ZerosLike";
  for (absl::string_view name : absl::StrSplit(names, ' ')) {
    EXPECT_NE(FindOp(name), nullptr) << name;
  }
}

// What a GPU can't tell of, since only the elements show it: these have results there
// (docs/gpu.md; gpu_math_test.cc says which).
const std::set<std::string> kNoErrorsOnGpu = {"SparseSoftmaxCrossEntropyWithLogits_range",
                                              "SparseSoftmaxCrossEntropyWithLogits_negative"};

class OpCasesTest : public ::testing::TestWithParam<std::string> {};

TEST_P(OpCasesTest, EqualTensorFlow) {
  absl::StatusOr<std::vector<OpCase>> cases = LoadOpCases("op_cases/" + GetParam() + ".pb");
  ASSERT_TRUE(cases.ok()) << cases.status();
  ASSERT_FALSE(cases->empty());
  int ran = 0, on_gpu = 0;
  for (const OpCase& c : *cases) {
    if (!Registered(c)) continue;
    ++ran;
    if (kDevice == "gpu") on_gpu += HasGpuKernel(c);
    for (const auto& [how, words] :
         {std::make_pair(Inputs::kConst, "constants"), std::make_pair(Inputs::kFed, "fed"),
          std::make_pair(Inputs::kOwned, "in place")}) {
      if (how != Inputs::kConst && c.values.count("in0") == 0) continue;
      const absl::Status s = CheckOpCase(c, how, kDevice);
      if (kDevice == "gpu" && kNoErrorsOnGpu.count(c.name) > 0) {
        EXPECT_THAT(std::string(s.message()), ::testing::EndsWith("was expected, found none"))
            << c.name;
        continue;
      }
      EXPECT_TRUE(s.ok()) << c.name << " (" << words << "): " << s.message();
    }
  }
  EXPECT_GT(ran, 0);
  if (kDevice == "gpu") {
    std::cout << GetParam() << ": " << on_gpu << " of " << ran << " cases have a GPU kernel\n";
  }
}

INSTANTIATE_TEST_SUITE_P(Families, OpCasesTest, ::testing::ValuesIn(Families()),
                         [](const auto& info) { return info.param; });

#ifdef FERRY_ON_GPU
// So that nobody takes the CPU's results for a GPU's.
TEST(GpuCasesTest, RunGpuKernels) {
  int total = 0, on_gpu = 0;
  for (const std::string& family : Families()) {
    absl::StatusOr<std::vector<OpCase>> cases = LoadOpCases("op_cases/" + family + ".pb");
    ASSERT_TRUE(cases.ok()) << cases.status();
    for (const OpCase& c : *cases) {
      ++total;
      on_gpu += HasGpuKernel(c);
    }
  }
  std::cout << on_gpu << " of " << total << " cases have a GPU kernel\n";
  EXPECT_GE(on_gpu, 1000);
}
#endif

TEST(GradientCasesTest, EqualTensorFlow) {
  absl::StatusOr<std::vector<OpCase>> cases = LoadOpCases("op_cases/gradients.pb");
  ASSERT_TRUE(cases.ok()) << cases.status();
  ASSERT_FALSE(cases->empty());
  int ran = 0;
  for (const OpCase& c : *cases) {
    if (!Registered(c)) continue;
    ++ran;
    const absl::Status s = CheckGradientCase(c, kDevice);
    EXPECT_TRUE(s.ok()) << c.name << ": " << s.message();
  }
  EXPECT_GT(ran, 0);
}

// Whether the op's definition allows the attribute that dtype: TensorFlow has kernels beyond that.
bool Allowed(const OpInfo& op, const std::string& name, DType t) {
  for (const proto::OpDef::AttrDef& attr : op.def.attr()) {
    if (attr.name() != name || !attr.has_allowed_values()) continue;
    const auto& types = attr.allowed_values().list().type();
    return std::find(types.begin(), types.end(), static_cast<int>(t)) != types.end();
  }
  return true;
}

// Each line of the file: op, then tab and "attribute=dtype,dtype…" for each attribute.
TEST(KernelDtypesTest, AsManyAsTensorFlow) {
  std::ifstream in("tests/testdata/op_cases/kernel_dtypes.txt");
  ASSERT_TRUE(in);
  int found = 0;
  for (std::string line; std::getline(in, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, '\t');
    const OpInfo* op = FindOp(parts[0]);
    if (op == nullptr) continue;
    ++found;
    // One attribute varies at a time; the others have the first of their dtypes.
    std::vector<std::vector<DType>> lists;
    std::vector<std::string> names;
    for (size_t i = 1; i < parts.size(); ++i) {
      const std::pair<std::string, std::string> attr = absl::StrSplit(parts[i], '=');
      names.push_back(attr.first);
      lists.emplace_back();
      for (absl::string_view name : absl::StrSplit(attr.second, ',')) {
        const DType t = DTypeFromName(name);
        const bool ours = IsFloating(t) || IsInteger(t) || t == DType::kBool || t == DType::kString;
        if (ours && Allowed(*op, attr.first, t)) lists.back().push_back(t);
      }
    }
    for (size_t i = 0; i < lists.size(); ++i) {
      for (DType t : lists[i]) {
        AttrMap attrs;
        for (size_t k = 0; k < lists.size(); ++k) {
          if (!lists[k].empty()) attrs[names[k]] = MakeAttr(k == i ? t : lists[k][0]);
        }
        const absl::Status s = FindKernel(parts[0], DeviceType::kCpu, attrs).status();
        EXPECT_TRUE(s.ok()) << s.message();
      }
    }
  }
  EXPECT_GT(found, 0);
}

#ifndef FERRY_ON_GPU
// By op and type attribute: the dtypes that a case somewhere has.
using Seen = std::map<std::string, std::map<std::string, std::set<DType>>>;

void Note(const proto::NodeDef& node, Seen* seen) {
  auto& attrs = (*seen)[node.op()];
  for (const auto& [name, value] : node.attr()) {
    if (value.value_case() == proto::AttrValue::kType) {
      attrs[name].insert(static_cast<DType>(value.type()));
    }
    for (int t : value.list().type()) attrs[name].insert(static_cast<DType>(t));
  }
}

void NoteFile(const std::string& file, Seen* seen) {
  absl::StatusOr<std::vector<OpCase>> cases = LoadOpCases(file);
  ASSERT_TRUE(cases.ok()) << cases.status();
  for (const OpCase& c : *cases) {
    for (const proto::NodeDef& n : c.nodes) Note(n, seen);
    const auto apply = c.values.find("apply");
    if (apply == c.values.end()) continue;
    proto::NodeDef def;
    ASSERT_TRUE(def.ParseFromString(apply->second.scalar<std::string>()));
    Note(def, seen);
    // apply_test.cc runs those on handles, too.
    if (FindOp("Resource" + def.op()) == nullptr) continue;
    def.set_op("Resource" + def.op());
    (*def.mutable_attr())["dtype"] = def.attr().at("T");
    Note(def, seen);
  }
  if (cases->empty() || !cases->front().library) return;
  for (const proto::FunctionDef& f : cases->front().library->function()) {
    for (const proto::NodeDef& n : f.node_def()) Note(n, seen);
  }
}

// What those tests look at instead, since there is no value to compare, or more than one run; and
// what TensorFlow doesn't have.
const std::map<std::string, const char*> kElsewhere = {
    {"ControlTrigger", "loops.pb: it has no value"},
    {"DestroyResourceOp", "resource_variable_test"},
    {"DisableCopyOnRead", "resource_variable_test"},
    {"HistogramSummary", "tf/event_test.py"},
    {"ImageSummary", "tf/event_test.py"},
    {"MergeSummary", "tf/event_test.py"},
    {"MergeV2Checkpoints", "saver_ops_test"},
    {"NoOp", "control_test: it has no value"},
    {"Placeholder", "every case is fed through it"},
    {"PlaceholderV2", "Placeholder under its other name"},
    {"Print", "print_test"},
    {"PrintV2", "print_test"},
    {"RefEnter", "while_test"},
    {"RefExit", "while_test"},
    {"RefNextIteration", "while_test"},
    {"RestoreV2", "saver_ops_test"},
    {"SaveV2", "saver_ops_test"},
    {"ScalarSummary", "tf/event_test.py"},
    {"StackCloseV2", "while_test: it has no value"},
    {"TopK", "TensorFlow makes no graph with it any more; the kernel is TopKV2's"},
};
// "op attribute dtype" for which TensorFlow has a kernel that gives no result to compare.
const std::set<std::string> kRefused = {
    "ArgMax Tidx int16",                   // Read as four bytes there.
    "Round T int32",     "Round T int64",  // All become 0 there.
    "Tile T uint16",     "ToBool T float16", "ToBool T bfloat16", "ToBool T uint16",
    "ToBool T uint32",   "ToBool T uint64",  "Where T float16"};

// The dtypes that cases can hold.
const std::set<DType>& Comparable() {
  static const std::set<DType>* const types = [] {
    auto* t = new std::set<DType>(kGpuTypes.begin(), kGpuTypes.end());
    t->insert(DType::kString);
    return t;
  }();
  return *types;
}

// For each op the dtypes that TensorFlow's CPU kernels take, by attribute; none named: any.
std::map<std::string, std::map<std::string, std::set<DType>>> TensorFlowDtypes() {
  std::map<std::string, std::map<std::string, std::set<DType>>> all;
  std::ifstream in("tests/testdata/op_cases/kernel_dtypes.txt");
  for (std::string line; std::getline(in, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, '\t');
    auto& attrs = all[parts[0]];
    for (size_t i = 1; i < parts.size(); ++i) {
      const std::vector<std::string> attr = absl::StrSplit(parts[i], '=');
      if (attr.size() != 2) continue;
      for (absl::string_view t : absl::StrSplit(attr[1], ',')) {
        attrs[attr[0]].insert(DTypeFromName(t));
      }
    }
  }
  return all;
}

// Every op with a CPU kernel has cases beside TensorFlow, for every dtype that both have.
TEST(KernelCasesTest, EveryOpAndDtype) {
  Seen seen;
  for (const char* folder : {"op_cases/", "philox/"}) {
    for (const auto& f :
         std::filesystem::directory_iterator(absl::StrCat("tests/testdata/", folder))) {
      if (f.path().extension() != ".pb" || f.path().stem() == "gradients") continue;
      NoteFile(folder + f.path().filename().string(), &seen);
    }
  }
  const auto tensorflow = TensorFlowDtypes();
  int pairs = 0;
  for (const OpInfo* op : AllOps()) {
    const std::string& name = op->def.name();
    const std::vector<const KernelDef*> kernels = KernelsOf(name, DeviceType::kCpu);
    if (kernels.empty() || kElsewhere.count(name) > 0) continue;
    EXPECT_EQ(seen.count(name), 1) << "there is no case of " << name;
    for (const proto::OpDef::AttrDef& attr : op->def.attr()) {
      if (attr.type() != "type" && attr.type() != "list(type)") continue;
      for (DType t : Comparable()) {
        const bool here = Allowed(*op, attr.name(), t) &&
                          std::any_of(kernels.begin(), kernels.end(), [&](const KernelDef* kernel) {
                            for (const auto& [of, types] : kernel->types) {
                              if (of == attr.name())
                                return std::count(types.begin(), types.end(), t) > 0;
                            }
                            return true;
                          });
        bool there = true;
        if (const auto of_op = tensorflow.find(name); of_op != tensorflow.end()) {
          const auto of = of_op->second.find(attr.name());
          there = of == of_op->second.end() || of->second.count(t) > 0;
        }
        if (!here || !there) continue;
        const std::string what = absl::StrCat(name, " ", attr.name(), " ", DTypeName(t));
        if (kRefused.count(what) > 0) continue;
        ++pairs;
        EXPECT_EQ(seen[name][attr.name()].count(t), 1) << "there is no case of " << what;
      }
    }
  }
  EXPECT_GT(pairs, 2000);
}
#endif

}  // namespace
}  // namespace ferry
