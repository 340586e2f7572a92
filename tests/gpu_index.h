// Kernels' arithmetic on indices, by itself: it is exercised beyond 2^31 without tensors of that
// size.
#ifndef FERRY_TESTS_GPU_INDEX_H_
#define FERRY_TESTS_GPU_INDEX_H_

#include <cstdint>
#include <string>
#include <vector>

namespace ferry::testing {

// Where gpu::Locate finds the elements of two operands with shape `dims` and these strides for each
// element of the output in `elements`: two numbers each. With 64-bit indices if `wide`. "" or what
// went wrong.
std::string LocateOnGpu(const std::vector<int64_t>& dims, const std::vector<int64_t>& x_strides,
                        const std::vector<int64_t>& y_strides, bool wide,
                        const std::vector<int64_t>& elements, std::vector<int64_t>* at);

}  // namespace ferry::testing

#endif  // FERRY_TESTS_GPU_INDEX_H_
