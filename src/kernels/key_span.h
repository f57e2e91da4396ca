// Rounds full spans of keys: attention.h, KvType::int4_channel.
#pragma once

#include "kernels/tables.h"

namespace lathe {

// `rows`: the span's keys of one head in bf16, `row_bytes` apart. `span`: where it lies in a cache. `scratch`
// holds head_dim * key_span floats.
void round_span(const AttentionKernel&, const std::byte* rows, int64_t row_bytes, int64_t head_dim,
                std::byte* span, float* scratch);

}  // namespace lathe
