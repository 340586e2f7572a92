// The `ferry` command: trains, and looks at what training left. Each subcommand is a function
// below; what they do lies in the other files of this folder.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "fmt/format.h"
#include "runtime/base/file_system.h"
#include "runtime/base/status.h"
#include "runtime/base/thread_pool.h"
#include "runtime/op/op_def.h"
#include "saver/atomic_file.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "saver/freeze.h"
#include "saver/training.h"
#include "tools/allocation_count.h"
#include "tools/bench.h"
#include "tools/convert.h"
#include "tools/graph_drawing.h"
#include "tools/graph_summary.h"
#include "tools/npy.h"
#include "tools/op_table.h"
#include "tools/run_graph.h"
#include "tools/train.h"

namespace ferry {
namespace {

// All that goes to standard output; Main looks at the end whether it got there.
template <typename... Args>
void Say(fmt::format_string<Args...> format, Args&&... args) {
  std::cout << fmt::format(format, std::forward<Args>(args)...);
}

void Print(const Json& json) {
  // Names may hold any bytes; JSON can't.
  std::cout << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

// Values that can't be meant are wrong usage. These say why one is refused.
CLI::Validator AtLeast(int64_t least) {
  return CLI::Validator(
      [least](const std::string& text) {
        int64_t n;
        return absl::SimpleAtoi(text, &n) && n >= least
                   ? std::string()
                   : fmt::format("'{}' is not a whole number from {} up", text, least);
      },
      "");
}

CLI::Validator PositiveNumber() {
  return CLI::Validator(
      [](const std::string& text) {
        double x;
        return absl::SimpleAtod(text, &x) && x > 0 && std::isfinite(x)
                   ? std::string()
                   : fmt::format("'{}' is not a positive number", text);
      },
      "");
}

CLI::Validator NotEmpty() {
  return CLI::Validator(
      [](const std::string& text) { return std::string(text.empty() ? "it is empty" : ""); }, "");
}

// "128,64" -> {128, 64}; "" -> {}. False if it is no such list.
bool ParseSizes(const std::string& text, std::vector<int64_t>* sizes) {
  sizes->clear();
  if (text.empty()) return true;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int64_t n;
    if (!absl::SimpleAtoi(part, &n) || n < 1) return false;
    sizes->push_back(n);
  }
  return true;
}

CLI::Validator Sizes() {
  return CLI::Validator(
      [](const std::string& text) {
        std::vector<int64_t> sizes;
        return ParseSizes(text, &sizes) ? std::string()
                                        : fmt::format("'{}': expected sizes like 128,64", text);
      },
      "");
}

// ---- train ----
struct TrainCommand {
  TrainOptions options;
  std::string hidden = "128,64";
  bool json = false;

