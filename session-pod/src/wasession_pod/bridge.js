/* The bridge inside WhatsApp's page. It runs in the top frame at document start, right after wa-js, in one init script.
 *
 * Only plain JSON leaves the page. `snapshot()` says what is true; events only say "look again".
 */
(() => {
  'use strict';
  if (window.__wasession) return;

  /** @returns the function's value, or null when it throws or has none. */
  const attempt = (read) => {
    try {
      const value = read();
      return value === undefined ? null : value;
    } catch {
      return null;
    }
  };
  /** WhatsApp's ids are objects; their text is what others know. */
  const text = (value) => (value === null || value === undefined ? null : String(value._serialized || value));
  const socket = () => require('WAWebSocketModel').Socket;
  const emit = (type, reason) => {
    try {
      window.__wasessionEmit(JSON.stringify({ type, reason: text(reason) }));
    } catch {
      // The binding is gone while the page goes away.
    }
  };

  window.__wasession = {
    snapshot: () => ({
      injected: attempt(() => WPP.isInjected) === true,
      registered: attempt(() => WPP.conn.isRegistered()),
      authenticated: attempt(() => WPP.conn.isAuthenticated()),
      socketState: attempt(() => socket().state),
      mode: attempt(() => WPP.conn.getStreamData().mode),
      info: attempt(() => WPP.conn.getStreamData().info),
      needsUpdate: attempt(() => !!WPP.conn.needsUpdate()) === true,
      me: attempt(() => text(WPP.conn.getMyUserWid())),
      pushName: attempt(() => require('WAWebConnModel').Conn.pushname),
      platform: attempt(() => require('WAWebConnModel').Conn.platform),
      // The screen that asks for a passkey before a device may be linked; the socket still says UNPAIRED.
      passkeyRequired: document.querySelector('[data-testid=shortcake_passkey_screen]') !== null,
      waVersion: attempt(() => self.Debug.VERSION),
    }),

    /** The QR's text and how long it lives, or null when there is none. */
    async qr() {
      const code = await WPP.conn.getAuthCode();
      return code ? { code: code.fullCode, ttlMs: attempt(() => require('WAWebConnModel').Conn.refTTL) || 20000 } : null;
    },

    /** A pairing code for a phone; it lives for 3 minutes and 15 seconds (wa-js `link-device-code`). */
    async pairingCode(phone) {
      return { code: String(await WPP.conn.genLinkDeviceCodeForPhoneNumber(phone, true)), ttlMs: 195000 };
    },

    /** New QRs after the page has used up its own. Newer WhatsApp builds no longer have Cmd.refreshQR. */
    refreshQR() {
      const cmd = attempt(() => require('WAWebCmd').Cmd);
      const launch = attempt(() => require('WAWebLaunchSocketUtils'));
      if (cmd && typeof cmd.refreshQR === 'function') cmd.refreshQR();
      else if (launch && typeof launch.refreshQR === 'function') launch.refreshQR();
      else require('WAWebBackendEventBus').BackendEventBus.trigger('refresh_qr');
    },

    /** Starts a logout; the page reloads when it is done, so there is nothing to await here. */
    logout() {
      socket().logout();
    },

    takeover() {
      socket().takeover();
    },

    async sendText(to, body, quoted) {
      const options = { createChat: true, linkPreview: false, detectMentioned: false, markIsRead: false, waitForAck: true };
      if (quoted) options.quotedMsg = quoted;
      const sent = await WPP.chat.sendTextMessage(to, body, options);
      const result = sent.sendMsgResult && (await sent.sendMsgResult);
      return { id: text(sent.id), ack: sent.ack, to: text(sent.to), result: result ? text(result.messageSendResult) : null };
    },

    async exists(id) {
      return (await WPP.contact.queryWidExists(id)) !== null;
    },
  };

  const relay = (name, reason) => WPP.on(name, (...values) => emit(name, reason ? attempt(() => reason(...values)) : null));
  for (const name of [
    'loader.injected', 'loader.full_ready', 'conn.auth_code_change', 'conn.require_auth', 'conn.authenticated',
    'conn.main_ready', 'conn.stream_mode_changed', 'conn.stream_info_changed', 'conn.qrcode_idle', 'conn.needs_update',
    'conn.online',
  ]) relay(name);
  relay('conn.logout_reason', (reason) => reason);
  relay('conn.backend_event', (name) => name);
})();
