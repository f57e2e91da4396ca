#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>

namespace lathe::jinja {

const Value* Dict::find(std::string_view key) const {
  if (index_.empty()) {
    for (const auto& [name, value] : entries)
      if (name == key) return &value;
    return nullptr;
  }
  auto it = index_.find(key);
  return it == index_.end() ? nullptr : &entries[it->second].second;
}

void Dict::set(std::string key, Value value) {
  depth = std::max(depth, value.depth() + 1);
  weight = std::min(kMaxWeight, weight + value.weight() + static_cast<int64_t>(key.size() / 16) + 1);
  if (const Value* old = find(key)) {
    *const_cast<Value*>(old) = std::move(value);
    return;
  }
  entries.emplace_back(std::move(key), std::move(value));
  constexpr size_t kScanned = 8;
  if (entries.size() > kScanned) {
    for (size_t i = index_.size(); i < entries.size(); ++i) index_.emplace(entries[i].first, i);
  }
}

std::optional<int64_t> Value::as_integer() const {
  if (const auto* b = std::get_if<bool>(&data_)) return *b;
  if (const auto* i = std::get_if<int64_t>(&data_)) return *i;
  return std::nullopt;
}

std::optional<double> Value::as_real() const {
  if (const auto* d = std::get_if<double>(&data_)) return *d;
  if (const auto i = as_integer()) return static_cast<double>(*i);
  return std::nullopt;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (const auto d = as_real()) return *d != 0;
  if (const Text* t = text()) return !t->bytes.empty();
  if (const Sequence* s = sequence()) return s->kind == SequenceKind::iterator || !s->items.empty();
  if (const Dict* d = dict()) return !d->entries.empty();
  return true;
}

int Value::depth() const {
  if (const Sequence* s = sequence()) return s->depth;
  if (const Dict* d = dict()) return d->depth;
  return 0;
}

int64_t Value::weight() const {
  if (const Text* t = text()) return 1 + static_cast<int64_t>(t->bytes.size() / 16);
  if (const Sequence* s = sequence()) return s->weight;
  if (const Dict* d = dict()) return d->weight;
  return 1;
}

std::string Value::type_name() const {
  struct Name {
    std::string operator()(const Undefined&) const { return "Undefined"; }
    std::string operator()(const None&) const { return "NoneType"; }
    std::string operator()(bool) const { return "bool"; }
    std::string operator()(int64_t) const { return "int"; }
    std::string operator()(double) const { return "float"; }
    std::string operator()(const std::shared_ptr<const Text>&) const { return "str"; }
    std::string operator()(const std::shared_ptr<const Sequence>& s) const {
      switch (s->kind) {
        case SequenceKind::list:
          return "list";
        case SequenceKind::tuple:
          return "tuple";
        case SequenceKind::range:
          return "range";
        case SequenceKind::view:
          return "dict view";
        case SequenceKind::iterator:
          return "iterator";
      }
      return "list";
    }
    std::string operator()(const std::shared_ptr<const Dict>&) const { return "dict"; }
    std::string operator()(const std::shared_ptr<Namespace>&) const { return "Namespace"; }
    std::string operator()(const std::shared_ptr<const Function>&) const { return "function"; }
    std::string operator()(const std::shared_ptr<LoopState>&) const { return "LoopContext"; }
  };
  return std::visit(Name(), data_);
}

bool equal(const Value& a, const Value& b) {
  if (const auto x = a.as_integer(), y = b.as_integer(); x && y) return *x == *y;
  if (const auto x = a.as_real(), y = b.as_real(); x && y) return *x == *y;
  if (a.text() && b.text()) return a.text()->bytes == b.text()->bytes;
  if (const Sequence* x = a.sequence(), *y = b.sequence(); x && y && x->kind == y->kind) {
    const bool by_identity = x->kind == SequenceKind::view || x->kind == SequenceKind::iterator;
    if (by_identity) return x == y;
    return std::equal(x->items.begin(), x->items.end(), y->items.begin(), y->items.end(), equal);
  }
  if (const Dict* x = a.dict(), *y = b.dict(); x && y) {
    if (x->entries.size() != y->entries.size()) return false;
    return std::all_of(x->entries.begin(), x->entries.end(), [&](const auto& entry) {
      const Value* other = y->find(entry.first);
      return other != nullptr && equal(entry.second, *other);
    });
  }
  if (a.name_space() || b.name_space()) return a.name_space() == b.name_space();
  if (a.function() || b.function()) return a.function() == b.function();
  if (a.loop() || b.loop()) return a.loop() == b.loop();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

std::optional<bool> less(const Value& a, const Value& b) {
  if (const auto x = a.as_integer(), y = b.as_integer(); x && y) return *x < *y;
  if (const auto x = a.as_real(), y = b.as_real(); x && y) return *x < *y;
  // Code points in UTF-8 sort as their bytes do.
  if (a.text() && b.text()) return a.text()->bytes < b.text()->bytes;
  const Sequence *x = a.sequence(), *y = b.sequence();
  const bool ordered =
      x && y && x->kind == y->kind && (x->kind == SequenceKind::list || x->kind == SequenceKind::tuple);
  if (!ordered) return std::nullopt;
  for (size_t i = 0; i < std::min(x->items.size(), y->items.size()); ++i)
    if (!equal(x->items[i], y->items[i])) return less(x->items[i], y->items[i]);
  return x->items.size() < y->items.size();
}

}  // namespace lathe::jinja
