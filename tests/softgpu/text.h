// Small helpers for text.
#ifndef FERRY_TESTS_SOFTGPU_TEXT_H_
#define FERRY_TESTS_SOFTGPU_TEXT_H_

#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace softgpu {

inline std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// True when all of `text` is a number in decimal digits.
inline bool ParseNumber(const std::string& text, uint64_t* number) {
  if (text.empty() || text.size() > 19 ||
      text.find_first_not_of("0123456789") != std::string::npos) {
    return false;
  }
  *number = std::strtoull(text.c_str(), nullptr, 10);
  return true;
}

// C++'s mangled names as in the source.
inline std::string Demangle(const std::string& name) {
  int status = 0;
  char* const text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  if (text == nullptr) return name;
  std::string readable = text;
  std::free(text);
  return readable;
}

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_TEXT_H_
