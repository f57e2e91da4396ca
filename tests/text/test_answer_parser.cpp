#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>

#include "support.h"
#include "text/answer_parser.h"

namespace lathe {
namespace {

// thought(...) text(...) call(name, arguments) in order; parts of one kind joined.
std::string told(const std::vector<AnswerPart>& parts) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    const AnswerPart& p = parts[i];
    const bool more = i > 0 && parts[i - 1].kind == p.kind && parts[i - 1].call == p.call;
    switch (p.kind) {
      case AnswerPart::Kind::text:
      case AnswerPart::Kind::thought:
        if (more)
          out.pop_back();
        else
          out += p.kind == AnswerPart::Kind::text ? "text(" : "thought(";
        out += p.text + ")";
        break;
      case AnswerPart::Kind::call:
        out += "call" + std::to_string(p.call) + "(" + p.text + ")";
        break;
      case AnswerPart::Kind::arguments:
        out.pop_back();
        out += (more ? "" : ", ") + p.text + ")";
        break;
    }
  }
  return out;
}

// In pieces of one length, the first one cut by `first`.
std::string read(ChatSyntax syntax, std::string_view answer, size_t first, size_t piece, bool thinking,
                 bool calling) {
  static const auto tools = std::make_shared<const std::vector<Tool>>(std::vector<Tool>{
      {"f", Json::parse(R"({"properties": {"s": {"type": "string"}, "n": {"type": "integer"}}})")}});
  AnswerParser parser(syntax, thinking, calling, tools);
  std::vector<AnswerPart> all;
  const auto add = [&](const std::vector<AnswerPart>& parts) {
    for (const AnswerPart& p : parts) {
      EXPECT_FALSE(p.text.empty());
      all.push_back(p);
    }
  };
  add(parser.push(answer.substr(0, first)));
  for (size_t at = first; at < answer.size(); at += piece) add(parser.push(answer.substr(at, piece)));
  add(parser.finish());
  return told(all);
}

// However it is cut: into short pieces, and everywhere into two.
std::string read(ChatSyntax syntax, std::string_view answer, bool thinking = false, bool calling = false) {
  const std::string whole = read(syntax, answer, answer.size(), 1, thinking, calling);
  for (const size_t piece : {1, 2, 3, 7}) EXPECT_EQ(read(syntax, answer, 0, piece, thinking, calling), whole);
  for (size_t at = 1; at < answer.size(); ++at)
    EXPECT_EQ(read(syntax, answer, at, answer.size(), thinking, calling), whole) << "cut at " << at;
  return whole;
}

constexpr ChatSyntax plain{}, thinker{ToolFormat::none, true}, hermes{ToolFormat::hermes, true},
    mistral{ToolFormat::mistral, false}, llama{ToolFormat::llama3, false}, tags{ToolFormat::tags, false},
    tag{ToolFormat::tag, false}, functools{ToolFormat::functools, false}, actions{ToolFormat::actions, false},
    deepseek{ToolFormat::deepseek, true}, deepseek31{ToolFormat::deepseek31, true};
// As their templates have them.
const ChatSyntax recipients = chat_syntax(">>>${recipient} tools"),
                 cohere = chat_syntax("<|END_THINKING|><|START_ACTION|><|START_RESPONSE|> tools"),
                 channels = chat_syntax("<|channel|>analysis<|message|> tools");

TEST(AnswerParser, TextIsText) {
  EXPECT_EQ(read(plain, "  a <think> b </think> <tool_call> \n"),
            "text(  a <think> b </think> <tool_call> \n)");
  EXPECT_EQ(read(thinker, " hello \n"), "text( hello \n)");
  EXPECT_EQ(read(hermes, "1 < 2 and <tool"), "text(1 < 2 and <tool)");
  EXPECT_EQ(read(thinker, ""), "");
  EXPECT_EQ(read(thinker, "<thin"), "text(<thin)");
}

TEST(AnswerParser, Thoughts) {
  EXPECT_EQ(read(thinker, "<think>\nhm\n\nwell\n</think>\n\nYes."), "thought(hm\n\nwell)text(Yes.)");
  EXPECT_EQ(read(thinker, "hm</think>Yes.", true), "thought(hm)text(Yes.)");
  EXPECT_EQ(read(thinker, "hm </thin", true), "thought(hm </thin)");
  EXPECT_EQ(read(thinker, "<think>\n\n</think>\n\nYes."), "text(Yes.)");
  EXPECT_EQ(read(thinker, "No <think>more</think>."), "text(No <think>more</think>.)");
}

