// From PTX to a Program: see decoder.h.
#include "tests/softgpu/decoder.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "tests/softgpu/small_floats.h"

namespace softgpu {
namespace {

using std::string_view;

const OperationTable& Operations() {
  static const OperationTable* const table = [] {
    auto* t = new OperationTable;
    AddIntegerOperations(t);
    AddFloatOperations(t);
    AddConversions(t);
    return t;
  }();
  return *table;
}

bool IsFloat(string_view type) {
  return type == "f16" || type == "bf16" || type == "f32" || type == "f64" || type == "f16x2" ||
         type == "bf16x2" || type == "f32x2";
}

// Lane width of a type: '4', '8', or 'p'.
char WidthOf(string_view type) { return type == "pred" ? 'p' : TypeBytes(type) == 8 ? '8' : '4'; }

const std::map<string_view, Constant::Kind>& Specials() {
  static const auto* const specials = new std::map<string_view, Constant::Kind>{
      {"%tid.x", Constant::kTidX},
      {"%tid.y", Constant::kTidY},
      {"%tid.z", Constant::kTidZ},
      {"%ntid.x", Constant::kNtidX},
      {"%ntid.y", Constant::kNtidY},
      {"%ntid.z", Constant::kNtidZ},
      {"%ctaid.x", Constant::kCtaidX},
      {"%ctaid.y", Constant::kCtaidY},
      {"%ctaid.z", Constant::kCtaidZ},
      {"%nctaid.x", Constant::kNctaidX},
      {"%nctaid.y", Constant::kNctaidY},
      {"%nctaid.z", Constant::kNctaidZ},
      {"%laneid", Constant::kLaneId},
      {"%warpid", Constant::kWarpId},
      {"%nwarpid", Constant::kNwarpId},
      {"%lanemask_eq", Constant::kLanemaskEq},
      {"%lanemask_le", Constant::kLanemaskLe},
      {"%lanemask_lt", Constant::kLanemaskLt},
      {"%lanemask_ge", Constant::kLanemaskGe},
      {"%lanemask_gt", Constant::kLanemaskGt},
      {"%dynamic_smem_size", Constant::kDynamicShared},
      {"%total_smem_size", Constant::kTotalShared},
  };
  return *specials;
}

// What a name stands for in a scope.
struct Symbol {
  enum Kind { kRegister, kRange, kShared, kLocal, kKernelParam, kGlobal } kind = kRegister;
  char width = '4';     // kRegister, kRange
  uint32_t offset = 0;  // of the register, or in the space
  uint32_t count = 0;   // kRange
};

// The processor's control word for a rounding mode and flushing of subnormals.
uint32_t ControlWord(string_view rounding, bool flush) {
  return 0x1f80 |
         (rounding == "rz"   ? 0x6000
          : rounding == "rm" ? 0x2000
          : rounding == "rp" ? 0x4000
                             : 0) |
         (flush ? 0x8040 : 0);
}
constexpr uint32_t kPlainControl = 0x1f80;

class KernelDecoder {
 public:
  KernelDecoder(string_view text, const PtxFile& file, Kernel* kernel)
      : text_(text), file_(file), kernel_(*kernel), program_(*kernel->program) {}

  bool Decode(const Function& function, std::string* error) {
    kernel_.name = std::string(function.name);
    if (function.max_threads) kernel_.max_threads = function.max_threads;
    std::map<std::string, Symbol> params;
    for (const Variable& p : function.params) {
      Symbol symbol;
      symbol.kind = Symbol::kKernelParam;
      symbol.offset = RoundUp(kernel_.param_bytes, p.alignment);
      params[std::string(p.name)] = symbol;
      kernel_.params.push_back({symbol.offset, static_cast<uint32_t>(p.bytes)});
      kernel_.param_bytes = symbol.offset + static_cast<uint32_t>(p.bytes);
    }
    Body(function, params);
    if (error_.empty()) Finish();
    if (!error_.empty()) *error = "kernel " + kernel_.name + ", " + error_;
    return error_.empty();
  }

 private:
  // One function's body, or one inlined copy of it.
  struct Frame {
    const Function* function = nullptr;
    size_t first_scope = 0;
    std::map<string_view, uint32_t> labels;
    std::vector<std::pair<uint32_t, string_view>> jumps;      // instructions to patch
    std::vector<std::pair<uint32_t, string_view>> tables;     // brx: instruction, table's name
    std::map<string_view, std::vector<string_view>> targets;  // the tables
    std::vector<uint32_t> returns;                            // branches to the end
  };

  static uint32_t RoundUp(uint64_t value, uint64_t to) {
    return static_cast<uint32_t>((value + to - 1) / to * to);
  }

  // Only the first problem counts.
  void Problem(const std::string& what) {
    if (error_.empty()) error_ = "line " + std::to_string(line_) + " of its PTX: " + what;
  }
  void Unknown(const Statement& s) {
    Problem("the software GPU does not know \"" + std::string(s.opcode) + "\" in this form");
  }

  // -- registers --

  uint32_t NewRegister(char width) {
    if (width == 'p') {  // these share the space of a register of 4 bytes
      if (next_predicate_ % (4 * kLanes) == 0) next_predicate_ = NewRegister('4');
      next_predicate_ += 4;
      return next_predicate_ - 4;
    }
    const uint32_t bytes = (width == '8' ? 8 : 4) * kLanes;
    next_register_ += bytes;
    kernel_.registers += bytes / (4 * kLanes);
    return next_register_ - bytes;
  }

