// Counting what operator new is asked for.
#pragma once

#include <cstddef>

namespace lathe {

// Allocations of this process by operator new so far; always 0 under a sanitizer, which brings its own.
size_t allocations();

}  // namespace lathe
