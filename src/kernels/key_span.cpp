#include "kernels/key_span.h"

#include <cstring>

#include "core/float.h"

namespace lathe {

void round_span(const AttentionKernel& kernel, const std::byte* rows, int64_t row_bytes, int64_t head_dim,
                std::byte* span, float* scratch) {
  for (int64_t j = 0; j < key_span; ++j)
    for (int64_t d = 0; d < head_dim; ++d) {
      uint16_t half;
      std::memcpy(&half, rows + j * row_bytes + d * 2, sizeof half);
      scratch[d * key_span + j] = bf16_to_f32(half);
    }
  kernel.write_kv(KvType::int4, scratch, head_dim * key_span, span, 0);
}

}  // namespace lathe
