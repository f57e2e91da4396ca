#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>
#include <thread>

#include "server/serving.h"

namespace lathe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

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

TEST(App, EveryRouteButHealthAndThePageWantsTheKey) {
  Serving s(with_keys({"first", "second"}));
  s.ready();
  EXPECT_EQ(s.ask("GET", "/health").status, 200);
  for (const std::string path : {"/v1/models", "/metrics", "/nothing", "/report.json"}) {
    EXPECT_EQ(s.ask("GET", path).status, 401) << path;
    EXPECT_EQ(s.ask("GET", path, "", "Authorization: Bearer firs\r\n").status, 401) << path;
    EXPECT_NE(s.ask("GET", path, "", "Authorization: Bearer second\r\n").status, 401) << path;
    EXPECT_NE(s.ask("GET", path, "", "X-Api-Key: first\r\n").status, 401) << path;
  }
}

TEST(App, NobodyHasAnEmptyKey) {
  EXPECT_THROW(App(with_keys({"first", ""})), InputError);
  Serving s(with_keys({"first"}));
  s.ready();
  for (const char* headers : {"", "Authorization: Bearer \r\n", "X-Api-Key:\r\n"})
    EXPECT_EQ(s.ask("GET", "/v1/models", "", headers).status, 401) << headers;
}

TEST(App, HeadIsGetWithoutItsBody) {
  Serving s;
  s.ready();
  for (const char* path : {"/health", "/v1/models", "/", "/nothing"}) {
    const Got whole = s.ask("GET", path), head = s.ask("HEAD", path);
    EXPECT_EQ(head.status, whole.status) << path;
    EXPECT_EQ(head.body, "") << path;
    EXPECT_THAT(head.head, HasSubstr(fmt::format("Content-Length: {}", whole.body.size()))) << path;
  }
  EXPECT_EQ(s.ask("HEAD", "/v1/completions").status, 405);
}

// What fails where nobody expects it, and keeps the answer.
class Fragile final : public HttpExchange {
 public:
  void send(int status, std::string_view, std::string body, const Headers& headers) override {
    sent_status = status;
    sent_body = std::move(body);
    sent_headers = headers;
  }
  void start(int, std::string_view, const Headers&) override {}
  void write(std::string) override {}
  void finish() override {}
  void on_gone(std::function<void()>) override {}
  void annotate(const Json&) override { throw std::runtime_error("secret"); }

  int sent_status = 0;
  std::string sent_body;
  Headers sent_headers;
};

TEST(App, WhatNobodyForesawIsAnAnswerOfTheApi) {
  App app(with_keys({"k"}));
  for (const auto& [path, type] :
       {std::pair{"/v1/messages", "api_error"}, {"/v1/completions", "server_error"}}) {
    const auto exchange = std::make_shared<Fragile>();
    app.handle({.method = "POST",
                .path = path,
                .query = {},
                .headers = {{"x-api-key", "k"}},
                .body = "{}",
                .client = {}},
               exchange);
    EXPECT_EQ(exchange->sent_status, 500);
    EXPECT_EQ(Json::parse(exchange->sent_body)["error"]["type"], type);
    EXPECT_EQ(exchange->sent_headers.count("X-Request-Id"), 1u);
    EXPECT_THAT(exchange->sent_body, testing::Not(HasSubstr("secret")));
  }
}

TEST(App, TokensAsLlamaCppAsksForThem) {
  Serving s;
  s.ready();
  EXPECT_EQ(s.post("/tokenize", {{"content", "Once upon"}}).json()["tokens"].get<std::vector<int32_t>>(),
            s.tokenizer().encode("Once upon", {.add_special_tokens = false}));
  EXPECT_EQ(s.post("/tokenize", {{"content", "a"}, {"with_pieces", true}}).status, 501);
}

