#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "core/html.h"
#include "text/jinja/library.h"
#include "text/jinja/python_text.h"
#include "text/utf8.h"

namespace lathe::jinja {

namespace {

using Items = std::vector<Value>;

Value cased(Runtime& rt, std::optional<std::string> text, const std::string& from, bool safe) {
  if (!text) rt.fail("letters with simple upper and lower case", "'" + printable(from, 60) + "'");
  return rt.text(*std::move(text), safe);
}

bool is_safe(const Value& v) { return v.text() && v.text()->safe; }

// "a.b.0" read item by item, as map(attribute=...) and the like do.
Value path(Runtime& rt, Value v, const Value& attribute, const Value* fallback) {
  std::vector<Value> keys;
  if (attribute.text()) {
    for (const std::string& part : split(attribute.text()->bytes, ".", -1, false)) {
      const bool number =
          !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string::npos;
      keys.push_back(number ? Value::integer(std::stol(part)) : rt.text(part));
    }
  } else {
    keys.push_back(attribute);
  }
  for (const Value& key : keys) {
    v = rt.item(v, key);
    if (v.is_undefined() && fallback) v = *fallback;
  }
  return v;
}

// What values are compared by: an attribute, and without regard to case unless asked.
struct SortKey {
  const Value* attribute;
  bool case_sensitive;
  Value operator()(Runtime& rt, const Value& v) const {
    Value key = attribute && !attribute->is_none() ? path(rt, v, *attribute, nullptr) : v;
    if (case_sensitive || !key.text()) return key;
    return cased(rt, lower(key.text()->bytes), key.text()->bytes, false);
  }
};

Value sorted(Runtime& rt, const Items& items, const SortKey& key, bool reverse) {
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items) keyed.emplace_back(key(rt, item), item);
  const auto before = [&](const auto& a, const auto& b) { return compare(rt, "<", a.first, b.first); };
  // A comparison may throw, and Python's reverse keeps equal items in order as well.
  if (reverse) std::reverse(keyed.begin(), keyed.end());
  std::stable_sort(keyed.begin(), keyed.end(), before);
  if (reverse) std::reverse(keyed.begin(), keyed.end());
  Items out;
  for (auto& [ignored, item] : keyed) out.push_back(std::move(item));
  return rt.sequence(std::move(out));
}

bool flag(const Value* v, bool fallback) { return v ? v->truth() : fallback; }

Value sort_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "sort", a, {"reverse", "case_sensitive", "attribute"});
  if (given[2] && given[2]->text() && given[2]->text()->bytes.find(',') != std::string::npos)
    rt.fail("sort: one attribute", "several");
  return sorted(rt, rt.iterate(v)->items, {given[2], flag(given[1], false)}, flag(given[0], false));
}

Value dictsort_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "dictsort", a, {"case_sensitive", "by", "reverse"});
  if (!v.dict()) rt.wrong_type("dictsort: a dict", v);
  Items items;
  for (const auto& [key, value] : v.dict()->entries)
    items.push_back(rt.sequence({rt.text(key), value}, SequenceKind::tuple));
  const bool by_value = given[1] && rt.need_text(*given[1], "dictsort") == "value";
  const Value index = Value::integer(by_value ? 1 : 0);
  return sorted(rt, items, {&index, flag(given[0], false)}, flag(given[2], false));
}

template <bool largest>
Value extreme_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "min", a, {"case_sensitive", "attribute"});
  const SortKey key{given[1], flag(given[0], false)};
  const auto items = rt.iterate(v);
  if (items->items.empty()) return Value::undefined("the extreme of an empty sequence");
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : items->items) {
    Value k = key(rt, item);
    if (best && !compare(rt, largest ? ">" : "<", k, best_key)) continue;
    best = &item;
    best_key = std::move(k);
  }
  return *best;
}

Value unique_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "unique", a, {"case_sensitive", "attribute"});
  const SortKey key{given[1], flag(given[0], false)};
  Items out, seen;
  const auto items = rt.iterate(v);
  for (const Value& item : items->items) {
    Value k = key(rt, item);
    if (k.depth() > 0) rt.fail("unique: values that Python can hash", "a " + k.type_name());
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return rt.equal(s, k); })) continue;
    seen.push_back(std::move(k));
    out.push_back(item);
  }
  return rt.sequence(std::move(out), SequenceKind::iterator);
}

