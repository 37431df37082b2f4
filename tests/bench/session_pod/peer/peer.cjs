/* whatsapp-web.js as its README and guide have it used: Client with LocalAuth, Chromium without its sandbox where it runs as
 * root. The benchmark talks to it in JSON lines: its argument says how to start, its output is what the client tells
 * ({"event": ...}), its input are orders ({"id", "to", "text", "options"}), each answered by {"id", ...}. */
'use strict';
const readline = require('node:readline');
const { performance } = require('node:perf_hooks');
const { Client, LocalAuth } = require('whatsapp-web.js');

const { dataPath, chromium, args } = JSON.parse(process.argv[2]);
const tell = (line) => process.stdout.write(JSON.stringify(line) + '\n');

process.chdir(dataPath); // it caches the page's HTML in the working directory
const client = new Client({
    authStrategy: new LocalAuth({ dataPath }),
    puppeteer: { executablePath: chromium, args },
});

let received = 0;
client.on('qr', (qr) => tell({ event: 'qr', qr }));
client.on('authenticated', () => tell({ event: 'authenticated' }));
client.on('ready', () => tell({ event: 'ready' }));
client.on('disconnected', (reason) => tell({ event: 'disconnected', reason }));
let webhook = null; // the URL to tell of each message
client.on('message', async (message) => {
    received += 1;
    if (webhook === null) return;
    const body = JSON.stringify({ type: 'message', data: { chatId: message.from, text: message.body } });
    const headers = { 'Content-Type': 'application/json', 'webhook-id': message.id._serialized };
    await fetch(webhook, { method: 'POST', headers, body }).catch(() => {});
});

const orders = {
    received: () => ({ received }),
    tell({ url }) {
        webhook = url;
        return {};
    },
    /** Milliseconds that the client's own call took. */
    async send({ to, text, options }) {
        const before = performance.now();
        await client.sendMessage(to, text, options);
        return { ms: performance.now() - before };
    },
    async stop() {
        await client.destroy();
        return {};
    },
};
readline.createInterface({ input: process.stdin }).on('line', async (line) => {
    const { id, order, ...values } = JSON.parse(line);
    try {
        tell({ id, ...(await orders[order](values)) });
    } catch (error) {
        tell({ id, error: String(error) });
    }
    if (order === 'stop') process.exit(0);
});

client.initialize().catch((error) => tell({ event: 'failed', reason: String(error) }));
