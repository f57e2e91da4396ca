// A decoder with its KV cache as an ONNX model: the recorded graph, op by op.
#pragma once

#include <map>
#include <string>

#include "core/file.h"
#include "models/model.h"

namespace lathe {

struct OnnxExport {
  // What matrices that are not quantized are stored in; "stored": as they are. Ops compute in f32 whatever it
  // is.
  std::string type = "stored";  // a name of onnx_types()
};
std::vector<std::string> onnx_types();  // "stored", "f32", "f16", "bf16"

struct OnnxSummary {
  size_t bytes = 0;                      // of the graph and its data
  std::map<std::string, int64_t> forms;  // matrices of each form (export/onnx_weights.h)
};

// Writes model.onnx, model.onnx.data, config.json and the tokenizer's files into `directory`, an
// AtomicDirectory's path(). Opset 21 and com.microsoft's MatMulNBits. Inputs, as Optimum names them:
//   input_ids, position_ids [batch, sequence]; attention_mask [batch, total]: 0 hides a position (padding);
//   past_key_values.I.key and .value [batch, key heads, past, head size], total = past + sequence
// and outputs: logits [batch, sequence, vocabulary], present.I.key and .value [.., total, ..].
// Quantized weights keep their numbers, except for those that ONNX has no form for: they are written as f32,
// with a warning. InputError where a value does not fit the type.
OnnxSummary export_onnx(const Model&, const Checkpoint& from, const OnnxExport&, const fs::path& directory);

}  // namespace lathe
