// A certificate for a gateway on this machine, made by the program `openssl`.
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";

/** Makes a certificate for 127.0.0.1 that is its own authority, and its key. Returns the paths of both files. */
export async function makeCertificate(folder) {
  const [certificate, key] = [path.join(folder, "tls.crt"), path.join(folder, "tls.key")];
  const args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  args.push("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1");
  await promisify(execFile)("openssl", [...args, "-out", certificate, "-keyout", key]);
  return { certificate, key };
}