TEST(AnswerParser, HermesCalls) {
  const std::string call =
      "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\", \"b\": [1, {}]}}\n</tool_call>";
  const std::string shown = "(f, {\"a\": \"}\\\"{\", \"b\": [1, {}]})";
  EXPECT_EQ(read(hermes, call), "call0" + shown);
  EXPECT_EQ(read(hermes, "<think>x</think>\nLet me see.\n" + call + "\n" + call + "\n"),
            "thought(x)text(Let me see.)call0" + shown + "call1" + shown);
  EXPECT_EQ(read(hermes, call.substr(call.find('{')), false, true), "call0" + shown);
  EXPECT_EQ(read(hermes, call + "\nDone."), "call0" + shown + "text(Done.)");
  EXPECT_EQ(read(hermes, "<tool_call>{\"arguments\": {\"a\": 1}, \"id\": 7, \"name\": \"g\"}</tool_call>"),
            "call0(g, {\"a\": 1})");
  EXPECT_EQ(read(hermes, "<tool_call>{\"name\": \"g\"}</tool_call>"), "call0(g, {})");
  EXPECT_EQ(read(hermes, R"(<tool_call>{"a\"b\\": 1, "name": "g"}</tool_call>)"), "call0(g, {})");
  EXPECT_EQ(read(hermes, R"(<tool_call>{"name": "f", "name": "g", "arguments": {}}</tool_call>)"),
            "call0(f, {})");
  EXPECT_EQ(read(hermes, "<tool_call>{\"name\": \"g\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>"),
            "call0(g, {\"a\": 1})");
}

TEST(AnswerParser, WhatIsNoCallIsText) {
  EXPECT_EQ(read(hermes, "<tool_call>call me"), "text(<tool_call>call me)");
  EXPECT_EQ(read(hermes, "a\n<tool_call>{\"nam"), "text(a\n<tool_call>{\"nam)");
  EXPECT_EQ(read(hermes, "<tool_call>{\"name\": 3}</tool_call>"),
            "text(<tool_call>{\"name\": 3}</tool_call>)");
  EXPECT_EQ(read(hermes, "<tool_call>{\"name\": \"\"}"), "text(<tool_call>{\"name\": \"\"})");
  EXPECT_EQ(read(hermes, "<tool_call>{\"x\": [1,2]}"), "text(<tool_call>{\"x\": [1,2]})");
  // Cut off, a call is a call with what it has.
  EXPECT_EQ(read(hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"lo"),
            "call0(f, {\"a\": \"lo)");
  EXPECT_EQ(read(hermes, "<tool_call>{\"name\": \"f\"\" x"), "call0(f)text(\" x)") << "nothing is lost";
  EXPECT_EQ(read(llama, "{\"answer\": 42}"), "text({\"answer\": 42})");
  EXPECT_EQ(read(llama, " {not json"), "text( {not json)");
  EXPECT_EQ(read(mistral, "[TOOL_CALLS] nothing"), "text([TOOL_CALLS] nothing)");
}

TEST(AnswerParser, MistralCalls) {
  EXPECT_EQ(read(mistral,
                 "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"123456789\"}, "
                 "{\"name\": \"g\", \"arguments\": {}}]"),
            "call0(f, {\"a\": 1})call1(g, {})");
  EXPECT_EQ(read(mistral, "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[CALL_ID]abc[ARGS]{}"),
            "call0(f, {\"a\": 1})call1(g, {})");
  EXPECT_EQ(read(mistral, "[TOOL_CALLS]f{\"a\": 1}"), "call0(f, {\"a\": 1})");
  EXPECT_EQ(read(mistral, "[{\"name\": \"f\", \"arguments\": {}}]", false, true), "call0(f, {})");
}

TEST(AnswerParser, LlamaCalls) {
  EXPECT_EQ(read(llama, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}"), "call0(f, {\"a\": 1})");
  EXPECT_EQ(read(llama,
                 "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"g\", "
                 "\"parameters\": {}}"),
            "call0(f, {\"a\": 1})call1(g, {})");
  EXPECT_EQ(read(llama, "It is {\"name\": \"f\"}"), "text(It is {\"name\": \"f\"})");
}

TEST(AnswerParser, CallsInTags) {
  const std::string call =
      "<tool_call>\n<function=f>\n<parameter=s>\n12\n<b> \"\n</parameter>\n<parameter=n>\n12\n</parameter>\n"
      "<parameter=x>\n[1, {}]\n</parameter>\n<parameter=y>\nwords\n</parameter>\n</function>\n</tool_call>";
  const std::string shown = R"((f, {"s": "12\n<b> \"", "n": 12, "x": [1,{}], "y": "words"}))";
  EXPECT_EQ(read(tags, "So:\n" + call + "\n" + call), "text(So:)call0" + shown + "call1" + shown);
  EXPECT_EQ(read(tags, call.substr(call.find("<func")), false, true), "call0" + shown);
  EXPECT_EQ(read(tags, "<tool_call>\n<function=g>\n</function>\n</tool_call>\nDone."),
            "call0(g, {})text(Done.)");
  EXPECT_EQ(read(tags, "<tool_call>\nno <function="), "text(<tool_call>\nno <function=)");
  EXPECT_EQ(read(tags, "<tool_call><function=g>\nwhat"), "call0(g, {})text(what)");
  EXPECT_EQ(read(tags, "<tool_call><function=f>\n<parameter=n>3</parameter>\n<parameter=s>\nab"),
            "call0(f, {\"n\": 3)")
      << "cut off, a call is a call with what it has";
}

