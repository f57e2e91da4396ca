#include "compress/method.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <set>

#include "compress/estimate.h"
#include "compress/linalg.h"
#include "compress/low_rank.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/float.h"
#include "core/json.h"
#include "core/log.h"
#include "models/low_rank.h"
#include "quant/activations.h"

namespace lathe {
namespace {

// Rounds strips of rows side by side and joins them: methods that see one row at a time.
template <class Round>
Codes by_strips(const RoundingJob& job, Round round) {
  Codes whole = blank_codes(job.rows, job.cols, job.numerics);
  const int64_t groups = job.numerics.groups(job.cols), strip = 64;
  for_each_item(job.pool, (job.rows + strip - 1) / strip, [&](int64_t item) {
    const int64_t first = item * strip, n = std::min(strip, job.rows - first);
    const Codes part = round(job.w + first * job.cols, n);
    std::ranges::copy(part.codes, whole.codes.begin() + first * job.cols);
    std::ranges::copy(part.scales, whole.scales.begin() + first * groups);
    std::ranges::copy(part.zeros, whole.zeros.begin() + (whole.zeros.empty() ? 0 : first * groups));
  });
  return whole;
}

Codes nearest(const RoundingJob& job) {
  if (job.numerics.is_grid())
    return round_to_nearest(job.w, job.rows, job.cols, job.numerics, {ScaleSearch::mse, job.mx}, job.largest);
  return by_strips(job, [&](const float* w, int64_t rows) {
    return round_to_nearest(w, rows, job.cols, job.numerics, ScaleSearch::mse);
  });
}
Codes by_importance(const RoundingJob& job) {
  return by_strips(job, [&](const float* w, int64_t rows) {
    return round_weighted(w, rows, job.cols, job.numerics, job.stats.mean_square.data());
  });
}
Codes by_gptq(const RoundingJob& job) {
  if (!job.factor->usable()) return job.numerics.is_grid() ? nearest(job) : by_importance(job);
  return gptq(job.pool, job.w, job.rows, job.cols, job.numerics, *job.factor,
              {.scales = {ScaleSearch::mse, job.mx}, .descent = job.descent, .largest = job.largest});
}
Codes by_estimate(const RoundingJob& job) {
  return by_strips(job, [&](const float* w, int64_t rows) {
    return estimate_scales(w, rows, job.cols, job.numerics, job.stats);
  });
}
Codes by_half_quadratic(const RoundingJob& job) {
  return by_strips(
      job, [&](const float* w, int64_t rows) { return half_quadratic(w, rows, job.cols, job.numerics); });
}

constexpr RoundingMethod methods[] = {
    {"rtn", "to nearest, the scale of least squared error", false, true, nearest},
    {"importance", "to nearest, errors weighted by the mean square of each input channel", false, false,
     by_importance},
    {"gptq", "column by column, later ones make up for earlier ones", true, true, by_gptq},
    {"gptq-descent", "gptq, then all codes and scales again until they settle (of integers)", true, true,
     by_gptq},
    {"scale-estimation", "scales that fit the codes, weighted by the mean size of each input channel", false,
     false, by_estimate},
    {"hqq", "zero points and scales of the least 0.7-norm; needs no text", false, false, by_half_quadratic},
};

constexpr int64_t most_values = int64_t{1} << 24;  // weights of a layer that are rounded at a time
constexpr int64_t least_rows = 32;                 // of an expert, to calibrate it: docs/measurements.md
constexpr int64_t most_measured = 256;             // rows of a layer whose error is reported

constexpr std::string_view extras =
    "awq+, smooth+ before, +bias, +drift, +rankN (a bf16 correction of rank N) after";

// What a finished block keeps of the reports on it, from `first` on.
std::string to_json(const std::vector<LayerReport>& reports, size_t first) {
  Json json = Json::array();
  for (size_t i = first; i < reports.size(); ++i) {
    const LayerReport& r = reports[i];
    Json item = {{"module", r.module}, {"fell_back", r.fell_back}, {"note", r.note}};
    if (r.error) item["error"] = {*r.error, r.nearest_error};
    json.push_back(std::move(item));
  }
  return json.dump();
}

class Calibrated {
 public:
  Calibrated(Model& model, const Assignment& assignment, const CalibrationOptions& options)
      : model_(model),
        assignment_(assignment),
        options_(options),
        method_(options.method),
        pool_(options.sweep.threads > 0 ? options.sweep.threads : physical_cores()) {
    for (const NodeId id : model.graph.order())
      if (const Node& node = model.graph.node(id); std::holds_alternative<op::Embedding>(node.op))
        tables_.insert(node.params[0]);
    if (method_.rank > 0) make_room_for_corrections();
    groups_ = input_groups(model.graph);
    for (const auto& [param, numerics] : assignment)
      if (!numerics.is_integer() && !(numerics.is_grid() && method_.rounds_to_grids()))
        throw input_error(param, fmt::format("integers, which method {} rounds to", method_.text),
                          to_string(numerics), "use --method rtn or gptq");
  }

