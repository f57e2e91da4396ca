// lathe doctor: what this machine can do, and which formats and kernels get how much of it.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "cli/options.h"
#include "cli/verbs.h"
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
  std::optional<Rate> decode, prefill;  // where it is native, at the best level only
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

// One row per level; the last is the best and is timed.
std::vector<Row> examine_linear(KernelRunner& runner, const Numerics& format, const Roof& roof) {
  std::vector<Row> rows;
  FormatSupport best;
  for (const IsaLevel& level : allowed_levels()) {
    best = support_of(format, layer_n, layer_k, level.features);
    rows.push_back({.op = "linear",
                    .format = format_name(format),
                    .level = level.name,
                    .support = best.support,
                    .kernel = std::string(best.kernel ? best.kernel->name : ""),
                    .packing = std::string(best.kernel ? best.kernel->packing : ""),
                    .decode = {},
                    .prefill = {}});
  }
  if (best.support != Support::native) return rows;
  WeightCopies weights(format, packing(best.kernel->packing), layer_n, layer_k, runner);
  const auto time = [&](int64_t m) {
    return time_linear(runner, *best.kernel, weights, m, timing_seconds, timing_calls);
  };
  rows.back().decode = decode_rate(time(decode_rows), roof);
  rows.back().prefill =
      prefill_rate(time(prefill_rows), roof.*compute_roof(best.kernel->isa, best.kernel->path(true)).value);
  return rows;
}

std::vector<Row> examine_attention(KernelRunner& runner, const Roof& roof) {
  std::vector<Row> rows;
  for (const IsaLevel& level : allowed_levels())
    rows.push_back({.op = "attention",
                    .format = "f32 keys, values",
                    .level = level.name,
                    .support = Support::native,
                    .kernel = std::string(choose_attention(timed_head_dim, level.features).name),
                    .packing = {},
                    .decode = {},
                    .prefill = {}});
  const AttentionKernel& best = choose_attention(timed_head_dim, allowed_features());
  const auto time = [&](int64_t m, int64_t context) {
    return time_attention(runner, best, m, context, timing_seconds, timing_calls);
  };
  rows.back().decode = decode_rate(time(decode_rows, decode_context), roof);
  rows.back().prefill = prefill_rate(time(prefill_rows, prefill_context), roof.f32_flops_per_s);
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
  Progress progress("measuring", machine_steps(key.threads) + std::ssize(formats) + 2);
  Findings f;
  f.machine = load_machine(cache_directory(), key, o.fresh, [&] {
    return measure_machine(key.threads, isa, [&](std::string_view what) { progress.advance(1, what); });
  });
  f.now = f.machine.cached ? measure_roof(key.threads, isa) : f.machine.machine.roof;
  progress.advance(f.machine.cached ? machine_steps(key.threads) + 1 : 1, "roofs");
  KernelRunner runner(key.threads, bytes_beyond_caches());
  const auto add = [&](std::vector<Row> rows) {
    progress.advance(1, rows.back().format);
    std::move(rows.begin(), rows.end(), std::back_inserter(f.rows));
  };
  for (const Numerics& format : formats) add(examine_linear(runner, format, f.now));
  add(examine_attention(runner, f.now));
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
      "\nThe kernel of each format and level. Rates of the best level: {} rows of x (decoding) and {} "
      "(prompts) "
      "on a\n[{} x {}] weight that no cache holds, attention over {} and {} tokens; per cent of the roof "
      "measured "
      "in this run.\n\n",
      decode_rows, prefill_rows, layer_n, layer_k, decode_context, prefill_context);
  fmt::print("{:<10} {:<23} {:<7} {:<13} {:<18} {:<11} {:>20} {:>24}\n", "op", "format", "level", "support",
             "kernel", "packing", "decode", "prefill");
  std::string last;
  for (const Row& r : f.rows) {
    const bool first = std::exchange(last, r.op + r.format) != r.op + r.format;
    fmt::print("{:<10} {:<23} {:<7} {:<13} {:<18} {:<11}", first ? r.op : "", first ? r.format : "", r.level,
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
