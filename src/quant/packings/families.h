// The packings of each family, in table order. A new family is a file here, a line below and a line in
// packing.cpp.
#pragma once

#include <span>

#include "quant/packing.h"

namespace lathe {

std::span<const Packing> dense_packings();
std::span<const Packing> ct_packings();
std::span<const Packing> float_packings();
std::span<const Packing> bnb_packings();
std::span<const Packing> gptq_packings();
std::span<const Packing> modelopt_packings();
std::span<const Packing> gguf_packings();
std::span<const Packing> gguf_k_packings();
std::span<const Packing> gguf_float_packings();
std::span<const Packing> panel_packings();
std::span<const Packing> k_panel_packings();

// Sizes `c` for so many numbers, to be filled. Allocates nothing where it held as many before.
void prepare(Codes& c, const Numerics&, int64_t rows, int64_t cols);

// The scale of the input that comes with the model, where one does: the last part, but for g_idx. NVFP4's is
// stored as `stored` says, and read as `meant` says. With row 0, as strips may be packed at the same time.
void store_input_scale(const Codes&, int64_t row, Weight& out, float (*stored)(float) = nullptr);
void load_input_scale(const Weight&, Codes&, float (*meant)(float) = nullptr);

}  // namespace lathe
