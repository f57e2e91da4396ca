#include "runtime/plan.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <utility>

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

// Rows of one phase as the kernels of several linear layers read them: packed before the first, free after
// the last.
struct RowsKey {
  ValueId x;
  Phase phase;
  const RowPacking* packing;
  auto operator<=>(const RowsKey&) const = default;
};
struct PackedRows {
  NodeId first = -1;
  Lifetime lifetime;
  void* data = nullptr;
  bool made = false;  // its packing step exists
};

// A matrix as its kernel wants it.
struct Packed {
  Weight weight;
  const LinearKernel* kernel = nullptr;
  bool emulated = false;  // no kernel reads these numbers here: they were expanded to f32
  // Kernels follow this to the first part: it moves when the weight settles.
  const void* codes = nullptr;
};

// Parameters of a node that are matrices for a linear kernel.
size_t matrices_of(const Node& node) {
  if (std::holds_alternative<op::Linear>(node.op)) return 1;
  return std::holds_alternative<op::GatedLinear>(node.op) ? 2 : 0;
}

// Bytes of weights that one run may move: some 50 ms.
constexpr size_t settle_bytes = size_t{256} << 20;

}  // namespace

struct Plan::Impl {
  Graph graph;
  Target target;
  ThreadPool pool;
  int64_t vocab = 0;
  std::vector<Choice> choices;
  std::map<std::string, Weight> tables;  // embeddings, as stored
  std::map<std::string, Packed> packed;
  std::vector<Packed*> unsettled;                     // weights that still lie in a mapped file
  std::map<std::string, std::vector<float>> vectors;  // norms and biases
  std::vector<RopeBuffer> ropes;
  std::map<NodeId, KvBuffer> kv;
  std::vector<Storage> scratch;  // one per worker
  Storage arena;
  Storage gated_scratch;  // the up projection, where a kernel cannot keep it to itself
  size_t gated_scratch_bytes = 0;
  std::map<ValueId, float*> buffers;
  std::map<RowsKey, PackedRows> packed_rows;
  struct Step {
    std::string name;  // the node's
    std::function<void(const Batch&)> run;
    double seconds = 0;
  };
  std::vector<Step> steps;
  std::string building;  // the node whose steps are being added
  void add_step(std::function<void(const Batch&)> run) { steps.push_back({building, std::move(run), 0}); }
  Tensor logits;

  explicit Impl(const Target& t) : target(t), pool(t.threads > 0 ? t.threads : physical_cores()) {
    for (int i = 0; i < pool.size(); ++i) scratch.push_back(Storage::allocate(kernel_scratch_bytes));
  }

  int64_t cols(ValueId v) const { return graph.value(v).cols; }
  float* buffer(ValueId v) const { return buffers.at(v); }
  int64_t rows(ValueId v, const Batch& b) const {
    return static_cast<int64_t>(graph.value(v).rows == Rows::outputs ? b.outputs.size() : b.tokens.size());
  }

  int64_t most_rows(ValueId v) const {
    return graph.value(v).rows == Rows::outputs ? target.max_outputs : target.max_tokens;
  }
  // The rows of a value that belong to a phase.
  Range rows_of(ValueId v, Phase phase, const Batch& b) const {
    const int64_t all = rows(v, b);
    int64_t prompts = b.starts[static_cast<size_t>(b.prompts)];
    if (graph.value(v).rows == Rows::outputs)
      prompts =
          b.prompts + 1 == static_cast<int64_t>(b.starts.size()) && all > most_sampled_outputs ? all : 0;
    return phase == Phase::prefill ? Range{0, prompts} : Range{prompts, all};
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
    add_step([this, args, y, run](const Batch& b) mutable {
      args.rows = rows(y, b);
      elementwise(args.rows * args.cols, [&](const Share& share) { run(args, share); });
    });
  }

  void pack_weights(const Model&);
  void settle();
  void plan_packed_rows();
  void place_buffers();
  void build(const Node&, const ElementwiseKernels&);
  void build_embedding(const Node&);
  LinearArgs linear_args(const std::string& param, ValueId x, float* y, int64_t n) const;
  void choose(const Node&, const std::string& param);
  void use_packed_rows(const Node&, Phase, const LinearPath&, LinearArgs&);
  void build_linear(const Node&, const op::Linear&);
  void build_gated_linear(const Node&, const ElementwiseKernels&);
  void add_pack_step(ValueId x, Phase, const RowPacking&, void* out);
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
      } else if (i < matrices_of(node)) {
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
  for (auto& [name, p] : packed) p.codes = p.weight.parts[0].storage.data;
  for (const Job& job : jobs)
    if (job.from->packing == job.to->weight.packing) unsettled.push_back(job.to);
}

