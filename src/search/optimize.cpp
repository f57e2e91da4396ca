#include "search/optimize.h"

#include <chrono>

#include "compress/recipe.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "search/page.h"

namespace lathe {
namespace {

struct Texts {
  Text calibration, held_out;
};

Texts read_texts(const OptimizeOptions& o, const Checkpoint& checkpoint) {
  const Tokenizer tokenizer = load_tokenizer(checkpoint);
  Texts texts;
  if (o.evaluation.empty()) {
    // Twice as much to search on as to judge by: the search looks at its part many times.
    std::tie(texts.calibration, texts.held_out) = split_text(o.calibration, tokenizer, 2.0 / 3);
  } else {
    texts.calibration = read_text(o.calibration, tokenizer);
    texts.held_out = read_text(o.evaluation, tokenizer);
  }
  require_held_out(texts.calibration, texts.held_out);
  return texts;
}

// The model with every weight as the output would store it, so that what is measured is what will be written.
Model as_written(Model model) {
  for (auto& [name, weight] : model.weights) {
    const Numerics& own = weight.numerics;
    if (own.is_dense()) continue;
    if (!storage_packing(own).holds(own) || (own.group > 0 && weight.cols() % own.group != 0))
      throw input_error(name, "floating point, or integers that compressed-tensors stores", to_string(own),
                        "optimize the model that this one was made from");
    weight = repack(weight, storage_packing(own));
  }
  return model;
}

// What was written must open again as exactly what was measured.
void check_written(const fs::path& directory, const std::string& hash, const Model& measured) {
  if (const std::string found = hash_of(measured); found != hash)
    fail("self-check: measured a model with hash {}, wrote one with {}; nothing was kept", found, hash);
  if (const std::string found = hash_of(load(Checkpoint::open(directory))); found != hash)
    fail("self-check: wrote a model with hash {}, read one with {}; nothing was kept", hash, found);
}

}  // namespace

fs::path journal_path(const std::string& output) {
  fs::path path = output;
  if (!path.has_filename()) path = path.parent_path();
  path += ".study";
  return path / "journal.sqlite";
}

Optimized optimize(const OptimizeOptions& o, const Checkpoint& checkpoint, const Model& model,
                   const fs::path& directory) {
  const auto start = std::chrono::steady_clock::now();
  Constraints constraints = o.constraints;
  if (!constraints.bounds_quality() && !constraints.bounds_resources()) {
    constraints.max_ppl_increase = 0.01;
    info("no limit is given: the perplexity may rise by 1 %");
  }
  Texts texts = read_texts(o, checkpoint);
  const std::string source_hash = hash_of(model);
  const Model base = as_written(model);
  std::vector<Format> menu = format_menu(scale_dtype(model.config), {o.study.target.isa, o.emulated});
  std::vector<Unit> units = find_units(base, menu);
  Study study(base, std::move(units), std::move(menu), o.study, texts.calibration, texts.held_out,
              source_hash, journal_path(o.output));
  if (study.resumed() > 0)
    info("resumed {} trials from {}", study.resumed(), journal_path(o.output).string());

  const SearchResult result = search(study, constraints, o.max_trials);
  const Trial& chosen = result.trials[result.chosen];

  Recipe recipe{.model = o.model,
                .source_hash = source_hash,
                .result_hash = {},
                .seed = study.options().seed,
                .steps = {}};
  const Assignment formats = assignment(study.units(), study.menu(), chosen.choice);
  recipe.steps.emplace_back(
      "quantize",
      quantize_step(model, {.assignment = formats, .scales = study.options().scale_search, .text = {}}));
  recipe.result_hash = save(model, checkpoint, formats, study.options().scale_search, directory,
                            study.options().target.threads);
  check_written(directory, recipe.result_hash, study.build(chosen.choice));

  ReportContext context{
      .model = o.model,
      .output = o.output,
      .source_hash = source_hash,
      .result_hash = recipe.result_hash,
      .calibration = std::move(texts.calibration),
      .held_out = std::move(texts.held_out),
      .split = o.evaluation.empty(),
      .seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
  Optimized out{.met = result.met,
                .headline = headline(result),
                .table = terminal_table(result),
                .report = make_report(study, result, constraints, context)};
  fs::create_directories(directory / "lathe");
  write_file_atomically(directory / "lathe" / "recipe.yaml", to_yaml(recipe));
  write_file_atomically(directory / "lathe" / "report.json",
                        out.report.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  write_file_atomically(directory / "lathe" / "report.html", report_page(out.report));
  return out;
}

}  // namespace lathe
