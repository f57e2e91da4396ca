// Causal grouped-query attention with online softmax, over blocks of queries and tiles of 64 keys.
//
// A block is some queries x the heads that share one key head, gathered as the rows of one matrix, so that
// every key and value is read once per block. Per tile: keys transposed into scratch (in squares), scores =
// q k^T and out += p v by multiply.inl, one exp per score between them. Tiles start at multiples of 64 and a
// row ignores those without a key for it, so a row's bits depend on its own position only: not on the block,
// the chunk or the workers. Bound by fma for long blocks; by reading keys and values in decode.
//
// Measured as in linear.inl with 32 query heads and 8 key heads of 64, counting visible pairs only: 512
// queries 150 GFLOP/s, 512 after 2048 keys 195; one query over 4096 keys 33 GB/s where the keys of a head lie
// together, and 15 to 24 where heads lie side by side: no hardware prefetcher follows pieces of 256 bytes,
// and software prefetches gained nothing (AVX-512).
#pragma once

#include "kernels/simd/exp.inl"
#include "kernels/simd/multiply.inl"

namespace lathe {
namespace {

constexpr int64_t key_tile = 64, block_rows = 96;

// Keys [0, count) as columns: out[d][key]. Columns up to the next multiple of `square` repeat the last key.
void transpose_keys(const float* k, int64_t stride, int64_t count, int64_t head_dim, float* out) {
  for (int64_t j = 0; j < count; j += square) {
    const float* rows[square];
    for (int64_t i = 0; i < square; ++i) rows[i] = k + (j + i < count ? j + i : count - 1) * stride;
    for (int64_t d = 0; d < head_dim; d += square) {
      transpose_square(rows, out + d * key_tile + j, key_tile);
      for (const float*& row : rows) row += square;
    }
  }
}

// A block's state: rows are (query, head) pairs, query-major.
struct Block {
  float *q, *out;          // [rows, head_dim], q already scaled
  float* scores;           // [rows, key_tile], turned into probabilities in place
  float *largest, *total;  // [rows]
  float* keys;             // [head_dim, key_tile]
};

// Scores of a row to exp(score - largest) where lo <= key < hi and 0 elsewhere; the old out and total are
// rescaled.
void softmax_step(const Block& b, int64_t row, int64_t head_dim, int64_t lo, int64_t hi) {
  float* s = b.scores + row * key_tile;
  if (lo >= hi) {
    for (int64_t j = 0; j < key_tile; j += lanes) store(s + j, zero());
    return;
  }
  for (int64_t j = 0; j < lo; ++j) s[j] = -__builtin_inff();
  for (int64_t j = hi; j < key_tile; ++j) s[j] = -__builtin_inff();
  V top = load(s);
  for (int64_t j = lanes; j < key_tile; j += lanes) top = max(top, load(s + j));
  const float before = b.largest[row], tile_largest = ::lathe::largest(top);
  const float now = tile_largest > before ? tile_largest : before;
  V total = zero();
  for (int64_t j = 0; j < key_tile; j += lanes) {
    const V p = exp(sub(load(s + j), set(now)));
    store(s + j, p);
    total = add(total, p);
  }
  if (now > before) {  // also the first tile: before is -inf and the factor 0
    alignas(64) float factor[lanes];
    store(factor, exp(set(before - now)));
    b.total[row] *= factor[0];
    float* out = b.out + row * head_dim;
    for (int64_t d = 0; d < head_dim; d += lanes) store(out + d, mul(load(out + d), set(factor[0])));
  }
  b.total[row] += sum(total);
  b.largest[row] = now;
}

// Queries [row, row + rows) of heads [head, head + heads), which share one key head.
void attend(const AttentionArgs& a, const Block& b, int64_t row, int64_t rows, int64_t head, int64_t heads) {
  const int64_t dim = a.head_dim, kv_head = head / (a.heads / a.kv_heads);
  for (int64_t i = 0; i < rows * heads; ++i) {
    const float* q = a.q + (row + i / heads) * a.q_stride + (head + i % heads) * dim;
    for (int64_t d = 0; d < dim; d += lanes) {
      store(b.q + i * dim + d, mul(load(q + d), set(a.scale)));
      store(b.out + i * dim + d, zero());
    }
    b.largest[i] = -__builtin_inff();
    b.total[i] = 0;
  }
  const int64_t first = a.first + row, last = first + rows - 1;  // positions of this block
  const int64_t oldest = a.window > 0 && first - a.window + 1 > 0 ? first - a.window + 1 : 0;
  for (int64_t tile = oldest / key_tile * key_tile; tile <= last; tile += key_tile) {
    const int64_t count = last + 1 - tile < key_tile ? last + 1 - tile : key_tile;
    const int64_t at = tile * a.kv_stride + kv_head * a.kv_head_stride;
    transpose_keys(a.k + at, a.kv_stride, count, dim, b.keys);
    multiply({b.q,
              dim,
              {b.keys, panel, key_tile},
              b.scores,
              key_tile,
              nullptr,
              rows * heads,
              key_tile,
              dim,
              false});
    for (int64_t i = 0; i < rows * heads; ++i) {
      const int64_t position = first + i / heads, newest = position + 1 - tile;
      const int64_t lo = a.window > 0 && position - a.window + 1 > tile ? position - a.window + 1 - tile : 0;
      softmax_step(b, i, dim, lo, newest < key_tile ? newest : key_tile);
    }
    multiply({b.scores,
              key_tile,
              {a.v + at, panel, a.kv_stride},
              b.out,
              dim,
              nullptr,
              rows * heads,
              dim,
              count,
              true});
  }
  for (int64_t i = 0; i < rows * heads; ++i) {
    float* out = a.out + (row + i / heads) * a.out_stride + (head + i % heads) * dim;
    const V total = set(b.total[i]);
    for (int64_t d = 0; d < dim; d += lanes) store(out + d, div(load(b.out + i * dim + d), total));
  }
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
  b.out = take(block_rows * a.head_dim);
  b.scores = take(block_rows * key_tile);
  b.keys = take(a.head_dim * key_tile);
  b.largest = take(block_rows);
  b.total = take(block_rows);

  // Items are (block of queries, key head, part of its query heads), dealt out in turn because later queries
  // cost more.
  const int64_t group = a.heads / a.kv_heads;
  int64_t parts = (group + block_rows - 1) / block_rows;
  while (parts < group && a.kv_heads * parts * a.rows < share.workers) ++parts;
  const int64_t heads = (group + parts - 1) / parts, queries = block_rows / heads;
  const int64_t blocks = (a.rows + queries - 1) / queries, items = blocks * a.kv_heads * parts;
  for (int64_t item = share.worker; item < items; item += share.workers) {
    const int64_t row = item / (a.kv_heads * parts) * queries, kv_head = item / parts % a.kv_heads;
    const int64_t head = item % parts * heads;
    const int64_t count = group - head < heads ? group - head : heads;
    if (count <= 0) continue;
    attend(a, b, row, a.rows - row < queries ? a.rows - row : queries, kv_head * group + head, count);
  }
}

}  // namespace
}  // namespace lathe
