// Products of matrices, by the libraries that were measured to be the fastest. Of float, oneDNN:
// with AVX-512, 1.1 to 1.2 times OpenBLAS's speed on large products and up to 2 times on slim ones
// (those of small convolutions and of a last layer); OpenBLAS's kernels for small matrices win for
// the smallest. Either multiplies about 1.5 to 2 times as fast as Eigen. Both compute on the
// calling thread; the runtime's own pool does the splitting.
#include "kernels/gemm.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "cblas.h"
#include "runtime/base/status.h"

#if defined(__x86_64__)
#include <dnnl.h>
#include <omp.h>
#endif

namespace ferry {
namespace {

// Products with less work than this are computed by one thread, since waking another costs as much.
constexpr double kFlopsWorthSplitting = 16e6;

// How a product is split among the threads.
struct Tiles {
  int64_t rows, columns;
};
Tiles SplitAmong(int threads, const GemmShape& s) {
  // Equal parts, in multiples of 16 for the vector registers.
  const auto part = [](int64_t size, int64_t parts) {
    return std::min(size, ((size + parts - 1) / parts + 15) / 16 * 16);
  };
  Tiles best = {s.m, s.n};
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int64_t down = 1; down <= threads; ++down) {
    const Tiles t = {part(s.m, down), part(s.n, (threads + down - 1) / down)};
    const int64_t tiles = ((s.m + t.rows - 1) / t.rows) * ((s.n + t.columns - 1) / t.columns);
    // What the busiest thread multiplies, and the packing of a row or column beforehand, which
    // takes about as long as multiplying it sixteen times.
    const int64_t cost =
        (tiles + threads - 1) / threads * (t.rows * t.columns + 16 * (t.rows + t.columns));
    if (cost < least) {
      least = cost;
      best = t;
    }
  }
  return best;
}

// Products of up to so many multiplications are OpenBLAS's.
constexpr int64_t kSmall = 500000;

CBLAS_TRANSPOSE Trans(bool t) { return t ? CblasTrans : CblasNoTrans; }

#if defined(__x86_64__)
// Whether oneDNN did it. It asks OpenMP how many threads to use, thread by thread.
bool OneDnnGemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
                const float* b, int64_t ldb, float* c, int64_t ldc) {
  static thread_local const bool single_threaded = (omp_set_num_threads(1), true);
  (void)single_threaded;
  return m * n * k > kSmall && dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1.0f, a, lda, b,
                                          ldb, 0.0f, c, ldc) == dnnl_success;
}
#else
bool OneDnnGemm(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t, const float*, int64_t,
                float*, int64_t) {
  return false;
}
#endif

void BlasGemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
              const float* b, int64_t ldb, float* c, int64_t ldc) {
  if (OneDnnGemm(ta, tb, m, n, k, a, lda, b, ldb, c, ldc)) return;
  cblas_sgemm(CblasRowMajor, Trans(ta), Trans(tb), static_cast<int>(m), static_cast<int>(n),
              static_cast<int>(k), 1.0f, a, static_cast<int>(lda), b, static_cast<int>(ldb), 0.0f,
              c, static_cast<int>(ldc));
}
void BlasGemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda,
              const double* b, int64_t ldb, double* c, int64_t ldc) {
  cblas_dgemm(CblasRowMajor, Trans(ta), Trans(tb), static_cast<int>(m), static_cast<int>(n),
              static_cast<int>(k), 1.0, a, static_cast<int>(lda), b, static_cast<int>(ldb), 0.0, c,
              static_cast<int>(ldc));
}

// y = op(a) x, where `a` lies as rows x columns.
void BlasGemv(bool ta, int64_t rows, int64_t columns, const float* a, const float* x, float* y) {
  cblas_sgemv(CblasRowMajor, Trans(ta), static_cast<int>(rows), static_cast<int>(columns), 1.0f, a,
              static_cast<int>(columns), x, 1, 0.0f, y, 1);
}
void BlasGemv(bool ta, int64_t rows, int64_t columns, const double* a, const double* x, double* y) {
  cblas_dgemv(CblasRowMajor, Trans(ta), static_cast<int>(rows), static_cast<int>(columns), 1.0, a,
              static_cast<int>(columns), x, 1, 0.0, y, 1);
}

// gcc warns that a vector type's alignment is not a part of a template argument: it need not be.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"