  uint32_t AddConstant(Constant::Kind kind, uint64_t value, char width,
                       const std::string& symbol = "") {
    if (width == 'p') kind = Constant::kPredicate;
    const auto key = std::make_tuple(kind, value, width, symbol);
    auto [it, added] = constants_.try_emplace(key, 0);
    if (added) {
      Constant c;
      c.kind = kind;
      c.value = value;
      c.width = width == '8' ? 8 : 4;
      c.symbol = symbol;
      c.offset = it->second = NewRegister(width);
      program_.constants.push_back(c);
    }
    return it->second;
  }
  uint32_t Value(uint64_t bits, char width) {
    return AddConstant(Constant::kValue, width == '8' ? bits : static_cast<uint32_t>(bits), width);
  }

  Symbol* Find(string_view name) {
    for (size_t i = scopes_.size(); i-- > frames_.back().first_scope;) {
      auto& scope = scopes_[i];
      const std::string key(name);
      auto it = scope.find(key);
      if (it != scope.end()) return &it->second;
      const size_t digits = name.find_last_not_of("0123456789") + 1;
      if (digits == name.size()) continue;
      it = scope.find(std::string(name.substr(0, digits)) + "<");
      if (it == scope.end()) continue;
      const uint32_t number = static_cast<uint32_t>(std::stoul(std::string(name.substr(digits))));
      if (number >= it->second.count) continue;
      Symbol symbol;
      symbol.width = it->second.width;
      symbol.offset = NewRegister(symbol.width);
      return &scope.emplace(key, symbol).first->second;
    }
    return ModuleVariable(name);
  }

  Symbol* ModuleVariable(string_view name) {
    const auto known = module_symbols_.find(name);
    if (known != module_symbols_.end()) return &known->second;
    for (const Variable& v : file_.variables) {
      if (v.name != name) continue;
      Symbol symbol;
      if (v.space != "shared") {
        symbol.kind = Symbol::kGlobal;
      } else {
        symbol.kind = Symbol::kShared;
        symbol.offset = v.bytes == 0 ? kDynamic : PlaceShared(v);
      }
      return &module_symbols_.emplace(v.name, symbol).first->second;
    }
    return nullptr;
  }

  uint32_t PlaceShared(const Variable& v) {
    const uint32_t at = RoundUp(kernel_.static_shared_bytes, v.alignment);
    kernel_.static_shared_bytes = at + static_cast<uint32_t>(v.bytes);
    return at;
  }
  uint32_t PlaceLocal(const Variable& v) {
    const uint32_t at = RoundUp(kernel_.local_bytes, std::max(v.alignment, 8u));
    kernel_.local_bytes = at + static_cast<uint32_t>(v.bytes);
    return at;
  }

  // -- instructions --

  Instruction* Emit(Handler run) {
    Instruction in;
    in.run = run;
    in.line = line_;
    in.guard = guard_;
    in.guard_flip = guard_flip_;
    in.more = kNoRegister;
    program_.code.push_back(in);
    return &program_.code.back();
  }
  Instruction* EmitOperation(const std::string& key, uint32_t d, std::vector<uint32_t> sources) {
    const auto it = Operations().find(key);
    if (it == Operations().end()) {
      Problem("the software GPU does not know \"" + key + "\"");
      return nullptr;
    }
    Instruction* in = Emit(it->second.run);
    in->d = d;
    std::copy(sources.begin(), sources.end(), in->s);
    return in;
  }

  uint32_t AddressOf(const Symbol& symbol, string_view name, int64_t offset, char width) {
    switch (symbol.kind) {
      case Symbol::kGlobal:
        return AddConstant(Constant::kSymbol, offset, width, std::string(name));
      case Symbol::kShared:
        if (symbol.offset == kDynamic) {
          // Where it begins is known at the end.
          return AddConstant(Constant::kSymbol, offset, width, kDynamicName);
        }
        return Value(symbol.offset + offset, width);
      default:
        return Value(symbol.offset + offset, width);
    }
  }

  // The register that holds an operand with lanes of `width`.
  uint32_t Source(const Operand& o, char width) {
    switch (o.kind) {
      case Operand::kInteger:
        return width == 'p' ? Value(o.bits ? kAllLanes : 0, 'p') : Value(o.bits, width);
      case Operand::kFloat:
        if (width == '8') {
          return Value(BitCast<uint64_t>(double{BitCast<float>(static_cast<uint32_t>(o.bits))}),
                       '8');
        }
        return Value(o.bits, width);
      case Operand::kDouble:
        if (width == '4') {
          return Value(BitCast<uint32_t>(static_cast<float>(BitCast<double>(o.bits))), '4');
        }
        return Value(o.bits, width);
      case Operand::kName:
        break;
      default:
        Problem("an operand isn't of a form that the software GPU knows here");
        return 0;
    }
    if (o.name == "WARP_SZ") return Value(kLanes, width);
    if (o.name[0] == '%' && Specials().count(o.name)) {
      return AddConstant(Specials().at(o.name), 0, '4');
    }
    const Symbol* symbol = Find(o.name);
    if (!symbol) {
      Problem("the software GPU does not know \"" + std::string(o.name) + "\"");
      return 0;
    }
    if (symbol->kind != Symbol::kRegister) return AddressOf(*symbol, o.name, o.offset, width);
    if (symbol->width == width) return symbol->offset;
    if (symbol->width == '8' && width == '4') {
      // Of a wider register the low part counts.
      const uint32_t from = symbol->offset, low = NewRegister('4');
      EmitOperation("narrow", low, {from});
      return low;
    }
    Problem("\"" + std::string(o.name) + "\" is too narrow");
    return 0;
  }

  // The predicate of an operand like %p or !%p.
  uint32_t Predicate(const Operand& o, int64_t* flip) {
    *flip = o.negated ? -1 : 0;
    return Source(o, 'p');
  }

