#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

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
