// Integer and bitwise operations.
#include <algorithm>
#include <limits>
#include <tuple>

#include "tests/softgpu/program.h"

namespace softgpu {
namespace {

template <typename T>
using Unsigned = std::make_unsigned_t<T>;
template <typename T>
using Wide = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;
template <typename T>
constexpr int kBits = sizeof(T) * 8;

// Arithmetic wraps; it is done in unsigned (and no less than 32 bits wide).
template <typename T>
T Add(T a, T b) {
  return static_cast<T>(uint64_t(a) + uint64_t(b));
}
template <typename T>
T Subtract(T a, T b) {
  return static_cast<T>(uint64_t(a) - uint64_t(b));
}
template <typename T>
T Multiply(T a, T b) {
  if constexpr (sizeof(T) == 8) return static_cast<T>(uint64_t(a) * uint64_t(b));
  return static_cast<T>(uint32_t(a) * uint32_t(b));
}
template <typename T>
T MultiplyHigh(T a, T b) {
  return static_cast<T>((Wide<T>(a) * Wide<T>(b)) >> kBits<T>);
}
template <typename T>
Wide<T> MultiplyWide(T a, T b) {
  return Wide<T>(a) * Wide<T>(b);
}
template <typename T>
T MultiplyAdd(T a, T b, T c) {
  return Add<T>(Multiply<T>(a, b), c);
}
template <typename T>
T MultiplyHighAdd(T a, T b, T c) {
  return Add<T>(MultiplyHigh<T>(a, b), c);
}
template <typename T>
Wide<T> MultiplyWideAdd(T a, T b, Wide<T> c) {
  return static_cast<Wide<T>>(uint64_t(Wide<T>(a) * Wide<T>(b)) + uint64_t(c));
}
// Division by zero gives all ones, as GPUs do.
template <typename T>
T Divide(T a, T b) {
  if (b == 0) return static_cast<T>(~T{0});
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Subtract<T>(0, a);
  return a / b;
}
template <typename T>
T Remainder(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
  return a % b;
}
template <typename T>
T Least(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T Greatest(T a, T b) {
  return a < b ? b : a;
}
template <typename T>
T Negate(T a) {
  return Subtract<T>(0, a);
}
template <typename T>
T Absolute(T a) {
  return a < 0 ? Subtract<T>(0, a) : a;
}
template <typename T>
T AddSaturated(T a, T b) {
  const int64_t sum = int64_t{a} + b;
  return static_cast<T>(std::min<int64_t>(std::max<int64_t>(sum, INT32_MIN), INT32_MAX));
}
template <typename T>
T SubtractSaturated(T a, T b) {
  const int64_t difference = int64_t{a} - b;
  return static_cast<T>(std::min<int64_t>(std::max<int64_t>(difference, INT32_MIN), INT32_MAX));
}
template <typename T>
T SumOfDifference(T a, T b, T c) {
  return Add<T>(c, a < b ? Subtract(b, a) : Subtract(a, b));
}

template <typename T>
T And(T a, T b) {
  return a & b;
}
template <typename T>
T Or(T a, T b) {
  return a | b;
}
template <typename T>
T Xor(T a, T b) {
  return a ^ b;
}
template <typename T>
T Not(T a) {
  return static_cast<T>(~a);
}
template <typename T>
T LogicalNot(T a) {
  return a == 0;
}
template <typename T>
T ShiftLeft(T a, uint32_t n) {
  return n < uint32_t{kBits<T>} ? static_cast<T>(Unsigned<T>(a) << n) : T{0};
}
template <typename T>
T ShiftRight(T a, uint32_t n) {
  if (std::is_signed_v<T>) return static_cast<T>(a >> std::min<uint32_t>(n, kBits<T> - 1));
  return n < uint32_t{kBits<T>} ? static_cast<T>(a >> n) : T{0};
}
uint32_t FunnelLeft(uint32_t a, uint32_t b, uint32_t n) {
  return static_cast<uint32_t>(((uint64_t{b} << 32 | a) << (n & 31)) >> 32);
}
uint32_t FunnelLeftClamped(uint32_t a, uint32_t b, uint32_t n) {
  return n >= 32 ? a : FunnelLeft(a, b, n);
}
uint32_t FunnelRight(uint32_t a, uint32_t b, uint32_t n) {
  return static_cast<uint32_t>((uint64_t{b} << 32 | a) >> (n & 31));
}
uint32_t FunnelRightClamped(uint32_t a, uint32_t b, uint32_t n) {
  return n >= 32 ? b : FunnelRight(a, b, n);
}

template <typename T>
uint32_t CountOnes(T a) {
  return __builtin_popcountll(a);
}
uint32_t LeadingZeros32(uint32_t a) { return a ? __builtin_clz(a) : 32; }
uint32_t LeadingZeros64(uint64_t a) { return a ? __builtin_clzll(a) : 64; }
template <typename T>
T Reverse(T a) {
  T r = 0;
  for (int i = 0; i < kBits<T>; ++i) r |= (a >> i & 1) << (kBits<T> - 1 - i);
  return r;
}
// The place of the highest bit that differs from the sign; all ones where there is none.
template <typename T>
uint32_t FindHighest(T a) {
  uint64_t bits = static_cast<Unsigned<T>>(std::is_signed_v<T> && a < 0 ? ~a : a);
  return bits ? 63 - __builtin_clzll(bits) : ~0u;
}
template <typename T>
uint32_t FindHighestShift(T a) {
  const uint32_t at = FindHighest<T>(a);
  return at == ~0u ? at : kBits<T> - 1 - at;
}
template <typename T>
T Extract(T a, uint32_t from, uint32_t length) {
  from &= 0xff;
  length &= 0xff;
  if (length == 0) return 0;
  const uint32_t top = std::min<uint32_t>(from + length - 1, kBits<T> - 1);
  const bool sign = std::is_signed_v<T> && (static_cast<Unsigned<T>>(a) >> top & 1);
  Unsigned<T> bits = from < uint32_t{kBits<T>} ? static_cast<Unsigned<T>>(a) >> from : 0;
  if (length < uint32_t{kBits<T>}) {
    const Unsigned<T> low = (Unsigned<T>{1} << length) - 1;
    // Where the field reaches beyond the top, the sign fills it.
    const uint32_t there = from < uint32_t{kBits<T>} ? kBits<T> - from : 0;
    bits &= low;
    if (sign)
      bits |= there < length ? (there ? ~((Unsigned<T>{1} << there) - 1) : ~Unsigned<T>{0}) : ~low;
  } else if (sign && from > 0) {
    bits |= from < uint32_t{kBits<T>} ? ~(~Unsigned<T>{0} >> from) : ~Unsigned<T>{0};
  }
  return static_cast<T>(bits);
}
template <typename T>
T Insert(T field, T into, uint32_t at, uint32_t length) {
  at &= 0xff;
  length &= 0xff;
  if (at >= uint32_t{kBits<T>} || length == 0) return into;
  const T low = length >= uint32_t{kBits<T>} ? ~T{0} : (T{1} << length) - 1;
  const T mask = low << at;
  return (into & ~mask) | (field << at & mask);
}
uint32_t Permute(uint32_t a, uint32_t b, uint32_t control) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t choice = control >> (4 * i);
    uint32_t byte = bytes >> (8 * (choice & 7)) & 0xff;
    if (choice & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << (8 * i);
  }
  return result;
}
uint32_t Logic3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t result = 0;
  for (int i = 0; i < 8; ++i) {
    const uint32_t term = (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    result |= table >> i & 1 ? term : 0;
  }
  return result;
}
template <typename A, typename B>
uint32_t Dot4(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 4; ++i) {
    c += static_cast<uint32_t>(int32_t{static_cast<A>(a >> (8 * i))} *
                               int32_t{static_cast<B>(b >> (8 * i))});
  }
  return c;
}
uint32_t SelectBySign(uint32_t a, uint32_t b, int32_t c) { return c >= 0 ? a : b; }
uint64_t SelectBySign8(uint64_t a, uint64_t b, int32_t c) { return c >= 0 ? a : b; }
uint32_t Copy4(uint32_t a) { return a; }
uint64_t Copy8(uint64_t a) { return a; }
uint32_t Narrow(uint64_t a) { return static_cast<uint32_t>(a); }
uint64_t WidenUnsigned(uint32_t a) { return a; }
int64_t WidenSigned(int32_t a) { return a; }
uint64_t AddAddress(uint64_t a, uint64_t tag) { return a + tag; }

// Sums with a carry flag for each lane. `kIn` takes the flag, `kOut` sets it.
template <typename T, bool kSubtract, bool kMultiply, bool kHigh, bool kIn, bool kOut>
void Carry(Machine& m, const Instruction& in) {
  const auto *a = Lanes<T>(m, in.s[0]), *b = Lanes<T>(m, in.s[1]);
  const auto* c = Lanes<T>(m, in.s[2]);
  auto* d = Lanes<T>(m, in.d);
  uint32_t& flags = Mask(m, kCarry);
  ForEachLane(m.mask, [&](int i) {
    T x = a[i], y = b[i];
    if (kMultiply) {
      x = kHigh ? MultiplyHigh<T>(x, y) : Multiply<T>(x, y);
      y = c[i];
    }
    const T carry = kIn ? flags >> i & 1 : 0;
    bool out;
    if (kSubtract) {
      out = x < y || (x == y && carry);
      d[i] = x - y - carry;
    } else {
      d[i] = x + y + carry;
      out = d[i] < x || (d[i] == x && carry && y);
      out = out || (carry && y == static_cast<T>(~T{0}));
    }
    if (kOut) flags = (flags & ~(1u << i)) | uint32_t{out} << i;
  });
}

template <typename T>
void AddCarries(OperationTable& t, const std::string& w, const std::string& type) {
  const std::string three = w + w + w, four = three + w;
  t["add.cc." + type] = {&Carry<T, false, false, false, false, true>, three};
  t["addc." + type] = {&Carry<T, false, false, false, true, false>, three};
  t["addc.cc." + type] = {&Carry<T, false, false, false, true, true>, three};
  t["sub.cc." + type] = {&Carry<T, true, false, false, false, true>, three};
  t["subc." + type] = {&Carry<T, true, false, false, true, false>, three};
  t["subc.cc." + type] = {&Carry<T, true, false, false, true, true>, three};
  t["mad.lo.cc." + type] = {&Carry<T, false, true, false, false, true>, four};
  t["madc.lo." + type] = {&Carry<T, false, true, false, true, false>, four};
  t["madc.lo.cc." + type] = {&Carry<T, false, true, false, true, true>, four};
  t["mad.hi.cc." + type] = {&Carry<T, false, true, true, false, true>, four};
  t["madc.hi." + type] = {&Carry<T, false, true, true, true, false>, four};
  t["madc.hi.cc." + type] = {&Carry<T, false, true, true, true, true>, four};
}

template <typename T>
void AddArithmetic(OperationTable& t, const std::string& type) {
  t["add." + type] = Each<&Add<T>>();
  t["sub." + type] = Each<&Subtract<T>>();
  t["mul.lo." + type] = Each<&Multiply<T>>();
  t["mul.hi." + type] = Each<&MultiplyHigh<T>>();
  t["mad.lo." + type] = Each<&MultiplyAdd<T>>();
  t["mad.hi." + type] = Each<&MultiplyHighAdd<T>>();
  if constexpr (sizeof(T) < 8) {
    t["mul.wide." + type] = Each<&MultiplyWide<T>>();
    t["mad.wide." + type] = Each<&MultiplyWideAdd<T>>();
  }
  t["div." + type] = Each<&Divide<T>>();
  t["rem." + type] = Each<&Remainder<T>>();
  t["min." + type] = Each<&Least<T>>();
  t["max." + type] = Each<&Greatest<T>>();
  t["sad." + type] = Each<&SumOfDifference<T>>();
  t["shr." + type] = Each<&ShiftRight<T>>();
  if constexpr (std::is_signed_v<T>) {
    t["neg." + type] = Each<&Negate<T>>();
    t["abs." + type] = Each<&Absolute<T>>();
  }
  if constexpr (sizeof(T) > 2) {
    t["bfe." + type] = Each<&Extract<T>>();
    t["bfind." + type] = Each<&FindHighest<T>>();
    t["bfind.shiftamt." + type] = Each<&FindHighestShift<T>>();
  }
}

template <typename T>
void AddBits(OperationTable& t, const std::string& type) {
  t["and." + type] = Each<&And<T>>();
  t["or." + type] = Each<&Or<T>>();
  t["xor." + type] = Each<&Xor<T>>();
  t["not." + type] = Each<&Not<T>>();
  t["cnot." + type] = Each<&LogicalNot<T>>();
  t["shl." + type] = Each<&ShiftLeft<T>>();
  t["shr." + type] = Each<&ShiftRight<T>>();
  if constexpr (sizeof(T) > 2) {
    t["popc." + type] = Each<&CountOnes<T>>();
    t["brev." + type] = Each<&Reverse<T>>();
    t["bfi." + type] = Each<&Insert<T>>();
  }
}

}  // namespace

