// A kernel that is compiled with each way of storing PTX; FUNCTION names it.
static __global__ void FatbinKernel(int* to, int value) { *to = value; }

void FUNCTION(int* to, int value) { FatbinKernel<<<1, 1>>>(to, value); }
