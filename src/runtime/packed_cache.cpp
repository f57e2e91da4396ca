#include "runtime/packed_cache.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cache_directory.h"
#include "core/checksum.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/log.h"

namespace lathe {
namespace {

// Raised whenever a packing lays out its bytes differently; the magic, whenever this file does.
constexpr int64_t layout = 1;
constexpr std::string_view magic = "lathepk2";
constexpr size_t weight_alignment = 4096, part_alignment = 64, most_header = size_t{64} << 20;
constexpr size_t checksum_digits = 32, fixed_bytes = magic.size() + sizeof(uint64_t) + checksum_digits;
constexpr std::string_view suffix = ".packed";

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
size_t data_begin(size_t header) { return round_up(fixed_bytes + header, weight_alignment); }

// The parts of a weight follow each other: nothing about them needs to be stored.
size_t bytes_together(const Weight& w) {
  size_t bytes = 0;
  for (const Part& part : w.packing->parts(w.numerics, w.shape))
    bytes += round_up(static_cast<size_t>(elements(part.shape)) * dtype_bytes(part.dtype), part_alignment);
  return bytes;
}

// What the bytes of a file depend on, besides the source.
Json describe(const Weight& w) {
  return {{"packing", w.packing->name},
          {"numerics", to_string(w.numerics)},
          {"dtype", dtype_name(w.numerics.dtype)},
          {"shape", w.shape}};
}

template <class Weights>
Json key_of(const PackedCache& cache, const Weights& weights) {
  Json formats = Json::object();
  for (const auto& [name, weight] : weights) formats[name] = describe(weight);
  return {{"layout", layout},
          {"machine",
           cache.machine.empty() ? cpu_model() + ", " + describe_features(cpu_features()) : cache.machine},
          {"source", cache.source},
          {"weights", std::move(formats)}};
}

// The same source in other packings (LATHE_ISA) is another file beside.
fs::path path_of(const PackedCache& cache, const Json& key) {
  return cache.folder /
         fmt::format("{}-{}{}", sha256(cache.source).substr(0, 16), sha256(key.dump()).substr(0, 16), suffix);
}

struct Place {
  size_t offset, bytes;
  std::string sum;
};

// InputError where the file is not whole, or not what its name says.
std::map<std::string, Weight> view(const fs::path& path, const Json& key, const WantedWeights& wanted,
                                   ThreadPool& pool) {
  const Mapping file(path);
  const auto bytes = file.bytes();
  const auto broken = [&](const std::string& expected) {
    return input_error(path.string(), expected, fmt::format("{} bytes that differ", bytes.size()));
  };
  uint64_t length = 0;
  if (bytes.size() < fixed_bytes || std::memcmp(bytes.data(), magic.data(), magic.size()) != 0)
    throw broken("packed weights");
  std::memcpy(&length, bytes.data() + magic.size(), sizeof length);
  const std::string_view sum = file.text().substr(fixed_bytes - checksum_digits, checksum_digits);
  if (length > std::min(bytes.size() - fixed_bytes, most_header) ||
      checksum(bytes.subspan(fixed_bytes, length)) != sum)
    throw broken("a whole header");
  const Json header = parse_json(file.text().substr(fixed_bytes, length), path.string());
  if (!header.is_object() || header.value("key", Json()) != key) throw broken("packed weights of this model");
  const Json places = header.value("places", Json::object());

  const size_t begin = data_begin(length), data = bytes.size() - std::min(bytes.size(), begin);

  std::map<std::string, Weight> out;
  std::vector<Place> checks;
  for (const auto& [name, want] : wanted) {
    const auto found = places.find(name);
    if (found == places.end()) throw broken("weight '" + printable(name) + "'");
    const auto number = [&](const char* what) {
      return static_cast<uint64_t>(get_int(*found, what, path.string(), 0, INT64_MAX));
    };
    Place place{number("offset"), bytes_together(want), get_string(*found, "checksum", path.string())};
    if (place.offset % weight_alignment != 0 || place.offset > data || place.bytes > data - place.offset)
      throw broken("all of weight '" + printable(name) + "'");
    place.offset += begin;
    checks.push_back(place);
    Weight weight{want.numerics, want.packing, want.shape, {}};
    size_t at = place.offset;
    for (Part& part : want.packing->parts(want.numerics, want.shape)) {
      Tensor tensor{{}, part.dtype, std::move(part.shape)};
      tensor.storage = file.view(at, tensor.bytes());
      at += round_up(tensor.bytes(), part_alignment);
      weight.parts.push_back(std::move(tensor));
    }
    out.emplace(name, std::move(weight));
  }
  std::atomic<bool> whole{true};
  for_each_item(pool, std::ssize(checks), [&](int64_t i) {
    const Place& place = checks[static_cast<size_t>(i)];
    if (checksum(bytes.subspan(place.offset, place.bytes)) != place.sum) whole = false;
  });
  if (!whole) throw broken("the bytes that were written");
  return out;
}

void write(const fs::path& path, const Json& key, const std::map<std::string, Weight>& weights) {
  std::vector<std::byte> together;
  const auto join = [&](const Weight& w) {
    together.assign(round_up(bytes_together(w), weight_alignment), std::byte{0});
    size_t at = 0;
    for (const Tensor& part : w.parts) {
      std::memcpy(together.data() + at, part.storage.data, part.bytes());
      at += round_up(part.bytes(), part_alignment);
    }
  };
  Json places = Json::object();
  size_t end = 0;
  for (const auto& [name, weight] : weights) {
    join(weight);
    places[name] = {{"offset", end}, {"checksum", checksum({together.data(), bytes_together(weight)})}};
    end += together.size();
  }
  std::string header = Json{{"key", key}, {"places", std::move(places)}}.dump();
  header.resize(data_begin(header.size()) - fixed_bytes, ' ');
  const uint64_t length = header.size();

  AtomicFile file(path);
  {  // Not synced to the disk: what a crash cuts short, the checksums tell.
    FileWriter out(file.path());
    out.write(magic);
    out.write(&length, sizeof length);
    out.write(checksum(std::as_bytes(std::span(header))));
    out.write(header);
    for (const auto& [name, weight] : weights) {
      join(weight);
      out.write(together.data(), together.size());
    }
  }
  file.commit();
}

}  // namespace

std::string identity_of(const fs::path& model) {
  std::vector<fs::path> files;
  std::error_code error;
  if (fs::is_directory(model, error)) {
    for (const auto& entry : fs::directory_iterator(model, error))
      if (entry.is_regular_file(error)) files.push_back(entry.path());
  } else {
    files.push_back(model);
  }
  std::sort(files.begin(), files.end());
  std::string out;
  for (const fs::path& file : files) {
    struct stat s {};
    if (::stat(file.c_str(), &s) != 0) return {};
    out += fmt::format("{} {} {}.{:09} {}.{:09} {}\n", file.filename().string(), s.st_size, s.st_mtim.tv_sec,
                       s.st_mtim.tv_nsec, s.st_ctim.tv_sec, s.st_ctim.tv_nsec, s.st_ino);
  }
  return error ? std::string() : out;
}

fs::path packed_cache_folder(const fs::path& model) {
  std::error_code ignored;
  if (fs::is_directory(model, ignored) && ::access(model.c_str(), W_OK) == 0)
    return model / "lathe" / "packed";
  const fs::path cache = cache_directory();
  return cache.empty() ? cache : cache / "packed";
}

std::optional<std::map<std::string, Weight>> read_packed(const PackedCache& cache,
                                                         const WantedWeights& wanted, ThreadPool& pool) {
  if (cache.folder.empty() || cache.source.empty() || wanted.empty()) return std::nullopt;
  const Json key = key_of(cache, wanted);
  const fs::path path = path_of(cache, key);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  try {
    return view(path, key, wanted, pool);
  } catch (const std::exception& e) {
    warn("{}; packing the weights again", printable(e.what(), 300));
    return std::nullopt;
  }
}

void write_packed(const PackedCache& cache, const std::map<std::string, Weight>& weights) {
  if (cache.folder.empty() || cache.source.empty() || weights.empty()) return;
  const Json key = key_of(cache, weights);
  const fs::path path = path_of(cache, key);
  try {
    write(path, key, weights);
    // In a model's own folder, files of other weights than its present ones are of no use to anyone.
    if (cache.folder.parent_path().filename() != "lathe") return;
    const std::string present = sha256(cache.source).substr(0, 16);
    for (const auto& entry : fs::directory_iterator(cache.folder))
      if (const std::string name = entry.path().filename().string();
          name.ends_with(suffix) && !name.starts_with(present))
        fs::remove(entry.path());
  } catch (const std::exception& e) {
    warn("{}; packed weights are not kept", printable(e.what(), 300));
  }
}

}  // namespace lathe
