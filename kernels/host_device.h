// FERRY_HOST_DEVICE marks functions that .cc and .cu files share: nvcc compiles them for both
// sides.
#ifndef FERRY_KERNELS_HOST_DEVICE_H_
#define FERRY_KERNELS_HOST_DEVICE_H_

#ifdef __CUDACC__
#define FERRY_HOST_DEVICE __host__ __device__
#else
#define FERRY_HOST_DEVICE
#endif

#endif  // FERRY_KERNELS_HOST_DEVICE_H_
