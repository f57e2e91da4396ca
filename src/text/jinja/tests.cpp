#include <algorithm>
#include <array>
#include <cmath>

#include "text/jinja/library.h"

namespace lathe::jinja {

namespace {

struct Row {
  std::string_view name;
  TestFunction test;
};

bool is_sequence(const Value& v) {
  if (const Sequence* s = v.sequence())
    return s->kind != SequenceKind::view && s->kind != SequenceKind::iterator;
  return v.text() || v.dict() || v.is_undefined();
}
bool is_iterable(const Value& v) { return v.sequence() || v.text() || v.dict() || v.is_undefined(); }

int64_t modulo(Runtime& rt, const Value& v, const Value& by) {
  const Value out = binary(rt, "%", v, by);
  if (!out.as_integer()) rt.wrong_type("an integer", v);
  return *out.as_integer();
}

const Value& operand(Runtime& rt, const Arguments& a) { return *bind(rt, "test", a, {"value"}, 1)[0]; }

template <const char* op>
bool compares(Runtime& rt, const Value& v, const Arguments& a) {
  return compare(rt, op, v, operand(rt, a));
}
constexpr char kEq[] = "==", kNe[] = "!=", kLt[] = "<", kLe[] = "<=", kGt[] = ">", kGe[] = ">=", kIn[] = "in";

constexpr auto kTests = std::to_array<Row>({
    {"defined", [](Runtime&, const Value& v, const Arguments&) { return !v.is_undefined(); }},
    {"undefined", [](Runtime&, const Value& v, const Arguments&) { return v.is_undefined(); }},
    {"none", [](Runtime&, const Value& v, const Arguments&) { return v.is_none(); }},
    {"boolean", [](Runtime&, const Value& v, const Arguments&) { return v.is_bool(); }},
    {"true", [](Runtime&, const Value& v, const Arguments&) { return v.is_bool() && v.truth(); }},
    {"false", [](Runtime&, const Value& v, const Arguments&) { return v.is_bool() && !v.truth(); }},
    {"integer", [](Runtime&, const Value& v, const Arguments&) { return v.is_integer(); }},
    {"float", [](Runtime&, const Value& v, const Arguments&) { return v.is_real(); }},
    {"number", [](Runtime&, const Value& v, const Arguments&) { return v.is_number(); }},
    {"string", [](Runtime&, const Value& v, const Arguments&) { return v.text() != nullptr; }},
    {"mapping", [](Runtime&, const Value& v, const Arguments&) { return v.dict() != nullptr; }},
    {"sequence", [](Runtime&, const Value& v, const Arguments&) { return is_sequence(v); }},
    {"iterable", [](Runtime&, const Value& v, const Arguments&) { return is_iterable(v); }},
    {"callable",
     [](Runtime&, const Value& v, const Arguments&) { return v.function() || v.loop() || v.is_undefined(); }},
    {"odd",
     [](Runtime& rt, const Value& v, const Arguments&) { return modulo(rt, v, Value::integer(2)) == 1; }},
    {"even",
     [](Runtime& rt, const Value& v, const Arguments&) { return modulo(rt, v, Value::integer(2)) == 0; }},
    {"divisibleby",
     [](Runtime& rt, const Value& v, const Arguments& a) { return modulo(rt, v, operand(rt, a)) == 0; }},
    {"eq", compares<kEq>},
    {"equalto", compares<kEq>},
    {"==", compares<kEq>},
    {"ne", compares<kNe>},
    {"!=", compares<kNe>},
    {"lt", compares<kLt>},
    {"lessthan", compares<kLt>},
    {"<", compares<kLt>},
    {"le", compares<kLe>},
    {"<=", compares<kLe>},
    {"gt", compares<kGt>},
    {"greaterthan", compares<kGt>},
    {">", compares<kGt>},
    {"ge", compares<kGe>},
    {">=", compares<kGe>},
    {"in", compares<kIn>},
});

}  // namespace

TestFunction find_test(std::string_view name) {
  const auto* row = std::find_if(kTests.begin(), kTests.end(), [&](const Row& r) { return r.name == name; });
  return row == kTests.end() ? nullptr : row->test;
}

}  // namespace lathe::jinja
