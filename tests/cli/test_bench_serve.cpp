// The load generator: what it sends, what it reads, what it makes of that.
#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>
#include <thread>

#include "cli/bench_serve_client.h"
#include "server/certificate.h"
#include "server/http.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::ElementsAre;
using testing::HasSubstr;
using Outcome = Measured::Outcome;

TEST(BenchServe, EventsAreTheSameHoweverTheBytesAreCut) {
  const std::string bytes =
      "data: one\n\n: comment\n\ndata:two\r\ndata: three\r\n\r\nevent: x\ndata: [DONE]\n\n";
  for (size_t cut = 1; cut <= bytes.size(); ++cut) {
    SseReader reader;
    std::vector<std::string> events;
    for (size_t i = 0; i < bytes.size(); i += cut)
      reader.push(std::string_view(bytes).substr(i, cut),
                  [&](std::string_view e) { events.emplace_back(e); });
    EXPECT_THAT(events, ElementsAre("one", "two\nthree", "[DONE]")) << cut;
  }
}

TEST(BenchServe, Urls) {
  const ServerUrl a = parse_url("http://host:8000/api/v1/");
  EXPECT_EQ(a.host + "|" + a.port + "|" + a.prefix, "host|8000|/api");
  const ServerUrl b = parse_url("http://[::1]:81");
  EXPECT_EQ(b.host + "|" + b.port + "|" + b.prefix, "::1|81|");
  EXPECT_EQ(parse_url("http://host").port, "80");
  EXPECT_FALSE(a.tls);
  const ServerUrl c = parse_url("https://host/v1");
  EXPECT_EQ(c.host + "|" + c.port + "|" + c.prefix, "host|443|");
  EXPECT_TRUE(c.tls);
  for (const char* wrong : {"host:80", "ftp://host", "https://", "http://", "http://host:x", "http://[::1"})
    EXPECT_THROW(parse_url(wrong), InputError) << wrong;
}

TEST(BenchServe, PercentilesInterpolateAsNumpys) {
  // numpy.percentile([1, 2, 4, 8], [50, 90, 99])
  const Spread s = spread({8, 1, 4, 2});
  EXPECT_DOUBLE_EQ(s.mean, 3.75);
  EXPECT_DOUBLE_EQ(s.p50, 3);
  EXPECT_NEAR(s.p90, 6.8, 1e-12);
  EXPECT_NEAR(s.p99, 7.88, 1e-12);
  EXPECT_EQ(spread({}).p99, 0);
}

TEST(BenchServe, SummaryCountsWhatEndedWell) {
  Measured good{.outcome = Outcome::done,
                .sent = 1,
                .first = 1.5,
                .last = 3.5,
                .gaps = {1, 1},
                .prompt_tokens = 10,
                .cached_tokens = 4,
                .output_tokens = 5,
                .error = {}};
  Measured slow = good;
  slow.first = 3;
  Measured refused, failed, open, unsent;
  refused.outcome = Outcome::refused;
  failed.outcome = Outcome::failed;
  failed.error = "why";
  open.sent = 1;
  const Measured all[] = {good, slow, refused, failed, open, unsent};
  const Slo slo = parse_slo({"ttft:600", "tpot:500"});
  const ServeSummary s = summarize(all, 10, slo);
  EXPECT_EQ(s.done, 2);
  EXPECT_EQ(s.refused, 1);
  EXPECT_EQ(s.failed, 1);
  EXPECT_EQ(s.open, 1);
  EXPECT_EQ(s.first_error, "why");
  EXPECT_DOUBLE_EQ(s.requests_per_s, .2);
  EXPECT_DOUBLE_EQ(s.output_tokens_per_s, 1);
  EXPECT_DOUBLE_EQ(s.total_tokens_per_s, 3);
  EXPECT_DOUBLE_EQ(s.goodput, .1);  // the slow one misses its first token
  EXPECT_DOUBLE_EQ(s.ttft.mean, 1.25);
  EXPECT_DOUBLE_EQ(s.tpot.mean, (2. / 4 + .5 / 4) / 2);
  EXPECT_DOUBLE_EQ(s.itl.p50, 1);
  EXPECT_DOUBLE_EQ(s.e2e.p99, 2.5);
  EXPECT_EQ(to_json(s, slo)["ttft_ms"]["mean"], 1250);
  for (const char* wrong : {"ttft", "ttft:", "ttft:-1", "x:1", "ttft:1s"})
    EXPECT_THROW(parse_slo({wrong}), InputError) << wrong;
}

// The mean of n exponential gaps deviates by 1/sqrt(n) of itself; here by less than five times that.
TEST(BenchServe, ArrivalsAreAPoissonProcess) {
  LoadOptions o;
  o.requests = 10000;
  o.rate = 50;
  const std::vector<Arrival> all = synthetic_arrivals(o);
  EXPECT_NEAR(all.back().at / 10000 * 50, 1, 5 / 100.);
  int64_t above_mean = 0;  // e^-1 of them
  for (size_t i = 1; i < all.size(); ++i) above_mean += all[i].at - all[i - 1].at > 1. / 50;
  EXPECT_NEAR(static_cast<double>(above_mean) / 1e4, std::exp(-1.), 5 * .0048);
  o.rate = 0;
  EXPECT_EQ(synthetic_arrivals(o).back().at, 0);
}

