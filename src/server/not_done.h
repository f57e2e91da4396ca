// Fields that clients of an API know and Lathe does not do: refused by name, never ignored.
#pragma once

#include <cstdint>

#include "server/fields.h"

namespace lathe {

enum class Api : uint8_t {
  chat = 1,
  completions = 2,
  responses = 4,
  messages = 8,
  llama_cpp = 16,
  embeddings = 32
};

// ApiError 501 with the name of such a field, unless its value asks for nothing (a default that clients
// send).
void refuse_not_done(const Fields&, Api);

}  // namespace lathe
