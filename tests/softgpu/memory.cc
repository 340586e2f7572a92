// Mappings, bookkeeping of allocations, and the slow paths of the checks.
#include "tests/softgpu/memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace softgpu {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kGap = 64 << 10;
// An address this far from an allocation has nothing to do with it.
constexpr uint64_t kFar = uint64_t{1} << 32;

// An epoch's spare bit: the writer was an atomic.
constexpr uint32_t kAtomicBit = 1u << 23;
// In place of readers: an index into the sets of several readers. No actor has this id.
constexpr uint32_t kMany = 255u << 24;

uint64_t RoundUp(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

void* Map(uint64_t bytes, int protection, int kind) {
  void* p = mmap(nullptr, bytes, protection, kind | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    std::fprintf(stderr, "softgpu: can't reserve %llu bytes of address space\n",
                 static_cast<unsigned long long>(bytes));
    std::abort();
  }
  return p;
}

template <typename T>
T* MapShared(uint64_t bytes) {
  return static_cast<T*>(Map(bytes, PROT_READ | PROT_WRITE, MAP_SHARED));
}

// Gives the pages of a shared mapping back; they read as zero afterwards.
void Drop(void* from, uint64_t bytes) { madvise(from, bytes, MADV_REMOVE); }

std::string Hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string Bytes(uint64_t count) {
  return std::to_string(count) + (count == 1 ? " byte" : " bytes");
}

const char* Verb(Access kind) {
  switch (kind) {
    case Access::kRead:
    case Access::kCopy:
      return "reads ";
    case Access::kWrite:
      return "writes ";
    case Access::kAtomic:
      return "updates atomically ";
  }
  return "";
}

Memory* fault_memory = nullptr;
struct sigaction former_handler;

void OnFault(int number, siginfo_t* info, void* context) {
  const uint64_t address = reinterpret_cast<uint64_t>(info->si_addr);
  const std::string what = fault_memory->Describe(address);
  if (!what.empty()) {
    const std::string line =
        "softgpu: host code touched " + what + ", which only the GPU may use\n";
    if (write(STDERR_FILENO, line.data(), line.size()) < 0) _exit(97);
  }
  sigaction(SIGSEGV, &former_handler, nullptr);
  if ((former_handler.sa_flags & SA_SIGINFO) && former_handler.sa_sigaction) {
    former_handler.sa_sigaction(number, info, context);
  }
  // Otherwise the access is made again, now with the former handling.
}

}  // namespace

Actor::Actor(int id, std::string name, Clock start)
    : id_(id), name_(std::move(name)), clock_(std::move(start)), operations_(kRemembered) {
  if (clock_.size() <= static_cast<size_t>(id)) clock_.resize(id + 1);
  Begin("");
}

void Actor::Begin(std::string operation) {
  const uint32_t step = ++clock_[id_];
  if (step >= kStepMask) {
    std::fprintf(stderr, "softgpu: %s has done too many operations for the race check\n",
                 name_.c_str());
    std::abort();
  }
  operations_[step % kRemembered] = std::move(operation);
}

void Actor::Acquire(const Clock& clock) {
  if (clock.size() > clock_.size()) clock_.resize(clock.size());
  for (size_t i = 0; i < clock.size(); ++i) clock_[i] = std::max(clock_[i], clock[i]);
}

std::string Actor::Operation(uint32_t epoch) const {
  const uint32_t step = epoch & kStepMask;
  if (step > clock_[id_] || step + kRemembered <= clock_[id_]) return "";
  return operations_[step % kRemembered];
}

Memory::Memory(const Options& options)
    : options_(options),
      windows_(options.devices),
      peers_(options.devices, std::vector<bool>(options.devices)),
      used_(options.devices) {
  for (Window& window : windows_) MakeWindow(&window, options_.address_space, false);
  MakeWindow(&pinned_, options_.address_space, true);
}

Memory::~Memory() {
  if (fault_memory == this) {
    sigaction(SIGSEGV, &former_handler, nullptr);
    fault_memory = nullptr;
  }
  for (auto& [address, window] : registered_) windows_.push_back(window);
  windows_.push_back(pinned_);
  for (Window& window : windows_) {
    const bool registered = registered_.count(window.base) > 0;
    if (!registered) munmap(reinterpret_cast<void*>(window.base), window.bytes);
    if (window.data != reinterpret_cast<uint8_t*>(window.base)) munmap(window.data, window.bytes);
    munmap(window.state, window.bytes + kPage);
    if (window.epochs) munmap(window.epochs, window.bytes * 2 + kPage);
  }
}

