#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <cstdio>

namespace lathe {

CLI::App& add_verb(CLI::App& app, const std::string& name, const std::string& description,
                   const std::string& example) {
  CLI::App* verb = app.add_subcommand(name, description);
  verb->footer("Example:\n  lathe " + name + " " + example);
  return *verb;
}

void add_model(CLI::App& verb, std::string& model) {
  verb.add_option("MODEL", model, "A Hugging Face directory, a .gguf file, or `builtin`")->required();
}

void add_output(CLI::App& verb, std::string& output) {
  verb.add_option("-o,--output", output, "The directory to write; it appears complete or not at all")
      ->required();
}

void add_json(CLI::App& verb, bool& json) {
  verb.add_flag("--json", json, "Print one JSON object on stdout");
}

void add_threads(CLI::App& verb, int& threads) {
  verb.add_option("--threads", threads, "Threads to use; 0 takes the physical cores")
      ->check(CLI::Range(0, 1024));
}

void add_seed(CLI::App& verb, uint64_t& seed) {
  verb.add_option("--seed", seed, "Seed of everything random");
}

void add_max_tokens(CLI::App& verb, int64_t& max_tokens, const std::string& what) {
  verb.add_option("-n,--max-tokens", max_tokens, what)->check(CLI::NonNegativeNumber);
}

OpenModel open_model(const std::string& name) {
  Checkpoint checkpoint = Checkpoint::open(resolve_model(name));
  Model model = load(checkpoint);
  return {std::move(checkpoint), std::move(model)};
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
  for (const auto& [name, weight] : model.weights) n += elements(weight.shape);
  return n;
}

double bits_per_weight(const Model& model) {
  return 8 * static_cast<double>(model.bytes()) /
         static_cast<double>(std::max<int64_t>(parameter_count(model), 1));
}

}  // namespace lathe
