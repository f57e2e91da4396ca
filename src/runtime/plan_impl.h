// What a plan holds and how its steps are made. Private to runtime/plan*.cpp, one file per idea.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/attention_work.h"
#include "kernels/tables.h"
#include "quant/columns.h"
#include "runtime/arena.h"
#include "runtime/choices.h"
#include "runtime/expert_rows.h"
#include "runtime/kv_type.h"
#include "runtime/open_spans.h"
#include "runtime/plan.h"

namespace lathe {

// Below this many elements an elementwise op is done by the calling thread: waking the others costs more
// (about 1 us).
constexpr int64_t serial_elements = 16 * 1024;

// Parameters of a node that are matrices for a linear kernel.
inline size_t matrices_of(const Node& node) {
  if (std::holds_alternative<op::Linear>(node.op)) return 1;
  if (std::holds_alternative<op::MultiLinear>(node.op)) return node.outputs.size();
  if (const auto* e = std::get_if<op::Experts>(&node.op)) return e->matrices(node.params.size());
  return std::holds_alternative<op::GatedLinear>(node.op) ? 2 : 0;
}

constexpr Phase phases[] = {Phase::prefill, Phase::decode};

struct Plan::Impl {
  // cos and sin of one rotation at this step's positions. Layers that rotate alike share one.
  struct RopeBuffer {
    op::Rope rope;
    Tensor cos, sin;
  };

  struct KvBuffer {
    Tensor k, v;  // bytes: [blocks, kv heads, block tokens, row]
    Tensor open;  // bytes: [pages of open_spans, kv heads, key_span, row of bf16]
  };

  // Rows of one phase as the kernels of several linear layers read them: packed before the first, free after
  // the last.
  struct RowsKey {
    ValueId x;
    Phase phase;
    const RowPacking* packing;
    float scale;  // PackRowsArgs::scale
    Activations to;
    int columns;  // index in `columns`, -1: x as it is
    auto operator<=>(const RowsKey&) const = default;
  };
  struct PackedRows {
    NodeId first = -1;
    Lifetime lifetime;
    void* data = nullptr;
    bool made = false;  // its packing step exists
  };

  // x in f32 with its columns as some matrices want them, all rows of a step: [rows, cols].
  struct TakenKey {
    ValueId x;
    int columns;
    auto operator<=>(const TakenKey&) const = default;
  };
  struct TakenRows {
    Lifetime lifetime;
    float* data = nullptr;
    bool made = false;  // its step exists
  };

  // A matrix and the kernel that reads it. Steps look both up at each run: they change when weights settle.
  struct Packed {
    Weight weight;
    const LinearKernel* kernel = nullptr;
    float input_scale = 0;  // of x, where the model has one
    int columns = -1;       // what is done to those of x, index in `columns`; -1: nothing
    // The rows whose paths run, where a tuning names others than `kernel`; same packing, same bits.
    const LinearKernel *prompts = nullptr, *decoding = nullptr;
    const LinearKernel& row(Phase phase) const {
      const LinearKernel* tuned = phase == Phase::prefill ? prompts : decoding;
      return tuned ? *tuned : *kernel;
    }
    const LinearPath& path(Phase phase) const { return row(phase).path(phase == Phase::prefill); }
    void bind(LinearArgs&) const;  // points to the parts of the weight
  };

  // A matrix to make from the model's before the first run.
  struct Repacking {
    std::string name;
    const Weight* from;
    Packed* to;
  };

  // A matrix that runs as it was stored, and what it becomes when all of them are repacked.
  struct Settling {
    std::string name;
    Packed* matrix;
    Packed settled;
  };

