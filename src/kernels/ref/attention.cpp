// softmax(scale * q k^T) v over the keys that a query sees, one query and one head at a time.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "core/float.h"
#include "kernels/ref/ref.h"
#include "quant/int8_step.h"
#include "quant/round.h"

namespace lathe {
namespace {

float largest_size(const float* x, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(x[i]));
  return most;
}

// Number d of an int4 row.
float int4_number(const uint8_t* row, int64_t dim, int64_t d) {
  uint16_t scale_minimum[2];
  std::memcpy(scale_minimum, row + d / kv_group * 4, sizeof scale_minimum);
  const int64_t i = d % kv_group, half = kv_group / 2;
  const uint8_t byte = row[dim / kv_group * 4 + d / kv_group * half + i % half];
  const int code = i < half ? byte & 15 : byte >> 4;
  return std::fma(bf16_to_f32(scale_minimum[0]), static_cast<float>(code), bf16_to_f32(scale_minimum[1]));
}

}  // namespace

void read_kv_ref(KvType type, const void* row, int64_t dim, float* out) noexcept {
  const auto* bytes = static_cast<const uint8_t*>(row);
  switch (type) {
    case KvType::f32:
      std::memcpy(out, row, static_cast<size_t>(dim) * sizeof(float));
      return;
    case KvType::bf16:
      to_f32(DType::bf16, row, out, dim);
      return;
    case KvType::int8: {
      float scale;
      std::memcpy(&scale, bytes, sizeof scale);
      for (int64_t d = 0; d < dim; ++d)
        out[d] = scale * static_cast<float>(static_cast<int8_t>(bytes[4 + d]));
      return;
    }
    case KvType::fp8: {
      float scale;
      std::memcpy(&scale, bytes, sizeof scale);
      for (int64_t d = 0; d < dim; ++d) out[d] = scale * f8e4m3_to_f32(bytes[4 + d]);
      return;
    }
    case KvType::nvfp4: {
      float scale;
      std::memcpy(&scale, bytes, sizeof scale);
      const std::span<const float> values = grid_values(Numerics::Kind::e2m1);
      for (int64_t d = 0; d < dim; ++d) {
        const int64_t i = d % kv_group, half = kv_group / 2;
        const uint8_t byte = bytes[4 + dim / 16 + d / kv_group * half + i % half];
        const int code = i < half ? byte & 15 : byte >> 4;
        out[d] = scale * f8e4m3_to_f32(bytes[4 + d / 16]) * values[static_cast<size_t>(code)];
      }
      return;
    }
    case KvType::int4:
    case KvType::int4_channel:
      for (int64_t d = 0; d < dim; ++d) out[d] = int4_number(bytes, dim, d);
  }
}

void write_kv_ref(KvType type, const float* x, int64_t dim, void* row, float scale) noexcept {
  auto* bytes = static_cast<uint8_t*>(row);
  switch (type) {
    case KvType::f32:
      std::memcpy(row, x, static_cast<size_t>(dim) * sizeof(float));
      return;
    case KvType::bf16:
      from_f32(DType::bf16, x, row, dim);
      return;
    case KvType::int8: {
      const float most = largest_size(x, dim), inverse = inverse_of_step(most);
      const float used = scale > 0 ? scale : most / 127.0f;
      std::memcpy(bytes, &used, sizeof used);
      for (int64_t d = 0; d < dim; ++d) {
        const float code = scale > 0 ? std::clamp(x[d] / scale, -128.0f, 127.0f) : x[d] * inverse;
        bytes[4 + d] = static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(code)));
      }
      return;
    }
    case KvType::fp8: {
      if (!(scale > 0)) scale = largest_size(x, dim) / 448.0f;
      std::memcpy(bytes, &scale, sizeof scale);
      for (int64_t d = 0; d < dim; ++d) bytes[4 + d] = f32_to_f8e4m3(scale > 0 ? x[d] / scale : x[d]);
      return;
    }
    case KvType::nvfp4: {
      if (!(scale > 0)) scale = largest_size(x, dim) / (6 * 448.0f);
      std::memcpy(bytes, &scale, sizeof scale);
      std::fill_n(bytes + 4 + dim / 16, dim / 2, uint8_t{0});
      for (int64_t g = 0; g < dim / 16; ++g) {
        bytes[4 + g] = scale > 0 ? f32_to_f8e4m3(largest_size(x + g * 16, 16) / (6 * scale)) : uint8_t{0};
        const float step = scale * f8e4m3_to_f32(bytes[4 + g]);
        for (int64_t i = 0; i < 16; ++i) {  // even groups in the low bits
          // -0 counts as 0.
          const int code =
              nearest_code(Numerics::Kind::e2m1, bytes[4 + g] > 0 ? x[g * 16 + i] / step + 0.0f : 0.0f);
          bytes[4 + dim / 16 + g / 2 * 16 + i] |= static_cast<uint8_t>(g % 2 == 0 ? code : code << 4);
        }
      }
      return;
    }
    case KvType::int4:
    case KvType::int4_channel:
      for (int64_t g = 0; g < dim; g += kv_group) {
        const auto [low, high] = std::minmax_element(x + g, x + g + kv_group);
        const uint16_t scale_minimum[] = {f32_to_bf16((*high - *low) / 15.0f), f32_to_bf16(*low)};
        std::memcpy(bytes + g / kv_group * 4, scale_minimum, sizeof scale_minimum);
        const float step = bf16_to_f32(scale_minimum[0]), start = bf16_to_f32(scale_minimum[1]);
        const float inverse = step > 0 ? 1.0f / step : 0.0f;
        const auto code = [&](int64_t d) {
          return static_cast<int>(std::nearbyint(std::clamp((x[d] - start) * inverse, 0.0f, 15.0f)));
        };
        for (int64_t i = 0; i < kv_group / 2; ++i)
          bytes[dim / kv_group * 4 + g / 2 + i] =
              static_cast<uint8_t>(code(g + i) | code(g + i + kv_group / 2) << 4);
      }
  }
}

