// A JSON stream whose messages are 0, 1, 2, …, and what a reader has seen of them. The writer goes to the gateway
// directly and uses no client, so that only the reader is on trial.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { within } from "./limit.mjs";

/** The path of a stream that nobody else uses. */
export function freshPath() {
  return `/v1/stream/numbers-${randomUUID()}`;
}

export class Numbers {
  #url;
  /** How many messages there are. */
  count = 0;

  /** A new stream on the gateway at `baseUrl`, with so many messages. */
  static async create(baseUrl, count = 0) {
    const stream = new Numbers();
    stream.path = freshPath();
    stream.#url = baseUrl + stream.path;
    const created = await stream.#send("PUT", { "content-type": "application/json" });
    assert.equal(created.status, 201);
    while (stream.count < count) await stream.append();
    return stream;
  }

  /** Appends the next number. Returns the offset behind it. */
  async append() {
    const answer = await this.#send("POST", { "content-type": "application/json" }, JSON.stringify({ n: this.count }));
    assert.equal(answer.status, 204);
    this.count += 1;
    return answer.headers.get("stream-next-offset");
  }

  /** Appends until `enough()`. The pause lets the messages arrive one by one. */
  async appendUntil(enough, what) {
    const writing = (async () => {
      while (!enough()) {
        await this.append();
        await delay(5);
      }
    })();
    await within(writing, () => what);
  }

  async close() {
    const answer = await this.#send("POST", { "stream-closed": "true" });
    assert.equal(answer.status, 204);
  }

  async #send(method, headers, body) {
    const answer = await fetch(this.#url, { method, headers, body });
    await answer.arrayBuffer();
    return answer;
  }
}

/** What one reader has seen. The first message that is not the next one is its fault. */
export class Received {
  #name;
  #fault = null;
  #waiting = new Set();
  /** How many messages came, each in its turn. */
  count = 0;

  /** `name` is what tells this reader from others where it fails. */
  constructor(name) {
    this.#name = name;
  }

  push(n) {
    if (n === this.count) this.count += 1;
    else this.#fault ??= new Error(`${this.#name}: message ${n} came where ${this.count} was due`);
    for (const look of this.#waiting) look();
  }

  /** The reader failed by itself. */
  fail(error) {
    this.#fault ??= new Error(`${this.#name}: ${error?.message ?? error}`, { cause: error });
    for (const look of this.#waiting) look();
  }

  /** Resolves when `count` messages have come; rejects at a fault, at latest. */
  reached(count) {
    const reached = new Promise((resolve, reject) => {
      const look = () => {
        if (this.#fault === null && this.count < count) return;
        this.#waiting.delete(look);
        if (this.#fault) reject(this.#fault);
        else resolve();
      };
      this.#waiting.add(look);
      look();
    });
    return within(reached, () => `${this.#name}: ${count} messages, only ${this.count} came`);
  }
}
