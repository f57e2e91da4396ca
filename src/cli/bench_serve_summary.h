// What a load test found, in the definitions of vLLM's `bench serve`.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/json.h"

namespace lathe {

// One request; times in seconds since the start of the test.
struct Measured {
  enum class Outcome : uint8_t { open, done, refused, failed };  // refused: 429 or 503
  Outcome outcome = Outcome::open;
  double sent = 0, first = 0, last = 0;  // `first` and `last` chunk with text
  std::vector<double> gaps;              // between chunks with text
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  std::string error;

  double ttft() const { return first - sent; }
  double e2e() const { return last - sent; }
  // 0 when there was one token only.
  double tpot() const {
    return output_tokens > 1 ? (last - first) / static_cast<double>(output_tokens - 1) : 0;
  }
};

struct Spread {
  double mean = 0, p50 = 0, p90 = 0, p99 = 0;  // percentiles interpolate linearly, as numpy's
};
Spread spread(std::vector<double> values);  // of none: zeros

// Seconds; 0: no bound.
struct Slo {
  double ttft = 0, tpot = 0, e2e = 0;
  bool any() const { return ttft > 0 || tpot > 0 || e2e > 0; }
  bool met(const Measured&) const;
};
Slo parse_slo(const std::vector<std::string>& bounds);  // "ttft:500", in ms; InputError otherwise

struct ServeSummary {
  int64_t done = 0, refused = 0, failed = 0, open = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  double seconds = 0, requests_per_s = 0, output_tokens_per_s = 0, total_tokens_per_s = 0;
  Spread ttft, tpot, itl, e2e;  // seconds, of those that are done
  double goodput = 0;           // requests a second that met the SLO
  std::string first_error;
};
ServeSummary summarize(std::span<const Measured>, double seconds, const Slo&);
Json to_json(const ServeSummary&, const Slo&);  // times in ms

}  // namespace lathe
