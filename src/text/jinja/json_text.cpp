#include <algorithm>
#include <cmath>

#include "text/jinja/library.h"
#include "text/jinja/python_text.h"

namespace lathe::jinja {

namespace {

class Dumper {
 public:
  Dumper(Runtime& rt, const JsonStyle& style) : rt_(rt), style_(style) {}

  void dump(const Value& value) {
    rt_.spend(16);
    if (out.size() > Runtime::kMaxText) rt_.fail("tojson: a shorter text", "a long one");
    if (const Text* t = value.text()) {
      rt_.spend(t->bytes.size());
      append_json_string(out, t->bytes, style_.ensure_ascii);
    } else if (value.is_none()) {
      out += "null";
    } else if (value.is_bool()) {
      out += value.truth() ? "true" : "false";
    } else if (const auto i = value.as_integer()) {
      out += std::to_string(*i);
    } else if (const auto d = value.as_real()) {
      out += std::isnan(*d) ? "NaN" : std::isinf(*d) ? (*d < 0 ? "-Infinity" : "Infinity") : repr(*d);
    } else if (const Dict* o = value.dict()) {
      dump_dict(*o);
    } else if (const Sequence* s = value.sequence();
               s && (s->kind == SequenceKind::list || s->kind == SequenceKind::tuple)) {
      dump_items('[', s->items, ']', [&](const Value& item) { dump(item); });
    } else {
      rt_.wrong_type("tojson: a value that JSON has", value);
    }
  }

  std::string out;

 private:
  void dump_dict(const Dict& d) {
    std::vector<const std::pair<std::string, Value>*> entries;
    for (const auto& entry : d.entries) entries.push_back(&entry);
    if (style_.sort_keys)
      std::sort(entries.begin(), entries.end(),
                [](const auto* a, const auto* b) { return a->first < b->first; });
    dump_items('{', entries, '}', [&](const auto* entry) {
      append_json_string(out, entry->first, style_.ensure_ascii);
      out += style_.key_separator;
      dump(entry->second);
    });
  }

  template <class Items, class Function>
  void dump_items(char open, const Items& items, char close, Function dump_item) {
    out += open;
    ++level_;
    bool first = true;
    for (const auto& item : items) {
      if (!first) out += style_.item_separator;
      first = false;
      new_line();
      dump_item(item);
    }
    --level_;
    if (!items.empty()) new_line();
    out += close;
  }

  void new_line() {
    if (!style_.indent) return;
    out += '\n';
    for (int i = 0; i < level_; ++i) out += *style_.indent;
  }

  Runtime& rt_;
  const JsonStyle& style_;
  int level_ = 0;
};

}  // namespace

std::string dump_json(Runtime& rt, const Value& value, const JsonStyle& style) {
  Dumper dumper(rt, style);
  dumper.dump(value);
  return std::move(dumper.out);
}

Value from_json(Runtime& rt, const Json& json) {
  switch (json.type()) {
    case Json::value_t::null:
      return Value();
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        rt.fail("integers of 64 bits", json.dump());
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::real(json.get<double>());
    case Json::value_t::string:
      return rt.text(json.get_ref<const std::string&>());
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(from_json(rt, item));
      return rt.sequence(std::move(items));
    }
    case Json::value_t::object: {
      Dict out;
      for (const auto& [key, value] : json.items()) out.set(key, from_json(rt, value));
      return rt.dict(std::move(out));
    }
    default:
      break;
  }
  rt.fail("JSON", "a value that is not");
}

}  // namespace lathe::jinja
