// The chat page: which conversation is open, what is typed, and who asks.

import { onUnknownCaller, token } from "./api.js";
import { Conversation } from "./conversation.js";
import * as outbox from "./outbox.js";
import { atTheEnd } from "./view.js";

const CURRENT = "inturn.conversation";

const byId = (id) => document.getElementById(id);
const text = byId("text");
let conversation = null;
// The ID that was made last, until it is opened: the server knows nothing of it yet.
let unheardOf = null;

// The fragment names the conversation, so that "back" goes to the one before.
function open() {
  const id = named() || localStorage.getItem(CURRENT) || newId();
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  localStorage.setItem(CURRENT, id);
  conversation?.leave();
  conversation = new Conversation(id);
  conversation.open({ isNew: id === unheardOf });
  unheardOf = null;
  if (matchMedia("(hover: hover)").matches) text.focus();
}

function newId() {
  unheardOf = `chat-${outbox.newKey()}`;
  return unheardOf;
}

function named() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

function send() {
  const message = text.value.trim();
  if (!message) return;
  text.value = "";
  fit();
  conversation.say(message);
}

// Browsers that have `field-sizing` do it by themselves.
function fit() {
  if (CSS.supports("field-sizing", "content")) return;
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

function askForToken(why) {
  const form = byId("sign-in");
  byId("why").textContent = why ? `This was not accepted: ${why}.` : "This chat wants to know who you are.";
  form.hidden = false;
  byId("composer").hidden = true;
  byId("sign-out").hidden = true;
  byId("token").focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      token.set(byId("token").value.trim());
      byId("token").value = "";
      form.hidden = true;
      byId("composer").hidden = false;
      byId("sign-out").hidden = false;
      text.focus();
      resolve();
    };
  });
}

function signOut() {
  token.forget();
  outbox.clear();
  localStorage.removeItem(CURRENT);
  location.replace(location.pathname);
}

onUnknownCaller(askForToken);
byId("sign-out").hidden = token.get() === null;
byId("sign-out").addEventListener("click", signOut);
byId("new").addEventListener("click", () => (location.hash = newId()));
byId("stop").addEventListener("click", () => conversation.stop());
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
text.addEventListener("input", fit);
text.addEventListener("keydown", (event) => {
  // While a word is composed (Japanese, Chinese, ...) Enter chooses it; 229 is how Safari says so.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) conversation.stop();
});
document.addEventListener("edit", ({ detail }) => {
  text.value = [detail, text.value].filter(Boolean).join("\n");
  fit();
  text.focus();
});
addEventListener("hashchange", open);
atTheEnd.watch();
open();
