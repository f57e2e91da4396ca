#include "search/page.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/html.h"
#include "search/constraints.h"
#include "search/page_style.h"

namespace lathe {
namespace {

// --- text

std::string text(const Json& json) {
  return escape_html(json.is_string() ? json.get<std::string>() : json.dump());
}
std::string bytes(const Json& n) { return escape_html(format_bytes(n.get<double>())); }
// Three digits, without an exponent down to a millionth: columns of KL read well.
std::string small(double v) {
  return v == 0 ? "0"
         : v < 1e-6
             ? fmt::format("{:.1e}", v)
             : fmt::format("{:.{}f}", v, std::clamp(2 - static_cast<int>(std::floor(std::log10(v))), 2, 8));
}
std::string grouped(double v) {
  std::string digits = fmt::format("{:.0f}", v);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), "\u202f");
  return digits;
}
std::string cell(std::string_view html, std::string_view kind = "") {
  return kind.empty() ? fmt::format("<td>{}</td>", html)
                      : fmt::format("<td class=\"{}\">{}</td>", kind, html);
}
std::string with_error(std::string_view value, std::string_view error) {
  return fmt::format("{}<br><small>\u00b1 {}</small>", value, error);
}
std::string number(std::string_view html, double order) {
  return fmt::format("<td class=\"n\" data-v=\"{}\">{}</td>", order, html);
}

// "<th>" per entry; a leading '#' marks a column of numbers.
std::string table_head(std::initializer_list<std::string_view> names) {
  std::string out = "<thead><tr>";
  for (const std::string_view name : names)
    out += name.starts_with('#') ? fmt::format("<th class=\"n\" scope=\"col\">{}</th>", name.substr(1))
                                 : fmt::format("<th scope=\"col\">{}</th>", name);
  return out + "</tr></thead>";
}

std::string section(std::string_view id, std::string_view title, std::string_view lead,
                    std::string_view body) {
  return fmt::format("<section aria-labelledby=\"{0}\"><h2 id=\"{0}\">{1}</h2>{2}{3}</section>\n", id, title,
                     lead.empty() ? "" : fmt::format("<p class=\"lead\">{}</p>", lead), body);
}

// A trial's quality: on the held-out text where it was scored there.
const Json& quality(const Json& trial) {
  return trial.contains("held_out") ? trial.at("held_out") : trial.at("search");
}

// --- axes

struct Scale {
  double lo, hi, from, to;  // data -> pixels
  bool logarithmic = false;
  double operator()(double v) const {
    const auto f = [&](double x) { return logarithmic ? std::log10(x) : x; };
    return from + (f(v) - f(lo)) / std::max(f(hi) - f(lo), 1e-12) * (to - from);
  }
};

// About `count` round numbers across the range.
std::vector<double> ticks(double lo, double hi, int count) {
  const double raw = std::max(hi - lo, 1e-12) / count, power = std::pow(10, std::floor(std::log10(raw)));
  double step = power;
  for (const double m : {2.0, 5.0, 10.0})
    if (step < raw * 0.999) step = m * power;
  std::vector<double> out;
  for (double v = std::ceil(lo / step) * step; v <= hi + step * 1e-9; v += step) out.push_back(v);
  return out;
}

// --- charts

