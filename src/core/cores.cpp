#include "core/cores.h"

#include <algorithm>
#include <sched.h>
#include <thread>

#if LATHE_HWLOC
#include <hwloc.h>
#endif

namespace lathe {
namespace {

#if LATHE_HWLOC
std::vector<std::vector<int>> cores_of(const cpu_set_t& allowed) {
  std::vector<std::vector<int>> out;
  hwloc_topology_t topology;
  if (hwloc_topology_init(&topology) != 0) return out;
  if (hwloc_topology_load(topology) == 0)
    for (hwloc_obj_t core = nullptr; (core = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_CORE, core));) {
      std::vector<int> cpus;
      for (int cpu = hwloc_bitmap_first(core->cpuset); cpu >= 0; cpu = hwloc_bitmap_next(core->cpuset, cpu))
        if (cpu < CPU_SETSIZE && CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
      if (!cpus.empty()) out.push_back(std::move(cpus));
    }
  hwloc_topology_destroy(topology);
  return out;
}
#else
std::vector<std::vector<int>> cores_of(const cpu_set_t&) { return {}; }
#endif

}  // namespace

std::vector<std::vector<int>> cores() {
  std::vector<std::vector<int>> out;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
    const int count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    for (int cpu = 0; cpu < count; ++cpu) out.push_back({cpu});
    return out;
  }
  out = cores_of(allowed);
  if (out.empty())
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &allowed)) out.push_back({cpu});
  return out;
}

}  // namespace lathe
