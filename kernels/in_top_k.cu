// InTopK and InTopKV2 on a GPU.
#include "kernels/gpu_checks.h"
#include "kernels/gpu_group.cuh"

namespace ferry {
namespace gpu {
namespace {

struct SumF {
  __device__ int64_t operator()(int64_t x, int64_t y) const { return x + y; }
};

// A row that is false whatever k is counts as if all were above its target.
template <typename Target>
__global__ void __launch_bounds__(kThreads)
    InTopKKernel(const float* predictions, const Target* targets, int64_t k, bool* out,
                 int64_t rows, int64_t classes, int lanes) {
  constexpr int64_t kNever = int64_t{1} << 40;
  __shared__ Shared<int64_t> shared;
  const Group g(lanes);
  for (int64_t r = g.FirstRow(); r < g.Rows(rows); r += g.RowStep()) {
    int64_t above = 0;
    if (r < rows) {
      const float* const row = predictions + r * classes;
      const int64_t target = targets[r];
      if (target < 0 || target >= classes) {
        above = kNever;
      } else {
        const float own = row[target];
        for (int64_t j = g.lane; j < classes; j += g.lanes) {
          above += isfinite(row[j]) ? row[j] > own : kNever;
        }
      }
    }
    above = g.Combine(above, SumF(), &shared);
    if (r < rows && g.lane == 0) out[r] = above < kNever && above < k;
  }
}

class InTopK : public Kernel {
  bool Init(Setup* setup) override {
    return setup->op() == "InTopKV2" || setup->Attr("k", &k_) ||
           setup->Fail(Error::kInvalidArgument, "the attribute k is missing");
  }
  bool Run(Call* c) const override {
    int64_t k = k_;
    if (c->num_inputs() == 3 && !c->HostInt(2, &k)) return false;
    if (!CheckInTopK(c)) return false;
    const Input predictions = c->input(0), targets = c->input(1);
    bool* const out = static_cast<bool*>(c->OutputLike(0, 1));
    if (!out) return false;
    const int64_t rows = targets.elements, classes = predictions.dims[1];
    if (rows == 0) return true;
    const int lanes = GroupLanes(classes);
    const unsigned blocks = GroupBlocks(c, rows, lanes);
    if (targets.dtype == DType::kInt32) {
      InTopKKernel<<<blocks, kThreads, 0, Stream(c)>>>(
          predictions.as<float>(), targets.as<int32_t>(), k, out, rows, classes, lanes);
    } else {
      InTopKKernel<<<blocks, kThreads, 0, Stream(c)>>>(
          predictions.as<float>(), targets.as<int64_t>(), k, out, rows, classes, lanes);
    }
    return c->Launched("InTopKKernel");
  }
  int64_t k_ = 0;
};

[[maybe_unused]] const bool registered =
    Register({"InTopK", {}, {}, {}, true, &MakeKernel<InTopK>}) &&
    Register({"InTopKV2", {}, {"k"}, {}, true, &MakeKernel<InTopK>});

}  // namespace
}  // namespace gpu
}  // namespace ferry
