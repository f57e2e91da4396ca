// A checksum for bytes that only have to be the same ones twice.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace lathe {

// XXH3's 128 bits as `xxhsum -H2` prints them, 32 lower-case digits: as fast as memory is read, six times as
// fast as SHA-256. Bytes that are others by chance have another one but for 2^-128; not against anybody's
// intent.
std::string checksum(std::span<const std::byte>);

}  // namespace lathe
