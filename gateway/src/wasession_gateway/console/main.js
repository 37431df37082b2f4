// Sign-in, and which page is shown. The address says the page: `#/` all sessions, `#/sessions/ID` one of them.

import { Api } from "/api.js";
import { h, say } from "/dom.js";
import { Live } from "/live.js";
import { SessionPage } from "/session.js";
import { SessionsPage } from "/sessions.js";
import { SignIn } from "/signin.js";

const TOKEN = "wasession.token"; // in sessionStorage: gone with the tab, never in an address
const LOST_FOR = 2000; // milliseconds without a connection before that is worth a word
const CLOCK = 15000; // milliseconds between looks at the times on the page
const CONNECTIONS = { connecting: "Connecting", live: "Live", lost: "Not connected" };

const content = document.getElementById("content");
const banner = document.getElementById("banner");
let api = null;
let live = null;
let page = null;
let lostSince = null;
let drawing = false;

function signIn(token) {
  sessionStorage.setItem(TOKEN, token);
  api = new Api(token, expired);
  live = new Live(token);
  live.addEventListener("change", soon);
  live.addEventListener("code", ({ detail }) => page.code?.(detail));
  live.addEventListener("ack", ({ detail }) => page.ack?.(detail));
  live.addEventListener("expired", ({ detail }) => expired(detail));
  say(document.getElementById("subject"), api.admin ? `${api.subject} (admin)` : api.subject);
  document.getElementById("who").hidden = false;
  show();
}

function signOut(words = "") {
  sessionStorage.removeItem(TOKEN);
  live?.close();
  api = live = null;
  document.getElementById("who").hidden = true;
  banner.hidden = true;
  open(new SignIn(signIn, words));
}

function expired(why) {
  if (api !== null) signOut(`You were signed out: ${why ?? "the token is not valid"}. Sign in with a new token.`);
}

/** Shows the page that the address names. */
function show() {
  if (api === null) return;
  const [path, query] = location.hash.slice(1).split("?");
  const named = /^\/sessions\/([^/]+)$/.exec(path);
  if (named) {
    const owner = new URLSearchParams(query).get("owner") ?? undefined;
    open(new SessionPage(api, live, decodeURIComponent(named[1]), owner));
  } else {
    open(new SessionsPage(api, live));
  }
}

function open(next) {
  page?.leave?.();
  const first = page === null;
  page = next;
  content.replaceChildren(next.element);
  window.scrollTo(0, 0);
  update();
  // So that screen readers say where one is. At the start the browser does that, and sign-in has its field.
  if (!next.focus?.() && !first) content.querySelector("h1")?.focus();
}

/** Many sessions change at once when they are all heard anew: the page is drawn once for them. */
function soon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    update();
  });
}

function update() {
  document.title = page.title ? `${page.title} · wasession` : "wasession";
  if (live === null) return;
  page.update?.();
  const connection = document.getElementById("connection");
  connection.className = `connection ${live.connection}`;
  say(connection, CONNECTIONS[live.connection]);
  lostSince = live.connection === "lost" ? (lostSince ?? Date.now()) : null;
  const lost = lostSince !== null && Date.now() - lostSince >= LOST_FOR;
  banner.hidden = !lost;
  say(banner, lost ? "No connection to the gateway. What you see may be old; it is tried again by itself." : "");
  if (lostSince !== null && !lost) setTimeout(update, LOST_FOR);
}

document.getElementById("sign-out").addEventListener("click", () => signOut());
addEventListener("hashchange", show);
addEventListener("online", update);
setInterval(update, CLOCK);

const kept = sessionStorage.getItem(TOKEN);
if (kept) signIn(kept);
else signOut();
