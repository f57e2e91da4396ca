// What the search chooses between: the formats on offer, the groups of parameters that share one, and a
// choice.
#pragma once

#include <string>
#include <vector>

#include "compress/quantize.h"
#include "core/cpu.h"
#include "models/model.h"

namespace lathe {

// Which of them a menu has.
struct SmallFloats {
  uint32_t isa = allowed_features();
  bool emulated = false;  // also those that would run expanded to f32
};

// Parameters that must share a format, because the runtime fuses them and other servers expect it: the
// linears that read the same activation (q/k/v; gate/up), a tied table, or one matrix alone. Of a mixture,
// gate and up of all experts of a layer, and down of all.
struct Unit {
  std::string name;  // "model.layers.3.self_attn.{q,k,v}_proj"
  std::vector<std::string> params;
  bool table = false;         // an embedding table or the head
  int64_t weights = 0;        // how many
  std::vector<int> formats;   // ascending indices into the menu; 0 is always there
  std::vector<size_t> bytes;  // of the unit, in each of `formats`
};

// Entry 0 of a menu stands for "as it is" and its numerics are not used.
struct Format {
  std::string name;  // "as is", "int8", "int4 g64 asym"
  Numerics numerics;
};
// The formats on offer, all of them ones that other servers run: int8, int4, and small floats as below.
std::vector<Format> format_menu(DType scale, SmallFloats = {});
// FP8 per channel, NVFP4 and MXFP4, those of them that `isa` has kernels of their own for. NF4 is never on
// offer: its files, bitsandbytes', hold no other format beside it.
void add_small_floats(std::vector<Format>& menu, DType scale, SmallFloats);

// Units in the order of the graph. A format is on offer to a unit when its groups divide the rows of every
// parameter (other servers require it) and it takes fewer bytes than the unit does now.
std::vector<Unit> find_units(const Model&, const std::vector<Format>& menu);

// For each unit an index into its `formats`.
using Choice = std::vector<int>;

Assignment assignment(const std::vector<Unit>&, const std::vector<Format>& menu, const Choice&);
// Bytes of the whole model as stored.
size_t stored_bytes(const Model&, const std::vector<Unit>&, const Choice&);

// Every unit in one format; with `tables` also the embedding and the head. Empty when some unit cannot take
// it.
Choice uniform(const std::vector<Unit>&, int format, bool tables);

}  // namespace lathe
