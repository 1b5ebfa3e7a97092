// A gateway for the tests of one file, in memory.
import assert from "node:assert/strict";
import { mkdir, open } from "node:fs/promises";
import path from "node:path";
import { startGateway, startStore } from "../conformance/gateway.mjs";

const ROOT = path.join(import.meta.dirname, "../..");
const TARGET = path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target");
/** Where the logs of programs are. */
export const LOGS = process.env.LOGS ?? path.join(TARGET, "test-logs");
/** The program. */
export const BINARY = process.env.TAILWATER_BIN ?? path.join(TARGET, "release/tailwater");

/** How long a response of Server-Sent Events lasts on a gateway that rotates, give or take a tenth. */
export const ROTATING = ["--sse-lifetime", "1s"];

/** Starts a gateway with these arguments; its log is named after the tests that use it. */
export async function gateway(name, ...args) {
  return logged(name, (log) => startGateway(BINARY, ["--memory", "--drain", "1s", ...args], log));
}

/** Starts a gateway to the store at `storeUrl`. */
export async function gatewayTo(storeUrl, name, ...args) {
  return logged(name, (log) => startGateway(BINARY, ["--s2-endpoint", storeUrl, "--drain", "1s", ...args], log));
}

/** Starts a store that gateways can share. */
export async function store(name) {
  return logged(name, (log) => startStore(BINARY, log));
}

async function logged(name, start) {
  await mkdir(LOGS, { recursive: true });
  const log = await open(path.join(LOGS, `${name}.log`), "w");
  const { baseUrl, signal, stop } = await start(log);
  return {
    baseUrl,
    signal,
    stop: async () => {
      const problem = await stop();
      await log.close();
      assert.equal(problem, null);
    },
  };
}
