// Lines of log: see log.h.
#include "saver/log.h"

#include <cstdio>
#include <string>
#include <utility>

#include "runtime/base/mutex.h"

namespace ferry {
namespace {

struct State {
  Mutex mu;
  LogLevel least ABSL_GUARDED_BY(mu) = LogLevel::kInfo;
  std::function<void(LogLevel, absl::string_view)> sink ABSL_GUARDED_BY(mu);
};

State& TheState() {
  static State* const state = new State;  // Threads may log until the process ends.
  return *state;
}

}  // namespace

void SetLogLevel(LogLevel least) {
  State& state = TheState();
  MutexLock lock(&state.mu);
  state.least = least;
}

void SetLogSink(std::function<void(LogLevel, absl::string_view)> sink) {
  State& state = TheState();
  MutexLock lock(&state.mu);
  state.sink = std::move(sink);
}

void Log(LogLevel level, absl::string_view message) {
  State& state = TheState();
  MutexLock lock(&state.mu);
  if (level < state.least || level == LogLevel::kNone) return;
  if (state.sink) {
    state.sink(level, message);
    return;
  }
  const std::string line =
      absl::StrCat(level == LogLevel::kInfo ? "INFO" : "WARNING", ":ferry:", message, "\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace ferry