TEST(AnswerParser, CallsInOneTag) {
  EXPECT_EQ(read(tag, "Hm.\n<function=f>{\"a\": {\"b\": 1}}</function><function=g>{}</function> Done."),
            "text(Hm.)call0(f, {\"a\": {\"b\": 1}})call1(g, {})text(Done.)");
  EXPECT_EQ(read(tag, "f>{\"a\": 1}</function>", false, true), "call0(f, {\"a\": 1})");
  EXPECT_EQ(read(tag, "a <function=> b"), "text(a <function=> b)");
}

TEST(AnswerParser, FirefunctionsCalls) {
  const std::string calls = R"([{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}])";
  EXPECT_EQ(read(functools, "Hm. functools" + calls), "text(Hm.)call0(f, {\"a\": 1})call1(g, {})");
  EXPECT_EQ(read(functools, calls, false, true), "call0(f, {\"a\": 1})call1(g, {})");
  EXPECT_EQ(read(functools, "import functools\n\nfunctools.reduce"),
            "text(import functools\n\nfunctools.reduce)");
  EXPECT_EQ(read(functools, "a functools[0] b"), "text(a functools[0] b)");
}

TEST(AnswerParser, CommandRsCalls) {
  const std::string list =
      "[\n    {\n        \"tool_name\": \"f\",\n        \"parameters\": {\"a\": [1]}\n    },\n"
      "    {\"tool_name\": \"g\", \"parameters\": {}}\n]";
  const std::string shown = "call0(f, {\"a\": [1]})call1(g, {})";
  EXPECT_EQ(read(actions, "I will look.\nAction:\n```json\n" + list + "```\n"), "text(I will look.)" + shown);
  EXPECT_EQ(read(actions, "Action: ```json\n" + list + "\n```"), shown);
  EXPECT_EQ(read(actions, "Action:```" + list), shown);
  EXPECT_EQ(read(actions, list + "\n```", false, true), shown);
  EXPECT_EQ(read(actions, "Action: run away.\nOr ```json\n{}```"),
            "text(Action: run away.\nOr ```json\n{}```)");
  EXPECT_EQ(read(actions, "Action: ```json\n"), "text(Action: ```json\n)");
  EXPECT_EQ(read(actions, "Action: ```json\n[]"), "text(Action: ```json\n[])");
}

TEST(AnswerParser, CommandAsAnswers) {
  const std::string list = R"([
    {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": "<|END_ACTION|>"}}
])";
  const std::string shown = R"(call0(f, {"a": "<|END_ACTION|>"}))";
  EXPECT_EQ(
      read(cohere, "<|START_THINKING|>I look.<|END_THINKING|><|START_ACTION|>" + list + "<|END_ACTION|>"),
      "thought(I look.)" + shown);
  EXPECT_EQ(read(cohere, list + "<|END_ACTION|>", false, true), shown);
  EXPECT_EQ(read(cohere, "<|START_RESPONSE|>It is 3 <|END.<|END_RESPONSE|>"), "text(It is 3 <|END.)");
  EXPECT_EQ(read(cohere, "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Yes.\n<|END_RESPONSE|>"),
            "thought(hm)text(Yes.\n)");
  EXPECT_EQ(read(cohere, "It is 3."), "text(It is 3.)");
  ChatSyntax without_tools = cohere;
  without_tools.tools = ToolFormat::none;
  EXPECT_EQ(read(without_tools, "<|START_RESPONSE|>[1]<|END_RESPONSE|>"), "text([1])");
}

