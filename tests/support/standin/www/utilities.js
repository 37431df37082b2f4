/* Small modules whose only job is to be found: enums, versions, Base64, the clock.
 *
 * Sources: module names and values that whatsapp-web.js 1.34 and wa-js 4.6.0 name. Where only wa-js's predicate is known,
 * the name is marked as assumed: any name would do there. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const { missing } = self.__standin;
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);
  const mirror = (...names) => Object.fromEntries(names.map((name) => [name, name]));
  const VERSION = '2.3000.1048032155';

  def('WABase64', (require, exports) => {
    exports.encodeB64 = (data) => btoa(String.fromCharCode(...new Uint8Array(data)));
    exports.decodeB64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
    exports.decodeB64UrlSafe = (text) => exports.decodeB64(text.replace(/-/g, '+').replace(/_/g, '/'));
  });

  def('WATimeUtils', (require, exports) => {
    exports.unixTime = () => Math.floor(Date.now() / 1000);
    exports.unixTimeMs = () => Date.now();
  });

  def('WAWebUpdaterVersion', (require, exports) => {
    if (!missing.includes('version')) exports.SANITIZED_VERSION_STR = VERSION;
  });

  def('WAWebBuildConstants', (require, exports) => {
    const [primary, secondary, tertiary] = VERSION.split('.');
    Object.assign(exports, {
      VERSION_STR: VERSION,
      VERSION_BASE: VERSION,
      VERSION_PRIMARY: primary,
      VERSION_SECONDARY: secondary,
      VERSION_TERTIARY: tertiary,
      WINDOWS_BUILD: null,
    });
  });

  def('WAWebMiscBrowserUtils', (require, exports) => {
    exports.info = () => ({ os: 'Linux', version: '1', name: 'Chrome', ua: navigator.userAgent });
    exports.hardRefresh = () => location.reload();
    exports.default = exports;
  });

  // name assumed
  def('WAWebIsOfficialClient', (require, exports) => {
    exports.isOfficialClient = true;
  });

  def('WAWebAck', (require, exports) => {
    exports.ACK = {
      MD_DOWNGRADE: -7,
      INACTIVE: -6,
      CONTENT_UNUPLOADABLE: -5,
      CONTENT_TOO_BIG: -4,
      CONTENT_GONE: -3,
      EXPIRED: -2,
      FAILED: -1,
      CLOCK: 0,
      SENT: 1,
      RECEIVED: 2,
      READ: 3,
      PLAYED: 4,
      PEER: 5,
    };
    exports.ACK_STRING = { SENDER: 'sender', DELIVERY: 'delivery', READ: 'read', PLAYED: 'played' };
    exports.EDIT_ATTR = { SENDER_REVOKE: 7, ADMIN_REVOKE: 8 };
  });

  def('WAWebSocketConstants', (require, exports) => {
    exports.SOCKET_STATE = mirror(
      'OPENING',
      'PAIRING',
      'UNPAIRED',
      'UNPAIRED_IDLE',
      'CONNECTED',
      'TIMEOUT',
      'CONFLICT',
      'UNLAUNCHED',
      'PROXYBLOCK',
      'TOS_BLOCK',
      'SMB_TOS_BLOCK',
      'DEPRECATED_VERSION',
    );
    exports.SOCKET_STREAM = mirror('DISCONNECTED', 'SYNCING', 'RESUMING', 'CONNECTED');
    exports.WATCHED_SOCKET_STATE = mirror('OPEN', 'CLOSED');
  });

  def('WAWebLogoutReasonConstants', (require, exports) => {
    exports.LogoutReason = {
      UserInitiated: 'user_initiated',
      UnknownCompanion: 'unknown_companion',
      WebFailStorageInitialization: 'web_fail_storage_initialization',
      AccountLocked: 'account_locked',
      ClientVersionOutdated: 'client_version_outdated',
    };
    exports.LOGOUT_REASON_CODE = {
      CLIENT_FATAL: '0',
      SYNC_FAIL: '1',
      INITIAL_HISTORY_SYNC_TIMEOUT: '2',
      ACCOUNT_LOCKED: '3',
    };
  });

  /** wa-js wraps getErrorCodeFromLogoutReason: that is where its conn.logout_reason comes from. */
  def('WAWebLogoutReason', (require, exports) => {
    const { LogoutReason, LOGOUT_REASON_CODE } = require('WAWebLogoutReasonConstants');
    exports.getErrorCodeFromLogoutReason = (reason) => {
      if (reason === LogoutReason.UserInitiated) return null;
      return reason === LogoutReason.AccountLocked ? LOGOUT_REASON_CODE.ACCOUNT_LOCKED : LOGOUT_REASON_CODE.CLIENT_FATAL;
    };
    exports.setPrevLogoutReasonCode = () => {};
    exports.getPrevLogoutReasonCode = () => null;
    exports.setPrevCustomLogoutMessage = () => {};
    exports.getPrevCustomLogoutMessage = () => null;
  });

  def('WAWebABProps', (require, exports) => {
    exports.getABPropConfigValue = () => 0;
  });

  def('WALinkify', (require, exports) => {
    exports.findFirstWebLink = () => null;
    exports.findLink = () => null;
    exports.findLinks = () => [];
  });
})();
