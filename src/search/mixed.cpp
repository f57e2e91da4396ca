#include "search/mixed.h"

#include <algorithm>
#include <cmath>

#include "compress/linalg.h"
#include "core/error.h"
#include "core/progress.h"
#include "eval/quality.h"

namespace lathe {
namespace {

// Everything about a unit's rounding that a second walk would need again.
struct Rounded {
  std::vector<double> errors;  // per format
  std::map<std::string, Weight> reference;
};

class Measurement {
 public:
  Measurement(const Model& model, const std::vector<Format>& menu, const MixedOptions& o)
      : base_(model),
        menu_(menu),
        options_(o),
        pool_(o.sweep.threads > 0 ? o.sweep.threads : physical_cores()),
        units_(find_units(model, menu)),
        rounded_(units_.size()) {}

  std::vector<UnitCost> run(std::span<const int32_t> calibration, std::span<const int32_t> scored) {
    round_all(calibration);
    const Target target{
        .threads = options_.sweep.threads, .max_tokens = options_.window, .max_outputs = options_.window};
    Plan base = Plan::compile(base_, target);
    std::vector<UnitCost> costs;
    Progress progress("substituting", std::ssize(units_));
    for (size_t u = 0; u < units_.size(); ++u) {
      progress.advance(0, units_[u].name);
      UnitCost cost{
          .unit = units_[u], .error = rounded_[u].errors, .reference = reference_of(u), .kl = 0, .cost = {}};
      if (cost.reference != 0) {
        Model one = base_;
        for (const auto& [param, weight] : rounded_[u].reference) one.weights.at(param) = weight;
        Plan plan = Plan::compile(one, target);
        cost.kl = evaluate(plan, scored, {.context = options_.window, .progress = ""}, &base).kl_mean;
      }
      const double reference = cost.error[static_cast<size_t>(cost.reference)];
      for (const double e : cost.error) cost.cost.push_back(reference > 0 ? cost.kl * e / reference : 0);
      costs.push_back(std::move(cost));
      progress.advance(1, units_[u].name);
    }
    return costs;
  }

 private:
  // The format substituted, of those that were tried: the one whose error is nearest to a hundredth of the
  // outputs, which moves the KL enough to be measured and not so far that it stops growing in proportion.
  int reference_of(size_t u) const {
    int best = 0;
    for (size_t f = 1; f < rounded_[u].errors.size(); ++f)
      if (best == 0 ||
          distance(rounded_[u].errors[f]) < distance(rounded_[u].errors[static_cast<size_t>(best)]))
        best = static_cast<int>(f);
    return best;
  }
  static double distance(double error) { return std::abs(std::log(std::max(error, 1e-12) / 0.01)); }

  void round_all(std::span<const int32_t> calibration) {
    std::map<std::string, size_t> unit_of;
    for (size_t u = 0; u < units_.size(); ++u) {
      rounded_[u].errors = {0};  // as it is
      for (const std::string& p : units_[u].params) unit_of[p] = u;
    }
    Model model = base_;
    SweepOptions o = options_.sweep;
    o.progress = "rounding";
    std::vector<bool> seen(units_.size());
    // Routers of experts are of no unit, and may read what a layer beside the experts does.
    const auto unit_in = [&](const InputGroup& g) -> std::optional<size_t> {
      for (const NodeId id : g.nodes)
        if (const auto found = unit_of.find(model.graph.node(id).params[0]); found != unit_of.end())
          return found->second;
      return std::nullopt;
    };
    const auto is_unit = [&](const InputGroup& g) { return unit_in(g).has_value(); };
    const auto look = [&](const InputGroup& g, InputStats& stats) {
      const size_t u = *unit_in(g);
      seen[u] = true;
      round_unit(u, &stats);
      return std::vector<float>();
    };
    sweep(model, calibration, {{{.hessian = true, .sample = true}, is_unit, look}}, o);
    for (size_t u = 0; u < units_.size(); ++u)
      if (!seen[u]) round_unit(u, nullptr);
  }

