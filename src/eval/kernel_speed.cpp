#include "eval/kernel_speed.h"

#include <chrono>
#include <cmath>
#include <cstring>

#include "core/clock.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/rng.h"
#include "kernels/attention_work.h"
#include "quant/activations.h"

namespace lathe {
namespace {

std::vector<float> random_floats(int64_t n, Rng& rng) {
  std::vector<float> out(static_cast<size_t>(n));
  for (float& f : out) f = static_cast<float>(rng.uniform()) * 2 - 1;
  return out;
}

Weight random_weight(const Numerics& numerics, const Packing& packing, int64_t n, int64_t k) {
  Rng rng(1);
  Weight w = make_weight(numerics, packing, {n, k});
  const auto range = static_cast<uint64_t>(numerics.code_max() - numerics.code_min() + 1);
  for (int64_t row = 0; row < n; row += pack_row_multiple) {
    Codes c;
    c.numerics = numerics;
    c.rows = std::min(pack_row_multiple, n - row);
    c.cols = k;
    if (numerics.is_dense()) {
      c.values = random_floats(c.rows * k, rng);
    } else {
      c.codes.resize(static_cast<size_t>(c.rows * k));
      for (int16_t& code : c.codes) {
        code = static_cast<int16_t>(numerics.code_min() + static_cast<int>(rng.below(range)));
        if (numerics.kind == Numerics::Kind::e4m3 && (code & 0x7f) == 0x7f) --code;  // NaN
      }
      for (int64_t i = 0; i < c.rows * numerics.groups(k); ++i) {
        c.scales.push_back(std::ldexp(1.0f, -static_cast<int>(6 + rng.below(4))));
        if (numerics.offset == Numerics::Offset::zero_point)
          c.zeros.push_back(static_cast<float>(rng.below(4)));
        if (numerics.offset == Numerics::Offset::minimum)  // centres the weights, as real minima do
          c.zeros.push_back(0.5f * static_cast<float>(numerics.code_max()) * c.scales.back());
      }
    }
    packing.pack(c, row, w);
  }
  return w;
}

// The weight with all its parts in one buffer, each at a multiple of 64 bytes.
struct Joined {
  Storage buffer;
  std::vector<size_t> offsets;
};
Joined join(const Weight& w) {
  Joined joined;
  size_t bytes = 0;
  for (const Tensor& part : w.parts) {
    joined.offsets.push_back(bytes);
    bytes += (part.bytes() + 63) / 64 * 64;
  }
  joined.buffer = Storage::allocate(bytes);
  for (size_t i = 0; i < w.parts.size(); ++i)
    std::memcpy(joined.buffer.data + joined.offsets[i], w.parts[i].storage.data, w.parts[i].bytes());
  return joined;
}

// Of the input, which lies in [-1, 1].
float timed_scale(const Numerics& n) {
  return n.has_input_scale() ? 1 / largest_activation(n.activations) : 0;
}

LinearArgs arguments(const Weight& w, const float* x, const void* packed_x, float* y, int64_t m) {
  const auto part = [&](size_t i) -> const void* {
    return i < w.parts.size() ? w.parts[i].storage.data : nullptr;
  };
  const int64_t n = w.rows(), k = w.cols(), group = w.numerics.group == 0 ? k : w.numerics.group;
  LinearArgs args{};
  args.codes = part(0);
  args.scales = part(1);
  args.zeros = part(2);
  args.x = x;
  args.packed_x = packed_x;
  args.y = y;
  args.m = m;
  args.n = n;
  args.k = k;
  args.group = group;
  args.x_stride = k;
  args.y_stride = n;
  return args;
}

std::string short_hash(const std::vector<float>& values) {
  return sha256({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)}).substr(0, 12);
}

// Rows `stride` floats apart are compared in their first `cols` columns.
double relative_error(const float* y, int64_t stride, const float* reference, int64_t rows, int64_t cols) {
  double difference = 0, largest = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const double expected = static_cast<double>(reference[r * cols + c]);
      const double d = std::abs(static_cast<double>(y[r * stride + c]) - expected);
      difference = d >= difference ? d : std::isnan(d) ? INFINITY : difference;
      largest = std::max(largest, std::abs(expected));
    }
  return difference / largest;
}

// The reference computes the first outputs of the first rows, from the same weight as floats.
double linear_error(KernelRunner& runner, const Weight& w, const std::vector<float>& x,
                    const std::vector<float>& y, int64_t m) {
  const int64_t rows = std::min<int64_t>(m, 2), n = std::min<int64_t>(w.rows(), 256), k = w.cols();
  const LinearKernel& reference = linear_kernels().back();
  Codes floats;
  floats.numerics = Numerics::dense(DType::f32);
  floats.rows = n;
  floats.cols = k;
  floats.values.resize(static_cast<size_t>(n * k));
  read_rows(w, 0, n, floats.values.data());
  Weight expanded = make_weight(floats.numerics, packing(reference.packing), {n, k});
  expanded.packing->pack(floats, 0, expanded);
  std::vector<float> expected(static_cast<size_t>(rows * n)), input(x.begin(), x.begin() + rows * k);
  if (w.numerics.rounds_activations())
    for (int64_t r = 0; r < rows; ++r)
      round_row(w.numerics.activations, &input[static_cast<size_t>(r * k)], k,
                &input[static_cast<size_t>(r * k)], timed_scale(w.numerics));
  runner.run(reference.path(false).run, arguments(expanded, input.data(), nullptr, expected.data(), rows));
  return relative_error(y.data(), w.rows(), expected.data(), rows, n);
}

}  // namespace