void Memory::MakeWindow(Window* window, uint64_t bytes, bool host) {
  if (!window->base) {
    window->base = reinterpret_cast<uint64_t>(Map(bytes, PROT_NONE, MAP_PRIVATE));
  }
  window->bytes = bytes;
  window->data = host ? reinterpret_cast<uint8_t*>(window->base) : MapShared<uint8_t>(bytes);
  // A little more, so that a check at the very end stays inside.
  window->state = MapShared<uint8_t>(bytes + kPage);
  if (options_.races) window->epochs = MapShared<Epochs>(bytes * 2 + kPage);
}

// Finds room for an allocation that begins `offset` bytes into a page; returns its place in the
// window, or the window's size.
uint64_t Memory::Place(Window* window, uint64_t bytes, uint64_t offset) {
  const uint64_t room = RoundUp(offset + bytes, kPage) + kGap;
  if (room > window->bytes) return window->bytes;
  if (window->next + room <= window->bytes) {
    const uint64_t at = window->next + offset;
    window->next += room;
    return at;
  }
  // Every address was used once: look for a gap between the live ones.
  uint64_t begin = 0;
  auto it = allocations_.lower_bound(window->base);
  for (; it != allocations_.end() && it->first < window->base + window->bytes; ++it) {
    if (it->second.freed) continue;
    const uint64_t at = it->first - window->base;
    if (begin + room <= at / kPage * kPage) break;
    begin = RoundUp(at + it->second.bytes, kPage) + kGap;
  }
  if (begin + room > window->bytes) return window->bytes;
  // The records of the freed ones that lay here go.
  for (it = allocations_.lower_bound(window->base + begin);
       it != allocations_.end() && it->first < window->base + begin + room;) {
    it = allocations_.erase(it);
  }
  return begin + offset;
}

uint64_t Memory::Allocate(int device, uint64_t bytes, bool variable) {
  std::lock_guard<std::mutex> lock(mu_);
  if (bytes == 0 || bytes > options_.address_space) return 0;
  if (!variable && bytes > options_.bytes_per_device - used_[device]) return 0;
  Window* window = &windows_[device];
  // Not aligned to more than what a real GPU promises.
  const uint64_t at = Place(window, bytes, 256);
  if (at == window->bytes) return 0;
  std::memset(window->data + at, kPoison, bytes);
  std::memset(window->state + at, kAllocated, bytes);
  Allocation a;
  a.address = window->base + at;
  a.bytes = bytes;
  a.used = bytes;
  a.device = device;
  a.number = ++count_;
  a.variable = variable;
  allocations_[a.address] = a;
  if (!variable) used_[device] += bytes;
  return a.address;
}

void* Memory::AllocatePinned(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mu_);
  if (bytes == 0 || bytes > options_.address_space) return nullptr;
  const uint64_t at = Place(&pinned_, bytes, 0);
  if (at == pinned_.bytes) return nullptr;
  if (mprotect(pinned_.data + at, RoundUp(bytes, kPage), PROT_READ | PROT_WRITE)) return nullptr;
  std::memset(pinned_.data + at, kPoison, bytes);
  std::memset(pinned_.state + at, kAllocated | kInitialised, bytes);
  Allocation a;
  a.address = pinned_.base + at;
  a.bytes = bytes;
  a.used = bytes;
  a.number = ++count_;
  allocations_[a.address] = a;
  return reinterpret_cast<void*>(a.address);
}

bool Memory::Release(uint64_t address, bool pinned) {
  std::lock_guard<std::mutex> lock(mu_);
  auto it = allocations_.find(address);
  if (it == allocations_.end()) return false;
  Allocation& a = it->second;
  if (a.freed || a.registered || a.variable || (a.device == kHost) != pinned) return false;
  a.freed = true;
  Window& window = pinned ? pinned_ : windows_[a.device];
  const uint64_t begin = (address - window.base) / kPage * kPage;
  const uint64_t bytes = RoundUp(address - window.base + a.bytes, kPage) - begin;
  if (pinned) {
    madvise(window.data + begin, bytes, MADV_DONTNEED);
    mprotect(window.data + begin, bytes, PROT_NONE);
  } else {
    Drop(window.data + begin, bytes);
    used_[a.device] -= a.bytes;
  }
  Drop(window.state + begin, bytes);
  if (window.epochs) Drop(reinterpret_cast<uint8_t*>(window.epochs) + begin * 2, bytes * 2);
  return true;
}

bool Memory::Free(uint64_t address) { return Release(address, false); }

