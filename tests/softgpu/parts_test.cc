// Tests of the software GPU's parts that need no program: settings, faults, clock, damaged fat
// binaries.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/softgpu/fatbin.h"
#include "tests/softgpu/faults.h"
#include "tests/softgpu/settings.h"
#include "tests/softgpu/timeline.h"

namespace softgpu {
namespace {

using testing::HasSubstr;

std::string Apply(const std::string& name, const std::string& value, Settings* settings) {
  std::string error;
  return ApplySetting(name, value, settings, &error) ? "" : error;
}

TEST(SettingsTest, Values) {
  Settings s;
  EXPECT_EQ("", Apply("ORDER", "shuffle:12", &s));
  EXPECT_EQ(Order::kShuffle, s.order);
  EXPECT_EQ(12u, s.seed);
  EXPECT_EQ("", Apply("ORDER", "eager", &s));
  EXPECT_EQ(Order::kEager, s.order);
  EXPECT_EQ("", Apply("CHECKS", "race,leak", &s));
  EXPECT_TRUE(s.check_race && s.check_leak && !s.check_init);
  EXPECT_EQ("", Apply("CHECKS", "all", &s));
  EXPECT_TRUE(s.check_race && s.check_leak && s.check_init);
  EXPECT_EQ("", Apply("CHECKS", "none", &s));
  EXPECT_FALSE(s.check_race || s.check_leak || s.check_init);
  EXPECT_EQ("", Apply("MEMORY", "3M", &s));
  EXPECT_EQ(3u << 20, s.memory_bytes);
  EXPECT_EQ("", Apply("MEMORY", "123", &s));
  EXPECT_EQ(123u, s.memory_bytes);
  EXPECT_EQ("", Apply("DEVICES", "2", &s));
  EXPECT_EQ(2, s.devices);
  EXPECT_EQ("", Apply("MODEL", "h2d_gbs=12.5,call_us=0", &s));
  EXPECT_EQ(12.5, s.model.h2d_gbs);
}

TEST(SettingsTest, WhatIsNotUnderstoodIsNamed) {
  Settings s;
  EXPECT_THAT(Apply("ORDERS", "lazy", &s), HasSubstr("FERRY_SOFTGPU_ORDERS"));
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"ORDER", "shuffle"},   {"ORDER", "shuffle:x"}, {"CHECKS", "bounds"},
      {"ON_REPORT", "abort"}, {"DEVICES", "-1"},      {"DEVICES", "100"},
      {"MEMORY", "3T"},       {"MEMORY", "K"},        {"MEMORY", "9999999999999G"},
      {"BUDGET", "1e9"},      {"FAULT", "malloc"},    {"FAULT", "call:1=x"},
      {"MODEL", "speed=3"},   {"MODEL", "h2d_gbs"},   {"MODEL", "h2d_gbs=-1"}};
  for (const auto& [name, value] : wrong) {
    EXPECT_THAT(Apply(name, value, &s), HasSubstr("FERRY_SOFTGPU_" + name + " can't be \"" + value))
        << name;
  }
}

TEST(FaultsTest, CountsCallsByName) {
  Faults faults;
  ASSERT_TRUE(faults.Set("cudaFree:2=4,call:5+"));
  EXPECT_EQ(cudaSuccess, faults.OnCall("cudaFree"));
  EXPECT_EQ(cudaSuccess, faults.OnCall("cudaMalloc"));
  EXPECT_EQ(4, faults.OnCall("cudaFree"));
  EXPECT_EQ(cudaSuccess, faults.OnCall("cudaFree"));
  EXPECT_EQ(cudaErrorMemoryAllocation, faults.OnCall("cudaMalloc"));
  EXPECT_EQ(cudaErrorUnknown, faults.OnCall("cudaFree"));
  EXPECT_EQ(6u, faults.calls());
  EXPECT_EQ(3u, faults.strikes());
}

TEST(FaultsTest, CountsWork) {
  Faults faults;
  ASSERT_TRUE(faults.Set("lost:3=214,lost-launch:2"));
  EXPECT_EQ(cudaSuccess, faults.OnWork(/*kernel=*/true));
  EXPECT_EQ(cudaSuccess, faults.OnWork(/*kernel=*/false));
  EXPECT_EQ(cudaErrorECCUncorrectable, faults.OnWork(/*kernel=*/false));
  EXPECT_EQ(cudaErrorLaunchFailure, faults.OnWork(/*kernel=*/true));
}