void AddIntegerOperations(OperationTable* table) {
  OperationTable& t = *table;
  AddArithmetic<int16_t>(t, "s16");
  AddArithmetic<uint16_t>(t, "u16");
  AddArithmetic<int32_t>(t, "s32");
  AddArithmetic<uint32_t>(t, "u32");
  AddArithmetic<int64_t>(t, "s64");
  AddArithmetic<uint64_t>(t, "u64");
  AddBits<uint16_t>(t, "b16");
  AddBits<uint32_t>(t, "b32");
  AddBits<uint64_t>(t, "b64");
  for (const char* type : {"u32", "s32", "b32"}) AddCarries<uint32_t>(t, "4", type);
  for (const char* type : {"u64", "s64", "b64"}) AddCarries<uint64_t>(t, "8", type);
  t["add.sat.s32"] = Each<&AddSaturated<int32_t>>();
  t["sub.sat.s32"] = Each<&SubtractSaturated<int32_t>>();
  t["clz.b32"] = Each<&LeadingZeros32>();
  t["clz.b64"] = Each<&LeadingZeros64>();
  t["shf.l.wrap.b32"] = Each<&FunnelLeft>();
  t["shf.l.clamp.b32"] = Each<&FunnelLeftClamped>();
  t["shf.r.wrap.b32"] = Each<&FunnelRight>();
  t["shf.r.clamp.b32"] = Each<&FunnelRightClamped>();
  t["prmt.b32"] = Each<&Permute>();
  t["lop3.b32"] = Each<&Logic3>();
  t["dp4a.s32.s32"] = Each<&Dot4<int8_t, int8_t>>();
  t["dp4a.s32.u32"] = Each<&Dot4<int8_t, uint8_t>>();
  t["dp4a.u32.s32"] = Each<&Dot4<uint8_t, int8_t>>();
  t["dp4a.u32.u32"] = Each<&Dot4<uint8_t, uint8_t>>();
  for (const char* type : {"b32", "u32", "s32", "f32"}) {
    t[std::string("slct.") + type + ".s32"] = Each<&SelectBySign>();
  }
  for (const char* type : {"b64", "u64", "s64", "f64"}) {
    t[std::string("slct.") + type + ".s32"] = Each<&SelectBySign8>();
  }
  // Copies, under names of their own where PTX's don't tell the lanes' widths.
  t["copy.4"] = Each<&Copy4>();
  t["copy.8"] = Each<&Copy8>();
  t["narrow"] = Each<&Narrow>();
  t["widen.u"] = Each<&WidenUnsigned>();
  t["widen.s"] = Each<&WidenSigned>();
  t["add.address"] = Each<&AddAddress>();
}

