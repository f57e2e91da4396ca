// Cuts the attention of a batch into items that workers take in turn: one parallel region for all sequences.
#pragma once

#include <memory>
#include <vector>

#include "kernels/tables.h"

namespace lathe {

class AttentionWork {
 public:
  // Room for whatever has so many rows x heads: then share_out() allocates nothing.
  void reserve(int64_t most_columns, int workers);

  // Points `args`, whose other fields are set, to the items of `sequences`, the most expensive first. Holds
  // their storage until the next call.
  void share_out(AttentionArgs& args, std::span<const AttentionSequence> sequences, const AttentionPath&,
                 int workers);

 private:
  std::vector<AttentionGroup> groups_;
  std::vector<AttentionItem> items_;
  std::vector<double> costs_;  // of groups
  std::vector<int32_t> finished_;
  std::unique_ptr<float[]> partials_;  // memory that is touched only where groups are cut
  int64_t taken_ = 0;
};

}  // namespace lathe
