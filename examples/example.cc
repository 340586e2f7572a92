// What the examples share: see example.h.
#include "examples/example.h"

#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "fmt/format.h"
#include "runtime/base/status.h"

namespace ferry::examples {
namespace {

template <typename T>
std::string Number(T value, bool scalar) {
  if constexpr (std::is_floating_point_v<T>) {
    const std::string s = fmt::format("{}", value);
    if (std::isfinite(value) && s.find_first_of(".e") == std::string::npos) {
      return s + (scalar ? ".0" : ".");
    }
    // NumPy leaves out the last zero of "1.0" within arrays.
    return !scalar && s.size() > 2 && s.substr(s.size() - 2) == ".0" ? s.substr(0, s.size() - 1)
                                                                     : s;
  } else {
    return absl::StrCat(value);
  }
}

template <typename T>
void Append(const Tensor& t, int dim, int64_t* at, std::string* out) {
  if (dim == t.rank()) {
    absl::StrAppend(out, Number(t.data<T>()[(*at)++], t.rank() == 0));
    return;
  }
  out->push_back('[');
  for (int64_t i = 0; i < t.dim(dim); ++i) {
    if (i > 0) {
      const bool rows = dim + 1 < t.rank();
      absl::StrAppend(out, rows ? "\n" + std::string(static_cast<size_t>(dim) + 1, ' ') : " ");
    }
    Append<T>(t, dim + 1, at, out);
  }
  out->push_back(']');
}

}  // namespace

absl::StatusOr<Tensor> Fetch(Session* session, const std::string& name,
                             const std::vector<std::pair<std::string, Tensor>>& feeds) {
  std::vector<Tensor> out;
  FERRY_RETURN_IF_ERROR(session->Run(feeds, {name}, {}, &out));
  return out[0];
}

std::string Text(const Tensor& t) {
  std::string out;
  int64_t at = 0;
  switch (t.dtype()) {
    case DType::kFloat:
      Append<float>(t, 0, &at, &out);
      return out;
    case DType::kDouble:
      Append<double>(t, 0, &at, &out);
      return out;
    case DType::kInt32:
      Append<int32_t>(t, 0, &at, &out);
      return out;
    case DType::kInt64:
      Append<int64_t>(t, 0, &at, &out);
      return out;
    default:
      return absl::StrCat(DTypeName(t.dtype()), " ", t.shape().DebugString());
  }
}

absl::Status Show(Session* session, const std::string& label, const std::string& name) {
  FERRY_ASSIGN_OR_RETURN(const Tensor value, Fetch(session, name));
  absl::PrintF("%s : %s\n", label, Text(value));
  return absl::OkStatus();
}

int Main(absl::Status (*example)()) {
  const absl::Status status = example();
  if (status.ok()) return 0;
  std::fflush(stdout);
  absl::FPrintF(stderr, "error: %s\n", status.ToString());
  return 1;
}

}  // namespace ferry::examples
