// The physical cores of this machine that the process may use.
#pragma once

#include <vector>

namespace lathe {

// The CPUs (hardware threads) of each core, as far as the calling thread's affinity allows them; cores
// without any are left out. At least one core, in the machine's order. Without hwloc (kernels-only builds)
// each CPU counts as a core. Reads the machine anew (measured: 0.6 to 1.1 ms on two cores), since the
// affinity may change.
std::vector<std::vector<int>> cores();

}  // namespace lathe
