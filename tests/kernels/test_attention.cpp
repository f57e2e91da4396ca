// Walks the table of attention kernels against the reference.
#include "core/float.h"
#include "kernels/harness.h"
#include "kernels/ref/ref.h"
#include "kernels/tables.h"

namespace lathe {
namespace {

struct Case {
  int64_t rows, first, heads, kv_heads, head_dim, window;
};
constexpr Case cases[] = {
    {1, 0, 1, 1, 8, 0},       // the first token
    {1, 200, 8, 2, 64, 0},    // decode, grouped
    {1, 700, 7, 1, 64, 100},  // decode, a window of more than one tile
    {5, 0, 4, 4, 16, 0},      // prompt without grouping
    {70, 0, 14, 2, 64, 0},    // prompt over more than one tile and block
    {130, 61, 6, 2, 32, 0},   // a later chunk that starts inside a tile
    {130, 61, 6, 2, 32, 64},  // with a window of one tile
    {90, 10, 4, 1, 24, 3},    // a window smaller than the vectors; 24 is no multiple of 16
    {3, 64, 2, 1, 128, 1},    // each query sees itself only
    {9, 5, 100, 1, 40, 0},    // more heads in a group than fit a block
    {2, 3, 2, 2, 512, 0},    {4, 2, 3, 1, 20, 0},  // a multiple of 4 only: NEON's
    {4, 2, 3, 1, 18, 0},                           // only the reference takes this one
    {300, 100, 8, 2, 80, 0},                       // several blocks of columns; 80 is no multiple of 32
    {150, 37, 4, 4, 96, 70}, {40, 300, 6, 2, 256, 0}, {33, 70, 5, 5, 16, 0},
};

struct Tensors {
  Matrix q, k, v, out;
};
Tensors tensors(const Case& c, Rng& rng) {
  const int64_t keys = c.first + c.rows + 2;  // cached keys may follow that no query sees yet
  return {random_matrix(c.rows, c.heads * c.head_dim, rng), random_matrix(keys, c.kv_heads * c.head_dim, rng),
          random_matrix(keys, c.kv_heads * c.head_dim, rng), Matrix(c.rows, c.heads * c.head_dim)};
}
AttentionArgs arguments(const Case& c, Tensors& t) {
  return {t.q.data.data(), t.k.data.data(), t.v.data.data(), t.out.data.data(),
          c.rows,          t.k.rows,        c.first,         t.q.stride,
          t.k.stride,      c.head_dim,      t.out.stride,    c.heads,
          c.kv_heads,      c.head_dim,      c.window,        1 / std::sqrt(static_cast<float>(c.head_dim))};
}

// How far f32 kernels may lie apart. A score is a sum of head_dim products, so each side has it within e =
// (head_dim + 2) u S, S the largest scale * sum |q| |k|; a probability then within a factor exp(2 e) and
// 2^-22 for exp itself; a sum of n of them adds n u, above and below the division. All of that scales outputs
// no larger than the largest |v|.
float f32_bound(const Case& c, const Tensors& t, float scale) {
  float score = 0;
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t h = 0; h < c.heads; ++h)
      for (int64_t j = 0; j <= c.first + r; ++j) {
        const int64_t kv = h / (c.heads / c.kv_heads) * c.head_dim;
        float sum = 0;
        for (int64_t d = 0; d < c.head_dim; ++d)
          sum += std::fabs(t.q.at(r, h * c.head_dim + d) * t.k.at(j, kv + d));
        score = std::max(score, sum * scale);
      }
  const float keys = static_cast<float>(c.first + c.rows), dim = static_cast<float>(c.head_dim);
  const float u = unit_roundoff;
  return 2 * (2 * (dim + 2) * u * score + 4 * u + 2 * keys * u);
}

float largest(const Matrix& m) {
  float out = 0;
  for (float v : m.data) out = std::max(out, std::isnan(v) ? 0 : std::fabs(v));
  return out;
}

void expect_near(const Case& c, AttentionKernel::Run run, std::string_view name, const AttentionArgs& args,
                 Matrix& out, const Matrix& expected, float bound) {
  for (int workers : {1, 2, 5}) {
    SCOPED_TRACE(fmt::format("{} rows={} first={} heads={}/{} dim={} window={} workers={}", name, c.rows,
                             c.first, c.heads, c.kv_heads, c.head_dim, c.window, workers));
    std::fill(out.data.begin(), out.data.end(), NAN);
    run_as(run, args, workers);
    ASSERT_TRUE(out.intact());
    for (int64_t r = 0; r < c.rows; ++r)
      for (int64_t i = 0; i < out.cols; ++i)
        ASSERT_NEAR(out.at(r, i), expected.at(r, i), bound) << r << ", " << i;
  }
}

TEST(Attention, EveryRowAgreesWithTheReference) {
  Rng rng(4);
  for (const Case& c : cases) {
    Tensors t = tensors(c, rng);
    const AttentionArgs args = arguments(c, t);
    run_as(attention_ref, args, 1);
    const Matrix expected = t.out;
    const float bound = f32_bound(c, t, args.scale) * largest(t.v);
    int rows_run = 0;
    for (const AttentionKernel& row : attention_kernels()) {
      if (!runs_here(row.isa) || !row.accepts(c.head_dim)) continue;
      ++rows_run;
      expect_near(c, row.decode, row.name, args, t.out, expected, bound);
    }
    EXPECT_GT(rows_run, 0);
  }
}

TEST(Attention, PromptPathsAgreeWithTheReferenceOfRoundedNumbers) {
  // A path of its own for prompts rounds scale * log2(e) * q, k and v to bf16, and so are they here: a bound
  // for any numbers would be too wide to find a mistake. Left are a probability's rounding, 2^-9 of it and so
  // of the largest |v|, a cubic exp2's 8.6e-5 above and below the division, and what f32 kernels differ by.
  Rng rng(7);
  const auto round = [](Matrix& m, float scale) {
    for (float& f : m.data) f = bf16_to_f32(f32_to_bf16(f * scale));
  };
  for (const Case& c : cases) {
    Tensors t = tensors(c, rng), rounded = t;
    const AttentionArgs args = arguments(c, t);
    round(rounded.q, args.scale * 1.44269504088896341f);
    round(rounded.k, 1);
    round(rounded.v, 1);
    AttentionArgs reference = arguments(c, rounded);
    reference.scale = 0.693147180559945309f;
    run_as(attention_ref, reference, 1);
    const float bound = (0x1p-9f + 2 * 8.6e-5f + f32_bound(c, rounded, reference.scale)) * largest(rounded.v);
    for (const AttentionKernel& row : attention_kernels())
      if (runs_here(row.isa) && row.accepts(c.head_dim) && row.prefill)
        expect_near(c, row.prefill, row.name, args, t.out, rounded.out, bound);
  }
}

// fn(path, name) for each path of each row that takes the case.
template <class F>
void for_each_path(const Case& c, F&& fn) {
  for (const AttentionKernel& row : attention_kernels()) {
    if (!runs_here(row.isa) || !row.accepts(c.head_dim)) continue;
    fn(row.decode, fmt::format("{}, decode", row.name));
    if (row.prefill) fn(row.prefill, fmt::format("{}, prefill", row.name));
  }
}

TEST(Attention, RowsDoNotDependOnTheirBatch) {
  Rng rng(5);
  for (const Case& c : cases) {
    Tensors t = tensors(c, rng);
    const AttentionArgs args = arguments(c, t);
    for_each_path(c, [&](AttentionKernel::Run run, const std::string& name) {
      run_as(run, args, 2);
      const Matrix together = t.out;
      std::fill(t.out.data.begin(), t.out.data.end(), NAN);
      for (int64_t r = 0; r < c.rows; ++r) {
        AttentionArgs one = args;
        one.q += r * args.q_stride;
        one.out += r * args.out_stride;
        one.rows = 1;
        one.first += r;
        run_as(run, one, 3);
      }
      for (int64_t r = 0; r < c.rows; ++r)
        for (int64_t i = 0; i < t.out.cols; ++i)
          ASSERT_EQ(t.out.at(r, i), together.at(r, i)) << name << " row " << r;
    });
  }
}

TEST(Attention, KeysOfAHeadMayLieTogether) {
  Rng rng(8);
  for (const Case& c : cases) {
    Tensors t = tensors(c, rng);
    const AttentionArgs args = arguments(c, t);
    Matrix k(c.kv_heads * args.keys, c.head_dim), v = k;
    for (int64_t h = 0; h < c.kv_heads; ++h)
      for (int64_t j = 0; j < args.keys; ++j)
        for (int64_t d = 0; d < c.head_dim; ++d) {
          k.at(h * args.keys + j, d) = t.k.at(j, h * c.head_dim + d);
          v.at(h * args.keys + j, d) = t.v.at(j, h * c.head_dim + d);
        }
    AttentionArgs together = args;
    together.k = k.data.data();
    together.v = v.data.data();
    together.kv_stride = k.stride;
    together.kv_head_stride = args.keys * k.stride;
    for_each_path(c, [&](AttentionKernel::Run run, const std::string& name) {
      run_as(run, args, 2);
      const Matrix expected = t.out;
      run_as(run, together, 2);
      for (int64_t r = 0; r < c.rows; ++r)
        for (int64_t i = 0; i < t.out.cols; ++i)
          ASSERT_EQ(t.out.at(r, i), expected.at(r, i)) << name << " row " << r;
    });
  }
}

TEST(Attention, WorkersCoverTheOutputOnce) {
  Rng rng(6);
  for (const Case& c : cases) {
    Tensors t = tensors(c, rng);
    const AttentionArgs args = arguments(c, t);
    for_each_path(c, [&](AttentionKernel::Run run, const std::string&) {
      for (int workers : {1, 2, 3, 4, 5}) expect_partition(run, args, t.out, workers);
    });
  }
}

TEST(Attention, DispatchFallsBackByHeadSize) {
  EXPECT_EQ(choose_attention(18, cpu_features()).name, "ref");
  EXPECT_EQ(choose_attention(64, 0).name, "ref");
#if defined(__x86_64__)
  EXPECT_EQ(choose_attention(64, isa_avx2 | isa_avx512).name, "avx512");
  EXPECT_EQ(choose_attention(24, isa_avx2 | isa_avx512).name, "avx2");
  const uint32_t tiles = isa_avx2 | isa_avx512 | isa_avx512bf16 | isa_avx512vnni | isa_amx;
  EXPECT_EQ(choose_attention(256, tiles).name, "amx");
  EXPECT_EQ(choose_attention(272, tiles).name, "avx512");
#elif defined(__aarch64__)
  EXPECT_EQ(choose_attention(20, isa_neon).name, "neon");
#endif
}

}  // namespace
}  // namespace lathe
