// The producers of npm @durable-streams/client: a batch is appended once, wherever its request or its answer is cut
// off. The client numbers batches and leaves it to the application to send one again when a connection breaks.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { DurableStream, IdempotentProducer, StaleEpochError } from "@durable-streams/client";
import { gateway } from "./gateway.mjs";
import { freshPath } from "./numbers.mjs";
import { Wire } from "./wire.mjs";

const JSON_TYPE = "application/json";
/** How many producers, each with a stream of its own, share out the places to cut. */
const SHARES = 8;

/** A fetch that sends a request again until its answer has come whole. */
async function persistent(url, init) {
  for (;;) {
    try {
      const answer = await fetch(url, init);
      const body = await answer.arrayBuffer();
      return new Response(answer.status === 204 ? null : body, answer);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
  }
}

/** A stream, a way to it, and a producer on that way. */
async function produce(baseUrl, options) {
  const wire = await Wire.to(baseUrl);
  const path = freshPath();
  const handle = await DurableStream.create({ url: wire.url + path, contentType: JSON_TYPE });
  const errors = [];
  const producer = new IdempotentProducer(handle, "writer", {
    fetch: persistent,
    lingerMs: 0,
    onError: (error) => errors.push(error.message),
    ...options,
  });
  let next = 0;
  return {
    wire,
    handle,
    producer,
    errors,
    append: () => producer.append(JSON.stringify(next++)),
    appended: () => next,
    stored: async () => (await fetch(baseUrl + path)).json(),
  };
}

function upTo(count) {
  return Array.from({ length: count }, (_, i) => i);
}

/** How many bytes the request and the answer of a small batch have on the wire. */
async function sizesOfOneBatch(baseUrl) {
  const one = await produce(baseUrl);
  one.append();
  await one.producer.flush();
  const { sent, replied } = one.wire;
  one.append();
  await one.producer.flush();
  await one.wire.close();
  return { request: one.wire.sent - sent, answer: one.wire.replied - replied };
}

describe("a producer of the npm client", { concurrency: true }, () => {
  let server;
  before(async () => {
    server = await gateway("clients-producer");
  });
  after(() => server?.stop());

  test("appends each batch once, wherever its request or the answer is cut off", async () => {
    const { request, answer } = await sizesOfOneBatch(server.baseUrl);
    assert.ok(request > 100 && answer > 100);
    const cuts = [
      ...upTo(request + 1).map((after) => ({ from: "client", after, start: /^POST / })),
      ...upTo(answer).map((after) => ({ from: "gateway", after, start: /^HTTP/ })),
    ];
    await Promise.all(
      upTo(SHARES).map(async (share) => {
        const one = await produce(server.baseUrl, { maxInFlight: 1 });
        for (const cut of cuts.filter((_, i) => i % SHARES === share)) {
          one.wire.cut(cut);
          one.append();
          await one.producer.flush();
        }
        assert.deepEqual(one.errors, []);
        assert.deepEqual(await one.stored(), upTo(one.appended()));
        assert.ok(one.wire.cuts >= one.appended() - 1);
        await one.wire.close();
      }),
    );
  });

  test("keeps the order of batches that are in flight together while connections break", async () => {
    const one = await produce(server.baseUrl, { maxInFlight: 5, maxBatchBytes: 1 });
    const again = () => {
      const { cuts } = one.wire;
      one.wire.cut({ from: cuts % 2 ? "gateway" : "client", after: (cuts * 97) % 700 });
    };
    one.wire.on("cut", again);
    again();
    while (one.appended() < 200) one.append();
    await one.producer.flush();
    assert.deepEqual(one.errors, []);
    assert.deepEqual(await one.stored(), upTo(200));
    assert.ok(one.wire.cuts > 5, `${one.wire.cuts} cuts`);
    await one.wire.close();
  });

  test("closes a stream with a last message once, although the answer is cut off", async () => {
    const one = await produce(server.baseUrl);
    one.append();
    await one.producer.flush();
    one.wire.cut({ from: "gateway", after: 40 });
    const { finalOffset } = await one.producer.close("1");
    assert.equal(one.wire.cuts, 1);
    assert.deepEqual(await one.stored(), [0, 1]);
    const head = await one.handle.head();
    assert.equal(head.streamClosed, true);
    assert.equal(head.offset, finalOffset);
    await one.wire.close();
  });

  test("takes over by a higher epoch, and the one before it is told so", async () => {
    const one = await produce(server.baseUrl, { epoch: 1 });
    one.append();
    await one.producer.flush();
    const errors = [];
    const successor = new IdempotentProducer(one.handle, "writer", {
      autoClaim: true,
      lingerMs: 0,
      onError: (error) => errors.push(error),
    });
    successor.append("1");
    await successor.flush();
    assert.equal(successor.epoch, 2);
    assert.deepEqual(errors, []);
    const outcome = await one.producer.close("2").catch((error) => error);
    assert.ok(outcome instanceof StaleEpochError, String(outcome));
    assert.equal(outcome.currentEpoch, 2);
    assert.deepEqual(await one.stored(), [0, 1]);
    await one.wire.close();
  });
});
