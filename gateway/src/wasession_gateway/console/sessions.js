// The list of the caller's sessions, live. Its address has the filter and the order: `#/?state=attention&sort=state`.

import { h, setText } from "/dom.js";
import { createSession } from "/dialogs.js";
import { account, ago, exactly, needsAttention, phone, restrictions, state } from "/formatting.js";

const FILTER_FROM = 8; // sessions
const STATES = {
  "": ["All states", () => true],
  attention: ["Needs attention", needsAttention],
  ready: ["Ready", ({ phase }) => phase === "Ready"],
  busy: ["In progress", (session) => state(session).tone === "busy"],
  stopped: ["Stopped", (session) => state(session).tone === "idle"],
};
const URGENCY = ["bad", "attention", "busy", "good", "idle"];
const ORDERS = {
  name: ["By name", byName],
  state: ["By state", (one, other) => urgency(one) - urgency(other) || byName(one, other)],
  connected: ["By last connection", (one, other) => connected(other) - connected(one) || byName(one, other)],
};

export class SessionsPage {
  title = "Sessions";

  constructor(api, live, parameters) {
    this._api = api;
    this._live = live;
    this._rows = new Map();
    this._list = h("ul", { class: "sessions", "aria-label": "Sessions" });
    this._ready = h("span");
    this._attention = h("a", { href: "#/?state=attention" });
    this._summary = h("p", { class: "summary", role: "status" }, this._ready, this._attention);
    this._query = h("input", { id: "filter", type: "search", placeholder: "Find a session", "aria-label": "Find a session" });
    this._query.addEventListener("input", () => this.update());
    this._state = this._choice("State", STATES, parameters.get("state") ?? "");
    this._order = this._choice("Order", ORDERS, parameters.get("sort") ?? "name");
    this._filters = h("div", { class: "filters" }, this._query, this._state, this._order);
    this._empty = h(
      "div", { class: "empty card", hidden: true },
      h("h2", {}, "No sessions yet"),
      h("p", {}, "A session is a WhatsApp account that stays linked. Create one and link your phone to it."),
      this._new("Create your first session"),
    );
    this._none = h("p", { class: "empty", hidden: true }, "No session matches. ", h("a", { href: "#/" }, "Show all sessions"));
    this._loading = h("div", { class: "loading", "aria-hidden": "true" }, ...[1, 2, 3].map(() => h("span", { class: "bone" })));
    this.element = h(
      "section", { "aria-labelledby": "sessions-title" },
      h("div", { class: "heading" }, h("h1", { id: "sessions-title", tabindex: "-1" }, "Sessions"), this._new("New session")),
      api.may("sessions:write") ? null : h("p", { class: "note idle" }, restrictions(api.missing)),
      h("div", { class: "tools" }, this._summary, this._filters),
      this._loading, this._empty, this._none, this._list,
    );
  }

  update() {
    const query = this._query.value.trim().toLowerCase();
    const all = [...this._live.sessions.values()];
    const [, include] = STATES[this._state.value];
    const [, order] = ORDERS[this._order.value];
    const shown = all.filter((session) => include(session) && matches(session, query)).sort(order);
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
    const filtered = Boolean(query || this._state.value || this._order.value !== "name");
    this._filters.hidden = all.length < FILTER_FROM && !filtered;
    this._empty.hidden = !loaded || all.length > 0;
    this._none.hidden = !loaded || all.length === 0 || shown.length > 0;
    this._list.hidden = shown.length === 0;
    this._summarize(all, loaded);
  }

  _summarize(all, loaded) {
    const ready = all.filter(({ phase }) => phase === "Ready").length;
    const attention = all.filter(needsAttention).length;
    const text = all.length ? `${ready} of ${all.length} ready${attention ? ", " : ""}` : "";
    setText(this._ready, loaded ? text : "Loading the sessions…");
    setText(this._attention, attention === 1 ? "1 needs attention" : `${attention} need attention`);
    this._attention.hidden = !loaded || !attention;
  }

  /** A choice that the address remembers. */
  _choice(label, options, value) {
    const select = h(
      "select", { id: label.toLowerCase(), "aria-label": label },
      ...Object.entries(options).map(([option, [text]]) => h("option", { value: option }, text)),
    );
    select.value = value in options ? value : Object.keys(options)[0];
    select.addEventListener("change", () => {
      const parameters = new URLSearchParams();
      if (this._state.value) parameters.set("state", this._state.value);
      if (this._order.value !== "name") parameters.set("sort", this._order.value);
      history.replaceState(null, "", parameters.size ? `#/?${parameters}` : "#/");
      this.update();
    });
    return select;
  }

  _new(label) {
    const button = h("button", { class: "primary", type: "button", hidden: !this._api.may("sessions:write") }, label);
    button.addEventListener("click", () => createSession(this._api));
    return button;
  }

  _row(session) {
    const pill = h("span", { class: "pill" });
    const who = h("span", { class: "who" });
    const number = h("span", { class: "number" });
    const when = h("time", { class: "when" });
    const owner = this._api.admin ? h("span", { class: "owner" }, session.owner ?? "no owner") : null;
    const link = h(
      "a", { class: "row", href: this._api.address(session) },
      h("span", { class: "name", title: session.clientId }, session.clientId), pill,
      h("span", { class: "account" }, who, number), owner, when,
    );
    const row = {
      element: h("li", {}, link),
      update: (now) => {
        const { label, tone } = state(now);
        pill.className = `pill ${tone}`;
        setText(pill, label);
        setText(who, now.account ? (now.account.pushName ?? "") : account(now));
        setText(number, now.account ? phone(now.account.id) : "");
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

function urgency(session) {
  return URGENCY.indexOf(state(session).tone);
}

/** When the session was last connected; 0 when it never was. */
function connected({ lastConnected }) {
  return lastConnected ? Date.parse(lastConnected) : 0;
}
