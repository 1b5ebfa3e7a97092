// Starts a program and waits until it says where it listens. What it writes goes into a log that is named after it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { within } from "../clients/limit.mjs";

const ROOT = path.join(import.meta.dirname, "../..");
const TARGET = path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target");
const LOGS = process.env.LOGS ?? path.join(TARGET, "test-logs");

/** The program under test. */
export const TAILWATER = process.env.TAILWATER_BIN ?? path.join(TARGET, "release/tailwater");

export class Process {
  #child;
  #exited;
  #log;
  /** Where it listens, once `listening` has resolved. */
  url;

  /**
   * Runs `binary`; with nothing of this environment but PATH, because a setting in it would change what is tested.
   * `listening` is the pattern of the line that names its URL.
   */
  static async spawn(name, binary, args, env, listening = /^listening on (http:\S+)$/) {
    await mkdir(LOGS, { recursive: true });
    const process_ = new Process();
    process_.#log = path.join(LOGS, `bucket-${name}.log`);
    const log = await open(process_.#log, "w");
    const options = { env: { PATH: process.env.PATH, ...env }, stdio: ["ignore", "pipe", "pipe"] };
    const child = spawn(binary, args, options);
    process_.#child = child;
    process_.#exited = once(child, "close").then(async ([code, signal]) => {
      await log.close();
      return signal ?? code;
    });
    process_.listening = new Promise((resolve, reject) => {
      child.once("error", reject);
      process_.#exited.then((how) => reject(new Error(`${name} ended at start: ${how}`)), reject);
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on("line", (line) => {
          log.appendFile(`${line}\n`).catch(reject);
          process_.url ??= listening.exec(line)?.[1];
          if (process_.url) resolve(process_.url);
        });
      }
    });
    process_.listening.catch(() => {});
    return process_;
  }

  /** The same, when it listens. */
  static async start(...args) {
    const process_ = await Process.spawn(...args);
    await within(process_.listening, () => `${args[0]} listens`);
    return process_;
  }

  signal(signal) {
    this.#child.kill(signal);
  }

  /** Its exit code, or the signal that ended it. */
  async ended() {
    return within(this.#exited, () => `the end of ${this.url}`);
  }

  /** SIGTERM, and its exit code. */
  async stop() {
    this.signal("SIGTERM");
    return this.ended();
  }

  /** SIGKILL, and the end. */
  async kill() {
    this.signal("SIGKILL");
    return this.ended();
  }

  /** What it has written so far. */
  async log() {
    return readFile(this.#log, "utf8");
  }
}
