#include "core/checksum.h"

#ifdef __x86_64__
#include <xxh_x86dispatch.h>  // the same numbers by AVX2 or AVX-512 where the CPU has it
#else
#include <xxhash.h>
#endif

#include "core/error.h"

namespace lathe {

std::string checksum(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace lathe
