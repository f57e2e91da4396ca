#include "cli/bench_serve_load.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "core/rng.h"

namespace lathe {
namespace {

constexpr int64_t synthetic_requests = 100, synthetic_input = 256, synthetic_output = 128;
constexpr std::string_view azure_header = "TIMESTAMP,ContextTokens,GeneratedTokens";
constexpr uint64_t shared_stream = 1, block_streams = uint64_t{1} << 40, request_streams = uint64_t{1} << 41;

// "2023-11-16 18:15:46.6805900", in seconds since 1970; negative: it is something else.
double seconds_of(const std::string& stamp) {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  double second = 0;
  if (std::sscanf(stamp.c_str(), "%d-%d-%d %d:%d:%lf", &year, &month, &day, &hour, &minute, &second) != 6)
    return -1;
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return -1;
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return static_cast<double>(days) * 86400 + hour * 3600 + minute * 60 + second;
}

Arrival azure_arrival(const std::string& line, const std::string& where) {
  const size_t a = line.find(','), b = line.find(',', a + 1);
  Arrival x;
  x.at = a == std::string::npos ? -1 : seconds_of(line.substr(0, a));
  const auto number = [&](size_t from, size_t to, int64_t& n) {
    const char* end = line.data() + to;
    return std::from_chars(line.data() + from, end, n).ptr == end;
  };
  if (x.at < 0 || b == std::string::npos || !number(a + 1, b, x.input_tokens) ||
      !number(b + 1, line.size(), x.output_tokens))
    throw input_error(where, "a time and two numbers of tokens", printable(line));
  return x;
}

Arrival mooncake_arrival(const std::string& line, const std::string& where) {
  const Json j = parse_json(line, where);
  Arrival x;
  x.at = get_number(j, "timestamp", where) * 1e-3;
  x.input_tokens = get_int(j, "input_length", where, 0, INT32_MAX);
  x.output_tokens = get_int(j, "output_length", where, 0, INT32_MAX);
  if (const auto it = j.find("hash_ids"); it != j.end()) {
    if (!it->is_array()) throw input_error(where + ": hash_ids", "a list", it->type_name());
    for (const Json& id : *it) {
      if (!id.is_number_integer()) throw input_error(where + ": hash_ids", "integers", id.type_name());
      x.blocks.push_back(id.get<int64_t>());
    }
  }
  return x;
}

}  // namespace

std::vector<Arrival> synthetic_arrivals(const LoadOptions& o) {
  Rng random(o.seed);
  std::vector<Arrival> all(static_cast<size_t>(o.requests > 0 ? o.requests : synthetic_requests));
  double at = 0;
  for (Arrival& a : all) {
    a.at = at;
    a.input_tokens = o.input_tokens > 0 ? o.input_tokens : synthetic_input;
    a.output_tokens = o.output_tokens > 0 ? o.output_tokens : synthetic_output;
    if (o.rate > 0) at += -std::log(1 - random.uniform()) / o.rate;
  }
  return all;
}

std::vector<Arrival> trace_arrivals(const fs::path& path, const LoadOptions& o, double speedup) {
  std::ifstream in(path);
  if (!in) throw input_error(path.string(), "a readable trace", "none");
  std::vector<Arrival> all;
  std::string line;
  bool azure = false;
  const auto bound = [](int64_t asked) { return asked > 0 ? asked : INT64_MAX; };
  for (int64_t n = 1; static_cast<int64_t>(all.size()) < bound(o.requests) && std::getline(in, line); ++n) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    if (n == 1 && line == azure_header) {
      azure = true;
      continue;
    }
    const std::string where = fmt::format("{}:{}", path.string(), n);
    all.push_back(azure ? azure_arrival(line, where) : mooncake_arrival(line, where));
  }
  if (all.empty()) throw input_error(path.string(), "at least one request", "none");
  std::ranges::stable_sort(all, {}, &Arrival::at);
  const double start = all[0].at;
  for (Arrival& a : all) {
    a.at = (a.at - start) / speedup;
    a.input_tokens = std::clamp<int64_t>(a.input_tokens, 1, bound(o.input_tokens));
    a.output_tokens = std::clamp<int64_t>(a.output_tokens, 1, bound(o.output_tokens));
  }
  return all;
}

Prompts::Prompts(uint64_t seed, int64_t vocab, int64_t shared, std::string text)
    : seed_(seed), vocab_(vocab), shared_(shared), text_(std::move(text)) {
  if (vocab_ <= first_id)
    throw input_error("--vocab", fmt::format("more than {}", first_id), std::to_string(vocab_));
}

void Prompts::append_ids(std::vector<int32_t>& ids, uint64_t stream, int64_t count) const {
  Rng random(Rng(seed_ + stream).next());
  const auto range = static_cast<uint64_t>(vocab_ - first_id);
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>(first_id + static_cast<int64_t>(random.below(range))));
}

// Whole characters: neither end is inside one.
std::string Prompts::slice(uint64_t stream, int64_t tokens) const {
  const auto length = std::min(text_.size(), static_cast<size_t>(tokens * bytes_per_token));
  const auto inside = [&](size_t i) { return i < text_.size() && (text_[i] & 0xc0) == 0x80; };
  size_t begin = Rng(Rng(seed_ + stream).next()).below(text_.size() - length + 1), end = begin + length;
  while (inside(begin)) ++begin;
  while (inside(end)) ++end;
  return text_.substr(begin, end - begin);
}

Json Prompts::prompt(size_t index, const Arrival& a) const {
  const int64_t shared = std::min(shared_, a.input_tokens), own = a.input_tokens - shared;
  if (!text_.empty())
    return (shared > 0 ? slice(shared_stream, shared) : "") + slice(request_streams + index, own);
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(a.input_tokens));
  append_ids(ids, shared_stream, shared);
  for (const int64_t block : a.blocks) {
    const int64_t room = a.input_tokens - static_cast<int64_t>(ids.size());
    append_ids(ids, block_streams + static_cast<uint64_t>(block), std::min(room, trace_block_tokens));
  }
  append_ids(ids, request_streams + index, a.input_tokens - static_cast<int64_t>(ids.size()));
  return ids;
}

}  // namespace lathe
