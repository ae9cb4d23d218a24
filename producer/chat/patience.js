// Patience: to try until it comes to something, to wait, and what is wrong meanwhile, in words.

import { view } from "./view.js";

const FIRST_WAIT = 0.5;
const LONGEST_WAIT = 10;
const AN_HOUR = 3600;

// Tries for as long as `signal` lasts, and says over the conversation what is wrong.
export class Patience {
  #signal;
  // What is wrong now, by the call that has found out.
  #troubles = new Map();

  constructor(signal) {
    this.#signal = signal;
  }

  // Try until it comes to something; `tell(problem, seconds)` hears what is wrong and when it is tried again.
  // `attempt(heard)` may call `heard` to say that the server answers.
  async persist(attempt, tell = () => {}) {
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
        this.#signal.throwIfAborted();
        if (!problem.passes) {
          heard();
          throw problem;
        }
        let left = problem.wait ?? Math.min(FIRST_WAIT * 2 ** tries++, LONGEST_WAIT) * (0.75 + Math.random() / 2);
        while (left > 0) {
          this.#note(call, trouble(problem));
          tell(problem, Math.ceil(left));
          const isWoken = await pause(Math.min(left, 1), this.#signal);
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
}

// Wakes who rests.
export class Bell {
  #rung = new AbortController();

  ring() {
    this.#rung.abort();
  }

  // Rest until it rings, or has rung since the last time; or, while somebody looks at the page, for `seconds`, or
  // until the network or the reader's eye comes back. Gives whether it was for anything but the time.
  async rest(seconds, signal) {
    let isWoken;
    do {
      isWoken = await pause(document.hidden ? AN_HOUR : seconds, signal, this.#rung.signal);
    } while (document.hidden && !this.#rung.signal.aborted && !signal.aborted);
    return this.#hasRung() || isWoken;
  }

  async untilItRings(signal) {
    while (!this.#hasRung() && !signal.aborted) await pause(AN_HOUR, signal, this.#rung.signal);
  }

  #hasRung() {
    const hasRung = this.#rung.signal.aborted;
    if (hasRung) this.#rung = new AbortController();
    return hasRung;
  }
}

function trouble({ status }) {
  if (status === 0) return "Offline: reconnecting";
  return status === 429 ? "Too many requests: waiting" : "Not available: trying again";
}

export function because({ status }, seconds) {
  if (status === 0) return "";
  const why = status === 429 ? "too many messages" : "the service is not available";
  return `: ${why}, next try in ${seconds} s`;
}

export function refusal({ status, message }) {
  if (status === 413) return "the message is too long";
  if (status === 404) return "this conversation is somebody else's; begin a new one";
  return message;
}

// Wait, but not longer than until a signal; gives whether the network, or the reader's eye, came back meanwhile.
export function pause(seconds, ...signals) {
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
    addEventListener("focus", () => end(true), options);
    for (const signal of signals) {
      signal.addEventListener("abort", () => end(false), options);
      if (signal.aborted) end(false);
    }
  });
}
