// The engine's last two minutes, a point for each sample of /metrics.
import { $, make, draw, count } from "./dom.js";
import { parse, Change } from "./metrics.js";

const kept = 120, height = 40, window = 30;  // samples; of them, those that percentiles look back
const seconds = x => x < .01 ? (x * 1e3).toFixed(1) + " ms" : x < 1 ? Math.round(x * 1e3) + " ms" : x.toFixed(1) + " s";
const percentiles = name => d => [.5, .99].map(p => d.percentile(name, p));

const charts = [
  { name: "Tokens/s", lines: ["generated", "prompts"], show: count,
    of: d => [d.rate("vllm:generation_tokens_total"), d.rate("vllm:prompt_tokens_total")] },
  { name: "Requests", lines: ["running", "waiting"], show: String,
    of: d => [d.now("vllm:num_requests_running"), d.now("vllm:num_requests_waiting")] },
  { name: "KV cache used", lines: [""], show: x => (100 * x).toFixed(x < .1 ? 1 : 0) + " %", most: 1,
    of: d => [d.now("vllm:kv_cache_usage_perc")] },
  { name: "Sequences a step", lines: [""], show: count,
    of: d => [d.ratio("vllm:generation_tokens_total", "lathe:engine_steps_total")] },
  { name: "First token", lines: ["p50", "p99"], show: seconds, of: percentiles("vllm:time_to_first_token_seconds") },
  { name: "Token to token", lines: ["p50", "p99"], show: seconds, of: percentiles("vllm:inter_token_latency_seconds") },
];

function build(c) {
  c.values = c.lines.map(() => []);
  c.paths = c.lines.map((_, i) => draw("path", { class: "line " + "ab"[i] }));
  c.shown = c.lines.map((_, i) => make("span", "value " + "ab"[i], "–"));
  c.top = make("span", "top");
  const head = make("div", "head"), numbers = make("div", "numbers"), plot = make("div", "plot");
  c.lines.forEach((name, i) => numbers.append(c.shown[i], ...(name ? [make("span", "", name)] : [])));
  head.append(make("h3", "", c.name), numbers);
  plot.append(draw("svg", { viewBox: `0 0 ${kept - 1} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("line", { class: "axis", x1: 0, x2: kept - 1, y1: height, y2: height }), ...c.paths), c.top);
  const card = make("div", "card");
  card.append(head, plot);
  $("charts").append(card);
}

// Lines break where there was nothing to measure.
function line(values, most) {
  const from = kept - values.length;
  let path = "";
  values.forEach((v, i) => {
    if (v === null) return;
    const begins = i === 0 || values[i - 1] === null, y = (height - (height - 2) * Math.min(1, v / most)).toFixed(2);
    path += (begins ? "M" : "L") + (from + i) + " " + y;
    if (begins && (values[i + 1] ?? null) === null) path += "h.5";
  });
  return path;
}

function show(c, values) {
  values.forEach((v, i) => {
    c.values[i].push(v);
    if (c.values[i].length > kept) c.values[i].shift();
    c.shown[i].textContent = v === null ? "–" : c.show(v);
  });
  const most = Math.max(0, ...c.values.flat().filter(v => v !== null));
  c.values.forEach((v, i) => c.paths[i].setAttribute("d", line(v, c.most ?? (most || 1))));
  c.top.textContent = c.most ? c.show(c.most) : most ? c.show(most) : "";
}

export function startCharts() { charts.forEach(build); }

let samples = [];
export function addSample(text) {
  samples.push(parse(text));
  if (samples.length > window + 1) samples.shift();
  if (samples.length < 2) return;
  const change = new Change(samples[0], samples.at(-2), samples.at(-1));
  for (const c of charts) show(c, c.of(change));
}
export function forgetSamples() { samples = []; }
