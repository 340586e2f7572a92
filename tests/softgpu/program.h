// What a decoded kernel is made of, and the state that its instructions work on. Internal to the
// executor.
//
// A register is 32 lanes side by side, of 4 bytes each (8-, 16- and 32-bit registers) or of 8; a
// predicate is one mask of 32 bits. A warp's registers, predicates, the constants of its kernel
// and the special registers lie in one block of bytes, and operands are offsets into it, so that
// handlers need not care what an operand is.
#ifndef FERRY_TESTS_SOFTGPU_PROGRAM_H_
#define FERRY_TESTS_SOFTGPU_PROGRAM_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/softgpu/executor.h"
#include "tests/softgpu/memory.h"

namespace softgpu {

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = ~0u;

// Offsets that every register block has.
constexpr uint32_t kTrue = 0;   // the predicate that always holds
constexpr uint32_t kCarry = 4;  // the carry flags of add.cc and its kin
constexpr uint32_t kNoRegister = ~0u;

// Generic addresses: the top byte tells the space; 0 is global memory.
constexpr int kTagShift = 56;
constexpr uint64_t kSharedTag = uint64_t{1} << kTagShift;
constexpr uint64_t kLocalTag = uint64_t{2} << kTagShift;
constexpr uint64_t kParamTag = uint64_t{3} << kTagShift;
constexpr uint64_t kTagMask = uint64_t{0xff} << kTagShift;

struct Instruction;
struct Machine;
using Handler = void (*)(Machine&, const Instruction&);

struct Instruction {
  Handler run = nullptr;
  uint32_t d = 0;      // destination
  uint32_t s[4] = {};  // sources
  uint32_t guard = kTrue;
  uint32_t guard_flip = 0;  // all ones for @!p
  uint32_t more = 0;        // index of further operands in Program::operands
  uint32_t count = 0;       // how many those are, or another small number of the handler's
  uint32_t line = 0;        // in the PTX text
  int64_t immediate = 0;    // an address offset, a branch's target, ...
  Handler inner = nullptr;  // what a wrapping handler runs
};

// A slot of the register block that is filled before a block of threads runs.
struct Constant {
  enum Kind {
    kValue,
    kSymbol,  // the address of a module's variable, plus value
    kTidX,
    kTidY,
    kTidZ,
    kNtidX,
    kNtidY,
    kNtidZ,
    kCtaidX,
    kCtaidY,
    kCtaidZ,
    kNctaidX,
    kNctaidY,
    kNctaidZ,
    kLaneId,
    kWarpId,
    kNwarpId,
    kLanemaskEq,
    kLanemaskLe,
    kLanemaskLt,
    kLanemaskGe,
    kLanemaskGt,
    kDynamicShared,
    kTotalShared,
    kParam,  // value: offset, bytes << 32, sign << 40
    kPredicate,
  };
  Kind kind = kValue;
  uint32_t offset = 0;
  uint32_t width = 4;  // of a lane
  uint64_t value = 0;
  std::string symbol;
};

struct Program {
  std::vector<Instruction> code;
  std::vector<uint32_t> operands;
  std::vector<Constant> constants;
  uint32_t register_bytes = 0;
  bool partial_barriers = false;  // some barrier is not of the whole block
};

// One warp between instructions.
struct Group {
  uint32_t pc = 0;
  uint32_t mask = 0;
  bool parked = false;  // waits at a .sync instruction or a barrier for the other lanes
};

struct Warp {
  std::vector<Group> groups;  // the lanes that live, by where they are; never two at one pc
  uint32_t lanes = 0;         // those that exist
  uint32_t alive = 0;         // those that have not returned
  bool waiting = false;       // at a barrier
  uint32_t barrier_pc = 0;
};

struct Machine {
  // What handlers use most.
  uint8_t* registers = nullptr;  // of the present warp
  uint32_t mask = 0;             // the lanes that the present instruction is for
  uint32_t pc = 0;               // of the next instruction
  uint32_t active = 0;           // lanes that execute together; contains mask
  uint32_t alive = 0;            // lanes of this warp that have not returned

  enum Event { kNone, kJump, kSplit, kSpread, kPark, kBarrier, kExit, kFault };
  Event event = kNone;       // what the run loop has to do after the instruction
  uint32_t targets[kLanes];  // kSpread: where each lane goes

  Memory* memory = nullptr;
  const Actor* actor = nullptr;
  int device = 0;
  Counts counts;

  uint8_t* shared = nullptr;
  uint32_t shared_bytes = 0;
  uint8_t* shared_state = nullptr;   // 1: initialised, for each byte
  uint32_t* shared_users = nullptr;  // for each 4 bytes; see SharedHazard
  uint32_t interval = 1;             // counts barriers, and blocks
  bool shared_races = false;         // whether warps can collide, and that is looked for
  uint8_t* local = nullptr;          // of the present warp: a frame for each lane
  uint32_t local_bytes = 0;
  const uint8_t* params = nullptr;
  uint32_t param_bytes = 0;

  const Kernel* kernel = nullptr;
  const Program* program = nullptr;
  Module* module = nullptr;
  Dim3 grid, block, block_index;
  uint32_t warp_index = 0;
  Report report;

