// Bad input must be refused with one line that says where, what was expected and what was found: no crash, no
// other exception, no allocation by a claimed size.
#pragma once

#include <cstring>
#include <gmock/gmock.h>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "support.h"

namespace lathe {

// The largest single allocation since the last call (allocation.cpp counts them).
size_t largest_allocation();

// The message of the InputError that `act` throws.
template <class Act>
std::string refusal(Act act) {
  largest_allocation();
  try {
    act();
  } catch (const InputError& e) {
    EXPECT_LT(largest_allocation(), 8u << 20);
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
    return e.what();
  } catch (const std::exception& e) {
    return std::string("not an InputError: ") + e.what();
  }
  return "accepted";
}

inline void expect_fragments(const std::string& message, const std::vector<std::string>& fragments) {
  for (const std::string& f : fragments) EXPECT_THAT(message, testing::HasSubstr(f));
}

template <class T>
std::string le(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// A safetensors file around a header.
inline std::string safetensors(const std::string& header, size_t data_bytes = 0) {
  return le<uint64_t>(header.size()) + header + std::string(data_bytes, '\x11');
}

inline std::span<const std::byte> bytes_of(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

}  // namespace lathe
