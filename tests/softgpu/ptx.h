// The grammar of PTX: text to declarations and statements, without knowing what opcodes mean.
// Everything refers to the text, which must outlive it.
#ifndef FERRY_TESTS_SOFTGPU_PTX_H_
#define FERRY_TESTS_SOFTGPU_PTX_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace softgpu {

struct Token {
  enum Kind { kEnd, kWord, kNumber, kString, kSign } kind = kEnd;
  std::string_view text;  // a word with its dots: "ld.global.f32", "%tid.x", ".reg"
  uint32_t line = 0;
};

class Lexer {
 public:
  explicit Lexer(std::string_view text, size_t at = 0, uint32_t line = 1)
      : text_(text), at_(at), line_(line) {
    Advance();
  }
  const Token& token() const { return token_; }
  size_t start() const { return start_; }  // where the token begins
  bool Is(std::string_view text) const {
    return token_.text == text && token_.kind != Token::kString;
  }
  void Advance();
  bool Take(std::string_view text) {
    if (!Is(text)) return false;
    Advance();
    return true;
  }
  // To the token after the present line.
  void SkipLine();

 private:
  std::string_view text_;
  size_t at_, start_ = 0;
  uint32_t line_;
  Token token_;
};

// 0 where the name is no type.
uint32_t TypeBytes(std::string_view type);

struct Operand {
  enum Kind { kName, kInteger, kFloat, kDouble, kAddress, kVector, kList };
  Kind kind = kName;
  std::string_view name;       // kName; kAddress: the base, or empty
  std::string_view second;     // of "p|q"
  bool negated = false;        // !p
  uint64_t bits = 0;           // of a number
  int64_t offset = 0;          // kAddress; kName: of "symbol+8"
  std::vector<Operand> parts;  // {a, b} and (a, b)
};

struct Variable {
  std::string_view space;  // "global", "const", "shared", "local", "param"
  std::string_view type, name;
  uint32_t alignment = 1;
  uint64_t bytes = 0;  // 0 for name[]
  bool external = false;
  struct Value {
    uint64_t bits = 0;
    std::string_view symbol;  // its address is added
  };
  std::vector<Value> values;  // the first elements
};

struct Statement {
  enum Kind { kEnd, kInstruction, kLabel, kOpen, kClose, kRegisters, kVariables, kTargets };
  Kind kind = kEnd;
  uint32_t line = 0;
  std::string_view guard;  // a predicate, or empty
  bool guard_negated = false;
  std::string_view opcode;              // "ld.global.f32"
  std::vector<std::string_view> parts;  // its pieces
  std::vector<Operand> operands;
  std::string_view name;  // kLabel
  struct Registers {
    std::string_view name;
    uint32_t count = 0;  // 0: just this name; else name0, name1, ...
  };
  std::string_view type;  // kRegisters
  std::vector<Registers> registers;
  std::vector<Variable> variables;
};

struct Function {
  std::string_view name;
  bool entry = false;
  bool defined = false;
  std::vector<Variable> returns, params;
  uint32_t max_threads = 0;  // 0: not said
  size_t body = 0;           // where in the text, after the {
  uint32_t line = 0;
};

struct PtxFile {
  std::vector<Variable> variables;
  std::map<std::string_view, Function> functions;
};

// Finds the declarations of a whole file; bodies are skipped.
bool ScanPtx(std::string_view text, PtxFile* file, std::string* error);

// The statements of a function's body one by one.
class BodyParser {
 public:
  BodyParser(std::string_view text, const Function& function)
      : lexer_(text, function.body, function.line) {}
  // kEnd at the body's end; false and `error` where the text isn't understood.
  bool Next(Statement* statement, std::string* error);

 private:
  bool ParseOperand(Operand* operand, std::string* error);
  Lexer lexer_;
  int depth_ = 0;
};

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_PTX_H_
