// An S3 server on a port of its own, with everything in memory, and what the program has to know of it.
import assert from "node:assert/strict";
import path from "node:path";
import { Process } from "./process.mjs";

const PYTHON = path.join(import.meta.dirname, ".venv/bin/python");
const REGION = "eu-north-1";
/** Enough for the server, which reads the region and checks no signature. */
const AUTHORIZATION =
  `AWS4-HMAC-SHA256 Credential=the-key/20260101/${REGION}/s3/aws4_request, SignedHeaders=host, Signature=none`;

export const BUCKET = "tailwater-streams";

export class S3 {
  #server;

  static async start() {
    const s3 = new S3();
    const args = ["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"];
    s3.#server = await Process.start("s3", PYTHON, args, {}, /Running on (http:\S+)/);
    const location = `<CreateBucketConfiguration><LocationConstraint>${REGION}</LocationConstraint></CreateBucketConfiguration>`;
    assert.equal(await s3.#put("", {}, location), 200);
    return s3;
  }

  /** The environment that leads the program here. */
  env() {
    return {
      AWS_REGION: REGION,
      AWS_ENDPOINT_URL_S3: this.#server.url,
      AWS_ACCESS_KEY_ID: "the-key",
      AWS_SECRET_ACCESS_KEY: "the-secret",
    };
  }

  /** Puts an object only where there is none. Returns the status. */
  async create(key) {
    return this.#put(`/${key}`, { "if-none-match": "*" }, "x");
  }

  /** Lets every request wait until `wake`. */
  sleep() {
    this.#server.signal("SIGSTOP");
  }

  wake() {
    this.#server.signal("SIGCONT");
  }

  async stop() {
    this.wake();
    await this.#server.kill();
  }

  async #put(key, headers, body) {
    const url = `${this.#server.url}/${BUCKET}${key}`;
    const answer = await fetch(url, { method: "PUT", headers: { authorization: AUTHORIZATION, ...headers }, body });
    await answer.arrayBuffer();
    return answer.status;
  }
}
