// Kernels for executor_test: what ordinary device code is made of, and some planted mistakes. They
// are compiled to PTX only, for an old and a new architecture; the test computes what to expect.
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cassert>
#include <cstdint>
#include <cstdio>

#define KERNEL extern "C" __global__ void

__device__ float scale_factor = 2.5f;
__constant__ float table[8] = {1, 2, 4, 8, 16, 32, 64, 128};
__device__ unsigned int ticket;
__device__ float* indirect = &scale_factor;

// -- memory and control flow --

KERNEL Saxpy(float a, const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a * x[i] + y[i];
}

KERNEL SaxpyGridStride(float a, const float* __restrict__ x, float* __restrict__ y, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    y[i] = a * x[i] + y[i];
  }
}

KERNEL AddFloat4(const float4* x, const float4* y, float4* z, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float4 a = x[i], b = y[i];
  z[i] = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

template <typename T>
__device__ void Transform(const T* x, T* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] * x[i] + T(3);
}
KERNEL TransformInt(const int* x, int* y, int n) { Transform(x, y, n); }
KERNEL TransformDouble(const double* x, double* y, int n) { Transform(x, y, n); }
KERNEL TransformInt8(const int8_t* x, int8_t* y, int n) { Transform(x, y, n); }
KERNEL TransformUint8(const uint8_t* x, uint8_t* y, int n) { Transform(x, y, n); }
KERNEL TransformInt16(const int16_t* x, int16_t* y, int n) { Transform(x, y, n); }
KERNEL TransformInt64(const int64_t* x, int64_t* y, int n) { Transform(x, y, n); }
KERNEL TransformUint64(const uint64_t* x, uint64_t* y, int n) { Transform(x, y, n); }

KERNEL __launch_bounds__(256) BlockSum(const float* x, float* sums, int n) {
  __shared__ float partial[256];
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    sum += x[i];
  }
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (int step = blockDim.x / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) partial[threadIdx.x] += partial[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

// The last block to finish adds the others' sums.
KERNEL LastBlockSum(const float* x, float* sums, float* total, int n) {
  __shared__ float warps[32];
  __shared__ bool last;
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    sum += x[i];
  }
  for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(~0u, sum, d);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = 0;
    for (int i = 0; i < blockDim.x / 32; ++i) sum += warps[i];
    sums[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(&ticket, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    sum = 0;
    for (int i = 0; i < gridDim.x; ++i) sum += sums[i];
    *total = sum;
    ticket = 0;
  }
}

// One warp a row.
KERNEL Softmax(const float* x, float* y, int rows, int columns) {
  const int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  float most = -INFINITY;
  for (int i = lane; i < columns; i += 32) most = fmaxf(most, x[row * columns + i]);
  for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
  float sum = 0;
  for (int i = lane; i < columns; i += 32) sum += expf(x[row * columns + i] - most);
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  for (int i = lane; i < columns; i += 32) {
    y[row * columns + i] = expf(x[row * columns + i] - most) / sum;
  }
}

KERNEL Transpose(const float* x, float* y, int rows, int columns) {
  __shared__ float tile[32][33];
  for (int j = 0; j < 32; j += 8) {
    const int r = blockIdx.y * 32 + threadIdx.y + j, c = blockIdx.x * 32 + threadIdx.x;
    if (r < rows && c < columns) tile[threadIdx.y + j][threadIdx.x] = x[r * columns + c];
  }
  __syncthreads();
  for (int j = 0; j < 32; j += 8) {
    const int r = blockIdx.x * 32 + threadIdx.y + j, c = blockIdx.y * 32 + threadIdx.x;
    if (r < columns && c < rows) y[r * rows + c] = tile[threadIdx.x][threadIdx.y + j];
  }
}

// Dynamic shared memory; the first greatest element of each row.
KERNEL ArgMax(const float* x, int64_t* y, int columns) {
  extern __shared__ char dynamic[];
  float* values = reinterpret_cast<float*>(dynamic);
  int* places = reinterpret_cast<int*>(dynamic + blockDim.x * sizeof(float));
  float best = -INFINITY;
  int at = columns;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) {
    const float v = x[int64_t{blockIdx.x} * columns + i];
    if (v > best) best = v, at = i;
  }
  values[threadIdx.x] = best;
  places[threadIdx.x] = at;
  __syncthreads();
  for (int step = blockDim.x / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) {
      const float v = values[threadIdx.x + step];
      const int p = places[threadIdx.x + step];
      if (v > values[threadIdx.x] || (v == values[threadIdx.x] && p < places[threadIdx.x])) {
        values[threadIdx.x] = v;
        places[threadIdx.x] = p;
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) y[blockIdx.x] = places[0];
}

KERNEL Gather(const float* x, const int64_t* indices, float* y, int rows, int columns, int n) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < int64_t{n} * columns;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t row = indices[i / columns];
    y[i] = row >= 0 && row < rows ? x[row * columns + i % columns] : 0.0f;
  }
}

