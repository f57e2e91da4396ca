#include "text/grammar/network.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "text/utf8.h"

namespace lathe::grammar {

namespace {

constexpr size_t kMaxNodes = 400'000, kMaxEdges = 2'000'000;

// Byte ranges of the UTF-8 of a range of code points: [first, last] is cut where the number of bytes or a
// continuation's range changes (the construction of RE2 and of Rust's utf8-ranges).
void utf8_ranges(char32_t first, char32_t last, std::vector<std::vector<std::pair<uint8_t, uint8_t>>>& out) {
  for (const char32_t limit : {0x7F, 0x7FF, 0xFFFF}) {
    if (first <= limit && last > limit) {
      utf8_ranges(first, limit, out);
      return utf8_ranges(limit + 1, last, out);
    }
  }
  for (int i = 1; i < 4; ++i) {
    const char32_t mask = (char32_t{1} << (6 * i)) - 1;
    if (last < 0x80 || (first & ~mask) == (last & ~mask)) break;
    if ((first & mask) != 0) {
      utf8_ranges(first, first | mask, out);
      return utf8_ranges((first | mask) + 1, last, out);
    }
    if ((last & mask) != mask) {
      utf8_ranges(first, (last & ~mask) - 1, out);
      return utf8_ranges(last & ~mask, last, out);
    }
  }
  std::string a, b;
  append_utf8(a, first);
  append_utf8(b, last);
  std::vector<std::pair<uint8_t, uint8_t>> bytes;
  for (size_t i = 0; i < a.size(); ++i)
    bytes.emplace_back(static_cast<uint8_t>(a[i]), static_cast<uint8_t>(b[i]));
  out.push_back(std::move(bytes));
}

class Compiler {
 public:
  Compiler(const Rules& rules, std::string_view where) : rules_(rules), where_(where) {}

  Network run() {
    net_.rules.resize(rules_.bodies.size());
    net_.root = rules_.root;
    for (size_t i = 0; i < rules_.bodies.size(); ++i) net_.rules[i] = {node(), node()};
    for (size_t i = 0; i < rules_.bodies.size(); ++i)
      build(*rules_.bodies[i], net_.rules[i].begin, net_.rules[i].end, 0);
    while (!shared_.empty()) {  // repeated parts that became rules
      const auto [body, index] = shared_.back();
      shared_.pop_back();
      build(*body, net_.rules[static_cast<size_t>(index)].begin, net_.rules[static_cast<size_t>(index)].end,
            0);
    }
    prune();
    find_nullable();
    refuse_left_recursion();
    classify();
    return std::move(net_);
  }

 private:
  [[noreturn]] void error(std::string_view expected, std::string_view found,
                          std::string_view hint = {}) const {
    throw input_error(where_, expected, found, hint);
  }

  Node& at(int32_t n) { return net_.nodes[static_cast<size_t>(n)]; }
  const Network::Rule& rule_of(const CallEdge& call) const {
    return net_.rules[static_cast<size_t>(call.rule)];
  }

  int32_t node() {
    if (net_.nodes.size() == kMaxNodes)
      error(fmt::format("at most {} states", kMaxNodes), "a larger grammar");
    net_.nodes.emplace_back();
    return static_cast<int32_t>(net_.nodes.size()) - 1;
  }
  void count_edge() {
    if (++edges_ > kMaxEdges) error(fmt::format("at most {} transitions", kMaxEdges), "a larger grammar");
  }
  void byte_edge(int32_t from, uint8_t first, uint8_t last, int32_t to) {
    count_edge();
    at(from).bytes.push_back({first, last, to});
  }
  void empty_edge(int32_t from, int32_t to) {
    count_edge();
    at(from).empty.push_back(to);
  }

