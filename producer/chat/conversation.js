// A conversation: its history, the messages on their way, and the replies that are being written.
//
// Messages are sent one by one, in order, each until the server has accepted it. Replies are read one at a time
// too: a session's turns run in order, and a browser has few connections to one server. Others may write to the
// session as well, in another tab or on another device: the page looks now and then, and what the history says
// counts, text and order. A turn whose lines are there is settled; until then it stands behind them.

import { Problem, events, request } from "./api.js";
import * as outbox from "./outbox.js";
import { Bell, Patience, because, pause, refusal } from "./patience.js";
import { Message, atTheEnd, isShown, view } from "./view.js";

const PAGE = 50;
const MOST_AT_ONCE = 200;
// Seconds between two looks at a session: soon after something was said, later and later while nothing is.
const FIRST_LOOK = 2;
const LAST_LOOK = 30;
const LOOKS_SLOW_DOWN = 1.5;

export class Conversation {
  #path;
  #turns = [];
  #left = new AbortController();
  #sending = false;
  #reading = false;
  #loaded = false;
  #patience = new Patience(this.#left.signal);
  // Rings when there is something to look for in the history.
  #bell = new Bell();
  // The turn whose reply is being read, and what ends the reading.
  #listening = null;
  // How far the history is on the screen: its version, the last sequence, the last message, the turns.
  #version = null;
  #seen = null;
  #last = null;
  #settled = new Set();

  constructor(id) {
    this.id = id;
    this.#path = `sessions/${encodeURIComponent(id)}`;
  }

