// From coarse to fine: uniform formats, then a format per unit by measured sensitivity, until the limits are
// met and nothing better is expected.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "search/constraints.h"
#include "search/sensitivity.h"
#include "search/study.h"

namespace lathe {

struct Trial {
  enum class Kind : uint8_t { base, uniform, mixed };
  Kind kind = Kind::mixed;
  std::string name;  // "int4 g32", "int4 g32 + tables", "mixed 5.31 bits"
  std::string why;   // what it was tried for
  Choice choice;
  size_t bytes = 0, memory_bytes = 0;  // as stored; in memory while serving
  double bits_per_weight = 0;
  double predicted_kl = 0;          // 0 for those tried before sensitivities were known
  Quality search;                   // on the calibration text
  std::optional<Quality> held_out;  // finalists, and after the choice was made those shown beside it
  std::optional<Speed> speed;
};

struct SearchResult {
  std::vector<Trial> trials;  // in order; the first is the base
  size_t chosen = 0;
  bool met = false;
  std::vector<Bound> bounds;  // of the chosen: quality on the held-out text
  std::string goal;           // in words
  std::string stopped;        // why the search ended
  Sensitivity sensitivity;
  std::vector<size_t> verdicts;  // trials whose held-out quality was looked at before the choice was made
};

// The goal follows from the limits. A limit on memory or speed says what the model must fit: the least KL
// that fits wins. With limits on quality alone they say how much may be lost: the fewest bytes win.
SearchResult search(Study&, const Constraints&, int max_trials);

// True when some uniform format takes equal or fewer bytes and has an equal or lower KL (on the calibration
// text).
bool beaten_by_uniform(const std::vector<Trial>&, const Trial&);

}  // namespace lathe
