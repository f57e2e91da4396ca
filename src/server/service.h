// What every route needs: one model behind one engine.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"
#include "engine/engine.h"
#include "server/metrics.h"
#include "server/page.h"
#include "server/structured_output.h"
#include "text/tokenizer.h"

namespace lathe {

class ChatTemplate;
class Embedder;

struct ServiceLimits {
  int64_t prompt_tokens = 0, output_tokens = 0;  // of one prompt, of one choice; 0: what the context holds
  int64_t choices = 256;                         // of one request, all its prompts' together
};

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
  Embedder* embedder = nullptr;  // null: embeddings are refused
  ServiceLimits limits = {};
  std::vector<std::string> adapters = {};  // as clients name them, in the order of the engine's numbers
  ModelReport report = {};
};

}  // namespace lathe
