// Steps that go row by row: table lookups, copies, norms, sums and products.
#include <cstring>

#include "models/low_rank.h"
#include "runtime/plan_impl.h"
#include "runtime/transposed.h"

namespace lathe {

void Plan::Impl::build_embedding(const Node& node) {
  const Weight& table = tables.at(node.params[0]);
  const int64_t width = cols(node.outputs[0]);
  float* out = buffer(node.outputs[0]);
  chose(node, {.node = {},
               .kernel = "rows",
               .packing = std::string(table.packing->name),
               .prompts = "rows",
               .decode = "rows"});
  for (Codes& c : codes) read_rows(table, 0, 1, out, c);  // a run allocates nothing
  add_step([this, &table, width, out](const Batch& b) {
    const auto rows = static_cast<int64_t>(b.tokens.size());
    elementwise(rows * width, [&](const Share& share) {
      for (int64_t r = share.worker; r < rows; r += share.workers)
        read_rows(table, b.tokens[static_cast<size_t>(r)], 1, out + r * width,
                  codes[static_cast<size_t>(share.worker)]);
    });
  });
}

void Plan::Impl::build_take_rows(const Node& node) {
  const float* x = buffer(node.inputs[0]);
  float* out = buffer(node.outputs[0]);
  const int64_t width = cols(node.inputs[0]);
  chose(node, {.node = {}, .kernel = "copy", .packing = "f32", .prompts = "copy", .decode = "copy"});
  add_step([this, x, out, width](const Batch& b) {
    const auto wanted = static_cast<int64_t>(b.outputs.size());
    elementwise(wanted * width, [&](const Share& share) {
      for (int64_t r = share.worker; r < wanted; r += share.workers)
        std::memcpy(out + r * width, x + b.outputs[static_cast<size_t>(r)] * width,
                    static_cast<size_t>(width) * sizeof(float));
    });
  });
}

// One region whatever the mixture of adapters: rows that do not use this one are copied.
static_assert(most_rank <= most_low_rank, "models may have layers that kernels have no room for");

void Plan::Impl::build_low_rank(const Node& node, const op::LowRank& low, const ElementwiseKernels& kernels) {
  const ValueId y = node.outputs[0];
  const int64_t k = cols(node.inputs[1]), n = cols(y);
  std::vector<float>& b = vectors.at(node.params[1]);
  if (transposed_params.insert(node.params[1]).second) b = transposed(b, n);
  const LowRankArgs args{.x = buffer(node.inputs[1]),
                         .a = vectors.at(node.params[0]).data(),
                         .b = b.data(),
                         .base = buffer(node.inputs[0]),
                         .out = buffer(y),
                         .rows = 0,
                         .k = k,
                         .n = n,
                         .rank = low.rank,
                         .x_stride = k,
                         .out_stride = n,
                         .scale = low.scale};
  if (graph.value(y).taken >= 0)  // of an expert: a correction, of all its rows
    return add_step([this, args, y, run = kernels.low_rank](const Batch& batch) {
      LowRankArgs now = args;
      now.rows = rows(y, batch);
      elementwise(now.rows * now.n, [&](const Share& share) { run(now, share); });
    });
  const bool outputs = graph.value(y).rows == Rows::outputs;
  add_step([this, args, outputs, adapter = low.adapter, run = kernels.low_rank](const Batch& batch) {
    parallel([&](const Share& share) {
      each_sequence(batch, outputs, [&](int64_t begin, int64_t end, size_t sequence) {
        LowRankArgs now = args;
        now.rows = end - begin;
        now.x += begin * now.x_stride;
        now.base += begin * now.out_stride;
        now.out += begin * now.out_stride;
        if (adapter == 0 || adapter == batch.adapter(sequence)) return run(now, share);
        const Range mine = part_of(now.rows * now.n, share.worker, share.workers);
        std::memcpy(now.out + mine.begin, now.base + mine.begin,
                    static_cast<size_t>(mine.end - mine.begin) * sizeof(float));
      });
    });
  });
}

BinaryArgs Plan::Impl::binary_args(const Node& node) const {
  const ValueId y = node.outputs[0];
  const int64_t width = cols(y);
  return {.a = buffer(node.inputs[0]),
          .b = node.inputs.size() > 1 ? buffer(node.inputs[1]) : nullptr,
          .out = buffer(y),
          .rows = 0,
          .cols = width,
          .a_stride = width,
          .b_stride = width,
          .out_stride = width};
}

void Plan::Impl::build_binary(const Node& node, void (*run)(const BinaryArgs&, const Share&) noexcept) {
  add_row_step(binary_args(node), node.outputs[0], run);
}

}  // namespace lathe
