// Modules, and the loop that runs a grid: blocks, warps, diverging lanes, barriers.
#include "tests/softgpu/executor.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

#include "tests/softgpu/decoder.h"
#include "tests/softgpu/program.h"
#include "tests/softgpu/ptx.h"

namespace softgpu {

// -- modules --

Kernel::Kernel() : program(new Program) {}
Kernel::~Kernel() = default;

struct Module::State {
  std::string text;
  PtxFile file;
  std::mutex mu;  // guards what follows
  std::map<std::string, std::unique_ptr<Kernel>> kernels;
  struct Placed {
    uint64_t address = 0, bytes = 0;
  };
  std::map<std::pair<Memory*, int>, std::map<std::string_view, Placed>> variables;
};

Module::Module() : state_(new State) {}
Module::~Module() = default;

std::unique_ptr<Module> Module::Parse(std::string text, std::string* error) {
  std::unique_ptr<Module> module(new Module);
  State& state = *module->state_;
  // The embedded text may end in a zero byte.
  state.text = std::move(text);
  state.text.resize(std::min(state.text.find('\0'), state.text.size()));
  if (!ScanPtx(state.text, &state.file, error)) {
    *error = "PTX, " + *error;
    return nullptr;
  }
  return module;
}

bool Module::HasKernel(const std::string& name) const {
  const auto it = state_->file.functions.find(name);
  return it != state_->file.functions.end() && it->second.entry;
}

const Kernel* Module::FindKernel(const std::string& name, std::string* error) {
  std::lock_guard<std::mutex> lock(state_->mu);
  const auto known = state_->kernels.find(name);
  if (known != state_->kernels.end()) return known->second.get();
  const auto it = state_->file.functions.find(name);
  if (it == state_->file.functions.end() || !it->second.entry) {
    *error = "the module has no kernel " + name;
    return nullptr;
  }
  auto kernel = std::make_unique<Kernel>();
  if (!DecodeKernel(state_->text, state_->file, it->second, kernel.get(), error)) return nullptr;
  return (state_->kernels[name] = std::move(kernel)).get();
}

bool Module::FindVariable(const std::string& name, Memory* memory, int device, uint64_t* address,
                          uint64_t* bytes, std::string* error) {
  std::lock_guard<std::mutex> lock(state_->mu);
  auto [it, added] = state_->variables.try_emplace({memory, device});
  auto& placed = it->second;
  if (added) {
    for (const Variable& v : state_->file.variables) {
      if (v.space == "shared" || v.bytes == 0 || v.external) continue;
      placed[v.name] = {memory->Allocate(device, v.bytes, true), v.bytes};
      if (placed[v.name].address == 0) {
        *error = "no memory for the module's variable " + std::string(v.name);
        return false;
      }
    }
    for (const Variable& v : state_->file.variables) {
      const auto place = placed.find(v.name);
      if (place == placed.end()) continue;
      std::vector<uint8_t> image(v.bytes);
      const uint32_t size = TypeBytes(v.type);
      for (size_t i = 0; i < v.values.size() && (i + 1) * size <= v.bytes; ++i) {
        uint64_t bits = v.values[i].bits;
        if (!v.values[i].symbol.empty()) {
          const auto other = placed.find(v.values[i].symbol);
          if (other == placed.end()) {
            *error = "the module's variable " + std::string(v.name) + " refers to " +
                     std::string(v.values[i].symbol) + ", which the software GPU can't place";
            return false;
          }
          bits += other->second.address;
        }
        std::memcpy(&image[i * size], &bits, size);
      }
      memory->Initialise(place->second.address, image.data(), image.size());
    }
  }
  const auto found = placed.find(name);
  if (found == placed.end()) {
    *error = "the module has no variable " + name;
    return false;
  }
  *address = found->second.address;
  *bytes = found->second.bytes;
  return true;
}

std::string Module::Line(uint32_t number) const {
  const std::string& text = state_->text;
  size_t at = 0;
  for (uint32_t line = 1; line < number && at != std::string::npos; ++line) {
    at = text.find('\n', at);
    if (at != std::string::npos) ++at;
  }
  if (at == std::string::npos) return "";
  std::string line = text.substr(at, text.find('\n', at) - at);
  line.erase(0, line.find_first_not_of(" \t"));
  std::replace(line.begin(), line.end(), '\t', ' ');
  return line;
}

// -- reports --

namespace {

std::string Triple(const Dim3& d) {
  return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

Dim3 ThreadOf(const Dim3& block, uint32_t index) {
  return {index % block.x, index / block.x % block.y, index / block.x / block.y};
}

}  // namespace

std::string Machine::Where(int lane) const {
  const uint32_t line = present().line;
  return "kernel " + kernel->name + ", line " + std::to_string(line) + " of its PTX (" +
         module->Line(line) + "), block " + Triple(block_index) + ", thread " +
         Triple(ThreadOf(block, warp_index * kLanes + lane)) + ":\nthe thread";
}

void Machine::Fail(Report::Kind kind, int lane, const std::string& problem) {
  event = kFault;
  if (!report.ok()) return;
  report.kind = kind;
  report.text = Where(lane) + " " + problem;
}

void Machine::FailAccess(int lane, uint64_t address, uint64_t bytes, Access kind) {
  event = kFault;
  if (report.ok()) report = memory->Explain(*actor, device, address, bytes, kind, Where(lane));
}

// -- running --

namespace {

constexpr uint32_t kNever = ~0u;
constexpr uint32_t kSlice = 1 << 16;  // instructions of a warp before the next one has its turn

class Runner {
 public:
  Runner(Memory* memory, const Actor& actor, const Launch& launch) : launch_(launch) {
    m_.memory = memory;
    m_.actor = &actor;
    m_.device = launch.device;
    m_.kernel = launch.kernel;
    m_.program = launch.kernel->program.get();
    m_.module = launch.module;
    m_.grid = launch.grid;
    m_.block = launch.block;
    m_.params = static_cast<const uint8_t*>(launch.params);
    m_.param_bytes = launch.kernel->param_bytes;
    m_.local_bytes = launch.kernel->local_bytes;
  }