// Bytes against KL, both on the text of the search: every trial was scored there.
std::string pareto_chart(const Json& report) {
  struct Point {
    double x, y;
    const Json* trial;
  };
  std::vector<Point> points;
  for (const Json& t : report.at("trials")) {
    const double kl = t.at("search").value("kl_mean", 0.0);
    if (kl > 0)
      points.push_back({t.at("bytes").get<double>(), kl, &t});  // the base has no place on a log axis
  }
  if (points.empty()) return "<p>No candidate differs from the base.</p>";
  const auto [x_lo, x_hi] = std::ranges::minmax(points, {}, &Point::x);
  const auto [y_lo, y_hi] = std::ranges::minmax(points, {}, &Point::y);
  const double margin = std::max((x_hi.x - x_lo.x) * 0.06, x_hi.x * 0.01);
  const Scale x{x_lo.x - margin, x_hi.x + margin, 84, 744};
  const Scale y{y_lo.y / 1.6, y_hi.y * 1.6, 356, 16, true};

  std::string svg =
      "<svg class=\"chart\" viewBox=\"0 0 760 408\" role=\"img\" aria-label=\"Bytes against KL divergence of "
      "every candidate; the table of trials has the figures\">";
  const double unit = std::pow(1000, std::floor(std::log10(x.hi) / 3));
  const std::string unit_name = format_bytes(unit).substr(format_bytes(unit).find(' ') + 1);
  for (const double t : ticks(x.lo / unit, x.hi / unit, 7))
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"16\" y2=\"356\"/><text class=\"tick\" "
        "x=\"{0:.1f}\" y=\"374\" text-anchor=\"middle\">{1:g}</text>",
        x(t * unit), t);
  for (double decade = std::pow(10, std::floor(std::log10(y.lo))); decade <= y.hi; decade *= 10)
    for (const double m : {1.0, 2.0, 5.0})
      if (const double v = m * decade; v >= y.lo && v <= y.hi)
        svg += fmt::format(
            "<line class=\"grid\" x1=\"84\" x2=\"744\" y1=\"{0:.1f}\" y2=\"{0:.1f}\"/><text class=\"tick\" "
            "x=\"76\" y=\"{1:.1f}\" text-anchor=\"end\">{2:.{3}f}</text>",
            y(v), y(v) + 4, v, std::max(0, static_cast<int>(-std::floor(std::log10(v * 1.0001)))));
  svg += fmt::format("<text class=\"axis\" x=\"414\" y=\"400\" text-anchor=\"middle\">stored size, {}</text>",
                     unit_name);
  svg +=
      "<text class=\"axis\" transform=\"translate(18 186) rotate(-90)\" text-anchor=\"middle\">KL(base "
      "\u2016 model), nats per token</text>";

  // The limit, where KL is limited.
  for (const Json& b : report.at("constraints"))
    if (b.at("name") == "max_kl" && b.at("limit").get<double>() > y.lo && b.at("limit").get<double>() < y.hi)
      svg += fmt::format(
          "<line class=\"limit\" x1=\"84\" x2=\"744\" y1=\"{0:.1f}\" y2=\"{0:.1f}\"/><text class=\"tick\" "
          "x=\"740\" y=\"{1:.1f}\" text-anchor=\"end\">--max-kl</text>",
          y(b.at("limit").get<double>()), y(b.at("limit").get<double>()) - 5);

  // The frontier of all trials as steps: nothing below and to the left of it was found.
  std::vector<Point> sorted = points;
  std::ranges::sort(sorted,
                    [](const Point& a, const Point& b) { return std::pair(a.x, a.y) < std::pair(b.x, b.y); });
  std::string path;
  double best = 1e300;
  for (const Point& p : sorted) {
    if (p.y >= best) continue;
    path += path.empty() ? fmt::format("M{:.1f} {:.1f}", x(p.x), y(p.y))
                         : fmt::format("H{:.1f}V{:.1f}", x(p.x), y(p.y));
    best = p.y;
  }
  svg += fmt::format("<path class=\"front\" d=\"{}\"/>", path);

  std::ranges::stable_partition(
      points, [](const Point& p) { return !p.trial->at("chosen").get<bool>(); });  // the chosen on top
  for (const Point& p : points) {
    const Json& t = *p.trial;
    const bool chosen = t.at("chosen").get<bool>(), uniform = t.at("kind") == "uniform";
    const std::string title =
        fmt::format("{}: {}, {:.3f} bits per weight, KL {}, perplexity {:+.2f} %", text(t.at("name")),
                    bytes(t.at("bytes")), t.at("bits_per_weight").get<double>(), small(p.y),
                    t.at("perplexity_increase_percent").get<double>());
    const double px = x(p.x), py = y(p.y);
    svg += "<g tabindex=\"0\"><title>" + title + "</title>";
    if (chosen) svg += fmt::format("<circle class=\"ring\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"11\"/>", px, py);
    svg += uniform ? fmt::format(
                         "<rect class=\"uniform\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"9\" height=\"9\" "
                         "transform=\"rotate(45 {:.1f} {:.1f})\"/>",
                         px - 4.5, py - 4.5, px, py)
                   : fmt::format("<circle class=\"mixed\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\"/>", px, py);
    if (chosen) {
      const bool left = px > 560;
      svg += fmt::format("<text class=\"mark\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">chosen</text>",
                         left ? px - 16 : px + 16, py - 9, left ? "end" : "start");
    }
    svg += "</g>";
  }
  return svg +
         "</svg><p class=\"legend\"><span class=\"key uniform\"></span>one format everywhere <span "
         "class=\"key mixed\"></span>mixed per layer "
         "<span class=\"key front\"></span>the best found <span class=\"key ring\"></span>chosen</p>";
}

std::string speed_chart(const Json& report) {
  std::vector<const Json*> rows;
  double most = 1;
  for (const Json& t : report.at("trials")) {
    const bool chosen = t.at("chosen").get<bool>();
    if (!t.contains("speed") || (t.at("kind") == "mixed" && !chosen)) continue;
    rows.push_back(&t);
    most = std::max(most, t.at("speed").at("decode_tokens_per_s").get<double>());
  }
  const double height = 26.0 * static_cast<double>(rows.size()) + 8;
  std::string svg = fmt::format(
      "<svg class=\"chart\" viewBox=\"0 0 760 {}\" role=\"img\" aria-label=\"Decode speed of the base, the "
      "uniform formats and the chosen model\">",
      height);
  double top = 4;
  for (const Json* t : rows) {
    const double speed = t->at("speed").at("decode_tokens_per_s").get<double>();
    const std::string_view kind = t->at("chosen").get<bool>() ? "chosen"
                                  : t->at("kind") == "base"   ? "base"
                                                              : "uniform";
    svg += fmt::format(
        "<g><title>{0}: {1} tokens/s decoding, {2} tokens/s prefill</title><text class=\"label\" x=\"184\" "
        "y=\"{3:.1f}\" text-anchor=\"end\">{0}</text>"
        "<rect class=\"bar {4}\" x=\"192\" y=\"{5:.1f}\" width=\"{6:.1f}\" height=\"18\" rx=\"2\"/><text "
        "class=\"tick\" x=\"{7:.1f}\" y=\"{3:.1f}\">{1}</text></g>",
        text(t->at("name")), grouped(speed), grouped(t->at("speed").at("prefill_tokens_per_s").get<double>()),
        top + 14, kind, top + 1, 490 * speed / most, 200 + 490 * speed / most);
    top += 26;
  }
  return svg + "</svg>";
}

std::string format_class(const Json& node) {
  const double bits = node.at("metrics").at(1).at("value").get<double>();
  return bits > 10 ? "b16" : bits > 6 ? "b8" : "b4";
}

// Width: weights. Height: bits per weight. So area is bytes.
std::string skyline_chart(const Json& report) {
  const Json& nodes = report.at("nodes");
  double weights = 0, most = 1;
  for (const Json& n : nodes) {
    weights += n.at("weights").get<double>();
    most = std::max(most, n.at("metrics").at(1).at("value").get<double>());
  }
  const Scale y{0, most * 1.08, 168, 8};
  std::string svg =
      "<svg class=\"chart\" viewBox=\"0 0 760 196\" role=\"img\" aria-label=\"Bits per weight of every unit "
      "in the order of the model; the table below has the figures\">";
  for (const double t : ticks(0, most, 5))
    svg += fmt::format(
        "<line class=\"grid\" x1=\"40\" x2=\"752\" y1=\"{0:.1f}\" y2=\"{0:.1f}\"/><text class=\"tick\" "
        "x=\"34\" y=\"{1:.1f}\" text-anchor=\"end\">{2:g}</text>",
        y(t), y(t) + 4, t);
  double x = 40;
  for (const Json& n : nodes) {
    const double width = 712 * n.at("weights").get<double>() / weights,
                 bits = n.at("metrics").at(1).at("value").get<double>();
    svg += fmt::format(
        "<rect class=\"unit {}\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\"><title>{}: {}, "
        "{}</title></rect>",
        format_class(n), x, y(bits), std::max(width - 0.8, 0.4), 168 - y(bits), text(n.at("node")),
        text(n.at("format")), bytes(n.at("metrics").at(0).at("value")));
    x += width;
  }
  return svg +
         "<text class=\"axis\" x=\"396\" y=\"188\" text-anchor=\"middle\">weights, in the order of the model "
         "(height: bits per weight; area: bytes)</text></svg>";
}

