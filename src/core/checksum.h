// A checksum for bytes that only have to be the same ones twice.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lathe {

// 64 bits that any change of one word of 8 bytes changes, and any other change all but surely. Ten times as
// fast as SHA-256, not against anybody's intent. Sums of the same bytes in other pieces differ.
class Checksum {
 public:
  void add(const void* data, size_t bytes);
  void add(std::string_view text) { add(text.data(), text.size()); }
  uint64_t value() const;

 private:
  std::array<uint64_t, 8> chains_ = {1, 2, 3, 4, 5, 6, 7, 8};
};

}  // namespace lathe
