// Reductions on a GPU, in an order that depends on shapes alone. As on the CPU any set of
// dimensions comes down to stages that each reduce the middle one of three dimensions, before x
// reduced x after; a stage with few results is split into chunks, whose results a second pass
// combines.
//
// An op says what is combined:
//
//   struct SumOf {
//     using In = float;   // Of the input.
//     using Acc = float;  // Of what is combined; passes other than the first read and all but the
//                         // last write it. ShuffleXor (gpu_group.cuh) knows it.
//     static constexpr bool kPlain = true;  // Acc is In and Load is the identity.
//     __device__ static Acc Identity();
//     __device__ static Acc Load(In x, int64_t r);  // r: the place in the first stage's `reduced`.
//     __device__ static Acc Combine(Acc x, Acc y);  // Commutative.
//     struct Result {                               // With what is needed to write an output:
//       __device__ void Store(void* out, int64_t i, Acc acc) const;
//     };
//   };
#ifndef FERRY_KERNELS_GPU_REDUCE_CUH_
#define FERRY_KERNELS_GPU_REDUCE_CUH_

#include <vector>

#include "kernels/gpu_group.cuh"

namespace ferry {
namespace gpu {

struct Stage {
  int64_t before, reduced, after;
};

template <typename Op>
struct Pass {
  const void* in;
  bool from_input;  // `in` holds Op::In, else Op::Acc.
  Stage s;
  int64_t chunk, chunks;  // `chunks` pieces of `reduced`, of `chunk` each but the last.
  void* out;              // before x chunks x after.
  bool last;              // Its elements are results, else Op::Acc.
  typename Op::Result result;

  __device__ typename Op::Acc Load(int64_t i, int64_t r) const {
    if constexpr (Op::kPlain) {
      return static_cast<const typename Op::Acc*>(in)[i];
    } else {
      return from_input ? Op::Load(static_cast<const typename Op::In*>(in)[i], r)
                        : static_cast<const typename Op::Acc*>(in)[i];
    }
  }
  __device__ void Store(int64_t i, typename Op::Acc acc) const {
    if (last) {
      result.Store(out, i, acc);
    } else {
      static_cast<typename Op::Acc*>(out)[i] = acc;
    }
  }
};

template <typename Op>
struct CombineF {
  __device__ typename Op::Acc operator()(typename Op::Acc x, typename Op::Acc y) const {
    return Op::Combine(x, y);
  }
};

// after == 1. A group has one chunk of one row. `vectors`: chunks and rows begin at 16-byte
// addresses of the input.
template <typename Op>
__global__ void __launch_bounds__(kThreads)
    ReduceRowsKernel(const Pass<Op> p, int lanes, bool vectors) {
  using In = typename Op::In;
  using Acc = typename Op::Acc;
  constexpr int kN = kVector<In>;
  __shared__ Shared<Acc> shared;
  const Group g(lanes);
  const int64_t units = p.s.before * p.chunks;
  for (int64_t unit = g.FirstRow(); unit < g.Rows(units); unit += g.RowStep()) {
    Acc acc = Op::Identity();
    if (unit < units) {
      const int64_t first = unit % p.chunks * p.chunk;
      const int64_t count = p.s.reduced - first < p.chunk ? p.s.reduced - first : p.chunk;
      const int64_t at = unit / p.chunks * p.s.reduced + first;
      int64_t done = 0;
      if (vectors) {
        const Vector<In>* const from =
            reinterpret_cast<const Vector<In>*>(static_cast<const In*>(p.in) + at);
        Acc sums[kN];
#pragma unroll
        for (int k = 0; k < kN; ++k) sums[k] = Op::Identity();
        for (int64_t i = g.lane; i < count / kN; i += g.lanes) {
          const Vector<In> x = from[i];
#pragma unroll
          for (int k = 0; k < kN; ++k) {
            sums[k] = Op::Combine(sums[k], Op::Load(x.v[k], first + i * kN + k));
          }
        }
#pragma unroll
        for (int k = 0; k < kN; ++k) acc = Op::Combine(acc, sums[k]);
        done = count / kN * kN;
      }
      for (int64_t i = done + g.lane; i < count; i += g.lanes) {
        acc = Op::Combine(acc, p.Load(at + i, first + i));
      }
    }
    acc = g.Combine(acc, CombineF<Op>(), &shared);
    if (unit < units && g.lane == 0) p.Store(unit, acc);
  }
}

// after > 1. A block has `width` columns (a power of two) of one chunk; its threads share the rows.
template <typename Op>
__global__ void __launch_bounds__(kThreads) ReduceColumnsKernel(const Pass<Op> p, int width) {
  using Acc = typename Op::Acc;
  __shared__ Acc shared[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  const int x = t & (width - 1), y = t / width, rows = kThreads / width;
  const int64_t blocks = (p.s.after + width - 1) / width;
  const int64_t units = p.s.before * p.chunks * blocks;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const int64_t row = unit / blocks;  // Of before x chunks.
    const int64_t column = unit % blocks * width + x;
    const int64_t first = row % p.chunks * p.chunk;
    const int64_t end = p.s.reduced - first < p.chunk ? p.s.reduced : first + p.chunk;
    const int64_t at = row / p.chunks * p.s.reduced * p.s.after + column;
    Acc acc = Op::Identity();
    if (column < p.s.after) {
#pragma unroll 4
      for (int64_t r = first + y; r < end; r += rows) {
        acc = Op::Combine(acc, p.Load(at + r * p.s.after, r));
      }
    }
    shared[t] = acc;
    __syncthreads();
    for (int step = rows / 2; step > 0; step /= 2) {
      if (y < step) shared[t] = Op::Combine(shared[t], shared[t + step * width]);
      __syncthreads();
    }
    if (y == 0 && column < p.s.after) p.Store(row * p.s.after + column, shared[x]);
    __syncthreads();
  }
}

// How a stage is cut up.
struct Cut {
  int64_t chunk, chunks;
  int width = 0;  // Of a block's columns.

