/* Ids of chats and messages.
 *
 * Sources: whatsapp-web.js 1.34 (WAWebWidFactory; WAWebMsgKey, which is a class and not ES exports), wa-js 4.6.0 (since
 * 2.3000.1042401057 the key's text has a minified name, to which wa-js adds `_serialized` again; before that, and with
 * `legacyMsgKey` here, it is `_serialized`, which whatsapp-web.js 1.34 reads). */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  def('WAWebWid', (require, exports) => {
    class Wid {
      constructor(text) {
        const parts = /^([^@:]+)(?::(\d+))?@([a-z.]+)$/.exec(String(text));
        if (!parts) throw new Error('wid error: invalid wid ' + text);
        this.user = parts[1];
        this.device = parts[2] ? Number(parts[2]) : undefined;
        this.server = parts[3];
        this._serialized = this.user + (this.device ? ':' + this.device : '') + '@' + this.server;
      }
      toString() {
        return this._serialized;
      }
      toJSON() {
        return { server: this.server, user: this.user, _serialized: this._serialized };
      }
      equals(other) {
        return !!other && other._serialized === this._serialized;
      }
      toUserWid() {
        return new Wid(this.user + '@' + this.server);
      }
      isUser() {
        return this.server === 'c.us' || this.server === 'lid';
      }
      isLid() {
        return this.server === 'lid';
      }
      isGroup() {
        return this.server === 'g.us';
      }
      isBroadcast() {
        return this.server === 'broadcast';
      }
      isNewsletter() {
        return this.server === 'newsletter';
      }
      isStatusV3() {
        return this._serialized === 'status@broadcast';
      }
      isBot() {
        return false;
      }
      isPSA() {
        return false;
      }
      static isGroup(wid) {
        return wid instanceof Wid && wid.isGroup();
      }
      static isStatusV3(wid) {
        return wid instanceof Wid && wid.isStatusV3();
      }
      static isXWid(server, wid) {
        return wid instanceof Wid && wid.server === server;
      }
      static isWid(value) {
        return value instanceof Wid || /@(c\.us|g\.us|lid|newsletter|broadcast)$/.test(String(value));
      }
    }
    exports.default = Wid;
  });

  def('WAWebWidFactory', (require, exports) => {
    const Wid = require('WAWebWid').default;
    exports.createWid = (like) => new Wid(like._serialized ?? like);
    exports.createUserWidOrThrow = (user, server) =>
      new Wid(String(user).includes('@') ? user : user + '@' + (server || 'c.us'));
    exports.createUserWid = exports.createUserWidOrThrow;
    exports.createWidFromWidLike = (like) => new Wid(like._serialized);
    exports.asUserWidOrThrow = (wid) => new Wid(wid.user + '@' + wid.server);
    exports.isWidlike = (value) =>
      value instanceof Wid || (typeof value === 'object' && typeof value?._serialized === 'string' && 'server' in value);
  });

  __d('WAWebMsgKey', [], (g, require, d, n, l, module) => {
    const TEXT = self.__standin.legacyMsgKey ? '_serialized' : '$1';
    const Wid = require('WAWebWid').default;
    class MsgKey {
      constructor(parts) {
        if (!parts) throw new Error('MsgKey error: obj is null/undefined'); // wa-js finds the class by this text
        this.fromMe = parts.fromMe !== undefined ? parts.fromMe : parts.selfDir === 'out';
        this.remote = parts.remote || (this.fromMe ? parts.to : parts.from);
        this.id = parts.id;
        this.participant = parts.participant;
        this.self = parts.selfDir;
        this[TEXT] = [this.fromMe, this.remote, this.id, this.participant].filter((part) => part !== undefined).join('_');
      }
      toString() {
        return this[TEXT];
      }
      equals(other) {
        return !!other && String(other) === String(this);
      }
      static fromString(text) {
        const [fromMe, remote, id, participant] = String(text).split('_');
        return new MsgKey({
          fromMe: fromMe === 'true',
          remote: new Wid(remote),
          id,
          participant: participant && new Wid(participant),
        });
      }
      static async newId() {
        const random = [...crypto.getRandomValues(new Uint8Array(9))];
        return (
          '3EB0' +
          random
            .map((byte) => byte.toString(16).padStart(2, '0'))
            .join('')
            .toUpperCase()
        );
      }
    }
    module.exports = MsgKey;
  });
})();
