// Kernels for prompts over each format, the same list on every ISA that has them: included inside its
// namespace, after kernels/linear.h. y = x W^T + bias with x and W rounded to bf16 and sums in f32; x comes
// packed.
void prefill_f32(const LinearArgs&, const Share&) noexcept;     // panel.f32, panel.f16
void prefill_stored(const LinearArgs&, const Share&) noexcept;  // dense: bf16 as in a checkpoint
void prefill_f16(const LinearArgs&, const Share&) noexcept;
void prefill_int4_bf16(const LinearArgs&, const Share&) noexcept;  // panel.int4 and panel.int8
void prefill_int4_f16(const LinearArgs&, const Share&) noexcept;
void prefill_int4_f32(const LinearArgs&, const Share&) noexcept;
void prefill_int4_min(const LinearArgs&, const Share&) noexcept;
void prefill_int8_bf16(const LinearArgs&, const Share&) noexcept;
void prefill_int8_f16(const LinearArgs&, const Share&) noexcept;
void prefill_int8_f32(const LinearArgs&, const Share&) noexcept;
void prefill_int8_min(const LinearArgs&, const Share&) noexcept;
void prefill_lut4_e4m3(const LinearArgs&, const Share&) noexcept;  // panel.lut4 and panel.fp8
void prefill_lut4_e8m0(const LinearArgs&, const Share&) noexcept;
void prefill_lut4_f32(const LinearArgs&, const Share&) noexcept;
void prefill_fp8_bf16(const LinearArgs&, const Share&) noexcept;
void prefill_fp8_f16(const LinearArgs&, const Share&) noexcept;
void prefill_fp8_f32(const LinearArgs&, const Share&) noexcept;
void prefill_fp8_e8m0(const LinearArgs&, const Share&) noexcept;

// The same for y = silu(x Wg^T) * (x Wu^T).
void gated_f32(const GatedArgs&, const Share&) noexcept;
void gated_stored(const GatedArgs&, const Share&) noexcept;
void gated_f16(const GatedArgs&, const Share&) noexcept;
void gated_int4_bf16(const GatedArgs&, const Share&) noexcept;
void gated_int4_f16(const GatedArgs&, const Share&) noexcept;
void gated_int4_f32(const GatedArgs&, const Share&) noexcept;
void gated_int4_min(const GatedArgs&, const Share&) noexcept;
void gated_int8_bf16(const GatedArgs&, const Share&) noexcept;
void gated_int8_f16(const GatedArgs&, const Share&) noexcept;
void gated_int8_f32(const GatedArgs&, const Share&) noexcept;
void gated_int8_min(const GatedArgs&, const Share&) noexcept;
void gated_lut4_e4m3(const GatedArgs&, const Share&) noexcept;
void gated_lut4_e8m0(const GatedArgs&, const Share&) noexcept;
void gated_lut4_f32(const GatedArgs&, const Share&) noexcept;
void gated_fp8_bf16(const GatedArgs&, const Share&) noexcept;
void gated_fp8_f16(const GatedArgs&, const Share&) noexcept;
void gated_fp8_f32(const GatedArgs&, const Share&) noexcept;
void gated_fp8_e8m0(const GatedArgs&, const Share&) noexcept;
