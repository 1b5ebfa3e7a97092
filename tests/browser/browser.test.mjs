// Chromium's own EventSource and the npm client in a page, against a gateway of another origin.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { gateway, ROTATING } from "../clients/gateway.mjs";
import { freshPath } from "../clients/numbers.mjs";
import { endsAtClosure, endsAtOnceWhereAllIsClosed, survivesCuts, survivesRotations } from "../clients/trials.mjs";
import { openPage } from "./site.mjs";

describe("a page of another origin", { concurrency: true }, () => {
  let plain;
  let rotating;
  let site;
  const following = new Map();
  let nextReader = 0;

  before(async () => {
    plain = await gateway("browser");
    rotating = await gateway("browser-rotating", ...ROTATING);
    site = await openPage((reader, what) => following.get(reader)(what));
  });
  after(async () => {
    await site?.close();
    await Promise.all([plain?.stop(), rotating?.stop()]);
    assert.deepEqual(site?.faults, [], "errors that nobody in the page has caught");
  });

  /** The readers of one kind as the trials want them; see `followByNpmClient` of the clients' tests. */
  function pageReader(client) {
    return (live, readers) => {
      const named = readers.map(({ url, received }) => ({ reader: nextReader++, url, received }));
      const ends = named.map(
        ({ reader, received }) =>
          new Promise((resolve) => {
            following.set(reader, ({ n, ended, error }) => {
              if (n !== undefined) received.push(n);
              if (error) received.fail(new Error(error));
              if (ended) resolve();
            });
          }),
      );
      const start = named.map(({ reader, url }) => ({ reader, url }));
      const started = site.page.evaluate(([client, live, start]) => follow(client, live, start), [client, live, start]);
      const names = named.map(({ reader }) => reader);
      return {
        ended: started.then(() => Promise.all(ends)),
        stop: () => void site.page.evaluate((names) => leave(names), names).catch(() => {}),
      };
    };
  }

  async function ask(path, method = "GET", headers = {}, body = undefined) {
    const answer = await site.page.evaluate(([url, method, headers, body]) => ask(url, method, headers, body), [
      plain.baseUrl + path,
      method,
      headers,
      body,
    ]);
    const has = (...names) => {
      const missing = names.filter((name) => !(name in answer.headers));
      assert.deepEqual(missing, [], `hidden from the page at ${method} ${path}: ${missing}`);
    };
    return { ...answer, has };
  }

  test("sees every header of the protocol", async () => {
    const path = freshPath();
    const json = { "content-type": "application/json" };
    const created = await ask(path, "PUT", { ...json, "stream-ttl": "600" });
    assert.equal(created.status, 201);
    created.has("stream-next-offset", "location", "content-type");
    const head = await ask(path, "HEAD");
    head.has("stream-next-offset", "stream-ttl", "cache-control", "content-type");

    const producer = (seq) => ({ ...json, "producer-id": "page", "producer-epoch": "3", "producer-seq": String(seq) });
    const first = await ask(path, "POST", producer(0), "[1]");
    assert.equal(first.status, 200);
    first.has("stream-next-offset", "producer-epoch", "producer-seq");
    const gap = await ask(path, "POST", producer(5), "[2]");
    assert.equal(gap.status, 409);
    gap.has("producer-expected-seq", "producer-received-seq");

    const read = await ask(path);
    assert.equal(read.body, "[1]");
    read.has("stream-next-offset", "stream-up-to-date", "etag");
    assert.equal((await ask(path, "GET", { "if-none-match": read.headers.etag })).status, 304);
    const poll = await ask(`${path}?offset=-1&live=long-poll`);
    poll.has("stream-next-offset", "stream-up-to-date", "stream-cursor");

    const closed = await ask(path, "POST", { "stream-closed": "true" });
    assert.equal(closed.status, 204);
    closed.has("stream-closed", "stream-next-offset");
    const late = await ask(path, "POST", json, "[3]");
    assert.equal(late.status, 409);
    late.has("stream-closed", "stream-next-offset");

    const expiring = freshPath();
    await ask(expiring, "PUT", { "content-type": "image/png", "stream-expires-at": "2099-01-01T00:00:00Z" }, "x");
    (await ask(expiring, "HEAD")).has("stream-expires-at");
    const binary = await ask(`${expiring}?offset=-1&live=sse`);
    binary.has("stream-sse-data-encoding");
    assert.equal(binary.headers["stream-sse-data-encoding"], "base64");
  });

  test("writes with everything that the npm client sends", async () => {
    const stored = await site.page.evaluate((url) => write(url), plain.baseUrl + freshPath());
    assert.deepEqual(stored, [{ n: 0 }, { n: 1 }, { n: 2 }, { n: 3 }]);
  });

  test("sees the reason of a refusal", async () => {
    const refused = await ask(`${freshPath()}?offset=-1`);
    assert.equal(refused.status, 404);
    assert.equal(refused.headers["content-type"], "application/problem+json");
    assert.equal(JSON.parse(refused.body).status, 404);
  });

  for (const [name, client] of [["its EventSource", "event-source"], ["the npm client", "npm"]]) {
    test(`goes on with ${name} after a cut between any two bytes of a message`, async () => {
      // Each reader has a connection of its own, and Chromium has no more than 255.
      await survivesCuts(pageReader(client), "sse", plain.baseUrl, { step: 4 });
    });

    test(`loses and repeats nothing with ${name} over three rotations`, async () => {
      await survivesRotations(pageReader(client), rotating.baseUrl);
    });

    test(`stops with ${name} at closure`, async () => {
      await endsAtClosure(pageReader(client), "sse", plain.baseUrl);
    });

    test(`stops with ${name} where all is closed`, async () => {
      await endsAtOnceWhereAllIsClosed(pageReader(client), "sse", plain.baseUrl);
    });
  }

  test("goes on with the npm client over long-polls after a cut between any two bytes of a message", async () => {
    // Not in the head: over plain HTTP, Chromium takes what it has of a head that is cut off for the whole answer.
    await survivesCuts(pageReader("npm"), "long-poll", plain.baseUrl, { last: '[{"n":1}]'.length });
  });

  test("stops with the npm client at closure over long-polls", async () => {
    await endsAtClosure(pageReader("npm"), "long-poll", plain.baseUrl);
  });
});