struct AdamStep {
  float rate, beta1, beta2, epsilon;
  bool nesterov;
};
KERNEL Adam(AdamStep step, float* v, float* m, float* s, const float* g, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  m[i] = step.beta1 * m[i] + (1 - step.beta1) * g[i];
  s[i] = step.beta2 * s[i] + (1 - step.beta2) * g[i] * g[i];
  const float move = step.nesterov ? step.beta1 * m[i] + (1 - step.beta1) * g[i] : m[i];
  v[i] -= step.rate * move / (sqrtf(s[i]) + step.epsilon);
}

KERNEL Philox(uint4* out, uint32_t k0, uint32_t k1, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  uint4 c = make_uint4(i, 0, 7, 9);
  for (int round = 0; round < 10; ++round) {
    const uint32_t h0 = __umulhi(0xD2511F53u, c.x), l0 = 0xD2511F53u * c.x;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c.z;
    c = make_uint4(static_cast<uint32_t>(p1 >> 32) ^ c.y ^ k0, static_cast<uint32_t>(p1),
                   h0 ^ c.w ^ k1, l0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[i] = c;
}

KERNEL BoxMuller(const uint32_t* bits, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float u = fmaxf((bits[2 * i] >> 9) * 1.1920929e-7f, 1e-7f);
  const float angle = 6.2831853f * ((bits[2 * i + 1] >> 9) * 1.1920929e-7f);
  float s, c;
  sincosf(angle, &s, &c);
  const float r = sqrtf(-2.0f * logf(u));
  out[2 * i] = r * s;
  out[2 * i + 1] = r * c;
}

KERNEL Constants(float* out) {
  const int i = threadIdx.x;
  out[i] = table[i % 8] * scale_factor + *indirect;
}

KERNEL Bools(const float* x, bool* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = (x[i] > 0 && x[i] != 1.0f) || isnan(x[i]) || !(x[i] >= -3);
}

KERNEL SelectBool(const bool* p, const double* a, const double* b, double* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = p[i] ? a[i] : b[i];
}

KERNEL Switch(const int* x, int* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int v = x[i];
  switch (x[i]) {
    case 0:
      v = v * 7 + 1;
      break;
    case 1:
      while (v < 1000) v = v * 3 + 1;
      break;
    case 2:
      v ^= 0x55;
      break;
    case 3:
      v = __popc(v * 77);
      break;
    case 4:
      v = __clz(v) * 3;
      break;
    case 5:
      v = __brev(v);
      break;
    case 6:
      v = __ffs(v * 16);
      break;
    case 7:
      v = -v;
      break;
    default:
      v = 0;
  }
  y[i] = v;
}

// Loops of different lengths in one warp, and an array in local memory.
KERNEL Divergent(const int* x, int* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int history[16];
  for (int k = 0; k < 16; ++k) history[k] = k;
  int v = x[i], steps = 0;
  while (v != 1) {
    if (v % 2) {
      v = 3 * v + 1;
    } else {
      v /= 2;
    }
    history[v & 15] += ++steps;
  }
  y[i] = history[x[i] & 15] + history[steps & 15];
}

// -- arithmetic --

KERNEL Integers(const int64_t* a, const int64_t* b, int64_t* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int64_t* o = out + 16 * i;
  const int32_t p = static_cast<int32_t>(a[i]), q = static_cast<int32_t>(b[i]);
  o[0] = a[i] / b[i];
  o[1] = a[i] % b[i];
  o[2] = static_cast<uint64_t>(a[i]) / static_cast<uint64_t>(b[i]);
  o[3] = static_cast<uint64_t>(a[i]) % static_cast<uint64_t>(b[i]);
  o[4] = p / (q | 1);
  o[5] = static_cast<uint32_t>(p) % static_cast<uint32_t>(q | 1);
  o[6] = a[i] >> (b[i] & 63);
  o[7] = static_cast<uint64_t>(a[i]) >> (b[i] & 63);
  o[8] = a[i] << (b[i] & 63);
  o[9] = __mul64hi(a[i], b[i]);
  o[10] = __mulhi(p, q);
  o[11] = min(a[i], b[i]) ^ max(p, q);
  o[12] = __popcll(a[i]) + 100 * __clzll(b[i]) + 10000 * __ffsll(a[i]);
  o[13] = __funnelshift_l(p, q, q & 31);
  o[14] = __byte_perm(p, q, 0x5140) + __brevll(a[i]);
  o[15] = llabs(a[i]) + abs(q) + __dp4a(p, q, 5) + static_cast<int8_t>(p) * static_cast<int16_t>(q);
}

KERNEL FloatMath(const float* x, const float* y, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float* o = out + 24 * i;
  o[0] = expf(x[i]);
  o[1] = logf(fabsf(x[i]));
  o[2] = powf(fabsf(x[i]), y[i]);
  o[3] = tanhf(x[i]);
  o[4] = erff(x[i]);
  o[5] = sinf(x[i]);
  o[6] = cosf(y[i]);
  o[7] = rsqrtf(fabsf(x[i]));
  o[8] = sqrtf(fabsf(y[i]));
  o[9] = x[i] / y[i];
  o[10] = log1pf(fabsf(x[i]));
  o[11] = expm1f(x[i]);
  o[12] = floorf(x[i]) + ceilf(y[i]) * 16;
  o[13] = rintf(x[i]) + truncf(y[i]) * 16 + roundf(x[i]) * 256;
  o[14] = fmodf(x[i], y[i]);
  o[15] = fminf(x[i], y[i]) + 2 * fmaxf(x[i], 0.f);
  o[16] = atan2f(x[i], y[i]);
  o[17] = lgammaf(fabsf(x[i]) + 1);
  o[18] = copysignf(x[i], y[i]);
  o[19] = __fdividef(x[i], y[i]);
  o[20] = __expf(x[i]);
  o[21] = cbrtf(x[i]);
  o[22] = exp2f(x[i]);
  o[23] = fmaf(x[i], y[i], 1.0f);
}

KERNEL DoubleMath(const double* x, const double* y, double* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double* o = out + 20 * i;
  o[0] = exp(x[i]);
  o[1] = log(fabs(x[i]));
  o[2] = pow(fabs(x[i]), y[i]);
  o[3] = tanh(x[i]);
  o[4] = erf(x[i]);
  o[5] = sin(x[i]);
  o[6] = cos(y[i]);
  o[7] = rsqrt(fabs(x[i]));
  o[8] = sqrt(fabs(y[i]));
  o[9] = x[i] / y[i];
  o[10] = log1p(fabs(x[i]));
  o[11] = expm1(x[i]);
  o[12] = floor(x[i]) + ceil(y[i]) * 16;
  o[13] = rint(x[i]) + trunc(y[i]) * 16;
  o[14] = fmod(x[i], y[i]);
  o[15] = fmin(x[i], y[i]) + 2 * fmax(x[i], 0.);
  o[16] = atan2(x[i], y[i]);
  o[17] = lgamma(fabs(x[i]) + 1);
  o[18] = static_cast<double>(static_cast<float>(x[i])) + static_cast<int>(y[i]);
  o[19] = fma(x[i], y[i], 1.0);
}

template <typename T>
__device__ void Conversions(const double* x, double* o) {
  o[0] = static_cast<double>(static_cast<T>(static_cast<int>(*x)));
  o[1] = static_cast<double>(static_cast<T>(static_cast<float>(*x)));
  o[2] = static_cast<double>(static_cast<T>(*x));
  o[3] = static_cast<float>(static_cast<T>(*x));
}
KERNEL Convert(const double* x, double* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double* o = out + 32 * i;
  Conversions<int8_t>(x + i, o);
  Conversions<uint8_t>(x + i, o + 4);
  Conversions<int16_t>(x + i, o + 8);
  Conversions<uint16_t>(x + i, o + 12);
  Conversions<int32_t>(x + i, o + 16);
  Conversions<uint32_t>(x + i, o + 20);
  Conversions<int64_t>(x + i, o + 24);
  Conversions<uint64_t>(x + i, o + 28);
}

__device__ __half Fma(__half a, __half b, __half c) { return __hfma(a, b, c); }
__device__ __nv_bfloat16 Fma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
#if __CUDA_ARCH__ >= 800
  return __hfma(a, b, c);
#else
  return __nv_bfloat16(fmaf(a, b, c));
#endif
}

template <typename T>
__device__ void SmallFloats(const T* x, const T* y, T* out, float* wide) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  T* o = out + 16 * i;
  const T a = x[i], b = y[i];
  o[0] = a + b;
  o[1] = a - b;
  o[2] = a * b;
  o[3] = a / b;
  o[4] = Fma(a, b, a);
  o[5] = -a;
  o[6] = __hmax(a, b);
  o[7] = __hmin(a, b);
  o[8] = hexp(a);
  o[9] = hlog(__habs(b));
  o[10] = hsqrt(__habs(a));
  o[11] = a < b ? a : T(1.5f);
  o[12] = T(static_cast<float>(a) * 3.0f);
  o[13] = T(i);
  o[14] = htanh(a);
  o[15] = __habs(a) == b || __hisnan(b) ? T(1.0f) : T(0.0f);
  wide[i] = static_cast<float>(a) + static_cast<float>(b);
}
KERNEL Halfs(const __half* x, const __half* y, __half* out, float* wide) {
  SmallFloats(x, y, out, wide);
}
KERNEL Bfloats(const __nv_bfloat16* x, const __nv_bfloat16* y, __nv_bfloat16* out, float* wide) {
  SmallFloats(x, y, out, wide);
}
KERNEL Half2s(const __half2* x, const __half2* y, __half2* out) {
  const int i = threadIdx.x;
  const float2 f = __half22float2(y[i]);
  out[i] = __hadd2(__hfma2(x[i], y[i], x[i]), __float22half2_rn(make_float2(f.x * 2, f.y * 2)));
  out[i + 32] = __hadd2(__hlt2(x[i], y[i]), h2exp(x[i]));
}
#if __CUDA_ARCH__ >= 800
KERNEL Bfloat2s(const __nv_bfloat162* x, const __nv_bfloat162* y, __nv_bfloat162* out) {
  const int i = threadIdx.x;
  const float2 f = __bfloat1622float2(y[i]);
  out[i] = __hadd2(__hfma2(x[i], y[i], x[i]), __float22bfloat162_rn(make_float2(f.x * 2, f.y * 2)));
}
#endif

