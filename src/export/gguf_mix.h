// Which GGUF type each tensor of a file gets.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/gguf.h"

namespace lathe {

// A name of the command line: every type that Lathe can write, in small letters ("q4_k"), for all matrices;
// and llama-quantize's mixtures "q3_k_m", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m".
std::vector<std::string> gguf_mix_names();

class GgufMix {
 public:
  // InputError on an unknown name. `layers`: decoder blocks of the model.
  GgufMix(std::string_view name, int64_t layers);
  // Of a canonical parameter ("model.layers.0.mlp.up_proj.weight") of that shape. `table`: the output head,
  // or the embedding that is also the head. Vectors are F32; rows that are not whole blocks take the next
  // larger type that fits, as in llama.cpp.
  const GgufType& type_of(std::string_view param, const Shape&, bool head) const;
  uint32_t file_type() const;  // general.file_type

 private:
  const struct MixRow* mix_ = nullptr;
  int64_t layers_;
};

}  // namespace lathe
