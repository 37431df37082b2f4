// A session's state as people read it: pure.

/** Tones: `good`, `busy` (in progress), `attention` (a person is needed), `bad`, `idle`. */
const PHASES = {
  Pending: ["Waiting", "busy", "The session is waiting to be started."],
  Starting: ["Starting", "busy", "WhatsApp Web is being opened."],
  Authenticating: ["Link a phone", "attention", "A phone can be linked now."],
  Syncing: ["Syncing", "busy", "The phone is linked. Its messages are being loaded."],
  Ready: ["Ready", "good", "Connected. Messages can be sent and received."],
  Reconnecting: ["Reconnecting", "busy", "The connection was lost. Reconnecting…"],
  Restoring: ["Restoring", "busy", "The session is being restored from its stored login. No phone is needed."],
  Suspended: ["Suspended", "idle", "The session is stopped. Its login is retained."],
  Hibernated: ["Asleep", "idle", "The session sleeps, as nobody uses it. Sending a message wakes it."],
  LoggedOut: ["Logged out", "attention", "WhatsApp has ended the login. Link a phone again."],
  PasskeyRequired: ["Passkey needed", "attention", "WhatsApp asks for the account's passkey. Confirm it on the phone."],
  Conflict: ["Open elsewhere", "attention", "WhatsApp Web was opened elsewhere with this login. Restore the session to take it back."],
  Failed: ["Failed", "bad", "The session has stopped and needs attention."],
  Terminating: ["Being deleted", "idle", "The session is being stopped and deleted."],
};

const CONDITIONS = {
  Ready: { True: "Ready for messages", False: "Not ready for messages" },
  Authenticated: { True: "Logged in to WhatsApp", False: "Not logged in to WhatsApp", Unknown: "Login state unknown" },
  Restored: { True: "Restored from its stored login", False: "Not restored from a stored login", Unknown: "Restoring its login" },
  PodReady: { True: "Pod is running", False: "Pod is not running" },
  StorageReady: { True: "Volume is ready", False: "Volume is not ready" },
  Degraded: { True: "A problem was detected" },
};
const DISCONNECTS = {
  Logout: "WhatsApp ended the login",
  Connection: "The connection to WhatsApp was lost",
  Conflict: "WhatsApp Web was opened elsewhere",
  Crash: "The browser stopped unexpectedly",
  PhoneOffline: "The phone was offline for too long",
};

/** A session as a label, a tone and a sentence. */
export function state(session) {
  const [label, tone, meaning] = PHASES[session.phase] ?? [session.phase, "busy", ""];
  const degraded = session.conditions.find(({ type, status }) => type === "Degraded" && status === "True");
  if (session.reason === "PairingExpired") {
    return { label: "Not linked", tone: "attention", sentence: "All codes expired before a phone was linked. Request a new one." };
  }
  if (session.phase === "Hibernated" && session.hibernation) {
    const { since, wakeAt } = session.hibernation;
    return { label, tone, sentence: `Asleep since ${exactly(since)}, as nobody uses it. Sending a message wakes it; it wakes by itself on ${exactly(wakeAt)}.` };
  }
  if (session.phase !== "Ready") return { label, tone, sentence: session.message ?? meaning };
  if (degraded) return { label, tone: "attention", sentence: degraded.message || "Connected, but a problem was detected." };
  return { label, tone, sentence: meaning };
}

/** What has happened, newest first: `{ at, title, text, tone }`. */
export function history(session) {
  const entries = [{ at: session.createdAt, title: "The session was created", text: "", tone: "idle" }];
  const shown = new Set();
  for (const condition of session.conditions) {
    const title = condition.reason === "NewLogin" ? "A phone was linked since its last start" : CONDITIONS[condition.type]?.[condition.status];
    if (!title || condition.reason === "NoLogin") continue;
    const text = shown.has(condition.message) ? "" : (condition.message ?? ""); // several conditions have the same message
    shown.add(condition.message);
    entries.push({ at: condition.lastTransitionTime, title, text, tone: toneOf(condition) });
  }
  const lost = session.lastDisconnect;
  if (lost) entries.push({ at: lost.at, title: DISCONNECTS[lost.kind] ?? "Disconnected", text: `Reason: ${lost.reason}`, tone: "attention" });
  return entries.sort((one, other) => Date.parse(other.at) - Date.parse(one.at));
}