TEST(BenchServe, TracesAreReadAndCut) {
  const TemporaryDirectory dir;
  const fs::path azure =
      dir.put("a.csv",
              "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 23:59:59.5000000,374,44\r\n"
              "2023-11-17 00:00:01.0000000,9000,1\r\n");
  LoadOptions whole;
  EXPECT_EQ(trace_arrivals(azure, whole, 2)[1].input_tokens, 9000) << "cut by nothing that nobody asked for";
  LoadOptions o;
  o.input_tokens = 1000;
  std::vector<Arrival> all = trace_arrivals(azure, o, 2);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].at, 0);
  EXPECT_NEAR(all[1].at, .75, 1e-6);  // across midnight, twice as fast
  EXPECT_EQ(all[0].input_tokens, 374);
  EXPECT_EQ(all[0].output_tokens, 44);
  EXPECT_EQ(all[1].input_tokens, 1000);

  const fs::path mooncake =
      dir.put("m.jsonl",
              "{\"timestamp\": 0, \"input_length\": 600, \"output_length\": 6, \"hash_ids\": [7, 8]}\n"
              "{\"timestamp\": 3000, \"input_length\": 700, \"output_length\": 5, \"hash_ids\": [7, 9]}\n");
  all = trace_arrivals(mooncake, o, 1);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].at, 3);
  const Prompts prompts(0, 500, 0, "");
  const auto a = prompts.prompt(0, all[0]).get<std::vector<int32_t>>(),
             b = prompts.prompt(1, all[1]).get<std::vector<int32_t>>();
  EXPECT_EQ(a.size(), 600u);
  EXPECT_EQ(b.size(), 700u);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 512, b.begin()));  // the block of the same name
  EXPECT_FALSE(std::equal(a.begin() + 512, a.end(), b.begin() + 512));

  for (const char* text :
       {"", "TIMESTAMP,ContextTokens,GeneratedTokens\n", "nothing\n", "{}\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-16 18:15:46,1,1\n",
        "{\"timestamp\":0,\"input_length\":1,\"output_length\":1,\"hash_ids\":[\"a\"]}\n"}) {
    EXPECT_THROW(trace_arrivals(dir.put("bad", text), o, 1), InputError) << text;
  }
}

TEST(BenchServe, PromptsShareABeginningAndNothingElse) {
  Arrival a;
  a.input_tokens = 64;
  const Prompts prompts(3, 500, 32, "");
  std::set<std::vector<int32_t>> begins, ends;
  for (size_t i = 0; i < 20; ++i) {
    const auto ids = prompts.prompt(i, a).get<std::vector<int32_t>>();
    ASSERT_EQ(ids.size(), 64u);
    for (const int32_t id : ids) EXPECT_TRUE(id >= 100 && id < 500);
    begins.insert({ids.begin(), ids.begin() + 32});
    ends.insert({ids.begin() + 32, ids.end()});
  }
  EXPECT_EQ(begins.size(), 1u);
  EXPECT_EQ(ends.size(), 20u);
  EXPECT_EQ(prompts.prompt(5, a), Prompts(3, 500, 32, "").prompt(5, a));
  EXPECT_THROW(Prompts(0, 100, 0, ""), InputError);

  std::string text;
  for (int i = 0; i < 500; ++i) text += "aé€";
  const Prompts of_text(0, 500, 8, text);
  for (size_t i = 0; i < 50; ++i) {
    const std::string piece = of_text.prompt(i, a).get<std::string>();
    EXPECT_NEAR(static_cast<double>(piece.size()), 4 * 64, 8);
    EXPECT_NO_THROW(parse_json(Json(piece).dump(), "piece"));  // whole characters
  }
}

// A server that answers by the request's max_tokens.
class Scripted {
 public:
  explicit Scripted(const HttpOptions& o = options())
      : server_(o, [this](HttpRequest r, std::shared_ptr<HttpExchange> e) { answer(r, *e); }) {
    network_ = std::thread([this] { server_.run(); });
  }
  ~Scripted() {
    server_.stop();
    network_.join();
  }
  ClientOptions client() const {
    ClientOptions c;
    c.server = {"localhost", std::to_string(server_.port()), ""};
    return c;
  }
  static HttpOptions options() {
    HttpOptions o;
    o.port = 0;
    return o;
  }
  int64_t most_open() const { return most_open_; }

