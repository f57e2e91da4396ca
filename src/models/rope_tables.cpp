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

std::vector<float> plain(double theta, int head_dim) {
  std::vector<float> f(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < f.size(); ++i)
    f[i] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(2 * i) / head_dim));
  return f;
}

RopeTable linear(std::vector<float> f, const Json& scaling) {
  const float factor = static_cast<float>(get_number(scaling, "factor", where));
  for (float& x : f) x /= factor;
  return {std::move(f)};
}

// Llama 3.1: long wavelengths are stretched, short ones kept, those between interpolated.
RopeTable llama3(std::vector<float> f, const Json& scaling) {
  const double factor = get_number(scaling, "factor", where);
  const double low = get_number(scaling, "low_freq_factor", where),
               high = get_number(scaling, "high_freq_factor", where);
  const double original = get_number(scaling, "original_max_position_embeddings", where);
  if (!(factor > 0 && low > 0 && high > low && original > 0))
    throw input_error(where, "positive factors with low_freq_factor < high_freq_factor", scaling.dump());
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
  const double factor = get_number(scaling, "factor", where);
  const double original = get_number_or(scaling, "original_max_position_embeddings", where, max_positions);
  auto dim_of = [&](double rotations) {
    return head_dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double low = dim_of(get_number_or(scaling, "beta_fast", where, 32)),
         high = dim_of(get_number_or(scaling, "beta_slow", where, 1));
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
  return {std::move(f), static_cast<float>(get_number_or(scaling, "attention_factor", where, standard))};
}

// GGUF stores Llama 3.1's scaling as one divisor per frequency.
RopeTable divisors(std::vector<float> f, const Json& scaling) {
  const Json& d = scaling.at("divisors");
  if (d.size() != f.size())
    throw input_error("rope_freqs.weight", fmt::format("{} divisors", f.size()), fmt::format("{}", d.size()));
  for (size_t i = 0; i < f.size(); ++i) f[i] /= d[i].get<float>();
  return {std::move(f)};
}

}  // namespace

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
  if (!(theta > 1))
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
