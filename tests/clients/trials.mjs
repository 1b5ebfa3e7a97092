// What every client has to stand, whichever it is. A client is a function of ("sse" | "long-poll", readers) that
// returns `{ ended, stop }`, such as `followByNpmClient`.
import assert from "node:assert/strict";
import { within } from "./limit.mjs";
import { Numbers, Received } from "./numbers.mjs";
import { CAUGHT_UP, Wire } from "./wire.mjs";

const LIVE = { sse: /^GET .*live=sse/, "long-poll": /^GET .*live=long-poll/ };
/** Three rotations are four responses. */
const ROTATIONS = 3;
/** Longer than any of the clients waits before it tries again. */
const QUIET_MS = 1_500;

async function reader(baseUrl, stream, name) {
  const wire = await Wire.to(baseUrl);
  return { wire, url: wire.url + stream.path, received: new Received(name) };
}

/** How many bytes one message is on the wire: a live event frame, or a whole answer to a long-poll. */
async function sizeOfOne(baseUrl, live) {
  const stream = await Numbers.create(baseUrl);
  const from = await stream.append();
  const wire = await Wire.to(baseUrl);
  const leaving = new AbortController();
  const get = () => fetch(`${wire.url}${stream.path}?offset=${from}&live=${live}`, { signal: leaving.signal });
  try {
    if (live === "long-poll") {
      await stream.append();
      await (await get()).arrayBuffer();
      return wire.replied;
    }
    await get();
    await wire.heard(CAUGHT_UP);
    const before = wire.replied;
    await stream.append();
    await wire.heard(/data:\[\{"n":1\}\][^]*"upToDate":true\}\n\n\r\n$/);
    return wire.replied - before;
  } finally {
    leaving.abort();
    await wire.close();
  }
}

/**
 * Many readers at once, each cut off after another number of bytes of the same message: at every place, or at every
 * `step`th, or only in the `last` bytes. Each reader must see that message once, and what follows.
 */
export async function survivesCuts(client, live, baseUrl, { step = 1, last = Infinity } = {}) {
  const size = await sizeOfOne(baseUrl, live);
  const stream = await Numbers.create(baseUrl, 1);
  const offsets = [];
  for (let after = size; after >= Math.max(0, size - last); after -= step) offsets.push(after);
  const name = (after) => `cut after ${after} of ${size} bytes`;
  const readers = await Promise.all(offsets.map((after) => reader(baseUrl, stream, name(after))));
  const following = client(live, readers);
  try {
    await Promise.all(readers.map(({ received }) => received.reached(1)));
    for (const [i, { wire }] of readers.entries()) {
      if (live === "sse") {
        await wire.requested(LIVE[live]);
        await wire.heard(CAUGHT_UP);
        wire.cut({ from: "gateway", after: offsets[i] });
      } else {
        // Long-polls that end without a message meanwhile are not what is cut.
        wire.cut({ from: "gateway", after: offsets[i], start: /^HTTP\/1\.1 200 / });
        await wire.requested(LIVE[live]);
      }
    }
    await stream.append();
    await allReach(readers, 2);
    // Whoever sees the cut message again does so before this one.
    await stream.append();
    await allReach(readers, 3);
    assert.deepEqual(readers.map(({ wire }) => wire.cuts), readers.map(() => 1));
  } finally {
    following.stop();
    await Promise.all(readers.map(({ wire }) => wire.close()));
  }
}

async function allReach(readers, count) {
  const outcomes = await Promise.allSettled(readers.map(({ received }) => received.reached(count)));
  const faults = outcomes.filter(({ status }) => status === "rejected").map(({ reason }) => reason.message);
  assert.deepEqual(faults, []);
}

/** A reader of a stream that is written to all the time, on a gateway that rotates, sees each message once. */
export async function survivesRotations(client, baseUrl) {
  const stream = await Numbers.create(baseUrl);
  const one = await reader(baseUrl, stream, "over rotations");
  const following = client("sse", [one]);
  try {
    const responses = () => one.wire.requests.filter((line) => LIVE.sse.test(line)).length;
    for (let response = 1; response <= ROTATIONS + 1; response += 1) {
      await stream.appendUntil(() => responses() >= response, `response ${response}`);
      await stream.append();
      await one.received.reached(stream.count);
    }
    await stream.close();
    await within(following.ended, () => "the end of the reader");
    await one.received.reached(stream.count);
    assert.equal(one.wire.cuts, 0);
  } finally {
    following.stop();
    await one.wire.close();
  }
}

/** A reader who waits at the tail when the stream is closed gets the last message and ends, and does not come back. */
export async function endsAtClosure(client, live, baseUrl) {
  const stream = await Numbers.create(baseUrl, 3);
  const one = await reader(baseUrl, stream, "up to closure");
  const following = client(live, [one]);
  try {
    await one.received.reached(3);
    await one.wire.requested(LIVE[live]);
    await stream.append();
    await one.received.reached(4);
    await stream.close();
    await within(following.ended, () => "the end of the reader");
    await one.wire.quiet(QUIET_MS);
    await one.received.reached(4);
    assert.equal(one.received.count, 4);
  } finally {
    following.stop();
    await one.wire.close();
  }
}

/** A reader who comes when the stream is closed already reads it and ends. */
export async function endsAtOnceWhereAllIsClosed(client, live, baseUrl) {
  const stream = await Numbers.create(baseUrl, 3);
  await stream.close();
  const one = await reader(baseUrl, stream, "of a closed stream");
  const following = client(live, [one]);
  try {
    await within(following.ended, () => "the end of the reader");
    await one.wire.quiet(QUIET_MS);
    await one.received.reached(3);
    assert.equal(one.received.count, 3);
  } finally {
    following.stop();
    await one.wire.close();
  }
}
