// What files of tensors have in common, whatever their format: a list of tensors and their bytes,
// piece by piece, so that no file needs to fit into memory.
//
//   FERRY_ASSIGN_OR_RETURN(auto source, OpenSafetensors(fs, "model.safetensors"));
//   FERRY_RETURN_IF_ERROR(WriteNpz(fs, "model.npz", source.get(), {}));
#ifndef FERRY_TOOLS_TENSOR_FILE_H_
#define FERRY_TOOLS_TENSOR_FILE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/base/file_system.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

// What is copied at a time.
inline constexpr size_t kTensorPiece = size_t{1} << 20;

// The tensors of one open file. Not thread-safe.
class TensorSource {
 public:
  struct Entry {
    std::string name;
    DType dtype = DType::kInvalid;
    TensorShape shape;
    // Of the elements; 0 for strings, whose bytes only their values tell.
    uint64_t bytes() const {
      return static_cast<uint64_t>(shape.num_elements()) * ElementSize(dtype);
    }
  };

  virtual ~TensorSource() = default;
  // By name.
  const std::vector<Entry>& entries() const { return entries_; }

  // Copies bytes [offset, offset + n) of entry i's elements (C order, little-endian) to `dst`.
  // Tensors may be read in any order and again, but the pieces of one from its beginning on, each
  // where the last one ended: what the file has to check a tensor's bytes with (a crc) is checked
  // with its last piece. Not for strings.
  virtual absl::Status Read(size_t i, uint64_t offset, size_t n, char* dst) = 0;
  // A whole tensor, strings too.
  virtual absl::StatusOr<Tensor> ReadTensor(size_t i);

 protected:
  std::vector<Entry> entries_;
};

// Called with the bytes done and those there are, from time to time. Empty: nobody listens.
using TensorProgress = std::function<void(uint64_t done, uint64_t all)>;

// Calls `fn` with the bytes of entry i, in order, in pieces of at most kTensorPiece; what a bool
// may hold besides 0 and 1 becomes 1.
absl::Status ForEachPiece(TensorSource* source, size_t i,
                          absl::FunctionRef<absl::Status(absl::string_view)> fn);

// What a name has to be in formats that know only text.
bool IsUtf8(const std::string& name);

}  // namespace ferry

#endif  // FERRY_TOOLS_TENSOR_FILE_H_