void attention_ref(const AttentionArgs& a, const Share&) noexcept {
  const int64_t heads_per_kv = a.heads / a.kv_heads;
  std::vector<float> weights, vector(static_cast<size_t>(a.head_dim));
  while (const AttentionItem* item = take_item(a)) {
    const AttentionGroup& g = a.groups[item->group];
    const AttentionSequence& s = a.sequences[g.sequence];
    const auto read = [&](const void* base, int64_t key) {
      read_kv_ref(a.kv.type, kv_row(a.kv, base, s.blocks, g.kv_head, key), a.head_dim, vector.data());
      return vector.data();
    };
    // Of a query at `position`.
    const auto read_key = [&](int64_t key, int64_t position) {
      if (!keys_in_spans(a.kv.type)) return read(a.k, key);
      if (key >= span_start(position)) {
        read_kv_ref(KvType::bf16, kv_row(a.open, a.open_k, s.open, g.kv_head, key - span_start(s.first)),
                    a.head_dim, vector.data());
        return vector.data();
      }
      const auto* span =
          reinterpret_cast<const uint8_t*>(kv_row(a.kv, a.k, s.blocks, g.kv_head, span_start(key)));
      for (int64_t d = 0; d < a.head_dim; ++d)
        vector[static_cast<size_t>(d)] =
            int4_number(span, a.head_dim * key_span, d * key_span + key % key_span);
      return vector.data();
    };
    for (int64_t column = g.column; column < g.column + g.columns; ++column) {
      const int64_t row = column / heads_per_kv, head = g.kv_head * heads_per_kv + column % heads_per_kv;
      const Range keys = visible_keys(a, s, s.first + row);
      const float* q = a.q + (s.row + row) * a.q_stride + head * a.head_dim;
      weights.resize(static_cast<size_t>(keys.end - keys.begin));

      float largest = a.sinks ? a.sinks[head] : -INFINITY;
      for (int64_t j = keys.begin; j < keys.end; ++j) {
        const float* k = read_key(j, s.first + row);
        float score = 0;
        for (int64_t d = 0; d < a.head_dim; ++d) score += q[d] * k[d];
        score *= a.scale;
        if (a.soft_cap > 0) score = a.soft_cap * std::tanh(score / a.soft_cap);
        weights[static_cast<size_t>(j - keys.begin)] = score;
        largest = std::max(largest, score);
      }
      float total = a.sinks ? std::exp(a.sinks[head] - largest) : 0;
      for (float& w : weights) {
        w = std::exp(w - largest);
        total += w;
      }
      float* out = a.out + (s.row + row) * a.out_stride + head * a.head_dim;
      std::fill(out, out + a.head_dim, 0.0f);
      for (int64_t j = keys.begin; j < keys.end; ++j) {
        const float* v = read(a.v, j);
        for (int64_t d = 0; d < a.head_dim; ++d)
          out[d] += weights[static_cast<size_t>(j - keys.begin)] * v[d];
      }
      for (int64_t d = 0; d < a.head_dim; ++d) out[d] /= total;
    }
  }
}

}  // namespace lathe
