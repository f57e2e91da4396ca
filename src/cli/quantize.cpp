// lathe quantize: round every linear layer's weights to fewer bits and write the model.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/apply.h"
#include "cli/verbs.h"
#include "core/log.h"

namespace lathe {
namespace {

struct Options {
  std::string model, output, scheme = "w8a16", method = "rtn", scale_search = "mse";
  int group_size = -1, threads = 0;
  bool asymmetric = false, json = false;
  uint64_t seed = 0;
  Selection selection;
};

void warn_about(const Model& model, const Assignment& assignment, const Options& o) {
  size_t again = 0;
  for (const auto& [param, numerics] : assignment) again += !model.weights.at(param).numerics.is_dense();
  if (again > 0)
    warn("{} of {} weights are quantized already; rounding them again adds error", again, assignment.size());
  const bool tied = get_bool_or(model.config, "tie_word_embeddings", "config.json", false);
  if (o.selection.embeddings && tied && !o.selection.head)
    warn("the embedding is tied to the head and stays as it is; --head quantizes both");
  if (assignment.empty()) warn("nothing is quantized: every matrix is kept");
}

void quantize_verb(const Options& o) {
  const OpenModel from = open_model(o.model);
  const Numerics numerics =
      parse_scheme(o.scheme, o.group_size, o.asymmetric, scale_dtype(from.model.config));
  const Assignment assignment = assign_all(from.model, numerics, o.selection);
  warn_about(from.model, assignment, o);
  const ScaleSearch search = o.scale_search == "mse" ? ScaleSearch::mse : ScaleSearch::absmax;
  const Recipe recipe{.model = o.model,
                      .source_hash = {},
                      .result_hash = {},
                      .seed = o.seed,
                      .steps = {{"quantize", quantize_step(from.model, assignment, search)}}};
  const Applied applied = apply(recipe, from, o.output, o.threads);
  o.json ? print_json(to_json(applied, o.output)) : print(applied, o.output);
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(app, "quantize",
                            "Round weights to integers or small floats and write a model that others open",
                            "builtin --scheme w4a16 --group-size 32 --asymmetric -o /tmp/builtin-w4");
  add_model(verb, o->model);
  add_output(verb, o->output);
  verb.add_option(
          "--scheme", o->scheme,
          "Bits of weights and activations: w2a16 ... w8a16, w8a8; floats: fp8 (per channel), fp8-tensor,\n"
          "fp8-block, nvfp4, mxfp4, mxfp8; nf4 (written for bitsandbytes)")
      ->capture_default_str();
  verb.add_option(
          "--group-size", o->group_size,
          "Weights of a row that share a scale; 0: the whole row; -1: 0 for 8 bits, 64 for nf4, else 128")
      ->capture_default_str();
  verb.add_flag("--asymmetric,!--symmetric", o->asymmetric, "A zero point per group, or (default) none");
  verb.add_option("--method", o->method, "rtn: round to nearest")
      ->check(CLI::IsMember({"rtn"}))
      ->capture_default_str();
  verb.add_option("--scale-search", o->scale_search,
                  "mse: the scale of least squared error; absmax: the largest magnitude")
      ->check(CLI::IsMember({"mse", "absmax"}))
      ->capture_default_str();
  verb.add_flag("--head", o->selection.head,
                "Also the output head (and the embedding, where they are one table)");
  verb.add_flag("--embeddings", o->selection.embeddings, "Also the embedding");
  verb.add_option("--keep", o->selection.keep,
                  "Leave modules that match this glob as they are; may be repeated");
  add_threads(verb, o->threads);
  add_seed(verb, o->seed);
  add_json(verb, o->json);
  verb.callback([o] { quantize_verb(*o); });
}

}  // namespace lathe
