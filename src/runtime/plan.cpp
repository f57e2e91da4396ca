#include "runtime/plan.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "runtime/plan_impl.h"
#include "runtime/rewrites/rewrites.h"
#include "runtime/rope_angles.h"

namespace lathe {

void Plan::Impl::build(const Node& node, const ElementwiseKernels& kernels) {
  building = node.name;
  auto chosen = [&] { chose(node, explain(kernels, target.isa)); };
  std::visit(overloaded{
                 [&](const op::Embedding&) { build_embedding(node); },
                 [&](const op::Linear& linear) { build_linear(node, linear.bias); },
                 [&](const op::MultiLinear& linear) { build_linear(node, linear.bias); },
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
                 [&](const op::Route& route) { build_route(node, route); },
                 [&](const op::TakeRouted& take) { build_take_routed(node, take); },
                 [&](const op::AddRouted& add) { build_add_routed(node, add); },
                 [&](const op::Experts& experts) { build_experts(node, experts, kernels); },
                 [&](const op::LowRank& low) { chosen(), build_low_rank(node, low, kernels); },
                 [&](const op::Hadamard& h) {
                   chosen();
                   const int64_t width = cols(node.inputs[0]);
                   HadamardArgs args{.x = buffer(node.inputs[0]),
                                     .out = buffer(node.outputs[0]),
                                     .rows = 0,
                                     .cols = width,
                                     .size = h.size,
                                     .x_stride = width,
                                     .out_stride = width};
                   add_row_step(args, node.outputs[0], kernels.hadamard);
                 },
                 [&](const op::Rope& rope) { build_rope(node, rope, kernels); },
                 [&](const op::Silu&) { chosen(), build_binary(node, kernels.silu); },
                 [&](const op::Add&) { chosen(), build_binary(node, kernels.add); },
                 [&](const op::Mul&) { chosen(), build_binary(node, kernels.mul); },
                 [&](const op::SiluMul& op) {
                   chosen();
                   if (op.limit == 0) return build_binary(node, kernels.silu_mul);
                   add_row_step(ClampedSiluArgs{binary_args(node), op.limit, op.alpha}, node.outputs[0],
                                kernels.clamped_silu_mul);
                 },
                 [&](const op::TakeRows&) { build_take_rows(node); },
                 [&](const op::Attention& a) { build_attention(node, a, nullptr, 0, kernels); },
                 [&](const op::RopeAttention& a) {
                   build_attention(node, a.attention, &a.rope, a.hadamard, kernels);
                 },
             },
             node.op);
}

std::string Tuning::kind_of(const Weight& w) {
  return fmt::format("{} {} {}", to_string(w.numerics), dtype_name(w.numerics.dtype), to_string(w.shape));
}

Plan::Impl::Impl(const Target& t) : target(t) {
  const Tuning tuned = t.tuning.value_or(Tuning{});
  const auto first_of = [](int a, int b, int c) { return a > 0 ? a : b > 0 ? b : c; };
  const int threads = first_of(t.threads, tuned.threads, physical_cores());
  // Threads that the caller asks for hold for both phases, unless prompts have their own.
  set_threads(threads,
              first_of(t.prefill_threads, t.threads > 0 ? t.threads : tuned.prefill_threads, threads));
}

void Plan::Impl::set_threads(int threads, int prefill_threads) {
  pool = std::make_unique<ThreadPool>(threads);
  prompt_pool = prefill_threads == threads ? nullptr : std::make_unique<ThreadPool>(prefill_threads);
  team = prompt_pool && prefill_threads > threads ? prompt_pool.get() : pool.get();  // until the first run
  while (std::ssize(scratch) < std::max(threads, prefill_threads))
    scratch.push_back(Storage::allocate(kernel_scratch_bytes));
  codes.resize(std::max(codes.size(), scratch.size()));
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
  impl.make_open_spans();
  impl.pack_weights(model);
  impl.plan_packed_rows();
  impl.place_buffers();
  const ElementwiseKernels& kernels = choose_elementwise(target.isa);
  for (NodeId id : impl.graph.order()) {
    const size_t before = impl.steps.size(), links = before > 0 ? impl.steps.back().chain.size() : 0;
    impl.build(impl.graph.node(id), kernels);
    impl.check_row_steps(impl.graph.node(id), before, links);
  }
  for (NodeId id : impl.graph.order())
    if (const auto* e = std::get_if<op::Embedding>(&impl.graph.node(id).op)) impl.vocab = e->vocab;
  impl.logits.shape = {0, impl.cols(impl.graph.output())};
  impl.logits.storage = {reinterpret_cast<std::byte*>(impl.buffer(impl.graph.output())), 0, impl.arena.keep};
  return plan;
}

const Tensor& Plan::run(const Batch& b) {
  Impl& impl = *impl_;
  const Target& t = impl.target;
  check(b, impl.vocab, {impl.kv_blocks(), impl.kv_block_tokens(), impl.open_spans.pages() > 0 ? t.slots : 0});
  if (static_cast<int64_t>(b.tokens.size()) > t.max_tokens)
    fail("plan: {} tokens in one run, compiled for {}", b.tokens.size(), t.max_tokens);
  if (static_cast<int64_t>(b.outputs.size()) > t.max_outputs)
    fail("plan: {} output rows, compiled for {}", b.outputs.size(), t.max_outputs);
  impl.place_sequences(b);
  for (Impl::RopeBuffer& r : impl.ropes)
    rope_angles(r.rope, b.positions, r.cos.as_mutable<float>().data(), r.sin.as_mutable<float>().data());
  impl.team = b.prompts > 0 && impl.prompt_pool ? impl.prompt_pool.get() : impl.pool.get();
  if (impl.started) impl.settle();
  impl.started = true;
  impl.regions = 0;
  const auto run = [&](Impl::Step& step) {
    if (step.run)
      step.run(b);
    else
      impl.run_chain(step.chain, b);
  };
  if (!t.profile) {
    for (auto& step : impl.steps) run(step);
  } else {
    using Clock = std::chrono::steady_clock;
    for (auto& step : impl.steps) {
      const auto start = Clock::now();
      run(step);
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
  for (const auto& [node, cache] : impl_->kv)
    sum += cache.k.bytes() + cache.v.bytes() + cache.open.storage.bytes;
  return sum;
}

int64_t Plan::kv_blocks() const { return impl_->kv_blocks(); }
int64_t Plan::kv_block_tokens() const { return impl_->kv_block_tokens(); }

void Plan::copy_block(int32_t from, int32_t to) {
  for (int32_t block : {from, to})
    if (block < 0 || block >= kv_blocks())
      fail("plan: copy of KV block {}, compiled for {}", block, kv_blocks());
  if (from == to) return;
  for (auto& [node, cache] : impl_->kv)
    for (const Tensor* t : {&cache.k, &cache.v}) {
      const size_t bytes = t->bytes() / static_cast<size_t>(kv_blocks());
      std::memcpy(t->storage.data + static_cast<size_t>(to) * bytes,
                  t->storage.data + static_cast<size_t>(from) * bytes, bytes);
    }
}

void Plan::copy_slot(int32_t from, int32_t to) {
  for (int32_t slot : {from, to})
    if (slot < 0 || slot >= impl_->target.slots)
      fail("plan: copy of slot {}, compiled for {}", slot, impl_->target.slots);
  if (from == to || impl_->open_spans.pages() == 0) return;
  const auto copies = impl_->open_spans.fork(from, to);
  for (auto& [node, cache] : impl_->kv) {
    const size_t page = cache.open.storage.bytes / static_cast<size_t>(impl_->open_spans.pages());
    for (const OpenSpans::Copy& c : copies)
      std::memcpy(cache.open.storage.data + static_cast<size_t>(c.to) * page,
                  cache.open.storage.data + static_cast<size_t>(c.from) * page, page);
  }
}

size_t Plan::arena_bytes() const { return impl_->arena.bytes; }
const Graph& Plan::graph() const { return impl_->graph; }
int64_t Plan::regions_per_step() const { return impl_->regions; }
int Plan::threads() const { return impl_->pool->size(); }
int Plan::prefill_threads() const { return (impl_->prompt_pool ? impl_->prompt_pool : impl_->pool)->size(); }

}  // namespace lathe