// -- atomics and warps --

KERNEL Atomics(const int* x, int* ints, unsigned long long* longs, float* floats, double* doubles,
               __half* halfs, __nv_bfloat16* bfloats, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  atomicAdd(&ints[0], x[i]);
  atomicMax(&ints[1], x[i]);
  atomicMin(&ints[2], x[i]);
  atomicOr(&ints[3], x[i]);
  atomicAnd(&ints[4], x[i]);
  atomicXor(&ints[5], x[i]);
  atomicInc(reinterpret_cast<unsigned*>(&ints[6]), 10);
  atomicSub(&ints[7], x[i]);
  int old = ints[8], seen;
  do {  // a product of small odd numbers, by compare and swap
    seen = old;
    old = atomicCAS(&ints[8], seen, seen * (x[i] | 1));
  } while (old != seen);
  atomicAdd(&longs[0], static_cast<unsigned long long>(x[i]) << 20);
  atomicMax(&longs[1], static_cast<unsigned long long>(x[i]));
  if (atomicExch(&longs[2], 1) == 0) atomicAdd(&longs[3], 1);
  atomicAdd(&floats[0], static_cast<float>(x[i]));
  atomicAdd(&doubles[0], static_cast<double>(x[i]));
  atomicAdd(&halfs[1], __half(1.0f));
  atomicAdd(&bfloats[1], __nv_bfloat16(1.0f));
}

