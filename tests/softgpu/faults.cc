// Failures on demand: see faults.h.
#include "tests/softgpu/faults.h"

#include <utility>

#include "tests/softgpu/text.h"

namespace softgpu {
namespace {

cudaError_t DefaultError(const std::string& function) {
  if (function == "cudaMalloc" || function == "cudaHostAlloc") return cudaErrorMemoryAllocation;
  return function == "lost" ? cudaErrorLaunchFailure : cudaErrorUnknown;
}

}  // namespace

bool Faults::Set(const std::string& text) {
  std::vector<Fault> faults;
  for (std::string part : Split(text, ',')) {
    Fault fault = {};
    const size_t colon = part.find(':');
    if (colon == std::string::npos || colon == 0) return false;
    fault.what = part.substr(0, colon);
    part = part.substr(colon + 1);
    if (fault.what.compare(0, 2, "cu") != 0 && fault.what != "call" && fault.what != "lost" &&
        fault.what != "lost-launch") {
      return false;
    }
    const size_t equals = part.find('=');
    if (equals != std::string::npos) {
      uint64_t number;
      if (!ParseNumber(part.substr(equals + 1), &number) || number == 0) return false;
      fault.error = static_cast<cudaError_t>(number);
      part.resize(equals);
    }
    fault.later_too = !part.empty() && part.back() == '+';
    if (fault.later_too) part.pop_back();
    if (!ParseNumber(part, &fault.n) || fault.n == 0) return false;
    faults.push_back(fault);
  }
  *this = Faults();
  faults_ = std::move(faults);
  return true;
}

cudaError_t Faults::Find(const std::string& what, uint64_t n, const char* function) {
  for (const Fault& fault : faults_) {
    if (fault.what == what && (n == fault.n || (fault.later_too && n > fault.n))) {
      ++strikes_;
      return fault.error != cudaSuccess ? fault.error : DefaultError(function);
    }
  }
  return cudaSuccess;
}

cudaError_t Faults::OnCall(const char* function) {
  const cudaError_t error = Find("call", ++calls_, function);
  const cudaError_t named = Find(function, ++calls_of_[function], function);
  return error != cudaSuccess ? error : named;
}

cudaError_t Faults::OnWork(bool kernel) {
  cudaError_t error = Find("lost", ++works_, "lost");
  if (kernel && error == cudaSuccess) error = Find("lost-launch", ++launches_, "lost");
  return error;
}

}  // namespace softgpu
