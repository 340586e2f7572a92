// The .safetensors format (https://huggingface.co/docs/safetensors): the length of a header as 8
// little-endian bytes, the header in JSON, padded with spaces to a multiple of 8,
//
//   {"__metadata__": {"any": "text"}, "NAME": {"dtype": "F32", "shape": [2, 3],
//    "data_offsets": [begin, end]}, …}
//
// and the tensors' bytes, in C order and little-endian, one behind the other without gaps.
//
// Files written here are those that the format's own library writes for the same tensors.
#ifndef FERRY_TOOLS_SAFETENSORS_H_
#define FERRY_TOOLS_SAFETENSORS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/tensor_file.h"

namespace ferry {

// DataLoss, naming the file, when the header is damaged, or tensors don't fill the rest of the
// file exactly. Unimplemented names a tensor of a type that has no counterpart here.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(FileSystem* fs,
                                                              const std::string& path);

// Durable and atomic. Unimplemented names the tensors of types that the format lacks (strings,
// complex128, quantized ones); InvalidArgument a name that isn't UTF-8, or is "__metadata__".
absl::Status WriteSafetensors(FileSystem* fs, const std::string& path, TensorSource* source,
                              const TensorProgress& progress);

}  // namespace ferry

#endif  // FERRY_TOOLS_SAFETENSORS_H_
