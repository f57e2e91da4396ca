#include "search/sensitivity.h"

#include <algorithm>

#include "compress/linalg.h"
#include "core/progress.h"
#include "quant/codes.h"
#include "quant/round.h"

namespace lathe {
namespace {

struct Squares {
  double error = 0, total = 0;
};

// Over at most 512 rows, evenly spread in strips: the ratio settles long before a large matrix is read
// through.
Squares rounding_error(const Weight& weight, const Numerics& numerics, ScaleSearch scale_search) {
  constexpr int64_t strip = 32, most = 16;
  const int64_t cols = weight.cols(), strips = (weight.rows() + strip - 1) / strip,
                used = std::min(strips, most);
  Squares sum;
  std::vector<float> exact, rounded;
  for (int64_t i = 0; i < used; ++i) {
    const int64_t row = i * strips / used * strip, rows = std::min(strip, weight.rows() - row);
    exact.resize(static_cast<size_t>(rows * cols));
    rounded.resize(exact.size());
    read_rows(weight, row, rows, exact.data());
    dequantize(round_to_nearest(exact.data(), rows, cols, numerics, scale_search), rounded.data());
    for (size_t j = 0; j < exact.size(); ++j) {
      const double x = static_cast<double>(exact[j]), d = x - static_cast<double>(rounded[j]);
      sum.error += d * d;
      sum.total += x * x;
    }
  }
  return sum;
}

double unit_error(const Study& study, const Unit& unit, int format) {
  if (format == 0) return 0;
  Squares sum;
  for (const std::string& param : unit.params) {
    const Squares s =
        rounding_error(study.base().weights.at(param), study.menu()[static_cast<size_t>(format)].numerics,
                       study.options().scale_search);
    sum.error += s.error;
    sum.total += s.total;
  }
  return sum.total > 0 ? sum.error / sum.total : 0;
}

}  // namespace

Sensitivity measure_sensitivity(Study& study) {
  const std::vector<Unit>& units = study.units();
  Sensitivity out;
  Progress progress("sensitivity", std::ssize(units));
  ThreadPool pool(study.options().target.threads);
  for (size_t u = 0; u < units.size(); ++u) {
    progress.advance(0, units[u].name);
    const std::vector<int>& formats = units[u].formats;
    std::vector<double> errors(formats.size());
    for_each_item(pool, std::ssize(formats), [&](int64_t f) {
      const auto i = static_cast<size_t>(f);
      errors[i] = unit_error(study, units[u], formats[i]);
    });
    const auto smallest = std::ranges::min_element(units[u].bytes) - units[u].bytes.begin();
    Choice alone = study.as_is();
    alone[u] = static_cast<int>(smallest);
    const double kl = smallest == 0 ? 0 : study.quality(alone, Excerpt::sensitivity).kl_mean;
    const double reference = errors[static_cast<size_t>(smallest)];
    std::vector<double> costs;
    for (const double e : errors) costs.push_back(reference > 0 ? kl * e / reference : 0);
    out.kl.push_back(kl);
    out.cost.push_back(std::move(costs));
    progress.advance(1, units[u].name);
  }
  return out;
}

void calibrate(Sensitivity& s, const Choice& whole, double measured_kl) {
  const double predicted = predicted_kl(s, whole);
  if (predicted <= 0 || measured_kl <= 0) return;
  for (size_t u = 0; u < whole.size(); ++u)
    s.cost[u][static_cast<size_t>(whole[u])] *= measured_kl / predicted;
}

double predicted_kl(const Sensitivity& s, const Choice& choice) {
  double sum = 0;
  for (size_t u = 0; u < choice.size(); ++u) sum += s.cost[u][static_cast<size_t>(choice[u])];
  return sum;
}

}  // namespace lathe
