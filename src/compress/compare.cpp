#include "compress/compare.h"

#include <cmath>
#include <map>
#include <span>
#include <string_view>

#include "compress/linalg.h"
#include "compress/quantize.h"
#include "core/cpu.h"
#include "models/kv_cache.h"
#include "models/low_rank.h"

namespace lathe {
namespace {

// Signal and error energy of some strips of rows, spread over the matrix.
struct Energy {
  double signal = 0, error = 0;
};

// Eight chains of each sum: one would wait for itself.
void add_energy(std::span<const float> before, std::span<const float> after, Energy& sum) {
  constexpr size_t lanes = 8;
  Energy chains[lanes];
  const auto add = [&](size_t i, Energy& to) {
    const double x = static_cast<double>(before[i]), e = x - static_cast<double>(after[i]);
    to.signal += x * x;
    to.error += e * e;
  };
  size_t i = 0;
  for (; i + lanes <= before.size(); i += lanes)
    for (size_t j = 0; j < lanes; ++j) add(i + j, chains[j]);
  for (; i < before.size(); ++i) add(i, chains[0]);
  for (const Energy& chain : chains) {
    sum.signal += chain.signal;
    sum.error += chain.error;
  }
}

// What a correction adds to some rows.
void add_correction(const Model& model, const std::string& param, int64_t row, int64_t rows,
                    std::vector<float>& values) {
  const std::string name = correction_of(module_path(param));
  const auto a = model.weights.find(name + ".a"), b = model.weights.find(name + ".b");
  if (a == model.weights.end() || b == model.weights.end()) return;
  const std::vector<float> across = read_all(a->second), down = read_all(b->second);
  const int64_t cols = a->second.cols(), rank = a->second.rows();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < rank; ++k)
      for (int64_t c = 0; c < cols; ++c)
        values[static_cast<size_t>(r * cols + c)] +=
            down[static_cast<size_t>((row + r) * rank + k)] * across[static_cast<size_t>(k * cols + c)];
}

Energy compare(const Weight& before, const Model& model, const std::string& param) {
  const Weight& after = model.weights.at(param);
  constexpr int64_t strips = 8;
  Energy sum;
  std::vector<float> a, b;
  const int64_t step =
      std::max(pack_row_multiple, before.rows() / strips / pack_row_multiple * pack_row_multiple);
  for (int64_t row = 0; row < before.rows(); row += step) {
    const int64_t rows = std::min(pack_row_multiple, before.rows() - row);
    a.resize(static_cast<size_t>(rows * before.cols()));
    b.resize(a.size());
    read_rows(before, row, rows, a.data());
    read_rows(after, row, rows, b.data());
    add_correction(model, param, row, rows, b);
    add_energy(a, b, sum);
  }
  return sum;
}

// Of the matrices whose numbers changed.
std::map<std::string_view, Energy> compare_all(const Model& before, const Model& after, int threads) {
  std::vector<std::pair<std::string_view, Energy>> all;
  for (const auto& [name, now] : after.weights) {
    const auto old = before.weights.find(name);
    if (old != before.weights.end() && old->second.numerics != now.numerics) all.push_back({name, {}});
  }
  ThreadPool pool(threads > 0 ? threads : physical_cores());
  for_each_item(pool, std::ssize(all), [&](int64_t i) {
    auto& [name, energy] = all[static_cast<size_t>(i)];
    const std::string param(name);
    energy = compare(before.weights.at(param), after, param);
  });
  return {all.begin(), all.end()};
}

}  // namespace

std::vector<FormatRow> compare_formats(const Model& before, const Model& after, bool same_basis,
                                       int threads) {
  std::map<std::string_view, Energy> energies;
  if (same_basis) energies = compare_all(before, after, threads);
  std::map<std::pair<std::string, std::string>, std::pair<FormatRow, Energy>> rows;
  for (const auto& [name, now] : after.weights) {
    const bool scale = is_cache_scale(after.graph, name);
    if (scale || is_correction(after.graph, name)) {  // bytes beside the weights
      FormatRow& row =
          rows[{"-", fmt::format("{} {}", to_string(now.numerics), scale ? "KV scales" : "low rank")}].first;
      ++row.matrices;
      row.bytes_before += before.weights.contains(name) ? now.bytes() : 0;
      row.bytes_after += now.bytes();
      continue;
    }
    const auto found = before.weights.find(name);
    const Weight& old = found == before.weights.end() ? now : found->second;  // a head of its own, untied
    auto& [row, energy] = rows[{to_string(old.numerics), to_string(now.numerics)}];
    ++row.matrices;
    row.parameters += elements(old.shape);
    row.bytes_before += old.bytes();
    row.bytes_after += now.bytes();
    const auto changed = energies.find(name);
    if (changed == energies.end()) continue;
    energy.signal += changed->second.signal;
    energy.error += changed->second.error;
  }
  std::vector<FormatRow> table;
  for (auto& [formats, entry] : rows) {
    FormatRow& row = entry.first;
    row.before = formats.first;
    row.after = formats.second;
    if (entry.second.error > 0) row.snr_db = 10 * std::log10(entry.second.signal / entry.second.error);
    table.push_back(row);
  }
  return table;
}

}  // namespace lathe
