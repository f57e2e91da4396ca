// Counts what operator new is asked for.
#include <algorithm>
#include <cstdlib>
#include <new>

#include "io/attack.h"

namespace {
size_t largest = 0;
}

namespace lathe {
size_t largest_allocation() { return std::exchange(largest, 0); }
}  // namespace lathe

void* operator new(size_t bytes) {
  largest = std::max(largest, bytes);
  if (void* p = std::malloc(std::max<size_t>(bytes, 1))) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
