#include "compress/policy.h"

#include <algorithm>
#include <charconv>

#include "compress/edges.h"
#include "compress/matrices.h"
#include "core/error.h"

namespace lathe {
namespace {

constexpr std::string_view format_words =
    "keep, bf16, f16, f32 or a scheme such as w8a16, w4a16:g32:asym or nvfp4";

struct Layer {
  std::string param;
  Numerics format;  // that it is going to have
  double bytes;     // per weight
};

// Layers of an input with the formats that they are going to have.
std::vector<Layer> layers_of(const Model& model, const InputGroup& group, const Assignment& assignment) {
  std::vector<Layer> layers;
  for (const NodeId id : group.nodes) {
    const std::string& param = model.graph.node(id).params[0];
    const Weight& w = model.weights.at(param);
    const auto it = assignment.find(param);
    const size_t bytes =
        it == assignment.end() ? w.bytes() : packed_bytes(it->second, storage_packing(it->second), w.shape);
    layers.push_back({param, it == assignment.end() ? w.numerics : it->second,
                      static_cast<double>(bytes) / static_cast<double>(elements(w.shape))});
  }
  return layers;
}

std::string listed(const std::vector<Layer>& layers) {
  std::vector<std::string> texts;
  for (const Layer& l : layers)
    texts.push_back(fmt::format("{} {}", module_path(l.param), to_string(l.format)));
  return fmt::format("{}", fmt::join(texts, ", "));
}

void agree(const Model& model, Fused fused, std::string_view where, Assignment& assignment, Reasons& why) {
  for (const InputGroup& group : input_groups(model.graph)) {
    const std::vector<Layer> layers = layers_of(model, group, assignment);
    if (std::ranges::all_of(layers, [&](const Layer& l) { return l.format == layers[0].format; })) continue;
    if (fused == Fused::error)
      throw input_error(
          fmt::format("{}: {}", where, joint_name(model.graph, group)),
          "one format for layers that read one input", listed(layers),
          "give them one, promote them to the widest (--fused promote), or leave them (--fused apart)");
    // The first of the widest: layers are in the order of the graph.
    const Layer& widest = *std::ranges::max_element(layers, {}, &Layer::bytes);
    for (const Layer& l : layers) {
      if (l.format == widest.format) continue;
      why[l.param] =
          fmt::format("promoted with {}, instead of {}", module_path(widest.param), to_string(l.format));
      if (model.weights.at(l.param).numerics == widest.format)
        assignment.erase(l.param);
      else
        assignment[l.param] = widest.format;
    }
  }
}

}  // namespace

Policy parse_policy(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == text.size())
    throw input_error("policy", "GLOB=FORMAT, such as 'lm_head=bf16' or '*.mlp.*=w4a16:g32'",
                      fmt::format("'{}'", printable(text)));
  return {std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

std::optional<Numerics> parse_format(std::string_view text, DType scale, std::string_view where) {
  const auto refuse = [&] { return input_error(where, format_words, fmt::format("'{}'", printable(text))); };
  if (text == "keep") return std::nullopt;
  for (const DType d : {DType::bf16, DType::f16, DType::f32})
    if (text == dtype_name(d)) return Numerics::dense(d);
  int group = -1;
  bool asymmetric = false;
  const size_t end = std::min(text.find(':'), text.size());
  for (size_t begin = end; begin < text.size();) {
    const size_t next = std::min(text.find(':', begin + 1), text.size());
    const std::string_view word = text.substr(begin + 1, next - begin - 1);
    begin = next;
    if (word == "asym" && !asymmetric) {
      asymmetric = true;
    } else if (word.starts_with('g') && group == -1) {
      const auto [rest, error] = std::from_chars(word.data() + 1, word.data() + word.size(), group);
      if (error != std::errc() || rest != word.data() + word.size() || group < 0) throw refuse();
    } else {
      throw refuse();
    }
  }
  try {
    return parse_scheme(text.substr(0, end), group, asymmetric, scale);
  } catch (const InputError& e) {
    throw input_error(where, format_words, fmt::format("'{}'", printable(text)), e.what());
  }
}

Fused parse_fused(std::string_view name, std::string_view where) {
  const auto* const found = std::ranges::find(fused_names, name);
  if (found == std::end(fused_names))
    throw input_error(where, fmt::format("one of {}", fmt::join(fused_names, ", ")),
                      fmt::format("'{}'", printable(name)));
  return static_cast<Fused>(found - std::begin(fused_names));
}

Reasons apply_policies(const Model& model, std::span<const Policy> policies, Fused fused,
                       std::string_view where, Assignment& assignment) {
  Reasons why;
  const auto all = matrices(model.graph);
  const DType scale = scale_dtype(model.config);
  for (const Policy& policy : policies) {
    const std::string here = fmt::format("{}: '{}'", where, printable(policy.glob));
    const std::optional<Numerics> format = parse_format(policy.format, scale, here);
    bool matched = false;
    for (const auto& [param, matrix] : all) {
      if (!matrix.matches(policy.glob)) continue;
      matched = true;
      why[param] = fmt::format("policy '{}={}'", policy.glob, policy.format);
      assignment.erase(param);
      if (format && *format != model.weights.at(param).numerics) assignment[param] = *format;
    }
    if (!matched)
      throw input_error(here, "a glob over module paths such as 'model.layers.0.*'", "one that matches none",
                        "`lathe inspect --graph MODEL` lists them");
  }
  if (!policies.empty() && fused != Fused::apart) agree(model, fused, where, assignment, why);
  for (const auto& [param, reason] : why)
    if (const auto it = assignment.find(param); it != assignment.end())
      require_whole_groups(param, model.weights.at(param), it->second);
  return why;
}

}  // namespace lathe
