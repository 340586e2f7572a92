// Ops that show values or check them: Assert, Print, PrintV2, CheckNumerics.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/types.h"
#include "runtime/base/file_system.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "runtime/tensor/tensor.h"

namespace ferry {
namespace {

void AppendElement(const Tensor& t, int64_t i, std::string* out) {
  switch (t.dtype()) {
    case DType::kString:
      out->append(t.data<std::string>()[i]);
      return;
    case DType::kBool:
      absl::StrAppend(out, t.data<bool>()[i] ? 1 : 0);
      return;
    case DType::kHalf:
      absl::StrAppend(out, HalfToFloat(static_cast<const Half*>(t.raw())[i]));
      return;
    case DType::kBfloat16:
      absl::StrAppend(out, Bfloat16ToFloat(static_cast<const Bfloat16*>(t.raw())[i]));
      return;
#define FERRY_CASE(E, T)                  \
  case DType::E:                          \
    absl::StrAppend(out, t.data<T>()[i]); \
    return
      FERRY_CASE(kFloat, float);
      FERRY_CASE(kDouble, double);
      FERRY_CASE(kInt32, int32_t);
      FERRY_CASE(kInt64, int64_t);
      FERRY_CASE(kInt16, int16_t);
      FERRY_CASE(kUint16, uint16_t);
      FERRY_CASE(kUint32, uint32_t);
      FERRY_CASE(kUint64, uint64_t);
#undef FERRY_CASE
    case DType::kInt8:
      absl::StrAppend(out, static_cast<int>(t.data<int8_t>()[i]));
      return;
    case DType::kUint8:
      absl::StrAppend(out, static_cast<int>(t.data<uint8_t>()[i]));
      return;
    default:
      out->append("?");
  }
}

// The first `most` elements (all if negative): "1 2 3...", matrices in brackets by row.
std::string Summary(const Tensor& t, int64_t most) {
  const int64_t total = t.num_elements();
  const int64_t n = most < 0 ? total : std::min(most, total);
  const int64_t row = t.rank() > 1 ? std::max<int64_t>(t.dim(t.rank() - 1), 1) : 0;
  std::string out;
  for (int64_t i = 0; i < n; ++i) {
    if (row && i % row == 0) {
      out.append(i ? "][" : "[");
    } else if (i) {
      out.append(" ");
    }
    AppendElement(t, i, &out);
  }
  const bool cut = n < total;
  if (row && n > 0) {
    if (cut && n % row != 0) out.append("...");
    out.append("]");
  }
  if (cut) out.append("...");
  return out;
}

// ---- Assert ----

class AssertKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(summarize_, c.Attr<int64_t>("summarize"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& condition = c->input(0);
    if (condition.num_elements() != 1) {
      return InvalidArgument("In[0] should be a scalar, found shape ",
                             condition.shape().DebugString());
    }
    if (condition.scalar<bool>()) return absl::OkStatus();
    std::string message = "assertion failed:";
    for (int i = 1; i < c->num_inputs(); ++i) {
      absl::StrAppend(&message, " [", Summary(c->input(i), summarize_), "]");
    }
    return InvalidArgument(message);
  }
  int64_t summarize_ = 3;
};

FERRY_OP("Assert")
    .Input("condition: bool")
    .Input("data: T")
    .Attr("T: list(type) >= 1")
    .Attr("summarize: int = 3")
    .Stateful()
    .Shape(NoOutputs)
    .NotDifferentiable();
FERRY_KERNEL("Assert")
    .Device(DeviceType::kCpu)
    .HostMemory("condition")
    .HostMemory("data")
    .Make<AssertKernel>();
FERRY_KERNEL("Assert")
    .Device(DeviceType::kGpu)
    .HostMemory("condition")
    .HostMemory("data")
    .Make<AssertKernel>();

// ---- Print, PrintV2 ----

class PrintKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(message_, c.Attr<std::string>("message"));
    FERRY_ASSIGN_OR_RETURN(first_n_, c.Attr<int64_t>("first_n"));
    FERRY_ASSIGN_OR_RETURN(summarize_, c.Attr<int64_t>("summarize"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    c->ForwardInput(0, 0);
    if (first_n_ >= 0 && calls_.fetch_add(1) >= first_n_) return absl::OkStatus();
    std::string line = message_;
    for (int i = 1; i < c->num_inputs(); ++i) {
      absl::StrAppend(&line, "[", Summary(c->input(i), summarize_), "]");
    }
    line.push_back('\n');
    std::fputs(line.c_str(), stderr);
    return absl::OkStatus();
  }
  std::string message_;
  int64_t first_n_ = -1, summarize_ = 3;
  mutable std::atomic<int64_t> calls_{0};
};

FERRY_OP("Print")
    .Input("input: T")
    .Input("data: U")
    .Output("output: T")
    .Attr("T: type")
    .Attr("U: list(type) >= 0")
    .Attr("message: string = ''")
    .Attr("first_n: int = -1")
    .Attr("summarize: int = 3")
    .Stateful()
    .Shape(UnchangedShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(0, c->grad(0));
      return absl::OkStatus();
    })
    .AliasesInput(0);
FERRY_KERNEL("Print").Device(DeviceType::kCpu).Make<PrintKernel>();

class PrintV2Kernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(stream_, c.Attr<std::string>("output_stream"));
    FERRY_ASSIGN_OR_RETURN(end_, c.Attr<std::string>("end"));
    const bool known = stream_ == "stdout" || stream_ == "stderr" ||
                       absl::StartsWith(stream_, "log(") || absl::StartsWith(stream_, "file://");
    if (!known) {
      return InvalidArgument("Unknown output stream: ", stream_,
                             ", expected stdout, stderr, log(info), log(warning), log(error) or "
                             "file://…");
    }
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    if (c->input(0).rank() != 0) {
      return InvalidArgument("Input is expected to be scalar, but got ",
                             c->input(0).shape().DebugString());
    }
    const std::string text = c->input(0).scalar<std::string>() + end_;
    absl::string_view path = stream_;
    if (!absl::ConsumePrefix(&path, "file://")) {
      std::fwrite(text.data(), 1, text.size(), stream_ == "stdout" ? stdout : stderr);
      return absl::OkStatus();
    }
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file,
                           c->run()->fs->NewAppendableFile(std::string(path)));
    FERRY_RETURN_IF_ERROR(file->Append(text));
    return file->Close();
  }
  std::string stream_, end_;
};

