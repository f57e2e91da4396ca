// Grouped-query attention for prompts, in bf16 tiles with f32 sums and online softmax.
//
// A block is a group of attention.h, up to 512 columns. Everything is
// transposed: scores = K q^T and out += V^T p, so that keys run down a tile's rows, a vector holds one key's
// scores of 16 columns, and softmax needs no sum or maximum across a vector. Keys are activations of tiles.h
// as they lie in memory; values are transposed once per block.
//
// Keys and values become bf16 tiles 256 at a time (heads of 64; 64 KiB, in L2). Then, for each strip of 32
// columns, the chunk streams by in tiles of 64 keys: scores, one exp2 per score, out from scratch and back,
// all of it in L1. Strips skip tiles of which they see no key. Tiles start at multiples of 64 and a masked
// key adds 0, so a row's bits depend on its own position only: not on the block, the chunk or the workers.
//
// Measured as in simd/attention.inl, by the best of many calls: 512 queries 710 GFLOP/s, 512 after 3584 keys
// 1250 (f32: 150 and 215). Of the latter 40 % goes to softmax (7 cycles per 16 scores), as much to the tile
// unit and its loads, 15 % to packing; with few keys a quarter goes to reading q and writing out. Scores of
// the next tile before the softmax of this one, or between its halves, gained nothing.
#include "kernels/amx/amx.h"
#include "kernels/amx/tiles.h"
#include "kernels/avx512/vec.h"
// These are written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/exp.inl"
#include "kernels/simd/kv_rows.inl"
// clang-format on

namespace lathe::amx {
namespace {

constexpr int64_t key_rows = key_tile / tile_side;  // tiles of scores below each other
constexpr int64_t most_columns = 512, most_dim = 256;
constexpr int64_t step = 32;  // bf16 in a row of a tile
constexpr int64_t tile_floats = tile_bytes / 4;
constexpr int64_t strip_scores = key_tile * pair;
constexpr int64_t chunk_elements = 256 * 64;  // of keys, and of values, that are packed at a time
constexpr float log2_e = 1.44269504088896341f;

struct Block {
  char* q;                   // [strip][depth][column half]: weights of tiles.h, scaled
  char *keys, *values;       // [chunk tile][key_rows][depth], [chunk tile][dim / 16][key half]: activations
  float* scores;             // [column half][key]: 16 columns; exp2 makes them weights in place
  float* out;                // [strip][dim / 16][column half]: results
  float *largest, *total;    // [column]
  int32_t *oldest, *newest;  // [column]: the keys that it sees
  float* unpacked;           // [key_tile, dim]
  int64_t dim, depth, columns;  // depth: tiles of `step` that hold dim
  int64_t strips() const { return ceil_div(columns, pair); }
  char* keys_of(int64_t tile) const { return keys + tile * key_rows * depth * tile_bytes; }
  char* values_of(int64_t tile) const { return values + tile * dim / 8 * tile_bytes; }
};
constexpr int64_t scratch_bytes = most_columns * most_dim * 6 + 2 * chunk_elements * 2 + strip_scores * 4 +
                                  most_columns * 16 + key_tile * most_dim * 4;
static_assert(scratch_bytes <= static_cast<int64_t>(kernel_scratch_bytes));

inline __m512i as_bf16(V low, V high) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)); }

// 16 rows of 16 words to 16 columns.
inline void transpose_tile(const float* words, float* out) {
  for (int64_t r = 0; r < tile_side; r += square)
    for (int64_t c = 0; c < tile_side; c += square) {
      const float* rows[square];
      for (int64_t i = 0; i < square; ++i) rows[i] = words + (r + i) * tile_side + c;
      transpose_square(rows, out + c * tile_side + r, tile_side);
    }
}

// A column is query `row` of `head`. Those beyond the block repeat its last position, with a query of zeros.
struct Column {
  int64_t row, head;
};
Column column_of(const AttentionArgs& a, const AttentionGroup& g, int64_t column) {
  const int64_t heads = a.heads / a.kv_heads;
  return {(g.column + column) / heads, g.kv_head * heads + (g.column + column) % heads};
}

