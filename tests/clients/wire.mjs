// A way to the gateway that can be cut between any two bytes, and that counts what goes over it. A plain TCP proxy:
// what it knows of HTTP/1.1 is how a request begins.
import { EventEmitter, once } from "node:events";
import { connect, createServer } from "node:net";
import { within } from "./limit.mjs";

const REQUEST = /^(?:GET|HEAD|PUT|POST|DELETE|OPTIONS) \S+(?= HTTP\/1\.1\r?$)/gm;

/** The end of a chunk that ends with a control event of a reader who has seen all there is. */
export const CAUGHT_UP = /"upToDate":true\}\n\n\r\n$/;

/** Events: `request` with the request's line, `reply` with bytes of the gateway, `cut`. */
export class Wire extends EventEmitter {
  #server;
  #gateway;
  #ends = new Set();
  #armed = null;
  #sinceRequest = "";
  /** How many connections clients have opened. */
  connections = 0;
  /** The request lines, `GET /path?query`, in order. */
  requests = [];
  /** How many bytes have come from clients. */
  sent = 0;
  /** How many bytes have come from the gateway. */
  replied = 0;
  /** How often it was cut. */
  cuts = 0;

  /** A new way to the gateway at `baseUrl`. */
  static async to(baseUrl) {
    const wire = new Wire();
    wire.setMaxListeners(0);
    wire.lead(baseUrl);
    wire.#server = createServer({ noDelay: true }, (client) => wire.#join(client, connect(wire.#gateway)));
    wire.#server.listen(0, "127.0.0.1");
    await once(wire.#server, "listening");
    // A test that failed must not keep its process from ending.
    wire.#server.unref();
    return wire;
  }

  /** From now on connections lead to the gateway at `baseUrl`. */
  lead(baseUrl) {
    const { hostname, port } = new URL(baseUrl);
    this.#gateway = { host: hostname, port, noDelay: true };
  }

  /** Cuts every connection. */
  drop() {
    for (const end of this.#ends) end.destroy();
  }

  /** What stands for the gateway's base URL. */
  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /**
   * Cuts a connection, once, after so many further bytes `from` the "gateway" or the "client" have passed. They are
   * counted from the next piece that matches `start`. The other side's bytes pass as long as the connection lives.
   */
  cut({ from, after, start = /^/ }) {
    this.#armed = { from, start, left: after, of: null };
  }

  /** Resolves when what the gateway has said since the last request matches. */
  heard(pattern) {
    return this.#until("reply", () => pattern.test(this.#sinceRequest), `heard ${pattern}`);
  }

  /** Resolves when at least `count` requests have matched. */
  requested(pattern, count = 1) {
    const came = () => this.requests.filter((line) => pattern.test(line)).length;
    return this.#until("request", () => came() >= count, `${count} times ${pattern}`);
  }

  /** Waits so many milliseconds, and rejects when a connection or a request has come meanwhile. */
  async quiet(ms) {
    const before = [this.connections, this.requests.length];
    await new Promise((resolve) => setTimeout(resolve, ms));
    const [connections, requests] = [this.connections - before[0], this.requests.length - before[1]];
    if (connections + requests > 0) {
      const last = this.requests.slice(-3).join(", ");
      throw new Error(`${connections} connections and ${requests} requests came after the end: ${last}`);
    }
  }

  /** Cuts what is left, and stops listening. */
  async close() {
    this.drop();
    this.#server.close();
    await once(this.#server, "close");
  }

  #until(event, holds, what) {
    const reached = new Promise((resolve) => {
      const look = () => {
        if (!holds()) return;
        this.off(event, look);
        resolve();
      };
      this.on(event, look);
      look();
    });
    return within(reached, () => `${what}; since the last request came ${JSON.stringify(this.#sinceRequest)}`);
  }

  #join(client, gateway) {
    this.connections += 1;
    const pair = { client, gateway };
    for (const [end, other] of [[client, gateway], [gateway, client]]) {
      this.#ends.add(end);
      // A reset is how one side learns that the other was cut off.
      end.on("error", () => {});
      end.on("end", () => other.end());
      end.on("close", () => {
        this.#ends.delete(end);
        other.destroySoon();
      });
    }
    client.on("data", (bytes) => {
      this.sent += bytes.length;
      for (const [line] of bytes.toString("latin1").matchAll(REQUEST)) {
        this.#sinceRequest = "";
        this.requests.push(line);
        this.emit("request", line);
      }
      this.#pass(pair, "client", bytes, gateway);
    });
    gateway.on("data", (bytes) => {
      this.#sinceRequest += bytes.toString("latin1");
      this.replied += bytes.length;
      this.#pass(pair, "gateway", bytes, client);
      this.emit("reply", bytes);
    });
  }

  #pass(pair, from, bytes, to) {
    const armed = this.#armed;
    const starts = () => armed.of === null && armed.start.test(bytes.toString("latin1"));
    if (armed?.from !== from || !(armed.of === pair || starts())) {
      to.write(bytes);
      return;
    }
    armed.of = pair;
    if (bytes.length < armed.left) {
      armed.left -= bytes.length;
      to.write(bytes);
      return;
    }
    this.#armed = null;
    this.cuts += 1;
    to.end(bytes.subarray(0, armed.left), () => {
      pair.client.destroy();
      pair.gateway.destroy();
      this.emit("cut");
    });
  }
}
