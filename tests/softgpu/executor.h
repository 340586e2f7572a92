// Runs PTX kernels over the software GPU's memory.
//
// A module is PTX text, split into its variables and functions at once; a kernel is decoded to
// instructions with a handler each when it is first asked for. Execution is by warps of 32 lanes,
// block after block on the calling thread; every access goes through Memory's checks.
#ifndef FERRY_TESTS_SOFTGPU_EXECUTOR_H_
#define FERRY_TESTS_SOFTGPU_EXECUTOR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/softgpu/memory.h"

namespace softgpu {

struct Program;  // decoded instructions; executor-internal

class Kernel {
 public:
  struct Parameter {
    uint32_t offset = 0;  // in the block of all parameters
    uint32_t bytes = 0;
  };

  Kernel();
  ~Kernel();

  std::string name;  // as in the PTX (mangled)
  std::vector<Parameter> params;
  uint32_t param_bytes = 0;
  uint32_t static_shared_bytes = 0;
  uint32_t local_bytes = 0;     // for each thread
  uint32_t max_threads = 1024;  // for each block: __launch_bounds__
  uint32_t registers = 0;       // 32-bit PTX registers: more than a real compiler would use
  std::unique_ptr<Program> program;
};

// Thread safe.
class Module {
 public:
  // Null and `error` where the text isn't understood as PTX.
  static std::unique_ptr<Module> Parse(std::string text, std::string* error);
  ~Module();

  bool HasKernel(const std::string& name) const;
  // Null and `error` (names the line) where there is no such kernel or it uses what isn't known.
  // The kernel is the module's.
  const Kernel* FindKernel(const std::string& name, std::string* error);
  // Where a __device__ or __constant__ variable lies on `device`. The first call for a device
  // allocates and initialises all variables of the module there. `memory` outlives the module.
  bool FindVariable(const std::string& name, Memory* memory, int device, uint64_t* address,
                    uint64_t* bytes, std::string* error);
  // A line of the text without the spaces around it; they count from 1.
  std::string Line(uint32_t number) const;

 private:
  Module();
  struct State;
  std::unique_ptr<State> state_;
};

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

struct Launch {
  Module* module = nullptr;
  const Kernel* kernel = nullptr;
  Dim3 grid, block;
  uint32_t dynamic_shared_bytes = 0;
  const void* params = nullptr;  // kernel->param_bytes bytes, laid out as kernel->params says
  int device = 0;
  uint64_t budget = uint64_t{1} << 40;  // of thread instructions
};

struct Counts {
  uint64_t instructions = 0;  // of threads
  uint64_t bytes_read = 0;    // of global memory; lanes that read the same address count once
  uint64_t bytes_written = 0;
};

// Runs a whole grid. The first fault ends it and is returned; memory keeps what was written until
// then. printf writes to standard output. One Execute at a time for each Memory.
Report Execute(Memory* memory, const Actor& actor, const Launch& launch, Counts* counts);

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_EXECUTOR_H_
