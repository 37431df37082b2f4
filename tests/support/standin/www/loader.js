/* Meta's module loader, only the surface that clients touch.
 *
 * __d, require (with "__debug".modulesMap), importNamespace, importDefault, requireLazy, ErrorGuard, Bootloader, react. An
 * inline script has queued the calls that came before; this file takes the queues over, as the real loader does.
 *
 * Sources: what wa-js 4.6.0's loader waits for and calls (src/loader), and window.require as whatsapp-web.js 1.34 uses it. */
(function (global) {
  'use strict';
  const ES_EXPORTS = 32; // bit of __d's fourth argument: the factory wrote ES exports
  const modulesMap = Object.create(null);

  function define(id, dependencies, factory, special) {
    if (modulesMap[id]) return;
    modulesMap[id] = { id, dependencies, factory, special: special || 0, exports: null, done: false, error: null };
  }

  function instantiate(id) {
    const entry = modulesMap[id];
    if (!entry) throw new Error('Requiring unknown module "' + id + '"');
    if (entry.error) throw entry.error;
    if (entry.done) return entry;
    entry.done = true;
    const module = { exports: {} };
    entry.exports = module.exports;
    try {
      const { factory } = entry;
      factory(global, require, importDefault, importNamespace, global.requireLazy, module, module.exports);
      entry.exports = module.exports;
      entry.factory = null; // the real page clears it too
    } catch (error) {
      entry.error = error;
      throw error;
    }
    return entry;
  }

  function require(id) {
    return id === '__debug' ? { modulesMap } : instantiate(id).exports;
  }

  function importNamespace(id) {
    const entry = instantiate(id);
    if (entry.special & ES_EXPORTS) return entry.exports;
    return (entry.namespace ??= { ...entry.exports, default: entry.exports });
  }

  function importDefault(id) {
    const entry = instantiate(id);
    return entry.special & ES_EXPORTS ? entry.exports.default : entry.exports;
  }

  function requireLazy(ids, callback) {
    if (ids.every((id) => modulesMap[id])) callback?.(...ids.map(require));
    else setTimeout(() => requireLazy(ids, callback), 20);
  }

  const definitions = global.__d_stub.splice(0);
  const lazyRequires = global.__rl_stub.splice(0);
  global.ErrorGuard = { skipGuardGlobal() {}, applyWithGuard: (work, self, values) => work.apply(self, values || []) };
  global.importNamespace = importNamespace;
  global.importDefault = importDefault;
  global.requireLazy = requireLazy;
  global.__d = define; // wa-js has set traps on __d and require: with the second one it starts
  global.require = require;
  for (const definition of definitions) define(...definition);
  for (const values of lazyRequires) requireLazy(...values);

  define('Bootloader', [], (g, r, d, n, l, module) => {
    module.exports = { loadModules: (names, callback) => setTimeout(callback, 5), __debug: { componentMap: new Map() } };
  });
  define('react', [], (g, r, d, n, l, module) => {
    class Component {}
    class PureComponent extends Component {}
    module.exports = { Component, PureComponent };
  });
})(self);
