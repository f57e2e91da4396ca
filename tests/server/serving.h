// The built-in model behind a server on this machine, and what it answers.
#pragma once

#include <functional>
#include <gtest/gtest.h>
#include <string>
#include <thread>
#include <vector>

#include "core/json.h"
#include "engine/turns.h"
#include "models/model.h"
#include "server/app.h"
#include "server/client.h"
#include "text/chat_template.h"

namespace lathe {

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

// A template that shows tools and calls as Hermes' models do.
inline constexpr const char* hermes =
    "{% if tools %}{% for t in tools %}{{ t.function.name }} {% endfor %}as <tool_call>\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls %}"
    "{{ c.function.name }}={{ c.function.arguments.city }}{% endfor %} {% endfor %}Answer:";

inline std::string without_chunks(const std::string& body) {
  std::string all;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\r\n", at);
    const size_t n = std::stoul(body.substr(at, end - at), nullptr, 16);
    all += body.substr(end + 2, n);
    at = end + 2 + n + 2;
  }
  return all;
}

// The built-in model, or another one, behind a server on this machine.
class Serving {
 public:
  explicit Serving(AppOptions options = {}, EngineOptions engine = small(),
                   const std::string& chat_template = plain_template, const ServiceLimits& limits = {},
                   const std::function<void(Model&)>& change_model = {}, const std::string& model = "builtin")
      : checkpoint_(Checkpoint::open(resolve_model(model))),
        model_(changed(load(checkpoint_), change_model)),
        tokenizer_(load_tokenizer(checkpoint_)),
        chat_(ChatTemplate::parse(chat_template)),
        app_(options),
        server_(
            http(),
            [this](HttpRequest r, std::shared_ptr<HttpExchange> e) {
              app_.handle(std::move(r), std::move(e));
            },
            App::error_body),
        network_([this] { server_.run(); }),
        engine_(model_, tokenizer_, engine) {
    service_.limits = limits;
  }
  ~Serving() {
    ended_ = true;
    if (stepping_.joinable()) stepping_.join();
    server_.stop();
    network_.join();
  }
  void ready(bool step = true) {
    app_.serve(service_);
    if (!step) return;
    stepping_ = std::thread([this] { step_until(ended_, engine_, &embedder_); });
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
  // The first choice of the answer, which must be one, and its text.
  Json choice(const Json& body, const std::string& path = "/v1/completions") {
    const Got got = post(path, body);
    EXPECT_EQ(got.status, 200) << got.body;
    return got.status == 200 ? got.json()["choices"][0] : Json::object();
  }
  std::string text(const Json& body) { return choice(body).value("text", ""); }
  // Every block of keys and values comes back. The last step may be counting still when its answer is here.
  void expect_all_blocks_free() {
    for (int i = 0; i < 500 && engine_.stats().free_blocks < engine_.stats().blocks; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(engine_.stats().free_blocks, engine_.stats().blocks);
  }
  // A model that has learned no JSON loves the white space between its values.
  Json no_space() const {
    Json bias = Json::object();
    for (int32_t id = 0; id < tokenizer_.vocab_size(); ++id) {
      const std::string text = tokenizer_.decode({&id, 1});
      if (!text.empty() && text.find_first_not_of(" \n\r\t") == std::string::npos)
        bias[std::to_string(id)] = -100;
    }
    return bias;
  }
  uint16_t port() const { return server_.port(); }
  Engine& engine() { return engine_; }
  Service& service() { return service_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }

  static constexpr const char* plain_template =
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}Answer:";
  static EngineOptions small() {
    EngineOptions o;
    o.context = 256;
    o.mixed_prompt = 64;
    return o;
  }

 private:
  static Model changed(Model model, const std::function<void(Model&)>& change) {
    if (change) change(model);
    return model;
  }
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
  Grammars grammars_{tokenizer_};
  Engine engine_;
  Embedder embedder_{model_, {.threads = 1, .longest = 64}};
  Service service_{engine_, tokenizer_, &chat_,   Json::object(), "builtin",
                   1,       {},         metrics_, grammars_,      &embedder_};
  std::thread stepping_;
  std::atomic<bool> ended_ = false;
};

}  // namespace lathe
