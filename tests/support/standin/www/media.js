/* Late bundle: files. A file is made ready, shown as a message, encrypted, uploaded, and then sent; one that was received is
 * downloaded and decrypted when a client asks for it.
 *
 * Sources: the calls and predicates of wa-js 4.6.0's sendFileMessage and downloadMedia, the module names that whatsapp-web.js
 * 1.34 uses, and for the encryption files.py. The real page makes thumbnails of what it sends; here none are made. */
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

  /** The stand-in's own: encryption and hashes; keys and hashes are Base64. */
  def('StandinMediaCrypto', (require, exports) => {
    const { encodeB64, decodeB64 } = require('WABase64');
    const MAC_SIZE = 10;
    const KINDS = { sticker: 'Image', ptt: 'Audio' };
    const expand = async (mediaKey, type) => {
      const kind = KINDS[type] || type[0].toUpperCase() + type.slice(1);
      const info = new TextEncoder().encode(`WhatsApp ${kind} Keys`);
      const key = await crypto.subtle.importKey('raw', mediaKey, 'HKDF', false, ['deriveBits']);
      const algorithm = { name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(32), info };
      const bits = new Uint8Array(await crypto.subtle.deriveBits(algorithm, key, 8 * 112));
      const usages = ['encrypt', 'decrypt'];
      return {
        iv: bits.slice(0, 16),
        cipher: await crypto.subtle.importKey('raw', bits.slice(16, 48), 'AES-CBC', false, usages),
        mac: await crypto.subtle.importKey('raw', bits.slice(48, 80), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']),
      };
    };
    const macOf = async ({ iv, mac }, encrypted) =>
      new Uint8Array(await crypto.subtle.sign('HMAC', mac, await new Blob([iv, encrypted]).arrayBuffer())).slice(0, MAC_SIZE);
    exports.hash = async (data) => encodeB64(await crypto.subtle.digest('SHA-256', data));

    exports.encrypt = async (data, type) => {
      const mediaKey = crypto.getRandomValues(new Uint8Array(32));
      const keys = await expand(mediaKey, type);
      const encrypted = await crypto.subtle.encrypt({ name: 'AES-CBC', iv: keys.iv }, keys.cipher, data);
      const body = await new Blob([encrypted, await macOf(keys, encrypted)]).arrayBuffer();
      return { mediaKey: encodeB64(mediaKey), body };
    };
    exports.decrypt = async (body, type, mediaKey) => {
      const keys = await expand(decodeB64(mediaKey), type);
      const encrypted = body.slice(0, -MAC_SIZE);
      if (encodeB64(await macOf(keys, encrypted)) !== encodeB64(body.slice(-MAC_SIZE))) throw new Error('the MAC is wrong');
      return crypto.subtle.decrypt({ name: 'AES-CBC', iv: keys.iv }, keys.cipher, encrypted);
    };
  });

  def('WAWebLruMediaStore', (require, exports) => {
    const files = new Map(); // the real one keeps them on disk
    exports.LruMediaStore = {
      get: async (filehash) => files.get(filehash) ?? null,
      put: async (filehash, data) => void files.set(filehash, data),
      del: async (filehash) => void files.delete(filehash),
      clear: async () => files.clear(),
      count: async () => files.size,
      has: async (filehash) => files.has(filehash),
    };
  });

  def('WAWebMediaInMemoryBlobCache', (require, exports) => {
    class InMemoryMediaBlobCacheImpl {
      has() {
        return false; // it has the files of open chats
      }
    }
    exports.InMemoryMediaBlobCacheImpl = InMemoryMediaBlobCacheImpl;
    exports.InMemoryMediaBlobCache = new InMemoryMediaBlobCacheImpl();
  });

  /** The stand-in's own: downloads. */
  def('StandinFiles', (require, exports) => {
    const { decrypt, hash } = require('StandinMediaCrypto');
    const { LruMediaStore } = require('WAWebLruMediaStore');
    exports.describe = ({ type, mimetype, size, filehash }) => ({ type, mimetype, size, filehash, mediaStage: 'NEED_POKE' });
    exports.download = async ({ mediaData, type, directPath, mediaKey, filehash, encFilehash }) => {
      mediaData.mediaStage = 'FETCHING';
      // Without a path there is a description only.
      const answer = directPath && (await fetch(location.origin + directPath));
      if (!answer || answer.status === 404 || answer.status === 410) {
        mediaData.mediaStage = 'ERROR_MISSING'; // the real page asks the phone for it first
        return;
      }
      if (!answer.ok) throw new Error('download: ' + answer.status);
      const body = await answer.arrayBuffer();
      if ((await hash(body)) !== encFilehash) throw new Error('the encrypted file has another hash');
      const data = await decrypt(body, mediaData.type, mediaKey);
      if ((await hash(data)) !== filehash) throw new Error('the file has another hash');
      await LruMediaStore.put(filehash, data);
      mediaData.mediaStage = 'RESOLVED';
    };
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
        return require('StandinMessages').send(chat, msg, (sent) => this.#upload(sent));
      }
      /** Encrypts and uploads the file; returns what the message says of it, and notes that in the model. */
      async #upload(msg) {
        const { encrypt, hash } = require('StandinMediaCrypto');
        const data = await this.data.forceToBlob().arrayBuffer();
        const { mediaKey, body } = await encrypt(data, this.type);
        const answer = await fetch('/mms/' + this.type, { method: 'POST', body });
        if (!answer.ok) throw Object.assign(new Error('upload: ' + answer.status), { upload: true });
        const { direct_path: directPath } = await answer.json();
        msg.set({ mediaKey, directPath, filehash: await hash(data), encFilehash: await hash(body) });
        const { filehash, encFilehash } = msg;
        return { direct_path: directPath, media_key: mediaKey, filehash, enc_filehash: encFilehash };
      }
    }
    exports.MediaPrep = MediaPrep;
    exports.prepRawMedia = (data, options) => new MediaPrep(kindOf(data.type(), options), data);
    exports.uploadProductImage = async () => {
      throw new Error('the stand-in has no catalog');
    };
  });
})();