  Graph graph;
  Target target;
  std::unique_ptr<ThreadPool> pool, prompt_pool;  // the second where it has another size
  ThreadPool* team = nullptr;                     // of this run
  int64_t vocab = 0;
  std::vector<Choice> choices;
  std::map<std::string, Weight> tables;  // embeddings, as stored
  std::map<std::string, Packed> packed;
  std::vector<std::string> repacked;  // names in `packed`: what keep_packed() is for
  std::vector<Settling> settling;
  size_t next_to_settle = 0;                          // in `settling`,
  int64_t settled_rows = 0;                           // and how many of its rows are done
  bool started = false;                               // a run was made
  bool mapped = false;                                // packed weights came from the cache
  std::map<std::string, std::vector<float>> vectors;  // norms, biases and adapters
  std::set<std::string> transposed_params;            // of those
  std::vector<RopeBuffer> ropes;
  std::map<NodeId, KvBuffer> kv;
  OpenSpans open_spans;
  std::vector<Storage> scratch;  // one per worker
  std::vector<Codes> codes;      // one per worker: rows between two packings
  Storage arena;
  std::map<ValueId, float*> buffers;
  // What only a node itself sees: the up projection, where a kernel cannot keep it to itself; rotated q, k;
  // the rows of experts.
  std::map<NodeId, std::vector<float*>> locals;
  std::vector<size_t> bytes_of_locals(const Node&);
  std::vector<size_t> bytes_of_experts(const Node&, const op::Experts&);
  std::map<RowsKey, PackedRows> packed_rows;
  std::vector<Columns> columns;  // all different: layers with one input mostly want it alike
  std::map<TakenKey, TakenRows> taken_rows;
  std::map<ValueId, ExpertRows> experts_seen;  // of this step, by what their take_routed makes
  // What is done to each row of a value alone: to all rows of a run, or to those of one phase.
  struct RowStep {
    ValueId of;
    std::optional<Phase> phase;
    int64_t width;  // elements of a row
    // Some rows of `of`; worker r of as many workers as rows does row r.
    std::function<void(const Batch&, Range, const Share&)> run;
    Range rows = {};  // of this run
  };
  struct Step {
    std::string name;                       // the node's
    std::function<void(const Batch&)> run;  // empty: a chain of row steps
    std::vector<RowStep> chain = {};
    double seconds = 0;
  };
  std::vector<Step> steps;
  std::string building;  // the node whose steps are being added
  void add_step(std::function<void(const Batch&)> run) { steps.push_back({building, std::move(run)}); }
  void add_row_step(RowStep);
  // Which of a node's steps go by rows: what lies in buffers at the same time follows from that.
  struct RowSteps {
    bool packs = false;   // first it takes or packs rows of x, for its matrices,
    bool begins = false;  // or its own work begins so
    bool ends = false;    // so is its last step
  };
  static RowSteps row_steps(const Op&);
  // Error where building a node added others: the node's steps follow the first `steps_before`, the last of
  // which had so many links.
  void check_row_steps(const Node&, size_t steps_before, size_t links_before) const;
  void run_chain(std::vector<RowStep>&, const Batch&);
  Tensor logits;

  explicit Impl(const Target&);
  void set_threads(int threads, int prefill_threads);
  void set_rows(const Tuning&);  // of matrices that are packed already
  const LinearKernel* tuned_row(const Tuning&, const Packed&, Phase) const;  // null: none, or none that fits

  int64_t cols(ValueId v) const { return graph.value(v).cols; }
  float* buffer(ValueId v) const { return buffers.at(v); }
  int64_t rows(ValueId v, const Batch& b) const {
    if (const ValueId taken = graph.value(v).taken; taken >= 0) return experts_seen.at(taken).entries();
    return static_cast<int64_t>(graph.value(v).rows == Rows::outputs ? b.outputs.size() : b.tokens.size());
  }

  int64_t most_rows(ValueId v) const {
    if (const ValueId taken = graph.value(v).taken; taken >= 0) return most_rows(weights_of(taken));
    return graph.value(v).rows == Rows::outputs ? target.max_outputs : target.max_tokens;
  }
  // Of experts, where `taken` is made by a take_routed.
  ValueId weights_of(ValueId taken) const { return graph.node(graph.value(taken).producer).inputs[1]; }

  // The rows of a value that belong to a phase.
  Range rows_of(ValueId v, Phase phase, const Batch& b) const {
    const int64_t all = rows(v, b);
    if (const ValueId taken = graph.value(v).taken; taken >= 0) {
      const int64_t first_decoding = rows_of(weights_of(taken), Phase::prefill, b).end,
                    split = experts_seen.at(taken).entries_below(0, first_decoding).end;
      return phase == Phase::prefill ? Range{0, split} : Range{split, all};
    }
    int64_t prompts = b.starts[static_cast<size_t>(b.prompts)];
    if (graph.value(v).rows == Rows::outputs)
      prompts =
          b.prompts + 1 == static_cast<int64_t>(b.starts.size()) && all > most_sampled_outputs ? all : 0;
    return phase == Phase::prefill ? Range{0, prompts} : Range{prompts, all};
  }

  int64_t kv_blocks() const { return target.block_tokens > 0 ? target.kv_blocks : target.slots; }
  int64_t kv_block_tokens() const { return target.block_tokens > 0 ? target.block_tokens : target.context; }

