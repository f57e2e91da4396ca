#include "text/chat_syntax.h"

#include <algorithm>
#include <array>

#include "text/grammar/expr.h"
#include "text/json_schema.h"

namespace lathe {

using grammar::ExprPtr;

namespace {

constexpr int64_t most_calls = 16;

struct FormatRow {
  ToolFormat format;
  std::string_view marker;  // in templates that teach it
  std::string_view opening;
  std::string_view arguments;  // the member of a call; empty: calls are no JSON
  std::string_view between, after;
  bool list;
};
constexpr std::string_view tag_end = "</function>", value_end = "</parameter>";
constexpr std::array formats = {
    FormatRow{ToolFormat::tags, "<parameter=", "<tool_call>\n", "", "\n</tool_call>\n<tool_call>\n",
              "\n</tool_call>", false},
    FormatRow{ToolFormat::tag, "<function=", "<function=", "", "</function><function=", "</function>", false},
    FormatRow{ToolFormat::hermes, "<tool_call>", "<tool_call>\n", "arguments",
              "\n</tool_call>\n<tool_call>\n", "\n</tool_call>", false},
    FormatRow{ToolFormat::mistral, "[TOOL_CALLS]", "[TOOL_CALLS]", "arguments", "", "", true},
    FormatRow{ToolFormat::llama3, "\"parameters\": ", "", "parameters", "; ", "", false},
};

const FormatRow* row(ToolFormat format) {
  for (const FormatRow& r : formats)
    if (r.format == format) return &r;
  return nullptr;
}

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

Json call_schema(const FormatRow& format, const Tool& tool, const std::string& at) {
  Json parameters = moved(tool.parameters, at + "/properties/" + std::string(format.arguments));
  if (parameters.is_object()) {
    parameters.erase("$schema");
    parameters.erase("$id");
  }
  return {{"type", "object"},
          {"properties", {{"name", {{"const", tool.name}}}, {format.arguments, std::move(parameters)}}},
          {"required", {"name", format.arguments}},
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

// A call in tags, from behind what opens it to before what ends it.
ExprPtr tagged_call(ToolFormat format, const Tool& tool) {
  const std::string where = "tools: " + tool.name;
  if (format == ToolFormat::tag)
    return grammar::sequence(
        {grammar::bytes(tool.name + ">"), grammar::compiled(json_schema(tool.parameters, where).network())});
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

}  // namespace

ChatSyntax chat_syntax(std::string_view source) {
  const auto has = [&](std::string_view text) { return source.find(text) != std::string_view::npos; };
  ChatSyntax syntax;
  syntax.thinks = has("</think>");
  if (!has("tools")) return syntax;
  for (const FormatRow& r : formats)
    if (has(r.marker)) {
      syntax.tools = r.format;
      break;
    }
  return syntax;
}

std::string_view tool_opening(ToolFormat format) {
  const FormatRow* r = row(format);
  return r ? r->opening : "";
}

Grammar tool_grammar(ToolFormat format, std::span<const Tool> tools, bool parallel) {
  const FormatRow* r = row(format);
  if (!r || tools.empty()) throw input_error("tools", "at least one, and a format to call it in", "none");
  const int64_t most = parallel ? most_calls : 1;
  if (r->arguments.empty()) {
    std::vector<ExprPtr> calls;
    for (const Tool& tool : tools) calls.push_back(tagged_call(format, tool));
    grammar::Rules rules;
    const ExprPtr one = grammar::rule(rules.add("call", grammar::alternatives(std::move(calls))));
    const ExprPtr more = grammar::sequence({grammar::bytes(std::string(r->between)), one});
    return compiled(
        grammar::sequence({one, grammar::repeat(more, 0, most - 1), grammar::bytes(std::string(r->after))}),
        std::move(rules));
  }
  const std::string list = r->list ? "/items" : "";
  Json call;
  if (tools.size() == 1) {
    call = call_schema(*r, tools[0], list);
  } else {
    call["anyOf"] = Json::array();
    for (size_t i = 0; i < tools.size(); ++i)
      call["anyOf"].push_back(call_schema(*r, tools[i], fmt::format("{}/anyOf/{}", list, i)));
  }
  if (r->list)
    return json_schemas({{"type", "array"}, {"items", std::move(call)}, {"minItems", 1}, {"maxItems", most}},
                        "tools", {});
  return json_schemas(call, "tools",
                      {.between = std::string(r->between), .after = std::string(r->after), .most = most});
}

std::string_view tool_mark(ToolFormat format) {
  std::string_view mark = tool_opening(format);
  while (mark.ends_with('\n')) mark.remove_suffix(1);
  return mark;
}

Grammar behind_mark(ToolFormat format, const Grammar& calls) {
  const std::string space(tool_opening(format).substr(tool_mark(format).size()));
  return compiled(grammar::sequence({grammar::bytes(space), grammar::compiled(calls.network())}));
}

Grammar answer_grammar(ToolFormat format, const Grammar& calls, const Grammar* text) {
  using namespace grammar;
  const ExprPtr called =
      sequence({bytes(std::string(tool_opening(format))), grammar::compiled(calls.network())});
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
  return lathe::compiled(
      alternatives({called, sequence({repeat(characters(space), 0, -1),
                                      alternatives({bytes(""), bytes("<"),
                                                    sequence({begin, text_without("<|python_tag|>")})})})}));
}

Json tagged_value(const Json* schema, std::string_view text) {
  if (!schema || !is_text(*schema))
    if (Json value = Json::parse(text, nullptr, false); !value.is_discarded()) return value;
  return Json(std::string(text));
}

}  // namespace lathe