Value groupby_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "groupby", a, {"attribute", "default", "case_sensitive"}, 1);
  if (given[1] || given[2]) rt.fail("groupby: an attribute", "other arguments");
  const Value ordered = sorted(rt, rt.iterate(v)->items, {given[0], false}, false);
  const auto key = [&](const Value& item) { return path(rt, item, *given[0], nullptr); };
  const SortKey folded{given[0], false};
  Items groups;
  for (size_t i = 0; i < ordered.sequence()->items.size();) {
    const auto& items = ordered.sequence()->items;
    const size_t begin = i;
    while (i < items.size() && rt.equal(folded(rt, items[i]), folded(rt, items[begin]))) ++i;
    Items members(items.begin() + static_cast<std::ptrdiff_t>(begin),
                  items.begin() + static_cast<std::ptrdiff_t>(i));
    groups.push_back(rt.sequence({key(items[begin]), rt.sequence(std::move(members))}, SequenceKind::tuple));
  }
  return rt.sequence(std::move(groups));
}

// Jinja's map and select take whatever is false, none too, for an empty sequence.
std::shared_ptr<const Sequence> items_or_none(Runtime& rt, const Value& v) {
  return rt.iterate(v.truth() ? v : Value::undefined(""));
}

// map(attribute=..., default=...) or map(filter, arguments...).
Value map_filter(Runtime& rt, const Value& v, const Arguments& a) {
  Items out;
  const auto items = items_or_none(rt, v);
  if (a.positional.empty()) {
    const auto given = bind(rt, "map", a, {"attribute", "default"}, 1);
    for (const Value& item : items->items) out.push_back(path(rt, item, *given[0], given[1]));
  } else {
    const std::string name = rt.need_text(a.positional[0], "map");
    const Arguments rest{{a.positional.begin() + 1, a.positional.end()}, a.named};
    for (const Value& item : items->items) out.push_back(rt.filter(name, item, rest));
  }
  return rt.sequence(std::move(out), SequenceKind::iterator);
}

// select(test, arguments...) and selectattr(attribute, test, arguments...); without a test, truth.
template <bool wanted, bool by_attribute>
Value select_filter(Runtime& rt, const Value& v, const Arguments& a) {
  constexpr size_t first = by_attribute ? 1 : 0;
  if (a.positional.size() < first) rt.fail("selectattr: an attribute", "none");
  const bool tested = a.positional.size() > first;
  const std::string name = tested ? rt.need_text(a.positional[first], "select") : "";
  Arguments rest{{}, a.named};
  for (size_t i = first + 1; i < a.positional.size(); ++i) rest.positional.push_back(a.positional[i]);
  Items out;
  const auto items = items_or_none(rt, v);
  for (const Value& item : items->items) {
    const Value subject = by_attribute ? path(rt, item, a.positional[0], nullptr) : item;
    if ((tested ? rt.test(name, subject, rest) : subject.truth()) == wanted) out.push_back(item);
  }
  return rt.sequence(std::move(out), SequenceKind::iterator);
}

Value join_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "join", a, {"d", "attribute"});
  const std::string separator = given[0] ? rt.str(*given[0]) : "";
  const auto items = rt.iterate(v);
  std::string out;
  for (size_t i = 0; i < items->items.size(); ++i) {
    if (i > 0) out += separator;
    const Value& item = items->items[i];
    out += rt.str(given[1] ? path(rt, item, *given[1], nullptr) : item);
    rt.spend(separator.size());
    if (out.size() > Runtime::kMaxText) rt.fail("join: a shorter text", "a long one");
  }
  return rt.text(std::move(out));
}

Value length_filter(Runtime& rt, const Value& v, const Arguments& a) {
  bind(rt, "length", a, {});
  if (v.is_undefined()) return Value::integer(0);
  if (const Text* t = v.text()) {
    rt.spend(t->bytes.size());
    return Value::integer(static_cast<int64_t>(code_points(t->bytes)));
  }
  if (const Dict* d = v.dict()) return Value::integer(static_cast<int64_t>(d->entries.size()));
  const Sequence* s = v.sequence();
  if (!s || s->kind == SequenceKind::iterator) rt.wrong_type("length: something with a length", v);
  return Value::integer(static_cast<int64_t>(s->items.size()));
}

Value first_filter(Runtime& rt, const Value& v, const Arguments& a) {
  bind(rt, "first", a, {});
  const auto items = rt.iterate(v);
  return items->items.empty() ? Value::undefined("the first item of an empty sequence")
                              : items->items.front();
}

