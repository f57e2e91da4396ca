#include "server/app.h"

#include <chrono>
#include <cstdio>
#include <ctime>
#include <mutex>
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
#include "server/not_done.h"
#include "server/page.h"
#include "server/reply.h"
#include "server/request_body.h"
#include "server/responses.h"
#include "server/tools.h"

namespace lathe {
namespace {

constexpr std::string_view json_type = "application/json";

void send_json(HttpExchange& exchange, const Json& j) { exchange.send(200, json_type, json_text(j)); }

// In the shape that the clients of a path read.
Json error_json(std::string_view path, const ApiError& e) {
  return path.starts_with("/v1/messages") ? anthropic_error(e) : e.body();
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
  void annotate(const Json& more) override { inner_->annotate(more); }

 private:
  Headers with(const Headers& more) const {
    Headers all = headers_;
    all.insert(more.begin(), more.end());
    return all;
  }
  std::shared_ptr<HttpExchange> inner_;
  Headers headers_;
};

// Counts answers, once there is somebody who counts, and clients that leave before their ends.
class Counted final : public HttpExchange {
 public:
  Counted(std::shared_ptr<HttpExchange> inner, Metrics& metrics)
      : inner_(std::move(inner)), metrics_(metrics) {}
  void send(int status, std::string_view type, std::string body, const Headers& h) override {
    metrics_.answered(status);
    inner_->send(status, type, std::move(body), h);
  }
  void start(int status, std::string_view type, const Headers& h) override {
    metrics_.answered(status);
    inner_->start(status, type, h);
  }
  void write(std::string chunk) override { inner_->write(std::move(chunk)); }
  void finish() override { inner_->finish(); }
  void on_gone(std::function<void()> call) override {
    inner_->on_gone([&metrics = metrics_, call = std::move(call)] {
      metrics.client_left();
      call();
    });
  }
  void annotate(const Json& more) override { inner_->annotate(more); }

 private:
  std::shared_ptr<HttpExchange> inner_;
  Metrics& metrics_;
};

// "2026-01-31T23:59:59.123Z"
std::string time_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const int64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = ms / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900, utc.tm_mon + 1,
                     utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, ms % 1000);
}