void start(const AttentionArgs& a, const AttentionGroup& g, const Block& b) {
  const AttentionSequence& s = a.sequences[g.sequence];
  const V scale = set(a.scale * log2_e);  // scores in powers of 2
  for (int64_t top = 0; top < b.strips() * pair; top += tile_side) {
    const float* queries[tile_side];
    for (int64_t i = 0; i < tile_side; ++i) {
      const int64_t c = top + i;
      const Column at = column_of(a, g, c < b.columns ? c : b.columns - 1);
      queries[i] = a.q + (s.row + at.row) * a.q_stride + at.head * b.dim;
      const Range keys = visible_keys(a, s, s.first + at.row);
      b.oldest[c] = static_cast<int32_t>(keys.begin);
      b.newest[c] = static_cast<int32_t>(keys.end - 1);
    }
    store(b.largest + top, set(-__builtin_inff()));
    store(b.total + top, zero());
    for (int64_t t = 0; t < b.depth; ++t) {
      alignas(64) float words[tile_floats];
      for (int64_t i = 0; i < tile_side; ++i) {
        const int64_t left = top + i < b.columns ? b.dim - t * step : 0;
        const float* x = queries[i] + t * step;
        _mm512_store_si512(words + i * tile_side,
                           as_bf16(mul(scale, load_n(x, left)), mul(scale, load_n(x + lanes, left - lanes))));
      }
      const int64_t tile = (top / pair * b.depth + t) * 2 + top % pair / tile_side;
      transpose_tile(words, reinterpret_cast<float*>(b.q + tile * tile_bytes));
    }
  }
  for (int64_t i = 0; i < b.strips() * pair * b.dim; i += lanes) store(b.out + i, zero());
}

// Rows as floats: where they lie, or unpacked.
template <KvType type>
void as_floats(const Rows& rows, int64_t count, const Block& b, const float* out[key_tile]) {
  for (int64_t j = 0; j < count; ++j) {
    float* to = b.unpacked + j * b.dim;
    if (type != KvType::f32) read_kv_row<type>(rows.at[j], b.dim, [&](int64_t d, V v) { store(to + d, v); });
    out[j] = type == KvType::f32 ? reinterpret_cast<const float*>(rows.at[j]) : to;
  }
}

// Keys and values [0, count) of a tile; the others are zeros.
void pack_keys(const float* const k[key_tile], int64_t count, const Block& b, char* out) {
  for (int64_t j = 0; j < key_tile; ++j)
    for (int64_t t = 0; t < b.depth; ++t) {
      const float* x = j < count ? k[j] + t * step : nullptr;
      const int64_t left = j < count ? b.dim - t * step : 0;
      _mm512_store_si512(out + (j / tile_side * b.depth + t) * tile_bytes + j % tile_side * 64,
                         as_bf16(load_n(x, left), load_n(x + lanes, left - lanes)));
    }
}
void pack_values(const float* const v[key_tile], int64_t count, const Block& b, char* out) {
  for (int64_t half = 0; half < 2; ++half)
    for (int64_t d = 0; d < b.dim; d += tile_side) {
      alignas(64) float words[tile_floats];
      for (int64_t i = 0; i < tile_side; ++i) {
        const int64_t j = half * step + 2 * i;
        _mm512_store_si512(words + i * tile_side, as_pairs(j < count ? load(v[j] + d) : zero(),
                                                           j + 1 < count ? load(v[j + 1] + d) : zero()));
      }
      transpose_tile(words, reinterpret_cast<float*>(out + (d / tile_side * 2 + half) * tile_bytes));
    }
}

template <KvType type>
void pack_tile(const AttentionArgs& a, const AttentionGroup& g, int64_t key, int64_t count, const Block& b,
               int64_t tile) {
  const int32_t* blocks = a.sequences[g.sequence].blocks;
  Rows rows;
  const float* floats[key_tile];
  find_rows(a.kv, a.k, blocks, g.kv_head, key, count, rows);
  as_floats<type>(rows, count, b, floats);
  pack_keys(floats, count, b, b.keys_of(tile));
  find_rows(a.kv, a.v, blocks, g.kv_head, key, count, rows);
  as_floats<type>(rows, count, b, floats);
  pack_values(floats, count, b, b.values_of(tile));
}

