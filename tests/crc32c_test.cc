// CRC-32C against known values and a bitwise reference.

#include "runtime/base/crc32c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace ferry {
namespace {

// One bit at a time: the reflected polynomial 0x1EDC6F41.
uint32_t Reference(absl::string_view data) {
  uint32_t crc = ~0u;
  for (unsigned char byte : data) {
    crc ^= byte;
    for (int k = 0; k < 8; ++k) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

std::string RandomBytes(size_t n) {
  std::mt19937 gen(static_cast<unsigned>(n));
  std::string s(n, '\0');
  for (char& c : s) c = static_cast<char>(gen());
  return s;
}

TEST(Crc32cTest, KnownVectors) {  // RFC 3720, B.4, and the check value of the catalogues.
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string up, down;
  for (char i = 0; i < 32; ++i) {
    up.push_back(i);
    down.push_back(static_cast<char>(31 - i));
  }
  EXPECT_EQ(Crc32c(up), 0x46dd794eu);
  EXPECT_EQ(Crc32c(down), 0x113fdb5cu);
}

TEST(Crc32cTest, AgreesWithBitwiseAtAllLengthsAndOffsets) {
  const std::string data = RandomBytes(700);
  for (size_t offset = 0; offset < 17; ++offset) {
    for (size_t n = 0; n + offset <= data.size(); n += n < 70 ? 1 : 53) {
      const absl::string_view part(data.data() + offset, n);
      ASSERT_EQ(Crc32c(part), Reference(part)) << offset << " " << n;
    }
  }
}

TEST(Crc32cTest, ExtendsAcrossAnySplit) {
  const std::string data = RandomBytes(300);
  const uint32_t whole = Crc32c(data);
  for (size_t split = 0; split <= data.size(); ++split) {
    const uint32_t first = Crc32c(absl::string_view(data).substr(0, split));
    ASSERT_EQ(ExtendCrc32c(first, data.data() + split, data.size() - split), whole) << split;
  }
}

TEST(Crc32cTest, MaskIsTensorFlowsAndComesOff) {
  const uint32_t crc = Crc32c("foo");
  EXPECT_EQ(crc, 0xcfc4ae1du);
  EXPECT_EQ(MaskCrc32c(crc), 0xfebe8a61u);  // As TensorFlow stores it in a record file.
  EXPECT_NE(MaskCrc32c(MaskCrc32c(crc)), crc);
  for (uint32_t c : {0u, 1u, ~0u, crc, 0x5d7d1528u}) EXPECT_EQ(UnmaskCrc32c(MaskCrc32c(c)), c);
}

TEST(Crc32cTest, CopyTakesTheSameCrcAndAllBytes) {
  for (size_t n :
       {size_t{0}, size_t{1}, size_t{8191}, size_t{8192}, size_t{8193}, size_t{100000}}) {
    const std::string data = RandomBytes(n);
    std::vector<char> to(n + 1, 'x');
    const uint32_t start = Crc32c("before");
    EXPECT_EQ(CopyAndExtendCrc32c(start, to.data(), data.data(), n),
              ExtendCrc32c(start, data.data(), n));
    EXPECT_EQ(std::memcmp(to.data(), data.data(), n), 0);
    EXPECT_EQ(to[n], 'x');
  }
}

}  // namespace
}  // namespace ferry
