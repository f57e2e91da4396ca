#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include "core/json.h"
#include "models/model.h"
#include "server/app.h"
#include "server/client.h"
#include "text/chat_template.h"

namespace lathe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct Got {
  int status = 0;
  std::string head, body;
  Json json() const { return Json::parse(body); }
  // The data of a stream's events, [DONE] left out; each must be JSON.
  std::vector<Json> events() const {
    std::vector<Json> all;
    bool done = false;
    for (size_t at = 0; (at = body.find("data: ", at)) != std::string::npos;) {
      const size_t end = body.find("\n\n", at);
      const std::string data = body.substr(at + 6, end - at - 6);
      EXPECT_FALSE(done) << "an event after [DONE]";
      if (data == "[DONE]")
        done = true;
      else
        all.push_back(Json::parse(data));
      at = end;
    }
    EXPECT_TRUE(done);
    return all;
  }
};

std::string without_chunks(const std::string& body) {
  std::string all;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\r\n", at);
    const size_t n = std::stoul(body.substr(at, end - at), nullptr, 16);
    all += body.substr(end + 2, n);
    at = end + 2 + n + 2;
  }
  return all;
}

// The built-in model behind a server on this machine.
class Serving {
 public:
  explicit Serving(AppOptions options = {}, EngineOptions engine = small())
      : checkpoint_(Checkpoint::open(resolve_model("builtin"))),
        model_(load(checkpoint_)),
        tokenizer_(load_tokenizer(checkpoint_)),
        chat_(
            ChatTemplate::parse("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}Answer:")),
        app_(options),
        server_(http(), [this](HttpRequest r,
                               std::shared_ptr<HttpExchange> e) { app_.handle(std::move(r), std::move(e)); }),
        network_([this] { server_.run(); }),
        engine_(model_, tokenizer_, engine) {}
  ~Serving() {
    ended_ = true;
    if (stepping_.joinable()) stepping_.join();
    server_.stop();
    network_.join();
  }
  void ready(bool step = true) {
    app_.serve(service_);
    if (!step) return;
    stepping_ = std::thread([this] {
      while (!ended_)
        if (!engine_.step()) engine_.wait(std::chrono::milliseconds(20));
    });
  }

  Got ask(const std::string& method, const std::string& path, const std::string& body = {},
          const std::string& headers = {}) {
    Client client(server_.port());
    client.send(fmt::format("{} {} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n{}", method,
                            path, body.size(), headers, body));
    const std::string all = client.read_all();
    const size_t end = all.find("\r\n\r\n");
    Got got{std::stoi(all.substr(9, 3)), all.substr(0, end), all.substr(end + 4)};
    if (got.head.find("chunked") != std::string::npos) got.body = without_chunks(got.body);
    return got;
  }
  Got post(const std::string& path, const Json& body) { return ask("POST", path, body.dump()); }
  uint16_t port() const { return server_.port(); }
  Engine& engine() { return engine_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }

  static EngineOptions small() {
    EngineOptions o;
    o.context = 256;
    o.mixed_prompt = 64;
    return o;
  }

 private:
  static HttpOptions http() {
    HttpOptions o;
    o.port = 0;
    return o;
  }
  Checkpoint checkpoint_;
  Model model_;
  Tokenizer tokenizer_;
  ChatTemplate chat_;
  App app_;
  HttpServer server_;
  std::thread network_;
  Metrics metrics_{"builtin"};
  Engine engine_;
  Service service_{engine_, tokenizer_, &chat_, Json::object(), "builtin", 1, {}, metrics_};
  std::thread stepping_;
  std::atomic<bool> ended_ = false;
};

AppOptions with_keys(std::vector<std::string> keys) {
  AppOptions o;
  o.api_keys = std::move(keys);
  return o;
}

Json story(int64_t max_tokens) {
  return {{"prompt", "The ship had been three weeks at sea"}, {"max_tokens", max_tokens}, {"temperature", 0}};
}

