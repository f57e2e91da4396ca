// lathe serve: an OpenAI-compatible server on one model.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <set>
#include <thread>

#include "cli/config_file.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "core/log.h"
#include "engine/embedder.h"
#include "engine/turns.h"
#include "io/model_name.h"
#include "models/adapter.h"
#include "models/chat_format.h"
#include "runtime/pack_model.h"
#include "server/app.h"
#include "server/reply.h"

namespace lathe {
namespace {

struct Options {
  std::string config, model, name, key_file, chat_template;
  HttpOptions http;
  AppOptions app;
  EngineOptions engine;
  EmbedderOptions embedder;
  bool embeddings = false;
  size_t grammar_bytes = Grammars::default_source_bytes;
  ServiceLimits limits;
  std::vector<std::pair<std::string, std::string>> adapters;  // name, directory
  size_t kv_mib = 0;
  int64_t drain_seconds = 30;
  double wait_seconds = 0;
};

// One key a line, the blanks around it (and what ends Windows' lines) left out: no header could carry them.
std::vector<std::string> read_keys(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::string> keys;
  constexpr const char* blanks = " \t\r";
  for (std::string line; std::getline(in, line);)
    if (const size_t begin = line.find_first_not_of(blanks); begin != std::string::npos)
      keys.push_back(line.substr(begin, line.find_last_not_of(blanks) + 1 - begin));
  if (keys.empty()) throw input_error(path, "an API key a line", "none");
  return keys;
}

std::optional<ChatFormat> chat_format(const Checkpoint& checkpoint, const std::string& file) {
  std::optional<ChatFormat> format = load_chat_format(checkpoint);
  if (file.empty()) return format;
  ChatTemplate given = ChatTemplate::parse(Mapping(file).text(), file);
  return ChatFormat{std::move(given), format ? format->variables : Json::object()};
}

// Flags' units, with the limits' own values as defaults.
void add_http_limits(CLI::App& verb, HttpLimits& limits) {
  const auto size = [&](const char* flag, size_t& bytes, const char* help) {
    verb.add_option_function<size_t>(
            flag, [&bytes](size_t kib) { bytes = kib << 10; }, help)
        ->check(CLI::Range(size_t{1}, size_t{1} << 20))
        ->default_str(std::to_string(bytes >> 10));
  };
  const auto time = [&](const char* flag, std::chrono::milliseconds& limit, const char* help) {
    const auto set = [&limit](double seconds) {
      limit = std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
    };
    verb.add_option_function<double>(flag, set, help)
        ->check(CLI::Range(0.001, 1e6))
        ->default_str(fmt::format("{}", static_cast<double>(limit.count()) * 1e-3));
  };
  size("--max-body-kib", limits.body_bytes, "Of one request; more is answered 413");
  size("--max-header-kib", limits.header_bytes, "Of one request; more is answered 431");
  size("--max-unsent-kib", limits.unsent_bytes, "Of a stream that its client does not read; more end it");
  time("--header-seconds", limits.header_time, "How long a client may take to send a request's headers");
  time("--body-seconds", limits.body_time, "How long it may take for the body");
  time("--idle-seconds", limits.idle_time, "How long a connection may wait for its next request");
  time("--write-seconds", limits.write_time, "How long a client may take to read what it was sent");
  verb.add_option("--max-connections", limits.connections, "Open at once; more wait to be accepted")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--max-connections-per-address", limits.per_address,
                  "Of one address; more are closed at once; 0: any number")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

// A thread that ends with its scope, whatever ends that.
class Worker {
 public:
  template <class F>
  explicit Worker(F&& loop) : thread_([this, loop = std::forward<F>(loop)] { loop(stop_); }) {}
  ~Worker() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

// Each name is one model.
void check_names(const Options& o) {
  std::set<std::string> names = {o.name};
  for (const auto& [name, directory] : o.adapters)
    if (!names.insert(name).second)
      throw input_error(fmt::format("--lora {}", printable(name)), "a name that no other has",
                        name == o.name ? "the model's" : "another adapter's");
}

void serve(Options o) {
  if (o.name.empty()) o.name = model_name(resolve_model(o.model));
  check_names(o);
  if (!o.key_file.empty())
    for (std::string& key : read_keys(o.key_file)) o.app.api_keys.push_back(std::move(key));
  if (o.http.certificate.empty() != o.http.key.empty())
    throw input_error("--tls-cert and --tls-key", "both or none", "one");

  // Listening first: whoever asks meanwhile learns that the model is loading.
  App app(o.app);
  HttpServer server(
      o.http, [&](HttpRequest r, std::shared_ptr<HttpExchange> e) { app.handle(std::move(r), std::move(e)); },
      App::error_body);
  std::atomic<bool> draining = false;
  const OnInterrupt interrupt([&] {
    info("finishing what is open; interrupt again to stop at once");
    draining = true;
    server.drain();
  });
  std::thread network([&] { server.run(); });
  struct Stop {  // before the engine goes: exchanges belong to the server
    HttpServer& server;
    std::thread& network;
    ~Stop() {
      server.stop();
      network.join();
    }
  };
  const auto start = std::chrono::steady_clock::now();
  std::unique_ptr<Stop> stop = std::make_unique<Stop>(server, network);

  OpenModel opened = open_model(o.model);
  for (size_t i = 0; i < o.adapters.size(); ++i)
    add_adapter(opened.model, o.adapters[i].second, static_cast<int>(i) + 1);
  const Tokenizer tokenizer = load_tokenizer(opened.checkpoint);
  const std::optional<ChatFormat> format = chat_format(opened.checkpoint, o.chat_template);
  if (!format) warn("this model has no chat template: /v1/chat/completions is refused");
  o.engine.kv_bytes = o.kv_mib << 20;
  o.engine.longest_wait = std::chrono::milliseconds(static_cast<int64_t>(o.wait_seconds * 1e3));
  if (o.embeddings) pack_model(opened.model, o.engine.threads);  // once for both
  tell_kv(opened.model, o.engine.kv);
  Engine engine(opened.model, tokenizer, o.engine);
  Metrics metrics(o.name);
  Grammars grammars(tokenizer, o.grammar_bytes);
  std::unique_ptr<Embedder> embedder;
  if (o.embeddings) {
    o.embedder.threads = o.engine.threads;
    embedder = std::make_unique<Embedder>(opened.model, o.embedder);
  }
  Service service{engine,
                  tokenizer,
                  format ? &format->chat : nullptr,
                  format ? format->variables : Json::object(),
                  o.name,
                  seconds_now(),
                  stop_tokens(opened.checkpoint),
                  metrics,
                  grammars,
                  embedder.get(),
                  o.limits,
                  {},
                  load_report(opened.checkpoint.path())};
  for (const auto& [name, directory] : o.adapters) service.adapters.push_back(name);
  const Worker stepping([&](const std::atomic<bool>& ended) { step_until(ended, engine, embedder.get()); });
  app.serve(service);
  info("{} is ready at http{}://{}:{} after {:.2f} s; {} KV blocks of {} tokens, context {}", o.name,
       o.http.certificate.empty() ? "" : "s", o.http.host, server.port(),
       std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), engine.stats().blocks,
       o.engine.block_tokens, engine.context());

