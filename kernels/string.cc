// Ops on strings: StringJoin and StaticRegexFullMatch, by which a sharded Saver's graph names its
// temporary files, and RegexFullMatch.
#include <re2/re2.h>

#include <memory>
#include <string>

#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// Element-wise; scalars join each element of the others, which have one shape.
class StringJoinKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(separator_, c.Attr<std::string>("separator"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    TensorShape shape;
    bool found = false;
    for (int i = 0; i < c->num_inputs(); ++i) {
      const TensorShape& s = c->input(i).shape();
      if (s.rank() == 0) continue;
      if (found && s != shape) {
        return InvalidArgument("Input shapes do not match: ", shape.DebugString(), " vs. ",
                               s.DebugString());
      }
      shape = s;
      found = true;
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    std::string* joined = out->data<std::string>();
    for (int64_t k = 0; k < shape.num_elements(); ++k) {
      joined[k].clear();
      for (int i = 0; i < c->num_inputs(); ++i) {
        if (i > 0) joined[k] += separator_;
        const Tensor& in = c->input(i);
        joined[k] += in.data<std::string>()[in.rank() == 0 ? 0 : k];
      }
    }
    return absl::OkStatus();
  }

  std::string separator_;
};

FERRY_OP("StringJoin")
    .Input("inputs: N * string")
    .Output("output: string")
    .Attr("N: int >= 0")
    .Attr("separator: string = ''")
    .NotDifferentiable()
    .Shape([](InferenceContext* c) -> absl::Status {
      PartialShape shape = PartialShape::Scalar();
      bool found = false;
      for (int i = 0; i < c->num_inputs(); ++i) {
        if (!c->input(i).known_rank()) {
          c->set_output(0, PartialShape());
          return absl::OkStatus();
        }
        if (c->input(i).rank() == 0) continue;
        if (!found) {
          shape = c->input(i);
        } else {
          FERRY_ASSIGN_OR_RETURN(shape, PartialShape::Merge(shape, c->input(i)));
        }
        found = true;
      }
      c->set_output(0, shape);
      return absl::OkStatus();
    });
FERRY_KERNEL("StringJoin").Device(DeviceType::kCpu).Make<StringJoinKernel>();

absl::StatusOr<std::unique_ptr<RE2>> CompilePattern(const std::string& pattern) {
  RE2::Options options;
  options.set_log_errors(false);
  auto compiled = std::make_unique<RE2>(pattern, options);
  if (!compiled->ok()) {
    return InvalidArgument("Invalid pattern: ", pattern, ", error: ", compiled->error());
  }
  return compiled;
}

// Whether each element of input 0 as a whole matches the pattern: an attribute, or input 1. RE2
// takes linear time, whatever pattern a graph brings.
class RegexFullMatchKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    if (c.input_types().size() == 2) return absl::OkStatus();
    FERRY_ASSIGN_OR_RETURN(const std::string pattern, c.Attr<std::string>("pattern"));
    FERRY_ASSIGN_OR_RETURN(pattern_, CompilePattern(pattern));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    std::unique_ptr<RE2> given;
    if (!pattern_) {
      const Tensor& pattern = c->input(1);
      if (pattern.rank() != 0) {
        return InvalidArgument("Pattern must be scalar, but received ",
                               pattern.shape().DebugString());
      }
      FERRY_ASSIGN_OR_RETURN(given, CompilePattern(pattern.scalar<std::string>()));
    }
    const RE2& pattern = pattern_ ? *pattern_ : *given;
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    for (int64_t k = 0; k < in.num_elements(); ++k) {
      out->data<bool>()[k] = RE2::FullMatch(in.data<std::string>()[k], pattern);
    }
    return absl::OkStatus();
  }

  std::unique_ptr<RE2> pattern_;
};

FERRY_OP("StaticRegexFullMatch")
    .Input("input: string")
    .Output("output: bool")
    .Attr("pattern: string")
    .NotDifferentiable()
    .Shape(UnchangedShape);
FERRY_KERNEL("StaticRegexFullMatch").Device(DeviceType::kCpu).Make<RegexFullMatchKernel>();

FERRY_OP("RegexFullMatch")
    .Input("input: string")
    .Input("pattern: string")
    .Output("output: bool")
    .NotDifferentiable()
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 0).status());
      c->set_output(0, c->input(0));
      return absl::OkStatus();
    });
FERRY_KERNEL("RegexFullMatch").Device(DeviceType::kCpu).Make<RegexFullMatchKernel>();

}  // namespace
}  // namespace ferry
