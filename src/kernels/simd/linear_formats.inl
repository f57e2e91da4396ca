// The exported kernels over each format of linear.inl and stored.inl: included inside the namespace of an
// ISA, after those.
void linear_f32(const LinearArgs& a, const Share& s) noexcept { linear<Dense<float>>(a, s); }
void linear_f16(const LinearArgs& a, const Share& s) noexcept { linear<Dense<F16>>(a, s); }
void linear_bf16(const LinearArgs& a, const Share& s) noexcept { linear<Dense<BF16>>(a, s); }
void linear_stored(const LinearArgs& a, const Share& s) noexcept { linear<Stored>(a, s); }
void linear_int4_bf16(const LinearArgs& a, const Share& s) noexcept {
  linear<Integer<4, BF16, Rule::affine>>(a, s);
}
void linear_int4_f16(const LinearArgs& a, const Share& s) noexcept {
  linear<Integer<4, F16, Rule::affine>>(a, s);
}
void linear_int4_f32(const LinearArgs& a, const Share& s) noexcept {
  linear<Integer<4, float, Rule::shifted>>(a, s);
}
void linear_int4_min(const LinearArgs& a, const Share& s) noexcept {
  linear<Integer<4, float, Rule::minimum>>(a, s);
}
void linear_int8_bf16(const LinearArgs& a, const Share& s) noexcept {
  linear<Integer<8, BF16, Rule::affine>>(a, s);
}
void linear_int8_f16(const LinearArgs& a, const Share& s) noexcept {
  linear<Integer<8, F16, Rule::affine>>(a, s);
}
void linear_int8_f32(const LinearArgs& a, const Share& s) noexcept {
  linear<Integer<8, float, Rule::shifted>>(a, s);
}
void linear_int8_min(const LinearArgs& a, const Share& s) noexcept {
  linear<Integer<8, float, Rule::minimum>>(a, s);
}
