#include "kernels/attention_work.h"

#include <algorithm>

namespace lathe {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Items per worker, where there is enough work: more even out what estimates get wrong, and cost more
// reading.
constexpr int64_t fair = 4;
constexpr size_t most_partials = size_t{4} << 20;  // floats: 16 MiB

// Reading and unpacking a key and a value costs as much as this many columns' products with them.
constexpr double columns_per_key = 12;

}  // namespace

void AttentionWork::reserve(int64_t most_columns, int workers) {
  const auto groups = static_cast<size_t>(most_columns);
  groups_.reserve(groups);
  costs_.reserve(groups);
  finished_.reserve(groups);
  // A group is cut into at most its cost / target + 1/2 parts, and all costs are `fair * workers` targets.
  items_.reserve(2 * groups + static_cast<size_t>(fair * workers));
  partials_.reset(new float[most_partials]);
}

void AttentionWork::share_out(AttentionArgs& args, std::span<const AttentionSequence> sequences,
                              const AttentionPath& path, int workers) {
  const int64_t heads = args.heads / args.kv_heads;
  args.sequences = sequences.data();
  groups_.clear();
  items_.clear();
  costs_.clear();

  // Columns of a group: as many as the kernel takes, fewer where that leaves workers without work.
  int64_t blocks = 0, cuts = 0;
  for (const AttentionSequence& s : sequences) {
    const int64_t of_sequence = ceil_div(s.rows * heads, path.most_columns);
    blocks += of_sequence;
    cuts += of_sequence * (path.splits ? ceil_div(s.keys, attention_split) : 1);
  }
  const int64_t wanted = fair * workers;
  const int64_t least = path.splits && cuts * args.kv_heads < workers ? 1 : path.least_columns;
  double total = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const AttentionSequence& s = sequences[i];
    const int64_t all = s.rows * heads;
    int64_t columns = path.most_columns;
    if (blocks * args.kv_heads < wanted) {
      const int64_t each = ceil_div(wanted, args.kv_heads * static_cast<int64_t>(sequences.size()));
      columns = std::min(columns, ceil_div(ceil_div(all, each), least) * least);
    }
    for (int64_t column = 0, count = 0; column < all; column += count) {
      count = std::min(columns, all - column);
      if (keys_in_spans(args.kv.type)) {
        const int64_t next = span_start(s.first + column / heads) + key_span;
        count = std::min(count, (next - s.first) * heads - column);
      }
      const Range keys = visible_keys(args, s, column, count);
      const int64_t split = keys.begin / attention_split,
                    splits = std::max<int64_t>(ceil_div(keys.end, attention_split) - split, 1);
      const double cost =
          static_cast<double>(keys.end - keys.begin) * (static_cast<double>(count) + columns_per_key);
      for (int64_t h = 0; h < args.kv_heads; ++h) {
        groups_.push_back({static_cast<int64_t>(i), h, column, count, split, splits, -1, 1});
        costs_.push_back(cost);
        total += cost;
      }
    }
  }

  size_t partials = 0;
  const double target = total / static_cast<double>(wanted);
  for (size_t g = 0; g < groups_.size(); ++g) {
    AttentionGroup& group = groups_[g];
    int64_t parts = 1;
    if (path.splits && costs_[g] > target)
      parts = std::min(group.splits, static_cast<int64_t>(costs_[g] / target + 0.5));
    if (parts > 1) {
      const auto floats = static_cast<size_t>(group.splits * group.columns * (args.head_dim + 2));
      if (partials + floats <= most_partials) {
        group.partial = static_cast<int64_t>(partials);
        group.items = parts;
        partials += floats;
      }
    }
    for (int64_t p = 0; p < group.items; ++p) {
      const Range part = part_of(group.splits, p, group.items);
      items_.push_back({static_cast<int64_t>(g), group.split + part.begin, part.end - part.begin});
    }
  }
  const auto cost_of = [&](const AttentionItem& item) {
    const auto g = static_cast<size_t>(item.group);
    return costs_[g] / static_cast<double>(groups_[g].items);
  };
  std::sort(items_.begin(), items_.end(), [&](const AttentionItem& a, const AttentionItem& b) {
    const double left = cost_of(a), right = cost_of(b);
    return left != right ? left > right : a.group != b.group ? a.group < b.group : a.split < b.split;
  });

  finished_.assign(groups_.size(), 0);
  if (partials > 0 && !partials_) partials_.reset(new float[most_partials]);
  taken_ = 0;
  args.groups = groups_.data();
  args.items = items_.data();
  args.item_count = static_cast<int64_t>(items_.size());
  args.taken = &taken_;
  args.finished = finished_.data();
  args.partials = partials_.get();
}

}  // namespace lathe