TEST(App, ModelsTokensAndMetrics) {
  Serving s;
  s.ready();
  const Json listed = s.ask("GET", "/v1/models").json()["data"][0];
  EXPECT_EQ(listed["id"], "builtin");
  EXPECT_EQ(s.ask("GET", "/v1/models/builtin").json(), listed);
  EXPECT_EQ(s.ask("GET", "/v1/models/other").status, 404);
  EXPECT_EQ(s.ask("GET", "/v1/models/").status, 404);
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

TEST(App, UsageMayBeInEveryChunk) {
  Serving s;
  s.ready();
  const Json body = {{"prompt", "Once upon a time"},
                     {"messages", {{{"role", "user"}, {"content", "Hi"}}}},
                     {"max_tokens", 5},
                     {"stream", true},
                     {"stream_options", {{"include_usage", true}, {"continuous_usage_stats", true}}}};
  for (const std::string path : {"/v1/completions", "/v1/chat/completions"}) {
    const std::vector<Json> events = s.post(path, body).events();
    int64_t before = 0;
    for (const Json& e : events) {
      const int64_t written = e["usage"]["completion_tokens"];
      EXPECT_GE(written, before);
      before = written;
    }
    EXPECT_EQ(events[0]["usage"]["completion_tokens"], 1) << path;
    EXPECT_EQ(before, 5);
  }
}

// What the first prompt has streamed by then may not keep the error of a later one from the client.
TEST(App, SeveralPromptsStreamTogetherOrAreRefused) {
  Serving s;
  s.ready();
  Json prompts = Json::array();
  for (int i = 0; i < 200; ++i) prompts.push_back("Once upon a time " + std::to_string(i));
  prompts.push_back(std::vector<int>(256, 7));
  for (Json& p : prompts)
    if (p.is_string()) p = s.tokenizer().encode(p.get<std::string>());
  const Got got = s.post("/v1/completions", {{"prompt", prompts}, {"max_tokens", 1}, {"stream", true}});
  EXPECT_EQ(got.status, 400) << got.body;
  s.expect_all_blocks_free();
}

TEST(App, LogprobsOfChatsAndCompletions) {
  Serving s;
  s.ready();
  Json body = story(5);
  body["logprobs"] = 3;
  const Json columns = s.choice(body)["logprobs"];
  for (const auto& name : {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
    EXPECT_EQ(columns[name].size(), 5u);
  EXPECT_EQ(columns["top_logprobs"][0].size(), 3u);
  body = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}},
          {"max_tokens", 5},
          {"logprobs", true},
          {"top_logprobs", 2}};
  const Json choice = s.choice(body, "/v1/chat/completions");
  ASSERT_EQ(choice["logprobs"]["content"].size(), 5u);
  std::string text;
  for (const Json& t : choice["logprobs"]["content"]) {
    EXPECT_EQ(t["top_logprobs"].size(), 2u);
    EXPECT_LE(t["logprob"].get<double>(), 0);
    text += t["token"].get<std::string>();
  }
  EXPECT_EQ(text, choice["message"]["content"]);
}

