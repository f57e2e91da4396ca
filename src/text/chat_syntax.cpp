#include "text/chat_syntax.h"

#include <array>

#include "text/json_schema.h"

namespace lathe {
namespace {

constexpr int64_t most_calls = 16;

struct FormatRow {
  ToolFormat format;
  std::string_view marker;  // in templates that teach it
  std::string_view opening;
  std::string_view arguments;  // the member of a call
  std::string_view between, after;
  bool list;
};
constexpr std::array formats = {
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

}  // namespace

ChatSyntax chat_syntax(std::string_view source) {
  const auto has = [&](std::string_view text) { return source.find(text) != std::string_view::npos; };
  ChatSyntax syntax;
  syntax.thinks = has("</think>");
  if (has("<function=") || !has("tools")) return syntax;
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
  const std::string list = r->list ? "/items" : "";
  Json call;
  if (tools.size() == 1) {
    call = call_schema(*r, tools[0], list);
  } else {
    call["anyOf"] = Json::array();
    for (size_t i = 0; i < tools.size(); ++i)
      call["anyOf"].push_back(call_schema(*r, tools[i], fmt::format("{}/anyOf/{}", list, i)));
  }
  const int64_t most = parallel ? most_calls : 1;
  if (r->list)
    return json_schemas({{"type", "array"}, {"items", std::move(call)}, {"minItems", 1}, {"maxItems", most}},
                        "tools", {});
  return json_schemas(call, "tools",
                      {.between = std::string(r->between), .after = std::string(r->after), .most = most});
}

}  // namespace lathe
