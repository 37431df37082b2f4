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
  const emit = (type, reason, data) => {
    try {
      window.__wasessionEmit(JSON.stringify({ type, reason: text(reason), data }));
    } catch {
      // The binding is gone while the page goes away.
    }
  };

  // --- messages, chats and contacts as others see them (wasession_api.session_pod.messages) -------------------------------------

  /** What WhatsApp tells in a chat but nobody has written. */
  const NOT_WRITTEN = new Set([
    'ciphertext', 'protocol', 'notification', 'notification_template', 'e2e_notification', 'gp2', 'broadcast_notification',
    'call_log', 'debug',
  ]);
  const REMEMBERED = 10000;
  /** Says whether it is new; the oldest are forgotten. */
  const note = (set, value) => {
    if (set.has(value)) return false;
    set.add(value);
    if (set.size > REMEMBERED) set.delete(set.values().next().value);
    return true;
  };
  const mine = new Set(); // ids of the messages that this page has sent for the session
  const time = (seconds) => new Date(seconds * 1000).toISOString();
  const number = (value) => (Number.isFinite(Number(value ?? NaN)) ? Number(value) : null);

  const message = (msg) => {
    const file = msg.mimetype !== undefined && msg.mimetype !== null;
    // The body of a picture is its thumbnail. A file without a caption has its name there.
    const words = file ? (msg.isCaptionByUser === false ? null : msg.caption) : msg.type === 'chat' ? msg.body : null;
    return {
      id: text(msg.id),
      chatId: text(msg.id.remote),
      from: text(msg.author || msg.from),
      fromMe: !!msg.id.fromMe,
      senderName: msg.notifyName || null,
      type: String(msg.type),
      text: words || null,
      media: file
        ? { mimeType: msg.mimetype, size: number(msg.size), fileName: msg.filename || null, duration: number(msg.duration) }
        : null,
      replyTo: msg.quotedStanzaID ? attempt(() => text(msg.quotedMsgId || WPP.chat.getQuotedMsgKey(msg))) : null,
      sentAt: time(msg.t),
    };
  };

  const ack = (id, chat, reached, participant = null) => ({
    id,
    chatId: text(chat),
    ack: reached,
    participant,
    at: new Date().toISOString(),
  });

  /** A message that the page has, also one of its storage; null when it has none of this id. */
  const known = async (id) => {
    try {
      return await WPP.chat.getMessageById(id);
    } catch {
      return null;
    }
  };

  /** A receipt names a message of a group by who has got it; the message itself is named by who sent it. */
  const sentId = (key) => {
    const { MsgStore } = WPP.whatsapp;
    return text((MsgStore.get(key) || MsgStore.findFirst((msg) => msg.id.fromMe && msg.id.id === key.id) || { id: key }).id);
  };

  /** Sends under an id that was chosen before.
   *
   * A message of this id that WhatsApp has taken is only told of. One that it has not, or not confirmed, goes out again
   * under the same id, which WhatsApp delivers once. `ack` is null when the page has no such message: it was not sent. */
  const sendOnce = async (id, send) => {
    const before = await known(id);
    if (before && before.ack >= 1) return { ack: before.ack, sentAt: time(before.t), result: 'OK' };
    if (before) attempt(() => WPP.chat.get(before.id.remote).msgs.remove(before.id));
    note(mine, id);
    let result;
    try {
      const sent = await send({ messageId: id, linkPreview: false, detectMentioned: false, markIsRead: false, waitForAck: true });
      result = text((await sent.sendMsgResult)?.messageSendResult);
    } catch (error) {
      result = String((error && (error.code || error.message)) || error).slice(0, 200);
    }
    const msg = await known(id);
    return { ack: msg ? msg.ack : null, sentAt: msg ? time(msg.t) : null, result };
  };

  /** A part of a list that `order` sorts: the first `limit` after the position `after`. */
  const part = (items, order, limit, after) => {
    const following = items.filter((item) => !after || order(after, item) < 0).sort(order);
    return { items: following.slice(0, limit), more: following.length > limit };
  };
  const byId = (one, other) => (one.id < other.id ? -1 : Number(one.id > other.id));

  // A temporary ban is told at each login and kept nowhere: {banned: true, code, expire} with the seconds that are left of it,
  // {banned: false} by a login that works (WAWebHandleFailure, WAWebCmd).
  let bannedUntil = null;
  const ban = (told) => {
    bannedUntil = told && told.banned ? Date.now() / 1000 + Number(told.expire || 0) : null;
    emit('page.ban');
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
      bannedUntil,
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

    /** The chat that a recipient means, and an id for a message to it; `unknown` names what WhatsApp doesn't know. */
    async prepare(to, replyTo) {
      if (!WPP.chat.get(to)) {
        const found = to.endsWith('@g.us') ? null : await WPP.contact.queryWidExists(to);
        if (!found && socket().state !== 'CONNECTED') throw new Error('WhatsApp is not connected');
        if (!found) return { unknown: 'to' };
        to = text(found.wid); // some countries' numbers are known under another form
      }
      const chat = await WPP.chat.find(to);
      const chatId = text(chat.id);
      if (replyTo) {
        const quoted = await known(replyTo);
        if (!quoted || text(quoted.id.remote) !== chatId) return { unknown: 'replyTo' };
      }
      return { chatId, id: text(await WPP.chat.generateMessageID(chat)) };
    },

    sendText: (id, chatId, replyTo, body) =>
      sendOnce(id, (options) => WPP.chat.sendTextMessage(chatId, body, { ...options, quotedMsg: replyTo || undefined })),

    /** `file` is a File that Chromium reads from the disk; without a type wa-js finds it out from the content. */
    sendFile: (file, id, chatId, replyTo, { type, caption, fileName, mimeType }) =>
      sendOnce(id, (options) =>
        WPP.chat.sendFileMessage(chatId, file.slice(0, file.size, mimeType || ''), {
          ...options,
          type,
          quotedMsg: replyTo || undefined,
          caption: caption ?? undefined,
          filename: fileName ?? undefined,
          mimetype: mimeType ?? undefined,
        }),
      ),

    async message(id) {
      const msg = await known(id);
      return msg && { ...message(msg), ack: msg.ack };
    },

    /** How far messages are that were sent before. */
    async acks(ids) {
      const found = (await Promise.all(ids.map(known))).filter((msg) => msg && msg.ack >= 1);
      return { acks: found.map((msg) => ack(text(msg.id), msg.id.remote, msg.ack)) };
    },

    /** Chats, the latest first. */
    async chats(limit, after) {
      const chats = (await WPP.chat.list({ ignoreGroupMetadata: true })).map((chat) => ({
        id: text(chat.id),
        name: chat.name || attempt(() => chat.formattedTitle),
        group: chat.id.isGroup(),
        unreadCount: Math.max(0, number(chat.unreadCount) ?? 0),
        archived: !!chat.archive,
        lastMessageAt: chat.t ? time(chat.t) : null,
        t: chat.t || 0,
      }));
      return part(chats, (one, other) => other.t - one.t || byId(one, other), limit, after);
    },

    /** People that the account knows, by id. */
    async contacts(limit, after) {
      const contacts = (await WPP.contact.list()).filter((contact) => contact.id.isUser()).map((contact) => ({
        id: text(contact.id),
        name: contact.name || null,
        pushName: contact.pushname || null,
        business: !!contact.isBusiness,
        myContact: attempt(() => contact.isMyContact) === true,
      }));
      return part(contacts, byId, limit, after);
    },
  };

  /* Signs of life of the account's phone, which is the account's device 0.
   *
   * It confirms what this device sends (receipts of type "sender"), and says what was read on it ("read-self", "played-self");
   * WAWebHandleMsgReceiptParser names the device that a receipt comes from. mautrix-whatsapp counts the same receipts. What it
   * writes itself has a phone's message id: 32 characters from Android, 3A and 18 more from an iPhone, where browsers begin
   * with 3EB0 (Baileys' getDevice). */
  const RECEIPTS = {
    WAWebHandleDirectChatReceipt: 'handleChatSimpleReceipt',
    WAWebHandleGroupChatReceipt: 'handleGroupSimpleReceipt',
    WAWebHandleStatusReceipt: 'handleStatusSimpleReceipt',
    WAWebHandleAckPeerSimpleReceipt: 'handleAckPeerSimpleReceipt',
  };
  const isPhone = (wid) => attempt(() => require('WAWebUserPrefsMeUser').isMeAccount(wid)) === true && !/:[1-9]/.test(text(wid));
  const phoneSeen = (seconds) => emit('phone.seen', null, { at: Number(seconds) });
  const watchReceipts = () => {
    for (const [id, name] of Object.entries(RECEIPTS)) {
      const module = attempt(() => require(id));
      const handle = module && module[name];
      if (typeof handle !== 'function') continue;
      module[name] = function (receipt, ...rest) {
        attempt(() => isPhone(receipt.participant || receipt.from) && phoneSeen(receipt.ts));
        return handle.call(this, receipt, ...rest);
      };
    }
  };
  const fromPhone = (id) => !id.startsWith('3EB0') && (id.length === 32 || /^3A.{18}$/.test(id));

  WPP.on('loader.full_ready', watchReceipts);
  WPP.on('chat.new_message', (msg) => attempt(() => msg.id.fromMe && fromPhone(msg.id.id) && phoneSeen(msg.t)));
  WPP.on('loader.injected', () => {
    const cmd = attempt(() => require('WAWebCmd').Cmd);
    if (!cmd) return;
    // Newer WhatsApp builds tell these to Cmd only.
    cmd.on('account_temporarily_banned_from_bridge', ban);
    cmd.on('starting_logout_from_bridge', () => emit('conn.backend_event', 'starting_logout'));
    cmd.on('logout_from_bridge', () => emit('conn.backend_event', 'logout'));
  });
  WPP.on('conn.backend_event', (name, told) => name === 'account_temporarily_banned' && ban(told));

  const relay = (name, reason) => WPP.on(name, (...values) => emit(name, reason ? attempt(() => reason(...values)) : null));
  for (const name of [
    'loader.injected', 'loader.full_ready', 'conn.auth_code_change', 'conn.require_auth', 'conn.authenticated',
    'conn.main_ready', 'conn.stream_mode_changed', 'conn.stream_info_changed', 'conn.qrcode_idle', 'conn.needs_update',
    'conn.online',
  ]) relay(name);
  relay('conn.logout_reason', (reason) => reason);
  relay('conn.backend_event', (name) => name);

  // Messages and acks are told once each. wa-js listens for messages only when it is injected, and on a page with a login the
  // first ones may be there by then: they are told as well. Receipts of messages that the page has not loaded come by wa-js.
  const told = new Set();
  const tellMessage = (msg) => {
    if (msg.type === 'ciphertext') msg.once('change:type', () => tellMessage(msg));
    if (mine.has(text(msg.id)) || NOT_WRITTEN.has(msg.type) || attempt(() => msg.id.remote.isStatusV3())) return;
    if (note(told, text(msg.id))) emit('chat.message', null, message(msg));
  };
  const tellAck = (said) => {
    if (note(told, [said.id, said.ack, said.participant].join())) emit('chat.ack', null, said);
  };
  let following = false;
  const follow = () => {
    const { MsgStore } = WPP.whatsapp;
    if (following || !MsgStore) return;
    following = true;
    MsgStore.on('add', (msg) => msg.isNewMsg && tellMessage(msg));
    MsgStore.on('change:ack', (msg) => msg.id.fromMe && msg.ack > 0 && tellAck(ack(text(msg.id), msg.id.remote, msg.ack)));
    for (const msg of MsgStore.getModelsArray()) if (msg.isNewMsg) tellMessage(msg);
  };
  WPP.on('loader.injected', follow);
  WPP.on('loader.full_ready', follow);
  WPP.on('chat.msg_ack_change', (change) => {
    const participant = attempt(() => change.chat.isGroup()) ? text(change.sender) : null;
    for (const key of change.ids) tellAck(ack(sentId(key), change.chat, change.ack, participant));
  });
})();
