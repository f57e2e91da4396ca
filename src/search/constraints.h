// What the caller asks of the compressed model: limits on quality, memory and speed, and whether they hold.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "eval/quality.h"
#include "eval/speed.h"

namespace lathe {

struct Constraints {
  std::optional<double> max_ppl_increase;  // a fraction: 0.01 is 1 %
  std::optional<double> max_kl;            // mean KL(base || model), nats per token
  std::optional<size_t> max_memory;        // packed weights + KV cache + activations, bytes
  std::optional<double> min_decode;        // tokens per second
  std::optional<double> max_ttft;          // milliseconds

  bool bounds_quality() const { return max_ppl_increase || max_kl; }
  bool bounds_speed() const { return min_decode || max_ttft; }
  bool bounds_resources() const { return max_memory || bounds_speed(); }
};

// One limit against one measurement. `stress` is how much of the limit is used: 1 is just met, more is a
// failure.
struct Bound {
  std::string name;  // "max_kl"
  std::string unit;
  double limit = 0, value = 0;
  double stress = 0;
  bool met() const { return stress <= 1; }
};

double ppl_increase(const Quality& model, const Quality& base);  // a fraction
std::vector<Bound> check_quality(const Constraints&, const Quality& model, const Quality& base);
// `speed` may be null where no speed is bounded.
std::vector<Bound> check_resources(const Constraints&, size_t memory_bytes, const Speed* speed);
double stress(const std::vector<Bound>&);  // of the worst; 0 when there are none

// "--max-kl: at most 0.02 nats/token, measured 0.034 nats/token (0.014 nats/token over, 70.0 %)"
std::string describe(const Bound&);
Json to_json(const Bound&);

// "12MB" (10^6), "2.5GiB" (2^30), "4096"; "1.5%" or "1.5" (per cent, returned as a fraction). InputError
// naming `flag`.
size_t parse_bytes(std::string_view text, std::string_view flag);
double parse_percent(std::string_view text, std::string_view flag);
std::string format_bytes(double bytes);  // "3.3 MB"

}  // namespace lathe
