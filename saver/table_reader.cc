// Reads sorted tables: see table_reader.h.
#include "saver/table_reader.h"

#include <cstring>

#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

constexpr size_t kFooterSize = 48;
constexpr size_t kTrailerSize = 5;  // Of a block: type and crc.
constexpr char kMagic[] = "\x57\xfb\x80\x8b\x24\x75\x47\xdb";
// Writers restart the sharing of keys at least every 16 entries, so that keys expand to no more
// than 16 times their bytes in the file.
constexpr uint64_t kMostExpansion = 16;

struct Handle {
  uint64_t offset = 0;
  uint64_t size = 0;
};

bool ConsumeHandle(absl::string_view* in, Handle* handle) {
  return ConsumeVarint(in, &handle->offset) && ConsumeVarint(in, &handle->size);
}

class Reader {
 public:
  Reader(absl::string_view table, const std::string& file) : table_(table), file_(file) {}

  absl::Status Read(absl::FunctionRef<absl::Status(absl::string_view, absl::string_view)> fn) {
    if (table_.size() < kFooterSize) {
      return DataLoss("'", file_, "': file is too short to be an sstable: ", table_.size(),
                      " bytes, the footer alone has ", kFooterSize);
    }
    const size_t footer_at = table_.size() - kFooterSize;
    absl::string_view footer = table_.substr(footer_at);
    if (footer.substr(kFooterSize - 8) != absl::string_view(kMagic, 8)) {
      return DataLoss("'", file_, "': not an sstable (bad magic number)");
    }
    footer.remove_suffix(8);
    Handle metaindex, index;
    if (!ConsumeHandle(&footer, &metaindex) || !ConsumeHandle(&footer, &index)) {
      return Bad("the footer's block handles can't be read");
    }
    if (footer.find_first_not_of('\0') != absl::string_view::npos) {
      return Bad("the footer's padding isn't zero");
    }
    // The blocks lie side by side. Of the data blocks the index block says where each ends.
    absl::string_view meta_block, index_block;
    FERRY_RETURN_IF_ERROR(Block(metaindex, &meta_block));
    FERRY_RETURN_IF_ERROR(Block(index, &index_block));
    if (metaindex.offset + metaindex.size + kTrailerSize != index.offset ||
        index.offset + index.size + kTrailerSize != footer_at) {
      return Bad("there are gaps between the blocks at its end");
    }
    FERRY_RETURN_IF_ERROR(Entries(meta_block, [this](absl::string_view, absl::string_view) {
      return Bad("it has meta blocks, which checkpoints don't");
    }));

    uint64_t next_offset = 0;
    std::string last_key;  // Of the former data block.
    bool any_key = false;
    FERRY_RETURN_IF_ERROR(
        Entries(index_block, [&](absl::string_view separator, absl::string_view value) {
          Handle handle;
          if (!ConsumeHandle(&value, &handle) || !value.empty()) {
            return Bad("a block handle in its index can't be read");
          }
          if (handle.offset != next_offset) return Bad("there is a gap before a data block");
          absl::string_view block;
          FERRY_RETURN_IF_ERROR(Block(handle, &block));
          next_offset = handle.offset + handle.size + kTrailerSize;
          bool empty = true;
          FERRY_RETURN_IF_ERROR(Entries(block, [&](absl::string_view key, absl::string_view v) {
            if (any_key && empty && key <= last_key) return Bad("its keys are out of order");
            any_key = true;
            empty = false;
            last_key.assign(key.data(), key.size());
            return fn(key, v);
          }));
          if (empty) return Bad("it has an empty data block");
          if (separator < last_key) return Bad("a key in its index block is too small");
          last_key.assign(separator.data(), separator.size());
          return absl::OkStatus();
        }));
    if (next_offset != metaindex.offset) return Bad("there is a gap behind the data blocks");
    return absl::OkStatus();
  }

 private:
  absl::Status Bad(absl::string_view what) const {
    return DataLoss("'", file_, "' is damaged: ", what);
  }

