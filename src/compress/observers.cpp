#include "compress/observers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>

#include "compress/linalg.h"
#include "core/error.h"
#include "quant/activations.h"

namespace lathe {
namespace {

constexpr size_t bins = 32768;

struct Bin {
  double value, count;  // its middle
};

float edge(size_t bin) { return std::bit_cast<float>(static_cast<uint32_t>(bin) << 16); }

std::vector<Bin> filled(const Magnitudes& m) {
  std::vector<Bin> out;
  for (size_t i = 0; i < m.counts.size(); ++i)
    if (m.counts[i] > 0)
      out.push_back({0.5 * (static_cast<double>(edge(i)) + static_cast<double>(edge(i + 1))),
                     static_cast<double>(m.counts[i])});
  return out;
}

float largest(const Magnitudes& m, Activations) { return m.most(); }

// torch.ao's MovingAverageMinMaxObserver, which compressed-tensors' default follows: the first batch's, then
// a hundredth of the way to each other's.
float moving_average(const Magnitudes& m, Activations) {
  float average = m.maxima[0];
  for (const float most : m.maxima) average += 0.01f * (most - average);
  return average;
}

// 99.99 % of the elements are not cut off.
float percentile(const Magnitudes& m, Activations) {
  int64_t all = 0, seen = 0;
  for (const int64_t n : m.counts) all += n;
  for (size_t i = 0; i < bins; ++i)
    if (seen += m.counts[i]; static_cast<double>(seen) >= 0.9999 * static_cast<double>(all))
      return std::min(edge(i + 1), m.most());
  return m.most();
}

// Least squared error of what is rounded and cut off, over limits 9 % apart down to 1/256 of the largest.
// Of NVFP4 the scales of blocks take up what is cut off or small: none is better than the largest.
float least_square(const Magnitudes& m, Activations to) {
  if (to == Activations::nvfp4) return m.most();
  const std::vector<Bin> seen = filled(m);
  const auto levels = static_cast<double>(largest_activation(to));
  float best = m.most();
  double least = std::numeric_limits<double>::infinity();
  for (int step = 0; step <= 64; ++step) {
    const double limit = static_cast<double>(m.most()) * std::exp2(-step / 8.0), scale = limit / levels;
    double error = 0;
    for (const Bin& bin : seen) {
      const auto value = static_cast<float>(bin.value);
      float rounded = 0;
      round_row(to, &value, 1, &rounded, static_cast<float>(scale));
      const double off = bin.value - static_cast<double>(rounded);
      error += bin.count * off * off;
    }
    if (error < least) least = error, best = static_cast<float>(limit);
  }
  return best;
}

// TensorRT's: of a histogram of 2048 equal bins, the first i, with all beyond joined to the last, are a
// distribution P; the same bins in 128 levels are Q. The i of the least KL(P || Q).
// https://on-demand.gputechconf.com/gtc/2017/presentation/s7310-8-bit-inference-with-tensorrt.pdf
float least_divergence(const Magnitudes& m, Activations) {
  constexpr size_t equal = 2048, coarse = 128;
  const double width = static_cast<double>(m.most()) / equal;
  std::vector<double> count(equal, 0.0);
  for (size_t i = 0; i < m.counts.size(); ++i) {  // a wide bin's elements lie evenly in it
    if (m.counts[i] == 0) continue;
    const double low = static_cast<double>(edge(i)) / width,
                 high = std::min(static_cast<double>(edge(i + 1)) / width, static_cast<double>(equal));
    if (!(high > low)) {
      count[equal - 1] += static_cast<double>(m.counts[i]);
      continue;
    }
    const double density = static_cast<double>(m.counts[i]) / (high - low);
    for (auto b = static_cast<size_t>(low); b < equal && static_cast<double>(b) < high; ++b)
      count[b] +=
          density * (std::min(high, static_cast<double>(b + 1)) - std::max(low, static_cast<double>(b)));
  }
  double all = 0, inside = 0;
  for (const double n : count) all += n;
  size_t best = equal;
  double least = std::numeric_limits<double>::infinity();
  for (size_t b = 0; b < coarse - 1; ++b) inside += count[b];
  for (size_t i = coarse; i <= equal; ++i) {
    inside += count[i - 1];
    const double outside = all - inside;
    double divergence = 0;
    for (size_t level = 0; level < coarse; ++level) {
      const size_t begin = level * i / coarse, end = (level + 1) * i / coarse;
      double sum = 0, some = 0;
      for (size_t b = begin; b < end; ++b) sum += count[b], some += count[b] > 0;
      for (size_t b = begin; b < end; ++b) {
        const double p = (count[b] + (b + 1 == i ? outside : 0)) / all;
        if (p <= 0) continue;
        const double q = count[b] > 0 ? sum / some / inside : 1e-12;
        divergence += p * std::log(p / q);
      }
    }
    if (divergence < least) least = divergence, best = i;
  }
  return static_cast<float>(static_cast<double>(best) * width);
}

constexpr InputObserver observers[] = {
    {"minmax", "the largest magnitude", largest},
    {"moving-average", "of the largest magnitudes of each 256 tokens", moving_average},
    {"percentile", "that of 99.99 % of the elements", percentile},
    {"mse", "the least squared error", least_square},
    {"entropy", "the least divergence of the histogram in 128 levels (TensorRT)", least_divergence, true},
};

}  // namespace

void Magnitudes::add(ThreadPool& pool, const float* x, int64_t first, int64_t count, int64_t cols) {
  counts.resize(bins);
  maxima.resize(std::max(maxima.size(), static_cast<size_t>((first + count + batch - 1) / batch)));
  constexpr int64_t strip = 64;
  std::mutex joining;
  for_each_item(pool, (count + strip - 1) / strip, [&](int64_t item) {
    std::vector<int64_t> found(bins);
    std::vector<std::pair<size_t, float>> most;
    for (int64_t r = item * strip; r < std::min(count, (item + 1) * strip); ++r) {
      float largest_of_row = 0;
      for (int64_t c = 0; c < cols; ++c) {
        const float v = std::fabs(x[r * cols + c]);
        largest_of_row = std::max(largest_of_row, v);
        ++found[std::bit_cast<uint32_t>(v) >> 16];
      }
      most.emplace_back(static_cast<size_t>((first + r) / batch), largest_of_row);
    }
    const std::lock_guard lock(joining);
    for (size_t i = 0; i < bins; ++i) counts[i] += found[i];
    for (const auto& [at, value] : most) maxima[at] = std::max(maxima[at], value);
  });
}

float Magnitudes::most() const { return *std::max_element(maxima.begin(), maxima.end()); }

std::span<const InputObserver> input_observers() { return observers; }

float input_scale(const InputObserver& observer, const Magnitudes& seen, Activations to) {
  if (observer.integers_only && to != Activations::int8_static)
    throw input_error(
        "--observer", "one for floats: minmax, moving-average, percentile or mse",
        fmt::format("{}, whose levels are those of integers, for {}", observer.name, to_string(to)));
  if (seen.maxima.empty()) return 0;
  const float limit = observer.limit(seen, to);
  return (limit > 0 ? limit : 1) / largest_activation(to);
}

const InputObserver& input_observer(std::string_view name) {
  std::vector<std::string_view> names;
  for (const InputObserver& o : observers) {
    if (o.name == name) return o;
    names.push_back(o.name);
  }
  throw input_error("observer", fmt::format("one of {}", fmt::join(names, ", ")),
                    fmt::format("'{}'", printable(name)));
}

}  // namespace lathe
