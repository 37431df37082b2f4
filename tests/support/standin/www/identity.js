/* What a context says of itself, told to the stand-in's server. The server puts a line with CONTEXT before it.
 *
 * The page runs it as itself, in an iframe, a worker, a shared worker and a service worker, which the real page has too. What
 * a browser says of itself may differ between them: whatever is set for a page alone is not set for its workers. Each answers
 * a message when it has told; a service worker that runs already is asked once more by each page. */
(() => {
  'use strict';
  const HINTS = ['fullVersionList', 'platformVersion'];
  const brands = (list) => list?.map(({ brand, version }) => `${brand} ${version}`) ?? null;

  const tell = async () => {
    const { userAgent, language, languages, webdriver = null, userAgentData } = navigator;
    const hints = await userAgentData?.getHighEntropyValues(HINTS);
    const { locale, timeZone: timezone } = Intl.DateTimeFormat().resolvedOptions();
    const said = {
      userAgent, language, languages, webdriver, locale, timezone,
      brands: brands(userAgentData?.brands),
      fullVersions: brands(hints?.fullVersionList),
      platform: userAgentData?.platform ?? null,
      platformVersion: hints?.platformVersion ?? null,
    };
    await fetch('/identity/' + CONTEXT, { method: 'POST', body: JSON.stringify(said) });
  };

  switch (CONTEXT) {
    case 'document':
      self.standinTell = tell;
      break;
    case 'iframe':
      tell().then(() => parent.postMessage('told', origin));
      break;
    case 'worker':
      tell().then(() => postMessage('told'));
      break;
    case 'shared_worker':
      self.onconnect = ({ ports: [port] }) => tell().then(() => port.postMessage('told'));
      break;
    case 'service_worker':
      self.oninstall = () => self.skipWaiting();
      self.onactivate = (event) => event.waitUntil(self.clients.claim());
      self.onmessage = (event) => event.waitUntil(tell().then(() => event.ports[0].postMessage('told')));
  }
})();
