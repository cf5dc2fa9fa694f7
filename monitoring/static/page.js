"use strict";
// Asks for what changes of the page every two seconds, by its ETag: an answer of 304 costs nothing and changes nothing.
const INTERVAL_MS = 2000;
const TIMEOUT_MS = 15000;
const view = document.getElementById("view");
const news = document.getElementById("news");
const silence = document.getElementById("silence");
const dialog = document.getElementById("change");
const form = dialog.querySelector("form");
const token = document.getElementById("token");
const reason = document.getElementById("reason");
const outcome = document.getElementById("outcome");
let etag = null;
let silentSince = null;
let asked = null;

function arrange() {
  const header = view.querySelector("header");
  document.title = header.dataset.title;
  // A status region that is replaced is not read out: this one stays, and is told what is new.
  if (news.textContent !== header.dataset.news) news.textContent = header.dataset.news;
  for (const button of view.querySelectorAll("button[data-version]")) button.hidden = false;
}

function replace(text) {
  const focused = document.activeElement && document.activeElement.id;
  const open = [...view.querySelectorAll("details[open]")].map((one) => one.id);
  const places = [...view.querySelectorAll(".wide")].map((one) => one.scrollLeft);
  view.innerHTML = text;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  [...view.querySelectorAll(".wide")].forEach((one, number) => { one.scrollLeft = places[number] ?? 0; });
  arrange();
  if (focused && document.activeElement === document.body) document.getElementById(focused)?.focus();
}

async function look() {
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const answer = await fetch("/view", { headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (answer.status === 200) {
      etag = answer.headers.get("ETag");
      replace(await answer.text());
    } else if (answer.status !== 304) {
      throw new Error(`the service answers ${answer.status}`);
    }
    silentSince = null;
    silence.hidden = true;
  } catch {
    silentSince ??= new Date();
    silence.textContent = `No answer since ${silentSince.toLocaleTimeString()}: what is below is as it was then.`;
    silence.hidden = false;
  }
}

async function lookForEver() {
  if (!document.hidden) await look();
  setTimeout(lookForEver, INTERVAL_MS);
}

view.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-version]");
  if (!button) return;
  asked = button.dataset;
  const words = asked.change === "rollback" ? "Roll back to" : "Promote";
  document.getElementById("change-title").textContent = `${words} version ${asked.version}`;
  outcome.textContent = "";
  dialog.showModal();
});

document.getElementById("cancel").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => { token.value = ""; });

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  outcome.textContent = "";
  try {
    const answer = await fetch(`/v1/models/${asked.version}/${asked.change}`, {
      method: "POST",
      headers: { Authorization: `Bearer ${token.value.trim()}`, "Content-Type": "application/json" },
      body: JSON.stringify({ reason: reason.value }),
    });
    if (!answer.ok) throw new Error((await answer.json()).detail);
    reason.value = "";
    dialog.close();
    await look();
  } catch (error) {
    outcome.textContent = error.message;
  }
});

arrange();
lookForEver();
