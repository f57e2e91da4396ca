#include "server/completions.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "server/api_error.h"
#include "server/completion_request.h"
#include "server/infill.h"
#include "server/logprobs.h"
#include "server/not_done.h"
#include "server/reply.h"

namespace lathe {
namespace {

constexpr size_t most_prompts = 1024;

class CompletionReply final : public Reply {
 public:
  CompletionReply(const Service& service, const Fields& f, const Request& request,
                  const std::vector<std::vector<int32_t>>& prompts, std::shared_ptr<HttpExchange> exchange)
      : Reply(service, std::move(exchange), f.boolean("stream", false), request, prompts.size()),
        logprobs_(f.has("logprobs")),
        echo_(f.boolean("echo", false)),
        prompt_logprobs_(f.has("prompt_logprobs")),
        shown_(static_cast<size_t>(f.integer("n", 1, INT64_MAX).value_or(1))),
        made_(static_cast<size_t>(request.choices)),
        show_stops_(f.boolean("include_stop_str_in_output", false)),
        choices_(choice_count()) {
    read_stream_options(f);
    if (echo_ || request.prompt_logprobs >= 0) prompts_ = prompts;
  }

 private:
  struct Choice {
    std::string text;
    bool begun = false;
    Json logprobs = no_columns(), prompt_logprobs;
    Json finish, stop_reason;
    size_t offset = 0;   // of the text, for logprobs
    double logprob = 0;  // of all tokens together
    int64_t tokens = 0;
    double quality() const { return tokens > 0 ? logprob / static_cast<double>(tokens) : 0; }
  };

  static Json no_columns() {
    return {{"tokens", Json::array()},
            {"token_logprobs", Json::array()},
            {"top_logprobs", Json::array()},
            {"text_offset", Json::array()}};
  }

  Json envelope() const {
    return {{"id", id_}, {"object", "text_completion"}, {"created", created_}, {"model", model_}};
  }

  void tell(size_t index, const Event& e) override {
    Choice& c = choices_[index];
    const bool first = !std::exchange(c.begun, true);
    std::string text = first ? prompt_text(index, e) : std::string();
    const bool scored = logprobs_ && (is_shown(e) || !text.empty());
    if (logprobs_ && is_shown(e)) add_columns(c, e.token, &e.score);
    const std::string own = show_stops_ ? e.text + e.stop : e.text;
    text += own;
    c.offset += own.size();
    if (e.token >= 0) {
      c.logprob += static_cast<double>(e.score.logprob);
      ++c.tokens;
    }
    const bool ended = e.finish != Finish::none;
    if (ended) {
      c.finish = finish_name(e.finish);
      c.stop_reason = e.stop.empty() ? Json() : Json(e.stop);
    }
    if (!stream_) {
      c.text += text;
      return;
    }
    start_stream();
    if (text.empty() && !scored && !ended) return;
    Json j = envelope();
    j["choices"] = {choice_json(index, std::move(text))};
    c.logprobs = no_columns();
    add_usage(j);
    event(j);
  }

  void add_columns(Choice& c, int32_t token, const TokenScore* score) const {  // null: nothing was expected
    Json top = score ? Json::object() : Json();
    if (score)
      for (const TokenLogprob& t : score->top) top[token_text(service_, t.token)] = shown_logprob(t.logprob);
    c.logprobs["tokens"].push_back(token_text(service_, token));
    c.logprobs["token_logprobs"].push_back(score ? Json(shown_logprob(score->logprob)) : Json());
    c.logprobs["top_logprobs"].push_back(std::move(top));
    c.logprobs["text_offset"].push_back(c.offset);
  }

  // Of a choice's first event: the prompt, where the text begins with it, and what is told of its tokens.
  std::string prompt_text(size_t index, const Event& e) {
    if (prompts_.empty()) return {};
    Choice& c = choices_[index];
    const std::vector<int32_t>& prompt = prompts_[index / made_];
    if (prompt_logprobs_ && e.prompt) c.prompt_logprobs = prompt_logprobs_json(service_, prompt, *e.prompt);
    if (!echo_) return {};
    std::string text;
    StreamDecoder decoder(service_.tokenizer, /*skip_special_tokens=*/true);
    for (size_t i = 0; i < prompt.size(); ++i) {
      if (logprobs_ && e.prompt) add_columns(c, prompt[i], i > 0 ? &(*e.prompt)[i - 1] : nullptr);
      if (prompt[i] < service_.tokenizer.vocab_size()) text += decoder.push(prompt[i]);
      c.offset = text.size();
    }
    text += decoder.finish();
    c.offset = text.size();
    return text;
  }

