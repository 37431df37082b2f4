// All sessions of the caller, live.

import { h, say } from "/dom.js";
import { createSession } from "/dialogs.js";
import { account, ago, exactly, state } from "/words.js";

const WORTH_A_FILTER = 8; // sessions

export class SessionsPage {
  title = "Sessions";

  constructor(api, live) {
    this._api = api;
    this._live = live;
    this._rows = new Map();
    this._list = h("ul", { class: "sessions", "aria-label": "Sessions" });
    this._summary = h("p", { class: "summary", role: "status" });
    this._filter = h("input", { id: "filter", type: "search", placeholder: "Find a session", "aria-label": "Find a session" });
    this._filter.addEventListener("input", () => this.update());
    this._empty = h(
      "div", { class: "empty card", hidden: true },
      h("h2", {}, "No sessions yet"),
      h("p", {}, "A session is one WhatsApp account that stays linked. Create one and link your phone to it."),
      this._new("Create your first session"),
    );
    this._none = h("p", { class: "empty", hidden: true }, "No session has that in its name, account or owner.");
    this._waiting = h("div", { class: "waiting", "aria-hidden": "true" }, ...[1, 2, 3].map(() => h("span", { class: "bone" })));
    this.element = h(
      "section", { "aria-labelledby": "sessions-title" },
      h("div", { class: "heading" }, h("h1", { id: "sessions-title", tabindex: "-1" }, "Sessions"), this._new("New session")),
      h("div", { class: "tools" }, this._summary, this._filter),
      this._waiting, this._empty, this._none, this._list,
    );
  }

  update() {
    const wanted = this._filter.value.trim().toLowerCase();
    const all = [...this._live.sessions.values()];
    const found = all.filter((session) => matches(session, wanted)).sort(byName);
    const names = new Set(found.map((session) => session.name));
    for (const [name, row] of this._rows) {
      if (!names.has(name)) {
        row.element.remove();
        this._rows.delete(name);
      }
    }
    found.forEach((session, index) => {
      const row = this._rows.get(session.name) ?? this._row(session);
      row.update(session);
      if (this._list.children[index] !== row.element) this._list.insertBefore(row.element, this._list.children[index] ?? null);
    });
    const { known } = this._live;
    this._waiting.hidden = known;
    this._filter.hidden = all.length < WORTH_A_FILTER && !wanted;
    this._empty.hidden = !known || all.length > 0;
    this._none.hidden = !known || all.length === 0 || found.length > 0;
    this._list.hidden = found.length === 0;
    say(this._summary, known && all.length ? summary(all) : known ? "" : "Loading the sessions…");
  }

  _new(label) {
    const button = h("button", { class: "primary", type: "button" }, label);
    button.addEventListener("click", () => createSession(this._api));
    return button;
  }

  _row(session) {
    const pill = h("span", { class: "pill" });
    const who = h("span", { class: "account" });
    const when = h("time", { class: "when" });
    const owner = this._api.admin ? h("span", { class: "owner" }, session.owner ?? "no owner") : null;
    const link = h(
      "a", { class: "row", href: this._api.address(session) },
      h("span", { class: "name" }, session.clientId), pill, who, owner, when,
    );
    const row = {
      element: h("li", {}, link),
      update: (now) => {
        const { word, tone } = state(now);
        pill.className = `pill ${tone}`;
        say(pill, word);
        say(who, account(now));
        const moment = now.lastConnected ?? now.createdAt;
        when.dateTime = moment;
        when.title = exactly(moment);
        say(when, `${now.lastConnected ? "Connected" : "Created"} ${ago(moment, this._api.now())}`);
      },
    };
    this._rows.set(session.name, row);
    return row;
  }
}

function matches(session, wanted) {
  return [session.clientId, session.owner ?? "", account(session)].some((text) => text.toLowerCase().includes(wanted));
}

function byName(one, other) {
  return one.clientId.localeCompare(other.clientId) || one.name.localeCompare(other.name);
}

function summary(sessions) {
  const ready = sessions.filter((session) => session.phase === "Ready").length;
  const waiting = sessions.filter((session) => ["attention", "bad"].includes(state(session).tone)).length;
  const parts = [`${ready} of ${sessions.length} ready`];
  if (waiting) parts.push(waiting === 1 ? "1 waits for you" : `${waiting} wait for you`);
  return parts.join(", ");
}
