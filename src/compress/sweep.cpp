#include "compress/sweep.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fcntl.h>
#include <numeric>
#include <set>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

#include "compress/linalg.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "graph/cost.h"
#include "io/writer.h"
#include "runtime/interpreter.h"

namespace lathe {
namespace {

constexpr int64_t chunk_rows =
    2048;  // tokens that run at once: activations between two layers stay near a cache

// Bytes in an unlinked file of `directory`: pages that memory has no room for go to the disk.
Storage allocate_in_file(const fs::path& directory, size_t bytes) {
  fs::create_directories(directory);
  std::string name = (directory / "activations-XXXXXX").string();
  const int fd = ::mkstemp(name.data());
  if (fd < 0) fail("{}: cannot be created", name);
  ::unlink(name.c_str());
  // Not ftruncate: a page that finds no room on the disk would end the process.
  int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  void* data = MAP_FAILED;
  if (error == 0) {
    data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    error = errno;
  }
  ::close(fd);
  if (data == MAP_FAILED)
    throw input_error(directory.string(),
                      fmt::format("room for {:.0f} MB of activations", static_cast<double>(bytes) / 1e6),
                      std::generic_category().message(error), "free some, or calibrate on fewer tokens");
  return {static_cast<std::byte*>(data), bytes, std::shared_ptr<const void>(data, [bytes](const void* p) {
            ::munmap(const_cast<void*>(p), bytes);
          })};
}

// A run of nodes of one block, or of what lies before, between or after the blocks: positions in the order.
struct Section {
  size_t begin = 0, end = 0;
  int block = -1;
};

// The graph seen as a sequence: where each value is made and last read, where each group of layers begins.
struct Outline {
  explicit Outline(const Graph& g)
      : graph(g), order(g.order().begin(), g.order().end()), groups(input_groups(g)) {
    std::map<NodeId, size_t> position;
    for (size_t i = 0; i < order.size(); ++i) {
      const Node& node = g.node(order[i]);
      position[order[i]] = i;
      for (const ValueId v : node.inputs)
        if (v != g.tokens()) last_read[v] = i;
      for (const ValueId v : node.outputs) made[v] = i;
      if (sections.empty() || sections.back().block != node.block) sections.push_back({i, i, node.block});
      sections.back().end = i + 1;
    }
    for (const InputGroup& group : groups) starts.push_back(position.at(group.nodes[0]));
  }
  // Values that a walk standing before `position` has to keep.
  std::vector<ValueId> live(size_t position) const {
    std::vector<ValueId> values;
    for (const auto& [v, at] : made)
      if (at < position && last_read.contains(v) && last_read.at(v) >= position) values.push_back(v);
    return values;
  }
  std::span<const NodeId> nodes(size_t begin, size_t end) const {
    return std::span(order).subspan(begin, end - begin);
  }
  std::vector<size_t> groups_in(const Section& s) const {
    std::vector<size_t> in;
    for (size_t i = 0; i < groups.size(); ++i)
      if (starts[i] >= s.begin && starts[i] < s.end) in.push_back(i);
    return in;
  }

  const Graph& graph;
  std::vector<NodeId> order;
  std::vector<InputGroup> groups;
  std::vector<size_t> starts;  // of each group: the position of its first layer
  std::map<ValueId, size_t> made, last_read;
  std::vector<Section> sections;
};

using Held = std::map<ValueId, Tensor>;

// All sequences through a range of nodes, from what is held before it to what must be held after it.
class Walk {
 public:
  Walk(const Model& model, const Outline& outline, std::span<const int32_t> tokens, const SweepOptions& o,
       int threads)
      : outline_(outline), tokens_(tokens), options_(o), walker_(model, o.isa, threads) {
    positions_.resize(tokens.size());
    for (size_t i = 0; i < positions_.size(); ++i)
      positions_[i] = static_cast<int32_t>(static_cast<int64_t>(i) % o.context);
  }

  // Calls after(first row, rows, values) for each chunk once its nodes have run. What an expert computes has
  // room for all rows, and fewer.
  template <class After>
  void run(size_t begin, size_t end, Held& held, After after) {
    const std::vector<ValueId> keep = outline_.live(end);
    Held next;
    for (const ValueId v : keep) next[v] = held.contains(v) ? held.at(v) : allocate(v);
    const int64_t total = std::ssize(tokens_),
                  sequences = std::max<int64_t>(1, chunk_rows / options_.context);
    Walker::Values values;
    for (int64_t first = 0; first < total; first += sequences * options_.context) {
      const int64_t rows = std::min(sequences * options_.context, total - first);
      for (auto& [v, whole] : held) values[v] = rows_of(whole, first, seen(v, first, rows));
      if (begin < end) walker_.run(batch(first, rows), outline_.nodes(begin, end), values);
      for (const ValueId v : keep)
        if (!held.contains(v)) {
          if (outline_.graph.value(v).taken >= 0) seen_[{v, first}] = values.at(v).shape[0];
          copy(values.at(v), next.at(v), first);
        }
      after(first, rows, values);
    }
    walker_.forget();  // weights are about to change
    held = std::move(next);
  }

