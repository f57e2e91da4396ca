// Tools and thoughts over HTTP: the built-in model has learned neither, so grammars make it write them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <regex>

#include "server/serving.h"

namespace lathe {
namespace {

using testing::HasSubstr;

Json weather() {
  return {{"type", "function"},
          {"function",
           {{"name", "get_weather"},
            {"description", "The weather of a city"},
            {"parameters",
             {{"type", "object"},
              {"properties", {{"city", {{"enum", {"Oslo", "Rome"}}}}}},
              {"required", {"city"}},
              {"additionalProperties", false}}}}}};
}
Json clock_tool() { return {{"type", "function"}, {"function", {{"name", "clock"}}}}; }

Json chat(const Json& more) {
  Json body = {{"messages", {{{"role", "user"}, {"content", "Is it raining?"}}}},
               {"max_tokens", 120},
               {"temperature", 1.2},
               {"seed", 3},
               {"tools", {weather(), clock_tool()}}};
  body.update(more);
  return body;
}

// A stream's bytes without what differs from run to run.
std::string steady(std::string body) {
  body = std::regex_replace(body, std::regex("chatcmpl-[0-9a-f]{32}"), "ID");
  body = std::regex_replace(body, std::regex("call_[0-9a-f]{32}"), "CALL");
  return std::regex_replace(body, std::regex("\"created\":[0-9]+"), "\"created\":0");
}

TEST(Chat, ARequiredToolIsCalled) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  for (const Json& choice :
       {Json("required"), Json{{"type", "function"}, {"function", {{"name", "get_weather"}}}}}) {
    const Json body =
        chat({{"tool_choice", choice}, {"parallel_tool_calls", false}, {"logit_bias", s.no_space()}});
    const Json j = s.post("/v1/chat/completions", body).json();
    const Json& c = j["choices"][0];
    ASSERT_EQ(c["finish_reason"], "tool_calls") << j;
    EXPECT_TRUE(c["message"]["content"].is_null());
    const Json& call = c["message"]["tool_calls"][0];
    EXPECT_EQ(call["type"], "function");
    const Json arguments = Json::parse(call["function"]["arguments"].get<std::string>());
    if (choice.is_object()) {
      EXPECT_EQ(call["function"]["name"], "get_weather");
      EXPECT_EQ(c["message"]["tool_calls"].size(), 1u);
    }
    if (call["function"]["name"] == "get_weather") {
      EXPECT_TRUE(arguments["city"] == "Oslo" || arguments["city"] == "Rome") << j;
    } else {
      EXPECT_EQ(call["function"]["name"], "clock");
      EXPECT_TRUE(arguments.empty());
    }
  }
}

TEST(Chat, AStreamedCallAddsUpToTheWholeOne) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  Json body = chat({{"tool_choice", "required"}, {"n", 2}, {"logit_bias", s.no_space()}});
  const Json whole = s.post("/v1/chat/completions", body).json();
  body["stream"] = true;
  std::map<size_t, std::vector<Json>> calls;  // by choice
  for (const Json& e : s.post("/v1/chat/completions", body).events()) {
    const Json& c = e["choices"][0];
    if (!c["delta"].contains("tool_calls")) continue;
    const Json& part = c["delta"]["tool_calls"][0];
    std::vector<Json>& of = calls[c["index"]];
    const size_t index = part["index"];
    if (index == of.size()) {
      EXPECT_TRUE(part.contains("id"));
      EXPECT_EQ(part["type"], "function");
      of.push_back(part["function"]);
    } else {
      ASSERT_LT(index, of.size());
      EXPECT_FALSE(part.contains("id"));
      EXPECT_FALSE(part["function"]["arguments"].get<std::string>().empty());
      of[index]["arguments"] =
          of[index]["arguments"].get<std::string>() + part["function"]["arguments"].get<std::string>();
    }
  }
  for (size_t i = 0; i < 2; ++i) {
    const Json& expected = whole["choices"][i]["message"]["tool_calls"];
    ASSERT_EQ(calls[i].size(), expected.size()) << whole;
    for (size_t k = 0; k < expected.size(); ++k) EXPECT_EQ(calls[i][k], expected[k]["function"]);
  }
}

