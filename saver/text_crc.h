// The crc of a text file, in a comment line before everything else, where protobuf's text format
// and so TensorFlow skips it:
//
//   # ferry crc32c: 1b2c3d4e
#ifndef FERRY_SAVER_TEXT_CRC_H_
#define FERRY_SAVER_TEXT_CRC_H_

#include <string>

#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "runtime/base/crc32c.h"

namespace ferry {

// The line for a file that goes on with `rest`.
inline std::string TextCrcLine(absl::string_view rest) {
  return absl::StrFormat("# ferry crc32c: %08x\n", MaskCrc32c(Crc32c(rest)));
}

// Whether `text` is as it was written: false when it begins with such a line, or with what is left
// of one (either half of its mark tells), that doesn't fit the rest. Files without one pass.
inline bool TextCrcMatches(absl::string_view text) {
  const std::string whole = TextCrcLine("");
  constexpr size_t kMark = 16, kHalf = 8;
  const absl::string_view mark = absl::string_view(whole).substr(0, kMark);
  if (text.substr(0, kHalf) != mark.substr(0, kHalf) &&
      (text.size() < kMark || text.substr(kHalf, kMark - kHalf) != mark.substr(kHalf))) {
    return true;
  }
  return text.size() >= whole.size() &&
         text.substr(0, whole.size()) == TextCrcLine(text.substr(whole.size()));
}

}  // namespace ferry

#endif  // FERRY_SAVER_TEXT_CRC_H_
