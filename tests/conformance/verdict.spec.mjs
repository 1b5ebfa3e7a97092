import assert from "node:assert/strict";
import { test } from "node:test";
import { grown, judge, parseKnown, readReport } from "./verdict.mjs";

const outcome = (name, status, off = false) => ({ name, status, off, message: "" });
const problemsOf = (tests, known = [], expected = 0) => judge({ tests, broken: [] }, known, expected).problems;

test("a passing test counts as passed", () => {
  assert.deepEqual(judge({ tests: [outcome("a", "passed")], broken: [] }, [], 1), { passed: 1, known: [], problems: [] });
});

test("a failing test that is not listed fails the run", () => {
  assert.match(problemsOf([outcome("a", "failed")])[0], /^failed: a/);
});

test("a failing test that is listed counts neither way", () => {
  const verdict = judge({ tests: [outcome("a", "failed")], broken: [] }, ["a"], 1);
  assert.deepEqual(verdict, { passed: 0, known: ["a"], problems: [] });
});

test("a passing test that is listed fails the run", () => {
  assert.match(problemsOf([outcome("a", "passed")], ["a"])[0], /take it off the list/);
});

test("a listed test that does not exist fails the run", () => {
  assert.match(problemsOf([outcome("a", "passed")], ["b"])[0], /no such test: b/);
});

test("a skipped test fails the run unless its group is switched off", () => {
  assert.deepEqual(problemsOf([outcome("a", "skipped", true)]), []);
  assert.match(problemsOf([outcome("a", "skipped")])[0], /not run \(skipped\): a/);
});

test("too few tests fail the run", () => {
  assert.match(problemsOf([outcome("a", "passed")], [], 2)[0], /only 1 tests ran, 2 are expected/);
});

test("a suite that does not load fails the run", () => {
  const report = readReport({ testResults: [{ assertionResults: [], message: "no such module" }] });
  assert.deepEqual(judge(report, [], 0).problems, ["no such module"]);
});

test("a report names each test by its whole path", () => {
  const assertion = { ancestorTitles: ["outer", "inner"], title: "case", status: "passed" };
  const { tests, broken } = readReport({ testResults: [{ assertionResults: [assertion] }] });
  assert.equal(tests[0].name, "outer > inner > case");
  assert.deepEqual(broken, []);
});

test("the list of known failures is sorted, without blanks and without repeats", () => {
  assert.deepEqual(parseKnown(""), []);
  assert.deepEqual(parseKnown("a\nb\n"), ["a", "b"]);
  for (const text of ["a", "b\na\n", "a\na\n", "a\n\nb\n", " a\n"]) assert.throws(() => parseKnown(text), text);
});

test("a name that was not on the list before is growth", () => {
  assert.deepEqual(grown(["a", "b"], ["b"]), []);
  assert.deepEqual(grown(["a"], ["a", "c"]), ["c"]);
});
