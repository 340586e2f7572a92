// `ferry bench`: how fast saving, restoring, running and training are, beside the limits of the
// machine, measured in the same process and interleaved.
#ifndef FERRY_TOOLS_BENCH_H_
#define FERRY_TOOLS_BENCH_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace ferry {

struct BenchOptions {
  int64_t mib = 512;    // Of variables, in all.
  int64_t tensors = 32;
  std::string dir = ".";  // Where save and restore put their files (they are removed).
  int rounds = 9;         // Figures are medians of so many interleaved rounds.
  std::string device = "auto";  // As SessionOptions::device.
  int threads = 0;
  std::function<void(uint64_t done, uint64_t all)> progress;  // Rounds; may be empty.
  int64_t (*allocations)() = nullptr;  // How often this thread allocated memory so far.
};

using Json = nlohmann::ordered_json;

// Keys as in docs/benchmarks.md; all times are medians.
absl::StatusOr<Json> BenchSave(const BenchOptions& options);
absl::StatusOr<Json> BenchRestore(const BenchOptions& options);
absl::StatusOr<Json> BenchRun(const BenchOptions& options);
absl::StatusOr<Json> BenchTrain(const BenchOptions& options);

}  // namespace ferry

#endif  // FERRY_TOOLS_BENCH_H_
