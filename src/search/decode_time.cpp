#include "search/decode_time.h"

#include <map>
#include <tuple>

#include "core/cpu.h"
#include "core/progress.h"
#include "eval/kernel_speed.h"
#include "eval/roof.h"
#include "graph/cost.h"

namespace lathe {
namespace {

constexpr int64_t most_rows = 4096;
constexpr double timing_seconds = 0.005;
constexpr int timing_calls = 3;

// Parameters that a row of activations is multiplied with, and what share of rows is.
std::map<std::string, double> multiplied(const Graph& graph) {
  std::map<std::string, double> params;
  for (const NodeId id : graph.order())
    if (const Node& node = graph.node(id); std::holds_alternative<op::Linear>(node.op))
      params[node.params[0]] = share_of_rows(graph, node.inputs[0]);
  return params;
}

class Timer {
 public:
  explicit Timer(int threads) : runner_(threads > 0 ? threads : physical_cores(), bytes_beyond_caches()) {}

  double seconds(const Numerics& numerics, int64_t rows, int64_t cols) {
    const int64_t timed = std::min(rows, most_rows);
    const auto [at, fresh] = known_.try_emplace({to_string(numerics), timed, cols}, 0);
    if (fresh) {
      const LinearKernel& kernel = choose_linear(numerics, timed, cols, allowed_features());
      WeightCopies weights(numerics, packing(kernel.packing), timed, cols, runner_);
      at->second = time_linear(runner_, kernel, weights, 1, false, timing_seconds, timing_calls).seconds;
    }
    return at->second * static_cast<double>(rows) / static_cast<double>(timed);
  }

 private:
  KernelRunner runner_;
  std::map<std::tuple<std::string, int64_t, int64_t>, double> known_;
};

}  // namespace

std::vector<std::vector<double>> decode_seconds(const Model& model, const std::vector<Unit>& units,
                                                const std::vector<Format>& menu, int threads) {
  const std::map<std::string, double> read = multiplied(model.graph);
  Timer timer(threads);
  Progress progress("timing", std::ssize(units));
  std::vector<std::vector<double>> out;
  for (const Unit& unit : units) {
    std::vector<double>& seconds = out.emplace_back(unit.formats.size(), 0.0);
    for (size_t f = 0; f < unit.formats.size(); ++f)
      for (const std::string& param : unit.params) {
        const auto share = read.find(param);
        if (share == read.end()) continue;
        const Weight& weight = model.weights.at(param);
        const Numerics& numerics =
            f == 0 ? weight.numerics : menu[static_cast<size_t>(unit.formats[f])].numerics;
        seconds[f] += share->second * timer.seconds(numerics, weight.rows(), weight.cols());
      }
    progress.advance(1, unit.name);
  }
  return out;
}

}  // namespace lathe
