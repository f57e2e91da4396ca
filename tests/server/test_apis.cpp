// Other APIs' shapes: Anthropic's messages, OpenAI's responses, llama.cpp's completions.
#include <cmath>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <regex>

#include "adapter_files.h"
#include "models/adapter.h"
#include "server/serving.h"
#include "support.h"

namespace lathe {
namespace {

using testing::HasSubstr;

const Json city = {{"type", "object"},
                   {"properties", {{"city", {{"enum", {"Oslo", "Rome"}}}}}},
                   {"required", {"city"}},
                   {"additionalProperties", false}};

std::string steady(std::string body) {
  body = std::regex_replace(body, std::regex("(msg|resp|call|fc)_[0-9a-f]+"), "$1_ID");
  return std::regex_replace(body, std::regex("\"created_at\":[0-9]+"), "\"created_at\":0");
}

// The events of a stream that has no [DONE], each under its name.
std::vector<Json> named_events(const std::string& body) {
  std::vector<Json> all;
  for (size_t at = 0; at < body.size();) {
    const size_t line = body.find('\n', at), end = body.find("\n\n", at);
    const std::string data = body.substr(line + 7, end - line - 7);
    all.push_back(Json::parse(data));
    EXPECT_EQ(body.substr(at, line - at), "event: " + all.back()["type"].get<std::string>());
    at = end + 2;
  }
  return all;
}

TEST(Messages, AnAnswerAndTheBytesOfItsStream) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  Json body = {{"model", "builtin"},
               {"max_tokens", 1},
               {"temperature", 0},
               {"system", {{{"type", "text"}, {"text", "Be brief."}}}},
               {"messages", {{{"role", "user"}, {"content", {{{"type", "text"}, {"text", "Hi"}}}}}}}};
  const Json whole = s.post("/v1/messages", body).json();
  EXPECT_EQ(whole["type"], "message");
  EXPECT_EQ(whole["role"], "assistant");
  EXPECT_EQ(whole["stop_reason"], "max_tokens");
  EXPECT_TRUE(whole["stop_sequence"].is_null());
  const std::string text = whole["content"][0]["text"];
  const size_t tokens = s.tokenizer().encode("system: Be brief. user: Hi Answer:").size();
  EXPECT_EQ(whole["usage"],
            (Json{{"input_tokens", tokens}, {"cache_read_input_tokens", 0}, {"output_tokens", 1}}));
  Json counted = body;
  counted.erase("max_tokens");
  EXPECT_EQ(s.post("/v1/messages/count_tokens", counted).json()["input_tokens"], tokens);
  body["stream"] = true;
  const std::string n = std::to_string(tokens);
  EXPECT_EQ(
      steady(s.post("/v1/messages", body).body),
      "event: message_start\ndata: "
      "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_ID\",\"type\":\"message\","
      "\"role\":\"assistant\",\"model\":\"builtin\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":"
      "null,"
      "\"usage\":{\"input_tokens\":" +
          n +
          ",\"cache_read_input_tokens\":0,\"output_tokens\":1}}}\n\n"
          "event: content_block_start\ndata: "
          "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":"
          "\"text\",\"text\":\"\"}}\n\n"
          "event: content_block_delta\ndata: "
          "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
          "\"text_delta\",\"text\":" +
          Json(text).dump() +
          "}}\n\n"
          "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
          "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\","
          "\"stop_sequence\":null},\"usage\":{\"input_tokens\":" +
          n +
          ",\"cache_read_input_tokens\":0,\"output_tokens\":1}}\n\n"
          "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

TEST(Messages, ToolsAndStops) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  Json body = {{"max_tokens", 100},
               {"temperature", 0},
               {"tools", {{{"name", "weather"}, {"description", "d"}, {"input_schema", city}}}},
               {"tool_choice", {{"type", "any"}, {"disable_parallel_tool_use", true}}},
               {"messages", {{{"role", "user"}, {"content", "Rain?"}}}}};
  const Json whole = s.post("/v1/messages", body).json();
  ASSERT_EQ(whole["stop_reason"], "tool_use") << whole;
  const Json& call = whole["content"][0];
  EXPECT_EQ(call["type"], "tool_use");
  EXPECT_EQ(call["name"], "weather");
  EXPECT_TRUE(call["input"]["city"] == "Oslo" || call["input"]["city"] == "Rome");
  body["stream"] = true;
  std::string input;
  for (const Json& e : named_events(s.post("/v1/messages", body).body))
    if (e["type"] == "content_block_delta") {
      EXPECT_EQ(e["delta"]["type"], "input_json_delta");
      input += e["delta"]["partial_json"].get<std::string>();
    }
  EXPECT_EQ(Json::parse(input), call["input"]);
  // Its result goes back.
  body.erase("stream");
  body["tool_choice"] = {{"type", "auto"}};
  body["max_tokens"] = 2;
  body["messages"].push_back({{"role", "assistant"}, {"content", {call}}});
  body["messages"].push_back(
      {{"role", "user"},
       {"content", {{{"type", "tool_result"}, {"tool_use_id", call["id"]}, {"content", "yes"}}}}});
  EXPECT_EQ(s.post("/v1/messages", body).status, 200);
  const std::string prompt =
      "weather as <tool_call>\nuser: Rain? assistant: weather=" + call["input"]["city"].get<std::string>() +
      " tool: yes Answer:";
  EXPECT_EQ(s.post("/v1/messages/count_tokens", body).json()["input_tokens"],
            s.tokenizer().encode(prompt).size());

  Json plain = {
      {"max_tokens", 40}, {"temperature", 0}, {"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  const std::string text = s.post("/v1/messages", plain).json()["content"][0]["text"];
  plain["stop_sequences"] = {text.substr(5, 4)};
  const Json stopped = s.post("/v1/messages", plain).json();
  EXPECT_EQ(stopped["stop_reason"], "stop_sequence");
  EXPECT_EQ(stopped["stop_sequence"], text.substr(5, 4));
}

TEST(Messages, ErrorsHaveItsShape) {
  Serving s;
  s.ready();
  const Json none = s.post("/v1/messages", {{"messages", {{{"role", "user"}, {"content", "a"}}}}}).json();
  EXPECT_EQ(none["type"], "error");
  EXPECT_EQ(none["error"]["type"], "invalid_request_error");
  EXPECT_THAT(none["error"]["message"].get<std::string>(), HasSubstr("max_tokens"));
  for (const Json& bad : {Json{{"max_tokens", 1}}, Json{{"max_tokens", 1}, {"messages", Json::array()}},
                          Json{{"max_tokens", 1}, {"messages", {{{"role", "tool"}, {"content", "a"}}}}},
                          Json{{"max_tokens", 1}, {"messages", {{{"role", "user"}, {"content", 3}}}}}}) {
    const Got got = s.post("/v1/messages", bad);
    EXPECT_EQ(got.status, 400) << bad << got.body;
    EXPECT_EQ(got.json()["type"], "error");
  }
}

TEST(Messages, TheServersOwnErrorsHaveItToo) {
  Serving s;
  const Got loading = s.post("/v1/messages", Json::object());
  EXPECT_EQ(loading.json()["error"]["type"], "overloaded_error");
  s.ready();
  for (const auto& [path, type] : {std::pair{"/v1/messages", "error"}, {"/v1/completions", ""}}) {
    Client client(s.port());
    client.send(fmt::format("POST {} HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", path));
    const std::string all = client.read_all();
    EXPECT_THAT(all, testing::StartsWith("HTTP/1.1 413"));
    const Json body = Json::parse(all.substr(all.find("\r\n\r\n") + 4));
    EXPECT_EQ(body.value("type", ""), type);
    EXPECT_EQ(body["error"]["type"], *type ? "request_too_large" : "invalid_request_error");
  }
}

// Of what the template makes of a chat.
constexpr const char* with_ends =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}";

TEST(Messages, TheAssistantsLastMessageIsGoneOnWith) {
  Serving s({}, Serving::small(), with_ends);
  s.ready();
  const auto tokens = [&](const Json& messages) {
    return s.post("/v1/messages/count_tokens", {{"messages", messages}}).json()["input_tokens"];
  };
  const auto length = [&](const std::string& text) {
    return s.tokenizer().encode(text, {.add_special_tokens = false}).size();
  };
  const Json user = {{"role", "user"}, {"content", "Hi"}};
  Json last = {{"role", "assistant"}, {"content", "Well, this is what I have"}};
  EXPECT_EQ(tokens(Json::array({user, last})), length("user: Hi<end>assistant: Well, this is what I have"));
  last["content"] = "";  // nothing to go on with
  EXPECT_EQ(tokens(Json::array({user, last})), length("user: Hi<end>Answer:"));
  // A tool's failure is in its text.
  Json result = {
      {"type", "tool_result"}, {"tool_use_id", "t"}, {"content", "no such city"}, {"is_error", true}};
  const Json answered = {{"role", "user"}, {"content", Json::array({result})}};
  EXPECT_EQ(tokens(Json::array({answered})), length("tool: Error: no such city<end>Answer:"));
}

TEST(Chat, DevelopersAreTheSystemUnlessTheTemplateKnowsThem) {
  const Json messages = {{{"role", "developer"}, {"content", "Be brief."}},
                         {{"role", "user"}, {"content", "Hi"}}};
  Serving s({}, Serving::small(), with_ends);
  s.ready();
  EXPECT_EQ(s.post("/apply-template", {{"messages", messages}}).json()["prompt"],
            "system: Be brief.<end>user: Hi<end>Answer:");
  Serving knows({}, Serving::small(), std::string(with_ends) + "{# developer #}");
  knows.ready();
  EXPECT_EQ(knows.post("/apply-template", {{"messages", messages}}).json()["prompt"],
            "developer: Be brief.<end>user: Hi<end>Answer:");
}

// Each is read by the engine's request, and so refused by name where it is not what it may be.
TEST(Apis, WhatTheyMeanAlikeIsCarried) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  const Json chat = {{{"role", "user"}, {"content", "Hi"}}};
  for (const auto& [path, request] :
       {std::pair<std::string, Json>{"/v1/messages", {{"messages", chat}, {"max_tokens", 1}}},
        {"/v1/responses", {{"input", "a"}, {"max_output_tokens", 1}}},
        {"/completion", {{"prompt", "a"}, {"n_predict", 1}}}})
    for (const char* field : {"min_p", "typical_p", "presence_penalty", "frequency_penalty", "priority",
                              "cache_salt", "min_tokens", "allowed_token_ids"}) {
      Json body = request;
      EXPECT_EQ(s.post(path, body).status, 200) << path;
      body[field] = Json::object();
      const Got got = s.post(path, body);
      EXPECT_EQ(got.status, 400) << path << field << got.body;
      EXPECT_THAT(got.body, HasSubstr(field));
    }
}

// What a model is forced into amid its text: a pattern with more ways to read it than the budget has steps.
const Json ambiguous = {{"type", "object"},
                        {"properties", {{"city", {{"type", "string"}, {"pattern", "^(.{0,60}){0,60}$"}}}}},
                        {"required", {"city"}},
                        {"additionalProperties", false}};

// The last event of a stream that fails; before it there was another.
std::string end_of(const Got& got) {
  EXPECT_EQ(got.status, 200) << got.body;
  const size_t before = got.body.rfind("\n\n", got.body.size() - 3);
  EXPECT_NE(before, std::string::npos) << got.body;
  return std::regex_replace(steady(got.body.substr(before + 2)), std::regex("\"message\":\"[^\"]*\""),
                            "\"message\":\"WHY\"");
}

TEST(Streams, AnErrorBehindTheirBeginningHasTheShapeOfTheirApi) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  const Json limits = {{"max_tokens", 100}, {"stream", true}, {"temperature", 0}};
  const Json format = {{"type", "json_schema"}, {"json_schema", {{"name", "n"}, {"schema", ambiguous}}}};
  const std::string openai =
      "data: {\"error\":{\"message\":\"WHY\",\"type\":\"invalid_request_error\",\"param\":null,"
      "\"code\":400}}\n\n";
  Json body = limits;
  body.update({{"prompt", "Rain?"}, {"guided_json", ambiguous}});
  EXPECT_EQ(end_of(s.post("/v1/completions", body)), openai);
  EXPECT_EQ(end_of(s.post("/completion", body)), openai);
  const Json chat = {{{"role", "user"}, {"content", "Rain?"}}};
  body = limits;
  body.update({{"messages", chat}, {"response_format", format}});
  EXPECT_EQ(end_of(s.post("/v1/chat/completions", body)), openai);
  body = limits;
  body.update({{"messages", chat}, {"output_format", {{"type", "json_schema"}, {"schema", ambiguous}}}});
  EXPECT_EQ(end_of(s.post("/v1/messages", body)),
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\","
            "\"message\":\"WHY\"}}\n\n");
  body = {{"stream", true},
          {"temperature", 0},
          {"input", "Rain?"},
          {"text", {{"format", {{"type", "json_schema"}, {"name", "n"}, {"schema", ambiguous}}}}}};
  const std::string failed = end_of(s.post("/v1/responses", body));
  EXPECT_THAT(failed, testing::StartsWith("event: response.failed\ndata: {\"type\":\"response.failed\","));
  EXPECT_THAT(failed,
              HasSubstr("\"status\":\"failed\",\"background\":false,\"error\":{\"code\":\"invalid_prompt\","
                        "\"message\":\"WHY\"}"));
  s.expect_all_blocks_free();
}

TEST(Streams, ThoughtsAreDeltasOfTheirOwn) {
  Serving s({}, Serving::small(), std::string(Serving::plain_template) + "<think>\n{# </think> #}");
  s.ready();
  const Json chat = {{{"role", "user"}, {"content", "Hi"}}};
  const Json body = {{"messages", chat},       {"input", chat},  {"max_tokens", 1},
                     {"max_output_tokens", 1}, {"stream", true}, {"temperature", 0}};
  const std::string thought =
      s.post("/v1/chat/completions", body).events()[1]["choices"][0]["delta"]["reasoning_content"];
  EXPECT_THAT(
      steady(s.post("/v1/messages", body).body),
      HasSubstr("event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
                "\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n"
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
                "\"delta\":{\"type\":\"thinking_delta\",\"thinking\":" +
                Json(thought).dump() +
                "}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"));
  EXPECT_THAT(
      std::regex_replace(s.post("/v1/responses", body).body, std::regex("rs_[0-9a-f]+"), "rs_ID"),
      HasSubstr("event: response.reasoning_text.delta\ndata: {\"type\":\"response.reasoning_text.delta\","
                "\"sequence_number\":4,\"item_id\":\"rs_ID\",\"output_index\":0,\"content_index\":0,"
                "\"delta\":" +
                Json(thought).dump() + "}\n\n"));
}

TEST(Messages, WhatBoundsTheTextIsCarried) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  const Json schema = {{"enum", {"yes", "no"}}};
  const Json format = {{"type", "json_schema"}, {"schema", schema}};
  for (const Json& more : {Json{{"output_format", format}}, Json{{"output_config", {{"format", format}}}},
                           Json{{"guided_json", schema}}}) {
    Json body = {{"max_tokens", 40}, {"messages", {{{"role", "user"}, {"content", "Rain?"}}}}};
    body.update(more);
    const Json whole = s.post("/v1/messages", body).json();
    const Json said = Json::parse(whole["content"][0]["text"].get<std::string>());
    EXPECT_TRUE(said == "yes" || said == "no") << whole;
    body["output_format"] = {{"type", "yaml"}};
    EXPECT_EQ(s.post("/v1/messages", body).status, 400);
  }
  // A strict tool bounds what may be called: arguments of another form are never written.
  Json body = {{"max_tokens", 100},
               {"temperature", 0},
               {"tools", {{{"name", "weather"}, {"input_schema", {{"nonsense", 1}}}, {"strict", true}}}},
               {"messages", {{{"role", "user"}, {"content", "Rain?"}}}}};
  EXPECT_EQ(s.post("/v1/messages", body).status, 400) << "its schema is compiled";
  body["tools"][0].erase("strict");
  EXPECT_EQ(s.post("/v1/messages", body).status, 200);
}

