// What a request says that its text must be, compiled: JSON, a JSON schema, a regular expression, one of some
// texts, a grammar.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "server/fields.h"
#include "text/token_mask.h"
#include "text/tokenizer.h"

namespace lathe {

// What a request of one shape says of its text, into one of another shape.
void copy_structured(const Fields& from, Json& to);

// The grammars of one vocabulary. Applications send the same schema with every request, so the last ones stay
// compiled, with the masks they were used for. Thread-safe.
class Grammars {
 public:
  static constexpr size_t default_source_bytes = 64 << 10;
  explicit Grammars(const Tokenizer&, size_t most_source_bytes = default_source_bytes);

  // Of response_format (OpenAI), structured_outputs, guided_json, _regex, _choice, _grammar (vLLM), grammar
  // and json_schema (llama.cpp). Null when a request has none of these; ApiError when it has several, or one
  // that does not compile: a text is never less constrained than was asked for.
  std::shared_ptr<TokenMasks> find(const Fields&);

  // What `make` makes of `source`, or made of it before; `name` is the field that an error is about. The
  // special tokens among `marks` may stand for their texts (of one server always the same, or none).
  std::shared_ptr<TokenMasks> compile(const std::string& source, const std::string& name,
                                      const std::function<Grammar()>& make,
                                      std::span<const std::string_view> marks = {});
  // Of what find() would compile: equal texts, equal grammars. Empty: nothing.
  static std::string source(const Fields&);

 private:
  struct Entry {
    std::string source;
    std::shared_ptr<TokenMasks> masks;
  };
  std::shared_ptr<const TokenTrie> trie(std::span<const std::string_view> marks);

  Tokenizer tokenizer_;
  size_t most_source_bytes_;
  std::mutex mutex_;
  // Made for the first grammar, in a fraction of a second; the other where special tokens have their texts.
  std::shared_ptr<const TokenTrie> trie_, marked_trie_;
  std::list<Entry> recent_;  // last used first
  size_t states_ = 0;        // of all of them
  std::map<std::string, std::list<Entry>::iterator> known_;
};

}  // namespace lathe
