// Dialogs that ask before something is done.

import { busy, field, h, toast } from "/dom.js";
import { phone } from "/formatting.js";

/** Opens a dialog. `act` runs on confirmation; the dialog closes when it succeeds, unless it returns false. */
function ask({ title, body, confirm, tone = "primary", act }) {
  const problem = h("p", { class: "note bad", role: "alert", hidden: true });
  const cancel = h("button", { type: "button" }, "Cancel");
  const confirmButton = h("button", { class: tone, type: "submit" }, confirm);
  const form = h("form", { novalidate: true }, ...body, problem, h("div", { class: "buttons" }, cancel, confirmButton));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, h("h2", { id: "dialog-title" }, title), form);
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    busy(confirmButton, async () => {
      problem.hidden = true;
      try {
        if ((await act()) !== false) dialog.close();
      } catch (error) {
        problem.hidden = false;
        problem.textContent = error.message;
      }
    });
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

export function createSession(api) {
  const name = h("input", { id: "new-name", autocomplete: "off", spellcheck: "false", autocapitalize: "off", maxlength: "64" });
  const nameField = field("Name", name, "Letters, digits, - and _, such as sales-eu. The name cannot be changed later.");
  const number = h("input", { id: "new-number", type: "tel", inputmode: "tel", autocomplete: "off", placeholder: "15551234567" });
  const numberField = field("Phone number", number, "Country code and number. WhatsApp asks for the code on this phone.");
  numberField.hidden = true;
  const method = (value, label, hint, checked) => {
    const input = h("input", { type: "radio", name: "method", value, id: `method-${value}`, checked });
    input.addEventListener("change", () => (numberField.hidden = value !== "PairingCode"));
    return h("label", { class: "choice", for: input.id }, input, h("span", {}, label, h("small", {}, hint)));
  };
  const methods = h(
    "fieldset", {}, h("legend", {}, "How to link the phone"),
    method("QRCode", "Scan a QR", "With the camera of the account's phone.", true),
    method("PairingCode", "Type a code", "Eight characters, for a phone whose camera cannot see this screen.", false),
  );
  ask({
    title: "New session",
    body: [nameField, methods, numberField],
    confirm: "Create",
    act: async () => {
      const byCode = methods.querySelector("input:checked").value === "PairingCode";
      const digits = number.value.replace(/[\s()+-]/g, "");
      nameField.fail("");
      numberField.fail("");
      if (byCode && !/^[1-9]\d{6,14}$/.test(digits)) numberField.fail("Country code and number, such as 15551234567.");
      if (!/^[A-Za-z0-9_-]{1,64}$/.test(name.value.trim())) nameField.fail("Use letters, digits, - and _ only, at least one.");
      if (methods.parentElement.querySelector("[aria-invalid]")) return false;
      const pairing = byCode ? { method: "PairingCode", phoneNumber: digits } : undefined;
      const response = await api.request("POST", "/whatsapp/sessions", { json: { clientId: name.value.trim(), pairing } });
      location.hash = api.address(await response.json());
      return true;
    },
  });
  name.focus();
}

export function confirmLogout(api, session) {
  const who = session.account ? phone(session.account.id) : "WhatsApp";
  ask({
    title: `Log out of ${who}?`,
    body: [
      h("p", {}, "The login ends: the session disappears from the phone's linked devices, and using it again requires linking a phone."),
      h("p", { class: "hint" }, "To stop the session but retain its login, suspend it instead."),
    ],
    confirm: "Log out",
    tone: "danger",
    act: async () => {
      await api.of(session, "POST", "/logout");
      toast(`${session.clientId} was logged out.`);
    },
  });
}

export function confirmSuspend(api, session) {
  ask({
    title: `Suspend ${session.clientId}?`,
    body: [h("p", {}, "The session stops: no messages are sent or received. Its login is retained: resuming it requires no phone.")],
    confirm: "Suspend",
    act: () => api.of(session, "POST", "/suspend"),
  });
}

export function confirmDelete(api, session) {
  const choice = (value, label, hint, checked) => {
    const input = h("input", { type: "radio", name: "volume", value, id: `volume-${value}`, checked });
    return h("label", { class: "choice", for: input.id }, input, h("span", {}, label, h("small", {}, hint)));
  };
  const volume = h(
    "fieldset", {}, h("legend", {}, session.sessionValid ? "The volume with the login" : "The volume"),
    choice("keep", "Keep it", "A later session of the same name uses it.", true),
    choice("delete", "Delete it", session.sessionValid ? "The login is lost." : "It has no login.", false),
  );
  const logout = h("input", { type: "checkbox", id: "delete-logout" });
  const outcome = h("p", { role: "status" });
  const chosen = () => ({
    deleteVolume: volume.querySelector("input:checked").value === "delete",
    logout: logout.checked,
  });
  const describe = () => {
    const [sentence, tone] = volumeOutcome(session, chosen());
    outcome.textContent = sentence;
    outcome.className = `note ${tone}`;
  };
  volume.addEventListener("change", describe);
  logout.addEventListener("change", describe);
  describe();
  const logoutChoice = h(
    "label", { class: "choice", for: logout.id }, logout,
    h("span", {}, "Log out of WhatsApp first", h("small", {}, "The session disappears from the phone's linked devices as well.")),
  );
  ask({
    title: `Delete ${session.clientId}?`,
    body: [
      h("p", {}, "The session is stopped and deleted. Applications can no longer use it."),
      volume,
      ...(session.phase === "Ready" ? [logoutChoice] : []),
      outcome,
    ],
    confirm: "Delete",
    tone: "danger",
    act: async () => {
      await api.of(session, "DELETE", "", { query: chosen() });
      addEventListener("hashchange", () => toast(`${session.clientId} is being deleted.`), { once: true });
      location.hash = "#/";
    },
  });
}

/** What happens to the volume, as a sentence and a tone. */
function volumeOutcome(session, { deleteVolume, logout }) {
  if (deleteVolume) return ["The volume is deleted with everything on it. This cannot be undone.", "bad"];
  if (logout || !session.sessionValid) return ["The volume stays in the cluster, without a login.", "idle"];
  return [`The volume stays in the cluster. A new session named ${session.clientId} uses it with its login, without linking a phone.`, "idle"];
}
