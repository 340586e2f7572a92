// Fat binaries: see fatbin.h.
#include "tests/softgpu/fatbin.h"

#include <lz4.h>
#include <zstd.h>

#include <cstdint>
#include <cstring>

namespace softgpu {
namespace {

constexpr uint32_t kWrapperMagic = 0x466243B1;
constexpr uint32_t kContainerMagic = 0xBA55ED50;
constexpr uint16_t kKindPtx = 1;
constexpr uint64_t kFlagLz4 = 0x2000;
constexpr uint64_t kFlagZstd = 0x8000;
// The bytes of an entry's header that are read here; it may be longer.
constexpr uint32_t kEntryHeaderBytes = 64;

template <typename T>
T Get(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

struct Entry {
  uint16_t kind;
  uint32_t header_bytes;
  uint64_t padded_bytes;
  uint32_t compressed_bytes;
  uint32_t arch;
  uint64_t flags;
  uint64_t bytes;  // Uncompressed; 0 for entries that aren't compressed.
};

Entry ReadEntry(const char* at) {
  return {Get<uint16_t>(at),      Get<uint32_t>(at + 4),  Get<uint64_t>(at + 8),
          Get<uint32_t>(at + 16), Get<uint32_t>(at + 28), Get<uint64_t>(at + 40),
          Get<uint64_t>(at + 56)};
}

bool Decompress(const Entry& entry, const char* payload, std::string* text, std::string* error) {
  if (entry.flags & kFlagZstd) {
    text->resize(entry.bytes);
    const size_t n = ZSTD_decompress(&(*text)[0], entry.bytes, payload, entry.compressed_bytes);
    if (ZSTD_isError(n) || n != entry.bytes) {
      *error = "its zstd data is damaged";
      return false;
    }
  } else if (entry.flags & kFlagLz4) {
    text->resize(entry.bytes);
    const int n =
        LZ4_decompress_safe(payload, &(*text)[0], static_cast<int>(entry.compressed_bytes),
                            static_cast<int>(entry.bytes));
    if (n < 0 || static_cast<uint64_t>(n) != entry.bytes) {
      *error = "its LZ4 data is damaged";
      return false;
    }
  } else {
    text->assign(payload, entry.padded_bytes);
  }
  // Text ends at its terminating zero; padding follows.
  text->resize(std::strlen(text->c_str()));
  return true;
}

}  // namespace

bool ReadPtx(const void* wrapper, std::string* ptx, int* arch, std::string* error) {
  const char* w = static_cast<const char*>(wrapper);
  if (Get<uint32_t>(w) != kWrapperMagic) {
    *error = "it doesn't begin with a fat binary's magic number";
    return false;
  }
  const char* container = Get<const char*>(w + 8);
  if (Get<uint32_t>(container) != kContainerMagic) {
    *error = "its container has another magic number";
    return false;
  }
  const char* at = container + Get<uint16_t>(container + 6);
  const char* const end = at + Get<uint64_t>(container + 8);
  const char* best = nullptr;
  Entry best_entry = {};
  int machine_codes = 0;
  while (at + kEntryHeaderBytes <= end) {
    const Entry entry = ReadEntry(at);
    if (entry.header_bytes < kEntryHeaderBytes ||
        entry.padded_bytes > static_cast<uint64_t>(end - at) - entry.header_bytes) {
      *error = "an entry of its is larger than itself";
      return false;
    }
    if (entry.kind != kKindPtx) {
      ++machine_codes;
    } else if (best == nullptr || entry.arch > best_entry.arch) {
      best = at;
      best_entry = entry;
    }
    at += entry.header_bytes + entry.padded_bytes;
  }
  if (best == nullptr) {
    *error = "it has machine code for " + std::to_string(machine_codes) +
             " architectures and no PTX; compile with a -gencode …,code=compute_XX";
    return false;
  }
  *arch = static_cast<int>(best_entry.arch);
  return Decompress(best_entry, best + best_entry.header_bytes, ptx, error);
}

}  // namespace softgpu
