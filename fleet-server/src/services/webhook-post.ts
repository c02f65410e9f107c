import { createHmac } from "node:crypto";
import { lookup as resolveName } from "node:dns";
import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { FieldloopError } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "../limits.js";

/**
 * One POST of a webhook. Parties: an administrator of this server names the address; whoever owns the name decides where it leads, and
 * may change that between two look-ups; what answers is not trusted. So the address that is really connected to is judged (never a
 * name alone), redirects are not followed, an answer is read up to a few kilobytes and thrown away, and nothing of it is shown but its
 * status.
 */

/** Addresses that are not the public internet: RFC 6890's registry, and what translates into IPv4 (RFC 4291, 6052, 3056). */
const PRIVATE_V4 = blockList("ipv4", [
  ...["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"],
  ...["192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"],
  ...["198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"],
]);
/** A list of its own: Node's takes an IPv4 address for one of `::ffff:0:0/96`. */
const PRIVATE_V6 = blockList("ipv6", [
  ...["::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32"],
  ...["2002::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"],
]);

function blockList(family: "ipv4" | "ipv6", nets: readonly string[]): BlockList {
  const list = new BlockList();
  for (const net of nets) {
    const [address, bits] = net.split("/");
    list.addSubnet(address!, Number(bits), family);
  }
  return list;
}

/** Whether an IP address may not be posted to: loopback, private, link-local (cloud metadata), multicast, reserved. */
export function isPrivateAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 6) return PRIVATE_V6.check(address, "ipv6");
  return family === 0 || PRIVATE_V4.check(address, "ipv4");
}

/** @throws FieldloopError `invalid_argument` for an address that no delivery would go to, as far as it can be told without a look-up */
export function checkWebhookUrl(text: string, allowPrivate: boolean): void {
  const url = new URL(text);
  const refuse = (what: string): never => {
    throw new FieldloopError("invalid_argument", `Webhook address "${url.origin}": ${what}`);
  };
  if (url.username !== "" || url.password !== "") refuse("it holds a user or password");
  if (allowPrivate) return;
  if (url.protocol !== "https:")
    refuse("http is only taken where the server runs with --webhooks-private; use https");
  if (isIP(hostOf(url)) !== 0 && isPrivateAddress(hostOf(url)))
    refuse("private addresses are only taken where the server runs with --webhooks-private");
}

/** Headers of Standard Webhooks 1.0 (https://www.standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`, key in base64 behind `whsec_`; one signature for each secret. */
export function signWebhook(
  secrets: readonly string[],
  { id, seconds, body }: { readonly id: string; readonly seconds: number; readonly body: string },
): Record<string, string> {
  const signatures = secrets.map((secret) => {
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    return `v1,${createHmac("sha256", key).update(`${id}.${seconds}.${body}`).digest("base64")}`;
  });
  return {
    "webhook-id": id,
    "webhook-timestamp": String(seconds),
    "webhook-signature": signatures.join(" "),
  };
}

export interface WebhookPost {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly allowPrivate: boolean;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** @returns the status of the answer. @throws Error with a message that can be shown where there is none */
export async function postWebhook(post: WebhookPost): Promise<number> {
  const url = new URL(post.url);
  checkWebhookUrl(post.url, post.allowPrivate);
  const body = Buffer.from(post.body);
  const send = url.protocol === "https:" ? requestHttps : requestHttp;
  const signal = AbortSignal.any([post.signal, AbortSignal.timeout(post.timeoutMs)]);
  return new Promise((resolve, reject) => {
    const request = send(
      url,
      {
        method: "POST",
        // A connection of its own: none is kept to an address that was judged once.
        agent: false,
        signal,
        lookup: guardedLookup(post.allowPrivate),
        headers: {
          ...post.headers,
          "content-type": "application/cloudevents+json; charset=utf-8",
          "content-length": body.length,
          "user-agent": "fieldloop-webhooks/1",
        },
      },
      (response) => {
        let bytes = 0;
        const done = (): void => {
          response.destroy();
          resolve(response.statusCode ?? 0);
        };
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > SERVER_LIMITS.webhookAnswerBytesMax) done();
        });
        response.once("end", done);
        response.once("error", reject);
      },
    );
    request.once("error", (error) =>
      reject(signal.aborted && !post.signal.aborted ? new Error(`no answer in ${post.timeoutMs} ms`) : error),
    );
    request.end(body);
  });
}

/** Resolves as the system does; the address that is handed to the connection is the one that was judged. */
function guardedLookup(allowPrivate: boolean): LookupFunction {
  return (hostname, options, callback) => {
    resolveName(hostname, { ...options, all: true }, (error, found) => {
      if (error) return callback(error, []);
      const addresses = allowPrivate ? found : found.filter(({ address }) => !isPrivateAddress(address));
      if (addresses.length === 0)
        return callback(new Error("its name leads to a private address") as NodeJS.ErrnoException, []);
      if (options.all) return callback(null, addresses);
      callback(null, addresses[0]!.address, addresses[0]!.family);
    });
  };
}

function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, "");
}
