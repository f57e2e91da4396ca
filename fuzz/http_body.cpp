// A digit that chooses a route, and the body of a request to it: whatever that is, the answer is a stream, an
// answer, or an error that blames the client, and nothing of the request is left behind.
#include <cstdint>
#include <cstdlib>
#include <fmt/format.h>
#include <utility>

#include "engine/embedder.h"
#include "models/chat_format.h"
#include "server/app.h"
#include "text/chat_template.h"

namespace {

using namespace lathe;

constexpr std::string_view routes[] = {
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages",    "/completion",
    "/v1/embeddings",       "/v1/rerank",      "/tokenize",     "/apply-template", "/detokenize"};

struct World {
  Checkpoint checkpoint = Checkpoint::open(resolve_model("builtin"));
  Model model = load(checkpoint);
  Tokenizer tokenizer = load_tokenizer(checkpoint);
  ChatTemplate chat = ChatTemplate::parse(
      "{% if tools %}{{ tools | tojson }}<tool_call></think>{% endif %}{% for m in messages %}{{ m.role }}: "
      "{{ m.content }}{{ m.tool_calls }}\n{% endfor %}Answer:");
  Metrics metrics{"builtin"};
  Grammars grammars{tokenizer};
  Engine engine{model, tokenizer, {.threads = 1, .context = 128, .mixed_prompt = 32}};
  Embedder embedder{model, {.threads = 1, .longest = 32}};
  Service service{engine, tokenizer, &chat, Json::object(), "builtin", 1, {}, metrics, grammars, &embedder};
  App app{AppOptions()};
  World() { app.serve(service); }
};

class Exchange final : public HttpExchange {
 public:
  void send(int code, std::string_view, std::string, const Headers&) override { status = code; }
  void start(int code, std::string_view, const Headers&) override { status = code; }
  void write(std::string) override {}
  void finish() override {}
  void on_gone(std::function<void()> call) override { gone = std::move(call); }
  int status = 0;
  std::function<void()> gone;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static World world;
  if (size == 0) return 0;
  HttpRequest r;
  r.method = "POST";
  r.path = std::string(routes[static_cast<uint8_t>(data[0] - '0') % std::size(routes)]);
  r.body.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto exchange = std::make_shared<Exchange>();
  world.app.handle(r, exchange);
  if (exchange->status >= 500 && exchange->status != 501) std::abort();
  // The client leaves: running models would be slow. What is called holds the exchange.
  if (const auto gone = std::exchange(exchange->gone, {})) gone();
  world.engine.step();
  world.embedder.step();
  const EngineStats stats = world.engine.stats();
  if (stats.running + stats.waiting > 0 || stats.free_blocks != stats.blocks) std::abort();
  return 0;
}
