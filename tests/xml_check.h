// Checks that a text is well-formed XML, as far as this project's pictures use it.
#ifndef FERRY_TESTS_XML_CHECK_H_
#define FERRY_TESTS_XML_CHECK_H_

#include <string>

namespace ferry {

// "" if every tag is closed in order, attributes are quoted and given once, references are known
// ones, and there is one root element; else what is wrong, and where.
std::string WhatIsWrongWithXml(const std::string& text);

}  // namespace ferry

#endif  // FERRY_TESTS_XML_CHECK_H_
