#include "cli/config_file.h"

#include <CLI/CLI.hpp>
#include <map>

#include "core/file.h"
#include "core/yaml.h"

namespace lathe {
namespace {

std::map<std::string, CLI::Option*> options_of(CLI::App& verb) {
  std::map<std::string, CLI::Option*> all;
  for (CLI::Option* option : verb.get_options())
    for (const std::string& name : option->get_positional()
                                       ? std::vector{CLI::detail::to_lower(option->get_name(true))}
                                       : option->get_lnames())
      if (name != "help" && name != "config") all[name] = option;
  return all;
}

// A scalar, or those of a list, or of a list of lists: one after the other, as on a command line.
void add_values(const YAML::Node& node, std::vector<std::string>& to, const std::string& where) {
  if (node.IsScalar()) {
    to.push_back(node.Scalar());
  } else if (node.IsSequence()) {
    for (const YAML::Node& item : node) add_values(item, to, where);
  } else {
    throw input_error(where, "a value, or a list of values", "something else");
  }
}

void set(CLI::Option& option, const std::string& name, const YAML::Node& value, const std::string& where) {
  if (option.get_expected_min() == 0) {  // a flag
    bool given = false;
    if (!YAML::convert<bool>::decode(value, given))
      throw input_error(where, fmt::format("true or false as '{}'", name), "another value");
    if (!given) return;
    option.add_result(option.get_flag_value(name, "true"));
  } else {
    std::vector<std::string> values;
    add_values(value, values, where);
    option.add_result(std::move(values));
  }
  option.run_callback();
}

}  // namespace

void apply_config(CLI::App& verb, const std::string& path) {
  const YAML::Node root = parse_yaml(Mapping(path).text(), path);
  if (!root.IsMap()) throw input_error(path, "a mapping of flags' names to values", "something else");
  const std::map<std::string, CLI::Option*> options = options_of(verb);
  std::set<std::string> names;
  for (const auto& [name, option] : options) names.insert(name);
  check_keys(root, names, path);
  for (const auto& item : root) {
    const std::string name = item.first.Scalar();
    CLI::Option& option = *options.at(name);
    if (option.count() > 0) continue;
    const std::string where = at_line(path, item.first.Mark());
    try {
      set(option, name, item.second, where);
    } catch (const CLI::ParseError& e) {
      fail_input("{}: {}", where, printable(e.what(), 400));
    }
  }
}

}  // namespace lathe
