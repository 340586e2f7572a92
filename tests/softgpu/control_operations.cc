// Comparisons, branches, barriers, exchanges within a warp, and the calls that devices know.
#include <algorithm>
#include <cstdio>
#include <tuple>

#include "tests/softgpu/program.h"
#include "tests/softgpu/small_floats.h"

namespace softgpu {
namespace {

// -- setp --

template <typename T>
auto Comparable(T a) {
  if constexpr (std::is_integral_v<T>) {
    return a;
  } else {
    return ToFloat(a);
  }
}

struct Equal {
  template <typename T>
  static bool Of(T a, T b) {
    return a == b;
  }
};
struct NotEqual {
  template <typename T>
  static bool Of(T a, T b) {
    return a < b || a > b;
  }
};
struct Less {
  template <typename T>
  static bool Of(T a, T b) {
    return a < b;
  }
};
struct LessEqual {
  template <typename T>
  static bool Of(T a, T b) {
    return a <= b;
  }
};
struct Greater {
  template <typename T>
  static bool Of(T a, T b) {
    return a > b;
  }
};
struct GreaterEqual {
  template <typename T>
  static bool Of(T a, T b) {
    return a >= b;
  }
};
struct Number {
  template <typename T>
  static bool Of(T a, T b) {
    return a == a && b == b;
  }
};
// The unordered forms: true as well where one is a NaN.
template <typename F>
struct Not {
  template <typename T>
  static bool Of(T a, T b) {
    return !F::Of(a, b);
  }
};

// d and the optional `more` (the opposite), combined by `count` with predicate s[2] (flipped by
// immediate).
template <typename F, typename T>
void Compare(Machine& m, const Instruction& in) {
  const Word<T>*a = Lanes<T>(m, in.s[0]), *b = Lanes<T>(m, in.s[1]);
  uint32_t result = 0;
  for (int i = 0; i < kLanes; ++i) {
    const bool is = F::Of(Comparable(FromWord<T>(a[i])), Comparable(FromWord<T>(b[i])));
    result |= static_cast<uint32_t>(is) << i;
  }
  uint32_t opposite = ~result;
  if (in.count) {
    const uint32_t c = Mask(m, in.s[2]) ^ static_cast<uint32_t>(in.immediate);
    const auto combine = [&](uint32_t x) {
      return in.count == '&' ? x & c : in.count == '|' ? x | c : x ^ c;
    };
    result = combine(result);
    opposite = combine(opposite);
  }
  if (in.d != kNoRegister) {
    uint32_t& d = Mask(m, in.d);
    d = (d & ~m.mask) | (result & m.mask);
  }
  if (in.more != kNoRegister) {
    uint32_t& q = Mask(m, in.more);
    q = (q & ~m.mask) | (opposite & m.mask);
  }
}

// Each half of d is all ones where the comparison of that half holds.
template <typename F, typename T>
void ComparePairs(Machine& m, const Instruction& in) {
  const uint32_t *a = Lanes<uint32_t>(m, in.s[0]), *b = Lanes<uint32_t>(m, in.s[1]);
  const auto half = [](uint32_t both, int shift) {
    return ToFloat(T{static_cast<uint16_t>(both >> shift)});
  };
  Put<uint32_t>(m, in.d, [=](int i) {
    return (F::Of(half(a[i], 0), half(b[i], 0)) ? 0xffffu : 0) |
           (F::Of(half(a[i], 16), half(b[i], 16)) ? 0xffff0000u : 0);
  });
}

using Handlers = std::unordered_map<std::string, Handler>;

template <template <typename, typename> class Runner, typename T>
void AddFloatCompares(Handlers& h, const std::string& type) {
  h["eq." + type] = &Runner<Equal, T>::Run;
  h["lt." + type] = &Runner<Less, T>::Run;
  h["le." + type] = &Runner<LessEqual, T>::Run;
  h["gt." + type] = &Runner<Greater, T>::Run;
  h["ge." + type] = &Runner<GreaterEqual, T>::Run;
  h["ne." + type] = &Runner<NotEqual, T>::Run;
  h["neu." + type] = &Runner<Not<Equal>, T>::Run;
  h["equ." + type] = &Runner<Not<NotEqual>, T>::Run;
  h["ltu." + type] = &Runner<Not<GreaterEqual>, T>::Run;
  h["leu." + type] = &Runner<Not<Greater>, T>::Run;
  h["gtu." + type] = &Runner<Not<LessEqual>, T>::Run;
  h["geu." + type] = &Runner<Not<Less>, T>::Run;
  h["num." + type] = &Runner<Number, T>::Run;
  h["nan." + type] = &Runner<Not<Number>, T>::Run;
}
template <typename F, typename T>
struct One {
  static void Run(Machine& m, const Instruction& in) { Compare<F, T>(m, in); }
};
template <typename F, typename T>
struct Pairs {
  static void Run(Machine& m, const Instruction& in) { ComparePairs<F, T>(m, in); }
};

template <typename T>
void AddCompares(Handlers& h, const std::string& type) {
  h["eq." + type] = &Compare<Equal, T>;
  h["lt." + type] = &Compare<Less, T>;
  h["le." + type] = &Compare<LessEqual, T>;
  h["gt." + type] = &Compare<Greater, T>;
  h["ge." + type] = &Compare<GreaterEqual, T>;
  h["ne." + type] = &Compare<Not<Equal>, T>;
  h["lo." + type] = &Compare<Less, T>;
  h["ls." + type] = &Compare<LessEqual, T>;
  h["hi." + type] = &Compare<Greater, T>;
  h["hs." + type] = &Compare<GreaterEqual, T>;
}

// -- .sync instructions --

// Whether all lanes that the executing lanes' member masks (s[3]) name are here; parks otherwise.
bool Together(Machine& m, const Instruction& in) {
  const uint32_t* members = Lanes<uint32_t>(m, in.s[3]);
  uint32_t missing = 0;
  int outside = -1;
  ForEachLane(m.mask, [&](int i) {
    missing |= members[i] & m.alive & ~m.mask;
    if (!(members[i] >> i & 1)) outside = i;
  });
  if (outside >= 0) {
    m.Fail(Report::kBarrier, outside, "is not in the member mask of the instruction it executes");
    return false;
  }
  if (missing) m.event = Machine::kPark;
  return !missing;
}

// Calls f(lanes) for each set of executing lanes that have the same member mask.
template <typename F>
void ForEachTeam(Machine& m, const Instruction& in, F f) {
  const uint32_t* members = Lanes<uint32_t>(m, in.s[3]);
  for (uint32_t left = m.mask; left;) {
    const uint32_t mine = members[__builtin_ctz(left)];
    uint32_t team = 0;
    ForEachLane(left, [&](int i) { team |= uint32_t{members[i] == mine} << i; });
    f(team);
    left &= ~team;
  }
}

enum ShuffleMode { kUp, kDown, kButterfly, kIndex };

template <ShuffleMode mode>
void Shuffle(Machine& m, const Instruction& in) {
  if (!Together(m, in)) return;
  const uint32_t *a = Lanes<uint32_t>(m, in.s[0]), *b = Lanes<uint32_t>(m, in.s[1]),
                 *c = Lanes<uint32_t>(m, in.s[2]), *members = Lanes<uint32_t>(m, in.s[3]);
  uint32_t values[kLanes], in_range = 0;
  ForEachLane(m.mask, [&](int lane) {
    const int segment = c[lane] >> 8 & 31, clamp = c[lane] & 31, by = b[lane] & 31;
    const int last = (lane & segment) | (clamp & ~segment);
    int from = mode == kUp          ? lane - by
               : mode == kDown      ? lane + by
               : mode == kButterfly ? lane ^ by
                                    : (lane & segment) | (by & ~segment);
    const bool valid = mode == kUp ? from >= last : from <= last;
    if (!valid) from = lane;
    in_range |= uint32_t{valid} << lane;
    // What a lane that takes no part would give is undefined.
    values[lane] = (m.mask & members[lane]) >> from & 1 ? a[from] : ~0u;
  });
  uint32_t* d = Lanes<uint32_t>(m, in.d);
  ForEachLane(m.mask, [&](int lane) { d[lane] = values[lane]; });
  if (in.more != kNoRegister) {
    uint32_t& p = Mask(m, in.more);
    p = (p & ~m.mask) | (in_range & m.mask);
  }
}

enum VoteMode { kAll, kAny, kUniform, kBallot };

template <VoteMode mode>
void Vote(Machine& m, const Instruction& in) {
  if (!Together(m, in)) return;
  const uint32_t p = Mask(m, in.s[0]) ^ static_cast<uint32_t>(in.immediate);
  uint32_t result = 0;
  ForEachTeam(m, in, [&](uint32_t team) {
    const uint32_t yes = p & team;
    if (mode == kBallot) {
      ForEachLane(team, [&](int i) { Lanes<uint32_t>(m, in.d)[i] = yes; });
    } else if (mode == kAll ? yes == team : mode == kAny ? yes != 0 : yes == 0 || yes == team) {
      result |= team;
    }
  });
  if (mode == kBallot) return;
  uint32_t& d = Mask(m, in.d);
  d = (d & ~m.mask) | (result & m.mask);
}

template <typename T, bool kWhole>
void Match(Machine& m, const Instruction& in) {
  if (!Together(m, in)) return;
  const T* a = Lanes<T>(m, in.s[0]);
  uint32_t result[kLanes], all = 0;
  ForEachTeam(m, in, [&](uint32_t team) {
    ForEachLane(team, [&](int i) {
      uint32_t same = 0;
      ForEachLane(team, [&](int j) { same |= uint32_t{a[i] == a[j]} << j; });
      if (same == team) all |= 1u << i;
      result[i] = kWhole && same != team ? 0 : same;
    });
  });
  ForEachLane(m.mask, [&](int i) {
    if (in.d != kNoRegister) Lanes<uint32_t>(m, in.d)[i] = result[i];
  });
  if (in.more != kNoRegister) {
    uint32_t& p = Mask(m, in.more);
    p = (p & ~m.mask) | (all & m.mask);
  }
}

template <typename T, typename F>
void Reduce(Machine& m, const Instruction& in) {
  if (!Together(m, in)) return;
  const uint32_t* a = Lanes<uint32_t>(m, in.s[0]);
  uint32_t result[kLanes];
  ForEachTeam(m, in, [&](uint32_t team) {
    T total = static_cast<T>(a[__builtin_ctz(team)]);
    ForEachLane(team & (team - 1), [&](int i) { total = F::Of(total, static_cast<T>(a[i])); });
    ForEachLane(team, [&](int i) { result[i] = static_cast<uint32_t>(total); });
  });
  ForEachLane(m.mask, [&](int i) { Lanes<uint32_t>(m, in.d)[i] = result[i]; });
}

struct Sum {
  template <typename T>
  static T Of(T a, T b) {
    return static_cast<T>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  }
};
struct Least {
  template <typename T>
  static T Of(T a, T b) {
    return b < a ? b : a;
  }
};
struct Greatest {
  template <typename T>
  static T Of(T a, T b) {
    return a < b ? b : a;
  }
};
struct And {
  template <typename T>
  static T Of(T a, T b) {
    return a & b;
  }
};
struct Or {
  template <typename T>
  static T Of(T a, T b) {
    return a | b;
  }
};
struct Xor {
  template <typename T>
  static T Of(T a, T b) {
    return a ^ b;
  }
};

void WarpBarrier(Machine& m, const Instruction& in) { Together(m, in); }

void ActiveMask(Machine& m, const Instruction& in) {
  const uint32_t active = m.mask;
  Put<uint32_t>(m, in.d, [active](int) { return active; });
}

// What device code sees as a string.
std::string ReadString(Machine& m, int lane, uint64_t address) {
  std::string text;
  for (;; ++address) {
    const uint8_t* p = ReadGeneric(m, lane, address, 1);
    if (!p || !*p) return text;
    text += static_cast<char>(*p);
  }
}

template <typename T>
T ReadParam(Machine& m, int lane, uint32_t offset) {
  T value;
  std::memcpy(&value, m.local + uint64_t{m.local_bytes} * lane + offset, sizeof(T));
  return value;
}

// printf's rules for where an argument lies and how its conversion is printed.
std::string Format(Machine& m, int lane, const std::string& format, uint64_t arguments) {
  std::string out;
  uint64_t at = 0;
  const auto next = [&](uint32_t bytes) -> uint64_t {
    at = (at + bytes - 1) / bytes * bytes;
    const uint8_t* p = ReadGeneric(m, lane, arguments + at, bytes);
    at += bytes;
    uint64_t value = 0;
    if (p) std::memcpy(&value, p, bytes);
    return value;
  };
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    std::string spec = "%";
    int longs = 0;
    for (++i; i < format.size() &&
              std::string_view("-+ #0123456789.*hlLqjzt").find(format[i]) != std::string_view::npos;
         ++i) {
      const char c = format[i];
      if (c == '*') {
        spec += std::to_string(static_cast<int>(next(4)));
      } else if (c == 'l' || c == 'j' || c == 'z' || c == 't' || c == 'q') {
        ++longs;
      } else if (c != 'h' && c != 'L') {
        spec += c;
      }
    }
    if (i == format.size()) break;
    const char conversion = format[i];
    char text[512];
    if (conversion == '%') {
      out += '%';
      continue;
    } else if (std::string_view("aAeEfFgG").find(conversion) != std::string_view::npos) {
      std::snprintf(text, sizeof(text), (spec + conversion).c_str(), BitCast<double>(next(8)));
    } else if (conversion == 's') {
      out += ReadString(m, lane, next(8));
      continue;
    } else if (conversion == 'p') {
      std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(next(8)));
    } else if (longs || conversion == 'n') {
      std::snprintf(text, sizeof(text), (spec + "ll" + conversion).c_str(), next(8));
    } else {
      std::snprintf(text, sizeof(text), (spec + conversion).c_str(),
                    static_cast<uint32_t>(next(4)));
    }
    out += text;
  }
  return out;
}

}  // namespace