  absl::Status Block(const Handle& handle, absl::string_view* out) const {
    const uint64_t end = table_.size() - kFooterSize;
    if (handle.offset > end || end - handle.offset < kTrailerSize ||
        handle.size > end - handle.offset - kTrailerSize) {
      return Bad(absl::StrCat("a block of ", handle.size, " bytes at ", handle.offset,
                              " reaches beyond its end at ", end));
    }
    const absl::string_view block = table_.substr(handle.offset, handle.size + 1);
    const uint32_t stored = UnmaskCrc32c(LoadFixed32(block.data() + block.size()));
    const uint32_t found = Crc32c(block);
    if (stored != found) {
      return DataLoss("'", file_, "': block checksum mismatch: stored ", absl::Hex(stored),
                      ", calculated ", absl::Hex(found), " on the ", handle.size, " bytes at ",
                      handle.offset);
    }
    if (block.back() != 0) {
      return Unimplemented("'", file_, "': a block is compressed (type ",
                           static_cast<int>(block.back()),
                           "), which no checkpoint of TensorFlow's is");
    }
    *out = block.substr(0, handle.size);
    return absl::OkStatus();
  }

  // `fn` sees keys that increase within the block.
  absl::Status Entries(absl::string_view block,
                       absl::FunctionRef<absl::Status(absl::string_view, absl::string_view)> fn) {
    if (block.size() < 4) return Bad("a block is too short");
    const uint32_t num_restarts = LoadFixed32(block.data() + block.size() - 4);
    if (num_restarts == 0 || num_restarts > (block.size() - 4) / 4) {
      return Bad("a block's number of restarts is out of range");
    }
    const size_t end = block.size() - 4 - size_t{num_restarts} * 4;
    const char* restarts = block.data() + end;
    uint32_t restart = 0;
    std::string key;
    bool first = true;
    for (absl::string_view rest = block.substr(0, end); !rest.empty();) {
      const size_t at = end - rest.size();
      uint64_t shared, unshared, value_size;
      if (!ConsumeVarint(&rest, &shared) || !ConsumeVarint(&rest, &unshared) ||
          !ConsumeVarint(&rest, &value_size) || unshared > rest.size() ||
          value_size > rest.size() - unshared || shared > key.size()) {
        return Bad(absl::StrCat("the entry at ", at, " of a block can't be read"));
      }
      if (restart < num_restarts && LoadFixed32(restarts + 4 * restart) == at) {
        if (shared != 0) return Bad("a key at a restart isn't whole");
        ++restart;
      }
      const absl::string_view tail = rest.substr(0, unshared);
      // The key grows in order: what follows the shared part must be greater than before.
      if (!first && tail <= absl::string_view(key).substr(shared)) {
        return Bad("its keys are out of order");
      }
      first = false;
      key.resize(shared);
      key.append(tail.data(), tail.size());
      expanded_ += key.size();
      if (expanded_ > kMostExpansion * (table_.size() + 1)) {
        return Bad("its keys share more than a writer lets them");
      }
      const absl::string_view value = rest.substr(unshared, value_size);
      rest.remove_prefix(unshared + value_size);
      FERRY_RETURN_IF_ERROR(fn(key, value));
    }
    // An empty block has one restart, at 0.
    if (restart != num_restarts && !(first && num_restarts == 1 && LoadFixed32(restarts) == 0)) {
      return Bad("a block's restarts don't point at its entries");
    }
    return absl::OkStatus();
  }

  const absl::string_view table_;
  const std::string& file_;
  uint64_t expanded_ = 0;
};

}  // namespace

absl::Status ReadTable(
    absl::string_view table, const std::string& file,
    absl::FunctionRef<absl::Status(absl::string_view key, absl::string_view value)> fn) {
  return Reader(table, file).Read(fn);
}

bool ConsumeVarint(absl::string_view* in, uint64_t* value) {
  uint64_t result = 0;
  for (size_t i = 0; i < in->size() && i < 10; ++i) {
    const uint64_t byte = static_cast<unsigned char>((*in)[i]);
    if (i == 9 && byte > 1) return false;  // Beyond 64 bits.
    result |= (byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      if (byte == 0 && i > 0) return false;  // Longer than it needs to be.
      in->remove_prefix(i + 1);
      *value = result;
      return true;
    }
  }
  return false;
}

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

uint32_t LoadFixed32(const char* p) {
  const auto* b = reinterpret_cast<const unsigned char*>(p);
  return b[0] | b[1] << 8 | b[2] << 16 | static_cast<uint32_t>(b[3]) << 24;
}

void AppendFixed32(uint32_t value, std::string* out) {
  for (int shift = 0; shift < 32; shift += 8) out->push_back(static_cast<char>(value >> shift));
}

}  // namespace ferry
