/* Late bundle: what whatsapp-web.js needs beyond wa-js to become ready and to send and receive texts.
 *
 * Sources: the calls that whatsapp-web.js 1.34 makes (Client.js, util/Injected/Utils.js). */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  def('WAWebChatGetters', (require, exports) => {
    exports.getIsNewsletter = (chat) => chat.id.isNewsletter();
    exports.getIsBroadcast = (chat) => chat.id.isBroadcast();
    exports.getIsGroup = (chat) => chat.id.isGroup();
  });

  def('WAWebSyncGatingUtils', (require, exports) => {
    exports.isPlaceholderMessageResendEnabled = () => false;
  });
})();
