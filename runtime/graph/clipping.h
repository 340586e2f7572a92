// Clipping of gradients, dense and sparse ones. Sparse ones keep their rows: what is clipped are
// the values. Nodes are named as TensorFlow's functions of these names name them.
#ifndef FERRY_RUNTIME_GRAPH_CLIPPING_H_
#define FERRY_RUNTIME_GRAPH_CLIPPING_H_

#include <vector>

#include "runtime/graph/scope.h"
#include "runtime/graph/sparse_gradient.h"

namespace ferry {

struct ClippedGradients {
  std::vector<Gradient> grads;
  Output norm;  // Of all of them before clipping, as one vector.
};
// Scales all gradients by clip_norm / max(norm, clip_norm); a norm that isn't finite makes them
// NaN. Empty gradients stay empty.
ClippedGradients ClipByGlobalNorm(const Scope& s, const std::vector<Gradient>& grads,
                                  double clip_norm);
// sqrt(sum of all squares).
Output GlobalNorm(const Scope& s, const std::vector<Gradient>& grads);

// x * clip_norm / max(norm of x, clip_norm).
Gradient ClipByNorm(const Scope& s, const Gradient& x, double clip_norm);
// The same with the norm divided by the number of elements.
Gradient ClipByAverageNorm(const Scope& s, const Gradient& x, double clip_norm);
// Each element of x, brought into [min, max].
Gradient ClipByValue(const Scope& s, const Gradient& x, double min, double max);

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_CLIPPING_H_