 private:
  int64_t seen(ValueId v, int64_t first, int64_t rows) const {
    return outline_.graph.value(v).taken < 0 ? rows : seen_.at({v, first});
  }
  static Tensor rows_of(Tensor& whole, int64_t first, int64_t rows) {
    Tensor part = whole;
    const size_t row = static_cast<size_t>(whole.cols()) * sizeof(float);
    part.storage.data += static_cast<size_t>(first) * row;
    part.storage.bytes = static_cast<size_t>(rows) * row;
    part.shape[0] = rows;
    return part;
  }
  static void copy(const Tensor& from, Tensor& to, int64_t first) {
    std::copy_n(from.storage.data, from.bytes(),
                to.storage.data + static_cast<size_t>(first * to.cols()) * sizeof(float));
  }
  // What nothing holds any more is taken again: fresh pages cost a tenth of the time that filling them does.
  Tensor allocate(ValueId v) {
    const Shape shape = {std::ssize(tokens_), outline_.graph.value(v).cols};
    const size_t bytes = static_cast<size_t>(elements(shape)) * sizeof(float);
    for (const Storage& s : storages_)
      if (s.bytes == bytes && s.keep.use_count() == 1) return {s, DType::f32, shape};
    const bool in_memory = in_memory_ + bytes <= options_.memory || options_.work.empty();
    if (in_memory) in_memory_ += bytes;
    storages_.push_back(in_memory ? Storage::allocate(bytes) : allocate_in_file(options_.work, bytes));
    return {storages_.back(), DType::f32, shape};
  }
  Batch batch(int64_t first, int64_t rows) {
    starts_.clear();
    for (int64_t r = 0; r <= rows; r += options_.context) starts_.push_back(static_cast<int32_t>(r));
    outputs_.resize(static_cast<size_t>(rows));
    std::iota(outputs_.begin(), outputs_.end(), 0);
    const auto at = static_cast<size_t>(first), n = static_cast<size_t>(rows);
    return {.tokens = tokens_.subspan(at, n),
            .positions = std::span<const int32_t>(positions_).subspan(at, n),
            .starts = starts_,
            .slots = {},
            .outputs = outputs_,
            .prompts = std::ssize(starts_) - 1};
  }