TEST(AnswerParser, DeepSeeksCalls) {
  const auto call = [](const std::string& name, const std::string& arguments) {
    return "<｜tool▁call▁begin｜>function<｜tool▁sep｜>" + name + "\n```json\n" + arguments +
           "\n```<｜tool▁call▁end｜>";
  };
  const std::string two = call("f", "{\"a\": \"```\"}") + "\n" + call("g", "{}") + "<｜tool▁calls▁end｜>";
  const std::string shown = "call0(f, {\"a\": \"```\"})call1(g, {})";
  EXPECT_EQ(read(deepseek, "hm\n</think>\n\nSo.<｜tool▁calls▁begin｜>" + two, true),
            "thought(hm)text(So.)" + shown);
  EXPECT_EQ(read(deepseek, two, false, true), shown);
  EXPECT_EQ(read(deepseek, "<｜tool▁calls▁begin｜>\n" + call("f", "{}") + "\n<｜tool▁calls▁end｜>\nDone."),
            "call0(f, {})text(Done.)");
  EXPECT_EQ(read(deepseek, "<｜tool▁calls▁begin｜>no <｜tool"), "text(<｜tool▁calls▁begin｜>no <｜tool)");
  EXPECT_EQ(read(deepseek, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f g"),
            "text(<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f g)");
  EXPECT_EQ(read(deepseek31,
                 "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
                 "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
            "call0(f, {\"a\": 1})call1(g, {})");
}

TEST(AnswerParser, FunctionarysRecipients) {
  EXPECT_EQ(read(recipients, "all\nHello\n>>> 1 + 1\n"), "text(Hello\n>>> 1 + 1\n)");
  EXPECT_EQ(read(recipients, "f\n{\"a\": 1}>>>g\n{}"), "call0(f, {\"a\": 1})call1(g, {})");
  EXPECT_EQ(read(recipients, "all\nSo: >>>f\n{\"a\": 1}"), "text(So:)call0(f, {\"a\": 1})");
  EXPECT_EQ(read(recipients, "f\n{}>>>all\nDone."), "call0(f, {})text(Done.)");
  EXPECT_EQ(read(recipients, "f\n{}", false, true), "call0(f, {})");
  EXPECT_EQ(read(recipients, "python\nprint(1)"), "text(python\nprint(1))") << "no JSON, no call";
  EXPECT_EQ(read(recipients, "Hello you"), "text(Hello you)");
  ChatSyntax without_tools = recipients;
  without_tools.tools = ToolFormat::none;
  EXPECT_EQ(read(without_tools, "all\nHello >>>f\n{}"), "text(Hello >>>f\n{})");
}

// Behind the prompt's "<|start|>assistant"; the token with which the model stops is not shown.
TEST(AnswerParser, MessagesInChannels) {
  const std::string thought = "<|channel|>analysis<|message|>Two and two.\n<|end|><|start|>assistant",
                    commentary = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant";
  EXPECT_EQ(read(channels, thought + "<|channel|>final<|message|> It is *4*. \n"),
            "thought(Two and two.\n)text( It is *4*. \n)")
      << "contents keep their white space";
  EXPECT_EQ(read(channels, thought + "<|channel|>final<|message|>4<|return|>"),
            "thought(Two and two.\n)text(4)");
  EXPECT_EQ(read(channels, thought + "<|channel|>final <|constrain|>json<|message|>{\"a\": 4}"),
            "thought(Two and two.\n)text({\"a\": 4})");
  EXPECT_EQ(read(channels, thought + commentary +
                               "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"n\": 1}"),
            "thought(Two and two.\n)text(I look.)call0(f, {\"n\": 1})");
  EXPECT_EQ(read(channels, thought + thought + commentary + thought + "<|channel|>final<|message|>4"),
            "thought(Two and two.\n\n\nTwo and two.\n)text(I look.)thought(\n\nTwo and two.\n)text(\n\n4)")
      << "a blank line between two of a kind, wherever they stand";
  EXPECT_EQ(read(channels, thought + "<|channel|>final<|message|>1 <|2 <|en |<|> <|end"),
            "thought(Two and two.\n)text(1 <|2 <|en |<|> <|end)");
  ChatSyntax without_tools = channels;
  without_tools.tools = ToolFormat::none;
  EXPECT_EQ(read(without_tools, thought + "<|channel|>final<|message|>4"), "thought(Two and two.\n)text(4)");
}

TEST(AnswerParser, CallsInChannels) {
  const std::string shown = R"(call0(f, {"s": "a <|end|> \\\"<|call|>", "n": [1, {}]}))",
                    object = R"({"s": "a <|end|> \\\"<|call|>", "n": [1, {}]})";
  for (const std::string header : {"<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
                                   "<|channel|>commentary to=functions.f<|constrain|>json<|message|>",
                                   "<|channel|>commentary to=functions.f json<|message|>",
                                   "<|channel|>commentary to=functions.f<|message|>",
                                   " to=functions.f<|channel|>commentary <|constrain|>json<|message|>",
                                   "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>",
                                   "<|channel|>analysis to=functions.f code<|message|>",
                                   "<|channel|>commentary to=f<|message|>", "to=functions.f<|message|>"})
    for (const std::string end : {"", "<|call|>", "<|end|>\n"})
      EXPECT_EQ(read(channels, header + object + end), shown) << header << end;
  EXPECT_EQ(read(channels, "f <|constrain|>json<|message|>" + object, false, true), shown)
      << "the prompt opened it";
  const std::string f = "<|channel|>commentary to=functions.f<|message|>",
                    g = "<|start|>assistant<|channel|>commentary to=functions.g<|message|>";
  EXPECT_EQ(read(channels, f + "{}<|call|>" + g +
                               "{\"a\": 1}<|call|><|start|>assistant<|channel|>final"
                               "<|message|>Done."),
            "call0(f, {})call1(g, {\"a\": 1})text(Done.)");
  EXPECT_EQ(read(channels, f), "call0(f, {})") << "no arguments";
  EXPECT_EQ(read(channels, f + "<|call|>"), "call0(f, {})");
  // What the arguments are is for the client to judge.
  EXPECT_EQ(read(channels, f + "print(\"a\")<|call|>" + g + "{\"a\": tru<|call|>"),
            "call0(f, print(\"a\"))call1(g, {\"a\": tru)");
  EXPECT_EQ(read(channels, f + "{\"s\": \"lo"), "call0(f, {\"s\": \"lo)");
  EXPECT_EQ(read(channels, f + "{\"s\": \"lo<|end|>" + g), "call0(f, {\"s\": \"lo<|end|>" + g + ")")
      << "within a text of JSON nothing ends";
  // Nobody is there to be called.
  EXPECT_EQ(read(channels, "<|channel|>analysis to=python code<|message|>print(1)<|call|>"),
            "thought(print(1))");
  EXPECT_EQ(read(channels, "<|channel|>commentary to=browser.search<|message|>{}<|call|>"),
            "text(<|channel|>commentary to=browser.search<|message|>{})");
  ChatSyntax without_tools = channels;
  without_tools.tools = ToolFormat::none;
  EXPECT_EQ(read(without_tools, f + "{}<|call|>"), "text(" + f + "{})");
}

