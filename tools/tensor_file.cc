// What files of tensors have in common: see tensor_file.h.
#include "tools/tensor_file.h"

#include <algorithm>
#include <utility>

#include "nlohmann/json.hpp"
#include "runtime/base/status.h"

namespace ferry {

absl::StatusOr<Tensor> TensorSource::ReadTensor(size_t i) {
  const Entry& entry = entries_[i];
  FERRY_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(entry.dtype, entry.shape));
  auto* to = static_cast<char*>(tensor.raw());
  FERRY_RETURN_IF_ERROR(ForEachPiece(this, i, [&](absl::string_view piece) {
    to = std::copy(piece.begin(), piece.end(), to);
    return absl::OkStatus();
  }));
  return tensor;
}

absl::Status ForEachPiece(TensorSource* source, size_t i,
                          absl::FunctionRef<absl::Status(absl::string_view)> fn) {
  const TensorSource::Entry& entry = source->entries()[i];
  const uint64_t size = entry.bytes();
  std::string piece(static_cast<size_t>(std::min<uint64_t>(size, kTensorPiece)), '\0');
  for (uint64_t at = 0; at < size; at += piece.size()) {
    piece.resize(static_cast<size_t>(std::min<uint64_t>(size - at, piece.size())));
    FERRY_RETURN_IF_ERROR(source->Read(i, at, piece.size(), &piece[0]));
    if (entry.dtype == DType::kBool) {
      for (char& c : piece) c = c != 0;
    }
    FERRY_RETURN_IF_ERROR(fn(piece));
  }
  return absl::OkStatus();
}

bool IsUtf8(const std::string& name) {
  try {
    nlohmann::json(name).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

}  // namespace ferry
