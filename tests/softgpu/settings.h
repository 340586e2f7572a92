// What the environment says of the software GPU. All variables begin with FERRY_SOFTGPU_; an
// unknown one, or an unknown value, ends the process with a message, so that no typing error
// switches a check off.
//
//   ORDER=lazy|eager|shuffle:SEED   when queued work runs; see queue.h
//   CHECKS=LIST                     of init, race, leak; or all, or none. Bounds are always checked
//   ON_REPORT=exit|error            what a check that fires does, after it printed its report
//   DEVICES=N                       number of devices
//   MEMORY=BYTES                    memory of each device; suffixes K, M, G
//   BUDGET=N                        thread-instructions that one launch may take, then it "hangs"
//   FAULT=LIST                      failures on demand; see faults.h
//   MODEL=LIST                      numbers of the modelled GPU; see timeline.h
//   TIMELINE=FILE                   gets the simulated operations; see timeline.h
#ifndef FERRY_TESTS_SOFTGPU_SETTINGS_H_
#define FERRY_TESTS_SOFTGPU_SETTINGS_H_

#include <cstdint>
#include <string>

#include "tests/softgpu/faults.h"
#include "tests/softgpu/timeline.h"

namespace softgpu {

// The exit status of a process that a check ended.
constexpr int kReportExitStatus = 97;

enum class Order {
  kLazy,     // Only what something waits for, and as late as possible.
  kEager,    // At once.
  kShuffle,  // In an order that is random, by a seed, among those allowed.
};

struct Settings {
  Order order = Order::kLazy;
  uint64_t seed = 0;
  bool check_init = true;
  bool check_race = false;
  bool check_leak = false;
  bool exit_on_report = true;
  int devices = 1;
  uint64_t memory_bytes = uint64_t{8} << 30;
  uint64_t budget = uint64_t{20} * 1000 * 1000 * 1000;
  std::string timeline_path;
  Faults faults;
  DeviceModel model;
};

// Sets what `name` (without the prefix) says; false with a message when that can't be.
bool ApplySetting(const std::string& name, const std::string& value, Settings* settings,
                  std::string* error);

// The environment's settings, or the end of the process.
Settings SettingsFromEnvironment();

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_SETTINGS_H_