TEST(AnswerParser, WhatIsNoMessageInChannelsIsText) {
  const std::string final = "<|start|>assistant<|channel|>final<|message|>";
  EXPECT_EQ(read(channels, ""), "");
  EXPECT_EQ(read(channels, " Hello <|channel|>final"), "text( Hello <|channel|>final)") << "no header";
  EXPECT_EQ(read(channels, "to=5 is wrong"), "text(to=5 is wrong)");
  EXPECT_EQ(read(channels, "<b>to"), "text(<b>to)");
  EXPECT_EQ(read(channels, "Hello<|end|>" + final + "you"), "text(Hello\n\nyou)");
  EXPECT_EQ(read(channels, "<|channel|>musing<|message|>Hm.<|end|>" + final + "Yes."), "text(Hm.\n\nYes.)")
      << "a channel of no known name";
  EXPECT_EQ(read(channels, "<|message|>Hm."), "text(Hm.)") << "none at all";
  EXPECT_EQ(read(channels, "<|start|>assistant<|message|>Hm."), "text(Hm.)");
  // Cut off, a header announces nothing.
  for (const std::string header :
       {"<|channel|>", "<|channel|>ana", "<|channel|>commentary to=functions.f <|constr", "<|start|>assis",
        "<|end|><|start|>assistant<|channel|>final <|constrain|>js",
        " to=functions.f<|channel|>commentary json"})
    EXPECT_EQ(read(channels, header), "") << header;
  EXPECT_EQ(read(channels, "<|channel|>analysis<|message|>"), "");
  // What cannot be a header is shown as it is.
  for (const std::string text : {"<|channel|>final It is 4.", "<|channel|>final <b><|message|>4",
                                 "<|start|>assistant says: four words", "<|channel|>analysis<|im_start|>x"})
    EXPECT_EQ(read(channels, text), "text(" + text + ")");
  EXPECT_EQ(read(channels, "<|channel|>final<|end|>" + final + "4"), "text(<|channel|>final\n\n4)");
  const std::string edge = "<|channel|>" + std::string(501, 'a') + "<|message|>";
  EXPECT_EQ(read(channels, edge + "4"), "text(4)") << "the longest header";
  EXPECT_EQ(read(channels, "<|channel|>a" + edge.substr(11) + "4"),
            "text(<|channel|>a" + edge.substr(11) + "4)");
  // Within a content, all but its ends is content.
  EXPECT_EQ(read(channels, final + "a<|channel|>analysis<|message|>b<|start|>c<|end|>"),
            "text(a<|channel|>analysis<|message|>b<|start|>c)");
  EXPECT_EQ(read(channels, "<|channel|>analysis<|message|>a<|return|><|end|>\n<|end|>" + final + "b"),
            "thought(a)text(b)");
}

TEST(ChatSyntax, GrammarsOfAnswersInChannels) {
  const Tool f{"f", Json::parse(R"({"properties": {"n": {"type": "integer"}}, "required": ["n"],
                                    "additionalProperties": false})")};
  const std::string next = "<|end|><|start|>assistant",
                    thought = "<|channel|>analysis<|message|>a <|b" + next,
                    said = "<|channel|>commentary<|message|>I look." + next,
                    call = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
                    final = "<|channel|>final<|message|>";
  const Grammar calls = tool_grammar(ToolFormat::channels, {&f, 1}, true);
  EXPECT_TRUE(calls.accepts("f <|constrain|>json<|message|>{\"n\":1}"));
  EXPECT_FALSE(calls.accepts("f <|constrain|>json<|message|>{\"n\":\"1\"}"));
  EXPECT_FALSE(calls.accepts("g <|constrain|>json<|message|>{\"n\":1}"));
  EXPECT_EQ(std::string(tool_opening(ToolFormat::channels)) + "f <|constrain|>json<|message|>", call);
  const Grammar free = answer_grammar(ToolFormat::channels, calls, nullptr);
  for (const std::string& before : {std::string(), thought, thought + said + thought}) {
    EXPECT_TRUE(free.accepts(before + final + "any <|channel|> text"));
    EXPECT_TRUE(free.accepts(before + call + "{\"n\":1}"));
    EXPECT_FALSE(free.accepts(before + call + "{\"n\":true}"));
    EXPECT_FALSE(free.accepts(before + final + "a" + next + call + "{}"));
    EXPECT_FALSE(free.accepts(before + final + "<|call|>"));
    EXPECT_FALSE(free.accepts(before)) << "thoughts are no answer";
    EXPECT_FALSE(free.accepts(before + "any text"));
  }
  const std::string words[] = {"yes", "no"};
  const Grammar yes = Grammar::choice(words), either = answer_grammar(ToolFormat::channels, calls, &yes),
                only = channel_grammar(yes);
  for (const std::string& before : {std::string(), thought, thought + thought})
    for (const std::string& header : {final, std::string("<|channel|>final <|constrain|>json<|message|>")}) {
      EXPECT_TRUE(either.accepts(before + header + "yes"));
      EXPECT_TRUE(only.accepts(before + header + "yes"));
      EXPECT_FALSE(either.accepts(before + header + "perhaps"));
      EXPECT_FALSE(only.accepts(before + header + "perhaps"));
      EXPECT_FALSE(only.accepts(before + said + header + "yes"))
          << "a text beside the one that was asked for";
      EXPECT_FALSE(either.accepts(before + said + header + "yes"));
      EXPECT_TRUE(either.accepts(before + call + "{\"n\":1}"));
      EXPECT_FALSE(only.accepts(before + call + "{\"n\":1}"));
    }
  EXPECT_FALSE(only.accepts("yes"));
}

