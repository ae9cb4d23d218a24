// The console: what makes a page follow what happens. Without it a page shows what was when it was loaded.

// Overview: loaded anew every so many seconds. A session: when its tag has changed, which costs a look at Redis
// and none at what was said.
const main = document.querySelector("main");
const { refresh, pulse } = main.dataset;
let { tag, said } = main.dataset;

const SOONEST = 1000;
const LATEST = 15000;
const SLOWER = 1.25;
let pause = SOONEST;
let timer = null;

let isOn = true;

const button = document.createElement("button");
button.type = "button";
button.id = "live";

function show(state) {
  button.dataset.state = state;
  button.textContent = { on: "Pause updates", off: "Follow again", away: "Offline: trying again" }[state];
}

function plan(ms) {
  clearTimeout(timer);
  if (isOn && !document.hidden) timer = setTimeout(look, ms);
}

async function look() {
  try {
    const changed = pulse ? await hasChanged() : true;
    if (changed) await load();
    pause = refresh ? refresh * 1000 : changed ? SOONEST : Math.min(pause * SLOWER, LATEST);
    show("on");
  } catch {
    pause = Math.min(pause * 2, LATEST);
    show("away");
  }
  plan(pause);
}

async function hasChanged() {
  const answer = await fetch(pulse, { redirect: "manual", headers: { Accept: "application/json" } });
  if (answer.type === "opaqueredirect") location.reload(); // signed out meanwhile
  if (!answer.ok) throw new Error(`${answer.status}`);
  const now = await answer.json();
  const left = document.getElementById("lease-left");
  if (left && now.lease_seconds) left.textContent = now.lease_seconds.toFixed(1);
  return now.tag !== tag;
}

async function load() {
  const page = await fetchPage();
  const there = page.querySelector("main");
  if (!there?.dataset.said) return location.reload(); // it is another page now: to sign in, or an error
  for (const section of there.querySelectorAll("[data-live]")) {
    const here = document.getElementById(section.id);
    if (here && here.innerHTML !== section.innerHTML) put(here, document.adoptNode(section));
  }
  tag = there.dataset.tag;
  if (said !== there.dataset.said) {
    said = there.dataset.said;
    document.getElementById("announcer").textContent = said;
  }
}

// Scripts in a document that is loaded so do not run, and no text becomes HTML here.
function fetchPage() {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.onload = () => (request.response && request.status < 500 ? resolve(request.response) : reject());
    request.onerror = reject;
    request.send();
  });
}

// What is open stays open, and who was at a button is at it still.
function put(old, section) {
  const focused = old.contains(document.activeElement) ? keyOf(document.activeElement) : null;
  for (const open of old.querySelectorAll("details[open][id]")) {
    const now = section.querySelector(`#${CSS.escape(open.id)}`);
    if (now) now.open = true;
  }
  old.replaceWith(section);
  if (focused === null) return;
  const again = [...section.querySelectorAll("a, button, summary")].find((each) => keyOf(each) === focused);
  (again ?? main).focus({ preventScroll: true });
}

function keyOf(element) {
  return element.getAttribute("href") ?? element.parentElement?.id ?? element.textContent;
}

if (refresh || pulse) {
  button.addEventListener("click", () => {
    isOn = !isOn;
    show(isOn ? "on" : "off");
    plan(0);
  });
  show("on");
  main.append(button);
  document.addEventListener("visibilitychange", () => plan(0));
  plan(refresh ? refresh * 1000 : SOONEST);
}