TEST(Chat, TheBytesOfAStreamWithThoughtsTextAndACall) {
  Serving s({}, Serving::small(), std::string(hermes) + "{# </think> #}");
  s.ready();
  Json body = chat({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  body["guided_choice"] = {
      "<think>hm</think>\n\nSo:\n<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call>"};
  // One part a chunk, however the tokens fall: bias nothing, join what is alike.
  const Got got = s.post("/v1/chat/completions", body);
  const auto data = [](const std::string& choice, const std::string& usage = "null", bool empty = false) {
    return "data: "
           "{\"id\":\"ID\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"builtin\","
           "\"choices\":[" +
           (empty ? "" : "{\"index\":0," + choice + "}") + "],\"usage\":" + usage + "}\n\n";
  };
  const auto delta = [&](const std::string& d) {
    return data("\"delta\":" + d + ",\"logprobs\":null,\"finish_reason\":null");
  };
  const std::string bytes = steady(got.body);
  EXPECT_THAT(bytes, testing::StartsWith(delta("{\"role\":\"assistant\",\"content\":\"\"}")));
  EXPECT_THAT(bytes, HasSubstr("\"delta\":{\"reasoning_content\":\"h"));
  EXPECT_THAT(bytes, HasSubstr("\"delta\":{\"content\":\"S"));
  EXPECT_THAT(bytes, HasSubstr(delta(
                         "{\"tool_calls\":[{\"index\":0,\"id\":\"CALL\",\"type\":\"function\",\"function\":{"
                         "\"name\":\"clock\",\"arguments\":\"\"}}]}")));
  EXPECT_THAT(bytes, HasSubstr("\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{"));
  const Json usage = got.events().back()["usage"];
  EXPECT_THAT(
      bytes,
      testing::EndsWith(
          data("\"delta\":{},\"logprobs\":null,\"finish_reason\":\"tool_calls\",\"stop_reason\":null") +
          data("", usage.dump(), true) + "data: [DONE]\n\n"));
  body.erase("stream");
  body.erase("stream_options");
  const Json message = s.choice(body, "/v1/chat/completions")["message"];
  EXPECT_EQ(message["reasoning_content"], "hm");
  EXPECT_EQ(message["content"], "So:");
  EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], "{}");
}

TEST(Chat, CallsAndTheirResultsReachTheTemplate) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  const Json call = {{"id", "call_1"},
                     {"type", "function"},
                     {"function", {{"name", "get_weather"}, {"arguments", "{\"city\": \"Rome\"}"}}}};
  const Json messages = {{{"role", "user"}, {"content", "Rain?"}},
                         {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {call}}},
                         {{"role", "tool"}, {"tool_call_id", "call_1"}, {"content", "yes"}}};
  EXPECT_EQ(s.post("/apply-template", {{"messages", messages}, {"tools", {weather()}}}).json()["prompt"],
            "get_weather as <tool_call>\nuser: Rain? assistant: Noneget_weather=Rome tool: yes Answer:");
  EXPECT_EQ(s.post("/apply-template",
                   {{"messages", {messages[0]}}, {"tools", {weather()}}, {"tool_choice", "none"}})
                .json()["prompt"],
            "user: Rain? Answer:");
}

TEST(Chat, TheModelGoesOnWithTheLastMessage) {
  Serving s({}, Serving::small(),
            "{% for d in documents %}[{{ d.text }}]{% endfor %}{{ reasoning_effort }}"
            "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}"
            "{% if add_generation_prompt %}Answer:{% endif %}");
  s.ready();
  Json body = {
      {"messages", {{{"role", "user"}, {"content", "Hi"}}, {{"role", "assistant"}, {"content", "Well, "}}}},
      {"continue_final_message", true},
      {"reasoning_effort", "low"},
      {"documents", {{{"text", "a"}}}}};
  EXPECT_EQ(s.post("/apply-template", body).json()["prompt"], "[a]lowuser: Hi<end>assistant: Well, ");
  body["messages"][1]["content"] = "";
  EXPECT_EQ(s.post("/apply-template", body).status, 400);
  body["add_generation_prompt"] = true;
  EXPECT_EQ(s.post("/apply-template", body).status, 400);
  body.erase("continue_final_message");
  EXPECT_EQ(s.post("/apply-template", body).json()["prompt"], "[a]lowuser: Hi<end>assistant: <end>Answer:");
}

