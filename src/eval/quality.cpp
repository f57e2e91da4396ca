#include "eval/quality.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <vector>

#include "core/cpu.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "core/vector_clones.h"
#include "kernels/tables.h"

namespace lathe {
namespace {

// Sums run in this many independent chains, always combined in the same order: compilers may not reorder a
// floating sum, but they do turn separate chains into vectors.
constexpr size_t lanes = 16;

// exp(x) for x <= 0 within 2e-7, without a call or a branch, so that loops over it vectorize. The exponential
// over vocabulary x positions is what evaluation costs beside the model itself. Cephes' range reduction and
// polynomial.
LATHE_ALWAYS_INLINE float exp_of_negative(float x) {
  x = x < -87.0f ? -87.0f
                 : x;  // exp(-87) is the smallest normal float, give or take: nothing in a sum that has a 1
  const float n = (x * 1.44269504088896341f + 12582912.0f) -
                  12582912.0f;  // nearest integer: 1.5 * 2^23 leaves no fraction bits
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

float largest(std::span<const float> x) {
  float best[lanes];
  std::fill(best, best + lanes, x[0]);
  size_t i = 0;
  for (; i + lanes <= x.size(); i += lanes)
    for (size_t j = 0; j < lanes; ++j) best[j] = best[j] < x[i + j] ? x[i + j] : best[j];
  float top = *std::max_element(best, best + lanes);
  for (; i < x.size(); ++i) top = std::max(top, x[i]);
  return top;
}

// Of exp(x - top): the sum, and the sum of its products with x - other.
struct Sums {
  double exponentials = 0, differences = 0;
};
LATHE_VECTOR_CLONES void add_up(const float* x, const float* other, size_t n, float top, Sums& out) {
  double exponentials[lanes] = {}, differences[lanes] = {};
  const auto add = [&](size_t i, size_t j) __attribute__((always_inline)) {
    const auto e = static_cast<double>(exp_of_negative(x[i] - top));
    exponentials[j] += e;
    differences[j] += e * (static_cast<double>(x[i]) - static_cast<double>(other[i]));
  };
  size_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (size_t j = 0; j < lanes; ++j) add(i + j, j);
  for (size_t j = 0; i < n; ++i, ++j) add(i, j);
  out = {std::accumulate(exponentials, exponentials + lanes, 0.0),
         std::accumulate(differences, differences + lanes, 0.0)};
}

// One of two rows of logits: log(sum(exp(x))) = top + log(sum).
struct Side {
  float top;
  Sums sums;
  double log_sum() const { return static_cast<double>(top) + std::log(sums.exponentials); }
};
Side side_of(std::span<const float> x, std::span<const float> other) {
  Side side{largest(x), {}};
  add_up(x.data(), other.data(), x.size(), side.top, side.sums);
  return side;
}

// KL(p || q) = E_p[p_logit - q_logit] - (log_sum(p) - log_sum(q)). Differences of logits are small where the
// models agree, so nothing cancels that matters. Rounding may leave a tiny negative where the truth is zero;
// NaN stays NaN.
double divergence(const Side& p, const Side& q) {
  const double kl = p.sums.differences / p.sums.exponentials - (p.log_sum() - q.log_sum());
  return kl < 0 ? 0 : kl;
}

struct Mean {
  double mean = 0, standard_error = 0;
};
Mean mean_of(std::span<const double> x) {
  if (x.empty()) return {};
  const auto n = static_cast<double>(x.size());
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  const double squares = std::accumulate(x.begin(), x.end(), 0.0,
                                         [&](double s, double v) { return s + (v - mean) * (v - mean); });
  return {mean, x.size() < 2 ? 0 : std::sqrt(squares / (n - 1) / n)};
}

// The smallest value that at least this share of all values does not exceed.
double quantile(std::vector<double> x, double share) {
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(x.size())));
  const auto at = x.begin() + static_cast<ptrdiff_t>(std::clamp<size_t>(rank, 1, x.size()) - 1);
  std::nth_element(x.begin(), at, x.end());
  return *at;
}

// Logits of one window: row i predicts token i + 1, the last row predicts nothing that is known.
std::span<const float> run_window(Plan& plan, std::span<const int32_t> tokens) {
  return plan.run(SingleSequence(tokens, 0, static_cast<int64_t>(tokens.size()), false)).as<float>();
}

// Windows have two tokens at least: a last one of one token has nothing to score.
template <class Use>
void for_windows(std::span<const int32_t> tokens, int64_t context, Use use) {
  if (context < 2) fail("evaluation windows of {} tokens: at least 2 are needed to score one", context);
  const auto most = static_cast<size_t>(context);
  for (size_t begin = 0; begin + 1 < tokens.size(); begin += most)
    use(begin, tokens.subspan(begin, std::min(most, tokens.size() - begin)));
}

// What one position says of the model, and against the base.
struct Score {
  double loss = 0, kl = 0, kl_reverse = 0;
  bool agrees = false;
};

// `base` gives the base's logits of the window at a token, or nothing at all.
using BaseWindow = std::function<std::span<const float>(size_t begin, std::span<const int32_t> window)>;

std::vector<Score> score(Plan& model, std::span<const int32_t> tokens, const QualityOptions& options,
                         const BaseWindow& base) {
  std::optional<Progress> progress;
  if (!options.progress.empty()) progress.emplace(options.progress, static_cast<int64_t>(tokens.size()));
  const ElementwiseKernels& kernels = choose_elementwise(allowed_features());
  ThreadPool pool(model.threads());
  std::vector<Score> scores;
  for_windows(tokens, options.context, [&](size_t begin, std::span<const int32_t> window) {
    const size_t first = scores.size(), rows = window.size() - 1;
    scores.resize(first + rows);
    const std::span<const float> logits = run_window(model, window);
    const std::span<const float> base_logits = base ? base(begin, window) : logits;
    const size_t cols = logits.size() / window.size();
    for_each_item(pool, static_cast<int64_t>(rows), [&](int64_t item) {
      const auto i = static_cast<size_t>(item);
      const auto row = logits.subspan(i * cols, cols), base_row = base_logits.subspan(i * cols, cols);
      const Side side = side_of(row, base_row);
      Score& s = scores[first + i];
      s.loss = side.log_sum() - static_cast<double>(row[static_cast<size_t>(window[i + 1])]);
      if (!base) return;
      const Side base_side = side_of(base_row, row);
      s.kl = divergence(base_side, side);
      s.kl_reverse = divergence(side, base_side);
      s.agrees = most_likely(row, kernels) == most_likely(base_row, kernels);
    });
    for (size_t i = 0; i < rows; ++i) {
      if (!std::isfinite(scores[first + i].loss))
        fail("logits at token {} are not finite: the model cannot be scored", begin + i);
      if (!std::isfinite(scores[first + i].kl) || !std::isfinite(scores[first + i].kl_reverse))
        fail("logits of the base model at token {} are not finite", begin + i);
    }
    if (progress) progress->advance(static_cast<int64_t>(window.size()));
  });
  if (scores.empty()) fail("nothing to score: {} tokens", tokens.size());
  return scores;
}

Quality summary(const std::vector<Score>& scores, bool compared) {
  const auto column = [&](double Score::*member) {
    std::vector<double> out;
    for (const Score& s : scores) out.push_back(s.*member);
    return out;
  };
  const Mean loss = mean_of(column(&Score::loss));
  Quality q;
  q.tokens = std::ssize(scores);
  q.nll = loss.mean;
  q.nll_stderr = loss.standard_error;
  q.perplexity = std::exp(loss.mean);
  q.perplexity_stderr = q.perplexity * loss.standard_error;  // delta method: d exp(x) = exp(x) dx
  if (!compared) return q;
  const std::vector<double> kl = column(&Score::kl);
  const Mean moved = mean_of(kl);
  q.tokens_compared = std::ssize(scores);
  q.kl_mean = moved.mean;
  q.kl_stderr = moved.standard_error;
  q.kl_p99 = quantile(kl, 0.99);
  q.kl_reverse_mean = mean_of(column(&Score::kl_reverse)).mean;
  q.top1_agreement =
      static_cast<double>(std::ranges::count_if(scores, &Score::agrees)) / static_cast<double>(scores.size());
  return q;
}

}  // namespace

