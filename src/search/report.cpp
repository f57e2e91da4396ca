#include "search/report.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "eval/report.h"

namespace lathe {
namespace {

std::string_view kind_name(Trial::Kind kind) {
  switch (kind) {
    case Trial::Kind::base:
      return "base";
    case Trial::Kind::uniform:
      return "uniform";
    case Trial::Kind::mixed:
      return "mixed";
  }
  return "";
}

// Of the held-out text where both were scored on it.
double increase_percent(const Trial& t, const Trial& base) {
  return 100 * (t.held_out && base.held_out ? ppl_increase(*t.held_out, *base.held_out)
                                            : ppl_increase(t.search, base.search));
}

Json to_json(const SearchResult& r, size_t i) {
  const Trial& t = r.trials[i];
  Json json = {{"id", i},
               {"name", t.name},
               {"kind", kind_name(t.kind)},
               {"chosen", i == r.chosen},
               {"why", t.why},
               {"bytes", t.bytes},
               {"bits_per_weight", t.bits_per_weight},
               {"memory_bytes", t.memory_bytes},
               {"predicted_kl", t.predicted_kl},
               {"perplexity_increase_percent", increase_percent(t, r.trials[0])},
               {"search", to_json(t.search)}};
  if (t.held_out) json["held_out"] = to_json(*t.held_out);
  if (t.speed) json["speed"] = to_json(*t.speed);
  return json;
}

Json text_json(const Text& text) {
  return {{"path", text.path},
          {"sha256", text.sha256},
          {"bytes", Json::array({text.begin, text.end})},
          {"tokens", text.tokens.size()}};
}

// The chosen one against each uniform format, and whether some mixture beats that format outright.
Json compare_with_uniform(const SearchResult& r) {
  const Trial& chosen = r.trials[r.chosen];
  Json rows = Json::array();
  int64_t comparable = 0, beaten = 0, dominated = 0;
  for (const Trial& u : r.trials) {
    if (u.kind != Trial::Kind::uniform) continue;
    const bool smaller = u.bytes <= chosen.bytes && &u != &chosen;
    const bool lower = chosen.search.kl_mean < u.search.kl_mean;
    comparable += smaller;
    beaten += smaller && lower;
    const Trial* best = nullptr;
    for (const Trial& m : r.trials)
      if (m.kind == Trial::Kind::mixed && m.bytes <= u.bytes && m.search.kl_mean < u.search.kl_mean &&
          (!best || m.search.kl_mean < best->search.kl_mean))
        best = &m;
    dominated += best != nullptr;
    Json row = {{"uniform", u.name},
                {"bytes", u.bytes},
                {"kl_mean", u.search.kl_mean},
                {"equal_or_fewer_bytes", smaller}};
    if (smaller) row["chosen_has_lower_kl"] = lower;
    if (best)
      row["dominated_by"] = {{"name", best->name}, {"bytes", best->bytes}, {"kl_mean", best->search.kl_mean}};
    rows.push_back(std::move(row));
  }
  return {{"text", "calibration"},
          {"uniform_of_equal_or_fewer_bytes", comparable},
          {"of_those_with_higher_kl", beaten},
          {"uniform_dominated_by_a_mixture", dominated},
          {"holds", beaten == comparable},
          {"rows", std::move(rows)}};
}

Json kernel_summary(Study& study, const Choice& choice) {
  std::map<std::tuple<std::string, std::string, bool>, int64_t> counts;
  for (const Plan::Choice& c : study.kernels(choice)) ++counts[{c.kernel, c.packing, c.emulated}];
  Json rows = Json::array();
  for (const auto& [key, nodes] : counts)
    rows.push_back({{"kernel", std::get<0>(key)},
                    {"packing", std::get<1>(key)},
                    {"nodes", nodes},
                    {"emulated", std::get<2>(key)}});
  return rows;
}

std::vector<Report::Row> unit_rows(const Study& study, const SearchResult& r) {
  const Trial& chosen = r.trials[r.chosen];
  std::vector<Report::Row> rows;
  for (size_t u = 0; u < study.units().size(); ++u) {
    const Unit& unit = study.units()[u];
    const auto option = static_cast<size_t>(chosen.choice[u]);
    Report::Row row{
        unit.name,
        {{"bytes", static_cast<double>(unit.bytes[option]), "bytes", 0},
         {"bits_per_weight", 8 * static_cast<double>(unit.bytes[option]) / static_cast<double>(unit.weights),
          "bits", 0}}};
    if (!r.sensitivity.kl.empty()) {
      row.metrics.push_back({"sensitivity", r.sensitivity.kl[u], "nats/token", 0});
      row.metrics.push_back({"predicted_kl", r.sensitivity.cost[u][option], "nats/token", 0});
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Metric> totals(const SearchResult& r) {
  const Trial& t = r.trials[r.chosen];
  const Quality& q = *t.held_out;
  return {{"bytes", static_cast<double>(t.bytes), "bytes", 0},
          {"bits_per_weight", t.bits_per_weight, "bits", 0},
          {"memory_bytes", static_cast<double>(t.memory_bytes), "bytes", 0},
          {"perplexity", q.perplexity, "", q.perplexity_stderr},
          {"perplexity_increase", increase_percent(t, r.trials[0]), "%", 0},
          {"kl_mean", q.kl_mean, "nats/token", q.kl_stderr},
          {"kl_p99", q.kl_p99, "nats/token", 0},
          {"top1_agreement", q.top1_agreement, "", 0},
          {"prefill_tokens_per_s", t.speed->prefill_tokens_per_s, "tokens/s", 0},
          {"decode_tokens_per_s", t.speed->decode_tokens_per_s, "tokens/s", 0},
          {"ttft_ms", t.speed->ttft_ms, "ms", 0}};
}

std::string selection_note(const SearchResult& r) {
  return fmt::format(
      "Candidates were compared on the calibration text alone. The held-out text gave the verdict on {} "
      "candidate{} (pass or "
      "fail against the limits, by point estimate) and, after the choice was made, the figures of those "
      "shown beside it.",
      r.verdicts.size(), r.verdicts.size() == 1 ? "" : "s, the first that passed being chosen");
}

}  // namespace

std::string headline(const SearchResult& r) {
  const Trial& base = r.trials[0];
  const Trial& t = r.trials[r.chosen];
  if (r.met)
    return fmt::format(
        "{} instead of {} ({:.1f} % of it, {:.2f} bits per weight), perplexity {:+.2f} %, KL {:.4g}",
        format_bytes(static_cast<double>(t.bytes)), format_bytes(static_cast<double>(base.bytes)),
        100 * static_cast<double>(t.bytes) / static_cast<double>(base.bytes), t.bits_per_weight,
        increase_percent(t, base), t.held_out->kl_mean);
  std::vector<std::string> failures;
  for (const Bound& b : r.bounds)
    if (!b.met()) failures.push_back(describe(b));
  return fmt::format("the limits were not met; the nearest candidate is {}: {}", t.name,
                     fmt::join(failures, "; "));
}

Json make_report(Study& study, const SearchResult& r, const Constraints& constraints,
                 const ReportContext& context) {
  const Trial& chosen = r.trials[r.chosen];
  Report report;
  report.subject = fmt::format("{} -> {}", context.source_hash, context.result_hash);
  report.provenance = {
      {"model", context.model},
      {"source_hash", context.source_hash},
      {"result_hash", context.result_hash},
      {"machine", describe_machine(study.options().target.threads, study.options().target.isa)},
      {"calibration", text_json(context.calibration)},
      {"held_out", text_json(context.held_out)},
      {"split_of_one_file", context.split},
      {"study", study.key()},
      {"resumed_trials", study.resumed()},
      {"candidates_ever_scored_on_held_out", study.held_out_reads()},
      {"seconds", context.seconds}};
  report.totals = totals(r);
  report.nodes = unit_rows(study, r);
  Json json = to_json(report);

  for (size_t u = 0; u < study.units().size(); ++u) {
    const Unit& unit = study.units()[u];
    const int format = unit.formats[static_cast<size_t>(chosen.choice[u])];
    Json& node = json["nodes"][u];
    node["format"] = format == 0 ? to_string(study.base().weights.at(unit.params[0]).numerics)
                                 : study.menu()[static_cast<size_t>(format)].name;
    node["weights"] = unit.weights;
    node["params"] = unit.params;
  }

  Json bounds = Json::array();
  for (const Bound& b : r.bounds) bounds.push_back(to_json(b));
  Json trials = Json::array();
  for (size_t i = 0; i < r.trials.size(); ++i) trials.push_back(to_json(r, i));

  std::string note = selection_note(r);
  if (constraints.bounds_speed())
    note += " Speeds vary from run to run: with a limit on speed, another run may choose another candidate.";
  json["verdict"] = {{"met", r.met},         {"headline", headline(r)}, {"goal", r.goal},
                     {"stopped", r.stopped}, {"selection", note},       {"verdicts_on_held_out", r.verdicts}};
  json["constraints"] = std::move(bounds);
  json["base"] = trials[0];
  json["chosen"] = trials[r.chosen];
  json["uniform_check"] = compare_with_uniform(r);
  json["trials"] = std::move(trials);
  json["kernels"] = kernel_summary(study, chosen.choice);
  json["reproduce"] = fmt::format("lathe run {}/lathe/recipe.yaml -o DIRECTORY", context.output);
  return json;
}

std::string terminal_table(const SearchResult& r) {
  std::string out = fmt::format("{:<26} {:>10} {:>6} {:>18} {:>9} {:>8} {:>7} {:>7} {:>9} {:>8}\n",
                                "on the held-out text", "bytes", "bits", "perplexity", "KL mean", "KL p99",
                                "top-1", "rise", "prefill/s", "decode/s");
  const auto row = [&](const Trial& t, std::string name) {
    if (!t.held_out || !t.speed) return;
    const Quality& q = *t.held_out;
    const bool base = t.kind == Trial::Kind::base;
    out += fmt::format(
        "{:<26} {:>10} {:>6.3f} {:>9.3f} +- {:<5.3f} {:>9.5f} {:>8.4f} {:>6.2f}% {:>7} {:>9.0f} {:>8.0f}\n",
        name, format_bytes(static_cast<double>(t.bytes)), t.bits_per_weight, q.perplexity,
        q.perplexity_stderr, q.kl_mean, q.kl_p99, 100 * q.top1_agreement,
        base ? "" : fmt::format("{:+.2f}%", increase_percent(t, r.trials[0])), t.speed->prefill_tokens_per_s,
        t.speed->decode_tokens_per_s);
  };
  row(r.trials[0], "base");
  for (size_t i = 0; i < r.trials.size(); ++i)
    if (r.trials[i].kind == Trial::Kind::uniform && i != r.chosen) row(r.trials[i], r.trials[i].name);
  row(r.trials[r.chosen], "chosen: " + r.trials[r.chosen].name);

  const Json check = compare_with_uniform(r);
  const auto count = [&](const char* key) { return check[key].get<int64_t>(); };
  out += fmt::format(
      "\nuniform formats of equal or fewer bytes: {}, with a higher KL than the chosen one: {}\n"
      "uniform formats beaten by a mixture of no more bytes and lower KL: {} of {} (both on the calibration "
      "text)\n",
      count("uniform_of_equal_or_fewer_bytes"), count("of_those_with_higher_kl"),
      count("uniform_dominated_by_a_mixture"), check["rows"].size());
  for (const Bound& b : r.bounds)
    out += fmt::format("{} {}\n", b.met() ? "met:    " : "FAILED: ", describe(b));
  out += fmt::format("stopped: {}\n", r.stopped);
  return out;
}

}  // namespace lathe