void MovePredicate(Machine& m, const Instruction& in) {
  uint32_t& d = Mask(m, in.d);
  d = (d & ~m.mask) | (Mask(m, in.s[0]) & m.mask);
}

void CombinePredicates(Machine& m, const Instruction& in) {
  const uint32_t a = Mask(m, in.s[0]), b = Mask(m, in.s[1]);
  const uint32_t result = in.count == '&'   ? a & b
                          : in.count == '|' ? a | b
                          : in.count == '^' ? a ^ b
                                            : ~a;
  uint32_t& d = Mask(m, in.d);
  d = (d & ~m.mask) | (result & m.mask);
}

void Select4(Machine& m, const Instruction& in) {
  const uint32_t *a = Lanes<uint32_t>(m, in.s[0]), *b = Lanes<uint32_t>(m, in.s[1]);
  const uint32_t p = Mask(m, in.s[2]);
  Put<uint32_t>(m, in.d, [=](int i) { return p >> i & 1 ? a[i] : b[i]; });
}

void Select8(Machine& m, const Instruction& in) {
  const uint64_t *a = Lanes<uint64_t>(m, in.s[0]), *b = Lanes<uint64_t>(m, in.s[1]);
  const uint32_t p = Mask(m, in.s[2]);
  Put<uint64_t>(m, in.d, [=](int i) { return p >> i & 1 ? a[i] : b[i]; });
}

