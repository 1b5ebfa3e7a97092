// npm `eventsource`: the EventSource of the HTML standard, which knows nothing of the protocol.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { EventSource } from "eventsource";
import { gateway, ROTATING } from "./gateway.mjs";
import { within } from "./limit.mjs";
import { Numbers, Received } from "./numbers.mjs";
import { followByEventSource } from "./plain-event-source.mjs";
import { endsAtClosure, survivesCuts, survivesRotations } from "./trials.mjs";
import { Wire } from "./wire.mjs";

describe("a plain EventSource", { concurrency: true }, () => {
  let plain;
  let rotating;
  before(async () => {
    plain = await gateway("clients-event-source");
    rotating = await gateway("clients-event-source-rotating", ...ROTATING);
  });
  after(async () => {
    await Promise.all([plain?.stop(), rotating?.stop()]);
  });

  test("goes on after a cut between any two bytes of a message", async () => {
    await survivesCuts(followByEventSource, "sse", plain.baseUrl);
  });

  test("loses and repeats nothing over three rotations", async () => {
    await survivesRotations(followByEventSource, rotating.baseUrl);
  });

  test("stops for good at closure", async () => {
    await endsAtClosure(followByEventSource, "sse", plain.baseUrl);
  });

  test("is told by 204 that a stream has ended, when it comes back with the last offset", async () => {
    const stream = await Numbers.create(plain.baseUrl, 2);
    await stream.close();
    const wire = await Wire.to(plain.baseUrl);
    const received = new Received("of a closed stream");
    const answers = [];
    const source = new EventSource(`${wire.url}${stream.path}?offset=-1&live=sse`, {
      fetch: async (url, init) => {
        const answer = await fetch(url, init);
        answers.push({ sent: init.headers["Last-Event-ID"] ?? null, status: answer.status });
        return answer;
      },
    });
    try {
      let lastEventId;
      source.addEventListener("data", ({ data }) => JSON.parse(data).forEach(({ n }) => received.push(n)));
      source.addEventListener("control", (event) => {
        assert.equal(event.lastEventId, JSON.parse(event.data).streamNextOffset);
        lastEventId = event.lastEventId;
      });
      const gaveUp = new Promise((resolve) => {
        source.addEventListener("error", () => source.readyState === EventSource.CLOSED && resolve());
      });
      await within(gaveUp, () => "the end of the EventSource");
      await received.reached(2);
      assert.deepEqual(answers, [{ sent: null, status: 200 }, { sent: lastEventId, status: 204 }]);
    } finally {
      source.close();
      await wire.close();
    }
  });
});
