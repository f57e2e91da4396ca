// Packing every weight as its kernel wants it.
#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "core/error.h"
#include "runtime/plan_impl.h"

namespace lathe {

// Bytes of weights repacked before a run: some 30 ms, or 100 where the memory is fresh.
constexpr int64_t settle_bytes = int64_t{64} << 20;

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
        const LinearKernel& chosen = choose_linear(weight.numerics, weight.rows(), weight.cols(), target.isa);
        const LinearKernel* first =
            target.ready_at_once ? row_that_starts_for(chosen, weight.packing->name) : nullptr;
        if (first) {
          it->second = {weight, first};
          settling.push_back({&it->second, {{}, &chosen}});
        } else {
          it->second.kernel = &chosen;
          jobs.push_back({&weight, &it->second});
        }
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

// All change over at once, so that a node never sees one of its matrices in each packing.
void Plan::Impl::settle() {
  for (int64_t left = settle_bytes; left > 0 && next_to_settle < settling.size();) {
    auto& [matrix, settled] = settling[next_to_settle];
    const Weight& from = matrix->weight;
    const Packing& wanted = packing(settled.kernel->packing);
    if (settled_rows == 0) settled.weight = make_weight(from.numerics, wanted, from.shape);
    const int64_t strip_bytes = pack_row_multiple * from.cols() * 2, begin = settled_rows / pack_row_multiple,
                  all = (from.rows() + pack_row_multiple - 1) / pack_row_multiple,
                  strips = std::min(all - begin, std::max<int64_t>(1, left / strip_bytes));
    parallel([&](const Share& share) {
      const Range mine = part_of(strips, share.worker, share.workers);
      Codes& between = codes[static_cast<size_t>(share.worker)];
      for (int64_t s = begin + mine.begin; s < begin + mine.end; ++s)
        repack_strip(from, s * pack_row_multiple, settled.weight, between);
    });
    left -= strips * strip_bytes;
    settled_rows = (begin + strips) * pack_row_multiple;
    if (begin + strips < all) continue;
    settled_rows = 0;
    ++next_to_settle;
  }
  if (settling.empty() || next_to_settle < settling.size()) return;
  for (auto& [matrix, settled] : settling) *matrix = std::move(settled);
  settling.clear();
}

}  // namespace lathe