bool Memory::FreePinned(void* address) {
  return Release(reinterpret_cast<uint64_t>(address), true);
}

bool Memory::Register(void* address, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mu_);
  const uint64_t at = reinterpret_cast<uint64_t>(address);
  if (bytes == 0) return false;
  auto above = registered_.lower_bound(at);
  if (above != registered_.end() && above->first < at + bytes) return false;
  if (above != registered_.begin()) {
    const auto below = std::prev(above);
    if (below->first + below->second.bytes > at) return false;
  }
  if (at - pinned_.base < pinned_.bytes) return false;
  for (const Window& window : windows_) {
    if (at - window.base < window.bytes) return false;
  }
  Window window;
  window.base = at;
  MakeWindow(&window, bytes, true);
  std::memset(window.state, kAllocated | kInitialised, bytes);
  registered_[at] = window;
  Allocation a;
  a.address = at;
  a.bytes = bytes;
  a.used = bytes;
  a.number = ++count_;
  a.registered = true;
  allocations_[at] = a;
  return true;
}

bool Memory::Unregister(void* address) {
  std::lock_guard<std::mutex> lock(mu_);
  auto it = registered_.find(reinterpret_cast<uint64_t>(address));
  if (it == registered_.end()) return false;
  munmap(it->second.state, it->second.bytes + kPage);
  if (it->second.epochs) munmap(it->second.epochs, it->second.bytes * 2 + kPage);
  allocations_.erase(it->first);
  registered_.erase(it);
  return true;
}

void Memory::EnablePeer(int device, int peer) {
  std::lock_guard<std::mutex> lock(mu_);
  peers_[device][peer] = true;
}

uint64_t Memory::used(int device) const {
  std::lock_guard<std::mutex> lock(mu_);
  return used_[device];
}

std::vector<Memory::Allocation> Memory::Live() const {
  std::lock_guard<std::mutex> lock(mu_);
  std::vector<Allocation> live;
  for (const auto& [address, a] : allocations_) {
    if (!a.freed && !a.variable) live.push_back(a);
  }
  return live;
}

// The last allocation, freed or not, that begins at or before the address.
const Memory::Allocation* Memory::Nearest(uint64_t address) const {
  auto it = allocations_.upper_bound(address);
  if (it == allocations_.begin()) return nullptr;
  return &std::prev(it)->second;
}

bool Memory::Find(uint64_t address, Allocation* allocation) const {
  std::lock_guard<std::mutex> lock(mu_);
  const Allocation* a = Nearest(address);
  if (!a || a->freed || address - a->address >= a->bytes) return false;
  *allocation = *a;
  return true;
}

bool Memory::Narrow(uint64_t address, uint64_t used) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto it = allocations_.find(address);
  if (it == allocations_.end()) return false;
  Allocation& a = it->second;
  if (a.freed || a.device == kHost || a.variable || used > a.bytes) return false;
  a.used = used;
  const Window& window = windows_[a.device];
  const uint64_t offset = address - window.base;
  std::memset(window.data + offset, kPoison, a.bytes);
  std::memset(window.state + offset, kAllocated, used);
  std::memset(window.state + offset + used, 0, a.bytes - used);
  return true;
}

int Memory::DeviceOf(uint64_t address) const {
  for (size_t i = 0; i < windows_.size(); ++i) {
    if (address - windows_[i].base < windows_[i].bytes) return static_cast<int>(i);
  }
  return kHost;
}

void Memory::Initialise(uint64_t address, const void* bytes, uint64_t count) {
  const Window* window = WindowOf(kAnyDevice, address);
  std::memcpy(window->data + (address - window->base), bytes, count);
  std::memset(window->state + (address - window->base), kAllocated | kInitialised, count);
}

const Memory::Window* Memory::Other(int device, uint64_t address) const {
  if (address - pinned_.base < pinned_.bytes) return &pinned_;
  for (size_t i = 0; i < windows_.size(); ++i) {
    if (address - windows_[i].base >= windows_[i].bytes) continue;
    return device == kAnyDevice || peers_[device][i] ? &windows_[i] : nullptr;
  }
  std::lock_guard<std::mutex> lock(mu_);
  auto it = registered_.upper_bound(address);
  if (it == registered_.begin()) return nullptr;
  --it;
  return address - it->first < it->second.bytes ? &it->second : nullptr;
}

