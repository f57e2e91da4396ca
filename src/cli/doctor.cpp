// lathe doctor: what this machine can do, and which formats and kernels get how much of it.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "cli/options.h"
#include "cli/verbs.h"
#include "core/cache_directory.h"
#include "core/cpu.h"
#include "core/log.h"
#include "core/progress.h"
#include "eval/kernel_speed.h"
#include "eval/machine.h"
#include "eval/report.h"
#include "eval/support.h"

namespace lathe {
namespace {

struct Options {
  int threads = 0;
  bool fresh = false, json = false;
};

// A projection of Llama-3.2-1B's size, and the rows of x that stand for decoding and for a prompt.
constexpr int64_t layer_n = 4096, layer_k = 2048, decode_rows = 1, prefill_rows = 128;
constexpr int64_t decode_context = 4096, prefill_context = 2048;  // cached tokens of attention
// Of each rate: enough for the fastest call to be undisturbed, while a slow level stays bearable.
constexpr double timing_seconds = 0.15;
constexpr int timing_calls = 2;

struct Rate {
  KernelSpeed speed;
  double percent_of_roof = 0;
};

// One line of the table: a format at an ISA level.
struct Row {
  std::string op, format;
  std::string_view level;
  Support support = Support::native;
  std::string kernel, packing;
  std::optional<Rate> decode, prefill;  // where it is native, and not the kernel of the level below
};

struct Findings {
  CachedMachine machine;
  Roof now;  // of this run: peaks drift, and rates are compared with what the machine can do at this moment
  std::vector<Row> rows;
};

// The levels that LATHE_ISA leaves, lowest first.
std::vector<IsaLevel> allowed_levels() {
  std::vector<IsaLevel> levels = isa_levels();
  const uint32_t allowed = allowed_features();
  std::erase_if(levels, [&](const IsaLevel& level) { return (level.features & ~allowed) != 0; });
  return levels;
}

Rate decode_rate(const KernelSpeed& s, const Roof& roof) {
  return {s, 1e11 * s.gb_per_s() / roof.read_bytes_per_s};
}
Rate prefill_rate(const KernelSpeed& s, double roof) { return {s, 1e11 * s.gflop_per_s() / roof}; }

// What a level can do at this moment.
struct LevelRoof {
  IsaLevel level;
  Roof roof;
};

// One row per level. A level that gets the kernel of the one below is not timed again.
std::vector<Row> examine_linear(KernelRunner& runner, const Numerics& format,
                                const std::vector<LevelRoof>& levels) {
  std::vector<Row> rows;
  std::map<std::string_view, WeightCopies> weights;  // by packing
  const LinearKernel* last = nullptr;
  for (const auto& [level, roof] : levels) {
    const FormatSupport found = support_of(format, layer_n, layer_k, level.features);
    Row& row = rows.emplace_back();
    row.op = "linear";
    row.format = format_name(format);
    row.level = level.name;
    row.support = found.support;
    if (!found.kernel) continue;
    const LinearKernel& kernel = *found.kernel;
    row.kernel = kernel.name;
    row.packing = kernel.packing;
    if (expands(kernel, format) || std::exchange(last, found.kernel) == found.kernel) continue;
    auto at = weights.find(kernel.packing);
    if (at == weights.end()) {
      weights.clear();  // they share the runner's room
      at = weights.try_emplace(kernel.packing, format, packing(kernel.packing), layer_n, layer_k, runner)
               .first;
    }
    const auto time = [&](int64_t m, bool prompt) {
      return time_linear(runner, kernel, at->second, m, prompt, timing_seconds, timing_calls);
    };
    row.decode = decode_rate(time(decode_rows, false), roof);
    row.prefill =
        prefill_rate(time(prefill_rows, true), roof.*compute_roof(kernel.isa, kernel.path(true)).value);
  }
  return rows;
}

std::vector<Row> examine_attention(KernelRunner& runner, const std::vector<LevelRoof>& levels) {
  std::vector<Row> rows;
  const AttentionKernel* last = nullptr;
  for (const auto& [level, roof] : levels) {
    const AttentionKernel& kernel = choose_attention(timed_head_dim, KvType::f32, level.features);
    Row& row = rows.emplace_back();
    row.op = "attention";
    row.format = "f32 keys, values";
    row.level = level.name;
    row.kernel = kernel.name;
    if (std::exchange(last, &kernel) == &kernel) continue;
    const auto time = [&](int64_t m, int64_t context, bool prompt) {
      return time_attention(runner, kernel, {m, context, prompt, KvType::f32}, timing_seconds, timing_calls);
    };
    row.decode = decode_rate(time(decode_rows, decode_context, false), roof);
    row.prefill = prefill_rate(time(prefill_rows, prefill_context, true),
                               roof.*compute_roof(kernel.isa, kernel.path(true)).value);
  }
  return rows;
}

// Bytes read and written of numbers in cache: of its third level, where there is one.
std::vector<Row> examine_elementwise(KernelRunner& runner, std::string_view op,
                                     const std::vector<LevelRoof>& levels) {
  std::vector<Row> rows;
  const ElementwiseKernels* last = nullptr;
  for (const auto& [level, roof] : levels) {
    const ElementwiseKernels& kernels = choose_elementwise(level.features);
    Row& row = rows.emplace_back();
    row.op = op;
    row.format = "f32";
    row.level = level.name;
    row.kernel = kernels.name;
    if (std::exchange(last, &kernels) == &kernels) continue;
    const KernelSpeed s =
        time_elementwise(runner, kernels, op, prefill_rows, layer_k, timing_seconds, timing_calls);
    const double most = roof.l3_bytes_per_s > 0 ? roof.l3_bytes_per_s : roof.read_bytes_per_s;
    row.decode = Rate{s, 1e11 * s.gb_per_s() / most};
  }
  return rows;
}

// Other programs make every number below too low, and nothing in the numbers tells.
void warn_if_busy() {
  double load = 0;
  if (::getloadavg(&load, 1) == 1 && load > 0.5)
    warn("the load average is {:.1f}: other programs use this machine, and will lower what is measured",
         load);
}

Findings examine(const Options& o) {
  warn_if_busy();
  const uint32_t isa = allowed_features();
  const MachineKey key = machine_key(o.threads, isa);
  const std::vector<Numerics> formats = known_formats();
  Progress progress("measuring",
                    machine_steps(key.threads) + std::ssize(formats) + std::ssize(elementwise_ops()) + 2);
  Findings f;
  f.machine = load_machine(cache_directory(), key, o.fresh, [&] {
    return measure_machine(key.threads, isa, [&](std::string_view what) { progress.advance(1, what); });
  });
  f.now = f.machine.cached ? measure_roof(key.threads, isa) : f.machine.machine.roof;
  KernelRunner runner(key.threads, bytes_beyond_caches());
  std::vector<LevelRoof> levels;
  for (const IsaLevel& level : allowed_levels()) {
    Roof& roof = levels.emplace_back(LevelRoof{level, {}}).roof;
    roof.read_bytes_per_s = f.now.read_bytes_per_s;
    roof.l3_bytes_per_s = f.now.l3_bytes_per_s;
    measure_compute(runner.pool(), level.features, roof);
  }
  progress.advance(f.machine.cached ? machine_steps(key.threads) + 1 : 1, "roofs");
  const auto add = [&](std::vector<Row> rows) {
    progress.advance(1, rows.back().format);
    std::move(rows.begin(), rows.end(), std::back_inserter(f.rows));
  };
  for (const Numerics& format : formats) add(examine_linear(runner, format, levels));
  add(examine_attention(runner, levels));
  for (const std::string_view op : elementwise_ops()) add(examine_elementwise(runner, op, levels));
  return f;
}

void print_roof(std::string_view what, double value, std::string_view unit, double now) {
  fmt::print("  {:<34} {:>9.1f} {:<8}{}\n", what, value, unit,
             now > 0 ? fmt::format("{:>9.1f} now", now) : "");
}

void print(const Machine& m, bool cached, const Roof& now) {
  fmt::print("{}, {} threads, {}\n", printable(m.key.cpu), m.key.threads, printable(m.key.features));
  fmt::print("measured {}{}\n", printable(m.measured_at),
             cached ? ", from the cache; --fresh measures again" : "");
  for (const Machine::Reads& r : m.reads)
    if (r.threads < m.key.threads)
      print_roof(fmt::format("reads from memory, {} thread{}", r.threads, r.threads == 1 ? "" : "s"),
                 r.bytes_per_s * 1e-9, "GB/s", 0);
  for (const RoofField& field : roof_fields)
    if (m.roof.*field.value > 0)
      print_roof(field.label, m.roof.*field.value * 1e-9, field.unit, cached ? now.*field.value * 1e-9 : 0);
  print_roof("an empty parallel region", m.empty_region_us, "us", 0);
}

void print(const std::optional<Rate>& rate, double value, const char* unit) {
  if (rate) fmt::print("  {:>8.1f} {} {:>4.0f} %", value, unit, rate->percent_of_roof);
}

void print(const Findings& f) {
  print(f.machine.machine, f.machine.cached, f.now);
  fmt::print(
      "\nThe kernel of each format, op and level, and its rates where the level below has another: {} row of "
      "x "
      "(decoding)\nand {} (prompts) on a [{} x {}] weight that no cache holds, attention over {} and {} "
      "tokens, "
      "other ops on\n[{} x {}] numbers in cache; per cent of the level's roof measured in this run.\n\n",
      decode_rows, prefill_rows, layer_n, layer_k, decode_context, prefill_context, prefill_rows, layer_k);
  fmt::print("{:<12} {:<23} {:<8} {:<13} {:<22} {:<11} {:>20} {:>24}\n", "op", "format", "level", "support",
             "kernel", "packing", "decode", "prefill");
  std::string last;
  for (const Row& r : f.rows) {
    const bool first = std::exchange(last, r.op + r.format) != r.op + r.format;
    fmt::print("{:<12} {:<23} {:<8} {:<13} {:<22} {:<11}", first ? r.op : "", first ? r.format : "", r.level,
               to_string(r.support), r.kernel, r.packing);
    print(r.decode, r.decode ? r.decode->speed.gb_per_s() : 0, "GB/s");
    print(r.prefill, r.prefill ? r.prefill->speed.gflop_per_s() : 0, "GFLOP/s");
    fmt::print("\n");
  }
}

Json roof_json(const Roof& roof) {
  Json json = Json::object();
  for (const RoofField& field : roof_fields)
    if (roof.*field.value > 0) json[std::string(field.name)] = roof.*field.value;
  return json;
}

Json row_json(const Row& r, const char* phase, const std::optional<Rate>& rate, bool reads) {
  Json json = {{"op", r.op + " " + phase},        {"format", r.format}, {"level", r.level},
               {"support", to_string(r.support)}, {"kernel", r.kernel}, {"packing", r.packing}};
  if (!rate) return json;
  json[reads ? "gb_per_s" : "gflop_per_s"] = reads ? rate->speed.gb_per_s() : rate->speed.gflop_per_s();
  json["percent_of_roof"] = rate->percent_of_roof;
  json["error"] = rate->speed.error;
  json["hash"] = rate->speed.hash;
  return json;
}

Json to_json(const Findings& f) {
  const Machine& m = f.machine.machine;
  Json rows = Json::array();
  for (const Row& r : f.rows) {
    rows.push_back(row_json(r, "decode", r.decode, true));
    rows.push_back(row_json(r, "prefill", r.prefill, false));
  }
  Json json = to_json(m);
  json["machine"] = describe_machine(m.key.threads, allowed_features());
  json["cached"] = f.machine.cached;
  if (!f.machine.path.empty()) json["cache"] = f.machine.path.string();
  json["roof_now"] = roof_json(f.now);
  json["kernels"] = std::move(rows);
  return json;
}

void doctor_verb(const Options& o) {
  const Findings findings = examine(o);
  o.json ? print_json(to_json(findings)) : print(findings);
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb =
      add_verb(app, "doctor", "Measure this machine, and show which formats run natively on it and how fast",
               "--json");
  verb.add_flag("--fresh", o->fresh, "Measure the machine again, whatever the cache holds");
  add_threads(verb, o->threads);
  add_json(verb, o->json);
  verb.callback([o] { doctor_verb(*o); });
}

}  // namespace lathe
