// Constants that gradient functions need, of whatever dtype the tensors at hand have.
#ifndef FERRY_KERNELS_CONSTANTS_H_
#define FERRY_KERNELS_CONSTANTS_H_

#include "runtime/graph/scope.h"

namespace ferry {

// A Const: the scalar `value` in the dtype of `x` (numbers and bool; references count as what they
// refer to). For another dtype the scope's status becomes Unimplemented.
Output ConstLike(const Scope& s, Output x, double value);

}  // namespace ferry

#endif  // FERRY_KERNELS_CONSTANTS_H_