Value last_filter(Runtime& rt, const Value& v, const Arguments& a) {
  bind(rt, "last", a, {});
  if (v.sequence() && v.sequence()->kind == SequenceKind::iterator) rt.wrong_type("last: a list", v);
  const auto items = rt.iterate(v);
  return items->items.empty() ? Value::undefined("the last item of an empty sequence") : items->items.back();
}

Value list_filter(Runtime& rt, const Value& v, const Arguments& a) {
  bind(rt, "list", a, {});
  return rt.sequence(rt.iterate(v)->items);
}

Value reverse_filter(Runtime& rt, const Value& v, const Arguments& a) {
  bind(rt, "reverse", a, {});
  const auto source = rt.iterate(v);
  Items items(source->items.rbegin(), source->items.rend());
  if (!v.text()) return rt.sequence(std::move(items), SequenceKind::iterator);
  std::string out;
  for (const Value& item : items) out += item.text()->bytes;
  return rt.text(std::move(out));
}

Value batch_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "batch", a, {"linecount", "fill_with"}, 1);
  const int64_t size = rt.need_integer(*given[0], "batch");
  if (size < 1) rt.fail("batch: a size of at least 1", std::to_string(size));
  const auto items = rt.iterate(v);
  Items out;
  for (size_t i = 0; i < items->items.size(); i += static_cast<size_t>(size)) {
    const size_t end = std::min(items->items.size(), i + static_cast<size_t>(size));
    Items row(items->items.begin() + static_cast<std::ptrdiff_t>(i),
              items->items.begin() + static_cast<std::ptrdiff_t>(end));
    for (; given[1] && !given[1]->is_none() && row.size() < static_cast<size_t>(size); rt.spend(64))
      row.push_back(*given[1]);
    out.push_back(rt.sequence(std::move(row)));
  }
  return rt.sequence(std::move(out), SequenceKind::iterator);
}

Value sum_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "sum", a, {"attribute", "start"});
  Value total = given[1] ? *given[1] : Value::integer(0);
  const auto items = rt.iterate(v);
  for (const Value& item : items->items) {
    const bool by_attribute = given[0] && !given[0]->is_none();
    total = binary(rt, "+", total, by_attribute ? path(rt, item, *given[0], nullptr) : item);
  }
  return total;
}

Value default_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "default", a, {"default_value", "boolean"});
  const bool replaced = v.is_undefined() || (flag(given[1], false) && !v.truth());
  return !replaced ? v : given[0] ? *given[0] : Value::text("");
}

Value tojson_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "tojson", a, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = flag(given[0], false);
  style.sort_keys = flag(given[3], false);
  if (given[1] && !given[1]->is_none()) {
    if (given[1]->text()) {
      style.indent = given[1]->text()->bytes;
    } else {
      const int64_t width = rt.need_integer(*given[1], "tojson");
      style.indent = std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 100)), ' ');
    }
    style.item_separator = ",";
  }
  if (given[2] && !given[2]->is_none()) {
    const auto pair = rt.iterate(*given[2]);
    if (pair->items.size() != 2) rt.fail("tojson: two separators", fmt::format("{}", pair->items.size()));
    style.item_separator = rt.need_text(pair->items[0], "tojson");
    style.key_separator = rt.need_text(pair->items[1], "tojson");
  }
  return rt.text(dump_json(rt, v, style));
}

Value items_filter(Runtime& rt, const Value& v, const Arguments& a) {
  bind(rt, "items", a, {});
  if (!v.dict() && !v.is_undefined()) rt.wrong_type("items: a dict", v);
  Items out;
  if (v.dict())
    for (const auto& [key, value] : v.dict()->entries)
      out.push_back(rt.sequence({rt.text(key), value}, SequenceKind::tuple));
  return rt.sequence(std::move(out), SequenceKind::iterator);
}

Value trim_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "trim", a, {"chars"});
  std::optional<std::string_view> chars;
  if (given[0] && !given[0]->is_none()) chars = rt.need_text(*given[0], "trim");
  const std::string text = rt.str(v);
  rt.spend(text.size() * (1 + (chars ? chars->size() / 8 : 0)));
  return rt.text(std::string(strip(text, Side::both, chars)), is_safe(v));
}

Value replace_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "replace", a, {"old", "new", "count"}, 2);
  const std::string s = rt.str(v), old = rt.str(*given[0]), by = rt.str(*given[1]);
  const size_t places = s.size() / std::max<size_t>(old.size(), 1) + 1;
  if (by.size() > Runtime::kMaxText / places) rt.fail("replace: a shorter text", "a long one");
  rt.spend(s.size() + places * by.size());
  const bool limited = given[2] && !given[2]->is_none();
  return rt.text(replace(s, old, by, limited ? rt.need_integer(*given[2], "replace") : -1));
}

