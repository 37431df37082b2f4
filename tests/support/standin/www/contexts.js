/* The contexts that the real page has beside its document: an iframe, workers, and a service worker.
 *
 * Each tells the server what it says of itself (identity.js); the page connects when all have. They stay, as the real ones do. */
(function () {
  'use strict';
  const ESM = 98; // fourth argument of the real bundles: the factory writes ES exports
  const def = (id, fn) => __d(id, [], (g, require, d, n, l, module, exports) => fn(require, exports), ESM);
  const PATIENCE = 5000; // ms; a context that can't start must not hold up the page

  def('StandinContexts', (require, exports) => {
    const answer = (target) => new Promise((resolve) => (target.onmessage = resolve));
    const iframe = () => {
      const frame = document.createElement('iframe');
      frame.src = '/frame';
      frame.hidden = true;
      document.body.append(frame);
      return new Promise((resolve) =>
        addEventListener('message', ({ source }) => source === frame.contentWindow && resolve()),
      );
    };
    const worker = () => answer((exports.worker = new Worker('/worker.js')));
    const sharedWorker = () => answer((exports.sharedWorker = new SharedWorker('/shared-worker.js')).port);
    const serviceWorker = async () => {
      if (!self.__standin.serviceWorker) return;
      await navigator.serviceWorker.register('/sw.js');
      const { active } = await navigator.serviceWorker.ready;
      const { port1, port2 } = new MessageChannel();
      active.postMessage('tell', [port2]);
      return answer(port1);
    };
    const unlessImpossible = async (start) => {
      try {
        await start();
      } catch (error) {
        console.warn('stand-in: a context did not start', error);
      }
    };

    /** Starts all; resolves when each has told the server what it says of itself. */
    exports.start = () => {
      const all = [self.standinTell, iframe, worker, sharedWorker, serviceWorker].map(unlessImpossible);
      return Promise.race([Promise.all(all), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
    };
  });
})();
