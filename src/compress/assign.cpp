// Which parameters become which numbers.
#include <algorithm>
#include <set>

#include "compress/matrices.h"
#include "compress/quantize.h"
#include "core/error.h"

namespace lathe {
namespace {

bool selected(const Matrix& m, const Selection& s) {
  if (m.router)
    return false;  // small, and a choice of experts that a step of rounding flips is another function
  if (m.head) return s.head;
  if (m.embedding) return s.embeddings;
  return true;
}

}  // namespace

std::string module_path(std::string_view param) {
  constexpr std::string_view suffix = ".weight";
  return std::string(param.ends_with(suffix) ? param.substr(0, param.size() - suffix.size()) : param);
}

DType scale_dtype(const Json& config) {
  // Newer transformers call it "dtype".
  const std::string name = get_string_or(config, config.contains("torch_dtype") ? "torch_dtype" : "dtype",
                                         "config.json", "bfloat16");
  if (name == "float32") return DType::f32;
  if (name == "float16") return DType::f16;
  return DType::bf16;
}

void require_whole_groups(const std::string& param, const Weight& w, const Numerics& n) {
  if (n.group == 0 || n.block_rows != 1 || w.cols() % n.group == 0) return;  // blocks may be ragged
  int largest = 1;
  while (largest * 2 < n.group && w.cols() % (largest * 2) == 0) largest *= 2;
  throw input_error(
      param, fmt::format("columns in whole groups of {}", n.group), fmt::format("{} columns", w.cols()),
      fmt::format("use --group-size {} or 0 (per channel), or --keep '{}'", largest, module_path(param)));
}

Assignment assign_all(const Model& model, const Numerics& numerics, const Selection& selection) {
  Assignment assignment;
  std::set<std::string> used;
  for (const auto& [param, matrix] : matrices(model.graph)) {
    bool kept = false;
    for (const std::string& glob : selection.keep)
      if (matrix.matches(glob)) {
        used.insert(glob);
        kept = true;
      }
    if (kept || !selected(matrix, selection)) continue;
    require_whole_groups(param, model.weights.at(param), numerics);
    assignment[param] = numerics;
  }
  for (const std::string& glob : selection.keep)
    if (!used.contains(glob))
      throw input_error("--keep", "a glob over module paths such as 'model.layers.0.*'",
                        fmt::format("'{}', which matches none", printable(glob)),
                        "`lathe inspect --graph MODEL` lists them");
  return assignment;
}

size_t assigned_bytes(const Model& model, const Assignment& assignment) {
  size_t bytes = 0;
  for (const auto& [name, weight] : model.weights) {
    const auto it = assignment.find(name);
    bytes += it == assignment.end() ? weight.bytes()
                                    : packed_bytes(it->second, storage_packing(it->second), weight.shape);
  }
  return bytes;
}

}  // namespace lathe
