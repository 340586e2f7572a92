// The software GPU's memory: the addresses that are handed out, the bytes behind them, and the
// checks that each access makes.
//
// Device memory is mapped twice. The addresses that programs see are PROT_NONE, so that host code
// which touches them dies at once; the interpreter has the same bytes elsewhere. Addresses are not
// given out again while there are fresh ones, a gap lies after every allocation, and fresh memory
// is filled with 0xff (NaN, -1). Pinned host memory lies at the addresses the host uses and has
// the same checks, save that it always counts as initialised, since host writes can't be seen.
//
// A state byte for each byte tells allocated and initialised. Races between streams are found with
// vector clocks: each 4 bytes remember their last writer and the readers since.
//
// Device memory and all bookkeeping are shared mappings (RssShmem in /proc/self/status); pinned
// memory is private (RssAnon), so that a test can measure the host memory that a program needs.
#ifndef FERRY_TESTS_SOFTGPU_MEMORY_H_
#define FERRY_TESTS_SOFTGPU_MEMORY_H_

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace softgpu {

// What a check found, or nothing.
struct Report {
  enum Kind {
    kOk,
    kOutOfBounds,  // also a null pointer, and memory of a device without peer access
    kUseAfterFree,
    kUninitialised,
    kMisaligned,
    kRace,
    kBarrier,      // a barrier or .sync instruction that some threads never reach
    kBudget,       // more instructions than the launch may run
    kAssert,       // a device-side assert or trap
    kLaunch,       // a launch that no GPU would accept
    kUnsupported,  // PTX that the interpreter does not know
  };
  Kind kind = kOk;
  std::string text;  // several lines, for people; no newline at the end

  bool ok() const { return kind == kOk; }
};

// For each actor (by id) the newest of its steps that is known to have happened.
using Clock = std::vector<uint32_t>;

// Something that acts in order: a stream, or the host. Its owner (the runtime) calls Begin for each
// operation and Acquire where it waits for others. Not thread safe.
class Actor {
 public:
  static constexpr int kMaxActors = 255;

  // `id` is in [0, kMaxActors) and unique among the live; a later actor may take over the id of
  // one that is gone if it continues from that one's clock: pass it as `start`.
  Actor(int id, std::string name, Clock start = {});

  int id() const { return id_; }
  const std::string& name() const { return name_; }
  const Clock& clock() const { return clock_; }

  // A new step, named for reports ("kernel Foo", "copy of 16 bytes from ... to ...").
  void Begin(std::string operation);
  // What happened before `clock` happened before this actor's further steps.
  void Acquire(const Clock& clock);

  // The present step as one number, never 0.
  uint32_t epoch() const { return static_cast<uint32_t>(id_) << kIdShift | clock_[id_]; }
  // Whether the step `epoch` (of any actor) is this actor's own or is known to be before it.
  bool Knows(uint32_t epoch) const {
    const uint32_t id = epoch >> kIdShift;
    return id < clock_.size() && (epoch & kStepMask) <= clock_[id];
  }
  // The name of one of this actor's last steps; "" if that is too long ago.
  std::string Operation(uint32_t epoch) const;

 private:
  static constexpr int kIdShift = 24;
  static constexpr uint32_t kStepMask = (1u << 23) - 1;  // the bit between is Memory's
  static constexpr size_t kRemembered = 1024;
  friend class Memory;

  int id_;
  std::string name_;
  Clock clock_;
  std::vector<std::string> operations_;  // by step modulo kRemembered
};

enum class Access {
  kRead,
  kCopy,  // a read for which bytes may be uninitialised
  kWrite,
  kAtomic  // a read and a write; atomics race with nothing but plain accesses, also of this kind
};

// Allocation is thread safe. Accesses are not: the runtime runs one operation at a time.
class Memory {
 public:
  struct Options {
    int devices = 1;
    uint64_t bytes_per_device = uint64_t{8} << 30;
    uint64_t address_space = uint64_t{64} << 30;  // of each device, and of pinned memory
    bool uninitialised = true;                    // report reads of uninitialised memory
    bool races = true;                            // report races between actors
  };
  static constexpr uint8_t kPoison = 0xff;
  static constexpr int kAnyDevice = -1;  // for copies, which need no peer access
  static constexpr int kHost = -1;

  struct Allocation {
    uint64_t address = 0;
    uint64_t bytes = 0;
    int device = kHost;   // kHost for pinned memory
    uint64_t number = 0;  // counted from 1, device and pinned memory together
    bool freed = false;
    bool registered = false;  // host memory that the program pinned itself
    uint64_t used = 0;        // the bytes that may be used now; see Narrow
    bool variable = false;    // a module's variable; no leak, and not counted in used()
  };

  explicit Memory(const Options& options);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  const Options& options() const { return options_; }
  bool races() const { return options_.races; }

  // Zero and "out of memory" both give 0. Device addresses are 256-byte aligned, not more.
  uint64_t Allocate(int device, uint64_t bytes, bool variable = false);
  // False where `address` isn't the start of a live allocation of that kind.
  bool Free(uint64_t address);
  // Page-aligned host memory; null when the system has none.
  void* AllocatePinned(uint64_t bytes);
  bool FreePinned(void* address);
  // Memory that the program allocated; false where a part is registered already (or isn't, for
  // Unregister, where `address` must be the start).
  bool Register(void* address, uint64_t bytes);
  bool Unregister(void* address);
  // Lets kernels of `device` use the memory of `peer`.
  void EnablePeer(int device, int peer);

  uint64_t used(int device) const;
  // All live allocations but variables, by address.
  std::vector<Allocation> Live() const;
  // The live allocation that contains `address`: device, pinned or registered.
  bool Find(uint64_t address, Allocation* allocation) const;
  // The device whose addresses `address` belongs to, allocated or not; else kHost.
  int DeviceOf(uint64_t address) const;
  // Puts bytes into live device memory that nothing has used yet, as no actor's operation.
  void Initialise(uint64_t address, const void* bytes, uint64_t count);
  // For programs that hand out device memory themselves: the live allocation that begins at
  // `address` is uninitialised again, and no more than its first `used` bytes may be used. False
  // where none begins there, or it is shorter.
  bool Narrow(uint64_t address, uint64_t used);

  // The interpreter's pointer to `bytes` bytes of device, pinned or registered memory at
  // `address`, for an access by `actor` from a kernel of `device` (or kAnyDevice); or null where a
  // check fails, and Explain tells why.
  inline uint8_t* At(const Actor& actor, int device, uint64_t address, uint64_t bytes, Access kind);
  // The report on an access for which At just returned null. `what` begins the text: who does this.
  Report Explain(const Actor& actor, int device, uint64_t address, uint64_t bytes, Access kind,
                 const std::string& what);

  // Copies between any two of device, pinned, registered and other host memory, which is taken as
  // it is. Between devices uninitialised bytes stay so; to the host they are reported.
  Report Copy(const Actor& actor, uint64_t to, uint64_t from, uint64_t bytes,
              const std::string& what);
  Report Fill(const Actor& actor, uint64_t address, int value, uint64_t bytes,
              const std::string& what);

  // "0x7f.., 12 bytes after the end of allocation 7 (1024 bytes at 0x7f.. on device 0)".
  std::string Describe(uint64_t address) const;

  // Names the actor in race reports; null removes it.
  void SetActor(int id, const Actor* actor);

  // From now on a SIGSEGV at one of this memory's addresses prints what that address is; the
  // former handler is called afterwards. For one Memory of the process.
  void InstallFaultHandler();

 private:
  // Who used 4 bytes last: a step's epoch (0: none) each.
  struct Epochs {
    uint32_t writer = 0;
    uint32_t readers = 0;  // since then; may stand for several
    bool operator==(const Epochs& other) const {
      return writer == other.writer && readers == other.readers;
    }
  };
  // A part of the address space with its bytes and their state; `base` counts for programs.
  struct Window {
    uint64_t base = 0;
    uint64_t bytes = 0;
    uint8_t* data = nullptr;
    uint8_t* state = nullptr;  // a byte for each byte
    Epochs* epochs = nullptr;  // one for each 4 bytes, or null
    uint64_t next = 0;         // offset of the first byte never given out
  };
  static constexpr uint8_t kAllocated = 1;
  static constexpr uint8_t kInitialised = 2;
  static constexpr uint64_t kInitialised8 = 0x0303030303030303;
  static constexpr uint64_t kFast = 1024;  // bytes of an access; less than the page after a state

  void MakeWindow(Window* window, uint64_t bytes, bool host);
  uint64_t Place(Window* window, uint64_t bytes, uint64_t offset);
  bool Release(uint64_t address, bool pinned);
  // The window of an address outside the device's own, or null.
  const Window* Other(int device, uint64_t address) const;
  const Window* WindowOf(int device, uint64_t address) const {
    if (device >= 0 && address - windows_[device].base < windows_[device].bytes) {
      return &windows_[device];
    }
    return Other(device, address);
  }
  static bool CheckState(const Window& window, uint64_t offset, uint64_t bytes, Access kind,
                         bool uninitialised);
  bool CheckRace(const Actor& actor, const Window& window, uint64_t offset, uint64_t bytes,
                 Access kind);
  bool UpdateEpochs(const Actor& actor, Access kind, Epochs* e);
  bool CheckReaders(const Actor& actor, uint32_t readers);
  uint32_t AddReader(const Actor& actor, uint32_t readers);
  const Allocation* Nearest(uint64_t address) const;
  std::string DescribeLocked(uint64_t address) const;

  Options options_;
  std::vector<Window> windows_;  // one a device
  Window pinned_;
  std::map<uint64_t, Window> registered_;  // by the address of their first byte
  std::vector<std::vector<bool>> peers_;
  mutable std::mutex mu_;                       // guards what follows, and registered_
  std::map<uint64_t, Allocation> allocations_;  // freed ones too, by address
  std::vector<uint64_t> used_;
  uint64_t count_ = 0;
  // Sets of readers that know nothing of each other, and their indices.
  std::vector<std::vector<uint32_t>> reader_sets_;
  std::map<std::vector<uint32_t>, uint32_t> reader_set_indices_;
  const Actor* actors_[Actor::kMaxActors] = {};
  struct {
    uint32_t epoch = 0;
    bool write = false;
  } conflict_;  // what the last failed race check collided with
};

inline uint8_t* Memory::At(const Actor& actor, int device, uint64_t address, uint64_t bytes,
                           Access kind) {
  const Window* window = WindowOf(device, address);
  if (!window) return nullptr;
  const uint64_t offset = address - window->base;
  // All of it initialised is the most frequent case. The state never ends before a window does.
  bool ready = false;
  if (bytes <= kFast) {
    const uint8_t* state = window->state + offset;
    uint64_t all = kInitialised8, eight = kInitialised8, i = 0;
    for (; i + 8 <= bytes; i += 8) {
      std::memcpy(&eight, state + i, 8);
      all &= eight;
    }
    eight = kInitialised8;
    if (i < bytes) std::memcpy(&eight, state + i, bytes - i);
    ready = (all & eight) == kInitialised8;
  }
  if (!ready && !CheckState(*window, offset, bytes, kind, options_.uninitialised)) return nullptr;
  if (window->epochs && !CheckRace(actor, *window, offset, bytes, kind)) return nullptr;
  return window->data + offset;
}

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_MEMORY_H_
