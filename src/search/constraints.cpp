#include "search/constraints.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"

namespace lathe {
namespace {

// The number at the start of `text` and what follows it, without blanks between.
std::pair<double, std::string_view> leading_number(std::string_view text, std::string_view flag,
                                                   std::string_view expected) {
  double value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value) || value < 0)
    throw input_error(flag, expected, printable(text));
  std::string_view suffix = text.substr(static_cast<size_t>(rest - text.data()));
  while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
  return {value, suffix};
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

Bound at_most(std::string name, std::string unit, double limit, double value, double scale) {
  Bound b{std::move(name), std::move(unit), limit, value, 0};
  if (value > 0) b.stress = limit > 0 ? value / limit : std::numeric_limits<double>::infinity();
  b.limit *= scale;
  b.value *= scale;
  return b;
}

}  // namespace

double ppl_increase(const Quality& model, const Quality& base) { return std::expm1(model.nll - base.nll); }

std::vector<Bound> check_quality(const Constraints& c, const Quality& model, const Quality& base) {
  std::vector<Bound> bounds;
  if (c.max_ppl_increase)
    bounds.push_back(at_most("max_ppl_increase", "%", *c.max_ppl_increase, ppl_increase(model, base), 100));
  if (c.max_kl) bounds.push_back(at_most("max_kl", "nats/token", *c.max_kl, model.kl_mean, 1));
  return bounds;
}

std::vector<Bound> check_resources(const Constraints& c, size_t memory_bytes, const Speed* speed) {
  std::vector<Bound> bounds;
  if (c.max_memory)
    bounds.push_back(at_most("max_memory", "bytes", static_cast<double>(*c.max_memory),
                             static_cast<double>(memory_bytes), 1));
  if (c.bounds_speed() && !speed) fail("a speed is bounded but was not measured");
  if (c.min_decode)
    bounds.push_back({"min_decode", "tokens/s", *c.min_decode, speed->decode_tokens_per_s,
                      *c.min_decode / std::max(speed->decode_tokens_per_s, 1e-9)});
  if (c.max_ttft) bounds.push_back(at_most("max_ttft", "ms", *c.max_ttft, speed->ttft_ms, 1));
  return bounds;
}

double stress(const std::vector<Bound>& bounds) {
  double worst = 0;
  for (const Bound& b : bounds) worst = std::max(worst, b.stress);
  return worst;
}

std::string describe(const Bound& b) {
  const bool lower = b.name == "min_decode";
  const bool bytes = b.unit == "bytes";
  const auto number = [&](double v) {
    if (bytes) return format_bytes(v);
    return v < 1e4 ? fmt::format("{:.4g} {}", v, b.unit) : fmt::format("{:.0f} {}", v, b.unit);
  };
  std::string flag = "--" + b.name;
  std::ranges::replace(flag, '_', '-');
  std::string text = fmt::format("{}: {} {}, measured {}", flag, lower ? "at least" : "at most",
                                 number(b.limit), number(b.value));
  if (b.met()) return text;
  const double off = std::abs(b.value - b.limit);
  return text + fmt::format(" ({} {}{})", number(off), lower ? "short" : "over",
                            b.limit > 0 ? fmt::format(", {:.1f} %", 100 * off / b.limit) : "");
}

Json to_json(const Bound& b) {
  return {{"name", b.name},   {"unit", b.unit}, {"limit", b.limit},
          {"value", b.value}, {"met", b.met()}, {"text", describe(b)}};
}

size_t parse_bytes(std::string_view text, std::string_view flag) {
  constexpr std::string_view expected = "a size such as 4096, 12MB or 2.5GiB";
  constexpr std::pair<std::string_view, double> units[] = {
      {"", 1},         {"b", 1},        {"k", 1e3},      {"kb", 1e3},    {"m", 1e6},
      {"mb", 1e6},     {"g", 1e9},      {"gb", 1e9},     {"t", 1e12},    {"tb", 1e12},
      {"kib", 0x1p10}, {"mib", 0x1p20}, {"gib", 0x1p30}, {"tib", 0x1p40}};
  const auto [value, suffix] = leading_number(text, flag, expected);
  for (const auto& [name, factor] : units) {
    if (!equal_ignoring_case(suffix, name)) continue;
    const double bytes = value * factor;
    if (bytes < 1 || bytes > 0x1p62) throw input_error(flag, "a size from 1 byte to 4 EiB", printable(text));
    return static_cast<size_t>(bytes);
  }
  throw input_error(flag, expected, printable(text));
}

double parse_percent(std::string_view text, std::string_view flag) {
  constexpr std::string_view expected = "per cent, such as 1.5 or 1.5%";
  const auto [value, suffix] = leading_number(text, flag, expected);
  if (!suffix.empty() && suffix != "%") throw input_error(flag, expected, printable(text));
  return value / 100;
}

std::string format_bytes(double bytes) {
  constexpr std::string_view units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  size_t u = 0;
  while (bytes >= 999.5 && u + 1 < std::size(units)) bytes /= 1000, ++u;
  return u == 0 ? fmt::format("{:.0f} B", bytes)
                : fmt::format("{:.{}f} {}", bytes, bytes < 9.995 ? 2 : 1, units[u]);
}

}  // namespace lathe