  void Register(CLI::App* app) {
    app->add_option("--model_dir", options.model_dir,
                    "Folder of the checkpoints, event files and pictures")
        ->required()
        ->check(NotEmpty());
    app->add_option("--device", options.device, "auto (a GPU if there is one), cpu or gpu")
        ->check(CLI::IsMember({"auto", "cpu", "gpu"}))
        ->capture_default_str();
    app->add_option("--steps", options.steps, "Train up to this step")
        ->check(AtLeast(1))
        ->capture_default_str();
    app->add_option("--batch_size", options.batch_size, "Examples a step")
        ->check(AtLeast(1))
        ->capture_default_str();
    app->add_option("--hidden", hidden,
                    "Sizes of the hidden layers, separated by commas; none if empty")
        ->check(Sizes())
        ->capture_default_str();
    app->add_option("--optimizer", options.optimizer, "adam, sgd or momentum")
        ->check(CLI::IsMember({"adam", "sgd", "momentum"}))
        ->capture_default_str();
    app->add_option("--learning_rate", options.learning_rate,
                    "Default: 0.001 for adam, 0.01 for momentum, 0.1 for sgd")
        ->check(PositiveNumber());
    app->add_option("--save_checkpoints_steps", options.save_checkpoints_steps,
                    "Save every so many steps")
        ->check(AtLeast(1))
        ->capture_default_str();
    app->add_option("--keep_checkpoint_max", options.keep_checkpoint_max,
                    "Keep the newest so many checkpoints; 0 keeps all")
        ->check(AtLeast(0))
        ->capture_default_str();
    app->add_option("--summary_steps", options.summary_steps,
                    "Record loss and accuracy every so many steps")
        ->check(AtLeast(1))
        ->capture_default_str();
    app->add_flag("--skip_busy_saves", options.skip_busy_saves,
                  "Skip a save that is due while another one runs, instead of waiting for it");
    app->add_option("--data", options.data,
                    "A folder with MNIST's IDX files (.gz too), or a CSV file like the digits'; "
                    "default: the built-in digits")
        ->check(NotEmpty());
    app->add_option("--seed", options.seed, "Of the initial values and the order of the data")
        ->capture_default_str();
    app->add_option("--threads", options.threads, "0: as many as there are cores")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    app->add_flag("--json", json, "Print one JSON object");
  }

  absl::Status Run() {
    if (!ParseSizes(hidden, &options.hidden)) return Internal("--hidden was not checked");
    const StopSignals signals;
    options.stop = signals.flag();
    options.show_progress = isatty(STDERR_FILENO) != 0;
    FERRY_ASSIGN_OR_RETURN(const TrainReport r, Train(FileSystem::Posix(), options));
    if (json) {
      Print({{"first_step", r.first_step},
             {"last_step", r.last_step},
             {"stopped", r.stopped},
             {"loss", r.loss},
             {"train_accuracy", r.train_accuracy},
             {"test_accuracy", r.test_accuracy},
             {"steps_per_second", r.steps_per_second},
             {"saves", r.saves},
             {"skipped_saves", r.skipped_saves},
             {"device", r.device},
             {"checkpoint", r.checkpoint},
             {"event_file", r.event_file},
             {"graph_file", r.graph_file},
             {"chart_file", r.chart_file}});
      return absl::OkStatus();
    }
    Say("{} at step {} (from {}, {:.0f} steps/s, {} saves)\n",
               r.stopped ? "stopped" : "done", r.last_step, r.first_step, r.steps_per_second,
               r.saves);
    Say("test accuracy   {:.4f}\n", r.test_accuracy);
    Say("train accuracy  {:.4f}\n", r.train_accuracy);
    Say("device          {}\n", r.device);
    Say("checkpoint      {}\n", r.checkpoint);
    Say("event file      {}   (tensorboard --logdir {})\n", r.event_file,
               options.model_dir);
    Say("curves          {}\n", r.chart_file);
    Say("graph           {}   (ferry summary {} --svg graph.svg draws it)\n", r.graph_file,
               r.graph_file);
    if (r.stopped) Say("Run the same command again to go on.\n");
    return absl::OkStatus();
  }
};

// ---- inspect ----
struct InspectCommand {
  static constexpr int kMostValues = 1 << 20;  // That are printed of one tensor.

  std::string what, tensor_name, npy;
  bool all_tensors = false, all_names = false, json = false;

  void Register(CLI::App* app) {
    CLI::Option* const checkpoint = app->add_option(
        "checkpoint,--file_name", what, "A checkpoint's prefix, or a folder of checkpoints");
    // As required(), which would ask for the option's name alone.
    app->parse_complete_callback([checkpoint] {
      if (checkpoint->count() == 0) throw CLI::RequiredError("checkpoint (or --file_name)");
    });
    app->add_flag("--all_tensors", all_tensors, "Print the values too");
    app->add_flag("--all_tensor_names", all_names, "Print names, dtypes and shapes, as without it");
    CLI::Option* name =
        app->add_option("--tensor_name", tensor_name, "Print the value of this tensor")
            ->check(NotEmpty());
    app->add_option("--npy", npy, "Write that tensor to a NumPy file")
        ->needs(name)
        ->check(NotEmpty());
    app->add_flag("--json", json, "Print one JSON object");
  }

