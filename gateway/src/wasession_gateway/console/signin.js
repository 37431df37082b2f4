// Sign-in with a token, which is tried once before it is stored.

import { Api } from "/api.js";
import { busy, field, h, setText } from "/dom.js";

export class SignIn {
  title = "Sign in";

  constructor(signedIn, message) {
    this._signedIn = signedIn;
    this._token = h("input", {
      id: "token", type: "password", autocomplete: "off", spellcheck: "false", autocapitalize: "off", required: true,
    });
    this._field = field("Token", this._token, "A JSON Web Token from your application or your administrator. It stays in this tab.");
    this._button = h("button", { class: "primary wide", type: "submit" }, "Sign in");
    this._form = h("form", { novalidate: true }, this._field, this._button);
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      busy(this._button, () => this._try());
    });
    this.element = h(
      "section", { class: "card sign-in", "aria-labelledby": "sign-in-title" },
      h("h1", { id: "sign-in-title", tabindex: "-1" }, "Sign in"),
      h("p", { class: "lead" }, "Link phones to WhatsApp sessions and watch their state."),
      message ? h("p", { class: "note attention", role: "alert" }, message) : null,
      this._form,
    );
  }

  focus() {
    this._token.focus();
    return true;
  }

  async _try() {
    const token = this._token.value.trim().replace(/^Bearer\s+/i, "");
    this._field.fail("");
    if (!token) return this._field.fail("Paste your token here.");
    if (!/^[\w.+/=-]+$/.test(token)) return this._field.fail("This is not a token: it contains characters that tokens cannot have.");
    setText(this._button, "Signing in…");
    try {
      await new Api(token, () => {}).request("GET", "/whatsapp/health");
    } catch (error) {
      return this._field.fail(error.status === 401 ? `The gateway rejected this token: ${error.message}` : error.message);
    } finally {
      setText(this._button, "Sign in");
    }
    this._signedIn(token);
  }
}
