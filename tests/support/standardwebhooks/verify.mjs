// Reads {"key", "headers", "body"} and prints the body as the library for Node.js has verified it.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { key, headers, body } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(new Webhook(key).verify(body, headers)));