  while (!draining) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(o.drain_seconds);
  while (server.open_exchanges() > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  if (server.open_exchanges() > 0) warn("{} requests did not end in time", server.open_exchanges());
  stop.reset();
}

}  // namespace

void add_serve(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb =
      add_verb(app, "serve", "Serve a model to many users, as OpenAI's API does", "builtin --port 8080");
  add_model(verb, o->model).required(false);  // it may be in --config
  verb.add_option("--config", o->config,
                  "A YAML file of these flags: keys are their names without --, and model; what the command "
                  "line says comes first (docs/serving.md)")
      ->check(CLI::ExistingFile);
  verb.add_option("--host", o->http.host, "The address to listen on")->capture_default_str();
  verb.add_option("--port", o->http.port, "0: any free one")->capture_default_str();
  verb.add_option("--model-name", o->name, "What clients call the model; default: its directory's name");
  verb.add_option(
          "--lora", o->adapters,
          "NAME DIRECTORY: a LoRA adapter (PEFT's files) that clients choose by this name as their model; "
          "may be repeated")
      ->type_name("NAME DIRECTORY");
  verb.add_option("--chat-template", o->chat_template, "A Jinja template in place of the model's own")
      ->check(CLI::ExistingFile);
  verb.add_option("--api-key", o->app.api_keys, "A key that clients must send; may be repeated");
  verb.add_option("--api-key-file", o->key_file, "A file with a key a line")->check(CLI::ExistingFile);
  verb.add_option("--tls-cert", o->http.certificate, "A PEM certificate chain: serve HTTPS")
      ->check(CLI::ExistingFile);
  verb.add_option("--tls-key", o->http.key, "Its PEM key")->check(CLI::ExistingFile);
  verb.add_option("--cors-origin", o->app.cors_origin, "The origin of web pages that may call; '*': any");
  verb.add_option(
          "--requests-per-minute", o->app.requests_per_minute,
          "Of one key, or of one address where there are no keys; more are answered 429; 0: any number")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--max-prompt-tokens", o->limits.prompt_tokens, "Of one prompt; 0: what the context holds")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--max-output-tokens", o->limits.output_tokens,
                  "Of one answer, whatever was asked for; 0: what the context holds")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--max-choices", o->limits.choices, "Of one request, all its prompts' together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--max-grammar-bytes", o->grammar_bytes, "Of one grammar, schema or expression")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_http_limits(verb, o->http.limits);
  verb.add_flag("--access-log", o->app.access_log, "A line of JSON per request on stderr");
  verb.add_option("--context", o->engine.context, "Longest prompt and answer together; 0: the model's")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--kv-memory-mib", o->kv_mib,
                  "Memory of the KV cache; 0: eight sequences of the whole context")
      ->capture_default_str();
  add_kv_dtype(verb, o->engine.kv);
  verb.add_option("--block-tokens", o->engine.block_tokens, "Tokens of a KV block")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  verb.add_option("--max-sequences", o->engine.sequences, "Sequences that run at once")
      ->check(CLI::Range(int64_t{1}, most_sampled_outputs))
      ->capture_default_str();
  verb.add_option("--step-tokens", o->engine.step_tokens, "Rows of a step at most")
      ->check(CLI::Range(1, 8192))
      ->capture_default_str();
  verb.add_option(
          "--mixed-prompt", o->engine.mixed_prompt,
          "Prompt rows of a step in which others decode; 0: measured, so that a prompt that meets eight "
          "streams at most doubles the time between their tokens")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--max-waiting", o->engine.waiting, "Requests that may wait; more are answered 429")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--max-wait-seconds", o->wait_seconds,
                  "How long a request may wait for its first step; later it is answered 429; 0: any time")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_flag("!--no-prefix-cache", o->engine.prefix_cache, "Compute every prompt anew");
  verb.add_flag("--embeddings", o->embeddings,
                "Answer /v1/embeddings and /v1/rerank too, on the same packed weights");
  static const std::map<std::string, Pooling> poolings = {
      {"mean", Pooling::mean}, {"last", Pooling::last}, {"cls", Pooling::cls}};
  verb.add_option("--pooling", o->embedder.pooling, "How the rows of a text become its vector")
      ->transform(CLI::CheckedTransformer(poolings))
      ->default_str("mean");
  verb.add_option("--embedding-tokens", o->embedder.longest,
                  "Longest text; 0: 2048, or the model's context where that is less")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--drain-seconds", o->drain_seconds, "How long open answers may take after an interrupt")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_threads(verb, o->engine.threads);
  verb.callback([o, &verb] {
    if (!o->config.empty()) apply_config(verb, o->config);
    if (o->model.empty())
      throw input_error("lathe serve", "MODEL, or `model` in the file of --config", "neither");
    if (!o->embeddings)  // which the file may say too, so no needs()
      for (const char* option : {"--pooling", "--embedding-tokens"})
        if (verb.get_option(option)->count() > 0)
          throw input_error(option, "--embeddings beside it", "none: no text would become a vector");
    serve(*o);
  });
}

}  // namespace lathe