TEST(ChatSyntax, GrammarsOfNamedCalls) {
  const Tool f{"f", Json::parse(R"({"properties": {"n": {"type": "integer"}}, "required": ["n"],
                                    "additionalProperties": false})")};
  struct Case {
    ToolFormat format;
    std::string call, between, after;
  };
  const Case cases[] = {
      {ToolFormat::functools, R"({"name":"f","arguments":{"n":1}})", ",", "]"},
      {ToolFormat::actions, R"({"tool_name":"f","parameters":{"n":1}})", ",", "]\n```"},
      {ToolFormat::action_tokens, R"({"tool_call_id":"12","tool_name":"f","parameters":{"n":1}})", ",",
       "]<|END_ACTION|>"},
      {ToolFormat::deepseek, "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"n\":1}",
       "\n```<｜tool▁call▁end｜>\n", "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
      {ToolFormat::deepseek31, "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"n\":1}", "<｜tool▁call▁end｜>",
       "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
      {ToolFormat::recipients, "f\n{\"n\":1}", ">>>", ""},
  };
  for (const Case& c : cases) {
    const std::string begin = c.after.starts_with("]") ? "[" : "";
    const std::string one = begin + c.call + c.after, two = begin + c.call + c.between + c.call + c.after;
    const Grammar single = tool_grammar(c.format, {&f, 1}, false);
    EXPECT_TRUE(single.accepts(one)) << one;
    EXPECT_FALSE(single.accepts(two)) << two;
    std::string other = one;
    other.replace(other.find("1}"), 1, "x");
    EXPECT_FALSE(single.accepts(other)) << other;
    const Grammar several = tool_grammar(c.format, {&f, 1}, true);
    EXPECT_TRUE(several.accepts(one)) << one;
    EXPECT_TRUE(several.accepts(two)) << two;
    ChatSyntax syntax{c.format};
    for (const std::string& text : {one, two})
      EXPECT_EQ(read(syntax, text, false, true),
                text == one ? "call0(f, {\"n\":1})" : "call0(f, {\"n\":1})call1(f, {\"n\":1})");
    const Grammar answer = answer_grammar(c.format, single, nullptr);
    const std::string opening(tool_opening(c.format));
    EXPECT_TRUE(answer.accepts(opening + one)) << opening + one;
    EXPECT_FALSE(answer.accepts(opening + other)) << opening + other;
  }
  const Grammar call = tool_grammar(ToolFormat::recipients, {&f, 1}, false);
  const Grammar free = answer_grammar(ToolFormat::recipients, call, nullptr);
  for (const std::string text :
       {"all\n", "all\na >> b", "all\n>>", "all\nSo:>>>f\n{\"n\":1}", "all\n>>>f\n{\"n\":1}"})
    EXPECT_TRUE(free.accepts(text)) << text;
  for (const std::string text : {"", "a", "g\n{}", "all\n>>>", "all\na>>>g\n{}", "all\na>>>>f\n{\"n\":1}"})
    EXPECT_FALSE(free.accepts(text)) << text;
  const std::string words[] = {"yes", "no"};
  const Grammar yes = Grammar::choice(words), either = answer_grammar(ToolFormat::recipients, call, &yes);
  EXPECT_TRUE(either.accepts("all\nyes"));
  EXPECT_TRUE(either.accepts("f\n{\"n\":1}"));
  EXPECT_FALSE(either.accepts("yes"));
  const Grammar deep =
      answer_grammar(ToolFormat::deepseek, tool_grammar(ToolFormat::deepseek, {&f, 1}, false), nullptr);
  for (const std::string text : {"<｜tool▁calls", "<｜tool▁outputs▁begin｜>", "<<｜tool▁calls▁begin",
                                 "<\u4f60", "<｜tool▁calls▁end｜>"})
    EXPECT_TRUE(deep.accepts(text)) << text;
  EXPECT_FALSE(deep.accepts("a<｜tool▁calls▁begin｜>"));
}

TEST(ChatSyntax, GrammarsOfCallsInTags) {
  const Tool f{"f", Json::parse(R"({"type": "object", "properties": {
      "s": {"type": "string"}, "e": {"enum": ["a", "b"]}, "n": {"$ref": "#/$defs/N"}},
      "required": ["s"], "$defs": {"N": {"type": "integer", "minimum": 1, "maximum": 5}}})")};
  const Grammar calls = tool_grammar(ToolFormat::tags, {&f, 1}, true);
  const auto parameter = [](const std::string& name, const std::string& value) {
    return "<parameter=" + name + ">\n" + value + "\n</parameter>\n";
  };
  const auto call = [](const std::string& parameters) {
    return "<function=f>\n" + parameters + "</function>\n</tool_call>";
  };
  const std::string s = parameter("s", "any\n<text> {");
  EXPECT_TRUE(calls.accepts(call(s)));
  EXPECT_TRUE(calls.accepts(call(s + parameter("e", "b") + parameter("n", "5"))));
  EXPECT_TRUE(calls.accepts(call(s) + "\n<tool_call>\n" + call(s)));
  EXPECT_FALSE(calls.accepts(call(parameter("e", "b")))) << "s is required";
  EXPECT_FALSE(calls.accepts(call(s + parameter("e", "c"))));
  EXPECT_FALSE(calls.accepts(call(s + parameter("n", "6"))));
  EXPECT_FALSE(calls.accepts(call(s + parameter("other", "6"))));
  const Tool unclear{"f", Json::parse(R"({"properties": {"s": {"type": "string", "pattern": "a"}}})")};
  EXPECT_THROW(tool_grammar(ToolFormat::tags, {&unclear, 1}, true), InputError);
  const Grammar one = tool_grammar(ToolFormat::tag, {&f, 1}, false);
  EXPECT_TRUE(one.accepts("f>{\"s\":\"x\",\"n\":2}</function>"));
  EXPECT_FALSE(one.accepts("f>{\"n\":2}</function>"));
}

TEST(ChatSyntax, GrammarsOfAnswers) {
  const Tool f{"f", {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}}};
  const std::string call = "{\"name\":\"f\",\"arguments\":{}}\n</tool_call>";
  const Grammar calls = tool_grammar(ToolFormat::hermes, {&f, 1}, false);
  EXPECT_TRUE(behind_mark(ToolFormat::hermes, calls).accepts("\n" + call));
  const Grammar free = answer_grammar(ToolFormat::hermes, calls, nullptr);
  for (const std::string text :
       {"", "a", "<", "<<tool", "1 < 2 <tool_cal<tool_call", "<tool_call\u00e9>", "\u4f60<t\u597d"}) {
    EXPECT_TRUE(free.accepts(text)) << text;
    EXPECT_TRUE(free.accepts(text + "<tool_call>\n" + call)) << text;
    EXPECT_FALSE(free.accepts(text + "<tool_call>")) << text;
    EXPECT_FALSE(free.accepts(text + "<tool_call>\n{\"name\":\"g\",\"arguments\":{}}\n</tool_call>")) << text;
  }
  const std::string words[] = {"yes", "no"};
  const Grammar yes = Grammar::choice(words), either = answer_grammar(ToolFormat::hermes, calls, &yes);
  EXPECT_TRUE(either.accepts("yes"));
  EXPECT_TRUE(either.accepts("<tool_call>\n" + call));
  EXPECT_FALSE(either.accepts("perhaps"));
  EXPECT_FALSE(either.accepts("yes<tool_call>\n" + call));
  const Grammar called_first =
      answer_grammar(ToolFormat::llama3, tool_grammar(ToolFormat::llama3, {&f, 1}, false), nullptr);
  for (const std::string text : {"", "It is {\"a\": 1}", " x", "< 3", "{\"name\":\"f\",\"parameters\":{}}"})
    EXPECT_TRUE(called_first.accepts(text)) << text;
  for (const std::string text :
       {"{", " {\"a\": 1}", "{\"name\":\"g\",\"parameters\":{}}", "<|python_tag|>{}", "x<|python_tag|>{}"})
    EXPECT_FALSE(called_first.accepts(text)) << text;
}