  std::vector<LayerReport> run(std::span<const int32_t> tokens, SweepReport* swept) {
    round_tables(tokens);
    std::vector<SweepPass> passes;
    if (method_.equalize != Equalize::none)
      passes.push_back({{.hessian = true, .sample = true},
                        [&](const InputGroup& g) { return equalizable(g); },
                        [&](const InputGroup& g, InputStats& s) { return equalize_group(g, s); }});
    passes.push_back({wanted(), [&](const InputGroup& g) { return any_assigned(g) && !is_table(g); },
                      [&](const InputGroup& g, InputStats& s) {
                        if (too_few(s)) make_white(s);
                        round_group(g, s);
                        return std::vector<float>();
                      },
                      [&] { settle_unseen(); }});
    const SweepReport ahead = forecast(model_, std::ssize(tokens), passes);
    info("{} on {} tokens: {:.0f} MB of activations ({}), {:.0f} MB of statistics at most", method_.text,
         tokens.size(), static_cast<double>(ahead.activation_bytes) / 1e6,
         ahead.activation_bytes > options_.sweep.memory && !options_.sweep.work.empty() ? "some in files"
                                                                                        : "in memory",
         static_cast<double>(ahead.statistics_bytes) / 1e6);
    SweepOptions options = options_.sweep;
    size_t kept = reports_.size();
    options.notes = [&] { return to_json(reports_, std::exchange(kept, reports_.size())); };
    options.recall = [&](std::string_view json) {
      recall(json);
      kept = reports_.size();
    };
    const SweepReport report = sweep(model_, tokens, passes, options);
    if (report.resumed_blocks > 0)
      info("{} blocks were finished by an earlier run in {}", report.resumed_blocks,
           options_.sweep.work.string());
    if (swept) *swept = report;
    return std::move(reports_);
  }

 private:
  const std::string& param_of(NodeId id) const { return model_.graph.node(id).params[0]; }
  bool assigned(NodeId id) const { return assignment_.contains(param_of(id)); }
  bool any_assigned(const InputGroup& g) const {
    return std::ranges::any_of(g.nodes, [&](NodeId id) { return assigned(id); });
  }
  bool read_as_embedding(const std::string& param) const { return tables_.contains(param); }
  bool is_table(const InputGroup& g) const {
    return std::ranges::any_of(g.nodes, [&](NodeId id) { return read_as_embedding(param_of(id)); });
  }
  Wanted wanted() const {
    return {.hessian = method_.rounding->wants_hessian || method_.drift || method_.rank > 0,
            .cross = method_.drift,
            .sample = method_.rounding->name == "scale-estimation" || method_.rank > 0,
            .magnitudes = std::ranges::any_of(
                assignment_, [](const auto& each) { return each.second.has_input_scale(); })};
  }

