// What every part of the page uses.
export const $ = id => document.getElementById(id);

export function make(tag, name, text) {
  const e = document.createElement(tag);
  if (name) e.className = name;
  if (text !== undefined) e.textContent = text;
  return e;
}
export function draw(tag, attributes, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

// The key lives in its field: it is stored nowhere.
const headers = () => $("key").value ? { Authorization: "Bearer " + $("key").value } : {};
export const get = path => fetch(path, { headers: headers(), cache: "no-store" });
export const post = (path, body, signal) =>
  fetch(path, { method: "POST", headers: { "Content-Type": "application/json", ...headers() }, body: JSON.stringify(body), signal });

const units = ["B", "kB", "MB", "GB", "TB"];
export function bytes(n) {
  let i = 0;
  for (; n >= 1000 && i + 1 < units.length; ++i) n /= 1000;
  return n.toPrecision(3) + " " + units[i];
}
export const count = x => x >= 100 ? Math.round(x).toLocaleString("en") : x.toFixed(x < 10 ? 1 : 0);