  static Json Describe(const CheckpointReader::TensorInfo& t) {
    return {{"name", t.name},
            {"dtype", DTypeName(t.dtype)},
            {"shape", std::vector<int64_t>(t.shape.dims().begin(), t.shape.dims().end())},
            {"crc32c", t.crc32c}};
  }
  // The elements in one text, as they are printed, without dtype and shape.
  static std::string Value(const Tensor& t) {
    const std::string text = t.DebugString(kMostValues);
    const std::string head = absl::StrCat(DTypeName(t.dtype()), " ", t.shape().DebugString(), " ");
    return text.substr(std::min(text.size(), head.size()));
  }

  absl::Status Run() {
    FileSystem* fs = FileSystem::Posix();
    FERRY_ASSIGN_OR_RETURN(std::unique_ptr<CheckpointReader> reader,
                           CheckpointReader::Open(fs, what));
    const std::vector<CheckpointReader::TensorInfo> all = reader->Tensors();
    if (!tensor_name.empty()) {
      FERRY_ASSIGN_OR_RETURN(const Tensor t, reader->GetTensor(tensor_name));
      if (!npy.empty()) FERRY_RETURN_IF_ERROR(WriteNpy(fs, npy, t));
      if (json) {
        FERRY_ASSIGN_OR_RETURN(const BundleReader::Entry* entry,
                               reader->bundle().Lookup(tensor_name));
        const auto is_it = [&](const auto& info) { return info.name == entry->name; };
        Json one = Describe(*std::find_if(all.begin(), all.end(), is_it));
        one[npy.empty() ? "value" : "npy"] = npy.empty() ? Value(t) : npy;
        Print(one);
      } else if (npy.empty()) {
        Say("{}\n", t.DebugString(kMostValues));
      }
      return absl::OkStatus();
    }
    int64_t parameters = 0;
    Json tensors = Json::array();
    for (const CheckpointReader::TensorInfo& t : all) {
      parameters += t.shape.num_elements();
      Tensor value;
      if (all_tensors) {
        FERRY_ASSIGN_OR_RETURN(value, reader->GetTensor(t.name));
      }
      if (json) {
        tensors.push_back(Describe(t));
        if (all_tensors) tensors.back()["value"] = Value(value);
        continue;
      }
      Say("{} ({}) {}\n", t.name, DTypeEnumName(t.dtype), t.shape.DebugString());
      if (all_tensors) Say("  {}\n", value.DebugString(kMostValues));
    }
    if (json) {
      Print({{"tensors", tensors}, {"parameters", parameters}, {"shards", reader->num_shards()}});
    } else {
      Say("{}: {} tensors, {} parameters, {} shard{}\n", reader->prefix(), all.size(),
                 parameters, reader->num_shards(), reader->num_shards() == 1 ? "" : "s");
    }
    return absl::OkStatus();
  }
};

// A bar on standard error when that is a terminal; else nothing.
TensorProgress ProgressBar() {
  if (isatty(STDERR_FILENO) == 0) return nullptr;
  return [shown = -1](uint64_t done, uint64_t all) mutable {
    const int percent = static_cast<int>(all == 0 ? 100 : done * 100 / all);
    if (percent == shown) return;
    shown = percent;
    std::cerr << fmt::format("\r[{:<25}] {:3}%{}", std::string(percent / 4, '='), percent,
                             percent == 100 ? "\n" : "");
  };
}

// ---- verify ----
struct VerifyCommand {
  std::string what;
  bool json = false;

  void Register(CLI::App* app) {
    app->add_option("checkpoint", what, "A checkpoint's prefix, or a folder of checkpoints")
        ->required();
    app->add_flag("--json", json, "Print one JSON object");
  }