  // Ends the launch with what `lane` just did wrong. `problem` is a sentence's end.
  void Fail(Report::Kind kind, int lane, const std::string& problem);
  void FailAccess(int lane, uint64_t address, uint64_t bytes, Access kind);
  // "kernel K, line 12 of its PTX (ld.global ...), block (0,0,0), thread (3,0,0)"
  std::string Where(int lane) const;
  const Instruction& present() const { return program->code[pc - 1]; }
};

// -- lanes --

template <typename T>
using Word = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <typename T>
inline T FromWord(Word<T> word) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(word);
  } else {
    T value;
    if constexpr (sizeof(T) == 2) {
      const uint16_t low = static_cast<uint16_t>(word);
      std::memcpy(&value, &low, 2);
    } else {
      std::memcpy(&value, &word, sizeof(T));
    }
    return value;
  }
}

template <typename T>
inline Word<T> ToWord(T value) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<Word<T>>(value);
  } else if constexpr (sizeof(T) == 2) {
    uint16_t low;
    std::memcpy(&low, &value, 2);
    return low;
  } else {
    Word<T> word;
    std::memcpy(&word, &value, sizeof(T));
    return word;
  }
}

template <typename T>
inline Word<T>* Lanes(Machine& m, uint32_t offset) {
  return reinterpret_cast<Word<T>*>(m.registers + offset);
}

inline uint32_t& Mask(Machine& m, uint32_t offset) {
  return *reinterpret_cast<uint32_t*>(m.registers + offset);
}

// Sets the active lanes of a register to compute(lane), which is called for all lanes and has no
// effects. Registers are the same or apart, so that lanes don't depend on each other.
template <typename D, typename Compute>
inline void Put(Machine& m, uint32_t offset, Compute compute) {
  Word<D>* d = Lanes<D>(m, offset);
  const uint32_t mask = m.mask;
  if (mask == kAllLanes) {
#pragma GCC ivdep
    for (int i = 0; i < kLanes; ++i) d[i] = ToWord<D>(compute(i));
  } else {
#pragma GCC ivdep
    for (int i = 0; i < kLanes; ++i) {
      const Word<D> value = ToWord<D>(compute(i));
      d[i] = mask >> i & 1 ? value : d[i];
    }
  }
}

template <typename F>
inline void ForEachLane(uint32_t mask, F f) {
  for (; mask; mask &= mask - 1) f(__builtin_ctz(mask));
}

// A handler with the widths of its operands: '4' or '8' bytes a lane, 'p' a predicate; the
// destination first.
struct Operation {
  Handler run = nullptr;
  std::string widths;
};
using OperationTable = std::unordered_map<std::string, Operation>;

template <typename F>
struct LaneFunction;
template <typename D, typename... A>
struct LaneFunction<D (*)(A...)> {
  template <auto f, size_t... k>
  static void Apply(Machine& m, const Instruction& in, std::index_sequence<k...>) {
    const std::tuple<const Word<A>*...> sources{Lanes<A>(m, in.s[k])...};
    Put<D>(m, in.d, [&](int i) { return f(FromWord<A>(std::get<k>(sources)[i])...); });
  }
  template <auto f>
  static void Run(Machine& m, const Instruction& in) {
    Apply<f>(m, in, std::index_sequence_for<A...>());
  }
  static std::string Widths() {
    return {sizeof(D) == 8 ? '8' : '4', (sizeof(A) == 8 ? '8' : '4')...};
  }
};

// The operation that applies `f` to each lane.
template <auto f>
Operation Each() {
  using Function = LaneFunction<decltype(f)>;
  return {&Function::template Run<f>, Function::Widths()};
}

// The tables of operations without a form of their own, by opcode and types: "add.s32",
// "cvt.rzi.s32.f32". Rounding other than to the nearest and .ftz are a wrapper's, .sat of floats
// a further instruction's.
void AddIntegerOperations(OperationTable* table);
void AddFloatOperations(OperationTable* table);
void AddConversions(OperationTable* table);

// Runs `inner` with `count` as the control word of the processor's floating-point unit.
void RunWithControl(Machine& m, const Instruction& in);

// Null where there is none.
// For pairs of 16 bits: each half of a register becomes all ones where the comparison holds.
Handler FindCompare(std::string_view comparison, std::string_view type);
Handler FindLoad(std::string_view space, std::string_view type, int elements);
Handler FindStore(std::string_view space, std::string_view type, int elements);
Handler FindAtomic(std::string_view space, std::string_view operation, std::string_view type);
Handler FindWarpOperation(std::string_view name);

// Copies of one lane width, pieces, and predicates.
void MovePredicate(Machine& m, const Instruction& in);
void CombinePredicates(Machine& m, const Instruction& in);  // count: '&', '|', '^', '!'
void Select4(Machine& m, const Instruction& in);            // s[0], s[1], predicate s[2]
void Select8(Machine& m, const Instruction& in);
void Pack(Machine& m, const Instruction& in);  // count pieces of immediate bytes into d
void Unpack(Machine& m, const Instruction& in);

// Control.
void Branch(Machine& m, const Instruction& in);
void BranchIndexed(Machine& m, const Instruction& in);
void Exit(Machine& m, const Instruction& in);
void Barrier(Machine& m, const Instruction& in);
void Trap(Machine& m, const Instruction& in);
void CallPrintf(Machine& m, const Instruction& in);
void CallAssertFail(Machine& m, const Instruction& in);
void IsSpace(Machine& m, const Instruction& in);
// What a lane reads at a generic address: 1, 4 or 8 bytes; null after a fault.
const uint8_t* ReadGeneric(Machine& m, int lane, uint64_t address, uint32_t bytes);

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_PROGRAM_H_
