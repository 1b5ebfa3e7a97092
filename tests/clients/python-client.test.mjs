// PyPI durable-streams.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { gateway, ROTATING } from "./gateway.mjs";
import { freshPath } from "./numbers.mjs";
import { followByPythonClient, roundTripByPythonClient } from "./python-client.mjs";
import { endsAtClosure, endsAtOnceWhereAllIsClosed, survivesCuts, survivesRotations } from "./trials.mjs";

describe("the Python client", { concurrency: true }, () => {
  let plain;
  let rotating;
  before(async () => {
    plain = await gateway("clients-python");
    rotating = await gateway("clients-python-rotating", ...ROTATING);
  });
  after(async () => {
    await Promise.all([plain?.stop(), rotating?.stop()]);
  });

  test("creates streams, appends to them and reads them back", async () => {
    assert.deepEqual(await roundTripByPythonClient(plain.baseUrl + freshPath()), {
      head: true,
      json: [{ n: 0 }, [1, 2], "three", null, 4.5, { last: true }],
      text: "one\n two \u00e9\nthree",
      bytes: `00ff${Buffer.from(Uint8Array.from({ length: 256 }, (_, i) => i)).toString("hex")}`,
    });
  });

  test("goes on over Server-Sent Events after a cut between any two bytes of a message", async () => {
    await survivesCuts(followByPythonClient, "sse", plain.baseUrl);
  });

  test("goes on over long-polls after a cut anywhere in an answer", async () => {
    await survivesCuts(followByPythonClient, "long-poll", plain.baseUrl, { step: 5 });
  });

  test("loses and repeats nothing over three rotations", async () => {
    await survivesRotations(followByPythonClient, rotating.baseUrl);
  });

  for (const live of ["sse", "long-poll"]) {
    test(`ends at closure over ${live}`, async () => {
      await endsAtClosure(followByPythonClient, live, plain.baseUrl);
    });

    test(`ends at once over ${live} where all is closed`, async () => {
      await endsAtOnceWhereAllIsClosed(followByPythonClient, live, plain.baseUrl);
    });
  }
});