  absl::Status Run() {
    ThreadPool pool;
    const VerifyReport r = VerifyCheckpoint(FileSystem::Posix(), what, &pool, ProgressBar());
    if (json) {
      Json damage = Json::array();
      for (const absl::Status& s : r.damage) damage.push_back(std::string(s.message()));
      Print({{"prefix", r.prefix},
             {"ok", r.damage.empty()},
             {"tensors", r.tensors},
             {"data_bytes", r.data_bytes},
             {"damage", damage}});
    } else {
      for (const absl::Status& s : r.damage) Say("damaged: {}\n", std::string(s.message()));
    }
    if (!r.damage.empty()) {
      return DataLoss(r.prefix.empty() ? what : r.prefix, ": ", r.damage.size(),
                      r.damage.size() == 1 ? " thing is" : " things are", " damaged");
    }
    if (!json) {
      Say("{}: sound: {} tensors, {} bytes, every crc checked\n", r.prefix, r.tensors,
                 r.data_bytes);
    }
    return absl::OkStatus();
  }
};

// ---- summary ----
struct SummaryCommand {
  std::string file, svg, dot;

  void Register(CLI::App* app) {
    app->add_option("file", file,
                    "A GraphDef (.pb, .pbtxt), a .meta file, or a SavedModel's saved_model.pb")
        ->required();
    app->add_option("--svg", svg, "Draw the graph into this SVG file (needs Graphviz)")
        ->check(NotEmpty());
    app->add_option("--dot", dot, "Write the drawing as Graphviz's source")->check(NotEmpty());
  }

  absl::Status Run() {
    FileSystem* fs = FileSystem::Posix();
    FERRY_ASSIGN_OR_RETURN(const GraphFile graph, ReadGraphFile(fs, file));
    const std::string source =
        svg.empty() && dot.empty() ? "" : GraphToDot(graph.meta_graph.graph_def());
    if (!dot.empty()) FERRY_RETURN_IF_ERROR(ReplaceFile(fs, dot, source));
    if (!svg.empty()) {
      FERRY_ASSIGN_OR_RETURN(const std::string picture, DotToSvg(source));
      FERRY_RETURN_IF_ERROR(ReplaceFile(fs, svg, picture));
    }
    std::cout << SummarizeGraph(graph);
    for (const std::string& f : {svg, dot}) {
      if (!f.empty()) Say("drawn in {}\n", f);
    }
    return absl::OkStatus();
  }
};

// ---- run ----
struct RunCommand {
  static constexpr int kMostValues = 1 << 20;  // That are printed of one tensor.

  RunGraphOptions options;
  std::vector<std::string> feeds, fetches;
  int64_t repeat = 0;
  CLI::Option* repeat_option = nullptr;
  double timeout = std::numeric_limits<double>::infinity();
  bool json = false;