  // In all its formats, of which one is held beside the reference so far; that is kept.
  void round_unit(size_t u, const InputStats* stats) {
    const Unit& unit = units_[u];
    std::optional<GptqFactor> factor;
    if (stats && options_.method.rounding->wants_hessian)
      factor.emplace(pool_, stats->hessian.data(), stats->cols, options_.method.damping,
                     options_.method.act_order);
    for (size_t f = 1; f < unit.formats.size(); ++f) {
      const Numerics& numerics = menu_[static_cast<size_t>(unit.formats[f])].numerics;
      double error = 0, size = 0;
      const float largest = numerics.global ? largest_of(unit) : -1;
      std::map<std::string, Weight> packed;
      for (const std::string& param : unit.params) {
        const Weight& weight = base_.weights.at(param);
        const std::vector<float> w = read_all(weight), none(w.size());
        std::vector<float> now(w.size());
        if (stats) {
          const Codes codes =
              options_.method.rounding->run({pool_, w.data(), weight.rows(), weight.cols(), numerics, *stats,
                                             factor ? &*factor : nullptr, options_.method.descent, largest});
          dequantize(codes, now.data());
          packed[param] = pack_codes(codes, weight.shape);
          error +=
              output_error(pool_, w.data(), now.data(), weight.rows(), weight.cols(), stats->hessian.data());
          size +=
              output_error(pool_, none.data(), w.data(), weight.rows(), weight.cols(), stats->hessian.data());
        } else {
          packed[param] =
              quantize_weight(weight, numerics, ScaleSearch::mse, options_.sweep.threads, largest);
          now = read_all(packed[param]);
          for (size_t i = 0; i < w.size(); ++i) {
            const double x = static_cast<double>(w[i]), d = x - static_cast<double>(now[i]);
            error += d * d;
            size += x * x;
          }
        }
      }
      std::vector<double>& errors = rounded_[u].errors;
      errors.push_back(size > 0 ? error / size : 0);
      if (reference_of(u) == static_cast<int>(f)) rounded_[u].reference = std::move(packed);
    }
  }

  // The magnitude that one global scale for the whole unit goes by.
  float largest_of(const Unit& unit) const {
    float largest = 0;
    for (const std::string& param : unit.params)
      for (const float w : read_all(base_.weights.at(param))) largest = std::max(largest, std::fabs(w));
    return largest;
  }

  const Model& base_;
  const std::vector<Format>& menu_;
  const MixedOptions& options_;
  ThreadPool pool_;
  std::vector<Unit> units_;
  std::vector<Rounded> rounded_;
};

}  // namespace

std::vector<Format> mixed_menu(DType scale, const Method& method, SmallFloats floats) {
  std::vector<Format> menu = {{"as is", {}}};
  for (const int bits : {8, 7, 6, 5, 4, 3, 2})
    for (const int group : {32, 64, 128})
      for (const bool asymmetric : {false, true}) {
        if (asymmetric && bits > 4) continue;
        const Numerics n = Numerics::integer(bits, group, asymmetric, scale);
        menu.push_back({to_string(n), n});
      }
  if (method.rounds_to_grids()) add_small_floats(menu, scale, floats);
  return menu;
}

std::vector<UnitCost> measure_units(const Model& model, const std::vector<Format>& menu,
                                    std::span<const int32_t> calibration, std::span<const int32_t> scored,
                                    const MixedOptions& options) {
  return Measurement(model, menu, options).run(calibration, scored);
}

std::vector<std::string> ignore_list(const std::vector<UnitCost>& units, double times) {
  std::vector<double> per_weight;
  for (const UnitCost& u : units) per_weight.push_back(u.kl / static_cast<double>(u.unit.weights));
  std::vector<double> sorted = per_weight;
  std::ranges::sort(sorted);
  std::vector<std::string> modules;
  for (size_t i = 0; i < units.size(); ++i)
    if (per_weight[i] > times * sorted[sorted.size() / 2])
      for (const std::string& param : units[i].unit.params) modules.push_back(module_path(param));
  return modules;
}

std::optional<Mixture> best_mixture(const Model& model, const std::vector<UnitCost>& units, size_t bytes) {
  std::vector<std::vector<Item>> items;
  std::vector<Unit> plain;
  size_t others = model.bytes();  // what no unit holds: norms, biases
  for (const UnitCost& u : units) {
    items.emplace_back();
    for (size_t f = 0; f < u.unit.formats.size(); ++f) items.back().push_back({u.unit.bytes[f], u.cost[f]});
    plain.push_back(u.unit);
    others -= u.unit.bytes[0];
  }
  if (bytes <= others) return std::nullopt;
  const auto choice = Allocation(items, 1 << 15).within_bytes(bytes - others);
  if (!choice) return std::nullopt;
  Mixture m{*choice, stored_bytes(model, plain, *choice), 0};
  for (size_t u = 0; u < units.size(); ++u)
    m.predicted_kl += units[u].cost[static_cast<size_t>((*choice)[u])];
  return m;
}

Assignment assignment(const std::vector<UnitCost>& units, const std::vector<Format>& menu,
                      const Choice& choice) {
  std::vector<Unit> plain;
  for (const UnitCost& u : units) plain.push_back(u.unit);
  return assignment(plain, menu, choice);
}

}  // namespace lathe