KERNEL SharedHistogram(const uint8_t* x, int* counts, int n) {
  __shared__ int bins[16];
  if (threadIdx.x < 16) bins[threadIdx.x] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) atomicAdd(&bins[x[i] & 15], 1);
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&counts[threadIdx.x], bins[threadIdx.x]);
}

KERNEL Warps(const int* x, unsigned* out) {
  const int i = threadIdx.x;
  unsigned* o = out + 12 * i;
  o[0] = __ballot_sync(~0u, x[i] > 5);
  o[1] = __any_sync(~0u, x[i] == 7) + 2 * __all_sync(~0u, x[i] >= 0);
  o[2] = __shfl_sync(~0u, x[i], 3, 8);
  o[3] = __shfl_up_sync(~0u, x[i], 2);
  o[4] = __shfl_down_sync(~0u, x[i], 5, 16);
  o[5] = __shfl_xor_sync(~0u, x[i], 9);
  o[6] = __match_any_sync(~0u, x[i] % 4);
  int same;
  o[7] = __match_all_sync(~0u, i / 32, &same) + same;
  o[8] = __syncthreads_count(x[i] > 5);
  o[9] = __syncthreads_or(x[i] == 7) + 2 * __syncthreads_and(x[i] >= 0);
  // Half a warp exchanges by itself.
  o[10] = 0;
  if (i % 32 < 16) {
    o[10] = __shfl_xor_sync(0xffffu, x[i], 1) + __activemask();
  } else {
    o[10] = __shfl_xor_sync(0xffff0000u, x[i], 2);
  }
  __syncwarp();
  o[11] = __double2int_rn(__shfl_down_sync(~0u, static_cast<double>(x[i]), 1));
}

