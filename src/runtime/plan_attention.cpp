// Steps of attention: rotations, the KV cache, and the kernel per sequence.
#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "kernels/key_span.h"
#include "runtime/attention_args.h"
#include "runtime/plan_impl.h"

namespace lathe {

void Plan::Impl::make_open_spans() {
  if (!target.kv || !keys_in_spans(*target.kv)) return;
  if (target.block_tokens % key_span != 0)
    throw input_error(fmt::format("KV cache in {}", kv_type_names[static_cast<size_t>(*target.kv)]),
                      fmt::format("blocks of a multiple of {} tokens", key_span),
                      fmt::format("blocks of {}", target.block_tokens), "choose another size or KV type");
  const bool cached = kv_block_tokens() > 0;
  if (cached) open_spans = OpenSpans(target.slots, target.max_tokens);
  open_tables.reserve(static_cast<size_t>(target.max_tokens));
  full_spans.reserve(static_cast<size_t>(target.max_tokens));
}

void Plan::Impl::place_sequences(const Batch& b) {
  for (auto& of_phase : sequences) of_phase.clear();
  const bool spans = target.kv && keys_in_spans(*target.kv);
  open_tables.clear();
  full_spans.clear();
  if (b.cached()) open_spans.begin();
  for (size_t s = 0; s + 1 < b.starts.size(); ++s) {
    const int64_t begin = b.starts[s], rows = b.starts[s + 1] - begin;
    const int64_t first = b.positions[static_cast<size_t>(begin)];
    const Phase phase = static_cast<int64_t>(s) < b.prompts ? Phase::prefill : Phase::decode;
    // Without a cache, the keys of a sequence are one block from its first row on.
    const int32_t* blocks = b.blocks(s);
    AttentionSequence sequence{begin, rows, first, first + rows, blocks};
    if (spans) {
      sequence.open = b.cached() ? open_spans.place(b.slots[s], first, rows) : blocks;
      open_tables.push_back(sequence.open);
      for (int64_t span = span_start(first); span + key_span <= first + rows; span += key_span)
        full_spans.push_back({s, span});
    }
    sequences[static_cast<size_t>(phase)].push_back(sequence);
  }
}

// Where attention reads its heads, after the step that puts them there.
struct Plan::Impl::HeadStep {
  // Keys and values, in a cache or of the batch.
  struct Place {
    std::byte *k, *v;  // null: there is no cache; of a batch: they stay floats
    KvLayout layout;
    std::byte* open;  // keys of spans that are not full, in rows of bf16; null: type is of another kind
    KvLayout open_layout;
  };
  const float *q, *k, *v;        // as the linear layers made them
  float *rotated_q, *rotated_k;  // null: there is no rotation
  Place cache, batch;
  std::span<const float> k_scales, v_scales;  // see kv_scale
  RopeArgs rope;                              // of one head of one row; without pointers
  const float *cos, *sin;
  void (*rotate)(const RopeArgs&, const Share&) noexcept;
  HadamardArgs hadamard;  // of one head behind that; of size 0: none
  void (*transform)(const HadamardArgs&, const Share&) noexcept;
  const AttentionKernel* kernel;
  const Impl* plan;  // its open_tables and full_spans
  int64_t heads, kv_heads, dim;

  const Place& place(const Batch& b) const { return b.cached() ? cache : batch; }
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
    const Place& to = place(b);
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
      if (!to.k) {
        move(k + from, rotated_k + from, row);
        continue;
      }
      while (b.starts[sequence + 1] <= row) ++sequence;
      const int64_t position = b.positions[static_cast<size_t>(row)];
      const int64_t at = kv_offset(to.layout, b.blocks(sequence), h, position);
      if (to.layout.type == KvType::f32) {
        move(k + from, reinterpret_cast<float*>(to.k + at), row);
      } else {
        auto* rotated = static_cast<float*>(share.scratch);
        move(k + from, rotated, row);
        if (to.open)
          kernel->write_kv(KvType::bf16, rotated, dim, to.open + open_offset(to, b, sequence, h, position),
                           0);
        else
          kernel->write_kv(to.layout.type, rotated, dim, to.k + at, kv_scale(k_scales, h));
      }
      kernel->write_kv(to.layout.type, v + from, dim, to.v + at, kv_scale(v_scales, h));
    }
  }
  int64_t open_offset(const Place& to, const Batch& b, size_t sequence, int64_t h, int64_t position) const {
    const int64_t first = b.positions[static_cast<size_t>(b.starts[sequence])];
    return kv_offset(to.open_layout, plan->open_tables[sequence], h, position - span_start(first));
  }
  // Rounds the spans that this run filled, once all their rows are written. Items are heads of spans.
  void fill(const Batch& b, const Share& share) const {
    const Place& to = place(b);
    const Range mine =
        part_of(static_cast<int64_t>(plan->full_spans.size()) * kv_heads, share.worker, share.workers);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const FullSpan& span = plan->full_spans[static_cast<size_t>(i / kv_heads)];
      const int64_t h = i % kv_heads;
      round_span(*kernel, to.open + open_offset(to, b, span.sequence, h, span.first),
                 to.open_layout.token_bytes, dim,
                 to.k + kv_offset(to.layout, b.blocks(span.sequence), h, span.first),
                 static_cast<float*>(share.scratch));
    }
  }
};

