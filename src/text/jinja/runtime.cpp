#include "text/jinja/runtime.h"

#include <algorithm>
#include <array>

#include "text/jinja/library.h"
#include "text/jinja/python_text.h"

namespace lathe::jinja {

Value Runtime::text(std::string bytes, bool safe) {
  if (bytes.size() > kMaxText)
    fail(fmt::format("a text of at most {} bytes", kMaxText), fmt::format("{}", bytes.size()));
  spend(bytes.size());
  return Value::text(std::move(bytes), safe);
}

Value Runtime::sequence(std::vector<Value> items, SequenceKind kind) {
  spend(64 * items.size());
  auto out = std::make_shared<Sequence>();
  for (const Value& item : items) {
    out->depth = std::max(out->depth, item.depth() + 1);
    out->weight = std::min(kMaxWeight, out->weight + item.weight());
  }
  if (out->depth > kMaxNesting) fail(fmt::format("at most {} levels of nesting", kMaxNesting), "more");
  out->items = std::move(items);
  out->kind = kind;
  return Value(Value::Data(std::shared_ptr<const Sequence>(std::move(out))));
}

Value Runtime::dict(Dict d) {
  spend(128 * d.entries.size());
  if (d.depth > kMaxNesting) fail(fmt::format("at most {} levels of nesting", kMaxNesting), "more");
  return Value(Value::Data(std::make_shared<const Dict>(std::move(d))));
}

Value Runtime::texts(std::vector<std::string> items) {
  std::vector<Value> out;
  out.reserve(items.size());
  for (std::string& item : items) out.push_back(text(std::move(item)));
  return sequence(std::move(out));
}

bool Runtime::equal(const Value& a, const Value& b) {
  spend(16 * static_cast<size_t>(std::min(a.weight(), b.weight())));
  return jinja::equal(a, b);
}

std::shared_ptr<const Sequence> Runtime::iterate(const Value& value) {
  static const auto nothing = std::make_shared<const Sequence>();
  if (value.is_undefined()) return nothing;
  if (const auto* s = std::get_if<std::shared_ptr<const Sequence>>(&value.data())) {
    spend((*s)->items.size());
    if ((*s)->kind != SequenceKind::iterator) return *s;
    return std::exchange((*s)->consumed, true) ? nothing : *s;
  }
  std::vector<Value> items;
  if (const Text* t = value.text()) {
    for (std::string& c : characters(t->bytes)) items.push_back(text(std::move(c)));
  } else if (const Dict* d = value.dict()) {
    for (const auto& [key, ignored] : d->entries) items.push_back(text(key));
  } else {
    wrong_type("something to iterate over", value);
  }
  return std::get<std::shared_ptr<const Sequence>>(sequence(std::move(items)).data());
}

void Runtime::append_repr(std::string& out, const Value& value) {
  spend(16);
  if (out.size() > kMaxText) fail(fmt::format("a text of at most {} bytes", kMaxText), "more");
  if (const Text* t = value.text()) {
    if (t->safe) fail("a string to print", "a safe string in a container");
    out += jinja::repr(t->bytes);
  } else if (value.is_undefined()) {
    out += "Undefined";
  } else if (const Sequence* s = value.sequence()) {
    if (s->kind != SequenceKind::list && s->kind != SequenceKind::tuple)
      fail("a value to print", "a " + value.type_name(), "make it a list first");
    const bool list = s->kind == SequenceKind::list;
    out += list ? '[' : '(';
    for (size_t i = 0; i < s->items.size(); ++i) {
      if (i > 0) out += ", ";
      append_repr(out, s->items[i]);
    }
    if (!list && s->items.size() == 1) out += ',';
    out += list ? ']' : ')';
  } else if (const Dict* d = value.dict()) {
    out += '{';
    for (size_t i = 0; i < d->entries.size(); ++i) {
      if (i > 0) out += ", ";
      out += jinja::repr(d->entries[i].first);
      out += ": ";
      append_repr(out, d->entries[i].second);
    }
    out += '}';
  } else if (value.is_none()) {
    out += "None";
  } else if (value.is_bool()) {
    out += value.truth() ? "True" : "False";
  } else if (const auto i = value.as_integer()) {
    out += std::to_string(*i);
  } else if (const auto real = value.as_real()) {
    out += jinja::repr(*real);
  } else {
    fail("a value to print", "a " + value.type_name());
  }
}

std::string Runtime::repr(const Value& value) {
  std::string out;
  append_repr(out, value);
  spend(out.size());
  return out;
}

std::string Runtime::str(const Value& value) {
  if (const Text* t = value.text()) {
    spend(t->bytes.size());
    return t->bytes;
  }
  return value.is_undefined() ? "" : repr(value);
}

const std::string& Runtime::need_text(const Value& value, std::string_view what) const {
  const Text* t = value.text();
  if (t == nullptr) wrong_type(fmt::format("{}: a string", what), value);
  return t->bytes;
}

int64_t Runtime::need_integer(const Value& value, std::string_view what) const {
  const auto i = value.as_integer();
  if (!i) wrong_type(fmt::format("{}: an integer", what), value);
  return *i;
}

// Python's getattr first, then the item of that name, as Jinja does for "x.name".
Value Runtime::attribute(const Value& object, const std::string& name) {
  spend(0);
  if (object.is_undefined()) wrong_type("a value with attribute '" + name + "'", object);
  if (name.starts_with("__")) return Value::undefined("'" + printable(name, 40) + "' unsafe");
  if (const Namespace* n = object.name_space()) {
    auto it = n->attributes.find(name);
    if (it != n->attributes.end()) return it->second;
  } else if (object.loop()) {
    return loop_attribute(object, name);
  } else if (const auto found = method(*this, object, name)) {
    return *found;
  }
  if (const Dict* d = object.dict())
    if (const Value* value = d->find(name)) return *value;
  return Value::undefined(fmt::format("'{}' without attribute '{}'", object.type_name(), name));
}

// The item first, then the attribute, for "x[key]".
Value Runtime::item(const Value& object, const Value& key) {
  spend(0);
  if (object.is_undefined()) wrong_type("a value with items", object);
  if (const auto index = key.as_integer()) {
    const Sequence* s = object.sequence();
    const Text* t = object.text();
    const bool indexed = s && s->kind != SequenceKind::view && s->kind != SequenceKind::iterator;
    if (indexed || t) {
      const auto size = static_cast<int64_t>(indexed ? s->items.size() : code_points(t->bytes));
      if (t) spend(t->bytes.size());
      const int64_t at = *index < 0 ? *index + size : *index;
      if (at < 0 || at >= size)
        return Value::undefined(fmt::format("'{}' without item {}", object.type_name(), *index));
      if (indexed) return s->items[static_cast<size_t>(at)];
      const size_t begin = byte_offset(t->bytes, static_cast<size_t>(at));
      return text(t->bytes.substr(begin, byte_offset(std::string_view(t->bytes).substr(begin), 1)), t->safe);
    }
  }
  if (const Text* name = key.text()) {
    if (const Dict* d = object.dict())
      if (const Value* value = d->find(name->bytes)) return *value;
    return attribute(object, name->bytes);
  }
  return Value::undefined(fmt::format("'{}' without that item", object.type_name()));
}

std::vector<const Value*> bind(const Runtime& rt, std::string_view what, const Arguments& arguments,
                               std::initializer_list<std::string_view> names, size_t required) {
  std::vector<const Value*> out(names.size(), nullptr);
  if (arguments.positional.size() > names.size())
    rt.fail(fmt::format("{}: at most {} arguments", what, names.size()),
            fmt::format("{}", arguments.positional.size()));
  for (size_t i = 0; i < arguments.positional.size(); ++i) out[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto* at = std::find(names.begin(), names.end(), name);
    if (at == names.end())
      rt.fail(fmt::format("{}: an argument that it has", what), "'" + printable(name, 40) + "'");
    const Value*& slot = out[static_cast<size_t>(at - names.begin())];
    if (slot) rt.fail(fmt::format("{}: every argument once", what), "'" + name + "' twice");
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!out[i]) rt.fail(fmt::format("{}: argument '{}'", what, names.begin()[i]), "none");
  return out;
}

}  // namespace lathe::jinja
