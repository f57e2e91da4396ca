#include "text/grammar.h"

#include "core/error.h"
#include "text/grammar/automaton.h"
#include "text/grammar/gbnf.h"
#include "text/grammar/json_rules.h"
#include "text/grammar/regex_expr.h"
#include "text/utf8.h"

namespace lathe {

Grammar Grammar::compile(const grammar::Rules& rules, std::string_view where) {
  return Grammar(std::make_shared<const grammar::Network>(grammar::compile(rules, where)));
}

Grammar Grammar::gbnf(std::string_view source, std::string_view where) {
  return compile(grammar::parse_gbnf(source, where), where);
}

Grammar Grammar::regex(std::string_view pattern, std::string_view where) {
  grammar::Rules rules;
  rules.root = rules.add("root", grammar::parse_regex(pattern, where, /*whole=*/true));
  return compile(rules, where);
}

Grammar Grammar::choice(std::span<const std::string> choices, std::string_view where) {
  if (choices.empty()) throw input_error(where, "at least one choice", "none");
  std::vector<grammar::ExprPtr> items;
  for (const std::string& text : choices) {
    if (text.empty() || !valid_utf8(text))
      throw input_error(where, "texts in UTF-8", "an empty or invalid one");
    items.push_back(grammar::bytes(text));
  }
  grammar::Rules rules;
  rules.root = rules.add("root", grammar::alternatives(std::move(items)));
  return compile(rules, where);
}

namespace {

Grammar json_grammar(bool object) {
  grammar::Rules rules;
  const grammar::JsonRules json(rules);
  const auto value = grammar::rule(object ? json.object : json.value);
  rules.root =
      rules.add("root", grammar::sequence({grammar::rule(json.space), value, grammar::rule(json.space)}));
  return Grammar::compile(rules, "json");
}

}  // namespace

Grammar Grammar::json() {
  static const Grammar grammar = json_grammar(false);
  return grammar;
}

Grammar Grammar::json_object() {
  static const Grammar grammar = json_grammar(true);
  return grammar;
}

bool Grammar::accepts(std::string_view text) const {
  grammar::Automaton automaton(network_, std::make_shared<grammar::Work>());
  auto state = automaton.start();
  for (const char c : text) {
    if (state == grammar::Automaton::dead) return false;
    state = automaton.next(state, static_cast<uint8_t>(c));
  }
  return state != grammar::Automaton::dead && automaton.ended(state);
}

size_t Grammar::states() const { return network_->nodes.size(); }

}  // namespace lathe
