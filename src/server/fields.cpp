#include "server/fields.h"

#include <cmath>

#include "server/api_error.h"

namespace lathe {
namespace {

[[noreturn]] void wrong(const std::string& name, std::string_view expected, const Json& found) {
  const std::string text = found.dump(-1, ' ', false, Json::error_handler_t::replace);
  throw ApiError::bad_request(fmt::format("{}: expected {}, found {}", name, expected, printable(text, 60)),
                              name);
}

// A whole number as JSON may write it: 3, or 3.0.
std::optional<int64_t> whole(const Json& j) {
  if (j.is_number_unsigned()) {
    const auto value = j.get<uint64_t>();
    return value <= INT64_MAX ? std::optional(static_cast<int64_t>(value)) : std::nullopt;
  }
  if (j.is_number_integer()) return j.get<int64_t>();
  if (j.is_number_float()) {
    const auto value = j.get<double>();
    if (value == std::floor(value) && std::fabs(value) < 9e15) return static_cast<int64_t>(value);
  }
  return {};
}

}  // namespace

Fields::Fields(const Json& body, std::string where) : body_(body), where_(std::move(where)) {
  if (!body.is_object())
    throw ApiError::bad_request(
        fmt::format("{}: expected a JSON object, found another value", where_.empty() ? "the body" : where_),
        where_);
}

std::string Fields::full(std::string_view name) const {
  return where_.empty() ? std::string(name) : fmt::format("{}.{}", where_, name);
}

const Json* Fields::find(std::string_view name) const {
  const auto it = body_.find(name);
  return it == body_.end() || it->is_null() ? nullptr : &*it;
}

const Json& Fields::at(std::string_view name) const {
  if (const Json* field = find(name)) return *field;
  throw ApiError::bad_request(fmt::format("{}: expected a value, found none", full(name)), full(name));
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t least, int64_t most) const {
  const Json* field = find(name);
  if (!field) return {};
  const std::optional<int64_t> value = whole(*field);
  if (!value || *value < least || *value > most)
    wrong(full(name),
          most == INT64_MAX ? fmt::format("a whole number of at least {}", least)
                            : fmt::format("a whole number of {} to {}", least, most),
          *field);
  return value;
}

std::optional<double> Fields::number(std::string_view name, double least, double most) const {
  const Json* field = find(name);
  if (!field) return {};
  if (!field->is_number() || !(field->get<double>() >= least && field->get<double>() <= most))
    wrong(full(name), fmt::format("a number of {} to {}", least, most), *field);
  return field->get<double>();
}

bool Fields::boolean(std::string_view name, bool otherwise) const {
  const Json* field = find(name);
  if (!field) return otherwise;
  if (!field->is_boolean()) wrong(full(name), "true or false", *field);
  return field->get<bool>();
}

std::optional<std::string> Fields::text(std::string_view name) const {
  const Json* field = find(name);
  if (!field) return {};
  if (!field->is_string()) wrong(full(name), "a string", *field);
  return field->get<std::string>();
}

std::vector<std::string> Fields::texts(std::string_view name, size_t most) const {
  const Json* field = find(name);
  if (!field) return {};
  if (field->is_string()) return {field->get<std::string>()};
  if (!field->is_array() || field->size() > most)
    wrong(full(name), fmt::format("a string or a list of at most {}", most), *field);
  std::vector<std::string> all;
  for (const Json& one : *field) {
    if (!one.is_string()) wrong(full(name), "strings", one);
    all.push_back(one.get<std::string>());
  }
  return all;
}

std::vector<int32_t> Fields::tokens(std::string_view name, size_t most) const {
  const Json* field = find(name);
  if (!field) return {};
  if (!field->is_array() || field->size() > most)
    wrong(full(name), fmt::format("a list of at most {} tokens", most), *field);
  std::vector<int32_t> all;
  all.reserve(field->size());
  for (const Json& one : *field) {
    const std::optional<int64_t> value = whole(one);
    if (!value || *value < 0 || *value > INT32_MAX) wrong(full(name), "token numbers", one);
    all.push_back(static_cast<int32_t>(*value));
  }
  return all;
}

}  // namespace lathe
