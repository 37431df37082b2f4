// One session: its state, linking its phone, and its actions.

import { idempotencyKey } from "/api.js";
import { confirmDelete, confirmLogout, confirmSuspend } from "/dialogs.js";
import { Deliveries } from "/deliveries.js";
import { action, busy, field, h, setText, toast } from "/dom.js";
import { ACKS, account, ago, contentOf, exactly, history, phone, restrictions, sender, state } from "/formatting.js";
import { LiveView } from "/view.js";

const IN_PROGRESS = ["Pending", "Starting", "Syncing", "Restoring", "Reconnecting"];
const RESTORABLE = ["Failed", "Conflict"];
const INBOX_SIZE = 50; // messages

export class SessionPage {
  constructor(api, live, clientId, owner) {
    this._api = api;
    this._live = live;
    this._clientId = clientId;
    this._owner = owner;
    this._session = undefined;
    this._pairing = new Pairing(api);
    this._message = new TestMessage(api);
    this._inbox = new Inbox(api);
    this._deliveries = new Deliveries(api);
    this._view = new LiveView(api);
    this.title = clientId;

    this._pill = h("span", { class: "pill" });
    this._state = h("p", { class: "lead", role: "status" });
    this._actions = h("div", { class: "buttons start" });
    this._facts = h("dl", { class: "facts" });
    this._history = h("ol", { class: "history" });
    this._missing = h("p", { class: "empty", hidden: true }, "No session has this name, or it belongs to somebody else. ", h("a", { href: "#/" }, "See all sessions"));
    const lacking = restrictions(api.missing);
    this._lacking = h("p", { class: "note idle", hidden: true }, lacking);
    this._bone = h("span", { class: "bone tall", "aria-hidden": "true" });
    this._body = h(
      "div", { class: "columns", hidden: true },
      h("div", { class: "column" }, this._pairing.element, this._message.element, this._inbox.element, this._deliveries.element, this._view.element, this._controls()),
      h("div", { class: "column" },
        h("section", { class: "card", "aria-labelledby": "facts-title" }, h("h2", { id: "facts-title" }, "Details"), this._facts),
        h("section", { class: "card", "aria-labelledby": "history-title" }, h("h2", { id: "history-title" }, "History"), this._history)),
    );
    this.element = h(
      "article", { "aria-labelledby": "session-title" },
      h("a", { class: "back", href: "#/" }, "All sessions"),
      h("div", { class: "heading" }, h("h1", { id: "session-title", tabindex: "-1" }, clientId), this._pill),
      this._state, this._lacking, this._bone, this._missing, this._body,
    );
    live.join({ clientId, owner, wake: false });
  }

  leave() {
    this._live.join(null);
    this._pairing.leave();
    this._view.leave();
  }

  /** A link code from the gateway. */
  code(code) {
    if (code.name === this._session?.name) this._pairing.show(code);
  }

  message(message) {
    if (message.name === this._session?.name) this._inbox.add(message);
  }

  ack(ack) {
    if (ack.name === this._session?.name) this._message.ack(ack);
  }

  update() {
    const session = (this._session = this._live.find(this._clientId, this._owner));
    this._missing.hidden = session !== undefined || !this._live.loaded;
    this._bone.hidden = session !== undefined || this._live.loaded;
    this._body.hidden = this._pill.hidden = session === undefined;
    this._lacking.hidden = session === undefined || this._lacking.textContent === "";
    if (session === undefined) return setText(this._state, "");
    const { label, tone, sentence } = state(session);
    this._pill.className = `pill ${tone}`;
    setText(this._pill, label);
    setText(this._state, sentence);
    this._pairing.update(session);
    this._message.update(session);
    this._inbox.update(session);
    this._deliveries.update(session);
    this._view.update(session);
    // Without any of these, the actions alone would leave a column empty.
    const onlyActions = [this._pairing, this._message, this._inbox, this._deliveries, this._view].every(({ element }) => element.hidden);
    this._body.classList.toggle("compact", onlyActions);
    this._showActions(session);
    this._showDetails(session);
  }