  Report Run(Counts* counts) {
    if (Prepare()) {
      const Dim3 grid = launch_.grid;
      for (uint32_t z = 0; z < grid.z && m_.report.ok(); ++z) {
        for (uint32_t y = 0; y < grid.y && m_.report.ok(); ++y) {
          for (uint32_t x = 0; x < grid.x && m_.report.ok(); ++x) {
            m_.block_index = {x, y, z};
            RunBlock();
          }
        }
      }
    }
    *counts = m_.counts;
    return m_.report;
  }

 private:
  bool Refuse(Report::Kind kind, const std::string& problem) {
    m_.report.kind = kind;
    m_.report.text = "kernel " + m_.kernel->name + " with grid " + Triple(launch_.grid) +
                     " and block " + Triple(launch_.block) + ": " + problem;
    return false;
  }

  bool Prepare() {
    const Dim3 &grid = launch_.grid, &block = launch_.block;
    const uint64_t threads = block.count();
    if (threads == 0 || grid.count() == 0) return Refuse(Report::kLaunch, "it has no threads");
    if (block.x > 1024 || block.y > 1024 || block.z > 64 || threads > m_.kernel->max_threads) {
      return Refuse(Report::kLaunch,
                    "a block may have " + std::to_string(m_.kernel->max_threads) + " threads");
    }
    if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
      return Refuse(Report::kLaunch, "the grid is beyond 2147483647, 65535, 65535");
    }
    // Dynamic shared memory begins 16-byte aligned after the static.
    m_.shared_bytes = m_.kernel->static_shared_bytes;
    if (launch_.dynamic_shared_bytes) {
      m_.shared_bytes = (m_.shared_bytes + 15) / 16 * 16 + launch_.dynamic_shared_bytes;
    }
    if (m_.shared_bytes > 227 << 10) {
      return Refuse(Report::kLaunch, std::to_string(m_.shared_bytes) +
                                         " bytes of shared memory are more than 227 KiB");
    }
    warp_count_ = static_cast<uint32_t>((threads + kLanes - 1) / kLanes);
    warps_.resize(warp_count_);
    const uint64_t stride = m_.program->register_bytes;
    registers_.assign(stride * warp_count_ / 64 + 1, Line());
    local_.assign(uint64_t{m_.local_bytes} * kLanes * warp_count_, 0xff);
    shared_.resize(m_.shared_bytes / 64 + 1);
    shared_state_.resize(m_.shared_bytes + 8);
    shared_users_.assign(m_.shared_bytes / 4 + 1, 0);
    m_.shared_races = m_.memory->races() && warp_count_ > 1 && !m_.program->partial_barriers;
    m_.shared = shared_[0].bytes;
    m_.shared_state = shared_state_.data();
    m_.shared_users = shared_users_.data();
    return FillConstants();
  }

