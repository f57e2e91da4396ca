// JSON documents. Keys keep their order, so a config.json passes through unchanged.
// Huge documents (tokenizer.json, safetensors headers) are read with simdjson where they are needed.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"

namespace lathe {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

// Parses untrusted text. `where` names the source in the InputError. Depth is limited to 256, duplicate keys
// are refused, so is invalid UTF-8.
Json parse_json(std::string_view text, std::string_view where);
Json read_json(const fs::path&);

// Typed reads of an untrusted object: `where` names the document, the error names the key, what was expected
// and what was found. Integers are range-checked.
int64_t get_int(const Json& object, std::string_view key, std::string_view where, int64_t lo, int64_t hi);
int64_t get_int_or(const Json& object, std::string_view key, std::string_view where, int64_t lo, int64_t hi,
                   int64_t fallback);
double get_number(const Json& object, std::string_view key, std::string_view where);
double get_number_or(const Json& object, std::string_view key, std::string_view where, double fallback);
bool get_bool_or(const Json& object, std::string_view key, std::string_view where, bool fallback);
std::string get_string(const Json& object, std::string_view key, std::string_view where);
std::string get_string_or(const Json& object, std::string_view key, std::string_view where,
                          std::string_view fallback);

}  // namespace lathe
