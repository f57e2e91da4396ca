// How fast one row of a kernel table is, on data that no cache holds, and how far it is from the reference.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "eval/roof.h"
#include "kernels/tables.h"

namespace lathe {

// The weight formats that verbs write and checkpoints bring.
std::vector<Numerics> known_formats();
// Those, and what else some row of the table is for: other scales, other bits.
std::vector<Numerics> all_formats();
std::string format_name(const Numerics&);  // to_string(), and the type of the scales where it is not bf16

// Threads with scratch, as a plan has them, and room for copies of what kernels read: calls that go round
// copies which exceed every cache find nothing in one.
class KernelRunner {
 public:
  // `room_bytes`: for the copies; bytes_beyond_caches() for true timings.
  KernelRunner(int threads, size_t room_bytes);
  template <class Args>
  void run(void (*kernel)(const Args&, const Share&) noexcept, const Args& args) {
    pool_.run([&](int worker, int workers) {
      kernel(args, Share{worker, workers, scratch_[static_cast<size_t>(worker)].data});
    });
  }
  ThreadPool& pool() { return pool_; }
  // As many copies as the room holds, one after the other; they live until the next call.
  struct Copies {
    std::byte* first = nullptr;
    size_t count = 0;
  };
  Copies fill_room(std::span<const std::byte>);

 private:
  ThreadPool pool_;
  std::vector<Storage> scratch_;
  Storage room_;
};

// A random weight and copies of it that fill the runner's room. The numbers depend on the first four
// arguments only.
class WeightCopies {
 public:
  WeightCopies(const Numerics&, const Packing&, int64_t n, int64_t k, KernelRunner&);
  const Weight& next() { return copies_[turn_++ % copies_.size()]; }
  const Weight& first() const { return copies_[0]; }

 private:
  std::vector<Weight> copies_;
  size_t turn_ = 0;
};

struct KernelSpeed {
  double seconds = 0;  // of the fastest call: other work on the machine only ever makes a call slower
  double bytes = 0, flops = 0;  // of one call: weights, or keys and values; a multiply-add counts two
  double error = 0;  // largest difference from the reference row, over the largest number of the reference
  std::string hash;  // of the output: 12 digits
  double gb_per_s() const { return bytes / seconds * 1e-9; }
  double gflop_per_s() const { return flops / seconds * 1e-9; }
};

// y = x W^T for m random rows, of a prompt or while decoding; packing of x included. At least `calls` calls
// and `seconds` seconds.
KernelSpeed time_linear(KernelRunner&, const LinearKernel&, WeightCopies&, int64_t m, bool prompt,
                        double seconds, int calls = 5);

// `rows` new rows of one sequence over `first` cached ones, in a prompt or while decoding; heads as in
// Llama-3.2-1B: 32 and 8 of 64.
inline constexpr int64_t timed_heads = 32, timed_kv_heads = 8, timed_head_dim = 64;
struct AttentionCase {
  int64_t rows = 1, first = 0;
  bool prompt = false;
  KvType kv = KvType::f32;
};
KernelSpeed time_attention(KernelRunner&, const AttentionKernel&, const AttentionCase&, double seconds,
                           int calls = 5);

// The ops of the elementwise table by name, and one of them on `rows` x `cols` numbers that lie in cache, as
// a plan's do. Bytes are those read and written.
std::vector<std::string_view> elementwise_ops();
KernelSpeed time_elementwise(KernelRunner&, const ElementwiseKernels&, std::string_view op, int64_t rows,
                             int64_t cols, double seconds, int calls = 5);

// Seconds of the fastest of at least `calls` calls and `seconds` seconds.
double fastest_call(double seconds, int calls, const std::function<void()>& call);

}  // namespace lathe
