// Runs the public suite once against a gateway of its own, and holds the outcome against known-failures.txt.
//
//   node run.mjs [--store memory|directory] [--tls] [--stays] [--seed random|<integer>] [--logs <folder>] [--base-url <url>]
//
// The gateway is $TAILWATER_BIN, or release/tailwater in the target folder; with --base-url, a server that runs already. Needs `npm ci`.
// The last line is `conformance (<store>[ over tls| without shards], seed <seed>): N passed, N failed`; a known failure counts neither way.
import { spawn, execFileSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { makeCertificate } from "./certificate.mjs";
import { startGateway } from "./gateway.mjs";
import { grown, judge, parseKnown, readReport } from "./verdict.mjs";

const HERE = import.meta.dirname;
const ROOT = path.join(HERE, "../..");
const TARGET = path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target");
const KNOWN = path.join(HERE, "known-failures.txt");
const SUITE_LIMIT_MS = 10 * 60_000;

/** Every committed version of the list, oldest first, and the one in the tree. */
async function knownVersions() {
  const current = await readFile(KNOWN, "utf8");
  const git = (...args) => execFileSync("git", ["-C", HERE, ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  let commits;
  try {
    commits = git("log", "--first-parent", "--format=%H", "--diff-filter=AM", "--", "known-failures.txt").split("\n").filter(Boolean);
  } catch {
    return [current]; // an unpacked archive, or nothing committed yet
  }
  return [...commits.reverse().map((commit) => git("show", `${commit}:./known-failures.txt`)), current];
}

/** The known failures, and a problem for each name that the list has gained since it was first committed. */
async function readKnown() {
  const versions = (await knownVersions()).map(parseKnown);
  const gained = versions.slice(1).flatMap((after, i) => grown(versions[i], after));
  const problems = [...new Set(gained)].map((name) => `known-failures.txt may only shrink, but gained: ${name}`);
  return { names: versions.at(-1), problems };
}

/** Runs vitest to its end and returns its report. */
async function runSuite(baseUrl, seed, authority, reportPath, log) {
  const args = [path.join(HERE, "node_modules/vitest/vitest.mjs"), "run", "--root", HERE];
  args.push("--reporter=json", `--outputFile=${reportPath}`);
  const env = { ...process.env, CONFORMANCE_BASE_URL: baseUrl, FAST_CHECK_SEED: String(seed) };
  if (authority) env.NODE_EXTRA_CA_CERTS = authority;
  const child = spawn(process.execPath, args, { cwd: HERE, env, stdio: ["ignore", log.fd, log.fd], timeout: SUITE_LIMIT_MS });
  const [code, signal] = await once(child, "exit");
  const report = readReport(JSON.parse(await readFile(reportPath, "utf8")));
  const anyFailed = report.tests.some((test) => test.status === "failed");
  if (signal || (code !== 0 && !anyFailed)) report.broken.push(`vitest ended with ${signal ?? `exit ${code}`} although no test failed`);
  return report;
}

function parseOptions() {
  const { values } = parseArgs({
    options: {
      store: { type: "string", default: "memory" },
      tls: { type: "boolean", default: false },
      // Live responses stay with the HTTP library, instead of going to delivery shards.
      stays: { type: "boolean", default: false },
      seed: { type: "string", default: "random" },
      logs: { type: "string", default: path.join(TARGET, "test-logs") },
      "base-url": { type: "string" },
    },
  });
  if (!["memory", "directory"].includes(values.store)) throw new Error("--store is memory or directory");
  const seed = values.seed === "random" ? randomInt(2 ** 31) : Number(values.seed);
  if (!Number.isInteger(seed)) throw new Error("--seed is random or an integer");
  const binary = process.env.TAILWATER_BIN ?? path.join(TARGET, "release/tailwater");
  return { store: values.store, tls: values.tls, stays: values.stays, seed, binary, logs: path.resolve(values.logs), baseUrl: values["base-url"] };
}

/** One run: the gateway up, the suite through, the gateway down. */
async function run({ store, tls, stays, seed, binary, logs, baseUrl }) {
  await mkdir(logs, { recursive: true });
  const scratch = await mkdtemp(path.join(tmpdir(), "tailwater-conformance-"));
  const logPath = path.join(logs, `conformance-${store}${tls ? "-tls" : ""}${stays ? "-stays" : ""}-${seed}.log`);
  const log = await open(logPath, "w");
  try {
    const known = await readKnown();
    const storeArgs = store === "memory" ? ["--memory"] : ["--data-dir", path.join(scratch, "data")];
    const pair = tls ? await makeCertificate(scratch) : null;
    if (pair) storeArgs.push("--tls-cert", pair.certificate, "--tls-key", pair.key);
    if (stays) storeArgs.push("--delivery-shards", "0");
    const gateway = baseUrl ? { baseUrl, stop: async () => null } : await startGateway(binary, storeArgs, log);
    let verdict;
    let ending;
    try {
      verdict = judge(await runSuite(gateway.baseUrl, seed, pair?.certificate, path.join(scratch, "report.json"), log), known.names);
    } finally {
      ending = await gateway.stop();
    }
    return { ...verdict, problems: [...verdict.problems, ...known.problems, ...(ending ? [ending] : [])], logPath };
  } finally {
    await log.close();
    await rm(scratch, { recursive: true, force: true });
  }
}

const options = parseOptions();
const what = `${options.store}${options.tls ? " over tls" : ""}${options.stays ? " without shards" : ""}`;
console.log(`store ${what}, fast-check seed ${options.seed}`);
const outcome = await run(options).catch((error) => ({ passed: 0, known: [], problems: [error.message] }));
for (const name of outcome.known) console.log(`known: ${name}`);
for (const problem of outcome.problems) console.log(problem);
if (outcome.problems.length > 0 && outcome.logPath) console.log(`log: ${outcome.logPath}`);
console.log(`conformance (${what}, seed ${options.seed}): ${outcome.passed} passed, ${outcome.problems.length} failed`);
process.exitCode = outcome.problems.length === 0 ? 0 : 1;