// The transpose of a rows x columns matrix.
template <typename T>
void Transpose(int64_t rows, int64_t columns, const T* from, T* to) {
  using Packet = typename Eigen::internal::packet_traits<T>::type;
  constexpr int64_t kWidth = Eigen::internal::packet_traits<T>::size;
  int64_t i = 0;
  if constexpr (kWidth > 1) {
    for (; i + kWidth <= rows; i += kWidth) {
      int64_t j = 0;
      for (; j + kWidth <= columns; j += kWidth) {
        Eigen::internal::PacketBlock<Packet, kWidth> block;
        for (int64_t q = 0; q < kWidth; ++q) {
          block.packet[q] = Eigen::internal::ploadu<Packet>(from + (i + q) * columns + j);
        }
        Eigen::internal::ptranspose(block);
        for (int64_t q = 0; q < kWidth; ++q) {
          Eigen::internal::pstoreu(to + (j + q) * rows + i, block.packet[q]);
        }
      }
      for (; j < columns; ++j) {
        for (int64_t q = 0; q < kWidth; ++q) to[j * rows + i + q] = from[(i + q) * columns + j];
      }
    }
  }
  for (; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) to[j * rows + i] = from[i * columns + j];
  }
}

#pragma GCC diagnostic pop

// OpenBLAS's kernels for small matrices take twice as long when the second factor is transposed;
// transposing it first is cheaper when there are rows enough to make up for it.
bool TransposeFirst(const GemmShape& s, int64_t batch) {
  return s.transpose_b && batch == 1 && s.m >= 16 && s.n > 1 && s.m * s.n * s.k <= kSmall;
}

// `space` has room for the second factor if TransposeFirst.
template <typename T>
void BlasBatch(KernelContext* c, const GemmShape& s, int64_t batch, const int64_t* a_index,
               const int64_t* b_index, const T* a, const T* b, T* out, T* space) {
  // Its own threads would compete with the pool's.
  static const bool single_threaded = (openblas_set_num_threads(1), true);
  (void)single_threaded;
  bool tb = s.transpose_b;
  if (TransposeFirst(s, batch)) {
    Transpose(s.n, s.k, b, space);
    b = space;
    tb = false;
  }
  const int64_t lda = s.transpose_a ? s.m : s.k, ldb = tb ? s.k : s.n;
  const double flops =
      2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  const bool vector = s.m == 1 || s.n == 1;
  const bool split = flops > kFlopsWorthSplitting && !vector;
  const Tiles size = split ? SplitAmong(c->threads(), s) : Tiles{s.m, s.n};
  const int64_t across = (s.n + size.columns - 1) / size.columns;
  const int64_t tiles = (s.m + size.rows - 1) / size.rows * across;
  const int64_t grain =
      split ? 1 : std::max<int64_t>(1, static_cast<int64_t>(kFlopsWorthSplitting / 4 / flops));
  c->ParallelFor(batch * tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t i = unit / tiles, tile = unit % tiles;
      const T* ai = a + (a_index ? a_index[i] : i) * s.m * s.k;
      const T* bi = b + (b_index ? b_index[i] : i) * s.k * s.n;
      T* ci = out + i * s.m * s.n;
      if (s.n == 1) {
        BlasGemv(s.transpose_a, s.transpose_a ? s.k : s.m, lda, ai, bi, ci);
      } else if (s.m == 1) {
        BlasGemv(!tb, tb ? s.n : s.k, ldb, bi, ai, ci);
      } else {
        const int64_t row = tile / across * size.rows, column = tile % across * size.columns;
        BlasGemm(s.transpose_a, tb, std::min(size.rows, s.m - row),
                 std::min(size.columns, s.n - column), s.k, ai + (s.transpose_a ? row : row * lda),
                 lda, bi + (tb ? column * ldb : column), ldb, ci + row * s.n + column, s.n);
      }
    }
  });
}

