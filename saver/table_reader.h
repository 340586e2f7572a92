// Reads a LevelDB-style sorted table that lies in memory, trusting none of its bytes: what a
// checkpoint's index is, and a checkpoint of the old V1 format as a whole.
//
// Format (all integers little-endian):
//   data blocks, then the metaindex block (empty), then the index block, then the footer: one
//   behind the other without gaps;
//   block: entries, restarts (uint32 each), their number (uint32); then a type byte (0: plain) and
//   the masked crc32c of block and type;
//   entry: varint32 shared, unshared, value size; the key's unshared end; the value. At a restart
//   nothing is shared with the former key;
//   index block: a key not before the last of a data block (and before the first of the next), and
//   the block's handle: varint64 offset and size, without the five bytes behind it;
//   footer: handles of metaindex and index block, zeros up to 40 bytes, magic number.
#ifndef FERRY_SAVER_TABLE_READER_H_
#define FERRY_SAVER_TABLE_READER_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ferry {

// Calls `fn` for each entry, in the order of keys; the key is valid during the call, the value as
// long as `table`. Stops at fn's first error. DataLoss, with the words "file is too short to be an
// sstable", "not an sstable (bad magic number)", "block checksum mismatch" and others, for
// every departure from the format: a byte that was changed is noticed, wherever it is. Keys expand
// to at most a constant times the table's size. `file` is for messages.
absl::Status ReadTable(
    absl::string_view table, const std::string& file,
    absl::FunctionRef<absl::Status(absl::string_view key, absl::string_view value)> fn);

// A varint64 in its shortest form, taken off the front of `*in`; false for any other bytes.
bool ConsumeVarint(absl::string_view* in, uint64_t* value);
void AppendVarint(uint64_t value, std::string* out);

// Little-endian numbers in files.
uint32_t LoadFixed32(const char* p);
void AppendFixed32(uint32_t value, std::string* out);

}  // namespace ferry

#endif  // FERRY_SAVER_TABLE_READER_H_
