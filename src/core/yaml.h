// YAML that people write: recipes, the server's settings. Errors name the line.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <yaml-cpp/yaml.h>

#include "core/json.h"

namespace lathe {

std::string at_line(std::string_view where, const YAML::Mark&);  // "file.yaml: line 3"

// InputError when it is not YAML, or too much or too deep of it, aliases written out. `where`: the source.
YAML::Node parse_yaml(std::string_view text, std::string_view where);

// InputError at a key that is not known, or is there twice.
void check_keys(const YAML::Node& map, const std::set<std::string>& known, std::string_view where);

// Plain scalars are numbers and booleans where they look like one; quoted ones stay text. InputError at a key
// that is there twice.
Json to_json(const YAML::Node&, std::string_view where);

}  // namespace lathe
