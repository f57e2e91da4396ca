#include "text/jinja/parser.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/error.h"
#include "text/jinja/lexer.h"

namespace lathe::jinja {

namespace {

constexpr int kMaxDepth = 100;   // statements in statements, brackets in brackets
constexpr int kMaxHeight = 200;  // of an expression's tree; published templates stay below 30

constexpr std::array<std::string_view, 6> kComparisons = {"==", "!=", "<=", ">=", "<", ">"};

class Parser {
 public:
  Parser(std::string_view source, std::string_view where) : tokens_(tokenize(source, where)), where_(where) {}

  Body run() { return body({}); }

 private:
  struct Deeper {
    explicit Deeper(Parser& parser) : p(parser) {
      if (++p.depth_ > kMaxDepth) p.error(fmt::format("at most {} levels of nesting", kMaxDepth), "more");
    }
    ~Deeper() { --p.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    Parser& p;
  };

  [[noreturn]] void error(std::string_view expected, std::string_view found,
                          std::string_view hint = {}) const {
    throw input_error(fmt::format("{}: line {}", where_, peek().line), expected, found, hint);
  }

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token next() {
    Token token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is(TokenKind kind, std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == kind && peek(ahead).text == text;
  }
  bool is_op(std::string_view text, size_t ahead = 0) const { return is(TokenKind::op, text, ahead); }
  bool is_name(std::string_view text, size_t ahead = 0) const { return is(TokenKind::name, text, ahead); }
  bool skip_op(std::string_view text) { return is_op(text) && (next(), true); }
  bool skip_name(std::string_view text) { return is_name(text) && (next(), true); }

  std::string found() const {
    switch (peek().kind) {
      case TokenKind::data:
        return "text";
      case TokenKind::variable_begin:
        return "'{{'";
      case TokenKind::variable_end:
        return "'}}'";
      case TokenKind::block_begin:
        return "'{%'";
      case TokenKind::block_end:
        return "'%}'";
      case TokenKind::end:
        return "the end of the template";
      default:
        return "'" + printable(peek().text, 40) + "'";
    }
  }
  void expect(TokenKind kind, std::string_view what) {
    if (peek().kind != kind) error(what, found());
    next();
  }
  void expect_op(std::string_view text) {
    if (!skip_op(text)) error(fmt::format("'{}'", text), found());
  }
  void expect_name(std::string_view text) {
    if (!skip_name(text)) error(fmt::format("'{}'", text), found());
  }
  std::string name(std::string_view what) {
    if (peek().kind != TokenKind::name) error(what, found());
    return next().text;
  }

  // ------------------------------------------------------------------------------------------- statements

  std::unique_ptr<Statement> statement(StatementKind kind, int line) const {
    auto out = std::make_unique<Statement>();
    out->kind = kind;
    out->line = line;
    return out;
  }

  bool at_tag(const std::vector<std::string_view>& names) const {
    return peek().kind == TokenKind::name &&
           std::find(names.begin(), names.end(), peek().text) != names.end();
  }

  // Statements up to a tag of `ends`, whose '{%' is read and whose name is next; all of them without `ends`.
  Body body(const std::vector<std::string_view>& ends) {
    const Deeper deeper(*this);
    Body out;
    for (;;) {
      const Token token = peek();
      if (token.kind == TokenKind::end) {
        if (!ends.empty()) error(fmt::format("{{% {} %}}", ends.front()), found());
        return out;
      }
      next();
      if (token.kind == TokenKind::data) {
        auto data = statement(StatementKind::data, token.line);
        data->text = token.text;
        out.push_back(std::move(data));
      } else if (token.kind == TokenKind::variable_begin) {
        auto output = statement(StatementKind::output, token.line);
        output->expr = tuple();
        expect(TokenKind::variable_end, "'}}'");
        out.push_back(std::move(output));
      } else {
        if (at_tag(ends)) return out;
        out.push_back(tag());
      }
    }
  }

  // Body, then {% end %} with its '%}'.
  Body body_until(std::string_view end) {
    Body out = body({end});
    next();
    expect(TokenKind::block_end, "'%}'");
    return out;
  }

  void end_tag() { expect(TokenKind::block_end, "'%}'"); }

  std::unique_ptr<const Statement> tag() {
    const int line = peek().line;
    const std::string keyword = name("the name of a statement");
    using Rule = std::unique_ptr<Statement> (Parser::*)(int);
    struct Row {
      std::string_view keyword;
      Rule rule;
    };
    static constexpr std::array<Row, 10> rows = {{{"if", &Parser::if_statement},
                                                  {"for", &Parser::for_statement},
                                                  {"set", &Parser::set_statement},
                                                  {"macro", &Parser::macro_statement},
                                                  {"call", &Parser::call_statement},
                                                  {"filter", &Parser::filter_statement},
                                                  {"with", &Parser::with_statement},
                                                  {"generation", &Parser::generation_statement},
                                                  {"break", &Parser::break_statement},
                                                  {"continue", &Parser::continue_statement}}};
    for (const Row& row : rows)
      if (row.keyword == keyword) return (this->*row.rule)(line);
    at_ -= 1;
    error("a statement that chat templates have", fmt::format("{{% {} %}}", printable(keyword, 40)),
          "if, for, set, macro, call, filter, with, generation, break and continue are supported");
  }

  std::unique_ptr<Statement> if_statement(int line) {
    auto first = statement(StatementKind::if_, line);
    Statement* last = first.get();
    for (;;) {
      last->expr = tuple(/*conditional=*/false);
      end_tag();
      last->body = body({"endif", "elif", "else"});
      const std::string end = next().text;
      if (end == "elif") {
        auto branch = statement(StatementKind::if_, peek().line);
        Statement* inner = branch.get();
        last->otherwise.push_back(std::move(branch));
        if (++elifs_ > kMaxElifs) error(fmt::format("at most {} elif branches", kMaxElifs), "more");
        last = inner;
        continue;
      }
      if (end == "else") {
        end_tag();
        last->otherwise = body({"endif"});
        next();
      }
      end_tag();
      return first;
    }
  }

  std::unique_ptr<Statement> for_statement(int line) {
    auto out = statement(StatementKind::for_, line);
    out->targets.push_back(target(/*namespaces=*/false));
    expect_name("in");
    out->expr = tuple(/*conditional=*/false);
    if (skip_name("if")) out->condition = expression();
    out->recursive = skip_name("recursive");
    end_tag();
    ++loops_;
    out->body = body({"endfor", "else"});
    --loops_;
    if (next().text == "else") {
      end_tag();
      out->otherwise = body_until("endfor");
    } else {
      end_tag();
    }
    return out;
  }

  std::unique_ptr<Statement> set_statement(int line) {
    auto out = statement(StatementKind::set, line);
    out->targets.push_back(target(/*namespaces=*/true));
    if (skip_op("=")) {
      out->expr = tuple();
      end_tag();
      return out;
    }
    out->kind = StatementKind::set_block;
    if (!out->targets[0].parts.empty()) error("'='", found());
    out->expr = filters(nullptr);
    end_tag();
    out->body = body_until("endset");
    return out;
  }

  void parameters(Statement& out) {
    expect_op("(");
    while (!is_op(")")) {
      if (!out.parameters.empty()) expect_op(",");
      if (is_op(")")) break;
      Parameter parameter{name("a parameter"), nullptr};
      if (skip_op("=")) {
        parameter.fallback = expression();
      } else if (!out.parameters.empty() && out.parameters.back().fallback) {
        error("a default: the parameters before it have one", found());
      }
      out.parameters.push_back(std::move(parameter));
    }
    expect_op(")");
  }

  // break and continue do not reach out of what becomes a function.
  Body function_body(std::string_view end) {
    const int outer = std::exchange(loops_, 0);
    Body out = body_until(end);
    loops_ = outer;
    return out;
  }

  std::unique_ptr<Statement> macro_statement(int line) {
    auto out = statement(StatementKind::macro, line);
    out->text = name("the name of a macro");
    parameters(*out);
    end_tag();
    out->body = function_body("endmacro");
    return out;
  }

  std::unique_ptr<Statement> call_statement(int line) {
    auto out = statement(StatementKind::call_block, line);
    if (is_op("(")) parameters(*out);
    out->expr = expression();
    if (out->expr->kind != ExprKind::call) error("a call", "another expression");
    end_tag();
    out->body = function_body("endcall");
    return out;
  }

  std::unique_ptr<Statement> filter_statement(int line) {
    auto out = statement(StatementKind::filter, line);
    out->expr = filters(nullptr, /*inline_start=*/true);
    end_tag();
    out->body = body_until("endfilter");
    return out;
  }

  std::unique_ptr<Statement> with_statement(int line) {
    auto out = statement(StatementKind::with, line);
    while (peek().kind != TokenKind::block_end) {
      if (!out->targets.empty()) expect_op(",");
      out->targets.push_back(target(/*namespaces=*/false));
      expect_op("=");
      out->values.push_back(expression());
    }
    end_tag();
    out->body = body_until("endwith");
    return out;
  }

  std::unique_ptr<Statement> generation_statement(int line) {
    auto out = statement(StatementKind::scope, line);
    end_tag();
    out->body = function_body("endgeneration");
    return out;
  }

  std::unique_ptr<Statement> loop_control(StatementKind kind, int line) {
    if (loops_ == 0) error("a loop around break and continue", "none");
    end_tag();
    return statement(kind, line);
  }
  std::unique_ptr<Statement> break_statement(int line) { return loop_control(StatementKind::break_, line); }
  std::unique_ptr<Statement> continue_statement(int line) {
    return loop_control(StatementKind::continue_, line);
  }

  Target target(bool namespaces) {
    const Deeper deeper(*this);
    Target first = one_target(namespaces);
    if (!is_op(",")) return first;
    Target out;
    out.parts.push_back(std::move(first));
    while (skip_op(",") && (peek().kind == TokenKind::name || is_op("(")) && !is_name("in"))
      out.parts.push_back(one_target(namespaces));
    return out;
  }

  Target one_target(bool namespaces) {
    if (skip_op("(")) {
      Target out = target(namespaces);
      expect_op(")");
      return out;
    }
    Target out;
    out.name = name("a name to set");
    constexpr std::array<std::string_view, 6> constants = {"true", "false", "none", "True", "False", "None"};
    if (std::find(constants.begin(), constants.end(), out.name) != constants.end())
      error("a name to set", "'" + out.name + "'");
    if (namespaces && skip_op(".")) out.attribute = name("an attribute");
    return out;
  }

  // ------------------------------------------------------------------------------------------- expressions

  std::unique_ptr<Expr> make(ExprKind kind, int line, std::string text = {}) const {
    auto out = std::make_unique<Expr>();
    out->kind = kind;
    out->line = line;
    out->text = std::move(text);
    return out;
  }

  ExprPtr finish(std::unique_ptr<Expr> e) const {
    for (const ExprPtr& item : e->items)
      if (item) e->height = std::max(e->height, item->height + 1);
    for (const Keyword& keyword : e->keywords) e->height = std::max(e->height, keyword.value->height + 1);
    if (e->height > kMaxHeight)
      error(fmt::format("an expression of at most {} levels", kMaxHeight), "a larger one");
    return e;
  }

  template <class... Items>
  ExprPtr node(ExprKind kind, int line, std::string text, Items... items) const {
    auto out = make(kind, line, std::move(text));
    (out->items.push_back(std::move(items)), ...);
    return finish(std::move(out));
  }

  ExprPtr constant(int line, Value value) const {
    auto out = make(ExprKind::constant, line);
    out->value = std::move(value);
    return finish(std::move(out));
  }

  bool at_tuple_end() const {
    return peek().kind == TokenKind::variable_end || peek().kind == TokenKind::block_end || is_op(")");
  }

  // One expression, or a tuple where commas follow.
  ExprPtr tuple(bool conditional = true, bool in_parentheses = false) {
    const int line = peek().line;
    auto out = make(ExprKind::tuple, line);
    bool commas = false;
    while (!at_tuple_end()) {
      out->items.push_back(conditional ? expression() : logical("or"));
      if (!skip_op(",")) break;
      commas = true;
    }
    if (commas || (out->items.empty() && in_parentheses)) return finish(std::move(out));
    if (out->items.empty()) error("an expression", found());
    return std::move(out->items[0]);
  }

  ExprPtr expression() {
    const Deeper deeper(*this);
    ExprPtr value = logical("or");
    int count = 0;
    while (is_name("if")) {
      const int line = next().line;
      ExprPtr condition = logical("or");
      ExprPtr otherwise = skip_name("else") ? expression() : nullptr;
      value =
          node(ExprKind::conditional, line, "", std::move(value), std::move(condition), std::move(otherwise));
      if (++count > kMaxDepth) error("fewer conditions", "more");
    }
    return value;
  }

  ExprPtr logical(std::string_view op) {
    const auto operand = [&] { return op == "or" ? logical("and") : negation(); };
    ExprPtr left = operand();
    while (is_name(op)) {
      const int line = next().line;
      left = node(ExprKind::logical, line, std::string(op), std::move(left), operand());
    }
    return left;
  }

  ExprPtr negation() {
    if (!is_name("not")) return comparison();
    const Deeper deeper(*this);
    const int line = next().line;
    return node(ExprKind::unary, line, "not", negation());
  }

  ExprPtr comparison() {
    auto out = make(ExprKind::compare, peek().line);
    out->items.push_back(sum());
    for (;;) {
      if (peek().kind == TokenKind::op &&
          std::find(kComparisons.begin(), kComparisons.end(), peek().text) != kComparisons.end()) {
        out->operators.push_back(next().text);
      } else if (skip_name("in")) {
        out->operators.emplace_back("in");
      } else if (is_name("not") && is_name("in", 1)) {
        next();
        next();
        out->operators.emplace_back("not in");
      } else {
        break;
      }
      out->items.push_back(sum());
    }
    if (out->operators.empty()) return std::move(out->items[0]);
    return finish(std::move(out));
  }

  ExprPtr sum() {
    ExprPtr left = concat();
    while (is_op("+") || is_op("-")) {
      const Token op = next();
      left = node(ExprKind::binary, op.line, op.text, std::move(left), concat());
    }
    return left;
  }

  ExprPtr concat() {
    auto out = make(ExprKind::concat, peek().line);
    out->items.push_back(product());
    while (skip_op("~")) out->items.push_back(product());
    if (out->items.size() == 1) return std::move(out->items[0]);
    return finish(std::move(out));
  }

  ExprPtr product() {
    ExprPtr left = power();
    while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
      const Token op = next();
      left = node(ExprKind::binary, op.line, op.text, std::move(left), power());
    }
    return left;
  }