  // Where a result goes. Into a wider register it is extended by Widen after the instruction.
  struct Target {
    uint32_t offset = kNoRegister;
    uint32_t wide = kNoRegister;
  };
  Target Destination(string_view name, char width) {
    Target target;
    if (name == "_" || name.empty()) {
      target.offset = NewRegister(width);
      return target;
    }
    const Symbol* symbol = Find(name);
    if (!symbol || symbol->kind != Symbol::kRegister) {
      Problem("\"" + std::string(name) + "\" is no register");
    } else if (symbol->width == width) {
      target.offset = symbol->offset;
    } else if (symbol->width == '8' && width == '4') {
      target.wide = symbol->offset;
      target.offset = NewRegister('4');
    } else {
      Problem("\"" + std::string(name) + "\" does not fit the instruction");
    }
    return target;
  }
  void Widen(const Target& target, string_view type) {
    if (target.wide == kNoRegister) return;
    EmitOperation(!type.empty() && type[0] == 's' ? "widen.s" : "widen.u", target.wide,
                  {target.offset});
  }

  bool Operands(const Statement& s, size_t least, size_t most) {
    if (s.operands.size() >= least && s.operands.size() <= most) return true;
    Unknown(s);
    return false;
  }

  // -- statements --

  void Body(const Function& function, const std::map<std::string, Symbol>& params) {
    for (const Frame& f : frames_) {
      if (f.function == &function) {
        return Problem("function " + std::string(function.name) +
                       " calls itself, which the software GPU does not know");
      }
    }
    Frame frame;
    frame.function = &function;
    frame.first_scope = scopes_.size();
    frames_.push_back(frame);
    scopes_.push_back(params);
    BodyParser parser(text_, function);
    Statement s;
    while (error_.empty()) {
      std::string problem;
      if (!parser.Next(&s, &problem)) {
        error_ = problem;
        return;
      }
      if (s.kind == Statement::kEnd) break;
      line_ = s.line;
      OneStatement(s);
    }
    if (!error_.empty()) return;
    guard_ = kTrue;
    guard_flip_ = 0;
    if (function.entry) Emit(&Exit);
    const Frame& f = frames_.back();
    const uint32_t end = static_cast<uint32_t>(program_.code.size());
    for (uint32_t at : f.returns) program_.code[at].immediate = end;
    const auto place = [&](string_view label) -> uint32_t {
      const auto it = f.labels.find(label);
      if (it != f.labels.end()) return it->second;
      Problem("there is no label \"" + std::string(label) + "\"");
      return 0;
    };
    for (const auto& [at, label] : f.jumps) program_.code[at].immediate = place(label);
    for (const auto& [at, name] : f.tables) {
      const auto table = f.targets.find(name);
      if (table == f.targets.end()) return Problem("a branch has no table");
      program_.code[at].more = static_cast<uint32_t>(program_.operands.size());
      program_.code[at].count = static_cast<uint32_t>(table->second.size());
      for (string_view label : table->second) program_.operands.push_back(place(label));
    }
    scopes_.resize(f.first_scope);
    frames_.pop_back();
  }

  void OneStatement(const Statement& s) {
    switch (s.kind) {
      case Statement::kEnd:
        return;
      case Statement::kOpen:
        scopes_.emplace_back();
        return;
      case Statement::kClose:
        scopes_.pop_back();
        return;
      case Statement::kLabel:
        frames_.back().labels[s.name] = static_cast<uint32_t>(program_.code.size());
        last_label_ = s.name;
        return;
      case Statement::kTargets:
        for (const Operand& o : s.operands) frames_.back().targets[last_label_].push_back(o.name);
        return;
      case Statement::kRegisters:
        return DeclareRegisters(s);
      case Statement::kVariables:
        return DeclareVariables(s);
      case Statement::kInstruction:
        guard_ = kTrue;
        guard_flip_ = 0;
        if (!s.guard.empty()) {
          Operand o;
          o.name = s.guard;
          guard_ = Source(o, 'p');
          guard_flip_ = s.guard_negated ? kAllLanes : 0;
        }
        return OneInstruction(s);
    }
  }

  void DeclareRegisters(const Statement& s) {
    if (!TypeBytes(s.type) || TypeBytes(s.type) > 8) {
      return Problem("the software GPU does not know registers of type \"" + std::string(s.type) +
                     "\"");
    }
    for (const auto& r : s.registers) {
      Symbol symbol;
      symbol.width = WidthOf(s.type);
      if (r.count) {
        symbol.kind = Symbol::kRange;
        symbol.count = r.count;
        scopes_.back()[std::string(r.name) + "<"] = symbol;
      } else {
        symbol.offset = NewRegister(symbol.width);
        scopes_.back()[std::string(r.name)] = symbol;
      }
    }
  }

  void DeclareVariables(const Statement& s) {
    for (const Variable& v : s.variables) {
      Symbol symbol;
      if (v.space == "shared") {
        // Every inlined copy of a function has the same one.
        symbol.kind = Symbol::kShared;
        const auto key = std::make_pair(frames_.back().function, v.name);
        const auto it = shared_places_.find(key);
        symbol.offset = it != shared_places_.end() ? it->second : PlaceShared(v);
        shared_places_[key] = symbol.offset;
      } else if (v.space == "local" || v.space == "param") {
        symbol.kind = Symbol::kLocal;
        symbol.offset = PlaceLocal(v);
      } else {
        return Problem("the software GPU does not know variables of space \"" +
                       std::string(v.space) + "\" within functions");
      }
      scopes_.back()[std::string(v.name)] = symbol;
    }
  }