  void Register(CLI::App* app) {
    CLI::Option_group* const graph = app->add_option_group("graph");
    graph->add_option("--meta", options.meta, "The graph: a .meta file")->check(NotEmpty());
    graph->add_option("--graph", options.graph, "The graph: a GraphDef (.pb, .pbtxt)")
        ->check(NotEmpty());
    CLI::Option* const saved_model =
        graph
            ->add_option("--saved_model", options.saved_model,
                         "The graph and its variables: a SavedModel's folder")
            ->check(NotEmpty());
    graph->require_option(1);
    app->add_option("--tag_set", options.tags,
                    "Of the SavedModel's graph, separated by commas; default: its only one, or "
                    "serve")
        ->delimiter(',')
        ->needs(saved_model);
    app->add_option("--signature", options.signature,
                    "The SavedModel's signature whose names stand for tensors; default: "
                    "serving_default")
        ->needs(saved_model);
    app->add_option("--checkpoint", options.checkpoint,
                    "Restore the variables from this prefix, or a folder's latest checkpoint")
        ->check(NotEmpty());
    app->add_option("--init", options.init, "Run this op first when there is no checkpoint")
        ->check(NotEmpty());
    app->add_option("--feed", feeds,
                    "NAME=FILE.npy or NAME=LITERAL, such as 3, [[1, 2]], true or text")
        ->take_all()
        ->expected(1)
        ->check(Assignment());
    app->add_option("--fetch", fetches, "NAME, or NAME=FILE.npy to write it there")
        ->take_all()
        ->expected(1)
        ->check(NotEmpty());
    CLI::Option* const target = app->add_option("--target", options.targets, "Run this node")
                                    ->take_all()
                                    ->expected(1)
                                    ->check(NotEmpty());
    repeat_option = app->add_option("--repeat", repeat,
                                    "Run the targets so often, then fetch once without them")
                        ->needs(target)
                        ->check(AtLeast(0));
    app->add_option("--save", options.save, "Save the variables under this prefix at the end")
        ->check(NotEmpty());
    app->add_option("--device", options.device, "auto (a GPU if there is one), cpu or gpu")
        ->check(CLI::IsMember({"auto", "cpu", "gpu"}))
        ->capture_default_str();
    app->add_option("--threads", options.threads, "0: as many as there are cores")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    app->add_option("--timeout", timeout, "Seconds after which a run is given up; default: none")
        ->check(PositiveNumber());
    app->add_flag("--json", json, "Print one JSON object");
  }

  static CLI::Validator Assignment() {
    return CLI::Validator(
        [](const std::string& text) {
          const size_t at = text.find('=');
          return at == std::string::npos || at == 0
                     ? fmt::format("'{}': expected NAME=VALUE", text)
                     : std::string();
        },
        "");
  }

  // Nested lists of the elements from *at on.
  static Json Nested(const Tensor& t, int depth, int64_t* at) {
    if (depth < t.rank()) {
      Json list = Json::array();
      for (int64_t i = 0; i < t.dim(depth); ++i) list.push_back(Nested(t, depth + 1, at));
      return list;
    }
    const int64_t i = (*at)++;
    const auto real = [](double x) {
      // A NaN's sign says nothing.
      return std::isfinite(x) ? Json(x) : Json(std::isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
    };
    const auto complex = [&](auto part) {
      decltype(part) parts[2];
      std::memcpy(parts, static_cast<const char*>(t.raw()) + i * int64_t{sizeof(parts)},
                  sizeof(parts));
      return Json::array({real(parts[0]), real(parts[1])});
    };
    switch (t.dtype()) {
      case DType::kString: return t.data<std::string>()[i];
      case DType::kBool: return t.data<bool>()[i];
      case DType::kFloat: return real(t.data<float>()[i]);
      case DType::kDouble: return real(t.data<double>()[i]);
      case DType::kHalf: return real(HalfToFloat(t.data<Half>()[i]));
      case DType::kBfloat16: return real(Bfloat16ToFloat(t.data<Bfloat16>()[i]));
      case DType::kInt8: return t.data<int8_t>()[i];
      case DType::kInt16: return t.data<int16_t>()[i];
      case DType::kInt32: return t.data<int32_t>()[i];
      case DType::kInt64: return t.data<int64_t>()[i];
      case DType::kUint8: return t.data<uint8_t>()[i];
      case DType::kUint16: return t.data<uint16_t>()[i];
      case DType::kUint32: return t.data<uint32_t>()[i];
      case DType::kUint64: return t.data<uint64_t>()[i];
      case DType::kComplex64:
        return complex(0.0f);
      case DType::kComplex128:
        return complex(0.0);
      default: {  // No numbers of JSON: the bytes.
        const size_t size = ElementSize(t.dtype());
        return absl::StrCat("0x",
                            absl::BytesToHexString(absl::string_view(
                                static_cast<const char*>(t.raw()) + i * int64_t(size), size)));
      }
    }
  }

  absl::Status Run() {
    for (const std::string& feed : feeds) {
      const size_t at = feed.find('=');
      options.feeds.emplace_back(feed.substr(0, at), feed.substr(at + 1));
    }
    for (const std::string& fetch : fetches) {
      const size_t at = fetch.find('=');
      options.fetches.emplace_back(fetch.substr(0, at),
                                   at == std::string::npos ? "" : fetch.substr(at + 1));
    }
    if (repeat_option->count() > 0) options.repeat = repeat;
    options.timeout = absl::Seconds(timeout);
    FERRY_ASSIGN_OR_RETURN(const RunGraphReport r, RunGraph(FileSystem::Posix(), options));
    if (!json) {
      for (const RunGraphReport::Fetched& f : r.fetches) {
        Say("{}: {}\n", f.name, f.file.empty() ? f.value.DebugString(kMostValues)
                                               : fmt::format("written to {}", f.file));
      }
      if (!r.saved.empty()) Say("saved in {}\n", r.saved);
      return absl::OkStatus();
    }
    Json fetched = Json::object();
    for (const RunGraphReport::Fetched& f : r.fetches) {
      Json& one = fetched[f.name];
      one = {{"dtype", DTypeName(f.value.dtype())},
             {"shape", std::vector<int64_t>(f.value.shape().dims().begin(),
                                            f.value.shape().dims().end())}};
      int64_t at = 0;
      one[f.file.empty() ? "value" : "npy"] =
          f.file.empty() ? Nested(f.value, 0, &at) : Json(f.file);
    }
    Print({{"fetches", fetched},
           {"restored", r.restored},
           {"saved", r.saved},
           {"runs", r.runs},
           {"seconds", r.seconds},
           {"last_half_seconds", r.last_half_seconds}});
    return absl::OkStatus();
  }
};

// ---- freeze ----
struct FreezeCommand {
  std::string meta, checkpoint, output;
  std::vector<std::string> outputs, only, except;
  bool clear_devices = false, json = false;