// Brings part of the next chunk's keys and values into L2 while strips of this one are computed: they lie
// apart, which no hardware prefetcher follows.
void prefetch(const AttentionArgs& a, const AttentionGroup& g, int64_t key, int64_t count, int64_t part,
              int64_t parts) {
  const Range keys = part_of(count, part, parts);
  const int64_t bytes = kv_row_bytes(a.kv.type, a.head_dim);
  const void* bases[] = {a.k, a.v};
  for (const void* base : bases)
    for (int64_t j = keys.begin; j < keys.end; j += key_tile) {
      const int64_t n = keys.end - j < key_tile ? keys.end - j : key_tile;
      Rows rows;
      find_rows(a.kv, base, a.sequences[g.sequence].blocks, g.kv_head, key + j, n, rows);
      for (int64_t i = 0; i < n; ++i)
        for (int64_t at = 0; at < bytes; at += 64) _mm_prefetch(rows.at[i] + at, _MM_HINT_T1);
    }
}

// 2^x, for x whose result is rounded to bf16: 1 + r (c1 + r (c2 + r c3)) for the fraction r in [0, 1) has a
// relative error of 8.6e-5 at most (2^-13.5; least maximum among cubics that are 1 at 0), and scalef takes
// the whole part by itself. 0 for -infinity.
inline V exp2(V x) {
  const V r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  V p = fma(set(0.07706704200379724f), r, set(0.2276449911952388f));
  p = fma(p, r, set(0.6951167864133931f));
  p = fma(p, r, set(1));
  return _mm512_scalef_ps(p, x);
}