// A line of JSON when the answer is over.
class Logged final : public HttpExchange {
 public:
  Logged(std::shared_ptr<HttpExchange> inner, const HttpRequest& r, const std::string& id)
      : inner_(std::move(inner)),
        line_({{"time", time_now()},
               {"id", id},
               {"client", r.client},
               {"method", r.method},
               {"path", r.path},
               {"request_bytes", r.body.size()}}) {}
  ~Logged() override {
    line_["status"] = status_.load();
    line_["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    line_["response_bytes"] = bytes_.load();
    line_["client_left"] = left_->load();
    // For programs, so without a word before it; ASCII: no text of others breaks a line.
    fmt::print(stderr, "{}\n", line_.dump(-1, ' ', true, Json::error_handler_t::replace));
  }
  void annotate(const Json& more) override {
    const std::lock_guard lock(mutex_);
    line_.update(more);
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
  void on_gone(std::function<void()> call) override {
    inner_->on_gone([left = left_, call = std::move(call)] {
      *left = true;
      call();
    });
  }

 private:
  std::shared_ptr<HttpExchange> inner_;
  std::mutex mutex_;  // guards line_
  Json line_;
  std::shared_ptr<std::atomic<bool>> left_ = std::make_shared<std::atomic<bool>>(false);  // outlives this
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::atomic<int> status_ = 0;
  std::atomic<size_t> bytes_ = 0;
};

using Body = const Json&;
using To = std::shared_ptr<HttpExchange>;

Json all_models(const Service& s) {
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
  return all;
}

void models(Service& s, Body, To answer) {
  send_json(*answer, {{"object", "list"}, {"data", all_models(s)}});
}

void model(Service& s, Body name, To answer) {
  for (const Json& one : all_models(s))
    if (one["id"] == name) return send_json(*answer, one);
  throw ApiError(404, "not_found_error",
                 fmt::format("there is no model '{}'", printable(name.get<std::string>())), "model");
}

void tokenize(Service& s, Body body, To answer) {
  const Fields f(body);
  if (f.boolean("with_pieces", false))
    throw ApiError(501, "not_supported_error", "with_pieces is not supported but for false", "with_pieces");
  std::vector<int32_t> tokens;
  if (f.has("messages")) {
    refuse_not_done(f, Api::chat);
    tokens = chat_tokens(s, chat_text(s, f, listed_tools(f)));
  } else {
    const bool llama = f.has("content");  // llama.cpp's name, and its default; else vLLM's
    const auto text = llama ? f.text("content") : f.text("prompt");
    if (!text) throw ApiError::bad_request("prompt: expected a string, found none", "prompt");
    Tokenizer::EncodeOptions options;
    options.add_special_tokens = f.boolean("add_special_tokens", f.boolean("add_special", !llama));
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
  refuse_not_done(f, Api::chat);
  send_json(*answer, {{"prompt", chat_text(s, f, listed_tools(f))}});
}

void metrics(Service& s, Body, To answer) {
  answer->send(200, "text/plain; version=0.0.4", s.metrics.text(s.engine.stats()));
}

// A path that ends with a slash is the beginning of many: the rest of it is the body.
struct Route {
  std::string_view method, path;
  void (*run)(Service&, Body, To);
  bool is(std::string_view asked) const {
    return path == asked || (path.ends_with('/') && asked.starts_with(path) && asked != path);
  }
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
    {"GET", "/v1/models/", model},
    {"POST", "/tokenize", tokenize},
    {"POST", "/detokenize", detokenize},
    {"POST", "/apply-template", apply_template},
    {"GET", "/metrics", metrics},
    {"GET", "/report.json", report_json},
    {"GET", "/report.html", report_html},
};

}  // namespace

App::App(const AppOptions& options) : options_(options), rate_(options.requests_per_minute) {
  for (const std::string& key : options.api_keys)
    if (key.empty())
      throw input_error("--api-key", "a key that is not empty", "an empty one",
                        "whoever sends none would have it");
}

std::string App::error_body(std::string_view path, int status, std::string_view message) {
  const char* type = status == 503   ? "unavailable_error"
                     : status == 500 ? "server_error"
                                     : "invalid_request_error";
  return json_text(error_json(path, ApiError(status, type, std::string(message))));
}

// Equal digests mean equal keys, and comparing digests takes the same time whatever a guess got right.
std::optional<std::string> App::caller(const HttpRequest& r) const {
  if (options_.api_keys.empty()) return r.client;
  std::string given;
  if (const auto it = r.headers.find("x-api-key"); it != r.headers.end()) given = it->second;
  static constexpr std::string_view bearer = "Bearer ";
  if (const auto it = r.headers.find("authorization");
      it != r.headers.end() && it->second.starts_with(bearer))
    given = it->second.substr(bearer.size());
  if (given.empty()) return std::nullopt;
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
  if (who && !options_.api_keys.empty()) exchange->annotate({{"key", who->substr(0, 8)}});
  if (!who) throw ApiError(401, "authentication_error", "expected a valid API key");
  bool path_known = false;
  for (const Route& route : routes) {
    if (!route.is(r.path)) continue;
    path_known = true;
    if (route.method != r.method) continue;
    if (!service) throw loading;
    const bool asks = r.method == "POST";
    if (const auto wait = asks ? rate_.take(*who) : std::chrono::milliseconds(0); wait.count() > 0)
      throw ApiError(429, "rate_limit_error",
                     fmt::format("expected at most {} requests a minute", options_.requests_per_minute))
          .after(std::chrono::ceil<std::chrono::seconds>(wait));
    try {
      const Json body = asks ? parse_body(r.body) : Json(r.path.substr(route.path.size()));
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
  const std::string id = random_id("req_");
  if (options_.access_log) exchange = std::make_shared<Logged>(std::move(exchange), r, id);
  if (Service* service = service_)
    exchange = std::make_shared<Counted>(std::move(exchange), service->metrics);
  HttpExchange::Headers headers = {{"X-Request-Id", id}};
  if (!options_.cors_origin.empty())
    headers.insert({{"Access-Control-Allow-Origin", options_.cors_origin},
                    {"Access-Control-Expose-Headers", "Retry-After, X-Request-Id"},
                    {"Vary", "Origin"}});
  exchange = std::make_shared<Decorated>(std::move(exchange), std::move(headers));
  if (!options_.cors_origin.empty() && r.method == "OPTIONS") {
    // Clients have headers of their own, such as X-Stainless-Lang: what counts is the key.
    const auto asked = r.headers.find("access-control-request-headers");
    return exchange->send(
        200, "", "",
        {{"Access-Control-Allow-Methods", "GET, POST"},
         {"Access-Control-Allow-Headers",
          asked != r.headers.end() ? asked->second : "Authorization, Content-Type, X-Api-Key"}});
  }
  if (r.method == "HEAD") r.method = "GET";  // whose body the server leaves out
  const auto refuse = [&](const ApiError& e) {
    exchange->send(e.status(), json_type, json_text(error_json(r.path, e)), e.headers());
  };
  try {
    route(r, exchange);
  } catch (const ApiError& e) {
    refuse(e);
  } catch (const std::exception& e) {
    warn("{} failed: {}", id, printable(e.what()));
    refuse(ApiError::internal());
  }
}

}  // namespace lathe
