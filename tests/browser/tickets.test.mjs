// Chromium's own EventSource in a page of another origin, and of another site, reads a private stream by a ticket, behind
// nginx; and what shows who asks is in no log.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { BINARY, LOGS, gateway } from "../clients/gateway.mjs";
import { within } from "../clients/limit.mjs";
import { Received } from "../clients/numbers.mjs";
import { nginx } from "./nginx.mjs";
import { openPage } from "./site.mjs";

const run = promisify(execFile);
/** How long a response lasts, give or take a tenth. */
const LIFETIME = "3s";
/** Three rotations are four responses. */
const ROTATIONS = 3;
/** A part of a secret that is as long as this would be no accident. */
const PIECE = 12;
const JSON_TYPE = { "content-type": "application/json" };

describe("a page of another origin with a ticket", () => {
  let folder;
  let site;
  let pod;
  let proxy;
  const following = new Map();
  const secrets = [];
  let told = "";
  let nextReader = 0;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "tailwater-tickets-"));
    site = await openPage((reader, what) => following.get(reader)(what));
    const { origin } = new URL(site.page.url());
    const project = await run(BINARY, ["project", "new", "chat", "--origin", origin]);
    await writeFile(path.join(folder, "projects.toml"), project.stdout);
    const settings = ["--projects", path.join(folder, "projects.toml"), "--token-skew", "0s", "--sse-lifetime", LIFETIME];
    pod = await gateway("tickets", ...settings, "--log", "trace");
    proxy = await nginx(pod.baseUrl);
  });
  after(async () => {
    await site?.close();
    await proxy?.stop();
    await pod?.stop();
    if (folder) await rm(folder, { recursive: true, force: true });
    assert.deepEqual(site?.faults, [], "errors that nobody in the page has caught");
  });

  async function token(expiresIn, ...scopes) {
    const allows = scopes.flatMap((scope) => ["--scope", scope]);
    const args = ["--projects", path.join(folder, "projects.toml"), "--project", "chat", "--expires-in", expiresIn];
    const { stdout } = await run(BINARY, ["token", "mint", ...args, ...allows]);
    secrets.push(stdout.trim());
    return stdout.trim();
  }

  /** A private stream of numbers, and what appends the next one. */
  async function numbers(name) {
    const headers = { ...JSON_TYPE, authorization: `Bearer ${await token("1h", "write")}` };
    const url = `${pod.baseUrl}/v1/stream/chat/${name}`;
    const created = await fetch(url, { method: "PUT", headers });
    assert.equal(created.status, 201);
    let count = 0;
    return {
      get count() {
        return count;
      },
      append: async () => {
        const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify({ n: count }) });
        assert.equal(answer.status, 204);
        count += 1;
      },
    };
  }

  async function ticket(name, bearer) {
    const of = [proxy.url, bearer, `chat/${name}`];
    const issued = await site.page.evaluate(([gateway, token, stream]) => ticketFor(gateway, token, stream), of);
    assert.equal(issued.status, 201, JSON.stringify(issued));
    secrets.push(issued.ticket);
    return issued.ticket;
  }

  /** A reader in the page; `until(holds)` waits for what its reports make true. */
  async function reader(name, shown, offset = "-1") {
    const number = nextReader++;
    const received = new Received(name);
    const one = { received, opened: 0, cut: 0, ended: null };
    const looks = new Set();
    following.set(number, (what) => {
      if (what.n !== undefined) received.push(what.n);
      if (what.opened) one.opened += 1;
      if (what.cut) one.cut += 1;
      if (what.ended) one.ended = what;
      for (const look of looks) look();
    });
    one.until = (holds, what) =>
      within(
        new Promise((resolve) => {
          const look = () => {
            if (!holds()) return;
            looks.delete(look);
            resolve();
          };
          looks.add(look);
          look();
        }),
        () => `${name}: ${what}`,
      );
    const start = [number, `${proxy.url}/v1/stream/chat/${name}`, shown, offset];
    await site.page.evaluate((start) => followByTicket(...start), start);
    one.leave = () => site.page.evaluate((reader) => leave([reader]), number);
    return one;
  }

  /** What a request of the page is answered, with its body. */
  async function refused(name, query, status) {
    const url = `${proxy.url}/v1/stream/chat/${name}?${query}`;
    const answer = await site.page.evaluate((url) => ask(url, "GET", {}), url);
    assert.equal(answer.status, status, answer.body);
    told += JSON.stringify(answer);
  }

  test("reads a private stream past three rotations without a reload, and what was written between two of them", async () => {
    const stream = await numbers("rotations");
    const opened = await site.page.evaluate(() => performance.timeOrigin);
    await refused("rotations", "offset=-1", 401);
    const asks = site.page.waitForRequest((request) => request.resourceType() === "eventsource");
    const one = await reader("rotations", await ticket("rotations", await token("1h", "read")));
    const { origin, "sec-fetch-site": relation } = await (await asks).allHeaders();
    assert.deepEqual([origin, relation], [new URL(site.page.url()).origin, "cross-site"]);
    let between = 0;
    await one.until(() => one.opened === 1, "the first response");
    while (one.opened <= ROTATIONS || between === 0) {
      const [cuts, responses] = [one.cut, one.opened];
      await stream.append();
      await one.received.reached(stream.count);
      await one.until(() => one.cut > cuts, "a rotation");
      await stream.append();
      await stream.append();
      // It comes back after 50 ms at least, and both are durable before.
      if (one.opened === responses) between += 1;
      await one.until(() => one.opened > responses, "the next response");
      await one.received.reached(stream.count);
    }
    await one.leave();
    assert.equal(one.received.count, stream.count);
    assert.ok(one.opened > ROTATIONS && between > 0);
    assert.equal(await site.page.evaluate(() => performance.timeOrigin), opened, "the page was loaded again");
  });

  test("is refused when its ticket has expired, and goes on with a new one", async () => {
    const stream = await numbers("expiry");
    const one = await reader("expiry", await ticket("expiry", await token("5s", "read")));
    await stream.append();
    await one.received.reached(1);
    await one.until(() => one.ended, "the end");
    assert.ok(one.opened >= 1);
    await refused("expiry", `offset=-1&live=sse&ticket=${secrets.at(-1)}`, 401);
    await stream.append();
    const again = await reader("expiry", await ticket("expiry", await token("1h", "read")), one.ended.at);
    for (let n = 0; n < one.received.count; n += 1) again.received.push(n);
    await again.received.reached(stream.count);
    await again.leave();
  });

  test("leaves no piece of a token or a ticket in a log, a problem or a metric", async () => {
    const good = await ticket("expiry", await token("1h", "read"));
    const bearer = secrets.at(-2);
    for (const query of [`ticket=${good}x`, `ticket=${bearer}`, `live=${good}&ticket=${good}`, `ticket=${good}&ticket=${good}`]) {
      await refused("expiry", query, query.includes("live") || query.includes("&") ? 400 : 401);
    }
    await refused("other", `ticket=${good}`, 401);
    told += await (await fetch(`${proxy.url}/metrics`)).text();
    // A gateway that is gone is what proxies log most of.
    await pod.stop();
    pod = null;
    const gone = await fetch(`${proxy.url}/v1/stream/chat/expiry?live=sse&offset=-1&ticket=${good}`);
    assert.equal(gone.status, 502);
    const logs = await proxy.logs();
    const log = await readFile(path.join(LOGS, "tickets.log"), "utf8");
    assert.match(logs["access.log"], /"GET \/v1\/stream\/chat\/rotations HTTP\/1\.1" 200/);
    assert.match(logs["access.log"], /"GET \/v1\/stream\/chat\/expiry HTTP\/1\.1" 502/);
    assert.match(log, /TRACE/);
    assert.match(told, /tailwater_http_requests_total/);
    const pieces = (text) => Array.from({ length: text.length - PIECE + 1 }, (_, at) => text.slice(at, at + PIECE));
    assert.ok(secrets.length >= 8);
    for (const [place, text] of Object.entries({ ...logs, log, told })) {
      const found = secrets.flatMap(pieces).filter((piece) => text.includes(piece));
      assert.deepEqual(found, [], place);
    }
  });
});
