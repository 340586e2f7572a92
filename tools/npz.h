// NumPy's .npz archives: a zip file (PKWARE's APPNOTE, https://pkware.com/appnote) of .npy arrays,
// one a tensor, NAME.npy. Read stored or deflated (numpy.savez, savez_compressed), written stored;
// zip64 where sizes ask for it.
#ifndef FERRY_TOOLS_NPZ_H_
#define FERRY_TOOLS_NPZ_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/tensor_file.h"

namespace ferry {

// DataLoss, naming the file and the member, when the archive or an array in it is damaged, and from
// Read where a crc doesn't match. Unimplemented names a member of a type, or compressed in a way,
// that can't be read here. Arrays in Fortran's order or of the other endianness are turned whole
// in memory.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenNpz(FileSystem* fs, const std::string& path);

struct NpzOptions {
  // Sizes, offsets and numbers of members from here on go into zip64's fields. Less: for tests.
  uint64_t zip64_from = 0xffffffff;
};

// Durable and atomic. bfloat16 becomes float32, which NumPy has. Each tensor is read twice, as its
// crc stands before its bytes. Unimplemented names the tensors of types that NumPy lacks, or that
// have no fixed size (strings); InvalidArgument a name that isn't UTF-8 or has a NUL.
absl::Status WriteNpz(FileSystem* fs, const std::string& path, TensorSource* source,
                      const TensorProgress& progress, const NpzOptions& options = {});

}  // namespace ferry

#endif  // FERRY_TOOLS_NPZ_H_