#if __CUDA_ARCH__ >= 800
KERNEL Reductions(const int* x, unsigned* out) {
  const int i = threadIdx.x;
  unsigned* o = out + 4 * i;
  o[0] = __reduce_add_sync(~0u, x[i]);
  o[1] = __reduce_max_sync(~0u, x[i]);
  o[2] = __reduce_min_sync(~0u, static_cast<unsigned>(x[i]));
  o[3] = __reduce_or_sync(~0u, static_cast<unsigned>(x[i]));
}
#endif

KERNEL Prints(int n, float f) {
  if (threadIdx.x == 1) printf("n=%d f=%.2f %s %llu%%\n", n, f, "text", 1ull << 40);
}

__device__ __noinline__ float Series(float x, int n) {
  float sum = 0;
  for (int i = 1; i <= n; ++i) {
    if (i % 7 == 6) return sum;
    sum += x / i;
  }
  return -sum;
}
// Lanes call for different numbers of rounds, and some a second time.
KERNEL Calls(const float* x, float* y) {
  const int i = threadIdx.x;
  float v = Series(x[i], i % 9);
  if (i % 3 == 0) v += Series(v, i % 4);
  y[i] = v;
}

struct Large {
  int numbers[40];
  short small;
  double big;
};
KERNEL LargeParameter(Large large, double* y, int from) {
  y[threadIdx.x] = large.numbers[from + threadIdx.x] + large.small + large.big;
}

// Threads of a warp that leave early, and tiles of a warp.
KERNEL Groups(const int* x, int* y, int n) {
  namespace cg = cooperative_groups;
  const auto block = cg::this_thread_block();
  const auto tile = cg::tiled_partition<8>(block);
  __shared__ int sums[16];
  int v = x[block.thread_rank()];
  for (int d = 4; d > 0; d /= 2) v += tile.shfl_xor(v, d);
  if (tile.thread_rank() == 0) sums[tile.meta_group_rank()] = v;
  block.sync();
  if (block.thread_rank() >= n) return;
  const auto rest = cg::coalesced_threads();
  y[block.thread_rank()] = sums[block.thread_rank() % 16] + rest.size() * 1000;
}

// The first half of the block hands numbers to the second through barriers of their own.
KERNEL NamedBarriers(const int* x, int* y) {
  __shared__ int slot[64];
  const int i = threadIdx.x;
  if (i < 64) {
    slot[i] = x[i];
    asm volatile("bar.sync 1, 64;" ::: "memory");
    const int other = slot[63 - i];
    asm volatile("bar.sync 1, 64;" ::: "memory");
    slot[i] = other * 2;
  }
  asm volatile("bar.sync 2, 128;" ::: "memory");
  if (i >= 64) y[i - 64] = slot[i - 64];
}

// -- mistakes --

KERNEL SharedRace(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = 0;
  __syncthreads();
  tile[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = tile[63 - threadIdx.x];
}

KERNEL OffByOne(float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) x[i] = 1;
}

KERNEL SharedOffByOne(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x + 1] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = tile[threadIdx.x];
}

KERNEL SharedUninitialised(float* x) {
  __shared__ float tile[64];
  if (threadIdx.x != 5) tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = tile[threadIdx.x];
}

KERNEL MissingBarrier(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = tile[63 - threadIdx.x];
}

KERNEL DivergentBarrier(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 40) __syncthreads();
  x[threadIdx.x] = tile[threadIdx.x];
}

KERNEL Endless(volatile int* x) {
  while (*x == 0) {
  }
}

KERNEL Misaligned(char* x) { *reinterpret_cast<float4*>(x + 4) = make_float4(1, 2, 3, 4); }

KERNEL Asserts(int n) { assert(n < 5); }

KERNEL LoneShuffle(int* x) {
  if (threadIdx.x < 7)
    x[threadIdx.x] = __shfl_down_sync(~0u, x[threadIdx.x], 1);
  else
    __syncthreads();
}

// -- speed --

KERNEL Polynomial(float* x, int rounds) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float v = x[i];
  for (int r = 0; r < rounds; ++r) v = v * (v * (v * 0.25f + 0.5f) - 0.125f) * 0.5f + 0.25f;
  x[i] = v;
}
