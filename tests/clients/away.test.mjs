// A page with a plain EventSource, whose gateway drains, is full, or has no store: it must be back without a reload.
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { after, before, describe, test } from "node:test";
import { gatewayTo, store } from "./gateway.mjs";
import { within } from "./limit.mjs";
import { Numbers, Received } from "./numbers.mjs";
import { followByEventSource } from "./plain-event-source.mjs";
import { Wire } from "./wire.mjs";

const LIVE = /^GET .*live=sse/;
/** For how long the store is away. */
const AWAY_MS = Number(process.env.AWAY_MS ?? 8_000);

describe("a plain EventSource is back without a reload", () => {
  let shared;
  const gateways = [];
  const another = async (...args) => {
    const gateway = await gatewayTo(shared.baseUrl, `clients-away-${gateways.length}`, ...args);
    gateways.push(gateway);
    return gateway;
  };
  before(async () => {
    shared = await store("clients-away-store");
  });
  after(async () => {
    await Promise.all(gateways.map((gateway) => gateway.stop()));
    await shared?.stop();
  });

  /** An EventSource that has seen the first message of a stream; `writer` is the gateway that is written to. */
  const follow = async (writer, reader, name) => {
    const stream = await Numbers.create(writer.baseUrl, 1);
    const wire = await Wire.to(reader.baseUrl);
    const received = new Received(name);
    const following = followByEventSource("sse", [{ url: wire.url + stream.path, received }]);
    await received.reached(1);
    const end = async () => {
      following.stop();
      await wire.close();
    };
    return { stream, wire, received, end };
  };

  test("through a drain", async () => {
    const [stays, drains] = [await another(), await another()];
    const { stream, wire, received, end } = await follow(stays, drains, "whose gateway drains");
    try {
      wire.lead(stays.baseUrl);
      gateways.splice(gateways.indexOf(drains), 1);
      await drains.stop();
      await stream.append();
      await received.reached(2);
    } finally {
      await end();
    }
  });

  test("through a full gateway", async () => {
    const writer = await another();
    const full = await another("--max-connections", "1");
    const { stream, wire, received, end } = await follow(writer, full, "whose gateway is full");
    const leaving = new AbortController();
    try {
      const before = wire.requests.filter((line) => LIVE.test(line)).length;
      wire.drop();
      // Whoever is first has the only place; the EventSource waits for a second or so before it comes back.
      const hog = await within(firstIn(`${full.baseUrl}${stream.path}?offset=now&live=sse`, leaving.signal), () => "a place");
      assert.equal(hog.status, 200);
      await wire.requested(LIVE, before + 1);
      await stream.append();
      leaving.abort();
      await received.reached(2);
    } finally {
      leaving.abort();
      await end();
    }
  });

  test("through a time without a store", async () => {
    const gateway = await another();
    const { stream, wire, received, end } = await follow(gateway, gateway, "whose gateway has no store");
    try {
      shared.signal("SIGSTOP");
      const before = wire.requests.filter((line) => LIVE.test(line)).length;
      wire.drop();
      await wire.requested(LIVE, before + 1);
      await delay(AWAY_MS);
      shared.signal("SIGCONT");
      await within(appended(stream), () => "an append");
      await received.reached(2);
    } finally {
      shared.signal("SIGCONT");
      await end();
    }
  });
});

/** The response of whoever is let in as an EventSource; the place of the one before may not be free at once. */
async function firstIn(url, signal) {
  for (;;) {
    const answer = await fetch(url, { signal });
    if (answer.status === 200) return answer;
    await answer.arrayBuffer();
    await delay(20);
  }
}

/** Appends as a client that comes back when it is told to. */
async function appended(stream) {
  for (;;) {
    try {
      return await stream.append();
    } catch (error) {
      if (!(error instanceof assert.AssertionError) || error.actual !== 503) throw error;
      await delay(200);
    }
  }
}
