/* Late bundle: the page's side of the stand-in's server, in JSON where the real page speaks Noise and protobuf. */
(function () {
  'use strict';
  const ESM = 98; // what the real bundles pass as fourth argument: the factory writes ES exports
  const def = (id, fn) => __d(id, [], function (t, n, r, o, a, i, l) { fn(n, l, i); }, ESM);

  def('WAWebStandinBackend', (require, ex) => {
    const { Socket } = require('WAWebSocketModel');
    const { Stream } = require('WAWebStreamModel');
    const { Conn } = require('WAWebConnModel');
    const { Cmd } = require('WAWebCmd');
    const { BackendEventBus } = require('WAWebBackendEventBus');
    const Me = require('WAWebUserPrefsMeUser');
    const idb = require('WAWebStandinIdb');
    const B = require('WABase64');
    const { createWid } = require('WAWebWidFactory');
    const MsgKey = require('WAWebMsgKey').default;
    let ws = null, refs = [], refTimer = null, seq = 0, backoff = 250, loggingOut = false, stopped = false;
    const pending = new Map();
    const cfg = self.__standin || {};
    const FIRST_REF = cfg.firstRefMs || 60000, NEXT_REF = cfg.nextRefMs || 20000;

    const setState = (s) => { Socket.state = s; BackendEventBus.trigger('set_socket_state', s); };
    const send = (o) => ws && ws.readyState === 1 && ws.send(JSON.stringify(o));
    ex.rpc = (op, args) => new Promise((ok, ko) => {
      if (!ws || ws.readyState !== 1) return ko(new Error('socket not open'));
      const id = ++seq; pending.set(id, { ok, ko }); send({ t: 'rpc', id, op, args });
    });
    const nextRef = (first) => {
      clearTimeout(refTimer);
      const ref = refs.shift();
      if (!ref) { Conn.ref = undefined; setState('UNPAIRED_IDLE'); return; }
      Conn.refTTL = first ? FIRST_REF : NEXT_REF; Conn.ref = ref;
      ui();
      refTimer = setTimeout(() => nextRef(false), Conn.refTTL);
    };
    ex.refreshQR = () => { if (Socket.state.startsWith('UNPAIRED')) { setState('UNPAIRED'); send({ t: 'want-refs' }); } };
    ex.linkCode = async (phone) => {
      const reg = await require('WAWebSignalStoreApi').waSignalStore.getRegistrationInfo();
      const noise = await require('WAWebUserPrefsInfoStore').waNoiseInfo.get();
      const r = await ex.rpc('link-code', { phone, noise: B.encodeB64(noise.staticKeyPair.pubKey), identity: B.encodeB64(reg.identityKeyPair.pubKey) });
      return r.code;
    };
    ex.takeover = () => { stopped = false; Socket.hasSynced = false; return ex.connect(); };
    ex.connect = async () => {
      if (stopped) return;
      const me = Me.__raw();
      const noise = await require('WAWebUserPrefsInfoStore').waNoiseInfo.get();
      setState('OPENING');
      ws = new WebSocket((location.protocol === 'https:' ? 'wss://' : 'ws://') + location.host + '/ws/chat');
      ws.onopen = () => send({ t: 'hello', me, noise: B.encodeB64(noise.staticKeyPair.pubKey), version: require('WAWebUpdaterVersion').SANITIZED_VERSION_STR });
      ws.onmessage = (e) => onMessage(JSON.parse(e.data)).catch((err) => console.error('standin', err));
      ws.onclose = () => {
        for (const p of pending.values()) p.ko(new Error('socket closed'));
        pending.clear(); clearTimeout(refTimer);
        if (loggingOut || stopped) return;
        Socket.stream = 'DISCONNECTED';
        if (Me.__raw()) setState('OPENING'); // the real page goes back to OPENING and retries
        setTimeout(ex.connect, backoff); backoff = Math.min(backoff * 2, 8000);
      };
    };
    async function onMessage(m) {
      if (m.t === 'rpc-ok') { const p = pending.get(m.id); pending.delete(m.id); p && p.ok(m.r); return; }
      if (m.t === 'rpc-err') { const p = pending.get(m.id); pending.delete(m.id); p && p.ko(new Error(m.e)); return; }
      backoff = 250;
      if (m.t === 'refs') { refs = m.refs.slice(); setState('UNPAIRED'); nextRef(true); return; }
      if (m.t === 'pair-success') {
        clearTimeout(refTimer); setState('PAIRING'); Conn.ref = undefined;
        Me.setMe({ lid: m.lid, device: m.device, platform: m.platform });           // localStorage: durable later
        await idb.put('signal-storage', 'signal-meta-store', 'adv', { device: m.device }); // IndexedDB: commit awaited
        Conn.set({ wid: createWid(m.pn), platform: m.platform, connected: true });
        send({ t: 'pair-confirm', device: m.device });
        return; // the server closes with 515 "restart required", then we log in
      }
      if (m.t === 'passkey') { BackendEventBus.trigger('passkey_required'); return; } // (a guess, see README)
      if (m.t === 'stream-error') {
        if (m.code === 401) return void (async () => { loggingOut = true; BackendEventBus.triggerStartingLogout(); await ex.clearAndReload('unknown_companion'); BackendEventBus.triggerLogout(); })();
        if (m.code === 'replaced') { stopped = true; setState('CONFLICT'); ui(); return; }
        if (m.code === 'outdated') { stopped = true; Stream.needsUpdate = 'DEPRECATED'; setState('DEPRECATED_VERSION'); return; }
        if (m.code === 'proxy') { stopped = true; setState('PROXYBLOCK'); return; }
        if (m.code === 'tos') { stopped = true; setState('TOS_BLOCK'); return; }
        if (m.code === 'banned') { BackendEventBus.triggerTemporaryBan({ code: m.code }); return; }
        return;
      }
      if (m.t === 'success') {
        setState('CONNECTED'); Socket.stream = 'SYNCING';
        Conn.set({ wid: createWid(m.pn), pushname: m.pushname, platform: m.platform, connected: true });
        ui();
        if (!Cmd.isMainLoaded) { Cmd.mainLoaded(); }
        return;
      }
      if (m.t === 'offline-done') {
        const { ChatCollection } = require('WAWebChatCollection');
        for (const c of m.chats || []) ChatCollection.add({ id: createWid(c.id), name: c.name, t: c.t, unreadCount: c.unread || 0 });
        BackendEventBus.triggerMainStreamModeReady(); Socket.hasSynced = true; Socket.stream = 'CONNECTED'; ui();
        return;
      }
      if (m.t === 'message') {
        const { ChatCollection } = require('WAWebChatCollection');
        const { MsgCollection } = require('WAWebMsgCollection');
        const from = createWid(m.from), to = createWid(Me.__raw().pn);
        const chat = ChatCollection.get(from) || ChatCollection.add({ id: from })[0];
        const { Msg } = require('WAWebMsgModel');
        const msg = new Msg({ id: new MsgKey({ fromMe: false, remote: from, id: m.id }), body: m.body, type: 'chat', t: m.ts, from, to, self: 'in', isNewMsg: true, notifyName: m.name });
        chat.msgs.add(msg); chat.unreadCount += 1; chat.t = m.ts;
        await MsgCollection.processMultipleMessages(from, [msg]);
        await idb.put('model-storage', 'message', String(msg.id), { id: String(msg.id), body: m.body, t: m.ts });
        send({ t: 'receipt', id: m.id });
        return;
      }
      if (m.t === 'receipt') {
        const { MsgCollection } = require('WAWebMsgCollection');
        const { handleChatSimpleReceipt } = require('WAWebHandleDirectChatReceipt');
        for (const msg of MsgCollection.getModelsArray()) if (msg.id.id === m.id) msg.ack = m.ack;
        await handleChatSimpleReceipt({ ack: m.ack, ackString: m.ack === 3 ? 'read' : 'delivery', from: createWid(m.from), externalIds: [m.id] });
      }
    }
    ex.clearAndReload = async (reason) => {
      const code = require('WAWebLogoutReason').getErrorCodeFromLogoutReason(reason); // wa-js wraps this: conn.logout_reason
      loggingOut = true;
      Me.__clear();
      await require('WAWebSignalStoreApi').waSignalStore.clearCredential();
      await idb.clear('model-storage', 'message');
      setTimeout(() => { location.href = '/?post_logout=1' + (code ? '&logout_reason=' + code : ''); }, cfg.logoutNavMs || 0);
    };
    ex.logout = async (reason) => {
      localStorage.removeItem('WANoiseInfo'); // the real Socket.logout does this first of all
      BackendEventBus.triggerStartingLogout();
      try { await Promise.race([ex.rpc('remove-companion-device', {}), new Promise((r, ko) => setTimeout(ko, 3000))]); } catch (e) { /* offline: still local */ }
      await ex.clearAndReload(reason);
      BackendEventBus.triggerLogout();
    };
    function ui() {
      const el = document.getElementById('app');
      el.dataset.state = Socket.state; el.dataset.mode = Stream.mode || '';
      el.innerHTML = Stream.mode === 'QR' ? '<div data-ref="' + (Conn.ref || '') + '"><canvas width="264" height="264" aria-label="Scan me!"></canvas></div>'
        : '<div class="two" tabindex="-1"><div id="pane-side" aria-label="Chat list"></div></div>';
    }
    ex.boot = async () => {
      // the real page drops the post_logout markers from the URL again at boot
      if (/post_logout/.test(location.search)) history.replaceState(null, '', '/');
      const me = Me.__raw();
      if (me) Conn.set({ wid: createWid(me.pn), platform: me.platform });
      try { await idb.get('model-storage', 'message', 'x'); } catch (e) { return void BackendEventBus.triggerStorageInitializationError(e); }
      await ex.connect();
      // the real page sets window.Debug late, behind a gatekeeper; wa-js creates it itself when absent
      if (!cfg.noDebug) setTimeout(() => { self.Debug = { ...(self.Debug || {}), VERSION: require('WAWebUpdaterVersion').SANITIZED_VERSION_STR }; }, 300);
    };
  });
  requireLazy(['WAWebCmd', 'WAWebConnModel', 'WAWebSocketModel', 'WAWebStreamModel', 'WAWebStandinBackend'], (a, b, c, d, backend) => backend.boot());
})();
