#include "runtime/plan.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/tables.h"
#include "runtime/arena.h"
#include "runtime/rewrites/rewrites.h"
#include "runtime/rope_angles.h"

namespace lathe {
namespace {

// Below this many elements an elementwise op is done by the calling thread: waking the others costs more
// (about 1 us).
constexpr int64_t serial_elements = 16 * 1024;

// cos and sin of one rotation at this step's positions. Layers that rotate alike share one.
struct RopeBuffer {
  op::Rope rope;
  Tensor cos, sin;
};

struct KvBuffer {
  Tensor k, v;  // [slots * context, kv columns]
};

// A matrix as its kernel wants it.
struct Packed {
  Weight weight;
  const LinearKernel* kernel = nullptr;
  bool emulated = false;  // no kernel reads these numbers here: they were expanded to f32
};

}  // namespace

struct Plan::Impl {
  Graph graph;
  Target target;
  ThreadPool pool;
  int64_t vocab = 0;
  std::vector<Choice> choices;
  std::map<std::string, Weight> tables;  // embeddings, as stored
  std::map<std::string, Packed> packed;
  std::map<std::string, std::vector<float>> vectors;  // norms and biases
  std::vector<RopeBuffer> ropes;
  std::map<NodeId, KvBuffer> kv;
  std::vector<Storage> scratch;  // one per worker
  Storage arena;
  std::map<ValueId, float*> buffers;
  std::vector<std::function<void(const Batch&)>> steps;
  Tensor logits;

  explicit Impl(const Target& t) : target(t), pool(t.threads > 0 ? t.threads : physical_cores()) {
    for (int i = 0; i < pool.size(); ++i) scratch.push_back(Storage::allocate(kernel_scratch_bytes));
  }

  int64_t cols(ValueId v) const { return graph.value(v).cols; }
  float* buffer(ValueId v) const { return buffers.at(v); }
  int64_t rows(ValueId v, const Batch& b) const {
    return static_cast<int64_t>(graph.value(v).rows == Rows::outputs ? b.outputs.size() : b.tokens.size());
  }

  // fn(share) on every worker. std::ref keeps std::function from allocating.
  template <class F>
  void parallel(F&& fn) {
    auto work = [&](int worker, int workers) {
      fn(Share{worker, workers, scratch[static_cast<size_t>(worker)].data});
    };
    pool.run(std::ref(work));
  }
  template <class F>
  void elementwise(int64_t elements, F&& fn) {
    if (elements < serial_elements)
      fn(Share{0, 1, scratch[0].data});
    else
      parallel(fn);
  }
  // A step over the rows of `y`: every elementwise kernel's arguments have rows and cols.
  template <class Args>
  void add_row_step(Args args, ValueId y, void (*run)(const Args&, const Share&) noexcept) {
    steps.push_back([this, args, y, run](const Batch& b) mutable {
      args.rows = rows(y, b);
      elementwise(args.rows * args.cols, [&](const Share& share) { run(args, share); });
    });
  }