 private:
  void answer(const HttpRequest& r, HttpExchange& e) {
    for (int64_t open = server_.open_exchanges(), most = most_open_;
         open > most && !most_open_.compare_exchange_weak(most, open);) {
    }
    if (r.method == "GET") return e.send(200, "application/json", R"({"data":[{"id":"scripted"}]})");
    const int64_t n = parse_json(r.body, "body")["max_tokens"].get<int64_t>();
    if (n == 2) return e.send(429, "application/json", "{}");
    if (n == 3) return e.send(400, "application/json", R"({"error":{"message":"bad\nluck"}})");
    e.start(200, "text/event-stream");
    e.write(
        "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: "
        "{\"choices\":[{\"text\":\"b\"}],\"usage\":null}\n\n");
    if (n == 4) return e.finish();  // without [DONE]
    if (n == 6) e.write("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":null}}\n\n");
    if (n == 5) e.write("data: {\"error\":{\"message\":\"broke\"}}\n\n");
    e.write("data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n");
    e.write(
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,"
        "\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n");
    e.finish();
  }
  std::atomic<int64_t> most_open_ = 0;
  HttpServer server_;
  std::thread network_;
};

std::vector<Measured> load(const ClientOptions& client, const std::vector<int64_t>& kinds,
                           const std::atomic<bool>& stop) {
  std::vector<Arrival> arrivals(kinds.size());
  std::vector<Measured> results;
  send_load(
      client, arrivals,
      [&](size_t i) {
        return Json{{"max_tokens", kinds[i]}}.dump();
      },
      results, [](int64_t) {}, stop);
  return results;
}

TEST(BenchServe, OutcomesAreToldApart) {
  Scripted server;
  EXPECT_EQ(served_model(server.client()), "scripted");
  const std::atomic<bool> stop = false;
  const std::vector<Measured> r = load(server.client(), {1, 2, 3, 4, 5, 6}, stop);
  EXPECT_EQ(r[0].outcome, Outcome::done);
  EXPECT_EQ(r[0].gaps.size(), 1u);  // chunks without text are no token
  EXPECT_TRUE(0 < r[0].sent && r[0].sent < r[0].first && r[0].first <= r[0].last);
  EXPECT_EQ(r[0].prompt_tokens, 9);
  EXPECT_EQ(r[0].output_tokens, 2);
  EXPECT_EQ(r[0].cached_tokens, 4);
  EXPECT_EQ(r[1].outcome, Outcome::refused);
  for (size_t i = 2; i < 5; ++i) EXPECT_EQ(r[i].outcome, Outcome::failed) << i;
  EXPECT_THAT(r[2].error, HasSubstr("400"));
  EXPECT_THAT(r[3].error, HasSubstr("[DONE]"));
  EXPECT_THAT(r[4].error, HasSubstr("broke"));
  EXPECT_EQ(r[5].outcome, Outcome::done) << "a server that does not know its usage";
}

TEST(BenchServe, ABodyThatCannotBeMadeEndsTheLoad) {
  Scripted server;
  std::vector<Measured> results;
  const std::atomic<bool> stop = false;
  EXPECT_THROW(
      send_load(
          server.client(), std::vector<Arrival>(3),
          [](size_t i) -> std::string { return i < 2 ? R"({"max_tokens":1})" : throw Error("too long"); },
          results, [](int64_t) {}, stop),
      Error);
}

TEST(BenchServe, ConcurrencyIsKept) {
  Scripted server;
  ClientOptions client = server.client();
  client.concurrency = 3;
  const std::atomic<bool> stop = false;
  for (const Measured& m : load(client, std::vector<int64_t>(60, 1), stop))
    EXPECT_EQ(m.outcome, Outcome::done);
  EXPECT_LE(server.most_open(), 3);
}

TEST(BenchServe, OverTlsWhoeverIsTrusted) {
  const Certificate files;
  HttpOptions o = Scripted::options();
  o.certificate = files.certificate;
  o.key = files.key;
  Scripted server(o);
  ClientOptions client = server.client();
  EXPECT_THROW(served_model(client), Error) << "it speaks TLS";
  client.server.tls = true;
  EXPECT_THROW(served_model(client), Error) << "nobody that is known has signed it";
  client.authority = files.certificate;
  EXPECT_EQ(served_model(client), "scripted");
  const std::atomic<bool> stop = false;
  client.concurrency = 2;
  for (const Measured& m : load(client, std::vector<int64_t>(9, 1), stop)) {
    EXPECT_EQ(m.outcome, Outcome::done) << m.error;
    EXPECT_EQ(m.output_tokens, 2);
  }
  client.server.host = "127.0.0.1";
  EXPECT_THROW(served_model(client), Error) << "the certificate is another name's";
  client.insecure = true;
  EXPECT_EQ(served_model(client), "scripted");
  client.authority = files.key;
  client.insecure = false;
  EXPECT_THROW(served_model(client), InputError) << "no certificates";
}

TEST(BenchServe, ItStopsWhenTold) {
  Scripted server;
  std::vector<Arrival> arrivals(2);
  arrivals[1].at = 1e6;
  std::atomic<bool> stop = false;
  std::vector<Measured> results;
  send_load(
      server.client(), arrivals, [](size_t) { return R"({"max_tokens":1})"; }, results,
      [&](int64_t) { stop = true; }, stop);
  EXPECT_EQ(results[0].outcome, Outcome::done);
  EXPECT_EQ(results[1].sent, 0);
}

TEST(BenchServe, NobodyThereIsAnError) {
  ClientOptions client;
  client.server = {"127.0.0.1", "1", ""};
  EXPECT_THROW(served_model(client), Error);
}

}  // namespace
}  // namespace lathe
