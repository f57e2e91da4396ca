#include "core/json.h"

#include <set>

#include "core/file.h"

namespace lathe {
namespace {

constexpr size_t max_depth = 256;

// The entry for `key`, nullptr when it is absent or null (Hugging Face writes null for "default").
const Json* lookup(const Json& object, std::string_view key, std::string_view where) {
  if (!object.is_object()) throw input_error(where, "an object", object.type_name());
  auto it = object.find(std::string(key));
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

const Json& require(const Json& object, std::string_view key, std::string_view where) {
  if (const Json* value = lookup(object, key, where)) return *value;
  throw input_error(where, fmt::format("key '{}'", key), "none");
}

InputError wrong(std::string_view where, std::string_view key, std::string_view expected, const Json& value) {
  return input_error(fmt::format("{}: key '{}'", where, key), expected, printable(value.dump(), 60));
}

int64_t as_int(const Json& value, std::string_view key, std::string_view where, int64_t lo, int64_t hi) {
  const std::string expected = fmt::format("an integer from {} to {}", lo, hi);
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    throw wrong(where, key, expected, value);
  if (!value.is_number_integer()) throw wrong(where, key, expected, value);
  const int64_t n = value.get<int64_t>();
  if (n < lo || n > hi) throw wrong(where, key, expected, value);
  return n;
}

// Makes the document, and refuses what a parser would let pass. The library's own handler looks through all
// members of an object for each that it adds: 50 s for a vocabulary of 150,000. Keys that are known to be
// distinct can be appended. Nor does a callback do it: with one, every end of an object or list looks through
// all that its parent holds.
class Builder final : public Json::json_sax_t {
 public:
  explicit Builder(std::string_view where) : where_(where) {}
  Json take() { return std::move(root_); }

  bool start_object(size_t) override {
    keys_.emplace_back();
    return deeper(Json::object());
  }
  bool start_array(size_t) override { return deeper(Json::array()); }
  bool key(std::string& key) override {
    if (!keys_.back().insert(key).second)
      throw input_error(where_, "distinct keys", fmt::format("'{}' twice", printable(key)));
    open_.back()->get_ref<Json::object_t&>().emplace_back(std::move(key), nullptr);
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    open_.pop_back();
    return true;
  }
  bool end_array() override {
    open_.pop_back();
    return true;
  }
  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(int64_t value) override { return put(value); }
  bool number_unsigned(uint64_t value) override { return put(value); }
  bool number_float(double value, const std::string&) override { return put(value); }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(Json::binary_t&) override { return true; }  // JSON has none
  bool parse_error(size_t, const std::string&, const Json::exception& e) override {
    throw input_error(where_, "valid JSON", printable(e.what(), 200));
  }

 private:
  bool deeper(Json empty) {
    if (open_.size() == max_depth)
      throw input_error(where_, fmt::format("at most {} levels of nesting", max_depth), "more");
    put(std::move(empty));
    open_.push_back(last_);
    return true;
  }
  bool put(Json value) {
    if (open_.empty()) {
      last_ = &root_;
    } else if (open_.back()->is_array()) {
      open_.back()->push_back(nullptr);
      last_ = &open_.back()->back();
    } else {
      last_ = &open_.back()->get_ref<Json::object_t&>().back().second;
    }
    *last_ = std::move(value);
    return true;
  }

  std::string_view where_;
  Json root_;
  std::vector<Json*> open_;  // each within the one before, which does not grow meanwhile
  Json* last_ = nullptr;
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  Builder builder(where);
  Json::sax_parse(text, &builder);
  return builder.take();
}

Json read_json(const fs::path& path) {
  const Mapping file(path);
  return parse_json(file.text(), path.string());
}

int64_t get_int(const Json& o, std::string_view key, std::string_view where, int64_t lo, int64_t hi) {
  return as_int(require(o, key, where), key, where, lo, hi);
}

int64_t get_int_or(const Json& o, std::string_view key, std::string_view where, int64_t lo, int64_t hi,
                   int64_t fallback) {
  const Json* value = lookup(o, key, where);
  return value ? as_int(*value, key, where, lo, hi) : fallback;
}

double get_number(const Json& o, std::string_view key, std::string_view where) {
  const Json& value = require(o, key, where);
  if (!value.is_number()) throw wrong(where, key, "a number", value);
  return value.get<double>();
}

double get_number_or(const Json& o, std::string_view key, std::string_view where, double fallback) {
  return lookup(o, key, where) ? get_number(o, key, where) : fallback;
}

bool get_bool_or(const Json& o, std::string_view key, std::string_view where, bool fallback) {
  const Json* value = lookup(o, key, where);
  if (!value) return fallback;
  if (!value->is_boolean()) throw wrong(where, key, "true or false", *value);
  return value->get<bool>();
}

std::string get_string(const Json& o, std::string_view key, std::string_view where) {
  const Json& value = require(o, key, where);
  if (!value.is_string()) throw wrong(where, key, "a string", value);
  return value.get<std::string>();
}

std::string get_string_or(const Json& o, std::string_view key, std::string_view where,
                          std::string_view fallback) {
  return lookup(o, key, where) ? get_string(o, key, where) : std::string(fallback);
}

}  // namespace lathe
