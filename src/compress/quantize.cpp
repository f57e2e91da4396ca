#include "compress/quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <numeric>
#include <utility>

#include "compress/linalg.h"
#include "compress/save.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/thread_pool.h"

namespace lathe {
namespace {

// Floats of a strip: with their codes they stay in a core's second cache.
constexpr int64_t strip_bytes = int64_t{1} << 19;

// The rows of a strip: a multiple of pack_row_multiple and of what shares scales, small enough that every
// worker has several.
int64_t strip_rows(const Weight& w, const Numerics& numerics, int workers) {
  const int64_t whole = std::lcm(pack_row_multiple, std::max<int64_t>(numerics.block_rows, 1));
  const int64_t fitting = strip_bytes / static_cast<int64_t>(sizeof(float)) / std::max<int64_t>(w.cols(), 1);
  const int64_t shared = (w.rows() + 4 * workers - 1) / (4 * workers);
  const int64_t rows = std::min(fitting, shared) / whole * whole;
  return std::max(rows, whole);
}

// Calls use(row, rows, values) for strips of a weight, on all workers.
template <class Use>
void for_strips(ThreadPool& pool, const Weight& from, const Numerics& numerics, Use&& use) {
  const int64_t rows = from.rows(), step = strip_rows(from, numerics, pool.size());
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failing;
  pool.run([&](int, int) {
    std::vector<float> values;
    try {
      for (int64_t row; (row = next.fetch_add(step)) < rows;) {
        const int64_t count = std::min(step, rows - row);
        values.resize(static_cast<size_t>(count * from.cols()));
        read_rows(from, row, count, values.data());
        use(row, count, std::as_const(values));
      }
    } catch (...) {
      const std::lock_guard lock(failing);
      failure = std::current_exception();
      next = rows;
    }
  });
  if (failure) std::rethrow_exception(failure);
}

float largest_of(ThreadPool& pool, const Weight& from, const Numerics& numerics) {
  float largest = 0;
  std::mutex joining;
  for_strips(pool, from, numerics, [&](int64_t, int64_t, const std::vector<float>& values) {
    float most = 0;
    for (const float v : values) most = std::max(most, std::fabs(v));
    const std::lock_guard lock(joining);
    largest = std::max(largest, most);
  });
  return largest;
}

int threads_or_all(int threads) { return threads > 0 ? threads : physical_cores(); }

}  // namespace

const Packing& storage_packing(const Numerics& numerics) {
  if (numerics.is_dense()) return packing("dense");
  if (numerics.kind == Numerics::Kind::nf4) return packing("bnb.nf4");
  const Numerics alone = numerics.weights_alone();
  if (alone == Numerics::nvfp4()) return packing("ct.nvfp4");
  if (alone == Numerics::mxfp4()) return packing("ct.mxfp4");
  if (alone == Numerics::mxfp8()) return packing("ct.mxfp8");
  if (numerics.kind == Numerics::Kind::e4m3) return packing("ct.fp8");
  return packing(numerics.rounds_activations() && numerics.bits == 8 ? "ct.int8" : "ct.pack32");
}

size_t strip_memory(const Weight& w, const Numerics& numerics, int workers) {
  const int64_t rows = std::min(strip_rows(w, numerics, workers), w.rows()), cols = w.cols();
  const auto per_value = static_cast<int64_t>(sizeof(float) + sizeof(int16_t)),
             per_group = static_cast<int64_t>(2 * sizeof(float));
  return static_cast<size_t>(rows * (cols * per_value + numerics.groups(cols) * per_group));
}

int64_t rows_that_share(const Numerics& numerics, int64_t rows) {
  return numerics.block_rows == 0 ? std::max<int64_t>(rows, 1)
                                  : std::lcm(pack_row_multiple, int64_t{numerics.block_rows});
}

void pack_rows(ThreadPool& pool, const Codes& codes, int64_t row, Weight& to) {
  const int64_t groups = codes.numerics.groups(codes.cols),
                step = rows_that_share(codes.numerics, codes.rows);
  for_each_item(pool, (codes.rows + step - 1) / step, [&](int64_t item) {
    const int64_t first = item * step;
    Codes strip;
    strip.numerics = codes.numerics;
    strip.rows = std::min(step, codes.rows - first);
    strip.cols = codes.cols;
    strip.global = codes.global;
    strip.input_scale = codes.input_scale;
    const auto take = [&](const auto& from, auto& part, int64_t per_row) {
      if (!from.empty())
        part.assign(from.begin() + first * per_row, from.begin() + (first + strip.rows) * per_row);
    };
    take(codes.codes, strip.codes, codes.cols);
    take(codes.scales, strip.scales, groups);
    take(codes.zeros, strip.zeros, groups);
    to.packing->pack(strip, row + first, to);
  });
}

Weight pack_codes(const Codes& codes, const Shape& shape) {
  Weight to = make_weight(codes.numerics, storage_packing(codes.numerics), shape);
  ThreadPool pool(1);
  pack_rows(pool, codes, 0, to);
  return to;
}

Weight quantize_into(Weight into, ThreadPool& pool, const Weight& from, const Numerics& numerics,
                     ScaleRule rule, float largest) {
  if (numerics.is_dense()) return to_dense(from, numerics.dtype);
  if (numerics.has_input_scale()) fail("{} needs a scale of its input: calibrate", to_string(numerics));
  const Packing& packing = storage_packing(numerics);
  const bool fits = into.numerics == numerics && into.packing == &packing && into.shape == from.shape;
  Weight to = fits ? std::move(into) : make_weight(numerics, packing, from.shape);
  if (numerics.scales_by_whole() && largest < 0) largest = largest_of(pool, from, numerics);
  for_strips(pool, from, numerics, [&](int64_t row, int64_t rows, const std::vector<float>& values) {
    to.packing->pack(round_to_nearest(values.data(), rows, from.cols(), numerics, rule, largest), row, to);
  });
  return to;
}

Weight quantize_weight(ThreadPool& pool, const Weight& from, const Numerics& numerics, ScaleRule rule,
                       float largest) {
  return quantize_into({}, pool, from, numerics, rule, largest);
}

Weight quantize_weight(const Weight& weight, const Numerics& numerics, ScaleRule rule, int threads,
                       float largest) {
  ThreadPool pool(threads_or_all(threads));
  return quantize_weight(pool, weight, numerics, rule, largest);
}

std::map<std::string, float, std::less<>> shared_largest(const Model& model, const Assignment& assignment,
                                                         int threads) {
  std::map<ValueId, std::vector<std::string>> readers;
  for (const NodeId id : model.graph.order()) {
    const Node& node = model.graph.node(id);
    if (!std::holds_alternative<op::Linear>(node.op)) continue;
    const auto it = assignment.find(node.params[0]);
    if (it != assignment.end() && it->second.global) readers[node.inputs[0]].push_back(it->first);
  }
  std::map<std::string, float, std::less<>> out;
  if (readers.empty()) return out;
  ThreadPool pool(threads_or_all(threads));
  for (const auto& [input, params] : readers) {
    float largest = 0;
    for (const std::string& param : params)
      largest = std::max(largest, largest_of(pool, model.weights.at(param), assignment.find(param)->second));
    for (const std::string& param : params) out[param] = std::max(out[param], largest);
  }
  return out;
}

void quantize(Model& model, const Assignment& assignment, ScaleRule rule, int threads) {
  ThreadPool pool(threads_or_all(threads));
  Progress progress("quantizing", static_cast<int64_t>(assignment.size()));
  const auto largest = shared_largest(model, assignment, threads);
  for (const auto& [name, numerics] : assignment) {
    Weight& weight = model.weights.at(name);
    const auto shared = largest.find(name);
    weight = quantize_weight(pool, weight, numerics, rule, shared == largest.end() ? -1 : shared->second);
    progress.advance(1, name);
  }
}

}  // namespace lathe
