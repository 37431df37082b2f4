/* Late bundle: finding chats, sending, receipts. */
(function () {
  'use strict';
  const ESM = 98; // what the real bundles pass as fourth argument: the factory writes ES exports
  const def = (id, fn) => __d(id, [], function (t, n, r, o, a, i, l) { fn(n, l, i); }, ESM);

  def('WAWebFindChatAction', (require, ex) => {
    const { ChatCollection } = require('WAWebChatCollection');
    ex.findOrCreateLatestChat = async (wid) => {
      if (!require('WAWebUserPrefsMeUser').__raw()) throw new Error('not logged in');
      let created = false;
      if (!ChatCollection.get(wid)) {
        // the real page asks the server for the device list / LID here
        const ok = await require('WAWebStandinBackend').rpc('query-exists', { wid: String(wid) });
        if (!ok.exists) throw new Error('findOrCreateLatestChat: no such user ' + wid);
        created = true;
        ChatCollection.add({ id: wid, t: Math.floor(Date.now() / 1000) });
      }
      return { chat: { id: wid }, created };
    };
    ex.findChat = async (wid) => ChatCollection.get((await ex.findOrCreateLatestChat(wid)).chat.id);
    ex.findExistingChat = (wid) => ChatCollection.get(wid);
  });
  def('WAWebQueryExistsJob', (require, ex) => {
    ex.queryPhoneExists = () => null;
    ex.queryWidExists = async (wid) => {
      const r = await require('WAWebStandinBackend').rpc('query-exists', { wid: String(wid) });
      return r.exists ? { wid, biz: false } : null;
    };
  });
  def('WAWebGetEphemeralFieldsMsgActionsUtils', (require, ex) => { ex.getEphemeralFields = () => ({}); });
  def('WAWebUpdateUnreadChatAction', (require, ex) => {
    ex.markUnread = async () => {}; ex.sendSeen = async ({ chat }) => { chat.unreadCount = 0; };
  });
  def('WAWebSendMsgChatAction', (require, ex) => {
    const { MsgCollection } = require('WAWebMsgCollection');
    const { ACK } = require('WAWebAck');
    ex.addAndSendMsgToChat = (chat, raw) => {
      const { Msg } = require('WAWebMsgModel');
      const msg = new Msg(raw);
      chat.msgs.add(msg); MsgCollection.add(msg); chat.t = raw.t;
      const result = require('WAWebStandinBackend')
        .rpc('send', { id: msg.id.id, key: String(msg.id), to: String(chat.id), from: String(raw.from), body: raw.body, type: raw.type })
        .then((r) => { msg.ack = ACK.SENT; msg.t = r.t; return { messageSendResult: 'OK', t: r.t }; },
          (e) => { msg.ack = ACK.FAILED; return { messageSendResult: 'ERROR_NETWORK', error: String(e) }; });
      return Promise.resolve([Promise.resolve(msg), result]);
    };
    ex.sendMsgRecord = () => {};
  });
  def('WAWebSendMsgResultAction', (require, ex) => { // (id assumed) predicate m.SendMsgResult
    ex.SendMsgResult = { OK: 'OK', ERROR_NETWORK: 'ERROR_NETWORK', ERROR_EXPIRED: 'ERROR_EXPIRED', ERROR_CANCELLED: 'ERROR_CANCELLED', ERROR_UPLOAD: 'ERROR_UPLOAD', ERROR_UNKNOWN: 'ERROR_UNKNOWN' };
  });
  def('WAWebHandleDirectChatReceipt', (require, ex) => { ex.handleChatSimpleReceipt = async () => {}; });
  def('WAWebHandleGroupChatReceipt', (require, ex) => { ex.handleGroupSimpleReceipt = async () => {}; });
  def('WAWebHandleStatusReceipt', (require, ex) => { ex.handleStatusSimpleReceipt = async () => {}; });
  def('WAWebHistorySyncProgress', (require, ex) => { // (id assumed)
    ex.getHistorySyncProgressModel = () => ({ realProgress: 100, remainingPausedSeconds: 0 });
  });
  def('WAWebLidMigrationUtils', (require, ex) => {
    ex.Lid1X1MigrationUtils = { isLidMigrated: () => false, isSyncdSessionMigrated: () => true, shouldApplyNonMigratedMessagingRules: () => false };
    ex.toUserLid = (w) => w; ex.toUserLidOrThrow = (w) => w; ex.toPn = (w) => w;
  });
})();
