import { chmod, lstat, mkdtemp, rename, rm } from "node:fs/promises";
import type { Server } from "node:http";
import { connect } from "node:net";
import { basename, dirname, join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { codeOf, reasonOf } from "./files.js";

const MODE = 0o600;
/** Of `sun_path` on Linux, less the zero at its end. */
const PATH_BYTES_MAX = 107;
/** `/.sXXXXXX/s` */
const TEMPORARY_BYTES = 11;
const PROBE_TIMEOUT_MS = 2_000;

/** A unix socket that a server listens on: for this user alone, from its first moment on. */
export class LocalSocket {
  readonly path: string;
  readonly #inode: bigint;

  private constructor(path: string, inode: bigint) {
    this.path = path;
    this.#inode = inode;
  }

  /**
   * Listens. A socket that nobody answers on is replaced, anything else that lies there is left alone.
   * @throws FieldloopError `conflict`, `invalid_argument`, `unavailable`
   */
  static async listen(server: Server, path: string): Promise<LocalSocket> {
    await checkFree(path);
    // Bound in a folder that is closed to others, then moved: at no moment is it there with the rights of the umask.
    checkLength(path);
    const folder = await mkdtemp(join(dirname(path), ".s")).catch((cause: unknown) => {
      throw refused(path, reasonOf(cause), cause);
    });
    const temporary = join(folder, "s");
    try {
      await bind(server, temporary, path);
      await chmod(temporary, MODE);
      await rename(temporary, path);
      const { ino } = await lstat(path, { bigint: true });
      return new LocalSocket(path, ino);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** After the server was closed. One that another program put in its place stays. */
  async remove(): Promise<void> {
    const info = await lstat(this.path, { bigint: true }).catch(() => undefined);
    if (info?.ino === this.#inode) await rm(this.path, { force: true });
  }
}

/** libuv cuts a path that is too long, and would listen somewhere else. */
function checkLength(path: string): void {
  const folderBytesMax = PATH_BYTES_MAX - TEMPORARY_BYTES;
  if (Buffer.byteLength(path) <= PATH_BYTES_MAX && Buffer.byteLength(dirname(path)) <= folderBytesMax) return;
  throw new FieldloopError(
    "invalid_argument",
    `Open socket "${path.slice(0, 200)}": its path may have ${PATH_BYTES_MAX} bytes, its folder ${folderBytesMax}`,
  );
}

async function checkFree(path: string): Promise<void> {
  const info = await lstat(path).catch((cause: unknown) => {
    if (codeOf(cause) === "ENOENT") return undefined;
    throw refused(path, reasonOf(cause), cause);
  });
  if (!info) return;
  if (!info.isSocket()) {
    throw new FieldloopError(
      "conflict",
      `Open socket "${basename(path)}": something else than a socket has the name`,
    );
  }
  if (await answers(path)) {
    throw new FieldloopError("conflict", `Open socket "${basename(path)}": another program answers on it`);
  }
}

/** True unless it is certain that nobody listens. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const end = (result: boolean): void => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => end(true));
    socket.once("connect", () => end(true));
    socket.once("error", (error) => end(codeOf(error) !== "ECONNREFUSED" && codeOf(error) !== "ENOENT"));
  });
}

function bind(server: Server, temporary: string, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error): void => reject(refused(path, cause.message, cause));
    server.once("error", failed);
    server.listen({ path: temporary }, () => {
      server.off("error", failed);
      resolve();
    });
  });
}

function refused(path: string, reason: string, cause: unknown): FieldloopError {
  return new FieldloopError("unavailable", `Open socket "${basename(path)}": ${reason}`, { cause });
}
