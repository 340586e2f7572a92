// Messages' crcs: see message_crc.h.
#include "saver/message_crc.h"

#include <cstdint>
#include <cstring>

#include "absl/strings/match.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

// Field 15000 and 15001, fixed32: their tags as varints.
constexpr char kMarkTag[] = "\xc5\xa9\x07";
constexpr char kCrcTag[] = "\xcd\xa9\x07";
constexpr size_t kTagSize = 3;
constexpr size_t kFieldSize = kTagSize + 4;
static_assert(kMessageCrcBytes == 2 * kFieldSize, "");
constexpr uint32_t kMark = 0x59525246;  // "FRRY".

void AppendField(const char* tag, uint32_t value, std::string* out) {
  out->append(tag, kTagSize);
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

}  // namespace

absl::StatusOr<std::string> SerializeWithCrc(const google::protobuf::Message& message) {
  std::string bytes;
  AppendField(kMarkTag, kMark, &bytes);
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    // Attributes are maps: in a fixed order, the same graph gives the same file.
    coded.SetSerializationDeterministic(true);
    if (!message.SerializeToCodedStream(&coded)) {
      return Internal("a ", message.GetTypeName(), " can't be serialised");
    }
  }
  AppendField(kCrcTag, MaskCrc32c(Crc32c(bytes)), &bytes);
  return bytes;
}

absl::Status CheckMessageCrc(absl::string_view bytes, absl::string_view file_name) {
  std::string mark;
  AppendField(kMarkTag, kMark, &mark);
  const bool begins = absl::StartsWith(bytes, mark);
  const size_t body = bytes.size() < kFieldSize ? 0 : bytes.size() - kFieldSize;
  const bool ends = bytes.size() >= kMessageCrcBytes && bytes.substr(body, kTagSize) == kCrcTag;
  if (!begins && !ends) return absl::OkStatus();
  if (!begins || !ends) {
    return DataLoss(file_name, ": damaged: one of its two marks is gone (truncated?)");
  }
  uint32_t stored;
  std::memcpy(&stored, bytes.data() + body + kTagSize, 4);
  const uint32_t found = MaskCrc32c(Crc32c(bytes.substr(0, body)));
  if (stored == found) return absl::OkStatus();
  return DataLoss(file_name, ": Checksum does not match: stored ", stored,
                  " vs. calculated on the bytes ", found);
}

}  // namespace ferry