  void build(const Expr& e, int32_t from, int32_t to, int depth) {
    constexpr int kMaxDepth = 400;
    if (depth > kMaxDepth) error(fmt::format("at most {} levels of nesting", kMaxDepth), "more");
    switch (e.kind) {
      case Expr::Kind::bytes: {
        if (e.bytes.empty()) return empty_edge(from, to);
        for (size_t i = 0; i < e.bytes.size(); ++i) {
          const int32_t next = i + 1 == e.bytes.size() ? to : node();
          byte_edge(from, static_cast<uint8_t>(e.bytes[i]), static_cast<uint8_t>(e.bytes[i]), next);
          from = next;
        }
        return;
      }
      case Expr::Kind::characters:
        return build_characters(e.characters, from, to);
      case Expr::Kind::sequence: {
        if (e.items.empty()) return empty_edge(from, to);
        for (size_t i = 0; i < e.items.size(); ++i) {
          const int32_t next = i + 1 == e.items.size() ? to : node();
          build(*e.items[i], from, next, depth + 1);
          from = next;
        }
        return;
      }
      case Expr::Kind::alternatives: {
        for (const ExprPtr& item : e.items) build(*item, from, to, depth + 1);
        return;
      }
      case Expr::Kind::repeat:
        return build_repeat(e, from, to, depth);
      case Expr::Kind::rule:
        count_edge();
        at(from).calls.push_back({e.rule, to});
        return;
      case Expr::Kind::network: {
        count_edge();
        const int32_t root = copied(*e.network);
        at(from).calls.push_back({root, to});
        return;
      }
    }
  }

  // Another grammar's rules, once; its root among them.
  int32_t copied(const Network& other) {
    if (const auto it = copies_.find(&other); it != copies_.end()) return it->second;
    const auto nodes = static_cast<int32_t>(net_.nodes.size()),
               rules = static_cast<int32_t>(net_.rules.size());
    for (const Node& n : other.nodes) {
      const int32_t here = node();
      for (const ByteEdge& e : n.bytes) byte_edge(here, e.first, e.last, e.target + nodes);
      for (const int32_t target : n.empty) empty_edge(here, target + nodes);
      for (const CallEdge& e : n.calls) {
        count_edge();
        at(here).calls.push_back({e.rule + rules, e.target + nodes});
      }
    }
    for (const Network::Rule& r : other.rules) net_.rules.push_back({r.begin + nodes, r.end + nodes});
    return copies_[&other] = other.root + rules;
  }

  void build_characters(const CharacterSet& set, int32_t from, int32_t to) {
    std::vector<std::vector<std::pair<uint8_t, uint8_t>>> sequences;
    for (const auto& [first, last] : set.ranges()) utf8_ranges(first, last, sequences);
    // Sequences that differ in their first byte only share the rest.
    std::vector<std::pair<std::vector<std::pair<uint8_t, uint8_t>>, int32_t>> tails;
    for (const auto& sequence : sequences) {
      std::vector<std::pair<uint8_t, uint8_t>> tail(sequence.begin() + 1, sequence.end());
      auto it = std::find_if(tails.begin(), tails.end(), [&](const auto& t) { return t.first == tail; });
      int32_t begin = to;
      if (it != tails.end()) {
        begin = it->second;
      } else if (!tail.empty()) {
        int32_t next = to;
        for (size_t i = tail.size(); i-- > 0; next = begin) {
          begin = node();
          byte_edge(begin, tail[i].first, tail[i].second, next);
        }
        constexpr size_t kRemembered = 32;
        if (tails.size() < kRemembered) tails.emplace_back(std::move(tail), begin);
      }
      byte_edge(from, sequence[0].first, sequence[0].second, begin);
    }
  }

  // What is repeated often and is more than a byte or two becomes a rule: a repetition then costs one state.
  ExprPtr small(const ExprPtr& item, int64_t copies) {
    if (copies <= 1 || item->kind == Expr::Kind::rule ||
        (item->kind == Expr::Kind::bytes && item->bytes.size() <= 2))
      return item;
    net_.rules.push_back({});
    const int32_t begin = node(), end = node();
    net_.rules.back() = {begin, end};
    const auto index = static_cast<int32_t>(net_.rules.size()) - 1;
    shared_.emplace_back(item, index);
    return rule(index);
  }

  void build_repeat(const Expr& e, int32_t from, int32_t to, int depth) {
    const ExprPtr item = small(e.items[0], std::max(e.min + 1, e.max));
    for (int64_t i = 0; i < e.min; ++i) {
      const int32_t next = node();
      build(*item, from, next, depth + 1);
      from = next;
    }
    if (e.max < 0) {  // a state of its own, so that the loop is not entered from elsewhere
      const int32_t loop = node(), after = node();
      empty_edge(from, loop);
      build(*item, loop, after, depth + 1);
      empty_edge(after, loop);
      return empty_edge(loop, to);
    }
    for (int64_t i = e.min; i < e.max; ++i) {
      empty_edge(from, to);
      const int32_t next = node();
      build(*item, from, next, depth + 1);
      from = next;
    }
    empty_edge(from, to);
  }