  _controls() {
    const act = (label, outcome, request, attributes = {}) =>
      action(label, attributes, async () => {
        await request(this._session);
        if (outcome) toast(`${this._clientId} ${outcome}.`);
      });
    const post = (what) => (session) => this._api.of(session, "POST", `/${what}`);
    this._buttons = {
      resume: act("Resume", "is being resumed", post("resume"), { class: "primary" }),
      wake: act("Wake", "is waking up", post("wake"), { class: "primary" }),
      restore: act("Restore", "is ready again", (session) => this._api.restore(session), { class: "primary" }),
      restart: act("Restart", "is being restarted", post("restart")),
      suspend: act("Suspend…", "", (session) => confirmSuspend(this._api, session)),
      logout: act("Log out…", "", (session) => confirmLogout(this._api, session)),
      remove: act("Delete…", "", (session) => confirmDelete(this._api, session), { class: "danger-quiet" }),
    };
    this._actions.append(...Object.values(this._buttons));
    return h("section", { class: "card", "aria-labelledby": "actions-title" }, h("h2", { id: "actions-title" }, "Actions"), this._actions);
  }

  /** Shows only the actions that apply now. */
  _showActions(session) {
    const deleting = session.phase === "Terminating";
    const asleep = session.phase === "Hibernated";
    const { resume, wake, restore, restart, suspend, logout, remove } = this._buttons;
    wake.hidden = !asleep || session.suspended;
    resume.hidden = !session.suspended || deleting;
    restore.hidden = !RESTORABLE.includes(session.phase) || session.reason === "PairingExpired" || session.suspended;
    suspend.hidden = session.suspended || deleting;
    restart.hidden = suspend.hidden || asleep;
    logout.hidden = session.phase !== "Ready";
    remove.hidden = deleting;
    this._actions.parentElement.hidden = deleting || !this._api.may("sessions:write");
  }

  _showDetails(session) {
    const now = this._api.now();
    const moment = (at) => (at ? h("time", { datetime: at, title: exactly(at) }, ago(at, now)) : "never");
    const facts = [
      ["Account", account(session)],
      ["Login", session.sessionValid ? "Valid, stored on the volume" : "None"],
      ["Last connected", moment(session.lastConnected)],
      ["Restored", session.restorations === 1 ? "Once" : session.restorations ? `${session.restorations} times` : "Never"],
      ["Created", moment(session.createdAt)],
    ];
    if (session.owner) facts.splice(0, 0, ["Owner", session.owner]);
    this._facts.replaceChildren(...facts.flatMap(([term, detail]) => [h("dt", {}, term), h("dd", {}, detail)]));
    this._history.replaceChildren(
      ...history(session).map(({ at, title, text, tone }) =>
        h("li", { class: tone }, h("span", {}, title), text ? h("span", { class: "why" }, text) : null, moment(at))),
    );
  }
}

/** The QR or pairing code, for as long as a phone can be linked. */
class Pairing {
  constructor(api) {
    this._api = api;
    this._code = null; // what is shown: { method, attempt, expiresAt }
    this._requested = ""; // the code that was requested last
    this._session = undefined;
    this._picture = h("img", { class: "qr", width: "320", height: "320" });
    this._letters = h("output", { class: "letters" });
    this._wait = h("p", { class: "qr-wait" }, h("span", { class: "spinner", "aria-hidden": "true" }), "Waiting for a code…");
    this._countdown = h("span", { class: "left" });
    this._round = h("span", {});
    this._renew = action("New code", { class: "primary" }, () => this._refresh());
    this._steps = h("ol", { class: "steps" });
    this._frame = h("div", { class: "frame" }, this._picture, this._letters, this._wait);
    this._spent = h("p", {}, "The codes expired unused. Request a new one when you have the phone at hand.");
    this._foot = h("p", { class: "hint foot" }, this._countdown, this._round);
    this._shown = h("div", {}, this._frame, this._foot);
    this.element = h(
      "section", { class: "card pairing", "aria-labelledby": "pairing-title", hidden: true },
      h("h2", { id: "pairing-title" }, "Link a phone"),
      h("div", { class: "pairing-grid" }, this._shown, h("div", {}, this._steps, this._spent, this._renew)),
    );
    this._clock = setInterval(() => this._tick(), 1000);
  }

