// Runs op cases that TensorFlow just made, for random_ops_test.py:
//
//   op_cases_program FILE
//
// Each runs with constants as inputs, with inputs that are fed, and where kernels may work in
// place. Prints what differs from TensorFlow, a line each, and then how many cases there were.
#include <cstdio>
#include <utility>
#include <vector>

#include "tests/op_cases.h"

int main(int argc, char** argv) {
  using ferry::Inputs;
  if (argc != 2) {
    std::fprintf(stderr, "usage: op_cases_program FILE\n");
    return 2;
  }
  const absl::StatusOr<std::vector<ferry::OpCase>> cases = ferry::LoadOpCases(argv[1]);
  if (!cases.ok()) {
    std::fprintf(stderr, "%s\n", cases.status().ToString().c_str());
    return 1;
  }
  for (const ferry::OpCase& c : *cases) {
    for (const auto& [how, words] :
         {std::make_pair(Inputs::kConst, "constants"), std::make_pair(Inputs::kFed, "fed"),
          std::make_pair(Inputs::kOwned, "in place")}) {
      if (how != Inputs::kConst && c.values.count("in0") == 0) continue;
      const absl::Status s = ferry::CheckOpCase(c, how, "cpu");
      if (s.ok()) continue;
      std::printf("%s (%s): %s\n", c.name.c_str(), words, s.ToString().c_str());
    }
  }
  std::printf("%zu cases\n", cases->size());
  return 0;
}