  ExprPtr power() {  // Jinja's ** groups to the left, unlike Python's
    ExprPtr left = unary(true);
    while (is_op("**")) {
      const Token op = next();
      left = node(ExprKind::binary, op.line, op.text, std::move(left), unary(true));
    }
    return left;
  }

  ExprPtr unary(bool with_filters) {
    ExprPtr out;
    if (is_op("-") || is_op("+")) {
      const Deeper deeper(*this);
      const Token op = next();
      out = node(ExprKind::unary, op.line, op.text, unary(false));
    } else {
      out = primary();
    }
    out = postfix(std::move(out));
    return with_filters ? filters_and_tests(std::move(out)) : std::move(out);
  }

  ExprPtr primary() {
    const Token token = peek();
    switch (token.kind) {
      case TokenKind::name: {
        next();
        if (token.text == "true" || token.text == "True") return constant(token.line, Value::boolean(true));
        if (token.text == "false" || token.text == "False")
          return constant(token.line, Value::boolean(false));
        if (token.text == "none" || token.text == "None") return constant(token.line, Value());
        return node(ExprKind::name, token.line, token.text);
      }
      case TokenKind::string: {
        std::string text;
        while (peek().kind == TokenKind::string) text += next().text;
        return constant(token.line, Value::text(std::move(text)));
      }
      case TokenKind::integer:
        return number<int64_t>(Value::integer);
      case TokenKind::real:
        return number<double>(Value::real);
      default:
        break;
    }
    const Deeper deeper(*this);
    if (skip_op("(")) {
      ExprPtr out = tuple(true, /*in_parentheses=*/true);
      expect_op(")");
      return out;
    }
    if (skip_op("[")) {
      auto out = make(ExprKind::list, token.line);
      while (!is_op("]")) {
        if (!out->items.empty()) expect_op(",");
        if (is_op("]")) break;
        out->items.push_back(expression());
      }
      expect_op("]");
      return finish(std::move(out));
    }
    if (skip_op("{")) {
      auto out = make(ExprKind::dict, token.line);
      while (!is_op("}")) {
        if (!out->items.empty()) expect_op(",");
        if (is_op("}")) break;
        out->items.push_back(expression());
        expect_op(":");
        out->items.push_back(expression());
      }
      expect_op("}");
      return finish(std::move(out));
    }
    error("an expression", found());
  }