bool Memory::CheckState(const Window& window, uint64_t offset, uint64_t bytes, Access kind,
                        bool uninitialised) {
  if (bytes > window.bytes - offset) return false;
  uint8_t* state = window.state + offset;
  uint8_t all = 0xff;
  for (uint64_t i = 0; i < bytes; ++i) all &= state[i];
  if (!(all & kAllocated)) return false;
  if (all & kInitialised) return true;
  if (kind == Access::kWrite) {
    std::memset(state, kAllocated | kInitialised, bytes);
    return true;
  }
  return kind == Access::kCopy || !uninitialised;
}

bool Memory::CheckReaders(const Actor& actor, uint32_t readers) {
  if (readers < kMany) {
    if (readers == 0 || actor.Knows(readers)) return true;
    conflict_ = {readers, false};
    return false;
  }
  for (uint32_t reader : reader_sets_[readers - kMany]) {
    if (!CheckReaders(actor, reader)) return false;
  }
  return true;
}

uint32_t Memory::AddReader(const Actor& actor, uint32_t readers) {
  const uint32_t mine = actor.epoch();
  std::vector<uint32_t> all;
  if (readers >= kMany) {
    all = reader_sets_[readers - kMany];
  } else if (readers) {
    all = {readers};
  }
  // What this actor knows of needn't be remembered: who is after its read is after those too.
  all.erase(std::remove_if(all.begin(), all.end(), [&](uint32_t r) { return actor.Knows(r); }),
            all.end());
  if (all.empty()) return mine;
  all.push_back(mine);
  std::sort(all.begin(), all.end());
  auto [it, added] = reader_set_indices_.try_emplace(all, reader_sets_.size());
  if (added) reader_sets_.push_back(all);
  return kMany | it->second;
}

// What an access makes of 4 bytes' last writer and readers; false for a race.
bool Memory::UpdateEpochs(const Actor& actor, Access kind, Epochs* e) {
  const uint32_t mine = actor.epoch();
  const bool read = kind == Access::kRead || kind == Access::kCopy;
  const uint32_t atomic = kind == Access::kAtomic ? kAtomicBit : 0;
  if (e->writer && !actor.Knows(e->writer) && !(atomic & e->writer)) {
    conflict_ = {e->writer, true};
    return false;
  }
  if (read) {
    e->readers = AddReader(actor, e->readers);
    return true;
  }
  if (!CheckReaders(actor, e->readers)) return false;
  *e = {mine | atomic, 0};
  return true;
}

bool Memory::CheckRace(const Actor& actor, const Window& window, uint64_t offset, uint64_t bytes,
                       Access kind) {
  Epochs* e = window.epochs + offset / 4;
  const uint64_t count = (offset + bytes + 3) / 4 - offset / 4;
  // Neighbours mostly have the same past, and what became of it serves them too.
  Epochs before = e[0], after = before;
  if (!UpdateEpochs(actor, kind, &after)) return false;
  for (uint64_t i = 0; i < count; ++i) {
    if (!(e[i] == before)) {
      before = after = e[i];
      if (!UpdateEpochs(actor, kind, &after)) return false;
    }
    e[i] = after;
  }
  return true;
}

std::string Memory::DescribeLocked(uint64_t address) const {
  const Allocation* a = Nearest(address);
  const auto of = [](const Allocation& a) {
    std::string place = a.variable     ? "module variable "
                        : a.registered ? "registered host memory "
                        : a.device < 0 ? "pinned allocation "
                                       : "allocation ";
    place += std::to_string(a.number) + " (" + Bytes(a.bytes) + " at " + Hex(a.address);
    if (a.device >= 0) place += " on device " + std::to_string(a.device);
    return place + (a.freed ? ", freed)" : ")");
  };
  std::string text = Hex(address) + ", ";
  if (a && address - a->address < a->bytes) {
    text += Bytes(address - a->address) + " into " + of(*a);
    if (!a->freed && address - a->address >= a->used) {
      text += ", of which the program's allocator handed out " + Bytes(a->used);
    }
    return text;
  }
  // The nearer of the neighbours names the mistake better.
  auto next = allocations_.upper_bound(address);
  const uint64_t after = a ? address - (a->address + a->bytes) : ~uint64_t{0};
  const uint64_t before = next == allocations_.end() ? ~uint64_t{0} : next->first - address;
  if (after < kFar && after <= before) {
    return text + (after ? Bytes(after) + " after" : "at") + " the end of " + of(*a);
  }
  if (before < kFar) return text + Bytes(before) + " before " + of(next->second);
  return text + "far from any allocation";
}

std::string Memory::Describe(uint64_t address) const {
  bool ours = address - pinned_.base < pinned_.bytes;
  for (const Window& window : windows_) ours |= address - window.base < window.bytes;
  if (!ours) return "";
  std::lock_guard<std::mutex> lock(mu_);
  return DescribeLocked(address);
}

