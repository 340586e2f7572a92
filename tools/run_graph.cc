// `ferry run`: see run_graph.h.
#include "tools/run_graph.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "saver/log.h"
#include "saver/meta_graph.h"
#include "saver/saved_model.h"
#include "saver/saver.h"
#include "tools/graph_summary.h"
#include "tools/npy.h"

namespace ferry {
namespace {

using Json = nlohmann::json;

// Any number: whole ones exactly.
struct Number {
  enum Kind { kSigned, kUnsigned, kFloat } kind = kFloat;
  int64_t i = 0;
  uint64_t u = 0;
  double f = 0;

  static Number Of(int64_t v) { return {kSigned, v, 0, 0}; }
  static Number Of(uint64_t v) { return {kUnsigned, 0, v, 0}; }
  static Number Of(double v) { return {kFloat, 0, 0, v}; }
  double as_double() const {
    return kind == kFloat ? f : kind == kSigned ? static_cast<double>(i) : static_cast<double>(u);
  }
  std::string text() const {
    return kind == kFloat ? absl::StrCat(f) : kind == kSigned ? absl::StrCat(i) : absl::StrCat(u);
  }
  // Whether T holds it.
  template <typename T>
  bool Get(T* out) const {
    if (kind == kSigned) {
      *out = static_cast<T>(i);
      return static_cast<__int128>(*out) == static_cast<__int128>(i);
    }
    if (kind == kUnsigned) {
      *out = static_cast<T>(u);
      return static_cast<__int128>(*out) == static_cast<__int128>(u);
    }
    // 2^63 and 2^64 themselves are beyond their types.
    constexpr double kBeyond = static_cast<double>(std::numeric_limits<T>::max() / 2 + 1) * 2;
    if (std::trunc(f) != f || f < static_cast<double>(std::numeric_limits<T>::min()) ||
        f >= kBeyond) {
      return false;
    }
    *out = static_cast<T>(f);
    return true;
  }
};

template <typename T>
absl::Status SetWhole(const Number& n, Tensor* t, int64_t at) {
  if (n.Get(&t->data<T>()[at])) return absl::OkStatus();
  return InvalidArgument(n.text(), " is no ", DTypeName(t->dtype()));
}

absl::Status Set(const Number& n, Tensor* t, int64_t at) {
  switch (t->dtype()) {
    case DType::kFloat:
      t->data<float>()[at] = static_cast<float>(n.as_double());
      break;
    case DType::kDouble:
      t->data<double>()[at] = n.as_double();
      break;
    case DType::kHalf:
      t->data<Half>()[at] = FloatToHalf(static_cast<float>(n.as_double()));
      break;
    case DType::kBfloat16:
      t->data<Bfloat16>()[at] = FloatToBfloat16(static_cast<float>(n.as_double()));
      break;
    case DType::kInt8:
      return SetWhole<int8_t>(n, t, at);
    case DType::kInt16:
      return SetWhole<int16_t>(n, t, at);
    case DType::kInt32:
      return SetWhole<int32_t>(n, t, at);
    case DType::kInt64:
      return SetWhole<int64_t>(n, t, at);
    case DType::kUint8:
      return SetWhole<uint8_t>(n, t, at);
    case DType::kUint16:
      return SetWhole<uint16_t>(n, t, at);
    case DType::kUint32:
      return SetWhole<uint32_t>(n, t, at);
    case DType::kUint64:
      return SetWhole<uint64_t>(n, t, at);
    default:
      return InvalidArgument("a number can't be of ", DTypeName(t->dtype()));
  }
  return absl::OkStatus();
}

absl::StatusOr<Number> GetNumber(const Tensor& t, int64_t at) {
  switch (t.dtype()) {
    case DType::kFloat:
      return Number::Of(double{t.data<float>()[at]});
    case DType::kDouble:
      return Number::Of(t.data<double>()[at]);
    case DType::kHalf:
      return Number::Of(double{HalfToFloat(t.data<Half>()[at])});
    case DType::kBfloat16:
      return Number::Of(double{Bfloat16ToFloat(t.data<Bfloat16>()[at])});
    case DType::kInt8:
      return Number::Of(int64_t{t.data<int8_t>()[at]});
    case DType::kInt16:
      return Number::Of(int64_t{t.data<int16_t>()[at]});
    case DType::kInt32:
      return Number::Of(int64_t{t.data<int32_t>()[at]});
    case DType::kInt64:
      return Number::Of(int64_t{t.data<int64_t>()[at]});
    case DType::kUint8:
      return Number::Of(uint64_t{t.data<uint8_t>()[at]});
    case DType::kUint16:
      return Number::Of(uint64_t{t.data<uint16_t>()[at]});
    case DType::kUint32:
      return Number::Of(uint64_t{t.data<uint32_t>()[at]});
    case DType::kUint64:
      return Number::Of(uint64_t{t.data<uint64_t>()[at]});
    default:
      return InvalidArgument(DTypeName(t.dtype()), " elements are no numbers");
  }
}

// How deep lists may be nested: more is no tensor's rank that anyone writes.
constexpr int kMostNesting = 32;

// The sizes of nested lists, as the first elements have them.
absl::StatusOr<TensorShape> ShapeOf(const Json& value) {
  std::vector<int64_t> dims;
  const Json* at = &value;
  while (at->is_array()) {
    if (dims.size() == kMostNesting) return InvalidArgument("lists are nested too deep");
    dims.push_back(static_cast<int64_t>(at->size()));
    if (at->empty()) break;
    at = &at->front();
  }
  return TensorShape::Make(dims);
}

// Of an element, for messages; lists may be nested any deep.
std::string Words(const Json& value) {
  return value.is_structured() ? "a list"
                               : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::Status Fill(const Json& value, int depth, Tensor* t, int64_t* at) {
  if (depth < t->rank()) {
    if (!value.is_array() || static_cast<int64_t>(value.size()) != t->dim(depth)) {
      return InvalidArgument("its lists have different lengths");
    }
    for (const Json& element : value) FERRY_RETURN_IF_ERROR(Fill(element, depth + 1, t, at));
    return absl::OkStatus();
  }
  const int64_t i = (*at)++;
  if (t->dtype() == DType::kString) {
    if (!value.is_string()) return InvalidArgument("strings were expected, found ", Words(value));
    t->data<std::string>()[i] = value.get<std::string>();
    return absl::OkStatus();
  }
  if (t->dtype() == DType::kBool) {
    if (!value.is_boolean())
      return InvalidArgument("true or false was expected, found ", Words(value));
    t->data<bool>()[i] = value.get<bool>();
    return absl::OkStatus();
  }
  if (value.is_number_unsigned()) return Set(Number::Of(value.get<uint64_t>()), t, i);
  if (value.is_number_integer()) return Set(Number::Of(value.get<int64_t>()), t, i);
  if (value.is_number()) return Set(Number::Of(value.get<double>()), t, i);
  return InvalidArgument("numbers were expected, found ", Words(value));
}

class Runner {
 public:
  Runner(FileSystem* fs, const RunGraphOptions& options) : fs_(fs), options_(options) {
    limits_.timeout = options.timeout;
  }

  absl::StatusOr<RunGraphReport> Run() {
    FERRY_RETURN_IF_ERROR(Load());
    FERRY_RETURN_IF_ERROR(SetVariables());
    FERRY_RETURN_IF_ERROR(RunAll());
    if (!options_.save.empty()) {
      FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, MakeSaver());
      FERRY_ASSIGN_OR_RETURN(report_.saved, saver->Save(session_.get(), options_.save));
    }
    return std::move(report_);
  }

 private:
  absl::Status Load() {
    SessionOptions session;
    session.file_system = fs_;
    session.device = options_.device;
    session.threads = options_.threads;
    graph_ = std::make_unique<Graph>();
    session_ = std::make_unique<Session>(graph_.get(), session);
    FERRY_RETURN_IF_ERROR(session_->status());
    if (!options_.saved_model.empty()) return LoadModel();
    FERRY_ASSIGN_OR_RETURN(
        GraphFile file, ReadGraphFile(fs_, options_.meta.empty() ? options_.graph : options_.meta));
    meta_ = std::move(file.meta_graph);
    const auto imported = ImportMetaGraph(meta_, {}, graph_.get());
    return Annotate(imported.status(), absl::StrCat("'", file.path, "'"));
  }

  absl::Status LoadModel() {
    std::vector<std::string> tags = options_.tags;
    if (tags.empty()) {
      FERRY_ASSIGN_OR_RETURN(const proto::SavedModel model,
                             ReadSavedModel(fs_, options_.saved_model));
      if (model.meta_graphs_size() == 1) {
        const auto& only = model.meta_graphs(0).meta_info_def().tags();
        tags.assign(only.begin(), only.end());
      } else {
        tags = {kServe};
      }
    }
    FERRY_ASSIGN_OR_RETURN(meta_, LoadSavedModelInto(session_.get(), options_.saved_model, tags));
    const std::string key =
        options_.signature.empty() ? kDefaultServingSignature : options_.signature;
    const auto it = meta_.signature_def().find(key);
    if (it != meta_.signature_def().end()) {
      signature_ = &it->second;
    } else if (!options_.signature.empty()) {
      std::vector<std::string> keys;
      for (const auto& [name, unused] : meta_.signature_def()) keys.push_back(name);
      std::sort(keys.begin(), keys.end());
      return NotFound("'", options_.saved_model, "' has no signature '", key,
                      "'; it has: ", keys.empty() ? "none" : absl::StrJoin(keys, ", "));
    }
    return absl::OkStatus();
  }

  absl::Status SetVariables() {
    if (!options_.checkpoint.empty()) {
      const absl::StatusOr<std::unique_ptr<CheckpointReader>> reader =
          CheckpointReader::Open(fs_, options_.checkpoint);
      if (reader.ok()) {
        report_.restored = (*reader)->prefix();
        FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, MakeSaver());
        return saver->Restore(session_.get(), report_.restored);
      }
      // None, as opposed to a damaged one.
      const bool none =
          absl::IsNotFound(reader.status()) ||
          (absl::IsInvalidArgument(reader.status()) && !CheckpointExists(fs_, options_.checkpoint));
      if (!none || options_.init.empty()) return reader.status();
      LogInfo("No checkpoint at ", options_.checkpoint, ": running ", options_.init, ".");
    }
    if (options_.init.empty()) return absl::OkStatus();
    return Annotate(session_->Run({}, {}, {options_.init}, nullptr, limits_),
                    absl::StrCat("--init ", options_.init));
  }

