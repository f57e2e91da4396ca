#include "server/request_body.h"

#include <algorithm>
#include <vector>

namespace lathe {
namespace {

// Every member has one colon outside of strings, every value but the last of its list or object one comma.
// What is not JSON is counted somehow, and refused by the parser.
void check_counts(std::string_view text) {
  std::vector<int64_t> members;  // of the objects and lists that are open
  int64_t values = 1;
  bool in_string = false, escaped = false;
  for (const char c : text) {
    if (in_string) {
      if (escaped || c == '\\')
        escaped = !escaped;
      else
        in_string = c != '"';
      continue;
    }
    in_string = c == '"';
    if (c == '{' || c == '[') members.push_back(0);
    if ((c == '}' || c == ']') && !members.empty()) members.pop_back();
    if (c == ':' && !members.empty() && ++members.back() > most_members)
      throw input_error("the body", fmt::format("objects of at most {} members", most_members), "more");
    if ((c == ',' || c == '{' || c == '[') && ++values > most_values)
      throw input_error("the body", fmt::format("at most {} values", most_values), "more");
  }
}

}  // namespace

Json parse_body(std::string_view text) {
  check_counts(text);
  return parse_json(text, "the body");
}

}  // namespace lathe
