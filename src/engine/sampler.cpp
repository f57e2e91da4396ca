#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>

#include "core/error.h"

namespace lathe {

Sampler::Sampler(const Sampling& s, uint32_t isa)
    : sampling_(s), kernels_(choose_elementwise(isa)), rng_(s.seed) {}

void Sampler::see(std::span<const int32_t> tokens) {
  for (int32_t token : tokens) {
    if (token < 0) fail("sampler: token {}", token);
    if (sampling_.penalty_window >= 0) {
      remember(token);
      continue;
    }
    const auto i = static_cast<size_t>(token);
    if (i >= is_seen_.size()) is_seen_.resize(i + 1);
    if (is_seen_[i]) continue;
    is_seen_[i] = true;
    seen_.push_back(token);
  }
}

void Sampler::wrote(int32_t token) {
  see({&token, 1});
  if (sampling_.penalty_window >= 0) return;
  const auto i = static_cast<size_t>(token);
  if (i >= times_.size()) times_.resize(i + 1);
  if (times_[i]++ == 0) written_.push_back(token);
}

void Sampler::remember(int32_t token) {
  const auto i = static_cast<size_t>(token);
  if (i >= times_.size()) times_.resize(i + 1);
  window_.push_back(token);
  if (times_[i]++ == 0) {
    seen_.push_back(token);
    written_.push_back(token);
  }
  if (static_cast<int64_t>(window_.size()) <= sampling_.penalty_window) return;
  const int32_t oldest = window_.front();
  window_.pop_front();
  if (--times_[static_cast<size_t>(oldest)] > 0) return;
  std::erase(seen_, oldest);
  std::erase(written_, oldest);
}

std::span<const float> Sampler::adjusted(std::span<const float> logits) {
  const bool repetition = sampling_.repetition_penalty != 1 && !seen_.empty();
  const bool counts =
      (sampling_.presence_penalty != 0 || sampling_.frequency_penalty != 0) && !written_.empty();
  if (!repetition && !counts && sampling_.logit_bias.empty()) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  // Ids of another vocabulary's padding have no logit.
  const auto change = [&](int32_t token, auto&& to) {
    if (const auto i = static_cast<size_t>(token); i < logits.size()) adjusted_[i] = to(adjusted_[i]);
  };
  for (const auto& [token, bias] : sampling_.logit_bias)
    change(token, [more = bias](float x) { return x + more; });
  const auto penalty = static_cast<float>(sampling_.repetition_penalty);
  if (repetition)
    for (const int32_t token : seen_)
      change(token, [&](float x) { return x > 0 ? x / penalty : x * penalty; });
  if (counts)
    for (const int32_t token : written_) {
      const double times = times_[static_cast<size_t>(token)];
      const auto less = static_cast<float>(sampling_.presence_penalty + times * sampling_.frequency_penalty);
      change(token, [&](float x) { return x - less; });
    }
  return adjusted_;
}

Tail Sampler::reach(float bound) const {
  return kernels_.at_least(weights_.data(), static_cast<int64_t>(weights_.size()), bound);
}

// The last `count` weights of that value leave the draw.
void Sampler::drop_last(float equals, int64_t count) {
  for (size_t i = weights_.size(); i > 0 && count > 0; --i)
    if (weights_[i - 1] == equals) weights_[i - 1] = 0, --count;
}

// Keeps the fewest largest weights that are so many and sum to so much; all where they do not. Floats above 0
// are ordered as their bits are: the bound is bisected until it parts two neighbours, or equals.
void Sampler::cut(int64_t count, double mass) {
  const auto enough = [&](const Tail& t) { return t.count >= count && t.sum >= mass; };
  auto low = std::bit_cast<uint32_t>(least_), high = std::bit_cast<uint32_t>(1.0f) + 1;
  Tail in = reach(least_), out{0, 0};
  if (!enough(in)) return;
  while (high - low > 1 && in.count - out.count > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const Tail tail = reach(std::bit_cast<float>(middle));
    enough(tail) ? (low = middle, in = tail) : (high = middle, out = tail);
  }
  least_ = std::bit_cast<float>(low);
  const int64_t equals = in.count - out.count;
  if (equals < 2) return;
  const double fill = std::ceil((mass - out.sum) / static_cast<double>(least_));
  const int64_t needed = std::max({int64_t{1}, count - out.count, static_cast<int64_t>(fill)});
  drop_last(least_, equals - needed);
}

// Locally typical sampling (Meister et al. 2022, arXiv 2202.00666): the fewest tokens whose -log p is nearest
// to the entropy of what is left, and that together have this share of it. About 2 ms where 150,000 are left.
void Sampler::keep_typical(double share) {
  const double total = reach(least_).sum;
  double entropy = 0;
  surprises_.clear();
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] < least_) continue;
    const double p = static_cast<double>(weights_[i]) / total, surprise = -std::log(p);
    entropy += p * surprise;
    surprises_.emplace_back(surprise, static_cast<int32_t>(i));
  }
  for (auto& [surprise, token] : surprises_) surprise = std::fabs(surprise - entropy);
  std::ranges::sort(surprises_);
  double kept = 0;
  for (const auto& [surprise, token] : surprises_) {
    float& weight = weights_[static_cast<size_t>(token)];
    if (kept > 0 && kept >= share * total) {
      weight = 0;
    } else {
      kept += static_cast<double>(weight);
    }
  }
}

