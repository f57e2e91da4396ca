// Round-to-nearest quantization, parameter by parameter.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/thread_pool.h"
#include "models/model.h"
#include "quant/round.h"

namespace lathe {

// Which parameters become which numbers; the others stay as they are. By parameter name
// ("....up_proj.weight").
using Assignment = std::map<std::string, Numerics, std::less<>>;

// Every matrix of a linear layer but those that route to experts, and with `embeddings` / `head` those too (a
// tied table is one parameter: it counts as the head). `keep` are globs over module paths that stay as they
// are.
struct Selection {
  bool head = false, embeddings = false;
  std::vector<std::string> keep;
};
// InputError when a `keep` glob matches nothing, and as require_whole_groups().
Assignment assign_all(const Model&, const Numerics&, const Selection&);
// InputError when the columns are not whole groups: compressed-tensors has no ragged groups.
void require_whole_groups(const std::string& param, const Weight&, const Numerics&);

// "model.layers.0.mlp.up_proj" of "model.layers.0.mlp.up_proj.weight": what people and recipes call a
// parameter.
std::string module_path(std::string_view param);
// The type that scales are stored in: the checkpoint's own torch_dtype. Loaders of compressed-tensors make
// scales in the model's dtype, so any other would be rounded a second time when somebody else opens the
// model.
DType scale_dtype(const Json& config);

// A uniform change of one weight, in strips: memory beside the result stays small. The result's packing is
// the one that compressed-tensors uses for these numbers. Threads (0: physical cores) never change the
// result. `largest`: as of round_to_nearest(); negative: the weight's own.
Weight quantize_weight(const Weight&, const Numerics&, ScaleRule, int threads = 0, float largest = -1);
Weight quantize_weight(ThreadPool&, const Weight&, const Numerics&, ScaleRule, float largest = -1);
// Per parameter that becomes numbers with a global scale: the largest magnitude among all such that read the
// same input (q, k and v; gate and up). Runtimes fuse these and expect one global scale.
std::map<std::string, float, std::less<>> shared_largest(const Model&, const Assignment&, int threads = 0);
const Packing& storage_packing(const Numerics&);
Weight pack_codes(const Codes&, const Shape&);  // all rows, in the packing that files have for them
// Bytes that each of so many workers holds while it rounds the weight, beside what becomes of it.
size_t strip_memory(const Weight&, const Numerics&, int workers);
// The fewest of a weight's rows that can be rounded and packed alone: they begin at multiples of this.
int64_t rows_that_share(const Numerics&, int64_t rows);
// The rows of `codes` as rows [row, row + codes.rows) of what make_weight returned.
void pack_rows(ThreadPool&, const Codes& codes, int64_t row, Weight& to);
Weight to_dense(const Weight&, DType);  // rounded to that type

// In memory.
void quantize(Model&, const Assignment&, ScaleRule, int threads = 0);
// Bytes of all weights under an assignment, without quantizing anything.
size_t assigned_bytes(const Model&, const Assignment&);

// Streams a model to a Hugging Face directory, one weight at a time: mapped, quantized, written, forgotten.
// Returns the model's hash. Companion files are copied. `directory` is an AtomicDirectory's path(). A weight
// whose numbers compressed-tensors cannot hold (GGUF's k-quants) is written dense in the model's dtype, with
// a warning.
std::string save(const Model&, const Checkpoint& from, const Assignment&, ScaleRule,
                 const fs::path& directory, int threads = 0);
// The hash that save() would return for these weights as they are.
std::string hash_of(const Model&);

}  // namespace lathe