  void OneInstruction(const Statement& s) {
    const string_view op = s.parts[0];
    if (op == "mov") return Move(s);
    if (op == "ld" || op == "ldu") return LoadOrStore(s, true);
    if (op == "st") return LoadOrStore(s, false);
    if (op == "atom" || op == "red") return AtomicOperation(s);
    if (op == "setp") return SetPredicate(s);
    if (op == "set") return SetValue(s);
    if (op == "selp") return Select(s);
    if (op == "cvt") return Convert(s);
    if (op == "cvta") return ConvertAddress(s);
    if (op == "isspacep") return IsSpaceOf(s);
    if (op == "bra" || op == "brx" || op == "call" || op == "ret" || op == "exit" || op == "trap") {
      return Control(s);
    }
    if (op == "bar" || op == "barrier") return BarrierOf(s);
    if (op == "shfl" || op == "vote" || op == "match" || op == "redux" || op == "activemask") {
      return WarpOperation(s);
    }
    // Memory is always coherent here, and caches and clocks don't exist.
    static const auto* const nothing = new std::set<string_view>{
        "membar",         "fence",   "prefetch",      "prefetchu", "nanosleep",
        "griddepcontrol", "discard", "applypriority", "brkpt"};
    if (nothing->count(op)) return;
    if (s.parts.back() == "pred") return LogicOfPredicates(s);
    Arithmetic(s);
  }

  // What the table knows, under the opcode without the words that change only how it rounds.
  void Arithmetic(const Statement& s) {
    const string_view type = s.parts.back();
    std::string key(s.parts[0]);
    string_view rounding = "rn";
    bool flush = false, saturate = false;
    for (size_t i = 1; i < s.parts.size(); ++i) {
      const string_view part = s.parts[i];
      if (part == "rn" || part == "rz" || part == "rm" || part == "rp") {
        rounding = part;
      } else if (part == "ftz") {
        flush = true;
      } else if (part == "sat" && IsFloat(type)) {
        saturate = true;
      } else if (part == "approx" && type == "f64" && key == "rcp") {
        key += ".approx";
      } else if (part != "approx" && part != "full" && part != "noftz") {
        key += "." + std::string(part);
      }
    }
    const auto it = Operations().find(key);
    if (it == Operations().end()) return Unknown(s);
    const Operation& operation = it->second;
    const bool narrow = IsFloat(type) && type != "f32" && type != "f64" && type != "f32x2";
    if (narrow && rounding != "rn") return Unknown(s);
    if (!Operands(s, operation.widths.size(), operation.widths.size())) return;
    uint32_t sources[4] = {};
    for (size_t i = 1; i < s.operands.size(); ++i) {
      sources[i - 1] = Source(s.operands[i], operation.widths[i]);
    }
    const Target d = Destination(s.operands[0].name, operation.widths[0]);
    EmitRounded(operation.run, d.offset, sources,
                narrow ? kPlainControl : ControlWord(rounding, flush));
    if (saturate) EmitOperation("saturate." + std::string(type), d.offset, {d.offset});
    Widen(d, type);
  }

  void EmitRounded(Handler run, uint32_t d, const uint32_t* sources, uint32_t control) {
    Instruction* in = Emit(run);
    in->d = d;
    std::copy(sources, sources + 4, in->s);
    if (control != kPlainControl) {
      in->inner = run;
      in->run = &RunWithControl;
      in->count = control;
    }
  }

  void LogicOfPredicates(const Statement& s) {
    const string_view op = s.parts[0];
    const char how = op == "and"   ? '&'
                     : op == "or"  ? '|'
                     : op == "xor" ? '^'
                     : op == "not" ? '!'
                                   : 0;
    if (!how || s.parts.size() != 2) return Unknown(s);
    if (!Operands(s, how == '!' ? 2 : 3, how == '!' ? 2 : 3)) return;
    const uint32_t a = Source(s.operands[1], 'p');
    const uint32_t b = how == '!' ? a : Source(s.operands[2], 'p');
    Instruction* in = Emit(&CombinePredicates);
    in->d = Destination(s.operands[0].name, 'p').offset;
    in->s[0] = a;
    in->s[1] = b;
    in->count = how;
  }

  void Move(const Statement& s) {
    if (!Operands(s, 2, 2)) return;
    const string_view type = s.parts.back();
    const Operand &to = s.operands[0], &from = s.operands[1];
    if (type == "pred") {
      int64_t flip;
      const uint32_t source = Predicate(from, &flip);
      Instruction* in = Emit(flip ? &CombinePredicates : &MovePredicate);
      in->d = Destination(to.name, 'p').offset;
      in->s[0] = in->s[1] = source;
      in->count = '!';
      return;
    }
    const uint32_t bytes = TypeBytes(type);
    if (!bytes || bytes > 8) return Unknown(s);
    const char width = WidthOf(type);
    if (to.kind == Operand::kVector || from.kind == Operand::kVector) {
      const bool pack = from.kind == Operand::kVector;
      const auto& parts = pack ? from.parts : to.parts;
      const uint32_t piece = bytes / static_cast<uint32_t>(parts.size());
      if (piece == 0 || piece > 4 || (!pack && from.kind == Operand::kVector)) return Unknown(s);
      std::vector<uint32_t> pieces;
      std::vector<Target> targets;
      for (const Operand& part : parts) {
        if (pack) {
          pieces.push_back(Source(part, '4'));
        } else {
          targets.push_back(Destination(part.name, '4'));
          pieces.push_back(targets.back().offset);
        }
      }
      const uint32_t other = pack ? 0 : Source(from, width);
      Instruction* in = Emit(pack ? &Pack : &Unpack);
      in->d = pack ? Destination(to.name, width).offset : 0;
      in->s[0] = other;
      in->immediate = piece;
      AddOperands(in, pieces);
      for (const Target& t : targets) Widen(t, type);
      return;
    }
    if (from.kind == Operand::kName && file_.functions.count(from.name)) {
      return Problem("the software GPU does not know the address of function " +
                     std::string(from.name));
    }
    if (from.kind == Operand::kName && (from.name == "%clock" || from.name == "%clock_hi")) {
      return Unknown(s);
    }
    const Symbol* symbol = from.kind == Operand::kName ? Find(from.name) : nullptr;
    const bool wide_source = symbol && symbol->kind == Symbol::kRegister && symbol->width == '8';
    const uint32_t source = Source(from, width == '4' && wide_source ? '4' : width);
    if (width == '8' && from.kind == Operand::kName && Specials().count(from.name)) {
      EmitOperation("widen.u", Destination(to.name, '8').offset, {source});
      return;
    }
    const Target d = Destination(to.name, width);
    EmitOperation(width == '8' ? "copy.8" : "copy.4", d.offset, {source});
    Widen(d, type);
  }