function toneOf(condition) {
  if (condition.type === "Degraded") return "bad";
  if (condition.status === "Unknown") return "busy";
  if (condition.status === "True") return "good";
  return condition.reason === "NewLogin" ? "idle" : "attention";
}

/** `15551234567@c.us` as a phone number; other ids unchanged. */
export function phone(id) {
  const [number, server] = id.split("@");
  return server === "c.us" ? `+${number}` : id;
}

export function account(session) {
  if (!session.account) return "No phone linked";
  const { id, pushName } = session.account;
  return pushName ? `${pushName}, ${phone(id)}` : phone(id);
}

/** Who has written a message: `Maria, in a group`. */
export function sender({ fromMe, senderName, from, phoneNumber, chatId }) {
  const who = fromMe ? "You" : (senderName ?? (phoneNumber ? `+${phoneNumber.replace(/^\+/, "")}` : phone(from)));
  return chatId.endsWith("@g.us") ? `${who}, in a group` : who;
}

/** A message's text, or what it is where it has none: `[image]`. */
export function contentOf({ text, type }) {
  return text || `[${type}]`;
}

const DELIVERIES = {
  Delivering: ["Delivering", "good"],
  Failing: ["Failing", "attention"],
  Paused: ["Paused", "idle"],
  Gone: ["Endpoint gone", "attention"],
};

/** A delivery's state as a label and a tone. */
export function deliveryState(state) {
  const [label, tone] = DELIVERIES[state] ?? [state, "attention"];
  return { label, tone };
}

/** What waits for a webhook or sink, and when it got something last. */
export function deliverySummary({ pending, oldest, lastDelivered }, now) {
  const events = pending === 1 ? "1 event waits" : `${pending} events wait`;
  const since = oldest ? `, the first since ${ago(oldest, now).replace(/ ago$/, "")}` : "";
  const waiting = pending === 0 ? "Nothing waits." : `${events}${since}.`;
  return lastDelivered ? `${waiting} Delivered last ${ago(lastDelivered, now)}.` : waiting;
}

/** Whether a person should look at the session. */
export function needsAttention(session) {
  return ["attention", "bad"].includes(state(session).tone);
}

const PERMISSIONS = {
  "sessions:write": "change sessions",
  pair: "link phones",
  "messages:read": "read messages",
  "messages:send": "send messages",
};

/** Why parts of the page are missing; empty when the token lacks none of its scopes. */
export function restrictions(missing) {
  const lacking = missing.filter((scope) => scope in PERMISSIONS);
  if (lacking.length === 0) return "";
  const list = (items, word) => new Intl.ListFormat("en", { type: word }).format(items);
  const actions = list(lacking.map((scope) => PERMISSIONS[scope]), "disjunction");
  return `Your token does not permit you to ${actions}: it lacks ${list(lacking, "conjunction")}.`;
}

// Names of the API's fields, as the console calls them.
const FIELDS = { clientId: "The name", phoneNumber: "The phone number", to: "The recipient", text: "The text" };

/** A detail of the API as a sentence of the console. */
export function readable(detail) {
  const [, field, rest] = /^(?:\w+\.)*(\w+): (.*)$/s.exec(detail) ?? [];
  const text = FIELDS[field] ? `${FIELDS[field]} ${rest}` : detail.replaceAll("with this clientId", "of this name");
  const capitalized = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capitalized) ? capitalized : `${capitalized}.`;
}

export const ACKS = { "-1": "Failed", 0: "Waiting to be sent", 1: "Sent", 2: "Delivered", 3: "Read", 4: "Played" };

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const absolute = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

/** A moment relative to now, such as "3 minutes ago". */
export function ago(moment, now) {
  const seconds = Math.round((Date.parse(moment) - now) / 1000);
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
  }
  return "just now";
}

export function exactly(moment) {
  return absolute.format(Date.parse(moment));
}