// What is best has the highest mean of the logprobs that the same choices have when all are told.
TEST(App, BestOfTellsTheLikeliestChoices) {
  Serving s;
  s.ready();
  Json body = story(8);
  body["temperature"] = 1.3;
  body["seed"] = 5;
  body["n"] = 6;
  body["logprobs"] = 0;
  body["prompt"] = {"The ship had been three weeks at sea", "Once upon a time"};
  const Json all = s.post("/v1/completions", body).json()["choices"];
  ASSERT_EQ(all.size(), 12u);
  std::vector<std::string> expected;
  for (size_t prompt = 0; prompt < 2; ++prompt) {
    std::vector<std::pair<double, std::string>> ranked;
    for (size_t i = 0; i < 6; ++i) {
      const Json& choice = all[prompt * 6 + i];
      double sum = 0;
      for (const Json& x : choice["logprobs"]["token_logprobs"]) sum += x.get<double>();
      ASSERT_EQ(choice["finish_reason"], "length") << "so all have 8 tokens";
      ranked.emplace_back(-sum, choice["text"]);
    }
    std::ranges::sort(ranked);
    expected.push_back(ranked[0].second);
    expected.push_back(ranked[1].second);
  }
  body["n"] = 2;
  body["best_of"] = 6;
  body.erase("logprobs");
  const Json best = s.post("/v1/completions", body).json();
  ASSERT_EQ(best["choices"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(best["choices"][i]["index"], i);
    EXPECT_EQ(best["choices"][i]["text"], expected[i]);
    EXPECT_TRUE(best["choices"][i]["logprobs"].is_null());
  }
  EXPECT_EQ(best["usage"]["completion_tokens"], 2 * 6 * 8) << "all were made";
}

TEST(App, SeveralPromptsAreSeveralChoices) {
  Serving s;
  s.ready();
  Json body = story(6);
  const std::string alone = s.text(body);
  body["prompt"] = {"Once upon a time", body["prompt"]};
  const Json both = s.post("/v1/completions", body).json();
  ASSERT_EQ(both["choices"].size(), 2u);
  EXPECT_EQ(both["choices"][1]["text"], alone);
  body["prompt"] = s.tokenizer().encode("The ship had been three weeks at sea");
  EXPECT_EQ(s.text(body), alone);
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
      {"/v1/completions", "{\"prompt\": \"a\", \"prompt_logprobs\": 1, \"stream\": true}", 400,
       "prompt_logprobs"},
      {"/v1/completions", "{\"prompt\": \"a\", \"prompt_logprobs\": 21}", 400, "prompt_logprobs"},
      {"/v1/completions", "{\"prompt\": \"a\", \"allowed_token_ids\": [99999999]}", 400, "allowed_token_ids"},
      {"/v1/completions", "{\"prompt\": \"a\", \"bad_words\": [\" \"]}", 400, "bad_words"},
      {"/v1/completions", "{\"prompt\": \"a\", \"truncate_prompt_tokens\": 0}", 400,
       "truncate_prompt_tokens"},
      {"/v1/chat/completions", "{\"messages\": [], \"max_tokens\": 0}", 400, "max_tokens"},
      {"/v1/completions", "{\"prompt\": \"a\", \"suffix\": \"b\"}", 400,
       "suffix: expected none: this model's"},
      {"/v1/completions", "{\"prompt\": \"a\", \"suffix\": \"b\", \"echo\": true}", 400, "echo"},
      {"/v1/completions", "{\"prompt\": \"a\", \"n\": 3, \"best_of\": 2}", 400,
       "best_of: expected at least n = 3"},
      {"/v1/completions", "{\"prompt\": \"a\", \"best_of\": 2, \"stream\": true}", 400, "best_of"},
      {"/v1/completions", "{\"prompt\": \"a\", \"best_of\": 65}", 400, "best_of"},
      {"/v1/chat/completions", "{\"messages\": [], \"best_of\": 2}", 501, "best_of"},
      {"/completion", "{\"prompt\": \"a\", \"n_probs\": 21}", 400, "n_probs"},
      {"/v1/completions", "{\"prompt\": \"a\", \"logit_bias\": {\"x\": 5}}", 400, "logit_bias"},
      {"/v1/completions", "{\"prompt\": \"a\", \"logit_bias\": {\"3\": 101}}", 400, "logit_bias"},
      {"/v1/completions", "{\"prompt\": \"a\", \"logit_bias\": {\"99999999\": 1}}", 400, "logit_bias"},
      {"/v1/completions", "{\"prompt\": \"a\", \"presence_penalty\": 3}", 400, "presence_penalty"},
      {"/v1/completions", "{\"prompt\": \"a\", \"typical_p\": 2}", 400, "typical_p"},
      {"/v1/completions", "{\"prompt\": \"a\", \"response_format\": {\"type\": \"yaml\"}}", 400, "yaml"},
      {"/v1/completions", "{\"prompt\": \"a\", \"response_format\": {\"type\": \"json_schema\"}}", 400,
       "json_schema"},
      {"/v1/completions", "{\"prompt\": \"a\", \"guided_json\": {\"type\": \"nothing\"}}", 400,
       "guided_json"},
      {"/v1/completions", "{\"prompt\": \"a\", \"guided_json\": {\"unheardOf\": 1}}", 400, "unheardOf"},
      {"/v1/completions", "{\"prompt\": \"a\", \"guided_json\": 3}", 400, "guided_json"},
      {"/v1/completions", "{\"prompt\": \"a\", \"guided_regex\": \"(\"}", 400, "guided_regex"},
      {"/v1/completions", "{\"prompt\": \"a\", \"guided_regex\": \"(?=a)b\"}", 400, "guided_regex"},
      {"/v1/completions", "{\"prompt\": \"a\", \"guided_grammar\": \"root ::= root\"}", 400,
       "guided_grammar"},
      {"/v1/completions", "{\"prompt\": \"a\", \"grammar\": \"nonsense\"}", 400, "grammar"},
      {"/v1/completions", "{\"prompt\": \"a\", \"guided_choice\": []}", 400, "guided_choice"},
      {"/v1/completions", "{\"prompt\": \"a\", \"guided_choice\": [1]}", 400, "guided_choice"},
      {"/v1/completions", "{\"prompt\": \"a\", \"structured_outputs\": {\"yaml\": 1}}", 501,
       "structured_outputs"},
      {"/v1/completions", "{\"prompt\": \"a\", \"guided_regex\": \"a\", \"guided_choice\": [\"a\"]}", 400,
       "expected one description"},
      {"/v1/chat/completions", "{}", 400, "messages"},
      {"/v1/chat/completions", "{\"messages\": [], \"top_logprobs\": 2}", 400,
       "top_logprobs: expected logprobs: true"},
      {"/v1/chat/completions",
       "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"stream_options\": {\"include_usage\": "
       "1}}",
       400, "stream_options.include_usage: expected"},
      {"/v1/chat/completions", "{\"messages\": [{\"role\": \"user\", \"content\": [3]}]}", 400,
       "messages[0].content: expected a JSON object"},
      {"/v1/completions", "{\"prompt\": \"a\", \"response_format\": {\"type\": 3}}", 400,
       "response_format.type: expected"},
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
  s.expect_all_blocks_free();
}

TEST(App, TheTextIsWhatTheRequestSays) {
  Serving s;
  s.ready();
  const Json schema = {{"type", "object"},
                       {"properties",
                        {{"name", {{"enum", {"Ann", "Bob"}}}},
                         {"age", {{"type", "integer"}, {"minimum", 10}, {"maximum", 99}}}}},
                       {"required", {"name", "age"}},
                       {"additionalProperties", false}};
  const Json wrapped = {{"type", "json_schema"}, {"json_schema", {{"name", "person"}, {"schema", schema}}}};
  const std::vector<std::pair<std::string, Json>> schemas = {
      {"response_format", wrapped}, {"response_format", {{"type", "json_object"}, {"schema", schema}}},
      {"guided_json", schema},      {"guided_json", schema.dump()},
      {"json_schema", schema},      {"structured_outputs", {{"json", schema}}}};
  for (const auto& [name, value] : schemas) {
    Json body = story(200);
    body[name] = value;
    body["n"] = 3;
    body["temperature"] = 1.5;
    body["seed"] = 1;
    const Json j = s.post("/v1/completions", body).json();
    ASSERT_EQ(j["choices"].size(), 3u) << name << j;
    for (const Json& choice : j["choices"]) {
      EXPECT_EQ(choice["finish_reason"], "stop") << j;
      const Json person = Json::parse(choice["text"].get<std::string>());
      EXPECT_TRUE(person["name"] == "Ann" || person["name"] == "Bob") << person;
      EXPECT_GE(person["age"].get<int>(), 10);
      EXPECT_LE(person["age"].get<int>(), 99);
    }
  }
  const std::vector<std::pair<std::string, Json>> digits = {
      {"guided_regex", "[0-9]{5}"},
      {"guided_grammar", "root ::= [0-9] [0-9] [0-9] [0-9] [0-9]"},
      {"grammar", "root ::= [0-9]{5}"},
      {"guided_choice", {"12345", "67890"}},
      {"structured_outputs", {{"regex", "[0-9]{5}"}}},
      {"structured_outputs", {{"choice", {"12345"}}}},
      {"structured_outputs", {{"grammar", "root ::= [0-9]{5}"}}}};
  for (const auto& [name, value] : digits) {
    Json body = story(50);
    body[name] = value;
    const Json choice = s.choice(body);
    EXPECT_EQ(choice["text"].get<std::string>().size(), 5u) << name << choice;
    EXPECT_TRUE(std::ranges::all_of(choice["text"].get<std::string>(), [](char c) { return isdigit(c); }));
    EXPECT_EQ(choice["finish_reason"], "stop");
  }
  Json chat = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}},
               {"response_format", {{"type", "json_object"}}},
               {"max_tokens", 60},
               {"logit_bias", s.no_space()},
               {"seed", 3}};
  const Json choice = s.choice(chat, "/v1/chat/completions");
  const std::string text = choice["message"]["content"];
  EXPECT_EQ(text[0], '{') << text;
  if (choice["finish_reason"] == "stop") {
    EXPECT_TRUE(Json::parse(text).is_object());
  }
}

