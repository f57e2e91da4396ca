// Choosing the next token from its logits.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "core/cpu.h"
#include "core/rng.h"
#include "kernels/tables.h"

namespace lathe {

// Applied in this order: logit_bias, penalties (as vLLM does), temperature, top_k, top_p of what is left,
// min_p, typical_p of what is left (as Hugging Face does).
struct Sampling {
  double temperature = 0.8;  // 0: always the most likely token, the first of equals
  int64_t top_k = 0;         // only the k most likely; 0: all
  double top_p = 0.95;       // only the most likely that together reach this probability; 1: all
  double min_p = 0;          // only those at least so likely as this times the most likely; 0: all
  double typical_p =
      1;  // only those whose surprise is nearest to the entropy, up to this probability; 1: all
  double repetition_penalty = 1;  // logits of seen tokens: divided by it above 0, multiplied below (CTRL)
  double presence_penalty = 0;    // taken from the logits of tokens that were written,
  double frequency_penalty = 0;   // and this for each time
  // All three count among the last so many tokens of the prompt and the text; below 0: repetition_penalty
  // among all of them, the others in the text.
  int64_t penalty_window = -1;
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // added to these tokens' logits
  uint64_t seed = 0;
};

// Equal logits on the border of a cut stay in the order of their ids. A logit of NaN is never chosen. The
// draw walks ids in order, so that no sort is needed: about 0.5 ms of a row of 150,000 logits at worst.
class Sampler {
 public:
  explicit Sampler(const Sampling&, uint32_t isa = allowed_features());

  // For repetition_penalty: tokens of the text so far, the prompt's too; each counts once.
  void see(std::span<const int32_t> tokens);
  void wrote(int32_t token);  // sees it, and counts it for the other penalties
  // Error where the largest logit is not a finite number. Allocates nothing after the first call.
  int32_t pick(std::span<const float> logits);
  // What the last token was drawn from: a token's probability, and the most likely, at most so many, equals
  // by their ids.
  float chance(int32_t token) const;
  std::vector<std::pair<int32_t, float>> likeliest(int64_t count) const;

 private:
  void remember(int32_t token);
  Tail reach(float bound) const;
  void cut(int64_t count, double mass);
  void drop_last(float equals, int64_t count);
  int32_t draw();
  void keep_typical(double share);
  std::span<const float> adjusted(std::span<const float> logits);

  Sampling sampling_;
  const ElementwiseKernels& kernels_;
  Rng rng_;
  std::vector<float> adjusted_, weights_;  // weights: probabilities, times one constant
  std::vector<std::pair<double, int32_t>> surprises_;
  std::vector<int32_t> seen_, written_, times_;  // times_: by token, where it was written
  std::vector<bool> is_seen_;
  std::deque<int32_t> window_;  // the last tokens, where penalties have one
  float least_ = 0;             // weights below are out
  int32_t only_ = -1;           // there was no draw: this was the most likely
};

}  // namespace lathe
