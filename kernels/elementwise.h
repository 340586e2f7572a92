// Element-wise kernels. An op gives one loop over plain arrays for each element type; all the rest
// (shapes, broadcasting, threads, working in place, 16-bit floats, registration) is here, compiled
// once.
//
//   struct SquareF {
//     template <typename T> static T Apply(T x) { return x * x; }
//   };
//   static const bool square = RegisterUnary<SquareF>(NumberTypes(), "Square");
//
// Loops of half and bfloat16 are those of float: blocks of elements are widened, computed, and
// rounded once.
#ifndef FERRY_KERNELS_ELEMENTWISE_H_
#define FERRY_KERNELS_ELEMENTWISE_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>

#include "kernels/types.h"
#include "runtime/op/kernel.h"

namespace ferry {

// Elements that make a block of work: `kCheap` where memory is the limit, `kCostly` for functions
// that take some ten cycles an element or more.
inline constexpr int64_t kCheapGrain = 32768;
inline constexpr int64_t kCostlyGrain = 4096;

// Tells the compiler that iterations are independent although the output may be an input's memory:
// an element is read before it is written, and no other iteration touches it.
#define FERRY_INDEPENDENT _Pragma("GCC ivdep")

// Signed integers wrap around as TensorFlow's do; C++ leaves that undefined, so they are computed
// as unsigned ones, of no less than 32 bits (smaller ones would be promoted to int).
template <typename T>
struct WrapType {
  using type = T;
};
#define FERRY_WRAP_TYPE(T, U) \
  template <>                 \
  struct WrapType<T> {        \
    using type = U;           \
  }
FERRY_WRAP_TYPE(int8_t, uint32_t);
FERRY_WRAP_TYPE(int16_t, uint32_t);
FERRY_WRAP_TYPE(int32_t, uint32_t);
FERRY_WRAP_TYPE(int64_t, uint64_t);
FERRY_WRAP_TYPE(uint8_t, uint32_t);
FERRY_WRAP_TYPE(uint16_t, uint32_t);
#undef FERRY_WRAP_TYPE
template <typename T>
using Wrap = typename WrapType<T>::type;

// ---- Conversions of 16-bit floats, `n` elements. `narrow` is kHalf or kBfloat16. ----

inline constexpr bool IsNarrow(DType t) { return t == DType::kHalf || t == DType::kBfloat16; }
void Widen(DType narrow, const void* from, float* to, int64_t n);
void Narrow(DType narrow, const float* from, void* to, int64_t n);

// ---- One input ----

struct UnaryFn {
  // y[i] = f(x[i]); y may be x. For narrow types x, and y unless `out` is another type, are float.
  void (*loop)(const void* x, void* y, int64_t n);
  DType in, out;
  int64_t grain;
};
// Registers a CPU kernel for type attribute `attr` = fn.in ("": the op has none).
void RegisterUnaryFn(const std::string& op, const UnaryFn& fn, const std::string& attr = "T");

template <typename F, typename In, typename Out>
void UnaryLoop(const void* xv, void* yv, int64_t n) {
  const In* x = static_cast<const In*>(xv);
  Out* y = static_cast<Out*>(yv);
  FERRY_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<Out>(F::Apply(x[i]));
}

// F::Apply(T) -> T, a few operations that the compiler can vectorise.
template <typename F, typename... Ts>
bool RegisterUnary(Types<Ts...>, const char* op, int64_t grain = kCheapGrain) {
  (RegisterUnaryFn(
       op, {&UnaryLoop<F, Wide<Ts>, Wide<Ts>>, DTypeOf<Ts>::value, DTypeOf<Ts>::value, grain}),
   ...);
  return true;
}

// F::Apply(T) -> bool.
template <typename F, typename... Ts>
bool RegisterPredicate(Types<Ts...>, const char* op) {
  (RegisterUnaryFn(op,
                   {&UnaryLoop<F, Wide<Ts>, bool>, DTypeOf<Ts>::value, DType::kBool, kCheapGrain}),
   ...);
  return true;
}

// As many elements as Eigen computes at once. Functions such as exp are applied to whole packs,
// the last one filled up, so that an element's result doesn't depend on its place.
template <typename T>
using Pack = Eigen::Array<T, Eigen::internal::packet_traits<T>::size, 1>;

template <typename F, typename T>
void PackLoop(const void* xv, void* yv, int64_t n) {
  constexpr int kSize = Pack<T>::SizeAtCompileTime;
  const T* x = static_cast<const T*>(xv);
  T* y = static_cast<T*>(yv);
  int64_t i = 0;
  for (; i + kSize <= n; i += kSize) {
    const Pack<T> in = Eigen::Map<const Pack<T>>(x + i);
    Eigen::Map<Pack<T>>(y + i, kSize) = F::Apply(in);
  }
  if (i < n) {
    Pack<T> in = Pack<T>::Ones();
    std::copy_n(x + i, n - i, in.data());
    const Pack<T> out = F::Apply(in);
    std::copy_n(out.data(), n - i, y + i);
  }
}

// Eigen's exp stops short of 0 for arguments far below: where the result would be subnormal, this
// gives 0.
template <typename P>
P PackExp(const P& x) {
  using T = typename P::Scalar;
  const T least = sizeof(T) == 4 ? T(-87.33654) : T(-708.3964185322641);
  const P y = x.exp();
  return (x < least).select(P::Zero(), y);
}

// F::Apply(Pack<T>) -> Pack<T>, written with Eigen's array functions.
template <typename F, typename... Ts>
bool RegisterPacked(Types<Ts...>, const char* op) {
  (RegisterUnaryFn(op,
                   {&PackLoop<F, Wide<Ts>>, DTypeOf<Ts>::value, DTypeOf<Ts>::value, kCostlyGrain}),
   ...);
  return true;
}

// ---- Two inputs ----

enum class BinaryShapes {
  kBroadcast,
  kSame,      // The shapes must be equal: gradients of activations.
  kMayMisfit  // The attribute incompatible_shape_error says what happens if they don't fit.
};

struct BinaryFn {
  // z[i] = f(x[i * x_step], y[i * y_step]); each step is 0 or 1; z may be x or y where the step is
  // 1. For narrow types x and y, and z unless `out` is another type, are float. False when an
  // element had no result: the kernel then fails with InvalidArgument(error).
  bool (*loop)(const void* x, int x_step, const void* y, int y_step, void* z, int64_t n);
  DType in, out;
  int64_t grain;
  const char* error = nullptr;
  BinaryShapes shapes = BinaryShapes::kBroadcast;
  // With kMayMisfit: the result, one scalar, for shapes that don't fit and needn't.
  bool misfit = false;
};
void RegisterBinaryFn(const std::string& op, const BinaryFn& fn, const std::string& attr = "T");

template <typename F, typename In, typename Out>
bool BinaryLoop(const void* xv, int x_step, const void* yv, int y_step, void* zv, int64_t n) {
  const In* x = static_cast<const In*>(xv);
  const In* y = static_cast<const In*>(yv);
  Out* z = static_cast<Out*>(zv);
  if (x_step == 0) {
    const In a = *x;
    if (y_step == 0) {
      const In b = *y;
      for (int64_t i = 0; i < n; ++i) z[i] = static_cast<Out>(F::Apply(a, b));
    } else {
      FERRY_INDEPENDENT
      for (int64_t i = 0; i < n; ++i) z[i] = static_cast<Out>(F::Apply(a, y[i]));
    }
  } else if (y_step == 0) {
    const In b = *y;
    FERRY_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) z[i] = static_cast<Out>(F::Apply(x[i], b));
  } else {
    FERRY_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) z[i] = static_cast<Out>(F::Apply(x[i], y[i]));
  }
  return true;
}

