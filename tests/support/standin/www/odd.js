/* Late bundle, the stand-in's own: messages, contacts and chats with fields that none should have.
 *
 * What WhatsApp's models really hold changes from release to release; a client must live with whatever it meets there. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  def('StandinOdd', (require, exports) => {
    const { createWid } = require('WAWebWidFactory');
    const MsgKey = require('WAWebMsgKey');

    /** JSON with `$wid` and `$key` for WhatsApp's ids, `$utf16` for any text at all, and `$absent`. */
    const value = (json) => {
      if (json === null || typeof json !== 'object') return json;
      if (Array.isArray(json)) return json.map(value);
      if ('$absent' in json) return undefined;
      if ('$utf16' in json) return String.fromCharCode(...json.$utf16);
      if ('$wid' in json) return createWid(json.$wid);
      const fields = (object) => Object.fromEntries(Object.entries(object).map(([name, field]) => [name, value(field)]));
      return '$key' in json ? new MsgKey(fields(json.$key)) : fields(json);
    };
    /** Sets a model's fields; one that is `$throws` can't be read. */
    exports.change = (model, fields) => {
      for (const [name, json] of Object.entries(fields)) {
        const get = () => {
          throw new Error(json.$throws);
        };
        if (json?.$throws) Object.defineProperty(model, name, { get, configurable: true });
        else model[name] = value(json);
      }
      return model;
    };
    exports.receive = ({ kind, id, fields }) => {
      const [Model, collection] =
        kind === 'contact'
          ? [require('WAWebContactModel').Contact, require('WAWebContactCollection').ContactCollection]
          : [require('WAWebChatModel').Chat, require('WAWebChatCollection').ChatCollection];
      collection.add(exports.change(new Model({ id: createWid(id), name: kind }), fields));
    };
  });
})();