  void AddOperands(Instruction* in, const std::vector<uint32_t>& operands) {
    in->more = static_cast<uint32_t>(program_.operands.size());
    in->count = static_cast<uint32_t>(operands.size());
    program_.operands.insert(program_.operands.end(), operands.begin(), operands.end());
  }

  // Fills what Addresses() in memory_operations.cc reads.
  struct Address {
    uint32_t base = 0;
    uint32_t narrow = 0;
    int64_t offset = 0;
    string_view space;   // known from the symbol, or empty
    bool fixed = false;  // offset alone is the address
  };
  Address AddressOperand(const Operand& o) {
    Address a;
    if (o.kind != Operand::kAddress) {
      Problem("an address was expected");
      return a;
    }
    a.offset = o.offset;
    if (o.name.empty()) {
      a.base = Value(0, '8');
      a.fixed = true;
      return a;
    }
    const Symbol* symbol = Find(o.name);
    if (!symbol) {
      Problem("the software GPU does not know \"" + std::string(o.name) + "\"");
      return a;
    }
    if (symbol->kind == Symbol::kRegister) {
      a.base = symbol->offset;
      a.narrow = symbol->width == '4';
      return a;
    }
    const bool fixed = symbol->kind == Symbol::kLocal || symbol->kind == Symbol::kKernelParam;
    a.space = symbol->kind == Symbol::kShared        ? "shared"
              : symbol->kind == Symbol::kLocal       ? "local"
              : symbol->kind == Symbol::kKernelParam ? "param"
                                                     : "global";
    if (fixed) {
      a.offset += symbol->offset;
      a.fixed = true;
      a.base = Value(0, '8');
    } else {
      a.base = AddressOf(*symbol, o.name, 0, '8');
    }
    return a;
  }

  static string_view SpaceOf(const Statement& s) {
    for (string_view part : s.parts) {
      const string_view space = part.substr(0, part.find("::"));
      if (space == "global" || space == "const") return "global";
      if (space == "shared" || space == "local" || space == "param") {
        return part == "shared::cluster" ? "unknown" : space;
      }
    }
    return "generic";
  }

  void LoadOrStore(const Statement& s, bool load) {
    if (!Operands(s, 2, 3)) return;  // the third is a hint to the cache
    const string_view type = s.parts.back();
    if (!TypeBytes(type) || TypeBytes(type) > 8) return Unknown(s);
    const Operand& values = s.operands[load ? 0 : 1];
    Address address = AddressOperand(s.operands[load ? 1 : 0]);
    string_view space = SpaceOf(s);
    // Parameters of inlined functions are local memory.
    if (space == "param" && !address.space.empty()) space = address.space;
    std::vector<const Operand*> parts;
    if (values.kind == Operand::kVector) {
      for (const Operand& o : values.parts) parts.push_back(&o);
    } else {
      parts.push_back(&values);
    }
    const char width = WidthOf(type);
    if (load && space == "param" && address.fixed) {
      // The same for all threads of a launch.
      for (size_t i = 0; i < parts.size(); ++i) {
        const uint64_t at = address.offset + i * TypeBytes(type);
        const Target d = Destination(parts[i]->name, width);
        EmitOperation(width == '8' ? "copy.8" : "copy.4", d.offset,
                      {ParamConstant(at, type, width)});
        Widen(d, type);
      }
      return;
    }
    const int count = static_cast<int>(parts.size());
    const Handler handler = load ? FindLoad(space, type, count) : FindStore(space, type, count);
    if (!handler) return Unknown(s);
    std::vector<uint32_t> registers;
    std::vector<Target> targets;
    for (const Operand* o : parts) {
      if (!load) {
        registers.push_back(Source(*o, width));
      } else if (o->name == "_") {
        registers.push_back(kNoRegister);
      } else {
        targets.push_back(Destination(o->name, width));
        registers.push_back(targets.back().offset);
      }
    }
    Instruction* in = Emit(handler);
    in->s[0] = address.base;
    in->s[1] = address.narrow;
    in->immediate = address.offset;
    if (count > 1) {
      AddOperands(in, registers);
    } else if (load) {
      in->d = registers[0] == kNoRegister ? NewRegister(width) : registers[0];
    } else {
      in->s[2] = registers[0];
    }
    for (const Target& t : targets) Widen(t, type);
  }

  uint32_t ParamConstant(uint64_t at, string_view type, char width) {
    const bool sign = type[0] == 's' && TypeBytes(type) < 4;
    return AddConstant(Constant::kParam,
                       at | uint64_t{TypeBytes(type)} << 32 | uint64_t{sign} << 40, width);
  }

  void AtomicOperation(const Statement& s) {
    static const auto* const operations = new std::set<string_view>{
        "add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas"};
    const bool result = s.parts[0] == "atom";
    string_view operation;
    for (string_view part : s.parts) {
      if (operations->count(part)) operation = part;
      if (part == "v2" || part == "v4" || part == "v8") return Unknown(s);
    }
    const size_t inputs = operation == "cas" ? 2 : 1;
    if (!Operands(s, inputs + 1 + result, inputs + 2 + result)) return;
    string_view space = SpaceOf(s);
    const string_view type = s.parts.back();
    const Handler handler = FindAtomic(space, operation, type);
    if (!handler) return Unknown(s);
    const char width = WidthOf(type);
    const Address address = AddressOperand(s.operands[result]);
    const uint32_t b = Source(s.operands[result + 1], width);
    const uint32_t c = inputs == 2 ? Source(s.operands[result + 2], width) : b;
    const Target d = result ? Destination(s.operands[0].name, width) : Target();
    Instruction* in = Emit(handler);
    in->d = d.offset;
    in->s[0] = address.base;
    in->s[1] = address.narrow;
    in->s[2] = b;
    in->s[3] = c;
    in->immediate = address.offset;
    if (result) Widen(d, type);
  }