  // The graph's own, or one of all variables there are.
  absl::StatusOr<std::unique_ptr<Saver>> MakeSaver() {
    if (meta_.has_saver_def() && !meta_.saver_def().save_tensor_name().empty()) {
      absl::StatusOr<std::unique_ptr<Saver>> own =
          Saver::FromProto(graph_.get(), meta_.saver_def());
      if (own.ok()) return own;
    }
    SaverOptions options;
    FERRY_ASSIGN_OR_RETURN(const auto listed, GlobalVariables(*graph_));
    if (listed.empty()) {
      for (const auto& node : graph_->nodes()) {
        if (node->op() != "VariableV2" && node->op() != "Variable" && node->op() != "VarHandleOp") {
          continue;
        }
        VariableHandle v;
        v.ref = Output(node.get(), 0);
        options.var_map.emplace_back(node->name(), v);
      }
      if (options.var_map.empty()) return InvalidArgument("the graph has no variables");
    }
    return Saver::Create(graph_.get(), options);
  }

  // The tensor behind a name, which may be the signature's.
  std::string Resolve(const std::string& name, bool input) const {
    if (signature_ != nullptr) {
      const auto& names = input ? signature_->inputs() : signature_->outputs();
      const auto it = names.find(name);
      if (it != names.end()) return it->second.name();
    }
    return name;
  }

