// Select and SelectV2 on a GPU, by the elements' width.
#include "kernels/gpu.cuh"

namespace ferry {
namespace gpu {
namespace {

// out[i] = c[i * c_step] ? t[i * t_step] : e[i * e_step]; steps are 0 or 1. In whole vectors while
// there are any. out may be t or e where the step is 1.
template <typename S>
__global__ void __launch_bounds__(kThreads)
    SelectLoop(const uint8_t* c, int c_step, const S* t, int t_step, const S* e, int e_step, S* out,
               int64_t n, bool vectors) {
  constexpr int kN = kVector<S>;
  int64_t done = 0;
  if (vectors) {
    const int64_t whole = n / kN;
    done = whole * kN;
    Elements<uint8_t, kN> cv;
    Vector<S> tv, ev;
#pragma unroll
    for (int k = 0; k < kN; ++k) {
      if (c_step == 0) cv.v[k] = *c;
      if (t_step == 0) tv.v[k] = *t;
      if (e_step == 0) ev.v[k] = *e;
    }
    for (int64_t i = First(); i < whole; i += Step()) {
      if (c_step) cv = reinterpret_cast<const Elements<uint8_t, kN>*>(c)[i];
      if (t_step) tv = reinterpret_cast<const Vector<S>*>(t)[i];
      if (e_step) ev = reinterpret_cast<const Vector<S>*>(e)[i];
      Vector<S> v;
#pragma unroll
      for (int k = 0; k < kN; ++k) v.v[k] = cv.v[k] ? tv.v[k] : ev.v[k];
      reinterpret_cast<Vector<S>*>(out)[i] = v;
    }
  }
  for (int64_t i = done + First(); i < n; i += Step()) {
    out[i] = c[c_step ? i : 0] ? t[t_step ? i : 0] : e[e_step ? i : 0];
  }
}

template <typename S, typename Index>
__global__ void __launch_bounds__(kThreads)
    SelectBroadcastLoop(const uint8_t* c, const S* t, const S* e, S* out, int64_t n,
                        const BroadcastView b) {
  for (int64_t i = First(); i < n; i += Step()) {
    Index at[3];
    Locate<3, Index>(b, static_cast<Index>(i), at);
    out[i] = c[at[0]] ? t[at[1]] : e[at[2]];
  }
}

// kRows: Select, whose condition may choose rows.
template <typename S, bool kRows>
class SelectKernel : public Kernel {
  bool Run(Call* c) const override {
    Input condition = c->input(0);
    const Input t = c->input(1), e = c->input(2);
    std::vector<int64_t> column;  // The shape of a condition that chooses rows.
    if (kRows) {
      if (!SameShape(t, e)) {
        return c->Fail(Error::kInvalidArgument,
                       "t and e must have the same shape: " + ShapeOf(t) + " vs. " + ShapeOf(e));
      }
      if (condition.rank != 0 && !SameShape(condition, t)) {
        if (condition.rank != 1 || t.rank < 1 || condition.dims[0] != t.dims[0]) {
          return c->Fail(Error::kInvalidArgument,
                         "condition must be a scalar, have the shape of t and e, or be a vector "
                         "with one element a row of theirs: condition " +
                             ShapeOf(condition) + ", t and e " + ShapeOf(t));
        }
        column.assign(static_cast<size_t>(t.rank), 1);
        column[0] = condition.dims[0];
        condition.rank = t.rank;
        condition.dims = column.data();
      }
    }
    Broadcast b;
    // In this order, so that errors name the shapes that the CPU's name.
    const bool fit = SameShape(t, e) && (condition.elements == 1 || SameShape(condition, t));
    if (!kRows && !fit) {
      if (!MakeBroadcast(c, {t, e}, &b)) return false;
      const std::vector<int64_t> dims = b.out;
      Input values;
      values.rank = b.out_rank;
      values.dims = dims.data();
      if (!MakeBroadcast(c, {condition, values}, &b)) return false;
    }
    if (!MakeBroadcast(c, {condition, t, e}, &b)) return false;
    S* out = static_cast<S*>(c->Output(0, b.out));
    if (!out) return false;
    const int64_t n = b.elements;
    if (n == 0) return true;
    const unsigned blocks = Blocks(c, n);
    const Input* in[3] = {&condition, &t, &e};
    int step[3];
    const void* moving[3];
    bool flat = true;
    for (int k = 0; k < 3; ++k) {
      step[k] = in[k]->elements == n;
      moving[k] = step[k] ? in[k]->data : nullptr;
      flat = flat && (step[k] || in[k]->elements == 1);
    }
    if (flat) {
      const bool vectors = Aligned(moving[0], moving[1], moving[2]) && Aligned(out);
      SelectLoop<S><<<blocks, kThreads, 0, Stream(c)>>>(condition.as<uint8_t>(), step[0], t.as<S>(),
                                                        step[1], e.as<S>(), step[2], out, n,
                                                        vectors);
    } else if (n <= std::numeric_limits<int32_t>::max()) {
      SelectBroadcastLoop<S, int32_t><<<blocks, kThreads, 0, Stream(c)>>>(
          condition.as<uint8_t>(), t.as<S>(), e.as<S>(), out, n, View(b));
    } else {
      SelectBroadcastLoop<S, int64_t><<<blocks, kThreads, 0, Stream(c)>>>(
          condition.as<uint8_t>(), t.as<S>(), e.as<S>(), out, n, View(b));
    }
    return c->Launched("SelectLoop");
  }
};

template <typename... Ts>
bool RegisterSelect() {
  for (const bool rows : {true, false}) {
    (Register(Registration{rows ? "Select" : "SelectV2",
                           {{"T", {TypeNumber<Ts>::value}}},
                           {},
                           {1, 2},
                           true,
                           rows ? &MakeKernel<SelectKernel<Unsigned<Ts>, true>>
                                : &MakeKernel<SelectKernel<Unsigned<Ts>, false>>}),
     ...);
  }
  return true;
}

[[maybe_unused]] const bool registered = RegisterSelect<FERRY_GPU_NUMBERS, bool>();

}  // namespace
}  // namespace gpu
}  // namespace ferry