Value indent_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "indent", a, {"width", "first", "blank"});
  std::string indention(4, ' ');
  if (given[0] && given[0]->text()) {
    indention = given[0]->text()->bytes;
  } else if (given[0]) {
    indention.assign(static_cast<size_t>(std::clamp<int64_t>(rt.need_integer(*given[0], "indent"), 0, 1000)),
                     ' ');
  }
  const bool blank = flag(given[2], false);
  std::string out;
  const auto lines = split_lines(rt.str(v) + "\n", false);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i == 0 ? flag(given[1], false) : blank || !lines[i].empty()) out += indention;
    out += lines[i];
    rt.spend(indention.size());
  }
  return rt.text(std::move(out), is_safe(v));
}

// Jinja's own rule for words, not str.title().
Value title_filter(Runtime& rt, const Value& v, const Arguments& a) {
  bind(rt, "title", a, {});
  const std::string text = rt.str(v);
  std::string out, word;
  const auto flush = [&] {
    if (word.empty()) return;
    const size_t first = byte_offset(word, 1);
    const auto head = upper(std::string_view(word).substr(0, first)),
               tail = lower(std::string_view(word).substr(first));
    if (!head || !tail) rt.fail("letters with simple upper and lower case", "'" + printable(word, 60) + "'");
    out += *head + *tail;
    word.clear();
  };
  for (const std::string& c : characters(text)) {
    size_t at = 0;
    const bool between = (c.size() == 1 && std::string_view("-({[<").find(c[0]) != std::string_view::npos) ||
                         is_python_space(next_code_point(c, at));
    if (between) {
      flush();
      out += c;
    } else {
      word += c;
    }
  }
  flush();
  return rt.text(std::move(out));
}

Value truncate_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "truncate", a, {"length", "killwords", "end", "leeway"});
  const std::string s = rt.str(v), end = given[2] ? rt.str(*given[2]) : "...";
  const int64_t length = given[0] ? rt.need_integer(*given[0], "truncate") : 255;
  const int64_t leeway = given[3] && !given[3]->is_none() ? rt.need_integer(*given[3], "truncate") : 5;
  const auto kept = length - static_cast<int64_t>(code_points(end));
  if (kept < 0 || leeway < 0) rt.fail("truncate: a length that the end fits in", "a smaller one");
  if (static_cast<int64_t>(code_points(s)) <= length + leeway) return rt.text(s);
  std::string out = s.substr(0, byte_offset(s, static_cast<size_t>(kept)));
  if (!flag(given[1], false)) out = split(out, " ", 1, true).front();
  return rt.text(out + end);
}

Value wordcount_filter(Runtime& rt, const Value& v, const Arguments& a) {
  bind(rt, "wordcount", a, {});
  const std::string s = rt.str(v);
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < s.size();) {
    const char32_t c = next_code_point(s, at);
    const bool word = is_word(c) || is_number(c);
    words += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::integer(words);
}

std::optional<double> parse_real(std::string_view text) {
  text = strip(text, Side::both);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [stop, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || status != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

Value int_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "int", a, {"default", "base"});
  if (given[1] && rt.need_integer(*given[1], "int") != 10) rt.fail("int: base 10", "another");
  const Value fallback = given[0] ? *given[0] : Value::integer(0);
  if (const auto i = v.as_integer()) return Value::integer(*i);
  std::optional<double> real = v.as_real();
  if (const Text* t = v.text()) {
    std::string_view text = strip(t->bytes, Side::both);
    if (text.starts_with('+')) text.remove_prefix(1);
    int64_t value = 0;
    const auto [stop, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (!text.empty() && status == std::errc() && stop == text.data() + text.size())
      return Value::integer(value);
    if (status == std::errc::result_out_of_range) rt.fail("int: an integer of 64 bits", "a larger one");
    real = parse_real(t->bytes);
  }
  if (!real || !std::isfinite(*real)) return fallback;
  if (std::fabs(*real) >= 9.2e18) rt.fail("int: an integer of 64 bits", "a larger one");
  return Value::integer(static_cast<int64_t>(*real));
}

Value float_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "float", a, {"default"});
  if (const auto d = v.as_real()) return Value::real(*d);
  if (const auto d = v.text() ? parse_real(v.text()->bytes) : std::nullopt) return Value::real(*d);
  return given[0] ? *given[0] : Value::real(0);
}

