// Elements from data. External data becomes text or an attribute, never markup.

/** `h("button", { class: "primary", type: "button", onclick: send }, "Send")` */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text only when it differs: screen readers announce every change of a live region. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A button that ignores clicks while it works, and shows errors as toasts. */
export function action(label, attributes, act) {
  const button = h("button", { type: "button", ...attributes }, label);
  button.addEventListener("click", () => busy(button, act));
  return button;
}

export async function busy(button, act) {
  if (button.getAttribute("aria-disabled") === "true") return;
  // Not `disabled`, which would lose the focus.
  button.setAttribute("aria-disabled", "true");
  try {
    await act();
  } catch (error) {
    toast(error.message, "bad");
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

const TOAST_TIME = 8000; // milliseconds

/** Shows a short message above the page, which ends with the page. */
export function toast(text, tone = "good") {
  const dismiss = h("button", { class: "quiet", type: "button", "aria-label": "Dismiss" }, "×");
  const note = h("div", { class: `toast ${tone}` }, h("p", {}, text), dismiss);
  dismiss.addEventListener("click", () => note.remove());
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), TOAST_TIME);
}

export function dismissToasts() {
  document.getElementById("toasts").replaceChildren();
}

/** A field with its label, a hint and a place for an error. */
export function field(label, control, hint) {
  const id = control.id;
  const wrong = h("p", { class: "wrong", id: `${id}-wrong`, hidden: true });
  control.setAttribute("aria-describedby", hint ? `${id}-hint ${id}-wrong` : `${id}-wrong`);
  const box = h("div", { class: "field" }, h("label", { for: id }, label), control);
  if (hint) box.append(h("p", { class: "hint", id: `${id}-hint` }, hint));
  box.append(wrong);
  box.fail = (text) => {
    wrong.hidden = !text;
    wrong.textContent = text || "";
    if (!text) return control.removeAttribute("aria-invalid");
    control.setAttribute("aria-invalid", "true");
    control.focus();
  };
  return box;
}
