// Prometheus' text format, and what changed between two samples of it.
export function parse(text) {
  const values = new Map(), buckets = new Map();
  for (const line of text.split("\n")) {
    const m = /^([\w:]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!m) continue;
    const le = m[2] && /(?:^|,)le="([^"]+)"/.exec(m[2]);
    if (!le) {
      values.set(m[1], (values.get(m[1]) ?? 0) + Number(m[3]));
      continue;
    }
    const name = m[1].replace(/_bucket$/, "");
    if (!buckets.has(name)) buckets.set(name, []);
    buckets.get(name).push([le[1] === "+Inf" ? Infinity : Number(le[1]), Number(m[3])]);
  }
  return { values, buckets, at: performance.now() / 1000 };
}

// From sample `before` to sample `now`; percentiles of what came since sample `old`. Null: there is none.
export class Change {
  constructor(old, before, now) { Object.assign(this, { old, before, sample: now }); }
  now(name) { return this.sample.values.get(name) ?? null; }
  delta(name) {
    const a = this.before.values.get(name), b = this.sample.values.get(name);
    return a === undefined || b === undefined ? null : b - a;
  }
  rate(name) {
    const n = this.delta(name);
    return n === null ? null : n / (this.sample.at - this.before.at);
  }
  ratio(name, over) {
    const n = this.delta(name), m = this.delta(over);
    return n === null || !m ? null : n / m;
  }
  percentile(name, p) {
    const then = this.old.buckets.get(name), now = this.sample.buckets.get(name);
    if (!now) return null;
    const counts = now.map(([le, n], i) => [le, n - (then?.[i]?.[1] ?? 0)]);
    const wanted = p * counts.at(-1)[1];
    if (!(wanted > 0)) return null;
    let low = 0, below = 0;
    for (const [le, n] of counts) {
      if (n >= wanted) return le === Infinity ? low : low + (le - low) * (wanted - below) / (n - below);
      low = le;
      below = n;
    }
    return low;
  }
}