Handler FindCompare(std::string_view comparison, std::string_view type) {
  static const Handlers* const table = [] {
    auto* h = new Handlers;
    AddCompares<int16_t>(*h, "s16");
    AddCompares<uint16_t>(*h, "u16");
    AddCompares<uint16_t>(*h, "b16");
    AddCompares<int32_t>(*h, "s32");
    AddCompares<uint32_t>(*h, "u32");
    AddCompares<uint32_t>(*h, "b32");
    AddCompares<int64_t>(*h, "s64");
    AddCompares<uint64_t>(*h, "u64");
    AddCompares<uint64_t>(*h, "b64");
    AddFloatCompares<One, float>(*h, "f32");
    AddFloatCompares<One, double>(*h, "f64");
    AddFloatCompares<One, Half>(*h, "f16");
    AddFloatCompares<One, Bfloat>(*h, "bf16");
    AddFloatCompares<Pairs, Half>(*h, "f16x2");
    AddFloatCompares<Pairs, Bfloat>(*h, "bf16x2");
    return h;
  }();
  const auto it = table->find(std::string(comparison) + "." + std::string(type));
  return it == table->end() ? nullptr : it->second;
}

Handler FindWarpOperation(std::string_view name) {
  static const Handlers* const table = new Handlers{
      {"shfl.up.b32", &Shuffle<kUp>},
      {"shfl.down.b32", &Shuffle<kDown>},
      {"shfl.bfly.b32", &Shuffle<kButterfly>},
      {"shfl.idx.b32", &Shuffle<kIndex>},
      {"vote.all.pred", &Vote<kAll>},
      {"vote.any.pred", &Vote<kAny>},
      {"vote.uni.pred", &Vote<kUniform>},
      {"vote.ballot.b32", &Vote<kBallot>},
      {"match.any.b32", &Match<uint32_t, false>},
      {"match.any.b64", &Match<uint64_t, false>},
      {"match.all.b32", &Match<uint32_t, true>},
      {"match.all.b64", &Match<uint64_t, true>},
      {"redux.add.s32", &Reduce<int32_t, Sum>},
      {"redux.add.u32", &Reduce<uint32_t, Sum>},
      {"redux.min.s32", &Reduce<int32_t, Least>},
      {"redux.min.u32", &Reduce<uint32_t, Least>},
      {"redux.max.s32", &Reduce<int32_t, Greatest>},
      {"redux.max.u32", &Reduce<uint32_t, Greatest>},
      {"redux.and.b32", &Reduce<uint32_t, And>},
      {"redux.or.b32", &Reduce<uint32_t, Or>},
      {"redux.xor.b32", &Reduce<uint32_t, Xor>},
      {"bar.warp", &WarpBarrier},
      {"activemask.b32", &ActiveMask},
  };
  const auto it = table->find(std::string(name));
  return it == table->end() ? nullptr : it->second;
}

