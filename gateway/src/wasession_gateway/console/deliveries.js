// What the webhooks and sinks of a session get: what waits, what failed, and delivering it again.

import { action, h, setText, toast } from "/dom.js";
import { ago, deliveryState, deliverySummary, exactly } from "/formatting.js";

const INTERVAL = 10000; // milliseconds between requests while the page is open

export class Deliveries {
  constructor(api) {
    this._api = api;
    this._known = ""; // the states as of the last request
    this._asked = 0; // when it was, in milliseconds
    this._rows = new Map(); // by name
    this._list = h("ul", { class: "deliveries" });
    this._problem = h("p", { class: "note bad", role: "status", hidden: true });
    this.element = h(
      "section", { class: "card", "aria-labelledby": "deliveries-title", hidden: true },
      h("h2", { id: "deliveries-title" }, "Delivery"), this._problem, this._list,
    );
  }

  update(session) {
    this._session = session;
    this.element.hidden = session.delivery.length === 0;
    if (this.element.hidden) return;
    const states = JSON.stringify(session.delivery);
    if (states === this._known && Date.now() - this._asked < INTERVAL) return;
    this._known = states;
    this._load();
  }

  async _load() {
    this._asked = Date.now();
    try {
      const answer = await this._api.of(this._session, "GET", "/deliveries");
      this._show((await answer.json()).items);
      this._problem.hidden = true;
    } catch (error) {
      this._problem.hidden = false;
      setText(this._problem, error.message);
    }
  }

  _show(deliveries) {
    const rows = deliveries.map((details) => {
      const row = this._rows.get(details.name) ?? new Row(this._api, details.name, () => this._load());
      row.update(this._session, details);
      return row;
    });
    const elements = rows.map((row) => row.element);
    if (rows.length !== this._rows.size || rows.some((row, place) => this._list.children[place] !== row.element)) {
      this._list.replaceChildren(...elements);
    }
    this._rows = new Map(rows.map((row) => [row.name, row]));
  }
}

/** One webhook or sink. Its elements stay, so that the focus does. */
class Row {
  constructor(api, name, reload) {
    this._api = api;
    this._reload = reload;
    this.name = name;
    this._pill = h("span", { class: "pill" });
    this._place = h("p", { class: "hint" });
    this._summary = h("p", {});
    this._error = h("p", { class: "note attention", hidden: true });
    this._pause = action("Pause", {}, () => this._post("pause", "is paused: its events wait"));
    this._resume = action("Resume", { class: "primary" }, () => this._post("resume", "gets events again"));
    this._again = action("Deliver again", {}, () => this._replay());
    this._letters = h("ol", { class: "letters-list" });
    this._given = h("summary", {});
    this._dead = h("details", { hidden: true }, this._given, this._letters, this._again);
    this._dead.addEventListener("toggle", () => this._dead.open && this._showLetters());
    this._buttons = h("div", { class: "buttons start" }, this._pause, this._resume);
    this.element = h(
      "li", {}, h("div", { class: "title" }, h("h3", {}, name), this._pill),
      this._place, this._summary, this._error, this._dead, this._buttons,
    );
  }

  update(session, details) {
    this._session = session;
    const now = this._api.now();
    const { label, tone } = deliveryState(details.state);
    this._pill.className = `pill ${tone}`;
    setText(this._pill, label);
    setText(this._place, details.place);
    setText(this._summary, deliverySummary(details, now));
    this._error.hidden = !details.error;
    setText(this._error, details.error ? `Last attempt: ${details.error}` : "");
    const writes = this._api.may("sessions:write");
    const stopped = details.state === "Paused" || details.state === "Gone";
    this._buttons.hidden = !writes;
    this._pause.hidden = stopped;
    this._resume.hidden = !stopped;
    this._again.hidden = !writes;
    this._dead.hidden = details.deadLetters === 0;
    setText(this._given, details.deadLetters === 1 ? "1 event was given up" : `${details.deadLetters} events were given up`);
  }

  async _showLetters() {
    const answer = await this._api.of(this._session, "GET", `/deliveries/${this.name}/dead-letters`).catch((error) => toast(error.message, "bad"));
    if (!answer) return;
    const { items } = await answer.json();
    this._letters.replaceChildren(
      ...items.slice(0, 50).map(({ eventId, kind, at, attempts, error }) =>
        h("li", {}, h("span", {}, `${kind} ${eventId}`), h("span", { class: "hint" }, `${error}, after ${attempts} attempts, `,
          h("time", { datetime: at, title: exactly(at) }, ago(at, this._api.now()))))),
    );
  }

  async _replay() {
    const answer = await this._api.of(this._session, "POST", `/deliveries/${this.name}/dead-letters/replay`);
    const { count } = await answer.json();
    toast(count === 1 ? "1 event is delivered again." : `${count} events are delivered again.`);
    this._dead.open = false;
    this._reload();
  }

  async _post(what, outcome) {
    await this._api.of(this._session, "POST", `/deliveries/${this.name}/${what}`);
    toast(`${this.name} ${outcome}.`);
    this._reload();
  }
}
