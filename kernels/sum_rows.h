// Sums of rows by index, on a GPU, for ScatterNd and UnsortedSegmentSum.
#ifndef FERRY_KERNELS_SUM_ROWS_H_
#define FERRY_KERNELS_SUM_ROWS_H_

#include "kernels/gpu_array.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"

namespace ferry {

inline gpu::NdIndices IndicesOf(const Tensor& indices, int64_t n, int64_t depth,
                                const int64_t* dims) {
  return {indices.raw(), indices.dtype(), n, depth, dims};
}

// Adds the rows of `data`, of `inner` elements each, to those of `out`, which is zeros.
inline absl::Status SumRowsOnGpu(KernelContext* c, const gpu::NdIndices& indices,
                                 const Tensor& data, int64_t inner, int64_t rows, Tensor* out) {
  return gpu::LaunchOnGpu(c, [&](gpu::Call* call) {
    return gpu::Array().sum_rows(call, data.dtype(), indices, data.raw(), inner, rows, out->raw());
  });
}

// Registers K<T> on the CPU and on GPUs for every T of the list.
template <template <typename> class K, typename... Ts>
bool RegisterForBoth(Types<Ts...>, const char* op, const char* host_memory) {
  (
      [&] {
        for (const DeviceType device : {DeviceType::kCpu, DeviceType::kGpu}) {
          const KernelBuilder::Registrar registrar(KernelBuilder(op)
                                                       .Device(device)
                                                       .template Type<Ts>("T")
                                                       .HostMemory(host_memory)
                                                       .template Make<K<Ts>>());
        }
      }(),
      ...);
  return true;
}

}  // namespace ferry

#endif  // FERRY_KERNELS_SUM_ROWS_H_
