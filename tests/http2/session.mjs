// One HTTP/2 connection, and what tests do on it.
import { once } from "node:events";
import http2 from "node:http2";
import { within } from "../clients/limit.mjs";

/** Enough for all streams together: what one of them does not take must not be lacking elsewhere. */
const CONNECTION_WINDOW = 16 << 20;

export class Session {
  constructor(session) {
    this.session = session;
  }

  /** Connects; `ca` is the authority, where there is TLS. */
  static async connect(baseUrl, ca) {
    const session = http2.connect(baseUrl, { ca });
    await within(once(session, "connect"), () => "the connection");
    session.setLocalWindowSize(CONNECTION_WINDOW);
    return new Session(session);
  }

  /** Sends a request; resolves to its stream when the head of the answer has come. */
  async open(method, path, headers = {}, body = undefined) {
    const stream = this.session.request({ ":method": method, ":path": path, ...headers }, { endStream: body === undefined });
    if (body !== undefined) stream.end(body);
    const [head] = await within(once(stream, "response"), () => `the head of ${method} ${path}`);
    return { stream, status: head[":status"], head };
  }

  /** The same, to the end of the answer. */
  async send(method, path, headers, body) {
    const { stream, status, head } = await this.open(method, path, headers, body);
    const chunks = [];
    stream.on("data", (chunk) => chunks.push(chunk));
    if (!stream.closed) await within(once(stream, "close"), () => `the end of ${method} ${path}`);
    return { status, head, body: Buffer.concat(chunks).toString() };
  }

  /** A reader of Server-Sent Events of a stream, from its start. */
  async follow(path) {
    return new Follower(await this.open("GET", `${path}?offset=-1&live=sse`));
  }

  async metric(name) {
    const { body } = await this.send("GET", "/metrics");
    const line = body.split("\n").find((own) => own.startsWith(`${name} `));
    return line === undefined ? 0 : Number(line.slice(name.length + 1));
  }

  async close() {
    this.session.destroy();
  }
}

/** What one reader has been sent, as text. */
export class Follower {
  #seen = "";
  #wake = () => {};

  constructor({ stream, status, head }) {
    Object.assign(this, { stream, status, head });
    stream.setEncoding("utf8");
    stream.on("data", (text) => {
      this.#seen += text;
      this.#wake();
    });
  }

  get seen() {
    return this.#seen;
  }

  /** Waits until the text contains this. */
  async until(text) {
    while (!this.#seen.includes(text)) {
      await within(new Promise((resolve) => (this.#wake = resolve)), () => `${text} in ${this.#seen.slice(-300)}`);
    }
  }

  /** The payloads of data events, each of one line. */
  get data() {
    return [...this.#seen.matchAll(/^event: data\ndata:(.*)$/gm)].map(([, line]) => line);
  }
}
