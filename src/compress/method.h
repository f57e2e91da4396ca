// How weights become codes when a calibration text tells what they are multiplied with: a table of rounding
// methods, each of which may be preceded by equalizing the channels and followed by correcting the bias.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/equalize.h"
#include "compress/gptq.h"
#include "compress/quantize.h"
#include "compress/sweep.h"

namespace lathe {

// What a rounding method is given: one layer, and what the text says about its input.
struct RoundingJob {
  ThreadPool& pool;
  const float* w;  // [rows, cols]
  int64_t rows, cols;
  const Numerics& numerics;
  const InputStats& stats;
  const GptqFactor* factor;  // for methods that want a Hessian; shared by the layers of an input
  int descent;               // passes, for methods that have any
  float largest;             // magnitude among the weights that share a global scale; negative: none do
  MxRule mx = MxRule::by_search;
};

struct RoundingMethod {
  std::string_view name, summary;
  bool wants_hessian, grids;  // grids: it rounds to those too
  Codes (*run)(const RoundingJob&);
};
std::span<const RoundingMethod> rounding_methods();

// "gptq", "awq+gptq", "smooth+rtn+bias": at most one way to equalize, exactly one rounding method, perhaps
// bias and a low-rank correction.
struct Method {
  Equalize equalize = Equalize::none;
  const RoundingMethod* rounding = nullptr;
  bool bias = false;  // shift biases by the mean error of the outputs (layers that have one)
  bool drift =
      false;  // aim at the outputs of the uncompressed model, not at those of its weights on present inputs
  double damping = 0.01;
  bool act_order = true;
  int descent = 0;
  int rank = 0;      // of a low-rank correction beside each rounded layer; 0: none
  std::string text;  // as it was written

  bool needs_text() const;  // false: round to nearest, weight by weight
  bool rounds_to_grids() const;
};
// InputError listing what there is.
Method parse_method(std::string_view text);
std::string method_names();  // for messages: "rtn, importance, gptq, ..."

// What happened to one layer.
struct LayerReport {
  std::string module;
  Numerics numerics;
  // Mean square of the outputs' change, as a share of the outputs' own, of about 256 rows; none where a
  // method does not look at that. nearest_error: of rounding to nearest instead.
  std::optional<double> error = {};
  double nearest_error = 0;
  bool fell_back = false;  // note says to what, and why
  std::string note = {};   // that, or the strength of equalizing
};

struct CalibrationOptions {
  Method method;
  ScaleRule scales = {};  // its search is that of tables: methods have their own
  const InputObserver* observer = &input_observers()[0];  // of static scales of activations
  SweepOptions sweep = {};
};

// The assigned weights of a model, in place, block by block. A table that is also the head is rounded first,
// for the inputs that the head has in the uncompressed model; a table of its own is rounded to nearest.
std::vector<LayerReport> quantize_calibrated(Model&, const Assignment&, std::span<const int32_t> tokens,
                                             const CalibrationOptions&, SweepReport* = nullptr);

}  // namespace lathe
