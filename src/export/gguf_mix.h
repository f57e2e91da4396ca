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
  // InputError on an unknown name. `layers`: decoder blocks of the model; `experts`: of each, 0: none.
  GgufMix(std::string_view name, int64_t layers, int64_t experts);
  // Of a tensor ("blk.0.ffn_up.weight") of that shape. `head`: the output head, or the embedding that is also
  // the head. Vectors and routers are F32; rows that are not whole blocks take the next larger type that
  // fits, as in llama.cpp.
  const GgufType& type_of(std::string_view tensor, const Shape&, bool head) const;
  // Of experts that are in MXFP4, as gpt-oss has them: they stay so, since another grid of four bits or more
  // only loses. Not where a smaller type was asked for, nor f32, which is floats throughout.
  const GgufType& type_of_mxfp4(std::string_view tensor, const Shape&) const;
  uint32_t file_type(bool mxfp4_experts) const;  // general.file_type

 private:
  const struct MixRow* mix_ = nullptr;
  int64_t layers_, experts_;
};

}  // namespace lathe
