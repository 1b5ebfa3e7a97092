// A reader that uses npm @durable-streams/client as an application does: the client follows the stream and outlives
// what ends in order; when a connection breaks under a message, the application goes on from its last offset.
import { stream } from "@durable-streams/client";

// The client takes connections of under a second for the work of a broken proxy, and goes over to long-polls for good.
// A gateway that rotates every second would be mistaken for one.
const SHORT_LIFE = { minConnectionDuration: 100, maxShortConnections: 3 };

/** What the client throws when a connection breaks while it reads a body. */
function isBroken(error) {
  return error instanceof TypeError && /terminated|fetch failed|network error/.test(error.message);
}

/**
 * Follows each `{ url, received }` to the stream's end.
 *
 * @param live "sse" or "long-poll"
 * @returns `ended`, which resolves when all have ended as a closed stream ends, and `stop()`
 */
export function followByNpmClient(live, readers) {
  // One each: the client leaves a listener on it for every session.
  const leaving = readers.map(() => new AbortController());
  const ended = Promise.all(readers.map((reader, i) => follow(live, reader, leaving[i].signal)));
  return {
    ended,
    stop: () => {
      for (const one of leaving) one.abort();
    },
  };
}

async function follow(live, { url, received }, signal) {
  let offset = "-1";
  while (!signal.aborted) {
    let over = false;
    try {
      const session = await stream({ url, offset, live, json: true, signal, sseResilience: SHORT_LIFE });
      session.subscribeJson((batch) => {
        // The client may reject `closed` while it still has a batch to hand over. The next session reads that again.
        if (over) return;
        for (const { n } of batch.items) received.push(n);
        offset = batch.offset;
      });
      await session.closed;
      if (session.streamClosed || signal.aborted) return;
      throw new Error("the session ended although the stream is open");
    } catch (error) {
      over = true;
      if (isBroken(error)) continue;
      received.fail(error);
      return;
    }
  }
}
