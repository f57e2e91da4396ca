// Steps of linear layers: rows of x are packed where a kernel wants that, then the kernel runs per phase.
#include "runtime/plan_impl.h"

namespace lathe {

void Plan::Impl::add_take_step(const TakenKey& key, float* out) {
  const Columns& c = columns[static_cast<size_t>(key.columns)];
  const int64_t k = cols(key.x);
  add_row_step(TakeColumnsArgs{.x = buffer(key.x),
                               .from = c.from.empty() ? nullptr : c.from.data(),
                               .scales = c.scales.empty() ? nullptr : c.scales.data(),
                               .out = out,
                               .rows = 0,
                               .cols = k,
                               .x_stride = k,
                               .out_stride = k},
               key.x, choose_elementwise(target.isa).take_columns);
}

void Plan::Impl::add_pack_step(const RowsKey& key, const float* rows_of_x, void* out) {
  const int64_t k = cols(key.x);
  const PackRowsArgs args{
      .x = rows_of_x, .m = 0, .k = k, .x_stride = k, .out = out, .scale = key.scale, .to = key.to};
  add_row_step(
      {key.x, key.phase, k, [args, run = key.packing->run](const Batch&, Range rows, const Share& share) {
         PackRowsArgs now = args;
         now.m = rows.end - rows.begin;
         now.x += rows.begin * now.x_stride;
         run(now, share);
       }});
}

void Plan::Impl::Packed::bind(LinearArgs& args) const {
  auto part = [&](size_t i) -> const void* {
    return i < weight.parts.size() ? weight.parts[i].storage.data : nullptr;
  };
  args.codes = part(0);
  args.scales = part(1);
  args.zeros = part(2);
}

// All but the weight's parts: see Packed::bind.
LinearArgs Plan::Impl::linear_args(const Packed& matrix, ValueId x, float* y, int64_t n) const {
  const int group = matrix.weight.numerics.group;
  return {.codes = nullptr,
          .scales = nullptr,
          .zeros = nullptr,
          .x = buffer(x),
          .bias = nullptr,
          .y = y,
          .m = 0,
          .n = n,
          .k = cols(x),
          .group = group ? group : cols(x),
          .x_stride = cols(x),
          .y_stride = n};
}

void Plan::Impl::chose(const Node& node, const std::string& param) {
  const Packed& matrix = packed.at(param);
  Choice choice = explain(*matrix.kernel, matrix.weight, target.isa);
  choice.param = param;
  const Columns& taken = columns_of_x(matrix);
  if (!taken.from.empty()) choice.columns = "reordered";
  if (!taken.scales.empty()) choice.columns += choice.columns.empty() ? "scaled" : ", scaled";
  for (Phase phase : phases) {
    if (&matrix.row(phase) == matrix.kernel) continue;
    const std::string name(matrix.row(phase).name);
    const double times = target.tuning->rows.at({Tuning::kind_of(matrix.weight), phase}).times_faster;
    (phase == Phase::prefill ? choice.prompts : choice.decode) = name;
    choice.tuned += fmt::format("{}{} of {} measured {:.2f} times as fast", choice.tuned.empty() ? "" : ", ",
                                phase == Phase::prefill ? "prompts" : "decoding", name, times);
  }
  chose(node, std::move(choice));
}

// Points the arguments to x as the matrix and a path of its kernel want it: columns are taken and rows packed
// first where this node is the first to want that.
void Plan::Impl::use_rows(const Node& node, Phase phase, const Packed& matrix, LinearArgs& args) {
  const RowsKey key{
      node.inputs[0], phase, matrix.path(phase).rows, matrix.input_scale, matrix.weight.numerics.activations,
      matrix.columns};
  if (key.columns >= 0) {
    TakenRows& taken = taken_rows.at({key.x, key.columns});
    args.x = taken.data;
    if (!taken.made) add_take_step({key.x, key.columns}, taken.data);
    taken.made = true;
  }
  if (!key.packing) return;
  PackedRows& rows = packed_rows.at(key);
  args.packed_x = rows.data;
  if (rows.first != node.id || rows.made) return;
  rows.made = true;
  add_pack_step(key, args.x, rows.data);
}

// The rows of a phase.
static void narrow(LinearArgs& args, Range rows) {
  args.m = rows.end - rows.begin;
  args.x += rows.begin * args.x_stride;
  args.y += rows.begin * args.y_stride;
}

// One layer, or several over the same x: then each worker runs its part of one after the other, and waits for
// nobody in between.
void Plan::Impl::build_linear(const Node& node, bool bias) {
  struct Layer {
    const Packed* matrix;
    LinearArgs args;
  };
  const size_t count = node.outputs.size();
  for (size_t i = 0; i < count; ++i) chose(node, node.params[i]);
  std::vector<Layer> of_phase[std::size(phases)];
  for (Phase phase : phases)  // rows first: their steps join the chain of what made x
    for (size_t i = 0; i < count; ++i) {
      const Packed& matrix = packed.at(node.params[i]);
      const ValueId y = node.outputs[i];
      LinearArgs args = linear_args(matrix, node.inputs[0], buffer(y), cols(y));
      if (bias) args.bias = vectors.at(node.params[count + i]).data();
      use_rows(node, phase, matrix, args);
      of_phase[static_cast<size_t>(phase)].push_back({&matrix, args});
    }
  for (Phase phase : phases) {
    auto& layers = of_phase[static_cast<size_t>(phase)];
    add_step([this, layers = std::move(layers), y = node.outputs[0], phase](const Batch& b) {
      const Range rows = rows_of(y, phase, b);
      if (rows.begin == rows.end) return;
      product(rows.end - rows.begin, cols(y), [&](const Share& share) {
        for (const Layer& layer : layers) {
          LinearArgs now = layer.args;
          layer.matrix->bind(now);
          narrow(now, rows);
          layer.matrix->path(phase).run(now, share);
        }
      });
    });
  }
}

// One kernel computes gate, up and their product.
bool Plan::Impl::runs_gated(const Packed& gate, const Packed& up, Phase phase) {
  return gate.path(phase).gated && &gate.row(phase) == &up.row(phase) &&
         gate.weight.numerics == up.weight.numerics && gate.input_scale == up.input_scale &&
         gate.columns == up.columns;
}

// The rows that a gated node writes in place of y, where every reader of y wants those; else null.
const RowPacking* Plan::Impl::packed_output(const Node& node, Phase phase) const {
  if (!std::holds_alternative<op::GatedLinear>(node.op) ||
      !runs_gated(packed.at(node.params[0]), packed.at(node.params[1]), phase))
    return nullptr;
  const RowPacking* rows = packed.at(node.params[0]).path(phase).rows;
  const ValueId y = node.outputs[0];
  if (!rows || !rows->gated_writes || y == graph.output()) return nullptr;
  for (NodeId id : graph.users(y)) {
    const Node& reader = graph.node(id);
    const size_t matrices = matrices_of(reader);
    if (matrices == 0 || std::holds_alternative<op::Experts>(reader.op)) return nullptr;
    for (size_t i = 0; i < matrices; ++i) {
      const Packed& matrix = packed.at(reader.params[i]);
      if (matrix.path(phase).rows != rows || matrix.columns >= 0) return nullptr;
    }
  }
  return rows;
}

void Plan::Impl::build_gated_linear(const Node& node, const ElementwiseKernels& kernels) {
  const Packed &gate = packed.at(node.params[0]), &up = packed.at(node.params[1]);
  chose(node, node.params[0]);
  chose(node, node.params[1]);
  const ValueId y = node.outputs[0];
  GatedArgs of_phase[std::size(phases)];
  for (Phase phase : phases) {
    const RowPacking* rows_out = packed_output(node, phase);
    float* other = runs_gated(gate, up, phase) ? buffer(y) : locals.at(node.id)[0];
    of_phase[static_cast<size_t>(phase)] = {
        linear_args(gate, node.inputs[0], buffer(y), cols(y)),
        linear_args(up, node.inputs[0], other, cols(y)),
        rows_out ? packed_rows.at({y, phase, rows_out, 0, Activations::as_they_are, -1}).data : nullptr};
    auto& [gate_args, up_args, packed_y] = of_phase[static_cast<size_t>(phase)];
    use_rows(node, phase, gate, gate_args);
    use_rows(node, phase, up, up_args);
  }
  for (Phase phase : phases) {
    const bool fused = runs_gated(gate, up, phase);
    add_step(
        [this, args = of_phase[static_cast<size_t>(phase)], y, phase, fused, &gate, &up](const Batch& b) {
          const Range rows = rows_of(y, phase, b);
          if (rows.begin == rows.end) return;
          GatedArgs now = args;
          gate.bind(now.gate);
          up.bind(now.up);
          narrow(now.gate, rows);
          narrow(now.up, rows);
          product(now.gate.m, now.gate.n, [&](const Share& share) {
            if (fused) return gate.path(phase).gated(now, share);
            gate.path(phase).run(now.gate, share);
            up.path(phase).run(now.up, share);
          });
        });
  }
  for (Phase phase : phases) {
    if (runs_gated(gate, up, phase)) continue;
    const int64_t width = cols(y);
    add_row_step({y, phase, width,
                  [y = buffer(y), other = locals.at(node.id)[0], width, run = kernels.silu_mul](
                      const Batch&, Range rows, const Share& share) {
                    const int64_t begin = rows.begin * width;
                    run({.a = y + begin,
                         .b = other + begin,
                         .out = y + begin,
                         .rows = rows.end - rows.begin,
                         .cols = width,
                         .a_stride = width,
                         .b_stride = width,
                         .out_stride = width},
                        share);
                  }});
  }
}

}  // namespace lathe
