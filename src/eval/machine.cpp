#include "eval/machine.h"

#include <chrono>
#include <cmath>
#include <ctime>

#include "core/cpu.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/log.h"

namespace lathe {
namespace {

// Raised whenever a measurement changes its meaning: older files are then measured again.
constexpr int64_t schema = 1;

Json to_json(const MachineKey& key) {
  return {{"schema", schema}, {"cpu", key.cpu}, {"threads", key.threads}, {"features", key.features}};
}

std::string now() {
  const std::time_t t = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&t, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::vector<int> thread_counts(int threads) {
  std::vector<int> counts;
  for (int n = 1; n < threads; n *= 2) counts.push_back(n);
  counts.push_back(threads);
  return counts;
}

double get_rate(const Json& json, std::string_view key, std::string_view where, bool required = true) {
  const double value = required ? get_number(json, key, where) : get_number_or(json, key, where, 0);
  if (!std::isfinite(value) || value < 0 || (required && value == 0))
    throw input_error(fmt::format("{}: key '{}'", where, key), "a positive number", std::to_string(value));
  return value;
}

void store(const fs::path& path, const Machine& machine) {
  try {
    fs::create_directories(path.parent_path());
    write_file_atomically(path, to_json(machine).dump(2) + "\n");
  } catch (const std::exception& e) {
    warn("{}; these measurements are not kept", printable(e.what(), 200));
  }
}

}  // namespace

MachineKey machine_key(int threads, uint32_t isa) {
  return {cpu_model(), threads > 0 ? threads : physical_cores(), describe_features(isa)};
}

int64_t machine_steps(int threads) { return std::ssize(thread_counts(machine_key(threads, 0).threads)) + 3; }

Machine measure_machine(int threads, uint32_t isa, const std::function<void(std::string_view)>& step) {
  Machine m;
  m.key = machine_key(threads, isa);
  m.measured_at = now();
  ThreadPool pool(m.key.threads);
  m.empty_region_us = measure_empty_region(pool) * 1e6;
  step("parallel regions");
  {
    const MemoryReads memory(pool);
    for (int n : thread_counts(m.key.threads)) {
      ThreadPool some(n);
      m.reads.push_back({n, memory.bytes_per_s(some, isa)});
      step("memory");
    }
  }
  m.roof.read_bytes_per_s = m.reads.back().bytes_per_s;
  measure_caches(pool, isa, m.roof);
  step("caches");
  measure_compute(pool, isa, m.roof);
  step("arithmetic");
  return m;
}

Json to_json(const Machine& m) {
  Json roof = Json::object(), reads = Json::array();
  for (const RoofField& field : roof_fields)
    if (m.roof.*field.value > 0) roof[std::string(field.name)] = m.roof.*field.value;
  for (const Machine::Reads& r : m.reads)
    reads.push_back({{"threads", r.threads}, {"bytes_per_s", r.bytes_per_s}});
  return {{"key", to_json(m.key)},
          {"measured_at", m.measured_at},
          {"roof", std::move(roof)},
          {"reads", std::move(reads)},
          {"empty_region_us", m.empty_region_us}};
}

Machine machine_from_json(const Json& json, std::string_view where) {
  const auto member = [&](const char* name) -> const Json& {
    const auto found = json.is_object() ? json.find(name) : json.end();
    if (!json.is_object() || found == json.end())
      throw input_error(where, fmt::format("key '{}'", name), "none");
    return *found;
  };
  const Json& key = member("key");
  get_int(key, "schema", where, schema, schema);
  Machine m;
  m.key = {get_string(key, "cpu", where), static_cast<int>(get_int(key, "threads", where, 1, 1 << 20)),
           get_string(key, "features", where)};
  m.measured_at = get_string(json, "measured_at", where);
  const Json& roof = member("roof");
  for (const RoofField& field : roof_fields) m.roof.*field.value = get_rate(roof, field.name, where, false);
  get_rate(roof, "read_bytes_per_s", where);
  get_rate(roof, "f32_flops_per_s", where);
  const Json& reads = member("reads");
  if (!reads.is_array() || reads.empty())
    throw input_error(fmt::format("{}: key 'reads'", where), "a list", printable(reads.dump(), 60));
  for (const Json& r : reads)
    m.reads.push_back(
        {static_cast<int>(get_int(r, "threads", where, 1, 1 << 20)), get_rate(r, "bytes_per_s", where)});
  m.empty_region_us = get_rate(json, "empty_region_us", where);
  return m;
}

CachedMachine load_machine(const fs::path& directory, const MachineKey& key, bool fresh,
                           const std::function<Machine()>& measure) {
  if (directory.empty()) return {measure(), false, {}};
  const fs::path path = directory / fmt::format("machine-{}.json", sha256(to_json(key).dump()).substr(0, 16));
  std::error_code ignored;
  if (!fresh && fs::exists(path, ignored)) try {
      Machine found = machine_from_json(read_json(path), path.string());
      if (found.key == key) return {std::move(found), true, path};
      throw input_error(path.string(), to_json(key).dump(), to_json(found.key).dump());
    } catch (const InputError& e) {
      warn("{}; measuring again", e.what());
    }
  CachedMachine result{measure(), false, path};
  store(path, result.machine);
  return result;
}

}  // namespace lathe
