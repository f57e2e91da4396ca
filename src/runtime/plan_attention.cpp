// Steps of attention: rotations, the KV cache, and the kernel per sequence.
#include <cstring>

#include "runtime/plan_impl.h"

namespace lathe {

// Where attention reads its heads, after the step that puts them there.
struct Plan::Impl::HeadStep {
  const float *q, *k, *v;        // as the linear layers made them
  float *rotated_q, *rotated_k;  // null: there is no rotation
  float *cached_k, *cached_v;    // null: no cache
  RopeArgs rope;                 // of one head of one row; without pointers
  const float *cos, *sin;
  void (*rotate)(const RopeArgs&, const Share&) noexcept;
  int64_t heads, kv_heads, dim, context;

  void move(const float* from, float* to, int64_t row) const {
    if (!rotated_q) return void(std::memcpy(to, from, static_cast<size_t>(dim) * sizeof(float)));
    const int64_t angles = row * (dim / 2);
    RopeArgs one = rope;
    one.x = from, one.out = to, one.cos = cos + angles, one.sin = sin + angles;
    rotate(one, {});
  }
  // Items are heads of rows, so that a single row of a wide model is shared out too.
  void run(const Batch& b, const Share& share) const {
    const bool cached = !b.slots.empty();
    const int64_t queries = rotated_q ? heads : 0, items = queries + kv_heads;
    const Range mine = part_of(static_cast<int64_t>(b.tokens.size()) * items, share.worker, share.workers);
    size_t sequence = 0;
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t row = i / items, h = i % items - queries;
      if (h < 0) {
        const int64_t at = row * heads * dim + i % items * dim;
        move(q + at, rotated_q + at, row);
        continue;
      }
      const int64_t from = (row * kv_heads + h) * dim;
      if (!cached) {
        move(k + from, rotated_k + from, row);
        continue;
      }
      while (b.starts[sequence + 1] <= row) ++sequence;
      const int64_t position = b.positions[static_cast<size_t>(row)];
      const int64_t to = ((b.slots[sequence] * kv_heads + h) * context + position) * dim;
      move(k + from, cached_k + to, row);
      std::memcpy(cached_v + to, v + from, static_cast<size_t>(dim) * sizeof(float));
    }
  }
};

