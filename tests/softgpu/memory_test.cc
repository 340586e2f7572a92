// The software GPU's memory by itself: addresses, states, copies, peers, races, reports.
#include "tests/softgpu/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#ifdef FERRY_TSAN
// A handler that tells what a program died of does more than a signal handler may.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "report_signal_unsafe=0"; }
#endif

namespace softgpu {
namespace {

using ::testing::HasSubstr;

uint64_t Address(const void* p) { return reinterpret_cast<uint64_t>(p); }

Memory::Options TwoDevices() {
  Memory::Options options;
  options.devices = 2;
  options.bytes_per_device = 1 << 20;
  return options;
}

class MemoryTest : public testing::Test {
 protected:
  MemoryTest() {
    memory_.SetActor(1, &a_);
    memory_.SetActor(2, &b_);
  }
  Report::Kind Read(const Actor& actor, uint64_t address, uint64_t bytes, int device = 0) {
    return Try(actor, address, bytes, Access::kRead, device);
  }
  Report::Kind Write(const Actor& actor, uint64_t address, uint64_t bytes, int device = 0) {
    return Try(actor, address, bytes, Access::kWrite, device);
  }
  Report::Kind Try(const Actor& actor, uint64_t address, uint64_t bytes, Access kind,
                   int device = 0) {
    if (memory_.At(actor, device, address, bytes, kind)) return Report::kOk;
    const Report report = memory_.Explain(actor, device, address, bytes, kind, "the test");
    text_ = report.text;
    return report.kind;
  }

