// lathe eval: perplexity on a text, and how far the model moved from its base.
#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <optional>

#include "cli/options.h"
#include "cli/verbs.h"
#include "compress/steps.h"
#include "eval/dataset.h"
#include "eval/report.h"
#include "kernels/tables.h"
#include "runtime/kv_type.h"
#include "text/tokenizer.h"

namespace lathe {
namespace {

struct Options {
  std::string model, base, text;
  int64_t context = 256, max_tokens = 0;
  std::optional<KvType> kv;
  int threads = 0;
  bool json = false;
};

int64_t vocabulary(const Model& model) { return model.graph.value(model.graph.output()).cols; }

void require_context(const Model& model, const std::string& name, int64_t context) {
  if (context > model.max_context())
    throw input_error("--context", fmt::format("at most {}, the context of {}", model.max_context(), name),
                      std::to_string(context));
}

void print(const Quality& q) {
  fmt::print("perplexity      {:.4f} +- {:.4f} over {} tokens\n", q.perplexity, q.perplexity_stderr,
             q.tokens);
  if (q.tokens_compared == 0) return;
  fmt::print("KL(base||model) {:.6f} +- {:.6f} nats per token; 99 % of tokens are below {:.6f}\n", q.kl_mean,
             q.kl_stderr, q.kl_p99);
  fmt::print("KL(model||base) {:.6f}\n", q.kl_reverse_mean);
  fmt::print("top-1 agreement {:.2f} %\n", 100 * q.top1_agreement);
}

void eval_verb(const Options& o) {
  const auto start = std::chrono::steady_clock::now();
  const OpenModel opened = open_model(o.model);
  require_context(opened.model, o.model, o.context);
  const Text text = read_text(o.text, load_tokenizer(opened.checkpoint), o.max_tokens);

  require_not_calibrated_on(opened.checkpoint.path(), text, load_tokenizer(opened.checkpoint));
  std::optional<OpenModel> base;
  std::optional<Plan> base_plan;
  if (!o.base.empty()) {
    base = open_model(o.base);
    require_context(base->model, o.base, o.context);
    if (vocabulary(base->model) != vocabulary(opened.model))
      throw input_error(o.base,
                        fmt::format("the vocabulary of {}: {} tokens", o.model, vocabulary(opened.model)),
                        std::to_string(vocabulary(base->model)), "compare models with one tokenizer");
    base_plan =
        Plan::compile(base->model, {.threads = o.threads, .max_tokens = o.context, .max_outputs = o.context});
  }
  tell_kv(opened.model, o.kv);
  Plan plan = Plan::compile(
      opened.model, {.threads = o.threads, .max_tokens = o.context, .max_outputs = o.context, .kv = o.kv});
  const Quality quality = evaluate(plan, text.tokens, {.context = o.context, .progress = "evaluating"},
                                   base_plan ? &*base_plan : nullptr);
  if (!o.json) return print(quality);

  Json json = to_json(quality);
  json["model"] = o.model;
  if (base) json["against"] = o.base;
  json["text"] = {{"path", text.path}, {"sha256", text.sha256}, {"tokens", text.tokens.size()}};
  json["context"] = o.context;
  json["kv_dtype"] = kv_type_names[static_cast<size_t>(kv_type_of(opened.model.graph, o.kv))];
  json["threads"] = plan.threads();
  json["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  print_json(json);
}

}  // namespace

void add_eval(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(
      app, "eval", "Measure perplexity on a text and, with --against, the distance from a base model",
      "/tmp/builtin-w4 --against builtin --text book.txt --json");
  add_model(verb, o->model);
  verb.add_option("--against", o->base, "The base model to compare with");
  verb.add_option("--text", o->text, "UTF-8 text that neither training nor calibration has seen")->required();
  verb.add_option("--context", o->context, "Tokens of a window; its first token is not scored")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  add_max_tokens(verb, o->max_tokens, "Read at most so many tokens of the text; 0: all");
  add_kv_dtype(verb, o->kv);
  add_threads(verb, o->threads);
  add_json(verb, o->json);
  verb.callback([o] { eval_verb(*o); });
}

}  // namespace lathe
