// What a client may know of an exception.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/log.h"

namespace lathe {

inline constexpr const char* internal_error = "internal error";

// Its words, and that it is the request's fault, where it is an InputError; of any other, which is logged,
// nothing.
inline std::pair<std::string, bool> told(const std::exception& e) {
  if (dynamic_cast<const InputError*>(&e)) return {e.what(), true};
  warn("engine: a request failed: {}", printable(e.what()));
  return {internal_error, false};
}

}  // namespace lathe
