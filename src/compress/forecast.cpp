#include "compress/forecast.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "compress/save.h"
#include "compress/write_behind.h"
#include "core/checksum.h"
#include "core/cpu.h"

namespace lathe {
namespace {

constexpr int64_t sample_rows = 128;              // whole blocks of every format
constexpr size_t sample_bytes = size_t{1} << 20;  // that are hashed

// The faster of two: the first may find its pages and its code cold.
template <class Work>
double seconds_of(Work work) {
  double best = 0;
  for (int i = 0; i < 2; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = i == 0 ? s : std::min(best, s);
  }
  return best;
}

// Seconds of one core for a weight of these numbers.
double rounding_seconds(ThreadPool& one, const Weight& weight, const Numerics& numerics, ScaleRule rule) {
  const int64_t rows = std::min(sample_rows, weight.rows());
  Weight some = make_weight(Numerics::dense(DType::f32), packing("dense"), {rows, weight.cols()});
  const double seconds = seconds_of([&] {
    read_rows(weight, 0, rows, some.parts[0].as_mutable<float>().data());
    quantize_weight(one, some, numerics, rule);
  });
  return seconds / static_cast<double>(rows);
}

double hashing_seconds_per_byte() {
  const std::vector<std::byte> bytes(sample_bytes);
  return seconds_of([&] { checksum(bytes); }) / static_cast<double>(sample_bytes);
}

}  // namespace

RoundingForecast forecast_rounding(const Model& model, const Assignment& assignment, ScaleRule rule,
                                   int threads) {
  const int workers = threads > 0 ? threads : physical_cores();
  ThreadPool one(1);
  RoundingForecast f;
  std::map<std::string, double> per_weight;  // seconds of one core, by format
  double rounding = 0;
  std::vector<size_t> made;  // bytes of what is not written as it is
  size_t strip = 0;          // of a worker
  for (const PlannedEntry& entry : planned_entries(model, assignment)) {
    const Weight& weight = model.weights.at(entry.name);
    const size_t bytes = packed_bytes(entry.numerics, *entry.packing, entry.shape);
    f.bytes_read += weight.bytes();
    f.bytes_written += bytes;
    const bool assigned = assignment.contains(entry.name);
    if (assigned || weight.numerics != entry.numerics || weight.packing != entry.packing)
      made.push_back(bytes);
    if (!assigned) continue;
    strip = std::max(strip, strip_memory(weight, entry.numerics, workers));
    const auto [known, fresh] = per_weight.try_emplace(to_string(entry.numerics), 0);
    if (fresh)
      known->second =
          rounding_seconds(one, weight, entry.numerics, rule) / static_cast<double>(weight.cols());
    rounding += known->second * static_cast<double>(elements(weight.shape));
  }
  std::ranges::sort(made, std::greater());
  const auto first = [&](size_t n) {
    return std::accumulate(made.begin(), made.begin() + static_cast<ptrdiff_t>(n), size_t{0});
  };
  const size_t two = first(std::min<size_t>(made.size(), 2));
  f.memory = std::min(first(made.size()), std::max(two, WriteBehind::most_bytes)) +
             strip * static_cast<size_t>(workers);
  // Both hashes run beside the rounding, each on one core.
  const double per_byte = hashing_seconds_per_byte(), source = per_byte * static_cast<double>(f.bytes_read),
               result = per_byte * static_cast<double>(f.bytes_written);
  f.seconds = std::max({source, result, (rounding + source + result) / workers});
  return f;
}

}  // namespace lathe
