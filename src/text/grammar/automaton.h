// Runs a network: a state is a set of places in rules, each with the stack of the places it returns to.
// States and stacks are interned and transitions remembered, so a state seen before costs one look-up per
// byte.
#pragma once

#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "text/grammar/network.h"
#include "text/grammar/work.h"

namespace lathe::grammar {

// A place: a node, and what is left to do when its rule ends (0: nothing).
struct Place {
  int32_t node, stack;
  auto operator<=>(const Place&) const = default;
};

class Automaton {
 public:
  using State = int32_t;
  static constexpr State dead = -1;

  // Everything below spends `work`: InputError when none is left.
  Automaton(std::shared_ptr<const Network>, std::shared_ptr<Work> work);

  State start();                     // before the first byte of the root rule
  State at(std::span<const Place>);  // may be dead
  State returned(int32_t stack);     // after a rule whose stack is this one has ended; not for 0
  // InputError when a grammar is so ambiguous that a state has more than 4,096 places.
  State next(State, uint8_t byte);                                             // the state must not be dead
  bool ended(State s) const { return states_[static_cast<size_t>(s)].ended; }  // the text is complete
  std::span<const Place> places(State s) const { return states_[static_cast<size_t>(s)].places; }

  size_t bytes() const { return bytes_; }  // that states and stacks take, about
  // The same state in a fresh automaton over the same network.
  State copy(State, const Automaton& from);

  const Network& network() const { return *net_; }

 private:
  struct Edge {
    uint8_t first, last;
    Place place;
  };
  struct StateData {
    std::vector<Place> places;  // sorted
    bool ended = false;
    bool expanded = false;
    std::vector<Edge> edges;
    std::vector<State> next;  // by byte class; unknown or a state or dead
  };
  struct Frame {
    int32_t node, parent;
  };

  int32_t push(int32_t node, int32_t parent);
  void add(Place, std::vector<Place>& places, bool& ended) const;
  State intern(std::vector<Place> places, bool ended);
  void expand(StateData&);
  void remember(size_t bytes);

  std::shared_ptr<const Network> net_;
  std::shared_ptr<Work> work_;
  size_t bytes_ = 0;
  std::vector<Frame> frames_;
  std::unordered_map<uint64_t, int32_t> frame_index_;  // (node, parent)
  std::vector<StateData> states_;
  std::unordered_multimap<uint64_t, State> state_index_;  // by hash
};

}  // namespace lathe::grammar