void Plan::Impl::build_attention(const Node& node, const op::Attention& a, const op::Rope* rope,
                                 const ElementwiseKernels& kernels) {
  const AttentionKernel& kernel = choose_attention(a.head_dim, target.isa);
  const int64_t q_cols = cols(node.inputs[0]), kv_cols = cols(node.inputs[1]);
  const float *q = buffer(node.inputs[0]), *k = buffer(node.inputs[1]), *v = buffer(node.inputs[2]);
  float* out = buffer(node.outputs[0]);
  HeadStep heads{.q = q,
                 .k = k,
                 .v = v,
                 .rotated_q = nullptr,
                 .rotated_k = nullptr,
                 .cached_k = nullptr,
                 .cached_v = nullptr,
                 .rope = {.x = nullptr,
                          .cos = nullptr,
                          .sin = nullptr,
                          .out = nullptr,
                          .rows = 1,
                          .cols = a.head_dim,
                          .head_dim = a.head_dim,
                          .x_stride = a.head_dim,
                          .out_stride = a.head_dim},
                 .cos = nullptr,
                 .sin = nullptr,
                 .rotate = kernels.rope,
                 .heads = a.heads,
                 .kv_heads = a.kv_heads,
                 .dim = a.head_dim,
                 .context = target.context};
  if (target.context > 0) {
    // Each head's keys lie together: with heads side by side, decoding reads 256-byte pieces that no hardware
    // prefetcher follows, at 12 instead of 18 GB/s per core.
    const Shape shape{target.slots * a.kv_heads * target.context, a.head_dim};
    KvBuffer& cache = kv[node.id] = {Tensor::zeros(DType::f32, shape), Tensor::zeros(DType::f32, shape)};
    heads.cached_k = cache.k.as_mutable<float>().data();
    heads.cached_v = cache.v.as_mutable<float>().data();
  }
  if (rope) {
    building = node.name + ".rope";  // a line of its own in reports and profiles
    Choice choice = explain(kernels, target.isa);
    choice.node = building;
    choices.push_back(std::move(choice));
    const RopeBuffer& angles = rope_buffer(*rope);
    heads.cos = angles.cos.as<float>().data();
    heads.sin = angles.sin.as<float>().data();
    q = heads.rotated_q = locals.at(node.id)[0];
    k = heads.rotated_k = locals.at(node.id)[1];
  }
  // Keys are rotated on their way into the cache, and values follow: one step.
  add_step([this, heads](const Batch& b) {
    const bool cached = !b.slots.empty();
    if (!heads.rotated_q && !cached) return;
    const int64_t moved = (heads.rotated_q ? heads.heads : 0) + heads.kv_heads * (cached ? 2 : 1);
    elementwise(static_cast<int64_t>(b.tokens.size()) * moved * heads.dim,
                [&](const Share& share) { heads.run(b, share); });
  });

  building = node.name;
  chose(node, explain(kernel, a.head_dim, target.isa));
  AttentionArgs args{.q = nullptr,
                     .k = nullptr,
                     .v = nullptr,
                     .out = nullptr,
                     .rows = 0,
                     .keys = 0,
                     .first = 0,
                     .q_stride = q_cols,
                     .kv_stride = kv_cols,
                     .kv_head_stride = a.head_dim,
                     .out_stride = q_cols,
                     .heads = a.heads,
                     .kv_heads = a.kv_heads,
                     .head_dim = a.head_dim,
                     .window = a.window,
                     .scale = a.scale};
  // Without slots a sequence attends to its own rows of this batch, with one to all that its slot holds.
  add_step([this, args, q, k, v, out, cached_k = heads.cached_k, cached_v = heads.cached_v, q_cols, kv_cols,
            &kernel](const Batch& b) {
    parallel([&](const Share& share) {
      for (size_t s = 0; s + 1 < b.starts.size(); ++s) {
        const int64_t begin = b.starts[s];
        const bool cached = !b.slots.empty();
        const int64_t at = cached ? b.slots[s] * target.context * kv_cols : begin * kv_cols;
        AttentionArgs one = args;
        one.rows = b.starts[s + 1] - begin;
        one.first = b.positions[static_cast<size_t>(begin)];
        one.keys = one.first + one.rows;
        one.q = q + begin * q_cols;
        one.out = out + begin * q_cols;
        one.k = (cached ? cached_k : k) + at;
        one.v = (cached ? cached_v : v) + at;
        if (cached) {
          one.kv_stride = args.head_dim;
          one.kv_head_stride = target.context * args.head_dim;
        }
        kernel.path(static_cast<int64_t>(s) < b.prompts)(one, share);
      }
    });
  });
}

// Layers that rotate alike share the angles.
const Plan::Impl::RopeBuffer& Plan::Impl::rope_buffer(const op::Rope& rope) {
  for (const RopeBuffer& r : ropes)
    if (r.rope.inv_freq == rope.inv_freq && r.rope.scale == rope.scale) return r;
  const Shape shape{target.max_tokens, rope.head_dim / 2};
  return ropes.emplace_back(
      RopeBuffer{rope, Tensor::zeros(DType::f32, shape), Tensor::zeros(DType::f32, shape)});
}

void Plan::Impl::build_rope(const Node& node, const op::Rope& rope, const ElementwiseKernels& kernels) {
  const RopeBuffer& angles = rope_buffer(rope);
  chose(node, explain(kernels, target.isa));
  const int64_t width = cols(node.inputs[0]);
  RopeArgs args{.x = buffer(node.inputs[0]),
                .cos = angles.cos.as<float>().data(),
                .sin = angles.sin.as<float>().data(),
                .out = buffer(node.outputs[0]),
                .rows = 0,
                .cols = width,
                .head_dim = rope.head_dim,
                .x_stride = width,
                .out_stride = width};
  add_row_step(args, node.outputs[0], kernels.rope);
}

}  // namespace lathe
