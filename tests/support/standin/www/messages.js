/* Late bundle: finding chats, sending, receiving, and receipts.
 *
 * Sources: the calls that wa-js 4.6.0's sendTextMessage and getMessageById make, and the receipt handlers that it wraps for
 * chat.msg_ack_change. A received message is stored and then shown, unless it is stored already, and only then confirmed, as
 * in public copies of WAWebHandleMsg (README.md). */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const { missing } = self.__standin;
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  /** The stand-in's own: messages on the page and in its database. */
  def('StandinMessages', (require, exports) => {
    const table = require('StandinMessageTable');
    const { createWid } = require('WAWebWidFactory');
    const MsgKey = require('WAWebMsgKey');
    const { Msg } = require('WAWebMsgModel');
    const { MsgCollection } = require('StandinMsgCollection');
    const { ChatCollection } = require('WAWebChatCollection');
    exports.load = async (key) => {
      const attributes = await table.get(key);
      return attributes && new Msg(attributes);
    };
    /** Chats know their latest messages; those of strangers are in no list of the server's. */
    exports.restoreChats = async () => {
      for (const { id, t } of await table.latest()) {
        const [chat] = ChatCollection.add({ id: id.remote, t });
        chat.lastReceivedKey = id;
      }
    };
    const { storeSeconds } = self.__standin;
    const store = async (msg) => {
      if (storeSeconds) await new Promise((resolve) => setTimeout(resolve, storeSeconds * 1000));
      await table.put(msg);
    };

    /** A message from the server; `received.from_me` when another device of this account sent it. */
    exports.receive = async (received) => {
      if (received.lid) require('WAWebLidPnCache').standinLearn(...received.lid);
      const remote = createWid(received.chat);
      const Me = require('WAWebUserPrefsMeUser');
      const me = remote.isLid() ? Me.standinLid() : Me.standinMe();
      const author = received.author ? createWid(received.author) : undefined;
      const id = new MsgKey({ fromMe: received.from_me, remote, id: received.id, participant: author });
      if (!received.odd && (await table.get(id))) return; // an earlier page has stored it
      const msg = new Msg({
        id,
        ...contentOf(received),
        ack: 1,
        t: received.at,
        from: received.from_me ? me : remote,
        to: received.from_me ? remote : me,
        author,
        self: received.from_me ? 'out' : 'in',
        isNewMsg: true,
        notifyName: received.notify,
        isForwarded: received.forwarded || undefined,
        isViewOnce: received.view_once || undefined,
        mentionedJidList: received.mentions.length ? received.mentions.map(createWid) : undefined,
        ...quotedBy(received),
      });
      if (!received.odd) await store(msg);
      const chat = ChatCollection.get(remote) || ChatCollection.add({ id: remote })[0];
      if (!received.from_me) contact(author || remote, received.notify);
      if (received.odd) {
        require('StandinOdd').change(msg, received.odd);
        for (const collection of [chat.msgs, MsgCollection]) collection.remove(msg.id); // one like it
      } else chat.lastReceivedKey = id;
      chat.t = received.at;
      if (!received.from_me) chat.unreadCount += 1;
      chat.msgs.add(msg);
      await MsgCollection.processMultipleMessages(remote, [msg]);
    };
    const quotedBy = ({ quoted }) =>
      quoted && {
        quotedStanzaID: quoted.id,
        quotedParticipant: createWid(quoted.participant),
        quotedMsg: quoted.type ? { type: quoted.type, body: quoted.text } : undefined,
      };
    const contentOf = ({ text, media, file, location, contacts, poll }) => {
      if (media) {
        const { mime_type: mimetype, size, file_name: filename, caption, duration, thumbnail } = media;
        return {
          type: media.kind,
          body: thumbnail || text,
          mimetype,
          size,
          filename: filename || undefined,
          duration: duration || undefined,
          caption: caption || filename || undefined,
          isCaptionByUser: !!caption,
          mediaKey: file?.media_key,
          directPath: file?.direct_path,
          filehash: file?.filehash,
          encFilehash: file?.enc_filehash,
        };
      }
      if (location) {
        const { latitude: lat, longitude: lng, name, address, live } = location;
        return { type: 'location', lat, lng, loc: [name, address].filter(Boolean).join('\n'), isLive: live || undefined };
      }
      if (contacts.length > 1) {
        const vcardList = contacts.map(({ name: displayName, vcard }) => ({ displayName, vcard }));
        return { type: 'multi_vcard', vcardList };
      }
      if (contacts.length) return { type: 'vcard', body: contacts[0].vcard, vcardFormattedName: contacts[0].name };
      if (poll) {
        const pollOptions = poll.options.map((name, localId) => ({ name, localId }));
        const pollSelectableOptionsCount = poll.multiple ? 0 : 1;
        return { type: 'poll_creation', pollName: poll.question, pollOptions, pollSelectableOptionsCount };
      }
      return { type: 'chat', body: text };
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
      await table.remove(id);
      msg.id = new MsgKey({ fromMe: true, remote: to, id: id.id, participant: id.participant, selfDir: 'out' });
      msg.to = to;
      const renamed = ChatCollection.get(to) || ChatCollection.add({ id: to, t: msg.t })[0];
      renamed.msgs.add(msg);
      renamed.lastReceivedKey = msg.id;
      MsgCollection.add(msg);
    };

    /** Shows a message in its chat and sends it; `upload` brings its file to the server first and gives its id there. */
    exports.send = async (chat, msg, upload) => {
      chat.msgs.add(msg);
      MsgCollection.add(msg);
      chat.t = msg.t;
      chat.lastReceivedKey = msg.id;
      await table.put(msg);
      const { call } = require('StandinBackend');
      const { ACK } = require('WAWebAck');
      const order = { op: 'send', id: msg.id.id, to: String(chat.id), quoted: msg.quotedStanzaID || null };
      let result;
      try {
        if (upload) {
          const { mimetype: mime_type, filename: file_name, isCaptionByUser } = msg;
          const caption = isCaptionByUser ? msg.caption : null;
          order.media = { file: await upload(msg), kind: msg.type, mime_type, file_name, caption };
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
      await table.put(msg);
      return result;
    };

    /** A receipt of type `sender` says that another device of this account has got the message: no ack of the recipient's. */
    exports.receiveReceipt = async ({ id, type, ack, from, recipient, at }) => {
      for (const msg of MsgCollection.getModelsArray()) {
        if (msg.id?.id !== id || msg.ack >= ack || type === 'sender') continue;
        msg.ack = ack;
        await table.put(msg);
      }
      const me = require('WAWebUserPrefsMeUser').standinLid();
      for (const key of [`true_${from}_${id}`, `true_${from}_${id}_${me}`]) {
        const attributes = await table.get(key); // of a message that is not on the page
        if (attributes?.ack < ack) await table.put(new Msg({ ...attributes, ack }));
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
