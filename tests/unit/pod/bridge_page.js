/* bridge.js on a page that has only what a test gives it: one request and one answer a line, in JSON.
 *
 * Values are those of the stand-in's odd fields: {$wid}, {$key}, {$throws}, {$absent}. */
const source = require('fs').readFileSync(process.argv[2], 'utf8');

class Wid {
  constructor(text) {
    this._serialized = text;
  }
  toString() {
    return this._serialized;
  }
  isGroup() {
    return this._serialized.endsWith('@g.us');
  }
  isLid() {
    return this._serialized.endsWith('@lid');
  }
  isStatusV3() {
    return this._serialized === 'status@broadcast';
  }
}
class MsgKey {
  constructor({ fromMe, remote, id, participant }) {
    Object.assign(this, { fromMe, remote, id, participant });
    this._serialized = [fromMe, remote, id, participant].filter((part) => part !== undefined).join('_');
  }
  toString() {
    return this._serialized;
  }
  static fromString(text) {
    const [fromMe, remote, id, participant] = text.split('_');
    const wid = participant && new Wid(participant);
    return new MsgKey({ fromMe: fromMe === 'true', remote: new Wid(remote), id, participant: wid });
  }
}
const decode = (json) => {
  if (json === null || typeof json !== 'object') return json;
  if (Array.isArray(json)) return json.map(decode);
  if ('$absent' in json) return undefined;
  if ('$utf16' in json) return String.fromCharCode(...json.$utf16);
  if ('$wid' in json) return new Wid(json.$wid);
  if ('$key' in json) return new MsgKey(fields(json.$key));
  return fields(json);
};
const fields = (json) => {
  const object = {};
  for (const [name, value] of Object.entries(json)) {
    const get = () => {
      if (value?.$throws) throw new Error(value.$throws);
      return decode(value);
    };
    Object.defineProperty(object, name, { get, enumerable: true });
  }
  return object;
};

let result; // of the page's functions
const modules = {
  WAWebUserPrefsMeUser: { isMeAccount: (wid) => String(wid) === '15551234567@c.us' },
  WAWebUserPrefsMultiDevice: { getPairingTimestamp: () => 1000 },
};
const listeners = {};
const messages = new Map();
const lids = { '98765432101234@lid': '15550009999@c.us' };
const WPP = {
  on: (name, listener) => (listeners[name] = [...(listeners[name] || []), listener]),
  util: { createWid: (id) => new Wid(id) },
  whatsapp: {
    MsgKey,
    lidPnCache: {
      getPhoneNumber: (lid) => lids[lid] && new Wid(lids[lid]),
      getCurrentLid: () => undefined,
    },
  },
  chat: {
    getMessageById: async (id) => {
      if (!messages.has(String(id))) throw new Error('not found');
      return messages.get(String(id));
    },
  },
  loader: { search: () => null },
};
for (const [id, name] of Object.entries({
  WAWebDBProcessEditProtocolMsgs: 'processEditProtocolMsgs',
  WAWebDBProcessRevokeMsgs: 'processRevokeMsgs',
  WAWebReactionsMsgAction: 'addOrUpdateReactionsModelCollection',
  WAWebDBPollsUpsertVotes: 'upsertVotesDb',
  WAWebUpdateDbForGroupActionApi: 'updateDBForGroupAction',
})) {
  modules[id] = { [name]: async () => result };
}
const window = {};
const load = (id) => {
  if (!modules[id]) throw new Error(`no module ${id}`);
  return modules[id];
};
new Function('window', 'WPP', 'require', source)(window, WPP, load);
const events = [];
window.__wasessionConnect((event) => event !== 'secret' && events.push(JSON.parse(event)), 'secret');
for (const listener of listeners['loader.injected']) listener();
events.length = 0;

const requests = {
  message: async ({ id, fields: json }) => {
    messages.set(id, fields(json));
    return window.__wasession.message(id);
  },
  /** Call a module's function, as WhatsApp does; return what the bridge tells. */
  done: async ({ module, name, values, result: returned, known = {} }) => {
    for (const [id, json] of Object.entries(known)) messages.set(id, fields(json));
    result = returned === undefined ? undefined : decode(returned);
    await modules[module][name](...values.map(decode));
    await new Promise(setImmediate);
    return events.splice(0);
  },
  call: ({ fields: json }) => {
    for (const listener of listeners['call.incoming_call']) listener(fields(json));
    return events.splice(0);
  },
};
require('readline')
  .createInterface({ input: process.stdin })
  .on('line', async (line) => {
    const { request, ...rest } = JSON.parse(line);
    const answer = await Promise.resolve(rest)
      .then(requests[request])
      .then((value) => ({ value }), (error) => ({ error: String(error.stack) }));
    console.log(JSON.stringify(answer));
  });
