// The ops' registry, and the language of its definitions: see op_def.h.
#include "runtime/op/op_def.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/text_format.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

using proto::AttrValue;
using proto::OpDef;

// More arguments than any op has; keeps a damaged graph from asking for vectors of any length.
constexpr int64_t kMaxArgs = 1 << 20;

const DType kNumberTypes[] = {
    DType::kFloat,      DType::kDouble,    DType::kInt32,  DType::kUint8,   DType::kInt16,
    DType::kInt8,       DType::kComplex64, DType::kInt64,  DType::kQint8,   DType::kQuint8,
    DType::kQint32,     DType::kBfloat16,  DType::kQint16, DType::kQuint16, DType::kUint16,
    DType::kComplex128, DType::kHalf,      DType::kUint32, DType::kUint64};
const DType kRealNumberTypes[] = {DType::kFloat,  DType::kDouble, DType::kInt32,  DType::kUint8,
                                  DType::kInt16,  DType::kInt8,   DType::kInt64,  DType::kBfloat16,
                                  DType::kUint16, DType::kHalf,   DType::kUint32, DType::kUint64};

// ---------------------------------------------------------------------------------------------
// Parsing specifications.

// Walks through one specification.
class Reader {
 public:
  explicit Reader(absl::string_view spec) : spec_(spec), rest_(spec) {}

  void SkipSpace() { rest_ = absl::StripLeadingAsciiWhitespace(rest_); }
  bool AtEnd() {
    SkipSpace();
    return rest_.empty();
  }
  // Takes `token` if it comes next.
  bool Take(absl::string_view token) {
    SkipSpace();
    return absl::ConsumePrefix(&rest_, token);
  }
  // A name: letters, digits and '_'. Empty if none comes next.
  absl::string_view Word() {
    SkipSpace();
    size_t n = 0;
    while (n < rest_.size() && (absl::ascii_isalnum(rest_[n]) || rest_[n] == '_')) ++n;
    return Cut(n);
  }
  // A number as strtod knows them. Empty if none comes next.
  absl::string_view Number() {
    SkipSpace();
    size_t n = 0;
    while (n < rest_.size() && (absl::ascii_isalnum(rest_[n]) || rest_[n] == '.' ||
                                rest_[n] == '-' || rest_[n] == '+')) {
      ++n;
    }
    return Cut(n);
  }
  // 'x' or "x", with C's escapes.
  absl::Status Quoted(std::string* out) {
    SkipSpace();
    if (rest_.empty() || (rest_[0] != '\'' && rest_[0] != '"')) return Error("a quoted string");
    size_t end = 1;
    while (end < rest_.size() && rest_[end] != rest_[0]) end += rest_[end] == '\\' ? 2 : 1;
    if (end >= rest_.size()) return Error("a closing quote");
    if (!absl::CUnescape(rest_.substr(1, end - 1), out)) return Error("valid escapes");
    rest_.remove_prefix(end + 1);
    return absl::OkStatus();
  }
  // What stands between balanced braces.
  absl::Status Braced(absl::string_view* out) {
    SkipSpace();
    int depth = 0;
    for (size_t i = 0; i < rest_.size(); ++i) {
      if (rest_[i] == '{') ++depth;
      if (rest_[i] == '}' && --depth == 0) {
        *out = Cut(i + 1).substr(1);
        out->remove_suffix(1);
        return absl::OkStatus();
      }
      if (depth == 0) break;
    }
    return Error("{...}");
  }
  absl::Status Error(absl::string_view expected) const {
    return InvalidArgument("\"", spec_, "\": ", expected, " expected at \"", rest_, "\"");
  }

 private:
  absl::string_view Cut(size_t n) {
    absl::string_view cut = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return cut;
  }
  absl::string_view spec_, rest_;
};

template <typename Message>
absl::Status ParseMessage(Reader* r, Message* out) {
  absl::string_view text;
  FERRY_RETURN_IF_ERROR(r->Braced(&text));
  if (!google::protobuf::TextFormat::ParseFromString(std::string(text), out)) {
    return r->Error("a message's text form before");
  }
  return absl::OkStatus();
}

absl::Status ParseBool(Reader* r, bool* out) {
  const absl::string_view word = r->Word();
  if (word != "true" && word != "false") return r->Error("true or false");
  *out = word == "true";
  return absl::OkStatus();
}

absl::Status ParseType(Reader* r, proto::DataType* out) {
  const DType t = DTypeFromName(r->Word());
  if (t == DType::kInvalid) return r->Error("a type before");
  *out = static_cast<proto::DataType>(t);
  return absl::OkStatus();
}

// The default of an attribute of `kind` ("int", "list(int)" …).
absl::Status ParseValue(Reader* r, absl::string_view kind, AttrValue* out) {
  if (absl::ConsumePrefix(&kind, "list(")) {
    kind.remove_suffix(1);
    AttrValue::ListValue* list = out->mutable_list();
    if (!r->Take("[")) return r->Error("'['");
    if (r->Take("]")) return absl::OkStatus();
    do {
      AttrValue v;
      FERRY_RETURN_IF_ERROR(ParseValue(r, kind, &v));
      switch (v.value_case()) {
        case AttrValue::kS:
          list->add_s(v.s());
          break;
        case AttrValue::kI:
          list->add_i(v.i());
          break;
        case AttrValue::kF:
          list->add_f(v.f());
          break;
        case AttrValue::kB:
          list->add_b(v.b());
          break;
        case AttrValue::kType:
          list->add_type(v.type());
          break;
        case AttrValue::kShape:
          *list->add_shape() = v.shape();
          break;
        case AttrValue::kTensor:
          *list->add_tensor() = v.tensor();
          break;
        case AttrValue::kFunc:
          *list->add_func() = v.func();
          break;
        default:
          return r->Error("an element");
      }
    } while (r->Take(","));
    return r->Take("]") ? absl::OkStatus() : r->Error("',' or ']'");
  }
  if (kind == "string") return r->Quoted(out->mutable_s());
  if (kind == "int") {
    int64_t i;
    if (!absl::SimpleAtoi(r->Number(), &i)) return r->Error("an integer before");
    out->set_i(i);
    return absl::OkStatus();
  }
  if (kind == "float") {
    float f;
    if (!absl::SimpleAtof(r->Number(), &f)) return r->Error("a number before");
    out->set_f(f);
    return absl::OkStatus();
  }
  if (kind == "bool") {
    bool b = false;
    FERRY_RETURN_IF_ERROR(ParseBool(r, &b));
    out->set_b(b);
    return absl::OkStatus();
  }
  if (kind == "type") {
    proto::DataType t;
    FERRY_RETURN_IF_ERROR(ParseType(r, &t));
    out->set_type(t);
    return absl::OkStatus();
  }
  if (kind == "shape") return ParseMessage(r, out->mutable_shape());
  if (kind == "tensor") return ParseMessage(r, out->mutable_tensor());
  return ParseMessage(r, out->mutable_func());
}

// The kind of an attribute that isn't a list: a word, or a set whose members go to `allowed`.
absl::StatusOr<std::string> ParseKind(Reader* r, AttrValue* allowed) {
  const auto allow = [allowed](DType t) {
    allowed->mutable_list()->add_type(static_cast<proto::DataType>(t));
  };
  const auto allow_named = [&](absl::string_view word) {
    if (word == "numbertype") {
      for (DType t : kNumberTypes) allow(t);
    } else if (word == "realnumbertype") {
      for (DType t : kRealNumberTypes) allow(t);
    } else if (DTypeFromName(word) != DType::kInvalid) {
      allow(DTypeFromName(word));
    } else {
      return false;
    }
    return true;
  };
  if (r->Take("{")) {
    bool strings = false, types = false;
    do {
      if (const absl::string_view word = r->Word(); !word.empty()) {
        if (!allow_named(word)) return r->Error("a type before");
        types = true;
      } else {
        FERRY_RETURN_IF_ERROR(r->Quoted(allowed->mutable_list()->add_s()));
        strings = true;
      }
    } while (r->Take(","));
    if (!r->Take("}") || (strings && types)) {
      return r->Error("'}' after types or strings, not both,");
    }
    return std::string(strings ? "string" : "type");
  }
  const absl::string_view word = r->Word();
  for (absl::string_view kind :
       {"string", "int", "float", "bool", "type", "shape", "tensor", "func"}) {
    if (word == kind) return std::string(kind);
  }
  if ((word == "numbertype" || word == "realnumbertype") && allow_named(word)) {
    return std::string("type");
  }
  return r->Error("an attribute's kind before");
}

