// Ops whose results are Summary messages for TensorBoard: ScalarSummary, HistogramSummary,
// MergeSummary.
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/types.h"
#include "proto/summary.pb.h"
#include "runtime/base/status.h"
#include "runtime/op/histogram.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

std::vector<double> AsDoubles(const Tensor& t) {
  const size_t n = static_cast<size_t>(t.num_elements());
  std::vector<double> out(n);
  switch (t.dtype()) {
    case DType::kHalf:
      for (size_t i = 0; i < n; ++i) out[i] = HalfToFloat(static_cast<const Half*>(t.raw())[i]);
      break;
    case DType::kBfloat16:
      for (size_t i = 0; i < n; ++i) {
        out[i] = Bfloat16ToFloat(static_cast<const Bfloat16*>(t.raw())[i]);
      }
      break;
#define FERRY_CASE(E, T)                                                         \
  case DType::E:                                                                 \
    for (size_t i = 0; i < n; ++i) out[i] = static_cast<double>(t.data<T>()[i]); \
    break
      FERRY_CASE(kFloat, float);
      FERRY_CASE(kDouble, double);
      FERRY_CASE(kInt8, int8_t);
      FERRY_CASE(kInt16, int16_t);
      FERRY_CASE(kInt32, int32_t);
      FERRY_CASE(kInt64, int64_t);
      FERRY_CASE(kUint8, uint8_t);
      FERRY_CASE(kUint16, uint16_t);
      FERRY_CASE(kUint32, uint32_t);
      FERRY_CASE(kUint64, uint64_t);
#undef FERRY_CASE
    default:
      break;
  }
  return out;
}

absl::Status SetSummary(KernelContext* c, const proto::Summary& summary) {
  FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape()));
  if (!summary.SerializeToString(&out->data<std::string>()[0])) {
    return InvalidArgument("a summary of ", summary.ByteSizeLong(), " bytes can't be serialized");
  }
  return absl::OkStatus();
}

class ScalarSummaryKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &tags = c->input(0), &values = c->input(1);
    // A single tag goes with a vector of one value, and the other way round.
    if (tags.shape() != values.shape() &&
        !(tags.num_elements() == 1 && values.num_elements() == 1)) {
      return InvalidArgument("tags and values are not the same shape: ", tags.shape().DebugString(),
                             " != ", values.shape().DebugString(),
                             tags.num_elements() == 1
                                 ? absl::StrCat(" (tag '", tags.data<std::string>()[0], "')")
                                 : std::string());
    }
    const std::vector<double> numbers = AsDoubles(values);
    proto::Summary summary;
    for (size_t i = 0; i < numbers.size(); ++i) {
      proto::Summary::Value* v = summary.add_value();
      v->set_tag(tags.data<std::string>()[i]);
      v->set_simple_value(static_cast<float>(numbers[i]));
    }
    return SetSummary(c, summary);
  }
};

class HistogramSummaryKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    name_ = c.node_name();
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& tag = c->input(0);
    if (tag.num_elements() != 1) return InvalidArgument("tags must be scalar");
    const std::vector<double> numbers = AsDoubles(c->input(1));
    for (const double x : numbers) {
      if (std::isnan(x)) return InvalidArgument("Nan in summary histogram for: ", name_);
      if (std::isinf(x)) return InvalidArgument("Infinity in Histogram for: ", name_);
    }
    proto::Summary summary;
    proto::Summary::Value* v = summary.add_value();
    v->set_tag(tag.data<std::string>()[0]);
    *v->mutable_histo() = MakeHistogram(numbers);
    return SetSummary(c, summary);
  }
  std::string name_;
};

class MergeSummaryKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    proto::Summary all;
    std::set<std::string> tags;
    for (int i = 0; i < c->num_inputs(); ++i) {
      const Tensor& in = c->input(i);
      for (int64_t k = 0; k < in.num_elements(); ++k) {
        proto::Summary one;
        if (!one.ParseFromString(in.data<std::string>()[k])) {
          return InvalidArgument("Could not parse one of the summary inputs");
        }
        for (const proto::Summary::Value& v : one.value()) {
          if (!tags.insert(v.tag()).second) {
            return InvalidArgument("Duplicate tag ", v.tag(), " found in summary inputs");
          }
          *all.add_value() = v;
        }
      }
    }
    return SetSummary(c, all);
  }
};

absl::Status ScalarResult(InferenceContext* c) {
  c->set_output(0, PartialShape::Scalar());
  return absl::OkStatus();
}

constexpr char kRealNumbers[] =
    "{float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, uint32, uint64}";

FERRY_OP("ScalarSummary")
    .Input("tags: string")
    .Input("values: T")
    .Output("summary: string")
    .Attr(absl::StrCat("T: ", kRealNumbers))
    .Shape(ScalarResult)
    .NotDifferentiable();
FERRY_OP("HistogramSummary")
    .Input("tag: string")
    .Input("values: T")
    .Output("summary: string")
    .Attr(absl::StrCat("T: ", kRealNumbers, " = DT_FLOAT"))
    .Shape(ScalarResult)
    .NotDifferentiable();
FERRY_OP("MergeSummary")
    .Input("inputs: N * string")
    .Output("summary: string")
    .Attr("N: int >= 1")
    .Shape(ScalarResult)
    .NotDifferentiable();
FERRY_KERNEL("ScalarSummary").Device(DeviceType::kCpu).Make<ScalarSummaryKernel>();
FERRY_KERNEL("HistogramSummary").Device(DeviceType::kCpu).Make<HistogramSummaryKernel>();
FERRY_KERNEL("MergeSummary").Device(DeviceType::kCpu).Make<MergeSummaryKernel>();

}  // namespace
}  // namespace ferry