// Scores of a strip of columns.
void score(const Block& b, int64_t strip, const char* keys) {
  const char* q = b.q + strip * b.depth * 2 * tile_bytes;
  for (int64_t row = 0; row < key_rows; row += 2) {
    const char *k0 = keys + row * b.depth * tile_bytes, *k1 = k0 + b.depth * tile_bytes;
    zero_results();
    for (int64_t t = 0; t < b.depth; ++t) {
      _tile_loadd(4, k0 + t * tile_bytes, 64);
      _tile_loadd(6, q + 2 * t * tile_bytes, 64);
      _tile_loadd(7, q + (2 * t + 1) * tile_bytes, 64);
      _tile_loadd(5, k1 + t * tile_bytes, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    float* scores = b.scores + row * tile_floats;
    _tile_stored(0, scores, 64);
    _tile_stored(1, scores + key_tile * lanes, 64);
    _tile_stored(2, scores + tile_floats, 64);
    _tile_stored(3, scores + key_tile * lanes + tile_floats, 64);
  }
}

void cap_scores(const Block& b, float soft_cap) {
  const V cap = set(soft_cap * log2_e);
  for (int64_t i = 0; i < strip_scores; i += lanes)
    store(b.scores + i, mul(cap, tanh(div(load(b.scores + i), cap))));
}

// Scores of 16 columns to weights: exp2(score - largest), 0 where `masked` and the column does not see the
// key. `largest` follows the true one only when that has grown by more than 2^8: out is rescaled rarely, and
// weights of up to 2^8 lose nothing in floating point.
template <bool masked>
void softmax(const Block& b, int64_t strip, int64_t half, int64_t tile) {
  const int64_t column = strip * pair + half * tile_side;
  float* scores = b.scores + half * key_tile * lanes;
  const auto at = [&](int64_t j) { return scores + j * lanes; };
  const __m512i oldest = _mm512_loadu_si512(b.oldest + column),
                newest = _mm512_loadu_si512(b.newest + column);
  const auto seen = [&](int64_t j) {
    const __m512i key = _mm512_set1_epi32(static_cast<int>(tile + j));
    return _mm512_mask_cmple_epi32_mask(_mm512_cmple_epi32_mask(key, newest), oldest, key);
  };

  constexpr int64_t chains = 4;  // enough to hide the latency of max
  V top[chains];
  for (V& t : top) t = set(-__builtin_inff());
  for (int64_t j = 0; j < key_tile; j += chains)
#pragma GCC unroll 4
    for (int64_t i = 0; i < chains; ++i)
      top[i] = masked ? _mm512_mask_max_ps(top[i], seen(j + i), top[i], load(at(j + i)))
                      : max(top[i], load(at(j + i)));
  top[0] = max(max(top[0], top[1]), max(top[2], top[3]));

  V largest = load(b.largest + column), total = load(b.total + column);
  const __mmask16 grown = _mm512_cmp_ps_mask(top[0], add(largest, set(8)), _CMP_GT_OQ);
  if (grown) {
    const V factor = _mm512_mask_mov_ps(set(1), grown, exp2(sub(largest, top[0])));
    largest = _mm512_mask_mov_ps(largest, grown, top[0]);
    store(b.largest + column, largest);
    total = mul(total, factor);
    for (int64_t d = 0; d < b.dim; ++d) {
      float* out = b.out + (strip * b.dim + d / tile_side * tile_side) * pair + half * tile_floats +
                   d % tile_side * lanes;
      store(out, mul(load(out), factor));
    }
  }

  V even = zero(), odd = zero();
  for (int64_t j = 0; j < key_tile; j += 2) {
    V p0 = exp2(sub(load(at(j)), largest)), p1 = exp2(sub(load(at(j + 1)), largest));
    if (masked) {
      p0 = _mm512_maskz_mov_ps(seen(j), p0);
      p1 = _mm512_maskz_mov_ps(seen(j + 1), p1);
    }
    even = add(even, p0);
    odd = add(odd, p1);
    _mm512_store_si512(at(j), as_pairs(p0, p1));
  }
  store(b.total + column, add(total, add(even, odd)));
}

void add_values(const Block& b, int64_t strip, const char* values) {
  constexpr int64_t stride = 128;  // the pairs of two keys lie where the first key's scores were
  const float *left = b.scores, *right = left + key_tile * lanes;
  _tile_loadd(4, left, stride);
  _tile_loadd(5, right, stride);
  _tile_loadd(6, left + step * lanes, stride);
  _tile_loadd(7, right + step * lanes, stride);
  float* out = b.out + strip * b.dim * pair;
  for (int64_t d = 0; d < b.dim; d += tile_side) {
    const char* v = values + d / tile_side * 2 * tile_bytes;
    _tile_loadd(0, out, 64);
    _tile_loadd(1, out + tile_floats, 64);
    _tile_loadd(2, v, 64);
    _tile_loadd(3, v + tile_bytes, 64);
    _tile_dpbf16ps(0, 2, 4);
    _tile_dpbf16ps(1, 2, 5);
    _tile_dpbf16ps(0, 3, 6);
    _tile_dpbf16ps(1, 3, 7);
    _tile_stored(0, out, 64);
    _tile_stored(1, out + tile_floats, 64);
    out += 2 * tile_floats;
  }
}

void finish(const AttentionArgs& a, const AttentionGroup& g, const Block& b) {
  const AttentionSequence& s = a.sequences[g.sequence];
  for (int64_t top = 0; top < b.columns; top += tile_side) {
    const int64_t count = b.columns - top < tile_side ? b.columns - top : tile_side;
    float* outs[tile_side];
    alignas(64) float sinks[tile_side] = {};
    for (int64_t i = 0; i < count; ++i) {
      const Column at = column_of(a, g, top + i);
      outs[i] = a.out + (s.row + at.row) * a.out_stride + at.head * b.dim;
      if (a.sinks) sinks[i] = a.sinks[at.head] * log2_e;
    }
    V total = load(b.total + top);
    if (a.sinks) total = add(total, exp2(sub(load(sinks), load(b.largest + top))));
    const V inverse = div(set(1), total);
    for (int64_t d = 0; d < b.dim; d += tile_side) {
      const float* tile = b.out + (top / pair * b.dim + d) * pair + top % pair / tile_side * tile_floats;
      alignas(64) float scaled[tile_floats], rows[tile_floats];
      for (int64_t i = 0; i < tile_floats; i += lanes) store(scaled + i, mul(load(tile + i), inverse));
      transpose_tile(scaled, rows);
      for (int64_t i = 0; i < count; ++i) store(outs[i] + d, load(rows + i * tile_side));
    }
  }
}

// The keys that any column of a strip sees, and those that all do.
struct Seen {
  Range any, all;
};
Seen seen_by(const Block& b, int64_t strip) {
  const int32_t *oldest = b.oldest + strip * pair, *newest = b.newest + strip * pair;
  Seen s = {{oldest[0], newest[0] + 1}, {oldest[0], newest[0] + 1}};
  for (int64_t c = 1; c < pair; ++c) {
    const int64_t begin = oldest[c], end = newest[c] + 1;
    if (begin < s.any.begin) s.any.begin = begin;
    if (end > s.any.end) s.any.end = end;
    if (begin > s.all.begin) s.all.begin = begin;
    if (end < s.all.end) s.all.end = end;
  }
  return s;
}

template <KvType type>
void attend(const AttentionArgs& a, const AttentionGroup& g, const Block& b) {
  start(a, g, b);
  const Range visible = visible_keys(a, a.sequences[g.sequence], g.column, g.columns);
  const int64_t end = visible.end, chunk = chunk_elements / (b.depth * step) / key_tile * key_tile;
  const auto keys_from = [&](int64_t key) { return end - key < chunk ? end - key : chunk; };
  for (int64_t top = visible.begin / key_tile * key_tile; top < end; top += chunk) {
    for (int64_t tile = top; tile < top + keys_from(top); tile += key_tile)
      pack_tile<type>(a, g, tile, end - tile < key_tile ? end - tile : key_tile, b, (tile - top) / key_tile);
    const int64_t next = top + chunk;
    for (int64_t strip = 0; strip < b.strips(); ++strip) {
      if (next < end) prefetch(a, g, next, keys_from(next), strip, b.strips());
      const Seen seen = seen_by(b, strip);
      for (int64_t tile = top; tile < top + keys_from(top); tile += key_tile) {
        const int64_t t = (tile - top) / key_tile;
        if (seen.any.end <= tile || seen.any.begin >= tile + key_tile) continue;
        const bool masked = seen.all.end < tile + key_tile || seen.all.begin > tile;
        score(b, strip, b.keys_of(t));
        if (a.soft_cap > 0) cap_scores(b, a.soft_cap);
        for (int64_t half = 0; half < 2; ++half)
          masked ? softmax<true>(b, strip, half, tile) : softmax<false>(b, strip, half, tile);
        add_values(b, strip, b.values_of(t));
      }
    }
  }
  finish(a, g, b);
}

}  // namespace

void attention(const AttentionArgs& a, const Share& share) noexcept {
  auto* scratch = static_cast<char*>(share.scratch);
  const auto take = [&](int64_t bytes) {
    char* at = scratch;
    scratch += bytes;
    return at;
  };
  const auto floats = [&](int64_t n) { return reinterpret_cast<float*>(take(n * 4)); };
  const auto ints = [&](int64_t n) { return reinterpret_cast<int32_t*>(take(n * 4)); };
  Block b;
  b.dim = a.head_dim;
  b.depth = ceil_div(b.dim, step);
  b.keys = take(chunk_elements * 2);
  b.values = take(chunk_elements * 2);
  b.scores = floats(strip_scores);
  b.q = take(most_columns * b.depth * 64);
  b.out = floats(most_columns * b.dim);
  b.largest = floats(most_columns);
  b.total = floats(most_columns);
  b.oldest = ints(most_columns);
  b.newest = ints(most_columns);
  b.unpacked = floats(key_tile * b.dim);

  const Tiles tiles;
  while (const AttentionItem* item = take_item(a)) {
    const AttentionGroup& g = a.groups[item->group];
    b.columns = g.columns;
    of_type(a.kv.type, [&]<KvType type> { attend<type>(a, g, b); });
  }
}

}  // namespace lathe::amx
