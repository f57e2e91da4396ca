#include "server/completions.h"

#include <atomic>
#include <chrono>
#include <random>

#include "server/api_error.h"
#include "server/chat_prompt.h"
#include "server/fields.h"

namespace lathe {
namespace {

constexpr size_t most_prompts = 128, most_stops = 16;
constexpr int64_t most_logprobs = 20, default_max_tokens = 16;

std::string random_id(std::string_view prefix) {
  static thread_local std::mt19937_64 random{std::random_device()()};
  return fmt::format("{}-{:016x}{:016x}", prefix, random(), random());
}

int64_t seconds_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// What Lathe does not do yet must not be done silently otherwise.
void refuse_unsupported(const Fields& f) {
  const auto refuse = [](std::string_view name) {
    throw ApiError(501, "not_supported_error", fmt::format("{} is not supported", name), std::string(name));
  };
  for (const std::string_view name : {"suffix", "grammar", "json_schema", "structured_outputs", "guided_json",
                                      "guided_regex", "guided_choice", "guided_grammar", "functions"})
    if (f.has(name)) refuse(name);
  if (f.boolean("echo", false)) refuse("echo");
  for (const std::string_view name : {"presence_penalty", "frequency_penalty"})
    if (f.number(name, -2, 2).value_or(0) != 0) refuse(name);
  for (const std::string_view name : {"logit_bias", "tools"})
    if (const Json* j = f.find(name); j && !j->empty()) refuse(name);
  if (const Json* format = f.find("response_format"))
    if (Fields(*format).text("type").value_or("") != "text") refuse("response_format");
  if (f.integer("best_of", 1, INT64_MAX).value_or(1) != f.integer("n", 1, INT64_MAX).value_or(1) &&
      f.has("best_of"))
    refuse("best_of");
}

// All but the prompt.
Request parse_request(const Service& service, const Fields& f, bool chat) {
  refuse_unsupported(f);
  if (const auto model = f.text("model"); model && !model->empty() && *model != service.model)
    throw ApiError(404, "not_found_error",
                   fmt::format("model: expected '{}', found '{}'", service.model, printable(*model)),
                   "model");
  Request r;
  r.sampling.temperature = f.number("temperature", 0, 100).value_or(1);
  r.sampling.top_p = f.number("top_p", 0, 1).value_or(1);
  r.sampling.top_k = std::max<int64_t>(0, f.integer("top_k", -1, INT64_MAX).value_or(0));
  r.sampling.min_p = f.number("min_p", 0, 1).value_or(0);
  r.sampling.repetition_penalty = f.number("repetition_penalty", 0.01, 100).value_or(1);
  const auto seed = f.integer("seed", INT64_MIN, INT64_MAX);
  r.sampling.seed = seed ? static_cast<uint64_t>(*seed) : std::random_device()();
  const auto max_tokens = f.integer("max_completion_tokens", 1, INT64_MAX);
  r.max_tokens = max_tokens
                     ? *max_tokens
                     : f.integer("max_tokens", 1, INT64_MAX).value_or(chat ? INT64_MAX : default_max_tokens);
  r.min_tokens = f.integer("min_tokens", 0, INT64_MAX).value_or(0);
  r.choices = f.integer("n", 1, most_sampled_outputs).value_or(1);
  r.priority = static_cast<int>(f.integer("priority", -1000, 1000).value_or(0));
  r.stop = f.texts("stop", most_stops);
  for (const std::string& stop : r.stop)
    if (stop.empty())
      throw ApiError::bad_request("stop: expected strings of some length, found an empty one", "stop");
  if (!f.boolean("ignore_eos", false)) r.stop_tokens = service.stop_tokens;
  for (const int32_t token : f.tokens("stop_token_ids", most_stops)) r.stop_tokens.push_back(token);
  if (!chat) {
    r.logprobs = f.integer("logprobs", 0, most_logprobs).value_or(-1);
  } else if (f.boolean("logprobs", false)) {
    r.logprobs = f.integer("top_logprobs", 0, most_logprobs).value_or(0);
  }
  return r;
}

// One request from its first event to its last byte. Events come on the engine's thread.
class Reply {
 public:
  Reply(const Service& service, const Fields& f, const Request& request, bool chat, size_t prompts,
        std::shared_ptr<HttpExchange> exchange)
      : service_(service),
        exchange_(std::move(exchange)),
        chat_(chat),
        stream_(f.boolean("stream", false)),
        logprobs_(request.logprobs >= 0),
        per_prompt_(request.choices),
        id_(random_id(chat ? "chatcmpl" : "cmpl")),
        created_(seconds_now()),
        choices_(prompts * static_cast<size_t>(request.choices)),
        open_(choices_.size()) {
    if (const Json* o = f.find("stream_options")) include_usage_ = Fields(*o).boolean("include_usage", false);
  }

  void count_prompt(size_t tokens) { prompt_tokens_ += tokens; }
  void abandon() { abandoned_ = true; }

