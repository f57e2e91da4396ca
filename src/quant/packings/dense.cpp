// "dense": the elements themselves. "dense.strided": the same where they lie apart, as those of one expert do
// in a tensor of all, transposed or gate and up by turns. "expand.f32": any weight as the floats it means,
// for kernels that read floats.
#include <cstring>

#include "core/float.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

bool holds_floats(const Numerics& n) { return n.is_dense() && is_float(n.dtype) && !n.column_scales; }

std::vector<Part> dense_parts(const Numerics& n, const Shape& shape) { return {{"weight", n.dtype, shape}}; }

// `values` holds rows of `out`, whose only part is a float tensor.
void store(const float* values, int64_t row, int64_t rows, Weight& out) {
  Tensor& to = out.parts[0];
  const int64_t cols = out.cols();
  from_f32(to.dtype, values, to.storage.data + static_cast<size_t>(row * cols) * dtype_bytes(to.dtype),
           rows * cols);
}

void pack_dense(const Codes& c, int64_t row, Weight& out) { store(c.values.data(), row, c.rows, out); }

void unpack_dense(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, Numerics::dense(w.parts[0].dtype), rows, w.cols());
  read_rows(w, row, rows, c.values.data());
}

// Element by element: a strip of rows takes as many adjacent columns of what it is transposed from.
template <class Bits>
void gather(const Tensor& from, int64_t row, int64_t rows, int64_t cols, std::vector<Bits>& out) {
  const int64_t across = from.strides.back(), down = from.strides.size() > 1 ? from.strides[0] : 0;
  out.resize(static_cast<size_t>(rows * cols));
  for (int64_t c = 0; c < cols; ++c)
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(&out[static_cast<size_t>(r * cols + c)],
                  from.storage.data + static_cast<size_t>((row + r) * down + c * across) * sizeof(Bits),
                  sizeof(Bits));
}

void unpack_strided(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  const Tensor& from = w.parts[0];
  prepare(c, Numerics::dense(from.dtype), rows, w.cols());
  const auto as = [&]<class Bits>(std::vector<Bits> bits) {
    gather(from, row, rows, c.cols, bits);
    to_f32(from.dtype, bits.data(), c.values.data(), rows * c.cols);
  };
  if (dtype_bytes(from.dtype) == 4)
    as(std::vector<uint32_t>());
  else if (dtype_bytes(from.dtype) == 2)
    as(std::vector<uint16_t>());
  else
    as(std::vector<uint8_t>());
}

bool holds_all(const Numerics&) { return true; }

std::vector<Part> expand_parts(const Numerics&, const Shape& shape) {
  return {{"weight", DType::f32, shape}};
}

void pack_expand(const Codes& c, int64_t row, Weight& out) {
  std::vector<float> values(static_cast<size_t>(c.rows * c.cols));
  dequantize(c, values.data());
  store(values.data(), row, c.rows, out);
}

constexpr Packing rows[] = {
    {"dense", holds_floats, dense_parts, pack_dense, unpack_dense},
    {"dense.strided", holds_floats, dense_parts, nullptr, unpack_strided},
    {"expand.f32", holds_all, expand_parts, pack_expand, unpack_dense},
};

}  // namespace

std::span<const Packing> dense_packings() { return rows; }

}  // namespace lathe
