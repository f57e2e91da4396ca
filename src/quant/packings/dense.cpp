// "dense": the elements themselves. "expand.f32": any weight as the floats it means, for kernels that read
// floats.
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
    {"expand.f32", holds_all, expand_parts, pack_expand, unpack_dense},
};

}  // namespace

std::span<const Packing> dense_packings() { return rows; }

}  // namespace lathe