  void Register(CLI::App* app) {
    app->add_option("--meta,--input_meta_graph", meta,
                    "The graph: a .meta file (or a GraphDef or a SavedModel; variables that no "
                    "saver in it restores are looked up by their names)")
        ->required();
    app->add_option("--checkpoint,--input_checkpoint", checkpoint,
                    "A checkpoint's prefix, or a folder of checkpoints")
        ->required();
    app->add_option("--output_node_names", outputs, "The nodes to compute, separated by commas")
        ->required()
        ->check(NotEmpty())
        ->delimiter(',');
    app->add_option("--output,--output_graph", output, "Where the frozen GraphDef goes (.pb)")
        ->required()
        ->check(NotEmpty());
    app->add_option("--variable_names_whitelist", only, "Freeze only these variables")
        ->delimiter(',');
    app->add_option("--variable_names_blacklist", except, "Leave these variables as they are")
        ->delimiter(',');
    app->add_flag("--clear_devices", clear_devices, "Forget on which devices the nodes were");
    app->add_flag("--json", json, "Print one JSON object");
  }

  absl::Status Run() {
    FileSystem* fs = FileSystem::Posix();
    FERRY_ASSIGN_OR_RETURN(GraphFile graph, ReadGraphFile(fs, meta));
    std::string prefix;
    {
      FERRY_ASSIGN_OR_RETURN(const auto reader, CheckpointReader::Open(fs, checkpoint));
      prefix = reader->prefix();
    }
    if (clear_devices) {
      for (auto& n : *graph.meta_graph.mutable_graph_def()->mutable_node()) n.clear_device();
    }
    FreezeOptions options;
    if (!only.empty()) options.variable_names_whitelist = only;
    options.variable_names_blacklist = except;
    FERRY_ASSIGN_OR_RETURN(const proto::GraphDef frozen,
                           FreezeCheckpoint(fs, graph.meta_graph, prefix, outputs, options));
    FERRY_RETURN_IF_ERROR(WriteGraphDef(fs, output, frozen));
    if (json) {
      Print({{"output", output},
             {"checkpoint", prefix},
             {"nodes", frozen.node_size()},
             {"bytes", frozen.ByteSizeLong()}});
    } else {
      Say("{}: {} nodes, {} bytes\n", output, frozen.node_size(), frozen.ByteSizeLong());
    }
    return absl::OkStatus();
  }
};

// ---- convert ----
struct ConvertCommand {
  std::string from, to;
  bool json = false;

