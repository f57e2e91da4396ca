// Grammars that constrain what a model writes: GBNF, regular expressions, choices, JSON. All become one form
// (grammar/network.h); token_mask.h turns that into the tokens allowed next. JSON schemas: json_schema.h.
//
// Nothing is approximated: a text is accepted or not, and what cannot be read or is not supported is an
// InputError, never a grammar that allows more.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lathe {

namespace grammar {
struct Network;
struct Rules;
}  // namespace grammar

// Immutable and cheap to copy.
class Grammar {
 public:
  // llama.cpp's GBNF (https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md) with the rule
  // `root`; at most 1 MiB. Refused: left recursion, <tokens>.
  static Grammar gbnf(std::string_view source, std::string_view where = "grammar");
  // The whole text matches `pattern`, in the common core of ECMA-262 and Python: no look-around,
  // back-references, \b or \p. \d, \w and \s are ASCII but for \s in ECMA-262. At most 64 KiB.
  static Grammar regex(std::string_view pattern, std::string_view where = "regex");
  // One of these texts.
  static Grammar choice(std::span<const std::string> choices, std::string_view where = "choice");
  // RFC 8259, with at most 64 bytes of white space in a row (a model could write it for ever) and no lone
  // surrogates in escapes.
  static Grammar json();
  static Grammar json_object();
  static Grammar compile(const grammar::Rules&, std::string_view where);

  bool accepts(std::string_view text) const;
  size_t states() const;  // nodes of the network: what its size limit counts

  const std::shared_ptr<const grammar::Network>& network() const { return network_; }

 private:
  explicit Grammar(std::shared_ptr<const grammar::Network> network) : network_(std::move(network)) {}
  std::shared_ptr<const grammar::Network> network_;
};

}  // namespace lathe
