// A modelled GPU's clock: see timeline.h.
#include "tests/softgpu/timeline.h"

#include <algorithm>
#include <cstdlib>

#include "tests/softgpu/text.h"

namespace softgpu {

bool DeviceModel::Set(const std::string& text) {
  const std::map<std::string, double*> numbers = {
      {"h2d_gbs", &h2d_gbs},
      {"d2h_gbs", &d2h_gbs},
      {"pageable_gbs", &pageable_gbs},
      {"peer_gbs", &peer_gbs},
      {"memory_gbs", &memory_gbs},
      {"ginstructions", &ginstructions},
      {"gemm_tflops", &gemm_tflops},
      {"gemm_tflops_double", &gemm_tflops_double},
      {"gemm_tflops_half", &gemm_tflops_half},
      {"kernel_latency_us", &kernel_latency_us},
      {"copy_latency_us", &copy_latency_us},
      {"call_us", &call_us},
      {"queue_us", &queue_us},
      {"sync_us", &sync_us},
      {"malloc_us", &malloc_us},
      {"pin_us", &pin_us},
      {"pin_gbs", &pin_gbs},
  };
  for (const std::string& part : Split(text, ',')) {
    const size_t equals = std::min(part.find('='), part.size());
    const auto it = numbers.find(part.substr(0, equals));
    if (it == numbers.end() || equals == part.size()) return false;
    char* end;
    const double value = std::strtod(part.c_str() + equals + 1, &end);
    if (*end != 0 || !(value >= 0)) return false;
    *it->second = value;
  }
  return true;
}

Timeline::~Timeline() { LogTo(""); }

bool Timeline::LogTo(const std::string& path) {
  if (file_ != nullptr) std::fclose(file_);
  file_ = path.empty() ? nullptr : std::fopen(path.c_str(), "we");
  return path.empty() || file_ != nullptr;
}

double Timeline::Place(int device, Engine engine, double ready, double duration) {
  double start = ready;
  if (engine != Engine::kHost && duration > 0) {
    std::map<double, double>& busy = busy_[{device, static_cast<int>(engine)}];
    auto next = busy.upper_bound(start);
    if (next != busy.begin()) start = std::max(start, std::prev(next)->second);
    while (next != busy.end() && next->first < start + duration) {
      start = next->second;
      ++next;
    }
    // Joined with its neighbours where they touch, so that the list stays short.
    double end = start + duration;
    if (next != busy.end() && next->first == end) {
      end = next->second;
      next = busy.erase(next);
    }
    if (next != busy.begin() && std::prev(next)->second == start) {
      std::prev(next)->second = end;
    } else {
      busy[start] = end;
    }
  }
  latest_ = std::max(latest_, start + duration);
  return start;
}

void Timeline::Forget(double time) {
  for (auto& [engine, busy] : busy_) {
    while (!busy.empty() && busy.begin()->second < time) busy.erase(busy.begin());
  }
}

void Timeline::Log(const Span& span) {
  if (file_ == nullptr) return;
  static constexpr const char* kEngines[] = {"compute", "h2d", "d2h", "host"};
  std::string name;
  for (char c : span.name) {
    if (c == '"' || c == '\\') name += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) name += c;
  }
  std::fprintf(file_,
               "{\"start\": %.3f, \"end\": %.3f, \"device\": %d, \"stream\": %d, "
               "\"engine\": \"%s\", \"kind\": \"%s\", \"bytes\": %llu, \"name\": \"%s\"}\n",
               span.start, span.end, span.device, span.stream,
               kEngines[static_cast<int>(span.engine)], span.kind,
               static_cast<unsigned long long>(span.bytes), name.c_str());
}

void Timeline::Flush() {
  if (file_ != nullptr) std::fflush(file_);
}

}  // namespace softgpu
