// ThreadPool: every item once, the split a function of length and grain, nesting, many callers.

#include "runtime/base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "tests/no_threads.h"

namespace ferry {
namespace {

std::set<std::pair<int64_t, int64_t>> Blocks(ThreadPool* pool, int64_t total, int64_t grain) {
  std::set<std::pair<int64_t, int64_t>> blocks;
  std::mutex mu;
  pool->ParallelFor(total, grain, [&](int64_t begin, int64_t end) {
    std::lock_guard<std::mutex> lock(mu);
    EXPECT_TRUE(blocks.emplace(begin, end).second);
  });
  return blocks;
}

TEST(ThreadPoolTest, SplitDependsOnLengthAndGrainAlone) {
  ThreadPool one(1), two(2), seven(7);
  for (int64_t total : {0, 1, 2, 9, 10, 11, 99, 1000}) {
    for (int64_t grain : {1, 3, 10, 1000, 5000}) {
      std::set<std::pair<int64_t, int64_t>> expected;
      for (int64_t b = 0; b < total; b += grain) expected.emplace(b, std::min(total, b + grain));
      EXPECT_EQ(Blocks(&one, total, grain), expected);
      EXPECT_EQ(Blocks(&two, total, grain), expected);
      EXPECT_EQ(Blocks(&seven, total, grain), expected);
    }
  }
}

TEST(ThreadPoolTest, NegativeTotalCallsNothing) {
  ThreadPool pool(3);
  EXPECT_TRUE(Blocks(&pool, -5, 2).empty());
}

TEST(ThreadPoolTest, CountsTheCaller) {
  EXPECT_EQ(ThreadPool(1).threads(), 1);
  EXPECT_EQ(ThreadPool(5).threads(), 5);
  EXPECT_GE(ThreadPool(0).threads(), 1);
}

TEST(ThreadPoolTest, WritesAreSeenAfterReturn) {
  ThreadPool pool(4);
  std::vector<int> values(10000);
  for (int round = 1; round <= 50; ++round) {
    pool.ParallelFor(10000, 100, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += 1;
    });
    for (int v : values) ASSERT_EQ(v, round);
  }
}

TEST(ThreadPoolTest, NestsWithoutDeadlock) {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    std::atomic<int64_t> sum{0};
    pool.ParallelFor(20, 1, [&](int64_t, int64_t) {
      pool.ParallelFor(20, 1, [&](int64_t, int64_t) {
        pool.ParallelFor(5, 2, [&](int64_t begin, int64_t end) { sum += end - begin; });
      });
    });
    EXPECT_EQ(sum, 20 * 20 * 5);
  }
}

TEST(ThreadPoolTest, ManyCallersAtOnce) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 6; ++t) {
    callers.emplace_back([&] {
      for (int k = 0; k < 200; ++k) {
        int64_t mine[10] = {};
        pool.ParallelFor(10, 1, [&](int64_t begin, int64_t) { mine[begin] = begin; });
        for (int64_t m : mine) sum += m;
      }
    });
  }
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(sum, 6 * 200 * 45);
}

TEST(ThreadPoolTest, ScheduledWorkRunsOnWorkersAndIsAwaited) {
  std::atomic<int> ran{0};
  {
    ThreadPool pool(3);
    std::promise<std::thread::id> id;
    pool.Schedule([&] { id.set_value(std::this_thread::get_id()); });
    EXPECT_NE(id.get_future().get(), std::this_thread::get_id());
    for (int i = 0; i < 100; ++i) {
      pool.Schedule([&] {
        ++ran;
        pool.Schedule([&] { ++ran; });
      });
    }
  }  // The destructor waits for all, also for what work in the queue schedules.
  EXPECT_EQ(ran, 200);
}

TEST(ThreadPoolTest, WithoutWorkersScheduleRunsInline) {
  ThreadPool pool(1);
  std::thread::id id;
  pool.Schedule([&] { id = std::this_thread::get_id(); });
  EXPECT_EQ(id, std::this_thread::get_id());
}

TEST(ThreadPoolTest, WorksWithTheThreadsThatTheSystemHas) {
  std::unique_ptr<ThreadPool> pool;
  {
    const NoThreads none;
    pool = std::make_unique<ThreadPool>(4);
  }
  EXPECT_EQ(pool->threads(), 4);
  EXPECT_EQ(Blocks(pool.get(), 10, 4),
            (std::set<std::pair<int64_t, int64_t>>{{0, 4}, {4, 8}, {8, 10}}));
  bool ran = false;
  pool->Schedule([&] { ran = true; });
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace ferry
