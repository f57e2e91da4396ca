#include "runtime/choices.h"

#include "core/error.h"
#include "quant/activations.h"

namespace lathe {
namespace {

// Why a row that reads the format does not run here; "" when its features are all allowed.
std::string missing(uint32_t needed, uint32_t allowed) {
  const uint32_t absent = needed & ~cpu_features(), left_out = needed & ~allowed;
  if (absent) return "CPU lacks " + describe_features(absent);
  return left_out ? "LATHE_ISA leaves out " + describe_features(left_out) : "";
}

// A row of another format is one whatever the CPU: that reason comes first.
template <class Row, class Accepts>
std::vector<Plan::Choice::Passed> passed_over(std::span<const Row> table, const Row& chosen, uint32_t isa,
                                              const std::string& format, Accepts accepts) {
  std::vector<Plan::Choice::Passed> out;
  for (const Row& row : table) {
    if (&row == &chosen) break;
    const bool reads = accepts(row);
    out.push_back({std::string(row.name), reads ? missing(row.isa, isa) : "does not take " + format, reads});
  }
  return out;
}

// A row may decode with the function of a lesser one ("amx.int4.f16" with that of "avx512.int4.f16"): the
// last row of the same packing that has the function is the one whose name tells what runs.
std::string_view owner(const LinearKernel& chosen, const LinearPath& path) {
  std::string_view name = chosen.name;
  for (const LinearKernel& row : linear_kernels())
    if (row.packing == chosen.packing && row.decode.run == path.run && (row.isa & ~chosen.isa) == 0)
      name = row.name;
  return name;
}

}  // namespace

Plan::Choice explain(const LinearKernel& chosen, const Weight& weight, uint32_t isa) {
  const LinearPath &prompt = chosen.path(true), &decode = chosen.path(false);
  const Numerics& n = weight.numerics;
  auto rows = [&](const LinearPath& path) {
    if (path.rows && path.rows->any_numerics)
      return fmt::format("{} to {}", path.rows->name, to_string(n.activations));
    return std::string(path.rows ? path.rows->name : "");
  };
  return {.node = {},
          .kernel = std::string(chosen.name),
          .packing = std::string(chosen.packing),
          .emulated = emulates(chosen, n),
          .prompts = std::string(owner(chosen, prompt)),
          .decode = std::string(owner(chosen, decode)),
          .prompt_rows = rows(prompt),
          .decode_rows = rows(decode),
          .passed_over = passed_over(
              linear_kernels(), chosen, isa, fmt::format("{} {}", to_string(n), to_string(weight.shape)),
              [&](const LinearKernel& row) { return row.accepts(n, weight.rows(), weight.cols()); })};
}

Plan::Choice explain(const AttentionKernel& chosen, int64_t head_dim, KvType kv, uint32_t isa) {
  std::string_view decode = chosen.name;
  for (const AttentionKernel& row : attention_kernels())
    if (row.decode.run == chosen.decode.run && (row.isa & ~chosen.isa) == 0) decode = row.name;
  return {.node = {},
          .kernel = std::string(chosen.name),
          .packing = std::string(kv_type_names[static_cast<size_t>(kv)]),
          .prompts = std::string(chosen.prefill.run ? chosen.name : decode),
          .decode = std::string(decode),
          .passed_over = passed_over(attention_kernels(), chosen, isa, fmt::format("heads of {}", head_dim),
                                     [&](const AttentionKernel& row) { return row.accepts(head_dim, kv); })};
}

Plan::Choice explain(const ElementwiseKernels& chosen, uint32_t isa) {
  const std::string name(chosen.name);
  return {.node = {},
          .kernel = name,
          .packing = "f32",
          .prompts = name,
          .decode = name,
          .passed_over = passed_over(elementwise_kernels(), chosen, isa, "",
                                     [](const ElementwiseKernels&) { return true; })};
}

}  // namespace lathe
