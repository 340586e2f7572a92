// PTX's grammar: see ptx.h.
#include "tests/softgpu/ptx.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

namespace softgpu {
namespace {

bool IsWord(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' ||
         c == '.';
}

std::string Expected(const Lexer& lexer, const std::string& what) {
  return "line " + std::to_string(lexer.token().line) + ": expected " + what + ", found \"" +
         std::string(lexer.token().text) + "\"";
}

// A number token's kind and bits.
Operand Number(std::string_view text) {
  Operand number;
  const std::string s(text);
  if (s.size() == 10 && s[0] == '0' && (s[1] == 'f' || s[1] == 'F')) {
    number.kind = Operand::kFloat;
    number.bits = std::strtoull(s.c_str() + 2, nullptr, 16);
  } else if (s.size() == 18 && s[0] == '0' && (s[1] == 'd' || s[1] == 'D')) {
    number.kind = Operand::kDouble;
    number.bits = std::strtoull(s.c_str() + 2, nullptr, 16);
  } else if (s.size() > 2 && s[0] == '0' && (s[1] == 'b' || s[1] == 'B')) {
    number.kind = Operand::kInteger;
    number.bits = std::strtoull(s.c_str() + 2, nullptr, 2);
  } else {
    number.kind = Operand::kInteger;
    number.bits = std::strtoull(s.c_str(), nullptr, 0);
  }
  return number;
}

// An integer with an optional sign.
bool TakeInteger(Lexer* lexer, int64_t* value) {
  const bool negative = lexer->Take("-");
  if (lexer->token().kind != Token::kNumber) return false;
  const uint64_t bits = Number(lexer->token().text).bits;
  *value = static_cast<int64_t>(negative ? 0 - bits : bits);
  lexer->Advance();
  return true;
}

bool ParseValues(Lexer* lexer, Variable* variable, std::string* error) {
  if (lexer->Take("{")) {
    while (!lexer->Take("}")) {
      if (!ParseValues(lexer, variable, error)) return false;
      lexer->Take(",");
    }
    return true;
  }
  Variable::Value value;
  const bool generic = lexer->Take("generic");
  if (generic) lexer->Take("(");
  if (lexer->token().kind == Token::kWord) {
    value.symbol = lexer->token().text;
    lexer->Advance();
    if (generic && !lexer->Take(")")) {
      *error = Expected(*lexer, "\")\"");
      return false;
    }
    int64_t offset = 0;
    if ((lexer->Is("-") || lexer->Take("+")) && TakeInteger(lexer, &offset)) value.bits = offset;
  } else {
    const bool negative = lexer->Take("-");
    if (lexer->token().kind != Token::kNumber) {
      *error = Expected(*lexer, "a value");
      return false;
    }
    value.bits = Number(lexer->token().text).bits;
    if (negative) value.bits = 0 - value.bits;
    lexer->Advance();
  }
  variable->values.push_back(value);
  return true;
}

// What follows .global, .param and so on: attributes, type, name, extents.
bool ParseVariable(Lexer* lexer, Variable* variable, std::string* error) {
  while (lexer->token().text.size() > 1 && lexer->token().text[0] == '.') {
    const std::string_view word = lexer->token().text.substr(1);
    lexer->Advance();
    if (word == "align") {
      int64_t alignment = 1;
      // What .ptr is aligned to says nothing of the parameter.
      if (!TakeInteger(lexer, &alignment)) {
        *error = Expected(*lexer, "an alignment");
        return false;
      }
      if (variable->type.empty()) variable->alignment = alignment;
    } else if (word == "attribute") {
      while (!lexer->Take(")")) lexer->Advance();
    } else if (TypeBytes(word)) {
      variable->type = word;
    }
  }
  if (lexer->token().kind != Token::kWord || variable->type.empty()) {
    *error = Expected(*lexer, "a variable");
    return false;
  }
  variable->name = lexer->token().text;
  lexer->Advance();
  variable->bytes = TypeBytes(variable->type);
  variable->alignment = std::max(variable->alignment, TypeBytes(variable->type));
  while (lexer->Take("[")) {
    int64_t extent = 0;
    TakeInteger(lexer, &extent);
    variable->bytes *= extent;
    if (!lexer->Take("]")) {
      *error = Expected(*lexer, "\"]\"");
      return false;
    }
  }
  return !lexer->Take("=") || ParseValues(lexer, variable, error);
}

bool ParseParams(Lexer* lexer, std::vector<Variable>* params, std::string* error) {
  if (!lexer->Take("(")) return true;
  while (!lexer->Take(")")) {
    if (!lexer->Take(".param") && !lexer->Take(".reg")) {
      *error = Expected(*lexer, "a parameter");
      return false;
    }
    Variable param;
    param.space = "param";
    if (!ParseVariable(lexer, &param, error)) return false;
    params->push_back(param);
    lexer->Take(",");
  }
  return true;
}

bool ParseFunction(Lexer* lexer, bool entry, PtxFile* file, std::string* error) {
  Function f;
  f.entry = entry;
  if (!entry && !ParseParams(lexer, &f.returns, error)) return false;
  f.name = lexer->token().text;
  lexer->Advance();
  if (!ParseParams(lexer, &f.params, error)) return false;
  while (!lexer->Is("{") && !lexer->Is(";")) {
    if (lexer->token().kind == Token::kEnd) {
      *error = Expected(*lexer, "a function's body");
      return false;
    }
    if (lexer->Is(".maxntid") || lexer->Is(".reqntid")) {
      lexer->Advance();
      int64_t extent;
      f.max_threads = 1;
      while (TakeInteger(lexer, &extent)) {
        f.max_threads *= extent;
        if (!lexer->Take(",")) break;
      }
    } else {
      lexer->Advance();
    }
  }
  if (lexer->Take(";")) {
    file->functions.emplace(f.name, f);
    return true;
  }
  f.defined = true;
  f.line = lexer->token().line;
  f.body = lexer->start() + 1;
  int depth = 0;
  do {
    depth += lexer->Is("{") ? 1 : lexer->Is("}") ? -1 : 0;
    if (lexer->token().kind == Token::kEnd) {
      *error = "the file ends within function " + std::string(f.name);
      return false;
    }
    lexer->Advance();
  } while (depth > 0);
  file->functions[f.name] = f;
  return true;
}

}  // namespace

void Lexer::Advance() {
  const auto peek = [&](size_t i) { return at_ + i < text_.size() ? text_[at_ + i] : '\0'; };
  for (;;) {
    const char c = peek(0);
    if (c == '\n') ++line_;
    if (c && std::isspace(static_cast<unsigned char>(c))) {
      ++at_;
    } else if (c == '/' && peek(1) == '/') {
      while (peek(0) && peek(0) != '\n') ++at_;
    } else if (c == '/' && peek(1) == '*') {
      at_ += 2;
      while (peek(0) && !(peek(0) == '*' && peek(1) == '/')) line_ += text_[at_++] == '\n';
      at_ += 2;
    } else {
      break;
    }
  }
  start_ = std::min(at_, text_.size());
  token_.line = line_;
  const char c = peek(0);
  if (!c) {
    token_.kind = Token::kEnd;
    token_.text = {};
    return;
  }
  size_t end = at_ + 1;
  if (c == '"') {
    token_.kind = Token::kString;
    while (end < text_.size() && text_[end] != '"') ++end;
    ++end;
  } else if (IsWord(c)) {
    token_.kind = std::isdigit(static_cast<unsigned char>(c)) ? Token::kNumber : Token::kWord;
    const auto scope = [&] {  // the :: in shared::cta
      return end + 2 < text_.size() && text_[end] == ':' && text_[end + 1] == ':';
    };
    while (end < text_.size() && (IsWord(text_[end]) || scope())) end += scope() ? 2 : 1;
  } else {
    token_.kind = Token::kSign;
  }
  token_.text = text_.substr(at_, end - at_);
  at_ = std::min(end, text_.size());
}

void Lexer::SkipLine() {
  const uint32_t line = token_.line;
  while (token_.kind != Token::kEnd && token_.line == line) Advance();
}

uint32_t TypeBytes(std::string_view type) {
  if (type == "pred") return 4;
  if (type == "f16x2" || type == "bf16x2") return 4;
  if (type == "f32x2") return 8;
  if (type == "bf16") return 2;
  if (type.size() < 2 || std::string_view("bsuf").find(type[0]) == std::string_view::npos) return 0;
  const std::string_view bits = type.substr(1);
  return bits == "8"     ? 1
         : bits == "16"  ? 2
         : bits == "32"  ? 4
         : bits == "64"  ? 8
         : bits == "128" ? 16
                         : 0;
}

bool ScanPtx(std::string_view text, PtxFile* file, std::string* error) {
  Lexer lexer(text);
  bool external = false;
  while (lexer.token().kind != Token::kEnd) {
    const std::string_view word = lexer.token().text;
    if (word == ".version" || word == ".target" || word == ".address_size" || word == ".file" ||
        word == ".loc") {
      lexer.SkipLine();
      continue;
    }
    lexer.Advance();
    if (word == ".extern" || word == ".visible" || word == ".weak" || word == ".common") {
      external = word == ".extern";
      continue;
    }
    if (word == ".func" || word == ".entry") {
      if (!ParseFunction(&lexer, word == ".entry", file, error)) return false;
    } else if (word == ".global" || word == ".const" || word == ".shared") {
      do {
        Variable variable;
        variable.space = word.substr(1);
        variable.external = external;
        if (!ParseVariable(&lexer, &variable, error)) return false;
        file->variables.push_back(variable);
      } while (lexer.Take(","));
      if (!lexer.Take(";")) {
        *error = Expected(lexer, "\";\" after a variable");
        return false;
      }
    } else if (word == ".section") {
      while (!lexer.Is("}") && lexer.token().kind != Token::kEnd) lexer.Advance();
      lexer.Advance();
    } else if (word == ".pragma") {
      while (!lexer.Take(";") && lexer.token().kind != Token::kEnd) lexer.Advance();
    } else {
      *error = "line " + std::to_string(lexer.token().line) +
               ": the software GPU does not know \"" + std::string(word) + "\"";
      return false;
    }
    external = false;
  }
  return true;
}

bool BodyParser::ParseOperand(Operand* operand, std::string* error) {
  const bool list = lexer_.Is("(");
  if (list || lexer_.Is("{")) {
    operand->kind = list ? Operand::kList : Operand::kVector;
    lexer_.Advance();
    while (!lexer_.Take(list ? ")" : "}")) {
      operand->parts.emplace_back();
      if (!ParseOperand(&operand->parts.back(), error)) return false;
      lexer_.Take(",");
    }
    return true;
  }
  const bool address = lexer_.Take("[");
  operand->negated = lexer_.Take("!");
  if (lexer_.token().kind == Token::kWord) {
    operand->name = lexer_.token().text;
    lexer_.Advance();
    if (lexer_.Take("|")) {
      operand->second = lexer_.token().text;
      lexer_.Advance();
    }
    if ((lexer_.Is("-") || lexer_.Take("+")) && !TakeInteger(&lexer_, &operand->offset)) {
      *error = Expected(lexer_, "an offset");
      return false;
    }
  } else if (address) {
    if (!TakeInteger(&lexer_, &operand->offset)) {
      *error = Expected(lexer_, "an address");
      return false;
    }
  } else {
    const bool negative = lexer_.Take("-");
    if (lexer_.token().kind != Token::kNumber) {
      *error = Expected(lexer_, "an operand");
      return false;
    }
    *operand = Number(lexer_.token().text);
    if (negative) operand->bits = 0 - operand->bits;
    lexer_.Advance();
  }
  if (address) {
    operand->kind = Operand::kAddress;
    if (!lexer_.Take("]")) {
      *error = Expected(lexer_, "\"]\"");
      return false;
    }
  }
  return true;
}

bool BodyParser::Next(Statement* statement, std::string* error) {
  *statement = Statement();
  Statement& s = *statement;
  while (lexer_.Is(".loc") || lexer_.Is(".file") || lexer_.Is(".pragma") || lexer_.Is(";")) {
    if (lexer_.Take(";")) continue;
    if (!lexer_.Is(".pragma")) {
      lexer_.SkipLine();
      continue;
    }
    while (!lexer_.Is(";")) lexer_.Advance();
  }
  s.line = lexer_.token().line;
  if (lexer_.Take("{")) {
    ++depth_;
    s.kind = Statement::kOpen;
    return true;
  }
  if (lexer_.Is("}")) {
    if (depth_-- == 0) return true;  // kEnd
    lexer_.Advance();
    s.kind = Statement::kClose;
    return true;
  }
  if (lexer_.Take("@")) {
    s.guard_negated = lexer_.Take("!");
    s.guard = lexer_.token().text;
    lexer_.Advance();
  }
  const Token first = lexer_.token();
  if (first.kind != Token::kWord) {
    *error = Expected(lexer_, "a statement");
    return false;
  }
  lexer_.Advance();
  if (lexer_.Take(":")) {
    s.kind = Statement::kLabel;
    s.name = first.text;
    return true;
  }
  if (first.text == ".reg" || first.text.substr(0, 5) == ".reg.") {
    s.kind = Statement::kRegisters;
    if (first.text == ".reg") {
      s.type = lexer_.token().text.substr(1);
      lexer_.Advance();
    } else {
      s.type = first.text.substr(5);
    }
    do {
      Statement::Registers r;
      r.name = lexer_.token().text;
      lexer_.Advance();
      if (lexer_.Take("<")) {
        int64_t count = 0;
        TakeInteger(&lexer_, &count);
        r.count = count;
        lexer_.Take(">");
      }
      s.registers.push_back(r);
    } while (lexer_.Take(","));
  } else if (first.text == ".shared" || first.text == ".local" || first.text == ".param" ||
             first.text == ".global" || first.text == ".const") {
    s.kind = Statement::kVariables;
    do {
      s.variables.emplace_back();
      s.variables.back().space = first.text.substr(1);
      if (!ParseVariable(&lexer_, &s.variables.back(), error)) return false;
    } while (lexer_.Take(","));
  } else {
    s.kind = first.text == ".branchtargets" ? Statement::kTargets : Statement::kInstruction;
    if (first.text[0] == '.' && s.kind == Statement::kInstruction) {
      *error = "line " + std::to_string(first.line) + ": the software GPU does not know \"" +
               std::string(first.text) + "\"";
      return false;
    }
    s.opcode = first.text;
    for (size_t from = 0; from <= s.opcode.size();) {
      const size_t dot = std::min(s.opcode.find('.', from), s.opcode.size());
      s.parts.push_back(s.opcode.substr(from, dot - from));
      from = dot + 1;
    }
    while (!lexer_.Is(";")) {
      s.operands.emplace_back();
      if (!ParseOperand(&s.operands.back(), error)) return false;
      if (!lexer_.Take(",") && !lexer_.Is(";")) break;
    }
  }
  if (!lexer_.Take(";")) {
    *error = Expected(lexer_, "\";\"");
    return false;
  }
  return true;
}

}  // namespace softgpu
