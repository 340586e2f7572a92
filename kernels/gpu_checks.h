// Checks of arguments that the GPU kernels in .cu files share with the CPU kernels of the same ops:
// declared in plain types for nvcc, defined in the ops' .cc files. Each returns false with the
// error noted with the call, in the CPU kernel's words, and sees shapes alone, never elements that
// lie in the device's memory.
#ifndef FERRY_KERNELS_GPU_CHECKS_H_
#define FERRY_KERNELS_GPU_CHECKS_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/gpu.h"
#include "kernels/window.h"

namespace ferry {
namespace gpu {

// ---- matmul.cc ----

// The product of inputs 0 and 1, m x k and k x n matrices or batches of them.
struct ProductSizes {
  int64_t m = 0, n = 0, k = 0;
  std::vector<int64_t> out;  // The output's shape.
};
bool CheckMatMul(Call* c, bool transpose_a, bool transpose_b, ProductSizes* out);
// `broadcasts`: whether the batches may have different shapes.
bool CheckBatchMatMul(Call* c, bool transpose_a, bool transpose_b, bool broadcasts,
                      ProductSizes* out);

// ---- conv.cc ----

enum class ConvOp { kForward, kInput, kFilter };  // Conv2D, Conv2DBackpropInput, …Filter.
bool CheckConvAttrs(Setup* setup, ConvOp op, const WindowAttrs& attrs);
// `shape`: the output's. The sizes that an input tells must lie in host memory.
bool CheckConv(Call* c, ConvOp op, const WindowAttrs& attrs, ConvSizes* out,
               std::vector<int64_t>* shape);

// ---- pool.cc ----

enum class PoolOp { kMax, kMaxGrad, kMaxGradGrad, kAvg, kAvgGrad };
bool CheckPoolAttrs(Setup* setup, PoolOp op, const WindowAttrs& attrs);
// `shape`: the output's. `v2`: the windows are the last two inputs, in host memory.
bool CheckPool(Call* c, PoolOp op, bool v2, const WindowAttrs& attrs, PoolSizes* out,
               std::vector<int64_t>* shape);

// ---- batch_norm.cc ----

// x as [outer, channels, inner]. `gradient`: of the gradient op's arguments.
struct NormSizes {
  int64_t outer = 1, channels = 0, inner = 1;
};
bool CheckBatchNorm(Call* c, bool gradient, const std::string& data_format, bool is_training,
                    float exponential_avg_factor, NormSizes* out);

// ---- lrn.cc ----

bool CheckLrn(Call* c, bool gradient);

// ---- arg_reduce.cc ----

// Of the dimension that is searched, and of those before and after it.
struct ArgSizes {
  int64_t before = 1, reduced = 0, after = 1;
  std::vector<int64_t> out;
};
bool CheckArgReduce(Call* c, ArgSizes* out);

// ---- softmax.cc ----

bool CheckSoftmax(Call* c);
// The shape that logits and labels are broadcast to.
bool CheckCrossEntropy(Call* c, int64_t* rows, int64_t* columns);
bool CheckSparseCrossEntropy(Call* c);

// ---- in_top_k.cc ----

bool CheckInTopK(Call* c);

// ---- apply.cc ----

// Of an optimizer's op with inputs of these names: the first `refs` are the variable and its slots,
// number `grad` is the gradient, the others are scalars. `sparse`: the gradient is rows, and their
// indices are one more input behind it.
bool CheckApply(Call* c, const char* const* names, int count, int refs, int grad, bool sparse);

// ---- variable.cc ----

bool CheckAccumulate(Call* c);

// ---- random.cc ----

// Device memory of one kernel's own, for as long as the kernel lives: zeros at first, then what the
// kernel's work leaves there. Thread-safe.
class KeptMemory {
 public:
  // The same address at each call. Null after an error.
  void* Get(Call* c, int64_t bytes) const;

 private:
  mutable std::mutex mu_;  // .cu files see no header of the runtime's.
  mutable std::shared_ptr<void> owner_;
  mutable void* data_ = nullptr;
};

// Output 0, of the shape that input 0 says. Null after an error.
void* RandomOutput(Call* c, int64_t* elements);
// Of RandomUniformInt, whose bounds lie in host memory: that they are scalars; and, if anything is
// drawn, that there is a number between them.
bool CheckRandomBounds(Call* c);
bool CheckRandomRange(Call* c, int64_t low, int64_t high);

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_CHECKS_H_