TEST(App, IsUnavailableUntilTheModelIsLoaded) {
  Serving s;
  EXPECT_EQ(s.ask("GET", "/health").status, 503);
  const Got early = s.post("/v1/completions", story(1));
  EXPECT_EQ(early.status, 503);
  EXPECT_THAT(early.head, HasSubstr("Retry-After: 1"));
  EXPECT_EQ(early.json()["error"]["type"], "unavailable_error");
  s.ready();
  EXPECT_EQ(s.ask("GET", "/health").status, 200);
}

TEST(App, EveryRouteButHealthWantsTheKey) {
  Serving s(with_keys({"first", "second"}));
  s.ready();
  EXPECT_EQ(s.ask("GET", "/health").status, 200);
  for (const std::string path : {"/v1/models", "/metrics", "/nothing", "/"}) {
    EXPECT_EQ(s.ask("GET", path).status, 401) << path;
    EXPECT_EQ(s.ask("GET", path, "", "Authorization: Bearer firs\r\n").status, 401) << path;
    EXPECT_NE(s.ask("GET", path, "", "Authorization: Bearer second\r\n").status, 401) << path;
    EXPECT_NE(s.ask("GET", path, "", "X-Api-Key: first\r\n").status, 401) << path;
  }
}

TEST(App, ModelsTokensAndMetrics) {
  Serving s;
  s.ready();
  EXPECT_EQ(s.ask("GET", "/v1/models").json()["data"][0]["id"], "builtin");
  const Json tokens = s.post("/tokenize", {{"prompt", "Once upon a time"}}).json()["tokens"];
  EXPECT_EQ(tokens.get<std::vector<int32_t>>(), s.tokenizer().encode("Once upon a time"));
  EXPECT_EQ(s.post("/detokenize", {{"tokens", tokens}}).json()["prompt"], "Once upon a time");
  EXPECT_EQ(
      s.post("/apply-template", {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}}).json()["prompt"],
      "user: Hi\nAnswer:");
  s.post("/v1/completions", story(4));
  Got metrics = s.ask("GET", "/metrics");
  // A step is counted when it ends, after its last event.
  for (int i = 0;
       i < 200 && metrics.body.find("generation_tokens_total{model_name=\"builtin\"} 4") == std::string::npos;
       ++i)
    metrics = s.ask("GET", "/metrics");
  EXPECT_THAT(metrics.body, HasSubstr("vllm:generation_tokens_total{model_name=\"builtin\"} 4"));
  EXPECT_THAT(metrics.body, HasSubstr("vllm:time_to_first_token_seconds_count{model_name=\"builtin\"} 1"));
  EXPECT_THAT(metrics.body, HasSubstr("finished_reason=\"length\""));
}

TEST(App, ACompletionHasOpenAisShape) {
  Serving s;
  s.ready();
  const Json j = s.post("/v1/completions", story(8)).json();
  EXPECT_THAT(j["id"].get<std::string>(), StartsWith("cmpl-"));
  EXPECT_EQ(j["object"], "text_completion");
  EXPECT_EQ(j["model"], "builtin");
  EXPECT_EQ(j["choices"].size(), 1u);
  EXPECT_EQ(j["choices"][0]["finish_reason"], "length");
  EXPECT_FALSE(j["choices"][0]["text"].get<std::string>().empty());
  EXPECT_EQ(j["usage"]["completion_tokens"], 8);
  EXPECT_EQ(j["usage"]["total_tokens"].get<int>(), j["usage"]["prompt_tokens"].get<int>() + 8);
}

TEST(App, AStreamAddsUpToTheAnswer) {
  Serving s;
  s.ready();
  Json body = {{"messages", {{{"role", "user"}, {"content", "Tell me of the sea."}}}},
               {"max_tokens", 24},
               {"temperature", 0.9},
               {"seed", 7},
               {"n", 2}};
  const Json whole = s.post("/v1/chat/completions", body).json();
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const Got got = s.post("/v1/chat/completions", body);
  EXPECT_THAT(got.head, HasSubstr("text/event-stream"));
  const std::vector<Json> events = got.events();
  std::string text[2];
  int roles = 0, ends = 0;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const Json& e = events[i];
    EXPECT_EQ(e["id"], events[0]["id"]);
    EXPECT_EQ(e["object"], "chat.completion.chunk");
    EXPECT_TRUE(e["usage"].is_null());
    const Json& c = e["choices"][0];
    const Json& delta = c["delta"];
    if (delta.contains("role")) {
      ++roles;
    } else if (c["finish_reason"].is_null()) {
      EXPECT_FALSE(delta["content"].get<std::string>().empty());
      text[c["index"].get<size_t>()] += delta["content"].get<std::string>();
    } else {
      ++ends;
      EXPECT_TRUE(delta.empty());
    }
  }
  EXPECT_EQ(roles, 2);
  EXPECT_EQ(ends, 2);
  EXPECT_EQ(events.back()["usage"], whole["usage"]);
  EXPECT_TRUE(events.back()["choices"].empty());
  for (size_t c = 0; c < 2; ++c) EXPECT_EQ(whole["choices"][c]["message"]["content"], text[c]);
  EXPECT_NE(text[0], text[1]);
}