  uint8_t* RegistersOf(uint32_t warp) {
    return registers_[0].bytes + uint64_t{m_.program->register_bytes} * warp;
  }

  void Set(uint8_t* registers, const Constant& c, int lane, uint64_t value) {
    if (c.width == 8) {
      reinterpret_cast<uint64_t*>(registers + c.offset)[lane] = value;
    } else {
      reinterpret_cast<uint32_t*>(registers + c.offset)[lane] = static_cast<uint32_t>(value);
    }
  }

  bool FillConstants() {
    for (uint32_t w = 0; w < warp_count_; ++w) {
      *reinterpret_cast<uint32_t*>(RegistersOf(w) + kTrue) = kAllLanes;
    }
    for (const Constant& c : m_.program->constants) {
      if (c.kind >= Constant::kCtaidX && c.kind <= Constant::kCtaidZ) {
        by_block_.push_back(&c);
        continue;
      }
      uint64_t value = c.value;
      if (c.kind == Constant::kSymbol) {
        uint64_t address, bytes;
        std::string error;
        if (!m_.module->FindVariable(c.symbol, m_.memory, m_.device, &address, &bytes, &error)) {
          return Refuse(Report::kUnsupported, error);
        }
        value += address;
      } else if (c.kind == Constant::kParam) {
        const uint32_t at = static_cast<uint32_t>(value), bytes = value >> 32 & 0xff;
        const bool sign = value >> 40 & 1;
        value = 0;
        std::memcpy(&value, m_.params + at, bytes);
        if (sign) value = bytes == 1 ? int64_t{int8_t(value)} : int64_t{int16_t(value)};
      }
      for (uint32_t w = 0; w < warp_count_; ++w) {
        if (c.kind == Constant::kPredicate) {
          *reinterpret_cast<uint32_t*>(RegistersOf(w) + c.offset) = static_cast<uint32_t>(value);
          continue;
        }
        for (int lane = 0; lane < kLanes; ++lane) {
          Set(RegistersOf(w), c, lane, ConstantOf(c, value, w, lane));
        }
      }
    }
    return true;
  }

  uint64_t ConstantOf(const Constant& c, uint64_t value, uint32_t warp, int lane) {
    const Dim3 thread = ThreadOf(launch_.block, warp * kLanes + lane);
    const uint32_t bit = 1u << lane;
    switch (c.kind) {
      case Constant::kTidX:
        return thread.x;
      case Constant::kTidY:
        return thread.y;
      case Constant::kTidZ:
        return thread.z;
      case Constant::kNtidX:
        return launch_.block.x;
      case Constant::kNtidY:
        return launch_.block.y;
      case Constant::kNtidZ:
        return launch_.block.z;
      case Constant::kNctaidX:
        return launch_.grid.x;
      case Constant::kNctaidY:
        return launch_.grid.y;
      case Constant::kNctaidZ:
        return launch_.grid.z;
      case Constant::kLaneId:
        return lane;
      case Constant::kWarpId:
        return warp;
      case Constant::kNwarpId:
        return 32;
      case Constant::kLanemaskEq:
        return bit;
      case Constant::kLanemaskLe:
        return bit | (bit - 1);
      case Constant::kLanemaskLt:
        return bit - 1;
      case Constant::kLanemaskGe:
        return ~(bit - 1);
      case Constant::kLanemaskGt:
        return ~(bit | (bit - 1));
      case Constant::kDynamicShared:
        return launch_.dynamic_shared_bytes;
      case Constant::kTotalShared:
        return m_.shared_bytes;
      default:
        return value;
    }
  }

