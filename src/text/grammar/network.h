// The one form that every grammar compiles to: a recursive transition network over bytes. Each rule is a
// nondeterministic automaton whose edges take a byte or call a rule (Woods 1970).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/grammar/expr.h"

namespace lathe::grammar {

struct ByteEdge {
  uint8_t first, last;
  int32_t target;
};
struct CallEdge {
  int32_t rule, target;
};

struct Node {
  std::vector<ByteEdge> bytes;
  std::vector<CallEdge> calls;
  std::vector<int32_t> empty;  // edges that take nothing
  bool ends = false;           // the rule's end is reached from here without a byte
  bool continues = false;      // so is an edge that takes one
};

// Immutable. Every node leads to the end of its rule, and every rule matches some text: whatever has not
// failed can be completed.
struct Network {
  struct Rule {
    int32_t begin = 0, end = 0;
    bool nullable = false;
  };
  std::vector<Node> nodes;
  std::vector<Rule> rules;
  int32_t root = 0;
  // Bytes that no edge tells apart are one class.
  std::array<uint8_t, 256> byte_class{};
  std::vector<uint8_t> class_byte;  // one byte of each
};

// InputError naming `where` for a grammar that is too large, left-recursive, or matches no text at all.
Network compile(const Rules&, std::string_view where);

}  // namespace lathe::grammar