TEST(App, LogprobsOfChatsAndCompletions) {
  Serving s;
  s.ready();
  Json body = story(5);
  body["logprobs"] = 3;
  const Json columns = s.post("/v1/completions", body).json()["choices"][0]["logprobs"];
  for (const auto& name : {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
    EXPECT_EQ(columns[name].size(), 5u);
  EXPECT_EQ(columns["top_logprobs"][0].size(), 3u);
  body = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}},
          {"max_tokens", 5},
          {"logprobs", true},
          {"top_logprobs", 2}};
  const Json choice = s.post("/v1/chat/completions", body).json()["choices"][0];
  ASSERT_EQ(choice["logprobs"]["content"].size(), 5u);
  std::string text;
  for (const Json& t : choice["logprobs"]["content"]) {
    EXPECT_EQ(t["top_logprobs"].size(), 2u);
    EXPECT_LE(t["logprob"].get<double>(), 0);
    text += t["token"].get<std::string>();
  }
  EXPECT_EQ(text, choice["message"]["content"]);
}

TEST(App, SeveralPromptsAreSeveralChoices) {
  Serving s;
  s.ready();
  Json body = story(6);
  const Json alone = s.post("/v1/completions", body).json()["choices"][0]["text"];
  body["prompt"] = {"Once upon a time", body["prompt"]};
  const Json both = s.post("/v1/completions", body).json();
  ASSERT_EQ(both["choices"].size(), 2u);
  EXPECT_EQ(both["choices"][1]["text"], alone);
  body["prompt"] = s.tokenizer().encode("The ship had been three weeks at sea");
  EXPECT_EQ(s.post("/v1/completions", body).json()["choices"][0]["text"], alone);
}