TEST(ChatSyntax, GrammarsOfCalls) {
  const Tool f{"f", Json::parse(R"({"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}},
                                    "required": ["n"], "additionalProperties": false,
                                    "$defs": {"N": {"type": "integer", "minimum": 1, "maximum": 5}}})")};
  const Tool g{"g", {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}}};
  const Tool both[] = {f, g};
  const std::string call_f = "{\"name\":\"f\",\"arguments\":{\"n\":3}}",
                    call_g = "{\"name\":\"g\",\"arguments\":{}}";
  const std::string end = "\n</tool_call>", next = end + "\n<tool_call>\n";
  Grammar one = tool_grammar(ToolFormat::hermes, both, false);
  EXPECT_TRUE(one.accepts(call_f + end));
  EXPECT_TRUE(one.accepts(call_g + end));
  EXPECT_FALSE(one.accepts("{\"name\":\"f\",\"arguments\":{\"n\":6}}" + end));
  EXPECT_FALSE(one.accepts("{\"name\":\"h\",\"arguments\":{}}" + end));
  EXPECT_FALSE(one.accepts("{\"name\":\"g\",\"arguments\":{\"n\":3}}" + end));
  EXPECT_FALSE(one.accepts(call_f));
  EXPECT_FALSE(one.accepts(call_f + next + call_g + end));
  Grammar several = tool_grammar(ToolFormat::hermes, both, true);
  EXPECT_TRUE(several.accepts(call_f + next + call_g + end));
  EXPECT_TRUE(several.accepts(call_g + end));
  Grammar list = tool_grammar(ToolFormat::mistral, both, true);
  EXPECT_TRUE(list.accepts("[" + call_f + "," + call_g + "]"));
  EXPECT_FALSE(list.accepts("[]"));
  EXPECT_FALSE(tool_grammar(ToolFormat::mistral, both, false).accepts("[" + call_f + "," + call_g + "]"));
  EXPECT_TRUE(tool_grammar(ToolFormat::llama3, {both, 1}, false)
                  .accepts("{\"name\":\"f\",\"parameters\":{\"n\":1}}"));
  const Tool bad{"bad", {{"type", "nothing"}}};
  EXPECT_THROW(tool_grammar(ToolFormat::hermes, {&bad, 1}, false), InputError);
}

