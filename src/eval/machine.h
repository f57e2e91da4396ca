// One machine's measured abilities, kept between runs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "eval/roof.h"

namespace lathe {

// What the measurements depend on. Another key is another file of the cache.
struct MachineKey {
  std::string cpu;       // cpu_model()
  int threads = 0;       // that were measured together
  std::string features;  // describe_features() of what was allowed
  bool operator==(const MachineKey&) const = default;
};
MachineKey machine_key(int threads, uint32_t isa);

struct Machine {
  struct Reads {
    int threads = 0;
    double bytes_per_s = 0;
  };
  MachineKey key;
  std::string measured_at;     // UTC, "2026-01-31T12:00:00Z"
  Roof roof;                   // all threads
  std::vector<Reads> reads;    // from memory: 1, 2, 4 ... threads and all of them
  double empty_region_us = 0;  // what one parallel region costs, microseconds, median
};

// Takes some seconds; `step` is called after each of machine_steps() measurements.
Machine measure_machine(int threads, uint32_t isa, const std::function<void(std::string_view)>& step);
int64_t machine_steps(int threads);

Json to_json(const Machine&);
Machine machine_from_json(const Json&, std::string_view where);  // InputError naming `where`

// The machine of that key from the cache in `directory`; measured and stored where there is none, where
// `fresh` asks for it, and where the file does not make sense (with a warning). A cache that cannot be
// written costs a warning, not the result. An empty directory: no cache.
struct CachedMachine {
  Machine machine;
  bool cached = false;  // not measured now
  fs::path path;        // empty without a cache
};
CachedMachine load_machine(const fs::path& directory, const MachineKey&, bool fresh,
                           const std::function<Machine()>& measure);

}  // namespace lathe
