// Perplexity with its standard error, and how far a model's predictions moved from its base.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/plan.h"

namespace lathe {

struct QualityOptions {
  int64_t context =
      256;               // windows of this many tokens, not overlapping; a window's first token is not scored
  std::string progress;  // shown while it runs; empty: silent
};

struct Quality {
  int64_t tokens = 0;              // scored
  double nll = 0, nll_stderr = 0;  // nats per token
  double perplexity = 0, perplexity_stderr = 0;
  // Against a base model; tokens_compared is 0 without one.
  int64_t tokens_compared = 0;
  double kl_mean = 0, kl_stderr = 0, kl_p99 = 0;  // KL(base || model), nats per position
  double kl_reverse_mean = 0;                     // KL(model || base)
  double top1_agreement = 0;                      // share of positions with the same most likely token
};

// Streams: memory is one window of logits per model. The plans need max_tokens and max_outputs >= context,
// and no KV cache: their keys and values are rounded without one, too.
Quality evaluate(Plan& model, std::span<const int32_t> tokens, const QualityOptions&, Plan* base = nullptr);

// A base model's logits of a text, for many comparisons with it: a plan as above runs once. In memory, 4
// bytes a token and entry of the vocabulary.
class BaseLogits {
 public:
  BaseLogits(Plan& base, std::span<const int32_t> tokens, int64_t context);
  std::span<const float> rows(size_t begin, size_t count) const;  // of tokens of the text

 private:
  std::vector<float> logits_;
  size_t cols_ = 0;
};
// The same numbers as with the plan; tokens and context must be those of the base's.
Quality evaluate(Plan& model, std::span<const int32_t> tokens, const QualityOptions&, const BaseLogits& base);

// KL(p || q) of two rows of logits, accumulated in double.
double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits);

}  // namespace lathe
