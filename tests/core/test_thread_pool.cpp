#include <chrono>
#include <gmock/gmock.h>
#include <thread>
#include <vector>

#include "core/thread_pool.h"

namespace lathe {
namespace {

TEST(ThreadPool, EveryWorkerRunsOncePerRegion) {
  for (int size : {1, 2, 3, 4}) {
    ThreadPool pool(size);
    ASSERT_EQ(pool.size(), size);
    std::vector<int> calls(static_cast<size_t>(size), 0);  // plain ints: the pool must order regions
    for (int region = 0; region < 2000; ++region)
      pool.run([&](int worker, int workers) {
        EXPECT_EQ(workers, size);
        ++calls[static_cast<size_t>(worker)];
      });
    EXPECT_THAT(calls, testing::Each(2000));
  }
}

TEST(ThreadPool, RegionsSeeEarlierRegions) {
  ThreadPool pool(4);
  std::vector<int64_t> values(4, 1);
  for (int region = 0; region < 500; ++region) {
    int64_t sum = 0;
    for (int64_t v : values) sum += v;
    pool.run([&](int worker, int) { values[static_cast<size_t>(worker)] = sum % 1000 + worker; });
  }
  EXPECT_EQ(values[3] - values[0], 3);
}

TEST(ThreadPool, WorkersThatSleepWakeUp) {
  ThreadPool pool(3);
  int calls = 0;
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // longer than the spin
    std::vector<int> seen(3, 0);
    pool.run([&](int worker, int) { seen[static_cast<size_t>(worker)] = 1; });
    for (int s : seen) calls += s;
  }
  EXPECT_EQ(calls, 9);
}

TEST(ThreadPool, NoWorkAndManyPools) {
  for (int i = 0; i < 50; ++i) ThreadPool idle(4);
  EXPECT_EQ(ThreadPool(0).size(), 1);
}

}  // namespace
}  // namespace lathe
