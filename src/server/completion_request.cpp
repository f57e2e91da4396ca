#include "server/completion_request.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <random>

#include "core/hash.h"
#include "server/api_error.h"

namespace lathe {
namespace {

constexpr size_t most_stops = 16, most_stop_bytes = 1024, most_biases = 4096, most_bad_words = 256;
constexpr int64_t default_max_tokens = 16;

// best_of choices are made, and the n best of them told: so none before all have ended.
void take_best_of(Request& r, const Fields& f) {
  const int64_t made = f.integer("best_of", 1, most_sampled_outputs).value_or(r.choices);
  if (made < r.choices)
    throw ApiError::bad_request(fmt::format("best_of: expected at least n = {}, found {}", r.choices, made),
                                "best_of");
  if (made == r.choices) return;
  if (f.boolean("stream", false))
    throw ApiError::bad_request("best_of: expected no more than n where the answer streams", "best_of");
  r.choices = made;
  r.logprobs = std::max<int64_t>(r.logprobs, 0);  // what is best by
}

uint64_t hashed(const std::string& text) {
  const std::string digest = sha256(text);
  return std::stoull(digest.substr(0, 16), nullptr, 16);
}

// {"1234": -100, ...}: token numbers as text.
std::vector<std::pair<int32_t, float>> parse_logit_bias(const Fields& f) {
  const Json* given = f.find("logit_bias");
  if (!given) return {};
  if (!given->is_object() || given->size() > most_biases)
    throw ApiError::bad_request(
        fmt::format("logit_bias: expected an object of at most {} tokens", most_biases), "logit_bias");
  std::vector<std::pair<int32_t, float>> all;
  for (const auto& [name, value] : given->items()) {
    int32_t token = -1;
    const auto [end, failed] = std::from_chars(name.data(), name.data() + name.size(), token);
    if (failed != std::errc() || end != name.data() + name.size() || token < 0)
      throw ApiError::bad_request(
          fmt::format("logit_bias: expected token numbers, found '{}'", printable(name, 60)), "logit_bias");
    if (!value.is_number() || !(std::fabs(value.get<double>()) <= 100))
      throw ApiError::bad_request(fmt::format("logit_bias: expected a number of -100 to 100 for {}", token),
                                  "logit_bias");
    all.emplace_back(token, value.get<float>());
  }
  return all;
}

// Tokens of what must not be written, at the beginning of a text and behind a blank.
std::vector<std::vector<int32_t>> parse_bad_words(const Service& service, const Fields& f) {
  std::vector<std::vector<int32_t>> all;
  for (const std::string& word : f.texts("bad_words", most_bad_words)) {
    const std::string bare = word.substr(std::min(word.find_first_not_of(' '), word.size()));
    if (bare.empty() || bare.size() > most_stop_bytes)
      throw ApiError::bad_request(
          fmt::format("bad_words: expected words of 1 to {} bytes, found {}", most_stop_bytes, bare.size()),
          "bad_words");
    for (const std::string& text : {bare, " " + bare}) {
      auto tokens = service.tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false});
      if (all.empty() || all.back() != tokens) all.push_back(std::move(tokens));
    }
  }
  return all;
}

// Of the prompt's tokens too: in vLLM's field, or where OpenAI's echo asks for the text's.
int64_t parse_prompt_logprobs(const Request& r, const Fields& f, bool chat) {
  if (const auto asked = f.integer("prompt_logprobs", 0, most_logprobs)) {
    if (f.boolean("stream", false))
      throw ApiError::bad_request("prompt_logprobs: expected none where the answer streams",
                                  "prompt_logprobs");
    return *asked;
  }
  return !chat && f.boolean("echo", false) ? r.logprobs : -1;
}

}  // namespace

void require_model(const Service& service, const Fields& f) {
  if (const auto model = f.text("model"); model && !model->empty() && *model != service.model)
    throw ApiError(404, "not_found_error",
                   fmt::format("model: expected '{}', found '{}'", service.model, printable(*model)),
                   "model");
}

static int requested_adapter(const Service& service, const Fields& f) {
  if (const auto model = f.text("model"))
    for (size_t i = 0; i < service.adapters.size(); ++i)
      if (service.adapters[i] == *model) return static_cast<int>(i) + 1;
  require_model(service, f);
  return 0;
}

