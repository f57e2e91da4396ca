#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "core/cache_directory.h"
#include "core/log.h"
#include "kernels/tables.h"
#include "models/kv_cache.h"
#include "models/low_rank.h"
#include "runtime/kv_type.h"
#include "runtime/tune.h"

namespace lathe {

CLI::App& add_verb(CLI::App& app, const std::string& name, const std::string& description,
                   const std::string& example) {
  CLI::App* verb = app.add_subcommand(name, description);
  verb->footer("Example:\n  lathe " + name + " " + example);
  return *verb;
}

CLI::Option& add_model(CLI::App& verb, std::string& model) {
  return *verb.add_option("MODEL", model, "A Hugging Face directory, a .gguf file, or `builtin`")->required();
}

void add_output(CLI::App& verb, std::string& output) {
  verb.add_option("-o,--output", output,
                  "What to write, a directory or (GGUF) a file; it appears complete or not at all")
      ->required();
}

void add_json(CLI::App& verb, bool& json) {
  verb.add_flag("--json", json, "Print one JSON object on stdout");
}

void add_threads(CLI::App& verb, int& threads) {
  verb.add_option("--threads", threads, "Threads to use; 0 takes the physical cores")
      ->check(CLI::Range(0, 1024));
}

void add_kv_dtype(CLI::App& verb, std::optional<KvType>& kv) {
  const std::vector<std::string> names(std::begin(kv_type_names), std::end(kv_type_names));
  verb.add_option_function<std::string>(
          "--kv-dtype",
          [&kv, names](const std::string& name) {
            kv = static_cast<KvType>(std::find(names.begin(), names.end(), name) - names.begin());
          },
          "How keys and values are held; without it as the model says, f32 where it says nothing")
      ->check(CLI::IsMember(names));
}

void tell_kv(const Model& model, std::optional<KvType> asked) {
  const KvType own = kv_type_of(model.graph), chosen = asked.value_or(own);
  const auto name = [](KvType type) { return kv_type_names[static_cast<size_t>(type)]; };
  if (chosen != own && own != KvType::f32)
    warn("--kv-dtype {}: keys and values are held so, not in the model's own {}", name(chosen), name(own));
  else if (own != KvType::f32)
    info("keys and values are held in {}, as the model says", name(own));
}

void add_seed(CLI::App& verb, uint64_t& seed) {
  verb.add_option("--seed", seed, "Seed of everything random");
}

void add_max_tokens(CLI::App& verb, int64_t& max_tokens, const std::string& what) {
  verb.add_option("-n,--max-tokens", max_tokens, what)->check(CLI::NonNegativeNumber);
}

OpenModel open_model(const std::string& name) {
  const fs::path path = resolve_model(name);
  PackedCache cache{.folder = packed_cache_folder(path),
                    .source = identity_of(path)};  // before it is read: it may change
  Checkpoint checkpoint = Checkpoint::open(path);
  Model model = load(checkpoint);
  return {std::move(checkpoint), std::move(model), std::move(cache)};
}

void add_plan_options(CLI::App& verb, PlanOptions& o) {
  add_threads(verb, o.threads);
  verb.add_option("--prefill-threads", o.prefill_threads, "Threads for prompts; 0 takes as many as --threads")
      ->check(CLI::Range(0, 1024));
  verb.add_flag(
      "--tune", o.tune,
      "Measure which kernels, threads and chunks are fastest for this model here, and keep the result");
  verb.add_flag("!--no-packed-cache", o.packed_cache,
                "Keep no file of packed weights (MODEL/lathe/packed) for the next start");
}

int64_t apply(const PlanOptions& o, const OpenModel& opened, Target& target) {
  target.threads = o.threads;
  target.prefill_threads = o.prefill_threads;
  if (o.packed_cache) target.packed_cache = opened.packed_cache;
  if (o.tune) {
    info("tuning: this takes some seconds to a minute");
    target.tuning = tune(opened.model, target);
    store_tuning(cache_directory(), opened.model, target, *target.tuning);
  } else {
    target.tuning = load_tuning(cache_directory(), opened.model, target);
  }
  return target.tuning ? target.tuning->chunk : default_chunk;
}

void print_json(const Json& json) {
  const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace);
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

std::string human_bytes(double bytes) {
  for (const char* unit : {"B", "kB", "MB", "GB"}) {
    if (bytes < 1000) return fmt::format("{:.{}f} {}", bytes, unit[0] == 'B' ? 0 : 2, unit);
    bytes /= 1000;
  }
  return fmt::format("{:.2f} TB", bytes);
}

std::string human_count(double n) {
  for (const char* unit : {"", " k", " M"}) {
    if (n < 1000) return fmt::format("{:.{}f}{}", n, unit[0] ? 2 : 0, unit);
    n /= 1000;
  }
  return fmt::format("{:.2f} B", n);
}

int64_t parameter_count(const Model& model) {
  int64_t n = 0;
  for (const auto& [name, weight] : model.weights)
    if (!is_cache_scale(model.graph, name)) n += elements(weight.shape);
  return n - correction_weights(model.graph);
}

double bits_per_weight(const Model& model) {
  return 8 * static_cast<double>(model.bytes()) /
         static_cast<double>(std::max<int64_t>(parameter_count(model), 1));
}

}  // namespace lathe