  const Outline& outline_;
  std::span<const int32_t> tokens_;
  const SweepOptions& options_;
  Walker walker_;
  std::vector<int32_t> positions_, starts_, outputs_;
  std::map<std::pair<ValueId, int64_t>, int64_t> seen_;  // rows of what an expert computes, by chunk
  std::vector<Storage> storages_;  // of activations: so many of a size as were held at one time
  size_t in_memory_ = 0;           // bytes of them that lie in no file
};

// ---- finished blocks

constexpr const char *fingerprint = "lathe/fingerprint", *notes = "lathe/notes";

fs::path block_path(const SweepOptions& o, int block) { return o.work / fmt::format("block-{:04}", block); }

bool changed(const Weight& now, const Weight& before) {
  return now.parts[0].storage.data != before.parts[0].storage.data;
}

// The mark of a whole block: whose it is, and what its files must still be.
std::string mark_of(const fs::path& block, const SweepOptions& o) {
  std::set<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(block))
    if (entry.is_regular_file() && entry.path() != block / fingerprint) files.insert(entry.path());
  std::string mark = o.fingerprint + "\n";
  for (const fs::path& file : files)
    mark += fmt::format("{} {}\n", file.lexically_relative(block).string(), checksum(Mapping(file).bytes()));
  return mark;
}

// The weights of a finished block, mapped: all or none.
void map_block(Model& model, const fs::path& path) {
  const Checkpoint saved = Checkpoint::open(path);
  std::map<std::string, Weight> weights;
  for (const Entry& entry : saved.entries()) {
    const auto weight = model.weights.find(entry.name);
    if (weight == model.weights.end() || weight->second.shape != entry.shape)
      throw input_error(path.string(), "weights of this model", printable(entry.name));
    weights.emplace(entry.name, saved.load(entry.name));
  }
  for (auto& [name, weight] : weights) model.weights.at(name) = std::move(weight);
}

void save_block(Model& model, const Model& original, std::span<const NodeId> nodes, const SweepOptions& o,
                int block) {
  std::set<std::string> params;
  for (const NodeId id : nodes)
    for (const std::string& p : model.graph.node(id).params)
      if (changed(model.weights.at(p), original.weights.at(p))) params.insert(p);
  std::vector<PlannedEntry> entries;
  for (const std::string& p : params) {
    const Weight& w = model.weights.at(p);
    entries.push_back({p, w.numerics, w.packing, w.shape});
  }
  // All of `work` is the sweep's.
  AtomicDirectory directory(block_path(o, block), [](const fs::path&) { return true; });
  CheckpointWriter writer(directory.path(), model.config, entries);
  for (const std::string& p : params) writer.write(model.weights.at(p));
  writer.finish();
  fs::create_directories((directory.path() / fingerprint).parent_path());
  if (o.notes) write_file_atomically(directory.path() / notes, o.notes());
  write_file_atomically(directory.path() / fingerprint, mark_of(directory.path(), o));
  directory.commit();
  map_block(model, block_path(o, block));  // from now on it is a mapping, not memory
}

// Whether an earlier run finished the block, and it is still what that run wrote.
bool load_block(Model& model, const SweepOptions& o, int block) {
  const fs::path path = block_path(o, block), mark = path / fingerprint;
  try {
    if (!fs::exists(mark)) return false;
    const Mapping written(mark);
    if (!written.text().starts_with(o.fingerprint + "\n")) return false;
    if (written.text() != mark_of(path, o)) fail("its files are not those that were written");
    map_block(model, path);
    if (o.recall) o.recall(Mapping(path / notes).text());
    return true;
  } catch (const std::exception& error) {
    warn("{}: computed again: {}", path.string(), error.what());
    return false;
  }
}

bool resumable(const SweepOptions& o) { return !o.work.empty() && !o.fingerprint.empty(); }

void divide_rows(std::span<float> x, const std::vector<float>& divisors) {
  for (size_t i = 0; i < x.size(); ++i) x[i] /= divisors[i % divisors.size()];
}

// --- how much there is to do

int64_t megaflops(const Graph& g, std::span<const NodeId> nodes, int64_t tokens) {
  double flops = 1e6;
  for (const NodeId id : nodes)
    if (std::holds_alternative<op::Linear>(g.node(id).op))
      flops += 2.0 * static_cast<double>(tokens) * share_of_rows(g, g.node(id).inputs[0]) *
               static_cast<double>(g.value(g.node(id).inputs[0]).cols) *
               static_cast<double>(g.value(g.node(id).outputs[0]).cols);
  return static_cast<int64_t>(flops / 1e6);
}

// Of the statistics of an input, and of what is made of a Hessian.
int64_t megaflops(int64_t cols, int64_t tokens, const Wanted& wanted) {
  const double k = static_cast<double>(cols), t = static_cast<double>(tokens);
  return static_cast<int64_t>(((wanted.hessian ? t + k : 0) + (wanted.cross ? 2 * t : 0)) * k * k / 1e6);
}

bool any_wants(const std::vector<SweepPass>& passes, bool Wanted::*what) {
  return std::ranges::any_of(passes, [&](const SweepPass& p) { return p.wanted.*what; });
}

}  // namespace

void InputStats::add(ThreadPool& pool, const float* x, const float* original, int64_t first, int64_t count,
                     int64_t total, const Wanted& wanted) {
  const auto k = static_cast<size_t>(cols);
  if (mean.empty()) {
    for (auto* v : {&mean, &mean_abs, &mean_square, &abs_max}) v->assign(k, 0);
    if (wanted.hessian) hessian.assign(k * k, 0);
    if (wanted.cross) cross.assign(k * k, 0);
  }
  constexpr int64_t strip = 64;  // columns
  for_each_item(pool, (cols + strip - 1) / strip, [&](int64_t item) {
    const int64_t begin = item * strip, n = std::min(strip, cols - begin);
    double sum[strip] = {}, sum_abs[strip] = {}, squares[strip] = {};
    for (int64_t r = 0; r < count; ++r) {
      const float* row = x + r * cols + begin;
      for (int64_t c = 0; c < n; ++c) {
        const double v = static_cast<double>(row[c]);
        sum[c] += v;
        sum_abs[c] += std::abs(v);
        squares[c] += v * v;
        float& most = abs_max[static_cast<size_t>(begin + c)];
        most = std::max(most, std::abs(row[c]));
      }
    }
    for (int64_t c = 0; c < n; ++c) {
      const auto at = static_cast<size_t>(begin + c);
      mean[at] += static_cast<float>(sum[c]);
      mean_abs[at] += static_cast<float>(sum_abs[c]);
      mean_square[at] += static_cast<float>(squares[c]);
    }
  });
  if (wanted.hessian) add_gram(pool, x, count, cols, hessian.data());
  if (wanted.cross) {
    std::vector<float> moved(static_cast<size_t>(count * cols));
    for (size_t i = 0; i < moved.size(); ++i) moved[i] = original[i] - x[i];
    add_cross(pool, moved.data(), x, count, cols, cross.data());
  }
  if (wanted.magnitudes) magnitudes.add(pool, x, first, count, cols);
  if (wanted.sample) {
    const int64_t step = std::max<int64_t>(1, total / most_sample_rows);
    for (int64_t r = (step - first % step) % step; r < count && sample_rows < most_sample_rows; r += step) {
      sample.insert(sample.end(), x + r * cols, x + (r + 1) * cols);
      ++sample_rows;
    }
  }
  rows += count;
}

