// A model as a GGUF file that llama.cpp loads.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "core/file.h"
#include "models/model.h"

namespace lathe {

struct GgufExport {
  std::string type = "q8_0";  // a name of gguf_mix_names()
  int threads = 0;            // 0: physical cores; never changes the result
  // Mean x^2 of each input of a layer, by parameter: what an error in that column costs. Absent: all alike.
  std::map<std::string, std::vector<float>, std::less<>> importance;
};

struct GgufSummary {
  size_t bytes = 0;                      // of the file
  std::map<std::string, int64_t> types;  // tensors of each type
  int64_t exact = 0;                     // matrices whose numbers are those of the model, none rounded
};

// Writes hyperparameters, tokenizer, chat template and all weights to `file`, one weight at a time; `file` is
// an AtomicFile's path(). Weights that hold the numbers of their type already keep them, bit for bit. Without
// a tokenizer in `from` the file has none either ("no_vocab"), with a warning. InputError where GGUF, or
// llama.cpp's architecture, cannot say what the model is.
GgufSummary export_gguf(const Model&, const Checkpoint& from, const GgufExport&, const fs::path& file);

}  // namespace lathe
