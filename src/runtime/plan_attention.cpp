// Steps of attention: rotations, the KV cache, and the kernel per sequence.
#include <algorithm>
#include <cstring>

#include "runtime/attention_args.h"
#include "runtime/plan_impl.h"

namespace lathe {

void Plan::Impl::place_sequences(const Batch& b) {
  for (auto& of_phase : sequences) of_phase.clear();
  for (size_t s = 0; s + 1 < b.starts.size(); ++s) {
    const int64_t begin = b.starts[s], rows = b.starts[s + 1] - begin;
    const int64_t first = b.positions[static_cast<size_t>(begin)];
    const Phase phase = static_cast<int64_t>(s) < b.prompts ? Phase::prefill : Phase::decode;
    // Without a cache, the keys of a sequence are one block from its first row on.
    const int32_t* blocks = b.cached() ? b.table(s).data() : &b.starts[s];
    sequences[static_cast<size_t>(phase)].push_back({begin, rows, first, first + rows, blocks});
  }
}

// Where attention reads its heads, after the step that puts them there.
struct Plan::Impl::HeadStep {
  const float *q, *k, *v;                     // as the linear layers made them
  float *rotated_q, *rotated_k;               // null: there is no rotation
  std::byte *cached_k, *cached_v;             // null: no cache
  std::byte *rounded_k, *rounded_v;           // of a batch without a cache; null: keys and values stay floats
  KvLayout cache, rows;                       // of these
  std::span<const float> k_scales, v_scales;  // see kv_scale
  RopeArgs rope;                              // of one head of one row; without pointers
  const float *cos, *sin;
  void (*rotate)(const RopeArgs&, const Share&) noexcept;
  HadamardArgs hadamard;  // of one head behind that; of size 0: none
  void (*transform)(const HadamardArgs&, const Share&) noexcept;
  const AttentionKernel* kernel;
  int64_t heads, kv_heads, dim;

  bool stores(const Batch& b) const { return b.cached() || rounded_k; }
  void move(const float* from, float* to, int64_t row) const {
    if (!rotated_q) return void(std::memcpy(to, from, static_cast<size_t>(dim) * sizeof(float)));
    const int64_t angles = row * (dim / 2);
    RopeArgs one = rope;
    one.x = from, one.out = to, one.cos = cos + angles, one.sin = sin + angles;
    rotate(one, {});
    if (hadamard.size == 0) return;
    HadamardArgs in_place = hadamard;
    in_place.x = in_place.out = to;
    transform(in_place, {});
  }
  // Items are heads of rows, so that a single row of a wide model is shared out too. Worker r of as many
  // workers as rows does row r.
  void run(const Batch& b, const Share& share) const {
    const bool cached = b.cached();
    const int64_t queries = rotated_q ? heads : 0, items = queries + kv_heads;
    const Range mine = part_of(static_cast<int64_t>(b.tokens.size()) * items, share.worker, share.workers);
    auto sequence = static_cast<size_t>(
        std::upper_bound(b.starts.begin(), b.starts.end(), mine.begin / items) - b.starts.begin() - 1);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t row = i / items, h = i % items - queries;
      if (h < 0) {
        const int64_t at = row * heads * dim + i % items * dim;
        move(q + at, rotated_q + at, row);
        continue;
      }
      const int64_t from = (row * kv_heads + h) * dim;
      if (!stores(b)) {
        move(k + from, rotated_k + from, row);
        continue;
      }
      int64_t block = row, token = 0;
      if (cached) {
        while (b.starts[sequence + 1] <= row) ++sequence;
        const int64_t position = b.positions[static_cast<size_t>(row)];
        block = b.table(sequence)[static_cast<size_t>(position / cache.block_tokens)];
        token = position % cache.block_tokens;
      }
      const KvLayout& layout = cached ? cache : rows;
      const int64_t to = block * layout.block_bytes + h * layout.head_bytes + token * layout.token_bytes;
      std::byte *to_k = (cached ? cached_k : rounded_k) + to, *to_v = (cached ? cached_v : rounded_v) + to;
      if (layout.type == KvType::f32) {
        move(k + from, reinterpret_cast<float*>(to_k), row);
      } else {
        auto* rotated = static_cast<float*>(share.scratch);
        move(k + from, rotated, row);
        kernel->write_kv(layout.type, rotated, dim, to_k, kv_scale(k_scales, h));
      }
      kernel->write_kv(layout.type, v + from, dim, to_v, kv_scale(v_scales, h));
    }
  }
};

