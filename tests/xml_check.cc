// A check of XML: see xml_check.h.
#include "tests/xml_check.h"

#include <cctype>
#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace ferry {
namespace {

bool IsNameChar(char c) {
  return isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == ':' || c == '.';
}

class Checker {
 public:
  explicit Checker(absl::string_view text) : text_(text) {}

  std::string Run() {
    int roots = 0;
    while (at_ < text_.size() && error_.empty()) {
      if (text_[at_] != '<') {
        const size_t end = std::min(text_.find('<', at_), text_.size());
        const absl::string_view content = text_.substr(at_, end - at_);
        CheckText(content);
        if (open_.empty() && content.find_first_not_of(" \n") != absl::string_view::npos) {
          Fail("text outside of the root");
        }
        at_ = end;
      } else if (Take("<?")) {
        SkipTo("?>");
      } else if (Take("<!--")) {
        SkipTo("-->");
      } else if (Take("<!")) {
        SkipTo(">");
      } else if (Take("</")) {
        const std::string name = Name();
        if (open_.empty() || open_.back() != name) {
          Fail(absl::StrCat("</", name, "> closes nothing"));
          break;
        }
        open_.pop_back();
        if (!Take(">")) Fail("expected >");
      } else {
        ++at_;
        if (open_.empty()) ++roots;
        Element();
      }
    }
    if (error_.empty() && !open_.empty()) Fail(absl::StrCat("<", open_.back(), "> isn't closed"));
    if (error_.empty() && roots != 1) Fail(absl::StrCat(roots, " root elements"));
    return error_;
  }

 private:
  void Fail(const std::string& what) {
    if (error_.empty()) error_ = absl::StrCat(what, " at byte ", at_);
  }
  bool Take(absl::string_view token) {
    if (!absl::StartsWith(text_.substr(at_), token)) return false;
    at_ += token.size();
    return true;
  }
  void SkipTo(absl::string_view token) {
    at_ = text_.find(token, at_);
    if (at_ == absl::string_view::npos) {
      at_ = text_.size();
      Fail(absl::StrCat("no ", token));
    } else {
      at_ += token.size();
    }
  }
  std::string Name() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsNameChar(text_[at_])) ++at_;
    if (at_ == begin) Fail("expected a name");
    return std::string(text_.substr(begin, at_ - begin));
  }
  bool SkipSpace() {
    const size_t begin = at_;
    while (at_ < text_.size() && isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    return at_ > begin;
  }
  void Element() {
    const std::string name = Name();
    std::set<std::string> attributes;
    while (error_.empty()) {
      const bool space = SkipSpace();
      if (Take("/>")) return;
      if (Take(">")) {
        open_.push_back(name);
        return;
      }
      if (!space) return Fail("expected a space or >");
      if (!attributes.insert(Name()).second) return Fail("an attribute is given twice");
      if (!Take("=\"")) return Fail("expected =\"");
      const size_t end = text_.find('"', at_);
      if (end == absl::string_view::npos) return Fail("no closing quote");
      const absl::string_view value = text_.substr(at_, end - at_);
      if (absl::StrContains(value, '<')) return Fail("< in an attribute");
      CheckText(value);
      at_ = end + 1;
    }
  }
  void CheckText(absl::string_view text) {
    for (size_t i = 0; i < text.size(); ++i) {
      const auto c = static_cast<unsigned char>(text[i]);
      if (c < 0x20 && c != '\n' && c != '\t' && c != '\r') Fail("a control character");
      if (c != '&') continue;
      const absl::string_view rest = text.substr(i);
      bool known = absl::StartsWith(rest, "&#");
      for (const char* const name : {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;"}) {
        known |= absl::StartsWith(rest, name);
      }
      if (!known) Fail("an unknown reference");
    }
  }

  const absl::string_view text_;
  size_t at_ = 0;
  std::vector<std::string> open_;
  std::string error_;
};

}  // namespace

std::string WhatIsWrongWithXml(const std::string& text) { return Checker(text).Run(); }

}  // namespace ferry