  // Takes away what leads nowhere: edges to nodes from which their rule's end is out of reach.
  void prune() {
    std::vector<char> alive(net_.nodes.size(), 0), matches(net_.rules.size(), 0);
    std::vector<std::vector<int32_t>> before(net_.nodes.size());  // by an edge that needs nothing else
    std::vector<std::vector<std::pair<int32_t, int32_t>>> callers(
        net_.rules.size());  // by rule: from, target
    for (size_t n = 0; n < net_.nodes.size(); ++n) {
      const auto from = static_cast<int32_t>(n);
      for (const ByteEdge& e : net_.nodes[n].bytes) before[static_cast<size_t>(e.target)].push_back(from);
      for (const int32_t target : net_.nodes[n].empty) before[static_cast<size_t>(target)].push_back(from);
      for (const CallEdge& e : net_.nodes[n].calls)
        callers[static_cast<size_t>(e.rule)].emplace_back(from, e.target);
    }
    std::vector<std::vector<std::pair<int32_t, int32_t>>> waiting(
        net_.nodes.size());  // by call target: rule, from
    for (size_t r = 0; r < callers.size(); ++r)
      for (const auto& [from, target] : callers[r])
        waiting[static_cast<size_t>(target)].emplace_back(static_cast<int32_t>(r), from);
    std::vector<int32_t> begins_rule(net_.nodes.size(), -1), todo;
    for (size_t r = 0; r < net_.rules.size(); ++r) {
      begins_rule[static_cast<size_t>(net_.rules[r].begin)] = static_cast<int32_t>(r);
      todo.push_back(net_.rules[r].end);
    }
    while (!todo.empty()) {
      const auto n = static_cast<size_t>(todo.back());
      todo.pop_back();
      if (alive[n]) continue;
      alive[n] = 1;
      todo.insert(todo.end(), before[n].begin(), before[n].end());
      for (const auto& [r, from] : waiting[n])
        if (matches[static_cast<size_t>(r)]) todo.push_back(from);
      if (const int32_t r = begins_rule[n]; r >= 0) {
        matches[static_cast<size_t>(r)] = 1;
        for (const auto& [from, target] : callers[static_cast<size_t>(r)])
          if (alive[static_cast<size_t>(target)]) todo.push_back(from);
      }
    }
    if (!matches[static_cast<size_t>(net_.root)])
      error("a grammar that some text matches", "one that none does");
    for (Node& n : net_.nodes) {
      std::erase_if(n.bytes, [&](const ByteEdge& e) { return !alive[static_cast<size_t>(e.target)]; });
      std::erase_if(n.empty, [&](int32_t target) { return !alive[static_cast<size_t>(target)]; });
      std::erase_if(n.calls, [&](const CallEdge& e) {
        return !alive[static_cast<size_t>(e.target)] || !matches[static_cast<size_t>(e.rule)];
      });
    }
  }