void Plan::Impl::build_attention(const Node& node, const op::Attention& a, const op::Rope* rope, int hadamard,
                                 const ElementwiseKernels& kernels) {
  const KvType type = kv_type_of(a, target.kv);
  if (keys_in_spans(type) && !a.causal)
    throw input_error(fmt::format("KV cache in {}", kv_type_names[static_cast<size_t>(type)]),
                      "a model whose tokens see none after them", "attention to both sides",
                      "choose another KV type");
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
  heads.plan = this;
  heads.heads = a.heads;
  heads.kv_heads = a.kv_heads;
  heads.dim = a.head_dim;
  if (kv_block_tokens() > 0) {
    // Each head's keys lie together: with heads side by side, decoding reads 256-byte pieces that no hardware
    // prefetcher follows, at 12 instead of 18 GB/s per core.
    const int64_t row = kv_row_bytes(type, a.head_dim), head = kv_block_tokens() * row;
    heads.cache.layout = {type, kv_block_tokens(), a.kv_heads * head, head, row};
    const Shape shape{kv_blocks() * heads.cache.layout.block_bytes};
    KvBuffer& cache = kv[node.id] = {Tensor::zeros(DType::u8, shape), Tensor::zeros(DType::u8, shape), {}};
    heads.cache.k = cache.k.storage.data;
    heads.cache.v = cache.v.storage.data;
    if (keys_in_spans(type)) {
      const int64_t open_row = kv_row_bytes(KvType::bf16, a.head_dim), page = key_span * open_row;
      heads.cache.open_layout = {KvType::bf16, key_span, a.kv_heads * page, page, open_row};
      cache.open = Tensor::zeros(DType::u8, {open_spans.pages() * heads.cache.open_layout.block_bytes});
      heads.cache.open = cache.open.storage.data;
    }
  }
  heads.batch.layout = batch_rows(a, type, target.max_tokens);
  if (type != KvType::f32) {
    const std::vector<float*>& own = locals.at(node.id);
    const auto from_last = [&](size_t i) { return reinterpret_cast<std::byte*>(own[own.size() - i]); };
    heads.batch.k = from_last(2);
    heads.batch.v = from_last(1);
    if (keys_in_spans(type)) {
      heads.batch.open = from_last(3);
      heads.batch.open_layout = batch_rows(a, KvType::bf16, target.max_tokens);
    }
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
  if (heads.rotated_q || heads.cache.k || heads.batch.k)
    add_row_step({node.inputs[0],
                  {},
                  (a.heads + 2 * a.kv_heads) * a.head_dim,
                  [heads](const Batch& b, Range, const Share& share) {
                    if (heads.rotated_q || heads.place(b).k) heads.run(b, share);
                  }});
  if (keys_in_spans(type))
    add_step([this, heads](const Batch& b) {
      const auto spans = static_cast<int64_t>(full_spans.size());
      if (spans > 0)
        elementwise(spans * key_span * heads.kv_heads * heads.dim,
                    [&](const Share& share) { heads.fill(b, share); });
    });

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
  add_step([this, args, heads, k, v, &kernel](const Batch& b) {
    const HeadStep::Place& place = heads.place(b);
    AttentionArgs of_phase[std::size(phases)];
    for (size_t p = 0; p < std::size(phases); ++p) {
      of_phase[p] = args;
      of_phase[p].k = place.k ? static_cast<const void*>(place.k) : k;
      of_phase[p].v = place.v ? static_cast<const void*>(place.v) : v;
      of_phase[p].kv = place.layout;
      of_phase[p].open_k = place.open;
      of_phase[p].open = place.open_layout;
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