  // The comparison of setp and set, into `d` and its opposite into `opposite`.
  void EmitCompare(const Statement& s, string_view comparison, string_view type, uint32_t d,
                   uint32_t opposite, string_view combine) {
    const Handler handler = FindCompare(comparison, type);
    if (!handler) return Unknown(s);
    const char width = WidthOf(type);
    bool flush = false;
    for (string_view part : s.parts) flush |= part == "ftz";
    const uint32_t a = Source(s.operands[1], width), b = Source(s.operands[2], width);
    int64_t flip = 0;
    const uint32_t c = combine.empty() ? 0 : Predicate(s.operands[3], &flip);
    if (flush && type == "f32") {
      // Subnormal numbers count as zero: a product with one that flushes makes them that.
      const uint32_t one = Value(BitCast<uint32_t>(1.0f), '4');
      const uint32_t flushed[2] = {NewRegister('4'), NewRegister('4')};
      const Handler multiply = Operations().at("mul.f32").run;
      const uint32_t first[4] = {a, one}, second[4] = {b, one};
      EmitRounded(multiply, flushed[0], first, ControlWord("rn", true));
      EmitRounded(multiply, flushed[1], second, ControlWord("rn", true));
      return EmitCompareOf(handler, d, opposite, flushed[0], flushed[1], c, flip, combine);
    }
    EmitCompareOf(handler, d, opposite, a, b, c, flip, combine);
  }
  void EmitCompareOf(Handler handler, uint32_t d, uint32_t opposite, uint32_t a, uint32_t b,
                     uint32_t c, int64_t flip, string_view combine) {
    Instruction* in = Emit(handler);
    in->d = d;
    in->more = opposite;
    in->s[0] = a;
    in->s[1] = b;
    in->s[2] = c;
    in->immediate = flip;
    in->count = combine == "and" ? '&' : combine == "or" ? '|' : combine == "xor" ? '^' : 0;
  }

  static string_view Combination(const Statement& s) {
    for (string_view part : s.parts) {
      if (part == "and" || part == "or" || part == "xor") return part;
    }
    return {};
  }

  void SetPredicate(const Statement& s) {
    const string_view combine = Combination(s);
    const size_t operands = combine.empty() ? 3 : 4;
    if (!Operands(s, operands, operands)) return;
    if (s.parts.back() == "f16x2" || s.parts.back() == "bf16x2") return Unknown(s);
    const Operand& d = s.operands[0];
    const uint32_t p = d.name == "_" ? kNoRegister : Destination(d.name, 'p').offset;
    const uint32_t q =
        d.second.empty() || d.second == "_" ? kNoRegister : Destination(d.second, 'p').offset;
    EmitCompare(s, s.parts[1], s.parts.back(), p, q, combine);
  }

  // set: all ones (or 1.0) where the comparison holds.
  void SetValue(const Statement& s) {
    const string_view combine = Combination(s);
    const size_t operands = combine.empty() ? 3 : 4;
    if (!Operands(s, operands, operands) || s.parts.size() < 4) return;
    const string_view to = s.parts[s.parts.size() - 2], type = s.parts.back();
    if (type == "f16x2" || type == "bf16x2") {
      const Handler handler = FindCompare(s.parts[1], type);
      if (!handler || !combine.empty()) return Unknown(s);
      const uint32_t a = Source(s.operands[1], '4'), b = Source(s.operands[2], '4');
      const uint32_t d = Destination(s.operands[0].name, '4').offset;
      Instruction* in = Emit(handler);
      in->d = d;
      in->s[0] = a;
      in->s[1] = b;
      // Pairs of floats become 1.0.
      if (to == "f16x2") EmitOperation("and.b32", d, {d, Value(0x3c003c00, '4')});
      if (to == "bf16x2") EmitOperation("and.b32", d, {d, Value(0x3f803f80, '4')});
      return;
    }
    const uint32_t p = NewRegister('p');
    EmitCompare(s, s.parts[1], type, p, kNoRegister, combine);
    const uint64_t yes = to == "f32"                                 ? BitCast<uint32_t>(1.0f)
                         : to == "f16"                               ? 0x3c00
                         : to == "bf16"                              ? 0x3f80
                         : to == "u16" || to == "s16" || to == "b16" ? 0xffff
                                                                     : 0xffffffff;
    const Target d = Destination(s.operands[0].name, '4');
    const uint32_t one = Value(yes, '4'), zero = Value(0, '4');
    Instruction* in = Emit(&Select4);
    in->d = d.offset;
    in->s[0] = one;
    in->s[1] = zero;
    in->s[2] = p;
    Widen(d, to);
  }

  void Select(const Statement& s) {
    if (!Operands(s, 4, 4)) return;
    const char width = WidthOf(s.parts.back());
    const uint32_t a = Source(s.operands[1], width), b = Source(s.operands[2], width);
    const uint32_t p = Source(s.operands[3], 'p');
    const Target d = Destination(s.operands[0].name, width);
    Instruction* in = Emit(width == '8' ? &Select8 : &Select4);
    in->d = d.offset;
    in->s[0] = a;
    in->s[1] = b;
    in->s[2] = p;
    Widen(d, s.parts.back());
  }

