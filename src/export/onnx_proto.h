// Protocol buffers' wire format, as far as ONNX needs it written.
// https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace lathe {

// One message: fields in the order of the calls.
class ProtoMessage {
 public:
  ProtoMessage& integer(int field, int64_t value) {
    varint(static_cast<uint64_t>(field) << 3);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  ProtoMessage& real(int field, float value) {
    varint(static_cast<uint64_t>(field) << 3 | 5);
    for (uint32_t bits = std::bit_cast<uint32_t>(value), i = 0; i < 4; ++i, bits >>= 8)
      bytes_ += static_cast<char>(bits & 0xff);
    return *this;
  }
  ProtoMessage& text(int field, std::string_view value) {  // also bytes, and messages
    varint(static_cast<uint64_t>(field) << 3 | 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  ProtoMessage& message(int field, const ProtoMessage& value) { return text(field, value.bytes_); }

  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

}  // namespace lathe
