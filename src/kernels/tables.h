// One ordered table per op, three readers: dispatch, tests and benches walk the same rows, best first,
// reference last.
#pragma once

#include <span>
#include <string_view>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "quant/packing.h"

namespace lathe {

struct LinearKernel {
  std::string_view name;  // "avx512.int4": what reports and traces print
  uint32_t isa;           // CPU features required (core/cpu.h); 0 for the reference
  std::string_view
      packing;  // wants its weight repacked to this; "expand.*" hold any numerics as f32 (emulated)
  bool (*accepts)(const Numerics&, int64_t n, int64_t k);
  void (*run)(const LinearArgs&, const Share&) noexcept;
};

struct AttentionKernel {
  std::string_view name;
  uint32_t isa;
  bool (*accepts)(int64_t head_dim);
  void (*run)(const AttentionArgs&, const Share&) noexcept;
};

// The elementwise ops of one ISA level.
struct ElementwiseKernels {
  std::string_view name;
  uint32_t isa;
  void (*rms_norm)(const RmsNormArgs&, const Share&) noexcept;
  void (*add_rms_norm)(const AddRmsNormArgs&, const Share&) noexcept;
  void (*rope)(const RopeArgs&, const Share&) noexcept;
  void (*add)(const BinaryArgs&, const Share&) noexcept;
  void (*mul)(const BinaryArgs&, const Share&) noexcept;
  void (*silu)(const BinaryArgs&, const Share&) noexcept;
  void (*silu_mul)(const BinaryArgs&, const Share&) noexcept;
};

std::span<const LinearKernel> linear_kernels();
std::span<const AttentionKernel> attention_kernels();
std::span<const ElementwiseKernels> elementwise_kernels();

// First row whose features are all in `features` and that accepts.
const LinearKernel& choose_linear(const Numerics&, int64_t n, int64_t k, uint32_t features);
const AttentionKernel& choose_attention(int64_t head_dim, uint32_t features);
const ElementwiseKernels& choose_elementwise(uint32_t features);

}  // namespace lathe