void InputStats::finish(ThreadPool& pool) {
  const float scale = rows > 0 ? 1 / static_cast<float>(rows) : 0;
  for (auto* sums : {&mean, &mean_abs, &mean_square})
    for (float& v : *sums) v *= scale;
  for (auto* matrix : {&hessian, &cross})
    if (!matrix->empty())
      for_each_item(pool, cols, [&](int64_t row) {
        for (int64_t c = row * cols; c < (row + 1) * cols; ++c) (*matrix)[static_cast<size_t>(c)] *= scale;
      });
  if (!hessian.empty()) mirror_upper(pool, hessian.data(), cols);
}

void InputStats::divide_columns(std::span<const float> s) {
  if (!magnitudes.counts.empty()) fail("magnitudes of x do not say those of x / s");
  for (size_t c = 0; c < s.size(); ++c) {
    const float by = 1 / s[c];
    for (auto* v : {&mean, &mean_abs, &abs_max}) (*v)[c] *= by;
    mean_square[c] *= by * by;
  }
  for (auto* m : {&hessian, &cross})
    for (size_t i = 0; i < m->size(); ++i) (*m)[i] /= s[i / s.size()] * s[i % s.size()];
  for (size_t i = 0; i < sample.size(); ++i) sample[i] /= s[i % s.size()];
}

SweepReport forecast(const Model& model, int64_t tokens, const std::vector<SweepPass>& passes) {
  const Outline outline(model.graph);
  SweepReport report{.tokens = tokens};
  std::vector<size_t> cuts = outline.starts;
  for (const Section& s : outline.sections) cuts.push_back(s.end);
  std::ranges::sort(cuts);
  size_t before = 0;
  for (const size_t cut : cuts) {
    size_t after = 0;
    for (const ValueId v : outline.live(cut))
      after += static_cast<size_t>(tokens * model.graph.value(v).cols) * sizeof(float);
    report.activation_bytes = std::max(report.activation_bytes, before + after);
    before = after;
  }
  const size_t matrices = static_cast<size_t>(any_wants(passes, &Wanted::hessian)) +
                          static_cast<size_t>(any_wants(passes, &Wanted::cross));
  if (any_wants(passes, &Wanted::cross)) report.activation_bytes *= 2;
  for (const InputGroup& group : outline.groups) {
    if (!std::ranges::any_of(passes, [&](const SweepPass& p) { return p.takes(group); })) continue;
    const auto k = static_cast<size_t>(model.graph.value(group.input).cols);
    report.statistics_bytes = std::max(report.statistics_bytes, matrices * k * k * sizeof(float));
  }
  return report;
}