  // A scale may move where every layer that would take it is rounded anyway, and so is the matrix that gives
  // it.
  bool equalizable(const InputGroup& g) const {
    if (is_table(g) || !std::ranges::all_of(g.nodes, [&](NodeId id) { return assigned(id); })) return false;
    const auto site = fold_site(model_.graph, g);
    return site && (model_.weights.at(site->param).shape.size() == 1 || assignment_.contains(site->param));
  }

  // Of an expert that the text did not reach, or hardly.
  static bool too_few(const InputStats& stats) { return stats.routed && stats.rows < least_rows; }

  // As if all channels were alike and independent: a correction is then the weight's own best.
  static void make_white(InputStats& stats) {
    for (size_t i = 0; i < stats.hessian.size(); ++i)
      stats.hessian[i] = i % static_cast<size_t>(stats.cols + 1) == 0 ? 1.0f : 0.0f;
  }

  std::vector<float> equalize_group(const InputGroup& g, const InputStats& stats) {
    if (too_few(stats)) return {};
    std::vector<std::vector<float>> values;
    std::vector<EqualizedLayer> layers;
    for (const NodeId id : g.nodes) {
      values.push_back(read_all(model_.weights.at(param_of(id))));
      layers.push_back({values.back().data(), model_.weights.at(param_of(id)).rows(),
                        assignment_.at(param_of(id)), corrected(model_.graph.node(id)) ? method_.rank : 0});
    }
    const FoldSite site = *fold_site(model_.graph, g);
    Equalized found = equalize(pool_, method_.equalize, layers, stats, site);
    if (found.divisors.empty()) return {};
    for (const NodeId id : g.nodes)
      notes_[param_of(id)] =
          fmt::format("{} {:.2f}: error x {:.2f}", method_.equalize == Equalize::awq ? "awq" : "smooth",
                      found.strength, found.error / std::max(found.error_as_is, 1e-30));
    fold(model_, site, g, found.divisors);
    return found.divisors;
  }

  void recall(std::string_view text) {
    constexpr const char* where = "notes of a finished block";
    for (const Json& item : parse_json(text, where)) {
      const std::string module = get_string(item, "module", where);
      const auto layer = assignment_.find(module + ".weight");
      if (layer == assignment_.end()) throw input_error(where, "modules that are rounded", printable(module));
      LayerReport report{.module = module,
                         .numerics = layer->second,
                         .fell_back = get_bool_or(item, "fell_back", where, false),
                         .note = get_string(item, "note", where)};
      if (const auto error = item.find("error"); error != item.end()) {
        report.error = error->at(0).get<double>();
        report.nearest_error = error->at(1).get<double>();
      }
      reports_.push_back(std::move(report));
    }
  }

  void round_group(const InputGroup& g, const InputStats& stats) {
    std::unique_ptr<GptqFactor> factor;
    if (method_.rounding->wants_hessian && !too_few(stats)) {
      factor = std::make_unique<GptqFactor>(pool_, stats.hessian.data(), stats.cols, method_.damping,
                                            method_.act_order);
      if (!factor->usable()) warn("{}: its inputs have no usable Hessian", joint_name(model_.graph, g));
    }
    float largest = -1;  // runtimes fuse the layers of an input and expect one global scale
    for (const NodeId id : g.nodes)
      if (assigned(id) && assignment_.at(param_of(id)).global)
        for (const float w : read_all(model_.weights.at(param_of(id))))
          largest = std::max(largest, std::fabs(w));
    for (const NodeId id : g.nodes)
      if (assigned(id)) round_layer(model_.graph.node(id), stats, factor.get(), largest);
  }

