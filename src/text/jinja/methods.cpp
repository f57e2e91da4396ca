#include <algorithm>
#include <array>

#include "text/jinja/library.h"
#include "text/jinja/python_text.h"

namespace lathe::jinja {

namespace {

using Call = Value (*)(Runtime&, const Value& self, const Arguments&);
struct Row {
  std::string_view name;
  Call call;  // nullptr: Python's type has it, this interpreter has not
};

// Stands for what transformers' immutable sandbox hides.
Value hidden(Runtime&, const Value& self, const Arguments&) { return self; }

const std::string& bytes(const Value& self) { return self.text()->bytes; }

std::optional<std::string_view> text_or_none(Runtime& rt, const Value* v, std::string_view what) {
  if (v == nullptr || v->is_none()) return std::nullopt;
  return rt.need_text(*v, what);
}

// Of letters whose case is more than one letter.
Value cased(Runtime& rt, std::optional<std::string> text, const Value& self) {
  if (!text) rt.fail("letters with simple upper and lower case", "'" + printable(bytes(self), 60) + "'");
  return rt.text(*std::move(text), self.text()->safe);
}

template <Side side>
Value strip_method(Runtime& rt, const Value& self, const Arguments& a) {
  const auto given = bind(rt, "strip", a, {"chars"});
  const auto chars = text_or_none(rt, given[0], "strip");
  rt.spend(bytes(self).size() * (1 + (chars ? chars->size() / 8 : 0)));
  return rt.text(std::string(strip(bytes(self), side, chars)), self.text()->safe);
}

template <bool from_right>
Value split_method(Runtime& rt, const Value& self, const Arguments& a) {
  const auto given = bind(rt, "split", a, {"sep", "maxsplit"});
  const auto separator = text_or_none(rt, given[0], "split");
  if (separator && separator->empty()) rt.fail("split: a separator", "an empty one");
  rt.spend(bytes(self).size());
  return rt.texts(
      split(bytes(self), separator, given[1] ? rt.need_integer(*given[1], "split") : -1, from_right));
}

template <bool at_end>
Value affix_method(Runtime& rt, const Value& self, const Arguments& a) {
  const auto given = bind(rt, "startswith", a, {"prefix"}, 1);
  const auto matches = [&](const Value& v) {
    const std::string& affix = rt.need_text(v, at_end ? "endswith" : "startswith");
    return at_end ? bytes(self).ends_with(affix) : bytes(self).starts_with(affix);
  };
  const Sequence* s = given[0]->sequence();
  if (s && s->kind == SequenceKind::tuple) {
    rt.spend(16 * s->items.size());
    return Value::boolean(std::any_of(s->items.begin(), s->items.end(), matches));
  }
  return Value::boolean(matches(*given[0]));
}

template <bool from_right, bool required>
Value find_method(Runtime& rt, const Value& self, const Arguments& a) {
  const auto given = bind(rt, "find", a, {"sub"}, 1);
  const std::string& part = rt.need_text(*given[0], "find");
  rt.spend(bytes(self).size());
  const size_t at = from_right ? bytes(self).rfind(part) : bytes(self).find(part);
  if (at == std::string::npos) {
    if (required) rt.fail("index: a part of the string", "'" + printable(part, 60) + "'");
    return Value::integer(-1);
  }
  return Value::integer(static_cast<int64_t>(code_points(std::string_view(bytes(self)).substr(0, at))));
}

Value replace_method(Runtime& rt, const Value& self, const Arguments& a) {
  const auto given = bind(rt, "replace", a, {"old", "new", "count"}, 2);
  const std::string &old = rt.need_text(*given[0], "replace"), &by = rt.need_text(*given[1], "replace");
  const size_t places = bytes(self).size() / std::max<size_t>(old.size(), 1) + 1;
  if (by.size() > Runtime::kMaxText / places) rt.fail("replace: a shorter text", "a long one");
  rt.spend(bytes(self).size() + places * by.size());
  return rt.text(replace(bytes(self), old, by, given[2] ? rt.need_integer(*given[2], "replace") : -1));
}

Value join_method(Runtime& rt, const Value& self, const Arguments& a) {
  const auto given = bind(rt, "join", a, {"iterable"}, 1);
  std::string out;
  const auto items = rt.iterate(*given[0]);
  for (size_t i = 0; i < items->items.size(); ++i) {
    if (i > 0) out += bytes(self);
    out += rt.need_text(items->items[i], "join");
    rt.spend(out.size() / 1024);
  }
  return rt.text(std::move(out));
}

Value count_method(Runtime& rt, const Value& self, const Arguments& a) {
  const std::string& part = rt.need_text(*bind(rt, "count", a, {"sub"}, 1)[0], "count");
  rt.spend(bytes(self).size());
  if (part.empty()) return Value::integer(static_cast<int64_t>(code_points(bytes(self)) + 1));
  int64_t count = 0;
  for (size_t at = bytes(self).find(part); at != std::string::npos;
       at = bytes(self).find(part, at + part.size()))
    ++count;
  return Value::integer(count);
}

Value format_method(Runtime& rt, const Value& self, const Arguments& a) {
  std::string out;
  size_t next = 0;
  bool numbered = false;
  const std::string& format = bytes(self);
  for (size_t i = 0; i < format.size(); ++i) {
    const char c = format[i];
    if ((c == '{' || c == '}') && i + 1 < format.size() && format[i + 1] == c) {
      out += c;
      ++i;
    } else if (c == '{') {
      const size_t close = format.find('}', i);
      if (close == std::string::npos) rt.fail("format: '}'", "the end of the format");
      const std::string field = format.substr(i + 1, close - i - 1);
      const Value* value = nullptr;
      if (field.empty() || field.find_first_not_of("0123456789") == std::string::npos) {
        numbered |= !field.empty();
        if (numbered && (field.empty() || next > 0)) rt.fail("format: {} or {0}", "both");
        const size_t index = field.empty()      ? next++
                             : field.size() < 6 ? std::stoul(field)
                                                : a.positional.size();
        if (index < a.positional.size()) value = &a.positional[index];
      } else {
        for (const auto& [name, named] : a.named)
          if (name == field) value = &named;
      }
      if (value == nullptr)
        rt.fail("format: {}, {0} or {name} of an argument", "'{" + printable(field, 40) + "}'");
      out += rt.str(*value);
      i = close;
    } else if (c == '}') {
      rt.fail("format: '{' before '}'", "none");
    } else {
      out += c;
    }
    if (out.size() > Runtime::kMaxText) rt.fail("format: a shorter text", "a long one");
  }
  return rt.text(std::move(out));
}

template <bool at_end>
Value remove_affix(Runtime& rt, const Value& self, const Arguments& a) {
  const std::string& affix = rt.need_text(*bind(rt, "removeprefix", a, {"prefix"}, 1)[0], "removeprefix");
  const std::string& s = bytes(self);
  if (at_end) return rt.text(s.ends_with(affix) ? s.substr(0, s.size() - affix.size()) : s);
  return rt.text(s.starts_with(affix) ? s.substr(affix.size()) : s);
}

// isdigit and the like, of ASCII texts.
template <class Predicate>
Value all_ascii(Runtime& rt, const Value& self, Predicate accepts) {
  rt.spend(bytes(self).size());
  for (const char c : bytes(self))
    if (static_cast<unsigned char>(c) >= 0x80)
      rt.fail("an ASCII string", "'" + printable(bytes(self), 60) + "'");
  return Value::boolean(!bytes(self).empty() && std::all_of(bytes(self).begin(), bytes(self).end(), accepts));
}
bool digit(char c) { return c >= '0' && c <= '9'; }
bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

constexpr auto kTextMethods = std::to_array<Row>({
    {"strip", strip_method<Side::both>},
    {"lstrip", strip_method<Side::left>},
    {"rstrip", strip_method<Side::right>},
    {"split", split_method<false>},
    {"rsplit", split_method<true>},
    {"splitlines",
     [](Runtime& rt, const Value& self, const Arguments& a) {
       const auto given = bind(rt, "splitlines", a, {"keepends"});
       return rt.texts(split_lines(bytes(self), given[0] && given[0]->truth()));
     }},
    {"startswith", affix_method<false>},
    {"endswith", affix_method<true>},
    {"find", find_method<false, false>},
    {"rfind", find_method<true, false>},
    {"index", find_method<false, true>},
    {"rindex", find_method<true, true>},
    {"replace", replace_method},
    {"join", join_method},
    {"count", count_method},
    {"format", format_method},
    {"removeprefix", remove_affix<false>},
    {"removesuffix", remove_affix<true>},
    {"upper", [](Runtime& rt, const Value& self, const Arguments&) { return cased(rt, upper(bytes(self)), self); }},
    {"lower", [](Runtime& rt, const Value& self, const Arguments&) { return cased(rt, lower(bytes(self)), self); }},
    {"title", [](Runtime& rt, const Value& self, const Arguments&) { return cased(rt, title(bytes(self)), self); }},
    {"capitalize",
     [](Runtime& rt, const Value& self, const Arguments&) { return cased(rt, capitalize(bytes(self)), self); }},
    {"isdigit", [](Runtime& rt, const Value& self, const Arguments&) { return all_ascii(rt, self, digit); }},
    {"isnumeric", [](Runtime& rt, const Value& self, const Arguments&) { return all_ascii(rt, self, digit); }},
    {"isalpha", [](Runtime& rt, const Value& self, const Arguments&) { return all_ascii(rt, self, letter); }},
    {"isalnum",
     [](Runtime& rt, const Value& self, const Arguments&) {
       return all_ascii(rt, self, [](char c) { return digit(c) || letter(c); });
     }},
    {"isspace",
     [](Runtime& rt, const Value& self, const Arguments&) {
       rt.spend(bytes(self).size());
       return Value::boolean(!bytes(self).empty() && strip(bytes(self), Side::both).empty());
     }},
    {"casefold", nullptr},    {"center", nullptr},     {"encode", nullptr},    {"expandtabs", nullptr},
    {"format_map", nullptr},  {"isascii", nullptr},    {"isdecimal", nullptr}, {"isidentifier", nullptr},
    {"islower", nullptr},     {"isprintable", nullptr}, {"istitle", nullptr},  {"isupper", nullptr},
    {"ljust", nullptr},       {"maketrans", nullptr},  {"partition", nullptr}, {"rjust", nullptr},
    {"rpartition", nullptr},  {"swapcase", nullptr},   {"translate", nullptr}, {"zfill", nullptr},
});

constexpr auto kDictMethods = std::to_array<Row>({
    {"get",
     [](Runtime& rt, const Value& self, const Arguments& a) {
       const auto given = bind(rt, "get", a, {"key", "default"}, 1);
       const Text* key = given[0]->text();
       const Value* value = key ? self.dict()->find(key->bytes) : nullptr;
       return value ? *value : given[1] ? *given[1] : Value();
     }},
    {"items",
     [](Runtime& rt, const Value& self, const Arguments& a) {
       bind(rt, "items", a, {});
       std::vector<Value> items;
       for (const auto& [key, value] : self.dict()->entries)
         items.push_back(rt.sequence({rt.text(key), value}, SequenceKind::tuple));
       return rt.sequence(std::move(items), SequenceKind::view);
     }},
    {"keys",
     [](Runtime& rt, const Value& self, const Arguments& a) {
       bind(rt, "keys", a, {});
       return rt.sequence(rt.iterate(self)->items, SequenceKind::view);
     }},
    {"values",
     [](Runtime& rt, const Value& self, const Arguments& a) {
       bind(rt, "values", a, {});
       std::vector<Value> items;
       for (const auto& [key, value] : self.dict()->entries) items.push_back(value);
       return rt.sequence(std::move(items), SequenceKind::view);
     }},
    {"copy", [](Runtime&, const Value& self, const Arguments&) { return self; }},
    {"clear", hidden},
    {"fromkeys", nullptr},
    {"pop", hidden},
    {"popitem", hidden},
    {"setdefault", hidden},
    {"update", hidden},
});

constexpr auto kListMethods = std::to_array<Row>({
    {"index",
     [](Runtime& rt, const Value& self, const Arguments& a) {
       const auto given = bind(rt, "index", a, {"value"}, 1);
       const auto& items = self.sequence()->items;
       for (size_t i = 0; i < items.size(); ++i)
         if (rt.equal(items[i], *given[0])) return Value::integer(static_cast<int64_t>(i));
       rt.fail("index: an item of the list", "another value");
     }},
    {"count",
     [](Runtime& rt, const Value& self, const Arguments& a) {
       const auto given = bind(rt, "count", a, {"value"}, 1);
       const auto& items = self.sequence()->items;
       return Value::integer(
           std::count_if(items.begin(), items.end(), [&](const Value& v) { return rt.equal(v, *given[0]); }));
     }},
    {"copy", [](Runtime&, const Value& self, const Arguments&) { return self; }},
    {"append", hidden},
    {"clear", hidden},
    {"extend", hidden},
    {"insert", hidden},
    {"pop", hidden},
    {"remove", hidden},
    {"reverse", hidden},
    {"sort", hidden},
});

// Attributes of numbers, of which templates use none.
constexpr auto kNumberMethods = std::to_array<Row>({
    {"as_integer_ratio", nullptr},
    {"bit_count", nullptr},
    {"bit_length", nullptr},
    {"conjugate", nullptr},
    {"denominator", nullptr},
    {"from_bytes", nullptr},
    {"fromhex", nullptr},
    {"hex", nullptr},
    {"imag", nullptr},
    {"is_integer", nullptr},
    {"numerator", nullptr},
    {"real", nullptr},
    {"to_bytes", nullptr},
});

template <size_t n>
const Row* find(const std::array<Row, n>& rows, std::string_view name) {
  const auto* row = std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.name == name; });
  return row == rows.end() ? nullptr : row;
}

const Row* find_row(const Value& object, std::string_view name) {
  if (object.text()) return find(kTextMethods, name);
  if (object.dict()) return find(kDictMethods, name);
  if (object.is_number()) return find(kNumberMethods, name);
  const Sequence* s = object.sequence();
  if (!s || s->kind == SequenceKind::view || s->kind == SequenceKind::iterator) return nullptr;
  const Row* row = find(kListMethods, name);
  const bool mutable_list = s->kind == SequenceKind::list;
  return row && !mutable_list && name != "index" && name != "count" ? nullptr : row;
}

}  // namespace

std::optional<Value> method(Runtime& rt, const Value& object, std::string_view name) {
  const Row* row = find_row(object, name);
  if (row == nullptr) return std::nullopt;
  if (row->call == hidden)
    return Value::undefined(fmt::format("'{}' of '{}' unsafe", name, object.type_name()));
  if (row->call == nullptr)
    rt.fail("an attribute that templates may use", fmt::format("'{}' of '{}'", name, object.type_name()));
  return Value::function(std::string(name),
                         [object, call = row->call](Runtime& runtime, Arguments& arguments) {
                           return call(runtime, object, arguments);
                         });
}

}  // namespace lathe::jinja
