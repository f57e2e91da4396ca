// The look of report pages, and the one thing they do: tables sort by a click on a column's head.
#pragma once

#include <string_view>

namespace lathe {

inline constexpr std::string_view page_css = R"css(
:root { color-scheme: light dark; --paper: #fbfaf8; --sheet: #fff; --ink: #1d2327; --soft: #5c666d; --line: #e2dfd8;
  --teal: #0b7a75; --amber: #b4690e; --grey: #9aa3a8; --blue: #3f6fb5; --good: #11713f; --good-bg: #e2f3e8; --bad: #a3241c; --bad-bg: #fbe6e3; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181a; --sheet: #1b2023; --ink: #e6e8e8; --soft: #9ba6ab; --line: #2e363a;
  --teal: #4fc4bb; --amber: #e3a04a; --grey: #6d787e; --blue: #7fa8e0; --good: #7fdca6; --good-bg: #173424; --bad: #ff9d92; --bad-bg: #43201c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .3rem; }
h3 { font-size: .78rem; font-weight: 600; margin: 0; color: var(--soft); text-transform: uppercase; letter-spacing: .04em; }
p { margin: .4rem 0; }
.brand { color: var(--soft); font-size: .9rem; letter-spacing: .02em; }
.headline { font-size: 1.15rem; }
.lead, small { color: var(--soft); }
.lead { margin-bottom: .8rem; max-width: 44rem; }
.pill { display: inline-block; font-size: .8rem; font-weight: 600; line-height: 1; padding: .35em .7em; border-radius: 1em; vertical-align: middle; white-space: nowrap; }
.pill.good { color: var(--good); background: var(--good-bg); }
.pill.bad { color: var(--bad); background: var(--bad-bg); }
.cards { display: grid; grid-template-columns: repeat(6, 1fr); gap: .8rem; margin: 1.6rem 0 0; }
.card { background: var(--sheet); border: 1px solid var(--line); border-radius: 8px; padding: .8rem .9rem; }
.card p { font-size: .82rem; color: var(--soft); line-height: 1.35; margin: 0; }
.card p.big { font-size: 1.35rem; font-weight: 650; color: var(--ink); margin: .1rem 0; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; background: var(--sheet); border: 1px solid var(--line); border-radius: 8px; }
.scroll.tall { max-height: 34rem; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
td.what { min-width: 15rem; line-height: 1.35; }
td small { white-space: nowrap; }
th, td { text-align: left; padding: .42rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
tbody tr:last-child td { border-bottom: 0; }
th { position: sticky; top: 0; background: var(--sheet); color: var(--soft); font-weight: 600; font-size: .8rem; vertical-align: bottom; }
th button { all: unset; cursor: pointer; }
th button:focus-visible, .scroll:focus-visible, g:focus-visible { outline: 2px solid var(--teal); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \2191"; }
th[aria-sort=descending] button::after { content: " \2193"; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
tr.chosen td { background: var(--good-bg); }
code, pre { font: .92em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--sheet); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto; }
.meter { display: block; height: 4px; margin-top: 3px; background: var(--line); border-radius: 2px; min-width: 6rem; }
.meter i { display: block; height: 100%; background: var(--amber); border-radius: 2px; }
.chip { white-space: nowrap; border-left: .6em solid; padding-left: .5em; }
.chip.b4 { border-color: var(--teal); } .chip.b8 { border-color: var(--blue); } .chip.b16 { border-color: var(--grey); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .88rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.chart { display: block; width: 100%; height: auto; background: var(--sheet); border: 1px solid var(--line); border-radius: 8px; margin-bottom: .6rem; font: 12px system-ui, sans-serif; }
.chart text { fill: var(--soft); } .chart .label, .chart .mark { fill: var(--ink); } .chart .mark { font-weight: 650; }
.grid { stroke: var(--line); } .limit { stroke: var(--bad); stroke-dasharray: 5 4; }
.front { fill: none; stroke: var(--teal); stroke-width: 1.5; opacity: .55; }
.mixed { fill: var(--teal); } .uniform { fill: var(--amber); } .ring { fill: none; stroke: var(--ink); stroke-width: 2; }
.bar.base { fill: var(--grey); } .bar.uniform { fill: var(--amber); opacity: .75; } .bar.chosen { fill: var(--teal); }
.unit.b4 { fill: var(--teal); } .unit.b8 { fill: var(--blue); } .unit.b16 { fill: var(--grey); } .unit:hover { opacity: .7; }
.legend { font-size: .85rem; color: var(--soft); }
.key { display: inline-block; width: .65em; height: .65em; margin: 0 .35em 0 .9em; background: var(--teal); border-radius: 50%; }
.key.uniform { background: var(--amber); border-radius: 0; transform: rotate(45deg) scale(.85); }
.key.front { height: 0; width: 1.2em; border-top: 2px solid var(--teal); background: none; border-radius: 0; vertical-align: middle; }
.key.ring { background: none; border: 2px solid var(--ink); }
@media (max-width: 60rem) { .cards { grid-template-columns: repeat(3, 1fr); } }
@media (max-width: 32rem) { .cards { grid-template-columns: repeat(2, 1fr); } }
@media (max-width: 40rem) { section { overflow-x: auto; } .chart { min-width: 36rem; } .scroll { overflow: visible; width: max-content; min-width: 100%; } dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
@media print { :root { --paper: #fff; } main { max-width: none; padding: 0; } body { font-size: 10pt; } .scroll, .scroll.tall { max-height: none; overflow: visible; }
  section, .card, .chart, tr { break-inside: avoid; } #trials, #layers { break-before: auto; } th { position: static; } }
)css";

inline constexpr std::string_view page_script = R"js(
for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("th").forEach((th, column) => {
    const button = document.createElement("button");
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const up = th.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = row => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const order = (a, b) => isNaN(key(a)) || isNaN(key(b)) ? String(key(a)).localeCompare(key(b)) : key(a) - key(b);
      const body = table.tBodies[0];
      [...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)).forEach(row => body.append(row));
    });
  });
)js";

}  // namespace lathe