TEST(StructuredOutputs, NothingOfThemIsDropped) {
  Serving s;
  s.ready();
  const Json digits = {{"structured_outputs", {{"regex", "[0-9]{5}"}}}};
  for (const Json& more :
       {digits, Json{{"guided_regex", "[0-9]{5}"}},
        Json{{"response_format",
              {{"type", "json_schema"}, {"json_schema", {{"schema", {{"enum", {12345}}}}}}}}}}) {
    Json body = {{"prompt", "a"}, {"n_predict", 20}};
    body.update(more);
    EXPECT_EQ(s.post("/completion", body).json()["content"].get<std::string>().size(), 5u) << more;
    body = {{"input", "a"}};
    body.update(more);
    EXPECT_EQ(
        s.post("/v1/responses", body).json()["output"][0]["content"][0]["text"].get<std::string>().size(),
        5u);
  }
  Json body = {{"prompt", "a"}, {"structured_outputs", {{"regex", "[0-9]"}, {"structural_tag", "{}"}}}};
  const Got got = s.post("/v1/completions", body);
  EXPECT_EQ(got.status, 501);
  EXPECT_THAT(got.body, HasSubstr("structured_outputs.structural_tag"));
  body["structured_outputs"] = {{"regex", "[0-9]"}, {"structural_tag", nullptr}, {"disable_fallback", true}};
  EXPECT_EQ(s.post("/v1/completions", body).status, 200);
  EXPECT_EQ(s.post("/completion", {{"prompt", "a"}, {"n_predict", 1}, {"grammar", ""}}).status, 200);
}

