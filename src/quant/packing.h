// How codes lie in memory. One file per family in packings/, one row each in packing.cpp.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "quant/codes.h"

namespace lathe {

struct Weight;

// One stored tensor of a packed weight.
struct Part {
  std::string_view name;  // on disk, after the module path: "weight", "weight_packed", "weight_scale", ...
  DType dtype;
  Shape shape;
};

struct Packing {
  std::string_view name;  // "dense", "ct.pack32", "ct.int8", "gguf.q4_0", "panel.int4", ...
  bool (*holds)(const Numerics&);
  // The stored tensors of a weight of that shape: known before any data, so writers lay out files, budgets
  // count bytes and readers check shapes from the same function.
  std::vector<Part> (*parts)(const Numerics&, const Shape&);
  // Stores codes as rows [row, row + codes.rows) of `out`. `row` is a multiple of pack_row_multiple and so is
  // codes.rows, except for the last rows of a weight. Null: this packing is only read.
  void (*pack)(const Codes&, int64_t row, Weight& out);
  // Allocates nothing where `out` held as many rows before.
  void (*unpack)(const Weight&, int64_t row, int64_t rows, Codes& out);
  // Index of the first block with a scale that is NaN or infinite, -1: none. Null: only parts of floats can
  // hold such.
  int64_t (*nonfinite)(const Weight&) = nullptr;
};

inline constexpr int64_t pack_row_multiple = 32;

// What a graph parameter is bound to. A vector (a norm, a bias) has shape [n] and counts as one row of n.
// Parts may be views of a file mapping: only what make_weight returned may be packed into.
struct Weight {
  Numerics numerics;
  const Packing* packing = nullptr;
  Shape shape;                // logical: [rows, cols] or [n]
  std::vector<Tensor> parts;  // as packing->parts() describes

  int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  int64_t cols() const;  // of a row; the trailing dimensions of a rank above 2 count as one
  size_t bytes() const;  // of all parts
};

std::span<const Packing> packings();
const Packing& packing(std::string_view name);  // Error when there is none

// An empty (zeroed, owned) weight to pack into.
Weight make_weight(const Numerics&, const Packing&, const Shape&);
Weight dense_weight(Tensor);  // wraps; the packing is "dense"
// Checks parts against packing->parts(): InputError naming `where`, expected and found.
void check_parts(const Weight&, std::string_view where);

// The scale that the weight's input is rounded with: 0 where numerics have none, or it is found per row.
// InputError when it is not a positive number.
float input_scale(const Weight&);

// Rows as floats; out holds rows * cols. What is not stored as floats is unpacked on the way: into `between`
// by callers that read again and again.
void read_rows(const Weight&, int64_t row, int64_t rows, float* out);
void read_rows(const Weight&, int64_t row, int64_t rows, float* out, Codes& between);
std::vector<float> read_all(const Weight&);
// Bytes a weight of that shape takes in that packing, without making one.
size_t packed_bytes(const Numerics&, const Packing&, const Shape&);
Codes unpack(const Weight&, int64_t row, int64_t rows);
// pack(unpack(w)), a strip of rows at a time: lossless by construction.
Weight repack(const Weight&, const Packing&);
// The same for pack_row_multiple rows (or the last ones) from `row`, into what make_weight returned.
void repack_strip(const Weight& from, int64_t row, Weight& to, Codes& between);

}  // namespace lathe