  template <class T>
  ExprPtr number(Value (*make_value)(T)) {
    const Token token = peek();
    T value{};
    const char* end = token.text.data() + token.text.size();
    const auto [stop, status] = std::from_chars(token.text.data(), end, value);
    if (status != std::errc() || stop != end)
      error("a number of 64 bits", "'" + printable(token.text, 40) + "'");
    next();
    return constant(token.line, make_value(value));
  }

  ExprPtr postfix(ExprPtr value) {
    for (;;) {
      const int line = peek().line;
      if (skip_op(".")) {
        if (peek().kind == TokenKind::integer) {
          ExprPtr index = number<int64_t>(Value::integer);
          value = node(ExprKind::item, line, "", std::move(value), std::move(index));
        } else {
          value = node(ExprKind::attribute, line, name("an attribute"), std::move(value));
        }
      } else if (skip_op("[")) {
        value = subscript(std::move(value), line);
      } else if (is_op("(")) {
        value = call(std::move(value));
      } else {
        return value;
      }
    }
  }

  ExprPtr subscript(ExprPtr value, int line) {
    const auto bound = [&]() -> ExprPtr { return is_op(":") || is_op("]") ? nullptr : expression(); };
    ExprPtr first = bound();
    if (skip_op(":")) {
      ExprPtr stop = bound();
      ExprPtr step = skip_op(":") ? bound() : nullptr;
      value = node(ExprKind::slice, line, "", std::move(value), std::move(first), std::move(stop),
                   std::move(step));
    } else {
      if (!first) error("an index", found());
      value = node(ExprKind::item, line, "", std::move(value), std::move(first));
    }
    expect_op("]");
    return value;
  }

