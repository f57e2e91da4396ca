// What one client may take, and what a request may be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include "server/rate_limit.h"
#include "server/request_body.h"
#include "server/serving.h"

namespace lathe {
namespace {

using testing::HasSubstr;

TEST(RateLimit, FillsSteadilyToAMinutesWorth) {
  using std::chrono::milliseconds;
  RateLimit limit(60);
  RateLimit::Clock::time_point now{};
  for (int i = 0; i < 60; ++i) EXPECT_EQ(limit.take("a", now), milliseconds(0)) << i;
  EXPECT_EQ(limit.take("a", now), milliseconds(1000));
  EXPECT_EQ(limit.take("b", now), milliseconds(0)) << "each has its own";
  now += milliseconds(999);
  EXPECT_GT(limit.take("a", now), milliseconds(0));
  now += milliseconds(2);
  EXPECT_EQ(limit.take("a", now), milliseconds(0));
  EXPECT_GT(limit.take("a", now), milliseconds(0));
  now += std::chrono::hours(5);
  for (int i = 0; i < 60; ++i) EXPECT_EQ(limit.take("a", now), milliseconds(0));
  EXPECT_GT(limit.take("a", now), milliseconds(0)) << "never more than a minute's worth";
  RateLimit none(0);
  for (int i = 0; i < 10'000; ++i) EXPECT_EQ(none.take("a", now), milliseconds(0));
}

TEST(RateLimit, AKeyThatAsksTooOftenIsToldWhenToComeBack) {
  AppOptions o;
  o.api_keys = {"one", "two"};
  o.requests_per_minute = 2;
  Serving s(o);
  s.ready();
  const auto ask = [&](const std::string& key) {
    return s.ask("POST", "/tokenize", "{\"prompt\": \"a\"}", "X-Api-Key: " + key + "\r\n");
  };
  EXPECT_EQ(ask("one").status, 200);
  EXPECT_EQ(ask("one").status, 200);
  const Got refused = ask("one");
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.head, HasSubstr("Retry-After: 30"));
  EXPECT_EQ(refused.json()["error"]["type"], "rate_limit_error");
  EXPECT_EQ(ask("two").status, 200);
  EXPECT_EQ(s.ask("GET", "/v1/models", "", "X-Api-Key: one\r\n").status, 200) << "only what costs is counted";
}

TEST(RequestBody, MembersAndValuesAreBounded) {
  const auto object = [](int64_t members, const std::string& value) {
    std::string text = "{";
    for (int64_t i = 0; i < members; ++i) text += fmt::format("{}\"{}\": {}", i ? "," : "", i, value);
    return text + "}";
  };
  EXPECT_EQ(parse_body(object(most_members, "{\":{\": \"a:\\\":,\"}")).size(),
            static_cast<size_t>(most_members));
  EXPECT_THROW(parse_body(object(most_members + 1, "1")), InputError);
  // Sixteen megabytes of members would take an hour.
  EXPECT_THROW(parse_body(object(1'000'000, "1")), InputError);
  std::string list = "[";
  for (int i = 0; i < 999'000; ++i) list += "1,";
  EXPECT_EQ(parse_body(list + "1]").size(), 999'001u);
  EXPECT_THROW(parse_body(list + list), InputError);
  list = "[";
  for (int i = 0; i < 499'000; ++i) list += "{},";
  EXPECT_EQ(parse_body(list + "{}]").size(), 499'001u);  // was a minute's work
  for (const char* bad : {"", "{", "}", "]", "{]", "\"", "\"\\", "{\"a\":", ":::", "[1,]"})
    EXPECT_THROW(parse_body(bad), InputError) << bad;
}

TEST(Limits, OfPromptsAnswersAndChoices) {
  ServiceLimits limits;
  limits.prompt_tokens = 12;
  limits.output_tokens = 5;
  limits.choices = 4;
  Serving s({}, Serving::small(), Serving::plain_template, limits);
  s.ready();
  Json body = {{"prompt", "The ship"}, {"max_tokens", 100}};
  EXPECT_EQ(s.post("/v1/completions", body).json()["usage"]["completion_tokens"], 5);
  body["n"] = 4;
  EXPECT_EQ(s.post("/v1/completions", body).status, 200);
  body["prompt"] = {"a", "b"};
  Got got = s.post("/v1/completions", body);
  EXPECT_EQ(got.status, 400);
  EXPECT_THAT(got.body, HasSubstr("at most 4 choices"));
  body = {{"prompt", "one two three four five six seven eight nine ten eleven twelve thirteen"}};
  got = s.post("/v1/completions", body);
  EXPECT_EQ(got.status, 400);
  EXPECT_THAT(got.body, HasSubstr("at most 12 tokens"));
  s.expect_all_blocks_free();
}

TEST(Limits, OfGrammarsAndSchemas) {
  Serving s;
  s.ready();
  const auto status = [&](const Json& more) {
    Json body = {{"prompt", "a"}, {"max_tokens", 1}};
    body.update(more);
    const Got got = s.post("/v1/completions", body);
    EXPECT_EQ(got.status, 400) << got.body.substr(0, 300);
  };
  status({{"guided_regex", std::string(70'000, 'a')}});
  status({{"grammar", "root ::= \"" + std::string(70'000, 'a') + "\""}});
  status({{"guided_choice", {std::string(70'000, 'a')}}});
  status({{"guided_choice", std::vector<std::string>(1025, "a")}});
  status({{"guided_regex", "((a{0,1000}){0,1000}){0,1000}"}});
  status({{"grammar", "root ::= (\"a\"{0,100000}){0,100000}"}});
  status({{"guided_json", {{"type", "string"}, {"maxLength", 1'000'000'000}}}});
  status({{"guided_json", {{"type", "array"}, {"minItems", 1'000'000'000}}}});
  Json deep = true;
  for (int i = 0; i < 101; ++i) deep = {{"properties", {{"a", deep}}}};  // levels of JSON: two for each
  status({{"guided_json", deep}});
  std::string parentheses;
  for (int i = 0; i < 30'000; ++i) parentheses += '(';
  status({{"guided_regex", parentheses}});
  status({{"grammar", "root ::= " + parentheses}});
}

TEST(Limits, OfGrammarsThatAreKept) {
  Serving s;
  const auto compile = [&](int i) -> std::weak_ptr<TokenMasks> {
    return s.service().grammars.compile(std::to_string(i), "regex", [&] {
      std::string all;
      for (int part = 0; part < 30; ++part) all += fmt::format("(ab|c{}){{0,9000}}", i);
      const Grammar g = Grammar::regex(all);
      EXPECT_GT(g.states(), 250'000u);
      return g;
    });
  };
  const auto first = compile(1);
  EXPECT_FALSE(first.expired());
  const auto second = compile(2);
  EXPECT_TRUE(first.expired()) << "half a million states, and no more";
  EXPECT_FALSE(second.expired());
}

}  // namespace
}  // namespace lathe
