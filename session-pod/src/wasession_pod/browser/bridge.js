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
  /** Serialize one of WhatsApp's ids, which are objects; null for anything that is no id. */
  const text = (value) => {
    if (value === null || value === undefined) return null;
    const id = attempt(() => String(value._serialized || value));
    return id && id.isWellFormed() && !id.startsWith('[object ') ? id : null;
  };
  const socket = () => require('WAWebSocketModel').Socket;
  // Events until the pod has connected the document, which it does at once.
  const unsent = [];
  let send = (event) => unsent.push(event);
  /** Send events to the pod through its binding; the secret tells whose they are (channel.py). */
  window.__wasessionConnect = (binding, secret) => {
    binding(secret);
    unsent.splice(0).forEach((event) => binding(event));
    send = binding;
  };
  /** Send an event to the pod; return whether that was possible. */
  const emit = (type, reason, data) => {
    try {
      send(JSON.stringify({ type, reason: text(reason), data }));
      return true;
    } catch {
      return false; // the page is being unloaded, and the binding with it
    }
  };
  /** Tell the pod's clients that a message or an ack is missing. */
  const emitGap = (kind) => emit('chat.gap', kind);
  /** Return a listener that never throws: what it throws would stop WhatsApp's or wa-js's work. */
  const guarded = (listener, onError) =>
    function (...values) {
      try {
        return listener.apply(this, values);
      } catch {
        return onError();
      }
    };
  const on = (name, listener) => WPP.on(name, guarded(listener, () => emit('bridge.error', name)));

  // --- messages, chats and contacts as in wasession_api.session_pod.messages --------------------
  //
  // WhatsApp's models change from release to release: each field may be missing, of another type, or
  // throw. Only what has no readable id is left out.

  /** Types of messages that WhatsApp itself puts into a chat. */
  const SYSTEM_TYPES = new Set([
    'ciphertext', 'protocol', 'notification', 'notification_template', 'e2e_notification', 'gp2',
    'broadcast_notification', 'call_log', 'debug',
  ]);
  const MAP_LIMIT = 10000;
  const NAME_LIMIT = 512; // characters, as for text and ids in wasession_api
  const TEXT_LIMIT = 65536;
  const CHAT_ID_LIMIT = 64;
  const MESSAGE_ID_LIMIT = 192;
  const LAST_SECOND = 253402300799; // of the year 9999
  /** Set a value and drop the oldest beyond the limit. */
  const remember = (map, key, value = true) => {
    map.set(key, value);
    if (map.size > MAP_LIMIT) map.delete(map.keys().next().value);
  };
  // The ids of the messages that this page has sent for the session, by their part that never
  // changes: WhatsApp names a chat by phone number or LID, and may rename a message once it is sent.
  const sentIds = new Map();

  const string = (value, limit = NAME_LIMIT) =>
    typeof value === 'string' && value ? value.slice(0, limit).toWellFormed() : null;
  const number = (value) => {
    const parsed = typeof value === 'string' && value.trim() ? Number(value) : value;
    return typeof parsed === 'number' && Number.isFinite(parsed) && parsed >= 0 ? parsed : null;
  };
  const integer = (value) => {
    const rounded = Math.floor(number(value) ?? NaN);
    return Number.isSafeInteger(rounded) ? rounded : null;
  };
  const time = (seconds) => {
    const known = number(seconds);
    return known === null || known > LAST_SECOND ? null : new Date(known * 1000).toISOString();
  };
  const shortText = (value, limit) => {
    const id = text(value);
    return id && id.length <= limit ? id : null;
  };
  const chatIdOf = (wid) => shortText(wid, CHAT_ID_LIMIT);
  /** Return a message's id: of one that this page has sent, the one that it was sent under. */
  const messageIdOf = (key) =>
    shortText(attempt(() => key.fromMe && sentIds.get(key.id)) || key, MESSAGE_ID_LIMIT);

  /** Return what WhatsApp knows as a person's other id, of the other server; null if it does not. */
  const otherId = (id) => {
    const cache = attempt(() => WPP.whatsapp.lidPnCache);
    const wid = attempt(() => WPP.util.createWid(id));
    if (!cache || !wid) return null;
    return chatIdOf(attempt(() => (wid.isLid() ? cache.getPhoneNumber(wid) : cache.getCurrentLid(wid))));
  };
  const idOn = (server, id) => (id?.endsWith(server) ? id : id?.endsWith('@g.us') ? null : otherId(id));
  const lidOf = (id) => {
    const lid = idOn('@lid', id);
    return lid?.endsWith('@lid') ? lid : null;
  };
  /** Return the phone number of a person with this id; null if it is no person or not known. */
  const phoneNumberOf = (id) => /^([1-9]\d{6,14})(:\d+)?@c\.us$/.exec(idOn('@c.us', id) || '')?.[1] ?? null;
  const isSameChat = (one, other) =>
    one === other || (phoneNumberOf(one) !== null && phoneNumberOf(one) === phoneNumberOf(other));

  /** Return a message; throw if its ids cannot be read. */
  const message = (msg) => {
    const key = msg.id;
    const id = messageIdOf(key);
    const chatId = chatIdOf(key.remote);
    if (!id || !chatId) throw new Error('the message has no readable id');
    const field = (name) => attempt(() => msg[name]);
    const file = field('mimetype') !== null;
    const type = string(field('type'), CHAT_ID_LIMIT) || 'unknown';
    // The body of a picture is its thumbnail. The caption of a file without one is its name.
    const caption = field('isCaptionByUser') === false ? null : field('caption');
    const senders = [field('author'), attempt(() => key.participant), field('from'), key.remote];
    const from = senders.map(chatIdOf).find((sender) => sender);
    return {
      id,
      chatId,
      from,
      phoneNumber: phoneNumberOf(from),
      fromMe: !!attempt(() => key.fromMe),
      senderName: string(field('notifyName')),
      type,
      text: string(file ? caption : type === 'chat' ? field('body') : null, TEXT_LIMIT),
      media: file
        ? {
            mimeType: string(field('mimetype')),
            size: integer(field('size')),
            fileName: string(field('filename')),
            duration: number(field('duration')),
          }
        : null,
      replyTo: field('quotedStanzaID')
        ? shortText(
            attempt(() => msg.quotedMsgId || WPP.chat.getQuotedMsgKey(msg)),
            MESSAGE_ID_LIMIT,
          )
        : null,
      // Without a time of WhatsApp's, that of its arrival.
      sentAt: time(field('t')) || new Date().toISOString(),
    };
  };

  /** Return an ack; throw if it cannot be read. */
  const ack = (id, chat, level, participant = null) => {
    const chatId = chatIdOf(chat);
    if (!id || !chatId || !Number.isInteger(level)) throw new Error('the ack cannot be read');
    return { id, chatId, ack: level, participant, at: new Date().toISOString() };
  };

  /** Return a chat; null if its id cannot be read. */
  const chatOf = (chat) => {
    const field = (name) => attempt(() => chat[name]);
    const id = chatIdOf(field('id'));
    const t = integer(field('t'));
    return id && {
      id,
      phoneNumber: phoneNumberOf(id),
      name: string(field('name')) || string(field('formattedTitle')),
      group: attempt(() => chat.id.isGroup()) === true,
      unreadCount: integer(field('unreadCount')) ?? 0,
      archived: !!field('archive'),
      lastMessageAt: t ? time(t) : null,
      t: t ?? 0,
    };
  };
  /** Return a contact; null if its id cannot be read. */
  const contactOf = (contact) => {
    const field = (name) => attempt(() => contact[name]);
    const id = chatIdOf(field('id'));
    return id && {
      id,
      phoneNumber: phoneNumberOf(id),
      lid: lidOf(id),
      name: string(field('name')),
      pushName: string(field('pushname')),
      business: !!field('isBusiness'),
      myContact: field('isMyContact') === true,
    };
  };
  /** Merge the items of one person, who may be listed by phone number and by LID. */
  const mergePeople = (items, merge) => {
    const people = new Map();
    for (const item of items.filter(Boolean)) {
      const key = item.phoneNumber ?? item.id;
      people.set(key, people.has(key) ? merge(people.get(key), item) : item);
    }
    return [...people.values()];
  };
  /** Keep the id of the chat that WhatsApp has used last. */
  const mergeChats = (one, other) => ({
    ...(other.t > one.t ? other : one),
    name: one.name || other.name,
    unreadCount: one.unreadCount + other.unreadCount,
    archived: one.archived && other.archived,
  });
  /** Keep the id with the phone number. */
  const mergeContacts = (one, other) => ({
    ...(other.id.endsWith('@c.us') ? other : one),
    lid: one.lid || other.lid,
    name: one.name || other.name,
    pushName: one.pushName || other.pushName,
    business: one.business || other.business,
    myContact: one.myContact || other.myContact,
  });

  /** Return the page's message, also from its storage; null if it has none with this id.
   *
   * It may have become known by the other id of its chat. */
  const findMessage = async (id) => {
    const [, fromMe, chat, rest] = /^(true|false)_([^_]+)_(.+)$/.exec(id) || [];
    const other = chat && otherId(chat);
    for (const name of other ? [id, `${fromMe}_${other}_${rest}`] : [id]) {
      try {
        return await WPP.chat.getMessageById(name);
      } catch {
        // It has another name, or there is none.
      }
    }
    if (fromMe !== 'true') return null;
    const isSame = (msg) => attempt(() => msg.id.fromMe && msg.id.id === rest.split('_')[0]);
    return attempt(() => WPP.whatsapp.MsgStore.findFirst(isSame));
  };

  /** Return the id of a message of ours: in a group, a receipt names the recipient in its key. */
  const sentId = (key) => {
    const { MsgStore } = WPP.whatsapp;
    const isSame = (msg) => attempt(() => msg.id.fromMe && msg.id.id === key.id);
    const msg = sentIds.has(key.id) ? null : MsgStore.get(key) || MsgStore.findFirst(isSame);
    return messageIdOf(msg ? msg.id : { fromMe: true, id: key.id, _serialized: text(key) });
  };

  /** Send under an id that was chosen before, and return the outcome.
   *
   * A message that WhatsApp has accepted is not sent again. One that it has not accepted or not
   * confirmed is sent again under the same id, which WhatsApp delivers once. `ack` is null if the
   * page has no such message: it was not sent. */
  const sendOnce = async (messageId, replyTo, send) => {
    const earlier = await findMessage(messageId);
    if (earlier && earlier.ack >= 1) {
      return { ack: earlier.ack, sentAt: time(earlier.t), result: 'OK' };
    }
    if (earlier) attempt(() => WPP.chat.get(earlier.id.remote).msgs.remove(earlier.id));
    remember(sentIds, messageId.split('_')[2], messageId);
    let result;
    try {
      const quoted = replyTo && (await findMessage(replyTo));
      const sent = await send({
        messageId,
        quotedMsg: quoted ? text(quoted.id) : undefined,
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

  /** Return a group that WhatsApp knows, also without a chat on the page; null if there is none. */
  const findGroup = async (id) => {
    const wid = WPP.util.createWid(id);
    const group = await WPP.whatsapp.GroupMetadataStore.find(wid).catch(() => null);
    return group ? { wid } : null;
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

  /** Return the account's own id, from the first of the page's ways to it that works. */
  const me = () => {
    const prefs = attempt(() => require('WAWebUserPrefsMeUser')) || {};
    const ways = [
      () => WPP.conn.getMyUserWid(),
      () => prefs.getMaybeMePnUser(),
      () => prefs.getMaybeMeDevicePn(),
      () => require('WAWebConnModel').Conn.wid,
      () => prefs.getMaybeMeLidUser(),
    ];
    const found = ways.map((way) => text(attempt(way))).find((id) => id);
    return found ? found.replace(/:\d+@/, '@') : null;
  };

  // What the page must have for messages and acks to be heard and sent.
  let following = false;
  let watchingReceipts = false;
  let sendable = false;
  const unheard = () => {
    if (attempt(() => WPP.isFullReady) !== true) return ['WPP.isFullReady'];
    sendable ||= attempt(() => typeof WPP.whatsapp.functions.addAndSendMsgToChat) === 'function';
    return [
      following ? null : 'MsgStore',
      watchingReceipts ? null : 'handleChatSimpleReceipt',
      sendable ? null : 'addAndSendMsgToChat',
    ].filter(Boolean);
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
      me: me(),
      syncProgress: number(attempt(() => WPP.conn.getHistorySyncProgress().progress)),
      unheard: unheard(),
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
        const known = to.endsWith('@g.us') ? await findGroup(to) : await WPP.contact.queryWidExists(to);
        if (!known) {
          if (socket().state !== 'CONNECTED') throw new Error('WhatsApp is not connected');
          return { unknown: 'to' };
        }
        recipient = text(known.wid); // WhatsApp writes the numbers of some countries differently
      }
      const chat = await WPP.chat.find(recipient);
      const chatId = text(chat.id);
      if (replyTo) {
        const quoted = await findMessage(replyTo);
        if (!quoted || !isSameChat(text(quoted.id.remote), chatId)) return { unknown: 'replyTo' };
      }
      return { chatId, messageId: text(await WPP.chat.generateMessageID(chat)) };
    },

    sendText: (messageId, chatId, replyTo, body) =>
      sendOnce(messageId, replyTo, (options) => WPP.chat.sendTextMessage(chatId, body, options)),

    /** Chromium reads `file` from disk; without a MIME type wa-js detects it from the content. */
    sendFile: (file, messageId, chatId, replyTo, kind, caption, fileName, mimeType) =>
      sendOnce(messageId, replyTo, (options) =>
        WPP.chat.sendFileMessage(chatId, file.slice(0, file.size, mimeType || ''), {
          ...options,
          type: kind,
          caption: caption ?? undefined,
          filename: fileName ?? undefined,
          mimetype: mimeType ?? undefined,
        }),
      ),

    async message(messageId) {
      const msg = await findMessage(messageId);
      return msg && { ...message(msg), id: messageId, ack: integer(msg.ack) ?? 0 };
    },

    /** Return the acks of messages sent before, as far as WhatsApp has accepted them. */
    async acks(messageIds) {
      const acks = messageIds.map(async (messageId) => {
        const msg = await findMessage(messageId);
        remember(sentIds, messageId.split('_')[2], messageId);
        return msg && msg.ack >= 1 ? attempt(() => ack(messageId, msg.id.remote, msg.ack)) : null;
      });
      return (await Promise.all(acks)).filter(Boolean);
    },

    /** Return a page of the chats, latest first. */
    async chats(limit, after) {
      const found = await WPP.chat.list({ ignoreGroupMetadata: true });
      const latestFirst = (one, other) => other.t - one.t || byId(one, other);
      const chats = mergePeople(found.map(chatOf), mergeChats);
      return pageOf(chats, latestFirst, ({ t, id }) => ({ t, id }), limit, after);
    },

    /** Return a page of the account's contacts, by id. */
    async contacts(limit, after) {
      const found = await WPP.contact.list();
      const people = found.filter((contact) => attempt(() => contact.id.isUser()));
      const contacts = mergePeople(people.map(contactOf), mergeContacts);
      return pageOf(contacts, byId, ({ id }) => ({ id }), limit, after);
    },

    /** Return the person with this phone number or LID, with both; null if there is none. */
    async contact(contactId) {
      const { lid, phoneNumber } = await WPP.contact.getPnLidEntry(contactId); // may ask WhatsApp
      const ids = [phoneNumber, lid].map(text).filter(Boolean);
      const models = ids.map((id) => attempt(() => WPP.whatsapp.ContactStore.get(id)));
      const known = models.filter(Boolean).map(contactOf).filter(Boolean);
      if (!known.length && !(await WPP.contact.queryWidExists(contactId))) {
        if (socket().state !== 'CONNECTED') throw new Error('WhatsApp is not connected');
        return null;
      }
      return [contactOf({ id: ids[0] }), ...known].reduce(mergeContacts);
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
      watchingReceipts = true;
    }
  };
  const fromPhone = (id) => !id.startsWith('3EB0') && (id.length === 32 || /^3A.{18}$/.test(id));

  on('loader.full_ready', watchReceipts);
  on('chat.new_message', (msg) =>
    attempt(() => msg.id.fromMe && fromPhone(msg.id.id) && phoneSeen(msg.t)),
  );
  on('loader.injected', () => {
    // Browsers in the background have no focus, but the pod's page has: WhatsApp would show the
    // account as online all the time, and its phone would not notify.
    if (window.__wasessionAvailable) return;
    WPP.conn.markAvailable(false).catch(() => emit('bridge.error', 'presence'));
  });
  on('loader.injected', () => {
    socket().on('change:state', () => emit('conn.socket_state'));
  });
  on('loader.injected', () => {
    const { Cmd } = require('WAWebCmd');
    const onCmd = (name, listener) => Cmd.on(name, guarded(listener, () => emit('bridge.error', name)));
    // Newer WhatsApp builds send these to Cmd only.
    onCmd('account_temporarily_banned_from_bridge', onBan);
    onCmd('starting_logout_from_bridge', () => emit('conn.backend_event', 'starting_logout'));
    onCmd('logout_from_bridge', () => emit('conn.backend_event', 'logout'));
  });
  on('conn.backend_event', (name, ban) => name === 'account_temporarily_banned' && onBan(ban));

  const relay = (name, reason) =>
    on(name, (...values) => emit(name, reason ? attempt(() => reason(...values)) : null));
  for (const name of [
    'loader.injected', 'loader.full_ready', 'conn.auth_code_change', 'conn.require_auth',
    'conn.authenticated', 'conn.main_ready', 'conn.stream_mode_changed', 'conn.stream_info_changed',
    'conn.qrcode_idle', 'conn.needs_update', 'conn.online',
  ]) relay(name);
  relay('conn.logout_reason', (reason) => reason);
  relay('conn.backend_event', (name) => name);

  // Each message and each ack is emitted once, or as a gap if it cannot be. wa-js listens for
  // messages only once it is injected, and a page with a login may have the first ones by then: they
  // are emitted as well. Receipts for messages that the page has not loaded come through wa-js.
  const emitted = new Map();
  const emitOnce = (kind, key, data) => {
    if (emitted.has(key)) return;
    if (emit(kind, null, data())) remember(emitted, key);
  };
  const emitMessage = guarded(
    (msg) => {
      const type = attempt(() => msg.type);
      if (type === 'ciphertext') msg.once('change:type', () => emitMessage(msg));
      if (SYSTEM_TYPES.has(type) || attempt(() => msg.id.remote.isStatusV3())) return;
      if (attempt(() => msg.id.fromMe) && sentIds.has(msg.id.id)) return;
      emitOnce('chat.message', text(msg.id), () => message(msg));
    },
    () => emitGap('message'),
  );
  const emitAck = guarded(
    (id, chat, level, participant) => {
      const key = [id, level, participant].join();
      emitOnce('chat.ack', key, () => ack(id, chat, level, participant));
    },
    () => emitGap('ack'),
  );
  const follow = () => {
    const { MsgStore } = WPP.whatsapp;
    if (following || !MsgStore) return;
    const onAdd = (msg) => msg.isNewMsg && emitMessage(msg);
    const onAck = (msg) => {
      if (msg.id.fromMe && msg.ack > 0) emitAck(messageIdOf(msg.id), msg.id.remote, msg.ack);
    };
    MsgStore.on('add', guarded(onAdd, () => emitGap('message')));
    MsgStore.on('change:ack', guarded(onAck, () => emitGap('ack')));
    following = true;
    MsgStore.getModelsArray().forEach(guarded(onAdd, () => emitGap('message')));
  };
  on('loader.injected', follow);
  on('loader.full_ready', follow);
  WPP.on(
    'chat.msg_ack_change',
    guarded(
      (change) => {
        const participant = attempt(() => change.chat.isGroup()) ? chatIdOf(change.sender) : null;
        const onKey = (key) => emitAck(sentId(key), change.chat, change.ack, participant);
        change.ids.forEach(guarded(onKey, () => emitGap('ack')));
      },
      () => emitGap('ack'),
    ),
  );
})();
