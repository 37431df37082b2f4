/* Late bundle: whether the account is shown as online. A page that has the focus is available; whatsapp-web.js calls
 * WAWebPresenceChatAction, wa-js holds on to Stream's `available`.
 *
 * Sources: whatsapp-web.js 1.34 (sendPresenceAvailable), wa-js 4.6.0 (markAvailable). While a device is available, WhatsApp
 * shows the account as online, and the phone is silent. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  def('WAWebPresenceChatAction', (require, exports) => {
    const say = (available) => require('StandinBackend').send({ t: 'presence', available });
    exports.sendPresenceAvailable = async () => say(true);
    exports.sendPresenceUnavailable = async () => say(false);
  });

  def('StandinPresence', (require, exports) => {
    const { Stream } = require('WAWebStreamModel');
    const action = require('WAWebPresenceChatAction');
    const look = () => (document.hasFocus() ? Stream.markAvailable() : Stream.markUnavailable());
    const tell = () => {
      if (Stream.mode !== 'MAIN') return;
      if (Stream.available) action.sendPresenceAvailable();
      else action.sendPresenceUnavailable();
    };
    for (const event of ['focus', 'blur', 'visibilitychange']) addEventListener(event, look);
    Stream.on('change:available', tell);
    /** After each login, as the server forgets it with the connection. */
    exports.loggedIn = () => {
      const before = Stream.available;
      look();
      if (Stream.available === before) tell(); // else the change has told it
    };
  });
})();
