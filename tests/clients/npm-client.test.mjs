// npm @durable-streams/client, reading.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { DurableStream, stream } from "@durable-streams/client";
import { gateway, ROTATING } from "./gateway.mjs";
import { followByNpmClient } from "./npm-client.mjs";
import { within } from "./limit.mjs";
import { freshPath } from "./numbers.mjs";
import { endsAtClosure, endsAtOnceWhereAllIsClosed, survivesCuts, survivesRotations } from "./trials.mjs";

const EVERY_BYTE = Buffer.from(Array.from({ length: 256 }, (_, i) => i));

/** Three appends of each kind. Two of the texts share a character. */
const KINDS = {
  "application/json": ['{"n":0}', "[1,2]", '"three"'].map((text) => Buffer.from(text)),
  "text/plain": [" one\n \u00e9", "\n  three\n", "\nend"].map((text) => Buffer.from(text)),
  "application/octet-stream": [Buffer.of(0, 255, 10, 13), EVERY_BYTE, Buffer.of(7)],
};
const [first, second] = KINDS["text/plain"];
KINDS["text/plain"].splice(0, 2, first.subarray(0, -1), Buffer.concat([first.subarray(-1), second]));

function joined(type, appends) {
  return type === "application/json" ? Buffer.from(`[${appends.join()}]`) : Buffer.concat(appends);
}

/** Takes what a session yields in the way that suits it. `whole` resolves when as many bytes have come as there are. */
function collect(session, type, live, size) {
  const parts = [];
  let enough;
  const whole = new Promise((resolve) => {
    enough = resolve;
  });
  const take = (...more) => {
    parts.push(...more);
    if (joined(type, parts).length >= size) enough();
  };
  if (type === "application/json") {
    session.subscribeJson(({ items }) => take(...items.map((item) => Buffer.from(JSON.stringify(item)))));
  } else if (live === "sse" && type === "text/plain") {
    // Over long-polls the client decodes every answer by itself, and breaks characters that two of them share.
    session.subscribeText(({ text }) => take(Buffer.from(text)));
  } else {
    session.subscribeBytes(({ data }) => take(Buffer.from(data)));
  }
  const came = () => joined(type, parts);
  return { came, whole: within(whole, () => `${size} bytes; only ${came().length} came`) };
}

describe("the npm client", { concurrency: true }, () => {
  let plain;
  let rotating;
  before(async () => {
    plain = await gateway("clients-npm");
    rotating = await gateway("clients-npm-rotating", ...ROTATING);
  });
  after(async () => {
    await Promise.all([plain?.stop(), rotating?.stop()]);
  });

  for (const [type, appends] of Object.entries(KINDS)) {
    test(`creates a stream of ${type}, appends to it and reads it back`, async () => {
      const handle = await DurableStream.create({ url: plain.baseUrl + freshPath(), contentType: type });
      for (const part of appends) await handle.append(part);
      const head = await handle.head();
      assert.equal(head.contentType, type);
      const reading = await handle.stream({ live: false });
      assert.deepEqual(Buffer.from(await reading.body()), joined(type, appends));
      assert.equal(reading.offset, head.offset);
    });

    for (const live of ["sse", "long-poll"]) {
      test(`tails a stream of ${type} by ${live} to its end`, async () => {
        const url = plain.baseUrl + freshPath();
        const handle = await DurableStream.create({ url, contentType: type });
        const session = await stream({ url, live });
        const whole = joined(type, appends);
        const collected = collect(session, type, live, whole.length);
        for (const part of appends) await handle.append(part);
        await handle.close();
        // The client may resolve `closed` while it still has the last batch to hand over.
        await Promise.all([session.closed, collected.whole]);
        assert.deepEqual(collected.came(), whole);
      });
    }
  }

  test("goes on over Server-Sent Events after a cut between any two bytes of a message", async () => {
    await survivesCuts(followByNpmClient, "sse", plain.baseUrl);
  });

  test("goes on over long-polls after a cut anywhere in an answer", async () => {
    await survivesCuts(followByNpmClient, "long-poll", plain.baseUrl, { step: 5 });
  });

  test("loses and repeats nothing over three rotations", async () => {
    await survivesRotations(followByNpmClient, rotating.baseUrl);
  });

  for (const live of ["sse", "long-poll"]) {
    test(`ends at closure over ${live}`, async () => {
      await endsAtClosure(followByNpmClient, live, plain.baseUrl);
    });

    test(`ends at once over ${live} where all is closed`, async () => {
      await endsAtOnceWhereAllIsClosed(followByNpmClient, live, plain.baseUrl);
    });
  }
});
