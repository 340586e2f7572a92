// What a test asks of the software GPU that it runs on, if it does.
//
//   ASSERT_OK(…set up…);
//   softgpu::Set("FAULT", "call:" + std::to_string(n));
//   …
//   EXPECT_EQ(softgpu::Get("leaks"), "");
//
// Link //tests/softgpu:control into tests of CUDA code; on a real GPU Present() is false and the
// others do nothing.
#ifndef FERRY_TESTS_SOFTGPU_CONTROL_H_
#define FERRY_TESTS_SOFTGPU_CONTROL_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace softgpu {

// Whether the CUDA library that this process loaded is the software GPU.
bool Present();

// Changes a setting of settings.h for what follows: ORDER, FAULT (counted from now), ON_REPORT,
// BUDGET, MODEL, TIMELINE. REPORTS with any value forgets the reports so far. "" or, when it can't
// be, why.
std::string Set(const std::string& name, const std::string& value);

// calls      calls of CUDA functions since FAULT was last set, failed ones too
// works      pieces of work queued since then
// strikes    how often a fault of FAULT struck
// leaks      a line for everything that isn't released
// reports    what checks found, a line each (ON_REPORT=error)
// time       simulated microseconds until the last work that ran
// host_time  this thread's simulated clock
// pending    operations that wait
// "" on a real GPU.
std::string Get(const std::string& name);

// For programs that hand out device memory themselves; see docs/software-gpu.md. In the order of
// the stream: the block at `pointer`, which cudaMalloc gave, was handed out anew for `used` bytes
// (they are uninitialised again), or let go if `used` is 0. False where no such block begins there,
// and on a real GPU. A program without this header finds it by dlsym as
//   int __cudaSoftgpuNarrow(void* pointer, size_t used, cudaStream_t stream);
bool Narrow(void* pointer, size_t used, void* stream);

// Lets this thread's simulated clock go on, as if it had worked so long on the host; for the
// timeline, which otherwise takes the host's own work for nothing.
void SpendHostTime(const std::string& name, double microseconds, uint64_t bytes = 0);

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_CONTROL_H_
