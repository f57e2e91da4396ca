// How a kernel is called: every worker calls run() with its own share and computes that part of the output.
// Files in kernels/<isa>/ see no std:: type and include argument headers and intrinsics only, so that no
// inline function compiled for a newer CPU can be picked by the linker for an older one.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace lathe {

struct Share {
  int worker = 0, workers = 1;
  void* scratch = nullptr;  // this worker's own, 64-byte aligned, kernel_scratch_bytes long
};

inline constexpr size_t kernel_scratch_bytes = size_t{1} << 20;

// The contiguous part of `items` that one of `workers` takes; together they take each item once.
struct Range {
  int64_t begin, end;
};
static inline Range part_of(int64_t items, int64_t worker,
                            int64_t workers) {  // static: see the top of this file
  return {items * worker / workers, items * (worker + 1) / workers};
}

}  // namespace lathe