  void NextInterval() {
    if ((++m_.interval & 0xffff) == 0) {
      std::fill(shared_users_.begin(), shared_users_.end(), 0);
      ++m_.interval;
    }
  }

  void RunBlock() {
    const Dim3& at = m_.block_index;
    for (const Constant* c : by_block_) {
      const uint32_t value = c->kind == Constant::kCtaidX   ? at.x
                             : c->kind == Constant::kCtaidY ? at.y
                                                            : at.z;
      for (uint32_t w = 0; w < warp_count_; ++w) {
        for (int lane = 0; lane < kLanes; ++lane) Set(RegistersOf(w), *c, lane, value);
      }
    }
    std::memset(m_.shared, Memory::kPoison, m_.shared_bytes);
    std::memset(m_.shared_state, 0, m_.shared_bytes);
    NextInterval();
    const uint32_t threads = static_cast<uint32_t>(launch_.block.count());
    for (uint32_t w = 0; w < warp_count_; ++w) {
      const uint32_t lanes = std::min(threads - w * kLanes, uint32_t{kLanes});
      warps_[w] = Warp();
      warps_[w].lanes = warps_[w].alive = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
      warps_[w].groups.push_back({0, warps_[w].alive, false});
    }
    for (;;) {
      bool ran = false, left = false;
      for (uint32_t w = 0; w < warp_count_; ++w) {
        Warp& warp = warps_[w];
        if (!warp.alive) continue;
        left = true;
        if (warp.waiting) continue;
        ran = true;
        RunWarp(w);
        if (!m_.report.ok()) return;
      }
      if (!left) return;
      if (!ran && !CompleteBarriers()) return;
    }
  }

  void Enter(uint32_t w) {
    m_.warp_index = w;
    m_.registers = RegistersOf(w);
    m_.local = local_.data() + uint64_t{m_.local_bytes} * kLanes * w;
    m_.alive = warps_[w].alive;
    m_.event = Machine::kNone;
  }

  // Adds lanes at a place to the warp's groups, joining those that are there.
  static void Add(Warp* warp, uint32_t pc, uint32_t mask, bool parked) {
    if (!mask) return;
    for (Group& g : warp->groups) {
      if (g.pc != pc) continue;
      g.mask |= mask;
      g.parked = parked;
      return;
    }
    warp->groups.push_back({pc, mask, parked});
  }

  // Goes on with the group that is least far. Returns the place at which another one is or may
  // have to go on; false where every group waits for lanes that don't come.
  bool Pick(Warp* warp, uint32_t* next) {
    auto& groups = warp->groups;
    size_t best = groups.size();
    for (size_t i = 0; i < groups.size(); ++i) {
      if (!groups[i].parked && (best == groups.size() || groups[i].pc < groups[best].pc)) best = i;
    }
    if (best == groups.size()) return false;
    m_.pc = groups[best].pc;
    m_.active = groups[best].mask;
    groups[best] = groups.back();
    groups.pop_back();
    *next = kNever;
    for (const Group& g : groups) {
      if (g.pc > m_.pc) *next = std::min(*next, g.pc);
    }
    return true;
  }

