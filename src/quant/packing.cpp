#include "quant/packing.h"

#include <cmath>

#include "core/error.h"
#include "core/float.h"
#include "quant/packings/families.h"

namespace lathe {

int64_t Weight::cols() const {
  if (shape.empty()) return 1;
  int64_t n = shape.size() == 1 ? shape[0] : 1;
  for (size_t i = 1; i < shape.size(); ++i) n *= shape[i];
  return n;
}

size_t Weight::bytes() const {
  size_t n = 0;
  for (const Tensor& part : parts) n += part.bytes();
  return n;
}

std::span<const Packing> packings() {
  static const std::vector<Packing> table = [] {
    std::vector<Packing> rows;
    for (auto family : {dense_packings(), ct_packings(), float_packings(), bnb_packings(), gptq_packings(),
                        modelopt_packings(), gguf_packings(), gguf_k_packings(), gguf_float_packings(),
                        panel_packings(), k_panel_packings()})
      rows.insert(rows.end(), family.begin(), family.end());
    return rows;
  }();
  return table;
}

const Packing& packing(std::string_view name) {
  for (const Packing& p : packings())
    if (p.name == name) return p;
  fail("no packing is called '{}'", name);
}

void prepare(Codes& c, const Numerics& numerics, int64_t rows, int64_t cols) {
  c.numerics = numerics;
  c.rows = rows;
  c.cols = cols;
  const bool dense = numerics.is_dense();
  const auto n = static_cast<size_t>(rows * cols), groups = static_cast<size_t>(rows * numerics.groups(cols));
  c.values.resize(dense ? n : 0);
  c.codes.resize(dense ? 0 : n);
  c.scales.resize(dense ? 0 : groups);
  c.global = 1;
  c.input_scale = 0;
  c.zeros.resize(dense || numerics.offset == Numerics::Offset::none ? 0 : groups);
  c.group_of.resize(numerics.act_order ? static_cast<size_t>(cols) : 0);
  c.columns.resize(numerics.column_scales ? static_cast<size_t>(cols) : 0);
}

static size_t input_scale_part(const Weight& w) { return w.parts.size() - (w.numerics.act_order ? 2 : 1); }

void store_input_scale(const Codes& c, int64_t row, Weight& out, float (*stored)(float)) {
  if (row != 0 || !out.numerics.has_input_scale()) return;
  const Tensor& part = out.parts[input_scale_part(out)];
  const float scale = out.numerics.activations == Activations::nvfp4 ? stored(c.input_scale) : c.input_scale;
  from_f32(part.dtype, &scale, part.storage.data, 1);
}

void load_input_scale(const Weight& w, Codes& c, float (*meant)(float)) {
  if (!w.numerics.has_input_scale()) return;
  const Tensor& part = w.parts[input_scale_part(w)];
  to_f32(part.dtype, part.storage.data, &c.input_scale, 1);
  if (w.numerics.activations == Activations::nvfp4) c.input_scale = meant(c.input_scale);
}

Weight make_weight(const Numerics& numerics, const Packing& packing, const Shape& shape) {
  if (!packing.holds(numerics)) fail("packing {} cannot hold {}", packing.name, to_string(numerics));
  Weight w{numerics, &packing, shape, {}};
  for (Part& part : packing.parts(numerics, shape))
    w.parts.push_back(Tensor::zeros(part.dtype, std::move(part.shape)));
  return w;
}

float input_scale(const Weight& w) {
  if (!w.numerics.has_input_scale()) return 0;
  const float scale = unpack(w, 0, 1).input_scale;
  if (!(scale > 0 && std::isfinite(scale)))
    throw input_error("input_scale", "a positive number", fmt::format("{}", scale),
                      "calibrate the model's activations again");
  return scale;
}

Weight dense_weight(Tensor tensor) {
  Weight w{Numerics::dense(tensor.dtype), &packing("dense"), tensor.shape, {}};
  w.parts.push_back(std::move(tensor));
  return w;
}

void check_parts(const Weight& w, std::string_view where) {
  const std::vector<Part> expected = w.packing->parts(w.numerics, w.shape);
  if (w.parts.size() != expected.size())
    throw input_error(where, fmt::format("{} tensors for {}", expected.size(), w.packing->name),
                      std::to_string(w.parts.size()));
  for (size_t i = 0; i < expected.size(); ++i) {
    const Tensor& found = w.parts[i];
    if (found.dtype != expected[i].dtype || found.shape != expected[i].shape)
      throw input_error(fmt::format("{}: {}", where, expected[i].name),
                        fmt::format("{} {}", dtype_name(expected[i].dtype), to_string(expected[i].shape)),
                        fmt::format("{} {}", dtype_name(found.dtype), to_string(found.shape)));
    if (found.storage.bytes < found.bytes())
      throw input_error(fmt::format("{}: {}", where, expected[i].name),
                        fmt::format("{} bytes", found.bytes()), fmt::format("{} bytes", found.storage.bytes));
  }
}

void read_rows(const Weight& w, int64_t row, int64_t rows, float* out) {
  Codes between;
  read_rows(w, row, rows, out, between);
}

void read_rows(const Weight& w, int64_t row, int64_t rows, float* out, Codes& between) {
  if (row < 0 || rows < 0 || rows > w.rows() - row)
    fail("rows {}+{} of a weight of {} rows", row, rows, w.rows());
  if (w.parts.size() == 1 && is_float(w.parts[0].dtype) &&
      w.parts[0].strides.empty()) {  // dense and expand.f32: the stored elements are the values
    const Tensor& values = w.parts[0];
    const int64_t cols = w.cols();
    to_f32(values.dtype, values.storage.data + static_cast<size_t>(row * cols) * dtype_bytes(values.dtype),
           out, rows * cols);
    return;
  }
  w.packing->unpack(w, row, rows, between);
  dequantize(between, out);
}

Codes unpack(const Weight& w, int64_t row, int64_t rows) {
  Codes c;
  w.packing->unpack(w, row, rows, c);
  return c;
}

std::vector<float> read_all(const Weight& w) {
  std::vector<float> out(static_cast<size_t>(w.rows() * w.cols()));
  const int64_t cols = w.cols();
  Codes between;
  for (int64_t row = 0; row < w.rows();
       row += pack_row_multiple)  // in strips: codes are bigger than what they unpack
    read_rows(w, row, std::min(pack_row_multiple, w.rows() - row), out.data() + row * cols, between);
  return out;
}

size_t packed_bytes(const Numerics& numerics, const Packing& packing, const Shape& shape) {
  size_t n = 0;
  for (const Part& part : packing.parts(numerics, shape))
    n += static_cast<size_t>(elements(part.shape)) * dtype_bytes(part.dtype);
  return n;
}

void repack_strip(const Weight& from, int64_t row, Weight& to, Codes& between) {
  from.packing->unpack(from, row, std::min(pack_row_multiple, from.rows() - row), between);
  to.packing->pack(between, row, to);
}

Weight repack(const Weight& w, const Packing& target) {
  if (!target.pack) fail("packing {} is only read", target.name);
  Weight out = make_weight(w.numerics, target, w.shape);
  Codes between;
  for (int64_t row = 0; row < w.rows(); row += pack_row_multiple) repack_strip(w, row, out, between);
  return out;
}

}  // namespace lathe
