// What a session's state means, in plain words.

/** Tones: `good`, `busy` (goes on by itself), `attention` (a person is wanted), `bad`, `idle`. */
const PHASES = {
  Pending: ["Waiting", "busy", "The session waits for its place in the cluster."],
  Starting: ["Starting", "busy", "WhatsApp Web is being opened."],
  Authenticating: ["Link a phone", "attention", "A phone can be linked now."],
  Syncing: ["Syncing", "busy", "The phone is linked. Its messages are being loaded."],
  Ready: ["Ready", "good", "Connected. Messages can be sent and received."],
  Reconnecting: ["Reconnecting", "busy", "The connection was lost. It comes back by itself."],
  Restoring: ["Restoring", "busy", "The session comes back with its stored login. No phone is needed."],
  Suspended: ["Suspended", "idle", "The session is stopped. Its login is kept."],
  LoggedOut: ["Logged out", "attention", "WhatsApp has ended the login. A phone has to be linked again."],
  PasskeyRequired: ["Passkey needed", "attention", "WhatsApp wants the account's passkey. Confirm it on the phone."],
  Conflict: ["Open elsewhere", "attention", "WhatsApp Web was opened elsewhere with this login. Restore the session to take it back."],
  Failed: ["Failed", "bad", "The session has stopped. It needs somebody to look at it."],
  Terminating: ["Being deleted", "idle", "The session is being stopped and will be gone."],
};

const CONDITIONS = {
  Ready: { True: "Ready for messages", False: "Not ready for messages" },
  Authenticated: { True: "Logged in to WhatsApp", False: "Not logged in to WhatsApp", Unknown: "Not known whether it is logged in" },
  Restored: { True: "Came back with its stored login", False: "Not restored from a stored login", Unknown: "Restoring its login" },
  PodReady: { True: "Its pod is running", False: "Its pod is not running" },
  StorageReady: { True: "Its volume is ready", False: "Its volume is not ready" },
  Degraded: { True: "Something is wrong" },
};
const DISCONNECTS = {
  Logout: "WhatsApp ended the login",
  Connection: "The connection to WhatsApp was lost",
  Conflict: "WhatsApp Web was opened elsewhere",
  Crash: "The browser stopped unexpectedly",
  PhoneOffline: "The phone was away for too long",
};

/** A session in a word, a tone and a sentence. */
export function state(session) {
  const [word, tone, meaning] = PHASES[session.phase] ?? [session.phase, "busy", ""];
  const trouble = session.conditions.find(({ type, status }) => type === "Degraded" && status === "True");
  if (session.reason === "PairingExpired") {
    return { word: "Not linked", tone: "attention", sentence: "All codes were used up without a phone. Ask for a new one." };
  }
  if (session.phase !== "Ready") return { word, tone, sentence: session.message ?? meaning };
  if (trouble) return { word, tone: "attention", sentence: trouble.message || "Connected, but something is wrong." };
  return { word, tone, sentence: meaning };
}

/** What has happened, newest first: `{ at, title, text, tone }`. */
export function history(session) {
  const found = [{ at: session.createdAt, title: "The session was created", text: "", tone: "idle" }];
  const told = new Set();
  for (const condition of session.conditions) {
    const title = condition.reason === "NewLogin" ? "A phone was linked since its last start" : CONDITIONS[condition.type]?.[condition.status];
    if (!title || condition.reason === "NoLogin") continue;
    const text = told.has(condition.message) ? "" : (condition.message ?? ""); // several conditions give the same sentence
    told.add(condition.message);
    found.push({ at: condition.lastTransitionTime, title, text, tone: toneOf(condition) });
  }
  const lost = session.lastDisconnect;
  if (lost) found.push({ at: lost.at, title: DISCONNECTS[lost.kind] ?? "Disconnected", text: `WhatsApp's word for it: ${lost.reason}`, tone: "attention" });
  return found.sort((one, other) => Date.parse(other.at) - Date.parse(one.at));
}

function toneOf(condition) {
  if (condition.type === "Degraded") return "bad";
  if (condition.status === "Unknown") return "busy";
  if (condition.status === "True") return "good";
  return condition.reason === "NewLogin" ? "idle" : "attention";
}

/** `15551234567@c.us` as a phone number; other ids as they are. */
export function phone(id) {
  const [number, server] = id.split("@");
  return server === "c.us" ? `+${number}` : id;
}

export function account(session) {
  if (!session.account) return "No phone linked";
  const { id, pushName } = session.account;
  return pushName ? `${pushName}, ${phone(id)}` : phone(id);
}

export const ACKS = { "-1": "Failed", 0: "Waiting to be sent", 1: "Sent", 2: "Delivered", 3: "Read", 4: "Played" };

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const absolute = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

/** A moment from now, such as "3 minutes ago". */
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
