// NumPy's .npy files, as `ferry inspect --npy` writes them: magic, version 1.0, a header in Python's
// syntax padded to 64 bytes, the elements in C order
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#ifndef FERRY_TOOLS_NPY_H_
#define FERRY_TOOLS_NPY_H_

#include <string>

#include "absl/status/statusor.h"
#include "runtime/base/file_system.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

// The file's bytes. bfloat16 becomes float32, which NumPy has. Unimplemented, naming the dtype, for
// strings and the types that NumPy lacks.
absl::StatusOr<std::string> ToNpy(const Tensor& tensor);
absl::Status WriteNpy(FileSystem* fs, const std::string& path, const Tensor& tensor);

}  // namespace ferry

#endif  // FERRY_TOOLS_NPY_H_