  leave() {
    clearInterval(this._clock);
  }

  update(session) {
    this._session = session;
    const spent = session.reason === "PairingExpired";
    const open = session.phase === "Authenticating";
    this.element.hidden = (!spent && !open) || !this._api.may("pair");
    if (this.element.hidden) return this._clear();
    this._spent.hidden = this._renew.hidden = !spent;
    this._shown.hidden = this._steps.hidden = spent;
    if (!open) {
      this._clear();
      return;
    }
    this._explain(session.pairing?.method ?? "QRCode");
    if (session.pairing?.available) {
      const current = `${session.pairing.attempt} ${session.pairing.expiresAt}`;
      if (this._code === null && current !== this._requested) {
        this._requested = current;
        this.fetch(session);
      }
    }
    this._tick();
  }

  /** Fetches the code, in case no event brought it. */
  async fetch(session) {
    const shown = this._code;
    try {
      const answer = await this._api.of(session, "GET", "/pairing");
      const code = await answer.json();
      const image = code.method === "QRCode" ? await this._api.picture(session) : undefined;
      if (this._code === shown) this.show({ ...code, image }); // else an event brought a newer one in the meantime
    } catch (error) {
      if (error.status !== 404 && error.status !== 503) toast(error.message, "bad"); // else there is none now, and an event will bring the next
    }
  }

  show(code) {
    if (this._session?.phase !== "Authenticating") return;
    this._code = code;
    const scan = code.method === "QRCode";
    this._explain(code.method);
    if (scan) {
      this._picture.src = code.image;
      this._picture.alt = "QR to scan with WhatsApp on the phone";
    } else {
      setText(this._letters, spaced(code.code));
      this._letters.setAttribute("aria-label", [...code.code].join(" "));
    }
    this._tick();
  }

  _clear() {
    this._code = null;
    this._picture.removeAttribute("src");
    this._letters.textContent = "";
  }

  _explain(method) {
    if (this._steps.dataset.method === method) return;
    this._steps.dataset.method = method;
    const scan = method === "QRCode";
    const steps = [
      "Open WhatsApp on the phone.",
      "Go to Settings, then Linked devices, then Link a device.",
      scan ? "Point the camera at this QR." : "Choose Link with phone number instead, and type this code.",
    ];
    this._steps.replaceChildren(...steps.map((step) => h("li", {}, step)));
  }

  _tick() {
    if (this.element.hidden) return;
    const until = this._code?.expiresAt ? Date.parse(this._code.expiresAt) - this._api.now() : null;
    if (until !== null && until <= 0) this._clear(); // an expired code would only waste somebody's time
    const code = this._code;
    this._picture.hidden = code?.method !== "QRCode";
    this._letters.hidden = code?.method !== "PairingCode";
    this._wait.hidden = code !== null;
    setText(this._countdown, code && until !== null ? `New code in ${Math.ceil(until / 1000)} s. ` : "");
    setText(this._round, code ? `Round ${code.attempt}.` : "");
  }

  async _refresh() {
    await this._api.of(this._session, "POST", "/pairing/refresh");
    this._requested = "";
  }
}

