// lathe profile: where the time of a prompt and of a decode step goes, by kind of node.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <numeric>

#include "cli/options.h"
#include "cli/verbs.h"
#include "core/rng.h"
#include "runtime/plan.h"

namespace lathe {
namespace {

struct Options {
  std::string model;
  int64_t prompt_tokens = 512, gen_tokens = 32;
  int threads = 0;
  bool json = false;
};

// "model.layers.3.mlp.up_proj" -> "mlp.up_proj": the same node of every layer is one kind.
std::string kind_of(const std::string& node) {
  size_t end = 0;
  for (size_t i = 0; i + 1 < node.size(); ++i)
    if (node[i] == '.' && node[i + 1] >= '0' && node[i + 1] <= '9') end = node.find('.', i + 1);
  return end == 0 || end == std::string::npos ? node : node.substr(end + 1);
}

using Kinds = std::map<std::string, double>;

Kinds times(Plan& plan, double share) {
  Kinds out;
  for (const Plan::Timing& t : plan.take_timings()) out[kind_of(t.node)] += t.seconds * share;
  return out;
}

void print(std::string_view title, const Kinds& kinds, double tokens) {
  std::vector<std::pair<double, std::string>> rows;
  double total = 0;
  for (const auto& [kind, seconds] : kinds) {
    rows.emplace_back(seconds, kind);
    total += seconds;
  }
  std::sort(rows.rbegin(), rows.rend());
  fmt::print("{}: {:.2f} ms, {:.1f} tokens/s\n", title, total * 1e3, tokens / total);
  for (const auto& [seconds, kind] : rows)
    fmt::print("  {:>9.3f} ms  {:>5.1f} %  {}\n", seconds * 1e3, 100 * seconds / total, kind);
}

void profile_verb(const Options& o) {
  const OpenModel opened = open_model(o.model);
  Plan plan = Plan::compile(opened.model, {.threads = o.threads,
                                           .max_tokens = o.prompt_tokens,
                                           .max_outputs = 1,
                                           .slots = 1,
                                           .context = o.prompt_tokens + o.gen_tokens,
                                           .profile = true});
  Rng rng(0);
  const auto vocab = static_cast<uint64_t>(plan.graph().value(plan.graph().output()).cols);
  std::vector<int32_t> tokens(static_cast<size_t>(o.prompt_tokens));
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng.below(vocab));
  Kinds prompt, step;
  for (int pass = 0; pass < 2; ++pass) {  // the first touches every page
    plan.run(SingleSequence(tokens, 0, 1, true));
    prompt = times(plan, 1);
    for (int64_t i = 0; i < o.gen_tokens; ++i)
      plan.run(SingleSequence({tokens.data(), 1}, static_cast<int32_t>(o.prompt_tokens + i), 1, true,
                              Phase::decode));
    step = times(plan, 1 / static_cast<double>(o.gen_tokens));
  }
  if (o.json)
    return print_json(
        {{"prompt_tokens", o.prompt_tokens}, {"prefill_seconds", prompt}, {"decode_seconds", step}});
  print(fmt::format("prompt of {} tokens", o.prompt_tokens), prompt, static_cast<double>(o.prompt_tokens));
  print("a decode step", step, 1);
}

}  // namespace

void add_profile(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(app, "profile", "Show where the time of a prompt and of a decode step goes",
                            "builtin --prompt-tokens 512");
  add_model(verb, o->model);
  verb.add_option("--prompt-tokens", o->prompt_tokens, "Tokens of the prompt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--gen-tokens", o->gen_tokens, "Decode steps after it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_threads(verb, o->threads);
  add_json(verb, o->json);
  verb.callback([o] { profile_verb(*o); });
}

}  // namespace lathe
