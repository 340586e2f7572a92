// The crc of a file that is one protobuf message, in fields that TensorFlow's messages don't have
// and its parsers skip: the first is number 15000 (fixed32, a mark), the last is number 15001
// (fixed32, the masked crc32c of all bytes before it). Either of the two tells that the other must
// be there.
#ifndef FERRY_SAVER_MESSAGE_CRC_H_
#define FERRY_SAVER_MESSAGE_CRC_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace ferry {

// What the two fields take.
inline constexpr size_t kMessageCrcBytes = 14;

// The message with the fields around it: the same bytes for the same message. REQUIRES: it isn't
// larger than protobuf's 2 GiB less kMessageCrcBytes.
absl::StatusOr<std::string> SerializeWithCrc(const google::protobuf::Message& message);

// DataLoss, naming the file, when the bytes have such fields, or one of them, that don't fit. Files
// without them pass.
absl::Status CheckMessageCrc(absl::string_view bytes, absl::string_view file_name);

}  // namespace ferry

#endif  // FERRY_SAVER_MESSAGE_CRC_H_
