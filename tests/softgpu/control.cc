// What tests ask of the software GPU: see control.h.
#include "tests/softgpu/control.h"

#include <dlfcn.h>

namespace softgpu {
namespace {

// The library's function, or null on a real GPU.
template <typename Function>
Function* Find(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

}  // namespace

bool Present() { return Find<void()>("__cudaSoftgpuGet") != nullptr; }

std::string Set(const std::string& name, const std::string& value) {
  static auto* const set = Find<const char*(const char*, const char*)>("__cudaSoftgpuSet");
  const char* const error = set == nullptr ? nullptr : set(name.c_str(), value.c_str());
  return error == nullptr ? "" : error;
}

std::string Get(const std::string& name) {
  static auto* const get = Find<const char*(const char*)>("__cudaSoftgpuGet");
  const char* const value = get == nullptr ? nullptr : get(name.c_str());
  return value == nullptr ? "" : value;
}

bool Narrow(void* pointer, size_t used, void* stream) {
  static auto* const narrow = Find<int(void*, size_t, void*)>("__cudaSoftgpuNarrow");
  return narrow != nullptr && narrow(pointer, used, stream) != 0;
}

void SpendHostTime(const std::string& name, double microseconds, uint64_t bytes) {
  static auto* const spend =
      Find<void(const char*, double, uint64_t)>("__cudaSoftgpuSpendHostTime");
  if (spend != nullptr) spend(name.c_str(), microseconds, bytes);
}

}  // namespace softgpu