  // Some rows at a time: memory beside the weight does not grow with it.
  void round_layer(const Node& node, const InputStats& stats, const GptqFactor* factor, float largest) {
    const std::string& param = node.params[0];
    Weight& weight = model_.weights.at(param);
    const Numerics& numerics = assignment_.at(param);
    const int64_t rows = weight.rows(), cols = weight.cols(), apart = rows_that_share(numerics, rows);
    LayerReport report{.module = module_path(param), .numerics = numerics, .note = notes_[param]};
    if (too_few(stats))
      report.note = fmt::format("the text has {} rows for this expert: rounded to nearest", stats.rows);
    if (factor && !factor->usable())
      report.note =
          fmt::format("no usable Hessian: rounded {}", numerics.is_grid() ? "to nearest" : "by importance");
    report.fell_back = too_few(stats) || (factor && !factor->usable());
    if (factor && factor->usable() && factor->damping() > method_.damping)
      report.note = fmt::format("damping {:g}", factor->damping());
    if (!numerics.global) largest = -1;
    Weight rounded = make_weight(numerics, storage_packing(numerics), weight.shape);
    const bool drift = method_.drift && !stats.cross.empty();  // solves with the Hessian: once for all rows
    std::vector<float> values;  // of a layer with a correction: what both together are
    const int64_t step =
        drift || corrected(node) ? rows : std::max<int64_t>(apart, most_values / cols / apart * apart);
    float scale_of_input = 0;
    if (numerics.has_input_scale()) {
      scale_of_input = input_scale(*options_.observer, stats.magnitudes, numerics.activations);
      if (scale_of_input == 0)
        unseen_.insert(param);
      else if (stats.routed)
        largest_scales_[cols] = std::max(largest_scales_[cols], scale_of_input);
    }
    for (int64_t first = 0; first < rows; first += step) {
      const int64_t n = std::min(step, rows - first);
      std::vector<float> w = read_rows(weight, first, n);
      if (drift) aim_at_original(w, rows, stats);
      RoundingJob job{pool_,   w.data(),          n, cols, numerics, stats, factor, method_.descent,
                      largest, options_.scales.mx};
      Codes codes;
      if (corrected(node)) {
        Corrected found = round_and_correct(pool_, w.data(), rows, cols, method_.rank, stats.hessian.data(),
                                            input_noise(numerics, stats), [&](const float* rest) {
                                              job.w = rest;
                                              return round(job);
                                            });
        store_correction(node, found.low);
        codes = std::move(found.codes);
        values = std::move(found.values);
      } else {
        codes = round(job);
      }
      codes.input_scale = scale_of_input;
      pack_rows(pool_, codes, first, rounded);
    }
    if (!stats.hessian.empty()) measure(weight, rounded, values, stats, factor, largest, report);
    if (method_.bias && node.params.size() > 1) correct_bias(node, stats, weight, rounded, values);
    weight = std::move(rounded);
    reports_.push_back(std::move(report));
  }

  // Experts that no row of the text reached take the largest scale of their block's experts whose input is as
  // wide: it cuts off nothing that theirs would not.
  void settle_unseen() {
    for (const std::string& param : unseen_) {
      Weight& weight = model_.weights.at(param);
      const auto found = largest_scales_.find(weight.cols());
      if (found == largest_scales_.end())
        throw input_error(param, "a calibration text of which some row reaches an expert of this block",
                          "none", "give more text (--calibration-tokens)");
      Codes codes = unpack(weight, 0, weight.rows());
      codes.input_scale = found->second;
      Weight settled = make_weight(weight.numerics, *weight.packing, weight.shape);
      pack_rows(pool_, codes, 0, settled);
      weight = std::move(settled);
    }
    unseen_.clear();
    largest_scales_.clear();
  }

  Codes round(const RoundingJob& job) const {
    return too_few(job.stats) ? nearest(job) : method_.rounding->run(job);
  }

  std::vector<float> read_rows(const Weight& weight, int64_t first, int64_t rows) {
    std::vector<float> out(static_cast<size_t>(rows * weight.cols()));
    for_each_item(pool_, (rows + pack_row_multiple - 1) / pack_row_multiple, [&](int64_t item) {
      const int64_t row = item * pack_row_multiple;
      lathe::read_rows(weight, first + row, std::min(pack_row_multiple, rows - row),
                       out.data() + row * weight.cols());
    });
    return out;
  }

