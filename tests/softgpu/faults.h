// Failures on demand, so that every error path of a program can be walked.
//
// The text is a list, separated by commas, of
//   NAME:N         the N-th call (from 1) of that runtime or cuBLAS function fails: cudaMalloc,
//                  cudaMemcpyAsync, …; a <<<>>> launch counts as cudaLaunchKernel. cudaMalloc and
//                  cudaHostAlloc then say cudaErrorMemoryAllocation, the others cudaErrorUnknown
//   call:N         the N-th call of any function
//   lost:N         the N-th queued piece of work (kernel, copy, fill, cuBLAS call; in the order of
//                  queueing) loses its device instead of running: from then on, every call for the
//                  device says cudaErrorLaunchFailure
//   lost-launch:N  the same, where kernels alone count
// each followed by "+" for all later ones too, and "=NUMBER" for another cudaError_t.
#ifndef FERRY_TESTS_SOFTGPU_FAULTS_H_
#define FERRY_TESTS_SOFTGPU_FAULTS_H_

#include <driver_types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace softgpu {

// Not thread-safe.
class Faults {
 public:
  // Replaces all; counting starts anew. False when the text isn't understood.
  bool Set(const std::string& text);

  // Counts a call; what it must fail with, or cudaSuccess.
  cudaError_t OnCall(const char* function);
  // Counts a piece of work; what the device must be lost with when it runs, or cudaSuccess.
  cudaError_t OnWork(bool kernel);

  // Calls since Set.
  uint64_t calls() const { return calls_; }
  // Pieces of work since Set.
  uint64_t works() const { return works_; }
  // How often a fault struck since Set.
  uint64_t strikes() const { return strikes_; }

 private:
  struct Fault {
    std::string what;
    uint64_t n;
    bool later_too;
    cudaError_t error;  // cudaSuccess: the default.
  };
  cudaError_t Find(const std::string& what, uint64_t n, const char* function);

  std::vector<Fault> faults_;
  std::map<std::string, uint64_t> calls_of_;
  uint64_t calls_ = 0;
  uint64_t works_ = 0;
  uint64_t launches_ = 0;
  uint64_t strikes_ = 0;
};

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_FAULTS_H_
