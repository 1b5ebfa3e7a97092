// Runs the protocol's reference server, as it is installed: node reference.mjs FOLDER PORT [DATA-FOLDER]
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, port, dataDir] = process.argv.slice(2);
const resolve = createRequire(path.join(path.resolve(folder), "resolve.cjs")).resolve;
const { DurableStreamTestServer } = await import(pathToFileURL(resolve("@durable-streams/server")));

const server = new DurableStreamTestServer({ host: "127.0.0.1", port: Number(port), ...(dataDir && { dataDir }) });
await server.start();
// Its own stop waits for every reader; nothing that it holds is needed again.
process.on("SIGTERM", () => process.exit(0));
