// NumPy's .npz archives: see npz.h.
#include "tools/npz.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/status.h"
#include "saver/atomic_file.h"
#include "tools/npy.h"

namespace ferry {
namespace {

constexpr uint32_t kLocalMark = 0x04034b50, kCentralMark = 0x02014b50, kEndMark = 0x06054b50,
                   kEnd64Mark = 0x06064b50, kLocatorMark = 0x07064b50;
constexpr size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56,
                 kLocatorSize = 20;
constexpr uint16_t kStored = 0, kDeflated = 8;
constexpr uint16_t kEncrypted = 1, kUtf8Name = 1 << 11;
constexpr uint16_t kZip64Tag = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // In a field of 4 bytes: the number is in zip64's.
constexpr uint16_t kIn64Short = 0xffff;
constexpr uint16_t kVersion = 20, kVersion64 = 45;
constexpr uint16_t kDate = 0x21;  // The first of January 1980: the same tensors, the same file.
constexpr size_t kChunk = size_t{64} << 10;

uint64_t Get(const char* p, size_t n) {
  uint64_t v = 0;
  for (size_t i = 0; i < n; ++i) v |= uint64_t{static_cast<uint8_t>(p[i])} << (8 * i);
  return v;
}
void Put(uint64_t v, size_t n, std::string* out) {
  for (size_t i = 0; i < n; ++i) out->push_back(static_cast<char>(v >> (8 * i)));
}
uint32_t ExtendCrc(uint32_t crc, absl::string_view bytes) {
  return static_cast<uint32_t>(
      crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

struct Member {
  std::string name;
  uint16_t flags = 0, method = 0;
  uint32_t crc = 0;
  uint64_t packed = 0, size = 0;  // In the archive, and unpacked.
  uint64_t local = 0;             // Where its local header is,
  uint64_t data = 0;              // and where its bytes begin.
};

// The bytes of one member, unpacked, from its beginning to its end.
class MemberReader {
 public:
  MemberReader(const RandomAccessFile* file, const Member* member) : file_(file), m_(member) {}
  ~MemberReader() {
    if (inflating_) inflateEnd(&z_);
  }
  MemberReader(const MemberReader&) = delete;
  MemberReader& operator=(const MemberReader&) = delete;

  uint64_t left() const { return m_->size - at_; }

  // REQUIRES: n <= left(). The last byte's read checks the whole.
  absl::Status Read(size_t n, char* dst) {
    if (m_->method == kStored) {
      FERRY_RETURN_IF_ERROR(file_->Read(m_->data + at_, n, dst));
    } else {
      FERRY_RETURN_IF_ERROR(Inflate(n, dst));
    }
    crc_ = ExtendCrc(crc_, {dst, n});
    at_ += n;
    return left() == 0 ? CheckEnd() : absl::OkStatus();
  }

 private:
  absl::Status Bad(absl::string_view what) const {
    return DataLoss("member '", absl::CHexEscape(m_->name), "': ", what);
  }
  absl::Status Inflate(size_t n, char* dst) {
    if (!inflating_) {
      z_ = {};
      constexpr int kNoHeader = -15;
      if (inflateInit2(&z_, kNoHeader) != Z_OK) {
        return ResourceExhausted("no memory to unpack '", m_->name, "'");
      }
      inflating_ = true;
    }
    z_.next_out = reinterpret_cast<Bytef*>(dst);
    z_.avail_out = static_cast<uInt>(n);
    while (z_.avail_out > 0) {
      FERRY_RETURN_IF_ERROR(Refill());
      const int result = inflate(&z_, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        ended_ = true;
        if (z_.avail_out > 0) return Bad("its packed bytes end too early");
        break;
      }
      if (result == Z_BUF_ERROR && packed_at_ == m_->packed) {
        return Bad("its packed bytes end too early");
      }
      if (result != Z_OK && result != Z_BUF_ERROR) return Bad("its packed bytes are damaged");
    }
    return absl::OkStatus();
  }
  absl::Status Refill() {
    if (z_.avail_in > 0 || packed_at_ == m_->packed) return absl::OkStatus();
    in_.resize(static_cast<size_t>(std::min<uint64_t>(kChunk, m_->packed - packed_at_)));
    FERRY_RETURN_IF_ERROR(file_->Read(m_->data + packed_at_, in_.size(), &in_[0]));
    packed_at_ += in_.size();
    z_.next_in = reinterpret_cast<Bytef*>(&in_[0]);
    z_.avail_in = static_cast<uInt>(in_.size());
    return absl::OkStatus();
  }
  absl::Status CheckEnd() {
    if (m_->method == kDeflated) {
      // The stream's own end follows the last byte.
      char more;
      while (!ended_) {
        FERRY_RETURN_IF_ERROR(Refill());
        z_.next_out = reinterpret_cast<Bytef*>(&more);
        z_.avail_out = 1;
        const int result = inflate(&z_, Z_NO_FLUSH);
        if (z_.avail_out == 0) return Bad("it is longer than the archive says");
        ended_ = result == Z_STREAM_END;
        if (!ended_ && result != Z_OK && !(result == Z_BUF_ERROR && packed_at_ < m_->packed)) {
          return Bad("its packed bytes are damaged at their end");
        }
      }
      if (z_.avail_in > 0 || packed_at_ < m_->packed) return Bad("bytes follow its packed ones");
    }
    if (crc_ == m_->crc) return absl::OkStatus();
    return Bad(absl::StrCat("Checksum does not match: stored ", m_->crc,
                            " vs. calculated on its bytes ", crc_));
  }

  const RandomAccessFile* const file_;
  const Member* const m_;
  uint64_t at_ = 0, packed_at_ = 0;
  uint32_t crc_ = 0;
  bool inflating_ = false, ended_ = false;
  z_stream z_ = {};
  std::string in_;
};

class NpzSource : public TensorSource {
 public:
  absl::Status Open(FileSystem* fs, const std::string& path) {
    path_ = path;
    FERRY_ASSIGN_OR_RETURN(file_, fs->OpenForRead(path));
    FERRY_RETURN_IF_ERROR(Named(ReadDirectory()));
    FERRY_RETURN_IF_ERROR(Named(LocateData()));
    for (size_t i = 0; i < members_.size(); ++i) {
      FERRY_RETURN_IF_ERROR(Named(ReadHeader(i)));
    }
    return absl::OkStatus();
  }

  absl::Status Read(size_t i, uint64_t offset, size_t n, char* dst) override {
    return Named(ReadPiece(i, offset, n, dst));
  }

 private:
  absl::Status Named(const absl::Status& s) const {
    return Annotate(s, absl::StrCat("'", path_, "'"));
  }

  absl::Status ReadDirectory() {
    const uint64_t size = file_->size();
    // The end record is the last thing, but for a comment of at most 64 KiB.
    std::string tail(static_cast<size_t>(std::min<uint64_t>(size, kEndSize + 0xffff)), '\0');
    FERRY_RETURN_IF_ERROR(file_->Read(size - tail.size(), tail.size(), &tail[0]));
    const auto ends_at = [&](size_t at) {
      return Get(&tail[at], 4) == kEndMark && at + kEndSize + Get(&tail[at + 20], 2) == tail.size();
    };
    bool found = false;
    size_t at = tail.size() < kEndSize ? 0 : tail.size() - kEndSize + 1;
    while (at > 0 && !found) found = ends_at(--at);
    if (!found) return DataLoss("not a .npz archive (it has no end of a zip file)");
    const char* const end = &tail[at];
    const uint64_t end_at = size - tail.size() + at;
    uint64_t count = Get(end + 10, 2), bytes = Get(end + 12, 4), begin = Get(end + 16, 4);
    uint64_t limit = end_at;  // Where the directory ends.
    if (count == kIn64Short || bytes == kIn64 || begin == kIn64) {
      char locator[kLocatorSize], end64[kEnd64Size];
      if (end_at < kLocatorSize) return DataLoss("a zip64 archive without its end record");
      FERRY_RETURN_IF_ERROR(file_->Read(end_at - kLocatorSize, kLocatorSize, locator));
      const uint64_t where = Get(locator + 8, 8);
      if (Get(locator, 4) != kLocatorMark || where > end_at - kLocatorSize ||
          end_at - kLocatorSize - where < kEnd64Size) {
        return DataLoss("a zip64 archive without its end record");
      }
      FERRY_RETURN_IF_ERROR(file_->Read(where, kEnd64Size, end64));
      if (Get(end64, 4) != kEnd64Mark) return DataLoss("a zip64 archive without its end record");
      count = Get(end64 + 32, 8);
      bytes = Get(end64 + 40, 8);
      begin = Get(end64 + 48, 8);
      limit = where;
    }
    if (begin > limit || bytes != limit - begin || count > bytes / kCentralSize) {
      return DataLoss("its directory claims ", count, " members in ", bytes, " bytes at ", begin,
                      ", the file has ", size);
    }
    std::string directory;
    if (bytes > std::string().max_size()) return DataLoss("its directory is too large");
    directory.resize(static_cast<size_t>(bytes));
    FERRY_RETURN_IF_ERROR(file_->Read(begin, directory.size(), &directory[0]));
    directory_at_ = begin;
    std::set<std::string> names;
    size_t p = 0;
    for (uint64_t i = 0; i < count; ++i) {
      const size_t left = directory.size() - p;
      const char* const d = directory.data() + p;
      if (left < kCentralSize || Get(d, 4) != kCentralMark) {
        return DataLoss("its directory is damaged at member ", i);
      }
      const size_t name = Get(d + 28, 2), extra = Get(d + 30, 2), comment = Get(d + 32, 2);
      if (left - kCentralSize < name + extra + comment) {
        return DataLoss("its directory is damaged at member ", i);
      }
      Member m;
      m.flags = static_cast<uint16_t>(Get(d + 8, 2));
      m.method = static_cast<uint16_t>(Get(d + 10, 2));
      m.crc = static_cast<uint32_t>(Get(d + 16, 4));
      m.packed = Get(d + 20, 4);
      m.size = Get(d + 24, 4);
      m.local = Get(d + 42, 4);
      m.name = std::string(d + kCentralSize, name);
      FERRY_RETURN_IF_ERROR(Read64({d + kCentralSize + name, extra}, &m));
      p += kCentralSize + name + extra + comment;
      if (!names.insert(m.name).second) {
        return DataLoss("member '", absl::CHexEscape(m.name), "' is there twice");
      }
      if (m.flags & kEncrypted) {
        return Unimplemented("member '", absl::CHexEscape(m.name), "' is encrypted");
      }
      if (m.method != kStored && m.method != kDeflated) {
        return Unimplemented("member '", absl::CHexEscape(m.name), "' is packed by the method ",
                             m.method, "; stored (0) and deflated (8) ones can be read");
      }
      if (m.method == kStored && m.packed != m.size) {
        return DataLoss("member '", absl::CHexEscape(m.name), "' is stored, but has two sizes");
      }
      // What deflate can make of a byte at most.
      constexpr uint64_t kMostRatio = 1032;
      if (m.size / kMostRatio > m.packed) {
        return DataLoss("member '", absl::CHexEscape(m.name), "' claims ", m.size,
                        " bytes packed into ", m.packed);
      }
      members_.push_back(std::move(m));
    }
    if (p != directory.size()) return DataLoss("bytes follow its directory");
    std::sort(members_.begin(), members_.end(),
              [](const Member& a, const Member& b) { return a.name < b.name; });
    return absl::OkStatus();
  }

  // Numbers that don't fit their fields stand, in this order, in an extra field.
  static absl::Status Read64(absl::string_view extra, Member* m) {
    while (extra.size() >= 4) {
      const uint64_t tag = Get(extra.data(), 2), size = Get(extra.data() + 2, 2);
      extra.remove_prefix(4);
      if (size > extra.size()) break;
      if (tag == kZip64Tag) {
        absl::string_view field = extra.substr(0, size);
        for (uint64_t* number : {&m->size, &m->packed, &m->local}) {
          if (*number != kIn64) continue;
          if (field.size() < 8) {
            return DataLoss("member '", absl::CHexEscape(m->name), "' lacks a zip64 size");
          }
          *number = Get(field.data(), 8);
          field.remove_prefix(8);
        }
      }
      extra.remove_prefix(size);
    }
    return absl::OkStatus();
  }

  // Members must lie apart from each other: otherwise a small file can hold any amount.
  absl::Status LocateData() {
    std::vector<Member*> by_place;
    for (Member& m : members_) by_place.push_back(&m);
    std::sort(by_place.begin(), by_place.end(),
              [](const Member* a, const Member* b) { return a->local < b->local; });
    uint64_t end = 0;
    for (Member* m : by_place) {
      const std::string name = absl::CHexEscape(m->name);
      char local[kLocalSize];
      if (m->local < end || m->local > directory_at_ || directory_at_ - m->local < kLocalSize) {
        return DataLoss("member '", name, "' lies outside of the file, or in another member");
      }
      FERRY_RETURN_IF_ERROR(file_->Read(m->local, kLocalSize, local));
      if (Get(local, 4) != kLocalMark) return DataLoss("member '", name, "' has no header");
      m->data = m->local + kLocalSize + Get(local + 26, 2) + Get(local + 28, 2);
      if (m->data > directory_at_ || m->packed > directory_at_ - m->data) {
        return DataLoss("member '", name, "' claims ", m->packed, " bytes, the file has fewer");
      }
      end = m->data + m->packed;
    }
    return absl::OkStatus();
  }

  absl::Status ReadHeader(size_t i) {
    const Member& m = members_[i];
    const std::string name = absl::CHexEscape(m.name);
    if (!absl::EndsWith(m.name, ".npy")) {
      return Unimplemented("member '", name, "' is not a .npy array");
    }
    std::string head(static_cast<size_t>(std::min<uint64_t>(m.size, kMostNpyHeader)), '\0');
    MemberReader reader(file_.get(), &m);
    if (!head.empty()) FERRY_RETURN_IF_ERROR(reader.Read(head.size(), &head[0]));
    absl::StatusOr<NpyHeader> header = ParseNpyHeader(head);
    if (!header.ok()) return Annotate(header.status(), absl::StrCat("member '", name, "'"));
    Entry e;
    e.name = m.name.substr(0, m.name.size() - 4);
    e.dtype = header->dtype;
    e.shape = header->shape;
    if (m.size - header->size != e.bytes()) {
      return DataLoss("member '", name, "': an array of ", DTypeName(e.dtype), " ",
                      e.shape.DebugString(), " needs ", e.bytes(), " bytes, it has ",
                      m.size - header->size);
    }
    entries_.push_back(std::move(e));
    headers_.push_back(*std::move(header));
    return absl::OkStatus();
  }

  absl::Status ReadPiece(size_t i, uint64_t offset, size_t n, char* dst) {
    const NpyHeader& header = headers_[i];
    const bool turned = (header.fortran_order && header.shape.rank() > 1) || header.big_endian;
    if (offset == 0) {
      turned_ = Tensor();
      reader_ = std::make_unique<MemberReader>(file_.get(), &members_[i]);
      std::string skipped(header.size, '\0');
      FERRY_RETURN_IF_ERROR(reader_->Read(skipped.size(), &skipped[0]));
      if (turned) {
        // The elements as they lie there, then as they belong.
        FERRY_ASSIGN_OR_RETURN(const Tensor raw, Tensor::Allocate(header.dtype, header.shape));
        auto* const bytes = static_cast<char*>(raw.buffer()->data());
        for (uint64_t at = 0; at < raw.bytes(); at += kTensorPiece) {
          FERRY_RETURN_IF_ERROR(reader_->Read(
              static_cast<size_t>(std::min<uint64_t>(kTensorPiece, raw.bytes() - at)), bytes + at));
        }
        FERRY_ASSIGN_OR_RETURN(turned_, FromNpyData(header, {bytes, raw.bytes()}));
      }
    }
    if (turned) {
      std::memcpy(dst, static_cast<const char*>(turned_.raw()) + offset, n);
      if (offset + n == turned_.bytes()) turned_ = Tensor();
      return absl::OkStatus();
    }
    return reader_->Read(n, dst);
  }

  std::string path_;
  std::unique_ptr<RandomAccessFile> file_;
  uint64_t directory_at_ = 0;
  std::vector<Member> members_;
  std::vector<NpyHeader> headers_;
  std::unique_ptr<MemberReader> reader_;
  Tensor turned_;
};

// Calls `fn` with the array's elements as they go into the file.
absl::Status ForEachElementPiece(TensorSource* source, size_t i,
                                 absl::FunctionRef<absl::Status(absl::string_view)> fn) {
  if (source->entries()[i].dtype != DType::kBfloat16) return ForEachPiece(source, i, fn);
  std::string wide;
  return ForEachPiece(source, i, [&](absl::string_view piece) {
    wide.resize(piece.size() * 2);
    for (size_t k = 0; k + 1 < piece.size(); k += 2) {
      const float f = Bfloat16ToFloat({static_cast<uint16_t>(Get(&piece[k], 2))});
      std::memcpy(&wide[k * 2], &f, 4);
    }
    return fn(wide);
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenNpz(FileSystem* fs, const std::string& path) {
  auto source = std::make_unique<NpzSource>();
  FERRY_RETURN_IF_ERROR(source->Open(fs, path));
  return source;
}

absl::Status WriteNpz(FileSystem* fs, const std::string& path, TensorSource* source,
                      const TensorProgress& progress, const NpzOptions& options) {
  const std::vector<TensorSource::Entry>& entries = source->entries();
  std::vector<std::string> heads, refused;
  uint64_t all = 0, done = 0;
  for (const TensorSource::Entry& e : entries) {
    if (!IsUtf8(e.name) || absl::StrContains(e.name, '\0') || e.name.size() > 0xffff - 4) {
      return InvalidArgument("'", path, "': a .npz archive can't hold the name '",
                             absl::CHexEscape(e.name.substr(0, 200)), "'");
    }
    const bool widen = e.dtype == DType::kBfloat16;
    absl::StatusOr<std::string> head = MakeNpyHeader(widen ? DType::kFloat : e.dtype, e.shape);
    if (!head.ok()) refused.push_back(absl::StrCat(e.name, " (", DTypeName(e.dtype), ")"));
    heads.push_back(head.ok() ? *std::move(head) : "");
    all += 2 * e.bytes();
  }
  if (!refused.empty()) {
    return Unimplemented("'", path, "': a .npz archive can't hold these tensors' types: ",
                         absl::StrJoin(refused, ", "));
  }
  const auto in32 = [&](uint64_t n) { return n < options.zip64_from; };
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> file, AtomicFile::Open(fs, path));
  std::string directory;
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string name = entries[i].name + ".npy";
    uint64_t size = heads[i].size();
    uint32_t crc = ExtendCrc(0, heads[i]);
    FERRY_RETURN_IF_ERROR(ForEachElementPiece(source, i, [&](absl::string_view piece) {
      crc = ExtendCrc(crc, piece);
      size += piece.size();
      return absl::OkStatus();
    }));
    done += entries[i].bytes();
    if (progress) progress(done, all);

    const uint64_t local_at = file->size();
    const bool large = !in32(size), far = !in32(local_at);
    // What local header and directory have in common: from the version needed to the sizes.
    std::string common;
    Put(large || far ? kVersion64 : kVersion, 2, &common);
    Put(kUtf8Name, 2, &common);
    Put(kStored, 2, &common);
    Put(0, 2, &common);
    Put(kDate, 2, &common);
    Put(crc, 4, &common);
    Put(large ? kIn64 : size, 4, &common);
    Put(large ? kIn64 : size, 4, &common);
    Put(name.size(), 2, &common);
    std::string sizes64;
    if (large) {
      Put(size, 8, &sizes64);
      Put(size, 8, &sizes64);
    }
    const auto extra = [](const std::string& numbers) {
      std::string field;
      if (numbers.empty()) return field;
      Put(kZip64Tag, 2, &field);
      Put(numbers.size(), 2, &field);
      return field + numbers;
    };
    std::string local;
    Put(kLocalMark, 4, &local);
    local += common;
    Put(extra(sizes64).size(), 2, &local);
    FERRY_RETURN_IF_ERROR(file->Append(absl::StrCat(local, name, extra(sizes64), heads[i])));
    FERRY_RETURN_IF_ERROR(ForEachElementPiece(
        source, i, [&](absl::string_view piece) { return file->Append(piece); }));
    done += entries[i].bytes();
    if (progress) progress(done, all);

    if (far) Put(local_at, 8, &sizes64);
    Put(kCentralMark, 4, &directory);
    Put(kVersion64, 2, &directory);
    directory += common;
    Put(extra(sizes64).size(), 2, &directory);
    Put(0, 2, &directory);  // No comment, on the first disk, without attributes.
    Put(0, 8, &directory);
    Put(far ? kIn64 : local_at, 4, &directory);
    absl::StrAppend(&directory, name, extra(sizes64));
  }
  const uint64_t directory_at = file->size();
  std::string end;
  const bool needs64 = !in32(directory_at) || !in32(directory.size()) ||
                       entries.size() >= std::min<uint64_t>(kIn64Short, options.zip64_from);
  if (needs64) {
    const uint64_t end64_at = directory_at + directory.size();
    Put(kEnd64Mark, 4, &end);
    Put(kEnd64Size - 12, 8, &end);
    Put(kVersion64, 2, &end);
    Put(kVersion64, 2, &end);
    Put(0, 8, &end);
    Put(entries.size(), 8, &end);
    Put(entries.size(), 8, &end);
    Put(directory.size(), 8, &end);
    Put(directory_at, 8, &end);
    Put(kLocatorMark, 4, &end);
    Put(0, 4, &end);
    Put(end64_at, 8, &end);
    Put(1, 4, &end);
  }
  Put(kEndMark, 4, &end);
  Put(0, 4, &end);
  const uint64_t count = needs64 ? kIn64Short : entries.size();
  Put(count, 2, &end);
  Put(count, 2, &end);
  Put(needs64 ? kIn64 : directory.size(), 4, &end);
  Put(needs64 ? kIn64 : directory_at, 4, &end);
  Put(0, 2, &end);
  FERRY_RETURN_IF_ERROR(file->Append(directory));
  FERRY_RETURN_IF_ERROR(file->Append(end));
  return file->Commit();
}

}  // namespace ferry
