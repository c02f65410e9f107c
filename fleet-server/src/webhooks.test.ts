import { createHmac } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { cloudEventSchema, type Page, type Webhook, type WebhookDelivery } from "@fieldloop/protocol";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { enrol, silent, startTestServer, until, type TestServer } from "./kit.test.support.js";
import { isPrivateAddress, postWebhook } from "./services/webhook-post.js";

interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** A system that is told of things: it answers by the path. */
class Receiver {
  readonly received: Received[] = [];
  readonly answers = new Map<string, number | "never">();
  readonly #server: Server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const path = request.url!;
      this.received.push({ path, headers: request.headers, body: Buffer.concat(parts).toString() });
      const answer = this.answers.get(path) ?? 204;
      if (answer === "never") return;
      response.writeHead(answer, answer === 302 ? { location: "/followed" } : {});
      response.end(answer === 200 ? Buffer.alloc(1024 * 1024) : undefined);
    });
  });

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  url(path: string): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${path}`;
  }

  at(path: string): Received[] {
    return this.received.filter((one) => one.path === path);
  }

  async end(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const receiver = new Receiver();
const logged: string[] = [];
let server: TestServer;
beforeAll(async () => {
  await receiver.listen();
  const log = (fields: object, message: string): void =>
    void logged.push(JSON.stringify({ fields, message }));
  server = await startTestServer({
    logger: { ...silent, info: log, warn: log, error: log, debug: log },
    webhooks: { allowPrivate: true, retryMs: 20, attemptsMax: 3, timeoutMs: 300 },
  });
  await enrol(server, "cam-1");
});
afterAll(async () => {
  await server.end();
  await receiver.end();
});

const made: Webhook[] = [];
afterEach(async () => {
  for (const { webhook } of made.splice(0)) await server.api.ok("DELETE", `/api/v1/webhooks/${webhook}`);
});

async function make(path: string, body: object = {}): Promise<Webhook> {
  const webhook = await server.api.ok<Webhook>("POST", "/api/v1/webhooks", {
    url: receiver.url(path),
    ...body,
  });
  made.push(webhook);
  return webhook;
}

/** Nothing that these tests do makes one: only pings come. */
const QUIET = { events: ["io.fieldloop.rollout.action"] };

async function deliveries({ webhook }: Webhook): Promise<WebhookDelivery[]> {
  return (await server.api.ok<Page<WebhookDelivery>>("GET", `/api/v1/webhooks/${webhook}/deliveries`)).items;
}

/** Every attempt that is never answered waits for its timeout, one after the other. */
const SETTLED_MS = 20_000;

async function settled(webhook: Webhook, state: WebhookDelivery["state"]): Promise<WebhookDelivery> {
  let found: WebhookDelivery | undefined;
  await until(
    `a delivery is ${state}`,
    async () => {
      found = (await deliveries(webhook)).find((one) => one.state === state);
      return found !== undefined;
    },
    SETTLED_MS,
  );
  return found!;
}

/** As docs/webhooks.md says it is done. */
function isSigned({ headers, body }: Received, secret: string): boolean {
  const key = Buffer.from(secret.slice("whsec_".length), "base64");
  const signed = `${String(headers["webhook-id"])}.${String(headers["webhook-timestamp"])}.${body}`;
  return headers["webhook-signature"] === `v1,${createHmac("sha256", key).update(signed).digest("base64")}`;
}

const ROLLOUT = {
  change: { kind: "config", policy: { predictionsIntervalSeconds: 7 } },
  target: { devices: ["cam-1"] },
  waves: [{ percent: 100 }],
};

describe("webhooks", () => {
  it("tell what happens to a rollout, signed, in CloudEvents", async () => {
    const webhook = await make("/ok");
    await server.api.ok("POST", "/api/v1/rollouts", ROLLOUT);
    await until("it was told", () => receiver.at("/ok").length >= 2);
    const events = receiver.at("/ok").map(({ body }) => cloudEventSchema.parse(JSON.parse(body)));
    expect(events.map(({ type }) => type)).toContain("io.fieldloop.rollout.created");
    expect(events.map(({ type }) => type)).toContain("io.fieldloop.rollout.state");
    expect(new Set(events.map(({ id }) => id)).size).toBe(events.length);
    for (const one of receiver.at("/ok")) {
      expect(one.headers["content-type"]).toBe("application/cloudevents+json; charset=utf-8");
      expect(isSigned(one, webhook.secret!)).toBe(true);
      expect(isSigned({ ...one, body: `${one.body} ` }, webhook.secret!)).toBe(false);
    }
  });

  it("show the secret once, log it never, and write down who did what", async () => {
    const webhook = await make("/secret");
    expect(webhook.secret).toMatch(/^whsec_[0-9A-Za-z+/]{32}$/);
    const path = `/api/v1/webhooks/${webhook.webhook}`;
    await server.api.ok("POST", `${path}/test`);
    await settled(webhook, "delivered");
    await server.api.ok("PATCH", path, { description: "of the line" });
    const said = [
      await server.api.ok("GET", path),
      await server.api.ok("GET", "/api/v1/webhooks"),
      await deliveries(webhook),
      await server.api.ok("GET", `/api/v1/audit?subject=webhook:${webhook.webhook}`),
      logged,
    ];
    expect(JSON.stringify(said)).not.toContain(webhook.secret!.slice("whsec_".length));
    const audit = JSON.stringify(said[3]);
    for (const action of ["webhook.created", "webhook.tested", "webhook.changed"])
      expect(audit).toContain(action);
  });

  it("are sent only what they ask for", async () => {
    await make("/verdicts", { events: ["io.fieldloop.rollout.verdict"] });
    const all = await make("/all");
    await server.api.ok("POST", "/api/v1/rollouts", ROLLOUT);
    await settled(all, "delivered");
    expect(receiver.at("/verdicts")).toEqual([]);
  });

  it("are tried again under the same id, given up after the last attempt, and sent again by hand", async () => {
    receiver.answers.set("/broken", 500);
    const webhook = await make("/broken", QUIET);
    await server.api.ok("POST", `/api/v1/webhooks/${webhook.webhook}/test`);
    const dead = await settled(webhook, "dead");
    expect(dead).toMatchObject({ attempts: 3, status: 500, error: "it answered 500" });
    expect(new Set(receiver.at("/broken").map(({ headers }) => headers["webhook-id"]))).toEqual(
      new Set([dead.delivery]),
    );
    receiver.answers.set("/broken", 200);
    const path = `/api/v1/webhooks/${webhook.webhook}/deliveries/${dead.delivery}/resend`;
    await server.api.ok("POST", path);
    expect(await settled(webhook, "delivered")).toMatchObject({ attempts: 1, status: 200 });
    expect(await server.api.refused("POST", path)).toEqual([409, "conflict"]);
  });

  it("follow no redirect", async () => {
    receiver.answers.set("/moved", 302);
    const webhook = await make("/moved", QUIET);
    await server.api.ok("POST", `/api/v1/webhooks/${webhook.webhook}/test`);
    expect(await settled(webhook, "dead")).toMatchObject({ status: 302, error: "it answered 302" });
    expect(receiver.at("/followed")).toEqual([]);
  });

  it("do not wait for each other: one that never answers holds up only itself", async () => {
    receiver.answers.set("/stuck", "never");
    const stuck = await make("/stuck", QUIET);
    const quick = await make("/quick", QUIET);
    for (let one = 0; one < 3; one++) {
      await server.api.ok("POST", `/api/v1/webhooks/${stuck.webhook}/test`);
      await server.api.ok("POST", `/api/v1/webhooks/${quick.webhook}/test`);
    }
    await until("the quick one was told", () => receiver.at("/quick").length === 3);
    expect((await deliveries(stuck)).filter(({ state }) => state === "delivered")).toEqual([]);
    expect((await settled(stuck, "dead")).error).toBe("no answer in 300 ms");
  });

  it("go to no private address, by whatever name", async () => {
    for (const address of [
      ...["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"],
      ...[
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "224.0.0.1",
      ],
    ])
      expect(isPrivateAddress(address), address).toBe(true);
    for (const address of ["1.1.1.1", "93.184.216.34", "2606:4700::1111"])
      expect(isPrivateAddress(address), address).toBe(false);
    // A name that leads to this machine: the address that would be connected to is refused, whatever the name says.
    const post = {
      headers: {},
      body: "{}",
      allowPrivate: false,
      timeoutMs: 1000,
      signal: new AbortController().signal,
    };
    await expect(postWebhook({ ...post, url: "https://localhost/x" })).rejects.toThrow("private address");
    await expect(postWebhook({ ...post, url: "https://127.0.0.1/x" })).rejects.toThrow("private addresses");
  });
});
