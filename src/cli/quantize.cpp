// lathe quantize: round every linear layer's weights to fewer bits and write the model.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/apply.h"
#include "cli/verbs.h"
#include "compress/builtin_recipes.h"
#include "compress/method.h"
#include "core/error.h"
#include "core/log.h"

namespace lathe {
namespace {

struct Options {
  std::string model, output, scheme = "w8a16", method = "rtn", scale_search = "mse", observer = "minmax";
  int group_size = -1, threads = 0;
  bool asymmetric = false, json = false;
  uint64_t seed = 0;
  Selection selection;
  CalibrationText text;
  std::string rotate = "none", fused = "error", recipe, target = "balanced", mx_rule{mx_rule_names[0]};
  std::vector<std::string> policies;
  Rotations online;
  std::string cache = "none";
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

// What is kept stays so whatever else matches it. Where a scheme is the only rule, assign_all() leaves it
// out.
std::vector<Policy> policies_of(const Options& o) {
  std::vector<Policy> policies;
  for (const std::string& text : o.policies) policies.push_back(parse_policy(text));
  if (!policies.empty() || !o.recipe.empty())
    for (const std::string& glob : o.selection.keep) policies.push_back({glob, "keep"});
  return policies;
}

QuantizeStep step_of(const Options& o, const Model& shape) {
  if (!o.recipe.empty()) {
    QuantizeStep step = recipe_step(shape, o.recipe, o.target, o.text);
    for (Policy& policy : policies_of(o)) step.policies.push_back(std::move(policy));
    step.fused = parse_fused(o.fused, "--fused");
    return step;
  }
  const Numerics numerics = parse_scheme(o.scheme, o.group_size, o.asymmetric, scale_dtype(shape.config));
  QuantizeStep step{.assignment = assign_all(shape, numerics, o.selection),
                    .scales = {o.scale_search == "mse" ? ScaleSearch::mse : ScaleSearch::absmax,
                               parse_mx_rule(o.mx_rule, "--mx-rule")},
                    .method = o.method,
                    .text = {},
                    .policies = policies_of(o),
                    .fused = parse_fused(o.fused, "--fused")};
  Assignment assignment = step.assignment;
  apply_policies(shape, step.policies, step.fused, "--policy", assignment);
  warn_about(shape, assignment, o);
  const bool finds = finds_input_scales(assignment), reads = finds || parse_method(o.method).needs_text();
  if (reads && o.text.path.empty())
    throw input_error("--calibration",
                      fmt::format("a text, which {} looks at",
                                  finds ? "a static scale of activations" : "method " + o.method),
                      "none");
  if (!reads && o.cache == "none" && !o.text.path.empty())
    warn("method {} does not look at the calibration text", o.method);
  if (!finds && o.observer != step.observer)
    warn("nothing has a static scale of activations: --observer changes nothing");
  if (step.scales.mx != MxRule::by_search && !has_mx_blocks(assignment))
    warn("nothing is in MXFP4 or MXFP8: --mx-rule changes nothing");
  if (reads) step.text = o.text;
  step.observer = o.observer;
  return step;
}

void quantize_verb(const Options& o) {
  if (o.cache != "none" && o.text.path.empty())
    throw input_error("--calibration", "a text, by which --kv-cache finds its scales", "none");
  const OpenModel from = open_model(o.model);
  Recipe recipe{.model = o.model, .source_hash = {}, .result_hash = {}, .seed = o.seed, .steps = {}};
  Model shape = from.model;  // parameters as the quantize step will find them
  const Rotations rotations = rotations_of(o.rotate, o.online, o.seed);
  if (rotations.any()) {
    recipe.steps.emplace_back("rotate", rotate_step(rotations));
    rotate(shape, rotations, o.threads);
  }
  recipe.steps.emplace_back("quantize", quantize_step(shape, step_of(o, shape)));
  for (const CacheNumerics n : calibrated_cache_numerics)
    if (to_string(n) == o.cache) recipe.steps.emplace_back("kv_cache", cache_step({n, o.text}));
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
  std::vector<std::string> targets(std::begin(recipe_targets), std::end(recipe_targets));
  CLI::Option* recipe = verb.add_option(
      "--recipe", o->recipe,
      fmt::format(
          "A built-in recipe instead of scheme and method: auto (by architecture, size, target and whether\n"
          "there is a calibration text; says why), {}",
          fmt::join(recipe_names(), ", ")));
  verb.add_option("--target", o->target, "What --recipe auto looks for")
      ->check(CLI::IsMember(targets))
      ->needs(recipe)
      ->capture_default_str();
  verb.add_option(
          "--scheme", o->scheme,
          "Bits of weights and activations: w2a16 ... w8a16, w2a8 ... w8a8 (activations per token),\n"
          "w2a8-static ... w8a8-static (one scale per layer, from the calibration text); floats: fp8\n"
          "(per channel), fp8-tensor, fp8-block, nvfp4, mxfp4, mxfp8; nf4 (written for bitsandbytes);\n"
          "floats of weights and activations: w8a8-fp8 (FP8_DYNAMIC: per channel, per token),\n"
          "w8a8-fp8-static (FP8: per tensor, a scale per layer from the text), w8a8-fp8-block\n"
          "(FP8_BLOCK), w8a8-mxfp8, w4a4-mxfp4, w4a4-nvfp4 (with the text), w4a8-fp8 (W4AFP8)")
      ->capture_default_str();
  verb.add_option(
          "--group-size", o->group_size,
          "Weights of a row that share a scale; 0: the whole row; -1: 0 for 8 bits, 64 for nf4, else 128")
      ->capture_default_str();
  verb.add_flag("--asymmetric,!--symmetric", o->asymmetric, "A zero point per group, or (default) none");
  verb.add_option("--method", o->method, "How: " + method_names() + "; joined by +")
      ->check([](const std::string& method) -> std::string {
        try {
          parse_method(method);
          return "";
        } catch (const InputError& e) {
          return e.what();
        }
      })
      ->capture_default_str();
  std::vector<std::string> caches = {"none"};
  for (const CacheNumerics n : calibrated_cache_numerics) caches.emplace_back(to_string(n));
  verb.add_option(
          "--kv-cache", o->cache,
          "Also what keys and values are, in the cache of whoever runs the model: one scale of each per\n"
          "layer, from the calibration text; int8 and nvfp4 are Lathe's and ModelOpt's, fp8 everybody's")
      ->check(CLI::IsMember(caches))
      ->capture_default_str();
  std::vector<std::string> observers;
  std::string what = "How large a static scale of activations reaches:";
  for (const InputObserver& each : input_observers()) {
    observers.emplace_back(each.name);
    what += fmt::format("\n{}: {}", each.name, each.summary);
  }
  verb.add_option("--observer", o->observer, what)->check(CLI::IsMember(observers))->capture_default_str();
  verb.add_option("--calibration", o->text.path, "UTF-8 text that the method looks at");
  verb.add_option("--calibration-tokens", o->text.max_tokens,
                  "Tokens of it that are used, from its beginning; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--context", o->text.context, "Tokens of a calibration sequence")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  verb.add_option("--rotate", o->rotate, "Rotate first: the residual stream, the value heads, both, or none")
      ->check(CLI::IsMember({"none", "residual", "heads", "both"}))
      ->capture_default_str();
  add_online_rotations(verb, o->online);
  verb.add_option("--scale-search", o->scale_search,
                  "mse: the scale of least squared error; absmax: the largest magnitude")
      ->check(CLI::IsMember({"mse", "absmax"}))
      ->capture_default_str();
  std::vector<std::string> rules(std::begin(mx_rule_names), std::end(mx_rule_names));
  verb.add_option(
          "--mx-rule", o->mx_rule,
          "The exponent of a block in MXFP4 and MXFP8, whose largest weight is m: floor (OCP's: of m),\n"
          "even (compressed-tensors': of m rounded to the format's mantissa), ceil (m rounded up to a\n"
          "power of two), rceil (ModelOpt's: the least that holds m), or search: by --scale-search,\n"
          "mse the better of floor and the next, absmax even")
      ->check(CLI::IsMember(rules))
      ->capture_default_str();
  verb.add_flag("--head", o->selection.head,
                "Also the output head (and the embedding, where they are one table)");
  verb.add_flag("--embeddings", o->selection.embeddings, "Also the embedding");
  verb.add_option("--keep", o->selection.keep,
                  "Leave modules that match this glob as they are; may be repeated");
  verb.add_option(
      "--policy", o->policies,
      "GLOB=FORMAT: every matrix whose module matches gets that format, the head and the embedding\n"
      "too; FORMAT is keep, bf16, f16, f32 or a scheme, with :gN for its groups and :asym for zero\n"
      "points, as in '*.mlp.*=w4a16:g32'; may be repeated, the last that matches decides");
  std::vector<std::string> modes(std::begin(fused_names), std::end(fused_names));
  verb.add_option(
          "--fused", o->fused,
          "Where policies give layers that read one input (q, k, v; gate, up) several formats: stop with\n"
          "an error, promote them to the widest, or leave them apart (other runtimes may not load that)")
      ->check(CLI::IsMember(modes))
      ->capture_default_str();
  for (const char* other : {"--scheme", "--group-size", "--asymmetric", "--method", "--observer",
                            "--scale-search", "--mx-rule", "--head", "--embeddings"})
    verb.get_option(other)->excludes(recipe);
  add_threads(verb, o->threads);
  add_seed(verb, o->seed);
  add_json(verb, o->json);
  verb.callback([o] { quantize_verb(*o); });
}

}  // namespace lathe
