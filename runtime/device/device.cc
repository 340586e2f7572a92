// Devices' names, and the CPU: see device.h.
#include "runtime/device/device.h"

#include <cctype>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/ascii.h"
#include "runtime/base/status.h"

namespace ferry {

const char* DeviceTypeName(DeviceType t) { return t == DeviceType::kCpu ? "CPU" : "GPU"; }

std::string DeviceName(DeviceType type, int index) {
  return absl::StrCat("/job:localhost/replica:0/task:0/device:", DeviceTypeName(type), ":", index);
}

absl::StatusOr<DeviceSpec> ParseDevice(absl::string_view device) {
  const auto malformed = [&] {
    return InvalidArgument("Malformed device specification '", device,
                           "': the form is /job:localhost/replica:0/task:0/device:GPU:0, or parts "
                           "of it, or /gpu:0");
  };
  DeviceSpec spec;
  if (device.empty() || device == "/") return spec;
  if (device.front() != '/') return malformed();
  const auto number = [&](absl::string_view text, int* out) {
    return absl::SimpleAtoi(text, out) && *out >= 0;
  };
  const auto type_and_index = [&](absl::string_view type, absl::string_view index) {
    const std::string upper = absl::AsciiStrToUpper(type);
    if (upper != "CPU" && upper != "GPU") return false;
    spec.has_type = true;
    spec.type = upper == "CPU" ? DeviceType::kCpu : DeviceType::kGpu;
    return index == "*" || index.empty() || number(index, &spec.index);
  };
  for (absl::string_view part : absl::StrSplit(device.substr(1), '/')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(part, ':');
    bool ok = fields.size() >= 2;
    if (ok && fields[0] == "job" && fields.size() == 2) {
      spec.job = std::string(fields[1]);
    } else if (ok && fields[0] == "replica" && fields.size() == 2) {
      ok = fields[1] == "*" || number(fields[1], &spec.replica);
    } else if (ok && fields[0] == "task" && fields.size() == 2) {
      ok = fields[1] == "*" || number(fields[1], &spec.task);
    } else if (ok && fields[0] == "device" && fields.size() <= 3) {
      ok = fields[1] == "*" || type_and_index(fields[1], fields.size() == 3 ? fields[2] : "");
    } else if (ok && fields.size() == 2) {
      ok = type_and_index(fields[0], fields[1]);
    } else {
      ok = false;
    }
    if (!ok) return malformed();
  }
  return spec;
}

}  // namespace ferry
