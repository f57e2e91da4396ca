// A format for each unit by what it costs with a calibrated method: measured once per unit, then any budget
// is a look-up.
#pragma once

#include <vector>

#include "compress/method.h"
#include "search/allocate.h"
#include "search/candidate.h"

namespace lathe {

// Integers of 2 to 8 bits in groups of 32, 64 and 128, with zero points too up to 4 bits; then small floats,
// where the method rounds to them. Entry 0 is "as it is".
std::vector<Format> mixed_menu(DType scale, const Method&, SmallFloats = {});

struct UnitCost {
  Unit unit;
  std::vector<double> error;  // per format of the unit: change of its layers' outputs on the calibration
                              // text, mean squares as a share of the outputs' own; the proxy
  int reference = 0;          // the format that was substituted, an index into unit.formats
  double kl = 0;              // KL(base || model) with that unit alone in it; nats per token
  std::vector<double> cost;   // predicted KL per format: kl * error / error of the reference
};

struct MixedOptions {
  Method method;
  SweepOptions sweep;
  int64_t window = 256;  // of the scoring
};

// One walk of the uncompressed model over `calibration`, each unit rounded to each of its formats on the way;
// then one evaluation on `scored` per unit. Tables of their own (an embedding that is not the head) have no
// inputs to go by: their error is that of their weights.
std::vector<UnitCost> measure_units(const Model&, const std::vector<Format>& menu,
                                    std::span<const int32_t> calibration, std::span<const int32_t> scored,
                                    const MixedOptions&);

// Modules of the units that lose more than `times` as much KL per weight as the median unit, each in the
// format that was substituted: what `quantize --keep` takes.
std::vector<std::string> ignore_list(const std::vector<UnitCost>&, double times);

// The least predicted KL within so many bytes of the whole model. Nothing when no choice is small enough.
struct Mixture {
  Choice choice;
  size_t bytes = 0;
  double predicted_kl = 0;
};
std::optional<Mixture> best_mixture(const Model&, const std::vector<UnitCost>&, size_t bytes);

Assignment assignment(const std::vector<UnitCost>&, const std::vector<Format>& menu, const Choice&);

}  // namespace lathe
