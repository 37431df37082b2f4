// The list of the caller's sessions, live.

import { h, setText } from "/dom.js";
import { createSession } from "/dialogs.js";
import { account, ago, exactly, state } from "/formatting.js";

const FILTER_FROM = 8; // sessions

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
      h("p", {}, "A session is a WhatsApp account that stays linked. Create one and link your phone to it."),
      this._new("Create your first session"),
    );
    this._none = h("p", { class: "empty", hidden: true }, "No session matches in its name, account or owner.");
    this._loading = h("div", { class: "loading", "aria-hidden": "true" }, ...[1, 2, 3].map(() => h("span", { class: "bone" })));
    this.element = h(
      "section", { "aria-labelledby": "sessions-title" },
      h("div", { class: "heading" }, h("h1", { id: "sessions-title", tabindex: "-1" }, "Sessions"), this._new("New session")),
      h("div", { class: "tools" }, this._summary, this._filter),
      this._loading, this._empty, this._none, this._list,
    );
  }

  update() {
    const query = this._filter.value.trim().toLowerCase();
    const all = [...this._live.sessions.values()];
    const shown = all.filter((session) => matches(session, query)).sort(byName);
    const names = new Set(shown.map((session) => session.name));
    for (const [name, row] of this._rows) {
      if (!names.has(name)) {
        row.element.remove();
        this._rows.delete(name);
      }
    }
    shown.forEach((session, index) => {
      const row = this._rows.get(session.name) ?? this._row(session);
      row.update(session);
      if (this._list.children[index] !== row.element) this._list.insertBefore(row.element, this._list.children[index] ?? null);
    });
    const { loaded } = this._live;
    this._loading.hidden = loaded;
    this._filter.hidden = all.length < FILTER_FROM && !query;
    this._empty.hidden = !loaded || all.length > 0;
    this._none.hidden = !loaded || all.length === 0 || shown.length > 0;
    this._list.hidden = shown.length === 0;
    setText(this._summary, loaded && all.length ? summary(all) : loaded ? "" : "Loading the sessions…");
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
        const { label, tone } = state(now);
        pill.className = `pill ${tone}`;
        setText(pill, label);
        setText(who, account(now));
        const moment = now.lastConnected ?? now.createdAt;
        when.dateTime = moment;
        when.title = exactly(moment);
        setText(when, `${now.lastConnected ? "Connected" : "Created"} ${ago(moment, this._api.now())}`);
      },
    };
    this._rows.set(session.name, row);
    return row;
  }
}

function matches(session, query) {
  return [session.clientId, session.owner ?? "", account(session)].some((text) => text.toLowerCase().includes(query));
}

function byName(one, other) {
  return one.clientId.localeCompare(other.clientId) || one.name.localeCompare(other.name);
}

function summary(sessions) {
  const ready = sessions.filter((session) => session.phase === "Ready").length;
  const attention = sessions.filter((session) => ["attention", "bad"].includes(state(session).tone)).length;
  const parts = [`${ready} of ${sessions.length} ready`];
  if (attention) parts.push(attention === 1 ? "1 needs attention" : `${attention} need attention`);
  return parts.join(", ");
}