// Weights that need no repacking are read from the mapped file at first, so that a plan is ready at once. The
// page cache's small pages cost a quarter of the bandwidth (27 instead of 36 GB/s), so each run moves some of
// them to huge pages, until all are there.
void Plan::Impl::settle() {
  size_t moved = 0;
  while (!unsettled.empty() && moved < settle_bytes) {
    Packed& p = *unsettled.back();
    unsettled.pop_back();
    Tensor& elements = p.weight.parts[0];
    const Storage resident = Storage::allocate(elements.bytes());
    parallel([&](const Share& share) {
      const Range mine = part_of(static_cast<int64_t>(resident.bytes), share.worker, share.workers);
      std::memcpy(resident.data + mine.begin, elements.storage.data + mine.begin,
                  static_cast<size_t>(mine.end - mine.begin));
    });
    moved += resident.bytes;
    elements.storage = resident;
    p.codes = resident.data;
  }
}

constexpr Phase phases[] = {Phase::prefill, Phase::decode};

void Plan::Impl::plan_packed_rows() {
  int step = 0;
  for (NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    for (size_t i = 0; i < matrices_of(node); ++i)
      for (Phase phase : phases) {
        const RowPacking* packing = packed.at(node.params[i]).kernel->path(phase == Phase::prefill).rows;
        if (!packing) continue;
        const ValueId x = node.inputs[0];
        const int64_t most = most_rows(x);
        auto [it, fresh] = packed_rows.try_emplace({x, phase, packing});
        if (fresh) it->second = {id, {step, step, packing->bytes(most, cols(x))}, nullptr, false};
        it->second.lifetime.last = step;
      }
    ++step;
  }
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
      index[v] = values.size();
      values.push_back(v);
      lifetimes.push_back({step, step, static_cast<size_t>(most_rows(v) * cols(v)) * sizeof(float)});
    }
    if (std::holds_alternative<op::GatedLinear>(node.op)) {
      gated_scratch_bytes =
          std::max(gated_scratch_bytes,
                   static_cast<size_t>(most_rows(node.outputs[0]) * cols(node.outputs[0])) * sizeof(float));
    }
    ++step;
  }
  lifetimes[index.at(graph.output())].last = step;
  for (auto& [key, rows] : packed_rows) lifetimes.push_back(rows.lifetime);
  const Placement placement = place(lifetimes);
  arena = Storage::allocate(placement.bytes);
  if (gated_scratch_bytes > 0) gated_scratch = Storage::allocate(gated_scratch_bytes);
  size_t next = values.size();
  for (auto& [key, rows] : packed_rows) rows.data = arena.data + placement.offsets[next++];
  for (size_t i = 0; i < values.size(); ++i)
    buffers[values[i]] = reinterpret_cast<float*>(arena.data + placement.offsets[i]);
}

void Plan::Impl::build_embedding(const Node& node) {
  const Weight& table = tables.at(node.params[0]);
  const int64_t width = cols(node.outputs[0]);
  float* out = buffer(node.outputs[0]);
  choices.push_back({node.name, "rows", std::string(table.packing->name), false});
  add_step([this, &table, width, out](const Batch& b) {
    const auto rows = static_cast<int64_t>(b.tokens.size());
    elementwise(rows * width, [&](const Share& share) {
      for (int64_t r = share.worker; r < rows; r += share.workers)
        read_rows(table, b.tokens[static_cast<size_t>(r)], 1, out + r * width);
    });
  });
}

void Plan::Impl::add_pack_step(ValueId x, Phase phase, const RowPacking& packing, void* out) {
  const PackRowsArgs args{.x = buffer(x), .m = 0, .k = cols(x), .x_stride = cols(x), .out = out};
  add_step([this, args, x, phase, run = packing.run](const Batch& b) {
    const Range rows = rows_of(x, phase, b);
    PackRowsArgs now = args;
    now.m = rows.end - rows.begin;
    now.x += rows.begin * now.x_stride;
    if (now.m > 0) elementwise(now.m * now.k, [&](const Share& share) { run(now, share); });
  });
}

LinearArgs Plan::Impl::linear_args(const std::string& param, ValueId x, float* y, int64_t n) const {
  const Weight& weight = packed.at(param).weight;
  const int group = weight.numerics.group;
  auto part = [&](size_t i) -> const void* {
    return i < weight.parts.size() ? weight.parts[i].storage.data : nullptr;
  };
  return {.codes = part(0),
          .scales = part(1),
          .zeros = part(2),
          .x = buffer(x),
          .bias = nullptr,
          .y = y,
          .m = 0,
          .n = n,
          .k = cols(x),
          .group = group ? group : cols(x),
          .x_stride = cols(x),
          .y_stride = n};
}

void Plan::Impl::choose(const Node& node, const std::string& param) {
  const Packed& matrix = packed.at(param);
  choices.push_back({node.name, std::string(matrix.kernel->name), std::string(matrix.weight.packing->name),
                     matrix.emulated, param});
}

// Points the arguments to the packed x of a path, packing it first where this node is the first to want it.
void Plan::Impl::use_packed_rows(const Node& node, Phase phase, const LinearPath& path, LinearArgs& args) {
  if (!path.rows) return;
  PackedRows& rows = packed_rows.at({node.inputs[0], phase, path.rows});
  args.packed_x = rows.data;
  if (rows.first != node.id || rows.made) return;
  rows.made = true;
  add_pack_step(node.inputs[0], phase, *path.rows, rows.data);
}

