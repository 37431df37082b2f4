/* The bridge inside the page of WhatsApp Web; `bridge.py` has one method for each of its functions.
 *
 * It runs in the top frame at document start, after wa-js and in the same init script. Only plain
 * JSON leaves the page. `observe()` returns the facts; most events merely call for another one.
 */
(() => {
  'use strict';
  if (window.__wasession) return;

  /** Return the function's value, or null if it throws or returns undefined. */
  const attempt = (read) => {
    try {
      const value = read();
      return value === undefined ? null : value;
    } catch {
      return null;
    }
  };
  /** Serialize one of WhatsApp's ids, which are objects. */
  const text = (value) =>
    value === null || value === undefined ? null : String(value._serialized || value);
  const socket = () => require('WAWebSocketModel').Socket;
  const emit = (type, reason, data) => {
    try {
      window.__wasessionEmit(JSON.stringify({ type, reason: text(reason), data }));
    } catch {
      // The page is being unloaded, and the binding with it.
    }
  };

  // --- messages, chats and contacts as in wasession_api.session_pod.messages --------------------

  /** Types of messages that WhatsApp itself puts into a chat. */
  const SYSTEM_TYPES = new Set([
    'ciphertext', 'protocol', 'notification', 'notification_template', 'e2e_notification', 'gp2',
    'broadcast_notification', 'call_log', 'debug',
  ]);
  const SET_LIMIT = 10000;
  /** Add a value, drop the oldest beyond the limit, and return whether the value is new. */
  const addNew = (set, value) => {
    if (set.has(value)) return false;
    set.add(value);
    if (set.size > SET_LIMIT) set.delete(set.values().next().value);
    return true;
  };
  const sentIds = new Set(); // of the messages that this page has sent for the session
  const time = (seconds) => new Date(seconds * 1000).toISOString();
  const number = (value) => (Number.isFinite(Number(value ?? NaN)) ? Number(value) : null);

  const message = (msg) => {
    const file = msg.mimetype !== undefined && msg.mimetype !== null;
    // The body of a picture is its thumbnail. The caption of a file without one is its name.
    const caption = msg.isCaptionByUser === false ? null : msg.caption;
    const body = msg.type === 'chat' ? msg.body : null;
    return {
      id: text(msg.id),
      chatId: text(msg.id.remote),
      from: text(msg.author || msg.from),
      fromMe: !!msg.id.fromMe,
      senderName: msg.notifyName || null,
      type: String(msg.type),
      text: (file ? caption : body) || null,
      media: file
        ? {
            mimeType: msg.mimetype,
            size: number(msg.size),
            fileName: msg.filename || null,
            duration: number(msg.duration),
          }
        : null,
      replyTo: msg.quotedStanzaID
        ? attempt(() => text(msg.quotedMsgId || WPP.chat.getQuotedMsgKey(msg)))
        : null,
      sentAt: time(msg.t),
    };
  };

  const ack = (id, chat, level, participant = null) => ({
    id,
    chatId: text(chat),
    ack: level,
    participant,
    at: new Date().toISOString(),
  });

  /** Return the page's message, also from its storage; null if it has none with this id. */
  const findMessage = async (id) => {
    try {
      return await WPP.chat.getMessageById(id);
    } catch {
      return null;
    }
  };

  /** Return the id of a message of ours: in a group, a receipt names the recipient in its key. */
  const sentId = (key) => {
    const { MsgStore } = WPP.whatsapp;
    const isSame = (msg) => msg.id.fromMe && msg.id.id === key.id;
    return text((MsgStore.get(key) || MsgStore.findFirst(isSame) || { id: key }).id);
  };

  /** Send under an id that was chosen before, and return the outcome.
   *
   * A message that WhatsApp has accepted is not sent again. One that it has not accepted or not
   * confirmed is sent again under the same id, which WhatsApp delivers once. `ack` is null if the
   * page has no such message: it was not sent. */
  const sendOnce = async (messageId, send) => {
    const earlier = await findMessage(messageId);
    if (earlier && earlier.ack >= 1) {
      return { ack: earlier.ack, sentAt: time(earlier.t), result: 'OK' };
    }
    if (earlier) attempt(() => WPP.chat.get(earlier.id.remote).msgs.remove(earlier.id));
    addNew(sentIds, messageId);
    let result;
    try {
      const sent = await send({
        messageId,
        linkPreview: false,
        detectMentioned: false,
        markIsRead: false,
        waitForAck: true,
      });
      result = text((await sent.sendMsgResult)?.messageSendResult);
    } catch (error) {
      result = String((error && (error.code || error.message)) || error).slice(0, 200);
    }
    const msg = await findMessage(messageId);
    return { ack: msg ? msg.ack : null, sentAt: msg ? time(msg.t) : null, result };
  };

  /** Return a page of a list sorted by `order`: the first `limit` items that follow `after`.
   *
   * `next` is the position of its last item if more follow, else null. */
  const pageOf = (items, order, position, limit, after) => {
    const following = items.filter((item) => !after || order(after, item) < 0).sort(order);
    const page = following.slice(0, limit);
    return { items: page, next: following.length > limit ? position(page.at(-1)) : null };
  };
  const byId = (one, other) => (one.id < other.id ? -1 : Number(one.id > other.id));

  // A temporary ban is announced at each login and stored nowhere: {banned: true, code, expire}
  // with its remaining seconds, {banned: false} by a login that works (WAWebHandleFailure,
  // WAWebCmd).
  let bannedUntil = null;
  const onBan = (ban) => {
    bannedUntil = ban && ban.banned ? Date.now() / 1000 + Number(ban.expire || 0) : null;
    emit('page.ban');
  };

  window.__wasession = {
    observe: () => ({
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
      bannedUntil,
      // The screen that asks for a passkey before linking a device; the socket remains UNPAIRED.
      passkeyRequired: document.querySelector('[data-testid=shortcake_passkey_screen]') !== null,
      waVersion: attempt(() => self.Debug.VERSION),
    }),

    /** Return the content of the QR and its lifetime, or null if there is none. */
    async qr() {
      const code = await WPP.conn.getAuthCode();
      if (!code) return null;
      const ttlMs = attempt(() => require('WAWebConnModel').Conn.refTTL) || 20000;
      return { code: code.fullCode, ttlMs };
    },

    /** Return a pairing code for a phone; it lasts 3 min 15 s (wa-js `link-device-code`). */
    async pairingCode(phoneNumber) {
      const code = await WPP.conn.genLinkDeviceCodeForPhoneNumber(phoneNumber, true);
      return { code: String(code), ttlMs: 195000 };
    },

    /** Start new QRs after the page's own have expired. Newer builds lack Cmd.refreshQR. */
    refreshQr() {
      const cmd = attempt(() => require('WAWebCmd').Cmd);
      const launch = attempt(() => require('WAWebLaunchSocketUtils'));
      if (cmd && typeof cmd.refreshQR === 'function') cmd.refreshQR();
      else if (launch && typeof launch.refreshQR === 'function') launch.refreshQR();
      else require('WAWebBackendEventBus').BackendEventBus.trigger('refresh_qr');
    },

    /** Start a logout; the page reloads at its end, so there is nothing to await here. */
    logout() {
      socket().logout();
    },

    /** Take the session back from where WhatsApp Web was opened last. */
    takeOver() {
      socket().takeover();
    },

    /** Return the recipient's chat and a new message id; `unknown` names what does not exist. */
    async prepare(to, replyTo) {
      let recipient = to;
      if (!WPP.chat.get(to)) {
        const contact = to.endsWith('@g.us') ? null : await WPP.contact.queryWidExists(to);
        if (!contact) {
          if (socket().state !== 'CONNECTED') throw new Error('WhatsApp is not connected');
          return { unknown: 'to' };
        }
        recipient = text(contact.wid); // WhatsApp writes the numbers of some countries differently
      }
      const chat = await WPP.chat.find(recipient);
      const chatId = text(chat.id);
      if (replyTo) {
        const quoted = await findMessage(replyTo);
        if (!quoted || text(quoted.id.remote) !== chatId) return { unknown: 'replyTo' };
      }
      return { chatId, messageId: text(await WPP.chat.generateMessageID(chat)) };
    },

    sendText: (messageId, chatId, replyTo, body) =>
      sendOnce(messageId, (options) =>
        WPP.chat.sendTextMessage(chatId, body, { ...options, quotedMsg: replyTo || undefined }),
      ),

    /** Chromium reads `file` from disk; without a MIME type wa-js detects it from the content. */
    sendFile: (file, messageId, chatId, replyTo, kind, caption, fileName, mimeType) =>
      sendOnce(messageId, (options) =>
        WPP.chat.sendFileMessage(chatId, file.slice(0, file.size, mimeType || ''), {
          ...options,
          type: kind,
          quotedMsg: replyTo || undefined,
          caption: caption ?? undefined,
          filename: fileName ?? undefined,
          mimetype: mimeType ?? undefined,
        }),
      ),

    async message(messageId) {
      const msg = await findMessage(messageId);
      return msg && { ...message(msg), ack: msg.ack };
    },

    /** Return the acks of messages sent before, as far as WhatsApp has accepted them. */
    async acks(messageIds) {
      const messages = await Promise.all(messageIds.map(findMessage));
      const accepted = messages.filter((msg) => msg && msg.ack >= 1);
      return accepted.map((msg) => ack(text(msg.id), msg.id.remote, msg.ack));
    },

    /** Return a page of the chats, latest first. */
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
      const latestFirst = (one, other) => other.t - one.t || byId(one, other);
      return pageOf(chats, latestFirst, ({ t, id }) => ({ t, id }), limit, after);
    },

    /** Return a page of the account's contacts, by id. */
    async contacts(limit, after) {
      const people = (await WPP.contact.list()).filter((contact) => contact.id.isUser());
      const contacts = people.map((contact) => ({
        id: text(contact.id),
        name: contact.name || null,
        pushName: contact.pushname || null,
        business: !!contact.isBusiness,
        myContact: attempt(() => contact.isMyContact) === true,
      }));
      return pageOf(contacts, byId, ({ id }) => ({ id }), limit, after);
    },
  };

  /* Activity of the account's phone, which is the account's device 0.
   *
   * The phone confirms what this device sends (receipts of type "sender") and reports what was read
   * on it ("read-self", "played-self"); WAWebHandleMsgReceiptParser names the device that a receipt
   * comes from. mautrix-whatsapp counts the same receipts. Messages written on the phone have a
   * phone's message id: 32 characters from Android, 3A and 18 more from an iPhone, whereas browsers
   * begin with 3EB0 (Baileys' getDevice). */
  const RECEIPTS = {
    WAWebHandleDirectChatReceipt: 'handleChatSimpleReceipt',
    WAWebHandleGroupChatReceipt: 'handleGroupSimpleReceipt',
    WAWebHandleStatusReceipt: 'handleStatusSimpleReceipt',
    WAWebHandleAckPeerSimpleReceipt: 'handleAckPeerSimpleReceipt',
  };
  const isPhone = (wid) =>
    attempt(() => require('WAWebUserPrefsMeUser').isMeAccount(wid)) === true &&
    !/:[1-9]/.test(text(wid));
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
  WPP.on('chat.new_message', (msg) =>
    attempt(() => msg.id.fromMe && fromPhone(msg.id.id) && phoneSeen(msg.t)),
  );
  WPP.on('loader.injected', () => {
    const cmd = attempt(() => require('WAWebCmd').Cmd);
    if (!cmd) return;
    // Newer WhatsApp builds send these to Cmd only.
    cmd.on('account_temporarily_banned_from_bridge', onBan);
    cmd.on('starting_logout_from_bridge', () => emit('conn.backend_event', 'starting_logout'));
    cmd.on('logout_from_bridge', () => emit('conn.backend_event', 'logout'));
  });
  WPP.on('conn.backend_event', (name, ban) => name === 'account_temporarily_banned' && onBan(ban));

  const relay = (name, reason) =>
    WPP.on(name, (...values) => emit(name, reason ? attempt(() => reason(...values)) : null));
  for (const name of [
    'loader.injected', 'loader.full_ready', 'conn.auth_code_change', 'conn.require_auth',
    'conn.authenticated', 'conn.main_ready', 'conn.stream_mode_changed', 'conn.stream_info_changed',
    'conn.qrcode_idle', 'conn.needs_update', 'conn.online',
  ]) relay(name);
  relay('conn.logout_reason', (reason) => reason);
  relay('conn.backend_event', (name) => name);

  // Each message and each ack is emitted once. wa-js listens for messages only once it is injected,
  // and a page with a login may have the first ones by then: they are emitted as well. Receipts for
  // messages that the page has not loaded come through wa-js.
  const emitted = new Set();
  const emitMessage = (msg) => {
    if (msg.type === 'ciphertext') msg.once('change:type', () => emitMessage(msg));
    if (sentIds.has(text(msg.id)) || SYSTEM_TYPES.has(msg.type)) return;
    if (attempt(() => msg.id.remote.isStatusV3())) return;
    if (addNew(emitted, text(msg.id))) emit('chat.message', null, message(msg));
  };
  const emitAck = (data) => {
    const key = [data.id, data.ack, data.participant].join();
    if (addNew(emitted, key)) emit('chat.ack', null, data);
  };
  let following = false;
  const follow = () => {
    const { MsgStore } = WPP.whatsapp;
    if (following || !MsgStore) return;
    following = true;
    MsgStore.on('add', (msg) => msg.isNewMsg && emitMessage(msg));
    MsgStore.on('change:ack', (msg) => {
      if (msg.id.fromMe && msg.ack > 0) emitAck(ack(text(msg.id), msg.id.remote, msg.ack));
    });
    for (const msg of MsgStore.getModelsArray()) if (msg.isNewMsg) emitMessage(msg);
  };
  WPP.on('loader.injected', follow);
  WPP.on('loader.full_ready', follow);
  WPP.on('chat.msg_ack_change', (change) => {
    const participant = attempt(() => change.chat.isGroup()) ? text(change.sender) : null;
    for (const key of change.ids) emitAck(ack(sentId(key), change.chat, change.ack, participant));
  });
})();
