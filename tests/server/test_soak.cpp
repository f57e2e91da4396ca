// Hundreds of requests from clients of every kind at once: bench/serve/soak in short.
#include <atomic>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <thread>

#include "server/serving.h"

namespace lathe {
namespace {

using Random = std::mt19937;
int64_t pick(Random& r, int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(r);
}

std::string post(const Json& body) {
  const std::string text = body.dump();
  return fmt::format("POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
                     text.size(), text);
}

Json completion(Random& r) {
  return {{"prompt", fmt::format("{} ships of {}", pick(r, 0, 9), pick(r, 0, 9))},
          {"max_tokens", pick(r, 1, 12)},
          {"n", pick(r, 1, 2)},
          {"stream", pick(r, 0, 1) == 1}};
}

// What one client sends, how much of the answer it reads, and how that may begin; empty: it leaves before.
struct Visit {
  std::string sent, expected;
  bool whole = false;  // reads all
};

Visit visit(Random& r, int64_t context) {
  switch (pick(r, 0, 7)) {
    case 0:
      return {"POST /v1/completions HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{", "", false};  // never ends
    case 1:
      return {post(completion(r)), "", false};
    case 2: {
      Json body = completion(r);
      body["stream"] = true;
      body["max_tokens"] = 100;
      return {post(body), "HTTP/1.1 200", false};  // leaves amid the stream
    }
    case 3: {
      Json body = completion(r);
      body["prompt"] = std::string(static_cast<size_t>(8 * context), 'x') + " y z";
      return {post(body), "HTTP/1.1 400", true};
    }
    case 4: {
      std::string text = post(completion(r));
      text[text.find("ships")] = '\xff';
      return {text, "HTTP/1.1 400", true};
    }
    case 5: {
      std::string text = post(completion(r));
      text[text.size() - 1] = ',';
      return {text, "HTTP/1.1 400", true};
    }
    case 6:
      return {"what is this\r\n\r\n", "HTTP/1.1 400", true};
    default:
      return {post(completion(r)), "HTTP/1.1 200", true};
  }
}

void settle(const Engine& engine) {
  const auto busy = [&] {
    const EngineStats s = engine.stats();
    return s.running + s.waiting > 0 || s.free_blocks != s.blocks;
  };
  for (int i = 0; i < 1000 && busy(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(busy());
}

TEST(Soak, ClientsOfEveryKindLeaveNothingBehind) {
  EngineOptions o = Serving::small();
  o.sequences = 8;
  Serving s({}, o);
  s.ready();
  std::vector<std::thread> clients;
  for (unsigned seed = 0; seed < 16; ++seed)
    clients.emplace_back([&, seed] {
      Random r(seed);
      for (int i = 0; i < 20; ++i) {
        const Visit v = visit(r, o.context);
        Client client(s.port());
        client.send(v.sent);
        if (v.expected.empty()) continue;
        const std::string got = v.whole ? client.read_all() : client.read();
        EXPECT_THAT(got, testing::StartsWith(v.expected)) << v.sent.substr(0, 300);
        const bool cut =
            v.whole && got.find("chunked") != std::string::npos && !got.ends_with("\r\n0\r\n\r\n");
        EXPECT_FALSE(cut) << got;
      }
    });
  for (std::thread& c : clients) c.join();
  settle(s.engine());
  EXPECT_EQ(s.ask("GET", "/health").status, 200);
}

TEST(Soak, MoreThanMayWaitAreToldSoAndTheRestAreServed) {
  EngineOptions o = Serving::small();
  o.sequences = 4;
  o.waiting = 8;
  Serving s({}, o);
  s.ready(/*step=*/false);
  std::atomic<int> served = 0, refused = 0;
  const auto client = [&] {
    const Got got = s.post("/v1/completions", {{"prompt", "a ship"}, {"max_tokens", 9}});
    EXPECT_EQ(got.status == 429, got.head.find("Retry-After") != std::string::npos) << got.head;
    ++(got.status == 200 ? served : refused);
  };
  std::vector<std::thread> clients;
  for (int i = 0; i < 60; ++i) clients.emplace_back(client);
  while (refused < 52) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(served, 0);
  while (served + refused < 60) s.engine().step();
  EXPECT_EQ(served, 8);
  clients.emplace_back(client);
  while (served + refused < 61) s.engine().step();
  EXPECT_EQ(served, 9) << "it recovers";
  for (std::thread& c : clients) c.join();
  while (s.engine().step()) {
  }
  EXPECT_EQ(s.engine().stats().free_blocks, s.engine().stats().blocks);
}

}  // namespace
}  // namespace lathe
