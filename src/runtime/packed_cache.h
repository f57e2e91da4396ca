// Weights as a plan's kernels read them, kept in a file between runs and mapped at the next start.
//
//   8 bytes "lathepk2", u64 length of the header, 32 digits of its checksum, the header (JSON), then, each
//   from a multiple of 4096 on, the weights: their parts one after the other, each from a multiple of 64 on.
//
// A cache, never a source: a file that is missing, of other weights, of another machine's kernels, cut short
// or damaged is written anew, and the plan repacks meanwhile.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "core/file.h"
#include "core/thread_pool.h"
#include "quant/packing.h"

namespace lathe {

// Where a plan may keep packed weights, and what they are made of.
struct PackedCache {
  fs::path folder;     // empty: nothing is kept
  std::string source;  // identity_of() the files that the model was loaded from, unchanged since
  size_t least_bytes = size_t{64} << 20;  // less is repacked faster than a file is checked
  std::string machine = {};               // whose kernels read it, CPU and features; empty: this one's
};

// Names, sizes, times of change and inodes of a checkpoint's files: what changes whenever they do. Empty
// where the system does not tell.
std::string identity_of(const fs::path& model);
// `model`/lathe/packed where the model is a directory that may be written to, else a folder of
// cache_directory(); empty without either.
fs::path packed_cache_folder(const fs::path& model);

// The wanted weights by name: numerics, packing and shape; no parts.
using WantedWeights = std::map<std::string, Weight>;

// All of the wanted weights, viewing the file; nothing where the cache does not hold exactly them. Every byte
// is read and checked: at the speed of memory, and what the first step would read from the disk anyway.
std::optional<std::map<std::string, Weight>> read_packed(const PackedCache&, const WantedWeights&,
                                                         ThreadPool&);

// Writes the file, all at once, and removes those of earlier weights of the same folder. What cannot be
// written costs a warning.
void write_packed(const PackedCache&, const std::map<std::string, Weight>&);

}  // namespace lathe