absl::Status ParseAttr(absl::string_view spec, OpDef::AttrDef* out) {
  Reader r(spec);
  out->set_name(std::string(r.Word()));
  if (out->name().empty() || !r.Take(":")) return r.Error("name:");
  AttrValue allowed;
  const bool is_list = r.Take("list(");
  FERRY_ASSIGN_OR_RETURN(std::string kind, ParseKind(&r, &allowed));
  if (is_list) {
    if (!r.Take(")")) return r.Error("')'");
    kind = absl::StrCat("list(", kind, ")");
  }
  out->set_type(kind);
  if (allowed.has_list()) *out->mutable_allowed_values() = std::move(allowed);
  if (r.Take(">=")) {
    int64_t minimum;
    if ((kind != "int" && !is_list) || !absl::SimpleAtoi(r.Number(), &minimum)) {
      return r.Error("an integer minimum of an int or a list before");
    }
    out->set_has_minimum(true);
    out->set_minimum(minimum);
  }
  if (r.Take("=")) FERRY_RETURN_IF_ERROR(ParseValue(&r, kind, out->mutable_default_value()));
  return r.AtEnd() ? absl::OkStatus() : r.Error("nothing more");
}

OpDef::AttrDef* FindAttr(OpDef* def, absl::string_view name) {
  for (OpDef::AttrDef& a : *def->mutable_attr()) {
    if (a.name() == name) return &a;
  }
  return nullptr;
}

// An attribute that says how many arguments there are is at least 1 unless it says otherwise.
void DefaultMinimum(OpDef::AttrDef* attr) {
  if (attr->has_minimum()) return;
  attr->set_has_minimum(true);
  attr->set_minimum(1);
}

// `def` has its attributes already.
absl::Status ParseArg(absl::string_view spec, OpDef* def, OpDef::ArgDef* out) {
  Reader r(spec);
  out->set_name(std::string(r.Word()));
  if (out->name().empty() || !r.Take(":")) return r.Error("name:");
  const bool is_ref = r.Take("Ref(");
  absl::string_view word = r.Word();
  if (r.Take("*")) {
    OpDef::AttrDef* number = FindAttr(def, word);
    if (!number || number->type() != "int") {
      return InvalidArgument("\"", spec, "\": there is no int attribute '", word, "'");
    }
    DefaultMinimum(number);
    out->set_number_attr(std::string(word));
    word = r.Word();
  }
  if (OpDef::AttrDef* attr = FindAttr(def, word)) {
    if (attr->type() == "type") {
      out->set_type_attr(std::string(word));
    } else if (attr->type() == "list(type)" && out->number_attr().empty()) {
      DefaultMinimum(attr);
      out->set_type_list_attr(std::string(word));
    } else {
      return InvalidArgument("\"", spec, "\": attribute '", word, "' of kind ", attr->type(),
                             " is no type here");
    }
  } else {
    const DType t = DTypeFromName(word);
    if (t == DType::kInvalid) {
      return InvalidArgument("\"", spec, "\": '", word, "' is neither a type nor an attribute");
    }
    out->set_type(static_cast<proto::DataType>(t));
  }
  if (is_ref) {
    if (!r.Take(")")) return r.Error("')'");
    out->set_is_ref(true);
  }
  return r.AtEnd() ? absl::OkStatus() : r.Error("nothing more");
}

absl::Status Parse(const std::vector<std::string>& inputs, const std::vector<std::string>& outputs,
                   const std::vector<std::string>& attrs, OpDef* def) {
  for (const std::string& spec : attrs) {
    OpDef::AttrDef attr;
    FERRY_RETURN_IF_ERROR(ParseAttr(spec, &attr));
    if (FindAttr(def, attr.name())) return InvalidArgument("two attributes '", attr.name(), "'");
    *def->add_attr() = std::move(attr);
  }
  for (const std::string& spec : inputs) {
    FERRY_RETURN_IF_ERROR(ParseArg(spec, def, def->add_input_arg()));
  }
  for (const std::string& spec : outputs) {
    FERRY_RETURN_IF_ERROR(ParseArg(spec, def, def->add_output_arg()));
  }
  return absl::OkStatus();
}

// ---------------------------------------------------------------------------------------------
// The registry.

using Registry = absl::flat_hash_map<std::string, std::unique_ptr<const OpInfo>>;

// Filled before main() begins, read only afterwards.
Registry& Ops() {
  static auto* const ops = new Registry;
  return *ops;
}

}  // namespace

