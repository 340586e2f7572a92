// The walk over broadcast operands; see the header.
#include "kernels/broadcast.h"

#include <algorithm>

namespace ferry {

Broadcast::Broadcast(const TensorShape& out, absl::Span<const TensorShape* const> operands)
    : operands_(static_cast<int>(operands.size())) {
  int64_t volume[kMaxOperands] = {1, 1, 1};  // Of each operand's dimensions further in.
  unsigned last_pattern = 0;
  for (int d = out.rank() - 1; d >= 0; --d) {
    const int64_t size = out.dim(d);
    if (size == 1) continue;
    unsigned pattern = 0;
    for (int k = 0; k < operands_; ++k) {
      const int own = d - (out.rank() - operands[k]->rank());
      if (own >= 0 && operands[k]->dim(own) != 1) pattern |= 1u << k;
    }
    if (groups_.empty() || pattern != last_pattern) {
      Group g{1, {}};
      for (int k = 0; k < operands_; ++k) g.stride[k] = (pattern >> k & 1) ? volume[k] : 0;
      groups_.push_back(g);
      last_pattern = pattern;
    }
    groups_.back().size *= size;
    for (int k = 0; k < operands_; ++k) {
      if (pattern >> k & 1) volume[k] *= size;
    }
  }
  if (groups_.empty()) groups_.push_back(Group{1, {}});
}

void Broadcast::ForEachRun(int64_t begin, int64_t end, RunFn fn) const {
  if (begin >= end) return;
  const Group& inner = groups_.front();
  const size_t outer = groups_.size() - 1;
  absl::InlinedVector<int64_t, 4> index(outer);
  int64_t from[kMaxOperands] = {};  // Where the current row begins.
  int64_t column = begin % inner.size;
  int64_t row = begin / inner.size;
  for (size_t g = 0; g < outer; ++g) {
    const Group& group = groups_[g + 1];
    index[g] = row % group.size;
    row /= group.size;
    for (int k = 0; k < operands_; ++k) from[k] += index[g] * group.stride[k];
  }
  for (int64_t at = begin;;) {
    const int64_t n = std::min(inner.size - column, end - at);
    int64_t first[kMaxOperands];
    for (int k = 0; k < kMaxOperands; ++k) first[k] = from[k] + column * inner.stride[k];
    fn(at, first, n);
    at += n;
    if (at >= end) return;
    column = 0;
    for (size_t g = 0; g < outer; ++g) {
      const Group& group = groups_[g + 1];
      for (int k = 0; k < operands_; ++k) from[k] += group.stride[k];
      if (++index[g] < group.size) break;
      index[g] = 0;
      for (int k = 0; k < operands_; ++k) from[k] -= group.size * group.stride[k];
    }
  }
}

}  // namespace ferry