  // The error of about most_measured rows, in runs evenly apart: all rows would take longer than rounding
  // them.
  void measure(const Weight& weight, const Weight& rounded, const std::vector<float>& values,
               const InputStats& stats, const GptqFactor* factor, float largest, LayerReport& report) {
    const int64_t rows = weight.rows(), cols = weight.cols(), run = rows_that_share(rounded.numerics, rows);
    const int64_t runs = (rows + run - 1) / run, wanted = std::max<int64_t>(1, most_measured / run);
    const int64_t apart = (runs + wanted - 1) / wanted;
    std::vector<float> w, now;
    for (int64_t i = 0; i < runs; i += apart) {
      const int64_t first = i * run, n = std::min(run, rows - first);
      std::ranges::copy(read_rows(weight, first, n), std::back_inserter(w));
      if (values.empty())
        std::ranges::copy(read_rows(rounded, first, n), std::back_inserter(now));
      else
        now.insert(now.end(), values.begin() + first * cols, values.begin() + (first + n) * cols);
    }
    const int64_t n = std::ssize(w) / cols;
    const std::vector<float> none(w.size());
    const auto error = [&](const std::vector<float>& from, const std::vector<float>& to) {
      return output_error(pool_, from.data(), to.data(), n, cols, stats.hessian.data());
    };
    const double size = std::max(error(none, w), 1e-30);
    report.error = error(w, now) / size;
    dequantize(
        nearest({pool_, w.data(), n, cols, rounded.numerics, stats, factor, 0, largest, options_.scales.mx}),
        now.data());
    report.nearest_error = error(w, now) / size;
  }

  // What rounding the input adds to the mean square of a channel: steps of d add d^2 / 12, of integers the
  // largest of a row, or of the text, / 127. Floats' steps differ: their error is that of the sample.
  double input_noise(const Numerics& numerics, const InputStats& stats) const {
    if (!numerics.rounds_activations()) return 0;
    const auto of_step = [](float step) {
      return static_cast<double>(step) * static_cast<double>(step) / 12;
    };
    const float given = numerics.has_input_scale()
                            ? input_scale(*options_.observer, stats.magnitudes, numerics.activations)
                            : 0;
    if (numerics.rounds_to_int8() && given > 0) return of_step(given);
    double sum = 0;
    std::vector<float> rounded(static_cast<size_t>(stats.cols));
    for (int64_t row = 0; row < stats.sample_rows; ++row) {
      const float* x = stats.sample.data() + row * stats.cols;
      if (numerics.rounds_to_int8()) {
        float largest = 0;
        for (int64_t c = 0; c < stats.cols; ++c) largest = std::max(largest, std::fabs(x[c]));
        sum += of_step(largest / 127);
        continue;
      }
      round_row(numerics.activations, x, stats.cols, rounded.data(), given);
      double squares = 0;
      for (int64_t c = 0; c < stats.cols; ++c)
        squares += std::pow(static_cast<double>(rounded[static_cast<size_t>(c)] - x[c]), 2);
      sum += squares / static_cast<double>(stats.cols);
    }
    return sum / static_cast<double>(std::max<int64_t>(stats.sample_rows, 1));
  }

  bool corrected(const Node& node) const {
    return method_.rank > 0 && model_.graph.find(correction_of(node.name)) >= 0;
  }

  // Zeros where corrections are going to be: the graph stays as it is while it is walked. A table is read as
  // an embedding too, where no correction could be: it gets none.
  void make_room_for_corrections() {
    const std::vector<NodeId> order(model_.graph.order().begin(), model_.graph.order().end());
    for (const NodeId id : order) {
      const Node node = model_.graph.node(id);
      if (!std::holds_alternative<op::Linear>(node.op) || !assigned(id) || read_as_embedding(node.params[0]))
        continue;
      const Weight& w = model_.weights.at(node.params[0]);
      if (assignment_.at(node.params[0]).kind == Numerics::Kind::nf4)
        throw input_error(node.name, "numbers whose files hold corrections too",
                          "nf4, as bitsandbytes reads it", "leave +rankN out, or take another scheme");
      if (corrected(node))
        throw input_error(node.name, "a layer without a low-rank correction", "one", "quantize the original");
      if (method_.rank * (w.rows() + w.cols()) >= w.rows() * w.cols())
        throw input_error(node.name, "a rank whose factors are smaller than the matrix",
                          fmt::format("{} for {}", method_.rank, to_string(w.shape)),
                          "a smaller rank, or keep the layer");
      const std::string name = correction_of(node.name);
      add_low_rank(model_.graph, id, name, {.rank = method_.rank});
      for (const auto& [param, shape] :
           {std::pair{".a", Shape{method_.rank, w.cols()}}, std::pair{".b", Shape{w.rows(), method_.rank}}})
        model_.weights[name + param] = dense_weight(Tensor::zeros(DType::bf16, shape));
    }
  }

