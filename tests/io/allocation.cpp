// Counts what operator new is asked for. Sanitizers bring their own operator new, and their own limit on its
// requests.
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

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void* operator new(size_t bytes) {
  largest = std::max(largest, bytes);
  if (void* p = std::malloc(std::max<size_t>(bytes, 1))) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif
