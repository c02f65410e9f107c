import type { Server } from "node:net";
import { FieldloopError } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "./limits.js";

/**
 * Makes a server listen.
 * @param what for people: what cannot be reached where it fails
 * @throws FieldloopError `unavailable` where the port is in use, not allowed, or the address is not this machine's
 */
export async function listenOn(server: Server, port: number, host: string, what: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException): void =>
      reject(
        new FieldloopError("unavailable", `Listen for ${what} on ${host}:${port}: ${reasonOf(cause)}`, {
          cause,
        }),
      );
    server.once("error", failed);
    server.listen({ port, host, backlog: SERVER_LIMITS.listenBacklog }, () => {
      server.off("error", failed);
      resolve();
    });
  });
}

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: "the port is in use; stop what uses it or choose another",
  EACCES: "this user may not use the port; choose one above 1023",
  EADDRNOTAVAIL: "the address is not one of this machine",
  ENOTFOUND: "the address is not one of this machine",
};

function reasonOf({ code, message }: NodeJS.ErrnoException): string {
  return REASONS[code ?? ""] ?? message;
}
