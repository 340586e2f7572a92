// The file examples/data/digits.csv.gz, which the build puts into the program.
#ifndef FERRY_TOOLS_EMBEDDED_DIGITS_H_
#define FERRY_TOOLS_EMBEDDED_DIGITS_H_

#include <cstddef>

namespace ferry {

extern const unsigned char kEmbeddedDigits[];
extern const size_t kEmbeddedDigitsSize;

}  // namespace ferry

#endif  // FERRY_TOOLS_EMBEDDED_DIGITS_H_
