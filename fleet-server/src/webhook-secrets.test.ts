import { mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page, Webhook, WebhookDelivery } from "@fieldloop/protocol";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startTestServer, until, type TestServer } from "./kit.test.support.js";
import { signWebhook } from "./services/webhook-post.js";
import { WebhookStore } from "./store/webhooks.js";

const heard: { body: string; id: string; seconds: number; signature: string }[] = [];
const receiver: Server = createServer((request, response) => {
  const parts: Buffer[] = [];
  request.on("data", (part: Buffer) => parts.push(part));
  request.on("end", () => {
    const said = (name: string): string => String(request.headers[`webhook-${name}`]);
    const body = Buffer.concat(parts).toString();
    heard.push({ body, id: said("id"), seconds: Number(said("timestamp")), signature: said("signature") });
    response.writeHead(204).end();
  });
});
beforeAll(() => new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve)));
afterAll(() => new Promise((resolve) => receiver.close(resolve)));

let dataDir = "";
let server: TestServer | undefined;
beforeEach(async () => {
  heard.length = 0;
  dataDir = await mkdtemp(join(tmpdir(), "fieldloop-webhook-secrets-"));
});
afterEach(async () => {
  await server?.stop();
  server = undefined;
  await rm(dataDir, { recursive: true, force: true });
});

async function start(options: Parameters<typeof startTestServer>[0] = {}): Promise<TestServer> {
  await server?.stop();
  server = await startTestServer({ dataDir, webhooks: { allowPrivate: true, retryMs: 20 }, ...options });
  return server;
}
const url = (): string => `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`;
const make = (): Promise<Webhook> => server!.api.ok("POST", "/api/v1/webhooks", { url: url() });

async function ping({ webhook }: Webhook) {
  const before = heard.length;
  await server!.api.ok("POST", `/api/v1/webhooks/${webhook}/test`);
  await until("it was told", () => heard.length > before);
  return heard.at(-1)!;
}
const signed = (one: (typeof heard)[number], secrets: string[]): boolean =>
  signWebhook(secrets, one)["webhook-signature"] === one.signature;

/** Everything in the folder but the keys. */
async function stored(): Promise<string> {
  const names = await readdir(dataDir);
  const files = names.filter((name) => name.startsWith("fieldloop.db"));
  return Buffer.concat(await Promise.all(files.map((name) => readFile(join(dataDir, name))))).toString(
    "latin1",
  );
}

describe("secrets of webhooks", () => {
  it("are in no file of the database, nor are answers that told them", async () => {
    const { api } = await start();
    const headers = { "Idempotency-Key": "once" };
    const body = { url: url() };
    const first = (await (await api.send("POST", "/api/v1/webhooks", body, headers)).json()) as Webhook;
    const again = (await (await api.send("POST", "/api/v1/webhooks", body, headers)).json()) as Webhook;
    expect(again).toEqual(first);
    expect(signed(await ping(first), [first.secret!])).toBe(true);
    expect(await stored()).not.toContain(first.secret!.slice("whsec_".length));
  });

  it("of before are encrypted at the next start, and nothing of them stays in the file", async () => {
    const { database } = await start();
    const webhook = await make();
    const plain = `whsec_${Buffer.alloc(24, 7).toString("base64")}`;
    await new WebhookStore(database).saveSecrets(webhook.webhook, { secret: plain, previous: null });
    await start();
    expect(signed(await ping(webhook), [plain])).toBe(true);
    await server!.stop();
    expect(await stored()).not.toContain(plain.slice("whsec_".length));
  });

  it("are encrypted anew with a new key, and the old one is forgotten", async () => {
    const headers = { "Idempotency-Key": "kept" };
    const asked = async (): Promise<Webhook> =>
      (await (await server!.api.send("POST", "/api/v1/webhooks", { url: url() }, headers)).json()) as Webhook;
    await start();
    const webhook = await asked();
    const keys = (): Promise<string[]> => readdir(join(dataDir, "secret-keys"));
    const before = await keys();
    await start({ rotateSecretKey: true });
    expect(await keys()).toHaveLength(1);
    expect(await keys()).not.toEqual(before);
    expect(signed(await ping(webhook), [webhook.secret!])).toBe(true);
    // An answer that was kept for a repeated request tells the same again.
    expect(await asked()).toEqual(webhook);
  });

  it("keep deliveries waiting, with the reason, while their key is missing; the key or a new secret sends them", async () => {
    await start();
    const webhook = await make();
    await server!.stop();
    const folder = join(dataDir, "secret-keys");
    const [name] = await readdir(folder);
    await rename(join(folder, name!), join(dataDir, name!));
    await start();
    const path = `/api/v1/webhooks/${webhook.webhook}`;
    await server!.api.ok("POST", `${path}/test`);
    let waits: WebhookDelivery | undefined;
    await until("it says why it waits", async () => {
      const page = await server!.api.ok<Page<WebhookDelivery>>("GET", `${path}/deliveries`);
      waits = page.items.find(({ error }) => error !== null);
      return waits !== undefined;
    });
    expect(waits).toMatchObject({ state: "pending", attempts: 0 });
    expect(waits!.error).toMatch(/^secret_key_missing: .*\.key\.json/);
    const changed = await server!.api.ok<Webhook>("PATCH", path, { rotateSecret: "at_once" });
    await until("it was told", () => heard.length === 1);
    expect(signed(heard[0]!, [changed.secret!])).toBe(true);
  });

  it("are replaced with the old one beside it for a day, or at once", async () => {
    const time = { now: Date.now() };
    await start({ clock: { now: () => time.now } });
    const webhook = await make();
    const path = `/api/v1/webhooks/${webhook.webhook}`;
    const rotate = (how: string): Promise<Webhook> => server!.api.ok("PATCH", path, { rotateSecret: how });
    const second = await rotate("overlap");
    expect(second.previousSecretUntil).toBe(time.now + 24 * 3_600_000);
    expect(signed(await ping(webhook), [second.secret!, webhook.secret!])).toBe(true);
    time.now += 24 * 3_600_000;
    expect(signed(await ping(webhook), [second.secret!])).toBe(true);
    expect(await server!.api.ok("GET", path)).toMatchObject({ previousSecretUntil: null });
    await rotate("overlap");
    const last = await rotate("at_once");
    expect(last.previousSecretUntil).toBeNull();
    expect(signed(await ping(webhook), [last.secret!])).toBe(true);
    const audit = await server!.api.ok("GET", `/api/v1/audit?subject=webhook:${webhook.webhook}`);
    expect(JSON.stringify(audit)).toContain("webhook.secret_rotated");
    expect(JSON.stringify(audit)).not.toContain("whsec_");
    expect(await server!.api.refused("PATCH", path, { rotateSecret: "soon" })).toEqual([400, "invalid_body"]);
  });
});
