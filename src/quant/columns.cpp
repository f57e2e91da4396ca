#include "quant/columns.h"

#include <algorithm>

#include "core/error.h"

namespace lathe {
namespace {

// Columns by group, each group's in the order that they have: empty where the groups do not fill up.
std::vector<int32_t> by_group(const Codes& c) {
  const int64_t group = c.numerics.group, groups = c.numerics.groups(c.cols);
  std::vector<int64_t> next(static_cast<size_t>(groups));
  for (int64_t g = 0; g < groups; ++g) next[static_cast<size_t>(g)] = g * group;
  std::vector<int32_t> from(static_cast<size_t>(c.cols));
  for (int64_t k = 0; k < c.cols; ++k) {
    const int64_t g = c.group_of[static_cast<size_t>(k)];
    int64_t& at = next[static_cast<size_t>(g)];
    if (at == std::min(c.cols, (g + 1) * group)) return {};
    from[static_cast<size_t>(at++)] = static_cast<int32_t>(k);
  }
  return from;
}

}  // namespace

Numerics Columns::leave(Numerics n) const {
  if (!from.empty()) n.act_order = false;
  if (!scales.empty()) n.column_scales = false;
  return n;
}

Columns columns_of(const Weight& w) {
  Columns out;
  if (!w.numerics.act_order && !w.numerics.column_scales) return out;
  const Codes one = unpack(w, 0, 1);
  if (w.numerics.act_order) out.from = by_group(one);
  if (!w.numerics.column_scales) return out;
  out.scales = one.columns;
  for (size_t k = 0; k < out.from.size(); ++k) out.scales[k] = one.columns[static_cast<size_t>(out.from[k])];
  return out;
}

void arrange(Codes& c, const Columns& columns) {
  c.numerics = columns.leave(c.numerics);
  if (!columns.scales.empty()) c.columns.clear();
  if (columns.from.empty()) return;
  c.group_of.clear();
  std::vector<int16_t> row(static_cast<size_t>(c.cols));
  for (int64_t r = 0; r < c.rows; ++r) {
    int16_t* codes = c.codes.data() + r * c.cols;
    std::copy_n(codes, c.cols, row.begin());
    for (size_t k = 0; k < row.size(); ++k) codes[k] = row[static_cast<size_t>(columns.from[k])];
  }
}

Weight repack(const Weight& w, const Packing& target, const Columns& columns) {
  if (!target.pack) fail("packing {} is only read", target.name);
  Weight out = make_weight(columns.leave(w.numerics), target, w.shape);
  Codes between;
  for (int64_t row = 0; row < w.rows(); row += pack_row_multiple) {
    w.packing->unpack(w, row, std::min(pack_row_multiple, w.rows() - row), between);
    arrange(between, columns);
    target.pack(between, row, out);
  }
  return out;
}

}  // namespace lathe
