// What a cuda_library built for all architectures holds, as its fat binaries in this very program
// say.
#include <elf.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/device/copy_pieces.h"

namespace ferry {
namespace {

template <typename T>
T At(const std::string& bytes, size_t offset) {
  T value{};
  if (offset + sizeof(T) <= bytes.size()) std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

std::string Section(const std::string& elf, const std::string& name) {
  const auto header = At<Elf64_Ehdr>(elf, 0);
  const auto section = [&](size_t i) {
    return At<Elf64_Shdr>(elf, header.e_shoff + i * header.e_shentsize);
  };
  const Elf64_Shdr names = section(header.e_shstrndx);
  for (size_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr s = section(i);
    if (name == elf.c_str() + names.sh_offset + s.sh_name) {
      return elf.substr(s.sh_offset, s.sh_size);
    }
  }
  return "";
}

// The layout as tests/softgpu/fatbin.cc reads it.
TEST(Architectures, MachineCodeForEachAndPtx) {
  // Linked in, so that its fat binary is.
  int (*volatile used)(void*, const CopyPiecesArgs&, int, uint64_t) = &LaunchCopyPieces;
  ASSERT_NE(used, nullptr);
  std::ifstream in("/proc/self/exe", std::ios::binary);
  const std::string elf{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const std::string fatbin = Section(elf, ".nv_fatbin");
  ASSERT_FALSE(fatbin.empty());
  std::set<uint32_t> machine_code, ptx;
  for (size_t at = 0; at + 16 <= fatbin.size();) {
    if (At<uint32_t>(fatbin, at) != 0xBA55ED50) {
      at += 8;
      continue;
    }
    const size_t end = at + At<uint16_t>(fatbin, at + 6) + At<uint64_t>(fatbin, at + 8);
    at += At<uint16_t>(fatbin, at + 6);
    while (at < end) {
      const auto kind = At<uint16_t>(fatbin, at);
      (kind == 1 ? ptx : machine_code).insert(At<uint32_t>(fatbin, at + 28));
      const uint64_t size = At<uint32_t>(fatbin, at + 4) + At<uint64_t>(fatbin, at + 8);
      ASSERT_GT(size, 0u);
      at += size;
    }
  }
  EXPECT_THAT(machine_code, ::testing::IsSupersetOf({75u, 80u, 86u, 89u, 90u, 100u, 120u}));
  EXPECT_THAT(ptx, ::testing::Contains(75u));
}

}  // namespace
}  // namespace ferry