Report Memory::Explain(const Actor& actor, int device, uint64_t address, uint64_t bytes,
                       Access kind, const std::string& what) {
  Report report;
  report.text = what + " " + Verb(kind) + Bytes(bytes) + " at ";
  const Window* window = WindowOf(device, address);
  std::lock_guard<std::mutex> lock(mu_);
  if (!window) {
    report.kind = Report::kOutOfBounds;
    const Allocation* a = Nearest(address);
    if (a && a->device >= 0 && !a->freed && address - a->address < a->bytes) {
      report.text += DescribeLocked(address) + ", and device " + std::to_string(device) +
                     " has no peer access to it";
    } else if (address < kPage) {
      report.text += Hex(address) + ", a null pointer";
    } else {
      report.text += Hex(address) + ", which is neither device memory nor pinned host memory";
    }
    return report;
  }
  const uint64_t offset = address - window->base;
  uint64_t bad = 0;
  while (bad < bytes && offset + bad < window->bytes && window->state[offset + bad]) ++bad;
  if (bad < bytes) {
    const Allocation* a = Nearest(address + bad);
    const bool freed = a && a->freed && address + bad - a->address < a->bytes;
    report.kind = freed ? Report::kUseAfterFree : Report::kOutOfBounds;
    report.text +=
        bad ? Hex(address) + ", of which the last " + Bytes(bytes - bad) + " begin at " : "";
    report.text += DescribeLocked(address + bad);
    return report;
  }
  if (kind == Access::kRead || kind == Access::kAtomic) {
    while (bad > 0 && window->state[offset + bytes - bad] & kInitialised) --bad;
    if (bad > 0 && options_.uninitialised) {
      report.kind = Report::kUninitialised;
      report.text += DescribeLocked(address) + ", and nothing wrote to ";
      report.text += bad == bytes ? "it" : Hex(address + bytes - bad);
      report.text += " since the allocation";
      return report;
    }
  }
  report.kind = Report::kRace;
  const uint32_t id = conflict_.epoch >> Actor::kIdShift;
  const Actor* other = id < Actor::kMaxActors ? actors_[id] : nullptr;
  const std::string operation = other ? other->Operation(conflict_.epoch & ~kAtomicBit) : "";
  report.text += DescribeLocked(address) + ",\nwhich " +
                 (other ? other->name() : "stream number " + std::to_string(id)) +
                 (conflict_.write ? " wrote" : " read");
  if (!operation.empty()) report.text += " in " + operation;
  report.text += ", and nothing puts that before this on " + actor.name();
  return report;
}

Report Memory::Copy(const Actor& actor, uint64_t to, uint64_t from, uint64_t bytes,
                    const std::string& what) {
  if (bytes == 0) return {};
  // Memory outside the windows is the host's own, and isn't checked.
  const Window* source = WindowOf(kAnyDevice, from);
  const Window* target = WindowOf(kAnyDevice, to);
  const bool to_device = target && target->data != reinterpret_cast<uint8_t*>(target->base);
  const Access read = to_device ? Access::kCopy : Access::kRead;
  const uint8_t* in = reinterpret_cast<const uint8_t*>(from);
  uint8_t* out = reinterpret_cast<uint8_t*>(to);
  if (source && !(in = At(actor, kAnyDevice, from, bytes, read))) {
    return Explain(actor, kAnyDevice, from, bytes, read, what);
  }
  if (target && !(out = At(actor, kAnyDevice, to, bytes, Access::kWrite))) {
    return Explain(actor, kAnyDevice, to, bytes, Access::kWrite, what);
  }
  std::memmove(out, in, bytes);
  if (to_device && source) {
    std::memmove(target->state + (to - target->base), source->state + (from - source->base), bytes);
  }
  return {};
}

Report Memory::Fill(const Actor& actor, uint64_t address, int value, uint64_t bytes,
                    const std::string& what) {
  if (bytes == 0) return {};
  uint8_t* p = At(actor, kAnyDevice, address, bytes, Access::kWrite);
  if (!p) return Explain(actor, kAnyDevice, address, bytes, Access::kWrite, what);
  std::memset(p, value, bytes);
  return {};
}

void Memory::SetActor(int id, const Actor* actor) {
  std::lock_guard<std::mutex> lock(mu_);
  actors_[id] = actor;
}

void Memory::InstallFaultHandler() {
  fault_memory = this;
  struct sigaction action = {};
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &former_handler);
}

}  // namespace softgpu
