// Grouped-query attention with online softmax, over blocks of queries and tiles of 64 keys.
//
// A block is the columns of a group (attention.h), gathered as the rows of one matrix, so that every key and
// value is read once per block. Per tile: keys as f32, transposed into scratch (in squares), scores = q k^T
// and out += p v by multiply.inl, one exp per score between them. Tiles start at multiples of 64 and a row
// ignores those without a key for it; each split of keys is a softmax of its own, folded in ascending order.
// So a row's bits depend on its own position only: not on the block, the chunk, the batch or the workers.
//
// Bound by fma for long blocks; by reading keys and values in decode. See docs/measurements.md.
#pragma once

#include "kernels/simd/exp.inl"
#include "kernels/simd/kv_rows.inl"
#include "kernels/simd/multiply.inl"

namespace lathe {
namespace {

constexpr int64_t block_rows = 96;
static_assert(attention_split % key_tile == 0);

// Below every score; finite, so that the difference of two is 0 and not NaN.
constexpr float no_score = -1e30f;

// An online softmax: sums of exp(score - largest) and of that times values.
struct Softmax {
  float *largest, *total;  // [rows]
  float* out;              // [rows, head_dim]
};

// A block's scratch: rows are (query, head) pairs, query-major.
struct Block {
  float* q;            // [rows, head_dim], scaled
  float* scores;       // [rows, key_tile], turned into probabilities in place
  float* keys;         // [head_dim, key_tile]
  float* unpacked;     // [key_tile, head_dim]
  Softmax split, sum;  // of a split, of all splits so far
  const Range* seen;   // [rows]: the keys of each
};

// Rows of the next tile, brought nearer while this one is computed, some at a time: a burst would wait for
// itself. Without it, decoding takes 1.6 times as long over bf16 and int8 keys, 1.4 times over int4.
struct Ahead {
  Rows rows;
  int64_t count, row_bytes;
  void fetch(int64_t begin, int64_t end) const {
    for (int64_t j = begin; j < (end < count ? end : count); ++j)
      for (int64_t i = 0; i < row_bytes; i += 64) __builtin_prefetch(rows.at[j] + i);
  }
};

template <KvType type>
void unpack(const Rows& rows, int64_t count, int64_t dim, float* out) {
  for (int64_t j = 0; j < count; ++j)
    read_kv_row<type>(rows.at[j], dim, [&](int64_t d, V v) { store(out + j * dim + d, v); });
}

// Keys [0, count) as columns: out[d][key]. Columns up to the next multiple of `square` repeat the last key.
void transpose_keys(const float* const* k, int64_t count, int64_t head_dim, float* out, const Ahead& ahead) {
  for (int64_t j = 0; j < count; j += square) {
    ahead.fetch(j, j + square);
    const float* rows[square];
    for (int64_t i = 0; i < square; ++i) rows[i] = k[j + i < count ? j + i : count - 1];
    for (int64_t d = 0; d < head_dim; d += square) {
      transpose_square(rows, out + d * key_tile + j, key_tile);
      for (const float*& row : rows) row += square;
    }
  }
}

// Keys [key, key + count) of one span as columns, as the queries of a group see them. A full span lies in
// columns already.
void load_span(const AttentionArgs& a, const Block& b, const AttentionGroup& g, int64_t key, int64_t count,
               float* out, const Ahead& ahead) {
  const AttentionSequence& s = a.sequences[g.sequence];
  const int64_t dim = a.head_dim, first = span_start(s.first);
  if (key < span_start(s.first + g.column / (a.heads / a.kv_heads))) {
    const int64_t tile = key % key_tile;
    ahead.fetch(tile, tile + key_span);
    read_kv_row<KvType::int4>(
        kv_row(a.kv, a.k, s.blocks, g.kv_head, key), dim * key_span,
        [&](int64_t i, V v) { store(out + i / key_span * key_tile + i % key_span, v); });
    return;
  }
  Rows rows;
  Ahead nothing;
  nothing.count = 0;
  const float* keys[key_span];
  find_rows(a.open, a.open_k, s.open, g.kv_head, key - first, count, rows);
  unpack<KvType::bf16>(rows, count, dim, b.unpacked);
  for (int64_t j = 0; j < count; ++j) keys[j] = b.unpacked + j * dim;
  transpose_keys(keys, count, dim, out, nothing);
}

// Scores of a row to exp(score - largest) where lo <= key < hi and 0 elsewhere; the old out and total are
// rescaled.
void softmax_step(const AttentionArgs& a, const Block& b, int64_t row, int64_t lo, int64_t hi) {
  float* s = b.scores + row * key_tile;
  if (lo >= hi) {
    for (int64_t j = 0; j < key_tile; j += lanes) store(s + j, zero());
    return;
  }
  if (a.soft_cap > 0) {
    const V cap = set(a.soft_cap);
    for (int64_t j = 0; j < key_tile; j += lanes) store(s + j, mul(cap, tanh(div(load(s + j), cap))));
  }
  for (int64_t j = 0; j < lo; ++j) s[j] = -__builtin_inff();
  for (int64_t j = hi; j < key_tile; ++j) s[j] = -__builtin_inff();
  V top = load(s);
  for (int64_t j = lanes; j < key_tile; j += lanes) top = max(top, load(s + j));
  const float before = b.split.largest[row], tile_largest = ::lathe::largest(top);
  const float now = tile_largest > before ? tile_largest : before;
  V total = zero();
  for (int64_t j = 0; j < key_tile; j += lanes) {
    const V p = exp(sub(load(s + j), set(now)));
    store(s + j, p);
    total = add(total, p);
  }
  if (now > before) {  // also the first tile: the factor is 0 there
    alignas(64) float factor[lanes];
    store(factor, exp(set(before - now)));
    b.split.total[row] *= factor[0];
    float* out = b.split.out + row * a.head_dim;
    for (int64_t d = 0; d < a.head_dim; d += lanes) store(out + d, mul(load(out + d), set(factor[0])));
  }
  b.split.total[row] += sum(total);
  b.split.largest[row] = now;
}

void clear(const Softmax& s, int64_t rows, int64_t dim) {
  for (int64_t i = 0; i < rows; ++i) s.largest[i] = no_score, s.total[i] = 0;
  for (int64_t i = 0; i < rows * dim; i += lanes) store(s.out + i, zero());
}

// One split of a group's keys: b.split.
template <KvType type>
void attend(const AttentionArgs& a, const Block& b, const AttentionGroup& g, int64_t split) {
  const AttentionSequence& s = a.sequences[g.sequence];
  const int64_t dim = a.head_dim;
  clear(b.split, g.columns, dim);
  const Range visible = visible_keys(a, s, g.column, g.columns);
  const int64_t begin = split * attention_split > visible.begin ? split * attention_split : visible.begin;
  const int64_t end =
      (split + 1) * attention_split < visible.end ? (split + 1) * attention_split : visible.end;
  Rows rows;
  Ahead ahead;
  ahead.row_bytes = kv_row_bytes(type, dim);
  const float* keys[key_tile];
  for (int64_t tile = begin / key_tile * key_tile; tile < end; tile += key_tile) {
    const int64_t count = end - tile < key_tile ? end - tile : key_tile;
    const int64_t next = tile + key_tile, left = visible.end - next;
    ahead.count = left < 0 ? 0 : left < key_tile ? left : key_tile;
    find_rows(a.kv, a.k, s.blocks, g.kv_head, next, ahead.count, ahead.rows);
    if constexpr (keys_in_spans(type)) {
      for (int64_t j = 0; j < count; j += key_span)
        load_span(a, b, g, tile + j, count - j < key_span ? count - j : key_span, b.keys + j, ahead);
    } else {
      find_rows(a.kv, a.k, s.blocks, g.kv_head, tile, count, rows);
      if (type != KvType::f32) unpack<type>(rows, count, dim, b.unpacked);
      for (int64_t j = 0; j < count; ++j)
        keys[j] = type == KvType::f32 ? reinterpret_cast<const float*>(rows.at[j]) : b.unpacked + j * dim;
      transpose_keys(keys, count, dim, b.keys, ahead);
    }
    multiply(
        {b.q, dim, {b.keys, panel, key_tile}, b.scores, key_tile, nullptr, g.columns, key_tile, dim, false});
    find_rows(a.kv, a.v, s.blocks, g.kv_head, next, ahead.count, ahead.rows);
    for (int64_t i = 0; i < g.columns; ++i) {
      ahead.fetch(key_tile * i / g.columns, key_tile * (i + 1) / g.columns);
      const Range seen = b.seen[i];
      softmax_step(a, b, i, seen.begin > tile ? seen.begin - tile : 0,
                   seen.end - tile < key_tile ? seen.end - tile : key_tile);
    }
    find_rows(a.kv, a.v, s.blocks, g.kv_head, tile, count, rows);
    const bool direct = type == KvType::f32 && rows.together;
    if (!direct) unpack<type>(rows, count, dim, b.unpacked);
    multiply({b.scores,
              key_tile,
              {direct ? reinterpret_cast<const float*>(rows.at[0]) : b.unpacked, panel,
               direct ? a.kv.token_bytes / static_cast<int64_t>(sizeof(float)) : dim},
              b.split.out,
              dim,
              nullptr,
              g.columns,
              dim,
              count,
              true});
  }
}

// sum += split. A row that saw no key of the split keeps its bits.
void fold(const Softmax& sum, const Softmax& split, int64_t rows, int64_t dim) {
  alignas(64) float old_factor[block_rows], new_factor[block_rows];
  for (int64_t i = 0; i < rows; i += lanes) {
    const int64_t left = rows - i;
    const V before = load_n(sum.largest + i, left), now = load_n(split.largest + i, left);
    const V most = max(before, now), old_one = exp(sub(before, most)), new_one = exp(sub(now, most));
    store(old_factor + i, old_one);
    store(new_factor + i, new_one);
    const V total = fma(load_n(split.total + i, left), new_one, mul(load_n(sum.total + i, left), old_one));
    store_n(sum.total + i, total, left);
    store_n(sum.largest + i, most, left);
  }
  for (int64_t i = 0; i < rows; ++i) {
    const V old_one = set(old_factor[i]), new_one = set(new_factor[i]);
    float* out = sum.out + i * dim;
    for (int64_t d = 0; d < dim; d += lanes)
      store(out + d, fma(load(split.out + i * dim + d), new_one, mul(load(out + d), old_one)));
  }
}

void finish(const AttentionArgs& a, const Softmax& sum, const AttentionGroup& g) {
  const AttentionSequence& s = a.sequences[g.sequence];
  const int64_t dim = a.head_dim, heads = a.heads / a.kv_heads;
  for (int64_t i = 0; i < g.columns; ++i) {
    const int64_t row = s.row + (g.column + i) / heads, head = g.kv_head * heads + (g.column + i) % heads;
    V total = set(sum.total[i]);
    if (a.sinks) total = add(total, exp(set(a.sinks[head] - sum.largest[i])));
    float* out = a.out + row * a.out_stride + head * dim;
    for (int64_t d = 0; d < dim; d += lanes) store(out + d, div(load(sum.out + i * dim + d), total));
  }
}

// The state of a split of a group that is in several items.
Softmax partial_state(const AttentionArgs& a, const AttentionGroup& g, int64_t split) {
  float* at = a.partials + g.partial + (split - g.split) * g.columns * (a.head_dim + 2);
  return {at, at + g.columns, at + 2 * g.columns};
}

template <KvType type>
void run_item(const AttentionArgs& a, Block b, const AttentionItem& item) {
  const AttentionGroup& g = a.groups[item.group];
  const AttentionSequence& s = a.sequences[g.sequence];
  const int64_t dim = a.head_dim, heads = a.heads / a.kv_heads;
  const V scale = set(a.scale);
  Range seen[block_rows];
  b.seen = seen;
  for (int64_t i = 0; i < g.columns; ++i) {
    seen[i] = visible_keys(a, s, s.first + (g.column + i) / heads);
    const int64_t row = s.row + (g.column + i) / heads, head = g.kv_head * heads + (g.column + i) % heads;
    const float* q = a.q + row * a.q_stride + head * dim;
    for (int64_t d = 0; d < dim; d += lanes) store(b.q + i * dim + d, mul(load(q + d), scale));
  }
  const bool whole = g.partial < 0;
  if (whole) clear(b.sum, g.columns, dim);
  for (int64_t split = item.split; split < item.split + item.splits; ++split) {
    if (!whole) b.split = partial_state(a, g, split);
    attend<type>(a, b, g, split);
    if (whole) fold(b.sum, b.split, g.columns, dim);
  }
  if (!whole) {
    if (!finish_item(a, item)) return;
    clear(b.sum, g.columns, dim);
    for (int64_t split = g.split; split < g.split + g.splits; ++split)
      fold(b.sum, partial_state(a, g, split), g.columns, dim);
  }
  finish(a, b.sum, g);
}

void attention(const AttentionArgs& a, const Share& share) {
  auto* scratch = static_cast<float*>(share.scratch);
  const auto take = [&](int64_t floats) {
    float* at = scratch;
    scratch += floats;
    return at;
  };
  Block b;
  b.q = take(block_rows * a.head_dim);
  b.scores = take(block_rows * key_tile);
  b.keys = take(a.head_dim * key_tile);
  b.unpacked = take(a.head_dim * key_tile);
  const auto take_softmax = [&] {
    Softmax s;
    s.largest = take(block_rows);
    s.total = take(block_rows);
    s.out = take(block_rows * a.head_dim);
    return s;
  };
  b.split = take_softmax();
  b.sum = take_softmax();
  while (const AttentionItem* item = take_item(a))
    of_type(a.kv.type, [&]<KvType type> { run_item<type>(a, b, *item); });
}

}  // namespace
}  // namespace lathe