void Pack(Machine& m, const Instruction& in) {
  const uint32_t* operands = &m.program->operands[in.more];
  const int bits = static_cast<int>(in.immediate) * 8;
  const uint64_t low = bits == 32 ? 0xffffffff : (uint64_t{1} << bits) - 1;
  ForEachLane(m.mask, [&](int i) {
    uint64_t value = 0;
    for (uint32_t k = 0; k < in.count; ++k) {
      value |= (Lanes<uint32_t>(m, operands[k])[i] & low) << (bits * k);
    }
    if (bits * in.count > 32) {
      Lanes<uint64_t>(m, in.d)[i] = value;
    } else {
      Lanes<uint32_t>(m, in.d)[i] = static_cast<uint32_t>(value);
    }
  });
}

void Unpack(Machine& m, const Instruction& in) {
  const uint32_t* operands = &m.program->operands[in.more];
  const int bits = static_cast<int>(in.immediate) * 8;
  const uint64_t low = bits == 32 ? 0xffffffff : (uint64_t{1} << bits) - 1;
  ForEachLane(m.mask, [&](int i) {
    const uint64_t value =
        bits * in.count > 32 ? Lanes<uint64_t>(m, in.s[0])[i] : Lanes<uint32_t>(m, in.s[0])[i];
    for (uint32_t k = 0; k < in.count; ++k) {
      if (operands[k] == kNoRegister) continue;
      Lanes<uint32_t>(m, operands[k])[i] = static_cast<uint32_t>(value >> (bits * k) & low);
    }
  });
}

}  // namespace softgpu
