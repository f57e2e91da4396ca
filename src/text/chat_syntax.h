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
//          with "; " between
// tags:    <tool_call>\n<function=f>\n<parameter=a>\nvalue\n</parameter>\n</function>\n</tool_call>, texts as
//          they are and other values in JSON (Qwen3-Coder)
// tag:     <function=f>{...}</function> (Llama 3.1's own functions, Functionary)
enum class ToolFormat : uint8_t { none, hermes, mistral, llama3, tags, tag };

struct ChatSyntax {
  ToolFormat tools = ToolFormat::none;
  bool thinks = false;  // <think> thoughts </think>
};

// None of what a template does not mention, or mentions in another notation.
ChatSyntax chat_syntax(std::string_view chat_template);

// What a call begins with: behind it, a model must call. Special tokens of the vocabulary, where it has them.
std::string_view tool_opening(ToolFormat);

struct Tool {
  std::string name;
  Json parameters;  // a JSON schema of the arguments
};

// An argument in the notation of tags: a text where its schema says so or it is no JSON.
Json tagged_value(const Json* schema, std::string_view text);

// The texts behind tool_opening() that call one of the tools, or several where `parallel`, and nothing else.
// InputError where a schema is refused (json_schema.h), naming the tool.
Grammar tool_grammar(ToolFormat, std::span<const Tool>, bool parallel);

// What begins a call, without white space behind it; a token of its own in many vocabularies.
std::string_view tool_mark(ToolFormat);
// The texts behind tool_mark() that `calls` follow.
Grammar behind_mark(ToolFormat, const Grammar& calls);
// Whole answers: `text`, or tool_opening() and `calls`. Null: any text without tool_mark(), and calls behind
// it or none.
Grammar answer_grammar(ToolFormat, const Grammar& calls, const Grammar* text);

}  // namespace lathe
