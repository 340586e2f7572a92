// Snapshots of variables that other threads keep changing: each must be one moment.
#include "saver/snapshot.h"

#include <atomic>
#include <cstring>
#include <thread>

#include "gtest/gtest.h"

namespace ferry {
namespace {

// Sets every element to `value`, as a kernel writes.
void Set(Variable* v, float value) {
  MutexLock lock(&v->mu());
  Tensor* t = v->MutableTensor();
  for (float& f : t->span<float>()) f = value;
}

class SnapshotTest : public ::testing::Test {
 protected:
  Variable* Make(const std::string& name, int64_t n) {
    Variable* v = *store.LookupOrCreate(name, DType::kFloat, TensorShape({n}));
    MutexLock lock(&v->mu());
    Tensor* t = *v->TensorForOverwrite(TensorShape({n}));
    for (float& f : t->span<float>()) f = 0;
    v->Publish();
    return v;
  }
  static std::vector<float> ReadAll(Snapshot* s, int i, size_t chunk) {
    std::vector<float> out(s->bytes(i) / 4);
    for (size_t at = 0; at < s->bytes(i); at += chunk) {
      const size_t n = std::min(chunk, s->bytes(i) - at);
      s->Read(i, at, n, reinterpret_cast<char*>(out.data()) + at, 0);
    }
    return out;
  }
  VariableStore store;
};

TEST_F(SnapshotTest, UpdatesAfterTheCutDoNotShow) {
  Variable* v = Make("v", 1000);
  for (size_t limit : {size_t{1} << 20, size_t{0}}) {
    ShadowPool pool(limit);
    Set(v, 1);
    auto s = Snapshot::Take(&store, {v}, &pool);
    ASSERT_TRUE(s.ok()) << s.status();
    std::vector<float> head(100);
    (*s)->Read(0, 0, 400, head.data(), 0);
    std::thread updater([v] {
      Set(v, 2);
      Set(v, 3);
    });
    if (limit > 0) updater.join();  // With a pool an update doesn't wait.
    std::vector<float> rest(900);
    (*s)->Read(0, 400, 3600, rest.data(), 0);
    if (limit == 0) updater.join();
    for (float f : head) EXPECT_EQ(f, 1);
    for (float f : rest) EXPECT_EQ(f, 1);
    EXPECT_EQ(v->tensor().data<float>()[999], 3);
    EXPECT_EQ((*s)->stats().shadowed_bytes, limit > 0 ? 3600 : 0);
    s->reset();
    Set(v, 4);
    EXPECT_EQ(v->update_hook(), nullptr);
  }
}

TEST(ShadowPool, WarmingKeepsItsContents) {
  constexpr size_t kSize = size_t{9} << 20;
  ShadowPool pool(kSize);
  EXPECT_EQ(pool.Allocate(1), nullptr);
  EXPECT_FALSE(pool.WarmSome());
  EXPECT_FALSE(pool.Reserve(2 * kSize)) << "fresh";
  EXPECT_FALSE(pool.Reserve(kSize));
  std::vector<char*> pieces;
  for (int i = 0; i < 4; ++i) {
    pieces.push_back(pool.Allocate(kSize / 4));
    ASSERT_NE(pieces.back(), nullptr) << i;
    std::memset(pieces.back(), i + 1, kSize / 4);
  }
  int times = 0;
  while (pool.WarmSome()) ++times;
  EXPECT_GE(times, 4);
  for (int i = 0; i < 4; ++i) {
    const char* piece = pieces[static_cast<size_t>(i)];
    for (size_t at = 0; at < kSize / 4; at += 4096) ASSERT_EQ(piece[at], i + 1);
  }
  pool.FreeAll();
  EXPECT_TRUE(pool.Reserve(kSize)) << "real, and kept";
}

TEST_F(SnapshotTest, AnAbandonedSnapshotLetsUpdatesGoOn) {
  Variable* v = Make("v", 1000);
  auto s = Snapshot::Take(&store, {v}, nullptr);
  ASSERT_TRUE(s.ok());
  std::thread updater([v] { Set(v, 2); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  s->reset();
  updater.join();
  EXPECT_EQ(v->tensor().data<float>()[0], 2);
}

// An optimizer's step holds the mutexes of a variable and its slots, and may wait in any of them.
TEST_F(SnapshotTest, AnAbandonedSnapshotLetsUpdatesOfSeveralVariablesGoOn) {
  Variable* a = Make("a", 1000);
  Variable* b = Make("b", 1000);
  auto s = Snapshot::Take(&store, {a, b}, nullptr);
  ASSERT_TRUE(s.ok());
  std::thread updater([&] {
    Variable* both[] = {a, b};
    const VariableLocks locks(absl::MakeSpan(both));
    b->MutableTensor()->data<float>()[0] = 2;
    a->MutableTensor()->data<float>()[0] = 1;
  });
  while ((*s)->stats().waits == 0) std::this_thread::yield();
  s->reset();
  updater.join();
  EXPECT_EQ(a->tensor().data<float>()[0], 1);
  EXPECT_EQ(b->tensor().data<float>()[0], 2);
}

// Marking one of a step's variables while the step waits in another would stop both for good.
TEST_F(SnapshotTest, SnapshotsWithinRunsBesideUpdatesOfSeveralVariables) {
  Variable* all[] = {Make("a", 64), Make("b", 64), Make("c", 64)};
  std::atomic<bool> stop{false};
  std::thread updater([&] {
    while (!stop) {
      Variable* mine[] = {all[0], all[1], all[2]};
      const VariableLocks locks(absl::MakeSpan(mine));
      for (Variable* v : all) {
        for (float& f : v->MutableTensor()->span<float>()) f += 1;
      }
    }
  });
  for (int i = 0; i < 2000; ++i) {
    auto s = Snapshot::TakeWithinRun({all[2], all[1], all[0]});
    ASSERT_TRUE(s.ok()) << s.status();
    const float first = ReadAll(s->get(), 0, 256)[0];
    for (int k = 0; k < 3; ++k) {
      for (const float f : ReadAll(s->get(), k, 100)) ASSERT_EQ(f, first);
    }
  }
  stop = true;
  updater.join();
}

TEST_F(SnapshotTest, Errors) {
  Variable* v = Make("v", 10);
  Variable* w = *store.LookupOrCreate("w", DType::kFloat, TensorShape({1}));
  auto s = Snapshot::Take(&store, {v, w}, nullptr);
  EXPECT_EQ(s.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(s.status().message(), "Attempting to use uninitialized value w");
  EXPECT_EQ(v->update_hook(), nullptr);
  EXPECT_EQ(Snapshot::Take(&store, {v, v}, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(v->update_hook(), nullptr);
}

TEST_F(SnapshotTest, ASecondSnapshotWaitsForTheFirst) {
  Variable* v = Make("v", 1000);
  Variable* w = Make("w", 1000);
  auto one = Snapshot::Take(&store, {v}, nullptr);
  ASSERT_TRUE(one.ok());
  std::atomic<bool> ended{false};
  std::thread other([&] {
    auto two = Snapshot::Take(&store, {w, v}, nullptr);
    ASSERT_TRUE(two.ok()) << two.status();
    EXPECT_TRUE(ended);
    EXPECT_EQ(ReadAll(two->get(), 0, 4000)[0], 5);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  Set(w, 5);  // Nobody has it meanwhile.
  ended = true;
  one->reset();
  other.join();
}

// "Steps" set all variables to the step's number under the gate, as Runs do; every snapshot must
// see one number in all variables, whatever the chunks and the pool.
TEST_F(SnapshotTest, EachSnapshotIsOneMoment) {
  std::vector<Variable*> variables;
  for (int i = 0; i < 8; ++i) {
    variables.push_back(Make("v" + std::to_string(i), int64_t{1} << (2 * i + 4)));
  }
  std::atomic<bool> stop{false};
  std::atomic<int> steps{0};
  std::thread trainer([&] {
    for (int step = 1; !stop; ++step) {
      store.gate().ReaderLock();
      for (Variable* v : variables) Set(v, static_cast<float>(step));
      store.gate().ReaderUnlock();
      steps = step;
    }
  });
  float last = 0;
  for (int round = 0; round < 40; ++round) {
    ShadowPool pool(round % 3 == 0 ? 0 : round % 3 == 1 ? 100000 : size_t{1} << 24);
    if (round % 2 == 0) {  // Reads leave the memory to copies in one that is real already.
      pool.Reserve(size_t{1} << 24);
      while (pool.WarmSome()) {
      }
    }
    const int before = steps;
    auto s = Snapshot::Take(&store, variables, &pool);
    ASSERT_TRUE(s.ok()) << s.status();
    const float moment = ReadAll(s->get(), 0, 64)[0];
    EXPECT_GE(moment, static_cast<float>(before));
    EXPECT_GE(moment, last);
    last = moment;
    for (int i = 0; i < (*s)->size(); ++i) {
      if (i == 0) continue;
      for (float f : ReadAll(s->get(), i, size_t{256} << (round % 8))) ASSERT_EQ(f, moment) << i;
    }
  }
  stop = true;
  trainer.join();
}

}  // namespace
}  // namespace ferry
