#include "text/chat_syntax.h"

#include <algorithm>
#include <array>

#include "text/grammar/expr.h"
#include "text/json_schema.h"

namespace lathe {

using grammar::ExprPtr;

namespace {

constexpr int64_t most_calls = 16;

using Call = ToolNotation::Call;
constexpr std::string_view thoughts_channel = "<|channel|>analysis<|message|>";
constexpr std::string_view tag_end = "</function>", value_end = "</parameter>";
// The first whose markers a template has is its own.
constexpr ToolNotation notations[] = {
    {.format = ToolFormat::tags,
     .call = Call::tagged,
     .marker = "<parameter=",
     .opening = "<tool_call>\n",
     .mark = "<tool_call>",
     .between = "\n</tool_call>\n<tool_call>\n",
     .after = "\n</tool_call>",
     .closings = {"</tool_call>"},
     .tokens = {"<tool_call>", "</tool_call>"}},
    {.format = ToolFormat::tag,
     .call = Call::named,
     .marker = "<function=",
     .opening = "<function=",
     .mark = "<function=",
     .behind_name = ">",
     .between = "</function><function=",
     .after = "</function>",
     .closings = {tag_end}},
    {.format = ToolFormat::hermes,
     .marker = "<tool_call>",
     .opening = "<tool_call>\n",
     .mark = "<tool_call>",
     .between = "\n</tool_call>\n<tool_call>\n",
     .after = "\n</tool_call>",
     .closings = {"</tool_call>"},
     .tokens = {"<tool_call>", "</tool_call>"}},
    {.format = ToolFormat::mistral,
     .call = Call::list,
     .marker = "[TOOL_CALLS]",
     .opening = "[TOOL_CALLS]",
     .mark = "[TOOL_CALLS]",
     .closings = {"]"},
     .tokens = {"[TOOL_CALLS]"}},
    {.format = ToolFormat::functools,
     .call = Call::list,
     .marker = "functools[",
     .opening = "functools",
     .mark = "functools[",
     .closings = {"]"}},
    {.format = ToolFormat::action_tokens,
     .call = Call::list,
     .marker = "<|START_ACTION|>",
     .opening = "<|START_ACTION|>",
     .mark = "<|START_ACTION|>",
     .name = "tool_name",
     .arguments = "parameters",
     .after = "<|END_ACTION|>",
     .closings = {"]", "<|END_ACTION|>"},
     .tokens = {"<|START_ACTION|>", "<|END_ACTION|>"}},
    {.format = ToolFormat::actions,
     .call = Call::list,
     .marker = "Action:",
     .marker2 = "\"tool_name\"",
     .opening = "Action:\n```json\n",
     .mark = "Action:",
     .name = "tool_name",
     .arguments = "parameters",
     .after = "\n```",
     .closings = {"]", "```"}},
    {.format = ToolFormat::deepseek,
     .call = Call::named,
     .marker = "<｜tool▁sep｜>",
     .marker2 = "```json",
     .opening = "<｜tool▁calls▁begin｜>",
     .mark = "<｜tool▁calls▁begin｜>",
     .before_name = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
     .behind_name = "\n```json\n",
     .between = "\n```<｜tool▁call▁end｜>\n",
     .after = "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     .closings = {"```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"},
     .tokens = {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
                "<｜tool▁calls▁end｜>"}},
    {.format = ToolFormat::deepseek31,
     .call = Call::named,
     .marker = "<｜tool▁sep｜>",
     .opening = "<｜tool▁calls▁begin｜>",
     .mark = "<｜tool▁calls▁begin｜>",
     .before_name = "<｜tool▁call▁begin｜>",
     .behind_name = "<｜tool▁sep｜>",
     .between = "<｜tool▁call▁end｜>",
     .after = "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     .closings = {"```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"},
     .tokens = {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
                "<｜tool▁calls▁end｜>"}},
    {.format = ToolFormat::channels,
     .call = Call::named,
     .marker = thoughts_channel,
     .opening = "<|channel|>commentary to=functions.",
     .behind_name = " <|constrain|>json<|message|>",
     .tokens = {"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>"}},
    {.format = ToolFormat::recipients,
     .call = Call::named,
     .marker = ">>>${recipient}",
     .mark = ">>>",
     .behind_name = "\n",
     .between = ">>>"},
    {.format = ToolFormat::llama3,
     .marker = "\"parameters\": ",
     .mark = "<|python_tag|>",
     .arguments = "parameters",
     .between = "; "},
};

// References of a schema that becomes a part of another, at `at`.
Json moved(const Json& schema, const std::string& at) {
  if (schema.is_array()) {
    Json out = Json::array();
    for (const Json& item : schema) out.push_back(moved(item, at));
    return out;
  }
  if (!schema.is_object()) return schema;
  Json out = Json::object();
  for (const auto& [name, value] : schema.items()) {
    const bool reference = name == "$ref" && value.is_string() && value.get<std::string>().starts_with("#");
    out[name] = reference ? Json("#" + at + value.get<std::string>().substr(1)) : moved(value, at);
  }
  return out;
}

Json call_schema(const ToolNotation& notation, const Tool& tool, const std::string& at) {
  Json parameters = moved(tool.parameters, at + "/properties/" + std::string(notation.arguments));
  if (parameters.is_object()) {
    parameters.erase("$schema");
    parameters.erase("$id");
  }
  Json properties = Json::object(), required = {notation.name, notation.arguments};
  if (notation.format == ToolFormat::action_tokens) {
    properties["tool_call_id"] = {{"type", "string"}, {"pattern", "^[0-9]{1,3}$"}};
    required.push_back("tool_call_id");
  }
  properties[notation.name] = {{"const", tool.name}};
  properties[notation.arguments] = std::move(parameters);
  return {{"type", "object"},
          {"properties", std::move(properties)},
          {"required", std::move(required)},
          {"additionalProperties", false}};
}

Grammar compiled(ExprPtr root, grammar::Rules rules = {}) {
  rules.root = rules.add("root", std::move(root));
  return Grammar::compile(rules, "tools");
}

bool is_text(const Json& schema) {
  const auto type = schema.is_object() ? schema.find("type") : schema.end();
  if (schema.is_object() && type != schema.end()) return *type == "string";
  const auto values = schema.is_object() ? schema.find("enum") : schema.end();
  return schema.is_object() && values != schema.end() && values->is_array() &&
         std::ranges::all_of(*values, [](const Json& v) { return v.is_string(); });
}

// The value of a parameter in tags. `all` is the schema of all of them, which its references are of.
ExprPtr tagged(const Json& schema, const Json& all, const std::string& where) {
  if (!is_text(schema)) {
    Json whole = schema;
    for (const char* definitions : {"$defs", "definitions"})
      if (whole.is_object() && all.contains(definitions)) whole[definitions] = all[definitions];
    return grammar::compiled(json_schema(whole, where).network());
  }
  for (const char* name : {"pattern", "format", "minLength", "maxLength", "$ref", "anyOf", "oneOf", "allOf"})
    if (schema.contains(name))
      throw input_error(where, "a text that its type, enum or const describes", name,
                        "in this model's notation of calls texts stand as they are");
  std::vector<ExprPtr> values;
  const auto add = [&](const Json& value) {
    if (!value.is_string() || value.get_ref<const std::string&>().find(value_end) != std::string::npos)
      throw input_error(where, "texts", value.dump());
    values.push_back(grammar::bytes(value.get<std::string>()));
  };
  if (const auto it = schema.find("const"); it != schema.end()) add(*it);
  if (const auto it = schema.find("enum"); it != schema.end() && values.empty())
    for (const Json& value : *it) add(value);
  return values.empty() ? grammar::text_without(value_end) : grammar::alternatives(std::move(values));
}

// A call that is not one JSON object, from behind what opens it to before what ends it.
ExprPtr named_call(const ToolNotation& notation, const Tool& tool) {
  const std::string where = "tools: " + tool.name;
  if (notation.call == Call::named)
    return grammar::sequence(
        {grammar::bytes(std::string(notation.before_name) + tool.name + std::string(notation.behind_name)),
         grammar::compiled(json_schema(tool.parameters, where).network())});
  json_schema(tool.parameters, where);  // refuses what is malformed
  std::vector<ExprPtr> parts = {grammar::bytes("<function=" + tool.name + ">\n")};
  const Json required = tool.parameters.value("required", Json::array());
  const Json properties = tool.parameters.value("properties", Json::object());
  for (const auto& [name, schema] : properties.items()) {
    const ExprPtr one = grammar::sequence({grammar::bytes("<parameter=" + name + ">\n"),
                                           tagged(schema, tool.parameters, where + "." + name),
                                           grammar::bytes("\n" + std::string(value_end) + "\n")});
    const bool must = std::ranges::find(required, Json(name)) != required.end();
    parts.push_back(must ? one : grammar::repeat(one, 0, 1));
  }
  parts.push_back(grammar::bytes(std::string(tag_end)));
  return grammar::sequence(std::move(parts));
}

// Thoughts, then `text` or the call. Any text, where it is null: then some of it may stand before a call too.
ExprPtr in_channels(const ExprPtr& call, const Grammar* text) {
  using namespace grammar;
  const ExprPtr any = text_without(channel_ends);
  const ExprPtr thoughts = bytes(std::string(thoughts_channel));
  const ExprPtr begins =
      text ? thoughts : alternatives({thoughts, bytes("<|channel|>commentary<|message|>")});
  const ExprPtr aside = sequence({begins, any, bytes("<|end|>" + std::string(channel_prompt))});
  const ExprPtr final = sequence({bytes("<|channel|>final"), repeat(bytes(" <|constrain|>json"), 0, 1),
                                  bytes("<|message|>"), text ? grammar::compiled(text->network()) : any});
  return sequence({repeat(aside, 0, -1), alternatives({final, call})});
}

}  // namespace

const ToolNotation& tool_notation(ToolFormat format) {
  static constexpr ToolNotation none;
  for (const ToolNotation& n : notations)
    if (n.format == format) return n;
  return none;
}

ChatSyntax chat_syntax(std::string_view source) {
  const auto has = [&](std::string_view text) { return source.find(text) != std::string_view::npos; };
  ChatSyntax syntax;
  syntax.thinks = has("</think>");
  if (has("<|END_THINKING|>"))
    syntax = {.thinks = true, .think_begin = "<|START_THINKING|>", .think_end = "<|END_THINKING|>"};
  if (has("<|START_RESPONSE|>")) {
    syntax.text_begin = "<|START_RESPONSE|>";
    syntax.text_end = "<|END_RESPONSE|>";
  }
  if (has(tool_notation(ToolFormat::recipients).marker)) syntax.text_begin = "all\n";
  if (has(thoughts_channel)) syntax = {.thinks = true, .channels = true};
  if (!has("tools")) return syntax;
  for (const ToolNotation& n : notations)
    if (has(n.marker) && has(n.marker2)) {
      syntax.tools = n.format;
      break;
    }
  return syntax;
}

Grammar channel_grammar(const Grammar& text) { return compiled(in_channels(grammar::nothing(), &text)); }

std::string_view tool_opening(ToolFormat format) { return tool_notation(format).opening; }

Grammar tool_grammar(ToolFormat format, std::span<const Tool> tools, bool parallel) {
  const ToolNotation& n = tool_notation(format);
  if (n.format == ToolFormat::none || tools.empty())
    throw input_error("tools", "at least one, and a format to call it in", "none");
  const int64_t most = parallel ? most_calls : 1;
  const std::string after(n.after);
  if (n.call == Call::named || n.call == Call::tagged) {
    std::vector<ExprPtr> calls;
    for (const Tool& tool : tools) calls.push_back(named_call(n, tool));
    grammar::Rules rules;
    const ExprPtr one = grammar::rule(rules.add("call", grammar::alternatives(std::move(calls))));
    const ExprPtr more = grammar::sequence({grammar::bytes(std::string(n.between)), one});
    const int64_t others = n.between.empty() ? 0 : most - 1;  // or the model stops behind each
    return compiled(grammar::sequence({one, grammar::repeat(more, 0, others), grammar::bytes(after)}),
                    std::move(rules));
  }
  const bool listed = n.call == Call::list;
  const std::string list = listed ? "/items" : "";
  Json call;
  if (tools.size() == 1) {
    call = call_schema(n, tools[0], list);
  } else {
    call["anyOf"] = Json::array();
    for (size_t i = 0; i < tools.size(); ++i)
      call["anyOf"].push_back(call_schema(n, tools[i], fmt::format("{}/anyOf/{}", list, i)));
  }
  if (listed)
    return json_schemas({{"type", "array"}, {"items", std::move(call)}, {"minItems", 1}, {"maxItems", most}},
                        "tools", {.after = after});
  return json_schemas(call, "tools", {.between = std::string(n.between), .after = after, .most = most});
}

std::string_view tool_mark(ToolFormat format) {
  return tool_opening(format).empty() ? std::string_view() : tool_notation(format).mark;
}

Grammar behind_mark(ToolFormat format, const Grammar& calls) {
  const std::string space(tool_opening(format).substr(tool_mark(format).size()));
  return compiled(grammar::sequence({grammar::bytes(space), grammar::compiled(calls.network())}));
}

Grammar answer_grammar(ToolFormat format, const Grammar& calls, const Grammar* text) {
  using namespace grammar;
  const auto told = [](std::string_view s) { return bytes(std::string(s)); };
  const ToolNotation& n = tool_notation(format);
  const ExprPtr called = sequence({told(n.opening), grammar::compiled(calls.network())});
  if (format == ToolFormat::channels) return lathe::compiled(in_channels(called, text));
  if (format == ToolFormat::recipients) {
    const ExprPtr free = text_without(n.mark);
    const ExprPtr ended = sequence({free, characters(CharacterSet('>', '>').complement())});
    const ExprPtr then_called = sequence({repeat(ended, 0, 1), told(n.mark), called});
    return lathe::compiled(
        alternatives({called, sequence({bytes("all\n"), text ? grammar::compiled(text->network())
                                                             : alternatives({free, then_called})})}));
  }
  if (text) return lathe::compiled(alternatives({grammar::compiled(text->network()), called}));
  if (const std::string_view mark = tool_mark(format); !mark.empty())
    return lathe::compiled(sequence({text_without(mark), alternatives({bytes(""), called})}));
  // An answer is a call by how it begins.
  CharacterSet space(' ', ' '), first('{', '{'), bar('|', '|');
  for (const char32_t c : {U'\n', U'\t', U'\r'}) space.add(c, c);
  first.add(space);
  first.add('<', '<');
  const ExprPtr begin =
      alternatives({characters(first.complement()), sequence({bytes("<"), characters(bar.complement())})});
  return lathe::compiled(alternatives(
      {called, sequence({repeat(characters(space), 0, -1),
                         alternatives({bytes(""), bytes("<"), sequence({begin, text_without(n.mark)})})})}));
}

Json tagged_value(const Json* schema, std::string_view text) {
  if (!schema || !is_text(*schema))
    if (Json value = Json::parse(text, nullptr, false); !value.is_discarded()) return value;
  return Json(std::string(text));
}

}  // namespace lathe
