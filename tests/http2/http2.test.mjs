// Server-Sent Events over HTTP/2, by Node's own client.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import http2 from "node:http2";
import https from "node:https";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { gateway } from "../clients/gateway.mjs";
import { within } from "../clients/limit.mjs";
import { makeCertificate } from "../conformance/certificate.mjs";
import { Session } from "./session.mjs";

const TEXT = { "content-type": "text/plain" };
/** How many readers share one connection. */
const READERS = 300;

let folder;
let ca;
let tlsArgs;
before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "tailwater-http2-"));
  const { certificate, key } = await makeCertificate(folder);
  ca = await readFile(certificate);
  tlsArgs = ["--tls-cert", certificate, "--tls-key", key];
});
after(() => rm(folder, { recursive: true, force: true }));

for (const secure of [false, true]) {
  describe(secure ? "HTTP/2 over TLS" : "HTTP/2 without TLS", () => {
    let server;
    let session;
    before(async () => {
      const args = ["--write-timeout", "1s", ...(secure ? tlsArgs : [])];
      server = await gateway(`http2-${secure ? "tls" : "plain"}`, ...args);
      session = await Session.connect(server.baseUrl, ca);
    });
    after(async () => {
      await session?.close();
      await server?.stop();
    });

    test("is what both sides agree on", () => {
      assert.equal(session.session.alpnProtocol, secure ? "h2" : "h2c");
      assert.match(server.baseUrl, secure ? /^https:/ : /^http:/);
    });

    test("makes locations of its own scheme", async () => {
      const { status, head } = await session.send("PUT", "/v1/stream/located", TEXT, "");
      assert.equal(status, 201);
      assert.equal(head.location, `${server.baseUrl}/v1/stream/located`);
    });

    test("follows a stream to its closure", async () => {
      await session.send("PUT", "/v1/stream/followed", TEXT, "first");
      const reader = await session.follow("/v1/stream/followed");
      assert.equal(reader.head["content-type"], "text/event-stream");
      await reader.until("upToDate");
      assert.equal((await session.send("POST", "/v1/stream/followed", TEXT, "second")).status, 204);
      await reader.until("data:second");
      const ended = once(reader.stream, "end");
      await session.send("POST", "/v1/stream/followed", { "stream-closed": "true" });
      await within(ended, () => "the end of the stream");
      assert.deepEqual(reader.data, ["first", "second"]);
      assert.match(reader.seen, /"streamClosed":true/);
      assert.equal(reader.stream.rstCode, http2.constants.NGHTTP2_NO_ERROR);
    });

    test(`feeds ${READERS} readers on one connection, each in order`, async () => {
      await session.send("PUT", "/v1/stream/shared", TEXT);
      const readers = await Promise.all(Array.from({ length: READERS }, () => session.follow("/v1/stream/shared")));
      await Promise.all(readers.map((reader) => reader.until("upToDate")));
      const messages = Array.from({ length: 20 }, (_, n) => `message ${n};`);
      for (const message of messages) await session.send("POST", "/v1/stream/shared", TEXT, message);
      await Promise.all(readers.map((reader) => reader.until(messages.at(-1))));
      for (const reader of readers) {
        // Messages that were waiting together may come in one event.
        assert.equal(reader.data.join(""), messages.join(""));
        reader.stream.close(http2.constants.NGHTTP2_CANCEL);
      }
    });

    test("resets a stream that stalls, and the one beside it gets everything", async () => {
      await session.send("PUT", "/v1/stream/large", TEXT);
      const part = "z".repeat(200_000);
      for (let n = 0; n < 5; n++) await session.send("POST", "/v1/stream/large", TEXT, part);
      const { stream: stalled } = await session.open("GET", "/v1/stream/large?offset=-1&live=sse");
      stalled.pause();
      // Node reports this one code as an end without an error.
      const reset = once(stalled, "close");
      const healthy = await session.follow("/v1/stream/large");
      await healthy.until("upToDate");
      assert.equal(healthy.data.join("").length, 5 * part.length);
      await within(reset, () => "the reset of the stalled stream");
      assert.equal(stalled.rstCode, http2.constants.NGHTTP2_CANCEL);
      await session.send("POST", "/v1/stream/large", TEXT, "after");
      await healthy.until("data:after");
      assert.equal(await session.metric('tailwater_connections_cut_total{reason="stalled_stream"}'), 1);
      healthy.stream.close(http2.constants.NGHTTP2_CANCEL);
    });
  });
}

describe("a gateway with TLS", () => {
  let server;
  before(async () => {
    server = await gateway("http2-versions", ...tlsArgs);
  });
  after(() => server?.stop());

  test("speaks HTTP/1.1 to who asks for it", async () => {
    const request = https.get(`${server.baseUrl}/health`, { ca });
    const [response] = await within(once(request, "response"), () => "the answer");
    assert.deepEqual([response.statusCode, response.httpVersion], [200, "1.1"]);
    response.resume();
    await once(response, "end");
    request.destroy();
  });

  test("gives nothing to who speaks no TLS", async () => {
    const { hostname, port } = new URL(server.baseUrl);
    const socket = net.connect(Number(port), hostname);
    const chunks = [];
    socket.on("data", (chunk) => chunks.push(chunk)).on("error", () => {});
    socket.write("GET /health HTTP/1.1\r\nhost: h\r\n\r\n");
    await within(once(socket, "close"), () => "the end of the connection");
    assert.doesNotMatch(Buffer.concat(chunks).toString("latin1"), /HTTP/);
  });
});

describe("a client that resets streams as fast as it opens them", () => {
  let server;
  before(async () => {
    server = await gateway("http2-resets");
  });
  after(() => server?.stop());

  test("is cut, and one beside it is served", async () => {
    const beside = await Session.connect(server.baseUrl);
    const { hostname, port } = new URL(server.baseUrl);
    const socket = net.connect(Number(port), hostname).on("error", () => {});
    const closed = once(socket, "close");
    socket.resume().write(attack(2000));
    await within(closed, () => "the end of the connection");
    assert.equal(await beside.metric('tailwater_connections_cut_total{reason="resets"}'), 1);
    assert.equal((await beside.send("GET", "/health")).status, 200);
    await beside.close();
  });
});

/** The bytes of a client that opens this many streams and resets each at once (RFC 9113, section 6). */
function attack(streams) {
  const frame = (type, flags, stream, payload) => {
    const head = Buffer.alloc(9);
    head.writeUIntBE(payload.length, 0, 3);
    head.writeUInt8(type, 3);
    head.writeUInt8(flags, 4);
    head.writeUInt32BE(stream, 5);
    return [head, payload];
  };
  const [DATA_LESS_REQUEST, CANCEL] = [Buffer.from([0x82, 0x86, 0x84]), Buffer.from([0, 0, 0, 8])];
  const frames = [Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ...frame(4, 0, 0, Buffer.alloc(0))];
  for (let n = 0; n < streams; n++) {
    const id = 2 * n + 1;
    frames.push(...frame(1, 0x05, id, DATA_LESS_REQUEST), ...frame(3, 0, id, CANCEL));
  }
  return Buffer.concat(frames);
}
