// Where broadcast operands' elements lie, also where a tensor has more than 2^31 elements.
#include "tests/gpu_index.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace ferry {
namespace {

constexpr int64_t kTwo31 = int64_t{1} << 31;

// What Locate should find.
std::vector<int64_t> Expected(const std::vector<int64_t>& dims, const std::vector<int64_t>& x,
                              const std::vector<int64_t>& y, const std::vector<int64_t>& elements) {
  std::vector<int64_t> at;
  for (int64_t e : elements) {
    int64_t found[2] = {0, 0};
    for (size_t d = dims.size(); d-- > 0;) {
      found[0] += e % dims[d] * x[d];
      found[1] += e % dims[d] * y[d];
      e /= dims[d];
    }
    at.insert(at.end(), found, found + 2);
  }
  return at;
}

void Check(const std::vector<int64_t>& dims, const std::vector<int64_t>& x,
           const std::vector<int64_t>& y, bool wide, const std::vector<int64_t>& elements) {
  std::vector<int64_t> at;
  EXPECT_EQ(testing::LocateOnGpu(dims, x, y, wide, elements, &at), "");
  EXPECT_EQ(at, Expected(dims, x, y, elements));
}

TEST(GpuIndexTest, SmallTensors) {
  for (bool wide : {false, true}) {
    Check({}, {}, {}, wide, {0});
    Check({7}, {1}, {0}, wide, {0, 1, 6});
    Check({3, 5, 7}, {35, 7, 1}, {5, 1, 0}, wide, {0, 1, 6, 7, 34, 35, 104});
    Check({kTwo31 / 2 - 1, 2}, {2, 1}, {0, 1}, wide, {0, kTwo31 - 4, kTwo31 - 3});
  }
}

TEST(GpuIndexTest, BeyondThirtyTwoBits) {
  const std::vector<int64_t> elements = {
      0, kTwo31 - 1, kTwo31, kTwo31 + 1, 2 * kTwo31 - 1, 2 * kTwo31, 2 * kTwo31 + 12345};
  Check({3, kTwo31}, {kTwo31, 1}, {0, 1}, true, elements);
  Check({kTwo31, 3}, {3, 1}, {1, 0}, true, elements);
  Check({5, 100003, 20011}, {0, 20011, 1}, {100003, 1, 0}, true, elements);
}

}  // namespace
}  // namespace ferry
