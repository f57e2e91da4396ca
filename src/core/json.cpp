#include "core/json.h"

#include <set>

#include "core/file.h"

namespace lathe {
namespace {

constexpr int max_depth = 256;

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

// What a parser would let pass. Not its callback: with one, every end of an object or list looks through all
// that its parent holds, which takes a minute for a megabyte of "{},".
class Checks final : public Json::json_sax_t {
 public:
  explicit Checks(std::string_view where) : where_(where) {}

  bool start_object(size_t) override {
    keys_.emplace_back();
    return deeper();
  }
  bool start_array(size_t) override { return deeper(); }
  bool key(std::string& key) override {
    if (!keys_.back().insert(key).second)
      throw input_error(where_, "distinct keys", fmt::format("'{}' twice", printable(key)));
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(Json::binary_t&) override { return true; }
  bool parse_error(size_t, const std::string&, const Json::exception& e) override {
    throw input_error(where_, "valid JSON", printable(e.what(), 200));
  }

 private:
  bool deeper() {
    if (++depth_ > max_depth)
      throw input_error(where_, fmt::format("at most {} levels of nesting", max_depth), "more");
    return true;
  }

  std::string_view where_;
  int depth_ = 0;
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  Checks checks(where);
  Json::sax_parse(text, &checks);
  return Json::parse(text);
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
