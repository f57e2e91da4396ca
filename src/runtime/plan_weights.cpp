// Packing every weight as its kernel wants it.
#include <algorithm>
#include <cstring>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "runtime/plan_impl.h"

namespace lathe {

// Bytes of weights repacked before a run: some 30 ms, or 100 where the memory is fresh.
constexpr int64_t settle_bytes = int64_t{64} << 20;

int Plan::Impl::index_of(Columns c) {
  if (c.empty()) return -1;
  const auto found = std::find(columns.begin(), columns.end(), c);
  const auto index = static_cast<int>(found - columns.begin());
  if (found == columns.end()) columns.push_back(std::move(c));
  return index;
}

const Columns& Plan::Impl::columns_of_x(const Packed& matrix) const {
  static const Columns none;
  return matrix.columns < 0 ? none : columns[static_cast<size_t>(matrix.columns)];
}

void Plan::Impl::pack_weights(const Model& model) {
  std::vector<Repacking> jobs;
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
        const Columns taken = columns_of(weight);
        const LinearKernel& chosen =
            choose_linear(taken.leave(weight.numerics), weight.rows(), weight.cols(), target.isa);
        it->second.kernel = &chosen;
        it->second.input_scale = input_scale(weight);
        it->second.columns = index_of(taken);
        if (weight.packing->name == chosen.packing && taken.empty())
          it->second.weight = weight;
        else
          jobs.push_back({name, &weight, &it->second});
      } else {
        vectors.try_emplace(name, read_all(weight));
      }
    }
  }
  map_packed(jobs);
  std::erase_if(jobs, [&](const Repacking& job) {
    const LinearKernel& settled = *job.to->kernel;
    const LinearKernel* first =
        target.ready_at_once ? row_that_starts_for(settled, job.from->packing->name) : nullptr;
    if (!first || job.to->columns >= 0) return false;
    const float scale = job.to->input_scale;
    *job.to = {*job.from, first, scale};
    settling.push_back({job.name, job.to, {{}, &settled, scale}});
    return true;
  });
  for_each_weight(jobs, [&](const Repacking& job) {
    job.to->weight = repack(*job.from, packing(job.to->kernel->packing), columns_of_x(*job.to));
  });
  for (const Repacking& job : jobs) repacked.push_back(job.name);
  if (target.tuning) set_rows(*target.tuning);
}

// Every weight is read once: workers take them one by one, the largest first.
template <class F>
void Plan::Impl::for_each_weight(std::vector<Repacking>& jobs, F work) {
  std::stable_sort(jobs.begin(), jobs.end(),
                   [](const Repacking& a, const Repacking& b) { return a.from->bytes() > b.from->bytes(); });
  for_each_item(*pool, std::ssize(jobs), [&](int64_t i) { work(jobs[static_cast<size_t>(i)]); });
}

// A file's key says which weights it was made of; that a sample of every format and shape means the same
// numbers guards against a mistake of ours: a packing that changed, a model that was changed in memory.
static bool same_numbers(const Weight& a, const Columns& columns, const Weight& b) {
  const int64_t rows = std::min<int64_t>(a.rows(), 2), row = (a.rows() - rows) / 2;
  std::vector<float> x(static_cast<size_t>(rows * a.cols())), y(x.size());
  Codes arranged = unpack(a, row, rows);
  arrange(arranged, columns);
  dequantize(arranged, x.data());
  read_rows(b, row, rows, y.data());
  return std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
}

// Takes from the cache of packed weights what it holds; `jobs` keeps the rest.
void Plan::Impl::map_packed(std::vector<Repacking>& jobs) {
  WantedWeights wanted;
  size_t bytes = 0;
  for (const Repacking& job : jobs) {
    const Weight want{columns_of_x(*job.to).leave(job.from->numerics),
                      &packing(job.to->kernel->packing),
                      job.from->shape,
                      {}};
    bytes += packed_bytes(want.numerics, *want.packing, want.shape);
    wanted.emplace(job.name, want);
  }
  if (bytes < target.packed_cache.least_bytes) return;
  auto found = read_packed(target.packed_cache, wanted, *team);
  if (!found) return;
  std::set<std::string> compared;
  for (const Repacking& job : jobs)
    if (compared.insert(Tuning::kind_of(*job.from)).second &&
        !same_numbers(*job.from, columns_of_x(*job.to), found->at(job.name))) {
      warn("{}: packed weights of '{}' are not those of the model; packing them again",
           target.packed_cache.folder.string(), printable(job.name));
      return;
    }
  mapped = true;
  if (target.ready_at_once) {
    for (const Repacking& job : jobs) job.to->weight = std::move(found->at(job.name));
  } else {
    for_each_weight(jobs, [&](const Repacking& job) {
      const Weight& from = found->at(job.name);
      Weight& to = job.to->weight = make_weight(from.numerics, *from.packing, from.shape);
      for (size_t i = 0; i < to.parts.size(); ++i)
        std::memcpy(to.parts[i].storage.data, from.parts[i].storage.data, from.parts[i].bytes());
    });
  }
  jobs.clear();
}

const LinearKernel* Plan::Impl::tuned_row(const Tuning& tuning, const Packed& matrix, Phase phase) const {
  const auto found = tuning.rows.find({Tuning::kind_of(matrix.weight), phase});
  if (found == tuning.rows.end()) return nullptr;
  for (const LinearKernel& row : linear_kernels())
    if (row.name == found->second.kernel && row.packing == matrix.kernel->packing &&
        (row.isa & ~target.isa) == 0 &&
        row.accepts(matrix.weight.numerics, matrix.weight.rows(), matrix.weight.cols()))
      return &row;
  return nullptr;
}

void Plan::Impl::set_rows(const Tuning& tuning) {
  for (auto& [name, matrix] : packed) {
    matrix.prompts = tuned_row(tuning, matrix, Phase::prefill);
    matrix.decoding = tuned_row(tuning, matrix, Phase::decode);
  }
}

// All change over at once, so that a node never sees one of its matrices in each packing.
void Plan::Impl::settle() {
  for (int64_t left = settle_bytes; left > 0 && next_to_settle < settling.size();) {
    auto& [name, matrix, settled] = settling[next_to_settle];
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
  for (auto& [name, matrix, settled] : settling) {
    // Tuned rows that want x as it is packed by now: the steps and buffers for that are made.
    const auto tuned = [&, &to = settled](Phase phase) -> const LinearKernel* {
      const LinearKernel* row = target.tuning ? tuned_row(*target.tuning, to, phase) : nullptr;
      return row && row->path(phase == Phase::prefill).rows == to.path(phase).rows ? row : nullptr;
    };
    settled.prompts = tuned(Phase::prefill);
    settled.decoding = tuned(Phase::decode);
    *matrix = std::move(settled);
    repacked.push_back(name);
  }
  settling.clear();
}

void Plan::keep_packed() {
  Impl& impl = *impl_;
  if (impl.target.packed_cache.folder.empty() || impl.mapped || !impl.settling.empty()) return;
  std::map<std::string, Weight> weights;
  size_t bytes = 0;
  for (const std::string& name : impl.repacked) {
    weights.emplace(name, impl.packed.at(name).weight);
    bytes += weights.at(name).bytes();
  }
  impl.repacked.clear();
  if (weights.empty() || bytes < impl.target.packed_cache.least_bytes) return;
  info("keeping {} MiB of packed weights in {} for the next start", bytes >> 20,
       printable(impl.target.packed_cache.folder.string()));
  write_packed(impl.target.packed_cache, weights);
}

bool Plan::mapped_packed() const { return impl_->mapped; }

}  // namespace lathe