  // Runs a warp until it ends, waits at a barrier, fails, or has had its turn.
  void RunWarp(uint32_t w) {
    Enter(w);
    Warp& warp = warps_[w];
    uint32_t next;
    if (!Pick(&warp, &next)) return Stuck(w);
    const Instruction* const code = m_.program->code.data();
    uint64_t lanes = __builtin_popcount(m_.active), count = 0;
    bool pick = false;
    for (uint32_t left = kSlice; left; --left) {
      if (m_.pc >= next || pick) {
        if (!pick) Add(&warp, m_.pc, m_.active, false);
        pick = false;
        if (warp.groups.empty()) break;  // the warp's end
        if (!Pick(&warp, &next)) {
          m_.counts.instructions += count;
          return Stuck(w);
        }
        lanes = __builtin_popcount(m_.active);
      }
      const Instruction& in = code[m_.pc++];
      m_.mask = m_.active & (Mask(m_, in.guard) ^ in.guard_flip);
      count += lanes;
      if (!m_.mask) continue;
      in.run(m_, in);
      if (__builtin_expect(m_.event == Machine::kNone, 1)) continue;
      const Machine::Event event = m_.event;
      m_.event = Machine::kNone;
      const uint32_t others = m_.active & ~m_.mask;
      switch (event) {
        case Machine::kNone:
          break;
        case Machine::kJump:
          if (warp.groups.empty()) break;
          Add(&warp, m_.pc, m_.active, false);
          pick = true;
          break;
        case Machine::kSplit:
          Add(&warp, static_cast<uint32_t>(in.immediate), m_.mask, false);
          Add(&warp, m_.pc, others, false);
          pick = true;
          break;
        case Machine::kSpread:
          ForEachLane(m_.mask, [&](int i) { Add(&warp, m_.targets[i], 1u << i, false); });
          Add(&warp, m_.pc, others, false);
          pick = true;
          break;
        case Machine::kBarrier:
          if (m_.mask == warp.alive) {
            warp.waiting = true;
            warp.barrier_pc = m_.pc - 1;
            Add(&warp, m_.pc, m_.mask, false);
            m_.counts.instructions += count;
            return;
          }
          [[fallthrough]];
        case Machine::kPark:
          Add(&warp, m_.pc - 1, m_.mask, true);
          Add(&warp, m_.pc, others, false);
          pick = true;
          break;
        case Machine::kExit:
          warp.alive &= ~m_.mask;
          m_.alive = warp.alive;
          Add(&warp, m_.pc, others, false);
          // Who waited for these lanes needn't any more.
          for (Group& g : warp.groups) g.parked = false;
          pick = true;
          break;
        case Machine::kFault:
          m_.counts.instructions += count;
          return;
      }
    }
    if (!pick && warp.alive) Add(&warp, m_.pc, m_.active, false);
    m_.counts.instructions += count;
    if (m_.counts.instructions > launch_.budget && warp.alive) {
      m_.Fail(Report::kBudget, __builtin_ctz(m_.active),
              "is still running after " + std::to_string(m_.counts.instructions) +
                  " instructions of the launch's threads, more than its budget allows");
    }
  }

  std::string LaneList(uint32_t mask) {
    std::string text;
    int count = 0;
    ForEachLane(mask, [&](int i) {
      if (++count <= 4) text += (count > 1 ? ", " : "") + std::to_string(i);
    });
    return (count == 1 ? "lane " : "lanes ") + text + (count > 4 ? ", ..." : "");
  }

  // Every group of the warp waits.
  void Stuck(uint32_t w) {
    Enter(w);
    const Warp& warp = warps_[w];
    const Group& first =
        *std::min_element(warp.groups.begin(), warp.groups.end(),
                          [](const Group& a, const Group& b) { return a.pc < b.pc; });
    m_.pc = first.pc + 1;
    std::string text = "waits for other lanes of its warp, which never come:";
    for (const Group& g : warp.groups) {
      if (g.pc == first.pc) continue;
      text += " " + LaneList(g.mask) + " wait at line " +
              std::to_string(m_.program->code[g.pc].line) + ";";
    }
    if (warp.lanes & ~warp.alive) text += " " + LaneList(warp.lanes & ~warp.alive) + " have ended;";
    text.back() = '.';
    m_.Fail(Report::kBarrier, __builtin_ctz(first.mask), text);
  }

