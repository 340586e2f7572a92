// Turns a kernel's PTX into a Program. Calls are inlined, so that a program is one list of
// instructions, and lanes that have diverged meet again by their place in it.
#ifndef FERRY_TESTS_SOFTGPU_DECODER_H_
#define FERRY_TESTS_SOFTGPU_DECODER_H_

#include <string>
#include <string_view>

#include "tests/softgpu/executor.h"
#include "tests/softgpu/program.h"
#include "tests/softgpu/ptx.h"

namespace softgpu {

// False and `error` (with the line) where the kernel uses what the executor does not know.
bool DecodeKernel(std::string_view text, const PtxFile& file, const Function& function,
                  Kernel* kernel, std::string* error);

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_DECODER_H_
