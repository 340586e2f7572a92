// Picking and marking rows by index, on a GPU. An index that points outside can't be reported from
// there: it picks zeros and marks nothing.
#include "kernels/gpu_rows.cuh"
#include "kernels/gpu_storage.cuh"

namespace ferry {
namespace gpu {
namespace {

// ---- Gather ----

template <typename T, typename Index>
__global__ void __launch_bounds__(kThreads) GatherKernel(const GatherRows g) {
  const T* params = static_cast<const T*>(g.params);
  T* out = static_cast<T*>(g.out);
  const Index inner = static_cast<Index>(g.inner), n = static_cast<Index>(g.n),
              outer = static_cast<Index>(g.outer), limit = static_cast<Index>(g.limit);
  for (int64_t e = First(); e < g.rows * g.inner; e += Step()) {
    const Index row = static_cast<Index>(e) / inner, col = static_cast<Index>(e) - row * inner;
    const Index block = row / n, i = row - block * n;
    const int64_t k = IndexAt(g.indices.data, g.indices.dtype, block / outer * n + i);
    T value = {};
    if (k >= 0 && k < g.limit) {
      value = params[(block * limit + static_cast<Index>(k)) * inner + col];
    }
    out[e] = value;
  }
}

bool Gather(Call* c, const GatherRows& asked) {
  GatherRows g = asked;
  if (g.indices.depth != 1) {
    int64_t* flat = static_cast<int64_t*>(c->Scratch(g.indices.n * int64_t{sizeof(int64_t)}));
    if (!flat || !Flatten(c, g.indices, g.limit, flat)) return false;
    g.indices.data = flat;
    g.indices.dtype = DType::kInt64;
  }
  // Rows are copied in elements as wide as alignment allows.
  const uint64_t bits = reinterpret_cast<uintptr_t>(g.params) |
                        reinterpret_cast<uintptr_t>(g.out) |
                        static_cast<uint64_t>(g.inner * g.width);
  const int wide = static_cast<int>(std::min<uint64_t>(16, bits & (~bits + 1)));
  g.inner /= wide / g.width;
  const int64_t elements = g.rows * g.inner;
  const int64_t reach = std::max(elements, g.rows / g.n * g.limit * g.inner);
  const unsigned blocks = Blocks(c, elements);
  WithElement(wide, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (reach <= std::numeric_limits<int32_t>::max()) {
      GatherKernel<T, int32_t><<<blocks, kThreads, 0, Stream(c)>>>(g);
    } else {
      GatherKernel<T, int64_t><<<blocks, kThreads, 0, Stream(c)>>>(g);
    }
  });
  return c->Launched("GatherKernel");
}

// ---- Marks ----

template <typename T>
__global__ void __launch_bounds__(kThreads)
    MarkKernel(const void* indices, DType dtype, int64_t n, int64_t depth, int64_t inner,
               const T* on, T* out) {
  const T value = *on;
  for (int64_t i = First(); i < n; i += Step()) {
    const int64_t k = IndexAt(indices, dtype, i), block = i / inner;
    if (k >= 0 && k < depth) out[(block * depth + k) * inner + (i - block * inner)] = value;
  }
}

bool Mark(Call* c, int width, const NdIndices& indices, int64_t inner, const void* on, void* out) {
  WithElement(width, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    MarkKernel<T><<<Blocks(c, indices.n), kThreads, 0, Stream(c)>>>(
        indices.data, indices.dtype, indices.n, indices.dims[0], inner, static_cast<const T*>(on),
        static_cast<T*>(out));
  });
  return c->Launched("MarkKernel");
}

[[maybe_unused]] const bool registered = [] {
  Array().gather = &Gather;
  Array().mark = &Mark;
  return true;
}();

}  // namespace
}  // namespace gpu
}  // namespace ferry
