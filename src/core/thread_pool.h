// A persistent pool: workers wait by spinning briefly, then sleep. One parallel region at a time.
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