// --- tables

std::string limits_table(const Json& report) {
  std::string rows;
  for (const Json& b : report.at("constraints")) {
    const double limit = b.at("limit").get<double>(), value = b.at("value").get<double>();
    const bool met = b.at("met").get<bool>(), lower = b.at("name") == "min_decode",
               size = b.at("unit") == "bytes";
    std::string flag = "--" + b.at("name").get<std::string>();
    std::ranges::replace(flag, '_', '-');
    const auto show = [&](double v) {
      return size ? format_bytes(v) : fmt::format("{:.4g} {}", v, b.at("unit").get<std::string>());
    };
    rows +=
        "<tr>" + cell("<code>" + escape_html(flag) + "</code>") +
        cell((lower ? "at least " : "at most ") + escape_html(show(limit)), "n") +
        cell(escape_html(show(value)), "n") +
        cell(fmt::format("<span class=\"pill {}\">{}</span>", met ? "good" : "bad", met ? "met" : "failed")) +
        "</tr>";
  }
  return "<div class=\"scroll\"><table>" + table_head({"Limit", "#Allowed", "#Measured", ""}) + "<tbody>" +
         rows + "</tbody></table></div>";
}

std::string units_table(const Json& report) {
  double most = 1e-12;
  const auto metric = [](const Json& node, size_t i) {
    return node.at("metrics").size() > i ? node.at("metrics").at(i).at("value").get<double>() : 0;
  };
  for (const Json& n : report.at("nodes")) most = std::max(most, metric(n, 2));
  std::string rows;
  for (const Json& n : report.at("nodes"))
    rows += "<tr>" + cell("<code>" + text(n.at("node")) + "</code>") +
            cell(fmt::format("<span class=\"chip {}\">{}</span>", format_class(n), text(n.at("format")))) +
            number(bytes(n.at("metrics").at(0).at("value")), metric(n, 0)) +
            number(fmt::format("{:.2f}", metric(n, 1)), metric(n, 1)) +
            number(fmt::format("{}<span class=\"meter\"><i style=\"width:{:.1f}%\"></i></span>",
                               small(metric(n, 2)), 100 * metric(n, 2) / most),
                   metric(n, 2)) +
            number(small(metric(n, 3)), metric(n, 3)) + "</tr>";
  return "<div class=\"scroll tall\" tabindex=\"0\"><table class=\"sortable\">" +
         table_head({"Unit", "Format", "#Size", "#Bits per weight", "#KL alone at its smallest",
                     "#Predicted KL as chosen"}) +
         "<tbody>" + rows + "</tbody></table></div>";
}

std::string trials_table(const Json& report) {
  std::string rows;
  for (const Json& t : report.at("trials")) {
    const Json& q = t.at("search");
    const auto speed = [&](const char* key) {
      if (!t.contains("speed")) return number("", 0);
      const double v = t.at("speed").at(key).get<double>();
      return number(grouped(v), v);
    };
    const double kl = q.value("kl_mean", 0.0),
                 held_out = t.contains("held_out") ? t.at("held_out").value("kl_mean", 0.0) : -1;
    rows +=
        fmt::format("<tr{}>", t.at("chosen").get<bool>() ? " class=\"chosen\"" : "") +
        number(text(t.at("id")), t.at("id").get<double>()) +
        fmt::format("<td class=\"what\"><b>{}</b><br><small>{}</small></td>", text(t.at("name")),
                    text(t.at("why"))) +
        number(bytes(t.at("bytes")), t.at("bytes").get<double>()) +
        number(fmt::format("{:.3f}", t.at("bits_per_weight").get<double>()),
               t.at("bits_per_weight").get<double>()) +
        number(with_error(fmt::format("{:.3f}", q.at("perplexity").get<double>()),
                          fmt::format("{:.2f}", q.at("perplexity_stderr").get<double>())),
               q.at("perplexity").get<double>()) +
        number(kl > 0 ? with_error(small(kl), small(q.value("kl_stderr", 0.0))) : "0", kl) +
        number(held_out < 0 ? "" : small(held_out), held_out) +
        number(fmt::format("{:.1f}", 100 * q.value("top1_agreement", 1.0)), q.value("top1_agreement", 1.0)) +
        speed("prefill_tokens_per_s") + speed("decode_tokens_per_s") + "</tr>";
  }
  return "<div class=\"scroll tall\" tabindex=\"0\"><table class=\"sortable\">" +
         table_head({"#", "Candidate", "#Size", "#Bits per weight", "#Perplexity", "#KL", "#KL held out",
                     "#Top-1 %", "#Prefill t/s", "#Decode t/s"}) +
         "<tbody>" + rows + "</tbody></table></div>";
}

