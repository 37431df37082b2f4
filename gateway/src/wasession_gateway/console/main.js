// Sign-in and navigation. The address names the page: `#/` lists the sessions, `#/sessions/ID` is one of them.

import { Api } from "/api.js";
import { dismissToasts, setText } from "/dom.js";
import { Live } from "/live.js";
import { SessionPage } from "/session.js";
import { SessionsPage } from "/sessions.js";
import { SignIn } from "/signin.js";

const TOKEN = "wasession.token"; // in sessionStorage, which ends with the tab; never in an address
const LOST_FOR = 2000; // milliseconds without a connection before the banner appears
const CLOCK = 15000; // milliseconds between updates of the relative times
const CONNECTIONS = { connecting: "Connecting", live: "Live", lost: "Not connected" };

const content = document.getElementById("content");
const banner = document.getElementById("banner");
let api = null;
let live = null;
let page = null;
let lostSince = null;
let updating = false;

function signIn(token) {
  sessionStorage.setItem(TOKEN, token);
  api = new Api(token, expired);
  live = new Live(token);
  live.addEventListener("change", updateSoon);
  live.addEventListener("code", ({ detail }) => page.code?.(detail));
  live.addEventListener("ack", ({ detail }) => page.ack?.(detail));
  live.addEventListener("message", ({ detail }) => page.message?.(detail));
  live.addEventListener("expired", ({ detail }) => expired(detail));
  setText(document.getElementById("subject"), api.admin ? `${api.subject} (admin)` : api.subject);
  document.getElementById("who").hidden = false;
  show();
}

function signOut(message = "") {
  sessionStorage.removeItem(TOKEN);
  live?.close();
  api = live = null;
  document.getElementById("who").hidden = true;
  banner.hidden = true;
  open(new SignIn(signIn, message));
}

function expired(reason) {
  if (api !== null) signOut(`You were signed out: ${reason ?? "the token is not valid"}. Sign in with a new token.`);
}

/** Opens the page that the address names. */
function show() {
  if (api === null) return;
  const [path, query] = location.hash.slice(1).split("?");
  const parameters = new URLSearchParams(query);
  const match = /^\/sessions\/([^/]+)$/.exec(path);
  if (match) {
    open(new SessionPage(api, live, decodeURIComponent(match[1]), parameters.get("owner") ?? undefined));
  } else {
    open(new SessionsPage(api, live, parameters));
  }
}

function open(next) {
  page?.leave?.();
  dismissToasts();
  const first = page === null;
  page = next;
  content.replaceChildren(next.element);
  window.scrollTo(0, 0);
  update();
  // So that screen readers announce the page. At the start the browser does, and sign-in focuses its field.
  if (!next.focus?.() && !first) content.querySelector("h1")?.focus();
}

/** Many sessions change at once after a reconnection: the page is updated once for them. */
function updateSoon() {
  if (updating) return;
  updating = true;
  requestAnimationFrame(() => {
    updating = false;
    update();
  });
}

function update() {
  document.title = page.title ? `${page.title} · wasession` : "wasession";
  if (live === null) return;
  page.update?.();
  const connection = document.getElementById("connection");
  connection.className = `connection ${live.connection}`;
  setText(connection, CONNECTIONS[live.connection]);
  lostSince = live.connection === "lost" ? (lostSince ?? Date.now()) : null;
  const lost = lostSince !== null && Date.now() - lostSince >= LOST_FOR;
  banner.hidden = !lost;
  setText(banner, lost ? "No connection to the gateway. This page may be out of date; reconnecting…" : "");
  if (lostSince !== null && !lost) setTimeout(update, LOST_FOR);
}

document.getElementById("sign-out").addEventListener("click", () => signOut());
addEventListener("hashchange", show);
addEventListener("online", update);
setInterval(update, CLOCK);

const stored = sessionStorage.getItem(TOKEN);
if (stored) signIn(stored);
else signOut();
