#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <pthread.h>
#include <sched.h>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "core/cores.h"
#include "core/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lathe {
namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins for some tens of microseconds (regions of a decode step follow each other at that pace), then sleeps
// on the atomic. Measured here: a spinning hand-off costs about 1 us, a sleeping one about 50 us.
constexpr int spins = 4000;

// A number that threads wait for. It counts who sleeps: notify_all() of std::atomic asks a table of 16
// entries, of which all atomics on cache lines of their own share one, so that a sleeper anywhere in the
// process (a second pool) made each region a system call: 13 % of a decode step of the built-in model.
struct alignas(64) Signal {
  std::atomic<uint32_t> value{0};
  std::atomic<uint32_t> sleepers{0};

  void wait_while_equal(uint32_t old) {
    for (int i = 0; i < spins; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      relax();
    }
    // In one order with the change of the value and wake(): either wait() sees the change, or wake() the
    // sleeper.
    sleepers.fetch_add(1);
    while (value.load() == old) value.wait(old);
    sleepers.fetch_sub(1, std::memory_order_relaxed);
  }
  // After a sequentially consistent change of the value.
  void wake() {
    if (sleepers.load() > 0) value.notify_all();
  }
};

// A CPU for each worker but the caller; empty: they are not pinned. Pools of other processes start elsewhere,
// where their callers are.
std::vector<int> cpus_of_workers(int threads) {
  const char* wish = std::getenv("LATHE_PIN");
  if (threads < 2 || (wish && std::string_view(wish) == "0")) return {};
  auto all = cores();
  if (std::ssize(all) < threads) return {};
  const int here = sched_getcpu();
  const auto callers = std::find_if(all.begin(), all.end(), [&](const std::vector<int>& core) {
    return std::find(core.begin(), core.end(), here) != core.end();
  });
  if (callers != all.end()) std::rotate(all.begin(), callers, all.end());
  std::vector<int> out;
  for (int i = 1; i < threads; ++i) out.push_back(all[static_cast<size_t>(i)].front());
  return out;
}

// Best effort: a sandbox may refuse, and the results are the same.
void pin(std::jthread& thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);
}

}  // namespace

struct ThreadPool::State {
  const std::function<void(int, int)>* work = nullptr;
  Signal generation;
  Signal unfinished;  // parts of this region
  // The region in which each part was last taken. All parts of a region are taken before the next one begins,
  // so a worker that comes late can take nothing, and does not look at `work`, which is gone.
  alignas(64) std::vector<std::atomic<uint32_t>> taken;
  std::atomic<bool> stop = false;  // a late worker looks at it while the destructor writes
  std::vector<std::jthread> threads;

  explicit State(int workers) : taken(static_cast<size_t>(workers)) {}
  // Before the threads are joined, which wait for regions.
  ~State() {
    stop = true;
    generation.value.fetch_add(1);
    generation.wake();
  }

  void take_parts(int worker, uint32_t region) {
    const int parts = static_cast<int>(taken.size());
    for (int i = 0; i < parts; ++i) {
      const int part = worker + i < parts ? worker + i : worker + i - parts;
      std::atomic<uint32_t>& last = taken[static_cast<size_t>(part)];
      uint32_t before = region - 1;
      if (last.load(std::memory_order_relaxed) != before ||
          !last.compare_exchange_strong(before, region, std::memory_order_relaxed))
        continue;
      (*work)(part, parts);
      if (unfinished.value.fetch_sub(1) == 1) unfinished.wake();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>(std::max(1, threads))) {
  const int workers = std::max(1, threads);
  const auto work = [state = state_.get()](int worker) {
    uint32_t seen = 0;
    for (;;) {
      state->generation.wait_while_equal(seen);
      seen = state->generation.value.load(std::memory_order_acquire);
      if (state->stop) return;
      state->take_parts(worker, seen);
    }
  };
  for (int worker = 1; worker < workers; ++worker) try {
      state_->threads.emplace_back(work, worker);
    } catch (const std::system_error& e) {
      fail("{} threads asked for, {} started: {}; ask for fewer, or raise the limit of this process (ulimit)",
           workers, worker, e.what());
    }
  const std::vector<int> cpus = cpus_of_workers(workers);
  for (size_t i = 0; i < cpus.size(); ++i) pin(state_->threads[i], cpus[i]);
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::size() const { return static_cast<int>(state_->taken.size()); }

void ThreadPool::run(const std::function<void(int, int)>& fn) {
  State& state = *state_;
  if (size() == 1) return fn(0, 1);
  state.work = &fn;
  state.unfinished.value.store(static_cast<uint32_t>(size()), std::memory_order_relaxed);
  const uint32_t region = state.generation.value.fetch_add(1) + 1;
  state.generation.wake();
  state.take_parts(0, region);
  for (uint32_t left; (left = state.unfinished.value.load(std::memory_order_acquire)) != 0;)
    state.unfinished.wait_while_equal(left);
}

void for_each_item(ThreadPool& pool, int64_t items, const std::function<void(int64_t)>& fn) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failing;
  pool.run([&](int, int) {
    try {
      for (int64_t i; (i = next.fetch_add(1)) < items;) fn(i);
    } catch (...) {
      const std::lock_guard lock(failing);
      failure = std::current_exception();
      next = items;
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace lathe
