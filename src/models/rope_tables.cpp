// Rotary frequencies. Hugging Face: transformers/modeling_rope_utils.py. Computed in f32 as there, so tables
// are equal.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "models/definitions.h"

namespace lathe {
namespace {

constexpr std::string_view where = "config.json: rope_scaling";

std::string named(std::string_view key) { return fmt::format("{}: {}", where, key); }
double get_positive(const Json& scaling, std::string_view key) {
  const double number = get_number(scaling, key, where);
  return positive(number, named(key)), number;
}
double get_positive_or(const Json& scaling, std::string_view key, double fallback) {
  const double number = get_number_or(scaling, key, where, fallback);
  return positive(number, named(key)), number;
}

std::vector<float> plain(double theta, int head_dim) {
  std::vector<float> f(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < f.size(); ++i)
    f[i] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(2 * i) / head_dim));
  return f;
}

RopeTable linear(std::vector<float> f, const Json& scaling) {
  const float factor = static_cast<float>(get_positive(scaling, "factor"));
  for (float& x : f) x /= factor;
  return {std::move(f)};
}

// Llama 3.1: long wavelengths are stretched, short ones kept, those between interpolated.
RopeTable llama3(std::vector<float> f, const Json& scaling) {
  const double factor = get_positive(scaling, "factor"), low = get_positive(scaling, "low_freq_factor"),
               high = get_positive(scaling, "high_freq_factor"),
               original = get_positive(scaling, "original_max_position_embeddings");
  if (high <= low)
    throw input_error(where, "low_freq_factor < high_freq_factor", fmt::format("{} and {}", low, high));
  for (float& x : f) {
    const double wavelength = 2 * std::numbers::pi / x;
    if (wavelength > original / low) {
      x = static_cast<float>(x / factor);
    } else if (wavelength >= original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      x = static_cast<float>((1 - smooth) * x / factor + smooth * x);
    }
  }
  return {std::move(f)};
}

RopeTable yarn(std::vector<float> f, const Json& scaling, double theta, int head_dim, double max_positions) {
  const double factor = get_positive(scaling, "factor"),
               original = get_positive_or(scaling, "original_max_position_embeddings", max_positions);
  auto dim_of = [&](double rotations) {
    return head_dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double low = dim_of(get_positive_or(scaling, "beta_fast", 32)),
         high = dim_of(get_positive_or(scaling, "beta_slow", 1));
  if (get_bool_or(scaling, "truncate", where, true)) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, head_dim - 1.0);
  for (size_t i = 0; i < f.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / std::max(high - low, 0.001), 0.0, 1.0);
    f[i] = static_cast<float>(f[i] / factor * ramp + f[i] * (1 - ramp));
  }
  auto mscale = [](double s, double m) { return s <= 1 ? 1.0 : 0.1 * m * std::log(s) + 1; };
  const double standard = scaling.contains("mscale") && scaling.contains("mscale_all_dim")
                              ? mscale(factor, get_number(scaling, "mscale", where)) /
                                    mscale(factor, get_number(scaling, "mscale_all_dim", where))
                              : mscale(factor, 1);
  return {std::move(f), static_cast<float>(get_positive_or(scaling, "attention_factor", standard))};
}

// GGUF stores Llama 3.1's scaling as one divisor per frequency.
RopeTable divisors(std::vector<float> f, const Json& scaling) {
  constexpr std::string_view tensor = "rope_freqs.weight";
  const Json d = scaling.value("divisors", Json());
  if (!d.is_array() || d.size() != f.size())
    throw input_error(tensor, fmt::format("{} divisors", f.size()),
                      d.is_array() ? fmt::format("{}", d.size()) : d.type_name());
  for (size_t i = 0; i < f.size(); ++i) {
    if (!d[i].is_number()) throw input_error(tensor, "numbers", d[i].type_name());
    f[i] /= positive(d[i].get<double>(), tensor);
  }
  return {std::move(f)};
}

}  // namespace

float positive(double number, std::string_view of) {
  const auto as_float = static_cast<float>(number);
  if (!(as_float > 0 && std::isfinite(as_float)))
    throw input_error(of, "a positive number", fmt::format("{}", number));
  return as_float;
}

RopeTable rope_table(const Json& config, int head_dim) {
  // transformers >= 5 keeps everything in rope_parameters; before, theta lay beside rope_scaling.
  const bool modern = config.contains("rope_parameters") && config["rope_parameters"].is_object();
  const Json none = Json::object();
  const Json* scaling = &none;
  if (modern)
    scaling = &config["rope_parameters"];
  else if (config.contains("rope_scaling") && config["rope_scaling"].is_object())
    scaling = &config["rope_scaling"];

  const double fallback = get_number_or(config, "rope_theta", "config.json", 10000.0);
  const double theta = get_number_or(*scaling, "rope_theta", where, fallback);
  if (!(positive(theta, "config.json: rope_theta") > 1))
    throw input_error("config.json: rope_theta", "a number above 1", fmt::format("{}", theta));
  std::string kind =
      get_string_or(*scaling, "rope_type", where, get_string_or(*scaling, "type", where, "default"));

  std::vector<float> f = plain(theta, head_dim);
  if (kind == "default") return {std::move(f)};
  if (kind == "linear") return linear(std::move(f), *scaling);
  if (kind == "llama3") return llama3(std::move(f), *scaling);
  if (kind == "divisors") return divisors(std::move(f), *scaling);
  if (kind == "yarn")
    return yarn(std::move(f), *scaling, theta, head_dim,
                get_number_or(config, "max_position_embeddings", "config.json", 2048));
  throw input_error(where, "rope_type default, linear, llama3 or yarn", fmt::format("'{}'", printable(kind)));
}

}  // namespace lathe
