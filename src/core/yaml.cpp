#include "core/yaml.h"

#include "core/error.h"

namespace lathe {
namespace {

Json scalar(const YAML::Node& node) {
  if (node.Tag() == "!") return node.Scalar();
  int64_t integer = 0;
  double number = 0;
  bool boolean = false;
  if (YAML::convert<int64_t>::decode(node, integer)) return integer;
  if (YAML::convert<double>::decode(node, number)) return number;
  if (YAML::convert<bool>::decode(node, boolean)) return boolean;
  return node.Scalar();
}

// An alias is the node that it names, so a few lines can hold billions of values, or one that holds itself.
constexpr int most_depth = 64, most_values = 1 << 20;

void count(const YAML::Node& node, std::string_view where, int depth, int& values) {
  if (depth > most_depth)
    throw input_error(at_line(where, node.Mark()), fmt::format("at most {} levels", most_depth), "more");
  if (++values > most_values)
    throw input_error(at_line(where, node.Mark()), fmt::format("at most {} values", most_values),
                      "more, each alias counted as what it names");
  if (node.IsSequence())
    for (const YAML::Node& item : node) count(item, where, depth + 1, values);
  if (node.IsMap())
    for (const auto& item : node) {
      count(item.first, where, depth + 1, values);
      count(item.second, where, depth + 1, values);
    }
}

}  // namespace

std::string at_line(std::string_view where, const YAML::Mark& mark) {
  return fmt::format("{}: line {}", where, mark.line + 1);
}

YAML::Node parse_yaml(std::string_view text, std::string_view where) {
  try {
    YAML::Node root = YAML::Load(std::string(text));
    int values = 0;
    count(root, where, 0, values);
    return root;
  } catch (const YAML::Exception& e) {
    throw input_error(at_line(where, e.mark), "valid YAML", printable(e.msg));
  }
}

void check_keys(const YAML::Node& map, const std::set<std::string>& known, std::string_view where) {
  std::set<std::string> seen;
  for (const auto& item : map) {
    const std::string& key = item.first.Scalar();
    if (!known.contains(key))
      throw input_error(at_line(where, item.first.Mark()), fmt::format("one of {}", fmt::join(known, ", ")),
                        fmt::format("key '{}'", printable(key)));
    if (!seen.insert(key).second)
      throw input_error(at_line(where, item.first.Mark()), "distinct keys",
                        fmt::format("'{}' twice", printable(key)));
  }
}

Json to_json(const YAML::Node& node, std::string_view where) {
  switch (node.Type()) {
    case YAML::NodeType::Scalar:
      return scalar(node);
    case YAML::NodeType::Sequence: {
      Json list = Json::array();
      for (const YAML::Node& item : node) list.push_back(to_json(item, where));
      return list;
    }
    case YAML::NodeType::Map: {
      Json object = Json::object();
      for (const auto& item : node) {
        const std::string key = item.first.Scalar();
        if (object.contains(key))
          throw input_error(at_line(where, item.first.Mark()), "distinct keys",
                            fmt::format("'{}' twice", printable(key)));
        object[key] = to_json(item.second, where);
      }
      return object;
    }
    default:
      return nullptr;
  }
}

}  // namespace lathe
