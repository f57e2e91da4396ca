#include "server/rate_limit.h"

#include <algorithm>
#include <cmath>

namespace lathe {
namespace {

constexpr size_t most_clients = 100'000;

double minutes(RateLimit::Clock::duration d) {
  return std::chrono::duration<double, std::ratio<60>>(d).count();
}

}  // namespace

// A full bucket is as good as none.
void RateLimit::forget_full(Clock::time_point now) {
  std::erase_if(buckets_, [&](const auto& entry) {
    return entry.second.tokens + minutes(now - entry.second.at) * per_minute_ >= std::max(per_minute_, 1.0);
  });
}

std::chrono::milliseconds RateLimit::take(const std::string& client, Clock::time_point now) {
  using std::chrono::milliseconds;
  if (per_minute_ <= 0) return milliseconds(0);
  const std::lock_guard lock(mutex_);
  const double most = std::max(per_minute_, 1.0);
  auto it = buckets_.find(client);
  if (it == buckets_.end()) {
    if (buckets_.size() >= most_clients) forget_full(now);
    if (buckets_.size() >= most_clients) return milliseconds(60'000);
    it = buckets_.emplace(client, Bucket{most, now}).first;
  }
  Bucket& b = it->second;
  b.tokens = std::min(most, b.tokens + minutes(now - b.at) * per_minute_);
  b.at = now;
  if (b.tokens < 1)
    return milliseconds(static_cast<int64_t>(std::ceil((1 - b.tokens) / per_minute_ * 60'000)));
  --b.tokens;
  return milliseconds(0);
}

}  // namespace lathe
