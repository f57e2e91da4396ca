// Embeddings beside streams: a text is computed in one go, so it delays every token that waits for it.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/embedder.h"
#include "engine/engine.h"

namespace lathe {

// Whose turn it is. Beside n sequences that run, texts take as long as the engine's steps times
// max(1, embedding_weight / n), as prompts do (StepLimits::prompt_weight): behind a text, steps make up for
// it before the next one begins. So a stream waits for a text once, and then has its tokens as ever for a
// while.
class Turns {
 public:
  static constexpr double embedding_weight = 8;
  bool may_embed(int64_t streams) const { return streams == 0 || owed_ <= 0; }
  void embedded(double seconds, int64_t streams);
  void stepped(double seconds);  // the engine

 private:
  double owed_ = 0;  // seconds of the engine's
};

// Steps both until `ended`, one text at a time beside sequences that run. The embedder may be null.
void step_until(const std::atomic<bool>& ended, Engine&, Embedder*);

}  // namespace lathe
