// The outbox: messages that were written here and have no reply yet. It outlives the page.
//
// Each has an entry of its own in the browser's storage, so that two tabs never overwrite each other's. An
// entry is { key, text, at, id }: `key` makes a repeated request the same turn, `id` is there once the turn
// was accepted.

const PREFIX = "inturn.sent/";

const nameOf = (sessionId, key) => `${PREFIX}${encodeURIComponent(sessionId)}/${key}`;

// The entries of a conversation, in the order in which they were written.
export function entries(sessionId) {
  return names()
    .filter((name) => name.startsWith(nameOf(sessionId, "")))
    .map((name) => JSON.parse(localStorage.getItem(name)))
    .sort((one, other) => one.at - other.at);
}

export function put(sessionId, { key, text, at, id }) {
  try {
    localStorage.setItem(nameOf(sessionId, key), JSON.stringify({ key, text, at, id }));
  } catch {
    // The storage is full. The message is sent all the same, and only a reload would lose it.
  }
}

export function drop(sessionId, key) {
  localStorage.removeItem(nameOf(sessionId, key));
}

// Call `tell` whenever another tab has changed what is kept of a conversation, until `signal`.
export function onChange(sessionId, tell, signal) {
  addEventListener("storage", ({ key }) => key?.startsWith(nameOf(sessionId, "")) && tell(), { signal });
}

// Forget all conversations.
export function clear() {
  for (const name of names()) localStorage.removeItem(name);
}

function names() {
  return Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
}

// A key that nobody else has.
export function newKey() {
  // Not `randomUUID`, which plain HTTP does not have.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
