// The view: how a conversation looks. What was said goes in as text, and nowhere as HTML.

// Pixels from the end that do not count.
const NEAR = 40;
// How a turn has ended that did not come to its own end, by the reason that the API gives.
const ENDS = { interrupted: "stopped", failed: "failed" };
const WHO = { user: "You:", assistant: "Reply:" };

const byId = (id) => document.getElementById(id);

// Whether a line of the history is for people: said, or why nothing was.
export const isShown = ({ role, content, images, finish_reason }) =>
  (role === "user" || role === "assistant") && Boolean(content || images.length || finish_reason);

// One message: who, what, and the state it is in.
export class Message {
  #text = new Text();
  #state;
  #words;
  #button;

  constructor(role, text = "") {
    const item = byId("message").content.cloneNode(true).firstElementChild;
    item.classList.add(role);
    item.querySelector(".who").textContent = WHO[role];
    item.querySelector(".text").append(this.#text);
    this.#state = item.querySelector(".state");
    this.#words = item.querySelector(".words");
    this.#button = item.querySelector("button");
    this.#text.data = text;
    this.item = item;
  }

  get text() {
    return this.#text.data;
  }

  set text(text) {
    if (text !== this.text) atTheEnd.keep(() => (this.#text.data = text));
  }

  append(text) {
    atTheEnd.keep(() => this.#text.appendData(text));
  }

  // Show a state in words, with what can be done: { label, press }. Without words there is none.
  mark(kind, words = "", action = null) {
    atTheEnd.keep(() => {
      this.item.dataset.state = kind;
      this.#state.hidden = !words;
      if (this.#words.textContent !== words) this.#words.textContent = words;
      this.#button.hidden = action === null;
      this.#button.textContent = action?.label ?? "";
      this.#button.onclick = action?.press ?? null;
    });
  }

  // Show it as a line of the history says it.
  settle({ content, images, finish_reason }) {
    this.item.classList.remove("unknown");
    this.text = content || (images.length ? "An image" : "");
    this.markEnd(finish_reason);
    return this;
  }

  markEnd(finishReason) {
    this.mark(ENDS[finishReason] ?? "", ENDS[finishReason]);
  }

  remove() {
    this.item.remove();
  }
}

export const view = {
  clear() {
    byId("log").replaceChildren();
    byId("empty").hidden = true;
    this.showEarlier(null);
    this.connection("");
    this.mayStop(false);
  },

  // Show a message behind another one (null: before all), or at the end.
  add(message, behind) {
    atTheEnd.keep(() => {
      if (behind === undefined) byId("log").append(message.item);
      else if (behind === null) byId("log").prepend(message.item);
      else behind.item.after(message.item);
      byId("empty").hidden = true;
    });
  },

  // The same, unless it stands behind that one already.
  place(message, behind) {
    const { DOCUMENT_POSITION_FOLLOWING: after } = Node;
    const follows = behind === null || behind.item.compareDocumentPosition(message.item) & after;
    if (!follows || !message.item.isConnected) this.add(message, behind);
  },

  // Show messages that were said before all others, and leave on the screen what is there.
  prepend(messages) {
    const root = document.documentElement;
    const below = root.scrollHeight - root.scrollTop;
    byId("log").prepend(...messages.map((message) => message.item));
    root.scrollTop = root.scrollHeight - below;
  },

  showWhetherEmpty() {
    byId("empty").hidden = byId("log").childElementCount > 0;
  },

  // `press` gets what was said before the first message that is shown; null: there is nothing.
  showEarlier(press) {
    byId("earlier").hidden = press === null;
    byId("earlier").onclick = press;
  },

  connection(words) {
    if (byId("connection").textContent !== words) byId("connection").textContent = words;
  },

  mayStop(may) {
    byId("stop").hidden = !may;
  },

  // Have screen readers say something.
  announce(words) {
    byId("announcer").textContent = words;
  },
};

// Keeps the end of the conversation in sight while text comes, unless somebody has scrolled away from it.
export const atTheEnd = {
  // As it was when the screen was last drawn.
  was: true,

  watch() {
    const seen = ([end]) => {
      this.was = end.isIntersecting;
      byId("latest").hidden = this.was;
    };
    new IntersectionObserver(seen, { rootMargin: `0px 0px ${NEAR}px` }).observe(byId("end"));
    byId("latest").onclick = () => this.go();
    // A phone's keyboard and a message of many lines take room from below.
    const stay = () => this.was && this.go();
    new ResizeObserver(stay).observe(document.querySelector("footer"));
    addEventListener("resize", stay);
  },

  keep(change) {
    const { scrollTop, clientHeight, scrollHeight } = document.documentElement;
    change();
    if (scrollTop + clientHeight >= scrollHeight - NEAR) this.go();
  },

  go() {
    this.was = true;
    document.documentElement.scrollTop = document.documentElement.scrollHeight;
  },
};
