/* Late bundle: files. A file is made ready, shown as a message, uploaded, and then sent.
 *
 * Sources: the calls and predicates of wa-js 4.6.0's sendFileMessage, and the module names that whatsapp-web.js 1.34 uses.
 * The real page encrypts what it uploads and makes thumbnails; here neither is done. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);
  const MIB = 2 ** 20;
  const LIMITS = { image: 16 * MIB, audio: 16 * MIB, video: 16 * MIB, sticker: MIB }; // of others: 2 GiB

  def('WAWebMediaGatingUtils', (require, exports) => {
    exports.getUploadLimit = (type) => LIMITS[type] || 2048 * MIB;
  });

  def('WAWebMediaOpaqueData', (require, exports) => {
    class OpaqueData {
      #blob;
      constructor(blob) {
        this.#blob = blob;
      }
      static async createFromData(data, type) {
        return new OpaqueData(data instanceof Blob && data.type === type ? data : new Blob([data], { type }));
      }
      size() {
        return this.#blob.size;
      }
      type() {
        return this.#blob.type;
      }
      forceToBlob() {
        return this.#blob;
      }
      autorelease() {}
    }
    exports.default = OpaqueData;
    exports.createFromData = OpaqueData.createFromData;
  });

  def('WAWebPrepRawMedia', (require, exports) => {
    const { Msg } = require('WAWebMsgModel');
    /** What kind of message a file becomes: what cannot be shown is a document. */
    const kindOf = (type, { asDocument, asSticker, isPtt }) => {
      if (asDocument) return 'document';
      if (asSticker) return 'sticker';
      const [kind] = type.split('/');
      if (kind === 'audio') return isPtt ? 'ptt' : 'audio';
      return kind === 'image' || kind === 'video' ? kind : 'document';
    };

    class MediaPrep {
      constructor(type, data) {
        this.type = type;
        this.data = data;
      }
      async waitForPrep() {
        this.mediaData = { type: this.type, mimetype: this.data.type(), size: this.data.size() };
        return this.mediaData;
      }
      async sendToChat({ chat, options }) {
        const { type, mimetype, size } = await this.waitForPrep();
        const { filename } = options.productMsgOptions;
        const msg = new Msg({ ...options.productMsgOptions, type, mimetype, size, caption: options.caption || filename });
        return require('StandinMessages').send(chat, msg, () => this.#upload());
      }
      /** The server's id of the uploaded file. */
      async #upload() {
        const answer = await fetch('/upload', { method: 'POST', body: this.data.forceToBlob() });
        if (!answer.ok) throw Object.assign(new Error('upload: ' + answer.status), { upload: true });
        return (await answer.json()).id;
      }
    }
    exports.MediaPrep = MediaPrep;
    exports.prepRawMedia = (data, options) => new MediaPrep(kindOf(data.type(), options), data);
    exports.uploadProductImage = async () => {
      throw new Error('the stand-in has no catalog');
    };
  });
})();
