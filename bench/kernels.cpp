// Times the rows of the kernel tables on the shapes of real models, against roofs measured in the same run:
// memory reads where the weights take longer at theirs (few rows of x), else arithmetic.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fmt/format.h>

#include "core/cpu.h"
#include "core/json.h"
#include "core/rng.h"
#include "engine/sampler.h"
#include "eval/kernel_speed.h"

namespace lathe {
namespace {

constexpr double timing_seconds = 0.15;
constexpr int64_t vocabulary = 151936;              // of Qwen2.5 and Qwen3
constexpr int64_t most_decoded = 64;                // rows; more are a prompt, unless --path says otherwise
constexpr size_t largest_weight = size_t{1} << 30;  // a language head in f32 is more, and nothing new

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

struct Options {
  std::string kernel, model, format, path;
  int64_t rows = 0, n = 0;
  int threads = 0;
  bool json = false;
  // A part of the tables besides linear layers.
  bool wants(std::string_view part) const {
    return (format.empty() || format == part) && (model.empty() || model == part);
  }
};

// The roofs of every level that this machine has.
class Roofs {
 public:
  explicit Roofs(ThreadPool& pool) {
    Roof memory;
    memory.read_bytes_per_s = MemoryReads(pool).bytes_per_s(pool, allowed_features());
    for (const IsaLevel& level : isa_levels()) {
      measured_.push_back({level, memory});
      measure_caches(pool, level.features, measured_.back().roof);
      measure_compute(pool, level.features, measured_.back().roof);
    }
  }
  // Of the lowest level with these features: avx2 rows are not measured against AVX-512.
  const Roof& of(uint32_t isa) const {
    for (const Measured& m : measured_)
      if ((isa & ~m.level.features) == 0) return m.roof;
    return measured_.back().roof;
  }
  void print(bool json, int threads) const {
    for (const auto& [level, roof] : measured_) {
      Json line = {{"op", "roof"}, {"cpu", cpu_model()}, {"threads", threads}, {"level", level.name}};
      std::string text = fmt::format("{}, {} threads, {}:", cpu_model(), threads, level.name);
      for (const RoofField& field : roof_fields) {
        if (roof.*field.value <= 0) continue;
        line[std::string(field.name)] = roof.*field.value;
        text += fmt::format("  {} {:.0f} {}", field.label, roof.*field.value * 1e-9, field.unit);
      }
      fmt::print("{}\n", json ? line.dump() : text);
    }
  }

 private:
  struct Measured {
    IsaLevel level;
    Roof roof;
  };
  std::vector<Measured> measured_;
};

// What was timed, and its name.
struct Line {
  std::string_view op, kernel, model;
  std::string format;
  std::string_view path;  // of linear layers and attention: prompt or decode
  int64_t m, n, k;
};

void report(const Options& options, const Line& line, const KernelSpeed& speed, bool memory_bound,
            double roof) {
  const double rate = memory_bound ? speed.gb_per_s() : speed.gflop_per_s();
  const double percent = roof > 0 ? 1e11 * rate / roof : 0;
  const char* unit = memory_bound ? "GB/s" : "GFLOP/s";
  if (options.json)
    fmt::print("{}\n", Json{{"op", line.op},
                            {"kernel", line.kernel},
                            {"format", line.format},
                            {"model", line.model},
                            {"path", line.path},
                            {"m", line.m},
                            {"n", line.n},
                            {"k", line.k},
                            {"bytes", speed.bytes},
                            {"microseconds", speed.seconds * 1e6},
                            {"rate", rate},
                            {"unit", unit},
                            {"percent_of_roof", percent},
                            {"error", speed.error},
                            {"hash", speed.hash}}
                           .dump());
  else
    fmt::print(
        "{:<18} {:<23} {:<13} [{:>6} x {:>5}] {:<6} m={:<4} {:>9.1f} us {:>8.1f} {:<8} {:>5.1f} %  {} "
        "{:.0e}\n",
        line.kernel, line.format, line.model, line.n, line.k, line.path, line.m, speed.seconds * 1e6, rate,
        unit, percent, speed.hash, speed.error);
  std::fflush(stdout);
}

void bench_linear(const Options& options, KernelRunner& runner, const Roofs& roofs, const LinearKernel& row,
                  const Numerics& numerics, const Layer& layer) {
  const Packing& pack = packing(row.packing);
  if (packed_bytes(numerics, pack, {layer.n, layer.k}) > largest_weight) return;
  WeightCopies weights(numerics, pack, layer.n, layer.k, runner);
  const Roof& roof = roofs.of(row.isa);
  std::vector<int64_t> counts = {1, 2, 4, 8, 16, most_decoded, 512};
  if (options.rows > 0) counts = {options.rows};
  for (const int64_t m : counts) {
    if (m > 1 && (row.isa == 0 || layer.n > 100000)) continue;  // minutes, and nothing to learn
    const bool prompt = options.path.empty() ? m > most_decoded : options.path == "prompt";
    const KernelSpeed speed = time_linear(runner, row, weights, m, prompt, timing_seconds);
    const double compute = roof.*compute_roof(row.isa, row.path(prompt)).value;
    const bool memory_bound = speed.bytes * compute >= speed.flops * roof.read_bytes_per_s || compute <= 0;
    report(options,
           {"linear", row.name, layer.model, format_name(numerics), prompt ? "prompt" : "decode", m, layer.n,
            layer.k},
           speed, memory_bound, memory_bound ? roof.read_bytes_per_s : compute);
  }
}

void bench_attention(const Options& options, KernelRunner& runner, const Roofs& roofs,
                     const AttentionKernel& row, const AttentionCase& c) {
  if (options.rows > 0 && options.rows != c.rows) return;
  const bool memory_bound = !c.prompt;
  const Roof& roof = roofs.of(row.isa);
  report(options,
         {"attention", row.name, "attention",
          fmt::format("attention, {} keys", kv_type_names[static_cast<size_t>(c.kv)]),
          c.prompt ? "prompt" : "decode", c.rows, timed_heads * timed_head_dim, c.first + c.rows},
         time_attention(runner, row, c, timing_seconds), memory_bound,
         memory_bound ? roof.read_bytes_per_s : roof.*compute_roof(row.isa, row.path(true)).value);
}

// Data in cache, as between the layers of a plan: against the third level's reads.
void bench_elementwise(const Options& options, KernelRunner& runner, const Roofs& roofs,
                       const ElementwiseKernels& row) {
  const Roof& roof = roofs.of(row.isa);
  for (const std::string_view op : elementwise_ops())
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 2048}, {512, 2048}, {1, vocabulary}})
      report(options, {op, row.name, "elementwise", std::string(op), "", rows, 1, cols},
             time_elementwise(runner, row, op, rows, cols, timing_seconds), true,
             roof.l3_bytes_per_s > 0 ? roof.l3_bytes_per_s : roof.read_bytes_per_s);
}

