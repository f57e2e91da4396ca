// Walks the table of attention kernels against closed forms and against the reference.
#include "core/error.h"
#include "core/float.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "kernels/attention_work.h"
#include "kernels/harness.h"
#include "kernels/key_span.h"
#include "kernels/ref/ref.h"

namespace lathe {
namespace {

constexpr KvType kv_types[] = {KvType::f32, KvType::bf16,  KvType::int8,        KvType::int4,
                               KvType::fp8, KvType::nvfp4, KvType::int4_channel};

struct Sequence {
  int64_t rows, first;
};
struct Case {
  std::vector<Sequence> sequences;
  int64_t heads, kv_heads, head_dim, window = 0;
  bool causal = true;
  float soft_cap = 0;
  bool sinks = false;
  int64_t keys = 0;  // of another sequence (cross attention); 0: those of the same
  int64_t keys_of(const Sequence& s) const { return keys ? keys : s.first + s.rows; }
};
const std::vector<Case> cases = {
    {{{1, 0}}, 1, 1, 8},           // the first token
    {{{1, 200}}, 8, 2, 64},        // decode, grouped
    {{{1, 1300}}, 4, 1, 32},       // over several splits of keys
    {{{1, 700}}, 7, 1, 64, 100},   // a window of more than one tile
    {{{1, 1100}}, 7, 1, 64, 600},  // that starts inside a split
    {{{5, 0}}, 4, 4, 16},          // prompt without grouping
    {{{70, 0}}, 14, 2, 64},        // prompt over more than one tile and block
    {{{130, 61}}, 6, 2, 32},       // a later chunk that starts inside a tile
    {{{130, 61}}, 6, 2, 32, 64},   // with a window of one tile
    {{{90, 10}}, 4, 1, 24, 3},     // a window smaller than the vectors; 24 is no multiple of 16
    {{{3, 64}}, 2, 1, 128, 1},     // each query sees itself only
    {{{9, 5}}, 100, 1, 40},        // more heads in a group than fit a block
    {{{2, 3}}, 2, 2, 512},
    {{{4, 2}}, 3, 1, 20},                       // a multiple of 4 only: NEON's
    {{{4, 2}}, 3, 1, 18},                       // only the reference takes this one
    {{{emulated ? 100 : 300, 100}}, 8, 2, 80},  // several blocks of columns; 80 is no multiple of 32
    {{{150, 37}}, 4, 4, 96, 70},
    {{{emulated ? 12 : 40, 300}}, 6, 2, 256},
    {{{33, 70}}, 5, 5, 16},
    // Batches: decoding beside the verification of drafts and chunks of prompts.
    {{{1, 90}, {1, 0}, {1, 600}, {16, 40}, {emulated ? 31 : 63, 500}, {1, 7}}, 8, 2, 64},
    {{{1, 2000}, {1, 3}}, 2, 1, 64},
    // Everything else that an attention layer may want.
    {{{40, 0}, {7, 530}}, 8, 2, 64, 0, false},              // bidirectional
    {{{140, 0}, {5, 10}}, 4, 2, 32, 20, false},             // with a window to both sides
    {{{1, 130}, {20, 0}}, 8, 2, 64, 0, true, 30},           // soft cap
    {{{1, 600}, {40, 5}}, 8, 2, 64, 0, true, 0, true},      // sinks
    {{{1, 600}, {40, 5}}, 8, 2, 64, 128, true, 50, true},   // all of it: Gemma 2 and gpt-oss at once
    {{{50, 0}, {1, 0}}, 6, 3, 64, 0, false, 0, false, 77},  // cross attention
    {{{6, 0}}, 6, 3, 64, 0, false, 0, true, 1},             // of one key
};

// A case's numbers: keys and values of sequences as a cache holds them, in blocks that lie in no order, with
// NaN (all bits set) wherever no key is.
struct Problem {
  const Case& c;
  KvType kv;
  Matrix q, out;
  std::vector<Matrix> keys, values;  // [keys, kv_heads * head_dim] by sequence: what the cache's bytes mean
  std::vector<float> sinks;
  std::vector<std::vector<int32_t>> tables, open_tables;
  std::vector<std::byte> k, v, open;
  std::vector<AttentionSequence> sequences;
  AttentionArgs args{};
  AttentionWork work;

  static int64_t rows_of(const Case& c) {
    int64_t rows = 0;
    for (const Sequence& s : c.sequences) rows += s.rows;
    return rows;
  }

