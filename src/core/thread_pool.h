// A persistent pool: workers wait by spinning briefly, then sleep. One parallel region at a time.
//
// A region has as many parts as there are workers, and part i is worker i's while that one is on time. Who
// has done its own takes those that nobody has come for: a worker whose core is busy with another program
// delays only the part that it is in the middle of.
//
// Each worker but the caller is pinned to a core of its own, the cores after the one that the caller is on: a
// worker that moves leaves its caches behind. The caller stays as it is: its thread is not the pool's to
// bind, and whatever it starts would inherit the binding. Nothing is pinned where the process may not use as
// many cores as it has threads, or with LATHE_PIN=0 in the environment.
#pragma once

#include <cstdint>
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
  // Calls fn(part, parts) once for each of size() parts, at the same time as far as cores are free, and
  // returns when all are done. fn must not throw.
  void run(const std::function<void(int part, int parts)>& fn);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Calls fn(item) once for every item in [0, items), items handed out one by one as workers get free. An
// exception of one is thrown again when all have stopped; no further item begins then.
void for_each_item(ThreadPool&, int64_t items, const std::function<void(int64_t item)>& fn);

}  // namespace lathe
