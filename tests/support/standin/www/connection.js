/* Conn, Socket, the network's state, and Stream, which is derived from them as on the real page.
 *
 * Sources: wa-js 4.6.0's predicates and enums; whatsapp-web.js 1.34 (WAWebSocketModel, WAWebConnModel, Socket.takeover);
 * published descriptions of how WAWebStreamModel derives mode and info. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  def('WAWebConnModel', (require, exports) => {
    const { BaseModel } = require('WAWebBaseModel');
    class ConnImpl extends BaseModel {
      canSetMyPushname() {
        return true;
      }
    }
    ConnImpl.props = {
      id: 'conn',
      ref: undefined,
      refTTL: undefined,
      wid: undefined,
      connected: false,
      platform: undefined,
      pushname: undefined,
      battery: undefined,
      plugged: undefined,
    };
    exports.ConnImpl = ConnImpl;
    exports.Conn = new ConnImpl();
  });

  def('WAWebNetworkStatus', (require, exports) => {
    const { BaseModel } = require('WAWebBaseModel');
    class NetworkStatusImpl extends BaseModel {
      async checkOnline() {}
      async waitIfOffline() {}
    }
    NetworkStatusImpl.props = { online: navigator.onLine, simulatedOfflineConditions: false };
    exports.default = new NetworkStatusImpl();
    addEventListener('online', () => (exports.default.online = true));
    addEventListener('offline', () => (exports.default.online = false));
  });

  def('WAWebSocketModel', (require, exports) => {
    const { BaseModel } = require('WAWebBaseModel');
    class SocketImpl extends BaseModel {
      logout(reason) {
        return require('StandinBackend').logout(reason || 'user_initiated');
      }
      clearCredentialsAndStoredData(reason) {
        return require('StandinBackend').clearAndReload(reason);
      }
      poke() {
        require('WAWebLaunchSocketUtils').refreshQR();
      }
      takeover() {
        return require('StandinBackend').takeover();
      }
    }
    SocketImpl.props = {
      state: 'UNLAUNCHED',
      stream: 'DISCONNECTED',
      hasSynced: false,
      launched: false,
      canSend: false,
      launchGeneration: 0,
      backoffGeneration: 0,
      retryTimestamp: undefined,
    };
    exports.Socket = new SocketImpl();
  });

  def('WAWebStreamModel', (require, exports) => {
    const { BaseModel } = require('WAWebBaseModel');
    const { Socket } = require('WAWebSocketModel');
    const network = require('WAWebNetworkStatus').default;
    const { isRegistered } = require('WAWebUserPrefsMultiDevice');

    const info = () => {
      switch (Socket.state) {
        case 'OPENING':
          return network.online ? 'OPENING' : 'OFFLINE';
        case 'PAIRING':
          return Socket.hasSynced ? 'RESUMING' : 'PAIRING';
        case 'CONNECTED':
          return Socket.stream === 'CONNECTED' || Socket.hasSynced ? 'NORMAL' : 'SYNCING';
        default:
          return 'NORMAL'; // so it is NORMAL on the QR screen too
      }
    };
    const mode = () => {
      if (!isRegistered() && Socket.state !== 'PROXYBLOCK') return 'QR';
      switch (Socket.state) {
        case 'PROXYBLOCK':
        case 'CONFLICT':
        case 'TOS_BLOCK':
        case 'SMB_TOS_BLOCK':
        case 'DEPRECATED_VERSION':
          return Socket.state;
        case 'UNLAUNCHED':
          return 'SYNCING';
        case 'UNPAIRED':
        case 'UNPAIRED_IDLE':
          return 'QR';
      }
      if (Socket.state === 'OPENING' && !network.online && !Socket.hasSynced) return 'OFFLINE';
      return Socket.hasSynced || Socket.stream === 'CONNECTED' ? 'MAIN' : 'SYNCING';
    };

    class StreamImpl extends BaseModel {
      initialize() {
        this.mode = isRegistered() ? 'SYNCING' : 'QR'; // before there is any socket
        const update = () => {
          this.info = info();
          this.mode = mode();
        };
        Socket.on('change:state change:stream change:hasSynced', update);
        network.on('change:online', update);
      }
      markAvailable() {
        this.available = true;
      }
      markUnavailable() {
        this.available = false;
      }
      get displayInfo() {
        return this.info;
      }
    }
    StreamImpl.props = {
      mode: 'SYNCING',
      info: 'NORMAL',
      needsUpdate: undefined,
      isHardRefresh: false,
      available: undefined,
      obscurity: 'HIDE',
      resumeCount: 0,
      phoneAuthed: false,
    };
    exports.Stream = new StreamImpl();
  });

  def('WAWebOfflineHandler', (require, exports) => {
    exports.OfflineMessageHandler = { getOfflineDeliveryProgress: () => require('StandinBackend').syncProgress() };
  });
})();
