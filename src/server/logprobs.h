// How tokens and their probabilities are written for clients.
#pragma once

#include <algorithm>
#include <span>
#include <string>

#include "server/service.h"

namespace lathe {

inline std::string token_text(const Service& service, int32_t token) {
  if (token < 0 || token >= service.tokenizer.vocab_size()) return {};
  return service.tokenizer.decode({&token, 1});
}

inline float shown_logprob(float x) { return std::max(x, -9999.0f); }  // JSON has no infinity

// As OpenAI's chats and llama.cpp write a token and its probability.
inline Json token_json(const Service& service, const TokenLogprob& t) {
  const std::string text = token_text(service, t.token);
  return {{"token", text},
          {"logprob", shown_logprob(t.logprob)},
          {"bytes", std::vector<uint8_t>(text.begin(), text.end())}};
}

// A chosen token, and the likeliest in its place.
inline Json chosen_json(const Service& service, const Event& e) {
  Json j = token_json(service, {e.token, e.score.logprob});
  j["top_logprobs"] = Json::array();
  for (const TokenLogprob& t : e.score.top) j["top_logprobs"].push_back(token_json(service, t));
  return j;
}

// As vLLM writes what was expected where the prompt's tokens stand: of each that many tokens, and of its own.
inline Json prompt_logprobs_json(const Service& service, std::span<const int32_t> prompt,
                                 std::span<const TokenScore> scores) {
  Json all = Json::array({nullptr});  // nothing is expected of the first
  for (size_t i = 0; i < scores.size(); ++i) {
    Json one = Json::object();
    const auto add = [&](const TokenLogprob& t, int64_t rank) {
      one[std::to_string(t.token)] = {{"logprob", shown_logprob(t.logprob)},
                                      {"rank", rank},
                                      {"decoded_token", token_text(service, t.token)}};
    };
    add({prompt[i + 1], scores[i].logprob}, scores[i].rank);
    for (size_t k = 0; k < scores[i].top.size(); ++k) add(scores[i].top[k], static_cast<int64_t>(k) + 1);
    all.push_back(std::move(one));
  }
  return all;
}

inline bool is_shown(const Event& e) { return e.token >= 0 && !e.stop_token; }

}  // namespace lathe