  void take(size_t prompt, const Event& e) {
    if (abandoned_) return;
    const size_t index = prompt * static_cast<size_t>(per_prompt_) + static_cast<size_t>(e.choice);
    Choice& c = choices_[index];
    observe(c, e);
    if (e.finish == Finish::failed) return fail(e.error);
    if (c.tokens == 0) cached_ += static_cast<size_t>(e.cached);
    c.tokens = static_cast<size_t>(e.generated);
    if (stream_)
      write_chunks(index, e);
    else
      collect(c, e);
    if (e.finish != Finish::none && --open_ == 0) end();
  }

 private:
  struct Choice {
    std::string text;
    Json logprobs = Json::array();
    Json finish, stop_reason;
    size_t tokens = 0;
    bool begun = false;
    size_t offset = 0;                           // of its text, for the logprobs of completions
    std::chrono::steady_clock::time_point last;  // token
  };

  using Clock = std::chrono::steady_clock;
  void observe(Choice& c, const Event& e) {
    const auto now = Clock::now();
    const auto since = [&](Clock::time_point then) {
      return std::chrono::duration<double>(now - then).count();
    };
    if (e.token >= 0) {
      if (c.tokens == 0)
        service_.metrics.first_token(since(arrived_));
      else
        service_.metrics.next_token(since(c.last));
      c.last = now;
    }
    if (e.finish != Finish::none)
      service_.metrics.request_done(e.finish, since(arrived_), prompt_tokens_,
                                    static_cast<size_t>(e.generated));
  }

  Json envelope(std::string_view object) const {
    return {{"id", id_}, {"object", object}, {"created", created_}, {"model", service_.model}};
  }
  Json usage() const {
    size_t generated = 0;
    for (const Choice& c : choices_) generated += c.tokens;
    return {{"prompt_tokens", prompt_tokens_},
            {"completion_tokens", generated},
            {"total_tokens", prompt_tokens_ + generated},
            {"prompt_tokens_details", {{"cached_tokens", cached_}}}};
  }
  static void put_finish(Json& choice, const Event& e) {
    choice["finish_reason"] = e.finish == Finish::none ? Json() : Json(finish_name(e.finish));
    if (e.finish != Finish::none) choice["stop_reason"] = e.stop.empty() ? Json() : Json(e.stop);
  }

  Json token_json(const TokenLogprob& t) const {
    const std::string text = token_text(t.token);
    return {{"token", text},
            {"logprob", std::max(t.logprob, -9999.0f)},
            {"bytes", std::vector<uint8_t>(text.begin(), text.end())}};
  }
  std::string token_text(int32_t token) const {
    if (token < 0 || token >= service_.tokenizer.vocab_size()) return {};
    return service_.tokenizer.decode({&token, 1});
  }
  // A token's entry in the list of a chat, or in the columns of a completion.
  Json logprobs_of(Choice& c, const Event& e) const {
    Json top = chat_ ? Json::array() : Json::object();
    for (const TokenLogprob& t : e.top) {
      if (chat_)
        top.push_back(token_json(t));
      else
        top[token_text(t.token)] = std::max(t.logprob, -9999.0f);
    }
    if (chat_) {
      Json entry = token_json({e.token, e.logprob});
      entry["top_logprobs"] = std::move(top);
      return entry;
    }
    const size_t offset = c.offset;
    c.offset += e.text.size();
    return {{"tokens", {token_text(e.token)}},
            {"token_logprobs", {std::max(e.logprob, -9999.0f)}},
            {"top_logprobs", {std::move(top)}},
            {"text_offset", {offset}}};
  }
  Json whole_logprobs(const Json& entries) const {
    if (!logprobs_) return nullptr;
    if (chat_) return {{"content", entries}};
    Json columns = {{"tokens", Json::array()},
                    {"token_logprobs", Json::array()},
                    {"top_logprobs", Json::array()},
                    {"text_offset", Json::array()}};
    for (const Json& entry : entries)
      for (auto& [name, column] : columns.items()) column.push_back(entry[name][0]);
    return columns;
  }
  // The token that ends a text is not shown, so it has no entry.
  bool wants_logprobs(const Event& e) const {
    return logprobs_ && e.token >= 0 && !(e.finish == Finish::stop && e.stop.empty());
  }

  void collect(Choice& c, const Event& e) {
    c.text += e.text;
    if (wants_logprobs(e)) c.logprobs.push_back(logprobs_of(c, e));
    if (e.finish == Finish::none) return;
    Json ended;
    put_finish(ended, e);
    c.finish = ended["finish_reason"];
    c.stop_reason = ended["stop_reason"];
  }

