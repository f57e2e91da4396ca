// lathe generate: continue a prompt, or answer it as a chat, printing text as it comes.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>

#include "cli/options.h"
#include "cli/verbs.h"
#include "core/clock.h"
#include "core/log.h"
#include "engine/sampler.h"
#include "models/adapter.h"
#include "models/chat_format.h"
#include "runtime/plan.h"
#include "text/tokenizer.h"

namespace lathe {
namespace {

struct Options {
  std::string model, prompt, system, lora;
  Sampling sampling;
  int64_t max_tokens = 128;
  std::optional<KvType> kv;
  PlanOptions plan;
  bool chat = false, greedy = false, ignore_eos = false, json = false;
};

struct Generated {
  std::vector<int32_t> tokens;
  std::string text, finish = "length";
  double prefill_seconds = 0, decode_seconds = 0;
};

// The text as it is, or as a message in the model's own notation, which has its special tokens in it.
std::vector<int32_t> prompt_tokens(const Checkpoint& checkpoint, const Tokenizer& tokenizer,
                                   const Options& o) {
  if (!o.chat) return tokenizer.encode(o.prompt);
  const std::optional<ChatFormat> format = load_chat_format(checkpoint);
  if (!format)
    throw input_error("--chat", "a model with a chat template", "none",
                      "leave it out to continue the prompt");
  Json messages = Json::array();
  if (!o.system.empty()) messages.push_back({{"role", "system"}, {"content", o.system}});
  messages.push_back({{"role", "user"}, {"content", o.prompt}});
  ChatTemplate::Options options;
  options.variables = format->variables;
  return tokenizer.encode(format->chat.render(messages, nullptr, options), {.add_special_tokens = false});
}

// The row that predicts the token after the prompt.
std::span<const float> prefill(Plan& plan, std::span<const int32_t> prompt, size_t chunk) {
  const Tensor* logits = nullptr;
  for (size_t begin = 0; begin < prompt.size(); begin += chunk) {
    const auto part = prompt.subspan(begin, std::min(chunk, prompt.size() - begin));
    const bool last = begin + part.size() == prompt.size();
    logits = &plan.run(SingleSequence(part, static_cast<int32_t>(begin), last ? 1 : 0, true));
  }
  return logits->as<float>();
}

std::span<const float> decode(Plan& plan, int32_t token, int32_t position) {
  return plan.run(SingleSequence({&token, 1}, position, 1, true, Phase::decode)).as<float>();
}

Generated generate(Plan& plan, const Tokenizer& tokenizer, std::span<const int32_t> prompt,
                   std::span<const int32_t> stops, int64_t max_tokens, int64_t chunk, const Options& o) {
  Generated g;
  Sampler sampler(o.sampling);
  sampler.see(prompt);
  StreamDecoder stream(tokenizer, true);
  auto emit = [&](const std::string& piece) {
    g.text += piece;
    if (o.json || piece.empty()) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };

  auto start = Clock::now();
  std::span<const float> logits = prefill(plan, prompt, static_cast<size_t>(chunk));
  g.prefill_seconds = seconds_since(start);
  start = Clock::now();
  while (static_cast<int64_t>(g.tokens.size()) < max_tokens) {
    const int32_t token = sampler.pick(logits);
    if (!o.ignore_eos && std::find(stops.begin(), stops.end(), token) != stops.end()) {
      g.finish = "stop";
      break;
    }
    g.tokens.push_back(token);
    sampler.wrote(token);
    if (token < tokenizer.vocab_size())
      emit(stream.push(token));  // heads are often padded beyond the vocabulary
    if (static_cast<int64_t>(g.tokens.size()) == max_tokens) break;
    logits = decode(plan, token, static_cast<int32_t>(prompt.size() + g.tokens.size() - 1));
  }
  emit(stream.finish());
  g.decode_seconds = seconds_since(start);
  return g;
}

void generate_verb(const Options& o) {
  const auto start = Clock::now();
  OpenModel opened = open_model(o.model);
  if (!o.lora.empty()) add_adapter(opened.model, o.lora, 0);
  const Tokenizer tokenizer = load_tokenizer(opened.checkpoint);
  const std::vector<int32_t> prompt = prompt_tokens(opened.checkpoint, tokenizer, o);
  if (prompt.empty())
    throw input_error("--prompt", "at least one token", "none", "give some text to continue");
  const auto length = static_cast<int64_t>(prompt.size()), room = opened.model.max_context() - length;
  if (room < 1)
    throw input_error("--prompt",
                      fmt::format("fewer tokens than the model's context of {}", opened.model.max_context()),
                      std::to_string(length));
  const int64_t max_tokens = std::min(o.max_tokens, room);
  if (max_tokens < o.max_tokens)
    warn("the model's context of {} leaves room for {} tokens", opened.model.max_context(), max_tokens);

  tell_kv(opened.model, o.kv);
  Target target{
      .max_outputs = 1, .slots = 1, .context = length + max_tokens, .kv = o.kv, .ready_at_once = true};
  const int64_t chunk = apply(o.plan, opened, target);
  target.max_tokens = std::min(length, chunk);
  Plan plan = Plan::compile(opened.model, target);
  const double load_seconds = seconds_since(start);
  const Generated g = generate(plan, tokenizer, prompt, stop_tokens(opened.checkpoint), max_tokens, chunk, o);

  const double prefill_rate = static_cast<double>(length) / g.prefill_seconds;
  const double decode_rate =
      g.decode_seconds > 0 ? static_cast<double>(g.tokens.size()) / g.decode_seconds : 0;
  if (o.json) {
    print_json({{"text", g.text},
                {"tokens", g.tokens},
                {"finish_reason", g.finish},
                {"prompt_tokens", length},
                {"load_seconds", load_seconds},
                {"prefill_tokens_per_s", prefill_rate},
                {"decode_tokens_per_s", decode_rate},
                {"threads", plan.threads()},
                {"prefill_threads", plan.prefill_threads()},
                {"packed_cache", plan.mapped_packed()},
                {"seed", o.sampling.seed}});
  } else {
    fmt::print("\n");
    std::fflush(stdout);
  }
  info("load {:.2f} s; prefill {} tokens, {:.1f} tokens/s; decode {} tokens, {:.1f} tokens/s", load_seconds,
       length, prefill_rate, g.tokens.size(), decode_rate);
  plan.keep_packed();
}

}  // namespace

void add_generate(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(app, "generate", "Continue a prompt",
                            "builtin --prompt \"It was a truth\" --max-tokens 60 --seed 1");
  add_model(verb, o->model);
  verb.add_option("--prompt", o->prompt, "The text to continue")->required();
  CLI::Option* chat = verb.add_flag(
      "--chat", o->chat,
      "The prompt is a message, written as the model's chat template writes it; the answer ends by itself");
  verb.add_option("--system", o->system, "With --chat: what stands before the message")->needs(chat);
  verb.add_option("--lora", o->lora, "The directory of a LoRA adapter (PEFT's files) to use")
      ->check(CLI::ExistingDirectory);
  add_max_tokens(verb, o->max_tokens, "Generate at most so many tokens");
  verb.add_option("--temperature", o->sampling.temperature, "Spread of the choice; 0 is --greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  verb.add_option("--top-k", o->sampling.top_k, "Choose among the k most likely; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--top-p", o->sampling.top_p, "Choose among the most likely that reach this probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb.add_option("--min-p", o->sampling.min_p,
                  "Choose among those at least so likely as this share of the most likely; 0: all")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb.add_option("--repetition-penalty", o->sampling.repetition_penalty,
                  "Makes tokens less likely that the text holds already; 1: as they are")
      ->check(CLI::Range(0.1, 100.0))
      ->capture_default_str();
  verb.add_flag("--greedy", o->greedy, "Always the most likely token");
  verb.add_flag("--ignore-eos", o->ignore_eos, "Go on after a token that ends the text");
  add_seed(verb, o->sampling.seed);
  add_kv_dtype(verb, o->kv);
  add_plan_options(verb, o->plan);
  add_json(verb, o->json);
  verb.callback([o] {
    if (o->greedy) o->sampling.temperature = 0;
    generate_verb(*o);
  });
}

}  // namespace lathe
