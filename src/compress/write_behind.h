// Weights are written while the next ones are rounded.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "io/writer.h"

namespace lathe {

// Calls write(name, weight) in the order of push(), on a thread of its own. Several weights may wait: the
// disk stalls and resumes, and a table that is copied takes as long as many matrices. The memory of those
// that were written is used again, so that its pages need not be found and cleared again.
class WriteBehind {
 public:
  using Write = std::function<void(const std::string& name, const Weight&)>;

  // Of weights of make_weight() that are rounded, waiting, written or spare, at most so many bytes exist at a
  // time, or two weights where these take more.
  static constexpr size_t most_bytes = size_t{256} << 20;

  explicit WriteBehind(Write);
  ~WriteBehind();  // without finish(), what waits is not written
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // Before a weight of make_weight() is made: one of that form to make it in, or an empty one. Waits while
  // it would be one too many. Throws what write() threw.
  Weight spare_for(const PlannedEntry&);
  void push(std::string name, Weight, bool mapped);  // mapped: a view of a file, which nobody may pack into
  void finish();                                     // all are written; throws what write() threw

 private:
  struct Item {
    std::string name;
    Weight weight;
    bool mapped = false;
  };
  void run();
  void close(bool drop);

  Write write_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  std::deque<Weight> spares_;
  size_t alive_ = 0, bytes_ = 0;  // of make_weight()
  bool closed_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace lathe
