#include "compress/quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>

#include "core/cpu.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/thread_pool.h"

namespace lathe {
namespace {

// Floats of all strips in flight together: what quantizing costs beside the result.
constexpr int64_t strip_bytes = int64_t{32} << 20;

// The rows of a strip: a multiple of pack_row_multiple, small enough that every worker has several.
int64_t strip_rows(const Weight& w, int workers) {
  const int64_t fitting =
      strip_bytes / static_cast<int64_t>(sizeof(float)) / std::max<int64_t>(w.cols(), 1) / workers;
  const int64_t shared = (w.rows() + 4 * workers - 1) / (4 * workers);
  const int64_t rows = std::min(fitting, shared) / pack_row_multiple * pack_row_multiple;
  return std::max(rows, pack_row_multiple);
}

void quantize_strip(const Weight& from, int64_t row, int64_t rows, ScaleSearch search,
                    std::vector<float>& values, Weight& to) {
  values.resize(static_cast<size_t>(rows * from.cols()));
  read_rows(from, row, rows, values.data());
  to.packing->pack(round_to_nearest(values.data(), rows, from.cols(), to.numerics, search), row, to);
}

Weight quantize_on(ThreadPool& pool, const Weight& from, const Numerics& numerics, ScaleSearch search) {
  Weight to = make_weight(numerics, storage_packing(numerics), from.shape);
  const int64_t rows = from.rows(), step = strip_rows(from, pool.size());
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failing;
  pool.run([&](int, int) {
    std::vector<float> values;
    try {
      for (int64_t row; (row = next.fetch_add(step)) < rows;)
        quantize_strip(from, row, std::min(step, rows - row), search, values, to);
    } catch (...) {
      const std::lock_guard lock(failing);
      failure = std::current_exception();
      next = rows;
    }
  });
  if (failure) std::rethrow_exception(failure);
  return to;
}

int threads_or_all(int threads) { return threads > 0 ? threads : physical_cores(); }

}  // namespace

const Packing& storage_packing(const Numerics& numerics) {
  if (numerics.is_dense()) return packing("dense");
  return packing(numerics.activations == Numerics::Activations::as_they_are ? "ct.pack32" : "ct.int8");
}

Weight quantize_weight(const Weight& weight, const Numerics& numerics, ScaleSearch search, int threads) {
  ThreadPool pool(threads_or_all(threads));
  return quantize_on(pool, weight, numerics, search);
}

void quantize(Model& model, const Assignment& assignment, ScaleSearch search, int threads) {
  ThreadPool pool(threads_or_all(threads));
  Progress progress("quantizing", static_cast<int64_t>(assignment.size()));
  for (const auto& [name, numerics] : assignment) {
    Weight& weight = model.weights.at(name);
    weight = quantize_on(pool, weight, numerics, search);
    progress.advance(1, name);
  }
}

}  // namespace lathe
