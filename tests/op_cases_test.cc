// Single ops give what TensorFlow's CPU kernels give: values, dtypes, shapes, errors, gradients; and
// there is a kernel for each dtype that TensorFlow has one for.
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "tests/op_cases.h"

namespace ferry {
namespace {

std::vector<std::string> Families() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("tests/testdata/op_cases")) {
    const std::filesystem::path& p = entry.path();
    // Those two have forms of their own.
    if (p.extension() == ".pb" && p.stem() != "gradients" && p.stem() != "apply") {
      names.insert(p.stem().string());
    }
  }
  return {names.begin(), names.end()};
}

class OpCasesTest : public ::testing::TestWithParam<std::string> {};

TEST_P(OpCasesTest, EqualTensorFlow) {
  absl::StatusOr<std::vector<OpCase>> cases = LoadOpCases("op_cases/" + GetParam() + ".pb");
  ASSERT_TRUE(cases.ok()) << cases.status();
  ASSERT_FALSE(cases->empty());
  for (const OpCase& c : *cases) {
    for (const auto& [how, words] : {std::make_pair(Inputs::kConst, "constants"),
                                     std::make_pair(Inputs::kFed, "fed"),
                                     std::make_pair(Inputs::kOwned, "in place")}) {
      const absl::Status s = CheckOpCase(c, how);
      EXPECT_TRUE(s.ok()) << c.name << " (" << words << "): " << s.message();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, OpCasesTest, ::testing::ValuesIn(Families()),
                         [](const auto& info) { return info.param; });

TEST(GradientCasesTest, EqualTensorFlow) {
  absl::StatusOr<std::vector<OpCase>> cases = LoadOpCases("op_cases/gradients.pb");
  ASSERT_TRUE(cases.ok()) << cases.status();
  ASSERT_FALSE(cases->empty());
  for (const OpCase& c : *cases) {
    const absl::Status s = CheckGradientCase(c);
    EXPECT_TRUE(s.ok()) << c.name << ": " << s.message();
  }
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
    // One attribute varies at a time; the others have the first dtype that is served.
    std::vector<std::vector<DType>> lists;
    std::vector<std::string> names;
    for (size_t i = 1; i < parts.size(); ++i) {
      const std::pair<std::string, std::string> attr = absl::StrSplit(parts[i], '=');
      names.push_back(attr.first);
      lists.emplace_back();
      for (absl::string_view name : absl::StrSplit(attr.second, ',')) {
        const DType t = DTypeFromName(name);
        if (IsFloating(t) || IsInteger(t) || t == DType::kBool || t == DType::kString) {
          lists.back().push_back(t);
        }
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

}  // namespace
}  // namespace ferry