TEST(ChatSyntax, IsReadOffTheTemplate) {
  EXPECT_EQ(chat_syntax("{% for m in messages %}{% endfor %}").tools, ToolFormat::none);
  EXPECT_EQ(chat_syntax("{% if tools %}<tool_call>{% endif %}").tools, ToolFormat::hermes);
  EXPECT_EQ(chat_syntax("{% if tools %}<tool_call>\n<function=f>\n<parameter=p>{% endif %}").tools,
            ToolFormat::tags);
  EXPECT_EQ(chat_syntax("{% if tools %}<function=f>{% endif %}").tools, ToolFormat::tag);
  EXPECT_EQ(chat_syntax("{% if tools %}[TOOL_CALLS]{% endif %}").tools, ToolFormat::mistral);
  EXPECT_EQ(chat_syntax("{% if tools %}{\"name\": f, \"parameters\": d}{% endif %}").tools,
            ToolFormat::llama3);
  EXPECT_EQ(chat_syntax("{% if tools %}functools[]{% endif %}").tools, ToolFormat::functools);
  EXPECT_EQ(chat_syntax("{% if tools %}Action: \"tool_name\": {% endif %}").tools, ToolFormat::actions);
  EXPECT_EQ(chat_syntax("{% if tools %}<｜tool▁sep｜>```json{% endif %}").tools, ToolFormat::deepseek);
  EXPECT_EQ(chat_syntax("{% if tools %}<｜tool▁sep｜>{% endif %}").tools, ToolFormat::deepseek31);
  const ChatSyntax harmony = chat_syntax("{% if tools %}<|channel|>analysis<|message|>{% endif %}");
  EXPECT_EQ(harmony.tools, ToolFormat::channels);
  EXPECT_TRUE(harmony.channels && harmony.thinks);
  EXPECT_TRUE(chat_syntax("<|channel|>analysis<|message|>").channels) << "without tools too";
  EXPECT_TRUE(chat_syntax("{{ content.split('</think>') }}").thinks);
  EXPECT_FALSE(chat_syntax("<tool_call> tools").thinks);
}

// The templates of the models themselves.
TEST(ChatSyntax, OfTemplatesInUse) {
  SKIP_WITHOUT(testing_support::shared_data("templates/llama_cpp"));
  const std::pair<const char*, ToolFormat> cases[] = {
      {"CohereForAI-c4ai-command-r-plus-tool_use", ToolFormat::actions},
      {"CohereForAI-c4ai-command-r7b-12-2024-tool_use", ToolFormat::action_tokens},
      {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", ToolFormat::hermes},
      {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", ToolFormat::hermes},
      {"Qwen-Qwen2.5-7B-Instruct", ToolFormat::hermes},
      {"deepseek-ai-DeepSeek-R1-Distill-Llama-8B", ToolFormat::none},  // it shows the model no tools
      {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", ToolFormat::none},
      {"fireworks-ai-llama-3-firefunction-v2", ToolFormat::functools},
      {"google-gemma-2-2b-it", ToolFormat::none},
      {"llama-cpp-deepseek-r1", ToolFormat::deepseek},
      {"meetkai-functionary-medium-v3.1", ToolFormat::tag},
      {"meetkai-functionary-medium-v3.2", ToolFormat::recipients},
      {"meta-llama-Llama-3.1-8B-Instruct", ToolFormat::llama3},
      {"meta-llama-Llama-3.2-3B-Instruct", ToolFormat::llama3},
      {"meta-llama-Llama-3.3-70B-Instruct", ToolFormat::llama3},
      {"microsoft-Phi-3.5-mini-instruct", ToolFormat::none},
      {"mistralai-Mistral-Nemo-Instruct-2407", ToolFormat::mistral},
  };
  for (const auto& [name, format] : cases) {
    const std::string file = std::string("templates/llama_cpp/") + name + ".jinja";
    EXPECT_EQ(chat_syntax(testing_support::read_text_file(testing_support::shared_data(file))).tools, format)
        << name;
  }
}

}  // namespace
}  // namespace lathe
