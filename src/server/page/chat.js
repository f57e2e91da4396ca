// The conversation: what is asked, and the answer as it streams.
import { $, make, post, count } from "./dom.js";
import { markdown } from "./markdown.js";

let messages = [], running = null;
const log = $("log"), empty = $("empty"), chatting = () => $("mode").value === "chat";

function turn(kind, who) {
  empty.remove();
  const e = make("article", "turn " + kind);
  e.append(make("h2", "", who));
  log.append(e);
  log.scrollTop = log.scrollHeight;
  return e;
}

const numbers = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];
function request(text) {
  const r = { stream: true, stream_options: { include_usage: true } };
  if ($("adapter").value) r.model = $("adapter").value;
  for (const name of numbers) if ($(name).value !== "") r[name] = Number($(name).value);
  if (!chatting()) return { ...r, prompt: text };
  const system = $("system").value;
  return { ...r, messages: [...(system ? [{ role: "system", content: system }] : []), ...messages] };
}

// The data of server-sent events.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts)
      for (const line of part.split("\n")) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

async function problem(reply) {
  const said = await reply.json().catch(() => null);
  if (reply.status === 401) needKey();
  return new Error(said?.error?.message || "the server answered " + reply.status);
}

// What an answer looks like while it grows: drawn once a frame, however fast tokens come.
class View {
  text = ""; thoughts = ""; drawn = true;
  constructor() {
    this.turn = turn(chatting() ? "model" : "model plain", "Model");
    this.turn.classList.add("busy");
    this.turn.setAttribute("aria-busy", "true");
    this.thinking = make("details", "thoughts");
    this.thinking.append(make("summary", "", "Thoughts"), make("div", ""));
    this.thinking.hidden = true;
    this.body = make("div", "text");
    this.foot = make("div", "foot");
    this.turn.append(this.thinking, this.body, this.foot);
  }
  add(text, thoughts) {
    this.text += text ?? "";
    this.thoughts += thoughts ?? "";
    if (!this.drawn) return;
    this.drawn = false;
    requestAnimationFrame(() => this.draw());
  }
  draw() {
    this.drawn = true;
    const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    this.thinking.hidden = !this.thoughts;
    this.thinking.lastChild.textContent = this.thoughts;
    if (this.turn.classList.contains("plain")) this.body.textContent = this.text;
    else this.body.replaceChildren(markdown(this.text));
    if (follow) log.scrollTop = log.scrollHeight;
  }
  fail(message) {
    const e = make("div", "error", message);
    e.setAttribute("role", "alert");
    this.foot.before(e);
  }
  end(note) {
    this.draw();
    this.foot.textContent = note;
    this.turn.classList.remove("busy");
    this.turn.removeAttribute("aria-busy");
    log.scrollTop = log.scrollHeight;
  }
}

async function ask(text) {
  const chat = chatting(), history = messages;
  turn("user", "You").append(make("div", "text", text));
  if (chat) messages.push({ role: "user", content: text });
  const view = new View(), stop = running = new AbortController(), start = performance.now();
  $("send").hidden = true;
  $("stop").hidden = false;
  let first = 0, generated = 0, finish = "";
  try {
    const reply = await post(chat ? "v1/chat/completions" : "v1/completions", request(text), stop.signal);
    if (!reply.ok) throw await problem(reply);
    for await (const data of events(reply.body)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data), choice = chunk.choices?.[0];
      if (chunk.error) throw new Error(chunk.error.message);
      if (chunk.usage) generated = chunk.usage.completion_tokens;
      if (!choice) continue;
      finish = choice.finish_reason ?? finish;
      const words = chat ? choice.delta?.content : choice.text, thoughts = choice.delta?.reasoning_content;
      if (!words && !thoughts) continue;
      first ||= performance.now();
      view.add(words, thoughts);
    }
    if (!finish) throw new Error("the server ended the answer early");
  } catch (e) {
    if (e.name !== "AbortError") view.fail(e instanceof TypeError ? "The server cannot be reached." : e.message);
    else finish = "stopped";
  }
  // A question without an answer is not part of what comes next, and can be put again.
  if (chat) view.text ? history.push({ role: "assistant", content: view.text }) : history.pop();
  if (!view.text && !$("prompt").value) $("prompt").value = text;
  const notes = [], seconds = (performance.now() - first) / 1000;
  if (first) notes.push("first token after " + Math.round(first - start) + " ms");
  if (first && generated > 1 && seconds > 0) notes.push(generated + " tokens, " + count((generated - 1) / seconds) + " a second");
  if (finish === "length") notes.push("cut off at the limit of tokens");
  if (finish === "stopped") notes.push("stopped");
  view.end(notes.join(" · "));
  running = null;
  $("send").hidden = false;
  $("stop").hidden = true;
}

export function needKey() {
  $("settings").open = true;
  $("key").focus();
}

// Without a chat template a model continues what is written, and nothing else.
export function offerChat(yes) {
  $("mode").querySelector("[value=chat]").disabled = !yes;
  if (!yes) $("mode").value = "text";
  showMode();
}
function showMode() {
  empty.firstElementChild.textContent = chatting() ? "Ask something." : "Begin a text.";
  $("hint").textContent = $("mode").querySelector("[value=chat]").disabled
    ? "This model has no chat template: it continues what you write."
    : "What you write goes to this server and nowhere else.";
  $("prompt").placeholder = chatting() ? "Message" : "The beginning of a text";
  $("system").disabled = !chatting();
}

export function startChat() {
  $("form").addEventListener("submit", e => {
    e.preventDefault();
    const text = $("prompt").value;
    if (!text.trim() || running) return;
    $("prompt").value = "";
    ask(text);
  });
  // A field in closed settings cannot show what is wrong with it.
  $("form").addEventListener("invalid", () => { $("settings").open = true; }, true);
  $("prompt").addEventListener("keydown", e => {
    if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
    e.preventDefault();
    $("form").requestSubmit();
  });
  $("stop").addEventListener("click", () => running?.abort());
  addEventListener("keydown", e => { if (e.key === "Escape") running?.abort(); });
  $("clear").addEventListener("click", () => {
    running?.abort();
    messages = [];
    log.replaceChildren(empty);
    $("prompt").focus();
  });
  $("mode").addEventListener("change", showMode);
}