  void Register(CLI::App* app) {
    const char* const kinds = "a checkpoint's prefix, a .safetensors or a .npz file";
    app->add_option("from", from, fmt::format("{} (or a folder of checkpoints)", kinds))
        ->required();
    app->add_option("to", to, kinds)->required()->check(NotEmpty());
    app->add_flag("--json", json, "Print one JSON object");
  }

  absl::Status Run() {
    FERRY_ASSIGN_OR_RETURN(const ConvertReport r,
                           ConvertTensors(FileSystem::Posix(), from, to, ProgressBar()));
    if (json) {
      Print({{"to", to},
             {"tensors", r.tensors},
             {"parameters", r.parameters},
             {"bytes", r.bytes},
             {"widened", r.widened}});
    } else {
      Say("{}: {} tensors, {} parameters\n", to, r.tensors, r.parameters);
      if (r.widened > 0) {
        Say("{} of them were bfloat16, which NumPy lacks, and are float32 now\n", r.widened);
      }
    }
    return absl::OkStatus();
  }
};

// ---- ops ----
struct OpsCommand {
  std::vector<std::string> names;
  bool markdown = false, json = false;

  void Register(CLI::App* app) {
    app->add_option("names", names, "Of these ops only");
    auto* as_page = app->add_flag("--markdown", markdown, "Print a page in Markdown");
    app->add_flag("--json", json, "Print one JSON object")->excludes(as_page);
  }

  absl::Status Run() {
    std::vector<OpTableRow> rows;
    for (const OpTableRow& row : OpTable()) {
      if (names.empty() || std::find(names.begin(), names.end(), row.op) != names.end()) {
        rows.push_back(row);
      }
    }
    for (const std::string& name : names) {
      if (FindOp(name) == nullptr) return NotFound("there is no op '", name, "'");
    }
    if (markdown) {
      Say("{}", OpTableMarkdown(rows));
      return absl::OkStatus();
    }
    Json ops = Json::array();
    for (const OpTableRow& r : rows) {
      if (json) {
        ops.push_back({{"op", r.op}, {"cpu", r.cpu}, {"gpu", r.gpu}, {"gradient", r.gradient}});
      } else {
        Say("{}\n  CPU       {}\n  GPU       {}\n  gradient  {}\n", r.op, r.cpu, r.gpu, r.gradient);
      }
    }
    if (json) Print({{"ops", ops}});
    return absl::OkStatus();
  }
};

// ---- bench ----
struct BenchCommand {
  BenchOptions options;
  std::string what;
  bool json = false;

  void Register(CLI::App* app) {
    app->add_option("what", what, "save, restore, run or train")
        ->required()
        ->check(CLI::IsMember({"save", "restore", "run", "train"}));
    app->add_option("--mib", options.mib, "MiB of variables")
        ->check(AtLeast(1))
        ->capture_default_str();
    app->add_option("--tensors", options.tensors, "In so many variables")
        ->check(AtLeast(1))
        ->capture_default_str();
    app->add_option("--dir", options.dir, "Where the files go (they are removed)")
        ->capture_default_str();
    app->add_option("--rounds", options.rounds, "Interleaved rounds; figures are medians")
        ->check(AtLeast(1))
        ->capture_default_str();
    app->add_option("--threads", options.threads, "0: as many as there are cores")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    app->add_option("--device", options.device, "auto (a GPU if there is one), cpu or gpu")
        ->check(CLI::IsMember({"auto", "cpu", "gpu"}));
    app->add_flag("--json", json, "Print one JSON object");
  }

