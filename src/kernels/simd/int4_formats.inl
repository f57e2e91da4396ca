// The exported kernels over each format of int4.inl: included inside the namespace of an ISA, after it.
void int4_bf16(const LinearArgs& a, const Share& s) noexcept { int4<BF16, Kind::signed_codes>(a, s); }
void int4_f16(const LinearArgs& a, const Share& s) noexcept { int4<F16, Kind::signed_codes>(a, s); }
void int4_f32(const LinearArgs& a, const Share& s) noexcept { int4<float, Kind::signed_codes>(a, s); }
void int4_min(const LinearArgs& a, const Share& s) noexcept { int4<float, Kind::minimum>(a, s); }
void int4_gated_bf16(const GatedArgs& a, const Share& s) noexcept {
  int4_gated<BF16, Kind::signed_codes>(a, s);
}
void int4_gated_f16(const GatedArgs& a, const Share& s) noexcept {
  int4_gated<F16, Kind::signed_codes>(a, s);
}
void int4_gated_f32(const GatedArgs& a, const Share& s) noexcept {
  int4_gated<float, Kind::signed_codes>(a, s);
}
void int4_gated_min(const GatedArgs& a, const Share& s) noexcept { int4_gated<float, Kind::minimum>(a, s); }
