// Puts the page together: which model is served, whether the server is there, and the two views of narrow windows.
import { $, make, get } from "./dom.js";
import { startChat, offerChat, needKey } from "./chat.js";
import { startCharts, addSample, forgetSamples } from "./charts.js";
import { showReport } from "./report.js";

async function describe() {
  const models = (await (await get("v1/models")).json()).data, props = await (await get("props")).json();
  const context = models[0].max_model_len;
  $("model").textContent = models[0].id + (context ? " · context " + context.toLocaleString("en") : "");
  document.title = models[0].id + " – Lathe";
  $("adapter").replaceChildren(...models.map(m => make("option", "", m.id)));
  $("adapter").parentElement.hidden = models.length < 2;
  offerChat(Boolean(props.chat_template));
  $("report").hidden = true;
  const reply = await get("report.json");
  if (!reply.ok) return;  // not every model has one
  try {
    showReport(await reply.json(), $("key").value ? null : "report.html");  // a link sends no key
  } catch (e) {
    $("report").replaceChildren(make("div", "error", "The model's report.json cannot be read: " + e.message));
    $("report").hidden = false;
  }
}

const says = { 401: "wants an API key", 503: "loading the model" };
let state = "";
async function sample() {
  let next = "down", said = "not reachable";
  try {
    const reply = await get("metrics");
    if (reply.ok) {
      addSample(await reply.text());
      if (state !== "up") await describe();
      [next, said] = ["up", "ready"];
    } else {
      said = says[reply.status] ?? "answers " + reply.status;
      if (reply.status === 401 && state === "") needKey();
    }
  } catch (e) {
    if (!(e instanceof TypeError)) said = "not understood: " + e.message;
  }
  if (next === "down") forgetSamples();
  state = next;
  $("state").className = state;
  if ($("state").textContent !== said) $("state").textContent = said;
  setTimeout(sample, document.hidden ? 5000 : 1000);
}

for (const button of document.querySelectorAll("nav button"))
  button.addEventListener("click", () => {
    document.body.dataset.view = button.dataset.view;
    for (const b of document.querySelectorAll("nav button")) b.setAttribute("aria-pressed", b === button);
  });
startChat();
startCharts();
sample();