  void arguments(Expr& out) {
    const Deeper deeper(*this);
    expect_op("(");
    bool first = true;
    while (!is_op(")")) {
      if (!first) expect_op(",");
      first = false;
      if (is_op(")")) break;
      if (is_op("*") || is_op("**"))
        error("arguments written out", "'" + peek().text + "' that unpacks them");
      if (peek().kind == TokenKind::name && is_op("=", 1)) {
        Keyword keyword{next().text, nullptr};
        next();
        keyword.value = expression();
        out.keywords.push_back(std::move(keyword));
      } else {
        if (!out.keywords.empty()) error("an argument with a name", found());
        out.items.push_back(expression());
      }
    }
    expect_op(")");
  }

  ExprPtr call(ExprPtr callee) {
    auto out = make(ExprKind::call, peek().line);
    out->items.push_back(std::move(callee));
    arguments(*out);
    return finish(std::move(out));
  }

  ExprPtr filters_and_tests(ExprPtr value) {
    for (;;) {
      if (is_op("|")) {
        value = filters(std::move(value));
      } else if (is_name("is")) {
        value = test(std::move(value));
      } else if (is_op("(")) {
        value = call(std::move(value));
      } else {
        return value;
      }
    }
  }

  ExprPtr filters(ExprPtr value, bool inline_start = false) {
    while (inline_start || is_op("|")) {
      if (!inline_start) next();
      inline_start = false;
      auto out = make(ExprKind::filter, peek().line, name("the name of a filter"));
      out->items.push_back(std::move(value));
      if (is_op("(")) arguments(*out);
      value = finish(std::move(out));
    }
    return value;
  }

  ExprPtr test(ExprPtr value) {
    const int line = next().line;
    const bool negated = skip_name("not");
    auto out = make(ExprKind::test, line, name("the name of a test"));
    out->items.push_back(std::move(value));
    const bool operand =
        peek().kind == TokenKind::string || peek().kind == TokenKind::integer ||
        peek().kind == TokenKind::real || is_op("[") || is_op("{") ||
        (peek().kind == TokenKind::name && !is_name("else") && !is_name("or") && !is_name("and"));
    if (is_op("(")) {
      arguments(*out);
    } else if (operand) {
      if (is_name("is")) error("one test", "a chain of them");
      out->items.push_back(postfix(primary()));
    }
    ExprPtr done = finish(std::move(out));
    return negated ? node(ExprKind::unary, line, "not", std::move(done)) : std::move(done);
  }

  static constexpr int kMaxElifs = 1000;  // each nests one deeper

  std::vector<Token> tokens_;
  std::string_view where_;
  size_t at_ = 0;
  int depth_ = 0, loops_ = 0, elifs_ = 0;
};

}  // namespace

Body parse(std::string_view source, std::string_view where) { return Parser(source, where).run(); }

}  // namespace lathe::jinja
