// What the ops that combine elements in place do to one: AssignAdd, ScatterMul and their like.
#ifndef FERRY_KERNELS_ACCUMULATE_H_
#define FERRY_KERNELS_ACCUMULATE_H_

#include <cstdint>
#include <string>
#include <type_traits>

namespace ferry {
namespace accumulate {

// Integers wrap around.
struct Add {
  template <typename T>
  static T Apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    } else {
      return static_cast<T>(a + b);
    }
  }
};
struct Sub {
  template <typename T>
  static T Apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
    } else {
      return static_cast<T>(a - b);
    }
  }
};
struct Mul {
  template <typename T>
  static T Apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    } else {
      return static_cast<T>(a * b);
    }
  }
};
// REQUIRES of integers: b isn't 0.
struct Div {
  template <typename T>
  static T Apply(T a, T b) {
    if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
      if (b == T(-1)) return Sub::Apply(T(0), a);  // The smallest number has no opposite.
    }
    return static_cast<T>(a / b);
  }
};
struct Min {
  template <typename T>
  static T Apply(T a, T b) {
    return b < a ? b : a;
  }
};
struct Max {
  template <typename T>
  static T Apply(T a, T b) {
    return a < b ? b : a;
  }
};
struct Replace {
  template <typename T>
  static const T& Apply(const T&, const T& b) {
    return b;
  }
};

// to[i] = F(to[i], from[i])
template <typename F, typename T>
void Run(T* to, const T* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = F::template Apply<T>(to[i], from[i]);
}

}  // namespace accumulate
}  // namespace ferry

#endif  // FERRY_KERNELS_ACCUMULATE_H_