  absl::Status Run() {
    options.allocations = &AllocationCount;
    options.progress = ProgressBar();
    absl::StatusOr<Json> r = what == "save"      ? BenchSave(options)
                             : what == "restore" ? BenchRestore(options)
                             : what == "run"     ? BenchRun(options)
                                                 : BenchTrain(options);
    if (options.progress) options.progress(1, 1);
    if (!r.ok()) return r.status();
    if (json) {
      Print(*r);
    } else {
      for (const auto& [key, value] : r->items()) {
        std::cout << fmt::format("{:<40}", key)
                  << (value.is_string() ? value.get<std::string>() : value.dump()) << "\n";
      }
    }
    return absl::OkStatus();
  }
};

template <typename Command>
void Add(CLI::App* app, const char* name, const char* help, Command* command,
         absl::Status* status) {
  CLI::App* sub = app->add_subcommand(name, help);
  command->Register(sub);
  sub->callback([command, status] { *status = command->Run(); });
}

int Main(int argc, char** argv) {
  CLI::App app{"Trains small models, and looks after TensorFlow checkpoints."};
  app.name("ferry");
  app.require_subcommand(1);
  absl::Status status;
  TrainCommand train;
  InspectCommand inspect;
  VerifyCommand verify;
  SummaryCommand summary;
  RunCommand run;
  FreezeCommand freeze;
  ConvertCommand convert;
  OpsCommand ops;
  BenchCommand bench;
  Add(&app, "train", "Train on digits; resumes from the newest checkpoint", &train, &status);
  Add(&app, "inspect", "List a checkpoint's tensors, or print one", &inspect, &status);
  Add(&app, "verify", "Read every byte of a checkpoint and say what is damaged", &verify, &status);
  Add(&app, "summary", "Describe a graph in words, or draw it", &summary, &status);
  Add(&app, "run", "Run a graph from a file: restore, feed, fetch, save", &run, &status);
  Add(&app, "freeze", "Make one file of a graph and its variables' values", &freeze, &status);
  Add(&app, "convert", "Copy tensors between checkpoints, .safetensors and .npz files", &convert,
      &status);
  Add(&app, "ops", "List the ops, with the dtypes of their kernels", &ops, &status);
  Add(&app, "bench", "Measure saving, restoring, running and training", &bench, &status);
  // The parser would only say that a command is needed.
  const auto is_first = [&](const CLI::App* sub) { return sub->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && app.get_subcommands(is_first).empty()) {
    std::cerr << "ferry: there is no command '" << argv[1] << "'\n"
              << "Run with --help for more information.\n";
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // Help that was asked for is no error; anything else is wrong usage.
    if (app.exit(e) != 0) return 2;
  }
  errno = 0;
  if (!std::cout.flush() && status.ok()) {
    status = Unavailable("standard output can't be written",
                         errno == 0 ? "" : absl::StrCat(": ", std::strerror(errno)));
  }
  if (status.ok()) return 0;
  std::cerr << "ferry: " << absl::StatusCodeToString(status.code()) << ": " << status.message()
            << "\n";
  return 1;
}

// A file that is opened must not become the standard output or error of a process that was started
// without one, or messages would be written into it. These stand-ins refuse what they are for.
void OpenStandardStreams() {
  for (int fd = 0; fd < 3; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd) _exit(1);
  }
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  ferry::OpenStandardStreams();
  try {
    return ferry::Main(argc, argv);
  } catch (const std::exception& e) {
    // From the libraries; memory and threads may run out.
    std::cerr << "ferry: " << e.what() << "\n";
    return 1;
  }
}
