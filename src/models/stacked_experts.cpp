#include "models/stacked_experts.h"

#include <algorithm>

#include "core/error.h"

namespace lathe {
namespace {

struct Stack {
  std::string_view suffix;  // of the entry's name
  bool bias;
  std::vector<std::string_view> parameters;  // whose rows it has by turns
};
const Stack stacks[] = {
    {".experts.gate_up_proj", false, {"gate_proj.weight", "up_proj.weight"}},
    {".experts.gate_up_proj_bias", true, {"gate_proj.bias", "up_proj.bias"}},
    {".experts.down_proj", false, {"down_proj.weight"}},
    {".experts.down_proj_bias", true, {"down_proj.bias"}},
};

// What one parameter is of a stack: rows `first`, first + `turns`, ... of an expert.
struct Slice {
  int64_t expert, first, turns;
  Shape shape;
};

Weight dense(const Tensor& stack, int64_t at, const Slice& slice, Shape strides) {
  Tensor view = stack.view(at, slice.shape, std::move(strides));
  if (view.strides.empty()) return dense_weight(std::move(view));
  return {Numerics::dense(view.dtype), &packing("dense.strided"), slice.shape, {std::move(view)}};
}

Weight take(const Weight& stack, const Slice& slice) {
  const Shape& all = stack.shape;
  if (all.size() == 2)
    return dense(stack.parts[0], slice.expert * all[1] + slice.first, slice, {slice.turns});
  if (stack.numerics.is_dense())  // [experts, columns, rows]
    return dense(stack.parts[0], slice.expert * all[1] * all[2] + slice.first, slice, {slice.turns, all[2]});
  Weight out{stack.numerics, stack.packing, slice.shape, {}};
  for (const Tensor& part : stack.parts) {  // [experts, rows, ...]
    const Shape inner(part.shape.begin() + 2, part.shape.end());
    Shape shape{slice.shape[0]}, strides{slice.turns * elements(inner)};
    shape.insert(shape.end(), inner.begin(), inner.end());
    for (size_t i = 0; i < inner.size(); ++i)
      strides.push_back(elements({inner.begin() + static_cast<int64_t>(i) + 1, inner.end()}));
    const int64_t row = slice.expert * part.shape[1] + slice.first;
    out.parts.push_back(part.view(row * elements(inner), std::move(shape), std::move(strides)));
  }
  return out;
}

bool has_stacks(const Json& config) { return config.value("model_type", "") == "gpt_oss"; }

}  // namespace

bool is_stacked_elsewhere(std::string_view param, const Json& config) {
  return has_stacks(config) && param.find(".experts.") != std::string_view::npos &&
         std::ranges::any_of(stacks, [&](const Stack& stack) {
           return !stack.bias && std::ranges::any_of(stack.parameters,
                                                     [&](std::string_view p) { return param.ends_with(p); });
         });
}

bool split_experts(const Entry& entry, const Json& config, std::map<std::string, Binding, std::less<>>& out) {
  if (!has_stacks(config)) return false;
  for (const Stack& stack : stacks) {
    if (!entry.name.ends_with(stack.suffix)) continue;
    const auto experts = get_int(config, "num_local_experts", "config.json", 1, 65'536),
               turns = std::ssize(stack.parameters);
    const bool transposed = !stack.bias && entry.numerics.is_dense();
    const Shape& all = entry.shape;
    const int64_t rows = all.size() != (stack.bias ? 2u : 3u) ? 0 : transposed ? all[2] : all[1];
    if (rows < 1 || rows % turns != 0 || all[0] != experts || elements(all) == 0 ||
        (stack.bias && !entry.numerics.is_dense()))
      throw input_error(fmt::format("{}: tensor '{}'", entry.file, printable(entry.name)),
                        fmt::format("{} of {} experts, {}", stack.bias ? "vectors" : "matrices", experts,
                                    turns > 1 ? "of gate and up by turns" : "one each"),
                        to_string(all));
    Shape shape{rows / turns};
    if (!stack.bias) shape.push_back(transposed ? all[1] : all[2]);
    const std::string scope = entry.name.substr(0, entry.name.rfind('.'));
    for (int64_t e = 0; e < experts; ++e)
      for (int64_t i = 0; i < turns; ++i) {
        const std::string name = fmt::format("{}.{}.{}", scope, e, stack.parameters[static_cast<size_t>(i)]);
        const Slice slice{e, i, turns, shape};
        // Entries are sorted: one of an expert's own comes first.
        if (!out.try_emplace(name,
                             Binding{entry.name, [slice](const Weight& w) { return take(w, slice); }, shape})
                 .second)
          throw input_error(fmt::format("{}: tensor '{}'", entry.file, printable(entry.name)),
                            fmt::format("'{}' stored once", printable(name)), "twice: here and by itself");
      }
    return true;
  }
  return false;
}

}  // namespace lathe