TEST(NotDone, IsRefusedByNameAndDefaultsAreNot) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  const Json chat = {{{"role", "user"}, {"content", "Hi"}}};
  const std::map<std::string, Json> routes = {
      {"/v1/chat/completions", {{"messages", chat}, {"max_tokens", 1}}},
      {"/v1/completions", {{"prompt", "a"}, {"max_tokens", 1}}},
      {"/completion", {{"prompt", "a"}, {"n_predict", 1}}},
      {"/v1/responses", {{"input", "a"}, {"max_output_tokens", 1}}},
      {"/v1/messages", {{"messages", chat}, {"max_tokens", 1}}},
      {"/v1/embeddings", {{"input", "a"}}}};
  struct Case {
    std::string path, name;
    Json refused;
    std::vector<Json> taken;
  };
  const std::vector<Case> cases = {
      {"/completion", "mirostat", 2, {0, nullptr}},
      {"/completion", "dry_multiplier", 0.8, {0, 0.0}},
      {"/completion", "xtc_probability", 0.5, {0.0}},
      {"/completion", "dynatemp_range", 0.5, {0.0}},
      {"/completion",
       "samplers",
       {"top_k"},
       {{"dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"}}},
      {"/completion", "n_keep", 5, {0, -1}},
      {"/completion", "lora", {{{"id", 0}, {"scale", 1}}}, {Json::array()}},
      {"/v1/chat/completions", "mirostat", 1, {0}},
      {"/v1/chat/completions", "length_penalty", 2, {1, 1.0}},
      {"/v1/chat/completions", "modalities", {"text", "audio"}, {Json::array({"text"})}},
      {"/v1/chat/completions", "chat_template", "x", {nullptr}},
      {"/v1/chat/completions", "echo", true, {false}},
      {"/v1/chat/completions", "add_special_tokens", true, {false}},
      {"/v1/completions", "use_beam_search", true, {false}},
      {"/v1/responses", "truncation", "auto", {"disabled"}},
      {"/v1/responses", "prompt", {{"id", "p"}}, {nullptr}},
      {"/v1/responses", "max_tool_calls", 3, {nullptr}},
      {"/v1/responses",
       "include",
       {"web_search_call.results"},
       {Json::array({"reasoning.encrypted_content"})}},
      {"/v1/responses", "reasoning", {{"summary", "detailed"}}, {{{"effort", "low"}, {"summary", "auto"}}}},
      {"/v1/messages", "mcp_servers", {{{"name", "m"}}}, {Json::array()}},
      {"/v1/messages", "container", "c", {nullptr}},
      {"/v1/embeddings", "truncate_prompt_tokens", 3, {nullptr}},
  };
  for (const Case& c : cases) {
    Json body = routes.at(c.path);
    EXPECT_EQ(s.post(c.path, body).status, 200) << c.path;
    body[c.name] = c.refused;
    const Got got = s.post(c.path, body);
    EXPECT_EQ(got.status, 501) << c.path << body << got.body;
    EXPECT_THAT(got.json()["error"]["message"].get<std::string>(), HasSubstr(c.name));
    for (const Json& value : c.taken) {
      body[c.name] = value;
      EXPECT_EQ(s.post(c.path, body).status, 200) << c.path << body;
    }
  }
  Json named = routes.at("/completion");
  named["model"] = "gpt-9";
  EXPECT_EQ(s.post("/completion", named).status, 404);
}

