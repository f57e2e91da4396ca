// Choosing the next token from its logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/cpu.h"
#include "core/rng.h"
#include "kernels/tables.h"

namespace lathe {

// Applied in this order, as Hugging Face does: penalty, temperature, top_k, top_p of what is left, min_p.
struct Sampling {
  double temperature = 0.8;       // 0: always the most likely token, the first of equals
  int64_t top_k = 0;              // only the k most likely; 0: all
  double top_p = 0.95;            // only the most likely that together reach this probability; 1: all
  double min_p = 0;               // only those at least so likely as this times the most likely; 0: all
  double repetition_penalty = 1;  // logits of seen tokens: divided by it above 0, multiplied below (CTRL)
  uint64_t seed = 0;
};

// Equal logits on the border of a cut stay in the order of their ids. A logit of NaN is never chosen. The
// draw walks ids in order, so that no sort is needed: about 0.5 ms of a row of 150,000 logits at worst.
class Sampler {
 public:
  explicit Sampler(const Sampling&, uint32_t isa = allowed_features());

  void see(std::span<const int32_t> tokens);  // of the text so far, for the penalty; each counts once
  // Error where the largest logit is not a finite number. Allocates nothing after the first call.
  int32_t pick(std::span<const float> logits);

 private:
  Tail reach(float bound) const;
  void cut(int64_t count, double mass);
  void drop_last(float equals, int64_t count);
  int32_t draw();
  std::span<const float> penalized(std::span<const float> logits);

  Sampling sampling_;
  const ElementwiseKernels& kernels_;
  Rng rng_;
  std::vector<float> penalized_, weights_;  // weights: probabilities, times one constant
  std::vector<int32_t> seen_;
  std::vector<bool> is_seen_;
  float least_ = 0;  // weights below are out
};

}  // namespace lathe
