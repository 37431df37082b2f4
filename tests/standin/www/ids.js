/* Ids of chats and messages: Wid and MsgKey, with the minified key property that newer builds have. */
(function () {
  'use strict';
  const ESM = 98; // what the real bundles pass as fourth argument: the factory writes ES exports
  const def = (id, fn) => __d(id, [], function (t, n, r, o, a, i, l) { fn(n, l, i); }, ESM);

  def('WAWebWid', (require, ex) => {
    class Wid {
      constructor(s) {
        const m = /^([^@:]+)(?::(\d+))?@([a-z.]+)$/.exec(String(s));
        if (!m) throw new Error('wid error: invalid wid ' + s);
        this.user = m[1]; this.device = m[2] ? Number(m[2]) : undefined; this.server = m[3];
        this._serialized = this.user + (this.device ? ':' + this.device : '') + '@' + this.server;
      }
      toString() { return this._serialized; }
      toJSON() { return { server: this.server, user: this.user, _serialized: this._serialized }; }
      equals(o) { return !!o && o._serialized === this._serialized; }
      isUser() { return this.server === 'c.us' || this.server === 'lid'; }
      isLid() { return this.server === 'lid'; }
      isGroup() { return this.server === 'g.us'; }
      isBroadcast() { return this.server === 'broadcast'; }
      isNewsletter() { return this.server === 'newsletter'; }
      isStatusV3() { return this._serialized === 'status@broadcast'; }
      isBot() { return false; }
      isPSA() { return false; }
      toUserWid() { return new Wid(this.user + '@' + this.server); }
      static isXWid(server, wid) { return wid instanceof Wid && wid.server === server; }
      static isWid(x) { return x instanceof Wid || /@(c\.us|g\.us|lid|newsletter|broadcast)$/.test(String(x)); }
    }
    ex.default = Wid;
  });
  def('WAWebWidFactory', (require, ex) => {
    const Wid = require('WAWebWid').default;
    ex.createWid = (s) => new Wid(s);
    ex.createUserWidOrThrow = (u, server) => new Wid(String(u).includes('@') ? u : u + '@' + (server || 'c.us'));
    ex.createUserWid = ex.createUserWidOrThrow;
    ex.isWidlike = (x) => x instanceof Wid || (!!x && typeof x === 'object' && typeof x._serialized === 'string' && 'server' in x);
    ex.createWidFromWidLike = (x) => new Wid(x._serialized);
    ex.asUserWidOrThrow = (w) => new Wid(w.user + '@' + w.server);
  });
  def('WAWebMsgKey', (require, ex) => {
    const Wid = require('WAWebWid').default;
    class MsgKey {
      constructor(o) {
        if (!o) throw new Error('MsgKey error: obj is null/undefined');
        const selfDir = o.selfDir;
        this.fromMe = o.fromMe !== undefined ? o.fromMe : selfDir === 'out';
        this.remote = o.remote || (this.fromMe ? o.to : o.from);
        this.id = o.id; this.participant = o.participant; this.self = selfDir;
        // minified property, as WA >= 2.3000.1042401057 (wa-js aliases it back to _serialized)
        this.$1 = [this.fromMe, this.remote, this.id].concat(this.participant ? [this.participant] : []).join('_');
      }
      toString() { return this.$1; }
      equals(o) { return !!o && String(o) === String(this); }
      static fromString(s) {
        const [fm, remote, id, participant] = String(s).split('_');
        return new MsgKey({ fromMe: fm === 'true', remote: new Wid(remote), id, participant: participant && new Wid(participant) });
      }
      static async newId() {
        const b = crypto.getRandomValues(new Uint8Array(9));
        return '3EB0' + [...b].map((x) => x.toString(16).padStart(2, '0')).join('').toUpperCase();
      }
    }
    ex.default = MsgKey;
  });
})();
