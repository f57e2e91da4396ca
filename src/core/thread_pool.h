// A persistent pool: workers wait by spinning briefly, then sleep. One parallel region at a time.
//
// Each worker but the caller is pinned to a core of its own, the cores after the one that the caller is on: a
// worker that moves leaves its caches behind. The caller stays as it is: its thread is not the pool's to
// bind, and whatever it starts would inherit the binding. Nothing is pinned where the process may not use as
// many cores as it has threads, or with LATHE_PIN=0 in the environment.
#pragma once

#include <functional>
#include <memory>

namespace lathe {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // at least 1; the caller is worker 0
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;
  // Calls fn(worker, workers) once on every worker and returns when all have. fn must not throw.
  void run(const std::function<void(int worker, int workers)>& fn);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe
