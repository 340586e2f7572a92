// NumPy's .npy files: magic, version, a header in Python's syntax padded to 64 bytes, the elements
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#ifndef FERRY_TOOLS_NPY_H_
#define FERRY_TOOLS_NPY_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/base/file_system.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

// What stands before the elements.
struct NpyHeader {
  DType dtype = DType::kInvalid;
  TensorShape shape;
  bool fortran_order = false;
  bool big_endian = false;
  size_t size = 0;  // Bytes of the header, the magic included.
};

// The bytes before the elements (in C order, little-endian) of an array. Unimplemented, naming the
// dtype, for strings and the types that NumPy lacks (bfloat16 among them).
absl::StatusOr<std::string> MakeNpyHeader(DType dtype, const TensorShape& shape);

// How many bytes from the beginning ParseNpyHeader needs at most.
inline constexpr size_t kMostNpyHeader = size_t{64} << 10;
// From the file's first bytes: kMostNpyHeader of them, or all. DataLoss says what is wrong;
// Unimplemented names an element type without a counterpart here (objects, text, records).
absl::StatusOr<NpyHeader> ParseNpyHeader(absl::string_view bytes);

// The tensor of an array's elements as they lie in the file: brought to this machine's endianness
// and into C order. REQUIRES: `data` has the bytes that the header says.
absl::StatusOr<Tensor> FromNpyData(const NpyHeader& header, absl::string_view data);

// The file's bytes. bfloat16 becomes float32, which NumPy has. Errors as MakeNpyHeader.
absl::StatusOr<std::string> ToNpy(const Tensor& tensor);
absl::Status WriteNpy(FileSystem* fs, const std::string& path, const Tensor& tensor);
// Errors name the file.
absl::StatusOr<Tensor> ReadNpy(FileSystem* fs, const std::string& path);

}  // namespace ferry

#endif  // FERRY_TOOLS_NPY_H_
