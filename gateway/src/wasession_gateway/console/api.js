// The gateway's REST API, with the caller's token.

import { readable } from "/formatting.js";

const SCOPES = ["sessions:read", "sessions:write", "pair", "messages:read", "messages:send"];

/** An error response; the message is the detail of its problem+json. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export class Api {
  /** `expired` is called when the gateway rejects the token. */
  constructor(token, expired) {
    this.token = token;
    this.expired = expired;
    this.clockSkew = 0; // milliseconds by which the gateway's clock is ahead of this one
    const claims = readClaims(token);
    this.subject = claims.sub ?? "";
    const listed = readScopes(claims);
    this.admin = claims.role === "admin" || Boolean(listed?.includes("admin"));
    const permitted = SCOPES.filter((scope) => listed?.includes(scope));
    const everything = listed === null || (listed.includes("admin") && permitted.length === 0);
    /** The scopes that the token lacks. */
    this.missing = everything ? [] : SCOPES.filter((scope) => !permitted.includes(scope));
  }

  may(scope) {
    return !this.missing.includes(scope);
  }

  /** Whether the token permits looking at pages, which show chats and link codes. */
  mayLook() {
    return this.admin && this.may("pair") && this.may("messages:read");
  }

  /** Milliseconds since the epoch, by the gateway's clock. */
  now() {
    return Date.now() + this.clockSkew;
  }

  async request(method, path, { query, json, form, headers, signal, accept = "application/json" } = {}) {
    const parameters = new URLSearchParams(Object.entries(query ?? {}).filter(([, value]) => value !== undefined));
    const url = parameters.size ? `${path}?${parameters}` : path;
    const sent = { Authorization: `Bearer ${this.token}`, Accept: accept, ...headers };
    if (json !== undefined) sent["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(url, { method, headers: sent, body: json === undefined ? form : JSON.stringify(json), signal });
    } catch {
      throw new Problem(0, "The gateway cannot be reached. Check the connection and try again.");
    }
    const date = Date.parse(response.headers.get("Date"));
    if (date) this.clockSkew = date - Date.now();
    if (!response.ok) {
      const problem = await response.json().catch(() => ({}));
      if (response.status === 401) this.expired(problem.detail);
      throw new Problem(response.status, readable(problem.detail ?? `The gateway answered with status ${response.status}.`));
    }
    return response;
  }

  /** A request about one session. For an admin it names the owner. */
  async of(session, method, what = "", options = {}) {
    const query = { owner: this.owner(session), ...options.query };
    return this.request(method, `/whatsapp/sessions/${encodeURIComponent(session.clientId)}${what}`, { ...options, query });
  }

  owner(session) {
    return this.admin ? (session.owner ?? undefined) : undefined;
  }

  /** The address of a session's page in the console; for an admin it names the owner. */
  address(session) {
    const owner = this.owner(session);
    return `#/sessions/${encodeURIComponent(session.clientId)}${owner === undefined ? "" : `?${new URLSearchParams({ owner })}`}`;
  }

  async restore(session) {
    const path = `/whatsapp/restore-session/${encodeURIComponent(session.clientId)}`;
    return this.request("POST", path, { query: { owner: this.owner(session) } });
  }

  /** The QR as a URL for an `img`. */
  async picture(session) {
    const response = await this.of(session, "GET", "/pairing", { accept: "image/svg+xml" });
    return `data:image/svg+xml;base64,${btoa(await response.text())}`;
  }
}

/** A token's claims, for display only: the gateway verifies tokens. */
export function readClaims(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}

/** The scopes that a token lists; null when it has no such claim and permits everything. */
function readScopes({ scope, scp }) {
  const listed = scope ?? scp ?? null;
  return typeof listed === "string" ? listed.split(" ") : listed;
}

/** A key for one request; `crypto.randomUUID` would require HTTPS. */
export function idempotencyKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

