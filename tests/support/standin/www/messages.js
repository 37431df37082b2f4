/* Late bundle: finding chats, sending, receiving, receipts, and the messages that the page keeps in IndexedDB.
 *
 * Sources: the calls that wa-js 4.6.0's sendTextMessage and getMessageById make, and the receipt handlers that it wraps for
 * chat.msg_ack_change. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const { missing } = self.__standin;
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  /** The stand-in's own: messages on the page and in its database. */
  def('StandinMessages', (require, exports) => {
    const database = require('StandinDatabase');
    const { createWid } = require('WAWebWidFactory');
    const MsgKey = require('WAWebMsgKey');
    const { Msg } = require('WAWebMsgModel');
    const { MsgCollection } = require('StandinMsgCollection');
    const { ChatCollection } = require('WAWebChatCollection');
    const TEXT = ['body', 'type', 'ack', 't', 'self', 'notifyName', 'quotedStanzaID'];
    const KEPT = [...TEXT, 'mimetype', 'size', 'filename', 'caption', 'isCaptionByUser', 'duration'];

    exports.store = (msg) => {
      const record = { key: String(msg.id), from: String(msg.from), to: String(msg.to) };
      for (const name of ['author', 'quotedParticipant']) if (msg[name]) record[name] = String(msg[name]);
      for (const name of KEPT) record[name] = msg[name];
      return database.put('model-storage', record.key, record);
    };
    exports.load = async (key) => {
      const record = await database.get('model-storage', String(key));
      if (!record) return undefined;
      const { key: id, ...rest } = record;
      for (const name of ['from', 'to', 'author', 'quotedParticipant']) if (rest[name]) rest[name] = createWid(rest[name]);
      return new Msg({ ...rest, id: MsgKey.fromString(id) });
    };

    /** A message from the server; `received.from_me` when another device of this account sent it. */
    exports.receive = async (received) => {
      if (received.lid) require('WAWebLidPnCache').standinLearn(...received.lid);
      const remote = createWid(received.chat);
      const Me = require('WAWebUserPrefsMeUser');
      const me = remote.isLid() ? Me.standinLid() : Me.standinMe();
      const chat = ChatCollection.get(remote) || ChatCollection.add({ id: remote })[0];
      const author = received.author ? createWid(received.author) : undefined;
      const { media } = received;
      if (!received.from_me) contact(author || remote, received.notify);
      const msg = new Msg({
        id: new MsgKey({ fromMe: received.from_me, remote, id: received.id, participant: author }),
        body: received.text,
        type: media ? media.kind : 'chat',
        ack: 1,
        t: received.at,
        from: received.from_me ? me : remote,
        to: received.from_me ? remote : me,
        author,
        self: received.from_me ? 'out' : 'in',
        isNewMsg: true,
        notifyName: received.notify,
        quotedStanzaID: received.quoted?.id,
        quotedParticipant: received.quoted ? createWid(received.quoted.participant) : undefined,
      });
      if (media) {
        const { mime_type: mimetype, size, file_name: filename, caption, duration } = media;
        Object.assign(msg, { mimetype, size, filename: filename || undefined, duration: duration || undefined });
        msg.caption = caption || filename || undefined;
        msg.isCaptionByUser = !!caption;
      }
      if (received.odd) {
        require('StandinOdd').change(msg, received.odd);
        for (const collection of [chat.msgs, MsgCollection]) collection.remove(msg.id); // one like it
      }
      chat.t = received.at;
      if (!received.from_me) chat.unreadCount += 1;
      chat.msgs.add(msg);
      await MsgCollection.processMultipleMessages(remote, [msg]);
      if (!received.odd) await exports.store(msg);
    };

    /** Everybody that the account hears of is a contact. */
    const contact = (id, pushname) => {
      const { ContactCollection } = require('WAWebContactCollection');
      (ContactCollection.get(id) || ContactCollection.add({ id })[0]).pushname = pushname;
    };

    /** Names a message by another id of its recipient, in whose chat it is from then on. */
    const rename = async (chat, msg, to) => {
      const { id } = msg;
      chat.msgs.remove(id);
      MsgCollection.remove(id);
      await database.remove('model-storage', String(id));
      msg.id = new MsgKey({ fromMe: true, remote: to, id: id.id, participant: id.participant, selfDir: 'out' });
      msg.to = to;
      (ChatCollection.get(to) || ChatCollection.add({ id: to, t: msg.t })[0]).msgs.add(msg);
      MsgCollection.add(msg);
    };

    /** Shows a message in its chat and sends it; `upload` brings its file to the server first and gives its id there. */
    exports.send = async (chat, msg, upload) => {
      chat.msgs.add(msg);
      MsgCollection.add(msg);
      chat.t = msg.t;
      await exports.store(msg);
      const { call } = require('StandinBackend');
      const { ACK } = require('WAWebAck');
      const order = { op: 'send', id: msg.id.id, to: String(chat.id), quoted: msg.quotedStanzaID || null };
      let result;
      try {
        if (upload) {
          const { mimetype: mime_type, filename: file_name, isCaptionByUser } = msg;
          const caption = isCaptionByUser ? msg.caption : null;
          order.media = { upload: await upload(), kind: msg.type, mime_type, file_name, caption };
        } else order.body = msg.body;
        const answer = await call(order);
        msg.t = answer.at;
        if (answer.key !== order.to) await rename(chat, msg, createWid(answer.key));
        msg.ack = Math.max(msg.ack, ACK.SENT);
        result = { messageSendResult: 'OK', t: msg.t };
      } catch (error) {
        msg.ack = ACK.FAILED;
        const otherwise = error.refused ? 'ERROR_UNKNOWN' : 'ERROR_NETWORK';
        result = { messageSendResult: error.upload ? 'ERROR_UPLOAD' : otherwise };
      }
      await exports.store(msg);
      return result;
    };

    /** A receipt of type `sender` says that another device of this account has got the message: no ack of the recipient's. */
    exports.receiveReceipt = async ({ id, type, ack, from, recipient, at }) => {
      for (const msg of MsgCollection.getModelsArray()) {
        if (msg.id?.id !== id || msg.ack >= ack || type === 'sender') continue;
        msg.ack = ack;
        await exports.store(msg);
      }
      const me = require('WAWebUserPrefsMeUser').standinLid();
      for (const key of [`true_${from}_${id}`, `true_${from}_${id}_${me}`]) {
        const record = await database.get('model-storage', key); // of a message that is not on the page
        if (record && record.ack < ack) await database.put('model-storage', key, { ...record, ack });
      }
      const { ACK, ACK_STRING } = require('WAWebAck');
      if (missing.includes('receipts')) return;
      await require('WAWebHandleDirectChatReceipt').handleChatSimpleReceipt({
        ack,
        ackString: type || (ack === ACK.READ ? ACK_STRING.READ : ACK_STRING.DELIVERY),
        from: createWid(from),
        recipient: recipient ? createWid(recipient) : null,
        participant: null,
        externalIds: [id],
        ts: at,
      });
    };
  });

  def('WAWebFindChatAction', (require, exports) => {
    const { ChatCollection } = require('WAWebChatCollection');
    exports.findOrCreateLatestChat = async (wid) => {
      if (!require('WAWebUserPrefsMultiDevice').isRegistered()) throw new Error('not logged in');
      const known = ChatCollection.get(wid);
      if (known) return { chat: known, created: false };
      const { exists } = await require('StandinBackend').call({ op: 'query-exists', wid: String(wid) });
      if (!exists) throw new Error('findOrCreateLatestChat: no such user ' + wid);
      const [chat] = ChatCollection.add({ id: wid, t: require('WATimeUtils').unixTime() });
      return { chat, created: true };
    };
    exports.findChat = async (wid) => (await exports.findOrCreateLatestChat(wid)).chat;
    exports.findExistingChat = (wid) => ChatCollection.get(wid);
  });

  def('WAWebQueryExistsJob', (require, exports) => {
    exports.queryPhoneExists = () => null;
    exports.queryWidExists = async (wid) => {
      const { exists, lid } = await require('StandinBackend').call({ op: 'query-exists', wid: String(wid) });
      require('WAWebLidPnCache').standinLearn(lid, String(wid));
      return exists ? { wid, biz: false } : null;
    };
  });

  def('WAWebGetEphemeralFieldsMsgActionsUtils', (require, exports) => {
    exports.getEphemeralFields = () => ({});
  });

  // name assumed
  def('WAWebMsgReplyUtils', (require, exports) => {
    exports.canReplyMsg = () => true;
  });

  // name assumed; wa-js asks it for each new message that answers another
  def('WAWebQuotedMsgModelUtils', (require, exports) => {
    exports.getQuotedMsgObj = (msg) => {
      const { MsgCollection } = require('StandinMsgCollection');
      return MsgCollection.findFirst((other) => other.id?.id === msg.quotedStanzaID);
    };
  });

  // name assumed; wa-js looks here for messages that are no longer on the page
  def('WAWebMsgSearchContext', (require, exports) => {
    exports.getSearchContext = (chat, key) => {
      let found;
      const loadAroundPromise = require('StandinMessages')
        .load(key)
        .then((msg) => (found = msg));
      return { collection: { loadAroundPromise, get: () => found } };
    };
  });

  def('WAWebUpdateUnreadChatAction', (require, exports) => {
    exports.markUnread = async () => {};
    exports.sendSeen = async ({ chat }) => {
      chat.unreadCount = 0;
      require('StandinBackend').send({ t: 'seen', chat: String(chat.id) });
    };
  });

  if (!missing.includes('send')) def('WAWebSendMsgChatAction', (require, exports) => {
    const { Msg } = require('WAWebMsgModel');
    /** Both promises at once, as whatsapp-web.js takes them apart without waiting. */
    exports.addAndSendMsgToChat = (chat, raw) => {
      const msg = new Msg(raw);
      return [Promise.resolve(msg), require('StandinMessages').send(chat, msg)];
    };
    exports.sendMsgRecord = () => {};
  });

  // name assumed
  def('WAWebSendMsgResultAction', (require, exports) => {
    const names = ['OK', 'ERROR_NETWORK', 'ERROR_EXPIRED', 'ERROR_CANCELLED', 'ERROR_UPLOAD', 'ERROR_UNKNOWN'];
    exports.SendMsgResult = Object.fromEntries(names.map((name) => [name, name]));
  });

  const receipts = (id, name) => missing.includes('receipts') || def(id, (require, exports) => (exports[name] = async () => {}));
  receipts('WAWebHandleDirectChatReceipt', 'handleChatSimpleReceipt');
  receipts('WAWebHandleGroupChatReceipt', 'handleGroupSimpleReceipt');
  receipts('WAWebHandleStatusReceipt', 'handleStatusSimpleReceipt');

  // name assumed
  def('WAWebHistorySyncProgress', (require, exports) => {
    exports.getHistorySyncProgressModel = () => ({
      realProgress: require('StandinBackend').syncProgress(),
      remainingPausedSeconds: 0,
    });
  });
})();
