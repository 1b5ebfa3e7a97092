// The page's own server, and the browser that opens it.
import { createServer } from "node:http";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const HERE = import.meta.dirname;
const PLACES = {
  "/client/": path.join(HERE, "node_modules/@durable-streams/client/"),
  "/": `${HERE}/`,
};
/**
 * The name under which the browser knows the page. For a browser that is another site than 127.0.0.1, where gateways are; of
 * two ports of one host the origins would differ, and the site would not. Chromium resolves it to loopback by itself.
 */
const SITE = "page.localhost";
const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript" };
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

async function serve(request, response) {
  const { pathname } = new URL(request.url, "http://site");
  const [prefix, folder] = Object.entries(PLACES).find(([prefix]) => pathname.startsWith(prefix));
  const type = TYPES[path.extname(pathname)];
  try {
    if (!type) throw new Error(`no type for ${pathname}`);
    const text = await readFile(path.join(folder, pathname.slice(prefix.length)));
    response.writeHead(200, { "content-type": type }).end(text);
  } catch {
    response.writeHead(404).end();
  }
}

/** Opens the page. `report` is called with what its functions report. */
export async function openPage(report) {
  const site = createServer(serve).listen(0, "127.0.0.1");
  site.unref();
  await once(site, "listening");
  const profile = await mkdtemp(path.join(tmpdir(), "tailwater-browser-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: FLAGS,
  });
  const faults = [];
  const page = await browser.newPage();
  page.on("pageerror", (error) => faults.push(error.message));
  await page.exposeFunction("report", report);
  await page.goto(`http://${SITE}:${site.address().port}/page.html`);
  await page.waitForFunction(() => globalThis.ask !== undefined);
  return {
    page,
    /** Errors that nobody in the page has caught. */
    faults,
    close: async () => {
      await browser.close();
      site.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}
