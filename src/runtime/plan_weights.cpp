// Packing every weight as its kernel wants it.
#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "core/error.h"
#include "runtime/plan_impl.h"

namespace lathe {

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

}  // namespace lathe