// A text of its form, or a call of a tool with its arguments: nothing else. The built-in model begins with a
// quote unless it is told not to.
TEST(Chat, AFormatBesideToolsIsTheTexts) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  int texts = 0, calls = 0;
  const Json no_space = s.no_space();
  Json no_quote = no_space;
  for (int32_t id = 0; id < s.tokenizer().vocab_size(); ++id)
    if (s.tokenizer().decode({&id, 1}).starts_with('"')) no_quote[std::to_string(id)] = -100;
  for (int seed = 0; seed < 12; ++seed) {
    const Json body =
        chat({{"response_format",
               {{"type", "json_schema"}, {"json_schema", {{"schema", {{"enum", {"wet", "dry"}}}}}}}},
              {"parallel_tool_calls", false},
              {"temperature", 3},
              {"seed", seed},
              {"logit_bias", seed % 2 ? no_quote : no_space}});
    const Json j = s.post("/v1/chat/completions", body).json();
    const Json& c = j["choices"][0];
    if (c["finish_reason"] == "tool_calls") {
      ++calls;
      EXPECT_TRUE(c["message"]["content"].is_null()) << j;
      const Json& call = c["message"]["tool_calls"][0]["function"];
      const Json arguments = Json::parse(call["arguments"].get<std::string>());
      EXPECT_TRUE(call["name"] == "clock" ? arguments.empty()
                                          : arguments["city"] == "Oslo" || arguments["city"] == "Rome")
          << j;
    } else {
      ++texts;
      EXPECT_TRUE(c["message"]["content"] == "\"wet\"" || c["message"]["content"] == "\"dry\"") << j;
    }
  }
  EXPECT_GT(texts, 0);
  EXPECT_GT(calls, 0);
}

// Whatever it writes: once a call has begun it is one of the tools' schemas.
TEST(Chat, StrictWithoutATokenOfItsOwn) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  Json strict = weather();
  strict["function"]["strict"] = true;
  Json body = chat({{"tools", {strict}}, {"max_tokens", 12}, {"seed", 5}});
  const Json plain = s.post("/v1/chat/completions", body).json()["choices"][0];
  EXPECT_EQ(plain["finish_reason"], "length") << "free to write a text";
  EXPECT_FALSE(plain["message"]["content"].get<std::string>().empty());
}

TEST(Chat, QwenCodersCallsInTags) {
  Serving s({}, Serving::small(),
            "{% if tools %}<tool_call>\n<function=f>\n<parameter=p>{% endif %}"
            "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}Answer:");
  s.ready();
  const Json body = chat({{"tool_choice", {{"type", "function"}, {"function", {{"name", "get_weather"}}}}}});
  const Json whole = s.post("/v1/chat/completions", body).json()["choices"][0];
  ASSERT_EQ(whole["finish_reason"], "tool_calls") << whole;
  const Json& call = whole["message"]["tool_calls"][0]["function"];
  EXPECT_EQ(call["name"], "get_weather");
  const Json arguments = Json::parse(call["arguments"].get<std::string>());
  EXPECT_TRUE(arguments["city"] == "Oslo" || arguments["city"] == "Rome") << whole;
}

// Each template's own marks, and its calls as the model is shown them.
TEST(Chat, EveryNotationMakesAndReadsItsCalls) {
  const std::string rest = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}Answer:";
  const std::string templates[] = {
      "{% if tools %}[TOOL_CALLS]{% endif %}" + rest,
      "{# tools: functools[ #}" + rest,
      "{% if tools %}Action: \"tool_name\": {% endif %}" + rest,
      "{% if tools %}<|START_ACTION|>{% endif %}{# <|START_RESPONSE|> <|END_THINKING|> #}" + rest,
      "{% if tools %}<｜tool▁sep｜>```json{% endif %}" + rest,
      "{% if tools %}<｜tool▁sep｜>{% endif %}" + rest,
      "{% if tools %}>>>${recipient}{% endif %}" + rest + ">>>",
  };
  for (const std::string& source : templates) {
    Serving s({}, Serving::small(), source);
    s.ready();
    Json body = chat({{"tool_choice", {{"type", "function"}, {"function", {{"name", "get_weather"}}}}},
                      {"max_tokens", 300},
                      {"logit_bias", s.no_space()}});
    const Json whole = s.post("/v1/chat/completions", body).json();
    ASSERT_EQ(whole["choices"][0]["finish_reason"], "tool_calls") << source << whole;
    const Json& calls = whole["choices"][0]["message"]["tool_calls"];
    ASSERT_EQ(calls.size(), 1u);
    EXPECT_EQ(calls[0]["function"]["name"], "get_weather");
    const std::string text = calls[0]["function"]["arguments"];
    const Json arguments = Json::parse(text);
    EXPECT_TRUE(arguments["city"] == "Oslo" || arguments["city"] == "Rome") << whole;
    body["stream"] = true;
    std::string streamed;
    for (const Json& e : s.post("/v1/chat/completions", body).events())
      if (const Json& d = e["choices"][0]["delta"]; d.contains("tool_calls"))
        streamed += d["tool_calls"][0]["function"]["arguments"].get<std::string>();
    EXPECT_EQ(streamed, text);
    // A form of the text is one where the text stands.
    const Json told = s.choice(
        chat({{"tools", nullptr},
              {"response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", {{"const", 7}}}}}}}}),
        "/v1/chat/completions");
    EXPECT_EQ(told["message"]["content"], "7") << source;
  }
}

