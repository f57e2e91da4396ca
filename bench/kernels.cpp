// Times the rows of the kernel tables on the shapes of real models, against roofs measured in the same run:
// memory reads for one row of x (decode), f32 fma for many (prefill). Weights rotate through copies that
// exceed any cache. Best of several calls, because other work on the machine only ever makes a call slower.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "core/cpu.h"
#include "core/float.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/rng.h"
#include "core/thread_pool.h"
#include "kernels/tables.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lathe {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The shortest of at least 5 calls and at least `budget` seconds.
template <class F>
double best_seconds(double budget, F&& call) {
  double best = INFINITY;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 5 || seconds_since(start) < budget; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    best = std::min(best, seconds_since(begin));
  }
  return best;
}

constexpr size_t beyond_caches = size_t{1} << 30;

// GB/s of all threads summing a GiB, each in four streams read ahead, which is the fastest way found here.
double read_bandwidth(ThreadPool& pool) {
  const Tensor buffer = Tensor::zeros(DType::i64, {beyond_caches / 8});
  std::memset(buffer.storage.data, 1, beyond_caches);
  const auto words = buffer.as<int64_t>();
  std::vector<int64_t> sums(static_cast<size_t>(pool.size()) * 8);
  const double t = best_seconds(1, [&] {
    pool.run([&](int worker, int workers) {
      const Range mine = part_of(std::ssize(words) / 32, worker, workers);
      const int64_t stream = (mine.end - mine.begin) * 8;
      const int64_t* at = words.data() + mine.begin * 32;
      int64_t lane[8] = {};
      for (int64_t i = 0; i < stream; i += 8)
        for (int64_t s = 0; s < 4; ++s) {
          __builtin_prefetch(at + s * stream + i + 256);
          for (int64_t j = 0; j < 8; ++j) lane[j] += at[s * stream + i + j];
        }
      for (int64_t value : lane) sums[static_cast<size_t>(worker) * 8] += value;
    });
  });
  return static_cast<double>(beyond_caches) / t / 1e9;
}

