// From the tensors of a Hugging Face directory to entries: which of them are the parts of one quantized
// weight.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/quant_config.h"
#include "io/safetensors.h"

namespace lathe {

// A tensor of the directory.
struct Stored {
  const SafetensorsFile* file;
  const SafetensorsFile::Item* item;
  std::string file_name;
};
using StoredTensors = std::map<std::string, Stored, std::less<>>;

// An entry and the tensors that are its parts, in the packing's order.
struct BoundEntry {
  Entry entry;
  std::vector<std::string> tensors;
  bool corrected = false;       // its module may have factors of low rank (QuantScheme::corrected)
  bool uneven_groups = false;   // of columns in activation order: no kernel has that
  bool unscaled_input = false;  // should be rounded with a scale that the file lacks: it stays as it is
};

// Every tensor in one entry, or known to be none of the weights' business (scales of activations). InputError
// naming file, tensor or module, expected and found where tensors and config do not fit each other.
std::vector<BoundEntry> bind_tensors(const fs::path& directory, const StoredTensors&,
                                     const std::optional<QuantConfig>&);

// A stored tensor as that part: dimensions of 1 as one likes, and f32 where a narrower float is stored.
Tensor as_part(Tensor stored, const Part&);

}  // namespace lathe