TEST(Chat, TemplatesThatAddTheTextOfArguments) {
  Serving s({}, Serving::small(),
            "{# tools: functools[ #}{{ functions + '|' + datetime[:2] }}"
            "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls %}"
            "{{ c.function.name + c.function.arguments }}{% endfor %} {% endfor %}Answer:");
  s.ready();
  const Json call = {{"id", "call_1"},
                     {"type", "function"},
                     {"function", {{"name", "clock"}, {"arguments", "{\"zone\":  1}"}}}};
  const Json messages = {{{"role", "user"}, {"content", "Rain?"}},
                         {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {call}}}};
  EXPECT_EQ(
      s.post("/apply-template", {{"messages", messages}, {"tools", {clock_tool()}}}).json()["prompt"],
      "[\n    {\n        \"name\": \"clock\"\n    }\n]|20user: Rain? assistant: Noneclock{\"zone\":  1} "
      "Answer:");
  EXPECT_EQ(
      s.post("/apply-template", {{"messages", {messages[0]}},
                                 {"chat_template_kwargs", {{"functions", "none"}, {"datetime", "now"}}}})
          .json()["prompt"],
      "none|nouser: Rain? Answer:");
}

TEST(Chat, SaysWhatIsWrongWithTools) {
  Serving s({}, Serving::small(), hermes), plain;
  s.ready();
  plain.ready();
  EXPECT_EQ(plain.post("/v1/chat/completions", chat(Json::object())).status, 501);
  EXPECT_EQ(plain.post("/v1/chat/completions", chat({{"tool_choice", "none"}, {"max_tokens", 1}})).status,
            200);
  struct Case {
    Json more;
    int status;
    std::string says;
  };
  Json strict = weather(), unknown = weather(), nameless = weather();
  strict["function"]["strict"] = true;
  unknown["function"]["parameters"]["properties"]["city"] = {{"shape", "round"}};
  nameless["function"]["name"] = "a b";
  const std::vector<Case> cases = {
      {{{"tools", 3}}, 400, "tools"},
      {{{"tools", {3}}}, 400, "tools[0]"},
      {{{"tools", {{{"type", "web_search"}}}}}, 400, "tools[0]"},
      {{{"tools", {nameless}}}, 400, "tools[0]"},
      {{{"tools", {weather(), weather()}}}, 400, "twice"},
      {{{"tools", {unknown}}, {"tool_choice", "required"}}, 400, "shape"},
      {{{"tools", Json::array()}, {"tool_choice", "required"}}, 400, "tool_choice"},
      {{{"tool_choice", "perhaps"}}, 400, "tool_choice"},
      {{{"tool_choice", {{"type", "function"}, {"function", {{"name", "nobody"}}}}}}, 400, "nobody"},
      {{{"guided_regex", "a"}, {"tool_choice", "required"}}, 400, "tool_choice"},
      {{{"response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", {{"type", "no"}}}}}}}},
       400,
       "response_format"},
  };
  for (const Case& c : cases) {
    const Got got = s.post("/v1/chat/completions", chat(c.more));
    EXPECT_EQ(got.status, c.status) << c.more << got.body;
    EXPECT_THAT(got.body, HasSubstr(c.says)) << c.more;
  }
  EXPECT_EQ(s.post("/v1/chat/completions", chat({{"tools", {strict}}, {"tool_choice", "required"}})).status,
            200);
}

}  // namespace
}  // namespace lathe