void Branch(Machine& m, const Instruction& in) {
  if (m.mask == m.active) {
    m.pc = static_cast<uint32_t>(in.immediate);
    m.event = Machine::kJump;
  } else {
    m.event = Machine::kSplit;
  }
}

void BranchIndexed(Machine& m, const Instruction& in) {
  const uint32_t* index = Lanes<uint32_t>(m, in.s[0]);
  const uint32_t* targets = &m.program->operands[in.more];
  ForEachLane(m.mask, [&](int i) { m.targets[i] = targets[std::min(index[i], in.count - 1)]; });
  m.event = Machine::kSpread;
}

void Exit(Machine& m, const Instruction&) { m.event = Machine::kExit; }

void Barrier(Machine& m, const Instruction&) { m.event = Machine::kBarrier; }

void Trap(Machine& m, const Instruction&) {
  m.Fail(Report::kAssert, __builtin_ctz(m.mask), "executes a trap");
}

// immediate: where the format's address lies in the local frame; count: the arguments'.
void CallPrintf(Machine& m, const Instruction& in) {
  ForEachLane(m.mask, [&](int lane) {
    const std::string format =
        ReadString(m, lane, ReadParam<uint64_t>(m, lane, static_cast<uint32_t>(in.immediate)));
    const std::string text = Format(m, lane, format, ReadParam<uint64_t>(m, lane, in.count));
    std::fputs(text.c_str(), stdout);
    if (in.d == kNoRegister) return;
    const int32_t length = static_cast<int32_t>(text.size());
    std::memcpy(m.local + uint64_t{m.local_bytes} * lane + in.d, &length, 4);
  });
  std::fflush(stdout);
}

