/* Linking a device: QR refs, pairing codes, and the passkey that some accounts need since July 2026 ("Shortcake").
 *
 * Sources: WAWebAltDeviceLinkingApi, WAWebLinkDeviceEvents and WAWebLaunchSocketUtils as wa-js 4.6.0 and whatsapp-web.js 1.34
 * call them. Passkeys: Baileys issue 2672 and whatsmeow issue 1185 (after the scan the server sends passkey_prologue_request;
 * the page answers with navigator.credentials.get for whatsapp.com, userVerification "required"), and published descriptions
 * of the 2026 bundles (pairing type SHORTCAKE_PASSKEY, the link_device_events and data-testid names, the stages).
 * A guess: that the QR goes on rotating meanwhile. Left out: the code that phone and page compare afterwards. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);
  const mirror = (...names) => Object.fromEntries(names.map((name) => [name, name]));

  def('WAWebPairingType', (require, exports) => {
    exports.PairingType = mirror('QR_CODE', 'ALT_DEVICE_LINKING', 'SHORTCAKE_PASSKEY');
  });

  def('WAWebLinkDeviceEvents', (require, exports) => {
    const EventEmitter = require('WAWebEventEmitter').default;
    class LinkDeviceEvents extends EventEmitter {
      triggerRefreshAltLinkingCode() {
        this.trigger('link_device_events:refresh_alt_linking_code');
      }
      triggerPrimaryHelloReceived() {
        this.trigger('link_device_events:primary_hello_received');
      }
      triggerPasskeyPrologueRequest() {
        this.trigger('link_device_events:passkey_prologue_request');
      }
      triggerShortcakePrologueSent() {
        this.trigger('link_device_events:shortcake_prologue_sent');
      }
      triggerShortcakeError(reason) {
        this.trigger('link_device_events:shortcake_error', reason);
      }
    }
    exports.WAWebLinkDeviceEvents = new LinkDeviceEvents();
  });

  def('WAWebLaunchSocketUtils', (require, exports) => {
    exports.refreshQR = () => require('StandinBackend').refreshQR();
  });

  def('WAWebAltDeviceLinkingApi', (require, exports) => {
    let pairingType = 'QR_CODE';
    exports.setPairingType = (type) => (pairingType = type);
    exports.getPairingType = () => pairingType;
    exports.initializeAltDeviceLinking = async () => {};
    exports.initializeQRLinking = async () => {};
    exports.genLinkDeviceCodeForPhoneNumber = async (phone) => {
      exports.setPairingType('ALT_DEVICE_LINKING');
      const noise = await require('WAWebUserPrefsInfoStore').waNoiseInfo.get();
      const key = require('WABase64').encodeB64(noise.staticKeyPair.pubKey);
      return (await require('StandinBackend').call({ op: 'link-code', phone, noise: key })).code;
    };
    exports.startAltLinkingFlow = exports.genLinkDeviceCodeForPhoneNumber;
  });

  def('WAWebShortcakeLinkingApi', (require, exports) => {
    const { WAWebLinkDeviceEvents } = require('WAWebLinkDeviceEvents');
    exports.ShortcakeLinkingStage = mirror(
      'NotStarted',
      'Initialized',
      'WaitingForPrimaryIdentity',
      'WaitingForVerificationCodeConfirmation',
      'WaitingForPairingCompletion',
    );
    let stage = 'NotStarted';
    let challenge = null;
    exports.getShortcakeLinkingStage = () => stage;
    exports.cancelShortcakeLinking = () => {
      stage = 'NotStarted';
      challenge = null;
    };
    /** The server wants the account's passkey. */
    exports.standinRequested = (newChallenge) => {
      challenge = newChallenge;
      require('WAWebAltDeviceLinkingApi').setPairingType('SHORTCAKE_PASSKEY');
      WAWebLinkDeviceEvents.triggerPasskeyPrologueRequest();
    };
    /** What the button "Continue" does: asks the browser's authenticator. */
    exports.standinContinue = async () => {
      const publicKey = {
        challenge: require('WABase64').decodeB64UrlSafe(challenge),
        timeout: 600000,
        rpId: 'whatsapp.com',
        allowCredentials: [],
        userVerification: 'required',
      };
      try {
        stage = 'Initialized';
        await navigator.credentials.get({ publicKey });
        stage = 'WaitingForPrimaryIdentity';
        WAWebLinkDeviceEvents.triggerShortcakePrologueSent();
        require('StandinBackend').send({ t: 'passkey-assertion' });
      } catch {
        stage = 'NotStarted';
        WAWebLinkDeviceEvents.triggerShortcakeError('unknown');
      }
    };
  });

  def('WAWebShortcakeLinkingAction', (require, exports) => {
    const api = require('WAWebShortcakeLinkingApi');
    exports.startShortcakePasskeyPairing = () => api.standinContinue();
    exports.cancelShortcakePasskeyPairing = () => api.cancelShortcakeLinking();
  });
})();
