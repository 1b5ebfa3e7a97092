// A stream of lines 0, 1, 2, …, and which of them were acknowledged.
import assert from "node:assert/strict";

/** How long an answer may take. Longer than the gateway waits for its store. */
const ANSWER_MS = 25_000;
const TYPE = { "content-type": "text/plain" };

export class Lines {
  #next = 0;
  #acked = [];

  constructor(name) {
    this.path = `/v1/stream/${name}`;
  }

  async create(base) {
    assert.equal((await send(base + this.path, "PUT")).status, 201);
  }

  /** Appends the next line. Returns the answer; throws where there is none. */
  async append(base) {
    const line = this.#next;
    this.#next += 1;
    const answer = await send(base + this.path, "POST", `${line}\n`);
    if (answer.status === 204) this.#acked.push(line);
    return answer;
  }

  /** Appends until there is no answer any more, or one that is no success. Returns how many were acknowledged. */
  async appendUntilItEnds(base) {
    const before = this.#acked.length;
    try {
      while ((await this.append(base)).status === 204);
    } catch {
      // The process is gone. Whether the last line landed is not known.
    }
    return this.#acked.length - before;
  }

  /** Every acknowledged line is there; every line that is there was sent; each stands once and in its place. */
  async check(base) {
    const answer = await fetch(base + this.path, { signal: AbortSignal.timeout(ANSWER_MS) });
    assert.equal(answer.status, 200);
    const lines = (await answer.text()).trimEnd().split("\n").map(Number);
    assert.ok(lines.every((line, at) => line < this.#next && (at === 0 || lines[at - 1] < line)), `${lines}`);
    assert.deepEqual(this.#acked.filter((line) => !lines.includes(line)), []);
    return { acked: this.#acked.length, there: lines.length, sent: this.#next };
  }
}

async function send(url, method, body) {
  const answer = await fetch(url, { method, headers: TYPE, body, signal: AbortSignal.timeout(ANSWER_MS) });
  await answer.arrayBuffer();
  return answer;
}
