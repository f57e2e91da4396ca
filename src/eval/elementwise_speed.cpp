// Times the ops of the elementwise table.
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/hash.h"
#include "core/rng.h"
#include "eval/kernel_speed.h"

namespace lathe {
namespace {

constexpr int64_t timed_rank = 16;

struct Data {
  int64_t rows, cols;
  std::vector<float> a, b, weight, cos, sin, out, sum, factors;
  std::vector<int32_t> order;

  Data(int64_t r, int64_t c) : rows(r), cols(c) {
    Rng rng(4);
    const auto fill = [&](std::vector<float>& v, int64_t n) {
      v.resize(static_cast<size_t>(n));
      for (float& f : v) f = static_cast<float>(rng.uniform()) * 2 - 1;
    };
    for (auto* v : {&a, &b, &out, &sum}) fill(*v, rows * cols);
    fill(weight, cols);
    fill(factors, cols * timed_rank);
    for (auto* v : {&cos, &sin}) fill(*v, rows * timed_head_dim / 2);
    order.resize(static_cast<size_t>(cols));
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  }
  BinaryArgs pointwise() { return {a.data(), b.data(), out.data(), rows, cols, cols, cols, cols}; }
};

struct Op {
  std::string_view name;
  int reads, writes;  // matrices
  void (*run)(KernelRunner&, const ElementwiseKernels&, Data&);
};

constexpr Op ops[] = {
    {"rms_norm", 1, 1,
     [](KernelRunner& r, const ElementwiseKernels& k, Data& d) {
       r.run(k.rms_norm, RmsNormArgs{d.a.data(), d.weight.data(), d.out.data(), d.rows, d.cols, d.cols,
                                     d.cols, d.cols, 1e-5f});
     }},
    {"add_rms_norm", 2, 2,
     [](KernelRunner& r, const ElementwiseKernels& k, Data& d) {
       r.run(k.add_rms_norm, AddRmsNormArgs{d.a.data(), d.b.data(), d.weight.data(), d.sum.data(),
                                            d.out.data(), d.rows, d.cols, d.cols, 1e-5f});
     }},
    {"rope", 1, 1,
     [](KernelRunner& r, const ElementwiseKernels& k, Data& d) {
       r.run(k.rope, RopeArgs{d.a.data(), d.cos.data(), d.sin.data(), d.out.data(), d.rows, d.cols,
                              timed_head_dim, d.cols, d.cols});
     }},
    // Of rank 16 and with as many inputs as outputs: the bytes of activations only.
    {"low_rank", 2, 1,
     [](KernelRunner& r, const ElementwiseKernels& k, Data& d) {
       r.run(k.low_rank, LowRankArgs{d.a.data(), d.factors.data(), d.factors.data(), d.b.data(), d.out.data(),
                                     d.rows, d.cols, d.cols, timed_rank, d.cols, d.cols, 0.25f});
     }},
    {"hadamard", 1, 1,
     [](KernelRunner& r, const ElementwiseKernels& k, Data& d) {
       r.run(k.hadamard,
             HadamardArgs{d.a.data(), d.out.data(), d.rows, d.cols, d.cols & -d.cols, d.cols, d.cols});
     }},
    {"take_columns", 1, 1,
     [](KernelRunner& r, const ElementwiseKernels& k, Data& d) {
       r.run(k.take_columns, TakeColumnsArgs{d.a.data(), d.order.data(), d.weight.data(), d.out.data(),
                                             d.rows, d.cols, d.cols, d.cols});
     }},
    {"add", 2, 1, [](KernelRunner& r, const ElementwiseKernels& k, Data& d) { r.run(k.add, d.pointwise()); }},
    {"mul", 2, 1, [](KernelRunner& r, const ElementwiseKernels& k, Data& d) { r.run(k.mul, d.pointwise()); }},
    {"silu", 1, 1,
     [](KernelRunner& r, const ElementwiseKernels& k, Data& d) { r.run(k.silu, d.pointwise()); }},
    {"silu_mul", 2, 1,
     [](KernelRunner& r, const ElementwiseKernels& k, Data& d) { r.run(k.silu_mul, d.pointwise()); }},
    {"clamped_silu_mul", 2, 1,
     [](KernelRunner& r, const ElementwiseKernels& k, Data& d) {
       r.run(k.clamped_silu_mul,
             ClampedSiluArgs{
                 {d.a.data(), d.b.data(), d.out.data(), d.rows, d.cols, d.cols, d.cols, d.cols}, 7, 1.702f});
     }},
    // The passes of choosing a token: one thread, the numbers of all rows as one.
    {"largest", 1, 0,
     [](KernelRunner&, const ElementwiseKernels& k, Data& d) {
       d.out[0] = k.largest(d.a.data(), d.rows * d.cols);
     }},
    {"exponentials", 1, 1,
     [](KernelRunner&, const ElementwiseKernels& k, Data& d) {
       k.exponentials({d.a.data(), d.out.data(), d.rows * d.cols, 1, 8});
     }},
    {"at_least", 1, 0,
     [](KernelRunner&, const ElementwiseKernels& k, Data& d) {
       const Tail tail = k.at_least(d.a.data(), d.rows * d.cols, 0.5f);
       d.out[0] = static_cast<float>(tail.sum);
       d.out[1] = static_cast<float>(tail.count);
     }},
};

}  // namespace

std::vector<std::string_view> elementwise_ops() {
  std::vector<std::string_view> names;
  for (const Op& op : ops) names.push_back(op.name);
  return names;
}

KernelSpeed time_elementwise(KernelRunner& runner, const ElementwiseKernels& row, std::string_view name,
                             int64_t rows, int64_t cols, double seconds, int calls) {
  for (const Op& op : ops) {
    if (op.name != name) continue;
    Data data(rows, cols), expected(rows, cols);
    KernelSpeed speed;
    speed.seconds = fastest_call(seconds, calls, [&] { op.run(runner, row, data); });
    speed.bytes = static_cast<double>((op.reads + op.writes) * rows * cols) * sizeof(float);
    op.run(runner, elementwise_kernels().back(), expected);
    double difference = 0, largest = 0;
    for (size_t i = 0; i < data.out.size(); ++i) {
      const double want = static_cast<double>(expected.out[i]),
                   d = std::abs(static_cast<double>(data.out[i]) - want);
      difference = std::isnan(d) ? INFINITY : std::max(difference, d);
      largest = std::max(largest, std::abs(want));
    }
    speed.error = difference / largest;
    speed.hash = sha256({reinterpret_cast<const char*>(data.out.data()), data.out.size() * sizeof(float)})
                     .substr(0, 12);
    return speed;
  }
  fail("no elementwise op is called '{}'", name);
}

}  // namespace lathe
