// The software GPU's settings: see settings.h.
#include "tests/softgpu/settings.h"

#include <unistd.h>

#include <cstdio>

#include "tests/softgpu/text.h"

namespace softgpu {
namespace {

bool ApplyOrder(const std::string& value, Settings* settings) {
  if (value == "lazy") {
    settings->order = Order::kLazy;
  } else if (value == "eager") {
    settings->order = Order::kEager;
  } else if (value.compare(0, 8, "shuffle:") == 0 &&
             ParseNumber(value.substr(8), &settings->seed)) {
    settings->order = Order::kShuffle;
  } else {
    return false;
  }
  return true;
}

bool ApplyChecks(const std::string& value, Settings* settings) {
  const bool all = value == "all";
  settings->check_init = settings->check_race = settings->check_leak = all;
  if (all || value == "none") return true;
  for (const std::string& check : Split(value, ',')) {
    if (check == "init") {
      settings->check_init = true;
    } else if (check == "race") {
      settings->check_race = true;
    } else if (check == "leak") {
      settings->check_leak = true;
    } else {
      return false;
    }
  }
  return true;
}

bool ApplyBytes(std::string value, uint64_t* bytes) {
  int shift = 0;
  switch (value.empty() ? 0 : value.back()) {
    case 'K':
      shift = 10;
      break;
    case 'M':
      shift = 20;
      break;
    case 'G':
      shift = 30;
      break;
  }
  if (shift != 0) value.pop_back();
  if (!ParseNumber(value, bytes) || *bytes >> (63 - shift) != 0) return false;
  *bytes <<= shift;
  return true;
}

}  // namespace

bool ApplySetting(const std::string& name, const std::string& value, Settings* settings,
                  std::string* error) {
  uint64_t number = 0;
  bool ok = false;
  if (name == "ORDER") {
    ok = ApplyOrder(value, settings);
  } else if (name == "CHECKS") {
    ok = ApplyChecks(value, settings);
  } else if (name == "ON_REPORT") {
    settings->exit_on_report = value == "exit";
    ok = value == "exit" || value == "error";
  } else if (name == "DEVICES") {
    ok = ParseNumber(value, &number) && number <= 16;
    settings->devices = static_cast<int>(number);
  } else if (name == "MEMORY") {
    ok = ApplyBytes(value, &settings->memory_bytes);
  } else if (name == "BUDGET") {
    ok = ParseNumber(value, &settings->budget);
  } else if (name == "FAULT") {
    ok = settings->faults.Set(value);
  } else if (name == "MODEL") {
    ok = settings->model.Set(value);
  } else if (name == "TIMELINE") {
    settings->timeline_path = value;
    ok = true;
  } else {
    *error = "there is no setting FERRY_SOFTGPU_" + name;
    return false;
  }
  if (!ok) *error = "FERRY_SOFTGPU_" + name + " can't be \"" + value + "\"; see settings.h";
  return ok;
}

Settings SettingsFromEnvironment() {
  constexpr char kPrefix[] = "FERRY_SOFTGPU_";
  constexpr size_t kPrefixSize = sizeof(kPrefix) - 1;
  Settings settings;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    if (text.compare(0, kPrefixSize, kPrefix) != 0) continue;
    const size_t equals = text.find('=');
    const std::string name = text.substr(kPrefixSize, equals - kPrefixSize);
    if (name == "LIB") continue;  // Where tools/softgpu finds this library.
    std::string error;
    if (!ApplySetting(name, text.substr(equals + 1), &settings, &error)) {
      std::fprintf(stderr, "software GPU: %s\n", error.c_str());
      _exit(kReportExitStatus);
    }
  }
  return settings;
}

}  // namespace softgpu
