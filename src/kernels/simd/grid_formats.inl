// The exported kernels over each format of grid.inl: included inside the namespace of an ISA, after those.
void linear_lut4_e4m3(const LinearArgs& a, const Share& s) noexcept { linear<Lut4<E4M3>>(a, s); }
void linear_lut4_e8m0(const LinearArgs& a, const Share& s) noexcept { linear<Lut4<E8M0>>(a, s); }
void linear_lut4_f32(const LinearArgs& a, const Share& s) noexcept { linear<Lut4<float>>(a, s); }
void linear_fp8_bf16(const LinearArgs& a, const Share& s) noexcept { linear<Fp8<BF16>>(a, s); }
void linear_fp8_f16(const LinearArgs& a, const Share& s) noexcept { linear<Fp8<F16>>(a, s); }
void linear_fp8_f32(const LinearArgs& a, const Share& s) noexcept { linear<Fp8<float>>(a, s); }
void linear_fp8_e8m0(const LinearArgs& a, const Share& s) noexcept { linear<Fp8<E8M0>>(a, s); }
