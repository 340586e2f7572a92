// Select (the condition has the values' shape, is a scalar, or chooses rows) and SelectV2 (all
// three broadcast).
#include <algorithm>
#include <type_traits>

#include "kernels/broadcast.h"
#include "kernels/constants.h"
#include "kernels/elementwise.h"
#include "kernels/storage.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

absl::Status SelectShape(InferenceContext* c) {
  const PartialShape& condition = c->input(0);
  FERRY_ASSIGN_OR_RETURN(PartialShape values, PartialShape::Merge(c->input(1), c->input(2)));
  if (condition.known_rank() && values.known_rank() && condition.rank() > 0) {
    const bool rows = condition.rank() == 1 && values.rank() > 1;
    if (rows ? !PartialShape({condition.dim(0)}).CompatibleWith(PartialShape({values.dim(0)}))
             : !condition.CompatibleWith(values)) {
      return InvalidArgument("condition of shape ", condition.DebugString(),
                             " doesn't fit values of shape ", values.DebugString());
    }
  }
  c->set_output(0, values);
  return absl::OkStatus();
}

FERRY_OP("Select")
    .Input("condition: bool")
    .Input("t: T")
    .Input("e: T")
    .Output("output: T")
    .Attr("T: type")
    .Shape(SelectShape)
    // y = condition ? t : e:  dt = condition ? dy : 0,  de = condition ? 0 : dy
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output zeros = ops::ZerosLike(s, c->input(1));
      c->set_input_grad(1, ops::Select(s, c->input(0), c->grad(0), zeros));
      c->set_input_grad(2, ops::Select(s, c->input(0), zeros, c->grad(0)));
      return s.status();
    });

FERRY_OP("SelectV2")
    .Input("condition: bool")
    .Input("t: T")
    .Input("e: T")
    .Output("output: T")
    .Attr("T: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape values, BroadcastShapes(c->input(1), c->input(2)));
      FERRY_ASSIGN_OR_RETURN(PartialShape out, BroadcastShapes(c->input(0), values));
      c->set_output(0, out);
      return absl::OkStatus();
    })
    // As for Select, summed over the axes along which t or e was broadcast.
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output dy = c->grad(0), zero = ConstLike(s, dy, 0);
      const Output dt = ops::SelectV2(s, c->input(0), dy, zero);
      const Output de = ops::SelectV2(s, c->input(0), zero, dy);
      c->set_input_grad(1, UnbroadcastGradients(s, c->input(1), c->output(0), dt, Output()).first);
      c->set_input_grad(2, UnbroadcastGradients(s, c->input(2), c->output(0), de, Output()).first);
      return s.status();
    });

// `t` if c, else `e`, without a branch where S is a number: conditions are random as a rule.
template <typename S>
S Either(bool c, const S& t, const S& e) {
  if constexpr (std::is_unsigned_v<S>) {
    const S mask = static_cast<S>(-static_cast<S>(c));
    return static_cast<S>((t & mask) | (e & static_cast<S>(~mask)));
  } else {
    return c ? t : e;
  }
}

// z[i] = c[i * c_step] ? t[i * t_step] : e[i * e_step]; steps are 0 or 1.
template <typename S>
void Choose(const bool* c, int c_step, const S* t, int t_step, const S* e, int e_step, S* z,
            int64_t n) {
  if (c_step == 0) {
    const S* from = *c ? t : e;
    if ((*c ? t_step : e_step) == 0) {
      std::fill_n(z, n, S(*from));
    } else if (from != z) {
      std::copy_n(from, n, z);
    }
  } else if (t_step == 1 && e_step == 1) {
    FERRY_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) z[i] = Either(c[i], t[i], e[i]);
  } else if (t_step == 1) {
    const S other = *e;
    FERRY_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) z[i] = Either(c[i], t[i], other);
  } else if (e_step == 1) {
    const S one = *t;
    FERRY_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) z[i] = Either(c[i], one, e[i]);
  } else {
    const S one = *t, other = *e;
    FERRY_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) z[i] = Either(c[i], one, other);
  }
}

// S holds an element (see storage.h).
template <typename S>
class SelectKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    rows_ = c.op() == "Select";
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const TensorShape& cs = c->input(0).shape();
    const TensorShape& ts = c->input(1).shape();
    const TensorShape& es = c->input(2).shape();
    if (ts == es && (cs == ts || cs.rank() == 0)) {
      const int c_step = cs == ts ? 1 : 0;
      FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, ts));
      const auto [condition, t, e, z] = Pointers(c, out);
      c->ParallelFor(ts.num_elements(), kCheapGrain,
                     [&, condition = condition, t = t, e = e, z = z](int64_t begin, int64_t end) {
                       Choose(condition + begin * c_step, c_step, t + begin, 1, e + begin, 1,
                              z + begin, end - begin);
                     });
      return absl::OkStatus();
    }
    TensorShape shape = ts, condition_shape = cs;
    if (rows_) {
      if (ts != es) {
        return InvalidArgument("t and e must have the same shape: ", ts.DebugString(), " vs. ",
                               es.DebugString());
      }
      if (cs.rank() != 1 || ts.rank() < 1 || cs.dim(0) != ts.dim(0)) {
        return InvalidArgument(
            "condition must be a scalar, have the shape of t and e, or be a "
            "vector with one element a row of theirs: condition ",
            cs.DebugString(), ", t and e ", ts.DebugString());
      }
      while (condition_shape.rank() < ts.rank()) condition_shape.AddDim(1);
    } else {
      FERRY_ASSIGN_OR_RETURN(shape, BroadcastShapes(ts, es));
      FERRY_ASSIGN_OR_RETURN(shape, BroadcastShapes(cs, shape));
    }
    const Broadcast walk(shape, {&condition_shape, &ts, &es});
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    const auto [condition, t, e, z] = Pointers(c, out);
    c->ParallelFor(shape.num_elements(), kCheapGrain,
                   [&, condition = condition, t = t, e = e, z = z](int64_t begin, int64_t end) {
                     walk.ForEachRun(begin, end, [&](int64_t at, const int64_t* from, int64_t n) {
                       Choose(condition + from[0], walk.step(0), t + from[1], walk.step(1),
                              e + from[2], walk.step(2), z + at, n);
                     });
                   });
    return absl::OkStatus();
  }

 private:
  struct Operands {
    const bool* condition;
    const S* t;
    const S* e;
    S* z;
  };
  static Operands Pointers(KernelContext* c, Tensor* out) {
    return {c->input(0).data<bool>(), static_cast<const S*>(c->input(1).raw()),
            static_cast<const S*>(c->input(2).raw()), static_cast<S*>(out->raw())};
  }
  bool rows_ = false;
};

const bool registered = RegisterByStorage<SelectKernel>("Select", {1, 2}) &&
                        RegisterByStorage<SelectKernel>("SelectV2", {1, 2});

}  // namespace
}  // namespace ferry
