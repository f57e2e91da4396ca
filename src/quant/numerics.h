// Which numbers a weight may hold. Says nothing about bytes: that is a Packing.
#pragma once

#include <cstdint>
#include <string>

#include "core/tensor.h"

namespace lathe {

// A weight w is  dense:       the element itself;
//                none:        w = scale * q           q signed, -2^(bits-1) .. 2^(bits-1) - 1
//                zero_point:  w = scale * (q - zero)  q and zero signed, as above
//                minimum:     w = scale * q - minimum q unsigned, 0 .. 2^bits - 1 (GGUF k-quants)
struct Numerics {
  enum class Kind : uint8_t { dense, integer };
  enum class Offset : uint8_t { none, zero_point, minimum };
  // What a linear layer does to its input first. int8_per_row: rounds each row to integers in -127 .. 127
  // times max |x| / 127 (quant/activations.h).
  enum class Activations : uint8_t { as_they_are, int8_per_row };

  Kind kind = Kind::dense;
  DType dtype = DType::bf16;  // dense: the element; integer: the stored scale
  uint8_t bits = 16;          // integer: 2 .. 8
  int group = 0;              // elements along a row that share a scale; 0: the whole row ("per channel")
  Offset offset = Offset::none;
  Activations activations = Activations::as_they_are;

  bool operator==(const Numerics&) const = default;

  static Numerics dense(DType dtype) {
    return {Kind::dense, dtype, static_cast<uint8_t>(8 * dtype_bytes(dtype)), 0, Offset::none, {}};
  }
  static Numerics integer(int bits, int group, bool asymmetric, DType scale = DType::bf16) {
    return {Kind::integer,
            scale,
            static_cast<uint8_t>(bits),
            group,
            asymmetric ? Offset::zero_point : Offset::none,
            {}};
  }
  // W8A8: int8 weights with a scale per row, int8 activations with a scale per token.
  static Numerics w8a8(DType scale = DType::bf16) {
    Numerics n = integer(8, 0, false, scale);
    n.activations = Activations::int8_per_row;
    return n;
  }

  bool is_dense() const { return kind == Kind::dense; }
  int64_t groups(int64_t cols) const { return group == 0 ? 1 : (cols + group - 1) / group; }  // per row
  int code_min() const { return offset == Offset::minimum ? 0 : -(1 << (bits - 1)); }
  int code_max() const { return offset == Offset::minimum ? (1 << bits) - 1 : (1 << (bits - 1)) - 1; }
};

std::string to_string(const Numerics&);  // "bf16", "int8", "int4 g32 asym", "int6 g16", "int8 a8"

// "w8a16", "w4a16", "w8a8" (of the command line) with a group size; InputError on an unknown scheme.
// group_size: -1 takes the scheme's default (int8: per channel, int4: 128), 0: per channel.
Numerics parse_scheme(std::string_view scheme, int group_size, bool asymmetric, DType scale);

}  // namespace lathe