// The operands: where message, file, line and function lie in the local frame.
void CallAssertFail(Machine& m, const Instruction& in) {
  const uint32_t* at = &m.program->operands[in.more];
  const int lane = __builtin_ctz(m.mask);
  const std::string message = ReadString(m, lane, ReadParam<uint64_t>(m, lane, at[0]));
  const std::string file = ReadString(m, lane, ReadParam<uint64_t>(m, lane, at[1]));
  const uint32_t line = ReadParam<uint32_t>(m, lane, at[2]);
  const std::string function = ReadString(m, lane, ReadParam<uint64_t>(m, lane, at[3]));
  m.Fail(Report::kAssert, lane,
         "fails the assertion `" + message + "` at " + file + ":" + std::to_string(line) + " in " +
             function);
}

// isspacep: the tag in immediate.
void IsSpace(Machine& m, const Instruction& in) {
  const uint64_t* a = Lanes<uint64_t>(m, in.s[0]);
  uint32_t result = 0;
  for (int i = 0; i < kLanes; ++i) {
    result |= uint32_t{(a[i] & kTagMask) == static_cast<uint64_t>(in.immediate)} << i;
  }
  uint32_t& d = Mask(m, in.d);
  d = (d & ~m.mask) | (result & m.mask);
}

}  // namespace softgpu
