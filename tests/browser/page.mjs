// What the page does. The test calls these functions, and is called back with each message by `report(reader, what)`.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client";

/** What ends each reader. */
const leaving = new Map();

/** Follows a stream with the browser's own EventSource, knowing nothing of the protocol but the name of an event. */
function followByEventSource(reader, url) {
  const source = new EventSource(`${url}?offset=-1&live=sse`);
  source.addEventListener("data", ({ data }) => {
    for (const { n } of JSON.parse(data)) report(reader, { n });
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) report(reader, { ended: true });
  });
  leaving.get(reader).signal.addEventListener("abort", () => source.close());
}

/** Follows a stream with the npm client; after a broken connection it goes on from the last offset. */
async function followByNpmClient(reader, url, live) {
  const { signal } = leaving.get(reader);
  let offset = "-1";
  while (!signal.aborted) {
    let over = false;
    try {
      const session = await stream({
        url,
        offset,
        live,
        json: true,
        signal,
        warnOnHttp: false,
        // A gateway that rotates every second must not pass for a broken proxy.
        sseResilience: { minConnectionDuration: 100 },
      });
      session.subscribeJson((batch) => {
        // The client may reject `closed` while it has a batch to hand over. The next session reads that again.
        if (over) return;
        for (const { n } of batch.items) report(reader, { n });
        offset = batch.offset;
      });
      await session.closed;
      const early = { error: "the session ended although the stream is open" };
      report(reader, session.streamClosed ? { ended: true } : early);
      return;
    } catch (error) {
      over = true;
      // A TypeError is what fetch and the bodies of its answers throw when a connection breaks.
      if (!(error instanceof TypeError) && !signal.aborted) {
        report(reader, { error: String(error) });
        return;
      }
    }
  }
}

const CLIENTS = { "event-source": followByEventSource, npm: followByNpmClient };

/** Starts readers `[{ reader, url }]`. */
function follow(client, live, readers) {
  for (const { reader, url } of readers) {
    leaving.set(reader, new AbortController());
    CLIENTS[client](reader, url, live);
  }
}

/** Ends readers. */
function leave(readers) {
  for (const reader of readers) leaving.get(reader)?.abort();
}

/** Creates a stream, writes to it and closes it, as the npm client does. Returns what is stored. */
async function write(url) {
  const options = { url, contentType: "application/json", warnOnHttp: false };
  const handle = await DurableStream.create({ ...options, ttlSeconds: 600 });
  await handle.append('{"n":0}', { seq: "a" });
  const producer = new IdempotentProducer(handle, "page", { autoClaim: true });
  for (const n of [1, 2]) producer.append(JSON.stringify({ n }));
  await producer.flush();
  await producer.close('{"n":3}');
  const session = await stream({ url, live: false, warnOnHttp: false });
  return session.json();
}

/** Gets a ticket for a stream with a token, as an application's page would. */
async function ticketFor(gateway, token, stream) {
  const body = JSON.stringify({ stream, origin: location.origin });
  const answer = await fetch(`${gateway}/v1/ticket`, { method: "POST", headers: { authorization: `Bearer ${token}` }, body });
  return { status: answer.status, ...(await answer.json()) };
}

/** Follows a stream with the browser's own EventSource and a ticket, and reports its responses and their ends, too. */
function followByTicket(reader, url, ticket, offset) {
  const source = new EventSource(`${url}?offset=${offset}&live=sse&ticket=${ticket}`);
  let at = offset;
  source.addEventListener("open", () => report(reader, { opened: true }));
  source.addEventListener("data", ({ data }) => {
    for (const { n } of JSON.parse(data)) report(reader, { n });
  });
  source.addEventListener("control", ({ lastEventId }) => {
    at = lastEventId;
  });
  source.addEventListener("error", () => {
    report(reader, source.readyState === EventSource.CLOSED ? { ended: true, at } : { cut: true });
  });
  leaving.set(reader, new AbortController());
  leaving.get(reader).signal.addEventListener("abort", () => source.close());
}

/** A request, and what a script of another origin can see of the answer. */
async function ask(url, method, headers, body) {
  const answer = await fetch(url, { method, headers, body });
  const { status } = answer;
  const seen = { status, headers: Object.fromEntries(answer.headers) };
  if (seen.headers["content-type"] !== "text/event-stream") return { ...seen, body: await answer.text() };
  await answer.body.cancel();
  return seen;
}

Object.assign(globalThis, { follow, followByTicket, ticketFor, leave, write, ask });