  void store_correction(const Node& node, const LowRank& low) {
    const std::string name = correction_of(node.name);
    for (const auto& [param, values] : {std::pair{name + ".a", &low.a}, std::pair{name + ".b", &low.b}}) {
      Weight& w = model_.weights.at(param);
      Tensor t = Tensor::zeros(DType::bf16, w.shape);
      from_f32(DType::bf16, values->data(), t.storage.data, std::ssize(*values));
      w = dense_weight(std::move(t));
    }
  }

  // W (H + C) H^-1, whose outputs on present inputs come nearest to those of W on the original ones.
  void aim_at_original(std::vector<float>& w, int64_t rows, const InputStats& stats) {
    std::vector<float> shift(w.size());
    multiply(pool_, w.data(), stats.cross.data(), shift.data(), rows, stats.cols, stats.cols);
    double mean = 0;
    for (int64_t c = 0; c < stats.cols; ++c)
      mean += static_cast<double>(stats.hessian[static_cast<size_t>(c * (stats.cols + 1))]) /
              static_cast<double>(stats.cols);
    if (!solve_rows(pool_, stats.hessian.data(), stats.cols, std::max(method_.damping, 0.01) * mean,
                    shift.data(), rows))
      return;
    for (size_t i = 0; i < w.size(); ++i) w[i] += shift[i];
  }

  // The mean of the outputs stays: b += (W - Q(W)) mean(x).
  void correct_bias(const Node& node, const InputStats& stats, const Weight& weight, const Weight& rounded,
                    const std::vector<float>& values) {
    Weight& bias = model_.weights.at(node.params[1]);
    std::vector<float> b = read_all(bias);
    const auto cols = static_cast<size_t>(stats.cols);
    for_each_item(pool_, (std::ssize(b) + pack_row_multiple - 1) / pack_row_multiple, [&](int64_t item) {
      const int64_t first = item * pack_row_multiple, n = std::min(pack_row_multiple, std::ssize(b) - first);
      std::vector<float> w(static_cast<size_t>(n) * cols), now(w.size());
      lathe::read_rows(weight, first, n, w.data());
      if (values.empty())
        lathe::read_rows(rounded, first, n, now.data());
      else
        std::copy_n(values.data() + first * stats.cols, now.size(), now.data());
      for (size_t r = 0; r < static_cast<size_t>(n); ++r) {
        double shift = 0;
        for (size_t c = 0; c < cols; ++c)
          shift +=
              static_cast<double>(w[r * cols + c] - now[r * cols + c]) * static_cast<double>(stats.mean[c]);
        b[static_cast<size_t>(first) + r] += static_cast<float>(shift);
      }
    });
    Weight kept = make_weight(bias.numerics, packing("dense"), bias.shape);
    kept.packing->pack({bias.numerics, 1, std::ssize(b), b, {}, {}, {}}, 0, kept);
    bias = std::move(kept);
  }

