// So many requests a minute and no more, for each of many clients.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>

namespace lathe {

// A bucket of tokens per client: it holds a minute's worth and fills steadily. Thread-safe.
class RateLimit {
 public:
  using Clock = std::chrono::steady_clock;
  explicit RateLimit(double per_minute) : per_minute_(per_minute) {}  // 0: no limit

  // Zero: go on, one token is gone. Otherwise how long until there is one.
  std::chrono::milliseconds take(const std::string& client, Clock::time_point now = Clock::now());

 private:
  struct Bucket {
    double tokens;
    Clock::time_point at;
  };
  void forget_full(Clock::time_point now);

  const double per_minute_;
  std::mutex mutex_;
  std::map<std::string, Bucket> buckets_;
};

}  // namespace lathe
