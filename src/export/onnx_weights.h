// How weights lie in an ONNX file, and which ops read them: a table, first row that holds a weight first.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "export/onnx_file.h"
#include "quant/packing.h"

namespace lathe {

// A matrix that has been written, and how its parts are called: `name`, `name`_scale, `name`_zero_point.
struct OnnxWeight {
  const struct OnnxForm* form = nullptr;
  std::string name;
  Numerics numerics;
  int64_t rows = 0, cols = 0;
};

struct OnnxForm {
  std::string_view name;     // of reports: "MatMulNBits", "QDQ", ...
  std::string_view summary;  // which numbers, and whether they stay exactly those
  bool (*holds)(const Numerics&, int64_t cols);
  // `dense`: the type of matrices that are not quantized.
  void (*store)(OnnxFile&, const OnnxWeight&, const Weight&, DType dense);
  // y = x W^T (+ bias): x [rows, cols] f32; `bias` is empty or a vector's name.
  std::string (*linear)(OnnxFile&, const OnnxWeight&, const std::string& x, const std::string& bias);
  // Rows of the matrix, f32: ids [rows] i64.
  std::string (*gather)(OnnxFile&, const OnnxWeight&, const std::string& ids);
};
std::span<const OnnxForm> onnx_forms();

// `dense`: as above; absent types stay as they are. Always finds a form: the last row writes f32.
OnnxWeight write_onnx_weight(OnnxFile&, const std::string& name, const Weight&, const DType* dense);

}  // namespace lathe