  Json choice_json(size_t index, std::string text) {
    Choice& c = choices_[index];
    Json j = {{"index", index}, {"text", std::move(text)}};
    j["logprobs"] = logprobs_ ? c.logprobs : Json();
    if (prompt_logprobs_) j["prompt_logprobs"] = std::move(c.prompt_logprobs);
    j["finish_reason"] = c.finish;
    if (!c.finish.is_null()) j["stop_reason"] = c.stop_reason;
    return j;
  }

  void end() override {
    Json j = envelope();
    j["choices"] = Json::array();
    if (stream_) return end_stream(std::move(j));
    for (size_t first = 0; first < choices_.size(); first += made_)
      for (const size_t i : best(first)) {
        Json choice = choice_json(i, std::move(choices_[i].text));
        choice["index"] = j["choices"].size();
        j["choices"].push_back(std::move(choice));
      }
    j["usage"] = usage();
    send(j);
  }

  // Of a prompt's choices, those that are told; of best_of, the likeliest for their length first.
  std::vector<size_t> best(size_t first) const {
    std::vector<size_t> all(made_);
    std::iota(all.begin(), all.end(), first);
    if (made_ == shown_) return all;
    std::ranges::stable_sort(all, std::greater(), [&](size_t i) { return choices_[i].quality(); });
    all.resize(shown_);
    return all;
  }

  const bool logprobs_, echo_, prompt_logprobs_;
  std::vector<std::vector<int32_t>> prompts_;  // where something is told of them
  const size_t shown_, made_;                  // choices of a prompt
  const bool show_stops_;
  const std::string id_ = random_id("cmpl-");
  const int64_t created_ = seconds_now();
  std::vector<Choice> choices_;
};

std::vector<std::vector<int32_t>> infill_prompts(const Service& service, const Fields& f,
                                                 const std::string& suffix) {
  if (f.boolean("echo", false)) throw ApiError::bad_request("echo: expected none beside suffix", "echo");
  std::vector<std::vector<int32_t>> all;
  for (const std::string& prefix : f.texts("prompt", most_prompts)) {
    all.push_back(infill_prompt(service.tokenizer, prefix, suffix));
    if (all.back().empty())
      throw ApiError::bad_request(
          "suffix: expected none: this model's vocabulary has no tokens for filling gaps, such as "
          "<|fim_prefix|>",
          "suffix");
  }
  if (all.empty())
    throw ApiError::bad_request("prompt: expected a text before the suffix, found none", "prompt");
  return all;
}

}  // namespace

std::vector<std::vector<int32_t>> parse_prompts(const Service& service, const Fields& f,
                                                const std::string& name) {
  const Json& prompt = f.at(name);
  const auto most = static_cast<size_t>(service.engine.context());
  if (prompt.is_array() && !prompt.empty() && prompt[0].is_number()) return {f.tokens(name, most)};
  std::vector<std::vector<int32_t>> all;
  if (prompt.is_array() && !prompt.empty() && prompt[0].is_array()) {
    if (prompt.size() > most_prompts)
      throw ApiError::bad_request(
          fmt::format("{}: expected at most {} lists, found {}", name, most_prompts, prompt.size()), name);
    for (const Json& tokens : prompt) {
      const Json one = {{name, tokens}};
      all.push_back(Fields(one).tokens(name, most));
    }
    return all;
  }
  Tokenizer::EncodeOptions options;
  options.add_special_tokens = f.boolean("add_special_tokens", true);
  for (const std::string& text : f.texts(name, most_prompts))
    all.push_back(service.tokenizer.encode(text, options));
  if (all.empty()) throw ApiError::bad_request(name + ": expected at least one, found none", name);
  return all;
}

void complete(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Fields f(body);
  refuse_not_done(f, Api::completions);
  const Request request = completion_request(service, f, false);
  const std::string suffix = f.text("suffix").value_or("");
  auto prompts = suffix.empty() ? parse_prompts(service, f) : infill_prompts(service, f, suffix);
  for (std::vector<int32_t>& prompt : prompts) truncate_prompt(prompt, f);
  submit(service, request, prompts,
         std::make_shared<CompletionReply>(service, f, request, prompts, exchange));
}

}  // namespace lathe
