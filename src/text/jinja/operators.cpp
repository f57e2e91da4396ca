#include <algorithm>
#include <cmath>

#include "core/html.h"
#include "text/jinja/library.h"
#include "text/jinja/python_text.h"

namespace lathe::jinja {

namespace {

[[noreturn]] void unsupported(const Runtime& rt, std::string_view op, const Value& a, const Value& b) {
  for (const Value* v : {&a, &b})
    if (v->is_undefined()) rt.wrong_type(fmt::format("an operand of '{}'", op), *v);
  rt.fail(fmt::format("operands that '{}' takes", op),
          fmt::format("'{}' and '{}'", a.type_name(), b.type_name()));
}

Value integer_arithmetic(Runtime& rt, std::string_view op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    if (b < 0) return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
    out = 1;
    // 64 squarings suffice: beyond, only 0, 1 and -1 do not overflow.
    const int64_t power = a >= -1 && a <= 1 ? std::min<int64_t>(b, 2 + b % 2) : b;
    for (int64_t i = 0; i < power && !overflow; ++i) overflow = __builtin_mul_overflow(out, a, &out);
  } else {
    if (b == 0) rt.fail("a divisor", "0");
    if (op == "/") return Value::real(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {
      overflow = __builtin_sub_overflow(int64_t{0}, a, &out);
      if (op == "%") return Value::integer(0);
    } else {
      const int64_t remainder = a % b;
      const bool down = remainder != 0 && (remainder < 0) != (b < 0);
      out = op == "//" ? a / b - (down ? 1 : 0) : remainder + (down ? b : 0);
    }
  }
  if (overflow) rt.fail("an integer of 64 bits", fmt::format("the result of '{}'", op));
  return Value::integer(out);
}

Value real_arithmetic(Runtime& rt, std::string_view op, double a, double b) {
  if (op == "+") return Value::real(a + b);
  if (op == "-") return Value::real(a - b);
  if (op == "*") return Value::real(a * b);
  if (op == "**") return Value::real(std::pow(a, b));
  if (b == 0) rt.fail("a divisor", "0");
  if (op == "/") return Value::real(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == "%") return Value::real(remainder == 0 ? std::copysign(0.0, b) : remainder);
  return Value::real(std::round((a - remainder) / b));
}

Value repeat(Runtime& rt, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  if (const Text* t = value.text()) {
    if (!t->bytes.empty() && static_cast<uint64_t>(count) > Runtime::kMaxText / t->bytes.size())
      rt.fail(fmt::format("a text of at most {} bytes", Runtime::kMaxText), "more");
    std::string out;
    for (int64_t i = 0; i < (t->bytes.empty() ? 0 : count); ++i) out += t->bytes;
    return rt.text(std::move(out), t->safe);
  }
  const Sequence& s = *value.sequence();
  std::vector<Value> out;
  for (int64_t i = 0; i < (s.items.empty() ? 0 : count); ++i) {
    rt.spend(64 * s.items.size());
    out.insert(out.end(), s.items.begin(), s.items.end());
  }
  return rt.sequence(std::move(out), s.kind);
}

bool repeatable(const Value& v) {
  const Sequence* s = v.sequence();
  return v.text() || (s && (s->kind == SequenceKind::list || s->kind == SequenceKind::tuple));
}

bool contains(Runtime& rt, const Value& container, const Value& item) {
  if (const Text* t = container.text()) {
    rt.spend(t->bytes.size());
    return t->bytes.find(rt.need_text(item, "'in' a string")) != std::string::npos;
  }
  if (const Dict* d = container.dict()) return item.text() && d->find(item.text()->bytes);
  const auto items = rt.iterate(container);
  return std::any_of(items->items.begin(), items->items.end(),
                     [&](const Value& v) { return rt.equal(v, item); });
}

}  // namespace

Value binary(Runtime& rt, std::string_view op, const Value& a, const Value& b) {
  if (const auto x = a.as_integer(), y = b.as_integer(); x && y) return integer_arithmetic(rt, op, *x, *y);
  if (const auto x = a.as_real(), y = b.as_real(); x && y) return real_arithmetic(rt, op, *x, *y);
  const Text *s = a.text(), *t = b.text();
  if (op == "+" && s && t) {
    // markupsafe: what joins a safe string is escaped unless it is safe itself.
    const bool safe = s->safe || t->safe;
    const auto part = [&](const Text& x) { return safe && !x.safe ? escape_html(x.bytes) : x.bytes; };
    return rt.text(part(*s) + part(*t), safe);
  }
  if (op == "%" && s) {
    if (s->safe) rt.fail("a format that is a plain string", "a safe string");
    const Sequence* values = b.sequence();
    const bool tuple = values && values->kind == SequenceKind::tuple;
    return rt.text(percent_format(rt, s->bytes, tuple ? values->items : std::vector<Value>{b}));
  }
  const Sequence *x = a.sequence(), *y = b.sequence();
  if (op == "+" && x && y && x->kind == y->kind && repeatable(a)) {
    std::vector<Value> items = x->items;
    items.insert(items.end(), y->items.begin(), y->items.end());
    return rt.sequence(std::move(items), x->kind);
  }
  if (op == "*" && repeatable(a) && b.as_integer()) return repeat(rt, a, *b.as_integer());
  if (op == "*" && repeatable(b) && a.as_integer()) return repeat(rt, b, *a.as_integer());
  unsupported(rt, op, a, b);
}

Value negate(Runtime& rt, const Value& a) {
  if (const auto i = a.as_integer()) return integer_arithmetic(rt, "-", 0, *i);
  if (const auto d = a.as_real()) return Value::real(-*d);
  rt.wrong_type("a number after '-'", a);
}

bool compare(Runtime& rt, std::string_view op, const Value& a, const Value& b) {
  if (op == "==") return rt.equal(a, b);
  if (op == "!=") return !rt.equal(a, b);
  if (op == "in") return contains(rt, b, a);
  if (op == "not in") return !contains(rt, b, a);
  rt.spend(16 * static_cast<size_t>(std::min(a.weight(), b.weight())));
  const bool swapped = op == ">" || op == "<=";
  const auto result = swapped ? less(b, a) : less(a, b);
  if (!result) unsupported(rt, op, a, b);
  // NaN compares false either way.
  if (const auto x = a.as_real(), y = b.as_real(); x && y && (std::isnan(*x) || std::isnan(*y))) return false;
  return op == "<" || op == ">" ? *result : !*result;
}

Value slice(Runtime& rt, const Value& object, const Value* begin, const Value* end, const Value* step) {
  const Text* t = object.text();
  const Sequence* s = object.sequence();
  if (s && (s->kind == SequenceKind::view || s->kind == SequenceKind::iterator)) s = nullptr;
  if (!t && !s) {
    if (object.is_undefined()) rt.wrong_type("something to slice", object);
    return Value::undefined(fmt::format("'{}' without slices", object.type_name()));
  }
  if (t) rt.spend(2 * t->bytes.size());
  const auto size = static_cast<int64_t>(t ? code_points(t->bytes) : s->items.size());
  const auto bound = [&](const Value* v) -> std::optional<int64_t> {
    if (!v || v->is_none()) return std::nullopt;
    return rt.need_integer(*v, "slice");
  };
  const int64_t by = bound(step).value_or(1);
  if (by == 0) rt.fail("a step other than 0", "0");
  const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? size : size - 1;
  const auto place = [&](std::optional<int64_t> i, int64_t fallback) {
    if (!i) return fallback;
    return std::clamp(*i < 0 ? *i + size : *i, low, high);
  };
  int64_t at = place(bound(begin), by > 0 ? low : high);
  const int64_t stop = place(bound(end), by > 0 ? high : low);
  std::vector<Value> items;
  std::string text;
  const auto letters = t && by != 1 ? characters(t->bytes) : std::vector<std::string>();
  if (t && by == 1) {
    const size_t from = byte_offset(t->bytes, static_cast<size_t>(at));
    const size_t count = static_cast<size_t>(std::max<int64_t>(stop - at, 0));
    text = t->bytes.substr(from, byte_offset(std::string_view(t->bytes).substr(from), count));
  } else {
    while (by > 0 ? at < stop : at > stop) {
      if (t) {
        text += letters[static_cast<size_t>(at)];
      } else {
        items.push_back(s->items[static_cast<size_t>(at)]);
      }
      if (__builtin_add_overflow(at, by, &at)) break;
    }
  }
  if (t) return rt.text(std::move(text), t->safe);
  return rt.sequence(std::move(items), s->kind);
}

std::string percent_format(Runtime& rt, std::string_view format, const std::vector<Value>& values) {
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    if (++i == format.size()) rt.fail("a conversion after '%'", "the end of the format");
    if (format[i] == '%') {
      out += '%';
      continue;
    }
    std::optional<int> precision;
    if (format[i] == '.') {
      precision = 0;
      while (++i < format.size() && format[i] >= '0' && format[i] <= '9' && *precision < 100)
        precision = *precision * 10 + format[i] - '0';
    }
    const char conversion = i < format.size() ? format[i] : '\0';
    if (next == values.size()) rt.fail("a value for every conversion", "fewer");
    const Value& value = values[next++];
    if (conversion == 's' && !precision) {
      out += rt.str(value);
    } else if (conversion == 'r' && !precision) {
      out += rt.repr(value);
    } else if ((conversion == 'd' || conversion == 'i') && !precision && value.as_integer()) {
      out += std::to_string(*value.as_integer());
    } else if (conversion == 'f' && value.as_real()) {
      out += fmt::format("{:.{}f}", *value.as_real(), precision.value_or(6));
    } else {
      rt.fail("%s, %r, %d, %i, %f or %.Nf with a value that fits",
              fmt::format("'%{}' with '{}'", printable(std::string(1, conversion)), value.type_name()));
    }
    if (out.size() > Runtime::kMaxText) rt.fail("a shorter text", "a long one");
  }
  if (next != values.size()) rt.fail("a conversion for every value", "fewer");
  return out;
}

}  // namespace lathe::jinja