  absl::StatusOr<Tensor> Feed(const std::string& name, const std::string& value) const {
    FERRY_ASSIGN_OR_RETURN(const Output tensor, graph_->FindOutput(name));
    if (tensor.index < 0) {
      return InvalidArgument("a tensor is expected, not node '", tensor.node->name(), "'");
    }
    const DType dtype = BaseType(tensor.dtype());
    if (!absl::EndsWith(value, ".npy")) return ParseLiteral(value, dtype);
    FERRY_ASSIGN_OR_RETURN(const Tensor array, ReadNpy(fs_, value));
    return ConvertNumbers(array, dtype);
  }

  absl::Status RunAll() {
    CallableOptions call;
    std::vector<Tensor> feeds;
    for (const auto& [name, value] : options_.feeds) {
      const std::string tensor = Resolve(name, true);
      absl::StatusOr<Tensor> fed = Feed(tensor, value);
      if (!fed.ok()) return Annotate(fed.status(), absl::StrCat("feed '", name, "'"));
      call.feeds.push_back(tensor);
      feeds.push_back(*std::move(fed));
    }
    auto wanted = options_.fetches;
    if (wanted.empty() && options_.targets.empty() && signature_ != nullptr) {
      for (const auto& [name, unused] : signature_->outputs()) wanted.emplace_back(name, "");
      std::sort(wanted.begin(), wanted.end());
    }
    CallableOptions training = call;
    training.targets = options_.targets;
    for (const auto& [name, file] : wanted) call.fetches.push_back(Resolve(name, false));
    if (!options_.repeat) call.targets = options_.targets;

    std::vector<Tensor> fetched;
    if (options_.repeat && !training.targets.empty()) {
      FERRY_ASSIGN_OR_RETURN(const Session::Callable run, session_->MakeCallable(training));
      const auto start = std::chrono::steady_clock::now();
      auto half = start;
      for (int64_t i = 0; i < *options_.repeat; ++i) {
        if (i == *options_.repeat - *options_.repeat / 2) half = std::chrono::steady_clock::now();
        FERRY_RETURN_IF_ERROR(run.Run(feeds, &fetched, limits_));
        ++report_.runs;
      }
      const auto end = std::chrono::steady_clock::now();
      report_.seconds = std::chrono::duration<double>(end - start).count();
      report_.last_half_seconds = std::chrono::duration<double>(end - half).count();
    }
    if (call.fetches.empty() && call.targets.empty()) return absl::OkStatus();
    FERRY_ASSIGN_OR_RETURN(const Session::Callable run, session_->MakeCallable(call));
    FERRY_RETURN_IF_ERROR(run.Run(feeds, &fetched, limits_));
    report_.runs += call.targets.empty() ? 0 : 1;
    for (size_t i = 0; i < wanted.size(); ++i) {
      const auto& [name, file] = wanted[i];
      if (!file.empty()) {
        FERRY_RETURN_IF_ERROR(
            Annotate(WriteNpy(fs_, file, fetched[i]), absl::StrCat("fetch '", name, "'")));
      }
      report_.fetches.push_back({name, fetched[i], file});
    }
    return absl::OkStatus();
  }

