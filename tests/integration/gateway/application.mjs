// An application with socket.io-client: prints the events that it receives, and emits those that it reads from stdin.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { io } = createRequire(new URL("../../../gateway/client/", import.meta.url))("socket.io-client");
const [url, options] = process.argv.slice(2);
const socket = io(url, JSON.parse(options));
const say = (name, data) => console.log(JSON.stringify([name, data ?? null]));

socket.on("connect", () => say("connect"));
socket.on("disconnect", (reason) => say("disconnect", { reason, active: socket.active }));
socket.on("connect_error", (error) => say("connect_error", { message: error.message, data: error.data, active: socket.active }));
socket.onAny(say);

for await (const line of createInterface({ input: process.stdin })) {
  const [name, payload] = JSON.parse(line);
  socket.emit(name, payload, (answer) => say(`${name} answered`, answer));
}
socket.disconnect();
