// Starts the gateway for one run of the suite, and ends it the way an operator would.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const START_LIMIT_MS = 30_000;
const STOP_LIMIT_MS = 60_000;
const LISTENING = /^listening on (https?:\/\/\S+?)\/?$/;

/** Settles like `promise`, or rejects with `message` after `limit` milliseconds. */
async function within(limit, promise, message) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(message)), limit);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Runs `binary serve` on a port of its own choice.
 *
 * @param binary path of the program
 * @param storeArgs the arguments that name the store
 * @param log file handle that takes what the program writes
 */
export async function startGateway(binary, storeArgs, log) {
  return start(binary, ["serve", "--listen", "127.0.0.1:0", "--long-poll-timeout", "500ms", ...storeArgs], log);
}

/** Runs `binary store`, in memory, on a port of its own choice. */
export async function startStore(binary, log) {
  return start(binary, ["store", "--listen", "127.0.0.1:0", "--memory"], log);
}

async function start(binary, args, log) {
  // A setting in the environment would silently change what is tested.
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("TAILWATER_")));
  const child = spawn(binary, args, { env, stdio: ["ignore", "pipe", log.fd] });
  const exited = once(child, "exit").then(([code, signal]) => ({ code, signal }));
  exited.catch(() => {});

  const address = new Promise((resolve, reject) => {
    child.once("error", (error) => reject(new Error(`cannot start ${binary}: ${error.message}`)));
    child.once("exit", (code, signal) => reject(new Error(`the program ended at start: ${signal ?? `exit ${code}`}`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      log.write(`${line}\n`);
      const match = LISTENING.exec(line);
      if (match) resolve(match[1]);
    });
  });
  try {
    const baseUrl = await within(START_LIMIT_MS, address, "the program did not say where it listens");
    return { baseUrl, signal: (name) => child.kill(name), stop: () => stop(child, exited) };
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
}

/** Ends the gateway. Returns what was wrong with how it went, or `null`. */
async function stop(child, exited) {
  if (child.exitCode !== null || child.signalCode !== null) {
    return `the gateway ended by itself: ${child.signalCode ?? `exit ${child.exitCode}`}`;
  }
  child.kill("SIGTERM");
  try {
    const { code, signal } = await within(STOP_LIMIT_MS, exited, "");
    return code === 0 ? null : `the gateway did not end cleanly: ${signal ?? `exit ${code}`}`;
  } catch {
    child.kill("SIGKILL");
    return `the gateway did not end within ${STOP_LIMIT_MS / 1000} s of SIGTERM`;
  }
}
