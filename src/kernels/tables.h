// One ordered table per op, three readers: dispatch, tests and benches walk the same rows, best first,
// reference last.
#pragma once

#include <span>
#include <string_view>

#include "kernels/attention.h"
#include "kernels/clamped_silu.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/sample.h"
#include "quant/packing.h"

namespace lathe {

// The type of the products that a kernel sums: it names the roof of its arithmetic (eval/roof.h).
enum class Products : uint8_t { f32, bf16, int8 };

// Worker r of as many workers as rows packs row r and reads no other, as the kernels of ElementwiseKernels
// but low_rank do: so a plan takes a row through several of them at once.
struct RowPacking {
  std::string_view name;
  Products products;
  size_t (*bytes)(int64_t m, int64_t k);
  void (*run)(const PackRowsArgs&, const Share&) noexcept;
  // Gated kernels that read these rows can write them too: an element needs no other of its row, and no
  // scale.
  bool gated_writes = false;
  // Rounded to what PackRowsArgs::to says, as the floats that this means.
  bool any_numerics = false;
};

// One way to compute a linear layer. A row's bits depend neither on the other rows nor on the workers.
struct LinearPath {
  void (*run)(const LinearArgs&, const Share&) noexcept = nullptr;
  const RowPacking* rows = nullptr;  // wants LinearArgs::packed_x; null: reads x
  void (*gated)(const GatedArgs&, const Share&) noexcept = nullptr;  // null: run twice, then multiply
  Products products() const { return rows ? rows->products : Products::f32; }
};

struct LinearKernel {
  std::string_view name;  // "avx512.int4": what reports and traces print
  uint32_t isa;           // CPU features required (core/cpu.h); 0 for the reference
  // Wants its weight repacked to this; "expand.*" hold any numerics as f32 (emulated).
  std::string_view packing;
  bool (*accepts)(const Numerics&, int64_t n, int64_t k);
  LinearPath decode;   // few rows of x: decoding, verifying drafts
  LinearPath prefill;  // prompts: other arithmetic where that is faster; empty: as decode
  // Name of the row with the same bits and a better packing. This one is for weights as a checkpoint stores
  // them: a plan may start with it, and repack as it runs (Target::ready_at_once).
  std::string_view starts_for = {};
  const LinearPath& path(bool prompt) const { return prompt && prefill.run ? prefill : decode; }
};

// No kernel reads these numbers themselves: the row holds them expanded to f32, four bytes per weight.
inline bool expands(const LinearKernel& row, const Numerics& numerics) {
  return row.packing.starts_with("expand.") && numerics != Numerics::dense(DType::f32);
}
// That, or none multiplies them: rows of x are rounded to floats of 8 or 4 bits, and then multiplied as f32.
inline bool emulates(const LinearKernel& row, const Numerics& numerics) {
  return expands(row, numerics) || (numerics.rounds_activations() && !numerics.rounds_to_int8());
}

// One way to compute attention. `most_columns` are what a group may have, `least_columns` what still pays for
// reading its keys; `splits`: items may be parts of a group. A row's bits depend on its position only.
struct AttentionPath {
  void (*run)(const AttentionArgs&, const Share&) noexcept = nullptr;
  int64_t most_columns = 0, least_columns = 0;
  bool splits = false;
  Products products = Products::f32;
};

// Two paths, as in LinearKernel. Every row honours every field of AttentionArgs.
struct AttentionKernel {
  std::string_view name;
  uint32_t isa;
  bool (*accepts)(int64_t head_dim, KvType);
  // `scale`: of int8, fp8 and nvfp4 rows where it is given; 0: each row finds its own.
  void (*write_kv)(KvType, const float* x, int64_t head_dim, void* row, float scale) noexcept;
  AttentionPath decode;
  AttentionPath prefill = {};  // prompts; empty: as decode
  const AttentionPath& path(bool prompt) const { return prompt && prefill.run ? prefill : decode; }
};
inline constexpr std::string_view kv_type_names[] = {"f32", "bf16",  "int8",        "int4",
                                                     "fp8", "nvfp4", "int4-channel"};

// The elementwise ops of one ISA level.
struct ElementwiseKernels {
  std::string_view name;
  uint32_t isa;
  void (*rms_norm)(const RmsNormArgs&, const Share&) noexcept;
  void (*add_rms_norm)(const AddRmsNormArgs&, const Share&) noexcept;
  void (*rope)(const RopeArgs&, const Share&) noexcept;
  void (*low_rank)(const LowRankArgs&, const Share&) noexcept;
  void (*hadamard)(const HadamardArgs&, const Share&) noexcept;
  void (*take_columns)(const TakeColumnsArgs&, const Share&) noexcept;
  void (*add)(const BinaryArgs&, const Share&) noexcept;
  void (*mul)(const BinaryArgs&, const Share&) noexcept;
  void (*silu)(const BinaryArgs&, const Share&) noexcept;
  void (*silu_mul)(const BinaryArgs&, const Share&) noexcept;
  void (*clamped_silu_mul)(const ClampedSiluArgs&, const Share&) noexcept;
  // kernels/sample.h. The largest number, -infinity of none; the numbers that reach a bound above 0.
  float (*largest)(const float* x, int64_t n) noexcept;
  void (*exponentials)(const ExponentialsArgs&) noexcept;
  Tail (*at_least)(const float* x, int64_t n, float bound) noexcept;
};

std::span<const LinearKernel> linear_kernels();
std::span<const AttentionKernel> attention_kernels();
std::span<const ElementwiseKernels> elementwise_kernels();

// First row whose features are all in `features` and that accepts.
const LinearKernel& choose_linear(const Numerics&, int64_t n, int64_t k, uint32_t features);
// The row that gives the bits of `chosen` over weights of the packing `stored_as`; null: none.
const LinearKernel* row_that_starts_for(const LinearKernel& chosen, std::string_view stored_as);
const AttentionKernel& choose_attention(int64_t head_dim, KvType, uint32_t features);
const ElementwiseKernels& choose_elementwise(uint32_t features);

// Index of the largest logit, the first of equals; -1 where none is above -infinity. NaN never wins.
int64_t most_likely(std::span<const float> logits, const ElementwiseKernels&);

}  // namespace lathe
