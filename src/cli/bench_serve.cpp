// lathe bench serve: load on an OpenAI-compatible server, ours or any, and what its users would have seen.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <memory>

#include "cli/bench_serve_client.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "eval/report.h"

namespace lathe {
namespace {

constexpr int64_t default_concurrency = 16;
constexpr int64_t most_tokens = 10'000'000;  // of one prompt, which is made in memory

struct Options {
  std::string url = "http://127.0.0.1:8080", model, trace, text;
  ClientOptions client;
  LoadOptions load;
  double speedup = 1, temperature = 0;
  int64_t shared_prefix = 0, vocab = 500, warmup = 1;
  bool chat = false, ignore_eos = false, json = false;
  std::vector<std::string> slo;
};

std::string request_body(const Options& o, const Prompts& prompts, size_t index, const Arrival& a) {
  Json j = {{"model", o.model},
            {"max_tokens", a.output_tokens},
            {"temperature", o.temperature},
            {"stream", true},
            {"stream_options", {{"include_usage", true}}}};
  if (o.ignore_eos) j["ignore_eos"] = true;
  Json prompt = prompts.prompt(index, a);
  if (o.chat)
    j["messages"] = {{{"role", "user"}, {"content", std::move(prompt)}}};
  else
    j["prompt"] = std::move(prompt);
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void print(const ServeSummary& s, const Slo& slo) {
  fmt::print("{} requests in {:.2f} s", s.done, s.seconds);
  for (const auto& [n, what] :
       {std::pair{s.refused, "refused (429, 503)"}, {s.failed, "failed"}, {s.open, "unfinished"}})
    if (n > 0) fmt::print(", {} {}", n, what);
  fmt::print("\n{:.2f} requests/s; {:.1f} tokens/s generated, {:.1f} with prompts\n", s.requests_per_s,
             s.output_tokens_per_s, s.total_tokens_per_s);
  fmt::print("{} prompt tokens ({} from the prefix cache), {} generated\n", s.prompt_tokens, s.cached_tokens,
             s.output_tokens);
  if (slo.any()) fmt::print("goodput {:.2f} requests/s within the SLO\n", s.goodput);
  fmt::print("\n{:24} {:>10} {:>10} {:>10} {:>10}\n", "ms", "mean", "p50", "p90", "p99");
  const std::pair<const char*, const Spread*> rows[] = {{"to the first token (TTFT)", &s.ttft},
                                                        {"per token after (TPOT)", &s.tpot},
                                                        {"between chunks (ITL)", &s.itl},
                                                        {"whole request (E2E)", &s.e2e}};
  for (const auto& [name, x] : rows)
    fmt::print("{:25} {:>9.2f} {:>10.2f} {:>10.2f} {:>10.2f}\n", name, x->mean * 1e3, x->p50 * 1e3,
               x->p90 * 1e3, x->p99 * 1e3);
}

// One after the other, before anything is timed: a server that cannot answer is told from one that is slow.
void warm_up(const Options& o, const Prompts& prompts, const std::vector<Arrival>& arrivals,
             const std::atomic<bool>& stop) {
  const auto n = std::min(static_cast<size_t>(o.warmup), arrivals.size());
  std::vector<Arrival> some(arrivals.begin(), arrivals.begin() + static_cast<std::ptrdiff_t>(n));
  for (Arrival& a : some) a.at = 0;
  ClientOptions client = o.client;
  client.concurrency = 1;
  std::vector<Measured> results;
  // Prompts of their own, so that they do not fill the prefix cache with what is measured.
  send_load(
      client, some, [&](size_t i) { return request_body(o, prompts, arrivals.size() + i, some[i]); }, results,
      [](int64_t) {}, stop);
  for (const Measured& m : results)
    if (m.outcome == Measured::Outcome::failed)
      throw Error(fmt::format("{}: expected an answer, found: {}", o.url, printable(m.error)));
}

void bench_serve(Options o) {
  const Slo slo = parse_slo(o.slo);
  if (o.chat && o.text.empty()) throw input_error("--chat", "--text FILE, which chats are made of", "none");
  if (o.chat) o.client.path = "/v1/chat/completions";
  o.client.server = parse_url(o.url);
  if (o.client.concurrency == 0 && o.load.rate == 0 && o.trace.empty())
    o.client.concurrency = default_concurrency;
  const std::vector<Arrival> arrivals =
      o.trace.empty() ? synthetic_arrivals(o.load) : trace_arrivals(o.trace, o.load, o.speedup);
  const Prompts prompts(o.load.seed, o.vocab, o.shared_prefix,
                        o.text.empty() ? std::string() : std::string(Mapping(o.text).text()));
  if (o.model.empty()) o.model = served_model(o.client);

  std::atomic<bool> stop = false;
  const OnInterrupt interrupt([&] { stop = true; });
  warm_up(o, prompts, arrivals, stop);
  std::vector<Measured> results;
  double seconds = 0;
  {
    Progress progress("requests", static_cast<int64_t>(arrivals.size()));
    seconds = send_load(
        o.client, arrivals, [&](size_t i) { return request_body(o, prompts, i, arrivals[i]); }, results,
        [&](int64_t open) { progress.advance(1, fmt::format("{} open", open)); }, stop);
  }
  if (stop) warn("interrupted: what follows is of the requests that had ended");
  const ServeSummary summary = summarize(results, seconds, slo);
  if (summary.failed > 0)
    warn("{} requests failed, the first: {}", summary.failed, printable(summary.first_error));
  if (o.json) {
    Json json = to_json(summary, slo);
    json["url"] = o.url;
    json["model"] = o.model;
    print_json(json);
  } else {
    print(summary, slo);
  }
  if (summary.done == 0) throw Error(fmt::format("{}: no request ended well", o.url));
}

}  // namespace

void add_bench_serve(CLI::App& bench) {
  auto o = std::make_shared<Options>();
  CLI::App& verb =
      *bench.add_subcommand("serve", "Load an OpenAI-compatible server; latencies and throughput");
  verb.footer("Example:\n  lathe bench serve http://127.0.0.1:8080 --rate 4 --requests 200 --slo ttft:500");
  verb.add_option("URL", o->url, "Where it listens; any server of this API")->capture_default_str();
  verb.add_option("--model", o->model, "Its name there; default: the first of /v1/models");
  verb.add_option("--api-key", o->client.api_key, "Sent as a bearer token");
  verb.add_option("--ca", o->client.authority,
                  "PEM certificates to trust behind https://; default: the system's")
      ->check(CLI::ExistingFile);
  verb.add_flag("--insecure", o->client.insecure, "Trust whoever answers behind https://");
  verb.add_option("--requests", o->load.requests, "How many; default: 100, or all of a trace")
      ->check(CLI::Range(1, 10'000'000));
  verb.add_option("--rate", o->load.rate,
                  "Arrivals a second at random times (Poisson), whatever is still open")
      ->check(CLI::PositiveNumber);
  verb.add_option("--concurrency", o->client.concurrency,
                  "Requests open at once; default without --rate and --trace: 16")
      ->check(CLI::PositiveNumber);
  CLI::Option* trace = verb.add_option("--trace", o->trace,
                                       "Replay arrivals and lengths: Azure's CSV or Mooncake's JSON lines")
                           ->check(CLI::ExistingFile)
                           ->excludes("--rate");
  verb.add_option("--speedup", o->speedup, "Divides the trace's times")
      ->check(CLI::PositiveNumber)
      ->needs(trace)
      ->capture_default_str();
  verb.add_option("--input-tokens", o->load.input_tokens,
                  "Tokens of a prompt; default: 256, or what a trace has; of a trace's: at most")
      ->check(CLI::Range(int64_t{1}, most_tokens));
  verb.add_option("--output-tokens", o->load.output_tokens,
                  "Tokens of an answer at most; default: 128, or what a trace has")
      ->check(CLI::Range(int64_t{1}, most_tokens));
  verb.add_option("--shared-prefix", o->shared_prefix,
                  "Tokens at the beginning of every prompt that are the same")
      ->check(CLI::Range(int64_t{0}, most_tokens))
      ->capture_default_str();
  verb.add_option("--vocab", o->vocab, "Prompts are random token ids of 100 to this")->capture_default_str();
  verb.add_option("--text", o->text, "Prompts are pieces of this file, four bytes a token")
      ->check(CLI::ExistingFile);
  verb.add_flag("--chat", o->chat, "Ask /v1/chat/completions");
  verb.add_flag("--ignore-eos", o->ignore_eos, "Answers do not end before --output-tokens");
  verb.add_option("--temperature", o->temperature, "0: the likeliest token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--slo", o->slo,
                  "A bound in ms for goodput, as ttft:500, tpot:50 or e2e:9000; may be repeated");
  verb.add_option("--warmup", o->warmup, "Requests before those measured, one at a time")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--timeout", o->client.timeout, "Seconds that a request may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_seed(verb, o->load.seed);
  add_json(verb, o->json);
  verb.callback([o] { bench_serve(*o); });
}

}  // namespace lathe
