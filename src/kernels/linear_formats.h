// Linear layers over each format in f32 vectors, the same list on every ISA: included inside its namespace,
// after kernels/linear.h. By what the packing stores: elements; or codes and the type of their scales, "min"
// being f32 scales and minima.
void linear_f32(const LinearArgs&, const Share&) noexcept;
void linear_f16(const LinearArgs&, const Share&) noexcept;
void linear_bf16(const LinearArgs&, const Share&) noexcept;
void linear_stored(const LinearArgs&, const Share&) noexcept;  // dense: bf16 as in a checkpoint
void linear_int4_bf16(const LinearArgs&, const Share&) noexcept;
void linear_int4_f16(const LinearArgs&, const Share&) noexcept;
void linear_int4_f32(const LinearArgs&, const Share&) noexcept;
void linear_int4_min(const LinearArgs&, const Share&) noexcept;
void linear_int8_bf16(const LinearArgs&, const Share&) noexcept;
void linear_int8_f16(const LinearArgs&, const Share&) noexcept;
void linear_int8_f32(const LinearArgs&, const Share&) noexcept;
void linear_int8_min(const LinearArgs&, const Share&) noexcept;

// panel.lut4 by the type of the scales, panel.fp8 likewise (kernels/simd/grid.inl).
void linear_lut4_e4m3(const LinearArgs&, const Share&) noexcept;
void linear_lut4_e8m0(const LinearArgs&, const Share&) noexcept;
void linear_lut4_f32(const LinearArgs&, const Share&) noexcept;
void linear_fp8_bf16(const LinearArgs&, const Share&) noexcept;
void linear_fp8_f16(const LinearArgs&, const Share&) noexcept;
void linear_fp8_f32(const LinearArgs&, const Share&) noexcept;
void linear_fp8_e8m0(const LinearArgs&, const Share&) noexcept;
