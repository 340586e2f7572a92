// Reads the PTX out of the fat binaries that nvcc embeds in programs.
//
// What is registered is a wrapper that points to a container; a container is a header and entries,
// one an architecture and kind (PTX or machine code), each plain or compressed.
#ifndef FERRY_TESTS_SOFTGPU_FATBIN_H_
#define FERRY_TESTS_SOFTGPU_FATBIN_H_

#include <string>

namespace softgpu {

// The PTX text of the newest architecture in the fat binary behind `wrapper`, which is what
// __cudaRegisterFatBinary gets. False with a message in `error` when it has no PTX or isn't
// understood. `arch` gets 75, 90, ….
bool ReadPtx(const void* wrapper, std::string* ptx, int* arch, std::string* error);

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_FATBIN_H_
