// Grouped-query attention of a batch of sequences over keys and values in blocks, with online softmax.
#pragma once

#include "kernels/share.h"

namespace lathe {

// How a key or a value of one head lies in memory. Quantized ones carry their own scales, so that a row is
// read alone, a block is copied by one memcpy, and a token's bits do not depend on its neighbours:
//   int8   f32 scale, then head_dim int8: x = scale * code; scale = max |x| / 127
//   int4   per group of 32: bf16 scale and bf16 minimum, then 16 bytes, number i in the low bits of byte i
//          and number i + 16 in the high ones: x = scale * code + minimum; all groups' scales come first
//   fp8    f32 scale, then head_dim e4m3: x = scale * code; scale = max |x| / 448
//   nvfp4  f32 scale, then an e4m3 scale per 16, then codes of e2m1, 32 as in int4: x = (scale * its e4m3) *
//          code; scale = max |x| / (6 * 448), the e4m3 scale is max |x| of the 16 / (6 * scale)
//   int4_channel: values as int4, keys with a scale and a minimum per channel (KIVI, arXiv 2402.02750). Those
//          of a span, 32 positions from a multiple of 32 on, are one int4 row of head_dim * 32 numbers,
//          channel after channel, as many bytes as 32 rows. It exists once they all do. To queries of the
//          same span they are rows of bf16 that lie elsewhere (AttentionArgs::open_k): what a query sees is a
//          matter of its position.
// A model may give the scale of int8, fp8 and nvfp4 (op::Attention): then x / scale is rounded to nearest,
// ties to even, and what is beyond the largest code becomes that.
enum class KvType : uint8_t { f32, bf16, int8, int4, fp8, nvfp4, int4_channel };
inline constexpr int64_t kv_group = 32;        // of 4 bits: head_dim is a multiple
inline constexpr int64_t key_span = kv_group;  // positions of a span

static inline constexpr bool keys_in_spans(KvType type) { return type == KvType::int4_channel; }

static inline int64_t kv_row_bytes(KvType type, int64_t head_dim) {  // static: see share.h
  switch (type) {
    case KvType::f32:
      return head_dim * 4;
    case KvType::bf16:
      return head_dim * 2;
    case KvType::int8:
    case KvType::fp8:
      return 4 + head_dim;
    case KvType::nvfp4:
      return 4 + head_dim / 16 + head_dim / 2;
    default:
      return head_dim / kv_group * 4 + head_dim / 2;
  }
}

// Key j of key head h of a sequence whose block table is t lies at
//   k + t[j / block_tokens] * block_bytes + h * head_bytes + j % block_tokens * token_bytes
// and so do values. Whatever is contiguous is one large block. A span of keys lies where its first key would,
// and block_tokens is a multiple of key_span or there is one block.
struct KvLayout {
  KvType type = KvType::f32;
  int64_t block_tokens = 0, block_bytes = 0, head_bytes = 0, token_bytes = 0;
};

struct AttentionSequence {
  int64_t row, rows;      // of q and out; rows follow each other
  int64_t first;          // position of the first row
  int64_t keys;           // that exist: first + rows, or any number where queries are of another sequence
  const int32_t* blocks;  // block table
  // Where keys lie in spans: block table of the open rows, whose key 0 is the first of the first row's span.
  const int32_t* open = nullptr;
};

// Queries that one worker computes together: columns [column, column + columns) of the rows x query heads of
// one key head (row-major) of one sequence, and the key splits [split, split + splits) that any of them sees.
// Where keys lie in spans, all of them are of one span.
// Split i is keys [i * attention_split, (i + 1) * attention_split).
struct AttentionGroup {
  int64_t sequence, kv_head, column, columns, split, splits;
  int64_t partial;  // of a group in several items: where its splits' states lie in `partials`; else -1
  int64_t items;
};

// Some splits of a group: the unit that workers take. Each split is an online softmax of its own, and splits
// are folded in ascending order, so a row's bits depend neither on how a group is cut nor on the workers.
struct AttentionItem {
  int64_t group, split, splits;
};
inline constexpr int64_t attention_split = 512;

// Query row i of a sequence has position p = first + i and sees key j iff j < keys, j <= p (where causal),
// and |p - j| < window (where window > 0). Head h reads key head h / (heads / kv_heads). With s = scale * q
// k, then soft_cap * tanh(s / soft_cap) where soft_cap > 0, out = sum exp(s) v / (sum exp(s) + exp(sink)),
// the last term where `sinks` is not null (gpt-oss). A query that sees no key: 0 with a sink, else NaN or 0.
struct AttentionArgs {
  const float* q;  // [rows, heads * head_dim]
  const void *k, *v;
  float* out;  // [rows, heads * head_dim]
  KvLayout kv;
  const void* open_k = nullptr;  // where keys lie in spans: those of the spans that queries lie in, in bf16
  KvLayout open = {};            // of these
  const AttentionSequence* sequences;
  int64_t q_stride, out_stride;  // in floats
  int64_t heads, kv_heads, head_dim, window;
  bool causal;
  float scale, soft_cap;
  const float* sinks;  // [heads] or null

  // Set by AttentionWork::share_out.
  const AttentionGroup* groups;
  const AttentionItem* items;
  int64_t item_count;
  int64_t* taken;     // items that workers have begun
  int32_t* finished;  // [groups]: items that are done
  float* partials;    // per split: its columns' largest scores, totals, then outs [columns, head_dim]
};

static inline int64_t kv_offset(const KvLayout& l, const int32_t* blocks, int64_t kv_head, int64_t key) {
  return blocks[key / l.block_tokens] * l.block_bytes + kv_head * l.head_bytes +
         key % l.block_tokens * l.token_bytes;
}
static inline const char* kv_row(const KvLayout& l, const void* base, const int32_t* blocks, int64_t kv_head,
                                 int64_t key) {
  return static_cast<const char*>(base) + kv_offset(l, blocks, kv_head, key);
}

static inline int64_t span_start(int64_t position) { return position / key_span * key_span; }

// The keys that the query at a position sees.
static inline Range visible_keys(const AttentionArgs& a, const AttentionSequence& s, int64_t position) {
  Range keys = {0, s.keys};
  if (a.causal && keys.end > position + 1) keys.end = position + 1;
  if (a.window > 0) {
    if (keys.begin < position - a.window + 1) keys.begin = position - a.window + 1;
    if (keys.end > position + a.window) keys.end = position + a.window;
  }
  return keys.begin < keys.end ? keys : Range{0, 0};
}

// The keys that any of a group's columns sees, and more where windows leave a gap.
static inline Range visible_keys(const AttentionArgs& a, const AttentionSequence& s, int64_t column,
                                 int64_t columns) {
  const int64_t heads = a.heads / a.kv_heads;
  const Range first = visible_keys(a, s, s.first + column / heads),
              last = visible_keys(a, s, s.first + (column + columns - 1) / heads);
  if (first.begin == first.end) return last;
  return last.begin == last.end ? first : Range{first.begin, last.end};
}

// The next item, or null when all are taken.
static inline const AttentionItem* take_item(const AttentionArgs& a) {
  const int64_t i = __atomic_fetch_add(a.taken, 1, __ATOMIC_RELAXED);
  return i < a.item_count ? a.items + i : nullptr;
}

// Whether this was the last item of its group: then all partial states can be read.
static inline bool finish_item(const AttentionArgs& a, const AttentionItem& item) {
  const int32_t before = __atomic_fetch_add(a.finished + item.group, 1, __ATOMIC_ACQ_REL);
  return before + 1 == a.groups[item.group].items;
}

}  // namespace lathe
