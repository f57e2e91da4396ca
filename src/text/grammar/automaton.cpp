#include "text/grammar/automaton.h"

#include <algorithm>
#include <unordered_set>

#include "core/error.h"

namespace lathe::grammar {

namespace {

constexpr int32_t kUnknown = -2;
constexpr size_t kMaxPlaces = 4096;
constexpr size_t kEntry = 48;  // bytes of an entry of a hash table, about

uint64_t key(int32_t a, int32_t b) {
  return static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b);
}

uint64_t hash(std::span<const Place> places, bool ended) {
  uint64_t h = ended ? 1 : 0;
  for (const Place& p : places) h = (h ^ key(p.node, p.stack)) * 0x9E3779B97F4A7C15u, h ^= h >> 29;
  return h;
}

void check_places(size_t count) {
  if (count > kMaxPlaces)
    throw input_error("grammar", fmt::format("at most {} ways to read a text", kMaxPlaces), "more",
                      "make its alternatives begin differently");
}

}  // namespace

void Work::refuse() const {
  throw input_error("grammar", fmt::format("one that takes at most {} steps before a token", most_), "more",
                    "make its alternatives begin differently and its repetitions fewer");
}

Automaton::Automaton(std::shared_ptr<const Network> net, std::shared_ptr<Work> work)
    : net_(std::move(net)), work_(std::move(work)), frames_(1, {-1, -1}) {}

void Automaton::remember(size_t bytes) {
  work_->spend(bytes / 8);
  bytes_ += bytes;
}

int32_t Automaton::push(int32_t node, int32_t parent) {
  const auto [it, fresh] = frame_index_.try_emplace(key(node, parent), static_cast<int32_t>(frames_.size()));
  if (fresh) {
    frames_.push_back({node, parent});
    remember(sizeof(Frame) + kEntry);
  }
  return it->second;
}

// A place whose rule may end here stands for the place after the call as well.
void Automaton::add(Place p, std::vector<Place>& places, bool& ended) const {
  for (;;) {
    work_->spend(1);
    const Node& node = net_->nodes[static_cast<size_t>(p.node)];
    if (node.continues) places.push_back(p);
    if (!node.ends) return;
    if (p.stack == 0) {
      ended = true;
      return;
    }
    const Frame& frame = frames_[static_cast<size_t>(p.stack)];
    p = {frame.node, frame.parent};
  }
}

Automaton::State Automaton::intern(std::vector<Place> places, bool ended) {
  if (places.empty() && !ended) return dead;
  work_->spend(8 * places.size());  // sorted and hashed
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
  check_places(places.size());
  const uint64_t h = hash(places, ended);
  const auto [begin, end] = state_index_.equal_range(h);
  for (auto it = begin; it != end; ++it) {
    const StateData& s = states_[static_cast<size_t>(it->second)];
    if (s.ended == ended && s.places == places) return it->second;
  }
  const auto state = static_cast<State>(states_.size());
  remember(sizeof(StateData) + places.size() * sizeof(Place) + net_->class_byte.size() * sizeof(State) +
           kEntry);
  StateData data;
  data.places = std::move(places);
  data.ended = ended;
  data.next.assign(net_->class_byte.size(), kUnknown);
  states_.push_back(std::move(data));
  state_index_.emplace(h, state);
  return state;
}

Automaton::State Automaton::at(std::span<const Place> given) {
  std::vector<Place> places;
  bool ended = false;
  for (const Place& p : given) add(p, places, ended);
  return intern(std::move(places), ended);
}

Automaton::State Automaton::start() {
  const Place begin{net_->rules[static_cast<size_t>(net_->root)].begin, 0};
  return at(std::span(&begin, 1));
}

Automaton::State Automaton::returned(int32_t stack) {
  const Frame& frame = frames_[static_cast<size_t>(stack)];
  const Place place{frame.node, frame.parent};
  return at(std::span(&place, 1));
}

// The bytes that can come next, through empty edges and into the rules that are called.
void Automaton::expand(StateData& state) {
  std::vector<Place> todo(state.places.begin(), state.places.end());
  std::unordered_set<uint64_t> seen;
  for (const Place& p : todo) seen.insert(key(p.node, p.stack));
  const auto visit = [&](Place p) {
    if (seen.insert(key(p.node, p.stack)).second) todo.push_back(p);
    check_places(seen.size() / 16);
  };
  while (!todo.empty()) {
    const Place p = todo.back();
    todo.pop_back();
    const Node& node = net_->nodes[static_cast<size_t>(p.node)];
    work_->spend(8 + 2 * (node.empty.size() + node.calls.size()));
    remember(node.bytes.size() * sizeof(Edge));
    for (const ByteEdge& e : node.bytes) state.edges.push_back({e.first, e.last, {e.target, p.stack}});
    for (const int32_t target : node.empty) visit({target, p.stack});
    for (const CallEdge& e : node.calls) {
      const Network::Rule& callee = net_->rules[static_cast<size_t>(e.rule)];
      const Node& after = net_->nodes[static_cast<size_t>(e.target)];
      if (callee.nullable) visit({e.target, p.stack});
      // A call that is the last thing its rule does returns to where the rule returns.
      visit({callee.begin, after.continues ? push(e.target, p.stack) : p.stack});
    }
  }
  state.expanded = true;
}

Automaton::State Automaton::next(State from, uint8_t byte) {
  StateData& state = states_[static_cast<size_t>(from)];
  const size_t byte_class = net_->byte_class[byte];
  work_->spend(1);
  if (state.next[byte_class] != kUnknown) return state.next[byte_class];
  if (!state.expanded) expand(state);
  work_->spend(state.edges.size() / 4);
  std::vector<Place> places;
  bool ended = false;
  for (const Edge& e : state.edges)
    if (e.first <= byte && byte <= e.last) add(e.place, places, ended);
  const State target = intern(std::move(places), ended);
  states_[static_cast<size_t>(from)].next[byte_class] = target;  // `state` may have moved
  return target;
}

Automaton::State Automaton::copy(State s, const Automaton& from) {
  std::vector<Place> places;
  for (const Place& p : from.places(s)) {
    std::vector<int32_t> nodes;
    for (int32_t stack = p.stack; stack != 0; stack = from.frames_[static_cast<size_t>(stack)].parent)
      nodes.push_back(from.frames_[static_cast<size_t>(stack)].node);
    work_->spend(4 * nodes.size());
    int32_t stack = 0;
    for (size_t i = nodes.size(); i-- > 0;) stack = push(nodes[i], stack);
    places.push_back({p.node, stack});
  }
  return intern(std::move(places), from.ended(s));
}

}  // namespace lathe::grammar
