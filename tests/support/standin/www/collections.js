/* Late bundle: chats, messages, contacts, and the stores that wa-js attaches listeners to.
 *
 * Sources: module and class names as wa-js 4.6.0's predicates and whatsapp-web.js 1.34 (WAWebCollections) name them. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const { missing } = self.__standin;
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  def('WAWebChatModel', (require, exports) => {
    const { BaseModel } = require('WAWebBaseModel');
    class Chat extends BaseModel {
      initialize() {
        const { MsgCollectionImpl } = require('StandinMsgCollection');
        this.msgs = new MsgCollectionImpl();
      }
      get presence() {
        return { subscribe: async () => {}, on() {} };
      }
    }
    Chat.prototype.proxyName = 'chat';
    Chat.props = {
      id: undefined,
      name: undefined,
      t: 0,
      unreadCount: 0,
      archive: false,
      active: false,
      isNewsletterFlag: false,
      lastReceivedKey: undefined,
    };
    exports.Chat = Chat;
    exports.default = Chat;
  });

  def('WAWebMsgModel', (require, exports) => {
    const { BaseModel } = require('WAWebBaseModel');
    class Msg extends BaseModel {
      /** What a reply to this message carries. */
      msgContextInfo() {
        return {
          quotedMsg: { type: this.type, body: this.body },
          quotedStanzaID: this.id.id,
          quotedParticipant: this.author || this.from,
        };
      }
      #file;
      /** The file's state; undefined without a file, and for what may be viewed once, which only phones get. */
      get mediaData() {
        if (!this.mimetype || this.isViewOnce) return undefined;
        return (this.#file ??= require('StandinFiles').describe(this));
      }
      get mediaObject() {
        return this.mediaData && { type: this.type.toUpperCase() };
      }
      downloadMedia() {
        return require('StandinFiles').download(this);
      }
    }
    Msg.prototype.proxyName = 'msg';
    Msg.props = {
      id: undefined,
      body: undefined,
      type: 'chat',
      ack: 0,
      t: 0,
      from: undefined,
      to: undefined,
      author: undefined,
      self: undefined,
      isNewMsg: false,
      local: false,
      notifyName: undefined,
      quotedStanzaID: undefined,
      quotedParticipant: undefined,
      mimetype: undefined,
      size: undefined,
      filename: undefined,
      caption: undefined,
      isCaptionByUser: undefined,
      duration: undefined,
      thumbnail: undefined,
      mediaKey: undefined,
      directPath: undefined,
      filehash: undefined,
      encFilehash: undefined,
      lat: undefined,
      lng: undefined,
      loc: undefined,
      isLive: undefined,
      vcardFormattedName: undefined,
      vcardList: undefined,
      pollName: undefined,
      pollOptions: undefined,
      pollSelectableOptionsCount: undefined,
      mentionedJidList: undefined,
      isForwarded: undefined,
      isViewOnce: undefined,
      quotedMsg: undefined,
      subtype: undefined,
      revokeSender: undefined,
      revokeTimestamp: undefined,
      protocolMessageKey: undefined,
      latestEditSenderTimestampMs: undefined,
      latestEditMsgKey: undefined,
      hasReaction: undefined,
      standinReactions: undefined,
      standinVotes: undefined,
      rowId: undefined,
    };
    exports.Msg = Msg;
    exports.default = Msg;
  });

  def('WAWebContactModel', (require, exports) => {
    const { BaseModel } = require('WAWebBaseModel');
    class Contact extends BaseModel {}
    Contact.prototype.proxyName = 'contact';
    Contact.props = { id: undefined, name: undefined, pushname: undefined, isBusiness: false };
    exports.Contact = Contact;
    exports.default = Contact;
  });

  def('WAWebFrontendContactGetters', (require, exports) => {
    exports.getIsMyContact = (contact) => !!contact.name; // it is in the address book
  });

  def('WAWebChatCollection', (require, exports) => {
    const Collection = require('WAWebCollection').default;
    class ChatCollectionImpl extends Collection {}
    ChatCollectionImpl.model = require('WAWebChatModel').Chat;
    exports.ChatCollectionImpl = ChatCollectionImpl;
    exports.ChatCollection = new ChatCollectionImpl();
  });

  def('StandinMsgCollection', (require, exports) => {
    const Collection = require('WAWebCollection').default;
    class MsgCollectionImpl extends Collection {
      /** By id, or by a message's attributes. */
      get(like) {
        return super.get(like && Object.hasOwn(like, 'type') ? like.id : like);
      }
      async processMultipleMessages(chat, messages) {
        return this.add(messages);
      }
    }
    MsgCollectionImpl.model = require('WAWebMsgModel').Msg;
    exports.MsgCollectionImpl = MsgCollectionImpl;
    exports.MsgCollection = new MsgCollectionImpl();
  });
  def('WAWebMsgCollection', (require, exports) => {
    if (!missing.includes('messages')) Object.assign(exports, require('StandinMsgCollection'));
  });

  def('WAWebContactCollection', (require, exports) => {
    const Collection = require('WAWebCollection').default;
    class ContactCollectionImpl extends Collection {}
    ContactCollectionImpl.model = require('WAWebContactModel').Contact;
    exports.ContactCollectionImpl = ContactCollectionImpl;
    exports.ContactCollection = exports.default = new ContactCollectionImpl();
  });

  def('WAWebGroupMetadataCollection', (require, exports) => {
    const Collection = require('WAWebCollection').default;
    const { BaseModel } = require('WAWebBaseModel');
    class GroupMetadata extends BaseModel {}
    GroupMetadata.prototype.proxyName = 'group-metadata';
    GroupMetadata.props = { id: undefined, subject: undefined };
    class GroupMetadataCollectionImpl extends Collection {
      _handleParentGroupChange() {}
      /** Asks the server for a group that the page does not know. */
      async find(id) {
        const known = this.get(id);
        if (known) return known;
        const { subject } = await require('StandinBackend').call({ op: 'query-group', group: String(id) });
        return this.add({ id, subject })[0];
      }
    }
    GroupMetadataCollectionImpl.model = GroupMetadata;
    exports.GroupMetadataCollectionImpl = GroupMetadataCollectionImpl;
    exports.GroupMetadataCollection = exports.default = new GroupMetadataCollectionImpl();
  });

  /* Stores that stay empty; wa-js attaches its listeners to them. */
  const emptyStore = (name, exportImpl = true) =>
    def(`WAWeb${name}Collection`, (require, exports) => {
      const Collection = require('WAWebCollection').default;
      const { BaseModel } = require('WAWebBaseModel');
      class Model extends BaseModel {}
      Model.props = { id: undefined };
      Model.prototype.proxyName = name.toLowerCase();
      class CollectionImpl extends Collection {
      }
      CollectionImpl.model = Model;
      if (exportImpl) exports[`${name}CollectionImpl`] = CollectionImpl;
      exports[`${name}Collection`] = exports.default = new CollectionImpl();
    });
  emptyStore('Blocklist');
  emptyStore('Status');
  emptyStore('Newsletter');
  emptyStore('Presence', false);

  def('WAWebCallCollection', (require, exports) => {
    const Collection = require('WAWebCollection').default;
    const { BaseModel } = require('WAWebBaseModel');
    class Call extends BaseModel {
      getState() {
        return undefined; // wa-js then takes a call that is not outgoing for an incoming one
      }
    }
    Call.prototype.proxyName = 'call';
    Call.props = { id: undefined, peerJid: undefined, isVideo: false, isGroup: false, offerTime: 0, outgoing: false };
    class CallCollectionImpl extends Collection {
      processIncomingCall() {} // of older builds
      setActiveCall(call) {
        this.activeCall = call;
        this.add(call);
      }
    }
    CallCollectionImpl.model = Call;
    exports.Call = Call;
    exports.CallCollectionImpl = CallCollectionImpl;
    exports.CallCollection = exports.default = new CallCollectionImpl();
  });

  def('WAWebCollections', (require, exports) => {
    exports.Chat = require('WAWebChatCollection').ChatCollection;
    exports.Msg = require('StandinMsgCollection').MsgCollection;
    exports.Contact = require('WAWebContactCollection').ContactCollection;
  });

  /* LIDs, ids that hide the phone number: of some people both are known, of some only the LID. */
  def('WAWebLidPnCache', (require, exports) => {
    const { createWid } = require('WAWebWidFactory');
    const phones = new Map();
    const lids = new Map();
    exports.lidPnCache = {
      getPhoneNumber: (lid) => phones.get(String(lid)),
      getCurrentLid: (phone) => lids.get(String(phone)),
      getLidEntry: (phone) => (lids.has(String(phone)) ? { lid: lids.get(String(phone)) } : undefined),
    };
    /** The stand-in's own: notes which LID and phone number are one person's. */
    exports.standinLearn = (lid, phone) => {
      if (!lid || !phone) return;
      phones.set(lid, createWid(phone));
      lids.set(phone, createWid(lid));
    };
  });

  def('WAWebApiContact', (require, exports) => {
    const { lidPnCache } = require('WAWebLidPnCache');
    exports.lidPnCache = lidPnCache;
    exports.getCurrentLid = lidPnCache.getCurrentLid;
    exports.getPhoneNumber = lidPnCache.getPhoneNumber;
    exports.getAlternateUserWid = (wid) => lidPnCache.getPhoneNumber(wid) || lidPnCache.getCurrentLid(wid);
    exports.getContactRecord = exports.getContactHash = () => undefined;
  });

  def('WAWebLidMigrationUtils', (require, exports) => {
    exports.Lid1X1MigrationUtils = {
      isLidMigrated: () => false,
      isSyncdSessionMigrated: () => true,
      shouldApplyNonMigratedMessagingRules: () => false,
    };
    const { lidPnCache } = require('WAWebLidPnCache');
    exports.toUserLid = exports.toUserLidOrThrow = (wid) => lidPnCache.getCurrentLid(wid) || wid;
    exports.toPn = (wid) => lidPnCache.getPhoneNumber(wid) || wid;
  });
})();