  void event(const Json& j) {
    exchange_->write("data: " + j.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n\n");
  }
  void chunk(size_t index, Json content, const Json& logprobs, const Event* ended) {
    Json choice = {{"index", index}};
    if (chat_)
      choice["delta"] = std::move(content);
    else
      choice["text"] = std::move(content);
    choice["logprobs"] = logprobs;
    put_finish(choice, ended ? *ended : Event());
    Json j = envelope(chat_ ? "chat.completion.chunk" : "text_completion");
    j["choices"] = {std::move(choice)};
    if (include_usage_) j["usage"] = nullptr;
    event(j);
  }
  void begin() {
    if (started_) return;
    started_ = true;
    exchange_->start(200, "text/event-stream", {{"Cache-Control", "no-cache"}});
  }
  void write_chunks(size_t index, const Event& e) {
    begin();
    Choice& c = choices_[index];
    if (chat_ && !c.begun) chunk(index, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr);
    c.begun = true;
    const bool shown = wants_logprobs(e);
    const Json logprobs = shown ? whole_logprobs({logprobs_of(c, e)}) : Json();
    const bool ended = e.finish != Finish::none;
    if (chat_) {
      if (!e.text.empty() || shown) chunk(index, {{"content", e.text}}, logprobs, nullptr);
      if (ended) chunk(index, Json::object(), nullptr, &e);
    } else if (!e.text.empty() || shown || ended) {
      chunk(index, e.text, logprobs, ended ? &e : nullptr);
    }
  }

  void end() {
    if (stream_) {
      if (include_usage_) {
        Json j = envelope(chat_ ? "chat.completion.chunk" : "text_completion");
        j["choices"] = Json::array();
        j["usage"] = usage();
        event(j);
      }
      exchange_->write("data: [DONE]\n\n");
      exchange_->finish();
      return;
    }
    Json j = envelope(chat_ ? "chat.completion" : "text_completion");
    Json& all = j["choices"] = Json::array();
    for (size_t i = 0; i < choices_.size(); ++i) {
      const Choice& c = choices_[i];
      Json choice = {{"index", i}};
      if (chat_)
        choice["message"] = {{"role", "assistant"}, {"content", c.text}};
      else
        choice["text"] = c.text;
      choice["logprobs"] = whole_logprobs(c.logprobs);
      choice["finish_reason"] = c.finish;
      choice["stop_reason"] = c.stop_reason;
      all.push_back(std::move(choice));
    }
    j["usage"] = usage();
    exchange_->send(200, "application/json", j.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  void fail(const std::string& why) {
    abandoned_ = true;
    const ApiError error(500, "server_error", why);
    if (!started_) return exchange_->send(500, "application/json", error.body().dump());
    event(error.body());
    exchange_->finish();
  }

  const Service& service_;
  std::shared_ptr<HttpExchange> exchange_;
  bool chat_, stream_, logprobs_, include_usage_ = false, started_ = false;
  int64_t per_prompt_;
  std::string id_;
  int64_t created_;
  Clock::time_point arrived_ = Clock::now();
  std::vector<Choice> choices_;
  size_t open_, prompt_tokens_ = 0, cached_ = 0;
  std::atomic<bool> abandoned_ = false;
};

void submit(Service& service, const Fields& f, const Request& request, bool chat,
            const std::vector<std::vector<int32_t>>& prompts, std::shared_ptr<HttpExchange> exchange) {
  auto reply = std::make_shared<Reply>(service, f, request, chat, prompts.size(), exchange);
  for (const auto& prompt : prompts) reply->count_prompt(prompt.size());
  std::vector<uint64_t> ids;
  try {
    for (size_t i = 0; i < prompts.size(); ++i) {
      Request one = request;
      one.prompt = prompts[i];
      ids.push_back(service.engine.submit(std::move(one), [reply, i](const Event& e) { reply->take(i, e); }));
    }
  } catch (...) {  // none or all
    reply->abandon();
    for (const uint64_t id : ids) service.engine.cancel(id);
    throw;
  }
  exchange->on_gone([&engine = service.engine, reply, ids] {
    reply->abandon();
    for (const uint64_t id : ids) engine.cancel(id);
  });
}

// A string, a list of strings, a list of tokens, or a list of lists of tokens.
std::vector<std::vector<int32_t>> parse_prompts(const Service& service, const Fields& f) {
  const Json& prompt = f.at("prompt");
  const auto most = static_cast<size_t>(service.engine.context());
  if (prompt.is_array() && !prompt.empty() && prompt[0].is_number()) return {f.tokens("prompt", most)};
  std::vector<std::vector<int32_t>> all;
  if (prompt.is_array() && !prompt.empty() && prompt[0].is_array()) {
    if (prompt.size() > most_prompts)
      throw ApiError::bad_request(
          fmt::format("prompt: expected at most {} lists, found {}", most_prompts, prompt.size()), "prompt");
    for (const Json& tokens : prompt) {
      const Json one = {{"prompt", tokens}};
      all.push_back(Fields(one).tokens("prompt", most));
    }
    return all;
  }
  for (const std::string& text : f.texts("prompt", most_prompts))
    all.push_back(service.tokenizer.encode(text));
  if (all.empty()) throw ApiError::bad_request("prompt: expected at least one, found none", "prompt");
  return all;
}

}  // namespace

void complete(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Fields f(body);
  const Request request = parse_request(service, f, false);
  submit(service, f, request, false, parse_prompts(service, f), std::move(exchange));
}

void chat_complete(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Fields f(body);
  const Request request = parse_request(service, f, true);
  submit(service, f, request, true, {chat_prompt(service, f)}, std::move(exchange));
}

}  // namespace lathe