  void Convert(const Statement& s) {
    if (s.parts.size() < 3) return Unknown(s);
    const string_view to = s.parts[s.parts.size() - 2], from = s.parts.back();
    string_view rounding = "rn", whole;
    bool flush = false, saturate = false, relu = false;
    for (size_t i = 1; i + 2 < s.parts.size(); ++i) {
      const string_view part = s.parts[i];
      if (part == "rn" || part == "rz" || part == "rm" || part == "rp") {
        rounding = part;
      } else if (part == "rni" || part == "rzi" || part == "rmi" || part == "rpi") {
        whole = part;
      } else if (part == "ftz") {
        flush = true;
      } else if (part == "sat") {
        saturate = true;
      } else if (part == "relu") {
        relu = true;
      } else {
        return Unknown(s);
      }
    }
    std::string key = "cvt.";
    const bool narrow = to == "f16" || to == "bf16" || to == "f16x2" || to == "bf16x2";
    if (narrow && rounding != "rn") key += std::string(rounding) + ".";
    if (relu) key += "relu.";
    if (!whole.empty()) key += std::string(whole) + ".";
    if (saturate && !IsFloat(to) && !IsFloat(from)) key += "sat.";
    key += std::string(to) + "." + std::string(from);
    const auto it = Operations().find(key);
    if (it == Operations().end()) return Unknown(s);
    const Operation& operation = it->second;
    if (!Operands(s, operation.widths.size(), operation.widths.size())) return;
    uint32_t sources[4] = {};
    for (size_t i = 1; i < s.operands.size(); ++i) {
      sources[i - 1] = Source(s.operands[i], operation.widths[i]);
    }
    const Target d = Destination(s.operands[0].name, operation.widths[0]);
    if (flush && key == "cvt.f32.f32") {
      // A copy would keep subnormal numbers; a product with one does not.
      sources[1] = Value(BitCast<uint32_t>(1.0f), '4');
      EmitRounded(Operations().at("mul.f32").run, d.offset, sources, ControlWord("rn", true));
    } else {
      EmitRounded(operation.run, d.offset, sources,
                  narrow ? kPlainControl : ControlWord(rounding, flush));
    }
    if (saturate && IsFloat(to)) EmitOperation("saturate." + std::string(to), d.offset, {d.offset});
    Widen(d, to);
  }

  static std::optional<uint64_t> Tag(string_view space) {
    space = space.substr(0, space.find("::"));
    if (space == "global" || space == "const") return 0;
    if (space == "shared") return kSharedTag;
    if (space == "local") return kLocalTag;
    if (space == "param") return kParamTag;
    return std::nullopt;
  }

  void ConvertAddress(const Statement& s) {
    if (!Operands(s, 2, 2)) return;
    const bool to = s.parts[1] == "to";
    const auto tag = Tag(s.parts[to ? 2 : 1]);
    if (!tag || WidthOf(s.parts.back()) != '8') return Unknown(s);
    const uint32_t a = Source(s.operands[1], '8');
    const uint32_t d = Destination(s.operands[0].name, '8').offset;
    EmitOperation("add.address", d, {a, Value(to ? 0 - *tag : *tag, '8')});
  }

  void IsSpaceOf(const Statement& s) {
    if (!Operands(s, 2, 2)) return;
    const auto tag = Tag(s.parts[1]);
    if (!tag) return Unknown(s);
    const uint32_t a = Source(s.operands[1], '8');
    Instruction* in = Emit(&IsSpace);
    in->d = Destination(s.operands[0].name, 'p').offset;
    in->s[0] = a;
    in->immediate = static_cast<int64_t>(*tag);
  }

  void Control(const Statement& s) {
    const string_view op = s.parts[0];
    Frame& frame = frames_.back();
    if (op == "call") return Call(s);
    if (op == "trap") {
      Emit(&Trap);
    } else if (op == "exit" || (op == "ret" && frame.function->entry)) {
      Emit(&Exit);
    } else if (op == "ret") {
      frame.returns.push_back(static_cast<uint32_t>(program_.code.size()));
      Emit(&Branch);
    } else if (op == "bra") {
      if (!Operands(s, 1, 1)) return;
      frame.jumps.emplace_back(program_.code.size(), s.operands[0].name);
      Emit(&Branch);
    } else {
      if (!Operands(s, 2, 2)) return;
      const uint32_t index = Source(s.operands[0], '4');
      frame.tables.emplace_back(program_.code.size(), s.operands[1].name);
      Emit(&BranchIndexed)->s[0] = index;
    }
  }

  void Call(const Statement& s) {
    size_t at = 0;
    std::vector<Operand> results, arguments;
    if (at < s.operands.size() && s.operands[at].kind == Operand::kList) {
      results = s.operands[at++].parts;
    }
    if (at == s.operands.size() || s.operands[at].kind != Operand::kName) return Unknown(s);
    const string_view name = s.operands[at++].name;
    if (at < s.operands.size() && s.operands[at].kind == Operand::kList) {
      arguments = s.operands[at].parts;
    }
    const auto it = file_.functions.find(name);
    if (it == file_.functions.end()) {
      return Problem("the software GPU does not know calls through pointers");
    }
    const Function& function = it->second;
    // Arguments and results are variables of the caller's, which the callee reads and writes.
    const auto places = [&](const std::vector<Operand>& operands, std::vector<uint32_t>* offsets) {
      for (const Operand& o : operands) {
        const Symbol* symbol = Find(o.name);
        if (!symbol || symbol->kind != Symbol::kLocal) return Unknown(s);
        offsets->push_back(symbol->offset);
      }
    };
    std::vector<uint32_t> from, to;
    places(arguments, &from);
    places(results, &to);
    if (!error_.empty()) return;
    if (name == "vprintf" && from.size() == 2) {
      Instruction* in = Emit(&CallPrintf);
      in->immediate = from[0];
      in->count = from[1];
      in->d = to.empty() ? kNoRegister : to[0];
      return;
    }
    if (name == "__assertfail" && from.size() == 5) {
      AddOperands(Emit(&CallAssertFail), from);
      return;
    }
    if (!function.defined) {
      return Problem("the software GPU does not know the function " + std::string(name));
    }
    if (from.size() != function.params.size() || to.size() != function.returns.size()) {
      return Unknown(s);
    }
    std::map<std::string, Symbol> names;
    Symbol symbol;
    symbol.kind = Symbol::kLocal;
    for (size_t i = 0; i < from.size(); ++i) {
      symbol.offset = from[i];
      names[std::string(function.params[i].name)] = symbol;
    }
    for (size_t i = 0; i < to.size(); ++i) {
      symbol.offset = to[i];
      names[std::string(function.returns[i].name)] = symbol;
    }
    // The threads for which the guard doesn't hold go around the callee.
    uint32_t around = kNoRegister;
    if (guard_ != kTrue) {
      around = static_cast<uint32_t>(program_.code.size());
      Emit(&Branch)->guard_flip ^= kAllLanes;
    }
    Body(function, names);
    if (around != kNoRegister) program_.code[around].immediate = program_.code.size();
  }

