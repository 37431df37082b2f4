/* The login, kept where the real page keeps it.
 *
 * The noise key lies in localStorage (WANoiseInfo), encrypted under a CryptoKey in IndexedDB (wawc_db_enc); the linked
 * device's id (last-wid-md) in localStorage; the Signal identity in IndexedDB. Chromium writes IndexedDB at once and
 * localStorage late, so a killed browser loses a fresh login here as it does on the real page.
 *
 * Sources: the names are those of the real page's localStorage and IndexedDB; module names as in whatsapp-web.js. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);
  const random = (length) => crypto.getRandomValues(new Uint8Array(length));

  /** The stand-in's own: one object store per database, awaited until committed; messages with indexes, as they really have. */
  def('StandinDatabase', (require, exports) => {
    const STORES = {
      'signal-storage': 'signal-meta-store',
      wawc_db_enc: 'keys',
      'model-storage': 'message',
    };
    const INDEXES = { 'model-storage': ['internalId', 'stanzaId'] };
    const opened = {};
    const open = (name) =>
      new Promise((resolve, reject) => {
        const request = indexedDB.open(name, 2);
        request.onupgradeneeded = () => {
          const { result, transaction } = request;
          const known = result.objectStoreNames.contains(STORES[name]);
          const store = known ? transaction.objectStore(STORES[name]) : result.createObjectStore(STORES[name]);
          for (const field of INDEXES[name] || []) {
            if (!store.indexNames.contains(field)) store.createIndex(field, field);
          }
        };
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const run = async (name, mode, work) => {
      const database = await (opened[name] = opened[name] || open(name));
      return new Promise((resolve, reject) => {
        const transaction = database.transaction(STORES[name], mode);
        const request = work(transaction.objectStore(STORES[name]));
        transaction.oncomplete = () => resolve(request.result);
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
      });
    };
    /** The values of an index in a range, at most `count`; `skip` may name the key to go on from. */
    exports.list = async (name, index, range, { direction = 'next', count = Infinity, skip = () => undefined } = {}) => {
      const database = await (opened[name] = opened[name] || open(name));
      return new Promise((resolve, reject) => {
        const found = [];
        const store = database.transaction(STORES[name]).objectStore(STORES[name]);
        const request = store.index(index).openCursor(range, direction);
        request.onsuccess = () => {
          const cursor = request.result;
          if (!cursor || found.length >= count) return resolve(found);
          found.push(cursor.value);
          cursor.continue(skip(cursor.value));
        };
        request.onerror = () => reject(request.error);
      });
    };
    exports.get = (name, key) => run(name, 'readonly', (store) => store.get(key));
    exports.put = (name, key, value) => run(name, 'readwrite', (store) => store.put(value, key));
    exports.remove = (name, key) => run(name, 'readwrite', (store) => store.delete(key));
    exports.clear = (name) => run(name, 'readwrite', (store) => store.clear());
  });

  def('WAWebSignalStoreApi', (require, exports) => {
    const database = require('StandinDatabase');
    exports.waSignalStore = {
      async getRegistrationInfo() {
        const stored = await database.get('signal-storage', 'registration');
        if (stored) return stored;
        const fresh = {
          registrationId: 1 + Math.floor(Math.random() * 16000),
          identityKeyPair: { pubKey: random(32).buffer, privKey: random(32).buffer },
        };
        await database.put('signal-storage', 'registration', fresh);
        return fresh;
      },
      setRegistrationInfo: (info) => database.put('signal-storage', 'registration', info),
      clearCredential: () => database.clear('signal-storage'),
    };
  });

  def('WAWebUserPrefsInfoStore', (require, exports) => {
    const database = require('StandinDatabase');
    const { encodeB64, decodeB64 } = require('WABase64');
    const PARTS = ['privKey', 'pubKey', 'recoveryToken'];
    const read = (key) => JSON.parse(localStorage.getItem(key) || 'null');

    const encryptionKey = async () => {
      const stored = await database.get('wawc_db_enc', 1);
      if (stored) return stored.key;
      const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, false, ['encrypt', 'decrypt']);
      await database.put('wawc_db_enc', 1, { key });
      return key;
    };
    const info = ({ privKey, pubKey, recoveryToken }) => ({ recoveryToken, staticKeyPair: { pubKey, privKey } });

    exports.waNoiseInfo = {
      async get() {
        const encrypted = read('WANoiseInfo');
        const vectors = read('WANoiseInfoIv');
        if (!encrypted || !vectors) return this.generate();
        const key = await encryptionKey();
        const plain = {};
        for (const [index, part] of PARTS.entries()) {
          const algorithm = { name: 'AES-GCM', iv: decodeB64(vectors[index]) };
          plain[part] = await crypto.subtle.decrypt(algorithm, key, decodeB64(encrypted[part]));
        }
        return info(plain);
      },
      async generate() {
        const key = await encryptionKey();
        const plain = { privKey: random(32).buffer, pubKey: random(32).buffer, recoveryToken: random(16).buffer };
        const encrypted = {};
        const vectors = [];
        for (const part of PARTS) {
          const iv = random(12);
          vectors.push(encodeB64(iv));
          encrypted[part] = encodeB64(await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, plain[part]));
        }
        localStorage.setItem('WANoiseInfo', JSON.stringify(encrypted));
        localStorage.setItem('WANoiseInfoIv', JSON.stringify(vectors));
        localStorage.setItem('WAWebEncKeySalt', JSON.stringify(encodeB64(random(128))));
        return info(plain);
      },
      set: async () => {},
    };
  });

  def('WAWebUserPrefsMeUser', (require, exports) => {
    const { createWid } = require('WAWebWidFactory');
    const KEYS = ['last-wid-md', 'WALid', 'mobile-platform', 'WANoiseInfo', 'WANoiseInfoIv', 'WAWebEncKeySalt'];
    const read = (key) => JSON.parse(localStorage.getItem(key) || 'null');
    const wid = (key) => {
      const stored = read(key);
      return stored ? createWid(stored) : undefined;
    };
    const orThrow = (value, what) => {
      if (!value) throw new Error('no ' + what);
      return value;
    };

    const { missingMe } = self.__standin;
    const unless = (missing, value) => (missingMe.includes(missing) ? undefined : value);
    exports.getMaybeMeDevicePn = () => unless('device', wid('last-wid-md'));
    exports.getMaybeMePnUser = () => unless('phone', exports.standinMe());
    exports.getMaybeMeLidUser = () => unless('lid', wid('WALid'));
    exports.getMePnUserOrThrow = () => orThrow(exports.getMaybeMePnUser(), 'me user');
    exports.getMeLidUserOrThrow = () => orThrow(exports.getMaybeMeLidUser(), 'me lid');
    exports.isMeAccount = (other) =>
      [exports.getMaybeMePnUser(), exports.getMaybeMeLidUser()].some((me) => String(me) === String(other));

    /** The stand-in's own, as the names of the real ones aren't known; they know what the others may not. */
    exports.standinStore = ({ device, lid, platform }) => {
      localStorage.setItem('last-wid-md', JSON.stringify(device));
      localStorage.setItem('WALid', JSON.stringify(lid));
      localStorage.setItem('mobile-platform', JSON.stringify(platform));
    };
    exports.standinDevice = () => wid('last-wid-md');
    exports.standinMe = () => wid('last-wid-md')?.toUserWid();
    exports.standinLid = () => wid('WALid');
    exports.standinPlatform = () => read('mobile-platform');
    exports.standinClear = () => KEYS.forEach((key) => localStorage.removeItem(key));
  });

  def('WAWebUserPrefsMultiDevice', (require, exports) => {
    const { encodeB64 } = require('WABase64');
    exports.isRegistered = () => !!(localStorage.getItem('last-wid-md') && localStorage.getItem('WANoiseInfo'));
    exports.getADVSecretKey = () => localStorage.getItem('WAADVSecret') || exports.generateADVSecretKey();
    exports.generateADVSecretKey = () => {
      const secret = encodeB64(random(32));
      localStorage.setItem('WAADVSecret', secret);
      return secret;
    };
    exports.clearADVSecretKey = () => localStorage.removeItem('WAADVSecret');
  });

  def('WAWebUserPrefsIsLoggedIn', (require, exports) => {
    exports.isLoggedIn = () => require('WAWebUserPrefsMultiDevice').isRegistered();
  });

  def('WAWebAdvSignatureApi', (require, exports) => {
    exports.getADVSecretKey = require('WAWebUserPrefsMultiDevice').getADVSecretKey;
    exports.setADVSignedIdentity = () => {};
    exports.generateDeviceSignature = () => {};
  });

  def('WAWebCompanionRegClientUtils', (require, exports) => {
    exports.DEVICE_PLATFORM = 'CHROME';
  });
})();
