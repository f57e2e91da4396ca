// A model's tokenizer and chat template as GGUF metadata.
#pragma once

#include <vector>

#include "io/checkpoint.h"
#include "io/gguf_writer.h"

namespace lathe {

// tokenizer.ggml.* and tokenizer.chat_template, for a table of `rows` tokens: ids without a token are filled
// up as unused. A GGUF source hands its own on. Empty where the checkpoint has no tokenizer. InputError for a
// tokenizer that GGUF cannot describe, saying what it is about it.
std::vector<GgufEntry> tokenizer_metadata(const Checkpoint& from, int64_t rows);

}  // namespace lathe
