// The web API: requests in the caller's name, what is wrong in words, and the events of a turn.

const TOKEN = "inturn.token";
const ANSWER_MS = 30_000;
// The server says something at least every 15 seconds: a connection that is silent for so long is dead.
const SILENCE_MS = 45_000;

// What a request has come to. `status` 0: nothing, for the server cannot be reached. `wait`: in how many seconds
// the server wants to be asked again.
export class Problem extends Error {
  constructor(status, detail, wait = null) {
    super(detail);
    this.status = status;
    this.wait = wait;
  }

  // Whether the same request may succeed later.
  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

let askForToken = null;
let asking = null;

// `ask(why)` is called where the API wants to know who asks; it sets the token before it resolves.
export function onUnknownCaller(ask) {
  askForToken = ask;
}

// The JSON that the API answers. Paths are relative to the page, so that both may live below a prefix.
export function request(method, path, { body, headers = {}, signal }) {
  return inSomebodysName(signal, async (name) => {
    const answer = await send(path, {
      method,
      body: body && JSON.stringify(body),
      headers: { ...headers, ...name, ...(body && { "Content-Type": "application/json" }) },
      signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]),
    });
    return answer.json();
  });
}

// The events of a turn behind the one with the ID `after`, as { kind, data, id }, until the connection ends.
export async function* events(turnId, after, signal) {
  const silence = new AbortController();
  let alarm;
  const listen = () => {
    clearTimeout(alarm);
    alarm = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  try {
    const answer = await inSomebodysName(signal, (name) => {
      listen();
      return send(`turns/${encodeURIComponent(turnId)}/events`, {
        headers: { ...name, ...(after && { "Last-Event-ID": after }) },
        signal: AbortSignal.any([signal, silence.signal]),
      });
    });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let unread = "";
    for (;;) {
      const { done, value } = await cutOff(reader.read());
      if (done) return;
      listen();
      const blocks = (unread + value).split("\n\n");
      unread = blocks.pop();
      yield* blocks.map(parse).filter((event) => event !== null);
    }
  } finally {
    clearTimeout(alarm);
    silence.abort();
  }
}

function parse(block) {
  const fields = new Map();
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 2));
  }
  if (!fields.has("data")) return null;
  return { kind: fields.get("event"), data: JSON.parse(fields.get("data")), id: fields.get("id") };
}

// Do what `attempt` does with the headers that say who asks, again and again until the API knows them.
async function inSomebodysName(signal, attempt) {
  for (;;) {
    signal.throwIfAborted();
    const shown = token.get();
    try {
      return await cutOff(attempt(shown ? { Authorization: `Bearer ${shown}` } : {}));
    } catch (problem) {
      if (problem.status !== 401) throw problem;
      // Another request may have asked, and been told, meanwhile.
      if (token.get() === shown) {
        asking ??= askForToken(shown ? problem.message : "").finally(() => (asking = null));
        await asking;
      }
    }
  }
}

async function send(path, options) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  if (answer.ok) return answer;
  let detail = answer.statusText;
  try {
    detail = (await answer.json()).detail ?? detail;
  } catch {
    // It comes from a proxy, which says what it likes.
  }
  throw new Problem(answer.status, detail, Number(answer.headers.get("Retry-After")) || null);
}

// What a browser throws where the network, or our patience, has ended becomes a `Problem`.
async function cutOff(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error instanceof Problem ? error : new Problem(0, "the server cannot be reached");
  }
}
