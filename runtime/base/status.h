// Errors. Every fallible function of the project returns absl::Status or absl::StatusOr; nothing
// throws or aborts across an interface. The helpers here build a message from its parts, and
// propagate errors:
//
//   FERRY_RETURN_IF_ERROR(file->Sync());
//   FERRY_ASSIGN_OR_RETURN(std::string text, ReadFile(fs, path));
//   return InvalidArgument("axis ", axis, " of node '", name, "' is not in [0, ", rank, ")");
//
// A message names the file, node or key, what was expected and what was found.
#ifndef FERRY_RUNTIME_BASE_STATUS_H_
#define FERRY_RUNTIME_BASE_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace ferry {

#define FERRY_DEFINE_ERROR(Name)                             \
  template <typename... Parts>                               \
  absl::Status Name(const Parts&... parts) {                 \
    return absl::Name##Error(absl::StrCat(parts...));        \
  }
FERRY_DEFINE_ERROR(Aborted)
FERRY_DEFINE_ERROR(AlreadyExists)
FERRY_DEFINE_ERROR(Cancelled)
FERRY_DEFINE_ERROR(DataLoss)
FERRY_DEFINE_ERROR(DeadlineExceeded)
FERRY_DEFINE_ERROR(FailedPrecondition)
FERRY_DEFINE_ERROR(Internal)
FERRY_DEFINE_ERROR(InvalidArgument)
FERRY_DEFINE_ERROR(NotFound)
FERRY_DEFINE_ERROR(OutOfRange)
FERRY_DEFINE_ERROR(PermissionDenied)
FERRY_DEFINE_ERROR(ResourceExhausted)
FERRY_DEFINE_ERROR(Unavailable)
FERRY_DEFINE_ERROR(Unimplemented)
#undef FERRY_DEFINE_ERROR

// The same error with `prefix` put before its message ("node 'x' (MatMul): ...").
inline absl::Status Annotate(const absl::Status& status, absl::string_view prefix) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(prefix, ": ", status.message()));
}

// Keeps the first error of several: clean-up goes on, the first failure is what is reported.
inline void KeepFirst(absl::Status* first, absl::Status next) {
  if (first->ok()) *first = std::move(next);
}

}  // namespace ferry

#define FERRY_CONCAT_INNER_(a, b) a##b
#define FERRY_CONCAT_(a, b) FERRY_CONCAT_INNER_(a, b)

#define FERRY_RETURN_IF_ERROR(expr)                             \
  do {                                                          \
    ::absl::Status ferry_status_ = (expr);                      \
    if (!ferry_status_.ok()) return ferry_status_;              \
  } while (false)

#define FERRY_ASSIGN_OR_RETURN(lhs, expr) \
  FERRY_ASSIGN_OR_RETURN_IMPL_(FERRY_CONCAT_(ferry_or_, __LINE__), lhs, expr)
#define FERRY_ASSIGN_OR_RETURN_IMPL_(var, lhs, expr) \
  auto var = (expr);                                 \
  if (!var.ok()) return std::move(var).status();     \
  lhs = *std::move(var)

#endif  // FERRY_RUNTIME_BASE_STATUS_H_
