/* Late bundle: chats, messages, contacts, and the stores that wa-js attaches listeners to. */
(function () {
  'use strict';
  const ESM = 98; // what the real bundles pass as fourth argument: the factory writes ES exports
  const def = (id, fn) => __d(id, [], function (t, n, r, o, a, i, l) { fn(n, l, i); }, ESM);

  def('WAWebChatModel', (require, ex) => {
    const { BaseModel } = require('WAWebBaseModel');
    class Chat extends BaseModel {
      initialize() {
        const { MsgCollectionImpl } = require('WAWebMsgCollection');
        this.msgs = new MsgCollectionImpl();
      }
    }
    Object.defineProperty(Chat.prototype, 'presence', { get() { return { subscribe: async () => {}, on() {} }; }, configurable: true });
    Chat.prototype.proxyName = 'chat';
    Chat.props = { id: undefined, name: undefined, t: 0, unreadCount: 0, archive: false, active: false, isNewsletterFlag: false };
    ex.Chat = Chat; ex.default = Chat;
  });
  def('WAWebMsgModel', (require, ex) => {
    const { BaseModel } = require('WAWebBaseModel');
    class Msg extends BaseModel { }
    Msg.prototype.proxyName = 'msg';
    Msg.props = { id: undefined, body: undefined, type: 'chat', ack: 0, t: 0, from: undefined, to: undefined, self: undefined, isNewMsg: false, local: false, notifyName: undefined, quotedStanzaID: undefined };
    ex.Msg = Msg; ex.default = Msg;
  });
  def('WAWebContactModel', (require, ex) => {
    const { BaseModel } = require('WAWebBaseModel');
    class Contact extends BaseModel { }
    Contact.prototype.proxyName = 'contact';
    Contact.props = { id: undefined, name: undefined, pushname: undefined };
    ex.Contact = Contact; ex.default = Contact;
  });
  def('WAWebChatCollection', (require, ex) => {
    const Collection = require('WAWebCollection').default;
    class ChatCollectionImpl extends Collection {}
    ChatCollectionImpl.model = require('WAWebChatModel').Chat;
    ex.ChatCollectionImpl = ChatCollectionImpl; ex.ChatCollection = new ChatCollectionImpl();
  });
  def('WAWebMsgCollection', (require, ex) => {
    const Collection = require('WAWebCollection').default;
    class MsgCollectionImpl extends Collection {
      async processMultipleMessages(chatId, msgs) { return this.add(msgs); }
    }
    MsgCollectionImpl.model = require('WAWebMsgModel').Msg;
    ex.MsgCollectionImpl = MsgCollectionImpl; ex.MsgCollection = new MsgCollectionImpl();
  });
  def('WAWebContactCollection', (require, ex) => {
    const Collection = require('WAWebCollection').default;
    class ContactCollectionImpl extends Collection {}
    ContactCollectionImpl.model = require('WAWebContactModel').Contact;
    ex.ContactCollectionImpl = ContactCollectionImpl; ex.ContactCollection = new ContactCollectionImpl();
    ex.default = ex.ContactCollection;
  });
  def('WAWebGroupMetadataCollection', (require, ex) => {
    const Collection = require('WAWebCollection').default;
    const { BaseModel } = require('WAWebBaseModel');
    class GroupMetadata extends BaseModel {}
    GroupMetadata.prototype.proxyName = 'group-metadata'; GroupMetadata.props = { id: undefined };
    class GroupMetadataCollectionImpl extends Collection { _handleParentGroupChange() {} }
    GroupMetadataCollectionImpl.model = GroupMetadata;
    ex.GroupMetadataCollectionImpl = GroupMetadataCollectionImpl;
    ex.GroupMetadataCollection = ex.default = new GroupMetadataCollectionImpl();
  });
  /* stores whose only job is to let wa-js attach its listeners without a page error */
  const store = (id, name, extra) => def(id, (require, ex) => {
    const Collection = require('WAWebCollection').default;
    const { BaseModel } = require('WAWebBaseModel');
    class M extends BaseModel {} M.props = { id: undefined }; M.prototype.proxyName = name.toLowerCase();
    const C = { [name + 'CollectionImpl']: class extends Collection { processIncomingCall() {} } }[name + 'CollectionImpl'];
    C.model = M;
    if (name !== 'Presence') ex[name + 'CollectionImpl'] = C;
    ex[name + 'Collection'] = ex.default = new C();
  });
  store('WAWebBlocklistCollection', 'Blocklist');
  store('WAWebStatusCollection', 'Status');
  store('WAWebCallCollection', 'Call');
  store('WAWebPresenceCollection', 'Presence');
  store('WAWebNewsletterCollection', 'Newsletter');
  def('WAWebCollections', (require, ex) => {
    ex.Chat = require('WAWebChatCollection').ChatCollection;
    ex.Msg = require('WAWebMsgCollection').MsgCollection;
    ex.Contact = require('WAWebContactCollection').ContactCollection;
  });
  /* LIDs and phone numbers: the stand-in knows none for other accounts. */
  def('WAWebApiContact', (require, ex) => {
    ex.lidPnCache = { getPhoneNumber: () => undefined, getCurrentLid: () => undefined, getLidEntry: () => undefined };
    for (const name of ['getCurrentLid', 'getPhoneNumber', 'getAlternateUserWid', 'getContactRecord', 'getContactHash']) {
      ex[name] = () => undefined;
    }
  });
})();
