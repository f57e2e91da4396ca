#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <pthread.h>
#include <sched.h>
#include <string_view>
#include <thread>
#include <vector>

#include "core/cores.h"

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

void wait_while_equal(std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

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
  alignas(64) std::atomic<uint32_t> generation{0};
  alignas(64) std::atomic<uint32_t> running{0};
  bool stop = false;
  std::vector<std::jthread> threads;
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  const int extra = std::max(1, threads) - 1;
  for (int i = 0; i < extra; ++i)
    state_->threads.emplace_back([this, i, extra] {
      uint32_t seen = 0;
      for (;;) {
        wait_while_equal(state_->generation, seen);
        seen = state_->generation.load(std::memory_order_acquire);
        if (state_->stop) return;
        (*state_->work)(i + 1, extra + 1);
        if (state_->running.fetch_sub(1, std::memory_order_acq_rel) == 1) state_->running.notify_one();
      }
    });
  const std::vector<int> cpus = cpus_of_workers(extra + 1);
  for (size_t i = 0; i < cpus.size(); ++i) pin(state_->threads[i], cpus[i]);
}

ThreadPool::~ThreadPool() {
  state_->stop = true;
  state_->generation.fetch_add(1, std::memory_order_release);
  state_->generation.notify_all();
}

int ThreadPool::size() const { return static_cast<int>(state_->threads.size()) + 1; }

void ThreadPool::run(const std::function<void(int, int)>& fn) {
  const int workers = size();
  if (workers > 1) {
    state_->work = &fn;
    state_->running.store(static_cast<uint32_t>(workers - 1), std::memory_order_relaxed);
    state_->generation.fetch_add(1, std::memory_order_release);
    state_->generation.notify_all();
  }
  fn(0, workers);
  if (workers == 1) return;
  for (uint32_t left; (left = state_->running.load(std::memory_order_acquire)) != 0;)
    wait_while_equal(state_->running, left);
}

}  // namespace lathe