TEST(App, AStreamedTextUnderAGrammarIsTheSameBytes) {
  Serving s;
  s.ready();
  Json body = story(50);
  body["guided_choice"] = {"blue sea"};
  body["stream"] = true;
  const std::vector<Json> events = s.post("/v1/completions", body).events();
  std::string text;
  for (const Json& e : events) text += e["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text, "blue sea");
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "stop");
}

TEST(App, BiasesAndPenaltiesReachTheSampler) {
  Serving s;
  s.ready();
  const std::string plain = s.text(story(12));
  const int32_t first =
      s.tokenizer().encode("The ship had been three weeks at sea" +
                           plain)[s.tokenizer().encode("The ship had been three weeks at sea").size()];
  Json body = story(12);
  body["logit_bias"] = {{std::to_string(first), -100}};
  const Json banned = s.choice(body);
  EXPECT_NE(banned["text"].get<std::string>().substr(0, 3), plain.substr(0, 3));
  body["logit_bias"] = {{std::to_string(first), 100}};
  const std::string again = s.text(body);
  std::string only;
  for (int i = 0; i < 12; ++i) only += s.tokenizer().decode({&first, 1});
  EXPECT_EQ(again, only);
  body["frequency_penalty"] = 2;  // 100 outlives twelve times 2
  EXPECT_EQ(s.text(body), only);
  body["logit_bias"] = {{std::to_string(first), 20}};
  body["presence_penalty"] = 2;
  EXPECT_NE(s.text(body), only);
}