// The rows of a phase.
static void narrow(LinearArgs& args, Range rows) {
  args.m = rows.end - rows.begin;
  args.x += rows.begin * args.x_stride;
  args.y += rows.begin * args.y_stride;
}

void Plan::Impl::build_linear(const Node& node, const op::Linear& linear) {
  const Packed& matrix = packed.at(node.params[0]);
  choose(node, node.params[0]);
  const ValueId y = node.outputs[0];
  LinearArgs args = linear_args(node.params[0], node.inputs[0], buffer(y), cols(y));
  if (linear.bias) args.bias = vectors.at(node.params[1]).data();
  for (Phase phase : phases) {
    const LinearPath& path = matrix.kernel->path(phase == Phase::prefill);
    use_packed_rows(node, phase, path, args);
    add_step([this, args, y, phase, &matrix, run = path.run](const Batch& b) {
      const Range rows = rows_of(y, phase, b);
      if (rows.begin == rows.end) return;
      LinearArgs now = args;
      now.codes = matrix.codes;
      narrow(now, rows);
      parallel([&](const Share& share) { run(now, share); });
    });
  }
}

void Plan::Impl::build_gated_linear(const Node& node, const ElementwiseKernels& kernels) {
  const Packed &gate = packed.at(node.params[0]), &up = packed.at(node.params[1]);
  choose(node, node.params[0]);
  choose(node, node.params[1]);
  const ValueId y = node.outputs[0];
  for (Phase phase : phases) {
    const LinearPath& path = gate.kernel->path(phase == Phase::prefill);
    const LinearPath& up_path = up.kernel->path(phase == Phase::prefill);
    const bool fused = path.gated && gate.kernel == up.kernel && gate.weight.numerics == up.weight.numerics;
    float* other = fused ? buffer(y) : reinterpret_cast<float*>(gated_scratch.data);
    LinearArgs args = linear_args(node.params[0], node.inputs[0], buffer(y), cols(y)),
               up_args = linear_args(node.params[1], node.inputs[0], other, cols(y));
    use_packed_rows(node, phase, path, args);
    use_packed_rows(node, phase, up_path, up_args);
    add_step([this, args, up_args, y, phase, fused, &gate, &up, &path, &up_path,
              silu_mul = kernels.silu_mul](const Batch& b) {
      const Range rows = rows_of(y, phase, b);
      if (rows.begin == rows.end) return;
      GatedArgs now{args, up_args};
      now.gate.codes = gate.codes;
      now.up.codes = up.codes;
      narrow(now.gate, rows);
      narrow(now.up, rows);
      if (fused) return parallel([&](const Share& share) { path.gated(now, share); });
      parallel([&](const Share& share) {
        path.run(now.gate, share);
        up_path.run(now.up, share);
      });
      const BinaryArgs multiply{.a = now.gate.y,
                                .b = now.up.y,
                                .out = now.gate.y,
                                .rows = now.gate.m,
                                .cols = now.gate.n,
                                .a_stride = now.gate.n,
                                .b_stride = now.gate.n,
                                .out_stride = now.gate.n};
      elementwise(multiply.rows * multiply.cols, [&](const Share& share) { silu_mul(multiply, share); });
    });
  }
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
    add_step([this, k, v, cached_k, cached_v, kv_cols](const Batch& b) {
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
  add_step([this, args, q, k, v, out, cached_k, cached_v, q_cols, kv_cols, &kernel](const Batch& b) {
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
        kernel.path(static_cast<int64_t>(s) < b.prompts)(one, share);
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
  add_step([x, out, width](const Batch& b) {
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
  building = node.name;
  auto chosen = [&] { choices.push_back({node.name, std::string(kernels.name), "f32", false}); };
  std::visit(overloaded{
                 [&](const op::Embedding&) { build_embedding(node); },
                 [&](const op::Linear& linear) { build_linear(node, linear); },
                 [&](const op::GatedLinear&) { build_gated_linear(node, kernels); },
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
  impl.plan_packed_rows();
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
  impl.settle();
  if (!t.profile) {
    for (auto& step : impl.steps) step.run(b);
  } else {
    using Clock = std::chrono::steady_clock;
    for (auto& step : impl.steps) {
      const auto start = Clock::now();
      step.run(b);
      step.seconds += std::chrono::duration<double>(Clock::now() - start).count();
    }
  }
  impl.logits.shape[0] = static_cast<int64_t>(b.outputs.size());
  impl.logits.storage.bytes = impl.logits.bytes();
  return impl.logits;
}

std::vector<Plan::Timing> Plan::take_timings() {
  std::vector<Timing> out;
  for (auto& step : impl_->steps) {
    if (out.empty() || out.back().node != step.name) out.push_back({step.name, 0});
    out.back().seconds += std::exchange(step.seconds, 0);
  }
  return out;
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

size_t Plan::arena_bytes() const { return impl_->arena.bytes + impl_->gated_scratch.bytes; }
const Graph& Plan::graph() const { return impl_->graph; }
int Plan::threads() const { return impl_->pool.size(); }

}  // namespace lathe
