#include "text/token_mask.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "core/error.h"
#include "text/grammar/automaton.h"

namespace lathe {

using grammar::Automaton;

TokenTrie::TokenTrie(std::span<const std::string> tokens) {
  offsets_.push_back(0);
  for (const std::string& token : tokens) {
    bytes_ += token;
    offsets_.push_back(bytes_.size());
  }
  constexpr size_t kMaxToken = 4096;  // a longer one is never written under a grammar
  for (int32_t id = 0; id < size(); ++id)
    if (!token(id).empty() && token(id).size() <= kMaxToken) sorted_ids_.push_back(id);
  std::sort(sorted_ids_.begin(), sorted_ids_.end(),
            [&](int32_t a, int32_t b) { return token(a) != token(b) ? token(a) < token(b) : a < b; });
  std::vector<int32_t> path;  // nodes of the token before
  std::string_view last;
  const auto close = [&](size_t depth) {
    while (path.size() > depth) {
      nodes_[static_cast<size_t>(path.back())].end = static_cast<int32_t>(nodes_.size());
      path.pop_back();
    }
  };
  for (size_t i = 0; i < sorted_ids_.size(); ++i) {
    const std::string_view bytes = token(sorted_ids_[i]);
    const size_t shared = static_cast<size_t>(
        std::mismatch(last.begin(), last.end(), bytes.begin(), bytes.end()).first - last.begin());
    close(shared);
    for (size_t depth = shared; depth < bytes.size(); ++depth) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({static_cast<uint8_t>(bytes[depth]), static_cast<uint16_t>(depth + 1), 0,
                        static_cast<int32_t>(i), 0});
    }
    ++nodes_[static_cast<size_t>(path.back())].token_count;
    max_depth_ = std::max(max_depth_, bytes.size());
    last = bytes;
  }
  close(0);
}

// The tokens that can be read from a place without leaving its rule.
struct TokenMasks::Place {
  std::vector<uint64_t> bits;   // when there are many,
  std::vector<int32_t> tokens;  // otherwise
  std::vector<int32_t> ends;    // nodes of the trie at which the rule has ended
};

namespace {

size_t words(const TokenTrie& trie) { return (static_cast<size_t>(trie.size()) + 63) / 64; }

// Calls allow(trie node) for each node below `root` that `state` can reach (the whole trie: root -1) and
// ended(trie node index) where the text is complete.
template <class Allow, class Ended>
void walk(Automaton& automaton, const TokenTrie& trie, Automaton::State state, int32_t root,
          const Allow& allow, const Ended& ended) {
  const auto& nodes = trie.nodes();
  const size_t base = root < 0 ? 0 : nodes[static_cast<size_t>(root)].depth;
  const auto end = root < 0 ? nodes.size() : static_cast<size_t>(nodes[static_cast<size_t>(root)].end);
  std::vector<Automaton::State> states(trie.max_depth() + 1 - base, state);
  for (size_t i = root < 0 ? 0 : static_cast<size_t>(root) + 1; i < end;) {
    const TokenTrie::Node& node = nodes[i];
    const size_t depth = node.depth - base;
    const Automaton::State next = automaton.next(states[depth - 1], node.byte);
    if (next == Automaton::dead) {
      i = static_cast<size_t>(node.end);
      continue;
    }
    states[depth] = next;
    if (node.token_count > 0) allow(node);
    if (automaton.ended(next)) ended(static_cast<int32_t>(i));
    ++i;
  }
}

}  // namespace

TokenMasks::TokenMasks(Grammar grammar, std::shared_ptr<const TokenTrie> trie)
    : grammar_(std::move(grammar)), trie_(std::move(trie)), places_(grammar_.network()->nodes.size()) {}
TokenMasks::~TokenMasks() = default;

std::shared_ptr<grammar::Work> TokenMasks::budget() const {
  constexpr int64_t at_once = 8'000'000;
  return std::make_shared<grammar::Work>(at_once);
}
int64_t TokenMasks::budget_of_token() const {
  constexpr int64_t least = 100'000;
  return least + 2 * static_cast<int64_t>(trie_->nodes().size());
}

struct GrammarMatcher::State {
  State(std::shared_ptr<TokenMasks> m, std::shared_ptr<grammar::Work> w)
      : masks(std::move(m)),
        work(std::move(w)),
        automaton(std::make_unique<Automaton>(masks->grammar_.network(), work)),
        current(automaton->start()) {}

  std::shared_ptr<const TokenMasks::Place> place(int32_t node);
  const std::vector<uint64_t>& mask();
  void tidy();

  std::shared_ptr<TokenMasks> masks;
  std::shared_ptr<grammar::Work> work;
  std::unique_ptr<Automaton> automaton;
  Automaton::State current;  // never dead
  std::unordered_map<Automaton::State, std::vector<uint64_t>> known;
};