TEST(App, EchoesThePromptAndTheStopString) {
  Serving s;
  s.ready();
  Json body = story(12);
  const std::string plain = s.text(body);
  body["echo"] = true;
  body["n"] = 2;
  const Json both = s.post("/v1/completions", body).json()["choices"];
  for (const Json& choice : both) EXPECT_EQ(choice["text"], body["prompt"].get<std::string>() + plain);
  body["stream"] = true;
  std::string streamed;
  for (const Json& e : s.post("/v1/completions", body).events())
    if (e["choices"][0]["index"] == 1) streamed += e["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(streamed, body["prompt"].get<std::string>() + plain);
  body = story(12);
  body["stop"] = plain.substr(4, 3);
  const size_t at = plain.find(plain.substr(4, 3));
  EXPECT_EQ(s.text(body), plain.substr(0, at));
  body["include_stop_str_in_output"] = true;
  EXPECT_EQ(s.text(body), plain.substr(0, at + 3));
}

// As lm-evaluation-harness asks: how likely is this text, told token by token?
TEST(App, AnEchoHasTheLogprobsOfThePrompt) {
  Serving s;
  s.ready();
  Json body = story(6);
  body["logprobs"] = 2;
  const Json written = s.choice(body);
  const std::string whole = body["prompt"].get<std::string>() + written["text"].get<std::string>();
  const std::vector<int32_t> prompt = s.tokenizer().encode(body["prompt"].get<std::string>());
  std::vector<int32_t> tokens = prompt;
  body = {{"prompt", prompt}, {"n_predict", 6}, {"temperature", 0}, {"return_tokens", true}};
  const Json answer = s.post("/completion", body).json();
  for (const Json& id : answer["tokens"]) tokens.push_back(id);
  body = {{"max_tokens", 0}, {"echo", true}, {"logprobs", 2}, {"temperature", 0}};
  body["prompt"] = Json::array({tokens, prompt});
  const Json got = s.post("/v1/completions", body).json(), choice = got["choices"][0];
  EXPECT_EQ(choice["text"], whole);
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(got["usage"]["completion_tokens"], 0);
  const Json& columns = choice["logprobs"];
  for (const auto& name : {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
    ASSERT_EQ(columns[name].size(), tokens.size()) << name;
  EXPECT_TRUE(columns["token_logprobs"][0].is_null());
  EXPECT_TRUE(columns["top_logprobs"][0].is_null());
  // Prompts may be multiplied in bf16 where decoding is not: 2^-9 of logits of up to 20.
  for (size_t i = 0; i < 6; ++i)
    EXPECT_NEAR(columns["token_logprobs"][prompt.size() + i].get<double>(),
                written["logprobs"]["token_logprobs"][i].get<double>(), 0.04);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string token = columns["tokens"][i];
    EXPECT_EQ(whole.substr(columns["text_offset"][i], token.size()), token);
  }
  EXPECT_EQ(got["choices"][1]["text"], s.tokenizer().decode(prompt));
  body["prompt"] = prompt;
  body["max_tokens"] = 6;
  const Json both = s.choice(body)["logprobs"];
  EXPECT_EQ(both["tokens"], columns["tokens"]);
  EXPECT_EQ(both["text_offset"], columns["text_offset"]);
  body["stream"] = true;
  Json streamed = {{"tokens", Json::array()}, {"token_logprobs", Json::array()}};
  for (const Json& e : s.post("/v1/completions", body).events())
    for (auto& [name, column] : streamed.items())
      for (const Json& x : e["choices"][0]["logprobs"][name]) column.push_back(x);
  EXPECT_EQ(streamed["tokens"], both["tokens"]);
  EXPECT_EQ(streamed["token_logprobs"], both["token_logprobs"]);
}

TEST(App, PromptLogprobsHaveVllmsShape) {
  Serving s;
  s.ready();
  Json body = story(2);
  body["prompt_logprobs"] = 1;
  const Json told = s.choice(body)["prompt_logprobs"];
  const std::vector<int32_t> prompt = s.tokenizer().encode(body["prompt"].get<std::string>());
  ASSERT_EQ(told.size(), prompt.size());
  EXPECT_TRUE(told[0].is_null());
  for (size_t i = 1; i < prompt.size(); ++i) {
    const Json& own = told[i][std::to_string(prompt[i])];
    EXPECT_EQ(own["decoded_token"], s.tokenizer().decode({&prompt[i], 1}));
    EXPECT_EQ(told[i].size(), own["rank"] == 1 ? 1u : 2u);
    for (const auto& [id, other] : told[i].items())
      EXPECT_EQ(other["rank"] == 1, id != std::to_string(prompt[i]) || own["rank"] == 1);
  }
  body = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"max_tokens", 1}, {"prompt_logprobs", 0}};
  EXPECT_EQ(s.post("/v1/chat/completions", body).json()["prompt_logprobs"].size(),
            s.tokenizer().encode("user: Hi\nAnswer:", {.add_special_tokens = false}).size());
}

