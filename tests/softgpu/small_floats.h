// half and bfloat16: 16 bits each, with arithmetic done in float or double and rounded once.
#ifndef FERRY_TESTS_SOFTGPU_SMALL_FLOATS_H_
#define FERRY_TESTS_SOFTGPU_SMALL_FLOATS_H_

#include <cmath>
#include <cstdint>
#include <cstring>

namespace softgpu {

template <typename To, typename From>
inline To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

// The float nearest to `value`, but never rounded onto an even last bit: a second rounding of it to
// fewer bits is as if there had been only one.
inline float RoundToOdd(double value) {
  float f = static_cast<float>(value);
  if (static_cast<double>(f) == value || value != value || std::isinf(f)) return f;
  uint32_t bits = BitCast<uint32_t>(f);
  if (std::fabs(static_cast<double>(f)) > std::fabs(value)) --bits;
  return BitCast<float>(bits | 1);
}

inline float ToFloat(float x) { return x; }
inline double ToFloat(double x) { return x; }
inline float ToFloat(Half h) {
  const uint32_t magnitude = uint32_t{h.bits & 0x7fffu} << 13;
  const float scaled = BitCast<float>(magnitude) * 0x1p112f;
  uint32_t bits = BitCast<uint32_t>(scaled);
  bits |= magnitude >= 0x0f800000 ? 0x7f800000 : 0;
  return BitCast<float>(bits | (uint32_t{h.bits} & 0x8000) << 16);
}
inline float ToFloat(Bfloat b) { return BitCast<float>(uint32_t{b.bits} << 16); }

template <typename T>
T FromFloat(float x);
template <>
inline float FromFloat<float>(float x) {
  return x;
}
template <>
inline double FromFloat<double>(float x) {
  return x;
}
template <>
inline Half FromFloat<Half>(float x) {
  const uint32_t all = BitCast<uint32_t>(x);
  const uint32_t magnitude = all & 0x7fffffff;
  const uint32_t normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // Adding 0.5 puts the last place of a subnormal half at the float's own.
  const uint32_t subnormal = BitCast<uint32_t>(BitCast<float>(magnitude) + 0.5f) - 0x3f000000;
  uint32_t bits = magnitude < 0x38800000 ? subnormal : normal;
  bits = magnitude >= 0x477ff000 ? 0x7c00 : bits;
  bits = magnitude > 0x7f800000 ? 0x7fff : bits | (all >> 16 & 0x8000);
  return {static_cast<uint16_t>(bits)};
}
template <>
inline Bfloat FromFloat<Bfloat>(float x) {
  const uint32_t all = BitCast<uint32_t>(x);
  const uint32_t bits = (all + 0x7fff + (all >> 16 & 1)) >> 16;
  return {static_cast<uint16_t>((all & 0x7fffffff) > 0x7f800000 ? 0x7fff : bits)};
}

// What results of several operations are computed in.
template <typename T>
inline T FromDouble(double x) {
  return FromFloat<T>(RoundToOdd(x));
}
template <>
inline float FromDouble<float>(double x) {
  return static_cast<float>(x);
}
template <>
inline double FromDouble<double>(double x) {
  return x;
}

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_SMALL_FLOATS_H_
