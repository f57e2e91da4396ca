// Choosing the next token from its logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "core/rng.h"

namespace lathe {

struct Sampling {
  double temperature = 0.8;  // 0: always the most likely token
  int64_t top_k = 0;         // only the k most likely; 0: all
  double top_p = 0.95;       // only the most likely that together reach this probability
  uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(const Sampling& s) : sampling_(s), rng_(s.seed) {}

  int32_t pick(std::span<const float> logits) {
    const auto best = std::max_element(logits.begin(), logits.end());
    if (sampling_.temperature <= 0) return static_cast<int32_t>(best - logits.begin());

    weights_.resize(logits.size());
    for (size_t i = 0; i < logits.size(); ++i)
      weights_[i] =
          std::exp((static_cast<double>(logits[i]) - static_cast<double>(*best)) / sampling_.temperature);
    order_.resize(logits.size());
    std::iota(order_.begin(), order_.end(), 0);
    // Likeliest first, equals by number: the same order on every machine.
    std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
      const double x = weights_[static_cast<size_t>(a)], y = weights_[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    });
    if (sampling_.top_k > 0) order_.resize(std::min(order_.size(), static_cast<size_t>(sampling_.top_k)));

    double total = 0;
    for (int32_t i : order_) total += weights_[static_cast<size_t>(i)];
    double kept = 0;
    size_t n = 0;
    while (n < order_.size() && (n == 0 || kept < sampling_.top_p * total))
      kept += weights_[static_cast<size_t>(order_[n++])];
    double target = rng_.uniform() * kept;
    for (size_t i = 0; i + 1 < n; ++i) {
      target -= weights_[static_cast<size_t>(order_[i])];
      if (target < 0) return order_[i];
    }
    return order_[n - 1];
  }

 private:
  Sampling sampling_;
  Rng rng_;
  std::vector<double> weights_;
  std::vector<int32_t> order_;
};

}  // namespace lathe
