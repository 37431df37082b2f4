/* The event emitter, model and collection that everything on the page is made of (the surface wa-js listens on). */
(function () {
  'use strict';
  const ESM = 98; // what the real bundles pass as fourth argument: the factory writes ES exports
  const def = (id, fn) => __d(id, [], function (t, n, r, o, a, i, l) { fn(n, l, i); }, ESM);

  def('WAWebEventEmitter', (require, ex) => {
    class EventEmitter {
      _h(n) { const m = (this.__h = this.__h || Object.create(null)); return (m[n] = m[n] || []); }
      on(names, cb, ctx) {
        if (typeof cb !== 'function') throw new Error('Callback parameter passed is not a function');
        for (const n of String(names).split(/\s+/)) this._h(n).push({ cb, ctx });
        return this;
      }
      once(names, cb, ctx) {
        const w = (...a) => { this.off(names, w); return cb.apply(ctx, a); };
        w.orig = cb; return this.on(names, w, ctx);
      }
      off(names, cb) {
        if (!names) { this.__h = {}; return this; }
        for (const n of String(names).split(/\s+/)) {
          const m = this._h(n);
          this.__h[n] = cb ? m.filter((x) => x.cb !== cb && x.cb.orig !== cb) : [];
        }
        return this;
      }
      trigger(name, ...args) {
        for (const x of this._h(name).slice()) x.cb.apply(x.ctx || this, args);
        if (name !== 'all') for (const x of this._h('all').slice()) x.cb.apply(x.ctx || this, [name, ...args]);
        return this;
      }
      listenTo(o, n, cb) { o.on(n, cb, this); return this; }
      stopListening() { return this; }
    }
    ex.default = EventEmitter;
  });
  def('WAWebBaseModel', (require, ex) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    class BaseModel extends EventEmitter {
      constructor(attrs) {
        super();
        Object.defineProperty(this, '_v', { value: {}, enumerable: false });
        const props = this.constructor.props || {};
        for (const k of Object.keys(props)) {
          this._v[k] = props[k];
          Object.defineProperty(this, k, {
            enumerable: true, configurable: true,
            get() { return this._v[k]; },
            set(val) {
              const prev = this._v[k];
              if (prev === val) return;
              this._v[k] = val;
              this.trigger('change:' + k, this, val, prev);
              this.trigger('change', this);
              if (this.collection) {
                this.collection.trigger('change:' + k, this, val, prev);
                this.collection.trigger('change', this);
              }
            },
          });
        }
        if (attrs) for (const k of Object.keys(attrs)) {
          if (k in props) this._v[k] = attrs[k]; else this[k] = attrs[k];
        }
        if (this.initialize) this.initialize();
      }
      set(o) { for (const k of Object.keys(o)) this[k] = o[k]; return this; }
      serialize() { return { ...this._v }; }
      toJSON() { return this.serialize(); }
    }
    ex.BaseModel = BaseModel;
    ex.defineModel = (c) => c;
  });
  def('WAWebCollection', (require, ex) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    class Collection extends EventEmitter {
      constructor() {
        super();
        if (!this.constructor.model) throw new Error('Collection initialized without model');
        this._m = new Map();
      }
      _key(id) { return String(id && id._serialized !== undefined ? id._serialized : id); }
      get(id) { return id ? this._m.get(this._key(id)) : undefined; }
      assertGet(id) { const m = this.get(id); if (!m) throw new Error('not found'); return m; }
      add(list) {
        const out = [];
        for (let m of Array.isArray(list) ? list : [list]) {
          if (!(m instanceof this.constructor.model)) m = new this.constructor.model(m);
          const k = this._key(m.id);
          if (this._m.has(k)) { out.push(this._m.get(k)); continue; }
          m.collection = this; this._m.set(k, m); out.push(m);
          this.trigger('add', m, this);
        }
        return out;
      }
      remove(id) { const m = this.get(id); if (m) { this._m.delete(this._key(id)); this.trigger('remove', m); } }
      reset() { this._m.clear(); this.trigger('reset'); }
      getModelsArray() { return [...this._m.values()]; }
      forEach(f) { this.getModelsArray().forEach(f); }
      map(f) { return this.getModelsArray().map(f); }
      filter(f) { return this.getModelsArray().filter(f); }
      findFirst(f) { return this.getModelsArray().find(f); }
      get length() { return this._m.size; }
      async find(id) { return this.get(id); }
    }
    ex.default = Collection;
    ex.Collection = Collection;
  });
})();
