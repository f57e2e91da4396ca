// lathe optimize: the main job. Limits in, a model that meets them out, with a report.
#include "search/optimize.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <memory>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/verbs.h"

namespace lathe {
namespace {

struct Options {
  OptimizeOptions job;
  std::string calibration, evaluation, max_ppl_increase, max_memory;
  std::optional<double> max_kl, min_decode, max_ttft;
  bool json = false;
};

Constraints constraints_of(const Options& o) {
  Constraints c;
  if (!o.max_ppl_increase.empty())
    c.max_ppl_increase = parse_percent(o.max_ppl_increase, "--max-ppl-increase");
  if (!o.max_memory.empty()) c.max_memory = parse_bytes(o.max_memory, "--max-memory");
  const std::pair<const char*, const std::optional<double>*> numbers[] = {
      {"--max-kl", &o.max_kl}, {"--min-decode", &o.min_decode}, {"--max-ttft", &o.max_ttft}};
  for (const auto& [flag, value] : numbers)
    if (*value && !std::isfinite(**value))
      throw input_error(flag, "a finite number", fmt::format("{}", **value));
  c.max_kl = o.max_kl;
  c.min_decode = o.min_decode;
  c.max_ttft = o.max_ttft;
  return c;
}

void optimize_verb(const Options& o) {
  OptimizeOptions job = o.job;
  job.calibration = o.calibration;
  job.evaluation = o.evaluation;
  job.constraints = constraints_of(o);
  const OpenModel from = open_model(job.model);
  OutputDirectory directory(job.output, {from.checkpoint.path()});
  const Optimized done = optimize(job, from.checkpoint, from.model, directory.path());
  directory.commit();
  if (o.json) {
    print_json(done.report);
  } else {
    fmt::print("\n{}\n{}\nwrote {}; the report is {}\n", done.table, done.headline, job.output,
               (fs::path(job.output) / "lathe" / "report.html").string());
    std::fflush(stdout);
  }
  if (!done.met) throw Error(done.headline + fmt::format("; {} holds it", job.output));
}

}  // namespace

void add_optimize(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb =
      add_verb(app, "optimize",
               "Find the best compressed model within your limits: the one of least KL that fits where "
               "memory or speed "
               "is limited, otherwise the smallest",
               "builtin --calibration notes.txt --max-ppl-increase 1.5 -o /tmp/builtin-optimized");
  add_model(verb, o->job.model);
  add_output(verb, o->job.output);
  verb.add_option("--calibration", o->calibration, "UTF-8 text to search on")->required();
  verb.add_option("--eval", o->evaluation,
                  "Text to judge by; without it the last third of the calibration text is held out");
  verb.add_option("--max-ppl-increase", o->max_ppl_increase,
                  "Per cent that the perplexity may rise; 1 when no limit is given");
  verb.add_option("--max-kl", o->max_kl, "Largest mean KL(base || model), nats per token")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--max-memory", o->max_memory,
                  "Packed weights, KV cache of --context tokens and activations: 12MB, 2.5GiB, ...");
  verb.add_option("--min-decode", o->min_decode, "Tokens per second that decoding must reach")
      ->check(CLI::PositiveNumber);
  verb.add_option("--max-ttft", o->max_ttft,
                  "Milliseconds until the first token of a prompt of --prompt-tokens")
      ->check(CLI::PositiveNumber);
  verb.add_option("--context", o->job.study.context,
                  "Tokens of KV cache that count as memory; 0: the model's context, at most 4096")
      ->check(CLI::Range(0, 1 << 20));
  verb.add_option("--prompt-tokens", o->job.study.prompt_tokens,
                  "Length of the prompt that speed is measured with; 0: 512")
      ->check(CLI::Range(0, 1 << 20));
  verb.add_option("--max-trials", o->job.max_trials, "Candidates to measure at most")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  verb.add_option("--search-tokens", o->job.study.search_tokens,
                  "Tokens that a candidate is scored on; 0: by the model's size")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--eval-tokens", o->job.study.eval_tokens,
                  "Held-out tokens of a verdict; 0: twice the search tokens")
      ->check(CLI::NonNegativeNumber);
  verb.add_flag("--emulated", o->job.emulated,
                "Also try small floats that no kernel of this machine reads: they would run expanded to f32");
  add_threads(verb, o->job.study.target.threads);
  add_seed(verb, o->job.study.seed);
  add_json(verb, o->json);
  verb.callback([o] { optimize_verb(*o); });
}

}  // namespace lathe
