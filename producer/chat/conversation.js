// A conversation: its history, the messages on their way, and the replies that are being written.
//
// Messages are sent one by one, in order, each until the server has accepted it. Replies are read one at a time
// too: a session's turns run in order, and a browser has few connections to one server.

import { Problem, events, request } from "./api.js";
import * as outbox from "./outbox.js";
import { Message, atTheEnd, view } from "./view.js";

const PAGE = 50;
const FIRST_WAIT = 0.5;
const LONGEST_WAIT = 10;

export class Conversation {
  #path;
  #turns = [];
  #left = new AbortController();
  #sending = false;
  #reading = false;
  #loaded = false;
  // What is wrong now, by the call that has found out.
  #troubles = new Map();

  constructor(id) {
    this.id = id;
    this.#path = `sessions/${encodeURIComponent(id)}`;
  }

  // Show what was said, go on with what has not ended, and resend what was not accepted.
  open({ isNew }) {
    view.clear();
    for (const entry of outbox.entries(this.id)) this.#add(entry);
    this.#do(() => this.#send());
    this.#do(async () => {
      if (isNew) view.showWhetherEmpty();
      else await this.#load();
      this.#loaded = true;
      await this.#read();
    });
  }

  leave() {
    this.#left.abort();
  }

  say(text) {
    const turn = this.#add({ key: randomId(), text, at: Date.now() });
    outbox.put(this.id, turn);
    atTheEnd.go();
    this.#do(() => this.#send());
  }

  // Stop the reply that is being written, or drop the message that is next.
  stop() {
    const [turn] = this.#open;
    if (turn && !turn.stops) this.#do(() => this.#stop(turn));
  }

  get #open() {
    return this.#turns.filter((turn) => turn.id && !turn.isOver);
  }

  // `text` is unknown of a message that was sent from elsewhere.
  #add({ key, text, at, id }, behind) {
    const asked = new Message("user", text ?? "A message from elsewhere");
    asked.item.classList.toggle("unknown", text === undefined);
    view.add(asked, behind);
    const turn = { key, text, at, id, asked, reply: null, after: "", status: "", ahead: 0, isOver: false };
    this.#turns.push(turn);
    if (!id) asked.mark("sending", "sending");
    return turn;
  }

  async #load() {
    let session, keys, newest;
    try {
      // In this order: a turn that has ended in between is in the history.
      session = await this.#persist(() => this.#ask("GET", this.#path));
      ({ keys, newest } = await this.#loadPage());
    } catch (problem) {
      if (problem.status !== 404) throw problem;
      view.showWhetherEmpty();
      return; // it begins with its first message
    }
    for (const turn of this.#turns.filter((turn) => keys.has(turn.key))) this.#forget(turn);
    let last = newest ?? null;
    for (const id of session.turns.filter((id) => !keys.has(keyOf(id)))) {
      const known = this.#turns.find((turn) => turn.key === keyOf(id));
      const turn = known ?? this.#add({ key: keyOf(id), id, at: 0 }, last);
      turn.id = id;
      last = turn.asked;
    }
    // In the order of their turns, and those that are not accepted yet behind them.
    const places = new Map(session.turns.map((id, place) => [id, place]));
    this.#turns.sort((one, other) => (places.get(one.id) ?? Infinity) - (places.get(other.id) ?? Infinity) || 0);
    view.showWhetherEmpty();
    atTheEnd.go();
  }

  // Show a page of the history before what is shown; gives the keys of its turns, and its newest message.
  async #loadPage(cursor = null) {
    const query = new URLSearchParams({ order: "newest", limit: PAGE, ...(cursor && { cursor }) });
    const page = await this.#persist(() => this.#ask("GET", `${this.#path}/messages?${query}`));
    const lines = page.items.filter((line) => line.role === "user" || line.role === "assistant");
    const messages = lines
      .filter((line) => line.content || line.images.length)
      .map((line) => {
        const message = new Message(line.role, line.content || "An image");
        if (line.interrupted && line.role === "assistant") message.mark("stopped", "stopped");
        return message;
      });
    view.prepend(messages.reverse());
    view.showEarlier(page.cursor && (() => this.#do(() => this.#loadPage(page.cursor))));
    const keys = new Set(page.items.filter((line) => line.turn_id).map((line) => keyOf(line.turn_id)));
    return { keys, newest: messages.at(-1) };
  }

  async #send() {
    if (this.#sending) return;
    this.#sending = true;
    try {
      let turn;
      while ((turn = this.#turns.find((turn) => !turn.id && !turn.isOver))) await this.#sendOne(turn);
    } finally {
      this.#sending = false;
    }
  }

  async #sendOne(turn) {
    const body = { message: turn.text, stream: true };
    const headers = { "Idempotency-Key": turn.key };
    try {
      const accepted = await this.#persist(
        () => this.#ask("POST", `${this.#path}/turns`, { body, headers }),
        (problem, seconds) => turn.asked.mark("unsent", `not sent yet${because(problem, seconds)}`),
      );
      turn.id = accepted.turn_id;
      turn.ahead = accepted.ahead ?? 0;
      outbox.put(this.id, turn);
      this.#label();
      this.#do(() => this.#read());
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#refuse(turn, `not sent: ${refusal(problem)}`);
    }
  }

  // Say why a message will not be answered, and let it be mended. Until then it is kept.
  #refuse(turn, words) {
    turn.isOver = true;
    view.announce(words);
    const press = () => {
      this.#forget(turn);
      document.dispatchEvent(new CustomEvent("edit", { detail: turn.text }));
    };
    turn.asked.mark("refused", words, turn.text === undefined ? null : { label: "Edit", press });
  }

  async #read() {
    if (this.#reading || !this.#loaded) return;
    this.#reading = true;
    try {
      let turn;
      while (([turn] = this.#open) && turn) await this.#readOne(turn);
    } finally {
      this.#reading = false;
    }
  }

  async #readOne(turn) {
    this.#label();
    try {
      await this.#persist(async (heard) => {
        for await (const event of events(turn.id, turn.after, this.#left.signal)) {
          heard();
          this.#take(turn, event);
          if (turn.isOver) return;
        }
        // The server has let us go, as it does when it stops, and wants us to come again.
        await pause(1, this.#left.signal);
      });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#refuse(turn, problem.status === 404 ? "not answered: it is not known any more" : refusal(problem));
    }
    if (turn.isOver && turn.text === undefined) await this.#fill(turn);
    this.#label();
  }

  #take(turn, { kind, data, id }) {
    this.#left.signal.throwIfAborted();
    turn.after = id ?? turn.after;
    if (kind === "state") {
      Object.assign(turn, { status: data.status, ahead: data.ahead });
    } else if (kind === "piece") {
      const reply = this.#replyTo(turn);
      if (data.restarts) reply.text = data.text;
      else reply.append(data.text);
    } else if (kind === "done" || kind === "failed") {
      this.#end(turn, data);
    }
    this.#label();
  }

  #end(turn, { status, reply, error }) {
    turn.isOver = true;
    outbox.drop(this.id, turn.key);
    turn.asked.mark("");
    if (status === "cancelled") {
      turn.asked.mark("withdrawn", "withdrawn");
      view.announce("withdrawn");
    } else if (status === "done") {
      // A reply to several messages stands behind the last of them, as it does in the history.
      const first = this.#turns.find((other) => other !== turn && other.id === reply.turn_id);
      first?.reply?.remove();
      const isStopped = reply.finish_reason === "interrupted";
      if (reply.message || isStopped) {
        const shown = this.#replyTo(turn);
        shown.text = reply.message;
        shown.mark(isStopped ? "stopped" : "", isStopped ? "stopped" : "");
      }
      view.announce(isStopped ? `Stopped. ${reply.message}` : reply.message);
    } else {
      const shown = this.#replyTo(turn);
      shown.mark("failed", shown.text ? "failed" : `failed: ${error}`);
      view.announce(`Failed. ${shown.text || error}`);
    }
  }

  // Say of each message where it stands.
  #label() {
    const open = this.#open;
    open.forEach((turn, place) => {
      const behind = place + open[0].ahead;
      if (place === 0 && (turn.status === "running" || turn.reply)) {
        turn.asked.mark("");
        const writes = turn.reply?.text ? "writing" : "thinking";
        const words = turn.stops ? "stopping" : turn.status === "running" ? writes : "trying again";
        this.#mark(turn, this.#replyTo(turn), writes, words);
      } else {
        const words = turn.stops ? "withdrawing" : behind > 0 ? `queued behind ${behind}` : "waiting";
        const withdraw = { label: "Withdraw", press: () => this.#do(() => this.#stop(turn)) };
        this.#mark(turn, turn.asked, "queued", words, turn.stops ? null : withdraw);
      }
    });
    view.mayStop(open.length > 0);
  }

  #mark(turn, message, kind, words, action) {
    message.mark(kind, words, action);
    if (turn.told !== words && kind !== "writing") view.announce(words);
    turn.told = words;
  }

  #replyTo(turn) {
    if (turn.reply === null) {
      turn.reply = new Message("assistant");
      view.add(turn.reply, turn.asked);
    }
    return turn.reply;
  }

  async #stop(turn) {
    turn.stops = true;
    this.#label();
    const stopped = await this.#persist(() => this.#ask("DELETE", `turns/${encodeURIComponent(turn.id)}`));
    if (stopped.outcome === "dropped" && !turn.isOver) {
      this.#end(turn, { status: "cancelled" });
      this.#label();
    }
  }

  // Find out what a message says that was sent from elsewhere, now that it is in the history.
  async #fill(turn) {
    const query = new URLSearchParams({ order: "newest", limit: PAGE });
    const page = await this.#persist(() => this.#ask("GET", `${this.#path}/messages?${query}`));
    const line = page.items.find((line) => line.turn_id === turn.id && line.role === "user");
    turn.asked.item.classList.remove("unknown");
    if (line) turn.asked.text = line.content || "An image";
    else if (!turn.reply) turn.asked.remove();
  }

  #forget(turn) {
    outbox.drop(this.id, turn.key);
    turn.asked.remove();
    turn.reply?.remove();
    this.#turns = this.#turns.filter((other) => other !== turn);
    view.showWhetherEmpty();
  }

  #ask(method, path, options) {
    return request(method, path, { signal: this.#left.signal, ...options });
  }

  // Try until it comes to something; `tell(problem, seconds)` hears what is wrong and when it is tried again.
  async #persist(attempt, tell = () => {}) {
    const call = Symbol("a call");
    let tries = 0;
    const heard = () => {
      tries = 0;
      this.#note(call, null);
    };
    for (;;) {
      try {
        const result = await attempt(heard);
        heard();
        return result;
      } catch (problem) {
        this.#left.signal.throwIfAborted();
        if (!problem.passes) {
          heard();
          throw problem;
        }
        let left = problem.wait ?? Math.min(FIRST_WAIT * 2 ** tries++, LONGEST_WAIT) * (0.75 + Math.random() / 2);
        while (left > 0) {
          this.#note(call, trouble(problem));
          tell(problem, Math.ceil(left));
          const isWoken = await pause(Math.min(left, 1), this.#left.signal);
          left = isWoken && problem.status === 0 ? 0 : left - 1;
        }
      }
    }
  }

  #note(call, words) {
    if (words) this.#troubles.set(call, words);
    else this.#troubles.delete(call);
    view.connection([...this.#troubles.values()].at(-1) ?? "");
  }

  // What nobody waits for: it may end because the conversation was left.
  async #do(work) {
    try {
      await work();
    } catch (problem) {
      if (this.#left.signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      view.connection(refusal(problem));
    }
  }
}

export function randomId() {
  // Not `randomUUID`, which plain HTTP does not have.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Behind the session's ID, which has no colon in here.
const keyOf = (turnId) => turnId.slice(turnId.indexOf(":") + 1);

function trouble({ status }) {
  if (status === 0) return "Offline: reconnecting";
  return status === 429 ? "Too many requests: waiting" : "Not available: trying again";
}

function because({ status }, seconds) {
  if (status === 0) return "";
  const why = status === 429 ? "too many messages" : "the service is not available";
  return `: ${why}, next try in ${seconds} s`;
}

function refusal({ status, message }) {
  if (status === 413) return "the message is too long";
  if (status === 404) return "this conversation is somebody else's; begin a new one";
  return message;
}

// Wait; gives whether the network, or the reader's eye, came back meanwhile.
function pause(seconds, signal) {
  return new Promise((resolve) => {
    const over = new AbortController();
    const end = (isWoken) => {
      clearTimeout(alarm);
      over.abort();
      resolve(isWoken);
    };
    const alarm = setTimeout(end, seconds * 1000, false);
    const options = { signal: over.signal };
    addEventListener("online", () => end(true), options);
    document.addEventListener("visibilitychange", () => document.hidden || end(true), options);
    signal.addEventListener("abort", () => end(false), options);
  });
}