  // Node::ends, Rule::nullable and Node::continues, each a least fixed point over edges against their
  // direction.
  void find_nullable() {
    std::vector<std::vector<int32_t>> before(net_.nodes.size());
    std::vector<std::vector<std::pair<int32_t, int32_t>>> callers(net_.rules.size());
    std::vector<std::vector<std::pair<int32_t, int32_t>>> waiting(net_.nodes.size());
    std::vector<int32_t> begins_rule(net_.nodes.size(), -1), todo;
    for (size_t r = 0; r < net_.rules.size(); ++r) {
      begins_rule[static_cast<size_t>(net_.rules[r].begin)] = static_cast<int32_t>(r);
      todo.push_back(net_.rules[r].end);
    }
    for (size_t n = 0; n < net_.nodes.size(); ++n) {
      const auto from = static_cast<int32_t>(n);
      for (const int32_t target : net_.nodes[n].empty) before[static_cast<size_t>(target)].push_back(from);
      for (const CallEdge& e : net_.nodes[n].calls) {
        callers[static_cast<size_t>(e.rule)].emplace_back(from, e.target);
        waiting[static_cast<size_t>(e.target)].emplace_back(e.rule, from);
      }
    }
    while (!todo.empty()) {
      const auto n = static_cast<size_t>(todo.back());
      todo.pop_back();
      if (std::exchange(net_.nodes[n].ends, true)) continue;
      todo.insert(todo.end(), before[n].begin(), before[n].end());
      for (const auto& [r, from] : waiting[n])
        if (net_.rules[static_cast<size_t>(r)].nullable) todo.push_back(from);
      if (const int32_t r = begins_rule[n]; r >= 0) {
        net_.rules[static_cast<size_t>(r)].nullable = true;
        for (const auto& [from, target] : callers[static_cast<size_t>(r)])
          if (at(target).ends) todo.push_back(from);
      }
    }
    for (size_t n = 0; n < net_.nodes.size(); ++n) {
      if (!net_.nodes[n].bytes.empty() || !net_.nodes[n].calls.empty())
        todo.push_back(static_cast<int32_t>(n));
    }
    while (!todo.empty()) {
      const auto n = static_cast<size_t>(todo.back());
      todo.pop_back();
      if (std::exchange(net_.nodes[n].continues, true)) continue;
      todo.insert(todo.end(), before[n].begin(), before[n].end());
    }
  }

  // A rule that can call itself before it takes a byte would push without end.
  void refuse_left_recursion() {
    // Rules that a rule calls first: from its begin, over empty edges and nullable calls.
    std::vector<std::vector<int32_t>> first(net_.rules.size());
    std::vector<int32_t> seen(net_.nodes.size(), -1), todo;
    for (size_t r = 0; r < net_.rules.size(); ++r) {
      todo = {net_.rules[r].begin};
      while (!todo.empty()) {
        const int32_t n = todo.back();
        todo.pop_back();
        if (std::exchange(seen[static_cast<size_t>(n)], static_cast<int32_t>(r)) == static_cast<int32_t>(r))
          continue;
        todo.insert(todo.end(), at(n).empty.begin(), at(n).empty.end());
        for (const CallEdge& e : at(n).calls) {
          first[r].push_back(e.rule);
          if (rule_of(e).nullable) todo.push_back(e.target);
        }
      }
      std::sort(first[r].begin(), first[r].end());
      first[r].erase(std::unique(first[r].begin(), first[r].end()), first[r].end());
    }
    std::vector<char> color(net_.rules.size(), 0);  // 1: on the path, 2: done
    for (size_t r = 0; r < net_.rules.size(); ++r) {
      if (color[r] != 0) continue;
      std::vector<std::pair<size_t, size_t>> path = {{r, 0}};
      color[r] = 1;
      while (!path.empty()) {
        auto& [rule_index, next] = path.back();
        if (next == first[rule_index].size()) {
          color[rule_index] = 2;
          path.pop_back();
          continue;
        }
        const auto callee = static_cast<size_t>(first[rule_index][next++]);
        if (color[callee] == 1) {
          const std::string name = callee < rules_.names.size() ? rules_.names[callee] : "a repetition";
          error("rules that take a byte before they call themselves",
                "left recursion in '" + printable(name) + "'", "write it as a repetition");
        }
        if (color[callee] == 0) {
          color[callee] = 1;
          path.emplace_back(callee, 0);
        }
      }
    }
  }

  void classify() {
    std::array<char, 257> cut{};
    for (const Node& n : net_.nodes) {
      for (const ByteEdge& e : n.bytes) {
        cut[e.first] = 1;
        cut[static_cast<size_t>(e.last) + 1] = 1;
      }
    }
    for (size_t b = 0; b < 256; ++b) {
      if (b == 0 || cut[b]) net_.class_byte.push_back(static_cast<uint8_t>(b));
      net_.byte_class[b] = static_cast<uint8_t>(net_.class_byte.size() - 1);
    }
  }

  const Rules& rules_;
  std::string_view where_;
  Network net_;
  size_t edges_ = 0;
  std::vector<std::pair<ExprPtr, int32_t>> shared_;
  std::map<const Network*, int32_t> copies_;
};

}  // namespace

Network compile(const Rules& rules, std::string_view where) { return Compiler(rules, where).run(); }

}  // namespace lathe::grammar
