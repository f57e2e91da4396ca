#include "server/app.h"

#include <chrono>
#include <openssl/crypto.h>

#include "core/hash.h"
#include "core/log.h"
#include "server/api_error.h"
#include "server/chat.h"
#include "server/chat_prompt.h"
#include "server/completions.h"
#include "server/embeddings.h"
#include "server/fields.h"
#include "server/llama_cpp.h"
#include "server/messages.h"
#include "server/page.h"
#include "server/request_body.h"
#include "server/responses.h"
#include "server/tools.h"

namespace lathe {
namespace {

constexpr std::string_view json_type = "application/json";

void send_json(HttpExchange& exchange, const Json& j, int status = 200) {
  exchange.send(status, json_type, j.dump(-1, ' ', false, Json::error_handler_t::replace));
}

// Adds headers to whatever answer comes, and says when it is over.
class Decorated final : public HttpExchange {
 public:
  Decorated(std::shared_ptr<HttpExchange> inner, Headers headers)
      : inner_(std::move(inner)), headers_(std::move(headers)) {}
  void send(int status, std::string_view type, std::string body, const Headers& more) override {
    inner_->send(status, type, std::move(body), with(more));
  }
  void start(int status, std::string_view type, const Headers& more) override {
    inner_->start(status, type, with(more));
  }
  void write(std::string chunk) override { inner_->write(std::move(chunk)); }
  void finish() override { inner_->finish(); }
  void on_gone(std::function<void()> call) override { inner_->on_gone(std::move(call)); }

