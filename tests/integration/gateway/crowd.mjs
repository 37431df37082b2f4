// Many applications at once, each with socket.io-client and its defaults: every one joins its sessions.
// Reads {url, tokens} from its arguments; prints a line for each client that has joined, failed or lost its connection.
import { createRequire } from "node:module";

const { io } = createRequire(new URL("../../../gateway/client/", import.meta.url))("socket.io-client");
const { url, tokens } = JSON.parse(process.argv[2]);
const report = (event, detail) => console.log(JSON.stringify([event, detail ?? null]));

for (const token of tokens) {
  const socket = io(url, { auth: { token }, forceNew: true, reconnection: false, timeout: 120_000 });
  socket.on("connect", () => {
    socket.emit("init", {}, (answer) => (answer.ok ? report("joined") : report("failed", answer.problem)));
  });
  socket.on("connect_error", (error) => report("failed", error.message));
  socket.on("disconnect", (reason) => report("disconnected", reason));
  socket.io.engine.on("upgrade", () => report("upgraded"));
}
process.stdin.on("end", () => process.exit(0)).resume();