double fastest_call(double seconds, int calls, const std::function<void()>& call) {
  double best = INFINITY;
  const auto start = Clock::now();
  for (int i = 0; i < calls || seconds_since(start) < seconds; ++i) {
    const auto begin = Clock::now();
    call();
    best = std::min(best, seconds_since(begin));
  }
  return best;
}

std::vector<Numerics> known_formats() {
  std::vector<Numerics> out = {Numerics::dense(DType::f32), Numerics::dense(DType::bf16),
                               Numerics::dense(DType::f16)};
  out.push_back(Numerics::w8a8());
  for (int bits : {8, 4})
    for (int group : {0, 32, 128}) out.push_back(Numerics::integer(bits, group, false));
  out.push_back(Numerics::integer(4, 32, true));
  for (int bits : {8, 4}) out.push_back(Numerics::integer(bits, 32, false).over(Activations::int8_per_row));
  out.push_back(Numerics::integer(8, 32, false, DType::f16));                 // GGUF Q8_0
  out.push_back(Numerics::integer(4, 32, false, DType::f16));                 // GGUF Q4_0
  for (int bits : {4, 5}) out.push_back(Numerics::k_quant(bits, 32, true));   // GGUF Q4_K, Q5_K
  for (int bits : {6, 3}) out.push_back(Numerics::k_quant(bits, 16, false));  // GGUF Q6_K, Q3_K
  out.push_back(Numerics::k_quant(2, 16, true));                              // GGUF Q2_K
  for (const Numerics& n : {Numerics::fp8(), Numerics::fp8_block(), Numerics::mxfp8(), Numerics::nvfp4(),
                            Numerics::mxfp4(), Numerics::nf4()})
    out.push_back(n);
  for (const std::string_view scheme : {"w8a8-fp8", "w8a8-fp8-static", "w8a8-fp8-block", "w8a8-mxfp8",
                                        "w4a4-nvfp4", "w4a4-mxfp4", "w4a8-fp8"})
    out.push_back(parse_scheme(scheme, -1, false, DType::bf16));
  out.push_back(Numerics::integer(3, 128, false));
  out.push_back(Numerics::integer(2, 128, false));
  return out;
}

std::vector<Numerics> all_formats() {
  std::vector<Numerics> out = known_formats();
  for (DType scale : {DType::f16, DType::f32}) {
    out.push_back(Numerics::w8a8(scale));
    out.push_back(Numerics::fp8(scale));
    out.push_back(out.back().over(Activations::fp8_per_row));
    for (int bits : {8, 4}) {
      out.push_back(Numerics::integer(bits, 128, false, scale));
      out.push_back(out.back().over(Activations::int8_per_row));
    }
  }
  out.push_back(Numerics::nf4().over(Activations::fp8_per_row));
  out.push_back({Numerics::Kind::integer, DType::f32, 8, 32, Numerics::Offset::minimum});
  return out;
}

std::string format_name(const Numerics& n) {
  std::string name = to_string(n);
  const bool open =
      (n.is_integer() && n.super == 0) || (n.kind == Numerics::Kind::e4m3 && n.dtype != DType::f8e8m0);
  if (open && n.dtype != DType::bf16) name += fmt::format(" {} scales", dtype_name(n.dtype));
  return name;
}

KernelRunner::KernelRunner(int threads, size_t room_bytes)
    : pool_(threads), room_(Storage::allocate(room_bytes)) {
  for (int i = 0; i < pool_.size(); ++i) scratch_.push_back(Storage::allocate(kernel_scratch_bytes));
}

KernelRunner::Copies KernelRunner::fill_room(std::span<const std::byte> bytes) {
  const Copies copies{room_.data, bytes.empty() ? 0 : room_.bytes / bytes.size()};
  pool_.run([&](int worker, int workers) {
    for (auto i = static_cast<size_t>(worker); i < copies.count; i += static_cast<size_t>(workers))
      std::memcpy(copies.first + i * bytes.size(), bytes.data(), bytes.size());
  });
  return copies;
}

WeightCopies::WeightCopies(const Numerics& numerics, const Packing& packing, int64_t n, int64_t k,
                           KernelRunner& runner)
    : copies_{random_weight(numerics, packing, n, k)} {
  const Joined joined = join(copies_[0]);
  const auto room = runner.fill_room({joined.buffer.data, joined.buffer.bytes});
  for (size_t c = 0; c < room.count; ++c) {
    Weight copy = copies_[0];
    for (size_t i = 0; i < copy.parts.size(); ++i) {
      Tensor& part = copy.parts[i];
      part.storage = {room.first + c * joined.buffer.bytes + joined.offsets[i], part.bytes(), nullptr};
    }
    copies_.push_back(std::move(copy));
  }
}

