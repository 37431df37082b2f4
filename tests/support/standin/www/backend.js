/* Late bundle, the stand-in's own: the page's side of the stand-in's server, and the page's start.
 *
 * It moves the real modules' state as the real page does: 6 QRs that rotate and then UNPAIRED_IDLE; pair-success, then 515
 * and a new connection that logs in; SYNCING, then MAIN; a dropped connection comes back by itself; a logout clears the
 * login and goes to /?post_logout=1&logout_reason=N, and the next start strips these markers from the URL. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);
  const FIRST_BACKOFF = 250; // ms
  const LONGEST_BACKOFF = 8000;
  const LOGOUT_PATIENCE = 3000; // the real page waits that long for the server before it logs out anyway
  const FAILURES = { UNLINKED: 401, TEMPORARY_BAN: 402, LOCKED: 403 };

  def('StandinBackend', (require, exports) => {
    const { Socket } = require('WAWebSocketModel');
    const { Stream } = require('WAWebStreamModel');
    const { Conn } = require('WAWebConnModel');
    const { Cmd } = require('WAWebCmd');
    const { BackendEventBus } = require('WAWebBackendEventBus');
    const { WAWebLinkDeviceEvents } = require('WAWebLinkDeviceEvents');
    const { createWid } = require('WAWebWidFactory');
    const { encodeB64 } = require('WABase64');
    const Me = require('WAWebUserPrefsMeUser');
    const { isRegistered } = require('WAWebUserPrefsMultiDevice');
    const database = require('StandinDatabase');

    let socket = null;
    let backoff = FIRST_BACKOFF;
    let restarting = false; // the server has asked for a new connection
    let stopped = false; // no connection is tried again: conflict, block, logout
    let refs = [];
    let refTimer = null;
    let progress = 0;
    let lastCall = 0;
    const calls = new Map();
    const { reloadMs, missingMe } = self.__standin;
    const connWid = (wid) => (missingMe.includes('conn') ? undefined : wid);

    const setState = (state) => {
      Socket.state = state;
      BackendEventBus.triggerSetSocketState(state);
    };
    const stop = (state) => {
      stopped = true;
      setState(state);
    };

    // --- connection ---------------------------------------------------------------------------------------------------

    exports.send = (message) => {
      if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    };
    /** Asks the server; `error.refused` tells its refusal from a lost connection. */
    exports.call = (args) =>
      new Promise((resolve, reject) => {
        if (socket?.readyState !== WebSocket.OPEN) return reject(new Error('not connected'));
        const id = ++lastCall;
        calls.set(id, { resolve, reject });
        exports.send({ t: 'call', id, args });
      });

    const connect = async () => {
      if (stopped) return;
      setState('OPENING');
      const noise = await require('WAWebUserPrefsInfoStore').waNoiseInfo.get();
      const device = Me.standinDevice();
      const opened = new WebSocket(location.origin.replace(/^http/, 'ws') + '/ws/chat');
      socket = opened;
      opened.onopen = () =>
        exports.send({
          t: 'hello',
          noise: encodeB64(noise.staticKeyPair.pubKey),
          me: isRegistered() ? { device: String(device) } : null,
        });
      let queue = Promise.resolve(); // one message after the other, whatever each awaits
      opened.onmessage = (event) => {
        const message = JSON.parse(event.data);
        queue = queue.then(() => on[message.t](message)).catch(failed);
      };
      opened.onclose = () => {
        if (socket === opened) disconnected();
      };
    };
    /** Whatever is thrown into the page's own work, by listeners too, is told to the server. */
    const failed = (error) => {
      console.error('stand-in', error);
      exports.send({ t: 'page-error', detail: String(error?.stack || error) });
    };
    const disconnected = () => {
      for (const call of calls.values()) call.reject(new Error('connection lost'));
      calls.clear();
      clearTimeout(refTimer);
      if (stopped) return;
      Socket.stream = 'DISCONNECTED';
      if (isRegistered()) setState('OPENING');
      setTimeout(connect, restarting ? 0 : backoff);
      if (!restarting) backoff = Math.min(backoff * 2, LONGEST_BACKOFF);
      restarting = false;
    };
    exports.takeover = () => {
      stopped = false;
      Socket.hasSynced = false;
      return connect();
    };
    exports.syncProgress = () => progress;

    // --- QR -----------------------------------------------------------------------------------------------------------

    const showRef = (ttl, nextTtl) => {
      clearTimeout(refTimer);
      const ref = refs.shift();
      if (ref === undefined) {
        Conn.ref = undefined;
        setState('UNPAIRED_IDLE');
        return;
      }
      Conn.refTTL = ttl;
      Conn.ref = ref;
      refTimer = setTimeout(() => showRef(nextTtl, nextTtl), ttl);
    };
    exports.refreshQR = () => {
      if (Socket.state === 'UNPAIRED' || Socket.state === 'UNPAIRED_IDLE') exports.send({ t: 'want-refs' });
    };

    // --- logout -------------------------------------------------------------------------------------------------------

    exports.clearAndReload = async (reason) => {
      stopped = true;
      const code = require('WAWebLogoutReason').getErrorCodeFromLogoutReason(reason);
      Me.standinClear();
      await require('WAWebSignalStoreApi').waSignalStore.clearCredential();
      await database.clear('model-storage');
      setTimeout(() => location.assign('/?post_logout=1' + (code === null ? '' : '&logout_reason=' + code)), 0);
    };
    exports.logout = async (reason) => {
      localStorage.removeItem('WANoiseInfo'); // the real page does this first of all
      localStorage.removeItem('WAWebEncKeySalt');
      BackendEventBus.triggerStartingLogout();
      const patience = new Promise((resolve) => setTimeout(resolve, LOGOUT_PATIENCE));
      await Promise.race([exports.call({ op: 'remove-companion-device' }).catch(() => {}), patience]);
      await exports.clearAndReload(reason);
      BackendEventBus.triggerLogout();
    };
    const loggedOut = async (reason) => {
      BackendEventBus.triggerStartingLogout();
      await exports.clearAndReload(reason);
      BackendEventBus.triggerLogout();
    };

    // --- what the server says -----------------------------------------------------------------------------------------

    const answer = (id, settle) => {
      const call = calls.get(id);
      calls.delete(id);
      if (call) settle(call);
    };
    const on = {
      result: ({ id, value }) => answer(id, (call) => call.resolve(value)),
      error: ({ id, detail }) => answer(id, (call) => call.reject(Object.assign(new Error(detail), { refused: true }))),

      refs: (message) => {
        backoff = FIRST_BACKOFF;
        refs = message.refs;
        setState('UNPAIRED');
        showRef(message.first_ms, message.next_ms);
      },
      'primary-hello': () => WAWebLinkDeviceEvents.triggerPrimaryHelloReceived(),
      passkey: ({ challenge }) => require('WAWebShortcakeLinkingApi').standinRequested(challenge),
      'pair-success': async (message) => {
        clearTimeout(refTimer);
        setState('PAIRING');
        Conn.ref = undefined;
        Me.standinStore(message); // localStorage: on disk later
        await database.put('signal-storage', 'adv', { device: message.device }); // IndexedDB: on disk now
        Conn.set({ wid: connWid(createWid(message.pn)), platform: message.platform, connected: true });
        exports.send({ t: 'pair-confirm' });
      },
      'stream-error': () => (restarting = true), // 515: the server closes, and a new connection logs in at once

      success: (message) => {
        backoff = FIRST_BACKOFF;
        progress = 0;
        setState('CONNECTED');
        Socket.stream = 'SYNCING';
        BackendEventBus.triggerTemporaryBan({ banned: false });
        Conn.set({
          wid: connWid(createWid(message.pn)),
          pushname: message.pushname,
          platform: message.platform,
          connected: true,
        });
        if (!Cmd.isMainLoaded) Cmd.mainLoaded();
      },
      'sync-progress': ({ percent }) => {
        progress = percent;
        Cmd.onOfflineProgressUpdateFromBridge();
      },
      synced: async ({ chats, contacts, lids }) => {
        progress = 100;
        for (const [lid, phone] of lids) require('WAWebLidPnCache').standinLearn(lid, phone);
        const { ContactCollection } = require('WAWebContactCollection');
        for (const { id, name } of contacts) ContactCollection.add({ id: createWid(id), name });
        const { ChatCollection } = require('WAWebChatCollection');
        const { GroupMetadataCollection } = require('WAWebGroupMetadataCollection');
        for (const { id, name, t } of chats) {
          const [chat] = ChatCollection.add({ id: createWid(id), name, t });
          if (chat.id.isGroup()) GroupMetadataCollection.add({ id: chat.id, subject: name });
        }
        await require('StandinMessages').restoreChats();
        BackendEventBus.triggerMainStreamModeReady();
        Socket.hasSynced = true;
        Socket.stream = 'CONNECTED';
        require('StandinPresence').loggedIn();
      },
      stanza: async ({ number, body }) => {
        const { receive, receiveReceipt } = require('StandinMessages');
        const own = { message: receive, receipt: receiveReceipt, odd: require('StandinOdd').receive };
        const handle = own[body.t] || require('StandinChanges')[body.t];
        const confirm = () => exports.send({ t: 'got', number });
        if (self.__standin.confirm === 'received') confirm();
        try {
          await handle(body);
        } catch (error) {
          failed(error);
        }
        if (self.__standin.confirm === 'stored') confirm();
      },
      'offline-end': () => BackendEventBus.triggerOfflineDeliveryEnd(),

      failure: ({ reason, code, expire }) => {
        if (reason === FAILURES.TEMPORARY_BAN) BackendEventBus.triggerTemporaryBan({ banned: true, code, expire });
        else return loggedOut(reason === FAILURES.LOCKED ? 'account_locked' : 'unknown_companion');
      },
      storage: () => BackendEventBus.triggerStorageInitializationError(new Error('storage')),
      replaced: () => stop('CONFLICT'),
      proxy: () => stop('PROXYBLOCK'),
      tos: () => stop('TOS_BLOCK'),
      smb_tos: () => stop('SMB_TOS_BLOCK'),
      outdated: () => {
        Stream.needsUpdate = 'DEPRECATED';
        stop('DEPRECATED_VERSION');
      },
    };

    exports.boot = async () => {
      if (reloadMs) setTimeout(() => location.reload(), reloadMs);
      if (location.search.includes('post_logout')) history.replaceState(null, '', '/');
      if (isRegistered()) Conn.set({ wid: connWid(Me.standinMe()), platform: Me.standinPlatform() });
      require('StandinScreen').start();
      try {
        await database.get('model-storage', 'any');
      } catch (error) {
        BackendEventBus.triggerStorageInitializationError(error);
        return;
      }
      await require('StandinContexts').start();
      await connect();
      if (self.__standin.debugGlobal) {
        // The real page sets it late, behind a gatekeeper; wa-js makes its own where it is missing.
        const VERSION = require('WAWebUpdaterVersion').SANITIZED_VERSION_STR;
        setTimeout(() => (self.Debug = { ...self.Debug, VERSION }), 300);
      }
    };
  });

  requireLazy(['StandinBackend', 'StandinScreen', 'StandinMessages', 'WAWebChatCollection'], (backend) => backend.boot());
})();