  // This run's sequences of each phase, as attention sees them, and their work: every layer's anew.
  std::vector<AttentionSequence> sequences[std::size(phases)];
  AttentionWork attention_work[std::size(phases)];
  // Where keys lie in spans: of each sequence of this run AttentionSequence::open, and the spans that it
  // fills.
  struct FullSpan {
    size_t sequence;
    int64_t first;  // position
  };
  std::vector<const int32_t*> open_tables;
  std::vector<FullSpan> full_spans;
  void make_open_spans();
  void place_sequences(const Batch&);

  int64_t regions = 0;  // of this run
  // fn(share) on every worker. std::ref keeps std::function from allocating.
  template <class F>
  void parallel(F&& fn) {
    ++regions;
    auto work = [&](int worker, int workers) {
      fn(Share{worker, workers, scratch[static_cast<size_t>(worker)].data});
    };
    team->run(std::ref(work));
  }
  // The parts of a product of so many rows and columns. A prompt's are taken one by one by whoever is
  // free, because cores that others use too are not equally fast: whole blocks of columns
  // (simd/packed_rows.h), several per worker.
  template <class F>
  void product(int64_t height, int64_t width, F&& fn) {
    constexpr int64_t few_rows = 32, block_columns = 256, most = 8;
    const int64_t workers = team->size(), blocks = std::min(width / block_columns, most * workers);
    if (height < few_rows || blocks <= workers) return parallel(fn);
    ++regions;
    std::atomic<int64_t> next = 0;
    auto work = [&](int worker, int) {
      for (int64_t part; (part = next.fetch_add(1, std::memory_order_relaxed)) < blocks;)
        fn(Share{static_cast<int>(part), static_cast<int>(blocks),
                 scratch[static_cast<size_t>(worker)].data});
    };
    team->run(std::ref(work));
  }
  template <class F>
  void elementwise(int64_t elements, F&& fn) {
    if (elements < serial_elements)
      fn(Share{0, 1, scratch[0].data});
    else
      parallel(fn);
  }
  // An elementwise kernel over all rows of `y`: their arguments have rows and cols.
  template <class Args>
  void add_row_step(const Args& args, ValueId y, void (*run)(const Args&, const Share&) noexcept) {
    add_row_step({y, {}, args.cols, [args, run](const Batch&, Range rows, const Share& share) {
                    Args now = args;
                    now.rows = rows.end;
                    run(now, share);
                  }});
  }

  void pack_weights(const Model&);
  template <class F>
  void for_each_weight(std::vector<Repacking>&, F work);
  void map_packed(std::vector<Repacking>&);
  void settle();
  void plan_packed_rows();
  void place_buffers();
  void build(const Node&, const ElementwiseKernels&);
  void build_embedding(const Node&);
  LinearArgs linear_args(const Packed&, ValueId x, float* y, int64_t n) const;
  // What the node runs, for the report.
  void chose(const Node& node, Choice choice) {
    choice.node = node.name;
    choices.push_back(std::move(choice));
  }
  void chose(const Node&, const std::string& param);
  int index_of(Columns);
  const Columns& columns_of_x(const Packed&) const;
  void use_rows(const Node&, Phase, const Packed&, LinearArgs&);
  void add_take_step(const TakenKey&, float* out);
  static bool runs_gated(const Packed& gate, const Packed& up, Phase);
  const RowPacking* packed_output(const Node&, Phase) const;
  void build_linear(const Node&, bool bias);
  void build_gated_linear(const Node&, const ElementwiseKernels&);
  void add_pack_step(const RowsKey&, const float* x, void* out);
  struct HeadStep;
  const RopeBuffer& rope_buffer(const op::Rope&);
  void build_attention(const Node&, const op::Attention&, const op::Rope*, int hadamard,
                       const ElementwiseKernels&);
  void build_rope(const Node&, const op::Rope&, const ElementwiseKernels&);
  void build_take_rows(const Node&);
  void build_low_rank(const Node&, const op::LowRank&, const ElementwiseKernels&);
  void build_route(const Node&, const op::Route&);
  void build_take_routed(const Node&, const op::TakeRouted&);
  void build_add_routed(const Node&, const op::AddRouted&);
  class ExpertsStep;
  void build_experts(const Node&, const op::Experts&, const ElementwiseKernels&);
  BinaryArgs binary_args(const Node&) const;
  void build_binary(const Node&, void (*)(const BinaryArgs&, const Share&) noexcept);
};

}  // namespace lathe