TEST(App, AllowedTokensBadWordsAndTheEndOfAPrompt) {
  Serving s;
  s.ready();
  Json body = story(8);
  const std::string plain = s.text(body);
  body["allowed_token_ids"] = s.tokenizer().encode(" the", {.add_special_tokens = false});
  const std::string only = s.text(body);
  EXPECT_EQ(only.substr(0, only.size() / 2), only.substr(only.size() / 2)) << only;
  body = story(8);
  const size_t blank = plain.find(' ', 1);
  const std::string word = plain.substr(0, blank);
  body["bad_words"] = {word.substr(word.find_first_not_of(' '))};
  EXPECT_EQ(s.text(body).find(word), std::string::npos) << plain;
  body = story(1);
  const std::vector<int32_t> prompt = s.tokenizer().encode(body["prompt"].get<std::string>());
  body["truncate_prompt_tokens"] = 3;
  body["echo"] = true;
  const std::string end = s.tokenizer().decode(std::span(prompt).last(3));
  EXPECT_THAT(s.text(body), StartsWith(end));
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

TEST(App, WhoWaitedTooLongIsToldToComeBack) {
  EngineOptions e = Serving::small();
  e.sequences = 1;
  e.longest_wait = std::chrono::milliseconds(1);
  Serving s({}, e);
  s.ready(false);
  std::vector<Got> got(2);
  std::vector<std::thread> clients;
  for (size_t i = 0; i < 2; ++i) {
    clients.emplace_back([&, i] {
      got[i] = s.post(
          i ? "/v1/messages" : "/v1/completions",
          i ? Json{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"max_tokens", 2}} : story(2));
    });
  }
  while (s.engine().stats().waiting < 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::this_thread::sleep_for(2 * e.longest_wait);
  while (s.engine().step()) {
  }
  for (std::thread& c : clients) c.join();
  for (const Got& one : got) {
    EXPECT_EQ(one.status, 429) << one.body;
    EXPECT_THAT(one.head, HasSubstr("Retry-After: 1"));
    EXPECT_THAT(one.body, HasSubstr("waited"));
  }
}

// One line of JSON per request, whatever its path holds.
TEST(App, TheAccessLogIsJsonALine) {
  AppOptions o;
  o.access_log = true;
  o.api_keys = {"one"};
  const std::string key = "X-Api-Key: one\r\n";
  testing::internal::CaptureStderr();
  std::string id;
  {
    Serving s(o);
    s.ready();
    const Got got = s.ask("POST", "/v1/completions", story(2).dump(), key);
    EXPECT_EQ(got.status, 200);
    id = got.head.substr(got.head.find("X-Request-Id: ") + 14, 36);
    EXPECT_EQ(s.ask("GET", "/a\"b\xff", "", key).status, 404);
    EXPECT_EQ(s.ask("GET", "/v1/models").status, 401);
  }
  std::istringstream said(testing::internal::GetCapturedStderr());
  std::map<int, Json> lines;  // by status
  for (std::string line; std::getline(said, line);) {
    const Json j = Json::parse(line);
    lines[j["status"]] = j;
  }
  ASSERT_EQ(lines.size(), 3u);
  const Json& done = lines.at(200);
  EXPECT_THAT(done["time"].get<std::string>(), testing::MatchesRegex("[0-9-]{10}T[0-9:]{8}\\.[0-9]{3}Z"));
  EXPECT_EQ(done["id"], id);
  EXPECT_EQ(done["key"].get<std::string>().size(), 8u) << "of its digest";
  EXPECT_EQ(done["path"], "/v1/completions");
  EXPECT_EQ(done["method"], "POST");
  EXPECT_EQ(done["client"], "127.0.0.1");
  EXPECT_GT(done["seconds"].get<double>(), 0);
  EXPECT_GT(done["response_bytes"].get<int>(), 0);
  EXPECT_EQ(done["model"], "builtin");
  EXPECT_GT(done["prompt_tokens"].get<int>(), 4);
  EXPECT_EQ(done["cached_tokens"], 0);
  EXPECT_EQ(done["generated_tokens"], 2);
  EXPECT_GT(done["ttft_seconds"].get<double>(), 0);
  EXPECT_LE(done["ttft_seconds"], done["seconds"]);
  EXPECT_EQ(done["finish"], Json::array({"length"}));
  EXPECT_EQ(done["client_left"], false);
  EXPECT_EQ(lines.at(404)["path"], "/a\"b\ufffd");
  EXPECT_FALSE(lines.at(401).contains("key"));
}

TEST(App, TheAccessLogAndTheMetricsTellWhoLeft) {
  AppOptions o;
  o.access_log = true;
  testing::internal::CaptureStderr();
  {
    Serving s(o);
    s.ready();
    Json body = story(200);
    body["stream"] = true;
    {
      Client client(s.port());
      const std::string text = body.dump();
      client.send(
          fmt::format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}", text.size(), text));
      client.read();
    }
    EXPECT_EQ(s.ask("GET", "/nothing").status, 404);
    std::string metrics;
    for (int i = 0; i < 1000 && metrics.find("finished_reason=\"abort\"") == std::string::npos; ++i)
      metrics = s.ask("GET", "/metrics").body;
    EXPECT_THAT(metrics, HasSubstr("lathe:client_disconnects_total{model_name=\"builtin\"} 1"));
    EXPECT_THAT(metrics, HasSubstr("lathe:http_responses_total{code=\"404\",model_name=\"builtin\"} 1"));
    EXPECT_THAT(metrics, HasSubstr("vllm:request_queue_time_seconds_count{model_name=\"builtin\"} 1"));
    EXPECT_THAT(metrics, HasSubstr("vllm:request_prefill_time_seconds_count"));
    EXPECT_THAT(metrics, HasSubstr("vllm:request_decode_time_seconds_count"));
  }
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("\"client_left\":true"));
  EXPECT_THAT(said, HasSubstr("\"finish\":[\"abort\"]"));
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
  s.expect_all_blocks_free();
}

TEST(App, PagesOfTheNamedOriginMayCall) {
  AppOptions o = with_keys({"k"});
  o.cors_origin = "https://example.org";
  Serving s(o);
  s.ready();
  const Got asked = s.ask("OPTIONS", "/v1/chat/completions");
  EXPECT_EQ(asked.status, 200);
  EXPECT_THAT(asked.head, HasSubstr("Access-Control-Allow-Origin: https://example.org"));
  const Got refused = s.ask("GET", "/v1/models");  // errors too
  EXPECT_THAT(refused.head, HasSubstr("Access-Control-Allow-Origin"));
  EXPECT_THAT(refused.head, HasSubstr("Access-Control-Expose-Headers: Retry-After"));
  EXPECT_THAT(s.ask("OPTIONS", "/v1/models", "", "Access-Control-Request-Headers: x-stainless-lang\r\n").head,
              HasSubstr("Access-Control-Allow-Headers: x-stainless-lang"));
}

}  // namespace
}  // namespace lathe