  void pack_weights(const Model&);
  void place_buffers();
  void build(const Node&, const ElementwiseKernels&);
  void build_embedding(const Node&);
  void build_linear(const Node&, const op::Linear&);
  void build_attention(const Node&, const op::Attention&);
  void build_rope(const Node&, const op::Rope&, const ElementwiseKernels&);
  void build_take_rows(const Node&);
  void build_binary(const Node&, void (*)(const BinaryArgs&, const Share&) noexcept);
};

// Repacking reads every weight once: workers take parameters one by one.
void Plan::Impl::pack_weights(const Model& model) {
  struct Job {
    const Weight* from;
    Packed* to;
  };
  std::vector<Job> jobs;
  for (NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    for (size_t i = 0; i < node.params.size(); ++i) {
      const std::string& name = node.params[i];
      const auto found = model.weights.find(name);
      if (found == model.weights.end()) fail("plan: parameter '{}' is not bound", name);
      const Weight& weight = found->second;
      if (std::holds_alternative<op::Embedding>(node.op)) {
        tables.emplace(name, weight);
      } else if (std::holds_alternative<op::Linear>(node.op) && i == 0) {
        auto [it, fresh] = packed.try_emplace(name);
        if (!fresh) continue;
        it->second.kernel = &choose_linear(weight.numerics, weight.rows(), weight.cols(), target.isa);
        it->second.emulated = it->second.kernel->packing.starts_with("expand.") &&
                              weight.numerics != Numerics::dense(DType::f32);
        jobs.push_back({&weight, &it->second});
      } else {
        vectors.try_emplace(name, read_all(weight));
      }
    }
  }
  std::stable_sort(jobs.begin(), jobs.end(),
                   [](const Job& a, const Job& b) { return a.from->bytes() > b.from->bytes(); });

  std::atomic<size_t> next{0};
  std::exception_ptr error;
  std::mutex error_lock;
  parallel([&](const Share&) {
    for (size_t i; (i = next.fetch_add(1)) < jobs.size();) try {
        const Packing& wanted = packing(jobs[i].to->kernel->packing);
        jobs[i].to->weight = jobs[i].from->packing == &wanted ? *jobs[i].from : repack(*jobs[i].from, wanted);
      } catch (...) {
        std::lock_guard hold(error_lock);
        error = std::current_exception();
      }
  });
  if (error) std::rethrow_exception(error);
}

void Plan::Impl::place_buffers() {
  std::vector<Lifetime> lifetimes;
  std::vector<ValueId> values;
  std::map<ValueId, size_t> index;
  int step = 0;
  for (NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    for (ValueId v : node.inputs)
      if (v != graph.tokens()) lifetimes[index.at(v)].last = step;
    for (ValueId v : node.outputs) {
      const int64_t most = graph.value(v).rows == Rows::outputs ? target.max_outputs : target.max_tokens;
      index[v] = values.size();
      values.push_back(v);
      lifetimes.push_back({step, step, static_cast<size_t>(most * cols(v)) * sizeof(float)});
    }
    ++step;
  }
  lifetimes[index.at(graph.output())].last = step;
  const Placement placement = place(lifetimes);
  arena = Storage::allocate(placement.bytes);
  for (size_t i = 0; i < values.size(); ++i)
    buffers[values[i]] = reinterpret_cast<float*>(arena.data + placement.offsets[i]);
}

void Plan::Impl::build_embedding(const Node& node) {
  const Weight& table = tables.at(node.params[0]);
  const int64_t width = cols(node.outputs[0]);
  float* out = buffer(node.outputs[0]);
  choices.push_back({node.name, "rows", std::string(table.packing->name), false});
  steps.push_back([this, &table, width, out](const Batch& b) {
    const auto rows = static_cast<int64_t>(b.tokens.size());
    elementwise(rows * width, [&](const Share& share) {
      for (int64_t r = share.worker; r < rows; r += share.workers)
        read_rows(table, b.tokens[static_cast<size_t>(r)], 1, out + r * width);
    });
  });
}

void Plan::Impl::build_linear(const Node& node, const op::Linear& linear) {
  const Packed& matrix = packed.at(node.params[0]);
  const Weight& weight = matrix.weight;
  const int group = weight.numerics.group;
  choices.push_back(
      {node.name, std::string(matrix.kernel->name), std::string(weight.packing->name), matrix.emulated});
  auto part = [&](size_t i) -> const void* {
    return i < weight.parts.size() ? weight.parts[i].storage.data : nullptr;
  };
  LinearArgs args{.codes = part(0),
                  .scales = part(1),
                  .zeros = part(2),
                  .x = buffer(node.inputs[0]),
                  .bias = linear.bias ? vectors.at(node.params[1]).data() : nullptr,
                  .y = buffer(node.outputs[0]),
                  .m = 0,
                  .n = cols(node.outputs[0]),
                  .k = cols(node.inputs[0]),
                  .group = group ? group : cols(node.inputs[0]),
                  .x_stride = cols(node.inputs[0]),
                  .y_stride = cols(node.outputs[0])};
  const ValueId y = node.outputs[0];
  steps.push_back([this, args, y, run = matrix.kernel->run](const Batch& b) mutable {
    args.m = rows(y, b);
    if (args.m > 0) parallel([&](const Share& share) { run(args, share); });
  });
}

void Plan::Impl::build_attention(const Node& node, const op::Attention& a) {
  const AttentionKernel& kernel = choose_attention(a.head_dim, target.isa);
  choices.push_back({node.name, std::string(kernel.name), "f32", false});
  const int64_t q_cols = cols(node.inputs[0]), kv_cols = cols(node.inputs[1]);
  AttentionArgs args{.q = nullptr,
                     .k = nullptr,
                     .v = nullptr,
                     .out = nullptr,
                     .rows = 0,
                     .keys = 0,
                     .first = 0,
                     .q_stride = q_cols,
                     .kv_stride = kv_cols,
                     .out_stride = q_cols,
                     .heads = a.heads,
                     .kv_heads = a.kv_heads,
                     .head_dim = a.head_dim,
                     .window = a.window,
                     .scale = a.scale};
  const float *q = buffer(node.inputs[0]), *k = buffer(node.inputs[1]), *v = buffer(node.inputs[2]);
  float* out = buffer(node.outputs[0]);

  float *cached_k = nullptr, *cached_v = nullptr;
  if (target.context > 0) {
    const Shape shape{target.slots * target.context, kv_cols};
    KvBuffer& cache = kv[node.id] = {Tensor::zeros(DType::f32, shape), Tensor::zeros(DType::f32, shape)};
    cached_k = cache.k.as_mutable<float>().data();
    cached_v = cache.v.as_mutable<float>().data();
    steps.push_back([this, k, v, cached_k, cached_v, kv_cols](const Batch& b) {
      elementwise(static_cast<int64_t>(b.tokens.size()) * kv_cols, [&](const Share& share) {
        for (size_t s = 0; s < b.slots.size(); ++s)
          for (int64_t r = b.starts[s] + share.worker; r < b.starts[s + 1]; r += share.workers) {
            const int64_t at = b.slots[s] * target.context + b.positions[static_cast<size_t>(r)];
            std::memcpy(cached_k + at * kv_cols, k + r * kv_cols,
                        static_cast<size_t>(kv_cols) * sizeof(float));
            std::memcpy(cached_v + at * kv_cols, v + r * kv_cols,
                        static_cast<size_t>(kv_cols) * sizeof(float));
          }
      });
    });
  }
  // Without slots a sequence attends to its own rows of this batch, with one to all that its slot holds.
  steps.push_back(
      [this, args, q, k, v, out, cached_k, cached_v, q_cols, kv_cols, run = kernel.run](const Batch& b) {
        parallel([&](const Share& share) {
          for (size_t s = 0; s + 1 < b.starts.size(); ++s) {
            const int64_t begin = b.starts[s];
            const bool cached = !b.slots.empty();
            const int64_t at = cached ? b.slots[s] * target.context * kv_cols : begin * kv_cols;
            AttentionArgs one = args;
            one.rows = b.starts[s + 1] - begin;
            one.first = b.positions[static_cast<size_t>(begin)];
            one.keys = one.first + one.rows;
            one.q = q + begin * q_cols;
            one.out = out + begin * q_cols;
            one.k = (cached ? cached_k : k) + at;
            one.v = (cached ? cached_v : v) + at;
            run(one, share);
          }
        });
      });
}

void Plan::Impl::build_rope(const Node& node, const op::Rope& rope, const ElementwiseKernels& kernels) {
  size_t shared = 0;
  while (shared < ropes.size() &&
         (ropes[shared].rope.inv_freq != rope.inv_freq || ropes[shared].rope.scale != rope.scale))
    ++shared;
  if (shared == ropes.size()) {
    const Shape shape{target.max_tokens, rope.head_dim / 2};
    ropes.push_back({rope, Tensor::zeros(DType::f32, shape), Tensor::zeros(DType::f32, shape)});
  }
  choices.push_back({node.name, std::string(kernels.name), "f32", false});
  const int64_t width = cols(node.inputs[0]);
  RopeArgs args{.x = buffer(node.inputs[0]),
                .cos = ropes[shared].cos.as<float>().data(),
                .sin = ropes[shared].sin.as<float>().data(),
                .out = buffer(node.outputs[0]),
                .rows = 0,
                .cols = width,
                .head_dim = rope.head_dim,
                .x_stride = width,
                .out_stride = width};
  add_row_step(args, node.outputs[0], kernels.rope);
}

void Plan::Impl::build_take_rows(const Node& node) {
  const float* x = buffer(node.inputs[0]);
  float* out = buffer(node.outputs[0]);
  const int64_t width = cols(node.inputs[0]);
  choices.push_back({node.name, "copy", "f32", false});
  steps.push_back([x, out, width](const Batch& b) {
    for (size_t r = 0; r < b.outputs.size(); ++r)
      std::memcpy(out + static_cast<int64_t>(r) * width, x + b.outputs[r] * width,
                  static_cast<size_t>(width) * sizeof(float));
  });
}

void Plan::Impl::build_binary(const Node& node, void (*run)(const BinaryArgs&, const Share&) noexcept) {
  const ValueId y = node.outputs[0];
  const int64_t width = cols(y);
  BinaryArgs args{.a = buffer(node.inputs[0]),
                  .b = node.inputs.size() > 1 ? buffer(node.inputs[1]) : nullptr,
                  .out = buffer(y),
                  .rows = 0,
                  .cols = width,
                  .a_stride = width,
                  .b_stride = width,
                  .out_stride = width};
  add_row_step(args, y, run);
}

void Plan::Impl::build(const Node& node, const ElementwiseKernels& kernels) {
  auto chosen = [&] { choices.push_back({node.name, std::string(kernels.name), "f32", false}); };
  std::visit(overloaded{
                 [&](const op::Embedding&) { build_embedding(node); },
                 [&](const op::Linear& linear) { build_linear(node, linear); },
                 [&](const op::RmsNorm& norm) {
                   chosen();
                   const int64_t width = cols(node.inputs[0]);
                   RmsNormArgs args{.x = buffer(node.inputs[0]),
                                    .weight = vectors.at(node.params[0]).data(),
                                    .out = buffer(node.outputs[0]),
                                    .rows = 0,
                                    .cols = width,
                                    .width = norm.width ? norm.width : width,
                                    .x_stride = width,
                                    .out_stride = width,
                                    .eps = norm.eps};
                   add_row_step(args, node.outputs[0], kernels.rms_norm);
                 },
                 [&](const op::AddRmsNorm& norm) {
                   chosen();
                   const int64_t width = cols(node.inputs[0]);
                   AddRmsNormArgs args{.a = buffer(node.inputs[0]),
                                       .b = buffer(node.inputs[1]),
                                       .weight = vectors.at(node.params[0]).data(),
                                       .sum = buffer(node.outputs[0]),
                                       .out = buffer(node.outputs[1]),
                                       .rows = 0,
                                       .cols = width,
                                       .stride = width,
                                       .eps = norm.eps};
                   add_row_step(args, node.outputs[0], kernels.add_rms_norm);
                 },
                 [&](const op::Rope& rope) { build_rope(node, rope, kernels); },
                 [&](const op::Silu&) { chosen(), build_binary(node, kernels.silu); },
                 [&](const op::Add&) { chosen(), build_binary(node, kernels.add); },
                 [&](const op::Mul&) { chosen(), build_binary(node, kernels.mul); },
                 [&](const op::SiluMul&) { chosen(), build_binary(node, kernels.silu_mul); },
                 [&](const op::TakeRows&) { build_take_rows(node); },
                 [&](const op::Attention& a) { build_attention(node, a); },
             },
             node.op);
}

Plan::Plan() = default;
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;
Plan::~Plan() = default;

Plan Plan::compile(const Model& model, const Target& target) {
  Plan plan;
  plan.impl_ = std::make_unique<Impl>(target);
  Impl& impl = *plan.impl_;
  impl.graph = model.graph;
  for (const Rewrite& rewrite : rewrites) rewrite.apply(impl.graph);
  impl.pack_weights(model);
  impl.place_buffers();
  const ElementwiseKernels& kernels = choose_elementwise(target.isa);
  for (NodeId id : impl.graph.order()) impl.build(impl.graph.node(id), kernels);
  for (NodeId id : impl.graph.order())
    if (const auto* e = std::get_if<op::Embedding>(&impl.graph.node(id).op)) impl.vocab = e->vocab;
  impl.logits.shape = {0, impl.cols(impl.graph.output())};
  impl.logits.storage = {reinterpret_cast<std::byte*>(impl.buffer(impl.graph.output())), 0, impl.arena.keep};
  return plan;
}

const Tensor& Plan::run(const Batch& b) {
  Impl& impl = *impl_;
  const Target& t = impl.target;
  check(b, impl.vocab);
  if (static_cast<int64_t>(b.tokens.size()) > t.max_tokens)
    fail("plan: {} tokens in one run, compiled for {}", b.tokens.size(), t.max_tokens);
  if (static_cast<int64_t>(b.outputs.size()) > t.max_outputs)
    fail("plan: {} output rows, compiled for {}", b.outputs.size(), t.max_outputs);
  for (size_t s = 0; s < b.slots.size(); ++s) {
    if (b.slots[s] < 0 || b.slots[s] >= t.slots)
      fail("plan: KV slot {}, compiled for {}", b.slots[s], t.slots);
    const int32_t last = b.positions[static_cast<size_t>(b.starts[s + 1]) - 1];
    if (last >= t.context) fail("plan: position {} in a KV cache of {} tokens", last, t.context);
  }
  for (RopeBuffer& r : impl.ropes)
    rope_angles(r.rope, b.positions, r.cos.as_mutable<float>().data(), r.sin.as_mutable<float>().data());
  for (auto& step : impl.steps) step(b);
  impl.logits.shape[0] = static_cast<int64_t>(b.outputs.size());
  impl.logits.storage.bytes = impl.logits.bytes();
  return impl.logits;
}

std::span<const Plan::Choice> Plan::choices() const { return impl_->choices; }

size_t Plan::weight_bytes() const {
  size_t sum = 0;
  for (const auto& [name, p] : impl_->packed) sum += p.weight.bytes();
  for (const auto& [name, w] : impl_->tables) sum += w.bytes();
  for (const auto& [name, v] : impl_->vectors) sum += v.size() * sizeof(float);
  return sum;
}

size_t Plan::kv_bytes() const {
  size_t sum = 0;
  for (const auto& [node, cache] : impl_->kv) sum += cache.k.bytes() + cache.v.bytes();
  return sum;
}

size_t Plan::arena_bytes() const { return impl_->arena.bytes; }
const Graph& Plan::graph() const { return impl_->graph; }
int Plan::threads() const { return impl_->pool.size(); }

}  // namespace lathe
