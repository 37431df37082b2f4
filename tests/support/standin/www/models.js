/* The event emitter, model and collection that everything on the page is made of.
 *
 * Sources: the calls that wa-js 4.6.0 and whatsapp-web.js 1.34 make on them (on, once, off, trigger, listenTo; props with
 * change:x events; get, add, find, getModelsArray). */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  def('WAWebEventEmitter', (require, exports) => {
    class EventEmitter {
      #listeners = new Map();
      on(names, callback, context) {
        if (typeof callback !== 'function') throw new Error('Callback parameter passed is not a function');
        for (const name of String(names).split(/\s+/)) {
          this.#listeners.set(name, [...(this.#listeners.get(name) || []), { callback, context }]);
        }
        return this;
      }
      once(names, callback, context) {
        const once = (...values) => {
          this.off(names, once);
          return callback.apply(context, values);
        };
        once.original = callback;
        return this.on(names, once, context);
      }
      off(names, callback) {
        if (!names) this.#listeners.clear();
        for (const name of names ? String(names).split(/\s+/) : []) {
          const others = (this.#listeners.get(name) || []).filter(
            (listener) => callback && listener.callback !== callback && listener.callback.original !== callback,
          );
          this.#listeners.set(name, others);
        }
        return this;
      }
      trigger(name, ...values) {
        for (const { callback, context } of this.#listeners.get(name) || []) callback.apply(context || this, values);
        for (const { callback, context } of this.#listeners.get('all') || []) callback.call(context || this, name, ...values);
        return this;
      }
      listenTo(other, names, callback) {
        other.on(names, callback, this);
        return this;
      }
      stopListening() {
        return this;
      }
    }
    exports.default = EventEmitter;
  });

  def('WAWebBaseModel', (require, exports) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    /** A subclass names its properties, with their defaults, in `props`; each change of one triggers `change:name`. */
    class BaseModel extends EventEmitter {
      #values = {};
      constructor(attributes = {}) {
        super();
        const props = this.constructor.props || {};
        for (const [name, value] of Object.entries(props)) {
          this.#values[name] = value;
          Object.defineProperty(this, name, {
            enumerable: true,
            configurable: true,
            get: () => this.#values[name],
            set: (changed) => this.#change(name, changed),
          });
        }
        for (const [name, value] of Object.entries(attributes)) {
          if (name in props) this.#values[name] = value;
          else this[name] = value;
        }
        this.initialize?.();
      }
      #change(name, value) {
        const previous = this.#values[name];
        if (previous === value) return;
        this.#values[name] = value;
        for (const listener of [this, this.collection]) {
          listener?.trigger('change:' + name, this, value, previous);
          listener?.trigger('change', this);
        }
      }
      set(values) {
        return Object.assign(this, values);
      }
      serialize() {
        return { ...this.#values };
      }
      toJSON() {
        return this.serialize();
      }
    }
    exports.BaseModel = BaseModel;
    exports.defineModel = (model) => model;
  });

  def('WAWebCollection', (require, exports) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    const keyOf = (id) => String(id?._serialized ?? id);
    /** A subclass names its models' class in `model`. */
    class Collection extends EventEmitter {
      #models = new Map();
      constructor() {
        super();
        if (!this.constructor.model) throw new Error('Collection initialized without model');
      }
      get(id) {
        return id ? this.#models.get(keyOf(id)) : undefined;
      }
      assertGet(id) {
        const found = this.get(id);
        if (!found) throw new Error('not found');
        return found;
      }
      async find(id) {
        return this.get(id);
      }
      /** Adds models, or attributes to make them of; returns them, or those of the same id that were there. */
      add(list) {
        return [list].flat().map((item) => {
          const known = this.get(item.id);
          if (known) return known;
          const model = item instanceof this.constructor.model ? item : new this.constructor.model(item);
          model.collection = this;
          this.#models.set(keyOf(model.id), model);
          this.trigger('add', model, this);
          return model;
        });
      }
      remove(id) {
        const model = this.get(id);
        if (!model) return;
        this.#models.delete(keyOf(id));
        this.trigger('remove', model);
      }
      reset() {
        this.#models.clear();
        this.trigger('reset');
      }
      getModelsArray() {
        return [...this.#models.values()];
      }
      forEach(visit) {
        this.getModelsArray().forEach(visit);
      }
      map(change) {
        return this.getModelsArray().map(change);
      }
      filter(test) {
        return this.getModelsArray().filter(test);
      }
      findFirst(test) {
        return this.getModelsArray().find(test);
      }
      get length() {
        return this.#models.size;
      }
    }
    exports.default = Collection;
    exports.Collection = Collection;
  });
})();