  void BarrierOf(const Statement& s) {
    const auto has = [&](string_view word) {
      return std::find(s.parts.begin(), s.parts.end(), word) != s.parts.end();
    };
    if (has("warp")) {
      if (!Operands(s, 1, 1)) return;
      const uint32_t members = Source(s.operands[0], '4');
      Emit(FindWarpOperation("bar.warp"))->s[3] = members;
      return;
    }
    if (has("arrive") || has("cluster")) return Unknown(s);
    const bool reduce = has("red");
    const size_t first = reduce ? 1 : 0;
    if (!Operands(s, 1 + 2 * first, 2 + 2 * first)) return;
    const uint32_t id = Source(s.operands[first], '4');
    const bool counted = s.operands.size() == 2 + 2 * first;
    const uint32_t count = counted ? Source(s.operands[first + 1], '4') : kNoRegister;
    // Barriers of a part of the block, or of another number than 0, make several of them possible
    // at once.
    const Operand& which = s.operands[first];
    if (counted || which.kind != Operand::kInteger || which.bits != 0) {
      program_.partial_barriers = true;
    }
    int64_t flip = 0;
    const uint32_t p = reduce ? Predicate(s.operands.back(), &flip) : 0;
    const char how = !reduce ? 0 : has("popc") ? '+' : has("and") ? '&' : '|';
    const uint32_t d =
        reduce ? Destination(s.operands[0].name, how == '+' ? '4' : 'p').offset : kNoRegister;
    Instruction* in = Emit(&Barrier);
    in->d = d;
    in->s[0] = id;
    in->s[1] = count;
    in->s[2] = p;
    in->immediate = flip;
    in->count = how;
  }

  void WarpOperation(const Statement& s) {
    std::string name;
    for (string_view part : s.parts) {
      if (part != "sync") name += (name.empty() ? "" : ".") + std::string(part);
    }
    const string_view op = s.parts[0];
    const Handler handler = FindWarpOperation(name);
    // Without .sync the older architectures' meaning is meant.
    const bool sync = std::find(s.parts.begin(), s.parts.end(), "sync") != s.parts.end();
    if (!handler || (op != "activemask" && !sync)) return Unknown(s);
    const size_t operands = op == "shfl" ? 5 : op == "activemask" ? 1 : 3;
    if (!Operands(s, operands, operands)) return;
    const char width = op == "match" && s.parts.back() == "b64" ? '8' : '4';
    uint32_t sources[4] = {};
    int64_t flip = 0;
    if (op == "shfl") {
      for (int i = 0; i < 4; ++i) sources[i] = Source(s.operands[i + 1], '4');
    } else if (op != "activemask") {
      sources[0] = op == "vote" ? Predicate(s.operands[1], &flip) : Source(s.operands[1], width);
      sources[3] = Source(s.operands[2], '4');
    }
    const Operand& to = s.operands[0];
    const Target d = Destination(to.name, s.parts.back() == "pred" ? 'p' : '4');
    const uint32_t p =
        to.second.empty() || to.second == "_" ? kNoRegister : Destination(to.second, 'p').offset;
    Instruction* in = Emit(handler);
    in->d = d.offset;
    std::copy(sources, sources + 4, in->s);
    in->more = p;
    in->immediate = flip;
    Widen(d, "u32");
  }

  void Finish() {
    program_.register_bytes = RoundUp(next_register_, 64);
    kernel_.local_bytes = RoundUp(kernel_.local_bytes, 16);
    for (Constant& c : program_.constants) {
      if (c.symbol != kDynamicName) continue;
      c.kind = Constant::kValue;
      c.value += RoundUp(kernel_.static_shared_bytes, 16);
      c.symbol.clear();
    }
  }

  static constexpr uint32_t kDynamic = ~0u;
  static constexpr const char* kDynamicName = "dynamic shared memory";

  string_view text_;
  const PtxFile& file_;
  Kernel& kernel_;
  Program& program_;
  std::string error_;
  uint32_t line_ = 0;
  uint32_t guard_ = kTrue, guard_flip_ = 0;
  uint32_t next_predicate_ = kCarry + 4;
  uint32_t next_register_ = 4 * kLanes;
  std::vector<Frame> frames_;
  std::vector<std::map<std::string, Symbol>> scopes_;
  std::map<string_view, Symbol> module_symbols_;
  std::map<std::pair<const Function*, string_view>, uint32_t> shared_places_;
  std::map<std::tuple<Constant::Kind, uint64_t, char, std::string>, uint32_t> constants_;
  string_view last_label_;
};

}  // namespace

bool DecodeKernel(string_view text, const PtxFile& file, const Function& function, Kernel* kernel,
                  std::string* error) {
  return KernelDecoder(text, file, kernel).Decode(function, error);
}

}  // namespace softgpu
