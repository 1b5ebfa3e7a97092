// What a run of the suite amounts to: pure functions over the report, the list of known failures and its history.

/** Tests that version 0.3.6 of the suite runs without the subscription API. Fewer means that something was not run. */
export const EXPECTED_TESTS = 332;

/** The one group that the options of the run switch off. */
const SWITCHED_OFF = "Reserved subscription APIs";

/** The names in a list of known failures: one a line, sorted, no blanks, no repeats. */
export function parseKnown(text) {
  if (text === "") return [];
  if (!text.endsWith("\n")) throw new Error("known-failures.txt must end with a line break");
  const names = text.slice(0, -1).split("\n");
  names.forEach((name, i) => {
    if (name !== name.trim() || name === "") throw new Error(`known-failures.txt:${i + 1}: blank line or stray blank`);
    if (i > 0 && names[i - 1] >= name) throw new Error(`known-failures.txt:${i + 1}: not sorted, or twice`);
  });
  return names;
}

/** Vitest's JSON report as a flat list of `{ name, status, message }`, and what went wrong outside of any test. */
export function readReport(report) {
  const tests = [];
  const broken = [];
  for (const file of report.testResults) {
    if (file.assertionResults.length === 0) broken.push(file.message || "the suite could not be loaded");
    for (const test of file.assertionResults) {
      const off = test.ancestorTitles.includes(SWITCHED_OFF);
      const name = [...test.ancestorTitles, test.title].join(" > ");
      tests.push({ name, off, status: test.status, message: (test.failureMessages ?? []).join("\n") });
    }
  }
  return { tests, broken };
}

/**
 * Holds the outcome against the known failures.
 *
 * @returns `passed`: how many tests passed as they should; `problems`: one text for each thing that fails the run;
 *   `known`: the names that failed and may.
 */
export function judge({ tests, broken }, knownNames, expected = EXPECTED_TESTS) {
  const problems = [...broken];
  const known = [];
  let passed = 0;
  let executed = 0;
  const unseen = new Set(knownNames);
  for (const { name, off, status, message } of tests) {
    const listed = unseen.delete(name) || knownNames.includes(name);
    if (status === "passed") {
      executed += 1;
      if (listed) problems.push(`passes, but is listed as a known failure (take it off the list): ${name}`);
      else passed += 1;
    } else if (status === "failed") {
      executed += 1;
      if (listed) known.push(name);
      else problems.push(`failed: ${name}\n${message}`);
    } else if (!off) {
      problems.push(`not run (${status}): ${name}`);
    }
  }
  for (const name of unseen) problems.push(`listed as a known failure, but no such test: ${name}`);
  if (executed < expected) problems.push(`only ${executed} tests ran, ${expected} are expected`);
  return { passed, known, problems };
}

/** The names that a version of the list has and the version before had not: the list may only shrink. */
export function grown(before, after) {
  const had = new Set(before);
  return after.filter((name) => !had.has(name));
}