  Problem(const Case& a_case, KvType type, int64_t block_tokens, uint64_t seed)
      : c(a_case), kv(type), q(rows_of(c), c.heads * c.head_dim), out(q.rows, q.cols) {
    if (keys_in_spans(kv)) block_tokens = span_start(block_tokens + key_span - 1);
    Rng rng(seed);
    q = random_matrix(q.rows, q.cols, rng);
    if (c.sinks)
      for (int64_t h = 0; h < c.heads; ++h) sinks.push_back(2 * rng.normal());
    // A token may have a gap after it, as in a layout where heads lie side by side; a head has one, too.
    const int64_t row = kv_row_bytes(kv, c.head_dim), gap = kv == KvType::f32 ? 12 : 3;
    KvLayout layout{kv, block_tokens, 0, block_tokens * (row + gap) + gap, row + gap};
    layout.block_bytes = c.kv_heads * layout.head_bytes + gap;
    int64_t blocks = 0;
    for (const Sequence& s : c.sequences) {
      tables.emplace_back();
      for (int64_t j = 0; j < c.keys_of(s) + 2; j += block_tokens)
        tables.back().push_back(static_cast<int32_t>(blocks++));
    }
    for (auto& table : tables)  // block i is at blocks - 1 - i
      for (int32_t& b : table) b = static_cast<int32_t>(blocks) - 1 - b;
    k.assign(static_cast<size_t>(blocks * layout.block_bytes), std::byte{0xff});
    v = k;
    int64_t at = 0;
    for (size_t i = 0; i < tables.size(); ++i) {
      const Sequence& s = c.sequences[i];
      sequences.push_back({at, s.rows, s.first, c.keys_of(s), tables[i].data()});
      at += s.rows;
    }
    args.q = q.data.data();
    args.k = k.data();
    args.v = v.data();
    args.out = out.data.data();
    args.kv = layout;
    args.q_stride = q.stride;
    args.out_stride = out.stride;
    args.heads = c.heads;
    args.kv_heads = c.kv_heads;
    args.head_dim = c.head_dim;
    args.window = c.window;
    args.causal = c.causal;
    args.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
    args.soft_cap = c.soft_cap;
    args.sinks = c.sinks ? sinks.data() : nullptr;
    if (keys_in_spans(kv)) make_open();
    for (const AttentionSequence& s : sequences) {
      keys.push_back(keys_in_spans(kv) ? write_spans(s, random_matrix(s.keys, c.kv_heads * c.head_dim, rng))
                                       : fill(k, s, rng));
      values.push_back(fill(v, s, rng));
    }
  }
  Problem(const Problem&) = delete;

  Matrix fill(std::vector<std::byte>& bytes, const AttentionSequence& s, Rng& rng) {
    Matrix m = random_matrix(s.keys, c.kv_heads * c.head_dim, rng);
    for (int64_t j = 0; j < s.keys; ++j)
      for (int64_t h = 0; h < c.kv_heads; ++h) {
        float* x = m.row(j) + h * c.head_dim;
        auto* row = const_cast<char*>(kv_row(args.kv, bytes.data(), s.blocks, h, j));
        write_kv_ref(kv, x, c.head_dim, row);
        read_kv_ref(kv, row, c.head_dim, x);
      }
    return m;
  }

  // A page for each span that has queries, in no order either.
  void make_open() {
    const int64_t row = kv_row_bytes(KvType::bf16, c.head_dim), page = key_span * (row + 6) + 2;
    args.open = {KvType::bf16, key_span, c.kv_heads * page + 4, page, row + 6};
    int32_t pages = 0;
    for (const Sequence& s : c.sequences) {
      open_tables.emplace_back();
      for (int64_t j = span_start(s.first); j < s.first + s.rows; j += key_span)
        open_tables.back().push_back(pages++);
    }
    for (auto& table : open_tables)
      for (int32_t& p : table) p = pages - 1 - p;
    open.assign(static_cast<size_t>(pages * args.open.block_bytes), std::byte{0xff});
    args.open_k = open.data();
    for (size_t i = 0; i < sequences.size(); ++i) sequences[i].open = open_tables[i].data();
  }
  // Full spans in the cache, and the rows of those that queries lie in as well. Of what either means, what is
  // returned, for bounds, is the larger.
  Matrix write_spans(const AttentionSequence& s, const Matrix& m) {
    const int64_t dim = c.head_dim;
    Matrix most(m.rows, m.cols);
    std::vector<float> scratch(static_cast<size_t>(key_span * dim));
    std::vector<std::byte> rows(static_cast<size_t>(key_span * dim * 2));
    for (int64_t h = 0; h < c.kv_heads; ++h)
      for (int64_t first = 0; first < s.keys; first += key_span) {
        const int64_t count = std::min(key_span, s.keys - first);
        for (int64_t j = 0; j < count; ++j) {
          auto* row = rows.data() + j * dim * 2;
          write_kv_ref(KvType::bf16, m.row(first + j) + h * dim, dim, row);
          read_kv_ref(KvType::bf16, row, dim, most.row(first + j) + h * dim);
          if (first >= span_start(s.first))
            std::memcpy(
                const_cast<char*>(kv_row(args.open, open.data(), s.open, h, first + j - span_start(s.first))),
                row, static_cast<size_t>(dim * 2));
        }
        if (count < key_span) continue;
        auto* span = k.data() + kv_offset(args.kv, s.blocks, h, first);
        round_span(attention_kernels().back(), rows.data(), dim * 2, dim, span, scratch.data());
        read_kv_ref(KvType::int4, span, key_span * dim, scratch.data());
        for (int64_t i = 0; i < key_span * dim; ++i) {
          float& x = most.at(first + i % key_span, h * dim + i / key_span);
          if (const float rounded = scratch[static_cast<size_t>(i)]; std::fabs(rounded) > std::fabs(x))
            x = rounded;
        }
      }
    return most;
  }