  // All warps that live wait at barriers: lets those go on whose barrier is complete.
  bool CompleteBarriers() {
    if (!m_.program->partial_barriers) {
      std::vector<uint32_t> waiting;
      for (uint32_t w = 0; w < warp_count_; ++w) {
        if (warps_[w].alive) waiting.push_back(w);
      }
      const uint32_t pc = warps_[waiting[0]].barrier_pc;
      for (uint32_t w = 0; w < warp_count_; ++w) {
        const Warp& warp = warps_[w];
        const uint32_t ended = warp.lanes & ~warp.alive;
        if (!ended && warp.barrier_pc == pc) continue;
        Enter(waiting[0]);
        m_.pc = pc + 1;
        const uint32_t lane = __builtin_ctz(ended ? ended : warp.alive);
        m_.Fail(Report::kBarrier, __builtin_ctz(warps_[waiting[0]].alive),
                "waits at a barrier that not all threads of the block reach: thread " +
                    Triple(ThreadOf(launch_.block, w * kLanes + lane)) +
                    (ended ? " has ended"
                           : " waits at line " +
                                 std::to_string(m_.program->code[warp.barrier_pc].line)));
        return false;
      }
      Release(waiting);
      NextInterval();
      return true;
    }
    // By the barriers' numbers.
    struct Waiting {
      std::vector<uint32_t> warps;
      uint32_t arrived = 0, expected = 0;
    };
    std::map<uint32_t, Waiting> barriers;
    for (uint32_t w = 0; w < warp_count_; ++w) {
      if (!warps_[w].alive) continue;
      Enter(w);
      const Instruction& in = m_.program->code[warps_[w].barrier_pc];
      const int lane = __builtin_ctz(m_.alive);
      Waiting& b = barriers[Lanes<uint32_t>(m_, in.s[0])[lane]];
      b.warps.push_back(w);
      // Threads count by whole warps.
      b.arrived += in.s[1] == kNoRegister ? __builtin_popcount(m_.alive) : kLanes;
      b.expected = in.s[1] == kNoRegister ? static_cast<uint32_t>(launch_.block.count())
                                          : Lanes<uint32_t>(m_, in.s[1])[lane];
    }
    bool any = false;
    for (const auto& [id, b] : barriers) {
      if (b.arrived < b.expected) continue;
      Release(b.warps);
      any = true;
    }
    if (any) return true;
    const auto& [id, b] = *barriers.begin();
    Enter(b.warps[0]);
    m_.pc = warps_[b.warps[0]].barrier_pc + 1;
    m_.Fail(Report::kBarrier, __builtin_ctz(m_.alive),
            "waits at barrier " + std::to_string(id) + ", which " + std::to_string(b.arrived) +
                " of " + std::to_string(b.expected) + " threads reached, and no other goes on");
    return false;
  }

  void Release(const std::vector<uint32_t>& warps) {
    uint32_t yes = 0, all = 0;
    for (uint32_t w : warps) {
      Enter(w);
      const Instruction& in = m_.program->code[warps_[w].barrier_pc];
      all += __builtin_popcount(m_.alive);
      if (in.count) {
        yes += __builtin_popcount((Mask(m_, in.s[2]) ^ static_cast<uint32_t>(in.immediate)) &
                                  m_.alive);
      }
    }
    for (uint32_t w : warps) {
      Enter(w);
      warps_[w].waiting = false;
      const Instruction& in = m_.program->code[warps_[w].barrier_pc];
      m_.mask = m_.alive;
      if (in.count == '+') {
        Put<uint32_t>(m_, in.d, [yes](int) { return yes; });
      } else if (in.count) {
        const bool result = in.count == '&' ? yes == all : yes > 0;
        uint32_t& d = Mask(m_, in.d);
        d = result ? d | m_.mask : d & ~m_.mask;
      }
    }
  }

  struct alignas(64) Line {
    uint8_t bytes[64] = {};
  };

  const Launch& launch_;
  Machine m_;
  uint32_t warp_count_ = 0;
  std::vector<Warp> warps_;
  std::vector<Line> registers_, shared_;
  std::vector<uint8_t> local_, shared_state_;
  std::vector<uint32_t> shared_users_;
  std::vector<const Constant*> by_block_;
};

}  // namespace

Report Execute(Memory* memory, const Actor& actor, const Launch& launch, Counts* counts) {
  return Runner(memory, actor, launch).Run(counts);
}

}  // namespace softgpu
