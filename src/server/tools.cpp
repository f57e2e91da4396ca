#include "server/tools.h"

#include <algorithm>

#include "server/api_error.h"

namespace lathe {
namespace {

constexpr size_t most_tools = 128, longest_name = 64;

bool is_name(std::string_view s) {
  return !s.empty() && s.size() <= longest_name && std::ranges::all_of(s, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

Tool parse_tool(const Json& given, const std::string& where, bool& strict) {
  const auto wrong = [&](std::string_view expected) {
    return ApiError::bad_request(fmt::format("{}: expected {}", where, expected), "tools");
  };
  if (!given.is_object()) throw wrong("an object");
  const Fields outer(given, where);
  if (outer.text("type").value_or("function") != "function") throw wrong("the type 'function'");
  const Json& function = outer.at("function");
  if (!function.is_object()) throw wrong("a function");
  const Fields f(function, where + ".function");
  Tool tool{f.text("name").value_or(""), {}};
  if (!is_name(tool.name))
    throw wrong(fmt::format("a name of 1 to {} letters, digits, '_', '-' and '.'", longest_name));
  strict |= f.boolean("strict", false);
  const Json* parameters = f.find("parameters");
  if (parameters && !parameters->is_object()) throw wrong("parameters as a JSON schema");
  // Without any, a function has no arguments.
  tool.parameters =
      parameters ? *parameters
                 : Json{{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
  return tool;
}

}  // namespace

ToolChoice parse_tools(const Fields& f) {
  ToolChoice choice;
  const Json* tools = f.find("tools");
  const Json* asked = f.find("tool_choice");
  const bool empty = !tools || (tools->is_array() && tools->empty());
  const auto wrong = [](std::string_view message) {
    return ApiError::bad_request(std::string(message), "tool_choice");
  };
  if (empty) {
    if (asked && *asked != "none" && *asked != "auto")
      throw wrong("tool_choice: expected tools to choose from, found none");
    return choice;
  }
  if (!tools->is_array() || tools->size() > most_tools)
    throw ApiError::bad_request(fmt::format("tools: expected a list of at most {}", most_tools), "tools");
  for (size_t i = 0; i < tools->size(); ++i) {
    choice.tools.push_back(parse_tool((*tools)[i], fmt::format("tools[{}]", i), choice.strict));
    for (size_t k = 0; k < i; ++k)
      if (choice.tools[k].name == choice.tools[i].name)
        throw ApiError::bad_request(
            fmt::format("tools[{}]: expected distinct names, found '{}' twice", i, choice.tools[i].name),
            "tools");
  }
  choice.parallel = f.boolean("parallel_tool_calls", true);
  choice.listed = *tools;
  choice.mode = ToolChoice::Mode::automatic;
  if (!asked || *asked == "auto") return choice;
  choice.mode = ToolChoice::Mode::required;
  if (*asked == "required") return choice;
  if (*asked == "none") return {};
  if (!asked->is_object())
    throw wrong("tool_choice: expected none, auto, required or a function, found another value");
  const Json& function = Fields(*asked, "tool_choice").at("function");
  const std::string name = Fields(function, "tool_choice.function").text("name").value_or("");
  std::erase_if(choice.tools, [&](const Tool& t) { return t.name != name; });
  if (choice.tools.empty())
    throw wrong(fmt::format("tool_choice: expected one of the tools, found '{}'", printable(name, 80)));
  choice.parallel = false;
  return choice;
}

Json listed_tools(const Fields& f) { return parse_tools(f).listed; }

}  // namespace lathe
