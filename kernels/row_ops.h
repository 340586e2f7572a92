// Work on rows that indices name, on a GPU, for the ops that have one class for both devices:
// Scatter…, ScatterNd…, UnsortedSegment…, Segment… and their like.
#ifndef FERRY_KERNELS_ROW_OPS_H_
#define FERRY_KERNELS_ROW_OPS_H_

#include <initializer_list>
#include <string>
#include <type_traits>

#include "kernels/accumulate.h"
#include "kernels/gpu_array.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"

namespace ferry {

inline gpu::NdIndices IndicesOf(const Tensor& indices, int64_t n, int64_t depth,
                                const int64_t* dims) {
  return {indices.raw(), indices.dtype(), n, depth, dims};
}

// What accumulate::F is called there.
template <typename F>
constexpr gpu::RowOp RowOpOf() {
  if (std::is_same_v<F, accumulate::Add>) return gpu::RowOp::kAdd;
  if (std::is_same_v<F, accumulate::Sub>) return gpu::RowOp::kSub;
  if (std::is_same_v<F, accumulate::Mul>) return gpu::RowOp::kMul;
  if (std::is_same_v<F, accumulate::Div>) return gpu::RowOp::kDiv;
  if (std::is_same_v<F, accumulate::Min>) return gpu::RowOp::kMin;
  if (std::is_same_v<F, accumulate::Max>) return gpu::RowOp::kMax;
  return gpu::RowOp::kReplace;
}

// Rows of `to`, of which there are `rows`, are combined with those of `updates` as gpu::CombineRows
// says.
inline absl::Status CombineRowsOnGpu(KernelContext* c, gpu::RowOp op, const gpu::NdIndices& indices,
                                     const Tensor& updates, bool scalar, int64_t rows, Tensor* to) {
  if (to->num_elements() == 0) return absl::OkStatus();
  return gpu::LaunchOnGpu(c, [&](gpu::Call* call) {
    return gpu::Array().combine_rows(
        call, {op, to->dtype(), static_cast<int>(ElementSize(to->dtype())), indices, updates.raw(),
               scalar, rows, to->num_elements() / rows, to->raw()});
  });
}

// `out`, of `rows` rows, is made of those of `data` as gpu::ReduceRows says.
inline absl::Status ReduceRowsOnGpu(KernelContext* c, gpu::RowOp op, const gpu::NdIndices& indices,
                                    const Tensor& data, int64_t rows, Tensor* out) {
  if (out->num_elements() == 0) return absl::OkStatus();
  gpu::ReduceRows r = {op, data.dtype(), data.raw(), rows, out->num_elements() / rows, out->raw()};
  r.from_limits = true;
  return gpu::LaunchOnGpu(
      c, [&](gpu::Call* call) { return gpu::Array().reduce_rows(call, r, indices); });
}

// As RegisterCpu, on GPUs.
template <template <typename> class K, typename... Ts>
bool RegisterGpu(Types<Ts...>, const std::string& op, const std::string& attr = "T",
                 std::initializer_list<int> in_place = {},
                 std::initializer_list<const char*> host_memory = {}, bool replayable = true) {
  (
      [&] {
        KernelBuilder b(op);
        b.Device(DeviceType::kGpu).template Type<Ts>(attr);
        if (!replayable) b.NotReplayable();
        for (int i : in_place) b.InPlace(i);
        for (const char* arg : host_memory) b.HostMemory(arg);
        b.template Make<K<Ts>>();
        const KernelBuilder::Registrar registrar(b);
      }(),
      ...);
  return true;
}
template <template <typename> class K, typename... Ts>
bool RegisterForBoth(Types<Ts...> types, const std::string& op, const std::string& attr = "T",
                     std::initializer_list<int> in_place = {},
                     std::initializer_list<const char*> host_memory = {}) {
  return RegisterCpu<K>(types, op, attr, in_place, host_memory) &&
         RegisterGpu<K>(types, op, attr, in_place, host_memory);
}

}  // namespace ferry

#endif  // FERRY_KERNELS_ROW_OPS_H_
