// A reader that uses PyPI durable-streams, in a process of its own.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";

const PYTHON = path.join(import.meta.dirname, ".venv/bin/python");
const SCRIPT = path.join(import.meta.dirname, "clients.py");

/** Runs clients.py, hands each value that it prints to `see`, and resolves at its end. */
function run(args, input, see) {
  const child = spawn(PYTHON, [SCRIPT, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(input);
  createInterface({ input: child.stdout }).on("line", (line) => see(JSON.parse(line)));
  return { child, exited: once(child, "close").then(([code, signal]) => ({ code, signal })) };
}

/** What `clients.py round-trip` has seen, as one object. */
export async function roundTripByPythonClient(url) {
  const seen = {};
  const { exited } = run(["round-trip", url], "", (value) => Object.assign(seen, value));
  assert.deepEqual(await exited, { code: 0, signal: null });
  return seen;
}

/** Follows each `{ url, received }`; see `followByNpmClient`. */
export function followByPythonClient(live, readers) {
  const { child, exited } = run(["follow", live], readers.map(({ url }) => url).join("\n"), ({ reader, n, error }) => {
    const { received } = readers[reader];
    if (error) received.fail(new Error(error));
    else if (n !== undefined) received.push(n);
  });
  const ended = exited.then(({ code, signal }) => {
    if (code === 0 || signal === "SIGTERM") return;
    for (const { received } of readers) received.fail(new Error(`python ended with ${signal ?? code}`));
  });
  return { ended, stop: () => child.kill() };
}
