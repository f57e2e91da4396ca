// Markdown as nodes: no text of a model is ever parsed as HTML. What it does not know stays as it is written.
import { make } from "./dom.js";

const spans = /(`+)([\s\S]+?)\1(?!`)|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|(?<!\w)_([^_\s][^_\n]*)_(?!\w)|\[([^\]\n]+)\]\((https?:\/\/[^)\s]+)\)/g;

function inline(into, text) {
  let at = 0;
  for (const m of text.matchAll(spans)) {
    into.append(text.slice(at, m.index));
    if (m[2] !== undefined) into.append(make("code", "", m[2]));
    else if (m[3] !== undefined) into.append(make("strong", "", m[3]));
    else if ((m[4] ?? m[5]) !== undefined) into.append(make("em", "", m[4] ?? m[5]));
    else {
      const a = make("a", "", m[6]);
      a.href = m[7];
      a.rel = "noopener noreferrer";
      a.target = "_blank";
      into.append(a);
    }
    at = m.index + m[0].length;
  }
  into.append(text.slice(at));
  return into;
}

const block = (tag, text) => inline(make(tag), text);
const cells = line => line.trim().replace(/^\||\|$/g, "").split("|").map(c => c.trim());

function row(tag, line) {
  const r = make("tr");
  r.append(...cells(line).map(c => block(tag, c)));
  return r;
}

// Deeper lines belong to the item above them.
function list(lines) {
  const indent = /^\s*/.exec(lines[0])[0].length;
  const numbered = /^\s*(\d+)[.)]\s/.exec(lines[0]);
  const all = make(numbered ? "ol" : "ul");
  if (numbered) all.start = Number(numbered[1]);
  for (let i = 0; i < lines.length;) {
    const item = block("li", lines[i++].replace(marker, ""));
    const inner = [];
    while (i < lines.length && /^\s*/.exec(lines[i])[0].length > indent) inner.push(lines[i++]);
    if (inner.length) item.append(list(inner));
    all.append(item);
  }
  return all;
}

const fence = /^\s*```/, heading = /^#{1,6}\s+/, marker = /^\s*(?:[-*+]|\d+[.)])\s+/, quote = /^\s*>\s?/,
  rule = /^\s*([-*_])(\s*\1){2,}\s*$/, divider = /^\s*\|?(\s*:?-+:?\s*\|)+\s*(:?-+:?)?\s*$/;

export function markdown(text) {
  const out = document.createDocumentFragment();
  const lines = text.split("\n");
  const table = i => lines[i].includes("|") && i + 1 < lines.length && divider.test(lines[i + 1]);
  const starts = i => [fence, heading, marker, quote, rule].some(r => r.test(lines[i])) || table(i);
  for (let i = 0; i < lines.length;) {
    const from = i;
    const take = pattern => {
      while (i < lines.length && pattern.test(lines[i])) ++i;
      return lines.slice(from, i);
    };
    if (fence.test(lines[i])) {
      for (++i; i < lines.length && !fence.test(lines[i]);) ++i;
      const pre = make("pre");
      pre.append(make("code", "", lines.slice(from + 1, i).join("\n")));
      out.append(pre);
      ++i;
    } else if (heading.test(lines[i])) {
      out.append(block("h3", lines[i++].replace(heading, "")));
    } else if (rule.test(lines[i])) {
      out.append(make("hr"));
      ++i;
    } else if (table(i)) {
      const t = make("table");
      t.append(row("th", lines[i]));
      for (i += 2; i < lines.length && lines[i].includes("|"); ++i) t.append(row("td", lines[i]));
      const wide = make("div", "wide");
      wide.append(t);
      out.append(wide);
    } else if (marker.test(lines[i])) {
      out.append(list(take(marker)));
    } else if (quote.test(lines[i])) {
      const inner = make("blockquote");
      inner.append(markdown(take(quote).map(l => l.replace(quote, "")).join("\n")));
      out.append(inner);
    } else if (!lines[i].trim()) {
      ++i;
    } else {
      do ++i; while (i < lines.length && lines[i].trim() && !starts(i));
      out.append(block("p", lines.slice(from, i).join("\n")));
    }
  }
  return out;
}
