#include "eval/report.h"

#include <sys/utsname.h>
#include <unistd.h>

namespace lathe {
namespace {

Json to_json(const Metric& m) {
  Json json = {{"name", m.name}, {"value", m.value}};
  if (!m.unit.empty()) json["unit"] = m.unit;
  if (m.error != 0) json["error"] = m.error;
  return json;
}

Json to_json(const std::vector<Metric>& metrics) {
  Json json = Json::array();
  for (const Metric& m : metrics) json.push_back(to_json(m));
  return json;
}

}  // namespace

Json to_json(const Report& report) {
  Json nodes = Json::array();
  for (const Report::Row& row : report.nodes)
    nodes.push_back({{"node", row.node}, {"metrics", to_json(row.metrics)}});
  return {{"subject", report.subject},
          {"provenance", report.provenance},
          {"totals", to_json(report.totals)},
          {"nodes", std::move(nodes)}};
}

Json to_json(const Quality& q) {
  Json json = {{"perplexity", q.perplexity},
               {"perplexity_stderr", q.perplexity_stderr},
               {"tokens", q.tokens},
               {"nll", q.nll},
               {"nll_stderr", q.nll_stderr}};
  if (q.tokens_compared > 0) {
    json["kl_mean"] = q.kl_mean;
    json["kl_stderr"] = q.kl_stderr;
    json["kl_p99"] = q.kl_p99;
    json["kl_reverse_mean"] = q.kl_reverse_mean;
    json["top1_agreement"] = q.top1_agreement;
    json["tokens_compared"] = q.tokens_compared;
  }
  return json;
}

Json to_json(const Speed& s) {
  Json json = {{"prefill_tokens_per_s", s.prefill_tokens_per_s},
               {"decode_tokens_per_s", s.decode_tokens_per_s},
               {"prefill_percent_of_roof", s.prefill_percent_of_roof},
               {"decode_percent_of_roof", s.decode_percent_of_roof},
               {"ttft_ms", s.ttft_ms},
               {"threads", s.threads},
               {"prefill_threads", s.prefill_threads},
               {"batch", s.batch},
               {"prompt_tokens", s.prompt_tokens},
               {"gen_tokens", s.gen_tokens},
               {"logits_hash", s.logits_hash},
               {"peak_memory_bytes", s.peak_memory_bytes},
               {"model_memory_bytes", s.model_memory_bytes},
               {"weights_fit_cache", s.fits_cache}};
  if (s.decode_percent_of_l3 > 0) json["decode_percent_of_l3"] = s.decode_percent_of_l3;
  if (s.prefill_roof) json["prefill_roof"] = s.prefill_roof->name;
  for (const RoofField& field : roof_fields)
    if (s.roof.*field.value > 0) json["roof_" + std::string(field.name)] = s.roof.*field.value;
  return json;
}

Json describe_machine(int threads, uint32_t isa) {
  utsname system{};
  ::uname(&system);
  const auto memory = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  return {{"version", version()},
          {"cpu", cpu_model()},
          {"features", describe_features(isa)},
          {"cores", physical_cores()},
          {"threads", threads},
          {"memory_bytes", memory},
          {"last_level_cache_bytes", last_level_cache_bytes()},
          {"system", fmt::format("{} {} {}", system.sysname, system.release, system.machine)}};
}

std::string_view version() { return LATHE_VERSION; }

}  // namespace lathe