  FileSystem* const fs_;
  const RunGraphOptions& options_;
  RunOptions limits_;
  proto::MetaGraphDef meta_;
  const proto::SignatureDef* signature_ = nullptr;  // In meta_.
  std::unique_ptr<Graph> graph_;
  std::unique_ptr<Session> session_;
  RunGraphReport report_;
};

}  // namespace

absl::StatusOr<Tensor> ParseLiteral(absl::string_view text, DType dtype) {
  const auto bad = [&](absl::string_view why) {
    constexpr size_t kShown = 80;
    return InvalidArgument("'", text.substr(0, kShown), text.size() > kShown ? "..." : "",
                           "' is no ", DTypeName(dtype), " tensor: ", why);
  };
  constexpr bool kThrow = false;
  // Deep nesting is refused below; the parser itself doesn't recurse.
  Json value = Json::parse(text, nullptr, kThrow);
  if (dtype == DType::kString && !value.is_array() && !value.is_string()) {
    return Tensor::Scalar<std::string>(std::string(text));
  }
  if (value.is_discarded()) {
    double number;
    if (!absl::SimpleAtod(text, &number)) {
      return bad("expected a number, or lists of numbers such as [[1, 2], [3, 4]]");
    }
    value = number;  // nan, inf, 1., +1, which JSON lacks.
  }
  if (value.is_object()) return bad("an object is none");
  const absl::StatusOr<TensorShape> shape = ShapeOf(value);
  if (!shape.ok()) return bad(shape.status().message());
  FERRY_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(dtype, *shape));
  int64_t at = 0;
  const absl::Status filled = Fill(value, 0, &tensor, &at);
  if (!filled.ok()) return bad(filled.message());
  return tensor;
}

absl::StatusOr<Tensor> ConvertNumbers(const Tensor& from, DType dtype) {
  if (from.dtype() == dtype) return from;
  FERRY_ASSIGN_OR_RETURN(Tensor to, Tensor::Allocate(dtype, from.shape()));
  for (int64_t i = 0; i < from.num_elements(); ++i) {
    FERRY_ASSIGN_OR_RETURN(const Number n, GetNumber(from, i));
    FERRY_RETURN_IF_ERROR(Set(n, &to, i));
  }
  if (from.num_elements() == 0 && (!(IsFloating(dtype) || IsInteger(dtype)) ||
                                   !(IsFloating(from.dtype()) || IsInteger(from.dtype())))) {
    return InvalidArgument("an array of ", DTypeName(from.dtype()), " where ", DTypeName(dtype),
                           " is expected");
  }
  return to;
}

absl::StatusOr<RunGraphReport> RunGraph(FileSystem* fs, const RunGraphOptions& options) {
  return Runner(fs, options).Run();
}

}  // namespace ferry
