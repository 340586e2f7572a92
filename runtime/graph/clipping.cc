// Clipping of gradients; see the header.
#include "runtime/graph/clipping.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"

namespace ferry {
namespace {

Scope AsScope(const Scope& s) { return s.WithOpName(s.prefix() + "/"); }

// A binary op with a constant operand that is named under it: "mul" with "mul/x".
Output WithConst(const Scope& s, Output (*op)(const Scope&, Output, Output), const char* name,
                 DType dtype, double x, Output y) {
  const Scope sub = s.NewSubScope(name);
  Output c = ScalarConst(sub.WithOpName("x"), dtype, x);
  return op(s.WithOpName(sub.prefix() + "/"), c, y);
}
// The same with the constant last: "mul" with "mul/y".
Output ByConst(const Scope& s, Output (*op)(const Scope&, Output, Output), const char* name,
               Output x, double y) {
  const Scope sub = s.NewSubScope(name);
  Output c = ScalarConst(sub.WithOpName("y"), BaseType(x.dtype()), y);
  return op(s.WithOpName(sub.prefix() + "/"), x, c);
}

Gradient WithValues(const Gradient& g, Output values) {
  return g.is_sparse() ? Gradient(values, g.indices, g.dense_shape) : Gradient(values);
}

// Every element 1; in the form that the function of this name has.
Output Ones(const Scope& s, Output like) {
  if (!like.shape().fully_defined()) return ops::OnesLike(s.WithOpName("ones_like"), like);
  const Scope sub = s.NewSubScope("ones_like");
  const std::vector<int32_t> dims(like.shape().dims().begin(), like.shape().dims().end());
  Output shape = ops::ConstVector(sub.WithOpName("Shape/shape_as_tensor"), dims);
  return ops::Fill(AsScope(sub), shape, ScalarConst(sub, BaseType(like.dtype()), 1));
}

}  // namespace

Output GlobalNorm(const Scope& s, const std::vector<Gradient>& grads) {
  const Scope sub = s.NewSubScope("global_norm");
  std::vector<Output> halves;
  DType dtype = DType::kFloat;
  for (const Gradient& g : grads) {
    if (g.empty()) continue;
    dtype = BaseType(g.values.dtype());
    halves.push_back(ops::L2Loss(sub.ColocateWith(g.values.node), g.values));
  }
  if (halves.empty()) {
    s.UpdateStatus(InvalidArgument("the global norm of no gradients"));
    return Output();
  }
  Output sum = ops::ReduceSum(sub, ops::Pack(sub.WithOpName("stack"), halves));
  Output two = ScalarConst(sub, dtype, 2);
  return ops::Sqrt(sub.WithOpName("global_norm"), ops::Mul(sub.WithOpName("mul"), sum, two));
}

ClippedGradients ClipByGlobalNorm(const Scope& s, const std::vector<Gradient>& grads,
                                  double clip_norm) {
  ClippedGradients result;
  result.norm = GlobalNorm(s, grads);
  if (!s.ok()) return result;
  const DType dtype = BaseType(result.norm.dtype());
  const Scope clip = s.NewSubScope("clip_by_global_norm");
  // clip_norm * min(1 / norm, 1 / clip_norm), plus norm - norm, which is 0 or NaN.
  Output inverse = WithConst(clip, ops::RealDiv, "truediv", dtype, 1, result.norm);
  Output one = ScalarConst(clip, dtype, 1);
  const Scope most = clip.NewSubScope("truediv");
  Output bound =
      ops::RealDiv(AsScope(most), one, ScalarConst(most.WithOpName("y"), dtype, clip_norm));
  Output scale =
      WithConst(clip, ops::Mul, "mul", dtype, clip_norm, ops::Minimum(clip, inverse, bound));
  Output nan = ops::Sub(clip.WithOpName("sub"), result.norm, result.norm);
  scale = ops::AddV2(clip.WithOpName("add"), scale, nan);
  for (size_t i = 0; i < grads.size(); ++i) {
    if (grads[i].empty()) {
      result.grads.emplace_back();
      continue;
    }
    const Scope near = clip.ColocateWith(grads[i].values.node);
    Output scaled = ops::Mul(near.WithOpName("mul"), grads[i].values, scale);
    result.grads.push_back(WithValues(
        grads[i],
        ops::Identity(near.WithOpName(absl::StrCat("clip_by_global_norm/_", i)), scaled)));
  }
  return result;
}

Gradient ClipByNorm(const Scope& scope, const Gradient& g, double clip_norm) {
  if (g.empty() || !scope.ok()) return {};
  const Scope s = scope.NewSubScope("clip_by_norm");
  Output x = g.values;
  Output squares = ops::Mul(s.WithOpName("mul"), x, x);
  Output axes;
  if (x.shape().known_rank()) {
    std::vector<int32_t> all(static_cast<size_t>(x.shape().rank()));
    std::iota(all.begin(), all.end(), 0);
    axes = ops::ConstVector(s, all);
  } else {
    axes = ops::Range(s, ops::Const<int32_t>(s, 0), ops::Rank(s, x), ops::Const<int32_t>(s, 1));
  }
  Output sum = ops::Sum(s, squares, axes, /*keep_dims=*/true);
  // The root is drawn of 1 where the sum is 0, so that its gradient stays finite.
  Output positive = ByConst(s, ops::Greater, "Greater", sum, 0);
  Output safe = ops::Select(s, positive, sum, Ones(s, sum));
  Output norm = ops::Select(s, positive, ops::Sqrt(s, safe), sum);
  Output scaled = ByConst(s, ops::Mul, "mul", x, clip_norm);
  Output bound = ByConst(s, ops::Maximum, "Maximum", norm, clip_norm);
  Output clipped = ops::RealDiv(s.WithOpName("truediv"), scaled, bound);
  return WithValues(g, ops::Identity(AsScope(s), clipped));
}

Gradient ClipByAverageNorm(const Scope& scope, const Gradient& g, double clip_norm) {
  if (g.empty() || !scope.ok()) return {};
  const Scope s = scope.NewSubScope("clip_by_average_norm");
  Output x = g.values;
  const DType dtype = BaseType(x.dtype());
  Output n = ops::Cast(s, ops::Size(s, x), dtype);
  Output squares = ops::Mul(s.WithOpName("mul"), x, x);
  const Scope range = s.NewSubScope("range");
  Output first = ops::Const<int32_t>(range.WithOpName("start"), 0);
  Output rank = ops::Rank(s, x), step = ops::Const<int32_t>(range.WithOpName("delta"), 1);
  Output sum = ops::Sum(s, squares, ops::Range(AsScope(range), first, rank, step));
  Output inverse = ops::Rsqrt(s, sum);
  Output scaled = ByConst(s, ops::Mul, "mul", x, clip_norm);
  inverse = ops::Mul(s.WithOpName("mul"), inverse, n);
  Output most = ByConst(s, ops::RealDiv, "truediv", ScalarConst(s, dtype, 1), clip_norm);
  Output clipped = ops::Mul(s.WithOpName("mul"), scaled, ops::Minimum(s, inverse, most));
  return WithValues(g, ops::Identity(AsScope(s), clipped));
}

Gradient ClipByValue(const Scope& scope, const Gradient& g, double min, double max) {
  if (g.empty() || !scope.ok()) return {};
  const Scope s = scope.NewSubScope("clip_by_value");
  Output below = ByConst(s, ops::Minimum, "Minimum", g.values, max);
  Output least = ScalarConst(s.WithOpName("y"), BaseType(g.values.dtype()), min);
  return WithValues(g, ops::Maximum(AsScope(s), below, least));
}

}  // namespace ferry
