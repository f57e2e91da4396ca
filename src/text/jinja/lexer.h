// Template source cut into tokens, with Jinja's white space control as transformers sets it up: trim_blocks,
// lstrip_blocks, one newline at the end of the source dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lathe::jinja {

enum class TokenKind {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  op,
  end
};

struct Token {
  TokenKind kind;
  std::string text;  // data, names, operators; strings with their escapes read; numbers without '_'
  int line;
};

// The last token is `end`. InputError naming `where` and the line.
std::vector<Token> tokenize(std::string_view source, std::string_view where);

}  // namespace lathe::jinja
