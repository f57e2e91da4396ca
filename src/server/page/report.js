// What `lathe optimize` wrote about this model: /report.json. It came with the model's files, so it is untrusted
// text: nodes are made of it, never HTML, and whatever it lacks is left out.
import { $, make, draw, bytes, count } from "./dom.js";

const quality = trial => trial.held_out ?? trial.search;
const arrow = (a, b) => a + " → " + b;

function facts(report) {
  const { base, chosen } = report, a = quality(base), b = quality(chosen);
  const all = make("dl");
  const fact = (name, text) => all.append(make("dt", "", name), make("dd", "", text));
  fact("Size", arrow(bytes(base.bytes), bytes(chosen.bytes)));
  fact("Bits per weight", arrow(base.bits_per_weight.toFixed(2), chosen.bits_per_weight.toFixed(2)));
  fact("Perplexity", arrow(a.perplexity.toFixed(2), b.perplexity.toFixed(2)));
  fact("KL divergence", b.kl_mean.toPrecision(3) + " nats a token");
  fact("Same first choice", (100 * b.top1_agreement).toFixed(1) + " %");
  if (base.speed && chosen.speed)
    fact("Decoding", arrow(count(base.speed.decode_tokens_per_s), count(chosen.speed.decode_tokens_per_s)) + " tokens/s");
  for (const limit of report.constraints ?? []) fact(limit.met ? "Limit met" : "Limit failed", limit.text);
  return all;
}

// Every candidate: bytes to the right, KL upwards in decades.
function candidates(report) {
  const points = report.trials.filter(t => t.search?.kl_mean > 0);
  if (points.length < 2) return "";
  const width = 340, tall = 170, left = 8, bottom = 22;
  const scale = (values, from, to) => {
    const low = Math.min(...values), high = Math.max(...values);
    return v => from + (v - low) / Math.max(high - low, 1e-12) * (to - from);
  };
  const x = scale(points.map(t => t.bytes), left + 8, width - 12);
  const y = scale(points.map(t => Math.log10(t.search.kl_mean)), tall - bottom - 10, 12);
  const dots = points.sort((a, b) => a.chosen - b.chosen).map(t => {
    const dot = draw("circle", { class: t.chosen ? "chosen" : t.kind === "uniform" ? "uniform" : "mixed",
      cx: x(t.bytes).toFixed(1), cy: y(Math.log10(t.search.kl_mean)).toFixed(1), r: t.chosen ? 6 : 3.5 });
    const title = draw("title", {});
    title.textContent = `${t.name}: ${bytes(t.bytes)}, KL ${t.search.kl_mean.toPrecision(3)}`;
    dot.append(title);
    return dot;
  });
  const label = (text, at, anchor) => {
    const e = draw("text", { x: at, y: tall - 5, "text-anchor": anchor });
    e.textContent = text;
    return e;
  };
  const sizes = points.map(t => t.bytes);
  const figure = make("figure"), caption = make("figcaption", "", "Size to the right, KL upwards (log). ");
  for (const [kind, name] of [["chosen", "chosen"], ["mixed", "mixed per layer"], ["uniform", "one format"]])
    caption.append(make("span", "dot " + kind), name + " ");
  figure.append(draw("svg", { viewBox: `0 0 ${width} ${tall}`, role: "img", "aria-label": "Size against KL divergence of every candidate" },
    draw("path", { class: "axis", d: `M${left} 4V${tall - bottom}H${width - 4}` }), ...dots,
    label(bytes(Math.min(...sizes)), left, "start"), label(bytes(Math.max(...sizes)), width - 4, "end")), caption);
  return figure;
}

function formats(report) {
  const all = make("details"), table = make("table"), head = make("tr");
  head.append(...["Unit", "Format", "Size"].map(name => make("th", "", name)));
  table.append(head);
  for (const node of report.nodes ?? []) {
    const row = make("tr"), size = node.metrics?.find(m => m.name === "bytes");
    row.append(make("td", "", node.node), make("td", "", node.format), make("td", "", size ? bytes(size.value) : ""));
    table.append(row);
  }
  all.append(make("summary", "", "Formats, layer by layer"), table);
  return all;
}

export function showReport(report, whole) {
  const into = $("report"), title = make("h2", "", "Optimization "), card = make("div", "card");
  title.append(make("span", "pill " + (report.verdict.met ? "good" : "bad"), report.verdict.met ? "limits met" : "limits not met"));
  card.append(make("p", "", report.verdict.headline), facts(report), candidates(report), formats(report));
  into.replaceChildren(title, card);
  if (whole) {
    const link = make("a", "", "The whole report");
    link.href = whole;
    link.target = "_blank";
    link.rel = "noopener";
    card.append(link);
  }
  into.hidden = false;
}