SweepReport sweep(Model& model, std::span<const int32_t> tokens, const std::vector<SweepPass>& passes,
                  const SweepOptions& options) {
  const int64_t usable = std::ssize(tokens) / options.context * options.context;
  if (usable == 0)
    throw input_error("calibration text", fmt::format("at least {} tokens", options.context),
                      std::to_string(tokens.size()), "give more text");
  tokens = tokens.first(static_cast<size_t>(usable));
  const int threads = options.threads > 0 ? options.threads : physical_cores();
  const Outline outline(model.graph);
  const Graph& graph = model.graph;
  SweepReport report = forecast(model, usable, passes);

  const Model original = model;  // views of the same bytes
  const bool twice = any_wants(passes, &Wanted::cross);
  ThreadPool pool(threads);
  Walk walk(model, outline, tokens, options, threads);
  Walk other(original, outline, tokens, options, threads);
  Held held, held_other;

  const auto walking = [&](size_t begin, size_t end) {
    return megaflops(graph, outline.nodes(begin, end), usable);
  };
  const auto looking = [&](const SweepPass& pass, const InputGroup& group) {
    const auto rows = static_cast<int64_t>(static_cast<double>(usable) * share_of_rows(graph, group.input));
    return pass.takes(group) ? megaflops(graph.value(group.input).cols, rows, pass.wanted) : 0;
  };
  const auto work_of = [&](const Section& s) {
    int64_t work = walking(s.begin, s.end) * static_cast<int64_t>(passes.size() + (twice ? 1 : 0));
    for (const size_t g : outline.groups_in(s))
      for (const SweepPass& pass : passes) work += looking(pass, outline.groups[g]);
    return work;
  };
  int64_t work = 0;
  for (const Section& s : outline.sections) work += work_of(s);
  Progress progress(options.progress, work);

  const auto nothing = [](int64_t, int64_t, const Walker::Values&) {};
  for (const Section& section : outline.sections) {
    const bool last = section.end == outline.order.size();
    const std::vector<size_t> groups = outline.groups_in(section);
    const bool worked = std::ranges::any_of(groups, [&](size_t g) {
      return std::ranges::any_of(passes, [&](const SweepPass& p) { return p.takes(outline.groups[g]); });
    });
    if (worked && section.block >= 0 && resumable(options) && load_block(model, options, section.block)) {
      ++report.resumed_blocks;
      if (!last) walk.run(section.begin, section.end, held, nothing);
      if (!last && twice) other.run(section.begin, section.end, held_other, nothing);
      progress.advance(work_of(section));
      continue;
    }
    const Held at_start = held, at_start_other = held_other;
    // What passes divided the input of a group by, all together: the original's has to be divided by it too,
    // to be beside it.
    std::map<size_t, std::vector<float>> divided;
    std::vector<float> beside;
    for (size_t p = 0; p < passes.size(); ++p) {
      const SweepPass& pass = passes[p];
      const bool final = p + 1 == passes.size();
      held = at_start;
      held_other = at_start_other;
      size_t position = section.begin;
      for (const size_t g : groups) {
        const InputGroup& group = outline.groups[g];
        if (!pass.takes(group)) continue;
        const size_t to = outline.starts[g];
        const std::string name = joint_name(graph, group);
        if (pass.wanted.cross) other.run(position, to, held_other, nothing);
        InputStats stats;
        stats.cols = graph.value(group.input).cols;
        stats.routed = graph.value(group.input).taken >= 0;
        Wanted wanted = pass.wanted;
        wanted.cross = wanted.cross && !stats.routed;
        const auto expected =
            static_cast<int64_t>(share_of_rows(graph, group.input) * static_cast<double>(usable));
        const float* unchanged = wanted.cross ? held_other.at(group.input).as<float>().data() : nullptr;
        walk.run(position, to, held, [&](int64_t first, int64_t, const Walker::Values& values) {
          const Tensor& x = values.at(group.input);
          const float* original_x = unchanged ? unchanged + first * stats.cols : nullptr;
          if (const auto by = divided.find(g); original_x && by != divided.end()) {
            beside.assign(original_x, original_x + x.shape[0] * stats.cols);
            divide_rows(beside, by->second);
            original_x = beside.data();
          }
          stats.add(pool, x.as<float>().data(), original_x, stats.rows, x.shape[0], expected, wanted);
        });
        stats.finish(pool);
        progress.advance(walking(position, to), name);
        position = to;
        const std::vector<float> divisors = pass.visit(group, stats);
        progress.advance(looking(pass, group), name);
        if (divisors.empty()) continue;
        divide_rows(held.at(group.input).as_mutable<float>(), divisors);
        const auto [all, first] = divided.try_emplace(g, divisors);
        for (size_t i = 0; !first && i < divisors.size(); ++i) all->second[i] *= divisors[i];
      }
      if (final && !last) walk.run(position, section.end, held, nothing);
      progress.advance(walking(position, section.end));
      if (final && !last && twice) {
        // Earlier passes do not move the original: it runs on from where this one left it.
        other.run(pass.wanted.cross ? position : section.begin, section.end, held_other, nothing);
        progress.advance(walking(section.begin, section.end));
      }
    }
    if (worked)
      for (const SweepPass& pass : passes)
        if (pass.finish) pass.finish();
    if (worked && section.block >= 0 && resumable(options))
      save_block(model, original, outline.nodes(section.begin, section.end), options, section.block);
  }
  return report;
}

}  // namespace lathe
