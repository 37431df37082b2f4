/* Late bundle: what people do to messages, groups, and calls.
 *
 * Sources: public copies of the 2026 bundles (WAWebDBProcessEditProtocolMsgs, WAWebDBProcessRevokeMsgs, WAWebReactionsMsgAction,
 * WAWebDBPollsUpsertVotes, WAWebUpdateDbForGroupActionApi), and how wa-js 4.6.0 wraps them: an edit and a deletion are checked,
 * written to the database, and then shown; the edits that counted are returned, with the message as it was before. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  /** The stand-in's own: changes of a message in the database and on the page. */
  def('StandinMessageChanges', (require, exports) => {
    const table = require('StandinMessageTable');
    const { Msg } = require('WAWebMsgModel');
    const { MsgCollection } = require('StandinMsgCollection');
    exports.store = async (key, changes) => table.put(new Msg({ ...(await table.get(key)), ...changes }));
    exports.show = (key, changes) => MsgCollection.get(key)?.set(changes);
    /** What is odd may be unreadable for the stand-in too, which then leaves it at that. */
    exports.unlessOdd = (work) => Promise.resolve().then(work).catch(() => {});
    exports.change = async (key, changes) => {
      await exports.store(key, changes);
      exports.show(key, changes);
    };
    const { isMeAccount } = require('WAWebUserPrefsMeUser');
    /** Who has sent something; the account's own ids are one. */
    exports.senderOf = ({ id, author, from }) => (id.fromMe || isMeAccount(author || from) ? 'me' : String(author || from));
  });

  def('WAWebDBProcessEditProtocolMsgs', (require, exports) => {
    const table = require('StandinMessageTable');
    const { store, show, senderOf, unlessOdd } = require('StandinMessageChanges');
    exports.processEditProtocolMsgs = async (edits) => {
      const done = [];
      for (const edit of edits) {
        const parentMsg = await table.get(edit.protocolMessageKey);
        if (!parentMsg || parentMsg.type === 'revoked' || senderOf(parentMsg) !== senderOf(edit)) continue;
        const { latestEditSenderTimestampMs, body, caption } = edit;
        if ((parentMsg.latestEditSenderTimestampMs ?? 0) > latestEditSenderTimestampMs) continue;
        const text = parentMsg.mimetype ? { caption, isCaptionByUser: true } : { body };
        const editedMsgData = { ...text, latestEditSenderTimestampMs, latestEditMsgKey: edit.id };
        await store(parentMsg.id, editedMsgData);
        require('StandinOdd').change(editedMsgData, edit.standinOdd || {});
        done.push({ parentMsg, protocolMsg: edit, editedMsgData, isLatest: true });
      }
      for (const { parentMsg, editedMsgData } of done) await unlessOdd(() => show(parentMsg.id, editedMsgData));
      return done;
    };
  });

  def('WAWebDBProcessRevokeMsgs', (require, exports) => {
    const table = require('StandinMessageTable');
    const { change, unlessOdd } = require('StandinMessageChanges');
    const GONE = [
      'body', 'caption', 'mimetype', 'size', 'filename', 'duration', 'thumbnail', 'mediaKey', 'directPath', 'filehash',
      'encFilehash', 'quotedMsg', 'quotedStanzaID', 'mentionedJidList', 'hasReaction', 'standinReactions',
    ];
    const isValid = ({ revokeMsgKey: old, newMsgKey, subtype }) =>
      String(old.remote) === String(newMsgKey.remote) &&
      (subtype === 'admin_revoke'
        ? old.remote.isGroup()
        : old.fromMe === newMsgKey.fromMe && String(old.participant) === String(newMsgKey.participant));
    const process = async (revoke) => {
      const { revokeMsgKey, sender, subtype, revokeTimestamp } = revoke;
      if (!isValid(revoke) || !(await table.get(revokeMsgKey))) return;
      await change(revokeMsgKey, {
        ...Object.fromEntries(GONE.map((name) => [name, undefined])),
        subtype: subtype === 'admin_revoke' ? 'admin' : 'sender',
        revokeSender: sender,
        revokeTimestamp,
        protocolMessageKey: revokeMsgKey,
        type: 'revoked',
      });
    };
    exports.processRevokeMsgs = async (revokes) => {
      for (const revoke of revokes) await unlessOdd(() => process(revoke));
    };
  });

  def('WAWebReactionsMsgAction', (require, exports) => {
    const { show, unlessOdd } = require('StandinMessageChanges');
    exports.addOrUpdateReactionsModelCollection = (row) =>
      unlessOdd(() => show(row.parentMsgKey, { hasReaction: row.reactionText !== '' }));
  });

  def('WAWebDBPollsUpsertVotes', (require, exports) => {
    const table = require('StandinMessageTable');
    const { store, unlessOdd } = require('StandinMessageChanges');
    const upsert = async (vote) => {
      const poll = await table.get(vote.parentMsgKey);
      const sender = String(vote.sender);
      const before = poll?.standinVotes?.[sender];
      if (!poll || before?.senderTimestampMs > vote.senderTimestampMs) return;
      const row = { ...vote, msgKey: String(vote.msgKey), parentMsgKey: String(vote.parentMsgKey), sender };
      await store(poll.id, { standinVotes: { ...poll.standinVotes, [sender]: row } });
    };
    exports.upsertVotesDb = async (votes) => {
      for (const vote of votes) await unlessOdd(() => upsert(vote));
      return votes;
    };
  });

  def('WAWebUpdateDbForGroupActionApi', (require, exports) => {
    exports.updateDBForGroupAction = async () => {};
  });

  /** The stand-in's own: changes as the server tells them. */
  def('StandinChanges', (require, exports) => {
    const table = require('StandinMessageTable');
    const { store } = require('StandinMessageChanges');
    const { createWid } = require('WAWebWidFactory');
    const MsgKey = require('WAWebMsgKey');
    const { change: makeOdd } = require('StandinOdd');
    const Me = require('WAWebUserPrefsMeUser');

    /** The message that is changed, and the key of the message that changes it. */
    const keysOf = async ({ id, chat, from_me: fromMe, author, by }) => {
      const remote = createWid(chat);
      const participant = author && !fromMe ? createWid(author) : undefined;
      const [known] = await table.byStanzaId(id);
      const key = known?.id || new MsgKey({ fromMe, remote, id, participant });
      const own = Me.isMeAccount(by);
      const changeId = '3A' + crypto.randomUUID().replaceAll('-', '').slice(0, 18).toUpperCase();
      const changer = remote.isGroup() && !own ? createWid(by) : undefined;
      return { key, by: createWid(by), change: new MsgKey({ fromMe: own, remote, id: changeId, participant: changer }) };
    };

    exports.edit = async (told) => {
      const { key, by, change } = await keysOf(told);
      const edit = {
        id: change,
        type: 'protocol',
        subtype: 'message_edit',
        protocolMessageKey: key,
        body: told.text,
        caption: told.text,
        from: by,
        t: Math.floor(told.at_ms / 1000),
        latestEditMsgKey: change,
        latestEditSenderTimestampMs: told.at_ms,
        standinOdd: told.odd,
      };
      return require('WAWebDBProcessEditProtocolMsgs').processEditProtocolMsgs([edit]);
    };
    exports.deletion = async (told) => {
      const { key, by, change } = await keysOf(told);
      const at = Math.floor(told.at_ms / 1000);
      const subtype = told.admin ? 'admin_revoke' : 'sender_revoke';
      const revoke = { revokeMsgKey: key, newMsgKey: change, timestamp: at, subtype, sender: by, revokeTimestamp: at };
      return require('WAWebDBProcessRevokeMsgs').processRevokeMsgs([makeOdd(revoke, told.odd || {})]);
    };
    exports.reaction = async (told) => {
      const { key, by, change } = await keysOf(told);
      const senderUserJid = String(by);
      const row = {
        msgKey: String(change),
        parentMsgKey: String(key),
        senderUserJid,
        reactionText: told.emoji,
        timestamp: told.at_ms,
        orphan: 0,
        read: false,
      };
      const parent = await table.get(key);
      if (parent) {
        const { [senderUserJid]: before, ...others } = parent.standinReactions || {};
        const standinReactions = told.emoji ? { ...others, [senderUserJid]: row } : others;
        await store(key, { standinReactions, hasReaction: Object.keys(standinReactions).length > 0 });
      }
      const { addOrUpdateReactionsModelCollection } = require('WAWebReactionsMsgAction');
      return addOrUpdateReactionsModelCollection(makeOdd(row, told.odd || {}), { allowNotify: true });
    };
    exports.vote = async (told) => {
      const { key, by, change } = await keysOf(told);
      const options = (await table.get(key))?.pollOptions || [];
      const chosen = options.filter(({ name }) => told.options.includes(name));
      const vote = {
        msgKey: change,
        parentMsgKey: key,
        sender: by,
        senderTimestampMs: told.at_ms,
        selectedOptionLocalIds: chosen.map(({ localId }) => localId),
        ack: 1,
      };
      return require('WAWebDBPollsUpsertVotes').upsertVotesDb([makeOdd(vote, told.odd || {})]);
    };
    exports.call = (told) => {
      const { Call, CallCollection } = require('WAWebCallCollection');
      const { id, video: isVideo, group: isGroup, at: offerTime } = told;
      const call = new Call({ id, peerJid: createWid(told.from), isVideo, isGroup, offerTime, outgoing: false });
      CallCollection.setActiveCall(makeOdd(call, told.odd || {}));
    };
    exports.group = async (told) => {
      const meta = { chatId: createWid(told.group), author: createWid(told.by), ts: told.at, pushname: '', actions: [] };
      const actionType = { join: 'add', leave: 'remove' }[told.action] || told.action;
      const participants = told.participants.map((one) => ({ id: createWid(one), isAdmin: false, isSuperAdmin: false }));
      const action = { actionType, participants, isInvite: told.action === 'join' };
      const odd = told.odd || {};
      makeOdd(meta, Object.fromEntries(Object.entries(odd).filter(([name]) => name in meta)));
      makeOdd(action, Object.fromEntries(Object.entries(odd).filter(([name]) => !(name in meta))));
      return require('WAWebUpdateDbForGroupActionApi').updateDBForGroupAction(meta, action);
    };
  });
})();
