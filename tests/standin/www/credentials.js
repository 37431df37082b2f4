/* The login: noise key encrypted in localStorage under a CryptoKey in IndexedDB, as the real page keeps it.
 * Chromium writes localStorage late, so a killed browser can lose a fresh login here as it does there. */
(function () {
  'use strict';
  const ESM = 98; // what the real bundles pass as fourth argument: the factory writes ES exports
  const def = (id, fn) => __d(id, [], function (t, n, r, o, a, i, l) { fn(n, l, i); }, ESM);

  def('WAWebStandinIdb', (require, ex) => {
    const open = (name, store) => new Promise((ok, ko) => {
      const rq = indexedDB.open(name, 1);
      rq.onupgradeneeded = () => rq.result.createObjectStore(store);
      rq.onsuccess = () => ok(rq.result); rq.onerror = () => ko(rq.error);
    });
    const cache = {};
    const db = (n, s) => (cache[n] = cache[n] || open(n, s));
    const tx = async (n, s, mode, f) => {
      const d = await db(n, s);
      return new Promise((ok, ko) => {
        const t = d.transaction(s, mode);
        const rq = f(t.objectStore(s));
        t.oncomplete = () => ok(rq && rq.result); t.onerror = t.onabort = () => ko(t.error);
      });
    };
    ex.get = (n, s, k) => tx(n, s, 'readonly', (o) => o.get(k));
    ex.all = (n, s) => tx(n, s, 'readonly', (o) => o.getAll());
    ex.put = (n, s, k, v) => tx(n, s, 'readwrite', (o) => o.put(v, k));
    ex.clear = (n, s) => tx(n, s, 'readwrite', (o) => o.clear());
  });
  def('WAWebSignalStoreApi', (require, ex) => {
    const idb = require('WAWebStandinIdb');
    const rnd = (n) => crypto.getRandomValues(new Uint8Array(n)).buffer;
    ex.waSignalStore = {
      async getRegistrationInfo() {
        let r = await idb.get('signal-storage', 'signal-meta-store', 'reg');
        if (!r) { r = { registrationId: 1 + Math.floor(Math.random() * 16000), identityKeyPair: { pubKey: rnd(32), privKey: rnd(32) } }; await idb.put('signal-storage', 'signal-meta-store', 'reg', r); }
        return r;
      },
      setRegistrationInfo: (r) => idb.put('signal-storage', 'signal-meta-store', 'reg', r),
      clearCredential: () => idb.clear('signal-storage', 'signal-meta-store'),
    };
  });
  def('WAWebUserPrefsInfoStore', (require, ex) => {
    const idb = require('WAWebStandinIdb');
    const B = require('WABase64');
    const rnd = (n) => crypto.getRandomValues(new Uint8Array(n));
    const aesKey = async () => {
      let rec = await idb.get('wawc_db_enc', 'keys', 1);
      if (!rec) {
        rec = { key: await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, false, ['encrypt', 'decrypt']) };
        await idb.put('wawc_db_enc', 'keys', 1, rec); // CryptoKey, not extractable
      }
      return rec.key;
    };
    ex.waNoiseInfo = {
      async get() {
        const enc = JSON.parse(localStorage.getItem('WANoiseInfo') || 'null');
        const iv = JSON.parse(localStorage.getItem('WANoiseInfoIv') || 'null');
        if (!enc || !iv) return this.generate();
        const key = await aesKey(), out = {};
        for (const [i, k] of ['privKey', 'pubKey', 'recoveryToken'].entries()) {
          out[k] = await crypto.subtle.decrypt({ name: 'AES-GCM', iv: B.decodeB64(iv[i]) }, key, B.decodeB64(enc[k]));
        }
        return { recoveryToken: out.recoveryToken, staticKeyPair: { pubKey: out.pubKey, privKey: out.privKey } };
      },
      async generate() {
        const key = await aesKey(), plain = { privKey: rnd(32), pubKey: rnd(32), recoveryToken: rnd(16) }, enc = {}, iv = [];
        for (const k of ['privKey', 'pubKey', 'recoveryToken']) {
          const v = rnd(12); iv.push(B.encodeB64(v));
          enc[k] = B.encodeB64(await crypto.subtle.encrypt({ name: 'AES-GCM', iv: v }, key, plain[k]));
        }
        localStorage.setItem('WANoiseInfo', JSON.stringify(enc));
        localStorage.setItem('WANoiseInfoIv', JSON.stringify(iv));
        localStorage.setItem('WAWebEncKeySalt', JSON.stringify(B.encodeB64(rnd(128))));
        return { recoveryToken: plain.recoveryToken.buffer, staticKeyPair: { pubKey: plain.pubKey.buffer, privKey: plain.privKey.buffer } };
      },
      set: async () => {},
    };
  });
  def('WAWebUserPrefsMeUser', (require, ex) => {
    const { createWid } = require('WAWebWidFactory');
    const ls = (k) => { try { return JSON.parse(localStorage.getItem(k)); } catch (e) { return null; } };
    const user = (w) => (w ? createWid(w).toUserWid() : undefined);
    ex.__raw = () => { const d = ls('last-wid-md'); return d && localStorage.getItem('WANoiseInfo') ? { device: d, pn: String(user(d)), lid: ls('WALid'), platform: ls('mobile-platform') || 'android' } : null; };
    ex.setMe = (v) => { localStorage.setItem('last-wid-md', JSON.stringify(v.device)); localStorage.setItem('WALid', JSON.stringify(v.lid)); localStorage.setItem('mobile-platform', JSON.stringify(v.platform)); };
    ex.__clear = () => { for (const k of ['last-wid-md', 'WALid', 'WANoiseInfo', 'WANoiseInfoIv', 'WAWebEncKeySalt']) localStorage.removeItem(k); };
    ex.getMaybeMePnUser = () => user(ls('last-wid-md'));
    ex.getMaybeMeLidUser = () => (ls('WALid') ? createWid(ls('WALid')) : undefined);
    ex.getMeLidUserOrThrow = () => { const l = ex.getMaybeMeLidUser(); if (!l) throw new Error('no me lid'); return l; };
    ex.getMePnUserOrThrow = () => { const l = ex.getMaybeMePnUser(); if (!l) throw new Error('no me'); return l; };
    ex.getMaybeMeDevicePn = () => (ls('last-wid-md') ? createWid(ls('last-wid-md')) : undefined);
    ex.isMeAccount = (w) => [String(ex.getMaybeMePnUser()), String(ex.getMaybeMeLidUser())].includes(String(w));
  });
  def('WAWebUserPrefsMultiDevice', (require, ex) => {
    const B = require('WABase64');
    ex.isRegistered = () => !!require('WAWebUserPrefsMeUser').__raw();
    ex.getADVSecretKey = () => localStorage.getItem('WAADVSecret') || ex.generateADVSecretKey();
    ex.generateADVSecretKey = () => { const k = B.encodeB64(crypto.getRandomValues(new Uint8Array(32))); localStorage.setItem('WAADVSecret', k); return k; };
    ex.clearADVSecretKey = () => localStorage.removeItem('WAADVSecret');
  });
  def('WAWebUserPrefsIsLoggedIn', (require, ex) => { ex.isLoggedIn = () => require('WAWebUserPrefsMultiDevice').isRegistered(); });
  def('WAWebAdvSignatureApi', (require, ex) => { const M = require('WAWebUserPrefsMultiDevice'); ex.getADVSecretKey = M.getADVSecretKey; ex.setADVSignedIdentity = () => {}; ex.generateDeviceSignature = () => {}; });
  def('WAWebCompanionRegClientUtils', (require, ex) => { ex.DEVICE_PLATFORM = 'CHROME'; });
})();
