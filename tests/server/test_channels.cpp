// Answers in channels over HTTP. The built-in model has not learned them, so whole answers are chosen for it;
// a tiny gpt-oss of random weights has their special tokens, and grammars make it use them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>

#include "edited_checkpoint.h"
#include "server/serving.h"

namespace lathe {
namespace {

using testing::HasSubstr;
using testing::Not;

// In few words what gpt-oss' own template does.
constexpr const char* harmony =
    "{% for t in tools or [] %}// {{ t.function.description + '' }}{{ t.function.name }}\n{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "{% if m.tool_calls %}<|start|>assistant to=functions.{{ m.tool_calls[0].function.name }}"
    "<|channel|>commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>{% endif "
    "%}"
    "{% if m.content %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}";

const Json city = {{"type", "object"},
                   {"properties", {{"city", {{"enum", {"Oslo", "Rome"}}}}}},
                   {"required", {"city"}},
                   {"additionalProperties", false}};
const Json weather = {{"type", "function"}, {"function", {{"name", "weather"}, {"parameters", city}}}};

constexpr const char* whole_answer =
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
    "<|start|>assistant<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>commentary "
    "to=functions.weather <|constrain|>json<|message|>{\"city\": \"Rome\"}";

EngineOptions long_enough() {
  EngineOptions o = Serving::small();
  o.context = 512;
  return o;
}

TEST(Channels, AnAnswerOfEveryKindInEveryApi) {
  Serving s({}, long_enough(), harmony);
  s.ready();
  Json body = {{"messages", {{{"role", "user"}, {"content", "Rain?"}}}},
               {"tools", {weather}},
               {"max_tokens", 300},
               {"guided_choice", {whole_answer}}};
  const Json choice = s.choice(body, "/v1/chat/completions");
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  const Json& message = choice["message"];
  EXPECT_EQ(message["reasoning_content"], "hm\n\nso");
  EXPECT_EQ(message["content"], "I look.");
  ASSERT_EQ(message["tool_calls"].size(), 1u);
  EXPECT_EQ(message["tool_calls"][0]["function"],
            (Json{{"name", "weather"}, {"arguments", "{\"city\": \"Rome\"}"}}));

  body["stream"] = true;
  std::string thoughts, text, name, arguments;
  int64_t pieces = 0;
  for (const Json& e : s.post("/v1/chat/completions", body).events()) {
    const Json& delta = e["choices"][0]["delta"];
    thoughts += delta.value("reasoning_content", "");
    text += delta.value("content", "");
    if (!delta.contains("tool_calls")) continue;
    const Json& function = delta["tool_calls"][0]["function"];
    name += function.value("name", "");
    arguments += function["arguments"].get<std::string>();
    ++pieces;
  }
  EXPECT_EQ(thoughts, "hm\n\nso");
  EXPECT_EQ(text, "I look.");
  EXPECT_EQ(name, "weather");
  EXPECT_EQ(arguments, "{\"city\": \"Rome\"}");
  EXPECT_GT(pieces, 2) << "arguments come as they are written";
  body.erase("stream");

  Json responses = {{"input", "Rain?"},
                    {"tools", {{{"type", "function"}, {"name", "weather"}, {"parameters", city}}}},
                    {"max_output_tokens", 300},
                    {"guided_choice", {whole_answer}}};
  const Json output = s.post("/v1/responses", responses).json()["output"];
  ASSERT_EQ(output.size(), 4u) << output;
  EXPECT_EQ(output[0]["content"][0], (Json{{"type", "reasoning_text"}, {"text", "hm"}}));
  EXPECT_EQ(output[1]["content"][0]["text"], "I look.");
  EXPECT_EQ(output[2]["content"][0]["text"], "so");
  EXPECT_EQ(output[3]["type"], "function_call");
  EXPECT_EQ(output[3]["arguments"], "{\"city\": \"Rome\"}");

  body["tools"] = {{{"name", "weather"}, {"input_schema", city}}};
  const Json got = s.post("/v1/messages", body).json();
  EXPECT_EQ(got["stop_reason"], "tool_use");
  ASSERT_EQ(got["content"].size(), 4u) << got;
  EXPECT_EQ(got["content"][0]["thinking"], "hm");
  EXPECT_EQ(got["content"][1]["text"], "I look.");
  EXPECT_EQ(got["content"][2]["thinking"], "so");
  EXPECT_EQ(got["content"][3]["input"], (Json{{"city", "Rome"}}));
}

// What this server answers can be sent back: thoughts under the template's name for them, no null.
TEST(Channels, AnswersReachTheTemplateAsItReadsThem) {
  Serving s({}, Serving::small(), harmony);
  s.ready();
  const Json call = {{"id", "call_1"},
                     {"type", "function"},
                     {"function", {{"name", "weather"}, {"arguments", "{\"city\": \"Rome\"}"}}}};
  Json assistant = {
      {"role", "assistant"}, {"content", nullptr}, {"reasoning_content", "hm"}, {"tool_calls", {call}}};
  const auto prompt = [&](const Json& messages) {
    const Got got = s.post("/apply-template", {{"messages", messages}, {"tools", {weather}}});
    return got.status == 200 ? got.json()["prompt"].get<std::string>()
                             : std::to_string(got.status) + got.body;
  };
  const Json user = {{"role", "user"}, {"content", "Rain?"}},
             result = {{"role", "tool"}, {"tool_call_id", "call_1"}, {"content", "no"}};
  const std::string before = "// weather\n<|start|>user<|message|>Rain?<|end|>",
                    called =
                        "<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>"
                        "{\"city\": \"Rome\"}<|call|>",
                    behind = "<|start|>tool<|message|>no<|end|><|start|>assistant",
                    thought = "<|start|>assistant<|channel|>analysis<|message|>";
  EXPECT_EQ(prompt({user, assistant, result}), before + thought + "hm<|end|>" + called + behind);
  assistant["content"] = "I look.";
  EXPECT_EQ(prompt({user, assistant, result}), before + thought + "hm\n\nI look.<|end|>" + called + behind)
      << "beside a call the template shows one text";
  Json renamed = assistant;
  renamed.erase("reasoning_content");
  renamed["reasoning"] = "hm";
  EXPECT_EQ(prompt({user, renamed, result}), prompt({user, assistant, result}));
  EXPECT_EQ(prompt({{{"role", "system"}, {"content", "A"}}, {{"role", "developer"}, {"content", "B"}}, user}),
            "// weather\n<|start|>system<|message|>A\n\nB<|end|><|start|>user<|message|>Rain?<|end|>"
            "<|start|>assistant");
  EXPECT_THAT(
      prompt({user, {{"role", "system"}, {"content", "A"}}}),
      testing::AllOf(testing::StartsWith("400"), HasSubstr("messages[1]: expected instructions before")));
  assistant["tool_calls"].push_back(call);
  EXPECT_THAT(prompt({user, assistant, result}),
              testing::AllOf(testing::StartsWith("400"), HasSubstr("messages[1].tool_calls: expected one")));
}

// The golden gpt-oss with a vocabulary for it: a token for each ASCII character, then those of channels.
class Tiny {
 public:
  Tiny() {
    path_ = checkpoint_.write();
    Json vocab = Json::object(), added = Json::array();
    const auto add = [&](const std::string& text) { vocab[text] = static_cast<int32_t>(vocab.size()); };
    for (char c = '!'; c <= '~'; ++c) add(std::string(1, c));
    add("\u0120");  // a blank, as byte-level vocabularies write it
    add("\u010a");  // a line break
    auto next = static_cast<int32_t>(vocab.size());
    for (const char* text :
         {"<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"}) {
      id[text] = next;
      added.push_back({{"id", next++},
                       {"content", text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    }
    const Json byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    const Json tokenizer = {{"version", "1.0"},
                            {"added_tokens", added},
                            {"normalizer", nullptr},
                            {"pre_tokenizer", byte_level},
                            {"post_processor", nullptr},
                            {"decoder", byte_level},
                            {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
    write_file_atomically(path_ / "tokenizer.json", tokenizer.dump());
  }
  std::string path() const { return path_.string(); }
  std::map<std::string, int32_t> id;

 private:
  testing_support::Edited checkpoint_{"gpt_oss"};
  fs::path path_;
};

void expect_a_city(const Json& message) {
  const std::string arguments = message["tool_calls"][0]["function"]["arguments"];
  const Json said = Json::parse(arguments, nullptr, false);
  EXPECT_THAT(said, testing::AnyOf(Json{{"city", "Oslo"}}, Json{{"city", "Rome"}})) << arguments;
}

TEST(Channels, GrammarsBeginBehindThoughts) {
  const Tiny tiny;
  Serving s({}, Serving::small(), harmony, {}, {}, tiny.path());
  s.ready();
  // Thoughts of some letters, the special tokens rather than their letters, and "commentary" where it may be.
  const auto of = [&](const char* letter) { return std::to_string(s.tokenizer().encode(letter).at(0)); };
  Json bias = s.no_space();
  bias.update({{std::to_string(tiny.id.at("<|end|>")), 3}, {of("c"), 6}, {of("<"), -100}});
  Json body = {
      {"messages", {{{"role", "user"}, {"content", "Rain?"}}}}, {"max_tokens", 200}, {"logit_bias", bias}};
  const Json formed = {{"type", "json_schema"}, {"json_schema", {{"schema", {{"enum", {"wet", "dry"}}}}}}};
  const Json strict = {{"type", "function"},
                       {"function", {{"name", "weather"}, {"strict", true}, {"parameters", city}}}};
  std::set<std::string> seen;
  for (int seed = 0; seed < 16; ++seed) {
    body["seed"] = seed;
    const bool tools = seed % 2;
    Json asked = body;
    asked["response_format"] = formed;
    if (tools) asked["tools"] = {weather};
    const Json choice = s.choice(asked, "/v1/chat/completions");
    const Json& message = choice["message"];
    SCOPED_TRACE(choice.dump());
    EXPECT_NE(choice["finish_reason"], "length");
    if (const std::string thoughts = message.value("reasoning_content", ""); !thoughts.empty()) {
      seen.insert("thoughts");
      EXPECT_THAT(thoughts, Not(HasSubstr("<|end|>")));
    }
    if (message.contains("tool_calls")) {
      EXPECT_TRUE(tools);
      seen.insert("call");
      EXPECT_TRUE(message["content"].is_null());
      expect_a_city(message);
    } else {
      seen.insert("text");
      EXPECT_THAT(message["content"].get<std::string>(), testing::AnyOf("\"wet\"", "\"dry\""));
    }
  }
  EXPECT_EQ(seen, (std::set<std::string>{"call", "text", "thoughts"}));

  body["tools"] = {strict};
  for (int seed = 0; seed < 8; ++seed) {
    body["seed"] = seed;
    const Json message = s.choice(body, "/v1/chat/completions")["message"];
    if (message.contains("tool_calls")) expect_a_city(message);
  }
  body["tools"] = {weather};
  body["tool_choice"] = "required";
  const Json choice = s.choice(body, "/v1/chat/completions");
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "weather");
  expect_a_city(choice["message"]);
  EXPECT_TRUE(choice["message"]["content"].is_null());
}

TEST(Channels, TheModelStopsBehindCallsAndAnswers) {
  const Tiny tiny;
  Serving s({}, Serving::small(), harmony, {}, {}, tiny.path());
  s.ready();
  for (const char* stop : {"<|return|>", "<|call|>"}) {
    Json body = {{"messages", {{{"role", "user"}, {"content", "Rain?"}}}},
                 {"max_tokens", 3},
                 {"logit_bias", {{std::to_string(tiny.id.at(stop)), 100}}}};
    Json j = s.post("/v1/chat/completions", body).json();
    EXPECT_EQ(j["choices"][0]["finish_reason"], "stop") << stop;
    EXPECT_EQ(j["usage"]["completion_tokens"], 1) << stop;
    body["ignore_eos"] = true;
    j = s.post("/v1/chat/completions", body).json();
    EXPECT_EQ(j["choices"][0]["finish_reason"], "length") << stop;
    EXPECT_EQ(j["choices"][0]["message"]["content"], "") << "what ends nothing is nothing";
  }
  // Its special tokens reach the reader: a header in them, then what is no end is the content.
  const std::string letters = "<|channel|>final<|message|>";
  EXPECT_EQ(s.tokenizer().encode(letters).size(), 2 + 5u);
  EXPECT_EQ(s.post("/v1/chat/completions",
                   {{"messages", {{{"role", "user"}, {"content", "Rain?"}}}}, {"thinking_token_budget", 5}})
                .status,
            501);
}

}  // namespace
}  // namespace lathe
