import { expect, it } from "vitest";
import { describeDatabases } from "./databases.test.support.js";
import { WebhookStore, type NewDelivery, type StoredWebhook } from "./webhooks.js";

const WEBHOOK: StoredWebhook = {
  webhook: "whk_1",
  url: "https://example.com/",
  events: ["io.fieldloop.rollout.state"],
  description: "a test",
  enabled: true,
  created: 1_800_000_000_000,
  createdBy: "ann",
  previousSecretUntil: null,
};
const delivery = (at: number, change: Partial<NewDelivery> = {}): NewDelivery => ({
  ...{ delivery: `msg_${at}`, webhook: "whk_1", type: "io.fieldloop.rollout.state", subject: "rol_1" },
  ...{ body: "{}", created: 1_800_000_000_000 + at, state: "pending", error: null },
  ...change,
});
const DONE = { state: "delivered", attempts: 1, nextAttempt: null, status: 204, error: null } as const;

describeDatabases("webhooks", (database) => {
  it("are kept, changed and forgotten with their deliveries, the secret apart", async () => {
    const store = new WebhookStore(database());
    await store.add(WEBHOOK, "whsec_x");
    expect(await store.get("whk_1")).toEqual(WEBHOOK);
    await store.save({ ...WEBHOOK, enabled: false, events: [] });
    expect(await store.list()).toEqual([{ ...WEBHOOK, enabled: false, events: [] }]);
    await store.addDelivery(delivery(1));
    expect(await store.nextDue()).toBe(null);
    await store.remove("whk_1");
    expect([await store.list(), await store.delivery("msg_1")]).toEqual([[], undefined]);
  });

  it("have the delivery that waited longest sent first, and page through what was", async () => {
    const store = new WebhookStore(database());
    await store.add(WEBHOOK, "whsec_x");
    for (const at of [2, 1, 3]) await store.addDelivery(delivery(at));
    await store.addDelivery(delivery(4, { state: "dead", error: "too many" }));
    expect(await store.counts("whk_1")).toEqual({ pending: 3, dead: 1 });
    expect(await store.nextDue()).toBe(1_800_000_000_001);
    expect(await store.due("whk_1", 1_800_000_000_000)).toBe(undefined);
    const due = await store.due("whk_1", 1_800_000_000_003);
    expect(due).toMatchObject({ delivery: "msg_1", url: WEBHOOK.url, secret: "whsec_x", attempts: 0 });
    await store.settle("msg_1", { ...DONE, finished: 1_800_000_000_009 });
    const page = await store.deliveries("whk_1", { limit: 2 });
    expect(page.map((one) => one.delivery)).toEqual(["msg_4", "msg_3"]);
    const { created, delivery: last } = page[1]!;
    const rest = await store.deliveries("whk_1", { limit: 9, before: { time: created, id: last } });
    expect(rest.map((one) => one.delivery)).toEqual(["msg_2", "msg_1"]);
    expect(rest[1]).toMatchObject({ state: "delivered", status: 204, finished: 1_800_000_000_009 });
  });

  it("forget old deliveries, and more than so many, but none that waits", async () => {
    const store = new WebhookStore(database());
    await store.add(WEBHOOK, "whsec_x");
    for (let at = 1; at <= 6; at++) await store.addDelivery(delivery(at));
    for (let at = 1; at <= 5; at++) await store.settle(`msg_${at}`, { ...DONE, finished: 100 * at });
    await store.prune(150, 0, 2);
    const left = await store.deliveries("whk_1", { limit: 9 });
    expect(left.map((one) => one.delivery)).toEqual(["msg_6", "msg_5", "msg_4"]);
  });
});