std::string uniform_table(const Json& report) {
  std::string rows;
  for (const Json& u : report.at("uniform_check").at("rows")) {
    std::string against = "larger than the chosen one";
    if (u.contains("chosen_has_lower_kl"))
      against = u.at("chosen_has_lower_kl").get<bool>()
                    ? "<span class=\"pill good\">chosen has lower KL</span>"
                    : "<span class=\"pill bad\">chosen has higher KL</span>";
    const std::string better = u.contains("dominated_by")
                                   ? fmt::format("{} ({}, KL {})", text(u["dominated_by"]["name"]),
                                                 bytes(u["dominated_by"]["bytes"]),
                                                 small(u["dominated_by"]["kl_mean"].get<double>()))
                                   : "none found";
    rows += "<tr>" + cell(text(u.at("uniform"))) + number(bytes(u.at("bytes")), u.at("bytes").get<double>()) +
            number(small(u.at("kl_mean").get<double>()), u.at("kl_mean").get<double>()) + cell(against) +
            cell(better) + "</tr>";
  }
  return "<div class=\"scroll\"><table class=\"sortable\">" +
         table_head({"One format everywhere", "#Size", "#KL", "Against the chosen one",
                     "Mixture of no more bytes and lower KL"}) +
         "<tbody>" + rows + "</tbody></table></div>";
}

std::string kernels_table(const Json& report) {
  std::string rows;
  for (const Json& k : report.at("kernels"))
    rows += "<tr>" + cell("<code>" + text(k.at("kernel")) + "</code>") +
            cell("<code>" + text(k.at("packing")) + "</code>") + cell(text(k.at("nodes")), "n") +
            cell(k.at("emulated").get<bool>()
                     ? "<span class=\"pill bad\">emulated: no kernel of its own here</span>"
                     : "native") +
            "</tr>";
  return "<div class=\"scroll\"><table>" + table_head({"Kernel", "Packing", "#Nodes", ""}) + "<tbody>" +
         rows + "</tbody></table></div>";
}

// Nested objects as "outer: inner" lines.
std::string provenance_list(const Json& object, const std::string& prefix = "") {
  std::string out;
  for (const auto& [key, value] : object.items()) {
    std::string name = prefix + key;
    std::ranges::replace(name, '_', ' ');
    out += value.is_object() ? provenance_list(value, name + ": ")
                             : fmt::format("<dt>{}</dt><dd>{}</dd>", escape_html(name), text(value));
  }
  return out;
}

std::string card(std::string_view name, std::string_view value, std::string_view note) {
  return fmt::format("<div class=\"card\"><h3>{}</h3><p class=\"big\">{}</p><p>{}</p></div>", name, value,
                     note);
}

