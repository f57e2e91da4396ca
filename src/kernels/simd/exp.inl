// exp(x) of a vector: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial of degree 7 in r (Cephes' expf),
// times 2^n. Relative error below 1.5e-7 where the result is a normal number; infinity and 0 beyond; NaN
// stays NaN.
#pragma once

namespace lathe {
namespace {

inline V exp(V x) {
  x = max(set(-105), min(set(89), x));
  const V n = round_to_integer(mul(x, set(1.44269504088896341f)));
  V r = fma(n, set(-0.693359375f), x);
  r = fma(n, set(2.12194440e-4f), r);
  V p = set(1.9875691500e-4f);
  p = fma(p, r, set(1.3981999507e-3f));
  p = fma(p, r, set(8.3334519073e-3f));
  p = fma(p, r, set(4.1665795894e-2f));
  p = fma(p, r, set(1.6666665459e-1f));
  p = fma(p, r, set(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), set(1));
  return times_power_of_two(p, n);
}

// Within 2^-22: for small x that is no small relative error.
inline V tanh(V x) { return sub(set(1), div(set(2), add(exp(add(x, x)), set(1)))); }

inline V silu(V x) { return div(x, add(set(1), exp(sub(zero(), x)))); }

}  // namespace
}  // namespace lathe
