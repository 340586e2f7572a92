// What a .cu file sees of the runtime: enough to register GPU kernels, without the libraries that
// the rest uses (nvcc compiles neither absl nor Eigen nor protobuf here).
//
//   template <typename T>
//   __global__ void SquareKernel(const T* x, T* y, int64_t n) {
//     for (int64_t i = ferry::gpu::First(); i < n; i += ferry::gpu::Step()) y[i] = x[i] * x[i];
//   }
//   template <typename T>
//   class Square : public gpu::Kernel {
//     bool Run(gpu::Call* c) const override {
//       const gpu::Input x = c->input(0);
//       void* y = c->OutputLike(0, 0);
//       if (!y) return false;
//       if (x.elements == 0) return true;
//       SquareKernel<<<gpu::Blocks(x.elements), gpu::kThreads, 0, Stream(c)>>>(…);
//       return c->Launched("SquareKernel");
//     }
//   };
//   static const bool square = gpu::Register<Square, float, double>("Square", "T", {.in_place…});
//
// Functions that can fail return false or null after noting the error with the call; the kernel
// returns false at once.
#ifndef FERRY_KERNELS_GPU_H_
#define FERRY_KERNELS_GPU_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/tensor/element_type.h"

namespace ferry {

class GpuDevice;
class KernelConstruction;
class KernelContext;
class Variable;

namespace gpu {

// A tensor as a kernel sees it: `data` lies in the device's memory, or in the host's for arguments
// that were registered so. Valid during Run.
struct Input {
  const void* data = nullptr;
  DType dtype = DType::kInvalid;
  int rank = 0;
  const int64_t* dims = nullptr;
  int64_t elements = 0;

  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

// A variable to be changed in place.
struct Target {
  void* data = nullptr;
  DType dtype = DType::kInvalid;
  int rank = 0;
  const int64_t* dims = nullptr;
  int64_t elements = 0;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

enum class Error { kInvalidArgument, kOutOfRange, kFailedPrecondition, kUnimplemented, kInternal };

// What a kernel is told when it is made.
class Setup {
 public:
  explicit Setup(const KernelConstruction& c) : c_(c) {}
  // False for an attribute that isn't there or is of another kind.
  bool Attr(const char* name, bool* out);
  bool Attr(const char* name, int64_t* out);
  bool Attr(const char* name, float* out);
  bool Attr(const char* name, DType* out);
  bool Attr(const char* name, std::string* out);
  bool Attr(const char* name, std::vector<int64_t>* out);
  std::string op() const;
  std::string node_name() const;
  int num_inputs() const;
  int num_outputs() const;
  DType input_type(int i) const;
  DType output_type(int i) const;
  bool Fail(Error error, const std::string& message);

 private:
  friend class KernelAdapter;
  const KernelConstruction& c_;
  Error error_ = Error::kInternal;
  std::string message_;
};

// One call of a kernel.
class Call {
 public:
  explicit Call(KernelContext* c);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  int num_inputs() const;
  int num_outputs() const;
  Input input(int i) const;
  // The elements of an int32 or int64 input in host memory.
  bool HostInts(int i, std::vector<int64_t>* out);
  bool HostInt(int i, int64_t* out);
  // The same as a shape: no negative sizes, and not too many elements.
  bool HostShape(int i, std::vector<int64_t>* out);

  // Memory for output i (device memory, or host memory for arguments registered so); null after an
  // error. It may be the memory of an input that the kernel was registered to work in place on, if
  // the shape and the element size are the same. For an empty tensor it isn't null either.
  void* Output(int i, const int64_t* dims, int rank);
  void* Output(int i, const std::vector<int64_t>& dims);
  void* OutputLike(int i, int input);
  DType output_type(int i) const;
  // Output i is input `in` under another shape. REQUIRES: the op aliases that input.
  void Forward(int in, int out, const int64_t* dims, int rank);

  // Device memory for use by what this call enqueues; 256-byte aligned. Once a call.
  void* Scratch(int64_t bytes);

  // Input i, a reference, for changing: locks the variable until Run returns and lets a snapshot
  // copy the old contents first. All that a call changes in one go, each once. False if one isn't
  // initialised.
  bool Variables(const std::vector<int>& inputs, Target* out);
  // Output i is the reference that input `in` is.
  void OutputVariable(int out, int in);