// A place is a node of the network, whatever is on the stack: read as if its rule were the whole grammar.
std::shared_ptr<const TokenMasks::Place> GrammarMatcher::State::place(int32_t node) {
  {
    const std::lock_guard lock(masks->mutex_);
    if (auto p = masks->places_[static_cast<size_t>(node)]) return p;
  }
  const TokenTrie& trie = *masks->trie_;
  auto out = std::make_shared<TokenMasks::Place>();
  const grammar::Place alone{node, 0};
  walk(
      *automaton, trie, automaton->at(std::span(&alone, 1)), -1,
      [&](const TokenTrie::Node& n) {
        for (int32_t i = 0; i < n.token_count; ++i)
          out->tokens.push_back(trie.sorted_ids()[static_cast<size_t>(n.first_token + i)]);
      },
      [&](int32_t n) { out->ends.push_back(n); });
  if (out->tokens.size() * 32 > static_cast<size_t>(trie.size())) {
    out->bits.assign(words(trie), 0);
    for (const int32_t id : out->tokens) out->bits[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
    out->tokens = {};
  }
  const std::lock_guard lock(masks->mutex_);
  constexpr size_t kMaxBytes = size_t{64} << 20;
  masks->bytes_ += 8 * out->bits.size() + 4 * (out->tokens.size() + out->ends.size());
  if (masks->bytes_ > kMaxBytes) {
    std::fill(masks->places_.begin(), masks->places_.end(), nullptr);
    masks->bytes_ = 0;
  }
  masks->places_[static_cast<size_t>(node)] = out;
  return out;
}

const std::vector<uint64_t>& GrammarMatcher::State::mask() {
  if (auto it = known.find(current); it != known.end()) return it->second;
  constexpr size_t kMaxKnown = 64;
  if (known.size() >= kMaxKnown) known.clear();
  const TokenTrie& trie = *masks->trie_;
  std::vector<uint64_t> bits(words(trie), 0);
  const auto allow = [&](const TokenTrie::Node& n) {
    for (int32_t i = 0; i < n.token_count; ++i) {
      const auto id = static_cast<size_t>(trie.sorted_ids()[static_cast<size_t>(n.first_token + i)]);
      bits[id / 64] |= uint64_t{1} << (id % 64);
    }
  };
  const std::vector<grammar::Place> places(automaton->places(current).begin(),
                                           automaton->places(current).end());
  for (const grammar::Place& p : places) {
    const auto within = place(p.node);
    work->spend(1 + within->bits.size() / 16 + within->tokens.size() / 4 + 8 * within->ends.size());
    for (size_t i = 0; i < within->bits.size(); ++i) bits[i] |= within->bits[i];
    for (const int32_t id : within->tokens) bits[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
    if (p.stack == 0 || within->ends.empty()) continue;
    const Automaton::State after = automaton->returned(p.stack);
    for (const int32_t n : within->ends) walk(*automaton, trie, after, n, allow, [](int32_t) {});
  }
  return known.emplace(current, std::move(bits)).first->second;
}

// Remembered states and stacks grow with the text; now and then only the current ones are kept.
void GrammarMatcher::State::tidy() {
  constexpr size_t kMaxBytes = size_t{16} << 20;
  if (automaton->bytes() < kMaxBytes) return;
  auto fresh = std::make_unique<Automaton>(masks->grammar_.network(), work);
  current = fresh->copy(current, *automaton);
  automaton = std::move(fresh);
  known.clear();
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<TokenMasks> masks) : GrammarMatcher(masks, masks->budget()) {}
GrammarMatcher::GrammarMatcher(std::shared_ptr<TokenMasks> masks, std::shared_ptr<grammar::Work> budget)
    : state_(std::make_unique<State>(std::move(masks), std::move(budget))) {}
GrammarMatcher::~GrammarMatcher() = default;
GrammarMatcher::GrammarMatcher(GrammarMatcher&&) noexcept = default;
GrammarMatcher& GrammarMatcher::operator=(GrammarMatcher&&) noexcept = default;

std::span<const uint64_t> GrammarMatcher::mask() { return state_->mask(); }

bool GrammarMatcher::accept(int32_t id) {
  const TokenTrie& trie = *state_->masks->trie_;
  if (id < 0 || id >= trie.size() || trie.token(id).empty()) return false;
  return accept(trie.token(id));
}

bool GrammarMatcher::accept(std::string_view bytes) {
  Automaton::State next = state_->current;
  for (const char c : bytes) {
    next = state_->automaton->next(next, static_cast<uint8_t>(c));
    if (next == Automaton::dead) return false;
  }
  state_->current = next;
  state_->work->refill(state_->masks->budget_of_token());
  state_->tidy();
  return true;
}

bool GrammarMatcher::complete() const { return state_->automaton->ended(state_->current); }

}  // namespace lathe
