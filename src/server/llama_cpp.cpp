#include "server/llama_cpp.h"

#include <cmath>

#include "server/api_error.h"
#include "server/completion_request.h"
#include "server/completions.h"
#include "server/logprobs.h"
#include "server/not_done.h"
#include "server/reply.h"
#include "text/chat_template.h"

namespace lathe {
namespace {

// llama.cpp's names and defaults as /v1/completions has them.
Json completion_of(const Fields& f) {
  refuse_not_done(f, Api::llama_cpp);
  Json out = {
      {"temperature", 0.8}, {"top_k", 40}, {"top_p", 0.95}, {"min_p", 0.05}, {"max_tokens", INT64_MAX}};
  copy_sampling(f, out);
  for (const char* name : {"stop", "prompt"})
    if (const Json* value = f.find(name)) out[name] = *value;
  copy_structured(f, out);
  if (out.value("grammar", Json()) == "") out.erase("grammar");  // its default
  if (const Json* penalty = f.find("repeat_penalty")) out["repetition_penalty"] = *penalty;
  out["repeat_last_n"] = f.integer("repeat_last_n", -1, INT32_MAX).value_or(64);
  if (const auto most = f.integer("n_predict", -1, INT64_MAX); most && *most >= 0) out["max_tokens"] = *most;
  if (const auto seed = f.integer("seed", -1, INT64_MAX); seed && *seed >= 0) out["seed"] = *seed;
  if (const auto probs = f.integer("n_probs", 0, most_logprobs); probs && *probs > 0)
    out["logprobs"] = *probs;
  // [[token, bias], ...], or an object as OpenAI's.
  if (const Json* bias = f.find("logit_bias")) {
    Json& to = out["logit_bias"] = Json::object();
    if (bias->is_array()) {
      for (const Json& pair : *bias) {
        if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer())
          throw ApiError::bad_request("logit_bias: expected pairs of a token and a number", "logit_bias");
        to[std::to_string(pair[0].get<int64_t>())] = pair[1] == false ? Json(-100) : pair[1];
      }
    } else {
      to = *bias;
    }
  }
  return out;
}

class LlamaReply final : public Reply {
 public:
  LlamaReply(const Service& service, const Fields& f, const Request& request,
             std::shared_ptr<HttpExchange> exchange)
      : Reply(service, std::move(exchange), f.boolean("stream", false), request, 1),
        return_tokens_(f.boolean("return_tokens", false)),
        show_probs_(request.logprobs >= 0),
        drawn_(request.drawn_logprobs),
        timings_always_(f.boolean("timings_per_token", false)) {}

 private:
  void tell(size_t, const Event& e) override {
    last_ = e;
    if (is_shown(e)) tokens_.push_back(e.token);
    if (show_probs_ && is_shown(e)) probs_.push_back(probabilities(e));
    if (!stream_) {
      text_ += e.text;
      return;
    }
    start_stream();
    if (e.text.empty()) return;
    Json j = {{"index", 0},
              {"content", e.text},
              {"tokens", is_shown(e) ? Json::array({e.token}) : Json::array()},
              {"stop", false},
              {"id_slot", 0},
              {"tokens_predicted", e.generated},
              {"tokens_evaluated", prompt_tokens()}};
    put_probabilities(j);
    if (timings_always_) j["timings"] = timings();
    event(j);
  }
  Json timings() const {
    const Times t = times(0);
    Json j = {{"cache_n", cached_tokens()}};
    const auto put = [&](const std::string& name, size_t n, double seconds) {
      const double count = static_cast<double>(n);
      j[name + "_n"] = n;
      j[name + "_ms"] = seconds * 1e3;
      j[name + "_per_token_ms"] = n > 0 ? Json(seconds * 1e3 / count) : Json();
      j[name + "_per_second"] = seconds > 0 ? Json(count / seconds) : Json();
    };
    put("prompt", prompt_tokens() - cached_tokens(), t.prefill);
    put("predicted", generated_tokens(), t.decode);
    return j;
  }
  Json probabilities(const Event& e) const {
    const auto one = [&](const TokenLogprob& t) {
      Json j = {{"id", t.token}};
      j.update(token_json(service_, t));
      if (!drawn_) return j;
      j.erase("logprob");
      j["prob"] = std::exp(t.logprob);
      return j;
    };
    Json j = one({e.token, e.score.logprob});
    Json& top = j[drawn_ ? "top_probs" : "top_logprobs"] = Json::array();
    for (const TokenLogprob& t : e.score.top) top.push_back(one(t));
    return j;
  }
  // Those that were not told yet.
  void put_probabilities(Json& to) {
    if (show_probs_) to["completion_probabilities"] = std::exchange(probs_, Json::array());
  }
  void end() override {
    Json j = {{"index", 0},
              {"content", text_},
              {"tokens", return_tokens_ && !stream_ ? Json(tokens_) : Json::array()},
              {"id_slot", 0},
              {"stop", true},
              {"model", model_},
              {"tokens_predicted", last_.generated},
              {"tokens_evaluated", prompt_tokens()},
              {"truncated", false},
              {"stop_type", last_.finish == Finish::length ? "limit"
                            : last_.stop.empty()           ? "eos"
                                                           : "word"},
              {"stopping_word", last_.stop},
              {"tokens_cached", cached_tokens()},
              {"timings", timings()}};
    put_probabilities(j);
    if (!stream_) return send(j);
    event(j);
    exchange_->finish();
  }

  const bool return_tokens_, show_probs_, drawn_;  // drawn_: probabilities behind the sampler's cuts
  const bool timings_always_;
  Json probs_ = Json::array();
  std::string text_;
  std::vector<int32_t> tokens_;
  Event last_;
};

}  // namespace

void llama_complete(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Fields f(body);
  const Json asked = completion_of(f);
  const Fields fields(asked);
  Request request = completion_request(service, fields, false);
  request.drawn_logprobs = f.boolean("post_sampling_probs", false);
  const auto prompts = parse_prompts(service, fields);
  if (prompts.size() != 1) throw ApiError::bad_request("prompt: expected one", "prompt");
  submit(service, request, prompts, std::make_shared<LlamaReply>(service, f, request, exchange));
}

void llama_props(Service& service, const Json&, std::shared_ptr<HttpExchange> exchange) {
  const auto variable = [&](const char* name) {
    const auto it = service.template_variables.find(name);
    return it == service.template_variables.end() ? Json("") : *it;
  };
  const Json answer = {
      {"default_generation_settings",
       {{"n_ctx", service.engine.context()},
        {"params", {{"temperature", 0.8}, {"top_k", 40}, {"top_p", 0.95}, {"min_p", 0.05}}}}},
      {"total_slots", service.engine.sequences()},
      {"model_alias", service.model},
      {"model_path", service.model},
      {"modalities", {{"vision", false}, {"audio", false}}},
      {"chat_template", service.chat ? service.chat->source() : std::string()},
      {"bos_token", variable("bos_token")},
      {"eos_token", variable("eos_token")},
      {"build_info", "lathe"}};
  exchange->send(200, "application/json", json_text(answer));
}

void llama_slots(Service& service, const Json&, std::shared_ptr<HttpExchange> exchange) {
  const int64_t running = service.engine.stats().running;
  Json all = Json::array();
  for (int64_t i = 0; i < service.engine.sequences(); ++i)
    all.push_back({{"id", i},
                   {"n_ctx", service.engine.context()},
                   {"speculative", false},
                   {"is_processing", i < running}});
  exchange->send(200, "application/json", json_text(all));
}

}  // namespace lathe
