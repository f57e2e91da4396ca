#include "cli/apply.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <future>
#include <ranges>

#include "cli/output.h"
#include "compress/matrices.h"
#include "compress/save.h"
#include "core/leftovers.h"
#include "core/log.h"

namespace lathe {
namespace {

std::vector<ModuleRow> list_modules(const Model& before, const Model& after, const Reasons& why) {
  std::vector<ModuleRow> rows;
  for (const auto& [param, matrix] : matrices(after.graph)) {
    const auto old = before.weights.find(param);
    ModuleRow row{
        .module = module_path(param),
        .before = to_string((old == before.weights.end() ? after : before).weights.at(param).numerics),
        .after = to_string(after.weights.at(param).numerics),
        .why = {}};
    const auto decided = why.find(param);
    row.why = decided != why.end() ? decided->second : row.before == row.after ? "as it is" : "default";
    rows.push_back(std::move(row));
  }
  return rows;
}

// How many modules each reason gave which format.
void print_reasons(const std::vector<ModuleRow>& modules) {
  std::map<std::pair<std::string, std::string>, int64_t> counts;
  for (const ModuleRow& m : modules) ++counts[{m.why, m.after}];
  fmt::print("{:<18} {:>8}  {}\n", "format", "matrices", "decided by");
  for (const auto& [key, n] : counts) fmt::print("{:<18} {:>8}  {}\n", key.second, n, key.first);
}

// The layers that lost most, and those that fell back, by name up to a number.
void print_layers(std::vector<LayerReport> layers) {
  std::ranges::stable_sort(layers, std::greater(), &LayerReport::error);
  constexpr size_t most = 8;
  for (const LayerReport& l : layers | std::views::take(most)) {
    fmt::print("{:<44} {:<14} ", l.module, to_string(l.numerics));
    if (l.error)
      fmt::print("output error {:>8.4f} % (to nearest {:>8.4f} %) ", 100 * *l.error, 100 * l.nearest_error);
    fmt::print("{}\n", l.note);
  }
  const auto fallen = std::ranges::count(layers, true, &LayerReport::fell_back);
  if (fallen == 0) return;
  fmt::print("{} of {} layers fell back:\n", fallen, layers.size());
  size_t named = 0;
  for (const LayerReport& l : layers)
    if (l.fell_back && named++ < most) fmt::print("  {:<42} {}\n", l.module, l.note);
  if (named > most) fmt::print("  and {} more: --json names them all\n", named - most);
}

double bits(size_t bytes, int64_t parameters) {
  return 8 * static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(parameters, 1));
}

}  // namespace

void add_online_rotations(CLI::App& verb, Rotations& r) {
  verb.add_flag(
      "--r3", r.keys,
      "Also a Hadamard transform of queries and keys, per head, as the model runs: for a KV cache of\n"
      "few bits");
  verb.add_flag(
      "--r4", r.products,
      "Also one of the inputs of down_proj, as the model runs; its inverse is folded into the weights");
}

Rotations rotations_of(const std::string& which, const Rotations& online, uint64_t seed) {
  const bool both = which == "both";
  return {.residual = both || which == "residual",
          .heads = both || which == "heads",
          .seed = seed,
          .keys = online.keys,
          .products = online.products};
}

Applied apply(Recipe recipe, const OpenModel& from, const fs::path& output, int threads) {
  const auto start = std::chrono::steady_clock::now();
  keep_apart(output, {from.checkpoint.path()});  // before anything is computed
  // Beside everything that does not need it: of 1B parameters a second, all on one core.
  const std::shared_future<std::string> source_hash =
      std::async(std::launch::async, [&from] { return hash_of(from.model); });
  const auto checked_source = [&source_hash, model = recipe.model, expected = recipe.source_hash] {
    if (!expected.empty() && expected != source_hash.get())
      throw input_error(model, fmt::format("weights with hash {}", expected), source_hash.get(),
                        "the recipe was made for another model");
    return source_hash.get();
  };
  Model model = from.model;
  const fs::path work = beside(output, "sweep");  // where a killed run leaves its finished blocks
  const StepsResult steps =
      run_steps(model, recipe, from.checkpoint, checked_source, {.work = work, .threads = threads});
  OutputDirectory directory(output, {from.checkpoint.path()});
  Applied applied;
  if (!steps.left.empty()) {
    applied.forecast = forecast_rounding(model, steps.left, steps.scales, threads);
    const RoundingForecast& f = *applied.forecast;
    info("rounding {} matrices: about {:.1f} s of computing, at most {} of memory; {} to read, {} to write",
         steps.left.size(), f.seconds, human_bytes(static_cast<double>(f.memory)),
         human_bytes(static_cast<double>(f.bytes_read)), human_bytes(static_cast<double>(f.bytes_written)));
  }
  const std::string hash = save(model, from.checkpoint, steps.left, steps.scales, directory.path(), threads);
  recipe.source_hash = checked_source();
  if (!recipe.result_hash.empty() && recipe.result_hash != hash)
    fail("{}: expected weights with hash {}, made {}; nothing was written", output.string(),
         recipe.result_hash, hash);
  recipe.result_hash = hash;
  fs::create_directories(directory.path() / "lathe");
  FileWriter(directory.path() / "lathe" / "recipe.yaml").write(to_yaml(recipe));

  // What was written must open again as exactly what was meant. Meanwhile the disk takes it.
  {
    const Model written = load(Checkpoint::open(directory.path()));
    std::future<std::string> found = std::async(std::launch::async, [&] { return hash_of(written); });
    applied.formats = compare_formats(from.model, written, !steps.transformed, threads);
    if (found.get() != hash)
      fail("{}: self-check: what was written is read back as something else; nothing was kept",
           output.string());
    applied.modules = list_modules(from.model, written, steps.why);
    applied.by_policy = !steps.why.empty();
    applied.parameters = parameter_count(written);
    applied.bytes_after = written.bytes();
  }
  directory.commit();
  std::error_code ignored;
  fs::remove_all(work, ignored);
  applied.layers = steps.layers;
  applied.bytes_before = from.model.bytes();
  applied.parameters_before = parameter_count(from.model);
  applied.recipe = std::move(recipe);
  applied.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return applied;
}