Value round_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const auto given = bind(rt, "round", a, {"precision", "method"});
  const int64_t precision = given[0] ? rt.need_integer(*given[0], "round") : 0;
  const std::string method = given[1] ? rt.need_text(*given[1], "round") : "common";
  if (!v.as_real()) rt.wrong_type("round: a number", v);
  if (precision < 0 || precision > 50) rt.fail("round: a precision from 0 to 50", std::to_string(precision));
  const double value = *v.as_real();
  if (method == "common") {
    if (v.as_integer()) return Value::integer(*v.as_integer());
    // Decimal digits of the exact value, ties to even: what printing gives.
    return Value::real(std::stod(fmt::format("{:.{}f}", value, static_cast<int>(precision))));
  }
  if (method != "ceil" && method != "floor")
    rt.fail("round: common, ceil or floor", "'" + printable(method) + "'");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return Value::real((method == "ceil" ? std::ceil(value * scale) : std::floor(value * scale)) / scale);
}

Value abs_filter(Runtime& rt, const Value& v, const Arguments& a) {
  bind(rt, "abs", a, {});
  if (!v.is_number()) rt.wrong_type("abs: a number", v);
  const bool negative = *v.as_real() < 0 || (v.is_real() && std::signbit(*v.as_real()));
  return negative ? negate(rt, v) : v.is_bool() ? Value::integer(*v.as_integer()) : v;
}

Value attr_filter(Runtime& rt, const Value& v, const Arguments& a) {
  const std::string& name = rt.need_text(*bind(rt, "attr", a, {"name"}, 1)[0], "attr");
  if (v.dict()) rt.fail("attr: an object", "a dict, of which it reads no items");
  return rt.attribute(v, name);
}

struct Row {
  std::string_view name;
  FilterFunction filter;
};

constexpr auto kFilters = std::to_array<Row>({
    {"abs", abs_filter},
    {"attr", attr_filter},
    {"batch", batch_filter},
    {"capitalize",
     [](Runtime& rt, const Value& v, const Arguments&) {
       const std::string s = rt.str(v);
       return cased(rt, capitalize(s), s, is_safe(v));
     }},
    {"count", length_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dictsort_filter},
    {"e", [](Runtime& rt, const Value& v,
             const Arguments&) { return rt.text(is_safe(v) ? rt.str(v) : escape_html(rt.str(v)), true); }},
    {"escape",
     [](Runtime& rt, const Value& v, const Arguments&) {
       return rt.text(is_safe(v) ? rt.str(v) : escape_html(rt.str(v)), true);
     }},
    {"first", first_filter},
    {"float", float_filter},
    {"format",
     [](Runtime& rt, const Value& v, const Arguments& a) {
       if (!a.named.empty()) rt.fail("format: values in order", "values by name");
       return rt.text(percent_format(rt, rt.str(v), a.positional));
     }},
    {"groupby", groupby_filter},
    {"indent", indent_filter},
    {"int", int_filter},
    {"items", items_filter},
    {"join", join_filter},
    {"last", last_filter},
    {"length", length_filter},
    {"list", list_filter},
    {"lower",
     [](Runtime& rt, const Value& v, const Arguments&) {
       const std::string s = rt.str(v);
       return cased(rt, lower(s), s, is_safe(v));
     }},
    {"map", map_filter},
    {"max", extreme_filter<true>},
    {"min", extreme_filter<false>},
    {"reject", select_filter<false, false>},
    {"rejectattr", select_filter<false, true>},
    {"replace", replace_filter},
    {"reverse", reverse_filter},
    {"round", round_filter},
    {"safe", [](Runtime& rt, const Value& v, const Arguments&) { return rt.text(rt.str(v), true); }},
    {"select", select_filter<true, false>},
    {"selectattr", select_filter<true, true>},
    {"sort", sort_filter},
    {"string", [](Runtime& rt, const Value& v, const Arguments&) { return rt.text(rt.str(v), is_safe(v)); }},
    {"sum", sum_filter},
    {"title", title_filter},
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"truncate", truncate_filter},
    {"unique", unique_filter},
    {"upper",
     [](Runtime& rt, const Value& v, const Arguments&) {
       const std::string s = rt.str(v);
       return cased(rt, upper(s), s, is_safe(v));
     }},
    {"wordcount", wordcount_filter},
});

}  // namespace

FilterFunction find_filter(std::string_view name) {
  const auto* row =
      std::find_if(kFilters.begin(), kFilters.end(), [&](const Row& r) { return r.name == name; });
  return row == kFilters.end() ? nullptr : row->filter;
}

}  // namespace lathe::jinja
