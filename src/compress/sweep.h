// Block by block over the calibration text: each block sees the blocks before it as they are now, compressed.
// Held are the activations between two steps; each layer runs once per pass, on the kernels that serve it
// later.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "compress/edges.h"
#include "compress/observers.h"
#include "core/cpu.h"
#include "core/file.h"
#include "core/thread_pool.h"
#include "models/model.h"

namespace lathe {

// What a pass wants to know of an input. Moments per channel are always there.
struct Wanted {
  bool hessian = false;  // columns^2 floats
  bool cross = false;  // the same again, and a second walk with the original weights; not of experts' layers,
                       // to which the original routes other rows
  bool sample = false;  // some rows as they are
  bool magnitudes = false;
};

// The input x of an InputGroup over all calibration tokens.
struct InputStats {
  int64_t rows = 0, cols = 0;
  bool routed = false;  // of an expert: its rows are those that were routed to it, all others have all tokens
  std::vector<float> mean, mean_abs, mean_square, abs_max;  // per channel
  std::vector<float> hessian;                               // [cols, cols]: x^T x / rows
  std::vector<float> cross;                                 // [cols, cols]: (x_original - x)^T x / rows
  std::vector<float> sample;  // [sample_rows, cols], evenly spread over the tokens
  int64_t sample_rows = 0;
  Magnitudes magnitudes;

  void add(ThreadPool&, const float* x, const float* original, int64_t first, int64_t count, int64_t total,
           const Wanted&);
  void finish(ThreadPool&);  // sums become means
  // The statistics of x / s. Magnitudes have no channels: there must be none.
  void divide_columns(std::span<const float> s);
};
inline constexpr int64_t most_sample_rows = 256;

struct SweepPass {
  Wanted wanted;
  std::function<bool(const InputGroup&)> takes;
  // May change the weights of the group's layers and of its FoldSite. Returns what the input is divided by
  // now, per channel; empty: as it was.
  std::function<std::vector<float>(const InputGroup&, InputStats&)> visit;
  std::function<void()> finish = {};  // behind the last group of a block
};

struct SweepOptions {
  int64_t context = 256;            // tokens of a sequence
  size_t memory = size_t{1} << 29;  // of activations; more lie in files
  fs::path work = {};               // where those files lie, and finished blocks; empty: memory only
  std::string fingerprint = {};     // of all that decides the result: finished blocks of another are ignored
  // What is kept beside a finished block's weights, and who gets it back where that block is resumed.
  std::function<std::string()> notes = {};
  std::function<void(std::string_view)> recall = {};
  std::string progress = "calibrating";
  int threads = 0;
  uint32_t isa = allowed_features();
};

struct SweepReport {
  int64_t tokens = 0, resumed_blocks = 0;
  size_t activation_bytes = 0, statistics_bytes = 0;  // the most at one time
};

// What a sweep is going to hold: known before it starts.
SweepReport forecast(const Model&, int64_t tokens, const std::vector<SweepPass>&);

// Passes run one after the other on each block, before the next block. Whole sequences only: what is left of
// the tokens is not used. InputError when not one is whole.
SweepReport sweep(Model&, std::span<const int32_t> tokens, const std::vector<SweepPass>&,
                  const SweepOptions&);

}  // namespace lathe
