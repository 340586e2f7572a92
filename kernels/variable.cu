// Updates of variables, references and handles alike, on a GPU: AssignAdd, AssignSub, and those of single rows.
//
// Rows that are updated several times take their updates in the order of the indices, as on the
// CPU, so that results are the same each time: the indices are sorted first. An index out of range
// can't be told of from the device; its update is left out.
#include <limits>
#include <vector>

#include "kernels/gpu_binary.cuh"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_sort.cuh"

namespace ferry {
namespace gpu {
namespace {

struct AddF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(x + y);
  }
};
struct SubF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(x - y);
  }
};

// ---- AssignAdd, AssignSub ----

template <typename T, typename F>
class Accumulate : public Kernel {
  bool Run(Call* c) const override {
    using W = Wrapping<T>;
    Target v;
    if (!c->Variables({0}, &v) || !CheckAccumulate(c)) return false;
    c->OutputVariable(0, 0);
    if (v.elements == 0) return true;
    W* const to = v.as<W>();
    const W* const by = c->input(1).as<W>();
    BinaryLoop<F, W, W><<<Blocks(c, v.elements), kThreads, 0, Stream(c)>>>(
        F(), to, 1, by, 1, to, v.elements, Aligned(to, by));
    return c->Launched("BinaryLoop");
  }
};
template <typename T>
using AssignAdd = Accumulate<T, AddF>;
template <typename T>
using AssignSub = Accumulate<T, SubF>;

// ---- Updates of rows ----

// Indices out of range become `rows`, which is behind all others.
template <typename Index>
__global__ void __launch_bounds__(kThreads)
    RowKeysKernel(const Index* indices, int64_t n, int64_t rows, uint32_t* keys) {
  for (int64_t i = First(); i < n; i += Step()) {
    const int64_t row = indices[i];
    keys[i] = static_cast<uint32_t>(row >= 0 && row < rows ? row : rows);
  }
}

// The rows to update, sorted; update number positions[p] goes to row keys[p].
struct Rows {
  const uint32_t* keys;
  const uint32_t* positions;
  int64_t n, rows;
  int64_t size;  // Of a row.
  bool scalar;   // There is one element, which goes everywhere.
};

// A thread has one column of one row that is updated, and all its updates.
template <typename T, typename F>
__global__ void __launch_bounds__(kThreads)
    AccumulateRowsKernel(T* to, const T* updates, const Rows r) {
  for (int64_t i = First(); i < r.n * r.size; i += Step()) {
    int64_t p = i / r.size;
    const int64_t column = i - p * r.size;
    const uint32_t row = r.keys[p];
    if (row >= r.rows || (p > 0 && r.keys[p - 1] == row)) continue;
    T sum = to[row * r.size + column];
    do {
      const T by = updates[r.scalar ? 0 : r.positions[p] * r.size + column];
      sum = Narrow<T>(F::template Apply<Wide<T>>(Widen(sum), Widen(by)));
      ++p;
    } while (p < r.n && r.keys[p] == row);
    to[row * r.size + column] = sum;
  }
}

// The last of a row's updates is the one that stays.
template <typename Unit>
__global__ void __launch_bounds__(kThreads)
    UpdateRowsKernel(Unit* to, const Unit* updates, const Rows r) {
  for (int64_t i = First(); i < r.n * r.size; i += Step()) {
    const int64_t p = i / r.size;
    const int64_t column = i - p * r.size;
    const uint32_t row = r.keys[p];
    if (row >= r.rows || (p + 1 < r.n && r.keys[p + 1] == row)) continue;
    to[row * r.size + column] = updates[r.scalar ? 0 : r.positions[p] * r.size + column];
  }
}

