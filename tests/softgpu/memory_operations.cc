// Loads, stores and atomics in all spaces, each access checked. Where a warp's lanes access
// neighbouring addresses, or all the same one, one check does for all.
#include <algorithm>
#include <tuple>

#include "tests/softgpu/program.h"
#include "tests/softgpu/small_floats.h"

namespace softgpu {
namespace {

enum Space { kGlobal, kShared, kLocal, kParam, kGeneric };

// Shared memory: finds what a missing __syncthreads lets happen. For each 4 bytes: the interval
// between barriers in which they were used last (16 bits), the warp that wrote and the warp that
// read them then (8 bits each: index plus one, or kSeveral). Accesses of fewer bytes, and those
// within one warp, are not looked at. Returns the warp that another one's access collides with.
constexpr uint32_t kSeveral = 0xff;
constexpr uint32_t kAtomicUser = 0xfe;

template <uint32_t bytes, Access kind>
inline uint32_t SharedHazard(Machine& m, uint64_t offset) {
  const uint32_t interval = m.interval << 16, me = m.warp_index + 1;
  for (uint64_t word = offset / 4; word < (offset + bytes) / 4; ++word) {
    uint32_t& use = m.shared_users[word];
    const uint32_t now = (use ^ interval) >> 16 ? interval : use;
    const uint32_t writer = now >> 8 & 0xff, reader = now & 0xff;
    if (kind == Access::kRead) {
      if (writer && writer != me) return writer;
      use = (now & ~0xffu) | (reader == 0 || reader == me ? me : kSeveral);
    } else {
      const uint32_t who = kind == Access::kAtomic ? kAtomicUser : me;
      if (writer && writer != who && writer != me) return writer;
      if (reader && reader != me) return reader;
      use = interval | who << 8 | reader;
    }
  }
  return 0;
}

std::string InShared(const Machine& m, uint64_t offset, uint32_t bytes, Access kind) {
  return std::string(kind == Access::kRead ? "reads " : "writes ") + std::to_string(bytes) +
         " bytes at offset " + std::to_string(static_cast<int64_t>(offset)) + " of the block's " +
         std::to_string(m.shared_bytes) + " bytes of shared memory";
}

// What is wrong with an access to shared memory: `other` is the warp that it collides with.
__attribute__((noinline)) void FailShared(Machine& m, int lane, uint64_t address, uint32_t bytes,
                                          Access kind, uint32_t other) {
  const std::string access = InShared(m, address, bytes, kind);
  if (address >= m.shared_bytes || bytes > m.shared_bytes - address) {
    m.Fail(Report::kOutOfBounds, lane, access);
  } else if (other == 0) {
    m.Fail(Report::kUninitialised, lane, access + ", and nothing in this block wrote to it");
  } else {
    m.Fail(Report::kRace, lane,
           access + ", which " +
               (other == kSeveral      ? "several warps"
                : other == kAtomicUser ? "an atomic of some warp"
                                       : "warp " + std::to_string(other - 1)) +
               " used since the last __syncthreads");
  }
}

__attribute__((noinline)) void FailMisaligned(Machine& m, int lane, uint64_t address,
                                              uint32_t bytes) {
  const std::string place = m.memory->Describe(address);
  m.Fail(Report::kMisaligned, lane,
         "accesses " + std::to_string(bytes) + " bytes at an address that isn't a multiple: " +
             (place.empty() ? std::to_string(address) : place));
}

__attribute__((noinline)) void FailSmallSpace(Machine& m, int lane, uint64_t address,
                                              const std::string& what) {
  m.Fail(Report::kOutOfBounds, lane,
         "accesses offset " + std::to_string(static_cast<int64_t>(address)) + " of " + what);
}

// The bytes behind `address` of a lane, or null after a fault.
template <Space space, uint32_t bytes, Access kind>
inline uint8_t* At(Machine& m, int lane, uint64_t address) {
  if constexpr (space == kGeneric) {
    const uint64_t tag = address & kTagMask;
    if (tag == kSharedTag) return At<kShared, bytes, kind>(m, lane, address - tag);
    if (tag == kLocalTag) return At<kLocal, bytes, kind>(m, lane, address - tag);
    if (tag == kParamTag) return At<kParam, bytes, kind>(m, lane, address - tag);
    return At<kGlobal, bytes, kind>(m, lane, address);
  }
  if (address & (bytes - 1)) {
    FailMisaligned(m, lane, address, bytes);
    return nullptr;
  }
  if constexpr (space == kGlobal) {
    uint8_t* p = m.memory->At(*m.actor, m.device, address, bytes, kind);
    if (!p) m.FailAccess(lane, address, bytes, kind);
    return p;
  } else if constexpr (space == kShared) {
    bool good = address < m.shared_bytes && bytes <= m.shared_bytes - address;
    if (good && kind == Access::kWrite) {
      std::memset(m.shared_state + address, 1, bytes);
    } else if (good && m.memory->options().uninitialised) {
      uint8_t all = 1;
      for (uint32_t i = 0; i < bytes; ++i) all &= m.shared_state[address + i];
      good = all;
    }
    uint32_t other = 0;
    if (good && bytes >= 4 && m.shared_races) other = SharedHazard<bytes, kind>(m, address);
    if (good && !other) return m.shared + address;
    FailShared(m, lane, address, bytes, kind, other);
    return nullptr;
  } else if constexpr (space == kLocal) {
    if (address < m.local_bytes && bytes <= m.local_bytes - address) {
      return m.local + uint64_t{m.local_bytes} * lane + address;
    }
    FailSmallSpace(m, lane, address,
                   "a thread's " + std::to_string(m.local_bytes) + " bytes of local memory");
    return nullptr;
  } else {
    if (kind == Access::kRead && address < m.param_bytes && bytes <= m.param_bytes - address) {
      return const_cast<uint8_t*>(m.params) + address;
    }
    FailSmallSpace(m, lane, address, "the kernel's parameters");
    return nullptr;
  }
}

// The lanes' addresses: register s[0], of 4 bytes where s[1] isn't zero, plus the offset.
inline void Addresses(Machine& m, const Instruction& in, uint64_t* addresses) {
  if (in.s[1]) {
    const uint32_t* a = Lanes<uint32_t>(m, in.s[0]);
    const uint32_t offset = static_cast<uint32_t>(in.immediate);
    for (int i = 0; i < kLanes; ++i) addresses[i] = a[i] + offset;
  } else {
    const uint64_t* a = Lanes<uint64_t>(m, in.s[0]);
    const uint64_t offset = in.immediate;
    for (int i = 0; i < kLanes; ++i) addresses[i] = a[i] + offset;
  }
}

enum Pattern { kScattered, kConsecutive, kUniform };

// How the lanes of `mask`, which isn't empty, access memory with `bytes` each.
inline Pattern PatternOf(const uint64_t* addresses, uint32_t mask, uint32_t bytes) {
  const int first = __builtin_ctz(mask);
  const uint64_t base = addresses[first] - uint64_t{bytes} * first;
  uint64_t apart = 0, different = 0;
  for (int i = 0; i < kLanes; ++i) {
    const uint64_t on = mask >> i & 1 ? ~uint64_t{0} : 0;
    apart |= (addresses[i] ^ (base + uint64_t{bytes} * i)) & on;
    different |= (addresses[i] ^ addresses[first]) & on;
  }
  if (different == 0) return kUniform;
  const uint32_t run = mask >> first;
  return apart == 0 && (run & (run + 1)) == 0 ? kConsecutive : kScattered;
}

template <typename T>
inline T Read(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

template <Space space, typename T, int n>
void Load(Machine& m, const Instruction& in) {
  constexpr uint32_t kBytes = sizeof(T) * n;
  uint64_t addresses[kLanes];
  Addresses(m, in, addresses);
  const uint32_t* d = n == 1 ? &in.d : &m.program->operands[in.more];
  const auto take = [&](int lane, const uint8_t* p) {
    for (int k = 0; k < n; ++k) {
      if (n > 1 && d[k] == kNoRegister) continue;
      Lanes<T>(m, d[k])[lane] = ToWord<T>(Read<T>(p + k * sizeof(T)));
    }
  };
  if constexpr (space == kGlobal || space == kGeneric) {
    const int first = __builtin_ctz(m.mask);
    const Pattern pattern = PatternOf(addresses, m.mask, kBytes);
    const uint32_t lanes = __builtin_popcount(m.mask);
    m.counts.bytes_read += uint64_t{kBytes} * (pattern == kUniform ? 1 : lanes);
    if (pattern != kScattered && addresses[first] % kBytes == 0 &&
        (space == kGlobal || !(addresses[first] & kTagMask))) {
      const uint8_t* p = m.memory->At(*m.actor, m.device, addresses[first],
                                      pattern == kUniform ? kBytes : kBytes * lanes, Access::kRead);
      if (p && pattern == kUniform) {
        for (int k = 0; k < n; ++k) {
          if (n > 1 && d[k] == kNoRegister) continue;
          const T value = Read<T>(p + k * sizeof(T));
          Put<T>(m, d[k], [value](int) { return value; });
        }
        return;
      }
      if (p && m.mask == kAllLanes) {
        for (int k = 0; k < n; ++k) {
          if (n > 1 && d[k] == kNoRegister) continue;
          Word<T>* to = Lanes<T>(m, d[k]);
          for (int i = 0; i < kLanes; ++i) {
            to[i] = ToWord<T>(Read<T>(p + (i * n + k) * sizeof(T)));
          }
        }
        return;
      }
      if (p) {
        p -= uint64_t{kBytes} * first;
        ForEachLane(m.mask, [&](int lane) { take(lane, p + uint64_t{kBytes} * lane); });
        return;
      }
      // Some lane's access is wrong: find which.
    }
  }
  for (uint32_t mask = m.mask; mask; mask &= mask - 1) {
    const int lane = __builtin_ctz(mask);
    const uint8_t* p = At<space, kBytes, Access::kRead>(m, lane, addresses[lane]);
    if (!p) return;
    take(lane, p);
  }
}

template <Space space, typename T, int n>
void Store(Machine& m, const Instruction& in) {
  constexpr uint32_t kBytes = sizeof(T) * n;
  uint64_t addresses[kLanes];
  Addresses(m, in, addresses);
  const uint32_t* s = n == 1 ? &in.s[2] : &m.program->operands[in.more];
  const auto give = [&](int lane, uint8_t* p) {
    for (int k = 0; k < n; ++k) {
      const T value = static_cast<T>(Lanes<T>(m, s[k])[lane]);
      std::memcpy(p + k * sizeof(T), &value, sizeof(T));
    }
  };
  if constexpr (space == kGlobal || space == kGeneric) {
    const int first = __builtin_ctz(m.mask);
    const uint32_t lanes = __builtin_popcount(m.mask);
    m.counts.bytes_written += uint64_t{kBytes} * lanes;
    if (PatternOf(addresses, m.mask, kBytes) == kConsecutive && addresses[first] % kBytes == 0 &&
        (space == kGlobal || !(addresses[first] & kTagMask))) {
      uint8_t* p =
          m.memory->At(*m.actor, m.device, addresses[first], kBytes * lanes, Access::kWrite);
      if (p && m.mask == kAllLanes) {
        T values[kLanes * n];
        for (int k = 0; k < n; ++k) {
          const Word<T>* from = Lanes<T>(m, s[k]);
          for (int i = 0; i < kLanes; ++i) values[i * n + k] = static_cast<T>(from[i]);
        }
        std::memcpy(p, values, sizeof(values));
        return;
      }
      if (p) {
        p -= uint64_t{kBytes} * first;
        ForEachLane(m.mask, [&](int lane) { give(lane, p + uint64_t{kBytes} * lane); });
        return;
      }
    }
  }
  for (uint32_t mask = m.mask; mask; mask &= mask - 1) {
    const int lane = __builtin_ctz(mask);
    uint8_t* p = At<space, kBytes, Access::kWrite>(m, lane, addresses[lane]);
    if (!p) return;
    give(lane, p);
  }
}

// -- atomics --

struct AddTo {
  template <typename T>
  static T Of(T old, T b, T) {
    if constexpr (std::is_integral_v<T>) {
      return old + b;
    } else {
      return FromFloat<T>(ToFloat(old) + ToFloat(b));
    }
  }
  static double Of(double old, double b, double) { return old + b; }
};
struct AddPairTo {
  template <typename T>
  static uint32_t Of(uint32_t old, uint32_t b) {
    uint32_t sum = 0;
    for (int shift = 0; shift < 32; shift += 16) {
      const float x = ToFloat(T{static_cast<uint16_t>(old >> shift)});
      const float y = ToFloat(T{static_cast<uint16_t>(b >> shift)});
      sum |= uint32_t{FromFloat<T>(x + y).bits} << shift;
    }
    return sum;
  }
};
struct AddHalfPair {
  static uint32_t Of(uint32_t old, uint32_t b, uint32_t) { return AddPairTo::Of<Half>(old, b); }
};
struct AddBfloatPair {
  static uint32_t Of(uint32_t old, uint32_t b, uint32_t) { return AddPairTo::Of<Bfloat>(old, b); }
};
struct Least {
  template <typename T>
  static T Of(T old, T b, T) {
    return b < old ? b : old;
  }
};
struct Greatest {
  template <typename T>
  static T Of(T old, T b, T) {
    return old < b ? b : old;
  }
};
struct And {
  template <typename T>
  static T Of(T old, T b, T) {
    return old & b;
  }
};
struct Or {
  template <typename T>
  static T Of(T old, T b, T) {
    return old | b;
  }
};
struct Xor {
  template <typename T>
  static T Of(T old, T b, T) {
    return old ^ b;
  }
};
struct Exchange {
  template <typename T>
  static T Of(T, T b, T) {
    return b;
  }
};
struct CompareAndSwap {
  template <typename T>
  static T Of(T old, T b, T c) {
    return old == b ? c : old;
  }
};
struct Increment {
  template <typename T>
  static T Of(T old, T b, T) {
    return old >= b ? 0 : old + 1;
  }
};
struct Decrement {
  template <typename T>
  static T Of(T old, T b, T) {
    return old == 0 || old > b ? b : old - 1;
  }
};

template <Space space, typename F, typename T>
void Atomic(Machine& m, const Instruction& in) {
  uint64_t addresses[kLanes];
  Addresses(m, in, addresses);
  const Word<T>*b = Lanes<T>(m, in.s[2]), *c = Lanes<T>(m, in.s[3]);
  for (uint32_t mask = m.mask; mask; mask &= mask - 1) {
    const int lane = __builtin_ctz(mask);
    uint8_t* p = At<space, sizeof(T), Access::kAtomic>(m, lane, addresses[lane]);
    if (!p) return;
    const T old = Read<T>(p);
    const T now = F::Of(old, FromWord<T>(b[lane]), FromWord<T>(c[lane]));
    std::memcpy(p, &now, sizeof(T));
    if (in.d != kNoRegister) Lanes<T>(m, in.d)[lane] = ToWord<T>(old);
  }
  if (space != kShared) {
    const uint64_t bytes = sizeof(T) * __builtin_popcount(m.mask);
    m.counts.bytes_read += bytes;
    m.counts.bytes_written += bytes;
  }
}

using Handlers = std::unordered_map<std::string, Handler>;

template <Space space, typename T>
void AddElements(Handlers& h, const std::string& prefix, const std::string& suffix) {
  h[prefix + "ld." + suffix + ".1"] = &Load<space, T, 1>;
  h[prefix + "ld." + suffix + ".2"] = &Load<space, T, 2>;
  h[prefix + "ld." + suffix + ".4"] = &Load<space, T, 4>;
  h[prefix + "st." + suffix + ".1"] = &Store<space, T, 1>;
  h[prefix + "st." + suffix + ".2"] = &Store<space, T, 2>;
  h[prefix + "st." + suffix + ".4"] = &Store<space, T, 4>;
  if constexpr (sizeof(T) == 4 && (space == kGlobal || space == kGeneric)) {
    h[prefix + "ld." + suffix + ".8"] = &Load<space, T, 8>;
    h[prefix + "st." + suffix + ".8"] = &Store<space, T, 8>;
  }
}

template <Space space>
void AddAtomics(Handlers& h, const std::string& prefix) {
  const auto integers = [&](auto sample, const char* type) {
    using T = decltype(sample);
    const std::string end = std::string(".") + type;
    h[prefix + "add" + end] = &Atomic<space, AddTo, T>;
    h[prefix + "min" + end] = &Atomic<space, Least, T>;
    h[prefix + "max" + end] = &Atomic<space, Greatest, T>;
    if constexpr (std::is_unsigned_v<T>) {
      h[prefix + "inc" + end] = &Atomic<space, Increment, T>;
      h[prefix + "dec" + end] = &Atomic<space, Decrement, T>;
    }
  };
  integers(int32_t{}, "s32");
  integers(uint32_t{}, "u32");
  integers(int64_t{}, "s64");
  integers(uint64_t{}, "u64");
  const auto bits = [&](auto sample, const char* type) {
    using T = decltype(sample);
    const std::string end = std::string(".") + type;
    h[prefix + "and" + end] = &Atomic<space, And, T>;
    h[prefix + "or" + end] = &Atomic<space, Or, T>;
    h[prefix + "xor" + end] = &Atomic<space, Xor, T>;
    h[prefix + "exch" + end] = &Atomic<space, Exchange, T>;
    h[prefix + "cas" + end] = &Atomic<space, CompareAndSwap, T>;
  };
  bits(uint16_t{}, "b16");
  bits(uint32_t{}, "b32");
  bits(uint64_t{}, "b64");
  h[prefix + "add.f32"] = &Atomic<space, AddTo, float>;
  h[prefix + "add.f64"] = &Atomic<space, AddTo, double>;
  h[prefix + "add.f16"] = &Atomic<space, AddTo, Half>;
  h[prefix + "add.bf16"] = &Atomic<space, AddTo, Bfloat>;
  h[prefix + "add.f16x2"] = &Atomic<space, AddHalfPair, uint32_t>;
  h[prefix + "add.bf16x2"] = &Atomic<space, AddBfloatPair, uint32_t>;
}

template <Space space>
void AddSpace(Handlers& h, const std::string& name) {
  const std::string prefix = name + ".";
  AddElements<space, uint8_t>(h, prefix, "u8");
  AddElements<space, int8_t>(h, prefix, "s8");
  AddElements<space, uint16_t>(h, prefix, "u16");
  AddElements<space, int16_t>(h, prefix, "s16");
  AddElements<space, uint32_t>(h, prefix, "4");
  AddElements<space, uint64_t>(h, prefix, "8");
}

const Handlers& Table() {
  static const Handlers* const table = [] {
    auto* h = new Handlers;
    AddSpace<kGlobal>(*h, "global");
    AddSpace<kShared>(*h, "shared");
    AddSpace<kLocal>(*h, "local");
    AddSpace<kParam>(*h, "param");
    AddSpace<kGeneric>(*h, "generic");
    AddAtomics<kGlobal>(*h, "atom.global.");
    AddAtomics<kShared>(*h, "atom.shared.");
    AddAtomics<kGeneric>(*h, "atom.generic.");
    return h;
  }();
  return *table;
}

Handler Find(const std::string& key) {
  const auto it = Table().find(key);
  return it == Table().end() ? nullptr : it->second;
}

std::string Element(std::string_view type) {
  const std::string_view size =
      type.substr(std::min(type.find_first_of("0123456789"), type.size()));
  if (size == "64") return "8";
  if (size == "32" || size == "16x2") return "4";
  if (size == "16") return type[0] == 's' ? "s16" : "u16";
  if (size == "8") return type[0] == 's' ? "s8" : "u8";
  return std::string(type);
}

}  // namespace

Handler FindLoad(std::string_view space, std::string_view type, int elements) {
  return Find(std::string(space) + ".ld." + Element(type) + "." + std::to_string(elements));
}

Handler FindStore(std::string_view space, std::string_view type, int elements) {
  return Find(std::string(space) + ".st." + Element(type) + "." + std::to_string(elements));
}

Handler FindAtomic(std::string_view space, std::string_view operation, std::string_view type) {
  std::string t(type);
  // Operations on bits take any type.
  if (operation != "add" && operation != "min" && operation != "max" && operation != "inc" &&
      operation != "dec" && !t.empty()) {
    t[0] = 'b';
  }
  return Find("atom." + std::string(space) + "." + std::string(operation) + "." + t);
}

const uint8_t* ReadGeneric(Machine& m, int lane, uint64_t address, uint32_t bytes) {
  return bytes == 8   ? At<kGeneric, 8, Access::kRead>(m, lane, address)
         : bytes == 4 ? At<kGeneric, 4, Access::kRead>(m, lane, address)
                      : At<kGeneric, 1, Access::kRead>(m, lane, address);
}

}  // namespace softgpu
