// The sessions as they are now, told over Socket.IO.

import { io } from "/socket.io-client.js";

const AGAIN = 5000; // milliseconds before a refused connection is tried again

/**
 * Events: `change` (sessions or the connection), `code` and `ack` (details: what the gateway told), `expired` (detail: why).
 * `connection` is `connecting`, `live` or `lost`.
 */
export class Live extends EventTarget {
  constructor(token) {
    super();
    this.sessions = new Map(); // by the name of the WhatsAppSession, which no two have
    this.connection = "connecting";
    this.known = false; // whether the list was heard once
    this._joined = null;
    this._socket = io("/whatsapp", { auth: { token }, autoConnect: false });
    this._socket.on("connect", () => this._init());
    this._socket.on("disconnect", (reason) => this._lost(reason === "io server disconnect"));
    this._socket.on("connect_error", (error) => this._refused(error));
    this._socket.on("state", (session) => this._put(session));
    this._socket.on("session_removed", () => this._init());
    this._socket.on("qr", (code) => this._tell("code", { method: "QRCode", ...code }));
    this._socket.on("pairing_code", (code) => this._tell("code", { method: "PairingCode", ...code }));
    this._socket.on("message_ack", (ack) => this._tell("ack", ack));
    this._socket.on("closing", (closing) => {
      if (!closing.reconnect) this._tell("expired", closing.message);
    });
    this._socket.connect();
  }

  close() {
    clearTimeout(this._again);
    this._socket.removeAllListeners();
    this._socket.disconnect();
  }

  /** The only session of that name, where admins may see several. */
  find(clientId, owner) {
    const found = [...this.sessions.values()].filter(
      (session) => session.clientId === clientId && (owner === undefined || session.owner === owner),
    );
    return found.length === 1 ? found[0] : undefined;
  }

  /** Hears the codes and messages of a session too, also after a new connection. */
  join(which) {
    this._joined = which;
    if (this.connection === "live" && which) this._socket.emit("init", which);
  }

  _init() {
    this._socket.emit("init", {}, (answer) => {
      if (!answer.ok) {
        this._refused({ message: answer.problem.detail, data: answer.problem });
        return this._later(() => this._init());
      }
      this.sessions = new Map(answer.sessions.map((session) => [session.name, session]));
      this.connection = "live";
      this.known = true;
      this._tell("change");
      this.join(this._joined);
    });
  }

  _put(session) {
    this.sessions.set(session.name, session);
    this._tell("change");
  }

  _lost(byServer) {
    this.connection = "lost";
    this._tell("change");
    if (byServer) this._later(() => this._socket.connect());
  }

  _refused(error) {
    if (error.data?.status === 401) return this._tell("expired", error.message);
    this._lost(!this._socket.active);
  }

  /** The library connects again by itself, unless it was the gateway that has refused. */
  _later(act) {
    clearTimeout(this._again);
    this._again = setTimeout(act, AGAIN);
  }

  _tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
