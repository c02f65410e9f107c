import type { IncomingHttpHeaders } from "node:http";
import { FieldloopError } from "@fieldloop/protocol";

export interface LocalAppForm {
  /** Whether only requests to a loopback name are answered: over TCP a browser may be tricked into asking. */
  readonly checksHost: boolean;
}

const LOOPBACK_HOST = /^(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?$/i;

/** @throws FieldloopError `forbidden` for another host name, and for a page of another origin */
export function refuseStrangers(
  { host = "", origin }: IncomingHttpHeaders,
  { checksHost }: LocalAppForm,
): void {
  const originHost = origin?.replace(/^https?:\/\//, "");
  if (
    (checksHost && !LOOPBACK_HOST.test(host)) ||
    (originHost !== undefined && !LOOPBACK_HOST.test(originHost))
  ) {
    throw new FieldloopError("forbidden", "The local interface answers programs of this machine only");
  }
}
