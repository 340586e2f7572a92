// Kernels that only move elements need to know their size, not their type: one instantiation a
// size instead of one a dtype.
#ifndef FERRY_KERNELS_STORAGE_H_
#define FERRY_KERNELS_STORAGE_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/types.h"

namespace ferry {

// Calls fn(S()) with S = uint8_t, uint16_t, uint32_t, uint64_t or std::string: what holds an
// element of `dtype`, which is a number, bool or string.
template <typename Fn>
void WithStorage(DType dtype, Fn fn) {
  if (dtype == DType::kString) {
    fn(std::string());
    return;
  }
  switch (ElementSize(dtype)) {
    case 1:
      return fn(uint8_t());
    case 2:
      return fn(uint16_t());
    case 4:
      return fn(uint32_t());
    default:
      return fn(uint64_t());
  }
}

// Registers K<S> on the CPU for all numbers, bool and string under the type attribute T.
template <template <typename> class K>
bool RegisterByStorage(const std::string& op, std::initializer_list<int> in_place = {}) {
  for (DType t : {DType::kHalf, DType::kBfloat16, DType::kFloat, DType::kDouble, DType::kInt8,
                  DType::kInt16, DType::kInt32, DType::kInt64, DType::kUint8, DType::kUint16,
                  DType::kUint32, DType::kUint64, DType::kBool, DType::kString}) {
    KernelBuilder b(op);
    b.Device(DeviceType::kCpu).Type("T", {t});
    for (int i : in_place) b.InPlace(i);
    WithStorage(t, [&](auto s) { b.template Make<K<decltype(s)>>(); });
    KernelBuilder::Registrar registrar(b);
    (void)registrar;
  }
  return true;
}

}  // namespace ferry

#endif  // FERRY_KERNELS_STORAGE_H_
