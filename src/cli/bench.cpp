// lathe bench: prefill and decode speed, beside what this machine can do at most.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/options.h"
#include "cli/verbs.h"
#include "eval/report.h"
#include "kernels/tables.h"
#include "runtime/kv_type.h"

namespace lathe {
namespace {

struct Options {
  std::string model;
  SpeedOptions speed;
  PlanOptions plan;
  bool json = false;
};

void print(const Speed& s) {
  const RoofField& compute = *s.prefill_roof;
  fmt::print("prefill  {:>9.1f} tokens/s  {:>5.1f} % of {:.1f} {} ({}, measured now)\n",
             s.prefill_tokens_per_s, s.prefill_percent_of_roof, s.roof.*compute.value * 1e-9, compute.unit,
             compute.label);
  fmt::print("decode   {:>9.1f} tokens/s  {:>5.1f} % of {:.1f} GB/s (reads, measured now)\n",
             s.decode_tokens_per_s, s.decode_percent_of_roof, s.roof.read_bytes_per_s * 1e-9);
  if (s.decode_percent_of_l3 > 0)
    fmt::print("{:29}{:>5.1f} % of {:.1f} GB/s (reads from the third-level cache, measured now)\n", "",
               s.decode_percent_of_l3, s.roof.l3_bytes_per_s * 1e-9);
  fmt::print(
      "first token after {:.1f} ms; {} prompt tokens, {} generated, batch {}, {} threads ({} for prompts)\n",
      s.ttft_ms, s.prompt_tokens, s.gen_tokens, s.batch, s.threads, s.prefill_threads);
  fmt::print("memory: {} for the model (weights, KV, arena), {} for the process at its peak\n",
             human_bytes(static_cast<double>(s.model_memory_bytes)),
             human_bytes(static_cast<double>(s.peak_memory_bytes)));
  fmt::print("logits {}\n", s.logits_hash);
  if (s.fits_cache)
    fmt::print(
        "note: the weights fit the last-level cache ({}), which is faster than memory: decoding may exceed "
        "100 %\n",
        human_bytes(static_cast<double>(last_level_cache_bytes())));
}

void bench_verb(const Options& o) {
  const OpenModel opened = open_model(o.model);
  SpeedOptions options = o.speed;
  options.target.max_tokens = apply(o.plan, opened, options.target);
  tell_kv(opened.model, options.target.kv);
  const Speed speed = measure_speed(opened.model, options);
  if (!o.json) return print(speed);
  Json json = to_json(speed);
  json["model"] = o.model;
  json["kv_dtype"] = kv_type_names[static_cast<size_t>(kv_type_of(opened.model.graph, options.target.kv))];
  json["machine"] = describe_machine(speed.threads, o.speed.target.isa);
  print_json(json);
}

}  // namespace

void add_bench(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb =
      add_verb(app, "bench", "Measure prefill and decode speed, and their share of this machine's roof",
               "builtin --prompt-tokens 512 --gen-tokens 64 --json");
  add_model(verb, o->model).required(false);  // not of `bench serve`
  verb.add_option("--prompt-tokens", o->speed.prompt_tokens, "Tokens of the prompt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--gen-tokens", o->speed.gen_tokens, "Tokens generated after it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--batch", o->speed.batch, "Sequences decoded together")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb.add_option("--repeats", o->speed.repeats, "Timed passes, after one that warms up; the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add_kv_dtype(verb, o->speed.target.kv);
  add_plan_options(verb, o->plan);
  add_json(verb, o->json);
  add_bench_serve(verb);
  verb.callback([o, &verb] {
    if (!verb.get_subcommands().empty()) return;
    if (o->model.empty()) throw CLI::RequiredError("MODEL");
    bench_verb(*o);
  });
}

}  // namespace lathe