OpBuilder::OpBuilder(std::string name) { info_.def.set_name(std::move(name)); }
OpBuilder& OpBuilder::Input(absl::string_view spec) {
  inputs_.emplace_back(spec);
  return *this;
}
OpBuilder& OpBuilder::Output(absl::string_view spec) {
  outputs_.emplace_back(spec);
  return *this;
}
OpBuilder& OpBuilder::Attr(absl::string_view spec) {
  attrs_.emplace_back(spec);
  return *this;
}
OpBuilder& OpBuilder::Stateful() {
  info_.def.set_is_stateful(true);
  return *this;
}
OpBuilder& OpBuilder::Commutative() {
  info_.def.set_is_commutative(true);
  return *this;
}
OpBuilder& OpBuilder::Aggregate() {
  info_.def.set_is_aggregate(true);
  return *this;
}
OpBuilder& OpBuilder::AllowsUninitializedInput() {
  info_.def.set_allows_uninitialized_input(true);
  return *this;
}
OpBuilder& OpBuilder::Shape(ShapeFn fn) {
  info_.shape = std::move(fn);
  return *this;
}
OpBuilder& OpBuilder::Gradient(GradientFn fn) {
  info_.gradient = std::move(fn);
  return *this;
}
OpBuilder& OpBuilder::NotDifferentiable() {
  info_.not_differentiable = true;
  return *this;
}
OpBuilder& OpBuilder::AliasesInput(int input) {
  info_.aliases_input = input;
  return *this;
}

OpBuilder::Registrar::Registrar(const OpBuilder& b) {
  auto info = std::make_unique<OpInfo>(b.info_);
  const std::string name = info->def.name();
  absl::Status status = Parse(b.inputs_, b.outputs_, b.attrs_, &info->def);
  if (!info->shape) info->shape = UnknownShape;
  if (status.ok() && !Ops().emplace(name, std::move(info)).second) {
    status = AlreadyExists("registered twice");
  }
  if (!status.ok()) {
    std::fprintf(stderr, "op %s: %s\n", name.c_str(), std::string(status.message()).c_str());
    std::abort();
  }
}

const OpInfo* FindOp(absl::string_view name) {
  auto it = Ops().find(name);
  return it == Ops().end() ? nullptr : it->second.get();
}

std::vector<const OpInfo*> AllOps() {
  std::vector<const OpInfo*> all;
  all.reserve(Ops().size());
  for (const auto& [name, info] : Ops()) all.push_back(info.get());
  std::sort(all.begin(), all.end(),
            [](const OpInfo* a, const OpInfo* b) { return a->def.name() < b->def.name(); });
  return all;
}

// ---------------------------------------------------------------------------------------------
// Attributes of nodes.

