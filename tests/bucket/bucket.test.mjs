// The program with its data in a bucket: nothing else of it is left when it is killed, and one process owns it at a time.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { within } from "../clients/limit.mjs";
import { Process, TAILWATER } from "./process.mjs";
import { BUCKET, S3 } from "./s3.mjs";
import { Lines } from "./stream.mjs";

describe("a store in a bucket", () => {
  let s3;
  const running = [];
  before(async () => {
    s3 = await S3.start();
  });
  after(async () => {
    for (const program of running) program.signal("SIGKILL");
    await s3?.stop();
  });

  function tailwater(how, name, args, env = s3.env()) {
    const program = Process[how](name, TAILWATER, [...args, "--listen", "127.0.0.1:0"], env);
    program.then((started) => running.push(started), () => {});
    return program;
  }

  /** A gateway on the bucket, below a prefix. */
  function serve(name, prefix) {
    return tailwater("start", name, ["serve", "--drain", "1s", "--bucket", BUCKET, "--bucket-prefix", prefix]);
  }

  test("stands on a server that puts on condition", async () => {
    assert.deepEqual([await s3.create("once"), await s3.create("once")], [200, 412]);
  });

  test("keeps what was acknowledged when its process is killed", async (t) => {
    const lines = new Lines("killed");
    let gateway = await serve("killed-0", "killed");
    await lines.create(gateway.url);
    for (let round = 1; round <= 3; round += 1) {
      const writing = lines.appendUntilItEnds(gateway.url);
      await delay(700);
      await gateway.kill();
      assert.ok((await writing) > 0);
      gateway = await serve(`killed-${round}`, "killed");
      t.diagnostic(JSON.stringify(await lines.check(gateway.url)));
    }
    assert.equal((await lines.append(gateway.url)).status, 204);
    assert.equal(await gateway.stop(), 0);
  });

  test("belongs to who opens it last, and the one before ends and says why", async (t) => {
    const lines = new Lines("taken");
    const first = await serve("taken-0", "taken");
    await lines.create(first.url);
    const writing = lines.appendUntilItEnds(first.url);
    await delay(300);
    const second = await serve("taken-1", "taken");
    assert.ok((await writing) > 0);
    assert.equal(await first.ended(), 1);
    assert.match(await first.log(), /^tailwater: the embedded store has ended: another process has opened its data$/m);
    t.diagnostic(JSON.stringify(await lines.check(second.url)));
    assert.equal((await lines.append(second.url)).status, 204);
    await lines.check(second.url);
    assert.equal(await second.stop(), 0);
  });

  test("is another one below another prefix", async () => {
    const [one, other] = [await serve("prefix-0", "one"), await serve("prefix-1", "two/levels")];
    const lines = new Lines("same-name");
    await lines.create(one.url);
    assert.equal((await fetch(other.url + lines.path)).status, 404);
    await new Lines("same-name").create(other.url);
    assert.deepEqual([await one.stop(), await other.stop()], [0, 0]);
  });

  test("is shared through a store that runs alone", async () => {
    const store = await tailwater("start", "store", ["store", "--bucket", BUCKET, "--bucket-prefix", "alone"]);
    const gateway = () => tailwater("start", "guest", ["serve", "--s2-endpoint", store.url], {});
    const lines = new Lines("shared");
    const guest = await gateway();
    await lines.create(guest.url);
    assert.equal((await lines.append(guest.url)).status, 204);
    await guest.kill();
    await lines.check((await gateway()).url);
    assert.equal(await store.stop(), 0);
  });

  test("that does not answer is 503 with a time to come back, and goes on when it does", async (t) => {
    const lines = new Lines("asleep");
    const gateway = await serve("asleep", "asleep");
    await lines.create(gateway.url);
    assert.equal((await lines.append(gateway.url)).status, 204);
    s3.sleep();
    const began = Date.now();
    const answer = await lines.append(gateway.url).finally(() => s3.wake());
    t.diagnostic(`answered after ${Date.now() - began} ms`);
    assert.equal(answer.status, 503);
    assert.ok(Number(answer.headers.get("retry-after")) > 0);
    const goesOn = (async () => {
      while ((await lines.append(gateway.url)).status !== 204) await delay(100);
    })();
    await within(goesOn, () => "an append after the bucket came back");
    await lines.check(gateway.url);
    assert.equal(await gateway.stop(), 0);
  });

  test("that cannot be used ends the program with a reason", async () => {
    const missing = await tailwater("spawn", "no-bucket", ["serve", "--bucket", "not-there"]);
    assert.equal(await missing.ended(), 1);
    assert.match(await missing.log(), /bucket not-there cannot be used: .*NoSuchBucket/s);
    const { AWS_REGION: _, ...env } = s3.env();
    const nowhere = await tailwater("spawn", "no-region", ["serve", "--bucket", BUCKET], env);
    assert.equal(await nowhere.ended(), 64);
    assert.match(await nowhere.log(), /^tailwater: AWS_REGION: is not set/m);
  });
});
