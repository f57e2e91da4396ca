// How much each unit's format costs: measured once per unit, extrapolated to the other formats.
#pragma once

#include <vector>

#include "search/study.h"

namespace lathe {

struct Sensitivity {
  std::vector<double> kl;  // measured, with that unit alone in its smallest format; nats per token
  std::vector<std::vector<double>> cost;  // predicted KL per unit and format of the unit
};

// KL grows with the square of a small change, and a format's change is its rounding error: so cost = measured
// KL times the ratio of squared rounding errors, ||W - Q(W)||^2 / ||W||^2.
Sensitivity measure_sensitivity(Study&);

// A whole model in one format was measured: all its predictions are scaled to add up to what was found. This
// corrects what the ratio of errors misses, format by format.
void calibrate(Sensitivity&, const Choice& whole, double measured_kl);

double predicted_kl(const Sensitivity&, const Choice&);

}  // namespace lathe
