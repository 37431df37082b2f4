// The page of WhatsApp Web itself, for admins: a screenshot, or picture after picture.

import { h, setText } from "/dom.js";

const WITHOUT_PAGE = ["Pending", "Suspended", "Hibernated", "Terminating"];
const MAXIMUM_PICTURE = 8 * 2 ** 20; // bytes
const END_OF_HEAD = [13, 10, 13, 10];
const BOUNDARY = "\r\n--picture\r\n".length;

export class LiveView {
  constructor(api) {
    this._api = api;
    this._look = null; // what ends the request whose pictures are shown
    this._canvas = h("canvas", { class: "view", role: "img", "aria-label": "The page of WhatsApp Web", hidden: true });
    this._state = h("p", { class: "hint", role: "status" });
    this._problem = h("p", { class: "note bad", role: "alert", hidden: true });
    const button = (label, act) => {
      const element = h("button", { type: "button" }, label);
      element.addEventListener("click", act);
      return element;
    };
    this._close = button("Close", () => this.leave());
    this.element = h(
      "section", { class: "card", "aria-labelledby": "view-title", hidden: true },
      h("h2", { id: "view-title" }, "Page"),
      h("p", { class: "hint" }, "What WhatsApp Web shows: chats too and, while a phone is linked, the code. The audit log has who has looked."),
      h("div", { class: "buttons start" },
        button("Screenshot", () => this._show("Taking a screenshot…", (look) => this._takeScreenshot(look))),
        button("Watch", () => this._show("Waiting for the first picture…", (look) => this._watch(look))),
        this._close),
      this._problem, this._canvas, this._state,
    );
    this.leave();
  }

  update(session) {
    this._session = session;
    this.element.hidden = !this._api.mayLook() || WITHOUT_PAGE.includes(session.phase);
    if (this.element.hidden) this.leave();
  }

  /** Ends what is under way, and forgets what it has shown. */
  leave() {
    this._look?.abort();
    this._look = null;
    this._canvas.width = this._canvas.height = 0;
    this._canvas.hidden = this._close.hidden = this._problem.hidden = true;
    setText(this._state, "");
  }

  async _show(waiting, act) {
    this.leave();
    const look = (this._look = new AbortController());
    this._close.hidden = false;
    setText(this._state, waiting);
    try {
      await act(look);
    } catch (error) {
      if (this._look !== look) return; // it was closed
      this.leave();
      this._problem.hidden = false;
      setText(this._problem, error.message);
    }
  }

  async _takeScreenshot(look) {
    const response = await this._request("/screenshot", "image/png", look);
    await this._draw(await response.blob(), look, `A screenshot of ${new Date().toLocaleTimeString()}.`);
  }

  async _watch(look) {
    const response = await this._request("/screencast", "multipart/x-mixed-replace", look);
    for await (const picture of pictures(response.body)) {
      await this._draw(new Blob([picture], { type: "image/jpeg" }), look, "Live. It ends after 5 minutes.");
    }
    if (this._look !== look) return;
    this.leave();
    setText(this._state, "It has ended: after 5 minutes, as the page was closed, or as somebody else looks at it. Watch again if you need to.");
  }

  _request(what, accept, { signal }) {
    return this._api.of(this._session, "GET", what, { accept, signal });
  }

  async _draw(blob, look, state) {
    const image = await createImageBitmap(blob);
    if (this._look === look) {
      this._canvas.width = image.width;
      this._canvas.height = image.height;
      this._canvas.getContext("2d").drawImage(image, 0, 0);
      this._canvas.hidden = false;
      setText(this._state, state);
    }
    image.close();
  }
}

/** The pictures of a multipart/x-mixed-replace body, each with a Content-Length. */
async function* pictures(body) {
  const stream = new Bytes(body);
  await stream.take("--picture\r\n".length);
  for (;;) {
    const head = await stream.until(END_OF_HEAD);
    const length = Number(/content-length: *(\d+)/i.exec(head)?.[1] ?? NaN);
    if (!(length <= MAXIMUM_PICTURE)) return;
    const picture = await stream.take(length);
    if (picture === null) return;
    yield picture;
    await stream.take(BOUNDARY);
  }
}

/** Reads a stream in pieces of one's own choice. */
class Bytes {
  constructor(body) {
    this._reader = body.getReader();
    this._received = new Uint8Array();
  }

  /** So many bytes; null if the stream ends before. */
  async take(length) {
    while (this._received.length < length) if (!(await this._read())) return null;
    const taken = this._received.slice(0, length);
    this._received = this._received.slice(length);
    return taken;
  }

  /** A text up to and with these bytes; empty if the stream ends before, or if it is too long. */
  async until(end) {
    for (let start = 0; start < 1024; start += 1) {
      while (this._received.length < start + end.length) if (!(await this._read())) return "";
      if (end.every((byte, index) => this._received[start + index] === byte)) {
        return new TextDecoder().decode(await this.take(start + end.length));
      }
    }
    return "";
  }

  async _read() {
    const { done, value } = await this._reader.read();
    if (done) return false;
    const joined = new Uint8Array(this._received.length + value.length);
    joined.set(this._received);
    joined.set(value, this._received.length);
    this._received = joined;
    return true;
  }
}