namespace {

absl::Status CheckType(int number) {
  const DType t = static_cast<DType>(number);
  if (!IsKnown(t)) return InvalidArgument("AttrValue has invalid DataType enum: ", number);
  if (IsRef(t)) {
    return InvalidArgument("AttrValue must not have reference type value of ", DTypeWord(t));
  }
  return absl::OkStatus();
}

int64_t ListSize(const AttrValue::ListValue& l) {
  return int64_t{l.s_size()} + l.i_size() + l.f_size() + l.b_size() + l.type_size() +
         l.shape_size() + l.tensor_size() + l.func_size();
}

// A type or string that isn't among the allowed ones.
absl::Status NotAllowed(const std::string& attr, const std::string& value,
                        const AttrValue::ListValue& allowed) {
  std::vector<std::string> words;
  for (int t : allowed.type()) words.push_back(DTypeWord(static_cast<DType>(t)));
  for (const std::string& s : allowed.s()) words.push_back(absl::StrCat("\"", s, "\""));
  return InvalidArgument("Value for attr '", attr, "' of ", value,
                         " is not in the list of allowed values: ", absl::StrJoin(words, ", "));
}

absl::Status CheckAttr(const OpDef::AttrDef& def, const AttrValue& v) {
  if (!IsOfKind(v, def.type())) {
    return InvalidArgument("AttrValue had value with type '", AttrKind(v), "' when '", def.type(),
                           "' expected for attr '", def.name(), "'");
  }
  const bool is_list = v.has_list();
  if (def.has_minimum()) {
    const int64_t value = is_list ? ListSize(v.list()) : v.i();
    if (value < def.minimum()) {
      return InvalidArgument(is_list ? "Length" : "Value", " for attr '", def.name(), "' of ",
                             value, " must be at least minimum ", def.minimum());
    }
  }
  const AttrValue::ListValue& allowed = def.allowed_values().list();
  const auto check_type = [&](int t) -> absl::Status {
    absl::Status status = CheckType(t);
    if (!status.ok()) {
      return InvalidArgument(status.message(), " for attr '", def.name(), "'");
    }
    if (!def.has_allowed_values() ||
        std::find(allowed.type().begin(), allowed.type().end(), t) != allowed.type().end()) {
      return absl::OkStatus();
    }
    return NotAllowed(def.name(), DTypeWord(static_cast<DType>(t)), allowed);
  };
  const auto check_string = [&](const std::string& s) -> absl::Status {
    if (!def.has_allowed_values() ||
        std::find(allowed.s().begin(), allowed.s().end(), s) != allowed.s().end()) {
      return absl::OkStatus();
    }
    return NotAllowed(def.name(), absl::StrCat("\"", absl::CHexEscape(s), "\""), allowed);
  };
  if (v.value_case() == AttrValue::kType) return check_type(v.type());
  if (v.value_case() == AttrValue::kS) return check_string(v.s());
  for (int t : v.list().type()) FERRY_RETURN_IF_ERROR(check_type(t));
  for (const std::string& s : v.list().s()) FERRY_RETURN_IF_ERROR(check_string(s));
  return absl::OkStatus();
}

// How many inputs or outputs an argument stands for.
absl::StatusOr<int64_t> ArgCount(const OpDef::ArgDef& arg, const AttrMap& attrs) {
  int64_t n = 1;
  if (!arg.number_attr().empty()) {
    FERRY_ASSIGN_OR_RETURN(n, GetAttr<int64_t>(attrs, arg.number_attr()));
  } else if (!arg.type_list_attr().empty()) {
    FERRY_ASSIGN_OR_RETURN(std::vector<DType> types,
                           GetAttr<std::vector<DType>>(attrs, arg.type_list_attr()));
    n = static_cast<int64_t>(types.size());
  }
  if (n < 0 || n > kMaxArgs) {
    return InvalidArgument("argument '", arg.name(), "' would be ", n, " tensors; 0 to ", kMaxArgs,
                           " are possible");
  }
  return n;
}

absl::Status ArgTypes(const google::protobuf::RepeatedPtrField<OpDef::ArgDef>& args,
                      const AttrMap& attrs, std::vector<DType>* out) {
  out->clear();
  for (const OpDef::ArgDef& arg : args) {
    const size_t begin = out->size();
    if (!arg.type_list_attr().empty()) {
      FERRY_ASSIGN_OR_RETURN(std::vector<DType> types,
                             GetAttr<std::vector<DType>>(attrs, arg.type_list_attr()));
      out->insert(out->end(), types.begin(), types.end());
    } else {
      DType t = static_cast<DType>(arg.type());
      if (!arg.type_attr().empty()) {
        FERRY_ASSIGN_OR_RETURN(t, GetAttr<DType>(attrs, arg.type_attr()));
      }
      FERRY_ASSIGN_OR_RETURN(int64_t n, ArgCount(arg, attrs));
      out->insert(out->end(), static_cast<size_t>(n), t);
    }
    if (arg.is_ref()) {
      for (size_t i = begin; i < out->size(); ++i) (*out)[i] = RefType((*out)[i]);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CompleteAttrs(const OpDef& def, AttrMap* attrs) {
  for (const OpDef::AttrDef& attr : def.attr()) {
    auto it = attrs->find(attr.name());
    if (it == attrs->end()) {
      if (!attr.has_default_value()) {
        return InvalidArgument("NodeDef missing attr '", attr.name(), "' from Op<name=", def.name(),
                               ">");
      }
      (*attrs)[attr.name()] = attr.default_value();
      continue;
    }
    absl::Status status = CheckAttr(attr, it->second);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(status.message(), "; Op<name=", def.name(), ">"));
    }
  }
  return absl::OkStatus();
}

absl::Status InOutTypes(const OpDef& def, const AttrMap& attrs, std::vector<DType>* inputs,
                        std::vector<DType>* outputs) {
  FERRY_RETURN_IF_ERROR(ArgTypes(def.input_arg(), attrs, inputs));
  return ArgTypes(def.output_arg(), attrs, outputs);
}

absl::StatusOr<std::vector<std::pair<int, int>>> ArgRanges(
    const google::protobuf::RepeatedPtrField<OpDef::ArgDef>& args, const AttrMap& attrs) {
  std::vector<std::pair<int, int>> ranges;
  int64_t start = 0;
  for (const OpDef::ArgDef& arg : args) {
    FERRY_ASSIGN_OR_RETURN(int64_t n, ArgCount(arg, attrs));
    ranges.emplace_back(static_cast<int>(start), static_cast<int>(n));
    start += n;
  }
  return ranges;
}

}  // namespace ferry
