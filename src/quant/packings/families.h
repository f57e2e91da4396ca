// The packings of each family, in table order. A new family is a file here, a line below and a line in
// packing.cpp.
#pragma once

#include <span>

#include "quant/packing.h"

namespace lathe {

std::span<const Packing> dense_packings();
std::span<const Packing> ct_packings();
std::span<const Packing> gguf_packings();
std::span<const Packing> x86_packings();

// Codes for `rows` rows of `w`, sized, to be filled.
Codes empty_codes(const Weight& w, int64_t rows);

}  // namespace lathe
