#include "cli/bench_serve_summary.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"

namespace lathe {
namespace {

struct Bound {
  std::string_view name;
  double Slo::*field;
  double (Measured::*value)() const;
};
constexpr Bound bounds_of_slo[] = {{"ttft", &Slo::ttft, &Measured::ttft},
                                   {"tpot", &Slo::tpot, &Measured::tpot},
                                   {"e2e", &Slo::e2e, &Measured::e2e}};

Json in_ms(const Spread& s) {
  return {{"mean", s.mean * 1e3}, {"p50", s.p50 * 1e3}, {"p90", s.p90 * 1e3}, {"p99", s.p99 * 1e3}};
}

}  // namespace

Spread spread(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  Spread s;
  for (const double v : values) s.mean += v / static_cast<double>(values.size());
  const auto percentile = [&](double p) {
    const double at = p * static_cast<double>(values.size() - 1);
    const auto low = static_cast<size_t>(at), high = std::min(low + 1, values.size() - 1);
    return values[low] + (values[high] - values[low]) * (at - static_cast<double>(low));
  };
  s.p50 = percentile(.5);
  s.p90 = percentile(.9);
  s.p99 = percentile(.99);
  return s;
}

bool Slo::met(const Measured& m) const {
  return std::ranges::all_of(
      bounds_of_slo, [&](const Bound& b) { return this->*b.field <= 0 || (m.*b.value)() <= this->*b.field; });
}

Slo parse_slo(const std::vector<std::string>& texts) {
  Slo slo;
  for (const std::string& text : texts) {
    const size_t colon = text.find(':');
    double ms = 0;
    bool known = false;
    if (colon != std::string::npos &&
        std::from_chars(text.data() + colon + 1, text.data() + text.size(), ms).ptr ==
            text.data() + text.size())
      for (const Bound& b : bounds_of_slo)
        if (b.name == text.substr(0, colon)) {
          slo.*b.field = ms * 1e-3;
          known = ms > 0;
        }
    if (!known) throw input_error("--slo", "ttft:MS, tpot:MS or e2e:MS", printable(text));
  }
  return slo;
}

ServeSummary summarize(std::span<const Measured> all, double seconds, const Slo& slo) {
  ServeSummary s;
  s.seconds = seconds;
  std::vector<double> ttft, tpot, itl, e2e;
  int64_t good = 0;
  for (const Measured& m : all) {
    if (m.outcome == Measured::Outcome::open && m.sent > 0) ++s.open;
    if (m.outcome == Measured::Outcome::refused) ++s.refused;
    if (m.outcome == Measured::Outcome::failed) {
      ++s.failed;
      if (s.first_error.empty()) s.first_error = m.error;
    }
    if (m.outcome != Measured::Outcome::done) continue;
    ++s.done;
    s.prompt_tokens += m.prompt_tokens;
    s.cached_tokens += m.cached_tokens;
    s.output_tokens += m.output_tokens;
    ttft.push_back(m.ttft());
    e2e.push_back(m.e2e());
    if (m.output_tokens > 1) tpot.push_back(m.tpot());
    itl.insert(itl.end(), m.gaps.begin(), m.gaps.end());
    good += slo.met(m);
  }
  const auto rate = [&](int64_t n) { return seconds > 0 ? static_cast<double>(n) / seconds : 0; };
  s.requests_per_s = rate(s.done);
  s.output_tokens_per_s = rate(s.output_tokens);
  s.total_tokens_per_s = rate(s.prompt_tokens + s.output_tokens);
  s.goodput = rate(good);
  s.ttft = spread(std::move(ttft));
  s.tpot = spread(std::move(tpot));
  s.itl = spread(std::move(itl));
  s.e2e = spread(std::move(e2e));
  return s;
}

Json to_json(const ServeSummary& s, const Slo& slo) {
  Json j = {{"done", s.done},
            {"refused", s.refused},
            {"failed", s.failed},
            {"unfinished", s.open},
            {"seconds", s.seconds},
            {"prompt_tokens", s.prompt_tokens},
            {"cached_tokens", s.cached_tokens},
            {"output_tokens", s.output_tokens},
            {"requests_per_s", s.requests_per_s},
            {"output_tokens_per_s", s.output_tokens_per_s},
            {"total_tokens_per_s", s.total_tokens_per_s},
            {"ttft_ms", in_ms(s.ttft)},
            {"tpot_ms", in_ms(s.tpot)},
            {"itl_ms", in_ms(s.itl)},
            {"e2e_ms", in_ms(s.e2e)}};
  if (slo.any()) j["goodput_requests_per_s"] = s.goodput;
  if (!s.first_error.empty()) j["first_error"] = s.first_error;
  return j;
}

}  // namespace lathe