 private:
  Headers with(const Headers& more) const {
    Headers all = headers_;
    all.insert(more.begin(), more.end());
    return all;
  }
  std::shared_ptr<HttpExchange> inner_;
  Headers headers_;
};

// A line of JSON when the answer is over.
class Logged final : public HttpExchange {
 public:
  Logged(std::shared_ptr<HttpExchange> inner, const HttpRequest& r)
      : inner_(std::move(inner)),
        line_({{"client", r.client},
               {"method", r.method},
               {"path", r.path},
               {"request_bytes", r.body.size()}}) {}
  ~Logged() override {
    line_["status"] = status_.load();
    line_["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    line_["response_bytes"] = bytes_.load();
    info("{}", line_.dump(-1, ' ', true,
                          Json::error_handler_t::replace));  // ASCII: no text of others breaks a line
  }
  void send(int status, std::string_view type, std::string body, const Headers& h) override {
    status_ = status;
    bytes_ += body.size();
    inner_->send(status, type, std::move(body), h);
  }
  void start(int status, std::string_view type, const Headers& h) override {
    status_ = status;
    inner_->start(status, type, h);
  }
  void write(std::string chunk) override {
    bytes_ += chunk.size();
    inner_->write(std::move(chunk));
  }
  void finish() override { inner_->finish(); }
  void on_gone(std::function<void()> call) override { inner_->on_gone(std::move(call)); }

 private:
  std::shared_ptr<HttpExchange> inner_;
  Json line_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::atomic<int> status_ = 0;
  std::atomic<size_t> bytes_ = 0;
};

using Body = const Json&;
using To = std::shared_ptr<HttpExchange>;

void models(Service& s, Body, To answer) {
  const auto one = [&](const std::string& name) {
    return Json{{"id", name},
                {"object", "model"},
                {"created", s.created},
                {"owned_by", "lathe"},
                {"max_model_len", s.engine.context()}};
  };
  Json all = Json::array({one(s.model)});
  for (const std::string& name : s.adapters) {  // as vLLM lists them
    all.push_back(one(name));
    all.back()["parent"] = s.model;
  }
  send_json(*answer, {{"object", "list"}, {"data", std::move(all)}});
}

void tokenize(Service& s, Body body, To answer) {
  const Fields f(body);
  std::vector<int32_t> tokens;
  if (f.has("messages")) {
    tokens = chat_tokens(s, chat_text(s, f, listed_tools(f)));
  } else {
    const auto text =
        f.has("content") ? f.text("content") : f.text("prompt");  // llama.cpp's name, and vLLM's
    if (!text) throw ApiError::bad_request("prompt: expected a string, found none", "prompt");
    Tokenizer::EncodeOptions options;
    options.add_special_tokens = f.boolean("add_special_tokens", f.boolean("add_special", true));
    tokens = s.tokenizer.encode(*text, options);
  }
  send_json(*answer, {{"tokens", tokens}, {"count", tokens.size()}, {"max_model_len", s.engine.context()}});
}

void detokenize(Service& s, Body body, To answer) {
  const Fields f(body);
  const std::string text = s.tokenizer.decode(f.tokens("tokens", static_cast<size_t>(INT32_MAX)));
  send_json(*answer, {{"prompt", text}, {"content", text}});  // vLLM's name, and llama.cpp's
}

void apply_template(Service& s, Body body, To answer) {
  const Fields f(body);
  send_json(*answer, {{"prompt", chat_text(s, f, listed_tools(f))}});
}

void metrics(Service& s, Body, To answer) {
  answer->send(200, "text/plain; version=0.0.4", s.metrics.text(s.engine.stats()));
}

struct Route {
  std::string_view method, path;
  void (*run)(Service&, Body, To);
};
constexpr Route routes[] = {
    {"POST", "/v1/chat/completions", chat_complete},
    {"POST", "/v1/completions", complete},
    {"POST", "/v1/responses", respond},
    {"POST", "/v1/messages", messages},
    {"POST", "/v1/messages/count_tokens", count_message_tokens},
    {"POST", "/v1/embeddings", embed},
    {"POST", "/v1/rerank", rerank},
    {"POST", "/completion", llama_complete},
    {"POST", "/completions", llama_complete},
    {"GET", "/props", llama_props},
    {"GET", "/slots", llama_slots},
    {"GET", "/v1/models", models},
    {"POST", "/tokenize", tokenize},
    {"POST", "/detokenize", detokenize},
    {"POST", "/apply-template", apply_template},
    {"GET", "/metrics", metrics},
    {"GET", "/report.json", report_json},
    {"GET", "/report.html", report_html},
};

}  // namespace

App::App(const AppOptions& options) : options_(options), rate_(options.requests_per_minute) {}

// Equal digests mean equal keys, and comparing digests takes the same time whatever a guess got right.
std::optional<std::string> App::caller(const HttpRequest& r) const {
  if (options_.api_keys.empty()) return r.client;
  std::string given;
  if (const auto it = r.headers.find("x-api-key"); it != r.headers.end()) given = it->second;
  static constexpr std::string_view bearer = "Bearer ";
  if (const auto it = r.headers.find("authorization");
      it != r.headers.end() && it->second.starts_with(bearer))
    given = it->second.substr(bearer.size());
  const std::string digest = sha256(given);
  bool known = false;
  for (const std::string& key : options_.api_keys) {
    const std::string expected = sha256(key);
    known |= CRYPTO_memcmp(digest.data(), expected.data(), digest.size()) == 0;
  }
  return known ? std::optional(digest) : std::nullopt;
}

void App::route(const HttpRequest& r, std::shared_ptr<HttpExchange> exchange) {
  Service* service = service_;
  const ApiError loading(503, "unavailable_error", "the model is loading");
  if (r.path == "/health" || r.path == "/v1/health") {
    if (r.method != "GET") throw ApiError(405, "invalid_request_error", "expected GET");
    if (!service) throw loading;
    return send_json(*exchange, {{"status", "ok"}});
  }
  if (r.method == "GET" && send_page_file(r.path, *exchange)) return;
  const std::optional<std::string> who = caller(r);
  if (!who) throw ApiError(401, "authentication_error", "expected a valid API key");
  bool path_known = false;
  for (const Route& route : routes) {
    if (route.path != r.path) continue;
    path_known = true;
    if (route.method != r.method) continue;
    if (!service) throw loading;
    const bool asks = r.method == "POST";
    if (const auto wait = asks ? rate_.take(*who) : std::chrono::milliseconds(0); wait.count() > 0)
      throw ApiError(429, "rate_limit_error",
                     fmt::format("expected at most {} requests a minute", options_.requests_per_minute))
          .after(std::chrono::ceil<std::chrono::seconds>(wait));
    try {
      const Json body = asks ? parse_body(r.body) : Json();
      return route.run(*service, body, exchange);
    } catch (const Busy& e) {
      throw ApiError(429, "rate_limit_error", e.what());
    } catch (const InputError& e) {
      throw ApiError::bad_request(e.what());
    }
  }
  throw path_known
      ? ApiError(405, "invalid_request_error", fmt::format("{} is not for {}", r.path, printable(r.method)))
      : ApiError(404, "not_found_error", fmt::format("there is no {}", printable(r.path)));
}

void App::handle(HttpRequest r, std::shared_ptr<HttpExchange> exchange) {
  if (options_.access_log) exchange = std::make_shared<Logged>(std::move(exchange), r);
  if (!options_.cors_origin.empty()) {
    exchange = std::make_shared<Decorated>(
        std::move(exchange),
        HttpExchange::Headers{{"Access-Control-Allow-Origin", options_.cors_origin}, {"Vary", "Origin"}});
    if (r.method == "OPTIONS")
      return exchange->send(200, "", "",
                            {{"Access-Control-Allow-Methods", "GET, POST"},
                             {"Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key"}});
  }
  try {
    route(r, exchange);
  } catch (const ApiError& e) {
    const bool anthropic = r.path.starts_with("/v1/messages");
    const Json body = anthropic ? anthropic_error(e) : e.body();
    exchange->send(e.status(), json_type, body.dump(-1, ' ', false, Json::error_handler_t::replace),
                   e.headers());
  }
}

}  // namespace lathe
