// How a model writes thoughts and calls of tools, read off its chat template; and grammars that make it call
// one.
#pragma once

#include <array>
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
// tag:     <function=f>{...}</function> (Llama 3.1's own functions, Functionary 3.1)
// functools: functools[{"name": "f", "arguments": {...}}, ...] (Firefunction 2)
// actions: Action:\n```json\n[{"tool_name": "f", "parameters": {...}}, ...]``` (Command R and R+)
// action_tokens: <|START_ACTION|>[{"tool_call_id": "0", "tool_name": "f", "parameters": {...}},
//          ...]<|END_ACTION|> (Command R7B and A)
// deepseek:
// <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{...}\n```<｜tool▁call▁end｜>
//          <｜tool▁calls▁end｜> (DeepSeek V3 and R1)
// deepseek31: ...<｜tool▁call▁begin｜>f<｜tool▁sep｜>{...}<｜tool▁call▁end｜>... (DeepSeek V3.1)
// channels: <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|> (gpt-oss; see
//          channel_parser.h)
// recipients: the prompt ends with >>>; all\ntext, or f\n{...}, and >>> between (Functionary 3.2)
enum class ToolFormat : uint8_t {
  none,
  hermes,
  mistral,
  llama3,
  tags,
  tag,
  functools,
  actions,
  action_tokens,
  deepseek,
  deepseek31,
  channels,
  recipients
};

// What a format is made of.
struct ToolNotation {
  enum class Call : uint8_t {
    object,  // one JSON object
    list,    // all of them in an array
    named,   // a name and an object
    tagged,  // all in tags
  };
  ToolFormat format = ToolFormat::none;
  Call call = Call::object;
  std::string_view marker = {}, marker2 = {};               // both in templates that teach it
  std::string_view opening = {};                            // behind it a model must call
  std::string_view mark = {};                               // begins calls in an answer
  std::string_view name = "name", arguments = "arguments";  // members of an object
  std::string_view before_name = {}, behind_name = {};      // of a named call
  std::string_view between = {}, after = {};                // of two calls, of the last one
  std::array<std::string_view, 3> closings = {};            // end a call, in this order; each may be missing
  std::array<std::string_view, 5> tokens = {};              // of vocabularies that have them; mark is one
};
const ToolNotation& tool_notation(ToolFormat);

// Views are of literals.
struct ChatSyntax {
  ToolFormat tools = ToolFormat::none;
  bool thinks = false;  // think_begin thoughts think_end
  std::string_view think_begin = "<think>", think_end = "</think>";
  std::string_view text_begin = {}, text_end = {};  // what the answer's text stands between
  bool channels = false;  // every message has a header that says what it is (channel_parser.h)
};

// What ends a message of an answer in channels; with the last two the model stops.
inline constexpr std::array<std::string_view, 3> channel_ends = {"<|end|>", "<|return|>", "<|call|>"};
// With what such an answer begins, the prompt of one ends.
inline constexpr std::string_view channel_prompt = "<|start|>assistant";

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

// What begins a call wherever it stands, without white space behind it; a token of its own in many
// vocabularies. Empty where an answer is a call by how it begins.
std::string_view tool_mark(ToolFormat);
// The texts behind tool_mark() that `calls` follow.
Grammar behind_mark(ToolFormat, const Grammar& calls);
// Whole answers: `text`, or tool_opening() and `calls`. Null: any text without tool_mark(), and calls behind
// it or none. In channels, both behind thoughts of any length, a call behind text too where `text` is null.
Grammar answer_grammar(ToolFormat, const Grammar& calls, const Grammar* text);
// The same of an answer in channels that calls no tool: behind thoughts, `text` in the channel final.
Grammar channel_grammar(const Grammar& text);

}  // namespace lathe