// For functions that lack a result for some elements: F::Valid(x, y) tells.
template <typename F, typename T>
bool CheckedLoop(const void* xv, int x_step, const void* yv, int y_step, void* zv, int64_t n) {
  const T* x = static_cast<const T*>(xv);
  const T* y = static_cast<const T*>(yv);
  T* z = static_cast<T*>(zv);
  for (int64_t i = 0; i < n; ++i) {
    const T a = x[i * x_step], b = y[i * y_step];
    if (!F::Valid(a, b)) return false;
    z[i] = F::Apply(a, b);
  }
  return true;
}

// F::Apply(T, T) -> T.
template <typename F, typename... Ts>
bool RegisterBinary(Types<Ts...>, const char* op, int64_t grain = kCheapGrain,
                    BinaryShapes shapes = BinaryShapes::kBroadcast) {
  (RegisterBinaryFn(op, {&BinaryLoop<F, Wide<Ts>, Wide<Ts>>, DTypeOf<Ts>::value, DTypeOf<Ts>::value,
                         grain, nullptr, shapes}),
   ...);
  return true;
}

// F::Apply(T, T) -> T and F::Valid(T, T) -> bool.
template <typename F, typename... Ts>
bool RegisterChecked(Types<Ts...>, const char* op, const char* error) {
  (RegisterBinaryFn(
       op, {&CheckedLoop<F, Ts>, DTypeOf<Ts>::value, DTypeOf<Ts>::value, kCostlyGrain, error}),
   ...);
  return true;
}

// F::Apply(T, T) -> bool. `shapes` and `misfit` as in BinaryFn.
template <typename F, typename... Ts>
bool RegisterCompare(Types<Ts...>, const char* op, BinaryShapes shapes = BinaryShapes::kBroadcast,
                     bool misfit = false) {
  (RegisterBinaryFn(op, {&BinaryLoop<F, Wide<Ts>, bool>, DTypeOf<Ts>::value, DType::kBool,
                         kCheapGrain, nullptr, shapes, misfit}),
   ...);
  return true;
}

}  // namespace ferry

#endif  // FERRY_KERNELS_ELEMENTWISE_H_
