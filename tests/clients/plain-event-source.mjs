// A reader that uses npm `eventsource` as a page that knows nothing of the protocol but the name of an event.
import { EventSource } from "eventsource";

/** Follows each `{ url, received }`; see `followByNpmClient`. Here the end is that the EventSource gives up. */
export function followByEventSource(_live, readers) {
  const followed = readers.map(follow);
  const ended = Promise.all(followed.map(({ ended }) => ended));
  return {
    ended,
    stop: () => {
      for (const { source } of followed) source.close();
    },
  };
}

function follow({ url, received }) {
  const source = new EventSource(`${url}?offset=-1&live=sse`);
  source.addEventListener("data", ({ data }) => {
    for (const { n } of JSON.parse(data)) received.push(n);
  });
  const ended = new Promise((resolve) => {
    source.addEventListener("error", ({ code }) => {
      if (source.readyState !== EventSource.CLOSED) return;
      if (code !== 204) received.fail(new Error(`the EventSource gave up at status ${code}`));
      resolve();
    });
  });
  return { source, ended };
}
