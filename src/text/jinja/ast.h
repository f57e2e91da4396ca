// What a template is after parsing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/jinja/value.h"

namespace lathe::jinja {

enum class ExprKind {
  constant,     // value
  name,         // text
  list,         // items
  tuple,        // items
  dict,         // items: key, value, key, value, ...
  attribute,    // items[0] . text
  item,         // items[0] [ items[1] ]
  slice,        // items[0] [ items[1] : items[2] : items[3] ]; those left out are null
  call,         // items[0] ( items[1..] , keywords )
  filter,       // items[0] | text ( items[1..] , keywords ); items[0] is null in a filter block
  test,         // items[0] is text ( items[1..] , keywords )
  unary,        // text: not, -, +
  binary,       // text: + - * / // % **
  concat,       // items, by ~
  compare,      // items[0] operators[0] items[1] operators[1] items[2] ...
  logical,      // text: and, or
  conditional,  // items[0] if items[1] else items[2], which may be null
};

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;
struct Keyword {
  std::string name;
  ExprPtr value;
};

struct Expr {
  ExprKind kind;
  int line;
  int height = 1;  // of the tree below
  std::string text;
  Value value;
  std::vector<ExprPtr> items;
  std::vector<Keyword> keywords;
  std::vector<std::string> operators;
};

enum class StatementKind {
  data,        // text
  output,      // expr
  if_,         // expr, body, otherwise
  for_,        // targets in expr (if condition): body, else otherwise
  set,         // targets = expr
  set_block,   // targets[0] | expr(filters, may be null): body
  macro,       // text(parameters): body
  call_block,  // expr(a call) with caller(parameters): body
  filter,      // expr: body
  with,        // targets[i] = values[i]: body
  scope,       // generation: body
  break_,
  continue_,
};

// x; x.y for namespaces; (a, b) when there are several names.
struct Target {
  std::string name, attribute;
  std::vector<Target> parts;
};

struct Parameter {
  std::string name;
  ExprPtr fallback;  // may be null
};

struct Statement;
using Body = std::vector<std::unique_ptr<const Statement>>;

struct Statement {
  StatementKind kind;
  int line;
  std::string text;
  ExprPtr expr, condition;
  std::vector<Target> targets;
  std::vector<ExprPtr> values;
  std::vector<Parameter> parameters;
  Body body, otherwise;
  bool recursive = false;
};

}  // namespace lathe::jinja