TEST(TimelineTest, WorkTakesTheFirstGapOfItsEngine) {
  Timeline timeline;
  EXPECT_EQ(0, timeline.Place(0, Engine::kToDevice, 0, 10));
  EXPECT_EQ(20, timeline.Place(0, Engine::kToDevice, 20, 10));
  EXPECT_EQ(30, timeline.Place(0, Engine::kToDevice, 5, 15));  // The gap is too short.
  EXPECT_EQ(10, timeline.Place(0, Engine::kToDevice, 5, 10));
  EXPECT_EQ(45, timeline.Place(0, Engine::kToDevice, 0, 1));
  // Other engines and devices are free.
  EXPECT_EQ(5, timeline.Place(0, Engine::kToHost, 5, 10));
  EXPECT_EQ(5, timeline.Place(1, Engine::kToDevice, 5, 10));
  // The host's work never waits.
  EXPECT_EQ(5, timeline.Place(0, Engine::kHost, 5, 10));
  EXPECT_EQ(5, timeline.Place(0, Engine::kHost, 5, 10));
  EXPECT_EQ(46, timeline.latest());
}

// A fat binary with one entry, kept plain.
struct Fatbin {
  struct Wrapper {
    uint32_t magic = 0x466243B1;
    uint32_t version = 1;
    const void* container;
    const void* unused = nullptr;
  };

  Fatbin(uint16_t kind, const std::string& payload) {
    bytes.resize(16 + 64 + payload.size());
    Put<uint32_t>(0, 0xBA55ED50);
    Put<uint16_t>(4, 1);
    Put<uint16_t>(6, 16);
    Put<uint64_t>(8, 64 + payload.size());
    Put<uint16_t>(16, kind);
    Put<uint32_t>(16 + 4, 64);
    Put<uint64_t>(16 + 8, payload.size());
    Put<uint32_t>(16 + 16, static_cast<uint32_t>(payload.size()));
    Put<uint32_t>(16 + 28, 90);
    std::memcpy(&bytes[16 + 64], payload.data(), payload.size());
  }

  template <typename T>
  void Put(size_t at, T value) {
    std::memcpy(&bytes[at], &value, sizeof(value));
  }

  // The PTX, or "error: " and why there is none.
  std::string Read() {
    wrapper.container = bytes.data();
    std::string ptx;
    std::string error;
    int arch = 0;
    return ReadPtx(&wrapper, &ptx, &arch, &error) ? ptx + " for " + std::to_string(arch)
                                                  : "error: " + error;
  }

  Wrapper wrapper;
  std::vector<char> bytes;
};

TEST(FatbinTest, PlainText) {
  EXPECT_EQ("text for 90", Fatbin(1, std::string("text\0\0\0", 7)).Read());
}

TEST(FatbinTest, WhatIsWrong) {
  EXPECT_THAT(Fatbin(2, "machine code").Read(), HasSubstr("1 architectures and no PTX"));
  Fatbin wrapper(1, "text");
  wrapper.wrapper.magic = 7;
  EXPECT_THAT(wrapper.Read(), HasSubstr("magic number"));
  Fatbin container(1, "text");
  container.Put<uint32_t>(0, 7);
  EXPECT_THAT(container.Read(), HasSubstr("magic number"));
  Fatbin entry(1, "text");
  entry.Put<uint64_t>(16 + 8, 1000);
  EXPECT_THAT(entry.Read(), HasSubstr("larger than itself"));
  for (const auto& [flag, name] : {std::pair<int, const char*>{0x8000, "zstd"}, {0x2000, "LZ4"}}) {
    Fatbin compressed(1, "not compressed so");
    compressed.Put<uint64_t>(16 + 40, flag);
    compressed.Put<uint64_t>(16 + 56, 100);
    EXPECT_EQ(compressed.Read(), std::string("error: its ") + name + " data is damaged");
  }
}

}  // namespace
}  // namespace softgpu