  // What `path` makes of `some` sequences, cut for so many workers.
  void run(const AttentionPath& path, int workers, std::span<const AttentionSequence> some) {
    work.share_out(args, some, path, workers);
    run_as(path.run, args, 1);
  }
  const Matrix& run(const AttentionPath& path, int workers) {
    std::fill(out.data.begin(), out.data.end(), NAN);
    run(path, workers, sequences);
    return out;
  }
};

bool takes(const AttentionKernel& row, const Case& c, KvType kv) {
  return runs_here(row.isa) && row.accepts(c.head_dim, kv);
}

// fn(path, name) for each path of each row that takes the case. The reference is slow, and treats numbers
// alike whatever it unpacked them from: it takes f32 only. Where keys lie in spans it reads them its own way.
// An emulator leaves it out.
template <class F>
void for_each_path(const Case& c, KvType kv, F&& fn) {
  for (const AttentionKernel& row : attention_kernels()) {
    if (!takes(row, c, kv)) continue;
    if (row.isa == 0 && (emulated || (kv != KvType::f32 && !keys_in_spans(kv)))) continue;
    fn(row.decode, fmt::format("{}, decode", row.name));
    if (row.prefill.run) fn(row.prefill, fmt::format("{}, prefill", row.name));
  }
}

std::string describe(const Case& c, KvType kv) {
  std::string text = fmt::format("heads={}/{} dim={} window={} causal={} cap={} sinks={} kv={}:", c.heads,
                                 c.kv_heads, c.head_dim, c.window, c.causal, c.soft_cap, c.sinks,
                                 kv_type_names[static_cast<size_t>(kv)]);
  for (const Sequence& s : c.sequences) text += fmt::format(" {}+{}", s.first, s.rows);
  return text;
}

// In an emulator each case takes a third of the types, others than the case before it.
template <class F>
void for_each_case(F&& fn) {
  size_t turn = 0;
  for (const Case& c : cases) {
    ++turn;
    for (size_t t = 0; t < std::size(kv_types); ++t) {
      const KvType kv = kv_types[t];
      if (emulated && (turn + t) % 3 != 0) continue;
      if (!attention_kernels().back().accepts(c.head_dim, kv)) continue;
      if (keys_in_spans(kv) && (!c.causal || c.keys > 0)) continue;
      SCOPED_TRACE(describe(c, kv));
      fn(c, kv);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

void expect_equal(const Matrix& a, const Matrix& b, const std::string& what) {
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t i = 0; i < a.cols; ++i) ASSERT_EQ(a.at(r, i), b.at(r, i)) << what << ": row " << r;
}

// How far f32 kernels may lie apart. A score is a sum of head_dim products, so each side has it within e =
// (head_dim + 2) u S, S the largest scale * sum |q| |k|, and soft_cap * tanh adds 6 u soft_cap: an exp, a
// division and their roundings. A probability is then within a factor exp(2 e) and 2^-22 for exp itself; a
// sum of n of them adds n u, above and below the division, which covers the factors that rescale sums: one
// per tile at most. All of that scales outputs no larger than the largest |v|.
float f32_bound(const Case& c, const Matrix& q, const std::vector<Matrix>& keys, float scale) {
  float score = 0, most_keys = 0;
  int64_t row = 0;
  for (size_t s = 0; s < c.sequences.size(); ++s) {
    most_keys = std::max(most_keys, static_cast<float>(keys[s].rows));
    for (int64_t r = 0; r < c.sequences[s].rows; ++r, ++row) {
      const int64_t at = c.sequences[s].first + r, window = c.window > 0 ? c.window : keys[s].rows;
      const int64_t begin = std::max<int64_t>(at - window + 1, 0),
                    end = std::min(at + (c.causal ? 1 : window), keys[s].rows);
      for (int64_t h = 0; h < c.heads; ++h)
        for (int64_t j = begin; j < end; ++j) {
          const float* k = keys[s].row(j) + h / (c.heads / c.kv_heads) * c.head_dim;
          float sum = 0;
          for (int64_t d = 0; d < c.head_dim; ++d) sum += std::fabs(q.row(row)[h * c.head_dim + d] * k[d]);
          score = std::max(score, sum * scale);
        }
    }
  }
  const float dim = static_cast<float>(c.head_dim), u = unit_roundoff;
  return 2 * (2 * ((dim + 2) * u * score + 6 * u * c.soft_cap) + 4 * u + 2 * most_keys * u);
}

float largest(const std::vector<Matrix>& matrices) {
  float out = 0;
  for (const Matrix& m : matrices)
    for (float v : m.data) out = std::max(out, std::isnan(v) ? 0 : std::fabs(v));
  return out;
}

void expect_near(Problem& p, const AttentionPath& path, std::string_view name, const Matrix& expected,
                 float bound) {
  for (int workers : {1, 3, 40}) {
    SCOPED_TRACE(fmt::format("{} workers={}", name, workers));
    p.run(path, workers);
    ASSERT_TRUE(p.out.intact());
    for (int64_t r = 0; r < expected.rows; ++r)
      for (int64_t i = 0; i < expected.cols; ++i)
        ASSERT_NEAR(p.out.at(r, i), expected.at(r, i), bound) << r << ", " << i;
  }
}

const AttentionPath& reference() { return attention_kernels().back().decode; }

TEST(Attention, EveryRowAgreesWithTheReference) {
  for_each_case([](const Case& c, KvType kv) {
    Problem p(c, kv, 32, 4);
    const Matrix expected = p.run(reference(), 1);
    const float bound = f32_bound(c, p.q, p.keys, p.args.scale) * largest(p.values);
    for (const AttentionKernel& row : attention_kernels())
      if (takes(row, c, kv) && !(emulated && row.isa == 0))
        expect_near(p, row.decode, row.name, expected, bound);
  });
}

TEST(Attention, PromptPathsAgreeWithTheReferenceOfRoundedNumbers) {
  // A path of its own for prompts rounds scale * log2(e) * q, k and v to bf16, and so are they here: a bound
  // for any numbers would be too wide to find a mistake. Left are a probability's rounding, 2^-9 of it and so
  // of the largest |v|, a cubic exp2's 8.6e-5 above and below the division, and what f32 kernels differ by.
  const auto round = [](Matrix& m, float scale) {
    for (float& f : m.data) f = bf16_to_f32(f32_to_bf16(f * scale));
  };
  for_each_case([&](const Case& c, KvType kv) {
    Problem p(c, kv, 32, 7);
    Problem rounded(c, KvType::f32, 32, 7);
    round(rounded.q, rounded.args.scale * 1.44269504088896341f);
    rounded.args.scale = 0.693147180559945309f;
    for (size_t s = 0; s < p.keys.size(); ++s) {
      rounded.keys[s] = p.keys[s];
      rounded.values[s] = p.values[s];
      for (Matrix* m : {&rounded.keys[s], &rounded.values[s]}) {
        round(*m, 1);
        auto& bytes = m == &rounded.keys[s] ? rounded.k : rounded.v;
        for (int64_t j = 0; j < m->rows; ++j)
          for (int64_t h = 0; h < c.kv_heads; ++h)
            write_kv_ref(
                KvType::f32, m->row(j) + h * c.head_dim, c.head_dim,
                const_cast<char*>(kv_row(rounded.args.kv, bytes.data(), rounded.sequences[s].blocks, h, j)));
      }
    }
    const Matrix expected = rounded.run(reference(), 1);
    const float bound = (0x1p-9f + 2 * 8.6e-5f + f32_bound(c, rounded.q, rounded.keys, rounded.args.scale)) *
                        largest(rounded.values);
    for (const AttentionKernel& row : attention_kernels())
      if (takes(row, c, kv) && row.prefill.run) expect_near(p, row.prefill, row.name, expected, bound);
  });
}

TEST(Attention, RowsDependNeitherOnTheirBatchNorOnTheCut) {
  for_each_case([](const Case& c, KvType kv) {
    Problem p(c, kv, 32, 5);
    for_each_path(c, kv, [&](const AttentionPath& path, const std::string& name) {
      const Matrix together = p.run(path, 2);
      for (int workers : {1, 3, 40}) expect_equal(p.run(path, workers), together, name);
      std::fill(p.out.data.begin(), p.out.data.end(), NAN);
      for (const AttentionSequence& s : p.sequences)
        for (int64_t r = 0; r < s.rows; ++r) {
          if (!c.causal && c.keys == 0 && c.window == 0 && r > 3) continue;
          AttentionSequence one = s;
          one.row += r;
          one.rows = 1;
          one.first += r;
          if (one.open) one.open += (span_start(one.first) - span_start(s.first)) / key_span;
          if (c.causal && c.keys == 0) one.keys = one.first + 1;
          p.run(path, r % 2 ? 3 : 20, {&one, 1});
          for (int64_t i = 0; i < p.out.cols; ++i)
            ASSERT_EQ(p.out.at(one.row, i), together.at(one.row, i)) << name << " row " << one.row;
        }
    });
  });
}

TEST(Attention, BitsDoNotDependOnWhereKeysLie) {
  for_each_case([](const Case& c, KvType kv) {
    Problem pages(c, kv, 16, 8), three(c, kv, 48, 8), whole(c, kv, 4096, 8);
    for_each_path(c, kv, [&](const AttentionPath& path, const std::string& name) {
      const Matrix& expected = pages.run(path, 2);
      for (Problem* other : {&three, &whole}) expect_equal(other->run(path, 2), expected, name);
    });
  });
}

TEST(Attention, ItemsCoverTheOutputOnceInAnyOrder) {
  Rng rng(6);
  for_each_case([&](const Case& c, KvType kv) {
    if (kv != KvType::f32) return;
    Problem p(c, kv, 32, 6);
    for_each_path(c, kv, [&](const AttentionPath& path, const std::string& name) {
      for (int workers : {1, 2, 40}) {
        std::vector<int> writers(static_cast<size_t>(p.out.rows * p.out.cols));
        p.work.share_out(p.args, p.sequences, path, workers);
        const AttentionItem* items = p.args.items;
        std::vector<int64_t> order(static_cast<size_t>(p.args.item_count));
        for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
        for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
        p.args.item_count = 1;
        for (int64_t item : order) {
          std::fill(p.out.data.begin(), p.out.data.end(), NAN);
          p.args.items = items + item;
          *p.args.taken = 0;
          run_as(path.run, p.args, 1);
          EXPECT_TRUE(p.out.intact());
          for (int64_t r = 0; r < p.out.rows; ++r)
            for (int64_t i = 0; i < p.out.cols; ++i)
              writers[static_cast<size_t>(r * p.out.cols + i)] += !std::isnan(p.out.at(r, i));
        }
        for (int n : writers) ASSERT_EQ(n, 1) << name << ", " << workers << " workers";
      }
    });
  });
}

TEST(Attention, ThreadsGiveTheBitsOfOne) {
  ThreadPool pool(4);
  std::vector<Storage> scratch;
  for (int i = 0; i < pool.size(); ++i) scratch.push_back(Storage::allocate(kernel_scratch_bytes));
  for_each_case([&](const Case& c, KvType kv) {
    if (kv == KvType::int4 || kv == KvType::nvfp4) return;
    Problem p(c, kv, 64, 9);
    for_each_path(c, kv, [&](const AttentionPath& path, const std::string& name) {
      const Matrix alone = p.run(path, 1);
      std::fill(p.out.data.begin(), p.out.data.end(), NAN);
      p.work.share_out(p.args, p.sequences, path, pool.size());
      pool.run([&](int worker, int workers) {
        path.run(p.args, Share{worker, workers, scratch[static_cast<size_t>(worker)].data});
      });
      expect_equal(p.out, alone, name);
    });
  });
}

TEST(Attention, WorkIsCutForWorkers) {
  // One long sequence of one key head: only its keys can be shared out.
  const Case c{{{1, 8191}}, 4, 1, 64};
  Problem p(c, KvType::f32, 8192, 1);
  for (const AttentionKernel& row : attention_kernels()) {
    if (!takes(row, c, p.kv) || !row.decode.splits) continue;
    p.work.share_out(p.args, p.sequences, row.decode, 4);
    EXPECT_EQ(p.args.item_count, 16) << row.name;
    p.work.share_out(p.args, p.sequences, row.decode, 1);
    EXPECT_EQ(p.args.item_count, 4) << row.name;
  }
}

// Queries of zeros weigh all keys that they see alike, and a sink counts as exp(sink) keys of value 0.
TEST(Attention, QueriesOfZerosAverageWhatTheySee) {
  for (bool causal : {true, false})
    for (int64_t window : {0, 5, 70})
      for (bool sinks : {false, true}) {
        const Case c{{{100, 30}}, 4, 2, 32, window, causal, 0, sinks};
        Problem p(c, KvType::f32, 16, 2);
        for (int64_t r = 0; r < p.q.rows; ++r) std::fill_n(p.q.row(r), p.q.cols, 0.0f);
        for_each_path(c, p.kv, [&](const AttentionPath& path, const std::string& name) {
          p.run(path, 2);
          for (int64_t r = 0; r < 100; ++r)
            for (int64_t h = 0; h < c.heads; ++h)
              for (int64_t d = 0; d < c.head_dim; ++d) {
                double sum = 0,
                       count = sinks ? std::exp(static_cast<double>(p.sinks[static_cast<size_t>(h)])) : 0;
                for (int64_t j = 0; j < 130; ++j) {
                  const int64_t ahead = j - (30 + r);
                  if ((causal && ahead > 0) || (window > 0 && std::abs(ahead) >= window)) continue;
                  sum += static_cast<double>(p.values[0].at(j, h / 2 * c.head_dim + d));
                  ++count;
                }
                // bf16 values (2^-9 of at most 5) and the sink's exp2, or f32 sums.
                ASSERT_NEAR(p.out.at(r, h * c.head_dim + d), sum / count, path.splits ? 2e-6 : 0.0105)
                    << name << " row " << r << " window " << window << " causal " << causal;
              }
        });
      }
}

// Key j is x_j e_0, the query e_0 and value j the unit vector e_j: out is the softmax itself.
TEST(Attention, SoftCapsAndSinksGiveTheSoftmaxOfTheirFormula) {
  for (float cap : {0.0f, 2.0f, 30.0f})
    for (bool sinks : {false, true}) {
      const Case c{{{1, 15}}, 1, 1, 16, 0, true, cap, sinks};
      Problem p(c, KvType::f32, 64, 3);
      p.args.scale = 1;
      std::fill_n(p.q.row(0), 16, 0.0f);
      p.q.at(0, 0) = 1;
      const auto x_of = [](int64_t j) { return 0.75f * static_cast<float>(j) - 6; };  // exact in bf16
      for (int64_t j = 0; j < 16; ++j) {
        float k[16] = {x_of(j)}, v[16] = {};
        v[j] = 1;
        const int32_t* blocks = p.sequences[0].blocks;
        write_kv_ref(KvType::f32, k, 16, const_cast<char*>(kv_row(p.args.kv, p.k.data(), blocks, 0, j)));
        write_kv_ref(KvType::f32, v, 16, const_cast<char*>(kv_row(p.args.kv, p.v.data(), blocks, 0, j)));
      }
      double total = sinks ? std::exp(static_cast<double>(p.sinks[0])) : 0;
      std::vector<double> weights;
      for (int64_t j = 0; j < 16; ++j) {
        const auto x = static_cast<double>(x_of(j)), most = static_cast<double>(cap);
        weights.push_back(std::exp(cap > 0 ? most * std::tanh(x / most) : x));
        total += weights.back();
      }
      for_each_path(c, p.kv, [&](const AttentionPath& path, const std::string& name) {
        p.run(path, 1);
        // Tiles round scale * log2(e) * q: a score of 6 is then off by 6 * 2^-9.
        for (int64_t j = 0; j < 16; ++j)
          ASSERT_NEAR(p.out.at(0, j), weights[static_cast<size_t>(j)] / total,
                      path.splits || path.run == attention_ref ? 2e-6 : 0.014)
              << name << " key " << j << " cap " << cap << " sinks " << sinks;
      });
    }
}

TEST(Attention, CachesHoldTheReferencesBits) {
  Rng rng(11);
  for (KvType kv : kv_types)
    for (int64_t dim : {32, 64, 96, 128, 80})
      for (const AttentionKernel& row : attention_kernels()) {
        if (!runs_here(row.isa) || !row.accepts(dim, kv)) continue;
        const auto bytes = static_cast<size_t>(kv_row_bytes(kv, dim));
        for (int i = 0; i < 200; ++i)
          for (float scale : {0.0f, 0.01f, 1.0f}) {  // 0: the row's own
            std::vector<float> x(static_cast<size_t>(dim));
            for (float& f : x) f = i == 0 ? 0 : i == 1 ? 3 : rng.normal() * std::exp(4 * rng.normal());
            std::vector<std::byte> expected(bytes + 1, std::byte{0xaa}), got = expected;
            write_kv_ref(kv, x.data(), dim, expected.data(), scale);
            row.write_kv(kv, x.data(), dim, got.data(), scale);
            ASSERT_EQ(expected, got) << row.name << " " << kv_type_names[static_cast<size_t>(kv)] << " " << i
                                     << " " << scale;
          }
      }
}

// A query sees its own span as it was written, in bf16, and the spans before it as a channel's range in them
// has 16 steps: within half of one, and what bf16 of the minimum and of the step moves (see below). One
// channel is a hundred times the others, and costs them nothing.
TEST(Attention, QueriesSeeTheirOwnSpanAsItWasWrittenAndOthersByChannel) {
  constexpr int64_t dim = 64, keys = 96;
  const Case c{{{keys, 0}}, 2, 1, dim};
  Problem p(c, KvType::int4_channel, 32, 14);
  Rng rng(15);
  Matrix x = random_matrix(keys, dim, rng);
  for (int64_t j = 0; j < keys; ++j) x.at(j, 5) *= 100;
  p.keys[0] = p.write_spans(p.sequences[0], x);
  Matrix rounded(keys, dim);
  for (int64_t first = 0; first < keys; first += key_span) {
    std::vector<float> span(key_span * dim);
    read_kv_ref(KvType::int4, kv_row(p.args.kv, p.k.data(), p.sequences[0].blocks, 0, first), key_span * dim,
                span.data());
    for (int64_t d = 0; d < dim; ++d) {
      float low = INFINITY, high = -INFINITY;
      for (int64_t j = first; j < first + key_span; ++j) {
        rounded.at(j, d) = span[static_cast<size_t>(d * key_span + j - first)];
        const float half = bf16_to_f32(f32_to_bf16(x.at(j, d)));
        low = std::min(low, half);
        high = std::max(high, half);
      }
      const float range = high - low, bound = range / 30 * (1 + 0x1p-8f) + 0x1p-8f * (std::fabs(low) + range);
      for (int64_t j = first; j < first + key_span; ++j)
        EXPECT_NEAR(rounded.at(j, d), bf16_to_f32(f32_to_bf16(x.at(j, d))), bound) << j << ", " << d;
    }
  }
  const float bound = f32_bound(c, p.q, p.keys, p.args.scale) * largest(p.values);
  for_each_path(c, p.kv, [&](const AttentionPath& path, const std::string& name) {
    p.run(path, 2);
    for (int64_t r = 0; r < keys; ++r)
      for (int64_t h = 0; h < c.heads; ++h) {
        std::vector<double> scores;
        for (int64_t j = 0; j <= r; ++j) {
          double sum = 0;
          for (int64_t d = 0; d < dim; ++d)
            sum += static_cast<double>(p.q.at(r, h * dim + d)) *
                   static_cast<double>(j < span_start(r) ? rounded.at(j, d)
                                                         : bf16_to_f32(f32_to_bf16(x.at(j, d))));
          scores.push_back(sum * static_cast<double>(p.args.scale));
        }
        const double most = *std::ranges::max_element(scores);
        double total = 0;
        for (double& s : scores) total += s = std::exp(s - most);
        for (int64_t d = 0; d < dim; ++d) {
          double expected = 0;
          for (int64_t j = 0; j <= r; ++j)
            expected += scores[static_cast<size_t>(j)] / total * static_cast<double>(p.values[0].at(j, d));
          ASSERT_NEAR(p.out.at(r, h * dim + d), expected, bound) << name << " row " << r;
        }
      }
  });
}

// int8: half a step of m / 127. fp8: half a step of 2^-3 of a number's own power of two, that is 2^-4 of it,
// or of the smallest numbers' 2^-9. nvfp4: half of the widest step, 4 to 6, of a scale that is off by 2^-4.
// int4: half a step; the minimum's rounding to bf16 moves the range by 2^-9 of it, and codes end at 15: the
// largest number may lie that much, and the step's rounding 15 times, above.
TEST(Attention, QuantizedRowsAreWithinHalfAStep) {
  Rng rng(12);
  constexpr int64_t dim = 64;
  for (int i = 0; i < 300; ++i) {
    std::vector<float> x(dim), y(dim);
    const float offset = 3 * rng.normal();
    for (float& f : x) f = offset + rng.normal();
    std::vector<std::byte> row(static_cast<size_t>(kv_row_bytes(KvType::int8, dim)));
    write_kv_ref(KvType::int8, x.data(), dim, row.data());
    read_kv_ref(KvType::int8, row.data(), dim, y.data());
    float most = 0;
    for (float f : x) most = std::max(most, std::fabs(f));
    for (size_t d = 0; d < dim; ++d) EXPECT_NEAR(x[d], y[d], most / 254 * 1.0001f);
    write_kv_ref(KvType::fp8, x.data(), dim, row.data());
    read_kv_ref(KvType::fp8, row.data(), dim, y.data());
    for (size_t d = 0; d < dim; ++d)
      EXPECT_NEAR(x[d], y[d], std::max(std::fabs(x[d]) * 0x1p-4f, most / 448 * 0x1p-10f) * 1.0001f);
    write_kv_ref(KvType::nvfp4, x.data(), dim, row.data());
    read_kv_ref(KvType::nvfp4, row.data(), dim, y.data());
    for (size_t g = 0; g < dim; g += 16) {
      float of_group = 0;
      for (size_t d = g; d < g + 16; ++d) of_group = std::max(of_group, std::fabs(x[d]));
      for (size_t d = g; d < g + 16; ++d) EXPECT_NEAR(x[d], y[d], of_group / 6 * (1 + 0x1p-4f) * 1.0001f);
    }
    write_kv_ref(KvType::int4, x.data(), dim, row.data());
    read_kv_ref(KvType::int4, row.data(), dim, y.data());
    for (size_t g = 0; g < dim; g += kv_group) {
      const auto [low, high] = std::minmax_element(&x[g], &x[g] + kv_group);
      const float range = *high - *low,
                  bound = range / 30 * (1 + 0x1p-8f) + 0x1p-8f * (std::fabs(*low) + range);
      for (size_t d = g; d < g + kv_group; ++d) EXPECT_NEAR(x[d], y[d], bound);
    }
  }
}

// Every number that e4m3, int8 and e2m1 hold, times a given scale, is itself; others go to the nearest, and
// what is beyond the largest becomes that.
TEST(Attention, GivenScalesRoundToTheNearestCode) {
  constexpr int64_t dim = 32;
  const auto rounded = [](KvType type, float x, float scale) {
    std::vector<float> row(dim, x);
    std::vector<std::byte> bytes(static_cast<size_t>(kv_row_bytes(type, dim)));
    write_kv_ref(type, row.data(), dim, bytes.data(), scale);
    read_kv_ref(type, bytes.data(), dim, row.data());
    return row[7];
  };
  for (const float scale : {0.25f, 1.0f, 0.0123f})
    for (int code = 0; code < 256; ++code) {
      if (const float value = f8e4m3_to_f32(static_cast<uint8_t>(code)); !std::isnan(value)) {
        EXPECT_EQ(rounded(KvType::fp8, scale * value, scale), scale * value) << code;
      }
      const auto integer = static_cast<float>(static_cast<int8_t>(code));
      EXPECT_EQ(rounded(KvType::int8, scale * integer, scale), scale * integer) << code;
    }
  EXPECT_EQ(rounded(KvType::fp8, 17, 1), 16);  // a tie: the even code
  EXPECT_EQ(rounded(KvType::fp8, 19, 1), 20);  // the other way
  EXPECT_EQ(rounded(KvType::fp8, 1e4f, 2), 896);
  EXPECT_EQ(rounded(KvType::fp8, -1e4f, 2), -896);
  EXPECT_EQ(rounded(KvType::fp8, 0x1p-10f, 1), 0);  // half the smallest: a tie
  EXPECT_EQ(rounded(KvType::int8, 2.5f, 1), 2);
  EXPECT_EQ(rounded(KvType::int8, 300, 2), 254);
  EXPECT_EQ(rounded(KvType::int8, -300, 2), -256);
  // Sixteen alike are 6 times their e4m3 scale, 2.0 / 6 = 0.333 rounded to 0.34375, and 448 of it at most.
  EXPECT_EQ(rounded(KvType::nvfp4, 2, 1), 6 * 0.34375f);
  EXPECT_EQ(rounded(KvType::nvfp4, 1e5f, 1), 6 * 448.0f);
}

TEST(Attention, DispatchFallsBackByHeadSize) {
  const auto chosen = [](int64_t dim, uint32_t isa) { return choose_attention(dim, KvType::f32, isa).name; };
  EXPECT_EQ(chosen(18, cpu_features()), "ref");
  EXPECT_EQ(chosen(64, 0), "ref");
#if defined(__x86_64__)
  EXPECT_EQ(chosen(64, isa_avx2 | isa_avx512), "avx512");
  EXPECT_EQ(chosen(24, isa_avx2 | isa_avx512), "avx2");
  const uint32_t tiles = isa_avx2 | isa_avx512 | isa_avx512bf16 | isa_avx512vnni | isa_amx;
  EXPECT_EQ(chosen(256, tiles), "amx");
  EXPECT_EQ(chosen(272, tiles), "avx512");
  EXPECT_EQ(choose_attention(64, KvType::int4_channel, tiles).name, "avx512");
#elif defined(__aarch64__)
  EXPECT_EQ(chosen(20, isa_neon), "neon");
#endif
  EXPECT_THROW(choose_attention(80, KvType::int4, cpu_features()), InputError);  // groups of 32
  EXPECT_THROW(choose_attention(80, KvType::nvfp4, cpu_features()), InputError);
  EXPECT_THROW(choose_attention(80, KvType::int4_channel, cpu_features()), InputError);
}

}  // namespace
}  // namespace lathe
