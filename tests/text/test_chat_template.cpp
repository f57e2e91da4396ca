// Chat templates against what Jinja2 gives as transformers sets it up (tests/golden/chat_template, made by
// tools/golden_templates.py): the same bytes, or an InputError where Jinja raises.
#include <gmock/gmock.h>

#include "core/json.h"
#include "support.h"
#include "text/chat_template.h"

namespace lathe {
namespace {

using namespace testing_support;

// 2026-07-04 12:34:56, wherever the test runs.
std::time_t fixed_time() {
  std::tm t{};
  t.tm_year = 126, t.tm_mon = 6, t.tm_mday = 4, t.tm_hour = 12, t.tm_min = 34, t.tm_sec = 56, t.tm_isdst = -1;
  return std::mktime(&t);
}

std::string render(const std::string& source, const Json& conversation) {
  ChatTemplate::Options options;
  options.now = fixed_time();
  options.add_generation_prompt = conversation.value("add_generation_prompt", true);
  options.documents = conversation.value("documents", Json());
  options.variables = conversation.value("variables", Json::object());
  return ChatTemplate::parse(source).render(conversation.at("messages"), conversation.value("tools", Json()),
                                            options);
}

void expect_as_jinja(const std::string& source, const Json& conversation, const Json& golden) {
  try {
    const std::string text = render(source, conversation);
    ASSERT_TRUE(golden.contains("text")) << "Jinja says: " << golden.at("error") << "\nrendered: " << text;
    EXPECT_EQ(text, golden.at("text").get<std::string>());
  } catch (const InputError& e) {
    ASSERT_TRUE(golden.contains("error")) << e.what() << "\nJinja renders: " << golden.at("text");
    EXPECT_THAT(e.what(), testing::HasSubstr(": line "));
    const std::string error = golden.at("error"), raised = "TemplateError: ";
    if (error.starts_with(raised)) {
      EXPECT_THAT(e.what(), testing::HasSubstr(error.substr(raised.size())));
    }
  }
}

const Json& conversations() {
  static const Json all = read_json(golden("chat_template/conversations.json"));
  return all;
}

// Every template of a golden file in every conversation.
void expect_golden_templates(const std::string& file, const std::filesystem::path& base) {
  int rendered = 0;
  const Json templates = read_json(golden("chat_template/" + file));
  for (const auto& [path, results] : templates.items()) {
    const std::string source = read_text_file(base / path);
    ASSERT_FALSE(source.empty()) << base / path;
    for (const auto& [name, result] : results.items()) {
      SCOPED_TRACE(path + ", " + name);
      expect_as_jinja(source, conversations().at(name), result);
      rendered += result.contains("text") ? 1 : 0;
    }
  }
  EXPECT_GT(rendered, 20);
}

TEST(ChatTemplate, OwnTemplatesRenderAsJinja) {
  expect_golden_templates("own.json", golden("chat_template/own"));
}

TEST(ChatTemplate, PublishedTemplatesRenderAsJinja) {
  SKIP_WITHOUT(shared_data("templates"));
  expect_golden_templates("shared.json", shared_data(""));
}

TEST(ChatTemplate, SnippetsRenderAsJinja) {
  const Json golden_snippets = read_json(golden("chat_template/snippets.json"));
  const Json conversation = {{"messages", Json::array()}, {"variables", golden_snippets.at("variables")}};
  for (const Json& snippet : golden_snippets.at("snippets")) {
    SCOPED_TRACE(snippet.at("source").dump());
    expect_as_jinja(snippet.at("source"), conversation, snippet);
  }
}

std::string refusal(const std::string& source, const Json& variables = Json::object()) {
  try {
    render(source, {{"messages", Json::array()}, {"variables", variables}});
    return "";
  } catch (const InputError& e) {
    return e.what();
  }
}

TEST(ChatTemplate, RefusalsNameLineAndConstruct) {
  EXPECT_EQ(refusal("\n\n{% include 'x' %}"),
            "chat template: line 3: expected a statement that chat templates have, found {% include %}; if, "
            "for, set, "
            "macro, call, filter, with, generation, break and continue are supported");
  EXPECT_EQ(refusal("a\n{{ nobody.x }}"),
            "chat template: line 2: expected a value with attribute 'x', found 'nobody' undefined");
  EXPECT_EQ(refusal("{{ 1 }}\n{{ 'x' | xmlattr }}"),
            "chat template: line 2: expected a filter that chat templates have, found 'xmlattr'");
  EXPECT_EQ(refusal("{%- if true %}\n{{ raise_exception('no\tway') }}{% endif %}"),
            "chat template: line 2: the template refuses: no\\x09way");
  EXPECT_EQ(refusal("{{ 'x'.center(5) }}"),
            "chat template: line 1: expected an attribute that templates may use, found 'center' of 'str'");
  EXPECT_EQ(refusal("{% for x in messages %}"),
            "chat template: line 1: expected {% endfor %}, found the end of the template");
}

// As transformers 5.24 aliases them: reasoning_content before thinking before reasoning, where not null.
TEST(ChatTemplate, ReasoningIsThereUnderTheNamesThatTemplatesRead) {
  const auto read = [](const Json& message) {
    return ChatTemplate::parse("{{ messages[0].thinking }}, {{ messages[0].reasoning_content }}")
        .render(Json::array({message}));
  };
  EXPECT_EQ(read({{"reasoning", "a"}}), "a, a");
  EXPECT_EQ(read({{"thinking", "a"}, {"reasoning", "b"}}), "a, a");
  EXPECT_EQ(read({{"reasoning_content", "a"}, {"reasoning", "b"}}), "a, a");
  EXPECT_EQ(read({{"reasoning_content", "a"}, {"thinking", "b"}}), "b, a");
  EXPECT_EQ(read({{"reasoning_content", nullptr}, {"reasoning", "b"}}), "b, b");
  EXPECT_EQ(read({{"role", "user"}}), ", ");
}

TEST(ChatTemplate, WorkTextAndDepthAreLimited) {
  const auto expect_limit = [](const std::string& source, const std::string& limit) {
    EXPECT_THAT(refusal(source), testing::HasSubstr(limit)) << source.substr(0, 80);
  };
  const std::string forever = "{% for a in range(99999) %}{% for b in range(99999) %}";
  expect_limit(forever + "{% endfor %}{% endfor %}", "units of work");
  expect_limit("{{ 'x' * 99999999999 }}", "bytes");
  expect_limit(
      "{% set n = namespace(s='abcdefgh') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
      "bytes");
  expect_limit("{% set n = namespace(s=[1]) %}{% for a in range(9999) %}{% set n.s = [n.s] %}{% endfor %}",
               "levels of nesting");
  // Shared parts count as often as they are seen.
  expect_limit(
      "{% set n = namespace(s=[1]) %}{% for a in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
      "units of work");
  expect_limit(
      "{% set n = namespace(s=[1], t=[1]) %}{% for a in range(99) %}{% set n.s = [n.s, n.s] %}"
      "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s == n.t }}",
      "units of work");
  expect_limit("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "levels of calls");
  expect_limit("{{ " + std::string(100000, '(') + "1" + std::string(100000, ')') + " }}",
               "levels of nesting");
  expect_limit("{{ " + std::string(100000, '-') + "1 }}", "levels of nesting");
  std::string sum = "{{ 1", tests = "{{ 1", ifs;
  for (int i = 0; i < 10000; ++i) sum += " + 1", tests += " | abs", ifs += "{% if 1 %}";
  expect_limit(sum + " }}", "an expression of at most");
  expect_limit(tests + " }}", "an expression of at most");
  expect_limit(ifs, "levels of nesting");
  EXPECT_THROW(ChatTemplate::parse(std::string((size_t{1} << 20) + 1, 'x')), InputError);
  EXPECT_THROW(ChatTemplate::parse("\xFF"), InputError);
  EXPECT_THROW(ChatTemplate::parse("x").render(Json::object()), InputError);
}

TEST(ChatTemplate, NamespacesAndMacrosThatHoldThemselvesAreFreed) {
  // Leaks are the address sanitizer's to find.
  EXPECT_EQ(
      refusal("{% set n = namespace() %}{% set n.n = n %}{% macro m() %}{% endmacro %}{% set n.m = m %}"),
      "");
}

TEST(ChatTemplate, VariablesDoNotReplaceTheArguments) {
  ChatTemplate::Options options;
  options.variables = {{"messages", "x"}};
  EXPECT_THROW(ChatTemplate::parse("x").render(Json::array(), nullptr, options), InputError);
}

}  // namespace
}  // namespace lathe
