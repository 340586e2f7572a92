// Text for XML and for Graphviz's labels, which read the same.
#ifndef FERRY_TOOLS_XML_H_
#define FERRY_TOOLS_XML_H_

#include <string>

#include "absl/strings/string_view.h"

namespace ferry {

// `text` with what XML reserves replaced, for text and attributes; control characters, which XML
// can't hold, become spaces.
std::string EscapeXml(absl::string_view text);

}  // namespace ferry

#endif  // FERRY_TOOLS_XML_H_