FERRY_OP("PrintV2")
    .Input("input: string")
    .Attr("output_stream: string = 'stderr'")
    .Attr("end: string = '\n'")
    .Stateful()
    .Shape(NoOutputs)
    .NotDifferentiable();
FERRY_KERNEL("PrintV2").Device(DeviceType::kCpu).Make<PrintV2Kernel>();

// ---- CheckNumerics ----

template <typename T>
class CheckNumericsKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(message_, c.Attr<std::string>("message"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    bool inf = false, nan = false;
    for (const T& v : c->input(0).span<T>()) {
      const auto x = static_cast<double>(v);
      inf |= std::isinf(x);
      nan |= std::isnan(x);
    }
    if (inf || nan) {
      return InvalidArgument(message_, " : Tensor had ",
                             inf && nan ? "Inf and NaN"
                             : inf      ? "Inf"
                                        : "NaN",
                             " values");
    }
    c->ForwardInput(0, 0);
    return absl::OkStatus();
  }
  std::string message_;
};

FERRY_OP("CheckNumerics")
    .Input("tensor: T")
    .Output("output: T")
    .Attr("T: {bfloat16, half, float, double}")
    .Attr("message: string")
    .Stateful()
    .Shape(UnchangedShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const std::string message, c->Attr<std::string>("message"));
      c->set_input_grad(
          0, NodeBuilder(c->scope(), "CheckNumerics")
                 .Input(c->grad(0))
                 .Attr("message", absl::StrCat("Not a number (NaN) or infinity (Inf) values "
                                               "detected in gradient. ",
                                               message))
                 .BuildOutput());
      return c->scope().status();
    })
    .AliasesInput(0);
[[maybe_unused]] const bool numerics =
    RegisterCpu<CheckNumericsKernel>(FloatTypes(), "CheckNumerics");

}  // namespace
}  // namespace ferry