std::string cards(const Json& report) {
  const Json &base = report.at("base"), &chosen = report.at("chosen"), &q = quality(chosen),
             &q0 = quality(base);
  const double size = chosen.at("bytes").get<double>(), size0 = base.at("bytes").get<double>();
  const double decode = chosen.at("speed").at("decode_tokens_per_s").get<double>(),
               decode0 = base.at("speed").at("decode_tokens_per_s").get<double>();
  return "<div class=\"cards\">" +
         card("Size", bytes(chosen.at("bytes")),
              fmt::format("{:.1f} % of {}; {:.3f} bits per weight", 100 * size / size0,
                          bytes(base.at("bytes")), chosen.at("bits_per_weight").get<double>())) +
         card("Perplexity",
              fmt::format("{:+.2f}\u202f%", chosen.at("perplexity_increase_percent").get<double>()),
              fmt::format("{:.3f} \u00b1 {:.3f}, was {:.3f}", q.at("perplexity").get<double>(),
                          q.at("perplexity_stderr").get<double>(), q0.at("perplexity").get<double>())) +
         card("KL", small(q.value("kl_mean", 0.0)),
              fmt::format("\u00b1 {} nats per token; 99 % below {}", small(q.value("kl_stderr", 0.0)),
                          small(q.value("kl_p99", 0.0)))) +
         card("Top-1 match", fmt::format("{:.1f}\u202f%", 100 * q.value("top1_agreement", 1.0)),
              fmt::format("of {} positions have the same likeliest token",
                          grouped(q.at("tokens").get<double>()))) +
         card("Decode", fmt::format("{} t/s", grouped(decode)),
              fmt::format("{:.2f}\u00d7 of {} t/s; {:.0f} % of the read roof", decode / decode0,
                          grouped(decode0), chosen.at("speed").at("decode_percent_of_roof").get<double>())) +
         card("Memory", bytes(chosen.at("memory_bytes")),
              fmt::format("was {}; weights, KV cache, activations", bytes(base.at("memory_bytes")))) +
         "</div>";
}

}  // namespace

std::string report_page(const Json& report) {
  const Json &verdict = report.at("verdict"), &provenance = report.at("provenance");
  const bool met = verdict.at("met").get<bool>();
  const std::string model = text(provenance.at("model"));
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">"
      "<title>Lathe: {}</title><style>{}</style></head><body><main>\n",
      model, page_css);
  out += fmt::format(
      "<header><p class=\"brand\">Lathe \u00b7 optimization report</p><h1>{} <span class=\"pill "
      "{}\">{}</span></h1><p class=\"headline\">{}</p>"
      "<p class=\"lead\">Goal: {}.</p></header>\n",
      model, met ? "good" : "bad", met ? "limits met" : "limits not met", text(verdict.at("headline")),
      text(verdict.at("goal")));
  out += cards(report);
  out += section("limits", "Limits", "Quality is judged on the held-out text.", limits_table(report));
  out += section("pareto", "Size against quality",
                 "Every candidate, on the calibration text. Down and to the left is better.",
                 pareto_chart(report));
  out += section("speed", "Decode speed",
                 fmt::format("Tokens per second, one sequence, after a prompt of {} tokens, on this machine.",
                             text(report.at("chosen").at("speed").at("prompt_tokens"))),
                 speed_chart(report));
  out += section("layers", "Formats, layer by layer",
                 "A unit is what shares one format: matrices that read the same activation. Its sensitivity "
                 "is the KL of the model with that unit alone in its smallest format.",
                 skyline_chart(report) + units_table(report));
  const Json& check = report.at("uniform_check");
  out += section(
      "uniform", "Against one format everywhere",
      fmt::format("{} uniform formats take equal or fewer bytes than the chosen model; {} of them have a "
                  "higher KL. A mixture of no more bytes and lower KL was found for {} of all {}.",
                  text(check.at("uniform_of_equal_or_fewer_bytes")),
                  text(check.at("of_those_with_higher_kl")), text(check.at("uniform_dominated_by_a_mixture")),
                  check.at("rows").size()),
      uniform_table(report));
  out += section("trials", "Trials",
                 "On the calibration text unless it says otherwise; \u00b1 is one standard error.",
                 trials_table(report));
  out += section("how", "How it was chosen", "",
                 fmt::format("<p>{}</p><p>The search ended because {}.</p>", text(verdict.at("selection")),
                             text(verdict.at("stopped"))));
  out += section("kernels", "Kernels", "What the chosen model runs on here.", kernels_table(report));
  out += section("provenance", "Machine and provenance", "", "<dl>" + provenance_list(provenance) + "</dl>");
  out += section("reproduce", "Reproduce",
                 "The recipe makes the same bytes again, and checks that they are the same.",
                 "<pre><code>" + text(report.at("reproduce")) + "</code></pre>");
  return out + fmt::format("</main><script>{}</script></body></html>\n", page_script);
}

}  // namespace lathe
