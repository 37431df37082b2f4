/* Meta's module loader, only the surface that wa-js and whatsapp-web.js touch: __d, require, importNamespace,
 * importDefault, requireLazy, ErrorGuard, require("__debug").modulesMap, Bootloader. An inline stub has queued early calls. */
(function (g) {
  'use strict';
  const ESM = 32; // bit of the 4th __d argument ("special"): factory wrote ES exports
  const modulesMap = Object.create(null);

  function define(id, deps, factory, special) {
    if (modulesMap[id]) return;
    modulesMap[id] = {
      id, dependencies: deps || [], factory,
      special: special || 0, exports: null, done: false, error: null,
    };
  }
  function instantiate(id) {
    const m = modulesMap[id];
    if (!m) throw new Error('Requiring unknown module "' + id + '"');
    if (m.done) { if (m.error) throw m.error; return m; }
    m.done = true;
    const module = { exports: {} };
    m.exports = module.exports;
    try {
      // (global, require, importDefault, importNamespace, requireLazy, module, exports)
      m.factory(g, require, importDefault, importNamespace, g.requireLazy, module, module.exports);
      m.exports = module.exports;
      m.factory = null; // real page: "clear_js_factory_after_used": true
    } catch (e) { m.error = e; throw e; }
    return m;
  }
  function require(id) {
    if (id === '__debug') return { modulesMap };
    const m = instantiate(id);
    return m.exports;
  }
  function importNamespace(id) {
    const m = instantiate(id);
    if (m.special & ESM) return m.exports;
    return (m.ns = m.ns || Object.assign({}, m.exports, { default: m.exports }));
  }
  function importDefault(id) {
    const m = instantiate(id);
    return m.special & ESM ? m.exports.default : m.exports;
  }
  function requireLazy(ids, cb) {
    const tick = () => {
      if (ids.every((i) => modulesMap[i])) cb && cb.apply(null, ids.map(require));
      else setTimeout(tick, 20);
    };
    tick();
  }

  const stubD = g.__d_stub || [], stubRL = g.__rl_stub || [];
  g.ErrorGuard = { skipGuardGlobal() {}, applyWithGuard: (f, c, a) => f.apply(c, a || []) };
  g.importNamespace = importNamespace;
  g.importDefault = importDefault;
  g.requireLazy = requireLazy;
  g.__d = define;       // hits wa-js's setter trap again (first time was the stub)
  g.require = require;  // now both exist -> wa-js starts its Meta loader path
  stubD.splice(0).forEach((a) => define.apply(null, a));
  stubRL.splice(0).forEach((a) => requireLazy.apply(null, a));

  define('Bootloader', [], function (t, n, r, o, a, i) {
    const componentMap = new Map();
    i.exports = {
      loadModules(names, cb) { setTimeout(cb, 5); },
      __debug: { componentMap },
    };
  }, 0);
  define('react', [], function (t, n, r, o, a, i) {
    class Component {} class PureComponent extends Component {}
    i.exports = { Component, PureComponent };
  }, 0);
})(self);