// Choosing a token, whole: there is nothing to compare with but the clock.
void bench_sampler(const Options& options, const ElementwiseKernels& row, const Roof& roof) {
  Rng rng(5);
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  for (float& f : logits) f = 3 * rng.normal();
  for (const auto& [name, sampling] : {std::pair<std::string_view, Sampling>{"greedy", {.temperature = 0}},
                                       {"temperature", {.temperature = 0.8, .top_p = 1}},
                                       {"top-k 40", {.temperature = 0.8, .top_k = 40, .top_p = 1}},
                                       {"top-p 0.95", {.temperature = 0.8, .top_p = 0.95}},
                                       {"top-k 40 p 0.95", {.temperature = 0.8, .top_k = 40, .top_p = 0.95}},
                                       {"min-p 0.05", {.temperature = 0.8, .top_p = 1, .min_p = 0.05}}}) {
    Sampler sampler(sampling, row.isa);
    KernelSpeed speed;
    std::string tokens;
    for (int i = 0; i < 4; ++i) tokens += std::to_string(sampler.pick(logits)) + " ";
    speed.seconds = fastest_call(timing_seconds, 5, [&] { sampler.pick(logits); });
    speed.bytes = static_cast<double>(vocabulary) * sizeof(float);
    speed.hash = tokens;
    report(options, {"sampler", row.name, "sampler", std::string(name), "", 1, 1, vocabulary}, speed, true,
           roof.l3_bytes_per_s);
  }
}

int run(int argc, char** argv) {
  Options options;
  options.threads = physical_cores();
  CLI::App app("Times the kernel tables; the last two columns are the output's hash and its relative error");
  app.add_option("--threads", options.threads);
  app.add_option("--kernel", options.kernel, "only rows whose name starts so");
  app.add_option("--model", options.model, "only shapes of models whose name starts so");
  app.add_option("--format", options.format,
                 "only this weight format, e.g. \"int4 g32\"; or attention, elementwise, sampler");
  app.add_option("--n", options.n, "only layers of so many outputs");
  app.add_option("--rows", options.rows,
                 "so many rows of x instead of 1, 2, 4, 8, 16, 64 (decoding) and 512 (a prompt)");
  app.add_option("--path", options.path, "time this path of linear layers, whatever the number of rows")
      ->check(CLI::IsMember({"decode", "prompt"}));
  app.add_flag("--json", options.json, "one object per line");
  CLI11_PARSE(app, argc, argv);

  KernelRunner runner(options.threads, bytes_beyond_caches());
  const Roofs roofs(runner.pool());
  roofs.print(options.json, options.threads);

  const uint32_t features = allowed_features();
  for (const Layer& layer : layers)
    if (layer.model.starts_with(options.model) && (options.n == 0 || options.n == layer.n))
      for (const Numerics& numerics : all_formats())
        if (options.format.empty() || options.format == format_name(numerics))
          for (const LinearKernel& row : linear_kernels())
            if ((row.isa & ~features) == 0 && row.name.starts_with(options.kernel) &&
                row.accepts(numerics, layer.n, layer.k))
              bench_linear(options, runner, roofs, row, numerics, layer);
  for (const ElementwiseKernels& row : elementwise_kernels()) {
    if ((row.isa & ~features) != 0 || !row.name.starts_with(options.kernel)) continue;
    if (options.wants("elementwise")) bench_elementwise(options, runner, roofs, row);
    if (options.wants("sampler")) bench_sampler(options, row, roofs.of(row.isa));
  }
  if (!options.wants("attention")) return 0;
  for (const AttentionKernel& row : attention_kernels())
    if ((row.isa & ~features) == 0 && row.isa != 0 && row.name.starts_with(options.kernel))
      for (KvType kv : {KvType::f32, KvType::bf16, KvType::int8, KvType::int4, KvType::int4_channel}) {
        if (!row.accepts(timed_head_dim, kv)) continue;
        for (const int64_t keys : {0, 4096, 16384})
          bench_attention(options, runner, roofs, row, {512, keys, true, kv});
        for (const int64_t keys : {1024, 4096, 16384})
          bench_attention(options, runner, roofs, row, {1, keys, false, kv});
        for (const int64_t rows : {2, 4, 8, 16, 32, 63})  // drafts to verify
          bench_attention(options, runner, roofs, row, {rows, 4096, false, kv});
      }
  return 0;
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) { return lathe::run(argc, argv); }
