// Constants of any number type; see the header.
#include "kernels/constants.h"

#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"

namespace ferry {
namespace {

template <typename... Ts>
Output Make(Types<Ts...>, const Scope& s, DType dtype, double value) {
  Output out;
  ((DTypeOf<Ts>::value == dtype
        ? void(out = ops::Const(s, Tensor::Scalar<Ts>(static_cast<Ts>(value))))
        : void()),
   ...);
  return out;
}

}  // namespace

Output ConstLike(const Scope& s, Output x, double value) {
  if (x.node == nullptr) return Output();  // The scope's status says why.
  const DType dtype = BaseType(x.dtype());
  Output out = Make(Join<NumberTypes, Types<bool>>(), s, dtype, value);
  if (out.node == nullptr) {
    s.UpdateStatus(Unimplemented("a constant of dtype ", DTypeName(dtype)));
  }
  return out;
}

}  // namespace ferry
