// What the library tells the people who run it, beside the errors that it returns: a line each on
// standard error, with its level, as TensorFlow's own lines have it.
//
//   LogInfo("Froze ", n, " variables.");   // INFO:ferry:Froze 2 variables.
#ifndef FERRY_SAVER_LOG_H_
#define FERRY_SAVER_LOG_H_

#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace ferry {

enum class LogLevel { kInfo, kWarning, kNone };

// Lines below `least` aren't written. Thread-safe, like all here; kInfo at first.
void SetLogLevel(LogLevel least);
// Where lines go instead of standard error, one call at a time; an empty function restores that.
void SetLogSink(std::function<void(LogLevel, absl::string_view)> sink);

void Log(LogLevel level, absl::string_view message);
template <typename... Parts>
void LogInfo(const Parts&... parts) {
  Log(LogLevel::kInfo, absl::StrCat(parts...));
}
template <typename... Parts>
void LogWarning(const Parts&... parts) {
  Log(LogLevel::kWarning, absl::StrCat(parts...));
}

}  // namespace ferry

#endif  // FERRY_SAVER_LOG_H_
