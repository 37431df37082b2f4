/* Cmd and BackendEventBus, in both generations.
 *
 * The older one (`legacyCmd`) is what wa-js 4.6.0 is written against: Cmd.refreshQR, Cmd.logout, and every event on the bus.
 * The newer one has neither method; its Cmd events end in `_from_bridge`, and starting_logout and
 * account_temporarily_banned reach Cmd only. A login always says that there is no temporary ban ({banned: false}).
 *
 * Sources: predicates of wa-js 4.6.0, events that whatsapp-web.js 1.34 listens for, and published descriptions of the 2026
 * bundles. Whether the newest ones still have Cmd's main_loaded is not known. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);
  const { legacyCmd } = self.__standin;

  def('WAWebCmd', (require, exports) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    class CmdImpl extends EventEmitter {
      constructor() {
        super();
        this.isMainLoaded = false;
      }
      mainLoaded() {
        this.isMainLoaded = true;
        this.trigger('main_loaded');
      }
      onLogoutFromBridge() {
        this.trigger('logout_from_bridge');
      }
      onStartingLogoutFromBridge() {
        this.trigger('starting_logout_from_bridge');
      }
      onMainStreamModeReadyFromBridge() {
        this.trigger('main_stream_mode_ready_from_bridge');
      }
      onOfflineProgressUpdateFromBridge() {
        this.trigger('offline_progress_update_from_bridge');
      }
      onTemporaryBanFromBridge(ban) {
        this.trigger('account_temporarily_banned_from_bridge', ban);
      }
    }
    if (legacyCmd) {
      CmdImpl.prototype.refreshQR = function () {
        this.trigger('md_refresh_qr');
        require('WAWebLaunchSocketUtils').refreshQR();
      };
      CmdImpl.prototype.logout = function () {
        this.trigger('logout');
      };
    }
    exports.CmdImpl = CmdImpl;
    exports.Cmd = new CmdImpl();
  });

  def('WAWebBackendEventBus', (require, exports) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    const { Cmd } = require('WAWebCmd');
    exports.BackendEvent = {
      LOGOUT: 'logout',
      REFRESH_QR: 'refresh_qr',
      STARTING_LOGOUT: 'starting_logout',
      SET_SOCKET_STATE: 'set_socket_state',
      MAIN_STREAM_MODE_READY: 'main_stream_mode_ready',
      STORAGE_INITIALIZATION_ERROR: 'storage_initialization_error',
      OFFLINE_DELIVERY_END: 'offline_delivery_end',
      ACCOUNT_TEMPORARILY_BANNED: 'account_temporarily_banned',
    };
    class BackendEventBusImpl extends EventEmitter {
      triggerRefreshQR() {
        this.trigger('refresh_qr');
      }
      triggerSetSocketState(state) {
        this.trigger('set_socket_state', state);
      }
      triggerStartingLogout() {
        if (legacyCmd) this.trigger('starting_logout');
        Cmd.onStartingLogoutFromBridge();
      }
      triggerLogout() {
        this.trigger('logout');
        if (legacyCmd) Cmd.logout();
        else Cmd.onLogoutFromBridge();
      }
      triggerMainStreamModeReady() {
        this.trigger('main_stream_mode_ready');
        Cmd.onMainStreamModeReadyFromBridge();
      }
      triggerOfflineDeliveryEnd() {
        this.trigger('offline_delivery_end');
      }
      triggerStorageInitializationError(error) {
        this.trigger('storage_initialization_error', error);
      }
      triggerTemporaryBan(ban) {
        if (legacyCmd) this.trigger('account_temporarily_banned', ban);
        Cmd.onTemporaryBanFromBridge(ban);
      }
    }
    exports.BackendEventBus = new BackendEventBusImpl();
    exports.BackendEventBus.on('refresh_qr', () => require('WAWebLaunchSocketUtils').refreshQR());
    // A page that can't open its storage logs itself out: the reason why a full or read-only volume costs the login.
    exports.BackendEventBus.on('storage_initialization_error', () =>
      require('WAWebSocketModel').Socket.clearCredentialsAndStoredData('web_fail_storage_initialization'),
    );
  });
})();
