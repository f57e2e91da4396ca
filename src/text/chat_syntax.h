// How a model writes thoughts and calls of tools, read off its chat template; and grammars that make it call
// one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/json.h"
#include "text/grammar.h"

namespace lathe {

// hermes:  <tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call>, any number (Hermes 2 and 3, Qwen 2.5
//          and 3)
// mistral: [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...], or [TOOL_CALLS]f[ARGS]{...} since its 11th
//          tokenizer
// llama3:  {"name": "f", "parameters": {...}} as the whole answer, perhaps behind <|python_tag|>; several
// with
//          "; " between
enum class ToolFormat : uint8_t { none, hermes, mistral, llama3 };

struct ChatSyntax {
  ToolFormat tools = ToolFormat::none;
  bool thinks = false;  // <think> thoughts </think>
};

// None of what a template does not mention, or mentions in another notation (<function=f>, say).
ChatSyntax chat_syntax(std::string_view chat_template);

// What a call begins with: behind it, a model must call. Special tokens of the vocabulary, where it has them.
std::string_view tool_opening(ToolFormat);

struct Tool {
  std::string name;
  Json parameters;  // a JSON schema of the arguments
};

// The texts behind tool_opening() that call one of the tools, or several where `parallel`, and nothing else.
// InputError where a schema is refused (json_schema.h), naming the tool.
Grammar tool_grammar(ToolFormat, std::span<const Tool>, bool parallel);

}  // namespace lathe
