// The public server suite, against the server named by CONFORMANCE_BASE_URL.
//
// `vitest` and `fast-check` are on purpose no dependencies of this package: the suite brings both, and a second copy of
// either would not be the one that the suite's own tests run in.
import { runConformanceTests } from "@durable-streams/server-conformance-tests";
import * as fc from "fast-check";

const baseUrl = process.env.CONFORMANCE_BASE_URL;
const seed = Number(process.env.FAST_CHECK_SEED);
if (!baseUrl || !Number.isInteger(seed)) {
  throw new Error("CONFORMANCE_BASE_URL and FAST_CHECK_SEED must be set: start the suite with run.mjs");
}

fc.configureGlobal({ seed });
runConformanceTests({ baseUrl, subscriptions: false, longPollTimeoutMs: 500 });