double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  if (p_logits.empty() || p_logits.size() != q_logits.size())
    fail("KL divergence of rows of {} and {} logits", p_logits.size(), q_logits.size());
  return divergence(side_of(p_logits, q_logits), side_of(q_logits, p_logits));
}

Quality evaluate(Plan& model, std::span<const int32_t> tokens, const QualityOptions& options, Plan* base) {
  const BaseWindow run = [&](size_t, std::span<const int32_t> window) { return run_window(*base, window); };
  return summary(score(model, tokens, options, base ? run : BaseWindow()), base != nullptr);
}

Quality evaluate(Plan& model, std::span<const int32_t> tokens, const QualityOptions& options,
                 const BaseLogits& base) {
  const BaseWindow look_up = [&](size_t begin, std::span<const int32_t> window) {
    return base.rows(begin, window.size());
  };
  return summary(score(model, tokens, options, look_up), true);
}

BaseLogits::BaseLogits(Plan& base, std::span<const int32_t> tokens, int64_t context) {
  for_windows(tokens, context, [&](size_t begin, std::span<const int32_t> window) {
    const std::span<const float> rows = run_window(base, window);
    cols_ = rows.size() / window.size();
    if (begin == 0) logits_.reserve(tokens.size() * cols_);
    logits_.insert(logits_.end(), rows.begin(), rows.end());
  });
}

std::span<const float> BaseLogits::rows(size_t begin, size_t count) const {
  if ((begin + count) * cols_ > logits_.size())
    fail("logits of tokens {} to {} of {} that were kept", begin, begin + count,
         logits_.size() / std::max<size_t>(cols_, 1));
  return std::span(logits_).subspan(begin * cols_, count * cols_);
}

}  // namespace lathe