void print(const Applied& a, const fs::path& output) {
  fmt::print("{:<18} {:<18} {:>8} {:>10} {:>11} {:>11} {:>10}\n", "before", "after", "tensors", "parameters",
             "bytes", "bytes", "SNR dB");
  for (const FormatRow& row : a.formats)
    fmt::print("{:<18} {:<18} {:>8} {:>10} {:>11} {:>11} {:>10}\n", row.before, row.after, row.matrices,
               human_count(static_cast<double>(row.parameters)),
               human_bytes(static_cast<double>(row.bytes_before)),
               human_bytes(static_cast<double>(row.bytes_after)),
               row.snr_db == 0 ? "same" : fmt::format("{:.1f}", row.snr_db));
  fmt::print("{:<37} {:>8} {:>10} {:>11} {:>11}\n", "total", "",
             human_count(static_cast<double>(a.parameters)), human_bytes(static_cast<double>(a.bytes_before)),
             human_bytes(static_cast<double>(a.bytes_after)));
  if (a.by_policy) print_reasons(a.modules);
  print_layers(a.layers);
  fmt::print("bits per weight: {:.3f} -> {:.3f}\n", bits(a.bytes_before, a.parameters_before),
             bits(a.bytes_after, a.parameters));
  fmt::print("wrote {} in {:.1f} s; hash {}\n", output.string(), a.seconds, a.recipe.result_hash);
}

Json to_json(const Applied& a, const fs::path& output) {
  Json formats = Json::array();
  for (const FormatRow& row : a.formats) {
    Json item = {{"before", row.before},
                 {"after", row.after},
                 {"tensors", row.matrices},
                 {"parameters", row.parameters},
                 {"bytes_before", row.bytes_before},
                 {"bytes_after", row.bytes_after}};
    if (row.snr_db != 0) item["weight_snr_db"] = row.snr_db;
    formats.push_back(std::move(item));
  }
  Json modules = Json::array();
  for (const ModuleRow& m : a.modules)
    modules.push_back(
        {{"module", m.module}, {"before", m.before}, {"after", m.after}, {"decided_by", m.why}});
  Json layers = Json::array();
  for (const LayerReport& l : a.layers) {
    Json layer = {{"module", l.module},
                  {"format", to_string(l.numerics)},
                  {"fell_back", l.fell_back},
                  {"note", l.note}};
    if (l.error) {
      layer["output_error"] = *l.error;
      layer["output_error_to_nearest"] = l.nearest_error;
    }
    layers.push_back(std::move(layer));
  }
  Json steps = Json::array();
  for (const auto& [name, arguments] : a.recipe.steps) steps.push_back({{name, arguments}});
  Json json = {{"output", output.string()},
               {"steps", std::move(steps)},
               {"modules", std::move(modules)},
               {"layers", std::move(layers)},
               {"parameters", a.parameters},
               {"bytes_before", a.bytes_before},
               {"bytes_after", a.bytes_after},
               {"bits_per_weight_before", bits(a.bytes_before, a.parameters_before)},
               {"bits_per_weight_after", bits(a.bytes_after, a.parameters)},
               {"formats", std::move(formats)},
               {"source_hash", a.recipe.source_hash},
               {"result_hash", a.recipe.result_hash},
               {"seconds", a.seconds}};
  if (a.forecast)
    json["forecast"] = {{"seconds", a.forecast->seconds},
                        {"memory_bytes", a.forecast->memory},
                        {"bytes_read", a.forecast->bytes_read},
                        {"bytes_written", a.forecast->bytes_written}};
  return json;
}

}  // namespace lathe
