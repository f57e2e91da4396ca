#include "runtime/pack_model.h"

#include <set>

#include "core/thread_pool.h"
#include "kernels/tables.h"
#include "quant/columns.h"

namespace lathe {

void pack_model(Model& model, int threads, uint32_t isa) {
  std::set<std::string> matrices, others;
  for (const NodeId id : model.graph.order()) {
    const Node& node = model.graph.node(id);
    for (size_t i = 0; i < node.params.size(); ++i)
      (i == 0 && std::holds_alternative<op::Linear>(node.op) ? matrices : others).insert(node.params[i]);
  }
  std::vector<Weight*> todo;
  for (const std::string& name : matrices)
    if (!others.contains(name)) todo.push_back(&model.weights.at(name));
  ThreadPool pool(threads > 0 ? threads : physical_cores());
  for_each_item(pool, std::ssize(todo), [&](int64_t i) {
    Weight& w = *todo[static_cast<size_t>(i)];
    if (!columns_of(w).empty()) return;  // a weight cannot say what becomes of its input
    const Packing& wanted = packing(choose_linear(w.numerics, w.rows(), w.cols(), isa).packing);
    if (w.packing != &wanted) w = repack(w, wanted);
  });
}

}  // namespace lathe