KernelSpeed time_linear(KernelRunner& runner, const LinearKernel& row, WeightCopies& weights, int64_t m,
                        bool prompt, double seconds, int calls) {
  const int64_t n = weights.first().rows(), k = weights.first().cols();
  const Numerics& numerics = weights.first().numerics;
  Rng rng(2);
  const std::vector<float> x = random_floats(m * k, rng);
  std::vector<float> y(static_cast<size_t>(m * n));
  const LinearPath& path = row.path(prompt);
  const Storage packed = Storage::allocate(path.rows ? path.rows->bytes(m, k) : 0);
  KernelSpeed speed;
  speed.seconds = fastest_call(seconds, calls, [&] {
    if (path.rows)
      runner.run(path.rows->run,
                 PackRowsArgs{x.data(), m, k, k, packed.data, timed_scale(numerics), numerics.activations});
    runner.run(path.run, arguments(weights.next(), x.data(), packed.data, y.data(), m));
  });
  speed.bytes = static_cast<double>(weights.first().bytes());
  speed.flops = 2 * static_cast<double>(m) * static_cast<double>(n * k);
  speed.error = linear_error(runner, weights.first(), x, y, m);
  speed.hash = short_hash(y);
  return speed;
}

KernelSpeed time_attention(KernelRunner& runner, const AttentionKernel& row, const AttentionCase& c,
                           double seconds, int calls) {
  constexpr int64_t heads = timed_heads, kv_heads = timed_kv_heads, dim = timed_head_dim;
  const int64_t keys = c.first + c.rows, row_bytes = kv_row_bytes(c.kv, dim),
                half = keys * kv_heads * row_bytes;
  Rng rng(3);
  const std::vector<float> q = random_floats(c.rows * heads * dim, rng);
  std::vector<std::byte> kv(static_cast<size_t>(2 * half)), open;
  const auto write = [&](KvType type, int64_t n, std::byte* to) {
    row.write_kv(type, random_floats(n, rng).data(), n, to, 0);
  };
  const bool spans = keys_in_spans(c.kv);
  for (int64_t i = spans ? keys * kv_heads : 0; i < 2 * keys * kv_heads; ++i)
    write(c.kv, dim, kv.data() + i * row_bytes);
  KvLayout open_rows;  // one block
  if (spans) {
    for (int64_t h = 0; h < kv_heads; ++h)
      for (int64_t j = 0; j + key_span <= keys; j += key_span)
        write(KvType::int4, dim * key_span, kv.data() + (h * keys + j) * row_bytes);
    const int64_t count = keys - span_start(c.first), bytes = kv_row_bytes(KvType::bf16, dim);
    open_rows = {KvType::bf16, count, 0, count * bytes, bytes};
    open.resize(static_cast<size_t>(kv_heads * count * bytes));
    for (int64_t i = 0; i < kv_heads * count; ++i) write(KvType::bf16, dim, open.data() + i * bytes);
  }
  const auto copies = runner.fill_room(kv);
  std::vector<float> out(q.size());
  const int32_t block = 0;
  AttentionWork work;
  const auto attend = [&](const AttentionPath& path, const std::byte* k, int64_t rows, float* to) {
    AttentionArgs args{};
    args.q = q.data();
    args.k = k;
    args.v = k + half;
    args.out = to;
    args.kv = {c.kv, keys, 0, keys * row_bytes, row_bytes};  // as a plan's cache holds them
    args.open_k = open.data();
    args.open = open_rows;
    args.q_stride = args.out_stride = heads * dim;
    args.heads = heads;
    args.kv_heads = kv_heads;
    args.head_dim = dim;
    args.causal = true;
    args.scale = 0.125f;
    const AttentionSequence sequence{0, rows, c.first, c.first + rows, &block, &block};
    work.share_out(args, {&sequence, 1}, path, runner.pool().size());
    runner.run(path.run, args);
  };
  KernelSpeed speed;
  size_t turn = 0;
  const auto next = [&] {
    return copies.count == 0 ? kv.data() : copies.first + turn++ % copies.count * kv.size();
  };
  speed.seconds =
      fastest_call(seconds, calls, [&] { attend(row.path(c.prompt), next(), c.rows, out.data()); });
  speed.bytes = static_cast<double>(kv.size());
  const double pairs =
      static_cast<double>(c.rows) * (static_cast<double>(c.first) + static_cast<double>(c.rows + 1) / 2);
  speed.flops = 4 * pairs * static_cast<double>(heads * dim);
  std::vector<float> expected(static_cast<size_t>(heads * dim));
  attend(attention_kernels().back().decode, kv.data(), 1, expected.data());
  speed.error = relative_error(out.data(), heads * dim, expected.data(), 1, heads * dim);
  speed.hash = short_hash(out);
  return speed;
}

}  // namespace lathe