/** A form that sends a text and shows its progress. */
class TestMessage {
  constructor(api) {
    this._api = api;
    this._sent = null;
    this._session = undefined;
    this._key = idempotencyKey(); // the same until the message is sent, so that a retry does not send it twice
    this._to = h("input", { id: "to", type: "tel", inputmode: "tel", autocomplete: "off", placeholder: "15551234567" });
    this._toField = field("To", this._to, "Country code and number, or a chat id.");
    this._text = h("textarea", { id: "text", rows: "3", maxlength: "65536" });
    this._text.value = "A test message from wasession.";
    this._textField = field("Text", this._text);
    this._button = h("button", { class: "primary", type: "submit" }, "Send");
    this._outcome = h("p", { class: "note", role: "status", hidden: true });
    const form = h("form", { novalidate: true }, this._toField, this._textField, h("div", { class: "buttons start" }, this._button), this._outcome);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      busy(this._button, () => this._send());
    });
    form.addEventListener("input", () => {
      this._key = idempotencyKey();
      if (!this._sent) this._outcome.hidden = true;
    });
    this.element = h("section", { class: "card", "aria-labelledby": "message-title", hidden: true }, h("h2", { id: "message-title" }, "Send a test message"), form);
  }

  update(session) {
    // What was answered before the session was last connected says nothing about it now.
    if (session.phase !== "Ready" && !this._sent) this._outcome.hidden = true;
    this._session = session;
    const inProgress = session.sessionValid && IN_PROGRESS.includes(session.phase);
    const usable = session.phase === "Ready" || (inProgress && this._sent);
    this.element.hidden = !usable || !this._api.may("messages:send");
    this._button.hidden = session.phase !== "Ready";
  }

  ack({ id, ack }) {
    if (this._sent?.id === id && ack > this._sent.ack) this._showSent({ ...this._sent, ack });
  }

  async _send() {
    const typed = this._to.value.trim();
    const to = typed.includes("@") ? typed : typed.replace(/[\s()-]/g, "");
    this._toField.fail("");
    this._textField.fail("");
    if (!this._text.value) return this._textField.fail("Enter a text.");
    if (!/^\+?[1-9]\d{6,14}$|@/.test(to)) return this._toField.fail("Country code and number, such as 15551234567.");
    setText(this._button, "Sending…");
    try {
      const headers = { "Idempotency-Key": this._key };
      const response = await this._api.of(this._session, "POST", "/messages", { json: { to, text: this._text.value }, headers });
      this._key = idempotencyKey();
      this._showSent(await response.json());
    } catch (error) {
      this._sent = null;
      this._outcome.hidden = false;
      this._outcome.className = "note bad";
      setText(this._outcome, error.message);
    } finally {
      setText(this._button, "Send");
    }
  }

  _showSent(sent) {
    this._sent = sent;
    this._outcome.hidden = false;
    this._outcome.className = `note ${sent.ack < 0 ? "bad" : "good"}`;
    setText(this._outcome, `To ${phone(sent.to)}: ${(ACKS[sent.ack] ?? "Sent").toLowerCase()}.`);
  }
}

/** The messages that arrive while the page is open. */
class Inbox {
  constructor(api) {
    this._api = api;
    this._list = h("ol", { class: "inbox" });
    this._none = h("p", { class: "hint" }, "Messages that arrive while this page is open appear here.");
    this.element = h(
      "section", { class: "card", "aria-labelledby": "inbox-title", hidden: true },
      h("h2", { id: "inbox-title" }, "Messages"), this._none,
      h("div", { class: "log", role: "log", "aria-labelledby": "inbox-title", tabindex: "0" }, this._list),
    );
  }

  update(session) {
    const empty = session.phase !== "Ready" && this._list.children.length === 0;
    this.element.hidden = empty || !this._api.may("messages:read");
    for (const time of this._list.querySelectorAll("time")) setText(time, ago(time.dateTime, this._api.now()));
  }

  add(message) {
    const time = h("time", { datetime: message.sentAt, title: exactly(message.sentAt) }, ago(message.sentAt, this._api.now()));
    this._list.prepend(h("li", {}, h("span", { class: "from" }, sender(message), " ", time), h("p", {}, contentOf(message))));
    while (this._list.children.length > INBOX_SIZE) this._list.lastElementChild.remove();
    this._none.hidden = true;
    this.element.hidden = false;
  }
}

function spaced(code) {
  return code.length === 8 ? `${code.slice(0, 4)}-${code.slice(4)}` : code;
}
