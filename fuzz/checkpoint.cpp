// A description of a quantization, a zero byte, and a safetensors file: entries whose numbers can be read, or
// InputError. What starts with an exclamation mark stands in hf_quant_config.json. Entries that may hold the
// experts of gpt-oss are split as those.
#include "io/checkpoint.h"

#include "core/error.h"
#include "directory.h"
#include "models/stacked_experts.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  using namespace lathe::fuzzing;
  const auto input = halves(data, size);
  if (!input) return 0;
  const auto& [description, tensors] = *input;
  const bool beside = description.starts_with('!');
  put("hf_quant_config.json", beside ? description.substr(1) : "{");
  put("config.json", beside ? std::string("{}") : fmt::format("{{\"quantization_config\":{}}}", description));
  put("model.safetensors", tensors);
  try {
    const Checkpoint checkpoint = Checkpoint::open(directory());
    for (const Entry& entry : checkpoint.entries()) {
      const Weight w = checkpoint.load(entry.name);
      check_parts(w, entry.name);
      if (w.bytes() != entry.bytes) __builtin_trap();
      if (w.numerics.is_dense() && !is_float(w.numerics.dtype)) continue;
      if (w.shape.empty() || elements(w.shape) > 1 << 20) continue;
      read_all(w);
      std::map<std::string, Binding, std::less<>> experts;
      if (split_experts(entry, {{"model_type", "gpt_oss"}, {"num_local_experts", w.shape[0]}}, experts))
        for (const auto& [name, binding] : experts) {
          const Weight one = binding.transform(w);
          if (one.shape != binding.shape) __builtin_trap();
          check_parts(one, name);
          read_all(one);
        }
    }
  } catch (const InputError&) {
  }
  return 0;
}