  // Show what was said, go on with what has not ended, and resend what was not accepted.
  open({ isNew }) {
    view.clear();
    for (const entry of outbox.entries(this.id)) this.#add(entry);
    outbox.onChange(this.id, () => this.#bell.ring(), this.#left.signal);
    this.#do(() => this.#send());
    this.#do(() => this.#keepUp({ isNew }));
  }

  leave() {
    this.#left.abort();
  }

  say(text) {
    const turn = this.#add({ key: outbox.newKey(), text, at: Date.now() });
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

  async #keepUp({ isNew }) {
    const signal = this.#left.signal;
    const goOn = () => {
      this.#loaded = true;
      view.showWhetherEmpty();
      this.#do(() => this.#read());
    };
    if (isNew) {
      goOn();
      await this.#bell.untilItRings(signal);
    }
    for (let wait = FIRST_LOOK; ; ) {
      const isNews = await this.#look();
      goOn();
      wait = isNews ? FIRST_LOOK : Math.min(wait * LOOKS_SLOW_DOWN, LAST_LOOK);
      if (await this.#bell.rest(wait, signal)) wait = FIRST_LOOK;
    }
  }

  // Bring the screen to where the session is; gives whether there was anything new.
  async #look() {
    const ended = this.#turns.filter((turn) => turn.isOver && turn.text === undefined);
    let session, lines;
    try {
      // In this order: a turn that has ended in between is in the history.
      session = await this.#patience.persist(() => this.#ask("GET", this.#path));
      lines = session.version === this.#version ? [] : await this.#newLines();
    } catch (problem) {
      if (problem.status !== 404) throw problem;
      return false; // it begins with its first message
    }
    this.#version = session.version;
    this.#seen = Math.max(session.message_count, ...lines.map((line) => line.sequence));
    this.#settle(lines);
    const comers = this.#lineUp(session.turns);
    // What was said elsewhere and has left no line: it was withdrawn, or nothing was said.
    for (const turn of ended) if (!this.#settled.has(turn.key)) this.#forget(turn);
    this.#label();
    if (!this.#loaded) atTheEnd.go();
    return lines.length > 0 || comers > 0;
  }

  // The lines behind the last one that is shown, or at first the newest page of them, in order.
  async #newLines() {
    if (this.#seen === null) {
      const page = await this.#askForPage({ order: "newest", limit: PAGE });
      this.#offerEarlier(page.cursor);
      return page.items.reverse();
    }
    const lines = [];
    let cursor = null;
    do {
      const page = await this.#askForPage({ after: this.#seen, limit: MOST_AT_ONCE, ...(cursor && { cursor }) });
      lines.push(...page.items);
      cursor = page.cursor;
    } while (cursor);
    return lines;
  }

  #askForPage(query) {
    const path = `${this.#path}/messages?${new URLSearchParams(query)}`;
    return this.#patience.persist(() => this.#ask("GET", path));
  }

  #offerEarlier(cursor) {
    const show = async () => {
      const page = await this.#askForPage({ order: "newest", limit: PAGE, cursor });
      view.prepend(page.items.reverse().filter(isShown).map((line) => new Message(line.role).settle(line)));
      this.#offerEarlier(page.cursor);
    };
    view.showEarlier(cursor && (() => this.#do(show)));
  }

  // Show these lines behind those that are shown, each once: in the place of a message or a reply that is here.
  #settle(lines) {
    const turns = new Map(this.#turns.map((turn) => [turn.key, turn]));
    const ended = new Map();
    const used = new Set();
    for (const line of lines) {
      const key = line.turn_id && keyOf(line.turn_id);
      const turn = turns.get(key);
      this.#settled.add(key);
      if (turn) ended.set(key, turn);
      if (!isShown(line)) continue;
      const here = line.role === "user" ? turn?.asked : turn?.reply;
      const message = here && !used.has(here) ? here : new Message(line.role);
      used.add(message);
      view.place(message.settle(line), this.#last);
      this.#last = message;
      if (line.role === "assistant" && this.#loaded && !turn?.isOver) view.announce(message.text);
    }
    for (const turn of ended.values()) {
      for (const message of [turn.asked, turn.reply]) if (message && !used.has(message)) message.remove();
      turn.isOver = true;
      outbox.drop(this.id, turn.key);
      if (turn === this.#listening?.turn) this.#listening.stop.abort();
    }
    this.#turns = this.#turns.filter((turn) => !ended.has(turn.key));
  }

  // Have the turns that wait in their order behind the history; gives how many were not known.
  #lineUp(ids) {
    const written = new Map(outbox.entries(this.id).map((entry) => [entry.key, entry]));
    let last = this.#last;
    let comers = 0;
    ids.forEach((id, ahead) => {
      const key = keyOf(id);
      if (this.#settled.has(key)) return;
      let turn = this.#turns.find((turn) => turn.key === key);
      if (turn?.isOver) return;
      if (!turn) {
        turn = this.#add({ at: 0, ...written.get(key), key, id }, last);
        turn.ahead = ahead;
        comers++;
      }
      turn.id = id;
      view.place(turn.asked, last);
      if (turn.reply) view.place(turn.reply, turn.asked);
      last = turn.reply ?? turn.asked;
    });
    // In the order of their turns, and those that are not accepted yet behind them.
    const places = new Map(ids.map((id, place) => [id, place]));
    this.#turns.sort((one, other) => (places.get(one.id) ?? Infinity) - (places.get(other.id) ?? Infinity) || 0);
    if (this.#listening && this.#listening.turn !== this.#open[0]) this.#listening.stop.abort();
    return comers;
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
      const accepted = await this.#patience.persist(
        () => this.#ask("POST", `${this.#path}/turns`, { body, headers }),
        (problem, seconds) => {
          if (!turn.isOver) turn.asked.mark("unsent", `not sent yet${because(problem, seconds)}`);
        },
      );
      turn.id = accepted.turn_id;
      turn.ahead = accepted.ahead ?? 0;
      if (turn.isOver) return; // the history was faster
      outbox.put(this.id, turn);
      // Somebody else's turns are before it, or may be.
      if (this.#version === null || turn.ahead >= this.#open.length) this.#bell.ring();
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
    const stop = new AbortController();
    this.#listening = { turn, stop };
    const signal = AbortSignal.any([this.#left.signal, stop.signal]);
    try {
      await this.#patience.persist(async (heard) => {
        try {
          for await (const event of events(turn.id, turn.after, signal)) {
            heard();
            this.#take(turn, event);
            if (turn.isOver) return;
          }
          // The server has let us go, as it does when it stops, and wants us to come again.
          await pause(1, signal);
        } catch (problem) {
          if (!stop.signal.aborted) throw problem;
        }
      });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#refuse(turn, problem.status === 404 ? "not answered: it is not known any more" : refusal(problem));
    } finally {
      this.#listening = null;
    }
    this.#label();
  }

  #take(turn, { kind, data, id }) {
    this.#left.signal.throwIfAborted();
    if (turn.isOver) return;
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
    this.#bell.ring();
    turn.asked.mark("");
    if (status === "cancelled") {
      turn.reply?.remove();
      turn.asked.mark("withdrawn", "withdrawn");
      view.announce("withdrawn");
    } else if (status === "done") {
      // A reply to several messages is theirs together, and stands behind the last, as it does in the history.
      const first = this.#turns.find((other) => other !== turn && other.id === reply.turn_id);
      if (first?.reply) {
        turn.reply?.remove();
        turn.reply = first.reply;
        view.add(turn.reply, turn.asked);
      }
      const isStopped = reply.finish_reason === "interrupted";
      if (reply.message || isStopped) {
        const shown = this.#replyTo(turn);
        shown.text = reply.message;
        shown.markEnd(reply.finish_reason);
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
    const stopped = await this.#patience.persist(() => this.#ask("DELETE", `turns/${encodeURIComponent(turn.id)}`));
    if (stopped.outcome === "dropped" && !turn.isOver) {
      this.#end(turn, { status: "cancelled" });
      this.#label();
    }
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

// Behind the session's ID, which has no colon in here.
const keyOf = (turnId) => turnId.slice(turnId.indexOf(":") + 1);
