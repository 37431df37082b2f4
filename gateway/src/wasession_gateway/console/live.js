// The present state of the sessions, over Socket.IO.

import { io } from "/socket.io-client.js";

const RETRY = 5; // seconds before retrying a rejected connection

/**
 * Events: `change` (sessions or the connection), `code`, `message` and `ack` (detail: the payload), `expired` (detail: the reason).
 * `connection` is `connecting`, `live` or `lost`.
 */
export class Live extends EventTarget {
  constructor(token) {
    super();
    this.sessions = new Map(); // by the name of the WhatsAppSession, which is unique
    this.connection = "connecting";
    this.loaded = false; // whether the list has arrived once
    this._joined = null;
    this._socket = io("/whatsapp", { auth: { token }, autoConnect: false });
    this._socket.on("connect", () => this._init());
    this._socket.on("disconnect", (reason) => this._lost(reason === "io server disconnect"));
    this._socket.on("connect_error", (error) => this._rejected(error));
    this._socket.on("state", (session) => this._put(session));
    this._socket.on("session_removed", () => this._init());
    this._socket.on("qr", (code) => this._dispatch("code", { method: "QRCode", ...code }));
    this._socket.on("pairing_code", (code) => this._dispatch("code", { method: "PairingCode", ...code }));
    this._socket.on("message", (message) => this._dispatch("message", message));
    this._socket.on("message_ack", (ack) => this._dispatch("ack", ack));
    this._socket.on("closing", (closing) => {
      // What to do about it follows a colon; the sign-in page says it too.
      if (!closing.reconnect) this._dispatch("expired", closing.message.split(":")[0]);
    });
    this._socket.connect();
  }

  close() {
    clearTimeout(this._retry);
    this._socket.removeAllListeners();
    this._socket.disconnect();
  }

  /** The only session of that name; admins may see several. */
  find(clientId, owner) {
    const matches = [...this.sessions.values()].filter(
      (session) => session.clientId === clientId && (owner === undefined || session.owner === owner),
    );
    return matches.length === 1 ? matches[0] : undefined;
  }

  /** Receives the codes and messages of a session too, also after a reconnection. */
  join(session) {
    this._joined = session;
    if (this.connection === "live" && session) this._socket.emit("init", session);
  }

  _init() {
    this._socket.emit("init", {}, (answer) => {
      if (!answer.ok) {
        this._rejected({ message: answer.problem.detail, data: answer.problem });
        return this._later(() => this._init(), answer.problem.retryAfter);
      }
      this.sessions = new Map(answer.sessions.map((session) => [session.name, session]));
      this.connection = "live";
      this.loaded = true;
      this._dispatch("change");
      this.join(this._joined);
    });
  }

  _put(session) {
    this.sessions.set(session.name, session);
    this._dispatch("change");
  }

  _lost(byServer) {
    this.connection = "lost";
    this._dispatch("change");
    if (byServer) this._later(() => this._socket.connect());
  }

  _rejected(error) {
    if (error.data?.status === 401) return this._dispatch("expired", error.message);
    this._lost(!this._socket.active);
  }

  /** The library reconnects by itself unless the gateway rejected the connection. */
  _later(act, seconds = RETRY) {
    clearTimeout(this._retry);
    this._retry = setTimeout(act, seconds * 1000);
  }

  _dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
