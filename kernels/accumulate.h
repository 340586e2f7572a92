// Adding to and subtracting from elements in place: what AssignAdd and ScatterAdd do.
#ifndef FERRY_KERNELS_ACCUMULATE_H_
#define FERRY_KERNELS_ACCUMULATE_H_

#include <cstdint>
#include <type_traits>

namespace ferry {

// What arithmetic is done in: integers wrap around, so they are added unsigned.
template <typename T, bool = std::is_integral_v<T>>
struct Wrapping {
  using type = T;
};
template <typename T>
struct Wrapping<T, true> {
  using type = std::make_unsigned_t<T>;
};

template <typename T, int kSign>
void Accumulate(T* to, const T* from, int64_t n) {
  using W = typename Wrapping<T>::type;
  for (int64_t i = 0; i < n; ++i) {
    const W a = static_cast<W>(to[i]), b = static_cast<W>(from[i]);
    to[i] = static_cast<T>(kSign > 0 ? static_cast<W>(a + b) : static_cast<W>(a - b));
  }
}

}  // namespace ferry

#endif  // FERRY_KERNELS_ACCUMULATE_H_
