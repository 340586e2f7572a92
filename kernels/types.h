// What the kernels' files share: Eigen's 16-bit floats as element types, lists of element types,
// and the registration of one kernel template for each type of a list.
#ifndef FERRY_KERNELS_TYPES_H_
#define FERRY_KERNELS_TYPES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "Eigen/Core"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/tensor/dtype.h"

namespace ferry {

using half = Eigen::half;
using bfloat16 = Eigen::bfloat16;

template <>
struct DTypeOf<half> {
  static constexpr DType value = DType::kHalf;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType value = DType::kBfloat16;
};

template <typename... Ts>
struct Types {};
template <typename A, typename B>
struct JoinTypes;
template <typename... As, typename... Bs>
struct JoinTypes<Types<As...>, Types<Bs...>> {
  using type = Types<As..., Bs...>;
};
template <typename A, typename B>
using Join = typename JoinTypes<A, B>::type;

using FloatTypes = Types<half, bfloat16, float, double>;
using SignedTypes = Types<int8_t, int16_t, int32_t, int64_t>;
using UnsignedTypes = Types<uint8_t, uint16_t, uint32_t, uint64_t>;
using IntTypes = Join<SignedTypes, UnsignedTypes>;
using NumberTypes = Join<FloatTypes, IntTypes>;

// What may lie in a GPU's memory.
inline const std::vector<DType> kGpuTypes = {
    DType::kHalf,  DType::kBfloat16, DType::kFloat,  DType::kDouble, DType::kInt8,  DType::kInt16,
    DType::kInt32, DType::kInt64,    DType::kUint8,  DType::kUint16, DType::kUint32, DType::kUint64,
    DType::kBool};

// Registers K<T> on the CPU for every T of the list, under the type attribute `attr`:
//   static const bool registered =
//       RegisterCpu<ReluKernel>(NumberTypes(), "Relu", "T", /*in_place=*/{0});
template <template <typename> class K, typename... Ts>
bool RegisterCpu(Types<Ts...>, const std::string& op, const std::string& attr = "T",
                 std::initializer_list<int> in_place = {},
                 std::initializer_list<const char*> host_memory = {}) {
  (
      [&] {
        KernelBuilder b(op);
        b.Device(DeviceType::kCpu).template Type<Ts>(attr);
        for (int i : in_place) b.InPlace(i);
        for (const char* arg : host_memory) b.HostMemory(arg);
        b.template Make<K<Ts>>();
        KernelBuilder::Registrar registrar(b);
        (void)registrar;
      }(),
      ...);
  return true;
}

// What kernels compute in where elements are of type T: 16-bit floats widen.
template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, half> || std::is_same_v<T, bfloat16>, float, T>;

// A column of elements as an Eigen array, wherever they lie.
template <typename T>
using ConstArray = Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>>;
template <typename T>
using MutableArray = Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>>;

}  // namespace ferry

#endif  // FERRY_KERNELS_TYPES_H_