// 12 independent chains of fma hide its latency.
constexpr int64_t fma_steps = 4'000'000;
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) float fma_avx2() {
  __m256 sum[12];
  for (int i = 0; i < 12; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
  for (int64_t s = 0; s < fma_steps; ++s)
    for (auto& v : sum) v = _mm256_fmadd_ps(v, a, b);
  for (int i = 1; i < 12; ++i) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  return _mm256_cvtss_f32(sum[0]);
}
__attribute__((target("avx512f"))) float fma_avx512() {
  __m512 sum[12];
  for (int i = 0; i < 12; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
  for (int64_t s = 0; s < fma_steps; ++s)
    for (auto& v : sum) v = _mm512_fmadd_ps(v, a, b);
  for (int i = 1; i < 12; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return _mm512_cvtss_f32(sum[0]);
}
// GFLOP/s of all threads doing nothing but fma with the widest vectors of `isa`; 0 where that is not known.
double fma_peak(ThreadPool& pool, uint32_t isa) {
  if (isa == 0 || (isa & ~cpu_features()) != 0) return 0;
  const bool wide = isa & isa_avx512;
  std::vector<float> results(static_cast<size_t>(pool.size()) * 16);
  const double t = best_seconds(0.5, [&] {
    pool.run([&](int worker, int) {
      results[static_cast<size_t>(worker) * 16] = wide ? fma_avx512() : fma_avx2();
    });
  });
  return static_cast<double>(pool.size()) * 12 * (wide ? 16 : 8) * 2 * static_cast<double>(fma_steps) / t /
         1e9;
}
#else
double fma_peak(ThreadPool&, uint32_t) { return 0; }
#endif

struct Roofs {
  double read, fma_avx2, fma_avx512;
  double fma(uint32_t isa) const { return isa & isa_avx512 ? fma_avx512 : isa & isa_avx2 ? fma_avx2 : 0; }
};

// Scratch for every worker, and a kernel run on all of them.
class Runner {
 public:
  explicit Runner(int threads) : pool(threads) {
    for (int i = 0; i < threads; ++i) scratch_.push_back(Storage::allocate(kernel_scratch_bytes));
  }
  template <class Args>
  void run(void (*kernel)(const Args&, const Share&) noexcept, const Args& args) {
    pool.run([&](int worker, int workers) {
      kernel(args, Share{worker, workers, scratch_[static_cast<size_t>(worker)].data});
    });
  }
  ThreadPool pool;

 private:
  std::vector<Storage> scratch_;
};

std::vector<float> random_floats(int64_t n, Rng& rng) {
  std::vector<float> out(static_cast<size_t>(n));
  for (float& f : out) f = static_cast<float>(rng.uniform()) * 2 - 1;
  return out;
}

Weight random_weight(const Numerics& numerics, const Packing& packing, int64_t n, int64_t k) {
  Rng rng(1);
  Weight w = make_weight(numerics, packing, {n, k});
  for (int64_t row = 0; row < n; row += pack_row_multiple) {
    Codes c;
    c.numerics = numerics;
    c.rows = std::min(pack_row_multiple, n - row);
    c.cols = k;
    const int range = numerics.code_max() - numerics.code_min() + 1;
    if (numerics.is_dense()) {
      c.values = random_floats(c.rows * k, rng);
    } else {
      for (int64_t i = 0; i < c.rows * k; ++i)
        c.codes.push_back(static_cast<int16_t>(numerics.code_min() +
                                               static_cast<int>(rng.below(static_cast<uint64_t>(range)))));
      for (int64_t i = 0; i < c.rows * numerics.groups(k); ++i) {
        c.scales.push_back(std::ldexp(1.0f, -static_cast<int>(6 + rng.below(4))));
        if (numerics.offset == Numerics::Offset::zero_point)
          c.zeros.push_back(static_cast<float>(rng.below(4)));
        if (numerics.offset == Numerics::Offset::minimum) c.zeros.push_back(0.125f);
      }
    }
    packing.pack(c, row, w);
  }
  return w;
}

Weight copy(const Weight& w) {
  Weight out = make_weight(w.numerics, *w.packing, w.shape);
  for (size_t i = 0; i < w.parts.size(); ++i)
    std::memcpy(out.parts[i].storage.data, w.parts[i].storage.data, w.parts[i].bytes());
  return out;
}

LinearArgs arguments(const Weight& w, const float* x, float* y, int64_t m) {
  const auto part = [&](size_t i) -> const void* {
    return i < w.parts.size() ? w.parts[i].storage.data : nullptr;
  };
  const int64_t n = w.rows(), k = w.cols(), group = w.numerics.group == 0 ? k : w.numerics.group;
  return {part(0), part(1), part(2), x, nullptr, y, m, n, k, group, k, n};
}

struct Layer {
  std::string_view model;
  int64_t n, k;
};
constexpr Layer layers[] = {
    {"llama-3.2-1b", 2048, 2048}, {"llama-3.2-1b", 512, 2048},    {"llama-3.2-1b", 8192, 2048},
    {"llama-3.2-1b", 2048, 8192}, {"llama-3.2-1b", 128256, 2048}, {"qwen2.5-0.5b", 896, 896},
    {"qwen2.5-0.5b", 128, 896},   {"qwen2.5-0.5b", 4864, 896},    {"qwen2.5-0.5b", 896, 4864},
    {"builtin", 256, 256},        {"builtin", 768, 256},
};

std::vector<Numerics> formats() {
  using Offset = Numerics::Offset;
  std::vector<Numerics> out = {Numerics::dense(DType::f32), Numerics::dense(DType::bf16),
                               Numerics::dense(DType::f16)};
  for (int bits : {8, 4})
    for (int group : {0, 32, 128}) out.push_back(Numerics::integer(bits, group, false));
  out.push_back(Numerics::integer(4, 32, true));
  out.push_back(Numerics::integer(4, 32, false, DType::f16));                    // GGUF Q4_0
  out.push_back(Numerics::integer(8, 32, false, DType::f16));                    // GGUF Q8_0
  out.push_back({Numerics::Kind::integer, DType::f32, 4, 32, Offset::minimum});  // GGUF Q4_K
  out.push_back(Numerics::integer(6, 16, false, DType::f32));                    // GGUF Q6_K
  return out;
}

struct Options {
  std::string kernel, model, format;
  int64_t rows = 0, n = 0;
  bool json = false;
};

void report(const Options& options, const Json& line) {
  if (options.json) {
    std::printf("%s\n", line.dump().c_str());
  } else {
    const double percent = line["percent_of_roof"].get<double>();
    std::printf("%-18s %-12s %-13s [%6lld x %5lld] m=%-4lld %9.1f us %8.1f %-8s %5.1f %%  %s\n",
                line["kernel"].get<std::string>().c_str(), line["format"].get<std::string>().c_str(),
                line["model"].get<std::string>().c_str(), static_cast<long long>(line["n"].get<int64_t>()),
                static_cast<long long>(line["k"].get<int64_t>()),
                static_cast<long long>(line["m"].get<int64_t>()), line["microseconds"].get<double>(),
                line["rate"].get<double>(), line["unit"].get<std::string>().c_str(), percent,
                line["hash"].get<std::string>().c_str());
  }
  std::fflush(stdout);
}

void bench_linear(const Options& options, Runner& runner, const Roofs& roofs, const LinearKernel& row,
                  const Numerics& numerics, const Layer& layer) {
  const auto [model, n, k] = layer;
  const Packing& pack = packing(row.packing);
  const size_t bytes = packed_bytes(numerics, pack, {n, k});
  if (bytes > beyond_caches) return;  // a language head in f32
  std::vector<Weight> copies = {random_weight(numerics, pack, n, k)};
  while (copies.size() * bytes < beyond_caches) copies.push_back(copy(copies[0]));
  size_t next = 0;
  for (int64_t m : {int64_t{1}, int64_t{512}}) {
    if (options.rows > 0) m = m == 1 ? options.rows : 0;
    if (m == 0 || (m > 1 && (row.isa == 0 || n > 100000))) continue;  // minutes, and nothing to learn
    Rng rng(2);
    const std::vector<float> x = random_floats(m * k, rng);
    std::vector<float> y(static_cast<size_t>(m * n));
    const double t = best_seconds(
        0.15, [&] { runner.run(row.run, arguments(copies[next++ % copies.size()], x.data(), y.data(), m)); });
    const bool memory_bound = m < 32;
    const double rate = (memory_bound ? static_cast<double>(bytes)
                                      : 2 * static_cast<double>(m) * static_cast<double>(n * k)) /
                        t / 1e9;
    const double roof = memory_bound ? roofs.read : roofs.fma(row.isa);
    Sha256 hash;
    hash.add(y.data(), y.size() * 4);
    report(options, {{"op", "linear"},
                     {"kernel", row.name},
                     {"format", to_string(numerics)},
                     {"model", model},
                     {"m", m},
                     {"n", n},
                     {"k", k},
                     {"bytes", bytes},
                     {"microseconds", t * 1e6},
                     {"rate", rate},
                     {"unit", memory_bound ? "GB/s" : "GFLOP/s"},
                     {"percent_of_roof", roof > 0 ? 100 * rate / roof : 0},
                     {"hash", hash.hex().substr(0, 12)}});
  }
}

// Rows of one sequence of `first` cached keys; 32 query heads and 8 key heads of 64, as Llama-3.2-1B has.
void bench_attention(const Options& options, Runner& runner, const Roofs& roofs, const AttentionKernel& row,
                     int64_t rows, int64_t first) {
  constexpr int64_t heads = 32, kv_heads = 8, dim = 64;
  const int64_t keys = first + rows;
  Rng rng(3);
  const auto q = random_floats(rows * heads * dim, rng), k = random_floats(keys * kv_heads * dim, rng);
  const auto v = random_floats(keys * kv_heads * dim, rng);
  std::vector<float> out(q.size());
  const AttentionArgs args{q.data(),       k.data(),    v.data(), out.data(), rows, keys, first, heads * dim,
                           kv_heads * dim, heads * dim, heads,    kv_heads,   dim,  0,    0.125f};
  const double t = best_seconds(0.15, [&] { runner.run(row.run, args); });
  const double pairs =
      static_cast<double>(rows) * (static_cast<double>(first) + static_cast<double>(rows + 1) / 2);
  const double rate = 4 * pairs * heads * dim / t / 1e9, roof = roofs.fma(row.isa);
  Sha256 hash;
  hash.add(out.data(), out.size() * 4);
  report(options, {{"op", "attention"},
                   {"kernel", row.name},
                   {"format", "attention"},
                   {"model", "llama-3.2-1b"},
                   {"m", rows},
                   {"n", heads * dim},
                   {"k", keys},
                   {"microseconds", t * 1e6},
                   {"rate", rate},
                   {"unit", "GFLOP/s"},
                   {"percent_of_roof", roof > 0 ? 100 * rate / roof : 0},
                   {"hash", hash.hex().substr(0, 12)}});
}

int run(int argc, char** argv) {
  Options options;
  int threads = physical_cores();
  CLI::App app("Times the kernel tables");
  app.add_option("--threads", threads);
  app.add_option("--kernel", options.kernel, "only rows whose name starts so");
  app.add_option("--model", options.model, "only shapes of models whose name starts so");
  app.add_option("--format", options.format, "only this weight format, e.g. \"int4 g32\"");
  app.add_option("--n", options.n, "only layers of so many outputs");
  app.add_option("--rows", options.rows, "so many rows of x instead of 1 and 512");
  app.add_flag("--json", options.json, "one object per line");
  CLI11_PARSE(app, argc, argv);

  Runner runner(threads);
  const Roofs roofs{read_bandwidth(runner.pool), fma_peak(runner.pool, isa_avx2),
                    fma_peak(runner.pool, isa_avx512)};
  if (options.json)
    std::printf("%s\n", Json{{"op", "roofs"},
                             {"cpu", cpu_model()},
                             {"threads", threads},
                             {"read_gb_s", roofs.read},
                             {"fma_avx2_gflop_s", roofs.fma_avx2},
                             {"fma_avx512_gflop_s", roofs.fma_avx512}}
                            .dump()
                            .c_str());
  else
    std::printf("%s, %d threads: reads %.1f GB/s, f32 fma avx2 %.0f, avx512 %.0f GFLOP/s\n",
                cpu_model().c_str(), threads, roofs.read, roofs.fma_avx2, roofs.fma_avx512);

  const uint32_t features = allowed_features();
  for (const Layer& layer : layers)
    if (layer.model.starts_with(options.model) && (options.n == 0 || options.n == layer.n))
      for (const Numerics& numerics : formats())
        if (options.format.empty() || options.format == to_string(numerics))
          for (const LinearKernel& row : linear_kernels())
            if ((row.isa & ~features) == 0 && row.name.starts_with(options.kernel) &&
                row.accepts(numerics, layer.n, layer.k))
              bench_linear(options, runner, roofs, row, numerics, layer);
  if (!options.format.empty() && options.format != "attention") return 0;
  for (const AttentionKernel& row : attention_kernels())
    if ((row.isa & ~features) == 0 && row.name.starts_with(options.kernel) && row.accepts(64))
      for (const auto& [rows, first] :
           {std::pair<int64_t, int64_t>{512, 0}, {512, 2048}, {1, 512}, {1, 4096}})
        bench_attention(options, runner, roofs, row, rows, first);
  return 0;
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) { return lathe::run(argc, argv); }