int32_t Sampler::draw() {
  double target = rng_.uniform() * reach(least_).sum;
  const auto n = static_cast<int64_t>(weights_.size());
  int64_t last = 0;
  for (int64_t begin = 0; begin < n; begin += tail_block) {
    const int64_t end = std::min(begin + tail_block, n);
    const Tail block = kernels_.at_least(&weights_[static_cast<size_t>(begin)], end - begin, least_);
    if (block.count == 0) continue;
    last = begin;
    if (target < block.sum) break;
    target -= block.sum;
  }
  // Sums round, so the block found may end before the target does: then its last weight it is.
  int32_t chosen = 0;
  for (int64_t i = last; i < std::min(last + tail_block, n); ++i) {
    const float weight = weights_[static_cast<size_t>(i)];
    if (weight < least_) continue;
    chosen = static_cast<int32_t>(i);
    target -= static_cast<double>(weight);
    if (target < 0) break;
  }
  return chosen;
}

int32_t Sampler::pick(std::span<const float> all) {
  const std::span<const float> logits = adjusted(all);
  const int64_t best = most_likely(logits, kernels_);
  const float peak = best < 0 ? -INFINITY : logits[static_cast<size_t>(best)];
  if (!std::isfinite(peak)) fail("sampler: the largest of {} logits is {}", logits.size(), peak);
  only_ = sampling_.temperature <= 0 ? static_cast<int32_t>(best) : -1;
  if (only_ >= 0) return only_;

  weights_.resize(logits.size());
  kernels_.exponentials({.x = logits.data(),
                         .out = weights_.data(),
                         .n = static_cast<int64_t>(logits.size()),
                         .largest = peak,
                         .scale = static_cast<float>(std::min(1 / sampling_.temperature, 1e30))});
  least_ = FLT_MIN;
  if (sampling_.top_k > 0) cut(sampling_.top_k, 0);
  if (sampling_.top_p < 1) cut(1, sampling_.top_p * reach(least_).sum);
  least_ = std::max(least_, std::min(static_cast<float>(sampling_.min_p), 1.0f));
  if (sampling_.typical_p < 1) keep_typical(sampling_.typical_p);
  return draw();
}

float Sampler::chance(int32_t token) const {
  if (only_ >= 0) return token == only_ ? 1.0f : 0.0f;
  const float weight = weights_[static_cast<size_t>(token)];
  return weight < least_ ? 0 : static_cast<float>(static_cast<double>(weight) / reach(least_).sum);
}

std::vector<std::pair<int32_t, float>> Sampler::likeliest(int64_t count) const {
  if (only_ >= 0)
    return count > 0 ? std::vector{std::pair(only_, 1.0f)} : std::vector<std::pair<int32_t, float>>();
  std::vector<std::pair<int32_t, float>> all;
  for (size_t i = 0; i < weights_.size(); ++i)
    if (weights_[i] >= least_) all.emplace_back(static_cast<int32_t>(i), weights_[i]);
  const size_t n = std::min(all.size(), static_cast<size_t>(count));
  const auto before = [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  };
  std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n), all.end(), before);
  all.resize(n);
  const double total = reach(least_).sum;
  for (auto& [id, weight] : all) weight = static_cast<float>(static_cast<double>(weight) / total);
  return all;
}

}  // namespace lathe
