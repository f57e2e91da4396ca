#include <chrono>
#include <cstdlib>
#include <gmock/gmock.h>
#include <latch>
#include <sched.h>
#include <set>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core/cores.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/thread_pool.h"

namespace lathe {
namespace {

TEST(ThreadPool, EveryPartIsDoneOncePerRegion) {
  for (int size : {1, 2, 3, 4}) {
    ThreadPool pool(size);
    ASSERT_EQ(pool.size(), size);
    std::vector<int> calls(static_cast<size_t>(size), 0);  // plain ints: the pool must order regions
    for (int region = 0; region < 2000; ++region)
      pool.run([&](int part, int parts) {
        EXPECT_EQ(parts, size);
        ++calls[static_cast<size_t>(part)];
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

// The CPUs that each worker may run on.
std::vector<std::set<int>> affinities(int threads) {
  ThreadPool pool(threads);
  std::vector<std::set<int>> out(static_cast<size_t>(threads));
  std::latch all_here(threads);  // so that nobody does another's part
  pool.run([&](int worker, int) {
    all_here.arrive_and_wait();
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &set)) out[static_cast<size_t>(worker)].insert(cpu);
  });
  return out;
}

// Sets a variable of the environment for one scope; null unsets it.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) before_ = old, had_ = true;
    value ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  ~Environment() { had_ ? ::setenv(name_, before_.c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::string before_;
  bool had_ = false;
};

TEST(Pinning, EachWorkerHasACpuOfItsOwnAndTheCallerKeepsItsOwn) {
  const Environment pin("LATHE_PIN", nullptr);
  const std::set<int> before = affinities(1)[0];
  const int threads = physical_cores();
  const auto after = affinities(threads);
  EXPECT_EQ(after[0], before);
  std::set<int> used;
  for (size_t worker = 1; worker < after.size(); ++worker) {
    ASSERT_EQ(after[worker].size(), 1u);
    EXPECT_TRUE(used.insert(*after[worker].begin()).second) << "worker " << worker;
    EXPECT_TRUE(before.contains(*after[worker].begin()));
  }
}

TEST(Pinning, MoreThreadsThanCoresAreNotPinned) {
  const Environment pin("LATHE_PIN", nullptr);
  const std::set<int> before = affinities(1)[0];
  EXPECT_THAT(affinities(physical_cores() + 1), testing::Each(before));
}

TEST(Pinning, CanBeTurnedOff) {
  const Environment pin("LATHE_PIN", "0");
  EXPECT_THAT(affinities(physical_cores()), testing::Each(affinities(1)[0]));
}

TEST(Pinning, AnAffinityOfOneCpuIsOneCore) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const int cpu = cores().back().back();
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(cores(), (std::vector<std::vector<int>>{{cpu}}));
  EXPECT_EQ(physical_cores(), 1);
  EXPECT_THAT(affinities(2), testing::Each(std::set<int>{cpu}));
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

// hwloc takes a made-up machine from its environment.
TEST(Pinning, HyperthreadsAreNoCores) {
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  if (!CPU_ISSET(0, &set) || !CPU_ISSET(1, &set)) GTEST_SKIP() << "CPUs 0 and 1 are not allowed";
  const Environment machine("HWLOC_SYNTHETIC", "core:1 pu:2"), real("HWLOC_THISSYSTEM", "1");
  EXPECT_EQ(cores(), (std::vector<std::vector<int>>{{0, 1}}));
  EXPECT_EQ(physical_cores(), 1);
}

TEST(ThreadPool, ALateWorkersPartIsDoneByAnother) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  CPU_SET(cores().back().back(), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  {
    ThreadPool pool(2);  // on one CPU: the worker comes when the caller waits or its time is up
    const auto caller = std::this_thread::get_id();
    int by_caller = 0;
    for (int region = 0; region < 2000; ++region)
      pool.run([&](int part, int) {
        if (part == 1 && std::this_thread::get_id() == caller) ++by_caller;
      });
    EXPECT_GT(by_caller, 0);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(ThreadPool, NoWorkAndManyPools) {
  for (int i = 0; i < 50; ++i) ThreadPool idle(4);
  EXPECT_EQ(ThreadPool(0).size(), 1);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which reserve terabytes of addresses
TEST(ThreadPool, WhatCannotStartIsAnErrorNotAWait) {
  const auto ask = [] {
    ::alarm(60);  // a pool that waits for those that did start waits for ever
    const rlimit addresses{size_t{1} << 30, size_t{1} << 30};  // room for some stacks of 8 MiB, not for 4096
    if (::setrlimit(RLIMIT_AS, &addresses) != 0) ::_exit(0);
    try {
      ThreadPool pool(4096);
    } catch (const Error& e) {
      ::_exit(std::string_view(e.what()).starts_with("4096 threads asked for") ? 0 : 1);
    }
    ::_exit(2);
  };
  EXPECT_EXIT(ask(), testing::ExitedWithCode(0), "");
}
#endif

}  // namespace
}  // namespace lathe
