// What a template can call without defining it: one table each for filters, tests, methods and functions.
#pragma once

#include <optional>
#include <string_view>

#include "text/jinja/runtime.h"

namespace lathe::jinja {

using FilterFunction = Value (*)(Runtime&, const Value& input, const Arguments&);
using TestFunction = bool (*)(Runtime&, const Value& input, const Arguments&);

// nullptr when there is none of that name.
FilterFunction find_filter(std::string_view name);
TestFunction find_test(std::string_view name);

// The method `name` of `object`, bound to it. Nothing when Python's type has no attribute of that name
// either; InputError when it has one that is not here, or that changes the object (transformers' sandbox is
// immutable).
std::optional<Value> method(Runtime&, const Value& object, std::string_view name);

// range, dict, namespace, joiner, raise_exception, strftime_now.
std::vector<std::pair<std::string, Value>> global_functions();

void set_attribute(const Runtime&, Namespace&, const std::string& name, const Value&);

Value binary(Runtime&, std::string_view op, const Value&, const Value&);  // + - * / // % **
Value negate(Runtime&, const Value&);
bool compare(Runtime&, std::string_view op, const Value&, const Value&);  // == != < <= > >= in, not in
Value slice(Runtime&, const Value& object, const Value* begin, const Value* end, const Value* step);
std::string percent_format(Runtime&, std::string_view format, const std::vector<Value>& values);

// json.dumps as transformers' tojson calls it.
struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";
};
std::string dump_json(Runtime&, const Value&, const JsonStyle&);
// InputError for what is not JSON in Python's sense, too deep, or an integer of more than 64 bits.
Value from_json(Runtime&, const Json&);

}  // namespace lathe::jinja
