// The fields of a request's JSON, each with its type and range checked where it is read: an ApiError names
// the field, what it may be and what it is. An absent field and null mean the default.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace lathe {

class Fields {
 public:
  // `body` must outlive it; ApiError unless it is an object. `where`: its own name, where it is not the
  // whole.
  explicit Fields(const Json& body, std::string where = {});

  bool has(std::string_view name) const { return find(name) != nullptr; }
  const Json* find(std::string_view name) const;  // null: absent, or null
  const Json& at(std::string_view name) const;    // ApiError when absent

  std::optional<int64_t> integer(std::string_view name, int64_t least, int64_t most) const;
  std::optional<double> number(std::string_view name, double least, double most) const;
  bool boolean(std::string_view name, bool otherwise) const;
  std::optional<std::string> text(std::string_view name) const;
  // One string, or a list of at most `most`.
  std::vector<std::string> texts(std::string_view name, size_t most) const;
  std::vector<int32_t> tokens(std::string_view name, size_t most) const;

 private:
  std::string full(std::string_view name) const;  // as errors name it: "stream_options.include_usage"

  const Json& body_;
  const std::string where_;
};

}  // namespace lathe