// Integers: products and sums as unsigned numbers, which wrap around.
template <typename T>
void IntegerGemm(const GemmShape& s, const T* a, const T* b, T* out, int64_t row_begin,
                 int64_t row_end) {
  using U = std::conditional_t<(sizeof(T) < 4), uint32_t, std::make_unsigned_t<T>>;
  for (int64_t i = row_begin; i < row_end; ++i) {
    T* const c = out + i * s.n;
    std::fill(c, c + s.n, T{0});
    for (int64_t p = 0; p < s.k; ++p) {
      const U av = static_cast<U>(s.transpose_a ? a[p * s.m + i] : a[i * s.k + p]);
      if (s.transpose_b) {
        for (int64_t j = 0; j < s.n; ++j) {
          c[j] = static_cast<T>(static_cast<U>(c[j]) + av * static_cast<U>(b[j * s.k + p]));
        }
      } else {
        const T* const row = b + p * s.n;
        for (int64_t j = 0; j < s.n; ++j) {
          c[j] = static_cast<T>(static_cast<U>(c[j]) + av * static_cast<U>(row[j]));
        }
      }
    }
  }
}

template <typename From, typename To>
void Convert(KernelContext* c, const From* from, To* to, int64_t size) {
  c->ParallelFor(size, 1 << 15, [&](int64_t begin, int64_t end) {
    MutableArray<To>(to + begin, end - begin) =
        ConstArray<From>(from + begin, end - begin).template cast<To>();
  });
}

// How many matrices the factors hold.
int64_t Count(int64_t batch, const int64_t* index) {
  return index && batch > 0 ? *std::max_element(index, index + batch) + 1 : batch;
}

}  // namespace

template <typename T>
absl::Status BatchGemm(KernelContext* c, const GemmShape& s, int64_t batch, const int64_t* a_index,
                       const int64_t* b_index, const T* a, const T* b, T* out) {
  if (batch == 0 || s.m == 0 || s.n == 0) return absl::OkStatus();
  if (s.k == 0) {
    std::fill(out, out + batch * s.m * s.n, T(0));
    return absl::OkStatus();
  }
  if constexpr (std::is_integral_v<T>) {
    const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, s.n * s.k));
    for (int64_t i = 0; i < batch; ++i) {
      const T* ai = a + (a_index ? a_index[i] : i) * s.m * s.k;
      const T* bi = b + (b_index ? b_index[i] : i) * s.k * s.n;
      c->ParallelFor(s.m, grain, [&](int64_t begin, int64_t end) {
        IntegerGemm(s, ai, bi, out + i * s.m * s.n, begin, end);
      });
    }
  } else {
    if (std::max({s.m, s.n, s.k}) > std::numeric_limits<int>::max()) {
      return InvalidArgument("a product of matrices of ", s.m, " x ", s.k, " and ", s.k, " x ", s.n,
                             " elements is too large: sizes must be below 2^31");
    }
    const int64_t transposed = TransposeFirst(s, batch) ? s.k * s.n : 0;
    if constexpr (sizeof(T) == 2) {
      const int64_t a_size = Count(batch, a_index) * s.m * s.k;
      const int64_t b_size = Count(batch, b_index) * s.k * s.n;
      const int64_t c_size = batch * s.m * s.n;
      FERRY_ASSIGN_OR_RETURN(
          void* space,
          c->Scratch(sizeof(float) * static_cast<size_t>(a_size + b_size + c_size + transposed)));
      float* const fa = static_cast<float*>(space);
      float* const fb = fa + a_size;
      float* const fc = fb + b_size;
      Convert(c, a, fa, a_size);
      Convert(c, b, fb, b_size);
      BlasBatch(c, s, batch, a_index, b_index, fa, fb, fc, fc + c_size);
      Convert(c, fc, out, c_size);
    } else {
      void* space = nullptr;
      if (transposed > 0) {
        FERRY_ASSIGN_OR_RETURN(space, c->Scratch(sizeof(T) * static_cast<size_t>(transposed)));
      }
      BlasBatch(c, s, batch, a_index, b_index, a, b, out, static_cast<T*>(space));
    }
  }
  return absl::OkStatus();
}

#define FERRY_GEMM(T)                                                                           \
  template absl::Status BatchGemm<T>(KernelContext*, const GemmShape&, int64_t, const int64_t*, \
                                     const int64_t*, const T*, const T*, T*);
FERRY_GEMM(half)
FERRY_GEMM(bfloat16)
FERRY_GEMM(float)
FERRY_GEMM(double)
FERRY_GEMM(int16_t)
FERRY_GEMM(int32_t)
FERRY_GEMM(int64_t)
#undef FERRY_GEMM

}  // namespace ferry