  Memory memory_{TwoDevices()};
  Actor a_{1, "stream A"}, b_{2, "stream B"};
  std::string text_;
};

TEST_F(MemoryTest, KeepsToItsLimit) {
  EXPECT_EQ(memory_.Allocate(0, 0), 0u);
  const uint64_t p = memory_.Allocate(0, 1 << 19);
  const uint64_t q = memory_.Allocate(0, 1 << 19);
  EXPECT_NE(p, 0u);
  EXPECT_NE(q, 0u);
  EXPECT_EQ(memory_.Allocate(0, 1), 0u);
  EXPECT_EQ(memory_.used(0), 1u << 20);
  EXPECT_NE(memory_.Allocate(1, 1), 0u);
  EXPECT_TRUE(memory_.Free(p));
  EXPECT_FALSE(memory_.Free(p));
  EXPECT_FALSE(memory_.Free(q + 256));
  EXPECT_EQ(memory_.used(0), 1u << 19);
  const uint64_t r = memory_.Allocate(0, 100);
  EXPECT_NE(r, p) << "an address was given out again";
  EXPECT_EQ(r % 256, 0u);
  EXPECT_EQ(memory_.Live().size(), 3u);
  EXPECT_EQ(memory_.DeviceOf(q), 0);
  Memory::Allocation found;
  ASSERT_TRUE(memory_.Find(r + 99, &found));
  EXPECT_EQ(found.address, r);
  EXPECT_EQ(found.bytes, 100u);
  EXPECT_FALSE(memory_.Find(r + 100, &found));
  EXPECT_FALSE(memory_.Find(p, &found));
}

// When all addresses were used, those of the freed are used again, and nothing old is left there.
TEST_F(MemoryTest, ReusesAddressesAtTheEnd) {
  Memory::Options options;
  options.address_space = 4 << 20;
  Memory memory(options);
  const uint64_t kept = memory.Allocate(0, 1000);
  ASSERT_NE(kept, 0u);
  uint64_t p = 0, first = 0;
  bool again = false;
  for (int i = 0; i < 100 && !again; ++i) {
    p = memory.Allocate(0, 1 << 20);
    ASSERT_NE(p, 0u);
    ASSERT_TRUE(p > kept + 1000 || p + (1 << 20) <= kept);
    again = p == first;
    if (!first) first = p;
    ASSERT_TRUE(memory.At(a_, 0, p, 8, Access::kWrite));
    if (!again) memory.Free(p);
  }
  ASSERT_TRUE(again);
  EXPECT_FALSE(memory.At(a_, 0, p + 16, 8, Access::kRead));
  memory.Free(p);
  p = memory.Allocate(0, 1 << 20);
  EXPECT_TRUE(memory.At(b_, 0, p, 8, Access::kWrite)) << "an old epoch was left";
  EXPECT_EQ(memory.Allocate(0, 4 << 20), 0u);
}

TEST_F(MemoryTest, ChecksBounds) {
  const uint64_t p = memory_.Allocate(0, 10);
  EXPECT_EQ(Write(a_, p, 10), Report::kOk);
  EXPECT_EQ(Write(a_, p + 8, 4), Report::kOutOfBounds);
  EXPECT_THAT(text_, HasSubstr("of which the last 2 bytes"));
  EXPECT_EQ(Write(a_, p + 20, 4), Report::kOutOfBounds);
  EXPECT_THAT(text_, HasSubstr("10 bytes after the end of allocation 1 (10 bytes"));
  EXPECT_EQ(Write(a_, p - 4, 4), Report::kOutOfBounds);
  EXPECT_THAT(text_, HasSubstr("4 bytes before allocation 1"));
  EXPECT_EQ(Write(a_, 8, 4), Report::kOutOfBounds);
  EXPECT_THAT(text_, HasSubstr("null pointer"));
  EXPECT_EQ(Write(a_, Address(&text_), 4), Report::kOutOfBounds);
  EXPECT_THAT(text_, HasSubstr("neither device memory nor pinned host memory"));
  // A size that wraps around.
  EXPECT_EQ(Read(a_, p, ~uint64_t{0}), Report::kOutOfBounds);
  memory_.Free(p);
  EXPECT_EQ(Write(a_, p, 4), Report::kUseAfterFree);
  EXPECT_THAT(text_, HasSubstr("freed"));
}

TEST_F(MemoryTest, ChecksInitialisationOfEachByte) {
  const uint64_t p = memory_.Allocate(0, 64);
  EXPECT_EQ(Read(a_, p, 4), Report::kUninitialised);
  for (uint64_t i = 0; i < 64; ++i) {
    if (i == 37) continue;
    EXPECT_EQ(Write(a_, p + i, 1), Report::kOk);
  }
  EXPECT_EQ(Read(a_, p, 37), Report::kOk);
  EXPECT_EQ(Read(a_, p + 38, 26), Report::kOk);
  for (uint64_t bytes : {2, 4, 8, 16, 32}) {
    EXPECT_EQ(Read(a_, p + 37 / bytes * bytes, bytes), Report::kUninitialised);
    EXPECT_EQ(Try(a_, p + 37 / bytes * bytes, bytes, Access::kAtomic), Report::kUninitialised);
  }
  EXPECT_EQ(Try(a_, p, 64, Access::kCopy), Report::kOk);
  EXPECT_EQ(*memory_.At(a_, 0, p + 37, 1, Access::kCopy), Memory::kPoison);
  EXPECT_TRUE(memory_.Fill(a_, p + 37, 7, 1, "fill").ok());
  EXPECT_EQ(Read(a_, p, 64), Report::kOk);
  // Handed out anew for fewer bytes, by an allocator of the program's own.
  EXPECT_FALSE(memory_.Narrow(p + 8, 8));
  EXPECT_FALSE(memory_.Narrow(p, 65));
  EXPECT_TRUE(memory_.Narrow(p, 16));
  EXPECT_EQ(Read(a_, p + 8, 8), Report::kUninitialised);
  EXPECT_EQ(Write(a_, p, 16), Report::kOk);
  EXPECT_EQ(Read(a_, p, 16), Report::kOk);
  EXPECT_EQ(Write(a_, p, 17), Report::kOutOfBounds);
  EXPECT_THAT(text_, HasSubstr("handed out 16 bytes"));

  Memory::Options options;
  options.uninitialised = false;
  Memory lenient(options);
  EXPECT_TRUE(lenient.At(a_, 0, lenient.Allocate(0, 4), 4, Access::kRead));
}

TEST_F(MemoryTest, NeedsPeerAccess) {
  const uint64_t p = memory_.Allocate(1, 64);
  EXPECT_EQ(Write(a_, p, 4, 0), Report::kOutOfBounds);
  EXPECT_THAT(text_, HasSubstr("no peer access"));
  EXPECT_EQ(Write(a_, p, 4, Memory::kAnyDevice), Report::kOk);
  memory_.EnablePeer(1, 0);
  EXPECT_EQ(Write(a_, p, 4, 0), Report::kOutOfBounds);
  memory_.EnablePeer(0, 1);
  EXPECT_EQ(Write(a_, p, 4, 0), Report::kOk);
}

TEST_F(MemoryTest, PinsHostMemory) {
  char* const p = static_cast<char*>(memory_.AllocatePinned(5000));
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(Address(p) % 4096, 0u);
  p[4999] = 5;  // the host may use it
  EXPECT_EQ(Read(a_, Address(p), 5000), Report::kOk);
  EXPECT_EQ(Read(a_, Address(p) + 4999, 2), Report::kOutOfBounds);
  EXPECT_EQ(memory_.DeviceOf(Address(p)), Memory::kHost);
  EXPECT_FALSE(memory_.Free(Address(p)));
  EXPECT_TRUE(memory_.FreePinned(p));
  EXPECT_FALSE(memory_.FreePinned(p));
  EXPECT_EQ(Read(a_, Address(p), 1), Report::kUseAfterFree);

  std::vector<char> own(100);
  EXPECT_EQ(Read(a_, Address(own.data()), 100), Report::kOutOfBounds);
  EXPECT_TRUE(memory_.Register(own.data(), 100));
  EXPECT_FALSE(memory_.Register(own.data() + 50, 100));
  EXPECT_EQ(Read(a_, Address(own.data()), 100), Report::kOk);
  EXPECT_EQ(Read(a_, Address(own.data()), 101), Report::kOutOfBounds);
  EXPECT_FALSE(memory_.Unregister(own.data() + 1));
  EXPECT_TRUE(memory_.Unregister(own.data()));
  EXPECT_EQ(Read(a_, Address(own.data()), 100), Report::kOutOfBounds);
}

TEST_F(MemoryTest, CopiesBetweenAllKinds) {
  const uint64_t p = memory_.Allocate(0, 16), q = memory_.Allocate(1, 16);
  char* const pinned = static_cast<char*>(memory_.AllocatePinned(16));
  std::vector<char> host(16, 'h');
  EXPECT_TRUE(memory_.Copy(a_, p, Address(host.data()), 8, "copy").ok());
  EXPECT_TRUE(memory_.Copy(a_, q, p, 16, "copy").ok());
  EXPECT_EQ(memory_.Copy(a_, Address(pinned), q, 16, "the copy").kind, Report::kUninitialised);
  EXPECT_TRUE(memory_.Copy(a_, Address(pinned), q, 8, "copy").ok());
  EXPECT_EQ(std::string(pinned, 8), "hhhhhhhh");
  EXPECT_TRUE(memory_.Copy(a_, q + 8, Address(pinned), 8, "copy").ok());
  std::vector<char> back(16);
  EXPECT_TRUE(memory_.Copy(a_, Address(back.data()), q, 16, "copy").ok());
  EXPECT_EQ(back, host);
  const Report report = memory_.Copy(a_, p + 8, Address(host.data()), 16, "the copy");
  EXPECT_EQ(report.kind, Report::kOutOfBounds);
  EXPECT_THAT(report.text, HasSubstr("the copy writes 16 bytes"));
  EXPECT_EQ(memory_.Copy(a_, Address(back.data()), p + 15, 2, "copy").kind, Report::kOutOfBounds);
}

TEST_F(MemoryTest, FindsRaces) {
  const uint64_t p = memory_.Allocate(0, 64);
  char* const pinned = static_cast<char*>(memory_.AllocatePinned(64));
  for (const uint64_t at : {p, Address(pinned)}) {
    a_.Begin("first");
    EXPECT_EQ(Write(a_, at, 64), Report::kOk);
    b_.Begin("second");
    EXPECT_EQ(Read(b_, at + 32, 4), Report::kRace);
    EXPECT_THAT(text_, HasSubstr("stream A wrote in first"));
    EXPECT_THAT(text_, HasSubstr("before this on stream B"));
    EXPECT_EQ(Write(b_, at + 32, 1), Report::kRace);
    // An event orders them; what A does afterwards isn't covered.
    const Clock event = a_.clock();
    a_.Begin("third");
    EXPECT_EQ(Write(a_, at, 4), Report::kOk);
    b_.Acquire(event);
    EXPECT_EQ(Read(b_, at + 4, 60), Report::kOk);
    EXPECT_EQ(Read(b_, at, 4), Report::kRace);
    // B's read is before A's write only with an event back.
    EXPECT_EQ(Write(a_, at + 32, 4), Report::kRace);
    EXPECT_THAT(text_, HasSubstr("stream B read in second"));
    a_.Acquire(b_.clock());
    EXPECT_EQ(Write(a_, at + 32, 4), Report::kOk);
    b_.Acquire(a_.clock());
  }
}

TEST_F(MemoryTest, RemembersAllReaders) {
  const uint64_t p = memory_.Allocate(0, 16);
  memory_.Fill(a_, p, 0, 16, "fill");
  std::vector<Actor> readers;
  readers.reserve(6);
  for (int i = 3; i < 9; ++i) {
    readers.emplace_back(i, "reader " + std::to_string(i), a_.clock());
    memory_.SetActor(i, &readers.back());
  }
  for (Actor& reader : readers) {
    reader.Begin("reading");
    EXPECT_EQ(Read(reader, p, 16), Report::kOk);
  }
  b_.Acquire(a_.clock());
  for (size_t i = 0; i < readers.size(); ++i) {
    EXPECT_EQ(Write(b_, p, 16), Report::kRace) << i;
    b_.Acquire(readers[i].clock());
  }
  EXPECT_EQ(Write(b_, p, 16), Report::kOk);
}

TEST_F(MemoryTest, LetsAtomicsMeet) {
  const uint64_t p = memory_.Allocate(0, 4);
  memory_.Fill(a_, p, 0, 4, "fill");
  b_.Acquire(a_.clock());
  a_.Begin("add");
  b_.Begin("add");
  EXPECT_EQ(Try(a_, p, 4, Access::kAtomic), Report::kOk);
  EXPECT_EQ(Try(b_, p, 4, Access::kAtomic), Report::kOk);
  EXPECT_EQ(Try(a_, p, 4, Access::kAtomic), Report::kOk);
  EXPECT_EQ(Read(b_, p, 4), Report::kRace);
  EXPECT_EQ(Write(b_, p, 4), Report::kRace);
}

TEST(ActorTest, TakesOverAnId) {
  Actor old(3, "old");
  old.Begin("work");
  const uint32_t epoch = old.epoch();
  Actor next(3, "next", old.clock());
  EXPECT_TRUE(next.Knows(epoch));
  EXPECT_GT(next.epoch(), epoch);
  EXPECT_EQ(old.Operation(epoch), "work");
  for (int i = 0; i < 2000; ++i) old.Begin("more");
  EXPECT_EQ(old.Operation(epoch), "");
}

TEST(MemoryDeathTest, NamesTheAddressThatTheHostTouched) {
  EXPECT_DEATH(
      {
        Memory memory({});
        memory.InstallFaultHandler();
        const uint64_t p = memory.Allocate(0, 100);
        *reinterpret_cast<volatile char*>(p + 7) = 1;
      },
      "host code touched 0x.*, 7 bytes into allocation 1 \\(100 bytes");
  EXPECT_DEATH(
      {
        Memory memory({});
        memory.InstallFaultHandler();
        volatile char* const p = static_cast<char*>(memory.AllocatePinned(100));
        *p = 1;
        memory.FreePinned(const_cast<char*>(p));
        *p = 2;
      },
      "host code touched 0x.*, 0 bytes into pinned allocation 1 \\(100 bytes.*freed");
}

uint64_t StatusBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoull(line.substr(field.size() + 1)) * 1024;
  }
  return 0;
}

// So that a test can tell the program's memory from the software GPU's.
TEST_F(MemoryTest, CountsDeviceMemoryApart) {
  [[maybe_unused]] const uint64_t before = StatusBytes("RssAnon");
  Memory memory({});
  const uint64_t p = memory.Allocate(0, 64 << 20);
#ifndef FERRY_TSAN  // It keeps more beside what is there than that.
  EXPECT_LT(StatusBytes("RssAnon"), before + (8 << 20));
#endif
  EXPECT_GT(StatusBytes("RssShmem"), 64u << 20);
  memory.Free(p);
  EXPECT_LT(StatusBytes("RssShmem"), 8u << 20);
  memory.AllocatePinned(64 << 20);
  EXPECT_GT(StatusBytes("RssAnon"), before + (56 << 20));
}

}  // namespace
}  // namespace softgpu