  GpuDevice* device() const;
  void* stream() const;  // cudaStream_t.
  int multiprocessors() const;
  // After each launch: false, with the error noted, if it failed.
  bool Launched(const char* kernel);
  // The same for the result of a CUDA call (cudaError_t) or a cuBLAS one (cublasStatus_t).
  bool Cuda(int error, const char* what);
  bool Blas(int status, const char* what);
  // cublasHandle_t, set to stream(), the caller's until Run returns; null after an error.
  void* BlasHandle();
  // A copy or a fill of device memory on stream().
  bool Copy(void* to, const void* from, int64_t bytes);
  bool Fill(void* to, int byte, int64_t bytes);

  // Notes the error, unless there is one already; false.
  bool Fail(Error error, const std::string& message);

 private:
  friend class KernelAdapter;
  friend struct HostSide;  // gpu_host.h
  struct State;
  KernelContext* const c_;
  std::unique_ptr<State> state_;
};

// As ferry::Kernel: thread-safe, one for each node of a session.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual bool Init(Setup*) { return true; }
  virtual bool Run(Call* c) const = 0;
};

struct Registration {
  std::string op;
  // Attribute -> types. None: any.
  std::vector<std::pair<std::string, std::vector<DType>>> types;
  std::vector<std::string> host_memory;
  std::vector<int> in_place;
  bool replayable = true;
  std::unique_ptr<Kernel> (*make)() = nullptr;
};
// At start-up. True.
bool Register(Registration registration);

// Options beside op, type attribute and element types.
struct Options {
  std::vector<int> in_place;
  std::vector<std::string> host_memory;
  bool replayable = true;
};

// ---- Shapes, for kernels of several dimensions ----

inline constexpr int kMaxDims = 8;

bool SameShape(const Input& a, const Input& b);
std::string ShapeOf(const Input& in);  // As messages have it: "[2,3]".

// How two or three operands are read while an output is written in row-major order: dimensions that
// behave alike are merged, so that most cases have one or two. Strides are in elements, 0 along
// which the operand is broadcast. dims[0] is the outermost.
struct Broadcast {
  int rank = 0;
  int64_t dims[kMaxDims];
  int64_t strides[3][kMaxDims];
  bool flat = false;   // Every operand has the output's shape.
  int64_t elements = 0;
  int out_rank = 0;          // The shape of the result,
  std::vector<int64_t> out;  // as the op's output has it.
};
// By NumPy's rules. False after an error: shapes that don't fit ("Incompatible shapes: …"), or too
// many dimensions.
bool MakeBroadcast(Call* c, const std::vector<Input>& operands, Broadcast* out);

// A reduction over some dimensions as one over alternating kept and reduced ones: neighbours of one
// kind are merged and those of size 1 left out. kept[i] tells of dims[i].
struct Reduction {
  int rank = 0;
  int64_t dims[kMaxDims];
  bool kept[kMaxDims];
  int64_t out_elements = 1, reduced_elements = 1;
  std::vector<int64_t> out;  // The output's shape.
};
// `axes` as the op has them (negative ones count from the end). False after an error.
bool MakeReduction(Call* c, const Input& in, const std::vector<int64_t>& axes, bool keep_dims,
                   Reduction* out);

// ---- The types' numbers; half and bfloat16 in gpu.cuh, which sees CUDA's headers ----

template <typename T>
struct TypeNumber;
#define FERRY_TYPE_NUMBER(T, V)                 \
  template <>                                   \
  struct TypeNumber<T> {                        \
    static constexpr DType value = DType::V;    \
  }
FERRY_TYPE_NUMBER(float, kFloat);
FERRY_TYPE_NUMBER(double, kDouble);
FERRY_TYPE_NUMBER(int8_t, kInt8);
FERRY_TYPE_NUMBER(int16_t, kInt16);
FERRY_TYPE_NUMBER(int32_t, kInt32);
FERRY_TYPE_NUMBER(int64_t, kInt64);
FERRY_TYPE_NUMBER(uint8_t, kUint8);
FERRY_TYPE_NUMBER(uint16_t, kUint16);
FERRY_TYPE_NUMBER(uint32_t, kUint32);
FERRY_TYPE_NUMBER(uint64_t, kUint64);
FERRY_TYPE_NUMBER(bool, kBool);

template <typename K>
std::unique_ptr<Kernel> MakeKernel() {
  return std::unique_ptr<Kernel>(new K);
}

// Registers K<T> for each T under the type attribute `attr`.
template <template <typename> class K, typename... Ts>
bool Register(const char* op, const char* attr, const Options& options = {}) {
  (Register(Registration{op,
                         {{attr, {TypeNumber<Ts>::value}}},
                         options.host_memory,
                         options.in_place,
                         options.replayable,
                         &MakeKernel<K<Ts>>}),
   ...);
  return true;
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_H_
