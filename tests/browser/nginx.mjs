// nginx in front of a gateway, with the logs that docs/security.md tells operators to have.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

const PAGE = path.join(import.meta.dirname, "../../docs/security.md");
const START_LIMIT_MS = 10_000;
const TEMPORARY = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];

/** What the page on security says that a proxy's logs should be. */
async function advised() {
  const block = /```nginx\n([^]*?)```/.exec(await readFile(PAGE, "utf8"));
  if (!block) throw new Error("docs/security.md has no configuration of nginx");
  return block[1];
}

/** What NGINX_BIN names, or the program where Debian puts it. */
async function program() {
  if (process.env.NGINX_BIN) return process.env.NGINX_BIN;
  try {
    await access("/usr/sbin/nginx");
    return "/usr/sbin/nginx";
  } catch {
    return "nginx";
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

async function listens(port) {
  const socket = connect(port, "127.0.0.1");
  const listening = await new Promise((resolve) => {
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
  });
  socket.destroy();
  return listening;
}

/** Starts it. `logs()` is all that it has logged. */
export async function nginx(gatewayUrl) {
  const folder = await mkdtemp(path.join(tmpdir(), "tailwater-nginx-"));
  await mkdir(path.join(folder, "logs"));
  const port = await freePort();
  const places = TEMPORARY.map((what) => `${what}_temp_path ${folder}/${what};`).join("\n");
  const config = `daemon off;
    master_process off;
    pid ${folder}/nginx.pid;
    events {}
    http {
      ${places}
      ${await advised()}
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass ${gatewayUrl};
          proxy_http_version 1.1;
          proxy_set_header Connection "";
          proxy_set_header Host $http_host;
          proxy_buffering off;
        }
      }
    }`;
  const file = path.join(folder, "nginx.conf");
  await writeFile(file, config);
  const child = spawn(await program(), ["-p", folder, "-c", file, "-e", "logs/start.log"], { stdio: "ignore" });
  const ended = once(child, "exit");
  ended.catch(() => {});
  const logs = async () => {
    const read = (name) => readFile(path.join(folder, "logs", name), "utf8").catch(() => "");
    return Object.fromEntries(await Promise.all(["access.log", "error.log", "start.log"].map(async (name) => [name, await read(name)])));
  };
  const stop = async () => {
    child.kill("SIGTERM");
    await ended.catch(() => {});
    await rm(folder, { recursive: true, force: true });
  };
  const deadline = Date.now() + START_LIMIT_MS;
  while (!(await listens(port))) {
    if (child.exitCode !== null || Date.now() > deadline) {
      const why = JSON.stringify(await logs());
      await stop();
      throw new Error(`nginx does not listen: ${why}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { url: `http://127.0.0.1:${port}`, logs, stop };
}