void truncate_prompt(std::vector<int32_t>& prompt, const Fields& f) {
  if (const auto most = f.integer("truncate_prompt_tokens", 1, INT64_MAX);
      most && static_cast<int64_t>(prompt.size()) > *most)
    prompt.erase(prompt.begin(), prompt.end() - *most);
}

void copy_sampling(const Fields& from, Json& to) {
  for (const char* name :
       {"model", "temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty",
        "presence_penalty", "frequency_penalty", "min_tokens", "ignore_eos", "stop_token_ids",
        "allowed_token_ids", "bad_words", "priority", "cache_salt"})
    if (const Json* value = from.find(name)) to[name] = *value;
}

Request completion_request(const Service& service, const Fields& f, bool chat) {
  Request r;
  r.adapter = requested_adapter(service, f);
  r.sampling.temperature = f.number("temperature", 0, 100).value_or(1);
  r.sampling.top_p = f.number("top_p", 0, 1).value_or(1);
  r.sampling.top_k = std::max<int64_t>(0, f.integer("top_k", -1, INT64_MAX).value_or(0));
  r.sampling.min_p = f.number("min_p", 0, 1).value_or(0);
  r.sampling.typical_p = f.number("typical_p", 0, 1).value_or(1);
  r.sampling.repetition_penalty = f.number("repetition_penalty", 0.01, 100).value_or(1);
  r.sampling.presence_penalty = f.number("presence_penalty", -2, 2).value_or(0);
  r.sampling.frequency_penalty = f.number("frequency_penalty", -2, 2).value_or(0);
  if (const auto window = f.integer("repeat_last_n", -1, INT32_MAX))
    r.sampling.penalty_window = *window < 0 ? INT64_MAX : *window;
  r.sampling.logit_bias = parse_logit_bias(f);
  const auto seed = f.integer("seed", INT64_MIN, INT64_MAX);
  r.sampling.seed = seed ? static_cast<uint64_t>(*seed) : std::random_device()();
  const auto max_tokens = f.integer("max_completion_tokens", 1, INT64_MAX);
  r.max_tokens =
      max_tokens
          ? *max_tokens
          : f.integer("max_tokens", chat ? 1 : 0, INT64_MAX).value_or(chat ? INT64_MAX : default_max_tokens);
  if (const int64_t most = service.limits.output_tokens; most > 0)
    r.max_tokens = std::min(r.max_tokens, most);
  r.min_tokens = f.integer("min_tokens", 0, INT64_MAX).value_or(0);
  r.choices = f.integer("n", 1, most_sampled_outputs).value_or(1);
  r.priority = static_cast<int>(f.integer("priority", -1000, 1000).value_or(0));
  r.stop = f.texts("stop", most_stops);
  for (const std::string& stop : r.stop)
    if (stop.empty() || stop.size() > most_stop_bytes)
      throw ApiError::bad_request(
          fmt::format("stop: expected strings of 1 to {} bytes, found {}", most_stop_bytes, stop.size()),
          "stop");
  if (!f.boolean("ignore_eos", false)) r.stop_tokens = service.stop_tokens;
  for (const int32_t token : f.tokens("stop_token_ids", most_stops)) r.stop_tokens.push_back(token);
  if (!chat) {
    r.logprobs = f.integer("logprobs", 0, most_logprobs).value_or(-1);
  } else if (f.boolean("logprobs", false)) {
    r.logprobs = f.integer("top_logprobs", 0, most_logprobs).value_or(0);
  } else if (f.integer("top_logprobs", 0, most_logprobs).value_or(0) > 0) {
    throw ApiError::bad_request("top_logprobs: expected logprobs: true beside it", "top_logprobs");
  }
  r.prompt_logprobs = parse_prompt_logprobs(r, f, chat);
  r.allowed_tokens = f.tokens("allowed_token_ids", static_cast<size_t>(service.tokenizer.vocab_size()));
  r.bad_words = parse_bad_words(service, f);
  if (!chat) take_best_of(r, f);
  r.grammar = service.grammars.find(f);
  if (const auto salt = f.text("cache_salt")) r.space = hashed(*salt);
  r.special_tokens = !f.boolean("skip_special_tokens", true);
  return r;
}

}  // namespace lathe
