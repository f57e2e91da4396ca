// What the answers of all shapes share, without HTTP: the engine is stepped by hand.
#include <gtest/gtest.h>
#include <utility>

#include "server/reply.h"
#include "server/serving.h"

namespace lathe {
namespace {

class Sent final : public HttpExchange {
 public:
  void send(int s, std::string_view, std::string b, const Headers&) override {
    EXPECT_EQ(std::exchange(status, s), 0) << "two answers";
    body = std::move(b);
  }
  void start(int s, std::string_view, const Headers&) override { status = s; }
  void write(std::string chunk) override { body += chunk; }
  void finish() override { finished = true; }
  void on_gone(std::function<void()>) override {}
  int status = 0;
  bool finished = false;
  std::string body;
};

class Plain final : public Reply {
 public:
  Plain(const Service& service, std::shared_ptr<HttpExchange> to, const Request& request, size_t prompts,
        int most = INT32_MAX)
      : Reply(service, std::move(to), false, request, prompts), most_(most) {}
  int64_t cached() const { return static_cast<int64_t>(cached_tokens()); }

 private:
  void tell(size_t, const Event&) override {
    if (--most_ < 0) throw Error("a shape that fails");
  }
  void end() override { send(usage()); }
  int most_;
};

Request story(const Serving& s, int64_t max_tokens) {
  Request r;
  r.prompt = s.tokenizer().encode("The ship had been three weeks at sea when the captain");
  r.sampling = {.temperature = 1, .top_p = 1, .seed = 3};
  r.max_tokens = max_tokens;
  return r;
}

TEST(Reply, WhenAChoiceFailsTheOthersAreCancelled) {
  Serving s;
  Request r = story(s, 200);
  r.choices = 8;
  const auto sent = std::make_shared<Sent>();
  const auto reply = std::make_shared<Plain>(s.service(), sent, r, 2);
  submit(s.service(), r, {r.prompt, r.prompt}, reply);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(s.engine().step());
  EXPECT_EQ(s.engine().stats().running, 16);
  Event failed;
  failed.request = 1;
  failed.choice = 11;
  failed.finish = Finish::failed;
  failed.refused = true;
  failed.error = "too ambiguous";
  reply->take(failed);
  EXPECT_EQ(sent->status, 400) << sent->body;
  EXPECT_FALSE(s.engine().step());
  EXPECT_EQ(s.engine().stats().free_blocks, s.engine().stats().blocks);
}

TEST(Reply, AShapeThatFailsIsAnsweredAndCancelled) {
  Serving s;
  const Request r = story(s, 200);
  const auto sent = std::make_shared<Sent>();
  submit(s.service(), r, {r.prompt}, std::make_shared<Plain>(s.service(), sent, r, 1, 2));
  int steps = 0;
  for (; s.engine().step(); ++steps) ASSERT_LT(steps, 10);
  EXPECT_EQ(sent->status, 500) << sent->body;
  EXPECT_EQ(s.engine().stats().free_blocks, s.engine().stats().blocks);
}

TEST(Reply, ThePromptsHitsAreCountedOnceHoweverManyChoices) {
  Serving s;
  Request r = story(s, 3);
  r.prompt.resize(100, 7);
  for (const int64_t choices : {1, 3}) {
    r.choices = choices;
    const auto sent = std::make_shared<Sent>();
    const auto reply = std::make_shared<Plain>(s.service(), sent, r, 2);
    submit(s.service(), r, {r.prompt, r.prompt}, reply);
    while (s.engine().step()) {
    }
    ASSERT_EQ(sent->status, 200);
    EXPECT_EQ(reply->cached(), choices == 1 ? 0 : 2 * 96) << "three whole blocks of each prompt";
  }
}

}  // namespace
}  // namespace lathe