TEST(App, SaysWhatIsWrongWithARequest) {
  Serving s;
  s.ready();
  struct Case {
    std::string path, body;
    int status;
    std::string says;
  };
  const std::vector<Case> cases = {
      {"/v1/completions", "", 400, "the body"},
      {"/v1/completions", "[1]", 400, "object"},
      {"/v1/completions", "{\"prompt\": \"a\", \"prompt\": \"b\"}", 400, "prompt"},
      {"/v1/completions", "{\"prompt\": \"\xff\"}", 400, "UTF-8"},
      {"/v1/completions", std::string(1000, '['), 400, "the body"},
      {"/v1/completions", "{}", 400, "prompt"},
      {"/v1/completions", "{\"prompt\": []}", 400, "prompt"},
      {"/v1/completions", "{\"prompt\": [1, \"a\"]}", 400, "prompt"},
      {"/v1/completions", "{\"prompt\": [99999999]}", 400, "prompt"},
      {"/v1/completions", "{\"prompt\": \"a\", \"n\": 100000}", 400, "n: expected a whole number of 1 to 64"},
      {"/v1/completions", "{\"prompt\": \"a\", \"max_tokens\": -1}", 400, "max_tokens"},
      {"/v1/completions", "{\"prompt\": \"a\", \"max_tokens\": 1e300}", 400, "max_tokens"},
      {"/v1/completions", "{\"prompt\": \"a\", \"temperature\": \"hot\"}", 400, "temperature"},
      {"/v1/completions", "{\"prompt\": \"a\", \"temperature\": -0.1}", 400, "temperature"},
      {"/v1/completions", "{\"prompt\": \"a\", \"stop\": [\"\"]}", 400, "stop"},
      {"/v1/completions", "{\"prompt\": \"a\", \"stream\": 1}", 400, "stream"},
      {"/v1/completions", "{\"prompt\": \"a\", \"logprobs\": 21}", 400, "logprobs"},
      {"/v1/completions", "{\"prompt\": \"a\", \"model\": \"gpt-9\"}", 404, "gpt-9"},
      {"/v1/completions", "{\"prompt\": \"a\", \"echo\": true}", 501, "echo"},
      {"/v1/completions", "{\"prompt\": \"a\", \"logit_bias\": {\"3\": 5}}", 501, "logit_bias"},
      {"/v1/completions", "{\"prompt\": \"a\", \"response_format\": {\"type\": \"json_object\"}}", 501,
       "response_format"},
      {"/v1/chat/completions", "{}", 400, "messages"},
      {"/v1/chat/completions", "{\"messages\": []}", 400, "messages"},
      {"/v1/chat/completions", "{\"messages\": [{\"content\": \"a\"}]}", 400, "messages[0]"},
      {"/v1/chat/completions", "{\"messages\": [{\"role\": \"user\", \"content\": 3}]}", 400,
       "messages[0].content"},
      {"/v1/chat/completions",
       "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}", 501, "image_url"},
      {"/detokenize", "{\"tokens\": [123456789]}", 400, ""},
  };
  for (const Case& c : cases) {
    const Got got = s.ask("POST", c.path, c.body);
    EXPECT_EQ(got.status, c.status) << c.body << got.body;
    EXPECT_THAT(got.json()["error"]["message"].get<std::string>(), HasSubstr(c.says)) << c.body;
  }
  std::string longer;
  for (int i = 0; i < 300; ++i) longer += "word ";
  EXPECT_EQ(s.post("/v1/completions", {{"prompt", longer}}).status, 400);
  EXPECT_EQ(s.ask("GET", "/v1/completions").status, 405);
  EXPECT_EQ(s.ask("GET", "/v1/nothing").status, 404);
  EXPECT_EQ(s.engine().stats().free_blocks, s.engine().stats().blocks);
}

TEST(App, TooManyWaitingAreToldToComeBack) {
  EngineOptions e = Serving::small();
  e.waiting = 2;
  Serving s({}, e);
  s.ready(false);  // nothing steps, so everything waits
  std::vector<std::unique_ptr<Client>> clients;
  const std::string body = story(4).dump();
  for (int i = 0; i < 2; ++i) {
    clients.push_back(std::make_unique<Client>(s.port()));
    clients.back()->send(
        fmt::format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}", body.size(), body));
  }
  while (s.engine().stats().waiting < 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const Got refused = s.post("/v1/completions", story(4));
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.head, HasSubstr("Retry-After: 1"));
  Json two = story(4);
  two["prompt"] = {"a", "b"};
  EXPECT_EQ(s.post("/v1/completions", two).status, 429);  // none or all
  while (s.engine().step()) {
  }
  for (auto& client : clients) EXPECT_THAT(client->read_until("total_tokens"), StartsWith("HTTP/1.1 200"));
}

TEST(App, AClientThatLeavesIsNotWorkedFor) {
  Serving s;
  s.ready();
  Json body = story(200);
  body["stream"] = true;
  const std::string text = body.dump();
  {
    Client client(s.port());
    client.send(
        fmt::format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}", text.size(), text));
    client.read_until("data: ");
  }
  for (int i = 0; i < 500 && s.engine().stats().free_blocks < s.engine().stats().blocks; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(s.engine().stats().free_blocks, s.engine().stats().blocks);
}

TEST(App, PagesOfTheNamedOriginMayCall) {
  AppOptions o = with_keys({"k"});
  o.cors_origin = "https://example.org";
  Serving s(o);
  s.ready();
  const Got asked = s.ask("OPTIONS", "/v1/chat/completions");
  EXPECT_EQ(asked.status, 200);
  EXPECT_THAT(asked.head, HasSubstr("Access-Control-Allow-Origin: https://example.org"));
  EXPECT_THAT(s.ask("GET", "/v1/models").head, HasSubstr("Access-Control-Allow-Origin"));  // errors too
}

}  // namespace
}  // namespace lathe
