/* Small modules whose only job is to be found by wa-js: enums, versions, Base64. */
(function () {
  'use strict';
  const ESM = 98; // what the real bundles pass as fourth argument: the factory writes ES exports
  const def = (id, fn) => __d(id, [], function (t, n, r, o, a, i, l) { fn(n, l, i); }, ESM);

  def('WABase64', (require, ex) => {
    ex.encodeB64 = (d) => { const u = new Uint8Array(d); let s = ''; for (const b of u) s += String.fromCharCode(b); return btoa(s); };
    ex.decodeB64 = (s) => Uint8Array.from(atob(s), (c) => c.charCodeAt(0)).buffer;
  });
  def('WATimeUtils', (require, ex) => { // (id assumed) predicate m.unixTime
    ex.unixTime = () => Math.floor(Date.now() / 1000);
    ex.unixTimeMs = () => Date.now();
  });
  def('WAWebUpdaterVersion', (require, ex) => { ex.SANITIZED_VERSION_STR = '2.3000.1048032155'; });
  def('WAWebBuildConstants', (require, ex) => {
    Object.assign(ex, { VERSION_STR: '2.3000.1048032155', VERSION_BASE: '2.3000.1048032155', VERSION_PRIMARY: '2', VERSION_SECONDARY: '3000', VERSION_TERTIARY: '1048032155', WINDOWS_BUILD: null });
  });
  def('WAWebMiscBrowserUtils', (require, ex) => {
    ex.info = () => ({ os: 'Linux', version: '1', name: 'Chrome', ua: navigator.userAgent });
    ex.hardRefresh = () => location.reload();
    ex.default = ex;
  });
  def('WAWebIsOfficialClient', (require, ex) => { ex.isOfficialClient = true; });
  def('WAWebAck', (require, ex) => {
    ex.ACK = { MD_DOWNGRADE: -7, INACTIVE: -6, CONTENT_UNUPLOADABLE: -5, CONTENT_TOO_BIG: -4, CONTENT_GONE: -3, EXPIRED: -2, FAILED: -1, CLOCK: 0, SENT: 1, RECEIVED: 2, READ: 3, PLAYED: 4, PEER: 5 };
    ex.ACK_STRING = { SENDER: 'sender', DELIVERY: 'delivery', READ: 'read', PLAYED: 'played' };
    ex.EDIT_ATTR = { SENDER_REVOKE: 7, ADMIN_REVOKE: 8 };
  });
  def('WAWebSocketConstants', (require, ex) => {
    ex.SOCKET_STATE = Object.fromEntries(['OPENING', 'PAIRING', 'UNPAIRED', 'UNPAIRED_IDLE', 'CONNECTED', 'TIMEOUT', 'CONFLICT', 'UNLAUNCHED', 'PROXYBLOCK', 'TOS_BLOCK', 'SMB_TOS_BLOCK', 'DEPRECATED_VERSION'].map((x) => [x, x]));
    ex.SOCKET_STREAM = Object.fromEntries(['DISCONNECTED', 'SYNCING', 'RESUMING', 'CONNECTED'].map((x) => [x, x]));
    ex.WATCHED_SOCKET_STATE = { OPEN: 'OPEN', CLOSED: 'CLOSED' };
  });
  def('WAWebLogoutReasonConstants', (require, ex) => {
    ex.LogoutReason = { UserInitiated: 'user_initiated', UnknownCompanion: 'unknown_companion', WebFailStorageInitialization: 'web_fail_storage_initialization', AccountLocked: 'account_locked', ClientVersionOutdated: 'client_version_outdated' };
    ex.LOGOUT_REASON_CODE = { CLIENT_FATAL: '0', SYNC_FAIL: '1', INITIAL_HISTORY_SYNC_TIMEOUT: '2', ACCOUNT_LOCKED: '3' };
  });
  def('WAWebLogoutReason', (require, ex) => {
    ex.getErrorCodeFromLogoutReason = (r) => (r === 'account_locked' ? '3' : r === 'user_initiated' ? null : '0');
    ex.setPrevLogoutReasonCode = () => {}; ex.getPrevLogoutReasonCode = () => null;
    ex.setPrevCustomLogoutMessage = () => {}; ex.getPrevCustomLogoutMessage = () => null;
  });
})();
