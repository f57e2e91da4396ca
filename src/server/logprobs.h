// How tokens and their probabilities are written for clients.
#pragma once

#include <algorithm>

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

inline bool is_shown(const Event& e) { return e.token >= 0 && !e.stop_token; }

}  // namespace lathe
