/* Conn, Socket, Stream (derived as the real page derives it), Cmd in both generations, BackendEventBus, linking. */
(function () {
  'use strict';
  const ESM = 98; // what the real bundles pass as fourth argument: the factory writes ES exports
  const def = (id, fn) => __d(id, [], function (t, n, r, o, a, i, l) { fn(n, l, i); }, ESM);

  def('WAWebConnModel', (require, ex) => {
    const { BaseModel } = require('WAWebBaseModel');
    class ConnImpl extends BaseModel { canSetMyPushname() { return true; } }
    ConnImpl.props = { id: 'conn', ref: undefined, refTTL: undefined, wid: undefined, connected: false, platform: undefined, pushname: undefined, battery: undefined, plugged: undefined };
    ex.ConnImpl = ConnImpl; ex.Conn = new ConnImpl();
  });
  def('WAWebStreamModel', (require, ex) => {
    const { BaseModel } = require('WAWebBaseModel');
    const { Socket } = require('WAWebSocketModel');
    const Net = require('WAWebNetworkStatus').default;
    const { isRegistered } = require('WAWebUserPrefsMultiDevice');
    const info = () => {
      switch (Socket.state) {
        case 'OPENING': return Net.online ? 'OPENING' : 'OFFLINE';
        case 'PAIRING': return Socket.hasSynced ? 'RESUMING' : 'PAIRING';
        case 'CONNECTED': return Socket.stream !== 'CONNECTED' && !Socket.hasSynced ? 'SYNCING' : 'NORMAL';
        default: return 'NORMAL'; // so info is NORMAL on the QR screen too
      }
    };
    const mode = () => {
      if (!isRegistered() && Socket.state !== 'PROXYBLOCK') return 'QR';
      switch (Socket.state) {
        case 'PROXYBLOCK': case 'CONFLICT': case 'TOS_BLOCK': case 'SMB_TOS_BLOCK': case 'DEPRECATED_VERSION': return Socket.state;
        case 'UNLAUNCHED': return 'SYNCING';
        case 'UNPAIRED': case 'UNPAIRED_IDLE': return 'QR';
        case 'OPENING': if (!Net.online && !Socket.hasSynced) return 'OFFLINE'; // falls through
        default: return Socket.hasSynced || Socket.stream === 'CONNECTED' ? 'MAIN' : 'SYNCING';
      }
    };
    class StreamImpl extends BaseModel {
      initialize() {
        this._v.mode = isRegistered() ? 'SYNCING' : 'QR'; // before any socket exists
        const upd = () => { this.info = info(); this.mode = mode(); };
        Socket.on('change:state change:stream change:hasSynced', upd);
        Net.on('change:online', upd);
      }
      markAvailable() { this.available = true; } markUnavailable() { this.available = false; }
      get displayInfo() { return this.info; }
    }
    StreamImpl.props = { mode: 'SYNCING', info: 'NORMAL', needsUpdate: undefined, isHardRefresh: false, available: undefined, obscurity: 'HIDE', resumeCount: 0, phoneAuthed: false };
    ex.Stream = new StreamImpl();
  });
  def('WAWebSocketModel', (require, ex) => {
    const { BaseModel } = require('WAWebBaseModel');
    class SocketImpl extends BaseModel {
      logout(reason) { require('WAWebStandinBackend').logout(reason || 'user_initiated'); }
      clearCredentialsAndStoredData(reason) { return require('WAWebStandinBackend').clearAndReload(reason); }
      poke() { require('WAWebStandinBackend').refreshQR(); }
      takeover() { return require('WAWebStandinBackend').takeover(); }
    }
    SocketImpl.props = { state: 'UNLAUNCHED', stream: 'DISCONNECTED', hasSynced: false, launched: false, canSend: false, launchGeneration: 0, backoffGeneration: 0, retryTimestamp: undefined };
    ex.Socket = new SocketImpl();
  });
  def('WAWebNetworkStatus', (require, ex) => { // (id assumed) predicate m.default.checkOnline
    const { BaseModel } = require('WAWebBaseModel');
    class NetworkStatusImpl extends BaseModel { async checkOnline() {} async waitIfOffline() {} }
    NetworkStatusImpl.props = { online: true, simulatedOfflineConditions: false };
    ex.default = new NetworkStatusImpl();
    addEventListener('online', () => { ex.default.online = true; });
    addEventListener('offline', () => { ex.default.online = false; });
  });
  def('WAWebCmd', (require, ex) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    class CmdImpl extends EventEmitter {
      constructor() { super(); this.isMainLoaded = false; }
      mainLoaded() { this.isMainLoaded = true; this.trigger('main_loaded'); }
      onLogoutFromBridge() { this.trigger('logout_from_bridge'); }
      onStartingLogoutFromBridge() { this.trigger('starting_logout_from_bridge'); }
      onMainStreamModeReadyFromBridge() { this.trigger('main_stream_mode_ready_from_bridge'); }
    }
    if ((self.__standin || {}).legacyCmd) { // what wa-js 4.6.0 is written against
      Object.assign(CmdImpl.prototype, {
        refreshQR() { this.trigger('md_refresh_qr'); require('WAWebLaunchSocketUtils').refreshQR(); },
        logout() { this.trigger('logout'); },
      });
    }
    ex.CmdImpl = CmdImpl; ex.Cmd = new CmdImpl();
  });
  def('WAWebLaunchSocketUtils', (require, ex) => { ex.refreshQR = () => require('WAWebStandinBackend').refreshQR(); });
  def('WAWebBackendEventBus', (require, ex) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    ex.BackendEvent = { LOGOUT: 'logout', REFRESH_QR: 'refresh_qr', STARTING_LOGOUT: 'starting_logout', SET_SOCKET_STATE: 'set_socket_state', MAIN_STREAM_MODE_READY: 'main_stream_mode_ready', STORAGE_INITIALIZATION_ERROR: 'storage_initialization_error', OFFLINE_DELIVERY_END: 'offline_delivery_end', ACCOUNT_TEMPORARILY_BANNED: 'account_temporarily_banned' };
    const { Cmd } = require('WAWebCmd');
    ex.BackendEventBus = new (class extends EventEmitter {
      triggerRefreshQR() { this.trigger('refresh_qr'); }
      triggerStartingLogout() { this.trigger('starting_logout'); Cmd.onStartingLogoutFromBridge(); }
      triggerLogout() { this.trigger('logout'); Cmd.onLogoutFromBridge(); if (Cmd.logout) Cmd.logout(); }
      triggerMainStreamModeReady() { this.trigger('main_stream_mode_ready'); Cmd.onMainStreamModeReadyFromBridge(); }
      triggerStorageInitializationError(e) { this.trigger('storage_initialization_error', e); }
      triggerTemporaryBan(b) { this.trigger('account_temporarily_banned', b); }
    })();
    ex.BackendEventBus.on('refresh_qr', () => require('WAWebLaunchSocketUtils').refreshQR());
    ex.BackendEventBus.on('storage_initialization_error', () => require('WAWebSocketModel').Socket.clearCredentialsAndStoredData('web_fail_storage_initialization'));
  });
  def('WAWebLinkDeviceEvents', (require, ex) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    ex.WAWebLinkDeviceEvents = new (class extends EventEmitter { triggerRefreshAltLinkingCode() { this.trigger('link_device_events:refresh_alt_linking_code'); } })();
  });
  def('WAWebAltDeviceLinkingApi', (require, ex) => {
    ex.setPairingType = () => {};
    ex.initializeAltDeviceLinking = async () => {};
    ex.initializeQRLinking = async () => {};
    ex.genLinkDeviceCodeForPhoneNumber = (phone, push) => require('WAWebStandinBackend').linkCode(phone, push);
    ex.startAltLinkingFlow = ex.genLinkDeviceCodeForPhoneNumber;
  });
  def('WAWebOfflineHandler', (require, ex) => { ex.OfflineMessageHandler = { getOfflineDeliveryProgress: () => 100 }; });
  def('WAWebABProps', (require, ex) => { ex.getABPropConfigValue = () => 0; });
  def('WALinkify', (require, ex) => { ex.findFirstWebLink = () => null; ex.findLink = () => null; });
})();
