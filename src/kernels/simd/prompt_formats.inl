// The exported kernels for prompts over each format, as instances of the ISA's `prompts<Format>`: included
// inside its namespace, after that template and the formats (linear.inl, stored.inl, grid.inl).
void prefill_f32(const LinearArgs& a, const Share& s) noexcept { prompts<Dense<float>>(a, s); }
void gated_f32(const GatedArgs& a, const Share& s) noexcept { prompts<Dense<float>>(a, s); }
void prefill_stored(const LinearArgs& a, const Share& s) noexcept { prompts<Stored>(a, s); }
void gated_stored(const GatedArgs& a, const Share& s) noexcept { prompts<Stored>(a, s); }
void prefill_f16(const LinearArgs& a, const Share& s) noexcept { prompts<Dense<F16>>(a, s); }
void gated_f16(const GatedArgs& a, const Share& s) noexcept { prompts<Dense<F16>>(a, s); }
void prefill_int4_bf16(const LinearArgs& a, const Share& s) noexcept {
  prompts<Integer<4, BF16, Rule::affine>>(a, s);
}
void gated_int4_bf16(const GatedArgs& a, const Share& s) noexcept {
  prompts<Integer<4, BF16, Rule::affine>>(a, s);
}
void prefill_int4_f16(const LinearArgs& a, const Share& s) noexcept {
  prompts<Integer<4, F16, Rule::affine>>(a, s);
}
void gated_int4_f16(const GatedArgs& a, const Share& s) noexcept {
  prompts<Integer<4, F16, Rule::affine>>(a, s);
}
void prefill_int4_f32(const LinearArgs& a, const Share& s) noexcept {
  prompts<Integer<4, float, Rule::shifted>>(a, s);
}
void gated_int4_f32(const GatedArgs& a, const Share& s) noexcept {
  prompts<Integer<4, float, Rule::shifted>>(a, s);
}
void prefill_int4_min(const LinearArgs& a, const Share& s) noexcept {
  prompts<Integer<4, float, Rule::minimum>>(a, s);
}
void gated_int4_min(const GatedArgs& a, const Share& s) noexcept {
  prompts<Integer<4, float, Rule::minimum>>(a, s);
}
void prefill_int8_bf16(const LinearArgs& a, const Share& s) noexcept {
  prompts<Integer<8, BF16, Rule::affine>>(a, s);
}
void gated_int8_bf16(const GatedArgs& a, const Share& s) noexcept {
  prompts<Integer<8, BF16, Rule::affine>>(a, s);
}
void prefill_int8_f16(const LinearArgs& a, const Share& s) noexcept {
  prompts<Integer<8, F16, Rule::affine>>(a, s);
}
void gated_int8_f16(const GatedArgs& a, const Share& s) noexcept {
  prompts<Integer<8, F16, Rule::affine>>(a, s);
}
void prefill_int8_f32(const LinearArgs& a, const Share& s) noexcept {
  prompts<Integer<8, float, Rule::shifted>>(a, s);
}
void gated_int8_f32(const GatedArgs& a, const Share& s) noexcept {
  prompts<Integer<8, float, Rule::shifted>>(a, s);
}
void prefill_int8_min(const LinearArgs& a, const Share& s) noexcept {
  prompts<Integer<8, float, Rule::minimum>>(a, s);
}
void gated_int8_min(const GatedArgs& a, const Share& s) noexcept {
  prompts<Integer<8, float, Rule::minimum>>(a, s);
}
void prefill_lut4_e4m3(const LinearArgs& a, const Share& s) noexcept { prompts<Lut4<E4M3>>(a, s); }
void gated_lut4_e4m3(const GatedArgs& a, const Share& s) noexcept { prompts<Lut4<E4M3>>(a, s); }
void prefill_lut4_e8m0(const LinearArgs& a, const Share& s) noexcept { prompts<Lut4<E8M0>>(a, s); }
void gated_lut4_e8m0(const GatedArgs& a, const Share& s) noexcept { prompts<Lut4<E8M0>>(a, s); }
void prefill_lut4_f32(const LinearArgs& a, const Share& s) noexcept { prompts<Lut4<float>>(a, s); }
void gated_lut4_f32(const GatedArgs& a, const Share& s) noexcept { prompts<Lut4<float>>(a, s); }
void prefill_fp8_bf16(const LinearArgs& a, const Share& s) noexcept { prompts<Fp8<BF16>>(a, s); }
void gated_fp8_bf16(const GatedArgs& a, const Share& s) noexcept { prompts<Fp8<BF16>>(a, s); }
void prefill_fp8_f16(const LinearArgs& a, const Share& s) noexcept { prompts<Fp8<F16>>(a, s); }
void gated_fp8_f16(const GatedArgs& a, const Share& s) noexcept { prompts<Fp8<F16>>(a, s); }
void prefill_fp8_f32(const LinearArgs& a, const Share& s) noexcept { prompts<Fp8<float>>(a, s); }
void gated_fp8_f32(const GatedArgs& a, const Share& s) noexcept { prompts<Fp8<float>>(a, s); }
void prefill_fp8_e8m0(const LinearArgs& a, const Share& s) noexcept { prompts<Fp8<E8M0>>(a, s); }
void gated_fp8_e8m0(const GatedArgs& a, const Share& s) noexcept { prompts<Fp8<E8M0>>(a, s); }
