// What every route needs: one model behind one engine.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"
#include "engine/engine.h"
#include "server/metrics.h"
#include "server/structured_output.h"
#include "text/tokenizer.h"

namespace lathe {

class ChatTemplate;

struct Service {
  Engine& engine;
  const Tokenizer& tokenizer;
  const ChatTemplate* chat;  // null: the model has none, and chat is refused
  Json template_variables;   // bos_token, eos_token, ...
  std::string model;         // as clients name it
  int64_t created;           // seconds since 1970
  std::vector<int32_t> stop_tokens;
  Metrics& metrics;
  Grammars& grammars;
};

}  // namespace lathe