// A kernel whose Update is given the sorted rows.
class Scatter : public Kernel {
  bool Run(Call* c) const override {
    Target v;
    if (!c->Variables({0}, &v) || !CheckScatter(c)) return false;
    c->OutputVariable(0, 0);
    const Input indices = c->input(1), updates = c->input(2);
    const int64_t n = indices.elements, rows = v.dims[0];
    if (n == 0 || v.elements == 0) return true;
    if (n > std::numeric_limits<int32_t>::max() || rows > std::numeric_limits<int32_t>::max()) {
      return c->Fail(Error::kUnimplemented,
                     "updating more than 2^31 - 1 rows, or rows of so many, on a GPU");
    }
    SortSpace sorted(n);
    void* const space = c->Scratch(sorted.bytes());
    if (!space) return false;
    sorted.Use(space);
    if (indices.dtype == DType::kInt32) {
      RowKeysKernel<<<Blocks(c, n), kThreads, 0, Stream(c)>>>(indices.as<int32_t>(), n, rows,
                                                              sorted.keys);
    } else {
      RowKeysKernel<<<Blocks(c, n), kThreads, 0, Stream(c)>>>(indices.as<int64_t>(), n, rows,
                                                              sorted.keys);
    }
    int bits = 1;
    while (rows >> bits > 0) ++bits;
    return c->Launched("RowKeysKernel") && SortPositions(c, bits, &sorted) &&
           Update(c, v.data, updates.data,
                  {sorted.keys, sorted.positions, n, rows, v.elements / rows, updates.rank == 0});
  }

  virtual bool Update(Call* c, void* to, const void* updates, const Rows& rows) const = 0;
};

template <typename T, typename F>
class ScatterAccumulate : public Scatter {
  bool Update(Call* c, void* to, const void* updates, const Rows& r) const override {
    using W = Wrapping<T>;
    AccumulateRowsKernel<W, F><<<Blocks(c, r.n * r.size), kThreads, 0, Stream(c)>>>(
        static_cast<W*>(to), static_cast<const W*>(updates), r);
    return c->Launched("AccumulateRowsKernel");
  }
};
template <typename T>
using ScatterAdd = ScatterAccumulate<T, AddF>;
template <typename T>
using ScatterSub = ScatterAccumulate<T, SubF>;

template <typename T>
class ScatterUpdate : public Scatter {
  bool Update(Call* c, void* to, const void* updates, const Rows& r) const override {
    const int64_t bytes = r.size * static_cast<int64_t>(sizeof(T));
    if (!r.scalar && bytes % 16 == 0 && Aligned(to, updates)) {
      Rows vectors = r;
      vectors.size = bytes / 16;
      return Launch<uint4>(c, to, updates, vectors);
    }
    return Launch<T>(c, to, updates, r);
  }
  template <typename Unit>
  static bool Launch(Call* c, void* to, const void* updates, const Rows& r) {
    UpdateRowsKernel<Unit><<<Blocks(c, r.n * r.size), kThreads, 0, Stream(c)>>>(
        static_cast<Unit*>(to), static_cast<const Unit*>(updates), r);
    return c->Launched("UpdateRowsKernel");
  }
};

// By the elements' size.
template <typename Unit>
bool RegisterUpdate(const std::vector<DType>& types) {
  return Register(
             {"ScatterUpdate", {{"T", types}}, {}, {}, true, &MakeKernel<ScatterUpdate<Unit>>}) &&
         Register({"ResourceScatterUpdate",
                   {{"dtype", types}},
                   {},
                   {},
                   true,
                   &MakeKernel<ScatterUpdate<Unit>>});
}

[[maybe_unused]] const bool registered =
    Register<AssignAdd, FERRY_GPU_NUMBERS>("AssignAdd", "T") &&
    Register<AssignSub, FERRY_GPU_NUMBERS>("AssignSub", "T") &&
    Register<AssignAdd, FERRY_GPU_NUMBERS>("AssignAddVariableOp", "dtype") &&
    Register<AssignSub, FERRY_GPU_NUMBERS>("AssignSubVariableOp", "dtype") &&
    Register<ScatterAdd, FERRY_GPU_NUMBERS>("ScatterAdd", "T") &&
    Register<ScatterSub, FERRY_GPU_NUMBERS>("ScatterSub", "T") &&
    Register<ScatterAdd, FERRY_GPU_NUMBERS>("ResourceScatterAdd", "dtype") &&
    Register<ScatterSub, FERRY_GPU_NUMBERS>("ResourceScatterSub", "dtype") &&
    RegisterUpdate<uint8_t>({DType::kBool, DType::kInt8, DType::kUint8}) &&
    RegisterUpdate<uint16_t>({DType::kHalf, DType::kBfloat16, DType::kInt16, DType::kUint16}) &&
    RegisterUpdate<uint32_t>({DType::kFloat, DType::kInt32, DType::kUint32}) &&
    RegisterUpdate<uint64_t>({DType::kDouble, DType::kInt64, DType::kUint64});

}  // namespace
}  // namespace gpu
}  // namespace ferry
