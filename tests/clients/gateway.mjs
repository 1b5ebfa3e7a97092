// A gateway for the tests of one file, in memory.
import assert from "node:assert/strict";
import { mkdir, open } from "node:fs/promises";
import path from "node:path";
import { startGateway } from "../conformance/gateway.mjs";

const ROOT = path.join(import.meta.dirname, "../..");
const TARGET = path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target");
const LOGS = process.env.LOGS ?? path.join(TARGET, "test-logs");
const BINARY = process.env.TAILWATER_BIN ?? path.join(TARGET, "release/tailwater");

/** How long a response of Server-Sent Events lasts on a gateway that rotates, give or take a tenth. */
export const ROTATING = ["--sse-lifetime", "1s"];

/** Starts a gateway with these arguments; its log is named after the tests that use it. */
export async function gateway(name, ...args) {
  await mkdir(LOGS, { recursive: true });
  const log = await open(path.join(LOGS, `${name}.log`), "w");
  const { baseUrl, stop } = await startGateway(BINARY, ["--memory", "--drain", "1s", ...args], log);
  return {
    baseUrl,
    stop: async () => {
      const problem = await stop();
      await log.close();
      assert.equal(problem, null);
    },
  };
}
