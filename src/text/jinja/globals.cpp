#include <array>

#include "text/jinja/library.h"

namespace lathe::jinja {

namespace {

Value range(Runtime& rt, Arguments& arguments) {
  const auto& a = arguments.positional;
  if (a.empty() || a.size() > 3 || !arguments.named.empty())
    rt.fail("range: one to three integers", "others");
  const int64_t first = rt.need_integer(a[0], "range");
  const int64_t begin = a.size() == 1 ? 0 : first;
  const int64_t end = a.size() == 1 ? first : rt.need_integer(a[1], "range");
  const int64_t step = a.size() == 3 ? rt.need_integer(a[2], "range") : 1;
  if (step == 0) rt.fail("range: a step other than 0", "0");
  constexpr size_t kMaxRange = 100'000;  // as Jinja's sandbox
  std::vector<Value> items;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (items.size() == kMaxRange) rt.fail(fmt::format("range: at most {} integers", kMaxRange), "more");
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return rt.sequence(std::move(items), SequenceKind::range);
}

Value make_dict(Runtime& rt, Arguments& arguments) {
  if (arguments.positional.size() > 1) rt.fail("dict: at most one argument without a name", "more");
  Dict out;
  if (!arguments.positional.empty()) {
    const Dict* from = arguments.positional[0].dict();
    if (from == nullptr) rt.wrong_type("dict: a dict", arguments.positional[0]);
    out = *from;
  }
  for (auto& [name, value] : arguments.named) out.set(name, value);
  return rt.dict(std::move(out));
}

Value make_namespace(Runtime& rt, Arguments& arguments) {
  Value out = rt.make_namespace();
  if (arguments.positional.size() > 1) rt.fail("namespace: at most one argument without a name", "more");
  if (!arguments.positional.empty()) {
    const Dict* from = arguments.positional[0].dict();
    if (from == nullptr) rt.wrong_type("namespace: a dict", arguments.positional[0]);
    for (const auto& [name, value] : from->entries) set_attribute(rt, *out.name_space(), name, value);
  }
  for (auto& [name, value] : arguments.named) set_attribute(rt, *out.name_space(), name, value);
  return out;
}

Value raise_exception(Runtime& rt, Arguments& arguments) {
  const auto a = bind(rt, "raise_exception", arguments, {"message"}, 1);
  rt.raise(rt.str(*a[0]));
}

Value strftime_now(Runtime& rt, Arguments& arguments) {
  const auto a = bind(rt, "strftime_now", arguments, {"format"}, 1);
  const std::string format = rt.need_text(*a[0], "strftime_now") + " ";  // never empty: 0 bytes mean an error
  if (format.size() > 256 || format.find('\0') != std::string::npos)
    rt.fail("strftime_now: a format of at most 255 characters", "another");
  const std::time_t now = rt.now();
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 4096> buffer{};
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &local);
  if (size == 0) rt.fail("strftime_now: a shorter date", "a long one");
  return rt.text(std::string(buffer.data(), size - 1));
}

// joiner(sep): nothing the first time, then the separator.
Value joiner(Runtime& rt, Arguments& arguments) {
  const auto a = bind(rt, "joiner", arguments, {"sep"});
  const Value separator = a[0] ? *a[0] : Value::text(", ");
  return Value::function("joiner", [separator, used = std::make_shared<bool>(false)](Runtime&, Arguments&) {
    return std::exchange(*used, true) ? separator : Value::text("");
  });
}

}  // namespace

void set_attribute(const Runtime& rt, Namespace& n, const std::string& name, const Value& value) {
  if (name.starts_with('_'))
    rt.fail("a namespace's attribute that begins with a letter", "'" + printable(name, 40) + "'");
  n.attributes.insert_or_assign(name, value);
}

std::vector<std::pair<std::string, Value>> global_functions() {
  std::vector<std::pair<std::string, Value>> out;
  using Call = Value (*)(Runtime&, Arguments&);
  constexpr std::array<std::pair<std::string_view, Call>, 6> rows = {{{"range", range},
                                                                      {"dict", make_dict},
                                                                      {"namespace", make_namespace},
                                                                      {"raise_exception", raise_exception},
                                                                      {"strftime_now", strftime_now},
                                                                      {"joiner", joiner}}};
  for (const auto& [name, call] : rows) out.emplace_back(name, Value::function(std::string(name), call));
  return out;
}

}  // namespace lathe::jinja
