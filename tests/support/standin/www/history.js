/* Late bundle: the messages that the page keeps in IndexedDB, and finding them there.
 *
 * Sources: WAWebDBMessageFindLocal as wa-js 4.6.0's getMessages calls it, and as public copies of the 2026 bundles show it: the
 * messages before an anchor, which must be in the database (status 404 otherwise), by their place in the chat, oldest first.
 * WAWebPollsVotesSchema and WAWebPollsDbSerialization as wa-js's getVotes calls them. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  /** The stand-in's own: messages as rows of the database, and as attributes of models. */
  def('StandinMessageTable', (require, exports) => {
    const database = require('StandinDatabase');
    const { createWid } = require('WAWebWidFactory');
    const MsgKey = require('WAWebMsgKey');
    const WIDS = ['from', 'to', 'author', 'quotedParticipant', 'revokeSender'];
    const KEYS = ['protocolMessageKey', 'latestEditMsgKey'];
    const VALUES = [
      'rowId', 'type', 'body', 'ack', 't', 'self', 'notifyName', 'quotedStanzaID', 'quotedMsg', 'mimetype', 'size', 'filename',
      'caption', 'isCaptionByUser', 'duration', 'thumbnail', 'mediaKey', 'directPath', 'filehash', 'encFilehash', 'lat', 'lng',
      'loc', 'isLive', 'vcardFormattedName', 'vcardList', 'pollName', 'pollOptions', 'pollSelectableOptionsCount', 'isForwarded',
      'isViewOnce', 'subtype', 'revokeTimestamp', 'latestEditSenderTimestampMs', 'hasReaction', 'standinReactions',
      'standinVotes',
    ];
    const text = (value) => (value ? String(value) : undefined);
    const chatRange = (chat, lower, upper) => {
      const place = (row) => `${chat} ${String(row).padStart(17, '0')}`;
      return IDBKeyRange.bound(place(lower), place(upper), true, true);
    };
    let lastRow = 0;
    const nextRow = () => (lastRow = Math.max(lastRow + 1, Date.now() * 1000));

    exports.put = (msg) => {
      msg.rowId ??= nextRow();
      const row = { key: String(msg.id), stanzaId: msg.id.id };
      row.internalId = `${msg.id.remote} ${String(msg.rowId).padStart(17, '0')}`;
      for (const name of [...WIDS, ...KEYS]) row[name] = text(msg[name]);
      for (const name of VALUES) row[name] = msg[name];
      row.mentionedJidList = msg.mentionedJidList?.map(String);
      return database.put('model-storage', row.key, row);
    };
    exports.remove = (key) => database.remove('model-storage', String(key));
    /** A message's attributes; undefined if it is not there. */
    exports.get = async (key) => attributesOf(await database.get('model-storage', String(key)));
    exports.byStanzaId = async (id) =>
      (await database.list('model-storage', 'stanzaId', IDBKeyRange.only(id))).map(attributesOf);
    /** The latest message of each chat. */
    exports.latest = async () => {
      const skip = ({ internalId }) => internalId.slice(0, internalId.indexOf(' ') + 1);
      return (await database.list('model-storage', 'internalId', null, { direction: 'prev', skip })).map(attributesOf);
    };
    exports.before = async ({ id, rowId }, count) => {
      const range = chatRange(id.remote, 0, rowId);
      return (await database.list('model-storage', 'internalId', range, { direction: 'prev', count })).map(attributesOf);
    };
    exports.after = async ({ id, rowId }, count) => {
      const range = chatRange(id.remote, rowId, Number.MAX_SAFE_INTEGER);
      return (await database.list('model-storage', 'internalId', range, { count })).map(attributesOf);
    };

    const attributesOf = (row) => {
      if (!row) return undefined;
      const { key, stanzaId, internalId, ...attributes } = row;
      for (const name of WIDS) if (row[name]) attributes[name] = createWid(row[name]);
      for (const name of KEYS) if (row[name]) attributes[name] = MsgKey.fromString(row[name]);
      attributes.mentionedJidList = row.mentionedJidList?.map(createWid);
      return { ...attributes, id: MsgKey.fromString(key) };
    };
  });

  def('WAWebDBMessageFindLocal', (require, exports) => {
    const table = require('StandinMessageTable');
    const MsgKey = require('WAWebMsgKey');
    const found = async (anchor, read) => {
      if (!(anchor instanceof MsgKey)) return { messages: [], status: 200 };
      const row = await table.get(anchor);
      return row ? { messages: await read(row), status: 200 } : { messages: [], status: 404 };
    };
    exports.msgFindBefore = ({ anchor, count = 20 }) =>
      found(anchor, async (row) => (await table.before(row, count)).reverse());
    exports.msgFindAfter = ({ anchor, count = 20 }) => found(anchor, (row) => table.after(row, count));
    exports.msgFindByDirection = ({ direction, ...params }) =>
      direction === 'before' ? exports.msgFindBefore(params) : exports.msgFindAfter(params);
    exports.msgFindMedia = exports.msgFindCallLog = async () => [];
  });

  def('WAWebPollsVotesSchema', (require, exports) => {
    const table = require('StandinMessageTable');
    exports.getTable = () => ({
      name: "poll-votes", // wa-js finds the module by this text
      anyOf: async (_, keys) =>
        (await Promise.all(keys.map(table.get))).flatMap((poll) => Object.values(poll?.standinVotes || {})),
    });
  });

  def('WAWebPollsDbSerialization', (require, exports) => {
    const { createWid } = require('WAWebWidFactory');
    const MsgKey = require('WAWebMsgKey');
    exports.voteFromDbRow = (row) => ({
      ...row,
      msgKey: MsgKey.fromString(row.msgKey),
      parentMsgKey: MsgKey.fromString(row.parentMsgKey),
      sender: createWid(row.sender),
    });
  });

  // name assumed
  def('WAWebGetReactionsAction', (require, exports) => {
    const table = require('StandinMessageTable');
    const MsgKey = require('WAWebMsgKey');
    const { isMeAccount } = require('WAWebUserPrefsMeUser');
    /** The reactions to a message by their emoji. */
    exports.getReactions = async (id) => {
      const rows = Object.values((await table.get(id))?.standinReactions || {});
      const senders = rows.map((row) => ({
        ...row,
        msgKey: MsgKey.fromString(row.msgKey),
        parentMsgKey: MsgKey.fromString(row.parentMsgKey),
      }));
      const isMine = ({ senderUserJid }) => isMeAccount(senderUserJid);
      const emojis = [...new Set(rows.map(({ reactionText }) => reactionText))];
      return {
        reactionByMe: senders.find(isMine),
        reactions: emojis.map((aggregateEmoji) => {
          const same = senders.filter(({ reactionText }) => reactionText === aggregateEmoji);
          return { aggregateEmoji, hasReactionByMe: same.some(isMine), senders: same };
        }),
      };
    };
  });
})();