void Plan::Impl::build_attention(const Node& node, const op::Attention& a, const op::Rope* rope, int hadamard,
                                 const ElementwiseKernels& kernels) {
  const KvType type = kv_type_of(a, target.kv);
  const AttentionKernel& kernel = choose_attention(a.head_dim, type, target.isa);
  const float *q = buffer(node.inputs[0]), *k = buffer(node.inputs[1]), *v = buffer(node.inputs[2]);
  HeadStep heads{};
  heads.q = q;
  heads.k = k;
  heads.v = v;
  heads.rope = {.x = nullptr,
                .cos = nullptr,
                .sin = nullptr,
                .out = nullptr,
                .rows = 1,
                .cols = a.head_dim,
                .head_dim = a.head_dim,
                .x_stride = a.head_dim,
                .out_stride = a.head_dim};
  heads.rotate = kernels.rope;
  heads.hadamard = {.x = nullptr,
                    .out = nullptr,
                    .rows = 1,
                    .cols = a.head_dim,
                    .size = hadamard,
                    .x_stride = a.head_dim,
                    .out_stride = a.head_dim};
  heads.transform = kernels.hadamard;
  heads.kernel = &kernel;
  heads.heads = a.heads;
  heads.kv_heads = a.kv_heads;
  heads.dim = a.head_dim;
  if (kv_block_tokens() > 0) {
    // Each head's keys lie together: with heads side by side, decoding reads 256-byte pieces that no hardware
    // prefetcher follows, at 12 instead of 18 GB/s per core.
    const int64_t row = kv_row_bytes(type, a.head_dim), head = kv_block_tokens() * row;
    heads.cache = {type, kv_block_tokens(), a.kv_heads * head, head, row};
    const Shape shape{kv_blocks() * heads.cache.block_bytes};
    KvBuffer& cache = kv[node.id] = {Tensor::zeros(DType::u8, shape), Tensor::zeros(DType::u8, shape)};
    heads.cached_k = cache.k.storage.data;
    heads.cached_v = cache.v.storage.data;
  }
  heads.rows = batch_rows(a, type, target.max_tokens);
  if (type != KvType::f32) {
    const std::vector<float*>& own = locals.at(node.id);
    heads.rounded_k = reinterpret_cast<std::byte*>(own[own.size() - 2]);
    heads.rounded_v = reinterpret_cast<std::byte*>(own[own.size() - 1]);
  }
  if (a.cache.has_scales() && type == kv_type_of(a)) {
    heads.k_scales = vectors.at(node.params[node.params.size() - 2]);
    heads.v_scales = vectors.at(node.params[node.params.size() - 1]);
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
  if (heads.rotated_q || heads.cached_k || heads.rounded_k)
    add_row_step({node.inputs[0],
                  {},
                  (a.heads + 2 * a.kv_heads) * a.head_dim,
                  [heads](const Batch& b, Range, const Share& share) {
                    if (heads.rotated_q || heads.stores(b)) heads.run(b, share);
                  }});

  building = node.name;
  chose(node, explain(kernel, a.head_dim, type, target.isa));
  AttentionArgs args = attention_args(a, a.sinks ? vectors.at(node.params[0]).data() : nullptr);
  args.q = q;
  args.out = buffer(node.outputs[0]);
  for (size_t p = 0; p < std::size(phases); ++p) {
    sequences[p].reserve(static_cast<size_t>(target.max_tokens));
    attention_work[p].reserve(target.max_tokens * a.heads, static_cast<int>(scratch.size()));
  }
  // Without a cache a sequence attends to its own rows of this batch.
  const void *batch_k = heads.rounded_k, *batch_v = heads.rounded_v;
  if (!batch_k) batch_k = k, batch_v = v;
  add_step([this, args, heads, batch_k, batch_v, &kernel](const Batch& b) {
    AttentionArgs of_phase[std::size(phases)];
    for (size_t p = 0; p < std::size(phases); ++p) {
      of_phase[p] = args;
      of_phase[p].k = b.cached() ? heads.cached_k : batch_k;
      of_phase[p].v = b.cached() ? heads.cached_v : batch_v;
      of_phase[p].kv = b.cached() ? heads.cache : heads.rows;
      attention_work[p].share_out(of_phase[p], sequences[p], kernel.path(phases[p] == Phase::prefill),
                                  team->size());
    }
    parallel([&](const Share& share) {
      for (size_t p = 0; p < std::size(phases); ++p)
        if (!sequences[p].empty()) kernel.path(phases[p] == Phase::prefill).run(of_phase[p], share);
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
