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
  // Why wa-js does not run here at all, which another script in its place may not.
  const hasWaJs = attempt(() => typeof WPP.on) === 'function';
  const waJsError = window.__wasessionWaJsError ?? (hasWaJs ? null : 'defines no WPP');
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
  /** Tell the pod's clients that a message, an ack or the like is missing. */
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
  /** Whether clients are not told of a message: WhatsApp's own, a status, or sent by this page. */
  const isLeftOut = (msg) =>
    SYSTEM_TYPES.has(attempt(() => msg.type)) ||
    !!attempt(() => msg.id.remote.isStatusV3()) ||
    !!attempt(() => msg.id.fromMe && sentIds.has(msg.id.id));
  const MAP_LIMIT = 10000;
  const NAME_LIMIT = 512; // characters, as for text and ids in wasession_api
  const TEXT_LIMIT = 65536;
  const CHAT_ID_LIMIT = 64;
  const VCARD_LIMIT = 16384;
  const THUMBNAIL_LIMIT = 32768;
  const LIST_LIMIT = 256; // contacts and mentions of a message
  const OPTION_LIMIT = 20; // of a poll
  const MEMBER_LIMIT = 1024; // whom a change of a group names
  const MESSAGE_ID_LIMIT = 192;
  const LAST_SECOND = 253402300799; // of the year 9999
  const DATABASE_PAGE = 50; // messages that are read from the page's database at a time
  const SCAN_LIMIT = 5000; // messages that are kept between two pages of `recent`
  const FILE_LIMIT = 4; // that are open at the same time
  const CHUNK_LIMIT = 2 ** 20; // bytes of a file that are read at a time
  const FILE_LIFETIME = 60000; // ms without a read
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
  const coordinate = (value, limit) => {
    const degrees = typeof value === 'string' && value.trim() ? Number(value) : value;
    return typeof degrees === 'number' && Math.abs(degrees) <= limit ? degrees : null;
  };
  /** Return what `read` returns for each item of a list, without nulls and what it throws at. */
  const list = (value, limit, read) => {
    const items = attempt(() => [...value].slice(0, limit)) || [];
    return items.map((item) => attempt(() => read(item))).filter((item) => item !== null);
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

  const reader = (model) => (name) => attempt(() => model[name]);
  const senderOf = (field, key) => {
    const senders = [field('author'), attempt(() => key.participant), field('from'), key.remote];
    return senders.map(chatIdOf).find((sender) => sender) ?? null;
  };
  const isFile = (field) => field('mimetype') !== null;
  /** Return a message's text, or the caption of its file.
   *
   * The body of a picture is its thumbnail. The caption of a file without one is its name. */
  const textOf = (field, limit) => {
    if (isFile(field)) return field('isCaptionByUser') === false ? null : string(field('caption'), limit);
    return field('type') === 'chat' ? string(field('body'), limit) : null;
  };
  const mediaOf = (field) => ({
    mimeType: string(field('mimetype')),
    size: integer(field('size')),
    fileName: string(field('filename')),
    duration: number(field('duration')),
    thumbnail: [field('thumbnail'), field('body')].find(isThumbnail) ?? null,
  });
  const isThumbnail = (value) => // a JPEG in base64
    typeof value === 'string' && value.length <= THUMBNAIL_LIMIT && /^\/9j\/[A-Za-z0-9+/]+=*$/.test(value);
  const locationOf = (field) => {
    const [latitude, longitude] = [coordinate(field('lat'), 90), coordinate(field('lng'), 180)];
    if (latitude === null || longitude === null) return null;
    const [name, ...address] = (string(field('loc'), TEXT_LIMIT) ?? '').split('\n');
    return {
      latitude,
      longitude,
      name: string(name),
      address: string(address.join('\n')),
      live: field('isLive') === true,
    };
  };
  const contactCard = (name, vcard) => {
    const card = string(vcard, VCARD_LIMIT);
    return card && { name: string(name), vcard: card };
  };
  const pollOf = (field) => ({
    question: string(field('pollName')) ?? '',
    options: list(field('pollOptions'), OPTION_LIMIT, (option) => string(option.name)),
    multiple: field('pollSelectableOptionsCount') !== 1, // 0 is any number of them
  });
  const quotedOf = (field) => {
    const quoted = reader(field('quotedMsg'));
    const from = chatIdOf(field('quotedParticipant'));
    const type = string(quoted('type'), CHAT_ID_LIMIT);
    return from || type ? { from, type, text: textOf(quoted, NAME_LIMIT) } : null;
  };
  /** Return what a message of this type has besides text and a file. */
  const contentOf = (type, field) => {
    switch (type) {
      case 'location':
        return { location: locationOf(field) };
      case 'vcard':
        return { contacts: [contactCard(field('vcardFormattedName'), field('body'))].filter(Boolean) };
      case 'multi_vcard':
        return {
          contacts: list(field('vcardList'), LIST_LIMIT, ({ displayName, vcard }) =>
            contactCard(displayName, vcard),
          ),
        };
      case 'poll_creation':
        return { poll: pollOf(field) };
      default:
        return {};
    }
  };

  /** Return a message; throw if its ids cannot be read. */
  const message = (msg) => {
    const key = msg.id;
    const id = messageIdOf(key);
    const chatId = chatIdOf(key.remote);
    if (!id || !chatId) throw new Error('the message has no readable id');
    const field = reader(msg);
    const type = string(field('type'), CHAT_ID_LIMIT) || 'unknown';
    const from = senderOf(field, key);
    const mentions = list(field('mentionedJidList'), LIST_LIMIT, chatIdOf);
    const isReply = !!field('quotedStanzaID');
    return {
      id,
      chatId,
      from,
      phoneNumber: phoneNumberOf(from),
      fromMe: !!attempt(() => key.fromMe),
      senderName: string(field('notifyName')),
      type,
      text: textOf(field, TEXT_LIMIT),
      media: isFile(field) ? mediaOf(field) : null,
      ...contentOf(type, field),
      mentions: mentions.length ? mentions : null,
      forwarded: field('isForwarded') === true,
      viewOnce: field('isViewOnce') === true,
      replyTo: isReply
        ? shortText(
            attempt(() => msg.quotedMsgId || WPP.chat.getQuotedMsgKey(msg)),
            MESSAGE_ID_LIMIT,
          )
        : null,
      quoted: isReply ? quotedOf(field) : null,
      // Without a time of WhatsApp's, that of its arrival.
      sentAt: time(field('t')) || new Date().toISOString(),
    };
  };
  const statusOf = (msg) => {
    const level = attempt(() => msg.ack);
    return { ...message(msg), ack: Number.isInteger(level) && level >= -7 && level <= 5 ? level : 0 };
  };

  // --- what happens to messages -----------------------------------------------------------------

  const isMe = (wid) => attempt(() => require('WAWebUserPrefsMeUser').isMeAccount(wid)) === true;
  const widOf = (value) => (typeof value === 'string' ? WPP.util.createWid(value) : value);
  const keyOf = (value) =>
    typeof value === 'string' ? WPP.whatsapp.MsgKey.fromString(value) : value;
  const seconds = (milliseconds) => {
    const known = number(milliseconds);
    return known === null ? null : known / 1000;
  };
  /** Return what somebody did to an earlier message; throw if its ids cannot be read. */
  const change = (key, sender, at) => {
    const id = messageIdOf(key);
    const chatId = chatIdOf(key.remote);
    if (!id || !chatId) throw new Error('the message has no readable id');
    const from = chatIdOf(sender);
    return {
      id,
      chatId,
      from,
      phoneNumber: phoneNumberOf(from),
      fromMe: isMe(sender),
      at: time(at) || new Date().toISOString(),
    };
  };
  /** Return the latest edit of a message; only its sender may edit it. */
  const edit = (msg) => {
    const field = reader(msg);
    const sender = widOf(senderOf(field, msg.id));
    const edited = change(msg.id, sender, seconds(field('latestEditSenderTimestampMs')));
    return { ...edited, fromMe: !!attempt(() => msg.id.fromMe), text: textOf(field, TEXT_LIMIT) };
  };
  /** Return the deletion of a message, from what WhatsApp Web shows in its place. */
  const deletion = (msg) => {
    const field = reader(msg);
    const key = keyOf(field('protocolMessageKey')) || msg.id;
    const sender = widOf(field('revokeSender')) || widOf(senderOf(field, key));
    return change(key, sender, number(field('revokeTimestamp')));
  };
  const reaction = ({ parentMsgKey, sender, text: emoji, timestamp }) => ({
    ...change(keyOf(parentMsgKey), widOf(sender), seconds(timestamp)),
    emoji: string(emoji, CHAT_ID_LIMIT),
  });
  const vote = (poll, { sender, senderTimestampMs, chosen }) => ({
    ...change(poll.id, widOf(sender), seconds(senderTimestampMs)),
    options: list(poll.pollOptions, OPTION_LIMIT, (option) =>
      chosen.has(option.localId) ? string(option.name) : null,
    ),
  });
  const call = ({ id, sender, peerJid, isVideo, isGroup, offerTime }) => {
    const from = chatIdOf(sender || peerJid);
    const callId = shortText(id, MESSAGE_ID_LIMIT);
    if (!callId || !from) throw new Error('the call has no readable id');
    return {
      id: callId,
      from,
      phoneNumber: phoneNumberOf(from),
      video: isVideo === true,
      group: isGroup === true,
      at: time(offerTime) || new Date().toISOString(),
    };
  };
  /** Return a change of a group's members; null for other changes of a group. */
  const groupChange = ({ chatId, author, ts }, { actionType, isInvite, reason, participants }) => {
    if (!['add', 'remove', 'promote', 'demote'].includes(actionType)) return null;
    const by = chatIdOf(author);
    const members = list(participants, MEMBER_LIMIT, (one) => chatIdOf(one.id ?? one));
    if (!chatIdOf(chatId) || !members.length) throw new Error('the change cannot be read');
    const own = { add: isInvite === true || reason === 'invite', remove: members.includes(by) };
    return {
      chatId: chatIdOf(chatId),
      action: own[actionType] ? { add: 'join', remove: 'leave' }[actionType] : actionType,
      by,
      participants: members,
      at: time(ts) || new Date().toISOString(),
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

  /** Return a chat's messages from the page's database that precede one, newest first. */
  const messagesBefore = async (chat, id) => {
    const options = { count: DATABASE_PAGE, direction: 'before', id };
    return (await WPP.chat.getMessages(chat.id, options)).reverse();
  };
  /** Yield a chat's messages, newest first: all, or those that precede the message `anchor`.
   *
   * The database is read from a message that it has; the latest ones may not be there yet. */
  async function* messagesOf(chat, anchor) {
    const seen = new Set();
    const isNew = (msg) => {
      const id = text(attempt(() => msg.id));
      return id && !seen.has(id) && seen.add(id);
    };
    let before = anchor && (await messagesBefore(chat, anchor));
    if (!anchor) {
      const loaded = attempt(() => chat.msgs.getModelsArray()) || [];
      const last = text(attempt(() => chat.lastReceivedKey));
      const latest = last ? await WPP.chat.getMessageById(last).catch(() => null) : null;
      for (const msg of [latest, ...[...loaded].reverse()].filter(Boolean)) {
        if (!isNew(msg)) continue;
        yield msg;
        before = await messagesBefore(chat, text(msg.id));
        if (before.length) break;
      }
    }
    while (before?.length) {
      const unseen = before.filter(isNew);
      yield* unseen;
      const oldest = unseen.at(-1);
      before = oldest && (await messagesBefore(chat, text(oldest.id)));
    }
  }
  const timeOf = (msg) => integer(attempt(() => msg.t)) ?? Math.floor(Date.now() / 1000);
  const positionOf = (msg) => ({ t: timeOf(msg), id: text(msg.id).slice(0, MESSAGE_ID_LIMIT) });

  /** Return the messages of all chats since a time, oldest first, and whether these are all.
   *
   * A chat's messages of the same second stay in their order. */
  const scanSince = async (since) => {
    let found = [];
    let whole = true;
    const cut = () => {
      found.sort((one, other) => one.t - other.t);
      whole &&= found.length <= SCAN_LIMIT;
      found = found.slice(0, SCAN_LIMIT);
    };
    for (const chat of WPP.whatsapp.ChatStore.getModelsArray()) {
      if (!(integer(attempt(() => chat.t)) >= since)) continue;
      const ofChat = [];
      let older = 0; // in a row: some have come late
      for await (const msg of messagesOf(chat)) {
        older = timeOf(msg) < since ? older + 1 : 0;
        if (older === 0 && !isLeftOut(msg)) ofChat.push({ ...positionOf(msg), msg });
        if (older === DATABASE_PAGE) break;
      }
      found = found.concat(ofChat.reverse());
      if (found.length > 2 * SCAN_LIMIT) cut();
    }
    cut();
    return { found, whole };
  };
  // The messages that the next pages of `recent` are taken from.
  let scan = null;

  /** Return a message, and what has happened to it since a time, as events.
   *
   * What cannot be read is a gap, once for each page. */
  const eventsOf = async (msg, since) => {
    const events = [];
    const add = (kind, read) => {
      const data = attempt(read);
      const gap = ['unreadable', kind, text(msg.id)].join();
      if (data) events.push({ type: `chat.${kind}`, data });
      else if (!emitted.has(gap)) events.push({ type: 'chat.gap', reason: kind });
      if (!data) remember(emitted, gap);
    };
    const field = reader(msg);
    if (field('type') === 'revoked') {
      add('deletion', () => deletion(msg));
      return events;
    }
    add('message', () => message(msg));
    if (number(field('latestEditSenderTimestampMs'))) add('edit', () => edit(msg));
    const parentMsgKey = field('id');
    const isRecent = ({ timestamp }) => seconds(timestamp) >= since;
    if (field('hasReaction') === true) {
      const { reactions } = await WPP.chat.getReactions(text(parentMsgKey));
      for (const one of reactions.flatMap(({ senders }) => senders).filter(isRecent)) {
        add('reaction', () => reaction({ ...one, parentMsgKey, text: one.reactionText }));
      }
    }
    if (field('type') === 'poll_creation') {
      const { votes } = await WPP.chat.getVotes(text(parentMsgKey));
      for (const one of votes.filter(isRecent)) {
        const chosen = new Set(one.selectedOptions.filter(Boolean).map(({ localId }) => localId));
        add('vote', () => vote(msg, { ...one, senderTimestampMs: one.timestamp, chosen }));
      }
    }
    return events;
  };

  /** Yield a person's or group's messages, newest first, from those that precede `position`.
   *
   * A person may have a chat by phone number and one by LID: they are one. */
  async function* historyOf(chatId, position) {
    const ids = [chatId, otherId(chatId)].filter(Boolean).sort();
    const chats = ids.map((id) => attempt(() => WPP.chat.get(id))).filter(Boolean);
    const anchor = position && (await findMessage(position.id));
    const own = anchor ? chats.findIndex((chat) => text(chat.id) === text(anchor.id.remote)) : -1;
    // Of the same second, the first chat's messages come first.
    const follows = (msg, index) =>
      timeOf(msg) < position.t || (timeOf(msg) === position.t && own >= 0 && index > own);
    const sources = chats.map(async function* (chat, index) {
      for await (const msg of messagesOf(chat, index === own ? text(anchor.id) : null)) {
        if (index === own || !position || follows(msg, index)) yield msg;
      }
    });
    const heads = await Promise.all(sources.map((source) => source.next()));
    for (;;) {
      const open = heads.filter(({ done }) => !done);
      if (!open.length) return;
      const [newest] = open.sort((one, other) => timeOf(other.value) - timeOf(one.value));
      const index = heads.indexOf(newest);
      yield newest.value;
      heads[index] = await sources[index].next();
    }
  }

  // --- files ------------------------------------------------------------------------------------

  const files = new Map(); // {blob, timer} by handle
  const closeFile = (handle) => {
    clearTimeout(files.get(handle)?.timer);
    files.delete(handle);
  };
  const keepFile = (handle, blob) => {
    clearTimeout(files.get(handle)?.timer);
    files.set(handle, { blob, timer: setTimeout(closeFile, FILE_LIFETIME, handle) });
  };
  const base64 = (blob) =>
    new Promise((resolve, reject) => {
      const file = new FileReader();
      file.onload = () => resolve(file.result.slice(file.result.indexOf(',') + 1));
      file.onerror = () => reject(file.error);
      file.readAsDataURL(blob);
    });
  /** Why a file could not be downloaded; null if that may work later. */
  const downloadProblem = (msg, error) => {
    if (attempt(() => error.code) === 'message_not_contains_media') return 'None';
    const missing = attempt(() => msg.mediaData.mediaStage) === 'ERROR_MISSING';
    return missing || [404, 410].includes(attempt(() => error.status)) ? 'Gone' : null;
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
    hearChanges(false);
    sendable ||= attempt(() => typeof WPP.whatsapp.functions.addAndSendMsgToChat) === 'function';
    return [
      following ? null : 'MsgStore',
      watchingReceipts ? null : 'handleChatSimpleReceipt',
      sendable ? null : 'addAndSendMsgToChat',
      ...unheardChanges,
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
      waJsError,
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
      return msg && { ...statusOf(msg), id: messageId };
    },

    /** Return a page of what all chats have since a time, as events, oldest first.
     *
     * `limit` and positions are of messages; what has happened to a message follows it. */
    async recent(since, limit, after) {
      let start = 0;
      if (after && scan?.since === since) {
        start = scan.found.findIndex(({ id }) => id === after.id) + 1;
      }
      // Otherwise the messages of the last second come again.
      if (!start) scan = { since, ...(await scanSince(after ? after.t : since)) };
      const { found, whole } = scan;
      const page = found.slice(start, start + limit);
      const events = [];
      for (const { msg } of page) events.push(...(await eventsOf(msg, since)));
      const isLast = start + page.length === found.length;
      if (isLast) scan = null;
      const next = isLast && whole ? null : page.at(-1);
      return { items: events, next: next ? { t: next.t, id: next.id } : null };
    },

    /** Return a page of a chat's messages, newest first: those that precede `before`. */
    async history(chatId, limit, before) {
      const found = [];
      for await (const msg of historyOf(chatId, before)) {
        if (SYSTEM_TYPES.has(attempt(() => msg.type)) || !attempt(() => statusOf(msg))) continue;
        found.push(msg);
        if (found.length > limit) break;
      }
      const page = found.slice(0, limit);
      return {
        items: page.map(statusOf),
        next: found.length > limit ? positionOf(page.at(-1)) : null,
      };
    },

    /** Download a message's file, of `largest` bytes at most, for `readMedia`; null if it has none. */
    async openMedia(messageId, largest) {
      const msg = await findMessage(messageId);
      if (!msg || !isFile(reader(msg))) return null;
      if (integer(attempt(() => msg.size)) > largest) return { problem: 'TooLarge' };
      if (files.size >= FILE_LIMIT) return { problem: 'Busy' };
      const handle = crypto.randomUUID();
      files.set(handle, {});
      try {
        const blob = await WPP.chat.downloadMedia(text(msg.id));
        if (blob.size > largest) {
          closeFile(handle);
          return { problem: 'TooLarge' };
        }
        keepFile(handle, blob);
        return { handle, size: blob.size, mimeType: string(msg.mimetype) };
      } catch (error) {
        closeFile(handle);
        const problem = downloadProblem(msg, error);
        if (!problem) throw new Error('WhatsApp Web could not download the file');
        return problem === 'None' ? null : { problem };
      }
    },

    /** Return a part of an open file in base64; it stays open for another minute. */
    readMedia(handle, offset, length) {
      const { blob } = files.get(handle) || {};
      if (!blob) throw new Error('the file is not open');
      keepFile(handle, blob);
      return base64(blob.slice(offset, offset + Math.min(length, CHUNK_LIMIT)));
    },

    closeMedia(handle) {
      closeFile(handle);
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
      if (attempt(() => msg.type) === 'ciphertext') msg.once('change:type', () => emitMessage(msg));
      if (isLeftOut(msg)) return;
      if (attempt(() => msg.type) === 'revoked') emitDeletion(() => deletion(msg));
      else emitOnce('chat.message', text(msg.id), () => message(msg));
    },
    () => emitGap('message'),
  );
  /** Return a function that emits each change once, by its sender and time, or a gap. */
  const changeEmitter = (kind, keyOfChange = ({ id, from, at }) => [id, from, at]) => {
    const type = `chat.${kind}`;
    const onError = () => emitGap(kind);
    return guarded((read) => {
      const data = read();
      if (data) emitOnce(type, [type, ...keyOfChange(data)].join(), () => data);
    }, onError);
  };
  const emitEdit = changeEmitter('edit', ({ id, at }) => [id, at]);
  const emitDeletion = changeEmitter('deletion', ({ id }) => [id]);
  const emitReaction = changeEmitter('reaction');
  const emitVote = changeEmitter('vote');
  const emitCall = changeEmitter('call', ({ id }) => [id]);
  const emitGroupChange = changeEmitter('group', ({ chatId, action, at, participants }) => [
    chatId,
    action,
    at,
    ...participants,
  ]);
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
    // A model's fields change one after the other.
    const onType = (msg) =>
      queueMicrotask(() => attempt(() => msg.type) === 'revoked' && emitDeletion(() => deletion(msg)));
    const onEdit = (msg) => queueMicrotask(() => emitEdit(() => edit(msg)));
    MsgStore.on('add', guarded(onAdd, () => emitGap('message')));
    MsgStore.on('change:ack', guarded(onAck, () => emitGap('ack')));
    MsgStore.on('change:type', guarded(onType, () => emitGap('deletion')));
    MsgStore.on('change:latestEditMsgKey', guarded(onEdit, () => emitGap('edit')));
    following = true;
    MsgStore.getModelsArray().forEach(guarded(onAdd, () => emitGap('message')));
  };
  on('loader.injected', follow);
  on('loader.full_ready', follow);
  WPP.on('call.incoming_call', (incoming) => emitCall(() => call(incoming)));

  /* What has happened to messages that the page has not loaded, and to groups.
   *
   * WhatsApp Web checks a change, for example whether who edits a message has sent it, and writes it
   * to its database, with these functions, which are heard once they are done. wa-js hears some of
   * them as well, but leaves out what came while no page was open, by its time. */
  const isOfSender = ({ revokeMsgKey, newMsgKey, subtype }) =>
    isSameChat(chatIdOf(revokeMsgKey.remote), chatIdOf(newMsgKey.remote)) &&
    (subtype === 'admin_revoke'
      ? revokeMsgKey.remote.isGroup()
      : revokeMsgKey.fromMe === newMsgKey.fromMe &&
        isSameChat(chatIdOf(revokeMsgKey.participant), chatIdOf(newMsgKey.participant)));
  const onRevokes = (_, revokes) => {
    for (const revoke of revokes) {
      emitDeletion(() => {
        const { revokeMsgKey: key, sender, revokeTimestamp, timestamp } = revoke;
        if (!isOfSender(revoke)) return null; // nor does WhatsApp Web delete the message
        const by = sender || key.participant || (key.fromMe ? me() : key.remote);
        return change(key, widOf(by), number(revokeTimestamp ?? timestamp));
      });
    }
  };
  const onEdits = (edits) => {
    for (const { parentMsg, editedMsgData } of edits) {
      emitEdit(() => edit({ ...parentMsg, ...editedMsgData, id: parentMsg.id }));
    }
  };
  const onReaction = (_, row) =>
    emitReaction(() =>
      isOfHistory(row.timestamp)
        ? null
        : reaction({ ...row, sender: row.senderUserJid, text: row.reactionText }),
    );
  const onVotes = (accepted, votes) => {
    for (const one of accepted ?? votes) {
      if (isOfHistory(one.senderTimestampMs)) continue;
      findMessage(text(one.parentMsgKey))
        .catch(() => null)
        .then((poll) =>
          emitVote(() => vote(poll, { ...one, chosen: new Set(one.selectedOptionLocalIds) })),
        );
    }
  };
  const onGroupAction = (_, meta, action) => emitGroupChange(() => groupChange(meta, action));
  /** Whether it is from before the device was linked: then the phone has sent it along. */
  const isOfHistory = (milliseconds) => {
    const linked = number(attempt(() => require('WAWebUserPrefsMultiDevice').getPairingTimestamp()));
    return linked !== null && seconds(milliseconds) < linked;
  };
  const DONE = {
    processEditProtocolMsgs: ['WAWebDBProcessEditProtocolMsgs', 'edit', onEdits],
    processRevokeMsgs: ['WAWebDBProcessRevokeMsgs', 'deletion', onRevokes],
    addOrUpdateReactionsModelCollection: ['WAWebReactionsMsgAction', 'reaction', onReaction],
    upsertVotesDb: ['WAWebDBPollsUpsertVotes', 'vote', onVotes],
    updateDBForGroupAction: ['WAWebUpdateDbForGroupActionApi', 'group', onGroupAction],
  };
  const unheardChanges = new Set(Object.keys(DONE));
  const has = (module, name) => typeof module?.[name] === 'function';
  // wa-js, which reads what is told, looks for its modules once the page has them all.
  let injected = false;
  const untold = [];
  const tellOnceInjected = (tell) => (injected ? tell() : untold.push(tell));
  on('loader.injected', () => {
    injected = true;
    untold.splice(0).forEach((tell) => tell());
  });
  /** Tell what a module's function has done, from what it has returned and its arguments. */
  const hear = (module, name) => {
    if (!unheardChanges.has(name) || !has(module, name)) return;
    const [, kind, onDone] = DONE[name];
    const work = module[name];
    module[name] = function (...values) {
      const result = work.apply(this, values);
      const tell = guarded((done) => onDone(done, ...values), () => emitGap(kind));
      const onResult = (done) => tellOnceInjected(() => tell(done));
      if (typeof result?.then === 'function') result.then(onResult, () => {});
      else onResult(result);
      return result;
    };
    unheardChanges.delete(name);
  };
  /** Hear the functions whose modules are there; with `search`, under any name. */
  const hearChanges = (search) => {
    for (const name of [...unheardChanges]) {
      const byId = attempt(() => require(DONE[name][0]));
      const isWanted = (module) => has(module, name);
      hear(isWanted(byId) ? byId : search && attempt(() => WPP.loader.search(isWanted)), name);
    }
  };
  // What waited for the device may come before wa-js is there. A module runs when it is first
  // required, which is not for the bridge to do too early: its function is heard from then on.
  const EXPORTS = 6; // the argument of a module's factory
  const hearFromStart = (name, definition) => {
    const { factory } = definition;
    if (typeof factory !== 'function') return hear(require(DONE[name][0]), name);
    definition.factory = function (...values) {
      const result = factory.apply(this, values);
      attempt(() => hear(values[EXPORTS], name));
      return result;
    };
  };
  const awaited = new Set(unheardChanges);
  const timer = setInterval(() => {
    for (const name of awaited) {
      const definition = attempt(() => require('__debug').modulesMap[DONE[name][0]]);
      if (!definition) continue;
      awaited.delete(name);
      attempt(() => hearFromStart(name, definition));
    }
    if (!awaited.size || attempt(() => WPP.isFullReady) === true) clearInterval(timer);
  }, 10);
  timer.unref?.(); // in Node.js
  on('loader.injected', () => hearChanges(false));
  on('loader.full_ready', () => hearChanges(true));
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