  // Tables, before the sweep: blocks then see the embedding as it will be.
  void round_tables(std::span<const int32_t> tokens) {
    const bool shared =
        std::ranges::any_of(groups_, [&](const InputGroup& g) { return is_table(g) && any_assigned(g); });
    if (shared) {
      SweepOptions o = options_.sweep;
      o.fingerprint.clear();
      o.progress = "looking at the head";
      Wanted want = wanted();
      want.cross = false;
      Model as_it_was = model_;
      sweep(as_it_was, tokens,
            {{want, [&](const InputGroup& g) { return is_table(g) && any_assigned(g); },
              [&](const InputGroup& g, InputStats& s) {
                round_group(g, s);
                return std::vector<float>();
              }}},
            o);
    }
    for (const auto& [param, numerics] : assignment_) {
      const bool head = std::ranges::any_of(groups_, [&](const InputGroup& g) {
        return std::ranges::any_of(g.nodes, [&, p = &param](NodeId id) { return param_of(id) == *p; });
      });
      if (head || !read_as_embedding(param)) continue;
      Weight& table = model_.weights.at(param);
      // Nothing is multiplied with it.
      table = quantize_weight(table, numerics.weights_alone(), options_.scales, options_.sweep.threads);
      reports_.push_back(
          {.module = module_path(param), .numerics = numerics, .note = "a table: rounded to nearest"});
    }
  }

  Model& model_;
  const Assignment& assignment_;
  const CalibrationOptions& options_;
  const Method& method_;
  ThreadPool pool_;
  std::set<std::string, std::less<>> tables_;  // what is read as an embedding
  std::vector<InputGroup> groups_;
  std::map<std::string, std::string> notes_;
  std::set<std::string> unseen_;             // of this block: weights of experts without an input scale yet
  std::map<int64_t, float> largest_scales_;  // of its experts that were seen, by width of their input
  std::vector<LayerReport> reports_;
};

}  // namespace

std::span<const RoundingMethod> rounding_methods() { return methods; }

std::string method_names() {
  std::vector<std::string_view> names;
  for (const RoundingMethod& m : methods) names.push_back(m.name);
  return fmt::format("{}; {}", fmt::join(names, ", "), extras);
}

bool Method::needs_text() const {
  return equalize != Equalize::none || bias || drift || rank > 0 ||
         (rounding->name != "rtn" && rounding->name != "hqq");
}

bool Method::rounds_to_grids() const { return rounding->grids && equalize == Equalize::none; }

// 0: not a rank.
static int rank_of(std::string_view digits) {
  int rank = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  return error == std::errc() && end == digits.data() + digits.size() && rank > 0 && rank <= most_rank ? rank
                                                                                                       : 0;
}

Method parse_method(std::string_view text) {
  Method m;
  m.text = text;
  const auto refuse = [&](const std::string& found) {
    throw input_error("method", method_names(), fmt::format("'{}'", printable(found)),
                      "join with +, as in awq+gptq");
  };
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('+', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    begin = end + 1;
    const auto found = std::ranges::find(methods, word, &RoundingMethod::name);
    if (word == "awq" && m.equalize == Equalize::none) {
      m.equalize = Equalize::awq;
    } else if (word == "smooth" && m.equalize == Equalize::none) {
      m.equalize = Equalize::smooth;
    } else if (word == "bias") {
      m.bias = true;
    } else if (word == "drift") {
      m.drift = true;
    } else if (word.starts_with("rank") && m.rank == 0 && (m.rank = rank_of(word.substr(4))) > 0) {
    } else if (found != std::end(methods) && !m.rounding) {
      m.rounding = found;
    } else {
      refuse(std::string(text));
    }
  }
  // Alone, each way to equalize has the rounding it was published with.
  if (!m.rounding && m.equalize != Equalize::none)
    m.rounding =
        std::ranges::find(methods, m.equalize == Equalize::awq ? "importance" : "rtn", &RoundingMethod::name);
  if (!m.rounding) refuse(std::string(text));
  if (m.rounding->name == "gptq-descent") m.descent = 4;
  return m;
}

std::vector<LayerReport> quantize_calibrated(Model& model, const Assignment& assignment,
                                             std::span<const int32_t> tokens,
                                             const CalibrationOptions& options, SweepReport* swept) {
  return Calibrated(model, assignment, options).run(tokens, swept);
}

}  // namespace lathe
