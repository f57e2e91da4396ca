#include "eval/quality.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "core/cpu.h"
#include "core/error.h"
#include "core/progress.h"
#include "kernels/tables.h"

namespace lathe {
namespace {

// Sums run in this many independent chains, always combined in the same order: compilers may not reorder a
// floating sum, but they do turn separate chains into vectors.
constexpr size_t lanes = 16;

// exp(x) for x <= 0 within 2e-7, without a call or a branch, so that loops over it vectorize. The exponential
// over vocabulary x positions is what evaluation costs beside the model itself. Cephes' range reduction and
// polynomial.
inline float exp_of_negative(float x) {
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

// Calls term(i) -> double for every i and adds the results up in lanes.
template <class Term>
double sum_of(size_t n, Term term) {
  double sums[lanes] = {};
  size_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (size_t j = 0; j < lanes; ++j) sums[j] += term(i + j);
  for (size_t j = 0; i < n; ++i, ++j) sums[j] += term(i);
  return std::accumulate(sums, sums + lanes, 0.0);
}

// log(sum(exp(x))) = top + log(sum).
struct Softmax {
  float top;
  double sum;
  double log_sum() const { return static_cast<double>(top) + std::log(sum); }
};

Softmax softmax_of(std::span<const float> x) {
  const float top = largest(x);
  return {top, sum_of(x.size(), [&](size_t i) { return static_cast<double>(exp_of_negative(x[i] - top)); })};
}

// KL(p || q) = E_p[p_logit - q_logit] - (log_sum(p) - log_sum(q)). Differences of logits are small where the
// models agree, so nothing cancels that matters. Rounding may leave a tiny negative where the truth is zero.
double divergence(std::span<const float> p, const Softmax& sp, std::span<const float> q, const Softmax& sq) {
  const double mean = sum_of(p.size(), [&](size_t i) {
    return static_cast<double>(exp_of_negative(p[i] - sp.top)) *
           (static_cast<double>(p[i]) - static_cast<double>(q[i]));
  });
  return std::max(0.0, mean / sp.sum - (sp.log_sum() - sq.log_sum()));
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
const Tensor& run_window(Plan& plan, std::span<const int32_t> tokens) {
  return plan.run(SingleSequence(tokens, 0, static_cast<int64_t>(tokens.size()), false));
}

std::span<const float> row_of(const Tensor& logits, size_t row) {
  const auto cols = static_cast<size_t>(logits.cols());
  return logits.as<float>().subspan(row * cols, cols);
}

}  // namespace

double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  if (p_logits.empty() || p_logits.size() != q_logits.size())
    fail("KL divergence of rows of {} and {} logits", p_logits.size(), q_logits.size());
  return divergence(p_logits, softmax_of(p_logits), q_logits, softmax_of(q_logits));
}

Quality evaluate(Plan& model, std::span<const int32_t> tokens, const QualityOptions& options, Plan* base) {
  if (options.context < 2)
    fail("evaluation windows of {} tokens: at least 2 are needed to score one", options.context);
  const auto context = static_cast<size_t>(options.context);
  std::optional<Progress> progress;
  if (!options.progress.empty()) progress.emplace(options.progress, static_cast<int64_t>(tokens.size()));
  std::vector<double> nll, kl, kl_reverse;
  int64_t agreed = 0;
  const ElementwiseKernels& kernels = choose_elementwise(allowed_features());
  for (size_t begin = 0; begin < tokens.size(); begin += context) {
    const auto window = tokens.subspan(begin, std::min(context, tokens.size() - begin));
    if (window.size() < 2) break;  // a last window of one token has nothing to score
    const Tensor& logits = run_window(model, window);
    const Tensor* base_logits = base ? &run_window(*base, window) : nullptr;
    for (size_t i = 0; i + 1 < window.size(); ++i) {
      const auto row = row_of(logits, i);
      const Softmax softmax = softmax_of(row);
      const double loss = softmax.log_sum() - static_cast<double>(row[static_cast<size_t>(window[i + 1])]);
      if (!std::isfinite(loss))
        fail("logits at token {} are not finite: the model cannot be scored", begin + i);
      nll.push_back(loss);
      if (!base) continue;
      const auto base_row = row_of(*base_logits, i);
      const Softmax base_softmax = softmax_of(base_row);
      kl.push_back(divergence(base_row, base_softmax, row, softmax));
      kl_reverse.push_back(divergence(row, softmax, base_row, base_softmax));
      if (!std::isfinite(kl.back())) fail("logits of the base model at token {} are not finite", begin + i);
      agreed += most_likely(row, kernels) == most_likely(base_row, kernels);
    }
    if (progress) progress->advance(static_cast<int64_t>(window.size()));
  }
  if (nll.empty()) fail("nothing to score: {} tokens", tokens.size());

  Quality q;
  const Mean loss = mean_of(nll);
  q.tokens = static_cast<int64_t>(nll.size());
  q.nll = loss.mean;
  q.nll_stderr = loss.standard_error;
  q.perplexity = std::exp(loss.mean);
  q.perplexity_stderr = q.perplexity * loss.standard_error;  // delta method: d exp(x) = exp(x) dx
  if (!base) return q;
  const Mean moved = mean_of(kl);
  q.tokens_compared = static_cast<int64_t>(kl.size());
  q.kl_mean = moved.mean;
  q.kl_stderr = moved.standard_error;
  q.kl_p99 = quantile(kl, 0.99);
  q.kl_reverse_mean = mean_of(kl_reverse).mean;
  q.top1_agreement = static_cast<double>(agreed) / static_cast<double>(kl.size());
  return q;
}

}  // namespace lathe