TEST(Messages, ThoughtsHaveABudget) {
  const std::string thinks = std::string(Serving::plain_template) + "<think>\n{# </think> #}";
  Serving s({}, Serving::small(), thinks);
  s.ready();
  const Json body = {{"max_tokens", 12},
                     {"temperature", 0},
                     {"thinking", {{"type", "enabled"}, {"budget_tokens", 4}}},
                     {"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  const Got got = s.post("/v1/messages", body);
  EXPECT_EQ(got.status, 501) << "the built-in model has no token that ends thoughts";
  EXPECT_THAT(got.body, HasSubstr("thinking_token_budget"));
  Serving plain;
  plain.ready();
  EXPECT_EQ(plain.post("/v1/messages", body).status, 200) << "a model without thoughts keeps any budget";
}

TEST(Responses, AnAnswerAndTheBytesOfItsStream) {
  Serving s;
  s.ready();
  Json body = {{"input", "Hi"}, {"max_output_tokens", 1}, {"temperature", 0}};
  const Json whole = s.post("/v1/responses", body).json();
  EXPECT_EQ(whole["object"], "response");
  EXPECT_EQ(whole["status"], "incomplete");
  EXPECT_EQ(whole["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(whole["usage"]["output_tokens"], 1);
  const Json& part = whole["output"][0]["content"][0];
  EXPECT_EQ(part["type"], "output_text");
  body["stream"] = true;
  const std::string bytes = steady(s.post("/v1/responses", body).body);
  const std::string text = part["text"].dump();
  const size_t tail = bytes.find("event: response.output_item.added");
  EXPECT_THAT(bytes, testing::StartsWith(
                         "event: response.created\ndata: {\"type\":\"response.created\","
                         "\"sequence_number\":0,\"response\":{\"id\":\"resp_ID\",\"object\":\"response\","
                         "\"created_at\":0,\"status\":\"in_progress\""));
  EXPECT_THAT(
      bytes,
      HasSubstr(
          "event: response.in_progress\ndata: {\"type\":\"response.in_progress\",\"sequence_number\":1,"));
  const std::string at = "\"item_id\":\"msg_ID\",\"output_index\":0,\"content_index\":0,";
  const std::string empty = "{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[],\"logprobs\":[]}";
  const std::string full =
      "{\"type\":\"output_text\",\"text\":" + text + ",\"annotations\":[],\"logprobs\":[]}";
  auto event = [n = 2](const std::string& name, const std::string& rest) mutable {
    return "event: " + name + "\ndata: {\"type\":\"" + name +
           "\",\"sequence_number\":" + std::to_string(n++) + "," + rest + "}\n\n";
  };
  std::string expected =
      event("response.output_item.added",
            "\"output_index\":0,\"item\":{\"id\":\"msg_ID\",\"type\":\"message\",\"status\":\"in_progress\","
            "\"role\":\"assistant\",\"content\":[]}");
  expected += event("response.content_part.added", at + "\"part\":" + empty);
  expected += event("response.output_text.delta", at + "\"delta\":" + text + ",\"logprobs\":[]");
  expected += event("response.output_text.done", at + "\"text\":" + text + ",\"logprobs\":[]");
  expected += event("response.content_part.done", at + "\"part\":" + full);
  expected +=
      event("response.output_item.done",
            "\"output_index\":0,\"item\":{\"id\":\"msg_ID\",\"type\":\"message\",\"status\":\"incomplete\","
            "\"role\":\"assistant\",\"content\":[" +
                full + "]}");
  EXPECT_EQ(bytes.substr(tail, expected.size()), expected);
  const std::vector<Json> events = named_events(bytes);
  EXPECT_EQ(events.back()["type"], "response.incomplete");
  // By then the prefix cache may know the prompt.
  EXPECT_EQ(events.back()["response"]["output"][0]["content"], whole["output"][0]["content"]);
}

TEST(Responses, ItemsCallsAndSchemas) {
  Serving s({}, Serving::small(), hermes);
  s.ready();
  Json body = {{"input", {{{"role", "user"}, {"content", {{{"type", "input_text"}, {"text", "Rain?"}}}}}}},
               {"instructions", "Be brief."},
               {"temperature", 0},
               {"parallel_tool_calls", false},
               {"tools", {{{"type", "function"}, {"name", "weather"}, {"parameters", city}}}},
               {"tool_choice", {{"type", "function"}, {"name", "weather"}}}};
  const Json whole = s.post("/v1/responses", body).json();
  ASSERT_EQ(whole["status"], "completed") << whole;
  const Json& call = whole["output"][0];
  EXPECT_EQ(call["type"], "function_call");
  EXPECT_EQ(call["name"], "weather");
  body["stream"] = true;
  std::string arguments;
  for (const Json& e : named_events(s.post("/v1/responses", body).body)) {
    if (e["type"] == "response.function_call_arguments.delta") arguments += e["delta"].get<std::string>();
    if (e["type"] == "response.function_call_arguments.done") {
      EXPECT_EQ(e["arguments"], arguments);
    }
  }
  EXPECT_EQ(arguments, call["arguments"]);
  body.erase("stream");
  body["tool_choice"] = "auto";
  body["max_output_tokens"] = 2;
  body["input"].push_back(call);
  body["input"].push_back(
      {{"type", "function_call_output"}, {"call_id", call["call_id"]}, {"output", "yes"}});
  EXPECT_EQ(s.post("/v1/responses", body).status, 200);

  const Json schema = {{"type", "json_schema"}, {"name", "n"}, {"schema", {{"enum", {"yes", "no"}}}}};
  const Json answer = s.post("/v1/responses", {{"input", "Rain?"}, {"text", {{"format", schema}}}}).json();
  const Json said = Json::parse(answer["output"][0]["content"][0]["text"].get<std::string>());
  EXPECT_TRUE(said == "yes" || said == "no");
  EXPECT_EQ(s.post("/v1/responses", {{"input", "a"}, {"previous_response_id", "resp_1"}}).status, 400);
  EXPECT_EQ(s.post("/v1/responses", {{"input", 3}}).status, 400);
  EXPECT_EQ(s.post("/v1/responses", {{"input", "a"}, {"tools", {{{"type", "web_search"}}}}}).status, 501);
}

TEST(Responses, LogprobsOfTheText) {
  Serving s;
  s.ready();
  Json body = {{"input", "Hi"}, {"max_output_tokens", 4}, {"temperature", 0}, {"top_logprobs", 2}};
  const Json whole = s.post("/v1/responses", body).json()["output"][0]["content"][0];
  ASSERT_EQ(whole["logprobs"].size(), 4u);
  std::string text;
  for (const Json& t : whole["logprobs"]) {
    EXPECT_EQ(t["top_logprobs"].size(), 2u);
    EXPECT_EQ(t["top_logprobs"][0]["logprob"], t["logprob"]) << "greedy";
    text += t["token"].get<std::string>();
  }
  EXPECT_EQ(text, whole["text"]);
  body["stream"] = true;
  Json streamed = Json::array();
  for (const Json& e : named_events(s.post("/v1/responses", body).body)) {
    if (e["type"] == "response.output_text.delta")
      for (const Json& t : e["logprobs"]) streamed.push_back(t);
    if (e["type"] == "response.output_text.done") {
      EXPECT_EQ(e["logprobs"], whole["logprobs"]);
    }
  }
  EXPECT_EQ(streamed, whole["logprobs"]);
  body = {{"input", "Hi"}, {"max_output_tokens", 1}, {"include", {"message.output_text.logprobs"}}};
  EXPECT_EQ(s.post("/v1/responses", body).json()["output"][0]["content"][0]["logprobs"].size(), 1u);
}

TEST(LlamaCpp, CompletionPropsAndSlots) {
  Serving s;
  s.ready();
  Json body = {{"prompt", "Once upon a time"}, {"n_predict", 6}, {"temperature", 0}, {"return_tokens", true}};
  const Json whole = s.post("/completion", body).json();
  EXPECT_EQ(whole["stop"], true);
  EXPECT_EQ(whole["stop_type"], "limit");
  EXPECT_EQ(whole["tokens_predicted"], 6);
  EXPECT_EQ(whole["tokens"].size(), 6u);
  EXPECT_EQ(whole["content"], s.tokenizer().decode(whole["tokens"].get<std::vector<int32_t>>()));
  const Json& times = whole["timings"];
  EXPECT_EQ(times["predicted_n"], 6);
  EXPECT_EQ(times["prompt_n"].get<int>() + times["cache_n"].get<int>(), whole["tokens_evaluated"].get<int>());
  for (const std::string of : {"prompt", "predicted"}) {
    const double n = times[of + "_n"], ms = times[of + "_ms"];
    EXPECT_GT(ms, 0);
    EXPECT_DOUBLE_EQ(times[of + "_per_token_ms"].get<double>(), ms / n);
    EXPECT_DOUBLE_EQ(times[of + "_per_second"].get<double>(), n / (ms * 1e-3));
  }
  body["stream"] = true;
  std::string text;
  const std::string bytes = s.post("/completion", body).body;
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = bytes.find("\n\n", at);
    const Json e = Json::parse(bytes.substr(at + 6, end - at - 6));
    text += e["content"].get<std::string>();
    at = end + 2;
    EXPECT_EQ(e["stop"].get<bool>(), at == bytes.size());
  }
  EXPECT_EQ(text, whole["content"]);
  body = {{"prompt", "Once"}, {"grammar", "root ::= \"yes\" | \"no\""}};
  const std::string said = s.post("/completion", body).json()["content"];
  EXPECT_TRUE(said == "yes" || said == "no");
  const Json props = s.ask("GET", "/props").json();
  EXPECT_EQ(props["default_generation_settings"]["n_ctx"], 256);
  EXPECT_EQ(props["chat_template"], Serving::plain_template);
  EXPECT_EQ(s.ask("GET", "/slots").json().size(), props["total_slots"].get<size_t>());
}

TEST(LlamaCpp, ProbabilitiesAreThoseOfCompletions) {
  Serving s;
  s.ready();
  Json body = {{"prompt", "Once upon a time"}, {"max_tokens", 5}, {"temperature", 0}, {"logprobs", 3}};
  const Json columns = s.choice(body)["logprobs"];
  body = {{"prompt", "Once upon a time"}, {"n_predict", 5}, {"temperature", 0}, {"n_probs", 3}};
  const Json whole = s.post("/completion", body).json(), probabilities = whole["completion_probabilities"];
  ASSERT_EQ(probabilities.size(), 5u);
  std::string text;
  for (size_t i = 0; i < 5; ++i) {
    const Json& one = probabilities[i];
    EXPECT_EQ(one["logprob"], columns["token_logprobs"][i]);
    EXPECT_EQ(one["token"], columns["tokens"][i]);
    const auto id = one["id"].get<int32_t>();
    EXPECT_EQ(s.tokenizer().decode({&id, 1}), one["token"]);
    ASSERT_EQ(one["top_logprobs"].size(), 3u);
    EXPECT_EQ(one["top_logprobs"][0]["id"], one["id"]) << "greedy";
    for (const uint8_t byte : one["bytes"].get<std::vector<uint8_t>>()) text += static_cast<char>(byte);
  }
  EXPECT_EQ(text, whole["content"]);
  body["stream"] = true;
  const std::string bytes = s.post("/completion", body).body;
  Json streamed = Json::array();
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = bytes.find("\n\n", at);
    const Json e = Json::parse(bytes.substr(at + 6, end - at - 6));
    for (const Json& p : e["completion_probabilities"]) streamed.push_back(p);
    at = end + 2;
  }
  EXPECT_EQ(streamed, probabilities);
  body = {{"prompt", "Once"}, {"n_predict", 1}};
  EXPECT_FALSE(s.post("/completion", body).json().contains("completion_probabilities"));
  body["n_probs"] = 9;
  body["top_k"] = 4;
  body["post_sampling_probs"] = true;
  const Json drawn = s.post("/completion", body).json()["completion_probabilities"][0];
  EXPECT_FALSE(drawn.contains("logprob"));
  EXPECT_LE(drawn["top_probs"].size(), 4u);
  double total = 0;
  for (const Json& one : drawn["top_probs"]) total += one["prob"].get<double>();
  EXPECT_NEAR(total, 1, 1e-6);
}

TEST(Embeddings, VectorsOfTextsInBothFormats) {
  Serving s;
  s.ready();
  const Json two = s.post("/v1/embeddings", {{"input", {"The ship at sea", "Once upon a time"}}}).json();
  EXPECT_EQ(two["object"], "list");
  ASSERT_EQ(two["data"].size(), 2u);
  const auto v = two["data"][1]["embedding"].get<std::vector<float>>();
  EXPECT_EQ(two["data"][1]["index"], 1);
  EXPECT_EQ(two["usage"]["prompt_tokens"].get<size_t>(),
            s.tokenizer().encode("The ship at sea").size() + s.tokenizer().encode("Once upon a time").size());
  Json body = {{"input", s.tokenizer().encode("Once upon a time")}, {"encoding_format", "base64"}};
  const std::string text = s.post("/v1/embeddings", body).json()["data"][0]["embedding"];
  // The first three floats are the first sixteen letters.
  std::string bytes;
  for (size_t i = 0, bits = 0, have = 0; i < 16; ++i) {
    const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bits = bits << 6 | letters.find(text[i]);
    if ((have += 6) >= 8) bytes += static_cast<char>(bits >> (have -= 8) & 255);
  }
  for (size_t i = 0; i < 3; ++i) {
    float x = 0;
    std::memcpy(&x, bytes.data() + 4 * i, 4);
    EXPECT_EQ(x, v[i]);
  }
  body = {{"input", "Once upon a time"}, {"dimensions", 4}};
  const auto cut = s.post("/v1/embeddings", body).json()["data"][0]["embedding"].get<std::vector<float>>();
  ASSERT_EQ(cut.size(), 4u);
  for (size_t i = 1; i < 4; ++i) EXPECT_NEAR(cut[i] / cut[0], v[i] / v[0], 1e-5f * std::fabs(v[i] / v[0]));
  for (const Json& bad :
       {Json::object(), Json{{"input", Json::array()}}, Json{{"input", ""}},
        Json{{"input", "a"}, {"dimensions", 0}}, Json{{"input", "a"}, {"encoding_format", "x"}},
        Json{{"input", std::string(2000, 'x')}}})
    EXPECT_EQ(s.post("/v1/embeddings", bad).status, 400) << bad;
}

TEST(Embeddings, DocumentsByTheirNearnessToTheQuery) {
  Serving s;
  s.ready();
  const Json body = {{"query", "The ship at sea"},
                     {"documents", {"Once upon a time", {{"text", "The ship at sea"}}, "a"}},
                     {"top_n", 2}};
  const Json j = s.post("/v1/rerank", body).json();
  ASSERT_EQ(j["results"].size(), 2u);
  EXPECT_EQ(j["results"][0]["index"], 1);
  EXPECT_NEAR(j["results"][0]["relevance_score"].get<double>(), 1, 1e-5);
  EXPECT_EQ(j["results"][0]["document"]["text"], "The ship at sea");
  EXPECT_LE(j["results"][1]["relevance_score"], j["results"][0]["relevance_score"]);
  EXPECT_EQ(s.post("/v1/rerank", {{"query", "a"}, {"documents", {3}}}).status, 400);
  EXPECT_EQ(s.post("/v1/rerank", {{"documents", {"a"}}}).status, 400);
}

TEST(Adapters, AreChosenByNameAsModels) {
  const testing_support::TemporaryDirectory dir;
  const auto adapt = [&](Model& model) {
    auto factors = testing_support::adapter_factors(model, 1);
    testing_support::write_adapter(dir / "a", factors, testing_support::adapter_config());
    add_adapter(model, dir / "a", 1);
  };
  Serving s({}, Serving::small(), Serving::plain_template, {}, adapt);
  s.service().adapters = {"pirate"};
  s.ready();
  const Json listed = s.ask("GET", "/v1/models").json()["data"];
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[1]["id"], "pirate");
  EXPECT_EQ(listed[1]["parent"], "builtin");
  Json body = {{"prompt", "The ship had been three weeks at sea"}, {"max_tokens", 16}, {"temperature", 0}};
  const Json plain = s.post("/v1/completions", body).json();
  body["model"] = "pirate";
  const Json adapted = s.post("/v1/completions", body).json();
  EXPECT_EQ(plain["model"], "builtin");
  EXPECT_EQ(adapted["model"], "pirate");
  EXPECT_NE(plain["choices"][0]["text"], adapted["choices"][0]["text"]);
  body["model"] = "builtin";
  EXPECT_EQ(s.text(body), plain["choices"][0]["text"]);
  body["model"] = "parrot";
  EXPECT_EQ(s.post("/v1/completions", body).status, 404);
}

}  // namespace
}  // namespace lathe
