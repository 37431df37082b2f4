/* Late bundle: what a person would see. Not React, only the elements that clients are known to look for.
 *
 * Sources: [data-ref] around the QR's canvas and #pane-side as WPPConnect finds them; data-testid names of the passkey
 * screen as in published descriptions of the 2026 bundles. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  def('StandinScreen', (require, exports) => {
    const { Conn } = require('WAWebConnModel');
    const { Stream } = require('WAWebStreamModel');
    const { WAWebLinkDeviceEvents } = require('WAWebLinkDeviceEvents');
    const { getPairingType, setPairingType } = require('WAWebAltDeviceLinkingApi');
    const { encodeB64 } = require('WABase64');

    const qrText = async () => {
      const noise = await require('WAWebUserPrefsInfoStore').waNoiseInfo.get();
      const signal = await require('WAWebSignalStoreApi').waSignalStore.getRegistrationInfo();
      const secret = require('WAWebUserPrefsMultiDevice').getADVSecretKey();
      return [Conn.ref, encodeB64(noise.staticKeyPair.pubKey), encodeB64(signal.identityKeyPair.pubKey), secret].join(',');
    };
    const qr = async () => {
      const canvas = element('canvas', { width: 264, height: 264, 'aria-label': 'Scan me!' });
      return Conn.ref ? element('div', { 'data-ref': await qrText() }, canvas) : element('div', {}, 'The QR has expired.');
    };
    const passkey = () => {
      const action = require('WAWebShortcakeLinkingAction');
      const next = element('button', { 'data-testid': 'shortcake_passkey_continue_button' }, 'Continue');
      next.onclick = () => action.startShortcakePasskeyPairing();
      const cancel = element('button', { 'data-testid': 'shortcake_cancel_button' }, 'Cancel');
      cancel.onclick = () => {
        action.cancelShortcakePasskeyPairing();
        setPairingType('QR_CODE');
        show();
      };
      const prompt = element(
        'div',
        { 'data-testid': 'shortcake_passkey_prompt_card' },
        'This account needs its passkey. ',
        next,
      );
      return element('div', { 'data-testid': 'shortcake_passkey_screen' }, prompt, cancel);
    };
    const content = async () => {
      if (Stream.mode === 'QR') return getPairingType() === 'SHORTCAKE_PASSKEY' ? passkey() : qr();
      if (Stream.mode === 'MAIN') return element('div', { id: 'pane-side', 'aria-label': 'Chat list' }, Conn.pushname || '');
      return element('div', {}, Stream.mode);
    };
    const show = async () => document.getElementById('app').replaceChildren(await content());

    exports.start = () => {
      Stream.on('change:mode', show);
      Conn.on('change:ref change:pushname', show);
      WAWebLinkDeviceEvents.on('link_device_events:passkey_prologue_request', show);
      return show();
    };
  });
})();