  Cut(const Stage& s) : chunk(s.reduced), chunks(1) {  // NOLINT: implicit.
    // About so many blocks are wanted, and so much work for each thread.
    constexpr int64_t kBlocks = 1024, kItems = 16;
    int64_t blocks = s.before, block_items = kThreads * kItems;
    if (s.after > 1) {
      width = 1;
      while (width < 32 && width < s.after) width *= 2;
      // Columns rather than rows where there are few rows.
      while (width < kThreads && width < s.after && kThreads / width > s.reduced) width *= 2;
      blocks = s.before * ((s.after + width - 1) / width);
      block_items = kThreads / width * kItems;
    }
    if (blocks * 2 > kBlocks || s.reduced <= 2 * block_items) return;
    chunks = std::min((s.reduced + block_items - 1) / block_items, kBlocks / blocks);
    // Whole vectors in each.
    chunk = ((s.reduced + chunks - 1) / chunks + 15) / 16 * 16;
    chunks = (s.reduced + chunk - 1) / chunk;
  }
};

template <typename Op>
bool RunPass(Call* c, const Pass<Op>& p, int width) {
  if (p.s.after > 1) {
    const int64_t units = p.s.before * p.chunks * ((p.s.after + width - 1) / width);
    ReduceColumnsKernel<Op><<<Blocks(c, units * kThreads), kThreads, 0, Stream(c)>>>(p, width);
    return c->Launched("ReduceColumnsKernel");
  }
  constexpr int64_t kN = kVector<typename Op::In>;
  const int64_t units = p.s.before * p.chunks;
  const bool vectors = p.from_input && p.chunk >= 2 * kN && Aligned(p.in) &&
                       (p.s.before == 1 || p.s.reduced % kN == 0);
  const int lanes = GroupLanes(vectors ? p.chunk / kN * 2 : p.chunk);
  ReduceRowsKernel<Op><<<GroupBlocks(c, units, lanes), kThreads, 0, Stream(c)>>>(p, lanes, vectors);
  return c->Launched("ReduceRowsKernel");
}

// Runs the stages, at least one, one after the other. Uses the call's scratch memory.
template <typename Op>
bool RunStages(Call* c, const void* in, const std::vector<Stage>& stages, void* out,
               const typename Op::Result& result) {
  using Acc = typename Op::Acc;
  // Memory for the chunks' results, and for those of stages, in turns in one place and another.
  int64_t partial = 0, between[2] = {0, 0};
  for (size_t i = 0; i < stages.size(); ++i) {
    const Stage& s = stages[i];
    const Cut cut(s);
    if (cut.chunks > 1) partial = std::max(partial, s.before * cut.chunks * s.after);
    if (i + 1 < stages.size()) between[i % 2] = std::max(between[i % 2], s.before * s.after);
  }
  Acc* space = nullptr;
  if (partial + between[0] + between[1] > 0) {
    space = static_cast<Acc*>(
        c->Scratch((partial + between[0] + between[1]) * static_cast<int64_t>(sizeof(Acc))));
    if (!space) return false;
  }
  Acc* const turns[2] = {space + partial, space + partial + between[0]};
  for (size_t i = 0; i < stages.size(); ++i) {
    const Cut cut(stages[i]);
    Pass<Op> p;
    p.in = i == 0 ? in : turns[(i - 1) % 2];
    p.from_input = i == 0;
    p.s = stages[i];
    p.chunk = cut.chunk;
    p.chunks = cut.chunks;
    p.result = result;
    const bool last = i + 1 == stages.size();
    void* const to = last ? out : turns[i % 2];
    p.out = cut.chunks > 1 ? space : to;
    p.last = last && cut.chunks == 1;
    if (!RunPass<Op>(c, p, cut.width)) return false;
    if (cut.chunks == 1) continue;
    p.in = space;
    p.from_input = false;
    p.s.reduced = p.chunk = cut.chunks;
    p.chunks = 1;
    p.out = to;
    p.last = last;
    if (!RunPass<Op>(c, p, cut.width)) return false;
  }
  return true;
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_REDUCE_CUH_
