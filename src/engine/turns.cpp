#include "engine/turns.h"

#include <algorithm>
#include <chrono>

namespace lathe {

void Turns::embedded(double seconds, int64_t streams) {
  if (streams > 0) owed_ += seconds / std::max(1., embedding_weight / static_cast<double>(streams));
}

void Turns::stepped(double seconds) { owed_ = std::max(0., owed_ - seconds); }

void step_until(const std::atomic<bool>& ended, Engine& engine, Embedder* embedder) {
  using Clock = std::chrono::steady_clock;
  // What waits for the embedder does not wake the engine.
  const std::chrono::milliseconds rest(embedder ? 2 : 50);
  Turns turns;
  const auto timed = [](auto&& work) {
    const auto start = Clock::now();
    const bool did = work();
    return std::pair(did, std::chrono::duration<double>(Clock::now() - start).count());
  };
  while (!ended) {
    bool embedded = false;
    if (const int64_t streams = embedder ? engine.stats().running : 0; embedder && turns.may_embed(streams)) {
      const auto [did, seconds] = timed([&] { return embedder->step(streams > 0 ? 1 : SIZE_MAX); });
      if (did) turns.embedded(seconds, streams);
      embedded = did;
    }
    const auto [stepped, seconds] = timed([&] { return engine.step(); });
    if (stepped)
      turns.stepped(seconds);
    else if (!embedded)
      engine.wait(rest);
  }
}

}  // namespace lathe
